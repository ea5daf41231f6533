//! The only sender over the store in memory with paused time: it neither floods, stalls nor repeats.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use heddle_actors::options::Options;
use heddle_actors::ports::Ports;
use heddle_actors::privacy::erasure;
use heddle_actors::system::System;
use heddle_keys::{self as keys, EnvelopeKeys, MasterKey};
use heddle_memory::channel::{Reply, Sending};
use heddle_memory::responder::Response;
use heddle_memory::{
    Fault, MemoryDisk, MemoryStore, Operation, Options as StoreOptions, ScriptedChannel, ScriptedResponder,
    TokioClock,
};
use heddle_schemas::content::{Address, Content, Context};
use heddle_schemas::id::{ChannelKind, OutboundId};
use heddle_schemas::outgoing::OutgoingContent;
use heddle_schemas::ports::channel::{
    Act, Channel, ChannelEvent, FailureClass, OutboundMessage, ReceivedMessage, ReceivedStatus,
};
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::record::decode;
use heddle_schemas::record::event::{Event, EventRecord, Resolution};
use heddle_schemas::record::inbound::DeliveryStatus;
use heddle_schemas::table::Table;
use heddle_schemas::tenant::Tenant;
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Topic, TopicPartition};
use heddle_testing::PortsBuilder;

use crate::log_lines::LogLines;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn text(message: &OutboundMessage) -> String {
    match &message.content {
        OutgoingContent::Text { body } => body.clone(),
        other => panic!("{other:?}"),
    }
}

/// Node with one tenant, whose agent repeats the message, and a provider by a script.
struct World {
    disk: Arc<MemoryDisk>,
    clock: Arc<TokioClock>,
    channel: Arc<ScriptedChannel>,
    ports: Ports,
    system: System,
    tenant: Arc<Tenant>,
    /// Time of each call at the provider, with its text.
    calls: Arc<Mutex<Vec<(Duration, String, OutboundId)>>>,
}

type Script = dyn Fn(&str, usize) -> Sending + Send + Sync;

impl World {
    async fn new(options: Options, script: Box<Script>) -> Self {
        Self::with_store(options, script, |_| Fault::NONE).await
    }

    async fn with_store(
        options: Options,
        script: Box<Script>,
        faults: impl Fn(Operation) -> Fault + Send + Sync + 'static,
    ) -> Self {
        let disk = MemoryDisk::new(NonZeroU32::MIN);
        let clock = Arc::new(TokioClock::starting_at(Timestamp::from_secs(1_767_225_600)));
        let store_options = StoreOptions { faults: Arc::new(faults), ..StoreOptions::default() };
        let store = Arc::new(MemoryStore::open_with(disk.clone(), clock.clone(), store_options));
        let master = MasterKey::generate();
        let keys = EnvelopeKeys::new(store.clone(), clock.clone(), &master, keys::Options::default());
        let calls: Arc<Mutex<Vec<(Duration, String, OutboundId)>>> = Arc::default();
        let channel = Arc::new(ScriptedChannel::new({
            let (calls, clock) = (calls.clone(), clock.clone());
            move |message, before| {
                let text = text(message);
                calls.lock().unwrap().push((clock.elapsed(), text.clone(), message.id));
                script(&text, before)
            }
        }));
        let responder =
            ScriptedResponder::new(false, |question| Response::text(question, question.messages.join("\n")));
        let port: Arc<dyn Channel> = channel.clone();
        let ports = PortsBuilder::new(store, keys, clock.clone(), port, Arc::new(responder)).build();
        let system = System::start(ports.clone(), options).await.unwrap();
        system.intake_gate.set_open(true);
        let tenant = system.tenants.apply(tenant()).await.unwrap();
        Self { disk, clock, channel, ports, system, tenant, calls }
    }

    fn message(&self, from: &str, body: &str) -> ChannelEvent {
        ChannelEvent::Message(ReceivedMessage {
            account: "1".parse().unwrap(),
            id: format!("{from}.{body}"),
            from: Address { phone: Some(from.into()), ..Address::default() },
            sent_at: self.clock.now(),
            act: Act::Say(Content::Text { body: body.into() }),
            context: Context::default(),
        })
    }

    async fn say(&self, from: &str, body: &str) {
        self.receive(vec![self.message(from, body)]).await;
    }

    async fn receive(&self, events: Vec<ChannelEvent>) {
        self.system.reception.accept(ChannelKind::Whatsapp, &self.tenant, events).await.unwrap();
    }

    async fn status(&self, outbound: OutboundId, status: DeliveryStatus) {
        let report = ReceivedStatus {
            account: "1".parse().unwrap(),
            message_id: format!("wamid.{outbound}"),
            outbound: Some(outbound),
            status,
            at: self.clock.now(),
            failure: None,
            pricing: None,
            recipient: Default::default(),
        };
        self.receive(vec![ChannelEvent::Status(report)]).await;
    }

    /// Returns the times at which the provider accepted the texts, in order.
    fn times(&self) -> Vec<(Duration, String)> {
        self.calls.lock().unwrap().iter().map(|(at, text, _)| (*at, text.clone())).collect()
    }

    fn calls_of(&self, body: &str) -> usize {
        self.times().iter().filter(|(_, text)| text == body).count()
    }

    fn accepted(&self) -> Vec<String> {
        self.channel.accepted().iter().map(|call| text(&call.message)).collect()
    }

    fn events(&self) -> Vec<Event> {
        let of = TopicPartition { topic: Topic::Events, partition: 0 };
        self.disk
            .records(of)
            .iter()
            .map(|record| decode::<EventRecord>(&record.value).unwrap().event)
            .collect()
    }

    fn resolved(&self) -> Vec<Resolution> {
        let by = |event| match event {
            Event::SendResolved { by, .. } => Some(by),
            _ => None,
        };
        self.events().into_iter().filter_map(by).collect()
    }
}

fn tenant() -> Tenant {
    Tenant::from_toml(
        "id = \"acme\"\nname = \"N\"\n[agent]\nfallback = \"f\"\nsettle = \"0s\"\n[[channels]]\nkind = \"whatsapp\"\n\
         account = \"1\"\naccess_token = \"t\"\napp_secret = \"s\"\nverify_token = \"v\"\nmessages_per_second = 80\n",
    )
    .unwrap()
}

fn accepts() -> Box<Script> {
    Box::new(|_, _| Sending::default())
}

fn fullest_window(times: &[Duration]) -> usize {
    let within = |first: usize| times[first..].iter().take_while(|at| **at < times[first] + SECOND).count();
    (0..times.len()).map(within).max().unwrap_or(0)
}

#[tokio::test(start_paused = true)]
async fn a_flood_from_one_contact_delays_no_other_by_more_than_a_second() {
    let world = World::new(Options::default(), accepts()).await;
    for number in 0..400 {
        world.say("491700000000", &format!("flood {number}")).await;
    }
    // By now the pair is over its limit, and most of the replies wait.
    tokio::time::sleep(10 * SECOND).await;
    assert!(world.accepted().len() < 60, "{}", world.accepted().len());
    for number in 1..=5 {
        world.say(&format!("49170000000{number}"), &format!("other {number}")).await;
    }
    tokio::time::sleep(SECOND).await;
    let others: Vec<_> = world.accepted().into_iter().filter(|text| text.starts_with("other")).collect();
    assert_eq!(others.len(), 5, "{others:?}");
    // The flood itself is answered in order, in the time that the channel allows.
    tokio::time::sleep(Duration::from_secs(6 * 400)).await;
    let flood: Vec<_> = world.accepted().into_iter().filter(|text| text.starts_with("flood")).collect();
    let expected: Vec<_> = (0..400).map(|number| format!("flood {number}")).collect();
    assert_eq!(flood, expected);
    world.system.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_small_queue_full_of_one_lane_lets_others_pass() {
    let options = Options { account_queue: NonZeroUsize::new(8).unwrap(), ..Options::default() };
    let world = World::new(options, accepts()).await;
    for number in 0..60 {
        world.say("491700000000", &format!("flood {number}")).await;
    }
    tokio::time::sleep(5 * SECOND).await;
    world.say("491700000001", "other").await;
    tokio::time::sleep(SECOND).await;
    assert_eq!(world.calls_of("other"), 1);
    world.system.kill().await;
}

#[tokio::test(start_paused = true)]
async fn an_api_that_takes_messages_and_says_nothing_gets_each_reply_twice_at_most() {
    let script = Box::new(|text: &str, _| match text {
        "lost" => Sending::from(Reply::AcceptsUnheard),
        _ => Sending::default(),
    });
    let log = LogLines::start();
    let world = World::new(Options::default(), script).await;
    world.say("491700000000", "lost").await;
    world.say("491700000000", "next").await;
    tokio::time::sleep(120 * MINUTE).await;
    let times: BTreeMap<_, _> = world.channel.times_accepted();
    assert_eq!(times.values().max(), Some(&2), "sent once, and once more by policy");
    assert_eq!(world.resolved(), [Resolution::SentAgain, Resolution::GivenUp]);
    let abandoned = log.with("a send of unknown outcome is abandoned");
    assert_eq!(abandoned.len(), 1, "{abandoned:?}");
    for field in [" conversation=", " outbound=", " repeated=1", "engine.unknown_repeats"] {
        assert!(abandoned[0].contains(field), "{field}: {abandoned:?}");
    }
    assert_eq!(world.calls_of("next"), 1, "its lane is free again");
    // A status that comes hours late lifts it.
    let lost = *times.iter().find(|(_, times)| **times == 2).unwrap().0;
    world.status(lost, DeliveryStatus::Delivered).await;
    tokio::time::sleep(SECOND).await;
    assert_eq!(world.resolved().last(), Some(&Resolution::Status));
    world.system.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_message_whose_status_says_that_it_was_read_is_not_called_again() {
    let script = Box::new(|_: &str, _| Sending::from(Reply::fails(FailureClass::Temporary)));
    let world = World::new(Options::default(), script).await;
    world.say("491700000000", "hello").await;
    tokio::time::sleep(SECOND / 10).await;
    let call = world.channel.calls().pop().unwrap();
    let before = world.calls_of("hello");
    world.status(call.message.id, DeliveryStatus::Read).await;
    tokio::time::sleep(10 * MINUTE).await;
    assert_eq!(world.calls_of("hello"), before);
    world.system.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_blip_with_ten_calls_under_way_pauses_a_second() {
    let began = Arc::new(Mutex::new(None::<Duration>));
    let clock = Arc::new(Mutex::new(None::<Arc<TokioClock>>));
    let script = Box::new({
        let (began, clock) = (began.clone(), clock.clone());
        move |text: &str, _| {
            let now = clock.lock().unwrap().as_ref().map_or(Duration::ZERO, |clock| clock.elapsed());
            if !text.starts_with("blip") {
                return Sending::default();
            }
            let since = *began.lock().unwrap().get_or_insert(now);
            match now < since + Duration::from_millis(400) {
                true => Sending {
                    before: Duration::from_millis(300),
                    ..Reply::fails(FailureClass::Temporary).into()
                },
                false => Sending::default(),
            }
        }
    });
    let world = World::new(Options::default(), script).await;
    *clock.lock().unwrap() = Some(world.clock.clone());
    world.say("491700000099", "warm").await;
    tokio::time::sleep(2 * SECOND).await;
    let events = (0..12).map(|n| world.message(&format!("4917000000{n:02}"), &format!("blip {n}"))).collect();
    world.receive(events).await;
    tokio::time::sleep(2 * SECOND).await;
    world.say("491700000098", "after").await;
    tokio::time::sleep(SECOND).await;
    assert!(world.accepted().contains(&"after".to_owned()));
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(world.accepted().len(), 14, "and nothing is lost: {:?}", world.accepted());
    world.system.kill().await;
}

#[tokio::test(start_paused = true)]
async fn after_ten_seconds_of_outage_others_are_answered_within_seconds() {
    let over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let script = Box::new({
        let over = over.clone();
        move |_: &str, _| match over.load(std::sync::atomic::Ordering::Relaxed) {
            false => Sending::from(Reply::LosesIt),
            true => Sending::default(),
        }
    });
    let world = World::new(Options::default(), script).await;
    for number in 0..300 {
        let from = format!("49171000{number:04}");
        world
            .receive(vec![
                world.message(&from, &format!("one {number}")),
                world.message(&from, &format!("two {number}")),
            ])
            .await;
    }
    tokio::time::sleep(10 * SECOND).await;
    over.store(true, std::sync::atomic::Ordering::Relaxed);
    tokio::time::sleep(2 * SECOND).await;
    for number in 0..5 {
        world.say(&format!("49172000{number:04}"), &format!("after {number}")).await;
    }
    // The breaker is open for 8 s at most after an outage of ten; messages that waited before go first, 590 at 80/s.
    tokio::time::sleep(16 * SECOND).await;
    let after = world.accepted().into_iter().filter(|text| text.starts_with("after")).count();
    assert_eq!(after, 5);
    let unknown = world.ports.metrics.unknown_total();
    assert!(unknown < 30, "{unknown} sends of unknown outcome: the outage is noticed");
    world.system.kill().await;
}

#[tokio::test(start_paused = true)]
async fn the_limit_is_kept_while_the_store_stalls_and_used_while_work_waits() {
    let stalls = Arc::new(Mutex::new(0_u32));
    let faults = move |operation: Operation| {
        let mut number = stalls.lock().unwrap();
        if operation == Operation::Commit {
            *number += 1;
            if number.is_multiple_of(700) {
                return Fault::delay(Duration::from_millis(240));
            }
        }
        Fault::delay(Duration::from_millis(1))
    };
    let script = Box::new(|_: &str, _| Sending { before: Duration::from_millis(80), ..Sending::default() });
    let world = World::with_store(Options::default(), script, faults).await;
    for number in 0..40 {
        let events =
            (0..100).map(|n| world.message(&format!("4917{number:02}00{n:04}"), &format!("{number}.{n}")));
        let events = events.collect();
        world.receive(events).await;
    }
    // All that came in is settled, and all 4,000 replies wait.
    tokio::time::sleep(5 * SECOND).await;
    let from = world.clock.elapsed();
    tokio::time::sleep(30 * SECOND).await;
    let times: Vec<_> = world.times().into_iter().map(|(at, _)| at).collect();
    assert!(fullest_window(&times) <= 80, "{} in a second", fullest_window(&times));
    let used = times.iter().filter(|at| (from..from + 30 * SECOND).contains(*at)).count();
    assert!(used * 100 >= 80 * 30 * 97, "{used} of 2400");
    world.system.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_channel_whose_calls_take_two_seconds_is_used_as_well() {
    let script = Box::new(|_: &str, _| Sending { before: 2 * SECOND, ..Sending::default() });
    let world =
        World::with_store(Options::default(), script, |_| Fault::delay(Duration::from_millis(2))).await;
    for first in (0..1_200).step_by(100) {
        let events = (first..first + 100).map(|n| world.message(&format!("49{n:09}"), &format!("{n}")));
        let events = events.collect();
        world.receive(events).await;
    }
    tokio::time::sleep(3 * SECOND).await;
    let from = world.clock.elapsed();
    tokio::time::sleep(6 * SECOND).await;
    let times: Vec<_> = world.times().into_iter().map(|(at, _)| at).collect();
    assert!(fullest_window(&times) <= 80, "{} in a second", fullest_window(&times));
    let used = times.iter().filter(|at| (from..from + 6 * SECOND).contains(*at)).count();
    assert!(used * 100 >= 80 * 6 * 97, "{used} of 480");
    world.system.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_flood_that_came_in_is_over_after_a_second() {
    let world = World::new(Options::default(), accepts()).await;
    let events = (0..1_200).map(|n| world.message(&format!("4917{n:08}"), &format!("{n}"))).collect();
    let began = world.clock.elapsed();
    world.receive(events).await;
    tokio::time::sleep(2 * SECOND).await;
    let first = world.times().first().unwrap().0 - began;
    assert!(first <= Duration::from_millis(1_100), "the first reply after {first:?}");
    world.system.kill().await;
}

#[tokio::test(start_paused = true)]
async fn no_call_is_repeated_after_an_erasure() {
    let script = Box::new(|text: &str, _| match text {
        "erase me" => Sending { before: 3 * SECOND, ..Reply::fails(FailureClass::Temporary).into() },
        _ => Sending::default(),
    });
    let world = World::new(Options::default(), script).await;
    world.say("491700000000", "erase me").await;
    tokio::time::sleep(SECOND).await;
    assert_eq!(world.calls_of("erase me"), 1);
    let contact = world.calls.lock().unwrap()[0].2.contact;
    let account = (ChannelKind::Whatsapp, "1".parse().unwrap());
    let asked = erasure::ask(&world.ports, &world.tenant.id, [account], contact).await.unwrap();
    tokio::time::sleep(10 * MINUTE).await;
    assert_eq!(world.calls_of("erase me"), 1, "it was refused, and is not tried again");
    let found = erasure::find(&world.ports, &world.tenant.id, asked.id).await.unwrap().unwrap();
    assert!(found.is_complete(), "{found:?}");
    let deliveries =
        world.disk.rows(world.clock.now()).into_iter().filter(|(key, _)| key.table() == Table::Delivery);
    assert_eq!(deliveries.count(), 0, "no row about the person");
    world.system.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_send_that_panics_is_settled_as_unknown_and_frees_its_lane() {
    let script = Box::new(|text: &str, before: usize| {
        assert!(
            !(text == "panic"
                && before == 0
                && PANICS.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0),
            "scripted"
        );
        Sending::default()
    });
    static PANICS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let world = World::new(Options::default(), script).await;
    world.say("491700000000", "panic").await;
    tokio::time::sleep(SECOND).await;
    world.say("491700000000", "next").await;
    assert_eq!(world.ports.metrics.unknown_total(), 1);
    tokio::time::sleep(5 * MINUTE).await;
    assert_eq!(world.accepted(), ["panic", "next"], "sent again by policy, in order");
    let outbound = TopicPartition { topic: Topic::Outbound, partition: 0 };
    assert_eq!(
        world.disk.position(outbound).next,
        world.disk.records(outbound).len() as u64,
        "nothing is stuck in the log"
    );
    world.system.kill().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_account_does_not_forget_what_a_burst_owes() {
    let world = World::new(Options::default(), accepts()).await;
    let say = async |range: std::ops::Range<usize>| {
        for number in range {
            world.say("491700000000", &format!("{number}")).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    say(0..45).await;
    tokio::time::sleep(90 * SECOND).await;
    assert_eq!(world.accepted().len(), 45);
    say(45..90).await;
    tokio::time::sleep(SECOND).await;
    // 90 s and a little have paid for 16.
    let sent = world.accepted().len();
    assert!((45 + 15..=45 + 17).contains(&sent), "{sent} within two minutes");
    world.system.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_suspended_account_is_tried_at_once_when_its_tenant_is_applied_again() {
    let refuses = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let script = Box::new({
        let refuses = refuses.clone();
        move |_: &str, _| match refuses.load(std::sync::atomic::Ordering::Relaxed) {
            true => Sending::from(Reply::fails(FailureClass::Blocked)),
            false => Sending::default(),
        }
    });
    let world = World::new(Options::default(), script).await;
    world.say("491700000000", "hello").await;
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(world.calls_of("hello"), 1, "suspended");
    refuses.store(false, std::sync::atomic::Ordering::Relaxed);
    world.system.tenants.apply(tenant()).await.unwrap();
    tokio::time::sleep(SECOND).await;
    assert_eq!(world.accepted(), ["hello"]);
    let published: Vec<_> = world
        .events()
        .iter()
        .filter_map(|event| match event {
            Event::AccountStopped { .. } => Some("stopped"),
            Event::AccountResumed { .. } => Some("resumed"),
            _ => None,
        })
        .collect();
    assert_eq!(published, ["stopped", "resumed"]);
    world.system.kill().await;
}

#[tokio::test(start_paused = true)]
async fn statuses_that_are_not_awaited_cost_no_commit_of_the_account() {
    let commits = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let faults = {
        let commits = commits.clone();
        move |operation: Operation| {
            if operation == Operation::Acknowledge {
                commits.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            Fault::delay(Duration::from_millis(2))
        }
    };
    let world = World::with_store(Options::default(), accepts(), faults).await;
    for number in 0..20 {
        world.say(&format!("4917000000{number:02}"), &format!("{number}")).await;
    }
    tokio::time::sleep(5 * SECOND).await;
    commits.store(0, std::sync::atomic::Ordering::Relaxed);
    let sent: Vec<_> = world.channel.accepted().iter().map(|call| call.message.id).collect();
    assert_eq!(sent.len(), 20);
    let statuses = sent.iter().map(|id| {
        ChannelEvent::Status(ReceivedStatus {
            account: "1".parse().unwrap(),
            message_id: format!("wamid.{id}"),
            outbound: Some(*id),
            status: DeliveryStatus::Delivered,
            at: world.clock.now(),
            failure: None,
            pricing: None,
            recipient: Default::default(),
        })
    });
    world.receive(statuses.collect()).await;
    tokio::time::sleep(SECOND).await;
    let outbound = TopicPartition { topic: Topic::Outbound, partition: 0 };
    assert_eq!(world.disk.position(outbound).next, world.disk.records(outbound).len() as u64);
    let acknowledged = commits.load(std::sync::atomic::Ordering::Relaxed);
    assert!((1..=5).contains(&acknowledged), "20 statuses, acknowledged {acknowledged} times");
    world.system.kill().await;
}
