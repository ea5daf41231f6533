//! Differences between two configurations of a tenant, without their secrets.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Tenant;

/// Differences that applying a configuration would make.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantChanges {
    /// True where the tenant does not exist yet; then no change is listed.
    pub is_new: bool,
    /// The differences by their place.
    pub changes: Vec<Change>,
}

impl TenantChanges {
    /// Returns the changes that remove something.
    pub fn removals(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|change| change.kind == ChangeKind::Removed)
    }
}

/// Difference of one value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Place of the value, such as `quota.messages_per_month` or `channels.whatsapp.1001`.
    pub place: String,
    /// Kind of the difference.
    #[serde(rename = "change")]
    pub kind: ChangeKind,
    /// True for a secret, whose values are not shown.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub secret: bool,
    /// The present value; absent for a secret and for a whole channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// The new value; absent for a secret and for a whole channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// Kind of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// The value is new.
    Added,
    /// The value is another one.
    Changed,
    /// The value is removed. A removed channel or credential is erased.
    Removed,
}

impl ChangeKind {
    fn of<T: PartialEq>(before: Option<&T>, after: Option<&T>) -> Option<Self> {
        match (before, after) {
            (None, Some(_)) => Some(Self::Added),
            (Some(_), None) => Some(Self::Removed),
            (Some(before), Some(after)) if before != after => Some(Self::Changed),
            _ => None,
        }
    }
}

impl fmt::Display for Change {
    /// Writes a line that begins with `+`, `~` or `-`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, secret) = match self.kind {
            ChangeKind::Added => ('+', "set"),
            ChangeKind::Changed => ('~', "changed"),
            ChangeKind::Removed => ('-', "removed"),
        };
        write!(f, "{sign} {}", self.place)?;
        match (&self.before, &self.after) {
            _ if self.secret => write!(f, ": {secret}"),
            (Some(before), Some(after)) => write!(f, ": {before} -> {after}"),
            (Some(value), None) | (None, Some(value)) => write!(f, ": {value}"),
            (None, None) => Ok(()),
        }
    }
}

impl Tenant {
    /// Compares this configuration with the one that replaces it. The list of disconnected accounts, which the engine
    /// keeps, is left out.
    #[must_use]
    pub fn changes(&self, after: &Self) -> Vec<Change> {
        let (old, new) = (Flat::of(self), Flat::of(after));
        let mut changes = Vec::new();
        for (place, kind) in differences(&old.channels, &new.channels) {
            changes.push(Change { place, kind, secret: false, before: None, after: None });
        }
        for (place, kind) in differences(&old.values, &new.values) {
            let (before, after) = (old.values.get(&place).cloned(), new.values.get(&place).cloned());
            changes.push(Change { place, kind, secret: false, before, after });
        }
        for (place, kind) in differences(&old.secrets, &new.secrets) {
            changes.push(Change { place, kind, secret: true, before: None, after: None });
        }
        changes.sort_by(|one, other| one.place.cmp(&other.place));
        changes
    }
}

/// Lists whose items are tables, with a place of their own for each.
const TABLES: [&str; 3] = ["channels", "llm.fallbacks", "tools.payments"];

fn differences<T: PartialEq>(
    before: &BTreeMap<String, T>,
    after: &BTreeMap<String, T>,
) -> Vec<(String, ChangeKind)> {
    let only_new = after.keys().filter(|place| !before.contains_key(*place));
    let places = before.keys().chain(only_new);
    places
        .filter_map(|place| Some((place.clone(), ChangeKind::of(before.get(place), after.get(place))?)))
        .collect()
}

/// Configuration with a place for each value.
struct Flat {
    channels: BTreeMap<String, ()>,
    values: BTreeMap<String, Value>,
    /// Secrets that are not empty. Compared, and never shown.
    secrets: BTreeMap<String, String>,
}

impl Flat {
    fn of(tenant: &Tenant) -> Self {
        let mut tenant = tenant.clone();
        let all = tenant.secrets_mut();
        let places: Vec<_> = all.keys().cloned().collect();
        let secrets = all.into_iter().filter(|(_, secret)| !secret.is_empty());
        let secrets = secrets.map(|(place, secret)| (place, secret.expose().to_owned())).collect();
        tenant.disconnected.clear();
        let mut flat = Self { channels: BTreeMap::new(), values: BTreeMap::new(), secrets };
        flat.add(String::new(), serde_json::to_value(&tenant).unwrap_or_default());
        flat.values.retain(|place, _| !places.contains(place));
        flat
    }

    fn add(&mut self, place: String, value: Value) {
        let below = |key: &str| if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") };
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    self.add(below(&key), value);
                }
            }
            Value::Array(items) if items.iter().any(Value::is_object) => {
                for (index, mut item) in items.into_iter().enumerate() {
                    let text = |field: &str| item.get(field).and_then(Value::as_str);
                    let key = match (text("kind"), text("account"), text("name")) {
                        (Some(kind), Some(account), _) => format!("{kind}.{account}"),
                        (_, _, Some(name)) => name.to_owned(),
                        _ => index.to_string(),
                    };
                    let at = below(&key);
                    if place == "channels" {
                        self.channels.insert(at.clone(), ());
                        item.as_object_mut().into_iter().for_each(|fields| {
                            fields.retain(|field, _| field != "kind" && field != "account");
                        });
                    }
                    self.add(at, item);
                }
            }
            Value::Null => {}
            // A list of tables without any: its items are listed, not the list.
            Value::Array(items) if items.is_empty() && TABLES.contains(&place.as_str()) => {}
            value => {
                self.values.insert(place, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACME: &str = r#"
        id = "acme"
        name = "Acme"
        [quota]
        messages_per_month = 100
        money_per_month = "5"
        [llm]
        provider = "openai"
        model = "m"
        api_key = "k1-secret"
        price = { input = "1", output = "1" }
        [[llm.fallbacks]]
        provider = "gemini"
        model = "g"
        api_key = "k2-secret"
        price = { input = "1", output = "1" }
        [[channels]]
        kind = "whatsapp"
        account = "1001"
        access_token = "t-secret"
        app_secret = "a-secret"
        [[channels]]
        kind = "whatsapp"
        account = "1002"
        access_token = "u-secret"
    "#;

    fn lines(before: &str, after: &str) -> Vec<String> {
        let read = |text: &str| Tenant::from_toml(text).unwrap();
        read(before).changes(&read(after)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_same_configuration_has_no_changes() {
        assert_eq!(lines(ACME, ACME), [] as [&str; 0]);
    }

    #[test]
    fn added_changed_and_removed_values_are_listed_and_no_secret_is_shown() {
        let after = ACME
            .replace("messages_per_month = 100", "messages_per_month = 200")
            .replace("money_per_month = \"5\"", "")
            .replace("k1-secret", "k3-secret")
            .replace("app_secret = \"a-secret\"", "verify_token = \"v-secret\"")
            .replace("account = \"1002\"", "account = \"1003\"")
            .replace("[quota]", "region = \"us\"\n[agent]\nrules = [\"Be kind.\"]\n[quota]");
        let lines = lines(ACME, &after);
        assert_eq!(
            lines,
            [
                "~ agent.rules: [] -> [\"Be kind.\"]",
                "- channels.whatsapp.1001.app_secret: removed",
                "+ channels.whatsapp.1001.verify_token: set",
                "- channels.whatsapp.1002",
                "- channels.whatsapp.1002.access_token: removed",
                "+ channels.whatsapp.1003",
                "+ channels.whatsapp.1003.access_token: set",
                "~ llm.api_key: changed",
                "~ quota.messages_per_month: 100 -> 200",
                "- quota.money_per_month: \"5\"",
                "~ region: \"eu\" -> \"us\"",
            ]
        );
    }

    #[test]
    fn the_last_channel_is_removed_and_no_empty_list_is_added() {
        let (others, _) = ACME.split_once("[[channels]]").unwrap();
        let lines = lines(ACME, others);
        assert!(lines.contains(&"- channels.whatsapp.1001".to_owned()), "{lines:?}");
        assert!(lines.iter().all(|line| line.starts_with("- ")), "{lines:?}");
    }

    #[test]
    fn the_engines_list_of_disconnected_accounts_is_no_change() {
        let read = |text: &str| Tenant::from_toml(text).unwrap();
        let mut before = read(ACME);
        before.disconnected.push(crate::tenant::Disconnected {
            kind: before.channels[0].kind,
            account: "77".parse().unwrap(),
            at: crate::time::Timestamp::default(),
        });
        assert_eq!(before.changes(&read(ACME)), []);
    }
}
