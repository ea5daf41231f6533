//! A tenant whose answers come from a language model, through a serving node.

use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::{Json, Router, routing::post};
use heddle_connectors::clock::SystemClock;
use heddle_schemas::sealed::Secret;
use heddle_simulator::graph::{self, GraphApi};
use serde_json::{Value, json};

use crate::serving::conversations::{said, taken, text};
use crate::serving::site::Site;

const FALLBACK: &str = "A colleague will get back to you.";

/// A provider that answers with what it was asked last, under one key.
#[derive(Default)]
struct Model(Mutex<Vec<Value>>);

async fn complete(
    State(this): State<Arc<Model>>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> (StatusCode, Json<Value>) {
    if headers["authorization"] != "Bearer sk-right" {
        return (StatusCode::UNAUTHORIZED, Json(json!({ "error": { "code": "invalid_api_key" } })));
    }
    let asked = body["messages"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap().to_owned();
    this.0.lock().unwrap().push(body);
    let answer = json!({ "choices": [{ "message": { "role": "assistant", "content": format!("You said: {asked}") } }],
        "usage": { "prompt_tokens": 30, "completion_tokens": 7 } });
    (StatusCode::OK, Json(answer))
}

async fn apply(site: &Site, graph: &GraphApi, base: &str, key: &str) {
    let tenant = json!({
        "id": "acme", "name": "Acme", "agent": { "settle": "50ms", "fallback": FALLBACK },
        "channels": [{ "kind": "whatsapp", "account": "1001", "api_base": graph.api_base(),
            "access_token": "t0ken", "app_secret": "s3cret", "verify_token": "ver1fy" }],
        "llm": { "provider": "openai", "model": "small", "api_base": base, "api_key": key },
    });
    let put = site.client.put(format!("{}/v1/tenants/acme", site.url)).json(&tenant).send().await.unwrap();
    assert_eq!(put.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_answers_knows_what_was_said_and_never_sees_a_number() {
    let model = Arc::<Model>::default();
    let router = Router::new().route("/v1/chat/completions", post(complete)).with_state(model.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let numbers = [("1001".parse().unwrap(), Secret::new("t0ken"))].into();
    let options = graph::Options { numbers, ..graph::Options::default() };
    let graph = GraphApi::start(options, Arc::new(SystemClock)).await.unwrap();
    let site = Site::start(|_| ()).await;
    apply(&site, &graph, &base, "sk-right").await;
    let shown = site.client.get(format!("{}/v1/tenants/acme", site.url)).send().await.unwrap();
    assert!(!shown.text().await.unwrap().contains("sk-right"));

    let send = async |id: &str, body: &str| {
        let body = said("1001", "15551234", id, text(body));
        assert_eq!(site.post("1001", "s3cret", body).send().await.unwrap().status(), 200);
    };
    send("wamid.1", "I am Ann, at 0301234567").await;
    let first = taken(&graph, "15551234", 1).await;
    assert_eq!(first[0].text, "You said: I am Ann, at 0301234567");
    send("wamid.2", "And now?").await;
    assert_eq!(taken(&graph, "15551234", 2).await[1].text, "You said: And now?");
    let asked = model.0.lock().unwrap().clone();
    let roles: Vec<_> =
        asked[1]["messages"].as_array().unwrap().iter().map(|one| one["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "user"]);
    let all = serde_json::to_string(&asked).unwrap();
    for personal in ["Ann", "0301234567", "15551234"] {
        assert!(!all.contains(personal), "{personal} was shown");
    }

    // A key that is not taken any more: the customer hears the fallback.
    apply(&site, &graph, &base, "sk-wrong").await;
    send("wamid.3", "Still there?").await;
    assert_eq!(taken(&graph, "15551234", 3).await[2].text, FALLBACK);
    assert!(site.service.stop().await);
}
