//! Versions of the topics' records: each topic has its own, counted from 1.
//!
//! A build writes version N of a topic and reads N and N-1. A record of N-1 becomes one of N by the last [`Step`] of
//! its topic, before it is read as a type. Newer records are recognised by their number alone: inbound and outbound
//! park them (`deploy/decisions/0019-record-versions.md`), tenants keep the last configuration that can be read, events
//! and dlq show or skip them.
//!
//! Every change of the meaning of a record for a reader that does not know it raises the version, a new variant of an
//! enum too. A new field that a reader may leave out does not. In every version the key of a record names its
//! conversation or account, `v` is a number at the top, and ids of contacts stand in it as text. By these a build
//! orders records that it cannot read, and finds those that an erasure takes.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::dlq::DeadLetter;
use super::event::EventRecord;
use super::inbound::InboundRecord;
use super::ingress::IngressRecord;
use super::outbound::OutboundRecord;
use super::tenants::TenantRecord;
use crate::topic::Topic;

/// Step from one version of a topic's records to the next, on the record as JSON.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// Makes a record of the version before one of this version.
    pub up: fn(&mut Map<String, Value>),
    /// Makes a record of this version one of the version before. Returns false where that version cannot say it;
    /// the record is then written as it is, and older nodes park it.
    pub down: fn(&mut Map<String, Value>) -> bool,
}

/// Returns the version after these steps.
#[must_use]
pub const fn after(steps: &[Step]) -> u16 {
    steps.len() as u16 + 1
}

/// A record with a version.
pub trait Versioned: Serialize + DeserializeOwned {
    /// Steps from each version to the next.
    const STEPS: &'static [Step];

    /// The version that this build writes; it reads the one before as well.
    const VERSION: u16 = after(Self::STEPS);
}

/// Returns the version of a topic's records that this build writes; it reads the one before as well.
#[must_use]
pub const fn newest(topic: Topic) -> u16 {
    match topic {
        Topic::Ingress => IngressRecord::VERSION,
        Topic::Inbound => InboundRecord::VERSION,
        Topic::Outbound => OutboundRecord::VERSION,
        Topic::Tenants => TenantRecord::VERSION,
        Topic::Events => EventRecord::VERSION,
        Topic::Dlq => DeadLetter::VERSION,
    }
}

/// The versions that one node reads and writes.
///
/// While a cluster is upgraded, its nodes write the version before theirs, so that the nodes that are still to be
/// upgraded read everything; once all are, they are started to write their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// By topic, in the order of [`Topic::ALL`].
    reads: [u16; Topic::ALL.len()],
    writes: [u16; Topic::ALL.len()],
}

impl Default for Versions {
    /// Reads and writes this build's own versions.
    fn default() -> Self {
        let newest = Topic::ALL.map(newest);
        Self { reads: newest, writes: newest }
    }
}

impl Versions {
    /// Reads what this build reads, and writes the version before its own where there is one.
    #[must_use]
    pub fn writing_previous() -> Self {
        let this = Self::default();
        Self { writes: this.writes.map(|newest| newest.saturating_sub(1).max(1)), ..this }
    }

    /// The same, as of a build whose newest version of a topic is this one. A version above this build's own is read
    /// as its own is: a test can have an old node and a new one so.
    #[must_use]
    pub fn reading(mut self, topic: Topic, newest: u16) -> Self {
        self.reads[topic as usize] = newest;
        self
    }

    /// The newest version that is read.
    #[must_use]
    pub fn reads(&self, topic: Topic) -> u16 {
        self.reads[topic as usize]
    }

    /// The version that is written.
    #[must_use]
    pub fn writes(&self, topic: Topic) -> u16 {
        self.writes[topic as usize]
    }
}

/// Returns the version that a record states; `None` where it states none.
#[must_use]
pub fn of(value: &[u8]) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct Found {
        v: u64,
    }
    serde_json::from_slice::<Found>(value).ok().map(|found| found.v)
}

/// Takes a record of version `from` to the version after `steps`; false where no step leads from there.
pub(super) fn upgrade(steps: &[Step], from: u64, record: &mut Map<String, Value>) -> bool {
    let newest = after(steps);
    if from + 1 != u64::from(newest) || from == 0 {
        return false;
    }
    if let Some(step) = steps.last() {
        (step.up)(record);
    }
    record.insert("v".into(), newest.into());
    true
}

/// Takes a record of the version after `steps` to the one before; false where that one cannot say it.
pub(super) fn downgrade(steps: &[Step], record: &mut Map<String, Value>) -> bool {
    let done = steps.last().is_some_and(|step| (step.down)(record));
    if done {
        record.insert("v".into(), (after(steps) - 1).into());
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rename(record: &mut Map<String, Value>, from: &str, to: &str) -> bool {
        let value = record.remove(from);
        let found = value.is_some();
        record.extend(value.map(|value| (to.to_owned(), value)));
        found
    }

    const STEPS: [Step; 2] = [
        Step { up: |_| panic!("two versions back is not read"), down: |_| false },
        Step {
            up: |record| assert!(rename(record, "who", "conversation")),
            down: |record| rename(record, "conversation", "who"),
        },
    ];

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn the_version_before_becomes_this_one_and_no_other_does() {
        let mut record = map(json!({ "v": 2, "who": "a" }));
        assert!(upgrade(&STEPS, 2, &mut record));
        assert_eq!(record, map(json!({ "v": 3, "conversation": "a" })));
        for from in [0, 1, 3, 4] {
            assert!(!upgrade(&STEPS, from, &mut record), "{from}");
        }
        assert!(!upgrade(&[], 0, &mut record), "there is no version 0");
    }

    #[test]
    fn this_version_becomes_the_one_before_where_that_one_can_say_it() {
        let mut record = map(json!({ "v": 3, "conversation": "a" }));
        assert!(downgrade(&STEPS, &mut record));
        assert_eq!(record, map(json!({ "v": 2, "who": "a" })));
        let mut nameless = map(json!({ "v": 3 }));
        assert!(!downgrade(&STEPS, &mut nameless));
        assert_eq!(nameless["v"], 3);
    }

    #[test]
    fn the_first_version_has_none_before_it() {
        assert_eq!(after(&[]), 1);
        for topic in Topic::ALL {
            let previous = Versions::writing_previous().writes(topic);
            assert_eq!(previous, newest(topic).max(2) - 1);
            assert_eq!(Versions::default().reading(topic, 9).reads(topic), 9);
        }
    }
}
