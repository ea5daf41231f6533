//! `heddle tenant`: applies a tenant's file, disconnects its channels, lists tenants, shows one and what it has used.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use heddle_schemas::config::Config;
use heddle_schemas::id::{AccountId, AccountKey, ChannelKind, TenantId};
use heddle_schemas::tenant::Tenant;
use heddle_schemas::zone::Month;

use super::Failure;
use super::admin::{Admin, Where};
use super::output::{Output, table};
use crate::configuration;
use crate::usage::{Day, Resources, Usage};

/// What to do with tenants.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    place: Where,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a file the tenant's configuration. Secrets in it are literals, env:NAME or file:PATH.
    Apply {
        /// The tenant's file.
        file: PathBuf,
    },
    /// List the tenants.
    List,
    /// Show a tenant's configuration, without its secrets.
    Show {
        /// The tenant's id.
        tenant: TenantId,
    },
    /// Disconnect a channel account: its credentials are erased at once, its webhooks refused, and what waits to be
    /// sent by it is withheld. Applying a file that has the account connects it again.
    Disconnect {
        /// The tenant's id.
        tenant: TenantId,
        /// The kind of channel, such as whatsapp.
        channel: ChannelKind,
        /// The provider's id of the account; WhatsApp: the phone_number_id.
        account: AccountId,
    },
    /// Show what a tenant has used in a month, and what is left of its quota.
    Usage {
        /// The tenant's id.
        tenant: TenantId,
        /// Such as 2026-11; the one that it is in the tenant's time zone where none is said.
        #[arg(long)]
        month: Option<Month>,
    },
}

/// Does it.
///
/// # Errors
/// [`Failure`].
pub async fn run(config: Config, arguments: Arguments, output: &mut Output) -> Result<(), Failure> {
    // A wrong file is told before a node is looked for.
    let tenant = match &arguments.action {
        Action::Apply { file } => Some(configuration::load_tenant(file)?),
        _ => None,
    };
    let listen = config.http.listen;
    let admin = Admin::find(config, &arguments.place).await?;
    let done = match (arguments.action, tenant) {
        (Action::Show { tenant }, _) => admin.tenant(&tenant).await.map(|tenant| {
            output.result(&tenant, || shown(&tenant));
        }),
        (Action::Disconnect { tenant, channel, account }, _) => {
            let account = AccountKey { tenant, channel, account };
            admin.disconnect(&account).await.map(|tenant| {
                output.result(&tenant, || format!("{account} is disconnected; its credentials are erased"));
            })
        }
        (Action::Usage { tenant, month }, _) => admin.usage(&tenant, month).await.map(|usage| {
            output.result(&usage, || used(&usage));
        }),
        (_, Some(tenant)) => admin.apply(tenant).await.map(|tenant| {
            output.result(&tenant, || {
                let hooks = tenant.channels.iter().map(|channel| {
                    format!(
                        "\n  webhook of {}: http://{listen}/webhooks/{}/{}",
                        channel.account, channel.kind, channel.account
                    )
                });
                format!("tenant {} is applied{}", tenant.id, hooks.collect::<String>())
            });
        }),
        (_, None) => admin.tenants().await.map(|tenants| {
            output.result(&tenants, || {
                let rows: Vec<_> = tenants.iter().map(row).collect();
                table(["TENANT", "NAME", "REGION", "ACCOUNTS", "PROVIDER"], &rows)
            });
        }),
    };
    admin.close().await;
    done
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

/// A line a date, and what the month has of its quota.
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
        of("set aside for turns to come", &usage.set_aside),
    ];
    let quota = table(["", "MESSAGES", "TOKENS", "MONEY"], &rows);
    let mut text = format!("{days}\n\n{quota}");
    if usage.lost_messages > 0 {
        text += &format!(
            "\n\nOf the messages spent, {} are of nodes that died; nobody knows whether they were sent.",
            usage.lost_messages
        );
    }
    text
}

/// As its file would be written, secrets left out.
fn shown(tenant: &Tenant) -> String {
    toml::to_string(tenant).unwrap_or_else(|error| format!("it cannot be written as TOML: {error}"))
}
