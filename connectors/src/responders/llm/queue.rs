//! Queue that serves one call of each tenant in turn.
//!
//! The turn is a guard; dropping it gives it to the next.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use heddle_schemas::id::TenantId;
use tokio::sync::oneshot;

use super::lock;

/// Waiting callers, in the order in which they are served: tenants in a ring, each with its callers.
#[derive(Debug)]
struct Rounds<T> {
    ring: VecDeque<TenantId>,
    waiting: HashMap<TenantId, VecDeque<T>>,
    busy: bool,
}

impl<T> Default for Rounds<T> {
    fn default() -> Self {
        Self { ring: VecDeque::new(), waiting: HashMap::new(), busy: false }
    }
}

impl<T> Rounds<T> {
    fn push(&mut self, tenant: &TenantId, waiting: T) {
        let of_tenant = self.waiting.entry(tenant.clone()).or_default();
        if of_tenant.is_empty() {
            self.ring.push_back(tenant.clone());
        }
        of_tenant.push_back(waiting);
    }

    /// The next one, of the tenant that was served least lately.
    fn pop(&mut self) -> Option<T> {
        let tenant = self.ring.pop_front()?;
        let of_tenant = self.waiting.get_mut(&tenant)?;
        let next = of_tenant.pop_front();
        if of_tenant.is_empty() {
            self.waiting.remove(&tenant);
        } else {
            self.ring.push_back(tenant);
        }
        next
    }

    fn len(&self) -> usize {
        self.waiting.values().map(VecDeque::len).sum::<usize>() + usize::from(self.busy)
    }
}

/// The queue. Clones are one.
#[derive(Debug, Clone, Default)]
pub(super) struct Queue(Arc<Mutex<Rounds<oneshot::Sender<Turn>>>>);

/// The turn.
#[derive(Debug)]
pub(super) struct Turn(Queue);

impl Queue {
    /// Waits for the turn of one of this tenant.
    pub(super) async fn turn(&self, tenant: &TenantId) -> Turn {
        let turn = {
            let mut rounds = lock(&self.0);
            if !rounds.busy {
                rounds.busy = true;
                return Turn(self.clone());
            }
            let (asking, turn) = oneshot::channel();
            rounds.push(tenant, asking);
            turn
        };
        turn.await.expect("a waiting caller is in the queue until it is served")
    }

    /// Waiting callers, and the one that has the turn.
    pub(super) fn len(&self) -> usize {
        lock(&self.0).len()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let next = {
            let mut rounds = lock(&self.0.0);
            let next = rounds.pop();
            rounds.busy = next.is_some();
            next
        };
        if let Some(next) = next {
            // A caller that does not wait any more drops the turn, which passes it on.
            drop(next.send(Self(self.0.clone())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        name.parse().unwrap()
    }

    #[test]
    fn one_of_each_tenant_after_the_other() {
        let mut rounds = Rounds::default();
        for number in 0..1_000 {
            rounds.push(&tenant("crowd"), number);
        }
        rounds.push(&tenant("a"), 2_000);
        rounds.push(&tenant("b"), 3_000);
        rounds.push(&tenant("b"), 3_001);
        let served: Vec<_> = std::iter::from_fn(|| rounds.pop()).take(7).collect();
        assert_eq!(served, [0, 2_000, 3_000, 1, 3_001, 2, 3]);
    }

    #[tokio::test]
    async fn a_caller_that_leaves_blocks_no_other() {
        let queue = Queue::default();
        let first = queue.turn(&tenant("a")).await;
        let impatient = tokio::spawn({
            let queue = queue.clone();
            async move { drop(queue.turn(&tenant("a")).await) }
        });
        let patient = tokio::spawn({
            let queue = queue.clone();
            async move { drop(queue.turn(&tenant("b")).await) }
        });
        tokio::task::yield_now().await;
        assert_eq!(queue.len(), 3);
        impatient.abort();
        drop(first);
        patient.await.unwrap();
        assert_eq!(queue.len(), 0);
    }
}
