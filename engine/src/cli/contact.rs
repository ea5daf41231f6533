//! `heddle contact`: who answers in a conversation, and what a person may ask for.

use std::time::Duration;

use clap::{Args, Subcommand};
use heddle_schemas::config::Config;
use heddle_schemas::contact::ContactName;
use heddle_schemas::erasure::Erasure;
use heddle_schemas::id::{ConversationId, TenantId};
use heddle_schemas::record::inbound::Handler;
use serde_json::json;

use super::Failure;
use super::admin::{Admin, Where};
use super::output::{Output, table};

/// What to do with a contact.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    place: Where,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Hand a conversation over to a human: the agent says nothing in it until it is given back.
    HandOver {
        /// Which, as events name it: tenant/channel/account/contact.
        conversation: ConversationId,
    },
    /// Give a conversation back to the agent, which answers what comes from then on.
    GiveBack {
        /// Which, as events name it: tenant/channel/account/contact.
        conversation: ConversationId,
    },
    /// Print all that is kept of a person, as JSON.
    Export(Person),
    /// Have a person forgotten: the key of all that is kept is destroyed, then every row is removed.
    Forget {
        #[command(flatten)]
        person: Person,
        /// How long to wait until it is complete, such as `30s`; it goes on without anybody waiting.
        #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
        wait: Duration,
    },
    /// Show the erasures of a tenant's contacts, how far they have come, and until when they have to be complete.
    Erasures {
        /// The tenant.
        tenant: TenantId,
    },
}

/// Who it is about.
#[derive(Debug, Args)]
struct Person {
    /// The tenant.
    tenant: TenantId,
    /// A phone number as +4915112345678, a channel's id as whatsapp:ID, or the contact's own id.
    contact: ContactName,
}

/// How often it is looked whether an erasure is complete.
const LOOK: Duration = Duration::from_millis(200);

/// Does it.
///
/// # Errors
/// [`Failure`].
pub async fn run(config: Config, arguments: Arguments, output: &mut Output) -> Result<(), Failure> {
    let admin = Admin::find(config, &arguments.place).await?;
    let done = act(&admin, arguments.action, output).await;
    admin.close().await;
    done
}

async fn act(admin: &Admin, action: Action, output: &mut Output) -> Result<(), Failure> {
    match action {
        Action::HandOver { conversation } => {
            handle(admin, conversation, Handler::Human, "is a human's", output).await
        }
        Action::GiveBack { conversation } => {
            handle(admin, conversation, Handler::Agent, "is the agent's again", output).await
        }
        Action::Export(Person { tenant, contact }) => {
            let export = admin.export(&tenant, &contact).await?;
            let text = serde_json::to_string_pretty(&export).expect("an export is always JSON");
            output.result(&export, || text);
            Ok(())
        }
        Action::Forget { person: Person { tenant, contact }, wait } => {
            forget(admin, &tenant, &contact, wait, output).await
        }
        Action::Erasures { tenant } => {
            let erasures = admin.erasures(&tenant).await?;
            let rows: Vec<_> = erasures.iter().map(row).collect();
            output.result(&json!({ "items": erasures }), || match rows.as_slice() {
                [] => "nobody of this tenant has been forgotten".to_owned(),
                rows => table(["erasure", "contact", "asked for", "to be done by", "done", "rows"], rows),
            });
            Ok(())
        }
    }
}

async fn handle(
    admin: &Admin,
    conversation: ConversationId,
    by: Handler,
    done: &str,
    output: &mut Output,
) -> Result<(), Failure> {
    admin.handle(conversation.clone(), by).await?;
    output.result(&json!({ "conversation": conversation, "by": by }), || {
        format!("{conversation} {done} once what it received before is worked off")
    });
    Ok(())
}

async fn forget(
    admin: &Admin,
    tenant: &TenantId,
    contact: &ContactName,
    wait: Duration,
    output: &mut Output,
) -> Result<(), Failure> {
    let mut erasure = admin.forget(tenant, contact).await?;
    // On a folder that no node has open nobody works it off.
    let somebody_does = matches!(admin, Admin::Remote(_));
    let waiting = async {
        while somebody_does && !erasure.is_complete() {
            tokio::time::sleep(LOOK).await;
            erasure = admin.erasure(tenant, erasure.id).await?;
        }
        Ok::<(), Failure>(())
    };
    if let Ok(failed) = tokio::time::timeout(wait, waiting).await {
        failed?;
    }
    output.result(&erasure, || match erasure.is_complete() {
        true => format!(
            "contact {} is forgotten: its key is destroyed, {} rows are removed; the receipt is erasure {}",
            erasure.contact,
            erasure.rows(),
            erasure.id
        ),
        false => format!(
            "contact {} is being forgotten, {} of {} conversations are done; `heddle contact erasures {tenant}` \
             shows how far erasure {} has come",
            erasure.contact,
            erasure.parts.iter().filter(|part| part.done.is_some()).count(),
            erasure.parts.len(),
            erasure.id
        ),
    });
    Ok(())
}

fn row(erasure: &Erasure) -> [String; 6] {
    let done = match erasure.completed_at {
        Some(at) => at.to_string(),
        None => {
            let done = erasure.parts.iter().filter(|part| part.done.is_some()).count();
            format!("{done} of {}", erasure.parts.len())
        }
    };
    [
        erasure.id.to_string(),
        erasure.contact.to_string(),
        erasure.requested_at.to_string(),
        erasure.deadline.to_string(),
        done,
        erasure.rows().to_string(),
    ]
}
