//! Verification of promises: the actors' checks, and a search of the embedded store's files for plaintext.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use heddle_actors::privacy::verification::{PlaintextProbes, Prover};
use heddle_api::problem::ErrorKind;
use heddle_schemas::promise::{Promise, Proof, Proofs};
use heddle_schemas::tenant::Tenant;

use super::{OperationError, Operations};

/// Maximum number of the newest records read of each partition of the log.
const RECORDS: u64 = 50_000;
/// Maximum bytes of files searched, the newest files first.
const FILES: u64 = 8 << 30;

/// Configured limits that promises are verified against.
#[derive(Debug, Clone)]
pub struct Proving {
    /// Maximum age of a processed record in the log.
    pub oldest_record: Duration,
    /// Time to live of the markers of seen messages.
    pub marker_ttl: Duration,
    /// Folder of the embedded store; none for another store.
    pub files: Option<PathBuf>,
}

impl Operations {
    /// Verifies the promises made to a tenant; without one, the data of no tenant.
    pub(super) async fn prove(&self, tenant: Option<Arc<Tenant>>) -> Result<Proofs, OperationError> {
        let prover = Prover {
            ports: self.ports.clone(),
            keys: self.keys.clone(),
            tenants: self.tenants.clone(),
            oldest_record: self.proving.oldest_record,
            marker_ttl: self.proving.marker_ttl,
            records: RECORDS,
        };
        let Some(tenant) = tenant else { return Ok(prover.prove_rest().await?) };
        let (mut proofs, probe) = prover.prove(&tenant).await?;
        if let Some(dir) = self.proving.files.clone()
            && let Some(proof) = proofs.proofs.iter_mut().find(|proof| proof.promise == Promise::Encryption)
        {
            search(dir, probe, proof).await?;
        }
        Ok(proofs)
    }
}

/// Searches the files of a folder for plaintext.
async fn search(dir: PathBuf, probe: PlaintextProbes, proof: &mut Proof) -> Result<(), OperationError> {
    let searching = tokio::task::spawn_blocking(move || Search::run(&dir, &probe));
    let searched = searching.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    let failed = |error| {
        let why = format!("a file of the data folder cannot be searched: {error}");
        OperationError::new(ErrorKind::Internal, "data_folder", why)
    };
    let Search { files, bytes, left, found } = searched.map_err(failed)?;
    proof.saw(format!("{files} files of {} MiB searched for the same", bytes >> 20));
    if left > 0 {
        proof.saw(format!("{left} older files were not searched"));
    }
    for (path, at) in found {
        proof.fault(format!("{}: a customer's text is stored unencrypted at byte {at}", path.display()));
    }
    Ok(())
}

/// Result of a search of files.
#[derive(Debug, Default)]
struct Search {
    files: u64,
    bytes: u64,
    left: u64,
    found: Vec<(PathBuf, usize)>,
}

impl Search {
    fn run(dir: &Path, probe: &PlaintextProbes) -> io::Result<Self> {
        let mut files = Vec::new();
        list(dir, &mut files)?;
        files.sort_unstable_by_key(|(_, _, changed)| std::cmp::Reverse(*changed));
        let searcher = probe.searcher();
        let mut search = Self::default();
        for (path, len, _) in files {
            if search.bytes + len > FILES {
                search.left += 1;
                continue;
            }
            let file = match std::fs::File::open(&path) {
                Ok(file) => file,
                // The running store deletes files.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            search.files += 1;
            search.bytes += len;
            if let Some(found) = searcher.stream_find_iter(io::BufReader::new(file)).next() {
                search.found.push((path, found?.start()));
            }
        }
        Ok(search)
    }
}

fn list(dir: &Path, files: &mut Vec<(PathBuf, u64, std::time::SystemTime)>) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let about = match entry.metadata() {
            Ok(about) => about,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if about.is_dir() {
            list(&entry.path(), files)?;
        } else if about.is_file() {
            files.push((entry.path(), about.len(), about.modified()?));
        }
    }
    Ok(())
}
