//! Partitions that change hands or fail: operators see nothing in the gauges that is not there.

use std::collections::BTreeSet;
use std::time::Duration;

use heddle_schemas::ports::clock::Clock as _;
use heddle_schemas::tenant::Tenant;
use heddle_testing::{Node, Site, SiteBuilder, TenantBuilder, gauge};

fn acme() -> Tenant {
    TenantBuilder::new("acme").account("1").settle("5s").build()
}

/// Twenty customers have written, and their turns wait in the agenda.
async fn with_waiting_turns() -> Site {
    let site = SiteBuilder::default().start(&[acme()]).await;
    for customer in 0..20 {
        let phone = format!("49157000000{customer:02}");
        site.receive(&acme(), site.said(&phone, "1", &format!("m{customer}"), site.clock.now())).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(site.with(window), 20.0);
    assert_eq!(site.with(residents), 20.0);
    site
}

fn window(node: &Node) -> f64 {
    gauge::sum(&node.registry, "heddle_agenda_window_entries")
}

fn residents(node: &Node) -> f64 {
    gauge::sum(&node.registry, "heddle_partition_residents")
}

#[tokio::test(start_paused = true)]
async fn partitions_that_are_handed_over_and_come_back_leave_nothing_in_the_gauges() {
    let site = with_waiting_turns().await;
    let store = site.with(|node| node.store.clone());
    store.assign(&BTreeSet::new()).unwrap();
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!((site.with(window), site.with(residents)), (0.0, 0.0), "the node owns nothing");

    store.assign(&site.disk.consumed_partitions()).unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(site.sent().len(), 20, "all are answered");
    assert_eq!(site.with(window), 0.0, "nothing waits");
}

/// After an outage of the database the node that had lost its leases counted the entries of its partitions for ever,
/// and seemed to have endless work.
#[tokio::test(start_paused = true)]
async fn a_fenced_node_leaves_nothing_in_the_gauges() {
    let site = with_waiting_turns().await;
    let successor = site.boot().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(site.sent().len(), 20, "the successor has answered all");
    assert_eq!((site.with(window), site.with(residents)), (0.0, 0.0), "of the fenced node");
    assert_eq!(window(&successor), 0.0);
}
