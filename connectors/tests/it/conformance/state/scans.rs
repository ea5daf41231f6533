//! Contract of every state store: rows of a partition in order.

use std::collections::BTreeMap;

use bytes::Bytes;
use heddle_schemas::ports::state::{Batch, Scan, Write};
use heddle_schemas::table::{Key, Partition};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::{claim, conversation, history, row, rows_of, scan, writes};
use crate::conformance::stores::Fixture;

pub(crate) async fn rows_come_in_their_order_from_either_end(fixture: Fixture) {
    let state = fixture.state();
    // 255 and 256 differ in the byte before the last.
    state.commit(rows_of([256, 3, 255, 1])).await.unwrap();
    assert_eq!(scan(&*state, &Scan::first(history(), 9)).await, [1, 3, 255, 256]);
    assert_eq!(scan(&*state, &Scan::last(history(), 9)).await, [256, 255, 3, 1]);
    assert_eq!(scan(&*state, &Scan::first(history(), 2)).await, [1, 3]);
    assert_eq!(scan(&*state, &Scan::last(history(), 2)).await, [256, 255]);
    assert_eq!(scan(&*state, &Scan::first(history(), 0)).await, [0_u64; 0]);
}

pub(crate) async fn a_scan_stays_in_its_partition(fixture: Fixture) {
    let state = fixture.state();
    let documents = |tenant: &str| Partition::documents(&tenant.parse().unwrap());
    // Neighbours in every way: a tenant whose name begins with the other's, the contacts below and
    // above, bytes at both ends of their range, another table of the same conversation.
    let mut neighbours = vec![Key::head(&conversation("acme", 1)), claim()];
    for (tenant, contact) in [("acme", 0), ("acme", 2), ("acme", 255), ("acm", 1), ("acme1", 1), ("b", 1)] {
        neighbours.push(Key::history(&conversation(tenant, contact), 1));
        neighbours.push(Key::history(&conversation(tenant, contact), u64::MAX));
    }
    neighbours.extend(["a", "ab", "b"].map(|tenant| documents(tenant).row(b"x")));
    let all = neighbours.iter().cloned().chain([row(0), row(u64::MAX)]);
    state.commit(writes(all.map(|key| Write::put(key.clone(), key.as_bytes().clone())))).await.unwrap();
    let keys = |rows: Vec<(Key, Bytes)>| rows.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    assert_eq!(keys(state.scan(&Scan::first(history(), 99)).await.unwrap()), [row(0), row(u64::MAX)]);
    assert_eq!(keys(state.scan(&Scan::last(history(), 99)).await.unwrap()), [row(u64::MAX), row(0)]);
    let of_a = documents("a");
    assert_eq!(keys(state.scan(&Scan::first(of_a.clone(), 99)).await.unwrap()), [of_a.row(b"x")]);
    let last = Partition::history(&conversation("acme", 255));
    assert_eq!(keys(state.scan(&Scan::last(last.clone(), 1)).await.unwrap()), [last.row(&[255; 8])]);
}

fn between(from: u64, to: Option<u64>, limit: usize, reverse: bool) -> Scan {
    let bound = |number: u64| Bytes::copy_from_slice(&number.to_be_bytes());
    Scan { partition: history(), from: bound(from), to: to.map(bound), limit, reverse }
}

pub(crate) async fn a_scan_keeps_its_bounds_and_its_limit(fixture: Fixture) {
    let state = fixture.state();
    state.commit(rows_of(0..10)).await.unwrap();
    for (range, expected) in [
        (between(3, Some(6), 9, false), &[3, 4, 5][..]),
        (between(3, Some(6), 9, true), &[5, 4, 3]),
        (between(3, Some(6), 2, false), &[3, 4]),
        (between(3, Some(6), 2, true), &[5, 4]),
        (between(8, None, 9, false), &[8, 9]),
        (between(8, None, 1, true), &[9]),
        (between(6, Some(6), 9, false), &[]),
        (between(6, Some(3), 9, false), &[]),
        (between(6, Some(3), 9, true), &[]),
        (between(50, None, 9, true), &[]),
    ] {
        assert_eq!(scan(&*state, &range).await, expected, "{range:?}");
    }
}

pub(crate) async fn scans_agree_with_a_sorted_map(mut fixture: Fixture) {
    let mut rng = StdRng::seed_from_u64(7);
    let mut model = BTreeMap::new();
    for round in 0..40 {
        let mut batch = Batch::default();
        for _ in 0..rng.random_range(1..20) {
            let number = rng.random_range(0..60_u64);
            if rng.random_bool(0.3) {
                model.remove(&number);
                batch.writes.push(Write::delete(row(number)));
            } else {
                model.insert(number, ());
                batch.writes.push(Write::put(row(number), number.to_string()));
            }
        }
        fixture.state().commit(batch).await.unwrap();
        if round % 10 == 9 {
            fixture.reopen().await;
        }
        let (from, to) = (rng.random_range(0..60_u64), rng.random_range(0..60_u64));
        let (limit, reverse) = (rng.random_range(0..20), rng.random_bool(0.5));
        let mut expected: Vec<_> =
            if from < to { model.range(from..to).map(|(&n, ())| n).collect() } else { vec![] };
        if reverse {
            expected.reverse();
        }
        expected.truncate(limit);
        let found = scan(&*fixture.state(), &between(from, Some(to), limit, reverse)).await;
        assert_eq!(found, expected, "round {round}: {from}..{to}, {limit}, reverse {reverse}");
    }
}
