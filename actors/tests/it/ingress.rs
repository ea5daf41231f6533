//! Topic ingress over the store in memory, with paused time: records of connectors become the same as a webhook's, in
//! the same conversation and order, and refused records are dead-lettered.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use heddle_actors::options::Options;
use heddle_actors::ports::Ports;
use heddle_actors::system::System;
use heddle_actors::tenant::configuration::Tenants;
use heddle_keys::{self as keys, EnvelopeKeys, MasterKey};
use heddle_memory::responder::Response;
use heddle_memory::{
    Fault, MemoryDisk, MemoryStore, Options as StoreOptions, Outcome, ScriptedChannel, ScriptedResponder,
    TokioClock,
};
use heddle_schemas::content::{Address, Content, Context};
use heddle_schemas::id::ChannelKind;
use heddle_schemas::ports::channel::{Act, Channel, ChannelEvent, ReceivedMessage};
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::log::NewRecord;
use heddle_schemas::ports::responder::Responder;
use heddle_schemas::record::dlq::{DeadLetter, DeadReason};
use heddle_schemas::record::inbound::{InboundEvent, InboundRecord};
use heddle_schemas::record::tenants::TenantRecord;
use heddle_schemas::record::{V, decode, encode};
use heddle_schemas::tenant::Tenant;
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Topic, TopicPartition};
use heddle_testing::PortsBuilder;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

/// 2026-01-01T00:00:00Z.
const NOW: i64 = 1_767_225_600;
const FIRST: TopicPartition = TopicPartition { topic: Topic::Ingress, partition: 0 };

struct Site {
    disk: Arc<MemoryDisk>,
    clock: Arc<TokioClock>,
    master: MasterKey,
}

struct Node {
    store: Arc<MemoryStore>,
    ports: Ports,
    system: System,
}

fn tenant() -> Tenant {
    named("acme", "1")
}

fn named(id: &str, account: &str) -> Tenant {
    let text = format!(
        "id = \"{id}\"\nname = \"N\"\n[agent]\nfallback = \"f\"\n[[channels]]\nkind = \"whatsapp\"\n\
         account = \"{account}\"\naccess_token = \"t\"\napp_secret = \"s\"\nverify_token = \"v\"\n"
    );
    Tenant::from_toml(&text).unwrap()
}

/// Returns a text of a person known by these ids, `seconds` after [`NOW`].
fn record(id: &str, seconds: i64, from: Value) -> Value {
    json!({
        "v": 1, "tenant": "acme", "channel": "whatsapp", "account": "1", "message_id": id,
        "at": Timestamp::from_secs(NOW + seconds).to_string(), "from": from,
        "event": { "type": "message", "content": { "type": "text", "body": "hello" } },
    })
}

impl Site {
    fn new() -> Self {
        Self {
            disk: MemoryDisk::new(NonZeroU32::new(2).unwrap()),
            clock: Arc::new(TokioClock::starting_at(Timestamp::from_secs(NOW))),
            master: MasterKey::generate(),
        }
    }

    fn keys(&self, store: &Arc<MemoryStore>) -> EnvelopeKeys {
        EnvelopeKeys::new(store.clone(), self.clock.clone(), &self.master, keys::Options::default())
    }

    async fn start(&self, options: StoreOptions) -> Node {
        let store = Arc::new(MemoryStore::open_with(self.disk.clone(), self.clock.clone(), options));
        let keys = self.keys(&store);
        let channel: Arc<dyn Channel> = Arc::new(ScriptedChannel::default());
        let responder: Arc<dyn Responder> =
            Arc::new(ScriptedResponder::new(false, |question| Response::text(question, "an answer")));
        let ports = PortsBuilder::new(store.clone(), keys, self.clock.clone(), channel, responder).build();
        let system = System::start(ports.clone(), Options::default()).await.unwrap();
        system.tenants.apply(tenant()).await.unwrap();
        Node { store, ports, system }
    }

    fn publish(&self, partition: TopicPartition, values: impl IntoIterator<Item = Value>) {
        let record =
            |value: Value| NewRecord { partition, key: "+1".into(), value: value.to_string().into() };
        self.disk.publish(values.into_iter().map(record).collect(), self.clock.now());
    }

    /// Waits until everything of ingress is settled.
    async fn settled(&self) {
        let left = || {
            (0..self.disk.partitions(Topic::Ingress)).any(|partition| {
                let partition = TopicPartition { topic: Topic::Ingress, partition };
                self.disk.position(partition).next < self.disk.records(partition).len() as u64
            })
        };
        let quiet = async {
            while left() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(600), quiet).await.expect("ingress is worked off");
    }

    /// Returns the messages of each conversation, each by its channel time in seconds after [`NOW`].
    fn received(&self) -> BTreeMap<String, Vec<i64>> {
        let mut received = BTreeMap::<_, Vec<_>>::new();
        for partition in 0..self.disk.partitions(Topic::Inbound) {
            for record in self.disk.records(TopicPartition { topic: Topic::Inbound, partition }) {
                let record: InboundRecord = decode(&record.value).unwrap();
                let InboundEvent::Customer(act) = record.event else { continue };
                let seconds = act.sent_at.as_micros() / 1_000_000 - NOW;
                received.entry(record.conversation.to_string()).or_default().push(seconds);
            }
        }
        received
    }

    fn dead(&self) -> Vec<DeadLetter> {
        let partitions = 0..self.disk.partitions(Topic::Dlq);
        let records = partitions
            .flat_map(|partition| self.disk.records(TopicPartition { topic: Topic::Dlq, partition }));
        records.map(|record| decode(&record.value).unwrap()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn one_person_is_one_contact_by_either_way_in_and_one_message_by_both_is_one() {
    let site = Site::new();
    let node = site.start(StoreOptions::default()).await;
    let message = ReceivedMessage {
        account: "1".parse().unwrap(),
        id: "wamid.1".into(),
        from: Address { phone: Some("16505551234".into()), ..Address::default() },
        sent_at: Timestamp::from_secs(NOW),
        act: Act::Say(Content::Text { body: "hello".into() }),
        context: Context::default(),
    };
    let tenant = node.system.tenants.get(&"acme".parse().unwrap()).unwrap();
    let webhook = vec![ChannelEvent::Message(message)];
    node.system.reception.accept(ChannelKind::Whatsapp, &tenant, webhook).await.unwrap();
    let phone = json!({ "phone": "+16505551234" });
    site.publish(FIRST, [record("wamid.1", 0, phone.clone()), record("wamid.2", 2, phone)]);
    site.settled().await;
    assert_eq!(site.received().into_values().collect::<Vec<_>>(), [[0, 0, 2]]);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(node.ports.metrics.duplicates(), 1);
    assert_eq!(site.dead(), []);
}

#[tokio::test(start_paused = true)]
async fn a_person_under_several_ids_is_one_contact_and_stays_in_order() {
    let site = Site::new();
    let rng = Mutex::new(StdRng::seed_from_u64(7));
    let stormy = Arc::new(AtomicBool::new(false));
    let storm = stormy.clone();
    // Look-ups take different times and fail now and then.
    let faults = move |_| {
        let mut rng = rng.lock().unwrap();
        let fails = storm.load(Ordering::Relaxed) && rng.random_range(0..50) == 0;
        let outcome = if fails { Outcome::FailsAfter } else { Outcome::Works };
        Fault { before: Duration::from_micros(rng.random_range(0..5000)), after: Duration::ZERO, outcome }
    };
    let _node = site.start(StoreOptions { faults: Arc::new(faults), ..StoreOptions::default() }).await;
    stormy.store(true, Ordering::Relaxed);
    let people = 40;
    let spoken = (0..6 * people).map(|number| {
        // One after the other, so that they would be looked up at once.
        let person = number / 6;
        let (phone, user) = (format!("+4915100000{person:02}"), format!("DE.{person}"));
        let from = match number % 6 {
            0 => json!({ "phone": phone }),
            1 | 4 => json!({ "phone": phone, "user_id": user }),
            2 => json!({ "user_id": user }),
            _ => json!({ "phone": phone, "name": "Ann" }),
        };
        record(&format!("m{number}"), i64::from(number), from)
    });
    // In one append, so that it is one batch.
    site.publish(FIRST, spoken);
    site.settled().await;
    let received = site.received();
    assert_eq!(received.len(), usize::try_from(people).unwrap());
    for (conversation, times) in received {
        assert_eq!(times.len(), 6, "{conversation}");
        assert!(times.is_sorted(), "{conversation}: {times:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_is_lost_is_left_to_its_next_owner() {
    let site = Site::new();
    let node = site.start(StoreOptions::default()).await;
    let mut owned = site.disk.consumed_partitions();
    owned.remove(&FIRST);
    tokio::time::sleep(Duration::from_secs(1)).await;
    node.store.assign(&owned).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    site.publish(FIRST, [record("m1", 0, json!({ "user_id": "U" }))]);
    site.publish(TopicPartition { partition: 1, ..FIRST }, [record("m2", 1, json!({ "user_id": "U" }))]);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(site.received().into_values().collect::<Vec<_>>(), [[1]]);
    owned.insert(FIRST);
    node.store.assign(&owned).unwrap();
    site.settled().await;
    assert_eq!(site.received().into_values().collect::<Vec<_>>(), [[1, 0]]);
}

#[tokio::test(start_paused = true)]
async fn records_accepted_by_a_drained_node_are_not_accepted_again() {
    let site = Site::new();
    let slow = |_| Fault { before: Duration::from_millis(10), ..Fault::NONE };
    let node = site.start(StoreOptions { faults: Arc::new(slow), ..StoreOptions::default() }).await;
    let from = |number: i64| json!({ "user_id": format!("U{}", number % 50) });
    site.publish(FIRST, (0..600).map(|number| record(&format!("m{number}"), number, from(number))));
    tokio::time::sleep(Duration::from_millis(15)).await;
    assert!(node.system.drain().await);
    node.store.close();
    let taken: usize = site.received().values().map(Vec::len).sum();
    assert!((1..600).contains(&taken), "it was drained in the middle: {taken}");
    let _node = site.start(StoreOptions::default()).await;
    site.settled().await;
    assert_eq!(site.received().values().map(Vec::len).sum::<usize>(), 600);
    assert!(site.received().values().all(|times| times.is_sorted()));
}

#[tokio::test(start_paused = true)]
async fn records_the_log_refuses_are_dead_lettered_and_the_rest_goes_on() {
    let site = Site::new();
    let _node = site.start(StoreOptions { record_limit: 4096, ..StoreOptions::default() }).await;
    let mut large = record("m1", 1, json!({ "user_id": "U" }));
    large["event"]["content"]["body"] = json!("x".repeat(8000));
    let small = |id, seconds| record(id, seconds, json!({ "user_id": "U" }));
    site.publish(FIRST, [small("m0", 0), large, small("m2", 2)]);
    site.settled().await;
    assert_eq!(site.received().into_values().collect::<Vec<_>>(), [[0, 2]]);
    let [dead_letter] = &site.dead()[..] else { panic!("{:?}", site.dead()) };
    assert_eq!(
        (*dead_letter.reason.as_known().unwrap(), dead_letter.offset, dead_letter.original.is_some()),
        (DeadReason::TooLarge, 1, false)
    );
    assert!(dead_letter.bytes > 8000);
}

#[tokio::test(start_paused = true)]
async fn an_erased_tenants_records_are_dead_lettered_without_their_content() {
    let site = Site::new();
    let node = site.start(StoreOptions::default()).await;
    // The node has read the configuration back by then; without its key it would not know the tenant.
    tokio::time::sleep(Duration::from_secs(1)).await;
    node.ports.keys.erase_tenant(&"acme".parse().unwrap()).await.unwrap();
    let mut nameless = record("m1", 1, json!({ "name": "Ann" }));
    nameless["at"] = json!("2026-01-01T00:00:01Z");
    site.publish(FIRST, [record("m0", 0, json!({ "user_id": "U" })), nameless]);
    site.settled().await;
    assert_eq!(site.received(), BTreeMap::new());
    let dead: Vec<_> = site
        .dead()
        .iter()
        .map(|dead_letter| (*dead_letter.reason.as_known().unwrap(), dead_letter.original.is_some()))
        .collect();
    assert_eq!(dead, [(DeadReason::UnknownTenant, false), (DeadReason::Nameless, false)]);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_overtakes_its_tenants_configuration_waits_for_it() {
    let site = Site::new();
    let slow = |_| Fault::delay(Duration::from_millis(10));
    let node = site.start(StoreOptions { faults: Arc::new(slow), ..StoreOptions::default() }).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    // As on another node, which answers the administrator before this one has read of it.
    let (tenants, _) = Tenants::load(&node.ports, "eu").await.unwrap();
    tenants.apply(named("globex", "2")).await.unwrap();
    let of_globex = |id, seconds| {
        let mut record = record(id, seconds, json!({ "user_id": "U" }));
        record["tenant"] = json!("globex");
        record["account"] = json!("2");
        record
    };
    let mut of_nobody = of_globex("m1", 1);
    of_nobody["tenant"] = json!("initech");
    site.publish(FIRST, [of_globex("m0", 0), of_nobody, of_globex("m2", 2)]);
    site.settled().await;
    assert_eq!(site.received().into_values().collect::<Vec<_>>(), [[0, 2]]);
    let dead: Vec<_> = site
        .dead()
        .iter()
        .map(|dead_letter| (*dead_letter.reason.as_known().unwrap(), dead_letter.offset))
        .collect();
    assert_eq!(dead, [(DeadReason::UnknownTenant, 1)]);
}

#[tokio::test(start_paused = true)]
async fn records_for_a_tenant_of_another_region_are_dead_lettered_without_their_content() {
    let site = Site::new();
    let node = site.start(StoreOptions::default()).await;
    let mut foreign = named("globex", "2");
    foreign.region = "us".into();
    let sealed = node.ports.keys.tenant(&foreign.id).await.unwrap().seal(b"elsewhere", b"{}");
    let copied = TenantRecord {
        v: V,
        former: Vec::new(),
        retentions: 0,
        at: site.clock.now(),
        config: foreign,
        secrets: sealed,
        channels: std::collections::BTreeMap::new(),
        mac: None,
    };
    let tenants = TopicPartition { topic: Topic::Tenants, partition: 0 };
    let copied = NewRecord { partition: tenants, key: "globex".into(), value: encode(&copied) };
    site.disk.publish(vec![copied], site.clock.now());
    tokio::time::sleep(Duration::from_secs(60)).await;
    let mut record = record("m1", 1, json!({ "user_id": "U" }));
    record["tenant"] = json!("globex");
    record["account"] = json!("2");
    site.publish(TopicPartition { topic: Topic::Ingress, partition: 0 }, [record]);
    site.settled().await;
    let dead: Vec<_> = site
        .dead()
        .iter()
        .map(|dead_letter| (*dead_letter.reason.as_known().unwrap(), dead_letter.original.is_some()))
        .collect();
    assert_eq!(dead, [(DeadReason::Region, false)]);
}
