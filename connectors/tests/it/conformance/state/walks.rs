//! Contract of every state store: walks over the rows of a tenant, in no order and without a gap.

use std::collections::BTreeMap;

use bytes::Bytes;
use heddle_schemas::id::{AccountKey, ChannelKind, ContactId, MessageKey, OutboundId, TenantId, TurnId};
use heddle_schemas::ports::clock::Clock as _;
use heddle_schemas::ports::state::{State, Walk, Write};
use heddle_schemas::table::{Key, Table};
use heddle_schemas::time::Timestamp;

use super::{HOUR, conversation, writes};
use crate::conformance::stores::Fixture;

type Rows = BTreeMap<Bytes, (Bytes, Option<Timestamp>)>;

fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

/// A row of every table, and many of some. The second ones are written on a condition.
fn keys(of: &str) -> (Vec<Key>, Vec<Key>) {
    let tenant = tenant(of);
    let account = AccountKey {
        tenant: tenant.clone(),
        channel: ChannelKind::Whatsapp,
        account: "1122".parse().unwrap(),
    };
    let message = MessageKey::from_bytes([7; 16]);
    let contact = ContactId::from_bytes([1; 16]);
    let outbound = OutboundId::of_turn(contact, TurnId(message), 0);
    let mut fenced = Vec::new();
    for number in 0..4 {
        let conversation = conversation(of, number);
        fenced.push(Key::head(&conversation));
        fenced.extend((0..5).map(|sequence| Key::history(&conversation, sequence)));
        fenced.push(Key::marker(&conversation, message));
        fenced.push(Key::delivery(&conversation, &outbound));
    }
    fenced.extend([
        Key::send(&account, &outbound),
        Key::backlog(&account, 7),
        Key::tool(&conversation(of, 1), TurnId(message), 0),
    ]);
    let conditional = vec![
        Key::claim(&conversation(of, 1), TurnId(message)),
        Key::alias(&tenant, message),
        Key::contact(&tenant, contact),
        Key::tenant_key(&tenant),
        Key::contact_key(&tenant, contact),
        Key::document(&tenant, "prices"),
        Key::quota(&tenant, "2026-01"),
        Key::erasure(&tenant, message),
        Key::access(Some(&tenant), 1),
    ];
    (fenced, conditional)
}

async fn write(state: &dyn State, of: &str, expires: Option<Timestamp>) -> Rows {
    let (fenced, conditional) = keys(of);
    let value = |key: &Key| Bytes::from([b"value of ", &key.as_bytes()[..]].concat());
    let put = |key: &Key| Write { key: key.clone(), value: Some(value(key)), expires };
    state.commit(writes(fenced.iter().map(put))).await.unwrap();
    for key in &conditional {
        state.compare_and_set(key, None, Some(value(key)), expires).await.unwrap();
    }
    fenced
        .into_iter()
        .chain(conditional)
        .map(|key| (key.as_bytes().clone(), (value(&key), expires)))
        .collect()
}

async fn go_on(state: &dyn State, walk: &mut Walk, rows: &mut Rows) -> bool {
    let page = state.walk(walk).await.unwrap();
    assert!(page.rows.len() <= walk.limit, "{} rows", page.rows.len());
    let more = walk.go_on(&page);
    for row in page.rows {
        rows.insert(row.key.as_bytes().clone(), (row.value, row.expires));
    }
    more
}

async fn all(state: &dyn State, mut walk: Walk) -> Rows {
    let mut rows = Rows::new();
    while go_on(state, &mut walk, &mut rows).await {}
    rows
}

pub(crate) async fn a_walk_brings_every_row_of_a_tenant_and_no_other(fixture: Fixture) {
    let state = fixture.state();
    let end = fixture.clock.now().after(HOUR);
    let mut expected = BTreeMap::new();
    // One begins with another, one is as long as it.
    for (of, expires) in [("acme", Some(end)), ("acm", None), ("acme1", None), ("bcme", Some(end))] {
        expected.insert(of, write(&*state, of, expires).await);
    }
    for limit in [3, 1_000] {
        for (of, expected) in &expected {
            assert_eq!(all(&*state, Walk::of(&tenant(of), Table::ALL, limit)).await, *expected, "{of}");
        }
        let whole = Walk { tenant: None, ..Walk::of(&tenant("acme"), Table::ALL, limit) };
        assert_eq!(all(&*state, whole).await, expected.values().flat_map(Clone::clone).collect());
    }
}

#[expect(clippy::disallowed_methods, reason = "a store reads back the keys that it was given")]
pub(crate) async fn a_walk_keeps_to_its_tables(fixture: Fixture) {
    let state = fixture.state();
    let rows = write(&*state, "acme", None).await;
    for tables in [&[Table::Marker][..], &[Table::Key, Table::Head, Table::History], &[]] {
        let expected = rows.clone().into_iter();
        let of_tables =
            expected.filter(|(key, _)| tables.contains(&Key::from_bytes(key.clone()).unwrap().table()));
        let walked = all(&*state, Walk::of(&tenant("acme"), tables, 2)).await;
        assert_eq!(walked, of_tables.collect(), "{tables:?}");
    }
}

pub(crate) async fn a_walk_shows_rows_as_they_are_now(mut fixture: Fixture) {
    let mut rows = write(&*fixture.state(), "acme", None).await;
    fixture.reopen().await;
    let state = fixture.state();
    let (fenced, _) = keys("acme");
    let end = fixture.clock.now().after(HOUR);
    state
        .commit(writes([Write::delete(fenced[1].clone()), Write::put_until(fenced[2].clone(), "new", end)]))
        .await
        .unwrap();
    rows.remove(fenced[1].as_bytes());
    rows.insert(fenced[2].as_bytes().clone(), ("new".into(), Some(end)));
    assert_eq!(all(&*state, Walk::of(&tenant("acme"), Table::ALL, 7)).await, rows);
}

pub(crate) async fn a_walk_goes_on_after_a_restart(mut fixture: Fixture) {
    let expected = write(&*fixture.state(), "acme", None).await;
    write(&*fixture.state(), "other", None).await;
    let mut walk = Walk::of(&tenant("acme"), Table::ALL, 6);
    let mut rows = Rows::new();
    for _ in 0..4 {
        assert!(go_on(&*fixture.state(), &mut walk, &mut rows).await);
    }
    fixture.reopen().await;
    while go_on(&*fixture.state(), &mut walk, &mut rows).await {}
    assert_eq!(rows, expected);
}
