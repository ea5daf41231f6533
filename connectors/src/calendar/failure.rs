//! Meaning of the errors of Google's APIs, and the reaction to each.
//!
//! The answers are those of <https://developers.google.com/workspace/calendar/api/guides/errors>: an `error` with a
//! `code` and a list of `errors`, each with a `reason`. Only the status and such a reason of an answer are
//! repeated: the rest may hold what was sent.

use std::time::Duration;

use heddle_schemas::ports::calendar::CalendarError;
use reqwest::StatusCode;
use serde_json::Value;

/// Kind of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// A call that changes nothing.
    Reads,
    /// A call that may have been done, also if the answer was lost.
    Inserts,
}

impl Call {
    /// Returns the error of a call with an unknown outcome.
    pub(super) fn lost(self, detail: impl Into<String>) -> CalendarError {
        match self {
            Self::Reads => unavailable(detail, None),
            Self::Inserts => CalendarError::Unknown { detail: detail.into() },
        }
    }

    /// No answer came. Only a connection that never was proves that the request did not leave.
    pub(super) fn not_answered(self, error: &reqwest::Error) -> CalendarError {
        match () {
            () if error.is_builder() => refused("the address of the API is no URL; correct [calendar]"),
            () if error.is_connect() => unavailable("no connection came about", None),
            () if error.is_timeout() => self.lost("no answer came in time"),
            () => self.lost("the connection was lost"),
        }
    }

    /// Returns the meaning of an answer without success. `wait` is its `Retry-After`.
    pub(super) fn refused(self, status: StatusCode, body: &[u8], wait: Option<Duration>) -> CalendarError {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let reasons = reasons(&body);
        let has = |known: &[&str]| reasons.iter().any(|reason| known.contains(reason));
        let detail = described(status, &reasons);
        match status.as_u16() {
            429 => unavailable(detail, wait),
            // Limits of a minute and of a day: reported before anything is done.
            403 if has(&[
                "rateLimitExceeded",
                "userRateLimitExceeded",
                "quotaExceeded",
                "dailyLimitExceeded",
                "RESOURCE_EXHAUSTED",
            ]) =>
            {
                unavailable(detail, wait)
            }
            401 => refused(format!(
                "{detail}: the access token is not accepted; check that client and refresh token in [calendar] are \
                 of the same OAuth client"
            )),
            403 => refused(format!(
                "{detail}: grant the scopes calendar.events and calendar.freebusy, let the account change the \
                 calendar, and enable the Calendar API for the OAuth client"
            )),
            404 => refused(format!(
                "{detail}: there is no such calendar for this account; correct calendar.calendar or share it"
            )),
            408 => self.lost(detail),
            // An answer that the fault is Google's does not say if the call was done; Retry-After is for reads.
            500..=599 => match self {
                Self::Reads => unavailable(detail, wait),
                Self::Inserts => self.lost(detail),
            },
            _ => refused(format!("{detail}: the API does not accept the request")),
        }
    }
}

/// The reasons of an answer, and the status of newer ones.
fn reasons(body: &Value) -> Vec<&str> {
    let listed = body.pointer("/error/errors").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let listed = listed.iter().filter_map(|error| error.get("reason")?.as_str());
    listed.chain(body.pointer("/error/status").and_then(Value::as_str)).filter(|code| is_code(code)).collect()
}

/// Returns a reason such as `rateLimitExceeded` or `invalid_grant`: letters and underscores, no personal data.
pub(super) fn is_code(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The status, and the first of the codes.
pub(super) fn described(status: StatusCode, codes: &[&str]) -> String {
    format!("{}{}", status.as_u16(), codes.first().map(|code| format!(", {code}")).unwrap_or_default())
}

pub(super) fn refused(detail: impl Into<String>) -> CalendarError {
    CalendarError::Refused { detail: detail.into() }
}

pub(super) fn unavailable(detail: impl Into<String>, retry_after: Option<Duration>) -> CalendarError {
    CalendarError::Unavailable { detail: detail.into(), retry_after }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(call: Call, status: u16, reason: &str) -> CalendarError {
        let body = format!(
            r#"{{"error":{{"errors":[{{"domain":"global","reason":"{reason}","message":"Ann, 3 pm"}}],"code":{status}}}}}"#
        );
        call.refused(StatusCode::from_u16(status).unwrap(), body.as_bytes(), Some(Duration::from_secs(7)))
    }

    #[test]
    fn limits_and_faults_of_googles_pass_and_those_of_a_request_do_not() {
        use CalendarError::{Refused, Unavailable, Unknown};
        for call in [Call::Reads, Call::Inserts] {
            for (status, reason) in [
                (403, "rateLimitExceeded"),
                (403, "userRateLimitExceeded"),
                (403, "quotaExceeded"),
                (429, "rateLimitExceeded"),
            ] {
                let wait = Some(Duration::from_secs(7));
                assert_eq!(error_of(call, status, reason), unavailable(format!("{status}, {reason}"), wait));
            }
            for (status, reason) in
                [(400, "timeRangeEmpty"), (401, "authError"), (403, "forbidden"), (404, "notFound")]
            {
                let error = error_of(call, status, reason);
                assert!(matches!(&error, Refused { detail } if detail.contains(reason)), "{error:?}");
                assert!(!error.to_string().contains("Ann"));
            }
        }
        assert!(matches!(error_of(Call::Reads, 500, "backendError"), Unavailable { .. }));
        assert!(matches!(error_of(Call::Inserts, 503, "backendError"), Unknown { .. }));
    }

    #[test]
    fn of_a_body_that_is_no_error_only_the_status_is_repeated() {
        let status = StatusCode::FORBIDDEN;
        for body in [&b""[..], b"<html>Ann</html>", br#"{"error":{"errors":[{"reason":"for Ann at 3 pm"}]}}"#]
        {
            let error = Call::Inserts.refused(status, body, None).to_string();
            assert!(error.starts_with("the calendar refuses: 403: ") && !error.contains("Ann"), "{error}");
        }
    }
}
