//! The index of one tenant's passages, in memory.
//!
//! A passage is one document of Tantivy's. Its text, its headings and its document's title are each
//! indexed twice: by their words, which serves every language, and by the English stems of these. A
//! query is the sum of BM25 over all of its words and fields; titles and headings weigh more than the
//! text, words more than stems. Equal scores are ordered by document and place.
//!
//! Nothing of Tantivy's runs between calls: a writer lives for one change, and its memory with it.

use std::cmp::Ordering;
use std::sync::{LazyLock, Mutex, PoisonError};

use heddle_schemas::ports::knowledge::Passage;
use tantivy::collector::sort_key::{NaturalComparator, SortByStaticFastValue, SortByString};
use tantivy::collector::{SegmentSortKeyComputer, SortKeyComputer, TopDocs};
use tantivy::directory::RamDirectory;
use tantivy::indexer::IndexWriterOptions;
use tantivy::merge_policy::LogMergePolicy;
use tantivy::query::{BooleanQuery, BoostQuery, Occur, Query, TermQuery};
use tantivy::schema::{
    FAST, Field, IndexRecordOption, STORED, STRING, Schema, TextFieldIndexing, TextOptions, Value,
};
use tantivy::tokenizer::TokenizerManager;
use tantivy::{
    DocId, IndexReader, IndexSettings, IndexWriter, Order, ReloadPolicy, Score, SegmentReader,
    TantivyDocument, TantivyError, Term,
};

use super::passages::Cut;
use crate::words::{content_words, folding, stemming};

/// Different words of a query that are searched for; a question has few, and each costs time.
const QUERY_WORDS: usize = 64;
/// Bytes of a query that are read: more than any channel's longest message.
const QUERY_BYTES: usize = 64 << 10;

/// Share of removed passages from which on a part of the index is written anew without them.
const REMOVED_AT_MOST: f32 = 0.2;

/// Memory that an index takes beyond its files: readers, dictionaries' heads, bookkeeping.
const OVERHEAD: usize = 64 << 10;

/// A document, cut.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) id: String,
    pub(super) title: String,
    pub(super) cuts: Vec<Cut>,
}

/// What changes.
#[derive(Debug)]
pub(super) enum Change {
    Put(Prepared),
    Remove(String),
}

/// A field that is indexed by words and by stems, and how much it weighs.
struct Searched {
    words: Field,
    stems: Field,
    boost: Score,
}

struct Fields {
    schema: Schema,
    document: Field,
    place: Field,
    title: Searched,
    headings: Searched,
    text: Searched,
}

static FIELDS: LazyLock<Fields> = LazyLock::new(|| {
    let mut schema = Schema::builder();
    let indexed = |tokenizer| {
        let indexing = TextFieldIndexing::default().set_tokenizer(tokenizer);
        TextOptions::default().set_indexing_options(indexing.set_index_option(IndexRecordOption::WithFreqs))
    };
    let mut searched = |name: &str, boost| Searched {
        words: schema.add_text_field(name, indexed("words").set_stored()),
        stems: schema.add_text_field(&format!("{name} stems"), indexed("stems")),
        boost,
    };
    let (title, headings, text) = (searched("title", 1.5), searched("headings", 2.0), searched("text", 1.0));
    let document = schema.add_text_field(DOCUMENT, (STRING | STORED).set_fast("raw"));
    let place = schema.add_u64_field(PLACE, FAST);
    Fields { document, place, title, headings, text, schema: schema.build() }
});

const DOCUMENT: &str = "document";
const PLACE: &str = "place";

/// How much a stem weighs beside the word itself.
const STEM: Score = 0.6;

/// The index.
pub(super) struct Index {
    index: tantivy::Index,
    reader: IndexReader,
    directory: RamDirectory,
    changing: Mutex<()>,
}

impl Index {
    /// An index of these documents, each with another id.
    pub(super) fn build(documents: &[Prepared]) -> Result<Self, TantivyError> {
        let directory = RamDirectory::create();
        let settings = IndexSettings::default();
        let mut index = tantivy::Index::create(directory.clone(), FIELDS.schema.clone(), settings)?;
        let tokenizers = TokenizerManager::default();
        tokenizers.register("words", folding());
        tokenizers.register("stems", stemming());
        index.set_tokenizers(tokenizers);
        if !documents.is_empty() {
            write(&index, |writer| documents.iter().try_for_each(|document| add(writer, document)))?;
        }
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual);
        let reader = reader.doc_store_cache_num_blocks(4).try_into()?;
        Ok(Self { index, reader, directory, changing: Mutex::default() })
    }

    /// Makes a change, seen by searches that start after.
    pub(super) fn apply(&self, change: &Change) -> Result<(), TantivyError> {
        // An index has one writer at a time.
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        write(&self.index, |writer| {
            let (Change::Put(Prepared { id, .. }) | Change::Remove(id)) = change;
            writer.delete_term(Term::from_field_text(FIELDS.document, id));
            if let Change::Put(document) = change { add(writer, document) } else { Ok(()) }
        })?;
        self.reader.reload()
    }

    /// The passages that match best.
    pub(super) fn search(&self, query: &str, limit: usize) -> Result<Vec<Passage>, TantivyError> {
        let searcher = self.reader.searcher();
        let limit = limit.min(usize::try_from(searcher.num_docs()).unwrap_or(usize::MAX));
        let Some(query) = (limit > 0).then(|| parsed(query)).flatten() else { return Ok(Vec::new()) };
        let place = SortByStaticFastValue::<u64>::for_field(PLACE);
        let order = (Ranked, (SortByString::for_field(DOCUMENT), Order::Asc), (place, Order::Asc));
        let found = searcher.search(&query, &TopDocs::with_limit(limit).order_by(order))?;
        found.into_iter().map(|((score, ..), at)| Ok(passage(&searcher.doc(at)?, score.0))).collect()
    }

    /// Memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.directory.total_mem_usage() + OVERHEAD
    }

    /// Passages in it.
    pub(super) fn passages(&self) -> u64 {
        self.reader.searcher().num_docs()
    }
}

fn write(
    index: &tantivy::Index,
    change: impl FnOnce(&IndexWriter) -> Result<(), TantivyError>,
) -> Result<(), TantivyError> {
    let options = IndexWriterOptions::builder().num_worker_threads(1).num_merge_threads(1).build();
    let mut writer = index.writer_with_options(options)?;
    let mut policy = LogMergePolicy::default();
    policy.set_del_docs_ratio_before_merge(REMOVED_AT_MOST);
    writer.set_merge_policy(Box::new(policy));
    change(&writer)?;
    writer.commit()?;
    writer.wait_merging_threads()
}

fn add(writer: &IndexWriter, document: &Prepared) -> Result<(), TantivyError> {
    let Fields { title, headings, text, .. } = &*FIELDS;
    for (place, cut) in (0_u64..).zip(&document.cuts) {
        let mut passage = TantivyDocument::new();
        passage.add_text(FIELDS.document, &document.id);
        passage.add_u64(FIELDS.place, place);
        let mut searched = |field: &Searched, value: &str| {
            passage.add_text(field.words, value);
            passage.add_text(field.stems, value);
        };
        searched(title, &document.title);
        cut.headings.iter().for_each(|heading| searched(headings, heading));
        searched(text, &cut.text);
        writer.add_document(passage)?;
    }
    Ok(())
}

/// The query of a text; `None` when it has no word.
fn parsed(text: &str) -> Option<BooleanQuery> {
    let text = &text[..text.floor_char_boundary(QUERY_BYTES)];
    let words = content_words(text, QUERY_WORDS);
    let Fields { title, headings, text, .. } = &*FIELDS;
    let term = |field, word: &str, boost| -> (Occur, Box<dyn Query>) {
        let term = TermQuery::new(Term::from_field_text(field, word), IndexRecordOption::WithFreqs);
        (Occur::Should, Box::new(BoostQuery::new(Box::new(term), boost)))
    };
    let mut terms = Vec::with_capacity(words.len() * 6);
    for field in [title, headings, text] {
        terms.extend(words.iter().map(|word| term(field.words, &word.folded, field.boost)));
        // Words of one stem are one to the stems.
        let mut stems: Vec<_> = words.iter().map(|word| word.stem.as_str()).collect();
        stems.sort_unstable();
        stems.dedup();
        terms.extend(stems.into_iter().map(|stem| term(field.stems, stem, field.boost * STEM)));
    }
    (!terms.is_empty()).then(|| BooleanQuery::new(terms))
}

fn passage(found: &TantivyDocument, score: Score) -> Passage {
    let all = |field| found.get_all(field).filter_map(|value| Some(value.as_str()?.to_owned()));
    let first = |field| all(field).next().unwrap_or_default();
    let Fields { document, title, headings, text, .. } = &*FIELDS;
    Passage {
        document: first(*document),
        title: first(title.words),
        headings: all(headings.words).collect(),
        text: first(text.words),
        score,
    }
}

/// Sorts by score, as far as it is exact.
///
/// A score is a sum whose order Tantivy changes on the way, so passages that match alike may differ in
/// the last bits of it. Without these they are equal, and the next keys decide.
struct Ranked;

/// A score without its inexact bits.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Rounded(Score);

impl Rounded {
    fn new(score: Score) -> Self {
        Self(Score::from_bits(score.to_bits() & !0xff))
    }
}

impl PartialOrd for Rounded {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.0.partial_cmp(&other.0)
    }
}

impl SortKeyComputer for Ranked {
    type SortKey = Rounded;
    type Child = Ranked;
    type Comparator = NaturalComparator;

    fn requires_scoring(&self) -> bool {
        true
    }

    fn segment_sort_key_computer(&self, _: &SegmentReader) -> Result<Self, TantivyError> {
        Ok(Self)
    }
}

impl SegmentSortKeyComputer for Ranked {
    type SortKey = Rounded;
    type SegmentSortKey = Rounded;
    type SegmentComparator = NaturalComparator;

    fn segment_sort_key(&mut self, _: DocId, score: Score) -> Rounded {
        Rounded::new(score)
    }

    fn convert_segment_sort_key(&self, key: Rounded) -> Rounded {
        key
    }
}
