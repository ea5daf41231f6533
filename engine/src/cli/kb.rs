//! `heddle kb`: a tenant's documents.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::{Args, Subcommand};
use heddle_connectors::knowledge::document_from_file;
use heddle_schemas::config::Config;
use heddle_schemas::id::TenantId;
use heddle_schemas::ports::knowledge::{Document, DocumentSummary, Passage};

use super::Failure;
use super::admin::{Admin, Where};
use super::output::{Output, table};

/// What to do with documents.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    place: Where,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Add files, or the files in folders: .txt and .md. A document of the same name is replaced.
    Add {
        /// The tenant's id.
        tenant: TenantId,
        /// Files or folders.
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// List the documents.
    List {
        /// The tenant's id.
        tenant: TenantId,
    },
    /// Remove a document.
    Remove {
        /// The tenant's id.
        tenant: TenantId,
        /// The document's name, as `kb list` shows it.
        document: String,
    },
    /// Search the documents, as the agent does.
    Search {
        /// The tenant's id.
        tenant: TenantId,
        /// Any text.
        query: String,
        /// Passages at most.
        #[arg(long, default_value_t = 5)]
        limit: usize,
    },
}

/// Does it.
///
/// # Errors
/// [`Failure`].
pub async fn run(config: Config, arguments: Arguments, output: &mut Output) -> Result<(), Failure> {
    let documents = match &arguments.action {
        Action::Add { paths, .. } => read(paths)?,
        _ => Vec::new(),
    };
    let admin = Admin::find(config, &arguments.place).await?;
    let done = act(&admin, arguments.action, documents, output).await;
    admin.close().await;
    done
}

async fn act(
    admin: &Admin,
    action: Action,
    documents: Vec<Document>,
    output: &mut Output,
) -> Result<(), Failure> {
    match action {
        Action::Add { tenant, .. } => {
            let mut added = Vec::with_capacity(documents.len());
            for document in documents {
                added.push(admin.add(&tenant, document).await?);
            }
            output.result(&added, || listed(&added));
        }
        Action::List { tenant } => {
            let documents = admin.documents(&tenant).await?;
            output.result(&documents, || listed(&documents));
        }
        Action::Remove { tenant, document } => {
            admin.remove(&tenant, &document).await?;
            output.say(&format!("{document} is removed"));
        }
        Action::Search { tenant, query, limit } => {
            let found = admin.search(&tenant, &query, limit).await?;
            output.result(&found, || match found.is_empty() {
                true => "nothing matches".to_owned(),
                false => found.iter().map(shown).collect::<Vec<_>>().join("\n"),
            });
        }
    }
    Ok(())
}

/// A passage with its score and where it stands: a title that is the first heading too is said once.
fn shown(passage: &Passage) -> String {
    let title = Some(&passage.title).filter(|title| passage.headings.first() != Some(title));
    let place: Vec<_> = title.into_iter().chain(&passage.headings).map(String::as_str).collect();
    let text = passage.text.replace('\n', "\n      ");
    format!("{:.2}  {}  ({})\n      {text}", passage.score, passage.document, place.join(" > "))
}

fn listed(documents: &[DocumentSummary]) -> String {
    let rows: Vec<_> = documents
        .iter()
        .map(|document| {
            [
                document.id.clone(),
                document.title.clone(),
                document.bytes.to_string(),
                document.passages.to_string(),
            ]
        })
        .collect();
    table(["DOCUMENT", "TITLE", "BYTES", "PASSAGES"], &rows)
}

/// Reads every file before any is added, so that a wrong one changes nothing. In a folder, files of other
/// kinds and hidden ones are passed over; a file that is named must be one that is taken.
fn read(paths: &[PathBuf]) -> Result<Vec<Document>, Failure> {
    let usage = |path: &Path, why: String| Failure::Usage(anyhow!("{}: {why}", path.display()));
    let mut files: Vec<(String, PathBuf)> = Vec::new();
    for path in paths {
        let about = std::fs::metadata(path).map_err(|error| usage(path, error.to_string()))?;
        if about.is_dir() {
            walk(path, path, &mut files).map_err(|error| usage(path, error.to_string()))?;
        } else {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            files.push((name.unwrap_or_default(), path.clone()));
        }
    }
    let mut names = BTreeSet::new();
    let mut documents = Vec::new();
    let mut faults = Vec::new();
    for (name, path) in files {
        if !names.insert(name.clone()) {
            faults.push(format!(
                "{}: another file is named {name:?} too; one would replace the other",
                path.display()
            ));
            continue;
        }
        let read = std::fs::read(&path).map_err(|error| error.to_string());
        match read.and_then(|bytes| document_from_file(&name, &bytes).map_err(|error| error.to_string())) {
            Ok(document) => documents.push(document),
            Err(why) => faults.push(format!("{}: {why}", path.display())),
        }
    }
    if documents.is_empty() && faults.is_empty() {
        faults.push("there is no .txt or .md file there".to_owned());
    }
    if faults.is_empty() { Ok(documents) } else { Err(Failure::Usage(anyhow!("{}", faults.join("\n")))) }
}

fn walk(root: &Path, folder: &Path, files: &mut Vec<(String, PathBuf)>) -> std::io::Result<()> {
    let mut entries = std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let kind = entry.file_type()?;
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        let taken = path
            .extension()
            .and_then(|end| end.to_str())
            .is_some_and(|end| ["txt", "md", "markdown"].contains(&end.to_ascii_lowercase().as_str()));
        // Links are not followed: they may lead out of the folder, or around in it.
        if kind.is_dir() && !hidden {
            walk(root, &path, files)?;
        } else if kind.is_file() && !hidden && taken {
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            files.push((name, path));
        }
    }
    Ok(())
}
