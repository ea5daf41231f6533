//! Changes of a tenant: validated, sealed, written to topic tenants.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use heddle_schemas::id::{AccountKey, TenantId};
use heddle_schemas::ports::keys::Missing;
use heddle_schemas::ports::log::{NewRecord, StoreError};
use heddle_schemas::record::tenants::{AUTHENTICATED, MAC_DOMAIN, TenantRecord, TenantSecrets, authenticate};
use heddle_schemas::record::{V, encode, encode_as, log_aad};
use heddle_schemas::sealed::Secret;
use heddle_schemas::tenant::{Disconnected, Faults, Tenant};
use heddle_schemas::topic::{Topic, tenant_partition};

use super::{Directory, Kept, Tenants, TenantsError};

impl Tenants {
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

    /// Erases the credentials of the accounts that a tenant had and has no more, and writes the remaining ones.
    pub(super) async fn store(&self, mut tenant: Tenant) -> Result<Arc<Tenant>, TenantsError> {
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
}

/// Returns the sealed part of secrets: those that are set.
pub(super) fn sealed_part<'a>(secrets: impl IntoIterator<Item = (String, &'a mut Secret)>) -> TenantSecrets {
    let set = secrets.into_iter().filter(|(_, secret)| !secret.is_empty());
    set.map(|(place, secret)| (place, secret.expose().to_owned())).collect()
}
