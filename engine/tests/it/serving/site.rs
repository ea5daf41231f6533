//! A serving node in this process, and a client that asks it as a provider or an operator would.

use heddle_connectors::clock::SystemClock;
use heddle_engine::service::Service;
use heddle_schemas::config::Config;
use heddle_schemas::ports::clock::Clock as _;
use heddle_schemas::sealed::Secret;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use sha2::Sha256;

/// Admin token of every [`Site`].
pub(crate) const ADMIN_TOKEN: &str = "an-admin-token-of-tests";
/// Environment variable by which commands get it.
pub(crate) const ADMIN_TOKEN_VARIABLE: &str = "HEDDLE_HTTP__ADMIN_TOKEN";

/// A serving node of its own folder, and somebody who asks it.
pub(crate) struct Site {
    pub(crate) service: Service,
    pub(crate) client: Client,
    /// The admin address.
    pub(crate) url: String,
    /// The address of webhooks.
    pub(crate) hooks: String,
    _folder: tempfile::TempDir,
}

impl Site {
    pub(crate) async fn start(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config { data_dir: folder.path().join("data"), ..Config::default() };
        config.http.listen = "127.0.0.1:0".parse().unwrap();
        config.security.private_addresses = heddle_schemas::network::Networks::loopback();
        config.http.admin_token = Secret::new(ADMIN_TOKEN);
        change(&mut config);
        let service = Service::start(config).await.unwrap();
        let url = format!("http://{}", service.admin_address);
        let hooks = format!("http://{}", service.address);
        let client = operator(&service);
        Self { service, client, url, hooks, _folder: folder }
    }

    /// The node, to be stopped, and the folder that outlives it.
    pub(crate) fn into_parts(self) -> (Service, tempfile::TempDir) {
        (self.service, self._folder)
    }

    /// The same folder under a node that is started anew.
    pub(crate) async fn restarted(self) -> Self {
        let Self { service, client, _folder, .. } = self;
        let config = service.node.config.clone();
        assert!(service.stop().await);
        let service = Service::start(config).await.unwrap();
        let (url, hooks) =
            (format!("http://{}", service.admin_address), format!("http://{}", service.address));
        Self { service, client, url, hooks, _folder }
    }

    pub(crate) async fn with_acme() -> Self {
        let site = Self::start(|_| ()).await;
        site.apply("acme", "1001", "s3cret").await;
        site
    }

    pub(crate) async fn apply(&self, id: &str, account: &str, secret: &str) -> Response {
        let tenant = json!({
            "id": id, "name": id,
            "channels": [{ "kind": "whatsapp", "account": account, "api_base": "http://127.0.0.1:9",
                "access_token": "t0ken", "app_secret": secret, "verify_token": "ver1fy" }],
        });
        self.client.put(format!("{}/v1/tenants/{id}", self.url)).json(&tenant).send().await.unwrap()
    }

    pub(crate) fn post(&self, account: &str, secret: &str, body: impl Into<Vec<u8>>) -> RequestBuilder {
        let body = body.into();
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(&body);
        let signature = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
        let url = format!("{}/webhooks/whatsapp/{account}", self.hooks);
        self.client.post(url).header("x-hub-signature-256", signature).body(body)
    }

    pub(crate) async fn counted(&self, series: &str) -> f64 {
        let text =
            self.client.get(format!("{}/metrics", self.url)).send().await.unwrap().text().await.unwrap();
        let line = text.lines().find(|line| line.starts_with(series));
        line.and_then(|line| line.rsplit(' ').next()).and_then(|value| value.parse().ok()).unwrap_or(0.0)
    }

    /// The sum of the series that begin so.
    pub(crate) async fn sum(&self, series: &str) -> f64 {
        let text =
            self.client.get(format!("{}/metrics", self.url)).send().await.unwrap().text().await.unwrap();
        let of_it = |line: &&str| line.strip_prefix(series).is_some_and(|rest| rest.starts_with([' ', '{']));
        let value = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
        text.lines().filter(of_it).filter_map(value).sum()
    }

    pub(crate) async fn taken_events(&self, kind: &str) -> f64 {
        self.counted(&format!("heddle_webhook_events_total{{channel=\"whatsapp\",kind=\"{kind}\"}}")).await
    }

    pub(crate) async fn refused(&self, result: &str) -> f64 {
        self.counted(&format!("heddle_webhook_requests_total{{channel=\"whatsapp\",result=\"{result}\"}}"))
            .await
    }
}

/// A client that holds the admin token of a node.
pub(crate) fn operator(service: &Service) -> Client {
    holder_of(service.admin_token.expose())
}

/// A client that sends this token.
pub(crate) fn holder_of(token: &str) -> Client {
    let token = format!("Bearer {}", token.trim()).parse().unwrap();
    let headers = [(reqwest::header::AUTHORIZATION, token)].into_iter().collect();
    Client::builder().default_headers(headers).build().unwrap()
}

/// The time as webhooks write it: a reply goes only within a day of what it answers.
pub(crate) fn seconds() -> String {
    (SystemClock.now().as_micros() / 1_000_000).to_string()
}

pub(crate) fn message(account: &str, id: &str, body: &str) -> Value {
    json!({ "field": "messages", "value": {
        "messaging_product": "whatsapp",
        "metadata": { "display_phone_number": "15550001", "phone_number_id": account },
        "contacts": [{ "profile": { "name": "Ann" }, "wa_id": "15551234" }],
        "messages": [{ "from": "15551234", "id": id, "timestamp": seconds(), "type": "text", "text": { "body": body } }],
    }})
}

pub(crate) fn webhook(changes: &[Value]) -> String {
    json!({ "object": "whatsapp_business_account", "entry": [{ "id": "1", "changes": changes }] }).to_string()
}
