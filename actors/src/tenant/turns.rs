//! The tenant actor: shares a tenant's turns out, so that no tenant takes more than its share.
//!
//! A turn that leaves the conversation's own work (retrieval, a responder) first gets a permit here.
//! At most `turns_per_tenant` hold one; the others wait in the order they came. They wait as agenda
//! entries already written, so a crash loses none, and the partition bounds how many wait at once.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use heddle_schemas::id::TenantId;
use ractor::{Actor, ActorProcessingErr, ActorRef, ActorRuntime, ActorStatus};
use tokio::sync::oneshot;

/// What a tenant actor is asked.
#[derive(Debug)]
pub enum TenantMessage {
    /// A turn asks for a permit.
    Admit(oneshot::Sender<TurnPermit>),
    /// A permit was given back.
    Release,
}

/// The right to work on one turn. Dropping it gives it back.
#[derive(Debug)]
pub struct TurnPermit(ActorRef<TenantMessage>);

impl Drop for TurnPermit {
    fn drop(&mut self) {
        // It fails only when the actor is gone, and its count with it.
        drop(self.0.send_message(TenantMessage::Release));
    }
}

/// The queue of a tenant: pure, so that fairness can be tested without a runtime.
#[derive(Debug)]
struct Turns<T> {
    running: usize,
    limit: NonZeroUsize,
    waiting: VecDeque<T>,
}

impl<T> Turns<T> {
    /// Takes in who asks, and returns who may run now.
    fn ask(&mut self, asking: T) -> Option<T> {
        self.waiting.push_back(asking);
        self.next()
    }

    /// Takes back a permit, and returns who may run now.
    fn release(&mut self) -> Option<T> {
        self.running = self.running.saturating_sub(1);
        self.next()
    }

    fn next(&mut self) -> Option<T> {
        if self.running >= self.limit.get() {
            return None;
        }
        let next = self.waiting.pop_front()?;
        self.running += 1;
        Some(next)
    }
}

struct TenantActor;

impl Actor for TenantActor {
    type Msg = TenantMessage;
    type State = Turns<oneshot::Sender<TurnPermit>>;
    type Arguments = NonZeroUsize;

    async fn pre_start(
        &self,
        _: ActorRef<TenantMessage>,
        limit: NonZeroUsize,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(Turns { running: 0, limit, waiting: VecDeque::new() })
    }

    async fn handle(
        &self,
        myself: ActorRef<TenantMessage>,
        message: TenantMessage,
        turns: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let next = match message {
            TenantMessage::Admit(asking) => turns.ask(asking),
            TenantMessage::Release => turns.release(),
        };
        if let Some(asking) = next {
            // Who no longer waits gives the permit back by dropping it, which asks for the next one.
            drop(asking.send(TurnPermit(myself)));
        }
        Ok(())
    }
}

/// The tenant actors of a node.
#[derive(Debug)]
pub struct TenantActors {
    limit: NonZeroUsize,
    running: Mutex<HashMap<TenantId, ActorRef<TenantMessage>>>,
}

impl TenantActors {
    /// None yet; each starts when it is first asked.
    #[must_use]
    pub fn new(limit: NonZeroUsize) -> Arc<Self> {
        Arc::new(Self { limit, running: Mutex::default() })
    }

    fn actor(&self, tenant: &TenantId) -> Option<ActorRef<TenantMessage>> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(actor) = running.get(tenant)
            && !matches!(actor.get_status(), ActorStatus::Stopped | ActorStatus::Stopping)
        {
            return Some(actor.clone());
        }
        let (actor, _) = ActorRuntime::spawn_instant(None, TenantActor, self.limit).ok()?;
        running.insert(tenant.clone(), actor.clone());
        Some(actor)
    }

    /// Waits for the right to work on a turn of this tenant; `None` when the node is shutting down.
    pub async fn admit(&self, tenant: &TenantId) -> Option<TurnPermit> {
        let (asking, permit) = oneshot::channel();
        self.actor(tenant)?.send_message(TenantMessage::Admit(asking)).ok()?;
        permit.await.ok()
    }

    /// Stops them all.
    pub fn stop(&self) {
        let running = std::mem::take(&mut *self.running.lock().unwrap_or_else(PoisonError::into_inner));
        for actor in running.into_values() {
            actor.stop(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_run_in_the_order_they_asked_and_never_over_the_limit() {
        let limit = NonZeroUsize::new(2).unwrap();
        let mut turns = Turns { running: 0, limit, waiting: VecDeque::new() };
        assert_eq!([turns.ask(1), turns.ask(2), turns.ask(3), turns.ask(4)], [Some(1), Some(2), None, None]);
        assert_eq!(turns.release(), Some(3));
        assert_eq!(turns.release(), Some(4));
        assert_eq!(turns.release(), None);
    }
}
