//! Tests of the admin API, as an operator and an unauthorised client use it.

use serde_json::{Value, json};

use crate::serving::site::{Site, operator};

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

#[tokio::test]
async fn a_log_that_outlives_what_a_tenant_was_promised_is_refused() {
    let site = Site::start(|config| config.log.retention = std::time::Duration::from_secs(2 * 86_400)).await;
    let tenant = json!({ "id": "acme", "name": "Acme", "retention": { "messages": "2d" } });
    let put = site.client.put(format!("{}/v1/tenants/acme", site.url)).json(&tenant);
    let answer = put.send().await.unwrap();
    assert_eq!(answer.status(), 422);
    let printed = answer.text().await.unwrap();
    // Two days and what a segment may wait; of two days, four fifths but for the broker's time to look is kept.
    let so_old = "retention.messages of tenant acme is 2days, and topic inbound holds records until they are 2days 12h 6m old";
    assert!(printed.contains(so_old) && printed.contains("lower log.retention to 1day 14h 19m"), "{printed}");
    let retention = json!({ "messages": "9d", "receipts": "9d", "events": "2d" });
    let tenant_of_events = json!({ "id": "acme", "name": "Acme", "retention": retention });
    let put = site.client.put(format!("{}/v1/tenants/acme", site.url)).json(&tenant_of_events);
    let printed = put.send().await.unwrap().text().await.unwrap();
    assert!(printed.contains("retention.events of tenant acme is 2days, and topic events"), "{printed}");

    // A node whose log was configured otherwise since does not start on it.
    let folder = tempfile::tempdir().unwrap();
    let mut config = heddle_schemas::config::Config { data_dir: folder.path().into(), ..Default::default() };
    config.http.listen = "127.0.0.1:0".parse().unwrap();
    config.security.private_addresses = heddle_schemas::network::Networks::loopback();
    let service = heddle_engine::service::Service::start(config.clone()).await.unwrap();
    let url = format!("http://{}/v1/tenants/acme", service.admin_address);
    assert_eq!(operator(&service).put(url).json(&tenant).send().await.unwrap().status(), 200);
    service.stop().await;
    config.log.retention = std::time::Duration::from_secs(2 * 86_400);
    let refused = heddle_engine::service::Service::start(config).await.err().unwrap().to_string();
    assert!(refused.contains("tenant acme") && refused.contains("log.retention"), "{refused}");
}
