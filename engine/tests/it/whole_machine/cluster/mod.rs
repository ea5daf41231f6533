//! Several nodes on real Kafka and CQL: work spreads, nodes come and go, die and wake up again, servers
//! restart, and I1, I2 and I3 hold, counted outside them all.
//!
//! The simulated Graph API, its customers and the balancer in front of the nodes live in this process. Every
//! scene of the play is one fault in the middle of the load, after which nothing may have come twice; in the end
//! every message has its 200, every question its answer, nothing came twice or out of order, and the database,
//! read beside the engine, says the same: each message seen, each reply sent, nothing left in work.
//!
//! An ordinary run plays each fault once; `HEDDLE_FAULTS=60` plays everything ten times.

mod play;
mod site;
mod upgrade;

use self::play::{Fault, Options, Play};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_and_servers_come_and_go_and_nothing_is_lost_or_sent_twice() {
    let _alone = crate::whole_machine::alone().await;
    let options = Options {
        name: "cluster",
        scenes: faults(),
        binary: env!("CARGO_BIN_EXE_heddle").into(),
        config: REPEATS.to_owned(),
        provider: None,
    };
    let mut play = Play::begin(options).await;
    for number in 0..faults() {
        play.act(Fault::ALL[number % Fault::ALL.len()].clone()).await;
    }
    play.end().await;
}

/// As many repetitions of a reply of unknown outcome as a provider that drops 1 % of the calls can make necessary.
const REPEATS: &str = "engine.unknown_repeats = 8\n";

/// Scenes of an ordinary run.
const FAULTS: usize = Fault::ALL.len();

#[expect(clippy::disallowed_methods, reason = "a switch of this test alone")]
fn faults() -> usize {
    std::env::var("HEDDLE_FAULTS").ok().and_then(|faults| faults.parse().ok()).unwrap_or(FAULTS)
}
