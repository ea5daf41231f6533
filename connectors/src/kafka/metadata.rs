//! A partition's position as the metadata of its committed offset.
//!
//! Kafka commits one offset, the prefix; what is done ahead of it goes into the commit's metadata, a string
//! that brokers bound (`offset.metadata.max.bytes`, 4,096 by default). It is written as pairs of varints, the
//! gap before a run of done offsets and the run's length, in base64. Runs that would go over the bound are
//! left out, the highest first: they are delivered again, and found done by their markers.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use heddle_schemas::ledger::Position;
use heddle_schemas::topic::Offset;

/// Names the encoding, so that another can follow.
const PREFIX: &str = "h1:";
/// Well below the brokers' limit.
const LIMIT: usize = 3_072;

/// Encodes the offsets that are settled ahead of the prefix.
pub(super) fn encode(position: &Position) -> String {
    let mut bytes = Vec::new();
    let mut before = position.next;
    for (first, length) in runs(position) {
        let at = bytes.len();
        varint(&mut bytes, first - before);
        varint(&mut bytes, length);
        if PREFIX.len() + bytes.len().div_ceil(3) * 4 > LIMIT {
            bytes.truncate(at);
            break;
        }
        before = first + length;
    }
    if bytes.is_empty() { String::new() } else { format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)) }
}

/// Decodes the committed position. Damaged metadata, or another program's, counts as nothing settled ahead.
pub(super) fn decode(next: Offset, metadata: &str) -> Position {
    let mut position = Position::at(next);
    let bytes = metadata.strip_prefix(PREFIX).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
    let bytes = bytes.unwrap_or_default();
    let mut rest = &bytes[..];
    let mut before = next;
    while let (Some(gap), Some(length)) = (take(&mut rest), take(&mut rest)) {
        let Some(first) = before.checked_add(gap) else { break };
        // A commit holds no more than a partition has permits for; anything longer is damage.
        let Some(end) = first.checked_add(length).filter(|_| length <= 1 << 20) else { break };
        position.ahead.extend(first..end);
        before = end;
    }
    // The prefix itself is never among those ahead.
    if position.ahead.contains(&next) {
        position.ahead.clear();
    }
    position
}

/// Runs of consecutive done offsets, each as its first and its length.
fn runs(position: &Position) -> Vec<(Offset, u64)> {
    let mut runs: Vec<(Offset, u64)> = Vec::new();
    for &offset in &position.ahead {
        match runs.last_mut() {
            Some((first, length)) if *first + *length == offset => *length += 1,
            _ => runs.push((offset, 1)),
        }
    }
    runs
}

fn varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_prefix_alone_needs_no_metadata() {
        assert_eq!(encode(&Position::at(7)), "");
        assert_eq!(decode(7, ""), Position::at(7));
        assert_eq!(decode(7, "somebody else's"), Position::at(7));
        assert_eq!(decode(7, "h1:AAE"), Position::at(7), "the prefix cannot be ahead of itself");
    }

    proptest! {
        #[test]
        fn offsets_ahead_come_back_or_are_left_out_from_the_top(
            next in 0_u64..1 << 40,
            steps in proptest::collection::vec((2_u64..5_000, 1_u64..40), 0..1_500),
        ) {
            let mut position = Position::at(next);
            let mut at = next;
            for (gap, length) in steps {
                at += gap;
                position.ahead.extend(at..at + length);
                at += length;
            }
            let metadata = encode(&position);
            prop_assert!(metadata.len() <= LIMIT);
            let back = decode(next, &metadata);
            prop_assert_eq!(back.next, next);
            prop_assert!(back.ahead.iter().zip(&position.ahead).all(|(a, b)| a == b));
            if position.ahead.len() < 300 {
                prop_assert_eq!(back.ahead.len(), position.ahead.len());
            }
        }

        #[test]
        fn damaged_metadata_does_no_harm(next in 0_u64..100, metadata in "(h1:)?[A-Za-z0-9_-]{0,60}") {
            let position = decode(next, &metadata);
            prop_assert!(position.next == next && !position.ahead.contains(&next));
        }
    }
}
