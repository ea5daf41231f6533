//! Retention: times to live of a tenant's data by kind, and of records in the log.
//!
//! Contract: a time to live is the longest that any data of its kind is kept, wherever a copy of it is. So each is at
//! least as long as the topics that hold it keep a record ([`Kind::topics`]), and a part of a message ends no later
//! than the message.
//!
//! A row is promised the shortest time that was in force since it was written ([`end`]): a reduced time holds for
//! stored rows as well, an extended one only for new rows. The people whose data was written under the lesser one were
//! promised it.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::time::{Timestamp, human};
use crate::topic::Topic;

/// One day.
const DAY: Duration = Duration::from_secs(86_400);
/// The shortest: topics are kept for hours at least, so that a node can come back from an outage.
const SHORTEST: Duration = DAY;
/// The longest: ten years. CQL takes twenty, and Cassandra before version 5 refuses a row that would end after
/// 2038-01-19 (CASSANDRA-14092.txt of apache/cassandra).
const LONGEST: Duration = Duration::from_secs(3_650 * 86_400);
/// The longest a broker takes to look for segments to delete, and to delete them: `log.retention.check.interval.ms`
/// (five minutes) and `log.segment.delete.delay.ms` (one), <https://kafka.apache.org/documentation/#brokerconfigs>.
const LOOKED_FOR: Duration = Duration::from_secs(6 * 60);
/// The shortest time after which a segment is ended.
const SHORTEST_SEGMENT: Duration = Duration::from_secs(600);

/// Times to live of a tenant's data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Messages; at least one day, at most ten years, as all of these.
    #[serde(with = "human")]
    #[schemars(schema_with = "human::schema")]
    pub messages: Duration,
    /// Data of campaigns.
    #[serde(with = "human")]
    #[schemars(schema_with = "human::schema")]
    pub campaigns: Duration,
    /// References to a file of the channel: what was said together with the file ends with it. At most as `messages`,
    /// and that where it is not set.
    #[serde(with = "maybe", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "human::optional_schema")]
    pub media: Option<Duration>,
    /// Delivery statuses of sent messages; as `messages` where it is not set.
    #[serde(with = "maybe", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "human::optional_schema")]
    pub receipts: Option<Duration>,
    /// Events, without content, in topic events. Readers of the topic keep them by this time.
    #[serde(with = "human")]
    #[schemars(schema_with = "human::schema")]
    pub events: Duration,
    /// Dead letters; older ones are neither shown nor replayed. A dead letter holds a message, so at most as
    /// `messages`, and that where it is not set.
    #[serde(with = "maybe", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "human::optional_schema")]
    pub dlq: Option<Duration>,
    /// Messages of a channel account that is disconnected or removed from the file.
    #[serde(skip_serializing_if = "OfDisconnected::is_default")]
    pub disconnected: OfDisconnected,
}

/// Treatment of the conversations of a channel account that is disconnected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OfDisconnected {
    /// They are deleted with it.
    #[default]
    Deleted,
    /// They are kept for as long as others, and are exported and erased with the rest.
    Kept,
}

impl OfDisconnected {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            messages: 30 * DAY,
            campaigns: 365 * DAY,
            media: None,
            receipts: None,
            events: 30 * DAY,
            dlq: None,
            disconnected: OfDisconnected::Deleted,
        }
    }
}

/// A kind of data with a time to live of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the fields of `Retention` say what each is")]
pub enum Kind {
    Messages,
    Campaigns,
    Media,
    Receipts,
    Events,
    Dlq,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 6] =
        [Self::Messages, Self::Campaigns, Self::Media, Self::Receipts, Self::Events, Self::Dlq];

    /// Its key under `[retention]`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Campaigns => "campaigns",
            Self::Media => "media",
            Self::Receipts => "receipts",
            Self::Events => "events",
            Self::Dlq => "dlq",
        }
    }

    /// The topics that hold such data.
    #[must_use]
    pub fn topics(self) -> &'static [Topic] {
        match self {
            Self::Messages => &[Topic::Ingress, Topic::Inbound, Topic::Outbound],
            Self::Campaigns => &[Topic::Inbound, Topic::Outbound],
            Self::Media | Self::Receipts => &[Topic::Ingress, Topic::Inbound],
            Self::Events => &[Topic::Events],
            Self::Dlq => &[Topic::Dlq],
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Retention {
    /// Returns the time to live of a kind.
    #[must_use]
    pub fn of(&self, kind: Kind) -> Duration {
        match kind {
            Kind::Messages => self.messages,
            Kind::Campaigns => self.campaigns,
            Kind::Media => self.media.unwrap_or(self.messages).min(self.messages),
            Kind::Receipts => self.receipts.unwrap_or(self.messages),
            Kind::Events => self.events,
            Kind::Dlq => self.dlq.unwrap_or(self.messages).min(self.messages),
        }
    }

    /// The kind that is promised the shortest time of those that a topic holds; `None` where it holds none.
    #[must_use]
    pub fn shortest_in(&self, topic: Topic) -> Option<(Kind, Duration)> {
        let there = Kind::ALL.into_iter().filter(|kind| kind.topics().contains(&topic));
        there.map(|kind| (kind, self.of(kind))).min_by_key(|(_, promised)| *promised)
    }

    /// Returns every fault, a line each.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let set = [
            (Kind::Messages, Some(self.messages)),
            (Kind::Campaigns, Some(self.campaigns)),
            (Kind::Media, self.media),
            (Kind::Receipts, self.receipts),
            (Kind::Events, Some(self.events)),
            (Kind::Dlq, self.dlq),
        ];
        for (kind, kept) in set {
            let Some(kept) = kept else { continue };
            if kept < SHORTEST {
                faults.push(format!("retention.{kind}: is under one day (\"1d\")"));
            }
            if kept > LONGEST {
                faults.push(format!("retention.{kind}: is over ten years (\"3650d\")"));
            }
            if matches!(kind, Kind::Media | Kind::Dlq) && kept > self.messages {
                faults.push(format!(
                    "retention.{kind}: is over retention.messages, and what it is for is a part of a message; \
                     leave it out to have it end with the message"
                ));
            }
        }
        faults
    }
}

/// Previous retention of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Former {
    /// Time at which it was replaced, microseconds since 1970.
    pub until: Timestamp,
    /// The retention.
    pub retention: Retention,
}

impl Retention {
    /// Returns whether nothing is kept longer than by the other.
    fn is_at_most(&self, other: &Self) -> bool {
        Kind::ALL.into_iter().all(|kind| self.of(kind) <= other.of(kind))
    }

    fn longest(&self) -> Duration {
        Kind::ALL.into_iter().map(|kind| self.of(kind)).max().unwrap_or_default()
    }

    /// Returns the previous retentions after this one is replaced by `next` at `now`. It leaves out those without
    /// effect: all that was written under them has ended, or a later one is at most as long in everything.
    #[must_use]
    pub fn replaced(&self, mut previous: Vec<Former>, next: &Self, now: Timestamp) -> Vec<Former> {
        // A clock that was set back does not end it before what it replaced.
        let until = previous.iter().map(|one| one.until).max().map_or(now, |last| last.max(now));
        previous.push(Former { until, retention: self.clone() });
        let mut kept: Vec<Former> = Vec::new();
        for one in previous.into_iter().rev() {
            let over = now >= one.until.after(one.retention.longest());
            let superseded = next.is_at_most(&one.retention)
                || kept.iter().any(|later| later.retention.is_at_most(&one.retention));
            if !over && !superseded {
                kept.push(one);
            }
        }
        kept.reverse();
        kept
    }
}

/// Returns the end of a row that was written then: the shortest time in force since counts.
#[must_use]
pub fn end(current: &Retention, previous: &[Former], kind: Kind, written: Timestamp) -> Timestamp {
    let since = previous.iter().filter(|one| one.until >= written).map(|one| &one.retention);
    let shortest = since.chain([current]).map(|retention| retention.of(kind)).min();
    written.after(shortest.unwrap_or_default())
}

/// Returns the age at which a segment of a log that keeps records for `retention` is closed: its records are deleted
/// together.
#[must_use]
pub fn segment_age(retention: Duration) -> Duration {
    (retention / 4).max(SHORTEST_SEGMENT)
}

/// Returns the greatest age of a processed record in a log that keeps records for `retention`: the first of a segment
/// is deleted with the last, and expired segments are searched for at intervals.
#[must_use]
pub fn oldest(retention: Duration) -> Duration {
    retention.saturating_add(segment_age(retention)).saturating_add(LOOKED_FOR)
}

/// Returns the longest retention of a log whose records are promised to be gone after `promised`, in whole minutes.
#[must_use]
pub fn suits(promised: Duration) -> Duration {
    let rest = promised.saturating_sub(LOOKED_FOR);
    let longest = (rest / 5 * 4).min(rest.saturating_sub(SHORTEST_SEGMENT));
    Duration::from_secs(longest.as_secs() / 60 * 60)
}

/// [`human`] for what may be left out.
mod maybe {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    use crate::time::human;

    /// Only what is set is written.
    pub(super) fn serialize<S: Serializer>(
        kept: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match kept {
            Some(kept) => human::serialize(kept, serializer),
            None => serializer.serialize_none(),
        }
    }

    /// A key that is there has a duration, or null.
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        #[derive(Deserialize)]
        struct Set(#[serde(with = "human")] Duration);
        Ok(Option::<Set>::deserialize(deserializer)?.map(|Set(kept)| kept))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn kinds_without_a_setting_are_kept_as_long_as_messages() {
        let retention = Retention { messages: 3 * DAY, ..Retention::default() };
        for kind in [Kind::Messages, Kind::Media, Kind::Receipts, Kind::Dlq] {
            assert_eq!(retention.of(kind), 3 * DAY, "{kind}");
        }
        assert_eq!((retention.of(Kind::Campaigns), retention.of(Kind::Events)), (365 * DAY, 30 * DAY));
        assert_eq!(retention.faults(), [""; 0]);
    }

    #[test]
    fn what_is_written_reads_back_and_what_is_left_out_stays_so() {
        let text = "messages = \"10d\"\nmedia = \"2d\"\n";
        let retention: Retention = toml::from_str(text).unwrap();
        assert_eq!((retention.media, retention.receipts), (Some(2 * DAY), None));
        let json = serde_json::to_value(&retention).unwrap();
        assert_eq!(json["media"], "2days");
        assert_eq!(json.get("receipts"), None);
        assert_eq!(serde_json::from_value::<Retention>(json).unwrap(), retention);
        let refused = toml::from_str::<Retention>("media = \"soon\"").unwrap_err().to_string();
        assert!(refused.contains("\"soon\" is no duration"), "{refused}");
    }

    #[test]
    fn faults_name_the_key_and_what_would_do() {
        let retention = Retention {
            messages: 2 * DAY,
            campaigns: DAY / 2,
            media: Some(3 * DAY),
            receipts: Some(4_000 * DAY),
            dlq: Some(3 * DAY),
            ..Retention::default()
        };
        let faults = retention.faults();
        let begin = |index: usize| faults[index].split(", and").next().unwrap();
        assert_eq!(faults.len(), 4, "{faults:?}");
        assert_eq!(begin(0), "retention.campaigns: is under one day (\"1d\")");
        assert_eq!(begin(1), "retention.media: is over retention.messages");
        assert_eq!(begin(2), "retention.receipts: is over ten years (\"3650d\")");
        assert_eq!(begin(3), "retention.dlq: is over retention.messages");
    }

    #[test]
    fn a_topic_is_bound_by_the_shortest_of_what_it_holds() {
        let retention = Retention { media: Some(2 * DAY), ..Retention::default() };
        assert_eq!(retention.shortest_in(Topic::Inbound), Some((Kind::Media, 2 * DAY)));
        assert_eq!(retention.shortest_in(Topic::Outbound), Some((Kind::Messages, 30 * DAY)));
        assert_eq!(retention.shortest_in(Topic::Tenants), None);
    }

    #[test]
    fn the_first_record_of_a_segment_goes_with_the_last() {
        let (hour, minute) = (Duration::from_secs(3_600), Duration::from_secs(60));
        assert_eq!(segment_age(24 * hour), 6 * hour);
        assert_eq!(segment_age(hour / 2), 10 * minute, "a segment of a few minutes is mostly overhead");
        assert_eq!(oldest(24 * hour), 30 * hour + 6 * minute);
    }

    #[test]
    fn what_suits_a_promise_keeps_it_and_little_more_would_not() {
        for promised in [DAY, 2 * DAY, 30 * DAY, Duration::from_secs(3_600)] {
            let longest = suits(promised);
            assert!(oldest(longest) <= promised, "{promised:?}");
            assert!(oldest(longest + Duration::from_secs(60)) > promised, "{promised:?}");
        }
    }

    fn days(messages: u64, receipts: u64, events: u64) -> Retention {
        let receipts = Some(u32::try_from(receipts).unwrap() * DAY);
        let events = u32::try_from(events).unwrap() * DAY;
        Retention {
            messages: u32::try_from(messages).unwrap() * DAY,
            campaigns: DAY,
            receipts,
            events,
            ..Retention::default()
        }
    }

    proptest! {
        /// For any sequence of changes a row ends by the shortest time in force since it was written, though previous
        /// ones without effect are forgotten.
        #[test]
        fn no_row_outlives_the_shortest_time_in_force_since_it_was_written(
            policies in prop::collection::vec((1_u64..20, 1_u64..20, 1_u64..20), 1..8),
            gaps in prop::collection::vec(0_i64..30 * 86_400, 8),
            written in 0_i64..200 * 86_400,
        ) {
            let policies: Vec<_> = policies.into_iter().map(|(a, b, c)| days(a, b, c)).collect();
            let written = Timestamp::from_secs(written);
            // Each is in force from its beginning to the next one's; the first has always been.
            let mut began = vec![Timestamp::EPOCH];
            let mut previous = Vec::new();
            let mut now = Timestamp::EPOCH;
            for (index, pair) in policies.windows(2).enumerate() {
                now = now.after(Duration::from_secs(u64::try_from(gaps[index]).unwrap()));
                previous = pair[0].replaced(previous, &pair[1], now);
                began.push(now);
            }
            now = now.max(written);
            let current = &policies[policies.len() - 1];
            for kind in [Kind::Messages, Kind::Receipts, Kind::Events] {
                let since = (0..policies.len())
                    .filter(|&index| began.get(index + 1).is_none_or(|until| *until >= written))
                    .map(|index| policies[index].of(kind));
                let wanted = written.after(since.min().unwrap());
                let ends = end(current, &previous, kind, written);
                // What is over anyway may be said to be over at another time.
                prop_assert!(ends == wanted || (ends <= now && wanted <= now), "{ends} {wanted}");
            }
        }
    }

    #[test]
    fn reduced_retention_holds_for_stored_rows_and_extended_one_for_new_rows() {
        let at = |day: i64| Timestamp::from_secs(day * 86_400);
        let (long, short) = (days(20, 20, 20), days(5, 5, 5));
        let previous = long.replaced(Vec::new(), &short, at(10));
        assert_eq!(previous, [], "the reduced one holds for everything");
        assert_eq!(end(&short, &previous, Kind::Messages, at(8)), at(13));
        let previous = short.replaced(previous, &long, at(12));
        assert_eq!(previous.len(), 1);
        assert_eq!(end(&long, &previous, Kind::Messages, at(8)), at(13), "it was promised the reduced one");
        assert_eq!(end(&long, &previous, Kind::Messages, at(13)), at(33));
        let previous = long.replaced(previous, &days(19, 20, 20), at(18));
        assert_eq!(previous, [], "all that was written under the short one has ended");
    }
}
