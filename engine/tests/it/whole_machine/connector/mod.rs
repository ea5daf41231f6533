//! Test of the example connector, run as its README says, against a node on real Kafka and CQL: its records are
//! answered once, and unusable records are in the dead-letter topic with their reason.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use crate::serving::site::operator;
use heddle_connectors::clock::SystemClock;
use heddle_engine::service::Service;
use heddle_schemas::ports::clock::Clock as _;
use heddle_schemas::sealed::Secret;
use heddle_simulator::graph::{self, GraphApi};
use serde_json::{Value, json};

use heddle_connectors_testing::services::Services;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Installs the README's requirements, once for all runs of this checkout.
fn python() -> PathBuf {
    let venv = root().join("target/connector-venv");
    let python = venv.join("bin/python");
    let run = |command: &mut Command| {
        let done = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    };
    if !venv.join("ready").exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv));
        run(Command::new(&python).args(["-m", "pip", "install", "-q", "confluent-kafka", "jsonschema"]));
        std::fs::write(venv.join("ready"), "").unwrap();
    }
    python
}

fn connector(python: &Path, topic: &str, lines: &str) -> Output {
    let mut running = Command::new(python)
        .arg(root().join("deploy/examples/connector/connector.py"))
        .args(["--brokers", &Services::get().kafka, "--topic", topic])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    running.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    running.wait_with_output().unwrap()
}

fn record(id: &str, phone: &str, body: &str) -> Value {
    json!({
        "v": 1, "tenant": "acme", "channel": "whatsapp", "account": "1001", "message_id": id,
        "at": SystemClock.now().to_string(), "from": { "phone": phone },
        "event": { "type": "message", "content": { "type": "text", "body": body } },
    })
}

fn with(mut record: Value, field: &str, value: Value) -> Value {
    record[field] = value;
    record
}

async fn counted(client: &reqwest::Client, url: &str, series: &str) -> f64 {
    let text = client.get(format!("{url}/metrics")).send().await.unwrap().text().await.unwrap();
    let line = text.lines().find(|line| line.starts_with(series));
    line.and_then(|line| line.rsplit(' ').next()).and_then(|value| value.parse().ok()).unwrap_or(0.0)
}

async fn soon(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(60), waited).await.is_ok(), "not soon: {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_connector_in_python_publishes_is_answered_once_and_what_is_wrong_is_put_aside() {
    let _alone = crate::whole_machine::alone().await;
    let folder = tempfile::tempdir().unwrap();
    let config = crate::on_services::prepared("connector", folder.path()).await;
    let numbers = [("1001".parse().unwrap(), Secret::new("token"))].into();
    let options = graph::Options { numbers, ..graph::Options::default() };
    let graph = GraphApi::start(options, Arc::new(SystemClock)).await.unwrap();
    let topic = format!("{}ingress", config.log.topic_prefix);
    let service = Service::start(config).await.unwrap();
    let url = format!("http://{}", service.admin_address);
    let client = operator(&service);
    let tenant = json!({
        "id": "acme", "name": "Acme", "agent": { "settle": "0s", "fallback": "We will call you." },
        "channels": [{ "kind": "whatsapp", "account": "1001", "api_base": graph.api_base(),
            "access_token": "token", "app_secret": "secret", "verify_token": "verify" }],
    });
    let applied = client.put(format!("{url}/v1/tenants/acme")).json(&tenant).send().await;
    assert!(applied.unwrap().status().is_success());

    let python = tokio::task::spawn_blocking(python).await.unwrap();
    let good =
        [record("m-1", "+4915112345678", "When are you open?"), record("m-2", "+4915112345679", "Where?")];
    let bad = [
        with(record("m-3", "+4915112345670", "?"), "tenant", json!("nobody")),
        with(record("m-4", "+4915112345670", "?"), "account", json!("2002")),
        with(record("m-5", "+4915112345670", "?"), "at", json!("2999-01-01T00:00:00Z")),
    ];
    let lines = |records: &[Value]| records.iter().map(|record| format!("{record}\n")).collect::<String>();
    // Published twice, as after a lost acknowledgement.
    let text = lines(&good) + &lines(&bad) + &lines(&good);
    let done = tokio::task::spawn_blocking({
        let (python, topic) = (python.clone(), topic.clone());
        move || connector(&python, &topic, &text)
    });
    let done = done.await.unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    soon("both are answered", async || graph.counts().taken >= 2).await;
    for reason in ["unknown_tenant", "account", "future"] {
        let series = format!("heddle_dlq_records_total{{reason=\"{reason}\"}}");
        soon(reason, async || counted(&client, &url, &series).await >= 1.0).await;
    }
    soon("the doubles are recognised", async || {
        counted(&client, &url, "heddle_conversation_duplicates_total").await >= 2.0
    })
    .await;
    assert_eq!(graph.counts().taken, 2, "each is answered once");

    // What the schema refuses does not leave the connector.
    let wrong = with(record("m-6", "+4915112345670", "?"), "v", json!("one")).to_string();
    let done = tokio::task::spawn_blocking(move || connector(&python, &topic, &wrong)).await.unwrap();
    assert_eq!(done.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&done.stderr).contains("line 1: refused"));
    assert!(service.stop().await);
}
