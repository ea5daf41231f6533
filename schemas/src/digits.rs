//! Decimal digits of any script, and signs that have no width.

/// Zeros of the decimal digits of Unicode's scripts in wide use; nine more follow each.
/// <https://www.unicode.org/Public/UCD/latest/ucd/extracted/DerivedNumericType.txt>
pub const ZEROS: [u32; 32] = [
    0x30, 0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6, 0xe50,
    0xed0, 0xf20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1b50, 0x1bb0, 0xa8d0, 0xa900,
    0xabf0, 0xff10, 0x1e950, 0x1fbf0,
];

/// Returns the value of a decimal digit.
#[must_use]
pub fn value(c: char) -> Option<u32> {
    ZEROS.iter().filter_map(|zero| u32::from(c).checked_sub(*zero)).find(|value| *value < 10)
}

/// Returns the ASCII digit that a decimal digit of any script is.
#[must_use]
pub fn ascii(c: char) -> Option<char> {
    value(c).and_then(|value| char::from_digit(value, 10))
}

/// Returns true for signs that are not seen: soft hyphens, joiners, marks of direction, variation selectors.
#[must_use]
pub fn has_no_width(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{20e3}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_of_any_script_have_their_values() {
        let values = |text: &str| text.chars().map(value).collect::<Option<Vec<_>>>();
        assert_eq!(values("09٠٩०९０９"), Some(vec![0, 9, 0, 9, 0, 9, 0, 9]));
        assert_eq!(value('x').or(value(':')).or(value('½')), None);
        assert!(has_no_width('\u{200b}') && !has_no_width(' '));
    }
}
