//! An account of a tenant on a channel, as an operator configures it.
//!
//! Its fields are those of every channel; its secrets are named by the channel's profile. In a file and in records
//! they stand beside each other, so an account reads as a flat table.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::profile::{Api, ChannelProfile, CredentialSpec};
use crate::id::{AccountId, ChannelKind};
use crate::sealed::Secret;

/// A channel account of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChannelAccount {
    /// The kind of channel.
    pub kind: ChannelKind,
    /// The provider's id of the account; WhatsApp: the `phone_number_id`. Where the channel has no provider, a name
    /// of one's own, which stands in the webhook's path.
    pub account: AccountId,
    /// The address that messages are sent to. A provider's API: its base with its version, by default the channel's
    /// own. A channel to a program of one's own: the whole URL.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub api_base: String,
    /// Messages a second of this account; by default the channel's. Where the channel counts them, messages that come
    /// in use it too. WhatsApp: 80, upgraded 1,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages_per_second: Option<NonZeroU32>,
    /// Its secrets, by the names that the channel gives them.
    #[serde(flatten)]
    pub credentials: Credentials,
}

/// Secrets of an account by name. The channel's profile names them, so there are few.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Credentials(BTreeMap<String, Secret>);

impl Credentials {
    /// The secret of this name, where there is one that is not empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Secret> {
        self.0.get(name).filter(|secret| !secret.is_empty())
    }

    /// Gives a secret its value.
    pub fn set(&mut self, name: impl Into<String>, secret: Secret) {
        self.0.insert(name.into(), secret);
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Secret)> {
        self.0.iter().map(|(name, secret)| (name.as_str(), secret))
    }
}

impl<N: Into<String>> FromIterator<(N, Secret)> for Credentials {
    fn from_iter<I: IntoIterator<Item = (N, Secret)>>(secrets: I) -> Self {
        Self(secrets.into_iter().map(|(name, secret)| (name.into(), secret)).collect())
    }
}

impl ChannelAccount {
    /// An account with the channel's own pace.
    #[must_use]
    pub fn new<N: Into<String>>(
        kind: ChannelKind,
        account: AccountId,
        api_base: impl Into<String>,
        credentials: impl IntoIterator<Item = (N, Secret)>,
    ) -> Self {
        let credentials = credentials.into_iter().collect();
        Self { kind, account, api_base: api_base.into(), messages_per_second: None, credentials }
    }

    /// Its secret of this name, where there is one that is not empty.
    #[must_use]
    pub fn credential(&self, name: &str) -> Option<&Secret> {
        self.credentials.get(name)
    }

    /// Its credentials, each with its place in the tenant's configuration.
    pub fn credentials_mut(&mut self) -> impl Iterator<Item = (String, &mut Secret)> {
        let at = format!("channels.{}.{}", self.kind, self.account);
        self.credentials.0.iter_mut().map(move |(name, secret)| (format!("{at}.{name}"), secret))
    }

    /// Messages a second, its own or the channel's.
    #[must_use]
    pub fn pace(&self, profile: &ChannelProfile) -> NonZeroU32 {
        self.messages_per_second.unwrap_or(profile.messages_per_second)
    }

    /// Writes down what the channel gives where the account says nothing, so that a stored account is whole.
    pub(crate) fn complete(&mut self, profile: &ChannelProfile) {
        if let (Api::Base(base), true) = (profile.api, self.api_base.is_empty()) {
            base.clone_into(&mut self.api_base);
        }
        self.messages_per_second = Some(self.pace(profile));
    }

    /// Its faults against the channel's profile; `at` is its place in the tenant's configuration.
    pub(crate) fn faults(&self, profile: &ChannelProfile, at: &str) -> Vec<String> {
        let mut faults = Vec::new();
        let base = &self.api_base;
        match profile.api {
            Api::Base(_) if base.is_empty() => {}
            Api::Url if base.is_empty() => {
                faults.push(format!("{at}.api_base: is empty; it is the URL that messages are posted to"));
            }
            _ if !(base.starts_with("https://") || base.starts_with("http://")) => {
                faults.push(format!("{at}.api_base: {base:?} is no http(s) address"));
            }
            Api::Base(_) if base.ends_with('/') => {
                faults.push(format!("{at}.api_base: {base:?} ends with a slash"));
            }
            Api::Base(_) | Api::Url => {}
        }
        for CredentialSpec { name, required, purpose, fault } in profile.credentials {
            match self.credential(name) {
                None if *required => faults.push(format!("{at}.{name}: is empty; it {purpose}")),
                None => {}
                // It stands for the stored one, which is checked when it is known.
                Some(secret) if secret.is_redacted() => {}
                Some(secret) => {
                    faults.extend(fault(secret.expose()).map(|fault| format!("{at}.{name}: {fault}")))
                }
            }
        }
        let known = |name: &str| profile.credentials.iter().any(|spec| spec.name == name);
        for (name, _) in self.credentials.iter().filter(|(name, _)| !known(name)) {
            let names: Vec<_> = profile.credentials.iter().map(|spec| spec.name).collect();
            faults.push(format!(
                "{at}.{name}: is no field of a {} account; beside account, api_base and messages_per_second it has {}",
                self.kind,
                names.join(", ")
            ));
        }
        faults
    }
}
