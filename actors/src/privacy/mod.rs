//! Privacy: executes and verifies what people were promised about their data.
//!
//! # Layout
//! - [`erasure`]: erasures of contacts and their progress.
//! - [`tenant_deletion`]: deletions of tenants.
//! - [`sweep`]: applies changed retention to rows that exist already.
//! - [`verification`]: checks each promise against what is stored.
//! - [`audit_log`]: records who did what, when and why.
//! - [`security`]: signals that look like an attack.

pub mod audit_log;
pub mod erasure;
pub mod security;
pub mod sweep;
pub mod tenant_deletion;
pub mod verification;
