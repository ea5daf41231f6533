//! Release of prepared calls: which of them leaves, and when.
//!
//! A call is prepared first (journaled, checked) and waits here; it is charged to the pace when it leaves. Replies
//! leave before campaigns, each class in its order. A call whose checks are older than [`CHECKED_WITHIN`] is sent back
//! to be checked again and keeps its place. While the breaker is half-open, or the account has just resumed after a
//! suspension, one call at a time leaves: the one of a campaign, where there is one.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use heddle_schemas::ports::channel::FailureClass;

use super::Class;
use super::breaker::Breaker;
use super::pace::Pace;

/// Age at which the checks of a prepared call are made again.
pub const CHECKED_WITHIN: Duration = Duration::from_secs(1);
/// Calls are prepared ahead for this time of the limit: longer than a store usually stalls, and short enough that a
/// crash leaves few sends of unknown outcome.
const AHEAD: Duration = Duration::from_millis(250);
/// Calls that are prepared ahead in any case.
const AHEAD_LEAST: usize = 2;

/// Place in the order of the calls that wait: the class first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(Class, u64);

/// Answer to a prepared call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Leave now; the call is charged. The number is the generation that its end belongs to.
    Leave(u64),
    /// Make the checks again, and come back to this place.
    Check(Place),
    /// Do not leave: the account is suspended.
    Return,
}

/// End of a call, as far as the breaker is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallEnd {
    /// It came through to the channel, which answered for this message.
    CameThrough,
    /// It met passing trouble, or its outcome is unknown.
    Failed,
    /// It was over a limit of the number, which may have said for how long to wait.
    Limited(Option<Duration>),
    /// It says nothing of the number: it never left, or one pair is over its limit.
    Nothing,
}

impl CallEnd {
    /// Returns the end of a call that was refused.
    #[must_use]
    pub fn of(class: FailureClass, retry_after: Option<Duration>) -> Self {
        match class {
            FailureClass::Final | FailureClass::OptedOut => Self::CameThrough,
            FailureClass::Temporary | FailureClass::Unknown => Self::Failed,
            FailureClass::RateLimited => Self::Limited(retry_after),
            FailureClass::PairLimited | FailureClass::Unauthorized | FailureClass::Blocked => Self::Nothing,
        }
    }
}

#[derive(Debug)]
struct Prepared<W> {
    waiter: W,
    checked_at: Duration,
}

/// Prepared calls of a number that wait to leave; `W` is the waiter that receives the answer.
#[derive(Debug)]
pub struct Release<W> {
    /// Known once the account's limit is; until then nothing leaves.
    pace: Option<Pace>,
    breaker: Breaker,
    /// At most [`Release::room`] at any time.
    waiting: BTreeMap<Place, Prepared<W>>,
    order: u64,
    /// Calls that are being prepared or wait.
    preparing: usize,
    /// Calls under way.
    under_way: usize,
    /// Those of them that left in this generation.
    of_generation: usize,
    /// True while one call at a time leaves, since the account was suspended.
    probing: bool,
    /// Calls under way, at most.
    bound: usize,
}

impl<W> Release<W> {
    /// Returns a release with no saved allowance, for at most `bound` calls under way.
    #[must_use]
    pub fn new(bound: usize) -> Self {
        Self {
            pace: None,
            breaker: Breaker::default(),
            waiting: BTreeMap::new(),
            order: 0,
            preparing: 0,
            under_way: 0,
            of_generation: 0,
            probing: false,
            bound,
        }
    }

    /// Changes the limit of the number.
    pub fn set_limit(&mut self, messages_per_second: NonZeroU32, now: Duration) {
        match &mut self.pace {
            Some(pace) => pace.set(messages_per_second),
            None => self.pace = Some(Pace::new(messages_per_second, now)),
        }
    }

    /// Counts messages that came in at `at`.
    pub fn received(&mut self, messages: u32, at: Duration) {
        if let Some(pace) = &mut self.pace {
            pace.received(messages, at);
        }
    }

    /// Lets one call at a time leave until it is ended, from a new generation on.
    pub fn set_probing(&mut self, probing: bool) {
        if probing && !self.probing {
            self.breaker.renew();
            self.of_generation = 0;
        }
        self.probing = probing;
    }

    /// Returns the generation of calls that leave now.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.breaker.generation()
    }

    fn is_one_by_one(&self) -> bool {
        self.probing || self.breaker.is_half_open()
    }

    /// Returns how many more calls may be prepared now.
    #[must_use]
    pub fn room(&self, now: Duration) -> usize {
        let Some(pace) = self.pace.as_ref().filter(|_| self.breaker.free_at() <= now + AHEAD) else {
            return 0;
        };
        let ahead = match self.is_one_by_one() {
            true => 1,
            false => {
                let ahead = u128::from(pace.limit().get()) * AHEAD.as_millis() / 1_000;
                usize::try_from(ahead).unwrap_or(usize::MAX).max(AHEAD_LEAST)
            }
        };
        ahead.min(self.bound).saturating_sub(self.preparing)
    }

    /// Returns from when on calls may be prepared again, where the breaker is open.
    #[must_use]
    pub fn prepare_at(&self) -> Duration {
        self.breaker.free_at().saturating_sub(AHEAD)
    }

    /// Counts a call that is being prepared; it ends with [`Turn::Leave`] or [`Release::dropped`].
    pub fn prepare(&mut self) {
        self.preparing += 1;
    }

    /// Drops a call that was being prepared.
    pub fn dropped(&mut self) {
        self.preparing = self.preparing.saturating_sub(1);
    }

    /// Has a prepared call wait, behind all others of its class or at the place it had.
    pub fn wait(&mut self, class: Class, place: Option<Place>, waiter: W, checked_at: Duration) {
        let place = place.unwrap_or_else(|| {
            self.order += 1;
            Place(class, self.order)
        });
        self.waiting.insert(place, Prepared { waiter, checked_at });
    }

    /// Returns the next call that can be answered now.
    pub fn next(&mut self, now: Duration) -> Option<(W, Turn)> {
        self.next_at().filter(|at| *at <= now)?;
        let first = |class| self.waiting.range(Place(class, 0)..).next().map(|(place, _)| *place);
        let campaign = first(Class::Campaign).filter(|_| self.is_one_by_one());
        let place = campaign.or_else(|| first(Class::Reply))?;
        let Prepared { waiter, checked_at } = self.waiting.remove(&place)?;
        if now.saturating_sub(checked_at) > CHECKED_WITHIN {
            return Some((waiter, Turn::Check(place)));
        }
        self.pace.as_mut()?.sent(now);
        self.dropped();
        self.under_way += 1;
        self.of_generation += 1;
        Some((waiter, Turn::Leave(self.breaker.generation())))
    }

    /// Removes and returns all waiting calls, to be answered with [`Turn::Return`].
    pub fn clear(&mut self) -> Vec<W> {
        std::mem::take(&mut self.waiting).into_values().map(|prepared| prepared.waiter).collect()
    }

    fn has_slot(&self) -> bool {
        let one_by_one = self.is_one_by_one();
        self.under_way < self.bound && !(one_by_one && self.of_generation > 0)
    }

    /// Returns the time at which the next call may leave; `None` while nothing waits, or a call under way has to end
    /// first.
    #[must_use]
    pub fn next_at(&self) -> Option<Duration> {
        let pace = self.pace.as_ref().filter(|_| !self.waiting.is_empty() && self.has_slot())?;
        Some(pace.free_at().max(self.breaker.free_at()))
    }

    /// Takes note of the end of a call that left in this generation.
    pub fn ended(&mut self, generation: u64, end: CallEnd, now: Duration) {
        self.under_way = self.under_way.saturating_sub(1);
        let before = self.breaker.generation();
        if generation == before {
            self.of_generation = self.of_generation.saturating_sub(1);
        }
        match end {
            CallEnd::CameThrough => self.breaker.succeeded(generation),
            CallEnd::Failed => self.breaker.failed(generation, now),
            CallEnd::Limited(retry_after) => self.breaker.limited(generation, now, retry_after),
            CallEnd::Nothing => {}
        }
        if self.breaker.generation() != before {
            // This call has opened it; of the new generation none has left.
            self.of_generation = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Duration = Duration::from_secs(100);
    const SECOND: Duration = Duration::from_secs(1);

    fn release(limit: u32, bound: usize) -> Release<u32> {
        let mut release = Release::new(bound);
        release.set_limit(NonZeroU32::new(limit).unwrap(), NOW - 10 * SECOND);
        release
    }

    fn prepared(release: &mut Release<u32>, class: Class, waiter: u32, at: Duration) {
        release.prepare();
        release.wait(class, None, waiter, at);
    }

    fn leaving(release: &mut Release<u32>, now: Duration) -> Vec<u32> {
        std::iter::from_fn(|| release.next(now)).map(|(waiter, _)| waiter).collect()
    }

    #[test]
    fn nothing_leaves_before_the_limit_is_known() {
        let mut release = Release::new(4);
        prepared(&mut release, Class::Reply, 1, NOW);
        assert_eq!((release.next(NOW), release.next_at()), (None, None));
    }

    #[test]
    fn a_reply_takes_the_slot_of_a_prepared_campaign() {
        let mut release = release(80, 8);
        prepared(&mut release, Class::Campaign, 1, NOW);
        prepared(&mut release, Class::Reply, 2, NOW);
        assert_eq!(release.next(NOW), Some((2, Turn::Leave(0))));
    }

    #[test]
    fn several_calls_leave_in_one_wake_up_where_the_timer_was_late() {
        let mut release = release(1_000, 500);
        (0..50).for_each(|waiter| prepared(&mut release, Class::Reply, waiter, NOW));
        let first = leaving(&mut release, NOW).len();
        assert!(leaving(&mut release, NOW + Duration::from_millis(5)).len() > 3, "after {first}");
    }

    #[test]
    fn a_check_that_is_too_old_is_made_again_and_keeps_its_place() {
        let mut release = release(80, 8);
        prepared(&mut release, Class::Reply, 1, NOW - 2 * SECOND);
        prepared(&mut release, Class::Reply, 2, NOW);
        let Some((1, Turn::Check(place))) = release.next(NOW) else { panic!("it is too old") };
        release.wait(Class::Reply, Some(place), 1, NOW);
        assert_eq!(leaving(&mut release, NOW), [1, 2]);
    }

    #[test]
    fn no_more_calls_are_under_way_than_may_be() {
        let mut release = release(1_000, 3);
        (0..5).for_each(|waiter| prepared(&mut release, Class::Reply, waiter, NOW));
        assert_eq!(leaving(&mut release, NOW).len(), 3);
        assert_eq!(release.next_at(), None, "one has to end first");
        release.ended(0, CallEnd::CameThrough, NOW);
        assert_eq!(leaving(&mut release, NOW).len(), 1);
    }

    #[test]
    fn after_trouble_one_call_finds_out_whether_it_is_over() {
        let mut release = release(1_000, 64);
        (0..10).for_each(|waiter| prepared(&mut release, Class::Reply, waiter, NOW));
        assert_eq!(leaving(&mut release, NOW).len(), 10);
        (0..10).for_each(|_| release.ended(0, CallEnd::Failed, NOW));
        assert_eq!(release.room(NOW), 0, "nothing is prepared that has to wait for long");
        let now = release.prepare_at() + AHEAD;
        assert!(now <= NOW + SECOND, "ten failures of one moment are one");
        assert_eq!(release.room(now), 1);
        (10..12).for_each(|waiter| prepared(&mut release, Class::Reply, waiter, now));
        assert_eq!(leaving(&mut release, now), [10]);
        release.ended(1, CallEnd::CameThrough, now);
        assert_eq!(leaving(&mut release, now), [11]);
    }

    #[test]
    fn the_probe_is_a_campaigns_message_where_there_is_one() {
        let mut release = release(80, 8);
        release.set_probing(true);
        prepared(&mut release, Class::Reply, 1, NOW);
        prepared(&mut release, Class::Campaign, 2, NOW);
        assert_eq!(leaving(&mut release, NOW), [2]);
    }

    #[test]
    fn calls_from_before_a_suspension_do_not_delay_the_probe() {
        let mut release = release(80, 8);
        prepared(&mut release, Class::Reply, 1, NOW);
        assert_eq!(leaving(&mut release, NOW), [1]);
        release.set_probing(true);
        prepared(&mut release, Class::Reply, 2, NOW + SECOND);
        prepared(&mut release, Class::Reply, 3, NOW + SECOND);
        assert_eq!(leaving(&mut release, NOW + SECOND), [2]);
        release.ended(0, CallEnd::CameThrough, NOW + SECOND);
        assert_eq!(leaving(&mut release, NOW + SECOND).len(), 0, "the probe is still under way");
    }

    proptest! {
        /// For all ends of calls: slots come back, and no window of a second holds more than the limit.
        #[test]
        fn slots_come_back_and_the_limit_is_kept(
            limit in 1_u32..200,
            bound in 1_usize..20,
            steps in proptest::collection::vec((0_u8..6, 0_u64..300), 1..400),
        ) {
            let mut release = release(limit, bound);
            let (mut now, mut waiter, mut under_way, mut left) = (NOW, 0, Vec::new(), Vec::new());
            for (step, millis) in steps {
                now += Duration::from_millis(millis);
                for _ in 0..release.room(now).min(3) {
                    waiter += 1;
                    prepared(&mut release, Class::Reply, waiter, now);
                }
                while let Some((waiter, turn)) = release.next(now) {
                    match turn {
                        Turn::Leave(generation) => {
                            under_way.push(generation);
                            left.push(now);
                        }
                        Turn::Check(place) => release.wait(Class::Reply, Some(place), waiter, now),
                        Turn::Return => prop_assert!(false, "nothing is suspended"),
                    }
                }
                prop_assert!(under_way.len() <= bound);
                let end = match step {
                    0..3 => CallEnd::CameThrough,
                    3 => CallEnd::Failed,
                    4 => CallEnd::Limited(None),
                    _ => CallEnd::Nothing,
                };
                if let Some(generation) = under_way.pop() {
                    release.ended(generation, end, now);
                }
            }
            for (first, at) in left.iter().enumerate() {
                let window = left[first..].iter().take_while(|other| **other < *at + SECOND).count();
                prop_assert!(window <= limit as usize);
            }
            // The longest pause is a minute, and then everything moves again.
            under_way.drain(..).for_each(|generation| release.ended(generation, CallEnd::CameThrough, now));
            now += 61 * SECOND;
            prop_assert!(release.room(now) > 0 || release.next(now).is_some());
        }
    }
}
