//! The main job through a serving node and the simulated Graph API: what reaches whom.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use heddle_connectors::clock::SystemClock;
use heddle_schemas::id::AccountId;
use heddle_schemas::sealed::Secret;
use heddle_schemas::topic::Topic;
use heddle_simulator::graph::{self, GraphApi};
use heddle_simulator::ledger::Taken;
use serde_json::{Value, json};

use crate::serving::site::{Site, seconds, webhook};

const FALLBACK: &str = "A colleague will get back to you.";

/// A node, a provider with these numbers, and a tenant for all of them.
pub(crate) async fn site(accounts: &[&str], passivate_after: Duration) -> (Site, GraphApi) {
    let numbers = accounts.iter().map(|account| (account.parse().unwrap(), Secret::new("t0ken"))).collect();
    let options = graph::Options { numbers, ..graph::Options::default() };
    let graph = GraphApi::start(options, Arc::new(SystemClock)).await.unwrap();
    let site = Site::start(|config| config.engine.passivate_after = passivate_after).await;
    apply(&site, &graph, accounts, "t0ken").await;
    (site, graph)
}

async fn apply(site: &Site, graph: &GraphApi, accounts: &[&str], token: &str) {
    let channels: Vec<_> = accounts
        .iter()
        .map(|account| {
            json!({ "kind": "whatsapp", "account": account, "api_base": graph.api_base(),
                "access_token": token, "app_secret": "s3cret", "verify_token": "ver1fy" })
        })
        .collect();
    let tenant = json!({ "id": "acme", "name": "Acme", "agent": { "settle": "50ms", "fallback": FALLBACK }, "channels": channels });
    let put = site.client.put(format!("{}/v1/tenants/acme", site.url)).json(&tenant);
    assert_eq!(put.send().await.unwrap().status(), 200);
}

/// Returns the webhook of a person who may have changed the number.
pub(crate) fn said(account: &str, from: &str, id: &str, message: Value) -> String {
    let mut message = message;
    message["from"] = json!(from);
    message["id"] = json!(id);
    message["timestamp"] = json!(seconds());
    webhook(&[json!({ "field": "messages", "value": {
        "messaging_product": "whatsapp",
        "metadata": { "display_phone_number": "15550001", "phone_number_id": account },
        "contacts": [{ "profile": { "name": "Ann" }, "wa_id": from }],
        "messages": [message],
    }})])
}

pub(crate) fn text(body: &str) -> Value {
    json!({ "type": "text", "text": { "body": body } })
}

async fn post(site: &Site, account: &str, body: String) {
    let answer = site.post(account, "s3cret", body).send().await.unwrap();
    assert_eq!(answer.status(), 200);
}

/// Waits until `count` messages are accepted for a recipient, and returns them.
pub(crate) async fn taken(graph: &GraphApi, to: &str, count: usize) -> Vec<Arc<Taken>> {
    let all = async {
        while graph.taken_for(to).len() < count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let came = tokio::time::timeout(Duration::from_secs(20), all).await;
    assert!(came.is_ok(), "{to} has {} messages, not {count}", graph.taken_for(to).len());
    graph.taken_for(to)
}

async fn settled(site: &Site) {
    let quiet = async {
        // Work moves from one to the other between two of these looks, so one round proves nothing.
        let mut rounds = 0;
        while rounds < 3 {
            let node = &site.service.node;
            let waits = site.sum("heddle_agenda_window_entries").await > 0.0
                || node.unsettled(Topic::Inbound).await > 0
                || node.unsettled(Topic::Outbound).await > 0;
            rounds = if waits { 0 } else { rounds + 1 };
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), quiet).await.is_ok(), "something is never settled");
}

#[tokio::test]
async fn every_documented_kind_of_webhook_is_taken_and_settled() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../connectors/tests/fixtures/whatsapp");
    let bodies: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap())
        .collect();
    assert!(bodies.len() >= 40, "{} fixtures", bodies.len());
    let mut accounts = BTreeSet::new();
    for body in &bodies {
        let body: Value = serde_json::from_str(body).unwrap();
        for change in
            body["entry"].as_array().unwrap().iter().flat_map(|entry| entry["changes"].as_array().unwrap())
        {
            accounts.extend(
                change.pointer("/value/metadata/phone_number_id").and_then(Value::as_str).map(str::to_owned),
            );
        }
    }
    let accounts: Vec<_> = accounts.iter().map(String::as_str).collect();
    let (site, _graph) = site(&accounts, Duration::from_secs(60)).await;
    for body in bodies {
        post(&site, accounts[0], body).await;
    }
    settled(&site).await;
    assert!(site.taken_events("message").await >= 30.0);
    assert!(site.taken_events("notice").await >= 3.0);
    assert_eq!(site.sum("heddle_dlq_records_total").await, 0.0);
    assert_eq!(site.sum("heddle_reception_dropped_total{reason=\"nameless\"}").await, 0.0);
}

#[tokio::test]
async fn a_dead_token_on_one_account_delays_no_other_and_loses_nothing() {
    let (site, graph) = site(&["1001", "1002"], Duration::from_secs(60)).await;
    let dead: AccountId = "1001".parse().unwrap();
    graph.set_revoked(&dead, true);
    for number in 0..20 {
        post(&site, "1001", said("1001", "15551", &format!("wamid.a{number}"), text("hello"))).await;
        post(
            &site,
            "1002",
            said("1002", &format!("1666{number}"), &format!("wamid.b{number}"), text("hello")),
        )
        .await;
    }
    for number in 0..20 {
        taken(&graph, &format!("1666{number}"), 1).await;
    }
    assert!(graph.taken_for("15551").is_empty());
    assert_eq!(site.sum("heddle_account_stopped_accounts").await, 1.0);
    // What waits for the stopped account has left the log, so that it holds up nothing there.
    let quiet = async {
        while site.service.node.unsettled(Topic::Outbound).await > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(10), quiet).await.is_ok());

    // The operator settles it with the provider and applies a new token.
    graph.set_revoked(&dead, false);
    let options = graph::Options {
        listen: "127.0.0.1:0".parse().unwrap(),
        numbers: ["1001", "1002"].map(|account| (account.parse().unwrap(), Secret::new("n3w"))).into(),
        ..graph::Options::default()
    };
    let renewed = GraphApi::start(options, Arc::new(SystemClock)).await.unwrap();
    apply(&site, &renewed, &["1001", "1002"], "n3w").await;
    let replies = taken(&renewed, "15551", 1).await;
    settled(&site).await;
    let turns = site.sum("heddle_conversation_turns_total").await;
    let sent = renewed.taken_count() + graph.taken_count();
    assert_eq!(sent as f64, turns, "each turn is one message: {}", replies.len());
    assert_eq!(site.sum("heddle_account_stopped_accounts").await, 0.0);
    assert!(renewed.times_taken().values().all(|times| *times == 1));
}

#[tokio::test]
async fn a_changed_number_keeps_the_contact_and_replies_follow_it() {
    let (site, graph) = site(&["1001"], Duration::from_secs(60)).await;
    post(&site, "1001", said("1001", "15551", "wamid.1", text("hello"))).await;
    let before = taken(&graph, "15551", 1).await;
    let changed = json!({ "type": "system", "system": {
        "body": "User Ann changed from 15551 to 15552", "wa_id": "15552", "type": "user_changed_number" } });
    post(&site, "1001", said("1001", "15551", "wamid.2", changed)).await;
    post(&site, "1001", said("1001", "15552", "wamid.3", text("it is me"))).await;
    let after = taken(&graph, "15552", 1).await;
    let contact = |taken: &Taken| taken.outbound.unwrap().contact;
    assert_eq!(contact(&before[0]), contact(&after[0]));
    // A message of the old number that comes late is the same person's too.
    post(&site, "1001", said("1001", "15551", "wamid.0", text("sent before"))).await;
    settled(&site).await;
    let contacts: BTreeSet<_> = graph.taken().iter().map(|taken| contact(taken)).collect();
    assert_eq!(contacts.len(), 1);
    assert_eq!(graph.taken_count(), 3);
}

#[tokio::test]
async fn only_what_asks_is_answered_and_media_gets_the_fallback() {
    let (site, graph) = site(&["1001"], Duration::from_secs(60)).await;
    let react = json!({ "type": "reaction", "reaction": { "message_id": "wamid.x", "emoji": "+" } });
    post(&site, "1001", said("1001", "15551", "wamid.1", react)).await;
    let identity =
        json!({ "type": "system", "system": { "type": "customer_identity_changed", "body": "?" } });
    post(&site, "1001", said("1001", "15551", "wamid.2", identity)).await;
    settled(&site).await;
    assert_eq!(graph.taken_count(), 0);
    let sticker = json!({ "type": "sticker", "sticker": { "id": "1", "mime_type": "image/webp" } });
    post(&site, "1001", said("1001", "15551", "wamid.3", sticker)).await;
    assert_eq!(taken(&graph, "15551", 1).await[0].text, FALLBACK);
}

#[tokio::test]
async fn idle_conversations_leave_memory_and_come_back() {
    let (site, graph) = site(&["1001"], Duration::from_secs(1)).await;
    let people = 50;
    for number in 0..people {
        post(
            &site,
            "1001",
            said("1001", &format!("1777{number}"), &format!("wamid.{number}"), text("hello")),
        )
        .await;
    }
    for number in 0..people {
        taken(&graph, &format!("1777{number}"), 1).await;
    }
    let gone = async {
        while site.sum("heddle_partition_residents").await > 0.0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(
        tokio::time::timeout(Duration::from_secs(20), gone).await.is_ok(),
        "no conversation leaves memory"
    );
    // Said before and again: memory is gone, and the markers are not.
    post(&site, "1001", said("1001", "17770", "wamid.0", text("hello"))).await;
    post(&site, "1001", said("1001", "17770", "wamid.new", text("once more"))).await;
    taken(&graph, "17770", 2).await;
    settled(&site).await;
    assert_eq!(graph.taken_for("17770").len(), 2);
    assert_eq!(site.sum("heddle_conversation_duplicates_total").await, 1.0);
}

#[tokio::test]
async fn a_node_holds_no_more_conversations_than_it_may() {
    let most = NonZeroUsize::new(16).unwrap();
    let folder = Duration::from_secs(60);
    let (site, graph) = {
        let numbers = [("1001".parse().unwrap(), Secret::new("t0ken"))].into();
        let options = graph::Options { numbers, ..graph::Options::default() };
        let graph = GraphApi::start(options, Arc::new(SystemClock)).await.unwrap();
        let site = Site::start(|config| {
            config.engine.max_conversations = most;
            config.engine.passivate_after = folder;
        })
        .await;
        apply(&site, &graph, &["1001"], "t0ken").await;
        (site, graph)
    };
    for number in 0..300 {
        post(
            &site,
            "1001",
            said("1001", &format!("1888{number}"), &format!("wamid.{number}"), text("hello")),
        )
        .await;
    }
    for number in 0..300 {
        taken(&graph, &format!("1888{number}"), 1).await;
    }
    settled(&site).await;
    // One more comes for each that is let go, and accounts live in partitions of their own.
    let residents = site.counted("heddle_partition_residents{topic=\"inbound\"}").await;
    assert!(residents <= 16.0 + 8.0, "{residents} residents");
}
