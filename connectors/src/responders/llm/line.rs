//! Queue of a provider key on this node: decides which call may use the key next, and when.
//!
//! Calls that wait for room in its limits wait in a queue, one of each tenant in turn, so that no tenant waits
//! for more than one call of each other one. The limits are this node's share of them ([`super::shares`]), which
//! a task renews while there are calls, in a row that all nodes change by conditional update. Without
//! a lease no call is made.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use heddle_schemas::id::TenantId;
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::state::{State, StoreError, Swap};
use heddle_schemas::record::encode;
use heddle_schemas::table::Key;
use heddle_schemas::time::LogThrottle;
use tokio::sync::{Notify, watch};

use super::allowance::{self, Allowance, Denied, Limits};
use super::breaker::Breaker;
use super::queue::Queue;
use super::shares::{LEASE, RENEWAL, Shares, Use};
use super::{Refusal, lock};

/// Time that calls wait for a key whose provider has closed it for a while.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time before the end of a lease at which calls under it end: a call may take that long to arrive.
const ARRIVAL: Duration = Duration::from_secs(1);
/// The shortest time between two renewals, where more is wanted than the share has.
const EAGER: Duration = Duration::from_millis(250);

/// State that the lines of a node share.
pub(super) struct Sharing {
    pub(super) state: Arc<dyn State>,
    pub(super) clock: Arc<dyn Clock>,
    /// The node's name and process, such as `a/0011…`.
    pub(super) node: String,
}

/// Use of this node, its allowance a minute, and the end of that allowance: under one lock, so that a share
/// that shrinks is never stored beside a use that it does not cover.
#[derive(Debug)]
struct Room {
    allowance: Allowance,
    may: Limits,
    until: Duration,
    /// Nodes that share the key, this one among them.
    nodes: u64,
}

const ZERO_LIMITS: Limits = Limits { requests: 0, tokens: 0 };
/// Limits of a reservation that was checked against others before.
const UNLIMITED: Limits = Limits { requests: u64::MAX, tokens: u64::MAX };
/// Tenants of a key that are remembered before those without use are dropped; from then on when they are twice as many.
const TENANTS: usize = 256;

/// A reservation: in the key's allowance, and in the tenant's own.
#[derive(Debug, Clone)]
pub(super) struct Reservation {
    of_key: allowance::Reservation,
    of_tenant: Option<allowance::Reservation>,
    own: Arc<Mutex<Allowance>>,
}

/// Use of a key by one tenant, on this node.
#[derive(Debug, Default)]
struct Own {
    allowance: Arc<Mutex<Allowance>>,
    /// Calls that wait for the tenant's own limit.
    queue: Queue,
}

impl Own {
    /// Waits until the tenant's own limit has room.
    async fn wait(&self, tenant: &TenantId, limits: Limits, tokens: u64, sharing: &Sharing, line: &Line) {
        let mut turn = None;
        let mut changes = line.changed.subscribe();
        loop {
            changes.mark_unchanged();
            let limits = own_limits(limits, line.most(limits), lock(&line.room).nodes);
            // A call that is larger than this node's part may have all of it.
            let limits = Limits { tokens: limits.tokens.max(tokens), ..limits };
            let wait = match lock(&self.allowance).check(limits, tokens, sharing.clock.elapsed()) {
                Err(Denied::For(wait)) => wait,
                _ => return,
            };
            if turn.is_none() {
                turn = Some(self.queue.turn(tenant).await);
                continue;
            }
            let _ = tokio::time::timeout(wait, changes.changed()).await;
        }
    }
}

/// Returns a tenant's own limits on one of the nodes that share a key: an equal part, rounded up, where they are lower than
/// `most`, those of the key. Rounded up, the nodes together may let a tenant have some requests more than its limit; the
/// key's limits always hold.
fn own_limits(own: Limits, most: Limits, nodes: u64) -> Limits {
    let part = |own: u64, most: u64| if own >= most { u64::MAX } else { own.div_ceil(nodes.max(1)) };
    Limits { requests: part(own.requests, most.requests), tokens: part(own.tokens, most.tokens) }
}

/// Tenants of a key.
#[derive(Debug)]
struct Tenants {
    known: HashMap<TenantId, Arc<Own>>,
    sweep_at: usize,
}

/// A provider key.
pub(super) struct Line {
    key: Key,
    room: Mutex<Room>,
    pub(super) breaker: Mutex<Breaker>,
    queue: Queue,
    tenants: Mutex<Tenants>,
    /// Counts the changes of the room and of the share.
    changed: watch::Sender<u64>,
    /// Limits that the callers have configured, and the tokens that the next of them needs.
    demand: Mutex<Demand>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Demand {
    limits: Option<Limits>,
    need: u64,
    /// True while a task renews the lease.
    kept: bool,
}

impl Line {
    pub(super) fn new(hash: &[u8; 32]) -> Self {
        Self {
            key: Key::limit(hash),
            room: Mutex::new(Room {
                allowance: Allowance::default(),
                may: ZERO_LIMITS,
                until: Duration::ZERO,
                nodes: 1,
            }),
            breaker: Mutex::default(),
            queue: Queue::default(),
            tenants: Mutex::new(Tenants { known: HashMap::new(), sweep_at: TENANTS }),
            changed: watch::Sender::default(),
            demand: Mutex::default(),
            more: Notify::new(),
        }
    }

    /// Returns true if none of its uses counts and no call waits.
    pub(super) fn is_idle(&self, now: Duration) -> bool {
        !lock(&self.demand).kept && lock(&self.room).allowance.is_idle(now)
    }

    /// Waits for room for a call of `tokens` tokens.
    ///
    /// A tenant that has configured less than the key's callers together waits for its own limit beside the queue, so
    /// that it holds up no other tenant.
    pub(super) async fn reserve(
        self: &Arc<Self>,
        sharing: &Arc<Sharing>,
        tenant: &TenantId,
        limits: Limits,
        tokens: u64,
    ) -> Result<Reservation, Refusal> {
        if tokens > limits.tokens {
            return Err(Refusal::Final("the question has more tokens than tokens_per_minute".into()));
        }
        let own = self.own(tenant, sharing.clock.elapsed());
        loop {
            own.wait(tenant, limits, tokens, sharing, self).await;
            let turn = self.queue.turn(tenant).await;
            self.ask(sharing, limits, tokens);
            let reserved = self.in_turn(sharing, &own.allowance, limits, tokens).await?;
            drop(turn);
            if let Some(reservation) = reserved {
                return Ok(reservation);
            }
        }
    }

    /// Waits for room in the key's limits; `None` where the tenant's own limit has been used up meanwhile.
    async fn in_turn(
        &self,
        sharing: &Sharing,
        allowance: &Arc<Mutex<Allowance>>,
        limits: Limits,
        tokens: u64,
    ) -> Result<Option<Reservation>, Refusal> {
        let mut changes = self.changed.subscribe();
        loop {
            changes.mark_unchanged();
            let (now, most) = (sharing.clock.elapsed(), self.most(limits));
            let denied = {
                let mut room = lock(&self.room);
                let may = room.may;
                let mut of_tenant = lock(allowance);
                let own = own_limits(limits, most, room.nodes);
                let own = Limits { tokens: own.tokens.max(tokens), ..own };
                if matches!(of_tenant.check(own, tokens, now), Err(Denied::For(_))) {
                    return Ok(None);
                }
                match room.until > now {
                    true => match room.allowance.reserve(may, tokens, now) {
                        Ok(of_key) => {
                            // It was checked above.
                            let of_tenant = of_tenant.reserve(UNLIMITED, tokens, now).ok();
                            return Ok(Some(Reservation { of_key, of_tenant, own: allowance.clone() }));
                        }
                        Err(denied) => Some(denied),
                    },
                    false => None,
                }
            };
            let wait = match denied {
                // Another model may answer meanwhile.
                Some(Denied::Held(wait)) if wait > PATIENCE => return Err(Refusal::Busy(Some(wait))),
                Some(Denied::For(wait) | Denied::Held(wait)) => wait,
                Some(Denied::Never) | None => LEASE,
            };
            if !matches!(denied, Some(Denied::Held(_))) {
                self.more.notify_one();
            }
            // Either of the two is a reason to look again.
            let _ = tokio::time::timeout(wait, changes.changed()).await;
        }
    }

    /// The limits that the key's callers have configured, the larger of each.
    fn most(&self, limits: Limits) -> Limits {
        let most = lock(&self.demand).limits.unwrap_or(limits);
        Limits { requests: most.requests.max(limits.requests), tokens: most.tokens.max(limits.tokens) }
    }

    /// Returns a tenant's own part of the key.
    fn own(&self, tenant: &TenantId, now: Duration) -> Arc<Own> {
        let mut tenants = lock(&self.tenants);
        if tenants.known.len() >= tenants.sweep_at {
            tenants.known.retain(|_, own| Arc::strong_count(own) > 1 || !lock(&own.allowance).is_idle(now));
            tenants.sweep_at = (tenants.known.len() * 2).max(TENANTS);
        }
        tenants.known.entry(tenant.clone()).or_default().clone()
    }

    fn ask(self: &Arc<Self>, sharing: &Arc<Sharing>, limits: Limits, tokens: u64) {
        let mut demand = lock(&self.demand);
        // A tenant that has configured a lower limit is held to that as well.
        let most = demand.limits.unwrap_or(limits);
        demand.limits = Some(Limits {
            requests: most.requests.max(limits.requests),
            tokens: most.tokens.max(limits.tokens),
        });
        demand.need = tokens;
        if !demand.kept {
            demand.kept = true;
            tokio::spawn(keep(self.clone(), Arc::downgrade(sharing)));
        }
    }

    /// Records the number of tokens that a call has used in fact.
    pub(super) fn settle(&self, reservation: &Reservation, tokens: u64) {
        lock(&self.room).allowance.settle(reservation.of_key, tokens);
        if let Some(of_tenant) = reservation.of_tenant {
            lock(&reservation.own).settle(of_tenant, tokens);
        }
    }

    /// Holds all calls until then, because the provider said so.
    pub(super) fn hold(&self, until: Duration) {
        lock(&self.room).allowance.hold(until);
    }

    fn used(&self, room: &mut Room, now: Duration) -> Use {
        let (requests, tokens) = room.allowance.used(now);
        let waiting = self.queue.len() as u64;
        let need = if waiting == 0 { 0 } else { lock(&self.demand).need };
        Use { requests, tokens, waiting, need }
    }

    /// Renews the share, or releases it if there are no calls any more. Returns true if it is kept.
    async fn renew(&self, sharing: &Sharing) -> Result<bool, StoreError> {
        loop {
            let stored = sharing.state.get(&self.key).await?;
            let mut shares = match &stored {
                Some(stored) => serde_json::from_slice(stored).map_err(|error| StoreError::Corrupt {
                    detail: format!("{:?}: no shares of a limit: {error}", self.key),
                })?,
                None => Shares::new(),
            };
            let began = sharing.clock.elapsed();
            let may = {
                let mut room = lock(&self.room);
                let used = self.used(&mut room, began);
                let limits = lock(&self.demand).limits.filter(|_| used != Use::default());
                let may = match limits {
                    Some(limits) => Some(shares.renew(&sharing.node, limits, used, sharing.clock.now())),
                    None => {
                        shares.leave(&sharing.node);
                        None
                    }
                };
                // Less holds at once, more when it is stored.
                room.may = room.may.least(may.unwrap_or(ZERO_LIMITS));
                may
            };
            let new = (!shares.is_empty()).then(|| encode(&shares));
            if new == stored {
                return Ok(may.is_some());
            }
            if sharing.state.compare_and_set(&self.key, stored, new, None).await? == Swap::Done {
                if let Some(may) = may {
                    let mut room = lock(&self.room);
                    room.nodes = shares.nodes(sharing.clock.now());
                    (room.may, room.until) = (may, began + LEASE.saturating_sub(ARRIVAL));
                    drop(room);
                    self.changed.send_modify(|changes| *changes += 1);
                }
                return Ok(may.is_some());
            }
        }
    }
}

/// Keeps a line's share for as long as there are calls.
async fn keep(line: Arc<Line>, sharing: Weak<Sharing>) {
    while let Some(sharing) = sharing.upgrade() {
        match line.renew(&sharing).await {
            Ok(true) => {}
            Ok(false) => {
                let mut demand = lock(&line.demand);
                if line.queue.len() == 0 {
                    *demand = Demand::default();
                    return;
                }
            }
            Err(error) => {
                static THROTTLE: LogThrottle = LogThrottle::new();
                if THROTTLE.lets_through() {
                    tracing::warn!(
                        %error,
                        "the lease of a provider's limits cannot be renewed; retrying, no call is made without it"
                    );
                }
            }
        }
        drop(sharing);
        tokio::time::sleep(EAGER).await;
        let _ = tokio::time::timeout(RENEWAL.saturating_sub(EAGER), line.more.notified()).await;
    }
}
