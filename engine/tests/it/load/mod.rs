//! `heddle load` against a serving node on the embedded store, on Kafka and CQL by both ways, and against
//! one that loses and doubles replies.

mod long;
mod stand_in;

use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::time::Duration;

use heddle_connectors::clock::SystemClock;
use heddle_engine::cli::admin::{Admin, Where};
use heddle_engine::configuration;
use heddle_engine::service::Service;
use heddle_load::{Load, Options, Pace, Report, Until, Way};
use heddle_schemas::config::Config;
use heddle_schemas::sealed::Secret;

use crate::serving::site::ADMIN_TOKEN;

/// A serving node of its own folder.
struct Site {
    service: Service,
    config: Config,
    url: String,
    admin_url: String,
    _folder: tempfile::TempDir,
}

impl Site {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config { data_dir: folder.path().join("data"), ..Config::default() };
        config.http.listen = "127.0.0.1:0".parse().unwrap();
        config.security.private_addresses = heddle_schemas::network::Networks::loopback();
        Self::of(config, folder).await
    }

    async fn of(config: Config, folder: tempfile::TempDir) -> Self {
        let service = Service::start(config.clone()).await.unwrap();
        let url = format!("http://{}", service.address);
        let admin_url = format!("http://{}", service.admin_address);
        Self { service, config, url, admin_url, _folder: folder }
    }

    async fn load(&self, options: Options) -> Report {
        load(&self.config, (&self.url, &self.admin_url), options).await
    }
}

async fn load(config: &Config, (url, admin_url): (&str, &str), options: Options) -> Report {
    let admin = Admin::find(config.clone(), &Where::at(admin_url)).await.unwrap();
    let load = Load::start(url, options, Arc::new(SystemClock)).await.unwrap();
    load.prepare(&admin).await.unwrap();
    Arc::new(load).run().await.unwrap()
}

fn count(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

fn options() -> Options {
    Options { tenants: count(3), conversations: count(300), ..Options::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_of_an_open_loop_is_answered_and_a_second_run_uses_the_tenants_again() {
    let site = Site::start().await;
    let pace = Pace::Rate(count(100));
    let until = Until::Duration(Duration::from_secs(2));
    let report = site.load(Options { pace, until, skew: 0.5, ..options() }).await;
    assert!(report.is_clean(), "{report}");
    // 100 a second for two seconds.
    assert_eq!(report.messages_sent + report.messages_unsent, 200);
    assert_eq!(report.messages_accepted, report.messages_sent);
    assert_eq!((report.replied, report.wrong, report.strangers), (report.messages_accepted, 0, 0));
    assert_eq!(report.answers, [("200".into(), report.bodies)].into());
    assert_eq!(report.reply_latency_ms.count, report.replied);
    assert!(report.accept_latency_ms.p50 > 0.0 && report.reply_latency_ms.p50 > 0.0);

    // The same customers write again, many in one body, within the limits that the API now enforces.
    let messages = NonZeroU64::new(205).unwrap();
    let again = Options {
        pace: Pace::Rate(count(100)),
        until: Until::Messages(messages),
        batch: count(10),
        enforce_limits: true,
        ..options()
    };
    let report = site.load(again).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.messages_accepted, report.bodies, report.replied), (205, 21, 205));
    assert!(report.graph_refused.is_empty(), "{report}");
    assert_eq!(site.service.node.ports.metrics.duplicates(), 0, "ids of another run do not come again");
    assert_eq!(site.service.node.ports.metrics.turns(), report.replied + 200 - report.messages_unsent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_loop_asks_only_what_is_waited_for_and_a_settle_delay_gathers() {
    let site = Site::start().await;
    let options = Options {
        pace: Pace::Max { in_flight: count(8) },
        until: Until::Messages(NonZeroU64::new(120).unwrap()),
        settle: Duration::from_millis(50),
        tenants: count(1),
        // Four customers have three messages open at most: several are gathered in one turn.
        conversations: count(4),
        ..options()
    };
    let report = site.load(options).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.messages_sent, report.replied, report.wrong), (120, 120, 0));
    let turns = site.service.node.ports.metrics.turns();
    assert!(turns < 120, "{turns} turns gathered nothing");
    assert!(report.reply_latency_ms.p50 >= 50.0, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_counted_and_owed_nothing() {
    let site = Site::start().await;
    // No process listens there.
    let way = Way::Webhooks { nodes: vec!["http://127.0.0.1:9".to_owned()] };
    let until = Until::Messages(NonZeroU64::new(20).unwrap());
    let report = site.load(Options { way, until, ..options() }).await;
    assert_eq!((report.messages_refused, report.messages_accepted, report.lost), (20, 0, 0));
    assert_eq!(report.answers, [("no connection".into(), 20)].into());
    assert!(!report.is_clean(), "nothing accepted proves nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_on_kafka_and_cql_answers_what_comes_by_either_way() {
    let _alone = crate::whole_machine::alone().await;
    let folder = tempfile::tempdir().unwrap();
    let site = Site::of(crate::on_services::prepared("load", folder.path()).await, folder).await;
    let kafka = configuration::kafka(&site.config);
    let published = Way::Kafka { connection: kafka.connection, prefix: kafka.prefix };
    for (way, answer) in [(Options::default().way, "200"), (published, "confirmed")] {
        let pace = Pace::Rate(count(20));
        let until = Until::Messages(NonZeroU64::new(60).unwrap());
        let report = site.load(Options { way, pace, until, batch: count(2), ..options() }).await;
        assert!(report.is_clean(), "{report}");
        assert_eq!((report.messages_accepted, report.replied, report.wrong), (60, 60, 0), "{report}");
        assert_eq!(report.answers, [(answer.into(), 30)].into());
    }
    assert!(site.service.stop().await);
}

/// A hundred messages, in bodies of ten to one conversation, to a node that does something wrong.
async fn wronged(wrong: stand_in::Wrong) -> Report {
    let options = Options {
        pace: Pace::Max { in_flight: count(10) },
        until: Until::Messages(NonZeroU64::new(100).unwrap()),
        tenants: count(1),
        conversations: count(1),
        batch: count(10),
        wait: Duration::from_millis(500),
        ..Options::default()
    };
    let url = stand_in::start(wrong).await;
    let mut config = Config::default();
    config.http.admin_token = Secret::new(ADMIN_TOKEN);
    load(&config, (&url, &url), options).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_nothing_wrong_is_told_nothing_is() {
    let report = wronged(|replies| replies.into_iter().map(|(_, reply)| reply).collect()).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.messages_accepted, report.replied), (100, 100));
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_replies_are_counted_and_hold_nobody_up_for_ever() {
    let report = wronged(|replies| {
        replies.into_iter().filter(|(number, _)| number % 10 != 3).map(|(_, reply)| reply).collect()
    })
    .await;
    assert_eq!(
        (report.lost, report.replied, report.doubled, report.out_of_order),
        (10, 90, 0, 0),
        "{report}"
    );
    assert_eq!(report.messages_accepted, 100);
    assert!(!report.is_clean());
}

#[tokio::test(flavor = "multi_thread")]
async fn doubled_replies_are_counted() {
    let report = wronged(|replies| {
        let twice = |(number, reply): (usize, _)| vec![reply; if number % 10 == 3 { 2 } else { 1 }];
        replies.into_iter().flat_map(twice).collect()
    })
    .await;
    assert_eq!(
        (report.doubled, report.replied, report.lost, report.out_of_order),
        (10, 100, 0, 0),
        "{report}"
    );
    assert!(!report.is_clean());
}

#[tokio::test(flavor = "multi_thread")]
async fn swapped_replies_are_counted() {
    let report = wronged(|mut replies| {
        replies.swap(3, 4);
        replies.into_iter().map(|(_, reply)| reply).collect()
    })
    .await;
    assert_eq!(
        (report.out_of_order, report.replied, report.lost, report.doubled),
        (10, 100, 0, 0),
        "{report}"
    );
    assert!(!report.is_clean());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_never_replies_does_not_hold_the_run_up_for_ever() {
    let report = wronged(|_| Vec::new()).await;
    assert!(report.messages_accepted >= 30 && report.replied == 0, "{report}");
    assert_eq!(report.lost, report.messages_accepted);
}
