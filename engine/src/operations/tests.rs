//! Tests over all declared operations: the audit entries of each, and its refusals.

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use heddle_api::content::{Body as _, JSON, whole};
use heddle_api::operation::Entry;
use heddle_api::problem::ErrorKind;
use heddle_api::{Audit, Input, Role, Visit};
use heddle_schemas::audit::{Means, Who};
use heddle_schemas::config::Config;
use reqwest::Client;
use serde_json::{Map, Value, json};

use super::{Caller, Handler, Operations, Rights};
use crate::service::Service;

const ACTOR: &str = "Zo\u{eb}";
const REASON: &str = "ticket 17";
const CONTACT: &str = "00000000000000000000000000000007";

/// Sample call that an operation answers with its status: parameters, body, and the tenant of its audit log.
struct Sample {
    path: Value,
    query: Value,
    body: Value,
    chain: Option<&'static str>,
}

fn sample(name: &str) -> Sample {
    let none = || json!({});
    let acme = || json!({ "tenant": "acme" });
    let contact = || json!({ "contact": CONTACT });
    let account = json!({ "tenant": "acme", "channel": "whatsapp", "account": "1001" });
    let mut conversation = account.clone();
    conversation["contact"] = json!(CONTACT);
    let audience = || json!({ "tenant": "acme", "audience": "newsletter" });
    let of_acme = |path: Value, query: Value, body: Value| Sample { path, query, body, chain: Some("acme") };
    let of_none = |path: Value, query: Value, body: Value| Sample { path, query, body, chain: None };
    match name {
        "ApplyTenant" | "CompareTenant" => of_acme(acme(), none(), tenant("acme", "1001")),
        "DeleteTenant" => of_none(acme(), none(), Value::Null),
        "EnterConsent" => of_acme(acme(), contact(), json!({ "says": "stop", "purposes": ["marketing"] })),
        "CorrectContact" => of_acme(acme(), contact(), json!({ "name": "Ann" })),
        "RestrictContact" => of_acme(acme(), contact(), json!({ "restricted": true })),
        "HandleConversation" => of_acme(conversation, none(), json!({ "by": "human" })),
        "SendMessage" => {
            let content = json!({ "type": "template", "name": "hello", "language": "en" });
            let body = json!({
                "contact": "+16505551234",
                "content": content,
                "purpose": "utility",
                "idempotency_key": "order-1",
            });
            of_acme(acme(), none(), body)
        }
        "AddDocument" => {
            let document = json!({ "id": "faq", "title": "FAQ", "format": "text", "text": "Nine to five." });
            of_acme(acme(), none(), document)
        }
        "AddFile" => of_acme(acme(), json!({ "id": "faq.txt" }), json!("Nine to five.")),
        "ImportAudience" => of_acme(audience(), none(), json!("phone\n+4915112345678\n")),
        "RemoveDocument" => of_acme(acme(), json!({ "id": "faq" }), Value::Null),
        "SearchDocuments" => of_acme(acme(), none(), json!({ "query": "hours" })),
        "RotateKeys" => of_none(none(), none(), json!({})),
        "ShowLetter" => of_none(json!({ "id": "0-7" }), none(), Value::Null),
        "ReplayLetters" => of_none(none(), none(), json!({ "ids": ["0-7"] })),
        "Prove" | "ListAuditLog" | "VerifyAuditLog" | "ResumeAuditLog" => {
            of_acme(none(), acme(), Value::Null)
        }
        name => described(name),
    }
}

/// Returns a call without a body, with the parameters that the description requires.
fn described(name: &str) -> Sample {
    let entry = heddle_api::table().into_iter().find(|entry| entry.name == name).unwrap();
    let method = entry.method.as_str().to_lowercase();
    let operation = &heddle_api::openapi::describe()["paths"][entry.path][method];
    assert_eq!(operation["requestBody"], Value::Null, "{name} has a body: add a sample here");
    let value = |name: &str| match name {
        "tenant" => "acme",
        "channel" => "whatsapp",
        "account" => "1001",
        "contact" | "erasure" => CONTACT,
        "audience" => "newsletter",
        name => panic!("{name} has no value: add one here"),
    };
    let parameters = |place: &str| -> Map<String, Value> {
        let all = operation["parameters"].as_array().into_iter().flatten();
        let of_place = all.filter(|one| one["in"] == place && one["required"] == true);
        let names = of_place.filter_map(|one| one["name"].as_str());
        names.map(|name| (name.to_owned(), json!(value(name)))).collect()
    };
    let chain = entry.path.starts_with("/v1/tenants/{tenant}").then_some("acme");
    Sample { path: parameters("path").into(), query: parameters("query").into(), body: Value::Null, chain }
}

/// Operations that answer a sample with 404, since it names something that does not exist.
const MISSING: [&str; 3] = ["ShowDeletion", "ShowErasure", "ShowLetter"];

fn tenant(id: &str, account: &str) -> Value {
    json!({ "id": id, "name": id, "channels": [{ "kind": "whatsapp", "account": account,
        "api_base": "http://127.0.0.1:9", "access_token": "t0ken", "app_secret": "s", "verify_token": "v" }] })
}

struct Site {
    service: Service,
    client: Client,
    url: String,
    _folder: tempfile::TempDir,
}

impl Site {
    /// Starts a serving node with two tenants.
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config { data_dir: folder.path().join("data"), ..Config::default() };
        config.http.listen = "127.0.0.1:0".parse().unwrap();
        config.security.private_addresses = heddle_schemas::network::Networks::loopback();
        let service = Service::start(config).await.unwrap();
        let url = format!("http://{}", service.admin_address);
        let token = format!("Bearer {}", service.admin_token.expose()).parse().unwrap();
        let headers = [(reqwest::header::AUTHORIZATION, token)].into_iter().collect();
        let client = Client::builder().default_headers(headers).build().unwrap();
        let site = Self { service, client, url, _folder: folder };
        for (id, account) in [("acme", "1001"), ("globex", "2002")] {
            let put = site.client.put(format!("{}/v1/tenants/{id}", site.url)).json(&tenant(id, account));
            assert_eq!(put.send().await.unwrap().status(), 200);
        }
        site
    }

    /// Calls an operation as its sample says, and reads the answer to its end.
    async fn call(&self, entry: &Entry) -> (u16, String) {
        let Sample { path, query, body, .. } = sample(entry.name);
        let mut address = format!("{}{}", self.url, entry.path);
        for (name, value) in path.as_object().into_iter().flatten() {
            address = address.replace(&format!("{{{name}}}"), value.as_str().unwrap());
        }
        let method = reqwest::Method::from_bytes(entry.method.as_str().as_bytes()).unwrap();
        let mut request = self.client.request(method, address).query(&query);
        request = request.header("Heddle-Actor", ACTOR.as_bytes()).header("Heddle-Reason", REASON);
        request = match body {
            Value::Null => request,
            Value::String(text) => request.header("content-type", "text/plain").body(text),
            body => request.json(&body),
        };
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    async fn entries(&self, tenant: Option<&str>) -> Vec<Value> {
        let query: Vec<_> = tenant.map(|tenant| ("tenant", tenant)).into_iter().collect();
        let asked = self.client.get(format!("{}/v1/audit/log", self.url)).query(&query).send().await.unwrap();
        asked.json::<Value>().await.unwrap()["items"].as_array().unwrap().clone()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_leaves_the_entries_that_it_declares_in_its_callers_name() {
    let site = Site::start().await;
    let mut table = heddle_api::table();
    // Acme has no account after the one, and does not exist after the other.
    table.sort_by_key(|entry| match entry.name {
        "DeleteTenant" => 2,
        "DisconnectChannel" => 1,
        _ => 0,
    });
    for entry in &table {
        let chain = sample(entry.name).chain;
        let before = site.entries(chain).await.len();
        let (status, answer) = site.call(entry).await;
        let expected = if MISSING.contains(&entry.name) { 404 } else { entry.status };
        assert_eq!(status, expected, "{}: {answer}", entry.name);
        let entries = site.entries(chain).await.split_off(before);
        let of_caller = entries
            .iter()
            .take_while(|entry| entry["who"]["name"] == ACTOR && entry["why"] == REASON)
            .filter(|entry| entry["who"]["means"] == "token")
            .count();
        let least = match entry.audit {
            Audit::Never => 0,
            Audit::Before | Audit::Within | Audit::Opened => 1,
            Audit::Around => 2,
        };
        assert!(of_caller >= least, "{}: {entries:?}", entry.name);
        if entry.audit == Audit::Never {
            assert!(entries.is_empty(), "{}: {entries:?}", entry.name);
        }
    }
    assert!(site.service.stop().await);
}

/// Caller of each operation's sample, who has all rights in Globex and none in Acme.
struct Intruder {
    operations: Operations,
    caller: Caller,
    calls: Vec<BoxFuture<'static, (&'static str, Option<ErrorKind>)>>,
}

impl<O: Handler> Visit<O> for Intruder {
    fn visit(&mut self) {
        let (operations, caller) = (self.operations.clone(), self.caller.clone());
        self.calls.push(Box::pin(async move {
            let Sample { path, query, body, .. } = sample(O::NAME);
            let path = serde_json::from_value(path).unwrap();
            let query = serde_json::from_value(query).unwrap();
            let body = O::Body::read(Some(JSON), whole(body.to_string().into())).await.unwrap();
            let called = operations.call(&caller, Input::<O> { path, query, body }).await;
            (O::NAME, called.err().map(|error| error.kind))
        }));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_refuses_the_owner_of_another_tenant() {
    let site = Site::start().await;
    let operations = site.service.node.administration().await.unwrap();
    let globex = "globex".parse().unwrap();
    let who = Who { name: None, means: Means::Token, address: None };
    let rights = Rights::Tenants(BTreeMap::from([(globex, Role::Owner)]));
    let caller = Caller { who, why: None, rights };
    let mut intruder = Intruder { operations, caller, calls: Vec::new() };
    heddle_api::each(&mut intruder);
    let before = (site.entries(Some("acme")).await.len(), site.entries(None).await.len());
    let mut refused = Map::new();
    for call in intruder.calls {
        let (name, kind) = call.await;
        assert_eq!(kind, Some(ErrorKind::Denied), "{name}");
        refused.insert(name.to_owned(), Value::Null);
    }
    assert_eq!(refused.len(), heddle_api::table().len());
    let after = (site.entries(Some("acme")).await.len(), site.entries(None).await.len());
    assert_eq!(before, after, "nothing was begun");
    assert!(site.service.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_log_of_a_deleted_or_unknown_tenant_does_not_go_on() {
    let site = Site::start().await;
    let resume = async |tenant: &str| {
        let address = format!("{}/v1/audit/log/resumption?tenant={tenant}", site.url);
        site.client.post(address).send().await.unwrap().status().as_u16()
    };
    assert_eq!(resume("acme").await, 200);
    assert_eq!(resume("nobody").await, 404);
    let deleted = site.client.delete(format!("{}/v1/tenants/acme", site.url)).send().await.unwrap();
    assert_eq!(deleted.status(), 202);
    assert_eq!(resume("acme").await, 409);
    assert!(!site.entries(Some("acme")).await.is_empty(), "existing entries are still read");
    assert!(site.service.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_note_that_is_too_long_is_refused_whatever_is_asked() {
    let site = Site::start().await;
    for (name, length, status) in
        [("Heddle-Reason", 256, 200), ("Heddle-Reason", 257, 400), ("Heddle-Actor", 257, 400)]
    {
        let asked = site.client.get(format!("{}/v1/tenants", site.url)).header(name, "a".repeat(length));
        assert_eq!(asked.send().await.unwrap().status(), status, "{name} of {length}");
    }
    assert!(site.service.stop().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_accepted_once_under_its_key_and_refused_with_the_reason() {
    let site = Site::start().await;
    let template = json!({ "type": "template", "name": "hello", "language": "en" });
    let request = |key: &str, contact: &str, content: &Value| json!({ "contact": contact, "content": content, "purpose": "marketing", "idempotency_key": key });
    let send = async |body: Value| {
        let post = site.client.post(format!("{}/v1/tenants/acme/messages", site.url)).json(&body);
        let answer = post.send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let (status, first) = send(request("order-1", "+16505551234", &template)).await;
    assert_eq!(status, 202, "{first}");
    assert_eq!(send(request("order-1", "+16505551234", &template)).await, (202, first.clone()));
    let refusals = [
        (request("order-1", "+16505550000", &template), 409, "idempotency_key_reused"),
        (request("order-2", "+16505551234", &json!({ "type": "text", "body": "hi" })), 409, "window_over"),
        (request("order-3", "+16505551234", &json!({ "type": "text", "body": "" })), 422, "invalid_content"),
        (request("order-4", "00000000000000000000000000000007", &template), 409, "no_conversation"),
        (request("", "+16505551234", &template), 422, "invalid_message"),
    ];
    for (body, status, code) in refusals {
        let (found, problem) = send(body).await;
        assert_eq!((found, problem["code"].as_str()), (status, Some(code)), "{problem}");
    }
    let stop = site.client.post(format!("{}/v1/tenants/acme/contacts/consent", site.url));
    let stop = stop.query(&[("contact", "+16505551234")]);
    let stop = stop.json(&json!({ "says": "stop", "purposes": ["marketing"] })).send().await.unwrap();
    assert_eq!(stop.status(), 200);
    let (status, problem) = send(request("order-5", "+16505551234", &template)).await;
    assert_eq!((status, problem["code"].as_str()), (409, Some("opted_out")));
    assert_eq!(
        send(request("order-1", "+16505551234", &template)).await,
        (202, first),
        "it was accepted before"
    );
    assert!(site.service.stop().await);
}
