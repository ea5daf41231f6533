//! Decisions of an account, pure: `(state, event, now) -> effects`.
//!
//! | from | event | to |
//! |---|---|---|
//! | loading | its rows are read | running |
//! | running | a call is refused for the account's sake, or it is not configured | suspended, told once |
//! | suspended | its tenant is applied again, or the time of the probe has come | half-open |
//! | half-open | a call that left since comes through | running, told |
//! | half-open | a call that left since is refused for the account's sake | suspended |
//! | any but loading | it is disconnected, or its tenant's data stays elsewhere | disconnected |
//! | disconnected | it is configured again | running |
//!
//! Running, messages are prepared as the schedule has room. Half-open, one at a time. Suspended, nothing leaves, and
//! what is in memory is moved out of the log. Disconnected, everything is settled as withheld.
//!
//! A send of unknown outcome holds its lane until a status settles it, or until policy does: a reply is sent again
//! [`Policy::unknown_repeats`] times, then it is given up like a campaign's message. A status is worth something also
//! for what is under way, waits to be tried again, or has been given up a while ago; all others are acknowledged.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU32;
use std::time::Duration;

use heddle_schemas::id::{ContactId, OutboundId};
use heddle_schemas::ports::channel::{FailureClass, Scope, SendError};
use heddle_schemas::record::inbound::DeliveryReport;
use heddle_schemas::record::outbound::Purpose;
use heddle_schemas::sealed::Secret;

use super::schedule::lanes::{Lanes, Message};

/// Time that a message may keep its record in work before it is moved into rows.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// Sends of unknown outcome at which no further call is prepared until some are settled.
pub const UNKNOWN_MOST: usize = 1_024;
/// Sends given up that are remembered, and for how long, for a status that comes late. Later ones, and those after a
/// restart, are known to the conversation alone.
const GIVEN_UP_REMEMBERED: usize = 1_024;
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
}

/// A message that an account sends.
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
        /// The token that was refused.
        token: Secret,
        /// When one message is tried.
        probe_at: Duration,
    },
    /// It is disconnected: what waits is withheld.
    Disconnected,
}

/// How the account may be used, by its configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// With this token and limit.
    Ready {
        /// The token.
        token: Secret,
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
        /// Whether a call came through to the channel that left after the last suspension or pause.
        proves: bool,
    },
    /// The call was refused, and may be repeated.
    Refused {
        /// Why.
        error: SendError,
        /// Whether the call left after the last suspension or pause.
        is_current: bool,
    },
    /// The outcome is unknown; it is among the unknown rows now.
    Unknown {
        /// How long webhooks had been accepted for then.
        since: Duration,
    },
    /// It did not leave.
    Returned,
}

/// What an account learns.
#[derive(Debug)]
pub enum Event<M> {
    /// Its rows are read.
    Loaded,
    /// Its configuration is known, as it is now.
    Access(Access),
    /// Its tenant was applied, changed or not.
    Reapplied,
    /// A message is to be sent.
    Arrived(M),
    /// A send has ended; the call left then, if it did.
    Ended(M, End, Option<Duration>),
    /// A status of the channel came.
    Reported(DeliveryReport),
    /// A send of unknown outcome is found in its rows.
    FoundUnknown(OutboundId, Duration),
    /// A send of unknown outcome has been waited for, and everything in the log has been seen.
    Waited {
        /// Which.
        id: OutboundId,
        /// Why it was sent.
        purpose: Purpose,
        /// How often it was sent again.
        repeated: u32,
    },
    /// What is under way to this contact is not to be repeated: the contact is being erased.
    Erased(ContactId),
    /// Time has passed, and so many calls may be prepared; from this time on more may be.
    Tick {
        /// Calls that may be prepared now.
        room: usize,
        /// When more may be, where none may now.
        room_at: Duration,
    },
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub enum Effect<M> {
    /// Prepare a call and have it leave as the schedule says.
    Prepare(M),
    /// Settle a message as withheld: the account is disconnected.
    Withhold(M),
    /// Move what is in memory and still in the log into rows.
    Park,
    /// Have prepared calls come back.
    Recall,
    /// Let one call at a time leave, or all that may.
    Probe(bool),
    /// The account is suspended.
    Suspended {
        /// Whether that is to be told, and not only counted.
        is_new: bool,
        /// The channel's code.
        code: Option<i64>,
    },
    /// The account is not suspended any more.
    Unsuspended,
    /// The account sends again: that is to be told.
    Resumed,
    /// Come back then.
    WakeAt(Duration),
    /// Acknowledge a status: it changes nothing.
    Acknowledge(DeliveryReport),
    /// Keep a status: the message is under way, and its end says what the status is worth.
    Keep(DeliveryReport),
    /// Settle a message by a status that came before it could be called again.
    SettleBy(M, DeliveryReport),
    /// Settle a send of unknown outcome by its status.
    Resolve(DeliveryReport),
    /// Lift a send that was given up: it was taken after all.
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

/// A send of unknown outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unknown {
    /// How long webhooks had been accepted for when the wait began.
    pub since: Duration,
    /// Whether it has been waited for long enough, while the log is read to its end.
    pub is_over: bool,
}

/// State of an account.
#[derive(Debug)]
pub struct Machine<M> {
    policy: Policy,
    status: Status,
    /// The messages in memory.
    pub lanes: Lanes<M>,
    /// Sends of unknown outcome; above [`UNKNOWN_MOST`] only by what was under way.
    pub unknown: BTreeMap<OutboundId, Unknown>,
    /// Messages under way or waiting in memory, and how often: at most what lanes hold.
    active: BTreeMap<OutboundId, u32>,
    /// The last status of each message under way; at most one each.
    reported: BTreeMap<OutboundId, DeliveryReport>,
    /// Contacts that were erased while a message to them was under way.
    erased: BTreeSet<ContactId>,
    /// Sends given up, and when, the oldest first; at most [`GIVEN_UP_REMEMBERED`].
    given_up: VecDeque<(OutboundId, Duration)>,
    token: Secret,
}

impl<M: Sendable> Machine<M> {
    /// Returns an account whose rows are not read yet.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            lanes: Lanes::new(policy.queue),
            policy,
            status: Status::Loading,
            unknown: BTreeMap::new(),
            active: BTreeMap::new(),
            reported: BTreeMap::new(),
            erased: BTreeSet::new(),
            given_up: VecDeque::new(),
            token: Secret::default(),
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

    /// Returns from when on it may leave memory, if nothing else comes: no pair owes anything then, and no send was given
    /// up lately.
    #[must_use]
    pub fn idle_at(&self) -> Duration {
        let lifted_until = self.given_up.back().map_or(Duration::ZERO, |(_, at)| *at + GIVEN_UP_FOR);
        self.lanes.all_paid_at().max(lifted_until)
    }

    /// Takes an event, and returns what is to be done, in this order.
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
            (Access::Ready { token, .. }, status) => {
                let is_new = matches!(status, Status::Suspended { token: refused, .. } if *refused != token);
                if *status == Status::Disconnected {
                    self.status = Status::Running;
                }
                self.token = token;
                if is_new {
                    self.half_open(effects);
                }
            }
            (Access::Missing, Status::Suspended { .. }) => {}
            (Access::Missing, _) => {
                self.token = Secret::default();
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
            Status::Suspended { token: self.token.clone(), probe_at: now + self.policy.probe_after },
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
                    && let Some((_, message)) = self.lanes.next()
                {
                    effects.push(Effect::Withhold(message));
                }
            }
            Status::Running | Status::HalfOpen => {
                let room = if self.unknown.len() < UNKNOWN_MOST { room } else { 0 };
                let room = room.min((2 * self.policy.calls).saturating_sub(self.lanes.busy()));
                for _ in 0..room {
                    let Some((_, message)) = self.lanes.next() else { break };
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
                match Self::pause(&error, refused) {
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
                    // What comes back to a suspended account leaves the log as well.
                    Status::Suspended { .. } => effects.push(Effect::Park),
                    _ => {}
                }
            }
        }
    }

    /// Returns how long a refused message waits; `None` when it has been refused too often.
    fn pause(error: &SendError, refused: u32) -> Option<Duration> {
        let growing = (PAUSES.0 * 2_u32.saturating_pow(refused.min(16))).min(PAUSES.1);
        match error.class {
            FailureClass::PairLimited => {
                Some(Duration::from_secs(4_u64.pow(refused.saturating_sub(1).min(PAIR_STEPS))))
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
        } else if let Some(place) = self.given_up.iter().position(|(given_up, _)| *given_up == id) {
            self.given_up.remove(place);
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
            Purpose::Reply | Purpose::Campaign => {
                self.give_up(id, now);
                effects.push(Effect::GiveUp(id));
            }
        }
    }

    fn give_up(&mut self, id: OutboundId, now: Duration) {
        self.lanes.free(id.contact, id, None);
        if self.given_up.len() >= GIVEN_UP_REMEMBERED {
            self.given_up.pop_front();
        }
        self.given_up.push_back((id, now));
    }

    /// Has a message that was of unknown outcome be sent again, before all others of its contact.
    pub fn repeat(&mut self, message: M) {
        let (id, contact) = (message.id(), message.contact());
        *self.active.entry(id).or_default() += 1;
        self.lanes.free(contact, id, Some(message));
    }

    /// Takes out what waits for a contact and is meant, and what is of unknown outcome.
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

    /// Takes out everything that waits, and waits for no outcome any more: the tenant is deleted. What is under way is
    /// not repeated.
    pub fn clear(&mut self) -> Vec<M> {
        let waiting = self.lanes.clear();
        waiting.iter().for_each(|message| self.left(message.id()));
        self.unknown.clear();
        self.given_up.clear();
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
mod tests {
    use heddle_schemas::id::{MessageKey, TurnId};
    use heddle_schemas::record::inbound::DeliveryStatus;
    use heddle_schemas::time::Timestamp;
    use proptest::prelude::*;

    use super::super::schedule::Class;
    use super::*;

    const NOW: Duration = Duration::from_secs(1_000);
    const SECOND: Duration = Duration::from_secs(1);

    #[derive(Debug, Clone, PartialEq)]
    struct Text {
        to: u8,
        number: u16,
        since: Option<Duration>,
        refused: u32,
    }

    impl Message for Text {
        fn id(&self) -> OutboundId {
            id(self.to, self.number)
        }

        fn class(&self) -> Class {
            Class::Reply
        }
    }

    impl Sendable for Text {
        fn contact(&self) -> ContactId {
            contact(self.to)
        }

        fn in_log_since(&self) -> Option<Duration> {
            self.since
        }

        fn refused(&mut self, _: bool) -> u32 {
            self.refused += 1;
            self.refused
        }
    }

    fn contact(to: u8) -> ContactId {
        ContactId::from_bytes([to; 16])
    }

    fn id(to: u8, number: u16) -> OutboundId {
        OutboundId::of_turn(contact(to), TurnId(MessageKey::from_bytes([to; 16])), number)
    }

    fn text(to: u8, number: u16) -> Text {
        Text { to, number, since: None, refused: 0 }
    }

    fn report(to: u8, number: u16, status: DeliveryStatus) -> DeliveryReport {
        let at = Timestamp::from_secs(1);
        DeliveryReport { outbound: id(to, number), status, at, failure: None, message: None }
    }

    fn error(class: FailureClass) -> SendError {
        SendError { class, scope: Scope::Number, code: Some(1), detail: String::new(), retry_after: None }
    }

    fn refused(class: FailureClass) -> End {
        End::Refused { error: error(class), is_current: true }
    }

    fn unknown() -> End {
        End::Unknown { since: Duration::ZERO }
    }

    fn ready(token: &str) -> Event<Text> {
        Event::Access(Access::Ready { token: Secret::new(token), limit: NonZeroU32::MIN })
    }

    fn tick(room: usize) -> Event<Text> {
        Event::Tick { room, room_at: Duration::ZERO }
    }

    fn machine(messages: impl IntoIterator<Item = Text>) -> Machine<Text> {
        let policy = Policy { queue: 16, probe_after: 300 * SECOND, unknown_repeats: 1, calls: 8 };
        let mut machine = Machine::new(policy);
        machine.on(Event::Loaded, NOW);
        machine.on(ready("one"), NOW);
        for message in messages {
            machine.on(Event::Arrived(message), NOW);
        }
        machine
    }

    fn prepared(machine: &mut Machine<Text>, room: usize, now: Duration) -> Vec<Text> {
        let effects = machine.on(tick(room), now);
        effects
            .into_iter()
            .filter_map(|effect| match effect {
                Effect::Prepare(text) => Some(text),
                _ => None,
            })
            .collect()
    }

    fn one(machine: &mut Machine<Text>) -> Text {
        prepared(machine, 1, NOW).pop().unwrap()
    }

    #[test]
    fn nothing_is_prepared_before_the_rows_are_read() {
        let policy = Policy { queue: 16, probe_after: SECOND, unknown_repeats: 1, calls: 8 };
        let mut machine = Machine::new(policy);
        machine.on(Event::Arrived(text(1, 0)), NOW);
        assert_eq!(prepared(&mut machine, 8, NOW), []);
        machine.on(Event::Loaded, NOW);
        assert_eq!(prepared(&mut machine, 8, NOW), [text(1, 0)]);
    }

    #[test]
    fn a_refused_token_suspends_once_and_tells_once() {
        let mut machine = machine([text(1, 0), text(2, 0)]);
        let both = prepared(&mut machine, 2, NOW);
        let mut told = 0;
        for text in both {
            let effects = machine.on(Event::Ended(text, refused(FailureClass::Unauthorized), Some(NOW)), NOW);
            told += effects
                .iter()
                .filter(|effect| matches!(effect, Effect::Suspended { is_new: true, .. }))
                .count();
            assert!(effects.contains(&Effect::Park), "what comes back leaves the log");
        }
        assert_eq!((told, machine.lanes.len()), (1, 2), "nothing is lost");
        assert_eq!(prepared(&mut machine, 8, NOW + SECOND), []);
    }

    #[test]
    fn a_suspended_account_is_tried_again_after_a_while_and_told_only_when_it_sends() {
        let mut machine = machine([text(1, 0)]);
        let first = one(&mut machine);
        machine.on(Event::Ended(first, refused(FailureClass::Blocked), Some(NOW)), NOW);
        let later = NOW + 300 * SECOND;
        let effects = machine.on(tick(1), later);
        assert!(effects.contains(&Effect::Probe(true)) && effects.contains(&Effect::Unsuspended));
        let probe = prepared(&mut machine, 1, later).pop().unwrap();
        let effects = machine.on(Event::Ended(probe, refused(FailureClass::Blocked), Some(later)), later);
        assert!(effects.contains(&Effect::Suspended { is_new: false, code: Some(1) }));
        machine.on(tick(1), later + 300 * SECOND);
        let probe = prepared(&mut machine, 1, later + 300 * SECOND).pop().unwrap();
        let effects = machine.on(Event::Ended(probe, End::Settled { proves: true }, Some(later)), later);
        assert_eq!(effects, [Effect::Probe(false), Effect::Resumed]);
        assert_eq!(*machine.status(), Status::Running);
    }

    #[test]
    fn a_tenant_that_is_applied_again_has_a_suspended_account_tried_at_once() {
        let mut machine = machine([text(1, 0)]);
        let first = one(&mut machine);
        machine.on(Event::Ended(first, refused(FailureClass::Blocked), Some(NOW)), NOW);
        assert!(!machine.asks_access(NOW + SECOND));
        assert_eq!(machine.on(Event::Reapplied, NOW + SECOND), [Effect::WakeAt(NOW + SECOND)]);
        assert!(machine.asks_access(NOW + SECOND));
        machine.on(tick(1), NOW + SECOND);
        assert_eq!(prepared(&mut machine, 1, NOW + SECOND).len(), 1, "with the same token too");
    }

    #[test]
    fn a_call_from_before_the_suspension_neither_ends_nor_renews_it() {
        let mut machine = machine([text(1, 0), text(2, 0), text(3, 0)]);
        let mut under_way = prepared(&mut machine, 3, NOW);
        let first = under_way.remove(0);
        machine.on(Event::Ended(first, refused(FailureClass::Unauthorized), Some(NOW)), NOW);
        machine.on(ready("two"), NOW);
        assert_eq!(*machine.status(), Status::HalfOpen, "another token");
        let old = End::Refused { error: error(FailureClass::Unauthorized), is_current: false };
        machine.on(Event::Ended(under_way.remove(0), old, Some(NOW)), NOW);
        assert_eq!(*machine.status(), Status::HalfOpen);
        machine.on(Event::Ended(under_way.remove(0), End::Settled { proves: false }, Some(NOW)), NOW);
        assert_eq!(*machine.status(), Status::HalfOpen);
    }

    #[test]
    fn what_waits_for_a_disconnected_account_is_withheld_until_it_is_configured_again() {
        let mut machine = machine([text(1, 0), text(2, 0)]);
        machine.on(Event::Access(Access::Disconnected), NOW);
        let effects = machine.on(tick(8), NOW);
        assert_eq!(effects, [Effect::Withhold(text(1, 0)), Effect::Withhold(text(2, 0))]);
        machine.on(Event::Arrived(text(3, 0)), NOW);
        machine.on(ready("one"), NOW);
        assert_eq!(prepared(&mut machine, 8, NOW), [text(3, 0)]);
    }

    #[test]
    fn a_reply_of_unknown_outcome_is_sent_again_once_and_then_given_up() {
        let mut machine = machine([text(1, 0), text(1, 1)]);
        let first = one(&mut machine);
        machine.on(Event::Ended(first, unknown(), Some(NOW)), NOW);
        assert_eq!(prepared(&mut machine, 8, NOW), [], "what follows waits");
        let waited = |repeated| Event::Waited { id: id(1, 0), purpose: Purpose::Reply, repeated };
        assert_eq!(machine.on(waited(0), NOW), [Effect::Repeat(id(1, 0))]);
        machine.repeat(text(1, 0));
        let again = one(&mut machine);
        assert_eq!(again, text(1, 0), "before what follows");
        machine.on(Event::Ended(again, unknown(), Some(NOW)), NOW);
        assert_eq!(machine.on(waited(1), NOW), [Effect::GiveUp(id(1, 0))]);
        assert_eq!(prepared(&mut machine, 8, NOW), [text(1, 1)], "its lane is free");
        let late = report(1, 0, DeliveryStatus::Delivered);
        assert_eq!(machine.on(Event::Reported(late.clone()), NOW), [Effect::Lift(late.clone())]);
        assert_eq!(machine.on(Event::Reported(late.clone()), NOW), [Effect::Acknowledge(late)]);
    }

    #[test]
    fn a_campaigns_message_of_unknown_outcome_is_never_sent_again() {
        let mut machine = machine([text(1, 0)]);
        let first = one(&mut machine);
        machine.on(Event::Ended(first, unknown(), Some(NOW)), NOW);
        let waited = Event::Waited { id: id(1, 0), purpose: Purpose::Campaign, repeated: 0 };
        assert_eq!(machine.on(waited, NOW), [Effect::GiveUp(id(1, 0))]);
    }

    #[test]
    fn a_status_settles_what_waits_to_be_tried_again() {
        let mut machine = machine([text(1, 0), text(1, 1)]);
        let first = one(&mut machine);
        machine.on(Event::Ended(first, refused(FailureClass::Temporary), Some(NOW)), NOW);
        let read = report(1, 0, DeliveryStatus::Read);
        let effects = machine.on(Event::Reported(read.clone()), NOW);
        assert_eq!(effects, [Effect::SettleBy(Text { refused: 1, ..text(1, 0) }, read)]);
        assert_eq!(prepared(&mut machine, 8, NOW + 60 * SECOND), [text(1, 1)]);
    }

    #[test]
    fn a_status_that_comes_while_the_call_is_under_way_decides_its_end() {
        let sent = report(1, 0, DeliveryStatus::Sent);
        for (end, settled) in [
            (refused(FailureClass::Temporary), Effect::SettleBy(text(1, 0), sent.clone())),
            (unknown(), Effect::Resolve(sent.clone())),
            (End::Settled { proves: true }, Effect::Release(id(1, 0))),
        ] {
            let mut machine = machine([text(1, 0)]);
            let first = one(&mut machine);
            assert_eq!(machine.on(Event::Reported(sent.clone()), NOW), [Effect::Keep(sent.clone())]);
            assert_eq!(machine.on(Event::Ended(first, end, Some(NOW)), NOW), [settled]);
            assert!(machine.is_empty());
        }
    }

    #[test]
    fn what_was_under_way_when_its_contact_was_erased_is_not_repeated() {
        for end in [refused(FailureClass::Temporary), refused(FailureClass::RateLimited), End::Returned] {
            let mut machine = machine([text(1, 0)]);
            let first = one(&mut machine);
            machine.on(Event::Erased(contact(1)), NOW);
            let effects = machine.on(Event::Ended(first, end, Some(NOW)), NOW);
            assert_eq!(effects, [Effect::Release(id(1, 0)), Effect::Drop(id(1, 0), Some(text(1, 0)))]);
            assert_eq!(prepared(&mut machine, 8, NOW + 60 * SECOND), []);
        }
        let mut machine = machine([text(1, 0)]);
        let first = one(&mut machine);
        machine.on(Event::Erased(contact(1)), NOW);
        let effects = machine.on(Event::Ended(first, unknown(), Some(NOW)), NOW);
        assert_eq!(effects, [Effect::Release(id(1, 0)), Effect::Drop(id(1, 0), None)]);
        assert!(machine.is_empty(), "nobody waits for its status");
    }

    #[test]
    fn sends_of_unknown_outcome_are_bounded() {
        let mut machine = machine([]);
        for number in 0..UNKNOWN_MOST {
            let number = u16::try_from(number).unwrap();
            machine.on(Event::FoundUnknown(id(9, number), Duration::ZERO), NOW);
        }
        machine.on(Event::Arrived(text(1, 0)), NOW);
        assert_eq!(prepared(&mut machine, 8, NOW), []);
        machine.on(Event::Reported(report(9, 0, DeliveryStatus::Sent)), NOW);
        assert_eq!(prepared(&mut machine, 8, NOW), [text(1, 0)]);
    }

    #[test]
    fn a_pairs_pause_counts_the_pairs_refusals_and_is_bounded() {
        let pauses: Vec<_> = (1..9)
            .map(|refused| Machine::<Text>::pause(&error(FailureClass::PairLimited), refused).unwrap())
            .collect();
        assert_eq!(
            pauses.iter().map(Duration::as_secs).collect::<Vec<_>>(),
            [1, 4, 16, 64, 256, 1024, 1024, 1024]
        );
    }

    #[test]
    fn a_failure_of_one_message_alone_is_final_after_some_calls() {
        let mut machine = machine([text(1, 0)]);
        let alone = || SendError { scope: Scope::Message, ..error(FailureClass::Temporary) };
        let mut now = NOW;
        for call in 1..=MESSAGE_CALLS {
            let message = prepared(&mut machine, 1, now).pop().unwrap();
            let end = End::Refused { error: alone(), is_current: true };
            let effects = machine.on(Event::Ended(message, end, Some(now)), now);
            assert_eq!(
                effects.iter().any(|effect| matches!(effect, Effect::Fail(..))),
                call == MESSAGE_CALLS
            );
            now += 60 * SECOND;
        }
        assert!(machine.is_empty());
    }

    #[test]
    fn an_account_stays_in_memory_for_as_long_as_a_burst_owes() {
        let mut machine = machine([]);
        for number in 0..45 {
            machine.on(Event::Arrived(text(1, number)), NOW);
            let message = one(&mut machine);
            machine.on(Event::Ended(message, End::Settled { proves: true }, Some(NOW)), NOW);
        }
        assert!(!machine.is_idle(NOW + 269 * SECOND));
        assert!(machine.is_idle(NOW + 270 * SECOND));
    }

    proptest! {
        /// Whatever happens, in whichever order: a message is under way once, nothing is lost, and when everything is
        /// over nothing is left in memory.
        #[test]
        fn nothing_is_lost_or_doubled(steps in proptest::collection::vec((0_u8..12, 0_u8..3), 1..300)) {
            let mut machine = machine([]);
            let (mut now, mut next) = (NOW, [0_u16; 3]);
            let mut under_way: BTreeMap<OutboundId, Text> = BTreeMap::new();
            let (mut arrived, mut over) = (0, 0);
            for (step, to) in steps {
                now += SECOND / 3;
                let mut effects = Vec::new();
                let is_any_under_way = !under_way.is_empty();
                let mut end = |machine: &mut Machine<Text>, end: End| match under_way.pop_first() {
                    Some((_, text)) => machine.on(Event::Ended(text, end, Some(now)), now),
                    None => Vec::new(),
                };
                match step {
                    0..3 => {
                        effects.extend(machine.on(Event::Arrived(text(to, next[usize::from(to)])), now));
                        next[usize::from(to)] += 1;
                        arrived += 1;
                    }
                    3 | 4 => effects.extend(machine.on(tick(2), now)),
                    5 => {
                        over += usize::from(is_any_under_way);
                        effects.extend(end(&mut machine, End::Settled { proves: true }));
                    }
                    6 => effects.extend(end(&mut machine, refused(FailureClass::Temporary))),
                    7 => effects.extend(end(&mut machine, refused(FailureClass::Unauthorized))),
                    8 => effects.extend(end(&mut machine, unknown())),
                    9 => effects.extend(machine.on(Event::Reapplied, now)),
                    10 => if let Some((&id, _)) = machine.unknown.first_key_value() {
                        effects.extend(machine.on(Event::Waited { id, purpose: Purpose::Reply, repeated: 1 }, now));
                    },
                    _ => if let Some((&id, _)) = machine.unknown.first_key_value() {
                        let status = DeliveryStatus::Sent;
                        let at = Timestamp::from_secs(1);
                        let report = DeliveryReport { outbound: id, status, at, failure: None, message: None };
                        effects.extend(machine.on(Event::Reported(report), now));
                    },
                }
                for effect in effects {
                    match effect {
                        Effect::Prepare(text) => {
                            let is_suspended = matches!(machine.status(), Status::Suspended { .. });
                            prop_assert!(!is_suspended, "nothing leaves");
                            prop_assert!(under_way.insert(text.id(), text).is_none(), "twice under way");
                        }
                        Effect::GiveUp(_) | Effect::Resolve(_) => over += 1,
                        _ => {}
                    }
                }
                let there = machine.lanes.len() + under_way.len() + machine.unknown.len();
                prop_assert_eq!(there + over, arrived);
                prop_assert_eq!(machine.lanes.busy(), under_way.len());
            }
        }
    }
}
