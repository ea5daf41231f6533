//! What people call a contact: a phone number, a channel's id, or the engine's own id of it.
//!
//! | written | means |
//! |---|---|
//! | `+4915112345678` | the phone number, in E.164 form, on WhatsApp |
//! | `whatsapp:4915112345678` | the same, as the channel writes it: digits, with or without `+` |
//! | `whatsapp:US.13491208655302741918` | the business-scoped user id; with `.ENT.` in it, the one towards the parent business |
//! | 32 hexadecimal digits | the contact's own id, as conversations show it |
//!
//! The two forms of scoped ids are those of
//! <https://developers.facebook.com/documentation/business-messaging/whatsapp/business-scoped-user-ids/>.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::content::Address;
use crate::id::{ChannelKind, ContactId};
use crate::record::ingress::{Label, Phone};

/// Within an id that a channel gives towards a parent business.
const PARENT: &str = ".ENT.";

/// Why a text names no contact. It does not repeat the text, which may be a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this names no contact: write a phone number as +4915112345678, a channel's id as whatsapp:ID, or the \
     contact's own id of 32 hexadecimal digits"
)]
pub struct InvalidName;

/// A contact, as people name it; the module's table says how.
#[derive(Clone, PartialEq, Eq)]
pub enum ContactName {
    /// By the engine's own id.
    Id(ContactId),
    /// By an id of a channel: exactly one of the address is there.
    Met(ChannelKind, Address),
}

/// As metrics and logs may show it: without the number.
impl fmt::Debug for ContactName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "ContactName({id})"),
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
        let (kind, id) = match text.split_once(':') {
            Some((kind, id)) => (kind.parse().map_err(|_| InvalidName)?, id),
            // Without its country code it would be somebody else's.
            None if text.starts_with('+') => (ChannelKind::Whatsapp, text),
            None => return Err(InvalidName),
        };
        let digits = id.strip_prefix('+').unwrap_or(id);
        let mut address = Address::default();
        if digits.bytes().all(|byte| byte.is_ascii_digit()) {
            Phone::new(format!("+{digits}")).ok_or(InvalidName)?;
            address.phone = Some(digits.to_owned());
        } else if id.starts_with('+') {
            return Err(InvalidName);
        } else {
            let scoped = Some(Label::new(id).ok_or(InvalidName)?.into());
            match id.contains(PARENT) {
                true => address.parent_user_id = scoped,
                false => address.user_id = scoped,
            }
        }
        Ok(Self::Met(kind, address))
    }
}

impl fmt::Display for ContactName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Met(kind, Address { phone, user_id, parent_user_id, .. }) => {
                let id = phone.as_ref().or(user_id.as_ref()).or(parent_user_id.as_ref());
                write!(f, "{kind}:{}", id.map_or("", String::as_str))
            }
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
        // A channel's id that begins with + or holds digits alone is a phone number.
        let kind = ChannelKind::Whatsapp;
        let number = "[1-9][0-9]{1,14}";
        let id = "(?![+])(?![0-9]+$)[^\\u0000-\\u001f\\u007f-\\u009f]{1,256}";
        json_schema!({
            "type": "string",
            "pattern": format!("^([0-9a-f]{{32}}|[+]{number}|{kind}:([+]?{number}|{id}))$"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn met(text: &str) -> Address {
        match text.parse() {
            Ok(ContactName::Met(ChannelKind::Whatsapp, address)) => address,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn a_number_is_the_same_however_it_is_written() {
        for text in ["+4915112345678", "whatsapp:+4915112345678", "whatsapp:4915112345678"] {
            let phone = Address { phone: Some("4915112345678".into()), ..Address::default() };
            assert_eq!(met(text), phone, "{text}");
        }
    }

    #[test]
    fn a_scoped_id_is_the_persons_or_the_parents() {
        assert_eq!(met("whatsapp:US.134").user_id.as_deref(), Some("US.134"));
        assert_eq!(met("whatsapp:US.ENT.134").parent_user_id.as_deref(), Some("US.ENT.134"));
    }

    #[test]
    fn names_read_back_as_they_are_written() {
        for text in ["whatsapp:4915112345678", "whatsapp:US.134", "whatsapp:US.ENT.134", &"0a".repeat(16)] {
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
            "+49 151",
            "+",
            "whatsapp:",
            "whatsapp:+x",
            "sms:+49",
        ];
        for text in wrong.into_iter().chain(["whatsapp:1234567890123456", "0a0b"]) {
            assert_eq!(text.parse::<ContactName>(), Err(InvalidName), "{text:?}");
        }
        assert!(!format!("{:?}", "+4915112345678".parse::<ContactName>()).contains("4915"));
    }
}
