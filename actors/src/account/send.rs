//! One send on its way: journal, call, journal.
//!
//! The channel has no idempotency key, so a send is journaled as attempted before the call and settled
//! after it, each durably. Who finds an attempt without a result does not know whether the message was
//! taken: it is *unknown*, and goes to the account's unknown rows until a status settles it or the wait
//! is over. Settling a send tells its conversation, in the same batch.
//!
//! Right before the call it is asked whether the message may still go: a message that is no reply needs that its
//! contact has not opted out, by the record as it is in the store then; anything with a window needs that this is
//! not over; and all need that the account is still connected. What may not go is settled as failed, with a code of the engine's own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use heddle_schemas::consent::{Category, How, Says, Standing};
use heddle_schemas::id::{AccountKey, ContactId, ConversationId, OutboundId};
use heddle_schemas::ports::channel::{Accepted, Access, Channel, FailureClass, OutboundMessage, SendError};
use heddle_schemas::ports::keys::KeysError;
use heddle_schemas::ports::log::Record;
use heddle_schemas::ports::state::{Batch, Fence, StoreError, Write};
use heddle_schemas::record::dlq::DeadReason;
use heddle_schemas::record::event::{Event, EventRecord};
use heddle_schemas::record::inbound::{
    DeliveryFailure, DeliveryReport, DeliveryStatus, InboundEvent, InboundRecord, Withheld,
};
use heddle_schemas::record::outbound::{Purpose, SealedMessage, SendCommand};
use heddle_schemas::record::{V, encode, log_aad};
use heddle_schemas::table::Key;
use heddle_schemas::time::{Day, Timestamp};
use heddle_schemas::topic::{Offset, Topic};
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::intake::consent::{self, Statement};
use crate::partition::Receipt;
use crate::partition::commit::{self, commit, read};
use crate::partition::publish;

/// The journal of one send, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Journal {
    /// It is being called, or was when its owner died.
    Attempting {
        /// Which call it is, from 1.
        attempt: u32,
    },
    /// The call was refused and will be repeated.
    Refused {
        /// How many calls were refused.
        attempts: u32,
    },
    /// The channel took it when it was called.
    Taken(Taken),
    /// The channel took it, as a status tells.
    Sent,
    /// The channel will not take it.
    Failed {
        /// The channel's code; below zero, that of a [`Withheld`].
        code: i64,
    },
    /// Nobody knows, and policy gave it up.
    GivenUp,
}

impl Journal {
    /// Reads an entry. One that only a later build can read says that the channel may have been called.
    fn read(stored: &[u8]) -> Self {
        serde_json::from_slice(stored).unwrap_or(Self::Attempting { attempt: 1 })
    }
}

/// Under which conditions a message was sent: what shows later that it was allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// When it was asked whether it may go, right before the call.
    pub at: Timestamp,
    /// What it needed the contact's consent for; a reply needs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<Category>,
    /// Until when it was allowed, where that ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_until: Option<Timestamp>,
}

impl Taken {
    fn of(item: &Item, at: Timestamp) -> Self {
        let SendCommand { purpose, category, window_until, .. } = item.command;
        let category = match purpose {
            Purpose::Reply => None,
            Purpose::Campaign => Some(category.unwrap_or(Category::Marketing)),
        };
        Self { at, category, window_until }
    }
}

/// Where a message to send is kept until it is settled.
#[derive(Debug)]
pub enum Origin {
    /// In the log.
    Log(Box<Receipt>),
    /// In the account's backlog, as the row of its offset.
    Backlog,
    /// Among the unknown; it is being sent again by policy.
    Unknown,
}

/// A message to send.
#[derive(Debug)]
pub struct Item {
    /// The conversation it belongs to.
    pub conversation: ConversationId,
    /// What to send.
    pub command: SendCommand,
    /// The outbound record as it came: what is stored while it waits.
    pub stored: Bytes,
    /// The offset of that record.
    pub offset: Offset,
    /// Where it is kept.
    pub origin: Origin,
    /// Whether it may have been called before, so that the journal must be asked.
    pub look_up: bool,
    /// Calls that were refused.
    pub refused: u32,
}

impl Item {
    /// To whom it goes.
    #[must_use]
    pub fn contact(&self) -> ContactId {
        self.conversation.contact
    }

    /// Whether it has kept its record in work for too long.
    #[must_use]
    pub fn is_overdue(&self, now: Duration, patience: Duration) -> bool {
        match &self.origin {
            Origin::Log(receipt) => now.saturating_sub(receipt.delivered) >= patience,
            Origin::Backlog | Origin::Unknown => false,
        }
    }

    /// Adds to a batch what takes the message out of where it is kept.
    pub(super) fn take_out(&self, account: &AccountKey, batch: &mut Batch) {
        match &self.origin {
            Origin::Log(receipt) => batch.consumed.push(receipt.consumed()),
            Origin::Backlog => {
                batch.after.push(Write::delete(Key::backlog(account, self.offset)));
            }
            Origin::Unknown => batch.after.push(Write::delete(Key::unknown(account, &self.command.id))),
        }
    }
}

/// How a send ended.
#[derive(Debug)]
pub enum Ended {
    /// It is settled: sent, failed for good, or found to be settled before.
    Settled {
        /// Whether a call came through to the channel.
        called: bool,
    },
    /// It was refused, and is to be tried again.
    Refused(SendError),
    /// Nobody knows; it is among the unknown rows now, and its agenda row is due then.
    Unknown(Timestamp),
}

/// What a send needs.
pub struct Send {
    /// What it needs of the node.
    pub context: Context,
    /// The account.
    pub account: AccountKey,
    /// Under which ownership.
    pub fence: Fence,
    /// The channel.
    pub channel: Arc<dyn Channel>,
}

impl Send {
    /// Sends a message, or finds that it has been.
    ///
    /// # Errors
    /// When the store is closed or has another owner: nothing more may be sent then.
    pub async fn run(self, mut item: Item) -> Result<(Item, Ended), StoreError> {
        let ports = &self.context.ports;
        if let Err(elsewhere) = self.context.tenants.check_region(&self.account.tenant) {
            self.bury(&item, DeadReason::Region, elsewhere.to_string()).await?;
            return Ok((item, Ended::Settled { called: false }));
        }
        if item.look_up {
            let key = Key::send(&self.account, &item.command.id);
            let found = read(&ports.metrics, || ports.state.get(&key)).await?;
            match found.as_deref().map(Journal::read) {
                None => {}
                Some(Journal::Refused { attempts }) => item.refused = attempts,
                // What is sent again by policy has been waited for already.
                Some(Journal::Attempting { .. }) if matches!(item.origin, Origin::Unknown) => {}
                Some(Journal::Attempting { .. }) => {
                    let due = self.unknown(&item).await?;
                    return Ok((item, Ended::Unknown(due)));
                }
                Some(
                    journal @ (Journal::Taken(_) | Journal::Sent | Journal::Failed { .. } | Journal::GivenUp),
                ) => {
                    self.settle(&item, &journal, None, None).await?;
                    return Ok((item, Ended::Settled { called: false }));
                }
            }
            item.look_up = false;
        }
        let message = match self.open(&item).await? {
            Ok(message) => message,
            Err(why) => {
                self.bury(&item, DeadReason::Unreadable, why).await?;
                return Ok((item, Ended::Settled { called: false }));
            }
        };
        let attempt = item.refused + 1;
        self.journal(&item, &Journal::Attempting { attempt }).await?;
        let taken = Taken::of(&item, ports.clock.now());
        if let Some(why) = self.withheld(&item, taken).await? {
            self.withhold(&item, why).await?;
            return Ok((item, Ended::Settled { called: false }));
        }
        // Whoever was suspended since may have lost the account meanwhile, and the call cannot be fenced.
        let Fence { partition, epoch } = self.fence;
        read(&ports.metrics, || ports.log.holds(partition, epoch)).await?;
        let Some(access) = self.access() else {
            self.withhold(&item, Withheld::Disconnected).await?;
            return Ok((item, Ended::Settled { called: false }));
        };
        let ended = match self.call(&access, &message).await {
            Ok(accepted) => {
                self.settle(&item, &Journal::Taken(taken), Some(&accepted), None).await?;
                Ended::Settled { called: true }
            }
            Err(error) => self.failed(&item, attempt, error).await?,
        };
        if let Ended::Refused(_) = ended {
            item.refused = attempt;
        }
        Ok((item, ended))
    }

    /// Why the message may not go now, if it may not.
    async fn withheld(&self, item: &Item, taken: Taken) -> Result<Option<Withheld>, StoreError> {
        let ports = &self.context.ports;
        // A reply answers what the customer asked, and goes out also after an opt-out.
        if let Some(category) = taken.category {
            let standing = consent::standing(ports, &self.account.tenant, item.contact(), category).await?;
            match standing {
                Standing::Stopped => return Ok(Some(Withheld::OptedOut)),
                Standing::Restricted => return Ok(Some(Withheld::Restricted)),
                Standing::Unknown | Standing::Given => {}
            }
        }
        let is_over = taken.window_until.is_some_and(|until| ports.clock.now() >= until);
        Ok(is_over.then_some(Withheld::WindowOver))
    }

    async fn withhold(&self, item: &Item, why: Withheld) -> Result<(), StoreError> {
        self.context.ports.metrics.withheld(why);
        let (conversation, outbound) = (item.conversation.clone(), item.command.id);
        let event = Event::SendWithheld { conversation, outbound, because: why };
        self.settle(item, &Journal::Failed { code: why.code() }, None, Some(event)).await
    }

    /// The channel says that the contact wants no more marketing: known from now on, whoever sends.
    async fn opted_out(&self, item: &Item, code: i64) -> Result<(), StoreError> {
        let ports = &self.context.ports;
        let tenant = &self.account.tenant;
        let at = ports.clock.now();
        let mut pause = commit::PAUSES.0;
        let told = loop {
            let recorded = async {
                let cipher = ports.keys.tenant(tenant).await?;
                let id = format!("{}/{}", self.account, item.command.id);
                let statement = Statement {
                    says: Says::Stop,
                    categories: vec![Category::Marketing],
                    at,
                    how: How::ChannelError,
                    key: cipher.hash("message", id.as_bytes()),
                    text: Some(code.to_string()),
                };
                Ok(consent::record(ports, tenant, &*cipher, item.contact(), &statement).await?)
            };
            match recorded.await {
                Ok(told) => break told,
                Err(KeysError::Store(error)) if error.is_transient() => {
                    ports.metrics.store_retried(&error);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(commit::PAUSES.1);
                }
                Err(KeysError::Store(StoreError::Corrupt { detail })) => {
                    // It counts as an opt-out as it is.
                    tracing::error!(%tenant, detail, "an opt-out cannot be recorded");
                    break Vec::new();
                }
                Err(KeysError::Store(error)) => return Err(error),
                // The tenant's key is gone, and with it everything that could be sent.
                Err(_) => break Vec::new(),
            }
        };
        self.commit(Batch { outputs: told, ..Batch::default() }).await
    }

    /// How to call the channel, as it is configured now; `None` once the account is disconnected.
    fn access(&self) -> Option<Access> {
        let tenant = self.context.tenants.get(&self.account.tenant)?;
        let config = tenant.channel(self.account.channel, &self.account.account)?;
        Some(Access {
            account: config.account.clone(),
            api_base: config.api_base.clone(),
            access_token: config.access_token.clone(),
        })
    }

    async fn call(&self, access: &Access, message: &OutboundMessage) -> Result<Accepted, SendError> {
        let ports = &self.context.ports;
        let began = ports.clock.elapsed();
        let call = self.channel.send(access, message);
        let result = tokio::time::timeout(self.context.options.send_timeout, call).await;
        let result = result.unwrap_or_else(|_| {
            Err(SendError {
                class: FailureClass::Unknown,
                code: None,
                detail: "no answer in time".into(),
                retry_after: None,
            })
        });
        let seconds = ports.clock.elapsed().saturating_sub(began).as_secs_f64();
        ports.metrics.sent(result.as_ref().map(|_| ()).map_err(|error| error.class), seconds);
        result
    }

    async fn failed(&self, item: &Item, attempt: u32, error: SendError) -> Result<Ended, StoreError> {
        match error.class {
            FailureClass::Final | FailureClass::OptedOut => {
                let code = error.code.unwrap_or_default();
                if error.class == FailureClass::OptedOut {
                    self.opted_out(item, code).await?;
                }
                self.settle(item, &Journal::Failed { code }, None, None).await?;
                Ok(Ended::Settled { called: true })
            }
            FailureClass::Unknown => Ok(Ended::Unknown(self.unknown(item).await?)),
            FailureClass::RateLimited
            | FailureClass::PairLimited
            | FailureClass::Temporary
            | FailureClass::Unauthorized
            | FailureClass::Blocked => {
                self.journal(item, &Journal::Refused { attempts: attempt }).await?;
                Ok(Ended::Refused(error))
            }
        }
    }

    /// Opens the message; the inner error says why it never can be.
    async fn open(&self, item: &Item) -> Result<Result<OutboundMessage, String>, StoreError> {
        let sealed = &item.command.sealed;
        let day = Day(sealed.key_number().unwrap_or_default());
        let keys = &self.context.ports.keys;
        let opened = match keys.log(&self.account.tenant, day).await {
            Ok(cipher) => cipher.open(&log_aad(Topic::Outbound, &item.command.id), sealed),
            Err(error) => Err(error),
        };
        let plain = match opened.map_err(KeysError::passing) {
            Ok(plain) => plain,
            Err(Ok(error)) => return Err(error),
            Err(Err(error)) => return Ok(Err(error.to_string())),
        };
        Ok(serde_json::from_slice::<SealedMessage>(&plain)
            .map(|message| OutboundMessage { id: item.command.id, to: message.to, content: message.content })
            .map_err(|error| format!("what is sealed is no message: {error}")))
    }

    async fn journal(&self, item: &Item, journal: &Journal) -> Result<(), StoreError> {
        let write = self.journal_write(&item.command.id, journal);
        self.commit(Batch { writes: vec![write], ..Batch::default() }).await
    }

    fn journal_write(&self, outbound: &OutboundId, journal: &Journal) -> Write {
        let expires = self.context.ports.clock.now().after(self.context.options.marker_ttl);
        Write::put_until(Key::send(&self.account, outbound), encode(journal), expires)
    }

    /// Settles a send and tells its conversation, and with `told` everybody else.
    async fn settle(
        &self,
        item: &Item,
        journal: &Journal,
        accepted: Option<&Accepted>,
        told: Option<Event>,
    ) -> Result<(), StoreError> {
        let ports = &self.context.ports;
        let (status, failure) = match journal {
            Journal::Failed { code } => (DeliveryStatus::Failed, Some(DeliveryFailure::of(*code))),
            Journal::GivenUp => (DeliveryStatus::Failed, None),
            _ => (DeliveryStatus::Sent, None),
        };
        let message = match accepted {
            Some(accepted) => match ports.keys.tenant(&self.account.tenant).await.map_err(KeysError::passing)
            {
                Ok(cipher) => {
                    let id = format!("{}/{}", self.account, accepted.message_id);
                    Some(cipher.hash("message", id.as_bytes()))
                }
                Err(Ok(error)) => return Err(error),
                Err(Err(_)) => None,
            },
            None => None,
        };
        let at = ports.clock.now();
        let report = DeliveryReport { outbound: item.command.id, status, at, failure, message };
        let notice = InboundRecord {
            v: V,
            conversation: item.conversation.clone(),
            at,
            event: InboundEvent::Delivery(report),
        };
        let mut batch = Batch {
            writes: vec![self.journal_write(&item.command.id, journal)],
            outputs: vec![publish::inbound(ports, &notice)],
            ..Batch::default()
        };
        let tenant = self.account.tenant.clone();
        let told = told.map(|event| publish::event(ports, &EventRecord { v: V, tenant, at, event }));
        batch.outputs.extend(told);
        item.take_out(&self.account, &mut batch);
        self.commit(batch).await
    }

    /// Puts a send among the unknown. Returns when to look after it.
    async fn unknown(&self, item: &Item) -> Result<Timestamp, StoreError> {
        let ports = &self.context.ports;
        ports.metrics.unknown();
        let now = ports.clock.now();
        let due = now.after(self.context.options.unknown_wait);
        let event = EventRecord {
            v: V,
            tenant: self.account.tenant.clone(),
            at: now,
            event: Event::SendUnknown { conversation: item.conversation.clone(), outbound: item.command.id },
        };
        let agenda = Key::agenda(self.fence.partition, due, self.account.to_string().as_bytes());
        let mut batch = Batch {
            writes: vec![
                Write::put(Key::unknown(&self.account, &item.command.id), item.stored.clone()),
                Write::put(agenda, Bytes::new()),
            ],
            outputs: vec![publish::event(ports, &event)],
            ..Batch::default()
        };
        if !matches!(item.origin, Origin::Unknown) {
            item.take_out(&self.account, &mut batch);
        }
        self.commit(batch).await?;
        Ok(due)
    }

    /// Gives a message up, as it came.
    async fn bury(&self, item: &Item, reason: DeadReason, why: String) -> Result<(), StoreError> {
        let ports = &self.context.ports;
        let mut batch = Batch::default();
        let came = match &item.origin {
            Origin::Log(receipt) => receipt.record.clone(),
            // It left the log; what is kept of it is the record's value.
            Origin::Backlog | Origin::Unknown => Record {
                partition: self.fence.partition,
                offset: item.offset,
                key: self.account.to_string().into(),
                value: item.stored.clone(),
                at: ports.clock.now(),
            },
        };
        batch.outputs.push(publish::dead_letter(ports, &came, reason, why, 1));
        item.take_out(&self.account, &mut batch);
        self.commit(batch).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let ports = &self.context.ports;
        let batch = Batch { fence: Some(self.fence), ..batch };
        commit(&*ports.state, &ports.metrics, |_| batch.clone()).await
    }
}
