//! One entry of `user_preferences`: whether a person wants marketing messages of the business.
//!
//! <https://developers.facebook.com/documentation/business-messaging/whatsapp/webhooks/reference/user_preferences>.
//! It comes when the person stops or resumes them in the app, and speaks of marketing only.

use heddle_schemas::consent::{Category, Says};
use heddle_schemas::id::AccountId;
use heddle_schemas::ports::channel::ReceivedPreference;
use heddle_schemas::time::Timestamp;
use serde_json::Value;

use super::{field, sender};

/// Reads a preference; `None` if this build does not know it, or if it has no person.
pub(super) fn read(
    account: &AccountId,
    preference: &Value,
    contacts: &sender::Contacts,
    now: Timestamp,
) -> Option<ReceivedPreference> {
    let category = match preference.get("category")?.as_str()? {
        "marketing_messages" => Category::Marketing,
        _ => return None,
    };
    let says = match preference.get("value")?.as_str()? {
        "stop" => Says::Stop,
        "resume" => Says::Give,
        _ => return None,
    };
    Some(ReceivedPreference {
        account: account.clone(),
        from: sender::of_contact(preference, contacts)?,
        at: field::time(preference, "timestamp", now),
        category,
        says,
        detail: field::text(preference, "detail"),
    })
}
