//! Node over the store in memory for tests of turns: the test decides the model's answers, the store's faults and the
//! damaged rows. It survives its restarts.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use heddle_actors::options::Options;
use heddle_actors::partition::publish;
use heddle_actors::ports::Ports;
use heddle_actors::system::System;
use heddle_keys::{self as keys, EnvelopeKeys, MasterKey};
use heddle_memory::channel::Sending;
use heddle_memory::responder::Response;
use heddle_memory::{
    Fault, MemoryDisk, MemoryStore, Operation, Options as StoreOptions, Outcome, ScriptedChannel,
    ScriptedResponder, TokioClock,
};
use heddle_schemas::content::{Address, Content, Context};
use heddle_schemas::id::{ChannelKind, ConversationId, OutboundId};
use heddle_schemas::outgoing::OutgoingContent;
use heddle_schemas::ports::channel::{Act, Channel, ChannelEvent, OutboundMessage, ReceivedMessage};
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::responder::Question;
use heddle_schemas::ports::state::{Batch, Swap, Write};
use heddle_schemas::record::dlq::DeadLetter;
use heddle_schemas::record::event::{Event, EventRecord};
use heddle_schemas::record::inbound::{InboundEvent, InboundRecord};
use heddle_schemas::record::{V, decode};
use heddle_schemas::table::{Key, Table};
use heddle_schemas::tenant::Tenant;
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Topic, TopicPartition};

use heddle_testing::PortsBuilder;

type Answers = dyn Fn(&Question) -> Response + Send + Sync;
type Sends = dyn Fn(&OutboundMessage, usize) -> Sending + Send + Sync;

/// Faults of the store.
#[derive(Default)]
pub(crate) struct Weather {
    /// Every read fails.
    reads_fail_until: Mutex<Option<Timestamp>>,
    /// Every second read of a row fails.
    flaky_until: Mutex<Option<Timestamp>>,
    gets: AtomicU32,
}

/// The node.
pub(crate) struct Node {
    pub(crate) disk: Arc<MemoryDisk>,
    pub(crate) clock: Arc<TokioClock>,
    pub(crate) channel: Arc<ScriptedChannel>,
    pub(crate) responder: Arc<ScriptedResponder>,
    /// Questions to the model, in order.
    pub(crate) asked: Arc<Mutex<Vec<Question>>>,
    pub(crate) weather: Arc<Weather>,
    master: MasterKey,
    tenants: Vec<Tenant>,
    running: Mutex<Option<(Ports, Arc<System>)>>,
}

/// Returns a tenant with one WhatsApp account, named after it.
pub(crate) fn tenant(id: &str, agent: &str) -> Tenant {
    Tenant::from_toml(&format!(
        "id = \"{id}\"\nname = \"N\"\n[agent]\nfallback = \"fallback\"\nsettle = \"100ms\"\n{agent}\n[[channels]]\n\
         kind = \"whatsapp\"\naccount = \"{id}\"\naccess_token = \"t\"\napp_secret = \"s\"\nverify_token = \"v\"\n"
    ))
    .unwrap()
}

/// The model answers this text to everything.
pub(crate) fn echoes(question: &Question) -> Response {
    Response::text(question, format!("on {}", question.messages.join(" + ")))
}

impl Weather {
    /// Reads fail from `now` on, for as long.
    pub(crate) fn fail_reads(&self, now: Timestamp, wait: Duration) {
        *self.reads_fail_until.lock().unwrap() = Some(now.after(wait));
    }

    /// Every second read of a row fails from `now` on, for as long.
    pub(crate) fn fail_every_second_get(&self, now: Timestamp, wait: Duration) {
        *self.flaky_until.lock().unwrap() = Some(now.after(wait));
    }

    fn meets(&self, operation: Operation, now: Timestamp) -> Fault {
        let is_before =
            |until: &Mutex<Option<Timestamp>>| until.lock().unwrap().is_some_and(|until| now < until);
        let reads = matches!(operation, Operation::Get | Operation::Scan);
        let is_odd = operation == Operation::Get && self.gets.fetch_add(1, Ordering::Relaxed) % 2 == 1;
        if (reads && is_before(&self.reads_fail_until)) || (is_odd && is_before(&self.flaky_until)) {
            return Fault::outcome(Outcome::FailsBefore);
        }
        Fault::delay(Duration::from_micros(200))
    }
}

impl Node {
    /// Starts a node with these tenants in one partition, whose model calls outside.
    pub(crate) async fn start(tenants: Vec<Tenant>, answers: Box<Answers>, sends: Box<Sends>) -> Self {
        Self::with(tenants, |_, _| answers, sends).await
    }

    /// Starts the same, where the model depends on the clock and the store's faults.
    pub(crate) async fn with(
        tenants: Vec<Tenant>,
        answers: impl FnOnce(Arc<TokioClock>, Arc<Weather>) -> Box<Answers>,
        sends: Box<Sends>,
    ) -> Self {
        let clock = Arc::new(TokioClock::starting_at(Timestamp::from_secs(1_767_225_600)));
        let (weather, asked) = (Arc::<Weather>::default(), Arc::<Mutex<Vec<Question>>>::default());
        let answers = answers(clock.clone(), weather.clone());
        let noted = asked.clone();
        let responder = ScriptedResponder::new(true, move |question| {
            noted.lock().unwrap().push(question.clone());
            answers(question)
        });
        let node = Self {
            disk: MemoryDisk::new(NonZeroU32::MIN),
            clock,
            channel: Arc::new(ScriptedChannel::new(sends)),
            responder: Arc::new(responder),
            asked,
            weather,
            master: MasterKey::generate(),
            tenants,
            running: Mutex::default(),
        };
        node.boot().await;
        for tenant in node.tenants.clone() {
            node.system().tenants.apply(tenant).await.unwrap();
        }
        node
    }

    async fn boot(&self) {
        let (weather, clock) = (self.weather.clone(), self.clock.clone());
        let faults = move |operation: Operation| weather.meets(operation, clock.now());
        let options = StoreOptions { faults: Arc::new(faults), split: true, ..StoreOptions::default() };
        let store = Arc::new(MemoryStore::open_with(self.disk.clone(), self.clock.clone(), options));
        // Keys are read each time, so that their reads can fail too.
        let options = keys::Options { cache_for: Duration::ZERO, ..keys::Options::default() };
        let keys = EnvelopeKeys::new(store.clone(), self.clock.clone(), &self.master, options);
        let (channel, responder): (Arc<dyn Channel>, _) = (self.channel.clone(), self.responder.clone());
        let ports = PortsBuilder::new(store, keys, self.clock.clone(), channel, responder).build();
        let system = System::start(ports.clone(), Options::default()).await.unwrap();
        system.intake_gate.set_open(true);
        *self.running.lock().unwrap() = Some((ports, Arc::new(system)));
    }

    /// Ends the node as a crash does, and starts another over the durable state.
    pub(crate) async fn restart(&self) {
        let (_, system) = self.running.lock().unwrap().take().unwrap();
        self.disk.crash();
        Arc::into_inner(system).unwrap().kill().await;
        self.boot().await;
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Ports, Arc<System>)>> {
        self.running.lock().unwrap()
    }

    pub(crate) fn ports(&self) -> Ports {
        self.lock().as_ref().unwrap().0.clone()
    }

    pub(crate) fn system(&self) -> Arc<System> {
        self.lock().as_ref().unwrap().1.clone()
    }

    /// Performs an act of a tenant's customer; returns once it is durable.
    pub(crate) async fn act(&self, tenant: &str, id: &str, name: &str, act: Act) {
        let event = ChannelEvent::Message(ReceivedMessage {
            account: tenant.parse().unwrap(),
            id: id.into(),
            from: Address {
                phone: Some(format!("4915700000{}", tenant.len())),
                name: Some(name.into()),
                ..Address::default()
            },
            sent_at: self.clock.now(),
            act,
            context: Context::default(),
        });
        let tenant = Arc::new(self.tenants.iter().find(|known| known.id.as_str() == tenant).unwrap().clone());
        let reception = self.system().reception.clone();
        reception.accept(ChannelKind::Whatsapp, &tenant, vec![event]).await.unwrap();
    }

    pub(crate) async fn say(&self, tenant: &str, id: &str, text: &str) {
        self.act(tenant, id, "Ann Miller", Act::Say(Content::Text { body: text.into() })).await;
    }

    /// Appends a command of the tenant about its one conversation.
    pub(crate) async fn command(&self, tenant: &str, event: InboundEvent) {
        let conversation = self.conversation(tenant);
        let record = InboundRecord { v: V, conversation, at: self.clock.now(), event };
        let ports = self.ports();
        ports.log.append(vec![publish::inbound(&ports, &record)]).await.unwrap();
    }

    pub(crate) fn conversation(&self, tenant: &str) -> ConversationId {
        let rows = self.disk.rows(self.clock.now());
        let heads = rows.into_iter().filter(|(key, _)| key.table() == Table::Head);
        let mut ids = heads.filter_map(|(key, _)| key.conversation());
        ids.find(|id| id.tenant.as_str() == tenant).unwrap()
    }

    /// Writes a row as a fault of the disk, or another build, would. `None` removes it.
    pub(crate) async fn damage(&self, key: &Key, value: Option<&'static str>) {
        let state = self.ports().state;
        if matches!(key.table(), Table::Quota | Table::Contact) {
            // Rows of these are written on a condition.
            let before = state.get(key).await.unwrap();
            let swap = state.compare_and_set(key, before, value.map(Into::into), None).await.unwrap();
            assert_eq!(swap, Swap::Done);
            return;
        }
        let write = Write { key: key.clone(), value: value.map(Into::into), expires: None };
        state.commit(Batch { writes: vec![write], ..Batch::default() }).await.unwrap();
    }

    /// Returns the messages that the channel accepted, in order: id and text.
    pub(crate) fn sent(&self) -> Vec<(OutboundId, String)> {
        let text = |content: &OutgoingContent| match content {
            OutgoingContent::Text { body } => body.clone(),
            other => panic!("{other:?}"),
        };
        self.channel.accepted().iter().map(|call| (call.message.id, text(&call.message.content))).collect()
    }

    pub(crate) fn texts(&self) -> Vec<String> {
        self.sent().into_iter().map(|(_, text)| text).collect()
    }

    /// Returns the number of calls of each attempt at each turn: one, or none.
    pub(crate) fn calls(&self) -> Vec<(u32, u32)> {
        self.responder.calls().into_iter().map(|((_, attempt), calls)| (attempt, calls)).collect()
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.records(Topic::Events).iter().map(|value| decode::<EventRecord>(value).unwrap().event).collect()
    }

    pub(crate) fn dead_letters(&self) -> Vec<DeadLetter> {
        self.records(Topic::Dlq).iter().map(|value| decode(value).unwrap()).collect()
    }

    pub(crate) fn records(&self, topic: Topic) -> Vec<Vec<u8>> {
        let partitions = 0..self.disk.partitions(topic);
        let records = partitions.flat_map(|partition| self.disk.records(TopicPartition { topic, partition }));
        records.map(|record| record.value.to_vec()).collect()
    }
}

/// The channel takes everything at once.
pub(crate) fn takes_all() -> Box<Sends> {
    Box::new(|_, _| Sending::default())
}

pub(crate) async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}
