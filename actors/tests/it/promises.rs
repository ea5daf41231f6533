//! Verification of promises, over the store in memory with paused time: all are kept while the engine runs, and every
//! planted violation is found under its own kind.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use heddle_actors::intake::identity::Identity;
use heddle_actors::options::Options;
use heddle_actors::partition::publish;
use heddle_actors::ports::Ports;
use heddle_actors::privacy::audit_log::AuditLog;
use heddle_actors::privacy::erasure;
use heddle_actors::privacy::verification::Prover;
use heddle_actors::system::System;
use heddle_keys::{self as keys, EnvelopeKeys, MasterKey};
use heddle_memory::responder::Response;
use heddle_memory::{
    MemoryDisk, MemoryStore, Options as StoreOptions, ScriptedChannel, ScriptedResponder, TokioClock,
};
use heddle_schemas::audit::{Act as Acted, Outcome, What, Who};
use heddle_schemas::consent::Category;
use heddle_schemas::content::{Address, Content, Context};
use heddle_schemas::id::{ChannelKind, ContactId, ConversationId, MessageKey, OutboundId, TenantId, TurnId};
use heddle_schemas::outgoing::{OutgoingContent, Template};
use heddle_schemas::ports::channel::{Act, ChannelEvent, ReceivedMessage};
use heddle_schemas::ports::clock::Clock as _;
use heddle_schemas::ports::keys::Keys;
use heddle_schemas::ports::log::NewRecord;
use heddle_schemas::ports::state::{Batch, Row, Walk, Write};
use heddle_schemas::promise::{Promise, Proofs};
use heddle_schemas::record::outbound::{
    OutboundCommand, OutboundRecord, Purpose, SealedMessage, SendCommand,
};
use heddle_schemas::record::region::RegionRecord;
use heddle_schemas::record::{V, encode, log_aad};
use heddle_schemas::table::{Key, Table};
use heddle_schemas::tenant::Tenant;
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Topic, TopicPartition};
use heddle_testing::PortsBuilder;
use serde_json::json;

const ANN: &str = "4915700000001";
const BOB: &str = "4915700000002";
const EVE: &str = "4915700000003";
const DAY: Duration = Duration::from_secs(86_400);

fn tenant(id: &str, account: &str) -> Tenant {
    let text = format!(
        "id = \"{id}\"\nname = \"N\"\n[agent]\nfallback = \"f\"\nsettle = \"0s\"\n[[channels]]\nkind = \"whatsapp\"\n\
         account = \"{account}\"\naccess_token = \"token-of-{id}\"\napp_secret = \"secret-of-{id}\"\n\
         verify_token = \"verify-of-{id}\"\n"
    );
    Tenant::from_toml(&text).unwrap()
}

/// Two tenants whose customers have written, one of them erased since, and a campaign that was sent.
struct World {
    disk: Arc<MemoryDisk>,
    clock: Arc<TokioClock>,
    system: System,
    ports: Ports,
    keys: Arc<dyn Keys>,
    acme: Arc<Tenant>,
    ann: ContactId,
    bob: ContactId,
    /// Rows of Bob, whom acme has erased.
    of_bob: Vec<Row>,
}

impl World {
    async fn begin() -> Self {
        let disk = MemoryDisk::new(NonZeroU32::new(2).unwrap());
        let clock = Arc::new(TokioClock::starting_at(Timestamp::from_secs(1_767_225_600)));
        let store = Arc::new(MemoryStore::open_with(disk.clone(), clock.clone(), StoreOptions::default()));
        let master = MasterKey::generate();
        let of_actors = EnvelopeKeys::new(store.clone(), clock.clone(), &master, keys::Options::default());
        let keys = EnvelopeKeys::new(store.clone(), clock.clone(), &master, keys::Options::default());
        let responder = ScriptedResponder::new(true, |question| {
            Response::text(question, format!("on {}", question.messages.join(" ")))
        });
        let channel = Arc::new(ScriptedChannel::default());
        let ports = PortsBuilder::new(store, of_actors, clock.clone(), channel, Arc::new(responder)).build();
        let system = System::start(ports.clone(), Options::default()).await.unwrap();
        system.intake_gate.set_open(true);
        let acme = system.tenants.apply(tenant("acme", "1")).await.unwrap();
        system.tenants.apply(tenant("beta", "2")).await.unwrap();
        let none = ContactId::from_bytes([0; 16]);
        let keys: Arc<dyn Keys> = Arc::new(keys);
        let (ann, bob, of_bob) = (none, none, Vec::new());
        let region = RegionRecord {
            v: V,
            at: clock.now(),
            region: acme.region.clone(),
            state: "memory".into(),
            log: "memory".into(),
        };
        ports.state.compare_and_set(&Key::region(), None, Some(encode(&region)), None).await.unwrap();
        let mut world = Self { disk, clock, system, ports, keys, acme, ann, bob, of_bob };
        for (phone, id) in [(ANN, "a1"), (BOB, "b1"), (ANN, "a2"), (EVE, "e1")] {
            world.say("acme", phone, id).await;
        }
        world.say("beta", ANN, "b-a1").await;
        world.ann = world.contact("acme", ANN).await;
        world.bob = world.contact("acme", BOB).await;
        world.plan(world.ann).await;
        let log = AuditLog::new(world.ports.clone());
        for outcome in [Outcome::Begun, Outcome::Done] {
            let act = Acted {
                who: Who::ENGINE,
                what: What::TenantApply,
                why: None,
                outcome,
                began: None,
                records: None,
            };
            log.append(Some(&world.acme.id), act).await.unwrap();
        }
        world.of_bob =
            world.rows("acme").await.into_iter().filter(|row| row.key.about() == Some(world.bob)).collect();
        let erasure = erasure::ask(
            &world.ports,
            &world.acme.id,
            [(ChannelKind::Whatsapp, "1".parse().unwrap())],
            world.bob,
        )
        .await
        .unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
        let erasure = erasure::find(&world.ports, &world.acme.id, erasure.id).await.unwrap().unwrap();
        assert!(erasure.is_complete());
        // Every request has been settled and published, and the keys' caches have ended.
        tokio::time::sleep(Duration::from_secs(600)).await;
        world
    }

    async fn say(&self, tenant: &str, phone: &str, id: &str) {
        let tenant = self.system.tenants.get(&tenant.parse().unwrap()).unwrap();
        let event = ChannelEvent::Message(ReceivedMessage {
            account: tenant.channels[0].account.clone(),
            id: id.into(),
            from: Address { phone: Some(phone.into()), name: Some("Ann".into()), ..Address::default() },
            sent_at: self.clock.now(),
            act: Act::Say(Content::Text { body: format!("how much is the lamp of {id}?") }),
            context: Context::default(),
        });
        self.system.reception.accept(ChannelKind::Whatsapp, &tenant, vec![event]).await.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
    }

    async fn contact(&self, tenant: &str, phone: &str) -> ContactId {
        let identity = Identity::new(self.ports.clone());
        let address = Address { phone: Some(phone.into()), ..Address::default() };
        identity.resolve(&tenant.parse().unwrap(), ChannelKind::Whatsapp, &address).await.unwrap()
    }

    fn conversation(&self, contact: ContactId) -> ConversationId {
        let channel = &self.acme.channels[0];
        let (channel, account) = (channel.kind, channel.account.clone());
        ConversationId { tenant: self.acme.id.clone(), channel, account, contact }
    }

    fn outbound(contact: ContactId, number: u8) -> OutboundId {
        OutboundId::of_turn(contact, TurnId(MessageKey::from_bytes([number; 16])), 0)
    }

    /// Sends a message of a campaign.
    async fn plan(&self, contact: ContactId) {
        let id = Self::outbound(contact, 1);
        let log = self.ports.keys.log(&self.acme.id, self.clock.now().day()).await.unwrap();
        let to = Address { phone: Some(ANN.into()), ..Address::default() };
        let content = OutgoingContent::Template(Template::new("offer", "en"));
        let kind = content.kind();
        let message = SealedMessage { to, content };
        let sealed = log.seal(&log_aad(Topic::Outbound, &id), &encode(&message));
        let command = SendCommand {
            id,
            purpose: Purpose::Campaign,
            again: false,
            fence: None,
            window_until: None,
            kind,
            category: None,
            sealed,
        };
        let command = OutboundCommand::Send(command);
        let record =
            OutboundRecord { v: V, conversation: self.conversation(contact), at: self.clock.now(), command };
        self.ports.log.append(vec![publish::outbound(&self.ports, &record)]).await.unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
    }

    fn prover(&self) -> Prover {
        Prover {
            ports: self.ports.clone(),
            keys: self.keys.clone(),
            tenants: self.system.tenants.clone(),
            oldest_record: DAY,
            marker_ttl: 10 * DAY,
            records: 1_000,
        }
    }

    async fn prove(&self) -> Proofs {
        self.prover().prove(&self.acme).await.unwrap().0
    }

    async fn rows(&self, tenant: &str) -> Vec<Row> {
        let tenant: TenantId = tenant.parse().unwrap();
        let mut walk = Walk::of(&tenant, Table::ALL, 1_000);
        let mut rows = Vec::new();
        loop {
            let page = self.ports.state.walk(&walk).await.unwrap();
            rows.extend(page.rows.iter().cloned());
            if !walk.go_on(&page) {
                return rows;
            }
        }
    }

    async fn row(&self, table: Table, contact: Option<ContactId>) -> Row {
        let rows = self.rows("acme").await.into_iter();
        let mut rows = rows.filter(|row| row.key.table() == table);
        rows.find(|row| contact.is_none() || row.key.about() == contact).unwrap()
    }

    async fn put(&self, row: Row) {
        let write = Write { key: row.key, value: Some(row.value), expires: row.expires };
        self.ports.state.commit(Batch { writes: vec![write], ..Batch::default() }).await.unwrap();
    }

    /// Writes a row that only conditional writes may.
    async fn swap(&self, key: Key, value: Bytes) {
        let before = self.ports.state.get(&key).await.unwrap();
        self.ports.state.compare_and_set(&key, before, Some(value), None).await.unwrap();
    }

    async fn append(&self, topic: Topic, key: &str, value: serde_json::Value) {
        let partition = TopicPartition { topic, partition: 0 };
        let key = Bytes::copy_from_slice(key.as_bytes());
        self.ports.log.append(vec![NewRecord { partition, key, value: encode(&value) }]).await.unwrap();
    }
}

fn broken(proofs: &Proofs) -> BTreeSet<Promise> {
    proofs.proofs.iter().filter(|proof| !proof.kept).map(|proof| proof.promise).collect()
}

#[tokio::test(start_paused = true)]
async fn all_promises_are_kept_and_each_was_looked_at() {
    let world = World::begin().await;
    let proofs = world.prove().await;
    assert!(proofs.hold(), "{proofs:#?}");
    let of: Vec<_> = proofs.proofs.iter().map(|proof| proof.promise).collect();
    assert_eq!(of, Promise::ALL);
    let evidence = |promise: Promise| {
        let proof = proofs.proofs.iter().find(|proof| proof.promise == promise).unwrap();
        proof.evidence.clone()
    };
    for (promise, saw) in [
        (Promise::Encryption, "ciphertexts opened"),
        (Promise::Credentials, "3 secrets looked for"),
        (Promise::Isolation, "with the keys of 1 other tenants"),
        (Promise::Erasure, "1 erasures, 0 under way; 1 contacts tried: 1 without any key"),
        (Promise::Quota, "4 turns, 4 messages, 60 tokens added up from 4 rows"),
        (Promise::Consent, "1 sends replayed"),
        (Promise::Window, "4 sends with a window, of 5"),
        (Promise::AuditLog, "2 entries"),
    ] {
        assert!(evidence(promise).contains(saw), "{promise}: {}", evidence(promise));
    }
    let rest = world.prover().prove_rest().await.unwrap();
    assert!(rest.hold(), "{rest:#?}");
}

#[tokio::test(start_paused = true)]
async fn messages_of_customers_during_a_verification_break_nothing() {
    let world = World::begin().await;
    let talking = async {
        for n in 0..40 {
            world.say("acme", if n % 2 == 0 { ANN } else { EVE }, &format!("more-{n}")).await;
        }
    };
    let proving = async {
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            let proofs = world.prove().await;
            assert!(proofs.hold(), "{proofs:#?}");
        }
    };
    tokio::join!(talking, proving);
}

/// Plants something in a world of its own, and expects that exactly these promises are found broken, with a fault that
/// says so.
macro_rules! planted {
    ($($name:ident: [$($promise:ident),+] because $says:literal, |$world:ident| $plant:expr;)+) => {
        $(
            #[tokio::test(start_paused = true)]
            async fn $name() {
                let $world = World::begin().await;
                $plant;
                let proofs = $world.prove().await;
                let expected = BTreeSet::from([$(Promise::$promise),+]);
                assert_eq!(broken(&proofs), expected, "{proofs:#?}");
                let faults: Vec<_> = proofs.proofs.iter().flat_map(|proof| &proof.faults).collect();
                assert!(faults.iter().any(|fault| fault.contains($says)), "{faults:#?}");
            }
        )+
    };
}

planted! {
    a_message_in_the_clear_is_found: [Encryption] because "no ciphertext", |world| {
        let row = world.row(Table::History, None).await;
        world.put(Row { value: "{\"body\":\"come at ten\"}".into(), ..row }).await;
    };
    a_name_beside_a_conversations_state_is_found: [Encryption] because "more than the engine writes", |world| {
        let row = world.row(Table::Head, None).await;
        let mut head: serde_json::Value = serde_json::from_slice(&row.value).unwrap();
        head["name"] = json!("Ann");
        world.put(Row { value: encode(&head), ..row }).await;
    };
    a_key_in_the_clear_is_found: [Encryption] because "not wrapped", |world| {
        let contact = ContactId::from_bytes([9; 16]);
        world.swap(Key::contact_key(&world.acme.id, contact), vec![7; 32].into()).await;
    };
    what_a_customer_wrote_is_found_in_a_topic: [Encryption] because "in the clear", |world| {
        let about = "she asked: how much is the lamp of a1?";
        let event = json!({ "v": 1, "tenant": "beta", "at": 7, "event": { "note": about } });
        world.append(Topic::Events, "beta", event).await;
    };
    a_record_with_more_than_the_engine_writes_is_found: [Encryption] because "events", |world| {
        let event = json!({ "v": 1, "tenant": "acme", "at": 7, "text": "x", "event": {} });
        world.append(Topic::Events, "acme", event).await;
    };
    a_token_in_the_clear_is_found: [Credentials] because "access_token", |world| {
        let mut record = world.acme.to_json_exposed();
        record["note"] = json!("as it was applied");
        world.append(Topic::Tenants, "acme", json!({ "v": 1, "at": 7, "config": record, "secrets": "" })).await;
    };
    a_message_moved_to_another_conversation_is_found: [Isolation] because "sealed by another key", |world| {
        let row = world.row(Table::History, Some(world.ann)).await;
        let eve = world.contact("acme", EVE).await;
        world.put(Row { key: Key::history(&world.conversation(eve), 70), ..row }).await;
    };
    a_message_of_another_tenant_is_found: [Isolation] because "sealed by another key", |world| {
        let theirs = world.rows("beta").await;
        let row = theirs.into_iter().find(|row| row.key.table() == Table::History).unwrap();
        world.put(Row { key: Key::history(&world.conversation(world.ann), 70), ..row }).await;
    };
    a_record_through_another_tenants_account_is_found: [Isolation] because "tenant beta's", |world| {
        let mut conversation = world.conversation(world.ann);
        conversation.account = "2".parse().unwrap();
        let at = world.clock.now();
        let record = OutboundRecord { v: V, conversation, at, command: OutboundCommand::Forget };
        world.append(Topic::Outbound, "x", serde_json::to_value(&record).unwrap()).await;
    };
    a_message_without_an_end_is_found: [Retention] because "it has no end", |world| {
        let row = world.row(Table::History, None).await;
        world.put(Row { expires: None, ..row }).await;
    };
    a_message_that_is_kept_for_longer_than_promised_is_found: [Retention] because "it ends at", |world| {
        let row = world.row(Table::History, None).await;
        let expires = row.expires.map(|expires| expires.after(DAY));
        world.put(Row { expires, ..row }).await;
    };
    a_message_that_is_there_after_its_end_is_found: [Retention] because "still there", |world| {
        let row = world.row(Table::Marker, None).await;
        let expires = Timestamp::from_secs(1_767_225_600 - 2 * 86_400);
        world.put(Row { expires: Some(expires), ..row }).await;
    };
    a_row_of_who_was_erased_is_found: [Erasure] because "its key is gone, and 1 rows", |world| {
        let row = world.of_bob.iter().find(|row| row.key.table() == Table::History).unwrap();
        world.put(row.clone()).await;
    };
    a_key_that_came_back_is_found: [Erasure] because "is still there", |world| {
        let row = world.of_bob.iter().find(|row| row.key.table() == Table::Key).unwrap();
        world.swap(row.key.clone(), row.value.clone()).await;
    };
    a_key_and_a_message_that_came_back_are_found: [Erasure] because "before its contact was erased", |world| {
        for row in world.of_bob.clone() {
            match row.key.table() {
                Table::Key => world.swap(row.key, row.value).await,
                Table::History => world.put(row).await,
                _ => {}
            }
        }
    };
    an_erasure_after_its_deadline_is_found: [Erasure] because "was to be complete", |world| {
        let row = world.row(Table::Erasure, None).await;
        let mut erasure: serde_json::Value = serde_json::from_slice(&row.value).unwrap();
        erasure.as_object_mut().unwrap().remove("completed_at");
        erasure["deadline"] = json!(7);
        world.swap(row.key, encode(&erasure)).await;
    };
    a_turn_that_was_not_written_down_is_found: [Quota] because "the rows of its turns add up to 3 turns", |world| {
        let row = world.row(Table::Spend, None).await;
        let write = Write::delete(row.key);
        world.ports.state.commit(Batch { writes: vec![write], ..Batch::default() }).await.unwrap();
    };
    a_ledger_that_forgot_turns_is_found: [Quota] because "the threads hold 3 turns", |world| {
        let row = world.row(Table::Quota, None).await;
        let mut ledger: serde_json::Value = serde_json::from_slice(&row.value).unwrap();
        ledger["days"] = json!({});
        ledger["open"] = json!([]);
        world.swap(row.key, encode(&ledger)).await;
    };
    a_quota_that_was_overspent_is_found: [Quota] because "are spent in", |world| {
        let row = world.row(Table::Quota, None).await;
        let mut ledger: serde_json::Value = serde_json::from_slice(&row.value).unwrap();
        ledger["spent"]["messages"] = json!(10_000_000);
        world.swap(row.key, encode(&ledger)).await;
    };
    a_campaigns_message_after_an_opt_out_is_found: [Consent] because "after an opt-out", |world| {
        world.say("acme", ANN, "stop").await;
        let stop = ChannelEvent::Message(ReceivedMessage {
            account: "1".parse().unwrap(),
            id: "stop".into(),
            from: Address { phone: Some(ANN.into()), ..Address::default() },
            sent_at: world.clock.now(),
            act: Act::Say(Content::Text { body: "STOP".into() }),
            context: Context::default(),
        });
        world.system.reception.accept(ChannelKind::Whatsapp, &world.acme, vec![stop]).await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(world.prove().await.hold(), "the one before the opt-out was allowed");
        let row = world.row(Table::Send, Some(world.ann)).await;
        let key = Key::send(&world.conversation(world.ann).account(), &World::outbound(world.ann, 2));
        let taken = json!({ "taken": { "at": world.clock.now(), "category": Category::Marketing } });
        world.put(Row { key, value: encode(&taken), ..row }).await;
    };
    a_reply_after_its_window_is_found: [Window] because "allowed until", |world| {
        let row = world.row(Table::Send, Some(world.ann)).await;
        let key = Key::send(&world.conversation(world.ann).account(), &World::outbound(world.ann, 2));
        let taken = json!({ "taken": { "at": 8, "window_until": 7 } });
        world.put(Row { key, value: encode(&taken), ..row }).await;
    };
    a_store_of_another_region_is_found: [Region] because "belong to region \"us\"", |world| {
        let region = world.ports.state.get(&Key::region()).await.unwrap().unwrap();
        let region = String::from_utf8(region.to_vec()).unwrap().replace("\"eu\"", "\"us\"");
        world.swap(Key::region(), region.into()).await;
    };
    a_tenant_that_was_copied_from_another_region_is_found: [Region] because "is of region \"us\" there", |world| {
        let partition = TopicPartition { topic: Topic::Tenants, partition: 0 };
        let records = world.disk.records(partition);
        let record = records.iter().find(|record| record.key == "acme").unwrap();
        let copied: serde_json::Value = serde_json::from_slice(&record.value).unwrap();
        let mut copied = copied;
        copied["config"]["region"] = json!("us");
        world.append(Topic::Tenants, "acme", copied).await;
    };
    an_entry_of_the_audit_log_that_was_changed_is_found: [AuditLog] because "1", |world| {
        let key = Key::access(Some(&world.acme.id), 1);
        let entry = world.ports.state.get(&key).await.unwrap().unwrap();
        let mut changed = entry.to_vec();
        let at = changed.windows(5).position(|bytes| bytes == b"begun").unwrap();
        changed[at..at + 5].copy_from_slice(b"ended");
        world.swap(key, changed.into()).await;
    };
}

#[tokio::test(start_paused = true)]
async fn a_log_that_keeps_records_for_too_long_is_found() {
    let world = World::begin().await;
    // Of that, and an hour.
    let oldest_record = Duration::from_secs(60);
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    let prover = Prover { oldest_record, ..world.prover() };
    let (proofs, _) = prover.prove(&world.acme).await.unwrap();
    assert_eq!(broken(&proofs), BTreeSet::from([Promise::Topics]), "{proofs:#?}");
    assert!(format!("{proofs:?}").contains("is still there, after"), "{proofs:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_log_that_is_configured_to_keep_more_than_is_promised_is_found() {
    let world = World::begin().await;
    let prover = Prover { oldest_record: 40 * DAY, ..world.prover() };
    let (proofs, _) = prover.prove(&world.acme).await.unwrap();
    assert_eq!(broken(&proofs), BTreeSet::from([Promise::Topics]), "{proofs:#?}");
}

#[tokio::test(start_paused = true)]
async fn rows_of_a_tenant_that_there_is_not_are_found() {
    let world = World::begin().await;
    let row = world.row(Table::History, None).await;
    let mut conversation = world.conversation(world.ann);
    conversation.tenant = "gone".parse().unwrap();
    world.put(Row { key: Key::history(&conversation, 1), ..row }).await;
    let rest = world.prover().prove_rest().await.unwrap();
    assert_eq!(broken(&rest), BTreeSet::from([Promise::Isolation]), "{rest:#?}");
    assert!(rest.proofs[0].faults[0].contains("no tenant \"gone\""), "{rest:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_plan_that_was_lowered_below_what_was_used_breaks_no_promise() {
    let world = World::begin().await;
    let mut lowered = (*world.acme).clone();
    lowered.quota.messages_per_month = 1;
    let lowered = world.system.tenants.apply(lowered).await.unwrap();
    let (proofs, _) = world.prover().prove(&lowered).await.unwrap();
    assert_eq!(broken(&proofs), BTreeSet::new(), "{proofs:#?}");
    let quota = proofs.proofs.iter().find(|proof| proof.promise == Promise::Quota).unwrap();
    assert!(quota.evidence.contains("the plan was lowered to 1 messages"), "{quota:#?}");
}

#[tokio::test(start_paused = true)]
async fn rows_that_a_sweep_is_still_to_end_are_due_and_not_overdue() {
    let world = World::begin().await;
    let mut shorter = (*world.acme).clone();
    shorter.retention.messages = 2 * DAY;
    let shorter = world.system.tenants.apply(shorter).await.unwrap();
    let (proofs, _) = world.prover().prove(&shorter).await.unwrap();
    let retention = proofs.proofs.iter().find(|proof| proof.promise == Promise::Retention).unwrap();
    assert!(
        retention.kept && retention.evidence.contains("are due under the shortened retention"),
        "{retention:#?}"
    );
    // Afterwards the same is a fault.
    tokio::time::sleep(Duration::from_secs(300)).await;
    let (proofs, _) = world.prover().prove(&shorter).await.unwrap();
    assert_eq!(broken(&proofs), BTreeSet::new(), "{proofs:#?}");
    assert!(!format!("{proofs:?}").contains("are due under"), "{proofs:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_tenant_without_data_has_nothing_to_check() {
    let world = World::begin().await;
    let empty = heddle_testing::TenantBuilder::new("empty").build();
    let empty = world.system.tenants.apply(empty).await.unwrap();
    let (proofs, _) = world.prover().prove(&empty).await.unwrap();
    for proof in &proofs.proofs {
        let expected = match proof.promise {
            Promise::Retention | Promise::Erasure | Promise::Quota | Promise::Consent | Promise::Window => {
                "nothing to check"
            }
            _ => continue,
        };
        assert_eq!(proof.verdict(), expected, "{proof:#?}");
    }
    assert!(!format!("{proofs:?}").contains(" 0 things"), "{proofs:#?}");
    assert!(world.prove().await.proofs.iter().all(|proof| proof.kept));
}
