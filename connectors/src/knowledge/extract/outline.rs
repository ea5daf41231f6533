//! Document written as Markdown: the form in which HTML and DOCX are kept.
//!
//! Headings, paragraphs, lists, tables and code stay what they are; every other sign is escaped, so that
//! reading the Markdown again gives the words as they stood. Spaces and line ends are those of a reader, not
//! of the file.

/// Maximum number of levels at which lists are indented; deeper ones stand at the last.
const INDENTED_LEVELS: usize = 4;
/// Characters of a table's cell from which on its table is a frame for paragraphs, not a table.
const LONG_CELL: usize = 300;

/// The Markdown under way.
#[derive(Debug, Default)]
pub(super) struct Outline {
    markdown: String,
    /// The indentation of each list around, and the next number where it is numbered.
    lists: Vec<(usize, Option<u64>)>,
    /// An item has begun and has no text yet.
    marker: Option<String>,
    /// Indent of the item in progress.
    indent: usize,
    table: Option<Table>,
}

#[derive(Debug, Default)]
struct Table {
    rows: Vec<Vec<String>>,
    has_header: bool,
    /// The row under way is said to be a header.
    in_header: bool,
}

impl Outline {
    /// Bytes written.
    pub(super) fn len(&self) -> usize {
        self.markdown.len()
    }

    /// The Markdown.
    pub(super) fn finish(mut self) -> String {
        self.end_table();
        self.markdown
    }

    /// A heading of level 1 to 6. In a table or list it is a paragraph: they have no headings in Markdown.
    pub(super) fn heading(&mut self, level: u8, text: &str) {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if text.is_empty() {
            return;
        }
        if self.table.is_some() || !self.lists.is_empty() {
            return self.paragraph(&text);
        }
        self.begin_block();
        self.markdown.extend(std::iter::repeat_n('#', usize::from(level.clamp(1, 6))));
        self.markdown.push(' ');
        escape(&text, false, &mut self.markdown);
        self.markdown.push('\n');
    }

    /// A paragraph, or the text of an item or a cell; a line's end in it stays one.
    pub(super) fn paragraph(&mut self, text: &str) {
        let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        let lines: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
        if lines.is_empty() {
            return;
        }
        if let Some(table) = &mut self.table {
            if table.rows.is_empty() {
                table.rows.push(Vec::new());
            }
            let row = table.rows.last_mut().expect("a row was begun");
            if row.is_empty() {
                row.push(String::new());
            }
            let cell = row.last_mut().expect("a cell was begun");
            if !cell.is_empty() {
                cell.push(' ');
            }
            cell.push_str(&lines.join(" "));
            return;
        }
        if self.lists.is_empty() {
            self.begin_block();
        } else if let Some(marker) = self.marker.take() {
            self.end_line();
            self.markdown.extend(std::iter::repeat_n(' ', self.indent));
            self.markdown.push_str(&marker);
            self.indent += marker.len();
        } else {
            self.hard_break();
        }
        for (index, line) in lines.iter().enumerate() {
            if index > 0 {
                self.hard_break();
            }
            escape(line, true, &mut self.markdown);
        }
        self.markdown.push('\n');
    }

    /// A piece of code, its lines as they are.
    pub(super) fn code(&mut self, text: &str) {
        if text.trim().is_empty() {
            return;
        }
        if self.table.is_some() || !self.lists.is_empty() {
            return self.paragraph(text);
        }
        let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or_default();
        let fence = "`".repeat(longest.max(2) + 1);
        self.begin_block();
        let text = text.trim_matches('\n');
        self.markdown.extend([fence.as_str(), "\n", text, "\n", fence.as_str(), "\n"]);
    }

    /// Begins a list, within the item under way if there is one.
    pub(super) fn begin_list(&mut self, first: Option<u64>) {
        if self.table.is_some() {
            return;
        }
        if self.lists.is_empty() {
            self.begin_block();
            self.indent = 0;
        }
        let indent = if self.lists.len() < INDENTED_LEVELS {
            self.indent
        } else {
            self.lists.last().map_or(0, |(indent, _)| *indent)
        };
        self.lists.push((indent, first));
        self.marker = None;
    }

    /// Begins an item; outside of a list it begins one.
    pub(super) fn begin_item(&mut self) {
        if self.table.is_some() {
            return;
        }
        if self.lists.is_empty() {
            self.begin_list(None);
        }
        let (indent, number) = self.lists.last_mut().expect("a list was begun");
        self.indent = *indent;
        self.marker = Some(match number {
            Some(number) => {
                // Markdown has numbers of nine digits at most (CommonMark 0.31, 5.2).
                let marker = format!("{}. ", (*number).min(999_999_999));
                *number = number.saturating_add(1);
                marker
            }
            None => "- ".to_owned(),
        });
    }

    /// Ends the innermost list.
    pub(super) fn end_list(&mut self) {
        if self.table.is_some() {
            return;
        }
        if self.lists.pop().is_none() {
            return;
        }
        self.marker = None;
        if self.lists.is_empty() {
            self.indent = 0;
            // Two lists after one another would be one.
            self.begin_block();
            if !self.markdown.is_empty() {
                self.markdown.push_str("<!-- -->\n");
            }
        }
    }

    /// Begins a table; one within another ends that first.
    pub(super) fn begin_table(&mut self) {
        self.end_table();
        self.table = Some(Table::default());
    }

    /// Begins a row of a table.
    pub(super) fn begin_row(&mut self) {
        if let Some(table) = &mut self.table {
            table.rows.push(Vec::new());
            table.in_header = false;
        }
    }

    /// Says that the row under way, before its first cell, names the columns.
    pub(super) fn header(&mut self) {
        if let Some(table) = &mut self.table {
            table.in_header = true;
        }
    }

    /// Begins a cell; cells of a header name the columns.
    pub(super) fn begin_cell(&mut self, is_header: bool) {
        let Some(table) = &mut self.table else { return };
        if table.rows.is_empty() {
            table.rows.push(Vec::new());
        }
        let is_first = table.rows.len() == 1;
        let row = table.rows.last_mut().expect("a row was begun");
        if is_first {
            table.has_header = (is_header || table.in_header) && (row.is_empty() || table.has_header);
        }
        row.push(String::new());
    }

    /// Ends the table.
    pub(super) fn end_table(&mut self) {
        let Some(Table { mut rows, has_header, .. }) = self.table.take() else { return };
        rows.retain(|row| row.iter().any(|cell| !cell.is_empty()));
        let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
        let is_frame = columns < 2 || rows.iter().flatten().any(|cell| cell.chars().count() > LONG_CELL);
        if is_frame {
            rows.into_iter().flatten().for_each(|cell| self.paragraph(&cell));
        } else if has_header && self.lists.is_empty() {
            self.begin_block();
            for (index, row) in rows.iter().enumerate() {
                for column in 0..columns {
                    self.markdown.push_str("| ");
                    escape(row.get(column).map_or("", String::as_str), false, &mut self.markdown);
                    self.markdown.push(' ');
                }
                self.markdown.push_str("|\n");
                if index == 0 {
                    self.markdown.push_str(&"| --- ".repeat(columns));
                    self.markdown.push_str("|\n");
                }
            }
        } else {
            let row = |row: &Vec<String>| {
                row.iter().filter(|cell| !cell.is_empty()).map(String::as_str).collect::<Vec<_>>().join("; ")
            };
            let text: Vec<_> = rows.iter().map(row).collect();
            self.paragraph(&text.join("\n"));
        }
    }

    fn begin_block(&mut self) {
        self.end_line();
        if !self.markdown.is_empty() && !self.markdown.ends_with("\n\n") {
            self.markdown.push('\n');
        }
    }

    fn end_line(&mut self) {
        if !self.markdown.is_empty() && !self.markdown.ends_with('\n') {
            self.markdown.push('\n');
        }
    }

    /// Continues in a new line of the same block.
    fn hard_break(&mut self) {
        if self.markdown.ends_with('\n') {
            self.markdown.pop();
        }
        self.markdown.push_str("\\\n");
        self.markdown.extend(std::iter::repeat_n(' ', self.indent));
    }
}

/// Writes a line so that Markdown has no other meaning for it. Any ASCII punctuation may be escaped
/// (CommonMark 0.31, 2.4).
fn escape(line: &str, begins_line: bool, markdown: &mut String) {
    let digits = line.bytes().take_while(u8::is_ascii_digit).count();
    for (at, c) in line.char_indices() {
        let always = matches!(
            c,
            '\\' | '`' | '*' | '_' | '[' | ']' | '{' | '}' | '<' | '>' | '#' | '|' | '&' | '~' | '!'
        );
        let at_start = begins_line && at == 0 && matches!(c, '-' | '+' | '=' | ':');
        let of_number = begins_line && digits > 0 && at == digits && matches!(c, '.' | ')');
        if always || at_start || of_number {
            markdown.push('\\');
        }
        markdown.push(c);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::markdown::{self, Part};
    use super::*;

    fn parts(outline: Outline) -> Vec<Part> {
        let mut parts = Vec::new();
        markdown::read(&outline.finish(), &mut |part| {
            parts.push(part);
            true
        });
        parts
    }

    #[test]
    fn lists_and_tables_read_as_they_were_written() {
        let mut outline = Outline::default();
        outline.heading(2, "Opening # hours");
        outline.begin_list(Some(3));
        outline.begin_item();
        outline.paragraph("Mon - Fri");
        outline.paragraph("by appointment");
        outline.begin_list(None);
        outline.begin_item();
        outline.paragraph("morning");
        outline.end_list();
        outline.begin_item();
        outline.paragraph("Sat");
        outline.end_list();
        outline.begin_table();
        for (header, cells) in [(true, ["Service", "Price"]), (false, ["Check|up", "60 €"])] {
            outline.begin_row();
            for cell in cells {
                outline.begin_cell(header);
                outline.paragraph(cell);
            }
        }
        outline.end_table();
        outline.code("a `b`\n  c");
        let expected = [
            Part::Heading(2, "Opening # hours".into()),
            Part::Block("3. Mon - Fri\nby appointment\n  • morning\n4. Sat".into()),
            Part::Block("Service: Check|up; Price: 60 €\n".into()),
            Part::Block("a `b`\n  c\n".into()),
        ];
        assert_eq!(parts(outline), expected);
    }

    proptest! {
        #[test]
        fn any_text_comes_back_as_it_was(
            paragraphs in prop::collection::vec("[ -~äß€]{0,40}(\n[ -~]{0,20})?", 1..6),
            heading in "[ -~]{0,30}",
            level in 1_u8..=6,
        ) {
            let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            let mut outline = Outline::default();
            let mut expected = Vec::new();
            outline.heading(level, &heading);
            if !flat(&heading).is_empty() {
                expected.push(Part::Heading(level, flat(&heading)));
            }
            for paragraph in &paragraphs {
                outline.paragraph(paragraph);
                let lines: Vec<_> =
                    paragraph.lines().map(flat).filter(|line| !line.is_empty()).collect();
                if !lines.is_empty() {
                    expected.push(Part::Block(lines.join("\n")));
                }
            }
            prop_assert_eq!(parts(outline), expected);
        }
    }
}
