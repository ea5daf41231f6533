//! Rows of a file of any format: detection, and the rows in order.

use std::io::{self, Read, Seek, SeekFrom};
use std::ops::ControlFlow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::delimited::Delimited;
use crate::encoding::{Decoded, detect};
use crate::people::ImportError;
use crate::reject::Reason;
use crate::workbook;

/// Size of a row, in bytes of UTF-8, at most.
pub const ROW_BYTES: usize = 64 * 1_024;
/// Cells of a row, at most.
pub const COLUMNS: usize = 512;

/// Row of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// The line on which it begins, from 1; in a workbook, the number of the row.
    pub line: u64,
    /// Its cells, as text.
    pub cells: Vec<String>,
}

impl Row {
    /// The text of a cell without white space around it; empty where the row is shorter.
    #[must_use]
    pub fn cell(&self, column: usize) -> &str {
        self.cells.get(column).map_or("", |cell| cell.trim())
    }
}

/// Format that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Format {
    /// Delimited text.
    Csv {
        /// The encoding, by its WHATWG name.
        encoding: String,
        /// The delimiter.
        delimiter: char,
    },
    /// A workbook of Excel.
    Xlsx {
        /// The sheet that is read.
        sheet: String,
    },
}

/// Receiver of rows. A row that is not well formed comes with its reason.
pub(crate) type Sink<'a> = dyn FnMut(&Row, Option<Reason>) -> ControlFlow<()> + 'a;

/// Finds the format, calls `begin` with it, and then `sink` with each row that is not blank.
pub(crate) fn rows<R: Read + Seek>(
    mut source: R,
    sheet: Option<&str>,
    begin: &mut dyn FnMut(Format),
    sink: &mut Sink<'_>,
) -> Result<(), ImportError> {
    let mut magic = [0; 8];
    let held = read_start(&mut source, &mut magic)?;
    match &magic[..held] {
        [b'P', b'K', 3 | 5 | 7, ..] => workbook::rows(source, sheet, begin, sink),
        [0xd0, 0xcf, 0x11, 0xe0, ..] => Err(ImportError::OldWorkbook),
        [b'%', b'P', b'D', b'F', ..] => Err(ImportError::NotAList),
        _ => text_rows(source, begin, sink),
    }
}

fn text_rows<R: Read + Seek>(
    mut source: R,
    begin: &mut dyn FnMut(Format),
    sink: &mut Sink<'_>,
) -> Result<(), ImportError> {
    let encoding = detect(&mut source)?;
    let mut rows = Delimited::new(Decoded::new(source, encoding))?;
    if rows.is_binary() {
        return Err(ImportError::NotAList);
    }
    begin(Format::Csv { encoding: encoding.name().to_owned(), delimiter: rows.delimiter() });
    let mut row = Row::default();
    while let Some(read) = rows.next(&mut row)? {
        if sink(&row, read.err()).is_break() {
            break;
        }
    }
    Ok(())
}

fn read_start(source: &mut (impl Read + Seek), magic: &mut [u8]) -> io::Result<usize> {
    source.seek(SeekFrom::Start(0))?;
    let mut held = 0;
    while held < magic.len() {
        match source.read(&mut magic[held..])? {
            0 => break,
            read => held += read,
        }
    }
    source.seek(SeekFrom::Start(0))?;
    Ok(held)
}
