//! Conditional writes: expiry, and races beyond the port's suite.

use std::time::Duration;

use bytes::Bytes;
use heddle_connectors::cql::Cql;
use heddle_schemas::id::{MessageKey, TurnId};
use heddle_schemas::ports::state::{StoreError, Swap};
use heddle_schemas::table::Key;
use heddle_schemas::time::Timestamp;

use crate::cql::{NOW, await_expiry, conversation, open};

const HOUR: Duration = Duration::from_secs(3_600);

async fn swap(
    store: &Cql,
    key: &Key,
    expected: Option<&'static str>,
    new: Option<&'static str>,
    expires: Option<Timestamp>,
    now: Timestamp,
) -> Swap {
    let bytes = |text: Option<&'static str>| text.map(Bytes::from);
    store.compare_and_set(key, bytes(expected), bytes(new), expires, now).await.unwrap()
}

fn found(value: Option<&'static str>) -> Swap {
    Swap::Found(value.map(Bytes::from))
}

/// One row of each table that is written on a condition.
fn keys(tenant: &str) -> [Key; 4] {
    let turn = TurnId(MessageKey::from_bytes([9; 16]));
    let tenant_id = tenant.parse().unwrap();
    [
        Key::claim(&conversation(tenant, 1), turn),
        Key::alias(&tenant_id, MessageKey::from_bytes([1; 16])),
        Key::tenant_key(&tenant_id),
        Key::document(&tenant_id, ""),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_table_that_is_written_on_a_condition_keeps_it() {
    let store = open().await;
    for key in keys("cas-tables") {
        assert_eq!(swap(&store, &key, None, None, None, NOW).await, Swap::Done);
        assert_eq!(swap(&store, &key, Some("a"), Some("b"), None, NOW).await, found(None));
        assert_eq!(swap(&store, &key, None, Some("a"), None, NOW).await, Swap::Done);
        assert_eq!(swap(&store, &key, None, None, None, NOW).await, found(Some("a")));
        assert_eq!(swap(&store, &key, None, Some("b"), None, NOW).await, found(Some("a")));
        assert_eq!(swap(&store, &key, Some("x"), Some("b"), None, NOW).await, found(Some("a")));
        assert_eq!(swap(&store, &key, Some("a"), Some(""), None, NOW).await, Swap::Done);
        assert_eq!(store.get(&key, NOW).await.unwrap(), Some(Bytes::new()));
        assert_eq!(swap(&store, &key, Some("x"), None, None, NOW).await, found(Some("")));
        assert_eq!(swap(&store, &key, Some(""), None, None, NOW).await, Swap::Done);
        assert_eq!(store.get(&key, NOW).await.unwrap(), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ended_row_counts_as_absent_in_every_way() {
    let store = open().await;
    for key in keys("cas-ended") {
        let end = NOW.after(HOUR);
        assert_eq!(swap(&store, &key, None, Some("a"), Some(end), NOW).await, Swap::Done);
        assert_eq!(swap(&store, &key, Some("a"), None, None, end).await, found(None));
        assert_eq!(swap(&store, &key, Some("a"), Some("b"), None, end).await, found(None));
        assert_eq!(swap(&store, &key, None, None, None, end).await, Swap::Done);
        let later = end.after(HOUR);
        assert_eq!(swap(&store, &key, None, Some("c"), Some(later), end).await, Swap::Done);
        assert_eq!(store.get(&key, end).await.unwrap().as_deref(), Some(&b"c"[..]));
        assert_eq!(swap(&store, &key, Some("c"), Some("d"), None, end).await, Swap::Done);
        assert_eq!(store.get(&key, later).await.unwrap().as_deref(), Some(&b"d"[..]), "it has no end now");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_takes_an_ended_row_away_and_another_may_follow() {
    let store = open().await;
    let [key, ..] = keys("cas-ttl");
    // First without an end and then with one: no trace of the first may outlive the second.
    assert_eq!(swap(&store, &key, None, Some("a"), None, NOW).await, Swap::Done);
    let end = NOW.after(Duration::from_secs(1));
    assert_eq!(swap(&store, &key, Some("a"), Some("b"), Some(end), NOW).await, Swap::Done);
    await_expiry(&store, &key).await;
    assert_eq!(swap(&store, &key, None, None, None, NOW).await, Swap::Done);
    assert_eq!(swap(&store, &key, None, Some("c"), None, NOW).await, Swap::Done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_racers_for_an_ended_row_one_wins() {
    let store = open().await;
    let [key, ..] = keys("cas-race");
    let end = NOW.after(HOUR);
    swap(&store, &key, None, Some("old"), Some(end), NOW).await;
    let racers: Vec<_> = (0..16_u8)
        .map(|racer| {
            let (store, key) = (store.clone(), key.clone());
            tokio::spawn(async move {
                let mine = Bytes::from(vec![racer]);
                (store.compare_and_set(&key, None, Some(mine.clone()), None, end).await.unwrap(), mine)
            })
        })
        .collect();
    let mut winners = Vec::new();
    let mut results = Vec::new();
    for racer in racers {
        match racer.await.unwrap() {
            (Swap::Done, mine) => winners.push(mine),
            (Swap::Found(found), _) => results.push(found),
        }
    }
    let stored = store.get(&key, end).await.unwrap();
    assert_eq!(winners.len(), 1);
    assert_eq!(stored.as_ref(), winners.first());
    assert!(results.iter().all(|found| *found == stored));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_large_a_value_is_refused() {
    let store = open().await;
    let [key, ..] = keys("cas-large");
    let value = Bytes::from(vec![0; store.max_value_bytes() + 1]);
    let refused = store.compare_and_set(&key, None, Some(value), None, NOW).await;
    assert!(matches!(refused, Err(StoreError::TooLarge { .. })), "{refused:?}");
}
