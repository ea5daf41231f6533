//! Decision on a replay: the destination of a dead letter's original, if it may still be replayed. Pure.

use std::time::Duration;

use bytes::Bytes;
use heddle_schemas::ports::log::NewRecord;
use heddle_schemas::record::dlq::DeadLetter;
use heddle_schemas::record::inbound::{ActKind, InboundEvent, InboundRecord};
use heddle_schemas::record::outbound::{OutboundCommand, OutboundRecord};
use heddle_schemas::record::{decode, encode, ingress};
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Topic, TopicPartition, inbound_partition, outbound_partition};

use super::Outcome;

/// Maximum ages of a record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ages {
    /// Up to which an outbound message is sent.
    pub(super) sent: Duration,
    /// Up to which a customer's message is answered.
    pub(super) answered: Duration,
    /// Up to which markers and journals show whether a message was seen or sent.
    pub(super) remembered: Duration,
}

/// Decision on a dead letter.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Publishes its original again.
    Back { record: NewRecord, note: String },
    /// Leaves it in the DLQ.
    Stays { outcome: Outcome, why: String },
}

fn stays(outcome: Outcome, why: impl Into<String>) -> Way {
    Way::Stays { outcome, why: why.into() }
}

/// Inputs common to all decisions.
pub(super) struct Desk<'a> {
    /// Returns the number of partitions of a topic.
    pub(super) partitions: &'a dyn Fn(Topic) -> u32,
    pub(super) ages: Ages,
    pub(super) now: Timestamp,
}

impl Desk<'_> {
    /// Decides on a dead letter with its key in dlq and its decrypted original.
    pub(super) fn find(&self, dead_letter: &DeadLetter, key: &Bytes, original: Bytes) -> Way {
        match dead_letter.from.topic {
            Topic::Inbound => self.inbound(dead_letter, key, original),
            Topic::Outbound => self.outbound(original),
            Topic::Ingress => self.ingress(dead_letter, key, original),
            topic => stays(Outcome::Impossible, format!("records of {topic} are not replayed")),
        }
    }

    fn inbound(&self, dead_letter: &DeadLetter, key: &Bytes, value: Bytes) -> Way {
        let Ok(read) = decode::<InboundRecord>(&value) else {
            // A newer build may read it. It is at least as old as its dead letter.
            return self.as_it_stood(dead_letter, key, value);
        };
        let age = self.now.since(read.at);
        let note = match &read.event {
            InboundEvent::Customer(_)
            | InboundEvent::Handling(_)
            | InboundEvent::Restrict(_)
            | InboundEvent::Correct(_)
                if age > self.ages.remembered =>
            {
                return forgotten(self.ages);
            }
            InboundEvent::Customer(act) if act.kind == ActKind::Say => unanswered(age, self.ages),
            _ => String::new(),
        };
        let partition = inbound_partition(&read.conversation, (self.partitions)(Topic::Inbound));
        let key = Bytes::from(read.conversation.to_string());
        Way::Back { record: NewRecord { partition, key, value }, note }
    }

    fn outbound(&self, value: Bytes) -> Way {
        let Ok(mut read) = decode::<OutboundRecord>(&value) else {
            // A build that can read it would send it at any age, and again for each replay.
            return stays(
                Outcome::Unreadable,
                "this build cannot read it, so it can neither check its age nor flag it as a replay",
            );
        };
        let age = self.now.since(read.at);
        let value = match &mut read.command {
            OutboundCommand::Send(_) if age > self.ages.sent => {
                let why = format!(
                    "it was decided {} ago, and is not sent after {}",
                    rough(age),
                    rough(self.ages.sent)
                );
                return stays(Outcome::TooOld, why);
            }
            OutboundCommand::Send(send) => {
                // Without the flag an account checks its journal only after a take-over.
                send.again = true;
                encode(&read)
            }
            OutboundCommand::Settle(_) | OutboundCommand::Forget | OutboundCommand::Leave(_) => value,
        };
        let account = read.conversation.account();
        let partition = outbound_partition(&account, (self.partitions)(Topic::Outbound));
        Way::Back {
            record: NewRecord { partition, key: Bytes::from(account.to_string()), value },
            note: String::new(),
        }
    }

    fn ingress(&self, dead_letter: &DeadLetter, key: &Bytes, value: Bytes) -> Way {
        if (self.partitions)(Topic::Ingress) == 0 {
            return stays(Outcome::Impossible, "this log has no topic ingress");
        }
        let Ok(read) = ingress::read(&value) else {
            return self.as_it_stood(dead_letter, key, value);
        };
        let age = self.now.since(read.at);
        let note = match read.event {
            // The latest statement is in force, so these are idempotent at any age.
            ingress::IngressEvent::Status { .. } | ingress::IngressEvent::Preference { .. } => String::new(),
            _ if age > self.ages.remembered => return forgotten(self.ages),
            ingress::IngressEvent::Message { .. } => unanswered(age, self.ages),
            _ => String::new(),
        };
        match self.as_it_stood(dead_letter, key, value) {
            Way::Back { record, .. } => Way::Back { record, note },
            stays @ Way::Stays { .. } => stays,
        }
    }

    /// Publishes the original unchanged to its source partition.
    fn as_it_stood(&self, dead_letter: &DeadLetter, key: &Bytes, value: Bytes) -> Way {
        let TopicPartition { topic, partition } = dead_letter.from;
        if partition >= (self.partitions)(topic) {
            return stays(Outcome::Impossible, format!("{} does not exist any more", dead_letter.from));
        }
        if self.now.since(dead_letter.at) > self.ages.remembered {
            return forgotten(self.ages);
        }
        let record = NewRecord { partition: dead_letter.from, key: key.clone(), value };
        Way::Back { record, note: String::new() }
    }
}

fn forgotten(ages: Ages) -> Way {
    let why = format!("after {} it is unknown whether it was recorded", rough(ages.remembered));
    stays(Outcome::TooOld, why)
}

fn unanswered(age: Duration, ages: Ages) -> String {
    match age > ages.answered {
        true => format!("recorded and not answered: it is {} old", rough(age)),
        false => String::new(),
    }
}

/// Formats a duration in its largest whole unit: `2d`, `90m` as `1h`.
pub(super) fn rough(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [(86_400, "d"), (3_600, "h"), (60, "m")];
    match units.into_iter().find(|(unit, _)| seconds >= *unit) {
        Some((unit, name)) => format!("{}{name}", seconds / unit),
        None => format!("{seconds}s"),
    }
}
