//! A tenant as an operator writes it: its id, agent, channels, limits and retention.
//!
//! A file is read with [`Tenant::from_toml`], which reports every fault at once. Secrets in it are a literal,
//! `env:NAME` or `file:PATH`; the reader of the file resolves them through [`Tenant::secrets_mut`], and they are stored
//! only sealed.

mod agent;
pub mod changes;
mod knowledge;
mod llm;
mod quota;
mod validation;

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::agent::{Agent, LoopAction, LoopGuard, PaymentLink, PerContact, Tools};
pub use self::knowledge::KnowledgeBase;
pub use self::llm::{Llm, Model, PersonalData, Provider};
pub use self::quota::{Quota, Resource, WhenSpent};
use crate::consent::Says;
use crate::consent::words::ConsentWords;
use crate::content::Content;
use crate::hours::Hours;
use crate::id::{AccountId, AccountKey, ChannelKind, TenantId};
use crate::ports::calendar::CalendarAccess;
pub use crate::ports::channel::ChannelAccount;
use crate::ports::channel::ChannelProfile;
use crate::retention::{OfDisconnected, Retention};
use crate::sealed::Secret;
use crate::time::Timestamp;
use crate::toml_file::TomlFile;

/// A text that is not blank, in a JSON Schema: with a character that is not among Unicode's white space.
pub(crate) const NOT_BLANK: &str =
    "[^\\u0009-\\u000d\\u0020\\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]";
/// An address without a slash at its end, in a JSON Schema.
pub(crate) const ADDRESS: &str = "^https?://(.*[^/])$";
/// An address as [`ADDRESS`], or none.
const ADDRESS_OR_NONE: &str = "^(https?://(.*[^/]))?$";

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Its name, as people know it.
    #[schemars(regex(pattern = NOT_BLANK))]
    pub name: String,
    /// The region its data stays in.
    #[serde(default = "default_region")]
    #[schemars(regex(pattern = NOT_BLANK))]
    pub region: String,
    /// The agent.
    #[serde(default)]
    pub agent: Agent,
    /// The channel accounts.
    #[serde(default)]
    pub channels: Vec<ChannelAccount>,
    /// Disconnected channel accounts. The engine keeps this list. Their conversations are deleted, or where
    /// `retention.disconnected` says `kept`, kept for as long as others, exported and erased with the rest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disconnected: Vec<Disconnected>,
    /// The responder.
    #[serde(default)]
    pub llm: Llm,
    /// Opening hours and time zone.
    #[serde(default)]
    pub hours: Hours,
    /// The calendar in which appointments are booked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calendar: Option<CalendarAccess>,
    /// Tools of the agent, where a language model answers.
    #[serde(default)]
    pub tools: Tools,
    /// The monthly quota.
    #[serde(default)]
    pub quota: Quota,
    /// Times to live of its data.
    #[serde(default)]
    pub retention: Retention,
    /// Treatment of what customers should not have written.
    #[serde(default, skip_serializing_if = "Privacy::is_default")]
    pub privacy: Privacy,
    /// The search of its documents.
    #[serde(default)]
    pub knowledge: KnowledgeBase,
    /// Words that withdraw or give consent.
    #[serde(default)]
    pub consent: ConsentWords,
}

/// The region of tenants and nodes that name none.
pub(crate) fn default_region() -> String {
    "eu".into()
}

/// Treatment of what customers should not have written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Privacy {
    /// Treatment of payment card numbers in what customers write. Default: redacted.
    pub card_numbers: CardNumbers,
}

impl Privacy {
    /// As it is where the file says nothing: an earlier build can read it then.
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Treatment of payment card numbers in what customers write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CardNumbers {
    /// They are replaced before anything is stored.
    #[default]
    Redacted,
    /// They are kept as they were written.
    Kept,
}

/// A channel account that a tenant has had.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Disconnected {
    /// The channel.
    pub kind: ChannelKind,
    /// The provider's id of it.
    pub account: AccountId,
    /// Time of the erasure of its credentials, microseconds since 1970.
    pub at: Timestamp,
}

/// The profile of each kind of channel that a build has.
pub type Profiles<'a> = &'a dyn Fn(ChannelKind) -> Option<&'static ChannelProfile>;

/// Everything that is wrong with a file, a line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Faults(pub Vec<String>);

impl Tenant {
    /// Reads a tenant's file. Its channels are not checked against their profiles: that is for [`Tenant::complete`].
    ///
    /// # Errors
    /// Every fault, of the syntax and of the values, each with its line.
    pub fn from_toml(text: &str) -> Result<Self, Faults> {
        let reading = TomlFile::parse(text, None).read::<Self>();
        let more = reading.value.as_ref().map(Self::faults).unwrap_or_default();
        reading.finish(more)
    }

    /// Checks everything, and writes down what a channel's profile gives where the file says nothing.
    ///
    /// # Errors
    /// Every fault; then nothing is changed.
    pub fn complete(&mut self, profiles: Profiles<'_>) -> Result<(), Faults> {
        let mut faults = self.faults();
        faults.extend(self.channel_faults(profiles));
        if !faults.is_empty() {
            return Err(Faults(faults));
        }
        for channel in &mut self.channels {
            if let Some(profile) = profiles(channel.kind) {
                channel.complete(profile);
            }
        }
        Ok(())
    }

    /// Checks what the types leave open, but for its channels' profiles.
    ///
    /// # Errors
    /// Every fault.
    pub fn validate(&self) -> Result<(), Faults> {
        let faults = self.faults();
        if faults.is_empty() { Ok(()) } else { Err(Faults(faults)) }
    }

    /// Returns the statement about consent that a message makes, if a person typed it: a stop or a start word. Taps say
    /// what a button's title says, which somebody else wrote.
    #[must_use]
    pub fn says(&self, content: &Content) -> Option<Says> {
        self.consent.says(content.typed()?, self.knowledge.language)
    }

    /// Every secret with its place, for resolving.
    pub fn secrets_mut(&mut self) -> BTreeMap<String, &mut Secret> {
        let mut secrets = own_secrets_mut(&mut self.llm, &mut self.calendar);
        secrets.extend(self.channels.iter_mut().flat_map(ChannelAccount::credentials_mut));
        secrets
    }

    /// The secrets that are no channel's.
    pub fn own_secrets_mut(&mut self) -> BTreeMap<String, &mut Secret> {
        own_secrets_mut(&mut self.llm, &mut self.calendar)
    }

    /// Gives each secret that reads `[redacted]`, as in a shown configuration, the value that is stored. Returns a fault
    /// for each that has none, or that would go to another address than before: whoever may change an address, and does
    /// not know the secret, does not get it sent there.
    pub fn keep_secrets(&mut self, stored: Option<&Self>) -> Vec<String> {
        let mut stored = stored.cloned();
        let before = stored.as_ref().map(Self::destinations).unwrap_or_default();
        let known = stored.as_mut().map(Self::secrets_mut).unwrap_or_default();
        let now = self.destinations();
        let mut faults = Vec::new();
        for (place, secret) in self.secrets_mut().into_iter().filter(|(_, secret)| secret.is_redacted()) {
            match known.get(&place).filter(|known| !known.is_empty()) {
                Some(known) if now.get(&place) == before.get(&place) => *secret = (**known).clone(),
                Some(_) => faults.push(format!(
                    "{place}: is \"[redacted]\", and goes to another address than the stored one; write the secret itself"
                )),
                None => faults.push(format!(
                    "{place}: is \"[redacted]\", and there is no stored one to keep; write the secret itself"
                )),
            }
        }
        faults
    }

    /// Every address that it makes the node call, with its place and, for one of a channel, the channel.
    #[must_use]
    pub fn addresses(&self) -> Vec<(String, &str, Option<ChannelKind>)> {
        let mut addresses = vec![("llm.api_base".to_owned(), self.llm.api_base.as_str(), None)];
        for (index, fallback) in self.llm.fallbacks.iter().enumerate() {
            addresses.push((format!("llm.fallbacks[{index}].api_base"), &fallback.api_base, None));
        }
        if let Some(calendar) = &self.calendar {
            addresses.push(("calendar.api_base".into(), &calendar.api_base, None));
            addresses.push(("calendar.token_base".into(), &calendar.token_base, None));
        }
        for (index, channel) in self.channels.iter().enumerate() {
            addresses.push((format!("channels[{index}].api_base"), &channel.api_base, Some(channel.kind)));
        }
        addresses.retain(|(_, address, _)| !address.is_empty());
        addresses
    }

    /// Returns the address that each secret is sent to, by the secret's place.
    fn destinations(&self) -> BTreeMap<String, String> {
        let models = self.llm.models().enumerate().map(|(index, model)| {
            let place = match index {
                0 => "llm.api_key".to_owned(),
                index => format!("llm.fallbacks.{}.api_key", index - 1),
            };
            (place, format!("{:?} {}", model.provider, model.base()))
        });
        let calendar = self.calendar.iter().flat_map(|access| {
            let to = format!("{} {} {}", access.api_base, access.token_base, access.client_id);
            ["client_secret", "refresh_token"].map(|name| (format!("calendar.{name}"), to.clone()))
        });
        let channels = self.channels.iter().flat_map(|account| {
            let places = account.credentials.iter();
            places.map(|(name, _)| {
                (format!("channels.{}.{}.{name}", account.kind, account.account), account.api_base.clone())
            })
        });
        models.chain(calendar).chain(channels).collect()
    }

    /// The configuration as JSON with its secrets in the clear, as the admin API takes it. Never for a log.
    ///
    /// # Panics
    /// Never: a configuration is always JSON.
    #[must_use]
    pub fn to_json_exposed(&self) -> serde_json::Value {
        let mut json = serde_json::to_value(self).expect("a configuration is always JSON");
        json["llm"]["api_key"] = self.llm.api_key.expose().into();
        for (index, fallback) in self.llm.fallbacks.iter().enumerate() {
            json["llm"]["fallbacks"][index]["api_key"] = fallback.api_key.expose().into();
        }
        if let Some(calendar) = &self.calendar {
            json["calendar"]["client_secret"] = calendar.client_secret.expose().into();
            json["calendar"]["refresh_token"] = calendar.refresh_token.expose().into();
        }
        for (index, channel) in self.channels.iter().enumerate() {
            let json = &mut json["channels"][index];
            for (name, secret) in channel.credentials.iter() {
                json[name] = secret.expose().into();
            }
        }
        json
    }

    /// The account with this id.
    #[must_use]
    pub fn channel(&self, kind: ChannelKind, account: &AccountId) -> Option<&ChannelAccount> {
        self.channels.iter().find(|channel| channel.kind == kind && channel.account == *account)
    }

    /// The keys of its accounts.
    pub fn accounts(&self) -> impl Iterator<Item = AccountKey> + '_ {
        self.channels.iter().map(|channel| self.account(channel.kind, &channel.account))
    }

    /// The key of an account of this tenant.
    #[must_use]
    pub fn account(&self, kind: ChannelKind, account: &AccountId) -> AccountKey {
        AccountKey { tenant: self.id.clone(), channel: kind, account: account.clone() }
    }

    /// Returns whether an account is disconnected, and its conversations are to be deleted.
    #[must_use]
    pub fn deletes_conversations_of(&self, kind: ChannelKind, account: &AccountId) -> bool {
        self.retention.disconnected == OfDisconnected::Deleted
            && self.channel(kind, account).is_none()
            && self.disconnected.iter().any(|one| one.kind == kind && one.account == *account)
    }

    /// The keys of its accounts and of those it has had: a contact may have a conversation with each.
    #[must_use]
    pub fn accounts_ever(&self) -> BTreeSet<AccountKey> {
        let disconnected = self.disconnected.iter().map(|one| self.account(one.kind, &one.account));
        self.accounts().chain(disconnected).collect()
    }
}

fn own_secrets_mut<'a>(
    llm: &'a mut Llm,
    calendar: &'a mut Option<CalendarAccess>,
) -> BTreeMap<String, &'a mut Secret> {
    let mut secrets = BTreeMap::from([("llm.api_key".to_owned(), &mut llm.api_key)]);
    for (index, fallback) in llm.fallbacks.iter_mut().enumerate() {
        secrets.insert(format!("llm.fallbacks.{index}.api_key"), &mut fallback.api_key);
    }
    if let Some(calendar) = calendar {
        secrets.insert("calendar.client_secret".to_owned(), &mut calendar.client_secret);
        secrets.insert("calendar.refresh_token".to_owned(), &mut calendar.refresh_token);
    }
    secrets
}

#[cfg(test)]
mod tests;
