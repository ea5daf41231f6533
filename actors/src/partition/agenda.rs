//! Window in memory of the durable timer: the next due entries of a partition's agenda, shared between tenants.
//!
//! The agenda itself is rows of the state store, one for each entity (conversation or account) that waits, in the order
//! of their due times. This window holds the earliest of them in lanes, one for each tenant. When the window is full,
//! the tenant with the most waiting entries gives way: from some position on (where it has *spilled*) its rows are only
//! in the store, and those of others are read on past them. So a hundred thousand waiting turns of one tenant are
//! skipped once, and delay no other tenant. The number of entries in work at once is shared in the same way.
//!
//! Contract: each row below the place from which on its lane's rows are only in the store is in the window, in
//! work or granted more time, so that none fires twice and none is missed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use heddle_schemas::id::{AccountKey, ConversationId, TenantId};
use heddle_schemas::time::Timestamp;

/// Entity in a lane. Its text is its name in agenda rows.
pub trait Laned: Ord + Clone + Display {
    /// Key of a lane.
    type Lane: Ord + Clone;

    /// In which lane it is.
    fn lane(&self) -> Self::Lane;
}

impl Laned for ConversationId {
    type Lane = TenantId;

    fn lane(&self) -> TenantId {
        self.tenant.clone()
    }
}

impl Laned for AccountKey {
    type Lane = TenantId;

    fn lane(&self) -> TenantId {
        self.tenant.clone()
    }
}

/// Entry: an entity to wake.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry<K> {
    /// When to wake it. Later than `due` when it asked for more time.
    pub fire: Timestamp,
    /// When its row in the store says so: with the key, the row's name.
    pub due: Timestamp,
    /// Entity to wake.
    pub key: K,
}

impl<K> Entry<K> {
    fn is_granted(&self) -> bool {
        self.fire != self.due
    }
}

/// A place in the order of rows: at the row of this name, or before the first one that would be behind it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The row's due time.
    pub due: Timestamp,
    /// Name of the entity; empty before all of that due time.
    pub name: String,
}

impl Place {
    /// Before every row.
    pub const FIRST: Self = Self { due: Timestamp::EPOCH, name: String::new() };

    fn is_at_or_before<K: Display>(&self, due: Timestamp, key: &K) -> bool {
        // The name is made only where the times are equal.
        self.due < due || (self.due == due && (self.name.is_empty() || self.name <= key.to_string()))
    }
}

/// Rows that should be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted<L> {
    /// From where on.
    pub from: Place,
    /// Of which lane; of all that have not spilled where there is none.
    pub lane: Option<L>,
    /// Number of rows at once; where more follow, more are requested.
    pub rows: usize,
}

#[derive(Debug)]
struct Lane<K> {
    entries: BTreeSet<Entry<K>>,
    /// Rows in work, and those granted more time: the store still has them, and they must not come again.
    held: BTreeSet<(Timestamp, K)>,
    /// Number of entries of rows that were granted more time: they stay at any capacity.
    granted: usize,
    /// Number of entries in work.
    in_work: usize,
    /// From here on its rows are only in the store.
    spilled: Option<Place>,
}

impl<K: Laned> Lane<K> {
    fn new() -> Self {
        Self { entries: BTreeSet::new(), held: BTreeSet::new(), granted: 0, in_work: 0, spilled: None }
    }

    fn first(&self) -> Option<Timestamp> {
        self.entries.first().map(|entry| entry.fire)
    }

    /// Returns the number of entries that are as their rows say.
    fn stored(&self) -> usize {
        self.entries.len() - self.granted
    }

    fn insert(&mut self, entry: Entry<K>) {
        let is_granted = entry.is_granted();
        if self.entries.insert(entry) {
            self.granted += usize::from(is_granted);
        }
    }

    fn take_first(&mut self) -> Option<Entry<K>> {
        let entry = self.entries.pop_first()?;
        self.granted -= usize::from(entry.is_granted());
        self.held.insert((entry.due, entry.key.clone()));
        self.in_work += 1;
        Some(entry)
    }

    fn is_over(&self) -> bool {
        self.entries.is_empty() && self.held.is_empty() && self.spilled.is_none()
    }
}

/// The window.
#[derive(Debug)]
pub struct Agenda<K: Laned> {
    lanes: BTreeMap<K::Lane, Lane<K>>,
    /// The lanes with entries, by when the first of them fires.
    firing: BTreeSet<(Timestamp, K::Lane)>,
    spilled: BTreeSet<K::Lane>,
    /// Lanes with entries in work.
    working: usize,
    /// Entries in work.
    in_work: usize,
    /// Entries that are as their rows say.
    stored: usize,
    granted: usize,
    /// From here on all rows are only in the store; `None` when every row has been read.
    horizon: Option<Place>,
    /// Maximum number of entries in the window, not counting those that are granted more time.
    capacity: usize,
    /// Maximum number of one lane's entries in work, however few other lanes there are.
    at_once: usize,
}

impl<K: Laned> Agenda<K> {
    /// A window that knows nothing of the store yet: everything is beyond its horizon.
    #[must_use]
    pub fn new(capacity: usize, at_once: usize) -> Self {
        Self {
            lanes: BTreeMap::new(),
            firing: BTreeSet::new(),
            spilled: BTreeSet::new(),
            working: 0,
            in_work: 0,
            stored: 0,
            granted: 0,
            horizon: Some(Place::FIRST),
            capacity: capacity.max(1),
            at_once: at_once.max(1),
        }
    }

    /// Returns the number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.stored + self.granted
    }

    /// Returns true when there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of entries in work.
    #[must_use]
    pub fn in_work(&self) -> usize {
        self.in_work
    }

    /// Adds an entry whose row has just been written.
    ///
    /// A scan may have read the row before its writer heard that it is durable. It is then in the window already, or
    /// fired and in work; in both cases it is one entry.
    pub fn insert(&mut self, entry: Entry<K>) {
        if self.is_beyond(entry.due, &entry.key) {
            return;
        }
        self.take_in(entry.due, entry.key);
        self.shrink();
    }

    fn is_beyond(&self, due: Timestamp, key: &K) -> bool {
        let beyond =
            |place: &Option<Place>| place.as_ref().is_some_and(|place| place.is_at_or_before(due, key));
        beyond(&self.horizon) || self.lanes.get(&key.lane()).is_some_and(|lane| beyond(&lane.spilled))
    }

    /// An entry has been dealt with: its row is deleted, or it is to fire again at this time for the same row.
    pub fn answered(&mut self, entry: Entry<K>, again: Option<Timestamp>) {
        let name = entry.key.lane();
        let Some(lane) = self.lanes.get_mut(&name) else { return };
        if lane.in_work > 0 {
            lane.in_work -= 1;
            self.in_work -= 1;
            self.working -= usize::from(lane.in_work == 0);
        }
        match again {
            Some(fire) if fire != entry.due => self.put(Entry { fire, ..entry }),
            again => {
                lane.held.remove(&(entry.due, entry.key.clone()));
                if again.is_some() {
                    self.insert(entry);
                }
                self.tidy(&name);
            }
        }
    }

    fn put(&mut self, entry: Entry<K>) {
        self.change(&entry.key.lane(), |lane| lane.insert(entry));
    }

    /// Changes a lane's entries, and updates their counts.
    fn change<T>(&mut self, name: &K::Lane, change: impl FnOnce(&mut Lane<K>) -> T) -> T {
        let lane = self.lanes.entry(name.clone()).or_insert_with(Lane::new);
        let (first, stored, granted) = (lane.first(), lane.stored(), lane.granted);
        let changed = change(lane);
        let now = lane.first();
        self.stored = self.stored - stored + lane.stored();
        self.granted = self.granted - granted + lane.granted;
        if first != now {
            if let Some(first) = first {
                self.firing.remove(&(first, name.clone()));
            }
            if let Some(now) = now {
                self.firing.insert((now, name.clone()));
            }
        }
        changed
    }

    fn spill(&mut self, name: &K::Lane, place: Option<Place>) {
        match &place {
            Some(_) => self.spilled.insert(name.clone()),
            None => self.spilled.remove(name),
        };
        if let Some(lane) = self.lanes.get_mut(name) {
            lane.spilled = place;
        }
        self.tidy(name);
    }

    fn tidy(&mut self, name: &K::Lane) {
        if self.lanes.get(name).is_some_and(Lane::is_over) {
            self.lanes.remove(name);
        }
    }

    /// Drops the latest rows of the longest lane as long as there are too many.
    fn shrink(&mut self) {
        while self.stored > self.capacity {
            let longest = self.lanes.iter().max_by_key(|(_, lane)| lane.stored());
            let Some((name, lane)) = longest else { return };
            // Only entries that are as their rows say: that another was granted more time is known nowhere else.
            let latest = lane.entries.iter().rev().find(|entry| !entry.is_granted());
            let Some(due) = latest.map(|entry| entry.due) else { return };
            let name = name.clone();
            self.change(&name, |lane| lane.entries.retain(|entry| entry.is_granted() || entry.due < due));
            self.spill(&name, Some(Place { due, name: String::new() }));
        }
    }

    /// Returns the number of a lane's entries that may be in work now, so that there is room for others.
    fn share(&self) -> usize {
        (self.capacity / self.working.max(1)).clamp(1, self.at_once)
    }

    /// Takes out the entries that are due, the earliest first, but none of a lane that has its share in work.
    pub fn take_due(&mut self, now: Timestamp) -> Vec<Entry<K>> {
        let mut due = Vec::new();
        loop {
            let share = self.share();
            let has_room = |name: &K::Lane| self.lanes.get(name).is_some_and(|lane| lane.in_work < share);
            let next =
                self.firing.iter().take_while(|(fire, _)| *fire <= now).find(|(_, name)| has_room(name));
            let Some(name) = next.map(|(_, name)| name.clone()) else { return due };
            let taken = self.change(&name, |lane| lane.take_first().map(|entry| (entry, lane.in_work)));
            let Some((entry, of_lane)) = taken else { return due };
            self.in_work += 1;
            self.working += usize::from(of_lane == 1);
            due.push(entry);
        }
    }

    /// When the next entry that may be taken out is due, or when rows have to be read.
    #[must_use]
    pub fn next(&self) -> Option<Timestamp> {
        let share = self.share();
        let lane = |name: &K::Lane| self.lanes.get(name).filter(|lane| lane.in_work < share);
        let entry = self.firing.iter().find(|(_, name)| lane(name).is_some()).map(|(fire, _)| *fire);
        let spilled = self.spilled.iter().filter_map(|name| Some(lane(name)?.spilled.as_ref()?.due)).min();
        let horizon = self.horizon.as_ref().map(|horizon| horizon.due);
        [entry, spilled, horizon].into_iter().flatten().min()
    }

    /// Returns the number of entries of each lane when all have the same number.
    fn fair(&self) -> usize {
        (self.capacity / self.lanes.len().max(1)).max(1)
    }

    /// Returns the number of a lane's rows to add at once.
    fn room(&self, lane: &Lane<K>) -> usize {
        self.fair().saturating_sub(lane.stored()).max(1)
    }

    /// Returns the rows that should be read now, for [`Agenda::refill`].
    #[must_use]
    pub fn wants(&self, now: Timestamp) -> Option<Wanted<K::Lane>> {
        if let Some(horizon) = &self.horizon
            && (self.stored <= self.capacity / 2 || horizon.due <= now)
        {
            return Some(Wanted { from: horizon.clone(), lane: None, rows: self.capacity });
        }
        let (share, few) = (self.share(), self.fair() / 2);
        self.spilled.iter().find_map(|name| {
            let lane = self.lanes.get(name)?;
            let from = lane.spilled.clone()?;
            let waits = from.due <= now && lane.first().is_none_or(|first| first > now);
            let wants = lane.in_work < share && (lane.stored() <= few || waits);
            // One more shows where the lane goes on.
            let rows = self.room(lane) + 1;
            wants.then(|| Wanted { from, lane: Some(name.clone()), rows })
        })
    }

    /// Adds the rows that were read as [`Agenda::wants`] said, in their order; `next` is the position behind the last
    /// of them, and `None` when no more rows follow.
    pub fn refill(&mut self, wanted: &Wanted<K::Lane>, rows: Vec<(Timestamp, K)>, next: Option<Place>) {
        match &wanted.lane {
            None => {
                self.horizon = next;
                for (due, key) in rows {
                    let lane = self.lanes.get(&key.lane());
                    if lane.is_none_or(|lane| lane.spilled.is_none()) {
                        self.take_in(due, key);
                        self.shrink();
                    }
                }
            }
            Some(name) => self.refill_lane(name, rows, next),
        }
    }

    fn refill_lane(&mut self, name: &K::Lane, rows: Vec<(Timestamp, K)>, next: Option<Place>) {
        let mut room = self.lanes.get(name).map_or(1, |lane| self.room(lane));
        let mut from = next;
        for (due, key) in rows {
            if self.horizon.as_ref().is_some_and(|horizon| horizon.is_at_or_before(due, &key)) {
                break;
            }
            if key.lane() != *name {
                continue;
            }
            if room == 0 {
                from = Some(Place { due, name: key.to_string() });
                break;
            }
            self.take_in(due, key);
            room -= 1;
        }
        // Rows beyond the horizon come with the rows of all.
        let is_inside = |place: &Place| self.horizon.as_ref().is_none_or(|horizon| place < horizon);
        self.spill(name, from.filter(is_inside));
    }

    fn take_in(&mut self, due: Timestamp, key: K) {
        self.change(&key.lane(), |lane| {
            if !lane.held.contains(&(due, key.clone())) {
                lane.insert(Entry { fire: due, due, key });
            }
        });
    }
}

#[cfg(test)]
mod tests;
