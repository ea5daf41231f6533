//! What an account holds in memory. All of it is found again in rows when the account starts.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use heddle_schemas::id::OutboundId;
use heddle_schemas::ports::channel::Credentials;
use heddle_schemas::record::outbound::OutboundRecord;
use heddle_schemas::time::Timestamp;
use tokio::task::JoinSet;

use super::AccountMessage;
use super::breaker::Breaker;
use super::pacing::{Pace, Pairs};
use super::queue::Queue;
use super::send::Item;
use crate::partition::{Receipt, Timer};

/// Why an account does not send.
pub(super) struct Stopped {
    /// The credentials that were refused; others start the account.
    pub(super) credentials: Credentials,
    /// When one message is tried.
    pub(super) probe_at: Duration,
}

/// A send of unknown outcome.
pub(super) struct Unknown {
    pub(super) item: OutboundRecord,
    pub(super) stored: Bytes,
    /// How long webhooks had been taken in when the wait began.
    pub(super) since: Duration,
}

/// The part of the backlog that is not in memory. A row's number is the offset of its record, so the
/// backlog is in the order of the log, whenever a row was written.
#[derive(Default)]
pub(super) struct Backlog {
    /// Rows before it are in memory or gone.
    pub(super) next_read: u64,
    /// Rows from it on have not been written yet.
    pub(super) end: u64,
    /// What the next write will bring.
    pub(super) spilling: Vec<Item>,
    /// From which row on a write is under way.
    pub(super) writing: Option<u64>,
    /// How many rows there are, read or not: what operators see.
    pub(super) rows: i64,
}

impl Backlog {
    /// Whether rows wait to be read, or to be written.
    pub(super) fn is_empty(&self) -> bool {
        self.next_read >= self.end && self.spilling.is_empty()
    }

    /// The rows that may be read now.
    pub(super) fn readable(&self) -> std::ops::Range<u64> {
        self.next_read..self.writing.unwrap_or(self.end)
    }
}

/// What it holds in memory.
pub(super) struct AccountState {
    pub(super) loaded: bool,
    pub(super) queue: Queue<Item>,
    pub(super) backlog: Backlog,
    pub(super) unknown: BTreeMap<OutboundId, Unknown>,
    /// Those of them that have been waited for long enough, while the log is being read to its end.
    pub(super) overdue: Vec<OutboundId>,
    /// Messages under way or waiting in memory, and how often.
    pub(super) active: BTreeMap<OutboundId, u32>,
    /// Whether every record that was in the log when the partition was taken over has come by: until
    /// then, one that belongs before the backlog's rows may still come.
    pub(super) caught_up: bool,
    /// The agenda row that keeps this account awake while something waits.
    pub(super) row: Option<Timestamp>,
    pub(super) pace: Pace,
    pub(super) pairs: Pairs,
    pub(super) breaker: Breaker,
    pub(super) stopped: Option<Stopped>,
    /// Stopped before, and nothing has come through since.
    pub(super) proving: bool,
    /// The account is known to be disconnected.
    pub(super) cut_off: bool,
    pub(super) sends: JoinSet<()>,
    pub(super) look: Option<(Duration, Timer<AccountMessage>)>,
    pub(super) handled: u64,
    /// Records that ask to forget somebody, or to leave, and wait for rows that are being written.
    pub(super) forgetting: Vec<(OutboundRecord, Receipt)>,
}

impl AccountState {
    /// Whether nothing would be lost by leaving memory now.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty()
            && self.sends.is_empty()
            && self.backlog.spilling.is_empty()
            && self.unknown.is_empty()
            && self.stopped.is_none()
    }

    /// Whether anything is kept in rows that only this account finds again. What is under way counts: its
    /// backlog row stays until it is settled, and without an agenda row a crash would leave it lying.
    pub(super) fn waits(&self) -> bool {
        !self.active.is_empty() || !self.backlog.is_empty() || !self.unknown.is_empty()
    }

    pub(super) fn push(&mut self, item: Item) {
        *self.active.entry(item.command.id).or_default() += 1;
        self.queue.push(item.contact(), item);
    }

    pub(super) fn left(&mut self, outbound: OutboundId) {
        if let Some(count) = self.active.get_mut(&outbound) {
            *count -= 1;
            if *count == 0 {
                self.active.remove(&outbound);
            }
        }
    }
}
