//! The embedded default: log and state of one process, in one folder, with one commit point.
//!
//! Contract: a batch (rows, records, acknowledged offsets) is one piece of one frame of the *journal*, a
//! segmented, checksummed, append-only log; it is durable as a whole or not there at all. Many batches
//! share a frame and one `fdatasync` (group commit). Nothing is seen by a reader, and no caller hears of
//! it, before it is durable. Offsets are given out by the one writer and never used twice.
//!
//! The key-value store beside the journal is only a checkpoint: changed rows gather in memory, and when
//! they are many they go into it in one sorted, atomic ingestion together with the position in the
//! journal. What came after that position is replayed at start.
//!
//! # Layout
//! - [`codec`]: what is in a frame. [`segment`]: frames in files, and which damage is which.
//! - [`disk`]: the few file operations, behind a seam that tests make fail.
//! - [`view`]: what readers see: changed rows, tails of the topics, positions.
//! - [`writer`]: the one thread that writes. [`checkpoint`]: the one that empties the memory.
//! - [`log`], [`state`]: the ports.

pub mod checkpoint;
pub mod codec;
pub mod disk;
mod log;
pub mod segment;
mod state;
pub mod view;
pub mod writer;

use std::fs::File;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::log::StoreError;
use heddle_schemas::topic::Epoch;
use tokio::sync::{mpsc, oneshot};

use self::checkpoint::{Checkpointer, Store};
use self::disk::{Disk, RealDisk};
use self::segment::SegmentError;
use self::view::View;
use self::writer::{Order, Writer};

/// Requests that wait for the writer at most; whoever comes then waits for a place.
const WAITING: usize = 8192;

/// How the embedded store behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder; made where it is missing.
    pub dir: PathBuf,
    /// Partitions of inbound, outbound and events. Fixed once the folder is made.
    pub partitions: NonZeroU32,
    /// Bytes of a segment file.
    pub segment_bytes: NonZeroU64,
    /// How long a segment is kept that nobody needs any more.
    pub retention: Duration,
    /// Bytes that the journal may take; over it nothing is taken in until something can go.
    pub max_bytes: NonZeroU64,
    /// Bytes of the key-value store's cache.
    pub cache_bytes: NonZeroU64,
    /// Bytes of changed rows in memory before a checkpoint.
    pub checkpoint_bytes: NonZeroU64,
    /// Bytes of the newest records of each partition kept in memory.
    pub tail_bytes: usize,
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
        }
    }
}

/// Why the store could not be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{} is in use by another process; stop that one, or use another data_dir", .0.display())]
    InUse(PathBuf),
    /// A file could not be read or written.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system says.
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
        /// With how many it was made.
        made: u32,
        /// How many are asked for.
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
        /// What is wrong.
        detail: String,
    },
}

/// The embedded store.
pub struct Embedded {
    options: Options,
    clock: Arc<dyn Clock>,
    view: Arc<View>,
    store: Arc<Store>,
    epoch: Epoch,
    orders: mpsc::Sender<Order>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    _lock: File,
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embedded").field("dir", &self.options.dir).finish_non_exhaustive()
    }
}

impl Embedded {
    /// Opens the folder, replays what came after the checkpoint, and begins a new epoch.
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
        std::fs::create_dir_all(&journal).map_err(|source| io(&journal, source))?;
        let lock = lock(&options.dir)?;
        let store = Arc::new(Store::open(&options.dir.join("rows"), options.cache_bytes)?);
        let saved = store.read_saved(&options)?;
        let view = Arc::new(View::new(&options));
        let mut writer = Writer::replay(&options, disk, clock.clone(), view.clone(), saved)?;
        writer.reads(store.clone());
        let epoch = writer.begin_epoch().map_err(|source| io(&journal, source))?;
        let (orders, receiver) = mpsc::channel(WAITING);
        let mut threads = Vec::new();
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new()
                .name(name.into())
                .spawn(run)
                .map_err(|source| io(&options.dir, source))
        };
        let checkpointer = Checkpointer { store: store.clone(), view: view.clone(), clock: clock.clone() };
        threads.push(spawn("checkpoint", Box::new(move || checkpointer.run()))?);
        let done = view.clone();
        threads.push(spawn(
            "journal",
            Box::new(move || {
                writer.run(receiver);
                done.stop();
            }),
        )?);
        Ok(Arc::new(Self {
            options,
            clock,
            view,
            store,
            epoch,
            orders,
            threads: Mutex::new(threads),
            _lock: lock,
        }))
    }

    /// How often the folder has been opened.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// How many frames have been written, each with one sync: with the number of commits, how well they group.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.view.syncs()
    }

    /// Writes a checkpoint and waits for it.
    ///
    /// # Errors
    /// [`StoreError::Closed`].
    pub async fn checkpoint(&self) -> Result<(), StoreError> {
        let (done, waits) = oneshot::channel();
        self.orders.send(Order::Checkpoint(done)).await.map_err(|_| StoreError::Closed)?;
        waits.await.map_err(|_| StoreError::Closed)?;
        self.view.wait_for_checkpoint();
        Ok(())
    }

    /// Finishes what has been asked, writes a checkpoint and ends the threads. Later calls say
    /// [`StoreError::Closed`]. Dropping the store without it is a crash, from which nothing is lost.
    pub async fn close(&self) {
        let (done, waits) = oneshot::channel();
        if self.orders.send(Order::Close(done)).await.is_ok() {
            drop(waits.await);
        }
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                drop(thread.join());
            }
        });
        drop(joined.await);
    }

    async fn order<T>(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Order,
    ) -> Result<T, StoreError> {
        let (done, waits) = oneshot::channel();
        self.orders.send(order(done)).await.map_err(|_| StoreError::Closed)?;
        waits.await.map_err(|_| StoreError::Closed)?
    }
}

fn io(path: &Path, source: std::io::Error) -> OpenError {
    OpenError::Io { path: path.into(), source }
}

fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|source| io(&path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(OpenError::InUse(dir.into())),
        Err(std::fs::TryLockError::Error(source)) => Err(io(&path, source)),
    }
}
