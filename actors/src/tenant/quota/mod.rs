//! Quotas: a tenant's limits of a month, over all nodes and through crashes, and its use.
//!
//! A node acquires a quota lease from the tenant's ledger by conditional update, and turns take from the lease without
//! further requests. Contract: turns never spend more than the quota, and each turn is counted once.
//!
//! - A turn reserves its highest possible cost before it spends anything, and gives back the rest.
//! - Before a call outside, its highest possible cost is in the quota lease's journal; with the decision, the turn's
//!   actual cost. Closing a quota lease adds up its journal, and only the amount that it proves to be unspent is free
//!   again.
//! - Messages are not in the journal before they are decided. Where a node dies, those that were left in its quota
//!   lease count as spent; leases are small for that, and near the limit as small as one turn.
//! - Nothing is taken from a quota lease near its end ([`lease_cache`]), and others close it a while after
//!   ([`ledger`]).
//! - A turn whose decision is durable and whose row in the journal may not be is recorded by the node that finds it
//!   ([`Quotas::again`]): in its quota lease, or where that is closed in one of its own.
//!
//! # Layout
//! - [`amounts`]: amounts of a quota.
//! - [`ledger`], [`lease_cache`]: a tenant's month, and a node's quota leases of it; pure.
//! - [`journal`]: use of a quota lease.

pub mod amounts;
mod closing;
mod hold;
mod journal;
mod lease_cache;
mod ledger;
mod usage;
mod warning;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use heddle_schemas::id::{ChunkId, TenantId};
use heddle_schemas::ports::state::{StoreError, Write};
use heddle_schemas::ports::update::Change;
use heddle_schemas::record::encode;
use heddle_schemas::table::{Key, SpentBy};
use heddle_schemas::tenant::{Resource, Tenant};
use heddle_schemas::time::Timestamp;
use heddle_schemas::zone::Month;

use self::amounts::{Amounts, Totals};
pub use self::hold::Hold;
pub(crate) use self::journal::Spend;
pub use self::lease_cache::ChunkOf;
use self::lease_cache::{LIFE, LeaseCache};
pub(crate) use self::ledger::Ledger;
pub use self::usage::{Usage, usage, used};
use crate::invariants::{Invariant, is_within_quota};
use crate::partition::commit::read;
use crate::partition::update::update;
use crate::ports::Ports;

/// Time for which a turn waits for quota leases that others give back before it is refused.
const PATIENCE: Duration = Duration::from_secs(3);
/// Interval of its checks.
const CHECK_INTERVAL: Duration = Duration::from_millis(300);
/// Time after a refusal for which there is no further request.
const REFUSED: Duration = Duration::from_secs(5);
/// Interval of the upkeep of quota leases.
const UPKEEP_INTERVAL: Duration = Duration::from_millis(500);
/// Pause in which others' writes into a quota lease that is being closed land before it is added up.
const CLOSE_PAUSE: Duration = Duration::from_millis(500);
/// Time before a quota lease's end in which others record nothing in it.
const MARGIN: Duration = Duration::from_secs(5);

/// The quotas of a node's tenants.
pub struct Quotas {
    ports: Ports,
    /// Serializes giving back; at the end of a node, the last caller waits for the one before.
    giving_back: tokio::sync::Mutex<()>,
    accounts: Mutex<HashMap<TenantId, Arc<Account>>>,
}

/// State of a tenant on a node.
#[derive(Default)]
struct Account {
    leases: Mutex<LeaseCache>,
    /// Serializes requests to the ledger; the others wait for the granted lease.
    asking: tokio::sync::Mutex<()>,
    /// Serializes waiting for amounts that others give back, with a request now and then.
    waiting: tokio::sync::Mutex<()>,
    /// Refused amounts, and the time until which they are not requested again.
    refused: Mutex<BTreeMap<Resource, (u64, Timestamp)>>,
}

/// Reason why nothing was reserved.
#[derive(Debug, thiserror::Error)]
pub enum QuotaError {
    /// It is spent.
    #[error("the tenant's {0} of this month are spent")]
    Spent(Resource),
    /// The store of the ledger.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn month(tenant: &Tenant, at: Timestamp) -> Month {
    tenant.hours.time_zone.month(at)
}

impl Quotas {
    /// Returns quotas without any lease.
    #[must_use]
    pub fn new(ports: Ports) -> Arc<Self> {
        let giving_back = tokio::sync::Mutex::default();
        Arc::new(Self { ports, giving_back, accounts: Mutex::default() })
    }

    fn account(&self, tenant: &TenantId) -> Arc<Account> {
        lock(&self.accounts).entry(tenant.clone()).or_default().clone()
    }

    /// Reserves this much of a tenant's quota.
    ///
    /// # Errors
    /// [`QuotaError::Spent`] when there is not enough, also after others have given back unused amounts;
    /// [`QuotaError::Store`] when the ledger cannot be read or changed.
    pub async fn take(&self, tenant: &Tenant, need: Amounts) -> Result<Hold, QuotaError> {
        let account = self.account(&tenant.id);
        match self.take_held(&account, tenant, need) {
            Some(hold) => Ok(hold),
            // Rare, so boxed: the common path takes from a lease in little space.
            None => Box::pin(self.ask(&account, tenant, need, PATIENCE)).await,
        }
    }

    /// Reserves the amount that a turn would like, or, where that is not available, its minimum.
    ///
    /// # Errors
    /// As [`Quotas::take`].
    pub async fn take_at_least(
        &self,
        tenant: &Tenant,
        liked: Amounts,
        need: Amounts,
    ) -> Result<Hold, QuotaError> {
        let account = self.account(&tenant.id);
        if let Some(hold) = self.take_held(&account, tenant, liked) {
            return Ok(hold);
        }
        match Box::pin(self.ask(&account, tenant, liked, Duration::ZERO)).await {
            Err(QuotaError::Spent(_)) if need != liked => self.take(tenant, need).await,
            taken => taken,
        }
    }

    fn take_held(&self, account: &Arc<Account>, tenant: &Tenant, need: Amounts) -> Option<Hold> {
        let now = self.ports.clock.now();
        let of = lock(&account.leases).take(need, month(tenant, now), now)?;
        Some(Hold { account: account.clone(), of, taken: need, settled: false })
    }

    async fn ask(
        &self,
        account: &Arc<Account>,
        tenant: &Tenant,
        need: Amounts,
        patience: Duration,
    ) -> Result<Hold, QuotaError> {
        let _one = match patience {
            Duration::ZERO => None,
            _ => Some(account.waiting.lock().await),
        };
        let began = self.ports.clock.elapsed();
        loop {
            let asking = account.asking.lock().await;
            if let Some(hold) = self.take_held(account, tenant, need) {
                return Ok(hold);
            }
            if let Some(resource) = self.refused(account, need) {
                return Err(self.refuse(tenant, resource));
            }
            let refilled = self.refill(account, tenant, need).await?;
            // Others may ask while this one waits.
            drop(asking);
            match refilled {
                Ok(()) => {}
                Err(resource) if patience.is_zero() => return Err(QuotaError::Spent(resource)),
                Err(_) if self.ports.clock.elapsed().saturating_sub(began) < patience => {
                    tokio::time::sleep(CHECK_INTERVAL).await;
                }
                Err(resource) => {
                    let until = self.ports.clock.now().after(REFUSED);
                    lock(&account.refused).insert(resource, (need.of(resource), until));
                    self.tell_spent(account, tenant, resource).await?;
                    return Err(self.refuse(tenant, resource));
                }
            }
        }
    }

    /// Returns the resource that was refused recently, so that it is not requested again.
    fn refused(&self, account: &Account, need: Amounts) -> Option<Resource> {
        let now = self.ports.clock.now();
        let refused = lock(&account.refused);
        Resource::ALL.into_iter().find(|resource| {
            let lately = refused.get(resource).filter(|(_, until)| *until > now);
            lately.is_some_and(|(amount, _)| need.of(*resource) >= *amount)
        })
    }

    fn refuse(&self, tenant: &Tenant, resource: Resource) -> QuotaError {
        self.ports.metrics.quota_refused(resource);
        tracing::debug!(tenant = %tenant.id, %resource, "quota spent");
        QuotaError::Spent(resource)
    }

    async fn ledger(&self, key: &Key) -> Result<Ledger, StoreError> {
        let stored = read(&self.ports.metrics, || self.ports.state.get(key)).await?;
        parse(key, stored.as_ref())
    }

    /// Changes a ledger, unless `change` returns false. `change` recognises its own earlier effect: the next read shows
    /// the outcome of an attempt without an answer.
    async fn change(
        &self,
        key: &Key,
        mut change: impl FnMut(&mut Ledger) -> bool + Send,
    ) -> Result<(), StoreError> {
        update(&self.ports, key, |found| {
            let mut ledger = parse(key, found)?;
            Ok(match change(&mut ledger) {
                true => Change::put(encode(&ledger), ()),
                false => Change::Keep(()),
            })
        })
        .await
    }

    /// Adds a new quota lease to the cache, or returns the resource of which there is not enough.
    async fn refill(
        &self,
        account: &Account,
        tenant: &Tenant,
        need: Amounts,
    ) -> Result<Result<(), Resource>, StoreError> {
        let id = ChunkId::from_bytes((self.ports.random)());
        loop {
            let now = self.ports.clock.now();
            let of = ChunkOf { id, month: month(tenant, now) };
            let key = Key::quota(&tenant.id, &of.month.to_string());
            let before = self.ledger(&key).await?;
            if let Some(dead) = before.overdue(now) {
                let dead = ChunkOf { id: dead.id, ..of };
                self.close_dead(&tenant.id, dead).await?;
                continue;
            }
            let limit = Amounts::limit(&tenant.quota);
            let unclosed = lock(&account.leases).spent(of.month);
            self.warn(tenant, (&key, of.month), &before, limit, unclosed).await?;
            let (wanted, until) = (lock(&account.leases).wanted(need), now.after(LIFE));
            let mut granted = Ok(Amounts::NONE);
            self.change(&key, |ledger| {
                if let Some(open) = ledger.find(id) {
                    granted = Ok(open.size);
                    return false;
                }
                granted = ledger.grant(limit, need, wanted, id, until);
                if granted.is_ok() {
                    self.check_grant(&tenant.id, ledger.taken(), limit);
                }
                granted.is_ok()
            })
            .await?;
            return Ok(granted.map(|size| lock(&account.leases).put(of, size, wanted, now)));
        }
    }

    /// I5: what is spent and what is out stay within the limit.
    fn check_grant(&self, tenant: &TenantId, taken: Amounts, limit: Amounts) {
        for resource in Resource::ALL {
            let (taken, limit) = (taken.of(resource), limit.of(resource));
            self.ports.metrics.check(Invariant::Quota, is_within_quota(taken, Some(limit)), || {
                format!("tenant {tenant}: {taken} of {limit} {resource} are spent or given out")
            });
        }
    }

    /// Returns the journal row that is written before the call outside.
    #[must_use]
    pub fn reserved(&self, tenant: &Tenant, hold: &Hold, by: &SpentBy) -> Write {
        let now = self.ports.clock.now();
        let Amounts { tokens, money, .. } = hold.taken;
        let day = tenant.hours.time_zone.date(now);
        Spend::Reserved { day, tokens, money }.write(&tenant.id, hold.of.id, by, now)
    }

    /// Returns the journal row of a decided turn.
    #[must_use]
    pub fn settled(
        &self,
        tenant: &Tenant,
        of: ChunkOf,
        by: &SpentBy,
        at: Timestamp,
        totals: Totals,
    ) -> Write {
        let day = tenant.hours.time_zone.date(at);
        Spend::Settled { day, totals }.write(&tenant.id, of.id, by, self.ports.clock.now())
    }
}

fn parse(key: &Key, stored: Option<&Bytes>) -> Result<Ledger, StoreError> {
    let Some(stored) = stored else { return Ok(Ledger::new()) };
    serde_json::from_slice(stored).map_err(|error| StoreError::Corrupt {
        detail: format!("{key:?}: the ledger of a quota does not parse: {:?}", error.classify()),
    })
}
