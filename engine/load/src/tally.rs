//! Tally of sent messages and received replies: a pure state machine, fed in the order of events. Its memory is
//! bounded by the number of conversations and the maximum of open messages of each.
//!
//! Each message of a conversation has a number; replies name it modulo [`THINGS`]. At most half of [`THINGS`] are
//! open at once, and a number whose name is still open is skipped, so that a name is never ambiguous. A
//! message is
//! - *answered* by the first reply that names it,
//! - *lost* if it was accepted and no reply has named it at the end,
//! - *doubled* by each further reply that names it,
//! - *out of order* if its reply comes after that of a message that was sent when this one had been accepted.
//!   Two that were in flight at the same time have no order, and none is required.
//!
//! A message that was not accepted needs no reply. Where the answer was lost, its acceptance is unknown; so a
//! reply to such a message is counted, and is not a fault.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::fixture::THINGS;
use crate::observed::{Answer, Sent};

/// Maximum latency recorded; longer ones count as this.
const LONGEST: Duration = Duration::from_secs(3600);
/// Acceptance step of a message that has not been accepted yet.
const NEVER: u64 = u64::MAX;

/// Message without a reply.
#[derive(Debug)]
struct Open {
    number: u32,
    due: Duration,
    /// Step at which it was sent.
    sent: u64,
    /// Step at which it was accepted.
    accepted: u64,
    /// True where a later message was answered first.
    overtaken: bool,
    /// True where a customer waits for its reply before asking again.
    waited_for: bool,
}

#[derive(Debug, Default)]
struct Conversation {
    /// Number of the next message.
    next: u32,
    /// Bit set of the things whose last question is answered.
    answered: u64,
    open: Vec<Open>,
}

/// Totals of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) bodies: u64,
    pub(crate) sent: u64,
    pub(crate) accepted: u64,
    /// Messages that were not accepted.
    pub(crate) refused: u64,
    pub(crate) answered: u64,
    pub(crate) doubled: u64,
    pub(crate) out_of_order: u64,
    /// Replies that name no message, such as fallbacks.
    pub(crate) nameless: u64,
    /// Replies to unknown recipients, or to questions of another run.
    pub(crate) strangers: u64,
    /// Replies to messages that were not accepted.
    pub(crate) unowed: u64,
    /// Bodies by their answer.
    pub(crate) answers: BTreeMap<Answer, u64>,
}

/// Tally of a run.
#[derive(Debug)]
pub(crate) struct Tally {
    conversations: Vec<Conversation>,
    /// Maximum number of messages of one conversation without a reply.
    most_open: usize,
    step: u64,
    open: u64,
    /// Messages that customers wait for, the oldest first; empty in an open loop.
    waits: VecDeque<(Sent, Duration)>,
    counts: Counts,
    accept_latency: Histogram<u64>,
    reply_latency: Histogram<u64>,
    last_reply: Duration,
}

impl Tally {
    /// Creates the tally of `conversations`, each with at most `most_open` messages without a reply.
    pub(crate) fn new(conversations: u32, most_open: usize) -> Self {
        let micros = u64::try_from(LONGEST.as_micros()).unwrap_or(u64::MAX);
        let latencies = || Histogram::new_with_bounds(1, micros, 3).expect("the bounds are valid");
        Self {
            conversations: (0..conversations).map(|_| Conversation::default()).collect(),
            most_open: most_open.min(THINGS as usize / 2),
            step: 0,
            open: 0,
            waits: VecDeque::new(),
            counts: Counts::default(),
            accept_latency: latencies(),
            reply_latency: latencies(),
            last_reply: Duration::ZERO,
        }
    }

    /// Returns whether this conversation has its maximum of messages without a reply.
    pub(crate) fn is_full(&self, conversation: u32) -> bool {
        self.conversations[conversation as usize].open.len() >= self.most_open
    }

    /// Begins a body: the messages of one body are ordered.
    pub(crate) fn begin_body(&mut self) {
        self.step += 1;
        self.counts.bodies += 1;
    }

    /// Records a message sent in the current body. `waited_for`: its customer waits for the reply.
    pub(crate) fn send(&mut self, conversation: u32, due: Duration, waited_for: bool) -> Sent {
        let talk = &mut self.conversations[conversation as usize];
        let mut sent = Sent { conversation, number: talk.next };
        while talk.open.iter().any(|open| open.number % THINGS == sent.thing()) {
            sent.number += 1;
        }
        talk.next = sent.number + 1;
        talk.answered &= !(1 << sent.thing());
        talk.open.push(Open {
            number: sent.number,
            due,
            sent: self.step,
            accepted: NEVER,
            overtaken: false,
            waited_for,
        });
        if waited_for {
            self.waits.push_back((sent, due));
        }
        self.open += 1;
        self.counts.sent += 1;
        sent
    }

    /// Records the acceptance of a body, with its latency.
    pub(crate) fn accepted(
        &mut self,
        body: impl ExactSizeIterator<Item = Sent>,
        answer: Answer,
        latency: Duration,
    ) {
        self.step += 1;
        self.counts.accepted += body.len() as u64;
        *self.counts.answers.entry(answer).or_default() += 1;
        record(&mut self.accept_latency, latency);
        for sent in body {
            let talk = &mut self.conversations[sent.conversation as usize];
            // The reply may have arrived before.
            if let Some(open) = talk.open.iter_mut().find(|open| open.number == sent.number) {
                open.accepted = self.step;
            }
        }
    }

    /// Records the refusal of a body. Returns the number of its messages that a customer waits for.
    pub(crate) fn refused(&mut self, body: impl ExactSizeIterator<Item = Sent>, answer: Answer) -> usize {
        self.counts.refused += body.len() as u64;
        *self.counts.answers.entry(answer).or_default() += 1;
        let mut freed = 0;
        for sent in body {
            let talk = &mut self.conversations[sent.conversation as usize];
            if let Some(place) = talk.open.iter().position(|open| open.number == sent.number) {
                freed += usize::from(talk.open.remove(place).waited_for);
                self.open -= 1;
            }
        }
        freed
    }

    /// Records a reply that names these things. Returns the number of awaited messages that it answers.
    pub(crate) fn reply(
        &mut self,
        conversation: u32,
        things: impl Iterator<Item = u32>,
        at: Duration,
    ) -> usize {
        let (mut named, mut freed) = (false, 0);
        for thing in things {
            named = true;
            freed += usize::from(self.answer(conversation, thing, at));
        }
        self.counts.nameless += u64::from(!named);
        freed
    }

    /// Records a reply to an unknown recipient.
    pub(crate) fn unknown_recipient(&mut self) {
        self.counts.strangers += 1;
    }

    /// Records an answer to one thing. Returns whether a customer waited for it.
    fn answer(&mut self, conversation: u32, thing: u32, at: Duration) -> bool {
        let talk = &mut self.conversations[conversation as usize];
        let bit = 1 << thing;
        let Some(place) = talk.open.iter().position(|open| open.number % THINGS == thing) else {
            match () {
                () if talk.next <= thing => self.counts.strangers += 1,
                () if talk.answered & bit != 0 => self.counts.doubled += 1,
                () => self.counts.unowed += 1,
            }
            talk.answered |= bit;
            return false;
        };
        let open = talk.open.remove(place);
        talk.answered |= bit;
        for earlier in talk.open.iter_mut().filter(|earlier| earlier.number < open.number) {
            earlier.overtaken |= earlier.accepted < open.sent || earlier.sent == open.sent;
        }
        self.open -= 1;
        self.counts.answered += 1;
        self.counts.out_of_order += u64::from(open.overtaken);
        self.last_reply = self.last_reply.max(at);
        record(&mut self.reply_latency, at.saturating_sub(open.due));
        open.waited_for
    }

    /// Ends every wait that began at this time or earlier. Returns their number; their messages stay open.
    pub(crate) fn give_up(&mut self, since: Duration) -> usize {
        let mut freed = 0;
        while let Some((sent, from)) = self.waits.front().copied() {
            let talk = &mut self.conversations[sent.conversation as usize];
            let open = talk.open.iter_mut().find(|open| open.number == sent.number && open.waited_for);
            match open {
                Some(open) if from <= since => {
                    open.waited_for = false;
                    freed += 1;
                }
                Some(_) => break,
                None => {}
            }
            self.waits.pop_front();
        }
        freed
    }

    /// Returns the number of messages without a reply that are accepted or whose webhook has no answer yet.
    pub(crate) fn open(&self) -> u64 {
        self.open
    }

    /// Returns the totals so far.
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Returns the latencies of acceptance, in microseconds.
    pub(crate) fn accept_latency(&self) -> &Histogram<u64> {
        &self.accept_latency
    }

    /// Returns the latencies of replies, in microseconds.
    pub(crate) fn reply_latency(&self) -> &Histogram<u64> {
        &self.reply_latency
    }

    /// Returns the time of the last reply.
    pub(crate) fn last_reply(&self) -> Duration {
        self.last_reply
    }
}

fn record(latencies: &mut Histogram<u64>, latency: Duration) {
    latencies.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn sent(number: u32) -> Sent {
        Sent { conversation: 0, number }
    }

    fn tally() -> Tally {
        Tally::new(2, 32)
    }

    impl Tally {
        fn one(&mut self, due: u64) -> Sent {
            self.begin_body();
            self.send(0, at(due), true)
        }

        fn take(&mut self, number: u32) {
            self.accepted([sent(number)].into_iter(), "200".into(), at(1));
        }

        fn hear(&mut self, things: &[u32], millis: u64) -> usize {
            self.reply(0, things.iter().copied(), at(millis))
        }
    }

    #[test]
    fn a_message_is_answered_once_and_its_latency_counts_from_when_it_was_due() {
        let mut tally = tally();
        assert_eq!(tally.one(100), sent(0));
        tally.take(0);
        assert_eq!(tally.hear(&[0], 350), 1);
        assert_eq!(tally.hear(&[0], 360), 0);
        let counts = tally.counts();
        assert_eq!((counts.accepted, counts.answered, counts.doubled), (1, 1, 1));
        assert_eq!(tally.open(), 0);
        let latency = tally.reply_latency();
        assert!((249_000..=251_000).contains(&latency.max()) && latency.len() == 1, "{}", latency.max());
        assert_eq!(tally.last_reply(), at(350));
    }

    #[test]
    fn a_reply_may_come_before_the_200() {
        let mut tally = tally();
        tally.one(0);
        tally.hear(&[0], 1);
        tally.take(0);
        assert_eq!((tally.open(), tally.counts().accepted, tally.counts().answered), (0, 1, 1));
    }

    #[test]
    fn what_was_accepted_stays_open_and_what_was_refused_does_not() {
        let mut tally = tally();
        tally.one(0);
        tally.one(0);
        tally.one(0);
        tally.take(0);
        assert_eq!(tally.refused([sent(1)].into_iter(), "503".into()), 1);
        assert_eq!(tally.refused([sent(2)].into_iter(), "timeout".into()), 1);
        assert_eq!((tally.open(), tally.counts().refused), (1, 2));
        let answers = [("200", 1), ("503", 1), ("timeout", 1)].map(|(answer, times)| (answer.into(), times));
        assert_eq!(tally.counts().answers, BTreeMap::from(answers));
        // The message had been accepted after all, which the client cannot know; one reply is correct.
        tally.hear(&[2], 9);
        assert_eq!((tally.counts().unowed, tally.counts().doubled), (1, 0));
        tally.hear(&[2], 9);
        assert_eq!((tally.counts().unowed, tally.counts().doubled), (1, 1));
    }

    #[test]
    fn order_is_asked_for_only_where_there_is_one() {
        // Both were in flight at once: either reply may be first.
        let mut tally = tally();
        tally.one(0);
        tally.one(0);
        tally.take(0);
        tally.take(1);
        tally.hear(&[1], 1);
        tally.hear(&[0], 2);
        assert_eq!(tally.counts().out_of_order, 0);
        // The second was sent after the 200 of the first.
        tally.one(3);
        tally.take(2);
        tally.one(3);
        tally.take(3);
        tally.hear(&[3], 4);
        tally.hear(&[2], 5);
        assert_eq!(tally.counts().out_of_order, 1);
        // The messages of one body are ordered.
        tally.begin_body();
        let body = [tally.send(0, at(6), false), tally.send(0, at(6), false)];
        tally.accepted(body.into_iter(), "200".into(), at(1));
        tally.hear(&[5], 7);
        tally.hear(&[4], 8);
        assert_eq!((tally.counts().out_of_order, tally.counts().answered), (2, 6));
    }

    #[test]
    fn a_lost_message_puts_no_later_one_out_of_order() {
        let mut tally = tally();
        for number in 0..3 {
            tally.one(0);
            tally.take(number);
        }
        tally.hear(&[1], 1);
        tally.hear(&[2], 2);
        assert_eq!((tally.counts().out_of_order, tally.open()), (0, 1));
    }

    #[test]
    fn one_reply_may_answer_several_and_a_fallback_answers_none() {
        let mut tally = tally();
        for _ in 0..3 {
            tally.one(0);
        }
        assert_eq!(tally.hear(&[0, 1], 1), 2);
        assert_eq!(tally.hear(&[], 2), 0);
        assert_eq!((tally.open(), tally.counts().nameless), (1, 1));
        // No message with that number was sent yet.
        tally.hear(&[40], 3);
        assert_eq!(tally.counts().strangers, 1);
    }

    #[test]
    fn things_come_round_and_are_not_mixed_up() {
        let mut tally = tally();
        for number in 0..200 {
            assert_eq!(tally.one(0).thing(), number % 64);
            tally.take(number);
            assert_eq!(tally.hear(&[number % 64], 1), 1, "{number}");
        }
        assert_eq!((tally.counts().answered, tally.counts().doubled), (200, 0));
    }

    #[test]
    fn the_name_of_a_lost_message_is_given_to_no_other() {
        let mut tally = tally();
        tally.one(0);
        for _ in 0..200 {
            let sent = tally.one(0);
            assert_ne!(sent.thing(), 0);
            assert_eq!(tally.hear(&[sent.thing()], 1), 1);
        }
        assert_eq!((tally.open(), tally.counts().answered), (1, 200));
    }

    #[test]
    fn a_conversation_is_full_at_its_bound() {
        let mut tally = Tally::new(2, 3);
        for _ in 0..3 {
            tally.one(0);
        }
        assert!(tally.is_full(0) && !tally.is_full(1));
        tally.hear(&[1], 1);
        assert!(!tally.is_full(0));
    }

    #[test]
    fn who_waits_too_long_gives_up_once_and_the_message_stays_open() {
        let mut tally = tally();
        tally.one(100);
        tally.one(200);
        tally.one(300);
        tally.hear(&[1], 250);
        assert_eq!(tally.give_up(at(99)), 0);
        assert_eq!(tally.give_up(at(250)), 1, "the second was answered");
        assert_eq!(tally.give_up(at(250)), 0);
        assert_eq!(tally.hear(&[0], 400), 0, "no customer waits for it");
        assert_eq!(tally.hear(&[2], 400), 1);
        assert_eq!((tally.open(), tally.counts().answered), (0, 3));
    }
}
