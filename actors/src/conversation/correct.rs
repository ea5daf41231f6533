//! Corrections: the stored name of a contact, corrected on request.
//!
//! Beside its messages, a conversation keeps of a person only the address: numbers and ids, which identify it towards
//! the channel and are not corrected but changed there, and the name that the channel shows. That name may be wrong,
//! and is what a correction replaces. The messages stay as they were, and so does the name inside those that brought
//! it: they are kept as they came, until their retention ends.

use heddle_schemas::content::Address;
use heddle_schemas::id::ConversationId;
use heddle_schemas::ports::keys::{Cipher, aad};
use heddle_schemas::record::encode_for;
use heddle_schemas::record::inbound::SealedCorrection;
use heddle_schemas::sealed::Sealed;
use heddle_schemas::table::Key;

use super::draft::Draft;
use super::head::Corrected;
use super::loaded::Loaded;
use super::thread::EntrySaid;

/// The columns of a head that are sealed under the contact's key.
pub(crate) const ADDRESS: &str = "address";
pub(crate) const CORRECTED: &str = "corrected";
pub(crate) const FORMER_NAMES: &str = "former_names";

/// Number of previous names that are kept of a person; the oldest go first.
const NAMES: usize = 8;

pub(super) fn seal<T: serde::Serialize>(
    of: &ConversationId,
    cipher: &dyn Cipher,
    column: &str,
    value: &T,
) -> Sealed {
    let at = aad(&Key::head(of), column);
    encode_for(value, |plain| cipher.seal(&at, plain))
}

/// Puts a name right.
pub(super) fn correct(draft: &mut Draft, loaded: &Loaded, of: &ConversationId, correction: SealedCorrection) {
    let shown = match &loaded.corrected {
        Some(corrected) => corrected.shown.clone(),
        None => loaded.address.name.clone(),
    };
    let corrected = Corrected { shown };
    let address = Address { name: correction.name, ..loaded.address.clone() };
    let cipher = loaded.thread.cipher();
    draft.row.entries.push(EntrySaid::Corrected { at: draft.now });
    remember_name(draft, loaded, of, &address);
    draft.machine.head.address = Some(seal(of, cipher, ADDRESS, &address));
    draft.machine.head.corrected = Some(seal(of, cipher, CORRECTED, &corrected));
    draft.address = Some(address);
    draft.corrected = Some(Some(corrected));
}

/// Takes over how the customer is reached, as a message shows it.
pub(super) fn meet(draft: &mut Draft, loaded: &Loaded, of: &ConversationId, from: &Address) {
    let cipher = loaded.thread.cipher();
    let mut from = from.clone();
    if let (Some(corrected), Some(shown)) = (&loaded.corrected, &from.name) {
        let remains = corrected.when_shown(shown);
        if remains.is_some() {
            from.name = None;
        }
        if remains.as_ref() != Some(corrected) {
            draft.machine.head.corrected =
                remains.as_ref().map(|corrected| seal(of, cipher, CORRECTED, corrected));
            draft.corrected = Some(remains);
        }
    }
    if !loaded.address.holds(&from) {
        let mut address = loaded.address.clone();
        address.update(&from);
        remember_name(draft, loaded, of, &address);
        draft.machine.head.address = Some(seal(of, cipher, ADDRESS, &address));
        draft.address = Some(address);
    }
}

/// Keeps the name that this address replaces: earlier messages contain it.
fn remember_name(draft: &mut Draft, loaded: &Loaded, of: &ConversationId, address: &Address) {
    let Some(previous) = &loaded.address.name else { return };
    if address.name.as_ref() == Some(previous) {
        return;
    }
    let names = with_name(draft.former_names.as_deref().unwrap_or(&loaded.former_names), previous);
    draft.machine.head.former_names = Some(seal(of, loaded.thread.cipher(), FORMER_NAMES, &names));
    draft.former_names = Some(names);
}

/// Keeps names by which other conversations know the person.
pub(super) fn remember_names(draft: &mut Draft, loaded: &Loaded, of: &ConversationId, names: &[String]) {
    if names.is_empty() {
        return;
    }
    let before = draft.former_names.as_deref().unwrap_or(&loaded.former_names);
    let names = names.iter().fold(before.to_vec(), |names, name| with_name(&names, name));
    draft.machine.head.former_names = Some(seal(of, loaded.thread.cipher(), FORMER_NAMES, &names));
    draft.former_names = Some(names);
}

fn with_name(names: &[String], newest: &str) -> Vec<String> {
    let others = names.iter().filter(|name| *name != newest);
    let mut names: Vec<_> = others.cloned().chain([newest.to_owned()]).collect();
    names.drain(..names.len().saturating_sub(NAMES));
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_former_names_are_kept_once_each() {
        let mut names = Vec::new();
        for number in [1, 2, 1, 3, 4, 5, 6, 7, 8, 9] {
            names = with_name(&names, &number.to_string());
        }
        assert_eq!(names, ["1", "3", "4", "5", "6", "7", "8", "9"]);
    }

    #[test]
    fn a_correction_holds_until_the_person_shows_another_name() {
        let corrected = Corrected { shown: Some("Anna".into()) };
        assert_eq!(corrected.when_shown("Anna"), Some(corrected.clone()));
        assert_eq!(corrected.when_shown("Ann B."), None);
        let unseen = Corrected::default();
        assert_eq!(unseen.when_shown("Anna"), Some(corrected), "what is shown first is what was wrong");
    }
}
