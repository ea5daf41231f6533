//! Opt-outs and the 24 h window, over the store in memory with paused time: messages that are withheld, and those that
//! are still sent.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use heddle_actors::intake::consent::standing;
use heddle_actors::intake::identity::Identity;
use heddle_actors::partition::publish;
use heddle_actors::ports::Ports;
use heddle_memory::channel::{OPT_OUT, Reply, Sending};
use heddle_memory::faults::{Operation, Outcome};
use heddle_memory::responder::Response;
use heddle_memory::{Fault, ScriptedChannel, ScriptedResponder};
use heddle_schemas::consent::{Category, Says, Standing};
use heddle_schemas::content::{Address, Content};
use heddle_schemas::id::{AccountKey, ChannelKind, ContactId, MessageKey, OutboundId, TurnId};
use heddle_schemas::outgoing::{OutgoingContent, Parameter, Template};
use heddle_schemas::ports::channel::{
    ChannelEvent, FailureClass, OutboundMessage, ReceivedPreference, ReceivedStatus, Scope, SendError,
};
use heddle_schemas::ports::clock::Clock as _;
use heddle_schemas::record::event::Event;
use heddle_schemas::record::inbound::{DeliveryFailure, DeliveryStatus, Withheld};
use heddle_schemas::record::outbound::{
    OutboundCommand, OutboundRecord, Purpose, SealedMessage, SendCommand,
};
use heddle_schemas::record::{V, encode, log_aad};
use heddle_schemas::tenant::Tenant;
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::Topic;
use heddle_testing::{Site, SiteBuilder, TenantBuilder, message};

const PHONE: &str = "15551234";
const OFFER: &str = "an offer";

/// Site with one tenant.
struct Scenario {
    site: Site,
    ports: Ports,
    tenant: Arc<Tenant>,
    /// Conditional writes fail while it is set.
    broken: Arc<AtomicBool>,
}

impl Deref for Scenario {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

impl Scenario {
    async fn start(more: &str) -> Self {
        Self::with(more, ScriptedChannel::default()).await
    }

    async fn with(more: &str, channel: ScriptedChannel) -> Self {
        let broken = Arc::<AtomicBool>::default();
        let fails = broken.clone();
        let responder = ScriptedResponder::new(false, |question| {
            Response::text(question, format!("re: {}", question.messages.join("+")))
        });
        let site = SiteBuilder::default()
            .partitions(1)
            .whole_commits()
            .faults(move |operation| match operation {
                Operation::CompareAndSet if fails.load(Ordering::Relaxed) => {
                    Fault::outcome(Outcome::FailsBefore)
                }
                _ => Fault::NONE,
            })
            .channel(Arc::new(channel))
            .responder(Arc::new(responder))
            .start(&[TenantBuilder::new("acme").account("1").more(more).build()])
            .await;
        let tenant = site.with(|node| node.system.tenants.get(&"acme".parse().unwrap())).unwrap();
        let ports = site.with(|node| node.ports.clone());
        Self { site, ports, tenant, broken }
    }

    fn account(&self) -> AccountKey {
        AccountKey {
            tenant: self.tenant.id.clone(),
            channel: ChannelKind::Whatsapp,
            account: "1".parse().unwrap(),
        }
    }

    async fn contact(&self) -> ContactId {
        let identity = Identity::new(self.ports.clone());
        identity.resolve(&self.tenant.id, ChannelKind::Whatsapp, &address()).await.unwrap()
    }

    fn said(&self, id: &str, body: &str, at: Timestamp) -> ChannelEvent {
        message::said("1", address(), id, body, at)
    }

    fn preference(&self, says: Says, at: Timestamp) -> ChannelEvent {
        ChannelEvent::Preference(ReceivedPreference {
            account: self.account().account,
            from: address(),
            at,
            category: Category::Marketing,
            says,
            detail: Some("User requested it".into()),
        })
    }

    async fn accept(&self, event: ChannelEvent) -> bool {
        self.with(|node| node.system.reception.clone())
            .accept(ChannelKind::Whatsapp, &self.tenant, vec![event])
            .await
            .is_ok()
    }

    async fn standing(&self, category: Category) -> Standing {
        standing(&self.ports, &self.tenant.id, self.contact().await, category).await.unwrap()
    }

    /// Appends a campaign's message, as it waits in the log.
    async fn plan(
        &self,
        number: u8,
        category: Option<Category>,
        window_until: Option<Timestamp>,
    ) -> OutboundId {
        let contact = self.contact().await;
        let turn = TurnId(MessageKey::from_bytes([number; 16]));
        let id = OutboundId::of_turn(contact, turn, 0);
        let log = self.ports.keys.log(&self.tenant.id, self.clock.now().day()).await.unwrap();
        let content = match window_until {
            Some(_) => OutgoingContent::text(OFFER),
            None => {
                let body = vec![Parameter::positional(OFFER)];
                OutgoingContent::Template(Template { body, ..Template::new("offer", "en") })
            }
        };
        let kind = content.kind();
        let message = SealedMessage { to: address(), content };
        let sealed = log.seal(&log_aad(Topic::Outbound, &id), &encode(&message));
        let purpose = Purpose::Campaign;
        let command =
            SendCommand { id, purpose, again: false, fence: None, window_until, kind, category, sealed };
        let command = OutboundCommand::Send(command);
        let conversation = self.account().conversation(contact);
        let record = OutboundRecord { v: V, conversation, at: self.clock.now(), command };
        self.ports.log.append(vec![publish::outbound(&self.ports, &record)]).await.unwrap();
        id
    }

    /// Waits until no work is left, and returns the messages that customers have.
    async fn taken(&self) -> Vec<String> {
        tokio::time::sleep(Duration::from_secs(30)).await;
        let text = |message: OutboundMessage| match message.content {
            OutgoingContent::Text { body } => body,
            OutgoingContent::Template(template) => template.body[0].text.clone(),
            other => panic!("{other:?}"),
        };
        self.channel.accepted().into_iter().map(|call| text(call.message)).collect()
    }

    fn withheld(&self) -> Vec<Withheld> {
        let of = |event| match event {
            Event::SendWithheld { because, .. } => Some(because),
            _ => None,
        };
        self.events().into_iter().filter_map(of).collect()
    }
}

fn address() -> Address {
    Address { phone: Some(PHONE.into()), ..Address::default() }
}

#[tokio::test(start_paused = true)]
async fn planned_campaign_messages_are_not_sent_after_a_stop_and_replies_still_are() {
    let scenario = Scenario::start("[consent]\npurposes = [\"marketing\", \"utility\"]\n").await;
    scenario.plan(1, None, None).await;
    assert_eq!(scenario.taken().await, [OFFER], "before");
    assert!(scenario.accept(scenario.said("m1", "STOP!", scenario.clock.now())).await);
    assert_eq!(scenario.standing(Category::Marketing).await, Standing::Stopped, "as soon as it is accepted");
    assert_eq!(scenario.standing(Category::Utility).await, Standing::Stopped, "as configured");
    scenario.plan(2, None, None).await;
    scenario.plan(3, Some(Category::Utility), None).await;
    assert_eq!(scenario.taken().await, [OFFER], "and a stop word is answered with nothing");
    assert_eq!(scenario.withheld(), [Withheld::OptedOut; 2]);
    assert!(scenario.accept(scenario.said("m2", "when do you open?", scenario.clock.now())).await);
    assert_eq!(scenario.taken().await, [OFFER, "re: when do you open?"]);
    assert!(scenario.accept(scenario.said("m3", "start", scenario.clock.now())).await);
    scenario.plan(4, None, None).await;
    let taken = scenario.taken().await;
    assert_eq!(taken.iter().filter(|text| *text == OFFER).count(), 2, "{taken:?}");
    let published = scenario.events();
    assert_eq!(published.iter().filter(|event| matches!(event, Event::OptedOut { .. })).count(), 2);
    assert_eq!(published.iter().filter(|event| matches!(event, Event::Consented { .. })).count(), 2);
    scenario.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_while_a_campaigns_message_waits_for_its_account_withholds_it() {
    let refused = |_: &OutboundMessage, before: usize| match before {
        0 => Sending::from(Reply::fails(FailureClass::Temporary)),
        _ => Sending::default(),
    };
    let scenario = Scenario::with("", ScriptedChannel::new(refused)).await;
    scenario.plan(1, None, None).await;
    while scenario.channel.calls().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(scenario.accept(scenario.preference(Says::Stop, scenario.clock.now())).await);
    assert_eq!(scenario.taken().await, [""; 0]);
    assert_eq!(scenario.channel.calls().len(), 1, "it was to be tried again");
    assert_eq!(scenario.withheld(), [Withheld::OptedOut]);
    scenario.end().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_accepted_before_the_opt_out_is_durable() {
    let scenario = Scenario::start("[consent]\npurposes = [\"marketing\", \"utility\"]\n").await;
    scenario.contact().await;
    let stop = || scenario.said("m1", "stop", Timestamp::from_secs(1_767_225_600));
    scenario.broken.store(true, Ordering::Relaxed);
    assert!(!scenario.accept(stop()).await, "the provider is asked to send it again");
    assert!(
        scenario.accept(scenario.said("m0", "hello", scenario.clock.now())).await,
        "nothing else waits for it"
    );
    scenario.broken.store(false, Ordering::Relaxed);
    assert_eq!(scenario.standing(Category::Marketing).await, Standing::Unknown);
    assert!(scenario.accept(stop()).await);
    assert_eq!(scenario.standing(Category::Marketing).await, Standing::Stopped);
    assert!(scenario.accept(stop()).await, "and once more");
    assert_eq!(scenario.standing(Category::Utility).await, Standing::Stopped);
    scenario.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_older_resume_that_comes_late_changes_nothing() {
    let scenario = Scenario::start("").await;
    let at = |seconds: i64| Timestamp::from_secs(1_767_225_600 + seconds);
    assert!(scenario.accept(scenario.preference(Says::Stop, at(-10))).await);
    assert!(scenario.accept(scenario.preference(Says::Give, at(-20))).await);
    assert_eq!(scenario.standing(Category::Marketing).await, Standing::Stopped);
    assert_eq!(scenario.standing(Category::Utility).await, Standing::Unknown, "it spoke of marketing only");
    assert!(scenario.accept(scenario.preference(Says::Give, at(-5))).await);
    assert_eq!(scenario.standing(Category::Marketing).await, Standing::Given);
    scenario.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_channels_own_opt_out_is_known_from_a_refusal_and_from_a_status() {
    let refuses = |_: &OutboundMessage, _| {
        let detail = "stopped".into();
        let code = Some(OPT_OUT);
        let error = SendError {
            class: FailureClass::OptedOut,
            scope: Scope::Person,
            code,
            detail,
            retry_after: None,
        };
        Sending::from(Reply::Refuses(error))
    };
    let scenario = Scenario::with("", ScriptedChannel::new(refuses)).await;
    scenario.plan(1, None, None).await;
    assert_eq!(scenario.taken().await, [""; 0]);
    assert_eq!(scenario.standing(Category::Marketing).await, Standing::Stopped);
    assert_eq!(scenario.standing(Category::Utility).await, Standing::Unknown);
    scenario.plan(2, None, None).await;
    scenario.taken().await;
    assert_eq!(scenario.channel.calls().len(), 1, "the channel is not asked again");
    scenario.end().await;

    let scenario = Scenario::start("").await;
    let outbound = scenario.plan(1, None, None).await;
    scenario.taken().await;
    let status = |code| {
        ChannelEvent::Status(ReceivedStatus {
            account: scenario.account().account,
            message_id: "scripted.0".into(),
            outbound: Some(outbound),
            status: DeliveryStatus::Failed,
            at: scenario.clock.now(),
            failure: Some(DeliveryFailure { code, title: String::new() }),
            pricing: None,
            recipient: Default::default(),
        })
    };
    assert!(scenario.accept(status(131_026)).await);
    assert_eq!(
        scenario.standing(Category::Marketing).await,
        Standing::Unknown,
        "undeliverable is no opt-out"
    );
    assert!(scenario.accept(status(OPT_OUT)).await);
    assert_eq!(scenario.standing(Category::Marketing).await, Standing::Stopped);
    scenario.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_word_is_answered_with_the_tenants_own_text_where_there_is_one() {
    let scenario = Scenario::start("[consent]\nstopped_text = \"No more from us.\"\n").await;
    assert!(scenario.accept(scenario.said("m1", "unsubscribe", scenario.clock.now())).await);
    assert_eq!(scenario.taken().await, ["No more from us."]);
    scenario.end().await;
}

#[tokio::test(start_paused = true)]
async fn messages_over_24_hours_after_the_customers_last_are_not_sent() {
    let scenario = Scenario::start("").await;
    let hours = |hours: i64| Timestamp::from_secs(1_767_225_600 + hours * 3600);
    // The channel kept it that long, and webhooks may be days late.
    assert!(scenario.accept(scenario.said("m1", "late", hours(-25))).await);
    assert_eq!(scenario.taken().await, [""; 0]);
    assert_eq!(scenario.withheld(), [Withheld::WindowOver]);
    assert!(scenario.accept(scenario.said("m2", "in time", hours(-23))).await);
    assert_eq!(scenario.taken().await, ["re: in time"]);
    scenario.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_waited_for_its_account_until_the_window_was_over_is_not_sent() {
    let dead = Arc::new(AtomicBool::new(true));
    let is_dead = dead.clone();
    let channel = ScriptedChannel::new(move |_, _| match is_dead.load(Ordering::Relaxed) {
        true => Sending::from(Reply::fails(FailureClass::Unauthorized)),
        false => Sending::default(),
    });
    let scenario = Scenario::with("", channel).await;
    assert!(scenario.accept(scenario.said("m1", "hello", scenario.clock.now())).await);
    tokio::time::sleep(Duration::from_secs(25 * 3600)).await;
    dead.store(false, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(scenario.taken().await, [""; 0]);
    assert_eq!(scenario.withheld(), [Withheld::WindowOver]);
    assert!(scenario.accept(scenario.said("m2", "still there?", scenario.clock.now())).await);
    assert_eq!(scenario.taken().await, ["re: still there?"]);
    scenario.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_window_is_kept_to_the_microsecond_and_what_has_none_is_sent_as_before() {
    let scenario = Scenario::start("").await;
    let now = scenario.clock.now();
    scenario.plan(1, None, Some(now)).await;
    scenario.plan(2, None, Some(now.after(Duration::from_secs(60)))).await;
    scenario.plan(3, None, None).await;
    assert_eq!(scenario.taken().await, [OFFER; 2]);
    assert_eq!(scenario.withheld(), [Withheld::WindowOver]);
    scenario.end().await;
}

fn tapped(id: &str, content: Content, at: Timestamp) -> ChannelEvent {
    let ChannelEvent::Message(mut message) = message::said("1", address(), id, "", at) else {
        unreachable!()
    };
    message.act = heddle_schemas::ports::channel::Act::Say(content);
    ChannelEvent::Message(message)
}

fn button(title: &str) -> Content {
    Content::Button { text: title.into(), payload: Some(title.into()) }
}

#[tokio::test(start_paused = true)]
async fn a_stop_word_stops_marketing_and_confirmations_still_come() {
    let scenario = Scenario::start("").await;
    assert!(scenario.accept(scenario.said("m1", "STOP", scenario.clock.now())).await);
    assert_eq!(scenario.standing(Category::Marketing).await, Standing::Stopped);
    assert_eq!(scenario.standing(Category::Utility).await, Standing::Unknown);
    scenario.plan(1, Some(Category::Utility), None).await;
    scenario.plan(2, Some(Category::Marketing), None).await;
    assert_eq!(scenario.taken().await, [OFFER]);
    assert_eq!(scenario.withheld(), [Withheld::OptedOut]);
    scenario.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_start_word_ends_what_a_stop_word_stopped_under_another_configuration() {
    let scenario = Scenario::start("").await;
    let contact = scenario.contact().await;
    let cipher = scenario.ports.keys.tenant(&scenario.tenant.id).await.unwrap();
    let stop = heddle_actors::intake::consent::Statement {
        says: Says::Stop,
        categories: Category::ALL.to_vec(),
        at: scenario.clock.now(),
        how: heddle_schemas::consent::How::Word,
        key: MessageKey::from_bytes([1; 16]),
        text: None,
    };
    let record = heddle_actors::intake::consent::record;
    record(&scenario.ports, &scenario.tenant.id, &*cipher, contact, &stop).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(scenario.accept(scenario.said("m1", "start", scenario.clock.now())).await);
    for category in Category::ALL {
        assert_eq!(scenario.standing(category).await, Standing::Given, "{category}");
    }
    scenario.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_tap_on_a_button_is_no_opt_out_but_on_the_channels_own() {
    let scenario = Scenario::start("[consent]\nstopped_text = \"bye\"\n").await;
    let interactive = Content::Interactive {
        kind: "button_reply".into(),
        id: Some("cancel".into()),
        title: Some("Cancel".into()),
        response: None,
    };
    for (id, content) in [("m1", button("Cancel")), ("m2", interactive), ("m3", button("STOP"))] {
        assert!(scenario.accept(tapped(id, content, scenario.clock.now())).await);
        assert_eq!(scenario.standing(Category::Marketing).await, Standing::Unknown, "{id}");
    }
    let taken = scenario.taken().await;
    assert!(!taken.is_empty() && taken.iter().all(|text| text.starts_with("re: ")), "answered: {taken:?}");
    assert!(scenario.accept(tapped("m4", button("Stop promotions"), scenario.clock.now())).await);
    assert_eq!(scenario.standing(Category::Marketing).await, Standing::Stopped);
    assert_eq!(scenario.standing(Category::Utility).await, Standing::Unknown);
    assert_eq!(scenario.taken().await.last().map(String::as_str), Some("bye"));
    scenario.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_purpose_that_requires_consent_is_withheld_from_who_has_given_none() {
    let scenario = Scenario::start("[consent]\nrequire = [\"marketing\"]\n").await;
    scenario.plan(1, Some(Category::Marketing), None).await;
    scenario.plan(2, Some(Category::Utility), None).await;
    assert_eq!(scenario.taken().await, [OFFER], "utility needs none");
    assert_eq!(scenario.withheld(), [Withheld::NoConsent]);
    assert!(scenario.accept(scenario.said("m1", "start", scenario.clock.now())).await);
    scenario.plan(3, Some(Category::Marketing), None).await;
    assert_eq!(scenario.taken().await.iter().filter(|text| *text == OFFER).count(), 2);
    scenario.end().await;
}
