//! PDF (ISO 32000): the text of its pages.
//!
//! A PDF states only the places of letters; lines and paragraphs are guessed from them (pdf-extract). Text
//! at the head or foot of most pages, such as a page's number, is left out. The library is not hardened
//! against malicious files: it runs only in a process of its own, see [`super::process`].

use std::collections::HashMap;

use pdf_extract::{Document, Error, Object, PlainTextOutput};

use super::{Extracted, Refusal, too_much_text};

/// Pages that are read.
const MOST_PAGES: usize = 5_000;
/// Bytes at the beginning in which a reader searches for the header (ISO 32000-1, annex H, note 13).
const HEADER_WITHIN: usize = 1024;
/// Pages from which on lines are compared with those of other pages.
const ENOUGH_PAGES: usize = 4;
/// Letters and digits that a document without pictures has at least.
const ENOUGH_TEXT: usize = 3;

/// Reads a document.
pub(super) fn extract(bytes: &[u8], most: usize) -> Result<Extracted, Refusal> {
    let head = &bytes[..bytes.len().min(HEADER_WITHIN)];
    if !head.windows(5).any(|window| window == b"%PDF-") {
        return Err("it does not begin as a PDF does; is it another kind of file?".into());
    }
    // A file that only forbids printing and copying opens with the empty password, which is tried.
    let encrypted = || "it is encrypted; save it without a password".to_owned();
    let document = Document::load_mem(bytes).map_err(|error| match error {
        Error::Decryption(_) | Error::InvalidPassword => encrypted(),
        error => format!("it is a broken PDF: {error}"),
    })?;
    if document.trailer.has(b"Encrypt") && document.encryption_state.is_none() {
        return Err(encrypted());
    }
    let pages = document.get_pages().len();
    if pages == 0 {
        return Err("it is a broken PDF: it has no pages".into());
    }
    if pages > MOST_PAGES {
        return Err(format!("it has {pages} pages, at most {MOST_PAGES} are accepted; cut it into several"));
    }
    let mut texts = Vec::new();
    let (mut bytes, mut failed) = (0, None);
    for page in 1..=u32::try_from(pages).unwrap_or(u32::MAX) {
        let mut text = String::new();
        let read = pdf_extract::output_doc_page(&document, &mut PlainTextOutput::new(&mut text), page);
        // One broken page leaves the others readable.
        if let Err(error) = read {
            failed = Some(format!("page {page}: {error}"));
        }
        bytes += text.len();
        if bytes > most {
            return Err(too_much_text(most));
        }
        texts.push(text);
    }
    let text = joined(&texts);
    if text.chars().filter(|c| c.is_alphanumeric()).count() < ENOUGH_TEXT {
        return Err(match failed {
            Some(why) => format!("no page of it can be read: {why}"),
            None => "it has no text: its pages are pictures, such as scans; recognise their text (OCR) first"
                .into(),
        });
    }
    Ok(Extracted::text(title(&document), text))
}

fn title(document: &Document) -> Option<String> {
    let information = match document.trailer.get(b"Info").ok()? {
        Object::Reference(id) => document.get_dictionary(*id).ok()?,
        object => object.as_dict().ok()?,
    };
    pdf_extract::decode_text_string(information.get(b"Title").ok()?).ok()
}

/// Returns the pages as one text: without repeated lines, and without words broken at a line's end.
fn joined(pages: &[String]) -> String {
    let pages: Vec<Vec<String>> = pages.iter().map(|page| page.lines().map(readable).collect()).collect();
    let mut often: HashMap<String, usize> = HashMap::new();
    for page in &pages {
        for line in ends(page) {
            *often.entry(numberless(&page[line])).or_default() += 1;
        }
    }
    let is_repeated = |line: &str| {
        pages.len() >= ENOUGH_PAGES
            && often.get(&numberless(line)).is_some_and(|times| times * 2 > pages.len())
    };
    let mut text = String::new();
    for page in &pages {
        let ends = ends(page);
        let longest = page.iter().map(|line| line.chars().count()).max().unwrap_or_default();
        let mut is_full = false;
        for (index, line) in page.iter().enumerate() {
            if ends.contains(&index) && is_repeated(line) {
                continue;
            }
            push_line(line, is_full, &mut text);
            is_full = line.chars().count() * 4 >= longest * 3;
        }
        text.push('\n');
    }
    text.trim_start().to_owned()
}

/// The first and the last line with a text.
fn ends(page: &[String]) -> Vec<usize> {
    let first = page.iter().position(|line| !line.is_empty());
    let last = page.iter().rposition(|line| !line.is_empty()).filter(|last| Some(*last) != first);
    first.into_iter().chain(last).collect()
}

fn numberless(line: &str) -> String {
    line.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// Adds a line: to the one before when a sentence goes on, which a full line leaves open (`is_full`) or a word
/// broken at its end.
fn push_line(line: &str, is_full: bool, text: &mut String) {
    let before = text.strip_suffix('\n').unwrap_or(text);
    let goes_on = line.starts_with(char::is_lowercase);
    let is_broken = before.strip_suffix('-').is_some_and(|word| word.ends_with(char::is_lowercase));
    let is_open =
        before.ends_with(|c: char| c.is_alphanumeric() || matches!(c, ',' | '-' | '(' | '’' | '\''));
    if goes_on && is_broken {
        text.truncate(before.len() - 1);
    } else if is_full && is_open && line.starts_with(char::is_alphanumeric) {
        text.truncate(before.len());
        text.push(' ');
    }
    text.push_str(line);
    text.push('\n');
}

/// A line without signs that are no text, its ligatures taken apart, with single spaces.
fn readable(line: &str) -> String {
    let mut readable = String::with_capacity(line.len());
    for c in line.chars() {
        match c {
            '\u{fb00}' => readable.push_str("ff"),
            '\u{fb01}' => readable.push_str("fi"),
            '\u{fb02}' => readable.push_str("fl"),
            '\u{fb03}' => readable.push_str("ffi"),
            '\u{fb04}' => readable.push_str("ffl"),
            '\u{fb05}' | '\u{fb06}' => readable.push_str("st"),
            '\u{ad}' => {}
            c if c.is_control() => readable.push(' '),
            c => readable.push(c),
        }
    }
    readable.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const MOST: usize = 1 << 20;

    /// A PDF of these pages, each of these lines, written by hand.
    pub(in super::super) fn pdf(pages: &[&[&str]]) -> Vec<u8> {
        let kids: Vec<_> = (0..pages.len()).map(|n| format!("{} 0 R", 5 + 2 * n)).collect();
        let mut objects = vec![
            "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
            format!("<< /Type /Pages /Kids [{}] /Count {} >>", kids.join(" "), pages.len()),
            "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>".to_owned(),
            "<< /Title (Price list) >>".to_owned(),
        ];
        for (n, lines) in pages.iter().enumerate() {
            objects.push(format!(
                "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {} 0 R \
                 /Resources << /Font << /F1 3 0 R >> >> >>",
                6 + 2 * n
            ));
            let shown = lines.iter().map(|line| format!("({line}) Tj 0 -14 Td"));
            let content = format!("BT /F1 12 Tf 72 720 Td {} ET", shown.collect::<Vec<_>>().join(" "));
            objects.push(format!("<< /Length {} >>\nstream\n{content}\nendstream", content.len()));
        }
        of_objects(&objects)
    }

    pub(in super::super) fn of_objects(objects: &[String]) -> Vec<u8> {
        let mut file = "%PDF-1.4\n".to_owned();
        let mut offsets = Vec::new();
        for (n, object) in objects.iter().enumerate() {
            offsets.push(file.len());
            file.push_str(&format!("{} 0 obj\n{object}\nendobj\n", n + 1));
        }
        let xref = file.len();
        file.push_str(&format!("xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1));
        offsets.iter().for_each(|offset| file.push_str(&format!("{offset:010} 00000 n \n")));
        let size = objects.len() + 1;
        file.push_str(&format!(
            "trailer\n<< /Size {size} /Root 1 0 R /Info 4 0 R >>\nstartxref\n{xref}\n%%EOF\n"
        ));
        file.into_bytes()
    }

    fn why(bytes: &[u8]) -> String {
        extract(bytes, MOST).unwrap_err()
    }

    #[test]
    fn the_text_of_its_pages_is_read() {
        let file =
            pdf(&[&["A cleaning is 60 euros.", "A check-up is free of char-", "ge."], &["Second page."]]);
        let extracted = extract(&file, MOST).unwrap();
        assert_eq!(extracted.title.as_deref(), Some("Price list"));
        let lines: Vec<_> = extracted.text.lines().filter(|line| !line.is_empty()).collect();
        assert_eq!(lines, ["A cleaning is 60 euros.", "A check-up is free of charge.", "Second page."]);
    }

    #[test]
    fn a_sentence_over_several_lines_becomes_one_line() {
        let page = "The law takes effect on the first of January and\nsays that Veterans are presumed to have been\n\
                    exposed.\nOpening hours\nMonday\nTuesday, which is a short day";
        let text = joined(&[page.to_owned()]);
        let lines: Vec<_> = text.lines().filter(|line| !line.is_empty()).collect();
        let law = "The law takes effect on the first of January and says that Veterans are presumed to have been exposed.";
        assert_eq!(lines, [law, "Opening hours", "Monday", "Tuesday, which is a short day"]);
    }

    #[test]
    fn text_that_pages_repeat_is_left_out() {
        let pages = ["one", "two", "three", "four"];
        let lines: Vec<[String; 3]> = pages
            .iter()
            .zip(1..)
            .map(|(word, n)| ["Acme Clinic".into(), format!("The {word}."), format!("Page {n} of 4")])
            .collect();
        let lines: Vec<Vec<&str>> =
            lines.iter().map(|page| page.iter().map(String::as_str).collect()).collect();
        let lines: Vec<&[&str]> = lines.iter().map(Vec::as_slice).collect();
        let text = extract(&pdf(&lines), MOST).unwrap().text;
        assert!(text.contains("The three.") && !text.contains("Acme") && !text.contains("Page"), "{text}");
    }

    #[test]
    fn an_unreadable_file_is_refused_with_its_reason() {
        assert!(why(b"GIF89a").contains("does not begin as a PDF"));
        assert!(why(b"%PDF-1.7\ngarbage garbage").contains("broken PDF"));
        assert!(why(&pdf(&[&[]])).contains("its pages are pictures"));
        let encrypted = String::from_utf8(pdf(&[&["secret"]])).unwrap().replace(
            "/Info 4 0 R",
            "/Encrypt << /Filter /Standard /V 1 /R 2 /P -4 /O <0000000000000000000000000000000000000000000000000000000000000000> \
             /U <0000000000000000000000000000000000000000000000000000000000000000> >> /ID [<00> <00>]",
        );
        let found = why(encrypted.as_bytes());
        assert!(found.contains("encrypted"), "{found}");
        let long = "word ".repeat(400);
        assert!(extract(&pdf(&[&[&long]]), 1_000).unwrap_err().contains("more than 1000 bytes"));
    }

    #[test]
    fn a_page_tree_that_runs_in_a_circle_ends() {
        let circle = of_objects(&[
            "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
            "<< /Type /Pages /Kids [2 0 R 3 0 R] /Count 2 /Parent 3 0 R >>".to_owned(),
            "<< /Type /Pages /Kids [2 0 R] /Count 1 /Parent 2 0 R >>".to_owned(),
            "<< /Title (x) >>".to_owned(),
        ]);
        assert!(why(&circle).contains("no pages"));
    }
}
