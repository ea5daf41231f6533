//! Damage that is healed, and damage that is refused.

use std::path::PathBuf;

use heddle_connectors::embedded::{OpenError, SegmentError};
use heddle_schemas::ports::log::{Log as _, StoreError};
use heddle_schemas::ports::state::State as _;

use crate::embedded::{
    FRAME, Fixture, HEADER, INBOUND, OUTBOUND, batch, flip, frames, has, read_on, record, records,
};

/// A crashed store with this number of batches, each a frame of its own, and its segments.
async fn crashed(batches: u64) -> (Fixture, Vec<(PathBuf, Vec<u8>)>) {
    let fixture = Fixture::new();
    let store = fixture.open();
    for number in 0..batches {
        store.commit(batch(number)).await.unwrap();
    }
    drop(store);
    let contents = fixture.contents();
    (fixture, contents)
}

#[tokio::test]
async fn a_torn_end_is_left_out_wherever_it_is_cut() {
    let (fixture, segments) = crashed(3).await;
    let (path, bytes) = segments.last().unwrap();
    let bounds = frames(bytes);
    // One frame begins the epoch, then there is one for each batch.
    assert_eq!(bounds.len(), 5);
    for len in std::iter::once(bounds[2]).chain(bounds[3]..=bytes.len()) {
        let torn = fixture.with_segments(&[(path.clone(), bytes[..len].to_vec())]);
        let store = torn.open();
        let whole = u64::try_from(bounds.iter().filter(|bound| **bound <= len).count()).unwrap() - 2;
        for number in 0..3 {
            assert_eq!(has(&store, number).await, number < whole, "cut at {len}: {number}");
        }
        assert_eq!(store.end(OUTBOUND).await.unwrap(), whole, "offsets go on where they ended");
        if len % 7 == 0 {
            store.commit(batch(9)).await.unwrap();
            drop(store);
            let again = torn.open();
            assert!(has(&again, 9).await, "cut at {len}: the torn frame is void, those after it are not");
            assert_eq!(records(&again, OUTBOUND).await.len(), usize::try_from(whole).unwrap() + 1);
        }
    }
}

#[tokio::test]
async fn a_segment_that_was_only_begun_is_no_damage() {
    let (fixture, segments) = crashed(1).await;
    for begun in
        [Vec::new(), vec![0; HEADER], vec![0; 100], b"HEDDLOG1".to_vec(), b"HEDDLOG1\0\0\0\x02\0".to_vec()]
    {
        let mut segments = segments.clone();
        segments.push((PathBuf::from("0000000000000001.log"), begun.clone()));
        let other = fixture.with_segments(&segments);
        let store = other.open();
        store.commit(batch(1)).await.unwrap();
        drop(store);
        let store = other.open();
        assert!(has(&store, 0).await && has(&store, 1).await, "{begun:?}");
    }
}

#[tokio::test]
async fn a_flipped_bit_before_the_last_frame_is_named_and_nothing_is_changed() {
    let (fixture, segments) = crashed(3).await;
    let (path, bytes) = segments.last().unwrap();
    let bounds = frames(bytes);
    for at in bounds[1]..bounds[3] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        let other = fixture.with_segments(&[(path.clone(), damaged)]);
        let before = other.contents();
        let error = other.try_open().unwrap_err();
        let frame = if at < bounds[2] { bounds[1] } else { bounds[2] };
        let OpenError::Segment(SegmentError::Corrupt { path, at: reported, .. }) = &error else {
            panic!("{at}: {error:?}");
        };
        assert_eq!(*reported, frame as u64, "bit of byte {at}");
        let text = error.to_string();
        assert!(text.contains(&*path.to_string_lossy()) && text.contains(&format!("byte {frame}")), "{text}");
        assert!(text.contains("restore the folder from a copy"), "{text}");
        assert_eq!(other.contents(), before);
    }
}

#[tokio::test]
async fn a_flipped_bit_of_the_header_is_named() {
    let (fixture, segments) = crashed(1).await;
    let (path, bytes) = segments.last().unwrap();
    for at in 0..HEADER {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        let other = fixture.with_segments(&[(path.clone(), damaged)]);
        let error = other.try_open().unwrap_err();
        match at {
            0..8 => assert!(matches!(error, OpenError::Segment(SegmentError::Foreign { .. })), "{error:?}"),
            _ => {
                assert!(matches!(error, OpenError::Segment(SegmentError::Corrupt { at: 0, .. })), "{error:?}")
            }
        }
    }
}

#[tokio::test]
async fn damage_of_the_last_frame_looks_torn() {
    let (fixture, segments) = crashed(3).await;
    let (path, bytes) = segments.last().unwrap();
    let last = frames(bytes)[3];
    for at in [last, last + 5, last + FRAME - 1, last + FRAME, bytes.len() - 1] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        let other = fixture.with_segments(&[(path.clone(), damaged)]);
        let store = other.open();
        let there = [has(&store, 0).await, has(&store, 1).await, has(&store, 2).await];
        assert_eq!(there, [true, true, false], "byte {at}");
    }
}

#[tokio::test]
async fn damage_behind_a_checkpoint_is_found_when_it_is_read() {
    let fixture = Fixture::new();
    let store = fixture.open();
    store.append(vec![record(INBOUND, "a"), record(INBOUND, "b")]).await.unwrap();
    store.commit(batch(0)).await.unwrap();
    store.close().await;
    let path = fixture.segments().pop().unwrap();
    flip(&path, frames(&std::fs::read(&path).unwrap())[1] + FRAME + 3);
    let store = fixture.open();
    let error = store.fetch(INBOUND, 0, crate::embedded::LIMIT, std::time::Duration::ZERO).await.unwrap_err();
    let StoreError::Corrupt { detail } = error else { panic!("{error:?}") };
    assert!(detail.contains(&*path.to_string_lossy()) && detail.contains("checksum"), "{detail}");
    assert_eq!(
        store.get(&crate::embedded::row(0)).await.unwrap().as_deref(),
        Some(&b"0"[..]),
        "rows are elsewhere"
    );
}

/// A store of several segments, of which none is settled, closed or crashed.
async fn of_segments(close: bool) -> Fixture {
    let fixture = Fixture::small();
    let store = fixture.open();
    for number in 0..60_u32 {
        store.append(vec![record(INBOUND, format!("{number:0>100}"))]).await.unwrap();
    }
    if close {
        store.close().await;
    }
    drop(store);
    assert!(fixture.segments().len() >= 4, "{:?}", fixture.segments());
    fixture
}

#[tokio::test]
async fn a_missing_segment_is_a_gap_wherever_it_is() {
    for close in [false, true] {
        let count = of_segments(close).await.segments().len();
        // Without a checkpoint a missing newest segment goes unnoticed.
        let known = if close { count } else { count - 1 };
        for missing in 0..known {
            let fixture = of_segments(close).await;
            let path = fixture.segments().remove(missing);
            std::fs::remove_file(&path).unwrap();
            let before = fixture.contents();
            let error = fixture.try_open().unwrap_err();
            let OpenError::Segment(SegmentError::Gap { path: reported }) = &error else {
                panic!("{close} {missing}: {error:?}");
            };
            assert_eq!(*reported, path);
            assert_eq!(fixture.contents(), before);
        }
    }
}

#[tokio::test]
async fn a_segment_that_became_shorter_is_named() {
    for close in [false, true] {
        let fixture = of_segments(close).await;
        let path = fixture.segments().remove(1);
        let bytes = std::fs::read(&path).unwrap();
        let bounds = frames(&bytes);
        // At the end of a frame, so that only the next segment shows the loss.
        std::fs::write(&path, &bytes[..bounds[bounds.len() - 2]]).unwrap();
        let error = fixture.try_open().unwrap_err();
        assert!(
            matches!(&error, OpenError::Segment(SegmentError::Corrupt { path: reported, .. }) if *reported == path),
            "{close}: {error:?}"
        );
    }
}

#[tokio::test]
async fn the_oldest_segments_may_go_once_they_are_settled() {
    let fixture = of_segments(false).await;
    let store = fixture.open();
    store.acknowledge(INBOUND, &(0..30).collect::<Vec<_>>()).await.unwrap();
    store.close().await;
    drop(store);
    std::fs::remove_file(&fixture.segments()[0]).unwrap();
    let store = fixture.open();
    let left = read_on(&store, INBOUND, 20).await;
    assert_eq!(left.last().map(|record| record.offset), Some(59));
    assert!(left.first().is_some_and(|record| record.offset <= 30), "every unsettled record is left");
}
