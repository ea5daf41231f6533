//! `heddle contact`: who answers in a conversation, and what may be sent to a contact.

use clap::{Args, Subcommand, ValueEnum};
use heddle_schemas::config::Config;
use heddle_schemas::consent::{Category, Says, Standing};
use heddle_schemas::contact::ContactName;
use heddle_schemas::id::{ConversationId, TenantId};
use heddle_schemas::record::inbound::Handler;
use heddle_schemas::time::Timestamp;
use serde_json::json;

use super::Failure;
use super::admin::{Admin, Where};
use super::output::Output;
use crate::consents::{Consents, Entered, Entry, Held, Shown, Time};

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
    /// Show what a contact has consented to and opted out of; with --stop or --give, enter it.
    Consent(Consent),
}

#[derive(Debug, Args)]
struct Consent {
    /// The tenant.
    tenant: TenantId,
    /// The contact: a phone number as +4915112345678, a channel's id as whatsapp:ID, or its own id.
    contact: ContactName,
    /// What it is about; without it --stop is about everything.
    #[arg(long, value_enum)]
    purpose: Option<Purpose>,
    /// The contact wants no more of it.
    #[arg(long, conflicts_with = "give")]
    stop: bool,
    /// The contact consents to it.
    #[arg(long, requires = "purpose")]
    give: bool,
    /// Where that is from.
    #[arg(long, value_enum, default_value_t = Entered::Operator)]
    how: Entered,
    /// When it was said, as 2026-01-01T12:00:00Z; now if it is not given. What was said last holds.
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<Timestamp>,
    /// In which words. They outlive an erasure of the contact, so they should name nobody.
    #[arg(long)]
    text: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Purpose {
    Marketing,
    Utility,
}

impl From<Purpose> for Category {
    fn from(purpose: Purpose) -> Self {
        match purpose {
            Purpose::Marketing => Self::Marketing,
            Purpose::Utility => Self::Utility,
        }
    }
}

fn time(text: &str) -> Result<Timestamp, String> {
    let quoted = serde_json::Value::String(text.to_owned());
    let read: Result<Time, _> = serde_json::from_value(quoted);
    read.map(|Time(at)| at).map_err(|error| error.to_string())
}

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
        Action::Consent(asked) => consent(admin, asked, output).await,
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

async fn consent(admin: &Admin, asked: Consent, output: &mut Output) -> Result<(), Failure> {
    let Consent { tenant, contact, purpose, stop, give, how, at, text } = asked;
    let purpose = purpose.map(Category::from);
    let says = match (stop, give) {
        (true, _) => Some(Says::Stop),
        (_, true) => Some(Says::Give),
        _ => None,
    };
    if says.is_none() && (at.is_some() || text.is_some()) {
        let why = "--at and --text belong to what is entered: say --stop or --give";
        return Err(Failure::Usage(anyhow::anyhow!(why)));
    }
    let entry = says.map(|says| Entry {
        says,
        purposes: purpose.map_or_else(|| Category::ALL.to_vec(), |purpose| vec![purpose]),
        how,
        at: at.map(Time),
        text,
    });
    let mut consents = admin.consents(&tenant, &contact, entry).await?;
    consents.purposes.retain(|category, _| purpose.is_none_or(|purpose| purpose == *category));
    output.result(&consents, || shown(&consents));
    Ok(())
}

fn shown(consents: &Consents) -> String {
    let mut lines = vec![format!("contact {}", consents.contact)];
    for (category, Held { standing, given, stopped }) in &consents.purposes {
        let standing = match standing {
            Standing::Unknown => "nothing was said",
            Standing::Given => "consent was given",
            Standing::Stopped => "opted out",
        };
        lines.push(format!("{category}: {standing}"));
        lines.extend(given.as_ref().map(|given| evidence("given", given)));
        lines.extend(stopped.as_ref().map(|stopped| evidence("stopped", stopped)));
    }
    lines.join("\n")
}

fn evidence(what: &str, Shown { at: Time(at), how, text }: &Shown) -> String {
    let text = text.as_ref().map(|text| format!(", {text:?}")).unwrap_or_default();
    format!("  {what} {at} ({}){text}", how.as_str())
}
