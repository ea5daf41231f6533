//! The channels: one folder each, and a line of the registry.
//!
//! The engine takes its channels from [`registry`] and their constants from [`profile`]; nothing outside this folder
//! names one, but for a tenant's configuration. A new channel adds its folder, its module and its line here, and its
//! name to [`ChannelKind`].
//!
//! # Layout
//! - `client`: the HTTP client that channels share the options of.
//! - `call`: judging calls that got no answer, and texts that are written down.
//! - [`whatsapp`]: the WhatsApp Cloud API.
//! - [`http`]: a program of one's own.

mod call;
mod client;
pub mod http;
pub mod whatsapp;

use std::collections::BTreeMap;
use std::sync::Arc;

use heddle_schemas::id::ChannelKind;
use heddle_schemas::ports::channel::{Channel, ChannelProfile};
use heddle_schemas::ports::clock::Clock;

pub use self::client::{Options, SetupError};

/// Builds a channel that calls its API as the options say. The clock stamps what a webhook leaves unstamped.
type Build = fn(&Options, Arc<dyn Clock>) -> Result<Arc<dyn Channel>, SetupError>;

/// Every channel of this build.
const CHANNELS: &[(&ChannelProfile, Build)] = &[
    (&whatsapp::PROFILE, |options, clock| Ok(Arc::new(whatsapp::WhatsApp::new(options, clock)?))),
    (&http::PROFILE, |options, clock| Ok(Arc::new(http::Http::new(options, clock)?))),
];

/// Every channel of this build, by its kind.
///
/// # Errors
/// If an HTTP client cannot be built, such as without TLS root certificates.
pub fn registry(
    options: &Options,
    clock: &Arc<dyn Clock>,
) -> Result<BTreeMap<ChannelKind, Arc<dyn Channel>>, SetupError> {
    CHANNELS.iter().map(|(profile, build)| Ok((profile.kind, build(options, clock.clone())?))).collect()
}

/// Returns the profile of a kind of channel, for callers that need no client.
#[must_use]
pub fn profile(kind: ChannelKind) -> Option<&'static ChannelProfile> {
    CHANNELS.iter().map(|(profile, _)| *profile).find(|profile| profile.kind == kind)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::clock::SystemClock;

    #[test]
    fn every_kind_has_its_channel_and_profile() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let channels = registry(&Options::default(), &clock).unwrap();
        assert_eq!(channels.keys().collect::<Vec<_>>(), ChannelKind::ALL.iter().collect::<Vec<_>>());
        for (kind, channel) in &channels {
            assert_eq!((channel.kind(), profile(*kind).unwrap().kind), (*kind, *kind));
        }
    }

    #[test]
    fn every_profile_is_whole() {
        for profile in CHANNELS.iter().map(|(profile, _)| *profile) {
            let kind = profile.kind;
            assert!(!profile.ids.is_empty(), "{kind}: no customer could be met");
            assert!((1..=16 << 20).contains(&profile.webhook_body_max), "{kind}");
            let names: BTreeSet<_> = profile.credentials.iter().map(|spec| spec.name).collect();
            assert_eq!(names.len(), profile.credentials.len(), "{kind}: a credential twice");
            for name in ["kind", "account", "api_base", "messages_per_second"] {
                assert!(!names.contains(name), "{kind}: {name} is a field of every account");
            }
        }
    }
}
