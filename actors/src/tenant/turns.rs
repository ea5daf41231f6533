//! Permits for a tenant's turns, so that no tenant takes more than its share of a node.
//!
//! A turn that leaves the conversation's own work (retrieval, a responder) first gets a permit here. At most
//! `turns_per_tenant` of a tenant hold one; the others wait in the order they came. They wait as agenda entries already
//! written, so a crash loses none, and the partition bounds the number that waits at once. A tenant without turns costs
//! nothing: its state is dropped with its last permit.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use heddle_schemas::id::TenantId;
use tokio::sync::oneshot;

/// The right to work on one turn. Dropping it passes it on.
#[derive(Debug)]
pub struct TurnPermit {
    turns: Arc<TenantTurns>,
    tenant: TenantId,
}

impl Drop for TurnPermit {
    fn drop(&mut self) {
        let next = self.turns.lock().release(&self.tenant);
        if let Some(waiting) = next {
            let (turns, tenant) = (self.turns.clone(), self.tenant.clone());
            // A waiter that has gone passes the permit on by dropping it.
            drop(waiting.send(Self { turns, tenant }));
        }
    }
}

/// Turns of one tenant.
#[derive(Debug)]
struct Turns<T> {
    running: usize,
    /// Waiters in the order of their requests. Bounded by the agenda entries of its partitions in work.
    waiting: VecDeque<T>,
}

/// Turns of all tenants that have some: pure, so that fairness is tested without a runtime.
#[derive(Debug)]
struct Share<T> {
    limit: NonZeroUsize,
    /// Tenants with a turn that holds a permit; no others.
    tenants: HashMap<TenantId, Turns<T>>,
    /// True when no more turn is admitted.
    is_over: bool,
}

impl<T> Share<T> {
    fn new(limit: NonZeroUsize) -> Self {
        Self { limit, tenants: HashMap::new(), is_over: false }
    }

    /// Takes a permit if one is free; otherwise the caller waits. Returns the waiter that may run now.
    fn ask(&mut self, tenant: &TenantId, asking: T) -> Option<T> {
        if self.is_over {
            return None;
        }
        match self.tenants.get_mut(tenant) {
            Some(turns) if turns.running >= self.limit.get() => {
                turns.waiting.push_back(asking);
                None
            }
            Some(turns) => {
                turns.running += 1;
                Some(asking)
            }
            None => {
                self.tenants.insert(tenant.clone(), Turns { running: 1, waiting: VecDeque::new() });
                Some(asking)
            }
        }
    }

    /// Releases a permit. Returns the waiter that has it from now on.
    fn release(&mut self, tenant: &TenantId) -> Option<T> {
        let turns = self.tenants.get_mut(tenant)?;
        let next = turns.waiting.pop_front();
        if next.is_none() {
            turns.running -= 1;
            if turns.running == 0 {
                self.tenants.remove(tenant);
            }
        }
        next
    }
}

/// The turns of a node's tenants.
#[derive(Debug)]
pub struct TenantTurns {
    share: Mutex<Share<oneshot::Sender<TurnPermit>>>,
}

impl TenantTurns {
    /// Returns permits for at most `limit` turns of one tenant at once.
    #[must_use]
    pub fn new(limit: NonZeroUsize) -> Arc<Self> {
        Arc::new(Self { share: Mutex::new(Share::new(limit)) })
    }

    fn lock(&self) -> MutexGuard<'_, Share<oneshot::Sender<TurnPermit>>> {
        self.share.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the right to work on a turn of this tenant; `None` when the node is shutting down.
    pub async fn admit(self: &Arc<Self>, tenant: &TenantId) -> Option<TurnPermit> {
        let (asking, permit) = oneshot::channel();
        let admitted = self.lock().ask(tenant, asking);
        if let Some(asking) = admitted {
            let (turns, tenant) = (self.clone(), tenant.clone());
            // It is waited for right below.
            drop(asking.send(TurnPermit { turns, tenant }));
        }
        permit.await.ok()
    }

    /// Returns the number of tenants with turns.
    #[must_use]
    pub fn tenants(&self) -> usize {
        self.lock().tenants.len()
    }

    /// Ends admission, also of turns that wait.
    pub fn stop(&self) {
        let tenants = {
            let mut share = self.lock();
            share.is_over = true;
            std::mem::take(&mut share.tenants)
        };
        drop(tenants);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use futures::FutureExt as _;
    use proptest::prelude::*;

    use super::*;

    fn tenant(number: usize) -> TenantId {
        format!("tenant-{number}").parse().unwrap()
    }

    #[test]
    fn turns_run_in_the_order_they_asked_and_never_over_the_limit() {
        let mut share = Share::new(NonZeroUsize::new(2).unwrap());
        let acme = tenant(1);
        assert_eq!([1, 2, 3, 4].map(|turn| share.ask(&acme, turn)), [Some(1), Some(2), None, None]);
        assert_eq!(share.ask(&tenant(2), 5), Some(5), "another tenant has its own share");
        assert_eq!(share.release(&acme), Some(3));
        assert_eq!(share.release(&acme), Some(4));
        assert_eq!(share.release(&acme), None);
    }

    #[test]
    fn idle_tenants_cost_nothing_and_a_waiter_that_has_gone_passes_the_permit_on() {
        let turns = TenantTurns::new(NonZeroUsize::MIN);
        for number in 0..1_000 {
            let permit = turns.admit(&tenant(number)).now_or_never().flatten();
            assert_eq!((permit.is_some(), turns.tenants()), (true, 1));
        }
        assert_eq!(turns.tenants(), 0);
        let acme = tenant(1);
        let permit = turns.admit(&acme).now_or_never().flatten();
        assert!(turns.admit(&acme).now_or_never().is_none(), "it waits, and then no longer");
        let (mut first, mut second) = (Box::pin(turns.admit(&acme)), Box::pin(turns.admit(&acme)));
        assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
        drop(first);
        drop(permit);
        assert!(second.now_or_never().flatten().is_some());
        assert_eq!(turns.tenants(), 0);
        turns.stop();
        assert!(turns.admit(&acme).now_or_never().flatten().is_none());
    }

    proptest! {
        /// For requests and releases in any order: no tenant is over its limit, each waiter runs in its turn, no free
        /// permit is left unused, and only tenants with turns are kept.
        #[test]
        fn permits_are_neither_lost_nor_doubled(
            limit in 1_usize..4,
            steps in proptest::collection::vec((any::<bool>(), 0_usize..3), 0..120),
        ) {
            let mut share = Share::new(NonZeroUsize::new(limit).unwrap());
            let (mut running, mut waiting) = (BTreeMap::new(), BTreeMap::<usize, VecDeque<usize>>::new());
            for (turn, (asks, of)) in steps.into_iter().enumerate() {
                let (running, waiting) = (running.entry(of).or_insert(0), waiting.entry(of).or_default());
                if asks {
                    let admitted = share.ask(&tenant(of), turn);
                    prop_assert_eq!(admitted.is_some(), *running < limit);
                    match admitted {
                        Some(_) => *running += 1,
                        None => waiting.push_back(turn),
                    }
                } else if *running > 0 {
                    let next = share.release(&tenant(of));
                    prop_assert_eq!(next, waiting.pop_front());
                    *running -= usize::from(next.is_none());
                }
                prop_assert_eq!(share.tenants.contains_key(&tenant(of)), *running > 0);
            }
        }
    }
}
