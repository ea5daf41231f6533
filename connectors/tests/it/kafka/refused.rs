//! Connections that the broker does not make as they are configured.

use std::sync::Arc;

use heddle_connectors::clock::SystemClock;
use heddle_connectors::kafka::{Kafka, OpenError, Options};
use heddle_schemas::sealed::Secret;

use super::{Prefix, options};

async fn error_with(settings: &[(&str, &str)]) -> OpenError {
    let mut options: Options = options("a", &Prefix::new());
    for (key, value) in settings {
        options.connection.client.insert((*key).to_owned(), Secret::new(*value));
    }
    Kafka::open(&options, Arc::new(SystemClock)).await.err().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_sasl_settings_are_reported_with_their_cause() {
    let error = error_with(&[
        ("security.protocol", "sasl_plaintext"),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", "heddle"),
        ("sasl.password", "wrong"),
    ])
    .await;
    assert!(matches!(error, OpenError::Refused { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("SASL") && text.contains("log.client"), "{text}");
    assert!(!text.contains("wrong"), "the password stays out of it: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_to_a_listener_without_it_is_reported_with_its_cause() {
    let error = error_with(&[("security.protocol", "ssl")]).await;
    assert!(matches!(error, OpenError::Refused { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("SSL handshake failed") && text.contains("log.client"), "{text}");
}
