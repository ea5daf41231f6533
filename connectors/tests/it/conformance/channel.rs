//! What every channel must do with webhooks. What it sends is pinned against its provider's API.

use heddle_schemas::ports::channel::{Channel, WebhookError};
use heddle_schemas::sealed::Secret;

macro_rules! promises_of_a_channel {
    ($given:expr) => {
        crate::conformance::promises!(
            channel,
            &$given,
            [
                a_signed_body_is_taken_and_read,
                a_body_without_its_signature_is_refused,
                another_secret_does_not_sign,
                a_body_that_is_no_json_is_told,
            ]
        );
    };
}
pub(crate) use promises_of_a_channel as promises;

/// A channel, and a body that it signed.
pub(crate) struct Signed {
    pub(crate) channel: Box<dyn Channel>,
    pub(crate) secret: &'static str,
    pub(crate) body: &'static [u8],
    pub(crate) signature: &'static str,
}

impl Signed {
    fn verify(&self, secret: &str, signature: Option<&str>) -> Result<(), WebhookError> {
        self.channel.verify(&Secret::new(secret), signature, self.body)
    }
}

pub(crate) async fn a_signed_body_is_taken_and_read(given: &Signed) {
    given.verify(given.secret, Some(given.signature)).unwrap();
    given.channel.parse(given.body).unwrap();
}

pub(crate) async fn a_body_without_its_signature_is_refused(given: &Signed) {
    let mut changed = given.signature.to_owned();
    changed.pop();
    let longer = format!("{}0", given.signature);
    for signature in [None, Some(""), Some("sha256="), Some("nonsense"), Some(&*changed), Some(&*longer)] {
        assert_eq!(given.verify(given.secret, signature), Err(WebhookError::Signature), "{signature:?}");
    }
}

pub(crate) async fn another_secret_does_not_sign(given: &Signed) {
    for secret in ["another", ""] {
        assert_eq!(given.verify(secret, Some(given.signature)), Err(WebhookError::Signature));
    }
    assert_eq!(given.verify("", None), Err(WebhookError::Signature), "nothing signs for nothing");
}

pub(crate) async fn a_body_that_is_no_json_is_told(given: &Signed) {
    for body in [&b""[..], b"nonsense", b"{", b"\xff"] {
        let read = given.channel.parse(body);
        assert!(matches!(read, Err(WebhookError::Body(_))), "{read:?}");
    }
}
