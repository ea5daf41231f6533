//! Tests of webhooks and customers against a target that fails and recovers.

use super::*;

#[tokio::test]
async fn everything_is_delivered_and_answered_once_by_a_target_that_refuses_every_fourth_webhook() {
    let run = run(Faults::default(), 4, OnUnknown::Never).await;
    let report = run.customers.report();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.customers, report.questions), (12, 36));
    // Each customer asks all three questions: 2 + 1 + 3 lines, in addition to stickers and pictures.
    let texts = run.graph.taken_count();
    assert_eq!(texts, 12 * 6, "one answer a line");
    assert!(report.messages > 12 * 6, "{} with stickers and reactions", report.messages);
    assert_eq!(report.messages, run.target.seen.lock().unwrap().len() as u64);
    assert!(report.duplicates > 0);
    let counts = run.webhooks.counts();
    assert_eq!(counts.acknowledged, counts.webhooks + counts.duplicates);
    assert_eq!(counts.retried, run.target.refused.load(Ordering::Relaxed) as u64);
    assert!(counts.retried > 0);
    let sent: HashSet<String> = run.customers.sent().into_iter().collect();
    assert_eq!(run.webhooks.acknowledged(), sent);
    assert!(run.graph.times_taken().values().all(|times| *times == 1));
}

#[tokio::test]
async fn each_sent_message_gets_its_three_statuses_not_always_in_order() {
    let run = run(Faults::default(), 0, OnUnknown::Never).await;
    let mut by_message: BTreeMap<String, Vec<DeliveryStatus>> = BTreeMap::new();
    for status in run.target.statuses.lock().unwrap().iter() {
        let outbound = status.outbound.expect("our id comes back").to_string();
        by_message.entry(outbound).or_default().push(status.status);
    }
    assert_eq!(by_message.len(), run.graph.taken_count());
    let mut overtaken = 0;
    let mut repeated = 0;
    for statuses in by_message.values() {
        let kinds: HashSet<_> = statuses.iter().copied().collect();
        let all = [DeliveryStatus::Sent, DeliveryStatus::Delivered, DeliveryStatus::Read];
        assert_eq!(kinds, HashSet::from(all));
        overtaken += usize::from(!statuses.is_sorted());
        repeated += statuses.len() - 3;
    }
    assert!(overtaken > 0 && repeated > 0, "{overtaken} overtaken, {repeated} repeated");
}

#[tokio::test]
async fn a_target_that_was_down_gets_everything_at_the_same_address() {
    let graph = graph(graph::Options::default()).await;
    let target = Target::new(&graph, 0, OnUnknown::Never);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let webhooks = Webhooks::start(webhook_options(address), &graph, clock()).unwrap();
    let customers = Customers::start(customer_options(4), &graph, &webhooks, clock(), None).unwrap();
    // The target is down: each connection is closed without an answer.
    while webhooks.counts().retried < 20 {
        drop(listener.accept().await.unwrap());
    }
    assert_eq!(webhooks.counts().acknowledged, 0);
    assert_eq!(customers.progress(), (0, 12));
    target.serve(listener);
    customers.done().await;
    webhooks.idle().await;
    let report = customers.report();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(customers.progress(), (12, 12));
}

#[tokio::test]
async fn errors_before_taking_double_nothing() {
    let faults = Faults { server_error: 0.3, ..Faults::default() };
    let run = run(faults, 0, OnUnknown::Again).await;
    let report = run.customers.report();
    assert!(report.is_clean(), "{report:?}");
    assert!(report.graph.refused[&131_000] > 0);
    assert_eq!(run.target.unknown.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_sender_that_repeats_what_nobody_knows_is_found_out() {
    let faults = Faults { taken_then_dropped: 0.3, ..Faults::default() };
    let run = run(faults, 0, OnUnknown::Again).await;
    let report = run.customers.report();
    let unknown = run.target.unknown.load(Ordering::Relaxed) as u64;
    assert!(unknown > 0);
    // Every one of them had been accepted, so every retry is a double.
    assert_eq!((report.doubled, report.graph.dropped), (unknown, unknown));
    assert!(!report.is_clean());
    let doubles: u64 = run.graph.times_taken().values().map(|times| u64::from(*times) - 1).sum();
    assert_eq!(doubles, unknown);
}

#[tokio::test]
async fn scenes_tell_what_happens() {
    let graph = graph(graph::Options::default()).await;
    let target = Target::new(&graph, 0, OnUnknown::Never);
    let address = target.listen().await;
    let webhooks = Webhooks::start(webhook_options(address), &graph, clock()).unwrap();
    let (scenes, mut seen) = mpsc::unbounded_channel();
    let options = Options { extras: 0.0, ..customer_options(1) };
    let customers = Customers::start(options, &graph, &webhooks, clock(), Some(scenes)).unwrap();
    customers.done().await;
    let mut said = 0;
    let mut answered = 0;
    while let Ok(scene) = seen.try_recv() {
        match scene {
            Scene::Said { customer, .. } => said += usize::from(customer == 0),
            Scene::Heard { latency, .. } => answered += usize::from(latency.is_some()),
        }
    }
    assert_eq!((said, answered), (6, 3));
    assert_eq!(customers.replies()[0].len(), customers.report().replies as usize);
}

#[tokio::test]
async fn an_empty_script_is_refused() {
    let graph = graph(graph::Options::default()).await;
    let webhooks = Webhooks::start(webhook_options(graph.address()), &graph, clock()).unwrap();
    for options in [
        Options::new(Vec::new(), script()),
        Options::new(accounts(), Vec::new()),
        Options::new(accounts(), vec![Question { lines: Vec::new(), expect: None }]),
    ] {
        assert!(Customers::start(options, &graph, &webhooks, clock(), None).is_err());
    }
}
