//! The simulator against a small target that fails and comes back, and the WhatsApp channel against
//! the simulated API.

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

use super::customers::{Customers, Options, Question, Scene};
use super::fault::Faults;
use super::graph::{self, GraphApi};
use super::limits::Limits;
use super::webhooks::{self, Webhooks};

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
    WhatsApp::new(&whatsapp::Options { timeout, ..whatsapp::Options::default() }, clock()).unwrap()
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
    OutboundId {
        contact: ContactId::from_bytes([1; 16]),
        turn: TurnId(MessageKey::from_bytes([turn; 16])),
        index: 0,
    }
}

fn message(turn: u8, to: &str) -> OutboundMessage {
    OutboundMessage {
        id: outbound(turn),
        to: Address { phone: Some(to.into()), ..Address::default() },
        content: Content::Text { body: "Yes, in blue.".into() },
    }
}

/// What the target does when a send's fate is not known.
#[derive(Clone, Copy)]
enum OnUnknown {
    Again,
    Never,
}

/// A target that records each message once and answers it through the channel, and refuses some
/// webhooks.
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
            id: OutboundId {
                contact: ContactId::from_bytes([1; 16]),
                turn: TurnId(MessageKey::from_bytes(key(&digest[..16]))),
                index: 0,
            },
            to: message.from.clone(),
            content: Content::Text { body: format!("You said: {body}") },
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
    // What was taken may still be answered, and an answer has statuses.
    while target.answering.load(Ordering::Relaxed) + webhooks.open() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Run { graph, webhooks, target, customers }
}

#[tokio::test]
async fn everything_is_delivered_and_answered_once_by_a_target_that_refuses_every_fourth_webhook() {
    let run = run(Faults::default(), 4, OnUnknown::Never).await;
    let report = run.customers.report();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.customers, report.questions), (12, 36));
    // Each customer asks all three questions: 2 + 1 + 3 lines. Stickers and the like come on top.
    let texts = run.graph.taken_count();
    assert_eq!(texts, 12 * 6, "one answer a line");
    assert!(report.messages > 12 * 6, "{} with stickers and reactions", report.messages);
    assert_eq!(report.messages, run.target.seen.lock().unwrap().len() as u64);
    assert!(report.duplicates > 0);
    let counts = run.webhooks.counts();
    assert_eq!(counts.acknowledged, counts.webhooks + counts.duplicates);
    assert_eq!(counts.retried, run.target.refused.load(Ordering::Relaxed) as u64);
    assert!(counts.retried > 0);
    let sent: HashSet<String> = run.customers.sent().into_iter().collect();
    assert_eq!(run.webhooks.acknowledged(), sent);
    assert!(run.graph.times_taken().values().all(|times| *times == 1));
}

#[tokio::test]
async fn each_sent_message_gets_its_three_statuses_not_always_in_order() {
    let run = run(Faults::default(), 0, OnUnknown::Never).await;
    let mut by_message: BTreeMap<String, Vec<DeliveryStatus>> = BTreeMap::new();
    for status in run.target.statuses.lock().unwrap().iter() {
        let outbound = status.outbound.expect("our id comes back").to_string();
        by_message.entry(outbound).or_default().push(status.status);
    }
    assert_eq!(by_message.len(), run.graph.taken_count());
    let mut overtaken = 0;
    let mut repeated = 0;
    for statuses in by_message.values() {
        let kinds: HashSet<_> = statuses.iter().copied().collect();
        let all = [DeliveryStatus::Sent, DeliveryStatus::Delivered, DeliveryStatus::Read];
        assert_eq!(kinds, HashSet::from(all));
        overtaken += usize::from(!statuses.is_sorted());
        repeated += statuses.len() - 3;
    }
    assert!(overtaken > 0 && repeated > 0, "{overtaken} overtaken, {repeated} repeated");
}

#[tokio::test]
async fn a_target_that_was_down_gets_everything_at_the_same_address() {
    let graph = graph(graph::Options::default()).await;
    let target = Target::new(&graph, 0, OnUnknown::Never);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let webhooks = Webhooks::start(webhook_options(address), &graph, clock()).unwrap();
    let customers = Customers::start(customer_options(4), &graph, &webhooks, clock(), None).unwrap();
    // Down: each connection is closed without an answer.
    while webhooks.counts().retried < 20 {
        drop(listener.accept().await.unwrap());
    }
    assert_eq!(webhooks.counts().acknowledged, 0);
    assert_eq!(customers.progress(), (0, 12));
    target.serve(listener);
    customers.done().await;
    webhooks.idle().await;
    let report = customers.report();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(customers.progress(), (12, 12));
}

#[tokio::test]
async fn errors_before_taking_double_nothing() {
    let faults = Faults { server_error: 0.3, ..Faults::default() };
    let run = run(faults, 0, OnUnknown::Again).await;
    let report = run.customers.report();
    assert!(report.is_clean(), "{report:?}");
    assert!(report.graph.refused[&131_000] > 0);
    assert_eq!(run.target.unknown.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_sender_that_repeats_what_nobody_knows_is_found_out() {
    let faults = Faults { taken_then_dropped: 0.3, ..Faults::default() };
    let run = run(faults, 0, OnUnknown::Again).await;
    let report = run.customers.report();
    let unknown = run.target.unknown.load(Ordering::Relaxed) as u64;
    assert!(unknown > 0);
    // Every one of them had been taken, so every repetition doubles.
    assert_eq!((report.doubled, report.graph.dropped), (unknown, unknown));
    assert!(!report.is_clean());
    let doubles: u64 = run.graph.times_taken().values().map(|times| u64::from(*times) - 1).sum();
    assert_eq!(doubles, unknown);
}

#[tokio::test]
async fn scenes_tell_what_happens() {
    let graph = graph(graph::Options::default()).await;
    let target = Target::new(&graph, 0, OnUnknown::Never);
    let address = target.listen().await;
    let webhooks = Webhooks::start(webhook_options(address), &graph, clock()).unwrap();
    let (scenes, mut seen) = mpsc::unbounded_channel();
    let options = Options { extras: 0.0, ..customer_options(1) };
    let customers = Customers::start(options, &graph, &webhooks, clock(), Some(scenes)).unwrap();
    customers.done().await;
    let mut said = 0;
    let mut answered = 0;
    while let Ok(scene) = seen.try_recv() {
        match scene {
            Scene::Said { customer, .. } => said += usize::from(customer == 0),
            Scene::Heard { latency, .. } => answered += usize::from(latency.is_some()),
        }
    }
    assert_eq!((said, answered), (6, 3));
    assert_eq!(customers.replies()[0].len(), customers.report().replies as usize);
}

#[tokio::test]
async fn the_channel_and_the_simulated_api_understand_each_other() {
    let graph = graph(graph::Options::default()).await;
    let channel = channel(Duration::from_secs(10));
    let accepted = channel.send(&access(&graph), &message(1, "16505551234")).await.unwrap();
    assert!(accepted.message_id.starts_with("wamid."));
    let mut scoped = message(2, "");
    scoped.to = Address { user_id: Some("US.13491208655302741918".into()), ..Address::default() };
    channel.send(&access(&graph), &scoped).await.unwrap();
    let taken = graph.taken();
    assert_eq!(taken[0].wamid, accepted.message_id);
    assert_eq!((taken[0].text.as_str(), taken[0].outbound), ("Yes, in blue.", Some(outbound(1))));
    assert_eq!(graph.taken_for("US.13491208655302741918").len(), 1);
    assert_eq!(graph.times_taken(), HashMap::from([1, 2].map(|turn| (outbound(turn).to_string(), 1))));
}

#[tokio::test]
async fn a_revoked_token_or_unknown_number_is_refused_as_graph_does() {
    let graph = graph(graph::Options::default()).await;
    let channel = channel(Duration::from_secs(10));
    let class = async |access: &ChannelAccount| {
        let error = channel.send(access, &message(1, "16505551234")).await.unwrap_err();
        (error.class, error.code)
    };
    let good = access(&graph);
    let mut other = good.clone();
    other.credentials.set(whatsapp::ACCESS_TOKEN, Secret::new("another"));
    assert_eq!(class(&other).await, (FailureClass::Unauthorized, Some(190)));
    let nowhere = ChannelAccount { account: "1".parse().unwrap(), ..good.clone() };
    assert_eq!(class(&nowhere).await, (FailureClass::Final, Some(100)));
    graph.set_revoked(&good.account, true);
    assert_eq!(class(&good).await, (FailureClass::Unauthorized, Some(190)));
    let number_two = ChannelAccount { account: accounts().remove(1), ..good.clone() };
    channel.send(&number_two, &message(1, "16505551234")).await.unwrap();
    graph.set_revoked(&good.account, false);
    channel.send(&good, &message(2, "16505551234")).await.unwrap();
    assert_eq!(graph.counts().refused, BTreeMap::from([(100, 1), (190, 2)]));
}

#[tokio::test]
async fn limits_are_kept_when_they_are_switched_on() {
    let limits = Limits {
        per_second: NonZeroU32::new(50).unwrap(),
        pair_interval: Duration::from_secs(60),
        pair_burst: NonZeroU32::new(2).unwrap(),
    };
    let graph = graph(graph::Options { limits: Some(limits), ..graph::Options::default() }).await;
    let channel = channel(Duration::from_secs(10));
    let access = access(&graph);
    for turn in 1..=2 {
        channel.send(&access, &message(turn, "16505551234")).await.unwrap();
    }
    let error = channel.send(&access, &message(3, "16505551234")).await.unwrap_err();
    assert_eq!((error.class, error.code), (FailureClass::PairLimited, Some(131_056)));
    for _ in 0..50 {
        graph.count_in(&access.account);
    }
    let error = channel.send(&access, &message(4, "16505550000")).await.unwrap_err();
    assert_eq!((error.class, error.code), (FailureClass::RateLimited, Some(130_429)));
    assert_eq!(graph.taken_count(), 2);
}

#[tokio::test]
async fn each_fault_is_what_it_says() {
    let graph = graph(graph::Options::default()).await;
    let (patient, hasty) = (channel(Duration::from_secs(10)), channel(Duration::from_millis(200)));
    let access = access(&graph);
    let faults = |faults: Faults| graph.set_faults(faults);
    let send = async |channel: &WhatsApp, turn| {
        let before = graph.taken_count();
        let error = channel.send(&access, &message(turn, "16505551234")).await.unwrap_err();
        (error.class, error.retry_after, graph.taken_count() - before)
    };
    faults(Faults { server_error: 1.0, ..Faults::default() });
    assert_eq!(send(&patient, 1).await, (FailureClass::Temporary, None, 0));
    faults(Faults { rate_limited: 1.0, retry_after: Duration::from_secs(7), ..Faults::default() });
    assert_eq!(send(&patient, 2).await, (FailureClass::RateLimited, Some(Duration::from_secs(7)), 0));
    faults(Faults { taken_then_dropped: 1.0, ..Faults::default() });
    assert_eq!(send(&patient, 3).await, (FailureClass::Unknown, None, 1));
    faults(Faults { dropped: 1.0, ..Faults::default() });
    assert_eq!(send(&patient, 4).await, (FailureClass::Unknown, None, 0));
    faults(Faults { hang: 1.0, ..Faults::default() });
    assert_eq!(send(&hasty, 5).await.0, FailureClass::Unknown);
    assert_eq!(graph.counts().hung, 1);
}

#[tokio::test]
async fn the_same_seed_gives_the_same_fates_and_ids() {
    let outcomes = async |seed| {
        let faults = Faults { server_error: 0.3, taken_then_dropped: 0.3, ..Faults::default() };
        let graph = graph(graph::Options { faults, seed, ..graph::Options::default() }).await;
        let channel = channel(Duration::from_secs(10));
        let mut outcomes = Vec::new();
        for turn in 0..20 {
            let sent = channel.send(&access(&graph), &message(turn, "16505551234")).await;
            outcomes.push(sent.map(|accepted| accepted.message_id).map_err(|error| error.class));
        }
        outcomes
    };
    let first = outcomes(7).await;
    assert_eq!(first, outcomes(7).await);
    assert_ne!(first, outcomes(8).await);
}

#[tokio::test]
async fn an_empty_script_is_refused() {
    let graph = graph(graph::Options::default()).await;
    let webhooks = Webhooks::start(webhook_options(graph.address()), &graph, clock()).unwrap();
    for options in [
        Options::new(Vec::new(), script()),
        Options::new(accounts(), Vec::new()),
        Options::new(accounts(), vec![Question { lines: Vec::new(), expect: None }]),
    ] {
        assert!(Customers::start(options, &graph, &webhooks, clock(), None).is_err());
    }
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let first = graph(graph::Options::default()).await;
    let options = graph::Options { listen: first.address(), ..graph::Options::default() };
    let Err(error) = GraphApi::start(options, clock()).await else { panic!("listens twice") };
    assert_eq!(error.to_string(), format!("the simulated API cannot listen on {}", first.address()));
}
