//! Membership and commits.

use std::time::Duration;

use heddle_connectors::kafka::{Change, topics};
use heddle_schemas::ledger::Position;
use heddle_schemas::ports::log::NewRecord;
use heddle_schemas::topic::TopicPartition;
use tokio::sync::mpsc::Receiver;

use super::{INBOUND, Prefix, open, options};

const SOON: Duration = Duration::from_secs(20);

pub(super) async fn assigned(changes: &mut Receiver<Change>) -> Vec<TopicPartition> {
    match tokio::time::timeout(SOON, changes.recv()).await.unwrap() {
        Some(Change::Assigned(partitions)) => partitions,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_done_ahead_come_back_with_the_committed_offset() {
    let prefix = Prefix::new();
    let options = options("a", &prefix);
    topics::apply(&options).await.unwrap();
    let kafka = open(&options).await;
    let mut changes = kafka.join().unwrap();
    assert!(assigned(&mut changes).await.contains(&INBOUND));
    let record = NewRecord { partition: INBOUND, key: "k".into(), value: "v".into() };
    kafka.append(vec![record; 6]).await.unwrap();
    kafka.take_over(INBOUND).await.unwrap();
    kafka.acknowledge(INBOUND, [0, 2, 3, 5]);
    kafka.close().await;
    let again = open(&options).await;
    let expected = Position { next: 1, ahead: [2, 3, 5].into() };
    assert_eq!(again.position(INBOUND).await.unwrap(), expected);
    again.take_over(INBOUND).await.unwrap();
    again.acknowledge(INBOUND, [1]);
    assert_eq!(again.position(INBOUND).await.unwrap(), Position { next: 4, ahead: [5].into() });
    again.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_node_gets_its_share_when_the_first_has_released_it() {
    let prefix = Prefix::new();
    topics::apply(&options("a", &prefix)).await.unwrap();
    let a = open(&options("a", &prefix)).await;
    let mut of_a = a.join().unwrap();
    let all = assigned(&mut of_a).await;
    let b = open(&options("b", &prefix)).await;
    let mut of_b = b.join().unwrap();
    let Some(Change::Revoked { partitions, lost, released }) =
        tokio::time::timeout(SOON, of_a.recv()).await.unwrap()
    else {
        panic!("the first is to release some")
    };
    assert!(!lost && !partitions.is_empty() && partitions.len() < all.len(), "{partitions:?} of {all:?}");
    let early = tokio::time::timeout(Duration::from_secs(1), of_b.recv()).await;
    assert!(
        early
            .as_ref()
            .map_or(true, |change| matches!(change, Some(Change::Assigned(none)) if none.is_empty())),
        "not before the first has released them: {early:?}"
    );
    drop(released);
    let mut got = Vec::new();
    while got.len() < partitions.len() {
        got.extend(assigned(&mut of_b).await);
    }
    got.sort();
    let mut expected = partitions;
    expected.sort();
    assert_eq!(got, expected);
    a.close().await;
    b.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_back_under_its_name_gets_its_partitions() {
    let prefix = Prefix::new();
    let options = options("a", &prefix);
    topics::apply(&options).await.unwrap();
    let kafka = open(&options).await;
    let before = assigned(&mut kafka.join().unwrap()).await;
    kafka.close().await;
    drop(kafka);
    let again = open(&options).await;
    assert_eq!(assigned(&mut again.join().unwrap()).await, before);
    again.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_put_out_joins_again() {
    let prefix = Prefix::new();
    let options = options("a", &prefix);
    topics::apply(&options).await.unwrap();
    let kafka = open(&options).await;
    let mut changes = kafka.join().unwrap();
    let before = assigned(&mut changes).await;
    kafka.take_over(INBOUND).await.unwrap();
    // Another process of its name, and a short one: as a broker may see one whose end it did not notice.
    let double = open(&options).await;
    assert_eq!(assigned(&mut double.join().unwrap()).await, before);
    let out = tokio::time::timeout(SOON, changes.recv()).await.unwrap();
    let Some(Change::Revoked { partitions, lost: true, .. }) = out else { panic!("{out:?}") };
    assert!(before.iter().all(|partition| partitions.contains(partition)), "{partitions:?}");
    double.close().await;
    drop(double);
    assert_eq!(assigned(&mut changes).await, before);
    // The first membership's open partitions were lost with it.
    kafka.acknowledge(INBOUND, [0]);
    assert_eq!(kafka.position(INBOUND).await.unwrap(), Position::default());
    kafka.take_over(INBOUND).await.unwrap();
    kafka.acknowledge(INBOUND, [0]);
    kafka.close().await;
    let again = open(&options).await;
    assert_eq!(again.position(INBOUND).await.unwrap(), Position::at(1));
    again.close().await;
}
