//! The real process, killed with SIGKILL at random moments under load: I1, I2 and I3 hold, counted outside it.
//!
//! The simulated Graph API and its customers live in this process and outlive every node. Each kill hits the
//! node in the middle of webhooks, turns and sends; the next one starts on the same folder and address. In
//! the end every message has its 200, every question its answer, nothing came twice or out of order; the
//! last node drains on SIGTERM; no log line and no stored file shows what was said, a number or a token.
//!
//! `HEDDLE_KILLS=200` kills more often than the usual 12.

mod model;

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use crate::process::Node;
use crate::stage::Stage;
use heddle_connectors::clock::SystemClock;
use heddle_schemas::id::AccountId;
use heddle_simulator::customers::{self, Customers, Question};
use heddle_simulator::graph::GraphApi;
use heddle_simulator::webhooks::{self, Webhooks};
use rand::RngExt;

/// Kills of an ordinary run.
const KILLS: usize = 12;
/// Word that occurs in every customer's text, and nowhere else.
const WORD: &str = "zanzibar";

/// Segments and checkpoints so small that many are met, and short waits.
const SMALL: &str = "log.segment_bytes = 1048576\nstate.checkpoint_bytes = 1048576\n\
                     engine.send_timeout = \"2s\"\nengine.unknown_wait = \"5s\"\nengine.unknown_repeats = 8\n";

#[expect(clippy::disallowed_methods, reason = "a switch of this test alone")]
fn kills() -> usize {
    std::env::var("HEDDLE_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(KILLS)
}

fn accounts() -> Vec<AccountId> {
    ["2001", "2002"].map(|account| account.parse().unwrap()).into()
}

fn stage() -> Stage {
    Stage { tenant: "kill", accounts: accounts(), word: "sesame" }
}

/// Questions that each have their own answer.
fn questions(things: &[(&str, String)]) -> Vec<Question> {
    let of_thing = |(number, (thing, price)): (usize, &(&str, String))| {
        let lines = match number % 3 {
            0 => Question::new([&*format!("What does a {thing} cost {WORD}?")]),
            1 => Question::new([WORD, &*format!("What does a {thing} cost?")]),
            _ => Question::new([&*format!("a {thing}"), WORD, "what does it cost?"]),
        };
        lines.expecting(price)
    };
    things.iter().enumerate().map(of_thing).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_killed_again_and_again_loses_nothing_and_sends_nothing_twice() {
    let _alone = crate::whole_machine::alone().await;
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(SystemClock);
    let stage = stage();
    let graph = GraphApi::start(stage.provider(), clock.clone()).await.unwrap();
    let (document, things) = crate::stage::catalogue();
    std::fs::write(folder.path().join("catalogue.md"), document).unwrap();
    let node = Node::new(folder.path(), "a", SMALL);
    // On the folder itself: nothing runs yet.
    let tenant = folder.path().join("tenant.toml");
    std::fs::write(&tenant, stage.file(&graph.api_base())).unwrap();
    node.command(&["tenant", "apply", tenant.to_str().unwrap()]);
    node.command(&["kb", "add", "kill", folder.path().join("catalogue.md").to_str().unwrap()]);

    let secrets: HashMap<_, _> =
        accounts().into_iter().map(|account| (account, stage.app_secret())).collect();
    let hooks = webhooks::Options {
        longest_pause: Duration::from_millis(500),
        ..webhooks::Options::new(node.url(), secrets)
    };
    let webhooks = Webhooks::start(hooks, &graph, clock.clone()).unwrap();
    // Customers come one after the other, so that some are always there to be interrupted; each asks fewer
    // questions than the 45 messages that one person may be sent at once.
    let cast = customers::Options {
        customers: NonZeroUsize::new(4 * kills()).unwrap(),
        questions: NonZeroUsize::new(30).unwrap(),
        patience: Some(Duration::from_secs(120)),
        start: Duration::from_secs(1) * u32::try_from(kills()).unwrap(),
        think: Duration::from_millis(10)..Duration::from_millis(300),
        extras: 0.0,
        ..customers::Options::new(accounts(), questions(&things))
    };
    let customers = Customers::start(cast, &graph, &webhooks, clock, None).unwrap();

    let mut running = node.start().await;
    let mut killed = 0;
    let done = customers.done();
    tokio::pin!(done);
    while killed < kills() {
        let moment = Duration::from_millis(rand::rng().random_range(150..1500));
        tokio::select! {
            () = &mut done => break,
            () = tokio::time::sleep(moment) => {}
        }
        running.kill();
        killed += 1;
        running = node.start().await;
    }
    assert!(tokio::time::timeout(Duration::from_secs(240), done).await.is_ok(), "{:?}", customers.progress());
    assert!(
        tokio::time::timeout(Duration::from_secs(60), webhooks.idle()).await.is_ok(),
        "{}",
        webhooks.open()
    );
    // What was interrupted last may still be waiting to be settled.
    running.settled().await;
    let unknown = running.metric("heddle_account_unknown_total").await;
    assert_eq!(running.metric("heddle_dlq_records_total").await, 0.0);
    let used = node.usage(stage.tenant);
    running.terminate();

    let report = customers.report();
    let twice: Vec<_> = graph.times_taken().into_values().filter(|times| *times > 1).collect();
    println!(
        "{killed} kills: {} messages, {} questions, {} replies, {} doubled, {} out of order, {} webhooks retried, \
         {} duplicates sent; the last node met {unknown} unknown sends; answers took p50 {:?}, p99 {:?}, max {:?}",
        report.messages,
        report.questions,
        report.replies,
        report.doubled,
        report.out_of_order,
        report.webhooks.retried,
        report.duplicates,
        report.latency.p50,
        report.latency.p99,
        report.latency.max,
    );
    assert!(killed >= kills().min(3), "the customers were done before the node was killed at all");
    assert!(report.is_clean(), "{report:#?}");
    assert!(twice.is_empty(), "{twice:?}");
    assert_eq!(used, (report.replies, report.replies), "I5: turns and messages used");

    // As much of a number as no time of day holds by chance.
    let numbers = ["15550000", "sesame", WORD, "wamid", "crowns"];
    node.assert_log_shows_none_of(&numbers);
    node.assert_files_show_none_of(&["sesame", WORD, "15550000", "crowns"]);
}
