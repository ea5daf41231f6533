//! Master keys of the real process: rotated while it serves, refused when they are wrong, kept in Vault.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::process::Node;
use crate::stage::Stage;
use heddle_connectors::clock::SystemClock;
use heddle_connectors_testing::vault::Transit;
use heddle_schemas::id::AccountId;
use heddle_simulator::customers::{self, Customers, Question};
use heddle_simulator::graph::GraphApi;
use heddle_simulator::webhooks::{self, Webhooks};
use serde_json::Value;

const WORD: &str = "zanzibar";

fn accounts() -> Vec<AccountId> {
    ["3001", "3002"].map(|account| account.parse().unwrap()).into()
}

fn stage() -> Stage {
    Stage { tenant: "turns", accounts: accounts(), word: "sesame" }
}

fn questions(things: &[(&str, String)]) -> Vec<Question> {
    let of_thing = |(thing, price): &(&str, String)| {
        Question::new([&*format!("What does a {thing} cost {WORD}?")]).expecting(price)
    };
    things.iter().map(of_thing).collect()
}

/// A tenant without channels.
fn idle(folder: &Path, id: &str) -> String {
    let file = folder.join(format!("{id}.toml"));
    std::fs::write(&file, format!("id = \"{id}\"\nname = \"{id}\"\n")).unwrap();
    file.display().to_string()
}

fn json(node: &Node, arguments: &[&str]) -> Value {
    let (code, printed, said) = node.output(arguments);
    assert_eq!(code, 0, "{arguments:?}: {printed}{said}");
    serde_json::from_str(&printed).unwrap()
}

fn masters(node: &Node) -> Vec<(String, u64, bool)> {
    let status = json(node, &["keys", "status", "--json"]);
    let of = |master: &Value| {
        let role = master["role"].as_str().unwrap().to_owned();
        (role, master["tenants"].as_u64().unwrap(), master["store"].as_bool().unwrap())
    };
    status["masters"].as_array().unwrap().iter().map(of).collect()
}

#[test]
fn a_wrong_or_missing_master_key_is_refused_at_start_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let key = |name: &str| folder.path().join(name).display().to_string();
    let [a, b] = ["a.key", "b.key"].map(key);
    let node = Node::new(folder.path(), "n", "");
    for file in [&a, &b] {
        node.command(&["keys", "new", file]);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
    let (code, _, said) = node.output(&["keys", "new", &a]);
    assert!(code == 1 && said.contains("is there already"), "{code}: {said}");

    node.configure(&format!("keys.master = \"file:{a}\"\n"));
    node.command(&["tenant", "apply", &idle(folder.path(), "one")]);
    node.configure(&format!("keys.master = \"file:{b}\"\n"));
    for command in [&["serve"][..], &["tenant", "apply", &idle(folder.path(), "two")], &["keys", "rotate"]] {
        let (code, _, said) = node.output(command);
        assert!(code == 2 && said.contains("keys.former") && said.contains("b.key"), "{code}: {said}");
    }
    let gone = key("gone.key");
    node.configure(&format!("keys.master = \"file:{b}\"\nkeys.former = [\"file:{gone}\"]\n"));
    let (code, checked, _) = node.output(&["check-config"]);
    assert!(
        code == 2 && checked.contains("keys.former") && checked.contains("gone.key"),
        "{code}: {checked}"
    );
    node.configure(&format!("keys.master = \"file:{gone}\"\n"));
    let (code, _, said) = node.output(&["serve"]);
    assert!(code == 2 && said.contains("missing") && said.contains("gone.key"), "{code}: {said}");
    assert!(!Path::new(&gone).exists());

    // Both known: it opens, before anything is rewrapped and after.
    node.configure(&format!("keys.master = \"file:{b}\"\nkeys.former = [\"file:{a}\"]\n"));
    assert_eq!(masters(&node), [("present".to_owned(), 0, false), ("former".to_owned(), 1, true)]);
    node.command(&["tenant", "apply", &idle(folder.path(), "two")]);
    // Beside the second tenant's there is the engine's own, of the audit log, which the rotation begins.
    let rotated = json(&node, &["keys", "rotate", "--json"]);
    assert_eq!(
        (&rotated["rewrapped"], &rotated["already"], &rotated["complete"]),
        (&1.into(), &2.into(), &true.into())
    );
    let (_, shown, _) = node.output(&["keys", "status"]);
    assert!(shown.contains("can leave keys.former"), "{shown}");
    node.configure(&format!("keys.master = \"file:{b}\"\n"));
    assert_eq!(masters(&node), [("present".to_owned(), 3, true)]);
    node.configure(&format!("keys.master = \"file:{a}\"\n"));
    assert_eq!(node.output(&["tenant", "list"]).0, 2, "the previous key alone is not enough any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_master_key_is_rotated_while_messages_flow_and_none_is_lost() {
    let _alone = crate::whole_machine::alone().await;
    let folder = tempfile::tempdir().unwrap();
    let key = |name: &str| folder.path().join(name).display().to_string();
    let [a, b] = ["a.key", "b.key"].map(key);
    let clock = Arc::new(SystemClock);
    let stage = stage();
    let graph = GraphApi::start(stage.provider(), clock.clone()).await.unwrap();
    let (document, things) = crate::stage::catalogue();
    std::fs::write(folder.path().join("catalogue.md"), document).unwrap();
    let quick = "engine.send_timeout = \"2s\"\nengine.unknown_wait = \"5s\"\nengine.unknown_repeats = 8\n";
    let node = Node::new(folder.path(), "n", &format!("keys.master = \"file:{a}\"\n{quick}"));
    for file in [&a, &b] {
        node.command(&["keys", "new", file]);
    }
    let tenant = folder.path().join("tenant.toml");
    std::fs::write(&tenant, stage.file(&graph.api_base())).unwrap();
    node.command(&["tenant", "apply", tenant.to_str().unwrap()]);
    node.command(&["kb", "add", "turns", folder.path().join("catalogue.md").to_str().unwrap()]);
    node.configure(&format!("keys.master = \"file:{b}\"\nkeys.former = [\"file:{a}\"]\n{quick}"));
    let running = node.start().await;

    let secrets: HashMap<_, _> =
        accounts().into_iter().map(|account| (account, stage.app_secret())).collect();
    let hooks = webhooks::Options::new(node.url(), secrets);
    let webhooks = Webhooks::start(hooks, &graph, clock.clone()).unwrap();
    let cast = customers::Options {
        customers: NonZeroUsize::new(8).unwrap(),
        questions: NonZeroUsize::new(10).unwrap(),
        patience: Some(Duration::from_secs(120)),
        start: Duration::from_secs(2),
        think: Duration::from_millis(10)..Duration::from_millis(300),
        extras: 0.0,
        ..customers::Options::new(accounts(), questions(&things))
    };
    let customers = Customers::start(cast, &graph, &webhooks, clock, None).unwrap();
    let done = customers.done();
    tokio::pin!(done);
    // Rotated again and again, and tenants come meanwhile.
    let mut rotations = 0;
    let finished = tokio::time::timeout(Duration::from_secs(240), async {
        loop {
            tokio::select! {
                () = &mut done => break,
                () = tokio::time::sleep(Duration::from_millis(300)) => {}
            }
            let late = idle(folder.path(), &format!("late-{rotations}"));
            tokio::task::block_in_place(|| {
                node.command(&["tenant", "apply", &late]);
                let rotated = json(&node, &["keys", "rotate", "--json"]);
                let first = i32::from(rotations == 0);
                assert_eq!((&rotated["rewrapped"], &rotated["complete"]), (&first.into(), &true.into()));
            });
            rotations += 1;
        }
    });
    assert!(finished.await.is_ok(), "{:?}", customers.progress());
    assert!(tokio::time::timeout(Duration::from_secs(60), webhooks.idle()).await.is_ok());
    running.settled().await;
    assert_eq!(running.metric("heddle_dlq_records_total").await, 0.0);
    running.terminate();
    let report = customers.report();
    println!("{rotations} rotations, {} messages, {} replies", report.messages, report.replies);
    assert!(report.is_clean(), "{report:#?}");
    assert!(rotations >= 3, "nothing was rotated while messages came");

    // The previous key is not needed: everything starts and reads without it.
    node.configure(&format!("keys.master = \"file:{b}\"\n{quick}"));
    let running = node.start().await;
    assert_eq!(masters(&node), [("present".to_owned(), 2 + rotations, true)]);
    let found = json(&node, &["kb", "search", "turns", "lamp", "--json"]);
    assert!(!found.as_array().unwrap().is_empty(), "what was sealed before is read");
    running.terminate();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_in_vault_wraps_is_rotated_there_and_is_asked_for_at_start() {
    let folder = tempfile::tempdir().unwrap();
    let transit = Transit::start().await;
    let token = folder.path().join("token");
    std::fs::write(&token, format!("{}\n", heddle_connectors_testing::vault::TOKEN)).unwrap();
    let vaulted = format!(
        "keys.master = \"vault:{}\"\nkeys.token = \"file:{}\"\nkeys.timeout = \"2s\"\n",
        transit.key("heddle"),
        token.display()
    );
    let file = folder.path().join("a.key").display().to_string();
    let node = Node::new(folder.path(), "n", &format!("keys.master = \"file:{file}\"\n"));
    node.command(&["keys", "new", &file]);
    node.command(&["tenant", "apply", &idle(folder.path(), "one")]);

    let moving = format!("{vaulted}keys.former = [\"file:{file}\"]\n");
    node.configure(&moving);
    let blocking = |arguments: &[&str]| tokio::task::block_in_place(|| node.output(arguments));
    let (code, _, said) = blocking(&["serve"]);
    assert!(code == 2 && said.contains("vault write -f transit/keys/heddle"), "{code}: {said}");
    transit.make("heddle", true);
    let running = node.start().await;
    let rotated = tokio::task::block_in_place(|| json(&node, &["keys", "rotate", "--json"]));
    assert_eq!((&rotated["rewrapped"], &rotated["complete"]), (&1.into(), &true.into()));
    running.terminate();

    node.configure(&vaulted);
    let running = node.start().await;
    let decrypted = transit.calls("decrypt");
    let rotated = tokio::task::block_in_place(|| json(&node, &["keys", "rotate", "--new-version", "--json"]));
    assert_eq!((&rotated["rewrapped"], &rotated["complete"]), (&2.into(), &true.into()));
    // The audit log, which is written first, needs the engine's own key; the rotation itself needs none.
    assert_eq!(transit.calls("decrypt"), decrypted + 1, "no plain key passed through");
    transit.set_min_decryption("heddle", 2);
    let status = running.admin("keys").await;
    assert_eq!((&status["masters"][0]["version"], &status["masters"][0]["tenants"]), (&2.into(), &2.into()));

    // A running node goes on without Vault; one that starts says what is missing.
    transit.stop().await;
    assert_eq!(running.admin("tenants").await["items"].as_array().unwrap().len(), 1);
    running.terminate();
    let (code, _, said) = blocking(&["serve"]);
    assert!(
        code == 1 && said.contains("Vault at http://127.0.0.1") && said.contains("no connection"),
        "{code}: {said}"
    );
    transit.resume().await;
    std::fs::write(&token, "hvs.wrong\n").unwrap();
    let (code, _, said) = blocking(&["serve"]);
    assert!(code == 2 && said.contains("refuses the token") && !said.contains("hvs.wrong"), "{code}: {said}");
    std::fs::write(&token, heddle_connectors_testing::vault::TOKEN).unwrap();
    node.start().await.terminate();
}
