//! Intake of messages that the partition delivers to an account: into memory where there is room, else into rows.
//!
//! A message that goes into rows is acknowledged when its row is durable, so that one account never delays the others
//! of its partition. One write is under way at a time; messages that arrive meanwhile are in the next.

use std::collections::VecDeque;

use async_trait::async_trait;
use heddle_schemas::id::OutboundId;
use heddle_schemas::ports::state::{Batch, StoreError};
use heddle_schemas::topic::Offset;

use super::{Erasure, Item, Origin, Rows, Source};
use crate::account::machine::{Event, Machine, Sendable};
use crate::account::schedule::lanes::Message;

/// Messages that were delivered and are not in memory yet. All of them keep their records in work, so there are at most
/// `permits_per_partition`.
#[derive(Debug, Default)]
pub(crate) struct Delivered {
    arrived: VecDeque<Item>,
    /// Messages that the next write stores.
    spilling: Vec<Item>,
    is_writing: bool,
}

impl Delivered {
    /// Takes a message that was delivered.
    pub(crate) fn push(&mut self, item: Item) {
        self.arrived.push_back(item);
    }

    /// Returns the messages to write now, where no write is under way.
    pub(crate) fn begin_write(&mut self) -> Option<Vec<Item>> {
        if self.is_writing || self.spilling.is_empty() {
            return None;
        }
        self.is_writing = true;
        Some(std::mem::take(&mut self.spilling))
    }

    /// Ends the write under way. Returns the lowest row that is still to be written.
    pub(crate) fn end_write(&mut self) -> Option<Offset> {
        self.is_writing = false;
        self.spilling.iter().filter_map(offset).min()
    }

    /// Returns true while messages are being written, which are neither in the rows yet nor in memory.
    pub(crate) fn is_writing(&self) -> bool {
        self.is_writing
    }

    /// Returns true when nothing waits to be written.
    pub(crate) fn is_empty(&self) -> bool {
        self.arrived.is_empty() && self.spilling.is_empty() && !self.is_writing
    }

    /// Takes out everything that is not being written.
    pub(crate) fn clear(&mut self) -> Vec<Item> {
        self.arrived.drain(..).chain(self.spilling.drain(..)).collect()
    }
}

fn offset(item: &Item) -> Option<Offset> {
    match &item.origin {
        Origin::Log(receipt) => Some(receipt.record.offset),
        Origin::Backlog { offset, .. } => Some(*offset),
        Origin::Unknown { .. } => None,
    }
}

#[async_trait]
impl Source for Delivered {
    async fn next(&mut self, rows: &mut Rows<'_>, machine: &mut Machine<Item>) -> Result<(), StoreError> {
        let now = rows.ports.clock.elapsed();
        while let Some(item) = self.arrived.pop_front() {
            let contact = item.contact();
            if rows.cursor.admits(contact, &machine.lanes) {
                let effects = machine.on(Event::Arrived(item), now);
                debug_assert!(effects.is_empty(), "a message only takes its place");
            } else {
                if let Some(offset) = offset(&item) {
                    rows.cursor.spill(contact, offset, &machine.lanes);
                }
                self.spilling.push(item);
            }
        }
        Ok(())
    }

    async fn forget(
        &mut self,
        rows: &mut Rows<'_>,
        erasure: &Erasure<'_>,
        batch: &mut Batch,
    ) -> Result<Vec<OutboundId>, StoreError> {
        let is_meant = |item: &mut Item| {
            item.conversation == *erasure.conversation && item.origin.is_before(erasure.before)
        };
        let dropped: Vec<_> = self.spilling.extract_if(.., is_meant).collect();
        dropped.iter().for_each(|item| item.settle(rows.account, batch));
        Ok(dropped.iter().map(Message::id).collect())
    }
}
