//! Configuration of a node: `heddle.toml` and the environment, read once.
//!
//! The file's values override the defaults, and `HEDDLE_<SECTION>__<KEY>` overrides the file. Secrets are
//! written as a literal, `env:NAME` or `file:PATH` and resolved here, so that no other part of the engine
//! reads the environment or a secret's file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use heddle_connectors::channels;
use heddle_connectors::cql;
use heddle_connectors::cql::schema::Wanted;
use heddle_connectors::kafka::{self, topics};
use heddle_connectors::keys::{MasterKeyError, vault};
use heddle_schemas::config::{Config, State};
use heddle_schemas::sealed::Secret;
use heddle_schemas::tenant::{Faults, Tenant};

/// Default configuration file.
pub const DEFAULT_FILE: &str = "heddle.toml";

/// Error of a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// The file cannot be read.
    #[error("{} cannot be read: {source}", .path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// A value has the wrong type, or its key is unknown.
    #[error("the configuration cannot be read:\n{}", .0.join("\n"))]
    Values(Vec<String>),
    /// Invalid values.
    #[error("the configuration is wrong:\n{0}")]
    Faults(#[from] Faults),
    /// A secret is not at its configured source.
    #[error("{place}: {why}")]
    Secret {
        /// Configuration key of the secret.
        place: String,
        /// Fault, without the secret.
        why: String,
    },
    /// The master key cannot be used.
    #[error(transparent)]
    Master(#[from] MasterKeyError),
    /// The Vault client cannot be set up.
    #[error(transparent)]
    Vault(#[from] vault::SetupError),
    /// Conflicting master keys.
    #[error("{0}")]
    Masters(String),
    /// The master key's file is missing, but data exists.
    #[error(
        "{data} holds data, but its master key {} is missing: nothing in it could be read. Put the key back (a \
         new one would not open it), or start with an empty store", .key.display()
    )]
    MasterMissing {
        /// Data folder or keyspace.
        data: String,
        /// Expected path of the key.
        key: PathBuf,
    },
}

/// Reads the configuration. A named file must exist; the default one need not.
///
/// # Errors
/// [`ConfigurationError`], with every fault at once.
pub fn load(file: Option<&Path>) -> Result<Config, ConfigurationError> {
    let path = file.unwrap_or(Path::new(DEFAULT_FILE));
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if file.is_none() && error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(source) => return Err(ConfigurationError::File { path: path.into(), source }),
    };
    // A variable without a section, such as HEDDLE_SEEDS of a test, is ignored, except for the one key outside all
    // sections.
    let environment = Env::prefixed("HEDDLE_")
        .filter(|key| key == "data_dir" || key.as_str().contains("__"))
        .split("__")
        .lowercase(true);
    let figment =
        Figment::from(Serialized::defaults(Config::default())).merge(Toml::string(&text)).merge(environment);
    let mut config: Config = figment.extract().map_err(|error| {
        ConfigurationError::Values(error.into_iter().map(|error| describe(&error, path)).collect())
    })?;
    config.validate()?;
    config.http.admin_token = resolve("http.admin_token", &config.http.admin_token)?;
    config.state.password = resolve("state.password", &config.state.password)?;
    for (key, value) in &mut config.log.client {
        *value = resolve(&format!("log.client.{key}"), value)?;
    }
    Ok(config)
}

/// Formats one fault of a value, with its key and its source.
fn describe(error: &figment::Error, file: &Path) -> String {
    let key = error.path.join(".");
    let from = match &error.metadata {
        Some(metadata) if metadata.name.contains("environment") => "the environment".to_owned(),
        _ => file.display().to_string(),
    };
    // Only the kind, whose text never repeats a whole file.
    if key.is_empty() { format!("{from}: {}", error.kind) } else { format!("{from}: {key}: {}", error.kind) }
}

/// Resolves a secret from its configured source.
///
/// # Errors
/// [`ConfigurationError::Secret`].
#[expect(clippy::disallowed_methods, reason = "the environment is read here and nowhere else")]
pub fn resolve(place: &str, secret: &Secret) -> Result<Secret, ConfigurationError> {
    let wrong = |why: String| ConfigurationError::Secret { place: place.to_owned(), why };
    let written = secret.expose();
    if let Some(name) = written.strip_prefix("env:") {
        let value = std::env::var(name)
            .map_err(|_| wrong(format!("the environment has no {name}; set it, or write file:PATH")))?;
        return Ok(Secret::new(value));
    }
    if let Some(path) = written.strip_prefix("file:") {
        let value = std::fs::read_to_string(path).map_err(|error| wrong(format!("{path}: {error}")))?;
        return Ok(Secret::new(value.trim_end_matches(['\r', '\n'])));
    }
    Ok(secret.clone())
}

/// Reads a tenant's file and its secrets.
///
/// # Errors
/// [`ConfigurationError`], with every fault at once.
pub fn load_tenant(path: &Path) -> Result<Tenant, ConfigurationError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigurationError::File { path: path.into(), source })?;
    let mut tenant = Tenant::parse(&text)?;
    let mut faults = Vec::new();
    for (place, secret) in tenant.secrets_mut() {
        match resolve(&place, secret) {
            Ok(resolved) if resolved.expose() == "[redacted]" => faults.push(format!(
                "{place}: is \"[redacted]\", the placeholder of `heddle tenant show`; write the secret, env:NAME or file:PATH"
            )),
            Ok(resolved) => *secret = resolved,
            Err(error) => faults.push(error.to_string()),
        }
    }
    if let Err(Faults(more)) = tenant.complete(&channels::profile) {
        faults.splice(0..0, more);
    }
    if faults.is_empty() { Ok(tenant) } else { Err(Faults(faults).into()) }
}

/// Returns the maximum time of a rebalance for the node to release a partition: slightly longer than its actors' limit.
#[must_use]
pub fn handover(config: &Config) -> Duration {
    config.engine.drain + Duration::from_secs(5)
}

/// Returns the options of the Kafka connection and of the topics.
#[must_use]
pub fn kafka(config: &Config) -> kafka::Options {
    let log = &config.log;
    kafka::Options {
        connection: kafka::Connection {
            brokers: log.brokers.clone(),
            node: config.node.name.clone(),
            client: log.client.clone(),
        },
        prefix: log.topic_prefix.clone(),
        partitions: log.partitions,
        session_timeout: log.session_timeout,
        handover: handover(config),
        max_record_bytes: log.max_record_bytes.get(),
        policy: topics::Policy { replication: log.replication.get(), retention: log.retention },
    }
}

/// A path that is configured.
fn named(path: &Path) -> Option<PathBuf> {
    Some(path.to_owned()).filter(|path| !path.as_os_str().is_empty())
}

/// Returns the options of the CQL connection, and the replication of its keyspace.
#[must_use]
pub fn cql(state: &State) -> (cql::Options, Wanted) {
    let options = cql::Options {
        nodes: state.nodes.clone(),
        keyspace: state.keyspace.clone(),
        datacenter: Some(state.datacenter.clone()).filter(|name| !name.is_empty()),
        user: state.user.clone(),
        password: state.password.clone(),
        tls: named(&state.ca).map(|ca| cql::Tls {
            ca,
            client: named(&state.certificate).map(|certificate| cql::ClientCertificate {
                certificate,
                key: state.certificate_key.clone(),
            }),
        }),
        timeout: state.timeout,
        in_flight: state.in_flight,
    };
    let replication = match state.datacenters.is_empty() {
        true => Wanted::Everywhere(state.replication),
        false => Wanted::Exactly(state.datacenters.clone()),
    };
    (options, replication)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn a_file_stands_over_the_defaults() {
        let file = written("[http]\nlisten = \"127.0.0.1:9000\"\n[engine]\ndrain = \"3s\"\n");
        let config = load(Some(file.path())).unwrap();
        assert_eq!(config.http.listen.port(), 9000);
        assert_eq!(config.engine.drain.as_secs(), 3);
        assert_eq!(config.log, heddle_schemas::config::Log::default());
    }

    #[test]
    fn an_unknown_key_is_named_with_its_file() {
        let file = written("[http]\nlisen = \"127.0.0.1:9000\"\n");
        let error = load(Some(file.path())).unwrap_err().to_string();
        assert!(error.contains("lisen") && error.contains(&file.path().display().to_string()), "{error}");
    }

    #[test]
    fn a_named_file_that_is_not_there_is_no_empty_one() {
        let error = load(Some(Path::new("/nowhere/heddle.toml"))).unwrap_err().to_string();
        assert!(error.contains("/nowhere/heddle.toml"), "{error}");
    }

    #[test]
    fn a_secret_comes_from_where_it_is_said_to_be_and_a_missing_one_is_named_by_its_place() {
        let file = written("s3cret\n");
        let from_file = Secret::new(format!("file:{}", file.path().display()));
        assert_eq!(resolve("x", &from_file).unwrap().expose(), "s3cret");
        assert_eq!(resolve("x", &Secret::new("literal")).unwrap().expose(), "literal");
        let error = resolve("llm.api_key", &Secret::new("env:HEDDLE_NO_SUCH")).unwrap_err().to_string();
        assert!(error.contains("llm.api_key") && error.contains("HEDDLE_NO_SUCH"), "{error}");
    }

    #[test]
    fn a_cluster_is_reached_as_its_section_says() {
        let file = written(
            "[log]\nkind = \"kafka\"\n[state]\nkind = \"cql\"\nnodes = [\"db1:9042\", \"db2:9042\"]\ndatacenter = \"eu\"\n\
             user = \"heddle\"\npassword = \"literal\"\n[state.datacenters]\neu = 3\nus = 2\n",
        );
        let (options, replication) = cql(&load(Some(file.path())).unwrap().state);
        assert_eq!(options.nodes, ["db1:9042", "db2:9042"]);
        assert_eq!(options.datacenter.as_deref(), Some("eu"));
        assert_eq!(options.password.expose(), "literal");
        let Wanted::Exactly(datacenters) = replication else { panic!("{replication:?}") };
        assert_eq!(
            datacenters.into_iter().map(|(name, n)| (name, n.get())).collect::<Vec<_>>(),
            [("eu".to_owned(), 3), ("us".to_owned(), 2)]
        );
        let (options, replication) = cql(&State::default());
        assert_eq!(options.datacenter, None);
        assert_eq!(replication, Wanted::Everywhere(std::num::NonZeroU32::MIN));
    }
}
