//! `heddle check-config`: reports every fault of the configuration, and starts nothing.

use std::path::PathBuf;

use clap::Args;
use heddle_connectors::keys::vault;
use heddle_schemas::tenant::Faults;
use prometheus::Registry;
use serde::Serialize;

use super::output::Output;
use super::{Failure, Global};
use crate::configuration::{self, ConfigurationError};
use crate::masters::MasterKeys;

/// Arguments of `heddle check-config`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Tenants' files to check as well, including their secrets.
    tenants: Vec<PathBuf>,
}

#[derive(Serialize)]
struct Checked {
    file: String,
    /// Region of the node's stores, or of the tenant's data; none where the file is not usable.
    region: Option<String>,
    /// Every fault in one text.
    fault: Option<String>,
    faults: Vec<String>,
}

impl Checked {
    fn of(file: String, region: Result<String, ConfigurationError>) -> Self {
        match region {
            Ok(region) => Self { file, region: Some(region), fault: None, faults: Vec::new() },
            Err(error) => {
                let fault = Some(error.to_string());
                let faults = match error {
                    ConfigurationError::Faults(Faults(faults)) => faults,
                    error => vec![error.to_string()],
                };
                Self { file, region: None, fault, faults }
            }
        }
    }
}

/// Runs the command.
///
/// # Errors
/// When there is a fault; all of them have been printed.
pub fn run(global: &Global, arguments: &Arguments, output: &mut Output) -> Result<(), Failure> {
    let main = match &global.config {
        Some(file) => file.display().to_string(),
        None if PathBuf::from(configuration::DEFAULT_FILE).exists() => configuration::DEFAULT_FILE.to_owned(),
        None => "the embedded defaults".to_owned(),
    };
    let mut checked = vec![Checked::of(main, check(global))];
    checked.extend(arguments.tenants.iter().map(|path| {
        let region = configuration::load_tenant(path).map(|tenant| tenant.region);
        Checked::of(path.display().to_string(), region)
    }));
    if let Some(here) = checked[0].region.clone() {
        for tenant in &mut checked[1..] {
            if let Some(theirs) = tenant.region.as_ref().filter(|theirs| **theirs != here) {
                let fault = format!(
                    "region: is {theirs:?}, and node.region is {here:?}: apply it on a node of its region"
                );
                tenant.faults.push(fault.clone());
                tenant.fault = Some(fault);
            }
        }
    }
    output.result(&checked, || {
        let lines = checked.iter().map(|one| match &one.fault {
            None => format!("{}: good, region {}", one.file, one.region.as_deref().unwrap_or_default()),
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

/// Checks the configuration and the master keys that it names: existing key files are read, none is created, and Vault
/// is not called. Returns the region.
fn check(global: &Global) -> Result<String, ConfigurationError> {
    let config = configuration::load(global.config.as_deref())?;
    MasterKeys::read(&config, &vault::Calls::register(&Registry::new()))?;
    Ok(config.node.region)
}
