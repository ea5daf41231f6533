//! The endpoint of a message: `/messages`, or `/marketing_messages` for the templates that it asks for.
//!
//! The API refuses some templates on `/messages` with the code 131061 or 131063 and takes them on the other endpoint with
//! the same body
//! (<https://developers.facebook.com/documentation/business-messaging/whatsapp/marketing-messages/send-marketing-messages>).
//! A refusal means that nothing was accepted, so the message is tried again, as one of the account's paced calls, and
//! all that follow of this template go there at once. What is learned is kept in memory: a restart costs one refusal.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use heddle_schemas::id::AccountId;
use heddle_schemas::outgoing::OutgoingContent;

/// Codes of `/messages` that name the other endpoint.
const ELSEWHERE: [i64; 2] = [131_061, 131_063];
/// Templates that are remembered at most; above it they are learned anew.
const REMEMBERED: usize = 4096;

/// An endpoint of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    Messages,
    Marketing,
}

impl Endpoint {
    /// The last part of its path.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Marketing => "marketing_messages",
        }
    }
}

/// Templates that go to the other endpoint, of every account.
#[derive(Debug, Default)]
pub(super) struct Endpoints {
    marketing: Mutex<BTreeSet<(AccountId, String)>>,
}

impl Endpoints {
    /// The endpoint that takes a content.
    pub(super) fn of(&self, account: &AccountId, content: &OutgoingContent) -> Endpoint {
        let OutgoingContent::Template(template) = content else { return Endpoint::Messages };
        let marketing = self.marketing.lock().unwrap_or_else(PoisonError::into_inner);
        match marketing.contains(&(account.clone(), template.name.clone())) {
            true => Endpoint::Marketing,
            false => Endpoint::Messages,
        }
    }

    /// Learns from a refusal. Returns true where the message is to be tried again on the other endpoint.
    pub(super) fn learn(
        &self,
        account: &AccountId,
        content: &OutgoingContent,
        used: Endpoint,
        code: Option<i64>,
    ) -> bool {
        let OutgoingContent::Template(template) = content else { return false };
        if used == Endpoint::Marketing || !code.is_some_and(|code| ELSEWHERE.contains(&code)) {
            return false;
        }
        let mut marketing = self.marketing.lock().unwrap_or_else(PoisonError::into_inner);
        if marketing.len() >= REMEMBERED {
            marketing.clear();
        }
        marketing.insert((account.clone(), template.name.clone()));
        true
    }
}

#[cfg(test)]
mod tests {
    use heddle_schemas::outgoing::Template;

    use super::*;

    #[test]
    fn a_template_goes_where_its_refusal_says_and_no_other_does() {
        let endpoints = Endpoints::default();
        let account: AccountId = "1".parse().unwrap();
        let offer = OutgoingContent::Template(Template::new("offer", "de"));
        let reminder = OutgoingContent::Template(Template::new("reminder", "de"));
        assert!(!endpoints.learn(&account, &offer, Endpoint::Messages, Some(131_026)));
        assert!(!endpoints.learn(&account, &OutgoingContent::text("a"), Endpoint::Messages, Some(131_063)));
        assert_eq!(endpoints.of(&account, &offer), Endpoint::Messages);
        assert!(endpoints.learn(&account, &offer, Endpoint::Messages, Some(131_063)));
        assert_eq!(endpoints.of(&account, &offer), Endpoint::Marketing);
        assert_eq!(endpoints.of(&account, &reminder), Endpoint::Messages);
        assert_eq!(endpoints.of(&"2".parse().unwrap(), &offer), Endpoint::Messages);
        assert!(!endpoints.learn(&account, &offer, Endpoint::Marketing, Some(131_061)), "once is enough");
    }
}
