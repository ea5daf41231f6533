use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::audit::{Outcome, What, Who};
use crate::ports::keys::{Cipher, KeysError};
use crate::sealed::Sealed;

/// Hashes under a key; seals nothing.
#[derive(Debug)]
struct Keyed(&'static str);

impl Cipher for Keyed {
    fn seal(&self, _: &[u8], _: &[u8]) -> Sealed {
        unimplemented!("marks are hashes")
    }
    fn open(&self, _: &[u8], _: &Sealed) -> Result<Vec<u8>, KeysError> {
        unimplemented!("marks are hashes")
    }
}

impl TenantCipher for Keyed {
    fn hash(&self, domain: &str, input: &[u8]) -> MessageKey {
        let mut hash = Sha256::new();
        for part in [self.0.as_bytes(), domain.as_bytes(), input] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        MessageKey::from_bytes(hash.finalize()[..16].try_into().unwrap())
    }
}

const KEY: Keyed = Keyed("acme's");

fn acme() -> TenantId {
    "acme".parse().unwrap()
}

fn act(name: &str) -> Act {
    let what = What::LetterShow { letter: name.into() };
    Act { who: Who::ENGINE, what, why: None, outcome: Outcome::Begun, began: None, records: None }
}

#[derive(Clone)]
struct Stored {
    rows: BTreeMap<u64, Bytes>,
    head: Option<Bytes>,
}

impl Stored {
    fn with(entries: u64) -> Self {
        let mut stored = Self { rows: BTreeMap::new(), head: None };
        (0..entries).for_each(|n| stored.append(&format!("0-{n}"), &KEY));
        stored
    }

    fn newest(&self) -> Option<Row> {
        Some(Row::of_head(self.head.as_ref()?).unwrap().0)
    }

    fn append(&mut self, name: &str, key: &Keyed) {
        let newest = self.newest();
        let number = newest.as_ref().map_or(1, |row| row.entry.body.number + 1);
        let at = (MessageKey::from_bytes([number as u8; 16]), Timestamp::from_secs(number as i64));
        let row = Row::after(newest.as_ref().map(|row| &row.entry), Some(&acme()), key, at, act(name));
        self.head = Some(row.head(key));
        self.rows.insert(number, row.bytes);
    }

    fn row(&self, number: u64) -> Row {
        Row::read(&self.rows[&number]).unwrap()
    }

    /// Appends an entry that a later build wrote, with acts, outcomes and means that this one does not know.
    fn append_of_later_build(&mut self, key: &Keyed) -> Value {
        self.append("0-9", key);
        let (number, bytes) = self.rows.pop_last().unwrap();
        let row = Row::read(&bytes).unwrap();
        let mut body = serde_json::to_value(&row.entry.body).unwrap();
        let conversation = "acme/whatsapp/1/0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a";
        body["what"] = json!({ "operation": "conversation_pin", "conversation": conversation, "why_not": 7 });
        body["outcome"] = json!("postponed");
        body["who"]["means"] = json!("passkey");
        let text = serde_json::to_vec(&body).unwrap();
        let hash = hash(Some(&acme()), &text);
        let mac = key.hash(ENTRIES, hash.as_bytes());
        let bytes = Bytes::from([&[VERSION][..], hash.as_bytes(), &mac.to_bytes(), &text].concat());
        self.head = Some(Row::read(&bytes).unwrap().head(key));
        self.rows.insert(number, bytes);
        body
    }

    fn verdict_with(&self, cipher: Option<&dyn TenantCipher>, noted: &[Noted]) -> Verdict {
        let tenant = acme();
        let mut verifier = Verifier::new(Some(&tenant), cipher, noted.iter().copied());
        self.rows.iter().for_each(|(number, bytes)| verifier.take(*number, bytes));
        verifier.end(self.head.as_ref())
    }

    fn faults(&self) -> Vec<Fault> {
        self.verdict_with(Some(&KEY), &[]).faults
    }

    fn noted(&self, number: u64) -> Noted {
        Noted { number, hash: self.row(number).entry.hash }
    }

    /// Writes a row anew as somebody would who knows everything but the key.
    fn rewrite(&mut self, number: u64, change: impl FnOnce(&mut Body)) {
        let mut row = self.row(number);
        change(&mut row.entry.body);
        let text = encode(&row.entry.body);
        let hash = hash(Some(&acme()), &text);
        self.rows.insert(
            number,
            [&[VERSION][..], hash.as_bytes(), &row.entry.mark.to_bytes(), &text].concat().into(),
        );
    }
}

#[test]
fn an_entry_of_a_later_build_is_listed_and_breaks_no_chain() {
    let mut stored = Stored::with(2);
    let body = stored.append_of_later_build(&KEY);
    stored.append("0-10", &KEY);
    let verdict = stored.verdict_with(Some(&KEY), &[]);
    assert!(verdict.holds() && verdict.entries == 4, "{verdict:?}");
    let act = stored.row(3).entry.body.act;
    assert_eq!(serde_json::to_value(&act.what).unwrap(), body["what"], "it is shown as it came");
    assert_eq!(act.what.as_str(), "conversation_pin");
    assert_eq!(act.what.contact().map(|contact| contact.to_string()), Some("0a".repeat(16)));
    assert!(act.what.about().contains("why_not 7"), "{}", act.what.about());
    assert_eq!((act.outcome, act.who.means), (Outcome::Other, crate::audit::Means::Other));
}

#[test]
fn a_chain_that_nobody_touched_holds_and_names_its_newest_entry() {
    assert!(Stored::with(0).verdict_with(Some(&KEY), &[]).holds());
    let stored = Stored::with(7);
    let verdict = stored.verdict_with(Some(&KEY), &[stored.noted(3), stored.noted(7)]);
    assert_eq!((verdict.holds(), verdict.entries, verdict.newest), (true, 7, Some(stored.noted(7))));
    let text = stored.noted(7).to_string();
    assert_eq!(text.parse(), Ok(stored.noted(7)));
    assert!("7".parse::<Noted>().is_err());
}

#[test]
fn the_hash_is_the_one_that_any_tool_computes() {
    // printf 'heddle/audit/1\0acme\0{}' | sha256sum
    assert_eq!(
        hash(Some(&acme()), b"{}").to_string(),
        "453757d555ef0ab3b22a694e445e7955a5143dfc92f1df0b454e9f13a8d3f905"
    );
}

#[test]
fn a_changed_entry_is_found() {
    let mut stored = Stored::with(5);
    let mut bytes = stored.rows[&3].to_vec();
    let at = bytes.windows(3).position(|part| part == b"0-2").unwrap();
    bytes[at + 2] = b'9';
    stored.rows.insert(3, bytes.into());
    assert_eq!(stored.faults(), [Fault::Changed { number: 3 }]);
}

#[test]
fn an_entry_forged_with_a_hash_that_fits_is_found() {
    let mut stored = Stored::with(5);
    stored.rewrite(3, |body| body.act = act("0-9"));
    assert_eq!(stored.faults(), [Fault::Forged { number: 3 }]);
}

#[test]
fn a_chain_written_anew_from_a_forged_entry_on_is_found() {
    let mut stored = Stored::with(3);
    let mut forged = Stored { rows: BTreeMap::from([(1, stored.rows[&1].clone())]), head: None };
    forged.head = Some(Row::read(&stored.rows[&1]).unwrap().head(&KEY));
    for name in ["0-7", "0-8"] {
        forged.append(name, &Keyed("a guess"));
    }
    stored.rows = forged.rows;
    stored.head = forged.head;
    assert_eq!(
        stored.faults(),
        [Fault::Forged { number: 2 }, Fault::Forged { number: 3 }, Fault::ForgedHead]
    );
}

#[test]
fn an_entry_removed_in_the_middle_is_found() {
    let mut stored = Stored::with(5);
    stored.rows.remove(&2);
    assert_eq!(stored.faults(), [Fault::Missing { from: 2, to: 2 }]);
    stored.rows.remove(&1);
    assert_eq!(stored.faults(), [Fault::Missing { from: 1, to: 2 }]);
}

#[test]
fn a_removed_entry_is_found_also_when_the_later_ones_are_moved_up() {
    let mut stored = Stored::with(4);
    stored.rows.insert(2, stored.rows[&3].clone());
    stored.rows.insert(3, stored.rows[&4].clone());
    stored.rows.remove(&4);
    assert_eq!(
        stored.faults()[..2],
        [Fault::Misplaced { number: 2, holds: 3 }, Fault::Misplaced { number: 3, holds: 4 }]
    );
}

#[test]
fn a_reordered_pair_is_found() {
    let mut stored = Stored::with(5);
    let (two, three) = (stored.rows[&2].clone(), stored.rows[&3].clone());
    stored.rows.insert(2, three);
    stored.rows.insert(3, two);
    assert_eq!(
        stored.faults(),
        [Fault::Misplaced { number: 2, holds: 3 }, Fault::Misplaced { number: 3, holds: 2 }]
    );
}

#[test]
fn a_cut_end_is_found() {
    let mut stored = Stored::with(5);
    stored.rows.retain(|number, _| *number <= 3);
    assert_eq!(stored.faults(), [Fault::Cut { from: 4, to: 5 }]);
    stored.head = None;
    assert_eq!(stored.faults(), [Fault::NoHead]);
    // A head made of the row that is the last now: its MAC is of the other domain.
    let row = stored.row(3);
    stored.head = Some([&[VERSION][..], &row.entry.mark.to_bytes(), &row.bytes].concat().into());
    assert_eq!(stored.faults(), [Fault::ForgedHead]);
    assert_eq!(Stored { rows: BTreeMap::new(), ..Stored::with(2) }.faults(), [Fault::Cut { from: 1, to: 2 }]);
}

#[test]
fn going_back_to_a_former_state_is_found_by_who_noted_a_later_entry() {
    let (earlier, now) = (Stored::with(3), Stored::with(5));
    assert_eq!(earlier.faults(), [], "nothing in the chain itself shows it");
    let verdict = earlier.verdict_with(Some(&KEY), &[now.noted(2), now.noted(5)]);
    assert_eq!(verdict.faults, [Fault::Cut { from: 4, to: 5 }]);
    let mut other = Stored::with(4);
    other.append("0-99", &KEY);
    let verdict = other.verdict_with(Some(&KEY), &[now.noted(5)]);
    assert_eq!(verdict.faults, [Fault::Replaced { number: 5 }], "with the key, and yet");
}

#[test]
fn a_head_that_was_set_back_is_found() {
    let mut stored = Stored::with(5);
    stored.head = Stored::with(3).head;
    assert_eq!(stored.faults(), [Fault::OldHead { names: 3 }]);
}

#[test]
fn a_crash_before_the_newest_row_was_put_in_its_place_breaks_nothing() {
    let mut stored = Stored::with(5);
    stored.rows.remove(&5);
    let verdict = stored.verdict_with(Some(&KEY), &[]);
    assert_eq!((verdict.holds(), verdict.entries, verdict.newest.unwrap().number), (true, 5, 5));
}

#[test]
fn an_entry_of_another_tenant_is_found() {
    let mut stored = Stored::with(3);
    let globex = "globex".parse().unwrap();
    let before = stored.row(1).entry;
    let at = (MessageKey::from_bytes([2; 16]), Timestamp::EPOCH);
    stored.rows.insert(2, Row::after(Some(&before), Some(&globex), &KEY, at, act("0-1")).bytes);
    assert_eq!(stored.faults(), [Fault::Changed { number: 2 }]);
}

#[test]
fn without_the_key_what_needs_none_is_still_checked() {
    let mut stored = Stored::with(5);
    assert!(stored.verdict_with(None, &[]).holds());
    stored.rewrite(3, |body| body.act = act("0-9"));
    let verdict = stored.verdict_with(None, &[]);
    assert_eq!((verdict.keyed, verdict.faults), (false, vec![Fault::Unlinked { number: 4 }]));
}

proptest! {
    /// Whichever byte of whichever row is changed, a verification says so, and names that row or the head.
    #[test]
    fn no_changed_byte_goes_unseen(row in 0_u64..=6, at: prop::sample::Index, flip in 1_u8..) {
        let mut stored = Stored::with(6);
        let target = if row == 0 { stored.head.as_mut().unwrap() } else { stored.rows.get_mut(&row).unwrap() };
        let mut bytes = target.to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        *target = bytes.into();
        let faults = stored.faults();
        let named = match faults.first() {
            Some(Fault::ForgedHead | Fault::OldHead { .. }) => 0,
            Some(
                Fault::Unreadable { number } | Fault::Changed { number } | Fault::Forged { number },
            ) => *number,
            other => return Err(TestCaseError::fail(format!("{other:?}"))),
        };
        prop_assert_eq!(named, row);
    }

    /// Whichever rows are removed, all but the newest, whose copy is the head, are missed.
    #[test]
    fn no_removed_row_goes_unseen(removed in prop::collection::btree_set(1_u64..=8, 1..8)) {
        let mut stored = Stored::with(8);
        stored.rows.retain(|number, _| !removed.contains(number));
        let lost = removed.iter().any(|number| *number != 8);
        prop_assert_eq!(!stored.faults().is_empty(), lost);
    }
}
