//! Which documents are taken, and how a file becomes one.
//!
//! Whoever adds documents gets every refusal in words that say what would be taken. The limits keep
//! one document from taking a node's memory: its text is held in memory while it is cut, and its
//! passages as long as its tenant's index is open.

use std::path::Path;

use heddle_schemas::ports::knowledge::{Document, DocumentFormat, KnowledgeError};

use super::markdown;

/// Bytes of text that a document may have.
pub const MAX_BYTES: usize = 4 << 20;

/// Passages that a document may have.
pub const MAX_PASSAGES: usize = 10_000;

/// Bytes of an id, as the port says.
const ID_BYTES: std::ops::RangeInclusive<usize> = 1..=512;

/// Bytes of a title: every passage carries it.
const MAX_TITLE_BYTES: usize = 1024;

/// Makes a document of a file: its id is `name`, its title the first heading or else the file's
/// name, its format told by the ending.
///
/// `name` is the file's name or its path below the folder that is added; folders are parted by `/`.
///
/// # Errors
/// [`KnowledgeError::Refused`] for an ending that is not taken, a text that is not UTF-8, and what
/// [`Knowledge::put`](heddle_schemas::ports::knowledge::Knowledge::put) would refuse: no text, too
/// much of it, control characters.
pub fn document_from_file(name: &str, bytes: &[u8]) -> Result<Document, KnowledgeError> {
    let format = format_of(name).map_err(|why| refused(name, why))?;
    if bytes.len() > MAX_BYTES {
        return Err(refused(name, too_large(bytes.len())));
    }
    let text = text_of(bytes).map_err(|why| refused(name, why))?;
    let heading = match format {
        DocumentFormat::Markdown => markdown::first_heading(text),
        DocumentFormat::Text => None,
    };
    let title = heading.unwrap_or_else(|| stem(name));
    let document = Document { id: name.to_owned(), title, format, text: text.to_owned() };
    check(&document)?;
    Ok(document)
}

/// Whether a document may be kept, but for its passages.
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
        return Some(format!("its id has {} bytes, 1 to 512 are taken", id.len()));
    }
    if id.contains(char::is_control) || title.contains(char::is_control) {
        return Some("its id or title holds a control character".into());
    }
    if title.len() > MAX_TITLE_BYTES {
        return Some(format!("its title has {} bytes, at most {MAX_TITLE_BYTES} are taken", title.len()));
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
    format!("it has {bytes} bytes, at most {MAX_BYTES} (4 MiB) are taken; cut it into several documents")
}

fn format_of(name: &str) -> Result<DocumentFormat, String> {
    let taken = ".txt and .md are taken, other formats come later";
    let Some(ending) = Path::new(name).extension() else {
        return Err(format!("its name has no ending that tells what it is; {taken}"));
    };
    let ending = ending.to_string_lossy().to_lowercase();
    match ending.as_str() {
        "txt" | "text" => Ok(DocumentFormat::Text),
        "md" | "markdown" => Ok(DocumentFormat::Markdown),
        _ => Err(format!("files ending in .{ending} are not taken; {taken}")),
    }
}

fn text_of(bytes: &[u8]) -> Result<&str, String> {
    // Editors on Windows write a byte order mark, which is no part of the text.
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|error| {
        format!("its text is not UTF-8, from byte {} on; save it as UTF-8", error.valid_up_to())
    })
}

fn stem(name: &str) -> String {
    Path::new(name).file_stem().map_or_else(|| name.to_owned(), |stem| stem.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn other_files_are_called_by_their_name() {
        let plain = document_from_file("shop/price list.txt", b"# A visit is 40 euros.").unwrap();
        assert_eq!((plain.title.as_str(), plain.format), ("price list", DocumentFormat::Text));
        assert_eq!(document_from_file("faq.markdown", b"Yes.").unwrap().title, "faq");
    }

    #[test]
    fn a_refusal_says_what_would_be_taken() {
        assert!(why("prices.pdf", b"%PDF").contains(".pdf are not taken; .txt and .md are taken"));
        assert!(why("README", b"text").contains(".txt and .md are taken"));
        assert!(why("latin1.txt", b"caf\xe9").contains("not UTF-8, from byte 3 on"));
        assert!(why("utf16.txt", b"\xff\xfea\0").contains("not UTF-8"));
        assert_eq!(why("empty.md", b" \r\n\t"), "it is empty");
        assert!(why("zero.txt", b"a\0b").contains("U+0000"));
        assert!(why("large.txt", &vec![b'a'; MAX_BYTES + 1]).contains("at most 4194304 (4 MiB)"));
        document_from_file("as-large-as-may-be.txt", &vec![b'a'; MAX_BYTES]).unwrap();
    }
}
