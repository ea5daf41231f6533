//! An approved template: its name and language, and the parameters of each of its components.
//!
//! The template's own texts are with the channel; a message brings only what differs from one to the next.
//! <https://developers.facebook.com/documentation/business-messaging/whatsapp/templates/components>.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Location;
use super::media::File;
use crate::time::Timestamp;

/// A message made of an approved template.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// Its name.
    pub name: String,
    /// The code of its language, such as `de` or `pt_BR`.
    pub language: String,
    /// The header's parameters; none where the template has no header, or one without parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<Header>,
    /// The body's parameters, in their order or with their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub body: Vec<Parameter>,
    /// The buttons that take parameters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub buttons: Vec<TemplateButton>,
    /// The cards of a carousel.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cards: Vec<Card>,
    /// End of a limited-time offer, microseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offer_ends: Option<Timestamp>,
}

/// Value of a parameter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Parameter {
    /// Its name, in a template with named parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its text.
    pub text: String,
}

impl Parameter {
    /// A parameter by its place.
    #[must_use]
    pub fn positional(text: impl Into<String>) -> Self {
        Self { name: None, text: text.into() }
    }

    /// A parameter by its name.
    #[must_use]
    pub fn named(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: Some(name.into()), text: text.into() }
    }
}

/// Header of a template.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Header {
    /// The parameter of a text.
    Text(Parameter),
    /// A picture.
    Image(File),
    /// A film.
    Video(File),
    /// A document.
    Document {
        /// The file.
        file: File,
        /// The name that the recipient sees.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        filename: Option<String>,
    },
    /// A place; name and address are needed.
    Location(Location),
    /// A product of a catalogue.
    Product {
        /// The catalogue's id.
        catalog: String,
        /// The product's id in it.
        product: String,
    },
}

/// Parameters of a button.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TemplateButton {
    /// A quick reply.
    QuickReply {
        /// The button's place in the template, from 0.
        index: u8,
        /// Comes back with the tap.
        payload: String,
    },
    /// A link with a variable end. Also the button of an authentication template, whose text is the code.
    Url {
        /// The button's place in the template, from 0.
        index: u8,
        /// The end of the address.
        text: String,
    },
    /// A code to copy.
    CopyCode {
        /// The button's place in the template, from 0.
        index: u8,
        /// The code.
        code: String,
    },
    /// A form (flow).
    Flow {
        /// The button's place in the template, from 0.
        index: u8,
        /// Comes back with the answers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<String>,
        /// Values that the form begins with, an object.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        data: Option<Value>,
    },
    /// The catalogue.
    Catalog {
        /// The button's place in the template, from 0.
        index: u8,
        /// The product whose picture is shown; by default the catalogue's first.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        thumbnail: Option<String>,
    },
    /// Several products.
    Products {
        /// The button's place in the template, from 0.
        index: u8,
        /// The product whose picture is shown.
        thumbnail: String,
        /// The products.
        sections: Vec<ProductSection>,
    },
    /// A call to the business.
    VoiceCall {
        /// The button's place in the template, from 0.
        index: u8,
        /// Comes back with the call.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        payload: Option<String>,
    },
}

impl TemplateButton {
    /// The button's place in the template, from 0.
    #[must_use]
    pub fn index(&self) -> u8 {
        match self {
            Self::QuickReply { index, .. }
            | Self::Url { index, .. }
            | Self::CopyCode { index, .. }
            | Self::Flow { index, .. }
            | Self::Catalog { index, .. }
            | Self::Products { index, .. }
            | Self::VoiceCall { index, .. } => *index,
        }
    }
}

/// Products under a title.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProductSection {
    /// The title.
    pub title: String,
    /// The products' ids in the catalogue.
    pub products: Vec<String>,
}

/// A card of a carousel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// Its picture, film or product.
    pub header: Header,
    /// The parameters of its text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub body: Vec<Parameter>,
    /// Its buttons that take parameters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub buttons: Vec<TemplateButton>,
}

impl Header {
    /// The file in it, with its kind.
    #[must_use]
    pub fn file(&self) -> Option<(&'static str, &File)> {
        match self {
            Self::Image(file) => Some(("image", file)),
            Self::Video(file) => Some(("video", file)),
            Self::Document { file, .. } => Some(("document", file)),
            Self::Text(_) | Self::Location(_) | Self::Product { .. } => None,
        }
    }

    fn file_mut(&mut self) -> Option<&mut File> {
        match self {
            Self::Image(file) | Self::Video(file) | Self::Document { file, .. } => Some(file),
            Self::Text(_) | Self::Location(_) | Self::Product { .. } => None,
        }
    }
}

impl Template {
    /// A template without parameters.
    #[must_use]
    pub fn new(name: impl Into<String>, language: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            language: language.into(),
            header: None,
            body: Vec::new(),
            buttons: Vec::new(),
            cards: Vec::new(),
            offer_ends: None,
        }
    }

    pub(super) fn in_words(&self) -> String {
        let texts = |parameters: &[Parameter]| -> Vec<String> {
            let text = |parameter: &Parameter| match &parameter.name {
                Some(name) => format!("{name}: {}", parameter.text),
                None => parameter.text.clone(),
            };
            parameters.iter().map(text).collect()
        };
        let header = match &self.header {
            Some(Header::Text(parameter)) => texts(std::slice::from_ref(parameter)),
            _ => Vec::new(),
        };
        let cards = self.cards.iter().flat_map(|card| texts(&card.body));
        let all: Vec<_> = header.into_iter().chain(texts(&self.body)).chain(cards).collect();
        match all.is_empty() {
            true => format!("[template {}]", self.name),
            false => format!("[template {}] {}", self.name, all.join("; ")),
        }
    }

    pub(super) fn files(&self) -> Vec<(String, &File)> {
        let own = self.header.as_ref().and_then(Header::file);
        let own = own.map(|(kind, file)| (format!("header.{kind}"), file));
        let of_cards = self.cards.iter().enumerate().filter_map(|(at, card)| {
            card.header.file().map(|(kind, file)| (format!("cards[{at}].header.{kind}"), file))
        });
        own.into_iter().chain(of_cards).collect()
    }

    pub(super) fn files_mut(&mut self) -> Vec<&mut File> {
        let own = self.header.as_mut().and_then(Header::file_mut);
        own.into_iter().chain(self.cards.iter_mut().filter_map(|card| card.header.file_mut())).collect()
    }
}
