//! Conformance suites of the ports, run on each implementation.
//!
//! A suite is a module of async functions, each one promise of the port's documentation, over the
//! port alone. An implementation is registered once, in `stores.rs` or below.

mod channel;
mod channels;
mod cluster;
mod keys;
mod knowledge;
mod log;
mod sends;
mod state;
mod stores;

use heddle_memory::MemoryKnowledge;

/// Makes a test of each promise of a suite: `$given` is made anew for each.
macro_rules! promises {
    ($suite:ident, $given:expr, [$($promise:ident),* $(,)?]) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                crate::conformance::$suite::$promise($given).await;
            }
        )*
    };
}
pub(crate) use promises;

/// Runs the suites `log`, `state` and `keys` on a store.
macro_rules! on_store {
    ($name:ident, $backend:expr) => {
        mod $name {
            mod log {
                crate::conformance::log::promises!(crate::conformance::stores::Fixture::new($backend).await);
            }
            mod state {
                crate::conformance::state::promises!(
                    crate::conformance::stores::Fixture::new($backend).await
                );
            }
            mod keys {
                crate::conformance::keys::promises!(crate::conformance::stores::Fixture::new($backend).await);
            }
        }
    };
}

// A store is added here.
on_store!(memory, crate::conformance::stores::MemoryBackend::whole());
on_store!(embedded, crate::conformance::stores::EmbeddedBackend::new());
on_store!(memory_split, crate::conformance::stores::MemoryBackend::split());
on_store!(kafka_and_cql, crate::conformance::cluster::ClusterBackend::new());

/// Master keys in Vault: created to derive by context, and not.
mod vault_derived {
    crate::conformance::keys::promises!(
        crate::conformance::stores::Fixture::new(crate::conformance::stores::MemoryBackend::whole())
            .await
            .with_vault(true)
            .await
    );
}
mod vault_plain {
    crate::conformance::keys::promises!(
        crate::conformance::stores::Fixture::new(crate::conformance::stores::MemoryBackend::whole())
            .await
            .with_vault(false)
            .await
    );
}

mod memory_knowledge {
    crate::conformance::knowledge::promises!(crate::conformance::MemoryKnowledge::default());
}

mod tantivy_knowledge {
    crate::conformance::knowledge::promises!(
        crate::conformance::stores::Fixture::new(crate::conformance::stores::MemoryBackend::whole())
            .await
            .knowledge()
    );
}

// A channel is added in `channels.rs`.
