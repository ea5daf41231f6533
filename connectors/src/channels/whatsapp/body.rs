//! The part of a send's body that depends on the kind of content.
//!
//! Each kind is as Meta's page shows it: <https://developers.facebook.com/documentation/business-messaging/whatsapp/>
//! `messages/...` for free-form ones, `templates/...` for templates. The tests hold the pages' examples.

use heddle_schemas::content::MediaKind;
use heddle_schemas::outgoing::{
    Action, Card, File, Header, Interactive, InteractiveHeader, Location, OutgoingContent, OutgoingMedia,
    Parameter, Reaction, Template, TemplateButton,
};
use serde_json::{Map, Value, json};

/// A file that has to be uploaded before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stored file is not uploaded")]
pub(super) struct NotUploaded;

/// Returns the type of a content, and the field of that name.
pub(super) fn of(content: &OutgoingContent) -> Result<(&'static str, Value), NotUploaded> {
    Ok(match content {
        OutgoingContent::Text { body } => ("text", json!({ "preview_url": false, "body": body })),
        OutgoingContent::Template(template) => ("template", self::template(template)?),
        OutgoingContent::Media(media) => self::media(media)?,
        OutgoingContent::Interactive(interactive) => ("interactive", self::interactive(interactive)?),
        OutgoingContent::Location(location) => ("location", self::location(location)),
        OutgoingContent::Reaction(Reaction { message, emoji }) => {
            // An empty emoji takes the reaction back: `.../messages/reaction-messages`.
            ("reaction", json!({ "message_id": message, "emoji": emoji.as_deref().unwrap_or_default() }))
        }
    })
}

fn file(file: &File) -> Result<Map<String, Value>, NotUploaded> {
    let (name, value) = match file {
        File::Id(id) => ("id", id),
        File::Link(link) => ("link", link),
        File::Stored(_) => return Err(NotUploaded),
    };
    Ok(Map::from_iter([(name.to_owned(), value.as_str().into())]))
}

/// `.../messages/image-messages` and the pages beside it; a voice message is a sound with a mark
/// (`.../messages/audio-messages`).
fn media(media: &OutgoingMedia) -> Result<(&'static str, Value), NotUploaded> {
    let kind = match media.kind {
        MediaKind::Image => "image",
        MediaKind::Video => "video",
        MediaKind::Audio | MediaKind::Voice => "audio",
        MediaKind::Document => "document",
        MediaKind::Sticker => "sticker",
    };
    let mut value = file(&media.file)?;
    let mut add = |name: &str, text: &Option<String>| {
        value.extend(text.as_ref().map(|text| (name.to_owned(), Value::from(text.as_str()))));
    };
    add("caption", &media.caption);
    add("filename", &media.filename);
    if media.kind == MediaKind::Voice {
        value.insert("voice".into(), true.into());
    }
    Ok((kind, Value::Object(value)))
}

fn location(Location { latitude, longitude, name, address }: &Location) -> Value {
    let mut value = json!({ "latitude": latitude, "longitude": longitude });
    for (field, text) in [("name", name), ("address", address)] {
        if let Some(text) = text {
            value[field] = text.as_str().into();
        }
    }
    value
}

/// `.../messages/interactive-reply-buttons-messages`, `.../interactive-list-messages`, `.../interactive-cta-url-messages`.
fn interactive(interactive: &Interactive) -> Result<Value, NotUploaded> {
    let (kind, action) = match &interactive.action {
        Action::Buttons(buttons) => {
            let buttons: Vec<_> = buttons
                .iter()
                .map(|button| json!({ "type": "reply", "reply": { "id": button.id, "title": button.title } }))
                .collect();
            ("button", json!({ "buttons": buttons }))
        }
        Action::List { button, sections } => ("list", json!({ "button": button, "sections": sections })),
        Action::Url { text, url } => {
            let parameters = json!({ "display_text": text, "url": url });
            ("cta_url", json!({ "name": "cta_url", "parameters": parameters }))
        }
    };
    let mut value = json!({ "type": kind, "body": { "text": interactive.body }, "action": action });
    if let Some(header) = &interactive.header {
        value["header"] = match header {
            InteractiveHeader::Text(text) => json!({ "type": "text", "text": text }),
            InteractiveHeader::Image(image) => json!({ "type": "image", "image": file(image)? }),
            InteractiveHeader::Video(video) => json!({ "type": "video", "video": file(video)? }),
            InteractiveHeader::Document(document) => {
                json!({ "type": "document", "document": file(document)? })
            }
        };
    }
    if let Some(footer) = &interactive.footer {
        value["footer"] = json!({ "text": footer });
    }
    Ok(value)
}

/// `.../templates/components`, and of each kind of template its own page.
fn template(template: &Template) -> Result<Value, NotUploaded> {
    let mut components = Vec::new();
    components.extend(template.header.as_ref().map(header).transpose()?);
    components.extend(body(&template.body));
    // `.../templates/marketing-templates/limited-time-offer-templates`.
    components.extend(template.offer_ends.map(|ends| {
        let milliseconds = ends.as_micros() / 1_000;
        let offer = json!({ "expiration_time_ms": milliseconds });
        json!({
            "type": "limited_time_offer",
            "parameters": [{ "type": "limited_time_offer", "limited_time_offer": offer }],
        })
    }));
    if !template.cards.is_empty() {
        let cards = template.cards.iter().enumerate().map(|(index, card)| self::card(index, card));
        components.push(json!({ "type": "carousel", "cards": cards.collect::<Result<Vec<_>, _>>()? }));
    }
    components.extend(template.buttons.iter().map(button));
    let mut value = json!({ "name": template.name, "language": { "code": template.language } });
    if !components.is_empty() {
        value["components"] = components.into();
    }
    Ok(value)
}

/// `.../templates/marketing-templates/media-card-carousel-templates`.
fn card(index: usize, card: &Card) -> Result<Value, NotUploaded> {
    let mut components = vec![header(&card.header)?];
    components.extend(body(&card.body));
    components.extend(card.buttons.iter().map(button));
    Ok(json!({ "card_index": index, "components": components }))
}

fn header(header: &Header) -> Result<Value, NotUploaded> {
    let parameter = match header {
        Header::Text(parameter) => text(parameter),
        Header::Image(image) => json!({ "type": "image", "image": file(image)? }),
        Header::Video(video) => json!({ "type": "video", "video": file(video)? }),
        Header::Document { file: document, filename } => {
            let mut document = file(document)?;
            document.extend(filename.as_ref().map(|name| ("filename".to_owned(), name.as_str().into())));
            json!({ "type": "document", "document": document })
        }
        Header::Location(place) => json!({ "type": "location", "location": location(place) }),
        Header::Product { catalog, product } => {
            json!({ "type": "product", "product": { "catalog_id": catalog, "product_retailer_id": product } })
        }
    };
    Ok(json!({ "type": "header", "parameters": [parameter] }))
}

fn body(parameters: &[Parameter]) -> Option<Value> {
    let parameters: Vec<_> = parameters.iter().map(text).collect();
    (!parameters.is_empty()).then(|| json!({ "type": "body", "parameters": parameters }))
}

fn text(Parameter { name, text }: &Parameter) -> Value {
    match name {
        Some(name) => json!({ "type": "text", "parameter_name": name, "text": text }),
        None => json!({ "type": "text", "text": text }),
    }
}

fn button(button: &TemplateButton) -> Value {
    let action = |action: Value| json!({ "type": "action", "action": action });
    let (kind, parameter) = match button {
        TemplateButton::QuickReply { payload, .. } => {
            ("quick_reply", Some(json!({ "type": "payload", "payload": payload })))
        }
        TemplateButton::Url { text, .. } => ("url", Some(json!({ "type": "text", "text": text }))),
        TemplateButton::CopyCode { code, .. } => {
            ("copy_code", Some(json!({ "type": "coupon_code", "coupon_code": code })))
        }
        TemplateButton::Flow { token, data, .. } => {
            let mut flow = Map::new();
            flow.extend(token.as_ref().map(|token| ("flow_token".to_owned(), token.as_str().into())));
            flow.extend(data.as_ref().map(|data| ("flow_action_data".to_owned(), data.clone())));
            ("flow", (!flow.is_empty()).then(|| action(flow.into())))
        }
        TemplateButton::Catalog { thumbnail, .. } => {
            let shown = |id: &String| action(json!({ "thumbnail_product_retailer_id": id }));
            ("catalog", thumbnail.as_ref().map(shown))
        }
        TemplateButton::Products { thumbnail, sections, .. } => {
            let item = |id: &String| json!({ "product_retailer_id": id });
            let sections: Vec<_> = sections
                .iter()
                .map(|section| {
                    let items: Vec<_> = section.products.iter().map(item).collect();
                    json!({ "title": section.title, "product_items": items })
                })
                .collect();
            let products = json!({ "thumbnail_product_retailer_id": thumbnail, "sections": sections });
            ("mpm", Some(action(products)))
        }
        TemplateButton::VoiceCall { payload, .. } => {
            let shown = |payload: &String| json!({ "type": "payload", "payload": payload });
            ("voice_call", payload.as_ref().map(shown))
        }
    };
    let mut value = json!({ "type": "button", "sub_type": kind, "index": button.index() });
    if let Some(parameter) = parameter {
        value["parameters"] = json!([parameter]);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Contents, each with Meta's documented body of it.
    const EXAMPLES: &[(&str, &str)] = &[
        (
            include_str!("fixtures/template_coupon.content.json"),
            include_str!("fixtures/template_coupon.body.json"),
        ),
        (
            include_str!("fixtures/template_offer.content.json"),
            include_str!("fixtures/template_offer.body.json"),
        ),
        (
            include_str!("fixtures/template_named.content.json"),
            include_str!("fixtures/template_named.body.json"),
        ),
        (
            include_str!("fixtures/template_location.content.json"),
            include_str!("fixtures/template_location.body.json"),
        ),
        (
            include_str!("fixtures/template_carousel.content.json"),
            include_str!("fixtures/template_carousel.body.json"),
        ),
        (
            include_str!("fixtures/template_flow.content.json"),
            include_str!("fixtures/template_flow.body.json"),
        ),
        (
            include_str!("fixtures/template_products.content.json"),
            include_str!("fixtures/template_products.body.json"),
        ),
        (include_str!("fixtures/buttons.content.json"), include_str!("fixtures/buttons.body.json")),
        (include_str!("fixtures/list.content.json"), include_str!("fixtures/list.body.json")),
        (include_str!("fixtures/url.content.json"), include_str!("fixtures/url.body.json")),
        (include_str!("fixtures/document.content.json"), include_str!("fixtures/document.body.json")),
        (include_str!("fixtures/voice.content.json"), include_str!("fixtures/voice.body.json")),
        (include_str!("fixtures/location.content.json"), include_str!("fixtures/location.body.json")),
        (include_str!("fixtures/reaction.content.json"), include_str!("fixtures/reaction.body.json")),
    ];

    #[test]
    fn every_kind_has_the_body_that_is_documented() {
        for (content, body) in EXAMPLES {
            let content: OutgoingContent = serde_json::from_str(content).unwrap();
            assert_eq!(content.faults(&super::super::PROFILE.content), [], "{content:?}");
            let expected: Value = serde_json::from_str(body).unwrap();
            let (kind, value) = of(&content).unwrap();
            assert_eq!(json!({ "type": kind, kind: value }), expected);
        }
    }

    #[test]
    fn a_stored_file_is_not_sent_before_it_is_uploaded() {
        let stored = File::Stored("a.jpg".parse().unwrap());
        let media = OutgoingMedia { kind: MediaKind::Image, file: stored, caption: None, filename: None };
        assert_eq!(of(&OutgoingContent::Media(media)), Err(NotUploaded));
    }

    #[test]
    fn a_reaction_is_taken_back_with_an_empty_emoji() {
        let (_, value) =
            of(&OutgoingContent::Reaction(Reaction { message: "wamid.1".into(), emoji: None })).unwrap();
        assert_eq!(value, json!({ "message_id": "wamid.1", "emoji": "" }));
    }
}
