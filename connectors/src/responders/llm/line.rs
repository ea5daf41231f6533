//! Queue of a provider key on this node: decides which call may use the key next, and when.
//!
//! Calls that wait for room in its limits wait in a queue, one of each tenant in turn, so that no tenant waits
//! for more than one call of each other one. The limits are this node's share of them ([`super::shares`]), which
//! a task renews while there are calls, in a row that all nodes change by conditional update. Without
//! a lease no call is made.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use heddle_schemas::id::TenantId;
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::state::{State, StoreError, Swap};
use heddle_schemas::record::encode;
use heddle_schemas::table::Key;
use heddle_schemas::time::LogThrottle;
use tokio::sync::{Notify, watch};

use super::allowance::{Allowance, Denied, Limits, Reservation};
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
}

const ZERO_LIMITS: Limits = Limits { requests: 0, tokens: 0 };

/// A provider key.
pub(super) struct Line {
    key: Key,
    room: Mutex<Room>,
    pub(super) breaker: Mutex<Breaker>,
    queue: Queue,
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
            }),
            breaker: Mutex::default(),
            queue: Queue::default(),
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
        let _turn = self.queue.turn(tenant).await;
        self.ask(sharing, limits, tokens);
        let mut changes = self.changed.subscribe();
        loop {
            changes.mark_unchanged();
            let now = sharing.clock.elapsed();
            let denied = {
                let mut room = lock(&self.room);
                let may = limits.least(room.may);
                match room.until > now {
                    true => match room.allowance.reserve(may, tokens, now) {
                        Ok(reservation) => return Ok(reservation),
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
    pub(super) fn settle(&self, reservation: Reservation, tokens: u64) {
        lock(&self.room).allowance.settle(reservation, tokens);
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
