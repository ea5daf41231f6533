//! One tenant's waiting turns beside another tenant's customers, on the same partition, over the store in memory with
//! paused time: the crowd of one costs the others nothing but the machine.
//!
//! `HEDDLE_WAITING=100000` makes the crowd larger.

use std::collections::HashMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use heddle_actors::options::Options;
use heddle_actors::system::System;
use heddle_keys::{self as keys, EnvelopeKeys, MasterKey};
use heddle_memory::channel::Sending;
use heddle_memory::responder::Response;
use heddle_memory::{
    Fault, MemoryDisk, MemoryStore, Options as StoreOptions, ScriptedChannel, ScriptedResponder, TokioClock,
};
use heddle_schemas::content::{Address, Content, Context};
use heddle_schemas::id::ChannelKind;
use heddle_schemas::outgoing::OutgoingContent;
use heddle_schemas::ports::channel::{Act, Channel, ChannelEvent, ReceivedMessage};
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::responder::Responder;
use heddle_schemas::tenant::Tenant;
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Topic, TopicPartition};
use heddle_testing::PortsBuilder;

/// Calls to the outside that take their time: that of the crowded tenant is never heard of again.
fn outside() -> ScriptedResponder {
    ScriptedResponder::new(true, |question| match question.tenant.id.as_str() {
        "crowded" => Response { after: Duration::ZERO, result: None },
        _ => Response::text(question, question.messages.join("\n")).after(Duration::from_millis(50)),
    })
}

fn tenant(id: &str, account: &str) -> Tenant {
    let text = format!(
        "id = \"{id}\"\nname = \"N\"\n[agent]\nfallback = \"f\"\nsettle = \"0s\"\n[[channels]]\nkind = \"whatsapp\"\n\
         account = \"{account}\"\naccess_token = \"t\"\napp_secret = \"s\"\nverify_token = \"v\"\n"
    );
    Tenant::from_toml(&text).unwrap()
}

fn message(account: &str, number: usize, at: Timestamp) -> ChannelEvent {
    ChannelEvent::Message(ReceivedMessage {
        account: account.parse().unwrap(),
        id: format!("{account}.{number}"),
        from: Address { user_id: Some(format!("{account}.{number}")), ..Address::default() },
        sent_at: at,
        act: Act::Say(Content::Text { body: number.to_string() }),
        context: Context::default(),
    })
}

/// Returns the waiting times of a tenant's customers for their replies, in order, while `waiting` turns of another
/// tenant wait.
async fn beside(waiting: usize) -> Vec<Duration> {
    let disk = MemoryDisk::new(NonZeroU32::MIN);
    let clock = Arc::new(TokioClock::starting_at(Timestamp::from_secs(1_767_225_600)));
    let slow = |_| Fault::delay(Duration::from_millis(2));
    let options = StoreOptions { faults: Arc::new(slow), ..StoreOptions::default() };
    let store = Arc::new(MemoryStore::open_with(disk.clone(), clock.clone(), options));
    let master = MasterKey::generate();
    let keys = EnvelopeKeys::new(store.clone(), clock.clone(), &master, keys::Options::default());
    let sent: Arc<Mutex<HashMap<String, Timestamp>>> = Arc::default();
    let channel: Arc<dyn Channel> = Arc::new(ScriptedChannel::new({
        let (sent, clock) = (sent.clone(), clock.clone());
        move |message, _| {
            let OutgoingContent::Text { body } = &message.content else { panic!("{message:?}") };
            sent.lock().unwrap().insert(body.clone(), clock.now());
            Sending::default()
        }
    }));
    let responder: Arc<dyn Responder> = Arc::new(outside());
    let ports = PortsBuilder::new(store, keys, clock.clone(), channel, responder).build();
    let options = Options {
        // The crowd is many times the capacity of memory, as in a run of a hundred thousand.
        agenda_window: NonZeroUsize::new(512).unwrap(),
        woken_per_tenant: NonZeroUsize::new(64).unwrap(),
        turns_per_tenant: NonZeroUsize::new(4).unwrap(),
        ..Options::default()
    };
    let system = System::start(ports, options).await.unwrap();
    let crowded = system.tenants.apply(tenant("crowded", "1")).await.unwrap();
    let calm = system.tenants.apply(tenant("calm", "2")).await.unwrap();

    for body in 0..waiting.div_ceil(50) {
        let numbers = body * 50..(body * 50 + 50).min(waiting);
        let events = numbers.map(|number| message("1", number, clock.now())).collect();
        system.reception.accept(ChannelKind::Whatsapp, &crowded, events).await.unwrap();
    }
    let inbound = TopicPartition { topic: Topic::Inbound, partition: 0 };
    while disk.position(inbound).next < disk.records(inbound).len() as u64 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    let mut asked = Vec::new();
    for number in 0..200 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        asked.push(clock.now());
        let event = message("2", number, clock.now());
        system.reception.accept(ChannelKind::Whatsapp, &calm, vec![event]).await.unwrap();
    }
    let all = async {
        while (0..200).any(|number| !sent.lock().unwrap().contains_key(&number.to_string())) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(600), all).await.expect("every customer is answered");
    let sent = sent.lock().unwrap().clone();
    let took = asked.iter().enumerate().map(|(number, asked)| sent[&number.to_string()].since(*asked));
    let mut took: Vec<_> = took.collect();
    took.sort_unstable();
    system.kill().await;
    took
}

#[tokio::test(start_paused = true)]
async fn a_crowd_of_one_tenants_turns_delays_no_other_tenant() {
    let p99 = |took: &[Duration]| took[took.len() * 99 / 100];
    let waiting = waiting();
    let (alone, crowded) = (beside(0).await, beside(waiting).await);
    println!("p99 alone {:?}, beside {waiting} waiting turns {:?}", p99(&alone), p99(&crowded));
    assert!(p99(&crowded) * 2 <= p99(&alone) * 3, "{:?} {:?}", p99(&alone), p99(&crowded));
}

/// The crowded tenant's one permit is with a call that is never answered.
#[tokio::test(start_paused = true)]
async fn a_turn_that_waits_too_long_for_its_tenants_share_gets_the_fallback() {
    let disk = MemoryDisk::new(NonZeroU32::MIN);
    let clock = Arc::new(TokioClock::starting_at(Timestamp::from_secs(1_767_225_600)));
    let store = Arc::new(MemoryStore::open(disk, clock.clone()));
    let master = MasterKey::generate();
    let keys = EnvelopeKeys::new(store.clone(), clock.clone(), &master, keys::Options::default());
    let (channel, responder) = (Arc::new(ScriptedChannel::default()), Arc::new(outside()));
    let ports = PortsBuilder::new(store, keys, clock.clone(), channel.clone(), responder.clone()).build();
    let options = Options {
        turns_per_tenant: NonZeroUsize::MIN,
        answer_deadline: Duration::from_secs(20),
        ..Options::default()
    };
    let system = System::start(ports, options).await.unwrap();
    let crowded = system.tenants.apply(tenant("crowded", "1")).await.unwrap();
    let events = (0..4).map(|number| message("1", number, clock.now())).collect();
    system.reception.accept(ChannelKind::Whatsapp, &crowded, events).await.unwrap();
    tokio::time::sleep(Duration::from_secs(19)).await;
    assert_eq!(channel.accepted().len(), 0);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(channel.accepted().len(), 3, "those that wait for the one");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(
        (channel.accepted().len(), responder.calls().len()),
        (4, 1),
        "and the one, which alone was asked"
    );
    system.kill().await;
}

/// Its turns need no call outside, so they are decided with their record, which keeps a permit of the partition.
#[tokio::test(start_paused = true)]
async fn a_turn_that_waits_for_a_spent_quota_delays_no_other_records() {
    let disk = MemoryDisk::new(NonZeroU32::MIN);
    let clock = Arc::new(TokioClock::starting_at(Timestamp::from_secs(1_767_225_600)));
    let store = Arc::new(MemoryStore::open(disk, clock.clone()));
    let master = MasterKey::generate();
    let keys = EnvelopeKeys::new(store.clone(), clock.clone(), &master, keys::Options::default());
    let inside = ScriptedResponder::new(false, |question| Response::text(question, "here"));
    let channel = Arc::new(ScriptedChannel::default());
    let ports = PortsBuilder::new(store, keys, clock.clone(), channel.clone(), Arc::new(inside)).build();
    let permits = NonZeroUsize::new(4).unwrap();
    let system = System::start(ports, Options { permits_per_partition: permits, ..Options::default() });
    let system = system.await.unwrap();
    let mut spent = tenant("spent", "1");
    spent.quota.messages_per_month = 1;
    let spent = system.tenants.apply(spent).await.unwrap();
    let calm = system.tenants.apply(tenant("calm", "2")).await.unwrap();
    // Its first turn takes all there is, and the calm one's first turn a quota lease.
    for (tenant, account) in [(&spent, "1"), (&calm, "2")] {
        let event = message(account, 0, clock.now());
        system.reception.accept(ChannelKind::Whatsapp, tenant, vec![event]).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(channel.accepted().len(), 2);

    let events = (1..=20).map(|number| message("1", number, clock.now())).collect();
    system.reception.accept(ChannelKind::Whatsapp, &spent, events).await.unwrap();
    let event = message("2", 1, clock.now());
    system.reception.accept(ChannelKind::Whatsapp, &calm, vec![event]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(channel.accepted().len(), 3, "the calm one's customer does not wait for it");
    system.kill().await;
}

#[expect(clippy::disallowed_methods, reason = "a switch of this test alone")]
fn waiting() -> usize {
    std::env::var("HEDDLE_WAITING").ok().and_then(|waiting| waiting.parse().ok()).unwrap_or(4_000)
}
