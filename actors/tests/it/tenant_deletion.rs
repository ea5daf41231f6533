//! Tenant deletion while the tenant works, next to another one: it stops, its key is destroyed, then every row is
//! removed, through a crash at any step, over the store in memory with paused time. Late records change nothing, and
//! the other tenant stays as it was.

use std::ops::Deref;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use heddle_actors::intake::consent;
use heddle_actors::privacy::audit_log::AuditLog;
use heddle_actors::privacy::tenant_deletion;
use heddle_actors::privacy::verification::Prover;
use heddle_actors::privacy::{deleted_totals, erasure};
use heddle_schemas::audit::{Outcome, What};
use heddle_schemas::consent::{Category, How, Says};
use heddle_schemas::id::{ChannelKind, ContactId, MessageKey, TenantId};
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::keys::KeysError;
use heddle_schemas::ports::knowledge::{Document, DocumentFormat};
use heddle_schemas::ports::log::NewRecord;
use heddle_schemas::ports::state::{Row, Walk};
use heddle_schemas::record::event::Event;
use heddle_schemas::table::{Key, Table};
use heddle_schemas::tenant::Tenant;
use heddle_schemas::tenant_deletion::DeletionRecord;
use heddle_schemas::topic::{Topic, TopicPartition};
use heddle_testing::{Site, SiteBuilder, TenantBuilder};

const ANN: &str = "4915700000001";
const BOB: &str = "4915700000002";

fn acme() -> Tenant {
    TenantBuilder::new("acme").account("1").account("2").settle("100ms").build()
}

fn globex() -> Tenant {
    TenantBuilder::new("globex").account("3").settle("100ms").build()
}

struct World(Site);

impl Deref for World {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.0
    }
}

impl World {
    /// Returns a scenario in which both tenants have talked with customers, who consented; messages of acme wait for a
    /// suspended account.
    async fn begin() -> Self {
        let world = Self(SiteBuilder::default().start(&[acme(), globex()]).await);
        world.say(&acme(), ANN, "1", "a1").await;
        world.say(&acme(), BOB, "2", "a2").await;
        world.say(&globex(), ANN, "3", "g1").await;
        for tenant in [acme(), globex()] {
            world.consents(&tenant.id).await;
            let ports = world.with(|node| node.ports.clone());
            let document = Document {
                id: "faq".into(),
                title: "FAQ".into(),
                format: DocumentFormat::Text,
                text: "Open from nine.".into(),
            };
            ports.knowledge.put(&tenant.id, document).await.unwrap();
        }
        world.refuses.store(true, Ordering::Relaxed);
        world.say(&acme(), ANN, "1", "a3").await;
        world.refuses.store(false, Ordering::Relaxed);
        world
    }

    async fn consents(&self, tenant: &TenantId) {
        let ports = self.with(|node| node.ports.clone());
        let cipher = ports.keys.tenant(tenant).await.unwrap();
        let statement = consent::Statement {
            says: Says::Give,
            categories: vec![Category::Marketing],
            at: self.clock.now(),
            how: How::Import,
            key: MessageKey::from_bytes([5; 16]),
            text: Some("on paper".into()),
        };
        let contact = ContactId::from_bytes([5; 16]);
        consent::record(&ports, tenant, &*cipher, contact, &statement).await.unwrap();
    }

    /// Asks once. The caller does not come back when the node dies meanwhile.
    async fn ask_once(&self) {
        let (ports, tenants) = self.with(|node| (node.ports.clone(), node.system.tenants.clone()));
        let id = acme().id;
        tokio::select! {
            asked = tenant_deletion::ask(&ports, &tenants, &id, 1) => drop(asked.unwrap()),
            () = self.died.notified() => self.restart().await,
        }
    }

    async fn deletion(&self) -> Option<DeletionRecord> {
        let ports = self.with(|node| node.ports.clone());
        tenant_deletion::find(&ports, &acme().id).await.unwrap()
    }

    async fn completed(&self) -> DeletionRecord {
        for _ in 0..1_200 {
            self.second().await;
            if let Some(deletion) = self.deletion().await.filter(DeletionRecord::is_complete) {
                // Its event comes after.
                for _ in 0..40 {
                    self.second().await;
                }
                return deletion;
            }
        }
        panic!("{:?} is not complete with {:?}", self.deletion().await, self.rows(&acme().id).await);
    }

    /// Every row of a tenant but the agenda's.
    async fn rows(&self, tenant: &TenantId) -> Vec<Row> {
        let tables: Vec<_> = Table::ALL.into_iter().filter(|table| *table != Table::Agenda).collect();
        let state = self.with(|node| node.ports.state.clone());
        let mut walk = Walk::of(tenant, tables, 7);
        let mut rows = Vec::new();
        loop {
            let page = state.walk(&walk).await.unwrap();
            rows.extend(page.rows.clone());
            if !walk.go_on(&page) {
                return rows;
            }
        }
    }

    /// Returns the rows of the other tenant that no ongoing work changes: a quota's leases are given back.
    async fn of_globex(&self) -> Vec<Row> {
        let rows = self.rows(&globex().id).await.into_iter();
        rows.filter(|row| row.key.table() != Table::Quota).collect()
    }

    /// Returns the rows that a tenant alone has, anywhere: those of no tenant are checked by name.
    fn names(&self, tenant: &str) -> Vec<String> {
        let rows = self.disk.rows(self.clock.now()).into_iter();
        let named = rows.filter(|(key, _)| String::from_utf8_lossy(key.as_bytes()).contains(tenant));
        named.map(|(key, _)| format!("{:?} {}", key.table(), String::from_utf8_lossy(key.row()))).collect()
    }

    fn records(&self, topic: Topic) -> Vec<heddle_schemas::ports::log::Record> {
        let partitions = 0..self.disk.partitions(topic);
        partitions.flat_map(|partition| self.disk.records(TopicPartition { topic, partition })).collect()
    }

    fn deleted_events(&self) -> usize {
        self.events().iter().filter(|event| matches!(event, Event::TenantDeleted { .. })).count()
    }
}

/// Asserts what remains of a deleted tenant: its receipt, and that its key is not to be made again.
fn assert_gone(world: &World, rows: &[Row], step: impl std::fmt::Display) {
    let key = Key::tenant_key(&acme().id);
    assert!(matches!(rows, [row] if row.key == key && row.value == [0][..]), "{step}: {rows:?}");
    assert_eq!(world.names("acme"), ["Key ", "Removal tacme"], "{step}");
}

#[tokio::test(start_paused = true)]
async fn a_deleted_tenant_leaves_its_receipt_alone_and_another_is_as_it_was() {
    let world = World::begin().await;
    let (early, before) = (world.clock.now(), world.sent());
    assert_eq!(before, ["on text of a1", "on text of a2", "on text of g1"]);
    let tables =
        |rows: &[Row]| rows.iter().map(|row| row.key.table()).collect::<std::collections::BTreeSet<_>>();
    let had = tables(&world.rows(&acme().id).await);
    for table in [Table::Head, Table::History, Table::Send, Table::Backlog, Table::Contact, Table::Quota] {
        assert!(had.contains(&table), "{table:?} is not among {had:?}");
    }
    let globex_had = world.of_globex().await;

    world.ask_once().await;
    let tenants = world.with(|node| node.system.tenants.clone());
    assert!(tenants.get(&acme().id).is_none() && tenants.get(&globex().id).is_some());
    let ports = world.with(|node| node.ports.clone());
    let key = ports.keys.tenant(&acme().id).await.map(drop);
    assert!(matches!(key, Err(KeysError::Gone { .. })), "the key goes before the rows: {key:?}");
    assert!(world.rows(&acme().id).await.len() > 10);

    let deletion = world.completed().await;
    assert_gone(&world, &world.rows(&acme().id).await, "at the end");
    assert_eq!(world.of_globex().await, globex_had, "the other's rows are the same, byte by byte");
    assert_eq!(ports.knowledge.list(&acme().id).await.unwrap(), []);
    assert_eq!(ports.knowledge.list(&globex().id).await.unwrap().len(), 1);
    let counted = deletion.rows.clone().unwrap();
    assert_eq!((counted["head"], counted["contact"], counted["backlog"]), (2, 3, 1), "{counted:?}");
    tokio::time::sleep(Duration::from_secs(60)).await;
    let stored =
        world.disk.rows(world.clock.now()).into_iter().find(|(key, _)| *key == Key::removal(&acme().id));
    let receipt: DeletionRecord = serde_json::from_slice(&stored.unwrap().1).unwrap();
    assert!(receipt.usage.is_empty() && receipt.adding.is_none(), "nothing leads from it to what was used");
    let totals = deleted_totals::list(&ports).await.unwrap();
    let used: Vec<_> = totals.iter().map(|(_, used)| (used.turns, used.messages)).collect();
    assert_eq!(used, [(3, 3)], "what was used is kept");
    let rows = world.disk.rows(world.clock.now()).into_iter();
    let of_totals = rows.filter(|(key, _)| *key == Key::removal_totals(&totals[0].0));
    for (_, stored) in of_totals {
        let text = String::from_utf8(stored.to_vec()).unwrap();
        assert!(!text.contains("acme") && !text.contains("adding"), "{text}");
    }
    assert!(deletion.completed_at.unwrap() <= deletion.deadline);
    assert_eq!(world.deleted_events(), 1);
    let entries = AuditLog::new(ports.clone()).entries(None, 0, 100).await.unwrap();
    let done = entries.iter().filter(|entry| {
        entry.body.act.outcome == Outcome::Done
            && entry.body.act.what == What::TenantErase { tenant: acme().id }
    });
    assert_eq!(done.count(), 1);

    // All that the log holds of it once more, as after a redelivery, and a webhook that was under way.
    let old = [Topic::Inbound, Topic::Outbound].map(|topic| world.records(topic)).concat();
    let again = old.iter().filter(|record| record.key.starts_with(b"acme"));
    let again: Vec<_> = again
        .map(|record| NewRecord {
            partition: record.partition,
            key: record.key.clone(),
            value: record.value.clone(),
        })
        .collect();
    assert!(again.len() > 10);
    ports.log.append(again).await.unwrap();
    let reception = world.with(|node| node.system.reception.clone());
    let late = world.said(ANN, "1", "a9", early);
    let late = reception.accept(ChannelKind::Whatsapp, &std::sync::Arc::new(acme()), vec![late]).await;
    assert!(late.is_err(), "without a key nothing can be accepted");
    assert!(tenants.apply(acme()).await.is_err(), "its id is not given out again");
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_gone(&world, &world.rows(&acme().id).await, "after what came late");
    assert_eq!(world.records(Topic::Dlq).len(), 0, "it is settled, and not dead-lettered");
    assert_eq!(world.sent(), before);
    world.say(&globex(), ANN, "3", "g2").await;
    assert_eq!(world.sent().last().unwrap(), "on text of g2");

    // Another node, or this one later, finds it the same.
    world.restart().await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(world.deletion().await, Some(deletion));
    assert_eq!(world.deleted_events(), 1, "it is published once");
}

#[tokio::test(start_paused = true)]
async fn a_verification_distinguishes_rows_being_removed_from_rows_left_over() {
    let world = World::begin().await;
    let left = world.rows(&acme().id).await.into_iter().find(|row| row.key.table() == Table::Alias).unwrap();
    let prove = async || {
        let (ports, tenants) = world.with(|node| (node.ports.clone(), node.system.tenants.clone()));
        let keys = ports.keys.clone();
        let (oldest_record, marker_ttl) = (Duration::from_secs(86_400), Duration::from_secs(864_000));
        Prover { ports, keys, tenants, oldest_record, marker_ttl, records: 100 }.prove_rest().await.unwrap()
    };
    world.ask_once().await;
    let proofs = prove().await;
    assert!(proofs.hold(), "they have their time: {proofs:?}");
    world.completed().await;
    assert!(prove().await.hold());
    let state = world.with(|node| node.ports.state.clone());
    state.compare_and_set(&left.key, None, Some(left.value), None).await.unwrap();
    let proofs = prove().await;
    assert!(!proofs.hold(), "what comes back is found: {proofs:?}");
}

#[tokio::test(start_paused = true)]
async fn an_erasure_under_way_goes_with_its_tenant() {
    let world = World::begin().await;
    let (ports, id) = (world.with(|node| node.ports.clone()), acme().id);
    let nowhere = (ChannelKind::Whatsapp, "9".parse().unwrap());
    erasure::ask(&ports, &id, [nowhere], ContactId::from_bytes([5; 16])).await.unwrap();
    world.ask_once().await;
    world.completed().await;
    assert_gone(&world, &world.rows(&id).await, "at the end");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_starts_with_a_configuration_whose_key_is_gone_does_not_know_the_tenant() {
    let world = World::begin().await;
    let applied = world.records(Topic::Tenants).into_iter().rfind(|record| record.key == "acme").unwrap();
    world.ask_once().await;
    // A node that had not read of it applies the tenant once more, with a key that it still has.
    let ports = world.with(|node| node.ports.clone());
    let record = NewRecord {
        partition: applied.partition,
        key: Bytes::from_static(b"acme"),
        value: applied.value.clone(),
    };
    ports.log.append(vec![record]).await.unwrap();
    world.restart().await;
    assert!(world.with(|node| node.system.tenants.get(&acme().id)).is_none());
    world.completed().await;
    assert_gone(&world, &world.rows(&acme().id).await, "at the end");
}

#[tokio::test(start_paused = true)]
async fn a_deletion_resumes_after_a_crash_at_any_step_without_a_second_request() {
    let (mut step, mut begun) = (0, 0);
    loop {
        let world = World::begin().await;
        let globex_had = world.of_globex().await;
        world.die_after(step);
        world.ask_once().await;
        if world.deletion().await.is_none()
            && world.names("acme").iter().all(|row| !row.starts_with("Removal"))
        {
            assert_eq!(begun, 0, "step {step}: what was durable is not lost");
            assert!(world.with(|node| node.system.tenants.get(&acme().id)).is_some(), "nothing was begun");
            step += 1;
            continue;
        }
        begun += 1;
        world.completed().await;
        let died = world.steps_left() < 0;
        assert_gone(&world, &world.rows(&acme().id).await, format!("step {step}"));
        assert_eq!(world.of_globex().await, globex_had, "step {step}");
        assert!((1..=2).contains(&world.deleted_events()), "step {step}");
        assert_eq!(world.records(Topic::Dlq).len(), 0, "step {step}");
        if !died {
            assert!(step > 100, "so few steps are no deletion");
            return;
        }
        // The request and the first walks step by step, repetitions by samples.
        step += if step < 20 { 1 } else { 1 + step / 3 };
    }
}
