//! The meaning of a refusal of the Graph API.
//!
//! The codes are those of
//! <https://developers.facebook.com/documentation/business-messaging/whatsapp/support/error-codes> and, where that page
//! has none, of <https://developers.facebook.com/docs/graph-api/guides/error-handling>;
//! Meta asks programs to go by the code first and by the HTTP status where there is none.

use heddle_schemas::ports::channel::{FailureClass, Scope};

/// A refusal: the HTTP status and, where the body was a Graph error, what it says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Refusal<'a> {
    /// The HTTP status.
    pub status: u16,
    /// `error.code`.
    pub code: Option<i64>,
    /// `error.error_subcode`.
    pub subcode: Option<i64>,
    /// `error.type`.
    pub kind: Option<&'a str>,
    /// `error.is_transient`.
    pub is_transient: bool,
}

/// The type of errors that are about the object of the request's path, such as a number that does not exist or that
/// the token may not see.
const METHOD_EXCEPTION: &str = "GraphMethodException";
/// The subcode of 100 for an object that does not exist or that the token may not see.
const NO_SUCH_OBJECT: i64 = 33;

impl Refusal<'_> {
    /// Returns what the refusal means, and what it concerns.
    ///
    /// A Graph error means that the message was not accepted. Without one, a 500, 502 or 504 comes from
    /// something in front of the API or broken within it, which may have handed the message on and lost
    /// the answer: the outcome is unknown. A 503 says that the server cannot handle requests now (RFC 9110,
    /// 15.6.4), so that one was not accepted. A redirect or 404 means that the address of the API is wrong,
    /// which an operator must correct; the messages wait for it. So does an error about the number itself.
    #[must_use]
    pub fn classify(self) -> (FailureClass, Scope) {
        use FailureClass::{Blocked, Final, RateLimited, Temporary, Unauthorized, Unknown};
        if (self.code, self.subcode) == (Some(100), Some(NO_SUCH_OBJECT)) {
            return (Blocked, Scope::Number);
        }
        if let Some(known) = self.code.and_then(classify_code)
            && !(self.code == Some(100) && self.kind == Some(METHOD_EXCEPTION))
        {
            return known;
        }
        if self.kind == Some(METHOD_EXCEPTION) {
            return (Blocked, Scope::Number);
        }
        if self.is_transient {
            return (Temporary, Scope::Number);
        }
        match (self.status, self.code.is_some()) {
            (401, _) => (Unauthorized, Scope::Number),
            (403, true) => (Unauthorized, Scope::Number),
            (403, false) => (Blocked, Scope::Number),
            (429, _) => (RateLimited, Scope::Number),
            (408 | 425, _) => (Temporary, Scope::Number),
            (503, _) | (500..=599, true) => (Temporary, Scope::Number),
            (500..=599, false) => (Unknown, Scope::Number),
            (300..=399, _) | (404, false) => (Blocked, Scope::Number),
            (400..=499, _) => (Final, Scope::Message),
            // A status that no API gives an error with: 1xx, or a 2xx that holds an error.
            (_, true) => (Temporary, Scope::Number),
            (_, false) => (Unknown, Scope::Number),
        }
    }
}

/// Returns true if this code of a refusal or a failed status means that the person wants no more marketing messages.
pub(super) fn is_opt_out(code: i64) -> bool {
    classify_code(code).is_some_and(|(class, _)| class == FailureClass::OptedOut)
}

fn classify_code(code: i64) -> Option<(FailureClass, Scope)> {
    use FailureClass::{Blocked, Final, OptedOut, PairLimited, RateLimited, Temporary, Unauthorized};
    Some(match code {
        // The token is invalid or lacks a permission.
        0 | 3 | 10 | 190 | 200..=299 | 131_005 => (Unauthorized, Scope::Number),
        // The app or the business account calls too often.
        4 | 17 | 32 | 613 | 80_004 | 80_007 | 80_008 => (RateLimited, Scope::Waba),
        // The number sends too fast; 131048 because of complaints.
        130_429 | 131_048 => (RateLimited, Scope::Number),
        131_056 => (PairLimited, Scope::Pair),
        // Unknown error, overload, maintenance while a number is upgraded.
        1 | 2 | 131_000 | 131_016 | 131_057 | 133_004 => (Temporary, Scope::Number),
        // The same, of one message: its media cannot be fetched now, or an error that says no more.
        131_053 | 135_000 => (Temporary, Scope::Message),
        // The number is deleted, unregistered or without an approved name.
        33 | 131_037 | 131_045 | 133_010 => (Blocked, Scope::Number),
        // The business account is locked or restricted, its bill unpaid, or its payment not set up.
        368 | 131_031 | 131_042 | 131_044 | 131_064 => (Blocked, Scope::Waba),
        131_050 => (OptedOut, Scope::Person),
        // Undeliverable, blocked, a country out of bounds, in an experiment, held back, outside 24 hours, needs a phone
        // number, the number's own, not on the list of a test number, another key of the person's.
        130_403 | 130_472 | 130_497 | 131_021 | 131_026 | 131_030 | 131_047 | 131_049 | 131_062 | 137_000 => {
            (Final, Scope::Person)
        }
        // Invalid parameters, an unsupported kind, another endpoint.
        100 | 131_008 | 131_009 | 131_051 | 131_052 | 131_061 | 131_063 => (Final, Scope::Message),
        // Templates: missing, mismatched, too long, paused, disabled.
        132_000..=132_099 => (Final, Scope::Template),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use FailureClass::{
        Blocked, Final, OptedOut, PairLimited, RateLimited, Temporary, Unauthorized, Unknown,
    };

    /// Meta's table of error codes, with the HTTP status it gives beside each.
    const TABLE: &[(u16, i64, FailureClass)] = &[
        (401, 0, Unauthorized),
        (401, 190, Unauthorized),
        (500, 3, Unauthorized),
        (403, 10, Unauthorized),
        (403, 200, Unauthorized),
        (403, 299, Unauthorized),
        (403, 131_005, Unauthorized),
        (403, 368, Blocked),
        (403, 131_031, Blocked),
        (400, 131_042, Blocked),
        (400, 33, Blocked),
        (400, 131_037, Blocked),
        (500, 131_045, Blocked),
        (400, 133_010, Blocked),
        (400, 4, RateLimited),
        (429, 80_007, RateLimited),
        (400, 80_008, RateLimited),
        (429, 130_429, RateLimited),
        (429, 131_048, RateLimited),
        (429, 131_056, PairLimited),
        (400, 1, Temporary),
        (503, 2, Temporary),
        (500, 131_000, Temporary),
        (503, 131_016, Temporary),
        (500, 131_057, Temporary),
        (503, 133_004, Temporary),
        (400, 131_050, OptedOut),
        (400, 100, Final),
        (400, 130_472, Final),
        (403, 130_497, Final),
        (400, 131_008, Final),
        (400, 131_009, Final),
        (400, 131_021, Final),
        (400, 131_026, Final),
        (400, 131_030, Final),
        (400, 131_047, Final),
        (400, 131_049, Final),
        (400, 131_051, Final),
        (400, 131_052, Final),
        (400, 131_062, Final),
        (400, 132_000, Final),
        (404, 132_001, Final),
        (400, 132_005, Final),
        (400, 132_012, Final),
        (400, 132_015, Final),
        (400, 132_016, Final),
        (400, 132_018, Final),
        (400, 131_053, Temporary),
        (400, 135_000, Temporary),
        (400, 613, RateLimited),
        (400, 17, RateLimited),
        (400, 32, RateLimited),
        (400, 80_004, RateLimited),
        (400, 131_044, Blocked),
        (400, 131_064, Blocked),
        (400, 130_403, Final),
        (400, 131_061, Final),
        (400, 131_063, Final),
        (400, 137_000, Final),
    ];

    fn class(status: u16, code: Option<i64>) -> FailureClass {
        Refusal { status, code, ..Refusal::default() }.classify().0
    }

    #[test]
    fn every_documented_code_has_its_class() {
        for &(status, code, expected) in TABLE {
            assert_eq!(class(status, Some(code)), expected, "code {code}");
            // The code decides, whatever status a proxy makes of it.
            assert_eq!(class(400, Some(code)), expected, "code {code} with 400");
        }
    }

    #[test]
    fn a_failure_says_what_it_concerns() {
        for (code, scope) in [
            (130_429, Scope::Number),
            (131_056, Scope::Pair),
            (131_049, Scope::Person),
            (131_050, Scope::Person),
            (132_015, Scope::Template),
            (368, Scope::Waba),
            (80_007, Scope::Waba),
            (131_008, Scope::Message),
        ] {
            let refusal = Refusal { status: 400, code: Some(code), ..Refusal::default() };
            assert_eq!(refusal.classify().1, scope, "code {code}");
        }
    }

    #[test]
    fn an_error_about_the_number_itself_suspends_the_account() {
        let gone = Refusal { status: 400, code: Some(100), subcode: Some(33), ..Refusal::default() };
        assert_eq!(gone.classify(), (Blocked, Scope::Number));
        for code in [100, 999_999] {
            let kind = Some("GraphMethodException");
            let refusal = Refusal { status: 400, code: Some(code), kind, ..Refusal::default() };
            assert_eq!(refusal.classify(), (Blocked, Scope::Number), "code {code}");
        }
        let kind = Some("GraphMethodException");
        let limited = Refusal { status: 400, code: Some(80_007), kind, ..Refusal::default() };
        assert_eq!(limited.classify().0, RateLimited, "a code that says more holds");
        let kind = Some("OAuthException");
        let wrong = Refusal { status: 400, code: Some(100), kind, ..Refusal::default() };
        assert_eq!(wrong.classify().0, Final, "a parameter is wrong");
    }

    #[test]
    fn what_is_said_to_pass_is_tried_again_where_the_code_is_not_known() {
        let passes =
            |code| Refusal { status: 400, code: Some(code), is_transient: true, ..Refusal::default() };
        assert_eq!(passes(999_999).classify().0, Temporary);
        assert_eq!(passes(131_026).classify().0, Final);
    }

    #[test]
    fn only_131050_is_an_opt_out() {
        let codes: Vec<_> = TABLE.iter().map(|(_, code, _)| *code).filter(|code| is_opt_out(*code)).collect();
        assert_eq!(codes, [131_050]);
    }

    #[test]
    fn a_code_not_known_is_judged_by_its_status() {
        let unheard_of = Some(999_999);
        for (status, expected) in [
            (400, Final),
            (404, Final),
            (401, Unauthorized),
            (403, Unauthorized),
            (429, RateLimited),
            (500, Temporary),
            (502, Temporary),
            (503, Temporary),
        ] {
            assert_eq!(class(status, unheard_of), expected, "{status}");
        }
    }

    #[test]
    fn an_answer_that_is_not_the_apis_own_says_less() {
        for (status, expected) in [
            (302, Blocked),
            (400, Final),
            (401, Unauthorized),
            (403, Blocked),
            (404, Blocked),
            (408, Temporary),
            (413, Final),
            (429, RateLimited),
            (500, Unknown),
            (502, Unknown),
            (503, Temporary),
            (504, Unknown),
            (200, Unknown),
        ] {
            assert_eq!(class(status, None), expected, "{status}");
        }
    }
}
