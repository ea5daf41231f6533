//! Dead letters, as an operator looks at them and puts them back: by HTTP, by command, and on a folder that
//! no process has open.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use heddle_connectors::clock::SystemClock;
use heddle_schemas::content::{Address, Content, Context};
use heddle_schemas::id::{ConversationId, MessageKey};
use heddle_schemas::ports::log::NewRecord;
use heddle_schemas::record::inbound::{ActKind, CustomerAct, InboundEvent, InboundRecord, SealedAct};
use heddle_schemas::record::{V, encode, log_aad};
use heddle_schemas::sealed::Secret;
use heddle_schemas::topic::{Topic, TopicPartition, inbound_partition};
use heddle_simulator::graph::{self, GraphApi};
use serde_json::{Value, json};

use crate::serving::site::{ADMIN_TOKEN, ADMIN_TOKEN_VARIABLE, Site};

/// A question to a tenant that is not there yet.
async fn ask(site: &Site, number: u8) -> ConversationId {
    let ports = &site.service.node.ports;
    let conversation: ConversationId =
        format!("initech/whatsapp/1001/{}", hex::encode([number; 16])).parse().unwrap();
    let key = MessageKey::from_bytes([number; 16]);
    let from = Address { phone: Some(format!("1555000{number:04}")), ..Address::default() };
    let content = Some(Content::Text { body: "where is my order".into() });
    let act = SealedAct { id: "wamid.1".into(), from, content, emoji: None, context: Context::default() };
    let now = ports.clock.now();
    let cipher = ports.keys.log(&conversation.tenant, now.day()).await.unwrap();
    let sealed = cipher.seal(&log_aad(Topic::Inbound, &key), &encode(&act));
    let act = CustomerAct { key, sent_at: now, kind: ActKind::Say, target: None, sealed, also: Vec::new() };
    let event = InboundEvent::Customer(act);
    let record = InboundRecord { v: V, conversation: conversation.clone(), at: now, event };
    let partition = inbound_partition(&conversation, ports.log.partitions(Topic::Inbound));
    append(site, partition, &conversation.to_string(), encode(&record)).await;
    conversation
}

async fn append(site: &Site, partition: TopicPartition, key: &str, value: impl Into<bytes::Bytes>) {
    let key = bytes::Bytes::copy_from_slice(key.as_bytes());
    let record = NewRecord { partition, key, value: value.into() };
    site.service.node.ports.log.append(vec![record]).await.unwrap();
}

/// Waits until a metric is so high.
async fn until(site: &Site, series: &str, value: f64) {
    let reached = async {
        while site.sum(series).await < value {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let reached = tokio::time::timeout(Duration::from_secs(20), reached).await;
    assert!(reached.is_ok(), "{series} is {} and not {value}", site.sum(series).await);
}

async fn heddle(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heddle"));
    command.env(ADMIN_TOKEN_VARIABLE, ADMIN_TOKEN);
    command.current_dir(folder).arg("dlq").args(arguments);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

#[tokio::test]
async fn an_operator_looks_at_a_letter_mends_the_cause_and_replays_it() {
    let numbers = [("1001".parse().unwrap(), Secret::new("t0ken"))].into();
    let options = graph::Options { numbers, ..graph::Options::default() };
    let graph = GraphApi::start(options, Arc::new(SystemClock)).await.unwrap();
    let site = Site::start(|_| ()).await;
    let here = tempfile::tempdir().unwrap();
    let url = site.url.clone();
    let dlq = async |arguments: &[&str]| heddle(here.path(), &[&["--url", &url], arguments].concat()).await;

    let conversation = ask(&site, 1).await;
    until(&site, "heddle_dlq_records_total", 1.0).await;
    append(&site, inbound_partition(&conversation, 8), "+15550001", "{\"v\":7,\"text\":\"\"}").await;
    until(&site, "heddle_dlq_records_total", 2.0).await;

    let listed = dlq(&["list"]).await;
    let text = String::from_utf8(listed.stdout).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("ID") && lines[1].contains("unknown_tenant"), "{text}");
    assert!(lines[2].contains("version") && !text.contains("15551234"), "{text}");
    let id = lines[1].split(' ').next().unwrap();
    let filtered = json_of(&dlq(&["list", "--json", "--tenant", "initech", "--limit", "1"]).await);
    assert_eq!(filtered["items"].as_array().unwrap().len(), 1);
    assert_eq!(filtered["items"][0]["about"], json!(conversation.to_string()));
    let shown = json_of(&dlq(&["show", id, "--json"]).await);
    assert_eq!(shown["original"]["conversation"], json!(conversation.to_string()));
    assert!(!shown.to_string().contains("order"), "{shown}");
    let missing = dlq(&["show", "0-99"]).await;
    assert_eq!(missing.status.code(), Some(1));
    for wrong in [&["show", "99"][..], &["replay"], &["replay", id, "--all"], &["list", "--reason", "x"]] {
        assert_eq!(dlq(wrong).await.status.code(), Some(2), "{wrong:?}");
    }
    assert_eq!(dlq(&["replay", id, "--max-age", "11d"]).await.status.code(), Some(2));

    let tenant = json!({
        "id": "initech", "name": "Initech", "agent": { "settle": "0s" },
        "channels": [{ "kind": "whatsapp", "account": "1001", "api_base": graph.api_base(),
            "access_token": "t0ken", "app_secret": "s3cret", "verify_token": "ver1fy" }],
    });
    let put = site.client.put(format!("{}/v1/tenants/initech", site.url)).json(&tenant);
    assert_eq!(put.send().await.unwrap().status(), 200);
    assert_eq!(dlq(&["replay", id, "--dry-run"]).await.status.code(), Some(0));
    assert_eq!(site.sum("heddle_dlq_replayed_total").await, 0.0);
    let replayed = dlq(&["replay", "--all", "--reason", "unknown_tenant", "--json"]).await;
    assert_eq!(replayed.status.code(), Some(0), "{replayed:?}");
    assert_eq!(json_of(&replayed)["items"][0]["outcome"], json!("replayed"));
    until(&site, "heddle_account_sends_total", 1.0).await;
    assert_eq!(graph.taken_for("15550000001").len(), 1);

    // Once more, by HTTP, with one that there is not.
    let post = site.client.post(format!("{}/v1/dlq/replay", site.url)).json(&json!({ "ids": ["0-99", id] }));
    let answer: Value = post.send().await.unwrap().json().await.unwrap();
    let outcome = |of: &str| {
        let fates = answer["items"].as_array().unwrap();
        fates.iter().find(|fate| fate["id"] == of).map(|fate| fate["outcome"].clone())
    };
    assert_eq!((outcome(id), outcome("0-99")), (Some(json!("replayed")), Some(json!("unknown"))));
    until(&site, "heddle_conversation_duplicates_total", 1.0).await;
    assert_eq!(graph.taken_count(), 1);
    assert_eq!(site.sum("heddle_dlq_replayed_total").await, 3.0);
    let partly = dlq(&["replay", id, "0-99"]).await;
    assert_eq!(partly.status.code(), Some(1));
    assert!(String::from_utf8(partly.stdout).unwrap().contains("unknown"));
}

#[tokio::test]
async fn the_admin_api_says_what_is_wrong_about_letters() {
    let site = Site::start(|_| ()).await;
    let get = async |path: &str| site.client.get(format!("{}{path}", site.url)).send().await.unwrap();
    let empty: Value = get("/v1/dlq?limit=5&reason=poison&after=0-3,4-1").await.json().await.unwrap();
    assert_eq!(empty, json!({ "items": [] }));
    assert_eq!(get("/v1/dlq/0-0").await.status(), 404);
    for wrong in ["/v1/dlq/x", "/v1/dlq?reason=x", "/v1/dlq?after=x", "/v1/dlq?limit=-1", "/v1/dlq?x=1"] {
        assert_eq!(get(wrong).await.status(), 400, "{wrong}");
    }
    let replay = async |body: Value| {
        site.client.post(format!("{}/v1/dlq/replay", site.url)).json(&body).send().await.unwrap().status()
    };
    assert_eq!(replay(json!({ "filters": {}, "max_age": "2h", "dry_run": true })).await, 200);
    for wrong in [json!({}), json!({ "ids": [], "filters": {} }), json!({ "filters": {}, "max_age": "11d" })]
    {
        assert_eq!(replay(wrong.clone()).await, 422, "{wrong}");
    }
    let described: Value = get("/v1/openapi.json").await.json().await.unwrap();
    assert!(described.pointer("/paths/~1v1~1dlq~1replay/post/requestBody").is_some());
}

#[tokio::test]
async fn letters_of_a_folder_that_no_process_has_open_are_replayed_for_the_next_start() {
    let site = Site::start(|_| ()).await;
    let conversation = ask(&site, 2).await;
    until(&site, "heddle_dlq_records_total", 1.0).await;
    let data = site.service.node.config.data_dir.clone();
    let (service, _folder) = site.into_parts();
    let partition = inbound_partition(&conversation, service.node.ports.log.partitions(Topic::Inbound));
    assert!(service.stop().await);
    let here = tempfile::tempdir().unwrap();
    // No process listens on port 9.
    let config = format!("data_dir = \"{}\"\nhttp.admin_listen = \"127.0.0.1:9\"\n", data.display());
    std::fs::write(here.path().join("heddle.toml"), config).unwrap();
    let listed = json_of(&heddle(here.path(), &["list", "--json"]).await);
    assert_eq!(listed["items"][0]["reason"], json!("unknown_tenant"));
    let replayed = json_of(&heddle(here.path(), &["replay", "--all", "--json"]).await);
    assert_eq!(replayed["items"][0]["to"], json!(format!("{partition}@1")));
}
