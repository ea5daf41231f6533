//! `heddle tenant`: applies a tenant's file, lists tenants, shows one.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use heddle_schemas::config::Config;
use heddle_schemas::id::TenantId;
use heddle_schemas::tenant::Tenant;

use super::Failure;
use super::admin::{Admin, Where};
use super::output::{Output, table};
use crate::configuration;

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

/// As its file would be written, secrets left out.
fn shown(tenant: &Tenant) -> String {
    toml::to_string(tenant).unwrap_or_else(|error| format!("it cannot be written as TOML: {error}"))
}
