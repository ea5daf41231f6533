//! `heddle topics`: compares Kafka's topics with the configuration, and creates or changes them.

use anyhow::anyhow;
use clap::{Args, Subcommand};
use heddle_connectors::kafka::topics::{self, Difference};
use heddle_schemas::config::{Config, LogKind};
use serde::Serialize;

use super::Failure;
use super::output::Output;
use crate::configuration;
use crate::stores::StoresError;

/// Arguments of `heddle topics`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Create missing topics and change differing settings. Differences that cannot be changed are reported.
    Apply,
    /// List the differences between the topics and the configuration; exits with 1 if there are any.
    Diff,
}

#[derive(Serialize)]
struct Result<'a> {
    applied: &'a [Difference],
    differences: &'a [Difference],
}

/// Runs the command.
///
/// # Errors
/// [`Failure`]; also when topics differ afterwards.
pub async fn run(
    config: Config,
    arguments: Arguments,
    output: &mut Output,
) -> std::result::Result<(), Failure> {
    if config.log.kind != LogKind::Kafka {
        return Err(Failure::Usage(anyhow!("there are topics only with log.kind = \"kafka\"")));
    }
    let options = configuration::kafka(&config);
    let failed = |error| Failure::from(StoresError::Kafka(error));
    let applied = match arguments.action {
        Action::Apply => topics::apply(&options).await.map_err(failed)?,
        Action::Diff => Vec::new(),
    };
    let differences = topics::diff(&options).await.map_err(failed)?;
    output.result(&Result { applied: &applied, differences: &differences }, || {
        let done = applied.iter().map(|one| match one {
            Difference::Missing { topic, partitions } => format!("{topic}: made, {partitions} partitions"),
            Difference::Setting { topic, setting, wanted, found } => {
                format!("{topic}: {setting} set to {wanted} (was {found})")
            }
            other => other.to_string(),
        });
        let left = differences.iter().map(ToString::to_string);
        let mut lines: Vec<_> = done.chain(left).collect();
        if differences.is_empty() {
            lines.push("the topics match the configuration".to_owned());
        }
        lines.join("\n")
    });
    match differences.len() {
        0 => Ok(()),
        _ if differences.iter().any(Difference::is_mendable) => {
            Err(Failure::Failed(anyhow!("the topics differ; run `heddle topics apply`")))
        }
        _ => Err(Failure::Failed(anyhow!("the topics differ in settings that this command cannot change"))),
    }
}
