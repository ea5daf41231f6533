//! Destination of an export: standard output, or a file that appears only once it is complete.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use futures::TryStreamExt as _;
use heddle_api::content::{BoxError, Pieces};
use heddle_connectors::keys::private_file::PrivateFile;
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
        // Also a link that leads nowhere.
        if file.symlink_metadata().is_ok() {
            return Err(exists(file));
        }
        let bytes = write_new(file, &mut export).await?;
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

fn exists(file: &Path) -> Failure {
    Failure::Usage(anyhow::anyhow!("{} exists already; name another file", file.display()))
}

/// Writes a new file of the owner's. An incomplete one is removed, and what others prepared at its name is refused.
async fn write_new(file: &Path, export: &mut Pieces) -> Result<u64, Failure> {
    let failed = || format!("{} cannot be written", file.display());
    let mut into = PrivateFile::begin(file).with_context(failed).map_err(Failure::Failed)?;
    let mut bytes = 0;
    while let Some(piece) = export.try_next().await.map_err(broken_off)? {
        into.write(&piece).with_context(failed).map_err(Failure::Failed)?;
        bytes += piece.len() as u64;
    }
    match into.finish() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(exists(file)),
        done => done.with_context(failed).map_err(Failure::Failed).map(|()| bytes),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

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

    #[cfg(unix)]
    #[tokio::test]
    async fn what_somebody_else_prepared_gets_no_export() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let piece = || vec![Ok(Bytes::from_static(b"secret"))];
        fs::write(path("victim"), "before").unwrap();
        symlink(path("victim"), path("link.json")).unwrap();
        symlink(path("nowhere"), path("dangling.json")).unwrap();
        for prepared in ["link.json", "dangling.json"] {
            assert!(matches!(write(&path(prepared), piece()).await, Err(Failure::Usage(_))), "{prepared}");
        }
        // The name that builds before used while they wrote.
        fs::write(path("export.json.part"), "").unwrap();
        fs::set_permissions(path("export.json.part"), fs::Permissions::from_mode(0o666)).unwrap();
        write(&path("export.json"), piece()).await.unwrap();
        assert_eq!(fs::metadata(path("export.json")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read(path("export.json.part")).unwrap(), b"");
        assert_eq!(fs::read(path("victim")).unwrap(), b"before");
        assert!(!path("nowhere").exists());
    }
}
