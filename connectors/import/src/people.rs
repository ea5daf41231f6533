//! From a file to people: the header is mapped, and each row becomes a person or is refused with a reason.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io::{self, Read, Seek};
use std::ops::ControlFlow;
use std::sync::Arc;

use heddle_schemas::time::Timestamp;

use crate::consent::{self, Cells, Consent, DateOrder};
use crate::mapping::{
    CONSENT, CONSENT_AT, CONSENT_COLUMNS, CONSENT_HOW, CONSENT_PURPOSE, Choices, Mapping, PHONE,
};
use crate::phone::{self, Country, E164};
use crate::reject::{Reason, Reject, unguarded};
use crate::table::{Format, Row, rows};

/// People of one file, at most.
pub const PEOPLE: usize = 5_000_000;
/// Rows among which the header is looked for.
const HEADER_ROWS: usize = 10;

/// Fault of a whole file.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file cannot be read.
    #[error("the file cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The file is no CSV and no XLSX.
    #[error("this is no list that can be read; export it as CSV or XLSX")]
    NotAList,
    /// A workbook of an old version, or one with a password.
    #[error("this is a workbook of Excel 97-2003 or one with a password; save it as XLSX without a password")]
    OldWorkbook,
    /// The workbook is damaged.
    #[error("the workbook is damaged: {0}; open it in a spreadsheet and save it again")]
    Workbook(String),
    /// The workbook is larger than is read.
    #[error("the workbook holds too much text at once; export it as CSV")]
    TooLarge,
    /// The workbook has no such sheet.
    #[error("the workbook has no such sheet; it has {sheets:?}")]
    UnknownSheet {
        /// Its sheets.
        sheets: Vec<String>,
    },
    /// The file has no rows.
    #[error("the file is empty")]
    Empty,
    /// The first row is a person.
    #[error("the file has no header: put a line with the columns' names above the first person")]
    NoHeader,
    /// No header is known to be a phone number's.
    #[error(
        "no column is known to hold phone numbers; name it, such as phone=HEADER; the file has {headers:?}"
    )]
    NoPhoneColumn {
        /// The file's headers.
        headers: Vec<String>,
    },
    /// The caller names a column that the file lacks.
    #[error("the file has no column {wanted:?}; it has {headers:?}")]
    UnknownColumn {
        /// The name.
        wanted: String,
        /// The file's headers.
        headers: Vec<String>,
    },
    /// The caller maps a column twice.
    #[error("{name:?} or {header:?} is mapped twice")]
    MappedTwice {
        /// The column's name.
        name: String,
        /// The header.
        header: String,
    },
    /// The caller gives a column a name that it cannot have.
    #[error("{0:?} is no name of a column: write small letters, digits and _, at most 64")]
    InvalidName(String),
}

/// Options for reading a file.
#[derive(Debug, Clone)]
pub struct Options {
    /// Country of numbers without a country code.
    pub country: Option<Country>,
    /// Mapping chosen by the caller.
    pub choices: Choices,
    /// Sheet of a workbook; the first visible one by default.
    pub sheet: Option<String>,
    /// Order of day and month where a date has slashes.
    pub dates: Option<DateOrder>,
    /// The present time, after which there are no consents.
    pub now: Timestamp,
}

/// Person of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The line of the row.
    pub line: u64,
    /// The phone number.
    pub phone: E164,
    /// Values that are not empty, by the name of their column.
    pub values: Vec<(Arc<str>, String)>,
    /// The consent that the row states.
    pub consent: Option<Consent>,
}

/// Part of a file, in the file's order.
#[derive(Debug)]
pub enum Event<'a> {
    /// Format and mapping: once, before the first row.
    Began(&'a Format, &'a Mapping),
    /// A person.
    Person(Person),
    /// A person who was in the file before; the first row counts.
    Duplicate(u64),
    /// A refused row.
    Reject(Reject),
}

/// Receiver of what is read; it ends the reading with `Break`.
pub type Sink<'a> = dyn FnMut(Event<'_>) -> ControlFlow<()> + 'a;

/// Reads a list.
///
/// # Errors
/// [`ImportError`]. Of a workbook that is damaged in its middle, the rows before were given to `sink`.
pub fn read<R: Read + Seek>(source: R, options: &Options, sink: &mut Sink<'_>) -> Result<(), ImportError> {
    let format = RefCell::new(None);
    let mut first: Vec<(Row, Option<Reason>)> = Vec::new();
    let mut reading: Option<Reading<'_>> = None;
    let mut failed = None;
    rows(
        source,
        options.sheet.as_deref(),
        &mut |found| *format.borrow_mut() = Some(found),
        &mut |row, fault| {
            if let Some(reading) = &mut reading {
                return reading.row(row, fault, sink);
            }
            first.push((row.clone(), fault));
            if first.len() < HEADER_ROWS {
                return ControlFlow::Continue(());
            }
            match Reading::begin(options, std::mem::take(&mut first)) {
                Ok((mut begun, rest)) => {
                    let flow = begun.start(format.borrow().as_ref(), rest, sink);
                    reading = Some(begun);
                    flow
                }
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        },
    )?;
    if let Some(error) = failed {
        return Err(error);
    }
    if reading.is_none() {
        let (mut begun, rest) = Reading::begin(options, first)?;
        let _ = begun.start(format.borrow().as_ref(), rest, sink);
    }
    Ok(())
}

/// Rows behind the header.
struct Reading<'a> {
    options: &'a Options,
    mapping: Mapping,
    phone: usize,
    /// Places and names of the values.
    values: Vec<(usize, Arc<str>)>,
    fixed: Vec<(Arc<str>, String)>,
    /// Numbers that were read: at most [`PEOPLE`].
    seen: HashSet<E164>,
}

type Rest = Vec<(Row, Option<Reason>)>;

impl<'a> Reading<'a> {
    /// Finds the header; returns the rows behind it too.
    fn begin(options: &'a Options, mut first: Rest) -> Result<(Self, Rest), ImportError> {
        let candidates: Vec<_> =
            first.iter().filter(|(_, fault)| fault.is_none()).map(|(row, _)| row.clone()).collect();
        if candidates.is_empty() {
            return Err(ImportError::Empty);
        }
        let (mapping, taken) = Mapping::find(&candidates, &options.choices)?;
        let last = candidates[taken - 1].line;
        first.retain(|(row, _)| row.line > last);
        let is_value = |name: &str| name != PHONE && !CONSENT_COLUMNS.contains(&name);
        let named = mapping.columns.iter().enumerate();
        let named = named.filter_map(|(at, column)| Some((at, column.name.as_deref()?)));
        let values = named.filter(|(_, name)| is_value(name)).map(|(at, name)| (at, name.into())).collect();
        let fixed = mapping.constants.iter().filter(|(name, _)| is_value(name));
        let fixed = fixed.map(|(name, value)| (name.as_str().into(), value.clone())).collect();
        let phone = mapping.position(PHONE).unwrap_or(usize::MAX);
        Ok((Self { options, phone, values, fixed, mapping, seen: HashSet::new() }, first))
    }

    fn start(&mut self, format: Option<&Format>, rest: Rest, sink: &mut Sink<'_>) -> ControlFlow<()> {
        if let Some(format) = format {
            sink(Event::Began(format, &self.mapping))?;
        }
        for (row, fault) in rest {
            self.row(&row, fault, sink)?;
        }
        ControlFlow::Continue(())
    }

    fn row(&mut self, row: &Row, fault: Option<Reason>, sink: &mut Sink<'_>) -> ControlFlow<()> {
        let person = match fault {
            Some(reason) => Err(reason),
            None => self.person(row),
        };
        match person {
            Ok(person) if self.seen.contains(&person.phone) => sink(Event::Duplicate(row.line)),
            Ok(person) if self.seen.len() < PEOPLE => {
                self.seen.insert(person.phone);
                sink(Event::Person(person))
            }
            Ok(_) => sink(refused(row, Reason::TooManyPeople)),
            Err(reason) => sink(refused(row, reason)),
        }
    }

    fn person(&self, row: &Row) -> Result<Person, Reason> {
        let phone = phone::read(row.cell(self.phone), self.options.country)?;
        let consent = consent::read(self.consent_cells(row), self.options.now, self.options.dates)?;
        let value = |(at, name): &(usize, Arc<str>)| {
            let text = unguarded(row.cell(*at));
            (!text.is_empty()).then(|| (name.clone(), text.to_owned()))
        };
        let mut values: Vec<_> = self.values.iter().filter_map(value).collect();
        values.extend(self.fixed.iter().cloned());
        Ok(Person { line: row.line, phone, values, consent })
    }

    fn consent_cells<'r>(&'r self, row: &'r Row) -> Cells<'r> {
        let cell = |name: &str| match self.mapping.position(name) {
            Some(at) => Some(unguarded(row.cell(at))),
            None => {
                self.mapping.constants.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
            }
        };
        Cells {
            given: cell(CONSENT),
            purpose: cell(CONSENT_PURPOSE),
            at: cell(CONSENT_AT),
            how: cell(CONSENT_HOW),
        }
    }
}

fn refused(row: &Row, reason: Reason) -> Event<'static> {
    Event::Reject(Reject { line: row.line, reason, cells: row.cells.clone() })
}
