//! Two tenants on one node, alike in everything but what they keep: neither reaches what is the other's.
//!
//! Both have a contact of the same number, a document of the same id and a message of the same id. Each way to what is
//! kept is tried with the one's ids by the other: every call of the admin API that names a tenant, as its own
//! description lists them, the webhooks, and the ports behind them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::{Json, Router, routing::post};
use heddle_connectors::clock::SystemClock;
use heddle_engine::http::openapi;
use heddle_schemas::id::{ContactId, TenantId};
use heddle_schemas::ports::clock::Clock as _;
use heddle_schemas::ports::keys::{Cipher, KeysError, Missing};
use heddle_schemas::ports::state::Walk;
use heddle_schemas::sealed::Secret;
use heddle_schemas::table::{Key, Table};
use heddle_schemas::topic::Topic;
use heddle_simulator::graph::{self, GraphApi};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::serving::channels::{records, until};
use crate::serving::conversations::{said, taken, text};
use crate::serving::site::Site;

const ANN: &str = "15551234";
/// Word that occurs in all of Acme's data, and in no other.
const WORD: &str = "zinnia";

/// Two tenants, of which each has said something to Ann.
async fn two() -> (Site, GraphApi) {
    two_with(&json!({})).await
}

async fn two_with(llm: &Value) -> (Site, GraphApi) {
    let numbers = ["1001", "2002"].map(|account| (account.parse().unwrap(), Secret::new("t0ken")));
    let options = graph::Options { numbers: numbers.into(), ..graph::Options::default() };
    let graph = GraphApi::start(options, Arc::new(SystemClock)).await.unwrap();
    let site = Site::start(|_| ()).await;
    for (id, account, secret, word) in
        [("acme", "1001", "s3cret", WORD), ("globex", "2002", "0ther", "gladiolus")]
    {
        let tenant = json!({ "id": id, "name": word, "llm": llm, "agent": { "settle": "0ms", "fallback": word },
            "channels": [{ "kind": "whatsapp", "account": account, "api_base": graph.api_base(),
                "access_token": "t0ken", "app_secret": secret, "verify_token": "ver1fy" }] });
        assert_eq!(ask(&site, Method::PUT, &format!("/v1/tenants/{id}"), Some(tenant)).await.status(), 200);
        let document = json!({ "id": "faq", "title": word, "format": "markdown", "text": format!("# Colour\n\nThe colour is {word}.") });
        let documents = format!("/v1/tenants/{id}/documents");
        assert_eq!(ask(&site, Method::POST, &documents, Some(document)).await.status(), 200);
        let body = said(account, ANN, "wamid.1", text(&format!("which colour is {word}")));
        assert_eq!(site.post(account, secret, body).send().await.unwrap().status(), 200);
    }
    let own = json!({ "id": "acme-only", "title": WORD, "format": "text", "text": WORD });
    assert_eq!(ask(&site, Method::POST, "/v1/tenants/acme/documents", Some(own)).await.status(), 200);
    taken(&graph, ANN, 2).await;
    settled(&site).await;
    (site, graph)
}

/// A provider that keeps what it is asked.
async fn asked(State(all): State<Arc<Mutex<Vec<String>>>>, body: String) -> Json<Value> {
    all.lock().unwrap().push(body);
    Json(json!({ "choices": [{ "message": { "role": "assistant", "content": "As you like." } }],
        "usage": { "prompt_tokens": 30, "completion_tokens": 7 } }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_provider_is_asked_for_one_tenant_holds_nothing_of_the_other() {
    let all = Arc::<Mutex<Vec<String>>>::default();
    let router = Router::new().route("/v1/chat/completions", post(asked)).with_state(all.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    // One provider, one key and one model for both.
    let llm = json!({ "provider": "openai", "model": "small", "api_key": "sk-one",
        "api_base": format!("http://{}/v1", listener.local_addr().unwrap()) });
    tokio::spawn(async move { axum::serve(listener, router).await });
    let (site, graph) = two_with(&llm).await;
    for (account, secret) in [("1001", "s3cret"), ("2002", "0ther"), ("1001", "s3cret"), ("2002", "0ther")] {
        let before = graph.taken_for(ANN).len();
        let body = said(account, ANN, &format!("wamid.more{before}"), text("which colour"));
        assert_eq!(site.post(account, secret, body).send().await.unwrap().status(), 200);
        taken(&graph, ANN, before + 1).await;
    }
    let asked = all.lock().unwrap().clone();
    let of = |word: &str| asked.iter().filter(|asked| asked.contains(word)).count();
    assert_eq!((asked.len(), of(WORD), of("gladiolus")), (6, 3, 3), "{asked:?}");
    assert!(!asked.iter().any(|asked| asked.contains(WORD) && asked.contains("gladiolus")));
}

async fn settled(site: &Site) {
    until("the end of all work", async || {
        let node = &site.service.node;
        let left = node.unsettled(Topic::Inbound).await + node.unsettled(Topic::Outbound).await;
        (left == 0 && site.sum("heddle_agenda_window_entries").await == 0.0).then_some(())
    })
    .await;
}

async fn ask(site: &Site, method: Method, path: &str, body: Option<Value>) -> Response {
    let mut request = site.client.request(method, format!("{}{path}", site.url));
    if let Some(body) = body {
        request = request.json(&body);
    }
    request.send().await.unwrap()
}

async fn shown(site: &Site, path: &str) -> Value {
    let mut shown: Value = ask(site, Method::GET, path, None).await.json().await.unwrap();
    // When it was read, and that it was.
    if let Some(fields) = shown.as_object_mut() {
        fields.remove("at");
        fields.remove("audit");
    }
    shown
}

/// Everything of Acme's that can be seen.
async fn picture(site: &Site) -> Vec<Value> {
    let mut picture = Vec::new();
    for path in ["", "/usage", "/documents", "/erasures"] {
        picture.push(shown(site, &format!("/v1/tenants/acme{path}")).await);
    }
    for path in ["contacts/export", "contacts/consent"] {
        picture.push(shown(site, &format!("/v1/tenants/acme/{path}?contact=whatsapp:{ANN}")).await);
    }
    picture
}

async fn contact(site: &Site, tenant: &str) -> String {
    let path = format!("/v1/tenants/{tenant}/contacts/export?contact=whatsapp:{ANN}");
    shown(site, &path).await["contact"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_of_the_admin_api_reaches_another_tenants_data() {
    let (site, _graph) = two().await;
    let hers = contact(&site, "acme").await;
    assert_ne!(hers, contact(&site, "globex").await, "one number, two contacts");
    // An erasure of Acme's, of somebody else.
    let forget = "/v1/tenants/acme/contacts/forget?contact=00000000000000000000000000000001";
    let erasure: Value = ask(&site, Method::POST, forget, None).await.json().await.unwrap();
    let erasure = erasure["id"].as_str().unwrap().to_owned();
    until("the erasure", async || {
        let receipt = shown(&site, &format!("/v1/tenants/acme/erasures/{erasure}")).await;
        receipt["completed_at"].is_number().then_some(())
    })
    .await;
    let before = picture(&site).await;
    assert!(before[4].to_string().contains(WORD), "{}", before[4]);

    let description = openapi::describe();
    let mut cases = 0;
    for (path, methods) in description["paths"].as_object().unwrap() {
        if !path.contains("{tenant}") {
            continue;
        }
        for method in ["get", "put", "post", "delete"] {
            if methods.get(method).is_none() {
                continue;
            }
            let of_her = format!("?contact={hers}");
            let taken = json!({ "id": "globex", "name": "G", "channels": [{ "kind": "whatsapp", "account": "1001",
                "access_token": "a", "app_secret": "b", "verify_token": "c" }] });
            let document = json!({ "id": "faq", "title": "t", "format": "text", "text": "another" });
            let consent = json!({ "says": "stop", "purposes": ["marketing"], "how": "operator" });
            let message = json!({ "contact": hers, "purpose": "utility", "idempotency_key": "k1",
                "content": { "type": "text", "body": "hello" } });
            // What is asked with Acme's ids by Globex's path, and what that may answer.
            let (query, body, answers): (&str, Option<Value>, &[u16]) = match (path.as_str(), method) {
                ("/v1/tenants/{tenant}", "get") => ("", None, &[200]),
                ("/v1/tenants/{tenant}", "put") => ("", Some(taken), &[409]),
                ("/v1/tenants/{tenant}/changes", "post") => ("", Some(taken), &[200]),
                // Last of all: there is no Globex after it.
                ("/v1/tenants/{tenant}", "delete") => continue,
                ("/v1/tenants/{tenant}/export", "get") => ("", None, &[200]),
                ("/v1/deletions/{tenant}", "get") => ("", None, &[404]),
                ("/v1/tenants/{tenant}/channels/{channel}/{account}", "delete") => ("", None, &[404]),
                ("/v1/tenants/{tenant}/usage", "get") => ("", None, &[200]),
                ("/v1/tenants/{tenant}/conversations/{channel}/{account}/{contact}/handling", "put") => {
                    ("", Some(json!({ "by": "human" })), &[404])
                }
                ("/v1/tenants/{tenant}/contacts/consent", "get") => (&of_her, None, &[200]),
                ("/v1/tenants/{tenant}/contacts/consent", "post") => (&of_her, Some(consent), &[200]),
                ("/v1/tenants/{tenant}/contacts/correction", "put") => {
                    (&of_her, Some(json!({ "name": "Eve" })), &[202])
                }
                ("/v1/tenants/{tenant}/contacts/conversations", "get") => (&of_her, None, &[200]),
                ("/v1/tenants/{tenant}/contacts/export", "get") => (&of_her, None, &[200]),
                ("/v1/tenants/{tenant}/contacts/forget", "post") => (&of_her, None, &[202]),
                ("/v1/tenants/{tenant}/contacts/restriction", "put") => {
                    (&of_her, Some(json!({ "restricted": true })), &[202])
                }
                ("/v1/tenants/{tenant}/documents", "get") => ("", None, &[200]),
                ("/v1/tenants/{tenant}/documents", "post") => ("", Some(document), &[200]),
                ("/v1/tenants/{tenant}/documents", "delete") => ("?id=acme-only", None, &[404]),
                ("/v1/tenants/{tenant}/documents/file", "post") => ("?id=faq.txt", Some(json!("x")), &[200]),
                ("/v1/tenants/{tenant}/search", "post") => ("", Some(json!({ "query": WORD })), &[200]),
                ("/v1/tenants/{tenant}/erasures", "get") => ("", None, &[200]),
                ("/v1/tenants/{tenant}/erasures/{erasure}", "get") => ("", None, &[404]),
                ("/v1/tenants/{tenant}/audiences", "get") => ("", None, &[200]),
                ("/v1/tenants/{tenant}/audiences/{audience}/import", "post") => {
                    ("", Some(json!("x")), &[422])
                }
                (path, "get" | "delete") if path.starts_with("/v1/tenants/{tenant}/audiences/{audience}") => {
                    ("", None, &[404])
                }
                ("/v1/tenants/{tenant}/messages", "post") => ("", Some(message.clone()), &[409]),
                (path, method) => {
                    panic!("{method} {path} names a tenant: say here what it may answer to another")
                }
            };
            let named = path
                .replace("{tenant}", "globex")
                .replace("{channel}", "whatsapp")
                .replace("{account}", "1001")
                .replace("{contact}", &hers)
                .replace("{audience}", "newsletter")
                .replace("{erasure}", &erasure);
            let verb = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let answer = ask(&site, verb, &format!("{named}{query}"), body).await;
            let status = answer.status().as_u16();
            let answered = answer.text().await.unwrap();
            assert!(answers.contains(&status), "{method} {path}: {status} {answered}");
            assert!(!answered.contains(WORD), "{method} {path} leaks Acme's data: {answered}");
            cases += 1;
        }
    }
    assert!(cases >= 18, "{cases}");
    // What was asked for under Globex's name is done, and has changed nothing of Acme's.
    settled(&site).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(picture(&site).await, before);
    // The restriction began an empty conversation of Globex's.
    let own = shown(&site, &format!("/v1/tenants/globex/contacts/export?contact={hers}")).await;
    assert_eq!(own["conversations"].as_array().unwrap().len(), 1);
    assert_eq!(own["conversations"][0]["address"], json!({}));
    assert!(!own.to_string().contains("\"by\":\"customer\""), "{own}");
    assert_eq!(ask(&site, Method::DELETE, "/v1/tenants/globex", None).await.status(), 202);
    settled(&site).await;
    assert_eq!(picture(&site).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_tenant_signs_or_spends_is_never_the_others() {
    let (site, graph) = two().await;
    let before = picture(&site).await;
    // To Acme's address, signed by Globex; and to Globex's own, about Acme's account.
    let stolen = |body: &str| said("1001", ANN, "wamid.2", text(body));
    assert_eq!(site.post("1001", "0ther", stolen("hello")).send().await.unwrap().status(), 401);
    let mac_of_globex = site.post("2002", "0ther", stolen("hello")).send().await.unwrap();
    assert_eq!(
        mac_of_globex.status(),
        200,
        "events of unknown accounts are dropped, or the provider would retry them"
    );
    settled(&site).await;
    assert_eq!(picture(&site).await, before);
    // What Globex spends is in its own account only.
    let body = said("2002", ANN, "wamid.3", text("which colour is gladiolus"));
    assert_eq!(site.post("2002", "0ther", body).send().await.unwrap().status(), 200);
    let replies = taken(&graph, ANN, 3).await;
    settled(&site).await;
    assert_eq!(picture(&site).await, before);
    let usage = shown(&site, "/v1/tenants/globex/usage").await;
    assert_eq!(usage["total"]["messages"], 2, "{usage}");
    let answered = format!("{:?}", replies.last().unwrap());
    assert!(answered.contains("gladiolus") && !answered.contains(WORD), "{answered}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_port_gives_one_tenant_what_is_the_others() {
    let (site, _graph) = two().await;
    let ports = &site.service.node.ports;
    let (acme, globex): (TenantId, TenantId) = ("acme".parse().unwrap(), "globex".parse().unwrap());

    // Keys: under the same name, in the same place, nothing of the one opens for the other.
    let contact = ContactId::from_bytes([7; 16]);
    let account = |tenant: &TenantId| format!("{tenant}/whatsapp/3003").parse().unwrap();
    let all = async |tenant: &TenantId| -> Vec<Arc<dyn Cipher>> {
        let today = SystemClock.now().day();
        vec![
            ports.keys.tenant(tenant).await.unwrap(),
            ports.keys.log(tenant, today).await.unwrap(),
            ports.keys.contact(tenant, contact, Missing::Create).await.unwrap(),
            ports.keys.channel(&account(tenant), Missing::Create).await.unwrap(),
        ]
    };
    let (hers, theirs) = (all(&acme).await, all(&globex).await);
    for (one, sealing) in hers.iter().enumerate() {
        let sealed = sealing.seal(b"place", WORD.as_bytes());
        for (other, opening) in hers.iter().chain(&theirs).enumerate() {
            let opened = opening.open(b"place", &sealed);
            match one == other {
                true => assert_eq!(opened.unwrap(), WORD.as_bytes()),
                false => {
                    assert!(matches!(opened, Err(KeysError::Unreadable { .. })), "{sealing:?} {opening:?}")
                }
            }
        }
    }

    // State: a walk over the one's rows shows no row of the other, and a row of the same name is another row.
    let tables: Vec<_> = Table::ALL.into_iter().filter(|table| *table != Table::Agenda).collect();
    let rows = async |tenant: &TenantId| {
        let mut walk =
            Walk { tables: tables.clone(), tenant: Some(tenant.clone()), after: None, limit: 1_000 };
        let mut rows = Vec::new();
        loop {
            let page = ports.state.walk(&walk).await.unwrap();
            let goes_on = walk.go_on(&page);
            rows.extend(page.rows);
            if !goes_on {
                return rows;
            }
        }
    };
    let (hers, theirs) = (rows(&acme).await, rows(&globex).await);
    assert!(hers.len() > 10 && theirs.len() > 10, "{} {}", hers.len(), theirs.len());
    assert!(theirs.iter().all(|row| row.key.tenant() == "globex"));
    let open = |bytes: &[u8]| bytes.windows(WORD.len()).any(|part| part == WORD.as_bytes());
    assert!(!hers.iter().chain(&theirs).any(|row| open(&row.value)), "and none shows what is in it");
    let (one, other) = (Key::document(&acme, "faq"), Key::document(&globex, "faq"));
    let before = ports.state.get(&one).await.unwrap();
    assert!(before.is_some() && before != ports.state.get(&other).await.unwrap());
    let found = ports.state.get(&other).await.unwrap();
    ports.state.compare_and_set(&other, found, None, None).await.unwrap();
    assert_eq!(ports.state.get(&one).await.unwrap(), before);

    // The log: no record of the one is keyed by the other, and none shows what is in it.
    for topic in [Topic::Inbound, Topic::Outbound, Topic::Events] {
        assert!(
            !records(&site, topic).await.iter().any(|record| record.to_string().contains(WORD)),
            "{topic}"
        );
    }

    // Knowledge: also after the indexes are opened anew.
    let search = async |site: &Site, tenant: &TenantId| {
        let passages = site.service.node.ports.knowledge.search(tenant, "colour zinnia gladiolus", 10).await;
        format!("{:?}", passages.unwrap())
    };
    assert!(search(&site, &acme).await.contains(WORD));
    assert!(!search(&site, &globex).await.contains(WORD));
    let (service, folder) = site.into_parts();
    service.stop().await;
    let service = crate::serving::channels::start(&folder).await;
    let search = async |tenant: &TenantId| {
        let passages = service.node.ports.knowledge.search(tenant, "colour zinnia gladiolus", 10).await;
        format!("{:?}", passages.unwrap())
    };
    assert!(search(&acme).await.contains(WORD) && !search(&globex).await.contains(WORD));
    service.stop().await;
}
