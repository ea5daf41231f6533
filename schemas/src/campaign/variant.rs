//! Variants of a campaign and its hold-out group.
//!
//! The group of a recipient follows from the campaign's and the contact's id alone, so that a plan that is made again
//! after a crash puts everyone into the same group.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::definition::{NAME_CHARACTERS, TemplateName, is_id};
use super::parameters::Parameters;
use crate::id::{CampaignId, ContactId};

/// Maximum number of variants of a campaign.
pub const MAX_VARIANTS: usize = 16;
/// Maximum weight of a variant.
const MAX_WEIGHT: u32 = 1_000_000;

/// Variant of a campaign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// Name in reports: lower-case letters, digits, `-` and `_`.
    pub name: String,
    /// Share of the recipients, in proportion to the weights of the others.
    #[serde(default = "one")]
    pub weight: u32,
    /// Template, if it is not the campaign's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<TemplateName>,
    /// Values of parameters that differ from the campaign's.
    #[serde(default)]
    pub parameters: Parameters,
}

/// Group of a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Gets no message.
    HoldOut,
    /// Gets the campaign's own message, where it has no variants.
    Whole,
    /// Gets the variant at this position.
    Variant(usize),
}

fn one() -> u32 {
    1
}

impl Variant {
    /// Returns every fault, each with its place in the file.
    #[must_use]
    pub fn faults(&self, at: &str) -> Vec<String> {
        let mut faults = Vec::new();
        if !is_id(&self.name) {
            faults.push(format!(
                "{at}.name: {:?} takes 1 to {NAME_CHARACTERS} of a-z, 0-9, - and _",
                self.name
            ));
        }
        if !(1..=MAX_WEIGHT).contains(&self.weight) {
            faults.push(format!("{at}.weight: 1 to {MAX_WEIGHT}, not {}", self.weight));
        }
        if let Some(template) = &self.template {
            faults.extend(template.faults(&format!("{at}.template")));
        }
        faults.extend(self.parameters.faults(&format!("{at}.parameters")));
        faults
    }
}

/// Returns the group of a contact in a campaign.
#[must_use]
pub fn group(campaign: CampaignId, contact: ContactId, hold_out_percent: u8, variants: &[Variant]) -> Group {
    // Two independent draws, so that a change of the hold-out share moves nobody between variants.
    let draw = |of: &[u8], below: u64| {
        let digest = Sha256::new()
            .chain_update(of)
            .chain_update(campaign.to_bytes())
            .chain_update(contact.to_bytes())
            .finalize();
        let mut first = [0_u8; 8];
        first.copy_from_slice(&digest[..8]);
        u64::from_be_bytes(first) % below.max(1)
    };
    if draw(b"hold-out", 100) < u64::from(hold_out_percent) {
        return Group::HoldOut;
    }
    let mut place = draw(b"variant", variants.iter().map(|variant| u64::from(variant.weight)).sum());
    for (index, variant) in variants.iter().enumerate() {
        match place.checked_sub(variant.weight.into()) {
            Some(rest) => place = rest,
            None => return Group::Variant(index),
        }
    }
    Group::Whole
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variant(name: &str, weight: u32) -> Variant {
        Variant { name: name.into(), weight, template: None, parameters: Parameters::default() }
    }

    fn contacts() -> impl Iterator<Item = ContactId> {
        (0..20_000_u128).map(|n| ContactId::from_bytes(n.to_be_bytes()))
    }

    #[test]
    fn recipients_are_divided_by_weight_after_the_hold_out() {
        let campaign = CampaignId::from_bytes([7; 16]);
        let variants = [variant("a", 3), variant("b", 1)];
        let mut counts = [0_u32; 3];
        for contact in contacts() {
            counts[match group(campaign, contact, 10, &variants) {
                Group::HoldOut => 0,
                Group::Variant(index) => index + 1,
                Group::Whole => panic!("it has variants"),
            }] += 1;
        }
        let near = |count: u32, expected: u32| count.abs_diff(expected) < 300;
        assert!(near(counts[0], 2_000) && near(counts[1], 13_500) && near(counts[2], 4_500), "{counts:?}");
    }

    #[test]
    fn the_group_depends_on_the_ids_alone_and_a_larger_hold_out_keeps_the_variants() {
        let campaign = CampaignId::from_bytes([8; 16]);
        let variants = [variant("a", 1), variant("b", 1)];
        for contact in contacts().take(1_000) {
            let without = group(campaign, contact, 0, &variants);
            let with = group(campaign, contact, 50, &variants);
            assert_eq!(group(campaign, contact, 50, &variants), with);
            assert!(with == Group::HoldOut || with == without);
        }
        assert_eq!(group(campaign, ContactId::from_bytes([0; 16]), 0, &[]), Group::Whole);
    }
}
