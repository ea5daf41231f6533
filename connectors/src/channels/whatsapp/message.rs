//! One entry of `messages`: what a customer did.
//!
//! Each type of
//! <https://developers.facebook.com/documentation/business-messaging/whatsapp/webhooks/reference/messages/>
//! has its reader; one that lacks what its type needs, and a type not known here, is kept whole as
//! [`Content::Unknown`]. So is what was said in a group: answering it here would answer one
//! participant in private.

use heddle_schemas::content::{Address, Content, Context, MediaKind};
use heddle_schemas::id::AccountId;
use heddle_schemas::ports::channel::{Act, ReceivedMessage};
use heddle_schemas::time::Timestamp;
use serde_json::{Value, json};

use super::{field, sender};

/// Reads a message; `None` if it has no id or no sender.
pub(super) fn read(
    account: &AccountId,
    message: &Value,
    contacts: &sender::Contacts,
    now: Timestamp,
) -> Option<ReceivedMessage> {
    let id = field::text(message, "id")?;
    let (from, act) = match renamed(message) {
        Some(rename) => rename,
        None => (sender::of(message, contacts)?, act(message)),
    };
    Some(ReceivedMessage {
        account: account.clone(),
        id,
        from,
        sent_at: field::time(message, "timestamp", now),
        act,
        context: context(message),
    })
}

fn kind(message: &Value) -> String {
    field::text(message, "type").unwrap_or_else(|| "unknown".into())
}

fn act(message: &Value) -> Act {
    if message.get("group_id").is_some_and(|group| !group.is_null()) {
        return Act::Say(Content::Unknown { kind: "group".into(), raw: message.clone() });
    }
    let read = match message.get("type").and_then(Value::as_str) {
        Some("reaction") => reaction(message),
        Some("edit") => edit(message),
        Some("revoke") => original(message, "revoke").map(|target| Act::Delete { target }),
        _ => return Act::Say(content(message)),
    };
    read.unwrap_or_else(|| Act::Say(unknown(message)))
}

/// A reaction; WhatsApp leaves `emoji` out, or empty, when it is taken back.
fn reaction(message: &Value) -> Option<Act> {
    let reaction = message.get("reaction")?;
    Some(Act::React { target: field::text(reaction, "message_id")?, emoji: field::text(reaction, "emoji") })
}

fn edit(message: &Value) -> Option<Act> {
    let target = original(message, "edit")?;
    let edited = message.get("edit")?.get("message")?;
    Some(Act::Edit { target, content: content(edited) })
}

fn original(message: &Value, key: &str) -> Option<String> {
    field::text(message.get(key)?, "original_message_id")
}

/// A `system` message that reports a new number or scoped id: the old address and the rename.
///
/// Since August 2026 it also carries the previous scoped ids, and comes as `user_changed_user_id`
/// where no number may be revealed
/// (<https://developers.facebook.com/documentation/business-messaging/whatsapp/webhooks/reference/messages/system/>).
/// Versions before 12 called the new number `new_wa_id`, and the type `customer_changed_number`.
fn renamed(message: &Value) -> Option<(Address, Act)> {
    let system = message.get("system").filter(|_| kind(message) == "system")?;
    let kind = system.get("type")?.as_str()?;
    if !matches!(kind, "user_changed_number" | "customer_changed_number" | "user_changed_user_id") {
        return None;
    }
    let phone = if system.get("wa_id").is_some() { "wa_id" } else { "new_wa_id" };
    let to = sender::written(system, [phone, "user_id", "parent_user_id"]);
    let from = old_address(message, system, &to);
    let is_rename = sender::is_reachable(&to) && sender::is_reachable(&from) && from != to;
    is_rename.then(|| (from, Act::Rename { to, body: field::body(system, "body") }))
}

/// Returns the previous address of the person: the previous ids that are written out, and of the message's
/// own those that are not the new ones.
fn old_address(message: &Value, system: &Value, new: &Address) -> Address {
    let own = sender::written(message, ["from", "from_user_id", "from_parent_user_id"]);
    let previous = sender::written(system, ["customer", "previous_user_id", "previous_parent_user_id"]);
    let old = |own: Option<String>, new: &Option<String>| own.filter(|own| Some(own) != new.as_ref());
    Address {
        phone: old(own.phone, &new.phone).or(previous.phone),
        user_id: previous.user_id.or_else(|| old(own.user_id, &new.user_id)),
        parent_user_id: previous.parent_user_id.or_else(|| old(own.parent_user_id, &new.parent_user_id)),
        chat: None,
        name: None,
    }
}

fn context(message: &Value) -> Context {
    let context = message.get("context").unwrap_or(&Value::Null);
    let referral = message.get("referral").filter(|referral| referral.is_object());
    // A question asked from a product's page names the product, and no advertisement.
    let product = context.get("referred_product").map(|product| json!({ "referred_product": product }));
    Context {
        replies_to: field::text(context, "id"),
        forwarded: field::flag(context, "forwarded") || field::flag(context, "frequently_forwarded"),
        referral: referral.cloned().or(product),
    }
}

/// Returns the content of a message, by its type.
fn content(message: &Value) -> Content {
    let kind = kind(message);
    let read = match kind.as_str() {
        "text" => text(message),
        "image" => media(message, &kind, MediaKind::Image),
        "video" => media(message, &kind, MediaKind::Video),
        "audio" => audio(message),
        "voice" => media(message, &kind, MediaKind::Voice),
        "document" => media(message, &kind, MediaKind::Document),
        "sticker" => media(message, &kind, MediaKind::Sticker),
        "location" => location(message),
        "contacts" => contact_cards(message),
        "button" => button(message),
        "interactive" => interactive(message),
        "order" => order(message),
        "system" => system(message),
        _ => None,
    };
    read.or_else(|| unsupported(message, &kind)).unwrap_or_else(|| unknown(message))
}

fn unknown(message: &Value) -> Content {
    Content::Unknown { kind: kind(message), raw: message.clone() }
}

fn text(message: &Value) -> Option<Content> {
    Some(Content::Text { body: field::body(message.get("text")?, "body")? })
}

fn media(message: &Value, key: &str, kind: MediaKind) -> Option<Content> {
    let media = message.get(key)?;
    Some(Content::Media {
        kind,
        id: field::text(media, "id")?,
        mime_type: field::text(media, "mime_type"),
        sha256: field::text(media, "sha256"),
        caption: field::text(media, "caption"),
        filename: field::text(media, "filename"),
    })
}

/// A sound file, or a voice message where the flag `voice` says so.
fn audio(message: &Value) -> Option<Content> {
    let voice = field::flag(message.get("audio")?, "voice");
    media(message, "audio", if voice { MediaKind::Voice } else { MediaKind::Audio })
}

fn location(message: &Value) -> Option<Content> {
    let location = message.get("location")?;
    Some(Content::Location {
        latitude: field::float(location, "latitude")?,
        longitude: field::float(location, "longitude")?,
        name: field::text(location, "name"),
        address: field::text(location, "address"),
    })
}

fn contact_cards(message: &Value) -> Option<Content> {
    let cards = message.get("contacts").filter(|cards| cards.is_array())?;
    Some(Content::Contacts { cards: cards.clone() })
}

fn button(message: &Value) -> Option<Content> {
    let button = message.get("button")?;
    Some(Content::Button { text: field::body(button, "text")?, payload: field::text(button, "payload") })
}

/// `button_reply`, `list_reply`, `nfm_reply` (a flow), and what comes in their place later on.
fn interactive(message: &Value) -> Option<Content> {
    let interactive = message.get("interactive")?;
    let kind = field::text(interactive, "type")?;
    let reply = interactive.get(&kind)?;
    let (title, response) = match kind.as_str() {
        "button_reply" | "list_reply" => (field::text(reply, "title"), None),
        "nfm_reply" => (field::text(reply, "body"), reply.get("response_json").map(flow_answers)),
        _ => (field::text(reply, "title"), Some(reply.clone())),
    };
    Some(Content::Interactive { id: field::text(reply, "id"), title, response, kind })
}

/// A flow's answers come as JSON within a text
/// (<https://developers.facebook.com/docs/whatsapp/flows/reference/responsemsgwebhook/>).
fn flow_answers(written: &Value) -> Value {
    written.as_str().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_else(|| written.clone())
}

fn order(message: &Value) -> Option<Content> {
    let order = message.get("order").filter(|order| order.is_object())?;
    Some(Content::Order { text: field::text(order, "text"), order: order.clone() })
}

fn system(message: &Value) -> Option<Content> {
    let system = message.get("system")?;
    Some(Content::System { kind: field::text(system, "type")?, body: field::body(system, "body") })
}

/// Returns the content that the Cloud API could not deliver: type `unsupported` (older versions: `unknown`), or a type
/// whose content is missing, with the errors that say why
/// (<https://developers.facebook.com/documentation/business-messaging/whatsapp/webhooks/reference/messages/unsupported/>).
fn unsupported(message: &Value, kind: &str) -> Option<Content> {
    let errors = message.get("errors").filter(|errors| !errors.is_null());
    match (errors, kind) {
        (Some(errors), _) => Some(Content::Unsupported { errors: errors.clone() }),
        (None, "unsupported") => Some(Content::Unsupported { errors: Value::Null }),
        (None, _) => None,
    }
}
