//! Documents: limits of their content, and their construction from files.
//!
//! Every refusal names the limit or the formats that are accepted. The limits keep
//! one document from taking a node's memory: its text is held in memory while it is cut, and its
//! passages as long as its tenant's index is open.

use std::path::Path;

use heddle_schemas::ports::knowledge::{Document, DocumentFormat, KnowledgeError};

use super::extract::{Extracted, Kind};
use super::markdown;

/// Bytes of text that a document may have.
pub const MAX_BYTES: usize = 4 << 20;

/// Passages that a document may have.
pub const MAX_PASSAGES: usize = 10_000;

/// Bytes of an id, as the port says.
const ID_BYTES: std::ops::RangeInclusive<usize> = 1..=512;

/// Bytes of a title: every passage carries it.
const MAX_TITLE_BYTES: usize = 1024;

/// A document of what a file says: its title is the one that is given, its own, its first heading, or else
/// its name without folders and ending.
pub(super) fn of(id: &str, title: Option<String>, file: Extracted) -> Result<Document, KnowledgeError> {
    let Extracted { title: own, format, text } = file;
    let heading = || match format {
        DocumentFormat::Markdown => markdown::first_heading(&text),
        DocumentFormat::Text => None,
    };
    let title = title.or(own).or_else(heading).unwrap_or_else(|| stem(id));
    let document = Document { id: id.to_owned(), title, format, text };
    check(&document)?;
    Ok(document)
}

/// A file of text or Markdown, kept as it is.
pub(super) fn as_it_is(kind: Kind, bytes: &[u8]) -> Result<Extracted, String> {
    if bytes.len() > MAX_BYTES {
        return Err(too_large(bytes.len()));
    }
    let text = text_of(bytes)?;
    Ok(match kind {
        Kind::Markdown => Extracted::markdown(title_of_metadata(text), text.to_owned()),
        _ => Extracted::text(None, text.to_owned()),
    })
}

/// The `title` of the metadata that many generators of sites put before a page: lines between two of `---`.
fn title_of_metadata(text: &str) -> Option<String> {
    let mut lines = text.lines();
    (lines.next()?.trim_end() == "---").then_some(())?;
    let mut metadata = lines.take_while(|line| line.trim_end() != "---");
    let title = metadata.find_map(|line| line.strip_prefix("title:"))?.trim();
    let unquoted = ['"', '\''].into_iter().find_map(|quote| title.strip_prefix(quote)?.strip_suffix(quote));
    Some(unquoted.unwrap_or(title).to_owned())
}

/// Checks that a document may be kept, except for its passages.
pub(super) fn check(document: &Document) -> Result<(), KnowledgeError> {
    fault(document).map_or(Ok(()), |why| Err(refused(&document.id, why)))
}

/// A document that is refused, named by the beginning of its id.
pub(super) fn refused(id: &str, why: impl Into<String>) -> KnowledgeError {
    let document = id.chars().take(*ID_BYTES.end()).collect();
    KnowledgeError::Refused { document, why: why.into() }
}

fn fault(document: &Document) -> Option<String> {
    let Document { id, title, text, .. } = document;
    if !ID_BYTES.contains(&id.len()) {
        return Some(format!("its id has {} bytes, 1 to 512 are accepted", id.len()));
    }
    if id.contains(char::is_control) || title.contains(char::is_control) {
        return Some("its id or title holds a control character".into());
    }
    if title.len() > MAX_TITLE_BYTES {
        return Some(format!("its title has {} bytes, at most {MAX_TITLE_BYTES} are accepted", title.len()));
    }
    if text.len() > MAX_BYTES {
        return Some(too_large(text.len()));
    }
    if text.trim().is_empty() {
        return Some("it is empty".into());
    }
    let control =
        text.chars().find(|&c| c.is_control() && !matches!(c, '\t' | '\n' | '\x0c' | '\r' | '\u{85}'));
    control.map(|c| format!("its text holds the control character U+{:04X}; is it no text?", u32::from(c)))
}

fn too_large(bytes: usize) -> String {
    format!("it has {bytes} bytes, at most {MAX_BYTES} (4 MiB) are accepted; cut it into several documents")
}

fn text_of(bytes: &[u8]) -> Result<&str, String> {
    // Editors on Windows write a byte order mark, which is not part of the text.
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|error| {
        format!("its text is not UTF-8, from byte {} on; save it as UTF-8", error.valid_up_to())
    })
}

fn stem(name: &str) -> String {
    // Nothing is cut from a page's address, unless it is a file's.
    if name.contains("://") && !matches!(Kind::of_name(name), Some(Kind::Pdf | Kind::Docx | Kind::Text)) {
        return name.to_owned();
    }
    Path::new(name).file_stem().map_or_else(|| name.to_owned(), |stem| stem.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document_from_file(name: &str, bytes: &[u8]) -> Result<Document, KnowledgeError> {
        let kind = Kind::of_name(name).expect("a text");
        of(name, None, as_it_is(kind, bytes).map_err(|why| refused(name, why))?)
    }

    fn why(name: &str, bytes: &[u8]) -> String {
        match document_from_file(name, bytes) {
            Err(KnowledgeError::Refused { document, why }) => {
                assert_eq!(document, name);
                why
            }
            other => panic!("{name}: {other:?}"),
        }
    }

    #[test]
    fn a_markdown_file_is_called_by_its_first_heading() {
        let text = "\u{feff}Intro.\n\n## Opening *hours*\n\nNine to five.\n\n# Prices\n";
        let document = document_from_file("shop/hours.MD", text.as_bytes()).unwrap();
        assert_eq!(document.id, "shop/hours.MD");
        assert_eq!(document.title, "Opening hours");
        assert_eq!(document.format, DocumentFormat::Markdown);
        assert!(document.text.starts_with("Intro."));
    }

    #[test]
    fn a_markdown_file_with_metadata_is_called_by_its_title() {
        let text = "---\nowner: x\ntitle: \"Opening hours\"\n---\n\n# Welcome\n\nNine.";
        assert_eq!(document_from_file("hours.md", text.as_bytes()).unwrap().title, "Opening hours");
        let text = "---\nowner: x\n---\n# Welcome\n\ntitle: none\n";
        assert_eq!(document_from_file("hours.md", text.as_bytes()).unwrap().title, "Welcome");
    }

    #[test]
    fn other_files_are_called_by_their_name() {
        let plain = document_from_file("shop/price list.txt", b"# A visit is 40 euros.").unwrap();
        assert_eq!((plain.title.as_str(), plain.format), ("price list", DocumentFormat::Text));
        assert_eq!(document_from_file("faq.markdown", b"Yes.").unwrap().title, "faq");
        let extracted = Extracted { title: None, format: DocumentFormat::Text, text: "Yes.".into() };
        let page = of("https://acme.example/faq.html", None, extracted.clone()).unwrap();
        assert_eq!(page.title, "https://acme.example/faq.html");
        let file = of("https://acme.example/files/prices.pdf", None, extracted.clone()).unwrap();
        assert_eq!(file.title, "prices");
        let named = Extracted { title: Some("FAQ".into()), ..extracted };
        assert_eq!(of("a", None, named.clone()).unwrap().title, "FAQ");
        assert_eq!(of("a", Some("Answers".into()), named).unwrap().title, "Answers");
    }

    #[test]
    fn a_refusal_names_what_is_accepted() {
        assert!(why("latin1.txt", b"caf\xe9").contains("not UTF-8, from byte 3 on"));
        assert!(why("utf16.txt", b"\xff\xfea\0").contains("not UTF-8"));
        assert_eq!(why("empty.md", b" \r\n\t"), "it is empty");
        assert!(why("zero.txt", b"a\0b").contains("U+0000"));
        assert!(why("large.txt", &vec![b'a'; MAX_BYTES + 1]).contains("at most 4194304 (4 MiB)"));
        document_from_file("as-large-as-may-be.txt", &vec![b'a'; MAX_BYTES]).unwrap();
    }
}
