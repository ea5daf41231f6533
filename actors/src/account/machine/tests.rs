//! The account's decisions, without a runtime.

use heddle_schemas::id::{MessageKey, TurnId};
use heddle_schemas::record::inbound::DeliveryStatus;
use heddle_schemas::time::Timestamp;
use proptest::prelude::*;

use heddle_schemas::sealed::Secret;

use super::*;
use crate::account::schedule::Class;
use crate::account::schedule::pair::WHATSAPP;

const NOW: Duration = Duration::from_secs(1_000);
const SECOND: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, PartialEq)]
struct Text {
    to: u8,
    number: u16,
    since: Option<Duration>,
    refused: u32,
}

impl Message for Text {
    fn id(&self) -> OutboundId {
        id(self.to, self.number)
    }

    fn class(&self) -> Class {
        Class::Reply
    }
}

impl Sendable for Text {
    fn contact(&self) -> ContactId {
        contact(self.to)
    }

    fn in_log_since(&self) -> Option<Duration> {
        self.since
    }

    fn refused(&mut self, _: bool) -> u32 {
        self.refused += 1;
        self.refused
    }
}

fn contact(to: u8) -> ContactId {
    ContactId::from_bytes([to; 16])
}

fn id(to: u8, number: u16) -> OutboundId {
    OutboundId::of_turn(contact(to), TurnId(MessageKey::from_bytes([to; 16])), number)
}

fn text(to: u8, number: u16) -> Text {
    Text { to, number, since: None, refused: 0 }
}

fn report(to: u8, number: u16, status: DeliveryStatus) -> DeliveryReport {
    let at = Timestamp::from_secs(1);
    DeliveryReport { outbound: id(to, number), status, at, failure: None, message: None, pricing: None }
}

fn error(class: FailureClass) -> SendError {
    SendError { class, scope: Scope::Number, code: Some(1), detail: String::new(), retry_after: None }
}

fn refused(class: FailureClass) -> End {
    End::Refused { error: error(class), is_current: true }
}

fn unknown() -> End {
    End::Unknown { since: Duration::ZERO }
}

fn ready(token: &str) -> Event<Text> {
    Event::Access(Access::Ready {
        credentials: [("access_token", Secret::new(token))].into_iter().collect(),
        limit: NonZeroU32::MIN,
    })
}

fn tick(room: usize) -> Event<Text> {
    Event::Tick { room, room_at: Duration::ZERO }
}

fn machine(messages: impl IntoIterator<Item = Text>) -> Machine<Text> {
    let policy = Policy {
        queue: 16,
        probe_after: 300 * SECOND,
        unknown_repeats: 1,
        calls: 8,
        pair_limit: Some(WHATSAPP),
    };
    let mut machine = Machine::new(policy);
    machine.on(Event::Loaded, NOW);
    machine.on(ready("one"), NOW);
    for message in messages {
        machine.on(Event::Arrived(message), NOW);
    }
    machine
}

fn prepared(machine: &mut Machine<Text>, room: usize, now: Duration) -> Vec<Text> {
    let effects = machine.on(tick(room), now);
    effects
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::Prepare(text) => Some(text),
            _ => None,
        })
        .collect()
}

fn one(machine: &mut Machine<Text>) -> Text {
    prepared(machine, 1, NOW).pop().unwrap()
}

#[test]
fn nothing_is_prepared_before_the_rows_are_read() {
    let policy =
        Policy { queue: 16, probe_after: SECOND, unknown_repeats: 1, calls: 8, pair_limit: Some(WHATSAPP) };
    let mut machine = Machine::new(policy);
    machine.on(Event::Arrived(text(1, 0)), NOW);
    assert_eq!(prepared(&mut machine, 8, NOW), []);
    machine.on(Event::Loaded, NOW);
    assert_eq!(prepared(&mut machine, 8, NOW), [text(1, 0)]);
}

#[test]
fn a_refused_token_suspends_once_and_reports_once() {
    let mut machine = machine([text(1, 0), text(2, 0)]);
    let both = prepared(&mut machine, 2, NOW);
    let mut reported = 0;
    for text in both {
        let effects = machine.on(Event::Ended(text, refused(FailureClass::Unauthorized), Some(NOW)), NOW);
        reported +=
            effects.iter().filter(|effect| matches!(effect, Effect::Suspended { is_new: true, .. })).count();
        assert!(effects.contains(&Effect::Park), "what comes back leaves the log");
    }
    assert_eq!((reported, machine.lanes.len()), (1, 2), "nothing is lost");
    assert_eq!(prepared(&mut machine, 8, NOW + SECOND), []);
}

#[test]
fn a_suspended_account_is_probed_after_a_while_and_reported_only_when_it_sends() {
    let mut machine = machine([text(1, 0)]);
    let first = one(&mut machine);
    machine.on(Event::Ended(first, refused(FailureClass::Blocked), Some(NOW)), NOW);
    let later = NOW + 300 * SECOND;
    let effects = machine.on(tick(1), later);
    assert!(effects.contains(&Effect::Probe(true)) && effects.contains(&Effect::Unsuspended));
    let probe = prepared(&mut machine, 1, later).pop().unwrap();
    let effects = machine.on(Event::Ended(probe, refused(FailureClass::Blocked), Some(later)), later);
    assert!(effects.contains(&Effect::Suspended { is_new: false, code: Some(1) }));
    machine.on(tick(1), later + 300 * SECOND);
    let probe = prepared(&mut machine, 1, later + 300 * SECOND).pop().unwrap();
    let effects = machine.on(Event::Ended(probe, End::Settled { proves: true }, Some(later)), later);
    assert_eq!(effects, [Effect::Probe(false), Effect::Resumed]);
    assert_eq!(*machine.status(), Status::Running);
}

#[test]
fn a_tenant_that_is_applied_again_has_a_suspended_account_tried_at_once() {
    let mut machine = machine([text(1, 0)]);
    let first = one(&mut machine);
    machine.on(Event::Ended(first, refused(FailureClass::Blocked), Some(NOW)), NOW);
    assert!(!machine.asks_access(NOW + SECOND));
    assert_eq!(machine.on(Event::Reapplied, NOW + SECOND), [Effect::WakeAt(NOW + SECOND)]);
    assert!(machine.asks_access(NOW + SECOND));
    machine.on(tick(1), NOW + SECOND);
    assert_eq!(prepared(&mut machine, 1, NOW + SECOND).len(), 1, "with the same token too");
}

#[test]
fn a_call_from_before_the_suspension_neither_ends_nor_renews_it() {
    let mut machine = machine([text(1, 0), text(2, 0), text(3, 0)]);
    let mut under_way = prepared(&mut machine, 3, NOW);
    let first = under_way.remove(0);
    machine.on(Event::Ended(first, refused(FailureClass::Unauthorized), Some(NOW)), NOW);
    machine.on(ready("two"), NOW);
    assert_eq!(*machine.status(), Status::HalfOpen, "another token");
    let old = End::Refused { error: error(FailureClass::Unauthorized), is_current: false };
    machine.on(Event::Ended(under_way.remove(0), old, Some(NOW)), NOW);
    assert_eq!(*machine.status(), Status::HalfOpen);
    machine.on(Event::Ended(under_way.remove(0), End::Settled { proves: false }, Some(NOW)), NOW);
    assert_eq!(*machine.status(), Status::HalfOpen);
}

#[test]
fn messages_for_a_disconnected_account_are_withheld_until_it_is_configured_again() {
    let mut machine = machine([text(1, 0), text(2, 0)]);
    machine.on(Event::Access(Access::Disconnected), NOW);
    let effects = machine.on(tick(8), NOW);
    assert_eq!(effects, [Effect::Withhold(text(1, 0)), Effect::Withhold(text(2, 0))]);
    machine.on(Event::Arrived(text(3, 0)), NOW);
    machine.on(ready("one"), NOW);
    assert_eq!(prepared(&mut machine, 8, NOW), [text(3, 0)]);
}

#[test]
fn a_reply_of_unknown_outcome_is_sent_again_once_and_then_abandoned() {
    let mut machine = machine([text(1, 0), text(1, 1)]);
    let first = one(&mut machine);
    machine.on(Event::Ended(first, unknown(), Some(NOW)), NOW);
    assert_eq!(prepared(&mut machine, 8, NOW), [], "what follows waits");
    let waited = |repeated| Event::Waited { id: id(1, 0), purpose: Purpose::Reply, repeated };
    assert_eq!(machine.on(waited(0), NOW), [Effect::Repeat(id(1, 0))]);
    machine.repeat(text(1, 0));
    let again = one(&mut machine);
    assert_eq!(again, text(1, 0), "before what follows");
    machine.on(Event::Ended(again, unknown(), Some(NOW)), NOW);
    assert_eq!(machine.on(waited(1), NOW), [Effect::GiveUp(id(1, 0))]);
    assert_eq!(prepared(&mut machine, 8, NOW), [text(1, 1)], "its lane is free");
    let late = report(1, 0, DeliveryStatus::Delivered);
    assert_eq!(machine.on(Event::Reported(late.clone()), NOW), [Effect::Lift(late.clone())]);
    assert_eq!(machine.on(Event::Reported(late.clone()), NOW), [Effect::Acknowledge(late)]);
}

#[test]
fn a_campaigns_message_of_unknown_outcome_is_never_sent_again() {
    let mut machine = machine([text(1, 0)]);
    let first = one(&mut machine);
    machine.on(Event::Ended(first, unknown(), Some(NOW)), NOW);
    let waited = Event::Waited { id: id(1, 0), purpose: Purpose::Campaign, repeated: 0 };
    assert_eq!(machine.on(waited, NOW), [Effect::GiveUp(id(1, 0))]);
}

#[test]
fn a_status_settles_what_waits_to_be_tried_again() {
    let mut machine = machine([text(1, 0), text(1, 1)]);
    let first = one(&mut machine);
    machine.on(Event::Ended(first, refused(FailureClass::Temporary), Some(NOW)), NOW);
    let read = report(1, 0, DeliveryStatus::Read);
    let effects = machine.on(Event::Reported(read.clone()), NOW);
    assert_eq!(effects, [Effect::SettleBy(Text { refused: 1, ..text(1, 0) }, read)]);
    assert_eq!(prepared(&mut machine, 8, NOW + 60 * SECOND), [text(1, 1)]);
}

#[test]
fn a_status_that_comes_while_the_call_is_under_way_decides_its_end() {
    let sent = report(1, 0, DeliveryStatus::Sent);
    for (end, settled) in [
        (refused(FailureClass::Temporary), Effect::SettleBy(text(1, 0), sent.clone())),
        (unknown(), Effect::Resolve(sent.clone())),
        (End::Settled { proves: true }, Effect::Release(id(1, 0))),
    ] {
        let mut machine = machine([text(1, 0)]);
        let first = one(&mut machine);
        assert_eq!(machine.on(Event::Reported(sent.clone()), NOW), [Effect::Keep(sent.clone())]);
        assert_eq!(machine.on(Event::Ended(first, end, Some(NOW)), NOW), [settled]);
        assert!(machine.is_empty());
    }
}

#[test]
fn a_send_under_way_when_its_contact_was_erased_is_not_repeated() {
    for end in [refused(FailureClass::Temporary), refused(FailureClass::RateLimited), End::Returned] {
        let mut machine = machine([text(1, 0)]);
        let first = one(&mut machine);
        machine.on(Event::Erased(contact(1)), NOW);
        let effects = machine.on(Event::Ended(first, end, Some(NOW)), NOW);
        assert_eq!(effects, [Effect::Release(id(1, 0)), Effect::Drop(id(1, 0), Some(text(1, 0)))]);
        assert_eq!(prepared(&mut machine, 8, NOW + 60 * SECOND), []);
    }
    let mut machine = machine([text(1, 0)]);
    let first = one(&mut machine);
    machine.on(Event::Erased(contact(1)), NOW);
    let effects = machine.on(Event::Ended(first, unknown(), Some(NOW)), NOW);
    assert_eq!(effects, [Effect::Release(id(1, 0)), Effect::Drop(id(1, 0), None)]);
    assert!(machine.is_empty(), "its status is not awaited");
}

#[test]
fn sends_of_unknown_outcome_are_bounded() {
    let mut machine = machine([]);
    for number in 0..UNKNOWN_MOST {
        let number = u16::try_from(number).unwrap();
        machine.on(Event::FoundUnknown(id(9, number), Duration::ZERO), NOW);
    }
    machine.on(Event::Arrived(text(1, 0)), NOW);
    assert_eq!(prepared(&mut machine, 8, NOW), []);
    machine.on(Event::Reported(report(9, 0, DeliveryStatus::Sent)), NOW);
    assert_eq!(prepared(&mut machine, 8, NOW), [text(1, 0)]);
}

#[test]
fn a_pairs_pause_counts_the_pairs_refusals_and_is_bounded() {
    let machine = machine([]);
    let pauses: Vec<_> =
        (1..9).map(|refused| machine.pause(&error(FailureClass::PairLimited), refused).unwrap()).collect();
    assert_eq!(
        pauses.iter().map(Duration::as_secs).collect::<Vec<_>>(),
        [1, 4, 16, 64, 256, 1024, 1024, 1024]
    );
}

#[test]
fn a_failure_of_one_message_alone_is_final_after_some_calls() {
    let mut machine = machine([text(1, 0)]);
    let alone = || SendError { scope: Scope::Message, ..error(FailureClass::Temporary) };
    let mut now = NOW;
    for call in 1..=MESSAGE_CALLS {
        let message = prepared(&mut machine, 1, now).pop().unwrap();
        let end = End::Refused { error: alone(), is_current: true };
        let effects = machine.on(Event::Ended(message, end, Some(now)), now);
        assert_eq!(effects.iter().any(|effect| matches!(effect, Effect::Fail(..))), call == MESSAGE_CALLS);
        now += 60 * SECOND;
    }
    assert!(machine.is_empty());
}

#[test]
fn an_account_stays_in_memory_for_as_long_as_a_burst_owes() {
    let mut machine = machine([]);
    for number in 0..45 {
        machine.on(Event::Arrived(text(1, number)), NOW);
        let message = one(&mut machine);
        machine.on(Event::Ended(message, End::Settled { proves: true }, Some(NOW)), NOW);
    }
    assert!(!machine.is_idle(NOW + 269 * SECOND));
    assert!(machine.is_idle(NOW + 270 * SECOND));
}

proptest! {
    /// For all events in any order: a message is under way once, none is lost, and at the end none is left in memory.
    #[test]
    fn nothing_is_lost_or_doubled(steps in proptest::collection::vec((0_u8..12, 0_u8..3), 1..300)) {
        let mut machine = machine([]);
        let (mut now, mut next) = (NOW, [0_u16; 3]);
        let mut under_way: BTreeMap<OutboundId, Text> = BTreeMap::new();
        let (mut arrived, mut over) = (0, 0);
        for (step, to) in steps {
            now += SECOND / 3;
            let mut effects = Vec::new();
            let is_any_under_way = !under_way.is_empty();
            let mut end = |machine: &mut Machine<Text>, end: End| match under_way.pop_first() {
                Some((_, text)) => machine.on(Event::Ended(text, end, Some(now)), now),
                None => Vec::new(),
            };
            match step {
                0..3 => {
                    effects.extend(machine.on(Event::Arrived(text(to, next[usize::from(to)])), now));
                    next[usize::from(to)] += 1;
                    arrived += 1;
                }
                3 | 4 => effects.extend(machine.on(tick(2), now)),
                5 => {
                    over += usize::from(is_any_under_way);
                    effects.extend(end(&mut machine, End::Settled { proves: true }));
                }
                6 => effects.extend(end(&mut machine, refused(FailureClass::Temporary))),
                7 => effects.extend(end(&mut machine, refused(FailureClass::Unauthorized))),
                8 => effects.extend(end(&mut machine, unknown())),
                9 => effects.extend(machine.on(Event::Reapplied, now)),
                10 => if let Some((&id, _)) = machine.unknown.first_key_value() {
                    effects.extend(machine.on(Event::Waited { id, purpose: Purpose::Reply, repeated: 1 }, now));
                },
                _ => if let Some((&id, _)) = machine.unknown.first_key_value() {
                    let status = DeliveryStatus::Sent;
                    let at = Timestamp::from_secs(1);
                    let report = DeliveryReport { outbound: id, status, at, failure: None, message: None, pricing: None };
                    effects.extend(machine.on(Event::Reported(report), now));
                },
            }
            for effect in effects {
                match effect {
                    Effect::Prepare(text) => {
                        let is_suspended = matches!(machine.status(), Status::Suspended { .. });
                        prop_assert!(!is_suspended, "nothing leaves");
                        prop_assert!(under_way.insert(text.id(), text).is_none(), "twice under way");
                    }
                    Effect::GiveUp(_) | Effect::Resolve(_) => over += 1,
                    _ => {}
                }
            }
            let there = machine.lanes.len() + under_way.len() + machine.unknown.len();
            prop_assert_eq!(there + over, arrived);
            prop_assert_eq!(machine.lanes.busy(), under_way.len());
        }
    }
}
