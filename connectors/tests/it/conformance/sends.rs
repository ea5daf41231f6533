//! The promises of every channel that sends over HTTP: failure classes, by answers that are no provider's own.
//!
//! Whether a message was surely not accepted decides whether it is sent again, so the classes matter more than texts.

use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::IntoResponse;
use heddle_schemas::content::{Address, MediaKind};
use heddle_schemas::outgoing::{File, OutgoingContent, OutgoingMedia};
use heddle_schemas::ports::channel::{
    Accepted, Channel, ChannelAccount, FailureClass, OutboundMessage, SendError,
};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

macro_rules! promises_of_sends {
    ($given:expr) => {
        crate::conformance::promises!(
            sends,
            &$given,
            [
                an_accepted_message_has_an_id,
                a_refusal_has_the_class_of_its_status,
                a_wait_that_is_asked_for_is_kept,
                without_a_connection_nothing_was_sent,
                without_an_answer_the_outcome_is_unknown,
                an_address_that_is_no_url_stops_the_account,
                unsendable_content_is_not_even_called,
                an_error_shows_neither_recipient_nor_text,
            ]
        );
    };
}
pub(crate) use promises_of_sends as promises;

const ID: &str = "000102030405060708090a0b0c0d0e0f.101112131415161718191a1b1c1d1e1f.0";
const TEXT: &str = "We are open from nine to five.";

/// A channel that sends, with an account whose address a test replaces.
pub(crate) struct Sends {
    /// Its calls take a second at most.
    pub(crate) channel: Box<dyn Channel>,
    pub(crate) account: ChannelAccount,
    pub(crate) to: Address,
    /// Body of an answer that accepts a message, and the message's id in it.
    pub(crate) accepts: (&'static str, &'static str),
}

impl Sends {
    async fn send(&self, api_base: impl Into<String>) -> Result<Accepted, SendError> {
        self.send_content(api_base, OutgoingContent::text(TEXT)).await
    }

    async fn send_content(
        &self,
        api_base: impl Into<String>,
        content: OutgoingContent,
    ) -> Result<Accepted, SendError> {
        let account = ChannelAccount { api_base: api_base.into(), ..self.account.clone() };
        let message = OutboundMessage { id: ID.parse().unwrap(), to: self.to.clone(), content };
        self.channel.send(&account, &message).await
    }
}

/// Answers every request so.
async fn serve<R: IntoResponse + Send + 'static>(
    answer: impl Fn(Bytes) -> R + Clone + Send + Sync + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(move |body: Bytes| async move { answer(body) });
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

pub(crate) async fn an_accepted_message_has_an_id(given: &Sends) {
    let (body, id) = given.accepts;
    let accepted = given.send(serve(move |_| body).await).await.unwrap();
    assert_eq!(accepted.message_id, id);
}

pub(crate) async fn a_refusal_has_the_class_of_its_status(given: &Sends) {
    use FailureClass::{Blocked, Final, RateLimited, Temporary, Unauthorized, Unknown};
    for (status, class) in [
        (302, Blocked),
        (400, Final),
        (401, Unauthorized),
        (408, Temporary),
        (413, Final),
        (429, RateLimited),
        (500, Unknown),
        (502, Unknown),
        (503, Temporary),
        (504, Unknown),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        let error = given.send(serve(move |_| (status, "no")).await).await.unwrap_err();
        assert_eq!(error.class, class, "{status}: {error}");
    }
}

pub(crate) async fn a_wait_that_is_asked_for_is_kept(given: &Sends) {
    for status in [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE] {
        let error =
            given.send(serve(move |_| (status, [(RETRY_AFTER, "7")], "later")).await).await.unwrap_err();
        assert_eq!(error.retry_after, Some(Duration::from_secs(7)), "{error}");
    }
}

pub(crate) async fn without_a_connection_nothing_was_sent(given: &Sends) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = given.send(format!("http://{address}")).await.unwrap_err();
    assert_eq!(error.class, FailureClass::Temporary, "{error}");
}

pub(crate) async fn without_an_answer_the_outcome_is_unknown(given: &Sends) {
    for closes in [true, false] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 64 * 1024];
            let read = stream.read(&mut request).await.unwrap();
            assert!(read > 0);
            if !closes {
                std::future::pending::<()>().await;
            }
        });
        let error = given.send(format!("http://{address}")).await.unwrap_err();
        assert_eq!(error.class, FailureClass::Unknown, "closes: {closes}: {error}");
        server.abort();
    }
}

pub(crate) async fn an_address_that_is_no_url_stops_the_account(given: &Sends) {
    let error = given.send("nowhere").await.unwrap_err();
    assert_eq!(error.class, FailureClass::Blocked, "{error}");
}

pub(crate) async fn unsendable_content_is_not_even_called(given: &Sends) {
    let most = given.channel.profile().text_max.get();
    let stored = File::Stored("a.jpg".parse().unwrap());
    let file = OutgoingMedia { kind: MediaKind::Image, file: stored, caption: None, filename: None };
    let file = OutgoingContent::Media(file);
    let text = |length| OutgoingContent::text("é".repeat(length));
    // Nothing listens there: a call would be a passing failure.
    for content in [text(0), text(most + 1), file] {
        let error = given.send_content("http://127.0.0.1:9", content).await.unwrap_err();
        assert_eq!(error.class, FailureClass::Final, "{error}");
    }
    let (body, _) = given.accepts;
    given.send_content(serve(move |_| body).await, text(most)).await.unwrap();
}

pub(crate) async fn an_error_shows_neither_recipient_nor_text(given: &Sends) {
    let echo = serve(|body| (StatusCode::BAD_REQUEST, body)).await;
    let error = given.send(echo).await.unwrap_err();
    for shown in given.to.ids().chain([TEXT]) {
        assert!(!error.detail.contains(shown), "{error}");
    }
    for (_, secret) in given.account.credentials.iter() {
        assert!(!error.detail.contains(secret.expose()), "{error}");
    }
}
