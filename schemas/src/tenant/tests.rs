use std::num::NonZeroU32;
use std::time::Duration;

use super::*;
use crate::language::Language;
use crate::ports::channel::profile;

const ACME: &str = r#"
    id = "acme"
    name = "Acme Clinic"
    [agent]
    settle = "300ms"
    [[channels]]
    kind = "whatsapp"
    account = "1122334455667"
    access_token = "env:ACME_TOKEN"
    app_secret = "s"
    verify_token = "v"
    [retention]
    messages = "30d"
"#;

static PROFILE: ChannelProfile = profile::example(&[]);

fn profiles(_: ChannelKind) -> Option<&'static ChannelProfile> {
    Some(&PROFILE)
}

#[test]
fn the_example_reads_with_its_defaults() {
    let mut tenant = Tenant::from_toml(ACME).unwrap();
    tenant.complete(&profiles).unwrap();
    assert_eq!(tenant.retention.messages, Duration::from_secs(30 * 86_400));
    assert_eq!(tenant.agent.settle, Duration::from_millis(300));
    assert_eq!(tenant.channels[0].messages_per_second.map(NonZeroU32::get), Some(80));
    assert_eq!(tenant.channels[0].api_base, "https://graph.facebook.com/v21.0");
}

#[test]
fn an_account_that_is_stored_reads_back_whole_and_is_written_as_before() {
    // As builds wrote it that knew no profile.
    let stored = serde_json::json!({
        "kind": "whatsapp", "account": "1", "api_base": "https://graph.facebook.com/v21.0",
        "access_token": "[redacted]", "app_secret": "[redacted]", "verify_token": "[redacted]",
        "messages_per_second": 80,
    });
    let account: ChannelAccount = serde_json::from_value(stored.clone()).unwrap();
    assert_eq!(account.credential("app_secret").unwrap().expose(), "[redacted]");
    assert_eq!(account.messages_per_second, NonZeroU32::new(80));
    assert_eq!(serde_json::to_value(&account).unwrap(), stored);
}

#[test]
fn a_channel_is_checked_against_its_profile_every_fault_at_once() {
    let faults = |from: &str, to: &str| {
        let mut tenant = Tenant::from_toml(&ACME.replace(from, to)).unwrap();
        let before = tenant.clone();
        let faults = tenant.complete(&profiles).unwrap_err().0;
        assert_eq!(tenant, before);
        faults
    };
    let wrong = "app_secret = \"\"\nacces_token = \"x\"\napi_base = \"https://x/\"";
    let found = faults("app_secret = \"s\"", wrong);
    let places: Vec<_> = found.iter().filter_map(|fault| fault.split_once(':')).map(|(at, _)| at).collect();
    let expected = ["channels[0].api_base", "channels[0].app_secret", "channels[0].acces_token"];
    assert_eq!(places, expected, "{found:?}");
    assert!(found[2].contains("access_token, app_secret, verify_token"), "{found:?}");
    assert_eq!(faults("\"v\"", "\"a b\""), ["channels[0].verify_token: has a blank"]);
    let long = format!("fallback = \"{}\"", "x".repeat(101));
    assert!(faults("settle = \"300ms\"", &long)[0].starts_with("agent.fallback: is over 100"));
    let mut other = Tenant::from_toml(ACME).unwrap();
    let fault = other.complete(&|_| None).unwrap_err().to_string();
    assert!(fault.starts_with("channels[0].kind"), "{fault}");
}

#[test]
fn every_fault_is_reported_at_once() {
    let text = ACME.replace("300ms", "2h").replace("30d", "1h").replace("\"Acme Clinic\"", "\"\"");
    let faults = Tenant::from_toml(&text).unwrap_err().0;
    assert_eq!(faults.len(), 3, "{faults:?}");
}

#[test]
fn models_are_asked_in_order_and_each_is_checked() {
    let text = format!(
        "{ACME}[llm]\nprovider = \"openai\"\nmodel = \"m\"\napi_key = \"k\"\n\
         [[llm.fallbacks]]\nprovider = \"gemini\"\nmodel = \"g\"\napi_key = \"env:G\"\n\
         [[llm.fallbacks]]\nprovider = \"openai\"\nmodel = \"own\"\napi_base = \"http://127.0.0.1:8000/v1\"\n"
    );
    let mut tenant = Tenant::from_toml(&text).unwrap();
    assert_eq!(tenant.secrets_mut()["llm.fallbacks.0.api_key"].expose(), "env:G");
    let bases: Vec<_> = tenant.llm.models().map(|model| model.base().to_owned()).collect();
    let google = "https://generativelanguage.googleapis.com/v1beta";
    assert_eq!(bases, ["https://api.openai.com/v1", google, "http://127.0.0.1:8000/v1"]);
    let wrong = text.replace("model = \"m\"", "").replace("\"env:G\"", "\"\"").replace("/v1\"", "/v1/\"");
    let faults = Tenant::from_toml(&wrong).unwrap_err().0;
    let places: Vec<_> = faults.iter().filter_map(|fault| fault.split_once(':')).map(|(at, _)| at).collect();
    assert_eq!(places, ["llm.model", "llm.fallbacks[0].api_key", "llm.fallbacks[1].api_base"]);
    let extractive = text.replace("\"openai\"\nmodel = \"m\"", "\"extractive\"");
    assert!(Tenant::from_toml(&extractive).unwrap_err().to_string().contains("llm.fallbacks"));
}

#[test]
fn a_calendar_is_read_with_its_defaults_and_every_fault_of_it_told() {
    let calendar = "[calendar]\nkind = \"google\"\nclient_id = \"c\"\n\
                    client_secret = \"env:S\"\nrefresh_token = \"env:R\"\n";
    let hours = "[hours]\ntime_zone = \"Europe/Berlin\"\nmonday = [\"09:00-12:00\"]\n";
    let mut tenant = Tenant::from_toml(&format!("{ACME}{hours}{calendar}")).unwrap();
    let access = tenant.calendar.clone().unwrap();
    let minutes = [access.slot, access.notice, access.horizon].map(|time| time.as_secs() / 60);
    assert_eq!((&*access.calendar, minutes), ("primary", [30, 120, 43_200]));
    assert_eq!(tenant.secrets_mut()["calendar.refresh_token"].expose(), "env:R");
    let back: Tenant = serde_json::from_value(tenant.to_json_exposed()).unwrap();
    assert_eq!(back, tenant);
    assert!(!format!("{:?}{}", tenant, serde_json::to_string(&tenant).unwrap()).contains("env:R"));

    let wrong = calendar
        .replace("env:R", "")
        .replace("\"c\"", "\"\"\napi_base = \"ftp://x/\"\nslot = \"1m\"\nhorizon = \"90d\"");
    let hours = hours.replace("09:00-12:00", "12:00-09:00");
    let faults = Tenant::from_toml(&format!("{ACME}{hours}{wrong}")).unwrap_err().0;
    let places: Vec<_> = faults.iter().filter_map(|fault| fault.split_once(": ")).map(|(at, _)| at).collect();
    assert_eq!(
        places,
        [
            "hours.monday[0]",
            "calendar.api_base",
            "calendar.api_base",
            "calendar.client_id",
            "calendar.refresh_token",
            "calendar.slot",
            "calendar.horizon"
        ]
    );
    let fault = Tenant::from_toml(&format!("{ACME}{calendar}")).unwrap_err().to_string();
    assert!(fault.contains("[hours]"), "{fault}");
}

#[test]
fn an_unknown_field_is_refused_with_its_line() {
    let text = ACME.replace("settle =", "setle =");
    let fault = Tenant::from_toml(&text).unwrap_err().to_string();
    assert!(fault.contains("setle") && fault.contains("line 5"), "{fault}");
}

#[test]
fn exposed_json_reads_back_whole_and_the_ordinary_one_tells_no_secret() {
    let mut tenant = Tenant::from_toml(ACME).unwrap();
    for (place, secret) in tenant.secrets_mut() {
        *secret = Secret::new(format!("value of {place}"));
    }
    let back: Tenant = serde_json::from_value(tenant.to_json_exposed()).unwrap();
    assert_eq!(back, tenant);
    assert!(!serde_json::to_string(&tenant).unwrap().contains("value of"));
}

#[test]
fn a_language_without_word_forms_is_refused_with_those_there_are() {
    let text = |language| format!("{ACME}[knowledge]\nlanguage = \"{language}\"\n");
    assert_eq!(Tenant::from_toml(&text("de")).unwrap().knowledge.language, Language::German);
    assert_eq!(Tenant::from_toml(ACME).unwrap().knowledge.language, Language::English);
    let fault = Tenant::from_toml(&text("xx")).unwrap_err().to_string();
    assert!(fault.contains("`xx`") && fault.contains("`de`") && fault.contains("`none`"), "{fault}");
}

#[test]
fn secrets_are_named_by_their_place() {
    let mut tenant = Tenant::from_toml(ACME).unwrap();
    let secrets = tenant.secrets_mut();
    assert_eq!(secrets["channels.whatsapp.1122334455667.access_token"].expose(), "env:ACME_TOKEN");
    assert_eq!(secrets.len(), 4);
}
