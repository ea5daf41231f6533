//! Delivery of fetched records to entities, in order; records of a later build are parked.

use heddle_schemas::ports::log::{Record, StoreError};
use heddle_schemas::ports::state::{Batch, Fence};
use heddle_schemas::record::dlq::DeadReason;
use heddle_schemas::record::{RecordError, version};
use ractor::{ActorProcessingErr, ActorRef};

use super::{Discards, EntityKind, Partition, PartitionMessage, PartitionState, RETURNED_AT_ONCE, Receipt};
use crate::invariants::{Invariant, is_in_order};
use crate::partition::commit::{commit, read};
use crate::partition::dead_letter::dead_letter;
use crate::partition::parking::{Discarding, Held, Name, RETURNING, Step};
use crate::ports::Ports;
use crate::privacy::{erasure, tenant_deletion};

impl<R: EntityKind> Partition<R> {
    pub(super) async fn take(
        &self,
        myself: &ActorRef<PartitionMessage<R::Key>>,
        state: &mut PartitionState<R>,
        record: Record,
    ) -> Result<(), ActorProcessingErr> {
        // Records that come back from parking are older than what the log has delivered since.
        let is_ordered = is_in_order(state.last, record.offset);
        self.context.ports.metrics.check(Invariant::Order, is_ordered, || {
            format!("record {} of {} follows {:?}", record.offset, self.fence.partition, state.last)
        });
        state.last = Some(record.offset);
        let receipt = self.receipt(state, record, false);
        match R::decode(&receipt.record, self.newest()) {
            Ok((key, item)) => {
                if state.parking.may_hold()
                    && self.is_parked(state, &key, R::discards(&item), &receipt).await?
                {
                    return Ok(());
                }
                self.hand(myself, state, key, item, receipt).await
            }
            Err(error) => self.refuse(state, &receipt, error).await,
        }
    }

    /// The newest version of the topic that is read.
    pub(super) fn newest(&self) -> u16 {
        self.context.ports.versions.reads(R::TOPIC)
    }

    /// Records that may be in work: those of the log, and parked ones that are handed over.
    pub(super) fn permits(&self, state: &PartitionState<R>) -> usize {
        let returning = RETURNING.saturating_sub(state.work.returning.available_permits());
        self.context.options.permits_per_partition.get() + returning
    }

    /// Gives a record to its entity.
    pub(super) async fn hand(
        &self,
        myself: &ActorRef<PartitionMessage<R::Key>>,
        state: &mut PartitionState<R>,
        key: R::Key,
        item: R::Item,
        mut receipt: Receipt,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(fence) = R::published_under(&item) {
            receipt.maybe_again |= self.is_from_fenced_producer(state, fence).await?;
        }
        self.give(myself, state, key, R::deliver(item, receipt))
    }

    /// Parks a record of a later build; dead-letters one that is none, or does not say whom it is for.
    pub(super) async fn refuse(
        &self,
        state: &mut PartitionState<R>,
        receipt: &Receipt,
        error: RecordError,
    ) -> Result<(), ActorProcessingErr> {
        let record = &receipt.record;
        let name = Name::of(R::TOPIC, record.key.clone()).filter(|_| error.is_newer(self.newest()));
        if let Some(name) = name {
            let held = state.parking.find(&name).await?;
            if held.is_none() {
                self.report_newer(record, &error.to_string());
            }
            return self.park(state, &name, held, record).await;
        }
        let reason = match error {
            RecordError::Version { .. } | RecordError::Unknown(_) => DeadReason::Version,
            RecordError::Shape(_) => DeadReason::Shape,
        };
        let ports = Ports { state: state.store.clone(), ..self.context.ports.clone() };
        Ok(dead_letter(&ports, self.fence, record, reason, error.to_string(), 1).await?)
    }

    pub(super) fn report_newer(&self, record: &Record, detail: &str) {
        let version = version::of(&record.value);
        tracing::error!(
            topic = %R::TOPIC, partition = record.partition.partition, offset = record.offset, version, detail,
            "a record of a later build is parked, and all that follows it for the same conversation or account; \
             upgrade this node"
        );
    }

    pub(super) async fn park(
        &self,
        state: &mut PartitionState<R>,
        name: &Name,
        held: Option<Held>,
        record: &Record,
    ) -> Result<(), ActorProcessingErr> {
        let ports = &self.context.ports;
        let writes = state.parking.park(name, held, record, ports.clock.now());
        let consumed = vec![(record.partition, record.offset)];
        self.write(Batch { writes, consumed, ..Batch::default() }).await
    }

    pub(super) async fn write(&self, batch: Batch) -> Result<(), ActorProcessingErr> {
        let ports = &self.context.ports;
        let batch = Batch { fence: Some(self.fence), ..batch };
        Ok(commit(&*ports.state, &ports.metrics, |_| batch.clone()).await?)
    }

    /// Parks a record whose entity is held, unless it is one that discards parked records: it is delivered. A deletion
    /// of the tenant and an erasure of the contact reach what is parked so.
    pub(super) async fn is_parked(
        &self,
        state: &mut PartitionState<R>,
        key: &R::Key,
        discards: Option<Discards>,
        receipt: &Receipt,
    ) -> Result<bool, ActorProcessingErr> {
        let Some(name) = Name::of(R::TOPIC, key.to_string().into()) else { return Ok(false) };
        let held = state.parking.find(&name).await?;
        let Some(held) = held.filter(|held| receipt.record.offset >= held.first) else { return Ok(false) };
        if let Some(discards) = discards
            && let Some(mut discarding) = self.discarding(&name, discards, receipt).await?
        {
            while let Some(writes) = state.parking.discard(&name, &held, &mut discarding).await? {
                self.write(Batch { writes, ..Batch::default() }).await?;
            }
            return Ok(false);
        }
        self.park(state, &name, Some(held), &receipt.record).await?;
        Ok(true)
    }

    /// Returns the parked records that a record discards; `None` where it discards none.
    pub(super) async fn discarding(
        &self,
        name: &Name,
        discards: Discards,
        receipt: &Receipt,
    ) -> Result<Option<Discarding>, StoreError> {
        let ports = &self.context.ports;
        let before = receipt.record.offset;
        Ok(match discards {
            Discards::OfTenant => {
                let deletion = read(&ports.metrics, || tenant_deletion::find(ports, name.tenant())).await?;
                deletion.map(|_| Discarding::all())
            }
            Discards::OfConversation(of, id) => {
                let erasure = erasure::find(ports, &of.tenant, id).await?;
                let part = erasure.as_ref().and_then(|erasure| erasure.part(&of));
                // What is parked since an erasure was done came later.
                part.filter(|part| part.done.is_none()).map(|_| Discarding::before(before))
            }
            Discards::OfContact(contact) => Some(Discarding::about(contact, before)),
        })
    }

    /// Parks what an entity could not do, since a later build wrote what it is about.
    pub(super) async fn park_from(
        &self,
        state: &mut PartitionState<R>,
        receipt: Receipt,
        detail: &str,
    ) -> Result<(), ActorProcessingErr> {
        let record = &receipt.record;
        let Some(name) = Name::of(R::TOPIC, record.key.clone()) else {
            let error = RecordError::Unknown(detail.to_owned());
            return self.refuse(state, &receipt, error).await;
        };
        let held = state.parking.find(&name).await?;
        if held.is_none() {
            self.report_newer(record, detail);
        }
        state.parking.keep(&name, record.offset);
        self.park(state, &name, held, record).await
    }

    pub(super) async fn is_held(&self, state: &PartitionState<R>, key: &R::Key) -> Result<bool, StoreError> {
        match Name::of(R::TOPIC, key.to_string().into()) {
            Some(name) => Ok(state.parking.find(&name).await?.is_some()),
            None => Ok(false),
        }
    }

    /// Hands over parked records that this node reads. Returns whether some are left.
    pub(super) async fn return_parked(
        &self,
        myself: &ActorRef<PartitionMessage<R::Key>>,
        state: &mut PartitionState<R>,
    ) -> Result<bool, ActorProcessingErr> {
        let newest = self.newest();
        for _ in 0..RETURNED_AT_ONCE {
            let Ok(permit) = state.work.returning.try_acquire() else { return Ok(true) };
            permit.forget();
            let reads = |record: &Record| R::decode(record, newest).map(drop);
            let (step, writes) = state.parking.next(reads, newest).await?;
            if !writes.is_empty() {
                self.write(Batch { writes, ..Batch::default() }).await?;
            }
            let Step::Record(record) = step else {
                state.work.returning.add_permits(1);
                match step {
                    Step::Looked => continue,
                    _ => return Ok(false),
                }
            };
            let receipt = self.receipt(state, record, true);
            match R::decode(&receipt.record, newest) {
                Ok((key, item)) => self.hand(myself, state, key, item, receipt).await?,
                Err(error) => self.refuse(state, &receipt, error).await?,
            }
        }
        Ok(true)
    }

    /// Returns true where a record's publisher had lost its partition before the record came.
    ///
    /// If the next owner has published the same before, this partition has seen that owner's epoch: in a record, or,
    /// before it was taken over, its previous owner has, and then the epoch is at least the one that can be read since.
    pub(super) async fn is_from_fenced_producer(
        &self,
        state: &mut PartitionState<R>,
        by: Fence,
    ) -> Result<bool, ActorProcessingErr> {
        let newest = match state.publishers.get_mut(&by.partition) {
            Some(newest) => newest,
            None => {
                let ports = &self.context.ports;
                let epoch = read(&ports.metrics, || ports.log.epoch(by.partition)).await?;
                state.publishers.entry(by.partition).or_insert(epoch)
            }
        };
        *newest = by.epoch.max(*newest);
        let stray = by.epoch < *newest;
        if stray {
            self.context.ports.metrics.fenced_record();
        }
        Ok(stray)
    }

    /// Notifies the entities whose barrier has been passed: everything below its offset has been delivered.
    pub(super) fn pass_barriers(
        &self,
        myself: &ActorRef<PartitionMessage<R::Key>>,
        state: &mut PartitionState<R>,
    ) -> Result<(), ActorProcessingErr> {
        let delivered = state.delivered;
        let passed: Vec<_> = state.barriers.extract_if(.., |(below, _)| *below <= delivered).collect();
        for (below, key) in passed {
            // What is parked of it is below as well.
            if state.parking.may_hold() && state.parking.may_be_held(&key.to_string()) {
                state.barriers.push((below, key));
                continue;
            }
            if let Some(message) = R::passed(below) {
                self.give(myself, state, key, message)?;
            }
        }
        Ok(())
    }
}
