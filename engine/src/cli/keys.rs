//! `heddle keys`: creates a master key, shows the status of all, and rotates to the current one.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use heddle_api::Nothing;
use heddle_api::keys::{KeysStatus, MasterStatus, Role, Rotate, RotateKeys, Rotated, ShowKeys};
use heddle_api::operation::NoParameters;
use heddle_connectors::keys::MasterKey;
use heddle_schemas::config::Config;
use serde_json::json;

use super::Failure;
use super::admin::{Admin, Where};
use super::output::{Output, table};

/// Arguments of `heddle keys`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    place: Where,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Create a file with a new master key, mode 0600. Never overwrites a file.
    New {
        /// The file.
        file: PathBuf,
    },
    /// Show the number of tenants whose keys each master key wraps, and the master keys not needed any more.
    Status,
    /// Wrap every tenant's key with the current master key (keys.master). Safe to interrupt and repeat.
    Rotate {
        /// Create a new version of the master key first; Vault only.
        #[arg(long)]
        new_version: bool,
    },
}

impl Arguments {
    /// Returns the file to create, which needs no node and no configuration.
    #[must_use]
    pub fn file(&self) -> Option<&PathBuf> {
        match &self.action {
            Action::New { file } => Some(file),
            _ => None,
        }
    }
}

/// Creates a file with a new key.
///
/// # Errors
/// [`Failure`]; also when the file exists.
pub fn make(file: &PathBuf, output: &mut Output) -> Result<(), Failure> {
    let key = MasterKey::create_new(file).map_err(|error| Failure::Failed(error.into()))?;
    let id = format!("{:08x}", key.number());
    output.result(&json!({ "file": file, "id": id }), || {
        format!(
            "{file} holds master key {id}. Keep a copy elsewhere: without it, no data that it wraps can be read.\nTo rotate \
             to it: add the current value of keys.master to keys.former, set keys.master = \"file:{file}\", start the node \
             again, and run `heddle keys rotate`",
            file = file.display()
        )
    });
    Ok(())
}

/// Runs the command.
///
/// # Errors
/// [`Failure`]; also when a key is not wrapped with the current master key afterwards.
pub async fn run(config: Config, arguments: Arguments, output: &mut Output) -> Result<(), Failure> {
    let admin = Admin::find(config, &arguments.place).await?;
    let done = match arguments.action {
        Action::New { file } => make(&file, output),
        Action::Status => {
            let status = admin.call(ShowKeys, NoParameters {}, NoParameters {}, Nothing).await;
            status.map(|status| output.result(&status, || shown(&status)))
        }
        Action::Rotate { new_version } => rotate(&admin, new_version, output).await,
    };
    admin.close().await;
    done
}

/// Rotates the keys of all tenants, in as many requests as needed.
async fn rotate(admin: &Admin, new_version: bool, output: &mut Output) -> Result<(), Failure> {
    let mut rotated = Rotated::default();
    let mut asked = Rotate { new_version, ..Rotate::default() };
    let asking = loop {
        match admin.call(RotateKeys, NoParameters {}, NoParameters {}, asked).await {
            Ok(page) => {
                rotated.rewrapped += page.rewrapped;
                rotated.already += page.already;
                rotated.erased += page.erased;
                rotated.missing += page.missing;
                rotated.failed.extend(page.failed);
                rotated.next.clone_from(&page.next);
                rotated.complete = page.complete && rotated.failed.is_empty();
                let Some(next) = page.next else { break Ok(()) };
                asked = Rotate { after: Some(next), ..Rotate::default() };
            }
            Err(error) => break Err(error),
        }
    };
    // The result so far is reported even after a fault.
    output.result(&rotated, || summary(&rotated));
    asking?;
    match (rotated.failed.len(), rotated.complete) {
        (0, true) => Ok(()),
        (0, false) => Err(Failure::Failed(anyhow!(
            "some keys were wrapped with another master key meanwhile; check that every node has the same keys.master, \
             and run `heddle keys rotate` again"
        ))),
        (failed, _) => Err(Failure::Failed(anyhow!(
            "the keys of {failed} tenants could not be rewrapped; run `heddle keys rotate` again"
        ))),
    }
}

fn summary(rotated: &Rotated) -> String {
    let Rotated { rewrapped, already, erased, missing, failed, complete, .. } = rotated;
    let mut text = format!(
        "rewrapped {rewrapped}, already {already}, erased {erased}, without a key {missing}, failed {}",
        failed.len()
    );
    for one in failed {
        text += &format!("\n{}: {}", one.tenant, one.why);
    }
    if *complete {
        text += "\nthe current master key wraps everything; previous ones can leave keys.former";
    }
    text
}

fn shown(status: &KeysStatus) -> String {
    let row = |master: &MasterStatus| {
        let what = match (master.role, master.can_go()) {
            (_, true) => "not needed: can leave keys.former",
            (Role::Unknown, _) => "add it to keys.former: nothing that it wraps can be read",
            (Role::Former, _) => "needed until `heddle keys rotate` is complete",
            (Role::Present, _) => "",
        };
        [
            master.id.clone(),
            master.role.as_str().to_owned(),
            master.tenants.to_string(),
            if master.store { "yes" } else { "" }.to_owned(),
            master.version.map_or_else(String::new, |version| format!("v{version}")),
            master.kept.clone().unwrap_or_default(),
            what.to_owned(),
        ]
    };
    let rows: Vec<_> = status.masters.iter().map(row).collect();
    let mut text = table(["MASTER", "ROLE", "TENANTS", "STORE", "VERSION", "KEPT", ""], &rows);
    if status.erased + status.missing > 0 {
        text += &format!("\n\ntenants erased {}, without a key {}", status.erased, status.missing);
    }
    for one in &status.failed {
        text += &format!("\n{}: {}", one.tenant, one.why);
    }
    text
}
