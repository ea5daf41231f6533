//! Tables of the state store: their descriptors, and the keys of their rows.
//!
//! Every table has one shape: a partition (what is stored and fenced together), rows in byte order inside it, and an
//! opaque value. A [`Key`] names one row and can be made only here, so that no row of a tenant is reached without
//! naming the tenant.
//!
//! # Layout
//! - `catalog`: every [`Table`] with its [`Descriptor`].
//! - `descriptor`: the terms of a descriptor.
//! - `key`, `partition`: the names of rows and partitions.
//! - `row`: the encodings of row names that other code reads.
//!
//! # Adding a table
//! 1. `catalog`: a number, and a [`Descriptor`]. No field has a default, so a table whose owner, lifetime or erasure
//!    is not stated does not compile. Everything that goes through all tables derives from it: erasure of a contact,
//!    tenant deletion, retention sweep, export, verification.
//! 2. `key`: the constructor of its keys.
//! 3. `connectors/src/cql/place.rs`: the CQL table that holds it.
//!
//! The compiler asks for more where the descriptor says something new: a value of a new [`Json`] form is read in the
//! verification's `form`, a new [`Section`] is written in the engine's export, a new [`Dated`] is read in sweep and
//! verification. Rows of an account are removed by the account's own state machine, since it holds them in memory too.
//! `engine/tests/tables.rs` plants a row of every table, erases, deletes and verifies, and fails where a descriptor
//! does not hold.

mod catalog;
mod descriptor;
mod key;
mod partition;
mod row;

pub use self::catalog::{HISTORY_COLUMN, TOOL_COLUMN, Table};
pub use self::descriptor::{
    ContactErasure, ContactIn, Dated, Descriptor, Export, ExportedPart, Form, Json, Lifetime, Owner,
    SealedUnder, Section, TenantDeletion, Written,
};
pub use self::key::Key;
pub use self::partition::Partition;
pub use self::row::{
    BACKLOG_QUEUED, BACKLOG_UNKNOWN, MEMBER_SHARDS, REMOVAL_OPEN, REMOVAL_TOLD, REMOVAL_TOTALS, SpentBy,
    agenda_bound,
};

#[cfg(test)]
mod tests;
