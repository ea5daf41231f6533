//! Durable turns a second of the whole engine on the embedded default: record in the log, conversation's
//! state, reply published; see [`heddle_benches::turn`]. The latency at half load holds two group commits.
//!
//! Prints one JSON object. `embedded_turn --help` lists the options.

#![expect(clippy::print_stdout, reason = "what it prints is what it is for")]

use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;
use heddle_benches::turn::{Load, Turns};
use heddle_connectors::clock::SystemClock;
use heddle_connectors::embedded::{self, Embedded};

// As the binary has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    load: Load,
    /// Data folder; a temporary one by default.
    #[arg(long)]
    dir: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { load, dir } = Arguments::parse();
    let folder = tempfile::tempdir()?;
    let dir = dir.unwrap_or_else(|| folder.path().join("data"));
    let options = embedded::Options { partitions: load.partitions, ..embedded::Options::new(dir) };
    let store = Embedded::open(options, Arc::new(SystemClock))?;
    let syncs = store.clone();
    let syncs = Box::new(move || syncs.stats().frames());
    let turns = Arc::new(Turns::open(load, store.clone(), store.clone(), Some(syncs)).await?);
    let mut result = turns.measure().await?;
    result["bench"] = "embedded_turn".into();
    println!("{}", serde_json::to_string_pretty(&result)?);
    store.close().await;
    Ok(())
}
