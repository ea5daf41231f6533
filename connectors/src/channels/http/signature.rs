//! Signatures of the Standard Webhooks specification, version 1.0.0, symmetric scheme.
//!
//! `webhook-signature` is a list, separated by blanks, of `v1,` and the base64 HMAC-SHA256 of
//! `{webhook-id}.{webhook-timestamp}.{body}`; one of them has to hold, so that a sender can change its secret. The
//! timestamp is in seconds and lies within the tolerance. A secret is `whsec_` and the base64 of 24 to 64 random bytes
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md#signature-scheme>).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use heddle_schemas::ports::channel::WebhookError;
use heddle_schemas::sealed::Secret;
use heddle_schemas::time::Timestamp;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::header::HeaderMap;
use sha2::Sha256;

/// Identifies one webhook over all its attempts.
pub(super) const ID: &str = "webhook-id";
/// The time of the attempt, in seconds since 1970.
pub(super) const TIMESTAMP: &str = "webhook-timestamp";
/// Its signatures.
pub(super) const SIGNATURE: &str = "webhook-signature";

/// Difference between the clocks of sender and receiver at most, as in the specification's libraries.
const TOLERANCE: Duration = Duration::from_secs(300);
/// Signatures of one webhook that are checked.
const SIGNATURES: usize = 8;
/// Bytes of a secret.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// The key of a secret; `None` when it is none.
fn key(secret: &str) -> Option<Vec<u8>> {
    let key = STANDARD.decode(secret.strip_prefix("whsec_")?).ok()?;
    KEY_BYTES.contains(&key.len()).then_some(key)
}

/// The fault of a text that is no secret.
pub(super) fn fault(secret: &str) -> Option<&'static str> {
    let fault = "is no secret of Standard Webhooks: whsec_ and the base64 of 24 to 64 random bytes";
    key(secret).is_none().then_some(fault)
}

fn mac(key: &[u8], id: &str, seconds: &str, body: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in [id.as_bytes(), b".", seconds.as_bytes(), b".", body] {
        mac.update(part);
    }
    mac
}

/// The signature of a body; `None` when the secret is none.
pub(super) fn sign(secret: &Secret, id: &str, seconds: &str, body: &[u8]) -> Option<String> {
    let signature = mac(&key(secret.expose())?, id, seconds, body).finalize().into_bytes();
    Some(format!("v1,{}", STANDARD.encode(signature)))
}

/// Checks in constant time that one of the signatures holds and that the timestamp is not far from `now`.
pub(super) fn verify(
    secret: Option<&Secret>,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Result<(), WebhookError> {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let holds = || {
        let (id, seconds, signatures) = (header(ID)?, header(TIMESTAMP)?, header(SIGNATURE)?);
        let at = Timestamp::from_secs(seconds.parse::<u32>().ok()?.into());
        if id.is_empty() || at.since(now).max(now.since(at)) > TOLERANCE {
            return None;
        }
        let mac = mac(&key(secret?.expose())?, id, seconds, body);
        signatures
            .split(' ')
            .take(SIGNATURES)
            .filter_map(|signature| STANDARD.decode(signature.strip_prefix("v1,")?).ok())
            .any(|signature| mac.clone().verify_slice(&signature).is_ok())
            .then_some(())
    };
    holds().ok_or(WebhookError::Signature)
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    // The vector of the specification's libraries, such as
    // <https://github.com/standard-webhooks/standard-webhooks/blob/main/libraries/javascript/src/index.test.ts>.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const WEBHOOK: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const SECONDS: i64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNED: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    const OTHERS: &str =
        "v1,Mm7xgUVICxZfQ3bgf0h0Dof65L/IFx+PnZvnDWPCX6Q= v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5B";

    fn check(secret: &str, headers: &[(&'static str, &str)], body: &[u8], seconds: i64) -> bool {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect();
        verify(Some(&Secret::new(secret)), &headers, body, Timestamp::from_secs(seconds)).is_ok()
    }

    fn signed(signature: &str) -> [(&'static str, &str); 3] {
        [(ID, WEBHOOK), (TIMESTAMP, "1614265330"), (SIGNATURE, signature)]
    }

    #[test]
    fn the_vector_of_the_specification_is_signed_and_verified() {
        let signature = sign(&Secret::new(SECRET), WEBHOOK, "1614265330", BODY);
        assert_eq!(signature.as_deref(), Some(SIGNED));
        assert!(check(SECRET, &signed(SIGNED), BODY, SECONDS));
    }

    #[test]
    fn one_of_several_signatures_is_enough() {
        for several in [format!("{OTHERS} {SIGNED}"), format!("{SIGNED} {OTHERS}"), format!("  {SIGNED}")] {
            assert!(check(SECRET, &signed(&several), BODY, SECONDS), "{several}");
        }
        assert!(!check(SECRET, &signed(OTHERS), BODY, SECONDS));
        let late = format!("{}{SIGNED}", "v1,AA== ".repeat(SIGNATURES));
        assert!(!check(SECRET, &signed(&late), BODY, SECONDS), "not without end");
    }

    #[test]
    fn a_webhook_is_taken_for_five_minutes_before_and_after() {
        for (off, taken) in
            [(0, true), (300, true), (-300, true), (301, false), (-301, false), (86_400, false)]
        {
            assert_eq!(check(SECRET, &signed(SIGNED), BODY, SECONDS + off), taken, "{off}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let right = signed(SIGNED);
        for missing in 0..3 {
            let mut headers = right.to_vec();
            headers.remove(missing);
            assert!(!check(SECRET, &headers, BODY, SECONDS), "{missing}");
        }
        assert!(!check(SECRET, &right, br#"{"test":2432232314}"#, SECONDS), "another body");
        for (header, value) in
            [(0, "msg_x"), (0, ""), (1, "1614265331"), (1, "+1614265330"), (1, "soon"), (2, &SIGNED[3..])]
        {
            let mut headers = right;
            headers[header].1 = value;
            assert!(!check(SECRET, &headers, BODY, SECONDS), "{value}");
        }
        for secret in
            ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"]
        {
            assert!(!check(secret, &right, BODY, SECONDS), "{secret}");
        }
        let headers = HeaderMap::new();
        assert_eq!(verify(None, &headers, BODY, Timestamp::from_secs(SECONDS)), Err(WebhookError::Signature));
    }

    #[test]
    fn a_secret_has_24_to_64_bytes() {
        let secret = |bytes| format!("whsec_{}", STANDARD.encode(vec![7; bytes]));
        for (bytes, good) in [(0, false), (23, false), (24, true), (32, true), (64, true), (65, false)] {
            assert_eq!(fault(&secret(bytes)).is_none(), good, "{bytes}");
        }
        assert!(fault("whsec_not base64").is_some());
        assert!(sign(&Secret::new("hunter2"), WEBHOOK, "1", BODY).is_none());
    }
}
