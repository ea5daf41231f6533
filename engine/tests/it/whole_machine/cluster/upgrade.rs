//! A cluster whose nodes are upgraded and rolled back one at a time, under load.
//!
//! `HEDDLE_OTHER_BUILD` names a `heddle` of another build. The cluster starts as that build; one node becomes this
//! one, goes back, and comes again; then the others follow, and each writes its own versions of records in the end.
//! Without it, both builds are this one, and the shorter play shows that a restart with the other setting of
//! `engine.write_version`, and back, loses nothing and sends nothing twice.

use std::path::PathBuf;

use heddle_simulator::fault::Faults;

use super::play::{Fault, Options, Play};

#[expect(clippy::disallowed_methods, reason = "a switch of this test alone")]
fn other_build() -> Option<PathBuf> {
    std::env::var_os("HEDDLE_OTHER_BUILD").map(PathBuf::from)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_upgraded_and_rolled_back_under_load_and_nothing_is_lost_or_sent_twice() {
    let _alone = crate::whole_machine::alone().await;
    let this = PathBuf::from(env!("CARGO_BIN_EXE_heddle"));
    let other = other_build();
    let (before, writes) = match &other {
        Some(other) => (other.clone(), None),
        None => (this.clone(), Some("previous")),
    };
    let from = |node| Fault::Installed { node, binary: before.clone(), writes };
    let to = |node, writes| Fault::Installed { node, binary: this.clone(), writes: Some(writes) };
    let scenes = match &other {
        Some(_) => vec![
            Fault::Joins,
            to(0, "previous"),
            from(0),
            to(0, "previous"),
            to(1, "previous"),
            to(2, "previous"),
            to(0, "newest"),
            to(1, "newest"),
            to(2, "newest"),
        ],
        None => vec![Fault::Joins, to(0, "newest"), from(0)],
    };
    let options = Options {
        name: "upgrade",
        scenes: scenes.len(),
        binary: before.clone(),
        config: String::new(),
        // The policy for sends of unknown outcome is not what is tried here, and builds may differ in it.
        provider: Some(Faults::default()),
    };
    let mut play = Play::begin(options).await;
    for scene in scenes {
        play.act(scene).await;
    }
    play.end().await;
}
