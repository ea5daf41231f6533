//! Contacts by the names that people have for them.

use heddle_schemas::contact::ContactName;
use heddle_schemas::id::TenantId;
use serde_json::{Value, json};

use crate::serving::site::{ADMIN_TOKEN, ADMIN_TOKEN_VARIABLE, Site, message, seconds, webhook};

#[tokio::test]
async fn a_contact_is_found_by_its_number_and_looking_for_one_makes_none() {
    let site = Site::with_acme().await;
    let administration = site.service.node.administration().await.unwrap();
    let acme: TenantId = "acme".parse().unwrap();
    let find = async |name: &str| {
        let name: ContactName = name.parse().unwrap();
        administration.contact(&acme, &name).await
    };
    assert!(find("+15551234").await.is_err(), "the number is unknown");
    let said = webhook(&[message("1001", "wamid.1", "hello")]);
    assert_eq!(site.post("1001", "s3cret", said).send().await.unwrap().status(), 200);
    let contact = find("+15551234").await.unwrap();
    for other in ["whatsapp:15551234", &contact.to_string()] {
        assert_eq!(find(other).await.unwrap(), contact, "{other}");
    }
    assert!(find("+15551235").await.is_err());
    assert!(find("whatsapp:US.15551234").await.is_err(), "a number is no user id");
}

fn preference(value: &str, at: i64) -> String {
    webhook(&[json!({ "field": "user_preferences", "value": {
        "messaging_product": "whatsapp",
        "metadata": { "display_phone_number": "15550001", "phone_number_id": "1001" },
        "contacts": [{ "profile": { "name": "Ann" }, "wa_id": "15551234" }],
        "user_preferences": [{ "wa_id": "15551234", "detail": "User requested it", "category": "marketing_messages",
            "value": value, "timestamp": at }],
    }})])
}

#[tokio::test]
async fn an_opt_out_holds_as_soon_as_its_webhook_has_its_200() {
    let site = Site::with_acme().await;
    let post = async |body: String| {
        assert_eq!(site.post("1001", "s3cret", body).send().await.unwrap().status(), 200);
    };
    let path = format!("{}/v1/tenants/acme/contacts/consent", site.url);
    let show = async || {
        let answer = site.client.get(&path).query(&[("contact", "+15551234")]).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.json::<Value>().await.unwrap()["purposes"].clone()
    };
    let unmet = site.client.get(&path).query(&[("contact", "+15551234")]).send().await.unwrap();
    assert_eq!(unmet.status(), 404);

    let now: i64 = seconds().parse().unwrap();
    post(preference("stop", now - 20)).await;
    post(preference("resume", now - 30)).await;
    let shown = show().await;
    assert_eq!(shown["marketing"]["standing"], "stopped", "the older one came later: {shown}");
    assert_eq!(shown["utility"]["standing"], "unknown");
    post(preference("resume", now - 10)).await;
    assert_eq!(show().await["marketing"]["standing"], "given");
    post(webhook(&[message("1001", "wamid.1", "Stop")])).await;
    let shown = show().await;
    assert_eq!(shown["marketing"]["standing"], "stopped", "{shown}");
    let stopped = &shown["marketing"]["stopped"];
    assert_eq!((&stopped["how"], &stopped["text"]), (&json!("word"), &json!("Stop")));
    assert_eq!(shown["utility"]["standing"], "unknown", "a stop word ends marketing alone: {shown}");
    assert_eq!(site.taken_events("preference").await, 3.0);
    assert_eq!(site.counted("heddle_consent_changes_total{how=\"word\",says=\"stop\"}").await, 1.0);
}

#[tokio::test]
async fn an_operator_enters_what_was_said_elsewhere_also_of_who_was_never_met() {
    let site = Site::with_acme().await;
    let path = format!("{}/v1/tenants/acme/contacts/consent", site.url);
    let enter = async |contact: &str, entry: Value| {
        let asked = site.client.post(&path).query(&[("contact", contact)]).json(&entry);
        let answer = asked.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    for (entry, fault) in [
        (json!({ "says": "stop", "purposes": [] }), "purposes"),
        (
            json!({ "says": "give", "purposes": ["utility"], "at": "2999-01-01T00:00:00Z" }),
            "lies in the future",
        ),
        (json!({ "says": "perhaps", "purposes": ["utility"] }), "perhaps"),
    ] {
        let (status, answer) = enter("+15551234", entry).await;
        assert_eq!(status, 422, "{answer}");
        assert!(answer.contains(fault), "{answer}");
    }
    assert_eq!(enter("15551234", json!({ "says": "stop", "purposes": ["utility"] })).await.0, 400);

    let heddle = async |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_heddle"));
        command.env(ADMIN_TOKEN_VARIABLE, ADMIN_TOKEN);
        command.args(["contact", "consent", "acme", "+15551234", "--url", &site.url]).args(arguments);
        let done = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        (done.status.code(), String::from_utf8(done.stdout).unwrap() + &String::from_utf8_lossy(&done.stderr))
    };
    let (code, shown) = heddle(&["--stop", "--text", "by letter"]).await;
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("marketing: opted out") && shown.contains("\"by letter\""), "{shown}");
    // A list that is older than the letter does not undo it.
    let old = ["--give", "--purpose", "marketing", "--how", "import", "--at", "2024-01-01T00:00:00Z"];
    let (code, shown) = heddle(&old).await;
    assert_eq!(code, Some(0), "{shown}");
    assert!(
        shown.contains("marketing: opted out") && shown.contains("given 2024-01-01T00:00:00Z (import)"),
        "{shown}"
    );
    assert!(!shown.contains("utility"), "{shown}");
    let (code, shown) = heddle(&["--give", "--purpose", "marketing", "--json"]).await;
    assert_eq!(code, Some(0), "{shown}");
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["purposes"]["marketing"]["standing"], "given");
    for wrong in [&["--give"][..], &["--stop", "--give", "--purpose", "utility"], &["--text", "x"]] {
        assert_eq!(heddle(wrong).await.0, Some(2), "{wrong:?}");
    }
}
