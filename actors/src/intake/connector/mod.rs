//! Intake of one owned partition of ingress: accepts the records of third-party connectors.
//!
//! Contract: a record is acknowledged when it is in inbound, or in dlq with the reason, and not before (I2). After a
//! crash in between it is accepted again, and its conversation drops it as already seen, like a duplicate webhook: the
//! message key is the same for both kinds of ingress. Records leave in the order they came. A store that does not
//! answer stalls the partition; no record is skipped.
//!
//! A record's requirements are decided in [`admission`]; its sender and its sealing are the work of [`Reception`]. A
//! fetch's records become one batch. At most one batch is in memory (I9).

mod admission;
mod senders;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use heddle_schemas::id::TenantId;
use heddle_schemas::ports::keys::{Cipher, KeysError};
use heddle_schemas::ports::log::{FetchLimit, NewRecord, Record, StoreError};
use heddle_schemas::ports::state::{Batch, Fence};
use heddle_schemas::record::dlq::DeadReason;
use heddle_schemas::record::ingress::tenant_of;
use heddle_schemas::time::LogThrottle;
use tokio::sync::{mpsc, oneshot};

use self::admission::{Admitted, Refused, admit};
use crate::context::Context;
use crate::intake::webhook::{Reception, ReceptionError};
use crate::partition::commit::{commit, read};
use crate::partition::lag::Lag;
use crate::partition::publish;
use crate::partition::retry::Retrying;
use crate::privacy::security::SecuritySignal;
use crate::privacy::tenant_deletion;

/// Records of one fetch at most.
const RECORDS: usize = 256;
/// Bytes of one fetch at most.
const BYTES: usize = 4 << 20;
/// Time for which a fetch waits for the first record.
const WAIT: Duration = Duration::from_secs(5);
/// Senders that are looked up at once.
const LOOKUPS: usize = 16;

/// The intake of one partition.
pub(crate) struct Ingress {
    context: Context,
    reception: Arc<Reception>,
    pub(crate) fence: Fence,
    lag: Lag,
}

/// Record, with the outputs that are published before it is acknowledged.
struct Taken {
    record: Record,
    outputs: Vec<NewRecord>,
}

impl Ingress {
    pub(crate) fn new(context: Context, reception: Arc<Reception>, fence: Fence) -> Self {
        let lag = Lag::new(&context.ports, fence.partition);
        Self { context, reception, fence, lag }
    }

    /// Runs until it is asked to drain, or the ownership or the log is gone.
    pub(crate) async fn run(mut self, mut draining: mpsc::Receiver<oneshot::Sender<()>>) {
        let partition = self.fence.partition;
        match self.work(&mut draining).await {
            Ok(Some(done)) => {
                // The caller may have gone.
                let _ = done.send(());
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, %partition, "partition lost, stopping its worker"),
        }
    }

    async fn work(
        &mut self,
        draining: &mut mpsc::Receiver<oneshot::Sender<()>>,
    ) -> Result<Option<oneshot::Sender<()>>, StoreError> {
        let ports = self.context.ports.clone();
        let partition = self.fence.partition;
        let position = read(&ports.metrics, || ports.log.position(partition)).await?;
        let records = RECORDS.min(self.context.options.permits_per_partition.get());
        let limit = FetchLimit { records, bytes: BYTES };
        let mut next = position.next;
        loop {
            let fetched = tokio::select! {
                biased;
                done = draining.recv() => return Ok(done),
                fetched = ports.log.fetch(partition, next, limit, WAIT) => fetched,
            };
            match fetched {
                Ok(mut records) => {
                    next = records.last().map_or(next, |last| last.offset + 1);
                    records.retain(|record| !position.is_done(record.offset));
                    if !records.is_empty() {
                        self.take_in(records).await?;
                    }
                }
                Err(error @ (StoreError::Closed | StoreError::Fenced { .. })) => return Err(error),
                Err(error) => {
                    ports.metrics.store_retried(&error);
                    tracing::warn!(%error, %partition, next, "fetch failed, retrying");
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
            self.lag.look(next).await;
        }
    }

    async fn take_in(&self, records: Vec<Record>) -> Result<(), StoreError> {
        let Context { ports, tenants, .. } = &self.context;
        ports.metrics.taken(self.fence.partition.topic, records.len());
        let _in_work = ports.metrics.while_in_work(self.fence.partition.topic, records.len());
        let (mut admitted, mut refused) = (Vec::new(), Vec::new());
        let mut has_caught_up = false;
        for (index, record) in records.iter().enumerate() {
            let mut decided = self.admit(record);
            // The tenant, or its account, may have been applied on another node just before.
            if matches!(&decided, Err(why) if why.names_unknown_owner()) && !has_caught_up {
                match self.insist(|| async { Ok(tenants.catch_up().await?) }).await? {
                    Insisted::Done(()) => {}
                    Insisted::Erased | Insisted::Unreadable(_) => {
                        // No record is admitted by guessing; one that names no known tenant is kept in dlq, and can be
                        // replayed.
                        tracing::error!(partition = %self.fence.partition, "topic tenants cannot be read");
                    }
                }
                has_caught_up = true;
                decided = self.admit(record);
            }
            match decided {
                Ok(record) => admitted.push((index, record)),
                Err(why) => {
                    if let Some(owner) = &why.owner {
                        ports.security.saw(Some(owner), SecuritySignal::CrossTenant);
                    }
                    refused.push((index, why));
                }
            }
        }
        let mut taken: Vec<_> =
            records.into_iter().map(|record| Taken { record, outputs: Vec::new() }).collect();
        // Senders that share no id are looked up at once; those that do, one after the other, so that an id that is new
        // to both leads both to the same contact.
        let groups = senders::apart(admitted);
        let mut lookups = futures::stream::iter(groups.into_iter().map(|group| self.write(group)))
            .buffer_unordered(LOOKUPS);
        while let Some(written) = lookups.next().await {
            match written? {
                Written::Records(records) => {
                    records.into_iter().for_each(|(index, outputs)| taken[index].outputs = outputs);
                }
                Written::Refused(group) => refused.extend(group),
            }
        }
        drop(lookups);
        self.dead_letter(refused, &mut taken).await?;
        self.settle(taken).await
    }

    fn admit(&self, record: &Record) -> Result<Admitted, Refused> {
        let Context { ports, tenants, .. } = &self.context;
        let owner = |kind, account: &_| tenants.by_account(kind, account);
        let known = |tenant: &_| tenants.get(tenant).is_some();
        let profiles = |kind| ports.profile(kind);
        let admitted = admit(&record.value, &owner, &known, &profiles, ports.clock.now());
        admitted.map_err(|why| {
            let named = tenant_of(&record.value).filter(|_| why.reason == DeadReason::UnknownTenant);
            match named.map(|tenant| tenants.check_region(&tenant)) {
                Some(Err(elsewhere)) => Refused::new(DeadReason::Region, elsewhere.to_string()),
                _ => why,
            }
        })
    }

    /// Writes the records of a group, whose tenant is one and the same.
    async fn write(&self, group: Vec<(usize, Admitted)>) -> Result<Written, StoreError> {
        let Some((tenant, kind)) = group.first().map(|(_, first)| (first.tenant.clone(), first.kind)) else {
            return Ok(Written::Records(Vec::new()));
        };
        let (indexes, events): (Vec<_>, Vec<_>) =
            group.into_iter().map(|(index, admitted)| (index, admitted.event)).unzip();
        // A connector, an outage or the dead-letter topic may have kept it for any time.
        let fresh = self.context.options.answer_within;
        let written = self.insist(|| self.reception.write(kind, &tenant, events.clone(), fresh)).await?;
        let refused = match written {
            Insisted::Done(records) => {
                return Ok(Written::Records(indexes.into_iter().zip(records).collect()));
            }
            Insisted::Erased => Refused::erased(tenant.id.clone()),
            Insisted::Unreadable(detail) => Refused::unreadable(tenant.id.clone(), detail),
        };
        Ok(Written::Refused(indexes.into_iter().map(|index| (index, refused.clone())).collect()))
    }

    /// Dead-letters the refused records.
    async fn dead_letter(
        &self,
        refused: Vec<(usize, Refused)>,
        taken: &mut [Taken],
    ) -> Result<(), StoreError> {
        let ports = &self.context.ports;
        let mut ciphers: HashMap<TenantId, Option<Arc<dyn Cipher>>> = HashMap::new();
        for (index, Refused { reason, detail, tenant, .. }) in refused {
            let Taken { record, outputs } = &mut taken[index];
            if reason == DeadReason::UnknownTenant
                && let Some(named) = tenant_of(&record.value)
                && tenant_deletion::find(ports, &named).await?.is_some()
            {
                // Settled, and not kept: there is no key under which it could be erased.
                ports.metrics.of_deleted(1);
                continue;
            }
            let cipher = match &tenant {
                None => None,
                Some(tenant) => match ciphers.get(tenant) {
                    Some(cipher) => cipher.clone(),
                    None => {
                        let day = ports.clock.now().day();
                        let opened = self.insist(|| async { Ok(ports.keys.log(tenant, day).await?) }).await?;
                        ciphers.entry(tenant.clone()).or_insert(opened.done()).clone()
                    }
                },
            };
            let keep = tenant.as_ref().zip(cipher.as_deref());
            *outputs = vec![publish::dead_plaintext(ports, record, reason, detail, keep)];
        }
        Ok(())
    }

    /// Publishes the written records and then acknowledges, in one batch.
    async fn settle(&self, mut taken: Vec<Taken>) -> Result<(), StoreError> {
        match self.commit(&taken).await {
            // Records are far below a log's default limit, but the limit may be set lower: then those within it go on
            // alone.
            Err(StoreError::TooLarge { .. }) if taken.len() > 1 => {
                for one in taken {
                    Box::pin(self.settle(vec![one])).await?;
                }
                Ok(())
            }
            Err(StoreError::TooLarge { .. }) => {
                let detail = "it is larger than the log accepts".to_owned();
                for Taken { record, outputs } in &mut taken {
                    let reason = DeadReason::TooLarge;
                    let output =
                        publish::dead_plaintext(&self.context.ports, record, reason, detail.clone(), None);
                    *outputs = vec![output];
                }
                self.commit(&taken).await
            }
            settled => settled,
        }
    }

    async fn commit(&self, taken: &[Taken]) -> Result<(), StoreError> {
        let ports = &self.context.ports;
        commit(&*ports.state, &ports.metrics, |_| Batch {
            fence: Some(self.fence),
            outputs: taken.iter().flat_map(|taken| &taken.outputs).cloned().collect(),
            consumed: taken.iter().map(|taken| (taken.record.partition, taken.record.offset)).collect(),
            ..Batch::default()
        })
        .await
    }

    /// Tries until it is done, or no repetition mends it.
    async fn insist<T, F: Future<Output = Result<T, ReceptionError>>>(
        &self,
        mut attempt: impl FnMut() -> F,
    ) -> Result<Insisted<T>, StoreError> {
        static LOG: LogThrottle = LogThrottle::new();
        let mut retrying = Retrying::new(&self.context.ports.metrics, "intake of records", &LOG);
        loop {
            let error = match attempt().await {
                Ok(done) => return Ok(Insisted::Done(done)),
                Err(ReceptionError::Keys(KeysError::Gone { .. })) => return Ok(Insisted::Erased),
                Err(ReceptionError::Store(error)) => error,
                Err(ReceptionError::Keys(error)) => match error.passing() {
                    Ok(error) => error,
                    Err(error) => return Ok(Insisted::Unreadable(error.to_string())),
                },
            };
            if matches!(error, StoreError::Closed | StoreError::Fenced { .. }) {
                return Err(error);
            }
            if !error.is_transient() {
                return Ok(Insisted::Unreadable(error.to_string()));
            }
            retrying.wait(&error).await;
        }
    }
}

/// End of an operation that was retried until the store answered.
enum Insisted<T> {
    Done(T),
    /// The tenant's keys are destroyed: it cannot be done any more.
    Erased,
    /// A row of the person or the tenant cannot be read, until an operator repairs it. Other records go on.
    Unreadable(String),
}

impl<T> Insisted<T> {
    fn done(self) -> Option<T> {
        match self {
            Self::Done(done) => Some(done),
            Self::Erased | Self::Unreadable(_) => None,
        }
    }
}

/// Result of writing a group.
enum Written {
    Records(Vec<(usize, Vec<NewRecord>)>),
    Refused(Vec<(usize, Refused)>),
}
