//! The words of a text, as the index and the responders both see them.
//!
//! A word is a run of letters and digits of any script, in lower case and without the accents of
//! Latin letters ("Öffnungszeiten" is `offnungszeiten`), of less than 64 bytes: longer runs are not
//! words that people search for. Beside it stands its stem, which finds "opening" by "open": the English one, if
//! no other language is named. A language whose word forms are not known has words only.
//! # Layout
//! - `stop`: words that carry no subject, by language.

mod stop;

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::LazyLock;

use heddle_schemas::language::Language;
use icu_normalizer::ComposingNormalizerBorrowed;
use icu_segmenter::options::SentenceBreakInvariantOptions;
use icu_segmenter::{SentenceSegmenter, SentenceSegmenterBorrowed};
use tantivy::tokenizer::{
    self, AsciiFoldingFilter, LowerCaser, RemoveLongFilter, SimpleTokenizer, Stemmer, TextAnalyzer,
    TokenStream,
};

/// Bytes from which on a word is none.
const TOO_LONG: usize = 64;

/// Unicode's sentence boundaries (UAX 29), without the rules of one language.
static SENTENCES: LazyLock<SentenceSegmenterBorrowed<'static>> =
    LazyLock::new(|| SentenceSegmenter::new(SentenceBreakInvariantOptions::default()));

/// A word.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Word {
    /// Word in lower case, without accents.
    pub(crate) folded: String,
    /// Its stem.
    pub(crate) stem: String,
}

/// Returns a text with each accent and its letter as one character (NFC), as words are separated and folded:
/// where they are separate characters, as some systems write them, they would split the word.
pub(crate) fn composed(text: &str) -> Cow<'_, str> {
    const { ComposingNormalizerBorrowed::new_nfc() }.normalize(text)
}

/// Cuts a composed text into folded words.
pub(crate) fn folding() -> TextAnalyzer {
    TextAnalyzer::builder(SimpleTokenizer::default())
        .filter(RemoveLongFilter::limit(TOO_LONG))
        .filter(LowerCaser)
        .filter(AsciiFoldingFilter)
        .build()
}

/// Cuts a composed text into the stems of its folded words. Accents go before the stem is taken: customers
/// write with and without them.
pub(crate) fn stemming(language: Language) -> TextAnalyzer {
    let Some(language) = stems_of(language) else { return folding() };
    TextAnalyzer::builder(SimpleTokenizer::default())
        .filter(RemoveLongFilter::limit(TOO_LONG))
        .filter(LowerCaser)
        .filter(AsciiFoldingFilter)
        .filter(Stemmer::new(language))
        .build()
}

fn stems_of(language: Language) -> Option<tokenizer::Language> {
    Some(match language {
        Language::Arabic => tokenizer::Language::Arabic,
        Language::Danish => tokenizer::Language::Danish,
        Language::Dutch => tokenizer::Language::Dutch,
        Language::English => tokenizer::Language::English,
        Language::Finnish => tokenizer::Language::Finnish,
        Language::French => tokenizer::Language::French,
        Language::German => tokenizer::Language::German,
        Language::Greek => tokenizer::Language::Greek,
        Language::Hungarian => tokenizer::Language::Hungarian,
        Language::Italian => tokenizer::Language::Italian,
        Language::Norwegian => tokenizer::Language::Norwegian,
        Language::Portuguese => tokenizer::Language::Portuguese,
        Language::Romanian => tokenizer::Language::Romanian,
        Language::Russian => tokenizer::Language::Russian,
        Language::Spanish => tokenizer::Language::Spanish,
        Language::Swedish => tokenizer::Language::Swedish,
        Language::Tamil => tokenizer::Language::Tamil,
        Language::Turkish => tokenizer::Language::Turkish,
        Language::None => return None,
    })
}

/// The different words of a text, by first occurrence, at most `limit`.
pub(crate) fn words(text: &str, limit: usize) -> Vec<Word> {
    words_in(text, Language::English, limit)
}

/// [`words`], with the stems of this language.
pub(crate) fn words_in(text: &str, language: Language, limit: usize) -> Vec<Word> {
    let text = composed(text);
    let (mut folding, mut stemming) = (folding(), stemming(language));
    // Both are the same chain but for the last link, so they go in step.
    let (mut folded, mut stems) = (folding.token_stream(&text), stemming.token_stream(&text));
    let mut seen = HashSet::new();
    let mut words = Vec::new();
    while words.len() < limit && folded.advance() && stems.advance() {
        if seen.insert(folded.token().text.clone()) {
            words.push(Word { folded: folded.token().text.clone(), stem: stems.token().text.clone() });
        }
    }
    words
}

/// The different words of a text without the stop words of its language; all of them when it has no
/// others. At most `limit`.
///
/// A word of one language may be a stop word of another ("die", "war", "hat"), so only one list is
/// used: that of the language of which the text has the most stop words.
pub(crate) fn content_words(text: &str, limit: usize) -> Vec<Word> {
    content_words_in(text, Language::English, limit)
}

/// [`content_words`], with the stems of this language.
pub(crate) fn content_words_in(text: &str, language: Language, limit: usize) -> Vec<Word> {
    // Stop words are taken out after the limit was met, so the first words of a very long text count.
    let mut words = words_in(text, language, 4 * limit);
    let stops = stop::of_language_of(&words);
    if words.iter().any(|word| !stops.contains(word.folded.as_str())) {
        words.retain(|word| !stops.contains(word.folded.as_str()));
    }
    words.truncate(limit);
    words
}

/// Returns true if a text has only stop words of its language, or no word at all.
pub(crate) fn has_only_stop_words(text: &str, limit: usize) -> bool {
    let words = words(text, limit);
    let stops = stop::of_language_of(&words);
    words.iter().all(|word| stops.contains(word.folded.as_str()))
}

/// Returns true if a text has a letter or digit, without which no search finds it.
pub(crate) fn has_a_word(text: &str) -> bool {
    text.chars().any(char::is_alphanumeric)
}

/// The sentences of a text, each with the white space that ends it. A line's end ends a sentence.
pub(crate) fn sentences(text: &str) -> impl Iterator<Item = &str> {
    let mut from = 0;
    SENTENCES.segment_str(text).skip(1).map(move |to| {
        let sentence = &text[from..to];
        from = to;
        sentence
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(text: &str) -> Vec<String> {
        content_words(text, 64).into_iter().map(|word| word.folded).collect()
    }

    #[test]
    fn words_are_folded_and_stemmed() {
        let words = words("Öffnungszeiten: OPENING, opening! Straße ¿Qué?", 64);
        let folded: Vec<_> = words.iter().map(|word| word.folded.as_str()).collect();
        assert_eq!(folded, ["offnungszeiten", "opening", "strasse", "que"]);
        assert_eq!(words[1].stem, "open");
    }

    #[test]
    fn accents_that_stand_apart_do_not_part_a_word() {
        assert_eq!(words("O\u{308}ffnungszeiten", 64), words("Öffnungszeiten", 64));
    }

    #[test]
    fn stop_words_are_those_of_the_texts_language() {
        assert_eq!(folded("What are your opening hours?"), ["opening", "hours"]);
        assert_eq!(folded("Wie sind eure Öffnungszeiten?"), ["offnungszeiten"]);
        assert_eq!(folded("¿Cuál es el horario de apertura?"), ["horario", "apertura"]);
        assert_eq!(folded("Quels sont vos horaires d'ouverture ?"), ["horaires", "ouverture"]);
        // "hat" is a German stop word, and "die" an article.
        assert_eq!(folded("Do you sell a hat?"), ["sell", "hat"]);
        assert_eq!(folded("Wann hat die Praxis offen?"), ["praxis", "offen"]);
    }

    #[test]
    fn a_text_of_stop_words_keeps_them() {
        assert_eq!(folded("the who"), ["the", "who"]);
        assert!(has_only_stop_words("the who", 64) && has_only_stop_words("?!", 64));
    }

    #[test]
    fn words_stay_within_the_limit() {
        let text: String = (0..1_000).map(|n| format!("w{n} ")).collect();
        assert_eq!(content_words(&text, 64).len(), 64);
    }

    #[test]
    fn sentences_cover_the_text() {
        let text = "Open at 9.30 a.m. daily. Closed on Sunday!\nAsk us? Ja";
        let found: Vec<_> = sentences(text).collect();
        assert_eq!(found.concat(), text);
        assert_eq!(found.last(), Some(&"Ja"));
        assert!(found.contains(&"Closed on Sunday!\n"), "{found:?}");
        assert_eq!(sentences("").count(), 0);
    }
}
