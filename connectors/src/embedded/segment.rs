//! Frames in segment files, and which damage is which.
//!
//! A segment begins with a header: the magic `HEDDLOG1`, the number of partitions, the segment's id and
//! the sequence number of its first frame. A frame is its payload's length, a CRC-32 over sequence number
//! and payload, the sequence number and the payload. Sequence numbers are consecutive over all segments.
//!
//! A frame that does not hold, at the end of the newest segment and with no valid frame behind it, is a
//! torn write: it was never acknowledged, since a frame is acknowledged only when it is durable whole. It
//! is cut off. Anywhere else it is corruption of what was acknowledged, and the store does not open:
//! going on would lose records silently.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

/// The beginning of every segment; its last character is the version.
const MAGIC: &[u8; 8] = b"HEDDLOG1";
/// Bytes of the header.
pub const HEADER: usize = 8 + 4 + 8 + 8 + 4;
/// Bytes before a payload.
pub const FRAME: usize = 4 + 4 + 8;
/// The largest payload that is written; a larger length is damage.
pub const MAX_PAYLOAD: usize = 256 << 20;

/// Why a segment could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// A file could not be read.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is not a segment of this version.
    #[error("{} is no segment of this version; move it away, or open it with the version that wrote it", .path.display())]
    Foreign {
        /// Which.
        path: PathBuf,
    },
    /// What was acknowledged cannot be read.
    #[error(
        "{} is corrupt at byte {at}: {detail}. Acknowledged records would be lost by going on; restore the \
         folder from a copy, or move it away and start anew", .path.display()
    )]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// Where.
        at: u64,
        /// What is wrong there.
        detail: String,
    },
    /// A segment between others is missing.
    #[error("{} is missing: the journal has a gap; restore it", .path.display())]
    Gap {
        /// Which.
        path: PathBuf,
    },
}

/// A segment's name in its folder.
#[must_use]
pub fn path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:016x}.log"))
}

/// The ids of the segments in a folder, in order.
///
/// # Errors
/// The system's.
pub fn list(dir: &Path) -> io::Result<Vec<u64>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let id = name.to_str().and_then(|name| name.strip_suffix(".log"));
        ids.extend(id.and_then(|id| u64::from_str_radix(id, 16).ok()));
    }
    ids.sort_unstable();
    Ok(ids)
}

/// A segment's header.
#[must_use]
pub fn header(partitions: u32, id: u64, first_sequence: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&partitions.to_be_bytes());
    bytes.extend_from_slice(&id.to_be_bytes());
    bytes.extend_from_slice(&first_sequence.to_be_bytes());
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_be_bytes());
    bytes
}

/// Begins a frame: room for what [`finish`] fills in.
pub fn begin(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.resize(FRAME, 0);
}

/// Completes a frame that was begun with [`begin`] and whose payload follows.
pub fn finish(buffer: &mut [u8], sequence: u64) {
    // A frame is bounded far below this by the writer.
    let len = u32::try_from(buffer.len() - FRAME).unwrap_or(u32::MAX);
    buffer[..4].copy_from_slice(&len.to_be_bytes());
    buffer[8..16].copy_from_slice(&sequence.to_be_bytes());
    let crc = crc32fast::hash(&buffer[8..]);
    buffer[4..8].copy_from_slice(&crc.to_be_bytes());
}

/// A frame as it is read.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Where it begins in its file.
    pub at: u64,
    /// Its sequence number.
    pub sequence: u64,
    /// What is in it.
    pub payload: Bytes,
}

/// The frames of a segment, and how it ends.
#[derive(Debug)]
pub struct Segment {
    /// Where it is.
    pub path: PathBuf,
    /// The number of partitions in its header.
    pub partitions: u32,
    /// The sequence number of its first frame.
    pub first_sequence: u64,
    bytes: Bytes,
    at: usize,
    expected: u64,
}

/// What comes next in a segment.
#[derive(Debug)]
pub enum Next {
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
    /// Reads a segment file. A newest one whose header was not written whole reads as empty.
    ///
    /// # Errors
    /// [`SegmentError::Io`], [`SegmentError::Foreign`], [`SegmentError::Corrupt`].
    pub fn read(dir: &Path, id: u64) -> Result<Option<Self>, SegmentError> {
        let path = path(dir, id);
        let bytes = fs::read(&path).map_err(|source| SegmentError::Io { path: path.clone(), source })?;
        if bytes.len() < HEADER {
            return Ok(None);
        }
        if bytes[..8] != MAGIC[..] {
            return Err(SegmentError::Foreign { path });
        }
        let stored = u32::from_be_bytes([bytes[28], bytes[29], bytes[30], bytes[31]]);
        if crc32fast::hash(&bytes[..28]) != stored {
            let detail = "the header does not match its checksum".into();
            return Err(SegmentError::Corrupt { path, at: 0, detail });
        }
        let mut first = [0; 8];
        first.copy_from_slice(&bytes[20..28]);
        let first_sequence = u64::from_be_bytes(first);
        let partitions = u32::from_be_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        let bytes = Bytes::from(bytes);
        Ok(Some(Self { path, partitions, first_sequence, bytes, at: HEADER, expected: first_sequence }))
    }

    /// Goes to the frame that begins here and has this sequence number.
    pub fn seek(&mut self, at: u64, sequence: u64) {
        self.at = usize::try_from(at).unwrap_or(usize::MAX).min(self.bytes.len());
        self.expected = sequence;
    }

    /// How long the file is.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Whether there is nothing but the header.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.len() <= HEADER
    }

    /// The next frame, or how the segment ends.
    pub fn advance(&mut self) -> Next {
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
        // Looked at before the checksum, so that a search over damaged bytes stays fast.
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
