//! Costs of reads and writes relative to each other. The numbers are printed (`--nocapture`); the assertions leave room
//! for a busy machine. The benchmark `cluster_turn` measures the same at length.

#![expect(clippy::disallowed_methods, reason = "what is measured is real time")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt as _};
use heddle_connectors::cql::Cql;
use heddle_schemas::id::{ConversationId, MessageKey};
use heddle_schemas::ports::state::{Scan, Write};
use heddle_schemas::table::{Key, Partition};
use scylla::client::session::Session;
use scylla::statement::Consistency;
use scylla::statement::prepared::PreparedStatement;

use crate::cql::{NOW, conversation, open, server};

const IN_FLIGHT: usize = 256;

async fn fill(store: &Cql, of: &ConversationId, rows: u64) {
    let rows: Vec<_> =
        (0..rows).map(|number| Write::put(Key::history(of, number), vec![7_u8; 200])).collect();
    stream::iter(rows.chunks(500))
        .for_each_concurrent(8, |rows| async move { store.write(rows, None, NOW).await.unwrap() })
        .await;
}

/// The median time of reading the last sixteen rows.
async fn last_sixteen(store: &Cql, of: &ConversationId) -> Duration {
    let mut times = Vec::new();
    for _ in 0..200 {
        let started = Instant::now();
        let rows = store.scan(&Scan::last(Partition::history(of), 16), NOW).await.unwrap();
        times.push(started.elapsed());
        assert_eq!(rows.len(), 16);
    }
    times.sort();
    times[times.len() / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_long_history_costs_as_much_as_a_short_one() {
    let store = open().await;
    let (long, short) = (conversation("measured-scan", 1), conversation("measured-scan", 2));
    fill(&store, &long, 100_000).await;
    fill(&store, &short, 100).await;
    last_sixteen(&store, &short).await;
    let (of_short, of_long) = (last_sixteen(&store, &short).await, last_sixteen(&store, &long).await);
    println!("last 16 rows: of 100 {of_short:?}, of 100,000 {of_long:?}");
    assert!(of_long < of_short * 10 + Duration::from_millis(5), "{of_short:?} {of_long:?}");
}

/// Runs it `times` times, with the given concurrency, and returns the rate per second.
async fn rate<F: Future<Output = ()>>(times: u32, once: impl Fn(u32) -> F) -> f64 {
    let started = Instant::now();
    stream::iter(0..times).for_each_concurrent(IN_FLIGHT, once).await;
    f64::from(times) / started.elapsed().as_secs_f64()
}

/// Prepared insert of one row by the driver, at a quorum: the baseline.
async fn raw(session: &Session) -> PreparedStatement {
    let keyspace = server::keyspace().await.keyspace;
    let table = format!("{keyspace}.raw");
    let create = format!("CREATE TABLE IF NOT EXISTS {table} (id blob PRIMARY KEY, value blob)");
    session.query_unpaged(create, ()).await.unwrap();
    prepare(session, &format!("INSERT INTO {table} (id, value) VALUES (?, ?)")).await
}

async fn prepare(session: &Session, cql: &str) -> PreparedStatement {
    let mut prepared = session.prepare(cql).await.unwrap();
    prepared.set_consistency(Consistency::LocalQuorum);
    prepared
}

/// The same row into the same table, without the store.
async fn same(session: &Session) -> PreparedStatement {
    let keyspace = server::keyspace().await.keyspace;
    let insert = "(tenant, id, kind, row, value, expires) VALUES (?, ?, ?, ?, ?, ?) USING TTL ?";
    prepare(session, &format!("INSERT INTO {keyspace}.conversation {insert}")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_costs_not_much_more_than_a_row() {
    const TIMES: u32 = 4_000;
    let store = open().await;
    let session = Arc::new(server::session().await);
    let (insert, same) = (raw(&session).await, same(&session).await);
    let value = vec![7_u8; 600];
    let row = |number: u32| {
        let (session, insert, value) = (&session, &insert, &value);
        async move {
            session.execute_unpaged(insert, (&number.to_be_bytes()[..], value)).await.unwrap();
        }
    };
    let bare = |number: u32| {
        let (session, same, value) = (&session, &same, &value);
        async move {
            let mut id = *b"whatsapp/1122/0123456789abcdef";
            id[26..].copy_from_slice(&number.to_be_bytes());
            let values = ("measured-bare", &id[..], 1_i8, &b""[..], value, i64::MAX, 0_i32);
            session.execute_unpaged(same, values).await.unwrap();
        }
    };
    let of = |number: u32| {
        let mut of = conversation("measured-turns", 0);
        let mut contact = [0; 16];
        contact[..4].copy_from_slice(&number.to_be_bytes());
        of.contact = heddle_schemas::id::ContactId::from_bytes(contact);
        of
    };
    let head = |number: u32| {
        let (store, value) = (&store, &value);
        async move {
            let writes = [Write::put(Key::head(&of(number)), value.clone())];
            store.write(&writes, None, NOW).await.unwrap();
        }
    };
    // Head, history, marker: three rows of two tables.
    let turn = |number: u32| {
        let (store, value) = (&store, &value);
        async move {
            let of = of(number);
            let writes = [
                Write::put(Key::head(&of), value[..200].to_vec()),
                Write::put(Key::history(&of, 1), value[..400].to_vec()),
                Write::put(Key::marker(&of, MessageKey::from_bytes([1; 16])), ""),
            ];
            store.write(&writes, None, NOW).await.unwrap();
        }
    };
    rate(TIMES, row).await;
    rate(TIMES / 2, turn).await;
    let (rows, bare) = (rate(TIMES, row).await, rate(TIMES, bare).await);
    let (heads, turns) = (rate(TIMES, head).await, rate(TIMES, turn).await);
    println!(
        "writes a second at {IN_FLIGHT} in flight: raw row {rows:.0}; the head's row by the driver alone \
         {bare:.0} ({:.2} of raw), by the store {heads:.0} ({:.2}); a turn of three rows {turns:.0} ({:.2})",
        bare / rows,
        heads / rows,
        turns / rows
    );
    assert!(
        turns > rows / 20.0,
        "a turn of three rows costs more than twenty raw rows: {turns:.0} against {rows:.0}"
    );
}
