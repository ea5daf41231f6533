//! Configured master keys (key-encryption keys): in a file, in the environment, or in Vault.
//!
//! A missing file is created only for a store that has no master key yet: keys wrapped with one could not be
//! unwrapped with another.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use heddle_connectors::keys::vault::{self, Vault};
use heddle_connectors::keys::{LocalMaster, MasterKey, MasterKeyError, Masters, SystemEntropy, Wrapper};
use heddle_schemas::config::{Config, StateKind};
use heddle_schemas::sealed::Secret;

use crate::configuration::{ConfigurationError, resolve};

/// Master keys of a configuration. The current one may be in a file that does not exist yet.
#[derive(Debug)]
pub struct MasterKeys {
    present: Present,
    former: Vec<Arc<dyn Wrapper>>,
    /// Location of the data whose keys it wraps, for error texts.
    data: String,
}

#[derive(Debug)]
enum Present {
    Read(Arc<dyn Wrapper>),
    NoFile(PathBuf),
}

impl MasterKeys {
    /// Reads the master keys, and creates none.
    ///
    /// # Errors
    /// [`ConfigurationError`].
    pub fn read(config: &Config, calls: &vault::Calls) -> Result<Self, ConfigurationError> {
        let former = config.keys.former.iter().map(|written| read("keys.former", written, config, calls));
        let former = former.collect::<Result<_, _>>()?;
        let data = match config.state.kind {
            StateKind::Embedded => config.data_dir.display().to_string(),
            StateKind::Cql => format!("keyspace {}", config.state.keyspace),
        };
        let default = config.data_dir.join("master.key");
        let path = match config.keys.master.strip_prefix("file:") {
            Some(path) => Some(Path::new(path)),
            None => config.keys.master.is_empty().then_some(&*default),
        };
        let present = match path {
            Some(path) if !path.exists() => {
                if config.state.kind == StateKind::Embedded && config.data_dir.join("journal").exists() {
                    return Err(missing(data, path));
                }
                Present::NoFile(path.to_owned())
            }
            Some(path) => Present::Read(local(format!("file:{}", path.display()), &MasterKey::load(path)?)),
            None => Present::Read(read("keys.master", &config.keys.master, config, calls)?),
        };
        Ok(Self { present, former, data })
    }

    /// Returns all master keys. Creates the missing file if the store has no master key yet.
    ///
    /// # Errors
    /// [`ConfigurationError`].
    pub fn for_store(self, has_begun: bool) -> Result<Masters, ConfigurationError> {
        let present = match self.present {
            Present::Read(present) => present,
            Present::NoFile(path) if has_begun => return Err(missing(self.data, &path)),
            Present::NoFile(path) => {
                local(format!("file:{}", path.display()), &MasterKey::load_or_create(&path)?)
            }
        };
        Masters::new(present, self.former).map_err(|error| ConfigurationError::Masters(error.to_string()))
    }
}

fn missing(data: String, key: &Path) -> ConfigurationError {
    ConfigurationError::MasterMissing { data, key: key.to_owned() }
}

fn local(name: String, key: &MasterKey) -> Arc<dyn Wrapper> {
    Arc::new(LocalMaster::new(name, key, Arc::new(SystemEntropy)))
}

/// Reads one existing key, in the syntax of `keys.master` and `keys.former`.
fn read(
    place: &str,
    written: &str,
    config: &Config,
    calls: &vault::Calls,
) -> Result<Arc<dyn Wrapper>, ConfigurationError> {
    if let Some(key) = written.strip_prefix("vault:") {
        let key = key.parse().map_err(|why: &str| wrong(place, why))?;
        let token = config.keys.token.clone();
        resolve("keys.token", &token)?;
        // Resolved for each call, since an agent may have renewed it.
        let token: vault::Token =
            Arc::new(move || resolve("keys.token", &token).map_err(|error| error.to_string()));
        let ca = Some(config.keys.ca.clone()).filter(|ca| !ca.as_os_str().is_empty());
        let options = vault::Options { timeout: config.keys.timeout, ca, ..vault::Options::default() };
        return Ok(Arc::new(Vault::new(key, token, &options, calls.clone())?));
    }
    let key = match written.strip_prefix("file:") {
        Some(path) => MasterKey::load(Path::new(path)),
        None => MasterKey::from_base64(resolve(place, &Secret::new(written))?.expose()),
    };
    let key = key.map_err(|error| match error {
        error @ MasterKeyError::File { .. } => wrong(place, error),
        error => wrong(place, format!("{written}: {error}")),
    })?;
    Ok(local(written.to_owned(), &key))
}

fn wrong(place: &str, why: impl ToString) -> ConfigurationError {
    ConfigurationError::Secret { place: place.to_owned(), why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn embedded(folder: &Path) -> Config {
        Config { data_dir: folder.into(), ..Config::default() }
    }

    fn calls() -> vault::Calls {
        vault::Calls::register(&prometheus::Registry::new())
    }

    fn masters(config: &Config, has_begun: bool) -> Result<Masters, ConfigurationError> {
        MasterKeys::read(config, &calls())?.for_store(has_begun)
    }

    #[test]
    fn a_lost_master_key_is_not_replaced_by_another() {
        let folder = tempfile::tempdir().unwrap();
        let config = embedded(folder.path());
        let made = masters(&config, false).unwrap().present().number();
        assert_eq!(masters(&config, true).unwrap().present().number(), made);
        std::fs::create_dir(folder.path().join("journal")).unwrap();
        std::fs::remove_file(folder.path().join("master.key")).unwrap();
        let error = masters(&config, false).unwrap_err().to_string();
        assert!(error.contains("master.key") && error.contains("missing"), "{error}");
        assert!(!folder.path().join("master.key").exists());
    }

    #[test]
    fn a_shared_store_with_a_master_key_gets_no_second_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = embedded(folder.path());
        config.state.kind = StateKind::Cql;
        let error = masters(&config, true).unwrap_err().to_string();
        assert!(error.contains("keyspace heddle") && error.contains("missing"), "{error}");
        assert!(!folder.path().join("master.key").exists());
        masters(&config, false).unwrap();
    }

    #[test]
    fn a_previous_key_is_read_and_never_created() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = embedded(folder.path());
        let former = folder.path().join("former.key");
        config.keys.former = vec![format!("file:{}", former.display())];
        let error = masters(&config, false).unwrap_err().to_string();
        assert!(error.contains("keys.former") && error.contains("former.key"), "{error}");
        assert!(!former.exists());
        let number = MasterKey::create_new(&former).unwrap().number();
        let read = masters(&config, false).unwrap();
        assert!(read.known(number).is_some() && read.present().number() != number);
        config.keys.master.clone_from(&config.keys.former[0]);
        let error = masters(&config, false).unwrap_err().to_string();
        assert!(error.contains("the same master key"), "{error}");
    }

    #[test]
    fn a_missing_vault_token_is_reported_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = embedded(folder.path());
        config.keys.master = "vault:https://vault.example.com:8200/transit/keys/heddle".into();
        config.keys.token = Secret::new(format!("file:{}", folder.path().join("token").display()));
        let error = masters(&config, false).unwrap_err().to_string();
        assert!(error.contains("keys.token") && error.contains("token:"), "{error}");
        std::fs::write(folder.path().join("token"), "hvs.1\n").unwrap();
        assert_eq!(masters(&config, false).unwrap().present().name(), config.keys.master);
    }
}
