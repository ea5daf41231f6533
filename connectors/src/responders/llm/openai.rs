//! Chat completions, as OpenAI, DeepSeek and many others have them:
//! <https://platform.openai.com/docs/api-reference/chat/create>, <https://api-docs.deepseek.com>.

use std::borrow::Cow;
use std::time::Duration;

use heddle_schemas::money::Money;
use heddle_schemas::ports::responder::{Speaker, Step, Tool, ToolCall, Usage};
use heddle_schemas::tenant::{Model, Provider};
use reqwest::header::HeaderValue;
use reqwest::{Client, RequestBuilder};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::prompt::Prompt;
use super::{Api, Reply};

/// The API.
pub(super) struct OpenAi;

#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    messages: Vec<Message<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Offered<'a>>,
    /// OpenAI's own newer name, which its newer models require. Other providers know the older one.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    /// OpenAI's own: the completion is not kept for distillation and evaluation.
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<bool>,
    stream: bool,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    /// `None` beside calls of tools.
    content: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call<'a>>,
    /// Call that this is the result of.
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'a str>,
}

impl<'a> Message<'a> {
    fn text(role: &'static str, text: impl Into<Cow<'a, str>>) -> Self {
        Self { role, content: Some(text.into()), tool_calls: Vec::new(), tool_call_id: None }
    }
}

/// A tool, or the call of one.
#[derive(Serialize)]
struct Call<'a> {
    id: &'a str,
    r#type: &'static str,
    function: Called<'a>,
}

#[derive(Serialize)]
struct Called<'a> {
    name: &'a str,
    /// JSON as text.
    arguments: String,
}

#[derive(Serialize)]
struct Offered<'a> {
    r#type: &'static str,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    description: &'a str,
    parameters: &'a Value,
}

const FUNCTION: &str = "function";

#[derive(Deserialize)]
struct Completion {
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<Tokens>,
}

#[derive(Deserialize)]
struct Choice {
    message: Content,
}

#[derive(Deserialize)]
struct Content {
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    tool_calls: Option<Vec<RequestedCall>>,
}

/// A call that the model requests. Its arguments are JSON as text, which the model may get wrong.
#[derive(Deserialize)]
struct RequestedCall {
    #[serde(default)]
    id: String,
    function: AskedFunction,
}

#[derive(Deserialize)]
struct AskedFunction {
    name: String,
    #[serde(default)]
    arguments: String,
}

#[derive(Deserialize)]
struct Tokens {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
}

impl Api for OpenAi {
    fn request(&self, client: &Client, model: &Model, key: HeaderValue, prompt: &Prompt) -> RequestBuilder {
        let system = Message::text("system", &prompt.system);
        let said = prompt.said.iter().map(|said| {
            let role = match said.by {
                Speaker::Customer => "user",
                Speaker::Agent => "assistant",
            };
            Message::text(role, &said.text)
        });
        let steps = prompt.steps.iter().flat_map(step);
        let tools = prompt.tools.iter().map(|Tool { name, description, parameters }| Offered {
            r#type: FUNCTION,
            function: Function { name, description, parameters },
        });
        let is_openais = model.provider == Provider::Openai && model.api_base.is_empty();
        let request = Request {
            model: &model.model,
            messages: std::iter::once(system).chain(said).chain(steps).collect(),
            tools: tools.collect(),
            max_completion_tokens: is_openais.then_some(prompt.answer_tokens),
            max_tokens: (!is_openais).then_some(prompt.answer_tokens),
            store: is_openais.then_some(false),
            stream: false,
        };
        let call = client.post(format!("{}/chat/completions", model.base())).json(&request);
        if key.is_empty() { call } else { call.header("authorization", bearer(&key)) }
    }

    fn read(&self, body: &[u8]) -> Option<Reply> {
        let Completion { choices, usage } = serde_json::from_slice(body).ok()?;
        let Content { content, tool_calls } = choices.into_iter().next()?.message;
        let calls =
            tool_calls.unwrap_or_default().into_iter().map(|RequestedCall { id, function }| ToolCall {
                id,
                name: function.name,
                // A tool reports invalid arguments.
                arguments: serde_json::from_str(&function.arguments).unwrap_or_default(),
                mark: None,
            });
        let (text, calls) = (content.unwrap_or_default(), calls.collect());
        let usage = usage.map(|Tokens { prompt_tokens, completion_tokens }| Usage {
            money: Money::ZERO,
            input_tokens: prompt_tokens,
            output_tokens: completion_tokens,
        });
        Some(Reply { text, calls, usage })
    }

    fn retry_after(&self, _: &[u8]) -> Option<Duration> {
        // Only its header says so.
        None
    }
}

/// Returns the messages of a step: the calls that the model requested, then a result for each.
fn step(step: &Step) -> Vec<Message<'_>> {
    let calls = step.calls.iter().map(|call| Call {
        id: &call.id,
        r#type: FUNCTION,
        function: Called { name: &call.name, arguments: call.arguments.to_string() },
    });
    let content = step.text.as_deref().map(Cow::from);
    let requested = Message { role: "assistant", content, tool_calls: calls.collect(), tool_call_id: None };
    let results = step.calls.iter().zip(&step.results).map(|(call, result)| Message {
        tool_call_id: Some(&call.id),
        ..Message::text("tool", result.to_string())
    });
    std::iter::once(requested).chain(results).collect()
}

fn bearer(key: &HeaderValue) -> HeaderValue {
    let mut value = HeaderValue::from_bytes(&[b"Bearer ", key.as_bytes()].concat())
        .expect("a header's value is one also behind a word");
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_are_read() {
        // As in the reference, cut to what is read. DeepSeek sends empty lines while it works.
        let body = br#"

            {"id":"chatcmpl-1","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant",
            "content":"Hello!","refusal":null},"finish_reason":"stop"}],
            "usage":{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29}}"#;
        let reply = OpenAi.read(body).unwrap();
        assert_eq!(reply.text, "Hello!");
        assert_eq!(reply.usage, Some(Usage { input_tokens: 19, output_tokens: 10, ..Usage::default() }));
        let asks = br#"{"choices":[{"message":{"content":null,"tool_calls":[{"id":"call_1","type":"function",
            "function":{"name":"opening_hours","arguments":"{\"date\":\"2026-01-31\"}"}}]},"finish_reason":"tool_calls"}]}"#;
        let [call] = &OpenAi.read(asks).unwrap().calls[..] else { panic!() };
        assert_eq!((call.id.as_str(), call.name.as_str()), ("call_1", "opening_hours"));
        assert_eq!(call.arguments["date"], "2026-01-31");
        assert!(OpenAi.read(br#"{"choices":[]}"#).is_none());
        assert!(OpenAi.read(br#"{"choices":[{"message":{"content":"Hel"#).is_none());
        let refused = OpenAi.read(br#"{"choices":[{"message":{"content":null}}]}"#).unwrap();
        assert_eq!((refused.text.as_str(), refused.usage), ("", None));
    }
}
