//! `heddle audience`: lists of people to whom campaigns are sent.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use bytes::{Bytes, BytesMut};
use clap::{Args, Subcommand, ValueEnum};
use futures::{StreamExt as _, TryStreamExt as _};
use heddle_api::audiences::{
    Audience, DateOrder, DeleteAudience, ExportAudience, ImportAudience, ImportColumn, ImportLine,
    ImportOptions, ListAudiences, OfAudience, ShowAudience,
};
use heddle_api::content::{Csv, Lines, ListFile, Pieces};
use heddle_api::operation::NoParameters;
use heddle_api::tenants::OfTenant;
use heddle_api::{List, Nothing};
use heddle_import::reject::RejectFile;
use heddle_schemas::audience::{AudienceId, ImportCounts};
use heddle_schemas::config::Config;
use heddle_schemas::id::TenantId;
use serde_json::json;
use tokio::io::AsyncReadExt as _;

use super::Failure;
use super::admin::{Admin, Where};
use super::export::Into;
use super::output::{Output, table};

/// Bytes of a file that are sent at a time.
const PIECE: usize = 64 << 10;
/// Bytes of a line of the answer, at most.
const LINE: usize = 1 << 20;
/// Refused rows that are printed where no file takes them.
const SHOWN: usize = 10;

/// Arguments of `heddle audience`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    place: Where,
    #[command(subcommand)]
    action: Action,
}

/// An audience of a tenant.
#[derive(Debug, Args)]
struct Of {
    /// The tenant's id.
    tenant: TenantId,
    /// The audience's id: 1 to 64 of a-z, 0-9, - and _.
    audience: AudienceId,
}

impl Of {
    fn path(self) -> OfAudience {
        OfAudience { tenant: self.tenant, audience: self.audience }
    }
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Import people from a CSV or XLSX file; creates the audience if it is new. Repeatable: the same file again
    /// changes nothing. Rows that cannot be used are listed with their reason and stop nothing.
    Import(Import),
    /// List the audiences of a tenant.
    List {
        /// The tenant's id.
        tenant: TenantId,
    },
    /// Show an audience: its columns, and the number of its members.
    Show {
        #[command(flatten)]
        of: Of,
    },
    /// Delete an audience and its members; contacts and consents stay.
    Delete {
        #[command(flatten)]
        of: Of,
    },
    /// Export the members as CSV.
    Export {
        #[command(flatten)]
        of: Of,
        #[command(flatten)]
        into: Into,
    },
}

#[derive(Debug, Args)]
struct Import {
    #[command(flatten)]
    of: Of,
    /// The file: CSV (any delimiter, UTF-8, UTF-16 or Windows-1252) or XLSX.
    file: PathBuf,
    /// Read column NAME from the column with this header, or from the third as NAME=#3. `phone` is the number;
    /// `consent`, `consent_purpose`, `consent_at` and `consent_how` are the consent. Other columns are guessed.
    #[arg(long, value_name = "NAME=HEADER")]
    map: Vec<String>,
    /// Give column NAME this value in every row, such as consent_purpose=marketing.
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// Leave out the column with this header.
    #[arg(long, value_name = "HEADER")]
    leave_out: Vec<String>,
    /// Country of numbers without a country code, such as DE. Default: that of the audience's last import.
    #[arg(long, value_name = "CODE")]
    country: Option<String>,
    /// Sheet of a workbook. Default: the first visible one.
    #[arg(long, value_name = "NAME")]
    sheet: Option<String>,
    /// Order of dates with slashes; without it, a date that could be two is refused.
    #[arg(long)]
    dates: Option<Dates>,
    /// Read the whole file and store nothing.
    #[arg(long)]
    dry_run: bool,
    /// Write refused rows to this new CSV file, each with its line and reason.
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Dates {
    /// 31/12/2026.
    DayFirst,
    /// 12/31/2026.
    MonthFirst,
}

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
        Action::Import(arguments) => import(admin, arguments, output).await?,
        Action::List { tenant } => {
            let path = OfTenant { tenant };
            let List { items } = admin.call(ListAudiences, path, NoParameters {}, Nothing).await?;
            output.result(&items, || listed(&items));
        }
        Action::Show { of } => {
            let found = admin.call(ShowAudience, of.path(), NoParameters {}, Nothing).await?;
            output.result(&found, || listed(std::slice::from_ref(&found)));
        }
        Action::Delete { of } => {
            let shown = of.audience.to_string();
            let deleted = admin.call(DeleteAudience, of.path(), NoParameters {}, Nothing).await?;
            output.result(&deleted, || format!("{shown} is deleted, with {} members", deleted.members));
        }
        Action::Export { of, into } => {
            let Csv(export) = admin.call(ExportAudience, of.path(), NoParameters {}, Nothing).await?;
            into.write(export, output).await?;
        }
    }
    Ok(())
}

fn listed(audiences: &[Audience]) -> String {
    let rows: Vec<_> = audiences
        .iter()
        .map(|audience| {
            [
                audience.id.to_string(),
                audience.members.map_or_else(String::new, |members| members.to_string()),
                audience.imported_at.map_or_else(|| "never".to_owned(), |at| at.to_string()),
                audience.columns.join(", "),
            ]
        })
        .collect();
    table(["AUDIENCE", "MEMBERS", "IMPORTED", "COLUMNS"], &rows)
}

async fn import(admin: &Admin, arguments: Import, output: &mut Output) -> Result<(), Failure> {
    let Import { of, file, map, set, leave_out, country, sheet, dates, dry_run, rejects } = arguments;
    let pieces = pieces_of(&file).await?;
    let mut refused = Refused::new(rejects)?;
    let dates = dates.map(|order| match order {
        Dates::DayFirst => DateOrder::DayFirst,
        Dates::MonthFirst => DateOrder::MonthFirst,
    });
    let options = ImportOptions {
        map: map.join("\n"),
        set: set.join("\n"),
        leave_out: leave_out.join("\n"),
        country,
        sheet,
        dates,
        dry_run,
    };
    let body = ListFile { content_type: None, pieces };
    let Lines(answer) = admin.call(ImportAudience, of.path(), options, body).await?;
    let mut lines = AnswerLines { pieces: answer, held: BytesMut::new() };
    let mut mapping = None;
    while let Some(line) = lines.next().await? {
        match line {
            ImportLine::Mapping { format, header_line, columns } => {
                refused.header = columns.iter().map(|column| column.header.clone()).collect();
                output.say(&mapped(&format, header_line, &columns));
                mapping = Some(json!({ "format": format, "header_line": header_line, "columns": columns }));
            }
            ImportLine::Rejected { line, reason, detail, cells } => {
                refused.add((line, &reason, &detail), &cells, output)?;
            }
            ImportLine::Progress { rows } => output.progress(&format!("{rows} rows")),
            ImportLine::Failed { detail } => {
                refused.finish()?;
                let why = anyhow!("the import broke off: {detail}; it can be repeated");
                return Err(Failure::Failed(why));
            }
            ImportLine::Done { counts, dry_run } => {
                refused.finish()?;
                output.progress("");
                let result = json!({ "mapping": mapping, "counts": counts, "dry_run": dry_run });
                output.result(&result, || counted(&counts, dry_run));
                return Ok(());
            }
        }
    }
    Err(Failure::Failed(anyhow!(
        "the import broke off; the node's log names the cause, and it can be repeated"
    )))
}

/// Reads a file piece by piece.
async fn pieces_of(path: &Path) -> Result<Pieces, Failure> {
    let open = tokio::fs::File::open(path).await;
    let file = open.map_err(|error| Failure::Usage(anyhow!("{}: {error}", path.display())))?;
    let pieces = futures::stream::try_unfold(file, async |mut file| {
        let mut piece = BytesMut::with_capacity(PIECE);
        let read = file.read_buf(&mut piece).await?;
        Ok::<_, io::Error>((read > 0).then(|| (piece.freeze(), file)))
    });
    Ok(pieces.map_err(std::convert::Into::into).boxed())
}

/// Lines of an import's answer.
struct AnswerLines {
    pieces: Pieces,
    held: BytesMut,
}

impl AnswerLines {
    async fn next(&mut self) -> Result<Option<ImportLine>, Failure> {
        loop {
            if let Some(end) = self.held.iter().position(|byte| *byte == b'\n') {
                let line: Bytes = self.held.split_to(end + 1).freeze();
                let line = serde_json::from_slice(&line).context("the node's answer cannot be read");
                return line.map(Some).map_err(Failure::Failed);
            }
            if self.held.len() > LINE {
                return Err(Failure::Failed(anyhow!("a line of the node's answer is over {LINE} bytes")));
            }
            let piece = self.pieces.try_next().await;
            let piece = piece.map_err(|error| Failure::Failed(anyhow!("the import broke off: {error}")))?;
            match piece {
                Some(piece) => self.held.extend_from_slice(&piece),
                None => return Ok(None),
            }
        }
    }
}

/// Refused rows: printed, or written to a file.
struct Refused {
    file: Option<RejectFile<BufWriter<File>>>,
    header: Vec<String>,
    shown: usize,
}

impl Refused {
    fn new(path: Option<PathBuf>) -> Result<Self, Failure> {
        let create = |path: PathBuf| {
            let mut options = OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let file = options.open(&path);
            file.map_err(|error| Failure::Usage(anyhow!("{}: {error}; name a new file", path.display())))
        };
        let file = path.map(create).transpose()?;
        let file = file.map(|file| RejectFile::new(BufWriter::new(file)));
        Ok(Self { file, header: Vec::new(), shown: 0 })
    }

    fn add(
        &mut self,
        (line, reason, detail): (u64, &str, &str),
        cells: &[String],
        output: &mut Output,
    ) -> Result<(), Failure> {
        if let Some(file) = &mut self.file {
            return Ok(file.write(&self.header, (line, reason), cells)?);
        }
        self.shown += 1;
        if self.shown <= SHOWN {
            output.say(&format!("line {line}: {detail} ({reason})"));
        } else if self.shown == SHOWN + 1 {
            output.say("more rows are refused; --rejects FILE writes all of them to a file");
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Failure> {
        if let Some(file) = self.file.take() {
            file.finish()?;
        }
        Ok(())
    }
}

fn mapped(format: &str, header_line: u64, columns: &[ImportColumn]) -> String {
    let rows: Vec<_> = columns
        .iter()
        .map(|column| {
            let name = column.name.clone().unwrap_or_else(|| "(left out)".to_owned());
            let how = if column.guessed { "guessed" } else { "chosen" };
            [column.header.clone(), name, how.to_owned()]
        })
        .collect();
    format!("{format}, header on line {header_line}\n{}", table(["HEADER", "COLUMN", ""], &rows))
}

fn counted(counts: &ImportCounts, dry_run: bool) -> String {
    let ImportCounts {
        rows,
        added,
        changed,
        unchanged,
        duplicates,
        refused,
        erased,
        ambiguous,
        suppressed,
        consents,
    } = counts;
    if dry_run {
        let good = rows - refused - duplicates;
        return format!(
            "{rows} rows: {good} people, {duplicates} duplicates, {refused} refused; nothing was stored"
        );
    }
    format!(
        "{rows} rows: {added} added, {changed} changed, {unchanged} unchanged, {duplicates} duplicates, \
         {refused} refused, {erased} erased before and not brought back, \
         {ambiguous} whose number may be that of several contacts\n\
         {consents} new consents or opt-outs; {suppressed} members get no marketing: opted out or restricted"
    )
}
