//! The way in: from what a channel says to durable records, before the channel gets its answer.
//!
//! [`Reception::accept`] returns only when every record is durable (I2). It resolves who each message
//! is from, seals what is said under the tenant's log key of the day, and places the record in the
//! partition of its conversation; [`crate::ingress`] has the same done to what it reads. A report about a message of ours goes to its conversation and to its
//! account, which may be waiting for it.
//!
//! What somebody says about what may be sent to them (a stop word, a setting of the channel, a failure that says
//! so) is in the contact's record before the channel gets its answer (I8).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use heddle_schemas::consent::{Category, How, Says};
use heddle_schemas::content::{Asks, Content};
use heddle_schemas::id::{AccountId, AccountKey, ChannelKind, ContactId, MessageKey, TenantId};
use heddle_schemas::ports::channel::{
    Act, ChannelEvent, ReceivedMessage, ReceivedPreference, ReceivedStatus,
};
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::keys::{Cipher, KeysError, TenantCipher};
use heddle_schemas::ports::log::{NewRecord, StoreError};
use heddle_schemas::record::event::{Event, EventRecord};
use heddle_schemas::record::inbound::{
    ActKind, CustomerAct, DeliveryReport, InboundEvent, InboundRecord, SealedAct,
};
use heddle_schemas::record::outbound::{OutboundCommand, OutboundRecord};
use heddle_schemas::record::{V, encode_for, log_aad};
use heddle_schemas::tenant::Tenant;
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::Topic;

use crate::consent::{self, Statement};
use crate::identity::{Identity, IdentityError};
use crate::ports::Ports;
use crate::publish;

/// Why a channel's events could not be taken in. The channel must send them again.
#[derive(Debug, thiserror::Error)]
pub enum ReceptionError {
    /// The log or the alias table.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The tenant's keys.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

/// For how long, all in all, webhooks have been taken in: the time that counts when a status is waited for.
///
/// A webhook that could not be taken in comes again later, and may be the very status that is waited for: a
/// wait begins anew with each of them.
pub struct WayIn {
    clock: Arc<dyn Clock>,
    open: Mutex<Opened>,
    counts: Mutex<HashMap<AccountKey, u64>>,
}

#[derive(Default)]
struct Opened {
    /// For how long it has been open before it was opened last.
    before: Duration,
    /// Since when it is open.
    since: Option<Duration>,
    /// For how long it had been open when something was sent away last.
    refused_at: Duration,
}

impl Opened {
    fn time(&self, now: Duration) -> Duration {
        self.before + self.since.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }
}

impl WayIn {
    /// Closed; nothing counted yet.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { clock, open: Mutex::default(), counts: Mutex::default() })
    }

    /// Webhooks are being taken in from now on, or no more.
    pub fn set_open(&self, open: bool) {
        let now = self.clock.elapsed();
        let mut state = self.lock();
        match (state.since, open) {
            (None, true) => state.since = Some(now),
            (Some(_), false) => {
                state.before = state.time(now);
                state.since = None;
            }
            _ => {}
        }
    }

    /// For how long it has been open.
    #[must_use]
    pub fn open_for(&self) -> Duration {
        self.lock().time(self.clock.elapsed())
    }

    /// For how long something has been waited for in vain that could have come in: since `since`, a value of
    /// [`WayIn::open_for`], or since the last time that anything was sent away.
    #[must_use]
    pub fn waited(&self, since: Duration) -> Duration {
        let state = self.lock();
        state.time(self.clock.elapsed()).saturating_sub(since.max(state.refused_at))
    }

    /// Something was sent away; it comes again.
    fn refused(&self) {
        let now = self.clock.elapsed();
        let mut state = self.lock();
        state.refused_at = state.time(now);
    }

    fn lock(&self) -> MutexGuard<'_, Opened> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn received(&self, account: &AccountKey) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(account.clone()).or_default() += 1;
    }

    /// Takes out how many messages an account received since the last call: they count towards its limit.
    #[must_use]
    pub fn take_received(&self, account: &AccountKey) -> u64 {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).remove(account).unwrap_or(0)
    }
}

/// The way in.
pub struct Reception {
    ports: Ports,
    identity: Identity,
    way_in: Arc<WayIn>,
}

impl Reception {
    /// Over these ports.
    #[must_use]
    pub fn new(ports: Ports, way_in: Arc<WayIn>) -> Self {
        Self { identity: Identity::new(ports.clone()), ports, way_in }
    }

    /// Takes in what a channel says to a tenant. When it returns, all of it is durable; when it
    /// fails, the channel is to send all of it again, and what was taken in is recognised then.
    ///
    /// # Errors
    /// [`ReceptionError`].
    pub async fn accept(
        &self,
        kind: ChannelKind,
        tenant: &Arc<Tenant>,
        events: Vec<ChannelEvent>,
    ) -> Result<(), ReceptionError> {
        let accepted = async {
            let records = self.write(kind, tenant, events, Duration::MAX).await?;
            let records: Vec<_> = records.into_iter().flatten().collect();
            if !records.is_empty() {
                self.ports.log.append(records).await?;
            }
            Ok(())
        };
        accepted.await.inspect_err(|_| self.way_in.refused())
    }

    /// The records that take in what a channel says to a tenant, those of each event apart: for who makes
    /// them durable together with others. Doing it again, for the same events, does no harm.
    ///
    /// A message that was sent longer than `fresh` ago counts as taken in when it was sent: somebody kept
    /// it, and its conversation must see its age to leave it unanswered.
    ///
    /// # Errors
    /// [`ReceptionError`].
    pub async fn write(
        &self,
        kind: ChannelKind,
        tenant: &Tenant,
        events: Vec<ChannelEvent>,
        fresh: Duration,
    ) -> Result<Vec<Vec<NewRecord>>, ReceptionError> {
        let now = self.ports.clock.now();
        let own = self.ports.keys.tenant(&tenant.id).await?;
        let log = self.ports.keys.log(&tenant.id, now.day()).await?;
        let desk = Desk {
            ports: &self.ports,
            kind,
            tenant: &tenant.id,
            config: tenant,
            now,
            fresh,
            own: &*own,
            log: &*log,
        };
        let mut records = Vec::with_capacity(events.len());
        for event in events {
            records.push(self.write_one(&desk, event).await?);
        }
        Ok(records)
    }

    async fn write_one(
        &self,
        desk: &Desk<'_>,
        event: ChannelEvent,
    ) -> Result<Vec<NewRecord>, ReceptionError> {
        let dropped = |reason| {
            self.ports.metrics.dropped(reason);
            Vec::new()
        };
        Ok(match event {
            ChannelEvent::Message(message) => {
                self.way_in.received(&desk.account(&message.account));
                match somebody(self.contact(desk, &message).await)? {
                    Some(contact) => {
                        let mut records = self.record(desk, contact, desk.word(&message)).await?;
                        records.push(desk.message(contact, message));
                        records
                    }
                    None => dropped("nameless"),
                }
            }
            ChannelEvent::Status(status) => {
                let contact = status.outbound.map(|outbound| outbound.contact);
                let said = desk.refusal(&status);
                match (contact, desk.status(status)) {
                    (Some(contact), Some(both)) => {
                        let mut records = self.record(desk, contact, said).await?;
                        records.extend(both);
                        records
                    }
                    _ => dropped("not_ours"),
                }
            }
            ChannelEvent::Preference(preference) => {
                let found = self.identity.resolve(desk.tenant, desk.kind, &preference.from).await;
                match somebody(found)? {
                    Some(contact) => self.record(desk, contact, Some(desk.preference(preference))).await?,
                    None => dropped("nameless"),
                }
            }
            ChannelEvent::Notice { field, value } => vec![desk.notice(field, &value)],
        })
    }

    /// Takes in what somebody said about what may be sent. Returns the events that tell of it.
    async fn record(
        &self,
        desk: &Desk<'_>,
        contact: ContactId,
        statement: Option<Statement>,
    ) -> Result<Vec<NewRecord>, ReceptionError> {
        match statement {
            // Rare, and in a box, so that who says nothing of it holds no more than that.
            Some(statement) => {
                let record = consent::record(&self.ports, desk.tenant, desk.own, contact, &statement);
                Ok(Box::pin(record).await?)
            }
            None => Ok(Vec::new()),
        }
    }

    async fn contact(&self, desk: &Desk<'_>, message: &ReceivedMessage) -> Result<ContactId, IdentityError> {
        match &message.act {
            Act::Rename { to, .. } => self.identity.rename(desk.tenant, desk.kind, &message.from, to).await,
            _ => self.identity.resolve(desk.tenant, desk.kind, &message.from).await,
        }
    }
}

/// Who was found; `None` where nothing says who it is.
fn somebody(found: Result<ContactId, IdentityError>) -> Result<Option<ContactId>, ReceptionError> {
    match found {
        Ok(contact) => Ok(Some(contact)),
        Err(IdentityError::Nameless) => Ok(None),
        Err(IdentityError::Store(error)) => Err(error.into()),
        Err(IdentityError::Keys(error)) => Err(error.into()),
    }
}

/// Writes the records of one call.
struct Desk<'a> {
    ports: &'a Ports,
    kind: ChannelKind,
    tenant: &'a TenantId,
    config: &'a Tenant,
    now: Timestamp,
    fresh: Duration,
    own: &'a dyn TenantCipher,
    log: &'a dyn Cipher,
}

impl Desk<'_> {
    fn account(&self, account: &AccountId) -> AccountKey {
        AccountKey { tenant: self.tenant.clone(), channel: self.kind, account: account.clone() }
    }

    fn message_key(&self, account: &AccountKey, id: &str) -> MessageKey {
        self.own.hash("message", format!("{account}/{id}").as_bytes())
    }

    /// What a message says about consent: a stop or a start word.
    fn word(&self, message: &ReceivedMessage) -> Option<Statement> {
        let Act::Say(content) = &message.act else { return None };
        let Asks::Answer(text) = content.asks() else { return None };
        let words = &self.config.consent;
        let says = words.says(text, self.config.knowledge.language)?;
        Some(Statement {
            says,
            categories: words.purposes.clone(),
            at: message.sent_at,
            how: How::Word,
            key: self.message_key(&self.account(&message.account), &message.id),
            text: Some(text.to_owned()),
        })
    }

    /// What the failure of a message of ours says about consent.
    fn refusal(&self, status: &ReceivedStatus) -> Option<Statement> {
        let code = status.failure.as_ref()?.code;
        let channel = self.ports.channels.get(&self.kind)?;
        channel.is_opt_out(code).then(|| Statement {
            says: Says::Stop,
            categories: vec![Category::Marketing],
            at: status.at,
            how: How::ChannelError,
            key: self.message_key(&self.account(&status.account), &status.message_id),
            text: Some(code.to_string()),
        })
    }

    fn preference(&self, preference: ReceivedPreference) -> Statement {
        let ReceivedPreference { account, at, category, says, detail, from: _ } = preference;
        // The channel gives it no id; the same person says the same at one time only once.
        let id = format!("preference/{category}/{}/{}", says.as_str(), at.as_micros());
        let key = self.message_key(&self.account(&account), &id);
        Statement { says, categories: vec![category], at, how: How::Preference, key, text: detail }
    }

    fn message(&self, contact: ContactId, message: ReceivedMessage) -> NewRecord {
        let account = self.account(&message.account);
        let key = self.message_key(&account, &message.id);
        let target = |id: &str| Some(self.message_key(&account, id));
        let mut from = message.from;
        let (kind, target, content, emoji) = match message.act {
            Act::Say(content) => (ActKind::Say, None, Some(content), None),
            Act::Edit { target: id, content } => (ActKind::Edit, target(&id), Some(content), None),
            Act::Delete { target: id } => (ActKind::Delete, target(&id), None, None),
            Act::React { target: id, emoji } => (ActKind::React, target(&id), None, emoji),
            Act::Rename { to, body } => {
                from.update(&to);
                let content = Content::System { kind: "user_changed_number".into(), body };
                (ActKind::Rename, None, Some(content), None)
            }
        };
        let sealed = SealedAct { id: message.id, from, content, emoji, context: message.context };
        let at = log_aad(Topic::Inbound, &key);
        let act = CustomerAct {
            key,
            sent_at: message.sent_at,
            kind,
            target,
            sealed: encode_for(&sealed, |plain| self.log.seal(&at, plain)),
        };
        let conversation = account.conversation(contact);
        let kept = self.now.since(message.sent_at) > self.fresh;
        let at = if kept { message.sent_at } else { self.now };
        publish::inbound(
            self.ports,
            &InboundRecord { v: V, conversation, at, event: InboundEvent::Customer(act) },
        )
    }

    fn status(&self, status: ReceivedStatus) -> Option<[NewRecord; 2]> {
        let account = self.account(&status.account);
        let outbound = status.outbound?;
        let report = DeliveryReport {
            outbound,
            status: status.status,
            at: status.at,
            failure: status.failure,
            message: Some(self.message_key(&account, &status.message_id)),
        };
        let conversation = account.conversation(outbound.contact);
        let settle = OutboundRecord {
            v: V,
            conversation: conversation.clone(),
            at: self.now,
            command: OutboundCommand::Settle(report.clone()),
        };
        let report =
            InboundRecord { v: V, conversation, at: self.now, event: InboundEvent::Delivery(report) };
        Some([publish::inbound(self.ports, &report), publish::outbound(self.ports, &settle)])
    }

    fn notice(&self, field: String, value: &serde_json::Value) -> NewRecord {
        let about = format!("{}/{field}", self.tenant);
        let sealed = self.log.seal(&log_aad(Topic::Events, &about), value.to_string().as_bytes());
        let account = value
            .pointer("/metadata/phone_number_id")
            .and_then(|id| id.as_str())
            .and_then(|id| id.parse().ok());
        publish::event(
            self.ports,
            &EventRecord {
                v: V,
                tenant: self.tenant.clone(),
                at: self.now,
                event: Event::ChannelNotice { channel: self.kind, account, field, sealed },
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// A clock that stands at so many seconds.
    #[derive(Default)]
    struct Seconds(AtomicU64);

    impl Clock for Seconds {
        fn now(&self) -> Timestamp {
            Timestamp::EPOCH
        }

        fn elapsed(&self) -> Duration {
            Duration::from_secs(self.0.load(Ordering::Relaxed))
        }
    }

    #[test]
    fn only_time_in_which_everything_got_in_is_waited() {
        let clock = Arc::<Seconds>::default();
        let way_in = WayIn::new(clock.clone());
        let at = |seconds| clock.0.store(seconds, Ordering::Relaxed);
        let waited = |since| way_in.waited(since).as_secs();
        at(10);
        way_in.set_open(true);
        let since = way_in.open_for();
        at(14);
        assert_eq!(waited(since), 4);
        way_in.set_open(false);
        at(100);
        assert_eq!(waited(since), 4, "nothing could come in");
        way_in.set_open(true);
        at(103);
        assert_eq!(waited(since), 7);
        way_in.refused();
        assert_eq!(waited(since), 0, "what was sent away may be what is waited for");
        at(105);
        assert_eq!(waited(since), 2);
        assert_eq!(waited(way_in.open_for()), 0);
    }
}
