//! Tests of the WhatsApp channel against the simulated API.

use super::*;

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
