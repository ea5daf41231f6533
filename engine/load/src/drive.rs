//! Driver of a load run: prepares the engine, sends the messages that are due, records the replies, waits for
//! those that are missing.
//!
//! A dedicated thread composes the messages and sleeps until the next is due: the async runtime's timers have a
//! resolution of a millisecond, which would be measured as the engine's latency.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use heddle_connectors::keys::{Entropy as _, SystemEntropy};
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::time::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::Error;
use crate::choice::Choice;
use crate::fixture::Fixture;
use crate::ingress::Ingress;
use crate::options::{Options, Pace, Until};
use crate::parcel::{Outgoing, Parcel};
use crate::report::{Report, Times};
use crate::schedule::Schedule;
use crate::tally::Tally;
use heddle_simulator::dice::Dice;
use heddle_simulator::graph::{self, GraphApi};
use heddle_simulator::ledger::Taken;
use heddle_simulator::limits::Limits;
use heddle_simulator::operator::Operator;
use heddle_simulator::wamid;

/// Number of tenants applied concurrently.
const APPLIED_AT_ONCE: usize = 8;
/// Longest sleep between two checks for a stop.
const NAP: Duration = Duration::from_millis(100);
/// Maximum number of tries to find a free conversation.
const TRIES: usize = 128;
/// Time to watch for a second reply after the last message.
const LINGER: Duration = Duration::from_millis(500);

/// Requested end of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// The end set by the options.
    Whole,
    /// Sends no more, and waits for replies.
    NoMore,
    /// Ends without waiting.
    Over,
}

/// Progress of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Time since the first message was due.
    pub elapsed: Duration,
    /// Messages sent.
    pub sent: u64,
    /// Messages accepted.
    pub accepted: u64,
    /// Messages replied to.
    pub replied: u64,
    /// Messages refused.
    pub refused: u64,
}

/// Load run against a node.
pub struct Load {
    options: Options,
    fixture: Fixture,
    clock: Arc<dyn Clock>,
    graph: GraphApi,
    way: Ingress,
    ids: Dice,
    account: Arc<Account>,
    connections: Arc<Semaphore>,
    phase: watch::Sender<Phase>,
    start: AtomicU64,
}

/// Tally of the run, and permits of the customers who may ask next.
struct Account {
    tally: Mutex<Tally>,
    customers: Semaphore,
}

impl Account {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, fixture: &Fixture, taken: &Taken) {
        let Some(conversation) = fixture.conversation(&taken.account, &taken.to) else {
            return self.tally().unknown_recipient();
        };
        let freed = self.tally().reply(conversation, fixture.things(&taken.text), taken.at);
        self.customers.add_permits(freed);
    }
}

impl Load {
    /// Starts the simulated API. `base` is the node's address; messages go there unless the options name another
    /// ingress.
    ///
    /// # Errors
    /// When the options are wrong, or the API cannot listen.
    pub async fn start(base: &str, options: Options, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        options.validate().map_err(Error::Options)?;
        // Two runs share an id only if they start a multiple of 2^24 us (16 s) apart, to the microsecond.
        let moment = clock.now().as_micros().unsigned_abs();
        let mut salt = [0; 32];
        SystemEntropy.key(&mut salt);
        let fixture = Fixture::new(&options, moment, salt);
        let way = Ingress::new(&options, &fixture, base)?;
        let graph = provider(&options, &fixture, clock.clone()).await?;
        let customers = match options.pace {
            Pace::Rate(_) => 0,
            Pace::Max { in_flight } => in_flight.get() as usize,
        };
        let account = Arc::new(Account {
            tally: Mutex::new(Tally::new(fixture.conversations(), options.most_open())),
            customers: Semaphore::new(customers),
        });
        Ok(Self {
            ids: Dice::new(moment, 4),
            connections: Arc::new(Semaphore::new(options.connections.get() as usize)),
            phase: watch::Sender::new(Phase::Whole),
            start: AtomicU64::new(0),
            way,
            options,
            fixture,
            clock,
            graph,
            account,
        })
    }

    /// Applies the tenants with their document to the node, and records replies from then on.
    ///
    /// # Errors
    /// When the node refuses them.
    pub async fn prepare<O: Operator>(&self, operator: &O) -> Result<(), O::Error> {
        let api_base = self.graph.api_base();
        stream::iter(0..self.options.tenants.get())
            .map(|tenant| {
                let tenant = self.fixture.tenant(tenant, &api_base, &self.options);
                async {
                    let id = tenant.id.clone();
                    operator.apply(tenant).await?;
                    operator.add(&id, self.fixture.document()).await
                }
            })
            .buffer_unordered(APPLIED_AT_ONCE)
            .try_collect::<()>()
            .await?;
        let (listening, players) = (self.account.clone(), self.fixture.clone());
        self.graph.on_taken(move |taken| listening.hear(&players, taken));
        Ok(())
    }

    /// Deletes the tenants of this run from the node.
    ///
    /// # Errors
    /// When the node refuses it.
    pub async fn remove<O: Operator>(&self, operator: &O) -> Result<(), O::Error> {
        let ids = (0..self.options.tenants.get()).map(|tenant| self.fixture.tenant_id(tenant));
        stream::iter(ids)
            .map(|id| async move { operator.remove(&id).await })
            .buffer_unordered(APPLIED_AT_ONCE)
            .try_collect::<()>()
            .await
    }

    /// Returns the options.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Returns the base address of the simulated API.
    #[must_use]
    pub fn graph_api(&self) -> String {
        self.graph.api_base()
    }

    /// Returns a warning for each channel limit that this run would measure, where its rate is known in advance.
    #[must_use]
    pub fn cautions(&self) -> Vec<String> {
        let Pace::Rate(rate) = self.options.pace else { return Vec::new() };
        let rate = f64::from(rate.get());
        let seconds = match self.options.until {
            Until::Duration(duration) => duration.as_secs_f64(),
            Until::Messages(messages) => messages.get() as f64 / rate,
        };
        self.options.cautions(&self.choice(), rate, seconds)
    }

    /// Returns the progress.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let start = Duration::from_nanos(self.start.load(Ordering::Relaxed));
        let elapsed = if start.is_zero() { start } else { self.clock.elapsed().saturating_sub(start) };
        let tally = self.account.tally();
        let counts = tally.counts();
        Progress {
            elapsed,
            sent: counts.sent,
            accepted: counts.accepted,
            replied: counts.answered,
            refused: counts.refused,
        }
    }

    /// Stops sending; a second call also stops waiting for replies.
    pub fn stop(&self) {
        self.phase.send_modify(|phase| {
            *phase = if *phase == Phase::Whole { Phase::NoMore } else { Phase::Over };
        });
    }

    /// Runs the load to its end. To be called once: a second run would find the counts of the first.
    ///
    /// # Errors
    /// When the sending thread panics.
    pub async fn run(self: &Arc<Self>) -> Result<Report, Error> {
        let sender = self.clone();
        let handle = Handle::current();
        let sending = tokio::task::spawn_blocking(move || sender.send_all(&handle));
        let times = sending.await.map_err(Error::Sender)?;
        let mut phase = self.phase.subscribe();
        tokio::select! {
            // Fails only without a sender, and `self` holds it.
            _ = phase.wait_for(|phase| *phase == Phase::Over) => {}
            () = self.settle() => {}
        }
        let seconds = times.sent.saturating_sub(times.start).as_secs_f64();
        let tally = self.account.tally();
        let rate = if seconds > 0.0 { tally.counts().sent as f64 / seconds } else { 0.0 };
        let cautions = self.options.cautions(&self.choice(), rate, seconds);
        Ok(Report::of(&self.options, &tally, times, self.graph.counts(), cautions))
    }

    fn choice(&self) -> Choice {
        let Options { conversations, tenants, skew, seed, .. } = &self.options;
        Choice::new(conversations.get(), tenants.get(), *skew, *seed)
    }

    /// Waits until every body is answered, and every reply has arrived or timed out.
    async fn settle(&self) {
        // Fails only on a closed semaphore, and this one is never closed.
        let _ = self.connections.acquire_many(self.options.connections.get()).await;
        let end = self.clock.elapsed() + self.options.wait;
        while self.account.tally().open() > 0 && self.clock.elapsed() < end {
            tokio::time::sleep(NAP / 10).await;
        }
        tokio::time::sleep(LINGER).await;
    }

    /// Sends all messages. Runs on a blocking thread.
    fn send_all(self: Arc<Self>, handle: &Handle) -> Times {
        let mut choice = self.choice();
        let start = self.clock.elapsed();
        self.start.store(u64::try_from(start.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let (end, messages) = match self.options.until {
            Until::Duration(duration) => (start + duration, u64::MAX),
            Until::Messages(messages) => (Duration::MAX, messages.get()),
        };
        let batch = self.options.batch.get();
        let mut left = messages;
        for body in 0.. {
            let size = u32::try_from(left).unwrap_or(u32::MAX).min(batch);
            if size == 0 {
                break;
            }
            let Some((due, connection)) = self.next(handle, start, end, body, size) else { break };
            let parcel = self.compose(&mut choice, due, size, end);
            let is_whole = parcel.messages.len() == size as usize;
            if !parcel.messages.is_empty() {
                handle.spawn(self.clone().post(parcel, due, connection));
            }
            if !is_whole {
                break;
            }
            left -= u64::from(size);
        }
        let sent = self.clock.elapsed();
        Times { start, sent, unsent: self.unsent(sent.saturating_sub(start)) }
    }

    /// Returns the number of messages that were due but not sent when the time was over or the run was stopped.
    fn unsent(&self, ran: Duration) -> u64 {
        match (self.options.pace, self.options.until) {
            (Pace::Rate(rate), Until::Duration(duration)) => {
                let schedule = Schedule::new(rate, self.options.batch);
                let due = schedule.due_before(ran.min(duration)) * u64::from(self.options.batch.get());
                due.saturating_sub(self.account.tally().counts().sent)
            }
            _ => 0,
        }
    }

    /// Waits until the next body may be sent. Returns its due time, or `None` when no time is left.
    fn next(
        &self,
        handle: &Handle,
        start: Duration,
        end: Duration,
        body: u64,
        size: u32,
    ) -> Option<(Duration, OwnedSemaphorePermit)> {
        let due = match self.options.pace {
            Pace::Rate(rate) => {
                let due = start + Schedule::new(rate, self.options.batch).due(body);
                if due >= end {
                    return None;
                }
                self.sleep_until(due).then_some(due)?
            }
            Pace::Max { .. } => self.await_customers(handle, end, size).then(|| self.clock.elapsed())?,
        };
        if let Ok(connection) = self.connections.clone().try_acquire_owned() {
            return Some((due, connection));
        }
        while self.goes_on(end) {
            let waiting = tokio::time::timeout(NAP, self.connections.clone().acquire_owned());
            if let Ok(Ok(connection)) = handle.block_on(waiting) {
                return Some((due, connection));
            }
        }
        None
    }

    fn goes_on(&self, end: Duration) -> bool {
        *self.phase.borrow() == Phase::Whole && self.clock.elapsed() < end
    }

    /// Sleeps until `due`. Returns false if the run was stopped before.
    fn sleep_until(&self, due: Duration) -> bool {
        while *self.phase.borrow() == Phase::Whole {
            match due.checked_sub(self.clock.elapsed()).filter(|wait| !wait.is_zero()) {
                Some(wait) => std::thread::sleep(wait.min(NAP)),
                None => return true,
            }
        }
        false
    }

    /// Waits until `size` customers may ask. Returns false at the end of the run.
    fn await_customers(&self, handle: &Handle, end: Duration, size: u32) -> bool {
        while self.goes_on(end) {
            let free = async { tokio::time::timeout(NAP, self.account.customers.acquire_many(size)).await };
            if let Ok(Ok(customers)) = handle.block_on(free) {
                customers.forget();
                return true;
            }
            let since = self.clock.elapsed().saturating_sub(self.options.wait);
            let freed = self.account.tally().give_up(since);
            self.account.customers.add_permits(freed);
        }
        false
    }

    /// Composes a body of `size` messages to one tenant; of fewer when no conversation is free and the time is over, or
    /// none has become free within the reply timeout.
    fn compose(&self, choice: &mut Choice, due: Duration, size: u32, end: Duration) -> Parcel {
        let waited_for = matches!(self.options.pace, Pace::Max { .. });
        let written_at = Timestamp::from_secs(self.clock.now().as_micros() / 1_000_000);
        let patience = self.clock.elapsed() + self.options.wait;
        let first = choice.any();
        let tenant = self.fixture.tenant_of(first);
        let mut messages = Vec::with_capacity(size as usize);
        self.account.tally().begin_body();
        while messages.len() < size as usize {
            let drawn = if messages.is_empty() { first } else { choice.beside(first) };
            let sent = {
                let mut tally = self.account.tally();
                free(&tally, choice, drawn).map(|conversation| tally.send(conversation, due, waited_for))
            };
            match sent {
                Some(sent) => {
                    let id = wamid::new(&Fixture::phone(sent.conversation), wamid::From::Customer, &self.ids);
                    messages.push(Outgoing { sent, id, written_at });
                }
                // Every conversation tried has its maximum of open messages.
                None if self.goes_on(end) && self.clock.elapsed() < patience => std::thread::sleep(NAP / 100),
                None => break,
            }
        }
        if self.options.enforce_limits {
            let account = self.fixture.account(tenant);
            messages.iter().for_each(|_| self.graph.count_in(&account));
        }
        Parcel { tenant, messages }
    }

    async fn post(self: Arc<Self>, parcel: Parcel, due: Duration, connection: OwnedSemaphorePermit) {
        let result = self.way.send(&parcel).await;
        let latency = self.clock.elapsed().saturating_sub(due);
        let freed = match result {
            Ok(answer) => {
                self.account.tally().accepted(parcel.sent(), answer, latency);
                0
            }
            Err(why) => self.account.tally().refused(parcel.sent(), why),
        };
        self.account.customers.add_permits(freed);
        drop(connection);
    }
}

/// Returns the drawn conversation, or the next one of its tenant that may have another message.
fn free(tally: &Tally, choice: &Choice, drawn: u32) -> Option<u32> {
    let mut conversation = drawn;
    for _ in 0..TRIES {
        if !tally.is_full(conversation) {
            return Some(conversation);
        }
        conversation = choice.after(conversation);
    }
    None
}

async fn provider(options: &Options, fixture: &Fixture, clock: Arc<dyn Clock>) -> Result<GraphApi, Error> {
    let tokens =
        (0..options.tenants.get()).map(|tenant| (fixture.account(tenant), fixture.secret("token", tenant)));
    let limits = Limits { per_second: options.per_number, ..Limits::default() };
    let graph = graph::Options {
        listen: options.graph_listen,
        numbers: tokens.collect(),
        limits: options.enforce_limits.then_some(limits),
        keeps_taken: false,
        seed: options.seed,
        ..graph::Options::default()
    };
    Ok(GraphApi::start(graph, clock).await?)
}
