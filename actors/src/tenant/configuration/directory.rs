//! Tenants in memory, by id and by account.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use heddle_schemas::id::{AccountId, AccountKey, ChannelKind, TenantId};
use heddle_schemas::retention::{self, Former, Kind};
use heddle_schemas::tenant::Tenant;
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::Offset;

use super::CHANGED_NAMED;

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
pub(super) struct Directory {
    pub(super) tenants: BTreeMap<TenantId, Kept>,
    pub(super) accounts: HashMap<(ChannelKind, AccountId), Arc<Tenant>>,
    /// Accounts whose credentials are erased while the newest record still has them: their disconnection was
    /// interrupted.
    pub(super) severed: HashSet<AccountKey>,
    /// Tenants whose data stays in another region: that one.
    pub(super) foreign: HashMap<TenantId, String>,
    /// Tenants whose newest configuration a later build wrote. Those that this node could read before stay as they
    /// were; the others have none here.
    pub(super) newer: HashSet<TenantId>,
    /// Tenants whose configuration has a MAC; from then on one without is refused.
    pub(super) authentic: HashSet<TenantId>,
}

impl Directory {
    pub(super) fn put(&mut self, mut kept: Kept, severed: Vec<AccountKey>, is_authentic: bool) {
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
    pub(super) fn sever(&mut self, account: &AccountKey) {
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

    pub(super) fn remove(&mut self, id: &TenantId) {
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

    pub(super) fn insert(&mut self, tenant: &TenantId) {
        self.all |= self.named.len() >= CHANGED_NAMED;
        if !self.all {
            self.named.insert(tenant.clone());
        }
    }
}
