//! Who decides in Heddle: tenant, conversation and account, as pure state machines with actors around them.
//!
//! Everything outside is reached through the ports of `heddle-schemas`; this crate never names an
//! implementation. What one record does is decided without IO and tested without a runtime.
//!
//! # Layout
//! - [`system`]: starts and stops everything below on one node.
//! - [`ports`]: the ports and options that the actors share.
//! - [`tenants`]: the configuration of all tenants, tailed from the log; [`tenant`]: the actor that shares
//!   a tenant's turns out.
//! - [`consent`]: what contacts consented to and opted out of.
//! - [`reception`]: the way in, from a channel's events to durable records; [`identity`]: who a contact is.
//! - [`ingress`]: the same way in for what third-party connectors publish.
//! - [`partition`]: one partition of inbound or outbound: fetches, delivers in order, wakes what is due.
//! - [`agenda`]: the durable timer's window in memory.
//! - [`conversation`]: applies what a conversation receives and decides its turns.
//! - [`tools`]: what an agent may do beside talking; [`quota`]: what a tenant may use in a month.
//! - [`sweep`]: applies changed retention to rows that are there.
//! - [`erasure`]: erasures of contacts, and how far they have come; [`removal`]: deletions of tenants;
//!   [`housekeeping`]: who sees to it that they go on.
//! - [`audit`]: who did what, when and why; [`security`]: what looks like an attack.
//! - [`promises`]: whether what is promised holds, by what is stored.
//! - [`account`]: the only sender: paces, journals, settles.
//! - [`publish`]: records on their way out; [`commit`]: writes a batch until it is written;
//!   [`metrics`]: what operators watch.

pub mod account;
pub mod agenda;
pub mod audit;
pub mod commit;
pub mod consent;
pub mod conversation;
pub mod erasure;
pub mod housekeeping;
pub mod identity;
pub mod ingress;
pub mod metrics;
pub mod partition;
pub mod ports;
pub mod promises;
pub mod publish;
pub mod quota;
pub mod reception;
pub mod removal;
pub mod security;
pub mod sweep;
pub mod system;
pub mod tenant;
pub mod tenants;
pub mod tools;
