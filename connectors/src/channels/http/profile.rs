//! Limits, ids and credentials of the channel to programs of one's own.

use std::num::{NonZeroU32, NonZeroUsize};

use heddle_schemas::id::ChannelKind;
use heddle_schemas::outgoing::{ContentProfile, Kind, Limits};
use heddle_schemas::ports::channel::ChannelProfile;
use heddle_schemas::ports::channel::profile::{Api, CredentialSpec, IdKind};

use super::signature;

/// The credential that verifies webhooks.
pub const WEBHOOK_SECRET: &str = "webhook_secret";
/// The credential that signs what is posted; without one it is [`WEBHOOK_SECRET`].
pub const SIGNING_SECRET: &str = "signing_secret";

/// The profile of the channel. Its limits are Heddle's own: there is no provider to set any.
pub static PROFILE: ChannelProfile = ChannelProfile {
    kind: ChannelKind::Http,
    text_max: NonZeroUsize::new(4096).unwrap(),
    // A program of one's own has no approved templates, and fetches files by link.
    content: ContentProfile {
        carries: &[Kind::Text, Kind::Media, Kind::Interactive, Kind::Location, Kind::Reaction],
        uploads: false,
        limits: Limits { text: 4096, caption: 4096, body: 4096, list_body: 4096, ..Limits::NONE },
    },
    // The specification recommends payloads under 20 kB; sealed, this grows by a third and still fits Kafka's 1 MiB.
    webhook_body_max: 256 << 10,
    reply_window: None,
    pair_limit: None,
    // Little enough for one small process to receive.
    messages_per_second: NonZeroU32::new(20).unwrap(),
    counts_inbound: false,
    ids: &[IdKind::Chat],
    parent_mark: None,
    credentials: &[
        CredentialSpec {
            name: WEBHOOK_SECRET,
            required: true,
            purpose: "verifies webhooks; without it any could be forged",
            fault: signature::fault,
        },
        CredentialSpec {
            name: SIGNING_SECRET,
            required: false,
            purpose: "signs what is posted",
            fault: signature::fault,
        },
    ],
    opt_out_buttons: &[],
    api: Api::Url,
};
