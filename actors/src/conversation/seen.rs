//! Set of messages that a conversation has seen. Most conversations see few messages in the retention of markers:
//! theirs are held in memory, so that a message is known as new without a read.

use heddle_schemas::id::{ConversationId, MessageKey};
use heddle_schemas::ports::log::StoreError;
use heddle_schemas::ports::state::{Scan, State};
use heddle_schemas::table::Partition;

/// Number of keys that are held per conversation.
const HELD: usize = 32;

/// The messages that a conversation has seen.
#[derive(Debug)]
pub(super) struct Seen {
    /// All seen messages; `None` where there are too many.
    all: Option<Vec<MessageKey>>,
}

impl Seen {
    /// Returns the empty set of a new conversation.
    pub(super) fn none() -> Self {
        Self { all: Some(Vec::new()) }
    }

    /// Loads the seen messages.
    pub(super) async fn load(state: &dyn State, of: &ConversationId) -> Result<Self, StoreError> {
        let markers = state.scan(&Scan::first(Partition::markers(of), HELD + 1)).await?;
        let all = markers.iter().map(|(key, _)| key.row().try_into().ok().map(MessageKey::from_bytes));
        Ok(Self { all: all.collect::<Option<Vec<_>>>().filter(|all| all.len() <= HELD) })
    }

    /// Returns true when it surely has not seen this message; otherwise the marker decides.
    pub(super) fn lacks(&self, message: MessageKey) -> bool {
        self.all.as_ref().is_some_and(|all| !all.contains(&message))
    }

    /// It has seen this one.
    pub(super) fn add(&mut self, message: MessageKey) {
        match &mut self.all {
            Some(all) if all.len() < HELD => all.push(message),
            all => *all = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_messages_or_none_are_held() {
        let message = |number: u8| MessageKey::from_bytes([number; 16]);
        let mut seen = Seen::none();
        for number in 0..32 {
            assert!(seen.lacks(message(number)));
            seen.add(message(number));
            assert!(!seen.lacks(message(number)) && seen.lacks(message(99)));
        }
        seen.add(message(32));
        assert!(!seen.lacks(message(99)), "nothing is known of it any more");
        seen.add(message(33));
        assert!(!seen.lacks(message(99)));
    }
}
