//! Stand-in for a faulty node: it accepts tenants and webhooks as a node does, and loses, doubles or swaps replies as
//! configured, so that the expected counts of the load are known.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use heddle_api::proof;
use heddle_schemas::sealed::Secret;
use reqwest::Client;
use serde_json::{Value, json};

use crate::serving::site::ADMIN_TOKEN;

/// Fault applied to the replies of a webhook, in order; the n-th message of all has number n, from 0.
pub(crate) type Wrong = fn(Vec<(usize, Value)>) -> Vec<Value>;

struct StandIn {
    wrong: Wrong,
    client: Client,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// By account: where to call, with which token.
    accounts: HashMap<String, (String, String)>,
    document: String,
    messages: usize,
}

/// Starts it; returns its address.
pub(crate) async fn start(wrong: Wrong) -> String {
    let state = Arc::new(StandIn { wrong, client: Client::new(), known: Mutex::default() });
    let app = Router::new()
        .route("/healthz", get(health))
        .route("/v1/tenants/{tenant}", put(apply))
        .route("/v1/tenants/{tenant}/documents", post(add))
        .route("/webhooks/whatsapp/{account}", post(webhook))
        .with_state(state);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, app).into_future());
    format!("http://{address}")
}

async fn health(headers: HeaderMap) -> ([(&'static str, String); 1], &'static str) {
    let challenge = headers[proof::CHALLENGE].to_str().unwrap();
    let answer = proof::answer(&Secret::new(ADMIN_TOKEN), challenge).unwrap();
    ([(proof::PROOF, answer)], "ok")
}

async fn apply(State(this): State<Arc<StandIn>>, Json(tenant): Json<Value>) -> Json<Value> {
    let channel = &tenant["channels"][0];
    let text = |field: &str| channel[field].as_str().unwrap().to_owned();
    let access = (text("api_base"), text("access_token"));
    this.known.lock().unwrap().accounts.insert(text("account"), access);
    Json(tenant)
}

async fn add(State(this): State<Arc<StandIn>>, Json(document): Json<Value>) -> Json<Value> {
    this.known.lock().unwrap().document = document["text"].as_str().unwrap().to_owned();
    Json(json!({ "id": "x", "title": "x", "format": "markdown", "bytes": 1, "passages": 1 }))
}

async fn webhook(State(this): State<Arc<StandIn>>, Path(account): Path<String>, Json(body): Json<Value>) {
    let (replies, (base, token)) = {
        let mut known = this.known.lock().unwrap();
        let asked = body["entry"][0]["changes"][0]["value"]["messages"].as_array().unwrap();
        let mut replies = Vec::new();
        for message in asked {
            let question = message["text"]["body"].as_str().unwrap();
            let thing = question.rsplit(' ').next().unwrap().trim_end_matches('?');
            let answer =
                known.document.lines().find(|line| line.starts_with(&format!("The {thing} "))).unwrap();
            let reply = json!({ "messaging_product": "whatsapp", "to": message["from"], "type": "text",
                "text": { "body": answer } });
            replies.push((known.messages, reply));
            known.messages += 1;
        }
        ((this.wrong)(replies), known.accounts[&account].clone())
    };
    // The replies of a body leave one after the other, after its 200.
    tokio::spawn(async move {
        for reply in replies {
            let call =
                this.client.post(format!("{base}/{account}/messages")).bearer_auth(&token).json(&reply);
            assert_eq!(call.send().await.unwrap().status(), 200);
        }
    });
}
