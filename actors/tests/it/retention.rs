//! A tenant's retention is changed: what is there ends by the shortest time it was promised, through a crash at any
//! step, over the store in memory with paused time.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use heddle_actors::options::Options;
use heddle_actors::ports::Ports;
use heddle_actors::system::System;
use heddle_keys::{self as keys, EnvelopeKeys, MasterKey};
use heddle_memory::responder::Response;
use heddle_memory::{
    Fault, MemoryDisk, MemoryStore, Operation, Options as StoreOptions, ScriptedChannel, ScriptedResponder,
    TokioClock,
};
use heddle_schemas::content::{Address, Content, Context};
use heddle_schemas::id::ChannelKind;
use heddle_schemas::ports::channel::{Act, Channel, ChannelEvent, ReceivedMessage, ReceivedStatus};
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::state::Walk;
use heddle_schemas::record::inbound::DeliveryStatus;
use heddle_schemas::table::Table;
use heddle_schemas::tenant::Tenant;
use heddle_schemas::time::Timestamp;
use heddle_testing::PortsBuilder;

const DAY: Duration = Duration::from_secs(86_400);

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

/// Small pages, so that a sweep has many.
fn small_pages() -> Options {
    Options { sweep_page: 3.try_into().unwrap(), ..Options::default() }
}

/// A node that dies when it is told to, and comes back over what is durable.
struct World {
    disk: Arc<MemoryDisk>,
    clock: Arc<TokioClock>,
    master: MasterKey,
    channel: Arc<ScriptedChannel>,
    /// Steps of the store until the node dies; below 0 it lives.
    steps_left: Arc<AtomicI64>,
    died: Arc<tokio::sync::Notify>,
    node: Mutex<Option<Node>>,
    began: Timestamp,
    restarts: std::sync::atomic::AtomicU32,
}

struct Node {
    ports: Ports,
    system: System,
}

impl World {
    async fn begin() -> Self {
        let world = Self {
            disk: MemoryDisk::new(NonZeroU32::new(2).unwrap()),
            clock: Arc::new(TokioClock::starting_at(Timestamp::from_secs(1_767_225_600))),
            master: MasterKey::generate(),
            channel: Arc::new(ScriptedChannel::default()),
            steps_left: Arc::new(AtomicI64::new(-1)),
            died: Arc::default(),
            node: Mutex::new(None),
            began: Timestamp::from_secs(1_767_225_600),
            restarts: std::sync::atomic::AtomicU32::new(0),
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
        let ports = PortsBuilder::new(store, keys, self.clock.clone(), channel, Arc::new(responder)).build();
        let system = System::start(ports.clone(), small_pages()).await.unwrap();
        system.intake_gate.set_open(true);
        *self.node.lock().unwrap() = Some(Node { ports, system });
    }

    async fn restart(&self) {
        let node = self.node.lock().unwrap().take().unwrap();
        self.disk.crash();
        node.system.kill().await;
        self.steps_left.store(-1, Ordering::Relaxed);
        self.restarts.fetch_add(1, Ordering::Relaxed);
        self.start().await;
    }

    fn restarted(&self) -> bool {
        self.restarts.load(Ordering::Relaxed) > 0
    }

    fn with<T>(&self, look: impl FnOnce(&Node) -> T) -> T {
        look(self.node.lock().unwrap().as_ref().unwrap())
    }

    async fn apply(&self, change: impl FnOnce(&mut Tenant)) {
        let mut tenant = tenant();
        change(&mut tenant);
        let tenants = self.with(|node| node.system.tenants.clone());
        tenants.apply(tenant).await.unwrap();
    }

    async fn receive(&self, event: ChannelEvent) {
        let reception = self.with(|node| node.system.reception.clone());
        reception.accept(ChannelKind::Whatsapp, &Arc::new(tenant()), vec![event]).await.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
    }

    async fn say(&self, phone: u32, id: &str, content: Content) {
        let phone = Some(format!("49157{phone:08}"));
        self.receive(ChannelEvent::Message(ReceivedMessage {
            account: "1".parse().unwrap(),
            id: id.into(),
            from: Address { phone, ..Address::default() },
            sent_at: self.clock.now(),
            act: Act::Say(content),
            context: Context::default(),
        }))
        .await;
    }

    /// The reply that was sent last was read.
    async fn read(&self) {
        let last = self.channel.accepted().len();
        self.receive(ChannelEvent::Status(ReceivedStatus {
            account: "1".parse().unwrap(),
            message_id: format!("wamid.{last}"),
            outbound: Some(self.channel.accepted()[last - 1].message.id),
            status: DeliveryStatus::Read,
            at: self.clock.now(),
            failure: None,
        }))
        .await;
    }

    /// Lets a sweep happen, and restarts the node whenever it dies.
    async fn sweep(&self) {
        for _ in 0..60 {
            tokio::select! {
                biased;
                () = self.died.notified() => self.restart().await,
                () = tokio::time::sleep(Duration::from_secs(2)) => {}
            }
        }
    }

    /// How many rows there are in a table, over or not, by the whole days after which they end.
    async fn ends(&self, table: Table) -> Vec<(u64, usize)> {
        let state = self.with(|node| node.ports.state.clone());
        let mut walk = Walk::of(&tenant().id, [table], 1_000);
        let mut ends = std::collections::BTreeMap::new();
        loop {
            let page = state.walk(&walk).await.unwrap();
            for row in &page.rows {
                *ends
                    .entry(row.expires.unwrap().since(self.began).as_secs().div_euclid(86_400))
                    .or_default() += 1;
            }
            if !walk.go_on(&page) {
                return ends.into_iter().collect();
            }
        }
    }
}

fn text(body: &str) -> Content {
    Content::Text { body: body.into() }
}

fn picture() -> Content {
    serde_json::from_value(serde_json::json!({ "type": "media", "kind": "image", "id": "7" })).unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_is_shortened_holds_for_what_is_there_and_what_is_lengthened_for_what_comes() {
    let world = World::begin().await;
    world.say(1, "a1", text("on day 0")).await;
    world.read().await;
    world.clock.jump_forward(10 * DAY);
    world.say(1, "a2", text("on day 10")).await;
    world.say(2, "b1", picture()).await;
    world.read().await;
    // A message and its reply each, and how far the reply has come.
    assert_eq!(world.ends(Table::History).await, [(30, 2), (40, 4)]);
    assert_eq!(world.ends(Table::Delivery).await, [(30, 1), (40, 2)]);

    world.apply(|tenant| tenant.retention.messages = 7 * DAY).await;
    world.sweep().await;
    assert_eq!(world.ends(Table::History).await, [(17, 4)], "what is over is deleted");
    assert_eq!(world.ends(Table::Delivery).await, [(17, 2)]);

    world.apply(|tenant| tenant.retention.messages = 20 * DAY).await;
    world.sweep().await;
    assert_eq!(world.ends(Table::History).await, [(17, 4)], "they were promised the shorter time");
    world.say(1, "a3", text("under twenty days")).await;
    assert_eq!(world.ends(Table::History).await, [(17, 4), (30, 2)]);

    world
        .apply(|tenant| {
            tenant.retention.messages = 20 * DAY;
            tenant.retention.media = Some(2 * DAY);
            tenant.retention.receipts = Some(3 * DAY);
        })
        .await;
    world.sweep().await;
    // The picture; the reply to it is a row of its own.
    assert_eq!(world.ends(Table::History).await, [(12, 1), (17, 3), (30, 2)]);
    assert_eq!(world.ends(Table::Delivery).await, [(13, 3)]);
    // The same again, and a restart, change nothing.
    world.restart().await;
    world.sweep().await;
    assert_eq!(world.ends(Table::History).await, [(12, 1), (17, 3), (30, 2)]);
    assert_eq!(world.with(|node| node.ports.metrics.looked_at_by_sweeps()), 0, "nothing is behind");
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_step_of_a_sweep_is_gone_on_from() {
    let mut fewest = u64::MAX;
    for step in 0.. {
        let world = World::begin().await;
        for contact in 0..5 {
            world.say(contact, &format!("m{contact}"), text("hello")).await;
            world.read().await;
        }
        assert_eq!(world.ends(Table::History).await, [(30, 10)]);
        world.apply(|tenant| tenant.retention.messages = 7 * DAY).await;
        world.steps_left.store(step, Ordering::Relaxed);
        world.sweep().await;
        let died = world.restarted();
        assert_eq!(world.ends(Table::History).await, [(7, 10)], "step {step}");
        assert_eq!(world.ends(Table::Delivery).await, [(7, 5)], "step {step}");
        if !died {
            assert!(step > 15, "so few steps are no sweep");
            break;
        }
        fewest = fewest.min(world.with(|node| node.ports.metrics.looked_at_by_sweeps()));
    }
    assert!(fewest < 5, "the last pages of a sweep are not looked at from its beginning: {fewest}");
}
