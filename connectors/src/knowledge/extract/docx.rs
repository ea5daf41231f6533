//! DOCX (Office Open XML, ECMA-376): the document's text with its headings, lists and tables.
//!
//! A file is a ZIP archive of XML parts, of which only the document, its styles, its links and its title are
//! unpacked. Their number, their unpacked size, how much larger they get, and how deep their elements nest are
//! limited, and no entity is ever expanded but XML's own five. The XML is read as a stream.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{Cursor, Read};

use encoding_rs::{UTF_16BE, UTF_16LE};
use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};
use zip::ZipArchive;

use super::outline::Outline;
use super::{Extracted, Refusal, too_much_text};

/// Entries that an archive may have; Word writes a dozen, and one more for each picture.
const MOST_ENTRIES: usize = 10_000;
/// Bytes that a part may have unpacked.
const MOST_UNPACKED: u64 = 64 << 20;
/// Maximum growth of a part of more than [`SMALL`] bytes when it is unpacked; XML of words has 5 to 30.
const MOST_GROWTH: u64 = 200;
const SMALL: u64 = 1 << 20;
/// Elements within each other; Word's own nest in some dozens.
const MOST_DEPTH: usize = 256;

/// Reads a document.
pub(super) fn extract(bytes: &[u8], most: usize) -> Result<Extracted, Refusal> {
    let mut parts = Parts::open(bytes)?;
    let document =
        parts.get("word/document.xml")?.ok_or("it holds no word/document.xml; is it a .docx file?")?;
    let styles = match parts.get("word/styles.xml")? {
        Some(xml) => styles(&xml)?,
        None => HashMap::new(),
    };
    let links = match parts.get("word/_rels/document.xml.rels")? {
        Some(xml) => links(&xml)?,
        None => HashMap::new(),
    };
    let title = parts.get("docProps/core.xml")?.map(|xml| title(&xml)).transpose()?.flatten();
    let mut body = Body { styles, links, most, ..Body::default() };
    events(&document, |event| body.event(event))?;
    let text = body.outline.finish();
    if text.trim().is_empty() {
        return Err("it has no text; are its pages pictures?".into());
    }
    Ok(Extracted::markdown(title, text))
}

/// The parts of the archive.
struct Parts<'a> {
    archive: ZipArchive<Cursor<&'a [u8]>>,
}

impl<'a> Parts<'a> {
    fn open(bytes: &'a [u8]) -> Result<Self, Refusal> {
        // [MS-CFB] 2.2: the container of Word before 2007, and of password-protected files.
        if bytes.starts_with(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1") {
            return Err(
                "it is protected by a password, or of Word before 2007; save it as an open .docx".into()
            );
        }
        let broken = |error| format!("its archive is broken: {error}");
        let archive = ZipArchive::new(Cursor::new(bytes)).map_err(broken)?;
        if archive.len() > MOST_ENTRIES {
            return Err(format!(
                "its archive has {} entries, at most {MOST_ENTRIES} are accepted",
                archive.len()
            ));
        }
        Ok(Self { archive })
    }

    /// A part unpacked, when it is there.
    fn get(&mut self, name: &str) -> Result<Option<String>, Refusal> {
        let entry = match self.archive.by_name(name) {
            Ok(entry) => entry,
            Err(zip::result::ZipError::FileNotFound) => return Ok(None),
            Err(error) => return Err(format!("its {name} cannot be unpacked: {error}")),
        };
        // The archive's statement of the unpacked size is not trusted.
        let most = MOST_UNPACKED.min(entry.compressed_size().saturating_mul(MOST_GROWTH).max(SMALL));
        let mut xml = Vec::new();
        let read = entry.take(most + 1).read_to_end(&mut xml);
        read.map_err(|error| format!("its {name} cannot be unpacked: {error}"))?;
        if xml.len() as u64 > most {
            return Err(format!("its {name} unpacks to more than {most} bytes, as no document does"));
        }
        Ok(Some(decode(&xml, name)?.into_owned()))
    }
}

/// XML is UTF-8 or UTF-16 (ECMA-376, part 2).
fn decode<'a>(xml: &'a [u8], name: &str) -> Result<Cow<'a, str>, Refusal> {
    let utf16 = match xml {
        [0xff, 0xfe, ..] => Some(UTF_16LE),
        [0xfe, 0xff, ..] => Some(UTF_16BE),
        _ => None,
    };
    if let Some(encoding) = utf16 {
        return Ok(encoding.decode(xml).0);
    }
    let xml = xml.strip_prefix(b"\xef\xbb\xbf").unwrap_or(xml);
    std::str::from_utf8(xml).map(Cow::Borrowed).map_err(|_| format!("its {name} is not UTF-8"))
}

/// Event while reading a part.
enum Met<'a> {
    Start(&'a BytesStart<'a>),
    End(&'a str),
    Text(&'a str),
}

/// Reports the events of a part, by local names.
fn events(xml: &str, mut take: impl FnMut(Met<'_>) -> Result<(), Refusal>) -> Result<(), Refusal> {
    let broken = |error: &dyn std::fmt::Display| format!("its XML is broken: {error}");
    let mut reader = Reader::from_str(xml);
    let mut depth = 0_usize;
    loop {
        match reader.read_event().map_err(|error| broken(&error))? {
            Event::Start(start) => {
                depth += 1;
                if depth > MOST_DEPTH {
                    return Err(format!("its elements nest deeper than {MOST_DEPTH}, as no document's do"));
                }
                take(Met::Start(&start))?;
            }
            Event::Empty(start) => {
                take(Met::Start(&start))?;
                take(Met::End(start.local_name().into_inner()))?;
            }
            Event::End(end) => {
                depth = depth.saturating_sub(1);
                take(Met::End(end.local_name().into_inner()))?;
            }
            Event::Text(text) => take(Met::Text(&text.into_inner()))?,
            Event::CData(text) => take(Met::Text(&text.into_inner()))?,
            Event::GeneralRef(name) => {
                let character = match &*name {
                    "amp" => Some('&'),
                    "lt" => Some('<'),
                    "gt" => Some('>'),
                    "quot" => Some('"'),
                    "apos" => Some('\''),
                    _ => name.resolve_char_ref().map_err(|error| broken(&error))?,
                };
                if let Some(character) = character.filter(|c| !c.is_control()) {
                    take(Met::Text(character.encode_utf8(&mut [0; 4])))?;
                }
            }
            Event::DocType(_) => return Err("its XML declares entities, as no document's does".into()),
            Event::Eof => return Ok(()),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
        }
    }
}

/// An attribute by its local name.
fn attribute(start: &BytesStart<'_>, name: &str) -> Option<String> {
    let mut attributes = start.attributes();
    let mut found = attributes.with_checks(false).filter_map(Result::ok);
    let found = found.find(|attribute| attribute.key.local_name().into_inner() == name)?;
    Some(found.normalized_value(XmlVersion::Explicit1_0).ok()?.into_owned())
}

/// The level of each style that is a heading.
fn styles(xml: &str) -> Result<HashMap<String, u8>, Refusal> {
    let (mut levels, mut style) = (HashMap::new(), String::new());
    events(xml, |met| {
        if let Met::Start(start) = met {
            match start.local_name().into_inner() {
                "style" => style = attribute(start, "styleId").unwrap_or_default(),
                "name" => {
                    let level = attribute(start, "val").and_then(|name| level_of_name(&name));
                    level.and_then(|level| levels.insert(style.clone(), level));
                }
                "outlineLvl" => {
                    if let Some(level) = outline_level(start) {
                        levels.entry(style.clone()).or_insert(level);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    })?;
    Ok(levels)
}

/// Word keeps the English names of its own styles in every language.
fn level_of_name(name: &str) -> Option<u8> {
    let name = name.to_ascii_lowercase().replace(' ', "");
    match name.as_str() {
        "title" => Some(1),
        "subtitle" => Some(2),
        name => name.strip_prefix("heading")?.parse().ok().filter(|level| (1..=9).contains(level)),
    }
}

/// `w:outlineLvl` counts from 0; 9 is the text's own (ECMA-376, part 1, 17.3.1.20).
fn outline_level(start: &BytesStart<'_>) -> Option<u8> {
    let level: u8 = attribute(start, "val")?.parse().ok()?;
    (level < 9).then_some(level + 1)
}

/// Returns the targets of links, by their id.
fn links(xml: &str) -> Result<HashMap<String, String>, Refusal> {
    let mut links = HashMap::new();
    events(xml, |met| {
        if let Met::Start(start) = met
            && attribute(start, "TargetMode").as_deref() == Some("External")
            && let (Some(id), Some(target)) = (attribute(start, "Id"), attribute(start, "Target"))
        {
            links.insert(id, target);
        }
        Ok(())
    })?;
    Ok(links)
}

fn title(xml: &str) -> Result<Option<String>, Refusal> {
    let (mut title, mut inside) = (String::new(), false);
    events(xml, |met| {
        match met {
            Met::Start(start) => inside = start.local_name().into_inner() == "title",
            Met::End(_) => inside = false,
            Met::Text(text) if inside => title.push_str(text),
            Met::Text(_) => {}
        }
        Ok(())
    })?;
    Ok(Some(title))
}

/// The document's body under way.
#[derive(Default)]
struct Body {
    styles: HashMap<String, u8>,
    links: HashMap<String, String>,
    most: usize,
    outline: Outline,
    text: String,
    in_text: bool,
    /// The paragraph's own level, and that of its list, where it has one.
    heading: Option<u8>,
    list: Option<usize>,
    /// Lists open, at most one a level.
    lists: usize,
    /// Within an alternative meant for other readers of the file.
    fallbacks: usize,
    tables: usize,
    link: Option<(usize, String)>,
}

impl Body {
    fn event(&mut self, met: Met<'_>) -> Result<(), Refusal> {
        match met {
            Met::Start(start) if start.local_name().into_inner() == "Fallback" => self.fallbacks += 1,
            Met::End("Fallback") => self.fallbacks = self.fallbacks.saturating_sub(1),
            _ if self.fallbacks > 0 => {}
            Met::Start(start) => self.start(start),
            Met::End(name) => self.end(name),
            Met::Text(text) if self.in_text => self.text.push_str(text),
            Met::Text(_) => {}
        }
        if self.outline.len().max(self.text.len()) > self.most {
            return Err(too_much_text(self.most));
        }
        Ok(())
    }

    fn start(&mut self, start: &BytesStart<'_>) {
        match start.local_name().into_inner() {
            // The text of a text box within a paragraph comes before the rest of it.
            "p" => self.end_paragraph(),
            "t" => self.in_text = true,
            "tab" | "noBreakHyphen" if !self.text.is_empty() => {
                self.text.push(if start.local_name().into_inner() == "tab" { ' ' } else { '-' });
            }
            "br" | "cr" => self.text.push('\n'),
            "pStyle" => {
                let style = attribute(start, "val").unwrap_or_default();
                let level = self.styles.get(&style).copied().or_else(|| level_of_name(&style));
                self.heading = level.or(self.heading);
            }
            "outlineLvl" => self.heading = outline_level(start).or(self.heading),
            "numPr" => self.list = self.list.or(Some(0)),
            "ilvl" => self.list = attribute(start, "val").and_then(|level| level.parse().ok()),
            "hyperlink" => {
                let target = attribute(start, "id").and_then(|id| self.links.get(&id).cloned());
                self.link = target.map(|target| (self.text.len(), target));
            }
            "tbl" => {
                self.end_lists(0);
                self.tables += 1;
                self.outline.begin_table();
            }
            "tr" => self.outline.begin_row(),
            "tc" => self.outline.begin_cell(false),
            "tblHeader" => self.outline.header(),
            _ => {}
        }
    }

    fn end(&mut self, name: &str) {
        match name {
            "p" => self.end_paragraph(),
            "t" => self.in_text = false,
            "hyperlink" => self.end_link(),
            "tbl" => {
                self.tables = self.tables.saturating_sub(1);
                self.outline.end_table();
            }
            _ => {}
        }
    }

    fn end_link(&mut self) {
        let Some((from, target)) = self.link.take() else { return };
        let target = target.strip_prefix("mailto:").or(target.strip_prefix("tel:")).unwrap_or(&target);
        let shown = self.text.get(from..).unwrap_or_default();
        if !shown.trim().is_empty() && !shown.contains(target) {
            self.text.push_str(&format!(" ({target})"));
        }
    }

    fn end_paragraph(&mut self) {
        self.link = None;
        let (text, heading, list) = (std::mem::take(&mut self.text), self.heading.take(), self.list.take());
        if text.trim().is_empty() {
            return;
        }
        match (heading, list) {
            (Some(level), _) => {
                self.end_lists(0);
                self.outline.heading(level, &text);
            }
            (None, Some(level)) if self.tables == 0 => {
                // Word's lists have nine levels (ECMA-376, part 1, 17.9.6).
                let level = level.min(8) + 1;
                self.end_lists(level);
                while self.lists < level {
                    self.outline.begin_list(None);
                    self.lists += 1;
                }
                self.outline.begin_item();
                self.outline.paragraph(&text);
            }
            _ => {
                self.end_lists(0);
                self.outline.paragraph(&text);
            }
        }
    }

    fn end_lists(&mut self, but: usize) {
        while self.lists > but {
            self.outline.end_list();
            self.lists -= 1;
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use zip::write::{SimpleFileOptions, ZipWriter};

    use super::*;

    const MOST: usize = 1 << 20;
    const W: &str = "xmlns:w=\"http://schemas.openxmlformats.org/wordprocessingml/2006/main\" \
        xmlns:r=\"http://schemas.openxmlformats.org/officeDocument/2006/relationships\"";

    pub(in super::super) fn archive(parts: &[(&str, &[u8])]) -> Vec<u8> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in parts {
            zip.start_file(*name, SimpleFileOptions::default()).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    fn docx(body: &str) -> Vec<u8> {
        let document = format!("<?xml version=\"1.0\"?><w:document {W}><w:body>{body}</w:body></w:document>");
        archive(&[("word/document.xml", document.as_bytes())])
    }

    fn why(bytes: &[u8]) -> String {
        extract(bytes, MOST).unwrap_err()
    }

    #[test]
    fn a_document_keeps_its_headings_lists_and_tables() {
        let styles = format!(
            "<w:styles {W}><w:style w:styleId=\"berschrift1\"><w:name w:val=\"heading 1\"/></w:style></w:styles>"
        );
        let rels = "<Relationships><Relationship Id=\"rId1\" TargetMode=\"External\" Target=\"mailto:a@acme.example\"/></Relationships>";
        let core =
            "<cp:coreProperties xmlns:dc=\"d\"><dc:title>Acme &amp; Sons</dc:title></cp:coreProperties>";
        let item = |level: u8, text: &str| {
            format!(
                "<w:p><w:pPr><w:numPr><w:ilvl w:val=\"{level}\"/><w:numId w:val=\"1\"/></w:numPr></w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>"
            )
        };
        let row = |header: &str, cells: [&str; 2]| {
            let cells = cells.map(|cell| format!("<w:tc><w:p><w:r><w:t>{cell}</w:t></w:r></w:p></w:tc>"));
            format!("<w:tr><w:trPr>{header}</w:trPr>{}</w:tr>", cells.concat())
        };
        let body = format!(
            "<w:p><w:pPr><w:pStyle w:val=\"berschrift1\"/></w:pPr><w:r><w:t>Opening </w:t></w:r><w:r><w:t>hours</w:t></w:r></w:p>\
             <w:p><w:r><w:t>Nine&#160;to</w:t><w:br/><w:t>five &lt;pm&gt;.</w:t></w:r><w:del><w:r><w:delText>gone</w:delText></w:r></w:del></w:p>\
             {}{}<w:tbl>{}{}</w:tbl>\
             <w:p><w:hyperlink r:id=\"rId1\"><w:r><w:t>Write</w:t></w:r></w:hyperlink><w:r><w:t> to us</w:t></w:r></w:p>",
            item(0, "Mon"),
            item(1, "am"),
            row("<w:tblHeader/>", ["Service", "Price"]),
            row("", ["Cleaning", "60"]),
        );
        let document = format!("<w:document {W}><w:body>{body}</w:body></w:document>");
        let parts: [(&str, &[u8]); 4] = [
            ("word/document.xml", document.as_bytes()),
            ("word/styles.xml", styles.as_bytes()),
            ("word/_rels/document.xml.rels", rels.as_bytes()),
            ("docProps/core.xml", core.as_bytes()),
        ];
        let extracted = extract(&archive(&parts), MOST).unwrap();
        assert_eq!(extracted.title.as_deref(), Some("Acme & Sons"));
        let expected = "# Opening hours\n\nNine to\\\nfive \\<pm\\>.\n\n- Mon\n  - am\n\n<!-- -->\n\n\
            | Service | Price |\n| --- | --- |\n| Cleaning | 60 |\n\nWrite (a@acme.example) to us\n";
        assert_eq!(extracted.text, expected);
    }

    #[test]
    fn a_bomb_is_refused_before_it_is_unpacked() {
        let zeros = vec![b' '; 4 << 20];
        assert!(why(&archive(&[("word/document.xml", &zeros)])).contains("unpacks to more than"));
        let entries: Vec<_> = (0..=MOST_ENTRIES).map(|n| format!("e{n}")).collect();
        let entries: Vec<(&str, &[u8])> = entries.iter().map(|name| (name.as_str(), &b""[..])).collect();
        assert!(why(&archive(&entries)).contains("10001 entries"));
    }

    #[test]
    fn deep_nesting_and_entities_are_refused() {
        let deep = format!("{}{}", "<w:p>".repeat(50_000), "</w:p>".repeat(50_000));
        assert!(why(&docx(&deep)).contains("nest deeper than 256"));
        let laughs = b"<!DOCTYPE x [<!ENTITY a \"ha\"><!ENTITY b \"&a;&a;\">]><x>&b;</x>";
        assert!(why(&archive(&[("word/document.xml", laughs)])).contains("declares entities"));
    }

    #[test]
    fn a_file_that_is_no_docx_is_refused() {
        assert!(why(b"PK\x03\x04 broken").contains("archive is broken"));
        assert!(why(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1....").contains("password"));
        assert!(why(&archive(&[("xl/workbook.xml", b"<x/>")])).contains("no word/document.xml"));
        assert!(why(&docx("<w:p/>")).contains("no text"));
        assert!(why(&docx("<w:p><w:r></w:p>")).contains("XML is broken"));
        let mut cut = docx("<w:p><w:r><w:t>hello</w:t></w:r></w:p>");
        cut.truncate(60);
        assert!(why(&cut).contains("broken"));
        let long = format!("<w:p><w:r><w:t>{}</w:t></w:r></w:p>", "word ".repeat(1_000));
        assert!(extract(&docx(&long), 1_000).unwrap_err().contains("more than 1000 bytes"));
    }
}
