//! JSON values, and whether an object in them names a member twice: `serde_json` keeps the last one and says nothing.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// A value, and whether some object in it names a member twice.
pub(super) struct Distinct {
    pub(super) value: Value,
    pub(super) repeats: bool,
}

impl From<Value> for Distinct {
    fn from(value: Value) -> Self {
        Self { value, repeats: false }
    }
}

impl<'de> Deserialize<'de> for Distinct {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Distinct;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Distinct, E> {
        Ok(Value::Null.into())
    }

    fn visit_bool<E>(self, value: bool) -> Result<Distinct, E> {
        Ok(Value::from(value).into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Distinct, E> {
        Ok(Value::from(value).into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Distinct, E> {
        Ok(Value::from(value).into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Distinct, E> {
        Ok(Value::from(value).into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Distinct, E> {
        Ok(Value::from(value).into())
    }

    fn visit_string<E>(self, value: String) -> Result<Distinct, E> {
        Ok(Value::from(value).into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Distinct, A::Error> {
        let (mut members, mut repeats) = (Vec::new(), false);
        while let Some(member) = list.next_element::<Distinct>()? {
            repeats |= member.repeats;
            members.push(member.value);
        }
        Ok(Distinct { value: Value::Array(members), repeats })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Distinct, A::Error> {
        let (mut members, mut repeats) = (Map::new(), false);
        while let Some((name, member)) = map.next_entry::<String, Distinct>()? {
            repeats |= member.repeats;
            repeats |= members.insert(name, member.value).is_some();
        }
        Ok(Distinct { value: Value::Object(members), repeats })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_member_that_is_named_twice_is_noticed_however_deep_it_is() {
        for (text, repeats) in [
            (r#"{"a":1,"b":{"a":1}}"#, false),
            (r#"{"a":1,"a":1}"#, true),
            (r#"[{"a":{"b":1,"c":2,"b":1}}]"#, true),
            (r#"{"a":1,"\u0061":2}"#, true),
        ] {
            assert_eq!(serde_json::from_str::<Distinct>(text).unwrap().repeats, repeats, "{text}");
        }
    }

    proptest! {
        #[test]
        fn values_are_read_as_serde_json_reads_them(text in r#"[\[\]{}",:0-9a-e.\-+tfn\\ ]{0,12}"#, number in any::<f64>()) {
            for text in [text, format!("[{number},{{\"a\":{number}}},null,true,\"\\n\"]")] {
                let theirs = serde_json::from_str::<Value>(&text).ok();
                prop_assert_eq!(serde_json::from_str::<Distinct>(&text).ok().map(|read| read.value), theirs);
            }
        }
    }
}
