//! A webhook's body: its entries, their changes, and one event for each thing they say.
//!
//! One body may carry several entries, changes, messages and statuses, for several numbers. Events
//! come in the order of the body. What cannot be read becomes a notice of its own and takes nothing
//! beside it along, so a body of n messages yields n events of them
//! (<https://developers.facebook.com/documentation/business-messaging/whatsapp/webhooks/reference/messages/>).

use heddle_schemas::id::AccountId;
use heddle_schemas::ports::channel::{ChannelEvent, WebhookError};
use heddle_schemas::time::Timestamp;
use serde_json::{Value, json};

use super::{field, message, preference, sender, status};

/// The field whose changes hold messages and statuses.
const MESSAGES: &str = "messages";
/// The field, and the list in it, of what people set about marketing.
const PREFERENCES: &str = "user_preferences";

/// Most of each list that a body may have, over all its entries. Meta sends at most 1,000 updates in a body
/// (<https://developers.facebook.com/docs/graph-api/webhooks/getting-started>).
const LISTED: usize = 10_000;

/// Reads a body; `now` stands in for times it lacks.
pub(super) fn parse(body: &[u8], now: Timestamp) -> Result<Vec<ChannelEvent>, WebhookError> {
    // serde_json's message says line and column, never what is there.
    let body: Value = serde_json::from_slice(body).map_err(|error| WebhookError::Body(error.to_string()))?;
    if !body.is_object() {
        return Err(WebhookError::Body("it is no JSON object".into()));
    }
    check_numbers(&body)?;
    let mut events = Vec::new();
    let Some(entries) = list(&body, "entry") else {
        let object = field::text(&body, "object").unwrap_or_else(|| "unknown".into());
        return Ok(vec![notice(None, &object, body)]);
    };
    for entry in entries {
        match list(entry, "changes") {
            Some(changes) => changes.iter().for_each(|change| read_change(change, now, &mut events)),
            None => events.push(notice(None, "entry", entry.clone())),
        }
    }
    Ok(events)
}

/// Refuses a body with more than [`LISTED`] entries, changes, contacts, messages, statuses or preferences, of each.
fn check_numbers(body: &Value) -> Result<(), WebhookError> {
    let entries = list(body, "entry").unwrap_or_default();
    let changes = || entries.iter().flat_map(|entry| list(entry, "changes").unwrap_or_default());
    let check = |name: &str, count: usize| match count > LISTED {
        true => Err(WebhookError::Body(format!("it has over {LISTED} {name}"))),
        false => Ok(()),
    };
    check("entries", entries.len())?;
    check("changes", changes().count())?;
    for name in ["contacts", MESSAGES, "statuses", PREFERENCES] {
        let of = |change: &Value| list(change.get("value")?, name).map(<[Value]>::len);
        check(name, changes().filter_map(of).sum())?;
    }
    Ok(())
}

/// One change: of messages and statuses each, of any other field as it is.
fn read_change(change: &Value, now: Timestamp, events: &mut Vec<ChannelEvent>) {
    let value = change.get("value").unwrap_or(&Value::Null);
    let name = field::text(change, "field");
    let holds_messages = || ["messages", "statuses"].iter().any(|key| value.get(key).is_some());
    match name {
        Some(name) if name == MESSAGES => read_messages(value, now, events),
        None if holds_messages() => read_messages(value, now, events),
        Some(name) if name == PREFERENCES => read_preferences(value, now, events),
        Some(name) => events.push(notice(account_of(value).as_ref(), &name, value.clone())),
        None => events.push(notice(None, "unknown", change.clone())),
    }
}

/// A change of field `messages`: customers' messages, statuses of ours, errors of the account.
fn read_messages(value: &Value, now: Timestamp, events: &mut Vec<ChannelEvent>) {
    let account = account_of(value);
    let contacts = &sender::Contacts::read(list(value, "contacts").unwrap_or_default());
    let before = events.len();
    let mut known = false;
    for key in [MESSAGES, "statuses"] {
        let Some(found) = value.get(key) else { continue };
        known = true;
        let Some(items) = found.as_array() else {
            events.push(notice(account.as_ref(), MESSAGES, json!({ key: found })));
            continue;
        };
        for item in items {
            let event = account.as_ref().and_then(|account| match key {
                MESSAGES => message::read(account, item, contacts, now).map(ChannelEvent::Message),
                _ => status::read(account, item, now).map(ChannelEvent::Status),
            });
            events.push(event.unwrap_or_else(|| notice(account.as_ref(), MESSAGES, item.clone())));
        }
    }
    // Errors of the account, or a shape not known yet: the whole of it, once.
    if value.get("errors").is_some() || (!known && events.len() == before) {
        let mut rest = value.clone();
        if let Some(rest) = rest.as_object_mut() {
            rest.retain(|key, _| key != MESSAGES && key != "statuses" && key != "contacts");
        }
        events.push(notice(account.as_ref(), MESSAGES, rest));
    }
}

/// A change of field `user_preferences`.
fn read_preferences(value: &Value, now: Timestamp, events: &mut Vec<ChannelEvent>) {
    let contacts = &sender::Contacts::read(list(value, "contacts").unwrap_or_default());
    let account = account_of(value);
    let (Some(account), Some(items)) = (account.as_ref(), list(value, PREFERENCES)) else {
        events.push(notice(account.as_ref(), PREFERENCES, value.clone()));
        return;
    };
    for item in items {
        let read = preference::read(account, item, contacts, now).map(ChannelEvent::Preference);
        // Only the account of the metadata: many items would each get a copy of whatever is in it.
        let metadata = json!({ "phone_number_id": account });
        let kept =
            || notice(Some(account), PREFERENCES, json!({ "metadata": metadata, PREFERENCES: [item] }));
        events.push(read.unwrap_or_else(kept));
    }
}

fn account_of(value: &Value) -> Option<AccountId> {
    field::text(value.get("metadata")?, "phone_number_id")?.parse().ok()
}

fn notice(account: Option<&AccountId>, field: &str, value: Value) -> ChannelEvent {
    ChannelEvent::Notice { account: account.cloned(), field: field.to_owned(), value }
}

fn list<'a>(value: &'a Value, key: &str) -> Option<&'a [Value]> {
    Some(value.get(key)?.as_array()?.as_slice())
}
