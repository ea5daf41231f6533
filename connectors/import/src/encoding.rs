//! Detection of a text's encoding, and a reader that decodes to UTF-8.
//!
//! A byte order mark decides. Without one, text with many NUL bytes is UTF-16, text that is valid UTF-8 to its last
//! byte is UTF-8, and all other text is Windows-1252, which is what Excel writes where no one chose an encoding.

use std::io::{self, Read, Seek, SeekFrom};

use encoding_rs::{Decoder, Encoding, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};

/// Bytes that are looked at for NUL bytes.
const SAMPLE: usize = 4_096;
/// Bytes that are read at a time.
pub(crate) const BLOCK: usize = 64 * 1_024;

/// Returns the encoding of a text; the source is back at its beginning.
pub(crate) fn detect(source: &mut (impl Read + Seek)) -> io::Result<&'static Encoding> {
    source.seek(SeekFrom::Start(0))?;
    let mut block = vec![0; BLOCK];
    let mut held = fill(source, &mut block, 0)?;
    let found = match Encoding::for_bom(&block[..held]) {
        Some((encoding, _)) => encoding,
        None => match utf_16(&block[..held.min(SAMPLE)]) {
            Some(encoding) => encoding,
            None => loop {
                match std::str::from_utf8(&block[..held]) {
                    Err(error) if error.error_len().is_some() => break WINDOWS_1252,
                    // A character may be cut by the end of the block.
                    Err(error) => {
                        block.copy_within(error.valid_up_to()..held, 0);
                        let cut = held - error.valid_up_to();
                        held = fill(source, &mut block, cut)?;
                        if held == cut {
                            break WINDOWS_1252;
                        }
                    }
                    Ok(_) => {
                        held = fill(source, &mut block, 0)?;
                        if held == 0 {
                            break UTF_8;
                        }
                    }
                }
            },
        },
    };
    source.seek(SeekFrom::Start(0))?;
    Ok(found)
}

/// Latin text in UTF-16 has a NUL in every second byte.
fn utf_16(sample: &[u8]) -> Option<&'static Encoding> {
    let zeros = |odd: usize| sample.iter().skip(odd).step_by(2).filter(|byte| **byte == 0).count();
    let (even, odd, pairs) = (zeros(0), zeros(1), sample.len() / 2);
    match pairs {
        0 => None,
        _ if odd * 3 > pairs && even * 10 < pairs => Some(UTF_16LE),
        _ if even * 3 > pairs && odd * 10 < pairs => Some(UTF_16BE),
        _ => None,
    }
}

/// Fills `block` from `from` on as far as the source goes; returns the number of bytes in it.
fn fill(source: &mut impl Read, block: &mut [u8], mut from: usize) -> io::Result<usize> {
    while from < block.len() {
        match source.read(&mut block[from..]) {
            Ok(0) => break,
            Ok(read) => from += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(from)
}

/// Reader of UTF-8 over a text of any encoding. Malformed parts become U+FFFD; a byte order mark is left out.
pub(crate) struct Decoded<R> {
    source: R,
    decoder: Decoder,
    raw: Vec<u8>,
    held: usize,
    ended: bool,
}

impl<R: Read> Decoded<R> {
    pub(crate) fn new(source: R, encoding: &'static Encoding) -> Self {
        Self {
            source,
            decoder: encoding.new_decoder_with_bom_removal(),
            raw: vec![0; BLOCK],
            held: 0,
            ended: false,
        }
    }

    /// Appends decoded text to `text`, about a block; returns false at the end of the source.
    pub(crate) fn read_into(&mut self, text: &mut Vec<u8>) -> io::Result<bool> {
        if self.ended {
            return Ok(false);
        }
        self.held = fill(&mut self.source, &mut self.raw, self.held)?;
        self.ended = self.held < self.raw.len();
        let start = text.len();
        let most = self.decoder.max_utf8_buffer_length(self.held).unwrap_or(self.held * 3 + 16);
        text.resize(start + most, 0);
        let (_, read, written, _) =
            self.decoder.decode_to_utf8(&self.raw[..self.held], &mut text[start..], self.ended);
        text.truncate(start + written);
        self.raw.copy_within(read..self.held, 0);
        self.held -= read;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn of(bytes: &[u8]) -> &'static str {
        detect(&mut Cursor::new(bytes)).unwrap().name()
    }

    #[test]
    fn the_encoding_is_known_by_mark_by_zeros_and_by_validity() {
        let wide = |text: &str, little: bool| -> Vec<u8> {
            let bytes = |unit: u16| if little { unit.to_le_bytes() } else { unit.to_be_bytes() };
            text.encode_utf16().flat_map(bytes).collect()
        };
        assert_eq!(of(b"\xef\xbb\xbfname"), "UTF-8");
        assert_eq!(of("Jürgen".as_bytes()), "UTF-8");
        assert_eq!(of(b"J\xfcrgen"), "windows-1252");
        assert_eq!(of(&wide("\u{feff}name;phone", true)), "UTF-16LE");
        assert_eq!(of(&wide("name;phone", true)), "UTF-16LE");
        assert_eq!(of(&wide("name;phone", false)), "UTF-16BE");
        assert_eq!(of(b""), "UTF-8");
    }

    #[test]
    fn one_byte_far_behind_decides_and_a_character_cut_by_a_block_does_not() {
        let mut late = vec![b'a'; BLOCK * 2];
        late.push(0xfc);
        late.extend(b" and more");
        assert_eq!(of(&late), "windows-1252");
        let mut cut = vec![b'a'; BLOCK - 1];
        cut.extend("ü and more".as_bytes());
        assert_eq!(of(&cut), "UTF-8");
        cut.pop();
        cut.truncate(BLOCK);
        assert_eq!(of(&cut), "windows-1252", "half a character at the end is not UTF-8");
    }

    #[test]
    fn decoding_in_blocks_gives_the_whole_text() {
        let text = "Zoë;+49 151\r\n".repeat(20_000);
        let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let mut decoded = Decoded::new(Cursor::new(bytes), UTF_16LE);
        let mut all = Vec::new();
        while decoded.read_into(&mut all).unwrap() {}
        assert!(all == text.as_bytes());
    }
}
