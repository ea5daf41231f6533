//! Conversion of consents and opt-outs between the stored record and the admin API's types.

use heddle_actors::intake::consent::{self, Statement};
use heddle_api::consents::{ConsentEntry, Consents, Entered, Held, Shown, TEXT_CHARACTERS, Time};
use heddle_schemas::consent::{Category, ContactRecord, Evidence, How};
use heddle_schemas::id::{ContactId, MessageKey, TenantId};
use heddle_schemas::ports::keys::{KeysError, TenantCipher};
use heddle_schemas::time::Timestamp;

/// Converts an entry into a statement with a random key.
///
/// # Errors
/// The fault of the entry.
pub(crate) fn statement(entry: ConsentEntry, key: MessageKey, now: Timestamp) -> Result<Statement, String> {
    let ConsentEntry { says, purposes, how, at, text } = entry;
    let at = at.map_or(now, |Time(at)| at);
    if purposes.is_empty() {
        return Err("purposes: is empty; name at least one, such as \"marketing\"".into());
    }
    if at > now {
        return Err(
            "at: lies in the future; it would override every statement of the contact until then".into()
        );
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

/// Converts a contact's record for display, with its texts decrypted.
///
/// # Errors
/// When a text cannot be decrypted.
pub(crate) fn shown(
    tenant: &TenantId,
    cipher: &dyn TenantCipher,
    contact: ContactId,
    record: &ContactRecord,
) -> Result<Consents, KeysError> {
    let shown = |evidence: &Evidence| -> Result<Shown, KeysError> {
        let text = consent::words(tenant, cipher, contact, evidence)?;
        Ok(Shown { at: Time(evidence.at), how: evidence.how.clone(), text })
    };
    let held = |category: Category| -> Result<(Category, Held), KeysError> {
        let consent = record.consents.get(&category.into()).cloned().unwrap_or_default();
        let given = consent.given.as_ref().map(shown).transpose()?;
        let stopped = consent.stopped.as_ref().map(shown).transpose()?;
        Ok((category, Held { standing: record.standing(category), given, stopped }))
    };
    let purposes = Category::ALL.into_iter().map(held).collect::<Result<_, _>>()?;
    Ok(Consents { contact, purposes })
}
