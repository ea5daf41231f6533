//! Due agenda rows: read into the window, fired, and the next look.

use std::str::FromStr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use heddle_schemas::ports::log::StoreError;
use heddle_schemas::ports::state::Scan;
use heddle_schemas::table::{Partition as Rows, agenda_bound};
use heddle_schemas::time::Timestamp;
use ractor::{ActorProcessingErr, ActorRef};

use super::{
    AGENDA_READ, EntityKind, HELD_PAUSE, LOOK, Partition, PartitionMessage, PartitionState, READS_AT_ONCE,
    RETURN_PAUSE,
};
use crate::partition::agenda::{Laned, Place, Wanted};
use crate::partition::commit::read;

impl<R: EntityKind> Partition<R> {
    /// Wakes due entities, sets the next tick, and ends a drained partition.
    pub(super) async fn look(
        &self,
        myself: &ActorRef<PartitionMessage<R::Key>>,
        state: &mut PartitionState<R>,
    ) -> Result<(), ActorProcessingErr> {
        let now = self.context.ports.clock.now();
        if state.draining.is_some() {
            if state.work.records.load(Ordering::Acquire) == 0 && state.agenda.in_work() == 0 {
                state.draining.take().map(|done| done.send(()));
                myself.stop(None);
                return Ok(());
            }
            self.tick_at(myself, state, now, now.after(Duration::from_millis(10)));
            return Ok(());
        }
        // What was found in the log may be older than what is parked.
        let caught_up = state.delivered >= state.taken_over_at;
        let returns = caught_up && self.return_parked(myself, state).await?;
        self.pass_barriers(myself, state)?;
        let latest = now.after(if returns { RETURN_PAUSE } else { LOOK });
        if !caught_up {
            // What was found in the log comes first: entities rely on it for their order.
            self.tick_at(myself, state, now, latest);
            return Ok(());
        }
        for _ in 0..READS_AT_ONCE {
            let Some(wanted) = state.agenda.wants(now) else { break };
            self.read_agenda(state, &wanted).await?;
        }
        for entry in state.agenda.take_due(now) {
            if R::RESTS_WHILE_HELD && state.parking.may_hold() && self.is_held(state, &entry.key).await? {
                state.agenda.answered(entry, Some(now.after(HELD_PAUSE)));
                continue;
            }
            self.give(myself, state, entry.key.clone(), R::wake(entry))?;
        }
        state.agenda_reported.set(state.agenda.len());
        // Where there is no room, what frees some looks again.
        self.tick_at(myself, state, now, state.agenda.next().map_or(latest, |next| next.min(latest)));
        Ok(())
    }

    pub(super) fn tick_at(
        &self,
        myself: &ActorRef<PartitionMessage<R::Key>>,
        state: &mut PartitionState<R>,
        now: Timestamp,
        at: Timestamp,
    ) {
        if state.tick.as_ref().is_some_and(|(set, _)| *set <= at && *set > now) {
            return;
        }
        if let Some((_, later)) = state.tick.take() {
            later.abort();
        }
        // A clock in milliseconds wakes early otherwise, and finds nothing due.
        let wait = at.since(now).max(Duration::from_millis(1));
        state.tick = Some((at, myself.send_after(wait, || PartitionMessage::Tick)));
    }

    pub(super) async fn read_agenda(
        &self,
        state: &mut PartitionState<R>,
        wanted: &Wanted<<R::Key as Laned>::Lane>,
    ) -> Result<(), StoreError> {
        let limit = wanted.rows.min(AGENDA_READ);
        let mut from = agenda_bound(wanted.from.due).to_vec();
        from.extend_from_slice(wanted.from.name.as_bytes());
        let scan = Scan { from: from.into(), ..Scan::first(Rows::agenda(self.fence.partition), limit) };
        let ports = &self.context.ports;
        let rows = read(&ports.metrics, || ports.state.scan(&scan)).await?;
        let is_complete = rows.len() < limit;
        let next = rows.iter().rev().find_map(|(key, _)| place_behind(key.row())).filter(|_| !is_complete);
        let rows = rows.iter().filter_map(|(key, _)| agenda_row(key.row())).collect();
        state.agenda.refill(wanted, rows, next);
        Ok(())
    }
}

/// The place right behind an agenda row.
pub(super) fn place_behind(row: &[u8]) -> Option<Place> {
    let (due, key) = row_parts(row)?;
    // No name has this byte, and every longer name that begins alike is behind it.
    Some(Place { due, name: format!("{key}\0") })
}

/// Parses an agenda row's name: eight bytes of due time, then the entity's key as text.
pub(super) fn row_parts(row: &[u8]) -> Option<(Timestamp, &str)> {
    let (due, key) = row.split_first_chunk::<8>()?;
    let due = Timestamp::from_micros(i64::try_from(u64::from_be_bytes(*due)).ok()?);
    Some((due, std::str::from_utf8(key).ok()?))
}

pub(super) fn agenda_row<K: FromStr>(row: &[u8]) -> Option<(Timestamp, K)> {
    let (due, key) = row_parts(row)?;
    Some((due, key.parse().ok()?))
}
