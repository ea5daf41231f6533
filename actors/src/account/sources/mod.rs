//! Sources of an account's messages, and their removal from there.
//!
//! A source moves messages into the [`Machine`] as its lanes have room, and removes a message from itself once it is
//! settled. A message in memory may be lost with the process at any moment: its source finds it again. The order of one
//! contact's messages is the order of their offsets, over the log and the rows together.
//!
//! # Layout
//! - [`log`]: records that the partition delivers, and their move into rows where memory has no room.
//! - [`backlog`]: the rows, read as lanes have room. [`unknown`]: sends of unknown outcome.

pub(super) mod backlog;
pub(super) mod log;
pub(super) mod unknown;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use heddle_schemas::id::{AccountKey, ContactId, ConversationId, OutboundId};
use heddle_schemas::ports::log::Record;
use heddle_schemas::ports::state::{Batch, Fence, StoreError, Write};
use heddle_schemas::record::outbound::SendCommand;
use heddle_schemas::table::Key;
use heddle_schemas::topic::Offset;

use self::backlog::Cursor;
use super::machine::{Machine, Sendable};
use super::schedule::Class;
use super::schedule::lanes::Message;
use crate::partition::Receipt;
use crate::ports::Ports;

/// Rows of an account, and how far they have been read.
pub(super) struct Rows<'a> {
    pub(super) ports: &'a Ports,
    pub(super) account: &'a AccountKey,
    pub(super) cursor: &'a mut Cursor,
}

/// Messages of a conversation that are to be dropped.
pub(super) struct Erasure<'a> {
    pub(super) conversation: &'a ConversationId,
    /// Bound: only messages from before this record.
    pub(super) before: Offset,
    /// Returns true for a message in memory, which is dropped by other means.
    pub(super) is_active: &'a (dyn Fn(OutboundId) -> bool + Send + Sync),
}

/// Source of messages.
#[async_trait]
pub(super) trait Source: Send {
    /// Moves messages into the machine, as many as it has room for.
    async fn next(&mut self, rows: &mut Rows<'_>, machine: &mut Machine<Item>) -> Result<(), StoreError>;

    /// Drops messages of a conversation that are not in memory: adds their removal to the batch, and returns their ids.
    async fn forget(
        &mut self,
        rows: &mut Rows<'_>,
        erasure: &Erasure<'_>,
        batch: &mut Batch,
    ) -> Result<Vec<OutboundId>, StoreError>;
}

/// Place that keeps a message until it is settled.
#[derive(Debug)]
pub enum Origin {
    /// Log.
    Log(Box<Receipt>),
    /// Account's rows.
    Backlog {
        /// The number of its row: the offset that its record had.
        offset: Offset,
        /// The record.
        stored: Bytes,
    },
    /// Among the sends of unknown outcome; it is being sent again by policy.
    Unknown {
        /// The record.
        stored: Bytes,
    },
}

impl Origin {
    /// Returns the record as it came.
    #[must_use]
    pub fn stored(&self) -> &Bytes {
        match self {
            Self::Log(receipt) => &receipt.record.value,
            Self::Backlog { stored, .. } | Self::Unknown { stored } => stored,
        }
    }

    /// Returns true for a message that was asked for before this record.
    #[must_use]
    pub fn is_before(&self, record: Offset) -> bool {
        match self {
            Self::Log(receipt) => receipt.record.offset < record,
            Self::Backlog { offset, .. } => *offset < record,
            Self::Unknown { .. } => true,
        }
    }
}

/// Message to send.
#[derive(Debug)]
pub struct Item {
    /// The conversation it belongs to.
    pub conversation: ConversationId,
    /// Message to send.
    pub command: SendCommand,
    /// Place that keeps it.
    pub origin: Origin,
    /// True when it may have been called before, so that the journal must be read.
    pub look_up: bool,
    /// Calls that were refused.
    pub calls: u32,
    /// Number of those that were refused for the pair's limit.
    pub pair_calls: u32,
    /// Times that it was sent again since the outcome was unknown.
    pub repeated: u32,
    /// Set once its contact is being erased: nothing is written about the person any more.
    pub erased: Arc<AtomicBool>,
}

impl Item {
    pub(super) fn new(
        conversation: ConversationId,
        command: SendCommand,
        origin: Origin,
        look_up: bool,
    ) -> Self {
        Self {
            conversation,
            command,
            origin,
            look_up,
            calls: 0,
            pair_calls: 0,
            repeated: 0,
            erased: Arc::default(),
        }
    }

    /// Adds the removal from its source to the batch that settles a message.
    pub(super) fn settle(&self, account: &AccountKey, batch: &mut Batch) {
        match &self.origin {
            Origin::Log(receipt) => batch.consumed.push(receipt.consumed()),
            Origin::Backlog { offset, .. } => {
                batch.after.push(Write::delete(Key::backlog(account, *offset)));
            }
            Origin::Unknown { .. } => {
                batch.after.push(Write::delete(Key::unknown(account, &self.command.id)))
            }
        }
    }

    /// Adds the move from the log into a row to a batch; returns true where it is in the log.
    pub(super) fn park(&self, account: &AccountKey, batch: &mut Batch) -> bool {
        let Origin::Log(receipt) = &self.origin else { return false };
        let row = Key::backlog(account, receipt.record.offset);
        batch.writes.push(Write::put(row, receipt.record.value.clone()));
        batch.consumed.push(receipt.consumed());
        true
    }

    /// Returns its row, where a node before may have written it already: the record came from the log once more.
    pub(super) fn repeated_row(&self, account: &AccountKey) -> Option<Key> {
        match &self.origin {
            Origin::Log(receipt) if receipt.maybe_again => Some(Key::backlog(account, receipt.record.offset)),
            _ => None,
        }
    }

    /// Takes note that it is in a row now.
    pub(super) fn parked(&mut self) {
        if let Origin::Log(receipt) = &self.origin {
            let (offset, stored) = (receipt.record.offset, receipt.record.value.clone());
            self.origin = Origin::Backlog { offset, stored };
        }
    }

    /// Returns the record that it came as, as far as that is still known.
    pub(super) fn record(&self, fence: Fence, account: &AccountKey, ports: &Ports) -> Record {
        match &self.origin {
            Origin::Log(receipt) => receipt.record.clone(),
            // It left the log; its row holds the record's value.
            Origin::Backlog { stored, .. } | Origin::Unknown { stored } => Record {
                partition: fence.partition,
                offset: match self.origin {
                    Origin::Backlog { offset, .. } => offset,
                    _ => 0,
                },
                key: account.to_string().into(),
                value: stored.clone(),
                at: ports.clock.now(),
            },
        }
    }
}

impl Message for Item {
    fn id(&self) -> OutboundId {
        self.command.id
    }

    fn class(&self) -> Class {
        self.command.purpose.into()
    }
}

impl Sendable for Item {
    fn contact(&self) -> ContactId {
        self.conversation.contact
    }

    fn in_log_since(&self) -> Option<Duration> {
        match &self.origin {
            Origin::Log(receipt) => Some(receipt.delivered),
            Origin::Backlog { .. } | Origin::Unknown { .. } => None,
        }
    }

    fn refused(&mut self, by_pair: bool) -> u32 {
        // The journal of the call before may have been settled by a status meanwhile.
        self.look_up = true;
        self.pair_calls += u32::from(by_pair);
        if by_pair { self.pair_calls } else { self.calls }
    }
}
