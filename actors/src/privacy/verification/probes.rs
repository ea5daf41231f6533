//! Plaintext probes: texts and addresses of customers, which must not be found anywhere.

use std::collections::BTreeSet;

use aho_corasick::AhoCorasick;
use heddle_schemas::content::{Address, Asks};
use heddle_schemas::tenant::Tenant;

use super::form::Holds;
use crate::conversation::thread::EntrySaid;

/// Maximum number of probes.
const PROBES: usize = 256;
/// Minimum length of a probe: one below it is found by chance.
const SHORTEST: usize = 12;
/// Minimum number of digits of a phone number that is a probe.
const DIGITS: usize = 8;
/// Length to which a longer probe is cut: the first part suffices.
const LONGEST: usize = 64;

/// Sample of customers' texts, numbers and ids.
pub struct PlaintextProbes {
    /// Texts that the tenant wrote itself, which may be anywhere.
    known: String,
    found: BTreeSet<String>,
}

impl PlaintextProbes {
    pub(super) fn new(tenant: &Tenant) -> Self {
        let known = serde_json::to_string(tenant).expect("a tenant is always JSON");
        Self { known, found: BTreeSet::new() }
    }

    pub(super) fn take(&mut self, holds: &Holds) {
        match holds {
            Holds::Head { address, .. } => self.take_address(address),
            Holds::History(row) => {
                for entry in &row.entries {
                    let EntrySaid::Customer { act, .. } = entry else { continue };
                    self.take_address(&act.from);
                    if let Some(Asks::Answer(text)) = act.content.as_ref().map(|content| content.asks()) {
                        self.take_text(text);
                    }
                }
            }
            _ => {}
        }
    }

    fn take_address(&mut self, address: &Address) {
        for id in address.ids() {
            if id.len() >= DIGITS {
                self.insert(id);
            }
        }
    }

    fn take_text(&mut self, text: &str) {
        // JSON escapes these, so the probe is the text between them.
        let parts = text.split(|c: char| c.is_control() || c == '"' || c == '\\').map(str::trim);
        let Some(longest) = parts.max_by_key(|part| part.len()) else { return };
        if longest.len() >= SHORTEST {
            let end = (0..=LONGEST.min(longest.len())).rev().find(|&at| longest.is_char_boundary(at));
            self.insert(&longest[..end.unwrap_or(0)]);
        }
    }

    fn insert(&mut self, probe: &str) {
        if self.found.len() < PROBES && !self.known.contains(probe) {
            self.found.insert(probe.to_owned());
        }
    }

    /// Returns the number of probes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// Returns true when there is no probe.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The longest of them, in bytes.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.found.iter().map(String::len).max().unwrap_or(0)
    }

    /// Returns a searcher that finds any of them.
    ///
    /// # Panics
    /// Never: they are few and short.
    #[must_use]
    pub fn searcher(&self) -> AhoCorasick {
        AhoCorasick::new(&self.found).expect("a few hundred short patterns")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probes() -> PlaintextProbes {
        PlaintextProbes {
            known: "{\"fallback\":\"A colleague will call you back.\"}".into(),
            found: BTreeSet::new(),
        }
    }

    #[test]
    fn short_and_known_texts_are_not_looked_for() {
        let mut probes = probes();
        probes.take_text("yes please");
        probes.take_text("A colleague will call you back.");
        assert!(probes.is_empty());
        probes.take_text("my knee hurts since Tuesday");
        assert_eq!(probes.len(), 1);
        assert!(probes.searcher().is_match(b"{\"body\":\"my knee hurts since Tuesday\"}"));
        assert!(!probes.searcher().is_match(b"{\"body\":\"my knee hurts\"}"));
    }

    #[test]
    fn a_text_is_looked_for_as_json_writes_it() {
        let mut probes = probes();
        let text = "he said \"come at ten o'clock\"\nand then nothing more for a while";
        probes.take_text(text);
        let json = serde_json::to_vec(text).unwrap();
        assert!(probes.searcher().is_match(&json));
    }

    #[test]
    fn numbers_of_contacts_are_looked_for() {
        let mut probes = probes();
        probes.take_address(&Address { phone: Some("491570000001".into()), ..Address::default() });
        assert!(probes.searcher().is_match("to 491570000001"));
    }
}
