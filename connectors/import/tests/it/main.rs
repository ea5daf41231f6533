//! Tests of the import with files of real kinds.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod csv_files;
mod hostile;
mod large;
mod reading;
mod workbook_files;
mod xlsx;
