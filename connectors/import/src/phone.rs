//! Phone numbers as people and spreadsheets write them, to E.164.
//!
//! Numbers are checked by Google's metadata, through the crate `rlibphonenumber`, a port of Google's library. (The
//! crate `phonenumber` was measured beside it: of 2,684 pairs of number and country it read 35 otherwise, among them
//! `+4915112345678` read in the US as `+495112345678`; and it took four times as long.)
//!
//! Before that the cell is cleaned of what a person would not see in it: apostrophes and `="..."` of spreadsheets,
//! zero-width and direction marks, digits of other scripts, `tel:`. A number without `+` is read as dialled in the import's country; where that is none, with its first
//! `00` as `+`, or as a number that lacks only its `+`. The country's own code at its beginning counts as one: WhatsApp
//! and many exports write numbers without `+`, and people write their own country's with a `0`.
//!
//! | cell | country | result |
//! |---|---|---|
//! | `+49 (0)151 1234-5678`, `0049151...` | any | `+4915112345678` |
//! | `0151/12345678`, `4915112345678` | DE | `+4915112345678` |
//! | `0151 12345678` | none | [`Reason::NoCountry`] |
//! | `4.915112345678E+12` | DE | `+4915112345678`: every digit is there |
//! | `4.91512E+12` | any | [`Reason::DigitsLost`] |
//! | two different numbers | any | [`Reason::SeveralNumbers`]: a consent is for one number, and either could be a stranger's |
//!
//! A mobile number of Brazil without its ninth digit, and one of Mexico with the former `1`, are no valid numbers any
//! more, but WhatsApp's own ids are written like that; they become today's form. Which ids of a channel are one person
//! is not decided here but by the engine's identity.

use std::fmt;
use std::str::FromStr;

use heddle_schemas::digits;
use rlibphonenumber::{PHONE_NUMBER_UTIL, PhoneNumber, PhoneNumberFormat, Region};

use crate::reject::Reason;

/// Characters of a cell that are read, at most.
const CELL_CHARS: usize = 256;
/// Digits of a number, at most; E.164 has 15, and a prefix may stand before them.
const DIGITS: usize = 20;

/// Phone number in E.164 form. Shown as `+4915112345678`, in debug output without its digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct E164(u64);

impl E164 {
    /// The number as one integer of at most 15 digits.
    #[must_use]
    pub fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for E164 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "+{}", self.0)
    }
}

impl fmt::Debug for E164 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("E164(+..)")
    }
}

/// Country whose dialling rules apply to numbers without a country code, as its ISO 3166 code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Country(Region);

/// Error for a text that is no country's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no country: write its code of two letters (ISO 3166), such as DE or BR")]
pub struct InvalidCountry;

impl FromStr for Country {
    type Err = InvalidCountry;

    fn from_str(text: &str) -> Result<Self, InvalidCountry> {
        let is_code = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_alphabetic());
        let region: Option<Region> = is_code.then(|| text.to_ascii_uppercase().parse().ok()).flatten();
        let is_known =
            |region: &Region| PHONE_NUMBER_UTIL.get_supported_regions().any(|known| known == *region);
        region.filter(is_known).map(Self).ok_or(InvalidCountry)
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Reads a cell.
///
/// # Errors
/// The reason for which it holds no number, or not one.
pub fn read(cell: &str, country: Option<Country>) -> Result<E164, Reason> {
    if cell.chars().nth(CELL_CHARS).is_some() {
        return Err(Reason::NotANumber);
    }
    let clean = clean(cell);
    let text = unwrapped(&clean);
    if text.is_empty() {
        return Err(Reason::NoNumber);
    }
    if text.starts_with('#') && text.ends_with(['!', '?', 'A']) {
        return Err(Reason::FormulaError);
    }
    if let Some(digits) = scientific(text) {
        return one(&digits?, country);
    }
    one(whole_part(text), country).or_else(|reason| several(text, country).unwrap_or(Err(reason)))
}

/// The text without invisible characters, with ASCII digits, plain spaces and hyphens.
fn clean(cell: &str) -> String {
    let plain = cell.chars().filter(|sign| !digits::has_no_width(*sign)).map(|sign| match sign {
        '\u{ff0b}' | '\u{fe62}' => '+',
        '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{fe63}' | '\u{ff0d}' => '-',
        '\u{ff08}' => '(',
        '\u{ff09}' => ')',
        '\u{ff0f}' => '/',
        '\u{ff0e}' => '.',
        '\n' | '\r' => '\n',
        sign if sign.is_whitespace() => ' ',
        sign => digits::ascii(sign).unwrap_or(sign),
    });
    plain.collect::<String>().trim().to_owned()
}

/// The text without a spreadsheet's marks and without a link's beginning.
fn unwrapped(text: &str) -> &str {
    let mut text = text.trim_start_matches(['\'', '\u{2018}', '\u{2019}', '`', ' ']);
    if let Some(inner) = text.strip_prefix("=\"").and_then(|rest| rest.strip_suffix('"')) {
        text = inner;
    }
    for prefix in ["https://wa.me/", "http://wa.me/", "wa.me/", "whatsapp:", "tel:"] {
        if let Some(rest) = text.get(..prefix.len()).filter(|start| start.eq_ignore_ascii_case(prefix)) {
            return text[rest.len()..].trim();
        }
    }
    text.trim()
}

/// Digits of a number in scientific notation, if the text is one; [`Reason::DigitsLost`] where some are missing.
fn scientific(text: &str) -> Option<Result<String, Reason>> {
    let (mantissa, exponent) = text.split_once(['e', 'E'])?;
    let (whole, fraction) = mantissa.split_once(['.', ',']).unwrap_or((mantissa, ""));
    let whole = whole.strip_prefix('+').unwrap_or(whole);
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let exponent: usize = exponent.strip_prefix('+').unwrap_or(exponent).parse().ok()?;
    if whole.is_empty() || whole.len() > DIGITS || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    if fraction.len() < exponent {
        return Some(Err(Reason::DigitsLost));
    }
    let (kept, rest) = fraction.split_at(exponent);
    let is_whole = rest.bytes().all(|byte| byte == b'0');
    Some(if is_whole { Ok(format!("{whole}{kept}")) } else { Err(Reason::NotANumber) })
}

/// The text without the `.0` that programs put behind whole numbers.
fn whole_part(text: &str) -> &str {
    match text.split_once('.') {
        Some((whole, zeros))
            if whole.len() >= 7
                && whole.bytes().all(|byte| byte.is_ascii_digit())
                && !zeros.is_empty()
                && zeros.bytes().all(|byte| byte == b'0') =>
        {
            whole
        }
        _ => text,
    }
}

/// Reads a text that is one number.
fn one(text: &str, country: Option<Country>) -> Result<E164, Reason> {
    let text = text.trim_start_matches(['(', ' ']);
    let (has_plus, rest) = text.strip_prefix('+').map_or((false, text), |rest| (true, rest));
    if !rest.bytes().all(|byte| byte.is_ascii_digit() || b" -.()/".contains(&byte)) {
        return Err(Reason::NotANumber);
    }
    let digits: String = rest.chars().filter(char::is_ascii_digit).collect();
    if digits.is_empty() {
        return Err(Reason::NotANumber);
    }
    if digits.len() > DIGITS {
        return Err(Reason::InvalidNumber);
    }
    if has_plus {
        let digits = digits.strip_prefix("00").unwrap_or(&digits);
        return international(digits).map(|(number, _)| number);
    }
    without_plus(&digits, country)
}

/// Reads digits without `+`: as dialled in the country, unless they begin with the country's own code and are one of
/// its numbers behind it, or as a number that lacks only its `+`.
fn without_plus(digits: &str, country: Option<Country>) -> Result<E164, Reason> {
    let Some(Country(region)) = country else {
        return match digits.strip_prefix("00") {
            Some(digits) => international(digits).map(|(number, _)| number),
            None => Err(Reason::NoCountry),
        };
    };
    let as_dialled = known(Some(region), digits);
    let with_plus = match (digits.strip_prefix("00"), digits.strip_prefix('0')) {
        (Some(digits), _) => international(digits),
        // A number of Brazil as it was dialled before the ninth digit.
        (None, Some(rest)) if region == Region::BR => international(&format!("55{rest}")),
        (None, None) if region == Region::BR && digits.len() == 10 => international(&format!("55{digits}")),
        (None, Some(_)) => Err(Reason::InvalidNumber),
        (None, None) => international(digits),
    };
    match (as_dialled, with_plus) {
        (Ok((_, code)), Ok((number, own))) if code == own => Ok(number),
        (Ok((number, _)), _) | (Err(_), Ok((number, _))) => Ok(number),
        (Err(reason), Err(_)) => Err(reason),
    }
}

/// Reads digits that begin with a country's calling code.
fn international(digits: &str) -> Result<(E164, i32), Reason> {
    let number = known(None, &format!("+{digits}"));
    number.or_else(|reason| known(None, &modern(digits).ok_or(reason)?))
}

/// Today's form of a mobile number of Brazil or Mexico in its former form.
fn modern(digits: &str) -> Option<String> {
    if let Some(rest) = digits.strip_prefix("521").filter(|rest| rest.len() == 10) {
        return Some(format!("+52{rest}"));
    }
    let (area, number) = digits.strip_prefix("55").filter(|rest| rest.len() == 10)?.split_at(2);
    number.starts_with(['6', '7', '8', '9']).then(|| format!("+55{area}9{number}"))
}

/// Reads digits by the metadata; returns the country's calling code too.
fn known(country: Option<Region>, digits: &str) -> Result<(E164, i32), Reason> {
    let number = PhoneNumber::parse(digits, country).map_err(|_| Reason::InvalidNumber)?;
    if !number.is_valid() {
        return Err(Reason::InvalidNumber);
    }
    let written = number.format_as(PhoneNumberFormat::E164);
    let value = written.strip_prefix('+').and_then(|digits| digits.parse().ok());
    let value = value.filter(|value| *value < 1_000_000_000_000_000);
    value.map(|value| (E164(value), number.country_code)).ok_or(Reason::InvalidNumber)
}

/// Reads a text that holds at least two numbers: the same one twice is one number.
fn several(text: &str, country: Option<Country>) -> Option<Result<E164, Reason>> {
    let separates = |sign: char| matches!(sign, ',' | ';' | '|' | '&' | '/' | '\n') || sign.is_alphabetic();
    let parts = text.split(separates).flat_map(numbers_with_plus);
    let mut numbers = parts.filter_map(|part| one(part.trim(), country).ok());
    let (first, second) = (numbers.next()?, numbers.next()?);
    let is_same = second == first && numbers.all(|number| number == first);
    Some(if is_same { Ok(first) } else { Err(Reason::SeveralNumbers) })
}

/// Splits before each `+`: numbers that only a space parts.
fn numbers_with_plus(text: &str) -> impl Iterator<Item = &str> {
    let starts = text.match_indices('+').map(|(at, _)| at).filter(|at| *at > 0);
    let ends = starts.clone().chain([text.len()]);
    [0].into_iter().chain(starts).zip(ends).map(|(start, end)| &text[start..end])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_in(country: &str, cell: &str) -> Result<String, Reason> {
        let country = (!country.is_empty()).then(|| country.parse().unwrap());
        read(cell, country).map(|number| number.to_string())
    }

    #[test]
    fn a_number_is_read_however_it_is_written() {
        // The numbers are those of the network agencies' ranges for fiction where there are such.
        for (country, cell, expected) in [
            ("", "+4915112345678", "+4915112345678"),
            ("", "+49 (0)151 1234-5678", "+4915112345678"),
            ("", "+49 (0) 151/12 34 56 78", "+4915112345678"),
            ("", "004915112345678", "+4915112345678"),
            ("", "+004915112345678", "+4915112345678"),
            ("", "'+49 151 12345678", "+4915112345678"),
            ("", "=\"+4915112345678\"", "+4915112345678"),
            ("", "tel:+49-151-12345678", "+4915112345678"),
            ("DE", "0151 12345678", "+4915112345678"),
            ("DE", "0151/12345678", "+4915112345678"),
            ("DE", "0151.1234.5678", "+4915112345678"),
            ("DE", "4915112345678", "+4915112345678"),
            ("DE", "4915112345678.0", "+4915112345678"),
            ("DE", "15112345678", "+4915112345678"),
            ("DE", "4.915112345678E+12", "+4915112345678"),
            ("DE", "4,915112345678E+12", "+4915112345678"),
            ("DE", "\u{200e}0151\u{a0}1234\u{2011}5678\u{200b}", "+4915112345678"),
            ("DE", "\u{ff0b}\u{ff14}\u{ff19}15112345678", "+4915112345678"),
            ("DE", "030 901820", "+4930901820"),
            ("US", "+4915112345678", "+4915112345678"),
            ("AE", "97123456", "+97197123456"),
            ("US", "(415) 555-2671", "+14155552671"),
            ("US", "011 49 151 12345678", "+4915112345678"),
            ("US", "0049 151 12345678", "+4915112345678"),
            ("US", "4915112345678", "+4915112345678"),
            ("IT", "06 6982", "+39066982"),
            ("", "+39 06 6982", "+39066982"),
            ("BR", "(31) 98888-7777", "+5531988887777"),
            ("", "+55 31 8888-7777", "+5531988887777"),
            ("BR", "553188887777", "+5531988887777"),
            ("BR", "(031) 8888-7777", "+5531988887777"),
            ("BR", "31 8888-7777", "+5531988887777"),
            ("", "+52 1 55 1234 5678", "+525512345678"),
            ("", "+54 9 11 2345-6789", "+5491123456789"),
            ("AR", "011 15 2345-6789", "+5491123456789"),
            (
                "EG",
                "\u{0660}\u{0661}\u{0660}\u{0660}\u{0661}\u{0662}\u{0663}\u{0664}\u{0665}\u{0666}\u{0667}",
                "+201001234567",
            ),
            ("DE", "+49 151 12345678 / 0151 12345678", "+4915112345678"),
        ] {
            assert_eq!(read_in(country, cell).as_deref(), Ok(expected), "{country} {cell:?}");
        }
    }

    #[test]
    fn a_cell_without_one_number_says_why() {
        for (country, cell, expected) in [
            ("DE", "", Reason::NoNumber),
            ("DE", " \u{200b}' ", Reason::NoNumber),
            ("DE", "unknown", Reason::NotANumber),
            ("DE", "1-800-FLOWERS", Reason::NotANumber),
            ("DE", "4.91512E+12", Reason::DigitsLost),
            ("DE", "4,91512E+12", Reason::DigitsLost),
            ("DE", "5E12", Reason::DigitsLost),
            ("", "0151 12345678", Reason::NoCountry),
            ("", "4915112345678", Reason::NoCountry),
            ("DE", "12", Reason::InvalidNumber),
            ("DE", "+49 151", Reason::InvalidNumber),
            ("", "+999 123456789", Reason::InvalidNumber),
            ("DE", "123456789012345678901234567890", Reason::InvalidNumber),
            ("DE", "0151 12345678, 0152 12345678", Reason::SeveralNumbers),
            ("DE", "0151 12345678 / 0152 12345678", Reason::SeveralNumbers),
            ("DE", "+4915112345678 +4915212345678", Reason::SeveralNumbers),
            ("DE", "+4915112345678 or +4915212345678", Reason::SeveralNumbers),
            ("DE", "+4915112345678\n+4915212345678", Reason::SeveralNumbers),
            ("DE", "#N/A", Reason::FormulaError),
            ("DE", "#REF!", Reason::FormulaError),
        ] {
            assert_eq!(read_in(country, cell), Err(expected), "{country} {cell:?}");
        }
    }

    #[test]
    fn a_country_is_a_code_of_two_letters() {
        assert_eq!("de".parse::<Country>().unwrap().to_string(), "DE");
        for text in ["", "D", "DEU", "49", "ZZ", "Germany"] {
            assert_eq!(text.parse::<Country>(), Err(InvalidCountry), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_cell_panics(cell in "\\PC{0,40}", country in proptest::option::of("DE|US|BR|IT|AR|MX")) {
            let country = country.map(|code| code.parse().unwrap());
            let _ = read(&cell, country);
        }

        #[test]
        fn no_cell_of_digits_panics_and_what_is_read_is_read_again(
            cell in "[+0-9 ()./eE,'-]{0,30}",
            country in proptest::option::of("DE|US|BR|IT|AR|MX"),
        ) {
            let country = country.map(|code| code.parse().unwrap());
            if let Ok(number) = read(&cell, country) {
                prop_assert_eq!(read(&number.to_string(), None), Ok(number));
            }
        }
    }
}
