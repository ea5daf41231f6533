//! Usage of a tenant in a month.

use std::collections::BTreeMap;

use heddle_schemas::money::Money;
use heddle_schemas::zone::{Date, Month};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Usage of a tenant in one month of its time zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    /// The month.
    pub month: Month,
    /// The quota; without money where money has no limit.
    pub quota: Resources,
    /// Resources spent of the quota.
    pub spent: Resources,
    /// Resources that nodes have reserved in addition, for upcoming turns.
    pub set_aside: Resources,
    /// Messages that count as spent though their outcome is unknown, because their node died.
    pub lost_messages: u64,
    /// Total of the month.
    pub total: Day,
    /// Usage by date.
    pub days: BTreeMap<Date, Day>,
}

/// Amount of each resource.
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
    /// Turns decided.
    pub turns: u64,
    /// Messages decided in those turns.
    pub messages: u64,
    /// Tokens sent to language models.
    pub input_tokens: u64,
    /// Tokens received.
    pub output_tokens: u64,
    /// Their cost.
    pub money: Money,
    /// Attempts whose usage is unknown after a crash. They count with the maximum that they may have used.
    pub interrupted: u64,
    /// Tokens counted for those attempts, in addition to the others.
    pub interrupted_tokens: u64,
    /// Money counted for those attempts, in addition to the other.
    pub interrupted_money: Money,
}
