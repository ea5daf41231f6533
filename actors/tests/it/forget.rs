//! Erasure of a contact in the middle of its messages: the key first, then every row, through a crash at any step, over
//! the store in memory with paused time. Earlier messages do not come back; later ones begin a new conversation.

use std::ops::Deref;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use heddle_actors::intake::identity::Identity;
use heddle_actors::privacy::erasure;
use heddle_schemas::content::Address;
use heddle_schemas::erasure::Erasure;
use heddle_schemas::id::{AccountId, ChannelKind, ContactId, ConversationId, OutboundId};
use heddle_schemas::ports::channel::{ChannelEvent, ReceivedStatus};
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::keys::{KeysError, Missing};
use heddle_schemas::ports::state::{Batch, Write};
use heddle_schemas::record::event::Event;
use heddle_schemas::record::inbound::DeliveryStatus;
use heddle_schemas::table::{Key, Table};
use heddle_schemas::tenant::Tenant;
use heddle_schemas::topic::{Topic, inbound_partition};
use heddle_testing::{Site, SiteBuilder, TenantBuilder};

const PHONE: &str = "4915700000001";
const OTHER: &str = "4915700000002";

fn acme() -> Tenant {
    TenantBuilder::new("acme").account("1").account("2").settle("100ms").build()
}

fn accounts() -> Vec<(ChannelKind, AccountId)> {
    acme().channels.into_iter().map(|channel| (channel.kind, channel.account)).collect()
}

struct World(Site);

impl Deref for World {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.0
    }
}

impl World {
    async fn begin() -> Self {
        Self(SiteBuilder::default().start(&[acme()]).await)
    }

    async fn receive(&self, event: ChannelEvent) {
        self.0.receive(&acme(), event).await;
    }

    async fn say(&self, phone: &str, account: &str, id: &str) {
        self.0.say(&acme(), phone, account, id).await;
    }

    async fn contact(&self, phone: &str) -> ContactId {
        let identity = Identity::new(self.with(|node| node.ports.clone()));
        let address = Address { phone: Some(phone.into()), ..Address::default() };
        identity.resolve(&acme().id, ChannelKind::Whatsapp, &address).await.unwrap()
    }

    /// Asks until it is under way, as an operator does.
    async fn forget(&self, contact: ContactId) -> Erasure {
        loop {
            let ports = self.with(|node| node.ports.clone());
            let id = acme().id;
            let asking = erasure::ask(&ports, &id, accounts(), contact);
            tokio::select! {
                asked = asking => if let Ok(erasure) = asked { return erasure },
                () = self.died.notified() => {}
            }
            self.restart().await;
        }
    }

    /// Asks once. The caller does not come back when the node dies meanwhile.
    async fn ask_once(&self, contact: ContactId) {
        let ports = self.with(|node| node.ports.clone());
        let id = acme().id;
        tokio::select! {
            asked = erasure::ask(&ports, &id, accounts(), contact) => drop(asked.unwrap()),
            () = self.died.notified() => self.restart().await,
        }
    }

    async fn erasures(&self) -> Vec<Erasure> {
        let ports = self.with(|node| node.ports.clone());
        erasure::list(&ports, &acme().id).await.unwrap()
    }

    /// Returns the number of erasures that the store knows to be under way.
    fn open(&self) -> usize {
        let rows = self.disk.rows(self.clock.now()).into_iter();
        rows.filter(|(key, _)| key.table() == Table::Erasure && key.of_open_erasure().is_some()).count()
    }

    async fn erasure(&self, id: heddle_schemas::id::MessageKey) -> Erasure {
        let ports = self.with(|node| node.ports.clone());
        erasure::find(&ports, &acme().id, id).await.unwrap().unwrap()
    }

    /// Waits until an erasure is complete, and restarts the node whenever it dies.
    async fn completed(&self, id: heddle_schemas::id::MessageKey) -> Erasure {
        for _ in 0..200 {
            self.second().await;
            let erasure = self.erasure(id).await;
            if erasure.is_complete() {
                return erasure;
            }
        }
        panic!("{:?} is not done after {:?}", self.erasure(id).await, self.disk.rows(self.clock.now()));
    }

    /// Returns the rows of a contact's conversations, and of messages that wait for them.
    fn rows_of(&self, contact: ContactId) -> Vec<String> {
        let rows = self.disk.rows(self.clock.now()).into_iter().map(|(key, _)| key);
        let of_contact = |key: &heddle_schemas::table::Key| match key.table() {
            // Markers are keyed hashes that end by themselves.
            Table::Head | Table::History | Table::Claim | Table::Delivery | Table::Tool => {
                key.id().ends_with(&contact.to_bytes())
            }
            Table::Agenda => String::from_utf8_lossy(key.row()).contains(&contact.to_string()),
            Table::Backlog => true,
            _ => false,
        };
        rows.filter(of_contact).map(|key| format!("{:?} {key:?}", key.table())).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn erased_messages_do_not_come_back_and_other_contacts_go_on() {
    let world = World::begin().await;
    let early = world.clock.now();
    world.say(PHONE, "1", "a1").await;
    world.say(PHONE, "2", "a2").await;
    world.say(OTHER, "1", "b1").await;
    let (contact, other) = (world.contact(PHONE).await, world.contact(OTHER).await);
    assert!(world.rows_of(contact).len() > 4, "{:?}", world.rows_of(contact));
    let before = world.sent();
    assert_eq!(before, ["on text of a1", "on text of a2", "on text of b1"]);

    let erasure = world.forget(contact).await;
    let erasure = world.completed(erasure.id).await;
    assert!(erasure.rows() > 4 && erasure.parts.len() == 2, "{erasure:?}");
    assert_eq!(world.rows_of(contact), [""; 0]);
    assert!(!world.rows_of(other).is_empty());
    let published =
        |event: &Event| matches!(event, Event::Forgotten { erasure: id, .. } if *id == erasure.id);
    assert_eq!(world.events().iter().filter(|event| published(event)).count(), 1);

    // Late: the same message once more, one that was under way, and the channel's status of a reply.
    world.receive(world.said(PHONE, "1", "a1", early)).await;
    world.receive(world.said(PHONE, "2", "a3", early)).await;
    let outbound: OutboundId = world.channel.accepted()[0].message.id;
    world
        .receive(ChannelEvent::Status(ReceivedStatus {
            account: "1".parse().unwrap(),
            message_id: "wamid.1".into(),
            outbound: Some(outbound),
            status: DeliveryStatus::Read,
            at: early,
            failure: None,
            pricing: None,
            recipient: Default::default(),
        }))
        .await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(world.rows_of(contact), [""; 0], "nothing came back");
    assert_eq!(world.sent(), before);

    world.say(PHONE, "1", "a4").await;
    assert_eq!(world.sent().last().unwrap(), "on text of a4", "who writes anew is answered");
    assert!(!world.rows_of(contact).is_empty());
    world.say(OTHER, "1", "b2").await;
    assert_eq!(world.sent().last().unwrap(), "on text of b2");
    // The same erasure delivered again takes nothing that came after it.
    world.restart().await;
    world.say(PHONE, "1", "a5").await;
    assert_eq!(world.sent().last().unwrap(), "on text of a5");
}

#[tokio::test(start_paused = true)]
async fn messages_of_a_suspended_account_are_not_sent_to_an_erased_contact() {
    let world = World::begin().await;
    world.say(PHONE, "1", "a1").await;
    world.refuses.store(true, Ordering::Relaxed);
    world.say(PHONE, "1", "a2").await;
    world.say(OTHER, "1", "b1").await;
    let contact = world.contact(PHONE).await;
    let erasure = world.forget(contact).await;
    world.completed(erasure.id).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.refuses.store(false, Ordering::Relaxed);
    let mut renewed = acme();
    let token = heddle_schemas::sealed::Secret::new("renewed");
    renewed.channels[0].credentials.set("access_token", token);
    let tenants = world.with(|node| node.system.tenants.clone());
    tenants.apply(renewed).await.unwrap();
    tokio::time::sleep(Duration::from_secs(90)).await;
    assert_eq!(world.sent(), ["on text of a1", "on text of b1"]);
    assert_eq!(world.rows_of(contact), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_step_is_gone_on_from() {
    for step in 0.. {
        let world = World::begin().await;
        world.say(PHONE, "1", "a1").await;
        world.say(PHONE, "2", "a2").await;
        let contact = world.contact(PHONE).await;
        world.die_after(step);
        let erasure = world.forget(contact).await;
        let erasure = world.completed(erasure.id).await;
        let died = world.steps_left() < 0;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(world.rows_of(contact), [""; 0], "step {step}");
        assert_eq!(world.sent(), ["on text of a1", "on text of a2"], "step {step}");
        assert!(erasure.completed_at.unwrap() <= erasure.deadline);
        world.die_after(-1);
        world.say(PHONE, "1", "a3").await;
        assert_eq!(world.sent().last().unwrap(), "on text of a3", "step {step}");
        if !died {
            assert!(step > 15, "so few steps are no erasure");
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_erasure_whose_request_died_completes_without_a_second_request() {
    let (mut begun, mut published) = (0, 0);
    for step in 0.. {
        let world = World::begin().await;
        world.say(PHONE, "1", "a1").await;
        world.say(PHONE, "2", "a2").await;
        let contact = world.contact(PHONE).await;
        world.die_after(step);
        world.ask_once(contact).await;
        let died = world.steps_left() < 0;
        if world.open() == 0 && world.erasures().await.is_empty() {
            assert!(died && begun == 0, "step {step}: what was durable is not lost");
            tokio::time::sleep(Duration::from_secs(300)).await;
            assert!(!world.rows_of(contact).is_empty(), "step {step}: nothing was begun");
            continue;
        }
        begun += 1;
        for _ in 0..150 {
            world.second().await;
        }
        let erasures = world.erasures().await;
        assert!(matches!(&erasures[..], [one] if one.is_complete()), "step {step}: {erasures:?}");
        assert_eq!(world.rows_of(contact), [""; 0], "step {step}");
        assert_eq!(world.open(), 0, "step {step}: it is closed");
        let forgotten =
            world.events().into_iter().filter(|event| matches!(event, Event::Forgotten { .. })).count();
        assert!(forgotten > 0, "step {step}: it was published");
        published += forgotten;
        if world.steps_left() >= 0 {
            assert!(begun > 15, "so few steps are no erasure");
            assert!(published <= 2 * begun, "once, but for a crash in between");
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn asking_again_finds_what_is_under_way_and_once_it_is_complete_begins_another() {
    let world = World::begin().await;
    world.say(PHONE, "1", "a1").await;
    let contact = world.contact(PHONE).await;
    let first = world.forget(contact).await;
    assert_eq!(world.forget(contact).await.id, first.id);
    world.completed(first.id).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.say(PHONE, "1", "a2").await;
    let second = world.forget(contact).await;
    assert_ne!(second.id, first.id);
    world.completed(second.id).await;
    assert_eq!(world.rows_of(contact), [""; 0]);
    assert_eq!(world.erasures().await.len(), 2, "each has its receipt");
}

#[tokio::test(start_paused = true)]
async fn a_timer_that_outlives_an_erasure_gives_the_contact_no_key_again() {
    let world = World::begin().await;
    world.say(PHONE, "1", "a1").await;
    let contact = world.contact(PHONE).await;
    let erasure = world.forget(contact).await;
    world.completed(erasure.id).await;
    // As a crash leaves it between the decision of a turn and its publication.
    let (channel, account) = accounts().swap_remove(0);
    let conversation = ConversationId { tenant: acme().id, channel, account, contact };
    let ports = world.with(|node| node.ports.clone());
    let partition = inbound_partition(&conversation, ports.log.partitions(Topic::Inbound));
    let late = Key::agenda(
        partition,
        world.clock.now().after(Duration::from_secs(30)),
        conversation.to_string().as_bytes(),
    );
    let batch = Batch { writes: vec![Write::put(late, Bytes::from_static(b"{}"))], ..Batch::default() };
    ports.state.commit(batch).await.unwrap();
    assert_eq!(world.rows_of(contact).len(), 1);
    world.restart().await;
    tokio::time::sleep(Duration::from_secs(90)).await;
    assert_eq!(world.rows_of(contact), [""; 0]);
    let ports = world.with(|node| node.ports.clone());
    let key = ports.keys.contact(&acme().id, contact, Missing::Fail).await;
    assert!(matches!(key, Err(KeysError::Gone { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_redelivery_after_an_erasure_is_refused_whatever_the_channels_clock_says() {
    let world = World::begin().await;
    // By the provider's clock, which is ahead, it is sent after the erasure.
    let ahead = world.clock.now().after(Duration::from_secs(3_600));
    world.receive(world.said(PHONE, "1", "a1", ahead)).await;
    world.second().await;
    let contact = world.contact(PHONE).await;
    let erasure = world.forget(contact).await;
    world.completed(erasure.id).await;
    let sent = world.sent();
    for restarted in [false, true] {
        if restarted {
            world.restart().await;
        }
        world.receive(world.said(PHONE, "1", "a1", ahead)).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(world.sent(), sent, "answered again");
        assert_eq!(world.rows_of(contact), [""; 0], "came back to life");
    }
    world.receive(world.said(PHONE, "1", "a2", ahead)).await;
    world.second().await;
    assert_eq!(world.sent().last().unwrap(), "on text of a2");
    // Eleven days later nothing of before is left.
    world.clock.jump_forward(Duration::from_secs(11 * 86_400));
    let markers =
        world.disk.rows(world.clock.now()).into_iter().filter(|(key, _)| key.table() == Table::Marker);
    assert_eq!(markers.count(), 0);
}
