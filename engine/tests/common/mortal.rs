//! A node over the store in memory that dies when it is told to, and comes back over what is durable.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use heddle_actors::options::Options;
use heddle_actors::ports::Ports;
use heddle_actors::system::System;
use heddle_connectors::keys::{self, EnvelopeKeys, MasterKey};
use heddle_connectors::memory::channel::{Reply, Sending};
use heddle_connectors::memory::responder::Response;
use heddle_connectors::memory::{
    Fault, MemoryDisk, MemoryStore, Operation, Options as StoreOptions, ScriptedChannel, ScriptedResponder,
    TokioClock,
};
use heddle_schemas::content::{Address, Content, Context};
use heddle_schemas::id::ChannelKind;
use heddle_schemas::ports::channel::{Act, Channel, ChannelEvent, FailureClass, ReceivedMessage};
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::record::decode;
use heddle_schemas::record::event::{Event, EventRecord};
use heddle_schemas::tenant::Tenant;
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Topic, TopicPartition};

use crate::in_memory;

/// The node and what outlives it.
pub(crate) struct World {
    pub(crate) disk: Arc<MemoryDisk>,
    pub(crate) clock: Arc<TokioClock>,
    master: MasterKey,
    pub(crate) channel: Arc<ScriptedChannel>,
    /// Whether the channel refuses every token.
    pub(crate) refuses: Arc<AtomicBool>,
    /// Steps of the store until the node dies; below 0 it lives.
    pub(crate) steps_left: Arc<AtomicI64>,
    /// Told when it has died.
    pub(crate) died: Arc<tokio::sync::Notify>,
    node: Mutex<Option<Node>>,
}

/// What ends with the node.
pub(crate) struct Node {
    pub(crate) ports: Ports,
    pub(crate) system: System,
}

/// A tenant with these accounts, whose agent calls outside.
pub(crate) fn tenant(id: &str, accounts: &[&str]) -> Tenant {
    let channel = |account: &&str| {
        format!(
            "[[channels]]\nkind = \"whatsapp\"\naccount = \"{account}\"\naccess_token = \"t\"\napp_secret = \"s\"\n\
             verify_token = \"v\"\n"
        )
    };
    let channels: String = accounts.iter().map(channel).collect();
    let agent = "[agent]\nfallback = \"f\"\nsettle = \"100ms\"\n";
    Tenant::from_toml(&format!("id = \"{id}\"\nname = \"N\"\n{agent}{channels}")).unwrap()
}

impl World {
    /// A running node with these tenants.
    pub(crate) async fn of(tenants: &[Tenant]) -> Self {
        let refuses = Arc::new(AtomicBool::new(false));
        let channel = ScriptedChannel::new({
            let refuses = refuses.clone();
            move |_, _| match refuses.load(Ordering::Relaxed) {
                true => Sending::from(Reply::fails(FailureClass::Unauthorized)),
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
        let known = world.with(|node| node.system.tenants.clone());
        for tenant in tenants {
            known.apply(tenant.clone()).await.unwrap();
        }
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
        system.intake_gate.set_open(true);
        *self.node.lock().unwrap() = Some(Node { ports, system });
    }

    /// Ends the node as a crash does, and starts another over what is durable.
    pub(crate) async fn restart(&self) {
        let node = self.node.lock().unwrap().take().unwrap();
        self.disk.crash();
        node.system.kill().await;
        self.steps_left.store(-1, Ordering::Relaxed);
        self.start().await;
    }

    /// Lets a second pass, and restarts the node if it died in it.
    pub(crate) async fn second(&self) {
        tokio::select! {
            biased;
            () = self.died.notified() => self.restart().await,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }

    pub(crate) fn with<T>(&self, look: impl FnOnce(&Node) -> T) -> T {
        look(self.node.lock().unwrap().as_ref().unwrap())
    }

    pub(crate) fn said(&self, phone: &str, account: &str, id: &str, sent_at: Timestamp) -> ChannelEvent {
        ChannelEvent::Message(ReceivedMessage {
            account: account.parse().unwrap(),
            id: id.into(),
            from: Address { phone: Some(phone.into()), name: Some("Ann".into()), ..Address::default() },
            sent_at,
            act: Act::Say(Content::Text { body: format!("text of {id}") }),
            context: Context::default(),
        })
    }

    pub(crate) async fn receive(&self, tenant: &Tenant, event: ChannelEvent) {
        let reception = self.with(|node| node.system.reception.clone());
        reception.accept(ChannelKind::Whatsapp, &Arc::new(tenant.clone()), vec![event]).await.unwrap();
    }

    /// A customer writes, and everything has the time to be answered.
    pub(crate) async fn say(&self, tenant: &Tenant, phone: &str, account: &str, id: &str) {
        self.receive(tenant, self.said(phone, account, id, self.clock.now())).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }

    pub(crate) fn sent(&self) -> Vec<String> {
        let text = |content: &Content| match content {
            Content::Text { body } => body.clone(),
            other => panic!("{other:?}"),
        };
        self.channel.accepted().iter().map(|call| text(&call.message.content)).collect()
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        let partitions = 0..self.disk.partitions(Topic::Events);
        let records = partitions
            .flat_map(|partition| self.disk.records(TopicPartition { topic: Topic::Events, partition }));
        records.map(|record| decode::<EventRecord>(&record.value).unwrap().event).collect()
    }
}
