//! Changes of a tenant's retention: existing rows end by the shortest time that was promised, through a crash at any
//! step, over the store in memory with paused time.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::time::Duration;

use heddle_actors::options::Options;
use heddle_schemas::content::Content;
use heddle_schemas::ports::channel::{Act, ChannelEvent, ReceivedStatus};
use heddle_schemas::ports::clock::Clock as _;
use heddle_schemas::ports::state::Walk;
use heddle_schemas::record::inbound::DeliveryStatus;
use heddle_schemas::table::Table;
use heddle_schemas::tenant::Tenant;
use heddle_testing::{BEGIN, Site, SiteBuilder, TenantBuilder, message};

const DAY: Duration = Duration::from_secs(86_400);

fn tenant() -> Tenant {
    TenantBuilder::new("acme").account("1").account("2").settle("100ms").build()
}

/// Site whose sweeps have small pages, so that there are many.
struct Scenario(Site);

impl Deref for Scenario {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.0
    }
}

impl Scenario {
    async fn begin() -> Self {
        let options = Options { sweep_page: 3.try_into().unwrap(), ..Options::default() };
        Self(SiteBuilder::default().options(options).start(&[tenant()]).await)
    }

    async fn apply(&self, change: impl FnOnce(&mut Tenant)) {
        let mut tenant = tenant();
        change(&mut tenant);
        let tenants = self.with(|node| node.system.tenants.clone());
        tenants.apply(tenant).await.unwrap();
    }

    async fn receive(&self, event: ChannelEvent) {
        self.0.receive(&tenant(), event).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }

    async fn say(&self, phone: u32, id: &str, content: Content) {
        let from = message::phone(&format!("49157{phone:08}"));
        self.receive(message::acted("1", from, id, Act::Say(content), self.clock.now())).await;
    }

    /// The reply that was sent last was read.
    async fn read(&self) {
        let last = self.channel.accepted().len();
        self.receive(ChannelEvent::Status(ReceivedStatus {
            account: "1".parse().unwrap(),
            message_id: format!("wamid.{last}"),
            outbound: Some(self.channel.accepted()[last - 1].message.id),
            status: DeliveryStatus::Read,
            at: self.clock.now(),
            failure: None,
            pricing: None,
            recipient: Default::default(),
        }))
        .await;
    }

    /// Lets a sweep happen, and restarts the node whenever it dies. Returns whether it died.
    async fn sweep(&self) -> bool {
        let mut died = false;
        for _ in 0..120 {
            died |= self.second().await;
        }
        died
    }

    /// Returns the number of a table's rows, ended or not, by the whole days after which they end.
    async fn ends(&self, table: Table) -> Vec<(u64, usize)> {
        let state = self.with(|node| node.ports.state.clone());
        let mut walk = Walk::of(&tenant().id, [table], 1_000);
        let mut ends = BTreeMap::new();
        loop {
            let page = state.walk(&walk).await.unwrap();
            for row in &page.rows {
                *ends.entry(row.expires.unwrap().since(BEGIN).as_secs().div_euclid(86_400)).or_default() += 1;
            }
            if !walk.go_on(&page) {
                return ends.into_iter().collect();
            }
        }
    }
}

fn text(body: &str) -> Content {
    Content::Text { body: body.into() }
}

fn picture() -> Content {
    serde_json::from_value(serde_json::json!({ "type": "media", "kind": "image", "id": "7" })).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_shorter_retention_holds_for_existing_rows_and_a_longer_one_for_new_rows() {
    let scenario = Scenario::begin().await;
    scenario.say(1, "a1", text("on day 0")).await;
    scenario.read().await;
    scenario.clock.jump_forward(10 * DAY);
    scenario.say(1, "a2", text("on day 10")).await;
    scenario.say(2, "b1", picture()).await;
    scenario.read().await;
    // A message and its reply each, and the reply's delivery state.
    assert_eq!(scenario.ends(Table::History).await, [(30, 2), (40, 4)]);
    assert_eq!(scenario.ends(Table::Delivery).await, [(30, 1), (40, 2)]);

    scenario.apply(|tenant| tenant.retention.messages = 7 * DAY).await;
    scenario.sweep().await;
    assert_eq!(scenario.ends(Table::History).await, [(17, 4)], "what is over is deleted");
    assert_eq!(scenario.ends(Table::Delivery).await, [(17, 2)]);

    scenario.apply(|tenant| tenant.retention.messages = 20 * DAY).await;
    scenario.sweep().await;
    assert_eq!(scenario.ends(Table::History).await, [(17, 4)], "they were promised the shorter time");
    scenario.say(1, "a3", text("under twenty days")).await;
    assert_eq!(scenario.ends(Table::History).await, [(17, 4), (30, 2)]);

    scenario
        .apply(|tenant| {
            tenant.retention.messages = 20 * DAY;
            tenant.retention.media = Some(2 * DAY);
            tenant.retention.receipts = Some(3 * DAY);
        })
        .await;
    scenario.sweep().await;
    // The picture; the reply to it is a row of its own.
    assert_eq!(scenario.ends(Table::History).await, [(12, 1), (17, 3), (30, 2)]);
    assert_eq!(scenario.ends(Table::Delivery).await, [(13, 3)]);
    // The same again, and a restart, change nothing.
    scenario.restart().await;
    scenario.sweep().await;
    assert_eq!(scenario.ends(Table::History).await, [(12, 1), (17, 3), (30, 2)]);
    assert_eq!(scenario.with(|node| node.ports.metrics.looked_at_by_sweeps()), 0, "nothing is behind");
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_step_of_a_sweep_is_gone_on_from() {
    let mut fewest = u64::MAX;
    for step in 0.. {
        let scenario = Scenario::begin().await;
        for contact in 0..5 {
            scenario.say(contact, &format!("m{contact}"), text("hello")).await;
            scenario.read().await;
        }
        assert_eq!(scenario.ends(Table::History).await, [(30, 10)]);
        scenario.apply(|tenant| tenant.retention.messages = 7 * DAY).await;
        scenario.die_after(step);
        let died = scenario.sweep().await;
        assert_eq!(scenario.ends(Table::History).await, [(7, 10)], "step {step}");
        assert_eq!(scenario.ends(Table::Delivery).await, [(7, 5)], "step {step}");
        if !died {
            assert!(step > 15, "so few steps are no sweep");
            break;
        }
        fewest = fewest.min(scenario.with(|node| node.ports.metrics.looked_at_by_sweeps()));
    }
    assert!(fewest < 5, "the last pages of a sweep do not begin anew: {fewest}");
}

#[tokio::test(start_paused = true)]
async fn the_number_and_name_of_a_person_end_with_the_last_message() {
    let scenario = Scenario::begin().await;
    scenario.say(1, "a1", text("on day 0")).await;
    assert_eq!(scenario.ends(Table::Head).await, [(30, 1)]);
    scenario.clock.jump_forward(20 * DAY);
    scenario.say(1, "a2", text("on day 20")).await;
    assert_eq!(scenario.ends(Table::Head).await, [(50, 1)]);
    scenario.clock.jump_forward(400 * DAY);
    let left = scenario.disk.rows(scenario.clock.now()).into_iter().map(|(key, _)| key.table());
    assert!(!left.into_iter().any(|table| table == Table::Head), "number, name and last contact are gone");
    // Who comes back is met anew.
    scenario.say(1, "a3", text("on day 420")).await;
    assert_eq!(scenario.channel.accepted().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_shorter_retention_of_messages_holds_for_numbers_and_names_too() {
    let scenario = Scenario::begin().await;
    scenario.say(1, "a1", text("hello")).await;
    scenario.apply(|tenant| tenant.retention.messages = 7 * DAY).await;
    scenario.sweep().await;
    assert_eq!(scenario.ends(Table::Head).await, [(7, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_redelivery_after_the_end_of_a_conversation_does_not_bring_it_back() {
    let scenario = Scenario::begin().await;
    scenario.apply(|tenant| tenant.retention.messages = DAY).await;
    let from = message::phone("4915700000001");
    let said = || message::acted("1", from.clone(), "a1", Act::Say(text("hello")), BEGIN);
    scenario.receive(said()).await;
    assert_eq!(scenario.channel.accepted().len(), 1);
    scenario.clock.jump_forward(2 * DAY);
    scenario.restart().await;
    scenario.receive(said()).await;
    let live = scenario.disk.rows(scenario.clock.now()).into_iter().map(|(key, _)| key.table());
    assert!(!live.into_iter().any(|table| matches!(table, Table::Head | Table::History)));
}
