//! Error of every operation: kind of failure, machine-readable code, and cause.

use std::error::Error;
use std::fmt;

use heddle_actors::audience::AudienceError;
use heddle_actors::conversation::thread::ThreadError;
use heddle_actors::privacy::audit_log::AuditError;
use heddle_actors::privacy::tenant_deletion::DeletionError;
use heddle_actors::privacy::verification::ProveError;
use heddle_actors::tenant::configuration::TenantsError;
use heddle_api::content::{BoxError, Malformed};
use heddle_api::problem::ErrorKind;
use heddle_schemas::audit::Outcome;
use heddle_schemas::id::{ContactId, MessageKey, TenantId};
use heddle_schemas::ports::keys::KeysError;
use heddle_schemas::ports::knowledge::KnowledgeError;
use heddle_schemas::ports::log::StoreError;

use crate::dead_letters::DeadLettersError;

/// Error of an operation.
#[derive(Debug)]
pub struct OperationError {
    /// Kind, which decides the caller's reaction.
    pub kind: ErrorKind,
    /// Machine-readable code.
    pub code: &'static str,
    /// Cause.
    pub source: BoxError,
}

impl fmt::Display for OperationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

impl Error for OperationError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.source()
    }
}

impl OperationError {
    /// Creates an error with its cause.
    pub fn new(kind: ErrorKind, code: &'static str, source: impl Into<BoxError>) -> Self {
        Self { kind, code, source: source.into() }
    }

    /// Creates the error of an invalid request.
    pub fn invalid(code: &'static str, why: impl Into<BoxError>) -> Self {
        Self::new(ErrorKind::Invalid, code, why)
    }

    /// Creates the error of an unknown tenant.
    #[must_use]
    pub fn unknown_tenant(tenant: &TenantId) -> Self {
        let why = format!("there is no tenant {tenant}; `heddle tenant list` shows all");
        Self::new(ErrorKind::NotFound, "unknown_tenant", why)
    }

    /// Creates the error of a contact that the tenant does not know.
    #[must_use]
    pub fn unknown_contact(tenant: &TenantId) -> Self {
        let why =
            format!("tenant {tenant} knows no such contact; give the number or id as the channel shows it");
        Self::new(ErrorKind::NotFound, "unknown_contact", why)
    }

    /// Creates the error of a number that may be one of several contacts'.
    #[must_use]
    pub fn ambiguous_contact(tenant: &TenantId, contacts: &[ContactId]) -> Self {
        let named: Vec<_> = contacts.iter().map(ContactId::to_string).collect();
        let why = format!(
            "this number may be that of several contacts of tenant {tenant}, which are known by different forms of it: \
             {}; name one of them by its id",
            named.join(", ")
        );
        Self::invalid("ambiguous_contact", why)
    }

    /// Creates the error of an unknown erasure.
    #[must_use]
    pub fn unknown_erasure(tenant: &TenantId, erasure: MessageKey) -> Self {
        let why = format!("tenant {tenant} has no erasure {erasure}; `heddle contact erasures` shows all");
        Self::new(ErrorKind::NotFound, "unknown_erasure", why)
    }

    /// Creates the error of a tenant that was not deleted.
    #[must_use]
    pub fn not_deleted(tenant: &TenantId) -> Self {
        let why = format!("tenant {tenant} was not deleted; `heddle tenant deletions` shows all deletions");
        Self::new(ErrorKind::NotFound, "not_deleted", why)
    }

    /// Creates the error of missing rights.
    #[must_use]
    pub fn denied() -> Self {
        Self::new(ErrorKind::Denied, "denied", "your role does not permit this; ask an owner of the tenant")
    }

    /// Creates the error of an audit log that cannot be written; the operation was not run.
    #[must_use]
    pub fn unrecorded(error: AuditError) -> Self {
        let Self { kind, code, source } = error.into();
        Self::new(kind, code, format!("nothing was done: {source}"))
    }

    /// Returns the outcome for the audit log.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self.kind {
            ErrorKind::NotFound | ErrorKind::Conflict | ErrorKind::Invalid | ErrorKind::Denied => {
                Outcome::Refused
            }
            ErrorKind::Unavailable | ErrorKind::Internal => Outcome::Failed,
        }
    }
}

impl From<StoreError> for OperationError {
    fn from(error: StoreError) -> Self {
        let (kind, code) = match &error {
            StoreError::TooLarge { .. } => (ErrorKind::Invalid, "too_large"),
            error if error.is_transient() || matches!(error, StoreError::Closed) => {
                (ErrorKind::Unavailable, "store_unavailable")
            }
            _ => (ErrorKind::Internal, "store"),
        };
        Self::new(kind, code, error)
    }
}

impl From<KeysError> for OperationError {
    fn from(error: KeysError) -> Self {
        match error {
            KeysError::Store(error) => error.into(),
            KeysError::Gone { .. } => Self::new(ErrorKind::Conflict, "key_erased", error),
            KeysError::Master { .. } => Self::new(ErrorKind::Invalid, "master_key", error),
            KeysError::Unreadable { .. } => Self::new(ErrorKind::Internal, "unreadable", error),
        }
    }
}

impl From<AudienceError> for OperationError {
    fn from(error: AudienceError) -> Self {
        match error {
            AudienceError::Store(error) => error.into(),
            AudienceError::Keys(error) => error.into(),
            AudienceError::Unknown(_) => Self::new(ErrorKind::NotFound, "unknown_audience", error),
            AudienceError::TooMany => Self::invalid("too_many_audiences", error),
            AudienceError::NoPhones => Self::invalid("no_phone_channel", error),
        }
    }
}

impl From<TenantsError> for OperationError {
    fn from(error: TenantsError) -> Self {
        let (kind, code) = match error {
            TenantsError::Store(error) => return error.into(),
            TenantsError::Keys(error) => return error.into(),
            TenantsError::Faults(_) => (ErrorKind::Invalid, "invalid_configuration"),
            TenantsError::Retention { .. } => (ErrorKind::Invalid, "retention"),
            TenantsError::Region { .. } => (ErrorKind::Invalid, "other_region"),
            TenantsError::Taken { .. } => (ErrorKind::Conflict, "account_taken"),
            TenantsError::Newer(_) => (ErrorKind::Conflict, "newer_configuration"),
            TenantsError::UnknownAccount(_) => (ErrorKind::NotFound, "unknown_account"),
            TenantsError::Record { .. } | TenantsError::Altered(_) => (ErrorKind::Internal, "unreadable"),
        };
        Self::new(kind, code, error)
    }
}

impl From<KnowledgeError> for OperationError {
    fn from(error: KnowledgeError) -> Self {
        let (kind, code) = match error {
            KnowledgeError::Store(error) => return error.into(),
            KnowledgeError::Keys(error) => return error.into(),
            KnowledgeError::Refused { .. } => (ErrorKind::Invalid, "document_refused"),
            KnowledgeError::Unknown { .. } => (ErrorKind::NotFound, "unknown_document"),
            KnowledgeError::Index { .. } => (ErrorKind::Internal, "index"),
        };
        Self::new(kind, code, error)
    }
}

impl From<ThreadError> for OperationError {
    fn from(error: ThreadError) -> Self {
        match error {
            ThreadError::Store(error) => error.into(),
            ThreadError::Keys(error) => error.into(),
            ThreadError::Row { .. } => Self::new(ErrorKind::Internal, "unreadable", error),
        }
    }
}

impl From<DeadLettersError> for OperationError {
    fn from(error: DeadLettersError) -> Self {
        let (kind, code) = match error {
            DeadLettersError::Store(error) => return error.into(),
            DeadLettersError::Keys(error) => return error.into(),
            DeadLettersError::Unknown(_) => (ErrorKind::NotFound, "unknown_letter"),
            DeadLettersError::Request(_) => (ErrorKind::Invalid, "invalid_replay"),
        };
        Self::new(kind, code, error)
    }
}

impl From<AuditError> for OperationError {
    fn from(error: AuditError) -> Self {
        let (kind, code) = match &error {
            AuditError::Keys(KeysError::Gone { .. }) => (ErrorKind::Conflict, "key_erased"),
            AuditError::Broken { .. } => (ErrorKind::Internal, "audit_log_broken"),
            error if error.is_transient() => (ErrorKind::Unavailable, "store_unavailable"),
            _ => (ErrorKind::Internal, "audit_log"),
        };
        Self::new(kind, code, error)
    }
}

impl From<DeletionError> for OperationError {
    fn from(error: DeletionError) -> Self {
        match error {
            DeletionError::Store(error) => error.into(),
            DeletionError::Keys(error) => error.into(),
            DeletionError::Tenants(error) => error.into(),
            DeletionError::Knowledge(error) => error.into(),
            DeletionError::Audit(error) => error.into(),
        }
    }
}

impl From<ProveError> for OperationError {
    fn from(error: ProveError) -> Self {
        match error {
            ProveError::Store(error) => error.into(),
            ProveError::Keys(error) => error.into(),
            ProveError::Audit(error) => error.into(),
            ProveError::Unknown(tenant) => Self::unknown_tenant(&tenant),
        }
    }
}

impl From<Malformed> for OperationError {
    fn from(error: Malformed) -> Self {
        let code = match error.status {
            408 => "too_slow",
            413 => "too_large",
            _ => "malformed",
        };
        Self::new(ErrorKind::Invalid, code, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passing_fault_may_be_tried_again_and_a_lasting_one_says_what_it_is() {
        let away = || StoreError::Unavailable { detail: "away".into() };
        for error in [
            OperationError::from(KeysError::Store(away())),
            OperationError::from(KnowledgeError::Keys(KeysError::Store(away()))),
            OperationError::unrecorded(AuditError::Store(away())),
        ] {
            assert_eq!((error.kind, error.outcome()), (ErrorKind::Unavailable, Outcome::Failed), "{error}");
        }
        let gone = OperationError::from(AuditError::Keys(KeysError::Gone { detail: "acme".into() }));
        assert_eq!((gone.kind.status(), gone.outcome()), (409, Outcome::Refused));
    }
}
