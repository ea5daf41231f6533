//! A document cut into passages: the units that are searched, shown to an LLM, and answered with.
//!
//! A passage has about 100 to 800 characters and stands under one heading. Small blocks are joined
//! with the next ones under the same heading; a block that is too long is cut at ends of sentences,
//! and the pieces overlap a little so that text across a cut is found in one of them. Text without a
//! letter or digit is left out: no search could find it.

use std::collections::VecDeque;

use heddle_schemas::ports::knowledge::DocumentFormat;

use super::document::MAX_PASSAGES;
use super::markdown::{self, Part};
use crate::words::{composed, has_a_word, sentences};

/// Characters from which on a passage takes no more.
const ENOUGH: usize = 100;
/// Characters that a passage has at most.
const MOST: usize = 800;
/// Characters that the pieces of a long block may share.
const OVERLAP: usize = 100;
/// Characters of a heading that are kept: every passage below carries it.
const HEADING: usize = 200;

/// A passage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cut {
    /// The headings above it, the outermost first.
    pub(super) headings: Vec<String>,
    /// The text.
    pub(super) text: String,
}

/// The passages of a text, in order: all, or one more than a document may have.
pub(super) fn cut(format: DocumentFormat, text: &str) -> Vec<Cut> {
    let text = &composed(text);
    let mut cutter = Cutter::default();
    match format {
        DocumentFormat::Markdown => markdown::read(text, &mut |part| cutter.take(part)),
        DocumentFormat::Text => paragraphs(text, &mut |part| cutter.take(part)),
    }
    cutter.end_passage();
    cutter.cuts
}

/// Returns the paragraphs of a plain text, which empty lines separate.
fn paragraphs(text: &str, take: &mut dyn FnMut(Part) -> bool) {
    let mut paragraph = String::new();
    for line in text.lines().map(str::trim_end).chain([""]) {
        if !line.is_empty() {
            paragraph.push_str(line);
            paragraph.push('\n');
        } else if !paragraph.is_empty() && !take(Part::Block(std::mem::take(&mut paragraph))) {
            return;
        }
    }
}

#[derive(Default)]
struct Cutter {
    /// The headings around, with their levels.
    headings: Vec<(u8, String)>,
    /// The passage under way, and its characters.
    text: String,
    chars: usize,
    /// Passages before this one are under other headings.
    section_from: usize,
    cuts: Vec<Cut>,
}

impl Cutter {
    /// Takes the next part; false once there are too many passages.
    fn take(&mut self, part: Part) -> bool {
        match part {
            Part::Heading(level, heading) => self.heading(level, &heading),
            Part::Block(block) if has_a_word(&block) => self.block(block.trim()),
            Part::Block(_) => {}
        }
        self.cuts.len() <= MAX_PASSAGES
    }

    fn heading(&mut self, level: u8, heading: &str) {
        self.end_passage();
        self.section_from = self.cuts.len();
        self.headings.retain(|(above, _)| *above < level);
        self.headings.push((level, heading.chars().take(HEADING).collect()));
    }

    fn block(&mut self, block: &str) {
        let chars = block.chars().count();
        if chars > MOST {
            self.end_passage();
            self.long_block(block);
            return;
        }
        if self.chars >= ENOUGH || self.chars + chars + 2 > MOST {
            self.end_passage();
        }
        self.append(block, chars);
    }

    fn append(&mut self, block: &str, chars: usize) {
        if !self.text.is_empty() {
            self.text.push_str("\n\n");
            self.chars += 2;
        }
        self.text.push_str(block);
        self.chars += chars;
    }

    fn long_block(&mut self, block: &str) {
        let mut piece = Piece::default();
        for unit in units(block) {
            let chars = unit.chars().count();
            if piece.chars + chars > MOST {
                self.push(piece.text());
                piece.keep_overlap(MOST - chars);
            }
            piece.add(unit, chars);
            if self.cuts.len() > MAX_PASSAGES {
                return;
            }
        }
        self.push(piece.text());
    }

    fn end_passage(&mut self) {
        let (text, chars) = (std::mem::take(&mut self.text), std::mem::take(&mut self.chars));
        if text.is_empty() {
            return;
        }
        // A last small block would say little alone.
        let before = self.cuts.get_mut(self.section_from..).and_then(<[_]>::last_mut);
        match before {
            Some(before) if chars < ENOUGH && before.text.chars().count() + chars + 2 <= MOST => {
                before.text.push_str("\n\n");
                before.text.push_str(&text);
            }
            _ => self.push(text),
        }
    }

    fn push(&mut self, text: String) {
        if !has_a_word(&text) {
            return;
        }
        let headings = self.headings.iter().map(|(_, heading)| heading.clone()).collect();
        self.cuts.push(Cut { headings, text });
    }
}

/// A piece of a long block: whole units of it.
#[derive(Default)]
struct Piece<'a> {
    units: VecDeque<(&'a str, usize)>,
    chars: usize,
}

impl<'a> Piece<'a> {
    fn add(&mut self, unit: &'a str, chars: usize) {
        self.units.push_back((unit, chars));
        self.chars += chars;
    }

    fn text(&self) -> String {
        self.units.iter().map(|(unit, _)| *unit).collect::<String>().trim().to_owned()
    }

    /// Leaves the units that the next piece begins with: the last ones, as far as they are small and leave
    /// `room`.
    fn keep_overlap(&mut self, room: usize) {
        while self.chars > OVERLAP.min(room) {
            let Some((_, chars)) = self.units.pop_front() else { return };
            self.chars -= chars;
        }
    }
}

/// Returns the units between which a long block is cut: its sentences, and the words of those that are too long.
fn units(block: &str) -> impl Iterator<Item = &str> {
    sentences(block).flat_map(|sentence| {
        let is_long = sentence.chars().count() > MOST;
        let words = is_long.then(|| sentence.split_inclusive(char::is_whitespace).flat_map(runs));
        let whole = (!is_long).then_some(sentence);
        whole.into_iter().chain(words.into_iter().flatten())
    })
}

/// A word in runs that fit into a passage.
fn runs(mut word: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let to = word.char_indices().nth(MOST).map_or(word.len(), |(at, _)| at);
        let (run, rest) = word.split_at(to);
        word = rest;
        (!run.is_empty()).then_some(run)
    })
}

#[cfg(test)]
mod tests;
