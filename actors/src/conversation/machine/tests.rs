use std::collections::{BTreeMap, BTreeSet};

use heddle_schemas::tenant::LoopAction;
use proptest::prelude::*;

use super::*;

const SETTLE: Duration = Duration::from_millis(300);
const WITHIN: Duration = Duration::from_secs(3600);
const GUARD: LoopGuard = LoopGuard { rounds: 0, within: Duration::from_secs(60), then: LoopAction::Silence };

fn at(millis: i64) -> Timestamp {
    Timestamp::from_micros(millis * 1000)
}

fn key(number: u8) -> MessageKey {
    MessageKey::from_bytes([number; 16])
}

fn machine() -> Machine {
    Machine { head: Head::new(), running: None }
}

fn act(number: u8, millis: i64, kind: ActKind, target: Option<MessageKey>) -> Act<'static> {
    let (asks, accepted_at) = (Asks::Answer("hello"), at(millis));
    let row = number.into();
    Act {
        key: key(number),
        row,
        kind,
        target,
        asks,
        said_at: Some(accepted_at),
        accepted_at,
        is_silent_stop: false,
    }
}

fn say(machine: &mut Machine, number: u8, millis: i64) -> Option<TurnId> {
    machine.act(&act(number, millis, ActKind::Say, None), at(millis), SETTLE, WITHIN).turn
}

fn change(machine: &mut Machine, kind: ActKind, target: u8, millis: i64) -> Acted {
    machine.act(&act(99, millis, kind, Some(key(target))), at(millis), SETTLE, WITHIN)
}

fn begin(machine: &mut Machine, covers: usize, due: Timestamp) {
    machine.running = Some(Running::new(1, due, covers, Fingerprint::default()));
}

fn open(machine: &Machine) -> Vec<MessageKey> {
    machine.head.open.iter().map(|open| open.key).collect()
}

fn decide(machine: &mut Machine, covered: &[MessageKey], texts: &[String], millis: i64) -> Option<Change> {
    let decision = Decision { covered, row: 7, said: Fingerprint::default(), texts, hand_over: None };
    machine.decide(&decision, at(millis), &GUARD)
}

#[test]
fn an_edit_or_deletion_of_what_an_adopted_claim_does_not_cover_belongs_to_the_next_turn() {
    let mut machine = machine();
    say(&mut machine, 1, 0);
    say(&mut machine, 2, 100);
    // A crash left a claim of the first message alone.
    begin(&mut machine, 1, at(300));
    assert_eq!(change(&mut machine, ActKind::Edit, 2, 400).edited, Some(key(2)));
    assert_eq!(change(&mut machine, ActKind::Edit, 1, 400).edited, None, "it is being answered");
    change(&mut machine, ActKind::Delete, 2, 500);
    assert_eq!(open(&machine), [key(1)]);
    assert_eq!(say(&mut machine, 3, 600), Some(TurnId(key(3))), "the next turn is named after it");
}

#[test]
fn an_answer_is_discarded_where_a_human_had_the_word_in_between() {
    let mut machine = machine();
    say(&mut machine, 1, 0);
    begin(&mut machine, 1, at(300));
    assert_eq!(machine.handler(Handler::Human, at(400)), Some(Change::HandedOver(HandOver::Human)));
    assert_eq!(machine.handler(Handler::Agent, at(500)), Some(Change::GivenBack));
    say(&mut machine, 2, 600);
    // Messages after the return are not part of the turn under way.
    assert_eq!(change(&mut machine, ActKind::Edit, 2, 700).edited, Some(key(2)));
    assert!(!machine.end());
    decide(&mut machine, &[key(1)], &[], 800);
    assert_eq!(open(&machine), [key(2)]);
}

#[test]
fn an_answer_is_discarded_where_the_customer_restricted_what_is_kept() {
    let mut machine = machine();
    say(&mut machine, 1, 0);
    begin(&mut machine, 1, at(300));
    machine.restrict(true, at(400));
    machine.restrict(false, at(500));
    assert!(!machine.end());
}

#[test]
fn a_row_that_is_due_beside_a_running_turn_begins_none() {
    let mut machine = machine();
    say(&mut machine, 1, 0);
    let due = machine.head.arm().unwrap();
    begin(&mut machine, 1, due);
    let woken = |due| wake(&machine.head, machine.running.as_ref(), due, at(900));
    assert_eq!(woken(due), Wake::Running);
    assert_eq!(woken(at(299)), Wake::NotBefore(at(1900)));
}

#[test]
fn late_messages_and_those_that_need_no_answer_are_only_recorded() {
    let mut machine = machine();
    let late = Act { accepted_at: at(0), ..act(1, 0, ActKind::Say, None) };
    let acted = machine.act(&late, at(3_600_001), SETTLE, WITHIN);
    assert_eq!(acted, Acted { is_late: true, ..Acted::default() });
    let stop = Act { is_silent_stop: true, ..act(2, 0, ActKind::Say, None) };
    assert_eq!(machine.act(&stop, at(0), SETTLE, WITHIN), Acted::default());
    let nothing = Act { asks: Asks::Nothing, ..act(3, 0, ActKind::Say, None) };
    assert_eq!(machine.act(&nothing, at(0), SETTLE, WITHIN), Acted::default());
    assert!(machine.head.open.is_empty());
    // A notice of the channel opens no window.
    let notice = Act { said_at: None, ..act(4, 9_000, ActKind::Say, None) };
    machine.act(&notice, at(9_000), SETTLE, WITHIN);
    assert_eq!(machine.head.customer_at, at(0));
}

#[test]
fn a_loop_is_stopped_and_goes_to_a_human_where_the_tenant_says_so() {
    let guard = LoopGuard { rounds: 2, ..GUARD };
    let said = Fingerprint::of([Some("menu: 1 or 2?")].into_iter());
    let mut machine = machine();
    let texts = ["sorry?".to_owned()];
    for (number, millis) in [(1, 0), (2, 1000)] {
        say(&mut machine, number, millis);
        assert_eq!(machine.stops(said, at(millis), &guard), None);
        let decision = Decision { covered: &[key(number)], row: 1, said, texts: &texts, hand_over: None };
        assert_eq!(machine.decide(&decision, at(millis), &guard), None);
    }
    say(&mut machine, 3, 2000);
    assert_eq!(machine.stops(said, at(2000), &guard), Some(Stopped { rounds: 2, is_new: true }));
    let hand_over = Some(HandOver::Loop);
    let decision = Decision { covered: &[key(3)], row: 1, said, texts: &[], hand_over };
    assert_eq!(machine.decide(&decision, at(2000), &guard), Some(Change::HandedOver(HandOver::Loop)));
    assert_eq!(say(&mut machine, 4, 3000), None, "a human answers");
}

/// Step of the property test.
#[derive(Debug, Clone)]
enum Step {
    Say,
    Edit(prop::sample::Index),
    Delete(prop::sample::Index),
    Human,
    Agent,
    Restrict(bool),
    /// The due row wakes the conversation; a claim of an earlier owner may cover some messages only.
    Wake(prop::sample::Index),
    End,
    /// The node crashes: state that is not stored is lost.
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        6 => Just(Step::Say),
        2 => index().prop_map(Step::Edit),
        2 => index().prop_map(Step::Delete),
        1 => Just(Step::Human),
        2 => Just(Step::Agent),
        1 => any::<bool>().prop_map(Step::Restrict),
        4 => index().prop_map(Step::Wake),
        4 => Just(Step::End),
        1 => Just(Step::Crash),
    ]
}

proptest! {
    /// For all inputs in any order: no message is decided by two turns; each that asked for an answer is decided,
    /// waits, was taken back before its turn began, or was open at a handover; while one waits, an agenda row is armed;
    /// a turn is published only where no handover happened since it began; and an edit or deletion of a message that no
    /// turn covers takes effect.
    #[test]
    fn every_message_is_decided_once_or_has_a_reason_not_to_be(steps in proptest::collection::vec(step(), 0..120)) {
        let mut machine = machine();
        let (mut now, mut number, mut turns) = (0, 0_u8, 0_u64);
        let mut asked = BTreeSet::new();
        let mut decided = BTreeMap::<MessageKey, u32>::new();
        let mut excused = BTreeSet::new();
        let mut covered = Vec::new();
        let mut others_had_the_word = false;
        for step in steps {
            now += 200;
            let waiting = open(&machine);
            match step {
                Step::Say => {
                    number += 1;
                    let turn = say(&mut machine, number, now);
                    prop_assert_eq!(turn.is_some(), machine.head.is_answered());
                    if turn.is_some() {
                        asked.insert(key(number));
                        machine.head.arm();
                    }
                }
                Step::Edit(_) | Step::Delete(_) if waiting.is_empty() => {}
                Step::Edit(which) => {
                    let target = *which.get(&waiting);
                    let target_number = target.to_bytes()[0];
                    let edited = change(&mut machine, ActKind::Edit, target_number, now).edited;
                    let is_covered = covered.contains(&target);
                    prop_assert_eq!(edited.is_some(), !is_covered);
                }
                Step::Delete(which) => {
                    let target = *which.get(&waiting);
                    change(&mut machine, ActKind::Delete, target.to_bytes()[0], now);
                    let is_covered = covered.contains(&target);
                    prop_assert_eq!(open(&machine).contains(&target), is_covered);
                    if !is_covered {
                        excused.insert(target);
                    }
                }
                Step::Human => {
                    machine.handler(Handler::Human, at(now));
                    excused.extend(waiting);
                    others_had_the_word = true;
                }
                Step::Agent => drop(machine.handler(Handler::Agent, at(now))),
                Step::Restrict(restricted) => {
                    machine.restrict(restricted, at(now));
                    if restricted {
                        excused.extend(waiting);
                        others_had_the_word = true;
                    }
                }
                Step::Wake(claimed) => {
                    let Some(due) = machine.head.agenda else { continue };
                    match wake(&machine.head, machine.running.as_ref(), due, at(now)) {
                        Wake::Running => prop_assert!(machine.running.is_some()),
                        Wake::NotBefore(later) => prop_assert!(later > at(now)),
                        // The shell deletes the row.
                        Wake::Nothing => {
                            prop_assert!(machine.running.is_none());
                            machine.head.agenda = None;
                        }
                        Wake::Begin => {
                            prop_assert!(machine.running.is_none());
                            let covers = 1 + claimed.index(machine.head.open.len());
                            covered = open(&machine)[..covers].to_vec();
                            turns += 1;
                            machine.running = Some(Running::new(turns, due, covers, Fingerprint::default()));
                            others_had_the_word = false;
                        }
                    }
                }
                Step::End => {
                    let Some(running) = machine.running else { continue };
                    let published = machine.end();
                    prop_assert_eq!(published, !others_had_the_word);
                    decide(&mut machine, &covered, &[], now);
                    machine.head.rearm(running.due);
                    for message in covered.drain(..) {
                        *decided.entry(message).or_default() += 1;
                    }
                }
                Step::Crash => {
                    machine.running = None;
                    covered.clear();
                }
            }
            let waiting = open(&machine);
            prop_assert!(waiting.is_empty() || machine.head.agenda.is_some(), "nothing wakes it");
            prop_assert!(decided.values().all(|times| *times == 1), "{decided:?}");
            for message in &asked {
                let has_reason =
                    decided.contains_key(message) || waiting.contains(message) || excused.contains(message);
                prop_assert!(has_reason, "{message:?} is lost");
            }
        }
    }
}
