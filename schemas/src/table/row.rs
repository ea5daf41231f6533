//! Encodings of row names that other code reads or scans by.

use crate::id::{Cause, ContactId, OutboundId, TurnId};
use crate::time::Timestamp;
use crate::topic::Topic;

/// The first byte of the row of a deletion that is not complete.
pub const REMOVAL_OPEN: u8 = b'o';
/// Shards of an audience: a list of a million people has partitions of sixteen thousand rows. Stored; never changes.
pub const MEMBER_SHARDS: u8 = 64;

/// The first byte of the row of a deletion.
pub const REMOVAL_TOLD: u8 = b't';

/// The first byte of the row of a month's totals of deleted tenants.
pub const REMOVAL_TOTALS: u8 = b'u';

/// Spender of a quota: an attempt at a turn of a conversation, or messages of a campaign.
///
/// A turn is named after a message, whose key is of its conversation; the contact keeps others apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpentBy {
    /// The contact; of a campaign's batch, the first.
    pub contact: ContactId,
    /// The turn or the campaign.
    pub cause: Cause,
    /// Attempt at calling the outside, from 1; 0 where none was made.
    pub attempt: u8,
}

/// The byte behind the row of what a campaign has spent; that of a turn has none.
const SPENT_BY_CAMPAIGN: u8 = b'c';

impl SpentBy {
    /// Creates the row of this attempt at a turn.
    #[must_use]
    pub fn new(contact: ContactId, turn: TurnId, attempt: u32) -> Self {
        Self { contact, cause: Cause::Turn(turn), attempt: u8::try_from(attempt).unwrap_or(u8::MAX) }
    }

    pub(super) fn to_row(self) -> Vec<u8> {
        let mut row = Vec::with_capacity(34);
        row.extend(self.contact.to_bytes());
        row.extend(self.cause.to_bytes());
        row.push(self.attempt);
        if let Cause::Campaign(_) = self.cause {
            row.push(SPENT_BY_CAMPAIGN);
        }
        row
    }
}

/// The first byte of backlog rows of sends of unknown outcome.
pub const BACKLOG_UNKNOWN: u8 = 0;
/// The first byte of backlog rows that wait in order.
pub const BACKLOG_QUEUED: u8 = 1;

/// The first eight bytes of an agenda row: rows below it are due before `due`.
#[must_use]
pub fn agenda_bound(due: Timestamp) -> [u8; 8] {
    // Times before 1970 do not occur; the sign bit would break the order.
    u64::try_from(due.as_micros()).unwrap_or(0).to_be_bytes()
}

impl OutboundId {
    /// Reads it from a row that is named by it.
    #[must_use]
    pub fn from_row(row: &[u8]) -> Option<Self> {
        let row: &[u8; 34] = row.try_into().ok()?;
        let (contact, rest) = row.split_first_chunk::<16>()?;
        let (cause, number) = rest.split_first_chunk::<16>()?;
        let number = u16::from_be_bytes(number.try_into().ok()?);
        Some(Self::of_parts(ContactId::from_bytes(*contact), *cause, number))
    }
}

pub(super) fn outbound_row(outbound: &OutboundId) -> [u8; 34] {
    let mut row = [0_u8; 34];
    row[..16].copy_from_slice(&outbound.contact.to_bytes());
    row[16..32].copy_from_slice(&outbound.cause.to_bytes());
    row[32..].copy_from_slice(&outbound.number().to_be_bytes());
    row
}

/// Returns the one-byte prefix of a topic in the agenda's partitions. Stored; never changes.
pub(super) fn agenda_letter(topic: Topic) -> u8 {
    match topic {
        Topic::Inbound => b'i',
        Topic::Outbound => b'o',
        // Nothing waits in these: their agendas are empty.
        Topic::Ingress => b'g',
        Topic::Tenants => b't',
        Topic::Events => b'e',
        Topic::Dlq => b'd',
    }
}

pub(super) fn agenda_topic(prefix: u8) -> Option<Topic> {
    Topic::ALL.into_iter().find(|&topic| agenda_letter(topic) == prefix)
}
