//! Ids by which a contact is met, kept together with the contact's record. Pure.
//!
//! An id is kept as its keyed hash, with the channel's time since which it is the contact's. Some ids are never given
//! to anybody else; a phone number is, in time. So a number has an end where the channel said that the person left it,
//! or where somebody else was met under it, and the next owner's entry names the contact before. A message is its
//! sender's at the time at which it was sent, however late it comes.

use serde::{Deserialize, Serialize};

use crate::id::{ContactId, MessageKey};
use crate::lenient::Lenient;
use crate::ports::channel::profile::IdKind;
use crate::time::Timestamp;

/// Ids that are kept of one contact; ended ones go first, the oldest before the others.
const MAX_IDS: usize = 64;

/// An id of a contact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownId {
    /// Its keyed hash, which names its row in the alias table.
    pub alias: MessageKey,
    /// Its kind.
    pub kind: Lenient<IdKind>,
    /// Time since which it is known to be the contact's, by the channel's clock; the epoch where an earlier build noted
    /// none.
    pub at: Timestamp,
    /// Time after which it is the contact's no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Contact that had it before `at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<ContactId>,
}

impl KnownId {
    /// Returns whether it is the contact's until further notice.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.until.is_none()
    }

    fn is_of(&self, kind: IdKind) -> bool {
        self.kind == Lenient::Known(kind)
    }
}

/// Contact that another one turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// The contact that both are from now on.
    pub contact: ContactId,
    /// Time of the message that showed it, by the channel's clock. What was sent before it belongs to the conversations
    /// of then, where a repetition of it is recognised.
    pub at: Timestamp,
    /// Time at which the engine learned it.
    pub known_at: Timestamp,
}

/// The ids of a contact.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KnownIds(Vec<KnownId>);

impl KnownIds {
    /// Returns whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, ended ones too.
    pub fn iter(&self) -> impl Iterator<Item = &KnownId> {
        self.0.iter()
    }

    /// Returns what is known of an id.
    #[must_use]
    pub fn get(&self, alias: MessageKey) -> Option<&KnownId> {
        self.0.iter().find(|known| known.alias == alias)
    }

    /// Returns whether a current id of this kind is known, other than these.
    #[must_use]
    pub fn has_another(&self, kind: IdKind, than: &[MessageKey]) -> bool {
        self.0.iter().any(|known| known.is_current() && known.is_of(kind) && !than.contains(&known.alias))
    }

    /// Adds an id, or replaces what is known of it.
    pub fn put(&mut self, id: KnownId) {
        self.0.retain(|known| known.alias != id.alias);
        if self.0.len() >= MAX_IDS {
            let oldest =
                (0..self.0.len()).min_by_key(|&index| (self.0[index].is_current(), self.0[index].at));
            oldest.map(|index| self.0.remove(index));
        }
        self.0.push(id);
    }

    /// Ends an id at this time, unless it ended before or began after it. Returns whether that changes anything.
    pub fn end(&mut self, alias: MessageKey, at: Timestamp) -> bool {
        let Some(known) = self.0.iter_mut().find(|known| known.alias == alias) else { return false };
        let ends = known.at <= at && known.until.is_none_or(|until| until > at);
        if ends {
            known.until = Some(at);
        }
        ends
    }

    /// Ends the current ids for which `ends` is true, but for those that began after this time. Returns whether that
    /// changes anything.
    pub fn end_all(&mut self, at: Timestamp, ends: impl Fn(&KnownId) -> bool) -> bool {
        let aliases: Vec<_> = self
            .0
            .iter()
            .filter(|known| known.is_current() && ends(known))
            .map(|known| known.alias)
            .collect();
        aliases.into_iter().fold(false, |changed, alias| self.end(alias, at) | changed)
    }

    /// Takes over the ids of a contact that turned out to be the same person.
    pub fn join(&mut self, others: &Self) {
        for other in &others.0 {
            let known = self.get(other.alias);
            // Of one id that both had, the entry that says the newest stays.
            if known.is_none_or(|known| known.at < other.at || (known.at == other.at && other.is_current())) {
                self.put(other.clone());
            }
        }
    }
}

impl IdKind {
    /// Returns whether such an id may be given to somebody else in time. Any other decides who a person is.
    #[must_use]
    pub fn is_reassigned(self) -> bool {
        self == Self::Phone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8, at: i64) -> KnownId {
        KnownId {
            alias: MessageKey::from_bytes([number; 16]),
            kind: IdKind::Phone.into(),
            at: Timestamp::from_secs(at),
            until: None,
            before: None,
        }
    }

    #[test]
    fn an_end_is_as_early_as_it_was_said_and_never_before_the_begin() {
        let mut ids = KnownIds::default();
        ids.put(id(1, 10));
        let alias = id(1, 0).alias;
        assert!(!ids.end(alias, Timestamp::from_secs(9)), "an old notice about an earlier time");
        assert!(ids.end(alias, Timestamp::from_secs(20)));
        assert!(!ids.end(alias, Timestamp::from_secs(30)));
        assert_eq!(ids.get(alias).unwrap().until, Some(Timestamp::from_secs(20)));
        assert!(!ids.has_another(IdKind::Phone, &[]));
    }

    #[test]
    fn the_number_of_ids_is_bounded_and_current_ones_stay() {
        let mut ids = KnownIds::default();
        ids.put(id(0, 0));
        for number in 1..=200 {
            ids.put(KnownId { until: Some(Timestamp::from_secs(900)), ..id(number, number.into()) });
        }
        assert_eq!(ids.iter().count(), MAX_IDS);
        assert!(ids.get(id(0, 0).alias).is_some() && ids.get(id(200, 0).alias).is_some());
    }

    #[test]
    fn ids_of_a_later_kind_are_written_back_as_they_came() {
        let stored = r#"[{"alias":"07070707070707070707070707070707","kind":"passkey","at":5}]"#;
        let ids: KnownIds = serde_json::from_str(stored).unwrap();
        assert_eq!(serde_json::to_string(&ids).unwrap(), stored);
    }
}
