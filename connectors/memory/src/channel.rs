//! Scripted channel for tests, which records the messages that it accepted.
//!
//! It stands for the provider, so it survives every crash of the engine. A call that is dropped
//! before the provider accepted the message leaves nothing; later it is accepted, even if its caller is gone.
//!
//! Profile and webhooks are those of another channel given with [`ScriptedChannel::with_webhooks`]; without one it has
//! WhatsApp's profile, the signature is the app secret itself, in header [`SIGNATURE`], and a body is the JSON of a
//! [`Webhook`].

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use heddle_schemas::content::{Address, Content, Context};
use heddle_schemas::id::{AccountId, ChannelKind, OutboundId};
use heddle_schemas::outgoing::{ContentProfile, Kind, Limits};
use heddle_schemas::ports::channel::profile::{Api, CredentialSpec, IdKind, PairLimit};
use heddle_schemas::ports::channel::{
    Accepted, Act, Channel, ChannelAccount, ChannelEvent, ChannelProfile, FailureClass, HandshakeError,
    OutboundMessage, ReceivedMessage, ReceivedStatus, SendError, WebhookError,
};
use heddle_schemas::record::inbound::DeliveryStatus;
use heddle_schemas::time::Timestamp;
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use super::faults::pause;

/// The credential that signs webhooks.
const APP_SECRET: &str = "app_secret";

/// Profile of the scripted channel, which stands in for WhatsApp: the limits that its tests rely on.
pub static PROFILE: ChannelProfile = ChannelProfile {
    kind: ChannelKind::Whatsapp,
    text_max: NonZeroUsize::new(4096).unwrap(),
    content: ContentProfile { carries: Kind::ALL, uploads: true, limits: Limits::NONE },
    webhook_body_max: 3 << 20,
    reply_window: Some(Duration::from_secs(24 * 3600)),
    pair_limit: Some(PairLimit {
        interval: Duration::from_secs(6),
        burst: NonZeroU32::new(45).unwrap(),
        pause_base: 4,
    }),
    messages_per_second: NonZeroU32::new(80).unwrap(),
    counts_inbound: true,
    ids: &[IdKind::User, IdKind::Parent, IdKind::Phone],
    parent_mark: Some(".ENT."),
    credentials: &[
        CredentialSpec::required("access_token", "is the bearer token to send with"),
        CredentialSpec::required(APP_SECRET, "signs webhooks"),
        CredentialSpec::required("verify_token", "is repeated when a webhook is subscribed"),
    ],
    opt_out_buttons: &["Stop promotions"],
    api: Api::Base("https://channel.example"),
};

/// The code by which the scripted provider says that a person wants no more marketing.
pub const OPT_OUT: i64 = 131_050;

/// The header of a webhook's signature where no other channel verifies it.
pub const SIGNATURE: &str = "scripted-signature";

/// Outcome of one call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Reply {
    /// The message is taken.
    #[default]
    Accepts,
    /// It is not, for this reason.
    Refuses(SendError),
    /// It is accepted and the answer lost: the caller gets [`FailureClass::Unknown`].
    AcceptsUnheard,
    /// It is lost on the way there: the caller gets [`FailureClass::Unknown`].
    LosesIt,
    /// It is taken and no answer ever comes.
    AcceptsAndHangs,
    /// It is not taken and no answer ever comes.
    Hangs,
}

impl Reply {
    /// Refuses with this class, without code or time.
    #[must_use]
    pub fn fails(class: FailureClass) -> Self {
        Self::Refuses(SendError::new(class, "scripted"))
    }

    fn accepts(&self) -> bool {
        matches!(self, Self::Accepts | Self::AcceptsUnheard | Self::AcceptsAndHangs)
    }
}

/// Script of one call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sending {
    /// Until the provider has it.
    pub before: Duration,
    /// From there until the caller hears of it.
    pub after: Duration,
    /// Its outcome.
    pub reply: Reply,
}

impl From<Reply> for Sending {
    fn from(reply: Reply) -> Self {
        Self { reply, ..Self::default() }
    }
}

/// A call that reached the provider.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// On which account.
    pub account: AccountId,
    /// Message of the call.
    pub message: OutboundMessage,
    /// The channel's id of it, when it was taken.
    pub message_id: Option<String>,
}

/// Says how a call goes, given how many calls for the same id reached the provider before.
type Script = dyn Fn(&OutboundMessage, usize) -> Sending + Send + Sync;

/// A scripted channel. By default it takes everything at once.
pub struct ScriptedChannel {
    script: Box<Script>,
    webhooks: Option<Arc<dyn Channel>>,
    calls: Mutex<Vec<Call>>,
}

impl Default for ScriptedChannel {
    fn default() -> Self {
        Self::new(|_, _| Sending::default())
    }
}

impl ScriptedChannel {
    /// Sends as `script` says; it is given the message, and how many calls for its id reached the
    /// provider before.
    #[must_use]
    pub fn new(script: impl Fn(&OutboundMessage, usize) -> Sending + Send + Sync + 'static) -> Self {
        Self { script: Box::new(script), webhooks: None, calls: Mutex::default() }
    }

    /// Leaves signatures and bodies of webhooks to another channel.
    #[must_use]
    pub fn with_webhooks(self, channel: Arc<dyn Channel>) -> Self {
        Self { webhooks: Some(channel), ..self }
    }

    /// Every call that reached the provider, in order.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.lock().clone()
    }

    /// Every message that was taken, in order: what the customers have on their phones.
    #[must_use]
    pub fn accepted(&self) -> Vec<Call> {
        self.lock().iter().filter(|call| call.message_id.is_some()).cloned().collect()
    }

    /// Returns the number of times each message was accepted: above one, a customer has it twice.
    #[must_use]
    pub fn times_accepted(&self) -> BTreeMap<OutboundId, usize> {
        let mut times = BTreeMap::new();
        for call in self.accepted() {
            *times.entry(call.message.id).or_default() += 1;
        }
        times
    }

    /// The call reaches the provider.
    fn arrive(&self, account: &ChannelAccount, message: &OutboundMessage, accepts: bool) -> Option<String> {
        let mut calls = self.lock();
        let message_id = accepts.then(|| format!("scripted.{}", calls.len()));
        let (account, message) = (account.account.clone(), message.clone());
        calls.push(Call { account, message, message_id: message_id.clone() });
        message_id
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Channel for ScriptedChannel {
    fn profile(&self) -> &'static ChannelProfile {
        self.webhooks.as_ref().map_or(&PROFILE, |channel| channel.profile())
    }

    fn handshake(
        &self,
        account: &ChannelAccount,
        query: &[(String, String)],
    ) -> Result<String, HandshakeError> {
        self.webhooks
            .as_ref()
            .map_or(Err(HandshakeError::Unsupported), |channel| channel.handshake(account, query))
    }

    fn verify(&self, account: &ChannelAccount, headers: &HeaderMap, body: &[u8]) -> Result<(), WebhookError> {
        if let Some(channel) = &self.webhooks {
            return channel.verify(account, headers, body);
        }
        let secret = account.credential(APP_SECRET).ok_or(WebhookError::Signature)?;
        let given = headers.get(SIGNATURE).map_or(&b""[..], |value| value.as_bytes());
        let holds = bool::from(given.ct_eq(secret.expose().as_bytes()));
        if holds { Ok(()) } else { Err(WebhookError::Signature) }
    }

    fn parse(&self, account: &AccountId, body: &[u8]) -> Result<Vec<ChannelEvent>, WebhookError> {
        if let Some(channel) = &self.webhooks {
            return channel.parse(account, body);
        }
        let webhook: Webhook =
            serde_json::from_slice(body).map_err(|error| WebhookError::Body(error.to_string()))?;
        Ok(webhook.into_events())
    }

    fn is_opt_out(&self, code: i64) -> bool {
        self.webhooks.as_ref().map_or(code == OPT_OUT, |channel| channel.is_opt_out(code))
    }

    async fn send(&self, account: &ChannelAccount, message: &OutboundMessage) -> Result<Accepted, SendError> {
        let before = self.lock().iter().filter(|call| call.message.id == message.id).count();
        let Sending { before, after, reply } = (self.script)(message, before);
        pause(before).await;
        let message_id = match &reply {
            Reply::LosesIt => None,
            reply => self.arrive(account, message, reply.accepts()),
        };
        pause(after).await;
        match (reply, message_id) {
            (Reply::Accepts, Some(message_id)) => Ok(Accepted::new(message_id)),
            (Reply::Refuses(error), _) => Err(error),
            (Reply::AcceptsAndHangs | Reply::Hangs, _) => std::future::pending().await,
            _ => Err(unknown()),
        }
    }
}

fn unknown() -> SendError {
    SendError::new(FailureClass::Unknown, "the connection was lost, scripted")
}

impl std::fmt::Debug for ScriptedChannel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScriptedChannel").field("calls", &self.lock().len()).finish_non_exhaustive()
    }
}

/// A webhook's body where no other channel reads it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// Messages of customers.
    #[serde(default)]
    pub texts: Vec<Text>,
    /// Delivery statuses of our messages.
    #[serde(default)]
    pub statuses: Vec<Status>,
}

/// A text message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    /// The account it was sent to.
    pub account: AccountId,
    /// The channel's id of it.
    pub id: String,
    /// The phone number it comes from.
    pub from: String,
    /// Time of sending.
    pub at: Timestamp,
    /// The text.
    pub body: String,
}

/// A status of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The account that sent it.
    pub account: AccountId,
    /// The channel's id of it.
    pub message_id: String,
    /// Our id of it.
    pub outbound: Option<OutboundId>,
    /// Delivery status.
    pub status: DeliveryStatus,
    /// Time of the status.
    pub at: Timestamp,
}

impl Webhook {
    fn into_events(self) -> Vec<ChannelEvent> {
        let texts = self.texts.into_iter().map(|text| {
            ChannelEvent::Message(ReceivedMessage {
                account: text.account,
                id: text.id,
                from: Address { phone: Some(text.from), ..Address::default() },
                sent_at: text.at,
                act: Act::Say(Content::Text { body: text.body }),
                context: Context::default(),
            })
        });
        let statuses = self.statuses.into_iter().map(|status| {
            ChannelEvent::Status(ReceivedStatus {
                account: status.account,
                message_id: status.message_id,
                outbound: status.outbound,
                status: status.status,
                at: status.at,
                failure: None,
                pricing: None,
                recipient: Address::default(),
            })
        });
        texts.chain(statuses).collect()
    }
}

#[cfg(test)]
mod tests {
    use heddle_schemas::id::{ContactId, MessageKey, TurnId};
    use heddle_schemas::sealed::Secret;

    use heddle_schemas::outgoing::OutgoingContent;

    use super::*;

    fn message(index: u16) -> OutboundMessage {
        let turn = TurnId(MessageKey::from_bytes([2; 16]));
        let to = Address { phone: Some("16505551234".into()), ..Address::default() };
        let content = OutgoingContent::text("hello");
        OutboundMessage { id: OutboundId::of_turn(ContactId::from_bytes([1; 16]), turn, index), to, content }
    }

    fn account() -> ChannelAccount {
        let token = [("access_token", Secret::new("token"))];
        ChannelAccount::new(PROFILE.kind, "1122".parse().unwrap(), "http://127.0.0.1", token)
    }

    async fn send(channel: &ScriptedChannel, index: u16) -> Option<Result<Accepted, SendError>> {
        let minute = Duration::from_secs(60);
        tokio::time::timeout(minute, channel.send(&account(), &message(index))).await.ok()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_taken_and_what_is_told_are_two_things() {
        let script = [
            Reply::Accepts,
            Reply::fails(FailureClass::Temporary),
            Reply::AcceptsUnheard,
            Reply::LosesIt,
            Reply::AcceptsAndHangs,
            Reply::Hangs,
        ];
        let replies = script.clone();
        let channel =
            ScriptedChannel::new(move |message, _| replies[usize::from(message.id.index)].clone().into());
        let mut results = Vec::new();
        for index in 0..6 {
            let result = send(&channel, index).await;
            results.push(result.map(|result| result.map_err(|error| error.class).map(|_| ())));
        }
        let (temporary, unknown) = (Err(FailureClass::Temporary), Err(FailureClass::Unknown));
        assert_eq!(results, [Some(Ok(())), Some(temporary), Some(unknown), Some(unknown), None, None]);
        let taken: Vec<_> = channel.times_accepted().into_iter().map(|(id, n)| (id.index, n)).collect();
        assert_eq!(taken, [(0, 1), (2, 1), (4, 1)]);
        assert_eq!(channel.calls().len(), 5, "one was lost on the way there");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_given_up_before_it_arrived_leaves_nothing() {
        let late = Sending { before: Duration::from_secs(120), ..Sending::default() };
        let channel = ScriptedChannel::new(move |_, _| late.clone());
        assert!(send(&channel, 0).await.is_none());
        assert_eq!(channel.calls(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn the_script_knows_which_try_it_is() {
        let channel = ScriptedChannel::new(|_, before| match before {
            0 => Reply::fails(FailureClass::RateLimited).into(),
            _ => Reply::Accepts.into(),
        });
        assert!(send(&channel, 0).await.unwrap().is_err());
        assert_eq!(send(&channel, 0).await.unwrap().unwrap().message_id, "scripted.1");
        assert_eq!(channel.times_accepted().into_values().collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn a_webhook_reads_as_it_was_written() {
        let text = Text {
            account: "1122".parse().unwrap(),
            id: "in.1".into(),
            from: "16505551234".into(),
            at: Timestamp::from_secs(1),
            body: "hello?".into(),
        };
        let webhook = Webhook { texts: vec![text], statuses: Vec::new() };
        let events = ScriptedChannel::default()
            .parse(&account().account, &serde_json::to_vec(&webhook).unwrap())
            .unwrap();
        let [ChannelEvent::Message(message)] = &events[..] else { panic!("{events:?}") };
        assert_eq!(message.act, Act::Say(Content::Text { body: "hello?".into() }));
        assert_eq!(message.from.phone.as_deref(), Some("16505551234"));
    }
}
