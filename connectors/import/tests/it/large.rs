//! A list of a million people: its rows are made while they are read.

use std::io::{self, Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::process::Command;
use std::time::Instant;

use heddle_import::{Event, read};

use crate::reading::options;

/// A CSV file that is nowhere as a whole: each of its rows has the same length.
struct Generated {
    rows: u64,
    at: u64,
}

const HEADER: &[u8] = b"phone,first_name,city\r\n";

impl Generated {
    fn row(number: u64) -> String {
        // Numbers of a German mobile range, eight digits each.
        format!("+49151{number:08},Person {number:08},\"Ulm, Donau\"\r\n")
    }

    fn byte_at(&self, row: &mut (u64, String), at: u64) -> Option<u8> {
        let header = HEADER.len() as u64;
        if at < header {
            return HEADER.get(usize::try_from(at).ok()?).copied();
        }
        let length = Self::row(0).len() as u64;
        let (number, column) = ((at - header) / length, (at - header) % length);
        if number >= self.rows {
            return None;
        }
        if row.0 != number || row.1.is_empty() {
            *row = (number, Self::row(10_000_000 + number));
        }
        row.1.as_bytes().get(usize::try_from(column).ok()?).copied()
    }
}

impl Read for Generated {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let mut row = (0, String::new());
        for (index, byte) in to.iter_mut().enumerate() {
            match self.byte_at(&mut row, self.at) {
                Some(found) => *byte = found,
                None => return Ok(index),
            }
            self.at += 1;
        }
        Ok(to.len())
    }
}

impl Seek for Generated {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match to {
            SeekFrom::Start(at) => self.at = at,
            SeekFrom::Current(by) => self.at = self.at.saturating_add_signed(by),
            SeekFrom::End(_) => return Err(io::Error::other("the end is not known")),
        }
        Ok(self.at)
    }
}

/// Peak resident memory of this process, in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The memory of a process that does nothing else is measured: the test runs itself once more.
const ALONE: &str = "HEDDLE_IMPORT_ALONE";

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the number of rows is chosen outside, and the time is only printed"
)]
fn a_long_list_is_read_in_bounded_memory() {
    if std::env::var_os(ALONE).is_none() {
        let mut alone = Command::new(std::env::current_exe().unwrap());
        alone
            .args(["--exact", "large::a_long_list_is_read_in_bounded_memory", "--nocapture"])
            .env(ALONE, "1");
        assert!(alone.status().unwrap().success());
        return;
    }
    let wanted = std::env::var("HEDDLE_IMPORT_ROWS").ok().and_then(|rows| rows.parse().ok());
    let rows: u64 = wanted.unwrap_or(20_000);
    let (before, began) = (peak_kib(), Instant::now());
    let mut people = 0;
    read(Generated { rows, at: 0 }, &options(""), &mut |event| {
        people += u64::from(matches!(event, Event::Person(_)));
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(people, rows);
    let grown = peak_kib() - before;
    println!("{rows} rows in {:?}: {grown} KiB more at the peak", began.elapsed());
    // 18 bytes a person in a set that doubles, the numbers' metadata, and the blocks.
    assert!(grown < 48 * 1_024 + rows * 54 / 1_024, "{grown} KiB");
}
