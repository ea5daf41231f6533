//! Reading of topic tenants: the newest configuration that this build can read holds.

use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::time::Duration;

use heddle_schemas::id::{AccountKey, TenantId};
use heddle_schemas::ports::keys::{KeysError, Missing};
use heddle_schemas::ports::log::{FetchLimit, Record, StoreError};
use heddle_schemas::record::event::DataCategory;
use heddle_schemas::record::tenants::{AUTHENTICATED, MAC_DOMAIN, TenantRecord, TenantSecrets, is_authentic};
use heddle_schemas::record::{RecordError, decode_to, log_aad, version};
use heddle_schemas::sealed::{Sealed, Secret};
use heddle_schemas::tenant::Tenant;
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Offset, Topic, TopicPartition};
use tokio::sync::{broadcast, watch};

use super::{CATCH_UP, DEPARTURES, Kept, Tenants, TenantsError};
use crate::ports::Ports;
use crate::privacy::security::SecuritySignal;

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

    /// Returns since when this node runs, where it began with this configuration of a tenant: what of its data was to go
    /// before may be there, since nothing ran that removes it.
    #[must_use]
    pub fn resumed(&self, kept: &Kept) -> Option<Timestamp> {
        let (partition, offset) = kept.since;
        let next = self.loaded_to.get()?.get(&partition)?;
        (offset < *next).then_some(self.started)
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

    pub(super) async fn take(&self, record: &Record) -> Result<(), TenantsError> {
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
    pub(super) fn keep_last(&self, record: &Record, name: &str, error: &RecordError) {
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
    pub(super) async fn open(
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

    pub(super) async fn credentials(
        &self,
        account: &AccountKey,
        sealed: &Sealed,
    ) -> Result<Vec<u8>, KeysError> {
        let cipher = self.keys.channel(account, Missing::Fail).await?;
        cipher.open(&log_aad(Topic::Tenants, account), sealed)
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
}
