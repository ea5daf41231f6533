//! Writes of an account that concern no single send: into rows, out of the log, and acknowledgements.

use bytes::Bytes;
use heddle_schemas::ports::log::NewRecord;
use heddle_schemas::ports::state::{Batch, StoreError, Write};
use heddle_schemas::table::Key;
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::Offset;
use ractor::ActorRef;

use super::sources::Item;
use super::state::AccountState;
use super::{Account, AccountMessage};
use crate::partition::PartitionMessage;
use crate::partition::commit::{commit, read};
use crate::ports::Ports;

impl Account {
    /// Adds the change, positive or negative, to the number of rows in the backlog.
    pub(super) fn rows_changed(&self, state: &mut AccountState, change: i64) {
        state.cursor.rows += change;
        self.context.ports.metrics.backlog(change);
    }

    /// Moves messages that do not fit into memory into rows: one write at a time, all that arrive meanwhile in the
    /// next.
    pub(super) fn spill(&self, myself: &ActorRef<AccountMessage>, state: &mut AccountState) {
        let Some(items) = state.delivered.begin_write() else { return };
        let due = self.arm(state);
        let batch = self.parked(&items, due);
        let (context, home, key) = (self.context.clone(), self.home.clone(), self.key.clone());
        let myself = myself.clone();
        state.tasks.spawn(async move {
            let ports = &context.ports;
            let written = async {
                let repeated = items.iter().filter_map(|item| item.repeated_row(&key)).collect();
                let counted = counted(ports, repeated).await?;
                commit(&*ports.state, &ports.metrics, |_| batch.clone()).await?;
                Ok(items.len() - counted)
            };
            let written = written.await;
            if let (Ok(_), Some(due)) = (&written, due) {
                home.tell(PartitionMessage::Armed { due, key });
            }
            drop(items);
            drop(myself.send_message(AccountMessage::Spilled(written)));
        });
    }

    /// The batch that moves messages from the log into rows.
    fn parked<'a>(&self, items: impl IntoIterator<Item = &'a Item>, due: Option<Timestamp>) -> Batch {
        let mut batch = Batch { fence: Some(self.home.fence), ..Batch::default() };
        for item in items {
            item.park(&self.key, &mut batch);
        }
        batch.writes.extend(due.map(|due| Write::put(self.agenda(due), Bytes::new())));
        batch
    }

    /// Moves the messages that wait in memory out of the log and into rows; they keep their place in memory.
    pub(super) async fn park(
        &self,
        state: &mut AccountState,
        outputs: Vec<NewRecord>,
    ) -> Result<(), StoreError> {
        use super::machine::Sendable;
        let count = state.machine.lanes.iter().filter(|item| item.in_log_since().is_some()).count();
        if count == 0 && outputs.is_empty() {
            return Ok(());
        }
        let repeated = state.machine.lanes.iter().filter_map(|item| item.repeated_row(&self.key)).collect();
        let counted = counted(&self.context.ports, repeated).await?;
        let due = if count > 0 { self.arm(state) } else { None };
        let mut batch = self.parked(state.machine.lanes.iter(), due);
        batch.outputs = outputs;
        self.commit(batch).await?;
        state.machine.lanes.iter_mut().for_each(Item::parked);
        self.rows_changed(state, rows(count - counted));
        if let Some(due) = due {
            self.home.tell(PartitionMessage::Armed { due, key: self.key.clone() });
        }
        Ok(())
    }

    /// Acknowledges statuses that change nothing, all of them at once. A crash may lose that: they come again, and
    /// change nothing again.
    pub(super) fn acknowledge(&self, myself: &ActorRef<AccountMessage>, state: &mut AccountState) {
        if state.is_acknowledging || state.seen.is_empty() {
            return;
        }
        state.is_acknowledging = true;
        let seen = std::mem::take(&mut state.seen);
        let (context, partition, myself) = (self.context.clone(), self.home.fence.partition, myself.clone());
        state.tasks.spawn(async move {
            let ports = &context.ports;
            let offsets: Vec<Offset> = seen.iter().map(|receipt| receipt.record.offset).collect();
            let done = read(&ports.metrics, || ports.log.acknowledge(partition, &offsets)).await;
            drop(seen);
            drop(myself.send_message(AccountMessage::Acknowledged(done)));
        });
    }

    /// Returns the due time of an agenda row to write, where the account has none.
    pub(super) fn arm(&self, state: &mut AccountState) -> Option<Timestamp> {
        if state.row.is_some() {
            return None;
        }
        state.row = Some(self.context.ports.clock.now().after(super::UNKNOWN_CHECK));
        state.row
    }
}

/// Returns the number of these rows that are in the store: they were counted when the account started. An
/// acknowledgement that a crash has taken brings a record of such a row from the log once more.
async fn counted(ports: &Ports, repeated: Vec<Key>) -> Result<usize, StoreError> {
    let mut counted = 0;
    for row in repeated {
        counted += usize::from(read(&ports.metrics, || ports.state.get(&row)).await?.is_some());
    }
    Ok(counted)
}

/// Converts a number of rows to a change of it.
pub(super) fn rows(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
