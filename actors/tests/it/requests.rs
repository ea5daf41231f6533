//! Messages that the tenant sends outside of the agent's turns, over the store in memory with paused time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use heddle_actors::conversation::Delivery;
use heddle_actors::conversation::request::outbound;
use heddle_actors::intake::identity::Identity;
use heddle_actors::partition::publish;
use heddle_memory::ScriptedResponder;
use heddle_memory::responder::Response;
use heddle_schemas::consent::Category;
use heddle_schemas::content::Address;
use heddle_schemas::id::{AccountKey, ChannelKind, ConversationId, MessageKey};
use heddle_schemas::outgoing::{OutgoingContent, Parameter, Template};
use heddle_schemas::ports::clock::Clock as _;
use heddle_schemas::ports::state::State as _;
use heddle_schemas::record::inbound::{
    DeliveryFailure, DeliveryStatus, InboundEvent, InboundRecord, Request, Restrict, SealedRequest, Withheld,
};
use heddle_schemas::record::{V, encode, log_aad};
use heddle_schemas::table::Key;
use heddle_schemas::tenant::Tenant;
use heddle_schemas::topic::Topic;
use heddle_testing::{Site, SiteBuilder, TenantBuilder, message};

const PHONE: &str = "15551234";

fn tenant(more: &str) -> Tenant {
    TenantBuilder::new("acme").account("1").more(more).build()
}

async fn start(builder: SiteBuilder, more: &str) -> Site {
    builder.partitions(1).start(&[tenant(more)]).await
}

fn address() -> Address {
    Address { phone: Some(PHONE.into()), ..Address::default() }
}

fn template() -> OutgoingContent {
    let body = vec![Parameter::positional("Ann"), Parameter::positional("Friday")];
    OutgoingContent::Template(Template { body, ..Template::new("reminder", "en") })
}

async fn conversation(site: &Site) -> ConversationId {
    let identity = Identity::new(site.with(|node| node.ports.clone()));
    let tenant = "acme".parse().unwrap();
    let contact = identity.resolve(&tenant, ChannelKind::Whatsapp, &address()).await.unwrap();
    let account = "1".parse().unwrap();
    AccountKey { tenant, channel: ChannelKind::Whatsapp, account }.conversation(contact)
}

async fn append(site: &Site, event: InboundEvent) {
    let conversation = conversation(site).await;
    let ports = site.with(|node| node.ports.clone());
    let record = InboundRecord { v: V, conversation, at: site.clock.now(), event };
    ports.log.append(vec![publish::inbound(&ports, &record)]).await.unwrap();
}

/// Publishes a request under this idempotency key.
async fn request(site: &Site, number: u8, content: OutgoingContent, category: Category) {
    let ports = site.with(|node| node.ports.clone());
    let key = MessageKey::from_bytes([number; 16]);
    let log = ports.keys.log(&"acme".parse().unwrap(), site.clock.now().day()).await.unwrap();
    let sealed = log.seal(&log_aad(Topic::Inbound, &key), &encode(&SealedRequest { to: address(), content }));
    append(site, InboundEvent::Send(Request { key, category, sealed })).await;
}

/// Lets the work be done, and returns what was sent so far, in words.
async fn sent(site: &Site) -> Vec<String> {
    tokio::time::sleep(Duration::from_secs(20)).await;
    site.channel.accepted().iter().map(|call| call.message.content.in_words()).collect()
}

async fn delivery(site: &Site, number: u8) -> Option<Delivery> {
    let conversation = conversation(site).await;
    let id = outbound(conversation.contact, MessageKey::from_bytes([number; 16]));
    let store = site.with(|node| node.store.clone());
    let stored = store.get(&Key::delivery(&conversation, &id)).await.unwrap();
    stored.map(|stored| serde_json::from_slice(&stored).unwrap())
}

async fn failure(site: &Site, number: u8) -> Option<i64> {
    let delivery = delivery(site, number).await.unwrap();
    assert_eq!(delivery.status, DeliveryStatus::Failed);
    delivery.failure.map(|failure| failure.code)
}

#[tokio::test(start_paused = true)]
async fn a_template_is_sent_outside_of_the_window_and_anything_else_is_withheld() {
    let site = start(SiteBuilder::default(), "").await;
    request(&site, 1, template(), Category::Utility).await;
    request(&site, 2, OutgoingContent::text("See you on Friday."), Category::Utility).await;
    assert_eq!(sent(&site).await, ["[template reminder] Ann; Friday"]);
    assert_eq!(failure(&site, 2).await, Some(Withheld::WindowOver.code()));
    let acme = tenant("");
    site.say(&acme, PHONE, "1", "m1").await;
    request(&site, 3, OutgoingContent::text("See you on Friday."), Category::Utility).await;
    assert_eq!(sent(&site).await[1..], ["on text of m1", "See you on Friday."]);
    tokio::time::sleep(Duration::from_secs(24 * 3600)).await;
    request(&site, 4, OutgoingContent::text("See you on Friday."), Category::Utility).await;
    assert_eq!(sent(&site).await.len(), 3);
    assert_eq!(failure(&site, 4).await, Some(Withheld::WindowOver.code()));
}

#[tokio::test(start_paused = true)]
async fn the_agent_knows_what_was_sent_when_the_person_answers() {
    let seen: Arc<Mutex<Vec<Vec<String>>>> = Arc::default();
    let responder = ScriptedResponder::new(true, {
        let seen = seen.clone();
        move |question| {
            let texts = question.history.iter().map(|said| said.text.clone());
            seen.lock().unwrap().push(texts.collect());
            Response::text(question, "Yes.".to_owned())
        }
    });
    let site = start(SiteBuilder::default().responder(Arc::new(responder)), "").await;
    request(&site, 1, template(), Category::Utility).await;
    sent(&site).await;
    site.say(&tenant(""), PHONE, "1", "m1").await;
    sent(&site).await;
    assert_eq!(*seen.lock().unwrap(), [["[template reminder] Ann; Friday"]]);
}

#[tokio::test(start_paused = true)]
async fn a_request_under_the_same_key_is_sent_once() {
    let site = start(SiteBuilder::default(), "").await;
    for _ in 0..3 {
        request(&site, 1, template(), Category::Utility).await;
    }
    request(&site, 2, template(), Category::Utility).await;
    request(&site, 1, template(), Category::Utility).await;
    assert_eq!(sent(&site).await.len(), 2);
    site.restart().await;
    request(&site, 1, template(), Category::Utility).await;
    assert_eq!(sent(&site).await.len(), 2, "whatever is in memory");
}

/// The node dies at each step of the store in turn, with the channel's answer or without.
#[tokio::test(start_paused = true)]
async fn a_crash_at_any_step_sends_a_request_once_at_most_and_says_what_became_of_it() {
    let mut crashes = 0;
    for steps in 0.. {
        let site = start(SiteBuilder::default(), "").await;
        request(&site, 1, template(), Category::Utility).await;
        site.die_after(steps);
        let mut has_died = false;
        for _ in 0..60 {
            has_died |= site.second().await;
        }
        site.die_after(-1);
        // Longer than a send of unknown outcome waits for its status.
        tokio::time::sleep(Duration::from_secs(300)).await;
        let calls = sent(&site).await.len();
        assert!(calls <= 1, "{calls} calls after a crash at step {steps}");
        let status = delivery(&site, 1).await.map(|delivery| delivery.status);
        let is_settled = matches!(status, Some(DeliveryStatus::Sent | DeliveryStatus::Failed));
        assert!(is_settled, "{status:?} after a crash at step {steps}");
        assert!(calls == 1 || status == Some(DeliveryStatus::Failed), "lost at step {steps}");
        if !has_died {
            break;
        }
        crashes += 1;
    }
    assert!(crashes > 10, "{crashes} steps");
}

#[tokio::test(start_paused = true)]
async fn a_request_beyond_the_quota_is_not_sent_and_says_so() {
    let site = start(SiteBuilder::default(), "[quota]\nmessages_per_month = 2\n").await;
    for number in 1..=3 {
        request(&site, number, template(), Category::Utility).await;
    }
    assert_eq!(sent(&site).await.len(), 2);
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(failure(&site, 3).await, Some(DeliveryFailure::QUOTA_SPENT));
}

#[tokio::test(start_paused = true)]
async fn a_request_to_a_person_who_opted_out_or_is_restricted_is_withheld() {
    let site = start(SiteBuilder::default(), "").await;
    let acme = tenant("");
    site.receive(&acme, message::said("1", address(), "m1", "STOP", site.clock.now())).await;
    request(&site, 1, template(), Category::Marketing).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(failure(&site, 1).await, Some(Withheld::OptedOut.code()));
    let key = MessageKey::from_bytes([9; 16]);
    append(&site, InboundEvent::Restrict(Restrict { key, restricted: true })).await;
    request(&site, 2, template(), Category::Utility).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(failure(&site, 2).await, Some(Withheld::Restricted.code()));
}

#[tokio::test(start_paused = true)]
async fn replies_and_requests_leave_in_the_order_of_the_log() {
    let site = start(SiteBuilder::default(), "").await;
    let acme = tenant("");
    site.say(&acme, PHONE, "1", "m1").await;
    for number in 1..=5 {
        request(&site, number, OutgoingContent::text(number.to_string()), Category::Utility).await;
    }
    assert_eq!(sent(&site).await, ["on text of m1", "1", "2", "3", "4", "5"]);
}
