//! A channel that is disconnected: its credentials are gone, its webhooks refused, and nothing is sent by it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use heddle_connectors::clock::SystemClock;
use heddle_engine::service::Service;
use heddle_schemas::config::Config;
use heddle_schemas::id::{AccountKey, TenantId};
use heddle_schemas::ports::clock::Clock as _;
use heddle_schemas::ports::keys::{KeysError, Missing};
use heddle_schemas::ports::log::{FetchLimit, NewRecord, Record};
use heddle_schemas::record::tenants::{TenantRecord, TenantSecrets};
use heddle_schemas::record::{V, decode, encode, log_aad};
use heddle_schemas::sealed::Secret;
use heddle_schemas::tenant::Tenant;
use heddle_schemas::topic::{Topic, TopicPartition, tenant_partition};
use heddle_simulator::graph::{self, GraphApi};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::serving::conversations::{said, text};
use crate::serving::site::{ADMIN_TOKEN, Site, holder_of, message, webhook};

const ANN: &str = "15551234";

async fn disconnect(site: &Site, tenant: &str, account: &str) -> (StatusCode, Value) {
    let url = format!("{}/v1/tenants/{tenant}/channels/whatsapp/{account}", site.url);
    let answer = site.client.delete(url).header("heddle-actor", "ann").send().await.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

/// Every record that a topic has.
pub(crate) async fn fetched(site: &Site, topic: Topic) -> Vec<Record> {
    let log = &site.service.node.ports.log;
    let mut all = Vec::new();
    for partition in 0..log.partitions(topic) {
        let partition = TopicPartition { topic, partition };
        let limit = FetchLimit { records: 10_000, bytes: 16 << 20 };
        all.extend(log.fetch(partition, 0, limit, Duration::ZERO).await.unwrap());
    }
    all
}

/// The same, read.
pub(crate) async fn records(site: &Site, topic: Topic) -> Vec<Value> {
    let records = fetched(site, topic).await;
    records.iter().map(|record| serde_json::from_slice(&record.value).unwrap()).collect()
}

pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            match look().await {
                Some(found) => return found,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), found)
        .await
        .unwrap_or_else(|_| panic!("{what} never comes"))
}

#[tokio::test]
async fn a_disconnected_account_takes_no_webhook_and_an_applied_one_does_again() {
    let site = Site::with_acme().await;
    let hello = || webhook(&[message("1001", "wamid.1", "hello")]);
    assert_eq!(site.post("1001", "s3cret", hello()).send().await.unwrap().status(), 200);
    assert_eq!(disconnect(&site, "acme", "1009").await.0, 404, "it has never had it");
    assert_eq!(disconnect(&site, "nobody", "1001").await.0, 404);
    let (status, tenant) = disconnect(&site, "acme", "1001").await;
    assert_eq!(status, 200, "{tenant}");
    assert_eq!((&tenant["channels"], &tenant["disconnected"][0]["account"]), (&json!([]), &json!("1001")));
    assert_eq!(site.post("1001", "s3cret", hello()).send().await.unwrap().status(), 404);
    let subscribe = format!(
        "{}/webhooks/whatsapp/1001?hub.mode=subscribe&hub.verify_token=ver1fy&hub.challenge=x",
        site.url
    );
    assert_eq!(site.client.get(subscribe).send().await.unwrap().status(), 404);
    assert_eq!(disconnect(&site, "acme", "1001").await.0, 200, "twice does no harm");

    let log = format!("{}/v1/audit/log", site.url);
    let log = site.client.get(log).query(&[("tenant", "acme")]).send().await.unwrap().text().await.unwrap();
    assert!(log.contains("\"operation\":\"channel_disconnect\""), "{log}");
    assert!(log.contains("\"channel\":\"whatsapp\",\"account\":\"1001\""), "{log}");

    // The number may move to another tenant, or come back.
    assert_eq!(site.apply("globex", "1001", "0ther").await.status(), 200);
    assert_eq!(site.post("1001", "0ther", hello()).send().await.unwrap().status(), 200);
    assert_eq!(disconnect(&site, "acme", "1001").await.0, 200);
    assert_eq!(site.post("1001", "0ther", hello()).send().await.unwrap().status(), 200, "it is another's");
    assert_eq!(disconnect(&site, "globex", "1001").await.0, 200);
    assert_eq!(site.apply("acme", "1001", "n3w").await.status(), 200);
    assert_eq!(site.post("1001", "n3w", hello()).send().await.unwrap().status(), 200);
    assert_eq!(site.post("1001", "s3cret", hello()).send().await.unwrap().status(), 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_disconnected_account_is_withheld_and_told() {
    // The provider refuses the token, so what is decided waits.
    let numbers = [("1001".parse().unwrap(), Secret::new("another"))].into();
    let options = graph::Options { numbers, ..graph::Options::default() };
    let graph = GraphApi::start(options, Arc::new(SystemClock)).await.unwrap();
    let site = Site::start(|_| ()).await;
    let apply = async |accounts: &[&str], token: &str| {
        let channel = |account: &&str| {
            json!({ "kind": "whatsapp", "account": account, "api_base": graph.api_base(),
                "access_token": token, "app_secret": "s3cret", "verify_token": "ver1fy" })
        };
        let channels: Vec<_> = accounts.iter().map(channel).collect();
        let tenant = json!({ "id": "acme", "name": "Acme", "agent": { "settle": "0ms" }, "channels": channels,
                "retention": { "disconnected": "kept" } });
        let put = site.client.put(format!("{}/v1/tenants/acme", site.url)).json(&tenant);
        assert_eq!(put.send().await.unwrap().status(), 200);
    };
    apply(&["1001"], "t0ken").await;
    for (id, from) in [("wamid.1", ANN), ("wamid.2", "15559999"), ("wamid.3", ANN)] {
        let body = said("1001", from, id, text("hello"));
        assert_eq!(site.post("1001", "s3cret", body).send().await.unwrap().status(), 200);
    }
    until("the stop of the account", async || {
        (site.sum("heddle_account_stopped_accounts").await > 0.0).then_some(())
    })
    .await;

    // Leaving it out of what is applied is the same as disconnecting it.
    apply(&[], "").await;
    let withheld = async || {
        let events = records(&site, Topic::Events).await;
        let because = |event: &Value| event.pointer("/event/send_withheld/because").cloned();
        let withheld: Vec<_> = events.iter().filter_map(because).collect();
        (withheld.len() >= 3).then_some(withheld)
    };
    assert_eq!(until("three withheld sends", withheld).await, vec![json!("disconnected"); 3]);
    let settled = async || {
        let node = &site.service.node;
        let left = node.unsettled(Topic::Inbound).await + node.unsettled(Topic::Outbound).await;
        (left == 0 && site.sum("heddle_agenda_window_entries").await == 0.0).then_some(())
    };
    until("the end of all work", settled).await;
    assert_eq!(site.sum("heddle_account_stopped_accounts").await, 0.0);
    let url = format!("{}/v1/tenants/acme/contacts/export", site.url);
    let export = site.client.get(url).query(&[("contact", "+15551234")]).send().await.unwrap();
    let export: Value = export.json().await.unwrap();
    assert_eq!(export["conversations"].as_array().unwrap().len(), 1, "what was said there is still shown");
    assert!(export.to_string().contains("the account is disconnected"), "{export}");

    // New messages use the new credentials, and no earlier message is sent afterwards.
    apply(&["1001"], "another").await;
    let body = said("1001", ANN, "wamid.4", text("and now"));
    assert_eq!(site.post("1001", "s3cret", body).send().await.unwrap().status(), 200);
    until("the answer", async || (!graph.taken_for(ANN).is_empty()).then_some(())).await;
    until("the end of all work", settled).await;
    assert_eq!((graph.taken_for(ANN).len(), graph.taken_for("15559999").len()), (1, 0));
}

#[tokio::test]
async fn no_record_of_before_opens_to_a_disconnected_accounts_credentials() {
    let site = Site::with_acme().await;
    let account: AccountKey = "acme/whatsapp/1001".parse().unwrap();
    let old: TenantRecord = serde_json::from_value(records(&site, Topic::Tenants).await.remove(0)).unwrap();
    let keys = site.service.node.ports.keys.clone();
    let place = log_aad(Topic::Tenants, &account);
    let opened = keys.channel(&account, Missing::Fail).await.unwrap().open(&place, &old.channels[&account]);
    let secrets: TenantSecrets = serde_json::from_slice(&opened.unwrap()).unwrap();
    assert_eq!(secrets["channels.whatsapp.1001.access_token"], "t0ken");
    let own = keys.tenant(&account.tenant).await.unwrap();
    let own = own.open(&log_aad(Topic::Tenants, &account.tenant), &old.secrets).unwrap();
    assert!(!String::from_utf8(own).unwrap().contains("t0ken"), "they are under the account's key only");

    assert_eq!(disconnect(&site, "acme", "1001").await.0, 200);
    let gone = keys.channel(&account, Missing::Fail).await;
    assert!(matches!(gone, Err(KeysError::Gone { .. })));
    let newest = records(&site, Topic::Tenants).await.pop().unwrap();
    assert!(newest.get("channels").is_none(), "{newest}");
    assert_eq!(site.apply("acme", "1001", "n3w").await.status(), 200);
    let anew = keys.channel(&account, Missing::Fail).await.unwrap().open(&place, &old.channels[&account]);
    assert!(matches!(anew, Err(KeysError::Unreadable { .. })), "a new key opens nothing of before");
}

/// A node on a folder, that is started anew.
async fn restarted(site: Site) -> (Service, tempfile::TempDir) {
    let (service, folder) = site.into_parts();
    service.stop().await;
    (start(&folder).await, folder)
}

pub(crate) async fn start(folder: &tempfile::TempDir) -> Service {
    let mut config = Config { data_dir: folder.path().join("data"), ..Config::default() };
    config.http.listen = "127.0.0.1:0".parse().unwrap();
    config.security.private_addresses = heddle_schemas::network::Networks::loopback();
    config.http.admin_token = Secret::new(ADMIN_TOKEN);
    Service::start(config).await.unwrap()
}

#[tokio::test]
async fn a_disconnection_that_broke_off_holds_after_a_restart_and_can_be_ended() {
    let site = Site::with_acme().await;
    let account: AccountKey = "acme/whatsapp/1001".parse().unwrap();
    // All that a node does before it crashes.
    site.service.node.ports.keys.erase_channel(&account).await.unwrap();
    let (service, folder) = restarted(site).await;
    let client = holder_of(ADMIN_TOKEN);
    let show = async |service: &Service| {
        let url = format!("http://{}/v1/tenants/acme", service.admin_address);
        client.get(url).send().await.unwrap().json::<Value>().await.unwrap()
    };
    assert_eq!(show(&service).await["channels"], json!([]));
    let url = format!("http://{}/v1/tenants/acme/channels/whatsapp/1001", service.admin_address);
    assert_eq!(client.delete(url).send().await.unwrap().status(), 200);
    service.stop().await;
    let service = start(&folder).await;
    assert_eq!(show(&service).await["disconnected"][0]["account"], "1001");
    service.stop().await;
}

#[tokio::test]
async fn what_was_applied_before_channels_had_keys_of_their_own_still_opens() {
    let site = Site::with_acme().await;
    let node = &site.service.node;
    let record: TenantRecord =
        serde_json::from_value(records(&site, Topic::Tenants).await.remove(0)).unwrap();
    let mut config: Tenant = record.config;
    for channel in &mut config.channels {
        for (name, secret) in [("app_secret", "0ld"), ("access_token", "t0ken"), ("verify_token", "ver1fy")] {
            channel.credentials.set(name, Secret::new(secret));
        }
    }
    let id: TenantId = config.id.clone();
    let secrets: BTreeMap<String, String> =
        config.secrets_mut().into_iter().map(|(place, secret)| (place, secret.expose().to_owned())).collect();
    let cipher = node.ports.keys.tenant(&id).await.unwrap();
    let secrets = cipher.seal(&log_aad(Topic::Tenants, &id), &encode(&secrets));
    let old = TenantRecord {
        v: V,
        at: SystemClock.now(),
        config,
        secrets,
        channels: BTreeMap::new(),
        mac: None,
        retentions: 0,
        former: Vec::new(),
    };
    let bytes = encode(&old);
    assert!(!String::from_utf8(bytes.to_vec()).unwrap().contains("\"channels\":{"), "as it was written then");
    let partition = tenant_partition(Topic::Tenants, &id, node.ports.log.partitions(Topic::Tenants));
    let key = bytes::Bytes::copy_from_slice(id.as_str().as_bytes());
    node.ports.log.append(vec![NewRecord { partition, key, value: bytes }]).await.unwrap();
    // A start accepts it, and writes it anew: now it has keys of its own.
    let site = site.restarted().await;
    let hello = webhook(&[message("1001", "wamid.1", "hello")]);
    assert_eq!(site.post("1001", "0ld", hello.clone()).send().await.unwrap().status(), 200);
    assert_eq!(disconnect(&site, "acme", "1001").await.0, 200);
    assert_eq!(site.post("1001", "0ld", hello).send().await.unwrap().status(), 404);
    let newest = records(&site, Topic::Tenants).await.pop().unwrap();
    let newest: TenantRecord = decode(&encode(&newest)).unwrap();
    let own = cipher.open(&log_aad(Topic::Tenants, &id), &newest.secrets).unwrap();
    assert!(!String::from_utf8(own).unwrap().contains("t0ken"), "the newest record has no such secret");
}
