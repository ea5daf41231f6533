//! Language models over HTTP, against a stand-in for their providers on loopback.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response, Uri};
use heddle_connectors::clock::SystemClock;
use heddle_connectors::responders::Llm;
use heddle_connectors::responders::llm::Options;
use heddle_memory::{MemoryDisk, MemoryStore};
use heddle_schemas::id::{MessageKey, TurnId};
use heddle_schemas::ports::clock::Clock as _;
use heddle_schemas::ports::knowledge::Passage;
use heddle_schemas::ports::responder::{
    Answer, Outgoing, Question, Responder as _, ResponderError, Said, Speaker,
};
use heddle_schemas::tenant::Tenant;
use heddle_schemas::time::Timestamp;
use serde_json::{Value, json};

/// Scripted behaviour of the stand-in for one call.
enum Does {
    Answers(u16, Value),
    Limits(&'static str),
    Hangs,
    BreaksOff,
}

/// A call that came.
#[derive(Debug, Clone)]
struct Call {
    path: String,
    headers: HeaderMap,
    body: Value,
}

#[derive(Default)]
struct StandIn {
    script: Mutex<VecDeque<Does>>,
    calls: Mutex<Vec<Call>>,
}

async fn called(
    State(this): State<Arc<StandIn>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let body = serde_json::from_slice(&body).unwrap();
    this.calls.lock().unwrap().push(Call { path: uri.path().into(), headers, body });
    let does = this.script.lock().unwrap().pop_front();
    let response = Response::builder();
    match does.unwrap_or_else(|| Does::Answers(200, completion("yes"))) {
        Does::Answers(status, body) => response.status(status).body(Body::from(body.to_string())).unwrap(),
        Does::Limits(seconds) => {
            response.status(429).header("retry-after", seconds).body(Body::empty()).unwrap()
        }
        Does::Hangs => std::future::pending().await,
        Does::BreaksOff => {
            let chunks =
                [Ok(Bytes::from_static(b"{\"choices\":[{\"mess")), Err(std::io::Error::other("broken"))];
            response.body(Body::from_stream(futures::stream::iter(chunks))).unwrap()
        }
    }
}

fn completion(text: &str) -> Value {
    json!({ "choices": [{ "message": { "role": "assistant", "content": text }, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25 } })
}

impl StandIn {
    async fn start(script: impl IntoIterator<Item = Does>) -> (Arc<Self>, String) {
        let this = Arc::new(Self { script: Mutex::new(script.into_iter().collect()), ..Self::default() });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}/v1", listener.local_addr().unwrap());
        let router = Router::new().fallback(called).with_state(this.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (this, base)
    }

    fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }
}

/// Calls models at these addresses in turn; `more` is the rest of the tenant's LLM section.
fn question(models: &[(&str, &str)], more: &str) -> Question {
    let model = |(provider, base): &(&str, &str)| {
        format!(
            "provider = \"{provider}\"\nmodel = \"small\"\napi_base = \"{base}\"\napi_key = \"sk-{provider}\"\n"
        )
    };
    let mut text = format!("id = \"acme\"\nname = \"Acme\"\n[llm]\n{}{more}", model(&models[0]));
    for one in &models[1..] {
        text += &format!("[[llm.fallbacks]]\n{}", model(one));
    }
    Question {
        at: Timestamp::EPOCH,
        tools: Vec::new(),
        steps: Vec::new(),
        outgoing: Outgoing::default(),
        other_names: Vec::new(),
        tenant: Arc::new(Tenant::from_toml(&text).unwrap()),
        turn: TurnId(MessageKey::from_bytes([1; 16])),
        attempt: 1,
        messages: vec!["I am Ann. Call me at +49 151 12345678?".into()],
        history: vec![Said { by: Speaker::Agent, text: "Hello Ann Example".into() }],
        passages: vec![Passage {
            document: "faq.md".into(),
            title: "FAQ".into(),
            headings: Vec::new(),
            text: "We call back within a day.".into(),
            score: 1.0,
        }],
        name: Some("Ann Example".into()),
    }
}

fn llm() -> Llm {
    node(&store(), "a/1")
}

fn store() -> Arc<MemoryStore> {
    Arc::new(MemoryStore::open(MemoryDisk::new(NonZeroU32::MIN), Arc::new(SystemClock)))
}

/// A node of those that share a store.
fn node(store: &Arc<MemoryStore>, name: &str) -> Llm {
    let options = Options {
        timeout: Duration::from_millis(500),
        egress: heddle_connectors::egress::Egress::with_loopback(),
        ..Options::default()
    };
    Llm::new(&options, store.clone(), Arc::new(SystemClock), name.to_owned()).unwrap()
}

async fn ask(models: &[(&str, &str)]) -> Result<Answer, ResponderError> {
    llm().answer(question(models, "")).await
}

fn text(answer: Result<Answer, ResponderError>) -> String {
    answer.unwrap().text.unwrap()
}

#[tokio::test]
async fn a_chat_is_completed_and_nothing_personal_leaves() {
    let (provider, base) =
        StandIn::start([Does::Answers(200, completion("We call [PHONE_2], [NAME_3]."))]).await;
    let answer = llm().answer(question(&[("openai", &base)], "")).await.unwrap();
    let [call] = &provider.calls()[..] else { panic!() };
    assert_eq!(call.path, "/v1/chat/completions");
    assert_eq!(call.headers["authorization"], "Bearer sk-openai");
    assert_eq!((call.body["model"].as_str(), call.body["max_tokens"].as_u64()), (Some("small"), Some(500)));
    let roles: Vec<_> =
        call.body["messages"].as_array().unwrap().iter().map(|one| one["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "assistant", "user"]);
    assert!(call.body["messages"][0]["content"].as_str().unwrap().contains("We call back within a day."));
    let sent = call.body.to_string();
    assert!(!sent.contains("Ann") && !sent.contains("12345678"), "{sent}");
    assert_eq!(call.body["messages"][2]["content"], "I am [NAME_3]. Call me at [PHONE_2]?");
    assert_eq!((answer.usage.input_tokens, answer.usage.output_tokens), (20, 5));
    assert_eq!(answer.sources, ["faq.md"]);
    assert_eq!(answer.text.as_deref(), Some("We call +49 151 12345678, Ann."));
}

#[tokio::test]
async fn a_tenant_may_allow_that_everything_is_sent() {
    let (provider, base) = StandIn::start([]).await;
    llm().answer(question(&[("deepseek", &base)], "personal_data = \"sent\"\n")).await.unwrap();
    assert!(provider.calls()[0].body.to_string().contains("+49 151 12345678"));
}

#[tokio::test]
async fn gemini_is_called_with_its_own_api() {
    let said = json!({ "candidates": [{ "content": { "role": "model", "parts": [{ "text": "Gladly." }] } }],
        "usageMetadata": { "promptTokenCount": 7, "candidatesTokenCount": 2 } });
    let (provider, base) = StandIn::start([Does::Answers(200, said)]).await;
    assert_eq!(text(ask(&[("gemini", &base)]).await), "Gladly.");
    let [call] = &provider.calls()[..] else { panic!() };
    assert_eq!(call.path, "/v1/models/small:generateContent");
    assert_eq!(call.headers["x-goog-api-key"], "sk-gemini");
    assert_eq!(call.body["contents"][0]["role"], "model");
    assert_eq!(call.body["generationConfig"]["maxOutputTokens"], 500);
}

#[tokio::test]
async fn a_model_that_knows_no_answer_gives_none() {
    let (_provider, base) = StandIn::start([Does::Answers(200, completion(" NO_ANSWER\n"))]).await;
    let answer = ask(&[("openai", &base)]).await.unwrap();
    assert_eq!((answer.text, answer.usage.input_tokens), (None, 20));
}

#[tokio::test]
async fn a_limit_is_reported_with_its_time_or_another_model_answers() {
    let (_provider, base) = StandIn::start([Does::Limits("7")]).await;
    let Err(ResponderError::Busy { retry_after, detail, .. }) = ask(&[("openai", &base)]).await else {
        panic!()
    };
    assert_eq!((retry_after, detail.as_str()), (Some(Duration::from_secs(7)), "openai: busy"));
    let (limited, base) = StandIn::start([Does::Limits("7")]).await;
    let (other, second) = StandIn::start([]).await;
    assert_eq!(text(ask(&[("openai", &base), ("deepseek", &second)]).await), "yes");
    assert_eq!((limited.calls().len(), other.calls().len()), (1, 1));
}

#[tokio::test]
async fn a_key_that_is_closed_for_long_is_not_waited_for() {
    let (provider, base) = StandIn::start([Does::Limits("3600")]).await;
    let (other, second) = StandIn::start([]).await;
    let (llm, models) = (llm(), [("openai", base.as_str()), ("deepseek", second.as_str())]);
    for _ in 0..3 {
        assert_eq!(text(llm.answer(question(&models, "")).await), "yes");
    }
    assert_eq!((provider.calls().len(), other.calls().len()), (1, 3));
}

#[tokio::test]
async fn only_a_call_that_was_surely_not_answered_is_sent_again() {
    let cases = [
        (vec![Does::Answers(500, json!({})), Does::Answers(200, completion("yes"))], 2, 0),
        (vec![Does::Answers(500, json!({})), Does::Answers(502, json!({}))], 2, 1),
        (vec![Does::BreaksOff], 1, 1),
        (vec![Does::Hangs], 1, 1),
        (vec![Does::Answers(200, json!({ "choices": [] }))], 1, 1),
        (vec![Does::Answers(401, json!({ "error": { "code": "invalid_api_key" } }))], 1, 1),
    ];
    for (script, first_calls, second_calls) in cases {
        let (first, base) = StandIn::start(script).await;
        let (second, other) = StandIn::start([]).await;
        assert_eq!(text(ask(&[("openai", &base), ("openai", &other)]).await), "yes");
        assert_eq!((first.calls().len(), second.calls().len()), (first_calls, second_calls));
    }
}

#[tokio::test]
async fn a_failure_names_its_cause_and_no_secret() {
    let refusal =
        json!({ "error": { "message": "Incorrect API key provided: sk-openai", "code": "invalid_api_key" } });
    let (_provider, base) = StandIn::start([Does::Answers(401, refusal)]).await;
    let closed = ("gemini", "http://127.0.0.1:9");
    let Err(ResponderError::Failed { detail, .. }) = ask(&[("openai", &base), closed]).await else {
        panic!()
    };
    assert_eq!(detail, "openai: 401, invalid_api_key; gemini: no connection came about");
}

#[tokio::test]
async fn a_provider_that_fails_repeatedly_is_suspended() {
    let broken = || Does::Answers(401, json!({}));
    let (provider, base) = StandIn::start([broken(), broken(), broken(), broken(), broken()]).await;
    let llm = llm();
    for _ in 0..7 {
        llm.answer(question(&[("openai", &base)], "")).await.unwrap_err();
    }
    assert_eq!(provider.calls().len(), 4);
}

/// A question of another tenant with the same key.
fn of_tenant(tenant: &str, base: &str, more: &str) -> Question {
    let mut question = question(&[("openai", base)], more);
    let mut changed = (*question.tenant).clone();
    changed.id = tenant.parse().unwrap();
    question.tenant = Arc::new(changed);
    question
}

#[tokio::test]
async fn refused_requests_of_one_tenant_leave_its_key_to_the_others() {
    let filtered = json!({ "error": { "code": "content_filter", "type": "invalid_request_error" } });
    let refusals = [
        (404, json!({ "error": { "code": "model_not_found" } })),
        (400, filtered),
        (413, json!({})),
        (422, json!({})),
        (200, json!({ "choices": [] })),
    ];
    for (status, body) in refusals {
        let refused = (0..6).map(|_| Does::Answers(status, body.clone()));
        let (provider, base) = StandIn::start(refused).await;
        let llm = llm();
        for _ in 0..6 {
            llm.answer(of_tenant("typo", &base, "")).await.unwrap_err();
        }
        assert_eq!(text(llm.answer(of_tenant("good", &base, "")).await), "yes", "{status}");
        assert_eq!(provider.calls().len(), 7);
    }
}

#[tokio::test]
async fn a_key_or_a_provider_that_fails_is_left_alone_for_all() {
    let unwell = [Does::Answers(403, json!({})), Does::Hangs, Does::BreaksOff, Does::Answers(401, json!({}))];
    let (provider, base) = StandIn::start(unwell).await;
    let llm = llm();
    for _ in 0..4 {
        llm.answer(of_tenant("one", &base, "")).await.unwrap_err();
    }
    llm.answer(of_tenant("other", &base, "")).await.unwrap_err();
    assert_eq!(provider.calls().len(), 4);
}

#[tokio::test]
async fn a_tenant_with_a_low_limit_waits_by_itself() {
    let (provider, base) = StandIn::start([]).await;
    let llm = Arc::new(llm());
    for _ in 0..6 {
        text(llm.answer(of_tenant("pro", &base, "requests_per_minute = 600\n")).await);
    }
    let mut low = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (llm, question) = (llm.clone(), of_tenant("basic", &base, "requests_per_minute = 5\n"));
        low.spawn(async move { llm.answer(question).await });
    }
    for _ in 0..5 {
        let answered = tokio::time::timeout(Duration::from_secs(5), low.join_next()).await;
        text(answered.expect("the use of others is not its own").unwrap().unwrap());
    }
    for _ in 0..6 {
        let answer = llm.answer(of_tenant("pro", &base, "requests_per_minute = 600\n"));
        text(tokio::time::timeout(Duration::from_secs(5), answer).await.expect("it does not stand still"));
    }
    let more = tokio::time::timeout(Duration::from_millis(500), low.join_next()).await;
    assert!(more.is_err() && provider.calls().len() == 17, "{} calls", provider.calls().len());
    low.shutdown().await;
}

#[tokio::test]
async fn requests_wait_for_their_minute_in_order() {
    let (provider, base) = StandIn::start([]).await;
    let llm = Arc::new(llm());
    let began = SystemClock.elapsed();
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..5 {
        let (llm, question) = (llm.clone(), question(&[("openai", &base)], "requests_per_minute = 3\n"));
        asking.spawn(async move { llm.answer(question).await });
    }
    for _ in 0..3 {
        asking.join_next().await.unwrap().unwrap().unwrap();
    }
    let more = tokio::time::timeout(Duration::from_secs(1), asking.join_next()).await;
    assert!(more.is_err() && provider.calls().len() == 3, "the others wait");
    assert!(SystemClock.elapsed() - began < Duration::from_secs(30));
}

#[tokio::test]
async fn nodes_share_a_limit() {
    let (provider, base) = StandIn::start([]).await;
    let store = store();
    let mut asking = tokio::task::JoinSet::new();
    for name in ["a/1", "b/2", "c/3"] {
        let llm = Arc::new(node(&store, name));
        for _ in 0..5 {
            let (llm, question) = (llm.clone(), question(&[("openai", &base)], "requests_per_minute = 4\n"));
            asking.spawn(async move { llm.answer(question).await });
        }
    }
    // Two rounds of renewals: the first node releases a part to the others.
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(provider.calls().len(), 4, "all that a minute has, and no more");
    asking.shutdown().await;
}

#[tokio::test]
async fn without_a_store_no_call_is_made_beyond_the_lease() {
    let (provider, base) = StandIn::start([]).await;
    let disk = MemoryDisk::new(NonZeroU32::MIN);
    let store = Arc::new(MemoryStore::open(disk, Arc::new(SystemClock)));
    let llm = node(&store, "a/1");
    text(llm.answer(question(&[("openai", &base)], "")).await);
    store.close();
    tokio::time::sleep(Duration::from_secs(15)).await;
    let answer = llm.answer(question(&[("openai", &base)], ""));
    assert!(tokio::time::timeout(Duration::from_secs(1), answer).await.is_err());
    assert_eq!(provider.calls().len(), 1);
}

/// A key's queue is a ring of tenants: one that asks once is not behind all of one that asks a lot.
#[tokio::test]
async fn a_tenant_waits_for_one_call_of_another_and_not_for_all() {
    let (provider, base) = StandIn::start([]).await;
    let llm = Arc::new(llm());
    let of = |tenant: &str| {
        let mut question = question(&[("openai", &base)], "requests_per_minute = 3\n");
        let mut changed = (*question.tenant).clone();
        changed.id = tenant.parse().unwrap();
        question.tenant = Arc::new(changed);
        question.messages = vec![tenant.to_owned()];
        question
    };
    let mut crowd = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (llm, question) = (llm.clone(), of("crowd"));
        crowd.spawn(async move { llm.answer(question).await });
    }
    let single = tokio::spawn({
        let (llm, question) = (llm.clone(), of("single"));
        async move { llm.answer(question).await }
    });
    text(tokio::time::timeout(Duration::from_secs(5), single).await.unwrap().unwrap());
    let calls = provider.calls();
    let by_single = |call: &Call| call.body.to_string().contains("single");
    assert!(calls.len() <= 3 && calls.iter().any(by_single), "{} calls", calls.len());
    crowd.shutdown().await;
}
