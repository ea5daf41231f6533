//! Destination of an export: standard output, or a file that appears only once it is complete.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use futures::TryStreamExt as _;
use heddle_api::content::{BoxError, Pieces};
use serde_json::json;

use super::Failure;
use super::output::Output;

/// Destination option.
#[derive(Debug, Args)]
pub(super) struct Into {
    /// Write to this new file, readable only by its owner; standard output by default.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Into {
    /// Writes the export as it arrives.
    ///
    /// # Errors
    /// When the export breaks off, or cannot be written.
    pub(super) async fn write(&self, mut export: Pieces, output: &mut Output) -> Result<(), Failure> {
        let Some(file) = &self.out else {
            while let Some(piece) = export.try_next().await.map_err(broken_off)? {
                output.raw(&piece)?;
            }
            return Ok(());
        };
        let failed = |what: &str| format!("{what} {}", file.display());
        if file.exists() {
            let why = anyhow::anyhow!("{} exists already; name another file", file.display());
            return Err(Failure::Usage(why));
        }
        let part = part_of(file);
        let written = write_part(&part, &mut export).await;
        let bytes = match written {
            Ok(bytes) => bytes,
            Err(failure) => {
                // An incomplete file is removed.
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

fn broken_off(error: BoxError) -> Failure {
    Failure::Failed(
        anyhow::Error::from_boxed(error).context("the export broke off; the node's log names the cause"),
    )
}

fn part_of(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    file.with_file_name(name)
}

async fn write_part(part: &Path, export: &mut Pieces) -> Result<u64, Failure> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let failed = || format!("{} cannot be written", part.display());
    let mut into = options.open(part).with_context(failed).map_err(Failure::Failed)?;
    let mut bytes = 0;
    while let Some(piece) = export.try_next().await.map_err(broken_off)? {
        into.write_all(&piece).with_context(failed).map_err(Failure::Failed)?;
        bytes += piece.len() as u64;
    }
    into.sync_all().with_context(failed).map_err(Failure::Failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use heddle_schemas::ports::log::StoreError;

    use super::*;

    async fn write(file: &Path, pieces: Vec<Result<Bytes, BoxError>>) -> Result<(), Failure> {
        let into = Into { out: Some(file.to_owned()) };
        into.write(Box::pin(futures::stream::iter(pieces)), &mut Output::new(true)).await
    }

    #[tokio::test]
    async fn a_file_is_there_once_it_is_complete_and_is_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("export.json");
        let piece = |text: &'static str| Ok(Bytes::from_static(text.as_bytes()));
        let away = StoreError::Unavailable { detail: "away".into() };
        let broken = write(&file, vec![piece("{\"a\":"), Err(away.into())]).await;
        assert!(matches!(broken, Err(Failure::Failed(_))));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "an incomplete file is removed");

        write(&file, vec![piece("{\"a\":"), piece("1}")]).await.unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "{\"a\":1}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let again = write(&file, vec![piece("2")]).await;
        assert!(matches!(again, Err(Failure::Usage(_))));
        assert_eq!(fs::read_to_string(&file).unwrap(), "{\"a\":1}");
    }
}
