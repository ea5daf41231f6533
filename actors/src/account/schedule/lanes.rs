//! Messages that wait in memory: a lane for each contact, strictly one after the other inside it.
//!
//! A lane cannot move while one of its messages is under way, of unknown outcome or waiting for a retry, or while its
//! pair is over its limit. Such a lane takes no other lane's place: it has at most [`LANE_HELD`] messages in memory,
//! and [`Lanes::is_full`] counts only lanes that can move. Lanes that can move take turns, those with a reply first.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use heddle_schemas::id::{ContactId, OutboundId};

use super::Class;
use heddle_schemas::ports::channel::profile::PairLimit;

use super::pair::Pairs;

/// Messages of one lane in memory beside the one under way; more wait in rows.
pub const LANE_HELD: usize = 3;
/// All messages in memory are at most this many times those that can move.
const STUCK_FACTOR: usize = 4;

/// Message in a lane.
pub trait Message {
    /// Returns its id.
    fn id(&self) -> OutboundId;
    /// Returns its class.
    fn class(&self) -> Class;
}

/// State of a lane, as far as the next message is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing waits, or something is under way or of unknown outcome.
    Stuck,
    /// The next message may be taken; its place in the order of its class.
    Ready(Class, u64),
    /// The next message may be taken then.
    Delayed(Duration),
}

#[derive(Debug)]
struct Lane<M> {
    waiting: VecDeque<M>,
    /// The message under way.
    busy: Option<OutboundId>,
    /// Messages of unknown outcome, for which the following ones wait.
    unknown: BTreeSet<OutboundId>,
    not_before: Duration,
    state: State,
}

impl<M> Lane<M> {
    fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            busy: None,
            unknown: BTreeSet::new(),
            not_before: Duration::ZERO,
            state: State::Stuck,
        }
    }

    fn is_over(&self) -> bool {
        self.busy.is_none() && self.unknown.is_empty() && self.waiting.is_empty()
    }

    /// Messages of it that wait and cannot move by themselves.
    fn stuck(&self) -> usize {
        match self.state {
            State::Ready(..) => 0,
            State::Stuck if self.busy.is_some() && self.unknown.is_empty() => 0,
            State::Stuck | State::Delayed(_) => self.waiting.len(),
        }
    }
}

/// The lanes of a number.
#[derive(Debug)]
pub struct Lanes<M> {
    lanes: BTreeMap<ContactId, Lane<M>>,
    pairs: Pairs,
    /// Lanes that can move, by class and by when they could.
    ready: [BTreeMap<u64, ContactId>; 2],
    /// Lanes whose next message waits for a time.
    delayed: BTreeSet<(Duration, ContactId)>,
    order: u64,
    /// Until when the lanes have been advanced.
    now: Duration,
    waiting: usize,
    stuck: usize,
    busy: usize,
    /// Messages that can move, at most.
    bound: usize,
}

impl<M: Message> Lanes<M> {
    /// Returns lanes for `bound` messages that can move, over pairs of this limit.
    #[must_use]
    pub fn new(bound: usize, pair_limit: Option<PairLimit>) -> Self {
        Self {
            lanes: BTreeMap::new(),
            pairs: Pairs::new(pair_limit),
            ready: Default::default(),
            delayed: BTreeSet::new(),
            order: 0,
            now: Duration::ZERO,
            waiting: 0,
            stuck: 0,
            busy: 0,
            bound,
        }
    }

    /// Returns how many messages wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting
    }

    /// Returns true when none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Returns how many messages are under way.
    #[must_use]
    pub fn busy(&self) -> usize {
        self.busy
    }

    /// Returns how many more messages of lanes that can move there is room for.
    #[must_use]
    pub fn room(&self) -> usize {
        let movable = self.bound.saturating_sub(self.waiting - self.stuck);
        movable.min((self.bound * STUCK_FACTOR).saturating_sub(self.waiting))
    }

    /// Returns true when there is no room for another message of any lane.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.room() == 0
    }

    /// Returns true while a contact's lane takes another message.
    #[must_use]
    pub fn takes(&self, contact: ContactId) -> bool {
        self.lanes.get(&contact).is_none_or(|lane| lane.waiting.len() < LANE_HELD)
    }

    /// Returns true while a contact's lane has hardly anything left in memory.
    #[must_use]
    pub fn is_hungry(&self, contact: ContactId) -> bool {
        self.lanes.get(&contact).is_none_or(|lane| lane.waiting.len() <= 1)
    }

    /// Adds a message behind all others of its contact.
    pub fn push(&mut self, contact: ContactId, message: M) {
        self.change(contact, |lane| lane.waiting.push_back(message));
    }

    /// Advances the time: lanes whose time has come can move.
    pub fn advance(&mut self, now: Duration) {
        self.now = self.now.max(now);
        while let Some(&(at, contact)) = self.delayed.first()
            && at <= self.now
        {
            self.change(contact, |_| ());
        }
    }

    /// Takes the next message; its lane is busy from now on.
    pub fn take_next(&mut self) -> Option<(ContactId, M)> {
        let contact = self.ready.iter().find_map(|lanes| lanes.values().next().copied())?;
        let mut taken = None;
        self.change(contact, |lane| {
            taken = lane.waiting.pop_front();
            lane.busy = taken.as_ref().map(Message::id);
        });
        taken.map(|message| (contact, message))
    }

    /// Returns when a lane that waits for a time may move, if none can now.
    #[must_use]
    pub fn next_at(&self) -> Option<Duration> {
        self.delayed.first().map(|(at, _)| *at)
    }

    /// Returns true when a message can be taken now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.iter().any(|lanes| !lanes.is_empty())
    }

    /// Returns true while a message is under way.
    #[must_use]
    pub fn is_busy(&self, contact: ContactId, outbound: OutboundId) -> bool {
        self.lanes.get(&contact).is_some_and(|lane| lane.busy == Some(outbound))
    }

    /// Returns the message of a contact that is under way.
    #[must_use]
    pub fn under_way(&self, contact: ContactId) -> Option<OutboundId> {
        self.lanes.get(&contact)?.busy
    }

    /// Removes and returns a contact's waiting messages for which `is_meant` is true.
    pub fn take(&mut self, contact: ContactId, is_meant: impl Fn(&M) -> bool) -> Vec<M> {
        let mut meant = Vec::new();
        if self.lanes.contains_key(&contact) {
            self.change(contact, |lane| {
                let all = std::mem::take(&mut lane.waiting);
                let others: Vec<M>;
                (meant, others) = all.into_iter().partition(|message| is_meant(message));
                lane.waiting = others.into();
            });
        }
        meant
    }

    /// Removes and returns all waiting messages, and ends every wait for an outcome; a message under way goes on.
    pub fn clear(&mut self) -> Vec<M> {
        let contacts: Vec<_> = self.lanes.keys().copied().collect();
        let mut waiting = Vec::with_capacity(self.waiting);
        for contact in contacts {
            self.change(contact, |lane| {
                waiting.extend(std::mem::take(&mut lane.waiting));
                lane.unknown.clear();
            });
        }
        waiting
    }

    /// Counts a call to a contact that leaves.
    pub fn called(&mut self, contact: ContactId, now: Duration) {
        self.pairs.sent(contact, now);
    }

    /// Returns when no pair owes anything any more.
    #[must_use]
    pub fn all_paid_at(&self) -> Duration {
        self.pairs.all_paid_at()
    }

    /// Ends the message under way, which is settled.
    pub fn done(&mut self, contact: ContactId) {
        self.change(contact, |lane| lane.busy = None);
    }

    /// Puts the message under way back before all others, with no retry before that time.
    pub fn again(&mut self, contact: ContactId, message: M, not_before: Duration) {
        self.change(contact, |lane| {
            lane.busy = None;
            lane.waiting.push_front(message);
            lane.not_before = not_before;
        });
    }

    /// Ends the message under way, whose outcome is unknown; its lane waits for the outcome.
    pub fn hold(&mut self, contact: ContactId, outbound: OutboundId) {
        self.change(contact, |lane| {
            lane.busy = None;
            lane.unknown.insert(outbound);
        });
    }

    /// Ends the wait for an outcome. With a message, that is sent again before all others.
    pub fn free(&mut self, contact: ContactId, outbound: OutboundId, again: Option<M>) {
        self.change(contact, |lane| {
            lane.unknown.remove(&outbound);
            if let Some(message) = again {
                lane.waiting.push_front(message);
            }
        });
    }

    /// Returns everything that waits, each lane in its order.
    pub fn iter(&self) -> impl Iterator<Item = &M> {
        self.lanes.values().flat_map(|lane| &lane.waiting)
    }

    /// Returns everything that waits, each lane in its order. Ids and classes stay.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut M> {
        self.lanes.values_mut().flat_map(|lane| &mut lane.waiting)
    }

    /// Changes a lane and finds its new state.
    fn change(&mut self, contact: ContactId, change: impl FnOnce(&mut Lane<M>)) {
        let lane = self.lanes.entry(contact).or_insert_with(Lane::new);
        let was = lane.state;
        self.waiting -= lane.waiting.len();
        self.busy -= usize::from(lane.busy.is_some());
        self.stuck -= lane.stuck();
        change(lane);
        match was {
            State::Ready(class, order) => drop(self.ready[class as usize].remove(&order)),
            State::Delayed(at) => drop(self.delayed.remove(&(at, contact))),
            State::Stuck => {}
        }
        let can_move = lane.busy.is_none() && lane.unknown.is_empty();
        let at = lane.not_before.max(self.pairs.free_at(contact));
        lane.state = match (lane.waiting.front().filter(|_| can_move).map(Message::class), was) {
            (None, _) => State::Stuck,
            (Some(_), _) if at > self.now => State::Delayed(at),
            (Some(class), State::Ready(before, _)) if class == before => was,
            (Some(class), _) => {
                self.order += 1;
                State::Ready(class, self.order)
            }
        };
        match lane.state {
            State::Ready(class, order) => drop(self.ready[class as usize].insert(order, contact)),
            State::Delayed(at) => drop(self.delayed.insert((at, contact))),
            State::Stuck => {}
        }
        self.waiting += lane.waiting.len();
        self.busy += usize::from(lane.busy.is_some());
        self.stuck += lane.stuck();
        if lane.is_over() {
            self.lanes.remove(&contact);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use heddle_schemas::id::{MessageKey, TurnId};
    use proptest::prelude::*;

    use super::super::pair::WHATSAPP;
    use super::*;

    const NOW: Duration = Duration::from_secs(1_000);

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Text {
        to: u8,
        number: u16,
        class: Class,
    }

    impl Message for Text {
        fn id(&self) -> OutboundId {
            outbound(self.to, self.number)
        }

        fn class(&self) -> Class {
            self.class
        }
    }

    fn contact(n: u8) -> ContactId {
        ContactId::from_bytes([n; 16])
    }

    fn outbound(to: u8, number: u16) -> OutboundId {
        OutboundId::of_turn(contact(to), TurnId(MessageKey::from_bytes([to; 16])), number)
    }

    fn reply(to: u8, number: u16) -> Text {
        Text { to, number, class: Class::Reply }
    }

    fn campaign(to: u8) -> Text {
        Text { to, number: 0, class: Class::Campaign }
    }

    fn lanes(bound: usize, messages: impl IntoIterator<Item = Text>) -> Lanes<Text> {
        let mut lanes = Lanes::new(bound, Some(WHATSAPP));
        lanes.advance(NOW);
        messages.into_iter().for_each(|message| lanes.push(contact(message.to), message));
        lanes
    }

    #[test]
    fn lanes_take_turns() {
        let mut lanes = lanes(8, [reply(1, 1), reply(1, 2), reply(2, 1), reply(3, 1)]);
        let order: Vec<_> = std::iter::from_fn(|| lanes.take_next().map(|(_, m)| (m.to, m.number))).collect();
        assert_eq!(order, [(1, 1), (2, 1), (3, 1)], "1's second waits for its first");
        lanes.done(contact(1));
        assert_eq!(lanes.take_next().unwrap().1, reply(1, 2));
    }

    #[test]
    fn replies_go_before_campaigns() {
        let mut lanes = lanes(8, [campaign(1), campaign(2), reply(3, 1)]);
        assert_eq!(lanes.take_next().unwrap().1, reply(3, 1));
        assert_eq!(lanes.take_next().unwrap().1, campaign(1));
        lanes.push(contact(4), reply(4, 1));
        assert_eq!(lanes.take_next().unwrap().1, reply(4, 1));
        assert_eq!(lanes.take_next().unwrap().1, campaign(2));
    }

    #[test]
    fn messages_behind_an_unknown_outcome_wait_and_others_do_not() {
        let mut lanes = lanes(8, [reply(1, 1), reply(1, 2), reply(2, 1)]);
        lanes.take_next().unwrap();
        lanes.hold(contact(1), outbound(1, 1));
        assert_eq!(lanes.take_next().unwrap().1, reply(2, 1));
        assert_eq!(lanes.take_next(), None);
        lanes.free(contact(1), outbound(1, 1), Some(reply(1, 1)));
        assert_eq!(lanes.take_next().unwrap().1, reply(1, 1));
    }

    #[test]
    fn a_refused_message_stays_first_and_waits_its_pause() {
        let mut lanes = lanes(8, [reply(1, 1), reply(1, 2)]);
        let (lane, message) = lanes.take_next().unwrap();
        lanes.again(lane, message, NOW + Duration::from_secs(4));
        assert_eq!((lanes.take_next(), lanes.next_at()), (None, Some(NOW + Duration::from_secs(4))));
        lanes.advance(NOW + Duration::from_secs(4));
        assert_eq!(lanes.take_next().unwrap().1, reply(1, 1));
    }

    #[test]
    fn lanes_that_cannot_move_take_no_other_lanes_place() {
        let mut lanes = lanes(4, []);
        // A pair over its limit, an unknown outcome, and a pause, each with as much as a lane holds.
        for _ in 0..45 {
            lanes.called(contact(1), NOW);
        }
        for lane in 1..=3 {
            for number in 0..3 {
                assert!(lanes.takes(contact(lane)));
                lanes.push(contact(lane), reply(lane, number));
            }
        }
        lanes.hold(contact(2), outbound(2, 99));
        let (_, third) = lanes.take_next().unwrap();
        assert_eq!(third.to, 3);
        lanes.again(contact(3), third, NOW + Duration::from_secs(60));
        assert_eq!((lanes.len(), lanes.room()), (9, 4), "room for all of the others");
        assert!(!lanes.takes(contact(1)) && lanes.takes(contact(4)));
        lanes.push(contact(4), reply(4, 0));
        assert_eq!(lanes.take_next().unwrap().1.to, 4);
    }

    #[test]
    fn memory_is_bounded_also_for_what_cannot_move() {
        let mut lanes = lanes(4, []);
        let mut pushed = 0;
        for to in 0..100 {
            lanes.hold(contact(to), outbound(to, 99));
            while !lanes.is_full() && lanes.takes(contact(to)) {
                lanes.push(contact(to), reply(to, 0));
                pushed += 1;
            }
        }
        assert_eq!((pushed, lanes.len()), (16, 16));
    }

    proptest! {
        /// Messages are pushed, taken, settled, refused or of unknown outcome at random: in every lane they are
        /// settled in the order they came, none is lost, and the counts are right.
        #[test]
        fn each_lane_keeps_its_order_and_nothing_is_lost(
            steps in proptest::collection::vec((0_u8..7, 0_u8..4), 0..400),
        ) {
            let mut lanes = lanes(1_000, []);
            let mut now = NOW;
            let mut under_way: HashMap<u8, Text> = HashMap::new();
            let mut unknown: HashMap<u8, Text> = HashMap::new();
            let (mut pushed, mut settled) = ([0_u16; 4], [0_u16; 4]);
            for (action, lane) in steps {
                let (to, at) = (contact(lane), usize::from(lane));
                match action {
                    0 | 1 => {
                        lanes.push(to, reply(lane, pushed[at]));
                        pushed[at] += 1;
                    }
                    2 => if let Some((to, message)) = lanes.take_next() {
                        prop_assert_eq!(to, contact(message.to));
                        prop_assert!(!unknown.contains_key(&message.to), "its lane is held");
                        prop_assert!(under_way.insert(message.to, message).is_none(), "one at a time");
                    },
                    3 => if let Some(message) = under_way.remove(&lane) {
                        lanes.again(to, message, now + Duration::from_secs(1));
                    },
                    4 => if let Some(message) = under_way.remove(&lane) {
                        lanes.hold(to, message.id());
                        unknown.insert(lane, message);
                    },
                    5 => if let Some(message) = unknown.remove(&lane) {
                        lanes.free(to, message.id(), Some(message));
                    },
                    _ => {
                        now += Duration::from_millis(400);
                        lanes.advance(now);
                        let Some(message) = under_way.remove(&lane) else { continue };
                        prop_assert_eq!(message.number, settled[at]);
                        settled[at] += 1;
                        lanes.done(to);
                    }
                }
                let there = lanes.len() + lanes.busy() + unknown.len() + settled.iter().map(|n| usize::from(*n)).sum::<usize>();
                prop_assert_eq!(there, pushed.iter().map(|n| usize::from(*n)).sum::<usize>());
                prop_assert_eq!(lanes.busy(), under_way.len());
                let stuck: usize = lanes.lanes.values().map(Lane::stuck).sum();
                prop_assert_eq!(lanes.stuck, stuck);
                let ready = lanes.lanes.values().filter(|lane| matches!(lane.state, State::Ready(..))).count();
                prop_assert_eq!(lanes.ready.iter().map(BTreeMap::len).sum::<usize>(), ready);
            }
        }
    }
}
