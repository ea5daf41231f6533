//! Turns over a store that fails in passing and rows that cannot be read: an answer that was received is never
//! requested again, and a fault of one tenant affects no other. In memory, with paused time.

use std::time::Duration;

use super::node::{Node, echoes, seconds, takes_all, tenant};
use heddle_actors::partition::set_aside::SetAside;
use heddle_memory::responder::Response;
use heddle_schemas::id::OutboundId;
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::log::NewRecord;
use heddle_schemas::ports::responder::Question;
use heddle_schemas::record::dlq::DeadReason;
use heddle_schemas::record::inbound::{DeliveryReport, DeliveryStatus, InboundEvent};
use heddle_schemas::table::{Key, Table};
use heddle_schemas::topic::{Topic, TopicPartition};
use heddle_schemas::zone::Zone;
use serde_json::json;

#[tokio::test(start_paused = true)]
async fn an_answer_in_hand_survives_reads_that_fail() {
    let node = Node::with(
        vec![tenant("acme", "")],
        |clock, weather| {
            Box::new(move |question: &Question| {
                if question.messages == ["second"] {
                    // The store is away from the moment of the answer on.
                    weather.fail_reads(clock.now(), Duration::from_secs(5));
                }
                echoes(question)
            })
        },
        takes_all(),
    )
    .await;
    node.say("acme", "1", "first").await;
    seconds(2).await;
    // From here on nothing is in memory: whether the first turn was published has to be read.
    node.restart().await;
    node.say("acme", "2", "second").await;
    seconds(12).await;
    assert_eq!(node.texts(), ["on first", "on second"]);
    assert_eq!(node.calls(), [(1, 1), (1, 1)], "each turn is asked once");
}

/// A report about a message comes while the second turn runs, and the contact's key cannot be read for it.
#[tokio::test(start_paused = true)]
async fn an_answer_in_hand_survives_a_report_that_fails() {
    let answers = |question: &Question| match question.messages == ["second"] {
        true => echoes(question).after(Duration::from_secs(5)),
        false => echoes(question),
    };
    let node = Node::start(vec![tenant("acme", "")], Box::new(answers), takes_all()).await;
    node.say("acme", "1", "first").await;
    seconds(2).await;
    node.say("acme", "2", "second").await;
    seconds(2).await;
    let outbound = OutboundId { index: 7, ..node.sent()[0].0 };
    let (at, status) = (node.clock.now(), DeliveryStatus::Sent);
    let report = DeliveryReport { outbound, status, at, failure: None, message: None, pricing: None };
    node.command("acme", InboundEvent::Delivery(report)).await;
    node.weather.fail_every_second_get(node.clock.now(), Duration::from_secs(1));
    seconds(5).await;
    assert_eq!(node.texts(), ["on first", "on second"], "not a minute later");
    assert_eq!(node.calls(), [(1, 1), (1, 1)]);
}

fn quota_of(node: &Node, tenant: &str) -> Key {
    let month = Zone::default().month(node.clock.now());
    Key::quota(&tenant.parse().unwrap(), &month.to_string())
}

fn set_aside(node: &Node) -> Vec<SetAside> {
    let rows = node.disk.rows(node.clock.now());
    let agenda = rows.into_iter().filter(|(key, value)| key.table() == Table::Agenda && !value.is_empty());
    agenda.map(|(_, value)| serde_json::from_slice(&value).unwrap()).collect()
}

/// Both tenants are in one partition. The model takes its time for the second, so that a partition that restarted
/// meanwhile would show as a second attempt.
#[tokio::test(start_paused = true)]
async fn a_damaged_ledger_of_one_tenant_stops_its_turns_alone() {
    let answers = |question: &Question| echoes(question).after(Duration::from_secs(8));
    let node = Node::start(vec![tenant("bad", ""), tenant("good", "")], Box::new(answers), takes_all()).await;
    node.damage(&quota_of(&node, "bad"), Some(r#"{"v":9,"spent":"much"}"#)).await;
    node.say("good", "1", "hello").await;
    node.say("bad", "2", "help").await;
    seconds(30).await;
    assert_eq!(node.texts(), ["on hello"]);
    assert_eq!(node.calls(), [(1, 1)], "asked once, and only for the good one");
    let aside = set_aside(&node);
    assert_eq!(aside.len(), 1);
    assert_eq!((aside[0].reason, aside[0].attempts >= 2), (DeadReason::Unreadable, true), "{aside:?}");
    assert!(node.ports().metrics.set_aside_total() >= 2);
    assert!(!aside[0].detail.contains("much"), "it repeats nothing of the row");

    // A restart loses none of it, and the turn goes on as soon as the ledger is repaired: no attempt is lost.
    node.restart().await;
    seconds(2).await;
    assert_eq!(set_aside(&node)[0].attempts, aside[0].attempts + 1);
    node.damage(&quota_of(&node, "bad"), None).await;
    seconds(200).await;
    assert_eq!(node.texts(), ["on hello", "on help"]);
    assert_eq!(node.calls(), [(1, 1), (1, 1)]);
    assert_eq!(set_aside(&node), []);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_conversation_goes_to_the_dead_letters_alone() {
    let node = Node::start(vec![tenant("bad", ""), tenant("good", "")], Box::new(echoes), takes_all()).await;
    node.say("bad", "1", "before").await;
    seconds(2).await;
    let head = Key::head(&node.conversation("bad"));
    node.restart().await;
    node.damage(&head, Some(r#"{"v":1,"next_row":"Ann"}"#)).await;
    node.say("bad", "2", "help").await;
    node.say("good", "3", "hello").await;
    seconds(5).await;
    assert_eq!(node.texts(), ["on before", "on hello"]);
    let dead = node.dead_letters();
    let reasons: Vec<_> = dead
        .iter()
        .map(|dead_letter| (*dead_letter.reason.as_known().unwrap(), dead_letter.original.is_some()))
        .collect();
    assert_eq!(reasons, [(DeadReason::Unreadable, true)]);
    assert!(!dead[0].detail.contains("Ann"), "it repeats nothing of the row: {}", dead[0].detail);
}

/// An opt-out that a connector publishes reads the person's record.
#[tokio::test(start_paused = true)]
async fn a_damaged_contact_delays_no_connector() {
    let node = Node::start(vec![tenant("bad", ""), tenant("good", "")], Box::new(echoes), takes_all()).await;
    node.say("bad", "1", "before").await;
    seconds(2).await;
    let contact = node.conversation("bad").contact;
    node.damage(&Key::contact(&"bad".parse().unwrap(), contact), Some(r#"{"v":"Ann"}"#)).await;
    for (tenant, phone, body) in [("bad", "+49157000003", "STOP"), ("good", "+49157000004", "hello")] {
        let record = json!({
            "v": 1, "tenant": tenant, "channel": "whatsapp", "account": tenant, "message_id": tenant,
            "at": node.clock.now().to_string(), "from": { "phone": phone },
            "event": { "type": "message", "content": { "type": "text", "body": body } },
        });
        let partition = TopicPartition { topic: Topic::Ingress, partition: 0 };
        let record = NewRecord { partition, key: tenant.into(), value: record.to_string().into() };
        node.disk.publish(vec![record], node.clock.now());
    }
    seconds(5).await;
    assert_eq!(node.texts(), ["on before", "on hello"]);
    let dead = node.dead_letters();
    assert_eq!(dead.len(), 1);
    let tenant = dead[0].tenant.as_ref().map(|tenant| tenant.as_str());
    assert_eq!((*dead[0].reason.as_known().unwrap(), tenant), (DeadReason::Unreadable, Some("bad")));
    assert!(dead[0].original.is_some(), "it can be replayed once the row is mended");
    assert!(!dead[0].detail.contains("Ann"), "it repeats nothing of the row: {}", dead[0].detail);
}

/// A row that cannot be read when a finished answer is committed: the answer waits until the row is repaired.
#[tokio::test(start_paused = true)]
async fn an_answer_waits_for_a_damaged_row_to_be_mended() {
    let node = Node::start(
        vec![tenant("acme", "")],
        Box::new(|question: &Question| match question.messages == ["second"] {
            true => Response::text(question, "kept").after(Duration::from_secs(5)),
            false => echoes(question),
        }),
        takes_all(),
    )
    .await;
    node.say("acme", "1", "first").await;
    seconds(2).await;
    node.restart().await;
    node.say("acme", "2", "second").await;
    seconds(2).await;
    // The commit checks that the turn before was counted.
    node.damage(&quota_of(&node, "acme"), Some("{}}")).await;
    seconds(20).await;
    assert_eq!(node.texts(), ["on first"]);
    node.damage(&quota_of(&node, "acme"), None).await;
    seconds(60).await;
    assert_eq!(node.texts(), ["on first", "kept"]);
    assert_eq!(node.calls(), [(1, 1), (1, 1)]);
}
