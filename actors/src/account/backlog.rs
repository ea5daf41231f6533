//! The account's backlog: what does not fit into memory, or waits for a stopped account, as rows.
//!
//! A row's number is the offset of its record, so the backlog is in the order of the log, whenever a row was
//! written. A message in memory whose row is there has left the log and is found again after a crash; its
//! row goes when it is settled.

use bytes::Bytes;
use heddle_schemas::ports::log::NewRecord;
use heddle_schemas::ports::state::{Batch, Scan, StoreError, Write};
use heddle_schemas::record::decode;
use heddle_schemas::record::dlq::DeadReason;
use heddle_schemas::record::outbound::{OutboundCommand, OutboundRecord};
use heddle_schemas::table::{BACKLOG_QUEUED, Key, Partition};
use heddle_schemas::time::Timestamp;
use ractor::ActorRef;

use super::send::{Item, Origin};
use super::state::AccountState;
use super::{Account, AccountMessage};
use crate::partition::PartitionMessage;
use crate::partition::commit::{commit, read};

/// Rows of the backlog that are counted at once when it starts.
const COUNTED_AT_ONCE: usize = 1024;

impl Account {
    /// Counts the rows of the backlog, a page at a time.
    pub(super) async fn count_rows(&self, mut next: u64, end: u64) -> Result<usize, StoreError> {
        let ports = &self.context.ports;
        let mut found = 0;
        while next < end {
            let scan = Scan {
                from: Bytes::copy_from_slice(Key::backlog(&self.key, next).row()),
                ..Scan::first(Partition::backlog(&self.key), COUNTED_AT_ONCE)
            };
            let page = read(&ports.metrics, || ports.state.scan(&scan)).await?;
            found += page.len();
            match page.last().and_then(|(key, _)| backlog_row(key)) {
                Some(last) if page.len() == COUNTED_AT_ONCE => next = last + 1,
                _ => break,
            }
        }
        Ok(found)
    }

    /// The backlog has so many rows more, or fewer.
    pub(super) fn rows_changed(&self, state: &mut AccountState, change: i64) {
        state.backlog.rows += change;
        self.context.ports.metrics.backlog(change);
    }

    /// Moves what cannot be held in memory into the backlog: one write at a time, all that has come
    /// meanwhile in the next.
    pub(super) fn spill(&self, myself: &ActorRef<AccountMessage>, state: &mut AccountState) {
        if state.backlog.writing.is_some() || state.backlog.spilling.is_empty() {
            return;
        }
        let items = std::mem::take(&mut state.backlog.spilling);
        let rows = items.iter().map(|item| item.offset);
        let (first, last) = (rows.clone().min().unwrap_or_default(), rows.max().unwrap_or_default());
        if state.backlog.next_read >= state.backlog.end {
            state.backlog.next_read = first;
        }
        state.backlog.next_read = state.backlog.next_read.min(first);
        state.backlog.end = state.backlog.end.max(last + 1);
        state.backlog.writing = Some(first);
        let due = self.arm(state);
        let batch = self.stored(&items, due);
        let (context, home, key) = (self.context.clone(), self.home.clone(), self.key.clone());
        let myself = myself.clone();
        state.sends.spawn(async move {
            let ports = &context.ports;
            let written = commit(&*ports.state, &ports.metrics, |_| batch.clone()).await;
            if let (Ok(()), Some(due)) = (&written, due) {
                home.tell(PartitionMessage::Armed { due, key });
            }
            let written = written.map(|()| items.len());
            drop(items);
            drop(myself.send_message(AccountMessage::Spilled(written)));
        });
    }

    /// The batch that moves messages from the log into the backlog.
    pub(super) fn stored<'a>(
        &self,
        items: impl IntoIterator<Item = &'a Item>,
        due: Option<Timestamp>,
    ) -> Batch {
        let mut batch = Batch { fence: Some(self.home.fence), ..Batch::default() };
        for item in items {
            if let Origin::Log(receipt) = &item.origin {
                let row = Key::backlog(&self.key, item.offset);
                batch.writes.push(Write::put(row, item.stored.clone()));
                batch.consumed.push(receipt.consumed());
            }
        }
        batch.writes.extend(due.map(|due| Write::put(self.agenda(due), Bytes::new())));
        batch
    }

    /// Moves the messages that wait in memory out of the log and into the backlog's rows; they keep
    /// their place in memory.
    pub(super) async fn keep(
        &self,
        state: &mut AccountState,
        outputs: Vec<NewRecord>,
    ) -> Result<(), StoreError> {
        let from_log = |item: &&mut Item| matches!(item.origin, Origin::Log(_));
        let count = state.queue.iter_mut().filter(from_log).count();
        if count == 0 && outputs.is_empty() {
            return Ok(());
        }
        let due = if count > 0 { self.arm(state) } else { None };
        let mut batch = self.stored(state.queue.iter_mut().map(|item| &*item), due);
        batch.outputs = outputs;
        self.commit(batch).await?;
        for item in state.queue.iter_mut() {
            if let Origin::Log(_) = item.origin {
                item.origin = Origin::Backlog;
            }
        }
        self.rows_changed(state, rows(count));
        if let Some(due) = due {
            self.home.tell(PartitionMessage::Armed { due, key: self.key.clone() });
        }
        Ok(())
    }

    /// Reads on in the backlog when the queue has room.
    pub(super) async fn read_backlog(&self, state: &mut AccountState) -> Result<(), StoreError> {
        let room = self.context.options.account_queue.get();
        let rows = state.backlog.readable();
        if !state.caught_up || state.queue.len() > room / 2 || rows.is_empty() {
            return Ok(());
        }
        let bound = |row: u64| Bytes::copy_from_slice(Key::backlog(&self.key, row).row());
        let scan = Scan {
            partition: Partition::backlog(&self.key),
            from: bound(rows.start),
            to: Some(bound(rows.end)),
            limit: room - state.queue.len(),
            reverse: false,
        };
        let ports = &self.context.ports;
        let found = read(&ports.metrics, || ports.state.scan(&scan)).await?;
        if found.len() < scan.limit {
            state.backlog.next_read = rows.end;
        }
        for (key, stored) in found {
            let Some(offset) = backlog_row(&key) else { continue };
            state.backlog.next_read = state.backlog.next_read.max(offset + 1);
            match decode::<OutboundRecord>(&stored) {
                Ok(OutboundRecord { conversation, command: OutboundCommand::Send(command), .. }) => state
                    .push(Item {
                        conversation,
                        command,
                        stored,
                        offset,
                        origin: Origin::Backlog,
                        look_up: true,
                        refused: 0,
                    }),
                _ => {
                    ports.metrics.dead(DeadReason::Shape);
                    tracing::error!(account = %self.key, offset, "a waiting message cannot be read");
                }
            }
        }
        Ok(())
    }
}

pub(super) fn rows(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The number of a backlog row.
pub(super) fn backlog_row(key: &Key) -> Option<u64> {
    let (kind, row) = key.row().split_first()?;
    (*kind == BACKLOG_QUEUED).then(|| Some(u64::from_be_bytes(row.try_into().ok()?)))?
}
