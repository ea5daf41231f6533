//! Stored names of which a later build may know more: what this one does not know is kept as it came.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A value of `T`, or the name that a later build wrote in its place. Both are written back as they were read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Lenient<T> {
    /// One that this build knows.
    Known(T),
    /// One that it does not.
    Unknown(String),
}

impl<T> Lenient<T> {
    /// The value, where this build knows it.
    #[must_use]
    pub fn known(self) -> Option<T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown(_) => None,
        }
    }

    /// The value, where this build knows it.
    #[must_use]
    pub fn as_known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown(_) => None,
        }
    }

    /// Its name, by the function that names the known ones.
    pub fn name(&self, of_known: impl FnOnce(&T) -> &'static str) -> &str {
        match self {
            Self::Known(value) => of_known(value),
            Self::Unknown(name) => name,
        }
    }

    /// Returns whether a later build wrote it.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown(_))
    }
}

impl<T> From<T> for Lenient<T> {
    fn from(value: T) -> Self {
        Self::Known(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::Resource;

    #[test]
    fn a_name_of_a_later_build_is_written_back_as_it_came() {
        let stored = r#"["messages","joules","tokens"]"#;
        let read: Vec<Lenient<Resource>> = serde_json::from_str(stored).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), stored);
        let known: Vec<_> = read.into_iter().filter_map(Lenient::known).collect();
        assert_eq!(known, [Resource::Messages, Resource::Tokens]);
        assert!(serde_json::from_str::<Lenient<Resource>>("7").is_err(), "no name at all");
    }
}
