//! Tool that hands the conversation over to a human: the agent sends nothing in it until it is given back.

use async_trait::async_trait;
use heddle_schemas::ports::keys::KeysError;
use heddle_schemas::ports::responder::Tool;
use heddle_schemas::tenant::Tenant;
use heddle_schemas::time::Timestamp;
use serde_json::{Value, json};

use super::{AgentTool, At};

/// Name of the tool.
pub(super) const NAME: &str = "hand_over";

/// Tool. The conversation itself performs the handover, with the turn's decision.
pub(super) struct HandOver;

#[async_trait]
impl AgentTool for HandOver {
    fn offered(&self, tenant: &Tenant, _: Timestamp) -> Option<Tool> {
        tenant.tools.hand_over.then(|| Tool {
            name: NAME,
            description:
                "Hands the conversation over to a human colleague. Call it when the customer asks for a \
                          human, complains, or needs what you must not or cannot do."
                    .into(),
            parameters: json!({ "type": "object", "properties": {}, "required": [] }),
        })
    }

    async fn call(&self, _: &At<'_>, _: &Value) -> Result<Value, KeysError> {
        Ok(json!({ "handed_over": true }))
    }
}
