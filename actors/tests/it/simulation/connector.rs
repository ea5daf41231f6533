//! Third-party connectors: their records of ingress, written as in any language, and their faults.

use heddle_schemas::content::Address;
use heddle_schemas::id::TenantId;
use heddle_schemas::ports::channel::{Act, ChannelEvent, ReceivedMessage};
use heddle_schemas::record::dlq::DeadReason;
use heddle_schemas::tenant::Tenant;
use heddle_schemas::time::Timestamp;
use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Value, json};

/// Text in every record that cannot be accepted, and in every record's key: it must show nowhere else.
pub(crate) const SECRET: &str = "open-sesame";

/// Expectation for a record that cannot be accepted.
#[derive(Debug, Clone)]
pub(crate) struct Wrong {
    pub(crate) reason: DeadReason,
    /// Tenant under whose key it is sealed, where there is one.
    pub(crate) tenant: Option<TenantId>,
    pub(crate) bytes: u64,
}

fn sender(address: &Address) -> Value {
    let mut sender = json!({ "name": SECRET });
    if let Some(phone) = &address.phone {
        sender["phone"] = json!(format!("+{phone}"));
    }
    if let Some(user) = &address.user_id {
        sender["user_id"] = json!(user);
    }
    sender
}

/// Returns a channel's event, as a connector of this tenant writes it.
pub(crate) fn written(tenant: &Tenant, event: &ChannelEvent) -> Vec<u8> {
    let (account, id, at, from, event) = match event {
        ChannelEvent::Message(ReceivedMessage { account, id, from, sent_at, act, .. }) => {
            let event = match act {
                Act::Say(content) => json!({ "type": "message", "content": content }),
                Act::React { target, emoji } => {
                    json!({ "type": "reaction", "target_message_id": target, "emoji": emoji })
                }
                Act::Rename { to, .. } => json!({ "type": "rename", "to": sender(to) }),
                Act::Edit { .. } | Act::Delete { .. } => unreachable!("no customer here does it"),
            };
            (account, id, *sent_at, sender(from), event)
        }
        ChannelEvent::Status(status) => {
            let event = json!({ "type": "status", "outbound_id": status.outbound, "status": status.status });
            (&status.account, &status.message_id, status.at, Value::Null, event)
        }
        ChannelEvent::Preference(_) => unreachable!("no customer here does it"),
        ChannelEvent::Notice { .. } => unreachable!("no connector hands notices over"),
    };
    let record = json!({
        "v": 1, "tenant": tenant.id, "channel": "whatsapp", "account": account, "message_id": id,
        "at": at.to_string(), "from": from, "event": event, "added_later": [1],
    });
    record.to_string().into_bytes()
}

/// Returns a record that cannot be accepted, and its expected end.
pub(crate) fn wrong(rng: &mut StdRng, tenants: &[Tenant], now: Timestamp) -> (Vec<u8>, Wrong) {
    let tenant = &tenants[rng.random_range(0..tenants.len())];
    let mut record = json!({
        "v": 1, "tenant": tenant.id, "channel": "whatsapp", "account": tenant.channels[0].account,
        "message_id": SECRET, "at": now.to_string(), "from": { "user_id": SECRET },
        "event": { "type": "message", "content": { "type": "text", "body": SECRET } },
    });
    let (reason, known) = match rng.random_range(0..9) {
        0 => {
            let text = format!("{SECRET}{}", "[".repeat(rng.random_range(0..500)));
            let wrong = Wrong { reason: DeadReason::Shape, tenant: None, bytes: text.len() as u64 };
            return (text.into_bytes(), wrong);
        }
        1 => {
            record["event"] = json!({ "type": SECRET });
            (DeadReason::Shape, true)
        }
        2 => {
            record["v"] = json!(7);
            (DeadReason::Version, true)
        }
        3 => {
            record["tenant"] = json!("nobody");
            (DeadReason::UnknownTenant, false)
        }
        4 => {
            // Another tenant's, where there is another; otherwise one without an owner.
            let other = tenants.iter().find(|other| other.id != tenant.id);
            record["account"] = other.map_or(json!("9"), |other| json!(other.channels[0].account));
            (DeadReason::Account, true)
        }
        5 => {
            record["from"] = json!({ "name": SECRET });
            (DeadReason::Nameless, true)
        }
        6 => {
            // Beyond what the clock of this world jumps.
            record["at"] = json!(now.after(std::time::Duration::from_secs(7200)).to_string());
            (DeadReason::Future, true)
        }
        7 => {
            record["event"]["content"]["body"] = json!(SECRET.repeat(30_000));
            (DeadReason::TooLarge, false)
        }
        _ => {
            record["from"] = json!({ "phone": format!("0151 {SECRET}") });
            (DeadReason::Shape, true)
        }
    };
    let value = record.to_string().into_bytes();
    let tenant = known.then(|| tenant.id.clone());
    let bytes = value.len() as u64;
    (value, Wrong { reason, tenant, bytes })
}
