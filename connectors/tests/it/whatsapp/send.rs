//! Requests of the WhatsApp channel, and its reading of each answer: against real servers on
//! loopback, those that answer by HTTP and those that break the connection.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use heddle_connectors::channels::whatsapp::{ACCESS_TOKEN, Options, PROFILE, WhatsApp};
use heddle_schemas::content::{Address, MediaKind};
use heddle_schemas::outgoing::{File, OutgoingContent, OutgoingMedia};
use heddle_schemas::ports::channel::{
    Accepted, Channel, ChannelAccount, FailureClass, OutboundMessage, SendError,
};
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::sealed::Secret;
use heddle_schemas::time::Timestamp;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const TOKEN: &str = "EAAJB-token-of-this-test";
const PHONE: &str = "16505551234";
const USER_ID: &str = "US.13491208655302741918";
const WAMID: &str = "wamid.HBgLMTY1MDM4Nzk0MzkVAgARGBI3MTE5MjVBOTE3MDk5QUVFM0YA";
const ID: &str = "000102030405060708090a0b0c0d0e0f.101112131415161718191a1b1c1d1e1f.0";

/// Thirty seconds before the date that the test of `Retry-After` sends.
struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(946_684_769)
    }
    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
}

fn channel() -> WhatsApp {
    channel_with(Duration::from_secs(30))
}

fn channel_with(timeout: Duration) -> WhatsApp {
    WhatsApp::new(
        &Options {
            timeout,
            egress: heddle_connectors::egress::Egress::with_loopback(),
            ..Options::default()
        },
        Arc::new(Stopped),
    )
    .unwrap()
}

fn access(server: SocketAddr) -> ChannelAccount {
    let (id, base) = ("106540352242922".parse().unwrap(), format!("http://{server}/v21.0"));
    ChannelAccount::new(PROFILE.kind, id, base, [(ACCESS_TOKEN, Secret::new(TOKEN))])
}

fn to_phone(text: &str) -> OutboundMessage {
    OutboundMessage {
        id: ID.parse().unwrap(),
        to: Address { phone: Some(PHONE.into()), user_id: Some(USER_ID.into()), ..Address::default() },
        content: OutgoingContent::text(text),
    }
}

/// Content of a request.
#[derive(Debug, Clone)]
struct Seen {
    path: String,
    headers: HeaderMap,
    body: Value,
}

#[derive(Clone)]
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Answer {
    fn new(status: u16, body: impl ToString) -> Self {
        Self { status, headers: Vec::new(), body: body.to_string(), seen: Arc::default() }
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    async fn serve(&self) -> SocketAddr {
        async fn answer(State(answer): State<Answer>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
            let body = serde_json::from_slice(&body).unwrap();
            answer.seen.lock().unwrap().push(Seen { path: uri.path().to_owned(), headers, body });
            let mut response = answer.body.into_response();
            *response.status_mut() = StatusCode::from_u16(answer.status).unwrap();
            for (name, value) in answer.headers {
                response.headers_mut().insert(name, value.parse().unwrap());
            }
            response
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().fallback(answer).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        address
    }

    async fn send(&self) -> Result<Accepted, SendError> {
        channel().send(&access(self.serve().await), &to_phone("Yes, in blue.")).await
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

fn success() -> Answer {
    Answer::new(
        200,
        json!({
            "messaging_product": "whatsapp",
            "contacts": [{ "input": PHONE, "wa_id": PHONE }],
            "messages": [{ "id": WAMID }]
        }),
    )
}

fn graph_error(status: u16, code: i64, message: &str) -> Answer {
    Answer::new(
        status,
        json!({ "error": {
            "message": message, "type": "OAuthException", "code": code,
            "error_data": { "messaging_product": "whatsapp", "details": "More about it" },
            "fbtrace_id": "Az8or2yhqkZfEZ-_4Qn_Bam"
        } }),
    )
}

/// Server that runs `act` with each connection, after it has read the whole request.
async fn raw<F, T>(act: F) -> SocketAddr
where
    F: Fn(TcpStream) -> T + Send + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"}") && stream.read_buf(&mut request).await.unwrap_or(0) > 0 {}
            tokio::spawn(act(stream));
        }
    });
    address
}

fn no_secret_in(error: &SendError) {
    let shown = format!("{error} {error:?}");
    for secret in [TOKEN, PHONE, USER_ID, "Yes, in blue"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[tokio::test]
async fn a_text_is_posted_as_documented_and_the_wamid_returned() {
    let server = success();
    let accepted = server.send().await.unwrap();
    assert_eq!(accepted.message_id, WAMID);
    let [seen] = &server.seen()[..] else { panic!() };
    assert_eq!(seen.path, "/v21.0/106540352242922/messages");
    assert_eq!(seen.headers["authorization"], format!("Bearer {TOKEN}"));
    assert_eq!(seen.headers["content-type"], "application/json");
    assert_eq!(
        seen.body,
        json!({
            "messaging_product": "whatsapp",
            "recipient_type": "individual",
            "to": PHONE,
            "type": "text",
            "text": { "preview_url": false, "body": "Yes, in blue." },
            "biz_opaque_callback_data": ID
        })
    );
}

#[tokio::test]
async fn who_has_no_number_is_the_recipient_by_scoped_id() {
    let server = success();
    let mut message = to_phone("Hi");
    message.to.phone = None;
    channel().send(&access(server.serve().await), &message).await.unwrap();
    let body = &server.seen()[0].body;
    assert_eq!(body["recipient"], USER_ID);
    assert_eq!(body.get("to"), None);
}

#[tokio::test]
async fn what_cannot_be_sent_is_final_and_never_leaves() {
    let server = success();
    let access = access(server.serve().await);
    let mut unaddressed = to_phone("Hi");
    unaddressed.to = Address::default();
    let mut no_file = to_phone("");
    let file = File::Stored("a.jpg".parse().unwrap());
    no_file.content =
        OutgoingContent::Media(OutgoingMedia { kind: MediaKind::Image, file, caption: None, filename: None });
    let too_long = to_phone(&"é".repeat(PROFILE.text_max.get() + 1));
    for message in [unaddressed, no_file, too_long, to_phone(" ")] {
        let error = channel().send(&access, &message).await.unwrap_err();
        assert_eq!(error.class, FailureClass::Final, "{error}");
    }
    assert!(server.seen().is_empty());
    let longest = to_phone(&"é".repeat(PROFILE.text_max.get()));
    channel().send(&access, &longest).await.unwrap();
}

#[tokio::test]
async fn each_class_comes_from_its_answer() {
    use FailureClass::{
        Blocked, Final, OptedOut, PairLimited, RateLimited, Temporary, Unauthorized, Unknown,
    };
    let page = "<html><h1>Bad Gateway</h1></html>";
    let cases = [
        (graph_error(400, 130_429, "(#130429) Rate limit hit"), RateLimited),
        (graph_error(400, 131_056, "(#131056) Pair rate limit hit"), PairLimited),
        (graph_error(500, 131_000, "(#131000) Something went wrong"), Temporary),
        (graph_error(502, 2, "(#2) Service temporarily unavailable"), Temporary),
        (graph_error(400, 131_047, "(#131047) Re-engagement message"), Final),
        (graph_error(400, 131_050, "(#131050) User stopped marketing messages"), OptedOut),
        (graph_error(401, 190, "Error validating access token"), Unauthorized),
        (graph_error(403, 131_031, "(#131031) Business account locked"), Blocked),
        (Answer::new(502, page), Unknown),
        (Answer::new(504, page), Unknown),
        (Answer::new(503, page), Temporary),
        (Answer::new(200, page), Unknown),
        (Answer::new(200, "{\"messages\":[]}"), Unknown),
        (Answer::new(200, "x".repeat(100_000)), Unknown),
    ];
    for (server, class) in cases {
        let error = server.send().await.unwrap_err();
        assert_eq!(error.class, class, "{} {}", server.status, server.body);
        assert_eq!(server.seen().len(), 1, "one request, no retry");
        no_secret_in(&error);
    }
}

#[tokio::test]
async fn an_error_shows_code_and_detail_but_neither_number_nor_token() {
    let message = format!("(#131030) Recipient {PHONE} {USER_ID} not in allowed list");
    let error = graph_error(400, 131_030, &message).send().await.unwrap_err();
    no_secret_in(&error);
    assert_eq!(error.code, Some(131_030));
    assert_eq!(error.detail, "(#131030) Recipient [redacted] [redacted] not in allowed list: More about it");
}

#[tokio::test]
async fn retry_after_is_honoured_in_seconds_and_as_a_date() {
    let wait = async |value| {
        let server = graph_error(429, 130_429, "Rate limit hit").with("retry-after", value);
        server.send().await.unwrap_err().retry_after
    };
    assert_eq!(wait("7").await, Some(Duration::from_secs(7)));
    assert_eq!(wait("Fri, 31 Dec 1999 23:59:59 GMT").await, Some(Duration::from_secs(30)));
    assert_eq!(wait("whenever").await, None);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = success();
    let target = elsewhere.serve().await;
    let server = Answer::new(307, "").with("location", &format!("http://{target}/"));
    let error = server.send().await.unwrap_err();
    assert_eq!(error.class, FailureClass::Blocked);
    assert!(elsewhere.seen().is_empty(), "the token went nowhere else");
}

#[tokio::test]
async fn a_refused_connection_was_surely_not_taken() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = channel().send(&access(address), &to_phone("Yes, in blue.")).await.unwrap_err();
    assert_eq!(error.class, FailureClass::Temporary, "{error}");
    no_secret_in(&error);
}

#[tokio::test]
async fn a_failed_tls_handshake_was_surely_not_taken() {
    // A server that speaks no TLS: the handshake fails before the request is sent.
    let address = success().serve().await;
    let access = ChannelAccount { api_base: format!("https://{address}"), ..access(address) };
    let error = channel().send(&access, &to_phone("Yes, in blue.")).await.unwrap_err();
    assert_eq!(error.class, FailureClass::Temporary, "{error}");
}

#[tokio::test]
async fn no_answer_in_time_is_unknown() {
    let address = raw(|stream| async move {
        let _open = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let channel = channel_with(Duration::from_millis(200));
    let error = channel.send(&access(address), &to_phone("Yes, in blue.")).await.unwrap_err();
    assert_eq!(error.class, FailureClass::Unknown, "{error}");
    no_secret_in(&error);
}

#[tokio::test]
async fn a_connection_closed_before_the_answer_is_unknown() {
    let address = raw(|stream| async move { drop(stream) }).await;
    let error = channel().send(&access(address), &to_phone("Yes, in blue.")).await.unwrap_err();
    assert_eq!(error.class, FailureClass::Unknown, "{error}");
}

#[tokio::test]
async fn a_connection_reset_in_the_middle_of_the_answer_is_unknown() {
    let address = raw(|mut stream| async move {
        let start = b"HTTP/1.1 200 OK\r\ncontent-length: 200\r\n\r\n{\"messages\":[{\"id\":\"wam";
        stream.write_all(start).await.unwrap();
        // Closing with nothing lingering sends a reset.
        stream.set_zero_linger().unwrap();
    })
    .await;
    let error = channel().send(&access(address), &to_phone("Yes, in blue.")).await.unwrap_err();
    assert_eq!(error.class, FailureClass::Unknown, "{error}");
}

#[tokio::test]
async fn a_success_that_breaks_off_is_unknown() {
    let address = raw(|mut stream| async move {
        let start = b"HTTP/1.1 200 OK\r\ncontent-length: 200\r\n\r\n{\"messages\":[{\"id\":\"wam";
        stream.write_all(start).await.unwrap();
    })
    .await;
    let error = channel().send(&access(address), &to_phone("Yes, in blue.")).await.unwrap_err();
    assert_eq!(error.class, FailureClass::Unknown, "{error}");
}

#[tokio::test]
async fn a_wrong_address_or_token_stops_the_account_not_the_message() {
    let address = success().serve().await;
    let wrong = ChannelAccount { api_base: "graph.facebook.com".into(), ..access(address) };
    let error = channel().send(&wrong, &to_phone("Hi")).await.unwrap_err();
    assert_eq!(error.class, FailureClass::Blocked, "{error}");
    let mut wrong = access(address);
    wrong.credentials.set(ACCESS_TOKEN, Secret::new("line\nbreak"));
    let error = channel().send(&wrong, &to_phone("Hi")).await.unwrap_err();
    assert_eq!(error.class, FailureClass::Unauthorized, "{error}");
}

#[tokio::test]
async fn connections_are_used_again() {
    let connections = Arc::new(Mutex::new(0));
    let counted = connections.clone();
    let address = raw(move |mut stream| {
        *counted.lock().unwrap() += 1;
        async move {
            let body = format!("{{\"messages\":[{{\"id\":\"{WAMID}\"}}]}}");
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            let mut request = Vec::new();
            loop {
                stream.write_all(answer.as_bytes()).await.unwrap();
                request.clear();
                while !request.ends_with(b"}") {
                    if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
            }
        }
    })
    .await;
    let channel = channel();
    for _ in 0..5 {
        channel.send(&access(address), &to_phone("Hi")).await.unwrap();
    }
    assert_eq!(*connections.lock().unwrap(), 1);
}
