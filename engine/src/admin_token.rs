//! Admin token: configured, or made at the first start and kept in the data folder, where commands find it.
//!
//! Whoever may read the data folder may administer the node, which is so without the token too: the folder holds the
//! store. The file is for its owner only.

use std::io;
use std::path::{Path, PathBuf};

use heddle_connectors::keys::{Entropy as _, SystemEntropy, private_file};
use heddle_schemas::config::{Config, Http};
use heddle_schemas::sealed::Secret;

use crate::configuration::ConfigurationError;

/// Returns where the token is kept, unless it is configured.
#[must_use]
pub fn path(config: &Config) -> PathBuf {
    config.data_dir.join("admin.token")
}

/// Returns the token of a node that starts. Makes it at the first start.
///
/// # Errors
/// [`ConfigurationError::Secret`].
pub fn of_node(config: &Config) -> Result<Secret, ConfigurationError> {
    if let Some(token) = of_command(config)? {
        return Ok(token);
    }
    let path = path(config);
    let mut bytes = [0; 32];
    SystemEntropy.key(&mut bytes);
    match private_file::create(&path, format!("{}\n", hex::encode(bytes)).as_bytes()) {
        // Another process may have been first; the file decides.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made.map_err(|error| wrong(&path, error))?,
    }
    of_command(config)?.ok_or_else(|| wrong(&path, "has gone"))
}

/// Returns the token that a command uses, and makes none.
///
/// # Errors
/// [`ConfigurationError::Secret`].
pub fn of_command(config: &Config) -> Result<Option<Secret>, ConfigurationError> {
    if !config.http.admin_token.is_empty() {
        return Ok(Some(config.http.admin_token.clone()));
    }
    let path = path(config);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(&path, error)),
    };
    let token = text.trim();
    if token.len() < Http::TOKEN_BYTES_MIN {
        let why =
            format!("holds under {} bytes; remove it, and the next start makes one", Http::TOKEN_BYTES_MIN);
        return Err(wrong(&path, why));
    }
    Ok(Some(Secret::new(token)))
}

fn wrong(path: &Path, why: impl std::fmt::Display) -> ConfigurationError {
    let why = format!("{}: {why}", path.display());
    ConfigurationError::Secret { place: "the admin token".into(), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_made_once_for_its_owner_only_and_found_by_commands() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let config = Config { data_dir: folder.path().join("data"), ..Config::default() };
        assert_eq!(of_command(&config).unwrap(), None);
        assert!(!config.data_dir.exists(), "a command makes nothing");
        let made = of_node(&config).unwrap();
        assert_eq!(hex::decode(made.expose()).unwrap().len(), 32);
        assert_eq!(of_node(&config).unwrap(), made);
        assert_eq!(of_command(&config).unwrap(), Some(made.clone()));
        assert_eq!(std::fs::metadata(path(&config)).unwrap().permissions().mode() & 0o777, 0o600);
        let other = Config { data_dir: folder.path().join("other"), ..config.clone() };
        assert_ne!(of_node(&other).unwrap(), made);
        let http = Http { admin_token: Secret::new("0123456789abcdef"), ..config.http.clone() };
        assert_eq!(of_node(&Config { http, ..config }).unwrap().expose(), "0123456789abcdef");
    }

    #[test]
    fn an_emptied_file_is_a_fault_and_no_token() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { data_dir: folder.path().into(), ..Config::default() };
        std::fs::write(path(&config), "\n").unwrap();
        let fault = of_node(&config).unwrap_err().to_string();
        assert!(fault.contains("admin.token") && fault.contains("16 bytes"), "{fault}");
    }
}
