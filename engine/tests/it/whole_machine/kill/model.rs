//! The same with a language model: what is called outside is counted there, through every kill.
//!
//! A question is paid again only if a kill fell into its call, or between its answer and what was written of it, and
//! then once at most. No limit is exceeded, every question is answered or the fallback is said, and the tenant's
//! usage counts each turn once.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use heddle_connectors::clock::SystemClock;
use heddle_schemas::id::AccountId;
use heddle_schemas::ports::clock::Clock as _;
use heddle_simulator::customers::{self, Customers, Question};
use heddle_simulator::graph::GraphApi;
use heddle_simulator::llm::{Faults, Limits, LlmApi, Options};
use heddle_simulator::webhooks::{self, Webhooks};
use rand::RngExt;

use crate::process::Node;
use crate::stage::Stage;
use crate::whole_machine::kill::{SMALL, kills};

const KEY: &str = "sk-sesame";
const FALLBACK: &str = "A colleague will get back to you.";
/// Maximum time for a node to record an answer.
const WRITTEN: Duration = Duration::from_millis(500);
const QUESTIONS: usize = 10;

fn accounts() -> Vec<AccountId> {
    vec!["3001".parse().unwrap()]
}

async fn provider(clock: Arc<SystemClock>) -> LlmApi {
    let limits = Limits { requests: 1_000.try_into().unwrap(), tokens: 1_000_000.try_into().unwrap() };
    let options = Options {
        keys: [(KEY.to_owned(), Some(limits))].into(),
        latency: Duration::from_millis(100)..Duration::from_millis(700),
        faults: Faults { server_error: 0.02, rate_limited: 0.01, truncated: 0.01, ..Faults::default() },
        ..Options::default()
    };
    LlmApi::start(options, clock).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_of_a_model_is_repeated_once_at_most_and_only_where_a_kill_fell_into_it() {
    let _alone = crate::whole_machine::alone().await;
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(SystemClock);
    let stage = Stage { tenant: "model", accounts: accounts(), word: "sesame" };
    let graph = GraphApi::start(stage.provider(), clock.clone()).await.unwrap();
    let provider = provider(clock.clone()).await;
    let node = Node::new(folder.path(), "m", SMALL);
    let file = format!(
        "{}[llm]\nprovider = \"openai\"\nmodel = \"m\"\napi_base = \"{}\"\napi_key = \"{KEY}\"\n\
         requests_per_minute = 1000\ntokens_per_minute = 1000000\n",
        stage.file(&graph.api_base()),
        provider.api_base(),
    );
    let tenant = folder.path().join("tenant.toml");
    std::fs::write(&tenant, file).unwrap();
    node.command(&["tenant", "apply", tenant.to_str().unwrap()]);

    let secrets: HashMap<_, _> =
        accounts().into_iter().map(|account| (account, stage.app_secret())).collect();
    let hooks = webhooks::Options {
        longest_pause: Duration::from_millis(500),
        ..webhooks::Options::new(node.url(), secrets)
    };
    let webhooks = Webhooks::start(hooks, &graph, clock.clone()).unwrap();
    let cast = customers::Options {
        customers: NonZeroUsize::new(2 * kills()).unwrap(),
        questions: NonZeroUsize::new(QUESTIONS).unwrap(),
        patience: Some(Duration::from_secs(180)),
        start: Duration::from_secs(1) * u32::try_from(kills()).unwrap(),
        think: Duration::from_millis(10)..Duration::from_millis(300),
        extras: 0.0,
        ..customers::Options::new(accounts(), vec![Question::new(["What about number {n}?"])])
    };
    let customers = Customers::start(cast, &graph, &webhooks, clock.clone(), None).unwrap();

    let mut running = node.start().await;
    let mut killed = Vec::new();
    let done = customers.done();
    tokio::pin!(done);
    while killed.len() < kills() {
        let moment = Duration::from_millis(rand::rng().random_range(150..1500));
        tokio::select! {
            () = &mut done => break,
            () = tokio::time::sleep(moment) => {}
        }
        let from = clock.elapsed();
        running.kill();
        killed.push(from..clock.elapsed());
        running = node.start().await;
    }
    assert!(tokio::time::timeout(Duration::from_secs(240), done).await.is_ok(), "{:?}", customers.progress());
    running.settled().await;
    let usage = running.admin("tenants/model/usage").await;
    let repeated = running.metric("heddle_conversation_repeated_calls_total").await;
    running.terminate();

    let (report, account, paid) = (customers.report(), provider.account(KEY), provider.paid());
    let again: Vec<_> = paid.iter().filter(|(_, paid)| paid.len() > 1).collect();
    let abandoned = again.iter().filter(|(_, paid)| paid[0].abandoned).count();
    println!(
        "{} kills: {} questions, {} paid again ({abandoned} of them killed in the call), the last node repeated \
         {repeated}; {account:?}; {}",
        killed.len(),
        report.questions,
        again.len(),
        usage["total"],
    );
    assert!(killed.len() >= kills().min(3), "the customers were done before the node was killed at all");
    assert!(report.is_clean(), "{report:#?}");
    assert_eq!(account.violations, 0, "{account:?}");
    for (asked, paid) in again {
        assert!(paid.len() == 2, "{asked} was paid {} times: {paid:?}", paid.len());
        let until = paid[0].ended.unwrap_or(paid[0].arrived) + WRITTEN;
        let fell_into =
            |kill: &&std::ops::Range<Duration>| kill.end >= paid[0].arrived && kill.start <= until;
        assert!(killed.iter().any(|kill| fell_into(&kill)), "{asked}: {paid:?}, killed at {killed:?}");
    }
    let mut answered = 0;
    for (customer, replies) in customers.replies().into_iter().enumerate() {
        assert_eq!(replies.len(), QUESTIONS);
        for (number, reply) in replies.iter().enumerate() {
            let right = format!("You asked: What about number {}?", customer * QUESTIONS + number);
            assert!(reply.text == right || reply.text == FALLBACK, "{} is no answer to {right}", reply.text);
            answered += u64::from(reply.text == right);
        }
    }
    assert!(
        answered * 100 > report.questions * 80,
        "{answered} of {} have their own answer",
        report.questions
    );
    assert_eq!(usage["total"]["turns"], report.questions, "{usage:#}");
    assert_eq!(usage["total"]["messages"], report.questions, "{usage:#}");
}
