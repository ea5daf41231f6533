//! What the agent does beside talking, through a whole node over the store in memory: tools are called once also where
//! the node dies in the middle, a human takes over and gives back, and a spent quota does what is configured.

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use heddle_actors::options::Options;
use heddle_actors::partition::publish;
use heddle_actors::ports::Ports;
use heddle_actors::system::System;
use heddle_actors::tenant::quota;
use heddle_keys::{self as keys, EnvelopeKeys, MasterKey};
use heddle_memory::calendar::{CalendarAnswer, CalendarCall, CalendarReply};
use heddle_memory::responder::Response;
use heddle_memory::{
    MemoryCalendar, MemoryDisk, MemoryStore, Options as StoreOptions, ScriptedChannel, ScriptedResponder,
    TokioClock,
};
use heddle_schemas::content::{Address, Content, Context};
use heddle_schemas::id::{ChannelKind, ConversationId, MessageKey};
use heddle_schemas::ports::channel::{Act, ChannelEvent, ReceivedMessage};
use heddle_schemas::ports::clock::Clock as _;
use heddle_schemas::ports::log::Log as _;
use heddle_schemas::ports::responder::{Answer, Question, ToolCall, Usage};
use heddle_schemas::record::event::{Event, EventRecord, HandOver, Outcome};
use heddle_schemas::record::inbound::{Handler, Handling, InboundEvent, InboundRecord};
use heddle_schemas::record::{V, decode};
use heddle_schemas::tenant::Tenant;
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Topic, TopicPartition};
use heddle_testing::PortsBuilder;
use serde_json::{Value, json};

/// Thursday, 1 January 2026, 00:00 UTC.
const NOW: Timestamp = Timestamp::from_secs(1_767_225_600);

fn tenant(more: &str) -> Tenant {
    let text = format!(
        "id = \"acme\"\nname = \"Acme\"\n[agent]\nfallback = \"Later.\"\nsettle = \"0s\"\n[[channels]]\nkind = \"whatsapp\"\n\
         account = \"1\"\naccess_token = \"t\"\napp_secret = \"s\"\nverify_token = \"v\"\n[hours]\ntime_zone = \"Europe/Berlin\"\n\
         friday = [\"09:00-12:00\"]\n[calendar]\nkind = \"google\"\nclient_id = \"c\"\nclient_secret = \"s\"\nrefresh_token = \"r\"\n\
         [[tools.payments]]\nname = \"deposit\"\ndescription = \"for a visit\"\nurl = \"https://pay.example/acme\"\n{more}"
    );
    Tenant::from_toml(&text).unwrap()
}

fn calls(name: &str, arguments: Value) -> Response {
    let call = ToolCall { id: "1".into(), name: name.into(), arguments, mark: None };
    let usage = Usage { input_tokens: 10, output_tokens: 5, ..Usage::default() };
    Response {
        after: Duration::from_millis(50),
        result: Some(Ok(Answer { calls: vec![call], ..Answer::none(usage) })),
    }
}

/// Calls what the message names, once, and then repeats what that gave.
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

/// A world that outlives its nodes.
struct World {
    disk: Arc<MemoryDisk>,
    clock: Arc<TokioClock>,
    master: MasterKey,
    channel: Arc<ScriptedChannel>,
    responder: Arc<ScriptedResponder>,
    calendar: Arc<MemoryCalendar>,
    number: AtomicU32,
}

struct Node {
    store: Arc<MemoryStore>,
    ports: Ports,
    system: System,
}

impl World {
    fn new(script: impl Fn(&Question) -> Response + Send + Sync + 'static, calendar: MemoryCalendar) -> Self {
        Self {
            disk: MemoryDisk::new(NonZeroU32::MIN),
            clock: Arc::new(TokioClock::starting_at(NOW)),
            master: MasterKey::generate(),
            channel: Arc::default(),
            responder: Arc::new(ScriptedResponder::new(true, script)),
            calendar: Arc::new(calendar),
            number: AtomicU32::new(0),
        }
    }

    async fn boot(&self) -> Node {
        let options = StoreOptions { split: true, ..StoreOptions::default() };
        let store = Arc::new(MemoryStore::open_with(self.disk.clone(), self.clock.clone(), options));
        let keys =
            EnvelopeKeys::new(store.clone(), self.clock.clone(), &self.master, keys::Options::default());
        let (clock, channel) = (self.clock.clone(), self.channel.clone());
        let mut ports =
            PortsBuilder::new(store.clone(), keys, clock, channel, self.responder.clone()).build();
        ports.calendar = self.calendar.clone();
        let options = Options { turns_per_tenant: NonZeroUsize::new(4).unwrap(), ..Options::default() };
        let system = System::start(ports.clone(), options).await.unwrap();
        Node { store, ports, system }
    }

    async fn say(&self, node: &Node, text: &str) {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let message = ChannelEvent::Message(ReceivedMessage {
            account: "1".parse().unwrap(),
            id: format!("m{number}"),
            from: Address {
                phone: Some("49157000001".into()),
                name: Some("Ann".into()),
                ..Address::default()
            },
            sent_at: self.clock.now(),
            act: Act::Say(Content::Text { body: text.into() }),
            context: Context::default(),
        });
        let tenant = node.system.tenants.get(&"acme".parse().unwrap()).unwrap();
        node.system.reception.accept(ChannelKind::Whatsapp, &tenant, vec![message]).await.unwrap();
    }

    /// What was sent to the customer.
    fn sent(&self) -> Vec<String> {
        let texts = self.channel.accepted().into_iter().map(|call| match call.message.content {
            Content::Text { body } => body,
            other => panic!("{other:?}"),
        });
        texts.collect()
    }

    fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        for partition in 0..self.disk.partitions(Topic::Events) {
            for record in self.disk.records(TopicPartition { topic: Topic::Events, partition }) {
                events.push(decode::<EventRecord>(&record.value).unwrap().event);
            }
        }
        events
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
    let world = World::new(obedient, MemoryCalendar::default());
    let node = world.boot().await;
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
        world.say(&node, asked).await;
        world.wait(|world| world.sent().len() == number + 1).await;
        assert_eq!(serde_json::from_str::<Value>(&world.sent()[number]).unwrap(), expected, "{asked}");
    }
    world.say(&node, "find_appointments {\"from\":\"2026-01-02 10:30\"}").await;
    world.wait(|world| world.sent().len() == 7).await;
    let free: Value = serde_json::from_str(&world.sent()[6]).unwrap();
    assert_eq!(free["free"][0], "Friday 2026-01-02 10:30");
    // Two calls of 10 and 5, and of 1 to 3 words, for each turn.
    let month = "2026-01".parse().unwrap();
    let tenant = node.system.tenants.get(&"acme".parse().unwrap()).unwrap();
    let usage = quota::usage(&node.ports, &tenant, month).await.unwrap().total();
    assert_eq!((usage.turns, usage.messages), (7, 7));
    assert!(usage.input_tokens >= 7 * 12, "{usage:?}");
    node.system.kill().await;
}

/// The node dies after the calendar has booked and before anybody heard of it.
#[tokio::test(start_paused = true)]
async fn an_appointment_is_booked_once_also_through_a_crash() {
    let first = AtomicBool::new(true);
    let calendar = MemoryCalendar::new(move |call, _| match call {
        CalendarCall::Book(_) if first.swap(false, Ordering::Relaxed) => CalendarReply::DoesAndHangs.into(),
        _ => CalendarAnswer::default(),
    });
    let world = World::new(obedient, calendar);
    let node = world.boot().await;
    node.system.tenants.apply(tenant("")).await.unwrap();
    world.say(&node, "book_appointment {\"at\":\"2026-01-02 09:30\",\"about\":\"teeth\"}").await;
    world.wait(|world| !world.calendar.entries("primary").is_empty()).await;
    node.store.close();
    node.system.kill().await;

    let node = world.boot().await;
    world.wait(|world| !world.sent().is_empty()).await;
    let booked = json!({ "booked": "Friday 2026-01-02 09:30", "until": "Friday 2026-01-02 10:00" });
    assert_eq!(serde_json::from_str::<Value>(&world.sent()[0]).unwrap(), booked);
    let entries = world.calendar.entries("primary");
    assert_eq!(entries.len(), 1, "{entries:?}");
    let calls = world.calendar.calls();
    assert_eq!(calls.iter().filter(|call| matches!(call, CalendarCall::Book(_))).count(), 2);
    // The first question was answered with the call before the crash, and is not asked again.
    let asked: Vec<_> =
        world.responder.calls().into_iter().map(|((_, attempt), times)| (attempt, times)).collect();
    assert_eq!(asked, [(1, 1), (2, 1)]);
    node.system.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_human_takes_over_and_gives_back() {
    let world = World::new(obedient, MemoryCalendar::default());
    let node = world.boot().await;
    node.system.tenants.apply(tenant("")).await.unwrap();
    world.say(&node, "hand_over {}").await;
    world.wait(|world| world.sent().len() == 1).await;
    assert_eq!(world.sent(), ["A colleague will take over from here."]);
    let handed = world.events().into_iter().find_map(|event| match event {
        Event::HandedOver { conversation, because: HandOver::Agent } => Some(conversation),
        _ => None,
    });
    let conversation = handed.unwrap();
    world.say(&node, "is anybody there?").await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(world.sent().len(), 1, "the human has the word");

    world.handle(&node, conversation.clone(), Handler::Agent).await;
    world.wait(|world| world.events().iter().any(|event| matches!(event, Event::GivenBack { .. }))).await;
    world.say(&node, "and now?").await;
    world.wait(|world| world.sent().len() == 2).await;
    assert_eq!(world.sent()[1], "You said: and now?");

    // By somebody of the tenant, while the agent is about to book.
    world.say(&node, "opening_hours {\"date\":\"2026-01-02\"}").await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    world.handle(&node, conversation, Handler::Human).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(world.sent().len(), 2);
    let last = world.events().into_iter().rev().find_map(|event| match event {
        Event::Turn { outcome, .. } => Some(outcome),
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
        let world = World::new(
            {
                let said = said.clone();
                move |question: &Question| {
                    *said.lock().unwrap() += 1;
                    Response::text(question, "yes")
                }
            },
            MemoryCalendar::default(),
        );
        let node = world.boot().await;
        node.system.tenants.apply(tenant(&format!("[quota]\n{quota}\n"))).await.unwrap();
        for number in 0..3 {
            world.say(&node, "well?").await;
            let turns = move |world: &World| {
                world.events().iter().filter(|event| matches!(event, Event::Turn { .. })).count()
            };
            world.wait(|world| turns(world) == number + 1).await;
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(world.sent().len(), messages, "{quota}: {:?}", world.sent());
        let handed = world.events().into_iter().find_map(|event| match event {
            Event::HandedOver { because, .. } => Some(because),
            _ => None,
        });
        assert_eq!(handed, because, "{quota}");
        let told = |spent: bool| {
            let events = world.events();
            let is = |event: &&Event| match event {
                Event::QuotaSpent { .. } => spent,
                Event::QuotaWarning { .. } => !spent,
                _ => false,
            };
            events.iter().filter(is).count()
        };
        assert_eq!(told(true), 1, "{quota}: {:?}", world.events());
        assert!(told(false) >= 1, "{quota}: warned before");
        node.system.kill().await;
    }
}
