//! Typos: the words of the documents that are most similar to one that they do not have.
//!
//! A customer's word that occurs nowhere finds nothing, so replacing it loses nothing; a word that
//! occurs is never replaced, so correct spelling is answered as before. One slip (a letter more, less, other,
//! or two changed) is accepted from four letters on, two from eight on and when the first letter is right.
//! Words with digits, such as order numbers, are never replaced.

use tantivy::query::FuzzyTermQuery;
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::{DocSet, Searcher, SegmentReader, TERMINATED, TantivyError, Term};

/// Letters from which on a word may have one slip, and two.
const ONE_SLIP: usize = 4;
const TWO_SLIPS: usize = 8;

/// Words that stand in for one.
const MOST: usize = 3;

/// Returns true if a passage has this term.
pub(super) fn has(searcher: &Searcher, field: Field, term: &str) -> Result<bool, TantivyError> {
    for segment in searcher.segment_readers() {
        if occurs(segment, &Term::from_field_text(field, term))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns true if a passage that is not deleted has it.
fn occurs(segment: &SegmentReader, term: &Term) -> Result<bool, TantivyError> {
    let inverted = segment.inverted_index(term.field())?;
    let Some(mut postings) = inverted.read_postings(term, IndexRecordOption::Basic)? else {
        return Ok(false);
    };
    let Some(alive) = segment.alive_bitset() else { return Ok(postings.doc() != TERMINATED) };
    while postings.doc() != TERMINATED {
        if alive.is_alive(postings.doc()) {
            return Ok(true);
        }
        postings.advance();
    }
    Ok(false)
}

/// The likest words that passages have: those with the fewest slips, of these the ones
/// that most passages have.
pub(super) fn likest(searcher: &Searcher, field: Field, word: &str) -> Result<Vec<String>, TantivyError> {
    let letters = word.chars().count();
    if letters < ONE_SLIP || word.contains(|c: char| c.is_numeric()) {
        return Ok(Vec::new());
    }
    for slips in 1..=if letters < TWO_SLIPS { 1 } else { 2 } {
        let mut found: Vec<(String, u32)> = Vec::new();
        for segment in searcher.segment_readers() {
            collect(segment, field, word, slips, &mut found)?;
        }
        if slips > 1 {
            found.retain(|(term, _)| term.chars().next() == word.chars().next());
        }
        // Frequencies are summed over segments.
        found.sort_unstable();
        found.dedup_by(|next, kept| {
            let is_same = next.0 == kept.0;
            if is_same {
                kept.1 += next.1;
            }
            is_same
        });
        found.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        if !found.is_empty() {
            return Ok(found.into_iter().take(MOST).map(|(term, _)| term).collect());
        }
    }
    Ok(Vec::new())
}

fn collect(
    segment: &SegmentReader,
    field: Field,
    word: &str,
    slips: u8,
    found: &mut Vec<(String, u32)>,
) -> Result<(), TantivyError> {
    let inverted = segment.inverted_index(field)?;
    let automaton = FuzzyTermQuery::new(Term::from_field_text(field, word), slips, true).automaton()?;
    let mut terms = inverted.terms().search(automaton).into_stream()?;
    while terms.advance() {
        let Ok(term) = std::str::from_utf8(terms.key()) else { continue };
        let is_word = !term.contains(|c: char| c.is_numeric());
        if is_word && occurs(segment, &Term::from_field_text(field, term))? {
            found.push((term.to_owned(), terms.value().doc_freq));
        }
    }
    Ok(())
}
