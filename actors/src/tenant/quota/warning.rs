//! Warnings and the notice that a quota is spent, once each a month.

use heddle_schemas::lenient::Lenient;
use heddle_schemas::ports::state::StoreError;
use heddle_schemas::record::V;
use heddle_schemas::record::event::{Event, EventRecord};
use heddle_schemas::table::Key;
use heddle_schemas::tenant::{Resource, Tenant};
use heddle_schemas::zone::Month;

use super::amounts::Amounts;
use super::ledger::Ledger;
use super::{Account, Quotas, lock, month};
use crate::partition::commit::read;
use crate::partition::publish;

impl Quotas {
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

    /// Warns of resources that are nearly spent. `unclosed` is the use of this node's quota leases.
    pub(super) async fn warn(
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
    pub(super) async fn warn_of(
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
    pub(super) async fn tell_spent(
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

    pub(super) async fn tell(&self, tenant: &Tenant, event: Event) -> Result<(), StoreError> {
        let record = EventRecord { v: V, tenant: tenant.id.clone(), at: self.ports.clock.now(), event };
        let output = publish::event(&self.ports, &record);
        read(&self.ports.metrics, || self.ports.log.append(vec![output.clone()])).await.map(drop)
    }
}
