//! Intake: turns events of channels and connectors into durable records of conversations.
//!
//! # Layout
//! - [`webhook`]: a channel's events become records before the channel gets its answer.
//! - [`gate`]: measures the time for which intake has accepted webhooks, and counts each account's messages.
//! - [`identity`]: resolves an address to a contact.
//! - [`consent`]: records consents and opt-outs of contacts.
//! - [`connector`]: the same intake for records of third-party connectors.

pub mod connector;
pub mod consent;
pub mod gate;
pub mod identity;
pub mod webhook;
