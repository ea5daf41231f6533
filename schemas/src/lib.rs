//! Types of Heddle: its messages, its stored data, its configuration, and the ports that the engine is built on.
//!
//! This crate does no IO and needs no runtime: everything here is a type, a pure function or a trait.
//!
//! # Layout
//! - [`campaign`]: campaigns: their files, schedules, states and totals.
//! - [`hours`]: opening hours.
//! - [`identity`]: ids by which a contact is met, and contacts that turned out to be one person.
//! - [`id`]: tenants, contacts, conversations, turns, outbound messages.
//! - [`time`]: timestamps and durations as they are written in records and files.
//! - [`consent`]: consents and opt-outs of contacts.
//! - [`contact`]: names by which people refer to a contact.
//! - [`content`]: content of messages, whatever the channel.
//! - [`outgoing`]: content of messages of the business: text, templates, media, interactive.
//! - [`record`]: records of each topic, as JSON with a version; JSON Schema in [`record::schema`].
//! - [`lenient`]: stored names of which a later build may know more.
//! - [`topic`]: topics, partitions, offsets, and the partition of a conversation or an account.
//! - [`money`]: amounts and prices. [`network`]: networks of IP addresses.
//! - [`ledger`]: processed offsets of a partition.
//! - [`table`]: the tables of the state store, their descriptors, and the keys of their rows.
//! - [`retry`]: pauses between attempts.
//! - [`sealed`]: ciphertext as it is stored, and secrets that never print.
//! - [`tenant`], [`config`]: an operator's files; [`toml_file`] reads them with every fault at once. [`retention`]: times to live of a tenant's data.
//! - [`audience`]: lists of people to whom campaigns are sent.
//! - [`audit`]: the audit log's entries, and how they are chained and verified.
//! - [`zone`]: a tenant's time zone, its dates and months.
//! - [`erasure`]: the erasure of a contact; [`tenant_deletion`]: the deletion of a tenant.
//! - [`language`]: languages whose word forms are known.
//! - [`card`]: numbers of payment cards in texts; [`digits`]: digits of any script.
//! - [`phone`]: phone numbers, in the forms that people write and channels know.
//! - [`promise`]: the engine's promises, and the results of their verification.
//! - [`ports`]: what the engine needs of the outside, as traits.

pub mod audience;
pub mod audit;
pub mod campaign;
pub mod card;
pub mod config;
pub mod consent;
pub mod contact;
pub mod content;
pub mod digits;
pub mod erasure;
pub mod hours;
pub mod id;
pub mod identity;
pub mod language;
pub mod ledger;
pub mod lenient;
pub mod money;
pub mod network;
pub mod outgoing;
pub mod phone;
pub mod ports;
pub mod promise;
pub mod record;
pub mod retention;
pub mod retry;
pub mod sealed;
pub mod table;
pub mod tenant;
pub mod tenant_deletion;
pub mod time;
pub mod toml_file;
pub mod topic;
pub mod zone;
