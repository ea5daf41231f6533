//! The provider, called over HTTP.

use heddle_connectors::clock::SystemClock;
use reqwest::Client;
use serde_json::{Value, json};

use super::*;

fn limits(requests: u64, tokens: u64) -> Limits {
    Limits { requests: requests.try_into().unwrap(), tokens: tokens.try_into().unwrap() }
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

async fn ask(api: &LlmApi, key: &str, text: &str) -> reqwest::Result<(u16, Value)> {
    let body = json!({ "model": "m", "messages": [
        { "role": "system", "content": "Be kind." }, { "role": "user", "content": text },
    ] });
    let call = Client::new().post(format!("{}/chat/completions", api.api_base())).bearer_auth(key);
    let answer = call.json(&body).send().await?;
    let status = answer.status().as_u16();
    Ok((status, answer.json().await?))
}

async fn provider(options: Options) -> LlmApi {
    let keys = [("sk".to_owned(), Some(limits(4, 1_000)))].into();
    LlmApi::start(Options { keys, ..options }, Arc::new(SystemClock)).await.unwrap()
}

fn at_once() -> Options {
    Options { latency: Duration::ZERO..Duration::ZERO, ..Options::default() }
}

#[tokio::test]
async fn it_answers_counts_and_refuses_what_is_over() {
    let api = provider(at_once()).await;
    assert_eq!(ask(&api, "other", "hello").await.unwrap().0, 401);
    for number in 0..4 {
        let (status, body) = ask(&api, "sk", &format!("number {number}")).await.unwrap();
        assert_eq!(status, 200);
        assert_eq!(body["choices"][0]["message"]["content"], format!("You asked: number {number}"));
        // "Be kind." has 8 bytes, "number 0" as well: 2 + 4 tokens each. The answer has 19: 5 tokens.
        assert_eq!(body["usage"], json!({ "prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17 }));
    }
    assert_eq!(ask(&api, "sk", "once more").await.unwrap().0, 429);
    let account = api.account("sk");
    assert_eq!((account.calls, account.answered, account.violations, account.tokens), (4, 4, 1, 68));
    assert_eq!(api.counted("sk", Duration::ZERO..Duration::MAX), (4, 68));
    assert!(api.paid()["number 3"][0].ended.is_some() && !api.paid().contains_key("once more"));
}

#[tokio::test]
async fn each_fault_is_seen_and_counted_and_what_no_model_worked_on_is_not_paid() {
    let faults = |change: fn(&mut Faults)| {
        let mut faults = Faults { hang_for: Duration::ZERO, ..Faults::default() };
        change(&mut faults);
        faults
    };
    let api = provider(at_once()).await;
    api.set_faults(faults(|faults| faults.rate_limited = 1.0));
    assert_eq!(ask(&api, "sk", "a").await.unwrap().0, 429);
    api.set_faults(faults(|faults| faults.server_error = 1.0));
    assert_eq!(ask(&api, "sk", "b").await.unwrap().0, 500);
    api.set_faults(faults(|faults| faults.truncated = 1.0));
    assert!(ask(&api, "sk", "c").await.is_err());
    api.set_faults(faults(|faults| faults.hang = 1.0));
    assert!(ask(&api, "sk", "d").await.is_err());
    let Account { calls, rate_limited, server_errors, truncated, hung, violations, .. } = api.account("sk");
    assert_eq!((calls, rate_limited, server_errors, truncated, hung, violations), (4, 1, 1, 1, 1, 0));
    let mut paid: Vec<_> = api.paid().into_keys().collect();
    paid.sort();
    assert_eq!(paid, ["c", "d"]);
}

#[tokio::test]
async fn who_goes_away_has_paid_all_the_same() {
    let api = provider(Options { latency: secs(30)..secs(30), ..Options::default() }).await;
    let gone = tokio::time::timeout(Duration::from_millis(300), ask(&api, "sk", "gone")).await;
    assert!(gone.is_err());
    let noticed = async {
        while api.account("sk").abandoned == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(secs(5), noticed).await.unwrap();
    let [paid] = api.paid()["gone"][..] else { panic!("paid once") };
    assert!(paid.abandoned && paid.ended.is_some());
}
