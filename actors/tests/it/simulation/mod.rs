//! The whole engine in memory, with paused time and seeded faults: I1, I2, I3 and I9 hold for every seed.
//!
//! A seed decides everything: how many tenants and customers, what they say and by which way in, what
//! connectors publish beside it that is wrong, when the node dies, what the store, the provider and the responder get wrong, how the clock jumps. After the storm the world
//! is calm until nothing moves any more, and then everything is counted.
//!
//! `HEDDLE_SEEDS=1000` runs more seeds than the usual 200, `HEDDLE_SEED=42` replays one and prints it.

mod connector;
mod provider;
mod responder;
mod world;

use std::panic::AssertUnwindSafe;

use self::world::World;

/// Seeds of an ordinary run.
const SEEDS: u64 = 200;

#[expect(clippy::disallowed_methods, reason = "switches of this test alone")]
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

fn run(seed: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime can be built");
    runtime.block_on(async {
        let world = World::new(seed);
        world.run().await;
    });
}

#[test]
fn every_seed_keeps_order_and_loses_and_doubles_nothing() {
    if let Some(seed) = setting("HEDDLE_SEED") {
        run(seed);
        return;
    }
    let seeds = setting("HEDDLE_SEEDS").unwrap_or(SEEDS);
    let failed: Vec<_> = (0..seeds)
        .filter(|&seed| std::panic::catch_unwind(AssertUnwindSafe(|| run(seed))).is_err())
        .collect();
    assert!(failed.is_empty(), "seeds {failed:?} of {seeds} failed; HEDDLE_SEED=N replays one");
}
