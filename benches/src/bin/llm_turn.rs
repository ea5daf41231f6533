//! Turns that wait for a language model of 500 ms, see [`heddle_benches::turn::waiting`]: their number at once, the
//! memory of one, their number a second, and the engine's part of a call's time at half load.
//!
//! The model sleeps in the process (the engine's own cost), or is a simulated provider that is called over HTTP on
//! loopback, in a process of its own which this one starts and ends. A call over HTTP takes a socket in either
//! process: `ulimit -n` bounds how many are at once.
//!
//! Prints one JSON object. `llm_turn --help` lists the options; `llm_turn --provide` is the provider alone.

#![expect(clippy::print_stdout, reason = "what it prints is what it is for")]

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use heddle_benches::cluster::Servers;
use heddle_benches::turn::waiting::{Model, Waiting, WaitingTurns};
use heddle_connectors::clock::SystemClock;
use heddle_connectors::embedded::{self, Embedded};
use heddle_schemas::config::{LogLevel, Telemetry};
use heddle_schemas::ports::log::Log;
use heddle_schemas::ports::state::State;
use heddle_simulator::llm::{LlmApi, Options};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};

// As the binary has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Store {
    Embedded,
    Cluster,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Reached {
    Sleep,
    Http,
}

#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    waiting: Waiting,
    /// Connection to the model.
    #[arg(long, value_enum, default_value = "sleep")]
    model: Reached,
    /// Embedded, or on Kafka and CQL servers that serve nothing else.
    #[arg(long, value_enum, default_value = "embedded")]
    store: Store,
    #[command(flatten)]
    servers: Servers,
    /// Serve only as the provider: prints its address, and ends with standard input.
    #[arg(long)]
    provide: bool,
    /// Address that the provider listens on.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    // Faults are logged beside the figures.
    let level = LogLevel::Warn;
    heddle_engine::telemetry::install(&Telemetry { level, ..Telemetry::default() })?;
    if arguments.provide {
        return provide(&arguments).await;
    }
    let (_provider, model) = match arguments.model {
        Reached::Sleep => (None, Model::Sleeps),
        Reached::Http => {
            let (provider, base) = provider(&arguments.waiting).await?;
            (Some(provider), Model::Called(base))
        }
    };
    let mut result = match arguments.store {
        Store::Embedded => {
            let folder = tempfile::tempdir()?;
            let partitions = arguments.waiting.partitions;
            let options =
                embedded::Options { partitions, ..embedded::Options::new(folder.path().join("data")) };
            let store = Embedded::open(options, Arc::new(SystemClock))?;
            let result = measure(arguments.waiting, model, store.clone(), store.clone()).await?;
            store.close().await;
            result
        }
        Store::Cluster => {
            let opened = arguments.servers.open(arguments.waiting.partitions).await?;
            let store = opened.store;
            let result = measure(arguments.waiting, model, store.clone(), store.clone()).await?;
            store.close().await;
            result
        }
    };
    result["bench"] = "llm_turn".into();
    result["store"] = format!("{:?}", arguments.store).to_lowercase().into();
    println!("{}", serde_json::to_string_pretty(&result)?);
    Ok(())
}

async fn measure(
    waiting: Waiting,
    model: Model,
    log: Arc<dyn Log>,
    state: Arc<dyn State>,
) -> anyhow::Result<serde_json::Value> {
    WaitingTurns::open(waiting, model, log, state, None).await?.measure().await
}

/// Serves as the provider until its standard input is closed.
async fn provide(arguments: &Arguments) -> anyhow::Result<()> {
    let latency = Duration::from_millis(arguments.waiting.latency);
    let options = Options {
        listen: arguments.listen,
        keys: [("sk".to_owned(), None)].into(),
        latency: latency..latency,
        keeps_calls: false,
        ..Options::default()
    };
    let api = LlmApi::start(options, Arc::new(SystemClock)).await?;
    println!("{}", api.api_base());
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    println!("{}", serde_json::to_string_pretty(&api.account("sk"))?);
    Ok(())
}

/// Starts a provider, which ends with this process.
async fn provider(waiting: &Waiting) -> anyhow::Result<(Child, String)> {
    let mut provider = Command::new(std::env::current_exe()?)
        .args(["--provide", "--latency", &waiting.latency.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let said = provider.stdout.take().context("its output is read")?;
    let base = BufReader::new(said).lines().next_line().await?;
    Ok((provider, base.context("the provider ended before it listened")?))
}
