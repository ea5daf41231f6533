//! Decision of who is met under several ids. Pure: from what is stored of each id to the next change.
//!
//! Ids that are never given to anybody else decide before phone numbers. A number that is known together with another
//! such id than the message shows is somebody else's by now: it moves to the person met, and nothing else does. Ids of
//! two contacts that contradict each other in nothing are one person's, whose contacts are merged.

use std::collections::BTreeMap;

use heddle_schemas::consent::ContactRecord;
use heddle_schemas::id::{ContactId, MessageKey};
use heddle_schemas::ports::channel::profile::IdKind;
use heddle_schemas::time::Timestamp;

/// An id under which somebody is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Met {
    pub(super) kind: IdKind,
    pub(super) alias: MessageKey,
}

/// Contact whose id it is at the time of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    /// Nobody's; the contact that left it, where one did.
    Nobody { left_by: Option<ContactId> },
    /// This contact's, and at present too.
    Current(ContactId),
    /// This contact's at that time; somebody else's at present.
    Former(ContactId),
}

impl Holder {
    fn contact(self) -> Option<ContactId> {
        match self {
            Self::Nobody { .. } => None,
            Self::Current(contact) | Self::Former(contact) => Some(contact),
        }
    }
}

/// Person to be met, and the change that is due before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// These contacts are one person.
    Merge(ContactId, ContactId),
    /// It is this person.
    Person {
        who: Who,
        /// Ids that become the person's, each with the contact that has had it.
        gains: Vec<(Met, Option<Taken>)>,
    },
}

/// Person of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Known(ContactId),
    /// A new one, named after this id; where a number was somebody's before, after that contact as well.
    New {
        named_after: Met,
        left_by: Option<ContactId>,
    },
}

/// Contact that an id is taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) from: ContactId,
    /// False where it is known to be another person; true where it may be the same, so that its opt-outs hold on.
    pub(super) may_be_same: bool,
}

/// Records of the contacts that hold ids.
pub(super) type Records = BTreeMap<ContactId, ContactRecord>;

/// Decides who is met under these ids, the deciding one first, in a message that was sent `at`. `None` without any id.
pub(super) fn decide(met: &[(Met, Holder)], records: &Records, at: Timestamp) -> Option<Decision> {
    let (first, _) = *met.first()?;
    let shown: Vec<Met> = met.iter().map(|(met, _)| *met).collect();
    let mut who = None;
    for (_, holder) in met.iter().filter(|(met, _)| !met.kind.is_reassigned()) {
        match (who, holder.contact()) {
            (None, found) => who = found,
            (Some(who), Some(other)) if who != other && !contradict(records, who, other) => {
                return Some(Decision::Merge(who, other));
            }
            _ => {}
        }
    }
    let mut gains = Vec::new();
    let mut left_by = None;
    for &(met, holder) in met {
        match holder {
            Holder::Nobody { left_by: left } => {
                left_by = left_by.or(left);
                gains.push((met, left.map(|from| Taken { from, may_be_same: false })));
            }
            Holder::Current(other) if who.is_none() && !has_others(records, other, &shown) => {
                who = Some(other);
            }
            Holder::Former(other) if who.is_none() => who = Some(other),
            Holder::Current(other) if met.kind.is_reassigned() && who != Some(other) => {
                let is_another = has_others(records, other, &shown)
                    || who.is_some_and(|who| contradict(records, who, other));
                let has_another = who.is_some_and(|who| has_another(records, who, met.kind, &shown));
                match who {
                    Some(who) if !is_another && !has_another => return Some(Decision::Merge(who, other)),
                    _ if since(records, other, met) <= at => {
                        gains.push((met, Some(Taken { from: other, may_be_same: !is_another })));
                    }
                    // A message of before the number became the other's.
                    _ => {}
                }
            }
            Holder::Current(_) | Holder::Former(_) => {}
        }
    }
    let who = who.map_or_else(
        || {
            // A number names a person only where nothing better does: it has been others'.
            let left_by = left_by.filter(|_| first.kind.is_reassigned());
            Who::New { named_after: first, left_by }
        },
        Who::Known,
    );
    Some(Decision::Person { who, gains })
}

/// Returns whether a contact is known under other ids of the shown kinds, of those that decide, and under none of the
/// shown ones.
pub(super) fn has_others(records: &Records, contact: ContactId, shown: &[Met]) -> bool {
    let Some(record) = records.get(&contact) else { return false };
    let mut deciding = shown.iter().filter(|met| !met.kind.is_reassigned());
    let is_known = deciding.clone().any(|met| record.ids.get(met.alias).is_some());
    !is_known && deciding.any(|met| record.ids.has_another(met.kind, &[met.alias]))
}

/// Returns whether two contacts have different ids of one kind, of those that decide.
pub(super) fn contradict(records: &Records, one: ContactId, other: ContactId) -> bool {
    let (Some(one), Some(other)) = (records.get(&one), records.get(&other)) else { return false };
    let deciding = |kind: &IdKind| !kind.is_reassigned();
    one.ids.iter().filter(|known| known.is_current()).any(|known| {
        let kind = known.kind.clone().known().filter(deciding);
        kind.is_some_and(|kind| other.ids.has_another(kind, &[known.alias]))
    })
}

/// Returns whether a contact has ids of a kind beside the shown ones.
fn has_another(records: &Records, contact: ContactId, kind: IdKind, shown: &[Met]) -> bool {
    let shown: Vec<_> = shown.iter().map(|met| met.alias).collect();
    records.get(&contact).is_some_and(|record| record.ids.has_another(kind, &shown))
}

/// Returns since when an id is a contact's.
pub(super) fn since(records: &Records, contact: ContactId, met: Met) -> Timestamp {
    let known = records.get(&contact).and_then(|record| record.ids.get(met.alias));
    known.map_or(Timestamp::EPOCH, |known| known.at)
}

#[cfg(test)]
mod tests {
    use heddle_schemas::identity::KnownId;

    use super::*;

    const X: ContactId = ContactId::from_bytes([1; 16]);
    const Y: ContactId = ContactId::from_bytes([2; 16]);

    fn met(kind: IdKind, number: u8) -> Met {
        Met { kind, alias: MessageKey::from_bytes([number; 16]) }
    }

    fn user(number: u8) -> Met {
        met(IdKind::User, number)
    }

    fn phone(number: u8) -> Met {
        met(IdKind::Phone, number + 100)
    }

    fn records(of: &[(ContactId, &[Met])]) -> Records {
        let mut records = Records::new();
        for (contact, ids) in of {
            let mut record = ContactRecord::new();
            for Met { kind, alias } in *ids {
                let at = Timestamp::from_secs(10);
                record.ids.put(KnownId {
                    alias: *alias,
                    kind: (*kind).into(),
                    at,
                    until: None,
                    before: None,
                });
            }
            records.insert(*contact, record);
        }
        records
    }

    const NOBODY: Holder = Holder::Nobody { left_by: None };

    fn decided(met: &[(Met, Holder)], records: &Records, at: i64) -> Decision {
        decide(met, records, Timestamp::from_secs(at)).unwrap()
    }

    #[test]
    fn an_unknown_id_beside_a_known_one_is_the_same_persons() {
        let known = records(&[(X, &[phone(1)])]);
        let decision = decided(&[(user(1), NOBODY), (phone(1), Holder::Current(X))], &known, 20);
        assert_eq!(decision, Decision::Person { who: Who::Known(X), gains: vec![(user(1), None)] });
        let parent = met(IdKind::Parent, 50);
        let known = records(&[(X, &[user(1), parent])]);
        let decision = decided(&[(user(2), NOBODY), (parent, Holder::Current(X))], &known, 20);
        assert_eq!(decision, Decision::Person { who: Who::Known(X), gains: vec![(user(2), None)] });
    }

    #[test]
    fn another_user_id_on_a_known_number_is_another_person_who_gets_the_number() {
        let known = records(&[(X, &[user(1), phone(1)])]);
        let decision = decided(&[(user(2), NOBODY), (phone(1), Holder::Current(X))], &known, 20);
        let taken = Some(Taken { from: X, may_be_same: false });
        let who = Who::New { named_after: user(2), left_by: None };
        assert_eq!(decision, Decision::Person { who, gains: vec![(user(2), None), (phone(1), taken)] });
        // Late: the number was the other's already.
        let decision = decided(&[(user(2), NOBODY), (phone(1), Holder::Current(X))], &known, 9);
        assert_eq!(decision, Decision::Person { who, gains: vec![(user(2), None)] });
    }

    #[test]
    fn contacts_that_one_message_shows_together_are_merged_unless_they_contradict() {
        let both = [(user(1), Holder::Current(X)), (phone(1), Holder::Current(Y))];
        let known = records(&[(X, &[user(1)]), (Y, &[phone(1)])]);
        assert_eq!(decided(&both, &known, 20), Decision::Merge(X, Y));
        let known = records(&[(X, &[user(1)]), (Y, &[phone(1), user(2)])]);
        let taken = Some(Taken { from: Y, may_be_same: false });
        let moved = Decision::Person { who: Who::Known(X), gains: vec![(phone(1), taken)] };
        assert_eq!(decided(&both, &known, 20), moved);
        let known = records(&[(X, &[user(1), phone(2)]), (Y, &[phone(1)])]);
        let taken = Some(Taken { from: Y, may_be_same: true });
        let moved = Decision::Person { who: Who::Known(X), gains: vec![(phone(1), taken)] };
        assert_eq!(decided(&both, &known, 20), moved, "a second number");
    }

    #[test]
    fn a_number_that_was_left_is_a_new_persons() {
        let left = Holder::Nobody { left_by: Some(X) };
        let who = Who::New { named_after: phone(1), left_by: Some(X) };
        let taken = Some(Taken { from: X, may_be_same: false });
        let decision = decided(&[(phone(1), left)], &records(&[(X, &[phone(2)])]), 20);
        assert_eq!(decision, Decision::Person { who, gains: vec![(phone(1), taken)] });
    }

    #[test]
    fn numbers_shown_together_are_one_persons() {
        let both = [(phone(1), Holder::Current(X)), (phone(2), Holder::Current(Y))];
        let known = records(&[(X, &[phone(1)]), (Y, &[phone(2), user(1)])]);
        assert_eq!(decided(&both, &known, 20), Decision::Merge(X, Y));
        assert_eq!(decide(&[], &known, Timestamp::EPOCH), None);
    }
}
