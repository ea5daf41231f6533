//! Campaign file: the template, its recipients, the numbers that send, and the schedule.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::parameters::Parameters;
use super::schedule::Schedule;
use super::stop::StopLimits;
use super::variant::{MAX_VARIANTS, Variant};
use crate::audience::AudienceId;
use crate::id::AccountId;
use crate::tenant::Faults;
use crate::toml_file::TomlFile;

/// Maximum length of the id of a campaign or a variant, in characters.
pub const NAME_CHARACTERS: usize = 128;
/// Maximum number of numbers that send one campaign.
pub const MAX_NUMBERS: usize = 256;

/// Campaign, as its file describes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Campaign {
    /// Id, unique within the tenant: lower-case letters, digits, `-` and `_`.
    pub id: String,
    /// Template of all recipients that get no variant of their own.
    pub template: TemplateName,
    /// Id of the audience that it is sent to.
    pub audience: AudienceId,
    /// Accounts that send it. Each recipient belongs to one of them.
    pub numbers: Vec<AccountId>,
    /// Purpose for which recipients have to have consented.
    #[serde(default)]
    pub purpose: Purpose,
    /// Values of the template's parameters.
    #[serde(default)]
    pub parameters: Parameters,
    /// Times of sending.
    #[serde(default)]
    pub schedule: Schedule,
    /// Share of the numbers' allowance that it may use, in percent. Replies go first whatever the share.
    #[serde(default = "whole")]
    pub pace_percent: u8,
    /// Variants among which recipients are divided by weight.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variants: Vec<Variant>,
    /// Share of the recipients that get no message and are counted for comparison, in percent.
    #[serde(default)]
    pub hold_out_percent: u8,
    /// Limits at which it stops by itself.
    #[serde(default)]
    pub stop: StopLimits,
}

/// Name and language of a template on the channel.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TemplateName {
    /// Its name.
    pub name: String,
    /// Its language, such as `de` or `pt_BR`.
    pub language: String,
}

/// Purpose of a campaign.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Advertising: only to people who have not opted out of it.
    #[default]
    Marketing,
    /// Notices about something that the recipient asked for.
    Utility,
}

fn whole() -> u8 {
    100
}

impl Campaign {
    /// Reads a campaign's file.
    ///
    /// # Errors
    /// Every fault, of the syntax and of the values, each with its line.
    pub fn from_toml(text: &str) -> Result<Self, Faults> {
        let reading = TomlFile::parse(text, None).read::<Self>();
        let more = reading.value.as_ref().map(Self::faults).unwrap_or_default();
        reading.finish(more)
    }

    /// Returns every fault of the values, each with its place in the file.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |holds: bool, fault: String| {
            if !holds {
                faults.push(fault);
            }
        };
        check(
            is_id(&self.id),
            format!("id: {:?} takes 1 to {NAME_CHARACTERS} of a-z, 0-9, - and _", self.id),
        );
        let distinct = self.numbers.iter().collect::<BTreeSet<_>>().len();
        check(!self.numbers.is_empty(), "numbers: at least one account has to send it".into());
        check(distinct == self.numbers.len(), "numbers: an account is named twice".into());
        check(distinct <= MAX_NUMBERS, format!("numbers: at most {MAX_NUMBERS} accounts, not {distinct}"));
        check(
            (1..=100).contains(&self.pace_percent),
            format!("pace_percent: 1 to 100, not {}", self.pace_percent),
        );
        check(
            self.hold_out_percent < 100,
            format!("hold_out_percent: 0 to 99, not {}", self.hold_out_percent),
        );
        check(
            self.variants.len() <= MAX_VARIANTS,
            format!("variants: at most {MAX_VARIANTS}, not {}", self.variants.len()),
        );
        let names = self.variants.iter().map(|variant| &variant.name).collect::<BTreeSet<_>>();
        check(names.len() == self.variants.len(), "variants: two have the same name".into());
        faults.extend(self.template.faults("template"));
        faults.extend(self.parameters.faults("parameters"));
        for (index, variant) in self.variants.iter().enumerate() {
            faults.extend(variant.faults(&format!("variants[{index}]")));
        }
        faults.extend(self.schedule.faults());
        faults.extend(self.stop.faults());
        faults
    }
}

impl TemplateName {
    /// Returns every fault, each with its place in the file.
    #[must_use]
    pub fn faults(&self, at: &str) -> Vec<String> {
        let is_name = |text: &str| {
            (1..=512).contains(&text.len())
                && text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_')
        };
        let is_language = |text: &str| {
            (2..=16).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_')
        };
        let mut faults = Vec::new();
        if !is_name(&self.name) {
            faults.push(format!("{at}.name: {:?} takes a-z, 0-9 and _", self.name));
        }
        if !is_language(&self.language) {
            faults
                .push(format!("{at}.language: {:?} is no language code such as de or pt_BR", self.language));
        }
        faults
    }
}

/// Returns true for the id of a campaign or a variant.
pub(super) fn is_id(text: &str) -> bool {
    (1..=NAME_CHARACTERS).contains(&text.len())
        && text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPRING: &str = r#"
        id = "spring"
        template = { name = "spring_offer", language = "de" }
        audience = "newsletter"
        numbers = ["1122334455667"]
        purpose = "marketing"
        [parameters]
        body.1 = { column = "first_name", default = "there" }
        header.image = { file = "spring.jpg" }
        [schedule]
        at = "2027-03-01T10:00"
        zone = "recipient"
        latest_start = "2027-03-01T18:00"
        quiet = ["21:00-09:00"]
        [stop]
        failed_percent = 20
        opted_out_percent = 3
        of_last = 500
    "#;

    #[test]
    fn a_file_reads_back_as_it_was_written() {
        let campaign = Campaign::from_toml(SPRING).unwrap();
        assert_eq!(campaign.pace_percent, 100);
        let text = toml::to_string(&campaign).unwrap();
        assert_eq!(Campaign::from_toml(&text).unwrap(), campaign);
    }

    #[test]
    fn every_fault_is_reported_at_once_with_its_place() {
        let text = SPRING
            .replace("id = \"spring\"", "id = \"Spring!\"\npace_percent = 0\nhold_out_percent = 100")
            .replace("[\"1122334455667\"]", "[]")
            .replace("spring_offer", "Spring Offer")
            .replace("default = \"there\"", "text = \"Hello\"")
            .replace("21:00-09:00", "00:00-24:00")
            .replace("failed_percent = 20", "failed_percent = 200");
        let Faults(faults) = Campaign::from_toml(&text).unwrap_err();
        for place in [
            "id:",
            "pace_percent:",
            "hold_out_percent:",
            "numbers:",
            "template.name:",
            "parameters.body.1:",
            "schedule.quiet:",
            "stop.failed_percent:",
        ] {
            assert!(faults.iter().any(|fault| fault.starts_with(place)), "{place} is missing in {faults:#?}");
        }
        assert_eq!(faults.len(), 8, "{faults:#?}");
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let Faults(faults) = Campaign::from_toml(&format!("speed = 5\n{SPRING}")).unwrap_err();
        assert!(faults[0].contains("speed"), "{faults:?}");
    }
}
