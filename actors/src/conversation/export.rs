//! What is kept of a conversation, opened, for whom it is about.

use heddle_schemas::content::Address;
use heddle_schemas::id::{ConversationId, OutboundId};
use heddle_schemas::ports::keys::{KeysError, Missing, aad};
use heddle_schemas::ports::state::{Scan, StoreError};
use heddle_schemas::table::{Key, Partition};
use heddle_schemas::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::Delivery;
use super::head::Head;
use super::thread::{EntrySaid, Thread, ThreadError};
use crate::commit::read;
use crate::ports::Ports;

/// Rows that are read at once.
const PAGE: usize = 256;

/// What is kept of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exported {
    /// Which.
    pub conversation: ConversationId,
    /// How the person is reached.
    pub address: Address,
    /// Whether the name in it is a correction.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub name_corrected: bool,
    /// When the person last wrote, by the channel's clock.
    pub customer_at: Timestamp,
    /// Since when a human answers, where one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub human_since: Option<Timestamp>,
    /// Since when what the person says is only recorded, where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restricted_since: Option<Timestamp>,
    /// What was said and done, in order.
    pub thread: Vec<EntrySaid>,
    /// How far the messages that were sent have come.
    pub deliveries: Vec<Delivered>,
}

/// How far one message has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivered {
    /// The row that tells of it: contact, turn and number of the message.
    pub outbound: OutboundId,
    /// How far.
    #[serde(flatten)]
    pub delivery: Delivery,
}

/// Reads all of a conversation; `None` where nothing is kept of it.
///
/// # Errors
/// [`ThreadError`].
pub async fn export(ports: &Ports, id: &ConversationId) -> Result<Option<Exported>, ThreadError> {
    let key = Key::head(id);
    let Some(stored) = read(&ports.metrics, || ports.state.get(&key)).await? else { return Ok(None) };
    let cipher = match ports.keys.contact(&id.tenant, id.contact, Missing::Fail).await {
        // It is being forgotten at this moment.
        Err(KeysError::Gone { .. }) => return Ok(None),
        cipher => cipher?,
    };
    let corrupt =
        |what: &str, error: serde_json::Error| StoreError::Corrupt { detail: format!("{what}: {error}") };
    let head: Head =
        serde_json::from_slice(&stored).map_err(|error| corrupt("the head of a conversation", error))?;
    let address = match &head.address {
        Some(sealed) => serde_json::from_slice(&cipher.open(&aad(&key, "address"), sealed)?)
            .map_err(|error| corrupt("the address of a contact", error))?,
        None => Address::default(),
    };
    let reading = Thread::new(id.clone(), cipher);
    let mut thread = Vec::new();
    let mut next = 0;
    loop {
        let rows = reading.from(&*ports.state, next, PAGE).await?;
        let full = rows.len() == PAGE;
        if let Some((last, _)) = rows.last() {
            next = last + 1;
        }
        thread.extend(rows.into_iter().flat_map(|(_, row)| row.entries));
        if !full {
            break;
        }
    }
    let deliveries = deliveries(ports, id).await?;
    let Head { corrected, customer_at, human_since, restricted_since, .. } = head;
    let conversation = id.clone();
    Ok(Some(Exported {
        conversation,
        address,
        name_corrected: corrected.is_some(),
        customer_at,
        human_since,
        restricted_since,
        thread,
        deliveries,
    }))
}

async fn deliveries(ports: &Ports, id: &ConversationId) -> Result<Vec<Delivered>, StoreError> {
    let mut deliveries = Vec::new();
    let mut scan = Scan::first(Partition::deliveries(id), PAGE);
    loop {
        let page = read(&ports.metrics, || ports.state.scan(&scan)).await?;
        for (key, stored) in &page {
            let outbound = OutboundId::from_row(key.row());
            let delivery = serde_json::from_slice(stored).ok();
            let (Some(outbound), Some(delivery)) = (outbound, delivery) else {
                return Err(StoreError::Corrupt { detail: format!("{key:?}: no delivery") });
            };
            deliveries.push(Delivered { outbound, delivery });
        }
        match page.last() {
            Some((key, _)) if page.len() == PAGE => scan.from = [key.row(), &[0]].concat().into(),
            _ => return Ok(deliveries),
        }
    }
}
