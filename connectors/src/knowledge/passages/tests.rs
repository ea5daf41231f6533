//! Passages keep to their sizes and headings for any input.

use std::time::Duration;

use super::*;

fn markdown(text: &str) -> Vec<Cut> {
    cut(DocumentFormat::Markdown, text)
}

fn texts(cuts: &[Cut]) -> Vec<&str> {
    cuts.iter().map(|cut| cut.text.as_str()).collect()
}

#[test]
fn a_passage_never_crosses_a_heading() {
    let cuts = markdown(
        "Hi.\n\n# Clinic\n\n## Hours\n\nNine to five.\n\n## Prices\n\nA visit is 40 euros.\n\n# Ways\n\nBy bus.",
    );
    assert_eq!(texts(&cuts), ["Hi.", "Nine to five.", "A visit is 40 euros.", "By bus."]);
    let headings: Vec<_> = cuts.iter().map(|cut| cut.headings.join("/")).collect();
    assert_eq!(headings, ["", "Clinic/Hours", "Clinic/Prices", "Ways"]);
}

#[test]
fn small_paragraphs_are_joined_and_large_ones_stand_alone() {
    let large = "A sentence of some length for the clinic. ".repeat(8);
    let large = large.trim();
    let text = format!("One.\n\nTwo.\n\n{large}\n\n{large}\n\nLast.");
    let cuts = cut(DocumentFormat::Text, &text);
    assert_eq!(texts(&cuts), [format!("One.\n\nTwo.\n\n{large}"), format!("{large}\n\nLast.")]);
}

#[test]
fn a_long_paragraph_is_cut_at_sentences_with_some_overlap() {
    let text: String = (0..200).map(|n| format!("This is sentence number {n} of all. ")).collect();
    let cuts = cut(DocumentFormat::Text, &text);
    assert!((9..20).contains(&cuts.len()), "{}", cuts.len());
    for pair in cuts.windows(2) {
        let [one, next] = pair else { panic!() };
        assert!(one.text.chars().count() <= MOST && one.text.ends_with("of all."), "{one:?}");
        let shared = next.text.split_inclusive("of all.").next().unwrap();
        assert!(one.text.contains(shared), "{shared}");
    }
}

#[test]
fn plain_text_is_not_markdown() {
    let cuts = cut(DocumentFormat::Text, "# No heading\r\n\r\n* no item\r\n");
    assert_eq!(texts(&cuts), ["# No heading\n\n* no item"]);
}

#[test]
fn a_text_without_a_word_is_no_passage() {
    assert_eq!(cut(DocumentFormat::Text, "---\n\n...\n\n***"), []);
    assert_eq!(markdown("# Only a heading\n\n---\n"), []);
}

#[test]
fn too_many_passages_are_reported() {
    assert_eq!(markdown(&"# a\n\nb\n\n".repeat(MAX_PASSAGES + 100)).len(), MAX_PASSAGES + 1);
    let long = "word ".repeat(MAX_PASSAGES * MOST / 5 + MOST);
    assert_eq!(cut(DocumentFormat::Text, &long).len(), MAX_PASSAGES + 1);
}

/// Cuts on a thread, so that a slow cut fails instead of hanging.
fn cut_in_time(text: String, what: &str) {
    let (done, finished) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(cut(DocumentFormat::Markdown, &text).len()));
    let cut = finished.recv_timeout(Duration::from_secs(60));
    assert!(cut.is_ok(), "{what}: not cut in a minute, on a stack of 2 MiB");
}

#[test]
fn hostile_markdown_takes_bounded_time_and_depth() {
    let nested: String = (0..2_000).map(|depth| format!("{}- x\n", "  ".repeat(depth))).collect();
    let hostile = [
        (">".repeat(100_000), "quotes"),
        ("> ".repeat(100_000) + "x", "quotes with text"),
        ("[".repeat(100_000), "brackets"),
        ("[a](".repeat(25_000), "links"),
        ("![".repeat(50_000) + "x", "images"),
        ("#".repeat(1 << 20), "hashes"),
        ("# ".repeat(1 << 19), "headings of hashes"),
        ("- ".repeat(50_000) + "x", "lists in one line"),
        (nested, "lists in lists"),
        ("*a_".repeat(100_000), "emphasis"),
        ("`".repeat(100_000) + "x", "ticks"),
        ("<".repeat(100_000), "tags"),
        ("x<br>\n&nbsp;".repeat(50_000), "breaks"),
        (format!("|{}\n|{}\n", "a|".repeat(20_000), "-|".repeat(20_000)) + &"|x\n".repeat(20_000), "cells"),
        ("x".repeat(1 << 20), "one word"),
        ("x ".repeat(1 << 19), "one sentence"),
        (format!("# {}\n\n{}", "h".repeat(1 << 19), "p\n\n# x\n\n".repeat(1_000)), "a long heading"),
        ("\u{301}".repeat(1 << 19), "marks"),
        ("\u{202e}a\u{200d}".repeat(1 << 17), "joiners"),
    ];
    for (text, what) in hostile {
        cut_in_time(text, what);
    }
}
