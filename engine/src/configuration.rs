//! Configuration of a node: `heddle.toml` and the environment, read once.
//!
//! The file's values override the defaults, and `HEDDLE_<SECTION>__<KEY>` overrides the file. Secrets are
//! written as a literal, `env:NAME` or `file:PATH` and resolved here, so that no other part of the engine
//! reads the environment or a secret's file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::Provider as _;
use figment::providers::Env;
use heddle_connectors::channels;
use heddle_connectors::cql;
use heddle_connectors::cql::schema::Wanted;
use heddle_connectors::kafka::{self, topics};
use heddle_connectors::keys::{MasterKeyError, vault};
use heddle_schemas::config::{Config, State};
use heddle_schemas::sealed::Secret;
use heddle_schemas::tenant::{Faults, Tenant};
use heddle_schemas::toml_file::TomlFile;

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
    /// Text that is not TOML, values of a wrong type, unknown keys, invalid values.
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
    let mut file = TomlFile::parse(&text, Some(&path.display().to_string()));
    for (variable, path, value) in environment() {
        file.set(&variable, &path.iter().map(String::as_str).collect::<Vec<_>>(), value);
    }
    let mut reading = file.read::<Config>();
    let Some(config) = &mut reading.value else { return Ok(reading.finish([])?) };
    let mut faults = config.validate().err().map(|Faults(faults)| faults).unwrap_or_default();
    let mut secrets = vec![
        ("http.admin_token".to_owned(), &mut config.http.admin_token),
        ("http.metrics_token".to_owned(), &mut config.http.metrics_token),
        ("state.password".to_owned(), &mut config.state.password),
    ];
    secrets.extend(config.log.client.iter_mut().map(|(key, value)| (format!("log.client.{key}"), value)));
    for (place, secret) in secrets {
        match resolve(&place, secret) {
            Ok(resolved) => *secret = resolved,
            Err(error) => faults.push(error.to_string()),
        }
    }
    if faults.is_empty() {
        // A secret that was read may be a fault by itself.
        faults = config.validate().err().map(|Faults(faults)| faults).unwrap_or_default();
    }
    Ok(reading.finish(faults)?)
}

/// Returns the variables of the environment that set a value: name, path and value.
fn environment() -> Vec<(String, Vec<String>, toml::Value)> {
    // A variable without a section, such as HEDDLE_SEEDS of a test, is ignored, except for the one key outside all
    // sections.
    let variables = Env::prefixed("HEDDLE_")
        .filter(|key| key == "data_dir" || key.as_str().contains("__"))
        .split("__")
        .lowercase(true);
    let mut found = Vec::new();
    for (_, values) in variables.data().into_iter().flatten() {
        for (key, value) in values {
            // A value that TOML has no form for is a text that its field refuses.
            let value = toml::Value::try_from(&value).unwrap_or_else(|error| error.to_string().into());
            leaves(vec![key], value, &mut found);
        }
    }
    found
}

/// Collects the values in nested tables, each with the name of its variable.
fn leaves(path: Vec<String>, value: toml::Value, found: &mut Vec<(String, Vec<String>, toml::Value)>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                leaves(path.iter().cloned().chain([key]).collect(), value, found);
            }
        }
        value => found.push((format!("HEDDLE_{}", path.join("__").to_uppercase()), path, value)),
    }
}

/// Resolves a secret from its configured source. An empty one there is a fault: whoever names a source has a secret.
///
/// # Errors
/// [`ConfigurationError::Secret`].
#[expect(clippy::disallowed_methods, reason = "the environment is read here and nowhere else")]
pub fn resolve(place: &str, secret: &Secret) -> Result<Secret, ConfigurationError> {
    let wrong = |why: String| ConfigurationError::Secret { place: place.to_owned(), why };
    let some = |value: String| (!value.trim().is_empty()).then(|| Secret::new(value));
    let written = secret.expose();
    if let Some(name) = written.strip_prefix("env:") {
        let value = std::env::var(name)
            .map_err(|_| wrong(format!("the environment has no {name}; set it, or write file:PATH")))?;
        return some(value).ok_or_else(|| wrong(format!("the environment's {name} is empty")));
    }
    if let Some(path) = written.strip_prefix("file:") {
        let value = std::fs::read_to_string(path).map_err(|error| wrong(format!("{path}: {error}")))?;
        let value = value.trim_end_matches(['\r', '\n']).to_owned();
        return some(value).ok_or_else(|| wrong(format!("{path} is empty")));
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
    let mut reading = TomlFile::parse(&text, None).read::<Tenant>();
    let Some(tenant) = &mut reading.value else { return Ok(reading.finish([])?) };
    let mut faults = Vec::new();
    let accounts: Vec<_> =
        tenant.channels.iter().map(|one| format!("channels.{}.{}.", one.kind, one.account)).collect();
    // Channels check the form of their secrets, so these are resolved first.
    for (place, secret) in tenant.secrets_mut() {
        let place = in_file(&accounts, &place);
        match resolve(&place, secret) {
            Ok(resolved) => *secret = resolved,
            Err(error) => faults.push(error.to_string()),
        }
    }
    if let Err(Faults(more)) = tenant.complete(&channels::profile) {
        // The form of a secret that is not at its source says nothing.
        let place = |fault: &str| fault.split_once(": ").map(|(place, _)| place.to_owned());
        let unresolved: Vec<_> = faults.iter().filter_map(|fault: &String| place(fault)).collect();
        let known = |fault: &String| place(fault).is_none_or(|place| !unresolved.contains(&place));
        faults.splice(0..0, more.into_iter().filter(known));
    }
    Ok(reading.finish(faults)?)
}

/// Returns the place of a secret in the file: its channel is an item of a list there.
fn in_file(accounts: &[String], place: &str) -> String {
    let channel = accounts.iter().enumerate().find_map(|(index, account)| {
        place.strip_prefix(account.as_str()).map(|field| format!("channels[{index}].{field}"))
    });
    channel.unwrap_or_else(|| {
        match place.strip_prefix("llm.fallbacks.").and_then(|rest| rest.split_once('.')) {
            Some((index, field)) => format!("llm.fallbacks[{index}].{field}"),
            None => place.to_owned(),
        }
    })
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
    fn every_fault_of_the_configuration_is_reported_at_once() {
        let file = written(
            "[http]\nlisten = 5\nadmin_token = \"env:HEDDLE_NO_SUCH\"\n[node]\nlease = \"1s\"\ncolour = \"red\"\n\
             [log]\nkind = \"files\"\npartitions = 2000\n",
        );
        let error = load(Some(file.path())).unwrap_err().to_string();
        for (place, line) in [
            ("http.listen", 2),
            ("http.admin_token", 3),
            ("node.lease", 5),
            ("node.colour", 6),
            ("log.kind", 8),
            ("log.partitions", 9),
        ] {
            let found = error.lines().any(|fault| {
                fault.starts_with(&format!("{place}: ")) && fault.ends_with(&format!(", line {line})"))
            });
            assert!(found, "{place} in line {line}: {error}");
        }
        assert_eq!(error.lines().count(), 7, "{error}");
    }

    #[test]
    fn every_fault_of_a_tenants_file_is_reported_with_those_of_its_secrets() {
        let file = written(
            "id = \"acme\"\nname = 7\n[[channels]]\nkind = \"whatsapp\"\naccount = \"1\"\n\
             access_token = \"env:HEDDLE_NO_SUCH\"\napp_secret = \"[redacted]\"\nverify_tokn = \"v\"\n",
        );
        let error = load_tenant(file.path()).unwrap_err().to_string();
        for fault in [
            "name: ",
            "channels[0].access_token: the environment has no HEDDLE_NO_SUCH",
            "channels[0].verify_tokn: ",
            "channels[0].verify_token: ",
        ] {
            assert!(
                error.lines().any(|line| line.starts_with(fault) && line.contains("(line ")),
                "{fault}: {error}"
            );
        }
    }

    #[test]
    fn the_form_of_a_secret_is_checked_where_it_is_kept_and_not_in_the_file() {
        let secret = written("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n");
        let tenant = |source: &str| {
            let text = "id = \"shop\"\nname = \"Shop\"\n[[channels]]\nkind = \"http\"\naccount = \"website\"\n\
                        api_base = \"http://127.0.0.1:9900/replies\"\nwebhook_secret = ";
            load_tenant(written(&format!("{text}\"{source}\"\n")).path())
        };
        tenant(&format!("file:{}", secret.path().display())).unwrap();
        let error = tenant("env:HEDDLE_NO_SUCH").unwrap_err().to_string();
        assert!(error.contains("HEDDLE_NO_SUCH") && !error.contains("Standard Webhooks"), "{error}");
        let error = tenant("secret").unwrap_err().to_string();
        assert!(error.contains("Standard Webhooks") && error.contains("(line 7)"), "{error}");
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
    fn an_empty_or_short_token_where_it_is_said_to_be_is_a_fault_with_its_place() {
        for (content, why) in
            [("", "is empty"), ("\n", "is empty"), (" \n", "is empty"), ("short\n", "16 bytes")]
        {
            let token = written(content);
            for key in ["admin_token", "metrics_token"] {
                let text = format!(
                    "[http]\nlisten = \"0.0.0.0:8080\"\n{key} = \"file:{}\"\n",
                    token.path().display()
                );
                let error = load(Some(written(&text).path())).unwrap_err().to_string();
                assert!(
                    error.contains(&format!("http.{key}")) && error.contains(why),
                    "{content:?}: {error}"
                );
            }
        }
        let error = resolve("app_secret", &Secret::new("file:/dev/null")).unwrap_err().to_string();
        assert!(error.contains("app_secret: /dev/null is empty"), "{error}");
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
