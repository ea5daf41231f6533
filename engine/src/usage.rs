//! Conversion of a tenant's monthly usage from the ledger to the admin API's types.

use heddle_actors::tenant::quota;
use heddle_actors::tenant::quota::amounts::{Amounts, Totals};
use heddle_api::usage::{Day, Resources, Usage};
use heddle_schemas::money::Money;

/// Converts the usage of a month.
#[must_use]
pub fn shown(usage: &quota::Usage) -> Usage {
    Usage {
        month: usage.month,
        quota: resources(usage.limit),
        spent: resources(usage.spent),
        set_aside: resources(usage.set_aside),
        lost_messages: usage.lost_messages,
        total: day(usage.total()),
        days: usage.days.iter().map(|(date, totals)| (*date, day(*totals))).collect(),
    }
}

fn resources(amounts: Amounts) -> Resources {
    let Amounts { messages, tokens, money } = amounts;
    Resources { messages, tokens, money: (money != u64::MAX).then(|| Money::from_micros(money)) }
}

fn day(totals: Totals) -> Day {
    Day {
        turns: totals.turns,
        messages: totals.messages,
        input_tokens: totals.input_tokens,
        output_tokens: totals.output_tokens,
        money: Money::from_micros(totals.money),
        interrupted: totals.interrupted,
        interrupted_tokens: totals.interrupted_tokens,
        interrupted_money: Money::from_micros(totals.interrupted_money),
    }
}
