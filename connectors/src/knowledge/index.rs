//! The index of one tenant's passages, in memory.
//!
//! A passage is one document of Tantivy's. Its title, headings and text are indexed together, in reading
//! order: by their words, which serves every language, and by the stems of these in the language of the
//! index. A query is the sum of BM25 over its words and stems. Words in the title or a heading weigh once
//! more, and so do two words of the query that stand near each other. A word that no passage has in any form is
//! treated as a typo: the most similar words that passages have stand in for it, see [`super::typos`]. Equal
//! scores are ordered by document and place; of passages with the same text under the same heading only the best
//! is found. The weights are measured, see `deploy/decisions/0007-documents.md`.
//!
//! Tantivy runs nothing between calls: a writer exists for one change, and its memory with it.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::sync::{LazyLock, Mutex, PoisonError};

use heddle_schemas::language::Language;
use heddle_schemas::ports::knowledge::Passage;
use sha2::{Digest, Sha256};
use tantivy::collector::sort_key::{NaturalComparator, SortByStaticFastValue, SortByString};
use tantivy::collector::{SegmentSortKeyComputer, SortKeyComputer, TopDocs};
use tantivy::directory::RamDirectory;
use tantivy::indexer::IndexWriterOptions;
use tantivy::merge_policy::LogMergePolicy;
use tantivy::query::{BooleanQuery, BoostQuery, Occur, PhraseQuery, Query, TermQuery};
use tantivy::schema::{
    FAST, Field, IndexRecordOption, STORED, STRING, Schema, TextFieldIndexing, TextOptions, Value,
};
use tantivy::tokenizer::{TokenStream, TokenizerManager};
use tantivy::{
    DocAddress, DocId, IndexReader, IndexSettings, IndexWriter, Order, ReloadPolicy, Score, Searcher,
    SegmentReader, TantivyDocument, TantivyError, Term,
};

use super::passages::Cut;
use super::typos;
use crate::words::{Word, content_words_in, folding, stemming, words_in};

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

impl Prepared {
    /// Bytes of its text.
    pub(super) fn bytes(&self) -> usize {
        self.cuts.iter().map(|cut| cut.text.len()).sum()
    }
}

/// Change of an index.
#[derive(Debug)]
pub(super) enum Change {
    Put(Prepared),
    Remove(String),
}

/// Fields in which a passage is stored and searched.
struct Fields {
    schema: Schema,
    document: Field,
    place: Field,
    fingerprint: Field,
    /// Only the displayed ones of these are stored.
    title: Field,
    headings: Field,
    text: Field,
    /// Title, headings and text together.
    words: Field,
    stems: Field,
    title_stems: Field,
    heading_stems: Field,
}

static FIELDS: LazyLock<Fields> = LazyLock::new(|| {
    let mut schema = Schema::builder();
    let indexed = |tokenizer, option| {
        let indexing = TextFieldIndexing::default().set_tokenizer(tokenizer);
        TextOptions::default().set_indexing_options(indexing.set_index_option(option))
    };
    Fields {
        document: schema.add_text_field(DOCUMENT, (STRING | STORED).set_fast("raw")),
        place: schema.add_u64_field(PLACE, FAST),
        fingerprint: schema.add_u64_field(FINGERPRINT, FAST),
        title: schema.add_text_field("title", STORED),
        headings: schema.add_text_field("headings", STORED),
        text: schema.add_text_field("text", STORED),
        words: schema.add_text_field("words", indexed("words", IndexRecordOption::WithFreqs)),
        stems: schema.add_text_field("stems", indexed("stems", IndexRecordOption::WithFreqsAndPositions)),
        title_stems: schema.add_text_field("title stems", indexed("stems", IndexRecordOption::WithFreqs)),
        heading_stems: schema.add_text_field("heading stems", indexed("stems", IndexRecordOption::WithFreqs)),
        schema: schema.build(),
    }
});

const DOCUMENT: &str = "document";
const PLACE: &str = "place";
const FINGERPRINT: &str = "fingerprint";

/// Weight of a word beside its stem.
const WORD: Score = 0.4;
/// Additional weight of a word in the title, and in a heading.
const TITLE: Score = 0.2;
const HEADING: Score = 0.2;
/// Additional weight of two words near each other.
const NEAR: Score = 0.2;
/// Words that may stand between or change places, for two words to be near each other.
const NEAR_WORDS: u32 = 3;
/// Pairs of a query's words that are looked for.
const PAIRS: usize = 16;

/// Weight of a word that stands in for one that no passage has.
const TYPO: Score = 0.8;

/// The index.
pub(super) struct Index {
    language: Language,
    index: tantivy::Index,
    reader: IndexReader,
    directory: RamDirectory,
    changing: Mutex<()>,
}

impl Index {
    /// An index without documents.
    pub(super) fn empty(language: Language) -> Result<Self, TantivyError> {
        let directory = RamDirectory::create();
        let settings = IndexSettings::default();
        let mut index = tantivy::Index::create(directory.clone(), FIELDS.schema.clone(), settings)?;
        let tokenizers = TokenizerManager::default();
        tokenizers.register("words", folding());
        tokenizers.register("stems", stemming(language));
        index.set_tokenizers(tokenizers);
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual);
        let reader = reader.doc_store_cache_num_blocks(4).try_into()?;
        Ok(Self { language, index, reader, directory, changing: Mutex::default() })
    }

    /// Adds documents, each with an id that it does not have yet.
    pub(super) fn extend(&self, documents: &[Prepared]) -> Result<(), TantivyError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        write(&self.index, |writer| documents.iter().try_for_each(|document| add(writer, document)))?;
        self.reader.reload()
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

    /// Returns the language whose word forms find each other.
    pub(super) fn language(&self) -> Language {
        self.language
    }

    /// The passages that match best.
    pub(super) fn search(&self, query: &str, limit: usize) -> Result<Vec<Passage>, TantivyError> {
        let searcher = self.reader.searcher();
        let all = usize::try_from(searcher.num_docs()).unwrap_or(usize::MAX);
        let limit = limit.min(all);
        let Some(query) = (limit > 0).then(|| self.parsed(&searcher, query)).transpose()?.flatten() else {
            return Ok(Vec::new());
        };
        // Some results may have the same text.
        let mut fetched = limit.saturating_mul(2).saturating_add(8).min(all);
        loop {
            let found = ranked(&searcher, &query, fetched)?;
            let is_all = found.len() < fetched || fetched == all;
            let different = different(&searcher, found)?;
            if different.len() >= limit || is_all {
                let best = different.into_iter().take(limit);
                return best.map(|(score, at)| Ok(passage(&searcher.doc(at)?, score))).collect();
            }
            fetched = fetched.saturating_mul(4).min(all);
        }
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
    let Fields { title, headings, text, words, stems, title_stems, heading_stems, .. } = &*FIELDS;
    for (place, cut) in (0_u64..).zip(&document.cuts) {
        let mut passage = TantivyDocument::new();
        passage.add_text(FIELDS.document, &document.id);
        passage.add_u64(FIELDS.place, place);
        let mut say = |fields: &[Field], value: &str| {
            fields.iter().for_each(|field| passage.add_text(*field, value));
        };
        say(&[*title, *words, *stems, *title_stems], &document.title);
        cut.headings.iter().for_each(|heading| say(&[*headings, *words, *stems, *heading_stems], heading));
        say(&[*text, *words, *stems], &cut.text);
        passage.add_u64(FIELDS.fingerprint, fingerprint(cut));
        writer.add_document(passage)?;
    }
    Ok(())
}

impl Index {
    /// The query of a text; `None` when it has no word.
    fn parsed(&self, searcher: &Searcher, text: &str) -> Result<Option<BooleanQuery>, TantivyError> {
        let text = &text[..text.floor_char_boundary(QUERY_BYTES)];
        let wanted = content_words_in(text, self.language, QUERY_WORDS);
        let words = self.known(searcher, &wanted)?;
        let term = |field, word: &str, boost| -> (Occur, Box<dyn Query>) {
            let term = TermQuery::new(Term::from_field_text(field, word), IndexRecordOption::WithFreqs);
            (Occur::Should, Box::new(BoostQuery::new(Box::new(term), boost)))
        };
        let mut terms = Vec::with_capacity(words.len() * 4 + PAIRS);
        terms.extend(words.iter().map(|(word, weight)| term(FIELDS.words, &word.folded, WORD * weight)));
        // Words of one stem are one to the stems.
        let mut stems: Vec<_> = words.iter().map(|(word, weight)| (word.stem.as_str(), *weight)).collect();
        stems.sort_unstable_by(|a, b| a.0.cmp(b.0).then(b.1.total_cmp(&a.1)));
        stems.dedup_by(|a, b| a.0 == b.0);
        let stemmed = [(FIELDS.stems, 1.0), (FIELDS.title_stems, TITLE), (FIELDS.heading_stems, HEADING)];
        for (field, boost) in stemmed {
            terms.extend(stems.iter().map(|(stem, weight)| term(field, stem, boost * weight)));
        }
        let near = |pair: &[(Word, Score)]| -> Option<(Occur, Box<dyn Query>)> {
            let [(a, _), (b, _)] = pair else { return None };
            if a.stem == b.stem {
                return None;
            }
            let terms = [a, b].map(|word| Term::from_field_text(FIELDS.stems, &word.stem));
            let terms = terms.into_iter().enumerate().collect();
            let phrase = PhraseQuery::new_with_offset_and_slop(terms, NEAR_WORDS);
            Some((Occur::Should, Box::new(BoostQuery::new(Box::new(phrase), NEAR))))
        };
        terms.extend(words.windows(2).take(PAIRS).filter_map(near));
        Ok((!terms.is_empty()).then(|| BooleanQuery::new(terms)))
    }

    /// The words that are searched for, with their weight: those of the query, and those that stand in for one
    /// that no passage has.
    fn known(&self, searcher: &Searcher, wanted: &[Word]) -> Result<Vec<(Word, Score)>, TantivyError> {
        let mut known = Vec::with_capacity(wanted.len());
        for word in wanted {
            if typos::has(searcher, FIELDS.words, &word.folded)?
                || typos::has(searcher, FIELDS.stems, &word.stem)?
            {
                known.push((word.clone(), 1.0));
                continue;
            }
            for meant in typos::likest(searcher, FIELDS.words, &word.folded)? {
                known.extend(words_in(&meant, self.language, 1).into_iter().map(|word| (word, TYPO)));
            }
        }
        Ok(known)
    }
}

/// The passages that match best, by score, then by document and place.
fn ranked(
    searcher: &Searcher,
    query: &BooleanQuery,
    limit: usize,
) -> Result<Vec<(Score, DocAddress)>, TantivyError> {
    let place = SortByStaticFastValue::<u64>::for_field(PLACE);
    let order = (Ranked, (SortByString::for_field(DOCUMENT), Order::Asc), (place, Order::Asc));
    let found = searcher.search(query, &TopDocs::with_limit(limit).order_by(order))?;
    Ok(found.into_iter().map(|((score, ..), at)| (score.0, at)).collect())
}

/// Returns the first of passages with the same text.
fn different(
    searcher: &Searcher,
    found: Vec<(Score, DocAddress)>,
) -> Result<Vec<(Score, DocAddress)>, TantivyError> {
    let columns = searcher.segment_readers().iter().map(|segment| segment.fast_fields().u64(FINGERPRINT));
    let columns: Vec<_> = columns.collect::<Result<_, _>>()?;
    let mut seen = HashSet::new();
    let print = |at: DocAddress| columns.get(at.segment_ord as usize)?.first(at.doc_id);
    Ok(found.into_iter().filter(|(_, at)| print(*at).is_none_or(|print| seen.insert(print))).collect())
}

/// Returns a hash that is equal for passages with the same text under the same heading, whatever their case and signs.
fn fingerprint(cut: &Cut) -> u64 {
    let mut folding = folding();
    let mut digest = Sha256::new();
    for text in cut.headings.last().into_iter().chain([&cut.text]) {
        let mut words = folding.token_stream(text);
        while words.advance() {
            digest.update(words.token().text.as_bytes());
            digest.update([0]);
        }
        digest.update([1]);
    }
    let digest = digest.finalize();
    u64::from_le_bytes(digest[..8].try_into().expect("eight of 32 bytes"))
}

fn passage(found: &TantivyDocument, score: Score) -> Passage {
    let all = |field| found.get_all(field).filter_map(|value| Some(value.as_str()?.to_owned()));
    let first = |field| all(field).next().unwrap_or_default();
    let Fields { document, title, headings, text, .. } = &*FIELDS;
    Passage {
        document: first(*document),
        title: first(*title),
        headings: all(*headings).collect(),
        text: first(*text),
        score,
    }
}

/// Sort order by score, as far as it is exact.
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
