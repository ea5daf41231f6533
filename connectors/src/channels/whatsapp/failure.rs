//! The meaning of a refusal of the Graph API.
//!
//! The codes are those of
//! <https://developers.facebook.com/documentation/business-messaging/whatsapp/support/error-codes>;
//! Meta asks programs to go by the code first and by the HTTP status where there is none.

use heddle_schemas::ports::channel::FailureClass;

/// The class of a refusal with this HTTP status and, where the body was a Graph error, its code.
///
/// A Graph error means that the message was not taken. Without one, a 500, 502 or 504 comes from
/// something in front of the API or broken within it, which may have handed the message on and lost
/// the answer: nobody knows. A 503 says that the server cannot handle requests now (RFC 9110,
/// 15.6.4), so that one was not taken. A redirect or 404 means that the address of the API is wrong,
/// which an operator must mend; the messages wait for it.
#[must_use]
pub fn classify(status: u16, code: Option<i64>) -> FailureClass {
    use FailureClass::{Blocked, Final, RateLimited, Temporary, Unauthorized, Unknown};
    if let Some(class) = code.and_then(classify_code) {
        return class;
    }
    match (status, code.is_some()) {
        (401, _) => Unauthorized,
        (403, true) => Unauthorized,
        (403, false) => Blocked,
        (429, _) => RateLimited,
        (408 | 425, _) => Temporary,
        (503, _) | (500..=599, true) => Temporary,
        (500..=599, false) => Unknown,
        (300..=399, _) | (404, false) => Blocked,
        (400..=499, _) => Final,
        // A status that no API gives an error with: 1xx, or a 2xx that holds an error.
        (_, true) => Temporary,
        (_, false) => Unknown,
    }
}

/// Whether this code of a refusal or a failed status says that the person wants no more marketing messages.
pub(super) fn is_opt_out(code: i64) -> bool {
    classify_code(code) == Some(FailureClass::OptedOut)
}

fn classify_code(code: i64) -> Option<FailureClass> {
    use FailureClass::{Blocked, Final, OptedOut, PairLimited, RateLimited, Temporary, Unauthorized};
    Some(match code {
        // The token is invalid or lacks a permission.
        0 | 3 | 10 | 190 | 200..=299 | 131_005 => Unauthorized,
        // The app, the business account or the number sends too fast; 131048 because of complaints.
        4 | 80_007 | 80_008 | 130_429 | 131_048 => RateLimited,
        131_056 => PairLimited,
        // Unknown error, overload, maintenance while a number is upgraded.
        1 | 2 | 131_000 | 131_016 | 131_057 | 133_004 => Temporary,
        // The number is deleted, unregistered or without an approved name; the account is locked,
        // restricted, or its bill unpaid.
        33 | 368 | 131_031 | 131_037 | 131_042 | 131_045 | 133_010 => Blocked,
        131_050 => OptedOut,
        // Of this message or this recipient: invalid parameters, undeliverable, outside 24 hours,
        // held back, in an experiment, a country out of bounds, needs a phone number.
        100
        | 130_472
        | 130_497
        | 131_008
        | 131_009
        | 131_021
        | 131_026
        | 131_030
        | 131_047
        | 131_049
        | 131_051..=131_053
        | 131_062
        | 135_000 => Final,
        // Templates: missing, mismatched, too long, paused, disabled.
        132_000..=132_099 => Final,
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
        (400, 131_053, Final),
        (400, 131_062, Final),
        (400, 132_000, Final),
        (404, 132_001, Final),
        (400, 132_005, Final),
        (400, 132_012, Final),
        (400, 132_015, Final),
        (400, 132_016, Final),
        (400, 132_018, Final),
        (400, 135_000, Final),
    ];

    #[test]
    fn every_documented_code_has_its_class() {
        for &(status, code, class) in TABLE {
            assert_eq!(classify(status, Some(code)), class, "code {code}");
            // The code decides, whatever status a proxy makes of it.
            assert_eq!(classify(400, Some(code)), class, "code {code} with 400");
        }
    }

    #[test]
    fn only_131050_is_an_opt_out() {
        let codes: Vec<_> = TABLE.iter().map(|(_, code, _)| *code).filter(|code| is_opt_out(*code)).collect();
        assert_eq!(codes, [131_050]);
    }

    #[test]
    fn a_code_not_known_is_judged_by_its_status() {
        let unheard_of = Some(999_999);
        for (status, class) in [
            (400, Final),
            (404, Final),
            (401, Unauthorized),
            (403, Unauthorized),
            (429, RateLimited),
            (500, Temporary),
            (502, Temporary),
            (503, Temporary),
        ] {
            assert_eq!(classify(status, unheard_of), class, "{status}");
        }
    }

    #[test]
    fn an_answer_that_is_not_the_apis_own_says_less() {
        for (status, class) in [
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
            assert_eq!(classify(status, None), class, "{status}");
        }
    }
}
