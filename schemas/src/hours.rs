//! Opening hours as a tenant configures them, and pure questions about them.
//!
//! An interval is open from its first minute up to, not including, its last; `24:00` is the end of a day. On days
//! on which clocks are changed an interval begins and ends when the clock first shows its times or later ones,
//! see [`crate::zone`]. On dates that are closed, none is open.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::time::Timestamp;
use crate::zone::{Date, Month, Weekday, Zone, time_of_day};

/// When a tenant is open. Without an interval nothing is configured, and it is never open.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Hours {
    /// The time zone of the intervals, of appointments and of the month that quota is counted in: its IANA name.
    pub time_zone: Zone,
    /// Intervals such as `"09:00-12:00"`.
    pub monday: Vec<Interval>,
    /// As `monday`.
    pub tuesday: Vec<Interval>,
    /// As `monday`.
    pub wednesday: Vec<Interval>,
    /// As `monday`.
    pub thursday: Vec<Interval>,
    /// As `monday`.
    pub friday: Vec<Interval>,
    /// As `monday`.
    pub saturday: Vec<Interval>,
    /// As `monday`.
    pub sunday: Vec<Interval>,
    /// Dates that are closed whatever their day of the week.
    #[schemars(with = "Vec<Date>")]
    pub closed: BTreeSet<Date>,
}

/// From a minute of the day up to another, written `09:00-12:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Interval {
    /// Minutes after midnight.
    from: u16,
    /// Minutes after midnight, up to 24 hours of them.
    to: u16,
}

/// A text that is no interval.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no interval such as \"09:00-12:30\" or \"18:00-24:00\"")]
pub struct NoInterval(String);

/// A time of being open, from a moment up to, not including, another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Opening {
    /// Its first moment.
    pub from: Timestamp,
    /// The first moment after it.
    pub to: Timestamp,
}

impl Opening {
    /// Returns whether a moment lies in it.
    #[must_use]
    pub fn contains(&self, at: Timestamp) -> bool {
        self.from <= at && at < self.to
    }
}

impl Hours {
    /// Returns whether any interval is configured.
    #[must_use]
    pub fn are_set(&self) -> bool {
        Weekday::ALL.into_iter().any(|day| !self.on(day).is_empty())
    }

    /// Returns every fault, a line each.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for day in Weekday::ALL {
            let at = format!("hours.{}", day.to_string().to_lowercase());
            for (index, interval) in self.on(day).iter().enumerate() {
                if interval.from >= interval.to {
                    let next = Weekday::ALL[(day as usize + 1) % 7].to_string().to_lowercase();
                    faults.push(format!(
                        "{at}[{index}]: {interval} does not end after it begins; hours over midnight are two \
                         intervals, one up to 24:00 and one from 00:00 under {next}"
                    ));
                }
            }
            let sorted = self.sorted(day);
            faults.extend(
                sorted.windows(2).filter(|pair| pair[1].from < pair[0].to && pair[0].from < pair[0].to).map(
                    |pair| format!("{at}: {} and {} overlap; write them as one interval", pair[0], pair[1]),
                ),
            );
        }
        faults
    }

    /// The month of a moment, as quota counts it.
    #[must_use]
    pub fn month(&self, at: Timestamp) -> Month {
        self.time_zone.month(at)
    }

    /// Returns whether a moment is in an opening.
    #[must_use]
    pub fn is_open(&self, at: Timestamp) -> bool {
        self.days_from(at).take(2).flat_map(|date| self.of(date)).any(|opening| opening.contains(at))
    }

    /// The first opening that begins after a moment, having been closed before it; none when it is never or always
    /// open.
    #[must_use]
    pub fn next_opening(&self, at: Timestamp) -> Option<Timestamp> {
        let mut open_until = None;
        // A weekday comes every seventh day; each that is closed may put the opening off by that, and so may a date
        // that a zone skips.
        let days = 7 * (self.closed.len() + 2) + 1;
        for opening in self.days_from(at).take(days).flat_map(|date| self.of(date)) {
            if opening.from > at && open_until.is_none_or(|until| until < opening.from) {
                return Some(opening.from);
            }
            open_until = open_until.max(Some(opening.to));
        }
        None
    }

    /// The openings of a date, in order. Those that touch are not joined.
    #[must_use]
    pub fn of(&self, date: Date) -> Vec<Opening> {
        if self.closed.contains(&date) {
            return Vec::new();
        }
        let moment = |minutes| self.time_zone.moment(date, minutes);
        let opening = |interval: Interval| Opening { from: moment(interval.from), to: moment(interval.to) };
        // On a day that skips it, an interval is empty.
        self.sorted(date.weekday()).into_iter().map(opening).filter(|one| one.from < one.to).collect()
    }

    /// The openings between two moments, in order; those that touch, also over midnight, are one.
    #[must_use]
    pub fn between(&self, from: Timestamp, to: Timestamp) -> Vec<Opening> {
        let mut openings: Vec<Opening> = Vec::new();
        if !self.are_set() {
            return openings;
        }
        let days = self.days_from(from).take_while(|date| self.time_zone.starts(*date) < to);
        for opening in days.flat_map(|date| self.of(date)) {
            let opening = Opening { from: opening.from.max(from), to: opening.to.min(to) };
            if opening.from >= opening.to {
                continue;
            }
            match openings.last_mut() {
                Some(last) if opening.from <= last.to => last.to = last.to.max(opening.to),
                _ => openings.push(opening),
            }
        }
        openings
    }

    /// The hours in a line for people and prompts, with the closed dates from `now` on:
    /// `Monday 09:00-12:00, 13:00-18:00; Tuesday closed; ...; closed on 2026-12-24 (time zone Europe/Berlin)`.
    /// Empty when none are configured.
    #[must_use]
    pub fn text(&self, now: Timestamp) -> String {
        if !self.are_set() {
            return String::new();
        }
        let join = |parts: Vec<String>| parts.join(", ");
        let mut parts: Vec<String> = Vec::new();
        for day in Weekday::ALL {
            let intervals = self.sorted(day);
            parts.push(match intervals.is_empty() {
                true => format!("{day} closed"),
                false => format!("{day} {}", join(intervals.iter().map(Interval::to_string).collect())),
            });
        }
        let closed: Vec<_> = self.closed.range(self.time_zone.date(now)..).map(Date::to_string).collect();
        if !closed.is_empty() {
            parts.push(format!("closed on {}", join(closed)));
        }
        format!("{} (time zone {})", parts.join("; "), self.time_zone)
    }

    fn on(&self, day: Weekday) -> &[Interval] {
        match day {
            Weekday::Monday => &self.monday,
            Weekday::Tuesday => &self.tuesday,
            Weekday::Wednesday => &self.wednesday,
            Weekday::Thursday => &self.thursday,
            Weekday::Friday => &self.friday,
            Weekday::Saturday => &self.saturday,
            Weekday::Sunday => &self.sunday,
        }
    }

    fn sorted(&self, day: Weekday) -> Vec<Interval> {
        let mut intervals = self.on(day).to_vec();
        intervals.sort_unstable();
        intervals
    }

    /// The dates whose openings may hold a moment or lie after it. The one after may hold it as well: where a clock
    /// goes back over midnight, it has begun and the clock shows the one before again.
    fn days_from(&self, at: Timestamp) -> impl Iterator<Item = Date> + use<> {
        std::iter::successors(Some(self.time_zone.date(at)), |date| date.next())
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to } = self;
        write!(f, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60)
    }
}

impl FromStr for Interval {
    type Err = NoInterval;

    fn from_str(text: &str) -> Result<Self, NoInterval> {
        let interval = text
            .split_once('-')
            .and_then(|(from, to)| Some(Self { from: time_of_day(from)?, to: time_of_day(to)? }));
        interval.ok_or_else(|| NoInterval(text.to_owned()))
    }
}

impl TryFrom<String> for Interval {
    type Error = NoInterval;

    fn try_from(text: String) -> Result<Self, NoInterval> {
        text.parse()
    }
}

impl From<Interval> for String {
    fn from(interval: Interval) -> Self {
        interval.to_string()
    }
}

impl JsonSchema for Interval {
    fn schema_name() -> Cow<'static, str> {
        "Interval".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00) *- *(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$" })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::zone::tests::{ZONES, utc};

    const CLINIC: &str = r#"
        time_zone = "Europe/Berlin"
        monday = ["09:00-12:00", "13:00-18:00"]
        tuesday = ["09:00-12:00"]
        closed = ["2026-12-21", "2025-12-22"]
    "#;

    fn clinic() -> Hours {
        toml::from_str(CLINIC).unwrap()
    }

    fn opening(from: &str, to: &str) -> Opening {
        Opening { from: utc(from), to: utc(to) }
    }

    #[test]
    fn the_clinic_is_open_when_its_file_says() {
        let hours = clinic();
        assert!(hours.are_set() && hours.faults().is_empty());
        // 2026-12-14 is a Monday; Berlin is an hour before UTC.
        let open =
            ["2026-12-14T08:00:00Z", "2026-12-14T10:59:59Z", "2026-12-14T12:00:00Z", "2026-12-15T08:00:00Z"];
        let shut =
            ["2026-12-14T07:59:59Z", "2026-12-14T11:00:00Z", "2026-12-14T17:00:00Z", "2026-12-15T12:00:00Z"];
        assert!(
            open.iter().all(|at| hours.is_open(utc(at))) && !shut.iter().any(|at| hours.is_open(utc(at)))
        );
        assert_eq!(hours.next_opening(utc("2026-12-14T08:00:00Z")), Some(utc("2026-12-14T12:00:00Z")));
        // The Monday after is closed.
        assert_eq!(hours.next_opening(utc("2026-12-15T11:00:00Z")), Some(utc("2026-12-22T08:00:00Z")));
        assert!(hours.of("2026-12-21".parse().unwrap()).is_empty());
        assert_eq!(
            hours.of("2026-12-14".parse().unwrap()),
            [
                opening("2026-12-14T08:00:00Z", "2026-12-14T11:00:00Z"),
                opening("2026-12-14T12:00:00Z", "2026-12-14T17:00:00Z")
            ]
        );
    }

    #[test]
    fn the_text_for_a_prompt_names_every_day_and_the_closed_dates_to_come() {
        assert_eq!(
            clinic().text(utc("2026-12-01T00:00:00Z")),
            "Monday 09:00-12:00, 13:00-18:00; Tuesday 09:00-12:00; Wednesday closed; Thursday closed; Friday closed; \
             Saturday closed; Sunday closed; closed on 2026-12-21 (time zone Europe/Berlin)"
        );
        assert_eq!(Hours::default().text(Timestamp::EPOCH), "");
    }

    #[test]
    fn without_hours_it_is_never_open_and_the_zone_is_utc() {
        let hours = Hours::default();
        assert!(!hours.are_set() && hours.faults().is_empty() && !hours.is_open(Timestamp::EPOCH));
        assert_eq!((hours.next_opening(Timestamp::EPOCH), hours.time_zone.name()), (None, "UTC"));
        assert!(hours.between(Timestamp::EPOCH, Timestamp::MAX).is_empty());
    }

    #[test]
    fn hours_over_midnight_and_overlapping_ones_are_refused_all_at_once() {
        let hours: Hours = toml::from_str(
            "monday = [\"22:00-06:00\", \"09:00-09:00\"]\n\
             sunday = [\"13:00-18:00\", \"09:00-13:30\", \"18:00-24:00\"]\n",
        )
        .unwrap();
        let faults = hours.faults();
        assert_eq!(faults.len(), 3, "{faults:?}");
        assert!(faults[0].starts_with("hours.monday[0]: 22:00-06:00") && faults[0].contains("under tuesday"));
        assert!(faults[1].starts_with("hours.monday[1]: 09:00-09:00"));
        assert!(faults[2].starts_with("hours.sunday: 09:00-13:30 and 13:00-18:00 overlap"));
    }

    #[test]
    fn what_is_no_interval_date_or_zone_is_refused_with_what_it_should_be() {
        for (wrong, says) in [
            ("monday = [\"9-12\"]", "09:00-12:30"),
            ("monday = [\"09:00-24:01\"]", "09:00-12:30"),
            ("monday = [\"09:60-10:00\"]", "09:00-12:30"),
            ("monday = [\"+9:00-10:00\"]", "09:00-12:30"),
            ("closed = [\"24.12.2026\"]", "2026-12-24"),
            ("closed = [\"2026-02-30\"]", "2026-12-24"),
            ("time_zone = \"CET+1\"", "Europe/Berlin"),
            ("mondays = []", "unknown field"),
        ] {
            let fault = toml::from_str::<Hours>(wrong).unwrap_err().to_string();
            assert!(fault.contains(says), "{wrong}: {fault}");
        }
    }

    #[test]
    fn hours_read_back_as_they_were_written() {
        let hours = clinic();
        assert_eq!(serde_json::from_value::<Hours>(serde_json::to_value(&hours).unwrap()).unwrap(), hours);
        assert_eq!(toml::from_str::<Hours>(&toml::to_string(&hours).unwrap()).unwrap(), hours);
    }

    #[test]
    fn days_on_which_clocks_change_are_shorter_and_longer_by_an_hour() {
        // Sunday 29 March and Sunday 25 October 2026, Berlin: both change at 01:00 UTC.
        let hours: Hours =
            toml::from_str("time_zone = \"Europe/Berlin\"\nsunday = [\"00:00-02:30\", \"02:30-24:00\"]")
                .unwrap();
        let spring = hours.of("2026-03-29".parse().unwrap());
        assert_eq!(
            spring,
            [
                opening("2026-03-28T23:00:00Z", "2026-03-29T01:00:00Z"),
                opening("2026-03-29T01:00:00Z", "2026-03-29T22:00:00Z")
            ]
        );
        let autumn = hours.of("2026-10-25".parse().unwrap());
        assert_eq!(
            autumn,
            [
                opening("2026-10-24T22:00:00Z", "2026-10-25T00:30:00Z"),
                opening("2026-10-25T00:30:00Z", "2026-10-25T23:00:00Z")
            ]
        );
        let skipped: Hours =
            toml::from_str("time_zone = \"Europe/Berlin\"\nsunday = [\"02:00-03:00\"]").unwrap();
        assert!(skipped.of("2026-03-29".parse().unwrap()).is_empty());
    }

    #[test]
    fn an_opening_is_found_behind_any_number_of_closed_dates() {
        let mut hours: Hours =
            toml::from_str("time_zone = \"Pacific/Apia\"\nfriday = [\"09:00-12:00\"]").unwrap();
        hours.closed = ["2012-01-06", "2012-01-13", "2012-01-20"].map(|date| date.parse().unwrap()).into();
        // Samoa skipped Friday 30 December 2011, and is 14 hours before UTC in its summer since.
        assert_eq!(hours.next_opening(utc("2011-12-24T00:00:00Z")), Some(utc("2012-01-26T19:00:00Z")));
    }

    #[test]
    fn an_opening_from_midnight_holds_while_the_clock_shows_the_day_before_again() {
        // Goose Bay went from 00:01 on Sunday, 1 November 2009, back to 23:01: 03:01 UTC.
        let hours: Hours =
            toml::from_str("time_zone = \"America/Goose_Bay\"\nsunday = [\"00:00-01:00\"]").unwrap();
        let times = ["02:59:59", "03:00:00", "03:30:00", "04:59:59", "05:00:00"];
        let open = times.map(|time| hours.is_open(utc(&format!("2009-11-01T{time}Z"))));
        assert_eq!(open, [false, true, true, true, false]);
    }

    #[test]
    fn who_never_closes_has_no_next_opening_and_one_long_one() {
        let mut hours = Hours::default();
        let all_day = vec!["00:00-24:00".parse().unwrap()];
        for day in [
            &mut hours.monday,
            &mut hours.tuesday,
            &mut hours.wednesday,
            &mut hours.thursday,
            &mut hours.friday,
            &mut hours.saturday,
            &mut hours.sunday,
        ] {
            day.clone_from(&all_day);
        }
        let (from, to) = (utc("2026-01-01T12:34:56Z"), utc("2026-02-01T00:00:01Z"));
        assert_eq!(hours.between(from, to), [Opening { from, to }]);
        assert_eq!(hours.next_opening(from), None);
        hours.closed.insert("2026-01-03".parse().unwrap());
        assert_eq!(hours.next_opening(from), Some(utc("2026-01-04T00:00:00Z")));
    }

    /// Intervals between random minutes of a day, in order.
    fn day() -> impl Strategy<Value = Vec<Interval>> {
        proptest::collection::btree_set(0_u16..=1440, 0..6).prop_map(|minutes| {
            let minutes: Vec<_> = minutes.into_iter().collect();
            minutes.chunks_exact(2).map(|pair| Interval { from: pair[0], to: pair[1] }).collect()
        })
    }

    /// Random hours without faults, and a moment that is often near a change of clocks.
    pub(crate) fn hours_and_moment() -> impl Strategy<Value = (Hours, Timestamp)> {
        let days = proptest::collection::vec(day(), 7);
        // 2009 to 2027; the years before 2012 hold the oddest changes of these zones.
        let near = (any::<prop::sample::Index>(), -30 * 3_600_i64..30 * 3_600);
        let at = (1_230_768_000_i64..1_800_000_000, any::<bool>(), near);
        (proptest::sample::select(&ZONES[..]), days, at, proptest::collection::vec(0_i64..14, 0..3)).prop_map(
            |(zone, mut days, (secs, jump, (which, beside)), closed)| {
                let time_zone: Zone = zone.parse().unwrap();
                let changes = changes(zone);
                let secs = if jump && !changes.is_empty() { *which.get(&changes) + beside } else { secs };
                let at = Timestamp::from_secs(secs);
                let mut take = || days.pop().unwrap();
                let closed = closed
                    .into_iter()
                    .map(|days| time_zone.date(Timestamp::from_secs(secs + days * 86_400)))
                    .collect();
                let hours = Hours {
                    time_zone,
                    monday: take(),
                    tuesday: take(),
                    wednesday: take(),
                    thursday: take(),
                    friday: take(),
                    saturday: take(),
                    sunday: take(),
                    closed,
                };
                (hours, at)
            },
        )
    }

    /// When a zone changes its clocks, in seconds after the epoch.
    fn changes(zone: &str) -> Vec<i64> {
        let zone = jiff::tz::TimeZoneDatabase::bundled().get(zone).unwrap();
        let (from, to) = ("2009-01-01T00:00:00Z".parse().unwrap(), "2027-01-01T00:00:00Z".parse().unwrap());
        zone.following(from)
            .take_while(|change| change.timestamp() < to)
            .map(|change| change.timestamp().as_second())
            .collect()
    }

    /// Returns whether it is open by the clock on the wall alone; that is the definition wherever the clock is not set
    /// back.
    fn by_the_wall(hours: &Hours, at: Timestamp) -> bool {
        let zone = jiff::tz::TimeZoneDatabase::bundled().get(hours.time_zone.name()).unwrap();
        let wall = zone.to_datetime(jiff::Timestamp::from_microsecond(at.as_micros()).unwrap());
        let minute = u16::try_from(i16::from(wall.hour()) * 60 + i16::from(wall.minute())).unwrap();
        let date: Date = wall.date().to_string().parse().unwrap();
        let within = |one: &Interval| one.from <= minute && minute < one.to;
        !hours.closed.contains(&date) && hours.on(date.weekday()).iter().any(within)
    }

    fn clock_is_set_back_within_a_day(hours: &Hours, at: Timestamp) -> bool {
        let zone = jiff::tz::TimeZoneDatabase::bundled().get(hours.time_zone.name()).unwrap();
        let offset = |secs: i64| {
            let at = jiff::Timestamp::from_microsecond(at.as_micros() + secs * 1_000_000).unwrap();
            zone.to_offset(at).seconds()
        };
        (-24..24).any(|hour| offset(hour * 3_600) > offset((hour + 1) * 3_600))
    }

    proptest! {
        #[test]
        fn open_is_what_the_clock_on_the_wall_says((hours, at) in hours_and_moment()) {
            prop_assert!(hours.faults().is_empty());
            if !clock_is_set_back_within_a_day(&hours, at) {
                prop_assert_eq!(hours.is_open(at), by_the_wall(&hours, at));
            }
        }

        #[test]
        fn openings_are_in_order_apart_and_exactly_what_is_open((hours, at) in hours_and_moment(), days in 1_u64..5) {
            let to = at.after(std::time::Duration::from_secs(days * 86_400));
            let openings = hours.between(at, to);
            prop_assert!(openings.iter().all(|one| at <= one.from && one.from < one.to && one.to <= to));
            prop_assert!(openings.windows(2).all(|pair| pair[0].to < pair[1].from));
            let step = std::time::Duration::from_secs(600);
            let mut moment = at;
            while moment < to {
                let inside = openings.iter().any(|one| one.contains(moment));
                prop_assert_eq!(inside, hours.is_open(moment), "{}", moment);
                moment = moment.after(step);
            }
        }

        #[test]
        fn the_next_opening_opens_and_nothing_opens_before_it((hours, at) in hours_and_moment()) {
            let before = |time: Timestamp| Timestamp::from_micros(time.as_micros() - 1);
            let until = match hours.next_opening(at) {
                Some(next) => {
                    prop_assert!(next > at && hours.is_open(next) && !hours.is_open(before(next)));
                    next
                }
                None => at.after(std::time::Duration::from_secs(8 * 86_400)),
            };
            // Up to it there is at most the opening that `at` itself lies in.
            let openings = hours.between(at, until);
            prop_assert!(openings.is_empty() || openings.len() == 1 && openings[0].from == at);
        }
    }
}
