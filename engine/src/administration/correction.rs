//! What a person may have put right: the name that is kept of it.
//!
//! A conversation keeps the name that the channel shows, and that is all that is kept of a person as a fact beside its
//! numbers and ids. Those are how it is found: putting one right by hand would make two people one, so a wrong number
//! is no correction but an erasure, and a new one comes from the channel.

use heddle_actors::partition::publish;
use heddle_schemas::audit::What;
use heddle_schemas::contact::ContactName;
use heddle_schemas::id::{MessageKey, TenantId};
use heddle_schemas::record::inbound::{Correct, InboundEvent, InboundRecord, SealedCorrection};
use heddle_schemas::record::{V, encode_for, log_aad};
use heddle_schemas::topic::Topic;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Administration, AdministrationError};

/// Characters of a name at most.
const NAME: usize = 256;

/// What is right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Correction {
    /// The name, 1 to 256 characters of one line; null where none is to be kept.
    pub name: Option<String>,
}

impl Correction {
    fn checked(self) -> Result<SealedCorrection, AdministrationError> {
        let Some(name) = self.name else { return Ok(SealedCorrection { name: None }) };
        let name = name.trim();
        if name.is_empty() || name.chars().count() > NAME || name.chars().any(char::is_control) {
            let why = format!("the name takes 1 to {NAME} characters of one line; to keep none, give none");
            return Err(AdministrationError::Entry(why));
        }
        Ok(SealedCorrection { name: Some(name.to_owned()) })
    }
}

impl Administration {
    /// Has the name that is kept of a contact put right. It is in force once what its conversations received before is
    /// worked off, and holds until the channel shows another name than it showed then.
    ///
    /// # Errors
    /// [`AdministrationError`].
    pub async fn correct(
        &self,
        id: &TenantId,
        named: &ContactName,
        correction: Correction,
    ) -> Result<(), AdministrationError> {
        let tenant = self.tenant(id)?;
        let correction = correction.checked()?;
        let contact = self.contact(id, named).await?;
        self.audited(Some(id), What::ContactCorrect { contact }, async {
            let at = self.ports.clock.now();
            let log = self.ports.keys.log(id, at.day()).await?;
            let records = tenant.accounts_ever().into_iter().map(|account| {
                let key = MessageKey::from_bytes((self.ports.random)());
                let place = log_aad(Topic::Inbound, &key);
                let sealed = encode_for(&correction, |plain| log.seal(&place, plain));
                let event = InboundEvent::Correct(Correct { key, sealed });
                let record = InboundRecord { v: V, conversation: account.conversation(contact), at, event };
                publish::inbound(&self.ports, &record)
            });
            self.ports.log.append(records.collect()).await?;
            Ok(())
        })
        .await
    }
}
