//! What a row has to look like, and what is in it, opened.
//!
//! Every table has one form, and a row is read as strictly as it is written: a value that has anything beside it, or
//! text where a ciphertext belongs, is not what this engine writes.

use std::sync::Arc;

use heddle_schemas::consent::ContactRecord;
use heddle_schemas::content::Address;
use heddle_schemas::erasure::Erasure;
use heddle_schemas::id::{ContactId, TenantId};
use heddle_schemas::ports::keys::{Cipher, ContactCipher, Keys, KeysError, Missing, TenantCipher, aad};
use heddle_schemas::ports::knowledge::DOCUMENT_COLUMN;
use heddle_schemas::ports::state::Row;
use heddle_schemas::record::log_aad;
use heddle_schemas::record::outbound::{OutboundCommand, OutboundRecord};
use heddle_schemas::removal::Removal;
use heddle_schemas::sealed::Sealed;
use heddle_schemas::table::{Key, Table};
use heddle_schemas::time::{Day, Timestamp};
use heddle_schemas::topic::Topic;
use heddle_schemas::zone::Date;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::account::send::Journal;
use crate::conversation::Delivery;
use crate::conversation::correct::CORRECTED;
use crate::conversation::head::Head;
use crate::conversation::thread::{self, Thread, ThreadError};
use crate::conversation::tools;
use crate::conversation::turn::Claim;
use crate::intake::consent;
use crate::tenant::quota;
use crate::tenant::quota::amounts::Totals;

/// What a row holds, as far as a promise is about it.
#[derive(Debug)]
pub(super) enum Holds {
    /// The state of a conversation.
    Head(Address),
    /// What one commit added to a thread.
    History(Box<thread::Row>),
    /// How far a message has come.
    Delivery(Delivery),
    /// The journal of a send.
    Send(Journal),
    /// A message that waits to be sent.
    Backlog(Box<OutboundRecord>),
    /// The record of a contact.
    Contact(Box<ContactRecord>),
    /// What was spent of a quota, on which day.
    Spend(Option<(Date, Totals)>),
    /// Nothing more to look at.
    Fine,
}

/// Why a row is not what it has to be.
#[derive(Debug)]
pub(super) enum Wrong {
    /// It is not of its table's form: what is in it may stand in the clear.
    Form(String),
    /// Its ciphertext was changed, or belongs elsewhere.
    Foreign(String),
    /// Its contact's key is destroyed, and it is still there.
    Gone(ContactId),
}

/// Opens the rows of a tenant.
pub(super) struct Reader {
    keys: Arc<dyn Keys>,
    tenant: TenantId,
    cipher: Arc<dyn TenantCipher>,
    /// Rows come by partition, so the same contact's follow each other.
    contact: Option<(ContactId, Option<Arc<dyn ContactCipher>>)>,
    log: Option<(Day, Arc<dyn Cipher>)>,
    /// How many ciphertexts were opened.
    pub(super) opened: u64,
}

type Read = Result<Result<Holds, Wrong>, KeysError>;

impl Reader {
    pub(super) async fn new(keys: Arc<dyn Keys>, tenant: &TenantId) -> Result<Self, KeysError> {
        let cipher = keys.tenant(tenant).await?;
        Ok(Self { keys, tenant: tenant.clone(), cipher, contact: None, log: None, opened: 0 })
    }

    /// Reads a row.
    ///
    /// # Errors
    /// When keys cannot be had.
    pub(super) async fn read(&mut self, row: &Row) -> Read {
        let Row { key, value, .. } = row;
        match self.parse(key, value.as_ref()).await {
            Ok(holds) => Ok(Ok(holds)),
            Err(Stop::Wrong(wrong)) => Ok(Err(wrong)),
            Err(Stop::Keys(error)) => Err(error),
        }
    }

    async fn parse(&mut self, key: &Key, value: &[u8]) -> Result<Holds, Stop> {
        Ok(match key.table() {
            Table::Head => {
                let head: Head = strict(value)?;
                if let Some(sealed) = &head.corrected {
                    let cipher = self.of_contact(key).await?;
                    self.opened(cipher.open(&aad(key, CORRECTED), sealed))?;
                }
                let Some(sealed) = &head.address else { return Ok(Holds::Head(Address::default())) };
                let cipher = self.of_contact(key).await?;
                let plain = self.opened(cipher.open(&aad(key, "address"), sealed))?;
                Holds::Head(serde_json::from_slice(&plain).map_err(form)?)
            }
            Table::History => {
                let conversation = key.conversation().ok_or_else(|| form("it names no conversation"))?;
                sealed(value)?;
                let number = key.row().try_into().map(u64::from_be_bytes).map_err(form)?;
                let thread = Thread::new(conversation, self.of_contact(key).await?);
                match thread.open(key, number, value.to_vec().into()) {
                    Ok(row) => {
                        self.opened += 1;
                        Holds::History(Box::new(row))
                    }
                    Err(ThreadError::Keys(error)) => return Err(Stop::of(error)),
                    Err(error) => return Err(form(error)),
                }
            }
            Table::Tool => {
                sealed(value)?;
                let cipher = self.of_contact(key).await?;
                let sealed = Sealed::from_bytes(value.to_vec());
                self.opened(cipher.open(&aad(key, tools::journal::COLUMN), &sealed))?;
                Holds::Fine
            }
            // Nothing, or the name of a turn.
            Table::Marker if matches!(value.len(), 0 | 16) => Holds::Fine,
            Table::Marker => return Err(form("a marker holds more than a turn's name")),
            Table::Claim => {
                strict::<Claim>(value)?;
                Holds::Fine
            }
            Table::Delivery => Holds::Delivery(strict(value)?),
            Table::Send => Holds::Send(strict(value)?),
            Table::Backlog => {
                let record: OutboundRecord = strict(value)?;
                if let OutboundCommand::Send(send) = &record.command {
                    let cipher = self.of_log(&send.sealed).await?;
                    self.opened(cipher.open(&log_aad(Topic::Outbound, &send.id), &send.sealed))?;
                }
                Holds::Backlog(Box::new(record))
            }
            Table::Alias if value.len() == 16 => Holds::Fine,
            Table::Alias => return Err(form("an alias leads to no contact")),
            Table::Contact => {
                let record: ContactRecord = strict(value)?;
                if !record.others.is_empty() {
                    return Err(form("it has fields that this build does not know"));
                }
                let contact = key.about().ok_or_else(|| form("it names no contact"))?;
                for consent in record.consents.values() {
                    for evidence in [&consent.given, &consent.stopped].into_iter().flatten() {
                        let words = consent::words(&self.tenant, &*self.cipher, contact, evidence);
                        self.opened(words)?;
                    }
                }
                Holds::Contact(Box::new(record))
            }
            // What wraps it opens it only at this place: whoever asks for the key finds out.
            Table::Key if is_wrapped(value) => Holds::Fine,
            Table::Key => return Err(form("a key is not wrapped")),
            // Without an id it is the version of all of them.
            Table::Document if key.row().is_empty() => Holds::Fine,
            Table::Document => {
                sealed(value)?;
                let sealed = Sealed::from_bytes(value.to_vec());
                self.opened(self.cipher.open(&aad(key, DOCUMENT_COLUMN), &sealed))?;
                Holds::Fine
            }
            Table::Quota => {
                strict::<quota::Ledger>(value)?;
                Holds::Fine
            }
            Table::Spend => Holds::Spend(strict::<quota::Spend>(value)?.counts()),
            Table::Erasure => {
                strict::<Erasure>(value)?;
                Holds::Fine
            }
            Table::Removal => {
                strict::<Removal>(value)?;
                Holds::Fine
            }
            // The audit log proves itself; the others belong to no tenant.
            Table::Access | Table::Agenda | Table::Limit | Table::Sweep => Holds::Fine,
            // Only a later build knows its form.
            Table::Parked => Holds::Fine,
        })
    }

    fn opened<T>(&mut self, opened: Result<T, KeysError>) -> Result<T, Stop> {
        self.opened += 1;
        opened.map_err(Stop::of)
    }

    async fn of_contact(&mut self, key: &Key) -> Result<Arc<dyn ContactCipher>, Stop> {
        let contact = key.about().ok_or_else(|| form("it names no contact"))?;
        let cipher = match &self.contact {
            Some((of, cipher)) if *of == contact => cipher.clone(),
            _ => {
                let cipher = match self.keys.contact(&self.tenant, contact, Missing::Fail).await {
                    Ok(cipher) => Some(cipher),
                    Err(KeysError::Gone { .. }) => None,
                    Err(error) => return Err(Stop::of(error)),
                };
                self.contact = Some((contact, cipher.clone()));
                cipher
            }
        };
        cipher.ok_or(Stop::Wrong(Wrong::Gone(contact)))
    }

    async fn of_log(&mut self, sealed: &Sealed) -> Result<Arc<dyn Cipher>, Stop> {
        let day = Day(sealed.key_number().ok_or_else(|| form("a ciphertext has no header"))?);
        if let Some((of, cipher)) = &self.log
            && *of == day
        {
            return Ok(cipher.clone());
        }
        let cipher = self.keys.log(&self.tenant, day).await.map_err(Stop::of)?;
        self.log = Some((day, cipher.clone()));
        Ok(cipher)
    }

    /// Opens what a record of the log holds.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub(super) async fn open_logged(
        &mut self,
        place: &[u8],
        sealed: &Sealed,
    ) -> Result<Result<(), Wrong>, KeysError> {
        let opened = async {
            let cipher = self.of_log(sealed).await?;
            self.opened(cipher.open(place, sealed)).map(drop)
        };
        match opened.await {
            Ok(()) => Ok(Ok(())),
            Err(Stop::Wrong(wrong)) => Ok(Err(wrong)),
            Err(Stop::Keys(error)) => Err(error),
        }
    }
}

/// Why reading a row ended early.
enum Stop {
    Wrong(Wrong),
    Keys(KeysError),
}

impl Stop {
    fn of(error: KeysError) -> Self {
        match error {
            KeysError::Unreadable { detail } => Self::Wrong(Wrong::Foreign(detail)),
            other => Self::Keys(other),
        }
    }
}

fn form(detail: impl std::fmt::Display) -> Stop {
    Stop::Wrong(Wrong::Form(detail.to_string()))
}

fn sealed(value: &[u8]) -> Result<(), Stop> {
    match Sealed::from_bytes(value.to_vec()).key_number() {
        Some(_) => Ok(()),
        None => Err(form("no ciphertext where one belongs")),
    }
}

/// Header, 32 bytes and tag at least; or the time of an erasure behind a zero.
fn is_wrapped(value: &[u8]) -> bool {
    value.len() > Sealed::HEADER + 32 || (value.len() == 9 && value[0] == 0)
}

/// Reads JSON that has nothing beside what is read.
fn strict<T: Serialize + DeserializeOwned>(stored: &[u8]) -> Result<T, Stop> {
    let value: Value = serde_json::from_slice(stored).map_err(form)?;
    let read: T = T::deserialize(&value).map_err(form)?;
    let again = serde_json::to_value(&read).map_err(form)?;
    if covers(&again, &value) { Ok(read) } else { Err(form("it holds more than the engine writes there")) }
}

/// Whether every value of `found` is in `read` too. Defaults need not be written.
fn covers(read: &Value, found: &Value) -> bool {
    match (read, found) {
        (Value::Object(read), Value::Object(found)) => {
            found.iter().all(|(name, value)| read.get(name).is_some_and(|read| covers(read, value)))
        }
        (Value::Array(read), Value::Array(found)) => {
            read.len() == found.len() && read.iter().zip(found).all(|(read, found)| covers(read, found))
        }
        (read, found) => read == found,
    }
}

/// Reads a record of the log as strictly.
pub(super) fn record<T: Serialize + DeserializeOwned>(stored: &[u8]) -> Result<T, String> {
    strict(stored).map_err(|stop| match stop {
        Stop::Wrong(Wrong::Form(detail) | Wrong::Foreign(detail)) => detail,
        Stop::Wrong(Wrong::Gone(_)) | Stop::Keys(_) => String::new(),
    })
}

/// Whether it was written no later: what an erasure of that time was to take.
pub(super) fn is_from_before(holds: &Holds, erased_at: Timestamp) -> bool {
    use crate::conversation::thread::EntrySaid;
    match holds {
        Holds::History(row) => row.entries.iter().any(|entry| match entry {
            EntrySaid::Customer { at, .. }
            | EntrySaid::Tenant { at, .. }
            | EntrySaid::Restricted { at, .. }
            | EntrySaid::Corrected { at }
            | EntrySaid::Agent { at, .. } => *at <= erased_at,
            // Only a later build can tell.
            EntrySaid::Unknown(_) => false,
        }),
        Holds::Delivery(delivery) => delivery.at <= erased_at,
        Holds::Backlog(record) => record.at <= erased_at,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Result<Delivery, String> {
        record(value.to_string().as_bytes())
    }

    #[test]
    fn json_that_holds_more_than_is_written_is_not_taken() {
        assert!(read(json!({ "status": "sent", "at": 7 })).is_ok());
        assert!(read(json!({ "status": "sent", "at": 7, "failure": { "code": 1 } })).is_ok());
        let more = json!({ "status": "sent", "at": 7, "text": "call me at 10" });
        assert!(read(more).unwrap_err().contains("more than"));
        let deeper = json!({ "status": "sent", "at": 7, "failure": { "code": 1, "text": "x" } });
        assert!(read(deeper).is_err());
        assert!(read(json!("hello")).is_err());
    }

    #[test]
    fn a_key_in_the_clear_is_told_from_a_wrapped_one() {
        assert!(is_wrapped(&[0; 9]), "erased");
        assert!(is_wrapped(&[1; 65]), "32 bytes with header and tag");
        assert!(!is_wrapped(&[7; 32]));
        assert!(!is_wrapped(&[7; 40]), "with the time of an erasure");
    }
}
