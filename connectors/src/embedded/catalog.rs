//! Catalog of the journal's segments, with an index of each partition's records.
//!
//! The index holds one place for each partition every [`INDEX_EVERY`] bytes, so that a reader that lags begins near
//! the record it wants. Segments are deleted from the oldest on, so that the journal never has a gap. A segment can be
//! deleted when all of it is in the checkpoint and settled, and it is past the retention or room is needed.

use std::collections::BTreeMap;
use std::time::Duration;

use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Offset, TopicPartition};
use serde::{Deserialize, Serialize};

/// Interval in bytes of a segment at which the index notes a place for each partition.
const INDEX_EVERY: u64 = 2 << 20;

/// A frame's place in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Place {
    /// The segment.
    pub(super) segment: u64,
    /// The byte in it.
    pub(super) at: u64,
    /// The sequence number of the frame there.
    pub(super) sequence: u64,
}

/// Catalog entry of a segment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SegmentInfo {
    /// Its bytes up to the last durable frame. Bytes behind it were never acknowledged.
    pub(super) bytes: u64,
    /// Time of the newest append.
    pub(super) last_at: Timestamp,
    /// Its partitions.
    pub(super) partitions: Vec<(TopicPartition, InSegment)>,
}

/// A partition's records in a segment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct InSegment {
    /// The offset after the last.
    pub(super) end: Offset,
    /// Some offsets with the places of their frames, in order.
    pub(super) index: Vec<(Offset, Place)>,
}

/// The segments by id, the last one being written.
#[derive(Debug, Default)]
pub(super) struct Catalog(pub(super) BTreeMap<u64, SegmentInfo>);

impl Catalog {
    /// Notes that a frame is durable.
    pub(super) fn frame(&mut self, place: Place, bytes: u64) {
        self.0.entry(place.segment).or_default().bytes = place.at + bytes;
    }

    /// Notes where a record is, once in a while.
    pub(super) fn record(&mut self, place: Place, partition: TopicPartition, offset: Offset, at: Timestamp) {
        let segment = self.0.entry(place.segment).or_default();
        segment.last_at = segment.last_at.max(at);
        let found = segment.partitions.iter().position(|(known, _)| *known == partition);
        let index = found.unwrap_or_else(|| {
            segment.partitions.push((partition, InSegment::default()));
            segment.partitions.len() - 1
        });
        let there = &mut segment.partitions[index].1;
        there.end = offset + 1;
        if there.index.last().is_none_or(|(_, noted)| place.at >= noted.at + INDEX_EVERY) {
            there.index.push((offset, place));
        }
    }

    /// Returns the place of a frame at or before a record or, if that is deleted, of the first one left.
    #[must_use]
    pub(super) fn find(&self, partition: TopicPartition, offset: Offset) -> Option<Place> {
        let mut segments = self.0.values().filter_map(|segment| {
            segment.partitions.iter().find(|(at, _)| *at == partition).map(|(_, there)| there)
        });
        let there = segments.find(|there| offset < there.end)?;
        let after = there.index.partition_point(|(first, _)| *first <= offset);
        there.index.get(after.saturating_sub(1)).map(|(_, place)| *place)
    }

    /// The segments from a place on, with the bytes that are durable in each.
    #[must_use]
    pub(super) fn from(&self, place: Place) -> Vec<(u64, u64)> {
        self.0.range(place.segment..).map(|(id, info)| (*id, info.bytes)).collect()
    }

    /// Removes segments that are no longer needed and past the retention or over the size limit; returns their ids.
    pub(super) fn forget(
        &mut self,
        reasons: &Reasons,
        is_settled: impl Fn(&SegmentInfo) -> bool,
    ) -> Vec<u64> {
        let mut total: u64 = self.0.values().map(|segment| segment.bytes).sum();
        let mut removed = Vec::new();
        for (&id, segment) in &self.0 {
            let needed = id >= reasons.checkpointed.segment || !is_settled(segment);
            let young = reasons.now.since(segment.last_at) < reasons.retention;
            if needed || (young && total <= reasons.max_bytes) {
                break;
            }
            total -= segment.bytes;
            removed.push(id);
        }
        for id in &removed {
            self.0.remove(id);
        }
        removed
    }
}

/// Inputs to the decision to delete a segment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reasons {
    /// Everything before it is in the checkpoint.
    pub(super) checkpointed: Place,
    /// Current time.
    pub(super) now: Timestamp,
    /// Time that a segment is kept after it is no longer needed.
    pub(super) retention: Duration,
    /// Size of the journal above which segments within the retention are deleted too.
    pub(super) max_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use heddle_schemas::topic::Topic;

    const INBOUND: TopicPartition = TopicPartition { topic: Topic::Inbound, partition: 0 };

    fn three_segments() -> Catalog {
        let mut catalog = Catalog::default();
        for segment in 0..3 {
            let place = Place { segment, at: 32, sequence: segment };
            catalog.frame(place, 68);
            catalog.record(
                place,
                INBOUND,
                segment,
                Timestamp::from_secs(100 * i64::try_from(segment).unwrap()),
            );
        }
        catalog
    }

    fn reasons(checkpointed: u64, now: i64, max_bytes: u64) -> Reasons {
        Reasons {
            checkpointed: Place { segment: checkpointed, at: 32, sequence: checkpointed },
            now: Timestamp::from_secs(now),
            retention: Duration::from_secs(50),
            max_bytes,
        }
    }

    #[test]
    fn a_segment_goes_when_it_is_checkpointed_and_settled_and_old() {
        assert_eq!(three_segments().forget(&reasons(2, 1_000, 1_000), |_| true), [0, 1]);
        assert_eq!(three_segments().forget(&reasons(1, 1_000, 1_000), |_| true), [0]);
        assert_eq!(three_segments().forget(&reasons(2, 149, 1_000), |_| true), [0], "the next is 49 s old");
        let settled = |segment: &SegmentInfo| segment.partitions[0].1.end <= 1;
        assert_eq!(three_segments().forget(&reasons(2, 1_000, 1_000), settled), [0]);
    }

    #[test]
    fn over_the_limit_young_segments_go_but_needed_ones_stay() {
        assert_eq!(three_segments().forget(&reasons(2, 100, 250), |_| true), [0], "then 200 bytes are left");
        assert_eq!(three_segments().forget(&reasons(2, 100, 0), |_| true), [0, 1]);
        assert_eq!(three_segments().forget(&reasons(2, 100, 0), |_| false), [0_u64; 0]);
    }

    #[test]
    fn a_record_is_found_at_or_after_the_place_that_is_returned() {
        let mut catalog = three_segments();
        assert_eq!(catalog.find(INBOUND, 1).map(|place| place.segment), Some(1));
        assert_eq!(catalog.find(INBOUND, 3), None, "not there yet");
        catalog.0.remove(&0);
        assert_eq!(catalog.find(INBOUND, 0).map(|place| place.segment), Some(1), "the first that is left");
    }
}
