//! Records of a later build between others, over the store in memory with paused time: what an older node does with
//! them, and what is left to do after an upgrade, a rollback and a crash at every step.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use heddle_actors::intake::identity::Identity;
use heddle_actors::options::Options;
use heddle_actors::partition::publish;
use heddle_actors::ports::Ports;
use heddle_actors::privacy::erasure;
use heddle_actors::system::System;
use heddle_actors::tenant::configuration::TenantsError;
use heddle_keys::{self as keys, EnvelopeKeys, MasterKey};
use heddle_memory::responder::Response;
use heddle_memory::{
    Fault, MemoryDisk, MemoryStore, Operation, Options as StoreOptions, ScriptedChannel, ScriptedResponder,
    TokioClock,
};
use heddle_schemas::content::{Address, Content, Context};
use heddle_schemas::id::{AccountKey, ChannelKind, ContactId, MessageKey, OutboundId, TurnId};
use heddle_schemas::outgoing::OutgoingContent;
use heddle_schemas::ports::clock::Clock as _;
use heddle_schemas::ports::log::NewRecord;
use heddle_schemas::ports::state::{Batch, Write};
use heddle_schemas::record::inbound::{ActKind, CustomerAct, InboundEvent, InboundRecord, SealedAct};
use heddle_schemas::record::outbound::{
    OutboundCommand, OutboundRecord, Purpose, SealedMessage, SendCommand,
};
use heddle_schemas::record::tenants::{MAC_DOMAIN, authenticate};
use heddle_schemas::record::{V, Versions, encode, log_aad, version};
use heddle_schemas::table::{Key, Table};
use heddle_schemas::tenant::Tenant;
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Topic, TopicPartition};
use heddle_testing::PortsBuilder;

/// The version of both topics that this build writes, and the one after.
const OWN: u16 = version::newest(Topic::Inbound);
const NEXT: u16 = OWN + 1;

/// Longer than a send of unknown outcome waits for a status.
const QUIET: Duration = Duration::from_secs(150);

/// A cluster of one node at a time, of an old build or a new one.
struct Cluster {
    disk: Arc<MemoryDisk>,
    clock: Arc<TokioClock>,
    master: MasterKey,
    channel: Arc<ScriptedChannel>,
    /// Steps of the store until it hangs, as that of a node that dies; below 0 it never does.
    steps_left: Arc<AtomicI64>,
    nodes: u64,
    node: Option<(System, Ports)>,
}

impl Cluster {
    /// With a tenant, and a node that reads up to this version.
    async fn start(newest: u16) -> Self {
        let mut this = Self {
            disk: MemoryDisk::new(NonZeroU32::MIN),
            clock: Arc::new(TokioClock::starting_at(Timestamp::from_secs(1_767_225_600))),
            master: MasterKey::generate(),
            channel: Arc::new(ScriptedChannel::default()),
            steps_left: Arc::new(AtomicI64::new(-1)),
            nodes: 0,
            node: None,
        };
        this.replace(newest).await;
        let channel = |account| {
            format!(
                "[[channels]]\nkind = \"whatsapp\"\naccount = \"{account}\"\naccess_token = \"t\"\n\
                 app_secret = \"s\"\nverify_token = \"v\"\n"
            )
        };
        let text = format!(
            "id = \"acme\"\nname = \"N\"\n[agent]\nfallback = \"f\"\nsettle = \"0s\"\n{}{}",
            channel(1),
            channel(2)
        );
        this.node().0.tenants.apply(Tenant::from_toml(&text).unwrap()).await.unwrap();
        this
    }

    /// Ends the node as a crash does, and starts one that reads up to this version over what is durable.
    async fn replace(&mut self, newest: u16) {
        if let Some((system, _)) = self.node.take() {
            self.disk.crash();
            system.kill().await;
        }
        self.steps_left.store(-1, Ordering::Relaxed);
        let left = self.steps_left.clone();
        let faults = move |operation: Operation| {
            let reads = matches!(operation, Operation::Fetch | Operation::Assignment | Operation::End);
            if !reads && left.load(Ordering::Relaxed) >= 0 && left.fetch_sub(1, Ordering::Relaxed) == 0 {
                return Fault { after: Duration::from_secs(360_000), ..Fault::NONE };
            }
            Fault::delay(Duration::from_micros(200))
        };
        let options = StoreOptions { faults: Arc::new(faults), split: true, ..StoreOptions::default() };
        let store = Arc::new(MemoryStore::open_with(self.disk.clone(), self.clock.clone(), options));
        let keys =
            EnvelopeKeys::new(store.clone(), self.clock.clone(), &self.master, keys::Options::default());
        let responder =
            ScriptedResponder::new(false, |question| Response::text(question, question.messages.join("+")));
        let reads = [Topic::Inbound, Topic::Outbound, Topic::Tenants]
            .into_iter()
            .fold(Versions::default(), |versions, topic| versions.reading(topic, newest));
        // Two nodes with the same random numbers would give two customers one id.
        self.nodes += 1;
        let ports =
            PortsBuilder::new(store, keys, self.clock.clone(), self.channel.clone(), Arc::new(responder))
                .versions(reads)
                .seed(self.nodes)
                .build();
        let system = System::start(ports.clone(), Options::default()).await.unwrap();
        system.intake_gate.set_open(true);
        self.node = Some((system, ports));
    }

    fn node(&self) -> &(System, Ports) {
        self.node.as_ref().unwrap()
    }

    fn account(&self, account: &str) -> AccountKey {
        AccountKey {
            tenant: "acme".parse().unwrap(),
            channel: ChannelKind::Whatsapp,
            account: account.parse().unwrap(),
        }
    }

    async fn contact(&self, phone: &str) -> ContactId {
        let identity = Identity::new(self.node().1.clone());
        identity.resolve(&"acme".parse().unwrap(), ChannelKind::Whatsapp, &address(phone)).await.unwrap()
    }

    /// What a customer says, as a node that writes this version puts it into the log.
    async fn say(&self, phone: &str, number: u8, version: u16) {
        let ports = &self.node().1;
        let now = self.clock.now();
        let conversation = self.account("1").conversation(self.contact(phone).await);
        let key = MessageKey::from_bytes([number; 16]);
        let content = Some(Content::Text { body: format!("{phone}.{number}") });
        let act = SealedAct {
            id: format!("m{number}"),
            from: address(phone),
            content,
            emoji: None,
            context: Context::default(),
        };
        let log = ports.keys.log(&conversation.tenant, now.day()).await.unwrap();
        let sealed = log.seal(&log_aad(Topic::Inbound, &key), &encode(&act));
        let act =
            CustomerAct { key, sent_at: now, kind: ActKind::Say, target: None, sealed, also: Vec::new() };
        let record = InboundRecord { v: V, conversation, at: now, event: InboundEvent::Customer(act) };
        self.append(publish::inbound(ports, &record), version).await;
    }

    /// A message that is to be sent.
    async fn send(&self, account: &str, phone: &str, number: u8, version: u16) {
        let ports = &self.node().1;
        let contact = self.contact(phone).await;
        let id = OutboundId::of_turn(contact, TurnId(MessageKey::from_bytes([number; 16])), 0);
        let log = ports.keys.log(&"acme".parse().unwrap(), self.clock.now().day()).await.unwrap();
        let content = OutgoingContent::text(format!("{account}.{number}"));
        let content_kind = content.kind();
        let sealed =
            log.seal(&log_aad(Topic::Outbound, &id), &encode(&SealedMessage { to: address(phone), content }));
        let (purpose, kind, window_until, category) = (Purpose::Reply, content_kind, None, None);
        let command =
            SendCommand { id, purpose, again: false, fence: None, window_until, kind, category, sealed };
        let conversation = self.account(account).conversation(contact);
        let command = OutboundCommand::Send(command);
        let record = OutboundRecord { v: V, conversation, at: self.clock.now(), command };
        self.append(publish::outbound(ports, &record), version).await;
    }

    async fn append(&self, record: NewRecord, version: u16) {
        let text = std::str::from_utf8(&record.value).unwrap();
        // A topic of which this build writes an earlier version is read as that one.
        let own = version::newest(record.partition.topic);
        let own = format!("{{\"v\":{own},");
        assert!(text.starts_with(&own));
        let mut value = text.replacen(&own, &format!("{{\"v\":{version},"), 1);
        if let Some(at) = value.rfind(",\"mac\":").filter(|_| record.partition.topic == Topic::Tenants) {
            // As the later build writes it, with a MAC of its own.
            value.replace_range(at.., "}");
            let cipher = self.node().1.keys.tenant(&"acme".parse().unwrap()).await.unwrap();
            let authentic = authenticate(value.as_bytes(), |body| cipher.hash(MAC_DOMAIN, body));
            value = String::from_utf8(authentic.to_vec()).unwrap();
        }
        let value = value.into();
        self.node().1.log.append(vec![NewRecord { value, ..record }]).await.unwrap();
    }

    /// Lets time pass, and returns what was sent so far that begins so, in order.
    async fn sent(&self, to: &str) -> Vec<String> {
        tokio::time::sleep(Duration::from_secs(60)).await;
        let text = |call: heddle_memory::channel::Call| match call.message.content {
            OutgoingContent::Text { body } => body,
            other => panic!("{other:?}"),
        };
        let of = |text: &String| text.strip_prefix(to).is_some_and(|rest| rest.starts_with('.'));
        self.channel.accepted().into_iter().map(text).filter(of).collect()
    }

    fn parked_rows(&self) -> usize {
        let rows = self.disk.rows(self.clock.now());
        rows.iter().filter(|(key, _)| key.table() == Table::Parked).count()
    }

    /// Parked rows that mention a contact.
    async fn parked_about(&self, phone: &str) -> usize {
        let contact = self.contact(phone).await;
        let id = contact.to_string();
        let mentions = |bytes: &[u8]| bytes.windows(id.len()).any(|part| part == id.as_bytes());
        let rows = self.disk.rows(self.clock.now()).into_iter();
        let parked = rows.filter(|(key, _)| key.table() == Table::Parked);
        parked.filter(|(key, value)| mentions(key.as_bytes()) || mentions(value)).count()
    }

    fn parked(&self) -> i64 {
        self.node().1.metrics.parked_records()
    }

    fn assert_nothing_is_dead(&self) {
        assert_eq!(self.disk.records(TopicPartition { topic: Topic::Dlq, partition: 0 }), []);
        let unfinished = Topic::CONSUMED.map(|topic| {
            let partition = TopicPartition { topic, partition: 0 };
            let end = self.disk.records(partition).last().map_or(0, |record| record.offset + 1);
            end - self.disk.position(partition).next
        });
        assert_eq!(unfinished, [0; 3], "every record is acknowledged");
    }
}

fn address(phone: &str) -> Address {
    Address { phone: Some(format!("1555{phone}")), ..Address::default() }
}

/// What was sent, in order, and how often the one before was sent again: by policy, a reply is once where a crash hid
/// whether the channel took it.
fn once(sent: Vec<String>) -> (Vec<String>, usize) {
    let calls = sent.len();
    let mut sent = sent;
    sent.dedup();
    let again = calls - sent.len();
    (sent, again)
}

fn texts(of: &str, numbers: impl IntoIterator<Item = u8>) -> Vec<String> {
    numbers.into_iter().map(|number| format!("{of}.{number}")).collect()
}

#[tokio::test(start_paused = true)]
async fn a_conversation_with_a_newer_record_waits_in_order_and_others_go_on() {
    let mut cluster = Cluster::start(OWN).await;
    for (phone, number, version) in [
        ("1", 1, OWN),
        ("2", 2, OWN),
        ("1", 3, NEXT),
        ("1", 4, OWN),
        ("2", 5, OWN),
        ("1", 6, NEXT),
        ("1", 7, OWN),
    ] {
        cluster.say(phone, number, version).await;
    }
    assert_eq!(cluster.sent("1").await, texts("1", [1]));
    assert_eq!(cluster.sent("2").await, texts("2", [2, 5]));
    cluster.assert_nothing_is_dead();
    // A report about its first answer waits behind its own records.
    assert_eq!((cluster.parked(), cluster.parked_rows()), (5, 6), "five records and who is held");

    cluster.replace(OWN).await;
    cluster.say("1", 8, OWN).await;
    assert_eq!(cluster.sent("1").await, texts("1", [1]), "another node of the old build holds it as well");
    assert_eq!(cluster.parked(), 6);

    cluster.replace(NEXT).await;
    assert_eq!(cluster.sent("1").await, texts("1", [1, 3, 4, 6, 7, 8]));
    assert_eq!((cluster.parked(), cluster.parked_rows()), (0, 0));
    cluster.say("1", 9, NEXT).await;
    assert_eq!(cluster.sent("1").await, texts("1", [1, 3, 4, 6, 7, 8, 9]));
    assert_eq!(cluster.sent("2").await, texts("2", [2, 5]));
    cluster.assert_nothing_is_dead();
}

#[tokio::test(start_paused = true)]
async fn after_a_rollback_what_the_new_build_wrote_waits_for_it() {
    let mut cluster = Cluster::start(NEXT).await;
    cluster.say("1", 1, NEXT).await;
    cluster.say("2", 2, NEXT).await;
    assert_eq!(cluster.sent("1").await, texts("1", [1]));
    cluster.say("1", 3, NEXT).await;
    cluster.replace(OWN).await;
    // A crash may have left the last one unanswered; whoever reads it answers it once.
    for (phone, number) in [("1", 4), ("2", 5), ("3", 6)] {
        cluster.say(phone, number, OWN).await;
    }
    assert_eq!(cluster.sent("1").await, texts("1", [1]));
    assert_eq!(cluster.sent("2").await, texts("2", [2, 5]), "it had nothing newer left to read");
    cluster.assert_nothing_is_dead();
    assert_eq!(cluster.sent("3").await, texts("3", [6]));
    assert_eq!(cluster.parked(), 2);
    cluster.replace(NEXT).await;
    assert_eq!(cluster.sent("1").await, texts("1", [1, 3, 4]));
    assert_eq!((cluster.parked(), cluster.parked_rows()), (0, 0));
    cluster.assert_nothing_is_dead();
}

#[tokio::test(start_paused = true)]
async fn an_account_with_a_newer_record_waits_in_order_and_others_go_on() {
    let mut cluster = Cluster::start(OWN).await;
    cluster.send("1", "7", 1, OWN).await;
    cluster.send("1", "8", 2, NEXT).await;
    cluster.send("1", "7", 3, OWN).await;
    cluster.send("2", "7", 4, OWN).await;
    assert_eq!(cluster.sent("1").await, texts("1", [1]));
    assert_eq!(cluster.sent("2").await, texts("2", [4]));
    assert_eq!(cluster.parked(), 2);
    cluster.replace(NEXT).await;
    cluster.send("1", "7", 5, OWN).await;
    assert_eq!(cluster.sent("1").await, texts("1", [1, 2, 3, 5]));
    assert_eq!((cluster.parked(), cluster.parked_rows()), (0, 0));
    cluster.assert_nothing_is_dead();
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_step_of_parking_or_handing_over_loses_nothing_and_keeps_order() {
    // Parking and handing over end well below this; see the last line.
    for step in 0..60 {
        let mut cluster = Cluster::start(OWN).await;
        cluster.steps_left.store(step, Ordering::Relaxed);
        let say = async {
            for (number, version) in [(1, OWN), (2, NEXT), (3, OWN)] {
                cluster.say("1", number, version).await;
            }
        };
        // What the node had not made durable when it died is published again by who publishes.
        let published = tokio::time::timeout(QUIET, say).await.is_ok();
        if !published {
            cluster.replace(OWN).await;
            for (number, version) in [(1, OWN), (2, NEXT), (3, OWN)] {
                cluster.say("1", number, version).await;
            }
        }
        tokio::time::sleep(QUIET).await;
        cluster.replace(OWN).await;
        tokio::time::sleep(QUIET).await;
        let (sent, again) = once(cluster.sent("1").await);
        assert_eq!(sent, texts("1", [1]), "crash at step {step} of the old node");
        assert!(again <= 1, "crash at step {step}");

        cluster.steps_left.store(-1, Ordering::Relaxed);
        cluster.replace(NEXT).await;
        cluster.steps_left.store(step, Ordering::Relaxed);
        tokio::time::sleep(QUIET).await;
        let died = cluster.steps_left.load(Ordering::Relaxed) < 0;
        cluster.replace(NEXT).await;
        tokio::time::sleep(QUIET).await;
        let (sent, again) = once(cluster.sent("1").await);
        assert_eq!(sent, texts("1", [1, 2, 3]), "crash at step {step} of the new node");
        assert!(again <= 2, "crash at step {step}");
        assert_eq!((cluster.parked(), cluster.parked_rows()), (0, 0), "crash at step {step}");
        cluster.assert_nothing_is_dead();
        assert!(died || step > 20, "the new node took more than {step} steps");
    }
}

#[tokio::test(start_paused = true)]
async fn a_conversation_whose_head_is_newer_waits_for_its_build() {
    let mut cluster = Cluster::start(OWN).await;
    cluster.say("1", 1, OWN).await;
    assert_eq!(cluster.sent("1").await, texts("1", [1]));
    cluster.replace(OWN).await;
    let key = Key::head(&cluster.account("1").conversation(cluster.contact("1").await));
    let state = cluster.node().1.state.clone();
    let head = state.get(&key).await.unwrap().unwrap();
    let put = |value: Bytes| Batch { writes: vec![Write::put(key.clone(), value)], ..Batch::default() };
    state.commit(put(r#"{"v":99,"mood":"only a later build knows"}"#.into())).await.unwrap();
    cluster.say("1", 2, OWN).await;
    cluster.say("2", 3, OWN).await;
    cluster.say("1", 4, OWN).await;
    assert_eq!(cluster.sent("1").await, texts("1", [1]));
    assert_eq!(cluster.sent("2").await, texts("2", [3]));
    assert_eq!(cluster.parked(), 2);
    cluster.replace(OWN).await;
    cluster.say("1", 5, OWN).await;
    assert_eq!(cluster.sent("1").await, texts("1", [1]), "what is handed over comes back");
    cluster.assert_nothing_is_dead();
    // As the later build would have it.
    cluster.node().1.state.commit(put(head)).await.unwrap();
    cluster.replace(OWN).await;
    assert_eq!(cluster.sent("1").await, texts("1", [1, 2, 4, 5]));
    assert_eq!((cluster.parked(), cluster.parked_rows()), (0, 0));
    cluster.assert_nothing_is_dead();
}

#[tokio::test(start_paused = true)]
async fn an_erasure_takes_what_is_parked_of_its_contact_and_nothing_else() {
    let mut cluster = Cluster::start(OWN).await;
    for (phone, number, version) in [("1", 1, OWN), ("1", 2, NEXT), ("1", 3, OWN), ("2", 4, NEXT)] {
        cluster.say(phone, number, version).await;
    }
    assert_eq!(cluster.sent("1").await, texts("1", [1]));
    // The account is held by a message to the second, behind which one to the first and one to a third wait.
    for (phone, number, version) in [("2", 5, NEXT), ("1", 6, OWN), ("1", 7, NEXT), ("3", 8, OWN)] {
        cluster.send("1", phone, number, version).await;
    }
    assert_eq!(cluster.sent("1").await, texts("1", [1]));
    // The report about the first answer is parked too, and a row says that the conversation is held.
    assert_eq!((cluster.parked(), cluster.parked_about("1").await), (8, 6));

    let ports = cluster.node().1.clone();
    let (tenant, contact) = ("acme".parse().unwrap(), cluster.contact("1").await);
    let accounts = ["1", "2"].map(|account| (ChannelKind::Whatsapp, account.parse().unwrap()));
    let asked = erasure::ask(&ports, &tenant, accounts, contact).await.unwrap();
    tokio::time::sleep(QUIET).await;
    let erased = erasure::find(&ports, &tenant, asked.id).await.unwrap().unwrap();
    assert!(erased.is_complete());
    assert_eq!((cluster.parked(), cluster.parked_about("1").await), (3, 0), "what others wait for stays");
    cluster.assert_nothing_is_dead();

    cluster.say("1", 9, OWN).await;
    cluster.replace(NEXT).await;
    assert_eq!(cluster.sent("2").await, texts("2", [4]));
    let to = |phone: &str| format!("1.{phone}");
    let sent = cluster.sent("1").await;
    assert_eq!(
        sent,
        [to("1"), to("5"), to("8"), to("9")],
        "nothing that was parked is sent to the erased contact"
    );
    assert_eq!((cluster.parked(), cluster.parked_rows()), (0, 0));
    cluster.assert_nothing_is_dead();
}

#[tokio::test(start_paused = true)]
async fn a_tenant_whose_configuration_is_newer_stays_as_it_was_or_waits() {
    let mut cluster = Cluster::start(OWN).await;
    let tenants = TopicPartition { topic: Topic::Tenants, partition: 0 };
    let applied = cluster.disk.records(tenants).pop().unwrap();
    let record = NewRecord { partition: tenants, key: applied.key, value: applied.value };
    cluster.append(record, NEXT).await;
    cluster.say("1", 1, OWN).await;
    assert_eq!(cluster.sent("1").await, texts("1", [1]), "the configuration before holds");
    let known = cluster.node().0.tenants.clone();
    let acme = known.get(&"acme".parse().unwrap()).unwrap();
    assert!(known.is_newer(&acme.id));
    assert!(
        matches!(known.apply((*acme).clone()).await, Err(TenantsError::Newer(_))),
        "it would lose something"
    );
    // A node that never read an earlier one has none.
    cluster.replace(OWN).await;
    let knows = cluster.node().0.tenants.get(&acme.id).is_some();
    cluster.say("1", 2, OWN).await;
    let sent = cluster.sent("1").await;
    assert_eq!(sent, if knows { texts("1", [1, 2]) } else { texts("1", [1]) });
    cluster.assert_nothing_is_dead();
    cluster.replace(NEXT).await;
    assert_eq!(cluster.sent("1").await, texts("1", [1, 2]));
    assert_eq!((cluster.parked(), cluster.parked_rows()), (0, 0));
    cluster.assert_nothing_is_dead();
}

#[tokio::test(start_paused = true)]
async fn more_held_conversations_than_memory_takes_are_held_all_the_same() {
    let mut cluster = Cluster::start(OWN).await;
    cluster.say("1", 1, OWN).await;
    assert_eq!(cluster.sent("1").await, texts("1", [1]));
    let record = |contact: [u8; 16]| {
        let conversation = cluster.account("1").conversation(ContactId::from_bytes(contact));
        let record =
            InboundRecord { v: V, conversation, at: cluster.clock.now(), event: InboundEvent::Leave };
        let mut record = publish::inbound(&cluster.node().1, &record);
        record.value = format!("{{\"v\":{NEXT},\"only\":\"a later build\"}}").into();
        record
    };
    let contact = |number: u32| {
        let mut contact = [0; 16];
        contact[..4].copy_from_slice(&number.to_be_bytes());
        contact
    };
    for numbers in (0..4_500_u32).collect::<Vec<_>>().chunks(500) {
        let records = numbers.iter().map(|number| record(contact(*number))).collect();
        cluster.node().1.log.append(records).await.unwrap();
    }
    cluster.say("2", 2, NEXT).await;
    cluster.say("2", 3, OWN).await;
    cluster.say("1", 4, OWN).await;
    assert_eq!(cluster.sent("2").await, texts("2", []));
    assert_eq!(cluster.sent("1").await, texts("1", [1, 4]), "who is not held goes on");
    assert_eq!(cluster.parked(), 4_502);
    cluster.replace(OWN).await;
    cluster.say("2", 5, OWN).await;
    cluster.say("1", 6, OWN).await;
    assert_eq!(cluster.sent("1").await, texts("1", [1, 4, 6]));
    assert_eq!((cluster.sent("2").await, cluster.parked()), (texts("2", []), 4_503));
}
