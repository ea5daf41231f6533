//! Rows of a sheet of an XLSX workbook, streamed.
//!
//! The cells of the sheet are read one by one. The library holds all distinct strings of the workbook in memory, and
//! one cell at a time; both are measured before it reads ([`STRINGS_BYTES`], [`CELL_BYTES`]), so that a small file that
//! inflates to gigabytes is refused. Formulas give the value that the workbook holds for them; merged cells give their
//! value in the first cell of the range, as Excel stores them.

use std::io::{Read, Seek};

use calamine::{DataRef, Reader as _, SheetType, SheetVisible, Xlsx, XlsxError};
use zip::ZipArchive;

use crate::people::ImportError;
use crate::reject::Reason;
use crate::table::{COLUMNS, Format, ROW_BYTES, Row, Sink};

/// Size of each part of a workbook except its sheets, unpacked, at most: they are held in memory.
pub const STRINGS_BYTES: u64 = 128 * 1_024 * 1_024;
/// Size of a sheet, unpacked, at most.
pub const SHEET_BYTES: u64 = 4 * 1_024 * 1_024 * 1_024;
/// Size of the text between two tags of a sheet, at most; Excel's own limit is 32,767 characters.
pub const CELL_BYTES: usize = 256 * 1_024;
/// The largest whole number that a cell holds exactly.
const EXACT: f64 = 9_007_199_254_740_992.0;

impl From<XlsxError> for ImportError {
    fn from(error: XlsxError) -> Self {
        match error {
            XlsxError::Io(error) => Self::Io(error),
            XlsxError::Password => Self::OldWorkbook,
            other => Self::Workbook(other.to_string()),
        }
    }
}

pub(crate) fn rows<R: Read + Seek>(
    mut source: R,
    sheet: Option<&str>,
    begin: &mut dyn FnMut(Format),
    sink: &mut Sink<'_>,
) -> Result<(), ImportError> {
    measure(&mut source)?;
    let mut workbook = Xlsx::new(source)?;
    let sheet = choose(&workbook, sheet)?;
    begin(Format::Xlsx { sheet: sheet.clone() });
    let mut cells = workbook.worksheet_cells_reader(&sheet)?;
    let mut row = Row::default();
    let mut bytes = 0;
    let mut fault = None;
    while let Some(cell) = cells.next_cell()? {
        let (number, column) = cell.get_position();
        let line = u64::from(number) + 1;
        if line != row.line {
            if finish(&mut row, fault.take(), sink) {
                return Ok(());
            }
            (row.line, bytes) = (line, 0);
        }
        let text = text_of(cell.get_value());
        if text.is_empty() {
            continue;
        }
        bytes += text.len();
        let column = column as usize;
        if column >= COLUMNS {
            fault = Some(Reason::TooManyColumns);
        } else if bytes > ROW_BYTES {
            fault = Some(Reason::TooLong);
        } else {
            if row.cells.len() <= column {
                row.cells.resize(column + 1, String::new());
            }
            row.cells[column] = text;
        }
    }
    finish(&mut row, fault, sink);
    Ok(())
}

/// Gives a row to the sink and empties it; returns true where the sink wants no more.
fn finish(row: &mut Row, fault: Option<Reason>, sink: &mut Sink<'_>) -> bool {
    let is_blank = row.cells.iter().all(|cell| cell.trim().is_empty());
    let stopped = (!is_blank || fault.is_some()) && sink(row, fault).is_break();
    row.cells.clear();
    stopped
}

fn choose<R: Read + Seek>(workbook: &Xlsx<R>, sheet: Option<&str>) -> Result<String, ImportError> {
    let sheets = workbook.sheets_metadata().iter().filter(|sheet| sheet.typ == SheetType::WorkSheet);
    let names: Vec<_> = sheets.clone().map(|sheet| sheet.name.clone()).collect();
    let found = match sheet {
        Some(wanted) => names.iter().find(|name| name.as_str() == wanted).cloned(),
        None => sheets
            .clone()
            .find(|sheet| sheet.visible == SheetVisible::Visible)
            .map(|sheet| sheet.name.clone()),
    };
    found.ok_or(ImportError::UnknownSheet { sheets: names })
}

/// Text of a cell. A whole number has all its digits and no exponent, so that a phone number stays one.
fn text_of(value: &DataRef<'_>) -> String {
    match value {
        DataRef::Empty => String::new(),
        DataRef::String(text) | DataRef::DateTimeIso(text) | DataRef::DurationIso(text) => text.clone(),
        DataRef::SharedString(text) => (*text).to_owned(),
        DataRef::Int(number) => number.to_string(),
        DataRef::Float(number) if number.fract() == 0.0 && number.abs() <= EXACT => format!("{number:.0}"),
        DataRef::Float(number) => number.to_string(),
        DataRef::Bool(is_true) => is_true.to_string(),
        DataRef::DateTime(time) => {
            let (year, month, day, hour, minute, second, _) = time.to_ymd_hms_milli();
            match (hour, minute, second) {
                (0, 0, 0) => format!("{year:04}-{month:02}-{day:02}"),
                _ => format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"),
            }
        }
        DataRef::Error(error) => error.to_string(),
    }
}

/// Checks that what the library holds in memory is small, by unpacking it once.
fn measure(source: &mut (impl Read + Seek)) -> Result<(), ImportError> {
    let broken = |error: zip::result::ZipError| ImportError::Workbook(error.to_string());
    let mut archive = ZipArchive::new(&mut *source).map_err(broken)?;
    if archive.index_for_name("[Content_Types].xml").is_none()
        || archive.index_for_name("xl/workbook.xml").is_none()
    {
        return Err(ImportError::NotAList);
    }
    for index in 0..archive.len() {
        let part = archive.by_index(index).map_err(broken)?;
        if !part.is_file() {
            continue;
        }
        let name = part.name().map_err(broken)?;
        let is_sheet = name.starts_with("xl/worksheets/");
        let is_read = is_sheet || name.ends_with(".xml") || name.ends_with(".rels");
        // Pictures and the like are not read.
        if is_read && !is_small(part, is_sheet)? {
            return Err(ImportError::TooLarge);
        }
    }
    source.rewind()?;
    Ok(())
}

fn is_small(mut part: impl Read, is_sheet: bool) -> Result<bool, ImportError> {
    let most = if is_sheet { SHEET_BYTES } else { STRINGS_BYTES };
    let mut block = vec![0; ROW_BYTES];
    let (mut all, mut since_tag) = (0, 0);
    loop {
        let read = part.read(&mut block)?;
        if read == 0 {
            return Ok(true);
        }
        all += read as u64;
        let mut rest = &block[..read];
        while let Some(tag) = memchr::memchr(b'<', rest) {
            if is_sheet && since_tag + tag > CELL_BYTES {
                return Ok(false);
            }
            since_tag = 0;
            rest = &rest[tag + 1..];
        }
        since_tag += rest.len();
        if all > most || (is_sheet && since_tag > CELL_BYTES) {
            return Ok(false);
        }
    }
}
