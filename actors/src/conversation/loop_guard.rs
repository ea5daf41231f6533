//! Loop guard: detects a conversation that goes round in circles, as between two bots.
//!
//! A *round* is a turn that was answered. Two are identical when the customer's text and the reply are the same. After
//! as many identical rounds as the tenant allows, each within a while of the one before, the next message with the same
//! text is not answered. Another message, or a longer silence, starts the count again.
//!
//! Texts are compared by fingerprints of eight bits, since the head is stored in the clear: one text in 256 has the
//! same fingerprint, so it does not reveal the text. Several rounds in a row that differ and look identical are rare
//! enough: one in 256 to the power of the rounds.

use heddle_schemas::tenant::LoopGuard;
use heddle_schemas::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Fingerprint of the texts that one side says in a round.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(u8);

impl Fingerprint {
    /// Returns the fingerprint of these texts, in order; `None` is a message without text. It is stored, so it never
    /// changes.
    pub fn of<'a>(texts: impl Iterator<Item = Option<&'a str>>) -> Self {
        // FNV-1a, <http://www.isthe.com/chongo/tech/comp/fnv/>.
        const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0100_0000_01b3;
        let mut hash = BASIS;
        let mut add = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(PRIME);
        for text in texts {
            text.unwrap_or("\0").bytes().for_each(&mut add);
            // Between two texts, and in none of them.
            add(0xff);
        }
        Self(hash.to_be_bytes().into_iter().fold(0, |folded, byte| folded ^ byte))
    }
}

/// Identical rounds until now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rounds {
    /// Fingerprint of the customer's text in the last round.
    said: Fingerprint,
    /// Fingerprint of the agent's reply.
    replied: Fingerprint,
    /// Rounds in a row that were identical.
    count: u32,
    /// Time of the last one's decision, or of the last message that was not answered.
    at: Timestamp,
    /// True when the guard has stopped the agent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    stopped: bool,
}

/// The guard stops the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stopped {
    /// Number of identical rounds.
    pub(super) rounds: u32,
    /// True for the first message that is not answered.
    pub(super) is_new: bool,
}

impl Rounds {
    /// Returns true when no round has been repeated yet.
    pub(super) fn is_unrepeated(&self) -> bool {
        self.count < 2
    }

    /// Counts an answered turn.
    pub(super) fn answered(
        &mut self,
        said: Fingerprint,
        replied: Fingerprint,
        now: Timestamp,
        guard: &LoopGuard,
    ) {
        let same = self.count > 0 && (self.said, self.replied) == (said, replied);
        let count = if same && self.is_recent(now, guard) { self.count.saturating_add(1) } else { 1 };
        *self = Self { said, replied, count, at: now, stopped: false };
    }

    /// Decides whether a turn that asks this is answered: `None` where it is.
    pub(super) fn stops(&mut self, said: Fingerprint, now: Timestamp, guard: &LoopGuard) -> Option<Stopped> {
        let loops = guard.rounds > 0 && self.count >= guard.rounds && self.said == said;
        if !loops || !self.is_recent(now, guard) {
            return None;
        }
        let is_new = !std::mem::replace(&mut self.stopped, true);
        self.at = now;
        Some(Stopped { rounds: self.count, is_new })
    }

    fn is_recent(&self, now: Timestamp, guard: &LoopGuard) -> bool {
        now.since(self.at) <= guard.within
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use heddle_schemas::tenant::LoopAction;
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> Fingerprint {
        Fingerprint::of([Some(text)].into_iter())
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_secs(seconds)
    }

    const GUARD: LoopGuard =
        LoopGuard { rounds: 3, within: Duration::from_secs(60), then: LoopAction::Silence };

    #[test]
    fn texts_differ_also_where_they_are_split_elsewhere() {
        assert_eq!(of("hello"), of("hello"));
        let of = |texts: &[Option<&str>]| Fingerprint::of(texts.iter().copied());
        assert_ne!(of(&[Some("hello")]), of(&[Some("hullo")]));
        assert_ne!(of(&[Some("ab"), Some("c")]), of(&[Some("a"), Some("bc")]));
        assert_ne!(of(&[None]), of(&[]));
    }

    #[test]
    fn a_bot_that_always_says_the_same_is_answered_three_times_and_reported_once() {
        let mut rounds = Rounds::default();
        let mut answered = 0;
        let mut reported = 0;
        for second in 0..48 {
            match rounds.stops(of("I did not get that"), at(second), &GUARD) {
                Some(stopped) => reported += u32::from(stopped.is_new),
                None => {
                    answered += 1;
                    rounds.answered(
                        of("I did not get that"),
                        of("A colleague gets back"),
                        at(second),
                        &GUARD,
                    );
                }
            }
        }
        assert_eq!((answered, reported), (3, 1));
        assert_eq!(rounds.stops(of("something else"), at(48), &GUARD), None);
        assert_eq!(rounds.stops(of("I did not get that"), at(200), &GUARD), None, "after a long silence");
    }

    #[test]
    fn a_question_that_is_repeated_now_and_then_is_always_answered() {
        let mut rounds = Rounds::default();
        for day in 0..30 {
            assert_eq!(rounds.stops(of("when do you open?"), at(day * 86_400), &GUARD), None);
            rounds.answered(of("when do you open?"), of("at nine"), at(day * 86_400), &GUARD);
        }
    }

    proptest! {
        /// For all texts and times: a turn is stopped exactly where the last `rounds` answered turns are identical to
        /// each other and ask what it asks, and none of them and of those stopped since are further apart than
        /// `within`. A guard of 0 stops nothing.
        #[test]
        fn exactly_what_repeats_is_stopped(
            allowed in 0_u32..5,
            steps in proptest::collection::vec((0_u8..3, 0_u8..3, 0_i64..90), 0..80),
        ) {
            let guard = LoopGuard { rounds: allowed, ..GUARD };
            let mut rounds = Rounds::default();
            let mut now = 0;
            // Answered rounds: text, reply, and true when it followed the previous one within a minute.
            let mut answered: Vec<(u8, u8, bool)> = Vec::new();
            for (said, replied, pause) in steps {
                now += pause;
                let soon = pause <= 60;
                let last: Vec<_> = answered.iter().rev().take(allowed as usize).collect();
                let identical = last.len() == allowed as usize
                    && last.windows(2).all(|two| two[0].2 && (two[0].0, two[0].1) == (two[1].0, two[1].1));
                let expected = allowed > 0 && identical && soon && last[0].0 == said;
                let (said_print, replied_print) = (Fingerprint(said), Fingerprint(replied));
                let stopped = rounds.stops(said_print, at(now), &guard);
                prop_assert_eq!(stopped.is_some(), expected, "{:?} {:?}", answered, rounds);
                if stopped.is_none() {
                    rounds.answered(said_print, replied_print, at(now), &guard);
                    answered.push((said, replied, soon));
                }
            }
        }
    }
}
