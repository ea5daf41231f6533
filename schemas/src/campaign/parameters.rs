//! Parameters of a template, and their values for one recipient.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Maximum number of parameters of one component.
const MAX_PARAMETERS: usize = 64;
/// Maximum length of a value, in characters: that of a template's body.
const VALUE_CHARACTERS: usize = 1_024;

/// Values of a template's parameters, by component. Positional parameters have the names `1`, `2` and so on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Parameters {
    /// Parameters of the header: text, or `image`, `video`, `document`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub header: BTreeMap<String, Source>,
    /// Parameters of the body.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub body: BTreeMap<String, Source>,
    /// Parameters of buttons, by the button's position from 0.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub button: BTreeMap<String, Source>,
}

/// Source of a value: exactly one of `column`, `text` and `file`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Source {
    /// Column of the audience.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// Value where the recipient's column is empty. Without it such a recipient is refused before the first send.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// Text that is the same for everybody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// File of a header's media, uploaded once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// Reason why a recipient's row does not fit the template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// The column is empty or missing, and there is no default.
    #[error("{parameter}: column {column:?} is empty and has no default")]
    Empty {
        /// Place of the parameter, such as `body.1`.
        parameter: String,
        /// Name of the column.
        column: String,
    },
    /// The value is longer than a template takes.
    #[error("{parameter}: column {column:?} has {characters} characters; at most {VALUE_CHARACTERS} fit")]
    Long {
        /// Place of the parameter.
        parameter: String,
        /// Name of the column.
        column: String,
        /// Number of its characters.
        characters: usize,
    },
    /// The value has a character that the channel refuses in parameters: a line break, a tab, five spaces in a row.
    #[error("{parameter}: column {column:?} has a line break, a tab or more than four spaces in a row")]
    Layout {
        /// Place of the parameter.
        parameter: String,
        /// Name of the column.
        column: String,
    },
}

impl Parameters {
    fn components(&self) -> [(&'static str, &BTreeMap<String, Source>); 3] {
        [("header", &self.header), ("body", &self.body), ("button", &self.button)]
    }

    /// Returns every parameter with its place, such as `body.1`.
    pub fn iter(&self) -> impl Iterator<Item = (String, &Source)> {
        self.components().into_iter().flat_map(|(component, all)| {
            all.iter().map(move |(name, source)| (format!("{component}.{name}"), source))
        })
    }

    /// Returns the columns that it reads.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        let all = self.components().into_iter().flat_map(|(_, all)| all.values());
        all.filter_map(|source| source.column.as_deref())
    }

    /// Returns the text values of one recipient by the parameter's place; files are not among them.
    ///
    /// # Errors
    /// Every parameter for which the recipient has no fitting value.
    pub fn fill<'a>(
        &'a self,
        column: impl Fn(&str) -> Option<&'a str>,
    ) -> Result<BTreeMap<String, &'a str>, Vec<Misfit>> {
        let mut values = BTreeMap::new();
        let mut misfits = Vec::new();
        for (parameter, source) in self.iter() {
            if let Some(text) = &source.text {
                values.insert(parameter, text.as_str());
                continue;
            }
            let Some(name) = &source.column else { continue };
            let given = column(name).map(str::trim).filter(|value| !value.is_empty());
            match given.or(source.default.as_deref()) {
                None => misfits.push(Misfit::Empty { parameter, column: name.clone() }),
                Some(value) if value.chars().count() > VALUE_CHARACTERS => misfits.push(Misfit::Long {
                    parameter,
                    column: name.clone(),
                    characters: value.chars().count(),
                }),
                Some(value) if has_refused_layout(value) => {
                    misfits.push(Misfit::Layout { parameter, column: name.clone() });
                }
                Some(value) => drop(values.insert(parameter, value)),
            }
        }
        if misfits.is_empty() { Ok(values) } else { Err(misfits) }
    }

    /// Returns every fault, each with its place in the file.
    #[must_use]
    pub fn faults(&self, at: &str) -> Vec<String> {
        let mut faults = Vec::new();
        for (component, all) in self.components() {
            if all.len() > MAX_PARAMETERS {
                faults.push(format!(
                    "{at}.{component}: at most {MAX_PARAMETERS} parameters, not {}",
                    all.len()
                ));
            }
        }
        for (place, source) in self.iter() {
            let sources = [&source.column, &source.text, &source.file].into_iter().flatten();
            let given = sources.clone().count();
            if given != 1 {
                faults.push(format!("{at}.{place}: takes one of column, text and file, not {given}"));
            } else if sources.into_iter().any(|value| value.trim().is_empty()) {
                faults.push(format!("{at}.{place}: is empty"));
            } else if source.default.is_some() && source.column.is_none() {
                faults.push(format!("{at}.{place}: a default belongs to a column"));
            } else if source.file.is_some() && !place.starts_with("header.") {
                faults.push(format!("{at}.{place}: only a header takes a file"));
            } else if [&source.text, &source.default]
                .into_iter()
                .flatten()
                .any(|value| has_refused_layout(value))
            {
                faults.push(format!(
                    "{at}.{place}: a value has no line break, no tab and at most four spaces in a row"
                ));
            }
        }
        faults
    }
}

/// Returns true where the channel refuses a parameter's value for its layout (WhatsApp: code 132018).
fn has_refused_layout(value: &str) -> bool {
    value.contains(['\n', '\r', '\t']) || value.contains("     ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(text: &str) -> Parameters {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn a_recipient_gets_its_column_or_the_default() {
        let parameters = parameters(
            "body.1 = { column = \"name\", default = \"there\" }\nbody.2 = { text = \"Berlin\" }\n\
             header.image = { file = \"a.jpg\" }",
        );
        let filled = parameters.fill(|column| (column == "name").then_some(" Ann ")).unwrap();
        assert_eq!(
            filled.into_iter().collect::<Vec<_>>(),
            [("body.1".into(), "Ann"), ("body.2".into(), "Berlin")]
        );
        let filled = parameters.fill(|_| Some("  ")).unwrap();
        assert_eq!(filled["body.1"], "there");
    }

    #[test]
    fn every_misfit_of_a_row_is_named() {
        let parameters = parameters(
            "body.1 = { column = \"name\" }\nbody.2 = { column = \"code\" }\nbody.3 = { column = \"note\" }",
        );
        let long = "x".repeat(1_025);
        let row = |column: &str| match column {
            "code" => Some(long.as_str()),
            "note" => Some("two\nlines"),
            _ => None,
        };
        let misfits = parameters.fill(row).unwrap_err();
        let texts: Vec<_> = misfits.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 3, "{texts:?}");
        assert!(texts[0].starts_with("body.1: column \"name\" is empty"), "{texts:?}");
        assert!(texts[1].contains("1025 characters"), "{texts:?}");
        assert!(texts[2].contains("line break"), "{texts:?}");
    }
}
