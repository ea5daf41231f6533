//! The names of things: tenants, channels, accounts, contacts, conversations, turns, messages.
//!
//! None of them shows a phone number. A contact's id is random; channel message ids (a wamid holds
//! the phone number in base64) appear in records only as a keyed hash, [`MessageKey`].

mod channel;

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use self::channel::ChannelKind;

/// Fault of a text that is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {what}: {why}")]
pub struct InvalidId {
    what: &'static str,
    text: String,
    why: &'static str,
}

fn invalid(what: &'static str, text: &str, why: &'static str) -> InvalidId {
    // An id that is refused may be anything, so only its beginning is repeated.
    let text = text.chars().take(64).collect();
    InvalidId { what, text, why }
}

/// The longest text form: that of a conversation, three names and 32 digits with strokes between them.
const LONGEST: usize = 64 + 1 + 16 + 1 + 64 + 1 + 32;

/// An id as text, on the stack: a turn writes a dozen of them, and formatting costs more than copying.
struct Text {
    bytes: [u8; LONGEST],
    len: usize,
}

impl Text {
    /// Adds a part; what is too long for any id is cut, and then is none.
    fn add(&mut self, part: &str) {
        let end = (self.len + part.len()).min(LONGEST);
        let part = &part.as_bytes()[..end - self.len];
        self.bytes[self.len..end].copy_from_slice(part);
        self.len = end;
    }

    fn digits(&mut self, bytes: [u8; 16]) {
        let end = self.len + 32;
        if hex::encode_to_slice(bytes, &mut self.bytes[self.len..end]).is_ok() {
            self.len = end;
        }
    }

    fn of(write: impl FnOnce(&mut Self)) -> Self {
        let mut text = Self { bytes: [0; LONGEST], len: 0 };
        write(&mut text);
        text
    }

    fn as_str(&self) -> &str {
        // Every part is ASCII.
        std::str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }
}

fn add_account(text: &mut Text, tenant: &TenantId, channel: ChannelKind, account: &AccountId) {
    for part in [tenant.as_str(), "/", channel.as_str(), "/", account.as_str()] {
        text.add(part);
    }
}

/// Reads an id from a text without keeping the text.
struct Read<T>(PhantomData<T>);

impl<T: FromStr<Err = InvalidId>> Visitor<'_> for Read<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

/// Writes and serializes its text, deserializes through `FromStr`, and says so to JSON Schema.
macro_rules! as_text {
    ($type:ty, $name:literal, $pattern:literal) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(Text::of(|text| self.add_to(text)).as_str())
            }
        }
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(Text::of(|text| self.add_to(text)).as_str())
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(Read(PhantomData))
            }
        }
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern })
            }
        }
    };
}

/// Id of a tenant: 1 to 64 characters of `a-z`, `0-9`, `-` and `_`, beginning with one of `a-z` and `0-9`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(Arc<str>);

impl TenantId {
    /// The engine's own id: under it stands what is no tenant's and needs a key or a name all the same, such as the
    /// audit log of a whole installation. No tenant can have it.
    ///
    /// # Panics
    /// Never: it is an id.
    #[must_use]
    pub fn engine() -> Self {
        "heddle".parse().expect("it is an id")
    }

    fn add_to(&self, text: &mut Text) {
        text.add(&self.0);
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TenantId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || c == b'_';
        let bytes = text.as_bytes();
        if bytes.is_empty() || bytes.len() > 64 {
            return Err(invalid("tenant id", text, "it takes 1 to 64 characters"));
        }
        if !bytes.iter().all(|&c| allowed(c)) || matches!(bytes[0], b'-' | b'_') {
            return Err(invalid("tenant id", text, "it takes a-z, 0-9, - and _, beginning with a-z or 0-9"));
        }
        Ok(Self(text.into()))
    }
}

as_text!(TenantId, "TenantId", "^[a-z0-9][a-z0-9_-]{0,63}$");

/// The provider's id of a channel account (WhatsApp: `phone_number_id`): 1 to 64 of `A-Za-z0-9._:-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(Arc<str>);

impl AccountId {
    fn add_to(&self, text: &mut Text) {
        text.add(&self.0);
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AccountId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b':' | b'-');
        if text.is_empty() || text.len() > 64 || !text.bytes().all(allowed) {
            return Err(invalid("account id", text, "it takes 1 to 64 of A-Z, a-z, 0-9 and ._:-"));
        }
        Ok(Self(text.into()))
    }
}

as_text!(AccountId, "AccountId", "^[A-Za-z0-9._:-]{1,64}$");

/// Writes 128 bits as 32 lower-case hexadecimal digits, and reads them.
macro_rules! id128 {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u128);

        impl $name {
            /// The id of these 16 bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(u128::from_be_bytes(bytes))
            }

            /// Its 16 bytes.
            #[must_use]
            pub const fn to_bytes(self) -> [u8; 16] {
                self.0.to_be_bytes()
            }

            fn add_to(self, text: &mut Text) {
                text.digits(self.to_bytes());
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let mut bytes = [0_u8; 16];
                hex::decode_to_slice(text, &mut bytes)
                    .map_err(|_| invalid($what, text, "it takes 32 hexadecimal digits"))?;
                Ok(Self::from_bytes(bytes))
            }
        }

        as_text!($name, $what, "^[0-9a-f]{32}$");
    };
}

id128! {
    /// A contact of a tenant: random, immutable, found through the alias table.
    ContactId, "ContactId"
}

id128! {
    /// A piece of a tenant's quota that a node has taken: random.
    ChunkId, "ChunkId"
}

id128! {
    /// The keyed hash of a channel's message id under the tenant's key.
    MessageKey, "MessageKey"
}

id128! {
    /// A wave of a tenant's campaign: each person gets its message once.
    CampaignId, "CampaignId"
}

/// One thread of messages: a contact on one channel account of a tenant.
///
/// Text form: `tenant/channel/account/contact`. It never changes, whatever number or scoped id the
/// contact is met under.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConversationId {
    /// The tenant.
    pub tenant: TenantId,
    /// The kind of channel.
    pub channel: ChannelKind,
    /// The account it runs on.
    pub account: AccountId,
    /// The contact.
    pub contact: ContactId,
}

impl ConversationId {
    fn add_to(&self, text: &mut Text) {
        add_account(text, &self.tenant, self.channel, &self.account);
        text.add("/");
        self.contact.add_to(text);
    }

    /// The account that sends for this conversation.
    #[must_use]
    pub fn account(&self) -> AccountKey {
        AccountKey { tenant: self.tenant.clone(), channel: self.channel, account: self.account.clone() }
    }
}

impl FromStr for ConversationId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let mut parts = text.split('/');
        let (Some(tenant), Some(channel), Some(account), Some(contact), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(invalid("conversation id", text, "it takes tenant/channel/account/contact"));
        };
        Ok(Self {
            tenant: tenant.parse()?,
            channel: channel.parse()?,
            account: account.parse()?,
            contact: contact.parse()?,
        })
    }
}

as_text!(
    ConversationId,
    "ConversationId",
    "^[a-z0-9][a-z0-9_-]{0,63}/[a-z]+/[A-Za-z0-9._:-]{1,64}/[0-9a-f]{32}$"
);

/// A channel account of a tenant: the unit of pacing and of ordered sending.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountKey {
    /// The tenant.
    pub tenant: TenantId,
    /// The kind of channel.
    pub channel: ChannelKind,
    /// The provider's id of it.
    pub account: AccountId,
}

impl AccountKey {
    fn add_to(&self, text: &mut Text) {
        add_account(text, &self.tenant, self.channel, &self.account);
    }

    /// The conversation with `contact` on this account.
    #[must_use]
    pub fn conversation(&self, contact: ContactId) -> ConversationId {
        ConversationId {
            tenant: self.tenant.clone(),
            channel: self.channel,
            account: self.account.clone(),
            contact,
        }
    }
}

impl FromStr for AccountKey {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let mut parts = text.split('/');
        let (Some(tenant), Some(channel), Some(account), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(invalid("account key", text, "it takes tenant/channel/account"));
        };
        Ok(Self { tenant: tenant.parse()?, channel: channel.parse()?, account: account.parse()? })
    }
}

as_text!(AccountKey, "AccountKey", "^[a-z0-9][a-z0-9_-]{0,63}/[a-z]+/[A-Za-z0-9._:-]{1,64}$");

/// A turn: named after the first customer message it answers, so that deciding it again names it alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct TurnId(pub MessageKey);

impl fmt::Display for TurnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Cause of a message to send, or of what is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// A turn decided it.
    Turn(TurnId),
    /// A campaign asked for it.
    Campaign(CampaignId),
}

impl Cause {
    /// Returns the 16 bytes of the turn or campaign.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        match self {
            Self::Turn(turn) => turn.0.to_bytes(),
            Self::Campaign(campaign) => campaign.to_bytes(),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Turn(turn) => turn.fmt(f),
            Self::Campaign(campaign) => campaign.fmt(f),
        }
    }
}

/// Id of a message to send, named after its cause: `contact.cause.index`.
///
/// It travels to the provider as `biz_opaque_callback_data` and comes back in every status, so a status finds its
/// conversation without a look-up.
///
/// In text form and in row form the number at the end identifies the kind of cause: from 32,768 on it is a campaign. So
/// a message of a turn is written as it always was, and a build that knows turns only reads the id of a campaign's
/// message as one of a turn that it does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutboundId {
    /// The recipient.
    pub contact: ContactId,
    /// The cause.
    pub cause: Cause,
    /// Its place among the messages of that cause to that contact, below 32,768.
    pub index: u16,
}

/// The bit of the stored number that says that the cause is a campaign.
const OF_CAMPAIGN: u16 = 1 << 15;

impl OutboundId {
    /// Returns the id of a message that a turn decided.
    #[must_use]
    pub const fn of_turn(contact: ContactId, turn: TurnId, index: u16) -> Self {
        Self { contact, cause: Cause::Turn(turn), index }
    }

    /// Returns the id of a message that a campaign asked for.
    #[must_use]
    pub const fn of_campaign(contact: ContactId, campaign: CampaignId, index: u16) -> Self {
        Self { contact, cause: Cause::Campaign(campaign), index }
    }

    /// Returns the number that is stored and written: the index, and what the cause is.
    pub(crate) const fn number(self) -> u16 {
        match self.cause {
            Cause::Turn(_) => self.index & !OF_CAMPAIGN,
            Cause::Campaign(_) => self.index | OF_CAMPAIGN,
        }
    }

    /// Reads an id back from its parts.
    pub(crate) const fn of_parts(contact: ContactId, cause: [u8; 16], number: u16) -> Self {
        let cause = match number & OF_CAMPAIGN {
            0 => Cause::Turn(TurnId(MessageKey::from_bytes(cause))),
            _ => Cause::Campaign(CampaignId::from_bytes(cause)),
        };
        Self { contact, cause, index: number & !OF_CAMPAIGN }
    }
}

impl OutboundId {
    fn add_to(self, text: &mut Text) {
        self.contact.add_to(text);
        text.add(".");
        text.digits(self.cause.to_bytes());
        text.add(".");
        let number = self.number();
        let mut unit = 10_000;
        while unit > 0 {
            if number >= unit || unit == 1 {
                text.add(DIGITS[usize::from(number / unit % 10)]);
            }
            unit /= 10;
        }
    }
}

const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

impl FromStr for OutboundId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let shape = || invalid("outbound id", text, "it takes contact.cause.index");
        let mut parts = text.split('.');
        let (Some(contact), Some(cause), Some(number), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(shape());
        };
        let cause: MessageKey = cause.parse()?;
        Ok(Self::of_parts(contact.parse()?, cause.to_bytes(), number.parse().map_err(|_| shape())?))
    }
}

as_text!(OutboundId, "OutboundId", "^[0-9a-f]{32}\\.[0-9a-f]{32}\\.[0-9]{1,5}$");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_as_they_were_written() {
        let text = "acme/whatsapp/1122334455667/000102030405060708090a0b0c0d0e0f";
        let id: ConversationId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{text}\""));
        let outbound = OutboundId::of_turn(id.contact, TurnId(MessageKey::from_bytes([7; 16])), 3);
        assert_eq!(outbound.to_string(), format!("{}.{}.3", outbound.contact, "07".repeat(16)));
        for index in [0, 9, 10, 305, 32_767] {
            let outbound = OutboundId { index, ..outbound };
            assert!(outbound.to_string().ends_with(&format!(".{index}")));
            assert_eq!(outbound.to_string().parse::<OutboundId>().unwrap(), outbound);
        }
        for index in [0, 1, 32_767] {
            let outbound = OutboundId::of_campaign(id.contact, CampaignId::from_bytes([7; 16]), index);
            let text = format!("{}.{}.{}", outbound.contact, "07".repeat(16), index + 32_768);
            assert_eq!(outbound.to_string(), text);
            assert_eq!(text.parse::<OutboundId>().unwrap(), outbound);
        }
        let longest = format!("{0}/whatsapp/{0}/{1}", "x".repeat(64), id.contact);
        assert_eq!(longest.parse::<ConversationId>().unwrap().to_string(), longest);
    }

    #[test]
    fn a_tenant_id_with_a_separator_or_capital_is_refused() {
        for text in ["", "a/b", "Acme", "-a", "a b", &"x".repeat(65)] {
            assert!(text.parse::<TenantId>().is_err(), "{text:?}");
        }
    }
}
