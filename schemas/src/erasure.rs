//! Erasure of a contact: its progress, and the receipt that is left of it.
//!
//! An erasure goes through every conversation that the contact could have, each in its order with messages. The first
//! destroys the contact's key, and with it all that was sealed under it; each deletes its own rows. It is complete when
//! all have done so.

use std::collections::BTreeSet;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{AccountId, ChannelKind, ContactId, ConversationId, MessageKey, TenantId};
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
    /// The contact, where it is not the erasure's own: one that turned out to be the same person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact: Option<ContactId>,
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
        let parts = accounts.into_iter().map(|(channel, account)| Part {
            channel,
            account,
            contact: None,
            done: None,
        });
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

    /// Adds the conversations of contacts that turned out to be the same person. Returns whether any is new.
    pub fn extend(&mut self, contacts: &[ContactId]) -> bool {
        let own: Vec<_> = self.parts.iter().filter(|part| part.contact.is_none()).cloned().collect();
        let before = self.parts.len();
        for &contact in contacts.iter().filter(|contact| **contact != self.contact) {
            if self.parts.iter().all(|part| part.contact != Some(contact)) {
                self.parts.extend(own.iter().map(|part| Part {
                    contact: Some(contact),
                    done: None,
                    ..part.clone()
                }));
            }
        }
        self.parts.len() > before
    }

    /// The contacts that it erases.
    pub fn contacts(&self) -> impl Iterator<Item = ContactId> {
        let others: BTreeSet<_> = self.parts.iter().filter_map(|part| part.contact).collect();
        std::iter::once(self.contact).chain(others)
    }

    /// Returns the conversation of a part.
    #[must_use]
    pub fn conversation(&self, tenant: &TenantId, part: &Part) -> ConversationId {
        ConversationId {
            tenant: tenant.clone(),
            channel: part.channel,
            account: part.account.clone(),
            contact: part.contact.unwrap_or(self.contact),
        }
    }

    fn is_of(&self, part: &Part, conversation: &ConversationId) -> bool {
        let contact = part.contact.unwrap_or(self.contact);
        (part.channel, &part.account, contact)
            == (conversation.channel, &conversation.account, conversation.contact)
    }

    /// Returns the part of a conversation.
    #[must_use]
    pub fn part(&self, conversation: &ConversationId) -> Option<&Part> {
        self.parts.iter().find(|part| self.is_of(part, conversation))
    }

    /// Records that a part is done. Returns whether that changes anything: the first report of a part stays.
    pub fn done(&mut self, conversation: &ConversationId, done: Done) -> bool {
        let open = |part: &Part| self.is_of(part, conversation) && part.done.is_none();
        let Some(index) = self.parts.iter().position(open) else { return false };
        self.parts[index].done = Some(done);
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

    fn conversation(account: &str, contact: u8) -> ConversationId {
        let contact = ContactId::from_bytes([contact; 16]);
        format!("acme/whatsapp/{account}/{contact}").parse().unwrap()
    }

    fn erasure() -> Erasure {
        let accounts = ["1", "2"].map(|name| (ChannelKind::Whatsapp, account(name)));
        let (id, contact) = (MessageKey::from_bytes([1; 16]), ContactId::from_bytes([2; 16]));
        Erasure::new(id, contact, Timestamp::from_secs(1_000), accounts)
    }

    fn done(at: i64, rows: u64) -> Done {
        Done { at: Timestamp::from_secs(at), rows }
    }

    #[test]
    fn it_is_complete_when_every_part_is_and_says_each_only_once() {
        let mut erasure = erasure();
        assert!(erasure.done(&conversation("1", 2), done(1_001, 5)));
        assert!(!erasure.done(&conversation("1", 2), done(1_002, 0)), "a redelivery");
        assert!(!erasure.done(&conversation("3", 2), done(1_002, 0)), "no part of it");
        assert!(!erasure.done(&conversation("2", 3), done(1_002, 0)), "another contact");
        assert!(!erasure.is_complete());
        assert!(erasure.done(&conversation("2", 2), done(1_003, 2)));
        assert_eq!((erasure.completed_at, erasure.rows()), (Some(Timestamp::from_secs(1_003)), 7));
    }

    #[test]
    fn it_erases_every_contact_of_the_person() {
        let mut erasure = erasure();
        let other = ContactId::from_bytes([3; 16]);
        assert!(erasure.extend(&[erasure.contact, other]) && !erasure.extend(&[other]));
        assert_eq!(erasure.contacts().collect::<Vec<_>>(), [erasure.contact, other]);
        for (number, (account, contact)) in [("1", 2), ("2", 2), ("1", 3), ("2", 3)].iter().enumerate() {
            assert_eq!(erasure.is_complete(), number == 4);
            assert!(erasure.done(&conversation(account, *contact), done(1_001, 1)));
        }
        assert!(erasure.is_complete());
    }

    #[test]
    fn what_was_written_in_the_second_of_the_request_is_forgotten() {
        let now = Timestamp::from_micros(1_000_250_000);
        let erasure = Erasure::new(MessageKey::from_bytes([1; 16]), ContactId::from_bytes([2; 16]), now, []);
        assert!(erasure.at >= Timestamp::from_secs(1_000) && erasure.at >= now);
        assert!(erasure.at < Timestamp::from_secs(1_001), "and what came a second later is not");
    }
}
