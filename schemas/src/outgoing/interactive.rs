//! A text with something to tap: reply buttons, a list, a link.
//!
//! A tap on a button or a row comes back as [`Content::Interactive`](crate::content::Content::Interactive) with the id
//! and the title that stand here.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::media::File;

/// A text with something to tap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Interactive {
    /// Above the text; beside a list or a link it is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<InteractiveHeader>,
    /// The text.
    pub body: String,
    /// Below the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub footer: Option<String>,
    /// Buttons, list or link.
    pub action: Action,
}

/// Header of an interactive message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InteractiveHeader {
    /// A text.
    Text(String),
    /// A picture.
    Image(File),
    /// A film.
    Video(File),
    /// A document.
    Document(File),
}

/// Part of an interactive message that can be tapped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Reply buttons.
    Buttons(Vec<ReplyButton>),
    /// A list that opens.
    List {
        /// The text of the button that opens it.
        button: String,
        /// Its sections; where there are several, each has a title.
        sections: Vec<ListSection>,
    },
    /// A link.
    Url {
        /// The text of the button.
        text: String,
        /// The address.
        url: String,
    },
}

/// A reply button.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplyButton {
    /// Comes back with the tap.
    pub id: String,
    /// Its text.
    pub title: String,
}

/// A section of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListSection {
    /// Its title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Its rows.
    pub rows: Vec<ListRow>,
}

/// A row of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListRow {
    /// Comes back with the tap.
    pub id: String,
    /// Its text.
    pub title: String,
    /// A second line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

impl Interactive {
    /// The text, and what can be tapped: one line each.
    pub(super) fn in_words(&self) -> String {
        let mut lines = Vec::new();
        if let Some(InteractiveHeader::Text(header)) = &self.header {
            lines.push(header.clone());
        }
        lines.push(self.body.clone());
        lines.extend(self.footer.clone());
        match &self.action {
            Action::Buttons(buttons) => {
                lines.extend(buttons.iter().map(|button| format!("- {}", button.title)));
            }
            Action::List { sections, .. } => {
                let rows = sections.iter().flat_map(|section| &section.rows);
                lines.extend(rows.map(|row| match &row.description {
                    Some(description) => format!("- {}: {description}", row.title),
                    None => format!("- {}", row.title),
                }));
            }
            Action::Url { text, url } => lines.push(format!("{text}: {url}")),
        }
        lines.join("\n")
    }

    pub(super) fn files(&self) -> Vec<(String, &File)> {
        match &self.header {
            Some(InteractiveHeader::Image(file)) => vec![("header.image".into(), file)],
            Some(InteractiveHeader::Video(file)) => vec![("header.video".into(), file)],
            Some(InteractiveHeader::Document(file)) => vec![("header.document".into(), file)],
            Some(InteractiveHeader::Text(_)) | None => Vec::new(),
        }
    }

    pub(super) fn files_mut(&mut self) -> Vec<&mut File> {
        match &mut self.header {
            Some(
                InteractiveHeader::Image(file)
                | InteractiveHeader::Video(file)
                | InteractiveHeader::Document(file),
            ) => vec![file],
            Some(InteractiveHeader::Text(_)) | None => Vec::new(),
        }
    }
}
