//! `heddle kb`: a tenant's documents.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::{Args, Subcommand};
use heddle_api::content::{Upload, whole};
use heddle_api::documents::{
    AddFile, ListDocuments, OfDocument, OfFile, RemoveDocument, Search, SearchDocuments,
};
use heddle_api::operation::NoParameters;
use heddle_api::tenants::OfTenant;
use heddle_api::{List, Nothing};
use heddle_connectors::knowledge::crawl::{self, Crawl, Visit};
use heddle_connectors::knowledge::extract::process as extraction;
use heddle_connectors::knowledge::extract::{File, Kind, TAKEN};
use heddle_schemas::config::Config;
use heddle_schemas::id::TenantId;
use heddle_schemas::ports::knowledge::{DocumentSummary, Passage};

use super::Failure;
use super::admin::{Admin, Where};
use super::output::{Output, table};

/// Arguments of `heddle kb`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    place: Where,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Add files, folders of files, or the pages of sites: .txt, .md, .html, .pdf and .docx. Replaces documents
    /// of the same name or address.
    Add {
        /// The tenant's id.
        tenant: TenantId,
        /// Files, folders, or addresses that begin with http:// or https://. The pages of a site are read one
        /// after another, as its robots.txt permits, and from public addresses only.
        #[arg(required = true)]
        sources: Vec<String>,
        /// Maximum number of pages of a site.
        #[arg(long, default_value_t = crawl::Options::default().max_pages)]
        max_pages: NonZeroUsize,
        /// Maximum number of links from the first page of a site to another one.
        #[arg(long, default_value_t = crawl::Options::default().max_depth)]
        max_depth: usize,
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
        /// Maximum number of passages.
        #[arg(long, default_value_t = 5)]
        limit: u64,
    },
}

/// Runs the command.
///
/// # Errors
/// [`Failure`].
pub async fn run(config: Config, arguments: Arguments, output: &mut Output) -> Result<(), Failure> {
    let sources = match &arguments.action {
        Action::Add { sources, .. } => Sources::find(sources)?,
        _ => Sources::default(),
    };
    let admin = Admin::find(config, &arguments.place).await?;
    let done = act(&admin, arguments.action, sources, output).await;
    admin.close().await;
    done
}

async fn act(admin: &Admin, action: Action, sources: Sources, output: &mut Output) -> Result<(), Failure> {
    match action {
        Action::Add { tenant, max_pages, max_depth, .. } => {
            let options = crawl::Options { max_pages, max_depth, ..crawl::Options::default() };
            let mut adding = Adding { admin, tenant, added: Vec::new(), refused: Vec::new() };
            let done = adding.all(sources, &options, output).await;
            let Adding { added, refused, .. } = adding;
            // Added documents are reported even after a fault.
            if !added.is_empty() {
                output.result(&added, || listed(&added));
            }
            done?;
            if !refused.is_empty() {
                return Err(Failure::Usage(anyhow!("{}", refused.join("\n"))));
            }
        }
        Action::List { tenant } => {
            let path = OfTenant { tenant };
            let List { items: documents } = admin.call(ListDocuments, path, NoParameters {}, Nothing).await?;
            output.result(&documents, || listed(&documents));
        }
        Action::Remove { tenant, document } => {
            let which = OfDocument { id: document.clone() };
            admin.call(RemoveDocument, OfTenant { tenant }, which, Nothing).await?;
            output.say(&format!("{document} is removed"));
        }
        Action::Search { tenant, query, limit } => {
            let search = Search { query, limit: Some(limit) };
            let path = OfTenant { tenant };
            let List { items: found } = admin.call(SearchDocuments, path, NoParameters {}, search).await?;
            output.result(&found, || match found.is_empty() {
                true => "nothing matches".to_owned(),
                false => found.iter().map(shown).collect::<Vec<_>>().join("\n"),
            });
        }
    }
    Ok(())
}

/// Formats a passage with its score and headings; a title that equals the first heading is printed once.
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

/// State of an `add` in progress.
struct Adding<'a> {
    admin: &'a Admin,
    tenant: TenantId,
    added: Vec<DocumentSummary>,
    refused: Vec<String>,
}

impl Adding<'_> {
    async fn all(
        &mut self,
        sources: Sources,
        options: &crawl::Options,
        output: &mut Output,
    ) -> Result<(), Failure> {
        for (name, path) in sources.files {
            let bytes = std::fs::read(&path).map_err(|error| usage(&path, error))?;
            self.file(File { id: name, title: None, content_type: None, bytes: bytes.into() }).await?;
        }
        for site in sources.sites {
            self.site(&site, options, output).await?;
        }
        Ok(())
    }

    /// Adds one file. A refusal is recorded, and does not stop the next file.
    async fn file(&mut self, file: File) -> Result<(), Failure> {
        let File { id, title, content_type, bytes } = file;
        let path = OfTenant { tenant: self.tenant.clone() };
        let body = Upload { content_type, pieces: whole(bytes) };
        match self.admin.call(AddFile, path, OfFile { id, title }, body).await {
            Ok(summary) => self.added.push(summary),
            Err(Failure::Usage(why)) => self.refused.push(why.to_string()),
            Err(failed) => return Err(failed),
        }
        Ok(())
    }

    async fn site(
        &mut self,
        url: &str,
        options: &crawl::Options,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let before = self.added.len() + self.refused.len();
        let mut crawl = match Crawl::begin(url, options.clone()).await {
            Ok(crawl) => crawl,
            Err(error) => {
                self.refused.push(error.to_string());
                return Ok(());
            }
        };
        while let Some(visit) = crawl.next().await {
            match visit {
                Visit::Found(file) => self.file(file).await?,
                Visit::Skipped { url, why } => output.say(&format!("left out {url}: {why}")),
                Visit::Stopped { why } => output.say(&format!("{url}: {why}")),
            }
        }
        if self.added.len() + self.refused.len() == before {
            self.refused.push(format!("{url}: none of its pages can be added"));
        }
        Ok(())
    }
}

/// Sources to add.
#[derive(Default)]
struct Sources {
    /// Files with the names of their documents.
    files: Vec<(String, PathBuf)>,
    sites: Vec<String>,
}

impl Sources {
    /// Finds every file before any is added, so that a wrong name changes nothing. In a folder, files of other
    /// formats and hidden ones are skipped; a file named explicitly must have a supported format.
    fn find(sources: &[String]) -> Result<Self, Failure> {
        let mut found = Self::default();
        let mut faults = Vec::new();
        for source in sources {
            if source.starts_with("http://") || source.starts_with("https://") {
                found.sites.push(source.clone());
                continue;
            }
            let path = Path::new(source);
            let about = std::fs::metadata(path).map_err(|error| usage(path, error))?;
            if about.is_dir() {
                walk(path, path, &mut found.files).map_err(|error| usage(path, error))?;
            } else {
                let name =
                    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                if Kind::of_name(&name).is_none() {
                    faults.push(format!("{source}: {TAKEN}"));
                }
                found.files.push((name, path.to_owned()));
            }
        }
        let most = extraction::Options::default().file_bytes.get() as u64;
        let mut names = BTreeSet::new();
        for (name, path) in &found.files {
            if !names.insert(name) {
                let path = path.display();
                faults.push(format!(
                    "{path}: another file is also named {name:?}; one would replace the other"
                ));
            }
            let bytes = std::fs::metadata(path).map_err(|error| usage(path, error))?.len();
            if bytes > most {
                faults.push(format!("{}: it has {bytes} bytes; the maximum is {most}", path.display()));
            }
        }
        if found.files.is_empty() && found.sites.is_empty() {
            faults.push(format!("no such file; {TAKEN}"));
        }
        if faults.is_empty() { Ok(found) } else { Err(Failure::Usage(anyhow!("{}", faults.join("\n")))) }
    }
}

fn usage(path: &Path, error: std::io::Error) -> Failure {
    Failure::Usage(anyhow!("{}: {error}", path.display()))
}

fn walk(root: &Path, folder: &Path, files: &mut Vec<(String, PathBuf)>) -> std::io::Result<()> {
    let mut entries = std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let kind = entry.file_type()?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let hidden = name.starts_with('.');
        // Symbolic links are not followed: they can lead out of the folder, or form a cycle.
        if kind.is_dir() && !hidden {
            walk(root, &path, files)?;
        } else if kind.is_file() && !hidden && Kind::of_name(&name).is_some() {
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            files.push((name, path));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::{Arc, Mutex};

    use axum::extract::Query;
    use axum::routing::{get, post};
    use axum::{Json, Router};
    use heddle_api::client::Client;
    use heddle_schemas::ports::knowledge::DocumentFormat;
    use heddle_schemas::sealed::Secret;

    use super::*;
    use crate::http::problem::Refusal;

    /// Starts a site, and a node that accepts every page but the one of staff.
    async fn stand_in(taken: Arc<Mutex<Vec<String>>>) -> String {
        let html = |text: &'static str| get(async move || ([("content-type", "text/html")], text));
        let take = async move |Query(file): Query<OfFile>, body: String| {
            if body.contains("<p>staff") {
                let status = axum::http::StatusCode::UNPROCESSABLE_ENTITY;
                let detail = format!("{:?} was refused: of staff", file.id);
                return Err(Refusal::new(status, "document_refused", detail));
            }
            taken.lock().unwrap().push(file.id.clone());
            let (title, format) = (body, DocumentFormat::Markdown);
            Ok(Json(DocumentSummary { id: file.id, title, format, bytes: 1, passages: 1 }))
        };
        let routes = Router::new()
            .route("/", html("<a href=/hours>hours</a><a href=/staff>staff</a>"))
            .route("/hours", html("<p>Nine to five"))
            .route("/staff", html("<p>staff"))
            .route("/v1/tenants/acme/documents/file", post(take));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        url
    }

    #[tokio::test]
    async fn the_pages_of_a_site_are_added_and_one_refused_page_keeps_no_other_away() {
        let taken = Arc::new(Mutex::new(Vec::new()));
        let url = stand_in(taken.clone()).await;
        let admin = Admin::Remote(Client::new(&url, Secret::default(), false).unwrap());
        let mut adding =
            Adding { admin: &admin, tenant: "acme".parse().unwrap(), added: Vec::new(), refused: Vec::new() };
        let options = crawl::Options {
            addresses: Arc::new(|address: IpAddr| address.is_loopback()),
            pause: std::time::Duration::ZERO,
            ..crawl::Options::default()
        };
        adding.site(&url, &options, &mut Output::new(true)).await.unwrap();
        assert_eq!(*taken.lock().unwrap(), [format!("{url}/"), format!("{url}/hours")]);
        assert_eq!(adding.added.len(), 2);
        assert_eq!(adding.refused, [format!("\"{url}/staff\" was refused: of staff")]);
        // A source that must not be reached is refused, and the command continues.
        adding.site(&url, &crawl::Options::default(), &mut Output::new(true)).await.unwrap();
        assert!(adding.refused[1].contains("public internet"), "{:?}", adding.refused);
    }

    #[test]
    fn files_of_a_folder_are_named_by_their_path_and_wrong_ones_told_before_any_is_added() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("more")).unwrap();
        for name in ["a.md", "more/b.PDF", ".hidden.md", "logo.png"] {
            std::fs::write(path(name), "x").unwrap();
        }
        let given = |path: PathBuf| path.to_str().unwrap().to_owned();
        let found = Sources::find(&[given(folder.path().to_owned()), "https://acme.example".into()]).unwrap();
        let names: Vec<_> = found.files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((names, found.sites.len()), (vec!["a.md", "more/b.PDF"], 1));
        let wrong =
            Sources::find(&[given(path("logo.png")), given(path("a.md")), given(folder.path().to_owned())]);
        let Err(Failure::Usage(why)) = wrong else { panic!("taken") };
        let why = why.to_string();
        assert!(
            why.contains("logo.png: .txt, .md") && why.contains("another file is also named \"a.md\""),
            "{why}"
        );
    }
}
