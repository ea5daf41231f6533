//! TOML file that is read with every fault at once, each with its place and line.
//!
//! serde stops at the first fault. Here the value at that place is removed, or given a stand-in where it is required, and
//! the file is read again, until nothing is wrong any more. Faults that only the repair causes are not reported.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize as _;
use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::tenant::Faults;

/// Most readings of one file: a file needs one for each of its faults and up to one for each stand-in.
const READINGS_MAX: usize = 2_000;

/// Stand-ins for required values that are missing or wrong, in the order in which they are tried.
const STAND_INS: [&str; 6] = ["x", "whatsapp", "1", "https://x", "1h", "eu"];

/// TOML file, with the place and the source of each of its values.
#[derive(Debug, Clone)]
pub struct TomlFile {
    root: Node,
    name: Option<String>,
    /// Lines that are not TOML, with the fault.
    syntax: Vec<(usize, String)>,
}

#[derive(Debug, Clone)]
struct Node {
    /// Place in the file as it was written, such as `channels[0].kind`.
    place: String,
    source: Source,
    item: Item,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Whole,
    Line(usize),
    Variable(String),
    /// Index of the one of [`STAND_INS`] that is tried.
    StandIn(usize),
}

#[derive(Debug, Clone)]
enum Item {
    Value(toml::Value),
    Array(Vec<Node>),
    Table(BTreeMap<String, Node>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

/// Fault of one reading.
#[derive(Debug, PartialEq, Eq)]
struct Misread {
    path: Vec<Step>,
    message: String,
}

impl Misread {
    /// Returns the field that the table at `path` lacks.
    fn missing(&self) -> Option<&str> {
        self.message.strip_prefix("missing field `")?.split('`').next()
    }
}

/// Result of reading a file: the value as far as it could be read, and the faults so far.
#[derive(Debug)]
pub struct Reading<T> {
    /// The value, with a default or a stand-in for what is wrong; `None` where the whole could not be read.
    pub value: Option<T>,
    file: TomlFile,
    faults: Vec<String>,
    /// Places of the values that were left out.
    removed: BTreeSet<String>,
}

impl TomlFile {
    /// Parses a text; its syntax errors are reported with the other faults. The name stands in the faults.
    #[must_use]
    pub fn parse(text: &str, name: Option<&str>) -> Self {
        let (table, errors) = DeTable::parse_recoverable(text);
        let line = |at: usize| 1 + text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count();
        let syntax = errors.into_iter().map(|error| {
            (line(error.span().map_or(0, |span| span.start)), error.message().trim().replace('\n', ", "))
        });
        let syntax = syntax.collect();
        let item = Item::of_table(table.into_inner(), "", &line);
        let root = Node { place: String::new(), source: Source::Whole, item };
        Self { root, name: name.map(ToOwned::to_owned), syntax }
    }

    /// Sets a value from an environment variable, over the file's.
    pub fn set(&mut self, variable: &str, path: &[&str], value: toml::Value) {
        let mut node = &mut self.root;
        for (depth, key) in path.iter().enumerate() {
            let place = path[..=depth].join(".");
            if !matches!(node.item, Item::Table(_)) {
                node.item = Item::Table(BTreeMap::new());
            }
            let Item::Table(table) = &mut node.item else { return };
            node = table.entry((*key).to_owned()).or_insert_with(|| Node {
                place,
                source: Source::Variable(variable.to_owned()),
                item: Item::Table(BTreeMap::new()),
            });
        }
        node.source = Source::Variable(variable.to_owned());
        node.item = Item::of_value(value, &node.place, &node.source);
    }

    /// Reads the value. Every fault is kept for [`Reading::finish`].
    #[must_use]
    pub fn read<T: DeserializeOwned>(self) -> Reading<T> {
        let faults =
            self.syntax.iter().map(|(line, fault)| format!("{fault}{}", self.at_line(*line))).collect();
        let mut reading = Reading { value: None, file: self, faults, removed: BTreeSet::new() };
        for _ in 0..READINGS_MAX {
            match reading.file.attempt::<T>() {
                Ok(value) => {
                    reading.value = Some(value);
                    break;
                }
                Err(misread) if reading.repair::<T>(&misread) => {}
                Err(_) => break,
            }
        }
        reading
    }

    fn attempt<T: DeserializeOwned>(&self) -> Result<T, Misread> {
        serde_path_to_error::deserialize(self.root.value()).map_err(|error| {
            let path = error.path().iter().map_while(|segment| match segment {
                Segment::Seq { index } => Some(Step::Index(*index)),
                Segment::Map { key } => Some(Step::Key(key.clone())),
                Segment::Enum { .. } | Segment::Unknown => None,
            });
            Misread { path: path.collect(), message: error.inner().message().trim().replace('\n', ", ") }
        })
    }

    fn at_line(&self, line: usize) -> String {
        match &self.name {
            Some(name) => format!(" ({name}, line {line})"),
            None => format!(" (line {line})"),
        }
    }

    /// Formats the source of a node, to stand behind its fault.
    fn at(&self, node: &Node) -> String {
        match &node.source {
            Source::Line(line) => self.at_line(*line),
            Source::Variable(name) => format!(" ({name})"),
            Source::Whole | Source::StandIn(_) => {
                self.name.as_ref().map_or_else(String::new, |name| format!(" ({name})"))
            }
        }
    }

    /// Returns whether the node stands on a line that is not TOML, and may therefore be a part of it.
    fn is_garbled(&self, node: &Node) -> bool {
        matches!(node.source, Source::Line(at) if self.syntax.iter().any(|(line, _)| *line == at))
    }
}

impl<T> Reading<T> {
    /// Returns the value if there is no fault, these among them. Each begins with its place and a colon, and gets its
    /// line; one of a value that could not be read is left out.
    ///
    /// # Errors
    /// Every fault.
    pub fn finish(self, more: impl IntoIterator<Item = String>) -> Result<T, Faults> {
        let Self { value, file, mut faults, removed } = self;
        faults.extend(more.into_iter().filter_map(|fault| locate(&file, &removed, fault)));
        match value {
            Some(value) if faults.is_empty() => Ok(value),
            _ => Err(Faults(faults)),
        }
    }

    /// Notes the fault and takes its value out. Returns false where the whole cannot be read.
    fn repair<R: DeserializeOwned>(&mut self, misread: &Misread) -> bool {
        if let Some(field) = misread.missing() {
            return self.stand_in(&misread.path, field);
        }
        let path = self.narrow::<R>(misread);
        let Some(node) = self.file.root.get(&path) else {
            self.faults.push(misread.message.clone());
            return false;
        };
        if let Source::StandIn(tried) = node.source {
            return self.next_stand_in(&path, tried + 1);
        }
        if !self.file.is_garbled(node) {
            let place = if node.place.is_empty() { String::new() } else { format!("{}: ", node.place) };
            let fault = format!("{place}{}{}", without_value(&misread.message), self.file.at(node));
            self.faults.push(fault);
        }
        self.removed.insert(node.place.clone());
        self.file.root.remove(&path)
    }

    /// Finds the value that is wrong in a table whose fields serde reads at once, without their paths.
    fn narrow<R: DeserializeOwned>(&self, misread: &Misread) -> Vec<Step> {
        let Some(node) = self.file.root.get(&misread.path) else { return misread.path.clone() };
        let mut fallback = None;
        for step in node.steps() {
            let path: Vec<_> = misread.path.iter().cloned().chain([step]).collect();
            let mut without = self.file.clone();
            without.root.remove(&path);
            match without.attempt::<R>() {
                Err(same) if same == *misread => {}
                Err(other) if other.missing().is_some() => fallback = fallback.or(Some(path)),
                _ => return path,
            }
        }
        fallback.unwrap_or_else(|| misread.path.clone())
    }

    /// Gives a required field that is missing its first stand-in.
    fn stand_in(&mut self, path: &[Step], field: &str) -> bool {
        let Some(table) = self.file.root.get(path) else { return false };
        let place = join(&table.place, field);
        // Neither one that was taken out nor one that a fault of the syntax may hide.
        if !self.removed.contains(&place) && self.file.syntax.is_empty() {
            self.faults.push(format!("{place}: is missing{}", self.file.at(table)));
        }
        self.removed.insert(place.clone());
        let node = Node { place, source: Source::StandIn(0), item: Item::Value(STAND_INS[0].into()) };
        match self.file.root.get_mut(path).map(|table| &mut table.item) {
            Some(Item::Table(fields)) => fields.insert(field.to_owned(), node).is_none(),
            _ => false,
        }
    }

    /// Tries the next stand-in; after the last the table that needs it is taken out.
    fn next_stand_in(&mut self, path: &[Step], next: usize) -> bool {
        let (Some(node), Some(text)) = (self.file.root.get_mut(path), STAND_INS.get(next)) else {
            let parent = path.split_last().map(|(_, parent)| parent).unwrap_or_default();
            return self.file.root.remove(parent);
        };
        node.source = Source::StandIn(next);
        node.item = Item::Value((*text).into());
        true
    }
}

/// Adds the line to a fault that begins with its place; `None` for a fault that only the repair caused.
fn locate(file: &TomlFile, removed: &BTreeSet<String>, fault: String) -> Option<String> {
    let Some((place, rest)) = fault.split_once(": ").filter(|(place, _)| !place.contains(' ')) else {
        let caused = removed.iter().any(|place| !place.is_empty() && fault.contains(place));
        return (!caused).then_some(fault);
    };
    let path = steps(place);
    let (depth, node) = file.root.deepest(&path);
    let is_whole = depth == path.len();
    let place = match is_whole {
        true => node.place.clone(),
        false => path[depth..].iter().fold(node.place.clone(), |place, step| step.after(&place)),
    };
    let is_under =
        |one: &String| place.strip_prefix(one.as_str()).is_some_and(|rest| !rest.starts_with(is_word));
    let mentions = |one: &String| {
        let section = one.split(['.', '[']).next().unwrap_or_default();
        rest.contains(&format!("[{section}]"))
    };
    let is_hidden = !file.syntax.is_empty() && (!is_whole || file.is_garbled(node));
    if is_hidden || removed.iter().any(|one| is_under(one) || mentions(one)) {
        return None;
    }
    Some(format!("{place}: {rest}{}", file.at(node)))
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-')
}

/// Removes the value from a fault of its type: it may be a secret.
fn without_value(message: &str) -> String {
    let shortened = message.strip_prefix("invalid type: ").and_then(|rest| {
        let (found, expected) = rest.rsplit_once(", expected ")?;
        let kind = found.split(['`', '"']).next().unwrap_or_default().trim();
        Some(format!("takes {expected}, not {kind}"))
    });
    shortened.unwrap_or_else(|| message.to_owned())
}

fn join(place: &str, key: &str) -> String {
    if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") }
}

/// Splits a place into its steps.
fn steps(place: &str) -> Vec<Step> {
    let parts = place.split(['.', '[']).map(|part| match part.strip_suffix(']').map(str::parse) {
        Some(Ok(index)) => Step::Index(index),
        _ => Step::Key(part.to_owned()),
    });
    parts.collect()
}

impl Step {
    fn after(&self, place: &str) -> String {
        match self {
            Self::Key(key) => join(place, key),
            Self::Index(index) => format!("{place}[{index}]"),
        }
    }
}

impl Node {
    fn value(&self) -> toml::Value {
        match &self.item {
            Item::Value(value) => value.clone(),
            Item::Array(nodes) => toml::Value::Array(nodes.iter().map(Self::value).collect()),
            Item::Table(nodes) => {
                toml::Value::Table(nodes.iter().map(|(key, node)| (key.clone(), node.value())).collect())
            }
        }
    }

    fn steps(&self) -> Vec<Step> {
        match &self.item {
            Item::Value(_) => Vec::new(),
            Item::Array(nodes) => (0..nodes.len()).map(Step::Index).collect(),
            Item::Table(nodes) => nodes.keys().cloned().map(Step::Key).collect(),
        }
    }

    fn child(&self, step: &Step) -> Option<&Self> {
        match (&self.item, step) {
            (Item::Array(nodes), Step::Index(index)) => nodes.get(*index),
            (Item::Table(nodes), Step::Key(key)) => nodes.get(key),
            _ => None,
        }
    }

    fn get(&self, path: &[Step]) -> Option<&Self> {
        path.iter().try_fold(self, |node, step| node.child(step))
    }

    fn get_mut(&mut self, path: &[Step]) -> Option<&mut Self> {
        path.iter().try_fold(self, |node, step| match (&mut node.item, step) {
            (Item::Array(nodes), Step::Index(index)) => nodes.get_mut(*index),
            (Item::Table(nodes), Step::Key(key)) => nodes.get_mut(key),
            _ => None,
        })
    }

    /// Returns the last node on the path that exists, and its depth.
    fn deepest(&self, path: &[Step]) -> (usize, &Self) {
        let mut at = (0, self);
        for step in path {
            match at.1.child(step) {
                Some(node) => at = (at.0 + 1, node),
                None => break,
            }
        }
        at
    }

    /// Removes a node; the whole cannot be removed.
    fn remove(&mut self, path: &[Step]) -> bool {
        let Some((last, parent)) = path.split_last() else { return false };
        match (self.get_mut(parent).map(|node| &mut node.item), last) {
            (Some(Item::Array(nodes)), Step::Index(index)) if *index < nodes.len() => {
                nodes.remove(*index);
                true
            }
            (Some(Item::Table(nodes)), Step::Key(key)) => nodes.remove(key).is_some(),
            _ => false,
        }
    }
}

impl Item {
    fn of_table(table: DeTable<'_>, place: &str, line: &dyn Fn(usize) -> usize) -> Self {
        let fields = table.into_iter().map(|(key, value)| {
            let at = line(key.span().start);
            let key = key.into_inner().into_owned();
            let place = join(place, &key);
            let item = Self::of(value, &place, line);
            (key, Node { place, source: Source::Line(at), item })
        });
        Self::Table(fields.collect())
    }

    fn of(value: Spanned<DeValue<'_>>, place: &str, line: &dyn Fn(usize) -> usize) -> Self {
        let span = value.span();
        match value.into_inner() {
            DeValue::Table(table) => Self::of_table(table, place, line),
            DeValue::Array(values) => {
                let nodes = values.into_iter().enumerate().map(|(index, value)| {
                    let place = format!("{place}[{index}]");
                    let source = Source::Line(line(value.span().start));
                    Node { item: Self::of(value, &place, line), place, source }
                });
                Self::Array(nodes.collect())
            }
            leaf => {
                // A leaf that the type takes no part of, such as an integer of 30 digits, is kept as its text.
                let text = match &leaf {
                    DeValue::Integer(number) => number.as_str().to_owned(),
                    DeValue::Float(number) => number.as_str().to_owned(),
                    _ => String::new(),
                };
                let read =
                    toml::Value::deserialize(toml::de::ValueDeserializer::from(Spanned::new(span, leaf)));
                Self::Value(read.unwrap_or(toml::Value::String(text)))
            }
        }
    }

    fn of_value(value: toml::Value, place: &str, source: &Source) -> Self {
        let node = |place: String, value| Node {
            item: Self::of_value(value, &place, source),
            source: source.clone(),
            place,
        };
        match value {
            toml::Value::Table(table) => Self::Table(
                table.into_iter().map(|(key, value)| (key.clone(), node(join(place, &key), value))).collect(),
            ),
            toml::Value::Array(values) => {
                let nodes = values.into_iter().enumerate();
                Self::Array(nodes.map(|(index, value)| node(format!("{place}[{index}]"), value)).collect())
            }
            value => Self::Value(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::Tenant;

    fn faults(text: &str) -> Vec<String> {
        let reading = TomlFile::parse(text, None).read::<Tenant>();
        let more = reading.value.as_ref().and_then(|tenant| tenant.validate().err());
        reading.finish(more.map(|Faults(more)| more).unwrap_or_default()).unwrap_err().0
    }

    #[test]
    fn wrong_types_unknown_keys_and_invalid_values_are_reported_at_once_with_their_lines() {
        let text = r#"id = "acme"
name = 5
colour = "red"
[agent]
settle = "soon"
setle = "300ms"
rules = ["a", 7, "b"]
[quota]
warn_percent = 200
messages_per_month = "many"
[[channels]]
kind = "telegraph"
account = "1"
app_secret = 123456
[[channels]]
kind = "whatsapp"
acount = "2"
messages_per_second = 0
[hours]
monday = ["12:00-09:00"]
moonday = ["09:00-10:00"]
[llm]
provider = "openai"
model = "m"
api_base = "ftp://x"
"#;
        let faults = faults(text);
        for (place, line) in [
            ("name", 2),
            ("colour", 3),
            ("agent.settle", 5),
            ("agent.setle", 6),
            ("agent.rules[1]", 7),
            ("quota.warn_percent", 9),
            ("quota.messages_per_month", 10),
            ("channels[0].kind", 12),
            ("channels[0].app_secret", 14),
            ("channels[1].account", 15),
            ("channels[1].messages_per_second", 18),
            ("hours.monday[0]", 20),
            ("hours.moonday", 21),
            ("llm.api_base", 25),
        ] {
            let found = faults.iter().any(|fault| {
                fault.starts_with(&format!("{place}: ")) && fault.ends_with(&format!(" (line {line})"))
            });
            assert!(found, "{place} in line {line}: {faults:#?}");
        }
        assert_eq!(faults.len(), 14, "{faults:#?}");
        assert!(
            !faults.iter().any(|fault| fault.contains("123456")),
            "a secret is not repeated: {faults:#?}"
        );
    }

    #[test]
    fn a_syntax_error_hides_no_other_fault_and_causes_none() {
        let faults =
            faults("id = \"acme\"\nname = Acme\n[agent]\nsettle = \"2h\"\ntone = \n[quota]\nwarn = 5\n");
        let lines: Vec<_> = faults.iter().map(|fault| fault.rsplit_once("line ").unwrap().1).collect();
        assert_eq!(lines, ["2)", "5)", "7)", "4)"], "{faults:#?}");
    }

    #[test]
    fn missing_required_fields_are_reported_beside_the_rest() {
        let faults = faults("[agent]\nsettle = 3\n[[tools.payments]]\nname = \"Deposit\"\n");
        let places: Vec<_> = faults.iter().map(|fault| fault.split(": ").next().unwrap()).collect();
        let mut sorted = places.clone();
        sorted.sort_unstable();
        assert_eq!(
            sorted,
            ["agent.settle", "id", "name", "tools.payments[0].description", "tools.payments[0].url"],
            "{faults:#?}"
        );
    }

    #[test]
    fn a_file_without_faults_reads_as_toml_reads_it() {
        let text = "id = \"acme\"\nname = \"Acme\"\n[quota]\nmessages_per_month = 7\n[[channels]]\nkind = \"whatsapp\"\n\
                    account = \"1\"\naccess_token = \"a\"\n";
        let read = TomlFile::parse(text, None).read::<Tenant>().finish([]).unwrap();
        assert_eq!(read, toml::from_str(text).unwrap());
    }

    #[test]
    fn a_variable_stands_over_the_file_and_is_named_in_its_fault() {
        let mut file =
            TomlFile::parse("id = \"acme\"\nname = \"Acme\"\n[quota]\nwarn_percent = 5\n", Some("a.toml"));
        file.set("X_QUOTA__WARN_PERCENT", &["quota", "warn_percent"], "often".into());
        let faults = file.read::<Tenant>().finish(["name: is bad".to_owned()]).unwrap_err().0;
        assert!(
            faults[0].starts_with("quota.warn_percent: ") && faults[0].ends_with(" (X_QUOTA__WARN_PERCENT)")
        );
        assert_eq!(faults[1..], ["name: is bad (a.toml, line 2)"]);
    }
}
