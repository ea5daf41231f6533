//! Conversations of a channel account that is disconnected or left out of the file: deleted with it, or kept where the
//! tenant's configuration says so, over the store in memory with paused time.

use std::time::Duration;

use heddle_schemas::id::{AccountKey, ChannelKind};
use heddle_schemas::ports::clock::Clock as _;
use heddle_schemas::table::{Owner, Table};
use heddle_schemas::tenant::Tenant;
use heddle_testing::{Site, SiteBuilder, TenantBuilder};

const ANN: &str = "4915700000001";
const BOB: &str = "4915700000002";

fn acme(more: &str) -> Tenant {
    TenantBuilder::new("acme").account("1").account("2").settle("100ms").more(more).build()
}

/// The rows of conversations with an account.
fn rows(site: &Site, account: &str) -> usize {
    let rows = site.disk.rows(site.clock.now()).into_iter().map(|(key, _)| key);
    let of_conversations = Table::with(|table| table.owner == Owner::Conversation);
    rows.filter(|key| of_conversations.contains(&key.table()))
        .filter_map(|key| key.conversation())
        .filter(|conversation| conversation.account.as_str() == account)
        .count()
}

async fn site(more: &str) -> Site {
    let site = SiteBuilder::default().start(&[acme(more)]).await;
    for (phone, account, id) in [(ANN, "1", "a1"), (BOB, "1", "b1"), (ANN, "2", "a2")] {
        site.say(&acme(more), phone, account, id).await;
    }
    assert!(rows(&site, "1") > 4 && rows(&site, "2") > 2);
    site
}

async fn disconnect(site: &Site, account: &str) {
    let tenants = site.with(|node| node.system.tenants.clone());
    let account = account.parse().unwrap();
    let account = AccountKey { tenant: "acme".parse().unwrap(), channel: ChannelKind::Whatsapp, account };
    tenants.disconnect(&account).await.unwrap();
}

async fn minutes(count: u64) {
    tokio::time::sleep(Duration::from_secs(60 * count)).await;
}

#[tokio::test(start_paused = true)]
async fn the_messages_of_a_disconnected_account_are_deleted_with_it() {
    let site = site("").await;
    let others = rows(&site, "2");
    disconnect(&site, "1").await;
    minutes(3).await;
    assert_eq!((rows(&site, "1"), rows(&site, "2")), (0, others));
    // A restart, and the next leader, take nothing more.
    site.restart().await;
    minutes(3).await;
    assert_eq!((rows(&site, "1"), rows(&site, "2")), (0, others));
    site.say(&acme(""), ANN, "2", "a3").await;
    assert_eq!(site.sent().last().unwrap(), "on text of a3");
}

#[tokio::test(start_paused = true)]
async fn so_are_those_of_an_account_that_is_left_out_of_the_file() {
    let site = site("").await;
    let mut without = acme("");
    without.channels.remove(0);
    let tenants = site.with(|node| node.system.tenants.clone());
    tenants.apply(without).await.unwrap();
    minutes(3).await;
    assert_eq!(rows(&site, "1"), 0);
    assert!(rows(&site, "2") > 0);
}

#[tokio::test(start_paused = true)]
async fn they_are_kept_where_the_tenant_says_so() {
    let kept = "[retention]\ndisconnected = \"kept\"\n";
    let site = site(kept).await;
    let before = rows(&site, "1");
    disconnect(&site, "1").await;
    minutes(3).await;
    assert_eq!(rows(&site, "1"), before);
}

#[tokio::test(start_paused = true)]
async fn an_account_that_is_connected_again_keeps_what_comes_then() {
    let site = site("").await;
    disconnect(&site, "1").await;
    minutes(3).await;
    let tenants = site.with(|node| node.system.tenants.clone());
    tenants.apply(acme("")).await.unwrap();
    site.say(&acme(""), BOB, "1", "b2").await;
    assert_eq!(site.sent().last().unwrap(), "on text of b2");
    minutes(3).await;
    assert!(rows(&site, "1") > 0);
}
