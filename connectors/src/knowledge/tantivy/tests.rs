//! Cases beyond the port's suite: sealing, restarts, other nodes, closing, failing, ties, load.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::ports::keys::KeysError;
use heddle_schemas::ports::knowledge::DocumentFormat;
use heddle_schemas::time::Timestamp;

use super::*;
use crate::keys::{self, EnvelopeKeys, MasterKey};
use heddle_memory::{self as memory, Fault, ManualClock, MemoryDisk, MemoryStore, Operation, Outcome};

const HOURS: &str = "We are open on weekdays from nine to five.";

/// A store that survives, and the nodes that open it.
struct Fixture {
    disk: Arc<MemoryDisk>,
    clock: Arc<ManualClock>,
}

/// One node's part of it.
struct Node {
    state: Arc<MemoryStore>,
    keys: Arc<EnvelopeKeys>,
    knowledge: TantivyKnowledge,
}

impl Fixture {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::starting_at(Timestamp::from_secs(1_767_225_600)));
        Self { disk: MemoryDisk::new(NonZeroU32::MIN), clock }
    }

    fn node(&self, options: &Options) -> Node {
        self.node_with(options, |_| Fault::NONE)
    }

    fn node_with(
        &self,
        options: &Options,
        faults: impl Fn(Operation) -> Fault + Send + Sync + 'static,
    ) -> Node {
        let faults = memory::Options { faults: Arc::new(faults), ..memory::Options::default() };
        let state = Arc::new(MemoryStore::open_with(self.disk.clone(), self.clock.clone(), faults));
        let keys = self.keys(&state);
        let knowledge = TantivyKnowledge::new(state.clone(), keys.clone(), options);
        Node { state, keys, knowledge }
    }

    fn keys(&self, state: &Arc<MemoryStore>) -> Arc<EnvelopeKeys> {
        let master = MasterKey::from_base64("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
        let options = keys::Options::default();
        Arc::new(EnvelopeKeys::new(state.clone(), self.clock.clone(), &master, options))
    }
}

fn node() -> Node {
    Fixture::new().node(&Options::default())
}

fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

fn document(id: &str, text: &str) -> Document {
    Document { id: id.into(), title: "Title".into(), format: DocumentFormat::Markdown, text: text.into() }
}

impl Node {
    async fn put(&self, name: &str, id: &str, text: &str) {
        self.knowledge.put(&tenant(name), document(id, text)).await.unwrap();
    }

    async fn found(&self, name: &str, query: &str) -> Vec<String> {
        let passages = self.knowledge.search(&tenant(name), query, 10).await.unwrap();
        passages.into_iter().map(|passage| passage.document).collect()
    }
}

#[tokio::test]
async fn stored_rows_do_not_show_a_text_and_open_nowhere_else() {
    let fixture = Fixture::new();
    let node = fixture.node(&Options::default());
    node.put("acme", "hours", HOURS).await;
    let rows = fixture.disk.rows(fixture.clock.now());
    let shows = |plaintext: &str| {
        rows.iter()
            .any(|(_, value)| value.windows(plaintext.len()).any(|bytes| bytes == plaintext.as_bytes()))
    };
    assert!(!shows("weekdays") && !shows("Title") && !shows("passages"));
    let key = heddle_schemas::table::Key::document(&tenant("acme"), "hours");
    let (_, sealed) = rows.iter().find(|(row, _)| *row == key).expect("the document's row");
    let elsewhere = heddle_schemas::table::Key::document(&tenant("acme"), "other");
    let moved = heddle_schemas::ports::state::Write::put(elsewhere, sealed.clone());
    let batch = heddle_schemas::ports::state::Batch { writes: vec![moved], ..Default::default() };
    node.state.commit(batch).await.unwrap();
    let listed = node.knowledge.list(&tenant("acme")).await;
    assert!(matches!(listed, Err(KnowledgeError::Keys(KeysError::Unreadable { .. }))), "{listed:?}");
}

#[tokio::test]
async fn documents_are_found_after_a_restart() {
    let fixture = Fixture::new();
    let before = fixture.node(&Options::default());
    // More than one page.
    for n in 0..40 {
        before.put("acme", &format!("d{n:02}"), &format!("# Room {n}\n\nIt has the number {n}.")).await;
    }
    before.knowledge.remove(&tenant("acme"), "d07").await.unwrap();
    let after = fixture.node(&Options::default());
    assert_eq!(after.found("acme", "room 39").await[0], "d39");
    assert!(!after.found("acme", "7").await.contains(&"d07".to_owned()));
    let listed = after.knowledge.list(&tenant("acme")).await.unwrap();
    assert_eq!(listed.len(), 39);
    assert!(listed.iter().all(|summary| summary.passages == 1) && listed.is_sorted_by_key(|s| s.id.clone()));
}

#[tokio::test]
async fn a_change_made_elsewhere_is_seen() {
    let fixture = Fixture::new();
    let here = fixture.node(&Options::default());
    let elsewhere = TantivyKnowledge::new(here.state.clone(), here.keys.clone(), &Options::default());
    here.put("acme", "hours", HOURS).await;
    assert_eq!(here.found("acme", "weekdays").await, ["hours"]);
    elsewhere.put(&tenant("acme"), document("more", "Weekdays are busy.")).await.unwrap();
    assert_eq!(here.found("acme", "weekdays").await.len(), 2);
    here.put("acme", "third", "On weekdays, knock.").await;
    assert_eq!(elsewhere.search(&tenant("acme"), "weekdays", 9).await.unwrap().len(), 3);
    elsewhere.remove(&tenant("acme"), "hours").await.unwrap();
    assert_eq!(here.found("acme", "nine").await, [""; 0]);
    elsewhere.erase(&tenant("acme")).await.unwrap();
    assert_eq!(here.found("acme", "weekdays").await, [""; 0]);
    here.put("acme", "hours", HOURS).await;
    assert_eq!(elsewhere.search(&tenant("acme"), "weekdays", 9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_erased_key_ends_searches_at_once() {
    let node = node();
    node.put("acme", "hours", HOURS).await;
    assert_eq!(node.found("acme", "weekdays").await, ["hours"]);
    node.keys.erase_tenant(&tenant("acme")).await.unwrap();
    let found = node.knowledge.search(&tenant("acme"), "weekdays", 9).await;
    assert!(matches!(found, Err(KnowledgeError::Keys(KeysError::Gone { .. }))), "{found:?}");
    assert_eq!(node.knowledge.open_indexes(), 0);
    node.knowledge.erase(&tenant("acme")).await.unwrap();
    assert_eq!(node.found("acme", "weekdays").await, [""; 0]);
}

#[tokio::test]
async fn erasing_leaves_no_row() {
    let fixture = Fixture::new();
    let node = fixture.node(&Options::default());
    for n in 0..40 {
        node.put("acme", &format!("d{n}"), HOURS).await;
    }
    node.put("globex", "hours", HOURS).await;
    node.found("acme", "weekdays").await;
    node.knowledge.erase(&tenant("acme")).await.unwrap();
    assert_eq!(node.knowledge.open_indexes(), 0);
    let partition = heddle_schemas::table::Partition::documents(&tenant("acme"));
    let rows = fixture.disk.rows(fixture.clock.now());
    assert!(rows.iter().all(|(key, _)| key.partition() != partition));
    assert_eq!(node.found("globex", "weekdays").await, ["hours"]);
}

#[tokio::test]
async fn searching_a_tenant_without_documents_writes_nothing() {
    let fixture = Fixture::new();
    let node = fixture.node(&Options::default());
    assert_eq!(node.found("acme", "weekdays").await, [""; 0]);
    assert_eq!(node.knowledge.list(&tenant("acme")).await.unwrap(), []);
    assert_eq!(fixture.disk.rows(fixture.clock.now()), []);
}

#[tokio::test]
async fn indexes_used_least_close_and_open_again() {
    let by_number = Options { open_indexes: NonZeroUsize::new(2).unwrap(), ..Options::default() };
    let by_bytes = Options { open_bytes: 1, ..Options::default() };
    for (options, most) in [(by_number, 2), (by_bytes, 1)] {
        let node = Fixture::new().node(&options);
        for n in 0..5 {
            node.put(&format!("t{n}"), &format!("d{n}"), HOURS).await;
        }
        for _ in 0..2 {
            for n in 0..5 {
                assert_eq!(node.found(&format!("t{n}"), "weekdays").await, [format!("d{n}")]);
                assert!(node.knowledge.open_indexes() <= most);
            }
        }
        assert_eq!(node.knowledge.open_indexes(), most);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn searches_that_come_while_an_index_loads_wait_for_one_load() {
    let fixture = Fixture::new();
    fixture.node(&Options::default()).put("acme", "hours", HOURS).await;
    let scans = Arc::new(AtomicUsize::new(0));
    let counted = scans.clone();
    let node = fixture.node_with(&Options::default(), move |operation| {
        if operation == Operation::Scan {
            counted.fetch_add(1, Ordering::SeqCst);
            return Fault::delay(Duration::from_millis(50));
        }
        Fault::NONE
    });
    let found = join_all((0..64).map(|_| node.found("acme", "weekdays"))).await;
    assert!(found.iter().all(|found| *found == ["hours"]));
    // The page, and the empty one after it.
    assert_eq!(scans.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_holds_up_no_other_tenant() {
    let fixture = Fixture::new();
    let stuck = Arc::new(AtomicBool::new(false));
    let is_stuck = stuck.clone();
    let node = fixture.node_with(&Options::default(), move |operation| {
        let stuck = operation == Operation::Scan && is_stuck.load(Ordering::SeqCst);
        Fault::delay(Duration::from_secs(if stuck { 3_600 } else { 0 }))
    });
    node.put("acme", "a", HOURS).await;
    node.put("globex", "b", HOURS).await;
    assert_eq!(node.found("globex", "weekdays").await, ["b"]);
    stuck.store(true, Ordering::SeqCst);
    let node = Arc::new(node);
    let loading = tokio::spawn({
        let node = node.clone();
        async move { node.found("acme", "weekdays").await }
    });
    while node.knowledge.open_indexes() < 2 {
        tokio::task::yield_now().await;
    }
    let limit = Duration::from_secs(60);
    let found = tokio::time::timeout(limit, node.found("globex", "weekdays")).await;
    assert_eq!(found.unwrap(), ["b"]);
    // A cancelled load is left to the next caller.
    loading.abort();
    stuck.store(false, Ordering::SeqCst);
    assert_eq!(tokio::time::timeout(limit, node.found("acme", "weekdays")).await.unwrap(), ["a"]);
}

#[tokio::test]
async fn a_load_that_failed_is_tried_again_and_leaves_nothing_open() {
    let failing = Arc::new(AtomicBool::new(false));
    let fails = failing.clone();
    let node = Fixture::new().node_with(&Options::default(), move |operation| {
        let fails = operation == Operation::Scan && fails.load(Ordering::SeqCst);
        Fault::outcome(if fails { Outcome::FailsBefore } else { Outcome::Works })
    });
    node.put("acme", "hours", HOURS).await;
    failing.store(true, Ordering::SeqCst);
    let found = node.knowledge.search(&tenant("acme"), "weekdays", 9).await;
    assert!(matches!(found, Err(KnowledgeError::Store(_))), "{found:?}");
    assert_eq!(node.knowledge.open_indexes(), 0);
    failing.store(false, Ordering::SeqCst);
    assert_eq!(node.found("acme", "weekdays").await, ["hours"]);
}

#[tokio::test]
async fn a_change_that_fails_half_way_is_not_hidden() {
    for outcome in [Outcome::FailsBefore, Outcome::FailsAfter] {
        let failing = Arc::new(AtomicBool::new(false));
        let fails = failing.clone();
        let node = Fixture::new().node_with(&Options::default(), move |operation| {
            let fails = operation == Operation::CompareAndSet && fails.load(Ordering::SeqCst);
            Fault::outcome(if fails { outcome } else { Outcome::Works })
        });
        node.put("acme", "hours", HOURS).await;
        assert_eq!(node.found("acme", "weekdays").await, ["hours"]);
        failing.store(true, Ordering::SeqCst);
        node.knowledge.put(&tenant("acme"), document("b", "Busy weekdays.")).await.unwrap_err();
        failing.store(false, Ordering::SeqCst);
        assert_eq!(node.found("acme", "weekdays").await.len(), 2);
        node.put("acme", "b", "Busy.").await;
        assert_eq!(node.found("acme", "weekdays").await, ["hours"]);
    }
}

#[tokio::test]
async fn a_change_cancelled_half_way_is_not_hidden() {
    let slow = Arc::new(AtomicBool::new(false));
    let is_slow = slow.clone();
    let node = Fixture::new().node_with(&Options::default(), move |operation| {
        let slow = operation == Operation::CompareAndSet && is_slow.load(Ordering::SeqCst);
        Fault::delay(Duration::from_secs(if slow { 3_600 } else { 0 }))
    });
    node.put("acme", "hours", HOURS).await;
    assert_eq!(node.found("acme", "weekdays").await, ["hours"]);
    slow.store(true, Ordering::SeqCst);
    let acme = tenant("acme");
    let remove = node.knowledge.remove(&acme, "hours");
    tokio::time::timeout(Duration::from_millis(300), remove).await.unwrap_err();
    assert_eq!(node.found("acme", "weekdays").await, [""; 0]);
}

#[tokio::test]
async fn a_changed_open_index_finds_the_same_as_a_new_one() {
    let fixture = Fixture::new();
    let node = fixture.node(&Options::default());
    for round in 0..3 {
        for n in 0..12 {
            let text =
                format!("# Room {n}\n\nIt was painted {round} times.\n\n# Garden {n}\n\nIt has {n} trees.");
            node.put("acme", &format!("d{n:02}"), &text).await;
            assert_eq!(node.found("acme", &format!("garden {n}")).await[0], format!("d{n:02}"));
        }
        node.knowledge.remove(&tenant("acme"), &format!("d{round:02}")).await.unwrap();
    }
    let queries = ["room", "painted", "trees", "garden room trees", "2 times"];
    let mut open = Vec::new();
    for query in queries {
        open.push(node.found("acme", query).await);
    }
    let fresh = fixture.node(&Options::default());
    for (query, open) in queries.iter().zip(open) {
        assert_eq!(fresh.found("acme", query).await, open, "{query}");
    }
}

#[tokio::test]
async fn equal_passages_are_ordered_by_document_and_place() {
    let node = node();
    // Each paragraph has a word of its own, so that no two are equal.
    let text = |id: &str| {
        let paragraph =
            |n: u8| format!("{} Garden {id}{n} has old trees.", "It is a large house. ".repeat(5));
        format!("{}\n\n{}\n\n{}", paragraph(0), paragraph(1), paragraph(2))
    };
    for id in ["d", "b", "e"] {
        node.put("acme", id, &text(id)).await;
    }
    node.found("acme", "garden").await;
    for id in ["c", "a"] {
        node.put("acme", id, &text(id)).await;
    }
    let expected: Vec<_> = ["a", "b", "c", "d", "e"].iter().flat_map(|id| [*id; 3]).collect();
    let passages =
        node.knowledge.search(&tenant("acme"), "old garden trees house", usize::MAX).await.unwrap();
    assert_eq!(passages.iter().map(|passage| passage.document.as_str()).collect::<Vec<_>>(), expected);
    let first = node.knowledge.search(&tenant("acme"), "old garden trees house", 2).await.unwrap();
    assert_eq!(first.iter().map(|passage| passage.document.as_str()).collect::<Vec<_>>(), ["a", "a"]);
}

#[tokio::test]
async fn passages_are_found_by_headings_stems_and_without_accents() {
    let node = node();
    let text = "# Praxis\n\n## Öffnungszeiten\n\nMontag bis Freitag.\n\n## Parking\n\nBehind the café.";
    node.put("acme", "info", text).await;
    let search = async |query: &str| node.knowledge.search(&tenant("acme"), query, 1).await.unwrap();
    let found = &search("Wie sind eure OFFNUNGSZEITEN?").await[0];
    assert_eq!((found.text.as_str(), found.title.as_str()), ("Montag bis Freitag.", "Title"));
    assert_eq!(found.headings, ["Praxis", "Öffnungszeiten"]);
    assert!(found.score > 0.0);
    assert_eq!(search("Where can I park?").await[0].text, "Behind the café.");
    assert_eq!(search("cafe").await[0].text, "Behind the café.");
}

#[tokio::test]
async fn a_document_over_the_limits_is_refused_and_changes_nothing() {
    let node = node();
    let large = "a ".repeat((2 << 20) + 1);
    let many = "# a\n\nb\n\n".repeat(MAX_PASSAGES + 1);
    let refused = [
        (document("", HOURS), "0 bytes"),
        (document(&"x".repeat(513), HOURS), "513 bytes"),
        (document("a\0b", HOURS), "control character"),
        (document("nul", "a\0b"), "U+0000"),
        (document("empty", " \n"), "empty"),
        (document("headings", "# Only\n\n## Headings"), "no passage"),
        (document("large", &large), "4 MiB"),
        (document("many", &many), "more than 10000 passages"),
        (Document { title: "t".repeat(1025), ..document("title", HOURS) }, "title"),
    ];
    for (document, expected) in refused {
        match node.knowledge.put(&tenant("acme"), document).await {
            Err(KnowledgeError::Refused { why, .. }) => assert!(why.contains(expected), "{why}"),
            other => panic!("{expected}: {other:?}"),
        }
    }
    assert_eq!(node.knowledge.list(&tenant("acme")).await.unwrap(), []);
    // The row without an id is the version's.
    node.put("acme", "hours", HOURS).await;
    let removed = node.knowledge.remove(&tenant("acme"), "").await;
    assert!(matches!(removed, Err(KnowledgeError::Unknown { .. })));
    assert_eq!(node.found("acme", "weekdays").await, ["hours"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn searches_see_every_finished_change_while_others_are_made() {
    let node = node();
    node.put("acme", "d00", "Room d00 is free.").await;
    let changes = async {
        for n in 1..25 {
            let id = format!("d{n:02}");
            node.put("acme", &id, &format!("Room {id} is free.")).await;
            assert_eq!(node.found("acme", &id).await, std::slice::from_ref(&id), "right after it was put");
            if n % 5 == 0 {
                node.knowledge.remove(&tenant("acme"), &id).await.unwrap();
                assert_eq!(node.found("acme", &id).await, [""; 0], "right after it was removed");
            }
        }
    };
    let searches = join_all((0..64).map(|_| async {
        for _ in 0..5 {
            assert_eq!(node.found("acme", "d00").await, ["d00"]);
        }
    }));
    futures::join!(changes, searches);
    // At the same time, and of one document.
    let globex = tenant("globex");
    let puts = (0..16).map(|n| {
        let document = document(&format!("same{}", n % 4), &format!("Cellar {n}."));
        node.knowledge.put(&globex, document)
    });
    try_join_all(puts).await.unwrap();
    let passages = node.knowledge.search(&globex, "cellar", 99).await.unwrap();
    assert_eq!(passages.len(), 4);
    let (stored, _) =
        node.knowledge.rows.page(&globex, None, PAGE, |stored| stored.document.text).await.unwrap();
    assert!(passages.iter().all(|passage| stored.contains(&passage.text)), "{stored:?}");
}

#[tokio::test]
async fn word_forms_find_each_other_in_the_tenants_language() {
    let fixture = Fixture::new();
    let language = Arc::new(std::sync::Mutex::new(Language::English));
    let current = language.clone();
    let languages = Languages::new(move |_| *current.lock().unwrap());
    let node = fixture.node(&Options { languages, ..Options::default() });
    node.put("acme", "preise", "Die Kinder zahlen 60 Euro.").await;
    node.put("acme", "orari", "Gli studenti telefonano alla scuola.").await;
    let (german, italian) = ("Zahlt ein Kind auch?", "Devo telefonare?");
    assert_eq!(node.found("acme", german).await, [""; 0]);
    *language.lock().unwrap() = Language::German;
    assert_eq!(node.found("acme", german).await, ["preise"]);
    *language.lock().unwrap() = Language::Italian;
    assert_eq!(node.found("acme", italian).await, ["orari"]);
    *language.lock().unwrap() = Language::None;
    assert_eq!(node.found("acme", german).await, [""; 0]);
    assert_eq!(node.found("acme", "Euro").await, ["preise"]);
}

#[tokio::test]
async fn a_misspelt_word_finds_and_a_known_one_is_left_alone() {
    let node = node();
    node.put("acme", "parking", "Parking is free behind the clinic.").await;
    node.put("acme", "packing", "Packing takes an hour.").await;
    node.put("acme", "orders", "Order A12345 was sent, order A12346 was not.").await;
    assert_eq!(node.found("acme", "clinnic").await, ["parking"]);
    assert_eq!(node.found("acme", "cilnic").await, ["parking"], "two letters changed");
    assert_eq!(node.found("acme", "packing").await, ["packing"], "known, so not taken for parking");
    assert_eq!(node.found("acme", "A12344").await, [""; 0], "a number means what it says");
    assert_eq!(node.found("acme", "hxur").await, ["packing"]);
    assert_eq!(node.found("acme", "fre").await, [""; 0], "too short to guess");
    // A word of a removed document is known no more.
    node.knowledge.remove(&tenant("acme"), "packing").await.unwrap();
    assert_eq!(node.found("acme", "packing").await, ["parking"]);
}

#[tokio::test]
async fn passages_that_say_the_same_are_found_once() {
    let node = node();
    let footer = "## Contact\n\nCall us at 555 0100, on weekdays.";
    for n in 0..30 {
        node.put("acme", &format!("page{n:02}"), &format!("# Page {n}\n\nText {n}.\n\n{footer}")).await;
    }
    node.put("acme", "shop", "## Shop\n\nCall us at 555 0100 -- on WEEKDAYS!").await;
    node.put("acme", "faq", "## Do you deliver?\n\nYes, we do.\n\n## Do you gift-wrap?\n\nYes, we do.").await;
    assert_eq!(node.found("acme", "call weekdays").await.len(), 2, "the same under two headings is two");
    assert_eq!(node.found("acme", "yes we do").await, ["faq", "faq"]);
    let passages = node.knowledge.search(&tenant("acme"), "page call weekdays", 20).await.unwrap();
    assert_eq!(passages.len(), 20, "what is the same takes no place of others");
}

#[tokio::test]
async fn words_near_each_other_weigh_more() {
    let node = node();
    let far = "The opening is celebrated. There is music, food and wine for all, and we tell you the hours.";
    let near =
        "These are our opening hours. There is music, food and wine for all, and we celebrate you too.";
    node.put("acme", "a far", far).await;
    node.put("acme", "b near", near).await;
    assert_eq!(node.found("acme", "opening hours").await, ["b near", "a far"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_searchable_on_every_node_within_two_seconds_and_a_new_node_has_all() {
    let fixture = Fixture::new();
    let here = fixture.node(&Options::default());
    let elsewhere = TantivyKnowledge::new(here.state.clone(), here.keys.clone(), &Options::default());
    let found = async |word: &str| {
        let passages = elsewhere.search(&tenant("acme"), word, 3).await.unwrap();
        passages.into_iter().map(|passage| passage.document).collect::<Vec<_>>()
    };
    for n in 0..200 {
        here.put("acme", &format!("d{n}"), &format!("# Room {n}\n\nThe room has {n} chairs and a garden."))
            .await;
    }
    assert_eq!(found("room 7").await[0], "d7");
    for n in 0..3 {
        let word = ["zebra", "walrus", "ocelot"][n];
        here.put("acme", "new", &format!("A {word} lives here.")).await;
        let search = tokio::time::timeout(Duration::from_secs(2), found(word));
        assert_eq!(search.await.expect("within two seconds"), ["new"]);
    }
    assert_eq!(fixture.node(&Options::default()).found("acme", "ocelot").await, ["new"]);
}

#[tokio::test]
async fn documents_over_the_tenants_bound_are_refused_and_smaller_ones_replace_larger_ones() {
    let bound = |tenant: &TenantId| match tenant.as_str() {
        "small" => Bound { documents: 2, bytes: 100 },
        _ => Bound { documents: 1_000, bytes: 100_000 },
    };
    let options = Options { bounds: Bounds::new(bound), ..Options::default() };
    let fixture = Fixture::new();
    let node = fixture.node(&options);
    let refused = async |node: &Node, id: &str, text: &str| match node
        .knowledge
        .put(&tenant("small"), document(id, text))
        .await
    {
        Err(KnowledgeError::Refused { why, .. }) => why,
        other => panic!("{other:?}"),
    };
    node.put("small", "a", &"word ".repeat(10)).await;
    let why = refused(&node, "b", &"word ".repeat(11)).await;
    assert!(why.contains("105 bytes") && why.contains("knowledge.max_bytes"), "{why}");
    node.put("small", "b", &"word ".repeat(10)).await;
    // Another node finds the same in the store.
    let elsewhere = Node {
        state: node.state.clone(),
        keys: node.keys.clone(),
        knowledge: TantivyKnowledge::new(node.state.clone(), node.keys.clone(), &options),
    };
    for node in [&node, &elsewhere] {
        let why = refused(node, "c", "word").await;
        assert!(why.contains("2 documents, of 2"), "{why}");
        assert_eq!(node.knowledge.list(&tenant("small")).await.unwrap().len(), 2, "nothing was kept of it");
    }
    node.put("small", "b", "less").await;
    node.put("other", "c", &"word ".repeat(1_000)).await;
    node.knowledge.remove(&tenant("small"), "a").await.unwrap();
    node.put("small", "c", HOURS).await;
    // A bound that was lowered forbids growth alone.
    let lowered =
        Options { bounds: Bounds::new(|_| Bound { documents: 1, bytes: 10 }), ..Options::default() };
    let node = fixture.node(&lowered);
    node.put("small", "c", "open from nine").await;
    assert!(refused(&node, "c", HOURS).await.contains("knowledge.max_bytes"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_with_many_documents_holds_up_no_other_tenants_first_search() {
    let fixture = Fixture::new();
    let options = Options { loads: NonZeroUsize::MIN, slice: 1 << 10, ..Options::default() };
    let writing = fixture.node(&options);
    for number in 0..150 {
        writing.put("large", &number.to_string(), &format!("{HOURS} {number}\n\n").repeat(40)).await;
    }
    writing.put("small", "hours", HOURS).await;
    let node = fixture.node(&options);
    let done = std::sync::Mutex::new(Vec::new());
    let search = async |name: &'static str| {
        assert!(!node.found(name, "open").await.is_empty());
        done.lock().unwrap().push(name);
    };
    let small = async {
        // The other one's load is under way.
        while node.knowledge.open_indexes() == 0 {
            tokio::task::yield_now().await;
        }
        search("small").await;
    };
    tokio::join!(search("large"), small);
    assert_eq!(*done.lock().unwrap(), ["small", "large"]);
}
