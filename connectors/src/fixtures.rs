//! Keys and rows that the stores' unit tests share.

use heddle_schemas::id::{ChannelKind, ContactId, ConversationId};

/// A conversation of acme's.
pub(crate) fn conversation(contact: u8) -> ConversationId {
    ConversationId {
        tenant: "acme".parse().unwrap(),
        channel: ChannelKind::Whatsapp,
        account: "1122".parse().unwrap(),
        contact: ContactId::from_bytes([contact; 16]),
    }
}
