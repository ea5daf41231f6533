//! Turns that wait for a language model: their number at once, the memory of one, and their rate.
//!
//! Each conversation has one turn in a round, so that none is merged into another. Phases:
//! - `crowd`: every conversation gets its first message, and the model answers none before all wait for it: the
//!   duration of that, and the memory of a waiting turn, its conversation's actor included. Only with a model
//!   within the process.
//! - `rounds`: every conversation gets another message, as fast as they are accepted, and the model answers after its
//!   time: from the first message on until the last turn is decided, so that intake is a part of it.
//! - `half`: messages arrive at half that rate: the duration of a turn beyond its call of the model, and, if
//!   the model is called over HTTP, the duration of the call beyond the model's time.

use std::collections::HashMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_trait::async_trait;
use clap::Args;
use hdrhistogram::Histogram;
use heddle_actors::options::Options;
use heddle_actors::system::System;
use heddle_connectors::clock::SystemClock;
use heddle_connectors::responders::{Llm, llm};
use heddle_schemas::money::Money;
use heddle_schemas::ports::log::Log;
use heddle_schemas::ports::responder::{Answer, Question, Responder, ResponderError, Usage};
use heddle_schemas::ports::state::State;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{Counter, Load, Turns, cpu_seconds, resident_mib};

/// Tokens that a turn reserves and uses if no provider counts them.
const MOST: Usage = Usage { input_tokens: 400, output_tokens: 500, money: Money::ZERO };
const USED: Usage = Usage { input_tokens: 300, output_tokens: 40, money: Money::ZERO };

/// Parameters of the measurement.
#[derive(Debug, Clone, Args)]
pub struct Waiting {
    /// Turns of a round, each in a conversation of its own.
    #[arg(long, default_value_t = 20_000)]
    pub conversations: usize,
    /// Rounds.
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// Milliseconds that the model takes.
    #[arg(long, default_value_t = 500)]
    pub latency: u64,
    /// Seconds of the half-load phase.
    #[arg(long, default_value_t = 5)]
    pub seconds: u64,
    /// Partitions of the log.
    #[arg(long, default_value = "8")]
    pub partitions: NonZeroU32,
}

impl Waiting {
    fn latency(&self) -> Duration {
        Duration::from_millis(self.latency)
    }

    fn load(&self) -> Load {
        Load {
            conversations: self.conversations,
            turns: self.conversations,
            seconds: self.seconds,
            residents: None,
            partitions: self.partitions,
        }
    }

    /// Returns the `[engine]` options that let all of them wait at once, and for one tenant.
    fn options(&self) -> Options {
        let all = NonZeroUsize::new(self.conversations).unwrap_or(NonZeroUsize::MIN);
        Options { turns_per_tenant: all, woken_per_tenant: all, ..self.load().options() }
    }
}

/// The model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Model {
    /// Takes its time and answers, within the process: what is left is the engine's own.
    Sleeps,
    /// Is called over HTTP at this address, as a provider is.
    Called(String),
}

/// A model within the process.
struct Sleeps(Duration);

#[async_trait]
impl Responder for Sleeps {
    fn calls_outside(&self) -> bool {
        true
    }

    fn reads_passages(&self) -> bool {
        false
    }

    fn most(&self, _: &Question) -> Usage {
        MOST
    }

    async fn answer(&self, question: Question) -> Result<Answer, ResponderError> {
        tokio::time::sleep(self.0).await;
        Ok(Answer { usage: USED, ..Answer::text(question.messages.join("\n")) })
    }
}

/// Model that records its calls, and that answers none while the gate is closed.
struct Watched {
    model: Arc<dyn Responder>,
    open: watch::Sender<bool>,
    waiting: AtomicUsize,
    most_at_once: AtomicUsize,
    /// Duration of each turn's call.
    took: Mutex<HashMap<String, Duration>>,
}

impl Watched {
    fn took(&self) -> MutexGuard<'_, HashMap<String, Duration>> {
        self.took.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Responder for Watched {
    fn calls_outside(&self) -> bool {
        self.model.calls_outside()
    }

    fn reads_passages(&self) -> bool {
        self.model.reads_passages()
    }

    fn most(&self, question: &Question) -> Usage {
        self.model.most(question)
    }

    async fn answer(&self, question: Question) -> Result<Answer, ResponderError> {
        let waiting = self.waiting.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_at_once.fetch_max(waiting, Ordering::Relaxed);
        // The sender is a part of this, so it is there.
        let _ = self.open.subscribe().wait_for(|open| *open).await;
        let (turn, began) = (question.turn.to_string(), Instant::now());
        let answer = self.model.answer(question).await;
        self.took().insert(turn, began.elapsed());
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        answer
    }
}

/// Engine whose turns wait for a model.
pub struct WaitingTurns {
    waiting: Waiting,
    model: Model,
    turns: Arc<Turns>,
    watched: Arc<Watched>,
}

impl WaitingTurns {
    /// Opens the engine over these stores, with a tenant of its own.
    ///
    /// # Errors
    /// If the tenant cannot be stored.
    pub async fn open(
        waiting: Waiting,
        model: Model,
        log: Arc<dyn Log>,
        state: Arc<dyn State>,
        syncs: Option<Counter>,
    ) -> anyhow::Result<Self> {
        let (responder, base): (Arc<dyn Responder>, _) = match &model {
            Model::Sleeps => (Arc::new(Sleeps(waiting.latency())), "http://127.0.0.1:9"),
            Model::Called(base) => {
                let clock = Arc::new(SystemClock);
                (
                    Arc::new(Llm::new(
                        &llm::Options {
                            egress: heddle_connectors::egress::Egress::with_loopback(),
                            ..llm::Options::default()
                        },
                        state.clone(),
                        clock,
                        "bench/1".into(),
                    )?),
                    &**base,
                )
            }
        };
        let watched = Arc::new(Watched {
            model: responder,
            open: watch::Sender::new(true),
            waiting: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
            took: Mutex::default(),
        });
        // Limits that are kept account of, and never reached.
        let more = format!(
            "[llm]\nprovider = \"openai\"\nmodel = \"m\"\napi_base = \"{base}\"\napi_key = \"sk\"\n\
             requests_per_minute = {most}\ntokens_per_minute = {most}\n",
            most = u32::MAX,
        );
        let (options, load) = (waiting.options(), waiting.load());
        let turns = Turns::answered_by(watched.clone(), &more, options, load, log, state, syncs).await?;
        Ok(Self { waiting, model, turns: Arc::new(turns), watched })
    }

    /// Runs all phases.
    ///
    /// # Errors
    /// If a message gives no turn, or a store fails.
    pub async fn measure(&self) -> anyhow::Result<Value> {
        let all = self.waiting.conversations;
        // One node all along: a restart would have its own figures.
        let system = System::start(self.turns.ports.clone(), self.turns.options.clone()).await?;
        let crowd = match self.model {
            Model::Sleeps => self.crowd(0..all).await?,
            // The first message of a conversation is not part of a round.
            Model::Called(_) => self.round(0..all).await?,
        };
        let mut rounds = Vec::new();
        for round in 1..=self.waiting.rounds {
            rounds.push(self.round(all * round..all * (round + 1)).await?);
        }
        let rate = |round: &Value| round["turns_per_second"].as_f64().unwrap_or(f64::NAN);
        let mut rates: Vec<_> = rounds.iter().map(rate).collect();
        rates.sort_by(f64::total_cmp);
        let median = rates.get(rates.len() / 2).copied().context("there is no round")?;
        // A conversation does not speak again before its last turn is over.
        let most = all as f64 / (2.0 * self.waiting.latency().as_secs_f64() + 1.0);
        self.watched.took().clear();
        let called = |turn: &str| self.watched.took().get(turn).copied();
        let first = all * (self.waiting.rounds + 1);
        let mut half = self.turns.half_load_beyond(first, (median / 2.0).min(most), called).await?;
        half["call_beyond_ms"] = self.calls_beyond()?;
        system.kill().await;
        Ok(json!({
            "cores": std::thread::available_parallelism().map_or(0, NonZeroUsize::get),
            "profile": if cfg!(debug_assertions) { "dev" } else { "release" },
            "model": match self.model { Model::Sleeps => "sleeps in the process", Model::Called(_) => "called over HTTP" },
            "latency_ms": self.waiting.latency,
            "conversations": all,
            "partitions": self.waiting.partitions,
            "crowd": crowd,
            "rounds": rounds,
            "turns_per_second": median,
            "half": half,
        }))
    }

    /// Runs this number of turns to their decision.
    async fn round(&self, numbers: Range<usize>) -> anyhow::Result<Value> {
        let turns = numbers.len();
        self.watched.most_at_once.store(0, Ordering::Relaxed);
        self.watched.took().clear();
        let decided = self.turns.ports.metrics.turns();
        let (cpu, began) = (cpu_seconds(), Instant::now());
        self.turns.fill(numbers).await?;
        self.turns.decided(decided + turns as u64).await?;
        let seconds = began.elapsed().as_secs_f64();
        Ok(json!({
            "turns": turns,
            "seconds": seconds,
            "turns_per_second": (turns as f64 / seconds).round(),
            "cpu_us_per_turn": (cpu_seconds() - cpu) / turns as f64 * 1e6,
            "most_at_once": self.watched.most_at_once.load(Ordering::Relaxed),
            "call_beyond_ms": self.calls_beyond()?,
            "resident_mib": resident_mib(),
        }))
    }

    /// Lets all wait for the model at once.
    async fn crowd(&self, numbers: Range<usize>) -> anyhow::Result<Value> {
        let turns = numbers.len();
        let decided = self.turns.ports.metrics.turns();
        self.watched.open.send_replace(false);
        let (before, began) = (resident_mib(), Instant::now());
        self.turns.fill(numbers).await?;
        let all_wait = async {
            while self.watched.waiting.load(Ordering::Relaxed) < turns {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(50), all_wait).await.context("not all wait in time")?;
        let (took, resident) = (began.elapsed(), resident_mib());
        self.watched.open.send_replace(true);
        self.turns.decided(decided + turns as u64).await?;
        Ok(json!({
            "waiting_at_once": turns,
            "seconds_until_all_wait": took.as_secs_f64(),
            "resident_mib_before": before,
            "resident_mib": resident,
            "resident_kib_per_waiting_turn": resident.saturating_sub(before) as f64 * 1024.0 / turns as f64,
            "seconds_until_all_are_decided": began.elapsed().as_secs_f64(),
        }))
    }

    /// Returns the time of the model's calls beyond the model's own, in milliseconds.
    fn calls_beyond(&self) -> anyhow::Result<Value> {
        let mut beyond = Histogram::<u64>::new(3)?;
        for took in self.watched.took().values() {
            let took = took.saturating_sub(self.waiting.latency());
            beyond.record(u64::try_from(took.as_micros())?)?;
        }
        let millis = |quantile: f64| beyond.value_at_quantile(quantile) as f64 / 1000.0;
        Ok(json!({ "p50": millis(0.5), "p99": millis(0.99) }))
    }
}
