//! The durable timer's window in memory: what of a partition's agenda is due next.
//!
//! The agenda itself is rows of the state store, one for each resident (conversation or account) that
//! waits. This window holds the earliest of them, at most [`Agenda::capacity`]; entries at or after its
//! horizon are only in the store and come by [`Agenda::refill`]. Every entry below the horizon is in
//! the window or has been taken out by [`Agenda::take_due`], so none fires twice and none is missed.

use std::collections::BTreeSet;

use heddle_schemas::time::Timestamp;

/// One entry: a resident to wake.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry<K> {
    /// When to wake it. Later than `due` when it asked for more time.
    pub fire: Timestamp,
    /// When its row in the store says so: with the key, the row's name.
    pub due: Timestamp,
    /// Whom to wake.
    pub key: K,
}

/// The window.
#[derive(Debug)]
pub struct Agenda<K> {
    window: BTreeSet<Entry<K>>,
    /// Rows due from here on are only in the store; `None` when every row is in the window.
    horizon: Option<Timestamp>,
    capacity: usize,
}

impl<K: Ord + Clone> Agenda<K> {
    /// A window that knows nothing of the store yet: everything is beyond its horizon.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { window: BTreeSet::new(), horizon: Some(Timestamp::EPOCH), capacity: capacity.max(1) }
    }

    /// How many entries the window holds at most.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.window.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.window.is_empty()
    }

    /// Takes in an entry whose row has just been written.
    pub fn insert(&mut self, entry: Entry<K>) {
        if self.horizon.is_some_and(|horizon| entry.due >= horizon) {
            return;
        }
        self.window.insert(entry);
        self.shrink();
    }

    /// Puts back an entry that was taken out and asked for more time; its row is unchanged.
    ///
    /// It stays whatever the capacity, since its row lies below the horizon.
    pub fn put_back(&mut self, entry: Entry<K>) {
        self.window.insert(entry);
    }

    /// Gives up the latest rows when there are too many, and lowers the horizon to them.
    fn shrink(&mut self) {
        if self.window.len() <= self.capacity {
            return;
        }
        // By row time, since the horizon is one of rows; entries with more time granted stay.
        let Some(latest) = self.window.iter().filter(|entry| entry.fire == entry.due).map(|e| e.due).max()
        else {
            return;
        };
        self.window.retain(|entry| entry.fire != entry.due || entry.due < latest);
        self.horizon = Some(self.horizon.map_or(latest, |horizon| horizon.min(latest)));
    }

    /// Takes out at most `limit` entries that are due, the earliest first.
    pub fn take_due(&mut self, now: Timestamp, limit: usize) -> Vec<Entry<K>> {
        let mut due = Vec::new();
        while due.len() < limit && self.window.first().is_some_and(|entry| entry.fire <= now) {
            due.extend(self.window.pop_first());
        }
        due
    }

    /// When the next entry is due; the horizon where the window is empty.
    #[must_use]
    pub fn next(&self) -> Option<Timestamp> {
        match (self.window.first(), self.horizon) {
            (Some(entry), Some(horizon)) => Some(entry.fire.min(horizon)),
            (Some(entry), None) => Some(entry.fire),
            (None, horizon) => horizon,
        }
    }

    /// From which due time rows should be read, when it is time to read some.
    #[must_use]
    pub fn wants(&self, now: Timestamp) -> Option<Timestamp> {
        let horizon = self.horizon?;
        (self.window.len() <= self.capacity / 2 || horizon <= now).then_some(horizon)
    }

    /// Takes in the rows that were read from [`Agenda::wants`] on, in order, fewer than asked for when
    /// there are no more.
    pub fn refill(&mut self, rows: Vec<(Timestamp, K)>, complete: bool) {
        let from = self.horizon.unwrap_or(Timestamp::EPOCH);
        self.horizon = if complete {
            None
        } else {
            // The last due time may go on beyond what was read, so it is read again, unless it is all
            // there was: then the window has to grow by it.
            rows.last().map(|(due, _)| *due).filter(|last| *last > from).or(Some(from))
        };
        let horizon = self.horizon;
        for (due, key) in rows {
            if horizon.is_none_or(|horizon| due < horizon) {
                self.window.insert(Entry { fire: due, due, key });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_secs(seconds)
    }

    fn entry(due: i64, key: u32) -> Entry<u32> {
        Entry { fire: at(due), due: at(due), key }
    }

    #[test]
    fn a_window_that_has_not_read_the_store_asks_for_it() {
        let agenda = Agenda::<u32>::new(8);
        assert_eq!(agenda.wants(at(0)), Some(Timestamp::EPOCH));
        assert_eq!(agenda.next(), Some(Timestamp::EPOCH));
    }

    #[test]
    fn what_asks_for_more_time_fires_later_once() {
        let mut agenda = Agenda::new(8);
        agenda.refill(vec![], true);
        agenda.insert(entry(10, 1));
        let taken = agenda.take_due(at(10), 9).remove(0);
        agenda.put_back(Entry { fire: at(12), ..taken });
        assert!(agenda.take_due(at(11), 9).is_empty());
        assert_eq!(agenda.take_due(at(12), 9).len(), 1);
        assert!(agenda.take_due(at(99), 9).is_empty());
    }

    proptest! {
        /// Rows are written at random and time goes on; whatever the capacity, each row fires exactly
        /// once, not before it is due, and at the first look after it is due.
        #[test]
        fn every_row_fires_once_and_in_time(
            capacity in 1_usize..6,
            rows in proptest::collection::vec((0_i64..40, 0_i64..40), 0..60),
        ) {
            let mut agenda = Agenda::new(capacity);
            let mut store: BTreeMap<(i64, u32), ()> = BTreeMap::new();
            let mut fired = Vec::new();
            for now in 0..90 {
                for (key, (written, delay)) in rows.iter().enumerate() {
                    if *written == now {
                        let key = u32::try_from(key).unwrap();
                        store.insert((now + delay, key), ());
                        agenda.insert(entry(now + delay, key));
                    }
                }
                loop {
                    while let Some(from) = agenda.wants(at(now)) {
                        let limit = capacity + rows.len();
                        let read: Vec<_> = store
                            .keys()
                            .filter(|(due, _)| at(*due) >= from)
                            .take(limit)
                            .map(|(due, key)| (at(*due), *key))
                            .collect();
                        let complete = read.len() < limit;
                        agenda.refill(read, complete);
                    }
                    let due = agenda.take_due(at(now), 3);
                    if due.is_empty() {
                        break;
                    }
                    for entry in due {
                        let due = entry.due.as_micros() / 1_000_000;
                        prop_assert_eq!(due.max(0), now, "fires at the look at which it is due");
                        store.remove(&(due, entry.key));
                        fired.push(entry.key);
                    }
                }
            }
            fired.sort_unstable();
            prop_assert_eq!(fired, (0..u32::try_from(rows.len()).unwrap()).collect::<Vec<_>>());
        }
    }
}
