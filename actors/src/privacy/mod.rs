//! Privacy: executes and verifies promises about people's data.
//!
//! # Layout
//! - [`erasure`]: erasures of contacts and their progress.
//! - [`tenant_deletion`]: deletions of tenants. `disconnection`: deletions of disconnected accounts' conversations.
//! - [`deleted_totals`]: usage of deleted tenants, where nothing leads to them.
//! - [`sweep`]: applies changed retention to rows that exist already.
//! - [`verification`]: checks each promise against the stored data.
//! - [`audit_log`]: records the actor, act, time and reason.
//! - [`security`]: security signals, published as incidents.

pub mod audit_log;
pub mod deleted_totals;
pub(crate) mod disconnection;
pub mod erasure;
pub mod security;
pub mod sweep;
pub mod tenant_deletion;
pub mod verification;
