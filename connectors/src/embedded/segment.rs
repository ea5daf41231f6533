//! Frames in segment files, and the kinds of damage.
//!
//! A segment begins with a header: the magic `HEDDLOG1`, the number of partitions, the segment's id and
//! the sequence number of its first frame. A frame is its payload's length, a CRC-32 over sequence number
//! and payload, the sequence number and the payload. Sequence numbers are consecutive over all segments.
//!
//! An invalid frame at the end of the newest segment, with no valid frame behind it, is a torn write: it was
//! never acknowledged, since a frame is acknowledged only when all of it is durable. It is skipped. (A last frame
//! that was whole and is damaged afterwards looks the same. The checkpoint that is written when the store is closed
//! knows up to which position everything was whole.) Anywhere else it is corruption of acknowledged data, and the
//! store does not open: going on would lose records silently.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use heddle_schemas::time::Timestamp;

use super::codec::Reader;
use super::disk::Disk;
use super::view::View;

/// The beginning of every segment; its last character is the version.
const MAGIC: &[u8; 8] = b"HEDDLOG1";
/// Bytes of the header.
pub(super) const HEADER: usize = 8 + 4 + 8 + 8 + 4;
/// Bytes before a payload.
pub(super) const FRAME: usize = 4 + 4 + 8;
/// The largest payload that is written; a larger length is damage.
pub(super) const MAX_PAYLOAD: usize = 256 << 20;

/// Error of reading a segment.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// A file could not be read.
    #[error("{}: {source}", .path.display())]
    Io {
        /// File that the operation failed on.
        path: PathBuf,
        /// Operating system's error.
        source: io::Error,
    },
    /// It is not a segment of this version.
    #[error("{} is no segment of this version; move it away, or open it with the version that wrote it", .path.display())]
    Foreign {
        /// File that is not a segment of this store.
        path: PathBuf,
    },
    /// Acknowledged data cannot be read.
    #[error(
        "{} is corrupt at byte {at}: {detail}. Acknowledged records would be lost by going on; restore the \
         folder from a copy, or move it away and start anew", .path.display()
    )]
    Corrupt {
        /// File that is damaged.
        path: PathBuf,
        /// Byte offset of the damage.
        at: u64,
        /// Description of the damage.
        detail: String,
    },
    /// A segment between others is missing.
    #[error(
        "{} is missing, and holds what was acknowledged; restore it from a copy, or move the folder away and \
         start anew", .path.display()
    )]
    Gap {
        /// File that is missing.
        path: PathBuf,
    },
}

/// A segment's name in its folder.
#[must_use]
pub(super) fn path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:016x}.log"))
}

/// The ids of the segments in a folder, in order.
///
/// # Errors
/// The system's.
pub(super) fn list(dir: &Path) -> io::Result<Vec<u64>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let id = name.to_str().and_then(|name| name.strip_suffix(".log"));
        ids.extend(id.and_then(|id| u64::from_str_radix(id, 16).ok()));
    }
    ids.sort_unstable();
    Ok(ids)
}

/// Deletes segments that are no longer needed, and settled ones for this much room. Returns true if any was deleted.
pub(super) fn forget(view: &View, disk: &dyn Disk, dir: &Path, now: Timestamp, room: u64) -> bool {
    let ids = view.forget_segments(now, room);
    for id in &ids {
        let path = path(dir, *id);
        if let Err(error) = disk.remove(&path) {
            tracing::warn!(%error, path = %path.display(), "an old segment cannot be deleted");
        }
    }
    !ids.is_empty()
}

/// A segment's header.
#[must_use]
pub(super) fn header(partitions: u32, id: u64, first_sequence: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&partitions.to_be_bytes());
    bytes.extend_from_slice(&id.to_be_bytes());
    bytes.extend_from_slice(&first_sequence.to_be_bytes());
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_be_bytes());
    bytes
}

/// Begins a frame: reserves room for the header that [`finish`] fills in.
pub(super) fn begin(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.resize(FRAME, 0);
}

/// Completes a frame that [`begin`] started, once its payload follows.
pub(super) fn finish(buffer: &mut [u8], sequence: u64) {
    // A frame is bounded far below this by the writer.
    let len = u32::try_from(buffer.len() - FRAME).unwrap_or(u32::MAX);
    buffer[..4].copy_from_slice(&len.to_be_bytes());
    buffer[8..16].copy_from_slice(&sequence.to_be_bytes());
    let crc = crc32fast::hash(&buffer[8..]);
    buffer[4..8].copy_from_slice(&crc.to_be_bytes());
}

/// A frame as it is read.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    /// Offset of the frame in its file.
    pub(super) at: u64,
    /// Its sequence number.
    pub(super) sequence: u64,
    /// Payload.
    pub(super) payload: Bytes,
}

/// Header of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Number of partitions that it was made with.
    pub(super) partitions: u32,
    /// The sequence number of its first frame.
    pub(super) first_sequence: u64,
}

/// Result of reading the beginning of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin {
    /// A whole header.
    Whole(Header),
    /// A header that was not written whole: no frame in it was ever acknowledged.
    Unborn,
}

/// Reads the beginning of a segment file.
///
/// # Errors
/// [`SegmentError::Io`], [`SegmentError::Foreign`], [`SegmentError::Corrupt`].
pub(super) fn begin_of(dir: &Path, id: u64) -> Result<Begin, SegmentError> {
    let path = path(dir, id);
    let mut bytes = Vec::with_capacity(HEADER);
    let read = fs::File::open(&path).and_then(|file| file.take(HEADER as u64).read_to_end(&mut bytes));
    read.map_err(|source| SegmentError::Io { path: path.clone(), source })?;
    header_of(&path, id, &bytes)
}

fn header_of(path: &Path, id: u64, bytes: &[u8]) -> Result<Begin, SegmentError> {
    // A file system may have made the file longer before the bytes came.
    let zeros = bytes.iter().take(HEADER).all(|&byte| byte == 0);
    let magic = &bytes[..bytes.len().min(MAGIC.len())];
    if zeros || (bytes.len() < HEADER && MAGIC.starts_with(magic)) {
        return Ok(Begin::Unborn);
    }
    let Some(bytes) = bytes.first_chunk::<HEADER>().filter(|_| magic == MAGIC) else {
        return Err(SegmentError::Foreign { path: path.into() });
    };
    let mut reader = Reader { bytes: &bytes[MAGIC.len()..] };
    let fields = (reader.u32(), reader.u64(), reader.u64(), reader.u32());
    let (Some(partitions), Some(written), Some(first_sequence), Some(crc)) = fields else {
        return Err(SegmentError::Foreign { path: path.into() });
    };
    let corrupt = |detail: String| SegmentError::Corrupt { path: path.into(), at: 0, detail };
    if crc32fast::hash(&bytes[..HEADER - 4]) != crc {
        return Err(corrupt("the header does not match its checksum".into()));
    }
    if written != id {
        return Err(corrupt(format!("it was written as segment {written:016x}")));
    }
    Ok(Begin::Whole(Header { partitions, first_sequence }))
}

/// Frames of a segment, and its end.
#[derive(Debug)]
pub(super) struct Segment {
    /// Path of the file.
    pub(super) path: PathBuf,
    /// Header of the file.
    pub(super) header: Header,
    bytes: Bytes,
    at: usize,
    expected: u64,
}

/// Result of reading the next frame.
#[derive(Debug)]
pub(super) enum Next {
    /// A frame.
    Frame(Frame),
    /// The end.
    End,
    /// Bytes that are no frame, from here to the end, and no frame behind them.
    Torn(u64),
    /// Bytes that are no frame, and frames behind them.
    Corrupt(u64),
}

impl Segment {
    /// Reads a segment file that has a header.
    ///
    /// # Errors
    /// [`SegmentError::Io`], [`SegmentError::Foreign`], [`SegmentError::Corrupt`].
    pub(super) fn read(dir: &Path, id: u64) -> Result<Self, SegmentError> {
        let path = path(dir, id);
        let bytes = fs::read(&path).map_err(|source| SegmentError::Io { path: path.clone(), source })?;
        let Begin::Whole(header) = header_of(&path, id, &bytes)? else {
            return Err(SegmentError::Foreign { path });
        };
        let expected = header.first_sequence;
        Ok(Self { path, header, bytes: bytes.into(), at: HEADER, expected })
    }

    /// Goes to the frame that begins here and has this sequence number.
    pub(super) fn seek(&mut self, at: u64, sequence: u64) {
        self.at = usize::try_from(at).unwrap_or(usize::MAX).min(self.bytes.len());
        self.expected = sequence;
    }

    /// Returns the length of the file.
    #[must_use]
    pub(super) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Returns the next frame, or the end of the segment.
    pub(super) fn advance(&mut self) -> Next {
        if self.at >= self.bytes.len() {
            return Next::End;
        }
        match self.frame(self.at) {
            Some(frame) if frame.sequence == self.expected => {
                self.at += FRAME + frame.payload.len();
                self.expected += 1;
                Next::Frame(frame)
            }
            _ => self.damage(),
        }
    }

    /// The frame at this place, if it holds.
    fn frame(&self, at: usize) -> Option<Frame> {
        let head = self.bytes.get(at..at + FRAME)?;
        let len = usize::try_from(u32::from_be_bytes([head[0], head[1], head[2], head[3]])).ok()?;
        let crc = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        let mut sequence = [0; 8];
        sequence.copy_from_slice(&head[8..16]);
        let sequence = u64::from_be_bytes(sequence);
        // Checked before the checksum, so that a search over damaged bytes stays fast.
        let plausible = sequence >= self.expected && sequence - self.expected <= self.bytes.len() as u64;
        if len > MAX_PAYLOAD || !plausible {
            return None;
        }
        let whole = self.bytes.get(at + 8..at + FRAME + len)?;
        if crc32fast::hash(whole) != crc {
            return None;
        }
        Some(Frame { at: at as u64, sequence, payload: self.bytes.slice(at + FRAME..at + FRAME + len) })
    }

    fn damage(&self) -> Next {
        let at = self.at as u64;
        let behind = (self.at + 1..self.bytes.len()).any(|at| self.frame(at).is_some());
        if behind { Next::Corrupt(at) } else { Next::Torn(at) }
    }
}
