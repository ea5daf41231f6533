//! Tenants' records in the log, as somebody changes them who may write there and has no key.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use heddle_actors::ports::Ports;
use heddle_actors::tenant::configuration::Tenants;
use heddle_keys::{self as keys, EnvelopeKeys, MasterKey};
use heddle_memory::responder::Response;
use heddle_memory::{MemoryDisk, MemoryStore, ScriptedChannel, ScriptedResponder, TokioClock};
use heddle_schemas::ports::channel::Channel;
use heddle_schemas::ports::clock::Clock as _;
use heddle_schemas::ports::log::NewRecord;
use heddle_schemas::ports::responder::Responder;
use heddle_schemas::record::tenants::{TenantRecord, TenantSecrets};
use heddle_schemas::record::{decode, encode, log_aad};
use heddle_schemas::sealed::Secret;
use heddle_schemas::tenant::Tenant;
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Topic, TopicPartition};
use heddle_testing::PortsBuilder;

const TENANTS: TopicPartition = TopicPartition { topic: Topic::Tenants, partition: 0 };
const OWN: &str = "https://graph.facebook.com/v21.0";
const EVIL: &str = "https://graph.evil.example/v21.0";

struct World {
    disk: Arc<MemoryDisk>,
    clock: Arc<TokioClock>,
    master: MasterKey,
}

impl World {
    fn new() -> Self {
        Self {
            disk: MemoryDisk::new(NonZeroU32::MIN),
            clock: Arc::new(TokioClock::starting_at(Timestamp::from_secs(1_767_225_600))),
            master: MasterKey::generate(),
        }
    }

    /// Starts to read tenants, as a node that starts does, and follows the topic.
    async fn node(&self) -> (Ports, Arc<Tenants>) {
        let store = Arc::new(MemoryStore::open(self.disk.clone(), self.clock.clone()));
        let keys =
            EnvelopeKeys::new(store.clone(), self.clock.clone(), &self.master, keys::Options::default());
        let channel: Arc<dyn Channel> = Arc::new(ScriptedChannel::default());
        let responder: Arc<dyn Responder> =
            Arc::new(ScriptedResponder::new(false, |question| Response::text(question, "an answer")));
        let ports = PortsBuilder::new(store, keys, self.clock.clone(), channel, responder).build();
        let (tenants, followed) = Tenants::load(&ports, "eu").await.unwrap();
        for (partition, next) in followed {
            tokio::spawn(tenants.clone().follow(partition, next));
        }
        (ports, tenants)
    }

    fn newest(&self) -> Bytes {
        self.disk.records(TENANTS).pop().unwrap().value
    }

    async fn write(&self, value: impl Into<Bytes>) {
        let record = NewRecord { partition: TENANTS, key: "acme".into(), value: value.into() };
        self.disk.publish(vec![record], self.clock.now());
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
}

fn acme() -> Tenant {
    let text = format!(
        "id = \"acme\"\nname = \"Acme\"\n[[channels]]\nkind = \"whatsapp\"\naccount = \"1\"\napi_base = \"{OWN}\"\n\
         access_token = \"t0ken\"\napp_secret = \"s3cret\"\nverify_token = \"ver1fy\"\n"
    );
    Tenant::from_toml(&text).unwrap()
}

fn base(tenants: &Tenants) -> Option<String> {
    Some(tenants.get(&"acme".parse().unwrap())?.channels.first()?.api_base.clone())
}

fn altered(record: &Bytes) -> String {
    let text = String::from_utf8(record.to_vec()).unwrap();
    assert!(text.contains(OWN) && !text.contains("t0ken"));
    text.replace(OWN, EVIL)
}

fn without_mac(record: &str) -> String {
    let at = record.rfind(",\"mac\":").expect("it has a MAC");
    format!("{}}}", &record[..at])
}

#[tokio::test(start_paused = true)]
async fn a_record_that_somebody_without_the_key_changed_is_refused_and_the_tenant_stays_as_it_was() {
    let world = World::new();
    let (ports, tenants) = world.node().await;
    tenants.apply(acme()).await.unwrap();
    let genuine = world.newest();
    let changed = altered(&genuine);
    let other_mac = {
        let at = changed.len() - 10;
        format!("{}00000000\"}}", &changed[..at])
    };
    let moved = format!("{},\"note\":1}}", &changed[..changed.len() - 1]);
    for forged in [changed.clone(), without_mac(&changed), other_mac, moved] {
        world.write(forged).await;
        assert_eq!(base(&tenants).as_deref(), Some(OWN));
    }
    assert_eq!(ports.metrics.tenants_refused(), 4);
    // A node that starts on it has no such tenant rather than that one, and starts all the same.
    let (_, started) = world.node().await;
    assert_eq!(base(&started), None);
    started.apply(acme()).await.unwrap();
    assert_eq!(base(&world.node().await.1).as_deref(), Some(OWN), "it is mended by being applied");
}

/// A record as a build before wrote it: its secrets sealed as they are now, and nothing over the whole.
async fn legacy(world: &World, ports: &Ports) -> Bytes {
    let mut record: TenantRecord = decode(&world.newest()).unwrap();
    let id = record.config.id.clone();
    let cipher = ports.keys.tenant(&id).await.unwrap();
    let mut config = acme();
    let secrets: TenantSecrets =
        config.secrets_mut().into_iter().map(|(place, secret)| (place, secret.expose().to_owned())).collect();
    record.secrets = cipher.seal(&log_aad(Topic::Tenants, &id), &encode(&secrets));
    record.channels.clear();
    record.mac = None;
    encode(&record)
}

#[tokio::test(start_paused = true)]
async fn a_record_of_a_build_before_is_accepted_at_the_start_and_rewritten_and_never_after() {
    let world = World::new();
    let (ports, tenants) = world.node().await;
    tenants.apply(acme()).await.unwrap();
    let old = legacy(&world, &ports).await;
    world.write(old.clone()).await;
    assert_eq!(ports.metrics.tenants_refused(), 1, "its tenant has a record with a MAC");
    let (_, started) = world.node().await;
    assert_eq!(base(&started).as_deref(), Some(OWN), "it may be from before");
    started.authenticate().await.unwrap();
    let rewritten = world.newest();
    assert_ne!(rewritten, old);
    assert!(rewritten.ends_with(b"\"}"), "with a MAC");
    let count = world.disk.records(TENANTS).len();
    started.authenticate().await.unwrap();
    assert_eq!(world.disk.records(TENANTS).len(), count, "once");
    // What was sealed beside a MAC is no record of a build before.
    world.write(without_mac(&altered(&rewritten))).await;
    let (ports, anew) = world.node().await;
    assert_eq!((base(&anew), ports.metrics.tenants_refused()), (None, 1));
    assert_eq!(base(&started).as_deref(), Some(OWN));
}

#[tokio::test(start_paused = true)]
async fn a_shown_configuration_never_becomes_the_stored_one() {
    let world = World::new();
    let (_, tenants) = world.node().await;
    let mut shown = acme();
    shown.channels[0].credentials.set("app_secret", Secret::new("[redacted]"));
    assert!(tenants.apply(shown.clone()).await.is_err(), "there is nothing to keep");
    tenants.apply(acme()).await.unwrap();
    let kept = tenants.apply(shown).await.unwrap();
    assert_eq!(kept.channels[0].credential("app_secret").map(Secret::expose), Some("s3cret"));
}
