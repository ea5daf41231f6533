//! The audit log: writes entries, reads them, verifies a chain.
//!
//! Contract: when [`AuditLog::append`] returns, the entry is durable and has its place in the chain; when it fails, its
//! outcome is unknown, and the caller must not perform the act that the entry is about. Nodes share a chain: a
//! conditional write of its head decides the order, and the loser goes on from the winner's head. The new head is
//! published in topic events after that, where no write to the state store reaches it; a log that does not answer fails
//! no entry, since the next head stands for this one too.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use heddle_schemas::audit::chain::{Noted, Row, Verdict, Verifier};
use heddle_schemas::audit::{Act, Digest, Entry};
use heddle_schemas::id::{MessageKey, TenantId};
use heddle_schemas::ports::keys::{KeysError, TenantCipher};
use heddle_schemas::ports::state::{Scan, StoreError, Swap};
use heddle_schemas::record::V;
use heddle_schemas::record::event::{Event, EventRecord};
use heddle_schemas::retry::RetryPolicy;
use heddle_schemas::table::{Key, Partition};

use crate::partition::publish;
use crate::ports::Ports;

/// Policy of appends while the store does not answer; a lost race does not count.
const RETRIES: RetryPolicy =
    RetryPolicy::limited(Duration::from_millis(50), Duration::from_millis(400), NonZeroU32::new(5).unwrap());
/// Rows of one scan.
const ROWS: usize = 500;

/// Why the audit log could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The state store.
    #[error("the audit log cannot be reached: {0}")]
    Store(#[from] StoreError),
    /// The key of its marks.
    #[error("the audit log has no key: {0}")]
    Keys(#[from] KeysError),
    /// Its end was changed by another writer: a new entry would hide that.
    #[error(
        "the audit log of {whose} cannot go on, {why}; see `heddle audit log --verify`, and begin anew behind the \
         break with `heddle audit log --resume`"
    )]
    Broken {
        /// Tenant of the log.
        whose: String,
        /// Reason.
        why: &'static str,
    },
}

impl AuditError {
    /// Returns true when a retry may succeed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Store(error) | Self::Keys(KeysError::Store(error)) => {
                error.is_transient() || matches!(error, StoreError::Closed)
            }
            Self::Keys(_) | Self::Broken { .. } => false,
        }
    }
}

/// The audit logs of all tenants. Cheap to clone.
#[derive(Clone)]
pub struct AuditLog {
    ports: Ports,
}

/// The head of a chain, as it was read.
struct Head {
    stored: Option<Bytes>,
    newest: Option<Row>,
}

impl AuditLog {
    /// Returns the audit log over these ports.
    #[must_use]
    pub fn new(ports: Ports) -> Self {
        Self { ports }
    }

    /// Writes an entry behind the newest one of the tenant's chain, or of that of no tenant.
    ///
    /// # Errors
    /// [`AuditError`].
    pub async fn append(&self, tenant: Option<&TenantId>, act: Act) -> Result<Entry, AuditError> {
        let outcome = act.outcome;
        let appended = self.try_append(tenant, act).await;
        self.ports.metrics.audited(appended.is_ok().then_some(outcome));
        let entry = appended?;
        self.publish(tenant, &entry).await;
        Ok(entry)
    }

    /// Begins a chain anew behind a break that keeps entries from being appended; where there is none, it only appends.
    /// The entry leaves one number out, so that every later verification still reports the break.
    ///
    /// # Errors
    /// [`AuditError::Store`], [`AuditError::Keys`].
    pub async fn resume(&self, tenant: Option<&TenantId>, act: Act) -> Result<Entry, AuditError> {
        let cipher = self.cipher(tenant).await?;
        let id = MessageKey::from_bytes((self.ports.random)());
        let mut tried = None;
        loop {
            let entry = match self.attempt(tenant, &*cipher, (id, &mut tried), &act).await {
                Ok(Some(entry)) => entry,
                Ok(None) => continue,
                Err(AuditError::Broken { .. }) => match self.skip(tenant, &*cipher, id, &act).await? {
                    Some(entry) => entry,
                    None => continue,
                },
                Err(error) => return Err(error),
            };
            self.ports.metrics.audited(Some(act.outcome));
            self.publish(tenant, &entry).await;
            return Ok(entry);
        }
    }

    async fn skip(
        &self,
        tenant: Option<&TenantId>,
        cipher: &dyn TenantCipher,
        id: MessageKey,
        act: &Act,
    ) -> Result<Option<Entry>, AuditError> {
        let key = Key::access_head(tenant);
        let stored = self.ports.state.get(&key).await?;
        let rows = self.ports.state.scan(&Scan::last(Partition::access(tenant), 1)).await?;
        let last = rows.iter().find_map(|(key, bytes)| {
            let number = u64::from_be_bytes(key.row().try_into().ok()?);
            Some((number, Row::read(bytes).map_or(Digest::NONE, |row| row.entry.hash)))
        });
        let (last, previous) = last.unwrap_or((0, Digest::NONE));
        let now = self.ports.clock.now();
        let row = Row::write((last.saturating_add(2), previous), tenant, cipher, (id, now), act.clone());
        match self.ports.state.compare_and_set(&key, stored, Some(row.head(cipher)), None).await? {
            Swap::Done => {
                self.place(tenant, &row).await?;
                Ok(Some(row.entry))
            }
            Swap::Found(_) => Ok(None),
        }
    }

    async fn try_append(&self, tenant: Option<&TenantId>, act: Act) -> Result<Entry, AuditError> {
        let cipher = self.cipher(tenant).await?;
        // One id for all attempts: it shows whether an attempt whose answer was lost had succeeded.
        let id = MessageKey::from_bytes((self.ports.random)());
        let mut tried = None;
        let mut retries = RETRIES.begin();
        loop {
            let error = match self.attempt(tenant, &*cipher, (id, &mut tried), &act).await {
                Ok(Some(entry)) => return Ok(entry),
                Ok(None) => continue,
                Err(error) => error,
            };
            let passes = error.is_transient() && !matches!(error, AuditError::Store(StoreError::Closed));
            let Some(pause) = retries.failed().filter(|_| passes) else { return Err(error) };
            tokio::time::sleep(pause).await;
        }
    }

    /// Returns `None` when another writer was faster. `tried` is the number under which it was tried before: the
    /// outcome of a write without an answer is unknown, and others may have gone on from it.
    async fn attempt(
        &self,
        tenant: Option<&TenantId>,
        cipher: &dyn TenantCipher,
        (id, tried): (MessageKey, &mut Option<u64>),
        act: &Act,
    ) -> Result<Option<Entry>, AuditError> {
        let head = self.head(tenant, cipher).await?;
        if let Some(newest) = &head.newest {
            self.place(tenant, newest).await?;
        }
        if let Some(number) = *tried {
            let stored = self.ports.state.get(&Key::access(tenant, number)).await?;
            let entry = stored.and_then(|bytes| Row::read(&bytes)).map(|row| row.entry);
            if let Some(ours) = entry.filter(|entry| entry.body.id == id) {
                return Ok(Some(ours));
            }
        }
        let before = head.newest.as_ref().map(|row| &row.entry);
        let row = Row::after(before, tenant, cipher, (id, self.ports.clock.now()), act.clone());
        let key = Key::access_head(tenant);
        *tried = Some(row.entry.body.number);
        match self.ports.state.compare_and_set(&key, head.stored, Some(row.head(cipher)), None).await? {
            Swap::Done => {
                self.place(tenant, &row).await?;
                Ok(Some(row.entry))
            }
            Swap::Found(_) => Ok(None),
        }
    }

    /// The newest entry, which must be one of ours: on a foreign one nothing is built.
    async fn head(&self, tenant: Option<&TenantId>, cipher: &dyn TenantCipher) -> Result<Head, AuditError> {
        let broken = |why| AuditError::Broken { whose: whose(tenant), why };
        let stored = self.ports.state.get(&Key::access_head(tenant)).await?;
        let Some(head) = &stored else {
            let rows = self.ports.state.scan(&Scan::last(Partition::access(tenant), 1)).await?;
            // Another node may have begun the chain between the two reads.
            return match rows.is_empty() || self.ports.state.get(&Key::access_head(tenant)).await?.is_some() {
                true => Ok(Head { stored: None, newest: None }),
                false => Err(broken("its head is missing")),
            };
        };
        let newest =
            Row::of_trusted_head(head, tenant, cipher).ok_or_else(|| broken("its head was forged"))?;
        Ok(Head { newest: Some(newest), stored })
    }

    /// Puts the head's entry in its place, where it is not there yet.
    async fn place(&self, tenant: Option<&TenantId>, row: &Row) -> Result<(), AuditError> {
        let key = Key::access(tenant, row.entry.body.number);
        if self.ports.state.get(&key).await?.is_some() {
            // Any other value there is for a verification to report: it changes nothing about the head.
            return Ok(());
        }
        // A faster writer put the same there.
        self.ports.state.compare_and_set(&key, None, Some(row.bytes.clone()), None).await?;
        Ok(())
    }

    async fn publish(&self, tenant: Option<&TenantId>, entry: &Entry) {
        let event = Event::Audited { number: entry.body.number, hash: entry.hash };
        let tenant = tenant.cloned().unwrap_or_else(TenantId::engine);
        let record = EventRecord { v: V, tenant, at: entry.body.at, event };
        if let Err(error) = self.ports.log.append(vec![publish::event(&self.ports, &record)]).await {
            tracing::warn!(%error, tenant = %record.tenant, "the head of an audit log was not published");
        }
    }

    async fn cipher(&self, tenant: Option<&TenantId>) -> Result<Arc<dyn TenantCipher>, KeysError> {
        match tenant {
            Some(tenant) => self.ports.keys.tenant(tenant).await,
            None => self.ports.keys.tenant(&TenantId::engine()).await,
        }
    }

    /// Returns the stored entries from a number on; rows that are no valid entries are left out, and reported by
    /// [`AuditLog::verify`].
    ///
    /// # Errors
    /// [`AuditError::Store`].
    pub async fn entries(
        &self,
        tenant: Option<&TenantId>,
        from: u64,
        limit: usize,
    ) -> Result<Vec<Entry>, AuditError> {
        let rows = self.rows(tenant, from, limit).await?;
        Ok(rows.iter().filter_map(|(_, bytes)| Some(Row::read(bytes)?.entry)).collect())
    }

    /// Verifies a chain from its beginning to its end, and reports where it is not as written. `noted` are entries that
    /// were kept elsewhere.
    ///
    /// # Errors
    /// [`AuditError`]. A chain that does not hold is no error.
    pub async fn verify(&self, tenant: Option<&TenantId>, noted: &[Noted]) -> Result<Verdict, AuditError> {
        let cipher = match self.cipher(tenant).await {
            Ok(cipher) => Some(cipher),
            // The chain exists for as long as the audit log is kept, and everything that needs no key can be checked.
            Err(KeysError::Gone { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let mut verifier = Verifier::new(tenant, cipher.as_deref(), noted.iter().copied());
        loop {
            self.take_rows(tenant, &mut verifier).await?;
            let head = self.ports.state.get(&Key::access_head(tenant)).await?;
            // A row is in its place before the head moves on: entries appended meanwhile are there by now.
            if !self.take_rows(tenant, &mut verifier).await? {
                return Ok(verifier.end(head.as_ref()));
            }
        }
    }

    /// Takes the rows that there are from the next one on. Returns whether there were any.
    async fn take_rows(
        &self,
        tenant: Option<&TenantId>,
        verifier: &mut Verifier<'_>,
    ) -> Result<bool, AuditError> {
        let mut any = false;
        loop {
            let rows = self.rows(tenant, verifier.next(), ROWS).await?;
            if rows.is_empty() {
                return Ok(any);
            }
            any = true;
            rows.iter().for_each(|(number, bytes)| verifier.take(*number, bytes));
        }
    }

    async fn rows(
        &self,
        tenant: Option<&TenantId>,
        from: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Bytes)>, StoreError> {
        let from = Bytes::copy_from_slice(&from.max(1).to_be_bytes());
        let scan = Scan { from, ..Scan::first(Partition::access(tenant), limit) };
        let rows = self.ports.state.scan(&scan).await?;
        let number = |key: &Key| Some(u64::from_be_bytes(key.row().try_into().ok()?));
        Ok(rows.into_iter().filter_map(|(key, bytes)| Some((number(&key)?, bytes))).collect())
    }
}

fn whose(tenant: Option<&TenantId>) -> String {
    tenant.map_or_else(|| "no tenant".into(), |tenant| format!("tenant {tenant}"))
}
