//! State of an account in memory. All of it is read from rows again when the account starts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use heddle_schemas::id::OutboundId;
use heddle_schemas::record::outbound::OutboundRecord;
use heddle_schemas::time::Timestamp;
use tokio::task::JoinSet;

use super::AccountMessage;
use super::machine::Machine;
use super::send::gate::Gate;
use super::sources::Item;
use super::sources::backlog::{Backlog, Cursor};
use super::sources::log::Delivered;
use super::sources::unknown::Unknowns;
use crate::partition::{Receipt, Timer};

/// State of an account in memory.
pub(super) struct AccountState {
    pub(super) machine: Machine<Item>,
    pub(super) gate: Arc<Gate>,
    pub(super) cursor: Cursor,
    pub(super) delivered: Delivered,
    pub(super) backlog: Backlog,
    pub(super) unknowns: Unknowns,
    /// Sends of unknown outcome that have been waited for long enough, while the log is being read to its end.
    pub(super) overdue: Vec<OutboundId>,
    /// Statuses of messages under way, whose records are acknowledged when the call ends.
    pub(super) kept: BTreeMap<OutboundId, Vec<Receipt>>,
    /// Statuses that change nothing, to be acknowledged together. They keep their records in work, so there are at most
    /// `permits_per_partition`.
    pub(super) seen: Vec<Receipt>,
    pub(super) is_acknowledging: bool,
    /// Messages under way, each with a flag that its contact is being erased; at most as many as lanes have under way.
    pub(super) under_way: BTreeMap<OutboundId, Arc<AtomicBool>>,
    /// The agenda row that keeps this account awake while something waits.
    pub(super) row: Option<Timestamp>,
    /// Sends and writes; with them the task of the gate.
    pub(super) tasks: JoinSet<()>,
    pub(super) gate_task: JoinSet<()>,
    pub(super) wake: Option<(Duration, Timer<AccountMessage>)>,
    pub(super) handled: u64,
    /// Records of an erasure or a tenant deletion that wait for rows being written.
    pub(super) forgetting: Vec<(OutboundRecord, Receipt)>,
}

impl AccountState {
    /// Returns true when nothing would be lost by leaving memory now.
    pub(super) fn is_idle(&mut self, now: Duration) -> bool {
        while self.tasks.try_join_next().is_some() {}
        self.machine.is_idle(now)
            && self.tasks.is_empty()
            && self.delivered.is_empty()
            && self.seen.is_empty()
            && self.forgetting.is_empty()
    }

    /// Returns true while rows exist that only this account finds again. A send under way counts: its backlog row stays
    /// until it is settled, and without an agenda row it would be lost in a crash.
    pub(super) fn waits(&self) -> bool {
        !self.machine.is_empty() || !self.cursor.is_empty() || !self.delivered.is_empty()
    }
}
