//! How Heddle reaches the outside: logs, state stores, keys, knowledge, responders and channels.
//!
//! # Layout
//! - [`channels`]: messaging channels, a folder each.
//! - [`clock`]: the machine's clock.
//! - [`embedded`]: log and state of one process, in files.
//! - [`keys`]: envelope encryption over any state store.
//! - [`memory`]: every port in memory, with injectable faults, for tests and the seeded simulation.

pub mod channels;
pub mod clock;
pub mod embedded;
pub mod keys;
pub mod memory;
