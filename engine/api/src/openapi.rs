//! OpenAPI description of the operations: derived from their declarations, its schemas from their types.

use heddle_schemas::audit::Note;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::content::{Body as _, Output as _};
use crate::operation::{Entry, Operation, Parameters, Scope, Visit};
use crate::problem::{self, Problem};
use crate::schema::Bounds;

/// Refusals that any operation may answer with.
const REFUSALS: [(&str, &str); 10] = [
    ("400", "The path, the query, a header or the JSON does not match its description."),
    ("401", "The bearer token is missing or wrong."),
    ("403", "The caller may not do this."),
    ("404", "Something that the request names does not exist."),
    ("408", "The body did not arrive in time."),
    ("409", "The current state does not permit it."),
    ("413", "The body is too large."),
    ("415", "The body's media type is not supported."),
    ("422", "The body does not match its schema (code `malformed`), or its content is not valid."),
    ("503", "A store does not answer; retry later."),
];

/// Returns the description in OpenAPI 3.1 (<https://spec.openapis.org/oas/v3.1.1.html>).
#[must_use]
pub fn describe() -> Value {
    // OpenAPI 3.1 uses plain JSON Schema; shared schemas are under components.
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut description = Description { schemas: settings.into_generator(), paths: Map::new() };
    crate::each(&mut description);
    let Description { mut schemas, paths } = description;
    let problem = schemas.subschema_for::<Problem>();
    let refusal = |description: &str| json!({ "description": description, "content": { problem::MEDIA_TYPE: { "schema": problem } } });
    let mut refusals: Map<_, _> =
        REFUSALS.iter().map(|(status, text)| (format!("Refused{status}"), refusal(text))).collect();
    refusals.insert("Refused".into(), refusal("The fault, and how to mend it (RFC 9457)."));
    let mut schemas = schemas.take_definitions(true);
    for schema in schemas.values_mut() {
        bounded(schema);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Heddle admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "parameters": {
                "Actor": header("Heddle-Actor", "Name of the calling person or program, for the audit log."),
                "Reason": header("Heddle-Reason", "Reason of the call, for the audit log."),
            },
            "responses": refusals,
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
        "security": [{ "token": [] }, {}],
    })
}

struct Description {
    schemas: SchemaGenerator,
    paths: Map<String, Value>,
}

impl<O: Operation> Visit<O> for Description {
    fn visit(&mut self) {
        let entry = Entry::of::<O>();
        let mut parameters = parameters::<O::Path>("path", &mut self.schemas);
        parameters.extend(parameters_of_query::<O>(&mut self.schemas));
        parameters.extend(
            ["Actor", "Reason"].map(|name| json!({ "$ref": format!("#/components/parameters/{name}") })),
        );
        let mut operation = json!({
            "operationId": entry.name,
            "summary": entry.summary,
            "parameters": parameters,
            "responses": responses::<O>(&mut self.schemas),
            "x-heddle-scope": scope(entry.scope),
            "x-heddle-role": format!("{:?}", entry.role).to_lowercase(),
        });
        if let Some(body) = O::Body::describe(&mut self.schemas) {
            operation["requestBody"] = body;
        }
        let path = self.paths.entry(entry.path).or_insert_with(|| json!({}));
        path[entry.method.as_str().to_lowercase()] = operation;
    }
}

fn scope(scope: Scope) -> &'static str {
    match scope {
        Scope::Installation => "installation",
        Scope::Tenant => "tenant",
        Scope::Named => "named",
    }
}

fn responses<O: Operation>(schemas: &mut SchemaGenerator) -> Value {
    let mut done = json!({ "description": "Done." });
    if O::STATUS == 202 {
        done["description"] = json!("Accepted; in force once the backlog before it is processed.");
    }
    if let Some((media_type, schema)) = O::Output::describe(schemas) {
        done["content"] = json!({ media_type: { "schema": schema } });
    }
    let mut responses = Map::from_iter([(O::STATUS.to_string(), done)]);
    for (status, _) in REFUSALS {
        responses.insert(status.into(), json!({ "$ref": format!("#/components/responses/Refused{status}") }));
    }
    responses.insert("default".into(), json!({ "$ref": "#/components/responses/Refused" }));
    responses.into()
}

fn parameters_of_query<O: Operation>(schemas: &mut SchemaGenerator) -> Vec<Value> {
    parameters::<O::Query>("query", schemas)
}

/// Returns the fields of a type as parameters.
fn parameters<P: Parameters>(place: &str, schemas: &mut SchemaGenerator) -> Vec<Value> {
    let schema = P::json_schema(schemas);
    let fields = schema.get("properties").and_then(Value::as_object);
    let required = schema.get("required").and_then(Value::as_array);
    let parameter = |(name, schema): (&String, &Value)| {
        let required = place == "path" || required.is_some_and(|all| all.iter().any(|field| field == name));
        let mut schema = schema.clone();
        let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
        bounded(&mut schema);
        without_null(&mut schema);
        let mut parameter = json!({ "name": name, "in": place, "required": required, "schema": schema });
        if let Some(description) = description {
            parameter["description"] = description;
        }
        parameter
    };
    fields.into_iter().flatten().map(parameter).collect()
}

/// Removes null from a schema: a query omits a parameter that has no value.
fn without_null(schema: &mut Value) {
    if let Some(types) = schema.get_mut("type")
        && let Some(only) = types.as_array().and_then(|types| types.iter().find(|kind| *kind != "null"))
    {
        *types = only.clone();
    }
    let any = schema.get("anyOf").and_then(Value::as_array).cloned().unwrap_or_default();
    if let [one, null] = &any[..]
        && null == &json!({ "type": "null" })
        && let Some(fields) = schema.as_object_mut()
    {
        fields.remove("anyOf");
        fields.extend(one.as_object().cloned().unwrap_or_default());
    }
}

fn bounded(schema: &mut Value) {
    if let Ok(as_schema) = <&mut schemars::Schema>::try_from(&mut *schema) {
        schemars::transform::Transform::transform(&mut Bounds, as_schema);
    }
}

fn header(name: &str, description: &str) -> Value {
    let description = format!("{description} UTF-8 or Latin-1, no phone numbers.");
    let schema = Note::header_schema();
    json!({ "name": name, "in": "header", "required": false, "description": description, "schema": schema })
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

    #[test]
    fn every_parameter_of_a_path_is_described() {
        let description = describe();
        for (path, methods) in description["paths"].as_object().unwrap() {
            for operation in methods.as_object().unwrap().values() {
                let parameters = operation["parameters"].as_array().unwrap();
                let described = parameters.iter().filter(|parameter| parameter["in"] == "path");
                assert_eq!(described.count(), path.matches('{').count(), "{path}");
            }
        }
    }
}
