//! Builders of customers' messages.

use heddle_schemas::content::{Address, Content, Context};
use heddle_schemas::ports::channel::{Act, ChannelEvent, ReceivedMessage};
use heddle_schemas::time::Timestamp;

/// Returns the address of a person with a phone number, named Ann.
#[must_use]
pub fn phone(number: &str) -> Address {
    Address { phone: Some(number.into()), name: Some("Ann".into()), ..Address::default() }
}

/// Returns the address of a person with a user id alone.
#[must_use]
pub fn user(id: &str) -> Address {
    Address { user_id: Some(id.into()), ..Address::default() }
}

/// Returns a text message to an account.
#[must_use]
pub fn said(account: &str, from: Address, id: &str, body: &str, sent_at: Timestamp) -> ChannelEvent {
    acted(account, from, id, Act::Say(Content::Text { body: body.into() }), sent_at)
}

/// Any act of a customer towards an account.
#[must_use]
pub fn acted(account: &str, from: Address, id: &str, act: Act, sent_at: Timestamp) -> ChannelEvent {
    let account = account.parse().unwrap();
    ChannelEvent::Message(ReceivedMessage {
        account,
        id: id.into(),
        from,
        sent_at,
        act,
        context: Context::default(),
    })
}
