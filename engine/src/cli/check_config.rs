//! `heddle check-config`: says everything that is wrong, and starts nothing.

use std::path::PathBuf;

use clap::Args;
use heddle_connectors::keys::vault;
use prometheus::Registry;
use serde::Serialize;

use super::output::Output;
use super::{Failure, Global};
use crate::configuration::{self, ConfigurationError};
use crate::masters::MasterKeys;

/// What to check.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Tenants' files to check too, their secrets included.
    tenants: Vec<PathBuf>,
}

#[derive(Serialize)]
struct Checked {
    file: String,
    fault: Option<String>,
}

/// Checks.
///
/// # Errors
/// When anything is wrong; every fault has been printed.
pub fn run(global: &Global, arguments: &Arguments, output: &mut Output) -> Result<(), Failure> {
    let main = match &global.config {
        Some(file) => file.display().to_string(),
        None if PathBuf::from(configuration::DEFAULT_FILE).exists() => configuration::DEFAULT_FILE.to_owned(),
        None => "the embedded defaults".to_owned(),
    };
    let mut checked = vec![Checked { file: main, fault: check(global).err().map(|error| error.to_string()) }];
    checked.extend(arguments.tenants.iter().map(|path| Checked {
        file: path.display().to_string(),
        fault: configuration::load_tenant(path).err().map(|error| error.to_string()),
    }));
    output.result(&checked, || {
        let lines = checked.iter().map(|one| match &one.fault {
            None => format!("{}: good", one.file),
            Some(fault) => format!("{}:\n  {}", one.file, fault.replace('\n', "\n  ")),
        });
        lines.collect::<Vec<_>>().join("\n")
    });
    let wrong = checked.iter().filter(|one| one.fault.is_some()).count();
    match wrong {
        0 => Ok(()),
        _ => Err(Failure::Usage(anyhow::anyhow!("{wrong} of {} cannot be used", checked.len()))),
    }
}

/// The configuration, and the master keys it names: those that are there are read, and none is made or asked for.
fn check(global: &Global) -> Result<(), ConfigurationError> {
    let config = configuration::load(global.config.as_deref())?;
    MasterKeys::read(&config, &vault::Calls::register(&Registry::new())).map(drop)
}
