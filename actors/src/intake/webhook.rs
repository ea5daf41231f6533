//! Intake of webhooks: turns a channel's events into durable records before the channel gets its answer.
//!
//! [`Reception::accept`] returns only when every record is durable (I2). It resolves the sender of each message, seals
//! the content under the tenant's log key of the day, and places the record in the partition of its conversation;
//! [`crate::intake::connector`] uses it for the records it reads. A report about a message of ours goes to its
//! conversation and to its account, which may be waiting for it.
//!
//! A statement about consent (a stop word, a setting of the channel, a failure that says so) is in the contact's record
//! before the channel gets its answer (I8).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use heddle_schemas::consent::{Category, How, Says};
use heddle_schemas::content::Content;
use heddle_schemas::id::{AccountId, AccountKey, ChannelKind, ContactId, MessageKey, TenantId};
use heddle_schemas::ports::channel::{
    Act, ChannelEvent, ReceivedMessage, ReceivedPreference, ReceivedStatus,
};
use heddle_schemas::ports::keys::{Cipher, KeysError, TenantCipher};
use heddle_schemas::ports::log::{NewRecord, StoreError};
use heddle_schemas::record::event::{Event, EventRecord};
use heddle_schemas::record::inbound::{
    ActKind, CustomerAct, DeliveryReport, InboundEvent, InboundRecord, SealedAct,
};
use heddle_schemas::record::outbound::{OutboundCommand, OutboundRecord};
use heddle_schemas::record::{V, encode_for, log_aad};
use heddle_schemas::tenant::{CardNumbers, Tenant};
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::Topic;

use crate::intake::consent::{self, Stated, Statement};
use crate::intake::gate::IntakeGate;
use crate::intake::identity::{Identity, IdentityError, Person};
use crate::partition::publish;
use crate::ports::Ports;

/// Maximum lead of the channel's clock. A later time is taken as that, so that nothing said in the future
/// outweighs what is said now: an opt-out, an erasure, the end of a reply window.
pub(crate) const AHEAD: Duration = Duration::from_secs(600);

/// Error for a channel's events that could not be accepted. The channel must send them again.
#[derive(Debug, thiserror::Error)]
pub enum ReceptionError {
    /// The log or the alias table.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The tenant's keys.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

/// Intake of channels' events.
pub struct Reception {
    ports: Ports,
    identity: Arc<Identity>,
    intake_gate: Arc<IntakeGate>,
}

impl Reception {
    /// Returns the intake over these ports.
    #[must_use]
    pub fn new(ports: Ports, intake_gate: Arc<IntakeGate>) -> Self {
        Self { identity: Arc::new(Identity::new(ports.clone())), ports, intake_gate }
    }

    /// Returns the ids and contacts that the intake resolves by.
    #[must_use]
    pub fn identity(&self) -> Arc<Identity> {
        self.identity.clone()
    }

    /// Accepts a channel's events for a tenant. When it returns, all of them are durable; when it fails, the channel is
    /// to send all of them again, and those that were accepted are recognised then.
    ///
    /// # Errors
    /// [`ReceptionError`].
    pub async fn accept(
        &self,
        kind: ChannelKind,
        tenant: &Arc<Tenant>,
        events: Vec<ChannelEvent>,
    ) -> Result<(), ReceptionError> {
        let statuses: BTreeSet<_> = events.iter().filter_map(account_of_status).cloned().collect();
        let accepted = async {
            let records = self.write(kind, tenant, events, Duration::MAX).await?;
            let records: Vec<_> = records.into_iter().flatten().collect();
            if !records.is_empty() {
                self.ports.log.append(records).await?;
            }
            Ok(())
        };
        accepted.await.inspect_err(|_| {
            for account in statuses {
                let tenant = tenant.id.clone();
                self.intake_gate.refused(&AccountKey { tenant, channel: kind, account });
            }
        })
    }

    /// Returns the records of a channel's events for a tenant, those of each event apart, for callers that make them
    /// durable together with others. A repetition for the same events is harmless.
    ///
    /// A message that was sent longer than `fresh` ago counts as accepted when it was sent: it was kept somewhere on
    /// the way, and its conversation must see its age to leave it unanswered.
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
        let builder = RecordBuilder {
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
        let latest = now.after(AHEAD);
        for mut event in events {
            if let Some(at) = event.time_mut()
                && *at > latest
            {
                *at = latest;
                self.ports.metrics.future();
            }
            records.push(self.write_one(&builder, event).await?);
        }
        Ok(records)
    }

    async fn write_one(
        &self,
        builder: &RecordBuilder<'_>,
        event: ChannelEvent,
    ) -> Result<Vec<NewRecord>, ReceptionError> {
        let dropped = |reason| {
            self.ports.metrics.dropped(reason);
            Vec::new()
        };
        Ok(match event {
            ChannelEvent::Message(message) => {
                self.intake_gate.received(&builder.account(&message.account));
                match somebody(self.contact(builder, &message).await)? {
                    Some(person) => {
                        let mut records =
                            self.record(builder, person.contact, builder.word(&message)).await?;
                        records.push(builder.message(person, message));
                        records
                    }
                    None => dropped("nameless"),
                }
            }
            ChannelEvent::Status(status) => {
                if status.outbound.is_some() {
                    self.learn(builder, &status).await?;
                }
                let contact = status.outbound.map(|outbound| outbound.contact);
                let said = builder.refusal(&status);
                match (contact, builder.status(status)) {
                    (Some(contact), Some(both)) => {
                        let mut records = self.record(builder, contact, said).await?;
                        records.extend(both);
                        records
                    }
                    _ => dropped("not_ours"),
                }
            }
            ChannelEvent::Preference(preference) => {
                let ReceivedPreference { from, at, .. } = &preference;
                let found = self.identity.meet(builder.tenant, builder.kind, from, *at).await;
                match somebody(found)? {
                    Some(person) => {
                        self.record(builder, person.contact, Some(builder.preference(preference))).await?
                    }
                    None => dropped("nameless"),
                }
            }
            ChannelEvent::Notice { account, field, value } => vec![builder.notice(account, field, &value)],
        })
    }

    /// Applies a statement about consent. Returns the events to publish.
    async fn record(
        &self,
        builder: &RecordBuilder<'_>,
        contact: ContactId,
        statement: Option<Statement>,
    ) -> Result<Vec<NewRecord>, ReceptionError> {
        match statement {
            // Rare, and in a box, so that the common case without a statement takes no space for it.
            Some(statement) => {
                let record = consent::record(&self.ports, builder.tenant, builder.own, contact, &statement);
                Ok(Box::pin(record).await?)
            }
            None => Ok(Vec::new()),
        }
    }

    /// Learns the ids that a status shows of its recipient.
    async fn learn(
        &self,
        builder: &RecordBuilder<'_>,
        status: &ReceivedStatus,
    ) -> Result<(), ReceptionError> {
        let shown = std::slice::from_ref(&status.recipient);
        match self.identity.learn(builder.tenant, builder.kind, shown, status.at).await {
            Ok(()) | Err(IdentityError::Nameless | IdentityError::Ambiguous(_)) => Ok(()),
            Err(IdentityError::Store(error)) => Err(error.into()),
            Err(IdentityError::Keys(error)) => Err(error.into()),
        }
    }

    async fn contact(
        &self,
        builder: &RecordBuilder<'_>,
        message: &ReceivedMessage,
    ) -> Result<Person, IdentityError> {
        let ReceivedMessage { from, sent_at, act, .. } = message;
        match act {
            Act::Rename { to, .. } => {
                // Rare, and in a box, so that other messages take no space for it.
                Box::pin(self.identity.rename(builder.tenant, builder.kind, (from, to), *sent_at)).await
            }
            _ => self.identity.meet(builder.tenant, builder.kind, from, *sent_at).await,
        }
    }
}

/// The account whose message a status is about.
fn account_of_status(event: &ChannelEvent) -> Option<&AccountId> {
    match event {
        ChannelEvent::Status(status) => Some(&status.account),
        _ => None,
    }
}

/// Returns the person that was found; `None` where nothing identifies one.
fn somebody(found: Result<Person, IdentityError>) -> Result<Option<Person>, ReceptionError> {
    match found {
        Ok(person) => Ok(Some(person)),
        // Only a search by name is ambiguous.
        Err(IdentityError::Nameless | IdentityError::Ambiguous(_)) => Ok(None),
        Err(IdentityError::Store(error)) => Err(error.into()),
        Err(IdentityError::Keys(error)) => Err(error.into()),
    }
}

/// Writes the records of one call.
struct RecordBuilder<'a> {
    ports: &'a Ports,
    kind: ChannelKind,
    tenant: &'a TenantId,
    config: &'a Tenant,
    now: Timestamp,
    fresh: Duration,
    own: &'a dyn TenantCipher,
    log: &'a dyn Cipher,
}

impl RecordBuilder<'_> {
    fn account(&self, account: &AccountId) -> AccountKey {
        AccountKey { tenant: self.tenant.clone(), channel: self.kind, account: account.clone() }
    }

    fn message_key(&self, account: &AccountKey, id: &str) -> MessageKey {
        self.own.hash("message", format!("{account}/{id}").as_bytes())
    }

    /// Returns the time of a consent statement. One that gives consent is never ahead of this node's clock, so that a
    /// stop of now outweighs it; with a time that cannot be it is as old as it may be.
    fn stated_at(&self, says: Says, at: Timestamp) -> Timestamp {
        match says {
            Says::Give if at >= self.now.after(AHEAD) => self.now.before(AHEAD),
            Says::Give => at.min(self.now),
            Says::Stop => at,
        }
    }

    /// Returns the consent statement of a message: a stop or a start word, or the channel's own button.
    fn word(&self, message: &ReceivedMessage) -> Option<Statement> {
        let Act::Say(content) = &message.act else { return None };
        let Stated { says, how, categories, text } =
            consent::stated(self.ports.profile(self.kind), self.config, content)?;
        Some(Statement {
            says,
            categories,
            at: self.stated_at(says, message.sent_at),
            how,
            key: self.message_key(&self.account(&message.account), &message.id),
            text: Some(text.to_owned()),
        })
    }

    /// Returns the consent statement of a failed message of ours.
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
        // The channel gives it no id; the same person makes the same statement at one time only once.
        let id = format!("preference/{category}/{}/{}", says.as_str(), at.as_micros());
        let key = self.message_key(&self.account(&account), &id);
        let at = self.stated_at(says, at);
        Statement { says, categories: vec![category], at, how: How::Preference, key, text: detail }
    }

    fn message(&self, person: Person, message: ReceivedMessage) -> NewRecord {
        let Person { contact, also } = person;
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
        let content = content.map(|mut content| {
            if self.config.privacy.card_numbers == CardNumbers::Redacted {
                content.redact_cards();
            }
            content
        });
        let sealed = SealedAct { id: message.id, from, content, emoji, context: message.context };
        let at = log_aad(Topic::Inbound, &key);
        let act = CustomerAct {
            key,
            sent_at: message.sent_at,
            kind,
            target,
            sealed: encode_for(&sealed, |plain| self.log.seal(&at, plain)),
            also,
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
            pricing: status.pricing,
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

    fn notice(&self, account: Option<AccountId>, field: String, value: &serde_json::Value) -> NewRecord {
        let about = format!("{}/{field}", self.tenant);
        let sealed = self.log.seal(&log_aad(Topic::Events, &about), value.to_string().as_bytes());
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
