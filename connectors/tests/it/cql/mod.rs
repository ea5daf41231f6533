//! Behaviour of rows in a cluster beyond the state port, against a real server.
//!
//! Tests share a keyspace and keep apart by tenants and partitions of their own.

mod agenda;
mod conditional;
mod measured;
mod opening;
mod ownership;
mod rows;
mod server;

use std::sync::Arc;
use std::time::Duration;

use heddle_connectors::cql::Cql;
use heddle_schemas::id::{AccountKey, ChannelKind, ContactId, ConversationId};
use heddle_schemas::table::Key;
use heddle_schemas::time::Timestamp;

/// 2026-01-01T00:00:00Z, by the clock that rows are read and written by.
const NOW: Timestamp = Timestamp::from_secs(1_767_225_600);

async fn open() -> Arc<Cql> {
    Cql::open(&server::keyspace().await).await.unwrap()
}

/// Waits until the server has taken the row away: it is read as of a time before its end, so that only the
/// server's time to live can hide it.
async fn await_expiry(store: &Cql, key: &Key) {
    let expired = async {
        while store.get(key, NOW).await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(30), expired).await.is_ok(), "the server keeps {key:?}");
}

fn conversation(tenant: &str, contact: u8) -> ConversationId {
    ConversationId {
        tenant: tenant.parse().unwrap(),
        channel: ChannelKind::Whatsapp,
        account: "1122".parse().unwrap(),
        contact: ContactId::from_bytes([contact; 16]),
    }
}

fn account(tenant: &str) -> AccountKey {
    AccountKey {
        tenant: tenant.parse().unwrap(),
        channel: ChannelKind::Whatsapp,
        account: "1122".parse().unwrap(),
    }
}
