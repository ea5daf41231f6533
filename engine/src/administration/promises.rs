//! Whether promises hold: the proofs of the actors' part, and a search of the files of the embedded store.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use heddle_actors::privacy::verification::{Needles, ProveError, Prover};
use heddle_schemas::audit::{Outcome, What};
use heddle_schemas::id::TenantId;
use heddle_schemas::promise::{Promise, Proof, Proofs};

use super::{Administration, AdministrationError};

/// Records of each partition of the log that are read, the newest.
const RECORDS: u64 = 50_000;
/// Bytes of files that are searched, the newest files first.
const FILES: u64 = 8 << 30;

/// What promises are held against, as it is configured.
#[derive(Debug, Clone)]
pub struct Proving {
    /// How old a record of the log that has been worked off becomes.
    pub oldest_record: Duration,
    /// How long what was seen is remembered.
    pub marker_ttl: Duration,
    /// Where the embedded store keeps its files; none where the data is elsewhere.
    pub files: Option<PathBuf>,
}

impl Administration {
    /// Looks whether everything holds that a tenant is promised; without one, what is no tenant's. It is in the audit
    /// log before anything is read.
    ///
    /// # Errors
    /// [`AdministrationError`]: something could not be read, and nothing can be said.
    pub async fn prove(&self, tenant: Option<&TenantId>) -> Result<Proofs, AdministrationError> {
        let tenant = tenant.map(|id| self.tenant(id)).transpose()?;
        let id = tenant.as_ref().map(|tenant| &tenant.id);
        self.record(id, What::Prove, Outcome::Begun).await?;
        let prover = Prover {
            ports: self.ports.clone(),
            keys: self.keys.clone(),
            tenants: self.tenants.clone(),
            oldest_record: self.proving.oldest_record,
            marker_ttl: self.proving.marker_ttl,
            records: RECORDS,
        };
        let Some(tenant) = tenant else { return Ok(prover.prove_rest().await?) };
        let (mut proofs, needles) = prover.prove(&tenant).await?;
        if let Some(dir) = self.proving.files.clone()
            && let Some(proof) = proofs.proofs.iter_mut().find(|proof| proof.promise == Promise::Encryption)
        {
            search(dir, needles, proof).await?;
        }
        Ok(proofs)
    }
}

impl From<ProveError> for AdministrationError {
    fn from(error: ProveError) -> Self {
        match error {
            ProveError::Store(error) => Self::Store(error),
            ProveError::Keys(error) => Self::Keys(error),
            ProveError::Audit(error) => Self::AuditRead(error),
            ProveError::Unknown(tenant) => Self::UnknownTenant(tenant),
        }
    }
}

/// Searches the files of a folder.
async fn search(dir: PathBuf, needles: Needles, proof: &mut Proof) -> Result<(), AdministrationError> {
    let searching = tokio::task::spawn_blocking(move || Search::run(&dir, &needles));
    let searched = searching.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    let Search { files, bytes, left, found } = searched.map_err(AdministrationError::Files)?;
    proof.saw(format!("{files} files of {} MiB searched for the same", bytes >> 20));
    if left > 0 {
        proof.saw(format!("{left} older files were not"));
    }
    for (path, at) in found {
        proof.fault(format!("{}: what a customer wrote stands at byte {at} in the clear", path.display()));
    }
    Ok(())
}

/// What a search of files has come to.
#[derive(Debug, Default)]
struct Search {
    files: u64,
    bytes: u64,
    left: u64,
    found: Vec<(PathBuf, usize)>,
}

impl Search {
    fn run(dir: &Path, needles: &Needles) -> io::Result<Self> {
        let mut files = Vec::new();
        list(dir, &mut files)?;
        files.sort_unstable_by_key(|(_, _, changed)| std::cmp::Reverse(*changed));
        let searcher = needles.searcher();
        let mut search = Self::default();
        for (path, len, _) in files {
            if search.bytes + len > FILES {
                search.left += 1;
                continue;
            }
            let file = match std::fs::File::open(&path) {
                Ok(file) => file,
                // The store deletes files while it runs.
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
