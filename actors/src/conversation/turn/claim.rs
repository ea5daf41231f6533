//! The claim of a call to the outside: a row, written on a condition before the call is made.
//!
//! An owner that finds a claim without a decision adopts it: its turn covers the same messages, so that the outside
//! gets the same question again, and at most [`ATTEMPTS`](super::ATTEMPTS) times.

use heddle_schemas::id::{ConversationId, MessageKey, TurnId};
use heddle_schemas::ports::state::{StoreError, Swap};
use heddle_schemas::record::encode;
use heddle_schemas::table::Key;
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::Epoch;
use serde::{Deserialize, Serialize};

use crate::conversation::head::Open;
use crate::partition::commit::read;
use crate::ports::Ports;

/// Claim of a call to the outside for a turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The ownership under which it was made.
    pub epoch: Epoch,
    /// The number of the call, from 1.
    pub attempt: u32,
    /// The messages that the turn covers.
    pub covered: Vec<MessageKey>,
}

impl Claim {
    /// Returns the number of open messages that a turn with this claim covers: those at the front that it names, at
    /// least the one that names the turn.
    #[must_use]
    pub fn covers(&self, open: &[Open]) -> usize {
        open.iter().take_while(|open| self.covered.contains(&open.key)).count().max(1)
    }

    /// The claim of the next attempt.
    #[must_use]
    pub fn next(earlier: Option<&Self>, epoch: Epoch, covered: impl FnOnce() -> Vec<MessageKey>) -> Self {
        match earlier {
            Some(earlier) => Self { epoch, attempt: earlier.attempt + 1, covered: earlier.covered.clone() },
            None => Self { epoch, attempt: 1, covered: covered() },
        }
    }
}

/// Reads the claim of a turn. One that does not parse counts as none, as a claim of a newer build would.
///
/// # Errors
/// Errors that a retry does not fix.
pub(crate) async fn find(
    ports: &Ports,
    conversation: &ConversationId,
    turn: TurnId,
) -> Result<Option<Claim>, StoreError> {
    let key = Key::claim(conversation, turn);
    let stored = read(&ports.metrics, || ports.state.get(&key)).await?;
    Ok(stored.and_then(|stored| serde_json::from_slice(&stored).ok()))
}

/// Replaces `earlier` by `mine`. Returns the claim that was found instead, where it was another.
///
/// # Errors
/// Errors that a retry does not fix.
pub(super) async fn write(
    ports: &Ports,
    conversation: &ConversationId,
    turn: TurnId,
    earlier: Option<&Claim>,
    mine: &Claim,
    expires: Timestamp,
) -> Result<Option<Claim>, StoreError> {
    let key = Key::claim(conversation, turn);
    let value = encode(mine);
    let mut expected = earlier.map(encode);
    loop {
        let swap = ports.state.compare_and_set(&key, expected.clone(), Some(value.clone()), Some(expires));
        let found = match swap.await {
            Ok(Swap::Done) => return Ok(None),
            Ok(Swap::Found(found)) => found,
            // The outcome is unknown. If the write succeeded, this very claim is found, and is ours.
            Err(error) if error.is_transient() => {
                ports.metrics.store_retried(&error);
                read(&ports.metrics, || ports.state.get(&key)).await?
            }
            Err(error) => return Err(error),
        };
        if found.as_ref() == Some(&value) {
            return Ok(None);
        }
        match found.as_deref().and_then(|found| serde_json::from_slice::<Claim>(found).ok()) {
            Some(other) if Some(&other) != earlier => return Ok(Some(other)),
            // As it was read, but written otherwise; or gone; or unreadable.
            _ => expected = found,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(number: u8) -> Open {
        Open { key: MessageKey::from_bytes([number; 16]), row: 0, text: true, at: Timestamp::EPOCH }
    }

    #[test]
    fn an_adopted_claim_covers_what_it_names_and_no_more() {
        let covered = vec![open(1).key, open(2).key];
        let claim = Claim { epoch: Epoch(1), attempt: 1, covered };
        assert_eq!(claim.covers(&[open(1), open(2), open(3)]), 2);
        // The second was taken back after the crash.
        assert_eq!(claim.covers(&[open(1), open(3)]), 1);
        assert_eq!(claim.covers(&[open(1)]), 1);
        let next = Claim::next(Some(&claim), Epoch(2), || unreachable!("it is adopted whole"));
        assert_eq!(next, Claim { epoch: Epoch(2), attempt: 2, ..claim });
    }
}
