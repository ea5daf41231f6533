//! Comparison of two stores for checkpoints: fjall by sorted ingestion, or redb by one write transaction.
//!
//! It follows the embedded store: sorted rows go in many at a time, durably, into a store that is large
//! already; reads come one by one in between. Every store runs in a process of its own, so that its memory is
//! measured alone. Prints one JSON object a store.
//!
//! `checkpoint_store [fjall|redb]`, both without an argument.

#![expect(clippy::print_stdout, reason = "what it prints is what it is for")]
#![expect(clippy::disallowed_methods, reason = "a measurement takes the time")]

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use redb::{ReadableDatabase as _, TableDefinition};
use serde_json::json;

const HELD: u64 = 1_000_000;
const CHECKPOINT: u64 = 100_000;
const ROUNDS: usize = 7;
const READS: u64 = 100_000;
const SCANS: u64 = 10_000;
/// Rows of one conversation, next to each other.
const ROWS_EACH: u64 = 4;
const CACHE_BYTES: usize = 64 << 20;
const VALUE: usize = 300;

fn main() -> anyhow::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("fjall") => measure(Fjall::open),
        Some("redb") => measure(Redb::open),
        Some(other) => bail!("{other:?} is neither fjall nor redb"),
        None => {
            for name in ["fjall", "redb"] {
                let status = std::process::Command::new(std::env::current_exe()?).arg(name).status()?;
                anyhow::ensure!(status.success(), "{name}: {status}");
            }
            Ok(())
        }
    }
}

/// Operations of a store.
trait Store: Sized {
    const NAME: &str;

    fn open(dir: &Path) -> anyhow::Result<Self>;

    /// Sorted rows, durable when it returns.
    fn ingest(&self, rows: &[(Vec<u8>, Vec<u8>)]) -> anyhow::Result<()>;

    fn get(&self, key: &[u8]) -> anyhow::Result<Option<Vec<u8>>>;

    fn scan(&self, prefix: &[u8]) -> anyhow::Result<usize>;

    /// Waits until work behind the scenes is done.
    fn settle(&self) {}
}

struct Fjall {
    database: Database,
    rows: Keyspace,
}

impl Store for Fjall {
    const NAME: &str = "fjall";

    fn open(dir: &Path) -> anyhow::Result<Self> {
        let database = Database::builder(dir).cache_size(CACHE_BYTES as u64).worker_threads(1).open()?;
        let rows = database.keyspace("rows", KeyspaceCreateOptions::default)?;
        Ok(Self { database, rows })
    }

    fn ingest(&self, rows: &[(Vec<u8>, Vec<u8>)]) -> anyhow::Result<()> {
        let mut ingestion = self.rows.start_ingestion()?;
        for (key, value) in rows {
            ingestion.write(key.as_slice(), value.as_slice())?;
        }
        ingestion.finish()?;
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }

    fn get(&self, key: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
        Ok(self.rows.get(key)?.map(|value| value.to_vec()))
    }

    fn scan(&self, prefix: &[u8]) -> anyhow::Result<usize> {
        let mut bytes = 0;
        for entry in self.rows.prefix(prefix) {
            bytes += entry.value()?.len();
        }
        Ok(bytes)
    }

    fn settle(&self) {
        while self.database.active_compactions() > 0 {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");

struct Redb(redb::Database);

impl Store for Redb {
    const NAME: &str = "redb";

    fn open(dir: &Path) -> anyhow::Result<Self> {
        let database = redb::Builder::new().set_cache_size(CACHE_BYTES).create(dir.join("rows.redb"))?;
        Ok(Self(database))
    }

    fn ingest(&self, rows: &[(Vec<u8>, Vec<u8>)]) -> anyhow::Result<()> {
        let mut transaction = self.0.begin_write()?;
        transaction.set_durability(redb::Durability::Immediate)?;
        {
            let mut table = transaction.open_table(ROWS)?;
            for (key, value) in rows {
                table.insert(key.as_slice(), value.as_slice())?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn get(&self, key: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
        let table = self.0.begin_read()?.open_table(ROWS)?;
        Ok(table.get(key)?.map(|value| value.value().to_vec()))
    }

    fn scan(&self, prefix: &[u8]) -> anyhow::Result<usize> {
        let table = self.0.begin_read()?.open_table(ROWS)?;
        let mut bytes = 0;
        for entry in table.range(prefix..)? {
            let (key, value) = entry?;
            if !key.value().starts_with(prefix) {
                break;
            }
            bytes += value.value().len();
        }
        Ok(bytes)
    }
}

/// SplitMix64: enough to spread keys and to fill values that do not compress, as sealed ones.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn value(&mut self) -> Vec<u8> {
        let mut value: Vec<u8> = (0..=VALUE / 8).flat_map(|_| self.next().to_le_bytes()).collect();
        value.truncate(VALUE);
        value
    }
}

/// Returns the prefix of a conversation's keys; neighbours by number are far apart in the key order.
fn conversation(number: u64) -> Vec<u8> {
    let mut key = b"\x02\x04acme\x00\x27whatsapp/1122334455667/".to_vec();
    key.extend_from_slice(&Random(number).next().to_be_bytes());
    key.extend_from_slice(&number.to_be_bytes());
    key
}

fn key(number: u64) -> Vec<u8> {
    let mut key = conversation(number / ROWS_EACH);
    key.extend_from_slice(&(number % ROWS_EACH).to_be_bytes());
    key
}

fn sorted(numbers: impl Iterator<Item = u64>, random: &mut Random) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows: Vec<_> = numbers.map(|number| (key(number), random.value())).collect();
    rows.sort_unstable();
    rows.dedup_by(|one, other| one.0 == other.0);
    rows
}

fn measure<S: Store>(open: impl Fn(&Path) -> anyhow::Result<S>) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let store = open(dir.path())?;
    let mut random = Random(1);
    let began = Instant::now();
    for from in (0..HELD).step_by(usize::try_from(CHECKPOINT)?) {
        store.ingest(&sorted(from..from + CHECKPOINT, &mut random))?;
    }
    let fill = began.elapsed();
    store.settle();
    let size_filled = size(dir.path())?;
    // Half of a checkpoint's rows are there already, half are of new conversations.
    let (mut ingests, mut with_work_behind, mut end) = (Vec::new(), Duration::ZERO, HELD);
    for _ in 0..ROUNDS {
        let new = end..end + CHECKPOINT / 2;
        end = new.end;
        let old: Vec<_> = (0..CHECKPOINT / 2).map(|_| random.next() % HELD).collect();
        let rows = sorted(new.chain(old), &mut random);
        let began = Instant::now();
        store.ingest(&rows)?;
        ingests.push(began.elapsed());
        store.settle();
        with_work_behind += began.elapsed();
    }
    let hit = times(READS, |_| {
        let found = store.get(&key(random.next() % end))?;
        found.context("a row that was written is not there").map(drop)
    })?;
    let miss = times(READS, |number| {
        let found = store.get(&key(end + number + random.next() % end))?;
        anyhow::ensure!(found.is_none(), "a row that was never written is there");
        Ok(())
    })?;
    let scan = times(SCANS, |_| {
        let bytes = store.scan(&conversation(random.next() % (end / ROWS_EACH)))?;
        anyhow::ensure!(bytes == VALUE * usize::try_from(ROWS_EACH)?, "{bytes} bytes of a conversation");
        Ok(())
    })?;
    ingests.sort_unstable();
    let report = json!({
        "store": S::NAME,
        "rows": end,
        "row_bytes": VALUE + key(0).len(),
        "fill_rows_per_s": per_second(HELD, fill),
        "ingest_rows": CHECKPOINT,
        "ingest_ms_median": millis(ingests[ROUNDS / 2]),
        "ingest_ms_worst": millis(ingests[ROUNDS - 1]),
        "ingest_ms_mean_with_compaction": millis(with_work_behind) / ROUNDS as f64,
        "hit": hit, "miss": miss, "scan_of_4_rows": scan,
        "file_mib_filled": size_filled >> 20,
        "file_mib": size(dir.path())? >> 20,
        "content_mib": (end * (VALUE + key(0).len()) as u64) >> 20,
        "cache_mib": CACHE_BYTES >> 20,
        "resident_mib": resident_kib()? >> 10,
        "profile": if cfg!(debug_assertions) { "debug" } else { "release" },
    });
    println!("{report}");
    Ok(())
}

/// Runs it `count` times, and returns the time of one run, in microseconds.
fn times(count: u64, mut run: impl FnMut(u64) -> anyhow::Result<()>) -> anyhow::Result<serde_json::Value> {
    let mut taken = hdrhistogram::Histogram::<u64>::new(3)?;
    for number in 0..count {
        let began = Instant::now();
        run(number)?;
        taken.record(u64::try_from(began.elapsed().as_nanos())?)?;
    }
    let micros = |quantile| taken.value_at_quantile(quantile) as f64 / 1_000.0;
    Ok(json!({ "p50_us": micros(0.5), "p99_us": micros(0.99), "mean_us": taken.mean().round() / 1_000.0 }))
}

fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

fn per_second(count: u64, taken: Duration) -> f64 {
    (count as f64 / taken.as_secs_f64()).round()
}

fn size(dir: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        bytes +=
            if entry.file_type()?.is_dir() { size(&entry.path())? } else { allocated(&entry.metadata()?) };
    }
    Ok(bytes)
}

/// A file may be longer than the blocks it occupies.
fn allocated(file: &std::fs::Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    file.blocks() * 512
}

fn resident_kib() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
