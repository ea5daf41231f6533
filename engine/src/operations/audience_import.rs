//! Import of a file into an audience.
//!
//! The file is first received as a whole, into a temporary file without a name: a workbook is not read from its
//! beginning, and the encoding of a text is known at its end. Then a thread reads it, a batch ahead of the task that
//! writes people and answers. An import that nobody reads any more ends, like one that fails; what it wrote stays, and
//! a repetition goes on from there.

use std::fs::File;
use std::io::{self, Seek as _};
use std::ops::ControlFlow;
use std::sync::Arc;

use futures::TryStreamExt as _;
use heddle_actors::audience;
use heddle_actors::audience::import::{Claim, Import, Row};
use heddle_api::Input;
use heddle_api::audiences::{
    DateOrder, ImportAudience, ImportColumn, ImportLine, ImportOptions, MAX_FILE, OfAudience,
};
use heddle_api::content::{Lines, Malformed, Pieces};
use heddle_import::mapping::{CONSENT_COLUMNS, PHONE};
use heddle_import::{
    Choices, Country, Event, Format, ImportError, Mapping, Options, Person, Reject, consent, read,
};
use heddle_schemas::audience::{ImportCounts, Member};
use heddle_schemas::audit::{Outcome, What};
use heddle_schemas::tenant::Tenant;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::export::{Stopped, Writer};
use super::{Call, Caller, Handler, OperationError, Operations, Subject};

/// Imports of a node at once; others wait.
pub const AT_ONCE: usize = 2;
/// Rows of a batch.
const BATCH: usize = 1_024;
/// Batches that are read ahead.
const AHEAD: usize = 2;
/// Rows between two lines of progress.
const PROGRESS: u64 = 10_000;

/// Import that may begin.
pub struct Ready {
    tenant: Arc<Tenant>,
    options: Options,
    place: OwnedSemaphorePermit,
}

impl Subject<ImportAudience> for Ready {
    async fn find(
        operations: &Operations,
        input: &mut Input<ImportAudience>,
    ) -> Result<Self, OperationError> {
        let tenant = operations.tenant(&input.path.tenant)?;
        let head = audience::find(&operations.ports, &tenant.id, &input.path.audience).await?;
        let before = head.and_then(|head| head.country);
        let mut options = options_of(&input.query, before.as_deref())?;
        options.now = operations.ports.clock.now();
        let place = operations.imports.clone().acquire_owned().await;
        let closed = |_| Malformed::new(408, "this node is stopping");
        Ok(Self { tenant, options, place: place.map_err(closed)? })
    }
}

fn options_of(query: &ImportOptions, before: Option<&str>) -> Result<Options, OperationError> {
    let country = query.country.as_deref().or(before).map(str::parse::<Country>).transpose();
    let country = country.map_err(|error| OperationError::invalid("invalid_country", error))?;
    let lines = |text: &str| text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
    let choices = Choices {
        columns: pairs(&query.map, "NAME=HEADER")?,
        constants: pairs(&query.set, "NAME=VALUE")?,
        left_out: lines(&query.leave_out),
    };
    let dates = query.dates.map(|order| match order {
        DateOrder::DayFirst => consent::DateOrder::DayFirst,
        DateOrder::MonthFirst => consent::DateOrder::MonthFirst,
    });
    let now = heddle_schemas::time::Timestamp::EPOCH;
    Ok(Options { country, choices, sheet: query.sheet.clone(), dates, now })
}

fn pairs(text: &str, form: &str) -> Result<Vec<(String, String)>, OperationError> {
    let pair = |line: &str| {
        let (name, value) = line.split_once('=')?;
        Some((name.trim().to_owned(), value.trim().to_owned()))
    };
    let wrong =
        || OperationError::invalid("invalid_mapping", format!("a mapping is written as {form}, one a line"));
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.map(|line| pair(line).ok_or_else(wrong)).collect()
}

/// Message of the reading thread to the writing task.
enum Part {
    Began(Began),
    Rows(Batch),
    Failed(ImportError),
}

/// Format and mapping of a file.
struct Began {
    line: ImportLine,
    columns: Vec<String>,
}

#[derive(Default)]
struct Batch {
    people: Vec<Row>,
    rejects: Vec<Reject>,
    duplicates: u64,
}

impl Batch {
    fn rows(&self) -> u64 {
        (self.people.len() + self.rejects.len()) as u64 + self.duplicates
    }
}

impl Handler for ImportAudience {
    type Subject = Ready;

    async fn run(
        operations: &Operations,
        call: Call<'_>,
        Input { path, query, body }: Input<Self>,
        Ready { tenant, options, place }: Ready,
    ) -> Result<Lines, OperationError> {
        let file = received(body.pieces).await?;
        let country = options.country.map(|country| country.to_string());
        let (parts, mut received) = mpsc::channel(AHEAD);
        tokio::task::spawn_blocking(move || read_file(file, &options, &parts));
        let began = match received.recv().await {
            Some(Part::Began(began)) => began,
            Some(Part::Failed(ImportError::Io(error))) => return Err(unreadable(error)),
            Some(Part::Failed(error)) => return Err(OperationError::invalid("invalid_list", error)),
            Some(Part::Rows(_)) | None => {
                return Err(OperationError::invalid("invalid_list", ImportError::Empty));
            }
        };
        let (operations, caller) = (operations.clone(), call.caller.clone());
        let running = Running { operations, path, country, is_dry: query.dry_run, began, parts: received };
        let (writer, pieces) = Writer::channel();
        tokio::spawn(running.run(caller, call.began, tenant, writer, place));
        Ok(Lines(pieces))
    }
}

fn unreadable(error: io::Error) -> OperationError {
    OperationError::new(heddle_api::problem::ErrorKind::Unavailable, "no_space", error)
}

/// Receives a file, at most [`MAX_FILE`] bytes, into a temporary file that has no name.
async fn received(mut pieces: Pieces) -> Result<File, OperationError> {
    let file =
        tokio::task::spawn_blocking(tempfile::tempfile).await.map_err(|error| unreadable(error.into()))?;
    let mut file = tokio::fs::File::from_std(file.map_err(unreadable)?);
    let mut bytes = 0;
    let broken = |error| Malformed::new(400, format!("the file broke off: {error}"));
    while let Some(piece) = pieces.try_next().await.map_err(broken)? {
        bytes += piece.len() as u64;
        if bytes > MAX_FILE {
            return Err(Malformed::new(413, format!("a list has at most {MAX_FILE} bytes; split it")).into());
        }
        file.write_all(&piece).await.map_err(unreadable)?;
    }
    file.flush().await.map_err(unreadable)?;
    let mut file = file.into_std().await;
    file.rewind().map_err(unreadable)?;
    Ok(file)
}

/// Reads a file on a thread of its own, until the receiver is gone.
fn read_file(file: File, options: &Options, parts: &mpsc::Sender<Part>) {
    let mut batch = Batch::default();
    let send = |part| match parts.blocking_send(part) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    };
    let read = read(io::BufReader::new(file), options, &mut |event| {
        match event {
            Event::Began(format, mapping) => return send(Part::Began(Began::of(format, mapping))),
            Event::Person(person) => batch.people.push(row_of(person)),
            Event::Duplicate(_) => batch.duplicates += 1,
            Event::Reject(reject) => batch.rejects.push(reject),
        }
        if batch.people.len() + batch.rejects.len() < BATCH {
            return ControlFlow::Continue(());
        }
        send(Part::Rows(std::mem::take(&mut batch)))
    });
    // What was read before a fault is written too. A fault of the whole file comes before any row.
    if (batch.rows() == 0 || send(Part::Rows(batch)).is_continue())
        && let Err(error) = read
    {
        let _ = send(Part::Failed(error));
    }
}

fn row_of(person: Person) -> Row {
    let values = person.values.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
    let claim = |consent::Consent { says, purposes, at, how }| Claim { says, purposes, at, how };
    Row { member: Member { phone: person.phone.to_string(), values }, consent: person.consent.map(claim) }
}

impl Began {
    fn of(format: &Format, mapping: &Mapping) -> Self {
        let format = match format {
            Format::Csv { encoding, delimiter } => format!("csv, {encoding}, delimiter {delimiter:?}"),
            Format::Xlsx { sheet } => format!("xlsx, sheet {sheet:?}"),
        };
        let columns = mapping.columns.iter().map(|column| ImportColumn {
            header: column.header.clone(),
            name: column.name.clone(),
            guessed: column.guessed,
        });
        let line =
            ImportLine::Mapping { format, header_line: mapping.header_line, columns: columns.collect() };
        let named = mapping.columns.iter().filter_map(|column| column.name.clone());
        let names = named.chain(mapping.constants.iter().map(|(name, _)| name.clone()));
        let is_value = |name: &String| name != PHONE && !CONSENT_COLUMNS.contains(&name.as_str());
        Self { line, columns: names.filter(is_value).collect() }
    }
}

/// Import that has begun.
struct Running {
    operations: Operations,
    path: OfAudience,
    country: Option<String>,
    is_dry: bool,
    began: Began,
    parts: mpsc::Receiver<Part>,
}

impl Running {
    async fn run(
        mut self,
        caller: Caller,
        began: Option<u64>,
        tenant: Arc<Tenant>,
        mut writer: Writer,
        _place: OwnedSemaphorePermit,
    ) {
        let mut rows = 0;
        let written = self.import(&mut writer, &mut rows).await;
        let outcome = if written.is_ok() { Outcome::Done } else { Outcome::Failed };
        if !self.is_dry {
            let what = What::AudienceImport { audience: self.path.audience.clone() };
            self.operations.record_end(caller, &tenant.id, what, (outcome, began), rows).await;
        }
        if let Err(Stopped::Failed(error)) = written {
            tracing::warn!(%error, tenant = %tenant.id, audience = %self.path.audience, "an import broke off");
            let line = ImportLine::Failed { detail: error.to_string() };
            // The reader may have left.
            let _ = async {
                writer.line(json!(line)).await?;
                writer.flush().await
            }
            .await;
        }
    }

    async fn import(&mut self, writer: &mut Writer, rows: &mut u64) -> Result<(), Stopped> {
        writer.line(json!(self.began.line)).await?;
        let OfAudience { tenant, audience } = self.path.clone();
        let (ports, identity) = (self.operations.ports.clone(), self.operations.identity.clone());
        let mut import = match self.is_dry {
            true => None,
            false => Some(Import::begin(ports, identity, tenant, audience).await?),
        };
        let mut counts = ImportCounts::default();
        while let Some(part) = self.parts.recv().await {
            let Batch { people, rejects, duplicates } = match part {
                Part::Rows(batch) => {
                    counts.rows += batch.rows();
                    batch
                }
                Part::Failed(error) => return Err(OperationError::invalid("invalid_list", error).into()),
                Part::Began(_) => continue,
            };
            counts.duplicates += duplicates;
            counts.refused += rejects.len() as u64;
            let before = *rows;
            *rows = counts.rows;
            if let Some(import) = &mut import {
                import.apply(people).await?;
            }
            for reject in rejects {
                writer.line(json!(rejected(reject))).await?;
            }
            if *rows / PROGRESS > before / PROGRESS {
                writer.line(json!(ImportLine::Progress { rows: *rows })).await?;
                writer.flush().await?;
            }
        }
        let counts = match import {
            Some(mut import) => {
                let all = import.counts();
                all.rows += counts.rows;
                all.refused += counts.refused;
                all.duplicates += counts.duplicates;
                import.finish(std::mem::take(&mut self.began.columns), self.country.take()).await?
            }
            None => counts,
        };
        writer.line(json!(ImportLine::Done { counts, dry_run: self.is_dry })).await?;
        writer.flush().await
    }
}

fn rejected(Reject { line, reason, cells }: Reject) -> ImportLine {
    ImportLine::Rejected {
        line,
        reason: reason.as_str().to_owned(),
        detail: reason.advice().to_owned(),
        cells,
    }
}
