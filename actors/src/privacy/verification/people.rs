//! Check that a person is one: contacts that turned out to be one lead to each other, and ids lead to the contact that
//! has them.

use heddle_schemas::consent::ContactRecord;
use heddle_schemas::id::{ContactId, MessageKey, TenantId};
use heddle_schemas::ports::state::{Row, StoreError};
use heddle_schemas::promise::Proof;
use heddle_schemas::table::Key;

use super::form::Holds;
use crate::intake::{consent, identity};
use crate::partition::commit::read;
use crate::ports::Ports;

/// Contacts whose check is repeated at the end, at most: a message may have changed them meanwhile.
const AGAIN: usize = 1_000;

/// Check of people.
pub(super) struct People {
    tenant: TenantId,
    people: u64,
    merged: u64,
    again: Vec<ContactId>,
}

impl People {
    pub(super) fn new(tenant: &TenantId) -> Self {
        Self { tenant: tenant.clone(), people: 0, merged: 0, again: Vec::new() }
    }

    /// Checks the record of a contact.
    pub(super) async fn take(&mut self, ports: &Ports, row: &Row, holds: &Holds) -> Result<(), StoreError> {
        let (Holds::Contact(record), Some(contact)) = (holds, row.key.about()) else { return Ok(()) };
        self.people += u64::from(record.leads_to.is_none());
        self.merged += u64::from(record.leads_to.is_some());
        if self.again.len() < AGAIN && self.fault(ports, contact, record).await?.is_some() {
            self.again.push(contact);
        }
        Ok(())
    }

    /// Returns the fault of a contact's record, if it has one.
    async fn fault(
        &self,
        ports: &Ports,
        contact: ContactId,
        record: &ContactRecord,
    ) -> Result<Option<String>, StoreError> {
        if record.leads_to.is_some() {
            return Ok(None);
        }
        for other in &record.also {
            if self.root(ports, *other).await? != contact {
                return Ok(Some(format!(
                    "contact {contact}: it includes {other}, which does not lead to it"
                )));
            }
        }
        for known in record.ids.iter().filter(|known| known.is_current()) {
            if let Some(named) = self.named(ports, known.alias).await?
                && self.root(ports, named).await? != contact
            {
                return Ok(Some(format!("contact {contact}: one of its ids leads to contact {named}")));
            }
        }
        Ok(None)
    }

    async fn root(&self, ports: &Ports, contact: ContactId) -> Result<ContactId, StoreError> {
        Ok(identity::person(&*ports.state, &self.tenant, contact).await?.contact)
    }

    /// Returns the contact that an id leads to. The row may be missing where a message was not accepted.
    async fn named(&self, ports: &Ports, alias: MessageKey) -> Result<Option<ContactId>, StoreError> {
        let key = Key::alias(&self.tenant, alias);
        let stored = read(&ports.metrics, || ports.state.get(&key)).await?;
        Ok(stored.and_then(|stored| Some(ContactId::from_bytes(stored.as_ref().try_into().ok()?))))
    }

    /// Adds the result to the proof that opt-outs hold: a person who is split has some that do not.
    pub(super) async fn prove(self, ports: &Ports, proof: &mut Proof) -> Result<(), StoreError> {
        for contact in &self.again {
            let record = consent::load(&*ports.state, &self.tenant, *contact).await?;
            if let Some(fault) = self.fault(ports, *contact, &record).await? {
                proof.fault(format!("{fault}; the next message that shows both joins them"));
            }
        }
        proof.saw(format!("{} people, {} more contacts of them", self.people, self.merged));
        Ok(())
    }
}
