//! What a person may ask for: to see what is kept, and to be forgotten.

use heddle_actors::intake::consent;
use heddle_actors::partition::publish;
use heddle_actors::privacy::erasure;
use heddle_schemas::audit::What;
use heddle_schemas::contact::ContactName;
use heddle_schemas::erasure::Erasure;
use heddle_schemas::id::{ContactId, ConversationId, MessageKey, TenantId};
use heddle_schemas::record::V;
use heddle_schemas::record::inbound::{InboundEvent, InboundRecord, Restrict};
use heddle_schemas::tenant::Tenant;

use super::{Administration, AdministrationError};
use crate::consents::Consents;

/// Every conversation that a contact could have, also with accounts that were disconnected.
pub(super) fn conversations(tenant: &Tenant, contact: ContactId) -> impl Iterator<Item = ConversationId> {
    tenant.accounts_ever().into_iter().map(move |account| account.conversation(contact))
}

impl Administration {
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
            let records = conversations(&tenant, contact).map(|conversation| {
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
        let accounts = conversations(&tenant, contact).map(|of| (of.channel, of.account));
        let asking = async { Ok(erasure::ask(&self.ports, id, accounts, contact).await?) };
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
