//! The decisions of Heddle: tenant, conversation and account as pure state machines with actors around them.
//!
//! Everything outside is reached through the ports of `heddle-schemas`; this crate never names an implementation. The
//! processing of one record is decided without IO and tested without a runtime.
//!
//! # Layout
//! - [`system`]: starts and stops everything below on one node.
//! - [`ports`]: how actors reach everything outside; [`context`]: the node's services that they share;
//!   [`options`]: their limits and policies; [`random`]: injected randomness.
//! - [`intake`]: turns events of channels and connectors into durable records of conversations.
//! - [`partition`]: one partition of inbound or outbound: fetches, delivers in order, wakes due entities, commits.
//! - [`conversation`]: applies a conversation's records and decides its turns.
//! - [`account`]: the only sender: paces, journals, settles.
//! - [`audience`]: a tenant's lists of people, and imports into them.
//! - [`tenant`]: configuration, fair share of turns, quota.
//! - [`privacy`]: erasure, tenant deletion, retention, verification, audit log, security signals.
//! - [`leader`]: the background work that one node does for all.
//! - [`metrics`]: metrics for operators; [`invariants`]: the invariants that are checked while the engine runs.

pub mod account;
pub mod audience;
pub mod context;
pub mod conversation;
pub mod intake;
pub mod invariants;
pub mod leader;
pub mod metrics;
pub mod options;
pub mod partition;
pub mod ports;
pub mod privacy;
pub mod random;
pub mod system;
pub mod tenant;
