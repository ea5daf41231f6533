//! Amounts of money and prices of models, exact to a millionth.
//!
//! A tenant's amounts are all in one currency, which only people need to know: it is not converted.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An amount, in millionths of the currency's unit.
///
/// Text form: a decimal number, such as `250` or `0.15`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money(u64);

impl Money {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The largest amount.
    pub const MAX: Self = Self(u64::MAX);

    /// Creates an amount from millionths.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Returns the amount in millionths.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(micros) = self;
        let fraction = format!("{:06}", micros % 1_000_000);
        match fraction.trim_end_matches('0') {
            "" => write!(f, "{}", micros / 1_000_000),
            fraction => write!(f, "{}.{fraction}", micros / 1_000_000),
        }
    }
}

/// The text is no amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no amount such as \"250\" or \"0.15\", with at most six digits behind the point")]
pub struct InvalidMoney(String);

impl FromStr for Money {
    type Err = InvalidMoney;

    fn from_str(text: &str) -> Result<Self, InvalidMoney> {
        let invalid = || InvalidMoney(text.to_owned());
        let micros = Decimal::from_str_exact(text)
            .ok()
            .and_then(|amount| amount.checked_mul(Decimal::from(1_000_000)))
            .filter(Decimal::is_integer)
            .ok_or_else(invalid)?;
        micros.to_u64().map(Self).ok_or_else(invalid)
    }
}

impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Money {
    fn schema_name() -> Cow<'static, str> {
        "Money".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "An amount in the tenant's currency, exact to a millionth.",
            "pattern": r"^[0-9]{1,13}(\.[0-9]{1,6})?$",
        })
    }
}

/// Price of a model, for a million tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Price {
    /// For a million tokens sent.
    pub input: Money,
    /// For a million tokens received.
    pub output: Money,
}

impl Price {
    /// Returns the cost of these tokens, rounded up.
    #[must_use]
    pub fn of(self, input_tokens: u64, output_tokens: u64) -> Money {
        let part = |tokens: u64, price: Money| u128::from(tokens) * u128::from(price.0);
        let both = part(input_tokens, self.input).saturating_add(part(output_tokens, self.output));
        let micros = both.div_ceil(1_000_000);
        Money(u64::try_from(micros).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts_are_decimal_numbers() {
        for (text, micros) in
            [("250", 250_000_000), ("0.15", 150_000), ("0.000001", 1), ("0", 0), ("1.50", 1_500_000)]
        {
            assert_eq!(text.parse(), Ok(Money(micros)), "{text}");
        }
        for wrong in ["", "-1", "0.0000001", "1e3", "1,5", "12 €", "18446744073710"] {
            assert!(wrong.parse::<Money>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_price_is_for_a_million_and_rounds_up() {
        // 1,000 tokens sent at 0.15 and 200 received at 0.60 a million: 0.00015 + 0.00012.
        let price = Price { input: "0.15".parse().unwrap(), output: "0.60".parse().unwrap() };
        assert_eq!(price.of(1_000, 200).to_string(), "0.00027");
        assert_eq!(price.of(1, 0), Money(1));
        assert_eq!(price.of(0, 0), Money::ZERO);
        assert_eq!(Price { input: Money::MAX, output: Money::MAX }.of(u64::MAX, u64::MAX), Money::MAX);
    }

    proptest! {
        #[test]
        fn an_amount_reads_back(micros in any::<u64>()) {
            prop_assert_eq!(Money(micros).to_string().parse(), Ok(Money(micros)));
        }
    }
}
