//! Declaration of an operation, and the macro that writes one.
//!
//! ```text
//! operations! {
//!     /// Does something; becomes the description.
//!     Name: METHOD "/v1/path/{parameter}" (Path, Query, Body) -> STATUS Output;
//!         Scope, Role, Audit |input, contact| act [, within PATIENCE];
//! }
//! ```
//!
//! `act` is the call's entry in the audit log; `None` where this call leaves none. `contact` is the id of the contact
//! that the call names. `PATIENCE` is the client's timeout for the answer, one minute by default.

use std::time::Duration;

use heddle_schemas::audit::What;
use heddle_schemas::id::{ContactId, TenantId};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::content::{Body, Output};

/// HTTP method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Reads.
    Get,
    /// Sets; idempotent.
    Put,
    /// Acts.
    Post,
    /// Removes; idempotent.
    Delete,
}

impl Method {
    /// Returns the method as HTTP writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Put => "PUT",
            Self::Post => "POST",
            Self::Delete => "DELETE",
        }
    }
}

/// Scope of the role that a caller needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The installation: a tenant's own staff may not call it.
    Installation,
    /// The tenant that the path names.
    Tenant,
    /// The tenant that the query names; without one, the installation.
    Named,
}

/// Role that a caller needs; each one includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// May work with contacts and documents.
    Member,
    /// May change the configuration and erase contacts.
    Admin,
    /// May do everything, such as export all data and delete.
    Owner,
}

/// Entries of the audit log that a call leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audit {
    /// None: the call changes nothing, and reads no personal data.
    Never,
    /// One before the call, which is not run without it: it may read personal data.
    Before,
    /// One before the call, which is not run without it, and one after it with the outcome.
    Around,
    /// One before the call. Its work goes on after the answer, and the node that completes it writes the outcome.
    Opened,
    /// The call's effect is itself an entry.
    Within,
}

/// Parameters of a path or a query.
pub trait Parameters: Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static {
    /// Returns the tenant that the parameters name.
    fn tenant(&self) -> Option<&TenantId> {
        None
    }
}

/// No parameters.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoParameters {}

impl Parameters for NoParameters {}

/// Declared operation.
pub trait Operation: Sized + Send + Sync + 'static {
    /// Its name, the `operationId` of the description.
    const NAME: &'static str;
    /// The method.
    const METHOD: Method;
    /// The path, with its parameters in braces.
    const PATH: &'static str;
    /// Summary in one or two sentences.
    const SUMMARY: &'static str;
    /// HTTP status of success.
    const STATUS: u16;
    /// The scope of that role.
    const SCOPE: Scope;
    /// The role that its caller needs.
    const ROLE: Role;
    /// The entries that a call leaves in the audit log.
    const AUDIT: Audit;
    /// The client's timeout for the answer.
    const PATIENCE: Duration;
    /// Parameters of the path.
    type Path: Parameters;
    /// Parameters of the query.
    type Query: Parameters;
    /// The request's body.
    type Body: Body;
    /// The answer.
    type Output: Output;

    /// Returns the act of a call for the audit log; `contact` is the contact that the call names.
    fn act(input: &Input<Self>, contact: Option<ContactId>) -> Option<What>;
}

/// Input of a call.
pub struct Input<O: Operation> {
    /// Parameters of the path.
    pub path: O::Path,
    /// Parameters of the query.
    pub query: O::Query,
    /// The body.
    pub body: O::Body,
}

impl<O: Operation> Input<O> {
    /// Returns the tenant that the call names.
    pub fn tenant(&self) -> Option<&TenantId> {
        self.path.tenant().or_else(|| self.query.tenant())
    }
}

/// Visitor of one operation's type.
pub trait Visit<O: Operation> {
    /// Visits the operation.
    fn visit(&mut self);
}

/// Operation without its types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the constants of `Operation` document each field")]
pub struct Entry {
    pub name: &'static str,
    pub method: Method,
    pub path: &'static str,
    pub summary: &'static str,
    pub status: u16,
    pub scope: Scope,
    pub role: Role,
    pub audit: Audit,
}

impl Entry {
    pub(crate) fn of<O: Operation>() -> Self {
        Self {
            name: O::NAME,
            method: O::METHOD,
            path: O::PATH,
            summary: O::SUMMARY,
            status: O::STATUS,
            scope: O::SCOPE,
            role: O::ROLE,
            audit: O::AUDIT,
        }
    }
}

impl<O: Operation> Visit<O> for Vec<Entry> {
    fn visit(&mut self) {
        self.push(Entry::of::<O>());
    }
}

/// Declares the operations of a module, a visitor of them all, and `each`, which visits them.
macro_rules! operations {
    ($(
        $(#[doc = $doc:literal])+
        $name:ident: $method:ident $path:literal ($in_path:ty, $in_query:ty, $body:ty) -> $status:literal $output:ty;
            $scope:ident, $role:ident, $audit:ident $(|$input:ident, $contact:ident| $act:expr)?
            $(, within $patience:expr)?;
    )+) => {
        $(
            $(#[doc = $doc])+
            #[derive(Debug, Clone, Copy)]
            pub struct $name;

            impl $crate::operation::Operation for $name {
                const NAME: &'static str = stringify!($name);
                const METHOD: $crate::operation::Method = $crate::operation::method!($method);
                const PATH: &'static str = $path;
                const SUMMARY: &'static str = concat!($($doc),+).trim_ascii();
                const STATUS: u16 = $status;
                const SCOPE: $crate::operation::Scope = $crate::operation::Scope::$scope;
                const ROLE: $crate::operation::Role = $crate::operation::Role::$role;
                const AUDIT: $crate::operation::Audit = $crate::operation::Audit::$audit;
                const PATIENCE: std::time::Duration = $crate::operation::patience!($($patience)?);
                type Path = $in_path;
                type Query = $in_query;
                type Body = $body;
                type Output = $output;
                $crate::operation::act!($(|$input, $contact| $act)?);
            }
        )+

        /// Visitor of the operations of this module.
        pub trait Operations: $($crate::operation::Visit<$name> +)+ {}
        impl<V: $($crate::operation::Visit<$name> +)+> Operations for V {}

        /// Visits the operations of this module.
        pub fn each<V: Operations>(visitor: &mut V) {
            $($crate::operation::Visit::<$name>::visit(visitor);)+
        }
    };
}

macro_rules! method {
    (GET) => {
        $crate::operation::Method::Get
    };
    (PUT) => {
        $crate::operation::Method::Put
    };
    (POST) => {
        $crate::operation::Method::Post
    };
    (DELETE) => {
        $crate::operation::Method::Delete
    };
}

macro_rules! patience {
    () => {
        std::time::Duration::from_secs(60)
    };
    ($patience:expr) => {
        $patience
    };
}

macro_rules! act {
    () => {
        fn act(
            _: &$crate::operation::Input<Self>,
            _: Option<heddle_schemas::id::ContactId>,
        ) -> Option<heddle_schemas::audit::What> {
            None
        }
    };
    (|$input:ident, $contact:ident| $act:expr) => {
        #[allow(unused_variables, reason = "an act may not depend on its input")]
        fn act(
            $input: &$crate::operation::Input<Self>,
            $contact: Option<heddle_schemas::id::ContactId>,
        ) -> Option<heddle_schemas::audit::What> {
            $act
        }
    };
}

pub(crate) use {act, method, operations, patience};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::table;

    #[test]
    fn whatever_may_change_something_leaves_an_audit_entry() {
        for entry in table() {
            // A search and a comparison are POST only because what they are given does not belong in a URL.
            let reads =
                entry.method == Method::Get || ["SearchDocuments", "CompareTenant"].contains(&entry.name);
            assert!(reads || entry.audit != Audit::Never, "{} leaves no entry", entry.name);
        }
    }

    #[test]
    fn no_two_operations_share_a_name_or_an_address() {
        let table = table();
        let names: BTreeSet<_> = table.iter().map(|entry| entry.name).collect();
        let addresses: BTreeSet<_> = table.iter().map(|entry| (entry.path, entry.method.as_str())).collect();
        assert_eq!((names.len(), addresses.len()), (table.len(), table.len()));
    }

    #[test]
    fn what_is_a_tenants_names_it_in_its_path() {
        for entry in table().iter().filter(|entry| entry.scope == Scope::Tenant) {
            assert!(entry.path.starts_with("/v1/tenants/{tenant}"), "{}", entry.path);
        }
    }
}
