//! Intake: turns what channels and connectors say into durable records of conversations.
//!
//! # Layout
//! - [`webhook`]: a channel's events become records before the channel gets its answer.
//! - [`gate`]: counts for how long intake has accepted webhooks, and what each account received.
//! - [`identity`]: resolves an address to a contact.
//! - [`consent`]: records what contacts consented to and opted out of.
//! - [`connector`]: the same intake for what third-party connectors publish.

pub mod connector;
pub mod consent;
pub mod gate;
pub mod identity;
pub mod webhook;
