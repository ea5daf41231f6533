//! Configuration of all tenants on this node, read from topic tenants and followed from there.
//!
//! Secrets are sealed in the log and open only here. A change is in force on this node when
//! [`Tenants::apply`] returns, and on others as soon as they have read it.
//!
//! A tenant whose region is another one than that of the stores is not opened at all: it has no account here, its
//! records are dead letters, and that it is here is an incident.
//!
//! The credentials of a channel account are sealed under a key of the account's own. Every operation that takes an
//! account out of a tenant destroys that key before anything else: from then on no record of the topic opens to its
//! credentials, however old, and a node that starts leaves the account out.
//!
//! A record has a MAC under a key of the tenant's, so that who can write into the topic and has no key cannot have a
//! tenant's secrets sent elsewhere, or its agent say anything. A record that was changed is refused, counted and an
//! incident. Whoever may write can still bring back a record that a node wrote earlier.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use heddle_schemas::id::{AccountId, AccountKey, ChannelKind, TenantId};
use heddle_schemas::ports::channel::Channel;
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::keys::{Keys, KeysError, Missing};
use heddle_schemas::ports::log::{FetchLimit, Log, NewRecord, Record, StoreError};
use heddle_schemas::record::event::DataCategory;
use heddle_schemas::record::tenants::{
    AUTHENTICATED, MAC_DOMAIN, TenantRecord, TenantSecrets, authenticate, is_authentic,
};
use heddle_schemas::record::{RecordError, V, Versions, decode_to, encode, encode_as, log_aad, version};
use heddle_schemas::retention::{self, Former, Kind, suits};
use heddle_schemas::sealed::{Sealed, Secret};
use heddle_schemas::tenant::{Disconnected, Faults, Tenant};
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Offset, Topic, TopicPartition, tenant_partition};
use tokio::sync::{broadcast, watch};

use crate::metrics::Metrics;
use crate::ports::Ports;
use crate::privacy::security::{Security, SecuritySignal};

/// Maximum time of reading all tenants applied so far.
const CATCH_UP: Duration = Duration::from_secs(10);

/// Deleted tenants of which some receiver has not read yet.
const DEPARTURES: usize = 1_024;

/// Why a tenant could not be applied or read.
#[derive(Debug, thiserror::Error)]
pub enum TenantsError {
    /// The configuration is wrong.
    #[error(transparent)]
    Faults(#[from] Faults),
    /// An account belongs to another tenant.
    #[error("{kind} account {account} belongs to another tenant; remove it there first")]
    Taken {
        /// Kind of the channel.
        kind: ChannelKind,
        /// Id of the account.
        account: AccountId,
    },
    /// The tenant has no such account, and has had none.
    #[error("tenant {} has no {} account {}; `heddle tenant show` shows those it has", .0.tenant, .0.channel, .0.account)]
    UnknownAccount(AccountKey),
    /// The tenant's data stays in another region.
    #[error(
        "the data of tenant {tenant} stays in region {theirs:?}, and this node's stores are in {here:?}; ask a node of \
         region {theirs:?}, whose configuration has node.region = {theirs:?}"
    )]
    Region {
        /// Id of the tenant.
        tenant: TenantId,
        /// Where its data stays.
        theirs: String,
        /// Where these stores are.
        here: String,
    },
    /// The log keeps records for longer than the tenant was promised.
    #[error(
        "retention.{kind} of tenant {tenant} is {}, and topic {topic} holds records until they are {} old: lower \
         log.retention to {} (on Kafka with `heddle topics apply`), or raise the tenant's",
        humantime::format_duration(*.promised), humantime::format_duration(*.oldest),
        humantime::format_duration(suits(*.promised))
    )]
    Retention {
        /// Id of the tenant.
        tenant: TenantId,
        /// Kind of data.
        kind: Kind,
        /// Promised time.
        promised: Duration,
        /// Where records of it are.
        topic: Topic,
        /// How old they get there.
        oldest: Duration,
    },
    /// A later build wrote the configuration.
    #[error(
        "a later build wrote the configuration of tenant {0}, and this one would lose what it does not know of it; \
         ask an upgraded node"
    )]
    Newer(TenantId),
    /// The log.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The tenant's key.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// A stored record is not as a node wrote it.
    #[error("the configuration of tenant {0} was changed by somebody without its key, and is not used")]
    Altered(TenantId),
    /// A stored record cannot be read.
    #[error("the configuration of tenant {tenant:?} cannot be read: {source}")]
    Record {
        /// The record's key.
        tenant: String,
        /// Reason.
        source: RecordError,
    },
}

/// Retention of a tenant's rows, with its record of topic tenants.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Tenant and its configuration.
    pub tenant: Arc<Tenant>,
    /// Its previous retentions, as far as they still matter.
    pub former: Arc<[Former]>,
    /// Number of changes of its retention.
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
    /// Accounts whose credentials are erased while the newest record still has them: their disconnection was
    /// interrupted.
    severed: HashSet<AccountKey>,
    /// Tenants whose data stays in another region: that one.
    foreign: HashMap<TenantId, String>,
    /// Tenants whose newest configuration a later build wrote. Those that this node could read before stay as they
    /// were; the others have none here.
    newer: HashSet<TenantId>,
    /// Tenants whose configuration has a MAC; from then on one without is refused.
    authentic: HashSet<TenantId>,
}

impl Directory {
    fn put(&mut self, mut kept: Kept, severed: Vec<AccountKey>, is_authentic: bool) {
        let tenant = kept.tenant.clone();
        let known = self.tenants.get(&tenant.id).filter(|known| {
            known.retentions == kept.retentions && known.tenant.retention == kept.tenant.retention
        });
        if let Some(known) = known {
            kept.since = known.since;
        }
        self.remove(&tenant.id);
        self.severed.extend(severed);
        if is_authentic {
            self.authentic.insert(tenant.id.clone());
        }
        for channel in &tenant.channels {
            self.accounts.insert((channel.kind, channel.account.clone()), tenant.clone());
        }
        self.tenants.insert(tenant.id.clone(), kept);
    }

    /// Leaves an account out of its tenant, whose credentials are erased.
    fn sever(&mut self, account: &AccountKey) {
        let Some(kept) = self.tenants.get(&account.tenant) else { return };
        let mut kept = kept.clone();
        let mut tenant = (*kept.tenant).clone();
        tenant.channels.retain(|one| (one.kind, &one.account) != (account.channel, &account.account));
        kept.tenant = Arc::new(tenant);
        let of_it = self.severed.iter().filter(|one| one.tenant == account.tenant).cloned();
        let severed = of_it.chain([account.clone()]).collect();
        let is_authentic = self.authentic.contains(&account.tenant);
        self.put(kept, severed, is_authentic);
    }

    fn remove(&mut self, id: &TenantId) {
        self.severed.retain(|account| account.tenant != *id);
        self.foreign.remove(id);
        self.newer.remove(id);
        self.authentic.remove(id);
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

/// Changed tenants that are named; more are all.
const CHANGED_NAMED: usize = 4_096;

/// Tenants that were applied, changed or removed.
#[derive(Debug, Clone, Default)]
pub struct Changed {
    /// At most [`CHANGED_NAMED`].
    named: BTreeSet<TenantId>,
    all: bool,
}

impl Changed {
    /// Returns true for a tenant that may have changed.
    #[must_use]
    pub fn has(&self, tenant: &TenantId) -> bool {
        self.all || self.named.contains(tenant)
    }

    fn insert(&mut self, tenant: &TenantId) {
        self.all |= self.named.len() >= CHANGED_NAMED;
        if !self.all {
            self.named.insert(tenant.clone());
        }
    }
}

/// All tenants.
pub struct Tenants {
    log: Arc<dyn Log>,
    keys: Arc<dyn Keys>,
    clock: Arc<dyn Clock>,
    channels: Arc<BTreeMap<ChannelKind, Arc<dyn Channel>>>,
    security: Arc<Security>,
    metrics: Arc<Metrics>,
    versions: Versions,
    /// That of the stores.
    region: String,
    directory: RwLock<Directory>,
    // One change at a time, so that two cannot both take an account.
    applying: tokio::sync::Mutex<()>,
    changes: watch::Sender<u64>,
    /// Those that have changed since that was asked last.
    changed_lately: Mutex<Changed>,
    departures: broadcast::Sender<TenantId>,
    /// Up to where each partition of the topic has been read.
    read_to: watch::Sender<BTreeMap<TopicPartition, Offset>>,
    /// Maximum age of records in the log, once known.
    oldest_record: OnceLock<Duration>,
    /// When they were loaded, and up to where each partition of the topic had been read then.
    started: Timestamp,
    loaded_to: OnceLock<BTreeMap<u32, Offset>>,
}

impl Tenants {
    /// Reads the newest configuration of every tenant of the stores' region. [`Tenants::follow`] keeps up with changes.
    ///
    /// # Errors
    /// When the log or a key cannot be read.
    pub async fn load(
        ports: &Ports,
        region: &str,
    ) -> Result<(Arc<Self>, Vec<(TopicPartition, Offset)>), TenantsError> {
        let this = Arc::new(Self {
            log: ports.log.clone(),
            keys: ports.keys.clone(),
            clock: ports.clock.clone(),
            channels: ports.channels.clone(),
            security: ports.security.clone(),
            metrics: ports.metrics.clone(),
            versions: ports.versions,
            region: region.to_owned(),
            directory: RwLock::default(),
            applying: tokio::sync::Mutex::default(),
            changes: watch::Sender::new(0),
            changed_lately: Mutex::default(),
            departures: broadcast::Sender::new(DEPARTURES),
            read_to: watch::Sender::default(),
            oldest_record: OnceLock::new(),
            started: ports.clock.now(),
            loaded_to: OnceLock::new(),
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
        let loaded_to = followed.iter().map(|(partition, next)| (partition.partition, *next)).collect();
        // It is loaded once.
        let _ = this.loaded_to.set(loaded_to);
        Ok((this, followed))
    }

    /// Writes anew, with a MAC, the configurations that a build before wrote without one. A node does so when it starts:
    /// each is accepted as it is, once.
    ///
    /// # Errors
    /// As [`Tenants::apply`]; the next start tries again.
    pub async fn authenticate(&self) -> Result<(), TenantsError> {
        let _one_at_a_time = self.applying.lock().await;
        let is_legacy = |directory: &Directory| {
            let ids = directory.tenants.keys();
            ids.filter(|id| !directory.authentic.contains(*id) && !directory.newer.contains(*id))
                .cloned()
                .collect()
        };
        let legacy: Vec<TenantId> = self.read(is_legacy);
        for id in legacy {
            let Some(tenant) = self.get(&id) else { continue };
            self.store((*tenant).clone()).await?;
            tracing::warn!(tenant = %id, "a configuration without a MAC, of a build before, was accepted and rewritten");
        }
        Ok(())
    }

    /// Returns since when this node runs, where it began with this configuration of a tenant: what of its data was to go
    /// before may be there, since nothing ran that removes it.
    #[must_use]
    pub fn resumed(&self, kept: &Kept) -> Option<Timestamp> {
        let (partition, offset) = kept.since;
        let next = self.loaded_to.get()?.get(&partition)?;
        (offset < *next).then_some(self.started)
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
        // Records of ingress are in inbound as well.
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
        if record.key == TenantId::engine().as_str() {
            // It holds the region of the topics, which was checked before.
            return Ok(());
        }
        if record.value.is_empty() {
            if let Ok(id) = name().parse() {
                self.depart(&id);
            }
            return Ok(());
        }
        let stored: TenantRecord = match decode_to(&record.value, self.versions.reads(Topic::Tenants)) {
            Ok(stored) => stored,
            Err(error) if error.is_newer(self.versions.reads(Topic::Tenants)) => {
                self.keep_last(record, &name(), &error);
                return Ok(());
            }
            Err(source) => return Err(TenantsError::Record { tenant: name(), source }),
        };
        let id = stored.config.id.clone();
        if stored.config.region != self.region {
            let theirs = stored.config.region;
            tracing::error!(tenant = %id, region = theirs, "a tenant of another region is in these stores; it is refused");
            self.security.saw(Some(&id), SecuritySignal::ForeignRegion);
            self.change(&id.clone(), |directory| {
                directory.remove(&id);
                directory.foreign.insert(id, theirs);
            });
            return Ok(());
        }
        let (former, retentions) = (stored.former.clone().into(), stored.retentions);
        let since = (record.partition.partition, record.offset);
        let has_mac = stored.mac.is_some();
        match self.open(stored, &record.value).await {
            Ok((tenant, severed)) => {
                let kept = Kept { tenant: Arc::new(tenant), former, retentions, since };
                self.change(&id, |directory| directory.put(kept, severed, has_mac));
            }
            Err(error @ TenantsError::Altered(_)) => {
                tracing::error!(
                    topic = %Topic::Tenants, partition = record.partition.partition, offset = record.offset,
                    tenant = %id, %error, "a tenant's record is refused; the tenant stays as it was before, or waits \
                    where there is nothing before; apply its configuration, and find who may write into the log"
                );
                let data = &[DataCategory::Secrets];
                self.security.saw(Some(&id), SecuritySignal::FailedDecryption { contact: None, data });
                self.metrics.tenant_refused();
            }
            // It is deleted, and was applied by a node that did not know.
            Err(TenantsError::Keys(KeysError::Gone { .. })) => self.depart(&id),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Leaves a tenant as this node could read it last.
    fn keep_last(&self, record: &Record, name: &str, error: &RecordError) {
        let Ok(id) = name.parse::<TenantId>() else { return };
        let keeps = self.get(&id).is_some();
        tracing::error!(
            topic = %Topic::Tenants, partition = record.partition.partition, offset = record.offset,
            version = version::of(&record.value), tenant = name, keeps, %error,
            "a later build wrote a tenant's configuration; the tenant stays as it was before, or waits where this node \
             never read it; upgrade this node"
        );
        self.change(&id.clone(), |directory| {
            directory.newer.insert(id);
        });
    }

    /// A configuration with its secrets, without the accounts whose credentials are erased, and these.
    ///
    /// # Errors
    /// [`TenantsError::Altered`] where the record is not as its MAC says; or where it has none, and had one: as its
    /// secrets say, or the one before.
    async fn open(
        &self,
        stored: TenantRecord,
        bytes: &[u8],
    ) -> Result<(Tenant, Vec<AccountKey>), TenantsError> {
        let mut tenant = stored.config;
        let id = tenant.id.clone();
        let read = |plain: Vec<u8>| {
            serde_json::from_slice::<TenantSecrets>(&plain).map_err(|error| TenantsError::Record {
                tenant: id.to_string(),
                source: RecordError::Shape(error.to_string()),
            })
        };
        let cipher = self.keys.tenant(&id).await?;
        let altered = match &stored.mac {
            Some(mac) => !is_authentic(bytes, mac, |body| cipher.hash(MAC_DOMAIN, body)),
            None => self.read(|directory| directory.authentic.contains(&id)),
        };
        if altered {
            return Err(TenantsError::Altered(id));
        }
        let mut secrets = read(cipher.open(&log_aad(Topic::Tenants, &id), &stored.secrets)?)?;
        let mut severed = Vec::new();
        for (account, sealed) in &stored.channels {
            match self.credentials(account, sealed).await.map_err(KeysError::passing) {
                Ok(plain) => secrets.append(&mut read(plain)?),
                Err(Ok(error)) => return Err(error.into()),
                Err(Err(why)) => {
                    tracing::warn!(%account, %why, "an account is left out: its credentials do not open any more");
                    severed.push(account.clone());
                }
            }
        }
        if secrets.remove(AUTHENTICATED).is_some() && stored.mac.is_none() {
            return Err(TenantsError::Altered(id));
        }
        for (place, secret) in tenant.secrets_mut() {
            *secret = Secret::new(secrets.get(&place).cloned().unwrap_or_default());
        }
        tenant.channels.retain(|channel| {
            let is_it = |one: &AccountKey| (one.channel, &one.account) == (channel.kind, &channel.account);
            !severed.iter().any(is_it)
        });
        Ok((tenant, severed))
    }

    async fn credentials(&self, account: &AccountKey, sealed: &Sealed) -> Result<Vec<u8>, KeysError> {
        let cipher = self.keys.channel(account, Missing::Fail).await?;
        cipher.open(&log_aad(Topic::Tenants, account), sealed)
    }

    /// Checks a configuration, and fills in the defaults of its channels' profiles.
    ///
    /// # Errors
    /// [`TenantsError::Faults`].
    pub fn complete(&self, tenant: &mut Tenant) -> Result<(), TenantsError> {
        Ok(tenant.complete(&|kind| self.channels.get(&kind).map(|channel| channel.profile()))?)
    }

    /// Makes a configuration the tenant's own, durably. An account that the tenant had and has no more is
    /// disconnected, as by [`Tenants::disconnect`].
    ///
    /// # Errors
    /// [`TenantsError`].
    pub async fn apply(&self, mut tenant: Tenant) -> Result<Arc<Tenant>, TenantsError> {
        self.complete(&mut tenant)?;
        if tenant.region != self.region {
            return Err(self.elsewhere(tenant.id, tenant.region));
        }
        self.check_retention(&tenant)?;
        let _one_at_a_time = self.applying.lock().await;
        let faults = tenant.keep_secrets(self.get(&tenant.id).as_deref());
        if !faults.is_empty() {
            return Err(Faults(faults).into());
        }
        // The secrets that were kept are checked now.
        self.complete(&mut tenant)?;
        for channel in &tenant.channels {
            let owner = self.by_account(channel.kind, &channel.account);
            if owner.is_some_and(|owner| owner.id != tenant.id) {
                return Err(TenantsError::Taken { kind: channel.kind, account: channel.account.clone() });
            }
        }
        self.store(tenant).await
    }

    /// Disconnects a channel account: destroys the key of its credentials, takes it out of the tenant on this node,
    /// then for good. Its webhooks are refused and its waiting messages are withheld, here when this returns, on other
    /// nodes as soon as they have read it. A repetition is harmless.
    ///
    /// # Errors
    /// [`TenantsError`]; unless it is [`TenantsError::UnknownAccount`], it is to be done again.
    pub async fn disconnect(&self, account: &AccountKey) -> Result<Arc<Tenant>, TenantsError> {
        if !self.has(account) {
            self.catch_up().await?;
        }
        let _one_at_a_time = self.applying.lock().await;
        let unknown = || TenantsError::UnknownAccount(account.clone());
        let mut tenant = (*self.get(&account.tenant).ok_or_else(unknown)?).clone();
        if !self.has(account) && !self.read(|directory| directory.severed.contains(account)) {
            if !tenant.accounts_ever().contains(account) {
                return Err(unknown());
            }
            self.keys.erase_channel(account).await?;
            return Ok(Arc::new(tenant));
        }
        tenant.channels.retain(|one| (one.kind, &one.account) != (account.channel, &account.account));
        self.store(tenant).await
    }

    /// Returns true when an existing tenant has no such account, also if it was applied on another node a moment ago.
    ///
    /// # Errors
    /// As [`Tenants::catch_up`].
    pub async fn is_disconnected(&self, account: &AccountKey) -> Result<bool, StoreError> {
        if self.has(account) {
            return Ok(false);
        }
        self.catch_up().await?;
        Ok(!self.has(account) && self.get(&account.tenant).is_some())
    }

    fn has(&self, account: &AccountKey) -> bool {
        self.get(&account.tenant)
            .is_some_and(|tenant| tenant.channel(account.channel, &account.account).is_some())
    }

    /// Erases the credentials of the accounts that a tenant had and has no more, and writes the remaining ones.
    async fn store(&self, mut tenant: Tenant) -> Result<Arc<Tenant>, TenantsError> {
        if self.is_newer(&tenant.id) {
            return Err(TenantsError::Newer(tenant.id));
        }
        let at = self.clock.now();
        let kept: HashSet<_> = tenant.accounts().collect();
        let (mut former, mut gone) = (Vec::new(), Vec::new());
        if let Some(before) = self.get(&tenant.id) {
            former.clone_from(&before.disconnected);
            gone.extend(before.accounts());
        }
        gone.extend(self.read(|directory| {
            directory
                .severed
                .iter()
                .filter(|account| account.tenant == tenant.id)
                .cloned()
                .collect::<Vec<_>>()
        }));
        gone.retain(|account| !kept.contains(account));
        for account in &gone {
            self.keys.erase_channel(account).await?;
            self.change(&account.tenant, |directory| directory.sever(account));
        }
        former.append(&mut tenant.disconnected);
        former.extend(gone.into_iter().map(|gone| Disconnected {
            kind: gone.channel,
            account: gone.account,
            at,
        }));
        former.retain(|former| !kept.contains(&tenant.account(former.kind, &former.account)));
        former.sort_by(|one, other| {
            (one.kind, &one.account, one.at).cmp(&(other.kind, &other.account, other.at))
        });
        former.dedup_by(|one, other| (one.kind, &one.account) == (other.kind, &other.account));
        tenant.disconnected = former;

        let authenticated = || (AUTHENTICATED.to_owned(), "1".to_owned());
        let mut channels = BTreeMap::new();
        for channel in tenant.clone().channels.iter_mut() {
            let account = tenant.account(channel.kind, &channel.account);
            let mut secrets = sealed_part(channel.credentials_mut());
            secrets.extend([authenticated()]);
            let cipher = self.keys.channel(&account, Missing::Create).await?;
            let sealed = cipher.seal(&log_aad(Topic::Tenants, &account), &encode(&secrets));
            channels.insert(account, sealed);
        }
        let mut secrets = sealed_part(tenant.own_secrets_mut());
        secrets.extend([authenticated()]);
        let cipher = self.keys.tenant(&tenant.id).await?;
        let (former, retentions) = match self.kept(&tenant.id) {
            Some(known) if known.tenant.retention == tenant.retention => {
                (known.former.to_vec(), known.retentions)
            }
            Some(known) => {
                let former = known.tenant.retention.replaced(known.former.to_vec(), &tenant.retention, at);
                (former, known.retentions + 1)
            }
            None => (Vec::new(), 0),
        };
        let record = TenantRecord {
            v: V,
            at,
            retentions,
            former: former.clone(),
            config: tenant.clone(),
            secrets: cipher.seal(&log_aad(Topic::Tenants, &tenant.id), &encode(&secrets)),
            channels,
            mac: None,
        };
        let value = encode_as(&record, self.versions.writes(Topic::Tenants));
        let value = authenticate(&value, |body| cipher.hash(MAC_DOMAIN, body));
        let partition = tenant_partition(Topic::Tenants, &tenant.id, self.log.partitions(Topic::Tenants));
        let offsets = self
            .log
            .append(vec![NewRecord {
                partition,
                key: Bytes::copy_from_slice(tenant.id.as_str().as_bytes()),
                value,
            }])
            .await?;
        let tenant = Arc::new(tenant);
        let since = (partition.partition, offsets.first().copied().unwrap_or_default());
        let kept = Kept { tenant: tenant.clone(), former: former.into(), retentions, since };
        self.change(&tenant.id, |directory| directory.put(kept, Vec::new(), true));
        Ok(tenant)
    }

    /// Makes every node forget the tenant, durably: nothing is accepted for it, and none of its messages is sent.
    ///
    /// # Errors
    /// [`TenantsError::Store`].
    pub async fn remove(&self, id: &TenantId) -> Result<(), TenantsError> {
        let _one_at_a_time = self.applying.lock().await;
        let partitions = self.log.partitions(Topic::Tenants);
        self.log
            .append(vec![NewRecord {
                partition: tenant_partition(Topic::Tenants, id, partitions),
                key: Bytes::copy_from_slice(id.as_str().as_bytes()),
                value: Bytes::new(),
            }])
            .await?;
        self.depart(id);
        Ok(())
    }

    fn depart(&self, id: &TenantId) {
        let was_known = self.get(id).is_some();
        self.change(id, |directory| directory.remove(id));
        if was_known {
            // There may be no receiver.
            let _ = self.departures.send(id.clone());
        }
    }

    /// Sends the id of each tenant that is not known any more. A slow receiver misses some.
    #[must_use]
    pub fn departures(&self) -> broadcast::Receiver<TenantId> {
        self.departures.subscribe()
    }

    fn change(&self, tenant: &TenantId, change: impl FnOnce(&mut Directory)) {
        change(&mut self.directory.write().unwrap_or_else(PoisonError::into_inner));
        self.changed_lately.lock().unwrap_or_else(PoisonError::into_inner).insert(tenant);
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

    /// The region that a tenant's data stays in, where that is another one than this.
    #[must_use]
    pub fn foreign(&self, id: &TenantId) -> Option<String> {
        self.read(|directory| directory.foreign.get(id).cloned())
    }

    /// Whether a later build wrote the tenant's newest configuration. Where this node could read an earlier one,
    /// [`Tenants::get`] still returns that.
    #[must_use]
    pub fn is_newer(&self, id: &TenantId) -> bool {
        self.read(|directory| directory.newer.contains(id))
    }

    /// Fails for a tenant whose data stays in another region.
    ///
    /// # Errors
    /// [`TenantsError::Region`].
    pub fn check_region(&self, id: &TenantId) -> Result<(), TenantsError> {
        self.foreign(id).map_or(Ok(()), |theirs| Err(self.elsewhere(id.clone(), theirs)))
    }

    fn elsewhere(&self, tenant: TenantId, theirs: String) -> TenantsError {
        TenantsError::Region { tenant, theirs, here: self.region.clone() }
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

    /// Waits until everything that is in the topic now has been read. A tenant applied on one node may be used on
    /// another one at once, which may not have read it by then: only after this is an unknown tenant really unknown.
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
        if self.foreign(id).is_some() {
            return Ok(None);
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

    /// Takes out the tenants that have changed since the last call; one caller of a node gets them.
    #[must_use]
    pub fn take_changed(&self) -> Changed {
        std::mem::take(&mut self.changed_lately.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes with every change of any tenant.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// Returns the sealed part of secrets: those that are set.
fn sealed_part<'a>(secrets: impl IntoIterator<Item = (String, &'a mut Secret)>) -> TenantSecrets {
    let set = secrets.into_iter().filter(|(_, secret)| !secret.is_empty());
    set.map(|(place, secret)| (place, secret.expose().to_owned())).collect()
}
