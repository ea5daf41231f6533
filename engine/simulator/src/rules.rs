//! Rules of the API about what is sent to whom: templates, the reply window, marketing per person, unique users.
//!
//! A send that breaks a rule is refused with Meta's code
//! (<https://developers.facebook.com/documentation/business-messaging/whatsapp/support/error-codes>) and counted by it.
//! A message beyond the portfolio's unique users has no code: it is accepted, held, and counted as a [`Violation`].

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use heddle_schemas::id::AccountId;
use serde_json::Value;

use crate::graph::{Refusal, refusal};

/// Moving window of unique users and of marketing per person.
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// Rules that are enforced.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Approved templates, and those that are no longer.
    pub templates: Vec<Template>,
    /// Time after a person's last message in which anything but a template is accepted.
    pub window: Option<Duration>,
    /// Marketing templates accepted for one person in 24 hours.
    pub marketing_a_day: Option<u32>,
    /// People outside of a window in a moving 24 hours, over all numbers (the portfolio's tier).
    pub users_a_day: Option<usize>,
}

/// A template of the business account.
#[derive(Debug, Clone)]
pub struct Template {
    /// Its name.
    pub name: String,
    /// The code of its language.
    pub language: String,
    /// The parameters of its body.
    pub parameters: usize,
    /// True where it promotes.
    pub is_marketing: bool,
    /// True where it was paused for its quality.
    pub is_paused: bool,
    /// Messages that are accepted before the others are held for an assessment of their quality.
    pub held_after: Option<u64>,
    /// True where it is accepted at `/marketing_messages` alone.
    pub is_elsewhere: bool,
}

impl Template {
    /// An approved utility template.
    #[must_use]
    pub fn new(name: impl Into<String>, language: impl Into<String>, parameters: usize) -> Self {
        Self {
            name: name.into(),
            language: language.into(),
            parameters,
            is_marketing: false,
            is_paused: false,
            held_after: None,
            is_elsewhere: false,
        }
    }
}

/// Breach of a rule for which the API has no code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Violation {
    /// More people in 24 hours than the portfolio's tier.
    Tier,
}

/// Past messages and events that the rules refer to. Times are those of one monotonic clock.
#[derive(Debug, Default)]
pub(crate) struct RuleState {
    heard: HashMap<(AccountId, String), Duration>,
    marketing: HashMap<String, Vec<Duration>>,
    users: HashMap<String, Duration>,
    sent: HashMap<String, u64>,
}

/// A send that breaks no rule.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Allowed {
    /// It is held for an assessment of its quality, or held back.
    pub(crate) held: bool,
    /// The rule without a code that it breaks.
    pub(crate) violation: Option<Violation>,
}

/// A send as the rules see it.
pub(crate) struct Sending<'a> {
    pub(crate) account: &'a AccountId,
    pub(crate) to: &'a str,
    /// The value of field `template`; none of another kind.
    pub(crate) template: Option<&'a Value>,
    /// Sent to `/marketing_messages`.
    pub(crate) is_marketing_endpoint: bool,
}

impl RuleState {
    /// Takes note that a person wrote to a number.
    pub(crate) fn heard(&mut self, account: &AccountId, from: &str, now: Duration) {
        self.heard.insert((account.clone(), from.to_owned()), now);
    }

    /// Decides about a send, and counts it where it is accepted.
    pub(crate) fn admit(
        &mut self,
        rules: &Rules,
        sending: &Sending<'_>,
        now: Duration,
    ) -> Result<Allowed, Refusal> {
        let &Sending { account, to, template, is_marketing_endpoint } = sending;
        let heard = self.heard.get(&(account.clone(), to.to_owned()));
        let is_open = rules.window.is_some_and(|window| heard.is_some_and(|heard| *heard + window > now));
        let Some(template) = template else {
            return match rules.window.is_some() && !is_open {
                true => Err(refusal(400, 131_047, "(#131047) Re-engagement message")),
                false => Ok(Allowed::default()),
            };
        };
        let known = find(&rules.templates, template, is_marketing_endpoint)?;
        self.count_marketing(rules, known, to, now)?;
        let mut allowed = Allowed { violation: self.count_user(rules, to, is_open, now), held: false };
        let sent = self.sent.entry(known.name.clone()).or_default();
        allowed.held = allowed.violation.is_some() || known.held_after.is_some_and(|after| *sent >= after);
        *sent += 1;
        Ok(allowed)
    }

    fn count_marketing(
        &mut self,
        rules: &Rules,
        template: &Template,
        to: &str,
        now: Duration,
    ) -> Result<(), Refusal> {
        let Some(most) = rules.marketing_a_day.filter(|_| template.is_marketing) else { return Ok(()) };
        let times = self.marketing.entry(to.to_owned()).or_default();
        times.retain(|time| *time + DAY > now);
        if times.len() >= most as usize {
            let message = "(#131049) Not delivered to maintain healthy ecosystem engagement";
            return Err(refusal(400, 131_049, message));
        }
        times.push(now);
        Ok(())
    }

    fn count_user(&mut self, rules: &Rules, to: &str, is_open: bool, now: Duration) -> Option<Violation> {
        let most = rules.users_a_day.filter(|_| !is_open)?;
        self.users.retain(|_, time| *time + DAY > now);
        let is_over = !self.users.contains_key(to) && self.users.len() >= most;
        if !is_over {
            self.users.entry(to.to_owned()).or_insert(now);
        }
        is_over.then_some(Violation::Tier)
    }
}

/// Finds the template, and checks its state and the number of its parameters.
fn find<'r>(
    templates: &'r [Template],
    sent: &Value,
    is_marketing_endpoint: bool,
) -> Result<&'r Template, Refusal> {
    let text = |pointer: &str| sent.pointer(pointer).and_then(Value::as_str);
    let is_it = |template: &&Template| {
        text("/name") == Some(&template.name) && text("/language/code") == Some(&template.language)
    };
    let known = templates.iter().find(is_it);
    let known =
        known.ok_or(refusal(404, 132_001, "(#132001) Template name does not exist in the translation"))?;
    if known.is_paused {
        return Err(refusal(400, 132_015, "(#132015) Template is paused"));
    }
    if known.is_elsewhere && !is_marketing_endpoint {
        return Err(refusal(400, 131_063, "(#131063) Use the Marketing Messages API"));
    }
    let components = sent.get("components").and_then(Value::as_array);
    let body = components.into_iter().flatten().find(|component| component["type"] == "body");
    let given = body.and_then(|body| body["parameters"].as_array()).map_or(0, Vec::len);
    if given != known.parameters {
        let message = "(#132000) Number of parameters does not match the expected number of params";
        return Err(refusal(400, 132_000, message));
    }
    Ok(known)
}

/// Returns the words of a content, as far as the API knows them; `None` where the content is not of its type.
pub(crate) fn words(kind: &str, content: &Value) -> Option<String> {
    let text = |pointer: &str| content.pointer(pointer).and_then(Value::as_str);
    let has_file = text("/id").is_some() || text("/link").is_some();
    match kind {
        "template" => {
            let components = content.get("components").and_then(Value::as_array);
            let parameters = components
                .into_iter()
                .flatten()
                .filter_map(|component| component["parameters"].as_array())
                .flatten()
                .filter_map(|parameter| parameter["text"].as_str());
            let parameters: Vec<_> = parameters.collect();
            Some(format!("[template {}] {}", text("/name")?, parameters.join("; ")).trim_end().to_owned())
        }
        "interactive" => text("/body/text").map(str::to_owned),
        "image" | "video" | "document" | "audio" | "sticker" if has_file => {
            Some(format!("[{kind}] {}", text("/caption").unwrap_or_default()).trim_end().to_owned())
        }
        "location" if content["latitude"].is_number() => Some("[location]".into()),
        "reaction" => {
            text("/message_id").map(|_| format!("[reaction {}]", text("/emoji").unwrap_or_default()))
        }
        _ => None,
    }
}

/// Counts of breaches without a code.
pub type Violations = BTreeMap<Violation, u64>;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_day_frees_a_person_and_a_place_in_the_tier() {
        let account: AccountId = "1".parse().unwrap();
        let offer = Template { is_marketing: true, ..Template::new("offer", "de", 0) };
        let rules = Rules {
            templates: vec![offer],
            window: Some(DAY),
            marketing_a_day: Some(2),
            users_a_day: Some(1),
        };
        let template = json!({ "name": "offer", "language": { "code": "de" } });
        let mut record = RuleState::default();
        let mut send = |to: &str, hours: u64| {
            let template = Some(&template);
            let sending = Sending { account: &account, to, template, is_marketing_endpoint: false };
            let sent = record.admit(&rules, &sending, Duration::from_secs(hours * 3_600));
            sent.map(|allowed| allowed.violation).map_err(|refusal| refusal.code)
        };
        assert_eq!(send("a", 0), Ok(None));
        assert_eq!(send("b", 1), Ok(Some(Violation::Tier)));
        assert_eq!(send("a", 2), Ok(None), "the same person counts once");
        assert_eq!(send("a", 3), Err(131_049));
        assert_eq!(send("b", 24), Ok(None));
        assert_eq!(send("a", 25), Ok(Some(Violation::Tier)), "a day after the first, b has the place");
    }
}
