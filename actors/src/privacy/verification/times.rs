//! Verification that rows end in time.

use std::time::Duration;

use heddle_schemas::ports::state::Row;
use heddle_schemas::promise::{Promise, Proof};
use heddle_schemas::retention::Kind;
use heddle_schemas::table::{Dated, Lifetime};
use heddle_schemas::time::Timestamp;

use super::form::Holds;
use crate::tenant::configuration::Kept;

/// Time by which a clock may be ahead of another one, or a commit may be slow.
const SLACK: Duration = Duration::from_secs(300);
/// Time within which the store removes the bytes of a row that has ended and is not read any more.
const SWEPT_WITHIN: Duration = Duration::from_secs(86_400);

/// Check of rows' ends.
pub(super) struct Times {
    proof: Proof,
    now: Timestamp,
    kept: Kept,
    late: Duration,
    looked_at: u64,
    oldest: Option<Timestamp>,
}

impl Times {
    pub(super) fn new(kept: Kept, now: Timestamp, late: Duration) -> Self {
        Self { proof: Proof::new(Promise::Retention), now, kept, late, looked_at: 0, oldest: None }
    }

    /// Checks what holds for every row of a table.
    pub(super) fn ends(&mut self, row: &Row) {
        if !row.key.table().descriptor().lifetime.ends() {
            return;
        }
        self.looked_at += 1;
        match row.expires {
            None => self.proof.fault(format!("{:?}: it has no end", row.key)),
            Some(expires) if expires.after(SWEPT_WITHIN) < self.now => {
                self.proof
                    .fault(format!("{:?}: its time was over at {expires}, and it is still there", row.key));
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
                let late = if history.at.is_some() { Duration::ZERO } else { self.late };
                (written, late, history.kind())
            }
            (Dated::Delivery, Holds::Delivery(delivery)) => (delivery.at, self.late, Kind::Receipts),
            (Dated::Thread | Dated::Delivery, _) => {
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
        if expires > latest {
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
        if let Some(oldest) = self.oldest {
            self.proof.saw(format!("the oldest of {oldest}"));
        }
        self.proof
    }
}
