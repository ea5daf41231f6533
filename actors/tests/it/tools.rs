//! Tools of the agent, through a whole node over the store in memory: tools are called once also where the node dies in
//! the middle, a human takes over and gives back, and a spent quota has its configured effect.

use std::num::NonZeroUsize;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use heddle_actors::options::Options;
use heddle_actors::partition::publish;
use heddle_actors::tenant::quota;
use heddle_memory::calendar::{CalendarAnswer, CalendarCall, CalendarReply};
use heddle_memory::responder::Response;
use heddle_memory::{Fault, MemoryCalendar, ScriptedResponder};
use heddle_schemas::id::{ChannelKind, ConversationId, MessageKey};
use heddle_schemas::lenient::Lenient;
use heddle_schemas::ports::clock::Clock as _;
use heddle_schemas::ports::log::Log as _;
use heddle_schemas::ports::responder::{Answer, Question, ToolCall, Usage};
use heddle_schemas::record::V;
use heddle_schemas::record::event::{Event, HandOver, Outcome};
use heddle_schemas::record::inbound::{Handler, Handling, InboundEvent, InboundRecord};
use heddle_schemas::tenant::Tenant;
use heddle_testing::{Node, Site, SiteBuilder, TenantBuilder, message};
use serde_json::{Value, json};

fn tenant(more: &str) -> Tenant {
    TenantBuilder::new("acme")
        .fallback("Later.")
        .account("1")
        .more(
            "[hours]\ntime_zone = \"Europe/Berlin\"\nfriday = [\"09:00-12:00\"]\n\
             [calendar]\nkind = \"google\"\nclient_id = \"c\"\nclient_secret = \"s\"\nrefresh_token = \"r\"\n\
             [[tools.payments]]\nname = \"deposit\"\ndescription = \"for a visit\"\n\
             url = \"https://pay.example/acme\"",
        )
        .more(more)
        .build()
}

fn calls(name: &str, arguments: Value) -> Response {
    let call = ToolCall { id: "1".into(), name: name.into(), arguments, mark: None };
    let usage = Usage { input_tokens: 10, output_tokens: 5, ..Usage::default() };
    Response {
        after: Duration::from_millis(50),
        result: Some(Ok(Answer { calls: vec![call], ..Answer::none(usage) })),
    }
}

/// Calls the tool that the message names, once, and then repeats its result.
fn obedient(question: &Question) -> Response {
    let asked = question.messages.join("\n");
    match (question.steps.last(), asked.split_once(' ')) {
        (None, Some((name, arguments))) if asked.ends_with('}') => {
            calls(name, serde_json::from_str(arguments).unwrap())
        }
        (Some(step), _) => {
            Response::text(question, step.results[0].to_string()).after(Duration::from_millis(50))
        }
        _ => Response::text(question, format!("You said: {asked}")),
    }
}

/// Site with a calendar; its nodes are started and ended by the test.
struct Scenario {
    site: Site,
    responder: Arc<ScriptedResponder>,
    calendar: Arc<MemoryCalendar>,
    number: AtomicU32,
}

impl Deref for Scenario {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

impl Scenario {
    fn new(script: impl Fn(&Question) -> Response + Send + Sync + 'static, calendar: MemoryCalendar) -> Self {
        let (responder, calendar) = (Arc::new(ScriptedResponder::new(true, script)), Arc::new(calendar));
        let of_ports = calendar.clone();
        let site = SiteBuilder::default()
            .partitions(1)
            .faults(|_| Fault::NONE)
            .options(Options { turns_per_tenant: NonZeroUsize::new(4).unwrap(), ..Options::default() })
            .responder(responder.clone())
            .ports(move |ports| ports.calendar(of_ports.clone()))
            .build();
        Self { site, responder, calendar, number: AtomicU32::new(0) }
    }

    async fn say(&self, node: &Node, text: &str) {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let message =
            message::said("1", message::phone("49157000001"), &format!("m{number}"), text, self.clock.now());
        let tenant = node.system.tenants.get(&"acme".parse().unwrap()).unwrap();
        node.system.reception.accept(ChannelKind::Whatsapp, &tenant, vec![message]).await.unwrap();
    }

    async fn handle(&self, node: &Node, conversation: ConversationId, by: Handler) {
        let key = MessageKey::from_bytes((node.ports.random)());
        let event = InboundEvent::Handling(Handling { key, by });
        let record = InboundRecord { v: V, conversation, at: self.clock.now(), event };
        node.store.append(vec![publish::inbound(&node.ports, &record)]).await.unwrap();
    }

    async fn wait(&self, what: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !what(self) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(300), waiting).await;
        waited.unwrap_or_else(|_| panic!("{:?}, {:?}", self.sent(), self.events()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_tool_is_called_and_what_it_gives_is_answered_from() {
    let scenario = Scenario::new(obedient, MemoryCalendar::default());
    let node = scenario.boot().await;
    node.system.tenants.apply(tenant("")).await.unwrap();
    let cases = [
        ("payment_link {\"name\":\"deposit\"}", json!({ "url": "https://pay.example/acme" })),
        (
            "payment_link {\"name\":\"ransom\"}",
            json!({ "error": "there is nothing of this name to pay for" }),
        ),
        (
            "opening_hours {\"date\":\"2026-01-02\"}",
            json!({ "date": "2026-01-02", "open": [{ "from": "Friday 2026-01-02 09:00", "to": "Friday 2026-01-02 12:00" }] }),
        ),
        ("opening_hours {\"date\":\"soon\"}", json!({ "error": "date is to be written as 2026-01-31" })),
        (
            "book_appointment {\"at\":\"2026-01-02 13:00\"}",
            json!({ "error": "not possible: no appointment begins at that time" }),
        ),
        ("erase_everything {\"now\":true}", json!({ "error": "there is no such tool" })),
    ];
    for (number, (asked, expected)) in cases.into_iter().enumerate() {
        scenario.say(&node, asked).await;
        scenario.wait(|scenario| scenario.sent().len() == number + 1).await;
        assert_eq!(serde_json::from_str::<Value>(&scenario.sent()[number]).unwrap(), expected, "{asked}");
    }
    scenario.say(&node, "find_appointments {\"from\":\"2026-01-02 10:30\"}").await;
    scenario.wait(|scenario| scenario.sent().len() == 7).await;
    let free: Value = serde_json::from_str(&scenario.sent()[6]).unwrap();
    assert_eq!(free["free"][0], "Friday 2026-01-02 10:30");
    // Two calls of 10 and 5, and of 1 to 3 words, for each turn.
    let month = "2026-01".parse().unwrap();
    let tenant = node.system.tenants.get(&"acme".parse().unwrap()).unwrap();
    let usage = quota::usage(&node.ports, &tenant, month).await.unwrap().total();
    assert_eq!((usage.turns, usage.messages), (7, 7));
    assert!(usage.input_tokens >= 7 * 12, "{usage:?}");
    node.system.kill().await;
}

/// The node dies after the calendar has booked and before it received the answer.
#[tokio::test(start_paused = true)]
async fn an_appointment_is_booked_once_also_through_a_crash() {
    let first = AtomicBool::new(true);
    let calendar = MemoryCalendar::new(move |call, _| match call {
        CalendarCall::Book(_) if first.swap(false, Ordering::Relaxed) => CalendarReply::DoesAndHangs.into(),
        _ => CalendarAnswer::default(),
    });
    let scenario = Scenario::new(obedient, calendar);
    let node = scenario.boot().await;
    node.system.tenants.apply(tenant("")).await.unwrap();
    scenario.say(&node, "book_appointment {\"at\":\"2026-01-02 09:30\",\"about\":\"teeth\"}").await;
    scenario.wait(|scenario| !scenario.calendar.entries("primary").is_empty()).await;
    node.store.close();
    node.system.kill().await;

    let node = scenario.boot().await;
    scenario.wait(|scenario| !scenario.sent().is_empty()).await;
    let booked = json!({ "booked": "Friday 2026-01-02 09:30", "until": "Friday 2026-01-02 10:00" });
    assert_eq!(serde_json::from_str::<Value>(&scenario.sent()[0]).unwrap(), booked);
    let entries = scenario.calendar.entries("primary");
    assert_eq!(entries.len(), 1, "{entries:?}");
    let calls = scenario.calendar.calls();
    assert_eq!(calls.iter().filter(|call| matches!(call, CalendarCall::Book(_))).count(), 2);
    // The first question was answered with the call before the crash, and is not asked again.
    let asked: Vec<_> =
        scenario.responder.calls().into_iter().map(|((_, attempt), times)| (attempt, times)).collect();
    assert_eq!(asked, [(1, 1), (2, 1)]);
    node.system.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_human_takes_over_and_gives_back() {
    let scenario = Scenario::new(obedient, MemoryCalendar::default());
    let node = scenario.boot().await;
    node.system.tenants.apply(tenant("")).await.unwrap();
    scenario.say(&node, "hand_over {}").await;
    scenario.wait(|scenario| scenario.sent().len() == 1).await;
    assert_eq!(scenario.sent(), ["A colleague will take over from here."]);
    let handed = scenario.events().into_iter().find_map(|event| match event {
        Event::HandedOver { conversation, because: Lenient::Known(HandOver::Agent) } => Some(conversation),
        _ => None,
    });
    let conversation = handed.unwrap();
    scenario.say(&node, "is anybody there?").await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(scenario.sent().len(), 1, "the human has the word");

    scenario.handle(&node, conversation.clone(), Handler::Agent).await;
    scenario
        .wait(|scenario| scenario.events().iter().any(|event| matches!(event, Event::GivenBack { .. })))
        .await;
    scenario.say(&node, "and now?").await;
    scenario.wait(|scenario| scenario.sent().len() == 2).await;
    assert_eq!(scenario.sent()[1], "You said: and now?");

    // By the tenant, while the agent is about to book.
    scenario.say(&node, "opening_hours {\"date\":\"2026-01-02\"}").await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    scenario.handle(&node, conversation, Handler::Human).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(scenario.sent().len(), 2);
    let last = scenario.events().into_iter().rev().find_map(|event| match event {
        Event::Turn { outcome, .. } => outcome.known(),
        _ => None,
    });
    assert_eq!(last, Some(Outcome::Silent));
    node.system.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_spent_quota_does_what_is_configured() {
    let cases = [
        ("when_spent = \"fallback\"\nmessages_per_month = 2", 2, None),
        ("when_spent = \"silence\"\nmessages_per_month = 2", 2, None),
        ("when_spent = \"hand_over\"\nmessages_per_month = 2", 2, Some(HandOver::Quota)),
        // The first call may use 1,001 words, and uses a few of them.
        ("when_spent = \"fallback\"\ntokens_per_month = 1003", 3, None),
    ];
    for (quota, messages, because) in cases {
        let said = Arc::new(Mutex::new(0));
        let scenario = Scenario::new(
            {
                let said = said.clone();
                move |question: &Question| {
                    *said.lock().unwrap() += 1;
                    Response::text(question, "yes")
                }
            },
            MemoryCalendar::default(),
        );
        let node = scenario.boot().await;
        node.system.tenants.apply(tenant(&format!("[quota]\n{quota}\n"))).await.unwrap();
        for number in 0..3 {
            scenario.say(&node, "well?").await;
            let turns = move |scenario: &Scenario| {
                scenario.events().iter().filter(|event| matches!(event, Event::Turn { .. })).count()
            };
            scenario.wait(|scenario| turns(scenario) == number + 1).await;
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(scenario.sent().len(), messages, "{quota}: {:?}", scenario.sent());
        let handed = scenario.events().into_iter().find_map(|event| match event {
            Event::HandedOver { because, .. } => because.known(),
            _ => None,
        });
        assert_eq!(handed, because, "{quota}");
        let published = |spent: bool| {
            let events = scenario.events();
            let is = |event: &&Event| match event {
                Event::QuotaSpent { .. } => spent,
                Event::QuotaWarning { .. } => !spent,
                _ => false,
            };
            events.iter().filter(is).count()
        };
        assert_eq!(published(true), 1, "{quota}: {:?}", scenario.events());
        assert!(published(false) >= 1, "{quota}: warned before");
        node.system.kill().await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_customer_does_not_book_out_the_calendar() {
    let scenario = Scenario::new(obedient, MemoryCalendar::default());
    let node = scenario.boot().await;
    node.system.tenants.apply(tenant("[agent.per_contact]\nopen_bookings = 2\n")).await.unwrap();
    for (number, time) in ["09:00", "09:30", "10:00", "10:30"].into_iter().enumerate() {
        scenario.say(&node, &format!("book_appointment {{\"at\":\"2026-01-02 {time}\"}}")).await;
        scenario.wait(|scenario| scenario.sent().len() == number + 1).await;
        let said: Value = serde_json::from_str(&scenario.sent()[number]).unwrap();
        assert_eq!(said.get("booked").is_some(), number < 2, "{said}");
        assert_eq!(
            said["error"].as_str().is_some_and(|why| why.contains("as many appointments")),
            number >= 2
        );
    }
    assert_eq!(scenario.calendar.entries("primary").len(), 2);
    // They hold through a crash.
    node.system.kill().await;
    let node = scenario.boot().await;
    scenario.say(&node, "book_appointment {\"at\":\"2026-01-02 11:00\"}").await;
    scenario.wait(|scenario| scenario.sent().len() == 5).await;
    assert!(scenario.sent()[4].contains("as many appointments"));
    node.system.kill().await;
}

#[tokio::test(start_paused = true)]
async fn one_customer_does_not_spend_the_tenants_month() {
    let scenario = Scenario::new(obedient, MemoryCalendar::default());
    let node = scenario.boot().await;
    node.system.tenants.apply(tenant("[agent.per_contact]\nturns_per_hour = 3\n")).await.unwrap();
    for number in 0..8 {
        scenario.say(&node, &format!("question {number}")).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    let sent = scenario.sent();
    assert_eq!(sent[..3], [0, 1, 2].map(|number| format!("You said: question {number}")));
    assert_eq!(sent[3..], ["Later."], "the fallback, once");
    let calls: u32 = scenario.responder.calls().into_values().sum();
    assert_eq!(calls, 3);
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    scenario.say(&node, "question 9").await;
    scenario.wait(|scenario| scenario.sent().len() == 5).await;
    assert_eq!(scenario.sent()[4], "You said: question 9");
    node.system.kill().await;
}
