//! WhatsApp message ids: `wamid.` and base64 of the person's number, the direction and a random part.
//! The format follows the provider's documented examples, such as
//! `wamid.HBgLMTY1MDM4Nzk0MzkVAgARGBI3MTE5MjVBOTE3MDk5QUVFM0YA` for a message that a business sent.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::dice::Dice;

/// Sender of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// The business, through the API.
    Business,
    /// The person.
    Customer,
}

/// Creates the id of a message to or from `person`.
pub fn new(person: &str, from: From, dice: &Dice) -> String {
    let random = hex::encode_upper(dice.bytes::<9>());
    write(person, from, &random)
}

fn write(person: &str, from: From, random: &str) -> String {
    let direction = match from {
        From::Business => [0x00, 0x11],
        From::Customer => [0x00, 0x12],
    };
    let mut bytes = vec![0x1c];
    let mut part = |text: &str| {
        bytes.push(0x18);
        bytes.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(text.as_bytes());
    };
    part(person);
    bytes.extend([0x15, 0x02]);
    bytes.extend(direction);
    bytes.push(0x18);
    bytes.push(u8::try_from(random.len()).unwrap_or(u8::MAX));
    bytes.extend_from_slice(random.as_bytes());
    bytes.push(0x00);
    format!("wamid.{}", STANDARD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_looks_like_the_documented_one() {
        assert_eq!(
            write("16503879439", From::Business, "711925A917099AEE3F"),
            "wamid.HBgLMTY1MDM4Nzk0MzkVAgARGBI3MTE5MjVBOTE3MDk5QUVFM0YA"
        );
    }

    #[test]
    fn ids_do_not_repeat() {
        let dice = Dice::new(1, 0);
        assert_ne!(new("1", From::Customer, &dice), new("1", From::Customer, &dice));
    }
}
