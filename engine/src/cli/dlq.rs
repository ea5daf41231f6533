//! `heddle dlq`: lists dead letters, shows one, replays them.

use std::time::Duration;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use heddle_api::Nothing;
use heddle_api::dead_letters::{
    Fate, Filters, LISTED, Letter, LetterId, ListLetters, MOST, OfLetter, OriginalState, Page, Place, Replay,
    ReplayLetters, Replayed, ShowLetter, Summary,
};
use heddle_api::operation::NoParameters;
use heddle_schemas::config::Config;
use heddle_schemas::id::TenantId;
use heddle_schemas::record::dlq::DeadReason;
use heddle_schemas::time::human;
use serde::Deserialize;
use serde::de::value::{Error as ValueError, StrDeserializer};

use super::Failure;
use super::admin::{Admin, Where};
use super::output::{Output, table};

/// Arguments of `heddle dlq`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    place: Where,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the records that could not be processed, the newest last.
    List(Which),
    /// Show a dead letter with its original record; encrypted parts stay encrypted.
    Show {
        /// Id of the dead letter, as `dlq list` shows it: its partition and offset.
        id: LetterId,
    },
    /// Replay original records, through the same checks as a first delivery.
    ///
    /// A replay is idempotent: records seen or sent before are recognised. The dead letter stays in the DLQ, and an
    /// original that is dead-lettered again becomes another dead letter.
    ///
    /// An outbound message older than --max-age is not sent, and reported as too old. A customer's message is
    /// replayed whatever --max-age says: one older than engine.answer_within (24h by default) is recorded in its
    /// conversation and not answered. A record older than ten days is not replayed at all, since duplicates can
    /// not be detected any more.
    ///
    /// The exit code is 1 unless every selected dead letter was replayed.
    #[command(verbatim_doc_comment)]
    Replay(Asked),
}

#[derive(Debug, Args)]
struct Which {
    /// Only those dead-lettered after this one, or after the cursor that the previous list printed.
    #[arg(long, value_name = "ID")]
    after: Option<Place>,
    /// Maximum number.
    #[arg(long, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    limit: Option<usize>,
    /// Only those with this reason, such as poison.
    #[arg(long, value_parser = parsed::<DeadReason>)]
    reason: Option<DeadReason>,
    /// Only those of this tenant, where the dead letter names its tenant.
    #[arg(long)]
    tenant: Option<TenantId>,
}

#[derive(Debug, Args)]
#[group(id = "which", required = true, multiple = true, args = ["ids", "all"])]
struct Asked {
    /// Ids of the dead letters, as `dlq list` shows them.
    #[arg(value_name = "ID", conflicts_with_all = ["all", "after", "limit", "reason", "tenant"])]
    ids: Vec<LetterId>,
    /// All dead letters, or all that match the filters.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    which: Which,
    /// Maximum age of an outbound message to send, at most 10d.
    #[arg(long, value_name = "AGE", default_value = "24h", value_parser = duration)]
    max_age: Duration,
    /// Report what would happen, and replay nothing.
    #[arg(long)]
    dry_run: bool,
}

fn parsed<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, ValueError> {
    T::deserialize(StrDeserializer::new(text))
}

fn duration(text: &str) -> Result<Duration, ValueError> {
    human::deserialize(StrDeserializer::new(text))
}

impl Which {
    /// Returns the filters of a request for at most `limit` dead letters.
    fn filters(&self, after: Option<Place>, limit: usize) -> Filters {
        let (reason, tenant) = (self.reason, self.tenant.clone());
        Filters {
            after: after.or_else(|| self.after.clone()),
            reason,
            tenant,
            limit: Some(limit.clamp(1, MOST) as u64),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// [`Failure`].
pub async fn run(config: Config, arguments: Arguments, output: &mut Output) -> Result<(), Failure> {
    let admin = Admin::find(config, &arguments.place).await?;
    let done = match arguments.action {
        Action::List(which) => list(&admin, &which, output).await,
        Action::Show { id } => {
            let dead_letter = admin.call(ShowLetter, OfLetter { id }, NoParameters {}, Nothing).await;
            dead_letter.map(|dead_letter| output.result(&dead_letter, || shown(&dead_letter)))
        }
        Action::Replay(asked) => replay(&admin, asked, output).await,
    };
    admin.close().await;
    done
}

/// Lists the dead letters, in as many requests as needed.
async fn list(admin: &Admin, which: &Which, output: &mut Output) -> Result<(), Failure> {
    let limit = which.limit.unwrap_or(LISTED);
    let mut listed = Page { items: Vec::new(), next: None };
    loop {
        let filters = which.filters(listed.next.take(), limit - listed.items.len());
        let page = admin.call(ListLetters, NoParameters {}, filters, Nothing).await?;
        listed.items.extend(page.items);
        listed.next = page.next;
        if listed.next.is_none() || listed.items.len() >= limit {
            break;
        }
    }
    output.result(&listed, || {
        let rows: Vec<_> = listed.items.iter().map(row).collect();
        table(["ID", "AT", "FROM", "REASON", "BYTES", "ATTEMPTS", "DETAIL"], &rows)
    });
    if let Some(next) = &listed.next {
        output.say(&format!("there may be more: --after {next}"));
    }
    Ok(())
}

async fn replay(admin: &Admin, asked: Asked, output: &mut Output) -> Result<(), Failure> {
    let mut replayed = Replayed { items: Vec::new(), next: None, until: Vec::new() };
    let asking = match asked.all {
        true => replay_all(admin, &asked, &mut replayed).await,
        false => replay_these(admin, &asked, &mut replayed).await,
    };
    // The result so far is reported even after a fault.
    output.result(&replayed, || {
        let rows: Vec<_> = replayed.items.iter().map(fate).collect();
        table(["ID", "OUTCOME", "TO", "DETAIL"], &rows)
    });
    asking?;
    let left = replayed.items.iter().filter(|fate| !fate.outcome.is_done()).count();
    match left {
        0 => Ok(()),
        _ if asked.dry_run => {
            Err(Failure::Failed(anyhow!("{left} of {} dead letters would stay", replayed.items.len())))
        }
        _ => {
            Err(Failure::Failed(anyhow!("{left} of {} dead letters were not replayed", replayed.items.len())))
        }
    }
}

async fn replay_these(admin: &Admin, asked: &Asked, replayed: &mut Replayed) -> Result<(), Failure> {
    for ids in asked.ids.chunks(MOST) {
        let request = Replay { ids: Some(ids.to_vec()), ..asked.request() };
        let page = admin.call(ReplayLetters, NoParameters {}, NoParameters {}, request).await?;
        replayed.items.extend(page.items);
    }
    Ok(())
}

async fn replay_all(admin: &Admin, asked: &Asked, replayed: &mut Replayed) -> Result<(), Failure> {
    let limit = asked.which.limit.unwrap_or(usize::MAX);
    let mut until = None;
    loop {
        let filters = asked.which.filters(replayed.next.take(), limit - replayed.items.len());
        let request = Replay { filters: Some(filters), until, ..asked.request() };
        let page = admin.call(ReplayLetters, NoParameters {}, NoParameters {}, request).await?;
        replayed.items.extend(page.items);
        replayed.next = page.next;
        if replayed.next.is_none() || replayed.items.len() >= limit {
            return Ok(());
        }
        // Records dead-lettered again during this run are not part of it.
        until = Some(page.until);
    }
}

impl Asked {
    fn request(&self) -> Replay {
        Replay { max_age: self.max_age, dry_run: self.dry_run, ..Replay::default() }
    }
}

fn origin(dead_letter: &Summary) -> String {
    match (dead_letter.from, dead_letter.offset) {
        (Some(from), Some(offset)) => format!("{from}@{offset}"),
        _ => String::new(),
    }
}

fn row(dead_letter: &Summary) -> [String; 7] {
    [
        dead_letter.id.to_string(),
        dead_letter.at.to_string(),
        origin(dead_letter),
        dead_letter.reason.as_ref().map_or("", |reason| reason.name(|known| known.as_str())).to_owned(),
        dead_letter.bytes.to_string(),
        dead_letter.attempts.to_string(),
        // The detail can quote any record.
        dead_letter.detail.replace(char::is_control, " "),
    ]
}

fn fate(fate: &Fate) -> [String; 4] {
    let to = fate.to.clone().unwrap_or_default();
    [fate.id.to_string(), fate.outcome.as_str().to_owned(), to, fate.detail.clone()]
}

fn shown(dead_letter: &Letter) -> String {
    let Letter { summary, state, original } = dead_letter;
    let [id, at, from, reason, bytes, attempts, detail] = row(summary);
    let tenant = summary.tenant.as_ref().map(ToString::to_string).unwrap_or_default();
    let kept = match state {
        OriginalState::Shown => "shown; encrypted parts stay encrypted",
        OriginalState::Sealed => "stored, encrypted with its tenant's key",
        OriginalState::NoJson => "stored; not JSON",
        OriginalState::NotKept => "not kept",
    };
    let about = summary.about.clone().unwrap_or_default();
    let rows = [
        ("id", id),
        ("at", at),
        ("from", from),
        ("tenant", tenant),
        ("about", about),
        ("reason", reason),
        ("detail", detail),
        ("attempts", attempts),
        ("bytes", bytes),
        ("original", kept.to_owned()),
    ];
    let lines = rows.into_iter().filter(|(_, value)| !value.is_empty());
    let mut text = lines.map(|(name, value)| format!("{name:<9} {value}")).collect::<Vec<_>>().join("\n");
    if let Some(original) = original {
        text.push('\n');
        text.push_str(&serde_json::to_string_pretty(original).unwrap_or_default());
    }
    text
}
