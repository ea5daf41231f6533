//! The demo's tenant, its documents, and what its customers ask: the example under `deploy/examples/acme`.

use std::collections::HashMap;

use heddle_schemas::id::AccountId;
use heddle_schemas::ports::knowledge::{Document, DocumentFormat};
use heddle_schemas::sealed::Secret;
use heddle_schemas::tenant::Tenant;
use heddle_simulator::customers::Question;

const TENANT: &str = include_str!("../../../deploy/examples/acme/tenant.toml");
const DOCUMENTS: [(&str, &str, &str); 3] = [
    (
        "appointments.md",
        "Appointments",
        include_str!("../../../deploy/examples/acme/documents/appointments.md"),
    ),
    (
        "services.md",
        "Services and prices",
        include_str!("../../../deploy/examples/acme/documents/services.md"),
    ),
    (
        "visiting.md",
        "Visiting the clinic",
        include_str!("../../../deploy/examples/acme/documents/visiting.md"),
    ),
];
/// A second number beside the example's own, so that two accounts are seen at work.
const SECOND: &str = "1122334455668";

/// The tenant, reached through the simulated API.
pub(super) fn tenant(api_base: &str) -> Tenant {
    let mut tenant = Tenant::from_toml(TENANT).expect("the example is valid");
    let mut second = tenant.channels[0].clone();
    second.account = SECOND.parse().expect("the number is valid");
    tenant.channels.push(second);
    for channel in &mut tenant.channels {
        api_base.clone_into(&mut channel.api_base);
        channel.credentials.set("access_token", token(&channel.account));
        channel.credentials.set("app_secret", secret(&channel.account));
        channel.credentials.set("verify_token", Secret::new("demo-verify"));
    }
    tenant
}

fn token(account: &AccountId) -> Secret {
    Secret::new(format!("demo-token-{account}"))
}

fn secret(account: &AccountId) -> Secret {
    Secret::new(format!("demo-secret-{account}"))
}

/// The numbers.
pub(super) fn accounts() -> Vec<AccountId> {
    tenant("http://127.0.0.1").channels.into_iter().map(|channel| channel.account).collect()
}

/// The token that each number sends with.
pub(super) fn tokens() -> HashMap<AccountId, Secret> {
    accounts().into_iter().map(|account| (account.clone(), token(&account))).collect()
}

/// The secret that signs each number's webhooks.
pub(super) fn secrets() -> HashMap<AccountId, Secret> {
    accounts().into_iter().map(|account| (account.clone(), secret(&account))).collect()
}

/// The documents.
pub(super) fn documents() -> Vec<Document> {
    DOCUMENTS
        .into_iter()
        .map(|(id, title, text)| Document {
            id: id.into(),
            title: title.into(),
            format: DocumentFormat::Markdown,
            text: text.into(),
        })
        .collect()
}

/// What customers ask, and words that the right answer holds.
pub(super) fn questions() -> Vec<Question> {
    vec![
        Question::new(["Hi!", "What are your opening hours?"]).expecting("Monday to Friday"),
        Question::new(["Is there parking", "near the clinic?"]).expecting("garage"),
        Question::new(["How do I cancel my appointment?"]).expecting("24 hours"),
        Question::new(["Hello there", "one question", "what does a vaccination cost?"]).expecting("25 euros"),
        Question::new(["Where is the clinic? I need the address"]).expecting("Harbour Street"),
        Question::new(["When are blood samples taken?"]).expecting("empty stomach"),
        Question::new(["can I pay", "by credit card?"]).expecting("credit cards"),
        Question::new(["Which languages do your doctors speak?"]).expecting("Spanish"),
        Question::new(["I need a repeat prescription"]).expecting("next working day"),
        Question::new(["Which tram goes to you?"]).expecting("Harbour Square"),
        Question::new(["Can I come with a wheelchair?"]).expecting("can be reached with a wheelchair"),
        Question::new(["It is my first visit.", "What should I bring?"]).expecting("list of your medicines"),
        // Nothing in the documents answers this: the fallback is the right answer.
        Question::new(["Do you repair bicycles?"]).expecting("A colleague will get back to you"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_that_are_expected_are_in_the_documents_or_the_fallback() {
        let fallback = tenant("http://127.0.0.1").agent.fallback;
        for question in questions() {
            let expected = question.expect.unwrap();
            let known =
                DOCUMENTS.iter().any(|(_, _, text)| text.contains(&expected)) || fallback.contains(&expected);
            assert!(known, "{expected}");
        }
    }
}
