//! Chat completions, as OpenAI, DeepSeek and many others have them:
//! <https://platform.openai.com/docs/api-reference/chat/create>, <https://api-docs.deepseek.com>.

use std::time::Duration;

use heddle_schemas::money::Money;
use heddle_schemas::ports::responder::{Speaker, Usage};
use heddle_schemas::tenant::{Model, Provider};
use reqwest::header::HeaderValue;
use reqwest::{Client, RequestBuilder};
use serde::{Deserialize, Serialize};

use super::prompt::Prompt;
use super::{Api, Reply};

/// The API.
pub(super) struct OpenAi;

#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    messages: Vec<Message<'a>>,
    /// Of OpenAI's own: the newer name, which its newer models ask for. Others know the older one.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    /// Of OpenAI's own: the completion is not kept for distillation and evaluation.
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<bool>,
    stream: bool,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
}

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
        let system = Message { role: "system", content: &prompt.system };
        let said = prompt.said.iter().map(|said| {
            let role = match said.by {
                Speaker::Customer => "user",
                Speaker::Agent => "assistant",
            };
            Message { role, content: &said.text }
        });
        let is_openais = model.provider == Provider::Openai && model.api_base.is_empty();
        let request = Request {
            model: &model.model,
            messages: std::iter::once(system).chain(said).collect(),
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
        let text = choices.into_iter().next()?.message.content.unwrap_or_default();
        let usage = usage.map(|Tokens { prompt_tokens, completion_tokens }| Usage {
            money: Money::ZERO,
            input_tokens: prompt_tokens,
            output_tokens: completion_tokens,
        });
        Some(Reply { text, usage })
    }

    fn retry_after(&self, _: &[u8]) -> Option<Duration> {
        // Only its header says so.
        None
    }
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
        assert!(OpenAi.read(br#"{"choices":[]}"#).is_none());
        assert!(OpenAi.read(br#"{"choices":[{"message":{"content":"Hel"#).is_none());
        let refused = OpenAi.read(br#"{"choices":[{"message":{"content":null}}]}"#).unwrap();
        assert_eq!((refused.text.as_str(), refused.usage), ("", None));
    }
}
