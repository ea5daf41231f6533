//! Turns a second of the embedded store, alone.
//!
//! Concurrent tasks each commit one batch after the other, shaped like a turn without outside
//! calls: the head of a conversation (written again with every turn), one row of history, one marker, one
//! outbound record, one settled inbound record. Values do not compress, like sealed ones. Nothing else runs:
//! the engine's own work on a turn comes on top. Prints one JSON object; its CPU time includes making the
//! batches.
//!
//! `embedded_commit [--in-flight 4096] [--seconds 10] [--conversations 200000] [--checkpoint-mib 64]
//! [--dir DIR] [--with-inbound]`; with `--with-inbound` each record is appended first, which is what a
//! webhook waits for.

#![expect(clippy::print_stdout, reason = "what it prints is what it is for")]
#![expect(clippy::disallowed_methods, reason = "a measurement takes the time")]

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use heddle_connectors::clock::SystemClock;
use heddle_connectors::embedded::{Embedded, Options};
use heddle_schemas::id::{ChannelKind, ContactId, ConversationId, MessageKey};
use heddle_schemas::ports::clock::Clock as _;
use heddle_schemas::ports::log::{Log as _, NewRecord};
use heddle_schemas::ports::state::{Batch, Fence, State as _, Write};
use heddle_schemas::table::Key;
use heddle_schemas::topic::{Topic, TopicPartition};
use serde_json::json;

const PARTITIONS: u32 = 8;
const HEAD: usize = 400;
const HISTORY: usize = 400;
const RECORD: usize = 600;
/// A marker outlives every redelivery.
const MARKER_LIVES: Duration = Duration::from_secs(8 * 86_400);

struct Load {
    in_flight: u64,
    seconds: u64,
    conversations: u64,
    checkpoint_mib: u64,
    dir: Option<String>,
    with_inbound: bool,
}

impl Load {
    fn read() -> anyhow::Result<Self> {
        let mut load = Self {
            in_flight: 4096,
            seconds: 10,
            conversations: 200_000,
            checkpoint_mib: 64,
            dir: None,
            with_inbound: false,
        };
        let mut args = std::env::args().skip(1);
        while let Some(name) = args.next() {
            if name == "--with-inbound" {
                load.with_inbound = true;
                continue;
            }
            let value = args.next().with_context(|| format!("{name} takes a value"))?;
            match name.as_str() {
                "--in-flight" => load.in_flight = value.parse()?,
                "--seconds" => load.seconds = value.parse()?,
                "--conversations" => load.conversations = value.parse()?,
                "--checkpoint-mib" => load.checkpoint_mib = value.parse()?,
                "--dir" => load.dir = Some(value),
                _ => bail!("there is no {name}"),
            }
        }
        anyhow::ensure!(load.in_flight > 0 && load.conversations >= load.in_flight, "too few conversations");
        Ok(load)
    }
}

fn main() -> anyhow::Result<()> {
    let load = Load::read()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure(load))
}

/// Bytes that do not compress, from which every value is a piece.
fn noise() -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..8192).flat_map(|_| next()).collect()
}

struct Shared {
    store: Arc<Embedded>,
    noise: Vec<u8>,
    settled: [AtomicU64; PARTITIONS as usize],
    until: Instant,
    in_flight: u64,
    conversations: u64,
    with_inbound: bool,
}

async fn measure(load: Load) -> anyhow::Result<()> {
    let dir = match &load.dir {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let options = Options {
        partitions: PARTITIONS.try_into()?,
        max_bytes: NonZeroU64::MAX,
        checkpoint_bytes: NonZeroU64::new(load.checkpoint_mib << 20).context("--checkpoint-mib 0")?,
        ..Options::new(dir.path())
    };
    let store = Embedded::open(options, Arc::new(SystemClock))?;
    let began = Instant::now();
    let shared = Arc::new(Shared {
        store: store.clone(),
        noise: noise(),
        settled: Default::default(),
        until: began + Duration::from_secs(load.seconds),
        in_flight: load.in_flight,
        conversations: load.conversations,
        with_inbound: load.with_inbound,
    });
    let tasks: Vec<_> = (0..load.in_flight).map(|task| tokio::spawn(turns(shared.clone(), task))).collect();
    let mut taken = Vec::new();
    for task in tasks {
        taken.extend(task.await??);
    }
    let elapsed = began.elapsed().as_secs_f64();
    taken.sort_unstable();
    let commits = taken.len();
    let millis = |quantile: f64| {
        let index = ((commits as f64 * quantile) as usize).min(commits.saturating_sub(1));
        f64::from(taken.get(index).copied().unwrap_or(0)) / 1_000.0
    };
    let stats = store.stats();
    let closing = Instant::now();
    let report = json!({
        "in_flight": load.in_flight,
        "conversations": load.conversations,
        "with_inbound": load.with_inbound,
        "checkpoint_mib": load.checkpoint_mib,
        "seconds": (elapsed * 100.0).round() / 100.0,
        "commits": commits,
        "commits_per_s": (commits as f64 / elapsed).round(),
        "p50_ms": millis(0.5),
        "p99_ms": millis(0.99),
        "max_ms": millis(1.0),
        "journal_mb_per_s": (stats.bytes() as f64 / elapsed / 1e6).round(),
        "bytes_per_commit": stats.bytes() / (commits as u64).max(1),
        "syncs": stats.frames(),
        "mean_group": stats.batches() / stats.frames().max(1),
        "cpu_us_per_commit": (cpu_micros()? / commits.max(1) as f64 * 10.0).round() / 10.0,
        "resident_mib": resident_kib()? >> 10,
        "profile": if cfg!(debug_assertions) { "debug" } else { "release" },
    });
    store.close().await;
    println!("{report}");
    anyhow::ensure!(closing.elapsed() < Duration::from_secs(120), "closing took {:?}", closing.elapsed());
    Ok(())
}

/// Turns of one task, each in another conversation of its own; returns the time of each, in microseconds.
async fn turns(shared: Arc<Shared>, task: u64) -> anyhow::Result<Vec<u32>> {
    let mut taken = Vec::with_capacity(1024);
    let own = shared.conversations / shared.in_flight;
    let index = u32::try_from(task % u64::from(PARTITIONS))?;
    let inbound = TopicPartition { topic: Topic::Inbound, partition: index };
    let outbound = TopicPartition { topic: Topic::Outbound, partition: index };
    let fence = Fence { partition: inbound, epoch: shared.store.epoch() };
    let mut turn = 0_u64;
    while Instant::now() < shared.until {
        let number = task + (turn % own) * shared.in_flight;
        let conversation = conversation(number)?;
        let record = |partition| NewRecord {
            partition,
            key: number.to_be_bytes().to_vec().into(),
            value: piece(&shared.noise, number + turn, RECORD).into(),
        };
        let settled = if shared.with_inbound {
            let offsets = shared.store.append(vec![record(inbound)]).await?;
            *offsets.first().context("one record has one offset")?
        } else {
            shared.settled[index as usize].fetch_add(1, Ordering::Relaxed)
        };
        let mut message = [0; 16];
        message[..8].copy_from_slice(&mixed(number).to_be_bytes());
        message[8..].copy_from_slice(&turn.to_be_bytes());
        let marker = Key::marker(&conversation, MessageKey::from_bytes(message));
        let batch = Batch {
            fence: Some(fence),
            writes: vec![
                Write::put(Key::head(&conversation), piece(&shared.noise, number + turn, HEAD)),
                Write::put(Key::history(&conversation, turn), piece(&shared.noise, turn, HISTORY)),
                Write::put_until(marker, "", SystemClock.now().after(MARKER_LIVES)),
            ],
            outputs: vec![record(outbound)],
            after: Vec::new(),
            consumed: vec![(inbound, settled)],
        };
        let began = Instant::now();
        shared.store.commit(batch).await?;
        taken.push(u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX));
        turn += 1;
    }
    Ok(taken)
}

fn conversation(number: u64) -> anyhow::Result<ConversationId> {
    let mut contact = [0; 16];
    contact[..8].copy_from_slice(&mixed(number).to_be_bytes());
    contact[8..].copy_from_slice(&number.to_be_bytes());
    Ok(ConversationId {
        tenant: "acme".parse()?,
        channel: ChannelKind::Whatsapp,
        account: "1122334455667".parse()?,
        contact: ContactId::from_bytes(contact),
    })
}

/// SplitMix64's last step: contacts' ids are random.
fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn piece(noise: &[u8], at: u64, len: usize) -> Vec<u8> {
    let at = usize::try_from(at.wrapping_mul(97) % (noise.len() - len) as u64).unwrap_or(0);
    noise[at..at + len].to_vec()
}

/// Returns the CPU time of user and system, which other work on the machine changes less than the elapsed time.
fn cpu_micros() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(')').next().context("stat")?.split_whitespace();
    // proc(5): utime and stime are the 14th and 15th field, of which two are consumed; in ticks of 10 ms.
    let ticks = fields.skip(11).take(2).map(str::parse::<f64>).sum::<Result<f64, _>>()?;
    Ok(ticks * 10_000.0)
}

fn resident_kib() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
