//! Who plays: the tenants with their secrets and their document, the customers, what they ask, and how a reply
//! tells which question it answers.
//!
//! Everything but the marks follows from the numbers and the seed, so that a second run finds the tenants of the
//! first. Messages of a conversation are numbered; number `n` asks about thing `n mod 64`, and the one passage
//! of the document about that thing bears its mark. The mark also names the run: a reply that was decided
//! in an earlier one is told from this one's.

use heddle_connectors::channels::whatsapp::{ACCESS_TOKEN, APP_SECRET, VERIFY_TOKEN};
use heddle_schemas::consent::words::ConsentWords;
use heddle_schemas::hours::Hours;
use heddle_schemas::id::{AccountId, ChannelKind, TenantId};
use heddle_schemas::ports::channel::Credentials;
use heddle_schemas::ports::knowledge::{Document, DocumentFormat};
use heddle_schemas::retention::Retention;
use heddle_schemas::sealed::Secret;
use heddle_schemas::tenant::{Agent, ChannelAccount, KnowledgeBase, Llm, Quota, Tenant, Tools};
use sha2::{Digest, Sha256};

use crate::options::Options;

/// How many things there are to ask about.
pub(crate) const THINGS: u32 = 64;
/// What stands before a mark.
const MARK: &str = "ref-";
/// What stands before the number of a customer. 555 is no area code: nobody has these numbers.
const PREFIX: &str = "1555";

/// The parts of the things' names: made up, so that no word of any language is in the way.
const BEGINNINGS: [&str; 8] = ["ba", "ke", "di", "fo", "gu", "la", "mi", "no"];
const ENDINGS: [&str; 8] = ["bork", "dunt", "fimp", "galk", "hont", "lirk", "mund", "pask"];

/// Who plays in one run.
#[derive(Debug, Clone)]
pub(crate) struct Cast {
    tenants: u32,
    conversations: u32,
    seed: u64,
    /// Six hexadecimal digits that name the run.
    run: String,
}

impl Cast {
    /// Of these options; `moment` tells this run from others.
    pub(crate) fn new(options: &Options, moment: u64) -> Self {
        Self {
            tenants: options.tenants.get(),
            conversations: options.conversations.get(),
            seed: options.seed,
            run: format!("{:06x}", moment & 0xff_ffff),
        }
    }

    /// The id of a tenant, by its number from 0.
    pub(crate) fn tenant_id(tenant: u32) -> TenantId {
        format!("load-{:04}", tenant + 1).parse().expect("digits are allowed in an id")
    }

    /// The WhatsApp account of a tenant.
    pub(crate) fn account(tenant: u32) -> AccountId {
        format!("9900{:011}", tenant + 1).parse().expect("digits are allowed in an id")
    }

    /// The tenant's token or secret.
    pub(crate) fn secret(&self, what: &str, tenant: u32) -> Secret {
        let digest = Sha256::digest(format!("heddle load/{what}/{}/{tenant}", self.seed));
        Secret::new(hex::encode(digest))
    }

    /// A tenant's configuration, its channel at this address.
    pub(crate) fn tenant(&self, tenant: u32, api_base: &str, options: &Options) -> Tenant {
        Tenant {
            id: Self::tenant_id(tenant),
            name: format!("Load {:04}", tenant + 1),
            region: "eu".into(),
            agent: Agent { settle: options.settle, ..Agent::default() },
            channels: vec![ChannelAccount {
                kind: ChannelKind::Whatsapp,
                account: Self::account(tenant),
                api_base: api_base.to_owned(),
                messages_per_second: Some(options.per_number),
                credentials: Credentials::from_iter([
                    (ACCESS_TOKEN, self.secret("token", tenant)),
                    (APP_SECRET, self.secret("secret", tenant)),
                    (VERIFY_TOKEN, self.secret("verify", tenant)),
                ]),
            }],
            disconnected: Vec::new(),
            llm: Llm::default(),
            // Load is not what a quota is for.
            hours: Hours::default(),
            calendar: None,
            tools: Tools::default(),
            quota: Quota {
                messages_per_month: 1_000_000_000_000,
                tokens_per_month: 1_000_000_000_000,
                ..Quota::default()
            },
            retention: Retention::default(),
            knowledge: KnowledgeBase::default(),
            consent: ConsentWords::default(),
        }
    }

    /// What every tenant knows.
    pub(crate) fn document(&self) -> Document {
        let sections: Vec<_> = (0..THINGS)
            .map(|thing| {
                let name = name(thing);
                format!("## {name}\n\nThe {name} has the mark {MARK}{}-{thing:03}.\n", self.run)
            })
            .collect();
        Document {
            id: "things.md".into(),
            title: "Things and their marks".into(),
            format: DocumentFormat::Markdown,
            text: sections.join("\n"),
        }
    }

    /// How many conversations there are.
    pub(crate) fn conversations(&self) -> u32 {
        self.conversations
    }

    /// Whose a conversation is.
    pub(crate) fn tenant_of(&self, conversation: u32) -> u32 {
        conversation % self.tenants
    }

    /// The customer's phone number.
    pub(crate) fn phone(conversation: u32) -> String {
        format!("{PREFIX}{conversation:08}")
    }

    /// The conversation with this number on this account, if there is one.
    pub(crate) fn conversation(&self, account: &AccountId, phone: &str) -> Option<u32> {
        let number = phone.strip_prefix(PREFIX).filter(|digits| digits.len() == 8)?;
        let number: u32 = number.parse().ok()?;
        let tenant: u32 = account.as_str().strip_prefix("9900")?.parse().ok()?;
        (number < self.conversations && tenant == self.tenant_of(number) + 1).then_some(number)
    }

    /// What is asked about a thing.
    pub(crate) fn question(thing: u32) -> String {
        format!("Which mark has the {}?", name(thing))
    }

    /// The things that a reply speaks of, as far as it was decided in this run.
    pub(crate) fn things<'a>(&'a self, reply: &'a str) -> impl Iterator<Item = u32> + 'a {
        reply.split(MARK).skip(1).filter_map(|mark| {
            let number = mark.strip_prefix(self.run.as_str())?.strip_prefix('-')?.get(..3)?;
            number.parse().ok().filter(|thing| *thing < THINGS)
        })
    }
}

fn name(thing: u32) -> String {
    let thing = thing as usize;
    format!("{}{}", BEGINNINGS[thing / 8 % 8], ENDINGS[thing % 8])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn cast(moment: u64) -> Cast {
        Cast::new(&Options::default(), moment)
    }

    #[test]
    fn tenants_are_valid_and_their_secrets_differ_and_come_again() {
        let options = Options::default();
        let tenant = |number| cast(1).tenant(number, "http://127.0.0.1:9/v21.0", &options);
        tenant(0).validate().unwrap();
        assert_eq!(tenant(0).id.as_str(), "load-0001");
        assert_eq!(tenant(3), cast(2).tenant(3, "http://127.0.0.1:9/v21.0", &options));
        let secrets: BTreeSet<_> = (0..5)
            .flat_map(|number| ["token", "secret", "verify"].map(|what| cast(1).secret(what, number)))
            .map(|secret| secret.expose().to_owned())
            .collect();
        assert_eq!(secrets.len(), 15);
    }

    #[test]
    fn a_passage_says_which_question_it_answers() {
        let cast = cast(0xabc);
        let text = cast.document().text;
        for thing in 0..THINGS {
            assert_eq!(text.matches(&format!("## {}\n", name(thing))).count(), 1, "names differ");
            let passage = text.split("## ").find(|passage| passage.starts_with(&name(thing))).unwrap();
            assert_eq!(cast.things(passage).collect::<Vec<_>>(), [thing]);
        }
        assert_eq!(cast.things(&text).count(), 64);
        assert_eq!(cast.things("A colleague will get back to you.").count(), 0);
        assert_eq!(cast.things("ref-000abc-064 ref-000abc-1 ref-").count(), 0);
    }

    #[test]
    fn replies_of_an_earlier_run_are_none_of_this_one() {
        assert_eq!(cast(2).things(&cast(1).document().text).count(), 0);
    }

    #[test]
    fn a_conversation_is_found_by_its_number_on_its_own_account_only() {
        let cast = cast(1);
        for conversation in [0, 1, 19, 20, 9_999] {
            let account = Cast::account(cast.tenant_of(conversation));
            let phone = Cast::phone(conversation);
            assert_eq!(cast.conversation(&account, &phone), Some(conversation));
            let other = Cast::account(cast.tenant_of(conversation + 1));
            assert_eq!(cast.conversation(&other, &phone), None);
        }
        assert_eq!(cast.conversation(&Cast::account(0), &Cast::phone(10_000)), None, "there are 10,000");
        assert_eq!(cast.conversation(&Cast::account(0), "16505551234"), None);
    }
}
