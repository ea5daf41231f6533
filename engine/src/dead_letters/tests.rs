//! Tests of dead letters on the in-memory store, with paused time and running actors.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};

use heddle_actors::metrics::Metrics as ActorMetrics;
use heddle_actors::privacy::security::Security;
use heddle_actors::random::Random;
use heddle_actors::system::System;
use heddle_api::dead_letters::{OriginalState, Place, Summary};
use heddle_connectors::keys::{self, EnvelopeKeys, MasterKey};
use heddle_memory::responder::Response;
use heddle_memory::{
    MemoryCalendar, MemoryDisk, MemoryKnowledge, MemoryStore, Options as StoreOptions, ScriptedChannel,
    ScriptedResponder, TokioClock,
};
use heddle_schemas::config;
use heddle_schemas::content::{Address, Content, Context};
use heddle_schemas::id::{ChannelKind, ContactId, ConversationId, MessageKey, OutboundId, TurnId};
use heddle_schemas::ledger::Position;
use heddle_schemas::lenient::Lenient;
use heddle_schemas::outgoing::{Kind, OutgoingContent};
use heddle_schemas::ports::channel::Channel;
use heddle_schemas::ports::keys::Missing;
use heddle_schemas::ports::log::{Assignment, FetchLimit, Record};
use heddle_schemas::ports::responder::Responder;
use heddle_schemas::record::dlq::DeadReason;
use heddle_schemas::record::inbound::{ActKind, CustomerAct, InboundEvent, InboundRecord, SealedAct};
use heddle_schemas::record::outbound::{
    OutboundCommand, OutboundRecord, Purpose, SealedMessage, SendCommand,
};
use heddle_schemas::record::{V, decode, encode, log_aad};
use heddle_schemas::sealed::Sealed;
use heddle_schemas::tenant::Tenant;
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Topic, TopicPartition};
use prometheus::Registry;
use serde_json::{Value, json};

use super::*;

const NOW: i64 = 1_767_225_600;
const HOUR: Duration = Duration::from_secs(3_600);

struct Site {
    disk: Arc<MemoryDisk>,
    clock: Arc<TokioClock>,
    channel: Arc<ScriptedChannel>,
    poison: Arc<AtomicBool>,
    ports: Ports,
    system: System,
    letters: DeadLetters,
}

fn tenant(id: &str, accounts: &[&str]) -> Tenant {
    let channels = accounts.iter().map(|account| {
        format!(
            "[[channels]]\nkind = \"whatsapp\"\naccount = \"{account}\"\naccess_token = \"t\"\n\
             app_secret = \"s\"\nverify_token = \"v\"\n"
        )
    });
    let agent = "[agent]\nfallback = \"f\"\nsettle = \"0s\"\n";
    let text = format!("id = \"{id}\"\nname = \"N\"\n{agent}{}", channels.collect::<String>());
    Tenant::from_toml(&text).unwrap()
}

impl Site {
    async fn new(options: StoreOptions) -> Self {
        let disk = MemoryDisk::new(NonZeroU32::new(2).unwrap());
        let clock = Arc::new(TokioClock::starting_at(Timestamp::from_secs(NOW)));
        let store = Arc::new(MemoryStore::open_with(disk.clone(), clock.clone(), options));
        let master = MasterKey::generate();
        let keys = EnvelopeKeys::new(store.clone(), clock.clone(), &master, keys::Options::default());
        let channel = Arc::new(ScriptedChannel::default());
        let sender: Arc<dyn Channel> = channel.clone();
        let poison = Arc::new(AtomicBool::new(false));
        let poisoned = poison.clone();
        let responder: Arc<dyn Responder> = Arc::new(ScriptedResponder::new(false, move |question| {
            assert!(!poisoned.load(Ordering::Relaxed), "poison");
            Response::text(question, "an answer")
        }));
        let metrics = Arc::new(ActorMetrics::register(&Registry::new()));
        let random: Random = Arc::new(rand::random);
        let security =
            Security::new(config::Security::default(), clock.clone(), metrics.clone(), random.clone());
        let ports = Ports {
            log: store.clone(),
            state: store.clone(),
            keys: Arc::new(keys),
            calendar: Arc::new(MemoryCalendar::default()),
            knowledge: Arc::new(MemoryKnowledge::default()),
            responders: Arc::new(move |_| responder.clone()),
            channels: Arc::new([(ChannelKind::Whatsapp, sender)].into()),
            clock: clock.clone(),
            random,
            metrics,
            security,
            versions: heddle_schemas::record::Versions::default(),
        };
        let system = System::start(ports.clone(), Options::default()).await.unwrap();
        let metrics = Arc::new(Metrics::register(&Registry::new()));
        let letters = DeadLetters::new(&ports, system.tenants.clone(), &Options::default(), metrics);
        Self { disk, clock, channel, poison, ports, system, letters }
    }

    async fn with_acme() -> Self {
        let site = Self::new(StoreOptions::default()).await;
        site.apply("acme", &["1"]).await;
        site
    }

    async fn apply(&self, id: &str, accounts: &[&str]) {
        self.system.tenants.apply(tenant(id, accounts)).await.unwrap();
    }

    fn publish(&self, topic: Topic, partition: u32, key: &str, value: impl Into<Bytes>) {
        let partition = TopicPartition { topic, partition };
        let record =
            NewRecord { partition, key: Bytes::copy_from_slice(key.as_bytes()), value: value.into() };
        self.disk.publish(vec![record], self.clock.now());
    }

    /// Publishes a question to acme, accepted now.
    async fn ask(&self, number: u8) {
        let tenant = "acme".parse().unwrap();
        let conversation = conversation(number);
        let key = MessageKey::from_bytes([number; 16]);
        let from = Address { phone: Some(format!("1650555{number:04}")), ..Address::default() };
        let content = Some(Content::Text { body: "hello".into() });
        let act =
            SealedAct { id: format!("m{number}"), from, content, emoji: None, context: Context::default() };
        let now = self.clock.now();
        let cipher = self.ports.keys.log(&tenant, now.day()).await.unwrap();
        let sealed = cipher.seal(&log_aad(Topic::Inbound, &key), &encode(&act));
        let act =
            CustomerAct { key, sent_at: now, kind: ActKind::Say, target: None, sealed, also: Vec::new() };
        let event = InboundEvent::Customer(act);
        let record = InboundRecord { v: V, conversation: conversation.clone(), at: now, event };
        let partition = inbound(&conversation).partition;
        self.publish(Topic::Inbound, partition, &conversation.to_string(), encode(&record));
    }

    /// Publishes a dead letter of a reply that was decided now.
    async fn reply(&self, number: u8) {
        let conversation = conversation(number);
        let turn = TurnId(MessageKey::from_bytes([number; 16]));
        let id = OutboundId::of_turn(conversation.contact, turn, 0);
        let to = Address { phone: Some("16505550000".into()), ..Address::default() };
        // The recipient has written before.
        self.ports.keys.contact(&conversation.tenant, conversation.contact, Missing::Create).await.unwrap();
        let message = SealedMessage { to, content: OutgoingContent::text("a reply") };
        let now = self.clock.now();
        let cipher = self.ports.keys.log(&conversation.tenant, now.day()).await.unwrap();
        let sealed = cipher.seal(&log_aad(Topic::Outbound, &id), &encode(&message));
        let command = SendCommand {
            id,
            purpose: Purpose::Reply,
            again: false,
            fence: None,
            window_until: None,
            kind: Kind::Text,
            category: None,
            sealed,
        };
        let command = OutboundCommand::Send(command);
        let record = OutboundRecord { v: V, conversation: conversation.clone(), at: now, command };
        let from = TopicPartition { topic: Topic::Outbound, partition: 0 };
        self.dead_letter(from, &conversation.account().to_string(), encode(&record));
    }

    fn dead_letter(&self, from: TopicPartition, key: &str, original: Bytes) {
        self.letter_in(0, from, key, original);
    }

    fn letter_in(&self, partition: u32, from: TopicPartition, key: &str, original: Bytes) {
        let dead_letter = DeadLetter {
            v: V,
            at: self.clock.now(),
            from,
            offset: 0,
            reason: DeadReason::Unreadable.into(),
            detail: "made by a test".into(),
            attempts: 1,
            bytes: original.len() as u64,
            tenant: None,
            original: Some(Sealed::from_bytes(original)),
        };
        self.publish(Topic::Dlq, partition, key, encode(&dead_letter));
    }

    /// Waits until everything published is processed.
    async fn settle(&self) {
        tokio::time::sleep(Duration::from_secs(10)).await;
        for topic in Topic::CONSUMED {
            for partition in 0..2 {
                let partition = TopicPartition { topic, partition };
                let end = self.disk.records(partition).len() as u64;
                assert_eq!(self.disk.position(partition).next, end, "{partition}");
            }
        }
    }

    async fn list(&self) -> Vec<Summary> {
        self.letters.list(&Filters::default()).await.unwrap().items
    }

    async fn replay(&self, ids: &[u64]) -> Vec<(Outcome, String)> {
        let replay = Replay { ids: Some(ids.iter().map(|&id| at(id)).collect()), ..Replay::default() };
        let fates = self.letters.replay(&replay).await.unwrap().items;
        self.settle().await;
        fates.into_iter().map(|fate| (fate.outcome, fate.detail)).collect()
    }

    fn sent(&self) -> usize {
        self.channel.accepted().len()
    }
}

fn at(offset: u64) -> LetterId {
    LetterId { partition: 0, offset }
}

fn conversation(number: u8) -> ConversationId {
    format!("acme/whatsapp/1/{}", ContactId::from_bytes([number; 16])).parse().unwrap()
}

fn inbound(conversation: &ConversationId) -> TopicPartition {
    heddle_schemas::topic::inbound_partition(conversation, 2)
}

fn replayed() -> Vec<(Outcome, String)> {
    vec![(Outcome::Replayed, String::new())]
}

#[tokio::test(start_paused = true)]
async fn a_message_for_a_tenant_that_comes_later_is_answered_once_however_often_it_is_replayed() {
    let site = Site::new(StoreOptions::default()).await;
    site.ask(1).await;
    site.settle().await;
    let [dead_letter] = &site.list().await[..] else { panic!() };
    assert_eq!((dead_letter.id, dead_letter.reason.clone()), (at(0), Some(DeadReason::UnknownTenant.into())));
    assert_eq!((dead_letter.from, dead_letter.offset), (Some(inbound(&conversation(1))), Some(0)));
    assert_eq!(dead_letter.about, Some(conversation(1).to_string()));

    site.apply("acme", &["1"]).await;
    let ids = Some(vec![at(0), at(0), at(7)]);
    let dry = Replay { ids, dry_run: true, ..Replay::default() };
    let outcomes: Vec<_> =
        site.letters.replay(&dry).await.unwrap().items.iter().map(|fate| (fate.id, fate.outcome)).collect();
    assert_eq!(outcomes, [(at(0), Outcome::WouldReplay), (at(7), Outcome::Unknown)]);
    site.settle().await;
    assert_eq!(site.sent(), 0);

    assert_eq!(site.replay(&[0]).await, replayed());
    assert_eq!(site.sent(), 1);
    assert_eq!(site.replay(&[0]).await, replayed());
    assert_eq!((site.sent(), site.ports.metrics.duplicates()), (1, 1));
    assert_eq!(site.list().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn poison_is_put_aside_again_and_a_replay_of_all_ends() {
    let site = Site::with_acme().await;
    site.poison.store(true, Ordering::Relaxed);
    site.ask(1).await;
    site.settle().await;
    let all = Replay { filters: Some(Filters::default()), ..Replay::default() };
    let first = site.letters.replay(&all).await.unwrap();
    site.settle().await;
    assert_eq!((first.items.len(), first.next, &first.until[..]), (1, None, &[at(1)][..]));
    let reasons: Vec<_> = site
        .list()
        .await
        .iter()
        .map(|one| (one.reason.clone().and_then(Lenient::known), one.attempts))
        .collect();
    assert_eq!(reasons, vec![(Some(DeadReason::Poison), 3); 2]);

    // Dead letters published meanwhile are not part of the same replay.
    let until = Some(first.until.clone());
    let again = site.letters.replay(&Replay { until, ..all.clone() }).await.unwrap();
    assert_eq!(again.items.len(), 1);
    site.settle().await;

    site.poison.store(false, Ordering::Relaxed);
    assert_eq!(site.letters.replay(&all).await.unwrap().items.len(), 3);
    site.settle().await;
    assert_eq!((site.sent(), site.list().await.len()), (1, 3));
}

#[tokio::test(start_paused = true)]
async fn what_no_build_here_reads_goes_where_it_came_from_unless_it_may_be_sent() {
    let site = Site::with_acme().await;
    let foreign = json!({ "v": 9, "conversation": "elsewhere" }).to_string();
    site.publish(Topic::Inbound, 1, "+16505551234", foreign.clone());
    // One whose key names an account would be parked for a later build.
    site.publish(Topic::Outbound, 1, "whatsapp-1", foreign);
    site.publish(Topic::Dlq, 0, "k", "no letter");
    site.settle().await;
    let mut letters = site.list().await;
    letters.sort_by_key(|dead_letter| dead_letter.from);
    let reasons: Vec<_> = letters.iter().map(|one| one.reason.clone().and_then(Lenient::known)).collect();
    assert_eq!(reasons, [None, Some(DeadReason::Version), Some(DeadReason::Version)]);
    // A foreign key may be a phone number.
    assert!(!serde_json::to_string(&letters).unwrap().contains("1650"));
    let ids: Vec<_> = letters.iter().map(|dead_letter| dead_letter.id).collect();
    let replay = Replay { ids: Some(ids.clone()), ..Replay::default() };
    let fates = site.letters.replay(&replay).await.unwrap().items;
    let of = |id| fates.iter().find(|fate| fate.id == id).map(|fate| (fate.outcome, fate.to.as_deref()));
    assert_eq!(of(ids[0]), Some((Outcome::Unreadable, None)));
    assert_eq!(of(ids[1]), Some((Outcome::Replayed, Some("inbound/1@1"))));
    assert_eq!(of(ids[2]), Some((Outcome::Unreadable, None)));
    site.settle().await;
    assert_eq!(site.list().await.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_late_message_is_recorded_and_not_answered_and_a_forgotten_one_stays() {
    let site = Site::new(StoreOptions::default()).await;
    site.ask(1).await;
    site.settle().await;
    site.apply("acme", &["1"]).await;
    site.clock.jump_forward(25 * HOUR);
    let [(outcome, detail)] = &site.replay(&[0]).await[..] else { panic!() };
    assert_eq!((*outcome, detail.as_str()), (Outcome::Replayed, "recorded and not answered: it is 1d old"));
    site.replay(&[0]).await;
    assert_eq!((site.sent(), site.ports.metrics.duplicates()), (0, 1));
    // Its marker is about to end.
    site.clock.jump_forward(240 * HOUR);
    assert_eq!(site.replay(&[0]).await[0].0, Outcome::TooOld);
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_is_older_than_its_tenant_keeps_letters_is_as_one_that_is_gone() {
    let site = Site::with_acme().await;
    let mut short = tenant("acme", &["1"]);
    short.retention.dlq = Some(24 * HOUR);
    site.system.tenants.apply(short).await.unwrap();
    site.reply(1).await;
    let elsewhere = TopicPartition { topic: Topic::Outbound, partition: 0 };
    site.dead_letter(elsewhere, "+16505551234", Bytes::from_static(b"{}"));
    site.clock.jump_forward(24 * HOUR - Duration::from_secs(1));
    assert!(site.letters.show(at(0)).await.is_ok());
    assert_eq!(site.list().await.len(), 2);

    site.clock.jump_forward(Duration::from_secs(1));
    let refused = site.letters.show(at(0)).await.unwrap_err().to_string();
    assert!(refused.contains("retention.dlq"), "{refused}");
    let left: Vec<_> = site.list().await.into_iter().map(|dead_letter| dead_letter.id).collect();
    assert_eq!(left, [at(1)], "one of no tenant is kept as long as its topic's records");
    let named = Replay { ids: Some(vec![at(0)]), max_age: 240 * HOUR, ..Replay::default() };
    let all = Replay { ids: None, filters: Some(Filters::default()), ..named.clone() };
    assert_eq!(site.letters.replay(&named).await.unwrap().items[0].outcome, Outcome::Unknown);
    assert!(site.letters.replay(&all).await.unwrap().items.iter().all(|fate| fate.id != at(0)));
    assert_eq!(site.sent(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_reply_is_sent_once_and_not_when_it_is_too_old() {
    let site = Site::with_acme().await;
    site.reply(1).await;
    site.reply(2).await;
    assert_eq!(site.replay(&[0]).await, replayed());
    assert_eq!(site.replay(&[0]).await, replayed());
    assert_eq!(site.sent(), 1);
    let partition = heddle_schemas::topic::outbound_partition(&conversation(1).account(), 2);
    for record in site.disk.records(partition) {
        let record: OutboundRecord = decode(&record.value).unwrap();
        let OutboundCommand::Send(send) = record.command else { continue };
        assert!(send.again, "or its account would not check the journal");
    }

    site.clock.jump_forward(25 * HOUR);
    assert_eq!(site.replay(&[1]).await[0].0, Outcome::TooOld);
    assert_eq!(site.sent(), 1);
    let replay = Replay { ids: Some(vec![at(0), at(1)]), max_age: 48 * HOUR, ..Replay::default() };
    assert!(site.letters.replay(&replay).await.unwrap().items.iter().all(|fate| fate.outcome.is_done()));
    site.settle().await;
    assert_eq!(site.sent(), 2);
    let refused = site.letters.replay(&Replay { max_age: 241 * HOUR, ..replay }).await;
    assert!(matches!(refused, Err(DeadLettersError::Request(_))));
}

fn published(id: &str, account: &str, tenant: &str) -> String {
    json!({
        "v": 1, "tenant": tenant, "channel": "whatsapp", "account": account, "message_id": id,
        "at": Timestamp::from_secs(NOW).to_string(), "from": { "phone": "+16505551234" },
        "event": { "type": "message", "content": { "type": "text", "body": "secret words" } },
    })
    .to_string()
}

#[tokio::test(start_paused = true)]
async fn an_original_of_ingress_is_taken_in_again_and_never_shown() {
    let site = Site::with_acme().await;
    site.publish(Topic::Ingress, 1, "+16505551234", published("m1", "2", "acme"));
    site.publish(Topic::Ingress, 1, "+16505551234", published("m2", "2", "acme"));
    site.publish(Topic::Ingress, 1, "+16505551234", published("m3", "2", "nobody"));
    site.settle().await;
    let shown = site.letters.show(at(0)).await.unwrap();
    assert_eq!(
        (shown.state, shown.summary.reason.clone()),
        (OriginalState::Sealed, Some(DeadReason::Account.into()))
    );
    assert_eq!(shown.summary.tenant, Some("acme".parse().unwrap()));
    let all: Vec<Value> =
        site.list().await.iter().map(|dead_letter| serde_json::to_value(dead_letter).unwrap()).collect();
    let text = format!("{} {all:?}", serde_json::to_string(&shown).unwrap());
    assert!(!text.contains("secret words") && !text.contains("1650"), "{text}");

    site.apply("acme", &["1", "2"]).await;
    let outcomes: Vec<_> = site.replay(&[0, 2]).await.into_iter().map(|(outcome, _)| outcome).collect();
    assert_eq!(outcomes, [Outcome::Replayed, Outcome::NotKept]);
    assert_eq!(site.sent(), 1);
    assert_eq!(site.replay(&[0]).await, replayed());
    assert_eq!((site.sent(), site.ports.metrics.duplicates()), (1, 1));

    site.clock.jump_forward(25 * HOUR);
    let [(outcome, detail)] = &site.replay(&[1]).await[..] else { panic!() };
    assert_eq!((*outcome, detail.as_str()), (Outcome::Replayed, "recorded and not answered: it is 1d old"));
    assert_eq!(site.sent(), 1);
    site.replay(&[1]).await;
    assert_eq!(site.ports.metrics.duplicates(), 2, "it was recorded");

    site.ports.keys.erase_tenant(&"acme".parse().unwrap()).await.unwrap();
    assert_eq!(site.replay(&[0]).await[0].0, Outcome::Unreadable);
}

#[tokio::test(start_paused = true)]
async fn an_engines_original_is_shown_with_its_sealed_parts_sealed() {
    let site = Site::new(StoreOptions::default()).await;
    site.ask(1).await;
    site.dead_letter(inbound(&conversation(1)), "k", "no JSON".into());
    site.settle().await;
    let letters = [site.letters.show(at(0)).await.unwrap(), site.letters.show(at(1)).await.unwrap()];
    let states = letters.each_ref().map(|dead_letter| dead_letter.state);
    assert!(states.contains(&OriginalState::NoJson), "{states:?}");
    let shown = letters.iter().find(|dead_letter| dead_letter.state == OriginalState::Shown).unwrap();
    let original = shown.original.as_ref().unwrap();
    assert_eq!(original["conversation"], json!(conversation(1).to_string()));
    assert!(original["event"]["customer"]["sealed"].is_string());
    assert!(!original.to_string().contains("hello"));
    assert!(matches!(site.letters.show(at(9)).await, Err(DeadLettersError::Unknown(_))));
    let elsewhere = LetterId { partition: 5, offset: 0 };
    assert!(matches!(site.letters.show(elsewhere).await, Err(DeadLettersError::Unknown(_))));
}

#[tokio::test(start_paused = true)]
async fn letters_come_in_pages_and_filters_leave_none_out() {
    let site = Site::new(StoreOptions::default()).await;
    let from = TopicPartition { topic: Topic::Inbound, partition: 0 };
    for number in 0..700 {
        let tenant = if number % 2 == 0 { "acme" } else { "globex" };
        let key = format!("{tenant}/whatsapp/1");
        site.dead_letter(from, &key, format!("{{\"n\":{number}}}").into());
    }
    let tenant = Some("globex".parse().unwrap());
    let mut filters = Filters { tenant, limit: Some(100), ..Filters::default() };
    let mut found = Vec::new();
    loop {
        let page = site.letters.list(&filters).await.unwrap();
        assert!(page.items.len() <= 100);
        found.extend(page.items.iter().map(|dead_letter| dead_letter.id.offset));
        let Some(next) = page.next else { break };
        filters.after = Some(next);
    }
    assert_eq!(found, (0..700).filter(|number| number % 2 == 1).collect::<Vec<_>>());
    let of = async |filters: Filters| site.letters.list(&filters).await.unwrap();
    assert_eq!(of(Filters::default()).await.items.len(), LISTED);
    let none = of(Filters { reason: Some(DeadReason::Poison), ..Filters::default() }).await;
    assert_eq!(none, Page { items: Vec::new(), next: None });
    let behind = of(Filters { after: Place::new(vec![at(698)]), ..Filters::default() }).await;
    assert_eq!((behind.items.len(), behind.next), (1, None));
    assert_eq!(
        of(Filters { after: Place::new(vec![at(Offset::MAX)]), ..Filters::default() }).await.items,
        []
    );
}

/// A log with this many partitions of dlq over one in memory.
struct Wide(Arc<dyn Log>, u32);

#[async_trait::async_trait]
impl Log for Wide {
    fn partitions(&self, topic: Topic) -> u32 {
        if topic == Topic::Dlq { self.1 } else { self.0.partitions(topic) }
    }
    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Offset>, StoreError> {
        self.0.append(records).await
    }
    async fn fetch(
        &self,
        partition: TopicPartition,
        from: Offset,
        limit: FetchLimit,
        wait: Duration,
    ) -> Result<Vec<Record>, StoreError> {
        self.0.fetch(partition, from, limit, wait).await
    }
    async fn position(&self, partition: TopicPartition) -> Result<Position, StoreError> {
        self.0.position(partition).await
    }
    async fn acknowledge(&self, partition: TopicPartition, offsets: &[Offset]) -> Result<(), StoreError> {
        self.0.acknowledge(partition, offsets).await
    }
    async fn end(&self, partition: TopicPartition) -> Result<Offset, StoreError> {
        self.0.end(partition).await
    }
    async fn assignment(&self, seen: u64) -> Result<Assignment, StoreError> {
        self.0.assignment(seen).await
    }
    async fn snapshot(&self, partition: TopicPartition) -> Result<(Vec<Record>, Offset), StoreError> {
        self.0.snapshot(partition).await
    }
}

#[tokio::test(start_paused = true)]
async fn letters_of_several_partitions_come_as_they_were_given_up_from_wherever_one_goes_on() {
    let site = Site::new(StoreOptions::default()).await;
    let letters = DeadLetters { log: Arc::new(Wide(site.ports.log.clone(), 5)), ..site.letters.clone() };
    let from = TopicPartition { topic: Topic::Inbound, partition: 0 };
    // Partition 3 stays empty, and partition 4 begins late.
    let mut expected = Vec::new();
    for number in 0..300_u64 {
        let partition = if number < 200 { u32::try_from(number % 3).unwrap() } else { 4 };
        let offset = if number < 200 { number / 3 } else { number - 200 };
        if number % 7 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        site.letter_in(partition, from, "k", "{}".into());
        expected.push((site.clock.now(), LetterId { partition, offset }));
    }
    // Records dead-lettered at the same time are ordered by id.
    expected.sort_unstable();
    let expected: Vec<_> = expected.into_iter().map(|(_, id)| id).collect();
    let ids = |page: &Page| page.items.iter().map(|dead_letter| dead_letter.id).collect::<Vec<_>>();
    let mut filters = Filters { limit: Some(7), ..Filters::default() };
    let mut found = Vec::new();
    loop {
        let page = letters.list(&filters).await.unwrap();
        found.extend(ids(&page));
        let Some(next) = page.next else { break };
        assert_eq!(next.to_string().parse(), Ok(next.clone()));
        filters.after = Some(next);
    }
    assert_eq!(found, expected);
    // A scan after the last one seen, of which only the id is known.
    for position in [0, 99, 250] {
        let after = Place::new(vec![expected[position]]);
        let page = letters.list(&Filters { after, limit: Some(300), ..Filters::default() }).await.unwrap();
        assert_eq!(ids(&page), expected[position + 1..]);
    }
    let until = Some(vec![LetterId { partition: 4, offset: 3 }]);
    let replay = Replay { filters: Some(Filters::default()), until, dry_run: true, ..Replay::default() };
    assert_eq!(letters.replay(&replay).await.unwrap().items.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_the_log_does_not_take_is_told_and_the_rest_goes_on() {
    let site = Site::new(StoreOptions { record_limit: 4096, ..StoreOptions::default() }).await;
    let from = TopicPartition { topic: Topic::Inbound, partition: 1 };
    site.dead_letter(from, "k", "x".into());
    site.dead_letter(from, "k", "x".repeat(5000).into());
    site.dead_letter(from, "k", "y".into());
    let outcomes: Vec<_> = site.replay(&[0, 1, 2]).await.into_iter().map(|(outcome, _)| outcome).collect();
    assert_eq!(outcomes, [Outcome::Replayed, Outcome::Impossible, Outcome::Replayed]);
}

#[test]
fn a_log_without_ingress_takes_nothing_back_into_it() {
    let dead_letter = DeadLetter {
        v: V,
        at: Timestamp::from_secs(NOW),
        from: TopicPartition { topic: Topic::Ingress, partition: 0 },
        offset: 0,
        reason: DeadReason::Account.into(),
        detail: String::new(),
        attempts: 1,
        bytes: 0,
        tenant: None,
        original: None,
    };
    let ages = Ages { sent: HOUR, answered: HOUR, remembered: HOUR };
    let original = Bytes::from(published("m1", "1", "acme"));
    let now = Timestamp::from_secs(NOW);
    let way = |partitions: u32| {
        Desk { partitions: &|_| partitions, ages, now }.find(&dead_letter, &Bytes::new(), original.clone())
    };
    assert!(matches!(way(0), Way::Stays { outcome: Outcome::Impossible, .. }));
    assert!(matches!(way(1), Way::Back { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_request_names_ids_or_filters() {
    let site = Site::new(StoreOptions::default()).await;
    let (ids, filters) = (Some(vec![at(0)]), Some(Filters::default()));
    let cases = [
        Replay::default(),
        Replay { ids: ids.clone(), filters, ..Replay::default() },
        Replay { ids, until: Some(vec![at(1)]), ..Replay::default() },
        Replay { ids: Some(vec![at(0); MOST + 1]), ..Replay::default() },
    ];
    for case in cases {
        assert!(matches!(site.letters.replay(&case).await, Err(DeadLettersError::Request(_))), "{case:?}");
    }
}
