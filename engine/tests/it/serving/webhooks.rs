//! Tests of the answer to each kind of webhook.

use std::num::NonZeroU64;
use std::time::Duration;

use reqwest::RequestBuilder;
use serde_json::json;

use crate::serving::site::{Site, message, webhook};

/// Meta's documented maximum, and one byte more.
const OVER_3_MIB: usize = 3 * 1024 * 1024 + 1;

#[tokio::test]
async fn each_bad_webhook_gets_its_own_answer_and_is_counted() {
    let site = Site::with_acme().await;
    let good = webhook(&[message("1001", "wamid.1", "hello")]);
    let status = async |request: RequestBuilder| request.send().await.unwrap().status().as_u16();

    assert_eq!(status(site.post("1001", "s3cret", good.clone())).await, 200);
    assert_eq!(status(site.post("1001", "another", good.clone())).await, 401);
    let url = format!("{}/webhooks/whatsapp/1001", site.hooks);
    assert_eq!(status(site.client.post(&url).body(good.clone())).await, 401, "no signature at all");
    assert_eq!(status(site.post("9999", "s3cret", good.clone())).await, 404);
    assert_eq!(
        status(site.client.post(format!("{}/webhooks/telegraph/1001", site.hooks)).body("{}")).await,
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
        let url = format!("{}/webhooks/whatsapp/{account}?{query}", site.hooks);
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
