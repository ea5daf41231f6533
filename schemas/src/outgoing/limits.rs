//! Limits of a channel's contents, and the check of a content against them.
//!
//! The check is pure and reports every fault at once, each with the field that it is in, as `buttons[0].title`.

use std::collections::BTreeSet;

use super::{
    Action, Card, File, Header, Interactive, InteractiveHeader, Kind, OutgoingContent, OutgoingMedia,
};
use super::{Parameter, Template, TemplateButton};
use crate::content::MediaKind;

/// Kinds of content that a channel carries, with their limits.
#[derive(Debug)]
pub struct ContentProfile {
    /// The kinds it carries.
    pub carries: &'static [Kind],
    /// True where the channel uploads files, so that a stored file can be sent.
    pub uploads: bool,
    /// Lengths and numbers.
    pub limits: Limits,
}

/// Lengths in characters (Unicode scalar values), and numbers of parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Characters of a text.
    pub text: usize,
    /// Characters beside a file.
    pub caption: usize,
    /// Characters of a header.
    pub header: usize,
    /// Characters of the text above buttons or a link.
    pub body: usize,
    /// Characters of the text above a list.
    pub list_body: usize,
    /// Characters of a footer.
    pub footer: usize,
    /// Reply buttons.
    pub buttons: usize,
    /// Characters of a button's text.
    pub button: usize,
    /// Characters of a button's id or payload.
    pub button_id: usize,
    /// Sections of a list.
    pub sections: usize,
    /// Rows of all sections.
    pub rows: usize,
    /// Characters of a section's or a row's title.
    pub row: usize,
    /// Characters of a row's description.
    pub row_description: usize,
    /// Characters of a row's id.
    pub row_id: usize,
    /// Characters of an address.
    pub url: usize,
    /// Characters of all parameters of a template's body together.
    pub template_body: usize,
    /// Characters of all parameters of a card's body together.
    pub card_body: usize,
    /// Buttons of a template.
    pub template_buttons: usize,
    /// Buttons of a card.
    pub card_buttons: usize,
    /// Cards of a carousel; at least two are needed.
    pub cards: usize,
    /// Characters of a code to copy.
    pub code: usize,
    /// Characters of a template's name.
    pub template_name: usize,
}

impl Limits {
    /// Limits of a channel that sets none; two cards are a carousel everywhere.
    pub const NONE: Self = Self {
        text: usize::MAX,
        caption: usize::MAX,
        header: usize::MAX,
        body: usize::MAX,
        list_body: usize::MAX,
        footer: usize::MAX,
        buttons: usize::MAX,
        button: usize::MAX,
        button_id: usize::MAX,
        sections: usize::MAX,
        rows: usize::MAX,
        row: usize::MAX,
        row_description: usize::MAX,
        row_id: usize::MAX,
        url: usize::MAX,
        template_body: usize::MAX,
        card_body: usize::MAX,
        template_buttons: usize::MAX,
        card_buttons: usize::MAX,
        cards: usize::MAX,
        code: usize::MAX,
        template_name: usize::MAX,
    };
}

/// Fault of a content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {fault}")]
pub struct ContentFault {
    /// The field, as `buttons[0].title`.
    pub field: String,
    /// The fault, as `has 25 characters, 20 are allowed`.
    pub fault: String,
}

impl OutgoingContent {
    /// Returns the faults of a content on a channel; an empty list where the channel carries it.
    #[must_use]
    pub fn faults(&self, profile: &ContentProfile) -> Vec<ContentFault> {
        let mut check = Check { limits: &profile.limits, faults: Vec::new() };
        let kind = self.kind();
        if !profile.carries.contains(&kind) {
            let carried: Vec<_> = profile.carries.iter().map(|kind| kind.as_str()).collect();
            check.fault("type", format!("the channel carries no {kind}; it carries {}", carried.join(", ")));
            return check.faults;
        }
        match self {
            Self::Text { body } => check.text("body", body, profile.limits.text),
            Self::Template(template) => check.template(template),
            Self::Media(media) => check.media(media),
            Self::Interactive(interactive) => check.interactive(interactive),
            Self::Location(location) => check.location("", location, false),
            Self::Reaction(reaction) => {
                check.present("message", &reaction.message);
                if let Some(emoji) = &reaction.emoji {
                    check.emoji("emoji", emoji);
                }
            }
        }
        if !profile.uploads {
            for (field, _) in self.files().into_iter().filter(|(_, file)| file.is_stored()) {
                check.fault(field, "the channel uploads no files; send a link".into());
            }
        }
        check.faults
    }
}

/// Characters of an emoji with all its joiners and tones; a family of four with tones has eleven.
const EMOJI: usize = 16;

struct Check<'a> {
    limits: &'a Limits,
    faults: Vec<ContentFault>,
}

impl Check<'_> {
    fn fault(&mut self, field: impl Into<String>, fault: String) {
        self.faults.push(ContentFault { field: field.into(), fault });
    }

    fn present(&mut self, field: impl Into<String>, text: &str) {
        if text.trim().is_empty() {
            self.fault(field, "is empty".into());
        }
    }

    fn text(&mut self, field: impl Into<String>, text: &str, most: usize) {
        let field = field.into();
        self.present(field.clone(), text);
        self.characters(field, text.chars().count(), most);
    }

    fn characters(&mut self, field: impl Into<String>, found: usize, most: usize) {
        if found > most {
            self.fault(field, format!("has {found} characters, {most} are allowed"));
        }
    }

    fn number(&mut self, field: impl Into<String>, found: usize, most: usize) {
        if found == 0 {
            self.fault(field, "is empty".into());
        } else if found > most {
            self.fault(field, format!("has {found} entries, {most} are allowed"));
        }
    }

    fn distinct<'t>(&mut self, field: &str, part: &str, texts: impl Iterator<Item = &'t str>) {
        let mut seen = BTreeSet::new();
        for (at, text) in texts.enumerate() {
            if !seen.insert(text) {
                self.fault(format!("{field}[{at}].{part}"), format!("{text:?} stands there twice"));
            }
        }
    }

    fn emoji(&mut self, field: &str, emoji: &str) {
        let is_one = !emoji.is_empty()
            && emoji.chars().count() <= EMOJI
            && !emoji.chars().any(|c| c.is_alphabetic() || c.is_whitespace() || c.is_control());
        if !is_one {
            self.fault(field, "is no single emoji".into());
        }
    }

    fn file(&mut self, field: &str, file: &File) {
        match file {
            File::Id(id) => self.present(format!("{field}.id"), id),
            File::Link(link) => self.url(format!("{field}.link"), link),
            File::Stored(_) => {}
        }
    }

    fn url(&mut self, field: String, url: &str) {
        let is_one = (url.starts_with("https://") || url.starts_with("http://"))
            && !url.chars().any(|c| c.is_whitespace() || c.is_control());
        if !is_one {
            self.fault(field.clone(), "is no http(s) address".into());
        }
        self.characters(field, url.chars().count(), self.limits.url);
    }

    fn media(&mut self, media: &OutgoingMedia) {
        self.file("file", &media.file);
        let takes_caption = matches!(media.kind, MediaKind::Image | MediaKind::Video | MediaKind::Document);
        match &media.caption {
            Some(_) if !takes_caption => {
                self.fault("caption", "a sound or a sticker takes none".into());
            }
            Some(caption) => self.text("caption", caption, self.limits.caption),
            None => {}
        }
        if media.filename.is_some() && media.kind != MediaKind::Document {
            self.fault("filename", "only a document takes one".into());
        }
    }

    fn location(&mut self, at: &str, location: &super::Location, is_whole: bool) {
        for (name, degrees, most) in
            [("latitude", location.latitude, 90.0), ("longitude", location.longitude, 180.0)]
        {
            if !degrees.is_finite() || degrees.abs() > most {
                self.fault(format!("{at}{name}"), format!("is not within {most} degrees"));
            }
        }
        for (name, text) in [("name", &location.name), ("address", &location.address)] {
            match text {
                Some(text) => self.present(format!("{at}{name}"), text),
                None if is_whole => self.fault(format!("{at}{name}"), "is missing".into()),
                None => {}
            }
        }
    }

    fn interactive(&mut self, interactive: &Interactive) {
        let body = match &interactive.action {
            Action::List { .. } => self.limits.list_body,
            Action::Buttons(_) | Action::Url { .. } => self.limits.body,
        };
        self.text("body", &interactive.body, body);
        if let Some(footer) = &interactive.footer {
            self.text("footer", footer, self.limits.footer);
        }
        match &interactive.header {
            Some(InteractiveHeader::Text(text)) => self.text("header.text", text, self.limits.header),
            // A link takes a picture too:
            // <https://developers.facebook.com/documentation/business-messaging/whatsapp/messages/interactive-cta-url-messages>.
            Some(_) if matches!(interactive.action, Action::List { .. }) => {
                self.fault("header", "beside a list it is a text".into());
            }
            Some(_) => {
                for (field, file) in interactive.files() {
                    self.file(&field, file);
                }
            }
            None => {}
        }
        match &interactive.action {
            Action::Buttons(buttons) => {
                self.number("action.buttons", buttons.len(), self.limits.buttons);
                for (at, button) in buttons.iter().enumerate() {
                    let field = format!("action.buttons[{at}]");
                    self.text(format!("{field}.title"), &button.title, self.limits.button);
                    self.id(format!("{field}.id"), &button.id, self.limits.button_id);
                }
                self.distinct("action.buttons", "id", buttons.iter().map(|button| button.id.as_str()));
                self.distinct("action.buttons", "title", buttons.iter().map(|button| button.title.as_str()));
            }
            Action::List { button, sections } => {
                self.text("action.list.button", button, self.limits.button);
                self.list(sections);
            }
            Action::Url { text, url } => {
                self.text("action.url.text", text, self.limits.button);
                self.url("action.url.url".into(), url);
            }
        }
    }

    /// An id comes back with a tap, so blanks at its ends, which a channel strips, are refused.
    fn id(&mut self, field: String, id: &str, most: usize) {
        if id != id.trim() {
            self.fault(field.clone(), "begins or ends with a blank".into());
        }
        self.text(field, id, most);
    }

    fn list(&mut self, sections: &[super::ListSection]) {
        let at = "action.list.sections";
        self.number(at, sections.len(), self.limits.sections);
        let rows = sections.iter().map(|section| section.rows.len()).sum();
        self.number(format!("{at}.rows"), rows, self.limits.rows);
        for (number, section) in sections.iter().enumerate() {
            let field = format!("{at}[{number}]");
            match &section.title {
                Some(title) => self.text(format!("{field}.title"), title, self.limits.row),
                None if sections.len() > 1 => {
                    self.fault(format!("{field}.title"), "is missing beside another section".into());
                }
                None => {}
            }
            if section.rows.is_empty() && rows > 0 {
                self.fault(format!("{field}.rows"), "is empty".into());
            }
            for (number, row) in section.rows.iter().enumerate() {
                let field = format!("{field}.rows[{number}]");
                self.text(format!("{field}.title"), &row.title, self.limits.row);
                self.id(format!("{field}.id"), &row.id, self.limits.row_id);
                if let Some(description) = &row.description {
                    self.text(format!("{field}.description"), description, self.limits.row_description);
                }
            }
        }
        let ids = sections.iter().flat_map(|section| &section.rows).map(|row| row.id.as_str());
        self.distinct(&format!("{at}.rows"), "id", ids);
    }

    fn template(&mut self, template: &Template) {
        self.text("name", &template.name, self.limits.template_name);
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if !template.name.chars().all(is_name) {
            self.fault("name", "takes lower-case letters, digits and '_'".into());
        }
        self.present("language", &template.language);
        if !template.language.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
            self.fault("language", format!("{:?} is no code of a language", template.language));
        }
        if let Some(header) = &template.header {
            self.header("header", header);
        }
        self.parameters("body", &template.body, self.limits.template_body);
        self.buttons("buttons", &template.buttons, self.limits.template_buttons);
        match template.cards.len() {
            0 => {}
            1 => self.fault("cards", "has 1 entry, at least 2 are needed".into()),
            cards => self.number("cards", cards, self.limits.cards),
        }
        for (at, card) in template.cards.iter().enumerate() {
            self.card(&format!("cards[{at}]"), card);
        }
    }

    fn card(&mut self, field: &str, card: &Card) {
        if !matches!(card.header, Header::Image(_) | Header::Video(_) | Header::Product { .. }) {
            self.fault(format!("{field}.header"), "is no image, video or product".into());
        }
        self.header(&format!("{field}.header"), &card.header);
        self.parameters(&format!("{field}.body"), &card.body, self.limits.card_body);
        self.buttons(&format!("{field}.buttons"), &card.buttons, self.limits.card_buttons);
    }

    fn header(&mut self, field: &str, header: &Header) {
        match header {
            Header::Text(parameter) => {
                self.parameters(
                    &format!("{field}.text"),
                    std::slice::from_ref(parameter),
                    self.limits.header,
                );
            }
            Header::Location(location) => self.location(&format!("{field}.location."), location, true),
            Header::Product { catalog, product } => {
                self.present(format!("{field}.product.catalog"), catalog);
                self.present(format!("{field}.product.product"), product);
            }
            Header::Image(_) | Header::Video(_) | Header::Document { .. } => {
                if let Some((kind, file)) = header.file() {
                    self.file(&format!("{field}.{kind}"), file);
                }
            }
        }
    }

    fn parameters(&mut self, field: &str, parameters: &[Parameter], most: usize) {
        let named = parameters.iter().filter(|parameter| parameter.name.is_some()).count();
        if named > 0 && named < parameters.len() {
            self.fault(field, "some parameters have a name and some have none".into());
        }
        for (at, parameter) in parameters.iter().enumerate() {
            self.present(format!("{field}[{at}].text"), &parameter.text);
            if let Some(name) = &parameter.name {
                self.present(format!("{field}[{at}].name"), name);
            }
        }
        let names = parameters.iter().filter_map(|parameter| parameter.name.as_deref());
        self.distinct(field, "name", names);
        let characters = parameters.iter().map(|parameter| parameter.text.chars().count()).sum();
        self.characters(field, characters, most);
    }

    fn buttons(&mut self, field: &str, buttons: &[TemplateButton], most: usize) {
        if buttons.len() > most {
            self.number(field, buttons.len(), most);
        }
        let mut indexes = BTreeSet::new();
        for (at, button) in buttons.iter().enumerate() {
            let field = format!("{field}[{at}]");
            let index = usize::from(button.index());
            if index >= most || !indexes.insert(index) {
                self.fault(
                    format!("{field}.index"),
                    format!("{index} is over {} or stands there twice", most - 1),
                );
            }
            match button {
                TemplateButton::QuickReply { payload, .. } => {
                    self.text(format!("{field}.payload"), payload, self.limits.button_id);
                }
                TemplateButton::Url { text, .. } => {
                    self.text(format!("{field}.text"), text, self.limits.url);
                }
                TemplateButton::CopyCode { code, .. } => {
                    self.text(format!("{field}.code"), code, self.limits.code);
                }
                TemplateButton::Flow { data, .. } => {
                    if data.as_ref().is_some_and(|data| !data.is_object()) {
                        self.fault(format!("{field}.data"), "is no object".into());
                    }
                }
                TemplateButton::Products { thumbnail, sections, .. } => {
                    self.present(format!("{field}.thumbnail"), thumbnail);
                    self.number(format!("{field}.sections"), sections.len(), self.limits.sections);
                }
                TemplateButton::Catalog { .. } | TemplateButton::VoiceCall { .. } => {}
            }
        }
    }
}
