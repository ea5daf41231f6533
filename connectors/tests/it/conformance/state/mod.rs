//! Contract of every state store: rows, batches, fences and time to live; the submodules hold the rest.

mod conditional;
mod scans;
mod walks;

pub(crate) use conditional::*;
pub(crate) use scans::*;
pub(crate) use walks::*;

use std::time::Duration;

use bytes::Bytes;
use heddle_schemas::id::{ChannelKind, ContactId, ConversationId, MessageKey, TurnId};
use heddle_schemas::ledger::Position;
use heddle_schemas::ports::clock::Clock as _;
use heddle_schemas::ports::state::{Batch, Scan, State, StoreError, Write};
use heddle_schemas::table::{Key, Partition};
use heddle_schemas::topic::Epoch;

use crate::conformance::stores::{Fixture, INBOUND, OUTBOUND, record, too_large, values};

macro_rules! promises_of_a_state_store {
    ($given:expr) => {
        crate::conformance::promises!(
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
                a_batch_under_the_current_fence_is_accepted,
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
                a_conditional_write_applies_only_to_the_expected_value,
                a_conditional_delete_applies_only_to_the_expected_value,
                a_conditional_write_finds_an_ended_row_absent,
                of_racing_inserts_exactly_one_wins,
                racing_updates_lose_none,
                conditional_writes_outlive_a_restart,
                a_walk_brings_every_row_of_a_tenant_and_no_other,
                a_walk_keeps_to_its_tables,
                a_walk_shows_rows_as_they_are_now,
                a_walk_goes_on_after_a_restart,
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
    let turn = TurnId(MessageKey::from_bytes([9; 16]));
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
        let Err(StoreError::Fenced { partition, epoch: fenced_at }) = refused else { panic!("{refused:?}") };
        assert_eq!((partition, fenced_at), (INBOUND, epoch));
        assert_untouched(&fixture, at[0]).await;
    }
    fixture.reopen().await;
    assert_untouched(&fixture, at[0]).await;
}

pub(crate) async fn a_batch_under_the_current_fence_is_accepted(mut fixture: Fixture) {
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
