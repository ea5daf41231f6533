//! Amounts of a quota, and counts of turns.

use heddle_schemas::money::Money;
use heddle_schemas::ports::responder::Usage;
use heddle_schemas::tenant::{Quota, Resource};
use serde::{Deserialize, Serialize};

/// Amount of each resource.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amounts {
    /// Messages.
    pub messages: u64,
    /// Tokens.
    pub tokens: u64,
    /// Money, in millionths.
    pub money: u64,
}

impl Amounts {
    /// Nothing.
    pub const NONE: Self = Self { messages: 0, tokens: 0, money: 0 };

    /// Returns the amounts that a quota allows in a month.
    #[must_use]
    pub fn limit(quota: &Quota) -> Self {
        Self {
            messages: quota.messages_per_month,
            tokens: quota.tokens_per_month,
            money: quota.money_per_month.map_or(u64::MAX, Money::as_micros),
        }
    }

    /// Returns the amounts that calls to a provider used.
    #[must_use]
    pub fn of_usage(usage: Usage) -> Self {
        Self { messages: 0, tokens: usage.tokens(), money: usage.money.as_micros() }
    }

    /// Returns the amount of one resource.
    #[must_use]
    pub fn of(self, resource: Resource) -> u64 {
        match resource {
            Resource::Messages => self.messages,
            Resource::Tokens => self.tokens,
            Resource::Money => self.money,
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.with(other, u64::saturating_add)
    }

    /// Returns the difference; zero where the other has more.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        self.with(other, u64::saturating_sub)
    }

    /// Returns the amounts times a factor.
    #[must_use]
    pub fn times(self, factor: u64) -> Self {
        self.each(|amount| amount.saturating_mul(factor))
    }

    /// The part of it that is one `divisor`th, rounded down.
    #[must_use]
    pub fn part(self, divisor: u64) -> Self {
        self.each(|amount| amount / divisor)
    }

    /// The smaller of each.
    #[must_use]
    pub fn least(self, other: Self) -> Self {
        self.with(other, u64::min)
    }

    /// The larger of each.
    #[must_use]
    pub fn most(self, other: Self) -> Self {
        self.with(other, u64::max)
    }

    /// Returns the first resource of which the other has more.
    #[must_use]
    pub fn short_of(self, other: Self) -> Option<Resource> {
        Resource::ALL.into_iter().find(|&resource| self.of(resource) < other.of(resource))
    }

    fn each(self, change: impl Fn(u64) -> u64) -> Self {
        let Self { messages, tokens, money } = self;
        Self { messages: change(messages), tokens: change(tokens), money: change(money) }
    }

    fn with(self, other: Self, join: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            messages: join(self.messages, other.messages),
            tokens: join(self.tokens, other.tokens),
            money: join(self.money, other.money),
        }
    }
}

/// Use by turns: anonymous, and kept for as long as the tenant is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// Turns that were decided.
    pub turns: u64,
    /// Messages that they say.
    pub messages: u64,
    /// Tokens sent to language models.
    pub input_tokens: u64,
    /// Tokens received.
    pub output_tokens: u64,
    /// Cost, in millionths.
    pub money: u64,
    /// Attempts at turns whose use is unknown: a crash came in between.
    pub interrupted: u64,
    /// The most tokens that these may have used; counted as spent.
    pub interrupted_tokens: u64,
    /// The most that these may have cost, in millionths; counted as spent.
    pub interrupted_money: u64,
}

impl Totals {
    /// One message that no turn decided.
    pub const MESSAGE: Self = Self {
        turns: 0,
        messages: 1,
        input_tokens: 0,
        output_tokens: 0,
        money: 0,
        interrupted: 0,
        interrupted_tokens: 0,
        interrupted_money: 0,
    };

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let sum = u64::saturating_add;
        Self {
            turns: sum(self.turns, other.turns),
            messages: sum(self.messages, other.messages),
            input_tokens: sum(self.input_tokens, other.input_tokens),
            output_tokens: sum(self.output_tokens, other.output_tokens),
            money: sum(self.money, other.money),
            interrupted: sum(self.interrupted, other.interrupted),
            interrupted_tokens: sum(self.interrupted_tokens, other.interrupted_tokens),
            interrupted_money: sum(self.interrupted_money, other.interrupted_money),
        }
    }

    /// Returns its amounts of a quota.
    #[must_use]
    pub fn amounts(self) -> Amounts {
        let sum = u64::saturating_add;
        Amounts {
            messages: self.messages,
            tokens: sum(sum(self.input_tokens, self.output_tokens), self.interrupted_tokens),
            money: sum(self.money, self.interrupted_money),
        }
    }
}
