//! A tenant's time zone: which date and month a moment falls into there, and when they begin.
//!
//! Zones are those of the IANA database that is built into the program, never the machine's own: every node
//! of one version knows the same zones and turns the month at the same moment, on a bare image too.
//! `TimeZoneDatabase::bundled`, with jiff's feature `tzdb-bundle-always`, is that copy
//! (<https://docs.rs/jiff/latest/jiff/tz/struct.TimeZoneDatabase.html>).
//!
//! Clocks that are changed skip times and show others twice. One rule decides everywhere: a time of day begins
//! when the clock first shows it or a later one. So 02:30 on a day that skips from 02:00 to 03:00 is the moment
//! of the skip, and on a day that shows it twice it is the first of the two.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use jiff::civil;
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// A time zone, by its IANA name such as `Europe/Berlin`. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Zone(TimeZone);

/// A text that names no time zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no time zone; name one of the IANA database, such as \"Europe/Berlin\" or \"UTC\"")]
pub struct UnknownZone(String);

impl Zone {
    /// Coordinated universal time.
    pub const UTC: Self = Self(TimeZone::UTC);

    /// Its IANA name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// The date of a moment.
    #[must_use]
    pub fn date(&self, at: Timestamp) -> Date {
        Date(self.clock(at).date())
    }

    /// Returns the minutes after midnight that the clock shows at a moment.
    #[must_use]
    pub fn minute(&self, at: Timestamp) -> u16 {
        let clock = self.clock(at);
        u16::try_from(i16::from(clock.hour()) * 60 + i16::from(clock.minute())).unwrap_or(0)
    }

    /// The month of a moment: that whose [`Month::starts_at`] is the last not after it.
    ///
    /// That is the month on the clock, but for the minutes that a clock goes back over the end of a month:
    /// a month that has begun is not left again.
    #[must_use]
    pub fn month(&self, at: Timestamp) -> Month {
        let date = self.clock(at).date();
        let month = Month { year: date.year(), month: date.month() };
        if month.next().starts_at(self) <= at { month.next() } else { month }
    }

    /// Returns the moment at which a date begins.
    #[must_use]
    pub fn starts(&self, date: Date) -> Timestamp {
        self.moment(date, 0)
    }

    /// Returns the moment at which the clock first shows that number of minutes after midnight of a date, or a later
    /// time; the next midnight for 24 hours and more.
    #[must_use]
    pub fn moment(&self, date: Date, minutes: u16) -> Timestamp {
        const DAY_MINUTES: u16 = 24 * 60;
        let local = if minutes < DAY_MINUTES {
            let [hour, minute] = [minutes / 60, minutes % 60].map(|part| i8::try_from(part).unwrap_or(0));
            date.0.at(hour, minute, 0, 0)
        } else {
            match date.0.tomorrow() {
                Ok(next) => next.at(0, 0, 0, 0),
                Err(_) => return Timestamp::MAX,
            }
        };
        let beyond = if date.0.year() < 1970 { Timestamp::from_micros(i64::MIN) } else { Timestamp::MAX };
        self.first(local).map_or(beyond, |time| Timestamp::from_micros(time.as_microsecond()))
    }

    /// The first moment that shows this time or a later one; none when it is beyond the calendar.
    fn first(&self, local: civil::DateTime) -> Option<jiff::Timestamp> {
        match self.0.to_ambiguous_timestamp(local).offset() {
            AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(local).ok(),
            AmbiguousOffset::Fold { before, .. } => before.to_timestamp(local).ok(),
            // Read with the offset before the skip it lies at the skip or within the skipped time after it;
            // the transition looked for is the last one up to there.
            AmbiguousOffset::Gap { before, .. } => {
                let within = before.to_timestamp(local).ok()?;
                let behind = within.checked_add(jiff::SignedDuration::from_micros(1)).ok()?;
                self.0.preceding(behind).next().map(|skip| skip.timestamp())
            }
        }
    }

    /// A moment as people there write it: `Tuesday 2026-11-03 14:00`.
    #[must_use]
    pub fn text(&self, at: Timestamp) -> String {
        let clock = self.clock(at);
        format!("{} {} {:02}:{:02}", Date(clock.date()).weekday(), clock.date(), clock.hour(), clock.minute())
    }

    /// Reads what people there write: `2026-11-03 14:00`, or with a `T` between; seconds are cut. Where the clock
    /// skips that time or shows it twice, see the module.
    #[must_use]
    pub fn parse(&self, text: &str) -> Option<Timestamp> {
        let (date, time) = text.trim().split_once([' ', 'T'])?;
        let time: civil::Time = time.trim().parse().ok()?;
        let minutes = u16::try_from(i16::from(time.hour()) * 60 + i16::from(time.minute())).ok()?;
        Some(self.moment(date.parse().ok()?, minutes))
    }

    /// Returns the time that the clock shows; a moment beyond the calendar shows its first or last moment.
    fn clock(&self, at: Timestamp) -> civil::DateTime {
        let bound = if at < Timestamp::EPOCH { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
        self.0.to_datetime(jiff::Timestamp::from_microsecond(at.as_micros()).unwrap_or(bound))
    }
}

/// Reads a time of day such as `09:30`, as minutes after midnight; `24:00` is the end of the day.
pub(crate) fn time_of_day(text: &str) -> Option<u16> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let number = |digits: &str, most: u16| -> Option<u16> {
        let plain = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse().ok().filter(|number| plain && *number <= most)
    };
    Some(number(hours, 24)? * 60 + number(minutes, 59)?).filter(|minutes| *minutes <= 24 * 60)
}

impl Default for Zone {
    fn default() -> Self {
        Self::UTC
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Zone {
    type Err = UnknownZone;

    fn from_str(name: &str) -> Result<Self, UnknownZone> {
        match TimeZoneDatabase::bundled().get(name) {
            Ok(zone) if !zone.is_unknown() => Ok(Self(zone)),
            _ => Err(UnknownZone(name.to_owned())),
        }
    }
}

impl TryFrom<String> for Zone {
    type Error = UnknownZone;

    fn try_from(name: String) -> Result<Self, UnknownZone> {
        name.parse()
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> Self {
        zone.name().to_owned()
    }
}

impl JsonSchema for Zone {
    fn schema_name() -> Cow<'static, str> {
        "Zone".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // A name's form does not show that it is one, so all are listed.
        let names = TimeZoneDatabase::bundled();
        let names: Vec<_> = names.available().filter(|name| name.as_str().parse::<Self>().is_ok()).collect();
        let names: Vec<_> = names.iter().map(jiff::tz::TimeZoneName::as_str).collect();
        json_schema!({
            "type": "string",
            "description": "An IANA time zone such as Europe/Berlin.",
            "enum": names,
        })
    }
}

/// A month of the calendar, as its quota is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Month {
    year: i16,
    month: i8,
}

/// A text that is no month such as `2026-11`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no month such as \"2026-11\"")]
pub struct NoMonth(String);

impl Month {
    /// The one after it.
    #[must_use]
    pub const fn next(self) -> Self {
        match self {
            Self { year, month: 12 } => Self { year: year + 1, month: 1 },
            Self { year, month } => Self { year, month: month + 1 },
        }
    }

    /// Returns the moment at which it begins in a time zone; [`Timestamp::MAX`] past the year 9999.
    #[must_use]
    pub fn starts_at(self, zone: &Zone) -> Timestamp {
        match civil::Date::new(self.year, self.month, 1) {
            Ok(date) => zone.starts(Date(date)),
            Err(_) => Timestamp::MAX,
        }
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

impl FromStr for Month {
    type Err = NoMonth;

    fn from_str(text: &str) -> Result<Self, NoMonth> {
        let date: Result<Date, _> = format!("{text}-01").parse();
        let date = date.map_err(|_| NoMonth(text.to_owned()))?.0;
        Ok(Self { year: date.year(), month: date.month() })
    }
}

impl TryFrom<String> for Month {
    type Error = NoMonth;

    fn try_from(text: String) -> Result<Self, NoMonth> {
        text.parse()
    }
}

impl From<Month> for String {
    fn from(month: Month) -> Self {
        month.to_string()
    }
}

impl JsonSchema for Month {
    fn schema_name() -> Cow<'static, str> {
        "Month".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]{4}-(0[1-9]|1[0-2])$" })
    }
}

/// A date of the calendar, written `2026-12-24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Date(civil::Date);

/// A text that is no date such as `2026-12-24`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no date such as \"2026-12-24\"")]
pub struct NoDate(String);

impl Date {
    /// The day after; none past the year 9999.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        self.0.tomorrow().ok().map(Self)
    }

    /// The day before; none before the calendar's first.
    #[must_use]
    pub fn previous(self) -> Option<Self> {
        self.0.yesterday().ok().map(Self)
    }

    /// Its day of the week.
    #[must_use]
    pub fn weekday(self) -> Weekday {
        Weekday::ALL[usize::try_from(self.0.weekday().to_monday_zero_offset()).unwrap_or(0)]
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Date {
    type Err = NoDate;

    fn from_str(text: &str) -> Result<Self, NoDate> {
        // jiff also reads other forms, such as a date with a time behind it.
        match text.parse::<civil::Date>() {
            Ok(date) if date.to_string() == text => Ok(Self(date)),
            _ => Err(NoDate(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Date {
    type Error = NoDate;

    fn try_from(text: String) -> Result<Self, NoDate> {
        text.parse()
    }
}

impl From<Date> for String {
    fn from(date: Date) -> Self {
        date.to_string()
    }
}

/// The dates of the calendar; February 29 in leap years only.
const DATE: &str = "^([0-9]{4}-((0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])|(0[13-9]|1[0-2])-(29|30)|(0[13578]|1[02])-31)\
                    |([0-9]{2}(0[48]|[2468][048]|[13579][26])|(0[048]|[2468][048]|[13579][26])00)-02-29)$";

impl JsonSchema for Date {
    fn schema_name() -> Cow<'static, str> {
        "Date".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": DATE })
    }
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the days speak for themselves")]
pub enum Weekday {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

impl Weekday {
    /// All, Monday first.
    pub const ALL: [Self; 7] = [
        Self::Monday,
        Self::Tuesday,
        Self::Wednesday,
        Self::Thursday,
        Self::Friday,
        Self::Saturday,
        Self::Sunday,
    ];
}

impl fmt::Display for Weekday {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn zone(name: &str) -> Zone {
        name.parse().unwrap()
    }

    pub(crate) fn utc(text: &str) -> Timestamp {
        Timestamp::from_micros(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
    }

    #[test]
    fn a_zone_is_read_by_its_iana_name_only() {
        assert_eq!(zone("Europe/Berlin").name(), "Europe/Berlin");
        assert_eq!(zone("europe/berlin").name(), "Europe/Berlin");
        assert_eq!(zone("UTC"), Zone::UTC);
        for wrong in ["", "Berlin", "CEST", "Etc/Unknown", "+02:00", "Europe/Atlantis", "../etc/passwd"] {
            assert!(wrong.parse::<Zone>().unwrap_err().to_string().contains("Europe/Berlin"), "{wrong}");
        }
        assert_eq!(serde_json::to_value(zone("Asia/Tokyo")).unwrap(), "Asia/Tokyo");
        assert_eq!(serde_json::from_str::<Zone>("\"Asia/Tokyo\"").unwrap(), zone("Asia/Tokyo"));
    }

    #[test]
    fn a_month_turns_at_midnight_of_the_zone() {
        // Berlin is an hour before UTC in winter and two in summer, Honolulu ten behind all year.
        let berlin = zone("Europe/Berlin");
        assert_eq!(berlin.month(utc("2026-10-31T22:59:59Z")).to_string(), "2026-10");
        assert_eq!(berlin.month(utc("2026-10-31T23:00:00Z")).to_string(), "2026-11");
        assert_eq!(berlin.month(utc("2026-07-31T22:00:00Z")).to_string(), "2026-08");
        assert_eq!(zone("Pacific/Honolulu").month(utc("2027-01-01T09:59:59Z")).to_string(), "2026-12");
        let december: Month = "2026-12".parse().unwrap();
        assert_eq!(december.next().to_string(), "2027-01");
        assert_eq!(december.next().starts_at(&berlin), utc("2026-12-31T23:00:00Z"));
        assert!(december < december.next());
        assert_eq!(serde_json::from_str::<Month>("\"2026-12\"").unwrap(), december);
        for wrong in ["", "2026", "2026-13", "2026-1", "2026-12-01", "12-2026"] {
            assert!(wrong.parse::<Month>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_month_is_not_left_again_when_the_clock_goes_back_over_its_beginning() {
        // Goose Bay set its clock back by an hour at 00:01 on 1 November 2009, which was 03:01 UTC (tzdata,
        // northamerica, America/Goose_Bay: rule StJohns until 2011-11).
        let goose_bay = zone("America/Goose_Bay");
        let months = ["2009-11-01T02:59:59Z", "2009-11-01T03:00:00Z", "2009-11-01T03:30:00Z"]
            .map(|at| goose_bay.month(utc(at)).to_string());
        assert_eq!(goose_bay.text(utc("2009-11-01T03:30:00Z")), "Saturday 2009-10-31 23:30");
        assert_eq!(months, ["2009-10", "2009-11", "2009-11"]);
    }

    #[test]
    fn a_time_that_is_skipped_is_the_skip_and_one_shown_twice_is_the_first() {
        // Berlin, 2026: 02:00 becomes 03:00 on 29 March and 03:00 becomes 02:00 on 25 October, both at 01:00 UTC
        // (Directive 2000/84/EC).
        let berlin = zone("Europe/Berlin");
        let (march, october) = ("2026-03-29".parse().unwrap(), "2026-10-25".parse().unwrap());
        assert_eq!(berlin.moment(march, 119), utc("2026-03-29T00:59:00Z"));
        for minutes in [120, 150, 179, 180] {
            assert_eq!(berlin.moment(march, minutes), utc("2026-03-29T01:00:00Z"), "{minutes}");
        }
        assert_eq!(berlin.moment(october, 150), utc("2026-10-25T00:30:00Z"));
        assert_eq!(berlin.moment(october, 180), utc("2026-10-25T02:00:00Z"));
        assert_eq!(berlin.moment(october, 24 * 60), utc("2026-10-25T23:00:00Z"));
        // Samoa left out 30 December 2011 altogether: it begins and ends at once.
        let (apia, lost) = (zone("Pacific/Apia"), "2011-12-30".parse().unwrap());
        assert_eq!(apia.starts(lost), apia.moment(lost, 24 * 60));
    }

    #[test]
    fn what_people_write_is_read_in_their_zone() {
        let berlin = zone("Europe/Berlin");
        let at = utc("2026-11-03T13:00:00Z");
        assert_eq!(berlin.text(at), "Tuesday 2026-11-03 14:00");
        for text in ["2026-11-03 14:00", "2026-11-03T14:00", "2026-11-03 14:00:59"] {
            assert_eq!(berlin.parse(text), Some(at), "{text}");
        }
        for wrong in ["", "2026-11-03", "14:00", "2026-11-31 14:00", "2026-11-03 25:00", "tomorrow 14:00"] {
            assert_eq!(berlin.parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_beyond_the_calendar_is_no_fault() {
        assert_eq!(Zone::UTC.month(Timestamp::MAX).next().starts_at(&Zone::UTC), Timestamp::MAX);
        let first = Zone::UTC.month(Timestamp::from_micros(i64::MIN));
        assert!(first.starts_at(&Zone::UTC) < Timestamp::EPOCH);
    }

    /// Zones with all there is: none, skips and repeats at two, at midnight and just after it, half an hour, quarters,
    /// and a day left out.
    pub(crate) const ZONES: [&str; 9] = [
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "America/Havana",
        "America/Goose_Bay",
        "Australia/Lord_Howe",
        "Asia/Beirut",
        "Asia/Kathmandu",
        "Pacific/Apia",
    ];

    proptest! {
        #[test]
        fn a_month_holds_its_moments_and_a_date_begins_once(
            name in proptest::sample::select(&ZONES[..]),
            secs in 946_684_800_i64..4_102_444_800,
        ) {
            let (zone, at) = (zone(name), Timestamp::from_secs(secs));
            let month = zone.month(at);
            prop_assert!(month.starts_at(&zone) <= at && at < month.next().starts_at(&zone));
            let date = zone.date(at);
            let [start, end] = [zone.starts(date), zone.starts(date.next().unwrap())];
            prop_assert!(start <= at && start < end);
            let minutes: Vec<_> = (0..=1440).map(|minute| zone.moment(date, minute)).collect();
            prop_assert!(minutes.is_sorted() && minutes[1440] == end);
        }
    }
}
