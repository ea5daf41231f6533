//! CommonMark, with GitHub's tables, read as headings and blocks of plain text.
//!
//! The result is text as people read it: emphasis and HTML are removed, a list's items are lines
//! beginning with a dot or their number, a table's row is a line that names its columns
//! ("Service: Cleaning; Price: 60 €"), and a link is followed by its address. Metadata before the text is left out.
//! The parser gives a flat stream of events, and the state while reading is bounded by a block,
//! so neither depth nor length of a document costs more than its size.

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

/// Part of a document, in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// A heading, of level 1 to 6.
    Heading(u8, String),
    /// A paragraph, list, table or piece of code; a long list or table comes as several.
    Block(String),
}

/// Bytes from which on a list or table is handed on in pieces.
const LONG_BLOCK: usize = 1600;

/// Characters of a column's name that are repeated in each of its cells.
const COLUMN_NAME: usize = 80;

/// Levels of a list that are set in further than the one above.
const INDENTED_LEVELS: usize = 4;

/// Hands the parts of a document to `take`, until it says false.
pub(super) fn read(text: &str, take: &mut dyn FnMut(Part) -> bool) {
    let mut reader = Reader::default();
    for event in Parser::new_ext(text, options()) {
        reader.event(event);
        for part in reader.done.drain(..) {
            if !take(part) {
                return;
            }
        }
    }
    reader.end_block();
    for part in reader.done {
        if !take(part) {
            return;
        }
    }
}

/// The first heading with a text.
pub(super) fn first_heading(text: &str) -> Option<String> {
    let mut found = None;
    read(text, &mut |part| {
        if let Part::Heading(_, heading) = part {
            found = Some(heading);
        }
        found.is_none()
    });
    found
}

fn options() -> Options {
    Options::ENABLE_TABLES
        | Options::ENABLE_STRIKETHROUGH
        | Options::ENABLE_FOOTNOTES
        | Options::ENABLE_TASKLISTS
        | Options::ENABLE_HEADING_ATTRIBUTES
        | Options::ENABLE_YAML_STYLE_METADATA_BLOCKS
}

#[derive(Default)]
struct Reader {
    /// The block under way.
    text: String,
    /// Beginning of its last line, after the marker of an item.
    line_from: usize,
    done: Vec<Part>,
    /// The next number of each list around, where it is numbered.
    lists: Vec<Option<u64>>,
    /// Beginning in the text and target of each link around.
    links: Vec<(usize, String)>,
    columns: Vec<String>,
    cells: Vec<String>,
    rows: String,
    in_heading: bool,
    in_metadata: bool,
}

impl Reader {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(_) | Event::Code(_) if self.in_metadata => {}
            Event::Text(text) | Event::Code(text) => self.push(&text),
            Event::SoftBreak => self.text.push(' '),
            Event::HardBreak => self.new_line(),
            Event::InlineHtml(html) if html.starts_with("<br") => self.new_line(),
            _ => {}
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Paragraph | Tag::CodeBlock(_) if !self.lists.is_empty() => self.new_line(),
            Tag::Heading { .. } if !self.lists.is_empty() => self.new_line(),
            Tag::Heading { .. } => {
                self.end_block();
                self.in_heading = true;
            }
            Tag::List(first) => self.lists.push(first),
            Tag::Item => self.start_item(),
            Tag::Table(_) => self.end_block(),
            Tag::Link { dest_url, .. } => self.links.push((self.text.len(), dest_url.into_string())),
            Tag::MetadataBlock(_) => self.in_metadata = true,
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Paragraph | TagEnd::CodeBlock | TagEnd::HtmlBlock if self.lists.is_empty() => {
                self.end_block()
            }
            TagEnd::Heading(level) if self.in_heading => self.end_heading(level as u8),
            TagEnd::Item => self.end_item(),
            TagEnd::List(_) => self.end_list(),
            TagEnd::TableCell => {
                let cell = collapsed(&self.take_text());
                self.cells.push(cell);
            }
            TagEnd::TableHead => self.end_table_head(),
            TagEnd::TableRow => self.end_table_row(),
            TagEnd::Table => self.end_table(),
            TagEnd::Link => self.end_link(),
            TagEnd::MetadataBlock(_) => self.in_metadata = false,
            _ => {}
        }
    }

    fn push(&mut self, text: &str) {
        self.text.push_str(text);
        if text.ends_with('\n') {
            self.line_from = self.text.len();
        }
    }

    /// Begins a line, unless at the beginning of one or of an item.
    fn new_line(&mut self) {
        if self.in_heading {
            self.text.push(' ');
        } else if self.text.len() > self.line_from {
            self.push("\n");
        }
    }

    fn take_text(&mut self) -> String {
        self.line_from = 0;
        self.links.clear();
        std::mem::take(&mut self.text)
    }

    fn end_block(&mut self) {
        let block = self.take_text();
        if !block.trim().is_empty() {
            self.done.push(Part::Block(block));
        }
    }

    fn end_heading(&mut self, level: u8) {
        self.in_heading = false;
        let heading = collapsed(&self.take_text());
        if !heading.is_empty() {
            self.done.push(Part::Heading(level, heading));
        }
    }

    fn start_item(&mut self) {
        self.new_line();
        let depth = self.lists.len().saturating_sub(1).min(INDENTED_LEVELS);
        self.text.extend(std::iter::repeat_n("  ", depth));
        match self.lists.last_mut() {
            Some(Some(number)) => {
                self.text.push_str(&format!("{number}. "));
                *number = number.saturating_add(1);
            }
            _ => self.text.push_str("• "),
        }
        self.line_from = self.text.len();
    }

    fn end_item(&mut self) {
        if self.lists.len() == 1 && self.text.len() > LONG_BLOCK {
            self.end_block();
        }
    }

    fn end_list(&mut self) {
        self.lists.pop();
        if self.lists.is_empty() {
            self.end_block();
        }
    }

    fn end_table_head(&mut self) {
        let name = |cell: String| cell.chars().take(COLUMN_NAME).collect();
        self.columns = std::mem::take(&mut self.cells).into_iter().map(name).collect();
    }

    fn end_table_row(&mut self) {
        let cells = std::mem::take(&mut self.cells);
        let named = cells.iter().zip(&self.columns).filter(|(cell, _)| !cell.is_empty());
        let row: Vec<_> = named
            .map(|(cell, column)| if column.is_empty() { cell.clone() } else { format!("{column}: {cell}") })
            .collect();
        self.rows.push_str(&row.join("; "));
        self.rows.push('\n');
        if self.rows.len() > LONG_BLOCK {
            self.end_rows();
        }
    }

    fn end_rows(&mut self) {
        let rows = std::mem::take(&mut self.rows);
        if !rows.trim().is_empty() {
            self.done.push(Part::Block(rows));
        }
    }

    fn end_table(&mut self) {
        self.end_rows();
        self.columns.clear();
    }

    fn end_link(&mut self) {
        let Some((from, address)) = self.links.pop() else { return };
        let shown = self.text.get(from..).unwrap_or_default();
        let address = address.strip_prefix("mailto:").or(address.strip_prefix("tel:")).unwrap_or(&address);
        let leads_outside = address.contains("://") || address.contains('@') || address.starts_with('+');
        if leads_outside && !self.in_heading && !shown.contains(address) {
            self.text.push_str(&format!(" ({address})"));
        }
    }
}

/// Returns the text with single spaces only.
fn collapsed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Vec<Part> {
        let mut parts = Vec::new();
        read(text, &mut |part| {
            parts.push(part);
            true
        });
        parts
    }

    fn blocks(text: &str) -> Vec<String> {
        let block = |part| match part {
            Part::Block(block) => block,
            Part::Heading(..) => panic!("a heading in {text:?}"),
        };
        parts(text).into_iter().map(block).collect()
    }

    #[test]
    fn headings_and_paragraphs_come_in_order() {
        let text = "Intro\nin two lines.\n\n# Opening *hours* {#hours}\n\nNine to **five**.\n\nPrices\n---\n";
        let expected = [
            Part::Block("Intro in two lines.".into()),
            Part::Heading(1, "Opening hours".into()),
            Part::Block("Nine to five.".into()),
            Part::Heading(2, "Prices".into()),
        ];
        assert_eq!(parts(text), expected);
    }

    #[test]
    fn lists_are_lines() {
        let text = "- Mon\n- Tue\n  1. am\n  2. pm\n\n  closed in May\n- [x] Wed\n";
        assert_eq!(blocks(text), ["• Mon\n• Tue\n  1. am\n  2. pm\nclosed in May\n• Wed"]);
    }

    #[test]
    fn a_tables_row_names_its_columns() {
        let text = "| Service | Price |\n|---|---|\n| Cleaning | 60 € |\n| Check-up | |\n";
        assert_eq!(blocks(text), ["Service: Cleaning; Price: 60 €\nService: Check-up\n"]);
    }

    #[test]
    fn a_link_is_followed_by_where_it_leads() {
        let text = "[Book](https://acme.example/book), <https://acme.example>, \
                    [write](mailto:a@acme.example), [call](tel:+4930) or [see](#above).";
        let expected = "Book (https://acme.example/book), https://acme.example, \
                        write (a@acme.example), call (+4930) or see.";
        assert_eq!(blocks(text), [expected]);
    }

    #[test]
    fn code_stays_and_markup_goes() {
        let text = "---\ntitle: x\n---\n\nRun `heddle`:\n\n```sh\nheddle serve\n```\n\n<!-- note -->\n\n\
                    > Quoted ~~not~~\n\n![a map](map.png) here<br>there";
        let expected = ["Run heddle:", "heddle serve\n", "Quoted not", "a map here\nthere"];
        assert_eq!(blocks(text), expected);
    }

    #[test]
    fn a_long_list_comes_in_pieces() {
        let text = "- an item of a long list\n".repeat(1_000);
        let blocks = blocks(&text);
        assert!(blocks.len() > 10 && blocks.iter().all(|block| block.len() < 2 * LONG_BLOCK));
        assert_eq!(blocks.concat().matches("an item").count(), 1_000);
    }
}
