//! The command line.
//!
//! Exit codes: 0 done; 1 failed, or a promise is broken; 2 wrong usage or configuration. What a command
//! prints goes to standard output, as text or with `--json` as JSON; faults and log lines go to standard
//! error.
//!
//! # Layout
//! - [`output`]: the one place that prints.
//! - [`admin`]: where commands find a node: its admin API, or the folder when no process has it open.
//! - One file a command: [`serve`], [`check_config`], [`topics`], [`schema`], [`tenant`], [`kb`], [`contact`], [`keys`], [`audit`], [`dlq`], [`extract`],
//!   [`demo`], [`load`]; `operator` lends the last two the admin API.

pub mod admin;
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

/// What every command takes.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// The configuration; without it heddle.toml where there is one, else the embedded defaults.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print data as JSON.
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node: take webhooks in and answer them, until SIGTERM or SIGINT.
    Serve,
    /// Check the configuration, and tenants' files beside it, without starting anything.
    CheckConfig(check_config::Arguments),
    /// Kafka's topics: compare them with the configuration, make them so.
    Topics(topics::Arguments),
    /// The tables of a CQL state store: apply what is missing, or list it.
    Schema(schema::Arguments),
    /// Tenants: apply a file, list, show, what they have used, export, delete.
    Tenant(tenant::Arguments),
    /// A tenant's documents: add, list, remove, search.
    Kb(kb::Arguments),
    /// Who answers a contact: hand a conversation over to a human, give it back to the agent.
    Contact(contact::Arguments),
    /// Master keys: make one, tell which wraps what, rotate to the present one.
    Keys(keys::Arguments),
    /// Read one file in a process that is there for nothing else; nodes start it.
    #[command(hide = true)]
    Extract(extract::Arguments),
    /// Dead letters, what could not be processed: list, show, replay.
    Dlq(dlq::Arguments),
    /// The audit log: who did what, when and why; whether it is as it was written.
    Audit(audit::Arguments),
    /// Load a running node with simulated customers; count and measure what comes back.
    Load(load::Arguments),
    /// The main job, shown: an engine, a simulated WhatsApp Cloud API and its customers, counted at the end.
    Demo(demo::Arguments),
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub enum Failure {
    /// The usage or the configuration is wrong: exit code 2.
    Usage(anyhow::Error),
    /// It failed, or a promise is broken: exit code 1.
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
            // The configuration names another master key than the store's.
            NodeError::Keys(KeysError::Master { .. })
            | NodeError::Tenants(TenantsError::Keys(KeysError::Master { .. })) => Self::Usage(error.into()),
            error => Self::Failed(error.into()),
        }
    }
}

impl From<StoresError> for Failure {
    fn from(error: StoresError) -> Self {
        match error {
            // The configuration does not go with what is there.
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

/// Runs the command that the process was started with.
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

/// Prints help, or what is wrong with the usage: as text, or as JSON where that was asked for.
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
            Command::Contact(arguments) => contact::run(config, arguments, output).await,
            Command::Keys(arguments) => keys::run(config, arguments, output).await,
            Command::Audit(arguments) => audit::run(config, arguments, output).await,
            Command::Dlq(arguments) => dlq::run(config, arguments, output).await,
            Command::Load(arguments) => load::run(config, arguments, output).await,
            Command::Demo(arguments) => demo::run(config, arguments, output).await,
        }
    })
}

/// A node tells everything it is configured to; other commands only what is wrong.
fn install_telemetry(command: &Command, config: &Config) -> Result<(), Failure> {
    let mut options = config.telemetry.clone();
    if !matches!(command, Command::Serve) && options == heddle_schemas::config::Telemetry::default() {
        options.level = heddle_schemas::config::LogLevel::Warn;
    }
    telemetry::install(&options).map_err(|error| Failure::Failed(error.into()))
}
