//! A tenant with ten thousand messages, and one of its contacts forgotten in the middle of them, on the embedded store
//! and on real Kafka and CQL: the export before, nothing after it, not a byte of what the person wrote in any row, any
//! topic but ingress and any file, and every promise kept by the audit.
//!
//! Ingress may hold plain text for its hours. A part of what the person writes comes through it, stamped so long ago
//! that its hours end within the test, which sees it there, and sees it removed once Kafka has applied its retention.

mod search;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::serving::site::operator;
use futures::StreamExt as _;
use heddle_connectors::clock::SystemClock;
use heddle_engine::service::Service;
use heddle_schemas::config::Config;
use heddle_schemas::ports::clock::Clock as _;
use heddle_schemas::sealed::Secret;
use heddle_schemas::topic::Topic;
use heddle_simulator::graph::{self, GraphApi};
use hmac::{Hmac, KeyInit, Mac};
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use sha2::Sha256;

use self::search::Searched;

/// Number of contacts, each of which writes a burst of lines a round.
const CONTACTS: usize = 125;
const ROUNDS: usize = 4;
const LINES: usize = 20;
/// The rounds before somebody is forgotten.
const BEFORE: usize = 2;
/// Webhooks under way at once.
const AT_ONCE: usize = 16;
/// Timeout until everything is settled.
const PATIENCE: Duration = Duration::from_secs(600);

/// Phone number and words of the person to be erased, which occur nowhere else.
const PHONE: &str = "4917700000000";
const WORDS: &str = "my heron eats nothing but marzipan";
/// The tenant's own plaintext, which proves that the search finds text.
const CLINIC: &str = "Zanzibar Heron Clinic";

struct Stage {
    service: Service,
    graph: GraphApi,
    client: Client,
    url: String,
    hooks: String,
    /// The person's first burst, as it was posted.
    first: String,
}

fn phone(contact: usize) -> String {
    if contact == 0 { PHONE.to_owned() } else { format!("49151{contact:08}") }
}

fn line(contact: usize, round: usize, line: usize) -> String {
    match contact {
        0 => format!("{WORDS}, part {round}.{line}"),
        _ => format!("what does the lamp of visitor {contact} cost, in round {round}.{line}?"),
    }
}

/// A burst of one contact, as WhatsApp posts it.
fn burst(contact: usize, round: usize) -> String {
    let at = (SystemClock.now().as_micros() / 1_000_000).to_string();
    let messages: Vec<_> = (0..LINES)
        .map(|number| {
            json!({ "from": phone(contact), "id": format!("wamid.{contact}.{round}.{number}"), "timestamp": at,
                "type": "text", "text": { "body": line(contact, round, number) } })
        })
        .collect();
    let value = json!({
        "messaging_product": "whatsapp",
        "metadata": { "display_phone_number": "15550001", "phone_number_id": "1001" },
        "contacts": [{ "profile": { "name": "Visitor" }, "wa_id": phone(contact) }],
        "messages": messages,
    });
    let changes = [json!({ "field": "messages", "value": value })];
    json!({ "object": "whatsapp_business_account", "entry": [{ "id": "1", "changes": changes }] }).to_string()
}

impl Stage {
    async fn begin(config: Config) -> Self {
        let numbers = [("1001".parse().unwrap(), Secret::new("t0ken-of-the-clinic"))].into();
        let options = graph::Options { numbers, ..graph::Options::default() };
        let graph = GraphApi::start(options, Arc::new(SystemClock)).await.unwrap();
        let service = Service::start(config).await.unwrap();
        let url = format!("http://{}", service.admin_address);
        let hooks = format!("http://{}", service.address);
        let tenant = json!({
            "id": "clinic", "name": CLINIC,
            "agent": { "settle": "200ms", "fallback": "A colleague will call you." },
            "channels": [{ "kind": "whatsapp", "account": "1001", "api_base": graph.api_base(),
                "access_token": "t0ken-of-the-clinic", "app_secret": "s3cret-of-the-clinic",
                "verify_token": "ver1fy-of-the-clinic", "messages_per_second": 1000 }],
        });
        let client = operator(&service);
        let applied = client.put(format!("{url}/v1/tenants/clinic")).json(&tenant).send().await.unwrap();
        assert!(applied.status().is_success(), "{}", applied.text().await.unwrap());
        Self { service, graph, client, url, hooks, first: burst(0, 0) }
    }

    async fn post(&self, body: String) {
        let mut mac = Hmac::<Sha256>::new_from_slice(b"s3cret-of-the-clinic").unwrap();
        mac.update(body.as_bytes());
        let signature = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
        let url = format!("{}/webhooks/whatsapp/1001", self.hooks);
        // A node that is busy says so, and is asked again, as WhatsApp does.
        for _ in 0..100 {
            let asked = self.client.post(&url).header("x-hub-signature-256", &signature).body(body.clone());
            if asked.send().await.unwrap().status() == StatusCode::OK {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        panic!("a webhook is not accepted");
    }

    async fn talk(&self, contacts: std::ops::Range<usize>, rounds: std::ops::Range<usize>) {
        let of_round = |round| contacts.clone().map(move |contact| (contact, round));
        let posts = rounds.flat_map(of_round).map(|(contact, round)| {
            let body = if (contact, round) == (0, 0) { self.first.clone() } else { burst(contact, round) };
            self.post(body)
        });
        futures::stream::iter(posts).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await;
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Value {
        let answer = self.client.get(format!("{}/v1/{path}", self.url)).query(query).send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.text().await.unwrap());
        answer.json().await.unwrap()
    }

    /// Returns the person's messages, from an export.
    async fn said(&self) -> Vec<String> {
        let export = self
            .get("tenants/clinic/contacts/export", &[("contact", &format!("+{PHONE}"))])
            .await
            .to_string();
        export.match_indices(WORDS).map(|(at, _)| export[at..at + WORDS.len() + 10].to_owned()).collect()
    }

    /// Number of replies that each contact has.
    fn replies(&self, contacts: std::ops::Range<usize>) -> Vec<usize> {
        contacts.map(|contact| self.graph.taken_for(&phone(contact)).len()).collect()
    }

    /// Number of accepted records that are not settled yet, and of turns that wait for their time.
    async fn in_work(&self) -> (u64, f64) {
        let text =
            self.client.get(format!("{}/metrics", self.url)).send().await.unwrap().text().await.unwrap();
        let window = text.lines().filter(|line| line.starts_with("heddle_agenda_window_entries"));
        let window = window.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum();
        let node = &self.service.node;
        (node.unsettled(Topic::Inbound).await + node.unsettled(Topic::Outbound).await, window)
    }

    /// Waits until each contact has more replies than `before` and no work is left. Two bursts in a row may share a
    /// reply on a slow machine, so that the number of bursts says nothing about the number of replies.
    async fn answered(&self, contacts: std::ops::Range<usize>, before: &[usize]) {
        let all = async {
            // Work moves from one topic to the other between two looks, so one quiet look proves nothing.
            let mut quiet = 0;
            while quiet < 3 {
                let more =
                    self.replies(contacts.clone()).iter().zip(before).all(|(now, before)| now > before);
                quiet = if more && self.in_work().await == (0, 0.0) { quiet + 1 } else { 0 };
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, all).await.is_err() {
            let waiting: Vec<_> = self
                .replies(contacts)
                .into_iter()
                .zip(before)
                .enumerate()
                .filter(|(_, (now, before))| now <= *before)
                .collect();
            panic!("contacts without a new reply: {waiting:?}; in work: {:?}", self.in_work().await);
        }
    }

    async fn forget(&self) -> Value {
        let url = format!("{}/v1/tenants/clinic/contacts/forget", self.url);
        let asked = self.client.post(url).query(&[("contact", format!("+{PHONE}"))]).send().await.unwrap();
        assert_eq!(asked.status(), StatusCode::ACCEPTED);
        let id = asked.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned();
        let complete = async {
            loop {
                let erasure = self.get(&format!("tenants/clinic/erasures/{id}"), &[]).await;
                if erasure.get("completed_at").is_some_and(|at| !at.is_null()) {
                    return erasure;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, complete).await.unwrap()
    }

    /// Everything up to the search: the talk, the erasure in the middle of it, and the audit.
    async fn play(&self) {
        let began = SystemClock.elapsed();
        let since = || SystemClock.elapsed().saturating_sub(began);
        self.talk(0..CONTACTS, 0..BEFORE).await;
        self.answered(0..CONTACTS, &[0; CONTACTS]).await;
        let said = self.said().await;
        assert!(said.len() >= BEFORE * LINES, "{said:#?}");
        println!("{:?}: the export before has {} messages of the person's", since(), said.len());

        let before = self.replies(1..CONTACTS);
        // One burst of the person's is still on its way when the erasure is asked for.
        let (_, receipt) = tokio::join!(self.talk(1..CONTACTS, BEFORE..ROUNDS), async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            self.forget().await
        });
        println!("{:?}: forgotten in the middle of the others' messages: {receipt}", since());
        assert_eq!(self.said().await, [""; 0], "the export after");
        // What the channel delivers once more changes nothing.
        let replies = self.graph.taken_for(PHONE).len();
        self.post(self.first.clone()).await;
        self.answered(1..CONTACTS, &before).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(self.said().await, [""; 0], "and after a late delivery");
        assert_eq!(self.graph.taken_for(PHONE).len(), replies, "nothing is sent any more");
        println!("{:?}: everybody else is answered, {} replies", since(), self.graph.taken_count());

        let proofs = self.get("audit", &[("tenant", "clinic")]).await;
        for proof in proofs["proofs"].as_array().unwrap() {
            println!("{:<12} {:<6} {}", proof["promise"].as_str().unwrap(), proof["kept"], proof["evidence"]);
        }
        println!("{:?}: audited", since());
        let broken: Vec<_> =
            proofs["proofs"].as_array().unwrap().iter().filter(|proof| proof["kept"] != true).collect();
        assert!(broken.is_empty(), "{broken:#?}");
        let rest = self.get("audit", &[]).await;
        assert!(rest["proofs"].as_array().unwrap().iter().all(|proof| proof["kept"] == true), "{rest:#}");
    }

    /// Everything that ports bring, but ingress.
    async fn search_ports(&self) -> Searched {
        let ports = &self.service.node.ports;
        let mut searched = Searched::default();
        search::rows(&*ports.state, &mut searched).await;
        for topic in Topic::ALL.into_iter().filter(|topic| *topic != Topic::Ingress) {
            search::topic(&*ports.log, topic, &mut searched).await;
        }
        searched
    }

    async fn search_ingress(&self) -> Searched {
        let mut searched = Searched::default();
        search::topic(&*self.service.node.ports.log, Topic::Ingress, &mut searched).await;
        searched
    }
}

fn words() -> [&'static str; 3] {
    [PHONE, WORDS, CLINIC]
}

/// The person is nowhere, and what stands in the clear is found.
fn assert_forgotten(searched: &Searched, what: &str) {
    println!("{what}: {searched}");
    assert_eq!(searched.found(PHONE), 0, "{what}: {searched}");
    assert_eq!(searched.found(WORDS), 0, "{what}: {searched}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_contact_is_forgotten_among_ten_thousand_messages_on_the_embedded_store() {
    let _alone = crate::whole_machine::alone().await;
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config { data_dir: folder.path().join("data"), ..Config::default() };
    config.http.listen = "127.0.0.1:0".parse().unwrap();
    config.security.private_addresses = heddle_schemas::network::Networks::loopback();
    let stage = Stage::begin(config).await;
    stage.play().await;
    let stored = stage.search_ports().await;
    assert_forgotten(&stored, "rows and topics");
    assert!(stored.found(CLINIC) > 0 && stored.bytes > 1_000_000, "{stored}");
    assert!(stage.service.stop().await);
    let mut files = Searched::default();
    search::files(&folder.path().join("data"), &|_| true, &mut files);
    assert_forgotten(&files, "files");
    assert!(files.found(CLINIC) > 0 && files.bytes > 1_000_000, "{files}");
}

/// Remaining retention of a record of ingress when it is published.
const LEFT: Duration = Duration::from_secs(30);

/// Publishes a message as a connector does that brings it late.
async fn publish(config: &Config, number: usize) {
    let brokers = config.log.brokers.join(",");
    let producer: FutureProducer = ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let topic = format!("{}ingress", config.log.topic_prefix);
    let record = json!({
        "v": 1, "tenant": "clinic", "channel": "whatsapp", "account": "1001",
        "message_id": format!("ingress-{number}"), "at": SystemClock.now().to_string(),
        "from": { "phone": format!("+{PHONE}") },
        "event": { "type": "message", "content": { "type": "text", "body": format!("{WORDS}, {number}") } },
    });
    let old = config.log.retention - LEFT;
    let at = SystemClock.now().as_micros() / 1_000 - i64::try_from(old.as_millis()).unwrap();
    let (payload, key) = (record.to_string(), number.to_string());
    let record = FutureRecord::to(&topic).key(&key).payload(&payload).timestamp(at);
    producer.send(record, Duration::from_secs(10)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_contact_is_forgotten_among_ten_thousand_messages_on_kafka_and_cql() {
    let _alone = crate::whole_machine::alone().await;
    let folder = tempfile::tempdir().unwrap();
    let config = crate::on_services::prepared("privacy", folder.path()).await;
    let stage = Stage::begin(config.clone()).await;
    for number in 0..3 {
        publish(&config, number).await;
    }
    let before = async {
        while stage.search_ingress().await.found(WORDS) == 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, before).await.is_ok(), "ingress shows what a connector published");
    stage.play().await;
    let gone = async {
        while stage.search_ingress().await.found(WORDS) > 0 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, gone).await.is_ok(),
        "ingress is not empty of it after its retention"
    );
    let (stored, ingress) = (stage.search_ports().await, stage.search_ingress().await);
    assert_forgotten(&ingress, "ingress, after its retention");
    assert_forgotten(&stored, "rows and topics");
    assert!(stored.found(CLINIC) > 0 && stored.bytes > 1_000_000, "{stored}");
    assert!(stage.service.stop().await);
    let mut files = Searched::default();
    search::files(&folder.path().join("data"), &|_| true, &mut files);
    if let Some(servers) = servers() {
        // Kafka deletes the files of ingress a minute after it has taken them out of use.
        let ours = |path: &Path| !path.to_string_lossy().contains("ingress");
        search::files(&servers, &ours, &mut files);
        assert!(files.found(CLINIC) > 0 && files.bytes > 1_000_000, "{files}");
    }
    assert_forgotten(&files, "files");
}

/// The servers' data, where the tests have started them.
#[expect(clippy::disallowed_methods, reason = "the environment names the test servers")]
fn servers() -> Option<PathBuf> {
    if std::env::var("HEDDLE_TEST_KAFKA").is_ok() {
        return None;
    }
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/services");
    Some(std::env::var("HEDDLE_SERVICES").map_or_else(|_| default(), PathBuf::from))
}
