//! Verification of the promises made to a tenant: reads what is stored, as it is stored, and can find that a promise
//! does not hold.
//!
//! Every row of the tenant is read once and checked against each promise; then the newest records of the topics are,
//! and the plaintext probes that must not be in any of them. Nothing is taken on trust: a ciphertext is opened at its
//! place, a destroyed key is tried, the quota's use is added up again, sends are replayed against the consents. It runs
//! while the tenant's customers write; a change meanwhile is distinguished from a fault by a second read.
//!
//! # Layout
//! - This file: the order of looking.
//! - `form`: the expected form of a row, opened.
//! - `times`: rows end in time. `erased`: erasures hold. `spent`: the quota, added up again. `sends`: sends against
//!   consents and windows. `people`: contacts of one person lead to each other. `cross_tenant`: other tenants' keys do
//!   not open the tenant's data. `region`: the region of
//!   the stores.
//! - `topics`: records in the log. [`PlaintextProbes`]: plaintext probes, texts of customers that must not be found anywhere.

mod cross_tenant;
mod erased;
mod form;
mod people;
mod probes;
mod region;
mod sends;
mod spent;
mod times;
mod topics;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use heddle_schemas::id::TenantId;
use heddle_schemas::ports::keys::{Keys, KeysError};
use heddle_schemas::ports::state::{StoreError, Walk};
use heddle_schemas::promise::{Promise, Proof, Proofs};
use heddle_schemas::table::Table;
use heddle_schemas::tenant::Tenant;

use self::cross_tenant::CrossTenant;
use self::erased::Erased;
use self::form::{Holds, Reader, Wrong};
use self::people::People;
pub use self::probes::PlaintextProbes;
use self::sends::Sends;
use self::spent::Spent;
use self::times::{Late, Times};
use self::topics::Topics;
use crate::partition::commit::read;
use crate::ports::Ports;
use crate::privacy::audit_log::{AuditError, AuditLog};
use crate::privacy::{sweep, tenant_deletion};
use crate::tenant::configuration::Tenants;

/// Rows that are read at once.
const PAGE: usize = 500;

/// Why nothing can be said: something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// The log or the state.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Keys.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The audit log.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The tenant was deleted meanwhile.
    #[error("there is no tenant {0} any more")]
    Unknown(TenantId),
}

/// Verifier of a tenant's promises.
pub struct Prover {
    /// Ports of the engine.
    pub ports: Ports,
    /// Keys without watching: a value that is tried here and does not open is no incident.
    pub keys: Arc<dyn Keys>,
    /// All tenants.
    pub tenants: Arc<Tenants>,
    /// Maximum age of a settled record in the log.
    pub oldest_record: Duration,
    /// Retention of markers of seen messages: nothing is delivered again after that.
    pub marker_ttl: Duration,
    /// Records of each partition of the log that are read, the newest.
    pub records: u64,
}

impl Prover {
    /// Checks everything about a tenant. Returns the findings, and the plaintext probes that must not be found anywhere
    /// else either.
    ///
    /// # Errors
    /// [`ProveError`].
    pub async fn prove(&self, tenant: &Arc<Tenant>) -> Result<(Proofs, PlaintextProbes), ProveError> {
        let at = self.ports.clock.now();
        let mut encryption = Proof::new(Promise::Encryption);
        let mut isolation = Proof::new(Promise::Isolation);
        let mut reader = Reader::new(self.keys.clone(), &tenant.id).await?;
        let mut probes = PlaintextProbes::new(tenant);
        let Some(kept) = self.tenants.kept(&tenant.id) else {
            return Err(ProveError::Unknown(tenant.id.clone()));
        };
        let is_swept = !sweep::is_behind(&self.ports, &self.tenants, &kept).await?;
        let resumed = self.tenants.resumed(&kept);
        let mut times = Times::new(kept, at, Late { stamped: self.marker_ttl, resumed, is_swept });
        let mut erased = Erased::begin(&self.ports, &tenant.id).await?;
        let mut spent = Spent::begin(&self.ports, tenant).await?;
        let mut sends = Sends::default();
        let mut people = People::new(&tenant.id);
        let mut cross_tenant = CrossTenant::default();
        let mut rows = 0_u64;
        let mut walk = Walk::of(&tenant.id, Table::of_tenants(), PAGE);
        loop {
            let page = read(&self.ports.metrics, || self.ports.state.walk(&walk)).await?;
            for row in &page.rows {
                rows += 1;
                times.ends(row);
                cross_tenant.sample(row);
                match reader.read(row).await? {
                    Ok(holds) => {
                        times.written(row, &holds);
                        probes.take(&holds);
                        if let Some(contact) = erased.readable(row, &holds)
                            && reader.is_gone(contact).await?
                        {
                            erased.left(row, contact);
                        }
                        spent.take(&holds);
                        sends.take(row, &holds);
                        people.take(&self.ports, row, &holds).await?;
                        if let Holds::Backlog(record) = &holds
                            && row.key.account() != Some(record.conversation.account())
                        {
                            isolation.fault(format!("{:?}: it waits for another account's sender", row.key));
                        }
                    }
                    Err(Wrong::Form(detail)) => encryption.fault(format!("{:?}: {detail}", row.key)),
                    Err(Wrong::Foreign(detail)) => isolation.fault(format!("{:?}: {detail}", row.key)),
                    Err(Wrong::Gone(contact)) => erased.left(row, contact),
                }
            }
            if !walk.go_on(&page) {
                break;
            }
        }
        encryption.count(rows);
        isolation.count(rows);
        encryption.saw(format!("{rows} rows read, {} ciphertexts opened", reader.opened));
        cross_tenant.prove(&*self.keys, &self.tenants, tenant, &mut isolation).await?;
        let topics = Topics { prover: self, tenant, at, resumed, probes: probes.searcher() };
        let (credentials, kept) = topics.prove(&mut reader, &mut encryption, &mut isolation).await?;
        let (mut consent, window) = sends.prove();
        people.prove(&self.ports, &mut consent).await?;
        let proofs = vec![
            encryption,
            credentials,
            isolation,
            times.prove(),
            erased.prove(&self.ports, &*self.keys).await?,
            spent.prove(&self.ports).await?,
            consent,
            window,
            region::prove(&self.ports, tenant).await?,
            kept,
            self.prove_audit_log(Some(&tenant.id)).await?,
        ];
        Ok((Proofs { tenant: Some(tenant.id.clone()), at, proofs }, probes))
    }
}

/// Rows found of a tenant that there is not.
struct Strange {
    rows: u64,
    /// Number of these that are keys: they are created before the tenant is.
    keys: u64,
    first: String,
}

impl Prover {
    /// Checks data of no tenant: rows of tenants that do not exist, and the audit log of the engine itself.
    ///
    /// # Errors
    /// [`ProveError`].
    pub async fn prove_rest(&self) -> Result<Proofs, ProveError> {
        let at = self.ports.clock.now();
        let mut isolation = Proof::new(Promise::Isolation);
        let mut rows = 0_u64;
        let mut strange: BTreeMap<String, Strange> = BTreeMap::new();
        let tables = Table::with(|table| table.tenant_deletion.removes());
        let mut walk = Walk { tables, tenant: None, after: None, limit: PAGE };
        loop {
            let page = read(&self.ports.metrics, || self.ports.state.walk(&walk)).await?;
            for row in &page.rows {
                rows += 1;
                let tenant = row.key.tenant();
                // Rows without a tenant are the engine's own.
                let is_known =
                    tenant.is_empty() || tenant.parse().is_ok_and(|id| self.tenants.get(&id).is_some());
                if !is_known && !row.key.outlives_tenant() {
                    let first = || Strange { rows: 0, keys: 0, first: format!("{:?}", row.key) };
                    let of = strange.entry(tenant.to_owned()).or_insert_with(first);
                    of.rows += 1;
                    of.keys += u64::from(row.key.table() == Table::Key);
                }
            }
            if !walk.go_on(&page) {
                break;
            }
        }
        isolation.count(rows);
        isolation.saw(format!("{rows} rows of all tenants"));
        for (tenant, Strange { rows, keys, first }) in strange {
            let id = tenant.parse::<TenantId>().ok();
            let deletion = match &id {
                Some(id) => tenant_deletion::find(&self.ports, id).await?,
                None => None,
            };
            if deletion.is_none() && keys == rows {
                isolation
                    .saw(format!("{rows} keys that were made for tenant {tenant}, which was not applied"));
                continue;
            }
            if deletion.is_some_and(|deletion| !deletion.is_complete() && !deletion.is_overdue(at)) {
                isolation.saw(format!("{rows} rows of tenant {tenant}, which is being deleted"));
                continue;
            }
            isolation.fault(format!("there is no tenant {tenant:?}, and {rows} rows of it, such as {first}"));
        }
        let audit_log = self.prove_audit_log(None).await?;
        Ok(Proofs { tenant: None, at, proofs: vec![isolation, audit_log] })
    }

    async fn prove_audit_log(&self, tenant: Option<&TenantId>) -> Result<Proof, AuditError> {
        let mut proof = Proof::new(Promise::AuditLog);
        let verdict = AuditLog::new(self.ports.clone()).verify(tenant, &[]).await?;
        proof.count(verdict.entries);
        proof.saw(format!("{} entries", verdict.entries));
        verdict.faults.iter().for_each(|fault| proof.fault(fault.to_string()));
        proof.more_faults += verdict.more_faults;
        Ok(proof)
    }
}
