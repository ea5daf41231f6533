//! The HTTP side of a serving node, asked as a provider, an operator and a stranger would.

use std::num::NonZeroU64;
use std::time::Duration;

use heddle_engine::service::Service;
use heddle_schemas::config::Config;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use sha2::Sha256;

/// Meta's documented maximum, and one byte more.
const OVER_3_MIB: usize = 3 * 1024 * 1024 + 1;

struct Site {
    service: Service,
    client: Client,
    url: String,
    _folder: tempfile::TempDir,
}

impl Site {
    async fn start(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config { data_dir: folder.path().join("data"), ..Config::default() };
        config.http.listen = "127.0.0.1:0".parse().unwrap();
        change(&mut config);
        let service = Service::start(config).await.unwrap();
        let url = format!("http://{}", service.address);
        Self { service, client: Client::new(), url, _folder: folder }
    }

    async fn with_acme() -> Self {
        let site = Self::start(|_| ()).await;
        site.apply("acme", "1001", "s3cret").await;
        site
    }

    async fn apply(&self, id: &str, account: &str, secret: &str) -> Response {
        let tenant = json!({
            "id": id, "name": id,
            "channels": [{ "kind": "whatsapp", "account": account, "api_base": "http://127.0.0.1:9",
                "access_token": "t0ken", "app_secret": secret, "verify_token": "ver1fy" }],
        });
        self.client.put(format!("{}/v1/tenants/{id}", self.url)).json(&tenant).send().await.unwrap()
    }

    fn post(&self, account: &str, secret: &str, body: impl Into<Vec<u8>>) -> RequestBuilder {
        let body = body.into();
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(&body);
        let signature = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
        let url = format!("{}/webhooks/whatsapp/{account}", self.url);
        self.client.post(url).header("x-hub-signature-256", signature).body(body)
    }

    async fn counted(&self, series: &str) -> f64 {
        let text =
            self.client.get(format!("{}/metrics", self.url)).send().await.unwrap().text().await.unwrap();
        let line = text.lines().find(|line| line.starts_with(series));
        line.and_then(|line| line.rsplit(' ').next()).and_then(|value| value.parse().ok()).unwrap_or(0.0)
    }

    async fn taken_events(&self, kind: &str) -> f64 {
        self.counted(&format!("heddle_webhook_events_total{{channel=\"whatsapp\",kind=\"{kind}\"}}")).await
    }

    async fn refused(&self, result: &str) -> f64 {
        self.counted(&format!("heddle_webhook_requests_total{{channel=\"whatsapp\",result=\"{result}\"}}"))
            .await
    }
}

fn message(account: &str, id: &str, body: &str) -> Value {
    json!({ "field": "messages", "value": {
        "messaging_product": "whatsapp",
        "metadata": { "display_phone_number": "15550001", "phone_number_id": account },
        "contacts": [{ "profile": { "name": "Ann" }, "wa_id": "15551234" }],
        "messages": [{ "from": "15551234", "id": id, "timestamp": "1767225600", "type": "text", "text": { "body": body } }],
    }})
}

fn webhook(changes: &[Value]) -> String {
    json!({ "object": "whatsapp_business_account", "entry": [{ "id": "1", "changes": changes }] }).to_string()
}

#[tokio::test]
async fn each_bad_webhook_gets_its_own_answer_and_is_counted() {
    let site = Site::with_acme().await;
    let good = webhook(&[message("1001", "wamid.1", "hello")]);
    let status = async |request: RequestBuilder| request.send().await.unwrap().status().as_u16();

    assert_eq!(status(site.post("1001", "s3cret", good.clone())).await, 200);
    assert_eq!(status(site.post("1001", "another", good.clone())).await, 401);
    let url = format!("{}/webhooks/whatsapp/1001", site.url);
    assert_eq!(status(site.client.post(&url).body(good.clone())).await, 401, "no signature at all");
    assert_eq!(status(site.post("9999", "s3cret", good.clone())).await, 404);
    assert_eq!(
        status(site.client.post(format!("{}/webhooks/telegraph/1001", site.url)).body("{}")).await,
        404
    );
    assert_eq!(status(site.post("1001", "s3cret", "no json")).await, 400);
    assert_eq!(status(site.post("1001", "s3cret", "[1]")).await, 400);
    assert_eq!(status(site.post("1001", "s3cret", vec![b' '; OVER_3_MIB])).await, 413);
    assert_eq!(status(site.client.put(&url).body("{}")).await, 405);

    for (result, count) in
        [("taken", 1.0), ("signature", 2.0), ("account", 1.0), ("body", 2.0), ("too_large", 1.0)]
    {
        assert_eq!(site.refused(result).await, count, "{result}");
    }
    assert!(site.service.stop().await);
}

#[tokio::test]
async fn a_subscription_is_confirmed_only_with_the_verify_token() {
    let site = Site::with_acme().await;
    let ask = async |account: &str, query: &str| {
        let url = format!("{}/webhooks/whatsapp/{account}?{query}", site.url);
        let answer = site.client.get(url).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let right = "hub.mode=subscribe&hub.verify_token=ver1fy&hub.challenge=1158201444";
    assert_eq!(ask("1001", right).await, (200, "1158201444".to_owned()));
    assert_eq!(ask("1001", &right.replace("ver1fy", "guess")).await.0, 403);
    assert_eq!(ask("1001", &right.replace("subscribe", "unsubscribe")).await.0, 403);
    assert_eq!(ask("1001", "").await.0, 403);
    assert_eq!(ask("1002", right).await.0, 404);
}

#[tokio::test]
async fn one_body_for_several_numbers_reaches_the_tenants_whose_secret_signed_it() {
    let site = Site::with_acme().await;
    site.apply("same-app", "1002", "s3cret").await;
    site.apply("other-app", "1003", "0ther").await;
    let body = webhook(&[
        message("1001", "wamid.a", "one"),
        message("1002", "wamid.b", "two"),
        message("1003", "wamid.c", "not signed by its secret"),
        message("1004", "wamid.d", "nobody's"),
        json!({ "field": "account_update", "value": { "event": "VERIFIED_ACCOUNT" } }),
    ]);
    let answer = site.post("1001", "s3cret", body).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(site.taken_events("message").await, 2.0);
    assert_eq!(site.taken_events("notice").await, 1.0);
    assert_eq!(site.counted("heddle_reception_dropped_total{reason=\"foreign_account\"}").await, 2.0);
}

#[tokio::test]
async fn a_full_log_sends_webhooks_away_until_there_is_room() {
    let site = Site::start(|config| {
        config.log.segment_bytes = NonZeroU64::new(1 << 20).unwrap();
        config.log.max_bytes = NonZeroU64::new(4 << 20).unwrap();
        config.log.retention = Duration::from_secs(3600);
    })
    .await;
    site.apply("acme", "1001", "s3cret").await;
    // The API at this address refuses every connection, so sends stay open, and with them the log.
    let text = "x".repeat(4000);
    let changes: Vec<_> = (0..200).map(|number| message("1001", &format!("wamid.{number}"), &text)).collect();
    let mut refused = None;
    for round in 0..40 {
        let body = webhook(&changes).replace("wamid.", &format!("wamid.{round}."));
        let answer = site.post("1001", "s3cret", body).send().await.unwrap();
        if answer.status() != 200 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("4 MiB are full before 30 have come");
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["retry-after"], "5");
    assert_eq!(site.refused("full").await, 1.0);
    assert_eq!(site.client.get(format!("{}/healthz", site.url)).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn the_admin_api_tells_no_secret_and_says_what_is_wrong() {
    let site = Site::with_acme().await;
    let get = async |path: &str| {
        let answer = site.client.get(format!("{}{path}", site.url)).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let (status, shown) = get("/v1/tenants/acme").await;
    assert_eq!(status, 200);
    for secret in ["t0ken", "s3cret", "ver1fy"] {
        assert!(!shown.contains(secret), "{secret}");
    }
    let (status, problem) = get("/v1/tenants/nobody").await;
    assert_eq!(status, 404);
    assert!(problem.contains("no tenant nobody"), "{problem}");
    assert_eq!(get("/v1/nothing").await.0, 404);
    assert_eq!(get("/v1/openapi.json").await.0, 200);
    assert_eq!(get("/readyz").await, (200, "ready\n".to_owned()));

    assert_eq!(site.apply("thief", "1001", "x").await.status(), 409, "an account has one owner");
    let unsafe_tenant = site.apply("acme", "1001", "").await;
    assert_eq!(unsafe_tenant.status(), 422);
    assert!(unsafe_tenant.text().await.unwrap().contains("app_secret"));
    let put =
        site.client.put(format!("{}/v1/tenants/acme", site.url)).json(&json!({ "id": "acme", "nmae": "x" }));
    let answer = put.send().await.unwrap();
    assert_eq!(answer.status(), 422);
    assert!(answer.text().await.unwrap().contains("nmae"));
    let proxied = site.client.get(format!("{}/v1/tenants", site.url)).header("x-forwarded-for", "192.0.2.1");
    assert_eq!(proxied.send().await.unwrap().status(), 403);
}

#[tokio::test]
async fn documents_come_go_and_are_found() {
    let site = Site::with_acme().await;
    let documents = format!("{}/v1/tenants/acme/documents", site.url);
    let document = json!({ "id": "faq.md", "title": "FAQ", "format": "markdown", "text": "# Hours\n\nOpen from nine to five." });
    let added = site.client.post(&documents).json(&document).send().await.unwrap();
    assert_eq!(added.status(), 200);
    let search = async || {
        let asked = site
            .client
            .post(format!("{}/v1/tenants/acme/search", site.url))
            .json(&json!({ "query": "hours" }));
        asked.send().await.unwrap().json::<Value>().await.unwrap()["items"].as_array().unwrap().len()
    };
    assert_eq!(search().await, 1);
    let remove = site.client.delete(&documents).query(&[("id", "faq.md")]);
    assert_eq!(remove.send().await.unwrap().status(), 204);
    assert_eq!(search().await, 0);
    let again = site.client.delete(&documents).query(&[("id", "faq.md")]).send().await.unwrap();
    assert_eq!(again.status(), 404);
}
