//! Descriptors of tables, checked against the engine: rows of every table exist, a contact is erased or a tenant
//! deleted, and exactly the rows are removed whose descriptor says so; the verification finds each that is left over.
//!
//! The tests go through all tables and name none: a new one is in them, and fails them until a row of it exists and is
//! removed as its descriptor says.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use heddle_actors::audience::import::{Import, Row};
use heddle_actors::intake::consent;
use heddle_actors::intake::identity::Identity;
use heddle_actors::partition::publish;
use heddle_actors::ports::Ports;
use heddle_actors::privacy::audit_log::AuditLog;
use heddle_actors::privacy::verification::Prover;
use heddle_actors::privacy::{erasure, tenant_deletion};
use heddle_schemas::audience::Member;
use heddle_schemas::audit::{Act, Outcome, What, Who};
use heddle_schemas::consent::{Category, How, Says};
use heddle_schemas::content::Address;
use heddle_schemas::id::{AccountKey, ChannelKind, ContactId, MessageKey, TenantId};
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::keys::{KeysError, Missing, aad};
use heddle_schemas::ports::knowledge::{Document, DocumentFormat};
use heddle_schemas::ports::log::NewRecord;
use heddle_schemas::ports::state::{Batch, Walk, Write};
use heddle_schemas::promise::{Promise, Proofs};
use heddle_schemas::record::event::Event;
use heddle_schemas::record::inbound::{InboundEvent, InboundRecord};
use heddle_schemas::record::outbound::{OutboundCommand, OutboundRecord};
use heddle_schemas::record::{V, decode, encode};
use heddle_schemas::table::{
    ContactErasure, Form, Json, Key, Owner, SealedUnder, Table, TenantDeletion, Written,
};
use heddle_schemas::tenant::Tenant;
use heddle_schemas::tenant_deletion::DeletionRecord;
use heddle_testing::{Site, SiteBuilder, TenantBuilder};

const ANN: &str = "4915700000001";
const BOB: &str = "4915700000002";

fn acme() -> Tenant {
    TenantBuilder::new("acme").account("1").account("3").settle("100ms").build()
}

fn globex() -> Tenant {
    TenantBuilder::new("globex").account("2").settle("100ms").build()
}

/// A stored row.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stored {
    key: Key,
    value: Bytes,
}

/// Two tenants. Of acme, every table has a row, of its contact Ann where it is about contacts.
struct Scenario {
    node: Site,
    ann: ContactId,
}

impl Deref for Scenario {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.node
    }
}

impl Scenario {
    async fn begin() -> Self {
        let node = SiteBuilder::default().start(&[acme(), globex()]).await;
        for (tenant, phone, account, id) in
            [(acme(), ANN, "1", "a1"), (acme(), BOB, "1", "b1"), (globex(), ANN, "2", "g1")]
        {
            node.say(&tenant, phone, account, id).await;
        }
        let identity = Identity::new(node.with(|node| node.ports.clone()));
        let address = Address { phone: Some(ANN.into()), ..Address::default() };
        let ann = identity.resolve(&acme().id, ChannelKind::Whatsapp, &address).await.unwrap();
        let scenario = Self { node, ann };
        scenario.consent().await;
        scenario.document().await;
        scenario.audience().await;
        scenario.audit_entry().await;
        scenario.records_of_a_later_build().await;
        // An erasure of a contact without conversations.
        let ports = scenario.ports();
        erasure::ask(&ports, &acme().id, [], ContactId::from_bytes([9; 16])).await.unwrap();
        for table in Table::ALL {
            scenario.plant(table).await;
        }
        // A message waits for the account, which is suspended.
        scenario.refuses.store(true, Ordering::Relaxed);
        scenario.say(&acme(), ANN, "1", "a2").await;
        scenario
    }

    /// The same, while another message waits for its turn: now no table is without a row.
    async fn begin_with_timer() -> Self {
        let scenario = Self::begin().await;
        scenario.receive(&acme(), scenario.said(ANN, "1", "a3", scenario.clock.now())).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
        for table in Table::ALL {
            assert!(!scenario.rows(table).is_empty(), "the scenario has no row of {table:?}");
        }
        scenario
    }

    fn ports(&self) -> Ports {
        self.with(|node| node.ports.clone())
    }

    async fn consent(&self) {
        let ports = self.ports();
        let cipher = ports.keys.tenant(&acme().id).await.unwrap();
        let statement = consent::Statement {
            says: Says::Give,
            categories: vec![Category::Marketing],
            at: self.clock.now(),
            how: How::Import,
            key: MessageKey::from_bytes([5; 16]),
            text: Some("on paper".into()),
        };
        consent::record(&ports, &acme().id, &*cipher, self.ann, &statement).await.unwrap();
    }

    async fn document(&self) {
        let ports = self.ports();
        let document = Document {
            id: "faq".into(),
            title: "FAQ".into(),
            format: DocumentFormat::Text,
            text: "Open from nine.".into(),
        };
        ports.knowledge.put(&acme().id, document).await.unwrap();
    }

    /// Has Ann and Bob in an audience of acme.
    async fn audience(&self) {
        let (ports, id) = (self.ports(), "newsletter".parse().unwrap());
        let identity = Arc::new(Identity::new(ports.clone()));
        let mut import = Import::begin(ports, identity, acme().id, id).await.unwrap();
        let row = |phone: &str| Row {
            member: Member {
                phone: format!("+{phone}"),
                values: BTreeMap::from([("city".into(), "Ulm".into())]),
            },
            consent: None,
        };
        import.apply(vec![row(ANN), row(BOB)]).await.unwrap();
        import.finish(["city".to_owned()], None).await.unwrap();
    }

    async fn audit_entry(&self) {
        let act = Act {
            who: Who::ENGINE,
            what: What::TenantApply,
            why: None,
            outcome: Outcome::Done,
            began: None,
            records: None,
        };
        AuditLog::new(self.ports()).append(Some(&acme().id), act).await.unwrap();
    }

    /// Has account 3, and Ann's conversation with it, held for records that a later build wrote.
    async fn records_of_a_later_build(&self) {
        let ports = self.ports();
        let account =
            AccountKey { tenant: acme().id, channel: ChannelKind::Whatsapp, account: "3".parse().unwrap() };
        let conversation = account.conversation(self.ann);
        let now = self.clock.now();
        let (of_inbound, of) = (conversation.clone(), conversation.to_string());
        let inbound = InboundRecord { v: V, conversation: of_inbound, at: now, event: InboundEvent::Leave };
        let outbound = OutboundRecord { v: V, conversation, at: now, command: OutboundCommand::Forget };
        let value = Bytes::from(format!("{{\"v\":999,\"only a later build knows\":\"{of}\"}}"));
        let records = [publish::inbound(&ports, &inbound), publish::outbound(&ports, &outbound)];
        let records = records.map(|record| NewRecord { value: value.clone(), ..record });
        ports.log.append(records.into()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
    }

    /// Entities of acme that are held, and their parked records.
    fn parked(&self) -> usize {
        let rows = self.all().into_iter().filter(|row| row.key.table() == Table::Parked);
        let is_acmes = |row: &Stored| row.key.tenant() == "acme" || row.key.row().starts_with(b"acme/");
        rows.filter(is_acmes).count()
    }

    /// Writes a row of a table that has none so far, with the form that its descriptor gives it.
    #[expect(clippy::disallowed_methods, reason = "rows are made for tables that are not known here")]
    async fn plant(&self, table: Table) {
        let later = [Table::Agenda, Table::Backlog];
        if later.contains(&table) || !self.rows(table).is_empty() {
            return;
        }
        let descriptor = table.descriptor();
        let conversation = [b"whatsapp/1/", &self.ann.to_bytes()[..]].concat();
        let tenant = acme().id;
        let (tenant_of_row, id) = match descriptor.owner {
            Owner::Conversation => (tenant.as_str(), conversation),
            Owner::Account => (tenant.as_str(), b"whatsapp/1".to_vec()),
            Owner::Contact => (tenant.as_str(), self.ann.to_bytes().to_vec()),
            Owner::Tenant => (tenant.as_str(), Vec::new()),
            Owner::Partition | Owner::Engine => ("", vec![7; 5]),
            owner => panic!("{table:?}: the scenario writes no row of {owner:?}"),
        };
        let key = Key::stored(table, tenant_of_row, &id, &[7; 17]);
        let keys = self.ports().keys;
        let value = match descriptor.form {
            Form::Sealed { under: SealedUnder::Contact, column } | Form::Thread { column } => {
                let cipher = keys.contact(&tenant, self.ann, Missing::Fail).await.unwrap();
                cipher.seal(&aad(&key, column), b"planted").into_bytes()
            }
            Form::Sealed { under: SealedUnder::Tenant, column } => {
                let cipher = keys.tenant(&tenant).await.unwrap();
                cipher.seal(&aad(&key, column), b"planted").into_bytes()
            }
            Form::Ids(lengths) => vec![7; *lengths.last().unwrap()].into(),
            Form::Json(Json::Engine) => Bytes::from_static(b"{}"),
            Form::Json(Json::TenantDeletion) => {
                encode(&DeletionRecord::new("gone".parse().unwrap(), self.clock.now(), 1))
            }
            form => panic!("{table:?}: the scenario writes no row of form {form:?}"),
        };
        self.put(Stored { key, value }).await;
    }

    /// Writes a row in the way of its table.
    async fn put(&self, row: Stored) {
        let state = self.ports().state;
        let Stored { key, value } = row;
        if key.table().descriptor().written == Written::Conditional {
            let before = state.get(&key).await.unwrap();
            state.compare_and_set(&key, before, Some(value), None).await.unwrap();
        } else {
            let expires = self.clock.now().after(Duration::from_secs(86_400));
            let ends = key.table().descriptor().lifetime.ends();
            let write = match ends {
                true => Write::put_until(key, value, expires),
                false => Write::put(key, value),
            };
            state.commit(Batch { writes: vec![write], ..Batch::default() }).await.unwrap();
        }
    }

    async fn delete(&self, key: &Key) {
        let state = self.ports().state;
        if key.table().descriptor().written == Written::Conditional {
            let before = state.get(key).await.unwrap();
            state.compare_and_set(key, before, None, None).await.unwrap();
        } else {
            let writes = vec![Write::delete(key.clone())];
            state.commit(Batch { writes, ..Batch::default() }).await.unwrap();
        }
    }

    /// Every row of the store.
    fn all(&self) -> Vec<Stored> {
        let rows = self.disk.rows(self.clock.now()).into_iter();
        rows.map(|(key, value)| Stored { key, value }).collect()
    }

    /// Rows of a table: about Ann where its rows are about contacts, else of acme, else of the engine.
    fn rows(&self, table: Table) -> Vec<Stored> {
        let rows = self.all().into_iter().filter(|row| row.key.table() == table);
        let descriptor = table.descriptor();
        rows.filter(|row| match descriptor.owner {
            Owner::Engine => true,
            Owner::Partition => {
                descriptor.contact_erasure == ContactErasure::NotAbout || self.is_about_ann(row)
            }
            _ if row.key.tenant() != acme().id.as_str() => false,
            _ => self.is_about_ann(row),
        })
        .collect()
    }

    fn is_about_ann(&self, row: &Stored) -> bool {
        let descriptor = row.key.table().descriptor();
        match (descriptor.form, descriptor.owner) {
            (Form::Json(Json::Outbound), _) => decode::<OutboundRecord>(&row.value)
                .is_ok_and(|record| record.conversation.contact == self.ann),
            (_, Owner::Partition) => String::from_utf8_lossy(row.key.row()).contains(&self.ann.to_string()),
            (_, Owner::Tenant) if row.key.about().is_none() => {
                !matches!(descriptor.contact_erasure, ContactErasure::Tombstone)
            }
            _ => row.key.about() == Some(self.ann),
        }
    }

    /// Returns the keys of Bob's and globex's rows, which must not change; quota leases are given back meanwhile.
    fn others(&self) -> BTreeSet<Key> {
        let rows = self.all().into_iter();
        let of_others = rows.filter(|row| {
            let of_globex = row.key.tenant() == globex().id.as_str();
            let of_bob = row.key.about().is_some_and(|contact| contact != self.ann);
            of_globex || of_bob
        });
        of_others.map(|row| row.key).collect()
    }

    async fn erase_ann(&self) {
        let channels = acme().channels.into_iter().map(|channel| (channel.kind, channel.account));
        let asked = erasure::ask(&self.ports(), &acme().id, channels, self.ann).await.unwrap();
        for _ in 0..200 {
            self.second().await;
            let erasure = erasure::find(&self.ports(), &acme().id, asked.id).await.unwrap().unwrap();
            if erasure.is_complete() {
                // The account does its part after the conversation, and keys leave the caches.
                tokio::time::sleep(Duration::from_secs(600)).await;
                return;
            }
        }
        panic!("{asked:?} is not complete");
    }

    async fn delete_acme(&self) {
        let (ports, tenants) = self.with(|node| (node.ports.clone(), node.system.tenants.clone()));
        tenant_deletion::ask(&ports, &tenants, &acme().id, 1).await.unwrap();
        for _ in 0..1_200 {
            self.second().await;
            let deletion = tenant_deletion::find(&ports, &acme().id).await.unwrap();
            if deletion.is_some_and(|deletion| deletion.is_complete()) {
                tokio::time::sleep(Duration::from_secs(60)).await;
                return;
            }
        }
        panic!("the deletion is not complete");
    }

    fn prover(&self) -> Prover {
        let (ports, tenants) = self.with(|node| (node.ports.clone(), node.system.tenants.clone()));
        let keys = ports.keys.clone();
        let (oldest_record, marker_ttl) = (Duration::from_secs(864_000), Duration::from_secs(864_000));
        Prover { ports, keys, tenants, oldest_record, marker_ttl, records: 100 }
    }

    /// The faults of a promise about acme.
    async fn faults(&self, promise: Promise) -> Vec<String> {
        let tenant = Arc::new(acme());
        let (proofs, _) = self.prover().prove(&tenant).await.unwrap();
        faults(&proofs, promise)
    }

    /// Returns the faults of a promise about data of no existing tenant.
    async fn faults_of_rest(&self, promise: Promise) -> Vec<String> {
        faults(&self.prover().prove_rest().await.unwrap(), promise)
    }
}

fn faults(proofs: &Proofs, promise: Promise) -> Vec<String> {
    proofs
        .proofs
        .iter()
        .filter(|proof| proof.promise == promise)
        .flat_map(|proof| proof.faults.clone())
        .collect()
}

fn keys(rows: &[Stored]) -> BTreeSet<Key> {
    rows.iter().map(|row| row.key.clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn an_erasure_removes_exactly_the_rows_whose_descriptors_say_so() {
    let scenario = Scenario::begin_with_timer().await;
    let before = Table::ALL.map(|table| (table, scenario.rows(table)));
    let (others, sent) = (scenario.others(), scenario.sent());
    assert_eq!(scenario.parked(), 4, "a conversation and an account, with a record each");
    scenario.erase_ann().await;
    assert_eq!(scenario.parked(), 0);
    assert_eq!(scenario.sent(), sent, "nothing is sent to an erased contact");
    assert!(scenario.events().iter().any(|event| matches!(event, Event::Forgotten { .. })));
    for (table, had) in before {
        let has = scenario.rows(table);
        match table.descriptor().contact_erasure {
            ContactErasure::Removed => assert_eq!(has, [], "{table:?}"),
            ContactErasure::Tombstone => {
                assert_eq!(keys(&has), keys(&had), "{table:?}");
                // A timer that fires afterwards may make another key, which remembers the erasure.
                let key = scenario.ports().keys.contact(&acme().id, scenario.ann, Missing::Fail).await;
                match key {
                    Ok(key) => assert!(key.erased_at().is_some(), "{table:?}"),
                    Err(error) => assert!(matches!(error, KeysError::Gone { .. }), "{table:?}: {error}"),
                }
            }
            ContactErasure::Kept(_) | ContactErasure::NotAbout => {
                assert!(keys(&has).is_superset(&keys(&had)), "{table:?}: {has:?} of {had:?}");
            }
        }
    }
    let left = scenario.others();
    assert!(left.is_superset(&others), "{:?}", others.difference(&left).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_deletion_removes_exactly_the_rows_whose_descriptors_say_so() {
    let scenario = Scenario::begin_with_timer().await;
    let before = Table::ALL.map(|table| (table, scenario.rows(table)));
    let of_globex = |rows: BTreeSet<Key>| -> BTreeSet<Key> {
        rows.into_iter().filter(|key| key.tenant() == globex().id.as_str()).collect()
    };
    let others = of_globex(scenario.others());
    assert_eq!(scenario.parked(), 4, "a conversation and an account, with a record each");
    scenario.delete_acme().await;
    assert_eq!(scenario.parked(), 0);
    for (table, had) in before {
        let has = scenario.rows(table);
        match table.descriptor().tenant_deletion {
            TenantDeletion::Removed | TenantDeletion::RemovedOnceSettled => {
                let of_acme = scenario.all().into_iter().filter(|row| row.key.tenant() == acme().id.as_str());
                let of_table = of_acme.filter(|row| row.key.table() == table && !row.key.outlives_tenant());
                assert_eq!(of_table.collect::<Vec<_>>(), [], "{table:?}");
            }
            TenantDeletion::Drains(_) => assert_eq!(has, [], "{table:?}"),
            TenantDeletion::Kept(_) | TenantDeletion::NotAbout => {
                assert!(keys(&has).is_superset(&keys(&had)), "{table:?}: {has:?} of {had:?}");
            }
        }
    }
    assert_eq!(of_globex(scenario.others()), others);
}

#[tokio::test(start_paused = true)]
async fn a_row_of_each_table_that_an_erasure_left_over_is_found() {
    let scenario = Scenario::begin().await;
    let removed = Table::of_tenants()
        .into_iter()
        .filter(|table| table.descriptor().contact_erasure == ContactErasure::Removed);
    let before: Vec<_> = removed.map(|table| scenario.rows(table).remove(0)).collect();
    assert!(before.len() >= 7, "{before:?}");
    scenario.erase_ann().await;
    assert_eq!(scenario.faults(Promise::Erasure).await, [""; 0]);
    for row in before {
        let key = row.key.clone();
        scenario.put(row).await;
        let found = scenario.faults(Promise::Erasure).await;
        assert!(found.iter().any(|fault| fault.contains(&format!("{key:?}"))), "{key:?}: {found:?}");
        scenario.delete(&key).await;
        assert_eq!(scenario.faults(Promise::Erasure).await, [""; 0], "{key:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_row_of_each_table_that_a_deletion_left_over_is_found() {
    let scenario = Scenario::begin().await;
    let removed = Table::ALL.into_iter().filter(|table| table.descriptor().tenant_deletion.removes());
    let before: Vec<_> = removed.map(|table| scenario.rows(table).remove(0)).collect();
    scenario.delete_acme().await;
    assert_eq!(scenario.faults_of_rest(Promise::Isolation).await, [""; 0]);
    for row in before {
        let key = row.key.clone();
        scenario.put(row).await;
        let found = scenario.faults_of_rest(Promise::Isolation).await;
        assert!(found.iter().any(|fault| fault.contains(&format!("{key:?}"))), "{key:?}: {found:?}");
        scenario.delete(&key).await;
        assert_eq!(scenario.faults_of_rest(Promise::Isolation).await, [""; 0], "{key:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_row_of_a_tenant_is_walked_over() {
    let scenario = Scenario::begin().await;
    let state = scenario.ports().state;
    let of = |tenant: TenantId| Walk::of(&tenant, Table::of_tenants(), 10_000);
    let walked: BTreeSet<_> =
        state.walk(&of(acme().id)).await.unwrap().rows.into_iter().map(|row| row.key).collect();
    let stored = scenario.all().into_iter().map(|row| row.key);
    let of_acme: BTreeSet<_> = stored.filter(|key| key.tenant() == acme().id.as_str()).collect();
    assert_eq!(walked, of_acme);
}
