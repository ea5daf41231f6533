//! The journal of a turn's tools: a row a step, sealed under the contact's key, written before its calls are made and
//! again with their results.

use std::sync::Arc;

use bytes::Bytes;
use heddle_schemas::id::{ConversationId, MessageKey, TurnId};
use heddle_schemas::ports::keys::{Cipher, aad};
use heddle_schemas::ports::responder::Step;
use heddle_schemas::ports::state::{Batch, Fence, Scan, StoreError, Write};
use heddle_schemas::record::encode_for;
use heddle_schemas::sealed::Sealed;
use heddle_schemas::table::{Key, Partition};
use heddle_schemas::time::Timestamp;

use crate::partition::commit::{commit, read};
use crate::ports::Ports;

/// The column of a row.
pub(crate) const COLUMN: &str = heddle_schemas::table::TOOL_COLUMN;

/// The journal of one turn.
pub struct Journal {
    /// Ports of the journal.
    pub ports: Ports,
    /// Conversation of the turn.
    pub conversation: ConversationId,
    /// Id of the turn.
    pub turn: TurnId,
    /// Ownership of the partition.
    pub fence: Fence,
    /// The contact's key.
    pub cipher: Arc<dyn Cipher>,
    /// End of its rows.
    pub expires: Timestamp,
}

impl Journal {
    /// The steps that an earlier attempt has made.
    ///
    /// # Errors
    /// [`StoreError`]; as corrupt where a row does not open.
    pub async fn steps(&self, most: usize) -> Result<Vec<Step>, StoreError> {
        let scan = Scan {
            from: self.key(0).row().to_vec().into(),
            to: Some(self.key(u8::MAX).row().to_vec().into()),
            ..Scan::first(Partition::tools(&self.conversation), most)
        };
        let rows = read(&self.ports.metrics, || self.ports.state.scan(&scan)).await?;
        rows.iter().map(|(key, stored)| Ok(opened(&*self.cipher, key, stored)?.1)).collect()
    }

    /// Writes a step down.
    ///
    /// # Errors
    /// [`StoreError`], where a retry does not fix it.
    pub async fn write(&self, number: u8, step: &Step) -> Result<(), StoreError> {
        let key = self.key(number);
        let sealed = encode_for(step, |plain| self.cipher.seal(&aad(&key, COLUMN), plain));
        let writes = vec![Write::put_until(key, sealed.into_bytes(), self.expires)];
        let batch = Batch { fence: Some(self.fence), writes, ..Batch::default() };
        commit(&*self.ports.state, &self.ports.metrics, |_| batch.clone()).await
    }

    fn key(&self, number: u8) -> Key {
        Key::tool(&self.conversation, self.turn, number)
    }
}

/// Opens a row, and returns its step and turn.
///
/// # Errors
/// [`StoreError::Corrupt`], where it does not open.
pub(crate) fn opened(cipher: &dyn Cipher, key: &Key, stored: &[u8]) -> Result<(TurnId, Step), StoreError> {
    let turn = key.row().first_chunk::<16>().map(|turn| TurnId(MessageKey::from_bytes(*turn)));
    let sealed = Sealed::from_bytes(Bytes::copy_from_slice(stored));
    let step = cipher.open(&aad(key, COLUMN), &sealed).ok();
    let step = step.and_then(|plain| serde_json::from_slice(&plain).ok());
    turn.zip(step).ok_or_else(|| StoreError::Corrupt { detail: format!("{key:?}: no step of a turn") })
}
