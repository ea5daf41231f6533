//! Caller of an operation: identity for the audit log, and rights.

use std::collections::BTreeMap;

use heddle_api::{Role, Scope};
use heddle_schemas::audit::{Note, Who};
use heddle_schemas::id::TenantId;

use super::OperationError;

/// Caller of an operation. There is no default: each entry point sets it explicitly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Identity for the audit log.
    pub who: Who,
    /// Reason of the call, if given.
    pub why: Option<Note>,
    /// Rights of the caller.
    pub rights: Rights,
}

/// Rights of a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rights {
    /// Everything: a holder of the token, a user of this machine, or a reader of the data folder.
    Operator,
    /// The permissions of a role in each tenant, and none for the installation.
    Tenants(BTreeMap<TenantId, Role>),
}

impl Caller {
    /// Checks that the caller has the role that an operation requires.
    ///
    /// # Errors
    /// `denied`, which does not reveal whether the tenant exists.
    pub fn authorise(
        &self,
        scope: Scope,
        role: Role,
        tenant: Option<&TenantId>,
    ) -> Result<(), OperationError> {
        let Rights::Tenants(roles) = &self.rights else { return Ok(()) };
        let held = match scope {
            Scope::Installation => None,
            Scope::Tenant | Scope::Named => tenant.and_then(|tenant| roles.get(tenant)),
        };
        match held {
            Some(held) if *held >= role => Ok(()),
            _ => Err(OperationError::denied()),
        }
    }
}

#[cfg(test)]
mod tests {
    use heddle_api::problem::ErrorKind;
    use heddle_schemas::audit::Means;

    use super::*;

    fn caller(rights: Rights) -> Caller {
        Caller { who: Who { name: None, means: Means::Token, address: None }, why: None, rights }
    }

    #[test]
    fn a_role_counts_in_its_tenant_and_nowhere_else() {
        let (acme, globex): (TenantId, TenantId) = ("acme".parse().unwrap(), "globex".parse().unwrap());
        let ann = caller(Rights::Tenants(BTreeMap::from([(acme.clone(), Role::Admin)])));
        let may = |scope, role, tenant| ann.authorise(scope, role, tenant).is_ok();
        assert!(may(Scope::Tenant, Role::Member, Some(&acme)));
        assert!(may(Scope::Named, Role::Admin, Some(&acme)));
        assert!(!may(Scope::Tenant, Role::Owner, Some(&acme)));
        assert!(!may(Scope::Tenant, Role::Member, Some(&globex)));
        assert!(!may(Scope::Named, Role::Member, None), "without a tenant it is the installation's");
        assert!(!may(Scope::Installation, Role::Member, Some(&acme)));
        let denied = ann.authorise(Scope::Installation, Role::Member, None).unwrap_err();
        assert_eq!(denied.kind, ErrorKind::Denied);
    }

    #[test]
    fn an_operator_may_do_everything() {
        let operator = caller(Rights::Operator);
        assert!(operator.authorise(Scope::Installation, Role::Owner, None).is_ok());
    }
}
