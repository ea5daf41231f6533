//! The configuration of all tenants on this node, read from topic tenants and followed from there.
//!
//! Secrets are sealed in the log and open only here. A change is in force on this node when
//! [`Tenants::apply`] returns, and on others as soon as they have read it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use heddle_schemas::id::{AccountId, ChannelKind, TenantId};
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::keys::{Keys, KeysError};
use heddle_schemas::ports::log::{FetchLimit, Log, NewRecord, Record, StoreError};
use heddle_schemas::record::tenants::{TenantRecord, TenantSecrets};
use heddle_schemas::record::{RecordError, V, decode, encode, log_aad};
use heddle_schemas::retention::{self, Former, Kind, suits};
use heddle_schemas::sealed::Secret;
use heddle_schemas::tenant::{Faults, Tenant};
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Offset, Topic, TopicPartition, tenant_partition};
use tokio::sync::watch;

/// How long it may take to read what has been applied until now.
const CATCH_UP: Duration = Duration::from_secs(10);

/// Why a tenant could not be applied or read.
#[derive(Debug, thiserror::Error)]
pub enum TenantsError {
    /// The configuration is wrong.
    #[error(transparent)]
    Faults(#[from] Faults),
    /// An account belongs to another tenant.
    #[error("{kind} account {account} belongs to another tenant; remove it there first")]
    Taken {
        /// Which channel.
        kind: ChannelKind,
        /// Which account.
        account: AccountId,
    },
    /// The log keeps records for longer than the tenant was promised.
    #[error(
        "retention.{kind} of tenant {tenant} is {}, and topic {topic} holds records until they are {} old: lower \
         log.retention to {} (on Kafka with `heddle topics apply`), or raise the tenant's",
        humantime::format_duration(*.promised), humantime::format_duration(*.oldest),
        humantime::format_duration(suits(*.promised))
    )]
    Retention {
        /// Which.
        tenant: TenantId,
        /// What of it.
        kind: Kind,
        /// What it was promised.
        promised: Duration,
        /// Where records of it are.
        topic: Topic,
        /// How old they get there.
        oldest: Duration,
    },
    /// The log.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The tenant's key.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// A stored record cannot be read.
    #[error("the configuration of tenant {tenant:?} cannot be read: {source}")]
    Record {
        /// The record's key.
        tenant: String,
        /// What is wrong.
        source: RecordError,
    },
}

/// How long a tenant's rows are kept, and since which record of topic tenants.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Who.
    pub tenant: Arc<Tenant>,
    /// What its retention was before, as far as it still says something.
    pub former: Arc<[Former]>,
    /// How often its retention has been changed.
    pub retentions: u64,
    /// The partition and offset of a record that has it as it is now: of the first, or of a later one that this node
    /// has begun with.
    pub since: (u32, Offset),
}

impl Kept {
    /// When a row ends that was written then.
    #[must_use]
    pub fn end(&self, kind: Kind, written: Timestamp) -> Timestamp {
        retention::end(&self.tenant.retention, &self.former, kind, written)
    }
}

#[derive(Default)]
struct Directory {
    tenants: BTreeMap<TenantId, Kept>,
    accounts: HashMap<(ChannelKind, AccountId), Arc<Tenant>>,
}

impl Directory {
    fn put(&mut self, mut kept: Kept) {
        let tenant = kept.tenant.clone();
        let known = self.tenants.get(&tenant.id).filter(|known| {
            known.retentions == kept.retentions && known.tenant.retention == kept.tenant.retention
        });
        if let Some(known) = known {
            kept.since = known.since;
        }
        self.remove(&tenant.id);
        for channel in &tenant.channels {
            self.accounts.insert((channel.kind, channel.account.clone()), tenant.clone());
        }
        self.tenants.insert(tenant.id.clone(), kept);
    }

    fn remove(&mut self, id: &TenantId) {
        if let Some(Kept { tenant: old, .. }) = self.tenants.remove(id) {
            for channel in &old.channels {
                let key = (channel.kind, channel.account.clone());
                if self.accounts.get(&key).is_some_and(|owner| owner.id == *id) {
                    self.accounts.remove(&key);
                }
            }
        }
    }
}

/// All tenants.
pub struct Tenants {
    log: Arc<dyn Log>,
    keys: Arc<dyn Keys>,
    clock: Arc<dyn Clock>,
    directory: RwLock<Directory>,
    // One change at a time, so that two cannot both take an account.
    applying: tokio::sync::Mutex<()>,
    changes: watch::Sender<u64>,
    /// Up to where each partition of the topic has been read.
    read_to: watch::Sender<BTreeMap<TopicPartition, Offset>>,
    /// How old records become in the log, once that is known.
    oldest_record: OnceLock<Duration>,
}

impl Tenants {
    /// Reads every tenant's newest configuration. [`Tenants::follow`] keeps up with changes.
    ///
    /// # Errors
    /// When the log or a key cannot be read.
    pub async fn load(
        log: Arc<dyn Log>,
        keys: Arc<dyn Keys>,
        clock: Arc<dyn Clock>,
    ) -> Result<(Arc<Self>, Vec<(TopicPartition, Offset)>), TenantsError> {
        let this = Arc::new(Self {
            log,
            keys,
            clock,
            directory: RwLock::default(),
            applying: tokio::sync::Mutex::default(),
            changes: watch::Sender::new(0),
            read_to: watch::Sender::default(),
            oldest_record: OnceLock::new(),
        });
        let mut followed = Vec::new();
        for partition in 0..this.log.partitions(Topic::Tenants) {
            let partition = TopicPartition { topic: Topic::Tenants, partition };
            let (records, next) = this.log.snapshot(partition).await?;
            for record in records {
                this.take(&record).await?;
            }
            followed.push((partition, next));
        }
        this.read_to.send_replace(followed.iter().copied().collect());
        Ok((this, followed))
    }

    /// Records become so old in the log, which must suit every tenant, and every one that is applied later.
    ///
    /// # Errors
    /// [`TenantsError::Retention`].
    pub fn limit_retention(&self, oldest_record: Duration) -> Result<(), TenantsError> {
        // A second call would say the same: it comes from the configuration.
        let _ = self.oldest_record.set(oldest_record);
        self.list().iter().try_for_each(|tenant| self.check_retention(tenant))
    }

    fn check_retention(&self, tenant: &Tenant) -> Result<(), TenantsError> {
        let Some(&oldest) = self.oldest_record.get() else { return Ok(()) };
        // What is in ingress is in inbound as well.
        for topic in [Topic::Inbound, Topic::Outbound, Topic::Events, Topic::Dlq] {
            let Some((kind, promised)) = tenant.retention.shortest_in(topic) else { continue };
            if oldest > promised {
                return Err(TenantsError::Retention {
                    tenant: tenant.id.clone(),
                    kind,
                    promised,
                    topic,
                    oldest,
                });
            }
        }
        Ok(())
    }

    /// Reads on from where [`Tenants::load`] stopped, for as long as it is polled.
    pub async fn follow(self: Arc<Self>, partition: TopicPartition, mut next: Offset) {
        let limit = FetchLimit { records: 64, bytes: 1 << 20 };
        loop {
            match self.log.fetch(partition, next, limit, Duration::from_secs(30)).await {
                Ok(records) => {
                    for record in records {
                        next = record.offset + 1;
                        if let Err(error) = self.take(&record).await {
                            // The node goes on with the configuration it has.
                            tracing::error!(%error, %partition, offset = record.offset, "a tenant was not taken over");
                        }
                    }
                    self.read_to.send_modify(|read_to| {
                        read_to.insert(partition, next);
                    });
                }
                Err(StoreError::Closed) => return,
                Err(error) => {
                    tracing::warn!(%error, %partition, "tenants cannot be followed now");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    async fn take(&self, record: &Record) -> Result<(), TenantsError> {
        let name = || String::from_utf8_lossy(&record.key).into_owned();
        if record.value.is_empty() {
            if let Ok(id) = name().parse() {
                self.change(|directory| directory.remove(&id));
            }
            return Ok(());
        }
        let stored: TenantRecord =
            decode(&record.value).map_err(|source| TenantsError::Record { tenant: name(), source })?;
        let (former, retentions) = (stored.former.clone().into(), stored.retentions);
        let tenant = Arc::new(self.open(stored).await?);
        let since = (record.partition.partition, record.offset);
        self.change(|directory| directory.put(Kept { tenant, former, retentions, since }));
        Ok(())
    }

    async fn open(&self, stored: TenantRecord) -> Result<Tenant, TenantsError> {
        let mut tenant = stored.config;
        let cipher = self.keys.tenant(&tenant.id).await?;
        let plain = cipher.open(&log_aad(Topic::Tenants, &tenant.id), &stored.secrets)?;
        let secrets: TenantSecrets =
            serde_json::from_slice(&plain).map_err(|error| TenantsError::Record {
                tenant: tenant.id.to_string(),
                source: RecordError::Shape(error.to_string()),
            })?;
        for (place, secret) in tenant.secrets_mut() {
            *secret = Secret::new(secrets.get(&place).cloned().unwrap_or_default());
        }
        Ok(tenant)
    }

    /// Makes a configuration the tenant's own, durably.
    ///
    /// # Errors
    /// [`TenantsError`].
    pub async fn apply(&self, mut tenant: Tenant) -> Result<Arc<Tenant>, TenantsError> {
        tenant.validate()?;
        self.check_retention(&tenant)?;
        let _one_at_a_time = self.applying.lock().await;
        for channel in &tenant.channels {
            let owner = self.by_account(channel.kind, &channel.account);
            if owner.is_some_and(|owner| owner.id != tenant.id) {
                return Err(TenantsError::Taken { kind: channel.kind, account: channel.account.clone() });
            }
        }
        let secrets: TenantSecrets = tenant
            .secrets_mut()
            .into_iter()
            .filter(|(_, secret)| !secret.is_empty())
            .map(|(place, secret)| (place, secret.expose().to_owned()))
            .collect();
        let cipher = self.keys.tenant(&tenant.id).await?;
        let now = self.clock.now();
        let (former, retentions) = match self.kept(&tenant.id) {
            Some(known) if known.tenant.retention == tenant.retention => {
                (known.former.to_vec(), known.retentions)
            }
            Some(known) => {
                let former = known.tenant.retention.replaced(known.former.to_vec(), &tenant.retention, now);
                (former, known.retentions + 1)
            }
            None => (Vec::new(), 0),
        };
        let record = TenantRecord {
            v: V,
            at: now,
            retentions,
            former: former.clone(),
            config: tenant.clone(),
            secrets: cipher.seal(&log_aad(Topic::Tenants, &tenant.id), &encode(&secrets)),
        };
        let partition = tenant_partition(Topic::Tenants, &tenant.id, self.log.partitions(Topic::Tenants));
        let offsets = self
            .log
            .append(vec![NewRecord {
                partition,
                key: Bytes::copy_from_slice(tenant.id.as_str().as_bytes()),
                value: encode(&record),
            }])
            .await?;
        let tenant = Arc::new(tenant);
        let since = (partition.partition, offsets.first().copied().unwrap_or_default());
        let kept = Kept { tenant: tenant.clone(), former: former.into(), retentions, since };
        self.change(|directory| directory.put(kept));
        Ok(tenant)
    }

    fn change(&self, change: impl FnOnce(&mut Directory)) {
        change(&mut self.directory.write().unwrap_or_else(PoisonError::into_inner));
        self.changes.send_modify(|generation| *generation += 1);
    }

    fn read<T>(&self, read: impl FnOnce(&Directory) -> T) -> T {
        read(&self.directory.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The tenant of this id.
    #[must_use]
    pub fn get(&self, id: &TenantId) -> Option<Arc<Tenant>> {
        self.kept(id).map(|kept| kept.tenant)
    }

    /// How long the rows of this tenant are kept.
    #[must_use]
    pub fn kept(&self, id: &TenantId) -> Option<Kept> {
        self.read(|directory| directory.tenants.get(id).cloned())
    }

    /// The tenants whose retention was changed at some time.
    #[must_use]
    pub fn changed(&self) -> Vec<Kept> {
        let changed = |kept: &&Kept| kept.retentions > 0;
        self.read(|directory| directory.tenants.values().filter(changed).cloned().collect())
    }

    /// Up to where each partition of the topic has been read, by its number.
    #[must_use]
    pub fn read_to(&self) -> BTreeMap<u32, Offset> {
        self.read_to.borrow().iter().map(|(partition, next)| (partition.partition, *next)).collect()
    }

    /// Waits until everything has been read that is in the topic now. Whoever applies a tenant on one node may
    /// use it on another one at once, which may not have read of it by then: what is not known is not known
    /// only after this.
    ///
    /// # Errors
    /// [`StoreError`]: when it takes long, as unavailable.
    pub async fn catch_up(&self) -> Result<(), StoreError> {
        let mut read_to = self.read_to.subscribe();
        for partition in 0..self.log.partitions(Topic::Tenants) {
            let partition = TopicPartition { topic: Topic::Tenants, partition };
            let end = self.log.end(partition).await?;
            let read = read_to.wait_for(|read_to| read_to.get(&partition).is_some_and(|next| *next >= end));
            // It fails only without a sender, and that is in `self`.
            tokio::time::timeout(CATCH_UP, read).await.map(drop).map_err(|_| StoreError::Unavailable {
                detail: format!("{partition} could not be read up to offset {end} yet"),
            })?;
        }
        Ok(())
    }

    /// The tenant of this id, also if it was applied on another node a moment ago.
    ///
    /// # Errors
    /// As [`Tenants::catch_up`].
    pub async fn find(&self, id: &TenantId) -> Result<Option<Arc<Tenant>>, StoreError> {
        if let Some(tenant) = self.get(id) {
            return Ok(Some(tenant));
        }
        self.catch_up().await?;
        Ok(self.get(id))
    }

    /// The tenant that owns an account.
    #[must_use]
    pub fn by_account(&self, kind: ChannelKind, account: &AccountId) -> Option<Arc<Tenant>> {
        self.read(|directory| directory.accounts.get(&(kind, account.clone())).cloned())
    }

    /// All of them, by id.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Tenant>> {
        self.read(|directory| directory.tenants.values().map(|kept| kept.tenant.clone()).collect())
    }

    /// Changes with every change of any tenant.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
