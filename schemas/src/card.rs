//! Numbers of payment cards in a text.
//!
//! A number is one where its check digit (Luhn), its length and the first digits of an issuer agree, in the digits of any
//! script and in groups of any size. What begins with `+` or `00` is a phone number. One of ten other numbers that an
//! issuer's could begin is taken for a card too.

use std::borrow::Cow;
use std::ops::Range;

use serde_json::Value;

use crate::digits;

/// Text that stands for a card number.
pub const REDACTED: &str = "[card number removed]";
/// Separators between two digits, at most.
const SEPARATORS: usize = 3;

/// First digits, from and to, and the lengths that such numbers have: ISO/IEC 7812, by the issuers' own publications as
/// collected in <https://en.wikipedia.org/wiki/Payment_card_number#Issuer_identification_number_(IIN)>.
const ISSUERS: &[(&str, &str, &[usize])] = &[
    ("4", "4", &[13, 16, 19]),
    ("51", "55", &[16]),
    ("2221", "2720", &[16]),
    ("34", "34", &[15]),
    ("37", "37", &[15]),
    ("300", "305", &[14, 15, 16, 17, 18, 19]),
    ("3095", "3095", &[14, 15, 16, 17, 18, 19]),
    ("36", "36", &[14, 15, 16, 17, 18, 19]),
    ("38", "39", &[14, 15, 16, 17, 18, 19]),
    ("3528", "3589", &[16, 17, 18, 19]),
    ("6011", "6011", &[16, 17, 18, 19]),
    ("644", "659", &[16, 17, 18, 19]),
    ("62", "62", &[16, 17, 18, 19]),
    ("81", "82", &[16, 17, 18, 19]),
    ("2200", "2204", &[16, 17, 18, 19]),
    ("5018", "5018", &[12, 13, 14, 15, 16, 17, 18, 19]),
    ("5020", "5020", &[12, 13, 14, 15, 16, 17, 18, 19]),
    ("5038", "5038", &[12, 13, 14, 15, 16, 17, 18, 19]),
    ("5061", "5099", &[16, 18, 19]),
    ("5893", "5893", &[12, 13, 14, 15, 16, 17, 18, 19]),
    ("6304", "6304", &[12, 13, 14, 15, 16, 17, 18, 19]),
    ("6759", "6763", &[12, 13, 14, 15, 16, 17, 18, 19]),
    ("606", "608", &[16]),
    ("6362", "6363", &[16]),
    ("9792", "9792", &[16]),
];

/// Digits of an international prefix and a country code, at most, behind which a phone number goes on.
const COUNTRY: usize = 5;

/// A digit, and its place in the text.
struct Digit {
    value: u8,
    place: Range<usize>,
    /// True where a separator stands before it.
    begins: bool,
}

/// Returns the text with each card number replaced.
#[must_use]
pub fn redact(text: &str) -> Cow<'_, str> {
    // Most texts have no run of digits that is long enough.
    if text.len() < 12 {
        return Cow::Borrowed(text);
    }
    let mut found = Vec::new();
    for (run, is_phone) in runs(text) {
        found.extend(cards(&run, is_phone));
    }
    if found.is_empty() {
        return Cow::Borrowed(text);
    }
    let (mut redacted, mut from) = (String::with_capacity(text.len()), 0);
    for place in found {
        redacted.push_str(&text[from..place.start]);
        redacted.push_str(REDACTED);
        from = place.end;
    }
    redacted.push_str(&text[from..]);
    Cow::Owned(redacted)
}

/// Replaces each card number in the texts and numbers of a JSON value. Fields that hold an address or an id stay.
pub fn redact_json(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Cow::Owned(redacted) = redact(text) {
                *text = redacted;
            }
        }
        Value::Number(number) => {
            if let Cow::Owned(redacted) = redact(&number.to_string()) {
                *value = Value::String(redacted);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact_json),
        Value::Object(fields) => {
            const ADDRESSES: [&str; 7] = ["from", "to", "id", "wa_id", "user_id", "phone", "timestamp"];
            let rest = fields.iter_mut().filter(|(name, _)| !ADDRESSES.contains(&name.as_str()));
            rest.for_each(|(_, value)| redact_json(value));
        }
        Value::Null | Value::Bool(_) => {}
    }
}

/// The runs of twelve digits or more, each with whether its first group begins a phone number.
fn runs(text: &str) -> Vec<(Vec<Digit>, bool)> {
    let (mut runs, mut run) = (Vec::new(), Vec::<Digit>::new());
    let (mut separators, mut plus, mut is_phone) = (0, false, false);
    let mut end = |run: &mut Vec<Digit>, is_phone: bool| {
        if run.len() >= 12 {
            runs.push((std::mem::take(run), is_phone));
        }
        run.clear();
    };
    for (at, c) in text.char_indices() {
        match digits::value(c) {
            Some(value) => {
                if run.is_empty() {
                    is_phone = plus;
                }
                let (value, begins) = (u8::try_from(value).unwrap_or_default(), separators > 0);
                run.push(Digit { value, place: at..at + c.len_utf8(), begins });
                separators = 0;
            }
            None if digits::has_no_width(c) => continue,
            None if !run.is_empty() && separators < SEPARATORS && is_separator(c) => separators += 1,
            None => {
                end(&mut run, is_phone);
                separators = 0;
            }
        }
        plus = matches!(c, '+' | '\u{ff0b}') || (plus && matches!(c, '(' | ' '));
    }
    end(&mut run, is_phone);
    runs
}

fn is_separator(c: char) -> bool {
    c.is_whitespace()
        || matches!(
            c,
            '-' | '.' | '_' | '/' | '\u{2010}'
                ..='\u{2015}' | '\u{2212}' | '\u{b7}' | '\u{2022}' | '\u{ff0d}' | '\u{ff0e}' | '*' | ','
        )
}

/// The places of the cards in a run: of each group that may begin one, the longest.
fn cards(run: &[Digit], is_phone: bool) -> Vec<Range<usize>> {
    let (mut cards, mut at) = (Vec::new(), 0);
    let mut follows_phone = is_phone || begins_with_zeros(run);
    while at < run.len() {
        let begins = at == 0 || run[at].begins;
        let length = (begins && !(follows_phone && at < COUNTRY))
            .then(|| (12..=19.min(run.len() - at)).rev().find(|&length| is_card(&run[at..], length)))
            .flatten();
        match length {
            Some(length) => {
                cards.push(run[at].place.start..run[at + length - 1].place.end);
                at += length;
                follows_phone = false;
            }
            None => at += 1,
        }
    }
    cards
}

/// Returns whether it begins with the prefix of international calls.
fn begins_with_zeros(run: &[Digit]) -> bool {
    matches!(run, [one, other, ..] if one.value == 0 && other.value == 0)
}

/// Returns whether the first `length` digits are a card's, and a group ends with them.
fn is_card(run: &[Digit], length: usize) -> bool {
    let ends = run.get(length).is_none_or(|next| next.begins);
    let values: Vec<u8> = run[..length].iter().map(|digit| digit.value).collect();
    ends && is_of_issuer(&values) && passes_luhn(&values)
}

fn is_of_issuer(values: &[u8]) -> bool {
    ISSUERS.iter().any(|(from, to, lengths)| {
        let begin = values[..from.len()].iter().map(|value| value + b'0');
        let begin: Vec<u8> = begin.collect();
        lengths.contains(&values.len()) && (from.as_bytes()..=to.as_bytes()).contains(&begin.as_slice())
    })
}

/// The check digit of ISO/IEC 7812-1, annex B.
fn passes_luhn(values: &[u8]) -> bool {
    let sum: u32 = values
        .iter()
        .rev()
        .enumerate()
        .map(|(place, &value)| match (place % 2, u32::from(value) * 2) {
            (0, _) => u32::from(value),
            (_, doubled) => doubled / 10 + doubled % 10,
        })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Numbers that issuers and payment providers publish for tests:
    /// <https://docs.stripe.com/testing>, <https://www.paypalobjects.com/en_GB/vhelp/paypalmanager_help/credit_card_numbers.htm>.
    const CARDS: [&str; 12] = [
        "4111111111111111",
        "4222222222222",
        "4012888888881881",
        "5555555555554444",
        "5105105105105100",
        "2223003122003222",
        "378282246310005",
        "371449635398431",
        "6011111111111117",
        "30569309025904",
        "3530111333300000",
        "6200000000000005",
    ];

    #[test]
    fn cards_are_removed_however_they_are_written() {
        for card in CARDS {
            assert_eq!(
                redact(&format!("my card is {card}, thanks")),
                format!("my card is {REDACTED}, thanks"),
                "{card}"
            );
        }
        for text in [
            "4111 1111 1111 1111",
            "4111-1111-1111-1111",
            "4111.1111.1111.1111",
            "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
            "4111\u{a0}1111\u{a0}1111\u{a0}1111",
            "4111\u{200b}1111\u{200b}1111\u{200b}1111",
            "4111\n1111\n1111\n1111",
            "٤١١١ ١١١١ ١١١١ ١١١١",
            "４１１１１１１１１１１１１１１１",
            "3782 822463 10005",
        ] {
            assert_eq!(redact(text), REDACTED, "{text:?}");
        }
        assert_eq!(redact("4111 1111 1111 1111 12/26 123"), format!("{REDACTED} 12/26 123"));
        assert_eq!(redact("order 77 4111 1111 1111 1111"), format!("order 77 {REDACTED}"));
        assert_eq!(redact("4111111111111111 5555555555554444"), format!("{REDACTED} {REDACTED}"));
    }

    #[test]
    fn other_numbers_stay() {
        for text in [
            "4111 1111 1111 1112",
            "+49 176 1234 5678 901",
            "+4111111111111111",
            "0049 4222 2222 22222",
            "room 4711, 12.30, 2026-11-26",
            "1234 5678 9012 3456",
            "1111111111111111111",
            "12345678901234567890411111111111111199",
            "9999999999999995",
            "",
        ] {
            assert_eq!(redact(text), text);
        }
    }

    #[test]
    fn a_value_is_searched_through_and_its_addresses_stay() {
        let mut value = json!({
            "from": "4222222222222", "answers": [{ "card": "4111 1111 1111 1111", "as_number": 4111111111111111_u64 }],
        });
        redact_json(&mut value);
        let expected =
            json!({ "from": "4222222222222", "answers": [{ "card": REDACTED, "as_number": REDACTED }] });
        assert_eq!(value, expected);
    }

    proptest! {
        /// For any of the issuers' numbers, in any grouping and script.
        #[test]
        fn no_digit_of_a_card_is_left(
            card in proptest::sample::select(&CARDS[..]),
            group in 1_usize..7,
            separator in proptest::sample::select(&["", " ", "-", ".", "\u{200b}", "  ", " - "][..]),
            zero in proptest::sample::select(&digits::ZEROS[..]),
        ) {
            let written: Vec<_> = card.bytes().filter_map(|digit| char::from_u32(zero + u32::from(digit - b'0'))).collect();
            let groups: Vec<String> = written.chunks(group).map(|group| group.iter().collect()).collect();
            let text = format!("it is {}!", groups.join(separator));
            prop_assert_eq!(redact(&text).into_owned(), format!("it is {REDACTED}!"));
        }

        #[test]
        fn redaction_is_done_once(text in "[0-9 .+a-c-]{0,60}") {
            let once = redact(&text).into_owned();
            prop_assert_eq!(redact(&once).into_owned(), once.clone());
        }
    }
}
