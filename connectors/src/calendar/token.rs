//! Access tokens of Google's for refresh tokens: kept until shortly before they expire, and fetched once for all
//! who wait.
//!
//! The call and its answers are those of
//! <https://developers.google.com/identity/protocols/oauth2/web-server#offline> and RFC 6749, 5 and 6: a form with
//! `grant_type=refresh_token`; `access_token` and `expires_in` come back, or a status 400 or 401 with an `error`.

use std::time::Duration;

use heddle_schemas::ports::calendar::{CalendarAccess, CalendarError};
use heddle_schemas::ports::clock::Clock;
use reqwest::header::HeaderValue;
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use super::failure::{Call, described, is_code, refused, unavailable};
use super::lines::Lines;
use crate::http;

/// Time before its end at which a token is no longer used: a call may be in progress that long.
const MARGIN: Duration = Duration::from_secs(60);
/// Lifetime of a token whose answer does not state one; RFC 6749, 5.1 leaves that open.
const UNSTATED: Duration = Duration::from_secs(300);
/// Maximum length of an answer, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// A token, and the moment on [`Clock::elapsed`] from which it is not used.
#[derive(Clone)]
pub(super) struct Token {
    bearer: HeaderValue,
    until: Duration,
}

/// The tokens that are known, by key. A key's turn is held while its token is fetched.
pub(super) struct Tokens(Lines<Option<Token>>);

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: Option<u64>,
}

impl Tokens {
    /// Waits at most this long for a token that another call fetches.
    pub(super) fn new(patience: Duration) -> Self {
        Self(Lines::new(patience))
    }

    /// The `Authorization` for a calendar; not the one that is `spent`, which was refused.
    pub(super) async fn bearer(
        &self,
        client: &Client,
        clock: &dyn Clock,
        access: &CalendarAccess,
        spent: Option<&HeaderValue>,
    ) -> Result<HeaderValue, CalendarError> {
        let key = [
            &*access.token_base,
            &*access.client_id,
            access.client_secret.expose(),
            access.refresh_token.expose(),
        ];
        let mut held = self.0.turn(&key).await?;
        if let Some(token) = &*held
            && clock.elapsed() < token.until
            && spent != Some(&token.bearer)
        {
            return Ok(token.bearer.clone());
        }
        // Whatever the outcome of the call, the old one is not used again.
        *held = None;
        let token = fetch(client, clock, access).await?;
        Ok(held.insert(token).bearer.clone())
    }
}

async fn fetch(client: &Client, clock: &dyn Clock, access: &CalendarAccess) -> Result<Token, CalendarError> {
    let form = [
        ("grant_type", "refresh_token"),
        ("client_id", &*access.client_id),
        ("client_secret", access.client_secret.expose()),
        ("refresh_token", access.refresh_token.expose()),
    ];
    // Counted from before the call, it never seems good for longer than it is.
    let requested = clock.elapsed();
    let sent = client.post(&access.token_base).form(&form).send().await;
    // Fetching a token twice does no harm: to a calendar this only reads.
    let response = sent.map_err(|error| Call::Reads.not_answered(&error))?;
    let status = response.status();
    let wait = http::retry_after(response.headers(), clock.now());
    let body = http::read(response, MAX_ANSWER).await;
    if !status.is_success() {
        return Err(not_granted(status, &body.unwrap_or_default(), wait));
    }
    let body = body.map_err(|detail| unavailable(detail, None))?;
    let granted: Granted = serde_json::from_slice(&body)
        .map_err(|_| unavailable("the answer about the access token cannot be read", None))?;
    let mut bearer = HeaderValue::from_str(&format!("Bearer {}", granted.access_token)).map_err(|_| {
        refused("the access token has characters that no header takes; check calendar.token_base")
    })?;
    bearer.set_sensitive(true);
    let good_for = granted.expires_in.map_or(UNSTATED, Duration::from_secs);
    Ok(Token { bearer, until: requested.saturating_add(good_for.saturating_sub(MARGIN)) })
}

/// Returns the error of a refused token; the codes are those of RFC 6749, 5.2.
fn not_granted(status: StatusCode, body: &[u8], wait: Option<Duration>) -> CalendarError {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let code = body.get("error").and_then(Value::as_str).filter(|code| is_code(code));
    let detail = described(status, code.as_slice());
    match (status.as_u16(), code) {
        // Google lets a refresh token expire when it was revoked, not used for six months, or given by an app in
        // testing, then after seven days: https://developers.google.com/identity/protocols/oauth2#expiration
        (_, Some("invalid_grant")) => refused(format!(
            "{detail}: the refresh token was revoked or has expired; let the calendar's owner grant access again \
             and apply the tenant with the new calendar.refresh_token (an OAuth app in testing loses it after \
             seven days)"
        )),
        (_, Some("invalid_client" | "unauthorized_client")) => refused(format!(
            "{detail}: the OAuth client is not known; correct calendar.client_id and calendar.client_secret"
        )),
        (408 | 429 | 500..=599, _) => unavailable(detail, wait),
        _ => refused(format!(
            "{detail}: no access token is given; check calendar.token_base and the OAuth client"
        )),
    }
}
