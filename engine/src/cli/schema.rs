//! `heddle schema`: creates the cluster's tables that this build needs, or lists what is missing.

use clap::{Args, Subcommand};
use heddle_connectors::cql::OpenError;
use heddle_connectors::cql::schema::{Change, Schema};
use heddle_schemas::config::{Config, StateKind};
use serde::Serialize;

use super::Failure;
use super::output::Output;
use crate::configuration;

/// Arguments of `heddle schema`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Action {
    /// Create the missing keyspace, tables and columns. Safe to run on several nodes at once.
    Apply,
    /// List what is missing and change nothing; exits with 1 if anything is.
    Diff,
}

/// Output of a command.
#[derive(Serialize)]
struct Printed {
    keyspace: String,
    /// Changes to make, or made.
    changes: Vec<PrintedChange>,
}

#[derive(Serialize)]
struct PrintedChange {
    what: String,
    /// CQL statement of the change.
    cql: Option<String>,
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        match error {
            error @ OpenError::Datacenter { .. } => Self::Usage(error.into()),
            error => Self::Failed(error.into()),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// [`Failure`]; with `diff` also when anything is missing.
pub async fn run(config: Config, arguments: Arguments, output: &mut Output) -> Result<(), Failure> {
    if config.state.kind != StateKind::Cql {
        return Err(Failure::Usage(anyhow::anyhow!(
            "state.kind is \"embedded\", which has no schema; `heddle schema` works on state.kind = \"cql\""
        )));
    }
    let (options, replication) = configuration::cql(&config.state);
    let schema = Schema::connect(&options, replication).await?;
    match arguments.action {
        Action::Apply => {
            let printed = Printed::new(&options.keyspace, &schema.apply().await?);
            output.result(&printed, || {
                printed.shown("done", "has all that this build works on; nothing was done")
            });
            Ok(())
        }
        Action::Diff => {
            let printed = Printed::new(&options.keyspace, &schema.diff().await?);
            output.result(&printed, || printed.shown("to do", "has all that this build works on"));
            match printed.changes.len() {
                0 => Ok(()),
                _ => Err(Failure::Failed(anyhow::anyhow!("run `heddle schema apply`"))),
            }
        }
    }
}

impl Printed {
    fn new(keyspace: &str, changes: &[Change]) -> Self {
        let printed = changes.iter().map(|change| PrintedChange {
            what: change.to_string(),
            cql: change.cql().map(ToOwned::to_owned),
        });
        Self { keyspace: keyspace.to_owned(), changes: printed.collect() }
    }

    fn shown(&self, each: &str, none: &str) -> String {
        if self.changes.is_empty() {
            return format!("the keyspace {} {none}", self.keyspace);
        }
        let lines = self.changes.iter().map(|change| format!("{each} in {}: {}", self.keyspace, change.what));
        lines.collect::<Vec<_>>().join("\n")
    }
}
