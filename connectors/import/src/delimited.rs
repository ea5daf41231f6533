//! Rows of delimited text (CSV), with the line on which each begins.
//!
//! The format is RFC 4180's, and what programs write beside it: the delimiters `,` `;` tab and `|`, Excel's `sep=;`
//! line, line ends `\n`, `\r\n` and `\r`, spaces before a quote. A quote that is never closed costs its own line and
//! no other: the text after that line is read again. That is why this is not the `csv` crate, which would take the
//! rest of the file as one cell; the tests compare the two.

use std::io::{self, Read};

use crate::encoding::Decoded;
use crate::reject::Reason;
use crate::table::{COLUMNS, ROW_BYTES, Row};

/// Delimiters, in the order of preference where several fit equally.
const DELIMITERS: [u8; 4] = [b';', b',', b'\t', b'|'];
/// Rows that are parsed to find the delimiter.
const SAMPLED: usize = 20;

/// Reader of delimited rows.
pub(crate) struct Delimited<R> {
    text: Decoded<R>,
    delimiter: u8,
    held: Vec<u8>,
    at: usize,
    ended: bool,
    line: u64,
}

/// Outcome of parsing one row.
#[derive(Debug, PartialEq, Eq)]
enum Parsed {
    /// A row, and the number of bytes it takes with its line end.
    Row(usize),
    /// The text ends before the row does.
    Incomplete,
    /// A row that is not well formed.
    Bad(Reason),
}

impl<R: Read> Delimited<R> {
    /// Reads the beginning of a text, and finds its delimiter there.
    pub(crate) fn new(text: Decoded<R>) -> io::Result<Self> {
        let mut rows = Self { text, delimiter: b',', held: Vec::new(), at: 0, ended: false, line: 1 };
        rows.fill()?;
        let first = memchr::memchr2(b'\n', b'\r', &rows.held).unwrap_or(rows.held.len());
        match rows.held[..first].strip_prefix(b"sep=") {
            Some(&[delimiter]) if delimiter.is_ascii() && delimiter != b'"' => {
                rows.delimiter = delimiter;
                rows.skip_line();
            }
            _ => rows.delimiter = guess(&rows.held, rows.ended),
        }
        Ok(rows)
    }

    /// The delimiter.
    pub(crate) fn delimiter(&self) -> char {
        self.delimiter.into()
    }

    /// Returns whether the text has bytes that no text has.
    pub(crate) fn is_binary(&self) -> bool {
        memchr::memchr(0, &self.held).is_some()
    }

    /// Reads the next row that is not blank; false at the end. A row that is not well formed is its line and a reason.
    pub(crate) fn next(&mut self, row: &mut Row) -> io::Result<Option<Result<(), Reason>>> {
        loop {
            if self.held.len() - self.at < ROW_BYTES && !self.ended {
                self.fill()?;
            }
            if self.at == self.held.len() {
                return Ok(None);
            }
            row.line = self.line;
            let bytes = &self.held[self.at..];
            match parse(bytes, self.delimiter, self.ended, &mut row.cells) {
                Parsed::Row(taken) => {
                    self.line += lines(&bytes[..taken]);
                    self.at += taken;
                    if row.cells.iter().any(|cell| !cell.trim().is_empty()) {
                        return Ok(Some(Ok(())));
                    }
                }
                Parsed::Bad(reason) => return Ok(Some(Err(self.refuse(row, reason)))),
                Parsed::Incomplete => {
                    return Ok(Some(Err(self.refuse(row, Reason::OpenQuote))));
                }
            }
        }
    }

    /// Leaves out the line at which the reader stands.
    fn refuse(&mut self, row: &mut Row, reason: Reason) -> Reason {
        let before = self.at;
        self.skip_line();
        let mut line = &self.held[before..self.at];
        while let [rest @ .., b'\r' | b'\n'] = line {
            line = rest;
        }
        row.cells.clear();
        row.cells.push(String::from_utf8_lossy(&line[..line.len().min(1_000)]).into_owned());
        reason
    }

    fn skip_line(&mut self) {
        let bytes = &self.held[self.at..];
        self.at += match memchr::memchr2(b'\n', b'\r', bytes) {
            Some(end) => end + line_end(&bytes[end..]),
            None => bytes.len(),
        };
        self.line += 1;
    }

    /// Holds at least [`ROW_BYTES`] of text, unless the text ends before.
    fn fill(&mut self) -> io::Result<()> {
        self.held.drain(..self.at);
        self.at = 0;
        while self.held.len() < ROW_BYTES * 2 && !self.ended {
            self.ended = !self.text.read_into(&mut self.held)?;
        }
        Ok(())
    }
}

/// Length of the line end that the bytes begin with.
fn line_end(bytes: &[u8]) -> usize {
    if bytes.starts_with(b"\r\n") { 2 } else { 1 }
}

/// Number of line ends.
fn lines(bytes: &[u8]) -> u64 {
    let mut ends = 0;
    let mut after_return = false;
    for &byte in bytes {
        ends += u64::from(byte == b'\r' || (byte == b'\n' && !after_return));
        after_return = byte == b'\r';
    }
    ends
}

/// Parses one row into `cells`.
fn parse(bytes: &[u8], delimiter: u8, ended: bool, cells: &mut Vec<String>) -> Parsed {
    cells.clear();
    let mut at = 0;
    loop {
        if cells.len() == COLUMNS {
            return Parsed::Bad(Reason::TooManyColumns);
        }
        match cell(bytes, delimiter, at) {
            Ok((text, end)) => {
                cells.push(text);
                at = end;
            }
            Err(parsed) => return parsed,
        }
        if at > ROW_BYTES {
            return Parsed::Bad(Reason::TooLong);
        }
        match bytes.get(at) {
            None if ended => return Parsed::Row(at),
            None => return Parsed::Incomplete,
            Some(b'\r' | b'\n') => return Parsed::Row(at + line_end(&bytes[at..])),
            // The delimiter.
            Some(_) => at += 1,
        }
    }
}

/// Parses the cell that begins at `at`; returns its text and the place of what ends it.
fn cell(bytes: &[u8], delimiter: u8, at: usize) -> Result<(String, usize), Parsed> {
    let spaces = bytes[at..].iter().take_while(|byte| **byte == b' ').count();
    if bytes.get(at + spaces) == Some(&b'"') {
        return quoted(bytes, delimiter, at + spaces + 1);
    }
    let ends = |byte: &u8| *byte == delimiter || *byte == b'\n' || *byte == b'\r';
    let end = bytes[at..].iter().position(ends).map_or(bytes.len(), |length| at + length);
    Ok((String::from_utf8_lossy(&bytes[at..end]).into_owned(), end))
}

fn quoted(bytes: &[u8], delimiter: u8, mut at: usize) -> Result<(String, usize), Parsed> {
    let mut text = Vec::new();
    loop {
        let Some(quote) = memchr::memchr(b'"', &bytes[at..]).filter(|length| at + length <= ROW_BYTES) else {
            return Err(Parsed::Incomplete);
        };
        text.extend_from_slice(&bytes[at..at + quote]);
        at += quote + 1;
        match bytes.get(at) {
            Some(b'"') => {
                text.push(b'"');
                at += 1;
            }
            _ => break,
        }
    }
    at += bytes[at..].iter().take_while(|byte| **byte == b' ').count();
    match bytes.get(at) {
        Some(&byte) if byte != delimiter && byte != b'\n' && byte != b'\r' => {
            Err(Parsed::Bad(Reason::StrayQuote))
        }
        _ => Ok((String::from_utf8_lossy(&text).into_owned(), at)),
    }
}

/// The delimiter that splits most of the first rows into the same number of cells, more than one.
fn guess(bytes: &[u8], ended: bool) -> u8 {
    let score = |delimiter: u8| {
        let (mut at, mut counts, mut cells) = (0, Vec::new(), Vec::new());
        while counts.len() < SAMPLED && at < bytes.len() {
            match parse(&bytes[at..], delimiter, ended, &mut cells) {
                Parsed::Row(taken) => {
                    at += taken;
                    if cells.len() > 1 || !cells[0].trim().is_empty() {
                        counts.push(cells.len());
                    }
                }
                _ => break,
            }
        }
        let most = counts.iter().copied().max().unwrap_or(0);
        let same = counts.iter().filter(|count| **count == most && most > 1).count();
        (same, most)
    };
    // The first of the best: `max_by_key` would take the last.
    let best = DELIMITERS.into_iter().rev().max_by_key(|delimiter| score(*delimiter));
    best.filter(|delimiter| score(*delimiter).0 > 0).unwrap_or(b',')
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use encoding_rs::UTF_8;
    use proptest::prelude::*;

    use super::*;

    type Read = (u64, Result<Vec<String>, Reason>);

    fn rows(text: &[u8]) -> Vec<Read> {
        let mut reader = Delimited::new(Decoded::new(Cursor::new(text.to_vec()), UTF_8)).unwrap();
        let (mut row, mut all) = (Row::default(), Vec::new());
        while let Some(read) = reader.next(&mut row).unwrap() {
            all.push((row.line, read.map(|()| row.cells.clone())));
        }
        all
    }

    fn good(text: &str) -> Vec<Vec<String>> {
        rows(text.as_bytes()).into_iter().map(|(_, read)| read.unwrap()).collect()
    }

    #[test]
    fn delimiter_line_ends_and_quotes_are_those_of_excel_and_google() {
        let expected = [["name", "phone"], ["Anna, née \"B\"\nC", "+491"]];
        assert_eq!(good("name;phone\r\n\"Anna, née \"\"B\"\"\nC\";+491\r\n"), expected);
        assert_eq!(good("sep=;\r\nname;phone\r\n\"Anna, née \"\"B\"\"\nC\";+491"), expected);
        assert_eq!(good("name,phone\n\"Anna, née \"\"B\"\"\nC\",+491\n"), expected);
        assert_eq!(good("name\tphone\r\"Anna, née \"\"B\"\"\nC\"\t+491\r"), expected);
        assert_eq!(good("name|phone\n\n  \n \"Anna, née \"\"B\"\"\nC\" |+491"), expected);
        assert_eq!(good("phone\n+491\n"), [["phone"], ["+491"]]);
    }

    #[test]
    fn an_open_quote_costs_its_own_line_only() {
        let read = rows(b"name,phone\n\"Anna,+491\nBen,+492\n\"Cleo\",+493\n\"Dora,+494\n");
        let ok = |line, cells: [&str; 2]| (line, Ok(cells.map(String::from).to_vec()));
        let bad = |line, reason| (line, Err(reason));
        assert_eq!(
            read,
            [
                ok(1, ["name", "phone"]),
                bad(2, Reason::StrayQuote),
                ok(3, ["Ben", "+492"]),
                ok(4, ["Cleo", "+493"]),
                bad(5, Reason::OpenQuote),
            ]
        );
    }

    #[test]
    fn rows_too_long_and_too_wide_stop_nothing_and_hold_no_memory() {
        let mut text = String::from("name,phone\n\"");
        text.push_str(&"x\n".repeat(ROW_BYTES));
        let read = rows(text.as_bytes());
        assert_eq!(read[1].1, Err(Reason::OpenQuote));
        assert_eq!(read.len(), ROW_BYTES + 1, "each line after it is a row");
        let wide = format!("a,b\n{}\n1,2\n", ",".repeat(COLUMNS));
        assert_eq!(rows(wide.as_bytes())[1].1, Err(Reason::TooManyColumns));
        let long = format!("a,b\n{},1\n1,2\n", "y".repeat(ROW_BYTES));
        let read = rows(long.as_bytes());
        assert_eq!((&read[1].1, read[2].0), (&Err(Reason::TooLong), 3));
    }

    proptest! {
        #[test]
        fn no_text_panics_and_lines_rise(text in proptest::collection::vec(
            prop_oneof![Just(b'"'), Just(b','), Just(b'\n'), Just(b'\r'), Just(b' '), any::<u8>()], 0..300)) {
            let lines: Vec<_> = rows(&text).into_iter().map(|(line, _)| line).collect();
            prop_assert!(lines.is_sorted_by(|one, other| one < other));
        }

        #[test]
        fn what_the_csv_crate_writes_is_read_as_it_was(
            table in proptest::collection::vec(proptest::collection::vec("[a-z;,\"\n ü]{0,6}z", 3), 1..12),
            semicolon in any::<bool>(),
        ) {
            let delimiter = if semicolon { b';' } else { b',' };
            let style = csv::QuoteStyle::Always;
            let mut writer = csv::WriterBuilder::new().delimiter(delimiter).quote_style(style).from_writer(Vec::new());
            for row in &table {
                writer.write_record(row).unwrap();
            }
            let text = writer.into_inner().unwrap();
            prop_assert_eq!(good(std::str::from_utf8(&text).unwrap()), table);
        }
    }
}
