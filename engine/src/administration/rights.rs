//! What a person may ask for: to see what is kept, and to be forgotten.

use heddle_actors::conversation::export::{Exported, export};
use heddle_actors::{consent, erasure, publish};
use heddle_schemas::audit::{Outcome, What};
use heddle_schemas::contact::ContactName;
use heddle_schemas::erasure::Erasure;
use heddle_schemas::id::{ContactId, MessageKey, TenantId};
use heddle_schemas::record::V;
use heddle_schemas::record::inbound::{InboundEvent, InboundRecord, Restrict};
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
        for account in tenant.accounts_ever() {
            let conversation = account.conversation(contact);
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

    /// Has what is kept of a contact stored and not used from now on, or used again: nobody answers it, and nothing
    /// but replies that were decided before is sent. It is in force once what its conversations received before is
    /// worked off. Asking again sends it on its way again.
    ///
    /// # Errors
    /// [`AdministrationError`].
    pub async fn restrict(
        &self,
        id: &TenantId,
        named: &ContactName,
        restricted: bool,
    ) -> Result<Consents, AdministrationError> {
        let tenant = self.tenant(id)?;
        let contact = self.contact(id, named).await?;
        self.audited(Some(id), What::ContactRestrict { contact, restricted }, async {
            consent::restrict(&self.ports, id, contact, restricted).await?;
            let records = tenant.accounts_ever().into_iter().map(|account| {
                let conversation = account.conversation(contact);
                let key = MessageKey::from_bytes((self.ports.random)());
                let event = InboundEvent::Restrict(Restrict { key, restricted });
                let record = InboundRecord { v: V, conversation, at: self.ports.clock.now(), event };
                publish::inbound(&self.ports, &record)
            });
            self.ports.log.append(records.collect()).await?;
            Ok(())
        })
        .await?;
        self.consents_of(id, contact).await
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
