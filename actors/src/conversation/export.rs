//! Export of a conversation in plain text for its data subject: a page at a time, at any length.

use heddle_schemas::content::Address;
use heddle_schemas::id::{ConversationId, OutboundId, TurnId};
use heddle_schemas::outgoing::OutgoingContent;
use heddle_schemas::ports::keys::{KeysError, Missing, aad};
use heddle_schemas::ports::responder::Step;
use heddle_schemas::ports::state::{Scan, StoreError};
use heddle_schemas::record::outbound::{OutboundCommand, OutboundRecord, SealedMessage};
use heddle_schemas::record::{decode, log_aad};
use heddle_schemas::table::{Key, Partition};
use heddle_schemas::time::{Day, Timestamp};
use heddle_schemas::topic::Topic;
use serde::{Deserialize, Serialize};

use super::head::Head;
use super::thread::{EntrySaid, Thread, ThreadError};
use super::{Delivery, correct};
use crate::conversation::tools::journal;
use crate::partition::commit::read;
pub use crate::partition::pages::Page;
use crate::ports::Ports;

/// Rows that are read at once.
const PAGE: usize = 256;

/// Stored data of a conversation beside its rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// Id of the conversation.
    pub conversation: ConversationId,
    /// Address of the person.
    pub address: Address,
    /// True when the name in it is a correction.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub name_corrected: bool,
    /// Names that the person was known by before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former_names: Vec<String>,
    /// Time of the person's last message, by the channel's clock.
    pub customer_at: Timestamp,
    /// Since when a human answers, where one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub human_since: Option<Timestamp>,
    /// Time since which the person's messages are only recorded, where they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restricted_since: Option<Timestamp>,
}

/// Delivery state of one message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivered {
    /// Key of its row: contact, turn and number of the message.
    pub outbound: OutboundId,
    /// Delivery state.
    #[serde(flatten)]
    pub delivery: Delivery,
}

/// Tool calls of a turn, with their results.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Called {
    /// Id of the turn.
    pub turn: TurnId,
    /// Calls of this step.
    #[serde(flatten)]
    pub step: Step,
}

/// Message that waits for the account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Waiting {
    /// Id of the message.
    pub outbound: OutboundId,
    /// Time of its decision.
    pub at: Timestamp,
    /// Recipient.
    pub to: Address,
    /// Content of the message.
    pub content: OutgoingContent,
}

/// Conversation that is being read.
#[derive(Debug)]
pub struct Reading {
    id: ConversationId,
    /// Stored data.
    pub kept: Kept,
    thread: Thread,
}

impl Reading {
    /// Opens a conversation; `None` where nothing is kept of it.
    ///
    /// # Errors
    /// [`ThreadError`].
    pub async fn begin(ports: &Ports, id: &ConversationId) -> Result<Option<Self>, ThreadError> {
        let key = Key::head(id);
        let Some(stored) = read(&ports.metrics, || ports.state.get(&key)).await? else { return Ok(None) };
        let cipher = match ports.keys.contact(&id.tenant, id.contact, Missing::Fail).await {
            // It is being erased at this moment.
            Err(KeysError::Gone { .. }) => return Ok(None),
            cipher => cipher?,
        };
        let head: Head =
            serde_json::from_slice(&stored).map_err(|error| corrupt("the head of a conversation", error))?;
        let address = match &head.address {
            Some(sealed) => serde_json::from_slice(&cipher.open(&aad(&key, correct::ADDRESS), sealed)?)
                .map_err(|error| corrupt("the address of a contact", error))?,
            None => Address::default(),
        };
        let former_names = match &head.former_names {
            Some(sealed) => serde_json::from_slice(&cipher.open(&aad(&key, correct::FORMER_NAMES), sealed)?)
                .map_err(|error| corrupt("the previous names of a contact", error))?,
            None => Vec::new(),
        };
        let Head { corrected, customer_at, human_since, restricted_since, .. } = head;
        let kept = Kept {
            conversation: id.clone(),
            address,
            name_corrected: corrected.is_some(),
            former_names,
            customer_at,
            human_since,
            restricted_since,
        };
        Ok(Some(Self { id: id.clone(), kept, thread: Thread::new(id.clone(), cipher) }))
    }

    /// Returns the acts and turns, in order.
    ///
    /// # Errors
    /// [`ThreadError`].
    pub async fn thread(&self, ports: &Ports, after: Option<&Key>) -> Result<Page<EntrySaid>, ThreadError> {
        let next = after.and_then(|key| Some(u64::from_be_bytes(key.row().try_into().ok()?) + 1));
        let rows = self.thread.from(&*ports.state, next.unwrap_or_default(), PAGE).await?;
        let full = rows.len() == PAGE;
        let last = rows.last().map(|(number, _)| Key::history(&self.id, *number));
        let items = rows.into_iter().flat_map(|(_, row)| row.entries).collect();
        Ok(Page { items, after: last.filter(|_| full) })
    }

    /// Returns the delivery states of the messages that were sent.
    ///
    /// # Errors
    /// [`ThreadError`].
    pub async fn deliveries(
        &self,
        ports: &Ports,
        after: Option<&Key>,
    ) -> Result<Page<Delivered>, ThreadError> {
        Page::read(ports, Scan::first(Partition::deliveries(&self.id), PAGE), after, |key, stored| {
            let outbound = OutboundId::from_row(key.row());
            let delivery = serde_json::from_slice(stored).ok();
            match (outbound, delivery) {
                (Some(outbound), Some(delivery)) => Ok(Some(Delivered { outbound, delivery })),
                _ => Err(StoreError::Corrupt { detail: format!("{key:?}: no delivery") }.into()),
            }
        })
        .await
    }

    /// Returns the tool calls.
    ///
    /// # Errors
    /// [`ThreadError`].
    pub async fn tools(&self, ports: &Ports, after: Option<&Key>) -> Result<Page<Called>, ThreadError> {
        Page::read(ports, Scan::first(Partition::tools(&self.id), PAGE), after, |key, stored| {
            let (turn, step) = journal::opened(self.thread.cipher(), key, stored)?;
            Ok(Some(Called { turn, step }))
        })
        .await
    }

    /// Returns the rows of the account's backlog for this conversation. The rest of its queue is in the log, and none
    /// of that is older than the log's retention.
    ///
    /// # Errors
    /// [`ThreadError`].
    pub async fn waiting(&self, ports: &Ports, after: Option<&Key>) -> Result<Page<Waiting>, ThreadError> {
        let account = Scan::first(Partition::backlog(&self.id.account()), PAGE);
        let found = Page::read(ports, account, after, |_, stored| -> Result<_, ThreadError> {
            let record = decode::<OutboundRecord>(stored).ok();
            Ok(record.filter(|record| record.conversation == self.id))
        })
        .await?;
        let mut items = Vec::new();
        for OutboundRecord { at, command, .. } in found.items {
            let OutboundCommand::Send(send) = command else { continue };
            let day = Day(send.sealed.key_number().unwrap_or_default());
            let cipher = ports.keys.log(&self.id.tenant, day).await?;
            let plain = cipher.open(&log_aad(Topic::Outbound, &send.id), &send.sealed)?;
            let SealedMessage { to, content } =
                serde_json::from_slice(&plain).map_err(|error| corrupt("a message that waits", error))?;
            items.push(Waiting { outbound: send.id, at, to, content });
        }
        Ok(Page { items, after: found.after })
    }
}

fn corrupt(what: &str, error: serde_json::Error) -> StoreError {
    StoreError::Corrupt { detail: format!("{what}: {error}") }
}
