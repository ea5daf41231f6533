//! Admin API: every operation, declared once, with its types, its OpenAPI description and a client.
//!
//! The declaration of an operation holds its method, path, scope, role, audit entry and types. The engine's router,
//! the description at `/v1/openapi.json`, the audit entries, the authorisation and the command line's calls derive
//! from it. This crate has no server: the engine implements each operation (`heddle_engine::operations::Handler`),
//! and does not compile while one of them has no handler.
//!
//! # Layout
//! - [`operation`]: a declaration and the macro that writes one; [`each`] and [`table`] cover all of them.
//! - [`content`]: bodies and answers; [`problem`]: refusals (RFC 9457).
//! - [`tenants`], [`contacts`], [`documents`], [`audiences`], [`keys`], [`dead_letters`], [`audit_log`]: the operations
//!   by subject; [`consents`] and [`usage`]: their larger types.
//! - [`openapi`]: the description. [`client`]: the client of a running node.

pub mod audiences;
pub mod audit_log;
pub mod client;
pub mod consents;
pub mod contacts;
pub mod content;
pub mod dead_letters;
pub mod documents;
pub mod keys;
pub mod messages;
pub mod openapi;
pub mod operation;
pub mod problem;
pub mod proof;
mod schema;
mod strict;
pub mod tenants;
pub mod usage;

pub use self::content::{List, Nothing};
pub use self::operation::{Audit, Entry, Input, Method, Operation, Role, Scope, Visit};

/// Header with the name of the calling person or program, for the audit log.
pub const ACTOR: &str = "heddle-actor";
/// Header that a changing request of a browser must have: a form cannot send it.
pub const REQUEST: &str = "heddle-request";
/// Header with the reason of a call, for the audit log.
pub const REASON: &str = "heddle-reason";

/// Visitor of every operation.
pub trait Operations:
    tenants::Operations
    + contacts::Operations
    + messages::Operations
    + documents::Operations
    + audiences::Operations
    + keys::Operations
    + dead_letters::Operations
    + audit_log::Operations
{
}

impl<V> Operations for V where
    V: tenants::Operations
        + contacts::Operations
        + messages::Operations
        + documents::Operations
        + audiences::Operations
        + keys::Operations
        + dead_letters::Operations
        + audit_log::Operations
{
}

/// Visits every operation.
pub fn each<V: Operations>(visitor: &mut V) {
    tenants::each(visitor);
    contacts::each(visitor);
    messages::each(visitor);
    documents::each(visitor);
    audiences::each(visitor);
    keys::each(visitor);
    dead_letters::each(visitor);
    audit_log::each(visitor);
}

/// Returns every operation without its types, in the order of the declarations.
#[must_use]
pub fn table() -> Vec<Entry> {
    let mut table = Vec::new();
    each(&mut table);
    table
}
