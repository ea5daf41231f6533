//! Content of turns: edits, deletions and names in the model's input, messages of the next turn, answers that may not
//! be sent any more, and conversations that go round in circles. In memory, with paused time.

use std::time::Duration;

use super::node::{Node, echoes, seconds, takes_all, tenant};
use heddle_memory::channel::{Reply, Sending};
use heddle_memory::responder::Response;
use heddle_schemas::content::Content;
use heddle_schemas::id::MessageKey;
use heddle_schemas::lenient::Lenient;
use heddle_schemas::ports::channel::Act;
use heddle_schemas::ports::responder::{Question, Speaker};
use heddle_schemas::record::decode;
use heddle_schemas::record::event::{Event, HandOver, Outcome};
use heddle_schemas::record::inbound::{Handler, Handling, InboundEvent};
use heddle_schemas::record::outbound::{OutboundCommand, OutboundRecord};
use heddle_schemas::tenant::Tenant;
use heddle_schemas::topic::Topic;

fn text(body: &str) -> Content {
    Content::Text { body: body.into() }
}

fn slow() -> Tenant {
    let mut tenant = tenant("acme", "");
    tenant.agent.settle = Duration::from_secs(2);
    tenant
}

fn customer_said(question: &Question) -> Vec<&str> {
    let by_customer = question.history.iter().filter(|said| said.by == Speaker::Customer);
    by_customer.map(|said| said.text.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn an_answered_message_is_shown_as_it_was_edited_and_not_at_all_once_deleted() {
    let node = Node::start(vec![tenant("acme", "")], Box::new(echoes), takes_all()).await;
    node.say("acme", "1", "my pin is 1234").await;
    seconds(2).await;
    node.say("acme", "2", "come at four").await;
    seconds(2).await;
    node.act("acme", "3", "Ann", Act::Delete { target: "1".into() }).await;
    node.say("acme", "4", "are you there?").await;
    // While it waits: the row comes after the message that is about to be answered.
    node.act("acme", "5", "Ann", Act::Edit { target: "2".into(), content: text("come at five") }).await;
    seconds(2).await;
    node.restart().await;
    node.say("acme", "6", "thanks").await;
    seconds(2).await;
    let asked = node.asked.lock().unwrap().clone();
    let shown: Vec<_> = asked.iter().map(customer_said).collect();
    assert_eq!(shown[1], ["my pin is 1234"]);
    assert_eq!(shown[2], ["come at five"]);
    assert_eq!(shown[3], ["come at five", "are you there?"]);
}

#[tokio::test(start_paused = true)]
async fn an_open_message_that_is_edited_is_not_shown_as_history() {
    let node = Node::start(vec![slow()], Box::new(echoes), takes_all()).await;
    node.say("acme", "1", "at for").await;
    node.say("acme", "2", "please").await;
    node.act("acme", "3", "Ann", Act::Edit { target: "1".into(), content: text("at four") }).await;
    seconds(8).await;
    let asked = node.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 1);
    assert_eq!((asked[0].messages.join("|").as_str(), asked[0].history.len()), ("at four|please", 0));
}

#[tokio::test(start_paused = true)]
async fn every_name_of_a_person_is_passed_to_the_masking_of_names() {
    let node = Node::start(vec![tenant("acme", "")], Box::new(echoes), takes_all()).await;
    for (number, name) in ["Ann Miller", "Annabel Smith"].into_iter().enumerate() {
        node.act("acme", &number.to_string(), name, Act::Say(text(&format!("this is {name}")))).await;
        seconds(2).await;
    }
    // Out of sight of the history that a turn reads.
    for number in 2..12 {
        node.act("acme", &number.to_string(), "Bell", Act::Say(text(&format!("message {number}")))).await;
        seconds(2).await;
    }
    node.restart().await;
    node.act("acme", "99", "Bell", Act::Say(text("well?"))).await;
    seconds(2).await;
    let asked = node.asked.lock().unwrap().last().unwrap().clone();
    assert_eq!(asked.name.as_deref(), Some("Bell"));
    for name in ["Ann Miller", "Annabel Smith"] {
        assert!(asked.other_names.iter().any(|known| known == name), "{:?}", asked.other_names);
    }
}

/// The second attempt adopts the claim of the first, which covers the first message alone.
#[tokio::test(start_paused = true)]
async fn an_edit_during_an_adopted_turn_belongs_to_the_next_one() {
    let answers = |question: &Question| match question.attempt {
        1 if question.messages == ["first"] => Response { after: Duration::ZERO, result: None },
        _ => echoes(question).after(Duration::from_secs(4)),
    };
    let node = Node::start(vec![tenant("acme", "")], Box::new(answers), takes_all()).await;
    node.say("acme", "1", "first").await;
    seconds(1).await;
    node.say("acme", "2", "secnod").await;
    seconds(1).await;
    node.restart().await;
    seconds(2).await;
    assert_eq!(node.asked.lock().unwrap().last().unwrap().attempt, 2, "it is under way");
    node.act("acme", "3", "Ann", Act::Edit { target: "2".into(), content: text("second") }).await;
    seconds(20).await;
    assert_eq!(node.texts(), ["on first", "on second"]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_made_before_a_human_had_the_word_is_discarded() {
    let answers = |question: &Question| echoes(question).after(Duration::from_secs(6));
    let node = Node::start(vec![tenant("acme", "")], Box::new(answers), takes_all()).await;
    node.say("acme", "1", "first").await;
    seconds(2).await;
    for (number, by) in [(1, Handler::Human), (2, Handler::Agent)] {
        let key = MessageKey::from_bytes([number; 16]);
        node.command("acme", InboundEvent::Handling(Handling { key, by })).await;
        seconds(1).await;
    }
    node.say("acme", "2", "second").await;
    seconds(20).await;
    assert_eq!(node.texts(), ["on second"]);
    let outcomes = node.events().into_iter().filter_map(|event| match event {
        Event::Turn { outcome, .. } => outcome.known(),
        _ => None,
    });
    assert_eq!(outcomes.collect::<Vec<_>>(), [Outcome::Silent, Outcome::Answered]);
}

/// The first part has left when the node dies; it is unknown whether the second was published.
#[tokio::test(start_paused = true)]
async fn each_part_of_a_reply_is_asked_for_after_a_crash() {
    let long = format!("{} {}", "a".repeat(4_000), "b".repeat(4_000));
    let answers = move |question: &Question| Response::text(question, long.clone());
    let sends =
        |message: &heddle_schemas::ports::channel::OutboundMessage, calls: usize| match message.id.index == 1
            && calls == 0
        {
            true => Sending::from(Reply::Hangs),
            false => Sending::default(),
        };
    let acme = tenant("acme", "[llm]\nanswer_tokens = 2000");
    let node = Node::start(vec![acme], Box::new(answers), Box::new(sends)).await;
    node.say("acme", "1", "tell me all").await;
    seconds(2).await;
    let published = |node: &Node| {
        let records = node.records(Topic::Outbound);
        let commands = records.iter().map(|value| decode::<OutboundRecord>(value).unwrap().command);
        let sends = commands.filter_map(|command| match command {
            OutboundCommand::Send(send) => Some((send.id.index, send.again)),
            _ => None,
        });
        sends.collect::<Vec<_>>()
    };
    assert_eq!((published(&node), node.texts().len()), (vec![(0, false), (1, false)], 1));
    node.restart().await;
    // The webhook comes again, as it does where its 200 was lost.
    node.say("acme", "1", "tell me all").await;
    seconds(1).await;
    assert_eq!(published(&node)[2..], [(0, true), (1, true)], "the second part may be missing");
    seconds(600).await;
    let accepted = node.channel.times_accepted();
    assert!(accepted.len() == 2 && accepted.values().all(|times| *times == 1), "{accepted:?}");
}

#[tokio::test(start_paused = true)]
async fn a_bot_that_always_says_the_same_is_answered_four_times() {
    let same = |question: &Question| Response::text(question, "Sorry, what do you mean?");
    let node = Node::start(
        vec![tenant("acme", ""), tenant("human", "loop_guard = { rounds = 2, then = \"hand_over\" }")],
        Box::new(same),
        takes_all(),
    )
    .await;
    for number in 0..20 {
        for tenant in ["acme", "human"] {
            node.say(tenant, &format!("{tenant}{number}"), "Press 1 for sales").await;
        }
        seconds(2).await;
        if number == 10 {
            // Its counts outlive the node.
            node.restart().await;
        }
    }
    node.say("acme", "else", "I am a person").await;
    seconds(2).await;
    assert_eq!(node.texts().len(), 4 + 2 + 1);
    let events = node.events();
    let stopped = events.iter().filter_map(|event| match event {
        Event::LoopStopped { conversation, rounds } => Some((conversation.tenant.to_string(), *rounds)),
        _ => None,
    });
    let mut stopped = stopped.collect::<Vec<_>>();
    stopped.sort();
    assert_eq!(stopped, [("acme".to_owned(), 4), ("human".to_owned(), 2)]);
    let handed_over =
        |event: &&Event| matches!(event, Event::HandedOver { because: Lenient::Known(HandOver::Loop), .. });
    assert_eq!(events.iter().filter(handed_over).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_card_number_that_a_customer_types_is_never_stored_nor_shown_to_a_model() {
    let kept = "[privacy]\ncard_numbers = \"kept\"\n";
    let node =
        Node::start(vec![tenant("acme", ""), tenant("other", kept)], Box::new(echoes), takes_all()).await;
    node.say("acme", "1", "pay with 4111 1111 1111 1111, please").await;
    seconds(2).await;
    node.act("acme", "2", "Ann", Act::Edit { target: "1".into(), content: text("or 5555-5555-5555-4444") })
        .await;
    node.say("acme", "3", "call +49 151 1234567").await;
    seconds(2).await;
    node.say("other", "4", "4111 1111 1111 1111").await;
    seconds(2).await;
    let asked = node.asked.lock().unwrap().clone();
    assert_eq!(asked[0].messages, ["pay with [card number removed], please"]);
    assert_eq!(customer_said(&asked[1]), ["or [card number removed]"]);
    assert_eq!(asked[1].messages, ["call +49 151 1234567"]);
    assert_eq!(asked[2].messages, ["4111 1111 1111 1111"], "as it is configured");
}
