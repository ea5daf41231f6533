//! Locking and checks of the folder.

use heddle_connectors::embedded::{OpenError, SegmentError};
use heddle_schemas::ports::log::StoreError;
use heddle_schemas::ports::state::{Batch, Fence, State as _};
use heddle_schemas::topic::Epoch;

use crate::embedded::{Fixture, INBOUND, batch, has};

#[tokio::test]
async fn a_folder_is_opened_once_at_a_time() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let error = fixture.try_open().unwrap_err();
    assert!(matches!(&error, OpenError::InUse(dir) if *dir == fixture.options.dir), "{error:?}");
    assert!(error.to_string().contains("stop that one, or use another data_dir"), "{error}");
    store.commit(batch(0)).await.unwrap();
    store.close().await;
    let next = fixture.open();
    assert!(has(&next, 0).await, "closed, it is free, although a handle is left");
    assert!(matches!(store.get(&crate::embedded::row(0)).await, Err(StoreError::Closed)));
    assert!(matches!(store.commit(batch(1)).await, Err(StoreError::Closed)));
    assert!(matches!(store.checkpoint().await, Err(StoreError::Closed)));
}

#[tokio::test]
async fn a_folder_that_is_being_left_is_waited_for() {
    let fixture = Fixture::new();
    fixture.open().close().await;
    // As a process does that has inherited the handle and is about to drop it.
    let handle = std::fs::File::options().write(true).open(fixture.options.dir.join("lock")).unwrap();
    handle.lock().unwrap();
    let leaving = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(100));
        drop(handle);
    });
    fixture.open().close().await;
    leaving.join().unwrap();
}

#[tokio::test]
async fn another_number_of_partitions_is_refused() {
    for close in [false, true] {
        let mut fixture = Fixture::new();
        let store = fixture.open();
        store.commit(batch(0)).await.unwrap();
        if close {
            store.close().await;
        }
        drop(store);
        fixture.options.partitions = 3.try_into().unwrap();
        let before = fixture.contents();
        let error = fixture.try_open().unwrap_err();
        assert!(matches!(error, OpenError::Partitions { made: 2, asked: 3, .. }), "{error:?}");
        assert!(error.to_string().contains("set log.partitions = 2"), "{error}");
        assert_eq!(fixture.contents(), before);
        fixture.options.partitions = 2.try_into().unwrap();
        assert!(has(&fixture.open(), 0).await);
    }
}

#[tokio::test]
async fn a_foreign_file_is_named_and_left_alone() {
    let fixture = Fixture::new();
    drop(fixture.open());
    let foreign = fixture.journal().join("00000000000000ff.log");
    std::fs::write(&foreign, "2026-01-01 the log of something else, longer than a header\n").unwrap();
    std::fs::write(fixture.journal().join("notes.txt"), "of an operator").unwrap();
    let before = fixture.contents();
    let error = fixture.try_open().unwrap_err();
    let OpenError::Segment(SegmentError::Foreign { path }) = &error else { panic!("{error:?}") };
    assert_eq!(*path, foreign);
    assert_eq!(fixture.contents(), before);
    std::fs::remove_file(foreign).unwrap();
    drop(fixture.open());
    assert!(fixture.journal().join("notes.txt").exists(), "a file that is not a segment is left alone");
}

#[tokio::test]
async fn the_epoch_rises_at_every_start() {
    let fixture = Fixture::new();
    let mut over: Option<Epoch> = None;
    for round in 0..6 {
        let store = fixture.open();
        let epoch = store.epoch();
        assert!(Some(epoch) > over, "{epoch:?} after {over:?}");
        if let Some(epoch) = over {
            let fence = Fence { partition: INBOUND, epoch };
            let refused = store.commit(Batch { fence: Some(fence), ..batch(7) }).await;
            assert!(matches!(refused, Err(StoreError::Fenced { .. })), "{refused:?}");
        }
        let fence = Fence { partition: INBOUND, epoch };
        store.commit(Batch { fence: Some(fence), ..batch(100 + round) }).await.unwrap();
        over = Some(epoch);
        if round % 2 == 0 {
            store.close().await;
        }
    }
    assert!(!has(&fixture.open(), 7).await);
}
