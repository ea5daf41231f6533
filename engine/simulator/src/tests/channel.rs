//! Tests of the WhatsApp channel against the simulated API.

use heddle_schemas::outgoing::{Action, Interactive, Parameter, ReplyButton, Template};

use super::*;
use crate::rules::{self, Rules, Violation};

#[tokio::test]
async fn the_channel_and_the_simulated_api_understand_each_other() {
    let graph = graph(graph::Options::default()).await;
    let channel = channel(Duration::from_secs(10));
    let accepted = channel.send(&access(&graph), &message(1, "16505551234")).await.unwrap();
    assert!(accepted.message_id.starts_with("wamid."));
    let mut scoped = message(2, "");
    scoped.to = Address { user_id: Some("US.13491208655302741918".into()), ..Address::default() };
    channel.send(&access(&graph), &scoped).await.unwrap();
    let taken = graph.taken();
    assert_eq!(taken[0].wamid, accepted.message_id);
    assert_eq!((taken[0].text.as_str(), taken[0].outbound), ("Yes, in blue.", Some(outbound(1))));
    assert_eq!(graph.taken_for("US.13491208655302741918").len(), 1);
    assert_eq!(graph.times_taken(), HashMap::from([1, 2].map(|turn| (outbound(turn).to_string(), 1))));
}

#[tokio::test]
async fn a_revoked_token_or_unknown_number_is_refused_as_graph_does() {
    let graph = graph(graph::Options::default()).await;
    let channel = channel(Duration::from_secs(10));
    let class = async |access: &ChannelAccount| {
        let error = channel.send(access, &message(1, "16505551234")).await.unwrap_err();
        (error.class, error.code)
    };
    let good = access(&graph);
    let mut other = good.clone();
    other.credentials.set(whatsapp::ACCESS_TOKEN, Secret::new("another"));
    assert_eq!(class(&other).await, (FailureClass::Unauthorized, Some(190)));
    let nowhere = ChannelAccount { account: "1".parse().unwrap(), ..good.clone() };
    assert_eq!(class(&nowhere).await, (FailureClass::Final, Some(100)));
    graph.set_revoked(&good.account, true);
    assert_eq!(class(&good).await, (FailureClass::Unauthorized, Some(190)));
    let number_two = ChannelAccount { account: accounts().remove(1), ..good.clone() };
    channel.send(&number_two, &message(1, "16505551234")).await.unwrap();
    graph.set_revoked(&good.account, false);
    channel.send(&good, &message(2, "16505551234")).await.unwrap();
    assert_eq!(graph.counts().refused, BTreeMap::from([(100, 1), (190, 2)]));
}

#[tokio::test]
async fn limits_are_kept_when_they_are_switched_on() {
    let limits = Limits {
        per_second: NonZeroU32::new(50).unwrap(),
        pair_interval: Duration::from_secs(60),
        pair_burst: NonZeroU32::new(2).unwrap(),
    };
    let graph = graph(graph::Options { limits: Some(limits), ..graph::Options::default() }).await;
    let channel = channel(Duration::from_secs(10));
    let access = access(&graph);
    for turn in 1..=2 {
        channel.send(&access, &message(turn, "16505551234")).await.unwrap();
    }
    let error = channel.send(&access, &message(3, "16505551234")).await.unwrap_err();
    assert_eq!((error.class, error.code), (FailureClass::PairLimited, Some(131_056)));
    for _ in 0..50 {
        graph.count_in(&access.account);
    }
    let error = channel.send(&access, &message(4, "16505550000")).await.unwrap_err();
    assert_eq!((error.class, error.code), (FailureClass::RateLimited, Some(130_429)));
    assert_eq!(graph.taken_count(), 2);
}

#[tokio::test]
async fn each_fault_is_what_it_says() {
    let graph = graph(graph::Options::default()).await;
    let (patient, hasty) = (channel(Duration::from_secs(10)), channel(Duration::from_millis(200)));
    let access = access(&graph);
    let faults = |faults: Faults| graph.set_faults(faults);
    let send = async |channel: &WhatsApp, turn| {
        let before = graph.taken_count();
        let error = channel.send(&access, &message(turn, "16505551234")).await.unwrap_err();
        (error.class, error.retry_after, graph.taken_count() - before)
    };
    faults(Faults { server_error: 1.0, ..Faults::default() });
    assert_eq!(send(&patient, 1).await, (FailureClass::Temporary, None, 0));
    faults(Faults { rate_limited: 1.0, retry_after: Duration::from_secs(7), ..Faults::default() });
    assert_eq!(send(&patient, 2).await, (FailureClass::RateLimited, Some(Duration::from_secs(7)), 0));
    faults(Faults { taken_then_dropped: 1.0, ..Faults::default() });
    assert_eq!(send(&patient, 3).await, (FailureClass::Unknown, None, 1));
    faults(Faults { dropped: 1.0, ..Faults::default() });
    assert_eq!(send(&patient, 4).await, (FailureClass::Unknown, None, 0));
    faults(Faults { hang: 1.0, ..Faults::default() });
    assert_eq!(send(&hasty, 5).await.0, FailureClass::Unknown);
    assert_eq!(graph.counts().hung, 1);
}

#[tokio::test]
async fn the_same_seed_gives_the_same_fates_and_ids() {
    let outcomes = async |seed| {
        let faults = Faults { server_error: 0.3, taken_then_dropped: 0.3, ..Faults::default() };
        let graph = graph(graph::Options { faults, seed, ..graph::Options::default() }).await;
        let channel = channel(Duration::from_secs(10));
        let mut outcomes = Vec::new();
        for turn in 0..20 {
            let sent = channel.send(&access(&graph), &message(turn, "16505551234")).await;
            outcomes.push(sent.map(|accepted| accepted.message_id).map_err(|error| error.class));
        }
        outcomes
    };
    let first = outcomes(7).await;
    assert_eq!(first, outcomes(7).await);
    assert_ne!(first, outcomes(8).await);
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let first = graph(graph::Options::default()).await;
    let options = graph::Options { listen: first.address(), ..graph::Options::default() };
    let Err(error) = GraphApi::start(options, clock()).await else { panic!("listens twice") };
    assert_eq!(error.to_string(), format!("the simulated API cannot listen on {}", first.address()));
}

fn of(content: OutgoingContent, turn: u8, to: &str) -> OutboundMessage {
    OutboundMessage { content, ..message(turn, to) }
}

fn template(name: &str, parameters: &[&str]) -> OutgoingContent {
    let body = parameters.iter().map(|text| Parameter::positional(*text)).collect();
    OutgoingContent::Template(Template { body, ..Template::new(name, "en") })
}

#[tokio::test]
async fn templates_are_accepted_as_they_are_approved_and_refused_with_their_codes() {
    let templates = vec![
        rules::Template::new("reminder", "en", 2),
        rules::Template { is_paused: true, ..rules::Template::new("paused", "en", 0) },
        rules::Template { held_after: Some(1), ..rules::Template::new("paced", "en", 0) },
        rules::Template { is_elsewhere: true, ..rules::Template::new("offer", "en", 0) },
    ];
    let rules = Rules { templates, ..Rules::default() };
    let graph = graph(graph::Options { rules: Some(rules), ..graph::Options::default() }).await;
    let (channel, access) = (channel(Duration::from_secs(10)), access(&graph));
    let send = async |turn, content| {
        let sent = channel.send(&access, &of(content, turn, "16505551234")).await;
        sent.map(|accepted| accepted.held).map_err(|error| error.code)
    };
    assert_eq!(send(1, template("reminder", &["Ann", "Friday"])).await, Ok(false));
    assert_eq!(send(2, template("reminder", &["Ann"])).await, Err(Some(132_000)));
    assert_eq!(send(3, template("unheard_of", &[])).await, Err(Some(132_001)));
    assert_eq!(send(4, template("paused", &[])).await, Err(Some(132_015)));
    assert_eq!(send(5, template("paced", &[])).await, Ok(false));
    assert_eq!(send(6, template("paced", &[])).await, Ok(true), "held is not sent");
    // The refusal names the other endpoint, and the account tries again.
    assert_eq!(send(7, template("offer", &[])).await, Err(Some(131_063)));
    assert_eq!(send(7, template("offer", &[])).await, Ok(false));
    let texts: Vec<_> = graph.taken().iter().map(|taken| taken.text.clone()).collect();
    assert_eq!(texts[0], "[template reminder] Ann; Friday");
    let codes = [(131_063, 1), (132_000, 1), (132_001, 1), (132_015, 1)];
    assert_eq!((graph.counts().refused, graph.counts().held), (BTreeMap::from(codes), 1));
}

#[tokio::test]
async fn people_are_met_as_the_window_the_cap_and_the_tier_allow() {
    let offer = rules::Template { is_marketing: true, ..rules::Template::new("offer", "en", 0) };
    let rules = Rules {
        templates: vec![offer],
        window: Some(Duration::from_secs(24 * 3_600)),
        marketing_a_day: Some(1),
        users_a_day: Some(1),
    };
    let graph = graph(graph::Options { rules: Some(rules), ..graph::Options::default() }).await;
    let (channel, access) = (channel(Duration::from_secs(10)), access(&graph));
    let send = async |turn, content, to| {
        let sent = channel.send(&access, &of(content, turn, to)).await;
        sent.map(|accepted| accepted.held).map_err(|error| error.code)
    };
    let buttons = vec![ReplyButton { id: "yes".into(), title: "Yes".into() }];
    let (header, body, footer) = (None, "Shall I book it?".to_owned(), None);
    let asks = Interactive { header, body, footer, action: Action::Buttons(buttons) };
    let asks = OutgoingContent::Interactive(asks);
    assert_eq!(send(1, asks.clone(), "16505551234").await, Err(Some(131_047)));
    graph.heard(&access.account, "16505551234");
    assert_eq!(send(2, asks, "16505551234").await, Ok(false));
    assert_eq!(send(3, template("offer", &[]), "16505551234").await, Ok(false), "within the window");
    assert_eq!(send(4, template("offer", &[]), "16505551234").await, Err(Some(131_049)));
    assert_eq!(send(5, template("offer", &[]), "16505550001").await, Ok(false));
    assert_eq!(send(6, template("offer", &[]), "16505550002").await, Ok(true), "held back by the tier");
    let counts = graph.counts();
    assert_eq!(counts.refused, BTreeMap::from([(131_047, 1), (131_049, 1)]));
    assert_eq!(counts.violations, BTreeMap::from([(Violation::Tier, 1)]));
    assert_eq!(graph.taken()[0].text, "Shall I book it?");
}
