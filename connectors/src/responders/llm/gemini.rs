//! Gemini's `generateContent`: <https://ai.google.dev/api/generate-content>.

use std::time::Duration;

use heddle_schemas::money::Money;
use heddle_schemas::ports::responder::{Speaker, Step, Tool, ToolCall, Usage};
use heddle_schemas::tenant::Model;
use reqwest::header::HeaderValue;
use reqwest::{Client, RequestBuilder};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::prompt::Prompt;
use super::{Api, Reply};

/// The API.
pub(super) struct Gemini;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    system_instruction: Part<'a>,
    contents: Vec<Part<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tools<'a>>,
    generation_config: Config,
}

#[derive(Serialize)]
struct Part<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    parts: Vec<Piece<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Piece<'a> {
    Text {
        text: &'a str,
    },
    #[serde(rename_all = "camelCase")]
    Call {
        function_call: Called<'a>,
        /// Signature of the model's thoughts: newer models refuse a call that comes back without it.
        /// <https://ai.google.dev/gemini-api/docs/thought-signatures>
        #[serde(skip_serializing_if = "Option::is_none")]
        thought_signature: Option<&'a str>,
    },
    #[serde(rename_all = "camelCase")]
    Result {
        function_response: Gave<'a>,
    },
}

#[derive(Serialize)]
struct Called<'a> {
    name: &'a str,
    args: &'a Value,
}

#[derive(Serialize)]
struct Gave<'a> {
    name: &'a str,
    /// An object.
    response: &'a Value,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Tools<'a> {
    function_declarations: Vec<Function<'a>>,
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    description: &'a str,
    /// Absent for a tool without parameters: an object without properties is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<&'a Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    max_output_tokens: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    #[serde(default)]
    candidates: Vec<Candidate>,
    #[serde(default)]
    prompt_feedback: Option<Value>,
    #[serde(default)]
    usage_metadata: Option<Tokens>,
}

#[derive(Deserialize)]
struct Candidate {
    #[serde(default)]
    content: Content,
}

#[derive(Default, Deserialize)]
struct Content {
    #[serde(default)]
    parts: Vec<Said>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    #[serde(default)]
    text: String,
    #[serde(default)]
    function_call: Option<FunctionCall>,
    #[serde(default)]
    thought_signature: Option<String>,
    /// True for the model's thoughts, which are not part of the answer.
    #[serde(default)]
    thought: bool,
}

#[derive(Deserialize)]
struct FunctionCall {
    name: String,
    #[serde(default)]
    args: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tokens {
    #[serde(default)]
    prompt_token_count: u64,
    #[serde(default)]
    candidates_token_count: u64,
    #[serde(default)]
    thoughts_token_count: u64,
}

impl Api for Gemini {
    fn request(&self, client: &Client, model: &Model, key: HeaderValue, prompt: &Prompt) -> RequestBuilder {
        let part = |role, text| Part { role, parts: vec![Piece::Text { text }] };
        let contents = prompt.said.iter().map(|said| {
            let role = match said.by {
                Speaker::Customer => "user",
                Speaker::Agent => "model",
            };
            part(Some(role), said.text.as_str())
        });
        let request = Request {
            system_instruction: part(None, &prompt.system),
            contents: contents.chain(prompt.steps.iter().flat_map(step)).collect(),
            tools: tools(&prompt.tools),
            generation_config: Config { max_output_tokens: prompt.answer_tokens },
        };
        let call =
            client.post(format!("{}/models/{}:generateContent", model.base(), model.model)).json(&request);
        if key.is_empty() { call } else { call.header("x-goog-api-key", key) }
    }

    fn read(&self, body: &[u8]) -> Option<Reply> {
        let Response { candidates, prompt_feedback, usage_metadata } = serde_json::from_slice(body).ok()?;
        let candidate = candidates.into_iter().next();
        if candidate.is_none() && prompt_feedback.is_none() {
            return None;
        }
        let parts = candidate.map(|candidate| candidate.content.parts).unwrap_or_default();
        let mut reply = Reply { text: String::new(), calls: Vec::new(), usage: None };
        for Said { text, function_call, thought_signature, thought } in parts {
            if !thought {
                reply.text += &text;
            }
            if let Some(FunctionCall { name, args }) = function_call {
                let id = format!("{name}_{}", reply.calls.len());
                reply.calls.push(ToolCall { id, name, arguments: args, mark: thought_signature });
            }
        }
        reply.usage = usage_metadata.map(|tokens| Usage {
            money: Money::ZERO,
            input_tokens: tokens.prompt_token_count,
            output_tokens: tokens.candidates_token_count + tokens.thoughts_token_count,
        });
        Some(reply)
    }

    /// `google.rpc.RetryInfo` among the error's details: seconds with an `s` behind them.
    fn retry_after(&self, body: &[u8]) -> Option<Duration> {
        let body: Value = serde_json::from_slice(body).ok()?;
        let details = body.pointer("/error/details")?.as_array()?;
        let delay = details.iter().find_map(|detail| detail.get("retryDelay")?.as_str())?;
        Duration::try_from_secs_f64(delay.strip_suffix('s')?.parse().ok()?).ok()
    }
}

/// Returns the parts of a step: the calls that the model requested, then the results of all calls.
fn step(step: &Step) -> [Part<'_>; 2] {
    let text = step.text.iter().map(|text| Piece::Text { text });
    let calls = step.calls.iter().map(|call| Piece::Call {
        function_call: Called { name: &call.name, args: &call.arguments },
        thought_signature: call.mark.as_deref(),
    });
    let results = step
        .calls
        .iter()
        .zip(&step.results)
        .map(|(call, response)| Piece::Result { function_response: Gave { name: &call.name, response } });
    [
        Part { role: Some("model"), parts: text.chain(calls).collect() },
        Part { role: Some("user"), parts: results.collect() },
    ]
}

fn tools(tools: &[Tool]) -> Vec<Tools<'_>> {
    let declared = tools.iter().map(|Tool { name, description, parameters }| Function {
        name,
        description,
        parameters: parameters["properties"]
            .as_object()
            .filter(|fields| !fields.is_empty())
            .map(|_| parameters),
    });
    let function_declarations: Vec<_> = declared.collect();
    if function_declarations.is_empty() { Vec::new() } else { vec![Tools { function_declarations }] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_and_refusals_are_read() {
        let body = br#"{"candidates":[{"content":{"parts":[{"text":"hm","thought":true},{"text":"We are "},
            {"text":"open."}],"role":"model"},"finishReason":"STOP","index":0}],
            "usageMetadata":{"promptTokenCount":8,"candidatesTokenCount":4,"totalTokenCount":12}}"#;
        let reply = Gemini.read(body).unwrap();
        assert_eq!(reply.text, "We are open.");
        assert_eq!(reply.usage, Some(Usage { input_tokens: 8, output_tokens: 4, ..Usage::default() }));
        let asks = br#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"opening_hours","args":{"date":"2026-01-31"}},
            "thoughtSignature":"c2ln"}],"role":"model"}}]}"#;
        let [call] = &Gemini.read(asks).unwrap().calls[..] else { panic!() };
        assert_eq!((call.name.as_str(), call.mark.as_deref()), ("opening_hours", Some("c2ln")));
        assert_eq!(call.arguments["date"], "2026-01-31");
        let blocked = Gemini.read(br#"{"promptFeedback":{"blockReason":"SAFETY"}}"#).unwrap();
        assert_eq!(blocked.text, "");
        assert!(Gemini.read(b"{}").is_none() && Gemini.read(b"{\"candidates\":[{\"content\"").is_none());
    }

    #[test]
    fn the_delay_stands_in_the_details() {
        let body = br#"{"error":{"code":429,"message":"m","status":"RESOURCE_EXHAUSTED","details":[
            {"@type":"type.googleapis.com/google.rpc.QuotaFailure"},
            {"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"34.5s"}]}}"#;
        assert_eq!(Gemini.retry_after(body), Some(Duration::from_millis(34_500)));
        assert_eq!(Gemini.retry_after(b"{}"), None);
    }
}
