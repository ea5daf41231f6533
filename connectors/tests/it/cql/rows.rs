//! Rows of every table, timestamps, ends, sizes.

use std::time::Duration;

use bytes::Bytes;
use heddle_connectors::cql::Cql;
use heddle_schemas::id::{ContactId, MessageKey, OutboundId, TurnId};
use heddle_schemas::ports::state::{Scan, StoreError, Write};
use heddle_schemas::table::{Key, Partition};
use heddle_schemas::topic::{Topic, TopicPartition};

use crate::cql::{NOW, account, await_expiry, conversation, open};

const HOUR: Duration = Duration::from_secs(3_600);

fn outbound(index: u16) -> OutboundId {
    OutboundId::of_turn(ContactId::from_bytes([1; 16]), TurnId(MessageKey::from_bytes([1; 16])), index)
}

/// Rows of every table, two of each that has several in a partition.
fn keys(tenant: &str, number: u32) -> Vec<Key> {
    let of = conversation(tenant, 1);
    let account = account(tenant);
    let id = tenant.parse().unwrap();
    let message = MessageKey::from_bytes([7; 16]);
    vec![
        Key::head(&of),
        Key::history(&of, 1),
        Key::history(&of, 2),
        Key::marker(&of, message),
        Key::claim(&of, TurnId(message)),
        Key::delivery(&of, &outbound(0)),
        Key::delivery(&of, &outbound(1)),
        Key::agenda(TopicPartition { topic: Topic::Outbound, partition: number }, NOW, b"a"),
        Key::send(&account, &outbound(0)),
        Key::send(&account, &outbound(1)),
        Key::backlog(&account, 1),
        Key::unknown(&account, &outbound(0)),
        Key::alias(&id, message),
        Key::contact(&id, ContactId::from_bytes([7; 16])),
        Key::tenant_key(&id),
        Key::contact_key(&id, ContactId::from_bytes([7; 16])),
        Key::document(&id, ""),
        Key::document(&id, "faq"),
        Key::erasure(&id, message),
        Key::open_erasure(&id, ContactId::from_bytes([7; 16])),
        Key::access(Some(&id), 1),
        Key::access(Some(&id), 2),
    ]
}

async fn put(store: &Cql, key: &Key, value: &'static str, timestamp: i64) {
    store.write(&[Write::put(key.clone(), value)], Some(timestamp), NOW).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_table_keeps_its_rows_apart() {
    let store = open().await;
    let keys = keys("rows-tables", 900);
    let writes: Vec<_> = keys.iter().map(|key| Write::put(key.clone(), key.as_bytes().clone())).collect();
    store.write(&writes, None, NOW).await.unwrap();
    for key in &keys {
        assert_eq!(store.get(key, NOW).await.unwrap().as_ref(), Some(key.as_bytes()), "{key:?}");
    }
    let deletes: Vec<_> = keys.iter().map(|key| Write::delete(key.clone())).collect();
    store.write(&deletes, None, NOW).await.unwrap();
    for key in &keys {
        assert_eq!(store.get(key, NOW).await.unwrap(), None, "{key:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_timestamp_loses_whenever_it_comes() {
    let store = open().await;
    for key in keys("rows-stale", 901) {
        put(&store, &key, "new", 1_000).await;
        put(&store, &key, "stale", 999).await;
        assert_eq!(store.get(&key, NOW).await.unwrap().as_deref(), Some(&b"new"[..]), "{key:?}");
        store.write(&[Write::delete(key.clone())], Some(999), NOW).await.unwrap();
        assert!(store.get(&key, NOW).await.unwrap().is_some(), "a stale delete: {key:?}");
        store.write(&[Write::delete(key.clone())], Some(1_001), NOW).await.unwrap();
        put(&store, &key, "stale", 1_000).await;
        assert_eq!(store.get(&key, NOW).await.unwrap(), None, "{key:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_batch_loses_whole() {
    let store = open().await;
    let of = conversation("rows-batch", 1);
    let batch = |value: &'static str| {
        let marker = Key::marker(&of, MessageKey::from_bytes([3; 16]));
        [Key::head(&of), Key::history(&of, 1), marker].map(|key| Write::put(key, value))
    };
    store.write(&batch("new"), Some(1_000), NOW).await.unwrap();
    store.write(&batch("stale"), Some(999), NOW).await.unwrap();
    for write in batch("new") {
        assert_eq!(store.get(&write.key, NOW).await.unwrap(), write.value);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_is_absent_from_its_expiry_on() {
    let store = open().await;
    let end = NOW.after(HOUR);
    let keys = keys("rows-end", 903);
    let writes: Vec<_> = keys.iter().map(|key| Write::put_until(key.clone(), "a", end)).collect();
    store.write(&writes, None, NOW).await.unwrap();
    for key in &keys {
        assert!(store.get(key, NOW).await.unwrap().is_some(), "{key:?}");
        assert_eq!(store.get(key, end).await.unwrap(), None, "{key:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_deletes_expired_rows() {
    let store = open().await;
    let keys = keys("rows-ttl", 902);
    let end = NOW.after(Duration::from_secs(1));
    let writes: Vec<_> = keys.iter().map(|key| Write::put_until(key.clone(), "a", end)).collect();
    store.write(&writes, None, NOW).await.unwrap();
    for key in &keys {
        await_expiry(&store, key).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ended_rows_do_not_hide_others_over_many_pages() {
    let store = open().await;
    for partition in [
        Partition::history(&conversation("rows-pages", 1)),
        Partition::documents(&"rows-pages".parse().unwrap()),
    ] {
        let end = NOW.after(HOUR);
        let row = |number: u32| partition.row(&number.to_be_bytes());
        let ending = (0..700).map(|number| Write::put_until(row(number), "ended", end));
        let lasting = (700..1_400).map(|number| Write::put(row(number), "lasts"));
        let writes: Vec<_> = ending.chain(lasting).collect();
        store.write(&writes, None, NOW).await.unwrap();
        let first = store.scan(&Scan::first(partition.clone(), 3), end).await.unwrap();
        assert_eq!(first.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(), [700, 701, 702].map(row));
        let all = store.scan(&Scan::last(partition.clone(), 5_000), end).await.unwrap();
        assert_eq!(all.len(), 700);
        assert_eq!(all[0].0, row(1_399));
        let all = store.scan(&Scan::first(partition.clone(), 5_000), NOW).await.unwrap();
        assert_eq!(all.len(), 1_400);
        assert!(all.is_sorted(), "in their order over every page");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_value_is_accepted_and_a_larger_one_changes_nothing() {
    let store = open().await;
    let of = conversation("rows-large", 1);
    let value = Bytes::from(vec![7; store.max_value_bytes()]);
    let writes = [Write::put(Key::head(&of), value.clone()), Write::put(Key::history(&of, 1), value.clone())];
    store.write(&writes, None, NOW).await.unwrap();
    assert_eq!(store.get(&Key::head(&of), NOW).await.unwrap(), Some(value.clone()));
    assert_eq!(store.get(&Key::history(&of, 1), NOW).await.unwrap(), Some(value));
    let larger = Bytes::from(vec![7; store.max_value_bytes() + 1]);
    let writes = [Write::put(Key::history(&of, 2), "small"), Write::put(Key::history(&of, 3), larger)];
    let refused = store.write(&writes, None, NOW).await;
    assert!(matches!(refused, Err(StoreError::TooLarge { .. })), "{refused:?}");
    assert_eq!(store.get(&Key::history(&of, 2), NOW).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unsupported_scans_and_swaps_are_refused() {
    let store = open().await;
    let send = Key::send(&account("rows-odd"), &outbound(0));
    let scanned = store.scan(&Scan::first(send.partition(), 1), NOW).await;
    assert!(matches!(&scanned, Err(error) if !error.is_transient()), "{scanned:?}");
    let swapped = store.compare_and_set(&send, None, None, None, NOW).await;
    assert!(matches!(&swapped, Err(error) if !error.is_transient()), "{swapped:?}");
}
