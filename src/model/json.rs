// SPDX-License-Identifier: Apache-2.0
//! The small JSON beside and inside checkpoints as a tree: config.json, a rank plan,
//! the state of a quantised tensor, a marker. (Headers and indexes, which may have a
//! million entries, are read in place: `base::json`.)
//!
//! Such text comes from strangers: its size is limited before it is read, it may
//! nest 127 levels (serde_json's limit), and a key that appears twice is refused,
//! since readers disagree on which of the two counts.
#![forbid(unsafe_code)]

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::base::sort;

/// A JSON value; maps keep the order of the text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    /// A number without point or exponent that fits 64 bits, signed or not.
    Integer(i128),
    Number(f64),
    Text(String),
    List(Vec<Json>),
    Map(Vec<(String, Json)>),
}

impl Json {
    /// Reads a text of at most `limit` bytes; the error says what is wrong with
    /// it, and names no file.
    pub(crate) fn parse(text: &[u8], limit: usize) -> Result<Self, String> {
        if text.len() > limit {
            return Err(format!("{} bytes are more than the limit of {limit}", text.len()));
        }
        serde_json::from_slice(text).map_err(|error| crate::error::escaped(error.to_string().as_bytes()))
    }

    // Out of line: configurations are read once, with many of these calls.
    /// The value of a key of a map.
    #[inline(never)]
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The map that is the value of a key.
    #[inline(never)]
    pub(crate) fn map(&self, key: &str) -> Option<&[(String, Self)]> {
        match self.get(key) {
            Some(Self::Map(entries)) => Some(entries),
            _ => None,
        }
    }

    /// The list that is the value of a key; empty where there is none.
    #[inline(never)]
    pub(crate) fn list(&self, key: &str) -> &[Self] {
        match self.get(key) {
            Some(Self::List(items)) => items,
            _ => &[],
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// A number that is whole and exact in F64.
    #[inline(never)]
    pub(crate) fn integer(&self) -> Option<i64> {
        const EXACT: f64 = 9_007_199_254_740_992.0;
        match self {
            Self::Integer(number) => i64::try_from(*number).ok().filter(|number| number.unsigned_abs() < 1 << 53),
            #[allow(clippy::cast_possible_truncation, reason = "whole, and below 2^53")]
            Self::Number(number) if number.fract() == 0.0 && number.abs() < EXACT => Some(*number as i64),
            _ => None,
        }
    }

    /// A whole number above 0 and below 2^32: a size.
    #[inline(never)]
    pub(crate) fn positive(&self) -> Option<u64> {
        let number = self.integer().and_then(|number| u32::try_from(number).ok());
        number.filter(|number| *number != 0).map(u64::from)
    }

    pub(crate) fn number(&self) -> Option<f64> {
        match self {
            #[allow(clippy::cast_precision_loss, reason = "what F64 can't hold is no size of anything")]
            Self::Integer(number) => Some(*number as f64),
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Builder)
    }
}

/// Makes the tree.
struct Builder;

impl<'de> Visitor<'de> for Builder {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Integer(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut map: Vec<(String, Json)> = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        let keys = sort::sorted(map.iter().map(|(key, _)| key.as_bytes()), "keys").map_err(de::Error::custom)?;
        let twice = sort::repeated(&keys).next().and_then(|(_, number)| map.get(number));
        match twice {
            Some((key, _)) => Err(de::Error::custom(["the key '", key, "' appears twice"].concat())),
            None => Ok(Json::Map(map)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_keys_and_long_texts_are_refused() {
        let parse = |text: &str| Json::parse(text.as_bytes(), 64);
        assert!(parse(r#"{"a": 1, "b": {"a": 2}}"#).is_ok());
        assert!(parse(r#"{"a": 1, "b": {"a": 2, "a": 3}}"#).unwrap_err().contains("'a' appears twice"));
        assert!(parse(&" ".repeat(65)).unwrap_err().contains("65 bytes"));
        assert!(Json::parse("[".repeat(200).as_bytes(), 1000).unwrap_err().contains("recursion"));
    }

    #[test]
    fn numbers_are_sizes_only_where_they_are_whole_and_positive() {
        let parse = |text: &str| Json::parse(text.as_bytes(), 64).unwrap();
        assert_eq!(parse("32").positive(), Some(32));
        assert_eq!(parse("4.0").positive(), Some(4));
        for other in ["0", "-1", "4.5", "1e300", "4294967296", "18446744073709551615", "\"4\"", "null", "true"] {
            assert_eq!(parse(other).positive(), None, "{other}");
        }
        assert_eq!(parse("-1").integer(), Some(-1));
    }
}
