//! `heddle extract`: child process of a node that reads one file; see
//! [`heddle_connectors::knowledge::extract::process`].
//!
//! It reads no configuration, starts only one thread, and ends with the file.

use clap::Args;
use heddle_connectors::knowledge::extract::Kind;
use heddle_connectors::knowledge::extract::process::{self, Task};

use super::Failure;

/// Format and limits of the file on standard input.
#[derive(Debug, Args)]
pub struct Arguments {
    #[arg(long)]
    kind: Kind,
    #[arg(long)]
    charset: Option<String>,
    #[arg(long)]
    memory_bytes: u64,
    #[arg(long)]
    processor_seconds: u64,
}

/// Reads the file.
///
/// # Errors
/// [`Failure`]: the process cannot be limited, or its output is closed.
pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { kind, charset, memory_bytes, processor_seconds } = arguments;
    let task = Task { kind, charset, memory_bytes, processor_seconds };
    Ok(process::run(task, std::io::stdin().lock(), std::io::stdout().lock())?)
}
