//! Implementation of the admin API's operations, for HTTP and for commands on a folder that no process has open.
//!
//! An operation is declared in `heddle-api`; here it gets its [`Handler`]. One function, [`Operations::call`], runs all
//! of them. In this order it
//! 1. authorises the caller ([`Caller::authorise`]),
//! 2. finds the subject of the call ([`Subject`]); an invalid request ends here and leaves no entry,
//! 3. writes the audit entry that the declaration requires, without which nothing is done,
//! 4. runs the handler, and writes its outcome.
//!
//! So a handler can neither be called without a [`Caller`] nor make a change that is missing from the audit log.
//! Where an outcome cannot be written, the entry before it remains alone, as after a crash, and records the begin.
//!
//! # Layout
//! - [`caller`]: identity and rights of the caller. [`error`]: the error type. [`subject`]: the subject of a call.
//! - [`tenants`], [`contacts`], [`messages`], [`documents`], [`audiences`], [`keys`], [`dead_letters`], [`audit_log`]:
//!   the handlers.
//! - [`audience_import`], [`export`], [`verification`]: larger parts of the handlers.

pub mod audience_import;
pub mod audiences;
pub mod audit_log;
pub mod caller;
pub mod contacts;
pub mod dead_letters;
pub mod documents;
pub mod error;
pub mod export;
pub mod keys;
pub mod messages;
pub mod subject;
pub mod tenants;
#[cfg(test)]
mod tests;
pub mod verification;

use std::sync::Arc;

use heddle_actors::intake::identity::{self, Identity, IdentityError, Person};
use heddle_actors::ports::Ports;
use heddle_actors::privacy::audit_log::AuditLog;
use heddle_actors::privacy::tenant_deletion;
use heddle_actors::tenant::configuration::Tenants;
use heddle_api::{Audit, Input, Operation};
use heddle_connectors::egress::Egress;
use heddle_connectors::keys::EnvelopeKeys;
use heddle_connectors::knowledge::extract::process::Extractor;
use heddle_schemas::audit::{Act, Outcome, What};
use heddle_schemas::contact::{ContactName, InvalidName};
use heddle_schemas::content::Address;
use heddle_schemas::id::{ChannelKind, ContactId, TenantId};
use heddle_schemas::tenant::Tenant;
use tokio::sync::Semaphore;

pub use self::caller::{Caller, Rights};
pub use self::error::OperationError;
pub use self::subject::Subject;
use self::verification::Proving;
use crate::dead_letters::DeadLetters;

/// Call of a handler.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The caller.
    pub caller: &'a Caller,
    /// Number of the audit entry that records the begin, if there is one.
    pub began: Option<u64>,
}

/// Handler of a declared operation.
pub trait Handler: Operation {
    /// Subject of the call, found before the audit entry is written or anything is done.
    type Subject: Subject<Self>;

    /// Runs the operation.
    ///
    /// # Errors
    /// [`OperationError`].
    fn run(
        operations: &Operations,
        call: Call<'_>,
        input: Input<Self>,
        subject: Self::Subject,
    ) -> impl Future<Output = Result<Self::Output, OperationError>> + Send;
}

/// Dependencies of the operations. Cheap to clone.
#[derive(Clone)]
pub struct Operations {
    audit: AuditLog,
    tenants: Arc<Tenants>,
    ports: Ports,
    identity: Arc<Identity>,
    keys: Arc<EnvelopeKeys>,
    egress: Egress,
    proving: Proving,
    files: Arc<Extractor>,
    dead_letters: DeadLetters,
    /// True where no node runs that would do what is asked for in the log.
    is_offline: bool,
    /// Imports at once: each holds the numbers of its people in memory.
    imports: Arc<Semaphore>,
}

impl Operations {
    /// Creates the operations on these tenants, their documents and these dead letters.
    #[must_use]
    pub fn new(
        tenants: Arc<Tenants>,
        ports: Ports,
        (keys, egress): (Arc<EnvelopeKeys>, Egress),
        files: Arc<Extractor>,
        dead_letters: DeadLetters,
        proving: Proving,
    ) -> Self {
        let identity = Arc::new(Identity::new(ports.clone()));
        let audit = AuditLog::new(ports.clone());
        let imports = Arc::new(Semaphore::new(audience_import::AT_ONCE));
        Self {
            audit,
            tenants,
            ports,
            identity,
            keys,
            egress,
            proving,
            files,
            dead_letters,
            imports,
            is_offline: false,
        }
    }

    /// The same on a folder that no process has open.
    #[must_use]
    pub fn offline(self) -> Self {
        Self { is_offline: true, ..self }
    }

    /// Runs an operation for a caller.
    ///
    /// # Errors
    /// [`OperationError`]; nothing was done where the caller lacks the rights, or the audit log cannot be written.
    pub async fn call<O: Handler>(
        &self,
        caller: &Caller,
        mut input: Input<O>,
    ) -> Result<O::Output, OperationError> {
        caller.authorise(O::SCOPE, O::ROLE, input.tenant())?;
        let subject = O::Subject::find(self, &mut input).await?;
        let act = if subject.is_settled() { None } else { O::act(&input, subject.contact()) };
        let chain = act.as_ref().and_then(|act| chain(act, input.tenant()));
        let unaudited = Call { caller, began: None };
        let what = match (O::AUDIT, act) {
            (Audit::Never | Audit::Within, _) | (_, None) => {
                return O::run(self, unaudited, input, subject).await;
            }
            (_, Some(what)) => what,
        };
        let began = self.record(caller, chain.as_ref(), what.clone(), (Outcome::Begun, None)).await?;
        let call = Call { caller, began: Some(began) };
        let result = O::run(self, call, input, subject).await;
        let outcome = match (&result, O::AUDIT) {
            (Ok(_), Audit::Around) => Outcome::Done,
            (Err(error), Audit::Around | Audit::Opened) => error.outcome(),
            _ => return result,
        };
        if let Err(error) = self.record(caller, chain.as_ref(), what, (outcome, Some(began))).await {
            // The operation has run, and the entry before records its begin.
            tracing::error!(%error, number = began, ?chain, "audit write failed: the outcome of an operation is missing");
        }
        result
    }

    /// Appends an entry, and returns its number.
    async fn record(
        &self,
        caller: &Caller,
        tenant: Option<&TenantId>,
        what: What,
        (outcome, began): (Outcome, Option<u64>),
    ) -> Result<u64, OperationError> {
        let Caller { who, why, .. } = caller.clone();
        let act = Act { who, what, why, outcome, began, records: None };
        let entry = self.audit.append(tenant, act).await.map_err(OperationError::unrecorded)?;
        Ok(entry.body.number)
    }

    /// Counts exported records of personal data, of a contact or (`None`) of all contacts of a tenant. An unusual
    /// number raises an incident.
    pub fn exported(&self, tenant: &TenantId, contact: Option<ContactId>, records: u64) {
        self.ports.security.exported(tenant, contact, records);
    }

    /// Returns a tenant.
    ///
    /// # Errors
    /// `unknown_tenant`, `other_region`.
    pub fn tenant(&self, id: &TenantId) -> Result<Arc<Tenant>, OperationError> {
        if let Some(tenant) = self.tenants.get(id) {
            return Ok(tenant);
        }
        self.tenants.check_region(id)?;
        Err(OperationError::unknown_tenant(id))
    }

    /// Checks that the tenant exists or existed: its audit log can be read as long as it is kept.
    async fn tenant_ever(&self, id: &TenantId) -> Result<(), OperationError> {
        match self.tenant(id) {
            Ok(_) => Ok(()),
            Err(unknown) => match tenant_deletion::find(&self.ports, id).await? {
                Some(_) => Ok(()),
                None => Err(unknown),
            },
        }
    }

    /// Returns the contact of this name, as [`Operations::person`].
    ///
    /// # Errors
    /// As [`Operations::person`].
    pub async fn contact(&self, id: &TenantId, named: &ContactName) -> Result<ContactId, OperationError> {
        Ok(self.person(id, named).await?.contact)
    }

    /// Returns the person of this name. A contact's own id is accepted even if it is unknown. A number is tried in every
    /// form in which a channel may know it.
    ///
    /// # Errors
    /// `unknown_tenant`, `unknown_contact`, and when log or state cannot be read.
    pub async fn person(&self, id: &TenantId, named: &ContactName) -> Result<Person, OperationError> {
        self.tenant(id)?;
        match self.named(named)? {
            Named::Id(contact) => Ok(identity::person(&*self.ports.state, id, contact).await?),
            Named::Met(kind, address) => {
                let found = self.identity.find(id, kind, &address).await;
                let found = found.map_err(|error| identity_error(error, id))?;
                found.ok_or_else(|| OperationError::unknown_contact(id))
            }
        }
    }

    /// Reads a name of a contact as its channel writes ids.
    fn named(&self, named: &ContactName) -> Result<Named, OperationError> {
        if let ContactName::Id(contact) = named {
            return Ok(Named::Id(*contact));
        }
        let profiles = self.ports.channels.values().map(|channel| channel.profile());
        match named.address(profiles) {
            Ok(Some((kind, address))) => Ok(Named::Met(kind, address)),
            Ok(None) | Err(InvalidName) => Err(OperationError::invalid("invalid_contact", InvalidName)),
        }
    }
}

/// A contact as it is named: by the engine's own id, or by an address of a channel.
enum Named {
    Id(ContactId),
    Met(ChannelKind, Address),
}

fn identity_error(error: IdentityError, tenant: &TenantId) -> OperationError {
    match error {
        IdentityError::Nameless => OperationError::unknown_contact(tenant),
        IdentityError::Ambiguous(contacts) => OperationError::ambiguous_contact(tenant, &contacts),
        IdentityError::Store(error) => error.into(),
        IdentityError::Keys(error) => error.into(),
    }
}

/// Returns the audit log of an act: of the tenant that the call names, or (`None`) of the installation.
fn chain(act: &What, tenant: Option<&TenantId>) -> Option<TenantId> {
    match act {
        // The tenant's own key is destroyed with it.
        What::TenantErase { .. } => None,
        _ => tenant.cloned(),
    }
}
