//! Whether rows end in time.

use std::time::Duration;

use heddle_schemas::ports::state::Row;
use heddle_schemas::promise::{Promise, Proof};
use heddle_schemas::retention::{Kind, Retention};
use heddle_schemas::table::Table;
use heddle_schemas::tenant::Tenant;
use heddle_schemas::time::Timestamp;

use super::form::Holds;
use crate::conversation::thread::EntrySaid;

/// A clock may be so far ahead of another one, and a commit may take so long.
const SLACK: Duration = Duration::from_secs(300);
/// A row whose time is over is not read any more, and its bytes have so long to go.
const SWEPT_WITHIN: Duration = Duration::from_secs(86_400);

/// Looks at the ends of rows.
pub(super) struct Times {
    proof: Proof,
    now: Timestamp,
    retention: Retention,
    late: Duration,
    looked_at: u64,
    oldest: Option<Timestamp>,
}

impl Times {
    pub(super) fn new(tenant: &Tenant, now: Timestamp, late: Duration) -> Self {
        let retention = tenant.retention.clone();
        Self { proof: Proof::new(Promise::Retention), now, retention, late, looked_at: 0, oldest: None }
    }

    /// What is true of every row of a table.
    pub(super) fn ends(&mut self, row: &Row) {
        let ends = matches!(
            row.key.table(),
            Table::History
                | Table::Marker
                | Table::Claim
                | Table::Delivery
                | Table::Send
                | Table::Spend
                | Table::Tool
        );
        if !ends {
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

    /// What is true of a row by what it holds.
    pub(super) fn written(&mut self, row: &Row, holds: &Holds) {
        // What the channel stamped may have come later by as much as it is delivered again.
        let (written, late, kept) = match holds {
            Holds::History(history) => {
                let mut written: Option<(Timestamp, Duration)> = None;
                for entry in &history.entries {
                    let (at, late) = match entry {
                        EntrySaid::Customer { at, .. } => (*at, self.late),
                        EntrySaid::Agent { at, .. }
                        | EntrySaid::Tenant { at, .. }
                        | EntrySaid::Restricted { at, .. } => (*at, Duration::ZERO),
                    };
                    if written.is_none_or(|(before, _)| at > before) {
                        written = Some((at, late));
                    }
                }
                let Some((at, late)) = written else { return };
                (at, late, self.retention.of(history.kind()))
            }
            Holds::Delivery(delivery) => (delivery.at, self.late, self.retention.of(Kind::Receipts)),
            _ => return,
        };
        if self.oldest.is_none_or(|oldest| written < oldest) {
            self.oldest = Some(written);
        }
        let Some(expires) = row.expires else { return };
        let latest = written.after(late).min(self.now).after(kept).after(SLACK);
        if expires > latest {
            self.proof.fault(format!("{:?}: written at {written}, it ends at {expires} only", row.key));
        }
    }

    pub(super) fn prove(mut self) -> Proof {
        let kept = humantime::format_duration(self.retention.messages);
        self.proof.saw(format!("the ends of {} rows, of messages within {kept}", self.looked_at));
        if let Some(oldest) = self.oldest {
            self.proof.saw(format!("the oldest of {oldest}"));
        }
        self.proof
    }
}
