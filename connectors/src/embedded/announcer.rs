//! The thread that publishes durable changes and answers their callers.
//!
//! It is the writer's other half: while the writer syncs the next group, this shows the last. It gets
//! groups in the order of the journal, and alone decides when a checkpoint begins, since it alone knows
//! what is in memory. Where it waits for a checkpoint, the writer waits for it, and callers for the writer.

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::log::{NewRecord, Record, StoreError};
use heddle_schemas::topic::Epoch;
use tokio::sync::oneshot;

use super::catalog::Place;
use super::changes::Changes;
use super::order::Taken;
use super::rows::Slot;
use super::view::View;

/// Batches that are shown before readers get a turn.
const SHOWN_AT_ONCE: usize = 64;

/// A group that is durable.
#[derive(Debug)]
pub(super) struct Group {
    /// Position of the group's frame.
    pub(super) place: Place,
    /// The bytes of its frame.
    pub(super) bytes: u64,
    /// The epoch that begins with it.
    pub(super) epoch: Option<Epoch>,
    /// The orders in the frame, each with its caller.
    pub(super) taken: Vec<Taken>,
}

/// Message from the writer to the announcer.
#[derive(Debug)]
pub(super) enum Announcement {
    /// A group is durable.
    Group(Group),
    /// Conditional writes that changed nothing and only read the result of earlier groups.
    Found(Vec<Taken>),
    /// Begin a checkpoint if the last one is too old.
    Tend,
    /// Begin a checkpoint.
    Checkpoint(oneshot::Sender<Result<(), StoreError>>),
    /// Answer when everything before is published.
    Barrier(oneshot::Sender<()>),
    /// Write a last checkpoint and end.
    Close(oneshot::Sender<()>),
}

/// The announcer.
pub(super) struct Announcer {
    /// State that readers see.
    pub(super) view: Arc<View>,
    /// Clock that decides what has expired.
    pub(super) clock: Arc<dyn Clock>,
}

impl Announcer {
    /// Runs until it receives [`Announcement::Close`] or the writer ends.
    pub(super) fn run(self, announcements: Receiver<Announcement>) {
        // Also when this thread panics: waiters on the view would otherwise wait for ever.
        let _ended = Ended(&self.view);
        for announcement in announcements {
            let now = self.clock.now();
            match announcement {
                Announcement::Group(group) => {
                    self.show(group);
                    self.view.freeze_if_due(now);
                }
                Announcement::Found(taken) => {
                    for batch in taken {
                        batch.waiting.answer(batch.offsets, Ok(()));
                    }
                }
                Announcement::Tend => self.view.freeze_if_old(now),
                Announcement::Checkpoint(done) => {
                    self.view.freeze_now(now);
                    // No caller waits on this channel; the waiting happens elsewhere.
                    _ = done.send(Ok(()));
                }
                Announcement::Barrier(done) => _ = done.send(()),
                Announcement::Close(done) => {
                    self.view.freeze_now(now);
                    if let Err(error) = self.view.wait_for_checkpoint() {
                        tracing::warn!(%error, "closed without a last checkpoint; the next start replays more");
                    }
                    self.view.stop();
                    _ = done.send(());
                    return;
                }
            }
        }
    }

    /// Publishes a group and answers its callers.
    pub(super) fn show(&self, group: Group) {
        let Group { place, bytes, epoch, mut taken } = group;
        if let Some(epoch) = epoch {
            self.view.show(place, bytes, |changes| changes.begin(epoch));
        }
        let mut batches = taken.drain(..);
        loop {
            let mut some: Vec<_> = batches.by_ref().take(SHOWN_AT_ONCE).collect();
            if some.is_empty() {
                break;
            }
            self.view.show(place, bytes, |changes| {
                for batch in &mut some {
                    apply(changes, batch);
                }
            });
            // The frame is whole only with its last batch; a checkpoint cannot begin before it.
            if batches.len() == 0 {
                self.view.shown_whole(place, bytes);
            }
            for batch in some {
                batch.waiting.answer(batch.offsets, Ok(()));
            }
        }
        if self.view.shown() <= place.sequence {
            self.view.shown_whole(place, bytes);
        }
    }
}

fn apply(changes: &mut Changes<'_>, batch: &mut Taken) {
    for write in batch.writes.drain(..) {
        let key = write.key.into_bytes();
        changes.put(key, Slot { value: write.value, expires: write.expires });
    }
    for (NewRecord { partition, key, value }, &offset) in batch.records.drain(..).zip(&batch.offsets) {
        changes.append(Record { partition, offset, key, value, at: batch.at });
    }
    for (partition, offset) in batch.consumed.drain(..) {
        changes.settle(partition, offset);
    }
}

/// Answers everything in a group that was not written.
pub(super) fn refuse(taken: Vec<Taken>, error: &StoreError) {
    for batch in taken {
        batch.waiting.answer(Vec::new(), Err(error.clone()));
    }
}

struct Ended<'a>(&'a View);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}
