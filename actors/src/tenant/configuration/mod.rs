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

mod directory;
mod follow;
mod store;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use heddle_schemas::id::{AccountId, AccountKey, ChannelKind, TenantId};
use heddle_schemas::ports::channel::Channel;
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::keys::{Keys, KeysError};
use heddle_schemas::ports::log::{Log, StoreError};
use heddle_schemas::record::{RecordError, Versions};
use heddle_schemas::retention::{Kind, suits};
use heddle_schemas::tenant::{Faults, Tenant};
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Offset, Topic, TopicPartition};
use tokio::sync::{broadcast, watch};

use self::directory::Directory;
pub use self::directory::{Changed, Kept};
use crate::metrics::Metrics;
use crate::privacy::security::Security;

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
        /// Region in which its data stays.
        theirs: String,
        /// Region of these stores.
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
        /// Topic that holds records of that kind.
        topic: Topic,
        /// Maximum age of a record there.
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

/// Changed tenants that are named; more are all.
const CHANGED_NAMED: usize = 4_096;

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

    /// Checks a configuration, and fills in the defaults of its channels' profiles.
    ///
    /// # Errors
    /// [`TenantsError::Faults`].
    pub fn complete(&self, tenant: &mut Tenant) -> Result<(), TenantsError> {
        Ok(tenant.complete(&|kind| self.channels.get(&kind).map(|channel| channel.profile()))?)
    }

    fn has(&self, account: &AccountKey) -> bool {
        self.get(&account.tenant)
            .is_some_and(|tenant| tenant.channel(account.channel, &account.account).is_some())
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

    /// Returns a tenant's configuration with the retentions that its rows were written under.
    #[must_use]
    pub fn kept(&self, id: &TenantId) -> Option<Kept> {
        self.read(|directory| directory.tenants.get(id).cloned())
    }

    /// The region that a tenant's data stays in, where that is another one than this.
    #[must_use]
    pub fn foreign(&self, id: &TenantId) -> Option<String> {
        self.read(|directory| directory.foreign.get(id).cloned())
    }

    /// Returns true where a later build wrote the tenant's newest configuration. If this node could read an earlier one,
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
