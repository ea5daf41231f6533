//! Messages on their way, before they are shaped for one way into the engine.

use heddle_schemas::time::Timestamp;

use crate::observed::Sent;

/// Messages that leave together, for the account of one tenant.
pub(crate) struct Parcel {
    pub(crate) tenant: u32,
    pub(crate) letters: Vec<Letter>,
}

/// A message on its way.
pub(crate) struct Letter {
    pub(crate) sent: Sent,
    /// The channel's id of it, unlike any other's.
    pub(crate) id: String,
    /// In whole seconds.
    pub(crate) written_at: Timestamp,
}

impl Parcel {
    /// Which messages it holds.
    pub(crate) fn sent(&self) -> impl ExactSizeIterator<Item = Sent> + '_ {
        self.letters.iter().map(|letter| letter.sent)
    }
}

impl Letter {
    /// The profile name of who sends it.
    pub(crate) fn name(&self) -> String {
        format!("Customer {}", self.sent.conversation + 1)
    }
}
