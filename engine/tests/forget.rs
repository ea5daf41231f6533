//! A contact is forgotten in the middle of its messages: the key first, then every row, through a crash at any step,
//! over the store in memory with paused time. What was said before does not come back; what is said later begins anew.

#![expect(clippy::unwrap_used, reason = "a fault of the harness is a fault of the test")]

#[path = "common/in_memory.rs"]
mod in_memory;

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use heddle_actors::erasure;
use heddle_actors::identity::Identity;
use heddle_actors::ports::{Options, Ports};
use heddle_actors::system::System;
use heddle_connectors::keys::{self, EnvelopeKeys, MasterKey};
use heddle_connectors::memory::channel::Sending;
use heddle_connectors::memory::responder::Response;
use heddle_connectors::memory::{
    Fault, MemoryDisk, MemoryStore, Operation, Options as StoreOptions, ScriptedChannel, ScriptedResponder,
    TokioClock,
};
use heddle_schemas::content::{Address, Content, Context};
use heddle_schemas::erasure::Erasure;
use heddle_schemas::id::{AccountId, ChannelKind, ContactId, OutboundId};
use heddle_schemas::ports::channel::{
    Act, Channel, ChannelEvent, FailureClass, ReceivedMessage, ReceivedStatus,
};
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::record::decode;
use heddle_schemas::record::event::{Event, EventRecord};
use heddle_schemas::record::inbound::DeliveryStatus;
use heddle_schemas::table::Table;
use heddle_schemas::tenant::Tenant;
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Topic, TopicPartition};

const PHONE: &str = "4915700000001";
const OTHER: &str = "4915700000002";

fn tenant() -> Tenant {
    let channel = |account: &str| {
        format!(
            "[[channels]]\nkind = \"whatsapp\"\naccount = \"{account}\"\naccess_token = \"t\"\napp_secret = \"s\"\n\
             verify_token = \"v\"\n"
        )
    };
    let text = format!(
        "id = \"acme\"\nname = \"N\"\n[agent]\nfallback = \"f\"\nsettle = \"100ms\"\n{}{}",
        channel("1"),
        channel("2")
    );
    Tenant::from_toml(&text).unwrap()
}

fn accounts() -> Vec<(ChannelKind, AccountId)> {
    tenant().channels.into_iter().map(|channel| (channel.kind, channel.account)).collect()
}

/// A node that dies when it is told to, and comes back over what is durable.
struct World {
    disk: Arc<MemoryDisk>,
    clock: Arc<TokioClock>,
    master: MasterKey,
    channel: Arc<ScriptedChannel>,
    refuses: Arc<AtomicBool>,
    /// Steps of the store until the node dies; below 0 it lives.
    steps_left: Arc<AtomicI64>,
    died: Arc<tokio::sync::Notify>,
    node: Mutex<Option<Node>>,
}

struct Node {
    ports: Ports,
    system: System,
}

impl World {
    async fn begin() -> Self {
        let refuses = Arc::new(AtomicBool::new(false));
        let channel = ScriptedChannel::new({
            let refuses = refuses.clone();
            move |_, _| match refuses.load(Ordering::Relaxed) {
                true => Sending::from(heddle_connectors::memory::channel::Reply::fails(
                    FailureClass::Unauthorized,
                )),
                false => Sending::default(),
            }
        });
        let world = Self {
            disk: MemoryDisk::new(NonZeroU32::new(2).unwrap()),
            clock: Arc::new(TokioClock::starting_at(Timestamp::from_secs(1_767_225_600))),
            master: MasterKey::generate(),
            channel: Arc::new(channel),
            refuses,
            steps_left: Arc::new(AtomicI64::new(-1)),
            died: Arc::default(),
            node: Mutex::new(None),
        };
        world.start().await;
        let tenants = world.with(|node| node.system.tenants.clone());
        tenants.apply(tenant()).await.unwrap();
        world
    }

    async fn start(&self) {
        let (left, died) = (self.steps_left.clone(), self.died.clone());
        let faults = move |operation: Operation| {
            let reads = matches!(operation, Operation::Fetch | Operation::Assignment | Operation::End);
            if !reads && left.load(Ordering::Relaxed) >= 0 && left.fetch_sub(1, Ordering::Relaxed) == 0 {
                died.notify_one();
                return Fault { after: Duration::from_secs(3600), ..Fault::NONE };
            }
            Fault::delay(Duration::from_micros(200))
        };
        let options = StoreOptions { faults: Arc::new(faults), split: true, ..StoreOptions::default() };
        let store = Arc::new(MemoryStore::open_with(self.disk.clone(), self.clock.clone(), options));
        let keys =
            EnvelopeKeys::new(store.clone(), self.clock.clone(), &self.master, keys::Options::default());
        let channel: Arc<dyn Channel> = self.channel.clone();
        let responder = ScriptedResponder::new(true, |question| {
            Response::text(question, format!("on {}", question.messages.join(" ")))
        });
        let ports = in_memory::ports(store, keys, self.clock.clone(), channel, Arc::new(responder));
        let system = System::start(ports.clone(), Options::default()).await.unwrap();
        system.way_in.set_open(true);
        *self.node.lock().unwrap() = Some(Node { ports, system });
    }

    async fn restart(&self) {
        let node = self.node.lock().unwrap().take().unwrap();
        self.disk.crash();
        node.system.kill().await;
        self.steps_left.store(-1, Ordering::Relaxed);
        self.start().await;
    }

    fn with<T>(&self, look: impl FnOnce(&Node) -> T) -> T {
        look(self.node.lock().unwrap().as_ref().unwrap())
    }

    fn said(&self, phone: &str, account: &str, id: &str, sent_at: Timestamp) -> ChannelEvent {
        ChannelEvent::Message(ReceivedMessage {
            account: account.parse().unwrap(),
            id: id.into(),
            from: Address { phone: Some(phone.into()), name: Some("Ann".into()), ..Address::default() },
            sent_at,
            act: Act::Say(Content::Text { body: format!("text of {id}") }),
            context: Context::default(),
        })
    }

    async fn receive(&self, event: ChannelEvent) {
        let reception = self.with(|node| node.system.reception.clone());
        reception.accept(ChannelKind::Whatsapp, &Arc::new(tenant()), vec![event]).await.unwrap();
    }

    async fn say(&self, phone: &str, account: &str, id: &str) {
        self.receive(self.said(phone, account, id, self.clock.now())).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }

    async fn contact(&self, phone: &str) -> ContactId {
        let identity = Identity::new(self.with(|node| node.ports.clone()));
        let address = Address { phone: Some(phone.into()), ..Address::default() };
        identity.resolve(&tenant().id, ChannelKind::Whatsapp, &address).await.unwrap()
    }

    /// Asks until it is under way, as an operator does.
    async fn forget(&self, contact: ContactId) -> Erasure {
        loop {
            let ports = self.with(|node| node.ports.clone());
            let id = tenant().id;
            let asking = erasure::ask(&ports, &id, accounts(), contact);
            tokio::select! {
                asked = asking => if let Ok(erasure) = asked { return erasure },
                () = self.died.notified() => {}
            }
            self.restart().await;
        }
    }

    /// Asks once. Who asked does not come back when the node dies meanwhile.
    async fn ask_once(&self, contact: ContactId) {
        let ports = self.with(|node| node.ports.clone());
        let id = tenant().id;
        tokio::select! {
            asked = erasure::ask(&ports, &id, accounts(), contact) => drop(asked.unwrap()),
            () = self.died.notified() => self.restart().await,
        }
    }

    async fn erasures(&self) -> Vec<Erasure> {
        let ports = self.with(|node| node.ports.clone());
        erasure::list(&ports, &tenant().id).await.unwrap()
    }

    /// How many erasures the store knows to be under way.
    fn open(&self) -> usize {
        let rows = self.disk.rows(self.clock.now()).into_iter();
        rows.filter(|(key, _)| key.table() == Table::Erasure && key.of_open_erasure().is_some()).count()
    }

    async fn erasure(&self, id: heddle_schemas::id::MessageKey) -> Erasure {
        let ports = self.with(|node| node.ports.clone());
        erasure::find(&ports, &tenant().id, id).await.unwrap().unwrap()
    }

    /// Waits until an erasure is complete, and restarts the node whenever it dies.
    async fn completed(&self, id: heddle_schemas::id::MessageKey) -> Erasure {
        for _ in 0..200 {
            tokio::select! {
                biased;
                () = self.died.notified() => self.restart().await,
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
            let erasure = self.erasure(id).await;
            if erasure.is_complete() {
                return erasure;
            }
        }
        panic!("{:?} is not done after {:?}", self.erasure(id).await, self.disk.rows(self.clock.now()));
    }

    /// Rows of a contact's conversations, and what waits for them.
    fn rows_of(&self, contact: ContactId) -> Vec<String> {
        let rows = self.disk.rows(self.clock.now()).into_iter().map(|(key, _)| key);
        let of_contact = |key: &heddle_schemas::table::Key| match key.table() {
            Table::Head | Table::History | Table::Marker | Table::Claim | Table::Delivery | Table::Tool => {
                key.id().ends_with(&contact.to_bytes())
            }
            Table::Agenda => String::from_utf8_lossy(key.row()).contains(&contact.to_string()),
            Table::Backlog => true,
            _ => false,
        };
        rows.filter(of_contact).map(|key| format!("{:?} {key:?}", key.table())).collect()
    }

    fn sent(&self) -> Vec<String> {
        let text = |content: &Content| match content {
            Content::Text { body } => body.clone(),
            other => panic!("{other:?}"),
        };
        self.channel.accepted().iter().map(|call| text(&call.message.content)).collect()
    }

    fn events(&self) -> Vec<Event> {
        let partitions = 0..self.disk.partitions(Topic::Events);
        let records = partitions
            .flat_map(|partition| self.disk.records(TopicPartition { topic: Topic::Events, partition }));
        records.map(|record| decode::<EventRecord>(&record.value).unwrap().event).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_said_before_is_gone_and_does_not_come_back_and_others_go_on() {
    let world = World::begin().await;
    let early = world.clock.now();
    world.say(PHONE, "1", "a1").await;
    world.say(PHONE, "2", "a2").await;
    world.say(OTHER, "1", "b1").await;
    let (contact, other) = (world.contact(PHONE).await, world.contact(OTHER).await);
    assert!(world.rows_of(contact).len() > 6, "{:?}", world.rows_of(contact));
    let before = world.sent();
    assert_eq!(before, ["on text of a1", "on text of a2", "on text of b1"]);

    let erasure = world.forget(contact).await;
    let erasure = world.completed(erasure.id).await;
    assert!(erasure.rows() > 6 && erasure.parts.len() == 2, "{erasure:?}");
    assert_eq!(world.rows_of(contact), [""; 0]);
    assert!(!world.rows_of(other).is_empty());
    let told = |event: &Event| matches!(event, Event::Forgotten { erasure: id, .. } if *id == erasure.id);
    assert_eq!(world.events().iter().filter(|event| told(event)).count(), 1);

    // Late: the same message once more, one that was under way, and what the channel tells of a reply.
    world.receive(world.said(PHONE, "1", "a1", early)).await;
    world.receive(world.said(PHONE, "2", "a3", early)).await;
    let outbound: OutboundId = world.channel.accepted()[0].message.id;
    world
        .receive(ChannelEvent::Status(ReceivedStatus {
            account: "1".parse().unwrap(),
            message_id: "wamid.1".into(),
            outbound: Some(outbound),
            status: DeliveryStatus::Read,
            at: early,
            failure: None,
        }))
        .await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(world.rows_of(contact), [""; 0], "nothing came back");
    assert_eq!(world.sent(), before);

    world.say(PHONE, "1", "a4").await;
    assert_eq!(world.sent().last().unwrap(), "on text of a4", "who writes anew is answered");
    assert!(!world.rows_of(contact).is_empty());
    world.say(OTHER, "1", "b2").await;
    assert_eq!(world.sent().last().unwrap(), "on text of b2");
    // The same erasure delivered again takes nothing that came after it.
    world.restart().await;
    world.say(PHONE, "1", "a5").await;
    assert_eq!(world.sent().last().unwrap(), "on text of a5");
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_stopped_account_is_not_sent_to_who_is_forgotten() {
    let world = World::begin().await;
    world.say(PHONE, "1", "a1").await;
    world.refuses.store(true, Ordering::Relaxed);
    world.say(PHONE, "1", "a2").await;
    world.say(OTHER, "1", "b1").await;
    let contact = world.contact(PHONE).await;
    let erasure = world.forget(contact).await;
    world.completed(erasure.id).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.refuses.store(false, Ordering::Relaxed);
    let mut renewed = tenant();
    renewed.channels[0].access_token = heddle_schemas::sealed::Secret::new("renewed");
    let tenants = world.with(|node| node.system.tenants.clone());
    tenants.apply(renewed).await.unwrap();
    tokio::time::sleep(Duration::from_secs(90)).await;
    assert_eq!(world.sent(), ["on text of a1", "on text of b1"]);
    assert_eq!(world.rows_of(contact), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_step_is_gone_on_from() {
    for step in 0.. {
        let world = World::begin().await;
        world.say(PHONE, "1", "a1").await;
        world.say(PHONE, "2", "a2").await;
        let contact = world.contact(PHONE).await;
        world.steps_left.store(step, Ordering::Relaxed);
        let erasure = world.forget(contact).await;
        let erasure = world.completed(erasure.id).await;
        let died = world.steps_left.load(Ordering::Relaxed) < 0;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(world.rows_of(contact), [""; 0], "step {step}");
        assert_eq!(world.sent(), ["on text of a1", "on text of a2"], "step {step}");
        assert!(erasure.completed_at.unwrap() <= erasure.deadline);
        world.steps_left.store(-1, Ordering::Relaxed);
        world.say(PHONE, "1", "a3").await;
        assert_eq!(world.sent().last().unwrap(), "on text of a3", "step {step}");
        if !died {
            assert!(step > 15, "so few steps are no erasure");
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_erasure_whose_request_died_completes_though_nobody_asks_again() {
    let (mut begun, mut told) = (0, 0);
    for step in 0.. {
        let world = World::begin().await;
        world.say(PHONE, "1", "a1").await;
        world.say(PHONE, "2", "a2").await;
        let contact = world.contact(PHONE).await;
        world.steps_left.store(step, Ordering::Relaxed);
        world.ask_once(contact).await;
        let died = world.steps_left.load(Ordering::Relaxed) < 0;
        if world.open() == 0 && world.erasures().await.is_empty() {
            assert!(died && begun == 0, "step {step}: what was durable is not lost");
            tokio::time::sleep(Duration::from_secs(300)).await;
            assert!(!world.rows_of(contact).is_empty(), "step {step}: nothing was begun");
            continue;
        }
        begun += 1;
        for _ in 0..300 {
            tokio::select! {
                biased;
                () = world.died.notified() => world.restart().await,
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
        }
        let erasures = world.erasures().await;
        assert!(matches!(&erasures[..], [one] if one.is_complete()), "step {step}: {erasures:?}");
        assert_eq!(world.rows_of(contact), [""; 0], "step {step}");
        assert_eq!(world.open(), 0, "step {step}: it is looked after no more");
        let forgotten =
            world.events().into_iter().filter(|event| matches!(event, Event::Forgotten { .. })).count();
        assert!(forgotten > 0, "step {step}: it was told of");
        told += forgotten;
        if world.steps_left.load(Ordering::Relaxed) >= 0 {
            assert!(begun > 15, "so few steps are no erasure");
            assert!(told <= 2 * begun, "once, but for a crash in between");
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn asking_again_finds_what_is_under_way_and_once_it_is_complete_begins_another() {
    let world = World::begin().await;
    world.say(PHONE, "1", "a1").await;
    let contact = world.contact(PHONE).await;
    let first = world.forget(contact).await;
    assert_eq!(world.forget(contact).await.id, first.id);
    world.completed(first.id).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.say(PHONE, "1", "a2").await;
    let second = world.forget(contact).await;
    assert_ne!(second.id, first.id);
    world.completed(second.id).await;
    assert_eq!(world.rows_of(contact), [""; 0]);
    assert_eq!(world.erasures().await.len(), 2, "each has its receipt");
}
