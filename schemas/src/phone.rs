//! Phone numbers: the forms in which people write them, and the forms in which networks and channels know them. Pure.
//!
//! A number is kept as the digits of its E.164 form, without `+`. It is read from any common form, with the country code
//! in front as `+` or `00`. Three countries have two forms of one mobile number, and a channel may know a person by
//! either ([`PhoneNumber::variants`]):
//!
//! | country | dialled | older form, kept by WhatsApp for many |
//! |---|---|---|
//! | Brazil | `+55 31 98888-7777` | `+55 31 8888-7777`: without the ninth digit |
//! | Mexico | `+52 55 1234 5678` | `+52 1 55 1234 5678`: with a 1 |
//! | Argentina | `+54 11 2345-6789` | `+54 9 11 2345-6789`: with a 9 |
//!
//! The rules are those of the national numbering plans, as the ITU lists them
//! (<https://www.itu.int/oth/T0202.aspx?parent=T0202>): ANATEL's ninth digit before mobile numbers that begin with 6 to 9,
//! Mexico's 1 that fell away in 2019, Argentina's 9 of mobile numbers. The metadata of all countries that a library
//! such as `phonenumber` brings would say nothing of the older forms, and takes megabytes.

use std::fmt;

use crate::digits;

/// Digits of an E.164 number at most (<https://www.itu.int/rec/T-REC-E.164>).
const MAX_DIGITS: usize = 15;
/// Digits of a number with its country code at least; shorter ones are short codes, which are no person's.
const MIN_DIGITS: usize = 2;
/// Characters of a written number at most.
const MAX_CHARS: usize = 64;

/// A phone number, as the digits of its E.164 form.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PhoneNumber(String);

impl PhoneNumber {
    /// Reads a number that is written with its country code: behind `+` or `00`, with spaces, dashes, dots, slashes and
    /// parentheses, and digits of any script. `None` where it is none, or its country is not said.
    #[must_use]
    pub fn international(text: &str) -> Option<Self> {
        let written = Written::read(text)?;
        match (written.has_plus, written.digits.strip_prefix("00")) {
            (true, _) => Self::of_digits(&written.digits),
            (false, Some(digits)) => Self::of_digits(digits),
            (false, None) => None,
        }
    }

    /// Reads a number of which it is known that the country code is there, as a channel writes its ids: also without `+`.
    #[must_use]
    pub fn of_channel(text: &str) -> Option<Self> {
        let written = Written::read(text)?;
        Self::of_digits(written.digits.strip_prefix("00").unwrap_or(&written.digits))
    }

    fn of_digits(digits: &str) -> Option<Self> {
        let is_number = (MIN_DIGITS..=MAX_DIGITS).contains(&digits.len()) && !digits.starts_with('0');
        is_number.then(|| Self(digits.to_owned()))
    }

    /// Its digits, beginning with the country code.
    #[must_use]
    pub fn digits(&self) -> &str {
        &self.0
    }

    /// Returns its digits.
    #[must_use]
    pub fn into_digits(self) -> String {
        self.0
    }

    /// Returns the number, and the other forms in which it may be known.
    #[must_use]
    pub fn variants(&self) -> Vec<Self> {
        let mut variants = vec![self.clone()];
        let other = ["55", "52", "54"].into_iter().find_map(|country| {
            let national = self.0.strip_prefix(country)?;
            let other = match country {
                "55" => brazilian(national),
                "52" => with_or_without(national, '1', 10),
                _ => with_or_without(national, '9', 10),
            };
            other.map(|national| Self(format!("{country}{national}")))
        });
        variants.extend(other);
        variants
    }
}

/// Two digits of the area, and eight or nine of the subscriber. Landlines, which begin with 2 to 5, have eight.
fn brazilian(national: &str) -> Option<String> {
    let (area, subscriber) = national.split_at_checked(2)?;
    let is_mobile = |digits: &str| digits.len() == 8 && digits.starts_with(['6', '7', '8', '9']);
    match subscriber.strip_prefix('9').filter(|rest| is_mobile(rest)) {
        Some(rest) => Some(format!("{area}{rest}")),
        None => is_mobile(subscriber).then(|| format!("{area}9{subscriber}")),
    }
}

/// The number of `length` digits with the mark in front, or of one that has it, without.
fn with_or_without(national: &str, mark: char, length: usize) -> Option<String> {
    match national.strip_prefix(mark).filter(|rest| rest.len() == length) {
        Some(rest) => Some(rest.to_owned()),
        None => (national.len() == length).then(|| format!("{mark}{national}")),
    }
}

/// A number as it was written.
struct Written {
    has_plus: bool,
    digits: String,
}

impl Written {
    fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.chars().nth(MAX_CHARS).is_some() {
            return None;
        }
        let after_plus = text.strip_prefix(['+', '\u{ff0b}']);
        let mut digits = String::new();
        for c in after_plus.unwrap_or(text).chars() {
            match digits::ascii(c) {
                Some(digit) => digits.push(digit),
                None if is_separator(c) => {}
                None => return None,
            }
        }
        // The national prefix that is left out behind a country code, as in +44 (0) 20 7946 0018, is left to the person.
        Some(Self { has_plus: after_plus.is_some(), digits })
    }
}

/// Returns whether a character is written between the digits of a number, and means nothing.
#[must_use]
pub fn is_separator(c: char) -> bool {
    c.is_whitespace()
        || matches!(c, '-' | '.' | '/' | '(' | ')' | '\u{2010}'..='\u{2015}' | '\u{2212}')
        // Marks of direction and of width that copying brings along.
        || digits::has_no_width(c)
}

/// As people read it, with `+`.
impl fmt::Display for PhoneNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "+{}", self.0)
    }
}

/// As logs may show it: without the number.
impl fmt::Debug for PhoneNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PhoneNumber(+..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_common_form_is_the_same_number() {
        for text in [
            "+5531988887777",
            "+55 31 98888-7777",
            "+55 (31) 98888-7777",
            "0055 31 98888 7777",
            "+55.31.98888.7777",
            " +55\u{a0}31\u{a0}98888\u{2011}7777 ",
            "\u{ff0b}\u{ff15}\u{ff15}31988887777",
            "+\u{665}\u{665} \u{663}\u{661} 98888 7777",
        ] {
            let number = PhoneNumber::international(text);
            assert_eq!(number.map(PhoneNumber::into_digits).as_deref(), Some("5531988887777"), "{text}");
        }
        assert_eq!(PhoneNumber::of_channel("55 31 98888-7777").unwrap().digits(), "5531988887777");
    }

    #[test]
    fn what_is_no_number_or_of_no_known_country_is_refused() {
        for text in
            ["", "+", "+0151 23456", "015112345678", "5531988887777", "+49 151 x", "+1234567890123456"]
        {
            assert_eq!(PhoneNumber::international(text), None, "{text}");
        }
        for text in ["", "0", "12-ab", "1234567890123456", &"1 ".repeat(40)] {
            assert_eq!(PhoneNumber::of_channel(text), None, "{text}");
        }
    }

    #[test]
    fn a_mobile_number_of_three_countries_has_two_forms() {
        // Pairs of what is dialled and of WhatsApp's id of it.
        for (one, other) in [
            ("5531988887777", "553188887777"),
            ("525512345678", "5215512345678"),
            ("541123456789", "5491123456789"),
        ] {
            for (from, to) in [(one, other), (other, one)] {
                let variants = PhoneNumber::of_channel(from).unwrap().variants();
                let digits: Vec<_> = variants.iter().map(PhoneNumber::digits).collect();
                assert_eq!(digits, [from, to]);
            }
        }
    }

    #[test]
    fn other_numbers_have_one_form() {
        // Landlines of Brazil, a number of Germany, and numbers of lengths that no plan has.
        for text in ["553133334444", "4915112345678", "55319888877", "5255123456", "54912345", "15551234567"]
        {
            assert_eq!(PhoneNumber::of_channel(text).unwrap().variants().len(), 1, "{text}");
        }
    }

    #[test]
    fn a_number_is_not_shown_in_logs() {
        let number = PhoneNumber::international("+4915112345678").unwrap();
        assert_eq!(number.to_string(), "+4915112345678");
        assert!(!format!("{number:?}").contains('4'));
    }
}
