//! The account actor: the only sender of a channel account.
//!
//! Contract: messages of one conversation leave strictly in the order they were decided, the next one only when the
//! previous one is settled; conversations do not wait for each other. The account's limits are kept exactly, transient
//! failures pause it, and a refused token suspends it until its tenant is applied again or a probe succeeds. Messages
//! of a disconnected account are settled as withheld. Messages that do not fit into memory, or wait for a suspended
//! account, are moved to the account's rows in the state store and acknowledged, so one account never delays the others
//! of its partition.
//!
//! A send of unknown outcome ([`send`]) blocks its own conversation only. A status that carries its id settles it. If
//! none comes within the wait (which counts only while webhooks are accepted and the partition is read to its end), a
//! reply is sent again, once by default; a campaign's message, and a reply whose outcome is unknown again, is
//! abandoned and reported as failed. A later status lifts that.
//!
//! Everything that waits is in rows that the account finds again when it starts, and an agenda row wakes
//! it: the account itself may leave memory or die at any moment.
//!
//! # Layout
//! - [`machine`]: the decisions, pure. [`schedule`]: which message is next, and when its call may leave, pure.
//! - This file: the actor, its messages and its start. `perform`: the effects. `state`: its memory.
//! - [`sources`]: where messages come from: the log, the rows, sends of unknown outcome.
//! - [`send`]: one send, journaled. `reports`: statuses. `rows`: writes that concern no single send.
//! - `forget`, `leave`: a contact is erased, a tenant is deleted.

mod forget;
mod leave;
pub mod machine;
mod perform;
mod reports;
mod rows;
pub mod schedule;
pub mod send;
pub mod sources;
mod state;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use heddle_schemas::id::AccountKey;
use heddle_schemas::ports::log::{NewRecord, Record};
use heddle_schemas::ports::state::{Batch, Fence, State, StoreError};
use heddle_schemas::record::event::{Event as PublishedEvent, EventRecord};
use heddle_schemas::record::outbound::{Leave, OutboundCommand, OutboundRecord};
use heddle_schemas::record::{RecordError, V, decode_to};
use heddle_schemas::table::Key;
use heddle_schemas::tenant::{ChannelAccount, Tenant};
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Offset, Topic};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, ActorRuntime, SpawnErr};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use self::machine::{Event, Machine, Policy, Status};
use self::rows::rows;
use self::send::Ended;
use self::send::gate::Gate;
use self::sources::backlog::{Backlog, Cursor};
use self::sources::log::Delivered;
use self::sources::unknown::Unknowns;
use self::sources::{Item, Origin, Rows};
use self::state::AccountState;
use crate::context::Context;
use crate::partition::agenda::Entry;
use crate::partition::commit::commit;
use crate::partition::publish;
use crate::partition::ttl_update::TtlUpdate;
use crate::partition::{Changed, Discards, EntityHandle, EntityKind, Receipt};

/// Interval at which an account checks whether the wait for a send of unknown outcome is over.
const UNKNOWN_CHECK: Duration = Duration::from_secs(1);

/// Accounts, the entities of outbound's partitions.
#[derive(Clone)]
pub struct Accounts {
    /// Dependencies on the node.
    pub context: Context,
}

/// Message to an account's actor.
pub enum AccountMessage {
    /// A record, with its ack guard.
    Deliver(Box<OutboundRecord>, Box<Receipt>),
    /// An agenda row of it is due.
    Wake(Entry<AccountKey>),
    /// Everything that was in the log at the last request has been delivered to it.
    Passed,
    /// Its tenant's configuration was applied.
    Reconfigured,
    /// A send has ended.
    Ended(Box<Result<Ended, StoreError>>),
    /// Result of writing messages into rows: their number.
    Spilled(Result<usize, StoreError>),
    /// Statuses were acknowledged.
    Acknowledged(Result<(), StoreError>),
    /// Something that waited for time may go on.
    Tick,
    /// Calls have left, so more may be prepared.
    Room,
}

impl EntityKind for Accounts {
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

    fn discards(item: &Box<OutboundRecord>) -> Option<Discards> {
        match item.command {
            OutboundCommand::Leave(_) => Some(Discards::OfTenant),
            OutboundCommand::Forget => Some(Discards::OfContact(item.conversation.contact)),
            OutboundCommand::Send(_) | OutboundCommand::Settle(_) => None,
        }
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
        // Journals and backlogs end by the time for which sends must be known, not by a tenant's retention.
        None
    }

    fn reconfigured(account: &AccountKey, changed: &Changed) -> Option<AccountMessage> {
        changed.has(&account.tenant).then_some(AccountMessage::Reconfigured)
    }

    fn spawn(
        &self,
        key: AccountKey,
        home: EntityHandle<AccountKey>,
        supervisor: ActorCell,
    ) -> Result<ActorRef<AccountMessage>, SpawnErr> {
        let actor = Account { key, home, context: self.context.clone() };
        ActorRuntime::spawn_linked_instant(None, actor, (), supervisor).map(|(actor, _)| actor)
    }
}

/// The actor of one account.
struct Account {
    key: AccountKey,
    home: EntityHandle<AccountKey>,
    context: Context,
}

impl Actor for Account {
    type Msg = AccountMessage;
    type State = AccountState;
    type Arguments = ();

    async fn pre_start(
        &self,
        myself: ActorRef<AccountMessage>,
        (): (),
    ) -> Result<AccountState, ActorProcessingErr> {
        let Context { ports, options, intake_gate, .. } = &self.context;
        let calls = options.account_calls.get();
        let gate = Gate::new(self.key.clone(), ports.clone(), intake_gate.clone(), calls, myself);
        let mut gate_task = JoinSet::new();
        gate_task.spawn(gate.clone().run());
        let policy = Policy {
            queue: options.account_queue.get(),
            probe_after: options.stopped_probe,
            unknown_repeats: options.unknown_repeats,
            calls,
            pair_limit: ports.profile(self.key.channel).and_then(|profile| profile.pair_limit),
        };
        Ok(AccountState {
            machine: Machine::new(policy),
            gate,
            cursor: Cursor::default(),
            delivered: Delivered::default(),
            backlog: Backlog::default(),
            unknowns: Unknowns::default(),
            overdue: Vec::new(),
            kept: BTreeMap::new(),
            seen: Vec::new(),
            is_acknowledging: false,
            under_way: BTreeMap::new(),
            row: None,
            tasks: JoinSet::new(),
            gate_task,
            wake: None,
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
                self.waited(state).await?;
            }
            AccountMessage::Reconfigured => {
                state.handled += 1;
                let effects = state.machine.on(Event::Reapplied, self.context.ports.clock.elapsed());
                self.perform(&myself, state, effects).await?;
            }
            AccountMessage::Ended(ended) => self.ended(&myself, state, (*ended)?).await?,
            AccountMessage::Spilled(written) => {
                self.rows_changed(state, rows(written?));
                let unwritten = state.delivered.end_write();
                state.cursor.written(unwritten);
                self.forget_waiting(state).await?;
            }
            AccountMessage::Acknowledged(done) => {
                state.is_acknowledging = false;
                done?;
            }
            AccountMessage::Tick => state.wake = None,
            AccountMessage::Room => {}
        }
        self.pump(&myself, state).await?;
        let now = self.context.ports.clock.elapsed();
        if state.is_idle(now) {
            self.home.idle.finished(state.handled);
        }
        Ok(())
    }

    async fn post_stop(
        &self,
        _: ActorRef<AccountMessage>,
        state: &mut AccountState,
    ) -> Result<(), ActorProcessingErr> {
        if let Some((_, wake)) = state.wake.take() {
            wake.abort();
        }
        state.gate_task.abort_all();
        if matches!(state.machine.status(), Status::Suspended { .. }) {
            self.context.ports.metrics.stopped(-1);
        }
        self.rows_changed(state, -state.cursor.rows);
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

    /// Loads the messages that waited when the account last left memory.
    async fn load(&self, state: &mut AccountState) -> Result<(), StoreError> {
        if *state.machine.status() != Status::Loading {
            return Ok(());
        }
        let since = self.context.intake_gate.open_for();
        let mut rows = Rows { ports: &self.context.ports, account: &self.key, cursor: &mut state.cursor };
        rows.find_unknown(&mut state.machine, since).await?;
        let found = rows.find().await?;
        self.rows_changed(state, found);
        state.machine.on(Event::Loaded, self.context.ports.clock.elapsed());
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
            let leave: Leave = leave.clone();
            return self.leave(state, record, &leave, receipt).await;
        }
        // A tenant that is not known may be one that was applied on another node a moment ago.
        if self.tenant().is_none() && self.is_of_deleted().await? {
            return Ok(self.refuse(&receipt).await?);
        }
        match record.command {
            OutboundCommand::Leave(_) => {}
            OutboundCommand::Settle(report) => self.report(myself, state, report, receipt).await?,
            OutboundCommand::Forget => self.forget(state, record, receipt).await?,
            OutboundCommand::Send(command) => {
                state.cursor.is_caught_up |= !receipt.maybe_again;
                let look_up = command.again || command.fence.is_none() || receipt.maybe_again;
                let origin = Origin::Log(Box::new(receipt));
                state.delivered.push(Item::new(record.conversation, command, origin, look_up));
            }
        }
        Ok(())
    }

    fn agenda(&self, due: Timestamp) -> Key {
        Key::agenda(self.home.fence.partition, due, self.key.to_string().as_bytes())
    }

    fn event(&self, event: PublishedEvent) -> NewRecord {
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
