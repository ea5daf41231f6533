//! `heddle demo`: the main job, shown: an engine, a simulated WhatsApp Cloud API and its customers.
//!
//! Everything is real but the people: the engine serves on a loopback address over a data folder of its own,
//! the tenant and its documents go in through the admin API, the provider is an HTTP server that signs,
//! duplicates and retries webhooks, enforces the documented limits and keeps its own account. The demo ends
//! by itself, and well only if the summary's checks hold.
//!
//! # Layout
//! - [`script`]: the tenant, its documents and what the customers ask.
//! - [`screen`]: what is shown while it runs.
//! - [`summary`]: what it came to, and the checks.

mod screen;
mod script;
mod summary;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use heddle_connectors::clock::SystemClock;
use heddle_schemas::config::Config;
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::topic::Topic;

use self::screen::Screen;
use self::summary::Summary;
use crate::cli::Failure;
use crate::cli::admin::{Admin, Where};
use crate::cli::output::Output;
use crate::service::Service;
use crate::simulator::customers::{self, Customers};
use crate::simulator::fault::Faults;
use crate::simulator::graph::{self, GraphApi};
use crate::simulator::limits::Limits;
use crate::simulator::webhooks::{self, Webhooks};

/// How long the engine may take to settle what is left when the last customer has gone.
const QUIET: Duration = Duration::from_secs(30);

/// How the demo is played.
#[derive(Debug, Args)]
pub struct Arguments {
    /// How many customers write at once.
    #[arg(long, default_value = "12")]
    customers: NonZeroUsize,
    /// How many questions each asks.
    #[arg(long, default_value = "4")]
    questions: NonZeroUsize,
    /// Decides who asks what, and what is sent twice.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Leave it running when the customers have gone, until it is interrupted.
    #[arg(long)]
    keep: bool,
    /// Where the engine keeps its data; without it a folder that goes with the demo.
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// Where the engine listens.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

/// Plays the demo.
///
/// # Errors
/// When something cannot be started, or a check of the summary does not hold.
pub async fn run(config: Config, arguments: Arguments, output: &mut Output) -> Result<(), Failure> {
    // Dropped last: the folder goes when everything in it is closed.
    let folder = match &arguments.data_dir {
        Some(folder) => Folder::Kept(folder.clone()),
        None => Folder::Passing(tempfile::Builder::new().prefix("heddle-demo-").tempdir()?),
    };
    let config = configured(config, &arguments, &folder);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let graph = provider(&arguments, clock.clone()).await?;
    let service = Service::start(config.clone()).await?;
    let target = format!("http://{}", service.address);
    prepare(config, &target, &graph).await?;

    let hooks =
        webhooks::Options { seed: arguments.seed, ..webhooks::Options::new(&target, script::secrets()) };
    let failed = |error: crate::simulator::Error| Failure::Failed(error.into());
    let webhooks = Webhooks::start(hooks, &graph, clock.clone()).map_err(failed)?;
    let cast = customers::Options {
        customers: arguments.customers,
        questions: arguments.questions,
        start: Duration::from_secs(1),
        gap: Duration::from_millis(20)..Duration::from_millis(150),
        think: Duration::from_millis(100)..Duration::from_millis(800),
        seed: arguments.seed,
        ..customers::Options::new(script::accounts(), script::questions())
    };
    output.say(&format!(
        "heddle demo: engine at {target}, simulated Graph API at {}, {} customers, {} questions each\n",
        graph.api_base(),
        arguments.customers,
        arguments.questions
    ));
    let (scenes, shown) = tokio::sync::mpsc::unbounded_channel();
    let customers = Customers::start(cast, &graph, &webhooks, clock.clone(), Some(scenes)).map_err(failed)?;
    let screen = Screen::start(output, shown, customers.progress().1);
    customers.done().await;
    let quiet = quieten(&service, &webhooks).await;
    screen.stop().await;

    let summary = Summary::of(&service, &customers.report(), quiet).await;
    output.result(&summary, || summary.to_string());
    if arguments.keep {
        output.say(&format!(
            "\nStill running: console at {target}/ , metrics at {target}/metrics . Ctrl-C ends it."
        ));
        // Where no signal can be waited for, it ends now.
        drop(tokio::signal::ctrl_c().await);
    }
    drop(customers);
    service.stop().await;
    drop(folder);
    match summary.broken() {
        0 => Ok(()),
        broken => Err(Failure::Failed(anyhow::anyhow!("{broken} of the demo's checks do not hold"))),
    }
}

enum Folder {
    Kept(PathBuf),
    Passing(tempfile::TempDir),
}

fn configured(config: Config, arguments: &Arguments, folder: &Folder) -> Config {
    let data_dir = match folder {
        Folder::Kept(folder) => folder.clone(),
        Folder::Passing(folder) => folder.path().to_owned(),
    };
    let http = heddle_schemas::config::Http { listen: arguments.listen, ..config.http.clone() };
    Config { data_dir, http, ..config }
}

async fn provider(arguments: &Arguments, clock: Arc<dyn Clock>) -> Result<GraphApi, Failure> {
    let options = graph::Options {
        numbers: script::tokens(),
        limits: Some(Limits::default()),
        faults: Faults {
            latency: Duration::from_millis(20)..Duration::from_millis(120),
            ..Faults::default()
        },
        seed: arguments.seed,
        ..graph::Options::default()
    };
    GraphApi::start(options, clock).await.map_err(|error| Failure::Failed(error.into()))
}

/// Applies the tenant and adds its documents, as an operator would.
async fn prepare(config: Config, target: &str, graph: &GraphApi) -> Result<(), Failure> {
    let admin = Admin::find(config, &Where::at(target)).await?;
    let tenant = admin.apply(script::tenant(&graph.api_base())).await?;
    for document in script::documents() {
        admin.add(&tenant.id, document).await?;
    }
    admin.close().await;
    Ok(())
}

/// Waits until every webhook is taken and every record settled. Returns whether that came to pass.
async fn quieten(service: &Service, webhooks: &Webhooks) -> bool {
    let quiet = async {
        loop {
            webhooks.idle().await;
            let waiting =
                service.node.unsettled(Topic::Inbound).await + service.node.unsettled(Topic::Outbound).await;
            if waiting == 0 && webhooks.open() == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(QUIET, quiet).await.is_ok()
}

/// Numbers by account: shorthand of the script.
type ByAccount<T> = HashMap<heddle_schemas::id::AccountId, T>;
