//! Agenda rows that cannot be dealt with now, or for good: when they are woken again.

use std::time::Duration;

use heddle_schemas::id::ConversationId;
use heddle_schemas::ports::state::{Batch, Write};
use heddle_schemas::record::dlq::DeadReason;
use heddle_schemas::record::encode;
use heddle_schemas::time::Timestamp;
use ractor::ActorProcessingErr;

use super::entity::{Conversation, ConversationState};
use super::fault::{Fault, Remedy, is_over};
use crate::partition::agenda::Entry;
use crate::partition::commit::read;
use crate::partition::set_aside::SetAside;

/// Pause of a row that cannot be processed now.
pub(super) const PAUSE: Duration = Duration::from_secs(1);
/// How long a row waits that only a node of a later build can deal with.
const NEWER_PAUSE: Duration = Duration::from_secs(60);

impl Conversation {
    /// Decides when a row is tried again that cannot be dealt with now.
    ///
    /// # Errors
    /// When the ownership has ended or the store is closed.
    pub(super) async fn put_off(
        &self,
        state: &mut ConversationState,
        entry: &Entry<ConversationId>,
        fault: Fault,
    ) -> Result<Timestamp, ActorProcessingErr> {
        let now = self.context.ports.clock.now();
        match fault.remedy() {
            Remedy::Stop(error) => Err(error.into()),
            Remedy::Retry(error) => {
                self.retried(&error);
                Ok(now.after(PAUSE))
            }
            Remedy::Reload(detail) => {
                tracing::debug!(tenant = %self.id.tenant, detail, "a contact was erased during its turn");
                state.loaded = None;
                Ok(now.after(PAUSE))
            }
            Remedy::Park(detail) => {
                tracing::warn!(tenant = %self.id.tenant, detail, "a turn waits for a node of a later build");
                state.loaded = None;
                Ok(now.after(NEWER_PAUSE))
            }
            Remedy::SetAside(reason, detail) => {
                // It may have been mended by then.
                state.loaded = None;
                self.set_aside(entry, reason, detail).await
            }
        }
    }

    /// Writes down why a row fails. Returns when it is tried again.
    async fn set_aside(
        &self,
        entry: &Entry<ConversationId>,
        reason: DeadReason,
        detail: String,
    ) -> Result<Timestamp, ActorProcessingErr> {
        let ports = &self.context.ports;
        let key = self.agenda(entry.due);
        let stored = match read(&ports.metrics, || ports.state.get(&key)).await {
            Err(error) if is_over(&error) => return Err(error.into()),
            stored => stored.unwrap_or_default(),
        };
        let set_aside = SetAside::next(stored.as_deref(), reason, detail, ports.clock.now());
        ports.metrics.set_aside(reason);
        tracing::error!(
            tenant = %self.id.tenant, conversation = %self.id, reason = reason.as_str(),
            detail = set_aside.detail, attempts = set_aside.attempts,
            "a turn is set aside, retrying later"
        );
        let writes = vec![Write::put(key, encode(&set_aside))];
        match self.commit(Batch { writes, ..Batch::default() }).await {
            Err(error) if is_over(&error) => Err(error.into()),
            // The pause still holds, until the node restarts.
            _ => Ok(set_aside.again),
        }
    }
}
