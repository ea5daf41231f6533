//! Tests of data-subject requests on a serving node: export, correction, restriction and erasure.

use std::time::Duration;

use heddle_api::Input;
use heddle_api::contacts::{ExportContact, ForgetContact, OfContact};
use heddle_api::content::{Document, Nothing, collect};
use heddle_api::tenants::OfTenant;
use heddle_connectors::clock::SystemClock;
use heddle_engine::node::Node;
use heddle_engine::operations::{Caller, Rights};
use heddle_engine::service::Service;
use heddle_schemas::audit::{Means, Who};
use heddle_schemas::config::Config;
use heddle_schemas::ports::clock::Clock as _;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::serving::conversations::{said, site, taken, text};
use crate::serving::site::Site;

const ANN: &str = "15551234";

/// Returns the time stamp of a channel, `from_now` seconds ahead.
fn stamp(from_now: i64) -> String {
    (SystemClock.now().as_micros() / 1_000_000 + from_now).to_string()
}

async fn say(site: &Site, id: &str, body: &str, at: &str) {
    let mut said: Value = serde_json::from_str(&said("1001", ANN, id, text(body))).unwrap();
    let message = said.pointer_mut("/entry/0/changes/0/value/messages/0/timestamp").unwrap();
    *message = json!(at);
    let answer = site.post("1001", "s3cret", said.to_string()).send().await.unwrap();
    assert_eq!(answer.status(), 200);
}

async fn export(site: &Site) -> (StatusCode, Value) {
    let url = format!("{}/v1/tenants/acme/contacts/export", site.url);
    let asked = site.client.get(url).query(&[("contact", "+15551234")]).header("heddle-actor", "ann");
    let answer = asked.send().await.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_contact_sees_what_is_kept_and_is_forgotten() {
    let early = stamp(-10);
    let (site, graph) = site(&["1001", "1002"], Duration::from_secs(60)).await;
    assert_eq!(export(&site).await.0, 404, "the number is unknown");
    say(&site, "wamid.1", "my code is xyzzy", &early).await;
    taken(&graph, ANN, 1).await;
    let (status, before) = export(&site).await;
    assert_eq!(status, 200, "{before}");
    let conversation = &before["conversations"][0];
    assert_eq!(conversation["address"]["phone"], ANN);
    let shown = conversation["thread"].to_string();
    assert!(shown.contains("my code is xyzzy") && shown.contains("A colleague"), "{shown}");
    assert_eq!(before["conversations"].as_array().unwrap().len(), 1);
    assert_eq!(before["conversations"][0]["deliveries"].as_array().unwrap().len(), 1);
    let audit = before["audit"].to_string();
    assert!(
        audit.contains("contact_export") && audit.contains("begun"),
        "the export is audited too: {audit}"
    );

    let url = format!("{}/v1/tenants/acme/contacts/forget", site.url);
    let forget = site.client.post(url).query(&[("contact", "whatsapp:15551234")]).send().await.unwrap();
    assert_eq!(forget.status(), 202);
    let erasure: Value = forget.json().await.unwrap();
    let receipt = format!("{}/v1/tenants/acme/erasures/{}", site.url, erasure["id"].as_str().unwrap());
    let complete = async {
        loop {
            let now: Value = site.client.get(&receipt).send().await.unwrap().json().await.unwrap();
            if now["completed_at"].is_number() {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let receipt = tokio::time::timeout(Duration::from_secs(20), complete).await.unwrap();
    assert_eq!(receipt["parts"].as_array().unwrap().len(), 2);
    let (status, after) = export(&site).await;
    assert_eq!((status.as_u16(), &after["conversations"]), (200, &json!([])));
    assert_eq!(after["erasures"][0]["id"], erasure["id"]);

    // The same message once more, and one that had been on its way.
    say(&site, "wamid.1", "my code is xyzzy", &early).await;
    say(&site, "wamid.2", "and it is still xyzzy", &early).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(export(&site).await.1["conversations"], json!([]));
    assert_eq!(graph.taken_for(ANN).len(), 1);
    assert!(site.counted("heddle_erasure_refused_total").await >= 2.0);

    // What is written from the next second on begins anew.
    say(&site, "wamid.3", "hello again", &stamp(10)).await;
    taken(&graph, ANN, 2).await;
    let shown = export(&site).await.1.to_string();
    assert!(shown.contains("hello again") && !shown.contains("xyzzy"), "{shown}");

    let log = format!("{}/v1/audit/log", site.url);
    let log = site.client.get(log).query(&[("tenant", "acme")]).send().await.unwrap().text().await.unwrap();
    assert!(log.contains("contact_export") && log.contains("contact_erase"), "{log}");
    assert!(!log.contains(ANN) && !log.contains("xyzzy"), "the log holds no phone number: {log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_it_restricted_is_recorded_and_not_answered_until_it_is_lifted() {
    let (site, graph) = site(&["1001"], Duration::from_secs(60)).await;
    say(&site, "wamid.1", "hello", &stamp(-3)).await;
    taken(&graph, ANN, 1).await;
    let restrict = async |restricted: bool| {
        let url = format!("{}/v1/tenants/acme/contacts/restriction", site.url);
        let body = json!({ "restricted": restricted });
        let answer =
            site.client.put(url).query(&[("contact", "+15551234")]).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 202);
        answer.json::<Value>().await.unwrap()
    };
    assert_eq!(restrict(true).await["purposes"]["marketing"]["standing"], "restricted");
    say(&site, "wamid.2", "is anybody there", &stamp(-2)).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let (_, kept) = export(&site).await;
    let conversation = &kept["conversations"][0];
    assert!(conversation["restricted_since"].is_number(), "{conversation}");
    assert!(conversation["thread"].to_string().contains("is anybody there"), "it is recorded");
    assert_eq!(graph.taken_for(ANN).len(), 1, "and not answered");

    restrict(false).await;
    say(&site, "wamid.3", "and now", &stamp(-1)).await;
    taken(&graph, ANN, 2).await;
    assert!(export(&site).await.1["conversations"][0].get("restricted_since").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_corrected_name_holds_until_the_person_shows_another_one() {
    let (site, graph) = site(&["1001", "1002"], Duration::from_secs(60)).await;
    let name = async || export(&site).await.1["conversations"][0]["address"]["name"].clone();
    let named = async |id: &str, shown: &str, at: i64, count: usize| {
        let mut body: Value = serde_json::from_str(&said("1001", ANN, id, text("hello"))).unwrap();
        *body.pointer_mut("/entry/0/changes/0/value/contacts/0/profile/name").unwrap() = json!(shown);
        let message = body.pointer_mut("/entry/0/changes/0/value/messages/0/timestamp").unwrap();
        *message = json!(stamp(at));
        assert_eq!(site.post("1001", "s3cret", body.to_string()).send().await.unwrap().status(), 200);
        taken(&graph, ANN, count).await;
    };
    let correct = async |correction: Value| {
        let url = format!("{}/v1/tenants/acme/contacts/correction", site.url);
        let put = site.client.put(url).query(&[("contact", "+15551234")]).json(&correction);
        put.header("heddle-actor", "ann").send().await.unwrap().status().as_u16()
    };
    let becomes = async |expected: Value| {
        let right = async {
            while name().await != expected {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        assert!(
            tokio::time::timeout(Duration::from_secs(10), right).await.is_ok(),
            "{expected}: {}",
            name().await
        );
    };
    assert_eq!(correct(json!({ "name": "Anna" })).await, 404, "the number is unknown");
    named("wamid.1", "Ann", -5, 1).await;
    assert_eq!(name().await, "Ann");
    assert_eq!(correct(json!({ "name": " " })).await, 422);
    assert_eq!(correct(json!({ "name": "Anna Bell" })).await, 202);
    becomes(json!("Anna Bell")).await;
    named("wamid.2", "Ann", -4, 2).await;
    assert_eq!(name().await, "Anna Bell", "the channel shows what it showed before");
    let (_, kept) = export(&site).await;
    assert_eq!(kept["conversations"].as_array().unwrap().len(), 1, "where they never met, nothing begins");
    assert_eq!(kept["conversations"][0]["name_corrected"], true);
    assert!(kept["conversations"][0]["thread"].to_string().contains("\"by\":\"corrected\""));
    named("wamid.3", "Queen Ann", -3, 3).await;
    assert_eq!(name().await, "Queen Ann", "which is the person's own doing");
    assert_eq!(correct(json!({ "name": null })).await, 202);
    becomes(Value::Null).await;
    named("wamid.4", "Queen Ann", -2, 4).await;
    assert_eq!(name().await, Value::Null);

    let log = format!("{}/v1/audit/log", site.url);
    let log = site.client.get(log).query(&[("tenant", "acme")]).send().await.unwrap().text().await.unwrap();
    assert!(log.contains("contact_correct") && !log.contains("Bell"), "{log}");
    let inbound = crate::serving::channels::records(&site, heddle_schemas::topic::Topic::Inbound).await;
    assert!(inbound.iter().all(|record| !record.to_string().contains("Bell")), "it is sealed on its way");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_contact_that_is_forgotten_without_a_running_node_cannot_be_read_from_then_on() {
    let (site, graph) = site(&["1001"], Duration::from_secs(60)).await;
    say(&site, "wamid.1", "my code is xyzzy", &stamp(-10)).await;
    taken(&graph, ANN, 1).await;
    let (service, folder) = site.into_parts();
    service.stop().await;
    let config = Config { data_dir: folder.path().join("data"), ..Config::default() };
    let node = Node::open(config.clone()).await.unwrap();
    let operations = node.administration().await.unwrap();
    let who = Who { name: None, means: Means::Folder, address: None };
    let caller = Caller { who, why: None, rights: Rights::Operator };
    let path = OfTenant { tenant: "acme".parse().unwrap() };
    let contact = OfContact { contact: "+15551234".parse().unwrap() };
    let exported = async || {
        let input = Input::<ExportContact> { path: path.clone(), query: contact.clone(), body: Nothing };
        let Document(pieces) = operations.call(&caller, input).await.unwrap();
        let bytes = collect(pieces, 1 << 20).await.unwrap();
        serde_json::from_slice::<Value>(&bytes).unwrap()
    };
    assert!(exported().await.to_string().contains("xyzzy"));
    let input = Input::<ForgetContact> { path: path.clone(), query: contact.clone(), body: Nothing };
    let erasure = operations.call(&caller, input).await.unwrap();
    assert!(!erasure.is_complete(), "rows are removed when a node runs");
    let after = exported().await;
    assert_eq!(after["conversations"], json!([]), "{after}");
    assert!(!after.to_string().contains("xyzzy"), "{after}");
    drop(operations);
    node.close().await;
    drop(node);

    let mut serving = config;
    serving.http.listen = "127.0.0.1:0".parse().unwrap();
    let service = Service::start(serving).await.unwrap();
    let client = crate::serving::site::operator(&service);
    let receipt = format!("http://{}/v1/tenants/acme/erasures/{}", service.admin_address, erasure.id);
    let complete = async {
        loop {
            let now: Value = client.get(&receipt).send().await.unwrap().json().await.unwrap();
            if now["completed_at"].is_number() {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let receipt = tokio::time::timeout(Duration::from_secs(20), complete).await.unwrap();
    assert!(receipt["parts"][0]["done"]["rows"].as_u64() > Some(2), "{receipt}");
    service.stop().await;
}
