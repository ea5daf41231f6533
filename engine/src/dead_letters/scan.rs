//! Letters that match, in the order of their ids, a fetch at a time.

use std::collections::VecDeque;
use std::time::Duration;

use heddle_schemas::ports::log::{FetchLimit, Log, Record, StoreError};
use heddle_schemas::topic::{Offset, Topic};

use super::Filters;
use super::letter::{Found, LetterId};

/// What one fetch brings at most.
const FETCH: FetchLimit = FetchLimit { records: 256, bytes: 4 << 20 };
/// How long a fetch waits for what is known to be there.
pub(super) const WAIT: Duration = Duration::from_secs(1);
/// Letters, and bytes of them, that one request looks at, matching or not: it is answered within seconds.
const LOOKED_AT: (usize, usize) = (20_000, 128 << 20);

pub(super) struct Scan<'a> {
    log: &'a dyn Log,
    filters: &'a Filters,
    /// Where each partition ends.
    ends: Vec<Offset>,
    /// What is fetched next.
    at: LetterId,
    fetched: VecDeque<Record>,
    /// What was looked at last.
    last: Option<LetterId>,
    looked_at: (usize, usize),
}

impl<'a> Scan<'a> {
    /// Up to where dlq ends now, and not past `until`.
    pub(super) async fn begin(
        log: &'a dyn Log,
        filters: &'a Filters,
        until: Option<&[LetterId]>,
    ) -> Result<Self, StoreError> {
        let mut ends = Vec::new();
        for partition in 0..log.partitions(Topic::Dlq) {
            let id = LetterId { partition, offset: 0 };
            let most = until.map(|until| {
                let end = until.iter().find(|end| end.partition == partition);
                // One that was not there at the first request has nothing for it.
                end.map_or(0, |end| end.offset)
            });
            ends.push(log.end(id.partition()).await?.min(most.unwrap_or(Offset::MAX)));
        }
        let after = filters.after;
        let at =
            after.map_or(LetterId::default(), |id| LetterId { offset: id.offset.saturating_add(1), ..id });
        Ok(Self { log, filters, ends, at, fetched: VecDeque::new(), last: after, looked_at: (0, 0) })
    }

    /// The next letter that matches; none at the end, or when enough was looked at.
    pub(super) async fn next(&mut self) -> Result<Option<Found>, StoreError> {
        while self.looked_at.0 < LOOKED_AT.0 && self.looked_at.1 < LOOKED_AT.1 {
            let Some(record) = self.fetched.pop_front() else {
                if self.fetch().await? {
                    continue;
                }
                return Ok(None);
            };
            self.looked_at.0 += 1;
            self.looked_at.1 += record.value.len();
            self.last = Some(LetterId::of(&record));
            let found = Found::read(&record);
            if found.matches(self.filters.reason, self.filters.tenant.as_ref()) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// What was looked at last, where something is left behind it.
    pub(super) fn rest(&self) -> Option<LetterId> {
        let behind = |partition: usize| partition > self.at.partition as usize;
        let mut ends = self.ends.iter().enumerate();
        let is_over = self.fetched.is_empty()
            && self.end().is_none_or(|end| self.at.offset >= end)
            && !ends.any(|(partition, end)| behind(partition) && *end > 0);
        self.last.filter(|_| !is_over)
    }

    /// Where the partitions end.
    pub(super) fn until(&self) -> Vec<LetterId> {
        (0..).zip(&self.ends).map(|(partition, &offset)| LetterId { partition, offset }).collect()
    }

    fn end(&self) -> Option<Offset> {
        self.ends.get(self.at.partition as usize).copied()
    }

    /// Fetches more; whether there was any.
    async fn fetch(&mut self) -> Result<bool, StoreError> {
        while let Some(end) = self.end() {
            if self.at.offset < end {
                let records = self.log.fetch(self.at.partition(), self.at.offset, FETCH, WAIT).await?;
                self.fetched.extend(records.into_iter().filter(|record| record.offset < end));
            }
            if let Some(last) = self.fetched.back() {
                self.at.offset = last.offset + 1;
                return Ok(true);
            }
            self.at = LetterId { partition: self.at.partition + 1, offset: 0 };
        }
        Ok(false)
    }
}
