//! Reads a file into what it holds.

use std::io::Cursor;
use std::ops::ControlFlow;

use heddle_import::consent;
use heddle_import::{Choices, Event, Format, ImportError, Mapping, Options, Person, Reason, read};

/// Everything that a file holds.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) begun: Option<(Format, Mapping)>,
    pub(crate) people: Vec<Person>,
    pub(crate) refused: Vec<(u64, Reason)>,
    pub(crate) duplicates: Vec<u64>,
}

impl Held {
    /// Number and values of each person, as text.
    pub(crate) fn people(&self) -> Vec<String> {
        let show = |person: &Person| {
            let values = person.values.iter().map(|(name, value)| format!(" {name}={value}"));
            format!("{}{}", person.phone, values.collect::<String>())
        };
        self.people.iter().map(show).collect()
    }
}

pub(crate) fn options(country: &str) -> Options {
    Options {
        country: (!country.is_empty()).then(|| country.parse().unwrap()),
        choices: Choices::default(),
        sheet: None,
        dates: None,
        now: consent::time("2026-06-01", None).unwrap(),
    }
}

pub(crate) fn try_read(file: &[u8], options: &Options) -> Result<Held, ImportError> {
    let mut held = Held::default();
    read(Cursor::new(file), options, &mut |event| {
        match event {
            Event::Began(format, mapping) => held.begun = Some((format.clone(), mapping.clone())),
            Event::Person(person) => held.people.push(person),
            Event::Reject(reject) => held.refused.push((reject.line, reject.reason)),
            Event::Duplicate(line) => held.duplicates.push(line),
        }
        ControlFlow::Continue(())
    })?;
    Ok(held)
}

pub(crate) fn held(file: &[u8], country: &str) -> Held {
    try_read(file, &options(country)).unwrap()
}
