//! Decisions of an account, pure: `(state, event, now) -> effects`.
//!
//! | from | event | to |
//! |---|---|---|
//! | loading | its rows are read | running |
//! | running | a call is refused for the account's sake, or it is not configured | suspended, published once |
//! | suspended | its tenant is applied again, or the time of the probe has come | half-open |
//! | half-open | a call that left since succeeds | running, published |
//! | half-open | a call that left since is refused for the account's sake | suspended |
//! | any but loading | it is disconnected, or its tenant's data stays elsewhere | disconnected |
//! | disconnected | it is configured again | running |
//!
//! Running, messages are prepared as the schedule has room. Half-open, one at a time. Suspended, nothing leaves, and
//! messages in memory are moved out of the log. Disconnected, everything is settled as withheld.
//!
//! A send of unknown outcome holds its lane until a status or the policy settles it: a reply is sent again
//! [`Policy::unknown_repeats`] times, then it is abandoned like a campaign's message. A status also counts for a
//! message that is under way, waits for its retry, or was abandoned a while ago; all other statuses are
//! acknowledged.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU32;
use std::time::Duration;

use heddle_schemas::id::{ContactId, OutboundId};
use heddle_schemas::ports::channel::profile::PairLimit;
use heddle_schemas::ports::channel::{Credentials, FailureClass, Scope, SendError};
use heddle_schemas::record::inbound::DeliveryReport;
use heddle_schemas::record::outbound::Purpose;

use super::schedule::lanes::{Lanes, Message};

/// Time that a message may keep its record in work before it is moved into rows.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// Sends of unknown outcome at which no further call is prepared until some are settled.
pub const UNKNOWN_MOST: usize = 1_024;
/// Number of abandoned sends that are remembered, and for how long, for a late status. Later ones, and those after
/// a restart, are known to the conversation alone.
const ABANDONED_REMEMBERED: usize = 1_024;
const GIVEN_UP_FOR: Duration = Duration::from_secs(86_400);
/// The pause after the first passing failure of a message, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(60));
/// Calls after which a failure that concerns one message alone is final.
const MESSAGE_CALLS: u32 = 8;
/// WhatsApp: 4^X s after the Xth 131056 of a pair, from X = 0
/// (<https://developers.facebook.com/docs/whatsapp/cloud-api/overview#pair-rate-limits>); at most 17 minutes.
const PAIR_STEPS: u32 = 5;

/// Policies of an account.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Messages in memory that can move, at most.
    pub queue: usize,
    /// Time after which a suspended account tries one message.
    pub probe_after: Duration,
    /// Times that a reply of unknown outcome is sent again.
    pub unknown_repeats: u32,
    /// Calls under way at once.
    pub calls: usize,
    /// Limit of messages to one user, where the channel has one.
    pub pair_limit: Option<PairLimit>,
}

/// Message of an account.
pub trait Sendable: Message {
    /// Returns whose it is.
    fn contact(&self) -> ContactId;
    /// Returns when its record was delivered, while it keeps that in work.
    fn in_log_since(&self) -> Option<Duration>;
    /// Counts a refused call, and returns how many calls of the same kind were refused.
    fn refused(&mut self, by_pair: bool) -> u32;
}

/// Condition of the account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// Its rows are not read yet.
    Loading,
    /// It sends.
    Running,
    /// It has been suspended, and finds out by one message whether it sends again.
    HalfOpen,
    /// It waits for an operator, or for the time of a probe.
    Suspended {
        /// The credentials that were refused.
        credentials: Credentials,
        /// Time of the probe.
        probe_at: Duration,
    },
    /// Disconnected: waiting messages are withheld.
    Disconnected,
}

/// Use that the account's configuration allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// Usable with these credentials and this limit.
    Ready {
        /// The credentials.
        credentials: Credentials,
        /// Messages a second, in and out.
        limit: NonZeroU32,
    },
    /// It is not configured, and nothing says that it is disconnected.
    Missing,
    /// It is disconnected, or its tenant's data stays in another region.
    Disconnected,
}

/// End of a send.
#[derive(Debug)]
pub enum End {
    /// It is settled: sent, failed for good, or found to be settled before.
    Settled {
        /// True when a call that left after the last suspension or pause reached the channel.
        proves: bool,
    },
    /// The call was refused, and may be repeated.
    Refused {
        /// Why.
        error: SendError,
        /// True when the call left after the last suspension or pause.
        is_current: bool,
    },
    /// The outcome is unknown; it is among the unknown rows now.
    Unknown {
        /// Time for which webhooks had been accepted by then.
        since: Duration,
    },
    /// It did not leave.
    Returned,
}

/// Input of an account.
#[derive(Debug)]
pub enum Event<M> {
    /// Its rows are read.
    Loaded,
    /// Its configuration is known, as it is now.
    Access(Access),
    /// Its tenant was applied, changed or not.
    Reapplied,
    /// A message arrived to be sent.
    Arrived(M),
    /// A send has ended; with the time its call left, if it did.
    Ended(M, End, Option<Duration>),
    /// A status of the channel came.
    Reported(DeliveryReport),
    /// A send of unknown outcome was found in its rows.
    FoundUnknown(OutboundId, Duration),
    /// The wait for a send of unknown outcome is over, and everything in the log has been read.
    Waited {
        /// Id of the message.
        id: OutboundId,
        /// Why it was sent.
        purpose: Purpose,
        /// Number of times it was sent again.
        repeated: u32,
    },
    /// The contact is being erased: its sends under way are not repeated.
    Erased(ContactId),
    /// Time has passed, and this many calls may be prepared; more may be from this time on.
    Tick {
        /// Calls that may be prepared now.
        room: usize,
        /// Time at which more may be prepared, where none may now.
        room_at: Duration,
    },
}

/// Work that an account asks its actor to do.
#[derive(Debug, PartialEq)]
pub enum Effect<M> {
    /// Prepare a call and have it leave as the schedule says.
    Prepare(M),
    /// Settle a message as withheld: the account is disconnected.
    Withhold(M),
    /// Move messages that are in memory and still in the log into rows.
    Park,
    /// Call prepared calls back.
    Recall,
    /// Let one call at a time leave, or all that may.
    Probe(bool),
    /// The account is suspended.
    Suspended {
        /// True when an event is to be published, and not only counted.
        is_new: bool,
        /// The channel's code.
        code: Option<i64>,
    },
    /// The account is not suspended any more.
    Unsuspended,
    /// The account sends again: publish that.
    Resumed,
    /// Wake the account at this time.
    WakeAt(Duration),
    /// Acknowledge a status: it changes nothing.
    Acknowledge(DeliveryReport),
    /// Keep a status: the message is under way, and the end of its call decides about the status.
    Keep(DeliveryReport),
    /// Settle a message by a status that came before it could be called again.
    SettleBy(M, DeliveryReport),
    /// Settle a send of unknown outcome by its status.
    Resolve(DeliveryReport),
    /// Lift an abandoned send: the channel had accepted it after all.
    Lift(DeliveryReport),
    /// Acknowledge the statuses that were kept of this message: its end says the same.
    Release(OutboundId),
    /// Fail a message: it was refused too often.
    Fail(M, i64),
    /// Send a reply of unknown outcome again.
    Repeat(OutboundId),
    /// Give a send of unknown outcome up.
    GiveUp(OutboundId),
    /// Drop a message whose contact was erased meanwhile, or its row among the unknown.
    Drop(OutboundId, Option<M>),
}

/// Send of unknown outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unknown {
    /// Time for which webhooks had been accepted when the wait began.
    pub since: Duration,
    /// True when the wait is over, while the log is read to its end.
    pub is_over: bool,
}

/// State of an account.
#[derive(Debug)]
pub struct Machine<M> {
    policy: Policy,
    status: Status,
    /// The messages in memory.
    pub lanes: Lanes<M>,
    /// Sends of unknown outcome; above [`UNKNOWN_MOST`] only by those that were under way.
    pub unknown: BTreeMap<OutboundId, Unknown>,
    /// Messages under way or waiting in memory, with their number: at most as many as lanes hold.
    active: BTreeMap<OutboundId, u32>,
    /// The last status of each message under way; at most one each.
    reported: BTreeMap<OutboundId, DeliveryReport>,
    /// Contacts that were erased while a message to them was under way.
    erased: BTreeSet<ContactId>,
    /// Abandoned sends and their times, the oldest first; at most [`ABANDONED_REMEMBERED`].
    abandoned: VecDeque<(OutboundId, Duration)>,
    credentials: Credentials,
}

impl<M: Sendable> Machine<M> {
    /// Returns an account whose rows are not read yet.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            lanes: Lanes::new(policy.queue, policy.pair_limit),
            policy,
            status: Status::Loading,
            unknown: BTreeMap::new(),
            active: BTreeMap::new(),
            reported: BTreeMap::new(),
            erased: BTreeSet::new(),
            abandoned: VecDeque::new(),
            credentials: Credentials::default(),
        }
    }

    /// Returns the condition of the account.
    #[must_use]
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Returns true while a message is under way or waits in memory.
    #[must_use]
    pub fn is_active(&self, id: OutboundId) -> bool {
        self.active.contains_key(&id)
    }

    /// Returns true when nothing is in memory that only this account finds again.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.active.is_empty() && self.unknown.is_empty()
    }

    /// Returns true when it may leave memory: nothing would be lost.
    #[must_use]
    pub fn is_idle(&self, now: Duration) -> bool {
        let is_suspended = matches!(self.status, Status::Suspended { .. } | Status::HalfOpen);
        self.is_empty() && !is_suspended && self.idle_at() <= now
    }

    /// Returns the time from which the account may leave memory if nothing else comes: no pair is over its limit then,
    /// and no send was abandoned recently.
    #[must_use]
    pub fn idle_at(&self) -> Duration {
        let lifted_until = self.abandoned.back().map_or(Duration::ZERO, |(_, at)| *at + GIVEN_UP_FOR);
        self.lanes.all_paid_at().max(lifted_until)
    }

    /// Applies an event, and returns its effects, in this order.
    pub fn on(&mut self, event: Event<M>, now: Duration) -> Vec<Effect<M>> {
        let mut effects = Vec::new();
        self.lanes.advance(now);
        match event {
            Event::Loaded => {
                if self.status == Status::Loading {
                    self.status = Status::Running;
                }
            }
            Event::Access(access) => self.access(access, now, &mut effects),
            Event::Reapplied => self.reapplied(now, &mut effects),
            Event::Arrived(message) => {
                *self.active.entry(message.id()).or_default() += 1;
                self.lanes.push(message.contact(), message);
            }
            Event::Ended(message, end, left_at) => self.ended(message, end, left_at, now, &mut effects),
            Event::Reported(report) => self.reported(report, &mut effects),
            Event::FoundUnknown(id, since) => {
                self.lanes.hold(id.contact, id);
                self.unknown.insert(id, Unknown { since, is_over: false });
            }
            Event::Waited { id, purpose, repeated } => self.waited(id, purpose, repeated, now, &mut effects),
            Event::Erased(contact) => {
                if self.lanes.under_way(contact).is_some() {
                    self.erased.insert(contact);
                }
            }
            Event::Tick { room, room_at } => self.tick(room, room_at, now, &mut effects),
        }
        effects
    }

    fn access(&mut self, access: Access, now: Duration, effects: &mut Vec<Effect<M>>) {
        match (access, &self.status) {
            (_, Status::Loading) => {}
            (Access::Disconnected, Status::Disconnected) => {}
            (Access::Disconnected, _) => {
                if matches!(self.status, Status::Suspended { .. }) {
                    effects.push(Effect::Unsuspended);
                }
                self.status = Status::Disconnected;
                effects.extend([Effect::Probe(false), Effect::Recall]);
            }
            (Access::Ready { credentials, .. }, status) => {
                let is_new = matches!(status, Status::Suspended { credentials: refused, .. } if *refused != credentials);
                if *status == Status::Disconnected {
                    self.status = Status::Running;
                }
                self.credentials = credentials;
                if is_new {
                    self.half_open(effects);
                }
            }
            (Access::Missing, Status::Suspended { .. }) => {}
            (Access::Missing, _) => {
                self.credentials = Credentials::default();
                self.suspend(None, now, effects);
            }
        }
    }

    fn reapplied(&mut self, now: Duration, effects: &mut Vec<Effect<M>>) {
        if let Status::Suspended { probe_at, .. } = &mut self.status {
            *probe_at = now;
            effects.push(Effect::WakeAt(now));
        }
    }

    /// Returns true while its configuration may say something new: it sends, or its probe is due.
    #[must_use]
    pub fn asks_access(&self, now: Duration) -> bool {
        match &self.status {
            Status::Loading => false,
            Status::Suspended { probe_at, .. } => *probe_at <= now,
            Status::Running | Status::HalfOpen | Status::Disconnected => true,
        }
    }

    fn suspend(&mut self, code: Option<i64>, now: Duration, effects: &mut Vec<Effect<M>>) {
        let was = std::mem::replace(
            &mut self.status,
            Status::Suspended {
                credentials: self.credentials.clone(),
                probe_at: now + self.policy.probe_after,
            },
        );
        effects.push(Effect::Suspended { is_new: was != Status::HalfOpen, code });
        effects.extend([Effect::Recall, Effect::Park]);
    }

    fn half_open(&mut self, effects: &mut Vec<Effect<M>>) {
        self.status = Status::HalfOpen;
        effects.extend([Effect::Unsuspended, Effect::Probe(true)]);
    }

    fn tick(&mut self, room: usize, room_at: Duration, now: Duration, effects: &mut Vec<Effect<M>>) {
        let oldest = self.lanes.iter().filter_map(Sendable::in_log_since).min();
        if let Some(since) = oldest {
            match since + PATIENCE <= now {
                true => effects.push(Effect::Park),
                false => effects.push(Effect::WakeAt(since + PATIENCE)),
            }
        }
        if let Status::Suspended { probe_at, .. } = self.status {
            if self.lanes.is_empty() {
                return;
            }
            if probe_at > now {
                effects.push(Effect::WakeAt(probe_at));
                return;
            }
            self.half_open(effects);
            // Its configuration is read before the probe, and prepared when the schedule says so.
            effects.push(Effect::WakeAt(now));
            return;
        }
        match self.status {
            Status::Loading | Status::Suspended { .. } => {}
            Status::Disconnected => {
                while self.lanes.busy() < self.policy.calls
                    && let Some((_, message)) = self.lanes.take_next()
                {
                    effects.push(Effect::Withhold(message));
                }
            }
            Status::Running | Status::HalfOpen => {
                let room = if self.unknown.len() < UNKNOWN_MOST { room } else { 0 };
                let room = room.min((2 * self.policy.calls).saturating_sub(self.lanes.busy()));
                for _ in 0..room {
                    let Some((_, message)) = self.lanes.take_next() else { break };
                    effects.push(Effect::Prepare(message));
                }
                let at = match self.lanes.is_ready() {
                    true => Some(room_at).filter(|at| *at > now),
                    false => self.lanes.next_at(),
                };
                effects.extend(at.map(Effect::WakeAt));
            }
        }
    }

    fn ended(
        &mut self,
        mut message: M,
        end: End,
        left_at: Option<Duration>,
        now: Duration,
        effects: &mut Vec<Effect<M>>,
    ) {
        let (id, contact) = (message.id(), message.contact());
        if let Some(left_at) = left_at {
            self.lanes.called(contact, left_at);
        }
        let report = self.reported.remove(&id);
        let is_erased = self.erased.remove(&contact);
        match end {
            End::Settled { proves } => {
                self.left(id);
                self.lanes.done(contact);
                if report.is_some() {
                    effects.push(Effect::Release(id));
                }
                if proves && self.status == Status::HalfOpen {
                    self.status = Status::Running;
                    effects.extend([Effect::Probe(false), Effect::Resumed]);
                }
            }
            End::Unknown { since } => {
                self.left(id);
                match report {
                    _ if is_erased => {
                        self.lanes.done(contact);
                        effects.extend([Effect::Release(id), Effect::Drop(id, None)]);
                    }
                    Some(report) => {
                        self.lanes.done(contact);
                        effects.push(Effect::Resolve(report));
                    }
                    None => {
                        self.lanes.hold(contact, id);
                        self.unknown.insert(id, Unknown { since, is_over: false });
                    }
                }
            }
            End::Refused { .. } | End::Returned if is_erased => {
                self.left(id);
                self.lanes.done(contact);
                effects.extend([Effect::Release(id), Effect::Drop(id, Some(message))]);
            }
            End::Refused { .. } | End::Returned if report.is_some() => {
                self.left(id);
                self.lanes.done(contact);
                effects.extend(report.map(|report| Effect::SettleBy(message, report)));
            }
            End::Returned => self.lanes.again(contact, message, now),
            End::Refused { error, is_current } => {
                let refused = message.refused(error.class == FailureClass::PairLimited);
                match self.pause(&error, refused) {
                    Some(pause) => self.lanes.again(contact, message, now + pause),
                    None => {
                        self.left(id);
                        self.lanes.done(contact);
                        effects.push(Effect::Fail(message, error.code.unwrap_or_default()));
                    }
                }
                let stops = matches!(error.class, FailureClass::Unauthorized | FailureClass::Blocked);
                match self.status {
                    Status::Running if stops => self.suspend(error.code, now, effects),
                    Status::HalfOpen if stops && is_current => self.suspend(error.code, now, effects),
                    // Messages that come back to a suspended account leave the log as well.
                    Status::Suspended { .. } => effects.push(Effect::Park),
                    _ => {}
                }
            }
        }
    }

    /// Returns how long a refused message waits; `None` when it has been refused too often.
    fn pause(&self, error: &SendError, refused: u32) -> Option<Duration> {
        let growing = (PAUSES.0 * 2_u32.saturating_pow(refused.min(16))).min(PAUSES.1);
        match error.class {
            FailureClass::PairLimited => {
                let limit = self.policy.pair_limit;
                Some(limit.map_or(growing, |limit| limit.pause(refused.min(PAIR_STEPS + 1))))
            }
            // The schedule waits, or the account does.
            FailureClass::RateLimited | FailureClass::Unauthorized | FailureClass::Blocked => {
                Some(Duration::ZERO)
            }
            _ if error.scope == Scope::Message && refused >= MESSAGE_CALLS => None,
            _ => Some(error.retry_after.unwrap_or(growing)),
        }
    }

    fn reported(&mut self, report: DeliveryReport, effects: &mut Vec<Effect<M>>) {
        let (id, contact) = (report.outbound, report.outbound.contact);
        if self.unknown.remove(&id).is_some() {
            self.lanes.free(contact, id, None);
            effects.push(Effect::Resolve(report));
        } else if self.lanes.is_busy(contact, id) {
            effects.push(Effect::Keep(report.clone()));
            self.reported.insert(id, report);
        } else if self.active.contains_key(&id) {
            for message in self.lanes.take(contact, |message| message.id() == id) {
                self.left(id);
                effects.push(Effect::SettleBy(message, report.clone()));
            }
        } else if let Some(place) = self.abandoned.iter().position(|(abandoned, _)| *abandoned == id) {
            self.abandoned.remove(place);
            effects.push(Effect::Lift(report));
        } else {
            effects.push(Effect::Acknowledge(report));
        }
    }

    fn waited(
        &mut self,
        id: OutboundId,
        purpose: Purpose,
        repeated: u32,
        now: Duration,
        effects: &mut Vec<Effect<M>>,
    ) {
        if self.unknown.remove(&id).is_none() {
            return;
        }
        match purpose {
            Purpose::Reply if repeated < self.policy.unknown_repeats => effects.push(Effect::Repeat(id)),
            Purpose::Reply | Purpose::Campaign | Purpose::Notice => {
                self.abandon(id, now);
                effects.push(Effect::GiveUp(id));
            }
        }
    }

    fn abandon(&mut self, id: OutboundId, now: Duration) {
        self.lanes.free(id.contact, id, None);
        if self.abandoned.len() >= ABANDONED_REMEMBERED {
            self.abandoned.pop_front();
        }
        self.abandoned.push_back((id, now));
    }

    /// Has a message that was of unknown outcome be sent again, before all others of its contact.
    pub fn repeat(&mut self, message: M) {
        let (id, contact) = (message.id(), message.contact());
        *self.active.entry(id).or_default() += 1;
        self.lanes.free(contact, id, Some(message));
    }

    /// Removes and returns a contact's waiting messages for which `is_meant` is true, and its sends of unknown outcome.
    pub fn erase(&mut self, contact: ContactId, is_meant: impl Fn(&M) -> bool) -> (Vec<M>, Vec<OutboundId>) {
        let waiting = self.lanes.take(contact, is_meant);
        waiting.iter().for_each(|message| self.left(message.id()));
        let unknown: Vec<_> = self.unknown.keys().filter(|id| id.contact == contact).copied().collect();
        for id in &unknown {
            self.unknown.remove(id);
            self.lanes.free(contact, *id, None);
        }
        (waiting, unknown)
    }

    /// Removes and returns all waiting messages, and ends every wait for an outcome: the tenant is deleted. Sends under
    /// way are not repeated.
    pub fn clear(&mut self) -> Vec<M> {
        let waiting = self.lanes.clear();
        waiting.iter().for_each(|message| self.left(message.id()));
        self.unknown.clear();
        self.abandoned.clear();
        self.erased.extend(self.active.keys().map(|id| id.contact));
        waiting
    }

    fn left(&mut self, id: OutboundId) {
        if let Some(count) = self.active.get_mut(&id) {
            *count -= 1;
            if *count == 0 {
                self.active.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests;
