//! `heddle contact`: who answers in a conversation, what may be sent to a contact, and what a person may ask for.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use heddle_api::consents::{ConsentEntry, Consents, Entered, Held, Shown, Time};
use heddle_api::contacts::{
    CorrectContact, Correction, EnterConsent, ExportContact, ForgetContact, HandleConversation, Handling,
    ListErasures, OfContact, OfErasure, RestrictContact, Restriction, ShowConsents, ShowErasure,
};
use heddle_api::operation::NoParameters;
use heddle_api::tenants::OfTenant;
use heddle_api::{List, Nothing};
use heddle_connectors::clock::SystemClock;
use heddle_schemas::config::Config;
use heddle_schemas::consent::{Category, Says, Standing};
use heddle_schemas::contact::ContactName;
use heddle_schemas::erasure::Erasure;
use heddle_schemas::id::{ConversationId, TenantId};
use heddle_schemas::ports::clock::Clock as _;
use heddle_schemas::record::inbound::Handler;
use heddle_schemas::time::Timestamp;
use serde_json::json;

use super::Failure;
use super::admin::{Admin, Where};
use super::export::Into;
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
    /// Show what a contact has consented to and opted out of; with --stop or --give, enter it.
    Consent(Consent),
    /// Write all that is kept of a person, as JSON.
    Export {
        #[command(flatten)]
        person: Person,
        #[command(flatten)]
        into: Into,
    },
    /// Have the name that is kept of a person put right. A wrong number or id is not corrected: it is another person.
    Correct {
        #[command(flatten)]
        person: Person,
        /// The right name.
        #[arg(long, required_unless_present = "no_name", conflicts_with = "no_name")]
        name: Option<String>,
        /// Keep no name.
        #[arg(long)]
        no_name: bool,
    },
    /// Have what is kept of a person stored and not used: nobody answers them and nothing new is sent.
    Restrict {
        #[command(flatten)]
        person: Person,
        /// Use it again.
        #[arg(long)]
        lift: bool,
    },
    /// Enter that a person objects: nothing is sent to them but replies.
    Object {
        #[command(flatten)]
        person: Person,
        /// To what; without it to everything.
        #[arg(long, value_enum)]
        purpose: Option<Purpose>,
        /// In which words. They outlive an erasure of the contact, so they should name nobody.
        #[arg(long)]
        text: Option<String>,
    },
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

#[derive(Debug, Args)]
struct Consent {
    /// The tenant.
    tenant: TenantId,
    /// The contact: a phone number as +4915112345678, a channel's id as whatsapp:ID or http:ACCOUNT/ID, or its own id.
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
    #[arg(long, value_enum, default_value_t = Source::Operator)]
    how: Source,
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

/// Where an entry is from.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Source {
    /// The contact told somebody, who enters it.
    Operator,
    /// A list that is kept elsewhere.
    Import,
}

impl From<Source> for Entered {
    fn from(source: Source) -> Self {
        match source {
            Source::Operator => Self::Operator,
            Source::Import => Self::Import,
        }
    }
}

fn time(text: &str) -> Result<Timestamp, String> {
    let quoted = serde_json::Value::String(text.to_owned());
    let read: Result<Time, _> = serde_json::from_value(quoted);
    read.map(|Time(at)| at).map_err(|error| error.to_string())
}

/// Who it is about.
#[derive(Debug, Args)]
struct Person {
    /// The tenant.
    tenant: TenantId,
    /// A phone number as +4915112345678, a channel's id as whatsapp:ID or http:ACCOUNT/ID, or the contact's own id.
    contact: ContactName,
}

/// How often an erasure is checked for whether it is complete.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

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
        Action::Export { person: Person { tenant, contact }, into } => {
            let export =
                admin.call(ExportContact, OfTenant { tenant }, OfContact { contact }, Nothing).await?;
            into.write(export.0, output).await
        }
        Action::Correct { person: Person { tenant, contact }, name, no_name: _ } => {
            let path = OfTenant { tenant: tenant.clone() };
            admin.call(CorrectContact, path, OfContact { contact }, Correction { name }).await?;
            output.result(&json!({ "tenant": tenant, "accepted": true }), || {
                "the name is put right once what the contact's conversations received before is worked off".into()
            });
            Ok(())
        }
        Action::Restrict { person: Person { tenant, contact }, lift } => {
            let body = Restriction { restricted: !lift };
            let consents =
                admin.call(RestrictContact, OfTenant { tenant }, OfContact { contact }, body).await?;
            output.result(&consents, || shown(&consents));
            Ok(())
        }
        Action::Object { person: Person { tenant, contact }, purpose, text } => {
            let (stop, give, how, at) = (true, false, Source::Operator, None);
            consent(admin, Consent { tenant, contact, purpose, stop, give, how, at, text }, output).await
        }
        Action::Forget { person: Person { tenant, contact }, wait } => {
            forget(admin, &tenant, &contact, wait, output).await
        }
        Action::Erasures { tenant } => {
            let path = OfTenant { tenant };
            let List { items: erasures } = admin.call(ListErasures, path, NoParameters {}, Nothing).await?;
            let now = SystemClock.now();
            let rows: Vec<_> = erasures.iter().map(|erasure| row(erasure, now)).collect();
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
    admin.call(HandleConversation, conversation.clone().into(), NoParameters {}, Handling { by }).await?;
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
    let path = OfTenant { tenant: tenant.clone() };
    let mut erasure =
        admin.call(ForgetContact, path, OfContact { contact: contact.clone() }, Nothing).await?;
    // On a folder that no node has open nobody works it off.
    let somebody_does = matches!(admin, Admin::Remote(_));
    let waiting = async {
        while somebody_does && !erasure.is_complete() {
            tokio::time::sleep(POLL_INTERVAL).await;
            let path = OfErasure { tenant: tenant.clone(), erasure: erasure.id };
            erasure = admin.call(ShowErasure, path, NoParameters {}, Nothing).await?;
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

fn row(erasure: &Erasure, now: Timestamp) -> [String; 6] {
    let done = match erasure.completed_at {
        Some(at) => at.to_string(),
        None => {
            let done = erasure.parts.iter().filter(|part| part.done.is_some()).count();
            let overdue = if erasure.is_overdue(now) { ", OVERDUE" } else { "" };
            format!("{done} of {}{overdue}", erasure.parts.len())
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
    let entry = says.map(|says| ConsentEntry {
        says,
        purposes: purpose.map_or_else(|| Category::ALL.to_vec(), |purpose| vec![purpose]),
        how: how.into(),
        at: at.map(Time),
        text,
    });
    let (path, query) = (OfTenant { tenant }, OfContact { contact });
    let mut consents = match entry {
        Some(entry) => admin.call(EnterConsent, path, query, entry).await?,
        None => admin.call(ShowConsents, path, query, Nothing).await?,
    };
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
            Standing::Restricted => "stored and not used",
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
