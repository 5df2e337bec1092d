//! JSON values with a check for repeated members. `serde_json` keeps the last one of repeated members without an error.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// A JSON value, and whether an object in it has repeated members.
pub(crate) struct ParsedValue {
    pub(crate) value: Value,
    pub(crate) has_repeats: bool,
}

impl From<Value> for ParsedValue {
    fn from(value: Value) -> Self {
        Self { value, has_repeats: false }
    }
}

impl<'de> Deserialize<'de> for ParsedValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = ParsedValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<ParsedValue, E> {
        Ok(Value::Null.into())
    }

    fn visit_bool<E>(self, value: bool) -> Result<ParsedValue, E> {
        Ok(Value::from(value).into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<ParsedValue, E> {
        Ok(Value::from(value).into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<ParsedValue, E> {
        Ok(Value::from(value).into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<ParsedValue, E> {
        Ok(Value::from(value).into())
    }

    fn visit_str<E>(self, value: &str) -> Result<ParsedValue, E> {
        Ok(Value::from(value).into())
    }

    fn visit_string<E>(self, value: String) -> Result<ParsedValue, E> {
        Ok(Value::from(value).into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<ParsedValue, A::Error> {
        let (mut members, mut has_repeats) = (Vec::new(), false);
        while let Some(member) = list.next_element::<ParsedValue>()? {
            has_repeats |= member.has_repeats;
            members.push(member.value);
        }
        Ok(ParsedValue { value: Value::Array(members), has_repeats })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ParsedValue, A::Error> {
        let (mut members, mut has_repeats) = (Map::new(), false);
        while let Some((name, member)) = map.next_entry::<String, ParsedValue>()? {
            has_repeats |= member.has_repeats;
            has_repeats |= members.insert(name, member.value).is_some();
        }
        Ok(ParsedValue { value: Value::Object(members), has_repeats })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_repeated_member_is_detected_at_any_depth() {
        for (text, has_repeats) in [
            (r#"{"a":1,"b":{"a":1}}"#, false),
            (r#"{"a":1,"a":1}"#, true),
            (r#"[{"a":{"b":1,"c":2,"b":1}}]"#, true),
            (r#"{"a":1,"\u0061":2}"#, true),
        ] {
            assert_eq!(serde_json::from_str::<ParsedValue>(text).unwrap().has_repeats, has_repeats, "{text}");
        }
    }

    proptest! {
        #[test]
        fn values_are_parsed_as_by_serde_json(text in r#"[\[\]{}",:0-9a-e.\-+tfn\\ ]{0,12}"#, number in any::<f64>()) {
            for text in [text, format!("[{number},{{\"a\":{number}}},null,true,\"\\n\"]")] {
                let expected = serde_json::from_str::<Value>(&text).ok();
                prop_assert_eq!(serde_json::from_str::<ParsedValue>(&text).ok().map(|parsed| parsed.value), expected);
            }
        }
    }
}
