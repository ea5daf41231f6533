//! Questions that are answered, and questions that are left to a colleague.

use std::sync::Arc;

use heddle_schemas::id::{MessageKey, TurnId};
use heddle_schemas::ports::responder::Outgoing;
use heddle_schemas::tenant::Tenant;
use heddle_schemas::time::Timestamp;

use super::*;

fn passage(document: &str, headings: &[&str], text: &str) -> Passage {
    Passage {
        document: document.into(),
        title: String::new(),
        headings: headings.iter().map(|&heading| heading.into()).collect(),
        text: text.into(),
        score: 1.0,
    }
}

/// Passages of a clinic's documents, in no search's order.
fn clinic() -> Vec<Passage> {
    vec![
        passage("shop.md", &["Shop"], "We sell toothbrushes, floss and red shoes for nurses."),
        passage("hours.md", &["Acme Clinic", "Opening hours"], "Monday to Friday from nine to five."),
        passage("parking.md", &["Parking"], "There is a garage behind the house. It is free for two hours."),
        passage("prices.md", &["Prices"], "A cleaning is 60 euros, a check-up is 40 euros."),
        passage("zeiten.md", &["Öffnungszeiten"], "Montag bis Freitag von neun bis fünf."),
        passage("horario.md", &["Horario de apertura"], "De lunes a viernes, de nueve a cinco."),
    ]
}

fn ask(messages: &[&str], passages: &[Passage]) -> Answer {
    let messages: Vec<_> = messages.iter().map(|&message| message.to_owned()).collect();
    answer(&messages, passages)
}

fn source(message: &str) -> Option<String> {
    let answer = ask(&[message], &clinic());
    assert_eq!(answer.text.is_some(), !answer.sources.is_empty());
    assert!(answer.sources.len() <= 1, "{message}: {:?}", answer.sources);
    answer.sources.into_iter().next()
}

#[test]
fn a_question_is_answered_by_the_passage_about_it() {
    let answers = [
        ("What are your opening hours?", "hours.md"),
        ("when do you open", "hours.md"),
        ("Opening hours", "hours.md"),
        ("Hi! My name is Ann Smith and I broke a tooth. Are you open on Friday?", "hours.md"),
        ("Where can I park my car?", "parking.md"),
        ("how much is a cleaning?", "prices.md"),
        ("How much does a CHECK-UP cost, please?", "prices.md"),
        ("What do you sell?", "shop.md"),
        ("Wie sind eure Öffnungszeiten?", "zeiten.md"),
        ("Hallo, was sind die offnungszeiten bitte", "zeiten.md"),
        ("¿Cuál es el horario de apertura?", "horario.md"),
        ("Hola, quisiera saber el horario", "horario.md"),
    ];
    for (question, expected) in answers {
        assert_eq!(source(question).as_deref(), Some(expected), "{question}");
    }
}

#[test]
fn a_question_outside_the_documents_is_not_answered() {
    let unknown = [
        "Do you sell spaceships?",
        "Do you sell red spaceships?",
        "Who won the football game yesterday?",
        "I want to speak to a human",
        "Verkaufen Sie Raumschiffe?",
        "¿Venden naves espaciales?",
        "asdf qwer",
    ];
    for question in unknown {
        assert_eq!(source(question), None, "{question}");
    }
}

#[test]
fn a_greeting_is_not_answered() {
    let greetings = [
        "hello",
        "Hi!",
        "Good morning",
        "Hallo, guten Tag!",
        "Hola, buenos días",
        "Thanks!",
        "ok",
        "👍",
        "?",
        "",
        "how are you?",
        "merci",
    ];
    let mut passages = clinic();
    passages.push(passage(
        "welcome.md",
        &["Hello"],
        "Hello, good morning and welcome! Thanks for your visit.",
    ));
    for greeting in greetings {
        assert_eq!(ask(&[greeting], &passages).text, None, "{greeting}");
    }
}

#[test]
fn nothing_is_answered_without_passages() {
    assert_eq!(ask(&["What are your opening hours?"], &[]).text, None);
    assert_eq!(ask(&[], &clinic()).text, None);
}

#[test]
fn of_passages_that_answer_alike_the_first_is_taken() {
    let passages =
        [passage("first", &[], "Parking is free."), passage("second", &[], "Parking is behind the house.")];
    assert_eq!(ask(&["parking?"], &passages).sources, ["first"]);
    assert_eq!(ask(&["parking behind house?"], &passages).sources, ["second"]);
}

#[test]
fn each_question_of_a_turn_is_answered_once() {
    let answer = ask(&["When are you open?", "And is there parking?", "opening hours?"], &clinic());
    assert_eq!(answer.sources, ["hours.md", "parking.md"]);
    let text = answer.text.unwrap();
    assert_eq!(text.matches("Monday").count(), 1, "{text}");
    assert_eq!(
        text,
        "Monday to Friday from nine to five.\n\nThere is a garage behind the house. It is free for two hours."
    );
}

#[test]
fn a_long_passage_is_answered_by_the_sentences_that_matter() {
    let before = "The house was built long ago and has seen many owners come and go. ".repeat(6);
    let after = "Nobody remembers the first of them. ".repeat(6);
    let text = format!("{before}Dogs may wait in the garden. Water is provided. {after}");
    let answer = ask(&["Can I bring a dog?"], &[passage("house", &["Dogs and cats"], &text)]);
    let text = answer.text.unwrap();
    assert!(text.starts_with("Dogs may wait in the garden. Water is provided."), "{text}");
    assert!(text.len() < 120, "{text}");
}

#[test]
fn an_answer_is_cut_at_the_end_of_a_sentence() {
    let text = "Our garden is open to all of our guests. ".repeat(60);
    let answer = ask(&["prices"], &[passage("long", &["Prices"], &text)]).text.unwrap();
    assert!(answer.len() <= ANSWER && answer.len() > ANSWER - 60, "{}", answer.len());
    assert!(answer.ends_with("guests."));
    let unbroken = "ü".repeat(5_000);
    assert_eq!(
        ask(&["prices"], &[passage("x", &["Prices"], &unbroken)]).text.unwrap().chars().count(),
        ANSWER
    );
    let words = "wörter ".repeat(1_000);
    let answer = ask(&["prices"], &[passage("x", &["Prices"], &words)]).text.unwrap();
    assert!(answer.ends_with("wörter") && answer.chars().count() <= ANSWER);
}

#[tokio::test]
async fn it_makes_no_calls_and_uses_nothing() {
    let question = Question {
        at: Timestamp::EPOCH,
        tools: Vec::new(),
        steps: Vec::new(),
        outgoing: Outgoing::default(),
        other_names: Vec::new(),
        tenant: Arc::new(Tenant::from_toml("id = \"acme\"\nname = \"Acme\"").unwrap()),
        turn: TurnId(MessageKey::from_bytes([1; 16])),
        attempt: 1,
        messages: vec!["Where is the parking?".into()],
        history: Vec::new(),
        passages: clinic(),
        name: None,
    };
    assert!(!Extractive.calls_outside() && Extractive.reads_passages());
    let answer = Extractive.answer(question).await.unwrap();
    assert_eq!(answer.sources, ["parking.md"]);
    assert_eq!(answer.usage, Usage::default());
}
