//! How far the erasure of a contact has come, and what is left of it: a receipt.
//!
//! An erasure goes through every conversation that the contact could have, each in its order with messages. The first
//! destroys the contact's key, and with it all that was sealed under it; each removes its own rows. It is complete when
//! all have done so.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{AccountId, ChannelKind, ContactId, MessageKey};
use crate::time::Timestamp;

/// The longest that an erasure may take: what privacy policies promise.
pub const DEADLINE: Duration = Duration::from_secs(30 * 86_400);

/// An erasure of a contact, as it is stored and told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Erasure {
    /// Its id.
    pub id: MessageKey,
    /// Who is forgotten: the internal id, which tells nobody a number.
    pub contact: ContactId,
    /// When it was asked for, microseconds since 1970.
    pub requested_at: Timestamp,
    /// Until when messages are forgotten: what the channel stamped no later does not come back.
    pub at: Timestamp,
    /// When it has to be complete.
    pub deadline: Timestamp,
    /// Its parts: a conversation for each account of the tenant.
    pub parts: Vec<Part>,
    /// When the last part was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Timestamp>,
}

/// What an erasure does in one conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Part {
    /// On which channel.
    pub channel: ChannelKind,
    /// On which account.
    pub account: AccountId,
    /// What was done, when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<Done>,
}

/// What was done in one conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Done {
    /// When.
    pub at: Timestamp,
    /// How many rows were removed.
    pub rows: u64,
}

impl Erasure {
    /// One that is asked for now, over these accounts.
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

    /// Whether all of it is done.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.completed_at.is_some()
    }

    /// Whether it is not complete though it had to be by now.
    #[must_use]
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        !self.is_complete() && now > self.deadline
    }

    /// The part of an account.
    #[must_use]
    pub fn part(&self, channel: ChannelKind, account: &AccountId) -> Option<&Part> {
        self.parts.iter().find(|part| part.channel == channel && part.account == *account)
    }

    /// A part is done. Returns whether that changes anything: what is done stays as it was told first.
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

    /// How many rows were removed so far.
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
