//! Writing rows.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use futures::future::join_all;
use heddle_schemas::ports::log::StoreError;
use heddle_schemas::ports::state::Write;
use heddle_schemas::table::{Key, Lifetime, Table};
use heddle_schemas::time::{LogThrottle, Timestamp};
use scylla::statement::batch::{Batch, BatchType};

use super::place::{NONE, Place, Unit, Value, Values};
use super::{Cql, MAX_VALUE};

/// Bytes of a batch. Atomic over two tables of one partition, ScyllaDB takes 1 MiB.
const BATCH_BYTES: usize = 512 << 10;
/// Rows of a batch; the protocol takes 65,535.
const BATCH_ROWS: usize = 1_024;
/// Writes that are compared one with another.
const FEW: usize = 16;
/// The longest time to live, seconds: 20 years, the most that CQL takes.
const LONGEST: i64 = 20 * 365 * 86_400;
/// The last second at which a row may end (Cassandra's `Cell.MAX_DELETION_TIME` without the format of 5.0, which
/// `storage_compatibility_mode` turns on); a later end is refused.
const LAST: i64 = i32::MAX as i64 - 1;
/// Seconds before it that stay free: the server adds the time to its own clock.
const AHEAD: i64 = 3_600;

/// A row to write, and what is to be written.
#[derive(Debug, Clone, Copy)]
struct Row<'w> {
    place: Place<'w>,
    table: Table,
    put: Option<Put<'w>>,
    bytes: usize,
}

#[derive(Debug, Clone, Copy)]
struct Put<'w> {
    value: &'w [u8],
    expires: i64,
    live: i32,
}

impl<'w> Row<'w> {
    fn new(write: &'w Write, now: Timestamp) -> Self {
        let put = write.value.as_ref().map(|value| Put {
            value,
            expires: stored_end(write.expires),
            live: time_to_live(write.expires, now),
        });
        let bytes = write.key.as_bytes().len() + write.value.as_ref().map_or(0, Bytes::len);
        Self { place: Place::of(&write.key), table: write.key.table(), put, bytes }
    }

    fn values(&self) -> Values<'w> {
        let after = self.put.map_or(NONE, |put| {
            [Some(Value::Blob(Some(put.value))), Some(Value::Long(put.expires)), Some(Value::Int(put.live))]
        });
        Values { before: NONE, place: self.place, after }
    }

    /// Returns the step of the write: entries that lead to work after a crash are put first and deleted last.
    fn step(&self) -> usize {
        let finds_work = self.table.descriptor().lifetime == Lifetime::UntilDone;
        match (finds_work, self.put) {
            (true, Some(_)) => 0,
            (true, None) => 2,
            (false, _) => 1,
        }
    }
}

/// The end of a row as it is stored.
pub(super) fn stored_end(expires: Option<Timestamp>) -> i64 {
    expires.unwrap_or(Timestamp::MAX).as_micros()
}

/// Returns the seconds after which the server may delete a row, rounded up; 0 for never.
pub(super) fn time_to_live(expires: Option<Timestamp>, now: Timestamp) -> i32 {
    let Some(expires) = expires.filter(|&expires| expires != Timestamp::MAX) else { return 0 };
    let micros = expires.as_micros().saturating_sub(now.as_micros());
    let seconds = micros.saturating_add(999_999) / 1_000_000;
    let most = LONGEST.min(LAST - AHEAD - now.as_micros() / 1_000_000);
    if seconds > most {
        static CAPPED: LogThrottle = LogThrottle::new();
        if CAPPED.lets_through() {
            tracing::warn!(
                seconds,
                most,
                "a row is kept for less than asked: databases end rows in January 2038 at the latest; it is read as kept \
                 until then"
            );
        }
    }
    // Behind that second nothing is left to cap: the row has no end of the server's own, and reads leave it out by ours.
    if most < 1 { 0 } else { i32::try_from(seconds.clamp(1, most)).unwrap_or(i32::MAX) }
}

/// The writes that hold: of several of one key the last.
fn last_of_each(writes: &[Write]) -> Vec<&Write> {
    // A turn has half a dozen rows: looking at each of the others costs less than a map.
    if writes.len() <= FEW {
        let again = |at: usize| writes[at + 1..].iter().any(|later| later.key == writes[at].key);
        return (0..writes.len()).filter(|&at| !again(at)).map(|at| &writes[at]).collect();
    }
    let last: HashMap<&Key, usize> = writes.iter().enumerate().map(|(at, write)| (&write.key, at)).collect();
    let held = writes.iter().enumerate().filter(|(at, write)| last[&write.key] == *at);
    held.map(|(_, write)| write).collect()
}

/// Returns true if the rows are one step in themselves.
fn is_one_partition(rows: &[Row<'_>]) -> bool {
    rows.windows(2).all(|pair| pair[0].place.unit() == pair[1].place.unit())
}

/// Rows by step, and in a step by CQL partition.
fn plan<'w>(rows: &[Row<'w>]) -> [Vec<Vec<Row<'w>>>; 3] {
    let mut steps: [HashMap<Unit<'w>, Vec<Row<'w>>>; 3] = Default::default();
    for row in rows {
        steps[row.step()].entry(row.place.unit()).or_default().push(*row);
    }
    steps.map(|step| step.into_values().collect())
}

/// Rows of one partition as batches, history first: what it adds to is written after it.
fn batches(mut rows: Vec<Row<'_>>) -> Vec<Vec<Row<'_>>> {
    rows.sort_by_key(|row| row.table != Table::History);
    let mut batches: Vec<Vec<Row<'_>>> = Vec::new();
    let mut bytes = 0;
    for row in rows {
        match batches.last_mut() {
            Some(batch) if batch.len() < BATCH_ROWS && bytes + row.bytes <= BATCH_BYTES => {
                bytes += row.bytes;
                batch.push(row);
            }
            _ => {
                bytes = row.bytes;
                batches.push(vec![row]);
            }
        }
    }
    batches
}

impl Cql {
    /// Writes rows, all under one write timestamp in microseconds; without one under a timestamp of this
    /// process's clock, later than the last.
    ///
    /// Of several writes of one key the last holds. Rows of one CQL partition are one step, up to half a
    /// megabyte of them. Where there are several: first entries of agenda and backlog are put, then all
    /// other rows are written, then entries are deleted, so that a crash in between leaves an entry too
    /// many and never one too few.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`]: nothing was written. [`StoreError::Unavailable`]: rows may have been.
    pub async fn write(
        &self,
        writes: &[Write],
        timestamp: Option<i64>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let too_large = writes.iter().filter_map(|write| write.value.as_ref()).map(Bytes::len).max();
        if let Some(bytes) = too_large.filter(|&bytes| bytes > MAX_VALUE) {
            return Err(StoreError::TooLarge { bytes, limit: MAX_VALUE });
        }
        let timestamp = timestamp.unwrap_or_else(|| self.next_timestamp());
        let rows: Vec<_> = last_of_each(writes).into_iter().map(|write| Row::new(write, now)).collect();
        let put = rows.iter().filter(|row| row.put.is_some());
        let buckets: BTreeSet<_> = put.filter_map(|row| row.place.bucket()).collect();
        let _late = match buckets.is_empty() {
            true => None,
            false => self.enter_buckets(&buckets, timestamp, now).await?,
        };
        if is_one_partition(&rows) {
            return self.write_partition(rows, timestamp).await;
        }
        for step in plan(&rows) {
            let written = join_all(step.into_iter().map(|rows| self.write_partition(rows, timestamp))).await;
            written.into_iter().collect::<Result<(), _>>()?;
        }
        Ok(())
    }

    async fn write_partition(&self, rows: Vec<Row<'_>>, timestamp: i64) -> Result<(), StoreError> {
        for batch in batches(rows) {
            match &batch[..] {
                [row] => self.write_row(row, timestamp).await?,
                rows => self.write_batch(rows, timestamp).await?,
            }
        }
        Ok(())
    }

    async fn write_row(&self, row: &Row<'_>, timestamp: i64) -> Result<(), StoreError> {
        let table = self.table(row.place.stored);
        let statement = if row.put.is_some() { &table.put } else { &table.delete };
        let mut prepared = statement.prepared.clone();
        prepared.set_timestamp(Some(timestamp));
        self.run(&statement.what, self.session.execute_unpaged(&prepared, row.values())).await.map(drop)
    }

    async fn write_batch(&self, rows: &[Row<'_>], timestamp: i64) -> Result<(), StoreError> {
        // In one partition of one table both databases apply a batch at once and keep no log of it, whatever
        // its type. For two tables Cassandra does the same; ScyllaDB, where each table is apart, needs the
        // log to do both or none.
        let mut batch = Batch::new(BatchType::Logged);
        for row in rows {
            let table = self.table(row.place.stored);
            let statement = if row.put.is_some() { &table.put } else { &table.delete };
            batch.append_statement(statement.prepared.clone());
        }
        batch.set_timestamp(Some(timestamp));
        batch.set_is_idempotent(true);
        batch.set_execution_profile_handle(Some(self.profiles.write.clone()));
        let values: Vec<_> = rows.iter().map(Row::values).collect();
        let what = "write batch";
        self.run(what, self.session.batch(&batch, values)).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use heddle_schemas::id::MessageKey;
    use heddle_schemas::table::Partition;
    use heddle_schemas::topic::{Topic, TopicPartition};

    use super::*;
    use crate::fixtures::conversation;

    const NOW: Timestamp = Timestamp::from_secs(1_767_225_600);
    const PARTITION: TopicPartition = TopicPartition { topic: Topic::Inbound, partition: 0 };

    fn planned(writes: &[Write]) -> [usize; 3] {
        let rows: Vec<_> = last_of_each(writes).into_iter().map(|write| Row::new(write, NOW)).collect();
        plan(&rows).map(|step| step.len())
    }

    fn at_once(writes: &[Write]) -> bool {
        let rows: Vec<_> = writes.iter().map(|write| Row::new(write, NOW)).collect();
        is_one_partition(&rows)
    }

    #[test]
    fn a_turn_is_one_batch() {
        let writes = [
            Write::put(Key::head(&conversation(1)), "a"),
            Write::put(Key::history(&conversation(1), 1), "b"),
            Write::put(Key::marker(&conversation(1), MessageKey::from_bytes([1; 16])), ""),
        ];
        assert!(at_once(&writes));
        let rows = writes.iter().map(|write| Row::new(write, NOW)).collect();
        let batches = batches(rows);
        assert_eq!(batches.len(), 1);
        assert_eq!(batches[0][0].table, Table::History);
    }

    #[test]
    fn what_finds_work_again_is_put_first_and_deleted_last() {
        let head = Write::put(Key::head(&conversation(1)), "a");
        let entry = Key::agenda(PARTITION, NOW, b"x");
        let put = Write::put(entry.clone(), "");
        let other =
            Write::delete(Key::agenda(PARTITION, NOW.after(std::time::Duration::from_secs(60)), b"y"));
        assert_eq!(planned(&[head.clone(), put.clone()]), [1, 1, 0]);
        assert_eq!(planned(&[Write::delete(entry), head.clone()]), [0, 1, 1]);
        assert_eq!(planned(&[other, put, head]), [1, 1, 1]);
    }

    #[test]
    fn rows_of_one_bucket_are_one_step() {
        let entry = |id: &[u8]| Key::agenda(PARTITION, NOW, id);
        assert!(at_once(&[Write::delete(entry(b"x")), Write::put(entry(b"y"), "")]));
        assert!(!at_once(&[Write::delete(entry(b"x")), Write::put(Key::head(&conversation(1)), "")]));
        assert!(at_once(&[]));
    }

    #[test]
    fn of_several_writes_of_a_key_the_last_holds() {
        let key = Key::head(&conversation(1));
        let writes = [Write::put(key.clone(), "a"), Write::delete(key.clone()), Write::put(key, "b")];
        assert_eq!(last_of_each(&writes), [&writes[2]]);
        let many: Vec<_> = writes.iter().cycle().take(30).cloned().collect();
        assert_eq!(last_of_each(&many), [&writes[2]]);
        let rows: Vec<_> =
            (0..40).map(|number| Write::put(Key::history(&conversation(1), number), "")).collect();
        assert_eq!(last_of_each(&rows).len(), 40);
    }

    #[test]
    fn batches_end_before_they_are_too_large() {
        let partition = Partition::history(&conversation(1));
        let write = |number: u32, len: usize| Write::put(partition.row(&number.to_be_bytes()), vec![0; len]);
        let sizes = |writes: &[Write]| {
            let rows = writes.iter().map(|write| Row::new(write, NOW)).collect();
            batches(rows).iter().map(Vec::len).collect::<Vec<_>>()
        };
        let small: Vec<_> = (0..2_500).map(|number| write(number, 1)).collect();
        assert_eq!(sizes(&small), [1_024, 1_024, 452]);
        let large: Vec<_> = [200_000, 200_000, 200_000, 5_000_000, 1].into_iter().zip(0..).collect();
        let large: Vec<_> = large.into_iter().map(|(len, number)| write(number, len)).collect();
        assert_eq!(sizes(&large), [2, 1, 1, 1]);
    }

    #[test]
    fn no_row_ends_behind_the_last_second_that_databases_know() {
        let ten_years = Duration::from_secs(10 * 365 * 86_400);
        // 2027-12-01, 2028-06-01, 2037-12-31, and 2038-02-01, which is behind it.
        for (now, is_capped) in [(1_827_619_200, false), (1_843_430_400, true), (2_145_830_400, true)] {
            let now = Timestamp::from_secs(now);
            let live = i64::from(time_to_live(Some(now.after(ten_years)), now));
            assert!(now.as_micros() / 1_000_000 + live < i64::from(i32::MAX), "{live}");
            assert_eq!(live < 10 * 365 * 86_400, is_capped, "{live}");
            assert!(live > 0);
        }
        let late = Timestamp::from_secs(2_148_595_200);
        assert_eq!(time_to_live(Some(late.after(ten_years)), late), 0);
    }

    #[test]
    fn a_time_to_live_is_rounded_up_and_bounded() {
        let live = |micros: i64| time_to_live(Some(Timestamp::from_micros(NOW.as_micros() + micros)), NOW);
        assert_eq!(time_to_live(None, NOW), 0);
        assert_eq!(time_to_live(Some(Timestamp::MAX), NOW), 0);
        assert_eq!(live(-5), 1, "it has ended, and 0 would be for ever");
        assert_eq!((live(1), live(1_000_000), live(1_000_001)), (1, 1, 2));
        // Later than this clock, the year 2038 is the nearer bound.
        let early = Timestamp::from_secs(1_000_000_000);
        let longest = time_to_live(Some(Timestamp::from_micros(i64::MAX - 1)), early);
        assert_eq!(i64::from(longest), LONGEST);
    }
}
