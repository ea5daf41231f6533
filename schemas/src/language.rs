//! Languages whose word forms are known.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A language, by its code (ISO 639-1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Language {
    /// Arabic.
    #[serde(rename = "ar")]
    Arabic,
    /// Danish.
    #[serde(rename = "da")]
    Danish,
    /// Dutch.
    #[serde(rename = "nl")]
    Dutch,
    /// English.
    #[serde(rename = "en")]
    #[default]
    English,
    /// Finnish.
    #[serde(rename = "fi")]
    Finnish,
    /// French.
    #[serde(rename = "fr")]
    French,
    /// German.
    #[serde(rename = "de")]
    German,
    /// Greek.
    #[serde(rename = "el")]
    Greek,
    /// Hungarian.
    #[serde(rename = "hu")]
    Hungarian,
    /// Italian.
    #[serde(rename = "it")]
    Italian,
    /// Norwegian.
    #[serde(rename = "no")]
    Norwegian,
    /// Portuguese.
    #[serde(rename = "pt")]
    Portuguese,
    /// Romanian.
    #[serde(rename = "ro")]
    Romanian,
    /// Russian.
    #[serde(rename = "ru")]
    Russian,
    /// Spanish.
    #[serde(rename = "es")]
    Spanish,
    /// Swedish.
    #[serde(rename = "sv")]
    Swedish,
    /// Tamil.
    #[serde(rename = "ta")]
    Tamil,
    /// Turkish.
    #[serde(rename = "tr")]
    Turkish,
    /// Any other: words are searched for as they are.
    #[serde(rename = "none")]
    None,
}
