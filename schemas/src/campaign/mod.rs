//! Campaigns: one template to many people, each at most once.
//!
//! # Layout
//! - [`definition`]: a campaign's file, and every fault of it.
//! - [`parameters`]: values of a template's parameters for one recipient.
//! - [`schedule`]: the moment at which a recipient's message is due: time zones, quiet hours, latest start.
//! - [`variant`]: assignment of recipients to variants and to the hold-out group.
//! - [`state`]: states of a campaign and the steps between them.
//! - [`recipient`]: states of one recipient, which only rise.
//! - [`stop`]: shares of failures and opt-outs at which a campaign stops.
//! - [`totals`]: numbers of recipients by state.

pub mod definition;
pub mod parameters;
pub mod recipient;
pub mod schedule;
pub mod state;
pub mod stop;
pub mod totals;
pub mod variant;

pub use self::definition::Campaign;
