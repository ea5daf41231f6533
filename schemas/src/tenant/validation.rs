//! Faults of a tenant file, all at once, each with its place.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Profiles, Provider, Tenant};
use crate::id::TenantId;
use crate::money::Price;
use crate::ports::calendar::CalendarAccess;

impl Tenant {
    /// Its channels against their profiles, and its own texts against their limits.
    pub(super) fn channel_faults(&self, profiles: Profiles<'_>) -> Vec<String> {
        let mut faults = Vec::new();
        for (index, channel) in self.channels.iter().enumerate() {
            match profiles(channel.kind) {
                Some(profile) => faults.extend(channel.faults(profile, &format!("channels[{index}]"))),
                None => {
                    faults.push(format!("channels[{index}].kind: this build has no {} channel", channel.kind))
                }
            }
        }
        let limits =
            self.channels.iter().filter_map(|channel| profiles(channel.kind)).map(|profile| profile.text_max);
        let Some(limit) = limits.min() else { return faults };
        for (place, text) in [
            ("agent.fallback", &self.agent.fallback),
            ("tools.hand_over_text", &self.tools.hand_over_text),
            ("consent.stopped_text", &self.consent.stopped_text),
        ] {
            if text.chars().count() > limit.get() {
                faults.push(format!("{place}: is over {limit} characters; it has to fit into one message"));
            }
        }
        faults
    }

    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |holds: bool, fault: &dyn Fn() -> String| {
            if !holds {
                faults.push(fault());
            }
        };
        check(self.id != TenantId::engine(), &|| {
            format!("id: {} is the engine's own; take another one", self.id)
        });
        check(!self.name.trim().is_empty(), &|| "name: is empty".into());
        check(!self.region.trim().is_empty(), &|| "region: is empty".into());
        check(!self.agent.fallback.trim().is_empty(), &|| {
            "agent.fallback: is empty; it is said when no answer is known".into()
        });
        check(!self.tools.hand_over_text.trim().is_empty(), &|| "tools.hand_over_text: is empty".into());
        let mut names = BTreeSet::new();
        for (index, link) in self.tools.payments.iter().enumerate() {
            let at = |field: &str| format!("tools.payments[{index}].{field}");
            check(!link.name.trim().is_empty(), &|| format!("{}: is empty", at("name")));
            check(names.insert(&link.name), &|| format!("{}: {:?} appears twice", at("name"), link.name));
            check(link.url.starts_with("https://"), &|| {
                format!("{}: {:?} is no https address", at("url"), link.url)
            });
        }
        check((1..=100).contains(&self.quota.warn_percent), &|| {
            "quota.warn_percent: is not between 1 and 100".into()
        });
        check(
            self.quota.money_per_month.is_none()
                || self
                    .llm
                    .models()
                    .all(|model| model.provider == Provider::Extractive || model.price != Price::default()),
            &|| {
                "quota.money_per_month: needs the price of every model of llm; without, nothing would be counted".into()
            },
        );
        check(self.agent.loop_guard.within <= Duration::from_secs(86_400), &|| {
            "agent.loop_guard.within: is over 1d; people ask the same again on another day".into()
        });
        check(self.agent.settle <= Duration::from_secs(60), &|| {
            "agent.settle: is over 60s; customers wait that long for every answer".into()
        });
        for (index, model) in self.llm.models().enumerate() {
            let at = match index {
                0 => "llm".to_owned(),
                index => format!("llm.fallbacks[{}]", index - 1),
            };
            model.faults(&at).into_iter().for_each(|fault| check(false, &|| fault.clone()));
            check(index == 0 || model.provider != Provider::Extractive, &|| {
                format!(
                    "{at}.provider: extractive is no fallback; what stands behind the last is agent.fallback"
                )
            });
        }
        check(self.llm.provider != Provider::Extractive || self.llm.fallbacks.is_empty(), &|| {
            "llm.fallbacks: extractive calls no provider, and needs none".into()
        });
        self.consent.faults().into_iter().for_each(|fault| check(false, &|| fault.clone()));
        self.hours.faults().into_iter().for_each(|fault| check(false, &|| fault.clone()));
        let faults_of_calendar = self.calendar.iter().flat_map(CalendarAccess::faults);
        faults_of_calendar.for_each(|fault| check(false, &|| fault.clone()));
        check(self.calendar.is_none() || self.hours.are_set(), &|| {
            "calendar: nothing is ever free without opening hours; write when you are open under [hours]"
                .into()
        });
        self.retention.faults().into_iter().for_each(|fault| check(false, &|| fault.clone()));
        let mut seen = BTreeSet::new();
        for (index, channel) in self.channels.iter().enumerate() {
            let at = |field: &str| format!("channels[{index}].{field}");
            check(seen.insert((channel.kind, channel.account.clone())), &|| {
                format!("{}: {} appears twice", at("account"), channel.account)
            });
        }
        faults
    }
}
