//! Decisions about a conversation's turns, without IO: (state, event, now) to (state, effects).
//!
//! The state is the stored [`Head`] and the turn under way on this node. The actor applies an event to a copy, performs
//! the effects, commits, and keeps the copy once the batch is durable; so memory always equals the stored state.
//!
//! ```text
//!              act                wake                  end
//! (no message) ---> armed ------------------> running ------> decided, armed again where messages wait
//!                     |                         |
//!                     | wake, loop guard        | handler: human, restrict
//!                     v                         v
//!                   silent                   revoked ---end--> decided, its answer is discarded
//! ```
//!
//! Contract: at most one turn runs. While anything is open, an agenda row is armed or a turn runs. A message is covered
//! by one turn, unless it is deleted before that begins or the conversation is handed over. An edit or a deletion of a
//! message that the turn under way does not cover changes the next turn. A turn during which a human had the
//! conversation is not published, also where the agent has it back by then.

use std::time::Duration;

use heddle_schemas::content::Asks;
use heddle_schemas::id::{MessageKey, TurnId};
use heddle_schemas::record::event::HandOver;
use heddle_schemas::record::inbound::{ActKind, Handler};
use heddle_schemas::tenant::LoopGuard;
use heddle_schemas::time::Timestamp;

use super::head::{Head, Open, Wake};
use super::loop_guard::{Fingerprint, Stopped};

/// Pause before the next check of an agenda row that is due beside a running turn.
const BESIDE: Duration = Duration::from_secs(1);

/// State of one conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Machine {
    /// State as stored.
    pub(super) head: Head,
    /// Turn under way on this node.
    pub(super) running: Option<Running>,
}

/// Turn under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Running {
    /// Its number among the turns begun since the actor started.
    pub(super) number: u64,
    /// Due time of the agenda row that began it.
    pub(super) due: Timestamp,
    /// Number of open messages that it covers, from the first on.
    covers: usize,
    /// True when the conversation was handed over after the turn began.
    revoked: bool,
    /// Fingerprint of the customer's text in it, for the loop guard.
    pub(super) said: Fingerprint,
}

/// Act of the customer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Act<'a> {
    /// The message.
    pub(super) key: MessageKey,
    /// Number of its history row.
    pub(super) row: u64,
    /// Kind of the act.
    pub(super) kind: ActKind,
    /// Message that it changes.
    pub(super) target: Option<MessageKey>,
    /// Question of the act.
    pub(super) asks: Asks<'a>,
    /// Time of the act, by the channel's clock; `None` for a notice of the channel, which opens no window.
    pub(super) said_at: Option<Timestamp>,
    /// Time of its acceptance.
    pub(super) accepted_at: Timestamp,
    /// True for a stop word for which the tenant has no text: recorded, and not answered.
    pub(super) is_silent_stop: bool,
}

/// Consequences of an act.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Acted {
    /// The turn that answers it.
    pub(super) turn: Option<TurnId>,
    /// It came too late to be answered.
    pub(super) is_late: bool,
    /// The open message whose text it replaces.
    pub(super) edited: Option<MessageKey>,
}

/// Change of the handler, to be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Handed over to a human.
    HandedOver(HandOver),
    /// The agent does again.
    GivenBack,
    /// No turn: the loop guard stopped the conversation.
    LoopStopped {
        /// Identical rounds that were answered.
        rounds: u32,
    },
}

/// Decision of a turn, as far as it changes the state.
#[derive(Debug)]
pub(super) struct Decision<'a> {
    /// The messages that it covers; at least one.
    pub(super) covered: &'a [MessageKey],
    /// Number of the history row that holds its replies.
    pub(super) row: u64,
    /// Fingerprint of the question, for the loop guard.
    pub(super) said: Fingerprint,
    /// Reply.
    pub(super) texts: &'a [String],
    /// Why a human answers from now on.
    pub(super) hand_over: Option<HandOver>,
}

impl Running {
    /// Begins a turn over the first `covers` open messages.
    pub(super) fn new(number: u64, due: Timestamp, covers: usize, said: Fingerprint) -> Self {
        Self { number, due, covers, revoked: false, said }
    }
}

/// Returns the action for a due agenda row.
pub(super) fn wake(head: &Head, running: Option<&Running>, due: Timestamp, now: Timestamp) -> Wake {
    match running {
        Some(running) if running.due == due => Wake::Running,
        Some(_) => Wake::NotBefore(now.after(BESIDE)),
        None => head.wake(due, now),
    }
}

impl Machine {
    /// Applies an act of the customer.
    pub(super) fn act(
        &mut self,
        act: &Act<'_>,
        now: Timestamp,
        settle: Duration,
        answer_within: Duration,
    ) -> Acted {
        let covers = self.covers();
        let head = &mut self.head;
        let mut acted = Acted::default();
        if let Some(said_at) = act.said_at.filter(|_| act.kind == ActKind::Say) {
            head.customer_at = head.customer_at.max(said_at);
        }
        let text = matches!(act.asks, Asks::Answer(_));
        match (act.kind, act.target) {
            (ActKind::Say, _) if act.asks == Asks::Nothing => {}
            // A human reads it in the thread; or it is only recorded.
            (ActKind::Say, _) if !head.is_answered() => {}
            // A replay from the dead-letter topic, or the end of an outage: an answer would surprise, and outside the
            // customer-service window a channel refuses it.
            (ActKind::Say, _) if now.since(act.accepted_at) > answer_within => acted.is_late = true,
            // The intake has recorded the opt-out.
            (ActKind::Say, _) if act.is_silent_stop => {}
            (ActKind::Say, _) => {
                let open = Open { key: act.key, row: act.row, text, at: act.accepted_at };
                acted.turn = Some(head.say(open, now, settle, covers));
            }
            (ActKind::Edit, Some(target)) if head.edit(target, act.row, text, covers) => {
                acted.edited = Some(target);
            }
            (ActKind::Delete, Some(target)) => {
                head.delete(target, covers);
            }
            _ => {}
        }
        acted
    }

    /// Returns true when a turn over the one open message may be decided together with recording it.
    pub(super) fn may_decide_at_once(&self, settle: Duration) -> bool {
        let head = &self.head;
        settle.is_zero() && self.running.is_none() && head.open.len() == 1 && head.agenda.is_none()
    }

    /// Changes the handler on the tenant's command.
    pub(super) fn handler(&mut self, by: Handler, now: Timestamp) -> Option<Change> {
        match by {
            Handler::Human => self.hand_over(HandOver::Human, now),
            Handler::Agent => self.head.give_back().then_some(Change::GivenBack),
        }
    }

    /// Restricts processing, so that messages are only recorded, or ends the restriction.
    pub(super) fn restrict(&mut self, restricted: bool, now: Timestamp) {
        self.head.restrict(restricted, now);
        if restricted {
            self.revoke();
        }
    }

    fn hand_over(&mut self, because: HandOver, now: Timestamp) -> Option<Change> {
        self.revoke();
        self.head.hand_over(now).then_some(Change::HandedOver(because))
    }

    /// Closes the messages that the turn under way covers.
    fn revoke(&mut self) {
        if let Some(running) = &mut self.running {
            (running.covers, running.revoked) = (0, true);
        }
    }

    /// Returns the number of open messages that the turn under way covers.
    pub(super) fn covers(&self) -> usize {
        self.running.map_or(0, |running| running.covers)
    }

    /// Decides whether the loop guard stops a turn with this question: `None` where it is answered. A stopped turn is
    /// decided without a call outside.
    pub(super) fn stops(&mut self, said: Fingerprint, now: Timestamp, guard: &LoopGuard) -> Option<Stopped> {
        self.head.rounds.stops(said, now, guard)
    }

    /// Ends the turn under way. Returns true if its answer is published.
    pub(super) fn end(&mut self) -> bool {
        let revoked = self.running.take().is_some_and(|running| running.revoked);
        self.head.is_answered() && !revoked
    }

    /// Applies the decision of a turn.
    pub(super) fn decide(
        &mut self,
        decision: &Decision<'_>,
        now: Timestamp,
        guard: &LoopGuard,
    ) -> Option<Change> {
        let &Decision { covered, row, said, texts, hand_over } = decision;
        self.head.decide(TurnId(covered[0]), covered, row);
        if !texts.is_empty() && guard.rounds > 0 {
            let replied = Fingerprint::of(texts.iter().map(|text| Some(text.as_str())));
            self.head.rounds.answered(said, replied, now, guard);
        }
        hand_over.and_then(|because| self.hand_over(because, now))
    }
}

#[cfg(test)]
mod tests;
