//! `/v1/openapi.json`: the admin API's description, its schemas generated from the types it speaks.

use axum::Json;
use heddle_schemas::audit::Entry;
use heddle_schemas::audit::chain::Verdict;
use heddle_schemas::erasure::Erasure;
use heddle_schemas::ports::knowledge::{Document, DocumentSummary, Passage};
use heddle_schemas::promise::Proofs;
use heddle_schemas::removal::Removal;
use heddle_schemas::tenant::Tenant;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::admin::{Chain, Entries, Handles, List, OfContact, OfMonth, OfTenant, Search, Uploaded};
use super::problem::Problem;
use super::rights::Restriction;
use crate::consents::{ConsentEntry, Consents};
use crate::dead_letters::{Filters, Letter, LetterId, Page, Replay, Replayed};
use crate::rotation::{KeysStatus, Rotate, Rotated};
use crate::usage::Usage;

/// Answers with the description.
pub(super) async fn document() -> Json<Value> {
    Json(describe())
}

/// The description, OpenAPI 3.1 (<https://spec.openapis.org/oas/v3.1.1.html>).
#[must_use]
pub fn describe() -> Value {
    // 3.1 takes JSON Schema as it is; its shared schemas stand under components.
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut schemas = settings.into_generator();
    let tenant_path =
        json!([{ "name": "tenant", "in": "path", "required": true, "schema": { "type": "string" } }]);
    let conversation_path = ["tenant", "channel", "account", "contact"]
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }));
    let channel_path = ["tenant", "channel", "account"]
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }));
    let erasure_path = ["tenant", "erasure"]
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }));
    let mut paths = json!({
        "/v1/tenants": {
            "get": operation("Every tenant, by id; secrets read [redacted].", None, &answer::<List<Tenant>>(&mut schemas, "200"), &mut schemas),
        },
        "/v1/tenants/{tenant}": {
            "parameters": tenant_path,
            "get": operation("One tenant; secrets read [redacted].", None, &answer::<Tenant>(&mut schemas, "200"), &mut schemas),
            "put": operation("Makes a configuration the tenant's own. Secrets are literals here.", Some(body::<Tenant>(&mut schemas)), &answer::<Tenant>(&mut schemas, "200"), &mut schemas),
            "delete": operation("Deletes the tenant: it stops and its key is destroyed at once, its rows follow. Asking twice does no harm; its id is not given out again.", None, &answer::<Removal>(&mut schemas, "202"), &mut schemas),
        },
        "/v1/tenants/{tenant}/export": {
            "parameters": tenant_path,
            "get": operation("All that is kept of the tenant, opened, without secrets, a line of JSON for each thing, as it is read. Cut off, it broke off.", None, &json!({ "200": { "description": "begun", "content": { "application/x-ndjson": { "schema": { "type": "string" } } } } }), &mut schemas),
        },
        "/v1/deletions": {
            "get": operation("Every deletion of a tenant, by id.", None, &answer::<List<Removal>>(&mut schemas, "200"), &mut schemas),
        },
        "/v1/deletions/{tenant}": {
            "parameters": tenant_path,
            "get": operation("How far the deletion of a tenant has come; complete, it is the receipt.", None, &answer::<Removal>(&mut schemas, "200"), &mut schemas),
        },
        "/v1/tenants/{tenant}/channels/{channel}/{account}": {
            "parameters": channel_path,
            "delete": operation("Disconnects a channel account: its credentials are erased, its webhooks refused, what waits to be sent by it is withheld. Asking twice does no harm.", None, &answer::<Tenant>(&mut schemas, "200"), &mut schemas),
        },
        "/v1/tenants/{tenant}/usage": {
            "parameters": tenant_path,
            "get": with_parameters(
                operation("What the tenant has used in a month.", None, &answer::<Usage>(&mut schemas, "200"), &mut schemas),
                query::<OfMonth>(&mut schemas),
            ),
        },
        "/v1/tenants/{tenant}/conversations/{channel}/{account}/{contact}/handling": {
            "parameters": conversation_path,
            "put": operation("Says who answers in a conversation from now on: the agent, or a human.", Some(body::<Handles>(&mut schemas)), &json!({ "202": { "description": "taken; in force after what the conversation received before" } }), &mut schemas),
        },
        "/v1/tenants/{tenant}/contacts/consent": {
            "parameters": tenant_path,
            "get": with_parameters(
                operation("What a contact has consented to and opted out of, with the evidence.", None, &answer::<Consents>(&mut schemas, "200"), &mut schemas),
                query::<OfContact>(&mut schemas),
            ),
            "post": with_parameters(
                operation("Enters a consent or an opt-out. What was said last holds.", Some(body::<ConsentEntry>(&mut schemas)), &answer::<Consents>(&mut schemas, "200"), &mut schemas),
                query::<OfContact>(&mut schemas),
            ),
        },
        "/v1/tenants/{tenant}/documents": {
            "parameters": tenant_path,
            "get": operation("The tenant's documents, by id.", None, &answer::<List<DocumentSummary>>(&mut schemas, "200"), &mut schemas),
            "post": operation("Keeps a document, replacing the one of the same id.", Some(body::<Document>(&mut schemas)), &answer::<DocumentSummary>(&mut schemas, "200"), &mut schemas),
            "delete": with_parameters(
                operation("Removes a document.", None, &json!({ "204": { "description": "removed" } }), &mut schemas),
                json!([{ "name": "id", "in": "query", "required": true, "schema": { "type": "string" } }]),
            ),
        },
        "/v1/tenants/{tenant}/documents/file": {
            "parameters": tenant_path,
            "post": with_parameters(
                operation("Keeps what a file says: text, Markdown, HTML, PDF or DOCX; replaces the document of the same id.", Some(files()), &answer::<DocumentSummary>(&mut schemas, "200"), &mut schemas),
                query::<Uploaded>(&mut schemas),
            ),
        },
        "/v1/tenants/{tenant}/search": {
            "parameters": tenant_path,
            "post": operation("The passages that match best, the best first.", Some(body::<Search>(&mut schemas)), &answer::<List<Passage>>(&mut schemas, "200"), &mut schemas),
        },
        "/v1/tenants/{tenant}/contacts/export": {
            "parameters": tenant_path,
            "get": with_parameters(
                operation("All that is kept of a contact, opened: its conversations, what was said in them, how far messages have come, which tools were called, its consents and erasures, and who did what with it. It is sent as it is read; cut off, it broke off.", None, &json!({ "200": { "description": "begun", "content": { "application/json": { "schema": { "type": "object" } } } } }), &mut schemas),
                query::<OfContact>(&mut schemas),
            ),
        },
        "/v1/tenants/{tenant}/contacts/forget": {
            "parameters": tenant_path,
            "post": with_parameters(
                operation("Has a contact forgotten: its key is destroyed, its rows are removed. Asking twice does no harm.", None, &answer::<Erasure>(&mut schemas, "202"), &mut schemas),
                query::<OfContact>(&mut schemas),
            ),
        },
        "/v1/tenants/{tenant}/contacts/restriction": {
            "parameters": tenant_path,
            "put": with_parameters(
                operation("Has what is kept of a contact stored and not used, or used again. Asking twice does no harm.", Some(body::<Restriction>(&mut schemas)), &answer::<Consents>(&mut schemas, "202"), &mut schemas),
                query::<OfContact>(&mut schemas),
            ),
        },
        "/v1/tenants/{tenant}/erasures": {
            "parameters": tenant_path,
            "get": operation("Every erasure of the tenant's contacts, the newest last.", None, &answer::<List<Erasure>>(&mut schemas, "200"), &mut schemas),
        },
        "/v1/tenants/{tenant}/erasures/{erasure}": {
            "parameters": erasure_path,
            "get": operation("How far an erasure has come; complete, it is the receipt.", None, &answer::<Erasure>(&mut schemas, "200"), &mut schemas),
        },
        "/v1/keys": {
            "get": operation("Which master keys wrap the keys of how many tenants.", None, &answer::<KeysStatus>(&mut schemas, "200"), &mut schemas),
        },
        "/v1/keys/rotate": {
            "post": operation("Wraps the keys of a page of tenants by the present master key. Doing it twice does no harm.", Some(body::<Rotate>(&mut schemas)), &answer::<Rotated>(&mut schemas, "200"), &mut schemas),
        },
        "/v1/dlq": {
            "get": with_parameters(
                operation("What could not be processed, in the order of the ids.", None, &answer::<Page>(&mut schemas, "200"), &mut schemas),
                query::<Filters>(&mut schemas),
            ),
        },
        "/v1/dlq/{id}": {
            "parameters": [{ "name": "id", "in": "path", "required": true, "schema": schemas.subschema_for::<LetterId>() }],
            "get": operation("One letter; of its original what may be shown, sealed parts left sealed.", None, &answer::<Letter>(&mut schemas, "200"), &mut schemas),
        },
        "/v1/dlq/replay": {
            "post": operation("Puts originals back on their way, through the same checks as a first delivery. Doing it twice does no harm.", Some(body::<Replay>(&mut schemas)), &answer::<Replayed>(&mut schemas, "200"), &mut schemas),
        },
        "/v1/audit": {
            "get": with_parameters(
                operation("Whether everything holds that a tenant is promised, promise by promise; without a tenant, what is no tenant's. It reads all that is stored, and takes as long.", None, &answer::<Proofs>(&mut schemas, "200"), &mut schemas),
                query::<OfTenant>(&mut schemas),
            ),
        },
        "/v1/audit/log": {
            "get": with_parameters(
                operation("The audit log: who did what, when and why, in order.", None, &answer::<List<Entry>>(&mut schemas, "200"), &mut schemas),
                query::<Entries>(&mut schemas),
            ),
        },
        "/v1/audit/log/verification": {
            "get": with_parameters(
                operation("Whether an audit log is as it was written, and where it is not.", None, &answer::<Verdict>(&mut schemas, "200"), &mut schemas),
                query::<Chain>(&mut schemas),
            ),
        },
        "/v1/audit/log/resumption": {
            "post": with_parameters(
                operation("Begins an audit log anew behind a break that keeps it from going on; the break shows for ever.", None, &answer::<Entry>(&mut schemas, "200"), &mut schemas),
                query::<OfTenant>(&mut schemas),
            ),
        },
    });
    for path in paths.as_object_mut().into_iter().flat_map(|paths| paths.values_mut()) {
        for method in ["put", "post", "delete"] {
            path.get_mut(method).into_iter().for_each(say_who);
        }
    }
    // Looking at a letter is written down too.
    paths.pointer_mut("/~1v1~1dlq~1{id}/get").into_iter().for_each(say_who);
    paths.pointer_mut("/~1v1~1tenants~1{tenant}~1contacts~1export/get").into_iter().for_each(say_who);
    paths.pointer_mut("/~1v1~1tenants~1{tenant}~1export/get").into_iter().for_each(say_who);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Heddle admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": schemas.take_definitions(true),
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
        "security": [{ "token": [] }, {}],
    })
}

/// What changes something is in the audit log, under what the request says of itself.
fn say_who(operation: &mut Value) {
    let header = |name: &str, description: &str| {
        let schema = json!({ "type": "string", "maxLength": 256 });
        json!({ "name": name, "in": "header", "required": false, "description": description, "schema": schema })
    };
    let headers = [
        header("Heddle-Actor", "Who asks, for the audit log. No phone numbers."),
        header("Heddle-Reason", "Why, for the audit log. No phone numbers."),
    ];
    match operation["parameters"].as_array_mut() {
        Some(parameters) => parameters.extend(headers),
        None => operation["parameters"] = json!(headers),
    }
}

fn content<T: schemars::JsonSchema>(schemas: &mut SchemaGenerator, kind: &str) -> Value {
    let schema = schemas.subschema_for::<T>();
    json!({ kind: { "schema": schema } })
}

fn body<T: schemars::JsonSchema>(schemas: &mut SchemaGenerator) -> Value {
    json!({ "required": true, "content": content::<T>(schemas, "application/json") })
}

/// A body of bytes, in any of the formats that are read.
fn files() -> Value {
    let types = [
        "text/plain",
        "text/markdown",
        "text/html",
        "application/pdf",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "application/octet-stream",
    ];
    let content: serde_json::Map<_, _> = types.map(|kind| (kind.to_owned(), json!({}))).into_iter().collect();
    json!({ "required": true, "content": content })
}

fn answer<T: schemars::JsonSchema>(schemas: &mut SchemaGenerator, status: &str) -> Value {
    json!({ status: { "description": "done", "content": content::<T>(schemas, "application/json") } })
}

fn operation(summary: &str, body: Option<Value>, answers: &Value, schemas: &mut SchemaGenerator) -> Value {
    let mut responses = answers.clone();
    responses["default"] = json!({
        "description": "what is wrong, and what to do (RFC 9457)",
        "content": content::<Problem>(schemas, "application/problem+json"),
    });
    let mut operation = json!({ "summary": summary, "responses": responses });
    if let Some(body) = body {
        operation["requestBody"] = body;
    }
    operation
}

/// The fields of a type as parameters of a query.
fn query<T: schemars::JsonSchema>(schemas: &mut SchemaGenerator) -> Value {
    let schema = schemas.root_schema_for::<T>();
    let fields = schema.get("properties").and_then(Value::as_object);
    let required = schema.get("required").and_then(Value::as_array);
    let parameters = fields.into_iter().flatten().map(|(name, schema)| {
        let required = required.is_some_and(|required| required.iter().any(|field| field == name));
        let mut schema = schema.clone();
        let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
        json!({ "name": name, "in": "query", "required": required, "description": description, "schema": schema })
    });
    parameters.collect()
}

fn with_parameters(mut operation: Value, parameters: Value) -> Value {
    operation["parameters"] = parameters;
    operation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_leads_somewhere() {
        let description = describe();
        let mut open = vec![&description];
        let mut references = 0;
        while let Some(value) = open.pop() {
            if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
                let pointer = reference.strip_prefix('#').expect("a reference within the document");
                assert!(description.pointer(pointer).is_some(), "{reference}");
                references += 1;
            }
            match value {
                Value::Object(fields) => open.extend(fields.values()),
                Value::Array(items) => open.extend(items),
                _ => {}
            }
        }
        assert!(references > 5);
    }
}
