//! Audit log over a store in memory: nodes that append at once, a store that fails, and an attacker who can write into
//! the database and has no key.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use heddle_actors::ports::Ports;
use heddle_actors::privacy::audit_log::{AuditError, AuditLog};
use heddle_keys::{EnvelopeKeys, MasterKey, Options as KeyOptions};
use heddle_memory::responder::Response;
use heddle_memory::{
    Fault, MemoryDisk, MemoryStore, Options, Outcome, ScriptedChannel, ScriptedResponder, TokioClock,
};
use heddle_schemas::audit::chain::{self, Noted, Row};
use heddle_schemas::audit::{Act, Outcome as Written, What, Who};
use heddle_schemas::id::TenantId;
use heddle_schemas::ports::log::FetchLimit;
use heddle_schemas::ports::state::Swap;
use heddle_schemas::record::decode;
use heddle_schemas::record::event::{Event, EventRecord};
use heddle_schemas::table::Key;
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Topic, TopicPartition};
use heddle_testing::PortsBuilder;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::JoinSet;

fn acme() -> TenantId {
    "acme".parse().unwrap()
}

fn act(document: impl Into<String>) -> Act {
    let what = What::DocumentPut { document: document.into() };
    Act { who: Who::ENGINE, what, why: None, outcome: Written::Begun, began: None, records: None }
}

/// Returns a store, and the switch that makes it fail now and then.
fn site(seed: u64) -> (Ports, Arc<AtomicBool>) {
    let clock = Arc::new(TokioClock::starting_at(Timestamp::from_secs(1_767_225_600)));
    let disk = MemoryDisk::new(NonZeroU32::new(2).unwrap());
    let stormy = Arc::new(AtomicBool::new(false));
    let (dice, storm) = (Mutex::new(StdRng::seed_from_u64(seed)), stormy.clone());
    let faults = Arc::new(move |_| {
        let mut rng = dice.lock().unwrap();
        let before = Duration::from_micros(rng.random_range(0..5_000));
        let outcome = match rng.random_range(0..100) {
            _ if !storm.load(Ordering::Relaxed) => Outcome::Works,
            0..3 => Outcome::FailsBefore,
            3..8 => Outcome::FailsAfter,
            _ => Outcome::Works,
        };
        Fault { before, after: Duration::ZERO, outcome }
    });
    let store =
        Arc::new(MemoryStore::open_with(disk, clock.clone(), Options { faults, ..Options::default() }));
    let keys = EnvelopeKeys::new(store.clone(), clock.clone(), &MasterKey::generate(), KeyOptions::default());
    let responder = ScriptedResponder::new(false, |question| Response::text(question, "an answer"));
    let channel = Arc::new(ScriptedChannel::default());
    (PortsBuilder::new(store, keys, clock, channel, Arc::new(responder)).build(), stormy)
}

/// Writes a row as an attacker does who can write into the database.
async fn write(ports: &Ports, key: Key, value: Option<Bytes>) {
    let stored = ports.state.get(&key).await.unwrap();
    assert_eq!(ports.state.compare_and_set(&key, stored, value, None).await.unwrap(), Swap::Done);
}

async fn row(ports: &Ports, number: u64) -> Bytes {
    ports.state.get(&Key::access(Some(&acme()), number)).await.unwrap().unwrap()
}

/// Returns the faults that a verification reports of acme's log.
async fn faults(log: &AuditLog) -> Vec<String> {
    let verdict = log.verify(Some(&acme()), &[]).await.unwrap();
    verdict.faults.iter().map(ToString::to_string).collect()
}

async fn with_entries(count: u64) -> (Ports, AuditLog) {
    let (ports, _) = site(1);
    let log = AuditLog::new(ports.clone());
    for number in 1..=count {
        log.append(Some(&acme()), act(format!("doc-{number}"))).await.unwrap();
    }
    assert_eq!(faults(&log).await, [""; 0]);
    (ports, log)
}

/// The heads that topic events has.
async fn heads(ports: &Ports) -> Vec<(TenantId, Noted)> {
    let mut heads = Vec::new();
    for partition in 0..ports.log.partitions(Topic::Events) {
        let partition = TopicPartition { topic: Topic::Events, partition };
        let limit = FetchLimit { records: 10_000, bytes: 64 << 20 };
        for record in ports.log.fetch(partition, 0, limit, Duration::ZERO).await.unwrap() {
            let EventRecord { tenant, event, .. } = decode(&record.value).unwrap();
            if let Event::Audited { number, hash } = event {
                heads.push((tenant, Noted { number, hash }));
            }
        }
    }
    heads
}

#[tokio::test(start_paused = true)]
async fn nodes_that_append_at_once_share_one_chain_in_which_every_entry_is_once() {
    for seed in 0..20 {
        let (ports, stormy) = site(seed);
        stormy.store(true, Ordering::Relaxed);
        let mut nodes = JoinSet::new();
        for node in 0..4 {
            let log = AuditLog::new(ports.clone());
            nodes.spawn(async move {
                let mut written = Vec::new();
                for n in 0..10 {
                    if let Ok(entry) = log.append(Some(&acme()), act(format!("{node}/{n}"))).await {
                        written.push(entry);
                    }
                }
                written
            });
        }
        let written: Vec<_> = nodes.join_all().await.into_iter().flatten().collect();
        stormy.store(false, Ordering::Relaxed);
        let log = AuditLog::new(ports.clone());
        // The next append completes what a fault may have left in the head alone.
        log.append(Some(&acme()), act("the last")).await.unwrap();
        assert_eq!(faults(&log).await, [""; 0], "seed {seed}");
        let entries = log.entries(Some(&acme()), 1, 1_000).await.unwrap();
        for entry in &written {
            assert_eq!(entries.iter().filter(|stored| *stored == entry).count(), 1, "seed {seed}");
        }
        let mut reported: Vec<_> = entries.iter().map(|entry| entry.body.act.what.about()).collect();
        reported.sort();
        let all = reported.len();
        reported.dedup();
        assert_eq!(reported.len(), all, "seed {seed}: an entry is there twice");
        assert!(written.len() > 30, "seed {seed}: {}", written.len());
    }
}

#[tokio::test]
async fn the_chains_of_tenants_and_of_no_tenant_do_not_touch_each_other() {
    let (ports, log) = with_entries(2).await;
    log.append(None, act("no tenant's")).await.unwrap();
    let verdict = log.verify(None, &[]).await.unwrap();
    assert_eq!((verdict.holds(), verdict.entries, verdict.keyed), (true, 1, true));
    let reported: Vec<_> =
        heads(&ports).await.into_iter().map(|(tenant, head)| (tenant.to_string(), head.number)).collect();
    assert!(
        reported.contains(&("heddle".into(), 1)) && reported.contains(&("acme".into(), 2)),
        "{reported:?}"
    );
    // One tenant's rows in the place of another's: the marks are of another key.
    let globex: TenantId = "globex".parse().unwrap();
    for number in 1..=2 {
        write(&ports, Key::access(Some(&globex), number), Some(row(&ports, number).await)).await;
    }
    let head = ports.state.get(&Key::access_head(Some(&acme()))).await.unwrap();
    write(&ports, Key::access_head(Some(&globex)), head).await;
    let verdict = log.verify(Some(&globex), &[]).await.unwrap();
    let reported: Vec<_> = verdict.faults.iter().map(ToString::to_string).collect();
    assert_eq!(reported.len(), 3, "{reported:?}");
}

#[tokio::test]
async fn tampering_without_the_key_is_reported_at_its_place() {
    // Changed.
    let (ports, log) = with_entries(6).await;
    let text = String::from_utf8_lossy(&row(&ports, 3).await[49..]).into_owned();
    let changed = [&row(&ports, 3).await[..49], text.replace("doc-3", "doc-9").as_bytes()].concat();
    write(&ports, Key::access(Some(&acme()), 3), Some(changed.into())).await;
    assert_eq!(faults(&log).await, ["entry 3 was changed: its hash is not that of what it says"]);

    // Forged, with a hash that anybody can compute, and the MAC of the entry that it replaces.
    let (ports, log) = with_entries(6).await;
    let keyless = ports.keys.tenant(&"mallory".parse().unwrap()).await.unwrap();
    let before = Row::read(&row(&ports, 2).await).unwrap().entry;
    let id = (before.body.id, before.body.at);
    let forged = Row::after(Some(&before), Some(&acme()), &*keyless, id, act("doc-9"));
    write(&ports, Key::access(Some(&acme()), 3), Some(forged.bytes)).await;
    assert_eq!(faults(&log).await, ["entry 3 was forged: its mark is not of the tenant's key"]);

    // Removed.
    let (ports, log) = with_entries(6).await;
    write(&ports, Key::access(Some(&acme()), 4), None).await;
    assert_eq!(faults(&log).await, ["entry 4 is missing"]);

    // Put into another order.
    let (ports, log) = with_entries(6).await;
    let (two, three) = (row(&ports, 2).await, row(&ports, 3).await);
    write(&ports, Key::access(Some(&acme()), 2), Some(three)).await;
    write(&ports, Key::access(Some(&acme()), 3), Some(two)).await;
    assert_eq!(faults(&log).await, ["row 2 holds entry 3", "row 3 holds entry 2"]);

    // Cut at its end, with and without the head.
    let (ports, log) = with_entries(6).await;
    for number in 5..=6 {
        write(&ports, Key::access(Some(&acme()), number), None).await;
    }
    assert_eq!(faults(&log).await, ["the end was cut: entries 5 to 6 are missing"]);
    write(&ports, Key::access_head(Some(&acme())), None).await;
    assert_eq!(faults(&log).await, ["the head is missing, so nobody knows where the chain ends"]);
}

#[tokio::test]
async fn a_log_reset_with_its_head_is_found_by_topic_events() {
    let (ports, log) = with_entries(4).await;
    let previous = ports.state.get(&Key::access_head(Some(&acme()))).await.unwrap();
    for number in 5..=6 {
        log.append(Some(&acme()), act(format!("doc-{number}"))).await.unwrap();
    }
    for number in 5..=6 {
        write(&ports, Key::access(Some(&acme()), number), None).await;
    }
    write(&ports, Key::access_head(Some(&acme())), previous).await;
    assert_eq!(faults(&log).await, [""; 0], "the store alone does not know better");
    let noted: Vec<_> = heads(&ports).await.into_iter().map(|(_, noted)| noted).collect();
    assert_eq!(noted.len(), 6);
    let verdict = log.verify(Some(&acme()), &noted).await.unwrap();
    assert_eq!(verdict.faults, [chain::Fault::Cut { from: 5, to: 6 }]);
}

#[tokio::test]
async fn a_lost_head_stops_the_log_until_it_is_resumed_and_the_break_shows_for_ever() {
    let (ports, log) = with_entries(3).await;
    for key in [Key::access_head(Some(&acme())), Key::access(Some(&acme()), 3)] {
        write(&ports, key, None).await;
    }
    let refused = log.append(Some(&acme()), act("doc-4")).await.unwrap_err();
    assert!(matches!(refused, AuditError::Broken { .. }) && !refused.is_transient(), "{refused}");
    assert!(refused.to_string().contains("--resume"), "{refused}");
    assert_eq!(log.entries(Some(&acme()), 1, 10).await.unwrap().len(), 2, "nothing hides it");
    let resumed = log.resume(Some(&acme()), Act { what: What::Resume, ..act("") }).await.unwrap();
    assert_eq!(resumed.body.number, 4);
    log.append(Some(&acme()), act("doc-5")).await.unwrap();
    assert_eq!(faults(&log).await, ["entry 3 is missing"]);
}

#[tokio::test]
async fn without_its_key_a_log_is_not_written_and_what_needs_no_key_is_verified() {
    let (ports, log) = with_entries(3).await;
    ports.keys.erase_tenant(&acme()).await.unwrap();
    let refused = log.append(Some(&acme()), act("doc-4")).await;
    assert!(matches!(refused, Err(AuditError::Keys(_))), "{refused:?}");
    let verdict = log.verify(Some(&acme()), &[]).await.unwrap();
    assert_eq!((verdict.holds(), verdict.entries, verdict.keyed), (true, 3, false));
    write(&ports, Key::access(Some(&acme()), 2), None).await;
    assert_eq!(faults(&log).await, ["entry 2 is missing"]);
}
