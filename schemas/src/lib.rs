//! Types of what flows through Heddle, what it stores and how it is configured, and the ports it is built on.
//!
//! This crate does no IO and needs no runtime: everything here is a type, a pure function or a trait.
//!
//! # Layout
//! - [`hours`]: opening hours, and what is open when.
//! - [`id`]: tenants, contacts, conversations, turns, outbound messages.
//! - [`time`]: timestamps and durations as they are written in records and files.
//! - [`consent`]: what contacts consented to and opted out of.
//! - [`contact`]: what people call a contact.
//! - [`content`]: what a customer or an agent says, whatever the channel.
//! - [`record`]: what is in each topic, as JSON with a version; JSON Schema in [`record::schema`].
//! - [`topic`]: topics, partitions, offsets, and which partition a conversation or an account lives in.
//! - [`money`]: amounts and prices.
//! - [`ledger`]: which offsets of a partition are done.
//! - [`table`]: the tables of the state store, their descriptors, and the keys of their rows.
//! - [`retry`]: pauses between attempts.
//! - [`sealed`]: ciphertext as it is stored, and secrets that never print.
//! - [`tenant`], [`config`]: what an operator writes. [`retention`]: how long a tenant's data is kept.
//! - [`audit`]: the audit log's entries, and how they are chained and verified.
//! - [`zone`]: a tenant's time zone, its dates and months.
//! - [`erasure`]: how far the erasure of a contact has come; [`removal`]: the deletion of a tenant.
//! - [`language`]: languages whose word forms are known.
//! - [`lenient`]: stored names of which a later build may know more.
//! - [`promise`]: what is promised, and whether it holds.
//! - [`ports`]: what the engine needs of the outside, as traits.

pub mod audit;
pub mod config;
pub mod consent;
pub mod contact;
pub mod content;
pub mod erasure;
pub mod hours;
pub mod id;
pub mod language;
pub mod ledger;
pub mod lenient;
pub mod money;
pub mod ports;
pub mod promise;
pub mod record;
pub mod removal;
pub mod retention;
pub mod retry;
pub mod sealed;
pub mod table;
pub mod tenant;
pub mod time;
pub mod topic;
pub mod zone;
