//! Extraction of text from Markdown, HTML, PDF and DOCX files.
//!
//! Text and Markdown are kept as they are. HTML and DOCX become Markdown, so that their headings, lists and
//! tables stay; PDF becomes plain text. Formats that need a parser are read by a process of their own, which
//! can be ended and cannot take the node's memory: see [`process`].
//!
//! # Layout
//! - `html`, `docx`, `pdf`: one format each, from bytes to text.
//! - `outline`: a document with structure, written as Markdown.
//! - [`process`]: the process that reads a file, and the node's side of it.

mod docx;
pub(super) mod html;
mod outline;
mod pdf;
pub mod process;

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use bytes::Bytes;
use heddle_schemas::ports::knowledge::DocumentFormat;
use serde::{Deserialize, Serialize};

/// Reason for refusing a file: the fault, and what would be accepted.
pub(super) type Refusal = String;

/// Characters of a title that are kept.
const TITLE: usize = 200;

/// Accepted files, as a sentence.
pub const TAKEN: &str = ".txt, .md, .html, .pdf and .docx are accepted";

/// A file to read.
#[derive(Debug, Clone)]
pub struct File {
    /// The document's id: the file's name, its path below the folder that is added, or a page's address.
    pub id: String,
    /// Title; without one the file's own title, its first heading, or its name.
    pub title: Option<String>,
    /// Media type, such as `text/html; charset=utf-8`; without one, or with a generic one, the
    /// id's ending decides.
    pub content_type: Option<String>,
    /// Content.
    pub bytes: Bytes,
}

/// Format of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Plain text.
    Text,
    /// CommonMark.
    Markdown,
    /// HTML.
    Html,
    /// PDF.
    Pdf,
    /// Office Open XML, a text document.
    Docx,
}

impl Kind {
    /// Returns the format of a file's name, by its ending.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        match Path::new(name).extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "txt" | "text" => Some(Self::Text),
            "md" | "markdown" => Some(Self::Markdown),
            "html" | "htm" | "xhtml" => Some(Self::Html),
            "pdf" => Some(Self::Pdf),
            "docx" => Some(Self::Docx),
            _ => None,
        }
    }

    /// Returns the format of a media type, whatever its parameters.
    #[must_use]
    pub fn of_type(content_type: &str) -> Option<Self> {
        let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "text/plain" => Some(Self::Text),
            "text/markdown" => Some(Self::Markdown),
            "text/html" | "application/xhtml+xml" => Some(Self::Html),
            "application/pdf" => Some(Self::Pdf),
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document" => Some(Self::Docx),
            _ => None,
        }
    }

    /// Returns the format of a file: by its media type, or else by its name. A server's `text/plain` is its default for
    /// unknown files, so a name with a known ending overrides it.
    pub(super) fn of(file: &File) -> Result<Self, Refusal> {
        let typed = file.content_type.as_deref().and_then(Self::of_type);
        let named = Self::of_name(&file.id);
        match (typed, named) {
            (Some(Self::Text), Some(Self::Markdown)) => Ok(Self::Markdown),
            (Some(kind), _) | (None, Some(kind)) => Ok(kind),
            (None, None) => Err(match (&file.content_type, Path::new(&file.id).extension()) {
                (_, Some(ending)) => {
                    format!("files ending in .{} are not accepted; {TAKEN}", ending.to_string_lossy())
                }
                (Some(typed), None) => format!("{typed} is not accepted; {TAKEN}"),
                (None, None) => format!("its name has no ending that names its format; {TAKEN}"),
            }),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Markdown => "markdown",
            Self::Html => "html",
            Self::Pdf => "pdf",
            Self::Docx => "docx",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let all = [Self::Text, Self::Markdown, Self::Html, Self::Pdf, Self::Docx];
        all.into_iter().find(|kind| kind.name() == name).ok_or_else(|| format!("{name:?} is no kind of file"))
    }
}

/// Content of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Extracted {
    /// Title of its own.
    pub(super) title: Option<String>,
    pub(super) format: DocumentFormat,
    pub(super) text: String,
}

impl Extracted {
    pub(super) fn markdown(title: Option<String>, text: String) -> Self {
        Self { title: title.and_then(|title| one_line(&title)), format: DocumentFormat::Markdown, text }
    }

    pub(super) fn text(title: Option<String>, text: String) -> Self {
        Self { title: title.and_then(|title| one_line(&title)), format: DocumentFormat::Text, text }
    }
}

fn one_line(title: &str) -> Option<String> {
    let title: String = title.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let title = title.split_whitespace().collect::<Vec<_>>().join(" ");
    (!title.is_empty()).then(|| title.chars().take(TITLE).collect())
}

/// Takes the text out of a file that needs a parser; `most` is the most bytes of text.
fn extract(kind: Kind, charset: Option<&str>, bytes: &[u8], most: usize) -> Result<Extracted, Refusal> {
    let mut extracted = match kind {
        Kind::Html => html::extract(bytes, charset, most)?,
        Kind::Pdf => pdf::extract(bytes, most)?,
        Kind::Docx => docx::extract(bytes, most)?,
        Kind::Text | Kind::Markdown => return Err(format!("{kind} needs no parser")),
    };
    // Signs that steer a terminal are no text, wherever a file has them from.
    let steers = |c: char| c.is_control() && !matches!(c, '\t' | '\n');
    if extracted.text.contains(steers) {
        extracted.text = extracted.text.replace(steers, " ");
    }
    Ok(extracted)
}

fn too_much_text(most: usize) -> Refusal {
    format!("it has more than {most} bytes of text; cut it into several documents")
}

/// The `charset` of a media type.
fn charset(content_type: &str) -> Option<&str> {
    let (_, parameters) = content_type.split_once(';')?;
    parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(id: &str, content_type: Option<&str>) -> Result<Kind, String> {
        let content_type = content_type.map(ToOwned::to_owned);
        Kind::of(&File { id: id.into(), title: None, content_type, bytes: Bytes::new() })
    }

    #[test]
    fn a_media_type_or_a_name_decides_the_kind() {
        assert_eq!(kind("a.PDF", None), Ok(Kind::Pdf));
        assert_eq!(kind("a.htm", Some("application/octet-stream")), Ok(Kind::Html));
        assert_eq!(kind("https://acme.example/about", Some("Text/HTML; charset=utf-8")), Ok(Kind::Html));
        assert_eq!(kind("a.md", Some("text/plain")), Ok(Kind::Markdown));
        assert_eq!(kind("a.pdf", Some("text/html")), Ok(Kind::Html));
        assert!(kind("a.xlsx", None).unwrap_err().contains(".xlsx are not accepted; .txt, .md, .html, .pdf"));
        assert!(kind("README", None).unwrap_err().contains("no ending"));
        assert!(kind("README", Some("image/png")).unwrap_err().contains("image/png is not accepted"));
    }

    #[test]
    fn a_charset_is_found_among_parameters() {
        assert_eq!(charset("text/html; q=1; Charset=\"ISO-8859-1\""), Some("ISO-8859-1"));
        assert_eq!(charset("text/html"), None);
    }
}
