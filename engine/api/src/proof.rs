//! Challenge by which a node proves that it knows the admin token, before the token is sent to it.
//!
//! The client sends 32 random bytes, in hexadecimal, as [`CHALLENGE`]; the node answers with [`PROOF`]:
//! HMAC-SHA-256, under the token, of a fixed text and the challenge. Who merely listens on the port cannot answer,
//! and learns nothing of a random token. A relay to the genuine node can answer: it must be prevented by TLS, or by
//! the node listening on the address itself.

use heddle_schemas::sealed::Secret;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

/// Header of the challenge.
pub const CHALLENGE: &str = "heddle-challenge";
/// Header of the answer.
pub const PROOF: &str = "heddle-proof";
/// Separates this use of the token from any other.
const LABEL: &[u8] = b"heddle node proof v1\0";

/// Returns the answer to a challenge of 64 hexadecimal digits, under a token that is not empty.
#[must_use]
pub fn answer(token: &Secret, challenge: &str) -> Option<String> {
    if token.is_empty() || challenge.len() != 64 || !challenge.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut mac = Hmac::<Sha256>::new_from_slice(token.expose().as_bytes()).ok()?;
    mac.update(LABEL);
    mac.update(challenge.to_ascii_lowercase().as_bytes());
    Some(hex::encode(mac.finalize().into_bytes()))
}

/// Returns whether `given` answers the challenge.
#[must_use]
pub fn holds(token: &Secret, challenge: &str, given: &str) -> bool {
    answer(token, challenge).is_some_and(|proof| proof.as_bytes().ct_eq(given.as_bytes()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_answers_a_challenge() {
        let (token, other) = (Secret::new("0123456789abcdef"), Secret::new("0123456789abcdeg"));
        let challenge = "07".repeat(32);
        let proof = answer(&token, &challenge).unwrap();
        assert!(holds(&token, &challenge, &proof));
        assert!(!holds(&other, &challenge, &proof));
        assert!(!holds(&token, &"08".repeat(32), &proof), "another challenge");
        assert!(!holds(&Secret::default(), &challenge, ""), "no token proves nothing");
        assert_eq!(answer(&token, "07"), None);
        assert_eq!(answer(&token, &"xx".repeat(32)), None);
    }
}
