//! A tenant is exported and deleted through a serving node.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::serving::conversations::{said, site, taken, text};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_tenant_is_refused_at_once_and_its_id_is_not_given_out_again() {
    let (site, graph) = site(&["1001"], Duration::from_secs(60)).await;
    let hello = said("1001", "15551234", "wamid.1", text("my code is xyzzy"));
    assert_eq!(site.post("1001", "s3cret", hello).send().await.unwrap().status(), 200);
    taken(&graph, "15551234", 1).await;

    let tenant = format!("{}/v1/tenants/acme", site.url);
    let delete =
        || site.client.delete(&tenant).header("heddle-actor", "ann").header("heddle-reason", "contract over");
    let deleted = delete().send().await.unwrap();
    assert_eq!(deleted.status(), StatusCode::ACCEPTED);
    let deleted: Value = deleted.json().await.unwrap();
    assert!(deleted["key_destroyed_at"].is_number() && deleted.get("completed_at").is_none(), "{deleted}");
    assert_eq!(site.client.get(&tenant).send().await.unwrap().status(), StatusCode::NOT_FOUND);
    let late = said("1001", "15551234", "wamid.2", text("are you there"));
    assert_eq!(site.post("1001", "s3cret", late).send().await.unwrap().status(), StatusCode::NOT_FOUND);

    let again: Value = delete().send().await.unwrap().json().await.unwrap();
    assert_eq!(again["requested_at"], deleted["requested_at"], "asking again begins nothing anew");
    let of = format!("{}/v1/deletions", site.url);
    let all: Value = site.client.get(&of).send().await.unwrap().json().await.unwrap();
    assert_eq!(all["items"][0]["tenant"], "acme");
    let one: Value = site.client.get(format!("{of}/acme")).send().await.unwrap().json().await.unwrap();
    assert_eq!(one["requested_at"], deleted["requested_at"]);
    assert_eq!(site.client.get(format!("{of}/globex")).send().await.unwrap().status(), StatusCode::NOT_FOUND);
    let unknown = format!("{}/v1/tenants/globex", site.url);
    assert_eq!(site.client.delete(unknown).send().await.unwrap().status(), StatusCode::NOT_FOUND);

    let body = json!({ "id": "acme", "name": "Acme", "agent": { "fallback": "f" } });
    let applied = site.client.put(&tenant).json(&body).send().await.unwrap();
    assert_eq!(applied.status(), StatusCode::CONFLICT, "{}", applied.text().await.unwrap());

    let log = format!("{}/v1/audit/log", site.url);
    let log: Value = site.client.get(&log).send().await.unwrap().json().await.unwrap();
    let entries = log["items"].as_array().unwrap();
    let begun = entries.iter().filter(|entry| entry.to_string().contains("tenant_erase")).collect::<Vec<_>>();
    assert!(begun.len() == 1 && begun[0].to_string().contains("contract over"), "{begun:?}");
    let verified = format!("{}/v1/audit/log/verification?tenant=acme", site.url);
    let verdict: Value = site.client.get(verified).send().await.unwrap().json().await.unwrap();
    assert_eq!(verdict["faults"], json!([]), "its own chain still holds: {verdict}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_is_exported_a_line_a_thing_without_its_secrets() {
    let (site, graph) = site(&["1001"], Duration::from_secs(60)).await;
    let hello = said("1001", "15551234", "wamid.1", text("my code is xyzzy"));
    assert_eq!(site.post("1001", "s3cret", hello).send().await.unwrap().status(), 200);
    taken(&graph, "15551234", 1).await;
    let documents = format!("{}/v1/tenants/acme/documents", site.url);
    for number in 0..6 {
        let document =
            json!({ "id": format!("d{number}"), "title": "T", "format": "text", "text": "Open from nine." });
        assert!(site.client.post(&documents).json(&document).send().await.unwrap().status().is_success());
    }
    let export = format!("{}/v1/tenants/acme/export", site.url);
    let answer = site.client.get(export).header("heddle-actor", "ann").send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
    let exported = answer.text().await.unwrap();
    let lines: Vec<Value> = exported.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &str| lines.iter().filter(|line| line["kind"] == kind).collect::<Vec<_>>();
    assert_eq!(of("tenant")[0]["configuration"]["id"], "acme");
    assert_eq!(of("document").len(), 6);
    assert_eq!(of("document")[5]["document"]["text"], "Open from nine.");
    assert_eq!(of("conversation")[0]["conversation"]["address"]["phone"], "15551234");
    let said: Vec<_> = of("entry").iter().map(|line| line.to_string()).collect();
    assert!(said.len() == 2 && said[0].contains("my code is xyzzy"), "{said:?}");
    assert_eq!(of("delivery").len(), 1);
    assert_eq!(of("usage")[0]["usage"]["total"]["messages"], 1);
    assert!(!exported.contains("s3cret"), "{exported}");

    let log = format!("{}/v1/audit/log", site.url);
    let log: Value =
        site.client.get(log).query(&[("tenant", "acme")]).send().await.unwrap().json().await.unwrap();
    let entries = log["items"].as_array().unwrap().iter();
    let entries = entries.filter(|entry| entry.to_string().contains("tenant_export")).collect::<Vec<_>>();
    let entries: Vec<_> = entries.iter().map(|entry| entry.to_string()).collect();
    assert!(entries.len() == 2 && entries[0].contains("begun") && entries[1].contains("done"), "{entries:?}");
    assert!(entries[1].contains(&format!("\"records\":{}", lines.len())), "{entries:?}");
}
