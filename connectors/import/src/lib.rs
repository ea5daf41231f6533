//! Reader of lists of people: CSV and XLSX files become people with a phone number, columns and a consent.
//!
//! Contract: a file is read row by row, in bounded memory. A bad row is reported with its line and its reason and stops
//! nothing; a fault of the whole file (not a list, no column with phone numbers, a mapped column that it lacks) is
//! reported before the first row. No input panics.
//!
//! | what | bound | memory |
//! |---|---|---|
//! | CSV row | [`table::ROW_BYTES`], [`table::COLUMNS`] | one row and one block of the file |
//! | XLSX | [`workbook::STRINGS_BYTES`] of strings, Excel's own 1,048,576 rows | all distinct strings of the workbook |
//! | people of one file | [`people::PEOPLE`] | 18 bytes for each, to find duplicates |
//!
//! # Layout
//! - [`people`]: the whole way from a file to people; start here.
//! - [`table`]: format detection, and rows of any format. Behind it `encoding`, [`delimited`] and [`workbook`].
//! - [`mapping`]: from a file's header to the columns of people: guessed (`known`), corrected by the caller, shown.
//! - [`phone`]: numbers as people type them, to E.164.
//! - [`consent`]: consent columns, and dates.
//! - [`reject`]: reasons for refused rows, and the file of them.

pub mod consent;
pub mod delimited;
mod encoding;
mod known;
pub mod mapping;
pub mod people;
pub mod phone;
pub mod reject;
pub mod table;
pub mod workbook;

pub use self::mapping::{Choices, Mapping};
pub use self::people::{Event, ImportError, Options, Person, read};
pub use self::phone::{Country, E164};
pub use self::reject::{Reason, Reject};
pub use self::table::Format;
