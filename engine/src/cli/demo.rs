//! `heddle demo`: runs an engine on a data folder of its own through the scenario of the crate `heddle-demo`. It ends
//! by itself, with exit code 0 only if the summary's checks hold.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use heddle_connectors::clock::SystemClock;
use heddle_demo::{Demo, Engine, EngineCounts, Options, Show};
use heddle_schemas::config::Config;
use heddle_schemas::network::Networks;
use heddle_schemas::topic::{Topic, TopicPartition};

use super::Failure;
use super::admin::{Admin, Where};
use super::output::Output;
use crate::admin_token;
use crate::service::Service;

/// Arguments of `heddle demo`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Number of concurrent customers.
    #[arg(long, default_value = "12")]
    customers: NonZeroUsize,
    /// Number of questions per customer.
    #[arg(long, default_value = "4")]
    questions: NonZeroUsize,
    /// Seed of the questions asked and of the webhooks sent twice.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keep the engine running after the customers have finished, until it is interrupted.
    #[arg(long)]
    keep: bool,
    /// Data folder of the engine; a temporary folder by default.
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// Listen address of the engine.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

/// Runs the demo.
///
/// # Errors
/// When a part cannot be started, or a check of the summary fails.
pub async fn run(config: Config, arguments: Arguments, output: &mut Output) -> Result<(), Failure> {
    // Dropped last: the folder is removed once everything in it is closed.
    let folder = match &arguments.data_dir {
        Some(folder) => Folder::Kept(folder.clone()),
        None => Folder::Passing(tempfile::Builder::new().prefix("heddle-demo-").tempdir()?),
    };
    let config = configured(config, &arguments, &folder);
    let Arguments { customers, questions, seed, .. } = arguments;
    let demo = Demo::start(Options { customers, questions, seed }, Arc::new(SystemClock)).await?;
    let service = Service::start(config.clone()).await?;
    let target = format!("http://{}", service.address);
    let console = format!("http://{}", service.admin_address);
    let token = admin_token::path(&config);
    let admin = Admin::find(config, &Where::at(&console)).await?;
    demo.prepare(&admin).await?;
    admin.close().await;
    output.say(&format!(
        "heddle demo: engine at {target}, simulated Graph API at {}, {customers} customers, {questions} questions each\n",
        demo.graph_api()
    ));
    let played = demo.play(&target, &service, show(output)).await?;
    output.result(&played.summary, || played.summary.to_string());
    if arguments.keep {
        output.say(&format!(
            "\nStill running: console at {console}/ , metrics at {console}/metrics, admin token in {}. Ctrl-C ends it.",
            token.display()
        ));
        // Where signals are not supported, the demo ends now.
        drop(tokio::signal::ctrl_c().await);
    }
    service.stop().await;
    drop(folder);
    match played.summary.broken() {
        0 => Ok(()),
        broken => Err(Failure::Failed(anyhow::anyhow!("{broken} of the demo's checks failed"))),
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
    // Its admin address is beside its own.
    let http =
        heddle_schemas::config::Http { listen: arguments.listen, admin_listen: None, ..config.http.clone() };
    // Its provider is simulated on this machine.
    let mut security = config.security.clone();
    security.private_addresses.extend(&Networks::loopback());
    Config { data_dir, http, security, ..config }
}

fn show(output: &Output) -> Show {
    let mut lines = Output::new(output.is_json());
    Show { colours: output.is_terminal(), bar: !output.is_json(), say: Box::new(move |line| lines.say(line)) }
}

impl Engine for Service {
    async fn counts(&self) -> EngineCounts {
        let (node, metrics) = (&self.node, &self.node.ports.metrics);
        EngineCounts {
            duplicates: metrics.duplicates(),
            turns: metrics.turns(),
            unknown_sends: metrics.unknown_total(),
            dead_letters: dead_letters(self).await,
            unsettled: node.unsettled(Topic::Inbound).await + node.unsettled(Topic::Outbound).await,
        }
    }
}

async fn dead_letters(service: &Service) -> u64 {
    let log = &service.node.ports.log;
    let mut letters = 0u64;
    for partition in 0..log.partitions(Topic::Dlq) {
        let end = log.end(TopicPartition { topic: Topic::Dlq, partition }).await;
        // A partition that cannot be read can hold any number.
        letters = letters.saturating_add(end.unwrap_or(u64::MAX));
    }
    letters
}

impl From<heddle_simulator::Error> for Failure {
    fn from(error: heddle_simulator::Error) -> Self {
        Self::Failed(error.into())
    }
}
