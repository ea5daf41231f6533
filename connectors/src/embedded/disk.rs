//! The few file operations of the journal, behind a seam that tests make fail.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

/// A segment that is being written.
pub trait SegmentFile: Send {
    /// Appends bytes as a whole or fails; bytes that an error leaves behind are cut off by `truncate`.
    ///
    /// # Errors
    /// The system's, such as no space left.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes the appended bytes durable.
    ///
    /// # Errors
    /// The operating system's error. What is durable of the bytes written since the last success is then unknown.
    fn sync(&mut self) -> io::Result<()>;

    /// Cuts the file to this length, durably.
    ///
    /// # Errors
    /// The system's.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
}

/// Disk that segments are written to.
pub trait Disk: Send + Sync {
    /// Makes a new segment file, its name durable.
    ///
    /// # Errors
    /// The system's.
    fn create(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>>;

    /// Deletes a segment file.
    ///
    /// # Errors
    /// The system's.
    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
}

/// The disk.
#[derive(Debug, Clone, Copy)]
pub struct RealDisk;

struct RealFile(File);

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        let file = File::options().write(true).create_new(true).open(path)?;
        if let Some(dir) = path.parent() {
            // The name is an entry of the folder, which is durable by itself.
            File::open(dir)?.sync_all()?;
        }
        Ok(Box::new(RealFile(file)))
    }
}

impl SegmentFile for RealFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        use std::io::Seek as _;
        self.0.set_len(len)?;
        self.0.seek(io::SeekFrom::Start(len))?;
        self.0.sync_all()
    }
}
