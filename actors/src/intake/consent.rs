//! Consent and opt-out of a contact: recording statements, and reading the consent that holds.
//!
//! The contact's record is changed by conditional update only, so each writer merges with concurrent writes, and
//! applying the same statement again changes nothing ([`heddle_schemas::consent`]). A statement is durable when
//! [`record`] returns. [`standing`] reads the store, never a cache: an opt-out holds from the next send on.
//!
//! A contact that turned out to be another one leads to it. What is said and asked of either is of that one.

use bytes::Bytes;
use heddle_schemas::consent::{Category, Consent, ContactRecord, Evidence, How, Says, Standing};
use heddle_schemas::content::Content;
use heddle_schemas::id::{ContactId, MessageKey, TenantId};
use heddle_schemas::ports::channel::ChannelProfile;
use heddle_schemas::ports::keys::{KeysError, TenantCipher, aad};
use heddle_schemas::ports::log::NewRecord;
use heddle_schemas::ports::state::{State, StoreError};
use heddle_schemas::ports::update::{Change, Impatient, update};
use heddle_schemas::record::event::{Event, EventRecord};
use heddle_schemas::record::{V, encode};
use heddle_schemas::table::Key;
use heddle_schemas::tenant::Tenant;
use heddle_schemas::time::Timestamp;

use crate::partition::commit::read;
use crate::partition::publish;
use crate::ports::Ports;

/// Contacts that a contact may lead through.
const STEPS: usize = 64;

/// Statement about what may be sent.
#[derive(Debug, Clone)]
pub struct Statement {
    /// Give or stop.
    pub says: Says,
    /// About what; one statement may speak of several.
    pub categories: Vec<Category>,
    /// When, by the channel's clock.
    pub at: Timestamp,
    /// Means by which it was stated.
    pub how: How,
    /// Keyed hash of the statement's source: the same for each delivery of it.
    pub key: MessageKey,
    /// Wording.
    pub text: Option<String>,
}

/// Statement that a message makes.
#[derive(Debug)]
pub struct Stated<'a> {
    /// Give or stop.
    pub says: Says,
    /// Means.
    pub how: How,
    /// About what.
    pub categories: Vec<Category>,
    /// The words.
    pub text: &'a str,
}

/// Returns the statement about consent that a message makes: a typed stop or start word, or a tap on the channel's own
/// opt-out button, which is about marketing. A tap on any other button is none, whatever its title.
#[must_use]
pub fn stated<'a>(
    profile: Option<&ChannelProfile>,
    tenant: &Tenant,
    content: &'a Content,
) -> Option<Stated<'a>> {
    if let Content::Button { text, .. } = content {
        let known = profile.map_or(&[][..], |profile| profile.opt_out_buttons);
        return tenant.consent.is_stop_button(text, known).then(|| Stated {
            says: Says::Stop,
            how: How::Preference,
            categories: vec![Category::Marketing],
            text,
        });
    }
    let (says, text) = (tenant.says(content)?, content.typed()?);
    Some(Stated { says, how: How::Word, categories: tenant.consent.purposes.clone(), text })
}

/// Returns whether a message is nothing but an opt-out.
#[must_use]
pub fn is_stop(profile: Option<&ChannelProfile>, tenant: &Tenant, content: &Content) -> bool {
    stated(profile, tenant, content).is_some_and(|stated| stated.says == Says::Stop)
}

/// Applies a statement to the contact's record. A start word also ends what a stop word stopped under another
/// configuration. Returns the events to publish where it is the latest statement: also
/// when it was there before, since its first writer may not have published them.
///
/// # Errors
/// When the store does not answer. It is unknown then whether the statement is stored; a repetition is harmless.
pub async fn record(
    ports: &Ports,
    tenant: &TenantId,
    cipher: &dyn TenantCipher,
    contact: ContactId,
    statement: &Statement,
) -> Result<Vec<NewRecord>, StoreError> {
    let Statement { says, at, how, key, text, categories: _ } = statement;
    let known_at = Some(ports.clock.now());
    let (contact, merged, is_new) = change(ports, tenant, contact, |contact, merged| {
        let place = aad(&Key::contact(tenant, contact), &Evidence::column(*key));
        let text = text.as_ref().map(|text| cipher.seal(&place, text.as_bytes()));
        let evidence = Evidence { at: *at, how: (*how).into(), key: *key, text, known_at };
        for category in &about(statement, merged) {
            merged.merge(*category, Consent::of(*says, evidence.clone()));
        }
    })
    .await?;
    if is_new {
        ports.metrics.consent(*says, *how);
    }
    let latest = |category: &&Category| {
        let consent = merged.consents.get(&(**category).into());
        let kept = consent.and_then(|consent| match says {
            Says::Give => consent.given.as_ref(),
            Says::Stop => consent.stopped.as_ref(),
        });
        kept.is_some_and(|kept| (kept.at, &kept.how, kept.key) == (*at, &(*how).into(), *key))
    };
    let categories = about(statement, &merged);
    let told = categories.iter().filter(latest).map(|&category| {
        let (how, category, said_at) = ((*how).into(), category.into(), *at);
        let event = match says {
            Says::Give => Event::Consented { contact, category, how, said_at },
            Says::Stop => Event::OptedOut { contact, category, how, said_at },
        };
        let tenant = tenant.clone();
        publish::event(ports, &EventRecord { v: V, tenant, at: ports.clock.now(), event })
    });
    Ok(told.collect())
}

/// The purposes of a statement: a start word is also about those that a stop word has stopped.
fn about(statement: &Statement, record: &ContactRecord) -> Vec<Category> {
    let stopped_by_word = |category: &Category| {
        let stopped = record.consents.get(&(*category).into()).and_then(|consent| consent.stopped.as_ref());
        stopped.is_some_and(|stopped| stopped.how == How::Word.into())
    };
    let is_start = (statement.says, statement.how) == (Says::Give, How::Word);
    let is_meant = |category: &Category| {
        statement.categories.contains(category) || (is_start && stopped_by_word(category))
    };
    Category::ALL.into_iter().filter(is_meant).collect()
}

/// Restricts processing of a contact's data to storage, or ends that. Returns true if that is new.
///
/// # Errors
/// As [`record`].
pub async fn restrict(
    ports: &Ports,
    tenant: &TenantId,
    contact: ContactId,
    restricted: bool,
) -> Result<bool, StoreError> {
    let now = ports.clock.now();
    change_restriction(ports, tenant, contact, |since| match (since, restricted) {
        (Some(since), true) => Some(since),
        (None, true) => Some(now),
        (_, false) => None,
    })
    .await
}

/// Ends the restriction of a contact's data, where it began at `until` or before.
///
/// # Errors
/// As [`record`].
pub(crate) async fn lift_restriction(
    ports: &Ports,
    tenant: &TenantId,
    contact: ContactId,
    until: Timestamp,
) -> Result<bool, StoreError> {
    change_restriction(ports, tenant, contact, |since| since.filter(|since| *since > until)).await
}

async fn change_restriction(
    ports: &Ports,
    tenant: &TenantId,
    contact: ContactId,
    to: impl Fn(Option<Timestamp>) -> Option<Timestamp> + Send + Sync,
) -> Result<bool, StoreError> {
    let changed =
        change(ports, tenant, contact, |_, record| record.restricted_at = to(record.restricted_at)).await;
    changed.map(|(_, _, is_new)| is_new)
}

/// Changes the record of a person. Returns the contact that it is of, the record, and whether it is new.
async fn change(
    ports: &Ports,
    tenant: &TenantId,
    contact: ContactId,
    to: impl Fn(ContactId, &mut ContactRecord) + Send + Sync,
) -> Result<(ContactId, ContactRecord, bool), StoreError> {
    let mut contact = contact;
    for _ in 0..STEPS {
        let (record, is_new) = update(&*ports.state, &Key::contact(tenant, contact), Impatient, |found| {
            let before = record_of(found)?;
            let mut record = before.clone();
            if before.leads_to.is_none() {
                to(contact, &mut record);
            }
            Ok::<_, StoreError>(match record == before {
                true => Change::Keep((record, false)),
                false => Change::put(encode(&record), (record, true)),
            })
        })
        .await?;
        match record.leads_to {
            Some(forward) => contact = forward.contact,
            None => return Ok((contact, record, is_new)),
        }
    }
    Err(StoreError::Corrupt { detail: "contacts lead to each other without end".into() })
}

/// Returns the consent that holds for a purpose. Retries while the store does not answer: no send rests on a guess. A
/// record that cannot be read counts as an opt-out.
///
/// # Errors
/// Errors that a retry does not fix.
pub async fn standing(
    ports: &Ports,
    tenant: &TenantId,
    contact: ContactId,
    category: Category,
) -> Result<Standing, StoreError> {
    let mut contact = contact;
    for _ in 0..STEPS {
        let row = Key::contact(tenant, contact);
        let stored = read(&ports.metrics, || ports.state.get(&row)).await?;
        match stored.as_deref().map(parse).transpose() {
            Ok(None) => return Ok(Standing::Unknown),
            Ok(Some(ContactRecord { leads_to: Some(forward), .. })) => contact = forward.contact,
            Ok(Some(record)) => return Ok(record.standing(category)),
            Err(error) => {
                tracing::error!(%tenant, %error, "a contact is taken as opted out");
                return Ok(Standing::Stopped);
            }
        }
    }
    tracing::error!(%tenant, "contacts lead to each other without end, and are taken as opted out");
    Ok(Standing::Stopped)
}

/// The record of a contact, as it is stored.
///
/// # Errors
/// When the store does not answer, or the record cannot be read.
pub async fn load(
    state: &dyn State,
    tenant: &TenantId,
    contact: ContactId,
) -> Result<ContactRecord, StoreError> {
    record_of(state.get(&Key::contact(tenant, contact)).await?.as_ref())
}

/// A piece of evidence of one contact as that of another. Words that do not open are left out: the statement holds
/// without them.
pub(crate) fn moved(
    tenant: &TenantId,
    cipher: &dyn TenantCipher,
    (from, to): (ContactId, ContactId),
    evidence: Evidence,
) -> Evidence {
    let words = words(tenant, cipher, from, &evidence).ok().flatten();
    let place = aad(&Key::contact(tenant, to), &Evidence::column(evidence.key));
    let text = words.map(|words| cipher.seal(&place, words.as_bytes()));
    Evidence { text, ..evidence }
}

/// The words of a piece of evidence.
///
/// # Errors
/// When they do not open.
pub fn words(
    tenant: &TenantId,
    cipher: &dyn TenantCipher,
    contact: ContactId,
    evidence: &Evidence,
) -> Result<Option<String>, KeysError> {
    let place = aad(&Key::contact(tenant, contact), &Evidence::column(evidence.key));
    let open = |sealed| Ok(String::from_utf8_lossy(&cipher.open(&place, sealed)?).into_owned());
    evidence.text.as_ref().map(open).transpose()
}

/// Reads a record as it is stored.
pub(crate) fn record_of(stored: Option<&Bytes>) -> Result<ContactRecord, StoreError> {
    stored.map_or_else(|| Ok(ContactRecord::new()), |stored| parse(stored))
}

fn parse(stored: &[u8]) -> Result<ContactRecord, StoreError> {
    serde_json::from_slice(stored).map_err(|error| StoreError::Corrupt {
        // The error's own text would repeat some of the record.
        detail: format!("the record of a contact does not parse: {:?}", error.classify()),
    })
}
