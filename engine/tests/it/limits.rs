//! I6 for providers of language models: three nodes share one key, and a provider that enforces its limits by an
//! account of its own counts no violation, while nearly all of the allowance is used.
//!
//! The nodes are three responders over one state store, each asked as the engine asks: again where the responder is
//! busy, and for some time at most, then the fallback is said. More is asked than the limits allow, in real time and
//! for longer than the minute that limits are counted in. `HEDDLE_MINUTES=5` measures longer than the usual one.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use heddle_connectors::clock::SystemClock;
use heddle_connectors::responders::Llm;
use heddle_connectors::responders::llm;
use heddle_memory::{MemoryDisk, MemoryStore};
use heddle_schemas::id::{MessageKey, TurnId};
use heddle_schemas::ports::clock::Clock as _;
use heddle_schemas::ports::responder::{Outgoing, Question, Responder as _, ResponderError, Usage};
use heddle_schemas::tenant::Tenant;
use heddle_schemas::time::Timestamp;
use heddle_simulator::llm::{Account, Faults, Limits, LlmApi, Options, Tokens};
use tokio::task::JoinSet;

const KEY: &str = "sk-shared";
/// Timeout of a turn's answer. The engine has a minute; with less, the test ends earlier.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// When what is measured begins, from the first question on.
const BEGIN: Duration = Duration::from_secs(20);
/// The pause before a busy responder is asked again, as the engine has it.
const BUSY_PAUSE: Duration = Duration::from_secs(1);

#[expect(clippy::disallowed_methods, reason = "a switch of this test alone")]
fn minutes() -> u32 {
    std::env::var("HEDDLE_MINUTES").ok().and_then(|minutes| minutes.parse().ok()).unwrap_or(1)
}

/// Counts of the turns by outcome.
#[derive(Debug, Default)]
struct Ends {
    answered: AtomicU64,
    fallback: AtomicU64,
}

/// A provider, and what all nodes share.
struct World {
    provider: LlmApi,
    store: Arc<MemoryStore>,
    tenant: Arc<Tenant>,
    ends: Ends,
    asked: AtomicU64,
    /// Set when no more questions are asked.
    over: AtomicBool,
}

impl World {
    async fn new(limits: Limits, tokens: Tokens, faults: Faults, answer_tokens: u32) -> Arc<Self> {
        let options = Options {
            keys: [(KEY.to_owned(), Some(limits))].into(),
            tokens,
            latency: Duration::from_millis(50)..Duration::from_millis(400),
            faults,
            seed: 7,
            ..Options::default()
        };
        let clock = Arc::new(SystemClock);
        let provider = LlmApi::start(options, clock.clone()).await.unwrap();
        let tenant = Tenant::from_toml(&format!(
            "id = \"acme\"\nname = \"Acme\"\n[llm]\nprovider = \"openai\"\nmodel = \"m\"\napi_base = \"{}\"\n\
             api_key = \"{KEY}\"\nrequests_per_minute = {}\ntokens_per_minute = {}\nanswer_tokens = {answer_tokens}\n",
            provider.api_base(),
            limits.requests,
            limits.tokens,
        ));
        let store = Arc::new(MemoryStore::open(MemoryDisk::new(NonZeroU32::MIN), clock));
        let (ends, asked, over) = (Ends::default(), AtomicU64::new(0), AtomicBool::new(false));
        Arc::new(Self { provider, store, tenant: Arc::new(tenant.unwrap()), ends, asked, over })
    }

    /// Starts a node that is asked `a_second` questions a second until `over`. It dies when the set is dropped.
    fn node(self: &Arc<Self>, name: &str, a_second: f64) -> JoinSet<()> {
        // A hanging call times out early, so that the test meets it often.
        let options = llm::Options {
            timeout: Duration::from_secs(2),
            egress: heddle_connectors::egress::Egress::with_loopback(),
            ..llm::Options::default()
        };
        let llm = Llm::new(&options, self.store.clone(), Arc::new(SystemClock), name.to_owned());
        let (llm, world) = (Arc::new(llm.unwrap()), self.clone());
        let mut work = JoinSet::new();
        work.spawn(async move {
            let mut turns = JoinSet::new();
            let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / a_second));
            while !world.over.load(Ordering::Relaxed) {
                ticks.tick().await;
                while let Some(ended) = turns.try_join_next() {
                    ended.unwrap();
                }
                let (llm, world) = (llm.clone(), world.clone());
                turns.spawn(async move { world.turn(&llm).await });
            }
            while let Some(ended) = turns.join_next().await {
                ended.unwrap();
            }
        });
        work
    }

    /// Runs one turn, until it is answered or falls back.
    async fn turn(&self, llm: &Llm) {
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        let asked = format!("What about number {number}?");
        let question = Question {
            at: Timestamp::EPOCH,
            tools: Vec::new(),
            steps: Vec::new(),
            outgoing: Outgoing::default(),
            other_names: Vec::new(),
            tenant: self.tenant.clone(),
            turn: TurnId(MessageKey::from_bytes(u128::from(number).to_be_bytes())),
            attempt: 1,
            messages: vec![asked.clone()],
            history: Vec::new(),
            passages: Vec::new(),
            name: None,
        };
        let asking = async {
            loop {
                match llm.answer(question.clone()).await {
                    Ok(answer) => return answer.text,
                    Err(ResponderError::Busy { retry_after, usage, .. }) if usage == Usage::default() => {
                        tokio::time::sleep(retry_after.unwrap_or(BUSY_PAUSE)).await;
                    }
                    Err(_) => return None,
                }
            }
        };
        match tokio::time::timeout(ANSWER_TIMEOUT, asking).await.ok().flatten() {
            Some(text) => {
                assert_eq!(text, format!("You asked: {asked}"), "an answer to another question");
                self.ends.answered.fetch_add(1, Ordering::Relaxed);
            }
            None => drop(self.ends.fallback.fetch_add(1, Ordering::Relaxed)),
        }
    }

    fn account(&self) -> Account {
        self.provider.account(KEY)
    }

    /// Stops asking, and waits until each turn of these nodes ends, within its timeout.
    async fn settle(&self, nodes: Vec<JoinSet<()>>) {
        self.over.store(true, Ordering::Relaxed);
        // What is left of the waiting ones has its minute.
        let all = async {
            for mut node in nodes {
                while let Some(ended) = node.join_next().await {
                    ended.unwrap();
                }
            }
        };
        tokio::time::timeout(ANSWER_TIMEOUT + Duration::from_secs(10), all).await.unwrap();
    }

    fn ended(&self) -> u64 {
        self.ends.answered.load(Ordering::Relaxed) + self.ends.fallback.load(Ordering::Relaxed)
    }

    /// No question was paid twice: no node has crashed.
    fn assert_paid_once(&self) {
        let twice: Vec<_> = self.provider.paid().into_iter().filter(|(_, paid)| paid.len() > 1).collect();
        assert!(twice.is_empty(), "{twice:?}");
    }
}

fn limits(requests: u64, tokens: u64) -> Limits {
    Limits { requests: requests.try_into().unwrap(), tokens: tokens.try_into().unwrap() }
}

/// A little of each.
fn faults() -> Faults {
    Faults {
        rate_limited: 0.005,
        retry_after: Duration::from_secs(1),
        server_error: 0.01,
        hang: 0.01,
        hang_for: Duration::from_secs(30),
        truncated: 0.01,
    }
}

/// All scenes at once, each with a provider of its own: each has to see a whole minute.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_use_nearly_all_of_a_key_and_never_more_even_where_one_dies() {
    tokio::join!(requests_are_the_limit(), tokens_are_the_limit(), a_node_dies_and_comes_back());
}

/// Waits until a moment that long after the start.
async fn until(start: Duration, after: Duration) {
    tokio::time::sleep((start + after).saturating_sub(SystemClock.elapsed())).await;
}

/// The interval that is measured begins twenty seconds after the first question, and has whole minutes. 600 requests
/// a minute are allowed and 720 asked for, so that from the fiftieth second on there are always some that wait.
async fn requests_are_the_limit() {
    let world = World::new(limits(600, 1_000_000), Tokens::default(), faults(), 100).await;
    let start = SystemClock.elapsed();
    let nodes: Vec<_> = ["a/1", "b/1", "c/1"].map(|name| world.node(name, 4.0)).into();
    let (from, long) = (BEGIN, Duration::from_secs(60) * minutes());
    until(start, from + long).await;
    let (requests, _) = world.provider.counted(KEY, start + from..start + from + long);
    world.settle(nodes).await;
    let (account, allowed) = (world.account(), 600 * u64::from(minutes()));
    println!("{requests} of {allowed} requests used; {account:?}; {:?}", world.ends);
    assert_eq!(account.violations, 0, "{account:?}");
    assert!(requests * 100 >= allowed * 97, "{requests} of {allowed}");
    for met in
        [account.rate_limited, account.server_errors, account.hung + account.abandoned, account.truncated]
    {
        assert!(met > 0, "a fault was not met: {account:?}");
    }
    assert_eq!(world.ended(), world.asked.load(Ordering::Relaxed), "each turn is answered or falls back");
    world.assert_paid_once();
}

/// A call takes about 240 tokens here and reserves about 340, and 200,000 are allowed: 833 calls a minute, where 5,000
/// requests were and 1,000 are asked for. The same interval is measured. What is reserved and not used can be used only
/// when the answer has come, so a little less of tokens is used than of requests.
async fn tokens_are_the_limit() {
    let tokens = Tokens { answer: Some(60), ..Tokens::default() };
    let world = World::new(limits(5_000, 200_000), tokens, faults(), 100).await;
    let start = SystemClock.elapsed();
    let nodes: Vec<_> = ["a/1", "b/1", "c/1"].map(|name| world.node(name, 5.5)).into();
    let (from, long) = (BEGIN, Duration::from_secs(60) * minutes());
    until(start, from + long).await;
    let (requests, used) = world.provider.counted(KEY, start + from..start + from + long);
    world.settle(nodes).await;
    let (account, allowed) = (world.account(), 200_000 * u64::from(minutes()));
    println!("{used} of {allowed} tokens used in {requests} requests; {account:?}; {:?}", world.ends);
    assert_eq!(account.violations, 0, "{account:?}");
    assert!(used * 100 >= allowed * 96, "{used} of {allowed}");
    assert_eq!(world.ended(), world.asked.load(Ordering::Relaxed), "each turn is answered or falls back");
    world.assert_paid_once();
}

/// The process that dies has used its part and gives nothing back; the one that takes its place asks at once for as
/// much again. Its part is missing for a minute, and the others use theirs.
async fn a_node_dies_and_comes_back() {
    let world = World::new(limits(300, 1_000_000), Tokens::default(), faults(), 100).await;
    let start = SystemClock.elapsed();
    let mut nodes: Vec<_> = ["a/1", "b/1", "c/1"].map(|name| world.node(name, 4.0)).into();
    // All of the minute is used by then, or nearly.
    until(start, Duration::from_secs(22)).await;
    let crashed = SystemClock.elapsed();
    nodes[1] = world.node("b/2", 8.0);
    until(start, Duration::from_secs(90)).await;
    let before = world.provider.counted(KEY, start..crashed).0;
    let after = world.provider.counted(KEY, crashed..start + Duration::from_secs(90)).0;
    drop(nodes);
    let account = world.account();
    println!("{before} requests before the crash, {after} in 68 s after it; {account:?}");
    assert_eq!(account.violations, 0, "{account:?}");
    assert!(before > 200, "what had been used was too little to show anything: {before}");
    assert!(after > 160, "the others and who came back go on: {after}");
    world.assert_paid_once();
}
