//! Limits, ids and credentials of the WhatsApp Cloud API.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use heddle_schemas::id::ChannelKind;
use heddle_schemas::outgoing::{ContentProfile, Kind, Limits};
use heddle_schemas::ports::channel::ChannelProfile;
use heddle_schemas::ports::channel::profile::{Api, CredentialSpec, IdKind, PairLimit};

/// The credential to send with: a bearer token.
pub const ACCESS_TOKEN: &str = "access_token";
/// The credential that signs webhooks.
pub const APP_SECRET: &str = "app_secret";
/// The credential that Meta repeats when it subscribes a webhook.
pub const VERIFY_TOKEN: &str = "verify_token";

/// Limits of contents.
///
/// - Texts, captions: <https://developers.facebook.com/documentation/business-messaging/whatsapp/messages/text-messages>,
///   `.../messages/image-messages`.
/// - Reply buttons, up to 3 of 20 characters: `.../messages/interactive-reply-buttons-messages`.
/// - Lists, up to 10 rows in 10 sections: `.../messages/interactive-list-messages`.
/// - Links: `.../messages/interactive-cta-url-messages`.
/// - Templates: `.../templates/components`, `.../templates/marketing-templates/media-card-carousel-templates`.
/// - No page has a length for the payload of a template's quick reply: it is that of a reply button's id.
const LIMITS: Limits = Limits {
    text: 4096,
    caption: 1024,
    header: 60,
    body: 1024,
    list_body: 4096,
    footer: 60,
    buttons: 3,
    button: 20,
    button_id: 256,
    sections: 10,
    rows: 10,
    row: 24,
    row_description: 72,
    row_id: 200,
    url: 2000,
    template_body: 1024,
    card_body: 160,
    template_buttons: 10,
    card_buttons: 2,
    cards: 10,
    code: 20,
    template_name: 512,
};

/// The profile of the WhatsApp Cloud API.
pub static PROFILE: ChannelProfile = ChannelProfile {
    kind: ChannelKind::Whatsapp,
    // A text's body has at most 4,096 characters:
    // <https://developers.facebook.com/documentation/business-messaging/whatsapp/messages/text-messages>.
    text_max: NonZeroUsize::new(4096).unwrap(),
    content: ContentProfile { carries: Kind::ALL, uploads: false, limits: LIMITS },
    // Payloads have at most 3 MB:
    // <https://developers.facebook.com/documentation/business-messaging/whatsapp/webhooks/overview>.
    webhook_body_max: 3 << 20,
    // The customer service window:
    // <https://developers.facebook.com/documentation/business-messaging/whatsapp/messages/send-messages/>.
    reply_window: Some(Duration::from_secs(24 * 3600)),
    // "Pair rate limits": <https://developers.facebook.com/docs/whatsapp/cloud-api/overview#throughput>. A refused pair
    // (131056) waits 4^X s, from X = 0:
    // <https://developers.facebook.com/documentation/business-messaging/whatsapp/support/error-codes>.
    pair_limit: Some(PairLimit {
        interval: Duration::from_secs(6),
        burst: NonZeroU32::new(45).unwrap(),
        pause_base: 4,
    }),
    // Messages in and out together; 1,000 after an upgrade:
    // <https://developers.facebook.com/docs/whatsapp/cloud-api/overview#throughput>.
    messages_per_second: NonZeroU32::new(80).unwrap(),
    counts_inbound: true,
    // Numbers are given to other people in time, business-scoped ids are not; `.ENT.` is in those towards a parent:
    // <https://developers.facebook.com/documentation/business-messaging/whatsapp/business-scoped-user-ids/>.
    ids: &[IdKind::User, IdKind::Parent, IdKind::Phone],
    parent_mark: Some(".ENT."),
    credentials: &[
        CredentialSpec::required(ACCESS_TOKEN, "is the bearer token to send with"),
        CredentialSpec::required(APP_SECRET, "signs webhooks; without it any could be forged"),
        CredentialSpec::required(VERIFY_TOKEN, "is what Meta repeats when it subscribes the webhook"),
    ],
    // Templates' marketing opt-out button is a quick reply of a fixed title in the template's language, and comes as a
    // message of type `button` with that title as text and payload:
    // <https://developers.facebook.com/documentation/business-messaging/whatsapp/templates/marketing-templates/>. Others'
    // titles are the tenant's to name: `consent.stop_buttons`.
    opt_out_buttons: &["Stop promotions", "Parar promoções"],
    api: Api::Base("https://graph.facebook.com/v21.0"),
};
