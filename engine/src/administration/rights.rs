//! What a person may ask for: to see what is kept, and to be forgotten.

use heddle_actors::conversation::export::{Exported, export};
use heddle_actors::erasure;
use heddle_schemas::audit::{Outcome, What};
use heddle_schemas::contact::ContactName;
use heddle_schemas::erasure::Erasure;
use heddle_schemas::id::{ContactId, ConversationId, MessageKey, TenantId};
use heddle_schemas::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Administration, AdministrationError};
use crate::consents::Consents;

/// All that is kept of a contact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Export {
    /// Whose contact it is.
    pub tenant: TenantId,
    /// The internal id.
    pub contact: ContactId,
    /// When it was read, microseconds since 1970.
    pub at: Timestamp,
    /// Its conversations, one for each account that it has met.
    pub conversations: Vec<Exported>,
    /// What it has consented to and opted out of.
    pub consents: Consents,
    /// Its erasures before.
    pub erasures: Vec<Erasure>,
}

impl Administration {
    /// All that is kept of a contact, opened. It is in the audit log before anything is read.
    ///
    /// # Errors
    /// [`AdministrationError`].
    pub async fn export(&self, id: &TenantId, named: &ContactName) -> Result<Export, AdministrationError> {
        let tenant = self.tenant(id)?;
        let contact = self.contact(id, named).await?;
        self.record(Some(id), What::ContactExport { contact }, Outcome::Begun).await?;
        let mut conversations = Vec::new();
        for channel in &tenant.channels {
            let conversation = ConversationId {
                tenant: id.clone(),
                channel: channel.kind,
                account: channel.account.clone(),
                contact,
            };
            conversations.extend(export(&self.ports, &conversation).await?);
        }
        let records = conversations.iter().map(|conversation| conversation.thread.len() as u64).sum();
        self.exported(id, Some(contact), records);
        let erasures = erasure::list(&self.ports, id).await?;
        let erasures = erasures.into_iter().filter(|erasure| erasure.contact == contact).collect();
        let consents = self.consents_of(id, contact).await?;
        Ok(Export {
            tenant: id.clone(),
            contact,
            at: self.ports.clock.now(),
            conversations,
            consents,
            erasures,
        })
    }

    /// Has a contact forgotten: it is under way when this returns.
    ///
    /// # Errors
    /// [`AdministrationError`].
    pub async fn forget(&self, id: &TenantId, named: &ContactName) -> Result<Erasure, AdministrationError> {
        let tenant = self.tenant(id)?;
        let contact = self.contact(id, named).await?;
        let asking = async { Ok(erasure::ask(&self.ports, &tenant, contact).await?) };
        self.audited(Some(id), What::ContactErase { contact }, asking).await
    }

    /// Every erasure of a tenant's contacts, the newest last.
    ///
    /// # Errors
    /// [`AdministrationError`].
    pub async fn erasures(&self, id: &TenantId) -> Result<Vec<Erasure>, AdministrationError> {
        self.tenant(id)?;
        let mut erasures = erasure::list(&self.ports, id).await?;
        erasures.sort_by_key(|erasure| erasure.requested_at);
        Ok(erasures)
    }

    /// How far an erasure has come.
    ///
    /// # Errors
    /// [`AdministrationError`].
    pub async fn erasure(&self, id: &TenantId, erasure: MessageKey) -> Result<Erasure, AdministrationError> {
        self.tenant(id)?;
        let found = erasure::find(&self.ports, id, erasure).await?;
        found.ok_or_else(|| AdministrationError::UnknownErasure(id.clone(), erasure))
    }
}
