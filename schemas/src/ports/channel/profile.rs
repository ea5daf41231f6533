//! The profile of a channel: the limits, identity scopes and credentials that the engine reads instead of constants.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::content::{Address, ChatId};
use crate::digits;
use crate::id::ChannelKind;
use crate::outgoing::ContentProfile;
use crate::phone::{self, PhoneNumber};
use crate::record::ingress::Label;

/// Refusals after which the pause of a pair grows no further.
const PAUSE_GROWTH: u32 = 8;

/// The constants of a channel. Each value cites its source where the channel defines it.
#[derive(Debug)]
pub struct ChannelProfile {
    /// The channel's kind.
    pub kind: ChannelKind,
    /// Characters (Unicode scalar values) of one text message at most; a longer answer becomes several.
    pub text_max: NonZeroUsize,
    /// Contents it carries, and their limits.
    pub content: ContentProfile,
    /// Bytes of a webhook's body at most.
    pub webhook_body_max: usize,
    /// Time after a customer's last message in which anything but a template may be sent; `None`: any time.
    pub reply_window: Option<Duration>,
    /// Limit of messages to one user, where the channel has one.
    pub pair_limit: Option<PairLimit>,
    /// Messages a second of an account that configures none.
    pub messages_per_second: NonZeroU32,
    /// True where a customer's messages use up the account's messages a second too.
    pub counts_inbound: bool,
    /// The ids by which it knows a person, the deciding one first.
    pub ids: &'static [IdKind],
    /// Marks, within a user id, one that is given towards a parent business.
    pub parent_mark: Option<&'static str>,
    /// The secrets of an account.
    pub credentials: &'static [CredentialSpec],
    /// Titles of the channel's own button by which a person wants no more marketing.
    pub opt_out_buttons: &'static [&'static str],
    /// The address that an account's messages are sent to.
    pub api: Api,
}

/// Limit of messages to one user: one in `interval`, with `burst` at once borrowed from the future.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PairLimit {
    /// Time that a message uses up.
    pub interval: Duration,
    /// Messages at once.
    pub burst: NonZeroU32,
    /// Base of the pause after refusals, in seconds: its power of the refusals before.
    pub pause_base: u32,
}

impl PairLimit {
    /// Returns the pause of a pair after this number of refusals of a message.
    #[must_use]
    pub fn pause(&self, refusals: u32) -> Duration {
        let exponent = refusals.min(PAUSE_GROWTH).saturating_sub(1);
        Duration::from_secs(u64::from(self.pause_base).saturating_pow(exponent))
    }
}

/// Scope in which an id of a person is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// On every channel: a phone number.
    Global,
    /// Towards one business, on all its accounts of the channel.
    Business,
    /// Towards one account: a page-scoped id, a chat id.
    Account,
}

/// A kind of id that a person is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdKind {
    /// [`Address::user_id`].
    User,
    /// [`Address::parent_user_id`].
    Parent,
    /// [`Address::phone`].
    Phone,
    /// [`Address::chat`].
    Chat,
}

impl IdKind {
    /// Returns the scope in which such an id is valid.
    #[must_use]
    pub fn scope(self) -> Scope {
        match self {
            Self::Phone => Scope::Global,
            Self::User | Self::Parent => Scope::Business,
            Self::Chat => Scope::Account,
        }
    }

    /// The text that an alias of this id is the keyed hash of; `None` where the address lacks it.
    ///
    /// The texts are stored form. Those of phone numbers and user ids are from the time of a single channel; a number
    /// is the same person's on every channel, so it keeps that channel's name everywhere.
    #[must_use]
    pub fn alias(self, kind: ChannelKind, address: &Address) -> Option<String> {
        Some(match self {
            Self::User => format!("{kind}/user/{}", address.user_id.as_ref()?),
            Self::Parent => format!("{kind}/parent/{}", address.parent_user_id.as_ref()?),
            Self::Phone => format!("whatsapp/phone/{}", address.phone.as_ref()?),
            Self::Chat => {
                let ChatId { account, id } = address.chat.as_deref()?;
                format!("{kind}/account/{account}/{id}")
            }
        })
    }
}

/// A secret of an account.
#[derive(Debug)]
pub struct CredentialSpec {
    /// Its name in the tenant's file.
    pub name: &'static str,
    /// True where an account needs it.
    pub required: bool,
    /// Its use, completing "is empty; it ...".
    pub purpose: &'static str,
    /// The fault of a value that cannot be one, completing `channels[0].name: ...`; `None` for one that can.
    pub fault: fn(&str) -> Option<&'static str>,
}

impl CredentialSpec {
    /// A required secret of any form.
    #[must_use]
    pub const fn required(name: &'static str, purpose: &'static str) -> Self {
        Self { name, required: true, purpose, fault: |_| None }
    }
}

/// The address that an account's messages are sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// The provider's, which an account may replace: the base that paths are appended to.
    Base(&'static str),
    /// The tenant's own, which every account configures: a whole URL.
    Url,
}

impl ChannelProfile {
    /// Returns whether the channel has ids of this kind.
    #[must_use]
    pub fn has(&self, id: IdKind) -> bool {
        self.ids.contains(&id)
    }

    /// Returns whether the address has an id by which the channel identifies people.
    #[must_use]
    pub fn knows(&self, address: &Address) -> bool {
        self.write_id(address).is_some()
    }

    /// Reads an id as people write it; `None` where it cannot be one of the channel's.
    ///
    /// Digits, in any common form of a number with its country code, are a phone number where the channel has such, and an id like any other where it
    /// has none. An id of one account is written `ACCOUNT/ID`.
    #[must_use]
    pub fn read_id(&self, text: &str) -> Option<Address> {
        let mut address = Address::default();
        if self.has(IdKind::Phone)
            && let Some(number) = PhoneNumber::of_channel(text)
        {
            address.phone = Some(number.into_digits());
            return Some(address);
        }
        if self.has(IdKind::Phone) && is_written_as_number(text) {
            return None;
        }
        if self.has(IdKind::Chat)
            && let Some((account, id)) = text.split_once('/')
        {
            let id = Label::new(id)?.into();
            address.chat = Some(Box::new(ChatId { account: account.parse().ok()?, id }));
            return Some(address);
        }
        let id = Some(Label::new(text)?.into());
        match self.parent_mark.is_some_and(|infix| text.contains(infix)) {
            true if self.has(IdKind::Parent) => address.parent_user_id = id,
            _ if self.has(IdKind::User) => address.user_id = id,
            _ => return None,
        }
        Some(address)
    }

    /// The id of an address that the channel decides by, as [`ChannelProfile::read_id`] reads it.
    #[must_use]
    pub fn write_id(&self, address: &Address) -> Option<String> {
        self.ids.iter().find_map(|id| match id {
            IdKind::User => address.user_id.clone(),
            IdKind::Parent => address.parent_user_id.clone(),
            IdKind::Phone => address.phone.clone(),
            IdKind::Chat => address.chat.as_ref().map(|chat| format!("{}/{}", chat.account, chat.id)),
        })
    }
}

/// Returns whether a text without letters is meant as a number, though it cannot be one.
fn is_written_as_number(text: &str) -> bool {
    text.starts_with('+') || text.chars().all(|c| digits::value(c).is_some() || phone::is_separator(c))
}

/// A profile for tests of this crate.
#[cfg(test)]
pub(crate) const fn example(ids: &'static [IdKind]) -> ChannelProfile {
    use crate::outgoing::{Kind, Limits};
    const CREDENTIALS: &[CredentialSpec] = &[
        CredentialSpec::required("access_token", "is needed to send"),
        CredentialSpec::required("app_secret", "is needed to verify webhooks"),
        CredentialSpec {
            name: "verify_token",
            required: false,
            purpose: "confirms a subscription",
            fault: |text| text.contains(' ').then_some("has a blank"),
        },
    ];
    ChannelProfile {
        kind: ChannelKind::Whatsapp,
        text_max: NonZeroUsize::new(100).unwrap(),
        content: ContentProfile { carries: Kind::ALL, uploads: false, limits: Limits::NONE },
        webhook_body_max: 1024,
        reply_window: None,
        pair_limit: None,
        messages_per_second: NonZeroU32::new(80).unwrap(),
        counts_inbound: false,
        ids,
        parent_mark: Some(".ENT."),
        credentials: CREDENTIALS,
        opt_out_buttons: &[],
        api: Api::Base("https://graph.facebook.com/v21.0"),
    }
}

#[cfg(test)]
mod tests {
    use super::example as profile;
    use super::*;

    fn chat(account: &str, id: &str) -> Address {
        let chat = Box::new(ChatId { account: account.parse().unwrap(), id: id.into() });
        Address { chat: Some(chat), ..Address::default() }
    }

    #[test]
    fn digits_are_a_number_only_where_the_channel_has_numbers() {
        let numbers = profile(&[IdKind::User, IdKind::Parent, IdKind::Phone]);
        let scoped = profile(&[IdKind::User]);
        let chats = profile(&[IdKind::Chat]);
        for text in ["4915112345678", "+4915112345678"] {
            assert_eq!(numbers.read_id(text).unwrap().phone.as_deref(), Some("4915112345678"), "{text}");
        }
        // Seventeen digits: no E.164 number, and an id of somebody on a channel without numbers.
        assert_eq!(numbers.read_id("24012345678901234"), None);
        assert_eq!(
            scoped.read_id("24012345678901234").unwrap().user_id.as_deref(),
            Some("24012345678901234")
        );
        assert_eq!(chats.read_id("shop/4915112345678"), Some(chat("shop", "4915112345678")));
        assert_eq!(chats.read_id("4915112345678"), None, "of which account?");
    }

    #[test]
    fn an_id_reads_back_as_it_is_written() {
        let numbers = profile(&[IdKind::User, IdKind::Parent, IdKind::Phone]);
        for text in ["4915112345678", "US.134", "US.ENT.134"] {
            assert_eq!(numbers.write_id(&numbers.read_id(text).unwrap()).unwrap(), text);
        }
        let chats = profile(&[IdKind::Chat]);
        for text in ["shop/v-7", "a:b/c/d", "1/+49151"] {
            assert_eq!(chats.write_id(&chats.read_id(text).unwrap()).unwrap(), text);
        }
        for wrong in ["", "/", "shop/", "/v-7", "sh op/v-7"] {
            assert_eq!(chats.read_id(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_alias_holds_as_much_as_its_scope() {
        let address = Address {
            phone: Some("4915112345678".into()),
            user_id: Some("US.1".into()),
            parent_user_id: Some("US.ENT.1".into()),
            ..chat("shop", "v-7")
        };
        let aliases = |kind| {
            [IdKind::User, IdKind::Parent, IdKind::Phone, IdKind::Chat]
                .map(|id| id.alias(kind, &address).unwrap())
        };
        // The first three are the form of everything stored before accounts had a scope.
        assert_eq!(
            aliases(ChannelKind::Whatsapp),
            [
                "whatsapp/user/US.1",
                "whatsapp/parent/US.ENT.1",
                "whatsapp/phone/4915112345678",
                "whatsapp/account/shop/v-7"
            ]
        );
        let other = chat("support", "v-7");
        assert_ne!(
            IdKind::Chat.alias(ChannelKind::Whatsapp, &other),
            IdKind::Chat.alias(ChannelKind::Whatsapp, &address)
        );
        assert_eq!(IdKind::Phone.alias(ChannelKind::Whatsapp, &other), None);
    }

    #[test]
    fn a_pair_pauses_four_times_longer_after_each_refusal() {
        let limit = PairLimit { interval: Duration::from_secs(6), burst: NonZeroU32::MIN, pause_base: 4 };
        let pauses = [1, 2, 3, 8, 9, u32::MAX].map(|refusals| limit.pause(refusals).as_secs());
        assert_eq!(pauses, [1, 4, 16, 16_384, 16_384, 16_384]);
        assert_eq!(limit.pause(0).as_secs(), 1);
    }
}
