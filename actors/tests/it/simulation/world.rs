//! Simulation of one seed: tenants, customers, a provider, and a node that dies and comes back.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use heddle_actors::metrics::Metrics;
use heddle_actors::options::Options;
use heddle_actors::ports::Ports;
use heddle_actors::privacy::security::Security;
use heddle_actors::privacy::security::keys::WatchedKeys;
use heddle_actors::random::Random;
use heddle_actors::system::System;
use heddle_keys::{EnvelopeKeys, MasterKey, SeededEntropy};
use heddle_memory::{
    Fault, MemoryCalendar, MemoryDisk, MemoryStore, Operation, Options as StoreOptions, Outcome, TokioClock,
};
use heddle_schemas::config;
use heddle_schemas::content::{Address, Content, Context, MediaKind};
use heddle_schemas::id::{AccountId, ChannelKind};
use heddle_schemas::ports::channel::{Act, Channel, ChannelEvent, ReceivedMessage};
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::log::{Log, NewRecord};
use heddle_schemas::ports::responder::Responder;
use heddle_schemas::sealed::Secret;
use heddle_schemas::table::{Key, Table};
use heddle_schemas::tenant::Tenant;
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Offset, Topic, TopicPartition};
use heddle_testing::gauge;
use prometheus::Registry;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::connector;
use super::provider::{Faults, Provider};
use super::responder::{OnePassage, Repeats};

pub(super) const FALLBACK: &str = "fallback";
/// One for all runs: what is stored depends on it, and a seed decides what is stored.
const MASTER: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
/// Replies that were published again.
pub(super) const REPUBLISHED: &str = "heddle_conversation_republished_total";
const PERMITS: usize = 8;
const RESIDENTS: usize = 6;
const PARTITIONS: u32 = 3;
/// Longer than any report takes to come, retries included.
const UNKNOWN_WAIT: Duration = Duration::from_secs(12);
/// Repetitions of a reply of unknown outcome, as operators have them by default.
pub(super) const UNKNOWN_REPEATS: u32 = 1;
/// How long a channel waits for the answer to a webhook.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) struct Node {
    pub(super) store: Arc<MemoryStore>,
    pub(super) ports: Ports,
    system: System,
    registry: Registry,
}

impl Node {
    /// The largest of a gauge's series.
    fn gauge(&self, name: &str) -> f64 {
        gauge::max(&self.registry, name)
    }

    /// The sum of a metric's series.
    pub(super) fn sum(&self, name: &str) -> f64 {
        gauge::sum(&self.registry, name)
    }
}

/// Messages of a customer, and their outcome.
#[derive(Default)]
pub(super) struct Spoken {
    /// Texts that ask for an answer, in the order of their acceptance.
    pub(super) texts: Vec<String>,
    /// Messages without text that ask for one.
    pub(super) textless: usize,
    /// Messages that ask for nothing.
    silent: usize,
}

pub(super) struct Customer {
    pub(super) tenant: usize,
    /// True when messages here come by a third-party connector instead of by webhook.
    by_connector: bool,
    /// Where the customer was reached before, and last where it is now.
    pub(super) addresses: Mutex<Vec<Address>>,
    /// True where a message shows only one of the customer's ids at times; the last shows all.
    pub(super) shows_parts: bool,
    /// Customer whose number is this one's once that one has spoken, without a notice.
    pub(super) follows: Option<usize>,
    /// Set once the customer has spoken.
    spoke: tokio::sync::watch::Sender<bool>,
    pub(super) spoken: Mutex<Spoken>,
}

impl Customer {
    pub(super) fn address(&self) -> Address {
        let addresses = self.addresses.lock().expect("no test panics while holding it");
        addresses.last().expect("a customer is reached somewhere").clone()
    }

    fn reached(&self, address: Address) {
        self.addresses.lock().expect("no test panics while holding it").push(address);
    }
}

pub(crate) struct World {
    pub(super) seed: u64,
    rng: Mutex<StdRng>,
    pub(super) clock: Arc<TokioClock>,
    pub(super) disk: Arc<MemoryDisk>,
    master: MasterKey,
    /// One for all restarts: keys decide hashes, and those decide ids.
    entropy: Arc<SeededEntropy>,
    pub(super) provider: Arc<Provider>,
    pub(super) responder: Arc<Repeats>,
    pub(super) outside: bool,
    split: bool,
    stormy: Arc<std::sync::atomic::AtomicBool>,
    worst_moment: Arc<tokio::sync::Notify>,
    pub(super) tenants: Vec<Tenant>,
    pub(super) customers: Vec<Customer>,
    /// The channel's clock: it never goes back.
    stamped: Mutex<Timestamp>,
    /// Records of connectors that cannot be accepted.
    pub(super) wrong: Mutex<BTreeMap<(TopicPartition, Offset), connector::Wrong>>,
    pub(super) node: tokio::sync::RwLock<Option<Node>>,
    pub(super) crashes: Mutex<Vec<tokio::time::Instant>>,
    /// Commits that a fault of the store or a crash interrupted: each may have published its outputs before it repeats
    /// them.
    pub(super) interrupted: Arc<std::sync::atomic::AtomicU32>,
    /// Replies that ended nodes published again, since nothing said that they had left.
    pub(super) republished: std::sync::atomic::AtomicU32,
}

fn tenant(index: usize, settle: &str) -> Tenant {
    let text = format!(
        r#"
        id = "t{index}"
        name = "Tenant {index}"
        [agent]
        fallback = "{FALLBACK}"
        settle = "{settle}"
        [[channels]]
        kind = "whatsapp"
        account = "100{index}"
        access_token = "token-{index}"
        app_secret = "s"
        verify_token = "v"
        "#
    );
    Tenant::from_toml(&text).expect("the tenant is valid")
}

impl World {
    pub(crate) fn new(seed: u64) -> Arc<Self> {
        let mut rng = StdRng::seed_from_u64(seed);
        let settle = ["0ms", "300ms", "50ms"][rng.random_range(0..3)];
        let tenants: Vec<_> = (0..rng.random_range(1..4)).map(|index| tenant(index, settle)).collect();
        let mut customers: Vec<_> = (0..rng.random_range(1..12))
            .map(|index: usize| {
                let phone = Some(format!("4915700000{index:02}"));
                let user_id = rng.random_bool(0.4).then(|| format!("DE.{index}"));
                let address = match rng.random_bool(0.2) {
                    true => Address { user_id: Some(format!("DE.{index}")), ..Address::default() },
                    false => Address { phone, user_id, ..Address::default() },
                };
                let tenant = rng.random_range(0..tenants.len());
                let by_connector = rng.random_bool(0.4);
                let shows_parts =
                    address.phone.is_some() && address.user_id.is_some() && rng.random_bool(0.6);
                let addresses = Mutex::new(vec![address]);
                let (spoke, spoken) = (tokio::sync::watch::Sender::new(false), Mutex::default());
                Customer { tenant, by_connector, addresses, shows_parts, follows: None, spoke, spoken }
            })
            .collect();
        for index in 0..customers.len() {
            let Customer { tenant, by_connector, .. } = customers[index];
            let address = customers[index].address();
            if address.phone.is_some() && address.user_id.is_some() && rng.random_bool(0.4) {
                let user_id = Some(format!("DE.{}", customers.len()));
                customers.push(Customer {
                    tenant,
                    by_connector,
                    addresses: Mutex::new(vec![Address { user_id, ..Address::default() }]),
                    shows_parts: false,
                    follows: Some(index),
                    spoke: tokio::sync::watch::Sender::new(false),
                    spoken: Mutex::default(),
                });
            }
        }
        let outside = rng.random_bool(0.5);
        let split = rng.random_bool(0.5);
        let share = |rng: &mut StdRng, most: u32| rng.random_range(0..=most);
        let faults = Faults {
            refuses: share(&mut rng, 10),
            limits: share(&mut rng, 5),
            takes_silently: share(&mut rng, 10),
            loses_silently: share(&mut rng, 5),
            hangs: share(&mut rng, 5),
        };
        Arc::new(Self {
            seed,
            clock: Arc::new(TokioClock::starting_at(Timestamp::from_secs(1_767_225_600))),
            disk: MemoryDisk::new(NonZeroU32::new(PARTITIONS).expect("not zero")),
            master: MasterKey::from_base64(MASTER).expect("it is a key"),
            entropy: Arc::new(SeededEntropy::new(seed)),
            provider: Provider::new(seed, faults),
            responder: Repeats::new(seed, outside, share(&mut rng, 10)),
            rng: Mutex::new(rng),
            outside,
            split,
            stormy: Arc::new(true.into()),
            worst_moment: Arc::default(),
            tenants,
            customers,
            stamped: Mutex::new(Timestamp::EPOCH),
            wrong: Mutex::default(),
            node: tokio::sync::RwLock::new(None),
            crashes: Mutex::default(),
            interrupted: Arc::default(),
            republished: 0.into(),
        })
    }

    fn dice<T>(&self, roll: impl FnOnce(&mut StdRng) -> T) -> T {
        roll(&mut self.rng.lock().expect("no test panics while holding it"))
    }

    fn millis(&self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.dice(|rng| rng.random_range(range)))
    }

    /// Returns the faults of the store, from a generator of its own, so that runs of one seed are alike.
    fn store_faults(&self) -> impl Fn(Operation) -> Fault + Send + Sync + 'static {
        let rng = Mutex::new(StdRng::seed_from_u64(self.dice(|rng| rng.next_u64())));
        let stormy = self.stormy.clone();
        let worst_moment = self.worst_moment.clone();
        let interrupted = self.interrupted.clone();
        let commits = |operation| {
            use Operation::{Commit, CommitAfter, CommitConsumed, CommitOutputs, CommitWrites};
            matches!(operation, Commit | CommitWrites | CommitOutputs | CommitAfter | CommitConsumed)
        };
        move |operation| {
            let mut rng = rng.lock().expect("no test panics while holding it");
            let before = Duration::from_micros(rng.random_range(0..3000));
            let odds = if operation == Operation::CommitOutputs { 100 } else { 400 };
            if stormy.load(std::sync::atomic::Ordering::Relaxed) && rng.random_range(0..odds) == 0 {
                // The node dies right after this step took effect, and before anybody hears of it.
                worst_moment.notify_one();
                interrupted.fetch_add(u32::from(commits(operation)), std::sync::atomic::Ordering::Relaxed);
                let hanging = Duration::from_secs(3600);
                if operation == Operation::CommitOutputs && rng.random_bool(0.5) {
                    // Or when its records are on their way: they arrive when others are at work.
                    return Fault::delay(hanging);
                }
                return Fault { before: Duration::ZERO, after: hanging, outcome: Outcome::Works };
            }
            let dice = rng.random_range(0..1000);
            let outcome = match dice {
                _ if !stormy.load(std::sync::atomic::Ordering::Relaxed) => Outcome::Works,
                0..10 => Outcome::FailsBefore,
                10..20 => Outcome::FailsAfter,
                20..24 => Outcome::Full,
                _ => Outcome::Works,
            };
            let is_interruption = outcome != Outcome::Works && commits(operation);
            interrupted.fetch_add(u32::from(is_interruption), std::sync::atomic::Ordering::Relaxed);
            Fault { before, after: Duration::ZERO, outcome }
        }
    }

    async fn boot(&self) {
        let options = StoreOptions {
            split: self.split,
            faults: Arc::new(self.store_faults()),
            ..StoreOptions::default()
        };
        let store = Arc::new(MemoryStore::open_with(self.disk.clone(), self.clock.clone(), options));
        let registry = Registry::new();
        let keys = self.keys(&store);
        let responder: Arc<dyn Responder> = self.responder.clone();
        let provider: Arc<dyn Channel> = self.provider.clone();
        let random = Mutex::new(StdRng::seed_from_u64(self.dice(|rng| rng.next_u64())));
        let random: Random =
            Arc::new(move || random.lock().expect("no test panics while holding it").random());
        let metrics = Arc::new(Metrics::register(&registry));
        let security =
            Security::new(config::Security::default(), self.clock.clone(), metrics.clone(), random.clone());
        let keys = WatchedKeys::new(Arc::new(keys), security.clone());
        let ports = Ports {
            log: store.clone(),
            state: store.clone(),
            keys: Arc::new(keys),
            calendar: Arc::new(MemoryCalendar::default()),
            knowledge: Arc::new(OnePassage(self.responder.clone())),
            responders: Arc::new(move |_| responder.clone()),
            channels: Arc::new([(ChannelKind::Whatsapp, provider)].into()),
            clock: self.clock.clone(),
            random,
            metrics,
            security,
            versions: heddle_schemas::record::Versions::default(),
        };
        let options = Options {
            permits_per_partition: NonZeroUsize::new(PERMITS).expect("not zero"),
            residents_per_partition: NonZeroUsize::new(RESIDENTS).expect("not zero"),
            agenda_window: NonZeroUsize::new(4).expect("not zero"),
            woken_per_tenant: NonZeroUsize::new(4).expect("not zero"),
            passivate_after: Duration::from_secs(3),
            send_timeout: Duration::from_secs(2),
            answer_timeout: Duration::from_secs(3),
            unknown_wait: UNKNOWN_WAIT,
            // This provider loses one call in ten at worst, each time anew: so many in a row it does not.
            unknown_repeats: UNKNOWN_REPEATS,
            stopped_probe: Duration::from_secs(20),
            turns_per_tenant: NonZeroUsize::new(3).expect("not zero"),
            account_queue: NonZeroUsize::new(5).expect("not zero"),
            account_calls: NonZeroUsize::new(4).expect("not zero"),
            ..Options::default()
        };
        let system = loop {
            match System::start(ports.clone(), options.clone()).await {
                Ok(system) => break system,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        system.intake_gate.set_open(true);
        *self.node.write().await = Some(Node { store, ports, system, registry });
    }

    pub(super) fn keys(&self, store: &Arc<MemoryStore>) -> EnvelopeKeys {
        EnvelopeKeys::new(
            store.clone(),
            self.clock.clone(),
            &self.master,
            heddle_keys::Options { entropy: self.entropy.clone(), ..Default::default() },
        )
    }

    async fn crash(&self) {
        let node = self.node.write().await.take();
        if let Some(Node { store, system, registry, .. }) = node {
            let republished = gauge::sum(&registry, REPUBLISHED) as u32;
            self.republished.fetch_add(republished, std::sync::atomic::Ordering::Relaxed);
            let violations = gauge::sum(&registry, "heddle_invariant_violations_total");
            assert_eq!(violations, 0.0, "seed {}: the engine saw violations of its own", self.seed);
            // The disk stops first: code that still runs changes nothing any more.
            store.close();
            self.disk.crash();
            system.kill().await;
            self.crashes.lock().expect("no test panics while holding it").push(tokio::time::Instant::now());
        }
    }

    /// Publishes into ingress, where a connector's partitioner puts it.
    fn publish(&self, partition: usize, value: Vec<u8>) -> (TopicPartition, Offset) {
        let partitions = self.disk.partitions(Topic::Ingress) as usize;
        let partition = u32::try_from(partition % partitions).expect("there are few");
        let partition = TopicPartition { topic: Topic::Ingress, partition };
        let record = NewRecord { partition, key: connector::SECRET.into(), value: value.into() };
        (partition, self.disk.publish(vec![record], self.clock.now())[0])
    }

    /// A customer's message comes in, by the customer's way.
    async fn receive(&self, customer: usize, event: ChannelEvent) {
        let Customer { tenant, by_connector, follows, .. } = &self.customers[customer];
        let tenant = &self.tenants[*tenant];
        match by_connector {
            // One number, one partition; which one is the connector's business.
            true => drop(self.publish(follows.unwrap_or(customer), connector::written(tenant, &event))),
            false => self.webhook(tenant, vec![event]).await,
        }
    }

    /// Publishes records that cannot be accepted, as a connector with faults does.
    async fn blunder(self: Arc<Self>) {
        for _ in 0..self.dice(|rng| rng.random_range(0..8)) {
            let pause = self.millis(0..6000);
            tokio::time::sleep(pause).await;
            let partition = self.dice(|rng| rng.random_range(0..PARTITIONS as usize));
            let (value, wrong) = self.dice(|rng| connector::wrong(rng, &self.tenants, self.clock.now()));
            let mut all = self.wrong.lock().expect("no test panics while holding it");
            all.insert(self.publish(partition, value), wrong);
        }
    }

    /// Sends events until they are accepted, as a channel does: one without an answer tries again.
    async fn webhook(&self, tenant: &Tenant, events: Vec<ChannelEvent>) {
        loop {
            // Nothing of the node is held meanwhile, or it could not die with the call under way.
            let door = self.node.read().await.as_ref().and_then(|node| {
                let tenant = node.system.tenants.get(&tenant.id)?;
                Some((node.system.reception.clone(), tenant))
            });
            if let Some((reception, tenant)) = door {
                let accepting = reception.accept(ChannelKind::Whatsapp, &tenant, events.clone());
                if tokio::time::timeout(PATIENCE, accepting).await.is_ok_and(|taken| taken.is_ok()) {
                    return;
                }
            }
            let pause = self.millis(50..500);
            tokio::time::sleep(pause).await;
        }
    }

    /// Applies a configuration until it is in force.
    async fn apply(&self, tenant: &Tenant) {
        loop {
            let tenants = self.node.read().await.as_ref().map(|node| node.system.tenants.clone());
            if let Some(tenants) = tenants {
                let applying = tokio::time::timeout(PATIENCE, tenants.apply(tenant.clone())).await;
                if applying.is_ok_and(|applied| applied.is_ok()) {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Returns the channel's time of now.
    fn stamp(&self) -> Timestamp {
        let mut stamped = self.stamped.lock().expect("no test panics while holding it");
        *stamped = self.clock.now().max(stamped.after(Duration::from_micros(1)));
        *stamped
    }

    /// The ids that a message of a customer shows.
    fn shown(&self, customer: &Customer, is_last: bool) -> Address {
        let all = customer.address();
        if !customer.shows_parts || is_last {
            return all;
        }
        match self.dice(|rng| rng.random_range(0..3)) {
            0 => Address { user_id: None, ..all },
            1 => Address { phone: None, ..all },
            _ => all,
        }
    }

    /// One customer speaks: bursts, pauses, duplicates, and things that are no text.
    async fn speak(self: Arc<Self>, index: usize) {
        let customer = &self.customers[index];
        let tenant = &self.tenants[customer.tenant];
        let account: AccountId = tenant.channels[0].account.clone();
        if let Some(before) = customer.follows {
            let before = &self.customers[before];
            before.spoke.subscribe().wait_for(|spoke| *spoke).await.expect("the other customer speaks");
            customer.reached(Address { phone: before.address().phone, ..customer.address() });
        }
        let messages = self.dice(|rng| rng.random_range(1..10));
        for number in 0..messages {
            let is_last = number + 1 == messages;
            let pause = match self.dice(|rng| rng.random_range(0..3)) {
                0 => self.millis(0..20),
                1 => self.millis(20..1000),
                _ => self.millis(1000..8000),
            };
            tokio::time::sleep(pause).await;
            let text = format!("c{index}m{number}");
            let dice = self.dice(|rng| rng.random_range(0..20));
            let from = self.shown(customer, is_last);
            let act = match dice {
                2 if from.phone.is_some() && !is_last => {
                    let phone = Some(format!("4916{index:02}00{number:02}"));
                    customer.reached(Address { phone: phone.clone(), ..customer.address() });
                    Act::Rename { to: Address { phone, ..from.clone() }, body: None }
                }
                0 => Act::React { target: "wamid.1".into(), emoji: Some("+".into()) },
                1 => Act::Say(Content::Media {
                    kind: MediaKind::Image,
                    id: text.clone(),
                    mime_type: None,
                    sha256: None,
                    caption: None,
                    filename: None,
                }),
                _ => Act::Say(Content::Text { body: text.clone() }),
            };
            let asks = matches!(act, Act::Say(Content::Text { .. }));
            let message = ReceivedMessage {
                account: account.clone(),
                id: format!("wamid.in.{text}"),
                from,
                sent_at: self.stamp(),
                act,
                context: Context::default(),
            };
            let event = ChannelEvent::Message(message);
            self.receive(index, event.clone()).await;
            {
                let mut spoken = customer.spoken.lock().expect("no test panics while holding it");
                match dice {
                    1 => spoken.textless += 1,
                    _ if asks => spoken.texts.push(text),
                    _ => spoken.silent += 1,
                }
            }
            for _ in 0..self.dice(|rng| rng.random_range(0_u32..3).saturating_sub(1)) {
                let again = self.clone();
                let event = event.clone();
                tokio::spawn(async move {
                    let pause = again.millis(0..4000);
                    tokio::time::sleep(pause).await;
                    again.receive(index, event).await;
                });
            }
        }
        customer.spoke.send_replace(true);
    }

    /// Brings the provider's reports in, each in its own time.
    async fn reports(self: Arc<Self>) {
        loop {
            while let Some((delay, event)) = self.provider.next_report() {
                let world = self.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    let ChannelEvent::Status(status) = &event else { return };
                    let tenant = world
                        .tenants
                        .iter()
                        .find(|tenant| tenant.channels[0].account == status.account)
                        .expect("the provider knows only these accounts");
                    if world.dice(|rng| rng.random_bool(0.3)) {
                        let partition = world.dice(|rng| rng.random_range(0..PARTITIONS as usize));
                        world.publish(partition, connector::written(tenant, &event));
                    } else {
                        world.webhook(tenant, vec![event.clone()]).await;
                    }
                });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The node dies now and then, and stays away for a while.
    async fn storms(self: Arc<Self>) {
        while self.stormy.load(std::sync::atomic::Ordering::Relaxed) {
            let pause = self.millis(0..15_000);
            tokio::select! {
                biased;
                () = self.worst_moment.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
            if self.dice(|rng| rng.random_bool(0.2)) {
                let jump = self.millis(0..40_000);
                match self.dice(|rng| rng.random_bool(0.5)) {
                    true => self.clock.jump_forward(jump),
                    false => self.clock.jump_back(jump),
                }
            }
            self.reboot().await;
        }
        // A call that hangs since the worst moment of a node hangs until the node dies.
        self.reboot().await;
    }

    async fn reboot(self: &Arc<Self>) {
        self.crash().await;
        let strays = self.disk.strays();
        let late = self.millis(0..6000);
        let world = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(late).await;
            world.disk.publish(strays, world.clock.now());
        });
        let away = self.millis(0..3000);
        tokio::time::sleep(away).await;
        self.boot().await;
    }

    pub(crate) async fn run(self: Arc<Self>) {
        self.boot().await;
        for tenant in &self.tenants {
            self.apply(tenant).await;
        }
        let reports = tokio::spawn(self.clone().reports());
        let watch = tokio::spawn(self.clone().watch_bounds());
        let storms = tokio::spawn(self.clone().storms());
        let blunders = tokio::spawn(self.clone().blunder());
        let token_dies = self.dice(|rng| rng.random_bool(0.25)).then(|| self.millis(0..20_000));
        let token = tokio::spawn(self.clone().lose_token(token_dies));
        let speaking: Vec<_> =
            (0..self.customers.len()).map(|index| tokio::spawn(self.clone().speak(index))).collect();
        for customer in speaking {
            customer.await.expect("a customer speaks to the end");
        }
        blunders.await.expect("a connector blunders to the end");
        self.stormy.store(false, std::sync::atomic::Ordering::Relaxed);
        storms.await.expect("storms end");
        self.provider.calm();
        self.responder.calm();
        if token.await.expect("a token dies quietly") {
            self.renew_token().await;
        }
        self.settle().await;
        let held_back =
            self.node.read().await.as_ref().map(|node| node.gauge("heddle_account_backlog_records"));
        assert_eq!(held_back, Some(0.0), "seed {}: what operators see of an empty backlog", self.seed);
        watch.abort();
        assert!(!watch.await.is_err_and(|error| error.is_panic()), "I9: a bound was passed");
        reports.abort();
        self.check_everything().await;
    }

    /// The first tenant's token dies after a while, where the seed says so.
    async fn lose_token(self: Arc<Self>, after: Option<Duration>) -> bool {
        let Some(after) = after else { return false };
        tokio::time::sleep(after).await;
        let token = self.tenants[0].channels[0].credential("access_token").expect("the tenant has a token");
        self.provider.kill_token(token.expose());
        true
    }

    /// An operator sees the suspended account and gives it a new token: its waiting messages leave.
    async fn renew_token(&self) {
        let mut tenant = self.tenants[0].clone();
        tenant.channels[0].credentials.set("access_token", Secret::new("renewed"));
        self.apply(&tenant).await;
    }

    /// Waits until nothing waits any more: every record settled, no agenda, no backlog.
    async fn settle(&self) {
        for _ in 0..3000 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            if self.unsettled().await.is_empty() {
                // Messages that were duplicated late may still be on their way.
                tokio::time::sleep(Duration::from_secs(6)).await;
                if self.unsettled().await.is_empty() {
                    return;
                }
            }
        }
        panic!("seed {}: I2: after ten quiet minutes there is still {:?}", self.seed, self.unsettled().await);
    }

    async fn unsettled(&self) -> Vec<String> {
        let node = self.node.read().await;
        let node = node.as_ref().expect("the node runs");
        let mut left = Vec::new();
        for topic in Topic::CONSUMED {
            for partition in 0..PARTITIONS {
                let partition = TopicPartition { topic, partition };
                let end = node.store.end(partition).await.unwrap_or_default();
                let position = self.disk.position(partition);
                if position.next != end {
                    left.push(format!("{partition} done to {} of {end}", position.next));
                }
            }
        }
        for (key, _) in self.rows() {
            if matches!(key.table(), Table::Agenda | Table::Backlog) {
                left.push(format!("{key:?}"));
            }
        }
        left
    }

    pub(super) fn rows(&self) -> Vec<(Key, bytes::Bytes)> {
        self.disk.rows(self.clock.now())
    }

    /// I9: memory stays within its bounds, at every moment of a check.
    async fn watch_bounds(self: Arc<Self>) {
        loop {
            tokio::time::sleep(Duration::from_millis(37)).await;
            let node = self.node.read().await;
            let Some(node) = &*node else { continue };
            let partitions = f64::from(PARTITIONS);
            let in_work = node.gauge("heddle_partition_in_work_records");
            assert!(in_work <= PERMITS as f64 * partitions, "seed {}: {in_work} in work", self.seed);
            // An entity at work is not retired, so there may be one more for each record in work.
            let residents = node.gauge("heddle_partition_residents");
            let most = (RESIDENTS + PERMITS + 4 + 1) as f64 * partitions;
            assert!(residents <= most, "seed {}: {residents} residents", self.seed);
        }
    }
}
