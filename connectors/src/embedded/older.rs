//! Reading records that are no longer in memory, from the journal's files.
//!
//! A file is read only up to the end of what is known to be durable: bytes behind it may be from a failed write or
//! from one in progress. The records returned are consecutive; otherwise the read fails. Nothing is skipped silently.

use std::fs::File;
use std::io::{BufReader, Read, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use heddle_schemas::ports::log::{FetchLimit, Record, StoreError};
use heddle_schemas::topic::{Offset, TopicPartition};

use super::catalog::Place;
use super::codec;
use super::segment;

/// Read request for older records.
#[derive(Debug)]
pub(super) struct Older {
    /// Partition of the records.
    pub(super) partition: TopicPartition,
    /// Offsets of the records that exist.
    pub(super) offsets: Range<Offset>,
    /// Limits of the read.
    pub(super) limit: FetchLimit,
    /// A frame at or before the first.
    pub(super) place: Place,
    /// The segments from that place on, with the bytes that are durable in each.
    pub(super) segments: Vec<(u64, u64)>,
}

/// Result of the read.
#[derive(Debug)]
pub(super) enum Found {
    /// Records, and the frame that the last is in.
    Records(Vec<Record>, Place),
    /// A file does not exist: it may have been deleted meanwhile, because it was no longer needed.
    Gone(PathBuf),
}

/// Reads.
///
/// # Errors
/// [`StoreError::Corrupt`], [`StoreError::Unavailable`].
pub(super) fn read(dir: &Path, wanted: &Older) -> Result<Found, StoreError> {
    let mut records: Vec<Record> = Vec::new();
    let mut bytes = 0;
    let mut last = wanted.place;
    for &(id, durable) in &wanted.segments {
        let path = segment::path(dir, id);
        let at = if id == wanted.place.segment { wanted.place.at } else { segment::HEADER as u64 };
        let Some(mut frames) = Frames::open(path.clone(), at, durable)? else { return Ok(Found::Gone(path)) };
        while let Some((at, sequence)) = frames.next()? {
            for record in codec::records(&frames.payload, wanted.partition) {
                let record = record.ok_or_else(|| frames.corrupt(at, "the frame holds no changes"))?;
                if !wanted.offsets.contains(&record.offset) {
                    continue;
                }
                bytes += record.value.len();
                let full = records.len() >= wanted.limit.records || bytes > wanted.limit.bytes;
                if full && !records.is_empty() {
                    return Ok(Found::Records(records, last));
                }
                if records.last().is_some_and(|before| before.offset + 1 != record.offset) {
                    return Err(frames.corrupt(at, "records are missing before this frame"));
                }
                last = Place { segment: id, at, sequence };
                let was_last = record.offset + 1 == wanted.offsets.end;
                records.push(record);
                if was_last {
                    return Ok(Found::Records(records, last));
                }
            }
        }
    }
    let Range { start, end } = wanted.offsets;
    let detail = format!(
        "the journal in {} holds no record of {} from {start} on, and should up to {end}; restore the folder",
        dir.display(),
        wanted.partition
    );
    Err(StoreError::Corrupt { detail })
}

/// The frames of a file from a place on.
struct Frames {
    path: PathBuf,
    file: BufReader<File>,
    at: u64,
    durable: u64,
    /// The payload of the frame that was read last.
    payload: Vec<u8>,
}

impl Frames {
    fn open(path: PathBuf, at: u64, durable: u64) -> Result<Option<Self>, StoreError> {
        let unavailable = |error: std::io::Error| StoreError::Unavailable {
            detail: format!("{}: {error}", path.display()),
        };
        let mut file = match File::open(&path) {
            Ok(file) => BufReader::with_capacity(1 << 18, file),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unavailable(error)),
        };
        file.seek(SeekFrom::Start(at)).map_err(unavailable)?;
        Ok(Some(Self { path, file, at, durable, payload: Vec::new() }))
    }

    fn corrupt(&self, at: u64, detail: &str) -> StoreError {
        let detail =
            format!("{} at byte {at}: {detail}; restore the folder from a copy", self.path.display());
        StoreError::Corrupt { detail }
    }

    /// The next frame's place and sequence number; `None` behind the last durable one.
    fn next(&mut self) -> Result<Option<(u64, u64)>, StoreError> {
        let at = self.at;
        if at >= self.durable {
            return Ok(None);
        }
        let mut head = [0; segment::FRAME];
        self.fill(&mut head)?;
        let len = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        self.at += segment::FRAME as u64 + u64::from(len);
        if self.at > self.durable {
            return Err(self.corrupt(at, "the frame is longer than what was written"));
        }
        // Reads behind the valid bytes, not over zeros that were written first; the length is known to be durable.
        self.payload.clear();
        self.payload.reserve(usize::try_from(len).unwrap_or(0));
        let read = self.file.by_ref().take(u64::from(len)).read_to_end(&mut self.payload);
        match read {
            Ok(read) if read as u64 == u64::from(len) => {}
            Ok(_) => return Err(self.corrupt(self.durable, "it ends too early")),
            Err(error) => return Err(self.failed(&error)),
        }
        let mut crc = crc32fast::Hasher::new();
        crc.update(&head[8..]);
        crc.update(&self.payload);
        if crc.finalize() != u32::from_be_bytes([head[4], head[5], head[6], head[7]]) {
            return Err(self.corrupt(at, "the frame does not match its checksum"));
        }
        let mut sequence = [0; 8];
        sequence.copy_from_slice(&head[8..]);
        Ok(Some((at, u64::from_be_bytes(sequence))))
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), StoreError> {
        self.file.read_exact(bytes).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => self.corrupt(self.durable, "it ends too early"),
            _ => self.failed(&error),
        })
    }

    fn failed(&self, error: &std::io::Error) -> StoreError {
        StoreError::Unavailable { detail: format!("{}: {error}", self.path.display()) }
    }
}
