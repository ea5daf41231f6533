use serde_json::json;

use super::*;
use crate::content::MediaKind;

const CHANNEL: ContentProfile = ContentProfile {
    carries: Kind::ALL,
    uploads: true,
    limits: Limits {
        text: 10,
        caption: 5,
        header: 6,
        body: 20,
        list_body: 40,
        footer: 6,
        buttons: 3,
        button: 8,
        button_id: 4,
        sections: 2,
        rows: 3,
        row: 6,
        row_description: 8,
        row_id: 4,
        url: 30,
        template_body: 12,
        card_body: 8,
        template_buttons: 3,
        card_buttons: 2,
        cards: 3,
        code: 5,
        template_name: 12,
    },
};

fn read(value: serde_json::Value) -> OutgoingContent {
    serde_json::from_value(value).unwrap()
}

fn faults(value: serde_json::Value) -> Vec<String> {
    read(value).faults(&CHANNEL).iter().map(ToString::to_string).collect()
}

#[test]
fn contents_read_back_as_they_were_written() {
    for written in [
        json!({ "type": "text", "body": "hello" }),
        json!({
            "type": "template",
            "name": "spring_offer",
            "language": "de",
            "header": { "image": { "stored": "spring.jpg" } },
            "body": [{ "name": "first_name", "text": "Ann" }],
            "buttons": [{ "kind": "copy_code", "index": 1, "code": "A-1" }],
            "offer_ends": 1_767_225_600_000_000_i64,
        }),
        json!({ "type": "media", "kind": "document", "file": { "link": "https://a.b/c" }, "filename": "c.pdf" }),
        json!({
            "type": "interactive",
            "body": "Which?",
            "action": { "buttons": [{ "id": "a", "title": "A" }] },
        }),
        json!({ "type": "location", "latitude": 1.5, "longitude": -2.0, "name": "Shop" }),
        json!({ "type": "reaction", "message": "wamid.1", "emoji": "👍" }),
    ] {
        let content = read(written.clone());
        assert_eq!(serde_json::to_value(&content).unwrap(), written);
        assert_eq!(json!(content.kind()), written["type"]);
    }
}

#[test]
fn a_field_that_does_not_exist_is_refused() {
    for written in [
        json!({ "type": "template", "name": "a", "language": "de", "parameters": [] }),
        json!({ "type": "reaction", "message": "1", "emoij": "👍" }),
        json!({ "type": "media", "kind": "image", "file": { "stored": "../secret" } }),
    ] {
        assert!(serde_json::from_value::<OutgoingContent>(written.clone()).is_err(), "{written}");
    }
}

#[test]
fn every_fault_of_an_interactive_message_names_its_field() {
    let found = faults(json!({
        "type": "interactive",
        "header": { "text": "a header" },
        "body": "b".repeat(21),
        "footer": "a footer",
        "action": { "buttons": [
            { "id": "a", "title": "much too long" },
            { "id": "a", "title": "" },
            { "id": " b", "title": "B" },
            { "id": "c", "title": "B" },
        ] },
    }));
    assert_eq!(
        found,
        [
            "body: has 21 characters, 20 are allowed",
            "footer: has 8 characters, 6 are allowed",
            "header.text: has 8 characters, 6 are allowed",
            "action.buttons: has 4 entries, 3 are allowed",
            "action.buttons[0].title: has 13 characters, 8 are allowed",
            "action.buttons[1].title: is empty",
            "action.buttons[2].id: begins or ends with a blank",
            "action.buttons[1].id: \"a\" stands there twice",
            "action.buttons[3].title: \"B\" stands there twice",
        ]
    );
}

#[test]
fn a_list_has_so_many_rows_in_all_its_sections_together() {
    let section = |title: Option<&str>, rows: &[&str]| {
        let rows: Vec<_> = rows.iter().map(|id| json!({ "id": id, "title": id })).collect();
        json!({ "title": title, "rows": rows })
    };
    let list = |sections: serde_json::Value| {
        let action = json!({ "list": { "button": "Choose", "sections": sections } });
        faults(json!({ "type": "interactive", "body": "Which one would you like?", "action": action }))
    };
    assert_eq!(list(json!([section(Some("A"), &["1", "2"]), section(Some("B"), &["3"])])), [""; 0]);
    assert_eq!(
        list(json!([section(None, &["1", "2"]), section(Some("B"), &["1", "4"])])),
        [
            "action.list.sections.rows: has 4 entries, 3 are allowed",
            "action.list.sections[0].title: is missing beside another section",
            "action.list.sections.rows[2].id: \"1\" stands there twice",
        ]
    );
    assert_eq!(list(json!([])), ["action.list.sections: is empty", "action.list.sections.rows: is empty"]);
}

#[test]
fn every_fault_of_a_template_names_its_field() {
    let found = faults(json!({
        "type": "template",
        "name": "Spring",
        "language": "d e",
        "header": { "location": { "latitude": 91.0, "longitude": 0.0, "name": "Shop" } },
        "body": [{ "text": "seven77" }, { "name": "a", "text": "six666" }],
        "buttons": [
            { "kind": "quick_reply", "index": 0, "payload": "five5" },
            { "kind": "copy_code", "index": 0, "code": "sixsix" },
            { "kind": "flow", "index": 3, "data": [] },
        ],
        "cards": [{ "header": { "text": { "text": "A" } }, "body": [{ "text": "" }] }],
    }));
    assert_eq!(
        found,
        [
            "name: takes lower-case letters, digits and '_'",
            "language: \"d e\" is no code of a language",
            "header.location.latitude: is not within 90 degrees",
            "header.location.address: is missing",
            "body: some parameters have a name and some have none",
            "body: has 13 characters, 12 are allowed",
            "buttons[0].payload: has 5 characters, 4 are allowed",
            "buttons[1].index: 0 is over 2 or stands there twice",
            "buttons[1].code: has 6 characters, 5 are allowed",
            "buttons[2].index: 3 is over 2 or stands there twice",
            "buttons[2].data: is no object",
            "cards: has 1 entry, at least 2 are needed",
            "cards[0].header: is no image, video or product",
            "cards[0].body[0].text: is empty",
        ]
    );
}

#[test]
fn files_captions_and_reactions_are_checked() {
    let media = |kind: &str, file: serde_json::Value, rest: serde_json::Value| {
        let mut value = json!({ "type": "media", "kind": kind, "file": file });
        value.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        faults(value)
    };
    let link = || json!({ "link": "https://a.example/a.jpg" });
    assert_eq!(media("image", link(), json!({ "caption": "See" })), [""; 0]);
    assert_eq!(
        media("audio", json!({ "link": "a.mp3" }), json!({ "caption": "See", "filename": "a" })),
        [
            "file.link: is no http(s) address",
            "caption: a sound or a sticker takes none",
            "filename: only a document takes one"
        ]
    );
    assert_eq!(media("image", json!({ "id": "" }), json!({})), ["file.id: is empty"]);
    let reaction = |emoji: &str| faults(json!({ "type": "reaction", "message": "1", "emoji": emoji }));
    for emoji in ["👍", "👩🏽‍🚀", "❤️", "🇩🇪", "1️⃣"] {
        assert_eq!(reaction(emoji), [""; 0], "{emoji}");
    }
    for text in ["", "ok", "👍 👍", "\n"] {
        assert_eq!(reaction(text), ["emoji: is no single emoji"], "{text:?}");
    }
}

#[test]
fn a_channel_refuses_what_it_does_not_carry() {
    let channel =
        ContentProfile { carries: &[Kind::Text, Kind::Media], uploads: false, limits: CHANNEL.limits };
    let faults = |content: OutgoingContent| {
        content.faults(&channel).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let template = OutgoingContent::Template(Template::new("offer", "de"));
    assert_eq!(faults(template), ["type: the channel carries no template; it carries text, media"]);
    let stored = OutgoingMedia {
        kind: MediaKind::Image,
        file: File::Stored("a.jpg".parse().unwrap()),
        caption: None,
        filename: None,
    };
    assert_eq!(faults(OutgoingContent::Media(stored)), ["file: the channel uploads no files; send a link"]);
    assert_eq!(faults(OutgoingContent::text("hello")), [""; 0]);
}

#[test]
fn a_content_in_words_has_what_a_model_needs_to_understand_the_answer() {
    let mut template = Template::new("spring_offer", "de");
    template.body = vec![Parameter::named("first_name", "Ann"), Parameter::named("off", "20 %")];
    assert_eq!(
        OutgoingContent::Template(template).in_words(),
        "[template spring_offer] first_name: Ann; off: 20 %"
    );
    let buttons = ["Yes", "No"].map(|title| ReplyButton { id: title.into(), title: title.into() });
    let interactive = Interactive {
        header: None,
        body: "Shall I book it?".into(),
        footer: None,
        action: Action::Buttons(buttons.into()),
    };
    assert_eq!(OutgoingContent::Interactive(interactive).in_words(), "Shall I book it?\n- Yes\n- No");
}

#[test]
fn every_file_of_a_content_is_found() {
    let content = read(json!({
        "type": "template",
        "name": "a",
        "language": "de",
        "header": { "document": { "file": { "stored": "a.pdf" } } },
        "cards": [
            { "header": { "image": { "stored": "b.jpg" } } },
            { "header": { "product": { "catalog": "1", "product": "2" } } },
            { "header": { "video": { "id": "9" } } },
        ],
    }));
    let found: Vec<_> = content.files().into_iter().map(|(field, _)| field).collect();
    assert_eq!(found, ["header.document", "cards[0].header.image", "cards[2].header.video"]);
    let mut changed = content.clone();
    changed.files_mut().into_iter().for_each(|file| *file = File::Id("1".into()));
    assert_eq!(changed.files().len(), 3);
    assert!(changed.files().into_iter().all(|(_, file)| !file.is_stored()));
}
