//! Calls that got no answer, and texts of an API that are written down.

use heddle_schemas::content::Address;
use heddle_schemas::outgoing::{ContentProfile, OutgoingContent};
use heddle_schemas::ports::channel::{FailureClass, SendError};

use crate::egress::Forbidden;

/// The failure of a call to an address that may not be called.
pub(super) fn forbidden(why: Forbidden) -> SendError {
    SendError::new(FailureClass::Blocked, format!("api_base: {why}"))
}

/// The failure of a call without an answer. Only a connection that never was proves that the request did not leave.
pub(super) fn not_answered(failure: &reqwest::Error) -> SendError {
    let (class, what) = if failure.is_builder() {
        (FailureClass::Blocked, "the address of the API is no URL")
    } else if failure.is_connect() {
        (FailureClass::Temporary, "no connection to the API")
    } else if failure.is_timeout() {
        (FailureClass::Unknown, "no answer in time")
    } else {
        (FailureClass::Unknown, "the connection was lost before the answer")
    };
    match root_cause(failure) {
        Some(cause) => SendError::new(class, format!("{what}: {}", redact(&cause))),
        None => SendError::new(class, what),
    }
}

/// The innermost error, such as "Connection refused"; the outer ones repeat the URL.
fn root_cause(failure: &reqwest::Error) -> Option<String> {
    let mut cause = std::error::Error::source(failure)?;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    Some(cause.to_string())
}

/// The refusal of a content that the channel does not carry; `None` for one that it does. It names the fields and none
/// of their values, which may be texts.
pub(super) fn refusal(content: &OutgoingContent, profile: &ContentProfile) -> Option<SendError> {
    /// Fields that are named; more say nothing new.
    const NAMED: usize = 5;
    let faults = content.faults(profile);
    let first = faults.first()?;
    let detail = match (&content, faults.len()) {
        // The fault of a text, or of a kind that the channel lacks, repeats nothing of it.
        (OutgoingContent::Text { .. }, _) => format!("the text {}", first.fault),
        (_, 1) if first.field == "type" => first.fault.clone(),
        _ => {
            let fields: Vec<_> = faults.iter().take(NAMED).map(|fault| fault.field.as_str()).collect();
            format!("the {} has faults in {}", content.kind(), fields.join(", "))
        }
    };
    Some(SendError::new(FailureClass::Final, detail))
}

/// A text of the API without the ids of whom the message was for, which errors may repeat.
pub(super) fn without_address(text: &str, to: &Address) -> String {
    let mut text = text.to_owned();
    for id in to.ids().filter(|id| !id.is_empty()) {
        text = text.replace(id, "[redacted]");
    }
    redact(&text)
}

/// A text of the API without what might be a phone number: every run of seven digits and more is
/// replaced, and what is longer than 300 characters is cut.
pub(super) fn redact(text: &str) -> String {
    const LONGEST_NUMBER_KEPT: usize = 6;
    const LONGEST: usize = 300;
    let mut out = String::with_capacity(text.len().min(LONGEST));
    let mut digits = String::new();
    for c in text.chars().take(LONGEST).chain(std::iter::once('\n')) {
        if c.is_numeric() {
            digits.push(c);
            continue;
        }
        match digits.chars().count() > LONGEST_NUMBER_KEPT {
            true => out.push_str("[redacted]"),
            false => out.push_str(&digits),
        }
        digits.clear();
        out.push(c);
    }
    out.pop();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phone_numbers_do_not_survive_in_a_text() {
        assert_eq!(redact("(#131030) 16505551234 not in list"), "(#131030) [redacted] not in list");
        assert_eq!(redact("+16505551234"), "+[redacted]");
        assert_eq!(redact("code 131056"), "code 131056");
        assert_eq!(redact("١٦٥٠٥٥٥١٢٣٤"), "[redacted]", "digits of other scripts too");
        assert_eq!(redact(&"a".repeat(1000)).len(), 300);
        assert_eq!(redact(""), "");
    }
}
