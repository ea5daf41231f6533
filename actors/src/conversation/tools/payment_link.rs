//! Tool that offers a payment link out of the tenant's configuration, never one from a text.

use async_trait::async_trait;
use heddle_schemas::ports::keys::KeysError;
use heddle_schemas::ports::responder::Tool;
use heddle_schemas::tenant::Tenant;
use heddle_schemas::time::Timestamp;
use serde_json::{Value, json};

use super::{AgentTool, At, failed, text};

/// The tool.
pub(super) struct PaymentLink;

#[async_trait]
impl AgentTool for PaymentLink {
    fn offered(&self, tenant: &Tenant, _: Timestamp) -> Option<Tool> {
        let links = &tenant.tools.payments;
        let listed: Vec<_> =
            links.iter().map(|link| format!("{}: {}", link.name, link.description)).collect();
        (!links.is_empty()).then(|| Tool {
            name: "payment_link",
            description: format!(
                "Gives the address where the customer can pay, to be repeated in the answer unchanged. What there is \
                 to pay for: {}",
                listed.join("; ")
            ),
            parameters: json!({
                "type": "object",
                "properties": {
                    "name": { "type": "string", "enum": links.iter().map(|link| &link.name).collect::<Vec<_>>() },
                },
                "required": ["name"],
            }),
        })
    }

    async fn call(&self, at: &At<'_>, arguments: &Value) -> Result<Value, KeysError> {
        let name = text(arguments, "name").unwrap_or_default();
        let link = at.tenant.tools.payments.iter().find(|link| link.name == name);
        Ok(link.map_or_else(
            || failed("there is nothing of this name to pay for"),
            |link| json!({ "url": link.url }),
        ))
    }
}
