//! Words by which people say that they want no more, or want it again: what they write, in their language.
//!
//! A word counts only as the whole of a message: "stop" does, "where does the bus stop?" does not. Case, spaces and
//! punctuation around it are nothing.
//!
//! The English words are those that carriers and platforms ask for: Twilio's
//! (<https://www.twilio.com/docs/messaging/tutorials/advanced-opt-out>: stop, unsubscribe, end, quit, stopall,
//! revoke, optout, cancel), beside them opt-out and remove, and `arrêt` for French, of AWS
//! (<https://docs.aws.amazon.com/sms-voice/latest/userguide/keywords-required.html>), `start` and `unstop` to begin
//! again (the same page). `yes`, which some take for a start, is left out: it answers too much else. The words of
//! other languages are what STOP and UNSUBSCRIBE are in them; no list of carriers is known for these, so a tenant
//! whose customers write others adds its own.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Category, Says};
use crate::language::Language;

/// Words that withdraw consent or give it again, and the reply to them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ConsentWords {
    /// The languages whose words count, beside English; where none is said, that of the tenant's documents.
    pub languages: Vec<Language>,
    /// The words that stop, instead of those of the languages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_words: Option<Vec<String>>,
    /// The words that give consent again, instead of those of the languages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_words: Option<Vec<String>>,
    /// Purposes that a stop word stops. Default: marketing alone, so that confirmations of what a person has booked still
    /// come.
    #[schemars(length(min = 1))]
    pub purposes: Vec<Category>,
    /// Purposes for which a person must have given consent before anything but a reply is sent. Default: none; then
    /// whoever has not opted out may be written to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub require: Vec<Category>,
    /// Titles of the channel's own opt-out button in the languages of the tenant's templates, beside those that the
    /// channel is known to use. A tap on any other button is no opt-out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stop_buttons: Vec<String>,
    /// Reply to a stop word. Empty: no reply.
    pub stopped_text: String,
}

impl Default for ConsentWords {
    fn default() -> Self {
        Self {
            languages: Vec::new(),
            stop_words: None,
            start_words: None,
            purposes: vec![Category::Marketing],
            require: Vec::new(),
            stop_buttons: Vec::new(),
            stopped_text: String::new(),
        }
    }
}

impl ConsentWords {
    /// Returns the statement about consent that a message makes, if it is a stop or a start word; `documents` is the
    /// language of the tenant's documents.
    #[must_use]
    pub fn says(&self, message: &str, documents: Language) -> Option<Says> {
        // Longer than any word that could be meant; most messages are.
        const LONGEST: usize = 64;
        if message.len() > 4 * LONGEST {
            return None;
        }
        let folded = fold(message);
        if folded.is_empty() {
            return None;
        }
        let own = |words: &Option<Vec<String>>| {
            words.as_ref().map(|words| words.iter().any(|word| fold(word) == folded))
        };
        let of_languages = |of: fn(Language) -> &'static [&'static str]| {
            let asked = match self.languages.is_empty() {
                true => std::slice::from_ref(&documents),
                false => &self.languages,
            };
            let all = std::iter::once(&Language::English).chain(asked);
            all.flat_map(|language| of(*language)).any(|word| *word == folded)
        };
        if own(&self.stop_words).unwrap_or_else(|| of_languages(stop_words)) {
            return Some(Says::Stop);
        }
        own(&self.start_words).unwrap_or_else(|| of_languages(start_words)).then_some(Says::Give)
    }

    /// Returns whether a button with this title is the channel's own opt-out button; `known` are its known titles.
    #[must_use]
    pub fn is_stop_button(&self, title: &str, known: &[&str]) -> bool {
        let folded = fold(title);
        let is = |other: &str| fold(other) == folded;
        !folded.is_empty()
            && (known.iter().any(|other| is(other)) || self.stop_buttons.iter().any(|other| is(other)))
    }

    /// Returns every fault of the configuration.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let words = [
            ("stop_words", self.stop_words.as_deref().unwrap_or_default()),
            ("start_words", self.start_words.as_deref().unwrap_or_default()),
            ("stop_buttons", &self.stop_buttons),
        ];
        for (name, words) in words {
            for word in words.iter().filter(|word| fold(word).is_empty()) {
                faults.push(format!("consent.{name}: {word:?} holds neither a letter nor a digit"));
            }
        }
        let stops = |word: &String| self.stop_words.iter().flatten().any(|stop| fold(stop) == fold(word));
        for word in self.start_words.iter().flatten().filter(|word| stops(word)) {
            faults.push(format!("consent.start_words: {word:?} is a stop word too"));
        }
        if self.purposes.is_empty() {
            faults
                .push("consent.purposes: is empty; name what stop words stop, such as \"marketing\"".into());
        }
        faults
    }
}

/// A message as words are compared: lower case, without what stands around it, single spaces.
fn fold(text: &str) -> String {
    let trimmed = text.trim_matches(|c: char| !c.is_alphanumeric());
    let words: Vec<_> = trimmed.split_whitespace().collect();
    // Turkish writes a dotted capital I, whose lower case elsewhere is an i with a dot of its own.
    words.join(" ").to_lowercase().replace('\u{307}', "")
}

/// The words that stop, folded.
fn stop_words(language: Language) -> &'static [&'static str] {
    match language {
        Language::English => &[
            "stop",
            "stopall",
            "stop all",
            "unsubscribe",
            "end",
            "quit",
            "cancel",
            "revoke",
            "optout",
            "opt-out",
            "opt out",
            "remove",
        ],
        Language::Arabic => &["توقف", "إيقاف", "ايقاف", "إلغاء الاشتراك", "الغاء الاشتراك"],
        Language::Danish => &["stop", "afmeld", "frameld"],
        Language::Dutch => &["stop", "afmelden", "uitschrijven"],
        Language::Finnish => &["seis", "lopeta", "peruuta tilaus"],
        Language::French => {
            &["arrêt", "arret", "arrêter", "arreter", "désabonner", "desabonner", "désinscription"]
        }
        Language::German => &["stopp", "abmelden", "abbestellen", "abmeldung"],
        Language::Greek => &["στοπ", "διακοπή", "διακοπη", "διαγραφή", "διαγραφη"],
        Language::Hungarian => &["leiratkozás", "leiratkozom", "leiratkozas"],
        Language::Italian => &["basta", "disiscrivi", "cancellami", "disiscrivimi"],
        Language::Norwegian => &["stopp", "meld av", "avmeld"],
        Language::Portuguese => &["parar", "pare", "sair", "cancelar", "descadastrar"],
        Language::Romanian => &["dezabonare", "dezabonează", "dezaboneaza"],
        Language::Russian => &["стоп", "отписаться", "отписка"],
        Language::Spanish => &["parar", "alto", "baja", "cancelar", "darse de baja"],
        Language::Swedish => &["stopp", "avsluta", "avregistrera"],
        // The dot that ends the second word is not alphabetic, so folding takes it off.
        Language::Tamil => &["நிறுத்து", "நிறுத்தவும"],
        Language::Turkish => &["dur", "durdur", "iptal", "abonelikten çık"],
        Language::None => &[],
    }
}

/// The words that give consent again, folded.
fn start_words(language: Language) -> &'static [&'static str] {
    match language {
        Language::English => &["start", "unstop", "subscribe"],
        Language::Arabic => &["ابدأ", "اشتراك"],
        Language::Danish => &["tilmeld"],
        Language::Dutch => &["aanmelden"],
        Language::Finnish => &["aloita"],
        Language::French => &["démarrer", "demarrer", "abonner"],
        Language::German => &["anmelden", "abonnieren"],
        Language::Greek => &["έναρξη", "εναρξη", "εγγραφή", "εγγραφη"],
        Language::Hungarian => &["feliratkozás", "feliratkozom"],
        Language::Italian => &["iscrivimi", "iscriviti"],
        Language::Norwegian => &["meld på"],
        Language::Portuguese => &["iniciar", "inscrever"],
        Language::Romanian => &["abonare"],
        Language::Russian => &["старт", "подписаться"],
        Language::Spanish => &["iniciar", "alta", "suscribir"],
        Language::Swedish => &["anmäl"],
        Language::Tamil => &["தொடங்கு"],
        Language::Turkish => &["başlat", "abone ol"],
        Language::None => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LANGUAGES: [Language; 19] = [
        Language::Arabic,
        Language::Danish,
        Language::Dutch,
        Language::English,
        Language::Finnish,
        Language::French,
        Language::German,
        Language::Greek,
        Language::Hungarian,
        Language::Italian,
        Language::Norwegian,
        Language::Portuguese,
        Language::Romanian,
        Language::Russian,
        Language::Spanish,
        Language::Swedish,
        Language::Tamil,
        Language::Turkish,
        Language::None,
    ];

    fn says(message: &str, language: Language) -> Option<Says> {
        ConsentWords::default().says(message, language)
    }

    #[test]
    fn a_word_counts_only_as_the_whole_message() {
        for stop in ["STOP", " stop ", "Stop!", "\"stop\"", "stop.", "Stop  all", "Opt-Out"] {
            assert_eq!(says(stop, Language::English), Some(Says::Stop), "{stop}");
        }
        for other in ["where does the bus stop?", "stop it", "don't stop", "stopp", "", "...", "non stop"] {
            assert_eq!(says(other, Language::English), None, "{other}");
        }
        assert_eq!(says("START", Language::English), Some(Says::Give));
        assert_eq!(says(&"stop ".repeat(100), Language::English), None);
    }

    #[test]
    fn every_language_stops_in_its_own_words_and_in_english() {
        for (language, word) in [
            (Language::German, "Abmelden"),
            (Language::French, "ARRÊT"),
            (Language::Turkish, "İPTAL"),
            (Language::Turkish, "iptal"),
            (Language::Greek, "ΔΙΑΚΟΠΗ"),
            (Language::Russian, "СТОП"),
            (Language::Arabic, "إيقاف"),
        ] {
            assert_eq!(says(word, language), Some(Says::Stop), "{word}");
            assert_eq!(says(word, Language::English), None, "{word} in English");
            assert_eq!(says("stop", language), Some(Says::Stop));
        }
        let several =
            ConsentWords { languages: vec![Language::German, Language::Turkish], ..Default::default() };
        assert_eq!(several.says("iptal", Language::English), Some(Says::Stop));
        assert_eq!(several.says("abmelden", Language::English), Some(Says::Stop));
    }

    #[test]
    fn every_word_of_the_table_is_found_as_it_stands_there_and_none_says_both() {
        for language in LANGUAGES {
            for word in stop_words(language) {
                assert_eq!(fold(word), *word, "{language:?}");
                assert_eq!(says(word, language), Some(Says::Stop), "{language:?} {word}");
            }
            for word in start_words(language) {
                assert_eq!(fold(word), *word, "{language:?}");
                assert_eq!(says(word, language), Some(Says::Give), "{language:?} {word}");
            }
        }
    }

    #[test]
    fn a_tenants_own_words_stand_in_place_of_the_table() {
        let own = ConsentWords {
            stop_words: Some(vec!["Kein Interesse".into()]),
            start_words: Some(Vec::new()),
            ..ConsentWords::default()
        };
        assert_eq!(own.says("kein interesse!", Language::German), Some(Says::Stop));
        assert_eq!(own.says("stop", Language::German), None);
        assert_eq!(own.says("start", Language::German), None);
        assert_eq!(own.faults(), Vec::<String>::new());
        let wrong = ConsentWords {
            stop_words: Some(vec!["go".into(), "!".into()]),
            start_words: Some(vec!["Go".into()]),
            purposes: Vec::new(),
            ..ConsentWords::default()
        };
        assert_eq!(wrong.faults().len(), 3, "{:?}", wrong.faults());
    }
}
