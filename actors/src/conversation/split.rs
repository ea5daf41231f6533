//! Answers that are longer than a message, in order.

/// Cuts a text into pieces of at most `limit` characters, at white space where there is some.
pub(super) fn split(text: String, limit: usize) -> Vec<String> {
    if !text.is_empty() && text.len() <= limit && text.trim().len() == text.len() {
        return vec![text];
    }
    let mut pieces = Vec::new();
    let mut rest = text.trim();
    while let Some((over, _)) = rest.char_indices().nth(limit) {
        let cut = rest[..over].rfind(char::is_whitespace).filter(|&cut| cut > over / 2).unwrap_or(over);
        pieces.push(rest[..cut].trim_end().to_owned());
        rest = rest[cut..].trim_start();
    }
    if !rest.is_empty() {
        pieces.push(rest.to_owned());
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_fit_and_lose_only_white_space(text in "[a-zé ]{0,400}", limit in 1_usize..50) {
            let pieces = split(text.clone(), limit);
            prop_assert!(pieces.iter().all(|piece| piece.chars().count() <= limit && !piece.is_empty()));
            let dense = |text: &str| text.split_whitespace().collect::<String>();
            prop_assert_eq!(dense(&pieces.join(" ")), dense(&text));
        }
    }
}
