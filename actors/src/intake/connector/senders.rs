//! Grouping of a batch's records by sender: records whose senders share no id can be looked up at once. Pure.
//!
//! Two records that share an id may be the first ones of one person under several ids. Looked up at once they could
//! create two contacts of that person; one after the other, the second finds the contact of the first.

use std::collections::HashMap;

use heddle_schemas::content::Address;
use heddle_schemas::ports::channel::{Act, ChannelEvent};

use super::admission::Admitted;

/// Splits records into groups that share no id, each in order and of one tenant.
pub(super) fn apart(records: Vec<(usize, Admitted)>) -> Vec<Vec<(usize, Admitted)>> {
    let mut groups = Groups::of(records.len());
    {
        let mut seen = HashMap::new();
        for (index, (_, record)) in records.iter().enumerate() {
            for id in ids(&record.event) {
                match seen.get(&(&record.tenant.id, record.kind, id)) {
                    Some(&earlier) => groups.join(earlier, index),
                    None => {
                        seen.insert((&record.tenant.id, record.kind, id), index);
                    }
                }
            }
        }
    }
    let mut apart: Vec<Vec<_>> = Vec::new();
    apart.resize_with(records.len(), Vec::new);
    for (index, record) in records.into_iter().enumerate() {
        apart[groups.first(index)].push(record);
    }
    apart.retain(|group| !group.is_empty());
    apart
}

/// Returns the ids that identify a sender, before and after the event.
fn ids(event: &ChannelEvent) -> impl Iterator<Item = (&'static str, &str)> {
    let (from, to) = match event {
        ChannelEvent::Message(message) => match &message.act {
            Act::Rename { to, .. } => (Some(&message.from), Some(to)),
            _ => (Some(&message.from), None),
        },
        ChannelEvent::Preference(preference) => (Some(&preference.from), None),
        ChannelEvent::Status(_) | ChannelEvent::Notice { .. } => (None, None),
    };
    from.into_iter().chain(to).flat_map(|Address { phone, user_id, parent_user_id, chat, name: _ }| {
        // An id of another account is another person's; treating it as the same here costs only time.
        let chat = chat.as_ref().map(|chat| chat.id.as_str());
        let ids = [("phone", phone), ("user", user_id), ("parent", parent_user_id)];
        let ids = ids.into_iter().map(|(kind, id)| (kind, id.as_deref())).chain([("chat", chat)]);
        ids.filter_map(|(kind, id)| Some((kind, id?)))
    })
}

/// Disjoint sets, each known by the first of its members.
struct Groups(Vec<usize>);

impl Groups {
    fn of(count: usize) -> Self {
        Self((0..count).collect())
    }

    fn first(&mut self, mut index: usize) -> usize {
        while self.0[index] != index {
            self.0[index] = self.0[self.0[index]];
            index = self.0[index];
        }
        index
    }

    fn join(&mut self, one: usize, other: usize) {
        let (one, other) = (self.first(one), self.first(other));
        self.0[one.max(other)] = one.min(other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use heddle_schemas::content::{Content, Context};
    use heddle_schemas::id::ChannelKind;
    use heddle_schemas::ports::channel::ReceivedMessage;
    use heddle_schemas::tenant::Tenant;
    use heddle_schemas::time::Timestamp;

    fn record(tenant: &str, phone: &str, user: &str) -> Admitted {
        let text = format!(
            "id = \"{tenant}\"\nname = \"N\"\n[agent]\nfallback = \"f\"\n[[channels]]\nkind = \"whatsapp\"\n\
             account = \"1\"\naccess_token = \"t\"\napp_secret = \"s\"\nverify_token = \"v\"\n"
        );
        let some = |id: &str| (!id.is_empty()).then(|| id.to_owned());
        Admitted {
            tenant: Arc::new(Tenant::from_toml(&text).unwrap()),
            kind: ChannelKind::Whatsapp,
            event: ChannelEvent::Message(ReceivedMessage {
                account: "1".parse().unwrap(),
                id: "m".into(),
                from: Address { phone: some(phone), user_id: some(user), ..Address::default() },
                sent_at: Timestamp::EPOCH,
                act: Act::Say(Content::Text { body: String::new() }),
                context: Context::default(),
            }),
        }
    }

    #[test]
    fn senders_that_share_an_id_directly_or_through_others_stay_together_in_order() {
        let records = [
            record("a", "1", ""),
            record("a", "", "U1"),
            record("a", "2", ""),
            record("b", "1", ""),
            record("a", "1", "U1"),
            record("a", "2", ""),
        ];
        let groups = apart(records.into_iter().enumerate().collect());
        let indexes: Vec<Vec<_>> =
            groups.iter().map(|group| group.iter().map(|(index, _)| *index).collect()).collect();
        assert_eq!(indexes, [vec![0, 1, 4], vec![2, 5], vec![3]]);
    }

    #[test]
    fn a_number_is_no_user_id() {
        let groups = apart(vec![(0, record("a", "1", "")), (1, record("a", "", "1"))]);
        assert_eq!(groups.len(), 2);
    }
}
