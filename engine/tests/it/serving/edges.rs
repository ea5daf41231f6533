//! The edges of a node, as an attacker without a secret meets them, and as an operator's ordinary steps do.

use std::path::Path;
use std::time::Duration;

use heddle_schemas::config::Config;
use heddle_schemas::sealed::Secret;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::serving::site::{ADMIN_TOKEN, Site, holder_of, message, webhook};

async fn status(client: &Client, url: &str) -> u16 {
    client.get(url).send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn the_address_of_webhooks_has_neither_admin_api_nor_metrics_nor_console() {
    let site = Site::with_acme().await;
    for path in ["/v1/tenants", "/v1/openapi.json", "/v1/audit/log", "/metrics", "/", "/console.js"] {
        // Also for who holds the token: it is another address.
        assert_eq!(status(&site.client, &format!("{}{path}", site.hooks)).await, 404, "{path}");
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(status(&Client::new(), &format!("{}{path}", site.hooks)).await, 200, "{path}");
    }
}

#[tokio::test]
async fn nobody_is_let_in_without_a_token_from_this_machine_either() {
    let site = Site::start(|config| config.http.metrics_token = Secret::new("a-token-to-scrape")).await;
    let (nobody, scraper) = (Client::new(), holder_of("a-token-to-scrape"));
    for path in ["/v1/tenants", "/v1/openapi.json", "/v1/nothing", "/metrics"] {
        let url = format!("{}{path}", site.url);
        // As nginx and HAProxy send it on by default: the host is the upstream's, no header tells of a proxy.
        assert_eq!(status(&nobody, &url).await, 401, "{path}");
        let localhost = nobody.get(&url).header("host", "localhost").send().await.unwrap();
        assert_eq!(localhost.status(), 401, "{path}");
        let empty = nobody.get(&url).header("authorization", "Bearer ").send().await.unwrap();
        assert_eq!(empty.status(), 401, "{path}");
    }
    assert_eq!(status(&scraper, &format!("{}/metrics", site.url)).await, 200);
    assert_eq!(status(&scraper, &format!("{}/v1/tenants", site.url)).await, 401, "it only scrapes");
    assert_eq!(status(&site.client, &format!("{}/metrics", site.url)).await, 200);
    let open = Site::start(|config| config.http.open_metrics = true).await;
    assert_eq!(status(&nobody, &format!("{}/metrics", open.url)).await, 200);
    assert_eq!(status(&nobody, &format!("{}/v1/tenants", open.url)).await, 401);
}

#[tokio::test]
async fn a_page_of_another_site_changes_nothing_with_an_operators_browser() {
    let site = Site::with_acme().await;
    let url = format!("{}/v1/tenants/acme/documents/file?id=faq.md", site.url);
    let form = |headers: &[(&str, &str)]| {
        let form =
            site.client.post(&url).header("content-type", "text/plain").body("# Refunds\n\nAt evil.example.");
        headers.iter().fold(form, |form, (name, value)| form.header(*name, *value)).send()
    };
    for headers in [
        &[("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")][..],
        &[("origin", "null")],
        &[("sec-fetch-site", "same-site"), ("heddle-request", "1")],
        // A browser's own form, which no script sent.
        &[("origin", &site.url), ("sec-fetch-site", "same-origin")],
    ] {
        assert_eq!(form(headers).await.unwrap().status(), 403, "{headers:?}");
    }
    let documents = site.client.get(format!("{}/v1/tenants/acme/documents", site.url)).send().await.unwrap();
    assert_eq!(documents.json::<Value>().await.unwrap()["items"], json!([]));
    let own = [("origin", site.url.as_str()), ("sec-fetch-site", "same-origin"), ("heddle-request", "1")];
    assert_eq!(form(&own).await.unwrap().status(), 200);
    let page = site.client.get(&site.url).send().await.unwrap();
    let header = |name: &str| page.headers()[name].to_str().unwrap().to_owned();
    assert!(!header("content-security-policy").contains("unsafe"), "{}", header("content-security-policy"));
    assert_eq!(
        (header("x-content-type-options"), header("cache-control")),
        ("nosniff".into(), "no-store".into())
    );
}

#[tokio::test]
async fn a_configuration_that_was_shown_and_is_applied_keeps_its_secrets() {
    let site = Site::with_acme().await;
    let url = format!("{}/v1/tenants/acme", site.url);
    let shown: Value = site.client.get(&url).send().await.unwrap().json().await.unwrap();
    let put = async |id: &str, tenant: &Value| {
        let answer =
            site.client.put(format!("{}/v1/tenants/{id}", site.url)).json(tenant).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let mut changed = shown.clone();
    changed["name"] = json!("Acme Inc");
    assert_eq!(put("acme", &changed).await.0, 200);
    let body = webhook(&[message("1001", "wamid.1", "hello")]);
    assert_eq!(site.post("1001", "s3cret", body.clone()).send().await.unwrap().status(), 200, "it is kept");
    for forged in ["[redacted]", ""] {
        assert_eq!(site.post("1001", forged, body.clone()).send().await.unwrap().status(), 401, "{forged:?}");
    }
    let subscribe =
        format!("{}/webhooks/whatsapp/1001?hub.mode=subscribe&hub.challenge=7&hub.verify_token", site.hooks);
    assert_eq!(status(&site.client, &format!("{subscribe}=ver1fy")).await, 200);
    assert_eq!(status(&site.client, &format!("{subscribe}=[redacted]")).await, 403);

    // A stored secret does not go to an address that somebody else chose, nor to another account.
    let mut elsewhere = shown.clone();
    elsewhere["channels"][0]["api_base"] = json!("http://127.0.0.1:10");
    let (status, why) = put("acme", &elsewhere).await;
    assert_eq!(status, 422);
    assert!(why.contains("access_token") && why.contains("another address"), "{why}");
    let mut other = shown.clone();
    (other["id"], other["channels"][0]["account"]) = (json!("globex"), json!("2002"));
    let (status, why) = put("globex", &other).await;
    assert_eq!(status, 422);
    assert!(why.contains("no stored one"), "{why}");
    for named in ["env:ACME_SECRET", "file:/etc/passwd"] {
        let mut tenant = shown.clone();
        tenant["channels"][0]["app_secret"] = json!(named);
        let (status, why) = put("acme", &tenant).await;
        assert_eq!(status, 422, "{why}");
        assert!(why.contains("heddle tenant apply"), "{why}");
        assert_eq!(site.post("1001", named, body.clone()).send().await.unwrap().status(), 401);
    }
}

#[tokio::test]
async fn a_tenant_makes_the_node_call_public_addresses_and_what_the_operator_allows() {
    let site = Site::start(|config| {
        config.security.private_addresses =
            ["10.9.0.0/16"].map(|net| net.parse().unwrap()).into_iter().collect()
    })
    .await;
    let own = &site.url;
    let apply = async |api_base: &str, llm: &str| {
        let tenant = json!({
            "id": "globex", "name": "Globex",
            "llm": { "provider": "openai", "model": "m", "api_key": "k", "api_base": llm },
            "channels": [{ "kind": "whatsapp", "account": "1001", "api_base": api_base,
                "access_token": "t0ken", "app_secret": "s3cret", "verify_token": "ver1fy" }],
        });
        let url = format!("{}/v1/tenants/globex", site.url);
        let answer = site.client.put(url).json(&tenant).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let (graph, openai) = ("https://graph.facebook.com/v21.0", "https://api.openai.com/v1");
    assert_eq!(apply(graph, openai).await.0, 200);
    assert_eq!(apply(graph, "http://10.9.0.1:8000/v1").await.0, 200);
    for wrong in [
        &format!("{own}/v1/tenants/acme/contacts/forget?contact=%2B4915199999999#"),
        own,
        "https://127.0.0.1/v1",
        "http://localhost:8081/v1",
        "https://169.254.169.254/latest",
        "http://10.8.0.1/v1",
        "http://models.example/v1",
        "https://models.example/v1?x=",
        "https://models.example/v1#",
        "https://user:password@models.example/v1",
    ] {
        let (status, why) = apply(graph, wrong).await;
        assert!(status == 422 && why.contains("llm.api_base"), "{wrong}: {status} {why}");
        let (status, why) = apply(wrong, openai).await;
        assert!(status == 422 && why.contains("channels[0].api_base"), "{wrong}: {status} {why}");
    }
}

/// Sends headers and a first byte of a body, and nothing more.
async fn half_a_body(address: std::net::SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = "POST /webhooks/whatsapp/1001 HTTP/1.1\r\nhost: x\r\ncontent-length: 4000\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn bodies_that_do_not_come_keep_nobody_from_being_heard() {
    let site = Site::start(|config| config.http.webhooks_at_once = 4.try_into().unwrap()).await;
    site.apply("acme", "1001", "s3cret").await;
    site.apply("globex", "2002", "s3cret").await;
    let mut slow = Vec::new();
    for _ in 0..256 {
        slow.push(half_a_body(site.service.address).await);
    }
    for account in ["2002", "1001"] {
        let body = webhook(&[message(account, "wamid.1", "hello")]);
        let answer = site.post(account, "s3cret", body).timeout(Duration::from_secs(4)).send().await;
        assert_eq!(answer.unwrap().status(), 200, "{account}");
    }
    assert_eq!(site.refused("busy").await, 0.0);
    // Each ends by itself.
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(10), slow[0].read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[tokio::test]
async fn connections_that_say_nothing_or_never_end_their_headers_are_closed() {
    let site = Site::with_acme().await;
    let begun = async |address, bytes: &'static [u8]| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        // An answer such as 408 may come before the end.
        drop(
            tokio::time::timeout(Duration::from_secs(15), stream.read_to_end(&mut answer))
                .await
                .expect("it is closed"),
        );
    };
    let (public, admin) = (site.service.address, site.service.admin_address);
    tokio::join!(
        begun(public, b""),
        begun(admin, b""),
        begun(public, b"GET /healthz HTTP/1.1\r\nx: "),
        // Idle after an answer.
        begun(public, b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"),
    );
}

#[tokio::test]
async fn http_2_is_spoken_by_neither_address() {
    let site = Site::with_acme().await;
    for address in [site.service.address, site.service.admin_address] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // RFC 9113, 3.4: the preface and an empty SETTINGS frame.
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        let mut answer = Vec::new();
        let read =
            tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await.unwrap();
        assert!(read.is_err() || answer.is_empty() || answer.starts_with(b"HTTP/1.1 "), "{answer:?}");
    }
}

#[tokio::test]
async fn one_address_has_its_share_of_connections_and_the_admin_address_its_own() {
    let site = Site::start(|config| config.http.connections_per_address = 3.try_into().ok()).await;
    let mut idle = Vec::new();
    for _ in 0..3 {
        idle.push(TcpStream::connect(site.service.address).await.unwrap());
    }
    let mut refused = TcpStream::connect(site.service.address).await.unwrap();
    let read = tokio::time::timeout(Duration::from_secs(2), refused.read(&mut [0; 1]))
        .await
        .expect("closed at once");
    assert_eq!(read.unwrap_or(0), 0);
    assert_eq!(site.counted("heddle_http_connections_refused_total").await, 1.0);
    drop(idle);
    let health = format!("{}/healthz", site.hooks);
    let again = async {
        while Client::new().get(&health).send().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), again).await.expect("places are free again");
}

#[tokio::test]
async fn what_is_said_in_the_future_outweighs_nothing_that_is_said_now() {
    let site = Site::with_acme().await;
    let say = async |id: &str, text: &str, at: Option<&str>| {
        let mut change = message("1001", id, text);
        if let Some(at) = at {
            change["value"]["messages"][0]["timestamp"] = json!(at);
        }
        let answer = site.post("1001", "s3cret", webhook(&[change])).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    };
    // The last second of the year 9999 that the channel's reader takes.
    say("wamid.1", "START", Some("253402300000")).await;
    assert_eq!(site.counted("heddle_reception_future_times_total").await, 1.0);
    let url = format!("{}/v1/tenants/acme/contacts/consent", site.url);
    let shown = site.client.get(&url).query(&[("contact", "+15551234")]).send().await.unwrap();
    let shown = shown.text().await.unwrap();
    assert!(shown.contains("\"given\"") && !shown.contains("9999-"), "{shown}");
    say("wamid.2", "STOP", None).await;
    let shown = site.client.get(&url).query(&[("contact", "+15551234")]).send().await.unwrap();
    let shown: Value = shown.json().await.unwrap();
    assert_eq!(shown["purposes"]["marketing"]["standing"], "stopped", "{shown}");
}

async fn heddle(folder: &Path, arguments: &[&str]) -> (i32, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_heddle"));
    command.current_dir(folder).args(arguments);
    let done = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
    (done.status.code().unwrap(), text.into_owned())
}

#[tokio::test]
async fn a_first_start_makes_a_token_that_commands_find() {
    use std::os::unix::fs::PermissionsExt as _;
    let site = Site::start(|config| config.http.admin_token = Secret::default()).await;
    let data = site.service.node.config.data_dir.clone();
    let mode = |name: &str| std::fs::metadata(data.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("admin.token"), mode("")), (0o600, 0o700));
    let here = tempfile::tempdir().unwrap();
    let config = format!("data_dir = {data:?}\nhttp.admin_listen = \"{}\"\n", site.service.admin_address);
    std::fs::write(here.path().join("heddle.toml"), config).unwrap();
    let (code, printed) = heddle(here.path(), &["tenant", "list"]).await;
    assert_eq!(code, 0, "{printed}");
    // Another folder has no token of this node.
    let other = format!("data_dir = \"other\"\nhttp.admin_listen = \"{}\"\n", site.service.admin_address);
    std::fs::write(here.path().join("heddle.toml"), other).unwrap();
    let (code, printed) = heddle(here.path(), &["tenant", "list"]).await;
    assert!(code == 1 && printed.contains("no admin token is known"), "{printed}");
}

#[tokio::test]
async fn a_program_on_the_port_gets_neither_token_nor_secrets_from_a_command() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let squatter = tokio::spawn(async move {
        let mut heard = String::new();
        loop {
            let accepted = tokio::time::timeout(Duration::from_secs(5), listener.accept()).await;
            let Ok(Ok((mut stream, _))) = accepted else { return heard };
            let mut bytes = [0; 8192];
            let read = stream.read(&mut bytes).await.unwrap();
            heard += &String::from_utf8_lossy(&bytes[..read]);
            let answer =
                b"HTTP/1.1 200 OK\r\nheddle-proof: 00\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
            stream.write_all(answer).await.unwrap();
        }
    });
    let here = tempfile::tempdir().unwrap();
    let config = format!("http.admin_listen = \"{address}\"\nhttp.admin_token = \"{ADMIN_TOKEN}\"\n");
    std::fs::write(here.path().join("heddle.toml"), config).unwrap();
    let tenant = "id = \"acme\"\nname = \"Acme\"\n[[channels]]\nkind = \"whatsapp\"\naccount = \"1001\"\n\
                  access_token = \"the-access-token\"\napp_secret = \"the-app-secret-of-acme\"\nverify_token = \"v\"\n";
    std::fs::write(here.path().join("acme.toml"), tenant).unwrap();
    let (code, printed) = heddle(here.path(), &["tenant", "apply", "acme.toml"]).await;
    assert_eq!(code, 1, "{printed}");
    assert!(printed.contains("does not know this admin token"), "{printed}");
    let heard = squatter.await.unwrap();
    assert!(heard.contains("heddle-challenge"), "{heard}");
    for secret in [ADMIN_TOKEN, "the-access-token", "the-app-secret-of-acme", "authorization"] {
        assert!(!heard.contains(secret), "{secret}: {heard}");
    }
    let (code, printed) = heddle(here.path(), &["tenant", "list", "--url", "http://192.0.2.1:8081"]).await;
    assert!(code == 2 && printed.contains("use https"), "{code} {printed}");
}

#[tokio::test]
async fn a_node_without_its_admin_address_does_not_start_and_says_which() {
    let site = Site::with_acme().await;
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config { data_dir: folder.path().into(), ..Config::default() };
    config.http.listen = "127.0.0.1:0".parse().unwrap();
    config.security.private_addresses = heddle_schemas::network::Networks::loopback();
    config.http.admin_listen = Some(site.service.admin_address);
    let refused = heddle_engine::service::Service::start(config).await.err().unwrap().to_string();
    assert!(refused.contains("http.admin_listen"), "{refused}");
    assert_eq!(
        StatusCode::OK,
        site.client.get(format!("{}/readyz", site.url)).send().await.unwrap().status()
    );
}
