//! The audit log and security incidents, as operators, auditors and attackers meet them.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use heddle_schemas::id::{ConversationId, MessageKey};
use heddle_schemas::ports::log::{FetchLimit, NewRecord};
use heddle_schemas::record::event::{
    Approximately, DataCategory, Event, EventRecord, Incident, IncidentKind, Measure,
};
use heddle_schemas::record::inbound::{ActKind, CustomerAct, InboundEvent, InboundRecord};
use heddle_schemas::record::{V, decode, encode};
use heddle_schemas::table::Key;
use heddle_schemas::topic::{Topic, TopicPartition, inbound_partition};
use serde_json::{Value, json};

use crate::serving::site::{ADMIN_TOKEN, ADMIN_TOKEN_VARIABLE, Site, message, webhook};

async fn heddle(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heddle"));
    command.env(ADMIN_TOKEN_VARIABLE, ADMIN_TOKEN);
    command.current_dir(folder).args(arguments);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Operation, outcome, name and reason of each entry.
async fn log(site: &Site, tenant: &str) -> Vec<[String; 4]> {
    let asked = site.client.get(format!("{}/v1/audit/log?{tenant}", site.url)).send().await.unwrap();
    let answer: Value = asked.json().await.unwrap();
    let line = |entry: &Value| {
        [&entry["what"]["operation"], &entry["outcome"], &entry["who"]["name"], &entry["why"]]
            .map(|field| field.as_str().unwrap_or("-").to_owned())
    };
    answer["items"].as_array().unwrap_or_else(|| panic!("{answer}")).iter().map(line).collect()
}

#[tokio::test]
async fn what_changes_something_is_written_down_with_who_why_and_what_came_of_it() {
    let site = Site::with_acme().await;
    let named = |request: reqwest::RequestBuilder| {
        let request = request.header("Heddle-Actor", "Zoë".as_bytes());
        request.header("Heddle-Reason", "ticket 17")
    };
    let documents = format!("{}/v1/tenants/acme/documents", site.url);
    let document =
        json!({ "id": "faq.md", "title": "FAQ", "format": "markdown", "text": "# Hours\n\nNine." });
    assert_eq!(named(site.client.post(&documents).json(&document)).send().await.unwrap().status(), 200);
    let gone = site.client.delete(&documents).query(&[("id", "none.md")]);
    assert_eq!(gone.send().await.unwrap().status(), 404);
    let handling =
        format!("{}/v1/tenants/acme/conversations/whatsapp/1001/{}/handling", site.url, "07".repeat(16));
    assert_eq!(site.client.put(handling).json(&json!({ "by": "human" })).send().await.unwrap().status(), 202);
    let line = |words: [&str; 4]| words.map(ToOwned::to_owned);
    let expected = [
        line(["tenant_apply", "begun", "-", "-"]),
        line(["tenant_apply", "done", "-", "-"]),
        line(["document_put", "begun", "Zoë", "ticket 17"]),
        line(["document_put", "done", "Zoë", "ticket 17"]),
        line(["document_remove", "begun", "-", "-"]),
        line(["document_remove", "refused", "-", "-"]),
        line(["contact_hand_over", "begun", "-", "-"]),
        line(["contact_hand_over", "done", "-", "-"]),
    ];
    assert_eq!(log(&site, "tenant=acme").await, expected);
    assert_eq!(site.client.get(format!("{}/v1/dlq/0-7", site.url)).send().await.unwrap().status(), 404);
    let replay = site.client.post(format!("{}/v1/dlq/replay", site.url)).json(&json!({ "ids": ["0-7"] }));
    assert_eq!(named(replay).send().await.unwrap().status(), 200);
    let expected = [
        line(["letter_show", "begun", "-", "-"]),
        line(["letters_replay", "begun", "Zoë", "ticket 17"]),
        line(["letters_replay", "done", "Zoë", "ticket 17"]),
    ];
    assert_eq!(log(&site, "").await, expected);
    let first: Value = site
        .client
        .get(format!("{}/v1/audit/log?tenant=acme&limit=1&from=4", site.url))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let entry = &first["items"][0];
    assert_eq!(
        (&entry["number"], &entry["began"], &entry["who"]["means"]),
        (&json!(4), &json!(3), &json!("token"))
    );
    assert_eq!(entry["who"]["address"], json!("127.0.0.1"));
    assert!(!first.to_string().contains("Nine"), "{first}");
    // A phone number would outlive the erasure of whose it is.
    let wrong =
        site.client.delete(&documents).query(&[("id", "faq.md")]).header("Heddle-Reason", "+4915112345678");
    let wrong = wrong.send().await.unwrap();
    assert_eq!(wrong.status(), 400);
    assert!(wrong.text().await.unwrap().contains("phone number"));
    assert_eq!(log(&site, "tenant=acme").await.len(), 8);
}

#[tokio::test]
async fn what_cannot_be_written_down_is_not_done() {
    let site = Site::with_acme().await;
    let state = &site.service.node.ports.state;
    let acme = "acme".parse().unwrap();
    let head = Key::access_head(Some(&acme));
    let stored = state.get(&head).await.unwrap();
    state.compare_and_set(&head, stored, None, None).await.unwrap();
    let answer = site.apply("acme", "2002", "s3cret").await;
    assert_eq!(answer.status(), 500);
    let printed = answer.text().await.unwrap();
    assert!(printed.contains("nothing was done") && printed.contains("--resume"), "{printed}");
    let shown =
        site.client.get(format!("{}/v1/tenants/acme", site.url)).send().await.unwrap().text().await.unwrap();
    assert!(shown.contains("1001") && !shown.contains("2002"), "{shown}");
    assert_eq!(site.apply("globex", "3003", "s3cret").await.status(), 200, "others go on");
    let here = tempfile::tempdir().unwrap();
    let resumed = heddle(here.path(), &["audit", "log", "acme", "--resume", "--url", &site.url]).await;
    assert_eq!(resumed.status.code(), Some(0), "{}", text(&resumed));
    assert_eq!(site.apply("acme", "2002", "s3cret").await.status(), 200);
    let verified = heddle(here.path(), &["audit", "log", "acme", "--verify", "--url", &site.url]).await;
    assert_eq!(verified.status.code(), Some(1));
    assert!(text(&verified).contains("entry 3 is missing"), "{}", text(&verified));
}

#[tokio::test]
async fn an_auditor_verifies_a_running_node_and_the_folder_it_leaves() {
    let site = Site::with_acme().await;
    let here = tempfile::tempdir().unwrap();
    let url = site.url.clone();
    let arguments = ["--url", &url, "contact", "hand-over", "--as", "Ann", "--why", "asked for by phone"];
    let conversation = format!("acme/whatsapp/1001/{}", "07".repeat(16));
    let done =
        heddle(here.path(), &[&arguments[2..4], &[&conversation], &arguments[..2], &arguments[4..]].concat())
            .await;
    assert_eq!(done.status.code(), Some(0), "{}", text(&done));
    let listed = heddle(here.path(), &["audit", "log", "acme", "--url", &url, "--from", "3"]).await;
    let lines = text(&listed);
    assert!(lines.contains("Ann (token, 127.0.0.1)") && lines.contains("asked for by phone"), "{lines}");
    assert!(lines.contains(&conversation) && lines.contains("done (of 3)"), "{lines}");
    let verified = heddle(here.path(), &["audit", "log", "--verify", "--json", "--url", &url]).await;
    assert_eq!(verified.status.code(), Some(0), "{}", text(&verified));
    let verdicts: Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!((&verdicts[0]["entries"], &verdicts[1]["entries"]), (&json!(0), &json!(4)));
    let newest = &verdicts[1]["newest"];
    let noted = format!("4:{}", newest["hash"].as_str().unwrap());
    for wrong in [&["--noted", "4:x", "--verify"][..], &["--noted", &noted], &["--why", "+4915112345678"]] {
        let refused = heddle(here.path(), &[&["audit", "log", "acme", "--url", &url], wrong].concat()).await;
        assert_eq!(refused.status.code(), Some(2), "{wrong:?} {}", text(&refused));
    }

    // A removed entry is found on a folder that no process has open.
    let acme = "acme".parse().unwrap();
    let (state, row) = (&site.service.node.ports.state, Key::access(Some(&acme), 2));
    let stored = state.get(&row).await.unwrap();
    state.compare_and_set(&row, stored, None, None).await.unwrap();
    let data = site.service.node.config.data_dir.clone();
    let (service, _folder) = site.into_parts();
    assert!(service.stop().await);
    let config = format!("data_dir = \"{}\"\nhttp.admin_listen = \"127.0.0.1:9\"\n", data.display());
    std::fs::write(here.path().join("heddle.toml"), config).unwrap();
    let verified = heddle(here.path(), &["audit", "log", "acme", "--verify", "--noted", &noted]).await;
    assert_eq!(verified.status.code(), Some(1));
    let printed = text(&verified);
    assert!(printed.contains("IS BROKEN, 3 entries") && printed.contains("entry 2 is missing"), "{printed}");
    // Who works on the folder is named by the system, where it knows a name.
    let added = here.path().join("faq.md");
    std::fs::write(&added, "# Hours\n\nNine.").unwrap();
    let done = heddle(here.path(), &["kb", "add", "acme", "faq.md"]).await;
    assert_eq!(done.status.code(), Some(0), "{}", text(&done));
    let listed = heddle(here.path(), &["audit", "log", "acme", "--json", "--from", "5"]).await;
    let entries: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(
        (&entries[0]["what"]["operation"], &entries[0]["who"]["means"]),
        (&json!("document_put"), &json!("folder"))
    );
    let user = Command::new("id").arg("-un").output().unwrap();
    assert_eq!(entries[0]["who"]["name"], json!(String::from_utf8(user.stdout).unwrap().trim()));
}

/// Waits until topic events holds `count` incidents, and returns them.
async fn incidents(site: &Site, count: usize) -> Vec<(String, Incident)> {
    let log = &site.service.node.ports.log;
    let mut found = Vec::new();
    for _ in 0..200 {
        found.clear();
        for partition in 0..log.partitions(Topic::Events) {
            let partition = TopicPartition { topic: Topic::Events, partition };
            let limit = FetchLimit { records: 10_000, bytes: 64 << 20 };
            for record in log.fetch(partition, 0, limit, Duration::ZERO).await.unwrap() {
                let EventRecord { tenant, event, .. } = decode(&record.value).unwrap();
                if let Event::Security(incident) = event {
                    found.push((tenant.to_string(), incident));
                }
            }
        }
        if found.len() >= count {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    found
}

async fn begun(site: &Site, kind: &str) -> f64 {
    site.counted(&format!("heddle_security_incidents_total{{kind=\"{kind}\"}}")).await
}

#[tokio::test]
async fn a_burst_of_wrong_signatures_is_one_incident_and_a_few_are_none() {
    let site = Site::with_acme().await;
    let body = webhook(&[message("1001", "wamid.1", "hello")]);
    let forge = async |times| {
        for _ in 0..times {
            let answer = site.post("1001", "a guess", body.clone()).send().await.unwrap();
            assert_eq!(answer.status(), 401);
        }
    };
    forge(19).await;
    assert_eq!(begun(&site, "webhook_signature").await, 0.0);
    forge(31).await;
    let published = incidents(&site, 1).await;
    assert_eq!(begun(&site, "webhook_signature").await, 1.0);
    assert_eq!(site.sum("heddle_security_sightings_total").await, 50.0);
    let [(tenant, incident)] = &published[..] else { panic!("{published:?}") };
    assert_eq!((tenant.as_str(), incident.kind), ("acme", IncidentKind::WebhookSignature));
    assert!(incident.count >= 20 && incident.first < incident.last, "{incident:?}");
    assert_eq!((incident.data.len(), incident.measure), (0, Measure::Refused));
}

#[tokio::test]
async fn whoever_names_what_is_another_tenants_raises_an_incident_of_whose_it_is() {
    let site = Site::with_acme().await;
    site.apply("globex", "2002", "0ther").await;
    let body = webhook(&[message("1001", "wamid.a", "one"), message("2002", "wamid.b", "not globex's")]);
    assert_eq!(site.post("1001", "s3cret", body).send().await.unwrap().status(), 200);
    let published = incidents(&site, 1).await;
    let [(tenant, incident)] = &published[..] else { panic!("{published:?}") };
    assert_eq!((tenant.as_str(), incident.kind, incident.count), ("globex", IncidentKind::CrossTenant, 1));
    // The event goes to globex, and does not tell it who else is here.
    assert!(!serde_json::to_string(incident).unwrap().contains("acme"));
    assert_eq!(site.apply("globex", "1001", "0ther").await.status(), 409);
    let published = incidents(&site, 2).await;
    assert_eq!(published.len(), 2);
    assert!(published.iter().any(|(tenant, _)| tenant == "acme"), "{published:?}");
}

#[tokio::test]
async fn a_record_that_does_not_open_is_an_incident_that_says_what_a_notice_needs() {
    let site = Site::with_acme().await;
    let ports = &site.service.node.ports;
    let now = ports.clock.now();
    for number in 1..=3_u8 {
        let conversation: ConversationId =
            format!("acme/whatsapp/1001/{}", hex::encode([number; 16])).parse().unwrap();
        let key = MessageKey::from_bytes([number; 16]);
        // Sealed for another place: it was moved.
        let cipher = ports.keys.log(&conversation.tenant, now.day()).await.unwrap();
        let sealed = cipher.seal(b"elsewhere", b"hello");
        let act =
            CustomerAct { key, sent_at: now, kind: ActKind::Say, target: None, sealed, also: Vec::new() };
        let record = InboundRecord {
            v: V,
            conversation: conversation.clone(),
            at: now,
            event: InboundEvent::Customer(act),
        };
        let partition = inbound_partition(&conversation, ports.log.partitions(Topic::Inbound));
        let key = conversation.to_string().into();
        ports.log.append(vec![NewRecord { partition, key, value: encode(&record) }]).await.unwrap();
    }
    let published = incidents(&site, 1).await;
    let [(tenant, incident)] = &published[..] else { panic!("{published:?}") };
    assert_eq!((tenant.as_str(), incident.kind), ("acme", IncidentKind::FailedDecryption));
    assert_eq!(incident.data, [DataCategory::ContactDetails, DataCategory::Messages].into());
    assert_eq!(
        (incident.people, incident.measure),
        (Approximately { counted: 0, or_more: true }, Measure::NotUsed)
    );
    assert!(incident.first >= now && incident.records.counted >= 1);
    assert_eq!(begun(&site, "failed_decryption").await, 1.0);
    assert_eq!(site.sum("heddle_dlq_records_total").await, 3.0);
}

#[tokio::test]
async fn exports_beyond_the_usual_and_a_broken_audit_log_are_incidents() {
    let site = Site::start(|config| config.security.exports = std::num::NonZeroU64::new(2).unwrap()).await;
    site.apply("acme", "1001", "s3cret").await;
    let administration = site.service.node.administration().await.unwrap();
    let acme = "acme".parse().unwrap();
    administration.exported(&acme, None, 7);
    assert_eq!(begun(&site, "unusual_export").await, 0.0);
    administration.exported(&acme, None, 7);
    let published = incidents(&site, 1).await;
    assert_eq!((published[0].1.records.counted, published[0].1.measure), (14, Measure::Permitted));

    let state = &site.service.node.ports.state;
    let row = Key::access(Some(&acme), 1);
    let stored = state.get(&row).await.unwrap();
    state.compare_and_set(&row, stored, None, None).await.unwrap();
    let verdict: Value = site
        .client
        .get(format!("{}/v1/audit/log/verification?tenant=acme", site.url))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(verdict["faults"], json!([{ "fault": "missing", "from": 1, "to": 1 }]));
    assert_eq!(incidents(&site, 2).await.len(), 2);
    assert_eq!(begun(&site, "audit_log").await, 1.0);
}
