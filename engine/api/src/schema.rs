//! Bounds of integers in JSON schemas: the range of the field's Rust type.

use schemars::Schema;
use schemars::transform::{Transform, transform_subschemas};
use serde_json::{Value, json};

/// Writes the bounds of integer formats into every schema.
#[derive(Debug, Clone)]
pub(crate) struct Bounds;

impl Transform for Bounds {
    fn transform(&mut self, schema: &mut Schema) {
        transform_subschemas(self, schema);
        let bounds = match schema.get("format").and_then(Value::as_str) {
            Some("uint64" | "uint") => (json!(0), json!(u64::MAX)),
            Some("uint32") => (json!(0), json!(u32::MAX)),
            Some("int64") => (json!(i64::MIN), json!(i64::MAX)),
            _ => return,
        };
        let schema = schema.ensure_object();
        schema.entry("minimum").or_insert(bounds.0);
        schema.entry("maximum").or_insert(bounds.1);
    }
}
