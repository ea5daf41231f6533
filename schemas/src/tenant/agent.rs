//! Agent of a tenant: how it answers, its tools and its loop guard.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::NOT_BLANK;
use crate::time::human;

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

/// Limits of one contact where a model answers, an hour and at once; 0 is no limit. Each channel account counts its
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
