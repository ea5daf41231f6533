//! Handlers of the operations on the audit log, and of the verification of promises.

use std::sync::Arc;

use heddle_actors::privacy::security::SecuritySignal;
use heddle_actors::privacy::tenant_deletion;
use heddle_api::audit_log::{ENTRIES, ListAuditLog, Prove, ResumeAuditLog, VerifyAuditLog};
use heddle_api::content::List;
use heddle_api::{Input, Operation};
use heddle_schemas::audit::chain::Verdict;
use heddle_schemas::audit::{Act, Entry, Outcome, What};
use heddle_schemas::promise::Proofs;
use heddle_schemas::tenant::Tenant;

use super::tenants::deleted;
use super::{Call, Caller, Handler, OperationError, Operations, Subject};

impl Handler for Prove {
    type Subject = Option<Arc<Tenant>>;

    async fn run(
        operations: &Operations,
        _: Call<'_>,
        _: Input<Self>,
        tenant: Option<Arc<Tenant>>,
    ) -> Result<Proofs, OperationError> {
        operations.prove(tenant).await
    }
}

/// Readable audit log: of the installation, or of an existing or deleted tenant.
pub struct Readable;

impl<O: Operation> Subject<O> for Readable {
    async fn find(operations: &Operations, input: &mut Input<O>) -> Result<Self, OperationError> {
        if let Some(tenant) = input.tenant() {
            operations.tenant_ever(tenant).await?;
        }
        Ok(Self)
    }
}

impl Handler for ListAuditLog {
    type Subject = Readable;

    async fn run(
        operations: &Operations,
        _: Call<'_>,
        input: Input<Self>,
        _: Readable,
    ) -> Result<List<Entry>, OperationError> {
        let which = input.query;
        let limit = which.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(ENTRIES);
        let limit = limit.clamp(1, ENTRIES);
        let entries = operations.audit.entries(which.tenant.as_ref(), which.from.unwrap_or(1), limit);
        Ok(List { items: entries.await? })
    }
}

impl Handler for VerifyAuditLog {
    type Subject = Readable;

    async fn run(
        operations: &Operations,
        _: Call<'_>,
        input: Input<Self>,
        _: Readable,
    ) -> Result<Verdict, OperationError> {
        let tenant = input.query.tenant.as_ref();
        let noted = input.query.noted.map(|noted| noted.0).unwrap_or_default();
        let verdict = operations.audit.verify(tenant, &noted).await?;
        if !verdict.holds() {
            let faults = verdict.faults.len() as u64 + verdict.more_faults;
            operations.ports.security.saw(tenant, SecuritySignal::AuditLog { faults });
        }
        Ok(verdict)
    }
}

/// Writable audit log: of the installation, or of an existing tenant. That of a deleted tenant has ended with its key.
pub struct Living;

impl<O: Operation> Subject<O> for Living {
    async fn find(operations: &Operations, input: &mut Input<O>) -> Result<Self, OperationError> {
        let Some(tenant) = input.tenant() else { return Ok(Self) };
        match tenant_deletion::find(&operations.ports, tenant).await? {
            Some(_) => Err(deleted(tenant)),
            None => operations.tenant(tenant).map(|_| Self),
        }
    }
}

impl Handler for ResumeAuditLog {
    type Subject = Living;

    async fn run(
        operations: &Operations,
        call: Call<'_>,
        input: Input<Self>,
        _: Living,
    ) -> Result<Entry, OperationError> {
        let Caller { who, why, .. } = call.caller.clone();
        let act = Act { who, what: What::Resume, why, outcome: Outcome::Done, began: None, records: None };
        Ok(operations.audit.resume(input.query.tenant.as_ref(), act).await?)
    }
}
