//! Gemini's `generateContent`: <https://ai.google.dev/api/generate-content>.

use std::time::Duration;

use heddle_schemas::money::Money;
use heddle_schemas::ports::responder::{Speaker, Usage};
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
    generation_config: Config,
}

#[derive(Serialize)]
struct Part<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    parts: [Text<'a>; 1],
}

#[derive(Serialize)]
struct Text<'a> {
    text: &'a str,
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
struct Said {
    #[serde(default)]
    text: String,
    /// What the model thought is no answer.
    #[serde(default)]
    thought: bool,
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
        let part = |role, text| Part { role, parts: [Text { text }] };
        let contents = prompt.said.iter().map(|said| {
            let role = match said.by {
                Speaker::Customer => "user",
                Speaker::Agent => "model",
            };
            part(Some(role), said.text.as_str())
        });
        let request = Request {
            system_instruction: part(None, &prompt.system),
            contents: contents.collect(),
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
        let text = parts.into_iter().filter(|part| !part.thought).map(|part| part.text).collect();
        let usage = usage_metadata.map(|tokens| Usage {
            money: Money::ZERO,
            input_tokens: tokens.prompt_token_count,
            output_tokens: tokens.candidates_token_count + tokens.thoughts_token_count,
        });
        Some(Reply { text, usage })
    }

    /// `google.rpc.RetryInfo` among the error's details: seconds with an `s` behind them.
    fn retry_after(&self, body: &[u8]) -> Option<Duration> {
        let body: Value = serde_json::from_slice(body).ok()?;
        let details = body.pointer("/error/details")?.as_array()?;
        let delay = details.iter().find_map(|detail| detail.get("retryDelay")?.as_str())?;
        Duration::try_from_secs_f64(delay.strip_suffix('s')?.parse().ok()?).ok()
    }
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
