//! Erasure of a contact: its progress, and the receipt that is left of it.
//!
//! An erasure goes through every conversation that the contact could have, each in its order with messages. The first
//! destroys the contact's key, and with it all that was sealed under it; each deletes its own rows. It is complete when
//! all have done so.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{AccountId, ChannelKind, ContactId, MessageKey};
use crate::time::Timestamp;

/// The longest that an erasure may take: what privacy policies promise.
pub const DEADLINE: Duration = Duration::from_secs(30 * 86_400);

/// Erasure of a contact, as it is stored and shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Erasure {
    /// Its id.
    pub id: MessageKey,
    /// The contact, by the internal id, which reveals no phone number.
    pub contact: ContactId,
    /// Time of the request, microseconds since 1970.
    pub requested_at: Timestamp,
    /// End of the erased time: messages that the channel stamped no later do not come back.
    pub at: Timestamp,
    /// Time by which it has to be complete.
    pub deadline: Timestamp,
    /// Its parts: a conversation for each account of the tenant.
    pub parts: Vec<Part>,
    /// Time at which the last part was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Timestamp>,
}

/// Part of an erasure in one conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Part {
    /// The channel.
    pub channel: ChannelKind,
    /// The account.
    pub account: AccountId,
    /// The result, once it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<Done>,
}

/// Result of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Done {
    /// The time.
    pub at: Timestamp,
    /// The number of rows that were deleted.
    pub rows: u64,
}

impl Erasure {
    /// Creates an erasure that is requested now, over these accounts.
    #[must_use]
    pub fn new(
        id: MessageKey,
        contact: ContactId,
        now: Timestamp,
        accounts: impl IntoIterator<Item = (ChannelKind, AccountId)>,
    ) -> Self {
        // Channels stamp in whole seconds: what was written in the second of the request counts as before it.
        let second = 1_000_000;
        let at = Timestamp::from_micros(now.as_micros() - now.as_micros().rem_euclid(second) + second - 1);
        let parts = accounts.into_iter().map(|(channel, account)| Part { channel, account, done: None });
        Self {
            id,
            contact,
            requested_at: now,
            at,
            deadline: now.after(DEADLINE),
            parts: parts.collect(),
            completed_at: None,
        }
    }

    /// Returns whether all parts are done.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.completed_at.is_some()
    }

    /// Returns whether the deadline has passed before it is complete.
    #[must_use]
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        !self.is_complete() && now > self.deadline
    }

    /// Returns the part of an account.
    #[must_use]
    pub fn part(&self, channel: ChannelKind, account: &AccountId) -> Option<&Part> {
        self.parts.iter().find(|part| part.channel == channel && part.account == *account)
    }

    /// Records that a part is done. Returns whether that changes anything: the first report of a part stays.
    pub fn done(&mut self, channel: ChannelKind, account: &AccountId, done: Done) -> bool {
        let open =
            |part: &&mut Part| part.channel == channel && part.account == *account && part.done.is_none();
        let Some(part) = self.parts.iter_mut().find(open) else { return false };
        part.done = Some(done);
        if self.parts.iter().all(|part| part.done.is_some()) {
            self.completed_at = Some(done.at);
        }
        true
    }

    /// Returns the number of rows deleted so far.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.parts.iter().filter_map(|part| part.done).map(|done| done.rows).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(name: &str) -> AccountId {
        name.parse().unwrap()
    }

    #[test]
    fn it_is_complete_when_every_part_is_and_says_each_only_once() {
        let accounts = ["1", "2"].map(|name| (ChannelKind::Whatsapp, account(name)));
        let now = Timestamp::from_secs(1_000);
        let mut erasure =
            Erasure::new(MessageKey::from_bytes([1; 16]), ContactId::from_bytes([2; 16]), now, accounts);
        let done = |at, rows| Done { at: Timestamp::from_secs(at), rows };
        assert!(erasure.done(ChannelKind::Whatsapp, &account("1"), done(1_001, 5)));
        assert!(!erasure.done(ChannelKind::Whatsapp, &account("1"), done(1_002, 0)), "a redelivery");
        assert!(!erasure.done(ChannelKind::Whatsapp, &account("3"), done(1_002, 0)), "no part of it");
        assert!(!erasure.is_complete());
        assert!(erasure.done(ChannelKind::Whatsapp, &account("2"), done(1_003, 2)));
        assert_eq!((erasure.completed_at, erasure.rows()), (Some(Timestamp::from_secs(1_003)), 7));
    }

    #[test]
    fn what_was_written_in_the_second_of_the_request_is_forgotten() {
        let now = Timestamp::from_micros(1_000_250_000);
        let erasure = Erasure::new(MessageKey::from_bytes([1; 16]), ContactId::from_bytes([2; 16]), now, []);
        assert!(erasure.at >= Timestamp::from_secs(1_000) && erasure.at >= now);
        assert!(erasure.at < Timestamp::from_secs(1_001), "and what came a second later is not");
    }
}
