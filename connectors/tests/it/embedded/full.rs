//! A disk without space, and one that fails.

use std::sync::Arc;

use heddle_schemas::ports::log::{Log as _, StoreError};
use heddle_schemas::ports::state::{State as _, Swap};

use crate::embedded::disk::{Faults, FaultyDisk};
use crate::embedded::{Fixture, INBOUND, OUTBOUND, batch, has, record, records, row};

/// Commits two, one that fails under `faults`, and two more; returns the error of the failed one.
async fn fails_once(fixture: &Fixture, faults: Faults, leaves_it_open: bool) -> StoreError {
    let disk = FaultyDisk::default();
    let store = fixture.open_on(Arc::new(disk.clone())).unwrap();
    store.commit(batch(0)).await.unwrap();
    let first = store.append(vec![record(INBOUND, "a")]).await.unwrap();
    *disk.faults() = faults;
    let error = store.commit(batch(1)).await.unwrap_err();
    assert!(store.append(vec![record(INBOUND, "lost")]).await.is_err());
    let swap = store.compare_and_set(&row(90), None, Some("lost".into()), None).await;
    assert!(swap.is_err(), "{swap:?}");
    assert!(!has(&store, 1).await, "a failed commit is not visible");
    *disk.faults() = Faults::default();
    let next = store.append(vec![record(INBOUND, "b")]).await.unwrap();
    assert!(next > first, "a published offset is not assigned again");
    let swap = store.compare_and_set(&row(90), None, Some("won".into()), None).await.unwrap();
    assert_eq!(swap, Swap::Done, "a conditional write that failed is not remembered");
    store.commit(batch(2)).await.unwrap();
    let kept = [records(&store, INBOUND).await, records(&store, OUTBOUND).await];
    if leaves_it_open {
        store.close().await;
    }
    drop(store);
    let store = fixture.open();
    assert_eq!([records(&store, INBOUND).await, records(&store, OUTBOUND).await], kept);
    assert!(has(&store, 0).await && !has(&store, 1).await && has(&store, 2).await);
    assert_eq!(store.get(&row(90)).await.unwrap().as_deref(), Some(&b"won"[..]));
    error
}

#[tokio::test]
async fn without_space_nothing_is_lost_and_writing_goes_on_when_there_is_some() {
    for room in [0, 1, 15, 16, 40] {
        for close in [false, true] {
            let error =
                fails_once(&Fixture::new(), Faults { room: Some(room), ..Faults::default() }, close).await;
            assert!(matches!(error, StoreError::Full { .. }), "{room}: {error:?}");
            assert!(error.to_string().contains("free some"), "{error}");
        }
    }
}

#[tokio::test]
async fn without_space_for_a_new_segment_no_files_pile_up() {
    let fixture = Fixture::small();
    let disk = FaultyDisk::default();
    let store = fixture.open_on(Arc::new(disk.clone())).unwrap();
    let large = || vec![record(INBOUND, "x".repeat(1_500))];
    store.append(large()).await.unwrap();
    let before = fixture.segments().len();
    for room in [0, 20, 40, 500] {
        disk.faults().room = Some(room);
        for _ in 0..5 {
            let error = store.append(large()).await.unwrap_err();
            assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
        }
    }
    assert!(fixture.segments().len() <= before + 1, "{:?}", fixture.segments());
    disk.faults().room = None;
    store.append(large()).await.unwrap();
    drop(store);
    assert_eq!(records(&fixture.open(), INBOUND).await.len(), 2);
}

#[tokio::test]
async fn a_failed_sync_loses_nothing_and_acknowledges_nothing() {
    for cut_fails in [false, true] {
        for close in [false, true] {
            let faults = Faults { sync_fails: true, cut_fails, ..Faults::default() };
            let error = fails_once(&Fixture::new(), faults, close).await;
            assert!(matches!(error, StoreError::Unavailable { .. }), "{cut_fails}: {error:?}");
        }
    }
}

#[tokio::test]
async fn without_space_and_without_a_cut_the_outcome_is_said_to_be_unknown() {
    let faults = Faults { room: Some(30), cut_fails: true, ..Faults::default() };
    let error = fails_once(&Fixture::new(), faults, false).await;
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_failed_write_is_not_read_from_the_files_either() {
    let fixture = Fixture::small();
    let disk = FaultyDisk::default();
    let store = fixture.open_on(Arc::new(disk.clone())).unwrap();
    let value = |number: u32| format!("{number:0>400}");
    for number in 0..3 {
        store.append(vec![record(INBOUND, value(number))]).await.unwrap();
    }
    // The frame stays in the file, whole, and is void.
    *disk.faults() = Faults { sync_fails: true, cut_fails: true, ..Faults::default() };
    store.append(vec![record(INBOUND, value(99))]).await.unwrap_err();
    *disk.faults() = Faults::default();
    for number in 3..12 {
        store.append(vec![record(INBOUND, value(number))]).await.unwrap();
    }
    let expected: Vec<_> = (0..12).map(value).collect();
    for _ in 0..2 {
        let found = records(&store, INBOUND).await;
        assert_eq!(
            found.iter().map(|record| &record.value[..]).collect::<Vec<_>>(),
            expected.iter().map(String::as_bytes).collect::<Vec<_>>()
        );
    }
    drop(store);
    let found = records(&fixture.open(), INBOUND).await;
    assert_eq!(found.len(), 12);
}
