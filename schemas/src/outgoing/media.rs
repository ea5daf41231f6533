//! Files of a message of the business: by the channel's id, by link, or by the name under which the tenant keeps one.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::content::MediaKind;

/// A message that is a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutgoingMedia {
    /// The kind of file.
    pub kind: MediaKind,
    /// The file.
    pub file: File,
    /// The text beside it; not of a sound or a sticker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption: Option<String>,
    /// The name that the recipient sees; of documents alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename: Option<String>,
}

impl OutgoingMedia {
    pub(super) fn in_words(&self) -> String {
        let kind = match self.kind {
            MediaKind::Image => "image",
            MediaKind::Video => "video",
            MediaKind::Audio => "audio",
            MediaKind::Voice => "voice message",
            MediaKind::Document => "document",
            MediaKind::Sticker => "sticker",
        };
        let name = self.filename.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
        match &self.caption {
            Some(caption) => format!("[{kind}{name}] {caption}"),
            None => format!("[{kind}{name}]"),
        }
    }
}

/// Place of a file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum File {
    /// The channel's id of a file that was uploaded to the account that sends it.
    Id(String),
    /// An address from which the channel fetches it.
    Link(String),
    /// A file that the tenant keeps here: it is uploaded once to each account and used again.
    Stored(FileName),
}

impl File {
    /// Returns whether it has to be uploaded before the channel knows it.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        matches!(self, Self::Stored(_))
    }
}

/// Characters of a [`FileName`] at most.
const NAME_MAX: usize = 64;

/// Name of a file that a tenant keeps: up to 64 letters, digits, `.`, `_` and `-`, beginning with a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileName(String);

impl JsonSchema for FileName {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "FileName".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$" })
    }
}

impl FileName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text that is no [`FileName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no file name: it takes 1 to {NAME_MAX} letters, digits, '.', '_' and '-', a letter or digit first"
)]
pub struct InvalidFileName(String);

impl TryFrom<String> for FileName {
    type Error = InvalidFileName;

    fn try_from(text: String) -> Result<Self, InvalidFileName> {
        let is_letter = |c: char| c.is_ascii_alphanumeric();
        let fits = text.len() <= NAME_MAX
            && text.starts_with(is_letter)
            && text.chars().all(|c| is_letter(c) || matches!(c, '.' | '_' | '-'));
        if fits { Ok(Self(text)) } else { Err(InvalidFileName(text)) }
    }
}

impl FromStr for FileName {
    type Err = InvalidFileName;

    fn from_str(text: &str) -> Result<Self, InvalidFileName> {
        text.to_owned().try_into()
    }
}

impl From<FileName> for String {
    fn from(name: FileName) -> Self {
        name.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
