//! The whole engine's turn, on any store: filled, drained, and timed at half load.
//!
//! A message takes the real path: sealed records in inbound, partitions, conversation actors, one
//! commit a turn, the reply sealed in outbound. Left out are the settle delay, retrieval (an echo responder), and the
//! account, whose partitions are not consumed here. Phases:
//! - `cold`: each conversation speaks for the first time; actor, contact's key and head are made.
//! - `warm`: the same conversations go on, from a log that is full: the throughput.
//! - `half`: records arrive at half that rate, in conversations that are in memory; from the append's call to the
//!   reply being readable in outbound: the latency.
//!
//! [`waiting`] does the same with turns that wait for a language model.

#![expect(clippy::disallowed_methods, reason = "a measurement takes the time")]

pub mod waiting;

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_trait::async_trait;
use clap::Args;
use hdrhistogram::Histogram;
use heddle_actors::intake::gate::IntakeGate;
use heddle_actors::intake::webhook::Reception;
use heddle_actors::metrics::Metrics;
use heddle_actors::options::Options;
use heddle_actors::ports::Ports;
use heddle_actors::privacy::security::Security;
use heddle_actors::privacy::security::keys::WatchedKeys;
use heddle_actors::random::Random;
use heddle_actors::system::System;
use heddle_actors::tenant::configuration::Tenants;
use heddle_connectors::clock::SystemClock;
use heddle_connectors::keys::{Entropy as _, EnvelopeKeys, MasterKey, SystemEntropy};
use heddle_memory::{MemoryCalendar, MemoryKnowledge, ScriptedChannel};
use heddle_schemas::config;
use heddle_schemas::content::{Address, Content, Context};
use heddle_schemas::id::ChannelKind;
use heddle_schemas::ledger::Position;
use heddle_schemas::ports::channel::{Act, Channel, ChannelEvent, ReceivedMessage};
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::log::{Assignment, FetchLimit, Log, NewRecord, Record, StoreError};
use heddle_schemas::ports::responder::{Answer, Question, Responder, ResponderError, Usage};
use heddle_schemas::ports::state::State;
use heddle_schemas::record::decode;
use heddle_schemas::record::outbound::{OutboundCommand, OutboundRecord};
use heddle_schemas::tenant::Tenant;
use heddle_schemas::topic::{Epoch, Offset, Topic, TopicPartition};
use serde_json::{Value, json};

/// Webhooks that are filled in at once, and messages in one.
const WEBHOOKS: usize = 64;
const MESSAGES: usize = 50;
/// Timeout of a phase after the last record.
const PATIENCE: Duration = Duration::from_secs(90);
const TEXT: &str =
    "What are your opening hours on a public holiday that falls on a Monday? We would come by tram.";

/// Parameters of the measurement.
#[derive(Debug, Clone, Args)]
pub struct Load {
    /// Conversations.
    #[arg(long, default_value_t = 20_000)]
    pub conversations: usize,
    /// Turns of the warm phase.
    #[arg(long, default_value_t = 300_000)]
    pub turns: usize,
    /// Seconds of the half-load phase.
    #[arg(long, default_value_t = 5)]
    pub seconds: u64,
    /// Conversations that stay in memory; as many as there are, without it.
    #[arg(long)]
    pub residents: Option<std::num::NonZeroUsize>,
    /// Partitions of the log.
    #[arg(long, default_value = "8")]
    pub partitions: NonZeroU32,
}

/// Responder that answers with the customer's text.
struct Echo;

#[async_trait]
impl Responder for Echo {
    fn calls_outside(&self) -> bool {
        false
    }

    fn reads_passages(&self) -> bool {
        false
    }

    async fn answer(&self, question: Question) -> Result<Answer, ResponderError> {
        let text = Some(question.messages.join("\n"));
        Ok(Answer { text, ..Answer::none(Usage::default()) })
    }
}

/// A log of which this node works on inbound alone.
struct InboundOnly(Arc<dyn Log>);

#[async_trait]
impl Log for InboundOnly {
    fn partitions(&self, topic: Topic) -> u32 {
        self.0.partitions(topic)
    }
    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Offset>, StoreError> {
        self.0.append(records).await
    }
    async fn fetch(
        &self,
        partition: TopicPartition,
        from: Offset,
        limit: FetchLimit,
        wait: Duration,
    ) -> Result<Vec<Record>, StoreError> {
        self.0.fetch(partition, from, limit, wait).await
    }
    async fn position(&self, partition: TopicPartition) -> Result<Position, StoreError> {
        self.0.position(partition).await
    }
    async fn acknowledge(&self, partition: TopicPartition, offsets: &[Offset]) -> Result<(), StoreError> {
        self.0.acknowledge(partition, offsets).await
    }
    async fn end(&self, partition: TopicPartition) -> Result<Offset, StoreError> {
        self.0.end(partition).await
    }
    async fn assignment(&self, seen: u64) -> Result<Assignment, StoreError> {
        let mut assignment = self.0.assignment(seen).await?;
        assignment.partitions.retain(|(partition, _)| partition.topic == Topic::Inbound);
        Ok(assignment)
    }
    async fn holds(&self, partition: TopicPartition, epoch: Epoch) -> Result<(), StoreError> {
        self.0.holds(partition, epoch).await
    }
    async fn snapshot(&self, partition: TopicPartition) -> Result<(Vec<Record>, Offset), StoreError> {
        self.0.snapshot(partition).await
    }
}

/// Counts something that a phase is charged with, such as syncs.
pub type Counter = Box<dyn Fn() -> u64 + Send + Sync>;

/// An engine to measure.
pub struct Turns {
    load: Load,
    log: Arc<dyn Log>,
    /// Ports that the engine runs on.
    pub ports: Ports,
    tenant: Arc<Tenant>,
    reception: Arc<Reception>,
    syncs: Option<Counter>,
    options: Options,
}

impl Load {
    fn options(&self) -> Options {
        let partitions = self.partitions.get() as usize;
        let share =
            self.residents.and_then(|all| std::num::NonZeroUsize::new(all.get().div_ceil(partitions)));
        let residents_per_partition = share.unwrap_or(std::num::NonZeroUsize::MAX);
        Options { residents_per_partition, ..Options::default() }
    }
}

impl Turns {
    /// Opens the engine over these stores, with a tenant of its own.
    ///
    /// # Errors
    /// If the tenant cannot be stored.
    pub async fn open(
        load: Load,
        log: Arc<dyn Log>,
        state: Arc<dyn State>,
        syncs: Option<Counter>,
    ) -> anyhow::Result<Self> {
        let options = load.options();
        Self::answered_by(Arc::new(Echo), "", options, load, log, state, syncs).await
    }

    /// The same, with a responder, options and more of the tenant's file.
    async fn answered_by(
        responder: Arc<dyn Responder>,
        more: &str,
        options: Options,
        load: Load,
        log: Arc<dyn Log>,
        state: Arc<dyn State>,
        syncs: Option<Counter>,
    ) -> anyhow::Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let keys = EnvelopeKeys::new(
            state.clone(),
            clock.clone(),
            &MasterKey::generate(),
            heddle_connectors::keys::Options::default(),
        );
        let random: Random = Arc::new(|| {
            let mut bytes = [0; 16];
            SystemEntropy.key(&mut bytes);
            bytes
        });
        let metrics = Arc::new(Metrics::register(&prometheus::Registry::new()));
        let security =
            Security::new(config::Security::default(), clock.clone(), metrics.clone(), random.clone());
        // Watched, as a node's are: what that costs belongs to a turn.
        let keys = WatchedKeys::new(Arc::new(keys), security.clone());
        let ports = Ports {
            log: Arc::new(InboundOnly(log.clone())),
            state,
            keys: Arc::new(keys),
            calendar: Arc::new(MemoryCalendar::default()),
            knowledge: Arc::new(MemoryKnowledge::default()),
            responders: Arc::new(move |_| responder.clone()),
            // Its profile gives the limits of a reply; no account runs here, so nothing is sent.
            channels: Arc::new(
                [(ChannelKind::Whatsapp, Arc::new(ScriptedChannel::default()) as Arc<dyn Channel>)].into(),
            ),
            clock,
            random,
            metrics,
            security,
            versions: heddle_schemas::record::Versions::default(),
        };
        let (tenants, _) = Tenants::load(&ports, &options.region).await?;
        // A quota that is kept account of, and never reached; its customers always say the same.
        let tenant = Tenant::from_toml(&format!(
            "id = \"bench\"\nname = \"Bench\"\n[agent]\nsettle = \"0s\"\nloop_guard.rounds = 0\n[[channels]]\nkind = \"whatsapp\"\n\
             account = \"1\"\naccess_token = \"a\"\napp_secret = \"b\"\nverify_token = \"c\"\n\
             [quota]\nmessages_per_month = 1000000000000\ntokens_per_month = 1000000000000\n{more}",
        ))?;
        let tenant = tenants.apply(tenant).await?;
        let reception = Arc::new(Reception::new(ports.clone(), IntakeGate::new(ports.clock.clone())));
        Ok(Self { load, log, ports, tenant, reception, syncs, options })
    }

    fn syncs(&self) -> u64 {
        self.syncs.as_ref().map_or(0, |syncs| syncs())
    }

    fn message(&self, number: usize) -> ChannelEvent {
        let customer = number % self.load.conversations;
        ChannelEvent::Message(ReceivedMessage {
            account: self.tenant.channels[0].account.clone(),
            id: format!("wamid.{number}"),
            from: Address { phone: Some(format!("1555{customer:08}")), ..Address::default() },
            sent_at: self.ports.clock.now(),
            act: Act::Say(Content::Text { body: TEXT.into() }),
            context: Context::default(),
        })
    }

    /// Takes messages in, as webhooks would bring them.
    async fn fill(self: &Arc<Self>, numbers: std::ops::Range<usize>) -> anyhow::Result<()> {
        let bodies: Vec<_> = numbers.clone().step_by(MESSAGES).collect();
        let mut filling = tokio::task::JoinSet::new();
        for body in bodies {
            if filling.len() >= WEBHOOKS {
                filling.join_next().await.expect("some are under way")??;
            }
            let (this, end) = (self.clone(), (body + MESSAGES).min(numbers.end));
            filling.spawn(async move {
                let events = (body..end).map(|number| this.message(number)).collect();
                this.reception.accept(ChannelKind::Whatsapp, &this.tenant, events).await
            });
        }
        while let Some(filled) = filling.join_next().await {
            filled??;
        }
        Ok(())
    }

    fn inbound(&self) -> impl Iterator<Item = TopicPartition> {
        (0..self.load.partitions.get()).map(|partition| TopicPartition { topic: Topic::Inbound, partition })
    }

    /// Reads the end of a partition. A topic that was just made may have no leader for a moment.
    async fn end(&self, partition: TopicPartition) -> anyhow::Result<u64> {
        for _ in 0..100 {
            match self.log.end(partition).await {
                Err(error) if error.is_transient() => tokio::time::sleep(Duration::from_millis(100)).await,
                end => return Ok(end?),
            }
        }
        Ok(self.log.end(partition).await?)
    }

    async fn ends(&self, topic: Topic) -> anyhow::Result<u64> {
        let mut ends = 0;
        for partition in 0..self.log.partitions(topic) {
            ends += self.end(TopicPartition { topic, partition }).await?;
        }
        Ok(ends)
    }

    /// Waits until everything in inbound is settled.
    async fn drain(&self) -> anyhow::Result<()> {
        for partition in self.inbound() {
            loop {
                let end = self.end(partition).await?;
                if self.log.position(partition).await?.next >= end {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        Ok(())
    }

    /// Waits until this number of turns is decided, counted from the start of the process: a turn that waits for a
    /// responder is settled in inbound before.
    async fn decided(&self, turns: u64) -> anyhow::Result<()> {
        let decided = async {
            while self.ports.metrics.turns() < turns {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(PATIENCE, decided).await.context("turns are missing")
    }

    /// Runs this number of turns, a message each, in new conversations: it shows what a turn writes.
    ///
    /// # Errors
    /// As [`Turns::measure`].
    pub async fn try_out(self: &Arc<Self>, turns: usize) -> anyhow::Result<()> {
        anyhow::ensure!(turns <= self.load.conversations, "there are fewer conversations than that");
        self.work_off(0..turns).await.map(drop)
    }

    /// Runs all phases.
    ///
    /// # Errors
    /// If a message gives no turn, or a store fails.
    pub async fn measure(self: &Arc<Self>) -> anyhow::Result<Value> {
        let Load { conversations, turns, partitions, .. } = self.load;
        // The trial turns before have other numbers.
        let first = conversations;
        let warm_from = first + conversations;
        let cold = self.work_off(first..warm_from).await?;
        let warm = self.work_off(warm_from..warm_from + turns).await?;
        let rate = warm["turns_per_second"].as_f64().unwrap_or(1.0) / 2.0;
        let half = self.half_load(warm_from + turns, rate).await?;
        Ok(json!({
            "cores": std::thread::available_parallelism().map_or(0, std::num::NonZeroUsize::get),
            "profile": if cfg!(debug_assertions) { "dev" } else { "release" },
            "conversations": conversations,
            "partitions": partitions,
            "cold": cold,
            "warm": warm,
            "half": half,
        }))
    }

    /// Fills the log, then lets the engine work it off.
    async fn work_off(self: &Arc<Self>, numbers: std::ops::Range<usize>) -> anyhow::Result<Value> {
        let turns = numbers.len();
        let began = Instant::now();
        self.fill(numbers).await?;
        self.work(turns, began.elapsed()).await
    }

    /// Lets the engine drain this number of turns, which were filled in within the given time.
    async fn work(self: &Arc<Self>, turns: usize, filling: Duration) -> anyhow::Result<Value> {
        let (outputs, syncs) = (self.ends(Topic::Outbound).await?, self.syncs());
        let decided = self.ports.metrics.turns();
        let (cpu, began) = (cpu_seconds(), Instant::now());
        let system = System::start(self.ports.clone(), self.options.clone()).await?;
        self.drain().await?;
        self.decided(decided + turns as u64).await?;
        let took = began.elapsed();
        let cpu = cpu_seconds() - cpu;
        let replies = self.ends(Topic::Outbound).await? - outputs;
        let decided = self.ports.metrics.turns() - decided;
        anyhow::ensure!(decided == turns as u64, "{turns} messages gave {decided} turns");
        // No account reports to a conversation that its last reply has left, so a conversation that resumes after a
        // restart publishes that reply once more, marked as such.
        let again = replies.checked_sub(decided).context("there are fewer replies than turns")?;
        let syncs = self.syncs() - syncs;
        // Only a store that counts its syncs has a figure of them.
        let a_sync = self.syncs.as_ref().map(|_| turns as f64 / syncs.max(1) as f64);
        system.kill().await;
        let a_second = |took: Duration| (turns as f64 / took.as_secs_f64()).round();
        Ok(json!({
            "turns": turns,
            "seconds": took.as_secs_f64(),
            "turns_per_second": a_second(took),
            "cpu_us_per_turn": cpu / turns as f64 * 1e6,
            "turns_per_sync": a_sync,
            "published_again": again,
            "resident_mib": resident_mib(),
            "taken_in_per_second": a_second(filling),
        }))
    }

    /// Lets messages arrive at a rate, and takes the time from each one's arrival to its reply.
    async fn half_load(self: &Arc<Self>, first: usize, a_second: f64) -> anyhow::Result<Value> {
        let system = System::start(self.ports.clone(), self.options.clone()).await?;
        let half = self.half_load_beyond(first, a_second, |_| Some(Duration::ZERO)).await?;
        system.kill().await;
        Ok(half)
    }

    /// The same with a node that runs, of the time beyond what `called` says that a turn's call to the outside took.
    async fn half_load_beyond(
        self: &Arc<Self>,
        first: usize,
        a_second: f64,
        called: impl Fn(&str) -> Option<Duration>,
    ) -> anyhow::Result<Value> {
        // Every conversation is in memory before the time counts: the figure is for a node that goes on, not
        // for one that has just started.
        let loaded = first + self.load.conversations;
        let decided = self.ports.metrics.turns();
        self.fill(first..loaded).await?;
        self.drain().await?;
        self.decided(decided + self.load.conversations as u64).await?;
        let first = loaded;
        let seen: Arc<Mutex<HashMap<String, Instant>>> = Arc::default();
        let mut tailing = tokio::task::JoinSet::new();
        for partition in 0..self.log.partitions(Topic::Outbound) {
            let partition = TopicPartition { topic: Topic::Outbound, partition };
            let (this, seen) = (self.clone(), seen.clone());
            let mut next = this.log.end(partition).await?;
            tailing.spawn(async move {
                let limit = FetchLimit { records: 1024, bytes: 4 << 20 };
                while let Ok(records) = this.log.fetch(partition, next, limit, Duration::from_secs(1)).await {
                    let now = Instant::now();
                    for record in records {
                        next = record.offset + 1;
                        if let Ok(OutboundRecord { command: OutboundCommand::Send(send), .. }) =
                            decode(&record.value)
                        {
                            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                            seen.insert(send.id.cause.to_string(), now);
                        }
                    }
                }
            });
        }
        // Bursts of a millisecond: a timer is no finer.
        let burst = (a_second / 1000.0).max(1.0) as usize;
        let pause = Duration::from_secs_f64(burst as f64 / a_second);
        let cipher = self.ports.keys.tenant(&self.tenant.id).await?;
        let account = format!("{}/whatsapp/1", self.tenant.id);
        let (began, mut number, mut sent) = (Instant::now(), first, Vec::new());
        let mut arriving = tokio::task::JoinSet::new();
        let mut ticks = tokio::time::interval(pause);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
        while began.elapsed() < Duration::from_secs(self.load.seconds) {
            ticks.tick().await;
            let at = Instant::now();
            let events = (number..number + burst).map(|number| self.message(number)).collect();
            for number in number..number + burst {
                let turn = cipher.hash("message", format!("{account}/wamid.{number}").as_bytes());
                sent.push((turn.to_string(), at));
            }
            number += burst;
            let this = self.clone();
            arriving.spawn(async move {
                this.reception.accept(ChannelKind::Whatsapp, &this.tenant, events).await
            });
            while let Some(arrived) = arriving.try_join_next() {
                arrived??;
            }
        }
        while let Some(arrived) = arriving.join_next().await {
            arrived??;
        }
        let offered = sent.len() as f64 / began.elapsed().as_secs_f64();
        self.drain().await?;
        self.decided(decided + (self.load.conversations + number - first) as u64).await?;
        tokio::time::sleep(Duration::from_millis(100)).await;
        tailing.abort_all();
        let mut latency = Histogram::<u64>::new(3)?;
        let seen = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
        for (turn, at) in &sent {
            let replied = seen.get(turn).ok_or_else(|| anyhow::anyhow!("a turn has no reply"))?;
            let called = called(turn).context("a turn has no call")?;
            let beyond = replied.saturating_duration_since(*at).saturating_sub(called);
            latency.record(u64::try_from(beyond.as_micros())?)?;
        }
        let millis = |quantile: f64| latency.value_at_quantile(quantile) as f64 / 1000.0;
        Ok(json!({
            "turns": sent.len(),
            "turns_per_second": offered.round(),
            "p50_ms": millis(0.5),
            "p99_ms": millis(0.99),
            "p999_ms": millis(0.999),
        }))
    }
}

/// Processor time of this process so far (getrusage(2)).
fn cpu_seconds() -> f64 {
    let usage = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields 14 and 15, counted from after the name, in ticks of 10 ms (proc(5)).
    let fields: Vec<_> = usage.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |field: usize| fields.get(field).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

/// Returns the process's resident memory (proc(5)).
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}
