//! Command line of the binary.
//!
//! Exit codes: 0 done; 1 failed, or a promise is broken; 2 wrong usage or configuration. The result of a
//! command goes to standard output, as text or with `--json` as JSON; faults and log lines go to standard
//! error.
//!
//! # Layout
//! - [`output`]: the only module that prints.
//! - [`admin`]: access to a node, through its admin API or to a folder that no process has open.
//! - One file per command: [`serve`], [`check_config`], [`topics`], [`schema`], [`tenant`], [`kb`], [`audience`],
//!   [`contact`], [`keys`], [`audit`], [`dlq`], [`extract`], [`demo`], [`load`]; `operator` gives the last two the
//!   admin API.

pub mod admin;
pub mod audience;
pub mod audit;
pub mod check_config;
pub mod contact;
pub mod demo;
pub mod dlq;
mod export;
pub mod extract;
pub mod kb;
pub mod keys;
pub mod load;
mod operator;
pub mod output;
pub mod schema;
pub mod serve;
pub mod tenant;
pub mod topics;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use heddle_actors::tenant::configuration::TenantsError;
use heddle_connectors::{embedded, kafka};
use heddle_schemas::config::Config;
use heddle_schemas::ports::keys::KeysError;

use self::output::{Fault, Output};
use crate::configuration::{self, ConfigurationError};
use crate::node::NodeError;
use crate::service::ServiceError;
use crate::stores::StoresError;
use crate::telemetry;

/// Actor-based message engine for AI customer agents and bulk campaigns over WhatsApp.
#[derive(Debug, Parser)]
#[command(name = "heddle", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Configuration file. Default: heddle.toml if it exists, else the embedded defaults.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print results as JSON.
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node: accept webhooks and answer customers, until SIGTERM or SIGINT.
    Serve,
    /// Check the configuration and tenants' files without starting anything.
    CheckConfig(check_config::Arguments),
    /// Compare Kafka's topics with the configuration, or create and change them.
    Topics(topics::Arguments),
    /// Compare the tables of a CQL state store with this build, or create what is missing.
    Schema(schema::Arguments),
    /// Manage tenants: apply a file, list, show, disconnect a channel, usage, export, delete.
    Tenant(tenant::Arguments),
    /// Manage a tenant's documents: add, list, remove, search.
    Kb(kb::Arguments),
    /// Manage audiences, the lists of people for campaigns: import, list, show, export, delete.
    Audience(audience::Arguments),
    /// Manage contacts: hand over conversations, consents, export, correct, restrict, erase.
    Contact(contact::Arguments),
    /// Manage master keys: create one, show the status, rotate to the current one.
    Keys(keys::Arguments),
    /// Read one file in a process of its own; started by nodes.
    #[command(hide = true)]
    Extract(extract::Arguments),
    /// Manage dead letters (records that could not be processed): list, show, replay.
    Dlq(dlq::Arguments),
    /// Verify the promises made to tenants; list and verify the audit log.
    Audit(audit::Arguments),
    /// Load a running node with simulated customers, and measure the replies.
    Load(load::Arguments),
    /// Run a demo: an engine, a simulated WhatsApp Cloud API and its customers, with checks at the end.
    Demo(demo::Arguments),
}

/// Failure of a command.
#[derive(Debug)]
pub enum Failure {
    /// Wrong usage or configuration: exit code 2.
    Usage(anyhow::Error),
    /// Failed, or a promise is broken: exit code 1.
    Failed(anyhow::Error),
}

impl From<ConfigurationError> for Failure {
    fn from(error: ConfigurationError) -> Self {
        Self::Usage(error.into())
    }
}

impl From<NodeError> for Failure {
    fn from(error: NodeError) -> Self {
        match error {
            NodeError::Configuration(error) => error.into(),
            NodeError::Stores(error) => error.into(),
            NodeError::Region(ref why) if why.is_configured_wrongly() => Self::Usage(error.into()),
            // The configuration names a different master key than the store's.
            NodeError::Keys(KeysError::Master { .. })
            | NodeError::Tenants(TenantsError::Keys(KeysError::Master { .. })) => Self::Usage(error.into()),
            error => Self::Failed(error.into()),
        }
    }
}

impl From<StoresError> for Failure {
    fn from(error: StoresError) -> Self {
        match error {
            // The configuration does not match the existing stores.
            StoresError::Embedded(embedded::OpenError::Partitions { .. })
            | StoresError::Kafka(kafka::OpenError::Topics(_) | kafka::OpenError::Client(_)) => {
                Self::Usage(error.into())
            }
            error => Self::Failed(error.into()),
        }
    }
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Node(error) => error.into(),
            error => Self::Failed(error.into()),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// Runs the command given by the process arguments.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let mut output = Output::new(cli.global.json);
    let (error, exit) = match run(cli, &mut output) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Failed(error)) => (error, 1),
        Err(Failure::Usage(error)) => (error, 2),
    };
    output.fault(&error, exit);
    ExitCode::from(exit)
}

/// Prints help or the usage error: as text, or as JSON with `--json`.
fn refuse(error: &clap::Error) -> ExitCode {
    let wants_json = std::env::args_os().any(|argument| argument == "--json");
    if !error.use_stderr() || !wants_json {
        error.exit();
    }
    let text = error.render().to_string();
    let message = text.trim().trim_start_matches("error: ");
    Output::new(true).error(&Fault { message, code: Some("usage"), exit: 2 });
    ExitCode::from(2)
}

fn run(cli: Cli, output: &mut Output) -> Result<(), Failure> {
    if let Command::CheckConfig(arguments) = &cli.command {
        return check_config::run(&cli.global, arguments, output);
    }
    if let Command::Extract(arguments) = cli.command {
        return extract::run(arguments);
    }
    if let Command::Keys(arguments) = &cli.command
        && let Some(file) = arguments.file()
    {
        return keys::make(file, output);
    }
    let config = configuration::load(cli.global.config.as_deref())?;
    install_telemetry(&cli.command, &config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match cli.command {
            Command::Serve => serve::run(config).await,
            Command::CheckConfig(_) | Command::Extract(_) => Ok(()),
            Command::Topics(arguments) => topics::run(config, arguments, output).await,
            Command::Schema(arguments) => schema::run(config, arguments, output).await,
            Command::Tenant(arguments) => tenant::run(config, arguments, output).await,
            Command::Kb(arguments) => kb::run(config, arguments, output).await,
            Command::Audience(arguments) => audience::run(config, arguments, output).await,
            Command::Contact(arguments) => contact::run(config, arguments, output).await,
            Command::Keys(arguments) => keys::run(config, arguments, output).await,
            Command::Audit(arguments) => audit::run(config, arguments, output).await,
            Command::Dlq(arguments) => dlq::run(config, arguments, output).await,
            Command::Load(arguments) => load::run(config, arguments, output).await,
            Command::Demo(arguments) => demo::run(config, arguments, output).await,
        }
    })
}

/// Installs the log output: a node logs at its configured level, other commands only faults.
fn install_telemetry(command: &Command, config: &Config) -> Result<(), Failure> {
    let mut options = config.telemetry.clone();
    if !matches!(command, Command::Serve) && options == heddle_schemas::config::Telemetry::default() {
        options.level = heddle_schemas::config::LogLevel::Warn;
    }
    telemetry::install(&options).map_err(|error| Failure::Failed(error.into()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn every_command_has_distinct_arguments() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_name_is_corrected_beside_the_callers_own_name() {
        let contact = ["heddle", "contact", "--as", "Operator", "correct", "acme", "+4915112345678"];
        let parsed = |name: &[&str]| Cli::try_parse_from(contact.iter().chain(name));
        for name in [&["--name", "Ann"][..], &["--no-name"]] {
            let Cli { command: Command::Contact(arguments), .. } = parsed(name).unwrap() else {
                panic!("another command")
            };
            let shown = format!("{arguments:?}");
            assert_eq!(shown.contains("name: Some(\"Ann\")"), name.len() == 2, "{shown}");
            assert!(shown.contains("Operator"), "{shown}");
        }
        assert!(parsed(&[]).is_err() && parsed(&["--name", "Ann", "--no-name"]).is_err());
    }
}
