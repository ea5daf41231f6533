//! Harness for the tests of Heddle: everything a node needs, in memory, under paused time.
//!
//! # Layout
//! - [`tenant`]: builds a tenant's configuration.
//! - [`message`]: builders of customers' messages.
//! - [`ports`]: builds the ports of a node over a store in memory.
//! - [`site`]: the harness of a node: the state that survives it (disk, clock, master key, channel), and the nodes that
//!   start, die and come back over it.
//! - [`gauge`]: reads a node's metrics as Prometheus would.

#![expect(clippy::unwrap_used, reason = "a fault of the harness is a fault of the test")]

pub mod gauge;
pub mod message;
pub mod ports;
pub mod site;
pub mod tenant;

pub use message::said;
pub use ports::PortsBuilder;
pub use site::{Node, Site, SiteBuilder};
pub use tenant::TenantBuilder;

use heddle_schemas::time::Timestamp;

/// 2026-01-01T00:00:00Z: the time at which every site begins.
pub const BEGIN: Timestamp = Timestamp::from_secs(1_767_225_600);
