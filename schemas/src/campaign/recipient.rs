//! State of one recipient of a campaign.
//!
//! States only rise: a late or repeated status changes nothing that a later one has said. One exception is stated by
//! the rule itself: a status lifts what was given up, since it proves that the message went out after all.

use serde::{Deserialize, Serialize};

/// State of a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecipientState {
    /// It is written down.
    Planned,
    /// A call may be under way.
    Attempting,
    /// The call's outcome is not known, and the message is not sent again.
    Unknown,
    /// The channel holds it back to assess the template.
    Held,
    /// The channel has refused it for good.
    Failed,
    /// It was not sent, for a reason of the recipient's or the tenant's.
    Withheld,
    /// The channel has taken it.
    Sent,
    /// It reached the device.
    Delivered,
    /// It was read.
    Read,
    /// Its audio was played.
    Played,
    /// The recipient has answered it.
    Replied,
}

/// Reason for which a recipient gets no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WithheldReason {
    /// The recipient has opted out of the campaign's purpose.
    OptedOut,
    /// One of the recipient's ids is on the suppression list.
    Suppressed,
    /// The recipient has had as many marketing messages as the tenant allows.
    Capped,
    /// The channel allows no further marketing message to the recipient yet.
    Cooldown,
    /// The processing of the recipient's data is restricted.
    Restricted,
    /// The recipient was erased.
    Erased,
    /// The tenant's quota is spent.
    Quota,
    /// The recipient's row does not fit the template.
    Misfit,
    /// The recipient belongs to the hold-out group.
    HoldOut,
    /// The campaign was cancelled before.
    Cancelled,
}

impl RecipientState {
    /// All of them, from the lowest to the highest.
    pub const ALL: [Self; 11] = [
        Self::Planned,
        Self::Attempting,
        Self::Unknown,
        Self::Held,
        Self::Failed,
        Self::Withheld,
        Self::Sent,
        Self::Delivered,
        Self::Read,
        Self::Played,
        Self::Replied,
    ];

    /// Returns the state after another is reported: the higher of the two. A message that was withheld was never
    /// called for, so that no report can be about it.
    #[must_use]
    pub fn raised(self, reported: Self) -> Self {
        match self {
            Self::Withheld => self,
            _ => self.max(reported),
        }
    }

    /// Returns true where the campaign owes the recipient nothing more. Later statuses may still raise it.
    #[must_use]
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Planned | Self::Attempting | Self::Held)
    }

    /// Returns true where a call must not be made: it was made, or it is forbidden.
    #[must_use]
    pub fn forbids_call(self) -> bool {
        self != Self::Planned
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_status_lifts_what_was_given_up() {
        use RecipientState::{Delivered, Failed, Read, Sent, Unknown};
        assert_eq!(Unknown.raised(Sent), Sent);
        assert_eq!(Failed.raised(Delivered), Delivered);
        assert_eq!(Read.raised(Delivered), Read, "a status that comes late");
    }

    proptest! {
        #[test]
        fn the_order_of_reports_does_not_matter(
            mut reports in proptest::collection::vec(proptest::sample::select(RecipientState::ALL[2..].to_vec()), 0..8),
        ) {
            reports.retain(|state| *state != RecipientState::Withheld);
            let end = |reports: &[RecipientState]| {
                reports.iter().fold(RecipientState::Attempting, |state, report| state.raised(*report))
            };
            let first = end(&reports);
            reports.reverse();
            prop_assert_eq!(end(&reports), first);
            reports.extend(reports.clone());
            prop_assert_eq!(end(&reports), first, "repeated");
        }
    }
}
