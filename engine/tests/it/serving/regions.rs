//! Regions: stores keep theirs, and data of another one is refused wherever it turns up.

use std::process::Command;

use heddle_engine::service::Service;
use heddle_schemas::config::Config;
use heddle_schemas::ports::log::{NewRecord, Record};
use heddle_schemas::record::encode;
use heddle_schemas::record::tenants::TenantRecord;
use heddle_schemas::topic::Topic;
use serde_json::{Value, json};

use crate::serving::channels::{fetched, records, until};
use crate::serving::site::{Site, message, webhook};

#[tokio::test]
async fn a_folder_of_another_region_is_not_opened_and_it_is_said_what_to_do() {
    let site = Site::with_acme().await;
    let (service, folder) = site.into_parts();
    service.stop().await;
    let mut config = Config { data_dir: folder.path().join("data"), ..Config::default() };
    config.http.listen = "127.0.0.1:0".parse().unwrap();
    config.security.private_addresses = heddle_schemas::network::Networks::loopback();
    config.node.region = "us".into();
    let refused = Service::start(config.clone()).await.err().unwrap().to_string();
    assert!(
        refused.contains("belongs to region \"eu\"") && refused.contains("node.region is \"us\""),
        "{refused}"
    );

    // A command reports the same, and exits with 2. No process listens at this address.
    let file = folder.path().join("heddle.toml");
    let data = folder.path().join("data");
    let text = |region: &str| {
        format!("data_dir = {data:?}\n[node]\nregion = {region:?}\n[http]\nlisten = \"127.0.0.1:9\"\n")
    };
    let run = |region: &str, arguments: &[&str]| {
        std::fs::write(&file, text(region)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_heddle"));
        let output = command.arg("--config").arg(&file).args(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, _, printed) = run("us", &["tenant", "list"]);
    assert_eq!(code, Some(2), "{printed}");
    assert!(
        printed.contains("set node.region = \"eu\"") || printed.contains("Set node.region = \"eu\""),
        "{printed}"
    );
    let (code, listed, printed) = run("eu", &["tenant", "show", "acme"]);
    assert_eq!(code, Some(0), "{printed}");
    assert!(listed.contains("region = \"eu\""), "{listed}");

    let tenant = folder.path().join("globex.toml");
    std::fs::write(&tenant, "id = \"globex\"\nname = \"G\"\nregion = \"us\"\n").unwrap();
    let (code, printed, _) = run("eu", &["check-config", tenant.to_str().unwrap()]);
    assert_eq!(code, Some(2));
    assert!(printed.contains("good, region eu") && printed.contains("node.region is \"eu\""), "{printed}");
    let (code, _, printed) = run("eu", &["tenant", "apply", tenant.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("region \"us\"") && printed.contains("\"eu\""), "{printed}");
}

#[tokio::test]
async fn a_tenant_of_another_region_is_not_taken_and_the_answer_names_both() {
    let site = Site::with_acme().await;
    let tenant = json!({ "id": "globex", "name": "Globex", "region": "us" });
    let put = site.client.put(format!("{}/v1/tenants/globex", site.url)).json(&tenant);
    let answer = put.send().await.unwrap();
    assert_eq!(answer.status(), 422);
    let printed = answer.text().await.unwrap();
    assert!(printed.contains("region \\\"us\\\"") && printed.contains("\\\"eu\\\""), "{printed}");
    assert_eq!(records(&site, Topic::Tenants).await.len(), 1, "nothing of it is stored");
}

/// Puts a record once more behind all others.
async fn again(site: &Site, record: &Record, value: bytes::Bytes) {
    let again = NewRecord { partition: record.partition, key: record.key.clone(), value };
    site.service.node.ports.log.append(vec![again]).await.unwrap();
}

async fn letters(site: &Site) -> Vec<(Value, Value)> {
    let letters = records(site, Topic::Dlq).await;
    letters.iter().map(|letter| (letter["from"].clone(), letter["reason"].clone())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_of_another_region_that_was_copied_here_is_not_worked_off_and_nothing_of_it_is_lost() {
    let site = Site::with_acme().await;
    let hello = || webhook(&[message("1001", "wamid.1", "hello")]);
    assert_eq!(site.post("1001", "s3cret", hello()).send().await.unwrap().status(), 200);
    let sent = until("a reply", async || fetched(&site, Topic::Outbound).await.pop()).await;
    let received = fetched(&site, Topic::Inbound).await.remove(0);

    let applied = fetched(&site, Topic::Tenants).await.remove(0);
    let mut copied: TenantRecord = serde_json::from_slice(&applied.value).unwrap();
    copied.config.region = "us".into();
    again(&site, &applied, encode(&copied)).await;
    until("the refusal of its webhooks", async || {
        let answer = site.post("1001", "s3cret", hello()).send().await.unwrap();
        (answer.status() == 404).then_some(())
    })
    .await;
    let show = site.client.get(format!("{}/v1/tenants/acme", site.url)).send().await.unwrap();
    assert_eq!(show.status(), 422);
    assert!(show.text().await.unwrap().contains("stays in region"));
    let incidents = "heddle_security_incidents_total{kind=\"foreign_region\"}";
    assert_eq!(site.counted(incidents).await, 1.0);

    // Its records in the log are dead-lettered: the backlog of its account, and all later ones.
    again(&site, &received, received.value.clone()).await;
    again(&site, &sent, sent.value.clone()).await;
    let aside = async || {
        let letters = letters(&site).await;
        let of = |topic: &str| letters.iter().any(|(from, _)| from.to_string().contains(topic));
        (of("inbound") && of("outbound")).then_some(letters)
    };
    let letters = until("the dead letters", aside).await;
    assert!(letters.iter().all(|(_, reason)| reason == "region"), "{letters:?}");
    let settled = async || {
        let node = &site.service.node;
        let mut left = 0;
        for topic in [Topic::Inbound, Topic::Outbound] {
            left += node.unsettled(topic).await;
        }
        (left == 0).then_some(())
    };
    until("the end of all work", settled).await;
}
