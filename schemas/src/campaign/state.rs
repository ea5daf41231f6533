//! States of a campaign, and the steps between them.
//!
//! Each step is stored by a conditional update and raises the epoch. A batch of recipients carries the epoch under which
//! it was pulled and is refused under an older one, so that a pause or a stop is exact.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// State of a campaign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It is being written.
    Draft,
    /// Template, audience and parameters fit each other.
    Checked,
    /// It starts at its time.
    Scheduled,
    /// Its recipients are being written down.
    Planning,
    /// It sends.
    Sending,
    /// Every recipient has been called for; statuses of the last ones are awaited.
    Finishing,
    /// Every recipient's state is final.
    Done,
    /// Its operator has paused it.
    Paused,
    /// A limit, the template, the account or a policy has stopped it.
    Stopped,
    /// Its operator has ended it.
    Cancelled,
}

/// Reason for which a campaign was stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum StopReason {
    /// Too many messages failed.
    Failures {
        /// Failed messages among the last ones, in percent.
        percent: u8,
    },
    /// Too many recipients opted out.
    OptOuts {
        /// Opt-outs among the last ones, in percent.
        percent: u8,
    },
    /// The channel paused, disabled or rejected the template, or its parameters do not fit any more.
    Template {
        /// Code of the channel.
        code: i64,
    },
    /// The channel blocks the account or its owner.
    Account {
        /// Code of the channel.
        code: i64,
    },
    /// It was due after its latest start: its operator decides.
    Late,
}

/// Step of a campaign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Its file is changed.
    Edit,
    /// Its file, its template and its audience were found to fit.
    Check,
    /// It is to start at its time.
    Schedule,
    /// Its time has come, or it is started at once.
    Plan,
    /// All recipients are written down.
    Send,
    /// All recipients have been called for.
    Finish,
    /// The last recipient's state is final.
    Complete,
    /// Its operator pauses it.
    Pause,
    /// Its operator lets it go on.
    Resume,
    /// It is stopped.
    Stop(StopReason),
    /// Its operator ends it.
    Cancel,
}

/// State of a campaign, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The state.
    pub state: State,
    /// Number of steps so far.
    pub epoch: u64,
    /// Time of the last step.
    pub since: Timestamp,
    /// State to go on with; present while it is paused or stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumes: Option<State>,
    /// Present while it is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<StopReason>,
}

/// Refusal of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a campaign that is {state:?} takes no such step")]
pub struct Refused {
    /// State that the campaign is in.
    pub state: State,
}

impl State {
    /// Returns true where nothing of the campaign happens any more.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Cancelled)
    }

    /// Returns true where recipients may be called for.
    #[must_use]
    pub fn sends(self) -> bool {
        self == Self::Sending
    }
}

impl Status {
    /// Returns the status of a new campaign.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self { state: State::Draft, epoch: 0, since: now, resumes: None, reason: None }
    }

    /// Returns the status after a step.
    ///
    /// # Errors
    /// When the step does not lead on from this state. A step that was made already is refused too: its caller finds
    /// the campaign in the state that it asked for.
    pub fn after(&self, step: Step, now: Timestamp) -> Result<Self, Refused> {
        use State::{
            Cancelled, Checked, Done, Draft, Finishing, Paused, Planning, Scheduled, Sending, Stopped,
        };
        let refused = Refused { state: self.state };
        let (mut resumes, mut reason) = (None, None);
        let state = match (step, self.state) {
            (Step::Edit, Draft | Checked) => Draft,
            (Step::Check, Draft | Checked) => Checked,
            (Step::Schedule, Checked) => Scheduled,
            (Step::Plan, Checked | Scheduled) => Planning,
            (Step::Send, Planning) => Sending,
            (Step::Finish, Sending) => Finishing,
            (Step::Complete, Finishing) => Done,
            (Step::Pause, from @ (Scheduled | Planning | Sending)) => {
                resumes = Some(from);
                Paused
            }
            (Step::Resume, Paused | Stopped) => self.resumes.ok_or(refused)?,
            (Step::Stop(why), from @ (Scheduled | Planning | Sending)) => {
                (resumes, reason) = (Some(from), Some(why));
                Stopped
            }
            (Step::Stop(why), Paused) => {
                (resumes, reason) = (self.resumes, Some(why));
                Stopped
            }
            (Step::Cancel, from) if !from.is_final() => Cancelled,
            _ => return Err(refused),
        };
        Ok(Self { state, epoch: self.epoch + 1, since: now, resumes, reason })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn through(steps: impl IntoIterator<Item = Step>) -> Status {
        steps.into_iter().fold(Status::new(at(0)), |status, step| status.after(step, at(1)).unwrap())
    }

    #[test]
    fn a_campaign_goes_from_draft_to_done() {
        let done = through([
            Step::Edit,
            Step::Check,
            Step::Schedule,
            Step::Plan,
            Step::Send,
            Step::Finish,
            Step::Complete,
        ]);
        assert_eq!((done.state, done.epoch), (State::Done, 7));
        assert!(done.after(Step::Cancel, at(2)).is_err(), "what is done stays done");
    }

    #[test]
    fn it_goes_on_where_it_was_paused_or_stopped() {
        let sending = through([Step::Check, Step::Plan, Step::Send]);
        let paused = sending.after(Step::Pause, at(2)).unwrap();
        assert!(!paused.state.sends() && paused.epoch > sending.epoch);
        assert_eq!(paused.after(Step::Resume, at(3)).unwrap().state, State::Sending);
        let stopped = paused.after(Step::Stop(StopReason::Failures { percent: 30 }), at(3)).unwrap();
        assert_eq!(stopped.reason, Some(StopReason::Failures { percent: 30 }));
        let resumed = stopped.after(Step::Resume, at(4)).unwrap();
        assert_eq!((resumed.state, resumed.reason), (State::Sending, None));
    }

    #[test]
    fn a_second_start_is_refused() {
        let planning = through([Step::Check, Step::Schedule, Step::Plan]);
        assert_eq!(planning.after(Step::Plan, at(2)), Err(Refused { state: State::Planning }));
        assert_eq!(planning.after(Step::Edit, at(2)), Err(Refused { state: State::Planning }));
    }

    fn step() -> impl Strategy<Value = Step> {
        proptest::sample::select(vec![
            Step::Edit,
            Step::Check,
            Step::Schedule,
            Step::Plan,
            Step::Send,
            Step::Finish,
            Step::Complete,
            Step::Pause,
            Step::Resume,
            Step::Stop(StopReason::Late),
            Step::Cancel,
        ])
    }

    proptest! {
        #[test]
        fn every_step_raises_the_epoch_and_a_final_state_is_never_left(
            steps in proptest::collection::vec(step(), 0..40),
        ) {
            let mut status = Status::new(at(0));
            for step in steps {
                if let Ok(next) = status.after(step, at(1)) {
                    prop_assert_eq!(next.epoch, status.epoch + 1);
                    prop_assert!(!status.state.is_final());
                    prop_assert_eq!(
                        next.resumes.is_some(),
                        matches!(next.state, State::Paused | State::Stopped)
                    );
                    prop_assert_eq!(next.reason.is_some(), next.state == State::Stopped);
                    status = next;
                }
            }
        }
    }
}
