//! The account actor: the only sender of a channel account.
//!
//! Contract: messages of one conversation leave strictly in the order they were decided, the next one
//! only when the one before is settled; conversations do not wait for each other. The account's limits
//! are kept ([`pacing`]), passing trouble pauses it ([`breaker`]), and a token that is refused stops it
//! until the tenant is configured anew or a probe comes through. What does not fit into memory, or waits
//! for a stopped account, is moved to the account's backlog in the state store and acknowledged, so one
//! account never holds up the others of its partition.
//!
//! A send whose outcome nobody knows ([`send`]) holds its own conversation only. A status that carries
//! its id settles it. When none has come for the wait (which counts only while webhooks are taken in and
//! the partition is read to its end), a reply is sent again and a campaign's message is given up.
//!
//! Everything that waits is in rows that the account finds again when it starts, and an agenda row wakes
//! it: the account itself may leave memory or die at any moment.

pub mod breaker;
pub mod pacing;
pub mod queue;
pub mod send;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use heddle_schemas::id::{AccountKey, OutboundId};
use heddle_schemas::ports::channel::{Access, Channel, FailureClass, SendError};
use heddle_schemas::ports::log::{NewRecord, Record};
use heddle_schemas::ports::state::{Batch, Scan, StoreError, Write};
use heddle_schemas::record::dlq::DeadReason;
use heddle_schemas::record::event::{Event, EventRecord, Resolution};
use heddle_schemas::record::inbound::{DeliveryReport, DeliveryStatus, InboundEvent, InboundRecord};
use heddle_schemas::record::outbound::{OutboundCommand, OutboundRecord, Purpose, SendCommand};
use heddle_schemas::record::{RecordError, V, decode, encode};
use heddle_schemas::table::{BACKLOG_QUEUED, Key, Partition};
use heddle_schemas::tenant::{ChannelAccount, Tenant};
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Offset, Topic};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, ActorRuntime, SpawnErr};
use tokio::task::JoinSet;

use self::breaker::Breaker;
use self::pacing::{Pace, Pairs};
use self::queue::Queue;
use self::send::{Ended, Item, Journal, Origin, Send};
use crate::agenda::Entry;
use crate::commit::{commit, read};
use crate::partition::{Home, PartitionMessage, Receipt, Resident, Timer};
use crate::ports::Context;
use crate::publish;

/// Unknown sends that one account reads when it starts; it is never more than what was under way.
const UNKNOWN_READ: usize = 100_000;
/// Rows of the backlog that are counted at once when it starts.
const COUNTED_AT_ONCE: usize = 1024;
/// The pause after the first passing failure of a message, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(60));
/// How often an account looks whether an unknown send has been waited for long enough.
const UNKNOWN_LOOK: Duration = Duration::from_secs(1);
/// How long a message may keep its record in work before it is moved to the backlog.
const PATIENCE: Duration = Duration::from_secs(1);

/// Accounts, as residents of outbound's partitions.
#[derive(Clone)]
pub struct Accounts {
    /// What they need of the node.
    pub context: Context,
}

/// What an account is sent.
pub enum AccountMessage {
    /// A record, with its receipt.
    Deliver(Box<OutboundRecord>, Box<Receipt>),
    /// An agenda row of it is due.
    Wake(Entry<AccountKey>),
    /// Everything that was in the log when it was last asked has been given to it.
    Passed,
    /// Some tenant's configuration has changed.
    Reconfigured,
    /// A send has ended.
    Ended(Box<Result<(Item, Ended), StoreError>>),
    /// So many messages that were being written into the backlog are there.
    Spilled(Result<usize, StoreError>),
    /// Something that waited for time may go on.
    Look,
}

impl Resident for Accounts {
    type Key = AccountKey;
    type Item = Box<OutboundRecord>;
    type Message = AccountMessage;

    const TOPIC: Topic = Topic::Outbound;

    fn decode(record: &Record) -> Result<(AccountKey, Box<OutboundRecord>), RecordError> {
        let record: Box<OutboundRecord> = decode(&record.value)?;
        Ok((record.conversation.account(), record))
    }

    fn deliver(item: Box<OutboundRecord>, receipt: Receipt) -> AccountMessage {
        AccountMessage::Deliver(item, Box::new(receipt))
    }

    fn wake(entry: Entry<AccountKey>) -> AccountMessage {
        AccountMessage::Wake(entry)
    }

    fn passed(_: Offset) -> Option<AccountMessage> {
        Some(AccountMessage::Passed)
    }

    fn reconfigured() -> Option<AccountMessage> {
        Some(AccountMessage::Reconfigured)
    }

    fn spawn(
        &self,
        key: AccountKey,
        home: Home<AccountKey>,
        supervisor: ActorCell,
    ) -> Result<ActorRef<AccountMessage>, SpawnErr> {
        let actor = Account { key, home, context: self.context.clone() };
        ActorRuntime::spawn_linked_instant(None, actor, (), supervisor).map(|(actor, _)| actor)
    }
}

/// The actor of one account.
struct Account {
    key: AccountKey,
    home: Home<AccountKey>,
    context: Context,
}

/// Why an account does not send.
struct Stopped {
    /// The token that was refused; another one starts the account.
    token: heddle_schemas::sealed::Secret,
    /// When one message is tried.
    probe_at: Duration,
}

/// A send of unknown outcome.
struct Unknown {
    item: OutboundRecord,
    stored: Bytes,
    /// How long webhooks had been taken in when the wait began.
    since: Duration,
}

/// The part of the backlog that is not in memory. A row's number is the offset of its record, so the
/// backlog is in the order of the log, whenever a row was written.
#[derive(Default)]
struct Backlog {
    /// Rows before it are in memory or gone.
    next_read: u64,
    /// Rows from it on have not been written yet.
    end: u64,
    /// What the next write will bring.
    spilling: Vec<Item>,
    /// From which row on a write is under way.
    writing: Option<u64>,
    /// How many rows there are, read or not: what operators see.
    rows: i64,
}

impl Backlog {
    /// Whether rows wait to be read, or to be written.
    fn is_empty(&self) -> bool {
        self.next_read >= self.end && self.spilling.is_empty()
    }

    /// The rows that may be read now.
    fn readable(&self) -> std::ops::Range<u64> {
        self.next_read..self.writing.unwrap_or(self.end)
    }
}

/// What it holds in memory.
struct AccountState {
    loaded: bool,
    queue: Queue<Item>,
    backlog: Backlog,
    unknown: BTreeMap<OutboundId, Unknown>,
    /// Those of them that have been waited for long enough, while the log is being read to its end.
    overdue: Vec<OutboundId>,
    /// Messages under way or waiting in memory, and how often.
    active: BTreeMap<OutboundId, u32>,
    /// Whether every record that was in the log when the partition was taken over has come by: until
    /// then, one that belongs before the backlog's rows may still come.
    caught_up: bool,
    /// The agenda row that keeps this account awake while something waits.
    row: Option<Timestamp>,
    pace: Pace,
    pairs: Pairs,
    breaker: Breaker,
    stopped: Option<Stopped>,
    /// Stopped before, and nothing has come through since.
    proving: bool,
    sends: JoinSet<()>,
    look: Option<(Duration, Timer<AccountMessage>)>,
    handled: u64,
}

impl AccountState {
    /// Whether nothing would be lost by leaving memory now.
    fn is_idle(&self) -> bool {
        self.queue.is_empty()
            && self.sends.is_empty()
            && self.backlog.spilling.is_empty()
            && self.unknown.is_empty()
            && self.stopped.is_none()
    }

    /// Whether anything is kept in rows that only this account finds again. What is under way counts: its
    /// backlog row stays until it is settled, and without an agenda row a crash would leave it lying.
    fn waits(&self) -> bool {
        !self.active.is_empty() || !self.backlog.is_empty() || !self.unknown.is_empty()
    }

    fn push(&mut self, item: Item) {
        *self.active.entry(item.command.id).or_default() += 1;
        self.queue.push(item.contact(), item);
    }

    fn left(&mut self, outbound: OutboundId) {
        if let Some(count) = self.active.get_mut(&outbound) {
            *count -= 1;
            if *count == 0 {
                self.active.remove(&outbound);
            }
        }
    }
}

impl Actor for Account {
    type Msg = AccountMessage;
    type State = AccountState;
    type Arguments = ();

    async fn pre_start(
        &self,
        _: ActorRef<AccountMessage>,
        (): (),
    ) -> Result<AccountState, ActorProcessingErr> {
        let now = self.context.ports.clock.elapsed();
        Ok(AccountState {
            loaded: false,
            queue: Queue::default(),
            backlog: Backlog::default(),
            unknown: BTreeMap::new(),
            overdue: Vec::new(),
            active: BTreeMap::new(),
            caught_up: false,
            row: None,
            pace: Pace::new(const { std::num::NonZeroU32::new(1).unwrap() }, now),
            pairs: Pairs::default(),
            breaker: Breaker::default(),
            stopped: None,
            proving: false,
            sends: JoinSet::new(),
            look: None,
            handled: 0,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<AccountMessage>,
        message: AccountMessage,
        state: &mut AccountState,
    ) -> Result<(), ActorProcessingErr> {
        self.load(state).await?;
        match message {
            AccountMessage::Deliver(record, receipt) => {
                state.handled += 1;
                self.deliver(&myself, state, *record, *receipt).await?;
            }
            AccountMessage::Wake(entry) => {
                state.handled += 1;
                self.wake(state, entry).await?;
            }
            AccountMessage::Passed => {
                state.handled += 1;
                self.give_up_waiting(state).await?;
            }
            AccountMessage::Reconfigured => {
                state.handled += 1;
                self.reconfigured(state).await?;
            }
            AccountMessage::Ended(ended) => self.ended(state, *ended).await?,
            AccountMessage::Spilled(written) => {
                self.rows_changed(state, rows(written?));
                state.backlog.writing = None;
                self.spill(&myself, state);
            }
            AccountMessage::Look => state.look = None,
        }
        self.pump(&myself, state).await?;
        if state.is_idle() {
            self.home.idle.finished(state.handled);
        }
        Ok(())
    }

    async fn post_stop(
        &self,
        _: ActorRef<AccountMessage>,
        state: &mut AccountState,
    ) -> Result<(), ActorProcessingErr> {
        if let Some((_, look)) = state.look.take() {
            look.abort();
        }
        if state.stopped.is_some() {
            self.context.ports.metrics.stopped(-1);
        }
        self.rows_changed(state, -state.backlog.rows);
        Ok(())
    }
}

impl Account {
    fn tenant(&self) -> Option<Arc<Tenant>> {
        self.context.tenants.get(&self.key.tenant)
    }

    fn config<'a>(&self, tenant: &'a Tenant) -> Option<&'a ChannelAccount> {
        tenant.channel(self.key.channel, &self.key.account)
    }

    /// Finds what waited when the account last left memory.
    async fn load(&self, state: &mut AccountState) -> Result<(), StoreError> {
        if state.loaded {
            return Ok(());
        }
        let ports = &self.context.ports;
        let backlog = Partition::backlog(&self.key);
        let queued = Bytes::from_static(&[BACKLOG_QUEUED]);
        let unknown = Scan { to: Some(queued.clone()), ..Scan::first(backlog.clone(), UNKNOWN_READ) };
        let since = self.context.way_in.open_for();
        for (_, stored) in read(&ports.metrics, || ports.state.scan(&unknown)).await? {
            let Ok(item) = decode::<OutboundRecord>(&stored) else { continue };
            let OutboundCommand::Send(send) = &item.command else { continue };
            state.queue.hold(item.conversation.contact, send.id);
            state.unknown.insert(send.id, Unknown { stored, since, item });
        }
        let first = Scan { from: queued.clone(), ..Scan::first(backlog.clone(), 1) };
        let last = Scan { from: queued, ..Scan::last(backlog, 1) };
        let row = |found: Vec<(Key, Bytes)>| found.first().and_then(|(key, _)| backlog_row(key));
        let first = row(read(&ports.metrics, || ports.state.scan(&first)).await?);
        let last = row(read(&ports.metrics, || ports.state.scan(&last)).await?);
        state.backlog.next_read = first.unwrap_or_default();
        state.backlog.end = last.map_or(0, |last| last + 1);
        let found = self.count_rows(state.backlog.next_read, state.backlog.end).await?;
        self.rows_changed(state, rows(found));
        state.loaded = true;
        Ok(())
    }

    /// Counts the rows of the backlog, a page at a time.
    async fn count_rows(&self, mut next: u64, end: u64) -> Result<usize, StoreError> {
        let ports = &self.context.ports;
        let mut found = 0;
        while next < end {
            let scan = Scan {
                from: Bytes::copy_from_slice(Key::backlog(&self.key, next).row()),
                ..Scan::first(Partition::backlog(&self.key), COUNTED_AT_ONCE)
            };
            let page = read(&ports.metrics, || ports.state.scan(&scan)).await?;
            found += page.len();
            match page.last().and_then(|(key, _)| backlog_row(key)) {
                Some(last) if page.len() == COUNTED_AT_ONCE => next = last + 1,
                _ => break,
            }
        }
        Ok(found)
    }

    /// The backlog has so many rows more, or fewer.
    fn rows_changed(&self, state: &mut AccountState, change: i64) {
        state.backlog.rows += change;
        self.context.ports.metrics.backlog(change);
    }

    async fn deliver(
        &self,
        myself: &ActorRef<AccountMessage>,
        state: &mut AccountState,
        record: OutboundRecord,
        receipt: Receipt,
    ) -> Result<(), ActorProcessingErr> {
        match record.command {
            OutboundCommand::Settle(report) => {
                self.report(state, &record.conversation, &report, &receipt).await?;
            }
            OutboundCommand::Send(command) => {
                state.caught_up |= !receipt.maybe_again;
                let item = Item {
                    look_up: command.again || receipt.maybe_again,
                    conversation: record.conversation,
                    stored: receipt.record.value.clone(),
                    offset: receipt.record.offset,
                    command,
                    origin: Origin::Log(Box::new(receipt)),
                    refused: 0,
                };
                let full = state.queue.len() >= self.context.options.account_queue.get();
                if full || !state.backlog.is_empty() {
                    state.backlog.spilling.push(item);
                    self.spill(myself, state);
                } else {
                    state.push(item);
                }
            }
        }
        Ok(())
    }

    /// Moves what cannot be held in memory into the backlog: one write at a time, all that has come
    /// meanwhile in the next.
    fn spill(&self, myself: &ActorRef<AccountMessage>, state: &mut AccountState) {
        if state.backlog.writing.is_some() || state.backlog.spilling.is_empty() {
            return;
        }
        let items = std::mem::take(&mut state.backlog.spilling);
        let rows = items.iter().map(|item| item.offset);
        let (first, last) = (rows.clone().min().unwrap_or_default(), rows.max().unwrap_or_default());
        if state.backlog.next_read >= state.backlog.end {
            state.backlog.next_read = first;
        }
        state.backlog.next_read = state.backlog.next_read.min(first);
        state.backlog.end = state.backlog.end.max(last + 1);
        state.backlog.writing = Some(first);
        let due = self.arm(state);
        let batch = self.stored(&items, due);
        let (context, home, key) = (self.context.clone(), self.home.clone(), self.key.clone());
        let myself = myself.clone();
        state.sends.spawn(async move {
            let ports = &context.ports;
            let written = commit(&*ports.state, &ports.metrics, |_| batch.clone()).await;
            if let (Ok(()), Some(due)) = (&written, due) {
                home.tell(PartitionMessage::Armed { due, key });
            }
            let written = written.map(|()| items.len());
            drop(items);
            drop(myself.send_message(AccountMessage::Spilled(written)));
        });
    }

    /// The due time of an agenda row to write, where the account has none.
    fn arm(&self, state: &mut AccountState) -> Option<Timestamp> {
        if state.row.is_some() {
            return None;
        }
        state.row = Some(self.context.ports.clock.now().after(UNKNOWN_LOOK));
        state.row
    }

    /// The batch that moves messages from the log into the backlog.
    fn stored<'a>(&self, items: impl IntoIterator<Item = &'a Item>, due: Option<Timestamp>) -> Batch {
        let mut batch = Batch { fence: Some(self.home.fence), ..Batch::default() };
        for item in items {
            if let Origin::Log(receipt) = &item.origin {
                let row = Key::backlog(&self.key, item.offset);
                batch.writes.push(Write::put(row, item.stored.clone()));
                batch.consumed.push(receipt.consumed());
            }
        }
        batch.writes.extend(due.map(|due| Write::put(self.agenda(due), Bytes::new())));
        batch
    }

    fn agenda(&self, due: Timestamp) -> Key {
        Key::agenda(self.home.fence.partition, due, self.key.to_string().as_bytes())
    }

    /// Moves the messages that wait in memory out of the log and into the backlog's rows; they keep
    /// their place in memory.
    async fn keep(&self, state: &mut AccountState, outputs: Vec<NewRecord>) -> Result<(), StoreError> {
        let from_log = |item: &&mut Item| matches!(item.origin, Origin::Log(_));
        let count = state.queue.iter_mut().filter(from_log).count();
        if count == 0 && outputs.is_empty() {
            return Ok(());
        }
        let due = if count > 0 { self.arm(state) } else { None };
        let mut batch = self.stored(state.queue.iter_mut().map(|item| &*item), due);
        batch.outputs = outputs;
        self.commit(batch).await?;
        for item in state.queue.iter_mut() {
            if let Origin::Log(_) = item.origin {
                item.origin = Origin::Backlog;
            }
        }
        self.rows_changed(state, rows(count));
        if let Some(due) = due {
            self.home.tell(PartitionMessage::Armed { due, key: self.key.clone() });
        }
        Ok(())
    }

    /// A report of the channel: settles the send it is about, if that waits for it.
    async fn report(
        &self,
        state: &mut AccountState,
        conversation: &heddle_schemas::id::ConversationId,
        report: &DeliveryReport,
        receipt: &Receipt,
    ) -> Result<(), StoreError> {
        let ports = &self.context.ports;
        let mut batch = Batch { consumed: vec![receipt.consumed()], ..Batch::default() };
        let unknown = state.unknown.contains_key(&report.outbound);
        let may_wait = unknown || state.active.contains_key(&report.outbound) || !state.backlog.is_empty();
        if may_wait {
            // Also for what is still under way: should its owner die now, the next one finds this.
            let key = Key::send(&self.key, &report.outbound);
            let found = read(&ports.metrics, || ports.state.get(&key)).await?;
            let found = found.and_then(|found| serde_json::from_slice::<Journal>(&found).ok());
            if matches!(found, Some(Journal::Attempting { .. } | Journal::Refused { .. })) {
                let journal = match (report.status, &report.failure) {
                    (DeliveryStatus::Failed, failure) => {
                        Journal::Failed { code: failure.as_ref().map_or(0, |failure| failure.code) }
                    }
                    _ => Journal::Sent,
                };
                let expires = ports.clock.now().after(self.context.options.marker_ttl);
                batch.writes.push(Write::put_until(key, encode(&journal), expires));
            }
        }
        if unknown {
            batch.after.push(Write::delete(Key::unknown(&self.key, &report.outbound)));
            batch.outputs.push(self.resolved(conversation, report.outbound, Resolution::Status));
        }
        self.commit(batch).await?;
        if unknown {
            state.unknown.remove(&report.outbound);
            state.queue.free(conversation.contact, report.outbound, None);
        }
        Ok(())
    }

    fn resolved(
        &self,
        conversation: &heddle_schemas::id::ConversationId,
        outbound: OutboundId,
        by: Resolution,
    ) -> NewRecord {
        self.context.ports.metrics.resolved(by);
        self.event(Event::SendResolved { conversation: conversation.clone(), outbound, by })
    }

    fn event(&self, event: Event) -> NewRecord {
        let ports = &self.context.ports;
        let tenant = self.key.tenant.clone();
        publish::event(ports, &EventRecord { v: V, tenant, at: ports.clock.now(), event })
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let ports = &self.context.ports;
        let batch = Batch { fence: Some(self.home.fence), ..batch };
        commit(&*ports.state, &ports.metrics, |_| batch.clone()).await
    }

    /// An agenda row is due: looks after the unknown, and keeps one row as long as something waits.
    async fn wake(
        &self,
        state: &mut AccountState,
        entry: Entry<AccountKey>,
    ) -> Result<(), ActorProcessingErr> {
        // A partition wakes nobody before it has delivered what it found.
        state.caught_up = true;
        self.look_after_unknown(state).await?;
        let again = if state.waits() && state.row.is_none_or(|row| row == entry.due) {
            state.row = Some(entry.due);
            Some(self.context.ports.clock.now().after(UNKNOWN_LOOK))
        } else {
            self.commit(Batch { writes: vec![Write::delete(self.agenda(entry.due))], ..Batch::default() })
                .await?;
            state.row = state.row.filter(|row| *row != entry.due);
            None
        };
        self.home.tell(PartitionMessage::Woken { entry, again });
        Ok(())
    }

    /// Finds what has been waited for long enough. A status of it may be in the log already, so the
    /// decision is taken when all that is there now has been handled.
    async fn look_after_unknown(&self, state: &mut AccountState) -> Result<(), StoreError> {
        let ports = &self.context.ports;
        if !state.overdue.is_empty() {
            return Ok(());
        }
        let open_for = self.context.way_in.open_for();
        let wait = self.context.options.unknown_wait;
        let over = |unknown: &Unknown| open_for.saturating_sub(unknown.since) >= wait;
        state.overdue =
            state.unknown.iter().filter(|(_, unknown)| over(unknown)).map(|(id, _)| *id).collect();
        if !state.overdue.is_empty() {
            let below = read(&ports.metrics, || ports.log.end(self.home.fence.partition)).await?;
            self.home.tell(PartitionMessage::Barrier { below, key: self.key.clone() });
        }
        Ok(())
    }

    /// Sends again, or gives up, what no status has come for.
    async fn give_up_waiting(&self, state: &mut AccountState) -> Result<(), StoreError> {
        for id in std::mem::take(&mut state.overdue) {
            let Some(unknown) = state.unknown.remove(&id) else { continue };
            let OutboundCommand::Send(command) = unknown.item.command else { continue };
            let conversation = unknown.item.conversation;
            let again = self.policy(state, &conversation, &command, unknown.stored).await?;
            state.queue.free(conversation.contact, id, again);
        }
        Ok(())
    }

    async fn policy(
        &self,
        state: &mut AccountState,
        conversation: &heddle_schemas::id::ConversationId,
        command: &SendCommand,
        stored: Bytes,
    ) -> Result<Option<Item>, StoreError> {
        match command.purpose {
            Purpose::Reply => {
                let event = self.resolved(conversation, command.id, Resolution::SentAgain);
                self.commit(Batch { outputs: vec![event], ..Batch::default() }).await?;
                *state.active.entry(command.id).or_default() += 1;
                Ok(Some(Item {
                    offset: 0,
                    conversation: conversation.clone(),
                    command: command.clone(),
                    stored,
                    origin: Origin::Unknown,
                    look_up: true,
                    refused: 0,
                }))
            }
            Purpose::Campaign => {
                let ports = &self.context.ports;
                let at = ports.clock.now();
                let expires = at.after(self.context.options.marker_ttl);
                let journal = encode(&Journal::GivenUp);
                let report = DeliveryReport {
                    outbound: command.id,
                    status: DeliveryStatus::Failed,
                    at,
                    failure: None,
                    message: None,
                };
                let event = InboundEvent::Delivery(report);
                let notice = InboundRecord { v: V, conversation: conversation.clone(), at, event };
                self.commit(Batch {
                    writes: vec![Write::put_until(Key::send(&self.key, &command.id), journal, expires)],
                    outputs: vec![
                        publish::inbound(ports, &notice),
                        self.resolved(conversation, command.id, Resolution::GivenUp),
                    ],
                    after: vec![Write::delete(Key::unknown(&self.key, &command.id))],
                    ..Batch::default()
                })
                .await?;
                Ok(None)
            }
        }
    }

    /// A stopped account goes on when its token is another one.
    async fn reconfigured(&self, state: &mut AccountState) -> Result<(), StoreError> {
        let tenant = self.tenant();
        let config = tenant.as_deref().and_then(|tenant| self.config(tenant));
        let fresh = match (&state.stopped, config) {
            (Some(stopped), Some(config)) => stopped.token != config.access_token,
            _ => false,
        };
        if fresh {
            self.resume(state);
        }
        Ok(())
    }

    fn resume(&self, state: &mut AccountState) {
        if state.stopped.take().is_some() {
            self.context.ports.metrics.stopped(-1);
            state.proving = true;
        }
    }

    async fn ended(
        &self,
        state: &mut AccountState,
        ended: Result<(Item, Ended), StoreError>,
    ) -> Result<(), ActorProcessingErr> {
        while state.sends.try_join_next().is_some() {}
        let (item, ended) = ended?;
        let now = self.context.ports.clock.elapsed();
        let contact = item.contact();
        if matches!(item.origin, Origin::Backlog) && !matches!(ended, Ended::Refused(_)) {
            self.rows_changed(state, -1);
        }
        match ended {
            Ended::Settled { called } => {
                state.left(item.command.id);
                state.queue.done(contact);
                if called {
                    state.breaker.succeeded();
                    self.proved(state).await?;
                }
            }
            Ended::Unknown(due) => {
                let id = item.command.id;
                state.left(id);
                let record = decode::<OutboundRecord>(&item.stored);
                state.queue.hold(contact, id);
                if let Ok(record) = record {
                    let since = self.context.way_in.open_for();
                    state.unknown.insert(id, Unknown { item: record, stored: item.stored, since });
                }
                self.home.tell(PartitionMessage::Armed { due, key: self.key.clone() });
                self.settled_meanwhile(state, id, contact).await?;
            }
            Ended::Refused(error) => self.refused(state, item, error, now).await?,
        }
        Ok(())
    }

    /// A status may have come while the call was still under way; then nobody has to wait for it.
    async fn settled_meanwhile(
        &self,
        state: &mut AccountState,
        id: OutboundId,
        contact: heddle_schemas::id::ContactId,
    ) -> Result<(), StoreError> {
        let ports = &self.context.ports;
        let key = Key::send(&self.key, &id);
        let found = read(&ports.metrics, || ports.state.get(&key)).await?;
        let found = found.and_then(|found| serde_json::from_slice::<Journal>(&found).ok());
        if matches!(found, Some(Journal::Sent | Journal::Failed { .. })) {
            let Some(unknown) = state.unknown.remove(&id) else { return Ok(()) };
            let event = self.resolved(&unknown.item.conversation, id, Resolution::Status);
            let after = vec![Write::delete(Key::unknown(&self.key, &id))];
            self.commit(Batch { outputs: vec![event], after, ..Batch::default() }).await?;
            state.queue.free(contact, id, None);
        }
        Ok(())
    }

    /// The first call that comes through after a stop ends it for good.
    async fn proved(&self, state: &mut AccountState) -> Result<(), StoreError> {
        if !std::mem::take(&mut state.proving) {
            return Ok(());
        }
        tracing::info!(account = %self.key, "the account sends again");
        let resumed = Event::AccountResumed { channel: self.key.channel, account: self.key.account.clone() };
        self.commit(Batch { outputs: vec![self.event(resumed)], ..Batch::default() }).await
    }

    async fn refused(
        &self,
        state: &mut AccountState,
        item: Item,
        error: SendError,
        now: Duration,
    ) -> Result<(), StoreError> {
        let contact = item.contact();
        let pause = match error.class {
            // WhatsApp: 4^X s, from X = 0 (131056 of its error codes).
            FailureClass::PairLimited => Duration::from_secs(4_u64.saturating_pow(item.refused.min(8) - 1)),
            FailureClass::RateLimited => {
                state.breaker.limited(now, error.retry_after);
                Duration::ZERO
            }
            FailureClass::Unauthorized | FailureClass::Blocked => {
                state.queue.again(contact, item, now);
                return self.stop(state, &error, now).await;
            }
            _ => {
                state.breaker.failed(now);
                let pause = PAUSES.0 * 2_u32.saturating_pow(item.refused.min(16));
                error.retry_after.unwrap_or(pause.min(PAUSES.1))
            }
        };
        tracing::debug!(account = %self.key, %error, pause_ms = pause.as_millis(), "a send is tried again");
        state.queue.again(contact, item, now + pause);
        Ok(())
    }

    /// Stops the account: all that waits in memory leaves the log.
    async fn stop(
        &self,
        state: &mut AccountState,
        error: &SendError,
        now: Duration,
    ) -> Result<(), StoreError> {
        let first_time = state.stopped.is_none();
        if first_time {
            let tenant = self.tenant();
            let config = tenant.as_deref().and_then(|tenant| self.config(tenant));
            let token = config.map(|config| config.access_token.clone()).unwrap_or_default();
            let probe_at = now + self.context.options.stopped_probe;
            state.stopped = Some(Stopped { token, probe_at });
            self.context.ports.metrics.stopped(1);
        }
        let mut outputs = Vec::new();
        if first_time && !state.proving {
            tracing::error!(
                account = %self.key, %error,
                "the account is stopped; apply its tenant with a valid token, or settle it with the provider"
            );
            outputs.push(self.event(Event::AccountStopped {
                channel: self.key.channel,
                account: self.key.account.clone(),
                code: error.code,
            }));
        }
        self.keep(state, outputs).await
    }

    /// Starts what may leave now, and sets when to look again.
    async fn pump(
        &self,
        myself: &ActorRef<AccountMessage>,
        state: &mut AccountState,
    ) -> Result<(), ActorProcessingErr> {
        let now = self.context.ports.clock.elapsed();
        self.read_backlog(state).await?;
        if state.queue.iter_mut().any(|item| item.is_overdue(now, PATIENCE)) {
            self.keep(state, Vec::new()).await?;
        }
        if state.queue.is_empty() {
            return Ok(());
        }
        self.look_at(myself, state, now, now + PATIENCE);
        if let Some(stopped) = &state.stopped {
            if stopped.probe_at > now {
                return Ok(());
            }
            self.resume(state);
        }
        let tenant = self.tenant();
        let access = tenant.as_deref().and_then(|tenant| self.config(tenant));
        let channel = self.context.ports.channels.get(&self.key.channel);
        let (Some(config), Some(channel)) = (access, channel) else {
            let error = SendError {
                class: FailureClass::Blocked,
                code: None,
                detail: "the account is not configured".into(),
                retry_after: None,
            };
            self.stop(state, &error, now).await?;
            return Ok(());
        };
        state.pace.set(config.messages_per_second);
        let received = self.context.way_in.take_received(&self.key);
        if received > 0 {
            state.pace.received(received, now);
        }
        let one_by_one = state.proving || state.breaker.is_probing();
        let calls = if one_by_one { 1 } else { self.context.options.account_calls.get() };
        while state.queue.busy() < calls && !state.queue.is_empty() {
            let wait = state.breaker.wait(now).max(state.pace.wait(now));
            if let Some(wait) = wait {
                self.look_at(myself, state, now, now + wait);
                break;
            }
            let pairs = &state.pairs;
            let Some((contact, item)) = state.queue.next(now, |contact| pairs.free_at(contact)) else {
                if let Some(at) = state.queue.next_at(|contact| pairs.free_at(contact)) {
                    self.look_at(myself, state, now, at);
                }
                break;
            };
            state.pace.sent(now);
            state.pairs.sent(contact, now);
            self.send(myself, state, config, channel, item);
        }
        Ok(())
    }

    fn send(
        &self,
        myself: &ActorRef<AccountMessage>,
        state: &mut AccountState,
        config: &ChannelAccount,
        channel: &Arc<dyn Channel>,
        item: Item,
    ) {
        let send = Send {
            context: self.context.clone(),
            account: self.key.clone(),
            fence: self.home.fence,
            channel: channel.clone(),
            access: Access {
                account: config.account.clone(),
                api_base: config.api_base.clone(),
                access_token: config.access_token.clone(),
            },
        };
        let myself = myself.clone();
        state.sends.spawn(async move {
            let ended = Box::new(send.run(item).await);
            drop(myself.send_message(AccountMessage::Ended(ended)));
        });
    }

    /// Reads on in the backlog when the queue has room.
    async fn read_backlog(&self, state: &mut AccountState) -> Result<(), StoreError> {
        let room = self.context.options.account_queue.get();
        let rows = state.backlog.readable();
        if !state.caught_up || state.queue.len() > room / 2 || rows.is_empty() {
            return Ok(());
        }
        let bound = |row: u64| Bytes::copy_from_slice(Key::backlog(&self.key, row).row());
        let scan = Scan {
            partition: Partition::backlog(&self.key),
            from: bound(rows.start),
            to: Some(bound(rows.end)),
            limit: room - state.queue.len(),
            reverse: false,
        };
        let ports = &self.context.ports;
        let found = read(&ports.metrics, || ports.state.scan(&scan)).await?;
        if found.len() < scan.limit {
            state.backlog.next_read = rows.end;
        }
        for (key, stored) in found {
            let Some(offset) = backlog_row(&key) else { continue };
            state.backlog.next_read = state.backlog.next_read.max(offset + 1);
            match decode::<OutboundRecord>(&stored) {
                Ok(OutboundRecord { conversation, command: OutboundCommand::Send(command), .. }) => state
                    .push(Item {
                        conversation,
                        command,
                        stored,
                        offset,
                        origin: Origin::Backlog,
                        look_up: true,
                        refused: 0,
                    }),
                _ => {
                    ports.metrics.dead(DeadReason::Shape);
                    tracing::error!(account = %self.key, offset, "a waiting message cannot be read");
                }
            }
        }
        Ok(())
    }

    fn look_at(
        &self,
        myself: &ActorRef<AccountMessage>,
        state: &mut AccountState,
        now: Duration,
        at: Duration,
    ) {
        if state.look.as_ref().is_some_and(|(set, _)| *set <= at && *set > now) {
            return;
        }
        if let Some((_, later)) = state.look.take() {
            later.abort();
        }
        let wait = at.saturating_sub(now).max(Duration::from_millis(1));
        state.look = Some((at, myself.send_after(wait, || AccountMessage::Look)));
    }
}

fn rows(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The number of a backlog row.
fn backlog_row(key: &Key) -> Option<u64> {
    let (kind, row) = key.row().split_first()?;
    (*kind == BACKLOG_QUEUED).then(|| Some(u64::from_be_bytes(row.try_into().ok()?)))?
}
