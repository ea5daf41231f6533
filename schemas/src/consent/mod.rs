//! Consents and opt-outs of a contact, for each purpose, with the evidence. Pure.
//!
//! For each purpose, a contact's record keeps the latest evidence of a consent and the latest of a stop. Merging is the
//! maximum of each ([`Consent::merge`]): the same evidence twice changes nothing, and in whatever order webhooks bring
//! it, every node ends with the same. The later of the two holds; at the same time the stop holds.
//!
//! Evidence outlives an erasure, since an opt-out has to hold after it. So it is sealed under the tenant's key and not
//! under the contact's, and holds as little of the person as it can: the time, the way, and a text. The text of a stop
//! word is that word; of a preference and of a channel's error it is a text that the channel writes for everybody. Only
//! the text of an operator may be personal, and operators are warned of that.
//!
//! # Layout
//! - this file: purposes, evidence, and the standing of a purpose. [`words`]: stop and start words by language.

pub mod words;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::id::{ContactId, MessageKey};
use crate::identity::{Forward, KnownIds};
use crate::lenient::Lenient;
use crate::sealed::Sealed;
use crate::time::Timestamp;

/// Purpose for which a business writes first; a contact consents to it or opts out of it.
///
/// These are WhatsApp's categories of templates
/// (<https://developers.facebook.com/documentation/business-messaging/whatsapp/templates/template-categorization/>)
/// without authentication: a person asks for each code, and asking is the consent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// Offers, news, anything that promotes.
    Marketing,
    /// Messages about something that the person has ordered, booked or asked for: confirmations, reminders.
    Utility,
}

impl Category {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Marketing, Self::Utility];

    /// Its name, as it stands in events and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Marketing => "marketing",
            Self::Utility => "utility",
        }
    }
}

impl std::fmt::Display for Category {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Statement about a purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Says {
    /// Go on, or begin.
    Give,
    /// No more.
    Stop,
}

impl Says {
    /// Its name, as it stands in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Give => "give",
            Self::Stop => "stop",
        }
    }
}

/// Way by which a statement came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// The person wrote a stop word or a start word.
    Word,
    /// The person changed a setting of the channel.
    Preference,
    /// The channel refused a message, since the person wants no more of its kind.
    ChannelError,
    /// An operator of the tenant entered it.
    Operator,
    /// It came with a list from elsewhere.
    Import,
}

impl How {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Word, Self::Preference, Self::ChannelError, Self::Operator, Self::Import];

    /// Its name, as it stands in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Word => "word",
            Self::Preference => "preference",
            Self::ChannelError => "channel_error",
            Self::Operator => "operator",
            Self::Import => "import",
        }
    }
}

/// Evidence of a statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The time, by the channel's clock; of an operator's entry, by the engine's.
    pub at: Timestamp,
    /// The way; that of a later build is kept by its name.
    pub how: Lenient<How>,
    /// Keyed hash of what said so, such as the message: evidence with the same time, way and key is the same.
    pub key: MessageKey,
    /// The words, sealed under the tenant's key, bound to the contact's row and to `key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<Sealed>,
    /// Time at which the engine accepted it: it holds from the next send on. Of the same evidence, the time of the
    /// first acceptance stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_at: Option<Timestamp>,
}

impl Evidence {
    /// The column that its text is bound to.
    #[must_use]
    pub fn column(key: MessageKey) -> String {
        format!("consent/{key}")
    }

    /// Returns the order of evidence. The text does not count, since it is sealed anew for each delivery.
    fn rank(&self) -> (Timestamp, &Lenient<How>, MessageKey) {
        (self.at, &self.how, self.key)
    }
}

/// Standing of a purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Nothing was ever said.
    Unknown,
    /// Consent was given, and holds.
    Given,
    /// Nothing of it may be sent.
    Stopped,
    /// The contact's data is stored and not used.
    Restricted,
}

/// The evidence of one purpose.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consent {
    /// The latest consent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given: Option<Evidence>,
    /// The latest stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Evidence>,
    /// Consent given under another id before it was known that both ids are one person's, who had stopped: the stop
    /// holds against it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overruled: Option<Evidence>,
}

impl Consent {
    /// Returns a consent with one piece of evidence.
    #[must_use]
    pub fn of(says: Says, evidence: Evidence) -> Self {
        match says {
            Says::Give => Self { given: Some(evidence), ..Self::default() },
            Says::Stop => Self { stopped: Some(evidence), ..Self::default() },
        }
    }

    /// Merges two: the later evidence of each kind.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        let overruled = later(self.overruled, other.overruled);
        let given = later(self.given, other.given);
        let is_overruled =
            |given: &Evidence| overruled.as_ref().is_some_and(|overruled| given.rank() <= overruled.rank());
        let given = given.filter(|given| !is_overruled(given));
        Self { given, stopped: later(self.stopped, other.stopped), overruled }
    }

    /// Merges those of two contacts that turned out to be one person: a stop of either holds, until a consent that comes
    /// afterwards.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        let is_stopped = [&self, &other].iter().any(|consent| consent.standing() == Standing::Stopped);
        let mut joined = self.merge(other);
        if is_stopped && joined.standing() == Standing::Given {
            joined.overruled = later(joined.overruled, joined.given.take());
        }
        joined
    }

    /// Every piece of evidence in it.
    pub fn evidence(&self) -> impl Iterator<Item = &Evidence> {
        [&self.given, &self.stopped, &self.overruled].into_iter().flatten()
    }

    /// Changes every piece of evidence in it; one for which there is none afterwards goes.
    #[must_use]
    pub fn filter_map(self, change: impl Fn(Evidence) -> Option<Evidence>) -> Self {
        let Self { given, stopped, overruled } = self;
        Self {
            given: given.and_then(&change),
            stopped: stopped.and_then(&change),
            overruled: overruled.and_then(&change),
        }
    }

    /// Returns the standing: the later statement holds, and at the same time the stop.
    #[must_use]
    pub fn standing(&self) -> Standing {
        match (&self.given, &self.stopped) {
            (None, None) => Standing::Unknown,
            (Some(given), Some(stopped)) if given.at > stopped.at => Standing::Given,
            (_, Some(_)) => Standing::Stopped,
            (Some(_), None) => Standing::Given,
        }
    }
}

fn later(mine: Option<Evidence>, other: Option<Evidence>) -> Option<Evidence> {
    match (mine, other) {
        (Some(mine), Some(other)) if other.rank() > mine.rank() => Some(other),
        (Some(mine), _) => Some(mine),
        (None, other) => other,
    }
}

/// The record of a contact: [`crate::table::Key::contact`], written by conditional update only.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ContactRecord {
    /// Version of this form.
    pub v: u16,
    /// The evidence of each purpose. A purpose of a later build is kept, and says nothing about the others.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub consents: BTreeMap<Lenient<Category>, Consent>,
    /// Time since which the contact's data is stored and not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restricted_at: Option<Timestamp>,
    /// The ids by which the contact is met.
    #[serde(default, skip_serializing_if = "KnownIds::is_empty")]
    pub ids: KnownIds,
    /// The contact that this one turned out to be: its record is the person's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leads_to: Option<Forward>,
    /// Contacts that turned out to be this one: their conversations are the person's too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<ContactId>,
    /// Fields that this build does not know. A node of a later build, beside this one, wrote them and finds them again.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

impl ContactRecord {
    /// The version that this build writes.
    pub const VERSION: u16 = 1;

    /// Creates the record of a contact without any statement.
    #[must_use]
    pub fn new() -> Self {
        Self { v: Self::VERSION, ..Self::default() }
    }

    /// Merges evidence into a purpose.
    pub fn merge(&mut self, category: Category, consent: Consent) {
        let mine = self.consents.entry(category.into()).or_default();
        *mine = std::mem::take(mine).merge(consent);
    }

    /// Returns whether the evidence known at `then` forbade a message: a stop that was accepted by then, and no consent
    /// that was said after that stop. `None` where that cannot be determined: the evidence has no time of acceptance,
    /// or the consent that is kept came later and may have replaced an earlier one.
    #[must_use]
    pub fn forbade(&self, category: Category, then: Timestamp) -> Option<bool> {
        if self.restricted_at.is_some_and(|since| since <= then) {
            return Some(true);
        }
        let Some(Consent { given, stopped: Some(stopped), .. }) = self.consents.get(&category.into()) else {
            return Some(false);
        };
        let known = |evidence: &Evidence| evidence.known_at.map(|known_at| known_at <= then);
        match given {
            Some(given) if known(stopped)? && given.at > stopped.at => known(given)?.then_some(false),
            _ => known(stopped),
        }
    }

    /// Returns the standing of a purpose.
    #[must_use]
    pub fn standing(&self, category: Category) -> Standing {
        if self.restricted_at.is_some() {
            return Standing::Restricted;
        }
        self.consents.get(&category.into()).map_or(Standing::Unknown, Consent::standing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn evidence(at: i64, key: u8) -> Evidence {
        let how = if key.is_multiple_of(2) { How::Word } else { How::Preference };
        let (at, key) = (Timestamp::from_secs(at), MessageKey::from_bytes([key; 16]));
        Evidence { at, how: how.into(), key, text: None, known_at: None }
    }

    fn said(says: Says, at: i64) -> Consent {
        Consent::of(says, evidence(at, 0))
    }

    fn any_said() -> impl Strategy<Value = Consent> {
        let says = prop_oneof![Just(Says::Give), Just(Says::Stop)];
        // Few times, so that many fall together.
        (says, 0_i64..6, 0_u8..4).prop_map(|(says, at, key)| Consent::of(says, evidence(at, key)))
    }

    fn all(said: &[Consent]) -> Consent {
        said.iter().cloned().fold(Consent::default(), Consent::merge)
    }

    proptest! {
        #[test]
        fn in_whatever_order_and_however_often_it_comes_the_same_holds(
            said in proptest::collection::vec(any_said(), 0..12),
            order in proptest::collection::vec(any::<prop::sample::Index>(), 0..30),
        ) {
            let once = all(&said);
            let again: Vec<_> = match said.is_empty() {
                true => Vec::new(),
                false => order.iter().map(|index| index.get(&said).clone()).collect(),
            };
            let mut shuffled = again;
            shuffled.extend(said.iter().rev().cloned());
            prop_assert_eq!(all(&shuffled), once.clone());
            prop_assert_eq!(once.clone().merge(once.clone()), once);
        }

        #[test]
        fn what_was_said_last_holds_and_a_stop_wins_a_tie(said in proptest::collection::vec(any_said(), 1..12)) {
            let last = |pick: fn(&Consent) -> &Option<Evidence>| {
                said.iter().filter_map(|one| pick(one).as_ref().map(|found| found.at)).max()
            };
            let (given, stopped) = (last(|one| &one.given), last(|one| &one.stopped));
            let expected = match stopped >= given {
                true => Standing::Stopped,
                false => Standing::Given,
            };
            prop_assert_eq!(all(&said).standing(), expected);
        }
    }

    #[test]
    fn a_way_and_a_purpose_of_a_later_build_are_kept_and_a_stop_by_that_way_holds() {
        let key = MessageKey::from_bytes([1; 16]);
        let stopped = serde_json::json!({ "at": 10, "how": "voice", "key": key });
        let stored = serde_json::json!({ "v": 1, "consents": {
            "marketing": { "stopped": stopped }, "newsletter": { "given": stopped },
        } });
        let mut record: ContactRecord = serde_json::from_value(stored.clone()).unwrap();
        assert_eq!(serde_json::to_value(&record).unwrap(), stored);
        assert_eq!(record.standing(Category::Marketing), Standing::Stopped);
        assert_eq!(record.standing(Category::Utility), Standing::Unknown);
        record.merge(Category::Utility, said(Says::Give, 3));
        let written = serde_json::to_value(&record).unwrap();
        for purpose in ["marketing", "newsletter"] {
            assert_eq!(written["consents"][purpose], stored["consents"][purpose]);
        }
    }

    #[test]
    fn a_stop_under_either_id_of_one_person_holds_until_a_later_consent() {
        let (stopped, given) = (said(Says::Stop, 10), said(Says::Give, 20));
        for joined in [stopped.clone().join(given.clone()), given.clone().join(stopped.clone())] {
            assert_eq!(joined.standing(), Standing::Stopped);
            assert_eq!(joined.clone().join(given.clone()), joined, "joined again after a crash");
            assert_eq!(joined.clone().merge(given.clone()).standing(), Standing::Stopped, "a redelivery");
            assert_eq!(joined.merge(said(Says::Give, 21)).standing(), Standing::Given);
        }
        assert_eq!(given.clone().join(said(Says::Give, 3)).standing(), Standing::Given);
        let lifted = stopped.merge(said(Says::Give, 11));
        assert_eq!(lifted.join(given).standing(), Standing::Given, "nobody had stopped");
    }

    #[test]
    fn an_older_resume_never_beats_a_newer_stop() {
        let stopped = said(Says::Stop, 10);
        assert_eq!(stopped.clone().merge(said(Says::Give, 9)).standing(), Standing::Stopped);
        assert_eq!(stopped.clone().merge(said(Says::Give, 10)).standing(), Standing::Stopped);
        assert_eq!(stopped.merge(said(Says::Give, 11)).standing(), Standing::Given);
    }

    #[test]
    fn a_stop_forbids_from_when_it_was_known_until_a_later_consent_is() {
        let known = |mut consent: Consent, at: i64| {
            for evidence in [&mut consent.given, &mut consent.stopped].into_iter().flatten() {
                evidence.known_at = Some(Timestamp::from_secs(at));
            }
            consent
        };
        let mut record = ContactRecord::new();
        record.merge(Category::Marketing, known(said(Says::Stop, 10), 12));
        let forbade =
            |record: &ContactRecord, at| record.forbade(Category::Marketing, Timestamp::from_secs(at));
        assert_eq!([11, 12, 30].map(|at| forbade(&record, at)), [Some(false), Some(true), Some(true)]);
        record.merge(Category::Marketing, known(said(Says::Give, 20), 25));
        assert_eq!([24, 25].map(|at| forbade(&record, at)), [None, Some(false)]);
        assert_eq!(forbade(&record, 11), Some(false), "before the stop was known");
        let mut record = ContactRecord::new();
        record.merge(Category::Marketing, known(said(Says::Stop, 10), 12));
        record.merge(Category::Marketing, known(said(Says::Give, 9), 9));
        assert_eq!(forbade(&record, 24), Some(true), "an older consent lifts nothing");
        assert_eq!(record.forbade(Category::Utility, Timestamp::from_secs(24)), Some(false));
        record.merge(Category::Utility, said(Says::Stop, 1));
        assert_eq!(
            record.forbade(Category::Utility, Timestamp::from_secs(24)),
            None,
            "it cannot be determined"
        );
        let record = ContactRecord { restricted_at: Some(Timestamp::from_secs(40)), ..ContactRecord::new() };
        assert_eq!([39, 40].map(|at| forbade(&record, at)), [Some(false), Some(true)]);
    }

    #[test]
    fn a_record_keeps_what_a_later_build_wrote_into_it() {
        let stored = r#"{"v":1,"consents":{"marketing":{}},"erased_at":7}"#;
        let mut record: ContactRecord = serde_json::from_str(stored).unwrap();
        record.merge(Category::Utility, said(Says::Stop, 3));
        let written = serde_json::to_value(&record).unwrap();
        assert_eq!(written["erased_at"], 7);
        assert_eq!(written["consents"]["utility"]["stopped"]["at"], 3_000_000);
        assert_eq!(record.standing(Category::Utility), Standing::Stopped);
        assert_eq!(record.standing(Category::Marketing), Standing::Unknown);
    }
}
