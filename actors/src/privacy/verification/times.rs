//! Verification that rows end in time.

use std::time::Duration;

use heddle_schemas::ports::state::Row;
use heddle_schemas::promise::{Promise, Proof};
use heddle_schemas::retention::Kind;
use heddle_schemas::table::{Dated, Lifetime, Table};
use heddle_schemas::time::Timestamp;

use super::form::Holds;
use crate::tenant::configuration::Kept;

/// Time by which a clock may be ahead of another one, or a commit may be slow.
const SLACK: Duration = Duration::from_secs(300);
/// Time within which the store removes the bytes of a row that has ended and is not read any more.
const SWEPT_WITHIN: Duration = Duration::from_secs(86_400);

/// Delays that are no fault.
pub(super) struct Late {
    /// Time by which an act may come later than the channel stamped it.
    pub(super) stamped: Duration,
    /// Since when this node runs, where it began with the tenant as it is: what was to go before may be there.
    pub(super) resumed: Option<Timestamp>,
    /// False while the sweep of a shortened retention is still to come or under way.
    pub(super) is_swept: bool,
}

/// Returns by when something is to be gone that was to be gone at `end`, before this node began to run at `resumed`, where
/// `within` is the time that removal takes; `None` where it is overdue, or not due yet.
pub(super) fn due_by(
    resumed: Option<Timestamp>,
    end: Timestamp,
    within: Duration,
    now: Timestamp,
) -> Option<Timestamp> {
    let resumed = resumed.filter(|resumed| end < *resumed)?;
    let by = resumed.after(within);
    (end < now && now <= by).then_some(by)
}

/// Check of rows' ends.
pub(super) struct Times {
    proof: Proof,
    now: Timestamp,
    kept: Kept,
    late: Late,
    looked_at: u64,
    /// Rows that are due, and the last time by which they are to be gone.
    due: u64,
    due_by: Timestamp,
    /// Rows whose end the sweep under way moves.
    to_sweep: u64,
    /// Heads of an earlier build, which get their end with their next write.
    former_heads: u64,
    oldest: Option<Timestamp>,
}

impl Times {
    pub(super) fn new(kept: Kept, now: Timestamp, late: Late) -> Self {
        let (due, due_by, to_sweep) = (0, Timestamp::EPOCH, 0);
        let proof = Proof::new(Promise::Retention);
        Self { proof, now, kept, late, looked_at: 0, due, due_by, to_sweep, former_heads: 0, oldest: None }
    }

    /// Checks what holds for every row of a table.
    pub(super) fn ends(&mut self, row: &Row) {
        if !row.key.table().descriptor().lifetime.ends() {
            return;
        }
        self.looked_at += 1;
        if row.key.table() == Table::Head && row.expires.is_none() {
            // It is judged by its content.
            return;
        }
        match row.expires {
            None => self.proof.fault(format!("{:?}: it has no end", row.key)),
            Some(expires) if expires.after(SWEPT_WITHIN) < self.now => {
                let end = expires.after(SWEPT_WITHIN);
                match due_by(self.late.resumed, end, SWEPT_WITHIN, self.now) {
                    Some(by) => {
                        self.due += 1;
                        self.due_by = self.due_by.max(by);
                    }
                    None => self.proof.fault(format!(
                        "{:?}: its time was over at {expires}, and it is still there",
                        row.key
                    )),
                }
            }
            Some(_) => {}
        }
    }

    /// Checks what holds for a row by its content.
    pub(super) fn written(&mut self, row: &Row, holds: &Holds) {
        let Lifetime::Retention { kinds, dated } = row.key.table().descriptor().lifetime else { return };
        // An act that the channel stamped may have come later by as much as its redelivery takes.
        let (written, late, kind) = match (dated, holds) {
            (Dated::Thread, Holds::History(history)) => {
                let Some(written) = history.written() else { return };
                // A row of an earlier build that did not note its time has the channel's time of its content.
                let late = if history.at.is_some() { Duration::ZERO } else { self.late.stamped };
                (written, late, history.kind())
            }
            (Dated::Delivery, Holds::Delivery(delivery)) => (delivery.at, self.late.stamped, Kind::Receipts),
            (Dated::Head, Holds::Head { written, is_restricted, .. }) => match (row.expires, written) {
                // Restricted data is stored until the restriction ends.
                (_, _) if *is_restricted => return,
                (None, Some(_)) => {
                    self.proof.fault(format!("{:?}: it has no end", row.key));
                    return;
                }
                (_, None) => {
                    self.former_heads += 1;
                    return;
                }
                (Some(_), Some(written)) => (*written, Duration::ZERO, Kind::Messages),
            },
            (Dated::Thread | Dated::Delivery | Dated::Head, _) => {
                self.proof.fault(format!("{:?}: it does not say when it was written", row.key));
                return;
            }
        };
        if !kinds.contains(&kind) {
            self.proof.fault(format!("{:?}: it holds {kind}, which do not belong there", row.key));
        }
        if self.oldest.is_none_or(|oldest| written < oldest) {
            self.oldest = Some(written);
        }
        let Some(expires) = row.expires else { return };
        let latest = self.kept.end(kind, written.after(late).min(self.now)).after(SLACK);
        if expires > latest && !self.late.is_swept {
            self.to_sweep += 1;
        } else if expires > latest {
            self.proof.fault(format!("{:?}: written at {written}, it ends at {expires} only", row.key));
        }
    }

    pub(super) fn prove(mut self) -> Proof {
        let retention = &self.kept.tenant.retention;
        let kept = |kind| humantime::format_duration(retention.of(kind));
        let (messages, receipts) = (kept(Kind::Messages), kept(Kind::Receipts));
        self.proof.saw(format!(
            "the ends of {} rows, of messages within {messages}, of receipts within {receipts}",
            self.looked_at
        ));
        self.proof.count(self.looked_at);
        if self.due > 0 {
            self.proof.saw(format!(
                "{} rows were due while nothing ran; they are gone by {}",
                self.due, self.due_by
            ));
        }
        if self.to_sweep > 0 {
            self.proof.saw(format!(
                "{} rows are due under the shortened retention; the sweep that follows the change ends them, by {}",
                self.to_sweep,
                self.now.after(SWEPT_WITHIN)
            ));
        }
        if self.former_heads > 0 {
            self.proof.saw(format!(
                "{} conversations that an earlier build wrote, which get their end with their next message",
                self.former_heads
            ));
        }
        if let Some(oldest) = self.oldest {
            self.proof.saw(format!("the oldest of {oldest}"));
        }
        self.proof
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ended_while_nothing_ran_is_due_and_anything_else_overdue() {
        let at = Timestamp::from_secs;
        let (within, resumed) = (Duration::from_secs(100), at(1_000));
        let due = |resumed, end, now| due_by(resumed, at(end), within, at(now));
        assert_eq!(due(Some(resumed), 900, 1_001), Some(at(1_100)));
        assert_eq!(due(Some(resumed), 900, 1_101), None, "it had its time");
        assert_eq!(due(Some(resumed), 1_001, 1_050), None, "it ended while the node ran");
        assert_eq!(due(None, 900, 1_001), None, "the tenant is new here: nothing of it was left");
    }
}
