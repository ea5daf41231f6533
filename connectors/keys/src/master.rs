//! The master key: 32 bytes in base64, from a file or passed as text.
//!
//! A file is created by [`private_file`]: for its owner only, as a whole or not at all, and never over another.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::cipher::{AesCipher, Erased, Owner};
use super::derive::{Clear, KEY_BYTES, Purpose, Root};
use super::entropy::{Entropy, SystemEntropy};
use super::private_file;

/// Error of loading or creating a master key.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    /// The text is not base64.
    #[error("the master key is no base64; it takes 32 bytes, such as `openssl rand -base64 32` prints")]
    Base64,
    /// The key is too short or too long.
    #[error("the master key has {bytes} bytes; it takes 32, such as `openssl rand -base64 32` prints")]
    Length {
        /// Its length.
        bytes: usize,
    },
    /// The file could not be read or made.
    #[error("the master key's file {} cannot be {action}: {source}", path.display())]
    File {
        /// File that the operation failed on.
        path: PathBuf,
        /// `read` or `made`.
        action: &'static str,
        /// Operating system's error.
        source: io::Error,
    },
    /// A file is to be made where one is.
    #[error("{} is there already; a key that wraps something must not be replaced, so name another file", path.display())]
    Exists {
        /// File that exists.
        path: PathBuf,
    },
}

/// The master key. Its `Debug` output is redacted, and it is overwritten when it is dropped.
pub struct MasterKey(Clear);

impl MasterKey {
    /// Generates a new key.
    ///
    /// # Panics
    /// When the operating system has no random bytes.
    #[must_use]
    pub fn generate() -> Self {
        let mut key = Clear::default();
        SystemEntropy.key(&mut key[..]);
        Self(key)
    }

    /// Reads 32 bytes in base64; white space around them is left out.
    ///
    /// # Errors
    /// [`MasterKeyError::Base64`], [`MasterKeyError::Length`].
    pub fn from_base64(text: &str) -> Result<Self, MasterKeyError> {
        let bytes = STANDARD.decode(text.trim()).map(Zeroizing::new).map_err(|_| MasterKeyError::Base64)?;
        let mut key = Clear::default();
        if bytes.len() != KEY_BYTES {
            return Err(MasterKeyError::Length { bytes: bytes.len() });
        }
        key.copy_from_slice(&bytes);
        Ok(Self(key))
    }

    /// Reads it from a file.
    ///
    /// # Errors
    /// [`MasterKeyError`].
    pub fn load(path: &Path) -> Result<Self, MasterKeyError> {
        warn_if_open(path);
        let text = fs::read_to_string(path).map(Zeroizing::new).map_err(failed(path, "read"))?;
        Self::from_base64(&text)
    }

    /// Reads it from a file, which is made with a new key when there is none.
    ///
    /// # Errors
    /// [`MasterKeyError`].
    pub fn load_or_create(path: &Path) -> Result<Self, MasterKeyError> {
        match Self::load(path) {
            Err(MasterKeyError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                match create(path, &Self::generate()) {
                    // Another process may have been first; the file decides.
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    made => made.map_err(failed(path, "made"))?,
                }
                Self::load(path)
            }
            loaded => loaded,
        }
    }

    /// Creates a file with a new key, unless it exists.
    ///
    /// # Errors
    /// [`MasterKeyError::Exists`], [`MasterKeyError::File`].
    ///
    /// # Panics
    /// When the operating system has no random bytes.
    pub fn create_new(path: &Path) -> Result<Self, MasterKeyError> {
        let key = Self::generate();
        match create(path, &key) {
            Ok(()) => Ok(key),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(MasterKeyError::Exists { path: path.to_owned() })
            }
            Err(error) => Err(failed(path, "made")(error)),
        }
    }

    /// Its id, which ciphertexts carry and messages name: 32 bits derived from it one way.
    #[must_use]
    pub fn number(&self) -> u32 {
        let id = Root::new(&self.0).derive(Purpose::MasterId);
        u32::from_be_bytes([id[0], id[1], id[2], id[3]])
    }

    /// Returns the cipher that wraps tenants' keys.
    pub(super) fn cipher(&self, entropy: Arc<dyn Entropy>) -> AesCipher {
        let key = Root::new(&self.0).derive(Purpose::MasterWrap);
        AesCipher::new(&key, self.number(), Owner::Master, Erased::default(), entropy)
    }

    fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(&self.0[..]))
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey({:08x})", self.number())
    }
}

fn failed(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> MasterKeyError {
    move |source| MasterKeyError::File { path: path.to_owned(), action, source }
}

fn create(path: &Path, key: &MasterKey) -> io::Result<()> {
    private_file::create(path, Zeroizing::new(format!("{}\n", *key.to_base64())).as_bytes())
}

/// Others may read the file. Refusing it would keep out secrets that an orchestrator mounts, which
/// are often readable to all inside their container.
fn warn_if_open(path: &Path) {
    #[cfg(unix)]
    if let Ok(meta) = fs::metadata(path)
        && std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o077 != 0
    {
        tracing::warn!(path = %path.display(), "others may read the master key; chmod 600 keeps them out");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_made_once_and_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data/master.key");
        let made = MasterKey::load_or_create(&path).unwrap();
        let again = MasterKey::load_or_create(&path).unwrap();
        assert_eq!(made.0, again.0);
        assert_eq!(STANDARD.decode(fs::read_to_string(&path).unwrap().trim()).unwrap(), made.0.to_vec());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let names: Vec<_> =
            fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["master.key"], "nothing is left beside it");
    }

    #[test]
    fn of_two_makers_one_wins_for_both() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        let winner = MasterKey::load_or_create(&path).unwrap();
        let second = create(&path, &MasterKey::generate()).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(MasterKey::load_or_create(&path).unwrap().0, winner.0);
    }

    #[test]
    fn a_key_is_never_made_over_another_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("next.key");
        let made = MasterKey::create_new(&path).unwrap();
        let refused = MasterKey::create_new(&path).unwrap_err();
        assert!(matches!(refused, MasterKeyError::Exists { .. }), "{refused}");
        assert_eq!(MasterKey::load(&path).unwrap().0, made.0);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_text_that_is_no_key_is_refused_with_the_format() {
        for (text, part) in [("", "0 bytes"), ("AAAA", "3 bytes"), ("not base64!", "no base64")] {
            let error = MasterKey::from_base64(text).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("openssl rand -base64 32"), "{error}");
        }
        let missing = MasterKey::load(Path::new("/missing/master.key")).unwrap_err().to_string();
        assert!(missing.contains("/missing/master.key cannot be read"), "{missing}");
    }

    #[test]
    fn a_key_never_prints() {
        let key = MasterKey::from_base64(&format!("\n{}= \n", "A".repeat(43))).unwrap();
        let id = key.number();
        assert_eq!(format!("{key:?}"), format!("MasterKey({id:08x})"));
        assert_ne!(id, 0, "the id is no piece of the key");
    }
}
