//! How long a tenant's data is kept, by kind, and how long what lies in the log can live.
//!
//! Contract: a time to live is the longest that anything of its kind is kept, wherever a copy of it is. So each is at
//! least as long as the topics that hold it keep a record ([`Kind::topics`]), and what is a part of a message ends
//! no later than the message.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::time::human;
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

/// How long a tenant's data is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Messages; at least one day, at most ten years, as all of these.
    #[serde(with = "human")]
    #[schemars(with = "String")]
    pub messages: Duration,
    /// What concerns campaigns.
    #[serde(with = "human")]
    #[schemars(with = "String")]
    pub campaigns: Duration,
    /// Messages that refer to a file of the channel: what was said together with the file ends with it. At most what
    /// `messages` is, and that where it is not set.
    #[serde(with = "maybe", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub media: Option<Duration>,
    /// How far sent messages have come; what `messages` is where it is not set.
    #[serde(with = "maybe", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub receipts: Option<Duration>,
    /// What happened, without content, in topic events. Whoever reads the topic keeps it by this.
    #[serde(with = "human")]
    #[schemars(with = "String")]
    pub events: Duration,
    /// What could not be processed; older letters are neither shown nor replayed. A letter holds a message, so at
    /// most what `messages` is, and that where it is not set.
    #[serde(with = "maybe", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub dlq: Option<Duration>,
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
    /// How long data of a kind is kept.
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

    /// What is wrong with it, a line each.
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

/// After how long a segment of the log is ended that keeps records for `retention`: they go together.
#[must_use]
pub fn segment_age(retention: Duration) -> Duration {
    (retention / 4).max(SHORTEST_SEGMENT)
}

/// How old a record that has been worked off can become in a log that keeps records for `retention`: the first of a
/// segment goes with the last, and what is over has to be looked for.
#[must_use]
pub fn oldest(retention: Duration) -> Duration {
    retention.saturating_add(segment_age(retention)).saturating_add(LOOKED_FOR)
}

/// The longest that a log may keep records of which something is promised to be gone after `promised`, in whole
/// minutes.
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
    use super::*;

    #[test]
    fn what_is_not_set_is_kept_as_long_as_messages() {
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
}
