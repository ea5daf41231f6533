//! Google Calendar v3, over HTTP.
//!
//! An appointment is an event whose id is the booking's, so inserting it again is answered with 409 and the existing
//! event is read. Before it is inserted, `freeBusy` is queried once more; if that shows the time as
//! taken, it may be by this very event, which is then read. So a booking costs two calls, and finding it
//! booked two or three.
//!
//! Google does not guarantee two things. It has no conditional insert: a write into the calendar between the
//! query and the insert is not noticed. Appointments of one process therefore go into a calendar one after the
//! other; those of other nodes, and of people, may still come in between. And it does not guarantee that an id is found
//! taken when both inserts come at nearly the same time (events resource, `id`); the `freeBusy` query before catches
//! those that are visible.
//!
//! Sources, below <https://developers.google.com/workspace/calendar/api/v3/reference>: `freebusy/query` (request,
//! `calendars.(key).busy` and `.errors`, whose reasons include `notFound` and `internalError`), `events/insert`,
//! `events/get`, and `events` (`id`: base32hex, 5 to 1,024 characters; `status`: `get` also gives cancelled events,
//! of which only the id is sure to be there). Errors: `../guides/errors`; 409 with the reason `duplicate` is an id
//! that exists.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use heddle_schemas::ports::calendar::{Booked, Booking, Busy, Calendar, CalendarAccess, CalendarError};
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::time::{Timestamp, rfc3339};
use reqwest::header::{AUTHORIZATION, HeaderMap};
use reqwest::{Client, RequestBuilder, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::failure::{Call, refused, unavailable};
use super::lines::Lines;
use super::token::Tokens;
use crate::egress::Egress;
use crate::http;

/// Maximum length of an answer, in bytes. Two months of a hundred times a day, at 70 bytes each, are 420,000.
const MAX_ANSWER: usize = 1 << 20;

/// Configuration of calls to Google.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Timeout of a connection. Default 5 s.
    pub connect_timeout: Duration,
    /// Timeout of each call, and of a booking's wait for earlier ones. A booking is three calls at
    /// most, besides those for access tokens. Default 10 s.
    pub timeout: Duration,
    /// Addresses that may be called. Default: the public internet.
    pub egress: Egress,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(10),
            egress: Egress::default(),
        }
    }
}

/// Error of setting calendars up.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client of Google Calendar cannot be set up")]
pub struct SetupError(#[from] reqwest::Error);

/// Google Calendar. Cheap to share; holds connections and access tokens.
pub struct GoogleCalendar {
    client: Client,
    egress: Egress,
    clock: Arc<dyn Clock>,
    tokens: Tokens,
    /// Queues of bookings, one a calendar.
    bookings: Lines<()>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Query<'a> {
    #[serde(with = "rfc3339")]
    time_min: Timestamp,
    #[serde(with = "rfc3339")]
    time_max: Timestamp,
    items: [Item<'a>; 1],
}

#[derive(Serialize)]
struct Item<'a> {
    id: &'a str,
}

#[derive(Deserialize)]
struct FreeBusy {
    calendars: HashMap<String, OfCalendar>,
}

#[derive(Deserialize)]
struct OfCalendar {
    #[serde(default)]
    busy: Vec<Period>,
    #[serde(default)]
    errors: Vec<Reason>,
}

#[derive(Deserialize)]
struct Period {
    #[serde(with = "rfc3339")]
    start: Timestamp,
    #[serde(with = "rfc3339")]
    end: Timestamp,
}

#[derive(Deserialize)]
struct Reason {
    #[serde(default)]
    reason: String,
}

#[derive(Serialize)]
struct Insert<'a> {
    id: &'a str,
    summary: &'a str,
    description: &'a str,
    start: Moment,
    end: Moment,
}

/// `dateTime`; an event that lasts whole days has `date` instead.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Moment {
    #[serde(with = "rfc3339")]
    date_time: Timestamp,
}

#[derive(Deserialize)]
struct Event {
    id: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    start: Shown,
    #[serde(default)]
    end: Shown,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Shown {
    date_time: Option<At>,
}

#[derive(Clone, Copy, Deserialize)]
struct At(#[serde(with = "rfc3339")] Timestamp);

/// An answer, of any status.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Result<Vec<u8>, &'static str>,
}

impl GoogleCalendar {
    /// # Errors
    /// If the HTTP client cannot be built, such as without TLS root certificates.
    pub fn new(options: &Options, clock: Arc<dyn Clock>) -> Result<Self, SetupError> {
        let egress = options.egress.clone();
        let client =
            egress.client().connect_timeout(options.connect_timeout).timeout(options.timeout).build()?;
        Ok(Self {
            client,
            egress,
            clock,
            tokens: Tokens::new(options.timeout),
            bookings: Lines::new(options.timeout),
        })
    }

    /// Makes a call, and once more with a new access token where the one that is kept is refused: that call was
    /// not done.
    async fn call(
        &self,
        access: &CalendarAccess,
        call: Call,
        request: impl Fn(&Client) -> RequestBuilder + Send + Sync,
    ) -> Result<Answer, CalendarError> {
        for (at, address) in [("api_base", &access.api_base), ("token_base", &access.token_base)] {
            self.egress.check(address).map_err(|why| refused(format!("calendar.{at}: {why}")))?;
        }
        let mut spent = None;
        loop {
            let bearer = self.tokens.bearer(&self.client, &*self.clock, access, spent.as_ref()).await?;
            let sent = request(&self.client).header(AUTHORIZATION, bearer.clone()).send().await;
            let response = sent.map_err(|error| call.not_answered(&error))?;
            if response.status() == StatusCode::UNAUTHORIZED && spent.is_none() {
                spent = Some(bearer);
                continue;
            }
            let (status, headers) = (response.status(), response.headers().clone());
            let body = http::read(response, MAX_ANSWER).await;
            return Ok(Answer { status, headers, body });
        }
    }

    /// Reads an answer that should be a success.
    fn read<T: DeserializeOwned>(&self, call: Call, answer: Answer) -> Result<T, CalendarError> {
        if !answer.status.is_success() {
            // The status has come, so the answer is known even where its body broke off.
            let wait = http::retry_after(&answer.headers, self.clock.now());
            return Err(call.refused(answer.status, &answer.body.unwrap_or_default(), wait));
        }
        let body = answer.body.map_err(|detail| call.lost(detail))?;
        serde_json::from_slice(&body).map_err(|_| call.lost("the answer cannot be read"))
    }

    async fn insert(&self, access: &CalendarAccess, booking: &Booking) -> Result<Booked, CalendarError> {
        let url = url(access, &["calendars", &access.calendar, "events"])?;
        let id = booking.id.to_string();
        let event = Insert {
            id: &id,
            summary: &booking.summary,
            description: &booking.description,
            start: Moment { date_time: booking.from },
            end: Moment { date_time: booking.to },
        };
        let answer = self.call(access, Call::Inserts, |client| client.post(url.clone()).json(&event)).await?;
        if answer.status == StatusCode::CONFLICT {
            return match self.find(access, booking).await {
                Ok(Some(booked)) => Ok(booked),
                Ok(None) => Err(Call::Inserts.lost("the id is taken, and no event has it")),
                // The event is known to exist, so the outcome is not known to be nothing.
                Err(CalendarError::Unavailable { detail, .. }) => Err(Call::Inserts.lost(detail)),
                Err(error) => Err(error),
            };
        }
        let event: Event = self.read(Call::Inserts, answer)?;
        if event.id != id {
            return Err(Call::Inserts.lost("the answer is about another event"));
        }
        Ok(Booked { event: id, from: booking.from, to: booking.to })
    }

    /// Returns the event booked under this id; `None` if there is none.
    async fn find(
        &self,
        access: &CalendarAccess,
        booking: &Booking,
    ) -> Result<Option<Booked>, CalendarError> {
        let id = booking.id.to_string();
        let url = url(access, &["calendars", &access.calendar, "events", &id])?;
        let answer = self.call(access, Call::Reads, |client| client.get(url.clone())).await?;
        match answer.status {
            StatusCode::NOT_FOUND => return Ok(None),
            StatusCode::GONE => return Err(CalendarError::Cancelled),
            _ => {}
        }
        let event: Event = self.read(Call::Reads, answer)?;
        if event.id != id {
            return Err(unavailable("the answer is about another event", None));
        }
        if event.status == "cancelled" {
            return Err(CalendarError::Cancelled);
        }
        let now =
            event.start.date_time.zip(event.end.date_time).map(|(from, to)| Busy { from: from.0, to: to.0 });
        let wanted = Busy { from: seconds(booking.from), to: seconds(booking.to) };
        match now {
            Some(Busy { from, to }) if seconds(from) == wanted.from && seconds(to) == wanted.to => {
                Ok(Some(Booked { event: id, from: booking.from, to: booking.to }))
            }
            to => Err(CalendarError::Moved { to }),
        }
    }
}

/// Fractions of a second are left out of comparisons: the API does not state if it keeps them.
fn seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_secs(at.as_micros().div_euclid(1_000_000))
}

/// The API's address with these parts behind it, each made safe: an id may hold `@`, `#` or `/`.
fn url(access: &CalendarAccess, parts: &[&str]) -> Result<Url, CalendarError> {
    let unusable = || refused("calendar.api_base is no URL of an API; correct it");
    let mut url = Url::parse(&access.api_base).map_err(|_| unusable())?;
    url.path_segments_mut().map_err(|()| unusable())?.pop_if_empty().extend(parts);
    Ok(url)
}

#[async_trait]
impl Calendar for GoogleCalendar {
    async fn busy(
        &self,
        access: &CalendarAccess,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<Busy>, CalendarError> {
        if from >= to {
            return Ok(Vec::new());
        }
        let url = url(access, &["freeBusy"])?;
        let query = Query { time_min: from, time_max: to, items: [Item { id: &access.calendar }] };
        let answer = self.call(access, Call::Reads, |client| client.post(url.clone()).json(&query)).await?;
        let FreeBusy { calendars } = self.read(Call::Reads, answer)?;
        // One calendar was requested, so one is in the answer, under whichever of its names.
        let mut calendars = calendars.into_values();
        let (Some(calendar), None) = (calendars.next(), calendars.next()) else {
            return Err(unavailable("the answer is not about one calendar", None));
        };
        match calendar.errors.first().map(|error| &*error.reason) {
            None => {}
            Some("notFound") => {
                return Err(refused(
                    "notFound: there is no such calendar for this account; correct calendar.calendar or share it",
                ));
            }
            // The API's own trouble, or a reason that is not known.
            Some(_) => return Err(unavailable("the calendar could not be read", None)),
        }
        let mut busy: Vec<_> =
            calendar.busy.into_iter().map(|Period { start, end }| Busy { from: start, to: end }).collect();
        busy.sort_unstable();
        Ok(busy)
    }

    async fn book(&self, access: &CalendarAccess, booking: &Booking) -> Result<Booked, CalendarError> {
        if booking.from >= booking.to {
            return Err(refused("an appointment ends after it begins; correct its times"));
        }
        let calendar = [&*access.api_base, &*access.calendar, access.refresh_token.expose()];
        let _turn = self.bookings.turn(&calendar).await?;
        if self.busy(access, booking.from, booking.to).await?.is_empty() {
            return self.insert(access, booking).await;
        }
        match self.find(access, booking).await? {
            Some(booked) => Ok(booked),
            None => Err(CalendarError::Taken),
        }
    }
}

impl std::fmt::Debug for GoogleCalendar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GoogleCalendar").finish_non_exhaustive()
    }
}
