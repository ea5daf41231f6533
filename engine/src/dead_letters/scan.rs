//! Scan of the matching dead letters in the order they were dead-lettered, a fetch at a time.
//!
//! Each partition of dlq is in that order, as far as the nodes' clocks agree; partitions are merged by the
//! time of the next dead letter of each. The state of a scan depends on the cursor alone, so that it can
//! resume where another one ended.

use std::collections::VecDeque;
use std::time::Duration;

use heddle_api::dead_letters::{Filters, LetterId, Place};
use heddle_schemas::ports::log::{FetchLimit, Log, StoreError};
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Offset, Topic};

use super::kept::Kept;
use super::letter::Found;

/// Maximum that is fetched and waits to be merged, over all partitions; and the minimum for each one.
const FETCH: FetchLimit = FetchLimit { records: 512, bytes: 4 << 20 };
const FETCH_LEAST: FetchLimit = FetchLimit { records: 16, bytes: 64 << 10 };
/// Timeout of a fetch of existing records.
const WAIT: Duration = Duration::from_secs(1);
/// Maximum dead letters and their bytes that one request reads, matching or not, so that it is answered within seconds.
const LOOKED_AT: (usize, usize) = (20_000, 128 << 20);

pub(super) struct Scan<'a> {
    log: &'a dyn Log,
    filters: &'a Filters,
    kept: Kept<'a>,
    lanes: Vec<Lane>,
    fetch: FetchLimit,
    looked_at: (usize, usize),
}

/// Partition being read.
struct Lane {
    partition: u32,
    /// Offset of the next fetch.
    next: Offset,
    end: Offset,
    fetched: VecDeque<Found>,
    /// Offset last taken.
    taken: Option<Offset>,
    /// Position up to which dead letters have been listed; skipped where the cursor does not name the partition.
    since: Option<(Timestamp, LetterId)>,
}

/// Returns the dead letter of this id, if it is kept.
pub(super) async fn find(log: &dyn Log, id: LetterId) -> Result<Option<Found>, StoreError> {
    let partition = id.topic_partition();
    if id.partition >= log.partitions(partition.topic) || id.offset >= log.end(partition).await? {
        return Ok(None);
    }
    let records = log.fetch(partition, id.offset, FetchLimit { records: 1, bytes: 1 }, WAIT).await?;
    // If the record has expired, the fetch returns the next existing one instead.
    Ok(records.iter().find(|record| record.offset == id.offset).map(Found::read))
}

impl<'a> Scan<'a> {
    /// Begins a scan up to the current end of dlq, and not past `until`.
    pub(super) async fn begin(
        log: &'a dyn Log,
        filters: &'a Filters,
        kept: Kept<'a>,
        until: Option<&[LetterId]>,
    ) -> Result<Self, StoreError> {
        let partitions = log.partitions(Topic::Dlq);
        let after = filters.after.as_ref();
        let mut lanes = Vec::new();
        for partition in 0..partitions {
            let most = until.map_or(Offset::MAX, |until| {
                let end = until.iter().find(|end| end.partition == partition);
                // A partition that did not exist at the first request contributes nothing.
                end.map_or(0, |end| end.offset)
            });
            let end = log.end(LetterId { partition, offset: 0 }.topic_partition()).await?.min(most);
            let taken = after.and_then(|after| after.of(partition));
            let next = taken.map_or(0, |taken| taken.saturating_add(1));
            lanes.push(Lane { partition, next, end, fetched: VecDeque::new(), taken, since: None });
        }
        if let Some(after) = after
            && lanes.iter().any(|lane| lane.taken.is_none() && lane.end > 0)
        {
            let mut since = None;
            for id in after.ids() {
                since = since.max(find(log, *id).await?.map(|found| found.order()));
            }
            let unnamed = lanes.iter_mut().filter(|lane| lane.taken.is_none());
            unnamed.for_each(|lane| lane.since = since);
        }
        let share = (partitions as usize).max(1);
        let fetch = FetchLimit {
            records: (FETCH.records / share).max(FETCH_LEAST.records),
            bytes: (FETCH.bytes / share).max(FETCH_LEAST.bytes),
        };
        Ok(Self { log, filters, kept, lanes, fetch, looked_at: (0, 0) })
    }

    /// Returns the next matching dead letter; none at the end, or when the limit of the request is reached.
    pub(super) async fn next(&mut self) -> Result<Option<Found>, StoreError> {
        while self.looked_at.0 < LOOKED_AT.0 && self.looked_at.1 < LOOKED_AT.1 {
            for lane in &mut self.lanes {
                lane.fetch(self.log, self.fetch).await?;
            }
            let ready = self.lanes.iter_mut().filter(|lane| !lane.fetched.is_empty());
            let first = ready.min_by_key(|lane| lane.fetched.front().map(Found::order));
            let Some((lane, found)) = first.and_then(|lane| lane.fetched.pop_front().map(|one| (lane, one)))
            else {
                return Ok(None);
            };
            lane.taken = Some(found.id.offset);
            // Not counted: a request that ended here would name the partition, and the next one would not skip it.
            if lane.since.is_some_and(|since| found.order() <= since) {
                continue;
            }
            lane.since = None;
            self.looked_at.0 += 1;
            self.looked_at.1 += found.weight();
            if found.matches(self.filters.reason, self.filters.tenant.as_ref()) && self.kept.holds(&found) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Returns the cursor to resume from, if anything is left.
    pub(super) fn rest(&self) -> Option<Place> {
        let is_over = self.lanes.iter().all(|lane| lane.fetched.is_empty() && lane.next >= lane.end);
        let taken = |lane: &Lane| lane.taken.map(|offset| LetterId { partition: lane.partition, offset });
        let place = Place::new(self.lanes.iter().filter_map(taken).collect());
        place.filter(|_| !is_over)
    }

    /// Returns the ends of the partitions.
    pub(super) fn until(&self) -> Vec<LetterId> {
        self.lanes.iter().map(|lane| LetterId { partition: lane.partition, offset: lane.end }).collect()
    }
}

impl Lane {
    /// Fetches more, if the buffer is empty and the partition is not at its end.
    async fn fetch(&mut self, log: &dyn Log, limit: FetchLimit) -> Result<(), StoreError> {
        if !self.fetched.is_empty() || self.next >= self.end {
            return Ok(());
        }
        let from = LetterId { partition: self.partition, offset: self.next };
        let records = log.fetch(from.topic_partition(), from.offset, limit, WAIT).await?;
        // If the rest has expired, the fetch returns nothing.
        self.next = records.last().map_or(self.end, |last| last.offset + 1);
        self.fetched.extend(records.iter().filter(|record| record.offset < self.end).map(Found::read));
        Ok(())
    }
}
