//! Who may open a folder.

use heddle_connectors::embedded::{OpenError, SegmentError};
use heddle_schemas::ports::log::StoreError;
use heddle_schemas::ports::state::{Batch, Fence, State as _};
use heddle_schemas::topic::Epoch;

use crate::embedded::{INBOUND, Site, batch, has};

#[tokio::test]
async fn a_folder_is_opened_once_at_a_time() {
    let site = Site::new();
    let store = site.open();
    let error = site.try_open().unwrap_err();
    assert!(matches!(&error, OpenError::InUse(dir) if *dir == site.options.dir), "{error:?}");
    assert!(error.to_string().contains("stop that one, or use another data_dir"), "{error}");
    store.commit(batch(0)).await.unwrap();
    store.close().await;
    let next = site.open();
    assert!(has(&next, 0).await, "closed, it is free, although a handle is left");
    assert!(matches!(store.get(&crate::embedded::row(0)).await, Err(StoreError::Closed)));
    assert!(matches!(store.commit(batch(1)).await, Err(StoreError::Closed)));
    assert!(matches!(store.checkpoint().await, Err(StoreError::Closed)));
}

#[tokio::test]
async fn a_folder_that_is_being_left_is_waited_for() {
    let site = Site::new();
    site.open().close().await;
    // As a process does that has inherited the handle and is about to drop it.
    let handle = std::fs::File::options().write(true).open(site.options.dir.join("lock")).unwrap();
    handle.lock().unwrap();
    let leaving = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(100));
        drop(handle);
    });
    site.open().close().await;
    leaving.join().unwrap();
}

#[tokio::test]
async fn another_number_of_partitions_is_refused() {
    for close in [false, true] {
        let mut site = Site::new();
        let store = site.open();
        store.commit(batch(0)).await.unwrap();
        if close {
            store.close().await;
        }
        drop(store);
        site.options.partitions = 3.try_into().unwrap();
        let before = site.contents();
        let error = site.try_open().unwrap_err();
        assert!(matches!(error, OpenError::Partitions { made: 2, asked: 3, .. }), "{error:?}");
        assert!(error.to_string().contains("set log.partitions = 2"), "{error}");
        assert_eq!(site.contents(), before);
        site.options.partitions = 2.try_into().unwrap();
        assert!(has(&site.open(), 0).await);
    }
}

#[tokio::test]
async fn a_foreign_file_is_named_and_left_alone() {
    let site = Site::new();
    drop(site.open());
    let foreign = site.journal().join("00000000000000ff.log");
    std::fs::write(&foreign, "2026-01-01 the log of something else, longer than a header\n").unwrap();
    std::fs::write(site.journal().join("notes.txt"), "of an operator").unwrap();
    let before = site.contents();
    let error = site.try_open().unwrap_err();
    let OpenError::Segment(SegmentError::Foreign { path }) = &error else { panic!("{error:?}") };
    assert_eq!(*path, foreign);
    assert_eq!(site.contents(), before);
    std::fs::remove_file(foreign).unwrap();
    drop(site.open());
    assert!(site.journal().join("notes.txt").exists(), "what is no segment is nobody's business");
}

#[tokio::test]
async fn the_epoch_rises_whatever_happened_before() {
    let site = Site::new();
    let mut over: Option<Epoch> = None;
    for round in 0..6 {
        let store = site.open();
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
    assert!(!has(&site.open(), 7).await);
}
