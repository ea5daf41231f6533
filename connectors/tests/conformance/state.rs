//! What every state store must do.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use heddle_schemas::id::{ChannelKind, ContactId, ConversationId};
use heddle_schemas::ledger::Position;
use heddle_schemas::ports::clock::Clock as _;
use heddle_schemas::ports::state::{Batch, Scan, State, StoreError, Swap, Write};
use heddle_schemas::table::{Key, Partition};
use heddle_schemas::topic::Epoch;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::stores::{Fixture, INBOUND, OUTBOUND, record, too_large, values};

macro_rules! promises_of_a_state_store {
    ($given:expr) => {
        crate::promises!(
            state,
            $given,
            [
                a_row_is_absent_until_it_is_written,
                a_row_without_content_is_there,
                a_deleted_row_is_absent,
                of_two_writes_of_a_row_in_a_batch_the_later_holds,
                commits_at_the_same_time_all_land,
                an_empty_batch_is_no_fault,
                outputs_are_in_the_log_and_consumed_records_acknowledged,
                consumed_records_may_be_ahead_of_others,
                a_batch_that_is_refused_changes_nothing,
                a_batch_under_a_fence_that_is_over_changes_nothing,
                a_batch_under_the_current_fence_is_taken,
                everything_outlives_a_restart,
                rows_come_in_their_order_from_either_end,
                a_scan_stays_in_its_partition,
                a_scan_keeps_its_bounds_and_its_limit,
                scans_agree_with_a_sorted_map,
                a_row_ends_at_its_time,
                ended_rows_do_not_count_for_a_limit,
                a_row_written_anew_lives_as_the_last_write_says,
                an_end_outlives_a_restart,
                a_conditional_insert_takes_place_once,
                a_conditional_write_takes_place_only_on_what_it_expects,
                a_conditional_delete_takes_place_only_on_what_it_expects,
                a_conditional_write_finds_an_ended_row_absent,
                of_racing_inserts_exactly_one_wins,
                racing_updates_lose_none,
                conditional_writes_outlive_a_restart,
            ]
        );
    };
}
pub(crate) use promises_of_a_state_store as promises;

const HOUR: Duration = Duration::from_secs(3_600);

fn conversation(tenant: &str, contact: u8) -> ConversationId {
    ConversationId {
        tenant: tenant.parse().unwrap(),
        channel: ChannelKind::Whatsapp,
        account: "1122".parse().unwrap(),
        contact: ContactId::from_bytes([contact; 16]),
    }
}

fn row(number: u64) -> Key {
    Key::history(&conversation("acme", 1), number)
}

fn history() -> Partition {
    Partition::history(&conversation("acme", 1))
}

fn claim() -> Key {
    let turn = heddle_schemas::id::TurnId(heddle_schemas::id::MessageKey::from_bytes([9; 16]));
    Key::claim(&conversation("acme", 1), turn)
}

fn writes(writes: impl IntoIterator<Item = Write>) -> Batch {
    Batch { writes: writes.into_iter().collect(), ..Batch::default() }
}

fn rows_of(numbers: impl IntoIterator<Item = u64>) -> Batch {
    writes(numbers.into_iter().map(|number| Write::put(row(number), number.to_string())))
}

async fn get(state: &dyn State, key: &Key) -> Option<String> {
    let value = state.get(key).await.unwrap()?;
    Some(String::from_utf8(value.to_vec()).unwrap())
}

async fn scan(state: &dyn State, scan: &Scan) -> Vec<u64> {
    let rows = state.scan(scan).await.unwrap();
    rows.iter()
        .map(|(key, value)| {
            let number = u64::from_be_bytes(key.row().try_into().unwrap());
            assert_eq!(value, number.to_string().as_bytes(), "each value is under its key");
            assert_eq!(key.partition(), scan.partition);
            number
        })
        .collect()
}

pub(crate) async fn a_row_is_absent_until_it_is_written(fixture: Fixture) {
    let state = fixture.state();
    assert_eq!(state.get(&row(1)).await.unwrap(), None);
    state.commit(rows_of([1])).await.unwrap();
    assert_eq!(get(&*state, &row(1)).await.as_deref(), Some("1"));
    assert_eq!(state.get(&row(2)).await.unwrap(), None);
}

pub(crate) async fn a_row_without_content_is_there(fixture: Fixture) {
    let state = fixture.state();
    state.commit(writes([Write::put(row(1), "")])).await.unwrap();
    assert_eq!(state.get(&row(1)).await.unwrap(), Some(Bytes::new()));
    let found = state.scan(&Scan::first(history(), 9)).await.unwrap();
    assert_eq!(found, [(row(1), Bytes::new())]);
}

pub(crate) async fn a_deleted_row_is_absent(fixture: Fixture) {
    let state = fixture.state();
    state.commit(rows_of([1, 2])).await.unwrap();
    state.commit(writes([Write::delete(row(1)), Write::delete(row(7))])).await.unwrap();
    assert_eq!(state.get(&row(1)).await.unwrap(), None);
    assert_eq!(scan(&*state, &Scan::first(history(), 9)).await, [2]);
}

pub(crate) async fn of_two_writes_of_a_row_in_a_batch_the_later_holds(fixture: Fixture) {
    let state = fixture.state();
    let batch = writes([
        Write::put(row(1), "first"),
        Write::put(row(2), "first"),
        Write::delete(row(3)),
        Write::put(row(1), "second"),
        Write::delete(row(2)),
        Write::put(row(3), "second"),
    ]);
    state.commit(batch).await.unwrap();
    let found = [get(&*state, &row(1)).await, get(&*state, &row(2)).await, get(&*state, &row(3)).await];
    assert_eq!(found.each_ref().map(Option::as_deref), [Some("second"), None, Some("second")]);
}

pub(crate) async fn commits_at_the_same_time_all_land(fixture: Fixture) {
    let writers: Vec<_> = (0..64_u64)
        .map(|writer| {
            let state = fixture.state();
            tokio::spawn(async move {
                for number in 0..8 {
                    let mut batch = rows_of([writer * 8 + number]);
                    batch.outputs = vec![record(OUTBOUND, "k", "reply")];
                    state.commit(batch).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let found = scan(&*fixture.state(), &Scan::first(history(), 1_000)).await;
    assert_eq!(found, (0..512).collect::<Vec<_>>());
    assert_eq!(fixture.records(OUTBOUND).await.len(), 512);
}

pub(crate) async fn an_empty_batch_is_no_fault(fixture: Fixture) {
    fixture.state().commit(Batch::default()).await.unwrap();
}

pub(crate) async fn outputs_are_in_the_log_and_consumed_records_acknowledged(mut fixture: Fixture) {
    let at = fixture.append(INBOUND, &["a", "b"]).await;
    let mut batch = rows_of([1]);
    batch.outputs = vec![record(OUTBOUND, "k", "x"), record(OUTBOUND, "k", "y")];
    batch.consumed = vec![(INBOUND, at[0])];
    fixture.state().commit(batch).await.unwrap();
    for _ in 0..2 {
        assert_eq!(values(&fixture.records(OUTBOUND).await), ["x", "y"]);
        assert_eq!(fixture.log().position(INBOUND).await.unwrap(), Position::at(at[1]));
        assert_eq!(get(&*fixture.state(), &row(1)).await.as_deref(), Some("1"));
        fixture.reopen().await;
    }
}

pub(crate) async fn consumed_records_may_be_ahead_of_others(mut fixture: Fixture) {
    let at = fixture.append(INBOUND, &["a", "b", "c"]).await;
    let consume = |offset| Batch { consumed: vec![(INBOUND, offset)], ..Batch::default() };
    fixture.state().commit(consume(at[2])).await.unwrap();
    fixture.state().commit(consume(at[0])).await.unwrap();
    fixture.reopen().await;
    let position = fixture.log().position(INBOUND).await.unwrap();
    assert_eq!(at.iter().map(|&offset| position.is_done(offset)).collect::<Vec<_>>(), [true, false, true]);
    fixture.state().commit(consume(at[1])).await.unwrap();
    assert_eq!(fixture.log().position(INBOUND).await.unwrap(), Position::at(at[2] + 1));
}

async fn assert_untouched(fixture: &Fixture, next: u64) {
    assert_eq!(fixture.state().get(&row(1)).await.unwrap(), None);
    assert_eq!(fixture.records(OUTBOUND).await, []);
    assert_eq!(fixture.log().position(INBOUND).await.unwrap(), Position::at(next));
}

pub(crate) async fn a_batch_that_is_refused_changes_nothing(fixture: Fixture) {
    let at = fixture.append(INBOUND, &["a"]).await;
    let mut batch = rows_of([1]);
    batch.outputs = vec![record(OUTBOUND, "k", "x"), too_large(OUTBOUND)];
    batch.consumed = vec![(INBOUND, at[0])];
    let refused = fixture.state().commit(batch).await;
    assert!(matches!(refused, Err(StoreError::TooLarge { .. })), "{refused:?}");
    assert_untouched(&fixture, at[0]).await;
}

pub(crate) async fn a_batch_under_a_fence_that_is_over_changes_nothing(mut fixture: Fixture) {
    let at = fixture.append(INBOUND, &["a"]).await;
    let mut over = fixture.fence(INBOUND).await;
    fixture.reopen().await;
    for epoch in [over.epoch, Epoch(0)] {
        over.epoch = epoch;
        let mut batch = rows_of([1]);
        batch.fence = Some(over);
        batch.outputs = vec![record(OUTBOUND, "k", "x")];
        batch.consumed = vec![(INBOUND, at[0])];
        let refused = fixture.state().commit(batch).await;
        let Err(StoreError::Fenced { partition, epoch: told }) = refused else { panic!("{refused:?}") };
        assert_eq!((partition, told), (INBOUND, epoch));
        assert_untouched(&fixture, at[0]).await;
    }
    fixture.reopen().await;
    assert_untouched(&fixture, at[0]).await;
}

pub(crate) async fn a_batch_under_the_current_fence_is_taken(mut fixture: Fixture) {
    for number in [1, 2] {
        let mut batch = rows_of([number]);
        batch.fence = Some(fixture.fence(INBOUND).await);
        fixture.state().commit(batch).await.unwrap();
        fixture.reopen().await;
    }
    assert_eq!(scan(&*fixture.state(), &Scan::first(history(), 9)).await, [1, 2]);
}

pub(crate) async fn everything_outlives_a_restart(mut fixture: Fixture) {
    fixture.state().commit(rows_of(0..100)).await.unwrap();
    fixture.state().commit(writes((0..50).map(|number| Write::delete(row(number * 2))))).await.unwrap();
    fixture.reopen().await;
    fixture.state().commit(rows_of([200])).await.unwrap();
    fixture.reopen().await;
    let expected: Vec<_> = (0..50).map(|number| number * 2 + 1).chain([200]).collect();
    assert_eq!(scan(&*fixture.state(), &Scan::first(history(), 1_000)).await, expected);
    assert_eq!(fixture.state().get(&row(2)).await.unwrap(), None);
}

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
    for (asked, expected) in [
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
        assert_eq!(scan(&*state, &asked).await, expected, "{asked:?}");
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

pub(crate) async fn a_row_ends_at_its_time(fixture: Fixture) {
    let state = fixture.state();
    let end = fixture.clock.now().after(HOUR);
    state.commit(writes([Write::put_until(row(1), "1", end), Write::put(row(2), "2")])).await.unwrap();
    fixture.clock.advance(HOUR - Duration::from_micros(1));
    assert_eq!(scan(&*state, &Scan::first(history(), 9)).await, [1, 2]);
    fixture.clock.advance(Duration::from_micros(1));
    assert_eq!(state.get(&row(1)).await.unwrap(), None);
    assert_eq!(scan(&*state, &Scan::first(history(), 9)).await, [2]);
}

pub(crate) async fn ended_rows_do_not_count_for_a_limit(fixture: Fixture) {
    let state = fixture.state();
    let end = fixture.clock.now().after(HOUR);
    let ending = (0..10).map(|number| Write::put_until(row(number), number.to_string(), end));
    state.commit(writes(ending)).await.unwrap();
    state.commit(rows_of([10, 11, 12])).await.unwrap();
    fixture.clock.advance(HOUR);
    assert_eq!(scan(&*state, &Scan::first(history(), 2)).await, [10, 11]);
}

pub(crate) async fn a_row_written_anew_lives_as_the_last_write_says(fixture: Fixture) {
    let state = fixture.state();
    let end = fixture.clock.now().after(HOUR);
    state.commit(writes([Write::put_until(row(1), "1", end), Write::put(row(2), "2")])).await.unwrap();
    state.commit(writes([Write::put(row(1), "1"), Write::put_until(row(2), "2", end)])).await.unwrap();
    fixture.clock.advance(2 * HOUR);
    assert_eq!(scan(&*state, &Scan::first(history(), 9)).await, [1]);
}

pub(crate) async fn an_end_outlives_a_restart(mut fixture: Fixture) {
    let end = fixture.clock.now().after(HOUR);
    fixture.state().commit(writes([Write::put_until(row(1), "1", end)])).await.unwrap();
    fixture.reopen().await;
    assert_eq!(get(&*fixture.state(), &row(1)).await.as_deref(), Some("1"));
    fixture.clock.advance(HOUR);
    assert_eq!(fixture.state().get(&row(1)).await.unwrap(), None);
    fixture.reopen().await;
    assert_eq!(fixture.state().get(&row(1)).await.unwrap(), None);
}

async fn swap(state: &dyn State, expected: Option<&'static str>, new: Option<&'static str>) -> Swap {
    let bytes = |text: Option<&'static str>| text.map(Bytes::from);
    state.compare_and_set(&claim(), bytes(expected), bytes(new), None).await.unwrap()
}

fn found(value: Option<&'static str>) -> Swap {
    Swap::Found(value.map(Bytes::from))
}

pub(crate) async fn a_conditional_insert_takes_place_once(fixture: Fixture) {
    let state = fixture.state();
    assert_eq!(swap(&*state, None, Some("a")).await, Swap::Done);
    assert_eq!(swap(&*state, None, Some("b")).await, found(Some("a")));
    assert_eq!(get(&*state, &claim()).await.as_deref(), Some("a"));
}

pub(crate) async fn a_conditional_write_takes_place_only_on_what_it_expects(fixture: Fixture) {
    let state = fixture.state();
    assert_eq!(swap(&*state, Some("a"), Some("b")).await, found(None));
    assert_eq!(swap(&*state, None, Some("a")).await, Swap::Done);
    assert_eq!(swap(&*state, Some("x"), Some("b")).await, found(Some("a")));
    assert_eq!(swap(&*state, Some("a"), Some("b")).await, Swap::Done);
    assert_eq!(swap(&*state, Some("b"), Some("")).await, Swap::Done);
    assert_eq!(swap(&*state, None, Some("c")).await, found(Some("")), "without content it is still there");
    assert_eq!(get(&*state, &claim()).await.as_deref(), Some(""));
}

pub(crate) async fn a_conditional_delete_takes_place_only_on_what_it_expects(fixture: Fixture) {
    let state = fixture.state();
    assert_eq!(swap(&*state, None, None).await, Swap::Done, "absent it was and is");
    swap(&*state, None, Some("a")).await;
    assert_eq!(swap(&*state, Some("x"), None).await, found(Some("a")));
    assert_eq!(swap(&*state, Some("a"), None).await, Swap::Done);
    assert_eq!(state.get(&claim()).await.unwrap(), None);
    assert_eq!(swap(&*state, None, Some("b")).await, Swap::Done);
}

pub(crate) async fn a_conditional_write_finds_an_ended_row_absent(fixture: Fixture) {
    let state = fixture.state();
    let end = fixture.clock.now().after(HOUR);
    let inserted = state.compare_and_set(&claim(), None, Some("a".into()), Some(end)).await.unwrap();
    assert_eq!(inserted, Swap::Done);
    assert_eq!(get(&*state, &claim()).await.as_deref(), Some("a"));
    fixture.clock.advance(HOUR);
    assert_eq!(state.get(&claim()).await.unwrap(), None);
    assert_eq!(swap(&*state, Some("a"), Some("b")).await, found(None));
    assert_eq!(swap(&*state, None, Some("b")).await, Swap::Done);
}

pub(crate) async fn of_racing_inserts_exactly_one_wins(fixture: Fixture) {
    let racers: Vec<_> = (0..32_u8)
        .map(|racer| {
            let state = fixture.state();
            tokio::spawn(async move {
                let mine = Bytes::from(vec![racer]);
                let swap = state.compare_and_set(&claim(), None, Some(mine.clone()), None).await.unwrap();
                (mine, swap)
            })
        })
        .collect();
    let mut winners = Vec::new();
    let mut told = Vec::new();
    for racer in racers {
        match racer.await.unwrap() {
            (mine, Swap::Done) => winners.push(mine),
            (_, Swap::Found(found)) => told.push(found),
        }
    }
    let stored = fixture.state().get(&claim()).await.unwrap();
    assert_eq!(winners.len(), 1);
    assert_eq!(stored.as_ref(), winners.first());
    assert!(told.iter().all(|found| *found == stored), "the losers are told who won");
}

pub(crate) async fn racing_updates_lose_none(fixture: Fixture) {
    let racers: Vec<_> = (0..8)
        .map(|_| {
            let state = fixture.state();
            tokio::spawn(async move {
                for _ in 0..16 {
                    count_one(&*state).await;
                }
            })
        })
        .collect();
    for racer in racers {
        racer.await.unwrap();
    }
    assert_eq!(get(&*fixture.state(), &claim()).await.as_deref(), Some("128"));
}

async fn count_one(state: &dyn State) {
    let mut expected = state.get(&claim()).await.unwrap();
    loop {
        let count: u32 =
            expected.as_deref().map_or(0, |text| std::str::from_utf8(text).unwrap().parse().unwrap());
        let new = Some(Bytes::from((count + 1).to_string()));
        match state.compare_and_set(&claim(), expected, new, None).await.unwrap() {
            Swap::Done => return,
            Swap::Found(found) => expected = found,
        }
    }
}

pub(crate) async fn conditional_writes_outlive_a_restart(mut fixture: Fixture) {
    swap(&*fixture.state(), None, Some("a")).await;
    fixture.reopen().await;
    assert_eq!(swap(&*fixture.state(), None, Some("b")).await, found(Some("a")));
    swap(&*fixture.state(), Some("a"), None).await;
    fixture.reopen().await;
    assert_eq!(fixture.state().get(&claim()).await.unwrap(), None);
}
