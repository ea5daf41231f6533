//! One entry of `statuses`: how far a message of ours has come.
//!
//! <https://developers.facebook.com/documentation/business-messaging/whatsapp/webhooks/reference/messages/status/>.
//! `biz_opaque_callback_data` names the conversation. The recipient's ids may say more of the person than is known.

use heddle_schemas::content::Address;
use heddle_schemas::id::AccountId;
use heddle_schemas::ports::channel::ReceivedStatus;
use heddle_schemas::record::inbound::{DeliveryFailure, DeliveryStatus};
use heddle_schemas::time::Timestamp;
use serde_json::Value;

use super::{field, sender};
use crate::channels::call::redact;

/// Reads a status; `None` when it is one this build does not know, or says of no message.
pub(super) fn read(account: &AccountId, status: &Value, now: Timestamp) -> Option<ReceivedStatus> {
    let known = match status.get("status")?.as_str()? {
        "sent" => DeliveryStatus::Sent,
        "delivered" => DeliveryStatus::Delivered,
        "read" => DeliveryStatus::Read,
        "played" => DeliveryStatus::Played,
        "failed" => DeliveryStatus::Failed,
        _ => return None,
    };
    Some(ReceivedStatus {
        account: account.clone(),
        message_id: field::text(status, "id")?,
        // Another program may send through the same number, with data of its own.
        outbound: field::text(status, "biz_opaque_callback_data").and_then(|id| id.parse().ok()),
        status: known,
        at: field::time(status, "timestamp", now),
        failure: (known == DeliveryStatus::Failed).then(|| failure(status)).flatten(),
        recipient: recipient(status),
    })
}

/// The recipient; of a message to a group nobody, since `recipient_id` is the group's.
fn recipient(status: &Value) -> Address {
    match field::text(status, "recipient_type").as_deref() {
        Some("group") => Address::default(),
        _ => sender::written(status, ["recipient_id", "recipient_user_id", "recipient_parent_user_id"]),
    }
}

fn failure(status: &Value) -> Option<DeliveryFailure> {
    let error = status.get("errors")?.get(0)?;
    let title = field::text(error, "title").or_else(|| field::text(error, "message"));
    Some(DeliveryFailure {
        code: field::integer(error, "code").unwrap_or(0),
        title: redact(&title.unwrap_or_default()),
    })
}
