//! What every implementation of a port must do, run on each.
//!
//! A suite is a module of async functions, each one promise of the port's documentation, over the
//! port alone. An implementation is registered once, in `stores.rs` or below.

#![expect(clippy::unwrap_used, reason = "a promise that is broken panics")]

mod channel;
mod channels;
mod cluster;
mod keys;
mod knowledge;
mod log;
mod sends;
#[path = "../common/services.rs"]
mod services;
mod state;
mod stores;
#[path = "../common/topics.rs"]
mod topics_of_tests;
#[path = "../common/vault.rs"]
mod vault;

use heddle_connectors::memory::MemoryKnowledge;

/// Makes a test of each promise of a suite: `$given` is made anew for each.
macro_rules! promises {
    ($suite:ident, $given:expr, [$($promise:ident),* $(,)?]) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                crate::$suite::$promise($given).await;
            }
        )*
    };
}
pub(crate) use promises;

/// Runs the suites `log`, `state` and `keys` on a store.
macro_rules! on_store {
    ($name:ident, $site:expr) => {
        mod $name {
            mod log {
                crate::log::promises!(crate::stores::Fixture::new($site).await);
            }
            mod state {
                crate::state::promises!(crate::stores::Fixture::new($site).await);
            }
            mod keys {
                crate::keys::promises!(crate::stores::Fixture::new($site).await);
            }
        }
    };
}

// A store is added here.
on_store!(memory, crate::stores::MemorySite::whole());
on_store!(embedded, crate::stores::EmbeddedSite::new());
on_store!(memory_split, crate::stores::MemorySite::split());
on_store!(kafka_and_cql, crate::cluster::ClusterSite::new());

/// Master keys in Vault: made to derive by context, and not.
mod vault_derived {
    crate::keys::promises!(
        crate::stores::Fixture::new(crate::stores::MemorySite::whole()).await.with_vault(true).await
    );
}
mod vault_plain {
    crate::keys::promises!(
        crate::stores::Fixture::new(crate::stores::MemorySite::whole()).await.with_vault(false).await
    );
}

mod memory_knowledge {
    crate::knowledge::promises!(crate::MemoryKnowledge::default());
}

mod tantivy_knowledge {
    crate::knowledge::promises!(
        crate::stores::Fixture::new(crate::stores::MemorySite::whole()).await.knowledge()
    );
}

// A channel is added in `channels.rs`.
