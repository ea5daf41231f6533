//! What an account has to send: a lane for each contact, strictly one after the other inside it.
//!
//! Lanes take turns. A lane is held while one of its messages is under way, or of unknown outcome, or
//! waits to be tried again; that holds nobody else.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use heddle_schemas::id::{ContactId, OutboundId};

#[derive(Debug)]
struct Lane<T> {
    waiting: VecDeque<T>,
    busy: bool,
    /// Messages of unknown outcome, which what follows waits for.
    unknown: BTreeSet<OutboundId>,
    not_before: Duration,
}

impl<T> Default for Lane<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), busy: false, unknown: BTreeSet::new(), not_before: Duration::ZERO }
    }
}

impl<T> Lane<T> {
    fn is_free(&self) -> bool {
        !self.busy && self.unknown.is_empty() && !self.waiting.is_empty()
    }

    fn is_over(&self) -> bool {
        !self.busy && self.unknown.is_empty() && self.waiting.is_empty()
    }
}

/// The lanes.
#[derive(Debug)]
pub struct Queue<T> {
    lanes: BTreeMap<ContactId, Lane<T>>,
    /// The lane served last.
    last: Option<ContactId>,
    waiting: usize,
    busy: usize,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { lanes: BTreeMap::new(), last: None, waiting: 0, busy: 0 }
    }
}

impl<T> Queue<T> {
    /// Messages that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Messages under way.
    #[must_use]
    pub fn busy(&self) -> usize {
        self.busy
    }

    /// A message comes behind all others of its contact.
    pub fn push(&mut self, contact: ContactId, message: T) {
        self.lanes.entry(contact).or_default().waiting.push_back(message);
        self.waiting += 1;
    }

    /// Takes the next message whose lane is free; its lane is busy from now on. Lanes take turns.
    /// `paced` says from when on a contact may be written to.
    pub fn next(&mut self, now: Duration, paced: impl Fn(ContactId) -> Duration) -> Option<(ContactId, T)> {
        let ready = |contact: &ContactId, lane: &Lane<T>| {
            lane.is_free() && lane.not_before <= now && paced(*contact) <= now
        };
        let after = self.last.and_then(|last| {
            let behind = (std::ops::Bound::Excluded(last), std::ops::Bound::Unbounded);
            self.lanes.range(behind).find(|(contact, lane)| ready(contact, lane)).map(|(contact, _)| *contact)
        });
        let contact = after.or_else(|| {
            self.lanes.iter().find(|(contact, lane)| ready(contact, lane)).map(|(contact, _)| *contact)
        })?;
        let lane = self.lanes.get_mut(&contact)?;
        let message = lane.waiting.pop_front()?;
        lane.busy = true;
        self.waiting -= 1;
        self.busy += 1;
        self.last = Some(contact);
        Some((contact, message))
    }

    /// When the next message may leave, going by its lane alone; `None` when every lane is held by
    /// something that will say so itself.
    #[must_use]
    pub fn next_at(&self, paced: impl Fn(ContactId) -> Duration) -> Option<Duration> {
        self.lanes
            .iter()
            .filter(|(_, lane)| lane.is_free())
            .map(|(contact, lane)| lane.not_before.max(paced(*contact)))
            .min()
    }

    /// Takes out what waits for a contact and is meant.
    pub fn take(&mut self, contact: ContactId, is_meant: impl Fn(&T) -> bool) -> Vec<T> {
        let Some(lane) = self.lanes.get_mut(&contact) else { return Vec::new() };
        let (meant, others): (Vec<T>, Vec<T>) =
            std::mem::take(&mut lane.waiting).into_iter().partition(is_meant);
        lane.waiting = others.into();
        self.waiting -= meant.len();
        if lane.is_over() {
            self.lanes.remove(&contact);
        }
        meant
    }

    /// Takes out everything that waits, and waits for no outcome any more; what is under way goes on.
    pub fn clear(&mut self) -> Vec<T> {
        let waiting = self.lanes.values_mut().flat_map(|lane| std::mem::take(&mut lane.waiting)).collect();
        self.lanes.values_mut().for_each(|lane| lane.unknown.clear());
        self.lanes.retain(|_, lane| !lane.is_over());
        self.waiting = 0;
        waiting
    }

    fn release(&mut self, contact: ContactId, change: impl FnOnce(&mut Lane<T>) -> usize) {
        let lane = self.lanes.entry(contact).or_default();
        if lane.busy {
            lane.busy = false;
            self.busy -= 1;
        }
        self.waiting += change(lane);
        if lane.is_over() {
            self.lanes.remove(&contact);
        }
    }

    /// The message under way is settled.
    pub fn done(&mut self, contact: ContactId) {
        self.release(contact, |_| 0);
    }

    /// The message under way was refused, and is tried again before all others, not before then.
    pub fn again(&mut self, contact: ContactId, message: T, not_before: Duration) {
        self.release(contact, |lane| {
            lane.waiting.push_front(message);
            lane.not_before = not_before;
            1
        });
    }

    /// The outcome of a message is not known; its lane waits.
    pub fn hold(&mut self, contact: ContactId, outbound: OutboundId) {
        self.release(contact, |lane| {
            lane.unknown.insert(outbound);
            0
        });
    }

    /// The outcome is known now. With a message, it is sent again before all others.
    pub fn free(&mut self, contact: ContactId, outbound: OutboundId, again: Option<T>) {
        let Some(lane) = self.lanes.get_mut(&contact) else { return };
        lane.unknown.remove(&outbound);
        if let Some(message) = again {
            lane.waiting.push_front(message);
            self.waiting += 1;
        }
        if lane.is_over() {
            self.lanes.remove(&contact);
        }
    }

    /// Everything that waits, each lane in its order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.lanes.values_mut().flat_map(|lane| &mut lane.waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use heddle_schemas::id::{MessageKey, TurnId};
    use proptest::prelude::*;

    const NOW: Duration = Duration::from_secs(100);

    fn contact(n: u8) -> ContactId {
        ContactId::from_bytes([n; 16])
    }

    fn outbound(n: u8) -> OutboundId {
        OutboundId::of_turn(contact(n), TurnId(MessageKey::from_bytes([n; 16])), 0)
    }

    fn free(_: ContactId) -> Duration {
        Duration::ZERO
    }

    #[test]
    fn lanes_take_turns() {
        let mut queue = Queue::default();
        for (lane, message) in [(1, "a1"), (1, "a2"), (2, "b1"), (3, "c1")] {
            queue.push(contact(lane), message);
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.next(NOW, free).map(|(_, m)| m)).collect();
        assert_eq!(order, ["a1", "b1", "c1"], "a2 waits for a1");
        queue.done(contact(1));
        assert_eq!(queue.next(NOW, free).unwrap().1, "a2");
    }

    #[test]
    fn what_follows_an_unknown_outcome_waits_and_others_do_not() {
        let mut queue = Queue::default();
        queue.push(contact(1), "first");
        queue.push(contact(1), "second");
        queue.push(contact(2), "other");
        assert_eq!(queue.next(NOW, free).unwrap().1, "first");
        queue.hold(contact(1), outbound(1));
        assert_eq!(queue.next(NOW, free).unwrap().1, "other");
        assert_eq!(queue.next(NOW, free), None);
        queue.free(contact(1), outbound(1), Some("first again"));
        assert_eq!(queue.next(NOW, free).unwrap().1, "first again");
    }

    #[test]
    fn a_refused_message_stays_first_and_waits_its_pause() {
        let mut queue = Queue::default();
        queue.push(contact(1), 1);
        queue.push(contact(1), 2);
        let (lane, message) = queue.next(NOW, free).unwrap();
        queue.again(lane, message, NOW + Duration::from_secs(4));
        assert_eq!(queue.next(NOW, free), None);
        assert_eq!(queue.next_at(free), Some(NOW + Duration::from_secs(4)));
        assert_eq!(queue.next(NOW + Duration::from_secs(4), free).unwrap().1, 1);
    }

    proptest! {
        /// Messages are pushed, taken, settled or refused at random: in every lane they are settled in
        /// the order they came, and none is lost.
        #[test]
        fn each_lane_keeps_its_order_and_nothing_is_lost(
            steps in proptest::collection::vec((0_u8..5, 0_u8..4), 0..300),
        ) {
            let mut queue = Queue::default();
            let mut under_way: BTreeMap<ContactId, (u8, usize)> = BTreeMap::new();
            let mut pushed = [0_usize; 4];
            let mut settled = [0_usize; 4];
            for (action, lane) in steps {
                match action {
                    0 | 1 => {
                        queue.push(contact(lane), (lane, pushed[usize::from(lane)]));
                        pushed[usize::from(lane)] += 1;
                    }
                    2 => {
                        if let Some((to, message)) = queue.next(NOW, free) {
                            prop_assert!(under_way.insert(to, message).is_none(), "one at a time");
                        }
                    }
                    refuse => {
                        let Some((lane, number)) = under_way.remove(&contact(lane)) else { continue };
                        if refuse == 3 {
                            queue.again(contact(lane), (lane, number), Duration::ZERO);
                        } else {
                            prop_assert_eq!(number, settled[usize::from(lane)]);
                            settled[usize::from(lane)] += 1;
                            queue.done(contact(lane));
                        }
                    }
                }
                let there = queue.len() + queue.busy() + settled.iter().sum::<usize>();
                prop_assert_eq!(there, pushed.iter().sum::<usize>());
                prop_assert_eq!(queue.busy(), under_way.len());
            }
        }
    }
}
