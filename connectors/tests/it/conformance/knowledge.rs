//! Contract of every store of documents.

use heddle_schemas::id::TenantId;
use heddle_schemas::ports::knowledge::{Document, DocumentFormat, Knowledge, KnowledgeError};

macro_rules! promises_of_knowledge {
    ($given:expr) => {
        crate::conformance::promises!(
            knowledge,
            &$given,
            [
                a_document_is_found_once_it_is_put,
                the_best_passage_comes_first_within_the_limit,
                nothing_is_found_where_nothing_matches,
                any_text_is_a_query,
                a_document_of_the_same_id_replaces,
                a_removed_document_is_found_no_more,
                removing_an_unknown_document_is_reported,
                documents_are_listed_by_id,
                tenants_see_only_their_own,
                erasing_takes_all_of_one_tenant,
                an_id_out_of_bounds_is_refused,
            ]
        );
    };
}
pub(crate) use promises_of_knowledge as promises;

fn acme() -> TenantId {
    "acme".parse().unwrap()
}

fn document(id: &str, text: &str) -> Document {
    Document {
        id: id.into(),
        title: format!("Title of {id}"),
        format: DocumentFormat::Text,
        text: text.into(),
    }
}

const HOURS: &str = "We are open from nine to five on weekdays.";
const PARKING: &str = "Parking is free behind the clinic.";

async fn found(knowledge: &dyn Knowledge, tenant: &TenantId, query: &str) -> Vec<String> {
    let passages = knowledge.search(tenant, query, 10).await.unwrap();
    assert!(passages.iter().all(|passage| passage.score > 0.0));
    assert!(passages.is_sorted_by(|a, b| a.score >= b.score), "{passages:?}");
    passages.into_iter().map(|passage| passage.document).collect()
}

async fn put(knowledge: &dyn Knowledge, id: &str, text: &str) {
    knowledge.put(&acme(), document(id, text)).await.unwrap();
}

pub(crate) async fn a_document_is_found_once_it_is_put(knowledge: &dyn Knowledge) {
    let summary = knowledge.put(&acme(), document("hours", HOURS)).await.unwrap();
    assert_eq!((summary.id.as_str(), summary.title.as_str()), ("hours", "Title of hours"));
    assert_eq!((summary.bytes, summary.passages), (42, 1));
    let passages = knowledge.search(&acme(), "when are you open?", 3).await.unwrap();
    assert_eq!(passages.len(), 1);
    let passage = &passages[0];
    assert_eq!((passage.document.as_str(), passage.title.as_str()), ("hours", "Title of hours"));
    assert_eq!(passage.text, HOURS);
}

pub(crate) async fn the_best_passage_comes_first_within_the_limit(knowledge: &dyn Knowledge) {
    put(knowledge, "a", "The clinic has a garden.").await;
    put(knowledge, "b", PARKING).await;
    put(knowledge, "c", "The clinic has a roof.").await;
    assert_eq!(found(knowledge, &acme(), "free parking clinic").await[0], "b");
    assert_eq!(found(knowledge, &acme(), "clinic").await.len(), 3);
    assert_eq!(knowledge.search(&acme(), "clinic", 2).await.unwrap().len(), 2);
    assert_eq!(knowledge.search(&acme(), "clinic", 0).await.unwrap(), []);
}

pub(crate) async fn nothing_is_found_where_nothing_matches(knowledge: &dyn Knowledge) {
    assert_eq!(found(knowledge, &acme(), "parking").await, [""; 0]);
    put(knowledge, "hours", HOURS).await;
    assert_eq!(found(knowledge, &acme(), "zebra").await, [""; 0]);
}

pub(crate) async fn any_text_is_a_query(knowledge: &dyn Knowledge) {
    put(knowledge, "parking", PARKING).await;
    let odd = [
        "",
        " ",
        "\"",
        "AND",
        "(",
        "parking AND (",
        "text:parking",
        "-parking",
        "*",
        "a^9",
        "\u{0}",
        "🙂",
        "?!",
    ];
    for query in odd {
        knowledge.search(&acme(), query, 3).await.unwrap();
    }
    assert_eq!(found(knowledge, &acme(), "parking? (\"where\") AND how: 🙂").await, ["parking"]);
    let long = "parking ".repeat(20_000);
    assert_eq!(found(knowledge, &acme(), &long).await, ["parking"]);
}

pub(crate) async fn a_document_of_the_same_id_replaces(knowledge: &dyn Knowledge) {
    put(knowledge, "info", HOURS).await;
    put(knowledge, "info", PARKING).await;
    assert_eq!(found(knowledge, &acme(), "open weekdays").await, [""; 0]);
    assert_eq!(found(knowledge, &acme(), "parking").await, ["info"]);
    assert_eq!(knowledge.list(&acme()).await.unwrap().len(), 1);
}

pub(crate) async fn a_removed_document_is_found_no_more(knowledge: &dyn Knowledge) {
    put(knowledge, "hours", HOURS).await;
    put(knowledge, "parking", PARKING).await;
    knowledge.remove(&acme(), "hours").await.unwrap();
    assert_eq!(found(knowledge, &acme(), "open weekdays").await, [""; 0]);
    assert_eq!(found(knowledge, &acme(), "parking").await, ["parking"]);
    assert_eq!(knowledge.list(&acme()).await.unwrap().len(), 1);
}

pub(crate) async fn removing_an_unknown_document_is_reported(knowledge: &dyn Knowledge) {
    let removed = knowledge.remove(&acme(), "nothing").await;
    assert!(matches!(removed, Err(KnowledgeError::Unknown { document }) if document == "nothing"));
}

pub(crate) async fn documents_are_listed_by_id(knowledge: &dyn Knowledge) {
    assert_eq!(knowledge.list(&acme()).await.unwrap(), []);
    for id in ["b", "a", "c"] {
        put(knowledge, id, HOURS).await;
    }
    let ids: Vec<_> = knowledge.list(&acme()).await.unwrap().into_iter().map(|summary| summary.id).collect();
    assert_eq!(ids, ["a", "b", "c"]);
}

pub(crate) async fn tenants_see_only_their_own(knowledge: &dyn Knowledge) {
    let globex = "globex".parse().unwrap();
    put(knowledge, "parking", PARKING).await;
    assert_eq!(found(knowledge, &globex, "parking").await, [""; 0]);
    assert_eq!(knowledge.list(&globex).await.unwrap(), []);
    assert!(knowledge.remove(&globex, "parking").await.is_err());
    assert_eq!(found(knowledge, &acme(), "parking").await, ["parking"]);
}

pub(crate) async fn erasing_takes_all_of_one_tenant(knowledge: &dyn Knowledge) {
    let globex = "globex".parse().unwrap();
    put(knowledge, "parking", PARKING).await;
    knowledge.put(&globex, document("parking", PARKING)).await.unwrap();
    knowledge.erase(&acme()).await.unwrap();
    knowledge.erase(&acme()).await.unwrap();
    assert_eq!(found(knowledge, &acme(), "parking").await, [""; 0]);
    assert_eq!(knowledge.list(&acme()).await.unwrap(), []);
    assert_eq!(found(knowledge, &globex, "parking").await, ["parking"]);
}

pub(crate) async fn an_id_out_of_bounds_is_refused(knowledge: &dyn Knowledge) {
    for id in [String::new(), "x".repeat(513)] {
        let refused = knowledge.put(&acme(), document(&id, HOURS)).await;
        assert!(matches!(refused, Err(KnowledgeError::Refused { .. })), "{refused:?}");
    }
    put(knowledge, &"x".repeat(512), HOURS).await;
}
