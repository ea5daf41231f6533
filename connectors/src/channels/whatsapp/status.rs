//! One entry of `statuses`: how far a message of ours has come.
//!
//! <https://developers.facebook.com/documentation/business-messaging/whatsapp/webhooks/reference/messages/status/>.
//! `biz_opaque_callback_data` names the conversation. The recipient's ids may say more of the person than is known.

use heddle_schemas::content::Address;
use heddle_schemas::id::AccountId;
use heddle_schemas::ports::channel::ReceivedStatus;
use heddle_schemas::record::inbound::{DeliveryFailure, DeliveryStatus, Pricing};
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
        pricing: pricing(status),
        recipient: recipient(status),
    })
}

/// `pricing`: `{"billable":true,"pricing_model":"PMP","type":"regular","category":"marketing"}`
/// (<https://developers.facebook.com/documentation/business-messaging/whatsapp/pricing>).
fn pricing(status: &Value) -> Option<Pricing> {
    let pricing = status.get("pricing")?;
    // A name, and no text: of a label's length and characters.
    let label = |key| field::text(pricing, key).filter(|label| is_label(label));
    let kind = label("type");
    let billable = match pricing.get("billable").and_then(Value::as_bool) {
        Some(billable) => billable,
        // Meta names it as deprecated in favour of the type.
        None => kind.as_deref().is_none_or(|kind| !kind.starts_with("free")),
    };
    let recipient = field::text(status, "recipient_id");
    let country = recipient.as_deref().and_then(calling_code).map(str::to_owned);
    Some(Pricing { billable, category: label("category")?, kind, country })
}

fn is_label(label: &str) -> bool {
    (1..=40).contains(&label.len()) && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

/// Returns the country calling code of a number in international form: ITU-T E.164, annex D
/// (<https://www.itu.int/pub/T-SP-E.164D>). Those of one and two digits; every other has three.
fn calling_code(number: &str) -> Option<&str> {
    const TWO: [&str; 43] = [
        "20", "27", "30", "31", "32", "33", "34", "36", "39", "40", "41", "43", "44", "45", "46", "47", "48",
        "49", "51", "52", "53", "54", "55", "56", "57", "58", "60", "61", "62", "63", "64", "65", "66", "81",
        "82", "84", "86", "90", "91", "92", "93", "94", "95",
    ];
    if number.len() < 7 || !number.bytes().all(|byte| byte.is_ascii_digit()) || number.starts_with('0') {
        return None;
    }
    let length = match () {
        () if number.starts_with(['1', '7']) => 1,
        () if TWO.iter().any(|code| number.starts_with(code)) || number.starts_with("98") => 2,
        () => 3,
    };
    Some(&number[..length])
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_carries_its_charge_and_country_and_no_number() {
        let status = json!({
            "id": "wamid.1", "status": "delivered", "timestamp": "1739321024", "recipient_id": "4915112345678",
            "pricing": { "billable": true, "pricing_model": "PMP", "type": "regular", "category": "marketing" },
        });
        let read = |status: &Value| read(&"1".parse().unwrap(), status, Timestamp::EPOCH).unwrap().pricing;
        let (category, country) = ("marketing".to_owned(), Some("49".to_owned()));
        let kind = Some("regular".to_owned());
        assert_eq!(read(&status), Some(Pricing { billable: true, category, kind, country }));
        let free = json!({
            "id": "wamid.1", "status": "sent", "recipient_id": "US.123",
            "pricing": { "type": "free_customer_service", "category": "service" },
        });
        let free = read(&free).unwrap();
        assert_eq!((free.billable, free.country), (false, None));
        let odd = json!({ "id": "wamid.1", "status": "sent", "pricing": { "category": "Call +49 151 1" } });
        assert_eq!(read(&odd), None, "a text is no category");
    }

    #[test]
    fn a_number_has_the_calling_code_of_its_country() {
        for (number, code) in [
            ("15551234567", "1"),
            ("77051001302", "7"),
            ("5531988887777", "55"),
            ("351912345678", "351"),
            ("989121234567", "98"),
        ] {
            assert_eq!(calling_code(number), Some(code));
        }
        assert_eq!(calling_code("0151").or(calling_code("US.1349")), None);
    }
}
