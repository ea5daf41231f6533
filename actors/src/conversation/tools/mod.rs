//! Tools of the agent: a file a tool.
//!
//! A responder calls a tool by its name, with arguments that it derived from a customer's text. So a tool trusts none
//! of them, does only what the tenant's configuration allows, and states in words what it did not do. Its result is
//! JSON that the responder reads; a fault of the arguments is such a result too.
//!
//! The calls of a turn are in its journal ([`journal`]) before the first is made, and their results after; an owner
//! that finds calls without results makes them again under the same ids, so each effect outside has an id that makes it
//! happen once.

mod appointments;
mod hand_over;
pub mod journal;
mod opening_hours;
mod payment_link;

use std::fmt::Display;
use std::sync::Arc;

use async_trait::async_trait;
use heddle_schemas::id::{ConversationId, TurnId};
use heddle_schemas::ports::keys::KeysError;
use heddle_schemas::ports::responder::{Tool, ToolCall};
use heddle_schemas::ports::state::StoreError;
use heddle_schemas::tenant::Tenant;
use heddle_schemas::time::Timestamp;
use serde_json::{Value, json};

use crate::partition::commit::read;
use crate::ports::Ports;

/// Bytes of a result at most: it is sent to the responder, and counts there.
const MAX_RESULT: usize = 4_096;

/// Context of a tool call.
pub struct At<'a> {
    /// Ports that it may use.
    pub ports: &'a Ports,
    /// Tenant of the conversation.
    pub tenant: &'a Arc<Tenant>,
    /// Conversation of the call.
    pub conversation: &'a ConversationId,
    /// Turn of the call.
    pub turn: TurnId,
    /// Step of the turn and call of the step: the same again after a crash.
    pub place: (u8, u8),
    /// Name of the customer, where known.
    pub name: Option<&'a str>,
    /// When.
    pub now: Timestamp,
    /// Appointments that the contact may still book.
    pub bookings_left: usize,
}

/// Tool of the agent.
#[async_trait]
trait AgentTool: Send + Sync {
    /// Returns the tool as offered to the responder; `None` where the tenant has not configured it.
    fn offered(&self, tenant: &Tenant, now: Timestamp) -> Option<Tool>;

    /// Does it.
    async fn call(&self, at: &At<'_>, arguments: &Value) -> Result<Value, KeysError>;
}

const TOOLS: [&dyn AgentTool; 5] = [
    &hand_over::HandOver,
    &payment_link::PaymentLink,
    &opening_hours::OpeningHours,
    &appointments::Find,
    &appointments::Book,
];

/// The tools that a tenant's agent may call.
#[must_use]
pub fn offered(tenant: &Tenant, now: Timestamp) -> Vec<Tool> {
    TOOLS.iter().filter_map(|tool| tool.offered(tenant, now)).collect()
}

/// Calls a tool. A failure is a result that says so.
///
/// # Errors
/// When the store of keys is closed, or returns an error that a retry does not fix.
pub async fn call(at: &At<'_>, call: &ToolCall) -> Result<Value, StoreError> {
    let found = TOOLS
        .iter()
        .find(|tool| tool.offered(at.tenant, at.now).is_some_and(|offered| offered.name == call.name));
    let Some(tool) = found else { return Ok(failed("there is no such tool")) };
    let result = read(&at.ports.metrics, || async {
        match tool.call(at, &call.arguments).await.map_err(KeysError::passing) {
            Err(Ok(error)) => Err(error),
            Err(Err(error)) => Ok(failed(error)),
            Ok(result) => Ok(result),
        }
    });
    let result = result.await?;
    at.ports.metrics.tool_called(call_name(tool, at), result.get("error").is_none());
    let is_short = serde_json::to_vec(&result).is_ok_and(|bytes| bytes.len() <= MAX_RESULT);
    Ok(if is_short { result } else { failed("the result is too long; ask for less") })
}

fn call_name(tool: &&dyn AgentTool, at: &At<'_>) -> &'static str {
    tool.offered(at.tenant, at.now).map_or("none", |offered| offered.name)
}

/// Returns the end of the appointment that a call has booked.
#[must_use]
pub fn booked(tenant: &Tenant, call: &ToolCall, result: &Value) -> Option<Timestamp> {
    (call.name == appointments::BOOK).then(|| appointments::until(tenant, result)).flatten()
}

/// Returns true when a call hands the conversation over to a human.
#[must_use]
pub fn hands_over(call: &ToolCall, result: &Value) -> bool {
    call.name == hand_over::NAME && result.get("error").is_none()
}

/// Returns a result that says what was not done, and what to do.
fn failed(why: impl Display) -> Value {
    json!({ "error": why.to_string() })
}

/// Returns a text argument.
fn text<'a>(arguments: &'a Value, name: &str) -> Option<&'a str> {
    arguments.get(name)?.as_str().map(str::trim).filter(|text| !text.is_empty())
}
