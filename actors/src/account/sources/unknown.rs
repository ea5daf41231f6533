//! Sends of unknown outcome: rows that wait for a status, and messages that policy sends again.
//!
//! A status of one may be in the log already when the wait is over, so the decision is taken only when everything that
//! is in the log by then has been handled.

use std::collections::VecDeque;

use async_trait::async_trait;
use bytes::Bytes;
use heddle_schemas::id::OutboundId;
use heddle_schemas::ports::state::{Batch, Scan, StoreError};
use heddle_schemas::record::decode;
use heddle_schemas::record::outbound::{OutboundCommand, OutboundRecord};
use heddle_schemas::table::{BACKLOG_QUEUED, Key, Partition};

use super::{Erasure, Item, Origin, Rows, Source};
use crate::account::machine::{Event, Machine};
use crate::account::send::Journal;
use crate::partition::commit::read;

/// Rows that are read at once when the account starts.
const PAGE: usize = 1_024;

/// Messages that policy sends again; at most as many as were of unknown outcome.
#[derive(Debug, Default)]
pub(crate) struct Unknowns {
    again: VecDeque<Item>,
}

impl Unknowns {
    /// Has a message be sent again.
    pub(crate) fn push(&mut self, item: Item) {
        self.again.push_back(item);
    }
}

impl Rows<'_> {
    /// Reads the message of a send of unknown outcome, and how often it was sent again.
    pub(crate) async fn unknown(&self, id: OutboundId) -> Result<Option<(Item, u32)>, StoreError> {
        let (row, journal) = (Key::unknown(self.account, &id), Key::send(self.account, &id));
        let Some(stored) = read(&self.ports.metrics, || self.ports.state.get(&row)).await? else {
            return Ok(None);
        };
        let Ok(OutboundRecord { conversation, command: OutboundCommand::Send(command), .. }) =
            decode(&stored)
        else {
            return Ok(None);
        };
        let journal = read(&self.ports.metrics, || self.ports.state.get(&journal)).await?;
        let journal = journal.and_then(|journal| serde_json::from_slice::<Journal>(&journal).ok());
        let repeated = match journal {
            Some(Journal::Attempting { repeated, .. }) => repeated,
            _ => 0,
        };
        let item = Item::new(conversation, command, Origin::Unknown { stored }, true);
        Ok(Some((item, repeated)))
    }

    /// Finds the sends of unknown outcome when the account starts.
    pub(crate) async fn find_unknown(
        &self,
        machine: &mut Machine<Item>,
        since: std::time::Duration,
    ) -> Result<(), StoreError> {
        let now = self.ports.clock.elapsed();
        let to = Some(Bytes::from_static(&[BACKLOG_QUEUED]));
        let mut scan = Scan { to, ..Scan::first(Partition::backlog(self.account), PAGE) };
        loop {
            let page = read(&self.ports.metrics, || self.ports.state.scan(&scan)).await?;
            let next = scan.next(&page);
            for (key, _) in page {
                if let Some(id) = key.row().split_first().and_then(|(_, row)| OutboundId::from_row(row)) {
                    machine.on(Event::FoundUnknown(id, since), now);
                }
            }
            let Some(next) = next else { return Ok(()) };
            scan = next;
        }
    }
}

#[async_trait]
impl Source for Unknowns {
    async fn next(&mut self, _: &mut Rows<'_>, machine: &mut Machine<Item>) -> Result<(), StoreError> {
        self.again.drain(..).for_each(|item| machine.repeat(item));
        Ok(())
    }

    async fn forget(
        &mut self,
        _: &mut Rows<'_>,
        erasure: &Erasure<'_>,
        _: &mut Batch,
    ) -> Result<Vec<OutboundId>, StoreError> {
        // Its row is deleted with those that the machine knows of.
        self.again.retain(|item| item.conversation != *erasure.conversation);
        Ok(Vec::new())
    }
}
