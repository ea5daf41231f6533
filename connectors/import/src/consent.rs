//! Consent columns of a row, and the dates in them.
//!
//! A consent has a purpose, a time and a way. Without a time it could not be placed before or after an opt-out, so a
//! row that claims a consent without one is refused; and a time yet to come would beat every opt-out until then. A date
//! without a time of day is the day's beginning in UTC: an opt-out of the same day wins.

use heddle_schemas::consent::{Category, Says};
use heddle_schemas::time::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::reject::Reason;

/// Difference of clocks by which a consent may be ahead, in microseconds: a day, since a time may lack its zone.
const AHEAD_MICROS: i64 = 86_400_000_000;

/// Consent or opt-out that a row states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consent {
    /// Consent or opt-out.
    pub says: Says,
    /// The purposes.
    pub purposes: Vec<Category>,
    /// The time.
    pub at: Timestamp,
    /// The way, as the list puts it.
    pub how: Option<String>,
}

/// Order of day and month in dates with slashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DateOrder {
    /// 31/12/2026.
    DayFirst,
    /// 12/31/2026.
    MonthFirst,
}

/// Cells of the consent columns; `None` where the file has no such column.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cells<'a> {
    pub(crate) given: Option<&'a str>,
    pub(crate) purpose: Option<&'a str>,
    pub(crate) at: Option<&'a str>,
    pub(crate) how: Option<&'a str>,
}

/// Reads the consent of a row; `None` where it states none.
pub(crate) fn read(
    cells: Cells<'_>,
    now: Timestamp,
    order: Option<DateOrder>,
) -> Result<Option<Consent>, Reason> {
    let text = |cell: Option<&str>| cell.map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
    let (given, purpose, at) = (text(cells.given), text(cells.purpose), text(cells.at));
    let says = match (given, cells.given.is_some(), &purpose) {
        (Some(given), ..) => yes_or_no(&given).ok_or(Reason::UnclearConsent)?,
        (None, false, Some(_)) => Says::Give,
        (None, ..) => return Ok(None),
    };
    let purposes = match purpose {
        Some(purpose) => purposes(&purpose).ok_or(Reason::UnknownPurpose)?,
        None => vec![Category::Marketing],
    };
    let at = match (at, says) {
        (Some(at), _) => time(&at, order).ok_or(Reason::UnclearConsentTime)?,
        (None, Says::Give) => return Err(Reason::NoConsentTime),
        // Someone who has not agreed has not opted out either.
        (None, Says::Stop) => return Ok(None),
    };
    if at.as_micros() > now.as_micros().saturating_add(AHEAD_MICROS) {
        return Err(Reason::FutureConsent);
    }
    Ok(Some(Consent { says, purposes, at: at.min(now), how: text(cells.how) }))
}

fn yes_or_no(text: &str) -> Option<Says> {
    const YES: [&str; 21] = [
        "yes",
        "y",
        "true",
        "1",
        "x",
        "ok",
        "opted in",
        "subscribed",
        "granted",
        "ja",
        "j",
        "wahr",
        "oui",
        "vrai",
        "si",
        "sí",
        "sim",
        "verdadero",
        "tak",
        "да",
        "evet",
    ];
    const NO: [&str; 17] = [
        "no",
        "n",
        "false",
        "0",
        "opted out",
        "unsubscribed",
        "denied",
        "nein",
        "falsch",
        "non",
        "faux",
        "não",
        "nao",
        "nie",
        "нет",
        "hayır",
        "falso",
    ];
    let text = text.to_lowercase().replace(['_', '-'], " ");
    let is = |words: &[&str]| words.contains(&text.as_str());
    if is(&YES) { Some(Says::Give) } else { is(&NO).then_some(Says::Stop) }
}

fn purposes(text: &str) -> Option<Vec<Category>> {
    let mut found = Vec::new();
    for word in text
        .split([',', ';', '/', '|', '+'])
        .map(|word| word.trim().to_lowercase())
        .filter(|word| !word.is_empty())
    {
        match word.as_str() {
            "marketing" | "werbung" | "newsletter" | "promotions" | "promotional" | "publicité"
            | "publicidad" => {
                found.push(Category::Marketing);
            }
            "utility" | "service" | "transactional" | "transaktional" | "notifications" => {
                found.push(Category::Utility)
            }
            "all" | "alle" | "alles" | "tous" | "todo" | "todos" => found.extend(Category::ALL),
            _ => return None,
        }
    }
    found.sort_unstable();
    found.dedup();
    (!found.is_empty()).then_some(found)
}

/// Reads a date or a time: ISO 8601, `31.12.2026 10:00`, `31/12/2026`. Without a zone it is UTC. A date with slashes
/// that could be two days is read by `order` only.
#[must_use]
pub fn time(text: &str, order: Option<DateOrder>) -> Option<Timestamp> {
    let text = text.trim().trim_start_matches('\'');
    if text.len() > 40 || !text.is_ascii() {
        return None;
    }
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Some(Timestamp::from_micros(at.as_microsecond()));
    }
    let civil = text.parse::<DateTime>().ok().or_else(|| written_date(text, order))?;
    let at = TimeZone::UTC.to_timestamp(civil).ok()?;
    Some(Timestamp::from_micros(at.as_microsecond()))
}

fn written_date(text: &str, order: Option<DateOrder>) -> Option<DateTime> {
    let (date, time) = text.split_once([' ', 'T']).unwrap_or((text, ""));
    let separator = if date.contains('.') { '.' } else { '/' };
    let parts: Vec<i16> = date.split(separator).map(str::parse).collect::<Result<_, _>>().ok()?;
    let &[first, second, year] = parts.as_slice() else { return None };
    let (day, month) = match (separator, order) {
        ('.', _) | (_, Some(DateOrder::DayFirst)) => (first, second),
        (_, Some(DateOrder::MonthFirst)) => (second, first),
        _ if first > 12 || first == second => (first, second),
        _ if second > 12 => (second, first),
        _ => return None,
    };
    if !(1900..=9999).contains(&year) {
        return None;
    }
    let date = Date::new(year, month.try_into().ok()?, day.try_into().ok()?).ok()?;
    let time = time.trim();
    let time = if time.is_empty() { Time::midnight() } else { time.parse().ok()? };
    Some(date.to_datetime(time))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Option<String> {
        let at = time(text, None)?;
        Some(jiff::Timestamp::from_microsecond(at.as_micros()).unwrap().to_string())
    }

    #[test]
    fn a_date_is_read_unless_it_could_be_two() {
        for (text, expected) in [
            ("2026-03-01", "2026-03-01T00:00:00Z"),
            ("2026-03-01T10:00:00+02:00", "2026-03-01T08:00:00Z"),
            ("2026-03-01 10:30:00", "2026-03-01T10:30:00Z"),
            ("01.03.2026", "2026-03-01T00:00:00Z"),
            ("1.3.2026 9:05", "2026-03-01T09:05:00Z"),
            ("31/12/2025", "2025-12-31T00:00:00Z"),
            ("12/31/2025", "2025-12-31T00:00:00Z"),
        ] {
            let padded = text.replace(" 9:05", " 09:05");
            assert_eq!(at(&padded).as_deref(), Some(expected), "{text}");
        }
        for text in ["", "03/04/2026", "yesterday", "31.02.2026", "1.3.26", "44986", "99999-01-01"] {
            assert_eq!(at(text), None, "{text}");
        }
        let day = |order| time("03/04/2026", Some(order));
        assert_eq!(day(DateOrder::DayFirst), time("2026-04-03", None));
        assert_eq!(day(DateOrder::MonthFirst), time("2026-03-04", None));
    }

    fn row(given: Option<&str>, purpose: Option<&str>, at: Option<&str>) -> Result<Option<Consent>, Reason> {
        let now = time("2026-06-01", None).unwrap();
        read(Cells { given, purpose, at, how: Some("web form") }, now, None)
    }

    #[test]
    fn a_consent_has_a_purpose_and_a_time_or_the_row_is_refused() {
        let full = row(Some("Ja"), Some("Marketing, service"), Some("2026-03-01")).unwrap().unwrap();
        assert_eq!((full.says, full.purposes.len()), (Says::Give, 2));
        assert_eq!(full.how.as_deref(), Some("web form"));
        assert_eq!(row(None, Some("marketing"), Some("2026-03-01")).unwrap().unwrap().says, Says::Give);
        assert_eq!(
            row(Some("yes"), None, Some("2026-03-01")).unwrap().unwrap().purposes,
            [Category::Marketing]
        );
        assert_eq!(row(Some("no"), None, Some("2026-03-01")).unwrap().unwrap().says, Says::Stop);
        for (given, purpose, at, expected) in [
            (None, None, None, Ok(None)),
            (Some(""), Some("marketing"), Some("2026-03-01"), Ok(None)),
            (None, Some(""), Some("2026-03-01"), Ok(None)),
            (Some("no"), None, None, Ok(None)),
            (Some("perhaps"), None, Some("2026-03-01"), Err(Reason::UnclearConsent)),
            (Some("yes"), Some("fun"), Some("2026-03-01"), Err(Reason::UnknownPurpose)),
            (Some("yes"), Some("marketing"), None, Err(Reason::NoConsentTime)),
            (Some("yes"), Some("marketing"), Some("03/04/2026"), Err(Reason::UnclearConsentTime)),
            (Some("yes"), Some("marketing"), Some("2027-01-01"), Err(Reason::FutureConsent)),
        ] {
            assert_eq!(row(given, purpose, at), expected, "{given:?} {purpose:?} {at:?}");
        }
    }

    proptest! {
        #[test]
        fn no_cells_panic(given in "\\PC{0,10}", purpose in "\\PC{0,10}", at in "[0-9T:. /+Z-]{0,25}|\\PC{0,20}") {
            let _ = row(Some(&given), Some(&purpose), Some(&at));
        }
    }
}
