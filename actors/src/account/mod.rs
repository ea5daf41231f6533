//! The account actor: the only sender of a channel account.
//!
//! Contract: messages of one conversation leave strictly in the order they were decided, the next one
//! only when the one before is settled; conversations do not wait for each other. The account's limits
//! are kept ([`pacing`]), passing trouble pauses it ([`breaker`]), and a token that is refused stops it
//! until the tenant is configured anew or a probe comes through. What waits for an account that is disconnected is
//! settled as withheld. What does not fit into memory, or waits
//! for a stopped account, is moved to the account's backlog in the state store and acknowledged, so one
//! account never holds up the others of its partition.
//!
//! A send whose outcome nobody knows ([`send`]) holds its own conversation only. A status that carries
//! its id settles it. When none has come for the wait (which counts only while webhooks are taken in and
//! the partition is read to its end), a reply is sent again and a campaign's message is given up.
//!
//! Everything that waits is in rows that the account finds again when it starts, and an agenda row wakes
//! it: the account itself may leave memory or die at any moment.
//!
//! # Layout
//! - This file: the actor, what it is told and how it starts. `state`: what it holds in memory.
//! - `dispatch`: what leaves when, and what the end of a call means. [`send`]: one call, journaled.
//! - `backlog`: what waits in rows. `unknown`: what waits for a status.
//! - [`queue`], [`pacing`], [`breaker`]: the decisions, pure.

mod backlog;
pub mod breaker;
mod dispatch;
mod forget;
mod leave;
pub mod pacing;
pub mod queue;
pub mod send;
mod state;
mod unknown;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use heddle_schemas::id::AccountKey;
use heddle_schemas::ports::log::{NewRecord, Record};
use heddle_schemas::ports::state::{Batch, Fence, Scan, State, StoreError};
use heddle_schemas::record::event::{Event, EventRecord};
use heddle_schemas::record::outbound::{Leave, OutboundCommand, OutboundRecord};
use heddle_schemas::record::{RecordError, V, decode, decode_to};
use heddle_schemas::table::{BACKLOG_QUEUED, Key, Partition};
use heddle_schemas::tenant::{ChannelAccount, Tenant};
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Offset, Topic};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, ActorRuntime, SpawnErr};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use self::backlog::{backlog_row, rows};
use self::breaker::Breaker;
use self::pacing::{Pace, Pairs};
use self::queue::Queue;
use self::send::{Ended, Item, Origin};
use self::state::{AccountState, Backlog, Unknown};
use crate::context::Context;
use crate::partition::agenda::Entry;
use crate::partition::commit::{commit, read};
use crate::partition::publish;
use crate::partition::ttl_update::TtlUpdate;
use crate::partition::{Home, Receipt, Resident};

/// Unknown sends that one account reads when it starts; it is never more than what was under way.
const UNKNOWN_READ: usize = 100_000;
/// How often an account looks whether an unknown send has been waited for long enough.
const UNKNOWN_LOOK: Duration = Duration::from_secs(1);

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

    // A parked status may say that a message has left which is about to be sent again.
    const RESTS_WHILE_HELD: bool = true;

    fn decode(record: &Record, newest: u16) -> Result<(AccountKey, Box<OutboundRecord>), RecordError> {
        let record: Box<OutboundRecord> = Box::new(decode_to(&record.value, newest)?);
        Ok((record.conversation.account(), record))
    }

    fn is_departure(item: &Box<OutboundRecord>) -> bool {
        matches!(item.command, OutboundCommand::Leave(_))
    }

    fn committing_to(mut self, state: Arc<dyn State>) -> Self {
        self.context.ports.state = state;
        self
    }

    fn published_under(item: &Box<OutboundRecord>) -> Option<Fence> {
        match &item.command {
            OutboundCommand::Send(command) => command.fence,
            OutboundCommand::Settle(_) | OutboundCommand::Forget | OutboundCommand::Leave(_) => None,
        }
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

    fn shorten(_: Vec<TtlUpdate>, _: oneshot::Sender<usize>) -> Option<AccountMessage> {
        // Journals and backlogs end by what has to be known of sends, not by a tenant's retention.
        None
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
            cut_off: false,
            sends: JoinSet::new(),
            look: None,
            handled: 0,
            forgetting: Vec::new(),
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
                self.forget_waiting(state).await?;
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
        let since = self.context.intake_gate.open_for();
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

    async fn deliver(
        &self,
        myself: &ActorRef<AccountMessage>,
        state: &mut AccountState,
        record: OutboundRecord,
        receipt: Receipt,
    ) -> Result<(), ActorProcessingErr> {
        if let OutboundCommand::Leave(leave) = &record.command {
            let leave = leave.clone();
            return self.leave(state, record, &leave, receipt).await;
        }
        // A tenant that is not known may be one that was applied on another node a moment ago.
        if self.tenant().is_none() && self.is_of_deleted().await? {
            return Ok(self.refuse(&receipt).await?);
        }
        match record.command {
            OutboundCommand::Leave(_) => {}
            OutboundCommand::Settle(report) => {
                self.report(state, &record.conversation, &report, &receipt).await?;
            }
            OutboundCommand::Forget => {
                self.forget(state, record, receipt).await?;
            }
            OutboundCommand::Send(command) => {
                state.caught_up |= !receipt.maybe_again;
                let item = Item {
                    look_up: command.again || command.fence.is_none() || receipt.maybe_again,
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

    /// The due time of an agenda row to write, where the account has none.
    fn arm(&self, state: &mut AccountState) -> Option<Timestamp> {
        if state.row.is_some() {
            return None;
        }
        state.row = Some(self.context.ports.clock.now().after(UNKNOWN_LOOK));
        state.row
    }

    fn agenda(&self, due: Timestamp) -> Key {
        Key::agenda(self.home.fence.partition, due, self.key.to_string().as_bytes())
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
}
