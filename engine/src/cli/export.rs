//! Where a command writes an export to: standard output, or a file that is there only once it is complete.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use super::Failure;
use super::admin::Export;
use super::output::Output;

/// Where to write it.
#[derive(Debug, Args)]
pub(super) struct Into {
    /// Write it into this file, which only its owner may read; it must not be there. Without it, to standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Into {
    /// Writes what comes, as it comes.
    ///
    /// # Errors
    /// When it breaks off, or cannot be written.
    pub(super) async fn write(&self, mut export: Export, output: &mut Output) -> Result<(), Failure> {
        let Some(file) = &self.out else {
            while let Some(piece) = export.next().await? {
                output.raw(&piece)?;
            }
            return Ok(());
        };
        let failed = |what: &str| format!("{what} {}", file.display());
        if file.exists() {
            let why = anyhow::anyhow!("{} is there already; name another file", file.display());
            return Err(Failure::Usage(why));
        }
        let part = part_of(file);
        let written = write_part(&part, &mut export).await;
        let bytes = match written {
            Ok(bytes) => bytes,
            Err(failure) => {
                // What is not complete is not left about.
                drop(fs::remove_file(&part));
                return Err(failure);
            }
        };
        fs::rename(&part, file)
            .with_context(|| failed("it cannot be written to"))
            .map_err(Failure::Failed)?;
        output.result(&json!({ "file": file, "bytes": bytes }), || {
            format!("{bytes} bytes are written to {}", file.display())
        });
        Ok(())
    }
}

fn part_of(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    file.with_file_name(name)
}

async fn write_part(part: &Path, export: &mut Export) -> Result<u64, Failure> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let failed = || format!("{} cannot be written", part.display());
    let mut into = options.open(part).with_context(failed).map_err(Failure::Failed)?;
    let mut bytes = 0;
    while let Some(piece) = export.next().await? {
        into.write_all(&piece).with_context(failed).map_err(Failure::Failed)?;
        bytes += piece.len() as u64;
    }
    into.sync_all().with_context(failed).map_err(Failure::Failed)?;
    Ok(bytes)
}
