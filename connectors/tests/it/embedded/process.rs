//! A second process, and one that is killed.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;

use heddle_connectors::embedded::{Embedded, OpenError};
use heddle_schemas::ports::state::State as _;

use crate::embedded::{Fixture, batch, has};

/// Environment variable with the folder of a child process.
const DIR: &str = "HEDDLE_TEST_EMBEDDED_DIR";

fn child(fixture: &Fixture, test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]).env(DIR, &fixture.options.dir);
    command
}

#[expect(clippy::disallowed_methods, reason = "a child process takes its folder from the environment")]
fn from_environment() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.options.dir = std::env::var(DIR).unwrap().into();
    fixture
}

#[test]
#[ignore = "run by a_folder_is_refused_to_a_second_process"]
fn finds_the_folder_in_use() {
    let error = from_environment().try_open().unwrap_err();
    assert!(matches!(error, OpenError::InUse(_)), "{error:?}");
}

#[tokio::test]
async fn a_folder_is_refused_to_a_second_process() {
    let fixture = Fixture::new();
    let store = fixture.open();
    assert!(child(&fixture, "embedded::process::finds_the_folder_in_use").output().unwrap().status.success());
    store.close().await;
    let free = child(&fixture, "embedded::process::finds_the_folder_in_use").output().unwrap();
    assert!(!free.status.success(), "closed, it is free");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by acknowledged_batches_survive_a_kill"]
async fn commits_until_it_is_killed() {
    let mut fixture = from_environment();
    fixture.options =
        heddle_connectors::embedded::Options { dir: fixture.options.dir, ..Fixture::small().options };
    let store = fixture.open();
    let mut tasks = Vec::new();
    for task in 0..4_u64 {
        let store: Arc<Embedded> = store.clone();
        tasks.push(tokio::spawn(async move {
            for number in 0.. {
                let number = number * 4 + task;
                store.commit(batch(number)).await.unwrap();
                println!("acknowledged {number}");
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn acknowledged_batches_survive_a_kill() {
    let fixture = Fixture::small();
    for lines in [1, 40, 300] {
        let mut child = child(&fixture, "embedded::process::commits_until_it_is_killed")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let acknowledgements = output.lines().map_while(Result::ok).filter_map(|line| {
            line.split("acknowledged ").nth(1).and_then(|number| number.trim().parse::<u64>().ok())
        });
        let acknowledged: Vec<_> = acknowledgements.take(lines).collect();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(acknowledged.len(), lines);
        let store = fixture.open();
        for number in acknowledged {
            assert!(has(&store, number).await, "{number}");
        }
    }
}
