//! Parts that every call to an external HTTP API needs: a client without redirects, bounded answers, and the time
//! of a retry.

use std::time::{Duration, UNIX_EPOCH};

use heddle_schemas::time::Timestamp;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Response};

/// Returns a client that calls the configured address only: it follows no redirect and uses no proxy from the
/// environment, since its requests carry secrets.
pub(crate) fn client() -> ClientBuilder {
    Client::builder()
        .redirect(Policy::none())
        .no_proxy()
        .tcp_nodelay(true)
        .user_agent(concat!("heddle/", env!("CARGO_PKG_VERSION")))
}

/// Reads an answer of at most `most` bytes.
pub(crate) async fn read(mut response: Response, most: usize) -> Result<Vec<u8>, &'static str> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|_| "the answer broke off")? {
        if body.len() + chunk.len() > most {
            return Err("the answer is longer than any of this API");
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Longest wait that a provider is given by `Retry-After`: what it asks for beyond would hold an account for good.
const WAIT_MAX: Duration = Duration::from_secs(3_600);

/// Returns the wait of `Retry-After`: seconds or a date (RFC 9110, 10.2.3), at most [`WAIT_MAX`]; a past date means no
/// wait.
pub(crate) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !value.is_empty() && value.bytes().all(|digit| digit.is_ascii_digit()) {
        // More digits than a u64 has are a long wait too.
        return Some(value.parse().map_or(WAIT_MAX, Duration::from_secs).min(WAIT_MAX));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    let at = date.duration_since(UNIX_EPOCH).ok()?;
    Some(Timestamp::EPOCH.after(at).since(now).min(WAIT_MAX))
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    fn header(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(value))])
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        // RFC 9110, 10.2.3: "Fri, 31 Dec 1999 23:59:59 GMT" and "120".
        // The date is 946,684,799 s after the epoch, one second before 2000.
        let now = Timestamp::from_secs(946_684_769);
        assert_eq!(retry_after(&header("120"), now), Some(Duration::from_secs(120)));
        assert_eq!(retry_after(&header("Fri, 31 Dec 1999 23:59:59 GMT"), now), Some(Duration::from_secs(30)));
        let later = Timestamp::from_secs(946_684_800);
        assert_eq!(retry_after(&header("Fri, 31 Dec 1999 23:59:59 GMT"), later), Some(Duration::ZERO));
        assert_eq!(retry_after(&header("soon"), now), None);
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn an_endless_wait_is_an_hour() {
        let now = Timestamp::from_secs(946_684_769);
        for endless in
            ["3601", "18446744073709551615", "99999999999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT"]
        {
            assert_eq!(retry_after(&header(endless), now), Some(WAIT_MAX), "{endless}");
        }
    }
}
