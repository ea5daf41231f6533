//! Ownership rows.

use heddle_connectors::cql::ownership::OwnershipRow;
use heddle_schemas::topic::{Topic, TopicPartition};

use crate::cql::open;

fn partition(number: u32) -> TopicPartition {
    TopicPartition { topic: Topic::Inbound, partition: number }
}

fn row(epoch: u64, owner: &str, lease: i64) -> OwnershipRow {
    OwnershipRow { epoch, owner: owner.into(), lease, block_end: 1_000 + lease }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_epoch_is_renewed_by_its_owner_and_lost_to_the_next() {
    let store = open().await;
    let of = partition(1);
    assert_eq!(store.ownership(of).await.unwrap(), None);
    assert!(!store.swap_ownership(of, Some(1), &row(2, "a", 1)).await.unwrap(), "there is none to take over");
    assert!(store.swap_ownership(of, None, &row(1, "a", 10)).await.unwrap());
    assert!(!store.swap_ownership(of, None, &row(1, "b", 10)).await.unwrap());
    assert_eq!(store.ownership(of).await.unwrap().unwrap().row, row(1, "a", 10));

    assert!(store.swap_ownership(of, Some(1), &row(1, "a", 20)).await.unwrap(), "renewed");
    assert_eq!(store.ownership(of).await.unwrap().unwrap().row, row(1, "a", 20));

    assert!(store.swap_ownership(of, Some(1), &row(2, "b", 30)).await.unwrap(), "taken over");
    assert!(!store.swap_ownership(of, Some(1), &row(1, "a", 40)).await.unwrap(), "lost");
    assert_eq!(store.ownership(of).await.unwrap().unwrap().row, row(2, "b", 30));
    assert_eq!(store.ownership(partition(2)).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_age_of_a_lease_is_the_servers() {
    let store = open().await;
    let of = partition(3);
    store.swap_ownership(of, None, &row(1, "a", 10)).await.unwrap();
    let first = store.ownership(of).await.unwrap().unwrap().age;
    // The server's clock of now() has milliseconds.
    assert!((-1_000..2_000_000).contains(&first), "{first}");
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let later = store.ownership(of).await.unwrap().unwrap().age;
    assert!(later - first >= 299_000, "{first} {later}");
    store.swap_ownership(of, Some(1), &row(1, "a", 10)).await.unwrap();
    assert!(store.ownership(of).await.unwrap().unwrap().age < later, "renewed, though with the same lease");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_racing_takeovers_one_wins() {
    let store = open().await;
    let of = partition(4);
    store.swap_ownership(of, None, &row(1, "a", 10)).await.unwrap();
    let racers: Vec<_> = (0..8)
        .map(|racer| {
            let store = store.clone();
            tokio::spawn(async move {
                store.swap_ownership(of, Some(1), &row(2, &racer.to_string(), 10)).await.unwrap()
            })
        })
        .collect();
    let mut winners = Vec::new();
    for (racer, task) in racers.into_iter().enumerate() {
        if task.await.unwrap() {
            winners.push(racer.to_string());
        }
    }
    assert_eq!(winners, [store.ownership(of).await.unwrap().unwrap().row.owner]);
}
