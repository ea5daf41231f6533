//! The embedded default: log and state of one process, in one folder, with one commit point.
//!
//! Contract: a batch (rows, records, acknowledged offsets) is one piece of one frame of the *journal*, a
//! segmented, checksummed, append-only log; it is durable as a whole or not there at all. Many batches
//! share a frame and one `fdatasync` (group commit). Readers see nothing, and callers are not answered,
//! before the batch is durable. Offsets are assigned by the single writer and never reused.
//!
//! The key-value store beside the journal is only a checkpoint: changed rows collect in memory and, above a limit,
//! go into it in one sorted, atomic ingestion together with the position in the journal. What follows that
//! position is replayed at start.
//!
//! One process has the folder open at a time. Dropping a store without [`Embedded::close`] is equivalent to
//! a crash: what was acknowledged is there at the next start, and what was not may be.
//!
//! # Layout
//! - `codec`: the encoding of a frame. `segment`: frames in files, and the kinds of damage.
//! - [`disk`]: the few file operations, behind a seam that tests make fail.
//! - `order`: requests to the writer. `writer`: the thread that writes. `announcer`: the thread that publishes
//!   what is durable. `checkpoint`: the thread that moves rows from memory to the `store`. `compaction`: the periodic
//!   rewrite of the store's files, which `generations` does range by range.
//! - `view`: the state that readers see, and `changes` to it: `rows`, `tail`s, and the `catalog` of segments. `merge`:
//!   scans over it.
//! - `replay`: the start. `older`: records that are no longer in memory.
//! - `log`, `state`, `walk`: the ports.

mod announcer;
mod catalog;
mod changes;
mod checkpoint;
mod codec;
mod compaction;
pub mod disk;
mod generations;
mod log;
mod merge;
mod older;
mod order;
mod replay;
mod resume;
mod rows;
mod saved;
mod segment;
mod state;
mod stats;
mod store;
mod tail;
mod view;
mod walk;
mod writer;

use std::fs::File;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc as threads};
use std::thread::JoinHandle;
use std::time::Duration;

use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::log::{NewRecord, StoreError};
use heddle_schemas::ports::state::Write;
use heddle_schemas::topic::{Epoch, Offset, TopicPartition};
use tokio::sync::{Semaphore, mpsc, oneshot};

use self::announcer::Announcer;
use self::checkpoint::Checkpointer;
use self::compaction::Compactor;
use self::disk::{Disk, RealDisk};
use self::order::{Order, Prepared};
use self::replay::Replay;
use self::resume::Resumes;
use self::saved::Saved;
pub use self::segment::SegmentError;
pub use self::stats::Stats;
use self::store::Store;
use self::view::View;
use self::writer::Writer;

/// Maximum number of orders that wait for the writer; further callers wait for a slot.
const WAITING: usize = 8192;
/// A batch of more bytes is large: large ones that wait are bounded by their bytes, not their number.
const LARGE: usize = 16 << 10;
/// Bytes of large batches that wait for the writer at most.
const LARGE_WAITING: usize = 2 * order::MAX_BATCH;
/// Groups that are durable and wait to be shown.
const ANNOUNCED: usize = 2;

/// Configuration of the embedded store.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder; made where it is missing.
    pub dir: PathBuf,
    /// Partitions of inbound, outbound and events. Fixed once the folder is made.
    pub partitions: NonZeroU32,
    /// Bytes of a segment file.
    pub segment_bytes: NonZeroU64,
    /// Time that a segment is kept after it is no longer needed.
    pub retention: Duration,
    /// Maximum size of the journal in bytes; above it writes are refused until a segment can be deleted.
    pub max_bytes: NonZeroU64,
    /// Bytes of the key-value store's cache.
    pub cache_bytes: NonZeroU64,
    /// Bytes of changed rows in memory before a checkpoint.
    pub checkpoint_bytes: NonZeroU64,
    /// Bytes of the newest records of each partition kept in memory.
    pub tail_bytes: usize,
    /// Interval at which the checkpoint's files are rewritten without the bytes of removed rows.
    pub compact_every: Duration,
}

impl Options {
    /// The defaults, in this folder.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        let log = heddle_schemas::config::Log::default();
        let state = heddle_schemas::config::State::default();
        Self {
            dir: dir.into(),
            partitions: log.partitions,
            segment_bytes: log.segment_bytes,
            retention: log.retention,
            max_bytes: log.max_bytes,
            cache_bytes: state.cache_bytes,
            checkpoint_bytes: state.checkpoint_bytes,
            tail_bytes: 4 << 20,
            compact_every: state.compact_every,
        }
    }
}

/// Error of opening the store. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{} is in use by another process; stop that one, or use another data_dir", .0.display())]
    InUse(PathBuf),
    /// A file could not be read or written.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Path that the operation failed on.
        path: PathBuf,
        /// Operating system's error.
        source: std::io::Error,
    },
    /// It was made with another number of partitions.
    #[error(
        "{} was made with {made} partitions and is opened with {asked}; set log.partitions = {made}, \
         or start with an empty data_dir", .dir.display()
    )]
    Partitions {
        /// The folder.
        dir: PathBuf,
        /// Number of partitions that it was made with.
        made: u32,
        /// Number of partitions that is configured.
        asked: u32,
    },
    /// The journal is damaged.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// The checkpoint is damaged or cannot be read.
    #[error("the checkpoint in {}: {detail}", .dir.display())]
    Checkpoint {
        /// Its folder.
        dir: PathBuf,
        /// Description of the fault.
        detail: String,
    },
}

/// The embedded store.
///
/// The order of its fields is the order in which they are dropped: senders first, then threads, then the folder's lock.
pub struct Embedded {
    options: Options,
    clock: Arc<dyn Clock>,
    view: Arc<View>,
    epoch: Epoch,
    stats: Arc<Stats>,
    resume: Resumes,
    large: Semaphore,
    orders: mpsc::Sender<Order>,
    threads: Threads,
    store: Arc<Store>,
    lock: Mutex<Option<File>>,
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embedded").field("dir", &self.options.dir).finish_non_exhaustive()
    }
}

impl Embedded {
    /// Opens the folder, replays what came after the checkpoint, and begins a new epoch. Reads files, and
    /// blocks as long as that takes.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(options: Options, clock: Arc<dyn Clock>) -> Result<Arc<Self>, OpenError> {
        Self::open_on(options, clock, Arc::new(RealDisk))
    }

    /// As [`Embedded::open`], over a disk that tests make fail.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_on(
        options: Options,
        clock: Arc<dyn Clock>,
        disk: Arc<dyn Disk>,
    ) -> Result<Arc<Self>, OpenError> {
        let journal = options.dir.join("journal");
        heddle_keys::private_file::make_folder(&journal).map_err(|source| io(&journal, source))?;
        let lock = lock(&options.dir)?;
        // The names of the folders are durable before anything in them is.
        for dir in [Some(options.dir.as_path()), options.dir.parent()].into_iter().flatten() {
            sync_dir(dir).map_err(|source| io(dir, source))?;
        }
        let stats = Arc::new(Stats::default());
        let store = Arc::new(Store::open(&options, stats.clone())?);
        let view = Arc::new(restore(&options, &store, &*clock)?);
        let resume = Replay { dir: journal.clone(), options: &options, view: &view }.run(&*disk)?;
        let mut writer = Writer::new(
            &options,
            disk.clone(),
            clock.clone(),
            view.clone(),
            store.clone(),
            stats.clone(),
            resume,
        );
        let announcer = Announcer { view: view.clone(), clock: clock.clone() };
        if let Some(group) = writer.begin_epoch().map_err(|source| io(&journal, source))? {
            announcer.show(group);
        }
        let epoch = writer.epoch();
        view.begin(epoch);
        let (orders, receiver) = mpsc::channel(WAITING);
        let (sender, announcements) = threads::sync_channel(ANNOUNCED);
        let compactor = Compactor::new(store.clone(), clock.clone(), options.compact_every);
        let checkpointer = Checkpointer {
            compactor: compactor.map_err(|error| OpenError::Checkpoint {
                dir: Store::path(&options.dir),
                detail: error.to_string(),
            })?,
            stats: stats.clone(),
            store: store.clone(),
            view: view.clone(),
            clock: clock.clone(),
            disk,
            journal,
            orders: orders.downgrade(),
            swept: (clock.elapsed(), None),
        };
        let threads = Threads::default();
        let failed = |source| io(&options.dir, source);
        threads.spawn("checkpoint", move || checkpointer.run()).map_err(failed)?;
        threads.spawn("announce", move || announcer.run(announcements)).map_err(failed)?;
        threads.spawn("journal", move || writer.run(receiver, &sender)).map_err(failed)?;
        Ok(Arc::new(Self {
            options,
            clock,
            view,
            epoch,
            stats,
            resume: Resumes::default(),
            large: Semaphore::new(LARGE_WAITING),
            orders,
            threads,
            store,
            lock: Mutex::new(Some(lock)),
        }))
    }

    /// Returns the number of times that the folder has been opened.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Returns counters of what was written since the store was opened.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Returns the reason for which nothing is accepted or checkpointed now, if there is one: a full disk, mostly.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        self.view.fault()
    }

    /// Returns the bytes that are free on the disk of the store, as far as the system says.
    #[must_use]
    pub fn free_bytes(&self) -> Option<u64> {
        store::free_bytes(&self.options.dir)
    }

    /// Bytes that the journal takes now.
    #[must_use]
    pub fn journal_bytes(&self) -> u64 {
        self.view.held()
    }

    /// Writes a checkpoint and waits for it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when it cannot be written, [`StoreError::Closed`].
    pub async fn checkpoint(&self) -> Result<(), StoreError> {
        let (done, waits) = oneshot::channel();
        self.orders.send(Order::Checkpoint(done)).await.map_err(|_| StoreError::Closed)?;
        waits.await.map_err(|_| StoreError::Closed)??;
        let view = self.view.clone();
        let written = tokio::task::spawn_blocking(move || view.wait_for_checkpoint());
        written.await.map_err(|_| StoreError::Closed)?
    }

    /// Writes a checkpoint and rewrites all files, so that no bytes of deleted or overwritten rows are left.
    /// This also runs periodically ([`Options::compact_every`]); call it for what cannot wait. Takes as long as
    /// reading and writing the whole store.
    ///
    /// # Errors
    /// As [`Embedded::checkpoint`].
    pub async fn compact(&self) -> Result<(), StoreError> {
        self.checkpoint().await?;
        let (store, clock) = (self.store.clone(), self.clock.clone());
        let compacted = tokio::task::spawn_blocking(move || store.compact(&*clock));
        compacted.await.map_err(|_| StoreError::Closed)?
    }

    /// Completes pending orders, writes a checkpoint, ends the threads and releases the folder. Later calls
    /// fail with [`StoreError::Closed`].
    pub async fn close(&self) {
        let (done, waits) = oneshot::channel();
        if self.orders.send(Order::Close(done)).await.is_ok() {
            drop(waits.await);
        }
        let threads = self.threads.take();
        drop(tokio::task::spawn_blocking(move || Threads::join(threads)).await);
        self.store.close();
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn prepare(
        &self,
        writes: Vec<Write>,
        records: Vec<NewRecord>,
        consumed: Vec<(TopicPartition, Offset)>,
    ) -> Result<Prepared, StoreError> {
        let named = records.iter().map(|record| record.partition);
        for partition in named.chain(consumed.iter().map(|(partition, _)| *partition)) {
            self.view.check(partition)?;
        }
        Prepared::new(writes, records, consumed)
    }

    async fn order<T>(
        &self,
        prepared: Prepared,
        order: impl FnOnce(Prepared, oneshot::Sender<Result<T, StoreError>>) -> Order,
    ) -> Result<T, StoreError> {
        let bytes = prepared.encoded.bytes.len();
        let _place = if bytes > LARGE {
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            Some(self.large.acquire_many(bytes).await.map_err(|_| StoreError::Closed)?)
        } else {
            None
        };
        let (done, waits) = oneshot::channel();
        self.orders.send(order(prepared, done)).await.map_err(|_| StoreError::Closed)?;
        waits.await.map_err(|_| StoreError::Closed)?
    }
}

/// Threads of a store; dropping it joins them. They end when no sender is left.
#[derive(Debug, Default)]
struct Threads(Mutex<Vec<JoinHandle<()>>>);

impl Threads {
    fn spawn(&self, name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        let thread = std::thread::Builder::new().name(name.into()).spawn(run)?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }

    fn take(&self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn join(threads: Vec<JoinHandle<()>>) {
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the embedded store has panicked");
            }
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        Self::join(self.take());
    }
}

/// Returns the state that readers see first: the one of the checkpoint.
fn restore(options: &Options, store: &Store, clock: &dyn Clock) -> Result<View, OpenError> {
    let made = options.partitions.get();
    let damaged = |detail: String| OpenError::Checkpoint { dir: Store::path(&options.dir), detail };
    let (saved, segments) = store
        .read_saved()
        .map_err(damaged)?
        .unwrap_or_else(|| (Saved { partitions: made, ..Saved::default() }, Vec::new()));
    if saved.partitions != made {
        let dir = options.dir.clone();
        return Err(OpenError::Partitions { dir, made: saved.partitions, asked: made });
    }
    Ok(View::new(options, saved, segments, clock.now()))
}

fn sync_dir(dir: &Path) -> std::io::Result<()> {
    // A relative path of one part has an empty parent, which is here.
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    File::open(dir)?.sync_all()
}

fn io(path: &Path, source: std::io::Error) -> OpenError {
    OpenError::Io { path: path.into(), source }
}

/// Number of attempts to lock a folder that another process has open.
const LOCK_TRIES: u32 = 50;
/// The pause between two tries.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|source| io(&path, source))?;
    // A process that has just closed it may have left a copy of the handle to a process that is being started, which
    // drops it within moments; a service manager may start the next process while the last one ends.
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(std::fs::TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(std::fs::TryLockError::Error(source)) => return Err(io(&path, source)),
        }
    }
    Err(OpenError::InUse(dir.into()))
}
