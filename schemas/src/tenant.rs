//! A tenant as an operator writes it: its id, agent, channels, limits and retention.
//!
//! A file is read with [`Tenant::from_toml`], which reports every fault at once. Secrets in it are a literal,
//! `env:NAME` or `file:PATH`; the reader of the file resolves them through [`Tenant::secrets_mut`], and they are stored
//! only sealed.

pub mod changes;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::consent::Says;
use crate::consent::words::ConsentWords;
use crate::content::Content;
use crate::hours::Hours;
use crate::id::{AccountId, AccountKey, ChannelKind, TenantId};
use crate::language::Language;
use crate::money::{Money, Price};
use crate::ports::calendar::CalendarAccess;
pub use crate::ports::channel::ChannelAccount;
use crate::ports::channel::ChannelProfile;
use crate::retention::{OfDisconnected, Retention};
use crate::sealed::Secret;
use crate::time::{Timestamp, human};
use crate::toml_file::TomlFile;

/// A text that is not blank, in a JSON Schema: with a character that is not among Unicode's white space.
pub(crate) const NOT_BLANK: &str =
    "[^\\u0009-\\u000d\\u0020\\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]";
/// An address without a slash at its end, in a JSON Schema.
pub(crate) const ADDRESS: &str = "^https?://(.*[^/])$";
/// An address as [`ADDRESS`], or none.
const ADDRESS_OR_NONE: &str = "^(https?://(.*[^/]))?$";

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Its name, as people know it.
    #[schemars(regex(pattern = NOT_BLANK))]
    pub name: String,
    /// The region its data stays in.
    #[serde(default = "default_region")]
    #[schemars(regex(pattern = NOT_BLANK))]
    pub region: String,
    /// The agent.
    #[serde(default)]
    pub agent: Agent,
    /// The channel accounts.
    #[serde(default)]
    pub channels: Vec<ChannelAccount>,
    /// Disconnected channel accounts. The engine keeps this list. Their conversations are deleted, or where
    /// `retention.disconnected` says `kept`, kept for as long as others, exported and erased with the rest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disconnected: Vec<Disconnected>,
    /// The responder.
    #[serde(default)]
    pub llm: Llm,
    /// Opening hours and time zone.
    #[serde(default)]
    pub hours: Hours,
    /// The calendar in which appointments are booked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calendar: Option<CalendarAccess>,
    /// Tools of the agent, where a language model answers.
    #[serde(default)]
    pub tools: Tools,
    /// The monthly quota.
    #[serde(default)]
    pub quota: Quota,
    /// Times to live of its data.
    #[serde(default)]
    pub retention: Retention,
    /// Treatment of what customers should not have written.
    #[serde(default, skip_serializing_if = "Privacy::is_default")]
    pub privacy: Privacy,
    /// The search of its documents.
    #[serde(default)]
    pub knowledge: KnowledgeBase,
    /// Words that withdraw or give consent.
    #[serde(default)]
    pub consent: ConsentWords,
}

/// The region of tenants and nodes that name none.
pub(crate) fn default_region() -> String {
    "eu".into()
}

/// Treatment of what customers should not have written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Privacy {
    /// Treatment of payment card numbers in what customers write. Default: redacted.
    pub card_numbers: CardNumbers,
}

impl Privacy {
    /// As it is where the file says nothing: an earlier build can read it then.
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Treatment of payment card numbers in what customers write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CardNumbers {
    /// They are replaced before anything is stored.
    #[default]
    Redacted,
    /// They are kept as they were written.
    Kept,
}

/// Search of a tenant's documents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KnowledgeBase {
    /// The language of most documents, whose word forms match each other. Documents in another one are searched by
    /// their words as they are. A change rebuilds the index at the next search.
    pub language: Language,
    /// Documents at most. Default: 2,000.
    #[serde(skip_serializing_if = "is_max_documents")]
    pub max_documents: NonZeroU32,
    /// Bytes of text of all documents together at most. Default: 64 MiB.
    #[serde(skip_serializing_if = "is_max_bytes")]
    pub max_bytes: NonZeroU64,
}

const MAX_DOCUMENTS: NonZeroU32 = NonZeroU32::new(2_000).unwrap();
const MAX_BYTES: NonZeroU64 = NonZeroU64::new(64 << 20).unwrap();

fn is_max_documents(documents: &NonZeroU32) -> bool {
    *documents == MAX_DOCUMENTS
}

fn is_max_bytes(bytes: &NonZeroU64) -> bool {
    *bytes == MAX_BYTES
}

impl Default for KnowledgeBase {
    fn default() -> Self {
        Self { language: Language::default(), max_documents: MAX_DOCUMENTS, max_bytes: MAX_BYTES }
    }
}

/// A tenant's agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Agent {
    /// Description of the agent.
    pub system_prompt: String,
    /// The tone in which it speaks.
    pub tone: String,
    /// Rules that it must keep.
    pub rules: Vec<String>,
    /// Reply when it knows no answer. Not empty.
    #[schemars(length(min = 1), regex(pattern = NOT_BLANK))]
    pub fallback: String,
    /// Wait for more of a burst before answering; at most one minute.
    #[serde(with = "human")]
    #[schemars(schema_with = "human::schema")]
    pub settle: Duration,
    /// Guard against a conversation that goes round in circles.
    pub loop_guard: LoopGuard,
    /// Limits of one contact.
    pub per_contact: PerContact,
}

/// What one contact may use where a model answers, an hour and at once; 0 is no limit. Each channel account counts its
/// contacts by itself. Over a limit the fallback is said once an hour, and then nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PerContact {
    /// Turns that called a model. Default: 60.
    pub turns_per_hour: u32,
    /// Tokens, sent and received. Default: 300,000.
    pub tokens_per_hour: u64,
    /// Calls of tools. Default: 60.
    pub tool_calls_per_hour: u32,
    /// Appointments that are still to come. Default: 2.
    pub open_bookings: u32,
}

impl Default for PerContact {
    fn default() -> Self {
        Self { turns_per_hour: 60, tokens_per_hour: 300_000, tool_calls_per_hour: 60, open_bookings: 2 }
    }
}

/// Guard that silences the agent in a conversation that goes round in circles, as with another bot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LoopGuard {
    /// Identical rounds in a row that are answered: the customer says the same and hears the same. 0 turns the guard
    /// off. Default: 4.
    pub rounds: u32,
    /// The longest time between two of them; at most one day. Default: 2 minutes.
    #[serde(with = "human")]
    #[schemars(with = "String")]
    pub within: Duration,
    /// Reaction to a loop. Default: silence.
    pub then: LoopAction,
}

impl Default for LoopGuard {
    fn default() -> Self {
        Self { rounds: 4, within: Duration::from_secs(120), then: LoopAction::Silence }
    }
}

/// Reaction of the loop guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LoopAction {
    /// Answers nothing until the customer says something else, or a while has passed.
    Silence,
    /// Hands the conversation over to a human.
    HandOver,
}

impl Default for Agent {
    fn default() -> Self {
        Self {
            system_prompt: String::new(),
            tone: String::new(),
            rules: Vec::new(),
            fallback: "A colleague will get back to you.".into(),
            settle: Duration::from_millis(300),
            loop_guard: LoopGuard::default(),
            per_contact: PerContact::default(),
        }
    }
}

/// Tools of the agent, where a language model answers. It answers questions on opening hours where `hours` are set, and
/// searches and books appointments where there is a `calendar`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tools {
    /// True where it may hand a conversation over to a human. It says nothing in it then until that is given back.
    pub hand_over: bool,
    /// Reply at a handover. Not empty.
    #[schemars(length(min = 1), regex(pattern = NOT_BLANK))]
    pub hand_over_text: String,
    /// Payments that it may ask for.
    pub payments: Vec<PaymentLink>,
}

impl Default for Tools {
    fn default() -> Self {
        Self {
            hand_over: true,
            hand_over_text: "A colleague will take over from here.".into(),
            payments: Vec::new(),
        }
    }
}

/// Something that may be paid for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PaymentLink {
    /// The name that the agent uses.
    #[schemars(regex(pattern = NOT_BLANK))]
    pub name: String,
    /// The purpose of the payment, so that the agent knows when to offer it.
    pub description: String,
    /// The address at which it is paid.
    #[schemars(regex(pattern = "^https://"))]
    pub url: String,
}

/// A channel account that a tenant has had.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Disconnected {
    /// The channel.
    pub kind: ChannelKind,
    /// The provider's id of it.
    pub account: AccountId,
    /// Time of the erasure of its credentials, microseconds since 1970.
    pub at: Timestamp,
}

/// The responder of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Llm {
    /// `extractive` answers with the best passage, without an LLM.
    pub provider: Provider,
    /// The provider's name of the model.
    pub model: String,
    /// The base address of the API, up to what stands before `/chat/completions` or `/models`; empty: the
    /// provider's own.
    #[schemars(regex(pattern = ADDRESS_OR_NONE))]
    pub api_base: String,
    /// The key to call it with.
    pub api_key: Secret,
    /// Requests a minute.
    pub requests_per_minute: NonZeroU32,
    /// Tokens a minute, sent and received.
    pub tokens_per_minute: NonZeroU32,
    /// The price of a million tokens.
    pub price: Price,
    /// Treatment of customers' personal data in requests to a provider.
    pub personal_data: PersonalData,
    /// The longest answer, in the provider's tokens.
    pub answer_tokens: NonZeroU32,
    /// The most tokens of earlier messages that are sent along.
    pub history_tokens: u32,
    /// Models that are called, in this order, when the one before does not answer. After the last the agent's fallback
    /// is said.
    pub fallbacks: Vec<Model>,
}

impl Default for Llm {
    fn default() -> Self {
        let Model { provider, model, api_base, api_key, requests_per_minute, tokens_per_minute, price } =
            Model::default();
        Self {
            provider,
            model,
            api_base,
            api_key,
            requests_per_minute,
            tokens_per_minute,
            price,
            personal_data: PersonalData::Replaced,
            answer_tokens: const { NonZeroU32::new(500).unwrap() },
            history_tokens: 2_000,
            fallbacks: Vec::new(),
        }
    }
}

impl Llm {
    /// Returns the models in the order in which they are called: that of `llm` itself, then the fallbacks.
    pub fn models(&self) -> impl Iterator<Item = Model> + '_ {
        let first = Model {
            provider: self.provider,
            model: self.model.clone(),
            api_base: self.api_base.clone(),
            api_key: self.api_key.clone(),
            requests_per_minute: self.requests_per_minute,
            tokens_per_minute: self.tokens_per_minute,
            price: self.price,
        };
        std::iter::once(first).chain(self.fallbacks.iter().cloned())
    }
}

/// A model that may be called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Model {
    /// The provider.
    pub provider: Provider,
    /// As `llm.model`.
    pub model: String,
    /// As `llm.api_base`.
    #[schemars(regex(pattern = ADDRESS_OR_NONE))]
    pub api_base: String,
    /// As `llm.api_key`.
    pub api_key: Secret,
    /// As `llm.requests_per_minute`.
    pub requests_per_minute: NonZeroU32,
    /// As `llm.tokens_per_minute`.
    pub tokens_per_minute: NonZeroU32,
    /// As `llm.price`.
    pub price: Price,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            provider: Provider::Extractive,
            model: String::new(),
            api_base: String::new(),
            api_key: Secret::default(),
            requests_per_minute: const { NonZeroU32::new(600).unwrap() },
            tokens_per_minute: const { NonZeroU32::new(200_000).unwrap() },
            price: Price::default(),
        }
    }
}

impl Model {
    /// Returns the address at which it is called.
    #[must_use]
    pub fn base(&self) -> &str {
        match (self.api_base.as_str(), self.provider) {
            ("", Provider::Openai) => "https://api.openai.com/v1",
            ("", Provider::Deepseek) => "https://api.deepseek.com",
            ("", Provider::Gemini) => "https://generativelanguage.googleapis.com/v1beta",
            (base, _) => base,
        }
    }

    fn faults(&self, at: &str) -> Vec<String> {
        let mut faults = Vec::new();
        let base = &self.api_base;
        let asks = self.provider != Provider::Extractive;
        if asks && self.model.trim().is_empty() {
            faults.push(format!("{at}.model: is empty; name the provider's model"));
        }
        if !(base.is_empty() || base.starts_with("https://") || base.starts_with("http://")) {
            faults.push(format!("{at}.api_base: {base:?} is no http(s) address"));
        }
        if base.ends_with('/') {
            faults.push(format!("{at}.api_base: {base:?} ends with a slash"));
        }
        // A model on one's own machines may ask for none.
        if asks && base.is_empty() && self.api_key.is_empty() {
            faults.push(format!("{at}.api_key: is empty"));
        }
        faults
    }
}

/// A kind of responder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// The best passage of the tenant's documents.
    Extractive,
    /// OpenAI, or with `api_base` any service with the same API.
    Openai,
    /// DeepSeek.
    Deepseek,
    /// Google's Gemini.
    Gemini,
}

impl Provider {
    /// Its name, as it is configured.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Extractive => "extractive",
            Self::Openai => "openai",
            Self::Deepseek => "deepseek",
            Self::Gemini => "gemini",
        }
    }
}

/// Treatment of customers' personal data in requests to a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PersonalData {
    /// Phone numbers, e-mail addresses and the customer's name are replaced before, and put back into the answer.
    Replaced,
    /// Everything as it was written.
    Sent,
}

/// Monthly quota of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Quota {
    /// Messages sent to customers.
    pub messages_per_month: u64,
    /// Tokens, sent to language models and received.
    pub tokens_per_month: u64,
    /// The cost of language models, by the prices of `llm` and in their currency; no limit where it is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub money_per_month: Option<Money>,
    /// Percentage of the quota at which the tenant is warned: an event, once a month for each of the three resources.
    #[schemars(range(min = 1, max = 100))]
    pub warn_percent: u8,
    /// Treatment of turns when a resource is spent.
    pub when_spent: WhenSpent,
}

/// Resource with a monthly quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// Messages sent to customers.
    Messages,
    /// Tokens of language models.
    Tokens,
    /// The cost of the tokens.
    Money,
}

impl Resource {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Messages, Self::Tokens, Self::Money];

    /// Its name, as it stands in events and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Tokens => "tokens",
            Self::Money => "money",
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Treatment of turns when a tenant's quota is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenSpent {
    /// The agent's fallback is said. That is a message too: where messages are spent, nothing is said.
    Fallback,
    /// Nothing is said.
    Silence,
    /// Nothing is said, and the conversation is a human's from then on.
    HandOver,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            messages_per_month: 100_000,
            tokens_per_month: 50_000_000,
            money_per_month: None,
            warn_percent: 80,
            when_spent: WhenSpent::Fallback,
        }
    }
}

/// The profile of each kind of channel that a build has.
pub type Profiles<'a> = &'a dyn Fn(ChannelKind) -> Option<&'static ChannelProfile>;

/// Everything that is wrong with a file, a line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Faults(pub Vec<String>);

impl Tenant {
    /// Reads a tenant's file. Its channels are not checked against their profiles: that is for [`Tenant::complete`].
    ///
    /// # Errors
    /// Every fault, of the syntax and of the values, each with its line.
    pub fn from_toml(text: &str) -> Result<Self, Faults> {
        let reading = TomlFile::parse(text, None).read::<Self>();
        let more = reading.value.as_ref().map(Self::faults).unwrap_or_default();
        reading.finish(more)
    }

    /// Checks everything, and writes down what a channel's profile gives where the file says nothing.
    ///
    /// # Errors
    /// Every fault; then nothing is changed.
    pub fn complete(&mut self, profiles: Profiles<'_>) -> Result<(), Faults> {
        let mut faults = self.faults();
        faults.extend(self.channel_faults(profiles));
        if !faults.is_empty() {
            return Err(Faults(faults));
        }
        for channel in &mut self.channels {
            if let Some(profile) = profiles(channel.kind) {
                channel.complete(profile);
            }
        }
        Ok(())
    }

    /// Checks what the types leave open, but for its channels' profiles.
    ///
    /// # Errors
    /// Every fault.
    pub fn validate(&self) -> Result<(), Faults> {
        let faults = self.faults();
        if faults.is_empty() { Ok(()) } else { Err(Faults(faults)) }
    }

    /// Its channels against their profiles, and its own texts against their limits.
    fn channel_faults(&self, profiles: Profiles<'_>) -> Vec<String> {
        let mut faults = Vec::new();
        for (index, channel) in self.channels.iter().enumerate() {
            match profiles(channel.kind) {
                Some(profile) => faults.extend(channel.faults(profile, &format!("channels[{index}]"))),
                None => {
                    faults.push(format!("channels[{index}].kind: this build has no {} channel", channel.kind))
                }
            }
        }
        let limits =
            self.channels.iter().filter_map(|channel| profiles(channel.kind)).map(|profile| profile.text_max);
        let Some(limit) = limits.min() else { return faults };
        for (place, text) in [
            ("agent.fallback", &self.agent.fallback),
            ("tools.hand_over_text", &self.tools.hand_over_text),
            ("consent.stopped_text", &self.consent.stopped_text),
        ] {
            if text.chars().count() > limit.get() {
                faults.push(format!("{place}: is over {limit} characters; it has to fit into one message"));
            }
        }
        faults
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |holds: bool, fault: &dyn Fn() -> String| {
            if !holds {
                faults.push(fault());
            }
        };
        check(self.id != TenantId::engine(), &|| {
            format!("id: {} is the engine's own; take another one", self.id)
        });
        check(!self.name.trim().is_empty(), &|| "name: is empty".into());
        check(!self.region.trim().is_empty(), &|| "region: is empty".into());
        check(!self.agent.fallback.trim().is_empty(), &|| {
            "agent.fallback: is empty; it is said when no answer is known".into()
        });
        check(!self.tools.hand_over_text.trim().is_empty(), &|| "tools.hand_over_text: is empty".into());
        let mut names = BTreeSet::new();
        for (index, link) in self.tools.payments.iter().enumerate() {
            let at = |field: &str| format!("tools.payments[{index}].{field}");
            check(!link.name.trim().is_empty(), &|| format!("{}: is empty", at("name")));
            check(names.insert(&link.name), &|| format!("{}: {:?} appears twice", at("name"), link.name));
            check(link.url.starts_with("https://"), &|| {
                format!("{}: {:?} is no https address", at("url"), link.url)
            });
        }
        check((1..=100).contains(&self.quota.warn_percent), &|| {
            "quota.warn_percent: is not between 1 and 100".into()
        });
        check(
            self.quota.money_per_month.is_none()
                || self
                    .llm
                    .models()
                    .all(|model| model.provider == Provider::Extractive || model.price != Price::default()),
            &|| {
                "quota.money_per_month: needs the price of every model of llm; without, nothing would be counted".into()
            },
        );
        check(self.agent.loop_guard.within <= Duration::from_secs(86_400), &|| {
            "agent.loop_guard.within: is over 1d; people ask the same again on another day".into()
        });
        check(self.agent.settle <= Duration::from_secs(60), &|| {
            "agent.settle: is over 60s; customers wait that long for every answer".into()
        });
        for (index, model) in self.llm.models().enumerate() {
            let at = match index {
                0 => "llm".to_owned(),
                index => format!("llm.fallbacks[{}]", index - 1),
            };
            model.faults(&at).into_iter().for_each(|fault| check(false, &|| fault.clone()));
            check(index == 0 || model.provider != Provider::Extractive, &|| {
                format!(
                    "{at}.provider: extractive is no fallback; what stands behind the last is agent.fallback"
                )
            });
        }
        check(self.llm.provider != Provider::Extractive || self.llm.fallbacks.is_empty(), &|| {
            "llm.fallbacks: extractive calls no provider, and needs none".into()
        });
        self.consent.faults().into_iter().for_each(|fault| check(false, &|| fault.clone()));
        self.hours.faults().into_iter().for_each(|fault| check(false, &|| fault.clone()));
        let faults_of_calendar = self.calendar.iter().flat_map(CalendarAccess::faults);
        faults_of_calendar.for_each(|fault| check(false, &|| fault.clone()));
        check(self.calendar.is_none() || self.hours.are_set(), &|| {
            "calendar: nothing is ever free without opening hours; write when you are open under [hours]"
                .into()
        });
        self.retention.faults().into_iter().for_each(|fault| check(false, &|| fault.clone()));
        let mut seen = BTreeSet::new();
        for (index, channel) in self.channels.iter().enumerate() {
            let at = |field: &str| format!("channels[{index}].{field}");
            check(seen.insert((channel.kind, channel.account.clone())), &|| {
                format!("{}: {} appears twice", at("account"), channel.account)
            });
        }
        faults
    }

    /// Returns the statement about consent that a message makes, if a person typed it: a stop or a start word. Taps say
    /// what a button's title says, which somebody else wrote.
    #[must_use]
    pub fn says(&self, content: &Content) -> Option<Says> {
        self.consent.says(content.typed()?, self.knowledge.language)
    }

    /// Every secret with its place, for resolving.
    pub fn secrets_mut(&mut self) -> BTreeMap<String, &mut Secret> {
        let mut secrets = own_secrets_mut(&mut self.llm, &mut self.calendar);
        secrets.extend(self.channels.iter_mut().flat_map(ChannelAccount::credentials_mut));
        secrets
    }

    /// The secrets that are no channel's.
    pub fn own_secrets_mut(&mut self) -> BTreeMap<String, &mut Secret> {
        own_secrets_mut(&mut self.llm, &mut self.calendar)
    }

    /// Gives each secret that reads `[redacted]`, as in a shown configuration, the value that is stored. Returns a fault
    /// for each that has none, or that would go to another address than before: whoever may change an address, and does
    /// not know the secret, does not get it sent there.
    pub fn keep_secrets(&mut self, stored: Option<&Self>) -> Vec<String> {
        let mut stored = stored.cloned();
        let before = stored.as_ref().map(Self::destinations).unwrap_or_default();
        let known = stored.as_mut().map(Self::secrets_mut).unwrap_or_default();
        let now = self.destinations();
        let mut faults = Vec::new();
        for (place, secret) in self.secrets_mut().into_iter().filter(|(_, secret)| secret.is_redacted()) {
            match known.get(&place).filter(|known| !known.is_empty()) {
                Some(known) if now.get(&place) == before.get(&place) => *secret = (**known).clone(),
                Some(_) => faults.push(format!(
                    "{place}: is \"[redacted]\", and goes to another address than the stored one; write the secret itself"
                )),
                None => faults.push(format!(
                    "{place}: is \"[redacted]\", and there is no stored one to keep; write the secret itself"
                )),
            }
        }
        faults
    }

    /// Every address that it makes the node call, with its place and, for one of a channel, the channel.
    #[must_use]
    pub fn addresses(&self) -> Vec<(String, &str, Option<ChannelKind>)> {
        let mut addresses = vec![("llm.api_base".to_owned(), self.llm.api_base.as_str(), None)];
        for (index, fallback) in self.llm.fallbacks.iter().enumerate() {
            addresses.push((format!("llm.fallbacks[{index}].api_base"), &fallback.api_base, None));
        }
        if let Some(calendar) = &self.calendar {
            addresses.push(("calendar.api_base".into(), &calendar.api_base, None));
            addresses.push(("calendar.token_base".into(), &calendar.token_base, None));
        }
        for (index, channel) in self.channels.iter().enumerate() {
            addresses.push((format!("channels[{index}].api_base"), &channel.api_base, Some(channel.kind)));
        }
        addresses.retain(|(_, address, _)| !address.is_empty());
        addresses
    }

    /// Where each secret goes, by its place.
    fn destinations(&self) -> BTreeMap<String, String> {
        let models = self.llm.models().enumerate().map(|(index, model)| {
            let place = match index {
                0 => "llm.api_key".to_owned(),
                index => format!("llm.fallbacks.{}.api_key", index - 1),
            };
            (place, format!("{:?} {}", model.provider, model.base()))
        });
        let calendar = self.calendar.iter().flat_map(|access| {
            let to = format!("{} {} {}", access.api_base, access.token_base, access.client_id);
            ["client_secret", "refresh_token"].map(|name| (format!("calendar.{name}"), to.clone()))
        });
        let channels = self.channels.iter().flat_map(|account| {
            let places = account.credentials.iter();
            places.map(|(name, _)| {
                (format!("channels.{}.{}.{name}", account.kind, account.account), account.api_base.clone())
            })
        });
        models.chain(calendar).chain(channels).collect()
    }

    /// The configuration as JSON with its secrets in the clear, as the admin API takes it. Never for a log.
    ///
    /// # Panics
    /// Never: a configuration is always JSON.
    #[must_use]
    pub fn to_json_exposed(&self) -> serde_json::Value {
        let mut json = serde_json::to_value(self).expect("a configuration is always JSON");
        json["llm"]["api_key"] = self.llm.api_key.expose().into();
        for (index, fallback) in self.llm.fallbacks.iter().enumerate() {
            json["llm"]["fallbacks"][index]["api_key"] = fallback.api_key.expose().into();
        }
        if let Some(calendar) = &self.calendar {
            json["calendar"]["client_secret"] = calendar.client_secret.expose().into();
            json["calendar"]["refresh_token"] = calendar.refresh_token.expose().into();
        }
        for (index, channel) in self.channels.iter().enumerate() {
            let json = &mut json["channels"][index];
            for (name, secret) in channel.credentials.iter() {
                json[name] = secret.expose().into();
            }
        }
        json
    }

    /// The account with this id.
    #[must_use]
    pub fn channel(&self, kind: ChannelKind, account: &AccountId) -> Option<&ChannelAccount> {
        self.channels.iter().find(|channel| channel.kind == kind && channel.account == *account)
    }

    /// The keys of its accounts.
    pub fn accounts(&self) -> impl Iterator<Item = AccountKey> + '_ {
        self.channels.iter().map(|channel| self.account(channel.kind, &channel.account))
    }

    /// The key of an account of this tenant.
    #[must_use]
    pub fn account(&self, kind: ChannelKind, account: &AccountId) -> AccountKey {
        AccountKey { tenant: self.id.clone(), channel: kind, account: account.clone() }
    }

    /// Returns whether an account is disconnected, and its conversations are to be deleted.
    #[must_use]
    pub fn deletes_conversations_of(&self, kind: ChannelKind, account: &AccountId) -> bool {
        self.retention.disconnected == OfDisconnected::Deleted
            && self.channel(kind, account).is_none()
            && self.disconnected.iter().any(|one| one.kind == kind && one.account == *account)
    }

    /// The keys of its accounts and of those it has had: a contact may have a conversation with each.
    #[must_use]
    pub fn accounts_ever(&self) -> BTreeSet<AccountKey> {
        let disconnected = self.disconnected.iter().map(|one| self.account(one.kind, &one.account));
        self.accounts().chain(disconnected).collect()
    }
}

fn own_secrets_mut<'a>(
    llm: &'a mut Llm,
    calendar: &'a mut Option<CalendarAccess>,
) -> BTreeMap<String, &'a mut Secret> {
    let mut secrets = BTreeMap::from([("llm.api_key".to_owned(), &mut llm.api_key)]);
    for (index, fallback) in llm.fallbacks.iter_mut().enumerate() {
        secrets.insert(format!("llm.fallbacks.{index}.api_key"), &mut fallback.api_key);
    }
    if let Some(calendar) = calendar {
        secrets.insert("calendar.client_secret".to_owned(), &mut calendar.client_secret);
        secrets.insert("calendar.refresh_token".to_owned(), &mut calendar.refresh_token);
    }
    secrets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::channel::profile;

    const ACME: &str = r#"
        id = "acme"
        name = "Acme Clinic"
        [agent]
        settle = "300ms"
        [[channels]]
        kind = "whatsapp"
        account = "1122334455667"
        access_token = "env:ACME_TOKEN"
        app_secret = "s"
        verify_token = "v"
        [retention]
        messages = "30d"
    "#;

    static PROFILE: ChannelProfile = profile::example(&[]);

    fn profiles(_: ChannelKind) -> Option<&'static ChannelProfile> {
        Some(&PROFILE)
    }

    #[test]
    fn the_example_reads_with_its_defaults() {
        let mut tenant = Tenant::from_toml(ACME).unwrap();
        tenant.complete(&profiles).unwrap();
        assert_eq!(tenant.retention.messages, Duration::from_secs(30 * 86_400));
        assert_eq!(tenant.agent.settle, Duration::from_millis(300));
        assert_eq!(tenant.channels[0].messages_per_second.map(NonZeroU32::get), Some(80));
        assert_eq!(tenant.channels[0].api_base, "https://graph.facebook.com/v21.0");
    }

    #[test]
    fn an_account_that_is_stored_reads_back_whole_and_is_written_as_before() {
        // As builds wrote it that knew no profile.
        let stored = serde_json::json!({
            "kind": "whatsapp", "account": "1", "api_base": "https://graph.facebook.com/v21.0",
            "access_token": "[redacted]", "app_secret": "[redacted]", "verify_token": "[redacted]",
            "messages_per_second": 80,
        });
        let account: ChannelAccount = serde_json::from_value(stored.clone()).unwrap();
        assert_eq!(account.credential("app_secret").unwrap().expose(), "[redacted]");
        assert_eq!(account.messages_per_second, NonZeroU32::new(80));
        assert_eq!(serde_json::to_value(&account).unwrap(), stored);
    }

    #[test]
    fn a_channel_is_checked_against_its_profile_every_fault_at_once() {
        let faults = |from: &str, to: &str| {
            let mut tenant = Tenant::from_toml(&ACME.replace(from, to)).unwrap();
            let before = tenant.clone();
            let faults = tenant.complete(&profiles).unwrap_err().0;
            assert_eq!(tenant, before);
            faults
        };
        let wrong = "app_secret = \"\"\nacces_token = \"x\"\napi_base = \"https://x/\"";
        let found = faults("app_secret = \"s\"", wrong);
        let places: Vec<_> =
            found.iter().filter_map(|fault| fault.split_once(':')).map(|(at, _)| at).collect();
        let expected = ["channels[0].api_base", "channels[0].app_secret", "channels[0].acces_token"];
        assert_eq!(places, expected, "{found:?}");
        assert!(found[2].contains("access_token, app_secret, verify_token"), "{found:?}");
        assert_eq!(faults("\"v\"", "\"a b\""), ["channels[0].verify_token: has a blank"]);
        let long = format!("fallback = \"{}\"", "x".repeat(101));
        assert!(faults("settle = \"300ms\"", &long)[0].starts_with("agent.fallback: is over 100"));
        let mut other = Tenant::from_toml(ACME).unwrap();
        let fault = other.complete(&|_| None).unwrap_err().to_string();
        assert!(fault.starts_with("channels[0].kind"), "{fault}");
    }

    #[test]
    fn every_fault_is_reported_at_once() {
        let text = ACME.replace("300ms", "2h").replace("30d", "1h").replace("\"Acme Clinic\"", "\"\"");
        let faults = Tenant::from_toml(&text).unwrap_err().0;
        assert_eq!(faults.len(), 3, "{faults:?}");
    }

    #[test]
    fn models_are_asked_in_order_and_each_is_checked() {
        let text = format!(
            "{ACME}[llm]\nprovider = \"openai\"\nmodel = \"m\"\napi_key = \"k\"\n\
             [[llm.fallbacks]]\nprovider = \"gemini\"\nmodel = \"g\"\napi_key = \"env:G\"\n\
             [[llm.fallbacks]]\nprovider = \"openai\"\nmodel = \"own\"\napi_base = \"http://127.0.0.1:8000/v1\"\n"
        );
        let mut tenant = Tenant::from_toml(&text).unwrap();
        assert_eq!(tenant.secrets_mut()["llm.fallbacks.0.api_key"].expose(), "env:G");
        let bases: Vec<_> = tenant.llm.models().map(|model| model.base().to_owned()).collect();
        let google = "https://generativelanguage.googleapis.com/v1beta";
        assert_eq!(bases, ["https://api.openai.com/v1", google, "http://127.0.0.1:8000/v1"]);
        let wrong = text.replace("model = \"m\"", "").replace("\"env:G\"", "\"\"").replace("/v1\"", "/v1/\"");
        let faults = Tenant::from_toml(&wrong).unwrap_err().0;
        let places: Vec<_> =
            faults.iter().filter_map(|fault| fault.split_once(':')).map(|(at, _)| at).collect();
        assert_eq!(places, ["llm.model", "llm.fallbacks[0].api_key", "llm.fallbacks[1].api_base"]);
        let extractive = text.replace("\"openai\"\nmodel = \"m\"", "\"extractive\"");
        assert!(Tenant::from_toml(&extractive).unwrap_err().to_string().contains("llm.fallbacks"));
    }

    #[test]
    fn a_calendar_is_read_with_its_defaults_and_every_fault_of_it_told() {
        let calendar = "[calendar]\nkind = \"google\"\nclient_id = \"c\"\n\
                        client_secret = \"env:S\"\nrefresh_token = \"env:R\"\n";
        let hours = "[hours]\ntime_zone = \"Europe/Berlin\"\nmonday = [\"09:00-12:00\"]\n";
        let mut tenant = Tenant::from_toml(&format!("{ACME}{hours}{calendar}")).unwrap();
        let access = tenant.calendar.clone().unwrap();
        let minutes = [access.slot, access.notice, access.horizon].map(|time| time.as_secs() / 60);
        assert_eq!((&*access.calendar, minutes), ("primary", [30, 120, 43_200]));
        assert_eq!(tenant.secrets_mut()["calendar.refresh_token"].expose(), "env:R");
        let back: Tenant = serde_json::from_value(tenant.to_json_exposed()).unwrap();
        assert_eq!(back, tenant);
        assert!(!format!("{:?}{}", tenant, serde_json::to_string(&tenant).unwrap()).contains("env:R"));

        let wrong = calendar
            .replace("env:R", "")
            .replace("\"c\"", "\"\"\napi_base = \"ftp://x/\"\nslot = \"1m\"\nhorizon = \"90d\"");
        let hours = hours.replace("09:00-12:00", "12:00-09:00");
        let faults = Tenant::from_toml(&format!("{ACME}{hours}{wrong}")).unwrap_err().0;
        let places: Vec<_> =
            faults.iter().filter_map(|fault| fault.split_once(": ")).map(|(at, _)| at).collect();
        assert_eq!(
            places,
            [
                "hours.monday[0]",
                "calendar.api_base",
                "calendar.api_base",
                "calendar.client_id",
                "calendar.refresh_token",
                "calendar.slot",
                "calendar.horizon"
            ]
        );
        let fault = Tenant::from_toml(&format!("{ACME}{calendar}")).unwrap_err().to_string();
        assert!(fault.contains("[hours]"), "{fault}");
    }

    #[test]
    fn an_unknown_field_is_refused_with_its_line() {
        let text = ACME.replace("settle =", "setle =");
        let fault = Tenant::from_toml(&text).unwrap_err().to_string();
        assert!(fault.contains("setle") && fault.contains("line 5"), "{fault}");
    }

    #[test]
    fn exposed_json_reads_back_whole_and_the_ordinary_one_tells_no_secret() {
        let mut tenant = Tenant::from_toml(ACME).unwrap();
        for (place, secret) in tenant.secrets_mut() {
            *secret = Secret::new(format!("value of {place}"));
        }
        let back: Tenant = serde_json::from_value(tenant.to_json_exposed()).unwrap();
        assert_eq!(back, tenant);
        assert!(!serde_json::to_string(&tenant).unwrap().contains("value of"));
    }

    #[test]
    fn a_language_without_word_forms_is_refused_with_those_there_are() {
        let text = |language| format!("{ACME}[knowledge]\nlanguage = \"{language}\"\n");
        assert_eq!(Tenant::from_toml(&text("de")).unwrap().knowledge.language, Language::German);
        assert_eq!(Tenant::from_toml(ACME).unwrap().knowledge.language, Language::English);
        let fault = Tenant::from_toml(&text("xx")).unwrap_err().to_string();
        assert!(fault.contains("`xx`") && fault.contains("`de`") && fault.contains("`none`"), "{fault}");
    }

    #[test]
    fn secrets_are_named_by_their_place() {
        let mut tenant = Tenant::from_toml(ACME).unwrap();
        let secrets = tenant.secrets_mut();
        assert_eq!(secrets["channels.whatsapp.1122334455667.access_token"].expose(), "env:ACME_TOKEN");
        assert_eq!(secrets.len(), 4);
    }
}
