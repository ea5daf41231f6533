//! Admission of an ingress record: its requirements, and its content in the terms of a channel. Pure.
//!
//! A connector may write anything, for any tenant: only a record whose tenant has the account named beside it is
//! admitted (I4).

use std::sync::Arc;

use heddle_schemas::id::{AccountId, ChannelKind, TenantId};
use heddle_schemas::ports::channel::{
    Act, ChannelEvent, ReceivedMessage, ReceivedPreference, ReceivedStatus,
};
use heddle_schemas::record::RecordError;
use heddle_schemas::record::dlq::DeadReason;
use heddle_schemas::record::ingress::{IngressEvent, IngressRecord, MAX_BYTES, Sender, read, tenant_of};
use heddle_schemas::tenant::{Profiles, Tenant};
use heddle_schemas::time::Timestamp;

use crate::intake::webhook::AHEAD;

/// Accepted record.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) tenant: Arc<Tenant>,
    pub(super) kind: ChannelKind,
    pub(super) event: ChannelEvent,
}

/// Reason for refusing a record. It repeats nothing of the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) reason: DeadReason,
    pub(super) detail: String,
    /// The tenant it names, where there is such a one.
    pub(super) tenant: Option<TenantId>,
    /// Other tenant that owns the account.
    pub(super) owner: Option<TenantId>,
}

impl Refused {
    pub(super) fn new(reason: DeadReason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), tenant: None, owner: None }
    }

    /// Returns true when it names a tenant or an account that does not exist, or an account of another tenant.
    pub(super) fn names_unknown_owner(&self) -> bool {
        matches!(self.reason, DeadReason::UnknownTenant | DeadReason::Account)
    }

    /// Refusal because a row of the tenant, or of the person, cannot be read.
    pub(super) fn unreadable(tenant: TenantId, detail: String) -> Self {
        Self { tenant: Some(tenant), ..Self::new(DeadReason::Unreadable, detail) }
    }

    /// The tenant's keys were erased.
    pub(super) fn erased(tenant: TenantId) -> Self {
        let refused = Self::new(DeadReason::UnknownTenant, "the tenant has been erased");
        Self { tenant: Some(tenant), ..refused }
    }
}

impl From<RecordError> for Refused {
    fn from(error: RecordError) -> Self {
        let reason = match error {
            RecordError::Version { .. } => DeadReason::Version,
            RecordError::Unknown(_) | RecordError::Shape(_) => DeadReason::Shape,
        };
        Self::new(reason, error.to_string())
    }
}

/// Lookup of an account's owner.
type Owner<'a> = &'a dyn Fn(ChannelKind, &AccountId) -> Option<Arc<Tenant>>;

/// Decides on a record: `owner` finds the tenant of an account, `known` says whether there is such a tenant.
pub(super) fn admit(
    value: &[u8],
    owner: Owner<'_>,
    known: &dyn Fn(&TenantId) -> bool,
    profiles: Profiles<'_>,
    now: Timestamp,
) -> Result<Admitted, Refused> {
    if value.len() > MAX_BYTES {
        let detail = format!("a record has at most {MAX_BYTES} bytes");
        return Err(Refused::new(DeadReason::TooLarge, detail));
    }
    check(value, owner, known, profiles, now).map_err(|refused| {
        let tenant = tenant_of(value).filter(|tenant| known(tenant));
        Refused { tenant, ..refused }
    })
}

fn check(
    value: &[u8],
    owner: Owner<'_>,
    known: &dyn Fn(&TenantId) -> bool,
    profiles: Profiles<'_>,
    now: Timestamp,
) -> Result<Admitted, Refused> {
    let record = read(value)?;
    if !known(&record.tenant) {
        return Err(Refused::new(DeadReason::UnknownTenant, "there is no such tenant"));
    }
    let tenant = owner(record.channel, &record.account)
        .ok_or_else(|| Refused::new(DeadReason::Account, "no tenant has this account"))?;
    if tenant.id != record.tenant {
        let refused = Refused::new(DeadReason::Account, "the account belongs to another tenant");
        return Err(Refused { owner: Some(tenant.id.clone()), ..refused });
    }
    // More than clocks differ by, and less than a time zone, which is the usual fault: the connector mends it. The
    // customer-service window is counted from this time.
    if record.at.since(now) > AHEAD {
        let detail = format!("it is from {:?} ahead", record.at.since(now));
        return Err(Refused::new(DeadReason::Future, detail));
    }
    Ok(Admitted { tenant, kind: record.channel, event: event(record, profiles)? })
}

/// The record in the words of a channel.
fn event(record: IngressRecord, profiles: Profiles<'_>) -> Result<ChannelEvent, Refused> {
    let IngressRecord { channel, account, message_id, at, from, event, .. } = record;
    let somebody = |sender: Option<Sender>| {
        let address = sender.map(|sender| sender.address(&account));
        let known = address.filter(|address| profiles(channel).is_some_and(|profile| profile.knows(address)));
        known.ok_or_else(|| Refused::new(DeadReason::Nameless, "no id that the channel knows people by"))
    };
    let id = String::from(message_id);
    let mut refers_to = Default::default();
    let act = match event {
        IngressEvent::Message { content, context } => {
            refers_to = context;
            Act::Say(content)
        }
        IngressEvent::Edit { target_message_id, content } => {
            Act::Edit { target: target_message_id.into(), content }
        }
        IngressEvent::Delete { target_message_id } => Act::Delete { target: target_message_id.into() },
        IngressEvent::Reaction { target_message_id, emoji } => {
            // Removed in either way, as channels do it.
            let emoji = emoji.filter(|emoji| !emoji.is_empty());
            Act::React { target: target_message_id.into(), emoji }
        }
        IngressEvent::Rename { to } => Act::Rename { to: somebody(Some(to))?, body: None },
        IngressEvent::Preference { category, says, detail } => {
            let (from, detail) = (somebody(from)?, detail.map(String::from));
            return Ok(ChannelEvent::Preference(ReceivedPreference {
                account,
                from,
                at,
                category,
                says,
                detail,
            }));
        }
        IngressEvent::Status { outbound_id, status, failure } => {
            let outbound = Some(outbound_id);
            let recipient = from.map(|recipient| recipient.address(&account)).unwrap_or_default();
            return Ok(ChannelEvent::Status(ReceivedStatus {
                account,
                message_id: id,
                outbound,
                status,
                at,
                failure,
                pricing: None,
                recipient,
            }));
        }
    };
    let from = somebody(from)?;
    Ok(ChannelEvent::Message(ReceivedMessage { account, id, from, sent_at: at, act, context: refers_to }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::{NonZeroU32, NonZeroUsize};

    use heddle_schemas::content::Content;
    use heddle_schemas::outgoing::{ContentProfile, Kind, Limits};
    use heddle_schemas::ports::channel::ChannelProfile;
    use heddle_schemas::ports::channel::profile::{Api, IdKind};
    use serde_json::{Value, json};

    const NOW: Timestamp = Timestamp::from_secs(1_767_225_600);

    /// Channel that identifies people by number only.
    static PROFILE: ChannelProfile = ChannelProfile {
        kind: ChannelKind::Whatsapp,
        text_max: NonZeroUsize::MIN,
        content: ContentProfile { carries: Kind::ALL, uploads: false, limits: Limits::NONE },
        webhook_body_max: 1,
        reply_window: None,
        pair_limit: None,
        messages_per_second: NonZeroU32::MIN,
        counts_inbound: false,
        ids: &[IdKind::Phone],
        parent_mark: None,
        credentials: &[],
        opt_out_buttons: &[],
        api: Api::Url,
    };

    fn record() -> Value {
        json!({
            "v": 1, "tenant": "acme", "channel": "whatsapp", "account": "1", "message_id": "m-1",
            "at": "2026-01-01T00:00:00Z", "from": { "phone": "+16505551234" },
            "event": { "type": "message", "content": { "type": "text", "body": "hello" } },
        })
    }

    fn with(path: &str, value: Value) -> Value {
        let mut record = record();
        *record.pointer_mut(path).unwrap() = value;
        record
    }

    /// Acme has account 1, Globex account 2.
    fn admitted(value: &[u8]) -> Result<Admitted, Refused> {
        let tenant = |id: &str, account: &str| {
            let text = format!(
                "id = \"{id}\"\nname = \"N\"\n[agent]\nfallback = \"f\"\n[[channels]]\nkind = \"whatsapp\"\n\
                 account = \"{account}\"\naccess_token = \"t\"\napp_secret = \"s\"\nverify_token = \"v\"\n"
            );
            Arc::new(Tenant::from_toml(&text).unwrap())
        };
        let tenants = [tenant("acme", "1"), tenant("globex", "2")];
        let owner = |kind, account: &AccountId| {
            let has = |tenant: &&Arc<Tenant>| {
                tenant.channels.iter().any(|channel| channel.kind == kind && channel.account == *account)
            };
            tenants.iter().find(has).cloned()
        };
        let known = |id: &TenantId| tenants.iter().any(|tenant| tenant.id == *id);
        admit(value, &owner, &known, &|_| Some(&PROFILE), NOW)
    }

    fn reason(record: &Value) -> Option<(DeadReason, Option<String>)> {
        let refused = admitted(record.to_string().as_bytes()).err()?;
        Some((refused.reason, refused.tenant.map(|tenant| tenant.to_string())))
    }

    #[test]
    fn a_record_says_what_a_webhook_would() {
        let Admitted { tenant, event, .. } = admitted(record().to_string().as_bytes()).unwrap();
        assert_eq!(tenant.id.as_str(), "acme");
        let ChannelEvent::Message(message) = event else { panic!("{event:?}") };
        assert_eq!((message.id.as_str(), message.from.phone.as_deref()), ("m-1", Some("16505551234")));
        assert_eq!((message.sent_at, message.act), (NOW, Act::Say(Content::Text { body: "hello".into() })));
    }

    #[test]
    fn every_fault_has_its_reason_and_its_tenant_where_known() {
        use DeadReason::{Account, Future, Nameless, Shape, UnknownTenant, Version};
        let acme = || Some("acme".to_owned());
        let cases = [
            (with("/v", json!(2)), Version, acme()),
            (with("/at", json!("soon")), Shape, acme()),
            (with("/tenant", json!("Somebody Else")), Shape, None),
            (with("/tenant", json!("initech")), UnknownTenant, None),
            (with("/account", json!("2")), Account, acme()),
            (with("/account", json!("3")), Account, acme()),
            (with("/from", json!({ "name": "Ann" })), Nameless, acme()),
            (with("/from", Value::Null), Nameless, acme()),
            (with("/from", json!({ "chat_id": "no id of this channel" })), Nameless, acme()),
            (with("/event", json!({ "type": "rename", "to": { "name": "Ann" } })), Nameless, acme()),
            (with("/at", json!("2026-01-01T00:10:01Z")), Future, acme()),
            (with("/at", json!("2026-01-01T01:00:00Z")), Future, acme()),
        ];
        for (record, expected, tenant) in cases {
            assert_eq!(reason(&record), Some((expected, tenant)), "{record}");
        }
        // Clocks differ, and an offset is no future.
        for at in ["2026-01-01T00:10:00Z", "2026-01-01T09:00:00+09:00", "2025-12-01T00:00:00Z"] {
            assert_eq!(reason(&with("/at", json!(at))), None, "{at}");
        }
    }

    #[test]
    fn a_record_that_names_another_tenants_account_shows_its_owner() {
        let owner = |record: Value| admitted(record.to_string().as_bytes()).unwrap_err().owner;
        assert_eq!(owner(with("/account", json!("2"))), Some("globex".parse().unwrap()));
        assert_eq!(owner(with("/account", json!("3"))), None, "it has no owner");
    }

    #[test]
    fn a_record_over_the_limit_is_not_even_read() {
        let refused = |bytes| {
            let mut value = record().to_string().into_bytes();
            value.resize(bytes, b' ');
            admitted(&value).err().map(|refused| (refused.reason, refused.tenant))
        };
        assert_eq!(refused(MAX_BYTES), None);
        assert_eq!(refused(MAX_BYTES + 1), Some((DeadReason::TooLarge, None)));
    }
}
