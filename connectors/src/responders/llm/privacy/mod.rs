//! Redaction of personal data before a text goes to a provider: phone numbers, e-mail addresses and the customer's
//! name are replaced by placeholders, and restored in the answer.
//!
//! It rather replaces too much: anything that looks like a number of seven digits or more is one, in the digits of any
//! script, since it is restored unchanged. Dates are kept, since a provider that handles appointments has to read them, and
//! so are the hours, sizes and prices of a business. Names are those that the channel reports; a name in a text that the
//! channel did not report is not found.
//!
//! # Layout
//! - [`numbers`]: phone numbers, apart from other figures. [`names`]: names, in scripts with and without word boundaries.

mod names;
mod numbers;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::{Captures, Regex};

use self::names::Names;

/// An address, with signs of no width in it or without.
static EMAIL: LazyLock<Regex> = LazyLock::new(|| {
    let part = r"[\p{L}\p{M}\p{N}%+\-_\u{ad}\u{200b}-\u{200f}\u{2060}\u{feff}]";
    Regex::new(&format!(r"(?:{part}|\.)+[@\u{{ff20}}\u{{fe6b}}]{part}+(?:[.\u{{ff0e}}\u{{3002}}]{part}+)+"))
        .expect("it is a valid pattern")
});
static PLACEHOLDER: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\[(?:EMAIL|PHONE|NAME)_[0-9]+\]").expect("it is a valid pattern"));

/// Redactor of one turn's texts, with their placeholders and originals.
#[derive(Debug, Default)]
pub(super) struct Redactor {
    names: Option<Names>,
    originals: BTreeMap<String, String>,
    placeholders: BTreeMap<String, String>,
}

impl Redactor {
    /// Creates the redactor of a turn with a customer of this name.
    #[cfg(test)]
    pub(super) fn new(name: Option<&str>) -> Self {
        Self::of(name.into_iter())
    }

    /// Creates the redactor of a turn with a customer who is known by these names.
    pub(super) fn of<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        Self { names: Names::of(names), ..Self::default() }
    }

    /// Returns the text without personal data.
    pub(super) fn redact(&mut self, text: &str) -> String {
        let text = EMAIL.replace_all(text, |found: &Captures<'_>| self.placeholder("EMAIL", &found[0]));
        let text = numbers::replace(&text, |found| self.placeholder("PHONE", found));
        match self.names.clone() {
            Some(names) => names.replace(&text, |found| self.placeholder("NAME", found)),
            None => text,
        }
    }

    fn placeholder(&mut self, kind: &str, original: &str) -> String {
        if let Some(known) = self.placeholders.get(original) {
            return known.clone();
        }
        let placeholder = format!("[{kind}_{}]", self.placeholders.len() + 1);
        self.originals.insert(placeholder.clone(), original.to_owned());
        self.placeholders.insert(original.to_owned(), placeholder.clone());
        placeholder
    }

    /// Returns the answer with the originals restored.
    pub(super) fn restore(&self, answer: &str) -> String {
        let original = |found: &Captures<'_>| {
            self.originals.get(&found[0]).cloned().unwrap_or_else(|| found[0].to_owned())
        };
        PLACEHOLDER.replace_all(answer, original).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn personal_data_is_replaced_and_restored() {
        let said = "I am Ann-Marie Example, call +49 (151) 1234-5678 or 0301234567, or write to ann.ex+1@mail.example.org. \
                    ANN-MARIE again: ann.ex+1@mail.example.org.";
        let mut redactor = Redactor::new(Some("Ann-Marie Example"));
        let shown = redactor.redact(said);
        assert_eq!(
            shown,
            "I am [NAME_4], call [PHONE_2] or [PHONE_3], or write to [EMAIL_1]. [NAME_5] again: [EMAIL_1]."
        );
        assert_eq!(redactor.restore(&shown), said);
        assert_eq!(redactor.restore("Dear [NAME_4], [PHONE_99]"), "Dear Ann-Marie Example, [PHONE_99]");
    }

    #[test]
    fn dates_times_and_prices_stay() {
        let mut redactor = Redactor::new(Some("Jo"));
        for text in [
            "on 2026-11-26 at 10:30",
            "am 26.11.2026 um 9 Uhr",
            "1/31/26",
            "2026-11-26 10",
            "it costs 1,299.00",
            "room 4711",
            "Jo is too short a name",
            "12 34",
        ] {
            assert_eq!(redactor.redact(text), text);
        }
        assert_eq!(redactor.redact("ticket 12345678"), "ticket [PHONE_1]", "it comes back");
    }

    #[test]
    fn every_name_that_a_person_is_known_by_is_replaced() {
        let mut redactor = Redactor::of(["Ann Miller", "Annabel Smith", "Ann Miller"].into_iter());
        let said = "Ann Miller was Annabel Smith; dear ANNABEL, dear Ann";
        let shown = redactor.redact(said);
        assert_eq!(shown, "[NAME_1] was [NAME_2]; dear [NAME_3], dear [NAME_4]");
        assert_eq!(redactor.restore(&shown), said);
    }

    #[test]
    fn names_of_scripts_without_word_boundaries_are_replaced() {
        for (name, said, expected) in [
            ("王小明", "我叫王小明，请叫我小明", "我叫[NAME_1]，请叫我[NAME_2]"),
            ("王 小明", "我是王小明。", "我是[NAME_1]。"),
            ("山田太郎", "山田太郎です。山田と呼んで", "[NAME_1]です。[NAME_2]と呼んで"),
            ("ยามาดะ", "ฉันชื่อยามาดะค่ะ", "ฉันชื่อ[NAME_1]ค่ะ"),
            ("김민수", "저는 김민수입니다", "저는 [NAME_1]입니다"),
            ("李", "李先生", "[NAME_1]先生"),
            ("Ann", "我叫Ann，你好", "我叫[NAME_1]，你好"),
            ("Ann ✨", "Ann here, annex", "[NAME_1] here, annex"),
        ] {
            let mut redactor = Redactor::new(Some(name));
            let shown = redactor.redact(said);
            assert_eq!(shown, expected, "{name}");
            assert_eq!(redactor.restore(&shown), said);
        }
    }

    #[test]
    fn an_address_with_signs_of_no_width_is_replaced_whole() {
        let mut redactor = Redactor::new(None);
        assert_eq!(redactor.redact("to a\u{200b}nn.ex@mail.example now"), "to [EMAIL_1] now");
        assert_eq!(redactor.redact("ann＠mail．example"), "[EMAIL_2]");
    }

    #[test]
    fn names_are_words_of_their_own_and_no_patterns() {
        let mut redactor = Redactor::new(Some("Max (.*) Power"));
        assert_eq!(redactor.redact("maximum power to Max"), "maximum [NAME_1] to [NAME_2]");
        assert_eq!(Redactor::new(Some("Li Wu")).redact("li wu, Li"), "[NAME_1], Li");
        assert_eq!(Redactor::new(Some("  ")).redact("text"), "text");
        assert_eq!(Redactor::new(None).redact("text"), "text");
    }

    proptest::proptest! {
        /// For any text, nothing is lost and no address or number is shown.
        #[test]
        fn redaction_is_undone(text in "[a-z0-9@. +()\\[\\]_A-Z-]{0,80}", name in "[A-Za-z ]{0,12}") {
            let mut redactor = Redactor::new(Some(&name));
            // A placeholder that is in the text already cannot be restored.
            proptest::prop_assume!(!PLACEHOLDER.is_match(&text));
            let shown = redactor.redact(&text);
            proptest::prop_assert!(!EMAIL.is_match(&shown), "{shown:?}");
            proptest::prop_assert_eq!(redactor.restore(&shown), text);
        }
    }
}
