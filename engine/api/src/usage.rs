//! Usage of a tenant in a month.

use std::collections::BTreeMap;

use heddle_schemas::money::Money;
use heddle_schemas::zone::{Date, Month};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Usage of a month, in the tenant's time zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    /// The month.
    pub month: Month,
    /// The quota; no money where that has no limit.
    pub quota: Resources,
    /// Resources that count as spent of it.
    pub spent: Resources,
    /// Resources that nodes have set aside beside that, for turns to come.
    pub set_aside: Resources,
    /// Messages that count as spent though nobody knows of them: their node died.
    pub lost_messages: u64,
    /// All of the month.
    pub total: Day,
    /// By date.
    pub days: BTreeMap<Date, Day>,
}

/// So much of each resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Resources {
    /// Messages sent to customers.
    pub messages: u64,
    /// Tokens of language models.
    pub tokens: u64,
    /// Their cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub money: Option<Money>,
}

/// Usage of turns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Day {
    /// Turns that were decided.
    pub turns: u64,
    /// Messages that they say.
    pub messages: u64,
    /// Tokens sent to language models.
    pub input_tokens: u64,
    /// Tokens received.
    pub output_tokens: u64,
    /// Their cost.
    pub money: Money,
    /// Attempts of which a crash hid what they used. They count with the most that they may have.
    pub interrupted: u64,
    /// The tokens that they count with, beside the others.
    pub interrupted_tokens: u64,
    /// The money that they count with, beside the other.
    pub interrupted_money: Money,
}
