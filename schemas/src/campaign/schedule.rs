//! Schedule of a campaign: the moment at which a recipient's message is due.
//!
//! Quiet hours hold a message until they end and never skip it. The latest start is checked before quiet hours: a
//! campaign that is too late asks instead of sending, while a message that was due in time and is held by the night goes
//! out in the morning.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::time::Timestamp;
use crate::zone::{Date, Zone, time_of_day};

const DAY_MINUTES: u16 = 24 * 60;
/// Maximum number of quiet intervals of a campaign.
const MAX_QUIET: usize = 8;

/// Times of sending.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Schedule {
    /// Time of the first message. Without it the campaign sends as soon as it is started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<LocalTime>,
    /// Zone of `at` and `latest_start`.
    pub zone: ScheduleZone,
    /// Time after which no message of the campaign may begin to be sent: a campaign that is later asks its operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latest_start: Option<LocalTime>,
    /// Hours of each day in which nothing is sent, in the recipient's zone where it is known: `21:00-09:00`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quiet: Vec<Quiet>,
}

/// Zone in which times of a schedule are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleZone {
    /// The tenant's.
    #[default]
    Tenant,
    /// Each recipient's, and the tenant's where that is not known.
    Recipient,
}

/// Moment at which a recipient's message is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// It may be sent from then on.
    At(Timestamp),
    /// The latest start is over.
    Late,
}

/// Date and time of day without a zone, written `2027-03-01T10:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LocalTime {
    date: Date,
    minute: u16,
}

/// Daily hours, over midnight where they end before they begin, written `21:00-09:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Quiet {
    from: u16,
    to: u16,
}

/// A text that is no time of a schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {expected}")]
pub struct InvalidTime {
    text: String,
    expected: &'static str,
}

impl Schedule {
    /// Returns the moment from which a recipient may be sent to, when asked at `now`.
    #[must_use]
    pub fn due(&self, tenant: &Zone, recipient: Option<&Zone>, now: Timestamp) -> Due {
        let theirs = recipient.unwrap_or(tenant);
        let zone = match self.zone {
            ScheduleZone::Tenant => tenant,
            ScheduleZone::Recipient => theirs,
        };
        let at = self.at.map_or(now, |at| at.in_zone(zone).max(now));
        match self.latest_start {
            Some(latest) if at > latest.in_zone(zone) => Due::Late,
            _ => Due::At(self.after_quiet(theirs, at)),
        }
    }

    /// Returns the first moment from `at` on that no quiet interval covers.
    #[must_use]
    pub fn after_quiet(&self, zone: &Zone, mut at: Timestamp) -> Timestamp {
        // Each step leaves one interval, and intervals that follow each other leave a minute of the day free.
        for _ in 0..=2 * self.quiet.len() {
            let minute = zone.minute(at);
            let Some(quiet) = self.quiet.iter().find(|quiet| quiet.covers(minute)) else { break };
            at = quiet.end(zone, at, minute);
        }
        at
    }

    /// Returns every fault, each with its place in the file.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if let (Some(at), Some(latest)) = (self.at, self.latest_start)
            && latest < at
        {
            faults.push(format!("schedule.latest_start: {latest} is before schedule.at, {at}"));
        }
        if self.quiet.len() > MAX_QUIET {
            faults.push(format!("schedule.quiet: at most {MAX_QUIET} intervals, not {}", self.quiet.len()));
        } else if (0..DAY_MINUTES).all(|minute| self.quiet.iter().any(|quiet| quiet.covers(minute))) {
            faults.push("schedule.quiet: the intervals leave no minute of the day to send in".into());
        }
        faults
    }
}

impl LocalTime {
    /// Returns the moment at which the clock of a zone first shows it, or a later time where it skips it.
    #[must_use]
    pub fn in_zone(self, zone: &Zone) -> Timestamp {
        zone.moment(self.date, self.minute)
    }
}

impl Quiet {
    fn covers(self, minute: u16) -> bool {
        match self.from <= self.to {
            true => (self.from..self.to).contains(&minute),
            false => minute >= self.from || minute < self.to,
        }
    }

    /// Returns the end of the interval that covers a moment.
    fn end(self, zone: &Zone, at: Timestamp, minute: u16) -> Timestamp {
        let today = zone.date(at);
        let date = if minute < self.to { Some(today) } else { today.next() };
        let end = date.map_or(Timestamp::MAX, |date| zone.moment(date, self.to));
        if end > at {
            return end;
        }
        // The clock was set back: it shows this time for the second time, and the end has been shown once.
        let left = (self.to + DAY_MINUTES - minute) % DAY_MINUTES;
        at.after(std::time::Duration::from_secs(u64::from(left) * 60))
    }
}

impl FromStr for LocalTime {
    type Err = InvalidTime;

    fn from_str(text: &str) -> Result<Self, InvalidTime> {
        let read = || {
            let (date, time) = text.trim().split_once(['T', ' '])?;
            let minute = time_of_day(time).filter(|minute| *minute < DAY_MINUTES)?;
            Some(Self { date: date.parse().ok()?, minute })
        };
        read().ok_or_else(|| InvalidTime {
            text: text.to_owned(),
            expected: "time such as \"2027-03-01T10:00\"",
        })
    }
}

impl FromStr for Quiet {
    type Err = InvalidTime;

    fn from_str(text: &str) -> Result<Self, InvalidTime> {
        let read = || {
            let (from, to) = text.split_once('-')?;
            let (from, to) = (time_of_day(from)?, time_of_day(to)?);
            (from != to && from < DAY_MINUTES).then_some(Self { from, to })
        };
        read().ok_or_else(|| InvalidTime {
            text: text.to_owned(),
            expected: "interval such as \"21:00-09:00\"",
        })
    }
}

impl fmt::Display for LocalTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}T{:02}:{:02}", self.date, self.minute / 60, self.minute % 60)
    }
}

impl fmt::Display for Quiet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to } = self;
        write!(f, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60)
    }
}

macro_rules! text_form {
    ($name:ident, $pattern:literal, $description:literal) => {
        impl TryFrom<String> for $name {
            type Error = InvalidTime;

            fn try_from(text: String) -> Result<Self, InvalidTime> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "description": $description })
            }
        }
    };
}

text_form!(LocalTime, "^\\d{4}-\\d{2}-\\d{2}[T ]\\d{2}:\\d{2}$", "Local date and time.");
text_form!(
    Quiet,
    "^\\d{2}:\\d{2}-\\d{2}:\\d{2}$",
    "Hours of a day, over midnight where they end before they begin."
);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn zone(name: &str) -> Zone {
        name.parse().unwrap()
    }

    fn at(zone: &Zone, text: &str) -> Timestamp {
        text.parse::<LocalTime>().unwrap().in_zone(zone)
    }

    fn schedule(text: &str) -> Schedule {
        let schedule: Schedule = toml::from_str(text).unwrap();
        assert_eq!(schedule.faults(), [""; 0]);
        schedule
    }

    #[test]
    fn a_time_is_that_of_the_recipients_zone_or_of_the_tenants_where_it_is_unknown() {
        let (berlin, tokyo) = (zone("Europe/Berlin"), zone("Asia/Tokyo"));
        let schedule = schedule("at = \"2027-03-01T10:00\"\nzone = \"recipient\"");
        let now = at(&berlin, "2027-02-01T00:00");
        assert_eq!(schedule.due(&berlin, Some(&tokyo), now), Due::At(at(&tokyo, "2027-03-01T10:00")));
        assert_eq!(schedule.due(&berlin, None, now), Due::At(at(&berlin, "2027-03-01T10:00")));
        let tenant = Schedule { zone: ScheduleZone::Tenant, ..schedule };
        assert_eq!(tenant.due(&berlin, Some(&tokyo), now), Due::At(at(&berlin, "2027-03-01T10:00")));
    }

    #[test]
    fn after_the_latest_start_a_campaign_is_late_and_quiet_hours_do_not_make_it_so() {
        let berlin = zone("Europe/Berlin");
        let schedule = schedule(
            "at = \"2027-03-01T10:00\"\nlatest_start = \"2027-03-01T22:00\"\nquiet = [\"21:00-09:00\"]",
        );
        let due = |now| schedule.due(&berlin, None, at(&berlin, now));
        assert_eq!(due("2027-03-01T11:30"), Due::At(at(&berlin, "2027-03-01T11:30")));
        assert_eq!(due("2027-03-01T21:30"), Due::At(at(&berlin, "2027-03-02T09:00")));
        assert_eq!(due("2027-03-01T22:01"), Due::Late);
        // A snapshot that is restored years later.
        assert_eq!(due("2031-01-01T12:00"), Due::Late);
    }

    #[test]
    fn quiet_hours_end_once_where_the_clock_shows_them_twice_or_skips_their_end() {
        let berlin = zone("Europe/Berlin");
        let quiet = schedule("quiet = [\"01:00-02:15\"]");
        // 02:00 to 03:00 is shown twice on 2026-10-25; half past two the second time is not quiet.
        let first = at(&berlin, "2026-10-25T02:00");
        let second = first.after(Duration::from_secs(3_600));
        let end = quiet.after_quiet(&berlin, second.after(Duration::from_secs(60)));
        assert_eq!(end, second.after(Duration::from_secs(15 * 60)));
        // 02:00 to 03:00 is skipped on 2027-03-28.
        let skipped = quiet.after_quiet(&berlin, at(&berlin, "2027-03-28T01:30"));
        assert_eq!(skipped, at(&berlin, "2027-03-28T03:00"));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["2027-03-01", "2027-02-30T10:00", "2027-03-01T24:00", "2027-03-01T9:00", ""] {
            assert!(text.parse::<LocalTime>().is_err(), "{text}");
        }
        for text in ["21:00", "21:00-21:00", "24:00-09:00", "9-12"] {
            assert!(text.parse::<Quiet>().is_err(), "{text}");
        }
        let all = Schedule {
            quiet: vec!["20:00-08:00".parse().unwrap(), "08:00-20:00".parse().unwrap()],
            ..Schedule::default()
        };
        assert_eq!(all.faults().len(), 1);
        let early = schedule_of("at = \"2027-03-01T10:00\"\nlatest_start = \"2027-03-01T09:00\"");
        assert!(early.faults()[0].starts_with("schedule.latest_start"), "{:?}", early.faults());
    }

    fn schedule_of(text: &str) -> Schedule {
        toml::from_str(text).unwrap()
    }

    fn quiet() -> impl Strategy<Value = Quiet> {
        (0..DAY_MINUTES, 0..=DAY_MINUTES)
            .prop_filter("an empty interval", |(from, to)| from != to)
            .prop_map(|(from, to)| Quiet { from, to })
    }

    proptest! {
        #[test]
        fn no_message_is_due_in_a_quiet_minute_or_before_it_was_asked_for(
            quiet in proptest::collection::vec(quiet(), 0..4),
            name in proptest::sample::select(vec!["Europe/Berlin", "America/Sao_Paulo", "Asia/Kathmandu", "Australia/Lord_Howe", "UTC"]),
            seconds in 1_700_000_000_i64..1_900_000_000,
        ) {
            let schedule = Schedule { quiet, ..Schedule::default() };
            prop_assume!(schedule.faults().is_empty());
            let (zone, now) = (zone(name), Timestamp::from_micros(seconds * 1_000_000));
            let due = schedule.after_quiet(&zone, now);
            prop_assert!(due >= now && due <= now.after(Duration::from_secs(26 * 3_600)));
            let minute = zone.minute(due);
            prop_assert!(!schedule.quiet.iter().any(|quiet| quiet.covers(minute)), "{minute}");
        }

        #[test]
        fn times_read_back_as_they_were_written(quiet in quiet(), minute in 0..DAY_MINUTES) {
            prop_assert_eq!(quiet.to_string().parse::<Quiet>().unwrap(), quiet);
            let time = LocalTime { date: "2027-03-01".parse().unwrap(), minute };
            prop_assert_eq!(time.to_string().parse::<LocalTime>().unwrap(), time);
        }
    }
}
