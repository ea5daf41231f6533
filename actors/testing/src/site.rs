//! Harness of a node: the state that survives it, and the nodes that start, die and come back over it.
//!
//! A [`Site`] holds the disk in memory, the clock, the master key, the channel and the model. [`Site::start`] starts a
//! node over them; [`Site::restart`] ends it as a crash does and starts the next over the durable state. A node can be
//! made to die at the n-th step of its store ([`Site::die_after`]), so that a test tries every step in turn.
//!
//! Everything runs on the paused clock of the test's runtime.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use heddle_actors::options::Options;
use heddle_actors::ports::Ports;
use heddle_actors::system::System;
use heddle_keys::{self as keys, Entropy, EnvelopeKeys, MasterKey, SystemEntropy};
use heddle_memory::channel::{Reply, Sending};
use heddle_memory::responder::Response;
use heddle_memory::{
    Fault, Faults, MemoryDisk, MemoryStore, Operation, Options as StoreOptions, ScriptedChannel,
    ScriptedResponder, TokioClock,
};
use heddle_schemas::id::ChannelKind;
use heddle_schemas::outgoing::OutgoingContent;
use heddle_schemas::ports::channel::{Channel, ChannelEvent, FailureClass};
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::responder::Responder;
use heddle_schemas::record::decode;
use heddle_schemas::record::event::{Event, EventRecord};
use heddle_schemas::tenant::Tenant;
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Topic, TopicPartition};
use prometheus::Registry;

use crate::{BEGIN, PortsBuilder, message};

/// Time that each step of the store takes by default.
const STEP: Duration = Duration::from_micros(200);

/// Changes the ports of each node before it starts.
type Adjust = Arc<dyn Fn(PortsBuilder) -> PortsBuilder + Send + Sync>;

/// Builder of a site.
pub struct SiteBuilder {
    partitions: u32,
    split: bool,
    faults: Arc<dyn Faults>,
    options: Options,
    channel: Option<Arc<ScriptedChannel>>,
    responder: Arc<dyn Responder>,
    entropy: Arc<dyn Entropy>,
    adjust: Adjust,
}

impl Default for SiteBuilder {
    fn default() -> Self {
        // The model of a site is outside and repeats the question.
        let responder = ScriptedResponder::new(true, |question| {
            Response::text(question, format!("on {}", question.messages.join(" ")))
        });
        Self {
            partitions: 2,
            split: true,
            faults: Arc::new(|_: Operation| Fault::delay(STEP)),
            options: Options::default(),
            channel: None,
            responder: Arc::new(responder),
            entropy: Arc::new(SystemEntropy),
            adjust: Arc::new(|ports| ports),
        }
    }
}

impl SiteBuilder {
    /// Sets the partitions of each topic; 2 by default.
    #[must_use]
    pub fn partitions(self, partitions: u32) -> Self {
        Self { partitions, ..self }
    }

    /// Commits each batch in one step, as the embedded store does. By default it takes four, as Kafka and CQL do.
    #[must_use]
    pub fn whole_commits(self) -> Self {
        Self { split: false, ..self }
    }

    /// Sets the faults of each step of the store; by default each takes 200 us and succeeds.
    #[must_use]
    pub fn faults(self, faults: impl Faults) -> Self {
        Self { faults: Arc::new(faults), ..self }
    }

    /// Sets the nodes' options.
    #[must_use]
    pub fn options(self, options: Options) -> Self {
        Self { options, ..self }
    }

    /// Replaces the channel, which by default takes everything unless [`Site::refuses`] is set.
    #[must_use]
    pub fn channel(self, channel: Arc<ScriptedChannel>) -> Self {
        Self { channel: Some(channel), ..self }
    }

    /// Replaces the model, which by default is outside and answers `on <messages>`.
    #[must_use]
    pub fn responder(self, responder: Arc<dyn Responder>) -> Self {
        Self { responder, ..self }
    }

    /// Draws keys and nonces from here, so that a seed decides ids too.
    #[must_use]
    pub fn entropy(self, entropy: Arc<dyn Entropy>) -> Self {
        Self { entropy, ..self }
    }

    /// Changes the ports of each node before it starts.
    #[must_use]
    pub fn ports(self, adjust: impl Fn(PortsBuilder) -> PortsBuilder + Send + Sync + 'static) -> Self {
        Self { adjust: Arc::new(adjust), ..self }
    }

    /// The site, with nothing running on it yet.
    #[must_use]
    pub fn build(self) -> Site {
        let refuses = Arc::new(AtomicBool::new(false));
        let channel = self.channel.unwrap_or_else(|| {
            let refuses = refuses.clone();
            Arc::new(ScriptedChannel::new(move |_, _| match refuses.load(Ordering::Relaxed) {
                true => Sending::from(Reply::fails(FailureClass::Unauthorized)),
                false => Sending::default(),
            }))
        });
        Site {
            disk: MemoryDisk::new(NonZeroU32::new(self.partitions).unwrap()),
            clock: Arc::new(TokioClock::starting_at(BEGIN)),
            master: MasterKey::generate(),
            channel,
            refuses,
            died: Arc::default(),
            steps_left: Arc::new(AtomicI64::new(-1)),
            split: self.split,
            faults: self.faults,
            options: self.options,
            responder: self.responder,
            entropy: self.entropy,
            adjust: self.adjust,
            node: Mutex::new(None),
        }
    }

    /// The site with a running node that knows these tenants and accepts webhooks.
    pub async fn start(self, tenants: &[Tenant]) -> Site {
        let site = self.build();
        site.start().await;
        let known = site.with(|node| node.system.tenants.clone());
        for tenant in tenants {
            known.apply(tenant.clone()).await.unwrap();
        }
        site
    }
}

/// State that survives a node.
pub struct Site {
    /// Durable state.
    pub disk: Arc<MemoryDisk>,
    /// The clock.
    pub clock: Arc<TokioClock>,
    /// Master key of the key store.
    pub master: MasterKey,
    /// The channel that all nodes send through.
    pub channel: Arc<ScriptedChannel>,
    /// Makes the default channel refuse every token while it is set.
    pub refuses: Arc<AtomicBool>,
    /// Notified when a node has died by [`Site::die_after`].
    pub died: Arc<tokio::sync::Notify>,
    steps_left: Arc<AtomicI64>,
    split: bool,
    faults: Arc<dyn Faults>,
    options: Options,
    responder: Arc<dyn Responder>,
    entropy: Arc<dyn Entropy>,
    adjust: Adjust,
    node: Mutex<Option<Node>>,
}

/// State that ends with a node.
pub struct Node {
    /// Its incarnation of log and state.
    pub store: Arc<MemoryStore>,
    /// Its ports.
    pub ports: Ports,
    /// Its actors.
    pub system: System,
    /// Its metrics.
    pub registry: Registry,
}

impl Site {
    /// The keys of a store on this site.
    #[must_use]
    pub fn keys(&self, store: Arc<MemoryStore>) -> EnvelopeKeys {
        let options = keys::Options { entropy: self.entropy.clone(), ..keys::Options::default() };
        EnvelopeKeys::new(store, self.clock.clone(), &self.master, options)
    }

    /// Starts a second node over the site, which the site does not end or restart. It fences the first.
    pub async fn boot(&self) -> Node {
        let (left, died, inner) = (self.steps_left.clone(), self.died.clone(), self.faults.clone());
        let faults = move |operation: Operation| {
            let is_polled = matches!(operation, Operation::Fetch | Operation::Assignment | Operation::End);
            if !is_polled && left.load(Ordering::Relaxed) >= 0 && left.fetch_sub(1, Ordering::Relaxed) == 0 {
                died.notify_one();
                return Fault { after: Duration::from_secs(3600), ..Fault::NONE };
            }
            inner.next(operation)
        };
        let options = StoreOptions { faults: Arc::new(faults), split: self.split, ..StoreOptions::default() };
        let store = Arc::new(MemoryStore::open_with(self.disk.clone(), self.clock.clone(), options));
        let (channel, responder): (Arc<dyn Channel>, _) = (self.channel.clone(), self.responder.clone());
        let keys = self.keys(store.clone());
        let registry = Registry::new();
        let ports = PortsBuilder::new(store.clone(), keys, self.clock.clone(), channel, responder);
        let ports = (self.adjust)(ports.registry(registry.clone())).build();
        let system = System::start(ports.clone(), self.options.clone()).await.unwrap();
        system.intake_gate.set_open(true);
        Node { store, ports, system, registry }
    }

    /// Starts the site's node.
    pub async fn start(&self) {
        let node = self.boot().await;
        *self.node.lock().unwrap() = Some(node);
    }

    /// Lets the node die at the n-th step of its store from now on, 0 being the next; polls do not count.
    pub fn die_after(&self, steps: i64) {
        self.steps_left.store(steps, Ordering::Relaxed);
    }

    /// Steps that are left until the node dies; negative when it lives on or has died.
    #[must_use]
    pub fn steps_left(&self) -> i64 {
        self.steps_left.load(Ordering::Relaxed)
    }

    /// Ends the node as a crash does, and starts another over the durable state.
    pub async fn restart(&self) {
        let node = self.node.lock().unwrap().take().unwrap();
        self.disk.crash();
        node.system.kill().await;
        self.die_after(-1);
        self.start().await;
    }

    /// Ends the node, and starts none.
    pub async fn end(&self) {
        let node = self.node.lock().unwrap().take().unwrap();
        node.system.kill().await;
    }

    /// Lets a second pass, and restarts the node if it died in it. Returns whether it did.
    pub async fn second(&self) -> bool {
        tokio::select! {
            biased;
            () = self.died.notified() => {
                self.restart().await;
                true
            }
            () = tokio::time::sleep(Duration::from_secs(1)) => false,
        }
    }

    /// Passes the running node to `look`.
    ///
    /// # Panics
    /// When none runs.
    pub fn with<T>(&self, look: impl FnOnce(&Node) -> T) -> T {
        look(self.node.lock().unwrap().as_ref().unwrap())
    }

    /// Returns the text `text of <id>` from Ann, who has this phone number.
    #[must_use]
    pub fn said(&self, phone: &str, account: &str, id: &str, sent_at: Timestamp) -> ChannelEvent {
        message::said(account, message::phone(phone), id, &format!("text of {id}"), sent_at)
    }

    /// Brings an event to the node as a webhook does.
    pub async fn receive(&self, tenant: &Tenant, event: ChannelEvent) {
        let reception = self.with(|node| node.system.reception.clone());
        reception.accept(ChannelKind::Whatsapp, &Arc::new(tenant.clone()), vec![event]).await.unwrap();
    }

    /// Sends a customer's message, and waits two seconds for its answer.
    pub async fn say(&self, tenant: &Tenant, phone: &str, account: &str, id: &str) {
        self.receive(tenant, self.said(phone, account, id, self.clock.now())).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }

    /// Returns the texts that the channel has accepted, in order.
    #[must_use]
    pub fn sent(&self) -> Vec<String> {
        let text = |content: &OutgoingContent| match content {
            OutgoingContent::Text { body } => body.clone(),
            other => panic!("{other:?}"),
        };
        self.channel.accepted().iter().map(|call| text(&call.message.content)).collect()
    }

    /// Returns all events in topic events.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        let partitions = 0..self.disk.partitions(Topic::Events);
        let records = partitions
            .flat_map(|partition| self.disk.records(TopicPartition { topic: Topic::Events, partition }));
        records.map(|record| decode::<EventRecord>(&record.value).unwrap().event).collect()
    }
}
