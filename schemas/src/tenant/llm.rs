//! Models that answer for a tenant, in the order in which they are asked.

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ADDRESS_OR_NONE;
use crate::money::Price;
use crate::sealed::Secret;

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

    pub(super) fn faults(&self, at: &str) -> Vec<String> {
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
