//! What is seen of a message from outside: that it was sent, and what its body was answered.

use std::borrow::Cow;

use crate::cast::THINGS;

/// Answer to a body: a status such as `200`, or what happened instead.
pub(crate) type Answer = Cow<'static, str>;

/// A message of this number in this conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Which conversation.
    pub(crate) conversation: u32,
    /// Its number there, from 0.
    pub(crate) number: u32,
}

impl Sent {
    /// What it asks about.
    pub(crate) fn thing(self) -> u32 {
        self.number % THINGS
    }
}
