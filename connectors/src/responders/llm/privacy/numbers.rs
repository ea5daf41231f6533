//! Phone numbers in a text, in the digits of any script and with the separators that people write, apart from the
//! figures of a business: dates, opening hours, sizes and prices.
//!
//! A run of seven digits or more is a number unless *all* of it reads as such figures. A date with a year of four digits is
//! kept beside a number too. Runs are judged in ASCII: each digit by its value, without signs of no width.

use std::sync::LazyLock;

use heddle_schemas::digits;
use regex::Regex;

/// Digits from which on a run may be a phone number.
const DIGITS: usize = 7;
/// Pattern with `S` for a separator and `Z` for the signs of no width.
fn pattern(form: &str) -> Regex {
    let separator = r"[ \t()/.\-_\u{a0}\u{b7}\u{2000}-\u{200a}\u{2010}-\u{2015}\u{2022}\u{202f}\u{205f}\u{2212}\u{3000}\u{30fb}\u{ff08}\u{ff09}\u{ff0d}-\u{ff0f}]";
    let no_width = r"[\u{ad}\u{61c}\u{180e}\u{200b}-\u{200f}\u{202a}-\u{202e}\u{2060}-\u{206f}\u{20e3}\u{fe00}-\u{fe0f}\u{feff}]*";
    Regex::new(&form.replace('S', separator).replace('Z', no_width)).expect("it is a valid pattern")
}

/// Digits with at most three separators between two of them.
static RUN: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?:[+\u{ff0b}(\u{ff08}]Z){0,3}\p{Nd}(?:Z(?:SZ){0,3}\p{Nd})+Z"));

fn ascii(form: &str) -> Regex {
    Regex::new(&form.replace('T', r"(?:[01]?[0-9]|2[0-4])")).expect("it is a valid pattern")
}

static YEAR_FIRST: LazyLock<Regex> =
    LazyLock::new(|| ascii(r"\A(?:19|20)[0-9]{2}([-/.])([0-9]{1,2})([-/.])([0-9]{1,2})"));
static YEAR_LAST: LazyLock<Regex> =
    LazyLock::new(|| ascii(r"\A([0-9]{1,2})([-/.])([0-9]{1,2})([-/.])((?:19|20)[0-9]{2}|[0-9]{2})"));
/// `9-12`, `8.30 - 12.00`, `0900-1730`.
static HOURS: LazyLock<Regex> = LazyLock::new(|| {
    ascii(
        r"\A(?:(T)(?:\.[0-5][0-9])? ?- ?(T)(?:\.[0-5][0-9])?|([01][0-9]|2[0-4])(?:00|15|30|45) ?- ?([01][0-9]|2[0-4])(?:00|15|30|45))",
    )
});
static TIME: LazyLock<Regex> = LazyLock::new(|| ascii(r"\AT(?:\.[0-5][0-9])?"));
static YEARS: LazyLock<Regex> = LazyLock::new(|| ascii(r"\A((?:19|20)[0-9]{2}) ?[-/] ?((?:19|20)[0-9]{2})"));
static SPAN: LazyLock<Regex> = LazyLock::new(|| ascii(r"\A([1-9][0-9]{0,2}) ?- ?([1-9][0-9]{0,2})"));
static ROW: LazyLock<Regex> =
    LazyLock::new(|| ascii(r"\A[1-9][0-9]{0,2}(?:(?: ?- ?|[ /])[1-9][0-9]{0,2}){3,}"));
/// Prices and measures: `9.90 14.90`, `9.90 - 14.90`, `12.00/15.00/18.00`, `0.5 1.0 1.5 2.0`.
static PRICES: LazyLock<Regex> = LazyLock::new(|| {
    ascii(r"\A(?:0|[1-9][0-9]{0,3})\.[0-9]{1,2}(?:(?: ?[-/] ?| )(?:0|[1-9][0-9]{0,3})\.[0-9]{1,2})+")
});
/// An amount that a currency or cents stand beside: `1.299.000`, `1 299 000`, `1500000`.
static AMOUNT: LazyLock<Regex> = LazyLock::new(|| {
    ascii(r"\A[1-9](?:[0-9]{0,2}(?:\.[0-9]{3})+|[0-9]{0,2}(?: [0-9]{3})+|[0-9]{6,8})(?:\.[0-9]{2})?\z")
});
static CURRENCY_BEFORE: LazyLock<Regex> = LazyLock::new(|| {
    ascii(
        r"(?:\A|[^\p{Nd}\s])\s*(?:\p{Sc}|\b(?i:eur|euros?|usd|gbp|chf|inr|brl|rs\.?|kr\.?|mxn|idr|rp\.?|zar|aed|sar|ngn|kes))\s?\z",
    )
});
static CURRENCY_AFTER: LazyLock<Regex> = LazyLock::new(|| {
    ascii(
        r"\A(?:,[0-9]{2}\b|\s?(?:\p{Sc}|(?i:eur|euros?|usd|dollars?|gbp|pounds?|chf|francs?|inr|rupees|brl|reais|pesos|mxn|idr|zar|aed|sar|ngn|kes|kr|z\u{142}|円|元)\b)(?:\z|\s*[^\p{Nd}\s]))",
    )
});

/// Returns the text with each phone number replaced.
pub(super) fn replace(text: &str, mut replacement: impl FnMut(&str) -> String) -> String {
    let (mut replaced, mut from) = (String::with_capacity(text.len()), 0);
    for found in RUN.find_iter(text) {
        let run = Run::of(found.as_str());
        if run.digits(0..run.ascii.len()) < DIGITS {
            continue;
        }
        let (before, after) = (&text[..found.start()], &text[found.end()..]);
        if run.is_amount(before, after) {
            continue;
        }
        for (at, end) in run.numbers() {
            let (at, end) = (found.start() + at, found.start() + end);
            replaced.push_str(&text[from..at]);
            replaced.push_str(&replacement(&text[at..end]));
            from = end;
        }
    }
    replaced.push_str(&text[from..]);
    replaced
}

/// Run of digits and separators, in ASCII, with the place of each character in the text.
struct Run {
    ascii: String,
    /// Position at which each character of `ascii` begins, and at last the end of the run.
    places: Vec<usize>,
}

impl Run {
    fn of(text: &str) -> Self {
        let (mut ascii, mut places) = (String::with_capacity(text.len()), Vec::with_capacity(text.len() + 1));
        for (at, c) in text.char_indices() {
            if let Some(c) = in_ascii(c) {
                ascii.push(c);
                places.push(at);
            }
        }
        places.push(text.len());
        Self { ascii, places }
    }

    fn digits(&self, range: std::ops::Range<usize>) -> usize {
        self.ascii[range].bytes().filter(u8::is_ascii_digit).count()
    }

    /// Returns true for an amount of money.
    fn is_amount(&self, before: &str, after: &str) -> bool {
        // What stands beside it is a word or two.
        let tail = before.char_indices().rev().take(12).last().map_or("", |(at, _)| &before[at..]);
        AMOUNT.is_match(&self.ascii) && (CURRENCY_BEFORE.is_match(tail) || CURRENCY_AFTER.is_match(after))
    }

    /// Returns the places of the phone numbers in it.
    fn numbers(&self) -> Vec<(usize, usize)> {
        let text = self.ascii.as_str();
        if !text.starts_with('+') && is_figures(text) {
            return Vec::new();
        }
        let (mut numbers, mut from, mut at) = (Vec::new(), 0, 0);
        while at < text.len() {
            let begins = at == 0 || matches!(text.as_bytes()[at - 1], b' ' | b'(');
            match begins.then(|| date(&text[at..])).flatten().filter(|date| self.is_kept(at, date)) {
                Some(date) => {
                    self.number(from..at, &mut numbers);
                    at += date.length;
                    from = at;
                }
                None => at += 1,
            }
        }
        self.number(from..text.len(), &mut numbers);
        numbers
    }

    /// Returns true for a date that is kept beside a number: its year has four digits, or what follows it is a number by
    /// itself, so that the date is no part of one.
    fn is_kept(&self, at: usize, date: &Date) -> bool {
        let end = at + date.length;
        matches!(self.ascii.as_bytes().get(end), None | Some(b' ' | b')'))
            && (date.has_whole_year || (at == 0 && self.digits(end..self.ascii.len()) >= DIGITS))
    }

    fn number(&self, range: std::ops::Range<usize>, numbers: &mut Vec<(usize, usize)>) {
        let text = &self.ascii[range.clone()];
        if self.digits(range.clone()) < DIGITS || is_figures(text) {
            return;
        }
        let begins = |c: char| c.is_ascii_digit() || matches!(c, '+' | '(');
        let first = text.find(begins).unwrap_or(0);
        let last = text.rfind(|c: char| c.is_ascii_digit()).unwrap_or(text.len() - 1);
        numbers.push((self.places[range.start + first], self.places[range.start + last + 1]));
    }
}

/// The character in ASCII; `None` for signs of no width.
fn in_ascii(c: char) -> Option<char> {
    match c {
        '0'..='9' | '+' | '(' | ')' | '/' | '.' | '-' | '_' | ' ' => Some(c),
        '\t' | '\u{a0}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}' => Some(' '),
        '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{ff0d}' => Some('-'),
        '\u{b7}' | '\u{2022}' | '\u{30fb}' | '\u{ff0e}' => Some('.'),
        '\u{ff0f}' => Some('/'),
        '\u{ff0b}' => Some('+'),
        '\u{ff08}' => Some('('),
        '\u{ff09}' => Some(')'),
        _ if !c.is_numeric() => None,
        // A digit of another script belongs to a number all the same.
        _ => digits::value(c).map_or(Some('9'), |value| char::from_digit(value, 10)),
    }
}

/// Returns true where all of it is figures of a business.
fn is_figures(text: &str) -> bool {
    let mut rest = text.trim_matches([' ', '(', ')']);
    while !rest.is_empty() {
        let Some(length) = figure(rest) else { return false };
        let after = rest[length..].trim_start_matches([' ', '(', ')']);
        let between = rest.len() - length - after.len();
        // Another one begins behind a space, a slash, or the dash of a span.
        rest = match after.strip_prefix(['/', '-']) {
            Some(next) => next.trim_start_matches(' '),
            None if between == 0 && !after.is_empty() => return false,
            None => after,
        };
    }
    true
}

/// Returns the length of the figure that it begins with.
fn figure(text: &str) -> Option<usize> {
    let date = || {
        let date = date(text)?;
        // A time may follow.
        let rest = &text[date.length..];
        let time = rest.strip_prefix(' ').and_then(|time| TIME.find(time)).map_or(0, |time| time.end() + 1);
        let is_whole = |length: usize| {
            !text[length..].starts_with(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-'))
                || text[length..].starts_with(" -")
        };
        [date.length + time, date.length].into_iter().find(|&length| is_whole(length)).or_else(|| {
            // The dash of a span of dates.
            text[date.length..].strip_prefix('-').and_then(self::date).map(|_| date.length)
        })
    };
    let ends = |length: &usize| {
        !text[*length..].starts_with(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '_'))
    };
    date()
        .or_else(|| hours(text).filter(ends))
        .or_else(|| years(text).filter(ends))
        .or_else(|| Some(PRICES.find(text)?.end()).filter(ends))
        .or_else(|| row(text).filter(ends))
        .or_else(|| span(text).filter(ends))
}

/// A date at the beginning of a text.
struct Date {
    length: usize,
    has_whole_year: bool,
}

fn date(text: &str) -> Option<Date> {
    let number = |part: Option<regex::Match<'_>>| part.and_then(|part| part.as_str().parse::<u32>().ok());
    let is_day = |month, day| (1..=12).contains(&month) && (1..=31).contains(&day);
    let is_over = |length: usize| !text[length..].starts_with(|c: char| c.is_ascii_digit());
    if let Some(found) = YEAR_FIRST.captures(text) {
        let (month, day) = (number(found.get(2))?, number(found.get(4))?);
        let length = found[0].len();
        return (found[1] == found[3] && is_day(month, day) && is_over(length))
            .then_some(Date { length, has_whole_year: true });
    }
    let found = YEAR_LAST.captures(text)?;
    let (one, other) = (number(found.get(1))?, number(found.get(3))?);
    let length = found[0].len();
    (found[2] == found[4] && (is_day(other, one) || is_day(one, other)) && is_over(length))
        .then_some(Date { length, has_whole_year: found[5].len() == 4 })
}

/// Opening hours, which end after they begin, or in the night.
fn hours(text: &str) -> Option<usize> {
    let found = HOURS.captures(text)?;
    let hour = |one: usize, other: usize| found.get(one).or(found.get(other))?.as_str().parse::<u32>().ok();
    let (from, to) = (hour(1, 3)?, hour(2, 4)?);
    (from < to || (from >= 12 && to <= 6)).then_some(found[0].len())
}

fn pair(pattern: &Regex, text: &str, most: u32) -> Option<usize> {
    let found = pattern.captures(text)?;
    let (from, to) = (found[1].parse::<u32>().ok()?, found[2].parse::<u32>().ok()?);
    (from < to && to - from <= most).then_some(found[0].len())
}

/// Two years.
fn years(text: &str) -> Option<usize> {
    pair(&YEARS, text, 30)
}

/// A span of sizes or ages, such as 36-40.
fn span(text: &str) -> Option<usize> {
    pair(&SPAN, text, 10)
}

/// A row of sizes, such as 36-38-40-42: four or more, each as much larger as the one before.
fn row(text: &str) -> Option<usize> {
    let found = ROW.find(text)?;
    let sizes = found.as_str().split(|c: char| !c.is_ascii_digit()).filter(|size| !size.is_empty());
    let sizes: Vec<_> = sizes.filter_map(|size| size.parse::<u32>().ok()).collect();
    let step = sizes[1].checked_sub(sizes[0]).filter(|step| (1..=10).contains(step))?;
    sizes.windows(2).all(|two| two[0] + step == two[1]).then_some(found.end())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> String {
        replace(text, |_| "#".to_owned())
    }

    #[test]
    fn numbers_are_found_however_they_are_written() {
        for (text, expected) in [
            ("my number is 06.12.34.56.78, thanks", "my number is #, thanks"),
            ("01-23-45-67-89 or 12-34-56-78", "# or #"),
            ("12 34 56 78", "#"),
            ("2026-11-26 06 12 34 56 78", "2026-11-26 #"),
            ("26.11.26 06 12 34 56 78", "26.11.26 #"),
            ("06 12 34 56 78 on 26.11.2026", "# on 26.11.2026"),
            ("06 12 34 56 78 2026-11-26", "# 2026-11-26"),
            ("٠٦١٢٣٤٥٦٧٨", "#"),
            ("۰۹۱۲ ۳۴۵ ۶۷۸۹", "#"),
            ("मेरा नंबर ९८७६५ ४३२१० है", "मेरा नंबर # है"),
            ("＋４９（１５１）１２３４５６７８", "#"),
            ("0\u{200b}6\u{200d}1\u{2060}2\u{feff}345678!", "#!"),
            ("06\u{200b}.\u{200b}12\u{200b}.34.56.78", "#"),
            (
                "6\u{fe0f}\u{20e3}1\u{fe0f}\u{20e3}2\u{fe0f}\u{20e3}3\u{fe0f}\u{20e3}4\u{fe0f}\u{20e3}5\u{fe0f}\u{20e3}6\u{fe0f}\u{20e3}",
                "#",
            ),
            ("+49 – 151 – 1234567", "#"),
            ("612 345 678", "#"),
            ("612.345.678", "#"),
            ("06-12 34 56 78", "#"),
            ("100€ 612345678", "100€ #"),
            ("06 12 34 56 78 20", "#"),
            ("+1 (9-12) 14-18", "#"),
        ] {
            assert_eq!(shown(text), expected, "{text:?}");
        }
    }

    #[test]
    fn figures_of_a_business_stay() {
        for text in [
            "Monday 9-12 14-18",
            "Mon 08-12 14-18 Tue 9-12",
            "Mo-Fr 08.00-12.30 14.00-18.00",
            "9.00 - 17.00",
            "8:00–12:00 14:00–18:00",
            "9–12 14–18",
            "(9-12 14-18)",
            "0900-1730",
            "18-02 19-03",
            "26.11.2026 9-12 14-18",
            "26.11.2026 - 28.11.2026",
            "26.11.2026-28.11.2026",
            "2026-11-26 10.30",
            "season 2025-2026",
            "catalogue 2025/2026",
            "bottles of 0.5 1.0 1.5 2.0 litres",
            "sizes 36-38-40-42-44",
            "sizes 36 38 40 42",
            "36-40 41-45",
            "9.90 14.90 19.90",
            "12.00/15.00/18.00",
            "€1.299.000",
            "1 299 000 €",
            "1500000 EUR",
            "1.299.000,00",
            "९-१२ १४-१८",
        ] {
            assert_eq!(shown(text), text);
        }
    }

    proptest! {
        /// For any script, grouping and separator, a number of nine digits or more with a leading zero is found whole.
        #[test]
        fn a_number_is_found_in_any_script(
            digits in proptest::collection::vec(0_u32..10, 8..13),
            zero in proptest::sample::select(&digits::ZEROS[..]),
            separator in proptest::sample::select(&["", " ", ".", "-", "\u{200b}", " - ", "\u{a0}", "\u{2011}", "．"][..]),
            group in 1_usize..5,
        ) {
            let digits: Vec<_> = std::iter::once(0).chain(digits).collect();
            let groups: Vec<String> = digits
                .chunks(group)
                .map(|group| group.iter().filter_map(|digit| char::from_u32(zero + digit)).collect())
                .collect();
            let text = format!("call {} now", groups.join(separator));
            // A number that is written as hours and dates are is one of them.
            prop_assume!(!is_figures(&Run::of(&groups.join(separator)).ascii));
            let shown = shown(&text);
            prop_assert!(!shown.chars().any(char::is_numeric), "{text:?} is {shown:?}");
        }

        #[test]
        fn nothing_but_numbers_changes(text in "[0-9०-९ ./()+\\-a-e\u{200b}€,]{0,60}") {
            let mut originals = Vec::new();
            let shown = replace(&text, |number| {
                originals.push(number.to_owned());
                "#".to_owned()
            });
            let mut restored = shown;
            for original in &originals {
                restored = restored.replacen('#', original, 1);
            }
            prop_assert_eq!(restored, text);
        }
    }
}
