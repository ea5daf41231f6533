//! A calendar: busy times, and appointments booked into it.
//!
//! A booking carries an id that its caller derives from what caused it, so booking is idempotent: a second call under
//! the same id returns the first booking and never makes another. A caller that got no answer calls again with the same
//! id. Free times are computed here, purely: [`free_slots`].

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::hours::Hours;
use crate::sealed::Secret;
use crate::tenant::{ADDRESS, NOT_BLANK};
use crate::time::{Timestamp, human};

/// Access to a calendar, and limits of the appointments in it: a tenant's `[calendar]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CalendarAccess {
    /// The provider of the API.
    pub kind: CalendarKind,
    /// The provider's id of the calendar; Google: `primary`, or the calendar's address.
    #[serde(default = "default_calendar")]
    #[schemars(regex(pattern = NOT_BLANK))]
    pub calendar: String,
    /// The base address of the API, with its version.
    #[serde(default = "default_api_base")]
    #[schemars(regex(pattern = ADDRESS))]
    pub api_base: String,
    /// The address that gives access tokens for the refresh token.
    #[serde(default = "default_token_base")]
    #[schemars(regex(pattern = ADDRESS))]
    pub token_base: String,
    /// The OAuth client's id.
    #[schemars(regex(pattern = NOT_BLANK))]
    pub client_id: String,
    /// The OAuth client's secret.
    #[schemars(extend("minLength" = 1))]
    pub client_secret: Secret,
    /// Refresh token that the calendar's owner granted the OAuth client. Google's scopes that suffice:
    /// `calendar.events` and `calendar.freebusy`.
    #[schemars(extend("minLength" = 1))]
    pub refresh_token: Secret,
    /// The length of an appointment; 5 minutes to 24 hours.
    #[serde(with = "human", default = "default_slot")]
    #[schemars(schema_with = "human::schema")]
    pub slot: Duration,
    /// The earliest an appointment may begin, from now.
    #[serde(with = "human", default = "default_notice")]
    #[schemars(schema_with = "human::schema")]
    pub notice: Duration,
    /// The latest it may end, from now; at most 60 days.
    #[serde(with = "human", default = "default_horizon")]
    #[schemars(schema_with = "human::schema")]
    pub horizon: Duration,
}

/// A kind of calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CalendarKind {
    /// Google Calendar v3.
    Google,
}

fn default_calendar() -> String {
    "primary".into()
}

fn default_api_base() -> String {
    "https://www.googleapis.com/calendar/v3".into()
}

fn default_token_base() -> String {
    "https://oauth2.googleapis.com/token".into()
}

fn default_slot() -> Duration {
    Duration::from_secs(30 * 60)
}

fn default_notice() -> Duration {
    Duration::from_secs(2 * 3_600)
}

fn default_horizon() -> Duration {
    Duration::from_secs(30 * 86_400)
}

/// The longest horizon. Google refuses free/busy queries over a range that is too long (`timeRangeTooLong`, met from
/// about three months on; its reference states no number).
const LONGEST_HORIZON: Duration = Duration::from_secs(60 * 86_400);
const SHORTEST_SLOT: Duration = Duration::from_secs(5 * 60);
const LONGEST_SLOT: Duration = Duration::from_secs(86_400);

impl CalendarAccess {
    /// Returns every fault, a line each.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (at, base) in [("api_base", &self.api_base), ("token_base", &self.token_base)] {
            if !(base.starts_with("https://") || base.starts_with("http://")) {
                faults.push(format!("calendar.{at}: {base:?} is no http(s) address"));
            }
            if base.ends_with('/') {
                faults.push(format!("calendar.{at}: {base:?} ends with a slash"));
            }
        }
        let empty = [
            ("calendar", self.calendar.trim().is_empty()),
            ("client_id", self.client_id.trim().is_empty()),
            ("client_secret", self.client_secret.is_empty()),
            ("refresh_token", self.refresh_token.is_empty()),
        ];
        let empty = empty.into_iter().filter(|(_, empty)| *empty);
        faults.extend(empty.map(|(at, _)| format!("calendar.{at}: is empty")));
        if !(SHORTEST_SLOT..=LONGEST_SLOT).contains(&self.slot) {
            faults.push("calendar.slot: is not from 5m to 24h".into());
        }
        if self.horizon > LONGEST_HORIZON {
            faults.push("calendar.horizon: is over 60d, which providers do not answer at once".into());
        }
        if self.notice.saturating_add(self.slot) > self.horizon {
            faults.push("calendar.horizon: is under notice and slot together; no appointment fits".into());
        }
        faults
    }
}

/// The id of a booking, derived by the caller from what caused it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BookingId([u8; 16]);

impl BookingId {
    /// Takes bytes as id.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

/// In base32hex (RFC 4648, 7) without padding, in lower case: 26 characters of `0-9` and `a-v`. Google takes ids of
/// 5 to 1,024 such characters: <https://developers.google.com/workspace/calendar/api/v3/reference/events>.
impl fmt::Display for BookingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
        let bits = u128::from_be_bytes(self.0);
        // 128 bits are 25 digits of five bits and one of three, filled up with zeros.
        for digit in 0..26 {
            let five = if digit < 25 { bits >> (123 - 5 * digit) } else { bits << 2 };
            write!(f, "{}", char::from(DIGITS[(five & 31) as usize]))?;
        }
        Ok(())
    }
}

/// An appointment to book.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Booking {
    /// Its id.
    pub id: BookingId,
    /// Its beginning.
    pub from: Timestamp,
    /// Its end.
    pub to: Timestamp,
    /// Title that the calendar's owner reads first.
    pub summary: String,
    /// Further text for the owner.
    pub description: String,
}

/// An appointment that is in the calendar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Booked {
    /// Its id there.
    pub event: String,
    /// Its beginning.
    pub from: Timestamp,
    /// Its end.
    pub to: Timestamp,
}

/// A time that is taken, from a moment up to, not including, another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Busy {
    /// Its first moment.
    pub from: Timestamp,
    /// The first moment after it.
    pub to: Timestamp,
}

/// A time that is free for an appointment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    /// Its beginning.
    pub from: Timestamp,
    /// Its end.
    pub to: Timestamp,
}

/// Failure to read a calendar or to book an appointment. No text of it holds a token, or the subject of an appointment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CalendarError {
    /// Another appointment has that time.
    #[error("the time is taken")]
    Taken,
    /// It was booked under this id, and has been cancelled since. The id is used up.
    #[error("the appointment was cancelled")]
    Cancelled,
    /// It was booked under this id, and has been moved since.
    #[error("the appointment was moved{}", to.map(|to| format!(" to {} until {}", to.from, to.to)).unwrap_or_default())]
    Moved {
        /// The time it has now; `None` when it has no times of day any more.
        to: Option<Busy>,
    },
    /// The booking or the reading is refused until a person has acted.
    #[error("the calendar refuses: {detail}")]
    Refused {
        /// The action that is needed.
        detail: String,
    },
    /// Not now, and this call surely has done nothing, so it may be repeated. An earlier call under the same id may
    /// have booked.
    #[error("the calendar is not available: {detail}")]
    Unavailable {
        /// Description of the failure.
        detail: String,
        /// Time to wait before a retry, where it is known.
        retry_after: Option<Duration>,
    },
    /// The appointment may have been booked. It may be booked again under the same id, and must not be under
    /// another.
    #[error("the outcome of the booking is unknown: {detail}")]
    Unknown {
        /// Description of the failure.
        detail: String,
    },
}

/// Calendars of one kind of provider.
#[async_trait]
pub trait Calendar: Send + Sync + 'static {
    /// Returns the busy times between two moments, in order; times may reach over either end. At most 60 days are asked
    /// at once.
    ///
    /// # Errors
    /// [`CalendarError::Refused`] and [`CalendarError::Unavailable`].
    async fn busy(
        &self,
        calendar: &CalendarAccess,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<Busy>, CalendarError>;

    /// Books an appointment, or returns the one that was booked under its id before. The caller checks opening hours
    /// and notice; the calendar checks once more that the time is not taken. After a call that is dropped, as after
    /// [`CalendarError::Unknown`], the outcome is unknown.
    ///
    /// # Errors
    /// [`CalendarError`].
    async fn book(&self, calendar: &CalendarAccess, booking: &Booking) -> Result<Booked, CalendarError>;
}

/// The first free times for an appointment, in order and at most `limit`.
///
/// An opening is divided from its beginning into pieces of `slot`; those are free that begin `notice` from now or
/// later, end `horizon` from now or sooner, and meet nothing busy. `busy` may be in any order and overlap.
#[must_use]
pub fn free_slots(
    hours: &Hours,
    busy: &[Busy],
    now: Timestamp,
    slot: Duration,
    notice: Duration,
    horizon: Duration,
    limit: usize,
) -> Vec<Slot> {
    let (earliest, latest) = (now.after(notice), now.after(horizon));
    if slot.is_zero() || latest == Timestamp::MAX {
        return Vec::new();
    }
    let taken = joined(busy);
    let zone = &hours.time_zone;
    let days = std::iter::successors(Some(zone.date(earliest)), |date| date.next())
        .take_while(|date| zone.starts(*date) < latest);
    let pieces = days.flat_map(|date| hours.of(date)).flat_map(|opening| {
        std::iter::successors(Some(opening.from), move |from| Some(from.after(slot)))
            .map(move |from| Slot { from, to: from.after(slot) })
            .take_while(move |piece| piece.to <= opening.to)
    });
    pieces
        .skip_while(|piece| piece.from < earliest)
        .take_while(|piece| piece.to <= latest)
        .filter(|piece| {
            let next = taken.partition_point(|busy| busy.to <= piece.from);
            taken.get(next).is_none_or(|busy| piece.to <= busy.from)
        })
        .take(limit)
        .collect()
}

/// Returns the busy times in order, with overlapping ones joined.
fn joined(busy: &[Busy]) -> Vec<Busy> {
    let mut sorted: Vec<_> = busy.iter().copied().filter(|busy| busy.from < busy.to).collect();
    sorted.sort_unstable();
    let mut joined: Vec<Busy> = Vec::with_capacity(sorted.len());
    for busy in sorted {
        match joined.last_mut() {
            Some(last) if busy.from <= last.to => last.to = last.to.max(busy.to),
            _ => joined.push(busy),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::hours::tests::hours_and_moment;
    use crate::zone::tests::utc;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn an_id_is_base32hex_in_lower_case() {
        // Python: base64.b32hexencode(bytes).rstrip(b"=").lower()
        let id = |bytes| BookingId::from_bytes(bytes).to_string();
        assert_eq!(id([0; 16]), "00000000000000000000000000");
        assert_eq!(id([255; 16]), "vvvvvvvvvvvvvvvvvvvvvvvvvs");
        assert_eq!(id(std::array::from_fn(|at| u8::try_from(at).unwrap())), "000g40o40k30e209185go38e1s");
        assert_eq!(id(*b"foobar, foobar!!"), "cpnmuoj1e8m20pjfdth62sh144");
    }

    fn clinic() -> Hours {
        toml::from_str("time_zone = \"Europe/Berlin\"\nmonday = [\"09:00-12:00\", \"13:00-14:15\"]").unwrap()
    }

    fn starts(busy: &[Busy], now: &str, limit: usize) -> Vec<String> {
        let horizon = Duration::from_secs(8 * 86_400);
        free_slots(&clinic(), busy, utc(now), 30 * MINUTE, 120 * MINUTE, horizon, limit)
            .into_iter()
            .map(|slot| clinic().time_zone.text(slot.from)[7..].to_owned())
            .collect()
    }

    #[test]
    fn free_slots_are_offered_in_order_within_hours_after_the_notice_and_around_what_is_busy() {
        // 2026-12-14 is a Monday; Berlin is an hour before UTC, so it is 07:10 there: two hours later it is 09:10.
        let busy = |from, to| Busy { from: utc(from), to: utc(to) };
        let day = [
            busy("2026-12-14T09:45:00Z", "2026-12-14T10:00:00Z"),
            busy("2026-12-14T10:00:00Z", "2026-12-14T10:01:00Z"),
        ];
        let now = "2026-12-14T06:10:00Z";
        assert_eq!(
            starts(&day, now, 6),
            [
                "2026-12-14 09:30",
                "2026-12-14 10:00",
                "2026-12-14 11:30",
                "2026-12-14 13:00",
                "2026-12-14 13:30",
                "2026-12-21 09:00"
            ]
        );
        // What only touches is not met.
        let touching = [
            busy("2026-12-14T08:00:00Z", "2026-12-14T08:30:00Z"),
            busy("2026-12-14T09:00:00Z", "2026-12-14T09:30:00Z"),
        ];
        assert_eq!(starts(&touching, now, 2), ["2026-12-14 09:30", "2026-12-14 10:30"]);
        assert_eq!(starts(&[], now, 2), ["2026-12-14 09:30", "2026-12-14 10:00"]);
        assert!(starts(&[busy("2026-12-01T00:00:00Z", "2027-12-01T00:00:00Z")], now, 9).is_empty());
        assert!(starts(&[], now, 0).is_empty());
    }

    #[test]
    fn the_horizon_ends_what_is_offered() {
        let slots = |days: u64| {
            let horizon = Duration::from_secs(days * 86_400);
            free_slots(&clinic(), &[], utc("2026-12-14T00:00:00Z"), 30 * MINUTE, MINUTE, horizon, 99).len()
        };
        // Six in the morning and two in the afternoon of each Monday.
        assert_eq!([slots(1), slots(7), slots(8)], [8, 8, 16]);
    }

    #[test]
    fn without_hours_or_length_nothing_is_free() {
        let now = utc("2026-12-14T00:00:00Z");
        let week = Duration::from_secs(7 * 86_400);
        assert!(free_slots(&Hours::default(), &[], now, MINUTE, MINUTE, week, 9).is_empty());
        assert!(free_slots(&clinic(), &[], now, Duration::ZERO, MINUTE, week, 9).is_empty());
    }

    /// Busy times around a moment, some over each other, as minutes from it and lengths.
    fn busy() -> impl Strategy<Value = Vec<(i64, i64)>> {
        proptest::collection::vec((-600_i64..8_000, 0_i64..900), 0..12)
    }

    proptest! {
        #[test]
        fn free_slots_lie_in_hours_apart_from_what_is_busy_and_none_is_missed(
            (hours, now) in hours_and_moment(),
            busy in busy(),
            slot in 5_u64..200,
            notice in 0_u64..3_000,
        ) {
            let minutes = |minutes: i64| Timestamp::from_micros(now.as_micros() + minutes * 60_000_000);
            let busy: Vec<_> =
                busy.iter().map(|(at, length)| Busy { from: minutes(*at), to: minutes(at + length) }).collect();
            let (slot, notice) = (Duration::from_secs(slot * 60), Duration::from_secs(notice * 60));
            let horizon = Duration::from_secs(5 * 86_400);
            let free = free_slots(&hours, &busy, now, slot, notice, horizon, usize::MAX);
            let meets = |one: &Slot| busy.iter().any(|busy| one.from < busy.to && busy.from < one.to && busy.from < busy.to);
            for one in &free {
                prop_assert_eq!(one.to, one.from.after(slot));
                prop_assert!(now.after(notice) <= one.from && one.to <= now.after(horizon));
                prop_assert!(!meets(one), "{:?}", one);
                let inside = hours.between(one.from, one.to);
                prop_assert!(inside.len() == 1 && inside[0].from == one.from && inside[0].to == one.to);
            }
            prop_assert!(free.windows(2).all(|pair| pair[0].to <= pair[1].from));
            // What the days hold by themselves, without any of the shortcuts.
            let mut all = Vec::new();
            let mut date = hours.time_zone.date(now).previous().unwrap();
            for _ in 0..10 {
                for opening in hours.of(date) {
                    let mut from = opening.from;
                    while from.after(slot) <= opening.to {
                        let piece = Slot { from, to: from.after(slot) };
                        let in_time = now.after(notice) <= from && piece.to <= now.after(horizon);
                        if in_time && !meets(&piece) {
                            all.push(piece);
                        }
                        from = piece.to;
                    }
                }
                date = date.next().unwrap();
            }
            prop_assert_eq!(&free, &all);
            let few = free_slots(&hours, &busy, now, slot, notice, horizon, 3);
            prop_assert_eq!(&few[..], &all[..all.len().min(3)]);
        }
    }
}
