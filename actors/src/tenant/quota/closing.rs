//! Quota leases that end: what was used is written down, the rest goes back.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::join_all;
use heddle_schemas::id::{ChunkId, TenantId};
use heddle_schemas::ports::state::{Batch, Fence, StoreError, Write};
use heddle_schemas::table::{Key, SpentBy};
use heddle_schemas::tenant::Tenant;
use heddle_schemas::time::Timestamp;
use heddle_schemas::zone::Month;

use super::amounts::{Amounts, Totals};
use super::journal::Spend;
use super::lease_cache::{ChunkOf, Held, LeaseCache};
use super::ledger::Closing;
use super::{Account, CLOSE_PAUSE, Hold, MARGIN, QuotaError, Quotas, UPKEEP_INTERVAL, journal, lock, month};
use crate::partition::commit::{commit, read};
use crate::tenant::configuration::Tenants;

impl Quotas {
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
    pub(super) async fn close(
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
    pub(super) async fn close_dead(&self, tenant: &TenantId, of: ChunkOf) -> Result<(), StoreError> {
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

    pub(super) async fn close_all(
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

    pub(super) async fn close_held(
        &self,
        tenant: TenantId,
        account: Arc<Account>,
        month: Month,
        all: Vec<Held>,
    ) {
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
