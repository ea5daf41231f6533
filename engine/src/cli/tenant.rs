//! `heddle tenant`: applies a tenant's file, disconnects its channels, lists tenants, shows one and its usage, exports
//! one, deletes one.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use heddle_api::operation::NoParameters;
use heddle_api::tenants::{
    DeleteTenant, DisconnectChannel, ExportTenant, ListDeletions, ListTenants, OfMonth, OfTenant, ShowTenant,
    ShowUsage,
};
use heddle_api::usage::{Day, Resources, Usage};
use heddle_api::{List, Nothing};
use heddle_connectors::clock::SystemClock;
use heddle_schemas::config::Config;
use heddle_schemas::id::{AccountId, AccountKey, ChannelKind, TenantId};
use heddle_schemas::ports::clock::Clock as _;
use heddle_schemas::retention::OfDisconnected;
use heddle_schemas::tenant::Tenant;
use heddle_schemas::tenant::changes::{ChangeKind, TenantChanges};
use heddle_schemas::tenant_deletion::DeletionRecord;
use heddle_schemas::time::Timestamp;
use heddle_schemas::zone::Month;
use serde::Serialize;
use serde_json::json;

use super::Failure;
use super::admin::{Admin, Where};
use super::export::Into;
use super::output::{Output, table};
use crate::configuration;

/// Arguments of `heddle tenant`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    place: Where,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Apply a tenant's file, which becomes the tenant's whole configuration, and show the differences. Secrets in it
    /// are literals, env:NAME or file:PATH. Removing something, such as a channel, needs a confirmation.
    Apply {
        /// The tenant's file.
        file: PathBuf,
        /// Do not ask for confirmation.
        #[arg(long)]
        yes: bool,
    },
    /// List the tenants.
    List,
    /// Show a tenant's configuration, without its secrets.
    Show {
        /// The tenant's id.
        tenant: TenantId,
    },
    /// Disconnect a channel account: erase its credentials at once, refuse its webhooks and withhold its pending
    /// sends. Applying a file with the account connects it again.
    Disconnect {
        /// The tenant's id.
        tenant: TenantId,
        /// The kind of channel, such as whatsapp.
        channel: ChannelKind,
        /// The provider's id of the account; WhatsApp: the phone_number_id.
        account: AccountId,
    },
    /// Show a tenant's usage of a month and its quota.
    Usage {
        /// The tenant's id.
        tenant: TenantId,
        /// Month such as 2026-11; the current month in the tenant's time zone by default.
        #[arg(long)]
        month: Option<Month>,
    },
    /// Export all data stored for a tenant, without its secrets: a line of JSON for each item, with its `kind`.
    Export {
        /// The tenant's id.
        tenant: TenantId,
        #[command(flatten)]
        into: Into,
    },
    /// Delete a tenant and all its data. The tenant stops and its key is destroyed at once, which makes all its data
    /// unreadable; its rows are removed afterwards. Its id cannot be used again.
    Delete {
        /// The tenant's id.
        tenant: TenantId,
        /// Do not ask for confirmation.
        #[arg(long)]
        yes: bool,
    },
    /// Show the deleted tenants, with the progress and the remaining data of each deletion.
    Deletions,
}

/// Runs the command.
///
/// # Errors
/// [`Failure`].
pub async fn run(config: Config, arguments: Arguments, output: &mut Output) -> Result<(), Failure> {
    // Faults of the file are reported before a node is contacted.
    let tenant = match &arguments.action {
        Action::Apply { file, yes } => Some((configuration::load_tenant(file)?, *yes)),
        _ => None,
    };
    if let Action::Delete { tenant, yes } = &arguments.action {
        confirm(tenant, *yes, output)?;
    }
    let listen = config.http.listen;
    let admin = match tenant {
        Some(_) => Admin::find_or_create(config, &arguments.place).await?,
        None => Admin::find(config, &arguments.place).await?,
    };
    let done = match tenant {
        Some((tenant, yes)) => apply(&admin, tenant, yes, listen, output).await,
        None => act(&admin, arguments.action, output).await,
    };
    admin.close().await;
    done
}

/// Applied tenant, with the changes.
#[derive(Serialize)]
struct Applied {
    #[serde(flatten)]
    tenant: Tenant,
    #[serde(flatten)]
    changes: TenantChanges,
}

/// Shows the differences, asks where something is removed, and applies the file.
async fn apply(
    admin: &Admin,
    tenant: Tenant,
    yes: bool,
    listen: SocketAddr,
    output: &mut Output,
) -> Result<(), Failure> {
    let changes = admin.compare(tenant.clone()).await?;
    for change in &changes.changes {
        output.say(&change.to_string());
    }
    consent(&tenant.id, &changes, yes, output)?;
    let applied = Applied { tenant: admin.apply(tenant).await?, changes };
    output.result(&applied, || {
        let Applied { tenant, changes } = &applied;
        let hooks = tenant.channels.iter().map(|channel| {
            format!(
                "\n  webhook of {}: http://{listen}/webhooks/{}/{}",
                channel.account, channel.kind, channel.account
            )
        });
        let unchanged = if changes.is_new || !changes.changes.is_empty() { "" } else { ", without a change" };
        format!("tenant {} is applied{unchanged}{}", tenant.id, hooks.collect::<String>())
    });
    Ok(())
}

/// Asks on a terminal before something of a tenant is changed or removed. Without a terminal a removal needs `--yes`.
fn consent(tenant: &TenantId, changes: &TenantChanges, yes: bool, output: &Output) -> Result<(), Failure> {
    let removed: Vec<_> = changes.removals().map(|change| change.place.as_str()).collect();
    if yes || changes.changes.iter().all(|change| change.kind == ChangeKind::Added) {
        return Ok(());
    }
    // With JSON the changes have not been printed.
    let shown = if output.is_json() { listed(changes) } else { String::new() };
    let loss = if removed.is_empty() { "" } else { " What is removed cannot be restored." };
    match output.ask(&format!("{shown}Tenant {tenant} will be changed.{loss} Go on? [y/N] ")) {
        Some(answer) if matches!(answer.to_lowercase().as_str(), "y" | "yes") => Ok(()),
        None if removed.is_empty() => Ok(()),
        _ => Err(Failure::Usage(anyhow::anyhow!(
            "nothing was done: applying the file changes tenant {tenant}{}; say --yes, or y when asked",
            match removed.as_slice() {
                [] => String::new(),
                removed => format!(" and removes {}", removed.join(", ")),
            }
        ))),
    }
}

fn listed(changes: &TenantChanges) -> String {
    changes.changes.iter().map(|change| format!("{change}\n")).collect()
}

async fn act(admin: &Admin, action: Action, output: &mut Output) -> Result<(), Failure> {
    let none = NoParameters {};
    match action {
        // `run` has applied it.
        Action::Apply { .. } => {}
        Action::List => {
            let List { items: tenants } = admin.call(ListTenants, none.clone(), none, Nothing).await?;
            output.result(&tenants, || {
                let rows: Vec<_> = tenants.iter().map(row).collect();
                table(["TENANT", "NAME", "REGION", "ACCOUNTS", "PROVIDER"], &rows)
            });
        }
        Action::Show { tenant } => {
            let tenant = admin.call(ShowTenant, OfTenant { tenant }, none, Nothing).await?;
            output.result(&tenant, || shown(&tenant));
        }
        Action::Disconnect { tenant, channel, account } => {
            let account = AccountKey { tenant, channel, account };
            let tenant = admin.call(DisconnectChannel, account.clone().into(), none, Nothing).await?;
            output.result(&tenant, || {
                let messages = match tenant.retention.disconnected {
                    OfDisconnected::Deleted => "its conversations are being deleted",
                    OfDisconnected::Kept => "its conversations are kept, as retention.disconnected says",
                };
                format!("{account} is disconnected; its credentials are erased, {messages}")
            });
        }
        Action::Usage { tenant, month } => {
            let usage = admin.call(ShowUsage, OfTenant { tenant }, OfMonth { month }, Nothing).await?;
            output.result(&usage, || used(&usage));
        }
        Action::Export { tenant, into } => {
            let export = admin.call(ExportTenant, OfTenant { tenant }, none, Nothing).await?;
            into.write(export.0, output).await?;
        }
        Action::Delete { tenant, .. } => {
            let deletion = admin.call(DeleteTenant, OfTenant { tenant }, none, Nothing).await?;
            output.result(&deletion, || deleted(&deletion));
        }
        Action::Deletions => {
            let List { items: deletions } = admin.call(ListDeletions, none.clone(), none, Nothing).await?;
            let now = SystemClock.now();
            let rows: Vec<_> = deletions.iter().map(|deletion| departed(deletion, now)).collect();
            output.result(&json!({ "items": deletions }), || match rows.as_slice() {
                [] => "no tenant has been deleted".to_owned(),
                rows => {
                    table(["TENANT", "ASKED FOR", "TO BE DONE BY", "KEY DESTROYED", "DONE", "ROWS"], rows)
                }
            });
        }
    }
    Ok(())
}

/// Asks the user to type the tenant's id, since a deletion cannot be undone.
fn confirm(tenant: &TenantId, yes: bool, output: &Output) -> Result<(), Failure> {
    let question = format!(
        "All data of tenant {tenant} will be destroyed, and cannot be restored. Type its id to go on: "
    );
    let meant = yes || output.ask(&question).is_some_and(|answer| answer == tenant.as_str());
    let why = "nothing was done: deleting a tenant cannot be undone; say --yes, or type its id when asked";
    if meant { Ok(()) } else { Err(Failure::Usage(anyhow::anyhow!(why))) }
}

fn deleted(deletion: &DeletionRecord) -> String {
    let DeletionRecord { tenant, .. } = deletion;
    match (deletion.completed_at, deletion.counted()) {
        (Some(at), rows) => {
            format!("tenant {tenant} is deleted since {at}: {} rows were removed", rows.unwrap_or_default())
        }
        (None, _) if deletion.key_destroyed_at.is_some() => format!(
            "tenant {tenant} has stopped and its key is destroyed: its encrypted data cannot be read any more. \
             Running nodes remove its rows; `heddle tenant deletions` shows the progress"
        ),
        (None, _) => {
            format!("tenant {tenant} is being deleted; `heddle tenant deletions` shows the progress")
        }
    }
}

fn departed(deletion: &DeletionRecord, now: Timestamp) -> [String; 6] {
    let done = match deletion.completed_at {
        Some(at) => at.to_string(),
        None if deletion.is_overdue(now) => "no, OVERDUE".to_owned(),
        None => "no".to_owned(),
    };
    [
        deletion.tenant.to_string(),
        deletion.requested_at.to_string(),
        deletion.deadline.to_string(),
        deletion.key_destroyed_at.map_or_else(|| "no".to_owned(), |at| at.to_string()),
        done,
        deletion.counted().map_or_else(String::new, |rows| rows.to_string()),
    ]
}

fn row(tenant: &Tenant) -> [String; 5] {
    let accounts: Vec<_> =
        tenant.channels.iter().map(|one| format!("{}/{}", one.kind, one.account)).collect();
    [
        tenant.id.to_string(),
        tenant.name.clone(),
        tenant.region.clone(),
        accounts.join(", "),
        tenant.llm.provider.as_str().to_owned(),
    ]
}

/// Formats the usage: a line per date, and the quota of the month.
fn used(usage: &Usage) -> String {
    let line = |name: String, day: &Day| {
        [
            name,
            day.turns.to_string(),
            day.messages.to_string(),
            (day.input_tokens + day.output_tokens).to_string(),
            day.money.to_string(),
            day.interrupted.to_string(),
        ]
    };
    let mut rows: Vec<_> = usage.days.iter().map(|(date, day)| line(date.to_string(), day)).collect();
    rows.push(line(usage.month.to_string(), &usage.total));
    let days = table(["DATE", "TURNS", "MESSAGES", "TOKENS", "MONEY", "INTERRUPTED"], &rows);
    let of = |name: &str, of: &Resources| {
        let money = of.money.map_or_else(|| "no limit".to_owned(), |money| money.to_string());
        [name.to_owned(), of.messages.to_string(), of.tokens.to_string(), money]
    };
    let rows = [
        of("quota", &usage.quota),
        of("spent", &usage.spent),
        of("reserved for upcoming turns", &usage.set_aside),
    ];
    let quota = table(["", "MESSAGES", "TOKENS", "MONEY"], &rows);
    let mut text = format!("{days}\n\n{quota}");
    if usage.lost_messages > 0 {
        text += &format!(
            "\n\nOf the messages spent, {} are of nodes that died; it is unknown whether they were sent.",
            usage.lost_messages
        );
    }
    text
}

/// Formats a tenant as its file, without secrets.
fn shown(tenant: &Tenant) -> String {
    toml::to_string(tenant).unwrap_or_else(|error| format!("the tenant cannot be written as TOML: {error}"))
}
