//! Record of one simulated customer's questions and replies: a pure state machine, fed in the order of events.
//!
//! A reply is attributed to the oldest open question whose expected words it contains, or else to the
//! oldest open question without expected words. A message that was accepted twice under one id is
//! counted as doubled and attributed to no question. A reply is out of order if a later message of its
//! turn or a later turn has already arrived, or if it answers an earlier question than one that is
//! already answered.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use heddle_schemas::id::Cause;

use crate::ledger::Taken;

/// Question that was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Words that an answer must contain; `None` accepts any answer.
    pub expect: Option<String>,
    /// Time at which its last line was sent.
    pub at: Duration,
    /// Latency of the answer.
    pub answered: Option<Duration>,
}

/// Record of one customer's questions and replies.
#[derive(Debug, Default)]
pub struct Record {
    asked: Vec<Asked>,
    replies: Vec<Arc<Taken>>,
    times: HashMap<String, u32>,
    turns: HashMap<Cause, u16>,
    last_turn: Option<Cause>,
    last_answered: Option<usize>,
    /// Messages accepted again under an id already seen.
    pub doubled: u64,
    /// Replies out of order.
    pub out_of_order: u64,
    /// Replies that answer no open question.
    pub unmatched: u64,
}

impl Record {
    /// Begins a question; returns its number.
    pub fn ask(&mut self, expect: Option<String>, at: Duration) -> usize {
        self.asked.push(Asked { expect, at, answered: None });
        self.asked.len() - 1
    }

    /// Records another line of the question: the latency of its answer counts from then.
    pub fn extend(&mut self, question: usize, at: Duration) {
        if let Some(asked) = self.asked.get_mut(question).filter(|asked| asked.answered.is_none()) {
            asked.at = at;
        }
    }

    /// Records a reply; returns the question that it answers.
    pub fn receive(&mut self, reply: &Arc<Taken>) -> Option<usize> {
        self.replies.push(reply.clone());
        if self.is_again(reply) {
            self.doubled += 1;
            return None;
        }
        let question = self.question_of(&reply.text);
        let behind_answer = question.is_some() && question < self.last_answered;
        if self.is_behind_turn(reply) || behind_answer {
            self.out_of_order += 1;
        }
        match question.and_then(|question| self.asked.get_mut(question)) {
            Some(asked) => asked.answered = Some(reply.at.saturating_sub(asked.at)),
            None => self.unmatched += 1,
        }
        self.last_answered = self.last_answered.max(question);
        question
    }

    /// Returns whether the question is answered.
    #[must_use]
    pub fn is_answered(&self, question: usize) -> bool {
        self.asked.get(question).is_some_and(|asked| asked.answered.is_some())
    }

    /// Returns the questions so far.
    #[must_use]
    pub fn asked(&self) -> &[Asked] {
        &self.asked
    }

    /// Returns the received messages, in order, doubles included.
    #[must_use]
    pub fn replies(&self) -> &[Arc<Taken>] {
        &self.replies
    }

    fn is_again(&mut self, reply: &Taken) -> bool {
        let Some(id) = &reply.callback else { return false };
        let times = self.times.entry(id.clone()).or_default();
        *times += 1;
        *times > 1
    }

    fn is_behind_turn(&mut self, reply: &Taken) -> bool {
        let Some(id) = &reply.outbound else { return false };
        let (before, index) = (self.turns.get(&id.cause).copied(), id.index);
        let behind = match before {
            Some(last) => index < last || self.last_turn != Some(id.cause),
            None => false,
        };
        self.turns.insert(id.cause, before.unwrap_or_default().max(index));
        self.last_turn = Some(id.cause);
        behind
    }

    fn question_of(&self, text: &str) -> Option<usize> {
        let open = || self.asked.iter().enumerate().filter(|(_, asked)| asked.answered.is_none());
        let expected = |asked: &Asked| asked.expect.as_deref().is_some_and(|words| text.contains(words));
        open()
            .find(|(_, asked)| expected(asked))
            .or_else(|| open().find(|(_, asked)| asked.expect.is_none()))
            .map(|(question, _)| question)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(turn: u8, index: u16, text: &str, secs: u64) -> Arc<Taken> {
        let callback = format!("{:032x}.{turn:032x}.{index}", 1);
        Arc::new(Taken {
            order: 0,
            account: "1".parse().unwrap(),
            to: "16505551234".into(),
            text: text.into(),
            outbound: Some(callback.parse().unwrap()),
            callback: Some(callback),
            wamid: "wamid.1".into(),
            at: Duration::from_secs(secs),
        })
    }

    fn asked(expected: &[Option<&str>]) -> Record {
        let mut record = Record::default();
        for expect in expected {
            record.ask(expect.map(Into::into), Duration::from_secs(1));
        }
        record
    }

    #[test]
    fn an_answer_is_due_from_the_last_line_on() {
        let mut record = asked(&[None]);
        record.extend(0, Duration::from_secs(3));
        assert!(!record.is_answered(0));
        assert_eq!(record.receive(&reply(1, 0, "yes", 5)), Some(0));
        record.extend(0, Duration::from_secs(6));
        assert_eq!(record.asked()[0].answered, Some(Duration::from_secs(2)));
        assert!(record.is_answered(0));
    }

    #[test]
    fn the_same_id_twice_is_doubled_and_answers_nothing() {
        let mut record = asked(&[None, None]);
        assert_eq!(record.receive(&reply(1, 0, "yes", 2)), Some(0));
        assert_eq!(record.receive(&reply(1, 0, "yes", 3)), None);
        assert_eq!((record.doubled, record.out_of_order, record.replies().len()), (1, 0, 2));
        assert!(!record.is_answered(1));
    }

    #[test]
    fn an_answer_finds_the_question_that_expects_it() {
        let mut record = asked(&[Some("blue"), Some("9 am")]);
        assert_eq!(record.receive(&reply(1, 0, "A colleague will get back to you.", 2)), None);
        assert_eq!(record.receive(&reply(2, 0, "We open at 9 am.", 3)), Some(1));
        assert_eq!((record.unmatched, record.out_of_order), (1, 0));
        assert_eq!(record.receive(&reply(3, 0, "Yes, in blue.", 4)), Some(0));
        assert_eq!(record.out_of_order, 1, "the first question was answered after the second");
    }

    #[test]
    fn the_messages_of_a_turn_come_in_order_and_in_one_piece() {
        let order = |replies: &[(u8, u16)]| {
            let mut record = Record::default();
            for (turn, index) in replies {
                record.receive(&reply(*turn, *index, "", 1));
            }
            record.out_of_order
        };
        assert_eq!(order(&[(1, 0), (1, 1), (2, 0), (3, 0)]), 0);
        assert_eq!(order(&[(1, 1), (1, 0)]), 1);
        assert_eq!(order(&[(1, 0), (2, 0), (1, 1)]), 1);
    }
}
