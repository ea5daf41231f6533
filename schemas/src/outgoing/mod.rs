//! Content of a message of the business, whatever the channel: text, template, media, interactive, location, reaction.
//!
//! The contract: a text is stored as it always was, `{"type":"text","body":...}`. Every other kind raises the version
//! of the record that holds it ([`crate::record::outbound`]). A channel says in its profile which kinds it carries and
//! within which [`Limits`]; [`OutgoingContent::faults`] checks a content against them, purely, and names each field.
//!
//! # Layout
//! - [`template`]: approved templates and their parameters. [`interactive`]: buttons, lists, links. [`media`]: files.
//! - [`limits`]: lengths and numbers, and the check of each kind.

pub mod interactive;
pub mod limits;
pub mod media;
pub mod template;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::interactive::{Action, Interactive, InteractiveHeader, ListRow, ListSection, ReplyButton};
pub use self::limits::{ContentFault, ContentProfile, Limits};
pub use self::media::{File, FileName, OutgoingMedia};
pub use self::template::{Card, Header, Parameter, ProductSection, Template, TemplateButton};

/// Content of a message of the business.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum OutgoingContent {
    /// Text.
    Text {
        /// The text.
        body: String,
    },
    /// An approved template; the only kind that may be sent outside of the reply window.
    Template(Template),
    /// A file.
    Media(OutgoingMedia),
    /// A text with buttons, a list or a link.
    Interactive(Interactive),
    /// A place.
    Location(Location),
    /// A reaction to a message.
    Reaction(Reaction),
}

/// A place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Location {
    /// Degrees north.
    pub latitude: f64,
    /// Degrees east.
    pub longitude: f64,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// A reaction to a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reaction {
    /// The channel's id of the message.
    pub message: String,
    /// The emoji; none takes the reaction back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emoji: Option<String>,
}

/// Kind of a content.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// [`OutgoingContent::Text`].
    #[default]
    Text,
    /// [`OutgoingContent::Template`].
    Template,
    /// [`OutgoingContent::Media`].
    Media,
    /// [`OutgoingContent::Interactive`].
    Interactive,
    /// [`OutgoingContent::Location`].
    Location,
    /// [`OutgoingContent::Reaction`].
    Reaction,
}

impl Kind {
    /// All of them.
    pub const ALL: &'static [Self] =
        &[Self::Text, Self::Template, Self::Media, Self::Interactive, Self::Location, Self::Reaction];

    /// Its name, as it stands in records, answers and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Template => "template",
            Self::Media => "media",
            Self::Interactive => "interactive",
            Self::Location => "location",
            Self::Reaction => "reaction",
        }
    }

    /// Returns whether it is a text, the kind that every build reads.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
    pub(crate) fn is_text(&self) -> bool {
        *self == Self::Text
    }

    /// Returns whether it may be sent only within the reply window of a channel that has one.
    #[must_use]
    pub fn is_free_form(self) -> bool {
        self != Self::Template
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl OutgoingContent {
    /// A text.
    #[must_use]
    pub fn text(body: impl Into<String>) -> Self {
        Self::Text { body: body.into() }
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Text { .. } => Kind::Text,
            Self::Template(_) => Kind::Template,
            Self::Media(_) => Kind::Media,
            Self::Interactive(_) => Kind::Interactive,
            Self::Location(_) => Kind::Location,
            Self::Reaction(_) => Kind::Reaction,
        }
    }

    /// The text of a text.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text { body } => Some(body),
            _ => None,
        }
    }

    /// Returns it in words, for a model that reads the thread and for a channel that carries only texts. A template's
    /// own text is with the channel, so its name and parameters stand for it.
    #[must_use]
    pub fn in_words(&self) -> String {
        match self {
            Self::Text { body } => body.clone(),
            Self::Template(template) => template.in_words(),
            Self::Media(media) => media.in_words(),
            Self::Interactive(interactive) => interactive.in_words(),
            Self::Location(Location { latitude, longitude, name, address }) => {
                let named = [name, address].into_iter().flatten().map(String::as_str);
                let named: Vec<_> = named.collect();
                match named.is_empty() {
                    true => format!("[location {latitude}, {longitude}]"),
                    false => format!("[location {}]", named.join(", ")),
                }
            }
            Self::Reaction(Reaction { emoji: Some(emoji), .. }) => format!("[reaction {emoji}]"),
            Self::Reaction(_) => "[reaction taken back]".into(),
        }
    }

    /// The files it refers to, with the field that each is in.
    #[must_use]
    pub fn files(&self) -> Vec<(String, &File)> {
        match self {
            Self::Media(media) => vec![("file".into(), &media.file)],
            Self::Template(template) => template.files(),
            Self::Interactive(interactive) => interactive.files(),
            Self::Text { .. } | Self::Location(_) | Self::Reaction(_) => Vec::new(),
        }
    }

    /// The same, to be replaced by what they became.
    pub fn files_mut(&mut self) -> Vec<&mut File> {
        match self {
            Self::Media(media) => vec![&mut media.file],
            Self::Template(template) => template.files_mut(),
            Self::Interactive(interactive) => interactive.files_mut(),
            Self::Text { .. } | Self::Location(_) | Self::Reaction(_) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
