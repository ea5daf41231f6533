//! The quota, added up again from the rows that turns have written.

use std::collections::BTreeMap;

use heddle_schemas::ports::state::StoreError;
use heddle_schemas::promise::{Promise, Proof};
use heddle_schemas::tenant::{Resource, Tenant};
use heddle_schemas::zone::{Date, Month};

use super::form::Holds;
use crate::conversation::thread::EntrySaid;
use crate::ports::Ports;
use crate::tenant::quota::amounts::Totals;
use crate::tenant::quota::{self, Usage};

/// Adds up.
pub(super) struct Spent<'t> {
    tenant: &'t Tenant,
    month: Month,
    before: Usage,
    rows: u64,
    /// Use by the journals of quota leases.
    days: BTreeMap<Date, Totals>,
    /// Use by the turns that the threads still hold.
    decided: Totals,
}

impl<'t> Spent<'t> {
    pub(super) async fn begin(ports: &Ports, tenant: &'t Tenant) -> Result<Self, StoreError> {
        let month = tenant.hours.time_zone.month(ports.clock.now());
        let before = quota::usage(ports, tenant, month).await?;
        let (days, decided) = (BTreeMap::new(), Totals::default());
        Ok(Self { tenant, month, before, rows: 0, days, decided })
    }

    pub(super) fn take(&mut self, holds: &Holds) {
        match holds {
            Holds::Spend(spend) => {
                self.rows += 1;
                if let Some((day, totals)) = spend {
                    let sum = self.days.entry(*day).or_default();
                    *sum = sum.plus(*totals);
                }
            }
            Holds::History(row) => {
                for entry in &row.entries {
                    if let EntrySaid::Agent { tally, texts, .. } = entry
                        && tally.spent.is_some_and(|spent| spent.chunk.month == self.month)
                    {
                        self.decided = self.decided.plus(tally.totals(texts.len()));
                    }
                }
            }
            _ => {}
        }
    }

    pub(super) async fn prove(mut self, ports: &Ports) -> Result<Proof, StoreError> {
        let after = quota::usage(ports, self.tenant, self.month).await?;
        let mut proof = Proof::new(Promise::Quota);
        let (first, next) = (self.month.starts_at(&self.tenant.hours.time_zone), after.total());
        let zone = &self.tenant.hours.time_zone;
        self.days.retain(|day, _| zone.starts(*day) >= first);
        for day in self
            .days
            .keys()
            .chain(before_and_after(&self.before, &after))
            .collect::<std::collections::BTreeSet<_>>()
        {
            let of = |days: &BTreeMap<Date, Totals>| days.get(day).copied().unwrap_or_default();
            let (was, found, is) = (of(&self.before.days), of(&self.days), of(&after.days));
            if !is_between(was, found, is) {
                proof.fault(format!(
                    "{day}: the rows of its turns add up to {}, and {} are recorded",
                    described(found),
                    described(is)
                ));
            }
        }
        for resource in Resource::ALL {
            let (spent, limit) = (after.spent.of(resource), after.limit.of(resource));
            let granted = after.granted.map_or(limit, |granted| granted.of(resource).max(limit));
            if spent > granted {
                proof.fault(format!("{spent} {resource} are spent in {}, of {granted}", self.month));
            } else if spent > limit {
                proof.saw(format!(
                    "the plan was lowered to {limit} {resource} after {spent} had been spent; nothing more is granted"
                ));
            }
        }
        let Totals { turns, messages, input_tokens, output_tokens, .. } = self.decided;
        if turns > next.turns
            || messages > next.messages
            || input_tokens > next.input_tokens
            || output_tokens > next.output_tokens
        {
            proof.fault(format!(
                "the threads hold {}, and {} are recorded in {}",
                described(self.decided),
                described(next),
                self.month
            ));
        }
        proof.count(self.rows + self.decided.turns + next.turns + after.set_aside.messages);
        proof.saw(format!(
            "{}: {} added up from {} rows of turns, {} found in threads, {} set aside",
            self.month,
            described(self.days.values().fold(Totals::default(), |sum, totals| sum.plus(*totals))),
            self.rows,
            described(self.decided),
            after.set_aside.messages,
        ));
        Ok(proof)
    }
}

fn before_and_after<'u>(before: &'u Usage, after: &'u Usage) -> impl Iterator<Item = &'u Date> {
    before.days.keys().chain(after.days.keys())
}

/// Returns true when the total found lies between those recorded before and after. The use that an interrupted call may
/// have had is replaced by its actual use, so the comparison holds only while nothing changes.
fn is_between(was: Totals, found: Totals, is: Totals) -> bool {
    if was == is {
        return found == is;
    }
    let grows = |of: fn(&Totals) -> u64| of(&was) <= of(&found) && of(&found) <= of(&is);
    grows(|totals| totals.turns) && grows(|totals| totals.messages)
}

fn described(totals: Totals) -> String {
    let amounts = totals.amounts();
    format!("{} turns, {} messages, {} tokens", totals.turns, amounts.messages, amounts.tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_during_the_check_is_no_fault_and_a_difference_is() {
        let turns = |turns| Totals { turns, messages: turns, ..Totals::default() };
        assert!(is_between(turns(3), turns(3), turns(3)));
        assert!(!is_between(turns(3), turns(2), turns(3)), "a row is missing");
        assert!(!is_between(turns(3), turns(4), turns(3)), "a turn was not written down");
        assert!(is_between(turns(3), turns(4), turns(5)));
        assert!(!is_between(turns(3), turns(6), turns(5)));
        let interrupted = Totals { interrupted: 1, interrupted_tokens: 9, ..turns(3) };
        assert!(!is_between(turns(3), interrupted, turns(3)));
    }
}
