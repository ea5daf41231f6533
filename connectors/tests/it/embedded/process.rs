//! A second process, and one that is killed.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;

use heddle_connectors::embedded::{Embedded, OpenError};
use heddle_schemas::ports::state::State as _;

use crate::embedded::{Site, batch, has};

/// Where the folder of a child process is told.
const DIR: &str = "HEDDLE_TEST_EMBEDDED_DIR";

fn child(site: &Site, test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]).env(DIR, &site.options.dir);
    command
}

#[expect(clippy::disallowed_methods, reason = "a child process is told its folder")]
fn told() -> Site {
    let mut site = Site::new();
    site.options.dir = std::env::var(DIR).unwrap().into();
    site
}

#[test]
#[ignore = "run by a_folder_is_refused_to_a_second_process"]
fn finds_the_folder_in_use() {
    let error = told().try_open().unwrap_err();
    assert!(matches!(error, OpenError::InUse(_)), "{error:?}");
}

#[tokio::test]
async fn a_folder_is_refused_to_a_second_process() {
    let site = Site::new();
    let store = site.open();
    assert!(child(&site, "embedded::process::finds_the_folder_in_use").output().unwrap().status.success());
    store.close().await;
    let free = child(&site, "embedded::process::finds_the_folder_in_use").output().unwrap();
    assert!(!free.status.success(), "closed, it is free");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by what_was_acknowledged_before_a_kill_is_there"]
async fn commits_until_it_is_killed() {
    let mut site = told();
    site.options = heddle_connectors::embedded::Options { dir: site.options.dir, ..Site::small().options };
    let store = site.open();
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
async fn what_was_acknowledged_before_a_kill_is_there() {
    let site = Site::small();
    for lines in [1, 40, 300] {
        let mut child = child(&site, "embedded::process::commits_until_it_is_killed")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let told = output.lines().map_while(Result::ok).filter_map(|line| {
            line.split("acknowledged ").nth(1).and_then(|number| number.trim().parse::<u64>().ok())
        });
        let acknowledged: Vec<_> = told.take(lines).collect();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(acknowledged.len(), lines);
        let store = site.open();
        for number in acknowledged {
            assert!(has(&store, number).await, "{number}");
        }
    }
}
