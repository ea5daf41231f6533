//! Tests of the simulator against a small target that fails and recovers, and of the WhatsApp channel
//! against the simulated API.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use heddle_connectors::channels::whatsapp::{self, WhatsApp};
use heddle_schemas::content::{Address, Content};
use heddle_schemas::id::{AccountId, ChannelKind, ContactId, MessageKey, OutboundId, TurnId};
use heddle_schemas::outgoing::OutgoingContent;
use heddle_schemas::ports::channel::{
    Act, Channel, ChannelAccount, ChannelEvent, FailureClass, OutboundMessage, ReceivedMessage,
    ReceivedStatus,
};
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::record::inbound::DeliveryStatus;
use heddle_schemas::sealed::Secret;
use heddle_schemas::time::Timestamp;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::customers::{Customers, Options, Question, Scene};
use crate::fault::Faults;
use crate::graph::{self, GraphApi};
use crate::limits::Limits;
use crate::webhooks::{self, Webhooks};

mod channel;
mod delivery;

const TOKEN: &str = "EAAJB-token-of-this-test";
const SECRET: &str = "app-secret-of-this-test";

struct TestClock(Instant);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(1_767_225_600).after(self.elapsed())
    }
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(TestClock(Instant::now()))
}

fn accounts() -> Vec<AccountId> {
    ["106540352242922", "206540352242922"].map(|id| id.parse().unwrap()).to_vec()
}

async fn graph(options: graph::Options) -> GraphApi {
    let numbers = accounts().into_iter().map(|account| (account, Secret::new(TOKEN))).collect();
    GraphApi::start(graph::Options { numbers, ..options }, clock()).await.unwrap()
}

fn webhook_options(target: SocketAddr) -> webhooks::Options {
    let secrets = accounts().into_iter().map(|account| (account, Secret::new(SECRET))).collect();
    webhooks::Options {
        first_pause: Duration::from_millis(2),
        longest_pause: Duration::from_millis(20),
        ..webhooks::Options::new(format!("http://{target}"), secrets)
    }
}

fn channel(timeout: Duration) -> WhatsApp {
    WhatsApp::new(
        &whatsapp::Options {
            timeout,
            egress: heddle_connectors::egress::Egress::with_loopback(),
            ..whatsapp::Options::default()
        },
        clock(),
    )
    .unwrap()
}

fn account(id: AccountId, api_base: &str) -> ChannelAccount {
    let secrets = [(whatsapp::ACCESS_TOKEN, TOKEN), (whatsapp::APP_SECRET, SECRET)];
    let secrets = secrets.map(|(name, secret)| (name, Secret::new(secret)));
    ChannelAccount::new(ChannelKind::Whatsapp, id, api_base, secrets)
}

fn access(graph: &GraphApi) -> ChannelAccount {
    account(accounts().remove(0), &graph.api_base())
}

fn outbound(turn: u8) -> OutboundId {
    OutboundId::of_turn(ContactId::from_bytes([1; 16]), TurnId(MessageKey::from_bytes([turn; 16])), 0)
}

fn message(turn: u8, to: &str) -> OutboundMessage {
    OutboundMessage {
        id: outbound(turn),
        to: Address { phone: Some(to.into()), ..Address::default() },
        content: OutgoingContent::text("Yes, in blue."),
    }
}

/// Behaviour of the target when a send's outcome is unknown.
#[derive(Clone, Copy)]
enum OnUnknown {
    Again,
    Never,
}

/// Target that records each message once and answers it through the channel, and refuses some webhooks.
struct Target {
    channel: WhatsApp,
    api_base: String,
    fail_every: usize,
    on_unknown: OnUnknown,
    requests: AtomicUsize,
    refused: AtomicUsize,
    seen: Mutex<HashSet<String>>,
    unknown: AtomicUsize,
    answering: AtomicUsize,
    statuses: Mutex<Vec<ReceivedStatus>>,
}

impl Target {
    fn new(graph: &GraphApi, fail_every: usize, on_unknown: OnUnknown) -> Arc<Self> {
        Arc::new(Self {
            channel: channel(Duration::from_secs(10)),
            api_base: graph.api_base(),
            fail_every,
            on_unknown,
            requests: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            seen: Mutex::default(),
            unknown: AtomicUsize::new(0),
            answering: AtomicUsize::new(0),
            statuses: Mutex::default(),
        })
    }

    async fn listen(self: &Arc<Self>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        self.serve(listener);
        address
    }

    fn serve(self: &Arc<Self>, listener: TcpListener) {
        let app = Router::new().route("/webhooks/whatsapp/{account}", post(take)).with_state(self.clone());
        tokio::spawn(axum::serve(listener, app).into_future());
    }

    async fn answer(&self, message: ReceivedMessage) {
        let Act::Say(Content::Text { body }) = &message.act else { return };
        let digest: [u8; 32] = Sha256::digest(message.id.as_bytes()).into();
        let key = |bytes: &[u8]| -> [u8; 16] { bytes.try_into().unwrap() };
        let reply = OutboundMessage {
            id: OutboundId::of_turn(
                ContactId::from_bytes([1; 16]),
                TurnId(MessageKey::from_bytes(key(&digest[..16]))),
                0,
            ),
            to: message.from.clone(),
            content: OutgoingContent::text(format!("You said: {body}")),
        };
        let access = account(message.account.clone(), &self.api_base);
        loop {
            match self.channel.send(&access, &reply).await {
                Ok(_) => return,
                Err(error) if error.class == FailureClass::Unknown => {
                    self.unknown.fetch_add(1, Ordering::Relaxed);
                    match self.on_unknown {
                        OnUnknown::Again => {}
                        OnUnknown::Never => return,
                    }
                }
                Err(error) if error.class == FailureClass::Temporary => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

async fn take(State(target): State<Arc<Target>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let account = account(accounts().remove(0), &target.api_base);
    target.channel.verify(&account, &headers, &body).unwrap();
    let number = target.requests.fetch_add(1, Ordering::Relaxed) + 1;
    if target.fail_every > 0 && number.is_multiple_of(target.fail_every) {
        target.refused.fetch_add(1, Ordering::Relaxed);
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    for event in target.channel.parse(&account.account, &body).unwrap() {
        match event {
            ChannelEvent::Message(message) => {
                if target.seen.lock().unwrap().insert(message.id.clone()) {
                    target.answering.fetch_add(1, Ordering::Relaxed);
                    let target = target.clone();
                    tokio::spawn(async move {
                        target.answer(message).await;
                        target.answering.fetch_sub(1, Ordering::Relaxed);
                    });
                }
            }
            ChannelEvent::Status(status) => target.statuses.lock().unwrap().push(status),
            ChannelEvent::Preference(preference) => panic!("{preference:?}"),
            ChannelEvent::Notice { field, value, .. } => panic!("{field}: {value}"),
        }
    }
    StatusCode::OK
}

fn script() -> Vec<Question> {
    vec![
        Question::new(["Hello", "When do you open?"]).expecting("When do you open?"),
        Question::new(["Does it come in blue?"]).expecting("in blue?"),
        Question::new(["Hi", "one more thing", "Where are you?"]).expecting("Where are you?"),
    ]
}

fn customer_options(customers: usize) -> Options {
    Options {
        customers: NonZeroUsize::new(customers).unwrap(),
        start: Duration::from_millis(20),
        gap: Duration::from_millis(1)..Duration::from_millis(5),
        think: Duration::from_millis(1)..Duration::from_millis(5),
        scoped: 0.3,
        extras: 0.3,
        ..Options::new(accounts(), script())
    }
}

struct Run {
    graph: GraphApi,
    webhooks: Webhooks,
    target: Arc<Target>,
    customers: Customers,
}

async fn run(faults: Faults, fail_every: usize, on_unknown: OnUnknown) -> Run {
    let graph = graph(graph::Options { faults, ..graph::Options::default() }).await;
    let target = Target::new(&graph, fail_every, on_unknown);
    let address = target.listen().await;
    let webhooks =
        Webhooks::start(webhooks::Options { duplicate: 0.2, ..webhook_options(address) }, &graph, clock())
            .unwrap();
    let customers = Customers::start(customer_options(12), &graph, &webhooks, clock(), None).unwrap();
    customers.done().await;
    webhooks.idle().await;
    // Accepted messages may still be answered, and an answer has statuses.
    while target.answering.load(Ordering::Relaxed) + webhooks.open() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Run { graph, webhooks, target, customers }
}
