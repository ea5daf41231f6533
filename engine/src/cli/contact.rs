//! `heddle contact`: hand-over of conversations, consents, and data-subject requests.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use heddle_api::consents::{ConsentEntry, Consents, Entered, Held, Shown, Time};
use heddle_api::contacts::{
    CorrectContact, Correction, EnterConsent, ExportContact, ForgetContact, HandleConversation, Handling,
    ListErasures, OfContact, OfErasure, RestrictContact, Restriction, ShowConsents, ShowErasure,
};
use heddle_api::messages::{NewMessage, SendMessage};
use heddle_api::operation::NoParameters;
use heddle_api::tenants::OfTenant;
use heddle_api::{List, Nothing};
use heddle_connectors::clock::SystemClock;
use heddle_schemas::config::Config;
use heddle_schemas::consent::{Category, Says, Standing};
use heddle_schemas::contact::ContactName;
use heddle_schemas::erasure::Erasure;
use heddle_schemas::id::{AccountId, ChannelKind, ConversationId, TenantId};
use heddle_schemas::outgoing::OutgoingContent;
use heddle_schemas::ports::clock::Clock as _;
use heddle_schemas::record::inbound::Handler;
use heddle_schemas::time::Timestamp;
use serde_json::json;

use super::Failure;
use super::admin::{Admin, Where};
use super::export::Into;
use super::output::{Output, table};

/// Arguments of `heddle contact`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    place: Where,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Hand a conversation over to a human: the agent does not answer until it is given back.
    HandOver {
        /// The conversation's id as in events: tenant/channel/account/contact.
        conversation: ConversationId,
    },
    /// Give a conversation back to the agent, which answers all later messages.
    GiveBack {
        /// The conversation's id as in events: tenant/channel/account/contact.
        conversation: ConversationId,
    },
    /// Show a contact's consents and opt-outs; with --stop or --give, enter one.
    Consent(Consent),
    /// Export all data stored for a person as JSON.
    Export {
        #[command(flatten)]
        person: Person,
        #[command(flatten)]
        into: Into,
    },
    /// Correct the stored name of a person. A wrong number or id cannot be corrected: it is another person.
    Correct {
        #[command(flatten)]
        person: Person,
        /// The correct name.
        #[arg(
            id = "corrected_name",
            long = "name",
            value_name = "NAME",
            required_unless_present = "no_name",
            conflicts_with = "no_name"
        )]
        name: Option<String>,
        /// Remove the name.
        #[arg(long)]
        no_name: bool,
    },
    /// Restrict the processing of a person's data to storage: they get no answers and nothing new is sent.
    Restrict {
        #[command(flatten)]
        person: Person,
        /// Lift the restriction.
        #[arg(long)]
        lift: bool,
    },
    /// Enter a person's objection: they are sent nothing but replies.
    Object {
        #[command(flatten)]
        person: Person,
        /// Purpose of the objection; every purpose by default.
        #[arg(long, value_enum)]
        purpose: Option<Purpose>,
        /// Wording of the statement. It outlives an erasure of the contact, so it should hold no personal data.
        #[arg(long)]
        text: Option<String>,
    },
    /// Send a person one message, outside of the agent's turns. Outside of the channel's reply window it is a template.
    Message(Message),
    /// Erase a person: destroy the key of all their data, then remove every row.
    Forget {
        #[command(flatten)]
        person: Person,
        /// Time to wait for completion, such as `30s`; the erasure goes on after that.
        #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
        wait: Duration,
    },
    /// Show the erasures of a tenant's contacts, with their progress and deadline.
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
    /// Purpose of the entry; for --stop every purpose by default.
    #[arg(long, value_enum)]
    purpose: Option<Purpose>,
    /// Enter an opt-out.
    #[arg(long, conflicts_with = "give")]
    stop: bool,
    /// Enter a consent.
    #[arg(long, requires = "purpose")]
    give: bool,
    /// Origin of the entry.
    #[arg(long, value_enum, default_value_t = Source::Operator)]
    how: Source,
    /// Time of the statement, as 2026-01-01T12:00:00Z; now by default. The latest statement is in force.
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<Timestamp>,
    /// Wording of the statement. It outlives an erasure of the contact, so it should hold no personal data.
    #[arg(long)]
    text: Option<String>,
}

#[derive(Debug, Args)]
struct Message {
    #[command(flatten)]
    person: Person,
    /// Purpose of the message; a person who has opted out of it gets none.
    #[arg(long, value_enum)]
    purpose: Purpose,
    /// Name of the request, of your choice: repeated under the same name it sends nothing more.
    #[arg(long, value_name = "NAME")]
    key: String,
    /// Text of the message.
    #[arg(long, required_unless_present = "content", conflicts_with = "content")]
    text: Option<String>,
    /// Content as JSON in a file, or `-` for standard input, such as
    /// {"type":"template","name":"reminder","language":"en","body":[{"text":"Ann"}]}.
    #[arg(long, value_name = "FILE")]
    content: Option<PathBuf>,
    /// Kind of channel, where the tenant has several.
    #[arg(long)]
    channel: Option<ChannelKind>,
    /// Account that sends it, where the tenant has several.
    #[arg(long)]
    account: Option<AccountId>,
}

async fn send(admin: &Admin, message: Message, output: &mut Output) -> Result<(), Failure> {
    let Message { person: Person { tenant, contact }, purpose, key, text, content, channel, account } =
        message;
    let content = match (text, content) {
        (Some(text), _) => OutgoingContent::text(text),
        (None, file) => read_content(&file.unwrap_or_default())?,
    };
    let message =
        NewMessage { contact, content, purpose: purpose.into(), idempotency_key: key, channel, account };
    let accepted = admin.call(SendMessage, OfTenant { tenant }, NoParameters {}, message).await?;
    output.result(&accepted, || {
        format!("message {} is sent in its turn; `heddle events` shows what becomes of it", accepted.outbound)
    });
    Ok(())
}

fn read_content(file: &Path) -> Result<OutgoingContent, Failure> {
    let read = match file == Path::new("-") {
        true => std::io::read_to_string(std::io::stdin()),
        false => std::fs::read_to_string(file),
    };
    let text = read.map_err(|error| Failure::Usage(anyhow::anyhow!("{}: {error}", file.display())))?;
    serde_json::from_str(&text)
        .map_err(|error| Failure::Usage(anyhow::anyhow!("{}: {error}", file.display())))
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

/// Origin of an entry.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Source {
    /// A person enters what the contact told them.
    Operator,
    /// Import from a list kept elsewhere.
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

/// Tenant and contact of a command.
#[derive(Debug, Args)]
struct Person {
    /// The tenant.
    tenant: TenantId,
    /// Phone number as +4915112345678, a channel's id as whatsapp:ID or http:ACCOUNT/ID, or the contact's own id.
    contact: ContactName,
}

/// Interval between two checks of an erasure's progress.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Runs the command.
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
            handle(admin, conversation, Handler::Human, "is handled by a human", output).await
        }
        Action::GiveBack { conversation } => {
            handle(admin, conversation, Handler::Agent, "is handled by the agent", output).await
        }
        Action::Consent(asked) => consent(admin, asked, output).await,
        Action::Message(message) => send(admin, message, output).await,
        Action::Export { person: Person { tenant, contact }, into } => {
            let export =
                admin.call(ExportContact, OfTenant { tenant }, OfContact { contact }, Nothing).await?;
            into.write(export.0, output).await
        }
        Action::Correct { person: Person { tenant, contact }, name, no_name: _ } => {
            let path = OfTenant { tenant: tenant.clone() };
            admin.call(CorrectContact, path, OfContact { contact }, Correction { name }).await?;
            output.result(&json!({ "tenant": tenant, "accepted": true }), || {
                "the name is corrected once the earlier messages of the contact's conversations are processed".into()
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
                [] => "no contact of this tenant has been erased".to_owned(),
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
        format!("{conversation} {done} once its earlier messages are processed")
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
    // Only a running node processes the erasure.
    let is_running = matches!(admin, Admin::Remote(_));
    let waiting = async {
        while is_running && !erasure.is_complete() {
            tokio::time::sleep(POLL_INTERVAL).await;
            let path = OfErasure { tenant: tenant.clone(), erasure: erasure.id };
            erasure = admin.call(ShowErasure, path, NoParameters {}, Nothing).await?;
        }
        Ok::<(), Failure>(())
    };
    if let Ok(failed) = tokio::time::timeout(wait, waiting).await {
        failed?;
    }
    if let Some(why) = nothing_erased(&erasure, tenant) {
        return Err(Failure::Failed(anyhow::anyhow!(why)));
    }
    output.result(&erasure, || match erasure.is_complete() {
        true => format!(
            "contact {} is erased: its key is destroyed, {} rows are removed; the receipt is erasure {}",
            erasure.contact,
            erasure.rows(),
            erasure.id
        ),
        false if !is_running => format!(
            "contact {}: the key of all its data is destroyed, nothing of it can be read any more; a node that runs \
             removes the rows, `heddle contact erasures {tenant}` shows erasure {}",
            erasure.contact, erasure.id
        ),
        false => format!(
            "contact {} is being erased, {} of {} conversations are done; `heddle contact erasures {tenant}` \
             shows the progress of erasure {}",
            erasure.contact,
            erasure.parts.iter().filter(|part| part.done.is_some()).count(),
            erasure.parts.len(),
            erasure.id
        ),
    });
    Ok(())
}

/// Returns the fault of a complete erasure that found no row: its contact is unknown, or was erased before.
fn nothing_erased(erasure: &Erasure, tenant: &TenantId) -> Option<String> {
    (erasure.is_complete() && erasure.rows() == 0).then(|| {
        format!(
            "nothing was erased: tenant {tenant} has no data of contact {} (erasure {}); check the contact, or give \
             its number as +4915112345678 or its id as whatsapp:ID",
            erasure.contact, erasure.id
        )
    })
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
        let why = "--at and --text need an entry: add --stop or --give";
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
            Standing::Unknown => "no statement",
            Standing::Given => "consented",
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
    format!("  {what} {at} ({}){text}", how.name(|known| known.as_str()))
}

#[cfg(test)]
mod tests {
    use heddle_schemas::erasure::Done;
    use heddle_schemas::id::{ChannelKind, ContactId, MessageKey};

    use super::*;

    #[test]
    fn an_erasure_that_finds_nothing_is_a_fault_once_it_is_complete() {
        let tenant: TenantId = "acme".parse().unwrap();
        let account = || "1001".parse().unwrap();
        let erasure = |rows: Option<u64>| {
            let (id, contact) = (MessageKey::from_bytes([1; 16]), ContactId::from_bytes([2; 16]));
            let now = Timestamp::from_secs(1_000);
            let mut erasure = Erasure::new(id, contact, now, [(ChannelKind::Whatsapp, account())]);
            if let Some(rows) = rows {
                let conversation = format!("acme/whatsapp/1001/{contact}").parse().unwrap();
                assert!(erasure.done(&conversation, Done { at: now, rows }));
            }
            erasure
        };
        assert_eq!(nothing_erased(&erasure(None), &tenant), None, "it is not complete");
        assert_eq!(nothing_erased(&erasure(Some(3)), &tenant), None, "three rows were removed");
        let why = nothing_erased(&erasure(Some(0)), &tenant).unwrap();
        assert!(why.contains("nothing was erased: tenant acme") && why.contains("02020202"), "{why}");
    }
}
