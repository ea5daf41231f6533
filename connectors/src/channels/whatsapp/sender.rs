//! Sender of a message: its own ids, joined with the contact of the same webhook that has one of them.
//!
//! A person has a phone number (`from`, `wa_id`), a business-scoped id (`from_user_id`, `user_id`)
//! and perhaps one towards the parent business (`from_parent_user_id`, `parent_user_id`). A person who
//! took a username may be without the number, and a shared contact card of such a person comes as a
//! message without any id beside a contact with one
//! (<https://developers.facebook.com/documentation/business-messaging/whatsapp/business-scoped-user-ids/>).

use std::collections::HashMap;

use heddle_schemas::content::Address;
use heddle_schemas::phone::PhoneNumber;
use serde_json::Value;

use super::field;

/// Names of a contact's ids.
const CONTACT: [&str; 3] = ["wa_id", "user_id", "parent_user_id"];

/// Returns the address of the sender of `message`; `None` if no id is in it.
pub(super) fn of(message: &Value, contacts: &Contacts) -> Option<Address> {
    joined(written(message, ["from", "from_user_id", "from_parent_user_id"]), contacts)
}

/// Returns the address of the person in an entry that is written as contacts are; `None` if no id is in it.
pub(super) fn of_contact(entry: &Value, contacts: &Contacts) -> Option<Address> {
    joined(written(entry, CONTACT), contacts)
}

fn joined(mut address: Address, contacts: &Contacts) -> Option<Address> {
    if let Some(contact) = contacts.of(&address) {
        // The message's own ids win: they are what the next message of this person carries.
        let mut known = contact.clone();
        known.update(&address);
        address = known;
    }
    is_reachable(&address).then_some(address)
}

/// The address under these three names: phone number, user id, parent user id.
pub(super) fn written(value: &Value, [phone, user_id, parent]: [&str; 3]) -> Address {
    let mut address = Address {
        user_id: field::text(value, user_id),
        parent_user_id: field::text(value, parent),
        ..Address::default()
    };
    match field::text(value, phone).map(|text| (PhoneNumber::of_channel(&text), text)) {
        Some((Some(number), _)) => address.phone = Some(number.into_digits()),
        // Not a number, but it is what the person is called here.
        Some((None, text)) if address.user_id.is_none() => address.user_id = Some(text),
        _ => {}
    }
    address
}

/// Returns true if a message can be sent to it, or a contact found by it.
pub(super) fn is_reachable(address: &Address) -> bool {
    address.phone.is_some() || address.user_id.is_some() || address.parent_user_id.is_some()
}

/// Contacts of one change, read once and found by any of their ids: a body of many messages beside many contacts takes
/// time in proportion to its length.
pub(super) struct Contacts {
    all: Vec<Address>,
    /// Place in `all` of the first contact that has the id: phone number, user id, parent user id.
    by_id: [HashMap<String, usize>; 3],
}

impl Contacts {
    /// Reads the contacts of a change.
    pub(super) fn read(contacts: &[Value]) -> Self {
        let mut read = Self { all: Vec::with_capacity(contacts.len()), by_id: Default::default() };
        for (place, contact) in contacts.iter().enumerate() {
            let profile = contact.get("profile");
            let name = profile.and_then(|profile| {
                field::text(profile, "name").or_else(|| field::text(profile, "username"))
            });
            let address = Address { name, ..written(contact, CONTACT) };
            for (places, id) in read.by_id.iter_mut().zip(ids(&address)) {
                if let Some(id) = id {
                    places.entry(id.clone()).or_insert(place);
                }
            }
            read.all.push(address);
        }
        read
    }

    /// The contact that shares an id; for a message without any id, the only contact there is. Never
    /// another person's: two people taken for one would share a conversation.
    fn of(&self, address: &Address) -> Option<&Address> {
        let shared = self.by_id.iter().zip(ids(address)).filter_map(|(places, id)| places.get(id.as_ref()?));
        match (shared.min(), self.all.as_slice()) {
            (Some(place), all) => all.get(*place),
            (None, [only]) if !is_reachable(address) => Some(only),
            (None, _) => None,
        }
    }
}

fn ids(address: &Address) -> [&Option<String>; 3] {
    [&address.phone, &address.user_id, &address.parent_user_id]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_message_without_a_number_is_matched_by_its_scoped_id() {
        let contacts = [
            json!({ "profile": { "name": "Ann" }, "user_id": "US.1", "wa_id": "16505551234" }),
            json!({ "profile": { "name": "Bob", "username": "@bob" }, "user_id": "US.2", "parent_user_id": "US.ENT.2" }),
        ];
        let bob = of(&json!({ "from_user_id": "US.2" }), &Contacts::read(&contacts)).unwrap();
        assert_eq!(bob.name.as_deref(), Some("Bob"));
        assert_eq!(bob.phone, None);
        assert_eq!(bob.parent_user_id.as_deref(), Some("US.ENT.2"));
        let ann = of(&json!({ "from": "+1 650-555-1234" }), &Contacts::read(&contacts)).unwrap();
        assert_eq!((ann.name.as_deref(), ann.user_id.as_deref()), (Some("Ann"), Some("US.1")));
        assert_eq!(ann.phone.as_deref(), Some("16505551234"));
    }

    #[test]
    fn one_contact_beside_messages_of_several_people_is_not_everybodys() {
        let contacts = [json!({ "profile": { "name": "Ann" }, "user_id": "US.1", "wa_id": "1" })];
        for other in [json!({ "from_user_id": "US.2" }), json!({ "from": "2" })] {
            let other = of(&other, &Contacts::read(&contacts)).unwrap();
            assert_eq!(other.name, None);
            assert!(other.user_id.as_deref() != Some("US.1") && other.phone.as_deref() != Some("1"));
        }
        assert_eq!(of(&json!({}), &Contacts::read(&contacts)).unwrap().user_id.as_deref(), Some("US.1"));
    }

    #[test]
    fn nobody_is_nobody() {
        assert_eq!(of(&json!({ "from": null }), &Contacts::read(&[])), None);
        assert_eq!(of(&json!({}), &Contacts::read(&[json!({ "profile": { "name": "Ann" } })])), None);
    }

    #[test]
    fn a_username_is_a_name_where_there_is_no_other() {
        let contacts = [json!({ "profile": { "username": "@bob" }, "user_id": "US.2" })];
        assert_eq!(of(&json!({}), &Contacts::read(&contacts)).unwrap().name.as_deref(), Some("@bob"));
    }
}
