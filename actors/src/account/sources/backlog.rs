//! Backlog of the account: messages that do not fit into memory, or wait for a suspended account, as rows.
//!
//! A row's number is the offset of its record, so the rows are in the order of the log, whatever the time of their
//! writing. A message in memory whose row exists has left the log and is found again after a crash; its row is deleted
//! when it is settled.
//!
//! [`Cursor`] is the position up to which the rows have been read. The rows of a lane that has no room are skipped, so
//! that they delay no other lane; that lane is *behind* from its first such row on, and has a position of its own from
//! which it reads on when it has room. A contact's message goes into memory only where no row of that contact is
//! unread.

use std::collections::BTreeMap;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use heddle_schemas::id::{ContactId, OutboundId};
use heddle_schemas::ports::state::{Batch, Scan, StoreError, Write};
use heddle_schemas::record::decode;
use heddle_schemas::record::dlq::DeadReason;
use heddle_schemas::record::outbound::{OutboundCommand, OutboundRecord};
use heddle_schemas::table::{BACKLOG_QUEUED, Key, Partition};
use heddle_schemas::topic::Offset;

use super::{Erasure, Item, Origin, Rows, Source};
use crate::account::machine::{Event, Machine};
use crate::account::schedule::lanes::{Lanes, Message};
use crate::partition::commit::read;

/// Lanes that may be behind; where there are more, all others wait until some have caught up.
const BEHIND: usize = 1_024;
/// Rows that are read at once, and pages that one turn of the account reads for all lanes together.
const PAGE: usize = 256;
const PAGES: usize = 4;
/// Rows that are counted at once when the account starts.
const COUNTED_AT_ONCE: usize = 1024;

/// Position up to which the rows have been read.
#[derive(Debug, Default)]
pub(crate) struct Cursor {
    /// Rows before it are in memory, deleted, or of a lane that is behind.
    next: Offset,
    /// No row from it on is known.
    end: Offset,
    /// The lowest row that is not written yet.
    unwritten: Option<Offset>,
    /// Lanes that are behind: their rows before this one are in memory or deleted. At most [`BEHIND`].
    behind: BTreeMap<ContactId, Offset>,
    /// True once every record that was in the log when the partition was taken over has been delivered. Until then a
    /// record that belongs before the rows may still come, and no row is read.
    pub(crate) is_caught_up: bool,
    /// Number of rows, read or not: the backlog that operators see.
    pub(crate) rows: i64,
}

impl Cursor {
    /// Has the rows of this range be read.
    pub(crate) fn found(&mut self, rows: Range<Offset>) {
        (self.next, self.end) = (rows.start, rows.end);
    }

    /// Records that all rows are deleted.
    pub(crate) fn clear(&mut self) {
        *self = Self { is_caught_up: self.is_caught_up, ..Self::default() };
    }

    /// Returns true when no row is unread.
    pub(crate) fn is_empty(&self) -> bool {
        self.is_read() && self.behind.is_empty()
    }

    fn is_read(&self) -> bool {
        self.next >= self.end
    }

    /// Returns true where a message that comes from the log goes into memory.
    pub(crate) fn admits<M: Message>(&self, contact: ContactId, lanes: &Lanes<M>) -> bool {
        self.is_read() && !self.behind.contains_key(&contact) && lanes.takes(contact) && !lanes.is_full()
    }

    /// Records a message that goes into a row instead.
    pub(crate) fn spill<M: Message>(&mut self, contact: ContactId, row: Offset, lanes: &Lanes<M>) {
        let may_be_behind = self.is_read() && !lanes.takes(contact) && self.behind.len() < BEHIND;
        if may_be_behind || self.behind.contains_key(&contact) {
            let first = self.behind.entry(contact).or_insert(row);
            *first = row.min(*first);
            if self.is_read() {
                self.next = self.next.max(row + 1);
            }
        } else if self.is_read() {
            self.next = row;
        } else {
            self.next = self.next.min(row);
        }
        self.end = self.end.max(row + 1);
        self.unwritten = Some(self.unwritten.map_or(row, |lowest| lowest.min(row)));
    }

    /// Takes note that rows were written; the lowest that is not yet is this one.
    pub(crate) fn written(&mut self, unwritten: Option<Offset>) {
        self.unwritten = unwritten;
    }

    fn readable_end(&self) -> Offset {
        self.unwritten.map_or(self.end, |unwritten| unwritten.min(self.end))
    }

    /// Reads the next row in order. Returns true where its message goes into memory, false where it is skipped, and an
    /// error where reading has to stop before it.
    fn take<M: Message>(&mut self, contact: ContactId, row: Offset, lanes: &Lanes<M>) -> Result<bool, Stop> {
        if row < self.next {
            return Ok(false);
        }
        let takes = !self.behind.contains_key(&contact) && lanes.takes(contact);
        if !takes {
            if !self.behind.contains_key(&contact) && self.behind.len() >= BEHIND {
                return Err(Stop);
            }
            self.behind.entry(contact).or_insert(row);
        } else if lanes.is_full() {
            return Err(Stop);
        }
        self.next = row + 1;
        Ok(takes)
    }

    /// Rows from here on are not to be read for a lane that is behind: they are read in order, for all.
    fn lane_end(&self) -> Offset {
        self.next.min(self.readable_end())
    }

    /// Takes note that a lane that is behind has read all its rows before this one.
    fn read_to(&mut self, contact: ContactId, row: Offset) {
        match row >= self.next {
            true => drop(self.behind.remove(&contact)),
            false => drop(self.behind.insert(contact, row)),
        }
    }

    /// Returns the lanes that are behind and could take more.
    fn hungry<M: Message>(&self, lanes: &Lanes<M>) -> Vec<(ContactId, Offset)> {
        let end = self.lane_end();
        let hungry =
            self.behind.iter().filter(|(contact, first)| **first < end && lanes.is_hungry(**contact));
        hungry.map(|(contact, first)| (*contact, *first)).take(PAGES).collect()
    }
}

/// There is no room.
#[derive(Debug, PartialEq, Eq)]
struct Stop;

impl Rows<'_> {
    async fn scan(&self, from: Offset, to: Offset, limit: usize) -> Result<Vec<(Key, Bytes)>, StoreError> {
        let bound = |row: Offset| Bytes::copy_from_slice(Key::backlog(self.account, row).row());
        let scan = Scan {
            from: bound(from),
            to: Some(bound(to)),
            ..Scan::first(Partition::backlog(self.account), limit)
        };
        read(&self.ports.metrics, || self.ports.state.scan(&scan)).await
    }

    /// Finds the rows that are there, and counts them a page at a time.
    pub(crate) async fn find(&mut self) -> Result<i64, StoreError> {
        let ports = self.ports;
        let partition = Partition::backlog(self.account);
        let from = Bytes::from_static(&[BACKLOG_QUEUED]);
        let first = Scan { from: from.clone(), ..Scan::first(partition.clone(), 1) };
        let last = Scan { from, ..Scan::last(partition, 1) };
        let row = |found: Vec<(Key, Bytes)>| found.first().and_then(|(key, _)| row_number(key));
        let first = row(read(&ports.metrics, || ports.state.scan(&first)).await?);
        let last = row(read(&ports.metrics, || ports.state.scan(&last)).await?);
        let rows = first.unwrap_or_default()..last.map_or(0, |last| last + 1);
        self.cursor.found(rows.clone());
        let (mut found, mut next) = (0, rows.start);
        while next < rows.end {
            let page = self.scan(next, rows.end, COUNTED_AT_ONCE).await?;
            found += page.len();
            match page.last().and_then(|(key, _)| row_number(key)) {
                Some(last) if page.len() == COUNTED_AT_ONCE => next = last + 1,
                _ => break,
            }
        }
        Ok(i64::try_from(found).unwrap_or(i64::MAX))
    }
}

/// Number of a row of the backlog.
pub(crate) fn row_number(key: &Key) -> Option<Offset> {
    let (kind, row) = key.row().split_first()?;
    (*kind == BACKLOG_QUEUED).then(|| Some(Offset::from_be_bytes(row.try_into().ok()?)))?
}

/// The message of a row; `None` where it is none that can be read.
fn item(rows: &Rows<'_>, row: Offset, stored: Bytes) -> Option<Item> {
    match decode::<OutboundRecord>(&stored) {
        Ok(OutboundRecord { conversation, command: OutboundCommand::Send(command), .. }) => {
            Some(Item::new(conversation, command, Origin::Backlog { offset: row, stored }, true))
        }
        _ => {
            rows.ports.metrics.dead(DeadReason::Shape);
            tracing::error!(account = %rows.account, row, "a waiting message cannot be read");
            None
        }
    }
}

/// The rows of an account as a source.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    /// True when more rows can be read at once than one turn reads.
    pub(crate) has_more: bool,
}

impl Backlog {
    /// Reads on for lanes that are behind.
    async fn next_of_lanes(
        &self,
        rows: &mut Rows<'_>,
        machine: &mut Machine<Item>,
        pages: &mut usize,
    ) -> Result<(), StoreError> {
        let now = rows.ports.clock.elapsed();
        for (contact, mut from) in rows.cursor.hungry(&machine.lanes) {
            let end = rows.cursor.lane_end();
            while *pages > 0 && from < end && machine.lanes.takes(contact) {
                *pages -= 1;
                let page = rows.scan(from, end, PAGE).await?;
                let is_last = page.len() < PAGE;
                for (key, stored) in page {
                    let Some(row) = row_number(&key) else { continue };
                    let is_its = decode::<OutboundRecord>(&stored)
                        .is_ok_and(|record| record.conversation.contact == contact);
                    if is_its && !machine.lanes.takes(contact) {
                        break;
                    }
                    from = row + 1;
                    if let Some(item) = is_its.then(|| item(rows, row, stored)).flatten() {
                        machine.on(Event::Arrived(item), now);
                    }
                }
                if is_last && machine.lanes.takes(contact) {
                    from = end;
                }
            }
            rows.cursor.read_to(contact, from);
        }
        Ok(())
    }
}

#[async_trait]
impl Source for Backlog {
    async fn next(&mut self, rows: &mut Rows<'_>, machine: &mut Machine<Item>) -> Result<(), StoreError> {
        self.has_more = false;
        if !rows.cursor.is_caught_up || rows.cursor.is_empty() {
            return Ok(());
        }
        let mut pages = PAGES;
        self.next_of_lanes(rows, machine, &mut pages).await?;
        let now = rows.ports.clock.elapsed();
        while pages > 0 && !machine.lanes.is_full() {
            let range = rows.cursor.next..rows.cursor.readable_end();
            if range.is_empty() {
                break;
            }
            pages -= 1;
            let limit = PAGE.min(machine.lanes.room() * 2).max(16);
            let page = rows.scan(range.start, range.end, limit).await?;
            let is_last = page.len() < limit;
            for (key, stored) in page {
                let Some(row) = row_number(&key) else { continue };
                let Some(item) = item(rows, row, stored) else {
                    rows.cursor.next = row + 1;
                    continue;
                };
                match rows.cursor.take(item.conversation.contact, row, &machine.lanes) {
                    Ok(true) => drop(machine.on(Event::Arrived(item), now)),
                    Ok(false) => {}
                    Err(Stop) => return Ok(()),
                }
            }
            if is_last {
                rows.cursor.next = rows.cursor.next.max(range.end);
            }
        }
        self.has_more = pages == 0;
        Ok(())
    }

    async fn forget(
        &mut self,
        rows: &mut Rows<'_>,
        erasure: &Erasure<'_>,
        batch: &mut Batch,
    ) -> Result<Vec<OutboundId>, StoreError> {
        let mut dropped = Vec::new();
        if rows.cursor.rows <= 0 {
            return Ok(dropped);
        }
        let from = Bytes::from_static(&[BACKLOG_QUEUED]);
        let mut scan = Scan { from, ..Scan::first(Partition::backlog(rows.account), PAGE) };
        loop {
            let page = read(&rows.ports.metrics, || rows.ports.state.scan(&scan)).await?;
            let next = scan.next(&page);
            for (key, stored) in page {
                let Ok(record) = decode::<OutboundRecord>(&stored) else { continue };
                let is_before = row_number(&key).is_some_and(|row| row < erasure.before);
                if let OutboundCommand::Send(send) = record.command
                    && record.conversation == *erasure.conversation
                    && is_before
                    && !(erasure.is_active)(send.id)
                {
                    batch.after.push(Write::delete(key));
                    dropped.push(send.id);
                }
            }
            let Some(next) = next else { return Ok(dropped) };
            scan = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use heddle_schemas::id::{MessageKey, TurnId};
    use proptest::prelude::*;

    use super::*;
    use crate::account::schedule::Class;
    use crate::account::schedule::pair::WHATSAPP;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Text(u8, Offset);

    impl Message for Text {
        fn id(&self) -> OutboundId {
            let number = u16::try_from(self.1).unwrap();
            OutboundId::of_turn(contact(self.0), TurnId(MessageKey::from_bytes([1; 16])), number)
        }

        fn class(&self) -> Class {
            Class::Reply
        }
    }

    fn contact(to: u8) -> ContactId {
        ContactId::from_bytes([to; 16])
    }

    /// Account whose rows are a map.
    struct Account {
        cursor: Cursor,
        lanes: Lanes<Text>,
        rows: BTreeMap<Offset, Text>,
        spilling: Vec<Text>,
    }

    impl Account {
        fn new(bound: usize) -> Self {
            let cursor = Cursor { is_caught_up: true, ..Cursor::default() };
            Self {
                cursor,
                lanes: Lanes::new(bound, Some(WHATSAPP)),
                rows: BTreeMap::new(),
                spilling: Vec::new(),
            }
        }

        fn deliver(&mut self, text: Text) {
            if self.cursor.admits(contact(text.0), &self.lanes) {
                self.lanes.push(contact(text.0), text);
            } else {
                self.cursor.spill(contact(text.0), text.1, &self.lanes);
                self.spilling.push(text);
            }
        }

        fn write(&mut self) {
            self.rows.extend(self.spilling.drain(..).map(|text| (text.1, text)));
            self.cursor.written(None);
        }

        /// Reads as the source does.
        fn read(&mut self) {
            for (to, mut from) in self.cursor.hungry(&self.lanes) {
                let end = self.cursor.lane_end();
                let rows: Vec<_> = self.rows.range(from..end).map(|(_, text)| *text).collect();
                for text in rows {
                    let is_its = contact(text.0) == to;
                    if is_its && !self.lanes.takes(to) {
                        break;
                    }
                    from = text.1 + 1;
                    if is_its {
                        self.lanes.push(to, text);
                    }
                }
                if self.lanes.takes(to) {
                    from = end;
                }
                self.cursor.read_to(to, from);
            }
            let end = self.cursor.readable_end();
            let rows: Vec<_> =
                self.rows.range(self.cursor.next.min(end)..end).map(|(_, text)| *text).collect();
            for text in rows {
                match self.cursor.take(contact(text.0), text.1, &self.lanes) {
                    Ok(true) => self.lanes.push(contact(text.0), text),
                    Ok(false) => {}
                    Err(Stop) => return,
                }
            }
            self.cursor.next = self.cursor.next.max(end);
        }

        fn send(&mut self) -> Option<Text> {
            let (to, text) = self.lanes.take_next()?;
            self.lanes.done(to);
            self.rows.remove(&text.1);
            Some(text)
        }
    }

    #[test]
    fn a_flood_from_one_contact_takes_no_other_lanes_place() {
        let mut account = Account::new(8);
        // Its pair is over its limit.
        (0..45).for_each(|_| account.lanes.called(contact(1), std::time::Duration::from_secs(1)));
        (0..400).for_each(|offset| account.deliver(Text(1, offset)));
        (0..5).for_each(|to| account.deliver(Text(2 + to, 400 + Offset::from(to))));
        let sent: Vec<_> = std::iter::from_fn(|| account.send()).map(|text| text.0).collect();
        assert_eq!(sent, [2, 3, 4, 5, 6]);
    }

    #[test]
    fn a_flood_that_is_found_in_rows_takes_no_other_lanes_place() {
        let mut account = Account::new(8);
        (0..45).for_each(|_| account.lanes.called(contact(1), std::time::Duration::from_secs(1)));
        account.rows.extend((0..400).map(|row| (row, Text(1, row))));
        account.rows.insert(400, Text(2, 400));
        account.cursor.found(0..401);
        account.read();
        assert_eq!(account.send(), Some(Text(2, 400)));
    }

    proptest! {
        /// Messages are delivered, written, read and sent at random: each contact's leave in the order they came, each
        /// once, and all of them leave.
        #[test]
        fn each_contacts_messages_leave_in_order_and_once(
            bound in 1_usize..6,
            steps in proptest::collection::vec((0_u8..5, 0_u8..4), 1..300),
        ) {
            let mut account = Account::new(bound);
            let (mut next, mut sent) = (0, BTreeMap::<u8, Vec<Offset>>::new());
            let mut delivered = BTreeMap::<u8, Vec<Offset>>::new();
            for (step, to) in steps {
                match step {
                    0 | 1 => {
                        account.deliver(Text(to, next));
                        delivered.entry(to).or_default().push(next);
                        next += 1;
                    }
                    2 => account.write(),
                    3 => account.read(),
                    _ => if let Some(text) = account.send() {
                        sent.entry(text.0).or_default().push(text.1);
                    },
                }
            }
            for _ in 0..400 {
                account.write();
                account.read();
                if let Some(text) = account.send() {
                    sent.entry(text.0).or_default().push(text.1);
                }
            }
            prop_assert_eq!(sent, delivered);
            prop_assert!(account.cursor.is_empty() && account.rows.is_empty());
        }
    }
}
