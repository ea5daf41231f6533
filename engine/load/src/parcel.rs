//! Outgoing messages, before they are encoded for an ingress.

use heddle_schemas::time::Timestamp;

use crate::observed::Sent;

/// Messages sent together to the account of one tenant.
pub(crate) struct Parcel {
    pub(crate) tenant: u32,
    pub(crate) messages: Vec<Outgoing>,
}

/// Outgoing message.
pub(crate) struct Outgoing {
    pub(crate) sent: Sent,
    /// The channel's unique id of the message.
    pub(crate) id: String,
    /// Time of writing, in whole seconds.
    pub(crate) written_at: Timestamp,
}

impl Parcel {
    /// Returns the messages that it holds.
    pub(crate) fn sent(&self) -> impl ExactSizeIterator<Item = Sent> + '_ {
        self.messages.iter().map(|message| message.sent)
    }
}

impl Outgoing {
    /// Returns the profile name of the sender.
    pub(crate) fn name(&self) -> String {
        format!("Customer {}", self.sent.conversation + 1)
    }
}
