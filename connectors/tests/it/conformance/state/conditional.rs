//! Contract of every state store: conditional writes.

use std::collections::BTreeSet;

use bytes::Bytes;
use heddle_schemas::ports::clock::Clock as _;
use heddle_schemas::ports::state::{State, Swap};

use super::{HOUR, claim, get};
use crate::conformance::stores::Fixture;

async fn swap(state: &dyn State, expected: Option<&'static str>, new: Option<&'static str>) -> Swap {
    let bytes = |text: Option<&'static str>| text.map(Bytes::from);
    state.compare_and_set(&claim(), bytes(expected), bytes(new), None).await.unwrap()
}

fn found(value: Option<&'static str>) -> Swap {
    Swap::Found(value.map(Bytes::from))
}

pub(crate) async fn a_conditional_insert_takes_place_once(fixture: Fixture) {
    let state = fixture.state();
    assert_eq!(swap(&*state, None, Some("a")).await, Swap::Done);
    assert_eq!(swap(&*state, None, Some("b")).await, found(Some("a")));
    assert_eq!(get(&*state, &claim()).await.as_deref(), Some("a"));
}

pub(crate) async fn a_conditional_write_applies_only_to_the_expected_value(fixture: Fixture) {
    let state = fixture.state();
    assert_eq!(swap(&*state, Some("a"), Some("b")).await, found(None));
    assert_eq!(swap(&*state, None, Some("a")).await, Swap::Done);
    assert_eq!(swap(&*state, Some("x"), Some("b")).await, found(Some("a")));
    assert_eq!(swap(&*state, Some("a"), Some("b")).await, Swap::Done);
    assert_eq!(swap(&*state, Some("b"), Some("")).await, Swap::Done);
    assert_eq!(swap(&*state, None, Some("c")).await, found(Some("")), "without content it is still there");
    assert_eq!(get(&*state, &claim()).await.as_deref(), Some(""));
}

pub(crate) async fn a_conditional_delete_applies_only_to_the_expected_value(fixture: Fixture) {
    let state = fixture.state();
    assert_eq!(swap(&*state, None, None).await, Swap::Done, "absent it was and is");
    swap(&*state, None, Some("a")).await;
    assert_eq!(swap(&*state, Some("x"), None).await, found(Some("a")));
    assert_eq!(swap(&*state, Some("a"), None).await, Swap::Done);
    assert_eq!(state.get(&claim()).await.unwrap(), None);
    assert_eq!(swap(&*state, None, Some("b")).await, Swap::Done);
}

pub(crate) async fn a_conditional_write_finds_an_ended_row_absent(fixture: Fixture) {
    let state = fixture.state();
    let end = fixture.clock.now().after(HOUR);
    let inserted = state.compare_and_set(&claim(), None, Some("a".into()), Some(end)).await.unwrap();
    assert_eq!(inserted, Swap::Done);
    assert_eq!(get(&*state, &claim()).await.as_deref(), Some("a"));
    fixture.clock.advance(HOUR);
    assert_eq!(state.get(&claim()).await.unwrap(), None);
    assert_eq!(swap(&*state, Some("a"), Some("b")).await, found(None));
    assert_eq!(swap(&*state, None, Some("b")).await, Swap::Done);
}

pub(crate) async fn of_racing_inserts_exactly_one_wins(fixture: Fixture) {
    let racers: Vec<_> = (0..32_u8)
        .map(|racer| {
            let state = fixture.state();
            tokio::spawn(async move {
                let mine = Bytes::from(vec![racer]);
                let swap = state.compare_and_set(&claim(), None, Some(mine.clone()), None).await.unwrap();
                (mine, swap)
            })
        })
        .collect();
    let mut winners = Vec::new();
    let mut results = Vec::new();
    for racer in racers {
        match racer.await.unwrap() {
            (mine, Swap::Done) => winners.push(mine),
            (_, Swap::Found(found)) => results.push(found),
        }
    }
    let stored = fixture.state().get(&claim()).await.unwrap();
    assert_eq!(winners.len(), 1);
    assert_eq!(stored.as_ref(), winners.first());
    assert!(results.iter().all(|found| *found == stored), "the losers get the winner's value");
}

pub(crate) async fn racing_updates_lose_none(fixture: Fixture) {
    let racers: Vec<_> = (0..8_u8)
        .map(|racer| {
            let state = fixture.state();
            tokio::spawn(async move {
                for number in 0..16_u8 {
                    add_one(&*state, [racer, number]).await;
                }
            })
        })
        .collect();
    for racer in racers {
        racer.await.unwrap();
    }
    let stored = fixture.state().get(&claim()).await.unwrap().unwrap();
    let added: BTreeSet<_> = stored.chunks(2).collect();
    assert_eq!((stored.len(), added.len()), (2 * 128, 128), "each once");
}

/// Adds an entry to the row. If the store does not know the outcome, the row shows it.
async fn add_one(state: &dyn State, entry: [u8; 2]) {
    let mut expected = state.get(&claim()).await.unwrap();
    loop {
        let before = expected.clone().unwrap_or_default();
        if before.chunks(2).any(|one| one == entry) {
            return;
        }
        let new = Bytes::from([&before[..], &entry].concat());
        expected = match state.compare_and_set(&claim(), expected, Some(new), None).await {
            Ok(Swap::Done) => return,
            Ok(Swap::Found(found)) => found,
            Err(error) => {
                assert!(error.is_transient(), "{error}");
                state.get(&claim()).await.unwrap()
            }
        };
    }
}

pub(crate) async fn conditional_writes_outlive_a_restart(mut fixture: Fixture) {
    swap(&*fixture.state(), None, Some("a")).await;
    fixture.reopen().await;
    assert_eq!(swap(&*fixture.state(), None, Some("b")).await, found(Some("a")));
    swap(&*fixture.state(), Some("a"), None).await;
    fixture.reopen().await;
    assert_eq!(fixture.state().get(&claim()).await.unwrap(), None);
}
