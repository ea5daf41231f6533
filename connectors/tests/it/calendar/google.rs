//! Stand-in for Google Calendar v3 and its token endpoint, and tests of Google's API alone.
//!
//! It checks requests against the reference: the authorization, the bodies' fields, the alphabet
//! and length of ids. A violation is answered with 400 and fails the test.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, Uri};
use heddle_connectors::clock::SystemClock;
use heddle_memory::ManualClock;
use heddle_schemas::ports::calendar::{Busy, Calendar as _, CalendarError};
use heddle_schemas::time::{Timestamp, rfc3339};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::calendar::backend::{Backend as _, CALENDAR, GoogleBackend};
use crate::calendar::{book, booking, busy, minute, time};

/// Scripted deviation of the stand-in for one call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Does {
    /// This status and reason, and nothing else; with `Retry-After`.
    Answers(u16, &'static str, Option<&'static str>),
    /// It, and then cuts the answer.
    ItAndBreaksOff,
    /// It, and never answers.
    ItAndHangs,
    /// It never answers.
    Hangs,
}

/// An event, as Google keeps it.
#[derive(Debug)]
struct Kept {
    at: Busy,
    cancelled: bool,
    whole_days: bool,
}

#[derive(Debug, Default)]
struct Content {
    tokens: BTreeSet<String>,
    issued: usize,
    revoked: bool,
    others: Vec<Busy>,
    events: BTreeMap<String, Kept>,
    script: VecDeque<(&'static str, Does)>,
    calls: Vec<String>,
}

#[derive(Debug, Default)]
pub(crate) struct StandIn(Mutex<Content>);

type Answer = (u16, Value);

fn error(status: u16, reason: &str) -> Answer {
    // Messages of the real ones may repeat what was sent, too.
    let message = "Ann Example, Phone +49 151 12345678, secret-1, refresh-1";
    let errors = json!([{ "domain": "global", "reason": reason, "message": message }]);
    (status, json!({ "error": { "errors": errors, "code": status, "message": message } }))
}

#[derive(Deserialize)]
struct At(#[serde(with = "rfc3339")] Timestamp);

fn moment(value: &Value) -> Option<Timestamp> {
    At::deserialize(value).ok().map(|at| at.0)
}

fn fields(value: &Value) -> Vec<&str> {
    value.as_object().map(|object| object.keys().map(String::as_str).collect()).unwrap_or_default()
}

impl Content {
    fn token(&mut self, headers: &HeaderMap, body: &[u8]) -> Answer {
        if headers.get("content-type").is_none_or(|kind| kind != "application/x-www-form-urlencoded") {
            return (400, json!({ "error": "invalid_request" }));
        }
        let form = std::str::from_utf8(body).unwrap();
        let form: BTreeMap<_, _> = form.split('&').filter_map(|pair| pair.split_once('=')).collect();
        if form.get("grant_type") != Some(&"refresh_token") {
            return (400, json!({ "error": "unsupported_grant_type" }));
        }
        if (form.get("client_id"), form.get("client_secret")) != (Some(&"client-1"), Some(&"secret-1")) {
            return (401, json!({ "error": "invalid_client", "error_description": "Unauthorized secret-1" }));
        }
        if self.revoked || form.get("refresh_token") != Some(&"refresh-1") {
            let says = "Token refresh-1 has been expired or revoked.";
            return (400, json!({ "error": "invalid_grant", "error_description": says }));
        }
        self.issued += 1;
        let token = format!("ya29.{}", self.issued);
        self.tokens.insert(token.clone());
        (200, json!({ "access_token": token, "expires_in": 3_599, "scope": "s", "token_type": "Bearer" }))
    }

    fn free_busy(&self, body: &Value) -> Answer {
        let (Some(from), Some(to)) = (moment(&body["timeMin"]), moment(&body["timeMax"])) else {
            return error(400, "badRequest");
        };
        if fields(body) != ["items", "timeMax", "timeMin"] || from >= to {
            return error(400, "timeRangeEmpty");
        }
        let Some(id) = body["items"]
            .as_array()
            .filter(|items| items.len() == 1)
            .and_then(|items| items[0]["id"].as_str())
        else {
            return error(400, "badRequest");
        };
        let calendar = if id == CALENDAR {
            let ours = self.events.values().filter(|kept| !kept.cancelled).map(|kept| kept.at);
            let all = self.others.iter().copied().chain(ours).filter(|one| one.from < to && from < one.to);
            let busy: Vec<_> =
                all.map(|one| json!({ "start": one.from.to_string(), "end": one.to.to_string() })).collect();
            json!({ "busy": busy })
        } else {
            json!({ "errors": [{ "domain": "global", "reason": "notFound" }], "busy": [] })
        };
        let (from, to) = (from.to_string(), to.to_string());
        (
            200,
            json!({ "kind": "calendar#freeBusy", "timeMin": from, "timeMax": to, "calendars": { id: calendar } }),
        )
    }

    fn insert(&mut self, body: &Value) -> Answer {
        let id = body["id"].as_str().unwrap_or_default();
        let base32hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'v').contains(&byte);
        let times = [&body["start"], &body["end"]].map(|time| moment(&time["dateTime"]));
        let [Some(from), Some(to)] = times else { return error(400, "required") };
        let known = ["description", "end", "id", "start", "summary"];
        if !(5..=1_024).contains(&id.len())
            || !id.bytes().all(base32hex)
            || fields(body) != known
            || from > to
        {
            return error(400, "invalid");
        }
        if self.events.contains_key(id) {
            return error(409, "duplicate");
        }
        self.events.insert(id.into(), Kept { at: Busy { from, to }, cancelled: false, whole_days: false });
        self.get(id)
    }

    fn get(&self, id: &str) -> Answer {
        let Some(kept) = self.events.get(id) else { return error(404, "notFound") };
        if kept.cancelled {
            return (200, json!({ "kind": "calendar#event", "id": id, "status": "cancelled" }));
        }
        // Times come in the calendar's own zone.
        let at = |time: Timestamp| match kept.whole_days {
            true => json!({ "date": time.to_string()[..10] }),
            false => {
                let shown = time.after(Duration::from_secs(3_600)).to_string().replace('Z', "+01:00");
                json!({ "dateTime": shown, "timeZone": "Europe/Berlin" })
            }
        };
        (
            200,
            json!({ "kind": "calendar#event", "id": id, "status": "confirmed", "start": at(kept.at.from),
            "end": at(kept.at.to), "summary": "Ann Example", "htmlLink": "https://www.google.com/calendar/event" }),
        )
    }

    fn answer(&mut self, call: &str, headers: &HeaderMap, tail: &str, body: &[u8]) -> Answer {
        if call == "POST token" {
            return self.token(headers, body);
        }
        let bearer =
            headers.get("authorization").and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        if !bearer.is_some_and(|token| self.tokens.contains(token)) {
            return error(401, "authError");
        }
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        match call {
            "POST freeBusy" => self.free_busy(&body),
            "POST events" => self.insert(&body),
            "GET event" => self.get(tail),
            _ => error(404, "notFound"),
        }
    }
}

async fn called(
    State(this): State<Arc<StandIn>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    // The id's `#` and `/` have to arrive as one part of the path.
    const EVENTS: &str = "/calendar/v3/calendars/clinic%231%2Fa@group.calendar.google.com/events";
    let (kind, tail) = match uri.path() {
        "/token" => ("token", ""),
        "/calendar/v3/freeBusy" => ("freeBusy", ""),
        EVENTS => ("events", ""),
        other => match other.strip_prefix(EVENTS).and_then(|rest| rest.strip_prefix('/')) {
            Some(id) => ("event", id),
            None => ("elsewhere", other),
        },
    };
    let call = format!("{method} {kind}");
    let (answer, does) = {
        let mut content = this.lock();
        content.calls.push(call.clone());
        let does =
            content.script.iter().position(|(at, _)| *at == call).and_then(|at| content.script.remove(at));
        let does = does.map(|(_, does)| does);
        let answer = match does {
            Some(Does::Answers(status, reason, _)) => error(status, reason),
            Some(Does::Hangs) => (200, Value::Null),
            _ => content.answer(&call, &headers, tail, &body),
        };
        (answer, does)
    };
    let (status, body) = (answer.0, answer.1.to_string());
    let response = Response::builder().status(status).header("content-type", "application/json");
    match does {
        Some(Does::Hangs | Does::ItAndHangs) => std::future::pending().await,
        Some(Does::ItAndBreaksOff) => {
            let half = Bytes::from(body[..body.len() / 2].to_owned());
            let chunks = [Ok(half), Err(std::io::Error::other("broken"))];
            response.body(Body::from_stream(futures::stream::iter(chunks))).unwrap()
        }
        Some(Does::Answers(_, _, Some(wait))) => {
            response.header("retry-after", wait).body(body.into()).unwrap()
        }
        _ => response.body(body.into()).unwrap(),
    }
}

impl StandIn {
    pub(crate) async fn start() -> (Arc<Self>, String) {
        let this = Arc::new(Self::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(called).with_state(this.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (this, base)
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap()
    }

    pub(crate) fn script(&self, call: &'static str, does: Does) {
        self.lock().script.push_back((call, does));
    }

    pub(crate) fn occupy(&self, at: Busy) {
        self.lock().others.push(at);
    }

    /// The owner moves an event or cancels it.
    pub(crate) fn change(&self, id: &str, to: Option<Busy>) {
        if let Some(kept) = self.lock().events.get_mut(id) {
            kept.cancelled = to.is_none();
            kept.at = to.unwrap_or(kept.at);
        }
    }

    pub(crate) fn held(&self) -> Vec<(String, Busy)> {
        let content = self.lock();
        let there = content.events.iter().filter(|(_, kept)| !kept.cancelled);
        there.map(|(id, kept)| (id.clone(), kept.at)).collect()
    }

    /// Returns the calls since the last call of this function.
    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().calls)
    }
}

async fn backend() -> GoogleBackend {
    GoogleBackend::start(Arc::new(SystemClock)).await
}

#[tokio::test]
async fn a_booking_looks_once_more_and_inserts_and_again_it_only_looks() {
    let backend = backend().await;
    book(&backend, &booking(1, 0, 30)).await.unwrap();
    assert_eq!(backend.google.calls(), ["POST token", "POST freeBusy", "POST events"]);
    book(&backend, &booking(1, 0, 30)).await.unwrap();
    assert_eq!(backend.google.calls(), ["POST freeBusy", "GET event"]);
    let seen = busy(&backend, 60, 120).await;
    backend.occupy(time(60, 90));
    assert_eq!((seen, book(&backend, &booking(2, 60, 90)).await), (vec![], Err(CalendarError::Taken)));
}

#[tokio::test]
async fn a_token_is_fetched_once_for_all_and_again_before_it_expires() {
    let clock = Arc::new(ManualClock::starting_at(minute(0)));
    let backend = GoogleBackend::start(clock.clone()).await;
    let tokens = || backend.google.calls().iter().filter(|call| *call == "POST token").count();
    futures::future::join_all((0..16).map(|_| busy(&backend, 0, 60))).await;
    assert_eq!(tokens(), 1);
    // It is good for 3,599 s and not used in its last minute.
    clock.advance(Duration::from_secs(3_538));
    busy(&backend, 0, 60).await;
    assert_eq!(tokens(), 0);
    clock.advance(Duration::from_secs(1));
    futures::future::join_all((0..16).map(|_| busy(&backend, 0, 60))).await;
    assert_eq!(tokens(), 1);
    // Another tenant's key is another token.
    let mut access = backend.access();
    access.refresh_token = heddle_schemas::sealed::Secret::new("refresh-2");
    let other = backend.calendar.busy(&access, minute(0), minute(1)).await;
    assert!(matches!(other, Err(CalendarError::Refused { .. })), "{other:?}");
}

#[tokio::test]
async fn a_token_that_is_refused_is_renewed_once_for_all_and_the_call_repeated() {
    let backend = backend().await;
    busy(&backend, 0, 60).await;
    backend.google.calls();
    backend.google.lock().tokens.clear();
    let all = futures::future::join_all((1..9).map(|id| {
        let booking = booking(id, i64::from(id) * 30, i64::from(id) * 30 + 30);
        let backend = &backend;
        async move { book(backend, &booking).await.map(drop) }
    }));
    assert!(all.await.iter().all(Result::is_ok));
    let tokens = backend.google.calls().iter().filter(|call| *call == "POST token").count();
    assert_eq!((tokens, backend.held().len()), (1, 8));
}

#[tokio::test]
async fn a_new_token_that_is_refused_as_well_is_the_operators_business() {
    let backend = backend().await;
    for _ in 0..2 {
        backend.google.script("POST freeBusy", Does::Answers(401, "authError", None));
    }
    let error = book(&backend, &booking(1, 0, 30)).await.unwrap_err();
    assert!(
        matches!(&error, CalendarError::Refused { detail } if detail.contains("[calendar]")),
        "{error:?}"
    );
    assert_eq!(backend.google.calls(), ["POST token", "POST freeBusy", "POST token", "POST freeBusy"]);
}

#[tokio::test]
async fn a_revoked_grant_and_a_wrong_client_name_the_remedy() {
    let backend = backend().await;
    backend.google.lock().revoked = true;
    let error = book(&backend, &booking(1, 0, 30)).await.unwrap_err();
    let CalendarError::Refused { detail } = &error else { panic!("{error:?}") };
    assert!(
        detail.starts_with("400, invalid_grant: ") && detail.contains("calendar.refresh_token"),
        "{detail}"
    );
    let mut access = backend.access();
    access.client_id = "client-2".into();
    let error = backend.calendar.busy(&access, minute(0), minute(60)).await.unwrap_err();
    assert!(
        matches!(&error, CalendarError::Refused { detail } if detail.contains("calendar.client_id")),
        "{error:?}"
    );
    // The new grant works at once.
    backend.google.lock().revoked = false;
    book(&backend, &booking(1, 0, 30)).await.unwrap();
}

#[tokio::test]
async fn limits_are_reported_with_their_time_and_nothing_was_done() {
    let backend = backend().await;
    for (call, status, reason, wait) in [
        ("POST freeBusy", 403, "userRateLimitExceeded", None),
        ("POST events", 403, "rateLimitExceeded", Some("7")),
        ("POST events", 429, "rateLimitExceeded", Some("7")),
        ("POST token", 429, "rateLimitExceeded", Some("7")),
        ("POST freeBusy", 500, "backendError", None),
        ("POST token", 503, "backendError", Some("7")),
    ] {
        backend.google.lock().tokens.clear();
        backend.google.script(call, Does::Answers(status, reason, wait));
        let error = book(&backend, &booking(1, 0, 30)).await.unwrap_err();
        let CalendarError::Unavailable { retry_after, .. } = error else {
            panic!("{call} {status}: {error:?}")
        };
        assert_eq!(retry_after, wait.map(|_| Duration::from_secs(7)), "{call} {status}");
        assert!(backend.held().is_empty());
    }
    book(&backend, &booking(1, 0, 30)).await.unwrap();
}

#[tokio::test]
async fn an_insert_without_a_readable_answer_may_have_been_done_and_is_found_again() {
    for (does, done) in [
        (Does::Hangs, false),
        (Does::ItAndHangs, true),
        (Does::ItAndBreaksOff, true),
        (Does::Answers(500, "backendError", Some("7")), false),
    ] {
        let backend = backend().await;
        backend.google.script("POST events", does);
        let error = book(&backend, &booking(1, 0, 30)).await.unwrap_err();
        assert!(matches!(error, CalendarError::Unknown { .. }), "{does:?}: {error:?}");
        assert_eq!(backend.held().len(), usize::from(done), "{does:?}");
        book(&backend, &booking(1, 0, 30)).await.unwrap();
        assert_eq!(backend.held().len(), 1, "{does:?}");
    }
}

#[tokio::test]
async fn before_the_insert_no_trouble_leaves_a_doubt() {
    for call in ["POST token", "POST freeBusy"] {
        for does in [Does::Hangs, Does::ItAndHangs, Does::ItAndBreaksOff] {
            let backend = backend().await;
            backend.google.script(call, does);
            let error = book(&backend, &booking(1, 0, 30)).await.unwrap_err();
            assert!(matches!(error, CalendarError::Unavailable { .. }), "{call} {does:?}: {error:?}");
            assert!(backend.held().is_empty());
        }
    }
    let backend = backend().await;
    let mut access = backend.access();
    // The port for discarding (RFC 863) has no listener.
    access.api_base = "http://127.0.0.1:9".into();
    let error = backend.calendar.book(&access, &booking(1, 0, 30)).await.unwrap_err();
    assert!(matches!(error, CalendarError::Unavailable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_taken_id_without_an_event_is_an_unknown_outcome() {
    let backend = backend().await;
    backend.google.script("POST events", Does::Answers(409, "duplicate", None));
    let error = book(&backend, &booking(1, 0, 30)).await.unwrap_err();
    assert!(matches!(error, CalendarError::Unknown { .. }), "{error:?}");
    backend.google.script("POST events", Does::Answers(409, "duplicate", None));
    backend.google.script("GET event", Does::Answers(503, "backendError", None));
    let error = book(&backend, &booking(1, 0, 30)).await.unwrap_err();
    assert!(matches!(error, CalendarError::Unknown { .. }), "{error:?}");
}

#[tokio::test]
async fn an_event_that_lasts_whole_days_now_was_moved() {
    let backend = backend().await;
    let first = booking(1, 0, 30);
    book(&backend, &first).await.unwrap();
    backend.google.lock().events.get_mut(&first.id.to_string()).unwrap().whole_days = true;
    assert_eq!(book(&backend, &first).await, Err(CalendarError::Moved { to: None }));
}

#[tokio::test]
async fn a_deleted_event_that_no_longer_exists_was_cancelled() {
    let backend = backend().await;
    backend.occupy(time(0, 30));
    backend.google.script("GET event", Does::Answers(410, "deleted", None));
    assert_eq!(book(&backend, &booking(1, 0, 30)).await, Err(CalendarError::Cancelled));
}

#[tokio::test]
async fn a_missing_or_foreign_calendar_names_the_remedy() {
    let backend = backend().await;
    let mut access = backend.access();
    access.calendar = "other@example.com".into();
    let error = backend.calendar.busy(&access, minute(0), minute(60)).await.unwrap_err();
    assert!(
        matches!(&error, CalendarError::Refused { detail } if detail.contains("calendar.calendar")),
        "{error:?}"
    );
    backend.google.script("POST events", Does::Answers(403, "forbidden", None));
    let error = book(&backend, &booking(1, 0, 30)).await.unwrap_err();
    assert!(
        matches!(&error, CalendarError::Refused { detail } if detail.contains("calendar.events")),
        "{error:?}"
    );
    access.api_base = "no address".into();
    let error = backend.calendar.busy(&access, minute(0), minute(60)).await.unwrap_err();
    assert!(matches!(&error, CalendarError::Refused { detail } if detail.contains("api_base")), "{error:?}");
}

#[tokio::test]
async fn no_error_reveals_a_secret_or_a_customer() {
    let mut errors = Vec::new();
    for call in ["POST token", "POST freeBusy", "POST events", "GET event"] {
        for status in [400, 401, 403, 404, 409, 418, 429, 500] {
            let backend = backend().await;
            if call == "GET event" {
                backend.occupy(time(0, 30));
            }
            for _ in 0..2 {
                backend.google.script(call, Does::Answers(status, "someReason", None));
            }
            let result = book(&backend, &booking(1, 0, 30)).await;
            errors.extend(result.map_err(|error| format!("{error} {error:?} {:?}", backend.calendar)).err());
        }
        let backend = backend().await;
        backend.google.script(call, Does::Hangs);
        errors.extend(
            book(&backend, &booking(1, 0, 30)).await.map_err(|error| format!("{error} {error:?}")).err(),
        );
    }
    let backend = backend().await;
    backend.google.lock().revoked = true;
    errors.push(format!("{:?}", book(&backend, &booking(1, 0, 30)).await));
    assert!(errors.len() > 30, "{}", errors.len());
    for text in errors {
        for secret in ["Ann", "151", "secret-1", "refresh-1", "ya29", "client-1", "clinic#1"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}
