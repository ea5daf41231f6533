//! A contact as people name it: a phone number, a channel's id, or the engine's own id.
//!
//! | written | means |
//! |---|---|
//! | `+4915112345678`, `+49 151 1234-5678`, `0049 ...` | the phone number, in any common form with its country code |
//! | `whatsapp:4915112345678` | the same, as the channel writes it: digits, with or without `+` |
//! | `whatsapp:US.13491208655302741918` | the business-scoped user id; with `.ENT.` in it, the one towards the parent business |
//! | `CHANNEL:ACCOUNT/ID` | an id that the channel gives towards one account, such as a chat id |
//! | 32 hexadecimal digits | the contact's own id, as conversations show it |
//!
//! Digits after a channel's name are a phone number only where that channel has phone numbers, so an id is read with
//! the channel's profile: [`ContactName::address`]. The two forms of WhatsApp's scoped ids are those of
//! <https://developers.facebook.com/documentation/business-messaging/whatsapp/business-scoped-user-ids/>.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::content::Address;
use crate::id::{ChannelKind, ContactId};
use crate::phone::PhoneNumber;
use crate::ports::channel::ChannelProfile;
use crate::ports::channel::profile::IdKind;

/// Characters of a name at most.
const NAME_CHARS: usize = 512;

/// Fault of a text that names no contact. It does not repeat the text, which may be a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this names no contact: write a phone number with its country code as +4915112345678, a channel's id as CHANNEL:ID (such as \
     whatsapp:4915112345678) or, where the id is one account's, as CHANNEL:ACCOUNT/ID, or the contact's own id of 32 \
     hexadecimal digits"
)]
pub struct InvalidName;

/// A contact, as people name it; the module's table says how.
#[derive(Clone, PartialEq, Eq)]
pub enum ContactName {
    /// The engine's own id.
    Id(ContactId),
    /// A phone number, whatever channel has it.
    Phone(PhoneNumber),
    /// An id of a channel, as it was written.
    Met(ChannelKind, String),
}

impl ContactName {
    /// The channel and the address that it names; `None` for the engine's own id.
    ///
    /// # Errors
    /// [`InvalidName`] where the channel has no such ids, or this build no such channel.
    pub fn address<'a>(
        &self,
        profiles: impl IntoIterator<Item = &'a ChannelProfile>,
    ) -> Result<Option<(ChannelKind, Address)>, InvalidName> {
        let mut profiles = profiles.into_iter();
        let (profile, id) = match self {
            Self::Id(_) => return Ok(None),
            // A number has the same alias on each channel that has numbers.
            Self::Phone(number) => (profiles.find(|profile| profile.has(IdKind::Phone)), number.digits()),
            Self::Met(kind, id) => (profiles.find(|profile| profile.kind == *kind), id.as_str()),
        };
        let profile = profile.ok_or(InvalidName)?;
        let address = profile.read_id(id).ok_or(InvalidName)?;
        Ok(Some((profile.kind, address)))
    }
}

/// As metrics and logs may show it: without the number.
impl fmt::Debug for ContactName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "ContactName({id})"),
            Self::Phone(_) => f.write_str("ContactName(+..)"),
            Self::Met(kind, _) => write!(f, "ContactName({kind}:..)"),
        }
    }
}

impl FromStr for ContactName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if let Ok(id) = text.parse() {
            return Ok(Self::Id(id));
        }
        // Without its country code a number would be somebody else's.
        if let Some(number) = PhoneNumber::international(text) {
            return Ok(Self::Phone(number));
        }
        let (kind, id) = text.split_once(':').ok_or(InvalidName)?;
        if id.is_empty() || text.chars().nth(NAME_CHARS).is_some() {
            return Err(InvalidName);
        }
        Ok(Self::Met(kind.parse().map_err(|_| InvalidName)?, id.to_owned()))
    }
}

impl fmt::Display for ContactName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Phone(number) => number.fmt(f),
            Self::Met(kind, id) => write!(f, "{kind}:{id}"),
        }
    }
}

impl Serialize for ContactName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ContactName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for ContactName {
    fn schema_name() -> Cow<'static, str> {
        "ContactName".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // Which ids a channel has is in its profile; the form is the same for all.
        let kinds: Vec<_> = ChannelKind::ALL.iter().map(|kind| kind.as_str()).collect();
        let kinds = kinds.join("|");
        json_schema!({
            "type": "string",
            "maxLength": NAME_CHARS,
            "pattern": format!(r"^\s*([0-9a-f]{{32}}|([+]|00)[ ().\-/]*[1-9]([ ().\-/]*[0-9]){{1,14}}[ ().\-/]*|({kinds}):[\s\S]+)\s*$"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::channel::profile;

    static NUMBERS: ChannelProfile = profile::example(&[IdKind::User, IdKind::Parent, IdKind::Phone]);

    fn read(text: &str) -> Result<Option<(ChannelKind, Address)>, InvalidName> {
        text.parse::<ContactName>()?.address([&NUMBERS])
    }

    fn met(text: &str) -> Address {
        match read(text) {
            Ok(Some((ChannelKind::Whatsapp, address))) => address,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn a_number_is_the_same_however_it_is_written() {
        for text in [
            "+4915112345678",
            "whatsapp:+4915112345678",
            "whatsapp:4915112345678",
            "+49 151 1234-5678",
            "0049 (151) 12345678",
            "whatsapp:+49 151 12345678",
        ] {
            let phone = Address { phone: Some("4915112345678".into()), ..Address::default() };
            assert_eq!(met(text), phone, "{text}");
        }
    }

    #[test]
    fn a_scoped_id_is_the_persons_or_the_parents() {
        assert_eq!(met("whatsapp:US.134").user_id.as_deref(), Some("US.134"));
        assert_eq!(met("whatsapp:US.ENT.134").parent_user_id.as_deref(), Some("US.ENT.134"));
        assert_eq!(read(&"0a".repeat(16)), Ok(None));
    }

    #[test]
    fn names_read_back_as_they_are_written() {
        for text in ["+4915112345678", "whatsapp:4915112345678", "whatsapp:US.134", &"0a".repeat(16)] {
            assert_eq!(text.parse::<ContactName>().unwrap().to_string(), *text);
        }
    }

    #[test]
    fn what_could_be_somebody_else_is_refused_and_not_repeated() {
        let wrong = [
            "",
            "015112345678",
            "4915112345678",
            "+0151",
            "+49 151x",
            "+",
            "whatsapp:",
            "whatsapp:+x",
            "sms:+49",
        ];
        for text in wrong.into_iter().chain(["whatsapp:1234567890123456", "0a0b"]) {
            assert_eq!(read(text), Err(InvalidName), "{text:?}");
        }
        assert_eq!("+4915112345678".parse::<ContactName>().unwrap().address([]), Err(InvalidName));
        for text in ["+4915112345678", "whatsapp:4915112345678"] {
            assert!(!format!("{:?}", text.parse::<ContactName>()).contains("4915"));
        }
    }
}
