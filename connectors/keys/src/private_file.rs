//! Files that only their owner may read, made as a whole or not at all.
//!
//! A file is written and synced under a random name beside its own, and then linked to it: a crash leaves no half
//! file, of two concurrent creators one wins for both, and nothing that somebody else prepared at either name, a file
//! or a link, is written to or replaced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// A file that is being written, and has not got its name yet. It is removed when it is dropped.
pub struct PrivateFile {
    file: File,
    beside: PathBuf,
    path: PathBuf,
}

impl PrivateFile {
    /// Begins a file that will have this name.
    ///
    /// # Errors
    /// The operating system's.
    pub fn begin(path: &Path) -> io::Result<Self> {
        let mut suffix = [0_u8; 8];
        getrandom::fill(&mut suffix)?;
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}", hex::encode(suffix)));
        let beside = PathBuf::from(beside);
        let mut options = OpenOptions::new();
        // `create_new` is O_EXCL, which follows no link.
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&beside)?;
        Ok(Self { file, beside, path: path.to_owned() })
    }

    /// Writes more of it.
    ///
    /// # Errors
    /// The operating system's.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// `AlreadyExists` where the name is taken; the operating system's.
    pub fn finish(self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::hard_link(&self.beside, &self.path)?;
        let folder = folder_of(&self.path).to_owned();
        drop(self);
        File::open(folder)?.sync_all()
    }
}

impl Drop for PrivateFile {
    fn drop(&mut self) {
        // Where this fails, a file of the owner's remains.
        let _ = fs::remove_file(&self.beside);
    }
}

/// Creates a file with this content. Makes its folder, for its owner only, if there is none.
///
/// # Errors
/// `AlreadyExists` where the name is taken; the operating system's.
pub fn create(path: &Path, content: &[u8]) -> io::Result<()> {
    make_folder(folder_of(path))?;
    let mut file = PrivateFile::begin(path)?;
    file.write(content)?;
    file.finish()
}

/// Makes a folder and those above it, for their owner only. A folder that exists keeps its mode.
///
/// # Errors
/// The operating system's.
pub fn make_folder(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).expect("it is there").permissions().mode() & 0o777
    }

    #[test]
    fn a_file_and_its_folders_are_their_owners_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/file");
        create(&path, b"content").unwrap();
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(mode(&folder.path().join("a")), 0o700);
        assert_eq!(fs::read(&path).unwrap(), b"content");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_prepared_file_or_link_is_neither_written_nor_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let victim = folder.path().join("victim");
        fs::write(&victim, "before").unwrap();
        let (link, dangling) = (folder.path().join("link"), folder.path().join("dangling"));
        symlink(&victim, &link).unwrap();
        symlink(folder.path().join("nowhere"), &dangling).unwrap();
        for taken in [&victim, &link, &dangling] {
            let refused = create(taken, b"after").unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists, "{}", taken.display());
        }
        assert_eq!(fs::read(&victim).unwrap(), b"before");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn an_unfinished_file_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = PrivateFile::begin(&folder.path().join("export")).unwrap();
        file.write(b"half").unwrap();
        drop(file);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
