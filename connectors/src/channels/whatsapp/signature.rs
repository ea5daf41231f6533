//! Verification that a webhook's body comes from Meta: `X-Hub-Signature-256`.
//!
//! The header is `sha256=` and the hexadecimal HMAC-SHA256 of the raw body under the app's secret
//! (<https://developers.facebook.com/docs/graph-api/webhooks/getting-started#validate-payloads>).

use heddle_schemas::ports::channel::WebhookError;
use heddle_schemas::sealed::Secret;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::header::HeaderMap;
use sha2::Sha256;

/// The header with the signature.
const HEADER: &str = "x-hub-signature-256";

/// Checks the signature in constant time. Without a secret nothing is valid.
pub(super) fn verify(secret: Option<&Secret>, headers: &HeaderMap, body: &[u8]) -> Result<(), WebhookError> {
    let secret = secret.ok_or(WebhookError::Signature)?;
    check(secret, headers.get(HEADER).and_then(|value| value.to_str().ok()), body)
}

fn check(secret: &Secret, signature: Option<&str>, body: &[u8]) -> Result<(), WebhookError> {
    if secret.is_empty() {
        return Err(WebhookError::Signature);
    }
    let claimed = signature
        .and_then(|text| text.trim().strip_prefix("sha256="))
        .and_then(|digits| hex::decode(digits).ok())
        .ok_or(WebhookError::Signature)?;
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()).expect("HMAC takes keys of any length");
    mac.update(body);
    mac.verify_slice(&claimed).map_err(|_| WebhookError::Signature)
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 4231, test case 2: key "Jefe", data "what do ya want for nothing?".
    const BODY: &[u8] = b"what do ya want for nothing?";
    const SIGNATURE: &str = "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";

    fn check(secret: &str, signature: Option<&str>, body: &[u8]) -> bool {
        super::check(&Secret::new(secret), signature, body).is_ok()
    }

    #[test]
    fn the_vector_of_rfc_4231_is_accepted_in_either_case() {
        assert!(check("Jefe", Some(SIGNATURE), BODY));
        assert!(check("Jefe", Some(&SIGNATURE.to_uppercase().replacen("SHA256", "sha256", 1)), BODY));
    }

    #[test]
    fn anything_else_is_refused() {
        assert!(!check("Jefe", None, BODY));
        assert!(!check("Jefe", Some(""), BODY));
        assert!(!check("Jefe", Some("sha256="), BODY));
        assert!(!check("Jefe", Some(&SIGNATURE[..SIGNATURE.len() - 2]), BODY), "a shorter one");
        assert!(!check("Jefe", Some(&SIGNATURE["sha256=".len()..]), BODY), "without its name");
        assert!(!check("Jefe", Some(&SIGNATURE.replace("sha256=", "sha1=")), BODY));
        assert!(!check("Jefe", Some(SIGNATURE), b"what do ya want for nothing!"), "another body");
        assert!(!check("jefe", Some(SIGNATURE), BODY), "another secret");
    }

    #[test]
    fn without_a_secret_even_the_right_digits_are_refused() {
        // HMAC-SHA256 of the empty text under the empty key (a widely published value).
        let empty = "sha256=b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad";
        assert!(!check("", Some(empty), b""));
        assert_eq!(verify(None, &HeaderMap::new(), b""), Err(WebhookError::Signature));
    }
}
