//! Reasons for which a row is refused, and the file of refused rows.

use std::io::{self, Write};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Reason for which a row is refused. The name is stable; [`Reason::advice`] is for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The cell of the phone number is empty.
    NoNumber,
    /// The cell of the phone number holds other text.
    NotANumber,
    /// A spreadsheet has rounded the number.
    DigitsLost,
    /// The number has no country code, and the import no country.
    NoCountry,
    /// No such number can exist.
    InvalidNumber,
    /// The cell holds several numbers.
    SeveralNumbers,
    /// The cell's formula has failed.
    FormulaError,
    /// A quote is not closed.
    OpenQuote,
    /// Text follows a closing quote.
    StrayQuote,
    /// The row has more columns than a row may have.
    TooManyColumns,
    /// The row, or one of its cells, is longer than it may be.
    TooLong,
    /// The consent names a purpose that does not exist.
    UnknownPurpose,
    /// The cell of the consent is neither a yes nor a no.
    UnclearConsent,
    /// The consent has no time.
    NoConsentTime,
    /// The time of the consent cannot be read.
    UnclearConsentTime,
    /// The time of the consent is yet to come.
    FutureConsent,
    /// The import has the most people that one may have.
    TooManyPeople,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 17] = [
        Self::NoNumber,
        Self::NotANumber,
        Self::DigitsLost,
        Self::NoCountry,
        Self::InvalidNumber,
        Self::SeveralNumbers,
        Self::FormulaError,
        Self::OpenQuote,
        Self::StrayQuote,
        Self::TooManyColumns,
        Self::TooLong,
        Self::UnknownPurpose,
        Self::UnclearConsent,
        Self::NoConsentTime,
        Self::UnclearConsentTime,
        Self::FutureConsent,
        Self::TooManyPeople,
    ];

    /// Stable name, as it stands in answers and in the file of refused rows.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoNumber => "no_number",
            Self::NotANumber => "not_a_number",
            Self::DigitsLost => "digits_lost",
            Self::NoCountry => "no_country",
            Self::InvalidNumber => "invalid_number",
            Self::SeveralNumbers => "several_numbers",
            Self::FormulaError => "formula_error",
            Self::OpenQuote => "open_quote",
            Self::StrayQuote => "stray_quote",
            Self::TooManyColumns => "too_many_columns",
            Self::TooLong => "too_long",
            Self::UnknownPurpose => "unknown_purpose",
            Self::UnclearConsent => "unclear_consent",
            Self::NoConsentTime => "no_consent_time",
            Self::UnclearConsentTime => "unclear_consent_time",
            Self::FutureConsent => "future_consent",
            Self::TooManyPeople => "too_many_people",
        }
    }

    /// The fault in a sentence, and how to mend it.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::NoNumber => "the row has no phone number",
            Self::NotANumber => "the cell of the phone number holds other text",
            Self::DigitsLost => {
                "the spreadsheet rounded the number; format the column as text before you export it"
            }
            Self::NoCountry => "the number has no country code; write it with + or give the import a country",
            Self::InvalidNumber => "no such phone number exists; check its country and its digits",
            Self::SeveralNumbers => "the cell holds several numbers; leave the one to write to",
            Self::FormulaError => "the formula in the cell of the phone number has failed",
            Self::OpenQuote => "a quote is opened and not closed",
            Self::StrayQuote => "text follows a closing quote; a quote inside a cell is written twice",
            Self::TooManyColumns => "the row has more than 512 columns",
            Self::TooLong => "the row has more than 64 KiB",
            Self::UnknownPurpose => "the consent's purpose is unknown; write marketing, utility or all",
            Self::UnclearConsent => "the consent is neither a yes nor a no",
            Self::NoConsentTime => {
                "the consent has no time; add a column with the time or give one for the file"
            }
            Self::UnclearConsentTime => {
                "the consent's time is unclear; write it as 2026-03-01 or 2026-03-01T10:00:00Z"
            }
            Self::FutureConsent => "the consent's time is in the future",
            Self::TooManyPeople => "the file has more than 5,000,000 people; split it",
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.advice())
    }
}

/// Refused row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reject {
    /// The line on which the row begins, from 1; in a workbook, the number of the row.
    pub line: u64,
    /// The reason.
    pub reason: Reason,
    /// The cells of the row, as they were read.
    pub cells: Vec<String>,
}

/// Writer of the file of refused rows: CSV with `line`, `reason` and the row's own cells, so that it can be mended and
/// imported again.
pub struct RejectFile<W> {
    to: W,
    is_begun: bool,
}

impl<W: Write> RejectFile<W> {
    /// Creates a writer. It writes nothing before the first row.
    pub fn new(to: W) -> Self {
        Self { to, is_begun: false }
    }

    /// Writes a row; `header` are the names of the file's columns.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write(
        &mut self,
        header: &[String],
        (line, reason): (u64, &str),
        cells: &[String],
    ) -> io::Result<()> {
        if !std::mem::replace(&mut self.is_begun, true) {
            write_row(&mut self.to, ["line", "reason"].into_iter().chain(header.iter().map(String::as_str)))?;
        }
        let line = line.to_string();
        let head = [line.as_str(), reason];
        write_row(&mut self.to, head.into_iter().chain(cells.iter().map(String::as_str)))
    }

    /// Ends the file.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn finish(mut self) -> io::Result<W> {
        self.to.flush()?;
        Ok(self.to)
    }
}

/// Writes a row of CSV, safe to open in a spreadsheet: a cell that a spreadsheet would take for a formula begins with
/// an apostrophe, which an import takes off again ([`unguarded`]).
///
/// # Errors
/// Those of the writer.
pub fn write_row<'a>(to: &mut impl Write, cells: impl IntoIterator<Item = &'a str>) -> io::Result<()> {
    let mut line = String::new();
    for (index, cell) in cells.into_iter().enumerate() {
        if index > 0 {
            line.push(',');
        }
        let guard = if is_formula(cell) { "'" } else { "" };
        // An empty line would be no row.
        if !cell.is_empty() && !cell.contains([',', ';', '"', '\n', '\r', '\t', '|', ' ']) {
            line.push_str(guard);
            line.push_str(cell);
            continue;
        }
        line.push('"');
        line.push_str(guard);
        line.push_str(&cell.replace('"', "\"\""));
        line.push('"');
    }
    line.push_str("\r\n");
    to.write_all(line.as_bytes())
}

/// Returns whether a spreadsheet would compute the text: phone numbers and negative numbers are left as they are.
fn is_formula(cell: &str) -> bool {
    match cell.as_bytes() {
        [b'=' | b'@' | b'\t' | b'\r', ..] => true,
        [b'+' | b'-', rest @ ..] => {
            !rest.iter().all(|byte| byte.is_ascii_digit() || b" .,()-/".contains(byte))
        }
        // So that the apostrophe that is taken off again is the one that was put on.
        [b'\'', rest @ ..] => matches!(rest.first(), Some(b'=' | b'@' | b'+' | b'-' | b'\t' | b'\r' | b'\'')),
        _ => false,
    }
}

/// The text of a cell without the apostrophe that [`write_row`] or a spreadsheet has put before it.
#[must_use]
pub fn unguarded(cell: &str) -> &str {
    match cell.strip_prefix('\'') {
        Some(rest) if rest.starts_with(['=', '@', '+', '-', '\t', '\r', '\'']) => rest,
        _ => cell,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_name_of_its_own_that_is_the_stored_one() {
        let names: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(names.len(), Reason::ALL.len());
    }

    #[test]
    fn a_refused_row_keeps_its_cells_and_runs_no_formula() {
        let mut file = RejectFile::new(Vec::new());
        let cells = ["=HYPERLINK(\"x\")", "+49 151", "a\"b", "-5"].map(String::from).to_vec();
        let header = ["name", "phone", "note", "n"].map(String::from);
        file.write(&header, (7, Reason::InvalidNumber.as_str()), &cells).unwrap();
        let text = String::from_utf8(file.finish().unwrap()).unwrap();
        assert_eq!(
            text,
            "line,reason,name,phone,note,n\r\n7,invalid_number,\"'=HYPERLINK(\"\"x\"\")\",\"+49 151\",\"a\"\"b\",-5\r\n"
        );
    }

    #[test]
    fn the_guard_comes_off_as_it_went_on() {
        for cell in ["=1", "@x", "+49151", "-x", "'=1", "''=1", "plain", "'quoted", ""] {
            let mut line = Vec::new();
            write_row(&mut line, [cell]).unwrap();
            let text = String::from_utf8(line).unwrap();
            assert_eq!(unguarded(text.trim_end().trim_matches('"')), cell);
        }
    }
}
