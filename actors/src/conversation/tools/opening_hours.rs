//! Says when the tenant is open.

use async_trait::async_trait;
use heddle_schemas::ports::keys::KeysError;
use heddle_schemas::ports::responder::Tool;
use heddle_schemas::tenant::Tenant;
use heddle_schemas::time::Timestamp;
use serde_json::{Value, json};

use super::{AgentTool, At, failed, text};

/// The tool.
pub(super) struct OpeningHours;

#[async_trait]
impl AgentTool for OpeningHours {
    fn offered(&self, tenant: &Tenant, _: Timestamp) -> Option<Tool> {
        tenant.hours.are_set().then(|| Tool {
            name: "opening_hours",
            description: "Says whether the business is open now, when it opens next, and when it is open on a date."
                .into(),
            parameters: json!({
                "type": "object",
                "properties": { "date": { "type": "string", "description": "Such as 2026-01-31; none for now." } },
                "required": [],
            }),
        })
    }

    async fn call(&self, at: &At<'_>, arguments: &Value) -> Result<Value, KeysError> {
        let (hours, now) = (&at.tenant.hours, at.now);
        let zone = &hours.time_zone;
        let Some(date) = text(arguments, "date") else {
            let next = hours.next_opening(now).map(|at| zone.text(at));
            return Ok(json!({ "now": zone.text(now), "open_now": hours.is_open(now), "opens_next": next }));
        };
        let Ok(date) = date.parse() else { return Ok(failed("date is to be written as 2026-01-31")) };
        let open = hours.of(date).into_iter();
        let open: Vec<_> =
            open.map(|open| json!({ "from": zone.text(open.from), "to": zone.text(open.to) })).collect();
        Ok(json!({ "date": date, "open": open }))
    }
}
