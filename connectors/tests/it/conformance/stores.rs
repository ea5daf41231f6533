//! Stores that the suites run on, each reopened over its own data.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use async_trait::async_trait;
use heddle_connectors::embedded::{self, Embedded};
use heddle_connectors::keys::{self, EnvelopeKeys, MasterKey};
use heddle_connectors::knowledge::{self, TantivyKnowledge};
use heddle_memory::{ManualClock, MemoryDisk, MemoryStore, Options};
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::log::{FetchLimit, Log, NewRecord, Record};
use heddle_schemas::ports::state::{Fence, State};
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Epoch, Offset, Topic, TopicPartition};

use heddle_connectors_testing::vault::Transit;

/// Log and state of one incarnation.
pub(crate) struct Opened {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) state: Arc<dyn State>,
}

/// Storage of a store: a disk in memory, a folder, a cluster. Empty at first, with at
/// least two partitions of inbound.
#[async_trait]
pub(crate) trait Backend: Send {
    /// Starts the next incarnation. The suites hold no handle of the one before any more; where it
    /// takes more than that to end it, this does it.
    async fn open(&mut self, clock: Arc<dyn Clock>) -> Opened;
}

/// A disk in memory.
pub(crate) struct MemoryBackend {
    disk: Arc<MemoryDisk>,
    split: bool,
}

impl MemoryBackend {
    /// Commits in one step.
    pub(crate) fn whole() -> Self {
        Self { disk: MemoryDisk::new(NonZeroU32::new(3).unwrap()), split: false }
    }

    /// Commits rows, records and offsets one after the other.
    pub(crate) fn split() -> Self {
        Self { split: true, ..Self::whole() }
    }
}

#[async_trait]
impl Backend for MemoryBackend {
    async fn open(&mut self, clock: Arc<dyn Clock>) -> Opened {
        let options = Options { split: self.split, ..Options::default() };
        let store = Arc::new(MemoryStore::open_with(self.disk.clone(), clock, options));
        Opened { log: store.clone(), state: store }
    }
}

/// A folder.
pub(crate) struct EmbeddedBackend {
    dir: tempfile::TempDir,
    open: Option<Arc<Embedded>>,
}

impl EmbeddedBackend {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), open: None }
    }
}

#[async_trait]
impl Backend for EmbeddedBackend {
    async fn open(&mut self, clock: Arc<dyn Clock>) -> Opened {
        if let Some(before) = self.open.take() {
            before.close().await;
        }
        let options = embedded::Options {
            partitions: NonZeroU32::new(3).unwrap(),
            ..embedded::Options::new(self.dir.path())
        };
        let store = Embedded::open(options, clock).unwrap();
        self.open = Some(store.clone());
        Opened { log: store.clone(), state: store }
    }
}

/// A store under test, with its clock.
pub(crate) struct Fixture {
    backend: Box<dyn Backend>,
    opened: Option<Opened>,
    pub(crate) clock: Arc<ManualClock>,
    /// Location of master keys; without it, in the process.
    pub(crate) vault: Option<Vaulted>,
}

/// Master keys in Vault.
pub(crate) struct Vaulted {
    pub(crate) transit: Transit,
    /// True if they are derived by the context.
    pub(crate) derived: bool,
}

impl Fixture {
    pub(crate) async fn new(backend: impl Backend + 'static) -> Self {
        // 2026-01-01T00:00:00Z.
        let clock = Arc::new(ManualClock::starting_at(Timestamp::from_secs(1_767_225_600)));
        let mut fixture = Self { backend: Box::new(backend), opened: None, clock, vault: None };
        fixture.reopen().await;
        fixture
    }

    /// Returns the same fixture, with its master keys in Vault.
    pub(crate) async fn with_vault(mut self, derived: bool) -> Self {
        self.vault = Some(Vaulted { transit: Transit::start().await, derived });
        self
    }

    /// Ends this incarnation and starts the next. Handles taken before must have been dropped.
    pub(crate) async fn reopen(&mut self) {
        self.opened = None;
        self.opened = Some(self.backend.open(self.clock.clone()).await);
    }

    pub(crate) fn log(&self) -> Arc<dyn Log> {
        self.opened.as_ref().unwrap().log.clone()
    }

    pub(crate) fn state(&self) -> Arc<dyn State> {
        self.opened.as_ref().unwrap().state.clone()
    }

    /// Documents in this store, under keys of its own.
    pub(crate) fn knowledge(&self) -> TantivyKnowledge {
        let master = MasterKey::from_base64("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
        let keys = EnvelopeKeys::new(self.state(), self.clock.clone(), &master, keys::Options::default());
        TantivyKnowledge::new(self.state(), Arc::new(keys), &knowledge::Options::default())
    }

    /// Everything that is in a partition of the log.
    pub(crate) async fn records(&self, partition: TopicPartition) -> Vec<Record> {
        let log = self.log();
        let mut records: Vec<Record> = Vec::new();
        loop {
            let from = records.last().map_or(0, |record| record.offset + 1);
            let more = log.fetch(partition, from, LIMIT, std::time::Duration::ZERO).await.unwrap();
            if more.is_empty() {
                return records;
            }
            records.extend(more);
        }
    }

    /// Appends records with these values.
    pub(crate) async fn append(&self, partition: TopicPartition, values: &[&'static str]) -> Vec<Offset> {
        let records = values.iter().map(|value| record(partition, "k", value)).collect();
        self.log().append(records).await.unwrap()
    }

    /// The fence of the current ownership.
    pub(crate) async fn fence(&self, partition: TopicPartition) -> Fence {
        let owned = self.owned(|owned| owned.contains_key(&partition)).await;
        Fence { partition, epoch: owned[&partition] }
    }

    /// Returns the partitions that the only node owns, once they are `enough`: they may come one by one.
    pub(crate) async fn owned(
        &self,
        enough: impl Fn(&BTreeMap<TopicPartition, Epoch>) -> bool,
    ) -> BTreeMap<TopicPartition, Epoch> {
        let log = self.log();
        let waited = async {
            let mut seen = 0;
            loop {
                let assignment = log.assignment(seen).await.unwrap();
                seen = assignment.generation;
                let owned: BTreeMap<_, _> = assignment.partitions.into_iter().collect();
                if enough(&owned) {
                    return owned;
                }
            }
        };
        let patience = std::time::Duration::from_secs(60);
        tokio::time::timeout(patience, waited).await.expect("the only node owns every partition")
    }
}

pub(crate) const LIMIT: FetchLimit = FetchLimit { records: 1_000, bytes: 1 << 20 };
pub(crate) const INBOUND: TopicPartition = TopicPartition { topic: Topic::Inbound, partition: 0 };
pub(crate) const INBOUND_1: TopicPartition = TopicPartition { topic: Topic::Inbound, partition: 1 };
pub(crate) const OUTBOUND: TopicPartition = TopicPartition { topic: Topic::Outbound, partition: 0 };
pub(crate) const TENANTS: TopicPartition = TopicPartition { topic: Topic::Tenants, partition: 0 };

/// Larger than any store takes: Kafka's default limit is 1 MiB.
pub(crate) const TOO_LARGE: usize = 65 << 20;

pub(crate) fn record(partition: TopicPartition, key: &'static str, value: &'static str) -> NewRecord {
    NewRecord { partition, key: key.into(), value: value.into() }
}

pub(crate) fn too_large(partition: TopicPartition) -> NewRecord {
    NewRecord { partition, key: "k".into(), value: vec![b' '; TOO_LARGE].into() }
}

pub(crate) fn values(records: &[Record]) -> Vec<&str> {
    records.iter().map(|record| std::str::from_utf8(&record.value).unwrap()).collect()
}
