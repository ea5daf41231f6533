//! Search for texts in all stored data.

use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::path::Path;

use aho_corasick::AhoCorasick;
use heddle_schemas::ports::log::{FetchLimit, Log};
use heddle_schemas::ports::state::{State, Walk};
use heddle_schemas::table::Table;
use heddle_schemas::topic::{Topic, TopicPartition};

use super::words;

/// Result of a search.
pub(crate) struct Searched {
    searcher: AhoCorasick,
    /// Rows, records or files.
    pub(crate) things: u64,
    pub(crate) bytes: u64,
    found: BTreeMap<&'static str, Vec<String>>,
}

impl Default for Searched {
    fn default() -> Self {
        let searcher = AhoCorasick::new(words()).unwrap();
        Self { searcher, things: 0, bytes: 0, found: BTreeMap::new() }
    }
}

impl Searched {
    /// In how many things a text was found.
    pub(crate) fn found(&self, word: &str) -> usize {
        self.found.get(word).map_or(0, Vec::len)
    }

    fn search(&mut self, bytes: &[u8], place: impl Fn() -> String) {
        self.things += 1;
        self.bytes += bytes.len() as u64;
        let mut found: Vec<_> =
            self.searcher.find_overlapping_iter(bytes).map(|hit| hit.pattern().as_usize()).collect();
        found.sort_unstable();
        found.dedup();
        for word in found {
            self.found.entry(words()[word]).or_default().push(place());
        }
    }
}

impl fmt::Display for Searched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} things of {} KiB searched", self.things, self.bytes >> 10)?;
        for (word, places) in &self.found {
            write!(f, "; {word:?} in {}, such as {}", places.len(), places[0])?;
        }
        Ok(())
    }
}

/// Every row of every tenant.
pub(crate) async fn rows(state: &dyn State, searched: &mut Searched) {
    let tables: Vec<_> = Table::ALL.into_iter().filter(|table| *table != Table::Agenda).collect();
    let mut walk = Walk { tables, tenant: None, after: None, limit: 1_000 };
    loop {
        let page = state.walk(&walk).await.unwrap();
        for row in &page.rows {
            searched.search(row.key.as_bytes(), || format!("the key {:?}", row.key));
            searched.search(&row.value, || format!("{:?}", row.key));
        }
        if !walk.go_on(&page) {
            return;
        }
    }
}

/// Every record of a topic.
pub(crate) async fn topic(log: &dyn Log, topic: Topic, searched: &mut Searched) {
    let limit = FetchLimit { records: 1_000, bytes: 8 << 20 };
    for partition in 0..log.partitions(topic) {
        let partition = TopicPartition { topic, partition };
        let (mut next, end) = (0, log.end(partition).await.unwrap());
        while next < end {
            let page = log.look(partition, next, limit).await.unwrap();
            let Some(last) = page.last() else { break };
            next = last.offset + 1;
            for record in &page {
                let place = || format!("{partition} at {}", record.offset);
                searched.search(&[&record.key[..], b" ", &record.value[..]].concat(), place);
            }
        }
    }
}

/// Every file below a folder whose path is one of `these`.
pub(crate) fn files(folder: &Path, these: &dyn Fn(&Path) -> bool, searched: &mut Searched) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            files(&path, these, searched);
        } else if path.is_file() && these(&path) {
            match std::fs::read(&path) {
                Ok(bytes) => searched.search(&bytes, || path.display().to_string()),
                // Servers delete files while they run.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => panic!("{}: {error}", path.display()),
            }
        }
    }
}
