//! External view of a message: its sending, and the answer to its body.

use std::borrow::Cow;

use crate::fixture::THINGS;

/// Answer to a body: a status such as `200`, or the failure.
pub(crate) type Answer = Cow<'static, str>;

/// Sent message, identified by its conversation and number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sent {
    /// The conversation.
    pub(crate) conversation: u32,
    /// Its number in the conversation, from 0.
    pub(crate) number: u32,
}

impl Sent {
    /// Returns the thing that it asks about.
    pub(crate) fn thing(self) -> u32 {
        self.number % THINGS
    }
}
