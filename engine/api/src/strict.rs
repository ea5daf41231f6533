//! Deserializer that accepts exactly the JSON that JSON Schema accepts.
//!
//! Serde differs in two points: it accepts an array for an object and fills the fields in order, and it refuses
//! `7.0` for an integer, which in JSON Schema is one
//! (<https://json-schema.org/draft/2020-12/json-schema-core#section-4.2.1>).

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{Deserializer, Error as _, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Error, Number, Value};

/// JSON value to deserialize.
pub(crate) struct Strict(pub(crate) Value);

/// Returns the integer value of a number that was written with a fraction of zero.
fn whole(number: &Number) -> Option<i64> {
    // Up to here every integer has an exact float.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let float =
        number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0 && float.abs() <= EXACT)?;
    #[expect(clippy::cast_possible_truncation, reason = "it is an integer of less than 54 bits")]
    Some(float as i64)
}

impl Strict {
    fn integer(self) -> Value {
        match &self.0 {
            Value::Number(number) => whole(number).map_or(self.0, Value::from),
            _ => self.0,
        }
    }
}

macro_rules! integers {
    ($($method:ident)+) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.integer().$method(visitor)
        }
    )+};
}

impl<'de> Deserializer<'de> for Strict {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Array(items) => {
                let mut items = SeqDeserializer::new(items.into_iter().map(Self));
                let read = visitor.visit_seq(&mut items)?;
                items.end()?;
                Ok(read)
            }
            Value::Object(fields) => {
                let mut fields =
                    MapDeserializer::new(fields.into_iter().map(|(name, value)| (name, Self(value))));
                let read = visitor.visit_map(&mut fields)?;
                fields.end()?;
                Ok(read)
            }
            plain => plain.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::Array(_) => Err(Error::invalid_type(Unexpected::Seq, &"an object")),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    integers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
    }

    forward_to_deserialize_any! {
        bool i128 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map identifier
        ignored_any
    }
}

impl IntoDeserializer<'_, Error> for Strict {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Inner {
        number: u32,
        maybe: Option<i64>,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Outer {
        inner: Inner,
        all: Vec<Inner>,
        ratio: f64,
    }

    fn read(value: Value) -> Result<Outer, String> {
        Outer::deserialize(Strict(value)).map_err(|error| error.to_string())
    }

    #[test]
    fn an_array_is_no_object_wherever_it_stands() {
        assert_eq!(read(json!({ "all": [{}], "inner": {} })).unwrap().all.len(), 1);
        for wrong in [json!([]), json!({ "inner": [] }), json!({ "all": [[1]] })] {
            assert!(read(wrong.clone()).unwrap_err().contains("an object"), "{wrong}");
        }
    }

    #[test]
    fn a_number_without_a_fraction_is_an_integer() {
        let inner = |value| read(json!({ "inner": value })).map(|outer| outer.inner);
        assert_eq!(
            inner(json!({ "number": 7.0, "maybe": -2.0 })).unwrap(),
            Inner { number: 7, maybe: Some(-2) }
        );
        assert!(inner(json!({ "number": 7.5 })).is_err());
        assert!(inner(json!({ "number": -1.0 })).is_err());
        assert!(inner(json!({ "number": 1e30 })).is_err());
        assert_eq!(read(json!({ "ratio": 2.0 })).unwrap().ratio, 2.0);
    }
}
