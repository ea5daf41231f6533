//! Journal of one send, as it is stored.

use heddle_schemas::consent::Category;
use heddle_schemas::record::outbound::{Purpose, SendCommand};
use heddle_schemas::time::Timestamp;
use serde::{Deserialize, Serialize};

/// The journal of one send, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Journal {
    /// It is being called, or was when its owner died.
    Attempting {
        /// Number of the call, from 1.
        attempt: u32,
        /// Times that it was sent again since the outcome was unknown.
        #[serde(default, skip_serializing_if = "is_zero")]
        repeated: u32,
    },
    /// The call was refused, or did not leave, and will be repeated.
    Refused {
        /// Number of calls that were refused.
        attempts: u32,
    },
    /// The channel took it when it was called.
    Taken(Taken),
    /// The channel took it, as a status says.
    Sent,
    /// The channel will not take it.
    Failed {
        /// The channel's code; below zero, that of a [`heddle_schemas::record::inbound::Withheld`].
        code: i64,
    },
    /// The outcome is unknown, and policy gave it up.
    GivenUp,
}

impl Journal {
    /// Reads an entry. One that only a later build can read says that the channel may have been called.
    pub(crate) fn read(stored: &[u8]) -> Self {
        serde_json::from_slice(stored).unwrap_or(Self::Attempting { attempt: 1, repeated: 0 })
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Conditions under which a message was sent: what shows later that it was allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// When it was asked whether it may go, right before the call.
    pub at: Timestamp,
    /// Category for which it needed the contact's consent; a reply needs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<Category>,
    /// Until when it was allowed, where that ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_until: Option<Timestamp>,
    /// The channel holds it back until it has judged its quality: it is not sent yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
}

impl Taken {
    /// Returns the conditions of a message that is checked at this time.
    #[must_use]
    pub fn of(command: &SendCommand, at: Timestamp) -> Self {
        let SendCommand { purpose, category, window_until, kind, .. } = command;
        let category = match purpose {
            Purpose::Reply => None,
            Purpose::Campaign | Purpose::Notice => Some(category.unwrap_or(Category::Marketing)),
        };
        // A template is allowed at any time, whatever the record says.
        let window_until = window_until.filter(|_| kind.is_free_form());
        Self { at, category, window_until, held: false }
    }
}
