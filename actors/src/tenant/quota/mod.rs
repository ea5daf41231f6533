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
mod journal;
mod lease_cache;
mod ledger;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use heddle_schemas::id::{ChunkId, TenantId};
use heddle_schemas::lenient::Lenient;
use heddle_schemas::ports::state::{Batch, Fence, StoreError, Write};
use heddle_schemas::ports::update::Change;
use heddle_schemas::record::event::{Event, EventRecord};
use heddle_schemas::record::{V, encode};
use heddle_schemas::table::{Key, SpentBy};
use heddle_schemas::tenant::{Resource, Tenant};
use heddle_schemas::time::Timestamp;
use heddle_schemas::zone::{Date, Month};
use serde::Serialize;

use self::amounts::{Amounts, Totals};
pub(crate) use self::journal::Spend;
pub use self::lease_cache::ChunkOf;
use self::lease_cache::{Held, LIFE, LeaseCache};
use self::ledger::Closing;
pub(crate) use self::ledger::Ledger;
use crate::invariants::{Invariant, is_within_quota};
use crate::partition::commit::{commit, read};
use crate::partition::publish;
use crate::partition::update::update;
use crate::ports::Ports;
use crate::tenant::configuration::Tenants;

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

/// Reservation of a turn. Dropped unsettled, it counts as spent.
#[must_use]
pub struct Hold {
    account: Arc<Account>,
    of: ChunkOf,
    taken: Amounts,
    settled: bool,
}

impl std::fmt::Debug for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hold").field("of", &self.of).field("taken", &self.taken).finish()
    }
}

impl Hold {
    /// Returns the quota lease that it was taken from.
    #[must_use]
    pub fn chunk(&self) -> ChunkOf {
        self.of
    }

    /// Returns the reserved amounts.
    #[must_use]
    pub fn taken(&self) -> Amounts {
        self.taken
    }

    /// Settles the reservation: the turn is decided and durable, and has used this much.
    pub fn settle(mut self, used: Amounts) {
        self.settled = true;
        lock(&self.account.leases).settle(self.of, self.taken, used);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if !self.settled {
            lock(&self.account.leases).abandon(self.of, self.taken.messages);
        }
    }
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

/// Use of a tenant in a month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// The month, in the tenant's time zone.
    pub month: Month,
    /// Limit; of money, millionths.
    pub limit: Amounts,
    /// The largest limit that the month has had while something was granted; `None` where that is not known.
    pub granted: Option<Amounts>,
    /// Amounts that count as spent.
    pub spent: Amounts,
    /// Messages of that which a dead node may have sent or not.
    pub lost_messages: u64,
    /// Amounts that nodes have leased beside that for turns to come.
    pub set_aside: Amounts,
    /// Use by the tenant's date.
    pub days: BTreeMap<Date, Totals>,
}

impl Usage {
    /// Returns the use of the month.
    #[must_use]
    pub fn total(&self) -> Totals {
        self.days.values().fold(Totals::default(), |sum, day| sum.plus(*day))
    }
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

    /// Returns true when a turn with one message can be admitted or refused at once, instead of waiting for amounts
    /// that others give back. Acquires a quota lease where there is none.
    pub async fn tells_at_once(&self, tenant: &Tenant) -> bool {
        let account = self.account(&tenant.id);
        let one = Amounts { messages: 1, ..Amounts::NONE };
        let has = || {
            let now = self.ports.clock.now();
            lock(&account.leases).has(one, month(tenant, now), now)
        };
        if has() {
            return true;
        }
        // In a box, as it is rare.
        Box::pin(async {
            let _asking = account.asking.lock().await;
            has()
                || self.refused(&account, one).is_some()
                || matches!(self.refill(&account, tenant, one).await, Ok(Ok(())))
        })
        .await
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

    /// Warns of resources that are nearly spent. `unclosed` is the use of this node's quota leases.
    async fn warn(
        &self,
        tenant: &Tenant,
        (key, month): (&Key, Month),
        ledger: &Ledger,
        limit: Amounts,
        unclosed: Amounts,
    ) -> Result<(), StoreError> {
        let near: Vec<_> = ledger.warnings(limit, tenant.quota.warn_percent, unclosed).collect();
        let spent = ledger.spent.plus(unclosed);
        self.warn_of(tenant, (key, month), &near, spent, limit).await
    }

    /// Warns of these resources: first the event, then the note that it was published, so that none is lost.
    async fn warn_of(
        &self,
        tenant: &Tenant,
        (key, month): (&Key, Month),
        near: &[Resource],
        spent: Amounts,
        limit: Amounts,
    ) -> Result<(), StoreError> {
        for resource in near {
            let (taken, limit) = (spent.of(*resource), limit.of(*resource));
            self.ports.metrics.quota_warned(*resource);
            tracing::warn!(tenant = %tenant.id, %resource, taken, limit, "quota nearly spent");
            self.tell(tenant, Event::QuotaWarning { month, resource: *resource, taken, limit }).await?;
        }
        if near.is_empty() {
            return Ok(());
        }
        self.change(key, |ledger| {
            ledger.warned.extend(near.iter().copied().map(Lenient::Known));
            true
        })
        .await
    }

    /// Reports once that something is spent, and warns before where little was spent and yet too little is left for a
    /// turn.
    async fn tell_spent(
        &self,
        account: &Account,
        tenant: &Tenant,
        resource: Resource,
    ) -> Result<(), StoreError> {
        let month = month(tenant, self.ports.clock.now());
        let key = Key::quota(&tenant.id, &month.to_string());
        let limits = Amounts::limit(&tenant.quota);
        let limit = limits.of(resource);
        let ledger = self.ledger(&key).await?;
        if ledger.is_reported(resource, limit) {
            return Ok(());
        }
        if !ledger.warned.contains(&Lenient::Known(resource)) {
            let spent = ledger.spent.plus(lock(&account.leases).spent(month));
            self.warn_of(tenant, (&key, month), &[resource], spent, limits).await?;
        }
        tracing::warn!(tenant = %tenant.id, %resource, limit, "quota spent");
        self.tell(tenant, Event::QuotaSpent { month, resource, limit }).await?;
        self.change(&key, |ledger| ledger.report_spent(resource, limit)).await
    }

    async fn tell(&self, tenant: &Tenant, event: Event) -> Result<(), StoreError> {
        let record = EventRecord { v: V, tenant: tenant.id.clone(), at: self.ports.clock.now(), event };
        let output = publish::event(&self.ports, &record);
        read(&self.ports.metrics, || self.ports.log.append(vec![output.clone()])).await.map(drop)
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

    /// Finds the record of a turn that was decided before, and may not have been recorded then. Returns the write,
    /// which is nothing where it is recorded, and the reservation to hold until it is written.
    ///
    /// # Errors
    /// [`StoreError`]; as unavailable near the end of its quota lease.
    pub async fn again(
        &self,
        tenant: &Tenant,
        fence: Fence,
        first: ChunkOf,
        by: &SpentBy,
        at: Timestamp,
        mut totals: Totals,
    ) -> Result<Option<(Write, Option<Hold>)>, StoreError> {
        let mut of = first;
        let mut held = None;
        loop {
            let now = self.ports.clock.now();
            let key = Key::quota(&tenant.id, &of.month.to_string());
            let ledger = self.ledger(&key).await?;
            if let Some(open) = ledger.find(of.id) {
                if open.closing.is_none() && now.after(MARGIN) < open.until {
                    return Ok(Some((self.settled(tenant, of, by, at, totals), held)));
                }
                // A lease that is being closed may have lost its closer.
                if open.closing.is_none() && !open.is_overdue(now) {
                    let detail = format!("a quota lease of {} is at its end", tenant.id);
                    return Err(StoreError::Unavailable { detail });
                }
                self.close_dead(&tenant.id, of).await?;
            }
            let found = read(&self.ports.metrics, || Spend::get(&*self.ports.state, &tenant.id, of.id, by));
            match found.await? {
                // A later build has recorded the turn by its own rules.
                Some(Spend::Settled { .. } | Spend::Unknown(_)) => return Ok(None),
                Some(Spend::Moved { chunk, month }) => {
                    of = ChunkOf { id: chunk, month };
                    continue;
                }
                // Its tokens and its money were counted when the quota lease was closed.
                Some(Spend::Reserved { .. }) => {
                    totals = Totals { turns: totals.turns, messages: totals.messages, ..Totals::default() };
                }
                None => {}
            }
            // It needs a quota lease to be recorded in, and no amount of it: its use was taken from the first.
            let hold = self.take(tenant, Amounts::NONE).await.map_err(|error| match error {
                QuotaError::Store(error) => error,
                QuotaError::Spent(_) => StoreError::Unavailable { detail: error.to_string() },
            })?;
            let moved = Spend::Moved { chunk: hold.of.id, month: hold.of.month };
            let writes = vec![moved.write(&tenant.id, of.id, by, now)];
            let batch = Batch { fence: Some(fence), writes, ..Batch::default() };
            commit(&*self.ports.state, &self.ports.metrics, |_| batch.clone()).await?;
            of = hold.of;
            held = Some(hold);
        }
    }

    /// Closes quota leases of one month: adds their journals up and removes them from the ledger's list, in one step.
    /// All of them together, since each change of a ledger makes every other one under way begin anew.
    async fn close(
        &self,
        tenant: &TenantId,
        month: Month,
        chunks: &[(ChunkId, Closing)],
    ) -> Result<(), StoreError> {
        let key = Key::quota(tenant, &month.to_string());
        let mut out = Vec::new();
        self.change(&key, |ledger| {
            out = chunks.iter().copied().filter(|(id, _)| ledger.find(*id).is_some()).collect();
            let mut marked = false;
            for (id, closing) in &out {
                marked |= ledger.begin_closing(*id, *closing);
            }
            marked
        })
        .await?;
        if out.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(CLOSE_PAUSE).await;
        let mut journals = Vec::with_capacity(out.len());
        for (id, closing) in out {
            let days = journal::sum(&self.ports, tenant, id).await?;
            journals.push((id, closing, days));
        }
        let (mut lost, mut interrupted) = (0, 0);
        self.change(&key, |ledger| {
            (lost, interrupted) = (0, 0);
            let mut closed = false;
            for (id, closing, days) in &journals {
                let Some(open) = ledger.find(*id) else { continue };
                let used = days.values().fold(Totals::default(), |sum, day| sum.plus(*day));
                // As it was begun, by whichever node it is finished.
                let unproven = match open.closing.unwrap_or(*closing) {
                    Closing::Own { unsettled } => unsettled,
                    Closing::Others => open.size.messages.saturating_sub(used.messages),
                };
                let mut spent = used.amounts();
                spent.messages += unproven;
                ledger.lost += unproven;
                (lost, interrupted) = (lost + unproven, interrupted + used.interrupted);
                closed |= ledger.close(*id, spent, days);
            }
            closed
        })
        .await?;
        self.ports.metrics.quota_closed(lost, interrupted);
        Ok(())
    }

    /// Closes a quota lease of another node.
    async fn close_dead(&self, tenant: &TenantId, of: ChunkOf) -> Result<(), StoreError> {
        self.close(tenant, of.month, &[(of.id, Closing::Others)]).await
    }

    /// Gives unused leases back, and closes finished ones, for as long as it is polled.
    pub async fn tidy(self: Arc<Self>, tenants: Arc<Tenants>) {
        loop {
            tokio::time::sleep(UPKEEP_INTERVAL).await;
            self.tidy_once(|tenant| tenants.get(tenant)).await;
        }
    }

    /// Does so once.
    pub async fn tidy_once(&self, find: impl Fn(&TenantId) -> Option<Arc<Tenant>>) {
        let _one = self.giving_back.lock().await;
        let now = self.ports.clock.now();
        let accounts: Vec<_> =
            lock(&self.accounts).iter().map(|(id, account)| (id.clone(), account.clone())).collect();
        self.close_all(accounts, |tenant, leases| match find(tenant) {
            Some(tenant) => leases.tidy(month(&tenant, now), now),
            None => leases.retire(),
        })
        .await;
        lock(&self.accounts)
            .retain(|_, account| Arc::strong_count(account) > 1 || !lock(&account.leases).is_empty());
    }

    /// Gives everything back. No turn may be in work any more.
    pub async fn give_back(&self) {
        let _one = self.giving_back.lock().await;
        let accounts: Vec<_> = lock(&self.accounts).drain().collect();
        self.close_all(accounts, |_, leases| leases.retire()).await;
    }

    async fn close_all(
        &self,
        accounts: Vec<(TenantId, Arc<Account>)>,
        retire: impl Fn(&TenantId, &mut LeaseCache),
    ) {
        let mut closing = Vec::new();
        for (tenant, account) in accounts {
            let mut months = BTreeMap::<Month, Vec<Held>>::new();
            {
                let mut leases = lock(&account.leases);
                retire(&tenant, &mut leases);
                leases
                    .closable()
                    .into_iter()
                    .for_each(|held| months.entry(held.of.month).or_default().push(held));
            }
            let close = |(month, held)| self.close_held(tenant.clone(), account.clone(), month, held);
            closing.extend(months.into_iter().map(close));
        }
        join_all(closing).await;
    }

    async fn close_held(&self, tenant: TenantId, account: Arc<Account>, month: Month, all: Vec<Held>) {
        let closing = |held: &Held| (held.of.id, Closing::Own { unsettled: held.unsettled });
        let chunks: Vec<_> = all.iter().map(closing).collect();
        if let Err(error) = self.close(&tenant, month, &chunks).await {
            // Others close them after their end.
            tracing::warn!(%tenant, %error, "quota leases not given back, retrying");
            if error.is_transient() {
                let mut leases = lock(&account.leases);
                all.into_iter().for_each(|held| leases.put_back(held));
            }
        }
    }
}

fn parse(key: &Key, stored: Option<&Bytes>) -> Result<Ledger, StoreError> {
    let Some(stored) = stored else { return Ok(Ledger::new()) };
    serde_json::from_slice(stored).map_err(|error| StoreError::Corrupt {
        detail: format!("{key:?}: the ledger of a quota does not parse: {:?}", error.classify()),
    })
}

/// Returns a tenant's use in a month, including that of quota leases that are not closed yet. Closes those of dead
/// nodes.
///
/// # Errors
/// [`StoreError`].
pub async fn usage(ports: &Ports, tenant: &Tenant, month: Month) -> Result<Usage, StoreError> {
    let limit = Amounts::limit(&tenant.quota);
    Ok(Usage { limit, ..usage_of(ports, &tenant.id, month).await? })
}

/// Returns the use by turns in a month, of a tenant that may have no configuration any more.
///
/// # Errors
/// [`StoreError`].
pub async fn used(ports: &Ports, tenant: &TenantId, month: Month) -> Result<Totals, StoreError> {
    Ok(usage_of(ports, tenant, month).await?.total())
}

async fn usage_of(ports: &Ports, tenant: &TenantId, month: Month) -> Result<Usage, StoreError> {
    let quotas = Quotas::new(ports.clone());
    let key = Key::quota(tenant, &month.to_string());
    let ledger = loop {
        let ledger = quotas.ledger(&key).await?;
        match ledger.overdue(ports.clock.now()) {
            Some(dead) => {
                let dead = ChunkOf { id: dead.id, month };
                quotas.close_dead(tenant, dead).await?;
            }
            None => break ledger,
        }
    };
    let (mut days, mut spent, mut set_aside) = (ledger.days.clone(), ledger.spent, Amounts::NONE);
    for open in &ledger.open {
        let used = journal::sum(ports, tenant, open.id).await?;
        let mut of_chunk = Amounts::NONE;
        for (day, totals) in used {
            let sum = days.entry(day).or_default();
            *sum = sum.plus(totals);
            of_chunk = of_chunk.plus(totals.amounts());
        }
        spent = spent.plus(of_chunk);
        set_aside = set_aside.plus(open.size.minus(of_chunk));
    }
    let limit = Amounts::NONE;
    let (granted, lost_messages) = (ledger.granted, ledger.lost);
    Ok(Usage { month, limit, granted, spent, lost_messages, set_aside, days })
}
