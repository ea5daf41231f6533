//! Start of the store: the journal after the checkpoint is read into the view.
//!
//! Every segment that the checkpoint knows, or that follows it, must exist and be whole, except the oldest
//! ones if they are settled: those may have been deleted since. If anything else is missing or damaged, the store
//! does not open and nothing is changed; going on would silently lose acknowledged records.
//! A torn end of the newest segment is left in place and never read again: the next segment records the
//! sequence number that it continues from.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::catalog::Place;
use super::codec::{Change, changes};
use super::disk::Disk;
use super::rows::Slot;
use super::segment::{self, Begin, Header, Next, Segment, SegmentError};
use super::view::View;
use super::writer::Resume;
use super::{OpenError, Options, io as failed};

/// Segments by id, in order.
type Headers = Vec<(u64, Header)>;

/// The replay.
pub(super) struct Replay<'a> {
    /// The folder of the segments.
    pub(super) dir: PathBuf,
    /// Options that the store is opened with.
    pub(super) options: &'a Options,
    /// View that the changes are applied to.
    pub(super) view: &'a View,
}

impl Replay<'_> {
    /// Replays the journal, and returns the position at which the writer continues.
    ///
    /// # Errors
    /// [`OpenError`].
    pub(super) fn run(&self, disk: &dyn Disk) -> Result<Resume, OpenError> {
        let ids = segment::list(&self.dir).map_err(|source| failed(&self.dir, source))?;
        let from = self.view.read().checkpointed;
        let mut sequence = from.map_or(0, |from| from.sequence);
        let (headers, unborn) = self.headers(&ids, from)?;
        self.check_beginning(&headers, from)?;
        for (index, (id, _)) in headers.iter().enumerate() {
            let next = headers.get(index + 1).map(|(id, header)| (*id, header.first_sequence));
            self.segment(*id, next, from, &mut sequence)?;
        }
        let missing_segments = self.check_older(from, &ids)?;
        self.view.without_segments(&missing_segments);
        self.clear(disk, &ids, from, &unborn);
        let last = ids.last().copied().max(from.map(|from| from.segment));
        Ok(Resume { segment: last.map_or(0, |last| last + 1), sequence })
    }

    /// The segments to replay, and files that never became segments.
    fn headers(&self, ids: &[u64], from: Option<Place>) -> Result<(Headers, Vec<u64>), OpenError> {
        let (mut headers, mut unborn) = (Vec::new(), Vec::new());
        for &id in ids.iter().filter(|&&id| from.is_none_or(|from| id >= from.segment)) {
            match segment::begin_of(&self.dir, id)? {
                Begin::Whole(header) => {
                    let (made, asked) = (header.partitions, self.options.partitions.get());
                    if made != asked {
                        return Err(OpenError::Partitions { dir: self.options.dir.clone(), made, asked });
                    }
                    headers.push((id, header));
                }
                Begin::Unborn => unborn.push(id),
            }
        }
        Ok((headers, unborn))
    }

    /// The first segment must be the one where the checkpoint ends.
    fn check_beginning(&self, headers: &[(u64, Header)], from: Option<Place>) -> Result<(), OpenError> {
        let first = headers.first();
        match (from, first) {
            (None, None) => Ok(()),
            (None, Some((_, header))) if header.first_sequence == 0 => Ok(()),
            (None, Some((id, _))) => Err(self.gap(id.saturating_sub(1))),
            (Some(from), Some((id, _))) if *id == from.segment => Ok(()),
            (Some(from), _) => Err(self.gap(from.segment)),
        }
    }

    fn gap(&self, id: u64) -> OpenError {
        SegmentError::Gap { path: segment::path(&self.dir, id) }.into()
    }

    /// Replays a segment up to where the next one begins.
    fn segment(
        &self,
        id: u64,
        next: Option<(u64, u64)>,
        from: Option<Place>,
        sequence: &mut u64,
    ) -> Result<(), OpenError> {
        let mut segment = Segment::read(&self.dir, id)?;
        let path = segment.path.clone();
        let corrupt = |at: u64, detail: String| SegmentError::Corrupt { path: path.clone(), at, detail };
        match from {
            Some(from) if from.segment == id => {
                if segment.len() < from.at {
                    let detail = format!("it ends, and the checkpoint knows it up to byte {}", from.at);
                    return Err(corrupt(segment.len(), detail).into());
                }
                segment.seek(from.at, from.sequence);
            }
            _ if segment.header.first_sequence != *sequence => {
                let detail =
                    format!("it begins with frame {}, and not {sequence}", segment.header.first_sequence);
                return Err(corrupt(0, detail).into());
            }
            _ => {}
        }
        // Frames behind it were written again in the next segment, and were never acknowledged from this one.
        while next.is_none_or(|(_, until)| until != *sequence) {
            match segment.advance() {
                Next::Frame(frame) => {
                    let place = Place { segment: id, at: frame.at, sequence: frame.sequence };
                    let bytes = (segment::FRAME + frame.payload.len()) as u64;
                    self.show(place, bytes, &frame.payload)
                        .ok_or_else(|| corrupt(frame.at, "the frame holds no changes".into()))?;
                    *sequence = frame.sequence + 1;
                }
                Next::End => match next {
                    None => return Ok(()),
                    Some((next, _)) if segment::path(&self.dir, id + 1).exists() || next == id + 1 => {
                        return Err(corrupt(segment.len(), "it ends before the next begins".into()).into());
                    }
                    Some(_) => return Err(self.gap(id + 1)),
                },
                Next::Torn(at) if next.is_none() => {
                    tracing::warn!(
                        path = %path.display(), at, bytes = segment.len() - at,
                        "the last write was torn; it was never acknowledged, and is skipped"
                    );
                    return Ok(());
                }
                Next::Torn(at) | Next::Corrupt(at) => {
                    return Err(corrupt(at, "a frame does not match its checksum".into()).into());
                }
            }
        }
        Ok(())
    }

    fn show(&self, place: Place, bytes: u64, payload: &[u8]) -> Option<()> {
        let read: Vec<Change> = changes(payload).collect::<Option<_>>()?;
        self.view.show(place, bytes, |changes| {
            for change in read {
                match change {
                    Change::Put { key, value, expires } => {
                        changes.put(key, Slot { value: Some(value), expires });
                    }
                    Change::Delete { key } => changes.put(key, Slot { value: None, expires: None }),
                    Change::Record(record) => changes.append(record),
                    Change::Consumed(partition, offset) => changes.settle(partition, offset),
                    Change::Epoch(epoch) => changes.begin(epoch),
                }
            }
        });
        self.view.shown_whole(place, bytes);
        Some(())
    }

    /// Checks the segments before the checkpoint's place: they are not replayed, but read by readers that lag.
    fn check_older(&self, from: Option<Place>, ids: &[u64]) -> Result<Vec<u64>, OpenError> {
        let seen = self.view.read();
        let older = seen.catalog.0.range(..from.map_or(0, |from| from.segment));
        let mut missing_segments = Vec::new();
        let mut kept = false;
        for (&id, info) in older {
            let path = segment::path(&self.dir, id);
            if ids.binary_search(&id).is_err() {
                // Deleted after the checkpoint was written, from the oldest on, when they were no longer needed.
                if kept || !seen.is_settled(info) {
                    return Err(self.gap(id));
                }
                missing_segments.push(id);
                continue;
            }
            kept = true;
            let len = fs::metadata(&path).map_err(|source| failed(&path, source))?.len();
            if len < info.bytes {
                let detail = format!("it ends, and the checkpoint knows it up to byte {}", info.bytes);
                return Err(SegmentError::Corrupt { path, at: len, detail }.into());
            }
        }
        Ok(missing_segments)
    }

    /// Deletes the files of segments that are out of the catalog, and of those that were never begun.
    fn clear(&self, disk: &dyn Disk, ids: &[u64], from: Option<Place>, unborn: &[u64]) {
        let known: Vec<u64> = self.view.read().catalog.0.keys().copied().collect();
        let removed = ids.iter().filter(|&&id| from.is_some_and(|from| id < from.segment));
        let removed = removed.filter(|id| known.binary_search(id).is_err());
        for &id in removed.chain(unborn) {
            let path = segment::path(&self.dir, id);
            if let Err(error) = remove(disk, &path) {
                tracing::warn!(%error, path = %path.display(), "an old segment cannot be deleted");
            }
        }
    }
}

fn remove(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
