//! People under several ids: who is who, whatever a channel shows of them and in which order.

use std::collections::BTreeMap;
use std::time::Duration;

use heddle_actors::conversation::export::Reading;
use heddle_actors::conversation::thread::EntrySaid;
use heddle_actors::intake::consent::standing;
use heddle_actors::intake::identity::{Identity, IdentityError, Person};
use heddle_actors::ports::Ports;
use heddle_actors::privacy::erasure;
use heddle_actors::privacy::verification::Prover;
use heddle_memory::ScriptedResponder;
use heddle_memory::responder::Response;
use heddle_schemas::consent::{Category, Standing};
use heddle_schemas::content::{Address, Content};
use heddle_schemas::id::{AccountKey, ChannelKind, ContactId, OutboundId};
use heddle_schemas::ports::channel::{Act, ChannelEvent, ReceivedStatus};
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::responder::Question;
use heddle_schemas::promise::Promise;
use heddle_schemas::record::inbound::DeliveryStatus;
use heddle_schemas::table::Key;
use heddle_schemas::tenant::Tenant;
use heddle_schemas::time::Timestamp;
use heddle_testing::{Site, SiteBuilder, TenantBuilder, message};

const N: &str = "4915700000001";
const M: &str = "4915700000002";

fn acme() -> Tenant {
    TenantBuilder::new("acme").account("1").build()
}

fn address(phone: &str, user: &str) -> Address {
    let some = |id: &str| (!id.is_empty()).then(|| id.to_owned());
    Address { phone: some(phone), user_id: some(user), ..Address::default() }
}

/// Site whose model repeats what it is shown of before.
struct Scenario {
    site: Site,
    said: BTreeMap<&'static str, u32>,
}

impl Scenario {
    async fn start() -> Self {
        let shown = |question: &Question| {
            let before: Vec<_> = question.history.iter().map(|said| said.text.clone()).collect();
            format!("[{}]", before.join("|"))
        };
        let responder =
            ScriptedResponder::new(true, move |question| Response::text(question, shown(question)));
        let builder = SiteBuilder::default().responder(std::sync::Arc::new(responder));
        Self { site: builder.start(&[acme()]).await, said: BTreeMap::new() }
    }

    fn now(&self) -> Timestamp {
        self.site.clock.now()
    }

    fn ports(&self) -> Ports {
        self.site.with(|node| node.ports.clone())
    }

    /// A message with this text comes from here, sent now; it is answered within two seconds.
    async fn says(&mut self, from: &Address, text: &'static str) {
        let at = self.now();
        self.says_at(from, text, at).await;
    }

    async fn says_at(&mut self, from: &Address, text: &'static str, at: Timestamp) {
        let number = self.said.entry(text).or_default();
        *number += 1;
        let id = format!("{text}-{number}");
        self.site.receive(&acme(), message::said("1", from.clone(), &id, text, at)).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }

    async fn renamed(&self, from: &Address, to: &Address, at: Timestamp) {
        let act = Act::Rename { to: to.clone(), body: None };
        self.site.receive(&acme(), message::acted("1", from.clone(), "notice", act, at)).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }

    /// The person as an operator finds them.
    async fn find(&self, of: &Address) -> Option<Person> {
        let identity = Identity::new(self.ports());
        identity.find(&acme().id, ChannelKind::Whatsapp, of).await.unwrap()
    }

    async fn contacts(&self, of: &Address) -> Vec<ContactId> {
        let mut contacts: Vec<_> = self.find(of).await.unwrap().contacts().collect();
        contacts.sort();
        contacts
    }

    /// The customer's own texts that are stored of the person of an address.
    async fn texts(&self, of: &Address) -> Vec<String> {
        let ports = self.ports();
        let account =
            AccountKey { tenant: acme().id, channel: ChannelKind::Whatsapp, account: "1".parse().unwrap() };
        let mut texts = Vec::new();
        for contact in self.contacts(of).await {
            let Some(reading) = Reading::begin(&ports, &account.conversation(contact)).await.unwrap() else {
                continue;
            };
            for entry in reading.thread(&ports, None).await.unwrap().items {
                if let EntrySaid::Customer { act, .. } = entry
                    && let Some(Content::Text { body }) = act.content
                {
                    texts.push(body);
                }
            }
        }
        texts.sort();
        texts
    }

    async fn standing(&self, of: &Address) -> Standing {
        let contact = self.find(of).await.unwrap().contact;
        standing(&self.ports(), &acme().id, contact, Category::Marketing).await.unwrap()
    }

    fn last_answer(&self) -> String {
        self.site.sent().last().unwrap().clone()
    }
}

#[tokio::test(start_paused = true)]
async fn another_user_id_on_a_known_number_is_another_person() {
    let mut scenario = Scenario::start().await;
    scenario.says(&address(N, "DE.1"), "my secret").await;
    scenario.says(&address(N, "DE.2"), "hello").await;
    assert_eq!(scenario.last_answer(), "[]", "the model is shown nothing of the former owner");
    assert_eq!(scenario.texts(&address("", "DE.1")).await, ["my secret"]);
    assert_eq!(scenario.texts(&address("", "DE.2")).await, ["hello"]);
    assert_eq!(scenario.texts(&address(N, "")).await, ["hello"], "the number is the newer person's");
    // A late repetition of what the former owner wrote is still the former owner's.
    let first = scenario.site.clock.now().before(Duration::from_secs(4));
    let again = message::said("1", address(N, "DE.1"), "my secret-1", "my secret", first);
    scenario.site.receive(&acme(), again).await;
    scenario.says(&address(N, ""), "more").await;
    assert_eq!(scenario.texts(&address("", "DE.2")).await, ["hello", "more"]);
    assert_eq!(scenario.texts(&address("", "DE.1")).await, ["my secret"]);
}

#[tokio::test(start_paused = true)]
async fn a_late_message_from_a_number_alone_is_of_its_owner_of_then() {
    let mut scenario = Scenario::start().await;
    let then = scenario.now();
    scenario.says(&address(N, ""), "from the number alone").await;
    scenario.says(&address(N, "DE.1"), "with an id").await;
    scenario.says(&address(N, "DE.2"), "somebody else").await;
    let again = message::said("1", address(N, ""), "from the number alone-1", "from the number alone", then);
    let sent = scenario.site.sent().len();
    scenario.site.receive(&acme(), again).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(scenario.site.sent().len(), sent, "it is a redelivery");
    assert_eq!(scenario.texts(&address("", "DE.2")).await, ["somebody else"]);
    assert_eq!(scenario.texts(&address("", "DE.1")).await, ["from the number alone", "with an id"]);
}

#[tokio::test(start_paused = true)]
async fn an_opt_out_stays_with_the_person_who_had_the_number() {
    let mut scenario = Scenario::start().await;
    scenario.says(&address(N, "DE.1"), "STOP").await;
    scenario.says(&address(N, "DE.2"), "hello").await;
    assert_eq!(scenario.standing(&address("", "DE.1")).await, Standing::Stopped);
    assert_eq!(scenario.standing(&address(N, "")).await, Standing::Unknown);
}

#[tokio::test(start_paused = true)]
async fn who_writes_from_a_number_that_was_left_is_a_new_person() {
    let mut scenario = Scenario::start().await;
    let before = scenario.now();
    scenario.says(&address(N, ""), "my secret").await;
    let left = scenario.now();
    scenario.renamed(&address(N, ""), &address(M, ""), left).await;
    assert_eq!(scenario.find(&address(N, "")).await, None, "nobody has it");
    scenario.says(&address(M, ""), "same person").await;
    assert_eq!(scenario.last_answer(), "[my secret|[]]");
    scenario.says(&address(N, ""), "hello").await;
    assert_eq!(scenario.last_answer(), "[]");
    assert_eq!(scenario.texts(&address(M, "")).await, ["my secret", "same person"]);
    assert_eq!(scenario.texts(&address(N, "")).await, ["hello"]);
    // Redelivered: the notice, and a message of before it.
    scenario.renamed(&address(N, ""), &address(M, ""), left).await;
    let sent = scenario.site.sent().len();
    let again = message::said("1", address(N, ""), "my secret-1", "my secret", before);
    scenario.site.receive(&acme(), again).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(scenario.site.sent().len(), sent);
    assert_eq!(scenario.texts(&address(N, "")).await, ["hello"]);
    assert_eq!(scenario.texts(&address(M, "")).await, ["my secret", "same person"]);
}

#[tokio::test(start_paused = true)]
async fn an_opt_out_from_the_new_number_holds_after_the_notice_of_the_change() {
    for notice_is_stamped in ["before", "after"] {
        let mut scenario = Scenario::start().await;
        scenario.says(&address(N, ""), "hello").await;
        let changed = scenario.now();
        tokio::time::sleep(Duration::from_secs(5)).await;
        scenario.says(&address(M, ""), "STOP").await;
        assert_eq!(scenario.standing(&address(M, "")).await, Standing::Stopped);
        let at = if notice_is_stamped == "before" { changed } else { scenario.now() };
        scenario.renamed(&address(N, ""), &address(M, ""), at).await;
        assert_eq!(scenario.standing(&address(M, "")).await, Standing::Stopped, "{notice_is_stamped}");
        assert_eq!(scenario.texts(&address(M, "")).await, ["STOP", "hello"], "one person");
    }
}

#[tokio::test(start_paused = true)]
async fn who_had_the_new_number_long_before_is_somebody_else() {
    let mut scenario = Scenario::start().await;
    scenario.says(&address(M, ""), "long ago").await;
    scenario.site.clock.jump_forward(Duration::from_secs(100 * 86_400));
    scenario.says(&address(N, ""), "hello").await;
    let changed = scenario.now();
    tokio::time::sleep(Duration::from_secs(5)).await;
    scenario.says(&address(M, ""), "STOP").await;
    scenario.renamed(&address(N, ""), &address(M, ""), changed).await;
    assert_eq!(scenario.standing(&address(M, "")).await, Standing::Stopped);
    assert_eq!(scenario.texts(&address(M, "")).await, ["hello"]);
}

#[tokio::test(start_paused = true)]
async fn an_id_that_came_to_somebody_later_is_not_taken_back_by_an_earlier_notice() {
    let mut scenario = Scenario::start().await;
    scenario.says(&address(N, "DE.1"), "first").await;
    let changed = scenario.now();
    scenario.renamed(&address(N, "DE.1"), &address(M, "DE.2"), changed).await;
    scenario.says(&address(M, "DE.7"), "somebody else").await;
    // Again, and with less in it.
    scenario.renamed(&address(N, "DE.1"), &address(M, "DE.2"), changed).await;
    scenario.renamed(&address(N, ""), &address(M, ""), changed).await;
    assert_eq!(scenario.texts(&address(M, "")).await, ["somebody else"]);
    assert_eq!(scenario.texts(&address("", "DE.2")).await, ["first"]);
}

#[tokio::test(start_paused = true)]
async fn notices_out_of_order_end_as_they_were_given() {
    const K: &str = "4915700000003";
    for order in [[0, 1, 0], [1, 0, 1]] {
        let mut scenario = Scenario::start().await;
        scenario.says(&address(N, ""), "hello").await;
        let first = scenario.now();
        tokio::time::sleep(Duration::from_secs(60)).await;
        let second = scenario.now();
        tokio::time::sleep(Duration::from_secs(60)).await;
        for notice in order {
            match notice {
                0 => scenario.renamed(&address(N, ""), &address(M, ""), first).await,
                _ => scenario.renamed(&address(M, ""), &address(K, ""), second).await,
            }
        }
        assert_eq!(scenario.texts(&address(K, "")).await, ["hello"], "{order:?}");
        assert_eq!(scenario.find(&address(N, "")).await, None, "{order:?}");
        assert_eq!(scenario.find(&address(M, "")).await, None, "{order:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_user_id_is_the_persons_when_the_channel_says_so() {
    let mut scenario = Scenario::start().await;
    scenario.says(&address(N, "DE.1"), "hello").await;
    let at = scenario.now();
    scenario.renamed(&address("", "DE.1"), &address(N, "DE.2"), at).await;
    scenario.says(&address(N, "DE.2"), "again").await;
    assert_eq!(scenario.last_answer(), "[hello|[]]");
    assert_eq!(scenario.contacts(&address("", "DE.1")).await, scenario.contacts(&address(N, "")).await);
    assert_eq!(scenario.texts(&address("", "DE.2")).await, ["again", "hello"]);
}

#[tokio::test(start_paused = true)]
async fn a_user_id_that_comes_with_a_new_number_after_an_older_notice_is_the_persons() {
    let mut scenario = Scenario::start().await;
    scenario.says(&address(N, "DE.1"), "hello").await;
    let at = scenario.now();
    // As versions before August 2026 gave it: the number alone, though the user id changes with it.
    scenario.renamed(&address(N, ""), &address(M, ""), at).await;
    scenario.says(&address(M, "DE.2"), "again").await;
    assert_eq!(scenario.texts(&address("", "DE.2")).await, ["again", "hello"]);
    assert_eq!(scenario.texts(&address("", "DE.1")).await, ["again", "hello"]);
}

#[tokio::test(start_paused = true)]
async fn contacts_that_one_message_shows_together_are_one_person_and_the_stop_wins() {
    let mut scenario = Scenario::start().await;
    scenario.says(&address(N, ""), "by number").await;
    scenario.says(&address("", "DE.1"), "STOP").await;
    // Later than the stop, under the other id.
    scenario.says(&address(N, ""), "START").await;
    assert_eq!(scenario.standing(&address(N, "")).await, Standing::Given);
    scenario.says(&address(N, "DE.1"), "both").await;
    for of in [address(N, ""), address("", "DE.1"), address(N, "DE.1")] {
        assert_eq!(scenario.standing(&of).await, Standing::Stopped, "{of:?}");
        assert_eq!(scenario.texts(&of).await, ["START", "STOP", "both", "by number"], "{of:?}");
    }
    let shown = scenario.last_answer();
    assert!(shown.contains("by number") && shown.contains("STOP"), "{shown}");
    // A person may begin anew.
    scenario.says(&address("", "DE.1"), "START").await;
    assert_eq!(scenario.standing(&address(N, "")).await, Standing::Given);
    // What the contacts were met under goes on to lead to the one person.
    for contact in scenario.contacts(&address(N, "")).await {
        let at = scenario.ports();
        let found = standing(&at, &acme().id, contact, Category::Marketing).await.unwrap();
        assert_eq!(found, Standing::Given);
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_of_before_a_merge_is_recognised_when_it_is_delivered_again() {
    let mut scenario = Scenario::start().await;
    let first = scenario.now();
    scenario.says(&address(N, ""), "one").await;
    let second = scenario.now();
    scenario.says(&address("", "DE.1"), "two").await;
    scenario.says(&address(N, "DE.1"), "three").await;
    let sent = scenario.site.sent().len();
    for (from, text, at) in [(address(N, ""), "one", first), (address("", "DE.1"), "two", second)] {
        scenario.site.receive(&acme(), message::said("1", from, &format!("{text}-1"), text, at)).await;
    }
    // Even where it is in the conversation of both by now.
    let at = scenario.now();
    scenario.site.receive(&acme(), message::said("1", address(N, "DE.1"), "one-1", "one", at)).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(scenario.site.sent().len(), sent, "each was answered before");
}

#[tokio::test(start_paused = true)]
async fn two_nodes_that_meet_a_person_at_once_end_with_one() {
    for _ in 0..8 {
        let scenario = Scenario::start().await;
        let identities = [(); 3].map(|()| Identity::new(scenario.ports()));
        let addresses = [address(N, ""), address(N, "DE.1"), address("", "DE.1")];
        let at = scenario.now();
        let met = futures::future::join_all(identities.iter().zip(&addresses).map(|(identity, address)| {
            let tenant = acme().id;
            async move { identity.meet(&tenant, ChannelKind::Whatsapp, address, at).await.unwrap() }
        }));
        met.await;
        // At the latest with the next message that shows both.
        let identity = Identity::new(scenario.ports());
        identity.meet(&acme().id, ChannelKind::Whatsapp, &addresses[1], at).await.unwrap();
        assert_eq!(scenario.contacts(&addresses[0]).await, scenario.contacts(&addresses[2]).await);
    }
}

#[tokio::test(start_paused = true)]
async fn nodes_that_meet_the_same_person_at_once_agree() {
    let scenario = Scenario::start().await;
    let at = scenario.now();
    for of in [address(N, ""), address(M, "DE.1")] {
        let identities = [(); 4].map(|()| Identity::new(scenario.ports()));
        let met = futures::future::join_all(identities.iter().map(|identity| {
            let (tenant, of) = (acme().id, of.clone());
            async move { identity.meet(&tenant, ChannelKind::Whatsapp, &of, at).await.unwrap() }
        }));
        let met = met.await;
        assert!(met.iter().all(|person| person == &met[0] && person.also.is_empty()), "{met:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_step_of_a_merge_is_completed_by_the_redelivery() {
    for steps in 0..24 {
        let mut scenario = Scenario::start().await;
        scenario.says(&address(N, ""), "one").await;
        scenario.says(&address("", "DE.1"), "STOP").await;
        let at = scenario.now();
        let both = message::said("1", address(N, "DE.1"), "both-1", "both", at);
        scenario.site.die_after(steps);
        let reception = scenario.site.with(|node| node.system.reception.clone());
        let (tenant, first) = (std::sync::Arc::new(acme()), both.clone());
        let accepting =
            tokio::spawn(async move { reception.accept(ChannelKind::Whatsapp, &tenant, vec![first]).await });
        let died = scenario.site.second().await;
        accepting.abort();
        scenario.site.receive(&acme(), both).await;
        for _ in 0..3 {
            scenario.site.second().await;
        }
        assert_eq!(scenario.standing(&address(N, "")).await, Standing::Stopped, "{steps} {died}");
        for of in [address(N, ""), address("", "DE.1")] {
            assert_eq!(scenario.texts(&of).await, ["STOP", "both", "one"], "{steps} {died}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn ids_that_an_answer_to_a_send_or_a_status_shows_together_are_one_persons() {
    let mut scenario = Scenario::start().await;
    scenario.says(&address(N, ""), "by number").await;
    let identity = Identity::new(scenario.ports());
    let (tenant, at) = (acme().id, scenario.now());
    // As an answer does: what was sent to, and what the channel knows the person by.
    let shown = [address(N, ""), address("", "DE.1")];
    identity.learn(&tenant, ChannelKind::Whatsapp, &shown, at).await.unwrap();
    assert_eq!(scenario.texts(&address("", "DE.1")).await, ["by number"]);
    // A status, as it comes by webhook.
    scenario.says(&address("", "DE.9"), "STOP").await;
    let contact = scenario.find(&address(N, "")).await.unwrap().contact;
    let turn = heddle_schemas::id::TurnId(heddle_schemas::id::MessageKey::from_bytes([1; 16]));
    let status = |recipient| {
        ChannelEvent::Status(ReceivedStatus {
            account: "1".parse().unwrap(),
            message_id: "wamid.1".into(),
            outbound: Some(OutboundId::of_turn(contact, turn, 0)),
            status: DeliveryStatus::Read,
            at,
            failure: None,
            pricing: None,
            recipient,
        })
    };
    scenario.site.receive(&acme(), status(address(M, "DE.9"))).await;
    assert_eq!(scenario.standing(&address(M, "")).await, Standing::Stopped);
    // Nobody is made by a status.
    scenario.site.receive(&acme(), status(address("4915700000009", "DE.8"))).await;
    assert_eq!(scenario.find(&address("", "DE.8")).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_number_leads_to_its_person_in_every_form() {
    for (dialled, known) in [
        ("5531988887777", "553188887777"),
        ("541123456789", "5491123456789"),
        ("525512345678", "5215512345678"),
    ] {
        let mut scenario = Scenario::start().await;
        scenario.says(&address(known, ""), "hello").await;
        assert_eq!(scenario.texts(&address(dialled, "")).await, ["hello"]);
        scenario.says(&address(dialled, ""), "STOP").await;
        assert_eq!(scenario.standing(&address(known, "")).await, Standing::Stopped);
        assert_eq!(scenario.texts(&address(known, "")).await, ["STOP", "hello"]);
    }
}

#[tokio::test(start_paused = true)]
async fn forms_of_a_number_that_lead_to_several_people_are_named() {
    let scenario = Scenario::start().await;
    let ports = scenario.ports();
    let cipher = ports.keys.tenant(&acme().id).await.unwrap();
    let contacts = [1, 2].map(|number| ContactId::from_bytes([number; 16]));
    // As an earlier build stored them: it knew one form of a number only.
    for (contact, phone) in contacts.iter().zip(["5531988887777", "553188887777"]) {
        let alias = cipher.hash("alias", format!("whatsapp/phone/{phone}").as_bytes());
        let (key, value) = (Key::alias(&acme().id, alias), contact.to_bytes().to_vec());
        ports.state.compare_and_set(&key, None, Some(value.into()), None).await.unwrap();
    }
    let identity = Identity::new(ports);
    let found = identity.find(&acme().id, ChannelKind::Whatsapp, &address("5531988887777", "")).await;
    let Err(IdentityError::Ambiguous(mut named)) = found else { panic!("{found:?}") };
    named.sort();
    assert_eq!(named, contacts);
}

#[tokio::test(start_paused = true)]
async fn an_erasure_takes_every_contact_of_the_person() {
    let mut scenario = Scenario::start().await;
    scenario.says(&address(N, ""), "by number").await;
    scenario.says(&address("", "DE.1"), "by id").await;
    let apart = scenario.contacts(&address(N, "")).await;
    let accounts = || acme().channels.into_iter().map(|channel| (channel.kind, channel.account));
    scenario.says(&address(N, "DE.1"), "both").await;
    let asked = erasure::ask(&scenario.ports(), &acme().id, accounts(), apart[0]).await.unwrap();
    assert_eq!(asked.contacts().count(), 2);
    for _ in 0..60 {
        scenario.site.second().await;
    }
    let erasure = erasure::find(&scenario.ports(), &acme().id, asked.id).await.unwrap().unwrap();
    assert!(erasure.is_complete(), "{erasure:?}");
    for of in [address(N, ""), address("", "DE.1")] {
        assert_eq!(scenario.texts(&of).await, [""; 0]);
    }
    scenario.says(&address(N, "DE.1"), "anew").await;
    assert_eq!(scenario.last_answer(), "[]");
}

#[tokio::test(start_paused = true)]
async fn a_split_person_is_found_by_the_verification() {
    let mut scenario = Scenario::start().await;
    scenario.says(&address(N, ""), "by number").await;
    scenario.says(&address("", "DE.1"), "STOP").await;
    scenario.says(&address(N, "DE.1"), "both").await;
    let prove = async |scenario: &Scenario| {
        let (ports, tenants) = scenario.site.with(|node| (node.ports.clone(), node.system.tenants.clone()));
        let keys = ports.keys.clone();
        let (oldest_record, marker_ttl) = (Duration::from_secs(864_000), Duration::from_secs(864_000));
        let prover = Prover { ports, keys, tenants, oldest_record, marker_ttl, records: 100 };
        let (proofs, _) = prover.prove(&std::sync::Arc::new(acme())).await.unwrap();
        let of_consent = proofs.proofs.into_iter().filter(|proof| proof.promise == Promise::Consent);
        of_consent.flat_map(|proof| proof.faults).collect::<Vec<_>>()
    };
    assert_eq!(prove(&scenario).await, [""; 0]);
    let person = scenario.find(&address(N, "")).await.unwrap();
    let (ports, key) = (scenario.ports(), Key::contact(&acme().id, person.also[0]));
    let stored = ports.state.get(&key).await.unwrap();
    ports.state.compare_and_set(&key, stored, None, None).await.unwrap();
    let faults = prove(&scenario).await;
    assert!(faults.len() == 1 && faults[0].contains(&person.also[0].to_string()), "{faults:?}");
}

#[tokio::test(start_paused = true)]
async fn a_late_message_of_before_a_notice_does_not_give_the_number_back() {
    let mut scenario = Scenario::start().await;
    let first = scenario.now();
    scenario.says(&address(N, "DE.1"), "hello").await;
    let left = scenario.now();
    scenario.renamed(&address(N, "DE.1"), &address(M, "DE.1"), left).await;
    let again = message::said("1", address(N, "DE.1"), "hello-1", "hello", first);
    scenario.site.receive(&acme(), again).await;
    assert_eq!(scenario.find(&address(N, "")).await, None);
    scenario.says(&address(N, ""), "somebody else").await;
    assert_eq!(scenario.texts(&address(N, "")).await, ["somebody else"]);
}

#[tokio::test(start_paused = true)]
async fn a_user_id_that_is_shown_after_a_notice_still_tells_the_next_owner_of_the_number_apart() {
    let mut scenario = Scenario::start().await;
    scenario.says(&address(N, "DE.1"), "hello").await;
    let left = scenario.now();
    // The notice names the number alone; a channel may give out another user id with it, and need not.
    scenario.renamed(&address(N, ""), &address(M, ""), left).await;
    scenario.says(&address(M, "DE.1"), "it is me").await;
    scenario.says(&address(M, "DE.2"), "somebody else").await;
    let (first, next) =
        (scenario.find(&address("", "DE.1")).await, scenario.find(&address("", "DE.2")).await);
    assert!(first.is_some() && next.is_some() && first != next, "{first:?} {next:?}");
    assert_eq!(scenario.texts(&address(M, "")).await, ["somebody else"]);
}
