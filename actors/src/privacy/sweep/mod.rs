//! Applies changed retention to rows that are there: each gets the end that its tenant's policies give it.
//!
//! A row of the history and a delivery have carried their end since they were written. When a tenant's time to live is
//! shortened, the new one holds for them as well ([`heddle_schemas::retention`]); so each node walks over the rows of
//! its partitions of inbound, and updates the end of those that end too late.
//!
//! Contract:
//! - The row and the tenant's policies alone decide what a sweep does to a row, so a repetition changes nothing, and a
//!   row is only ever ended earlier.
//! - A row is changed by the actor of its conversation, which alone writes it, under the fence of its partition, and
//!   only while it is as it was found.
//! - The progress of a partition is a row of its own ([`Key::sweep`]), written under the same fence after each page.
//!   After a crash the sweep goes on from there; partitions at different positions begin anew together.
//! - The number of rows read a second is bounded (`engine.sweep_rows_per_second`), and one page is under way at a time.
//!
//! A change is swept [`SETTLE`] after this node has read it: rows that were being written by the previous policy are
//! durable then. A history row that does not open is left: its key was destroyed, and the erasure removes it.

mod plan;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use heddle_schemas::id::ConversationId;
use heddle_schemas::ports::keys::{KeysError, Missing};
use heddle_schemas::ports::state::{Batch, Fence, Row, StoreError, Walk, Write};
use heddle_schemas::record::encode;
use heddle_schemas::retention::Kind;
use heddle_schemas::table::{Dated, Key, Lifetime, Table};
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Epoch, Topic, TopicPartition, inbound_partition};
use ractor::ActorRef;
use tokio::sync::{oneshot, watch};

use self::plan::{Reached, Swept, UnderWay};
use crate::context::Context;
use crate::conversation::thread::{Thread, ThreadError};
use crate::conversation::{Delivery, Head};
use crate::partition::PartitionMessage;
use crate::partition::commit::{commit, read};
use crate::partition::ttl_update::TtlUpdate;
use crate::ports::Ports;
use crate::tenant::configuration::{Kept, Tenants};

/// Time between a change and its sweep.
const SETTLE: Duration = Duration::from_secs(10);
/// Interval of the check for partitions that are behind, beside the check at each change.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);
/// The pause after a failure.
const PAUSE: Duration = Duration::from_secs(5);

/// Partition of inbound that runs on this node.
#[derive(Debug, Clone)]
pub struct RunningPartition {
    /// Ownership of the partition.
    pub fence: Fence,
    /// Actor of the partition.
    pub actor: ActorRef<PartitionMessage<ConversationId>>,
    /// Position up to which topic tenants had been read when it was taken over.
    pub known: BTreeMap<u32, u64>,
}

/// The partitions of inbound that run on this node.
pub type Running = watch::Sender<BTreeMap<TopicPartition, RunningPartition>>;

/// Returns whether the newest change of a tenant's retention has still to be applied to rows that are there.
///
/// # Errors
/// [`StoreError`].
pub(crate) async fn is_behind(ports: &Ports, tenants: &Tenants, kept: &Kept) -> Result<bool, StoreError> {
    if !tenants.changed().iter().any(|changed| changed.tenant.id == kept.tenant.id) {
        return Ok(false);
    }
    for partition in 0..ports.log.partitions(Topic::Inbound) {
        let key = Key::sweep(TopicPartition { topic: Topic::Inbound, partition });
        let stored = read(&ports.metrics, || ports.state.get(&key)).await?;
        let swept: Option<Swept> = stored.and_then(|stored| serde_json::from_slice(&stored).ok());
        if swept.unwrap_or_default().lacks(kept.since) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Sweeps the partitions of this node.
pub struct Sweeper {
    context: Context,
    running: watch::Receiver<BTreeMap<TopicPartition, RunningPartition>>,
    /// Progress of each partition, and the ownership under which it was read.
    swept: HashMap<TopicPartition, (Epoch, Swept)>,
}

impl Sweeper {
    /// Returns the sweeps over the running partitions.
    #[must_use]
    pub fn new(context: Context, running: &Running) -> Self {
        Self { context, running: running.subscribe(), swept: HashMap::new() }
    }

    /// Runs for as long as it is polled.
    pub async fn run(mut self) {
        let mut changes = self.context.tenants.changes();
        loop {
            let pause = match self.sweep().await {
                Ok(()) => CHECK_INTERVAL,
                Err(StoreError::Closed) => return,
                Err(error) => {
                    tracing::warn!(%error, "sweep of changed retention failed, retrying");
                    PAUSE
                }
            };
            tokio::select! {
                Ok(()) = changes.changed() => {}
                Ok(()) = self.running.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Applies every change that some partition lacks.
    async fn sweep(&mut self) -> Result<(), StoreError> {
        loop {
            let behind = self.behind().await?;
            self.context.ports.metrics.sweeps_behind(behind.len());
            let changed = self.context.tenants.changed();
            let changed: Vec<_> = changed.iter().map(|kept| (kept.tenant.id.clone(), kept.since)).collect();
            let Some((under_way, begins)) = plan::next(&behind, &changed) else { return Ok(()) };
            if begins {
                tokio::time::sleep(SETTLE).await;
            }
            let of = behind.keys().copied().collect();
            if !self.walk(under_way, of).await? {
                // The partition is being handed over; the next owner goes on.
                return Ok(());
            }
            self.context.ports.metrics.swept();
        }
    }

    /// The partitions of this node to whose rows some change has not been applied.
    async fn behind(&mut self) -> Result<BTreeMap<TopicPartition, Swept>, StoreError> {
        let changed = self.context.tenants.changed();
        let running = self.running.borrow_and_update().clone();
        self.swept.retain(|partition, _| running.contains_key(partition));
        let mut behind = BTreeMap::new();
        if changed.is_empty() {
            return Ok(behind);
        }
        for (partition, RunningPartition { fence, known, .. }) in running {
            let read_before = self.swept.get(&partition).filter(|(epoch, _)| *epoch == fence.epoch);
            let swept = match read_before {
                Some((_, swept)) => swept.clone(),
                None => {
                    let swept = self.read(partition, &known).await?;
                    self.swept.insert(partition, (fence.epoch, swept.clone()));
                    swept
                }
            };
            if changed.iter().any(|kept| swept.lacks(kept.since)) {
                behind.insert(partition, swept);
            }
        }
        Ok(behind)
    }

    async fn read(&self, partition: TopicPartition, known: &Reached) -> Result<Swept, StoreError> {
        let ports = &self.context.ports;
        let key = Key::sweep(partition);
        let stored = read(&ports.metrics, || ports.state.get(&key)).await?;
        // One that cannot be read is of another build: everything is swept once more.
        let swept: Option<Swept> = stored.and_then(|stored| serde_json::from_slice(&stored).ok());
        Ok(swept.unwrap_or_default().known(known))
    }

    /// Walks to the end from its position. Returns false when all partitions have gone.
    async fn walk(
        &mut self,
        mut under_way: UnderWay,
        mut of: Vec<TopicPartition>,
    ) -> Result<bool, StoreError> {
        let tables = Table::with(|table| matches!(table.lifetime, Lifetime::Retention { .. }));
        let (tenant, after) = (under_way.tenant.clone(), under_way.after());
        let mut walk = Walk { tables, tenant, after, limit: self.context.options.sweep_page.get() };
        loop {
            let ports = &self.context.ports;
            let page = read(&ports.metrics, || ports.state.walk(&walk)).await?;
            let rows = page.rows.len();
            self.apply(&page.rows, &mut of).await?;
            let goes_on = walk.go_on(&page);
            if let Some(after) = &walk.after {
                under_way.reached(after);
            }
            self.note(&under_way, !goes_on, &mut of).await?;
            if of.is_empty() || !goes_on {
                return Ok(!of.is_empty());
            }
            let rate = f64::from(self.context.options.sweep_rows_per_second.get());
            tokio::time::sleep(Duration::from_secs_f64(rows as f64 / rate)).await;
        }
    }

    /// Applies an earlier end to rows of a page that end too late. A partition that is lost meanwhile is left out.
    async fn apply(&self, rows: &[Row], of: &mut Vec<TopicPartition>) -> Result<(), StoreError> {
        let ports = &self.context.ports;
        let partitions = ports.log.partitions(Topic::Inbound);
        let mut by_conversation: BTreeMap<ConversationId, Vec<TtlUpdate>> = BTreeMap::new();
        let mut threads: HashMap<ConversationId, Option<Thread>> = HashMap::new();
        for row in rows {
            let Some(conversation) = row.key.conversation() else { continue };
            if !of.contains(&inbound_partition(&conversation, partitions)) {
                continue;
            }
            let Some(kept) = self.context.tenants.kept(&conversation.tenant) else { continue };
            let Some((kind, written)) = self.written(row, &conversation, &mut threads).await? else {
                continue;
            };
            let end = kept.end(kind, written);
            if row.expires.is_none_or(|expires| expires > end) {
                let shorter = TtlUpdate { key: row.key.clone(), value: row.value.clone(), end };
                by_conversation.entry(conversation).or_default().push(shorter);
            }
        }
        let running = self.running.borrow().clone();
        let mut waiting = Vec::with_capacity(by_conversation.len());
        for (key, rows) in by_conversation {
            let partition = inbound_partition(&key, partitions);
            let (done, waits) = oneshot::channel();
            if let Some(running_partition) = running.get(&partition) {
                // One that has ended drops it, which is seen below.
                drop(running_partition.actor.send_message(PartitionMessage::Shorten { key, rows, done }));
            }
            waiting.push((partition, waits));
        }
        let mut shortened = 0;
        for (partition, waits) in waiting {
            match waits.await {
                Ok(rows) => shortened += rows,
                Err(_) => of.retain(|other| *other != partition),
            }
        }
        ports.metrics.swept_rows(rows.len(), shortened);
        Ok(())
    }

    /// Returns the kind of a row and the time it was written; `None` where that is unknown.
    async fn written(
        &self,
        row: &Row,
        conversation: &ConversationId,
        threads: &mut HashMap<ConversationId, Option<Thread>>,
    ) -> Result<Option<(Kind, Timestamp)>, StoreError> {
        match row.key.table().descriptor().lifetime {
            Lifetime::Retention { dated: Dated::Thread, .. } => {}
            Lifetime::Retention { dated: Dated::Delivery, .. } => {
                let delivery: Option<Delivery> = serde_json::from_slice(&row.value).ok();
                let written = |delivery: Delivery| delivery.written.unwrap_or(delivery.at);
                return Ok(delivery.map(|delivery| (Kind::Receipts, written(delivery))));
            }
            Lifetime::Retention { dated: Dated::Head, .. } => {
                let head: Option<Head> = serde_json::from_slice(&row.value).ok();
                let ends = head.filter(|head| head.restricted_since.is_none());
                // One of an earlier build is as old as the customer's last message.
                return Ok(ends.map(|head| (Kind::Messages, head.at.unwrap_or(head.customer_at))));
            }
            Lifetime::Own | Lifetime::UntilDone | Lifetime::UntilDeleted => return Ok(None),
        }
        if !threads.contains_key(conversation) {
            let thread = self.thread(conversation).await?;
            threads.insert(conversation.clone(), thread);
        }
        let Some(Some(thread)) = threads.get(conversation) else { return Ok(None) };
        let number = row.key.row().try_into().map_or(0, u64::from_be_bytes);
        match thread.open(&row.key, number, row.value.clone()) {
            Ok(opened) => Ok(opened.written().map(|written| (opened.kind(), written))),
            Err(ThreadError::Store(error)) => Err(error),
            Err(error) => {
                tracing::warn!(%error, %conversation, "a history row is left as it is");
                Ok(None)
            }
        }
    }

    async fn thread(&self, conversation: &ConversationId) -> Result<Option<Thread>, StoreError> {
        let keys = &self.context.ports.keys;
        match keys.contact(&conversation.tenant, conversation.contact, Missing::Fail).await {
            Ok(cipher) => Ok(Some(Thread::new(conversation.clone(), cipher))),
            Err(KeysError::Gone { .. }) => Ok(None),
            // Nothing opens then, and the sweep must not pass over it.
            Err(error @ KeysError::Master { .. }) => {
                Err(StoreError::Unavailable { detail: error.to_string() })
            }
            Err(error) => match error.passing() {
                Ok(error) => Err(error),
                Err(error) => {
                    tracing::warn!(%error, %conversation, "the history of a conversation is left as it is");
                    Ok(None)
                }
            },
        }
    }

    /// Stores the progress of the partitions; lost ones are left out.
    async fn note(
        &mut self,
        under_way: &UnderWay,
        is_over: bool,
        of: &mut Vec<TopicPartition>,
    ) -> Result<(), StoreError> {
        let ports = &self.context.ports;
        let running = self.running.borrow().clone();
        for partition in std::mem::take(of) {
            let (Some(RunningPartition { fence, .. }), Some((epoch, swept))) =
                (running.get(&partition), self.swept.get_mut(&partition))
            else {
                continue;
            };
            if fence.epoch != *epoch {
                continue;
            }
            swept.under_way = Some(under_way.clone());
            if is_over {
                swept.finish();
            }
            let value = encode(swept);
            let noted = commit(&*ports.state, &ports.metrics, |_| Batch {
                fence: Some(*fence),
                writes: vec![Write::put(Key::sweep(partition), value.clone())],
                ..Batch::default()
            });
            match noted.await {
                Ok(()) => of.push(partition),
                Err(StoreError::Fenced { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
