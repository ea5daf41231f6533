//! Names of a person, found in texts of any script.
//!
//! A name of a script that separates words counts only as a word of its own. Scripts that do not separate them, such as
//! Chinese, Japanese and Thai, and Korean, which puts endings directly behind a name, have no such boundary: there a
//! name counts wherever it stands, and so does the given name that people write alone.

use regex::Regex;

/// Name parts shorter than this are words of a language as often as names.
const PART_CHARS: usize = 3;
/// The same for scripts without word boundaries, where most names have two or three characters.
const UNSPACED_PART_CHARS: usize = 2;
/// Names that are looked for at most, longest first.
const MAX_NAMES: usize = 256;
/// Length of a name, in characters, beyond which it is no name but a text.
const MAX_CHARS: usize = 128;

/// Patterns of a person's names.
#[derive(Debug, Clone)]
pub(super) struct Names {
    /// Finds where one may begin.
    any: Regex,
    /// Each of them, anchored: wholes before their parts, and longer ones before their prefixes.
    each: Vec<Regex>,
}

impl Names {
    /// Returns the patterns of these names; `None` where there is nothing to look for.
    pub(super) fn of<'a>(names: impl Iterator<Item = &'a str>) -> Option<Self> {
        let (mut wholes, mut parts) = (Vec::new(), Vec::new());
        for name in names.filter(|name| name.chars().count() <= MAX_CHARS) {
            let words: Vec<_> = name
                .split_whitespace()
                .map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()))
                .filter(|word| !word.is_empty())
                .collect();
            if let [first, _, ..] = words[..] {
                let gap = if is_unspaced(first) { r"[\s\u{3000}·・]*" } else { r"[^\p{L}\p{N}]+" };
                let whole: Vec<_> = words.iter().map(|word| regex::escape(word)).collect();
                wholes.push(whole.join(gap));
            }
            match words[..] {
                // The whole name counts, however short.
                [only] if is_unspaced(only) => parts.push(regex::escape(only)),
                _ => {}
            }
            parts.extend(words.iter().flat_map(|word| parts_of(word)).map(|part| regex::escape(&part)));
        }
        for names in [&mut wholes, &mut parts] {
            names.sort_by_key(|name| std::cmp::Reverse(name.len()));
            names.dedup();
        }
        wholes.extend(parts);
        wholes.truncate(MAX_NAMES);
        // Every part is escaped, and their number and lengths are bounded; what is no pattern all the same is left out.
        let each: Vec<_> =
            wholes.iter().filter_map(|name| Regex::new(&format!(r"\A(?i:{name})")).ok()).collect();
        let any = Regex::new(&format!("(?i){}", wholes.join("|"))).ok()?;
        (!each.is_empty()).then_some(Self { any, each })
    }

    /// Returns the text with each name replaced.
    pub(super) fn replace(&self, text: &str, mut replacement: impl FnMut(&str) -> String) -> String {
        let (mut replaced, mut from) = (String::with_capacity(text.len()), 0);
        while let Some(found) = self.any.find_at(text, from) {
            replaced.push_str(&text[from..found.start()]);
            let rest = &text[found.start()..];
            match self.at(&text[..found.start()], rest) {
                Some(length) => {
                    replaced.push_str(&replacement(&rest[..length]));
                    from = found.start() + length;
                }
                None => {
                    let next = rest.chars().next().map_or(rest.len(), char::len_utf8);
                    replaced.push_str(&rest[..next]);
                    from = found.start() + next;
                }
            }
        }
        replaced.push_str(&text[from..]);
        replaced
    }

    /// Returns the length of the name at the beginning of `rest`, where both of its ends are those of a word.
    fn at(&self, before: &str, rest: &str) -> Option<usize> {
        let lengths = self.each.iter().filter_map(|name| Some(name.find(rest)?.end()));
        lengths.filter(|&length| length > 0).find(|&length| {
            let (name, after) = rest.split_at(length);
            is_boundary(before.chars().next_back(), name.chars().next())
                && is_boundary(name.chars().next_back(), after.chars().next())
        })
    }
}

/// Returns the parts of a word of a name that count as a name by themselves.
fn parts_of(word: &str) -> Vec<String> {
    let chars: Vec<_> = word.chars().collect();
    if !is_unspaced(word) {
        return if chars.len() >= PART_CHARS { vec![word.to_owned()] } else { Vec::new() };
    }
    let mut parts = Vec::new();
    if chars.len() >= UNSPACED_PART_CHARS {
        parts.push(word.to_owned());
    }
    // A family name of one or two characters, and a given name of two: 王小明, 김민수, 山田太郎.
    if matches!(chars.len(), 3 | 4) && chars.iter().all(|&c| is_syllabic(c)) {
        parts.push(chars[chars.len() - 2..].iter().collect());
        if chars.len() == 4 {
            parts.push(chars[..2].iter().collect());
        }
    }
    parts
}

/// Returns true between two characters of which a word ends or begins.
fn is_boundary(before: Option<char>, after: Option<char>) -> bool {
    let (Some(before), Some(after)) = (before, after) else { return true };
    let in_word = |c: char| c.is_alphanumeric() || c == '_' || is_combining(c);
    !in_word(before) || !in_word(after) || is_unspaced_char(before) || is_unspaced_char(after)
}

fn is_combining(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}')
}

/// Returns true for a word of a script without word boundaries.
fn is_unspaced(word: &str) -> bool {
    word.chars().any(is_unspaced_char)
}

/// Characters of Thai, Lao, Tibetan, Burmese, Khmer, and those of Chinese, Japanese and Korean.
fn is_unspaced_char(c: char) -> bool {
    is_syllabic(c)
        || matches!(c, '\u{e00}'..='\u{eff}' | '\u{f00}'..='\u{fff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}'
            | '\u{19e0}'..='\u{19ff}')
}

/// Characters of which each is a syllable or a word: Han, kana, Hangul.
fn is_syllabic(c: char) -> bool {
    matches!(c, '\u{3005}' | '\u{3040}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}' | '\u{3400}'..='\u{4dbf}'
        | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}' | '\u{f900}'..='\u{faff}' | '\u{ff66}'..='\u{ff9d}'
        | '\u{20000}'..='\u{3ffff}')
}
