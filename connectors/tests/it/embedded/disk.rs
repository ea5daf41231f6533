//! Disk with injected faults, over the real one.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use heddle_connectors::embedded::disk::{Disk, RealDisk, SegmentFile};

/// Faults of the disk.
#[derive(Debug, Default, Clone)]
pub(crate) struct Faults {
    /// Bytes that still fit; then there is no space left.
    pub(crate) room: Option<u64>,
    /// Bytes that are still written; then the power is cut and everything fails.
    pub(crate) power: Option<u64>,
    /// Syncs fail.
    pub(crate) sync_fails: bool,
    /// Truncating a failed write fails too.
    pub(crate) cut_fails: bool,
}

/// The disk.
#[derive(Debug, Default, Clone)]
pub(crate) struct FaultyDisk(Arc<Mutex<Faults>>);

impl FaultyDisk {
    pub(crate) fn faults(&self) -> MutexGuard<'_, Faults> {
        self.0.lock().unwrap()
    }
}

struct FaultyFile {
    file: Box<dyn SegmentFile>,
    faults: FaultyDisk,
}

fn dead() -> io::Error {
    io::Error::other("the power is cut")
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        if self.faults().power == Some(0) {
            return Err(dead());
        }
        Ok(Box::new(FaultyFile { file: RealDisk.create(path)?, faults: self.clone() }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if self.faults().power == Some(0) { Err(dead()) } else { RealDisk.remove(path) }
    }
}

impl SegmentFile for FaultyFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut faults = self.faults.faults();
        let len = bytes.len() as u64;
        for (left, error) in
            [(faults.room, io::Error::from(io::ErrorKind::StorageFull)), (faults.power, dead())]
        {
            if let Some(left) = left.filter(|left| *left < len) {
                // Some of it is written all the same.
                self.file.append(&bytes[..usize::try_from(left).unwrap()])?;
                faults.power = faults.power.map(|_| 0);
                return Err(error);
            }
        }
        faults.room = faults.room.map(|room| room - len);
        faults.power = faults.power.map(|power| power - len);
        self.file.append(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        let faults = self.faults.faults();
        match (faults.power, faults.sync_fails) {
            (Some(0), _) => Err(dead()),
            // EIO of errno(3).
            (_, true) => Err(io::Error::from_raw_os_error(5)),
            _ => self.file.sync(),
        }
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let faults = self.faults.faults();
        if faults.power == Some(0) || faults.cut_fails {
            return Err(dead());
        }
        self.file.truncate(len)
    }
}
