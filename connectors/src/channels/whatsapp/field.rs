//! Reader of JSON that may lack fields or hold them in another type: nothing here fails.

use heddle_schemas::time::Timestamp;
use serde_json::Value;

/// Seconds since 1970 of the year 10000: later than that is no time of a message.
const END_OF_TIME: i64 = 253_402_300_800;

/// A text that says something; a number is taken as its digits, since ids come as either.
pub(super) fn text(value: &Value, key: &str) -> Option<String> {
    match value.get(key)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A text as it is, even an empty one.
pub(super) fn body(value: &Value, key: &str) -> Option<String> {
    Some(value.get(key)?.as_str()?.to_owned())
}

/// A whole number, also one written as text.
pub(super) fn integer(value: &Value, key: &str) -> Option<i64> {
    match value.get(key)? {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// A finite number, also one written as text.
pub(super) fn float(value: &Value, key: &str) -> Option<f64> {
    let number = match value.get(key)? {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    number.is_finite().then_some(number)
}

/// Returns true if a flag is set.
pub(super) fn flag(value: &Value, key: &str) -> bool {
    value.get(key).and_then(Value::as_bool).unwrap_or(false)
}

/// A point in time, in seconds since 1970; `otherwise` where there is none that can be.
pub(super) fn time(value: &Value, key: &str, otherwise: Timestamp) -> Timestamp {
    match integer(value, key) {
        Some(secs) if (1..END_OF_TIME).contains(&secs) => Timestamp::from_secs(secs),
        _ => otherwise,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_time_that_cannot_be_is_replaced() {
        let now = Timestamp::from_secs(1_767_225_600);
        let read = |stamp: Value| time(&json!({ "timestamp": stamp }), "timestamp", now);
        assert_eq!(read(json!("1739321024")), Timestamp::from_secs(1_739_321_024));
        assert_eq!(read(json!(1_739_321_024)), Timestamp::from_secs(1_739_321_024));
        for nonsense in [json!(null), json!("soon"), json!(-1), json!(0), json!(i64::MAX), json!([1])] {
            assert_eq!(read(nonsense.clone()), now, "{nonsense}");
        }
    }

    #[test]
    fn an_id_may_be_a_number() {
        assert_eq!(text(&json!({ "id": 106_540_352_242_922_i64 }), "id").as_deref(), Some("106540352242922"));
        assert_eq!(text(&json!({ "id": "" }), "id"), None);
        assert_eq!(text(&json!({ "id": {} }), "id"), None);
    }
}
