//! Draft: changes to a conversation until they are durable.
//!
//! A draft is made, and turned into a batch ([`Publication::batch`](super::publication::Publication::batch)), without
//! any await: the actor holds one box across its waits and not every part of a batch.

use heddle_schemas::content::Address;
use heddle_schemas::id::{MessageKey, TurnId};
use heddle_schemas::record::event::HandOver;
use heddle_schemas::record::inbound::Handler;
use heddle_schemas::tenant::{LoopAction, LoopGuard};
use heddle_schemas::time::Timestamp;

use super::contact_limits::TurnUsage;
use super::head::{Corrected, Head};
use super::loop_guard::Fingerprint;
use super::machine::{Change, Decision, Machine, Running};
use super::request::Requested;
use super::thread::{EntrySaid, Row, Spent, Tally};
use super::turn::Ended;
use crate::tenant::quota::Hold;

/// Changes to a conversation that are not durable yet.
pub(super) struct Draft {
    /// Time at which it is applied.
    pub(super) now: Timestamp,
    /// The number of the history row.
    pub(super) number: u64,
    /// The history row.
    pub(super) row: Row,
    /// The state as it will be.
    pub(super) machine: Machine,
    /// The address as it will be, where it changes.
    pub(super) address: Option<Address>,
    /// The correction of the name as it will be, where it changes.
    pub(super) corrected: Option<Option<Corrected>>,
    /// The previous names as they will be, where they change.
    pub(super) former_names: Option<Vec<String>>,
    /// The message that is seen with it, and the turn it belongs to.
    pub(super) seen: Option<(MessageKey, Option<TurnId>)>,
    /// The agenda row to write.
    pub(super) due: Option<Timestamp>,
    /// The agenda row to delete.
    pub(super) done: Option<Timestamp>,
    /// The turn that is decided with it; its replies are in the row.
    pub(super) decided: Option<(TurnId, Tally)>,
    /// The message that the tenant sends.
    pub(super) requested: Option<Requested>,
    /// Quota reservation of the turn, until it is durable.
    pub(super) hold: Option<Hold>,
    /// Changes of the handler, to be published; two at most, where a loop goes to a human.
    pub(super) changes: Vec<Change>,
}

impl Draft {
    /// A row on top of this state.
    pub(super) fn new(head: &Head, running: Option<Running>, now: Timestamp) -> Self {
        let mut head = head.clone();
        let number = head.take_row();
        Self {
            now,
            number,
            row: Row { at: Some(now), ..Row::default() },
            machine: Machine { head, running },
            address: None,
            corrected: None,
            former_names: None,
            seen: None,
            due: None,
            done: None,
            decided: None,
            requested: None,
            hold: None,
            changes: Vec::new(),
        }
    }

    /// Adds the result of a turn. The turn before it has to be published: the head remembers the last turn only.
    pub(super) fn decide(&mut self, ended: Ended, said: Fingerprint, guard: &LoopGuard) {
        let decision = Decision {
            covered: &ended.covered,
            row: self.number,
            said,
            texts: &ended.texts,
            hand_over: ended.hand_over,
        };
        let change = self.machine.decide(&decision, self.now, guard);
        let of_contact = ended.of_contact();
        if of_contact != TurnUsage::default() {
            self.machine.head.usage.get_or_insert_default().decided(of_contact, self.now);
        }
        self.changes.extend(change);
        let turn = TurnId(ended.covered[0]);
        let spent = ended.hold.as_ref().map(|hold| Spent { chunk: hold.chunk(), number: ended.number });
        let tally = Tally {
            messages: u32::try_from(ended.covered.len()).unwrap_or(u32::MAX),
            outcome: ended.outcome.into(),
            attempts: ended.attempts,
            input_tokens: ended.usage.input_tokens,
            output_tokens: ended.usage.output_tokens,
            money: ended.usage.money,
            spent,
        };
        let Ended { texts, sources, sent, hold, .. } = ended;
        self.row.entries.push(EntrySaid::Agent {
            turn,
            at: self.now,
            texts,
            sources,
            sent,
            tally: tally.clone(),
        });
        self.decided = Some((turn, tally));
        self.hold = hold;
    }

    /// The turn over these messages as the loop guard decides it; `None` where it is answered. Whether the guard stops
    /// it was decided when the turn began; that it does is counted here.
    pub(super) fn stopped(
        &mut self,
        covered: Vec<MessageKey>,
        said: Fingerprint,
        guard: &LoopGuard,
    ) -> Option<Ended> {
        let stopped = self.machine.stops(said, self.now, guard)?;
        if stopped.is_new {
            self.changes.push(Change::LoopStopped { rounds: stopped.rounds });
        }
        let hand_over = (guard.then == LoopAction::HandOver).then_some(HandOver::Loop);
        Some(Ended { hand_over, ..Ended::silent(covered) })
    }

    /// Restricts processing on the customer's request, or ends that.
    pub(super) fn restrict(&mut self, restricted: bool) {
        self.row.entries.push(EntrySaid::Restricted { at: self.now, restricted });
        self.machine.restrict(restricted, self.now);
    }

    /// Changes the handler on the tenant's command.
    pub(super) fn handle(&mut self, by: Handler) {
        self.row.entries.push(EntrySaid::Tenant { at: self.now, handler: by });
        let change = self.machine.handler(by, self.now);
        self.changes.extend(change);
    }

    /// Settles the reservation once the draft is durable: the unspent part is free again.
    pub(super) fn settle(&mut self) {
        if let (Some(hold), Some((_, tally))) = (self.hold.take(), &self.decided) {
            hold.settle(tally.totals(self.texts()).amounts());
        }
    }

    fn texts(&self) -> usize {
        self.decided
            .as_ref()
            .and_then(|(turn, _)| self.row.replies_of(*turn))
            .map_or(0, |decided| decided.texts.len())
    }
}
