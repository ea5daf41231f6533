//! Content of customers' and agents' messages, whatever the channel.
//!
//! Outside the engine's memory content is always sealed; these types are the plaintext.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::card;
use crate::id::AccountId;

/// The ids by which a contact is reached and recognised on a channel; at least one is there.
///
/// A channel has some of them, by its profile. WhatsApp: `phone` is the `wa_id`; `user_id` and `parent_user_id` are
/// business-scoped (<https://developers.facebook.com/docs/whatsapp/cloud-api/>, business-scoped user ids, 2026).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Address {
    /// The phone number in international form, digits only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
    /// The id that the channel gives this person towards this business.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// The same towards the business's parent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_user_id: Option<String>,
    /// The id of this person on one account of the channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat: Option<Box<ChatId>>,
    /// The name the person shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// An id that is valid on one account of a channel: a page-scoped id, a chat id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ChatId {
    /// The account that the channel gave it towards.
    pub account: AccountId,
    /// The id.
    pub id: String,
}

impl Address {
    /// Returns its ids as texts, in no order that decides anything.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        let chat = self.chat.as_ref().map(|chat| &chat.id);
        let ids = [self.phone.as_ref(), self.user_id.as_ref(), self.parent_user_id.as_ref(), chat];
        ids.into_iter().flatten().map(String::as_str)
    }

    /// Returns whether [`Address::update`] with `newer` would change nothing.
    #[must_use]
    pub fn holds(&self, newer: &Self) -> bool {
        let texts = [
            (&self.phone, &newer.phone),
            (&self.user_id, &newer.user_id),
            (&self.parent_user_id, &newer.parent_user_id),
            (&self.name, &newer.name),
        ];
        texts.into_iter().all(|(mine, new)| new.is_none() || mine == new)
            && (newer.chat.is_none() || self.chat == newer.chat)
    }

    /// Takes over what `newer` knows: a number or an id is replaced, never forgotten.
    pub fn update(&mut self, newer: &Self) {
        for (mine, new) in [
            (&mut self.phone, &newer.phone),
            (&mut self.user_id, &newer.user_id),
            (&mut self.parent_user_id, &newer.parent_user_id),
            (&mut self.name, &newer.name),
        ] {
            if new.is_some() {
                mine.clone_from(new);
            }
        }
        if newer.chat.is_some() {
            self.chat.clone_from(&newer.chat);
        }
    }
}

/// The kind of a media message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MediaKind {
    /// A picture.
    Image,
    /// A film.
    Video,
    /// A sound file.
    Audio,
    /// A recorded voice message.
    Voice,
    /// A file.
    Document,
    /// A sticker.
    Sticker,
}

/// Content of one message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Content {
    /// Text.
    Text {
        /// The text.
        body: String,
    },
    /// A media file, by reference.
    Media {
        /// The kind.
        kind: MediaKind,
        /// The channel's id of the file.
        id: String,
        /// Its MIME type.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mime_type: Option<String>,
        /// SHA-256 of the file, as the channel writes it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sha256: Option<String>,
        /// The text beside it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        caption: Option<String>,
        /// The file's name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        filename: Option<String>,
    },
    /// A place.
    Location {
        /// Degrees north.
        latitude: f64,
        /// Degrees east.
        longitude: f64,
        /// Its name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Its address.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<String>,
    },
    /// Contact cards, as the channel wrote them.
    Contacts {
        /// The cards.
        cards: Value,
    },
    /// A tap on a template's quick-reply button.
    Button {
        /// The button's text.
        text: String,
        /// Its payload.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        payload: Option<String>,
    },
    /// An answer to an interactive message.
    Interactive {
        /// `button_reply`, `list_reply` or `nfm_reply` (a flow), or one not known yet.
        kind: String,
        /// The id of what was chosen.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// Its title, or a flow's body.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        title: Option<String>,
        /// A flow's answers, as the channel wrote them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        response: Option<Value>,
    },
    /// An order from a catalogue, as the channel wrote it.
    Order {
        /// The order.
        order: Value,
        /// The text beside it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<String>,
    },
    /// A notice of the channel, such as a changed number.
    System {
        /// `user_changed_number`, `identity_change` and others.
        kind: String,
        /// The channel's text about it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        body: Option<String>,
    },
    /// The channel could not hand it over.
    Unsupported {
        /// The channel's errors about it.
        #[serde(default)]
        errors: Value,
    },
    /// A type this build does not know, kept as it came.
    Unknown {
        /// The channel's name of the type.
        kind: String,
        /// The message as it came.
        raw: Value,
    },
}

/// Request that a message makes to the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks<'a> {
    /// An answer to this text.
    Answer(&'a str),
    /// An answer, but there is no text to answer from: the fallback.
    Fallback,
    /// Nothing; it is recorded.
    Nothing,
}

impl Content {
    /// Returns the request that the message makes to the agent: only customers' own text is answered from documents.
    #[must_use]
    pub fn asks(&self) -> Asks<'_> {
        let text = match self {
            Self::Text { body } => Some(body),
            Self::Media { caption, .. } => caption.as_ref(),
            Self::Button { text, .. } => Some(text),
            Self::Interactive { title, .. } => title.as_ref(),
            Self::Order { text, .. } => text.as_ref(),
            Self::Location { .. } | Self::Contacts { .. } => None,
            Self::System { .. } | Self::Unsupported { .. } | Self::Unknown { .. } => return Asks::Nothing,
        };
        match text.map(|text| text.trim()) {
            Some(text) if !text.is_empty() => Asks::Answer(text),
            _ => Asks::Fallback,
        }
    }
}

impl Content {
    /// Returns the text that the person typed; `None` for what was chosen or tapped, whose words are another's.
    #[must_use]
    pub fn typed(&self) -> Option<&str> {
        match self {
            Self::Text { body } => Some(body),
            Self::Media { caption, .. } => caption.as_deref(),
            Self::Order { text, .. } => text.as_deref(),
            _ => None,
        }
    }

    /// Replaces the numbers of payment cards in what the person wrote. Cards of contacts and places hold none.
    pub fn redact_cards(&mut self) {
        let text = |text: &mut String| {
            if let Cow::Owned(redacted) = card::redact(text) {
                *text = redacted;
            }
        };
        match self {
            Self::Text { body } => text(body),
            Self::Media { caption, filename, .. } => caption.iter_mut().chain(filename).for_each(text),
            Self::Interactive { title, response, .. } => {
                title.iter_mut().for_each(text);
                response.iter_mut().for_each(card::redact_json);
            }
            Self::Order { text: note, order } => {
                note.iter_mut().for_each(text);
                card::redact_json(order);
            }
            Self::Unknown { raw, .. } => card::redact_json(raw),
            Self::Button { .. }
            | Self::Location { .. }
            | Self::Contacts { .. }
            | Self::System { .. }
            | Self::Unsupported { .. } => {}
        }
    }

    /// Returns whether it refers to a file of the channel, or is of a type that may.
    #[must_use]
    pub fn may_refer_to_file(&self) -> bool {
        matches!(self, Self::Media { .. } | Self::Unknown { .. })
    }
}

/// References of a message: the message it replies to, and its origin.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Context {
    /// The channel's id of the message it replies to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replies_to: Option<String>,
    /// True where it was forwarded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forwarded: bool,
    /// The advertisement it came from, as the channel wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub referral: Option<Value>,
}

impl Context {
    /// Returns whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_with_a_caption_asks_what_the_caption_asks() {
        let picture = |caption: Option<&str>| Content::Media {
            kind: MediaKind::Image,
            id: "1".into(),
            mime_type: None,
            sha256: None,
            caption: caption.map(Into::into),
            filename: None,
        };
        assert_eq!(picture(Some("how much?")).asks(), Asks::Answer("how much?"));
        assert_eq!(picture(None).asks(), Asks::Fallback);
        assert_eq!(picture(Some("  ")).asks(), Asks::Fallback);
    }

    #[test]
    fn a_system_notice_asks_nothing() {
        let notice = Content::System { kind: "identity_change".into(), body: Some("?".into()) };
        assert_eq!(notice.asks(), Asks::Nothing);
    }

    #[test]
    fn an_update_of_an_address_forgets_nothing() {
        let mut address = Address { phone: Some("16505551234".into()), ..Address::default() };
        address.update(&Address { user_id: Some("US.1".into()), ..Address::default() });
        assert_eq!(address.phone.as_deref(), Some("16505551234"));
        assert_eq!(address.user_id.as_deref(), Some("US.1"));
    }
}
