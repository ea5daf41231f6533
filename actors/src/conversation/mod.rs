//! Conversation entity: applies the records it receives, in order, and decides its turns.
//!
//! One record, one batch: the history row, the marker of the message, the head, the agenda row, the outputs and the
//! consumed offset are committed together. A turn that needs no call outside and has no settle delay is decided in that
//! same batch. Any other is armed in the agenda, acknowledged, and runs from there ([`turn`]) while the conversation
//! goes on recording; its decision is a second batch.
//!
//! # Layout
//! Decisions, without IO:
//! - `machine` over [`head`], [`loop_guard`]: (state, event, now) to (state, effects).
//! - `draft`: changes of a decision; `publication`: their batch and its records.
//!
//! The actor, which performs effects:
//! - `entity`: messages, and the handling of records that fail.
//! - `apply`: records that customers and tenants cause; `reports`: delivery reports; [`request`]: messages that the
//!   tenant sends.
//! - `turns`: due agenda rows, beginnings and ends of turns; `put_off`: rows that fail; [`turn`]: one turn under way,
//!   with [`tools`].
//! - `outbox`: outputs that a crash left unpublished.
//! - `loaded`, `seen`, [`thread`]: stored state, read. `joined`: conversations of the same person under other contacts.
//! - `forget`, `leave`, `correct`, [`export`]: requests of people and tenants about their data.

mod apply;
pub mod contact_limits;
pub(crate) mod correct;
mod draft;
mod entity;
pub mod export;
mod fault;
mod forget;
pub mod head;
mod joined;
mod leave;
mod loaded;
pub mod loop_guard;
mod machine;
mod outbox;
mod publication;
mod put_off;
mod reports;
pub mod request;
mod seen;
mod split;
pub mod thread;
pub mod tools;
pub mod turn;
mod turns;

pub use self::entity::{ConversationMessage, Conversations};
pub use self::head::Head;
pub use self::reports::Delivery;
