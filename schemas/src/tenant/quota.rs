//! Monthly quota of a tenant.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::money::Money;

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
