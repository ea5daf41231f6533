//! Checks of a world that has come to rest: I1, I2, I3 and I5 over everything that left the engine.
//!
//! The excuses of a crash or an interrupted commit are counted, and no more are excused than were counted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use heddle_actors::intake::identity::Identity;
use heddle_actors::invariants::are_calls_allowed;
use heddle_actors::tenant::quota;
use heddle_schemas::content::Address;
use heddle_schemas::id::{Cause, ChannelKind, ContactId, ConversationId, OutboundId, TurnId};
use heddle_schemas::ports::keys::Keys;
use heddle_schemas::record::decode;
use heddle_schemas::record::dlq::DeadLetter;
use heddle_schemas::record::event::{Event, EventRecord, Resolution};
use heddle_schemas::time::Day;
use heddle_schemas::topic::{Topic, TopicPartition};
use heddle_schemas::zone::Month;

use super::connector;
use super::provider::Taken;
use super::world::{Customer, FALLBACK, REPUBLISHED, UNKNOWN_REPEATS, World};

/// The turns of each contact, with the number of messages that each answers.
type Covered = BTreeMap<ContactId, BTreeMap<TurnId, u32>>;

impl World {
    /// Makes every check.
    pub(super) async fn check_everything(&self) {
        self.check().await;
        self.check_dead_letters().await;
        self.check_usage().await;
        self.check_violations().await;
    }

    /// The engine's own checks of the same invariants, by its counters.
    pub(super) async fn check_violations(&self) {
        if let Some(node) = &*self.node.read().await {
            let violations = node.sum("heddle_invariant_violations_total");
            assert_eq!(
                violations, 0.0,
                "seed {}: the engine saw {violations} violations of its own",
                self.seed
            );
        }
    }

    /// I5: each turn and each message is counted once, for any decider and any crash.
    async fn check_usage(&self) {
        let node = self.node.read().await;
        let ports = &node.as_ref().expect("the node runs").ports;
        let (mut turns, mut messages) = (BTreeMap::new(), BTreeMap::new());
        for partition in 0..self.disk.partitions(Topic::Events) {
            for record in self.disk.records(TopicPartition { topic: Topic::Events, partition }) {
                let record: EventRecord = decode(&record.value).expect("an event is readable");
                if let Event::Turn { conversation, turn, .. } = record.event {
                    let of_tenant: &mut BTreeSet<_> = turns.entry(record.tenant).or_default();
                    of_tenant.insert((conversation.contact, turn));
                }
            }
        }
        let given_up = self.given_up().into_values().map(|of| of.account.as_str().to_owned());
        for account in self.provider.taken().into_iter().map(|taken| taken.account).chain(given_up) {
            *messages.entry(account).or_insert(0) += 1;
        }
        for tenant in &self.tenants {
            let (mut counted, mut said) = (0, 0);
            // It all begins with a year, and the clock jumps back and forth.
            let mut month: Month = "2025-12".parse().expect("it is a month");
            for _ in 0..3 {
                let usage = quota::usage(ports, tenant, month).await.expect("the store is calm");
                (counted, said) = (counted + usage.total().turns, said + usage.total().messages);
                month = month.next();
            }
            let turns = turns.get(&tenant.id).map_or(0, BTreeSet::len) as u64;
            let messages = messages.get(tenant.channels[0].account.as_str()).copied().unwrap_or(0);
            assert_eq!(counted, turns, "seed {}: I5: turns of {}", self.seed, tenant.id);
            assert_eq!(said, messages, "seed {}: I5: messages of {}", self.seed, tenant.id);
        }
    }

    /// Identity: every customer is one person, found by each current id, and no two are the same.
    async fn people(&self) -> Vec<BTreeSet<ContactId>> {
        let node = self.node.read().await;
        let identity = Identity::new(node.as_ref().expect("the node runs").ports.clone());
        let mut people: Vec<BTreeSet<ContactId>> = Vec::new();
        for (index, customer) in self.customers.iter().enumerate() {
            let tenant = &self.tenants[customer.tenant].id;
            let Address { phone, user_id, .. } = customer.address();
            let is_number_passed_on = self.customers.iter().any(|other| other.follows == Some(index));
            let phone = phone.filter(|_| !is_number_passed_on);
            let ids = [
                phone.map(|phone| Address { phone: Some(phone), ..Address::default() }),
                user_id.map(|user| Address { user_id: Some(user), ..Address::default() }),
            ];
            let mut found = Vec::new();
            for id in ids.into_iter().flatten() {
                let person =
                    identity.find(tenant, ChannelKind::Whatsapp, &id).await.expect("the store is calm");
                let person = person
                    .unwrap_or_else(|| panic!("seed {}: customer {index} is not found by {id:?}", self.seed));
                found.push(person.contacts().collect::<BTreeSet<_>>());
            }
            found.dedup();
            assert_eq!(found.len(), 1, "seed {}: customer {index} is several people", self.seed);
            let person = found.remove(0);
            let is_known = people.iter().any(|other| !other.is_disjoint(&person));
            assert!(!is_known, "seed {}: customer {index} is taken for another one", self.seed);
            people.push(person);
        }
        people
    }

    async fn check(&self) {
        let taken = self.provider.taken();
        self.check_once(&taken);
        let covered = self.covered().await;
        let people = self.people().await;
        for (customer, person) in self.customers.iter().zip(&people) {
            self.check_customer(customer, person, &taken, &covered);
        }
        self.check_calls();
    }

    /// I2: records that cannot be accepted are in dlq with the reason, no others are, and nothing of them is in the
    /// clear.
    async fn check_dead_letters(&self) {
        let seed = self.seed;
        let keys = self.keys(&self.node.read().await.as_ref().expect("the node runs").store);
        let mut wrong = self.wrong.lock().expect("no test panics while holding it").clone();
        let (mut seen, mut repeated) = (BTreeSet::new(), 0);
        for partition in 0..self.disk.partitions(Topic::Dlq) {
            for record in self.disk.records(TopicPartition { topic: Topic::Dlq, partition }) {
                for shown in [&record.key, &record.value] {
                    let shown = String::from_utf8_lossy(shown);
                    assert!(!shown.contains(connector::SECRET), "seed {seed}: I4: {shown}");
                }
                let letter: DeadLetter = decode(&record.value).expect("a dead letter is readable");
                let place = (letter.from, letter.offset);
                // A crash or an interrupted commit may dead-letter it twice, never differently.
                let Some(expected) = wrong.get(&place) else {
                    panic!("seed {seed}: {letter:?} was given up");
                };
                repeated += u32::from(!seen.insert(place));
                assert_eq!(
                    (&letter.reason, letter.bytes),
                    (&expected.reason.into(), expected.bytes),
                    "seed {seed}"
                );
                assert_eq!(letter.tenant, expected.tenant, "seed {seed}: {letter:?}");
                let (Some(tenant), Some(sealed)) = (&letter.tenant, &letter.original) else {
                    assert_eq!(letter.original, None, "seed {seed}: nobody's key could end it");
                    continue;
                };
                let day = Day(sealed.key_number().expect("a sealed text names its key"));
                let cipher = keys.log(tenant, day).await.expect("a tenant has its keys");
                let opened = cipher.open(&DeadLetter::aad(letter.from, letter.offset), sealed);
                let originals = self.disk.records(letter.from);
                let original = originals.iter().find(|record| record.offset == letter.offset);
                assert_eq!(opened.ok().map(Into::into), original.map(|it| it.value.clone()), "seed {seed}");
            }
        }
        self.assert_excused(repeated, false, "dead letters").await;
        wrong.retain(|place, _| !seen.contains(place));
        assert!(wrong.is_empty(), "seed {seed}: I2: lost without a word: {wrong:?}");
    }

    /// Returns the turns of the events, and the number of messages that each answers. An interrupted commit may publish
    /// a turn twice, never differently.
    async fn covered(&self) -> Covered {
        let (mut covered, mut repeated) = (Covered::new(), 0);
        for partition in 0..self.disk.partitions(Topic::Events) {
            for record in self.disk.records(TopicPartition { topic: Topic::Events, partition }) {
                let record: EventRecord = decode(&record.value).expect("an event is readable");
                let Event::Turn { conversation, turn, messages, .. } = record.event else { continue };
                let before = covered.entry(conversation.contact).or_default().insert(turn, messages);
                assert!(before.is_none_or(|before| before == messages), "seed {}: I3: {turn}", self.seed);
                repeated += u32::from(before.is_some());
            }
        }
        self.assert_excused(repeated, true, "turns in topic events").await;
        covered
    }

    /// Repeated publications come from an interrupted commit, or from a node that repeated them on purpose and counted
    /// it: no more than there were.
    async fn assert_excused(&self, repeated: u32, on_purpose: bool, what: &str) {
        let mut excused = self.interrupted.load(Ordering::Relaxed);
        if on_purpose {
            let node = self.node.read().await;
            let running = node.as_ref().map_or(0.0, |node| node.sum(REPUBLISHED)) as u32;
            excused += self.republished.load(Ordering::Relaxed) + running;
        }
        assert!(
            repeated <= excused,
            "seed {}: I3: {repeated} {what} twice, {excused} are excused",
            self.seed
        );
    }

    /// Replies that policy abandoned, by the events that say so. Each had as many chances as policy gives: a call that the
    /// provider lost, or a crash between the journal's entry and the call.
    fn given_up(&self) -> BTreeMap<OutboundId, ConversationId> {
        let mut given_up = BTreeMap::new();
        let taken: BTreeSet<_> = self.provider.taken().into_iter().map(|taken| taken.id).collect();
        for partition in 0..self.disk.partitions(Topic::Events) {
            for record in self.disk.records(TopicPartition { topic: Topic::Events, partition }) {
                let record: EventRecord = decode(&record.value).expect("an event is readable");
                if let Event::SendResolved { conversation, outbound, by: Resolution::GivenUp } = record.event
                    && !taken.contains(&outbound)
                {
                    given_up.insert(outbound, conversation);
                }
            }
        }
        let lost = self.provider.lost();
        let crashes = self.crashes.lock().expect("no test panics while holding it").len();
        for id in given_up.keys() {
            let calls = lost.get(id).map_or(0, Vec::len);
            let chances = UNKNOWN_REPEATS as usize + 1;
            assert!(
                calls + crashes >= chances,
                "seed {}: I2: {id} was abandoned after {calls} calls and {crashes} crashes",
                self.seed
            );
        }
        for id in lost.keys() {
            assert!(given_up.contains_key(id), "seed {}: I2: {id} was lost without a word", self.seed);
        }
        given_up
    }

    /// I3: the provider took no message twice.
    fn check_once(&self, taken: &[Taken]) {
        let mut count = BTreeMap::new();
        for message in taken {
            *count.entry(message.id).or_insert(0) += 1;
        }
        for (id, times) in count {
            assert_eq!(times, 1, "seed {}: I3: {id} was taken {times} times", self.seed);
        }
    }

    /// I1 and I2: every text is answered once, in the order it was said.
    fn check_customer(
        &self,
        customer: &Customer,
        contacts: &BTreeSet<ContactId>,
        taken: &[Taken],
        covered: &Covered,
    ) {
        let spoken = customer.spoken.lock().expect("no test panics while holding it");
        let account = self.tenants[customer.tenant].channels[0].account.as_str();
        let addresses = customer.addresses.lock().expect("no test panics while holding it");
        let ids: Vec<_> =
            addresses.iter().flat_map(|address| [&address.user_id, &address.phone]).flatten().collect();
        let replies: Vec<_> = taken
            .iter()
            .filter(|message| message.account == account)
            .filter(|message| contacts.contains(&message.id.contact))
            .collect();
        for reply in &replies {
            assert!(ids.contains(&&reply.to), "seed {}: I4: {reply:?} went to somebody else", self.seed);
        }
        let said_by = |contact: Option<ContactId>| -> Vec<String> {
            replies
                .iter()
                .filter(|reply| contact.is_none_or(|contact| reply.id.contact == contact))
                .filter(|reply| reply.text != FALLBACK)
                .flat_map(|reply| reply.text.split('|').map(str::to_owned))
                .collect()
        };
        // Messages under ids that were not known to be one person's are in conversations of their own, each in order.
        for contact in contacts {
            let mut position = 0;
            let said = said_by(Some(*contact));
            for text in &said {
                let found = spoken.texts[position..].iter().position(|spoken| spoken == text);
                let Some(found) = found else {
                    panic!(
                        "seed {}: I1/I3: {said:?} answers {:?} out of order or twice",
                        self.seed, spoken.texts
                    );
                };
                position += found + 1;
            }
        }
        let said = said_by(None);
        let once: BTreeSet<_> = said.iter().collect();
        assert_eq!(once.len(), said.len(), "seed {}: I3: {said:?} answers a text twice", self.seed);
        let given_up = self.given_up();
        let given_up: Vec<_> = given_up.keys().filter(|id| contacts.contains(&id.contact)).collect();
        // Each turn sends one message, and says how many it answers.
        let turns: Vec<_> = contacts.iter().filter_map(|contact| covered.get(contact)).flatten().collect();
        let answered: u32 = turns.iter().map(|(_, messages)| **messages).sum();
        let asked = spoken.texts.len() + spoken.textless;
        assert_eq!(answered as usize, asked, "seed {}: I2: messages that turns answer", self.seed);
        assert_eq!(
            replies.len() + given_up.len(),
            turns.len(),
            "seed {}: I2/I3: a reply for each turn",
            self.seed
        );
        // What the model failed at, or what had no text, got the fallback: each text that is not answered is covered by
        // a turn that said so, or whose reply was given up.
        let covered_by = |id: &OutboundId| match id.cause {
            Cause::Turn(turn) => covered[&id.contact].get(&turn).copied().unwrap_or(0),
            Cause::Campaign(_) => 0,
        };
        let fallbacks = replies.iter().filter(|reply| reply.text == FALLBACK).map(|reply| &reply.id);
        let excused = fallbacks.chain(given_up).map(covered_by).sum::<u32>() as usize;
        let unanswered = spoken.texts.len() - said.len();
        assert!(
            unanswered <= excused && excused <= unanswered + spoken.textless,
            "seed {}: I2: {unanswered} of {:?} not answered, fallbacks and given-up replies cover {excused}: {said:?}",
            self.seed,
            spoken.texts
        );
    }

    /// I3: the model was called once for a turn, and once more only where a crash fell between the two calls.
    fn check_calls(&self) {
        let crashes = self.crashes.lock().expect("no test panics while holding it");
        for (turn, calls) in self.responder.calls().iter().filter(|_| self.outside) {
            let (first, last) = (calls[0], calls[calls.len() - 1]);
            let interruptions = crashes.iter().filter(|crash| first <= **crash && **crash <= last).count();
            let (calls, interruptions) = (calls.len() as u32, interruptions as u32);
            assert!(
                are_calls_allowed(calls, interruptions),
                "seed {}: I3: {calls} calls for turn {turn} with {interruptions} crashes in between",
                self.seed
            );
        }
        assert_eq!(self.responder.blind(), 0, "seed {}: asked without what the documents say", self.seed);
    }

    /// Everything that a run leaves behind, in an order that does not depend on it: a seed decides all of it.
    pub(super) fn trace(&self) -> Vec<String> {
        let mut trace = Vec::new();
        for topic in Topic::ALL {
            for partition in 0..self.disk.partitions(topic) {
                let partition = TopicPartition { topic, partition };
                for record in self.disk.records(partition) {
                    trace.push(format!("{partition} {} {:?} {:?}", record.offset, record.key, record.value));
                }
            }
        }
        for taken in self.provider.taken() {
            trace.push(format!("taken {taken:?}"));
        }
        for (turn, calls) in self.responder.calls() {
            trace.push(format!("asked {turn} {}", calls.len()));
        }
        trace.extend(self.rows().into_iter().map(|(key, value)| format!("row {key:?} {value:?}")));
        trace
    }
}
