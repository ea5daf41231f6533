//! Contract of every log.

use std::collections::BTreeSet;
use std::time::Duration;

use heddle_schemas::ledger::Position;
use heddle_schemas::ports::log::{FetchLimit, StoreError};
use heddle_schemas::ports::state::Batch;
use heddle_schemas::topic::{Epoch, Topic, TopicPartition};

use crate::conformance::stores::{
    Fixture, INBOUND, INBOUND_1, LIMIT, OUTBOUND, TENANTS, record, too_large, values,
};

macro_rules! promises_of_a_log {
    ($given:expr) => {
        crate::conformance::promises!(
            log,
            $given,
            [
                every_topic_has_partitions,
                records_come_back_as_they_went_in,
                offsets_follow_the_order_of_the_records,
                append_is_all_or_none,
                nothing_is_appended_for_nothing,
                partitions_do_not_mix,
                fetch_starts_at_the_given_offset,
                fetch_brings_no_more_than_its_limits_and_at_least_one,
                fetch_of_an_empty_partition_waits_and_brings_none,
                fetch_wakes_for_an_append,
                fetch_wakes_for_the_outputs_of_a_commit,
                fetch_is_not_woken_by_another_partition,
                appends_at_the_same_time_all_land_once,
                a_fresh_partition_is_acknowledged_to_its_beginning,
                acknowledgements_ahead_are_reported_beside_the_prefix,
                a_crash_never_acknowledges_more,
                records_and_offsets_outlive_a_restart,
                an_offset_is_never_used_twice,
                the_assignment_names_every_consumed_partition,
                an_assignment_already_seen_is_waited_for,
                a_restart_raises_every_epoch,
                a_snapshot_has_the_newest_of_each_key,
                a_snapshot_leaves_out_removed_keys,
                a_snapshot_says_where_to_read_on,
                a_snapshot_outlives_a_restart,
            ]
        );
    };
}
pub(crate) use promises_of_a_log as promises;

const SHORT: Duration = Duration::from_millis(30);
const LONG: Duration = Duration::from_secs(30);

pub(crate) async fn every_topic_has_partitions(fixture: Fixture) {
    let log = fixture.log();
    let inbound = log.partitions(Topic::Inbound);
    assert!(inbound >= 2, "the suite needs two");
    assert_eq!((log.partitions(Topic::Outbound), log.partitions(Topic::Events)), (inbound, inbound));
    assert!(log.partitions(Topic::Tenants) >= 1 && log.partitions(Topic::Dlq) >= 1);
}

pub(crate) async fn records_come_back_as_they_went_in(fixture: Fixture) {
    let binary = heddle_schemas::ports::log::NewRecord {
        partition: INBOUND,
        key: vec![0, 255, 10, 13].into(),
        value: vec![1, 0, 0, 254].into(),
    };
    let offsets = fixture.log().append(vec![binary.clone(), record(INBOUND, "", "")]).await.unwrap();
    let records = fixture.records(INBOUND).await;
    assert_eq!(records.len(), 2);
    assert_eq!((records[0].partition, records[0].offset), (INBOUND, offsets[0]));
    assert_eq!((&records[0].key, &records[0].value), (&binary.key, &binary.value));
    // 2026-01-01T00:00:00Z, where the fixture's clock stands.
    assert_eq!(records[0].at.to_string(), "2026-01-01T00:00:00Z");
    assert!(records[1].key.is_empty() && records[1].value.is_empty());
}

pub(crate) async fn offsets_follow_the_order_of_the_records(fixture: Fixture) {
    let log = fixture.log();
    let next = log.end(INBOUND).await.unwrap();
    let batch = ["a", "b", "c"].map(|value| record(INBOUND, "k", value));
    let offsets = log.append(batch.to_vec()).await.unwrap();
    assert_eq!(offsets[0], next, "the end says which offset is next");
    assert!(offsets.is_sorted_by(|a, b| a < b), "{offsets:?}");
    assert!(log.end(INBOUND).await.unwrap() > offsets[2]);
    let records = fixture.records(INBOUND).await;
    assert_eq!(values(&records), ["a", "b", "c"]);
    assert_eq!(records.iter().map(|record| record.offset).collect::<Vec<_>>(), offsets);
}

pub(crate) async fn append_is_all_or_none(fixture: Fixture) {
    let batch = vec![record(INBOUND, "k", "small"), too_large(INBOUND), record(INBOUND_1, "k", "small")];
    let refused = fixture.log().append(batch).await;
    let Err(StoreError::TooLarge { bytes, limit }) = refused else { panic!("{refused:?}") };
    assert!(bytes >= crate::conformance::stores::TOO_LARGE && limit < bytes, "{bytes} {limit}");
    assert_eq!(fixture.records(INBOUND).await, []);
    assert_eq!(fixture.records(INBOUND_1).await, []);
    assert_eq!(fixture.append(INBOUND, &["next"]).await.len(), 1, "the log goes on");
}

pub(crate) async fn nothing_is_appended_for_nothing(fixture: Fixture) {
    assert_eq!(fixture.log().append(Vec::new()).await.unwrap(), Vec::<u64>::new());
}

pub(crate) async fn partitions_do_not_mix(fixture: Fixture) {
    let batch = [(INBOUND, "a"), (INBOUND_1, "b"), (OUTBOUND, "c"), (INBOUND, "d")];
    let batch = batch.map(|(partition, value)| record(partition, "k", value)).to_vec();
    let offsets = fixture.log().append(batch).await.unwrap();
    assert!(offsets[3] > offsets[0], "{offsets:?}");
    for (partition, expected) in [(INBOUND, &["a", "d"][..]), (INBOUND_1, &["b"]), (OUTBOUND, &["c"])] {
        let records = fixture.records(partition).await;
        assert_eq!(values(&records), expected);
        assert!(records.iter().all(|record| record.partition == partition));
    }
}

pub(crate) async fn fetch_starts_at_the_given_offset(fixture: Fixture) {
    let offsets = fixture.append(INBOUND, &["a", "b", "c"]).await;
    let records = fixture.log().fetch(INBOUND, offsets[1], LIMIT, Duration::ZERO).await.unwrap();
    assert_eq!(values(&records), ["b", "c"]);
}

pub(crate) async fn fetch_brings_no_more_than_its_limits_and_at_least_one(fixture: Fixture) {
    fixture.append(INBOUND, &["four", "four", "four"]).await;
    let log = fixture.log();
    for (records, bytes, expected) in [(2, 100, 2), (100, 8, 2), (100, 11, 2), (100, 12, 3), (100, 1, 1)] {
        let limit = FetchLimit { records, bytes };
        let fetched = log.fetch(INBOUND, 0, limit, Duration::ZERO).await.unwrap();
        assert_eq!(fetched.len(), expected, "{limit:?}");
    }
}

pub(crate) async fn fetch_of_an_empty_partition_waits_and_brings_none(fixture: Fixture) {
    let log = fixture.log();
    let started = tokio::time::Instant::now();
    let records = log.fetch(INBOUND, 0, LIMIT, SHORT).await.unwrap();
    assert_eq!(records, []);
    assert!(started.elapsed() >= SHORT);
    let at_once = log.fetch(INBOUND, 0, LIMIT, Duration::ZERO);
    assert_eq!(tokio::time::timeout(LONG, at_once).await.unwrap().unwrap(), []);
}

pub(crate) async fn fetch_wakes_for_an_append(fixture: Fixture) {
    let log = fixture.log();
    let fetch = tokio::time::timeout(LONG, log.fetch(INBOUND, 0, LIMIT, 2 * LONG));
    let (records, _) = tokio::join!(fetch, async {
        tokio::time::sleep(SHORT).await;
        fixture.append(INBOUND, &["a"]).await
    });
    assert_eq!(values(&records.unwrap().unwrap()), ["a"]);
}

pub(crate) async fn fetch_wakes_for_the_outputs_of_a_commit(fixture: Fixture) {
    let (log, state) = (fixture.log(), fixture.state());
    let fetch = tokio::time::timeout(LONG, log.fetch(OUTBOUND, 0, LIMIT, 2 * LONG));
    let (records, _) = tokio::join!(fetch, async {
        tokio::time::sleep(SHORT).await;
        state.commit(Batch { outputs: vec![record(OUTBOUND, "k", "a")], ..Batch::default() }).await.unwrap();
    });
    assert_eq!(values(&records.unwrap().unwrap()), ["a"]);
}

pub(crate) async fn fetch_is_not_woken_by_another_partition(fixture: Fixture) {
    let log = fixture.log();
    let (records, _) = tokio::join!(log.fetch(INBOUND, 0, LIMIT, SHORT), fixture.append(INBOUND_1, &["a"]));
    assert_eq!(records.unwrap(), []);
}

pub(crate) async fn appends_at_the_same_time_all_land_once(fixture: Fixture) {
    let writers: Vec<_> = (0..64)
        .map(|_| {
            let log = fixture.log();
            tokio::spawn(async move {
                log.append(vec![record(INBOUND, "k", "a"), record(INBOUND, "k", "b")]).await
            })
        })
        .collect();
    let mut given = BTreeSet::new();
    for writer in writers {
        let offsets = writer.await.unwrap().unwrap();
        assert!(offsets.into_iter().all(|offset| given.insert(offset)), "an offset was given twice");
    }
    let records = fixture.records(INBOUND).await;
    assert_eq!(records.iter().map(|record| record.offset).collect::<BTreeSet<_>>(), given);
    assert_eq!(records.len(), 128);
    let of_a = records.iter().filter(|record| record.value == "a").count();
    assert_eq!(of_a, 64);
}

pub(crate) async fn a_fresh_partition_is_acknowledged_to_its_beginning(fixture: Fixture) {
    assert_eq!(fixture.log().position(INBOUND).await.unwrap(), Position::default());
    assert_eq!(fixture.log().end(INBOUND).await.unwrap(), 0);
}

pub(crate) async fn acknowledgements_ahead_are_reported_beside_the_prefix(fixture: Fixture) {
    let log = fixture.log();
    let at = fixture.append(INBOUND, &["a", "b", "c", "d"]).await;
    log.acknowledge(INBOUND, &[at[0], at[2]]).await.unwrap();
    let position = log.position(INBOUND).await.unwrap();
    let done: Vec<_> = at.iter().map(|&offset| position.is_done(offset)).collect();
    assert_eq!(done, [true, false, true, false]);
    log.acknowledge(INBOUND, &[at[1]]).await.unwrap();
    log.acknowledge(INBOUND, &[at[1], at[0]]).await.unwrap();
    assert_eq!(log.position(INBOUND).await.unwrap(), Position::at(at[3]), "doing it twice is doing it once");
    assert_eq!(log.position(INBOUND_1).await.unwrap(), Position::default());
}

pub(crate) async fn a_crash_never_acknowledges_more(mut fixture: Fixture) {
    let at = fixture.append(INBOUND, &["a", "b", "c"]).await;
    fixture.log().acknowledge(INBOUND, &[at[0], at[2]]).await.unwrap();
    fixture.reopen().await;
    let position = fixture.log().position(INBOUND).await.unwrap();
    assert!(!position.is_done(at[1]), "{position:?}");
    assert!(position.next <= at[1], "{position:?}");
}

pub(crate) async fn records_and_offsets_outlive_a_restart(mut fixture: Fixture) {
    fixture.append(INBOUND, &["a", "b"]).await;
    fixture.append(OUTBOUND, &["c"]).await;
    let before = [fixture.records(INBOUND).await, fixture.records(OUTBOUND).await];
    fixture.reopen().await;
    assert_eq!([fixture.records(INBOUND).await, fixture.records(OUTBOUND).await], before);
}

pub(crate) async fn an_offset_is_never_used_twice(mut fixture: Fixture) {
    let mut last = None;
    for _ in 0..3 {
        let offsets = fixture.append(INBOUND, &["a", "b"]).await;
        assert!(Some(offsets[0]) > last, "{offsets:?} after {last:?}");
        last = offsets.last().copied();
        fixture.reopen().await;
        assert!(Some(fixture.log().end(INBOUND).await.unwrap()) > last);
    }
    assert_eq!(values(&fixture.records(INBOUND).await), ["a", "b", "a", "b", "a", "b"]);
}

pub(crate) async fn the_assignment_names_every_consumed_partition(fixture: Fixture) {
    let log = fixture.log();
    assert!(log.assignment(0).await.unwrap().generation > 0);
    let expected: BTreeSet<_> = Topic::CONSUMED
        .into_iter()
        .flat_map(|topic| {
            (0..log.partitions(topic)).map(move |partition| TopicPartition { topic, partition })
        })
        .collect();
    let owned = fixture.owned(|owned| owned.len() >= expected.len()).await;
    assert_eq!(owned.into_keys().collect::<BTreeSet<_>>(), expected);
}

pub(crate) async fn an_assignment_already_seen_is_waited_for(fixture: Fixture) {
    let log = fixture.log();
    let all: usize = Topic::CONSUMED.into_iter().map(|topic| log.partitions(topic) as usize).sum();
    fixture.owned(|owned| owned.len() == all).await;
    let seen = log.assignment(0).await.unwrap().generation;
    assert!(tokio::time::timeout(SHORT, log.assignment(seen)).await.is_err());
}

pub(crate) async fn a_restart_raises_every_epoch(mut fixture: Fixture) {
    let before = [fixture.fence(INBOUND).await, fixture.fence(OUTBOUND).await];
    fixture.reopen().await;
    let after = [fixture.fence(INBOUND).await, fixture.fence(OUTBOUND).await];
    for (before, after) in before.iter().zip(&after) {
        let newest = fixture.log().epoch(after.partition).await.unwrap();
        assert!(
            newest <= after.epoch,
            "or its owner's next record would count as one from a fenced producer"
        );
        let overtaken = newest > before.epoch;
        assert!(overtaken || newest == Epoch::default(), "of many nodes, it shows the newest");
    }
    assert!(after[0].epoch > before[0].epoch && after[1].epoch > before[1].epoch, "{before:?} {after:?}");
}

async fn apply(fixture: &Fixture, records: &[(&'static str, &'static str)]) {
    let records = records.iter().map(|&(key, value)| record(TENANTS, key, value)).collect();
    fixture.log().append(records).await.unwrap();
}

async fn snapshot(fixture: &Fixture) -> Vec<(String, String)> {
    let (records, _) = fixture.log().snapshot(TENANTS).await.unwrap();
    assert!(records.iter().all(|record| record.partition == TENANTS));
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut pairs: Vec<_> = records.iter().map(|record| (text(&record.key), text(&record.value))).collect();
    pairs.sort();
    pairs
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
}

pub(crate) async fn a_snapshot_has_the_newest_of_each_key(fixture: Fixture) {
    assert_eq!(snapshot(&fixture).await, []);
    apply(&fixture, &[("acme", "1"), ("globex", "1"), ("acme", "2")]).await;
    assert_eq!(snapshot(&fixture).await, pairs(&[("acme", "2"), ("globex", "1")]));
}

pub(crate) async fn a_snapshot_leaves_out_removed_keys(fixture: Fixture) {
    apply(&fixture, &[("acme", "1"), ("globex", "1"), ("acme", "")]).await;
    assert_eq!(snapshot(&fixture).await, pairs(&[("globex", "1")]));
    apply(&fixture, &[("acme", "3")]).await;
    assert_eq!(snapshot(&fixture).await, pairs(&[("acme", "3"), ("globex", "1")]));
}

pub(crate) async fn a_snapshot_says_where_to_read_on(fixture: Fixture) {
    apply(&fixture, &[("acme", "1")]).await;
    let (_, next) = fixture.log().snapshot(TENANTS).await.unwrap();
    assert_eq!(fixture.log().fetch(TENANTS, next, LIMIT, Duration::ZERO).await.unwrap(), []);
    apply(&fixture, &[("acme", "2"), ("acme", "")]).await;
    let records = fixture.log().fetch(TENANTS, next, LIMIT, Duration::ZERO).await.unwrap();
    assert_eq!(values(&records), ["2", ""], "a tombstone is read as any other record");
}

pub(crate) async fn a_snapshot_outlives_a_restart(mut fixture: Fixture) {
    apply(&fixture, &[("acme", "1"), ("globex", "1"), ("acme", "2"), ("globex", "")]).await;
    fixture.reopen().await;
    assert_eq!(snapshot(&fixture).await, pairs(&[("acme", "2")]));
}
