//! Timestamps and durations as they are written in records and files.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Microseconds since the Unix epoch, UTC.
///
/// Microseconds, because they are also the write timestamps of the state store.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The beginning of 1970.
    pub const EPOCH: Self = Self(0);
    /// Later than anything.
    pub const MAX: Self = Self(i64::MAX);

    /// This many microseconds after the epoch.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// This many seconds after the epoch, as webhooks write it.
    #[must_use]
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1_000_000))
    }

    /// Microseconds after the epoch.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Returns the time since `earlier`; zero when it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The same, earlier by `duration`; never before [`Timestamp::EPOCH`] for a time after it.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(micros).max(self.0.min(0)))
    }

    /// The same, later by `duration`; never past [`Timestamp::MAX`].
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(micros))
    }

    /// Whole days since the epoch: the name of a day's log key.
    #[must_use]
    pub fn day(self) -> Day {
        Day(u32::try_from(self.0.div_euclid(86_400_000_000)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(time) => time.fmt(f),
            Err(_) => write!(f, "{}us", self.0),
        }
    }
}

/// Whole days since the Unix epoch, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub u32);

/// Log throttle: lets one line of many through each second, for failures that occur everywhere at once.
///
/// It goes by real time, also where the engine's clock is another.
#[derive(Debug, Default)]
pub struct LogThrottle(Mutex<Option<Instant>>);

impl LogThrottle {
    /// Nothing has been let through.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Returns whether this is the first line for a second.
    #[expect(clippy::disallowed_methods, reason = "what people read comes in real time")]
    pub fn lets_through(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let first = last.is_none_or(|last| now.saturating_duration_since(last) >= Duration::from_secs(1));
        if first {
            *last = Some(now);
        }
        first
    }
}

/// Points in time as other programs write them (RFC 3339): `"2026-01-01T12:00:00Z"`.
pub mod rfc3339 {
    use schemars::{Schema, SchemaGenerator, json_schema};
    use serde::{Deserialize, Deserializer, Serializer};

    use super::Timestamp;

    /// The dates of the years up to 8999.
    const DATE: &str = "([0-8][0-9]{3}-((0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])|(0[13-9]|1[0-2])-(29|30)|(0[13578]|1[02])-31)\
         |([0-8][0-9](0[48]|[2468][048]|[13579][26])|(0[048]|[2468][048]|[1357][26])00)-02-29)";
    const HOUR: &str = "([01][0-9]|2[0-3])";
    const TIME: &str = "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]";

    /// Writes it in UTC.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(time)
    }

    /// Reads date, time and offset; what is finer than a microsecond is cut.
    ///
    /// # Errors
    /// When the text is no such time. It is not repeated.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time: jiff::Timestamp =
            text.parse().map_err(|_| serde::de::Error::custom("no time such as 2026-01-01T12:00:00Z"))?;
        Ok(Timestamp::from_micros(time.as_microsecond()))
    }

    /// Its JSON Schema. The pattern is there because validators do not check formats unless asked to.
    #[must_use]
    pub fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "date-time",
            "pattern": format!("^{DATE}T{TIME}(\\.[0-9]{{1,9}})?(Z|[+-]{HOUR}:[0-5][0-9])$"),
        })
    }
}

/// Durations as people write them in files: `"300ms"`, `"5s"`, `"30d"`.
pub mod human {
    use std::time::Duration;

    use schemars::{Schema, SchemaGenerator, json_schema};
    use serde::{Deserialize, Deserializer, Serializer};

    /// Numbers and their units: those that are read, but for the fractions that few people write.
    const PATTERN: &str = "^[0-9]{1,9} ?(nanos|nsec|ns|usec|us|millis|msec|ms|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?|w|wks?|weeks?|M|months?|y|yrs?|years?)( [0-9]{1,9} ?(nanos|nsec|ns|usec|us|millis|msec|ms|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?|w|wks?|weeks?|M|months?|y|yrs?|years?)){0,9}$";

    /// The JSON Schema of a duration.
    #[must_use]
    pub fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": PATTERN, "examples": ["300ms", "5s", "30d"] })
    }

    /// The JSON Schema of a duration that may be left out.
    #[must_use]
    pub fn optional_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "null"], "pattern": PATTERN, "examples": ["30d"] })
    }

    /// Writes `365days` for a year. Days are the largest unit, since months and years of `humantime` are not whole
    /// days.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&text(*duration))
    }

    fn text(duration: Duration) -> String {
        const DAY: u64 = 86_400;
        let days = duration.as_secs() / DAY;
        if days < 2 {
            return humantime::format_duration(duration).to_string();
        }
        match duration - Duration::from_secs(days * DAY) {
            Duration::ZERO => format!("{days}days"),
            rest => format!("{days}days {}", humantime::format_duration(rest)),
        }
    }

    /// Reads a number and its unit.
    ///
    /// # Errors
    /// When the text is no duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map_err(|error| {
            serde::de::Error::custom(format!("{text:?} is no duration such as \"300ms\" or \"30d\": {error}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_turns_at_midnight_utc() {
        // 2026-01-01T00:00:00Z is 1,767,225,600 s after the epoch, which is 20,454 days.
        assert_eq!(Timestamp::from_secs(1_767_225_600).day(), Day(20_454));
        assert_eq!(Timestamp::from_micros(1_767_225_599_999_999).day(), Day(20_453));
        assert_eq!(Timestamp::from_secs(1_767_225_600).to_string(), "2026-01-01T00:00:00Z");
    }

    #[test]
    fn a_duration_is_written_in_whole_days_and_read_back() {
        #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        struct Kept(#[serde(with = "human")] Duration);
        for (written, shown) in [
            ("365d", "365days"),
            ("3650d", "3650days"),
            ("31d 5m", "31days 5m"),
            ("2d", "2days"),
            ("24h", "1day"),
            ("90s", "1m 30s"),
            ("0s", "0s"),
        ] {
            let read: Kept = serde_json::from_value(written.into()).unwrap();
            let json = serde_json::to_value(&read).unwrap();
            assert_eq!(json, shown);
            assert_eq!(serde_json::from_value::<Kept>(json).unwrap(), read);
        }
    }

    #[test]
    fn time_that_runs_backwards_counts_as_none() {
        assert_eq!(Timestamp::from_secs(1).since(Timestamp::from_secs(2)), Duration::ZERO);
    }
}
