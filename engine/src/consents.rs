//! Consents and opt-outs of a contact: from the record that is kept to what operators see, and from what they enter.

use heddle_actors::intake::consent::{self, Statement};
use heddle_api::consents::{ConsentEntry, Consents, Entered, Held, Shown, TEXT_CHARACTERS, Time};
use heddle_schemas::consent::{Category, ContactRecord, Evidence, How};
use heddle_schemas::id::{ContactId, MessageKey, TenantId};
use heddle_schemas::ports::keys::{KeysError, TenantCipher};
use heddle_schemas::time::Timestamp;

/// The statement of an entry, keyed by something random.
///
/// # Errors
/// What is wrong with the entry, in words.
pub(crate) fn statement(entry: ConsentEntry, key: MessageKey, now: Timestamp) -> Result<Statement, String> {
    let ConsentEntry { says, purposes, how, at, text } = entry;
    let at = at.map_or(now, |Time(at)| at);
    if purposes.is_empty() {
        return Err("purposes: is empty; name what it speaks of, such as \"marketing\"".into());
    }
    if at > now {
        return Err("at: lies ahead; it would stand above whatever the contact says until then".into());
    }
    if text.as_ref().is_some_and(|text| text.chars().count() > TEXT_CHARACTERS) {
        return Err(format!("text: is over {TEXT_CHARACTERS} characters"));
    }
    let how = match how {
        Entered::Operator => How::Operator,
        Entered::Import => How::Import,
    };
    Ok(Statement { says, categories: purposes, at, how, key, text })
}

/// A contact's record as it is shown, its texts opened.
///
/// # Errors
/// When a text does not open.
pub(crate) fn shown(
    tenant: &TenantId,
    cipher: &dyn TenantCipher,
    contact: ContactId,
    record: &ContactRecord,
) -> Result<Consents, KeysError> {
    let shown = |evidence: &Evidence| -> Result<Shown, KeysError> {
        let text = consent::words(tenant, cipher, contact, evidence)?;
        Ok(Shown { at: Time(evidence.at), how: evidence.how, text })
    };
    let held = |category| -> Result<(Category, Held), KeysError> {
        let consent = record.consents.get(&category).cloned().unwrap_or_default();
        let given = consent.given.as_ref().map(shown).transpose()?;
        let stopped = consent.stopped.as_ref().map(shown).transpose()?;
        Ok((category, Held { standing: record.standing(category), given, stopped }))
    };
    let purposes = Category::ALL.into_iter().map(held).collect::<Result<_, _>>()?;
    Ok(Consents { contact, purposes })
}
