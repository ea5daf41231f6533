//! The GET by which Meta subscribes a webhook: `hub.mode`, `hub.verify_token`, `hub.challenge`.
//!
//! The answer is the challenge, if the token is the account's
//! (<https://developers.facebook.com/docs/graph-api/webhooks/getting-started#verification-requests>).

use heddle_schemas::ports::channel::HandshakeError;
use heddle_schemas::sealed::Secret;
use subtle::ConstantTimeEq as _;

/// The challenge. Without a token of the account nothing is confirmed.
pub(super) fn answer(token: Option<&Secret>, query: &[(String, String)]) -> Result<String, HandshakeError> {
    let parameter = |name| query.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str());
    let expected = token.ok_or(HandshakeError::Refused)?.expose();
    let same = bool::from(expected.as_bytes().ct_eq(parameter("hub.verify_token").as_bytes()));
    match same && !expected.is_empty() && parameter("hub.mode") == "subscribe" {
        true => Ok(parameter("hub.challenge").to_owned()),
        false => Err(HandshakeError::Refused),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(token: Option<&str>, mode: &str, given: &str) -> Result<String, HandshakeError> {
        let query = [("hub.mode", mode), ("hub.challenge", "1158201444"), ("hub.verify_token", given)];
        let query = query.map(|(key, value)| (key.to_owned(), value.to_owned()));
        answer(token.map(Secret::new).as_ref(), &query)
    }

    #[test]
    fn the_challenge_comes_back_for_the_accounts_token_only() {
        assert_eq!(ask(Some("t"), "subscribe", "t"), Ok("1158201444".to_owned()));
        for (token, mode, given) in [
            (Some("t"), "subscribe", "T"),
            (Some("t"), "subscribe", ""),
            (Some("t"), "unsubscribe", "t"),
            (Some(""), "subscribe", ""),
            (None, "subscribe", ""),
        ] {
            assert_eq!(ask(token, mode, given), Err(HandshakeError::Refused), "{token:?} {mode} {given}");
        }
        assert_eq!(answer(Some(&Secret::new("t")), &[]), Err(HandshakeError::Refused));
    }
}
