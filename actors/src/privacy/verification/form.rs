//! Reader of rows: opens each at its place and checks it against the form of its table.
//!
//! A row is read as strictly as it is written: a value with anything beside its form, or with text in place of a
//! ciphertext, was not written by this engine.

use std::sync::Arc;

use heddle_schemas::audience::AudienceHead;
use heddle_schemas::consent::ContactRecord;
use heddle_schemas::content::Address;
use heddle_schemas::erasure::Erasure;
use heddle_schemas::id::{ContactId, TenantId};
use heddle_schemas::ports::keys::{Cipher, ContactCipher, Keys, KeysError, Missing, TenantCipher, aad};
use heddle_schemas::ports::state::Row;
use heddle_schemas::record::outbound::{OutboundCommand, OutboundRecord};
use heddle_schemas::record::version::Versioned;
use heddle_schemas::record::{decode, encode_as, log_aad, version};
use heddle_schemas::sealed::Sealed;
use heddle_schemas::table::{Descriptor, Form, Json, Key, SealedUnder, Written};
use heddle_schemas::tenant_deletion::DeletionRecord;
use heddle_schemas::time::{Day, Timestamp};
use heddle_schemas::topic::Topic;
use heddle_schemas::zone::Date;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::account::send::Journal;
use crate::conversation::Delivery;
use crate::conversation::correct::{ADDRESS, CORRECTED, FORMER_NAMES};
use crate::conversation::head::Head;
use crate::conversation::thread::{self, Thread, ThreadError};
use crate::conversation::turn::Claim;
use crate::intake::consent;
use crate::partition::parking;
use crate::tenant::quota;
use crate::tenant::quota::amounts::Totals;

/// Content of a row, as far as a promise is about it.
#[derive(Debug)]
pub(super) enum Holds {
    /// The state of a conversation.
    Head {
        /// Address of the person.
        address: Box<Address>,
        /// When it was written; an earlier build did not note it.
        written: Option<Timestamp>,
        /// True where the person's data is to be stored and not used.
        is_restricted: bool,
    },
    /// Row of one commit in a thread.
    History(Box<thread::Row>),
    /// Delivery state of a message.
    Delivery(Delivery),
    /// The journal of a send.
    Send(Journal),
    /// Message that waits to be sent.
    Backlog(Box<OutboundRecord>),
    /// A parked record, appended at this time.
    Parked(Timestamp),
    /// The record of a contact.
    Contact(Box<ContactRecord>),
    /// Use of a quota, with its day.
    Spend(Option<(Date, Totals)>),
    /// Row without further checks.
    Fine,
}

/// Fault of a row.
#[derive(Debug)]
pub(super) enum Wrong {
    /// It is not of its table's form: its content may be in the clear.
    Form(String),
    /// Its ciphertext was changed, or belongs elsewhere.
    Foreign(String),
    /// Its contact's key is destroyed, and it still exists.
    Gone(ContactId),
}

/// Opens the rows of a tenant.
pub(super) struct Reader {
    keys: Arc<dyn Keys>,
    tenant: TenantId,
    cipher: Arc<dyn TenantCipher>,
    /// Rows come by partition, so those of one contact follow each other.
    contact: Option<(ContactId, Option<Arc<dyn ContactCipher>>)>,
    log: Option<(Day, Arc<dyn Cipher>)>,
    /// Number of ciphertexts that were opened.
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
    /// When keys cannot be read.
    pub(super) async fn read(&mut self, row: &Row) -> Read {
        let Row { key, value, .. } = row;
        match self.parse(key, value.as_ref()).await {
            Ok(holds) => Ok(Ok(holds)),
            Err(Stop::Wrong(wrong)) => Ok(Err(wrong)),
            Err(Stop::Keys(error)) => Err(error),
        }
    }

    async fn parse(&mut self, key: &Key, value: &[u8]) -> Result<Holds, Stop> {
        let Descriptor { form, written, .. } = *key.table().descriptor();
        match form {
            // The version of the others.
            Form::Sealed { .. } if written == Written::Versioned && key.row().is_empty() => {}
            Form::Sealed { under, column } => {
                let sealed = ciphertext(value)?;
                let place = aad(key, column);
                let opened = match under {
                    SealedUnder::Contact => self.of_contact(key).await?.open(&place, &sealed),
                    SealedUnder::Tenant => self.cipher.open(&place, &sealed),
                };
                self.opened(opened)?;
            }
            Form::Thread { .. } => return self.thread(key, value).await,
            Form::Ids(lengths) if lengths.contains(&value.len()) => {}
            Form::Ids(_) => return Err(form_error("it holds more than an id")),
            // Its wrapping key opens it only at this place: the next read of the key checks that.
            Form::WrappedKey if is_wrapped(value) => {}
            Form::WrappedKey => return Err(form_error("a key is not wrapped")),
            // Only a later build may know more of it.
            Form::Record => {
                let at = parking::appended(value).ok_or_else(|| form_error("it holds no record"))?;
                return Ok(Holds::Parked(at));
            }
            Form::Json(json) => return self.json(json, key, value).await,
        }
        Ok(Holds::Fine)
    }

    async fn thread(&mut self, key: &Key, value: &[u8]) -> Result<Holds, Stop> {
        let conversation = key.conversation().ok_or_else(|| form_error("it names no conversation"))?;
        ciphertext(value)?;
        let number = key.row().try_into().map(u64::from_be_bytes).map_err(form_error)?;
        let thread = Thread::new(conversation, self.of_contact(key).await?);
        match thread.open(key, number, value.to_vec().into()) {
            Ok(row) => {
                self.opened += 1;
                Ok(Holds::History(Box::new(row)))
            }
            Err(ThreadError::Keys(error)) => Err(Stop::of(error)),
            Err(error) => Err(form_error(error)),
        }
    }

    async fn json(&mut self, json: Json, key: &Key, value: &[u8]) -> Result<Holds, Stop> {
        match json {
            Json::Head => return self.head(key, value).await,
            Json::Delivery => return Ok(Holds::Delivery(strict(value)?)),
            Json::Send => return Ok(Holds::Send(strict(value)?)),
            Json::Outbound => {
                let record: OutboundRecord = versioned(value)?;
                if let OutboundCommand::Send(send) = &record.command {
                    let cipher = self.of_log(&send.sealed).await?;
                    self.opened(cipher.open(&log_aad(Topic::Outbound, &send.id), &send.sealed))?;
                }
                return Ok(Holds::Backlog(Box::new(record)));
            }
            Json::Contact => return self.consents(key, value),
            Json::Spend => return Ok(Holds::Spend(strict::<quota::Spend>(value)?.counts())),
            Json::Audience => {
                if !strict::<AudienceHead>(value)?.others.is_empty() {
                    return Err(form_error("it has fields that this build does not know"));
                }
            }
            Json::Claim => drop(strict::<Claim>(value)?),
            Json::Ledger => drop(strict::<quota::Ledger>(value)?),
            Json::Erasure => drop(strict::<Erasure>(value)?),
            Json::TenantDeletion => drop(strict::<DeletionRecord>(value)?),
            // The audit log verifies itself; the engine's rows belong to no tenant.
            Json::AuditEntry | Json::Engine => {}
        }
        Ok(Holds::Fine)
    }

    async fn head(&mut self, key: &Key, value: &[u8]) -> Result<Holds, Stop> {
        let head: Head = strict(value)?;
        for (sealed, column) in [(&head.corrected, CORRECTED), (&head.former_names, FORMER_NAMES)] {
            if let Some(sealed) = sealed {
                let cipher = self.of_contact(key).await?;
                self.opened(cipher.open(&aad(key, column), sealed))?;
            }
        }
        let address = match &head.address {
            Some(sealed) => {
                let cipher = self.of_contact(key).await?;
                let plain = self.opened(cipher.open(&aad(key, ADDRESS), sealed))?;
                serde_json::from_slice(&plain).map_err(form_error)?
            }
            None => Box::default(),
        };
        Ok(Holds::Head { address, written: head.at, is_restricted: head.restricted_since.is_some() })
    }

    fn consents(&mut self, key: &Key, value: &[u8]) -> Result<Holds, Stop> {
        let record: ContactRecord = strict(value)?;
        if !record.others.is_empty() {
            return Err(form_error("it has fields that this build does not know"));
        }
        let contact = key.about().ok_or_else(|| form_error("it names no contact"))?;
        for consent in record.consents.values() {
            for evidence in consent.evidence() {
                let words = consent::words(&self.tenant, &*self.cipher, contact, evidence);
                self.opened(words)?;
            }
        }
        Ok(Holds::Contact(Box::new(record)))
    }

    fn opened<T>(&mut self, opened: Result<T, KeysError>) -> Result<T, Stop> {
        self.opened += 1;
        opened.map_err(Stop::of)
    }

    /// Returns whether a contact has no key, because it was destroyed.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub(super) async fn is_gone(&mut self, contact: ContactId) -> Result<bool, KeysError> {
        Ok(self.key_of(contact).await?.is_none())
    }

    async fn key_of(&mut self, contact: ContactId) -> Result<Option<Arc<dyn ContactCipher>>, KeysError> {
        if let Some((of, cipher)) = &self.contact
            && *of == contact
        {
            return Ok(cipher.clone());
        }
        let cipher = match self.keys.contact(&self.tenant, contact, Missing::Fail).await {
            Ok(cipher) => Some(cipher),
            Err(KeysError::Gone { .. }) => None,
            Err(error) => return Err(error),
        };
        self.contact = Some((contact, cipher.clone()));
        Ok(cipher)
    }

    async fn of_contact(&mut self, key: &Key) -> Result<Arc<dyn ContactCipher>, Stop> {
        let contact = key.about().ok_or_else(|| form_error("it names no contact"))?;
        self.key_of(contact).await.map_err(Stop::of)?.ok_or(Stop::Wrong(Wrong::Gone(contact)))
    }

    async fn of_log(&mut self, sealed: &Sealed) -> Result<Arc<dyn Cipher>, Stop> {
        let day = Day(sealed.key_number().ok_or_else(|| form_error("a ciphertext has no header"))?);
        if let Some((of, cipher)) = &self.log
            && *of == day
        {
            return Ok(cipher.clone());
        }
        let cipher = self.keys.log(&self.tenant, day).await.map_err(Stop::of)?;
        self.log = Some((day, cipher.clone()));
        Ok(cipher)
    }

    /// Opens the content of a record of the log.
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

fn form_error(detail: impl std::fmt::Display) -> Stop {
    Stop::Wrong(Wrong::Form(detail.to_string()))
}

fn ciphertext(value: &[u8]) -> Result<Sealed, Stop> {
    let sealed = Sealed::from_bytes(value.to_vec());
    match sealed.key_number() {
        Some(_) => Ok(sealed),
        None => Err(form_error("no ciphertext where one belongs")),
    }
}

/// Header, 32 bytes and tag at least; or the time of an erasure behind a zero.
fn is_wrapped(value: &[u8]) -> bool {
    value.len() > Sealed::HEADER + 32 || (value.len() == 9 && value[0] == 0)
}

/// Reads JSON that has no field beyond those that are read.
fn strict<T: Serialize + DeserializeOwned>(stored: &[u8]) -> Result<T, Stop> {
    let value: Value = serde_json::from_slice(stored).map_err(form_error)?;
    let read: T = T::deserialize(&value).map_err(form_error)?;
    let again = serde_json::to_value(&read).map_err(form_error)?;
    unless_more(read, &again, &value)
}

/// Returns what was read where it is all that is stored, as it is written `again`.
fn unless_more<T>(read: T, again: &Value, stored: &Value) -> Result<T, Stop> {
    match covers(again, stored) {
        true => Ok(read),
        false => Err(form_error("it holds more than the engine writes there")),
    }
}

/// Returns true when every value of `found` is in `read` too. Defaults need not be written.
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

/// Reads a record of this build's version or of the one before as strictly: nodes write the one before while a cluster
/// is upgraded.
fn versioned<T: Versioned>(stored: &[u8]) -> Result<T, Stop> {
    let read: T = decode(stored).map_err(form_error)?;
    let found = version::of(stored).and_then(|found| u16::try_from(found).ok()).unwrap_or(T::VERSION);
    let again: Value = serde_json::from_slice(&encode_as(&read, found)).map_err(form_error)?;
    unless_more(read, &again, &serde_json::from_slice(stored).map_err(form_error)?)
}

/// Reads a record of the log as strictly.
pub(super) fn record<T: Versioned>(stored: &[u8]) -> Result<T, String> {
    versioned(stored).map_err(detail_of)
}

fn detail_of(stop: Stop) -> String {
    match stop {
        Stop::Wrong(Wrong::Form(detail) | Wrong::Foreign(detail)) => detail,
        Stop::Wrong(Wrong::Gone(_)) | Stop::Keys(_) => String::new(),
    }
}

/// Returns whether a row was written no later than an erasure that was to take it; `None` where its value does not say.
pub(super) fn is_from_before(holds: &Holds, erased_at: Timestamp) -> Option<bool> {
    use crate::conversation::thread::EntrySaid;
    match holds {
        Holds::History(row) => Some(row.entries.iter().any(|entry| match entry {
            EntrySaid::Customer { at, .. }
            | EntrySaid::Tenant { at, .. }
            | EntrySaid::Restricted { at, .. }
            | EntrySaid::Corrected { at }
            | EntrySaid::Agent { at, .. }
            | EntrySaid::Sent { at, .. } => *at <= erased_at,
            // Only a later build knows its times.
            EntrySaid::Unknown(_) => false,
        })),
        Holds::Delivery(delivery) => Some(delivery.at <= erased_at),
        Holds::Backlog(record) => Some(record.at <= erased_at),
        Holds::Parked(at) => Some(*at <= erased_at),
        Holds::Head { .. } | Holds::Send(_) | Holds::Contact(_) | Holds::Spend(_) | Holds::Fine => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Result<Delivery, String> {
        strict(value.to_string().as_bytes()).map_err(detail_of)
    }

    #[test]
    fn a_record_of_the_version_before_is_read_as_strictly() {
        let conversation = "acme/whatsapp/1/0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a".parse().unwrap();
        let (at, command) = (Timestamp::from_secs(7), OutboundCommand::Forget);
        let written = OutboundRecord { v: heddle_schemas::record::V, conversation, at, command };
        for version in [OutboundRecord::VERSION - 1, OutboundRecord::VERSION] {
            let stored = encode_as(&written, version);
            assert!(record::<OutboundRecord>(&stored).is_ok(), "{stored:?}");
            let mut more: Value = serde_json::from_slice(&stored).unwrap();
            more["note"] = json!("call me at 10");
            assert!(record::<OutboundRecord>(more.to_string().as_bytes()).is_err());
        }
    }

    #[test]
    fn json_with_more_than_the_engine_writes_is_refused() {
        assert!(read(json!({ "status": "sent", "at": 7 })).is_ok());
        assert!(read(json!({ "status": "sent", "at": 7, "failure": { "code": 1 } })).is_ok());
        let more = json!({ "status": "sent", "at": 7, "text": "call me at 10" });
        assert!(read(more).unwrap_err().contains("more than"));
        let deeper = json!({ "status": "sent", "at": 7, "failure": { "code": 1, "text": "x" } });
        assert!(read(deeper).is_err());
        assert!(read(json!("hello")).is_err());
    }

    #[test]
    fn a_key_in_the_clear_differs_from_a_wrapped_one() {
        assert!(is_wrapped(&[0; 9]), "erased");
        assert!(is_wrapped(&[1; 65]), "32 bytes with header and tag");
        assert!(!is_wrapped(&[7; 32]));
        assert!(!is_wrapped(&[7; 40]), "with the time of an erasure");
    }
}
