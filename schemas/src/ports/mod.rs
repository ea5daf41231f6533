//! Ports: what the engine needs of the outside, one trait a file.
//!
//! Each has several implementations that one conformance suite holds to the same contract: [`log`], [`state`],
//! [`keys`], [`knowledge`], [`responder`], [`channel`], [`calendar`], [`clock`]. [`update`] is the conditional update
//! over any [`state`].

pub mod calendar;
pub mod channel;
pub mod clock;
pub mod keys;
pub mod knowledge;
pub mod log;
pub mod responder;
pub mod state;
pub mod update;
