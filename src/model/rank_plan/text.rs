// SPDX-License-Identifier: Apache-2.0
//! A plan's JSON, in typed structures: fields that are not named here, wrong
//! types and keys that come twice are errors.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error, MapAccess, SeqAccess, Unexpected, Visitor};

use super::expression::Expression;
use super::fault::List;
use super::pattern::Pattern;
use super::rule::{Rule, StoredEntry};
use super::split::{Counts, Lists, Split};

/// A plan.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlanText {
    pub(super) format: u64,
    #[serde(default)]
    #[allow(dead_code, reason = "for people")]
    about: Anything,
    #[serde(default)]
    pub(super) strict: Vec<AxisName>,
    #[serde(default)]
    pub(super) symbols: Definitions,
    #[serde(default)]
    pub(super) rules: Numbered<Rule>,
    #[serde(default)]
    pub(super) stored: Numbered<StoredEntry>,
}

/// A rule, as it is written.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleText {
    #[serde(rename = "match")]
    pub(super) patterns: Patterns,
    pub(super) axis: AxisName,
    #[serde(default)]
    #[allow(dead_code, reason = "for people")]
    about: Anything,
    #[serde(default, deserialize_with = "present")]
    pub(super) cut: Option<u64>,
    #[serde(default, deserialize_with = "present")]
    pub(super) pick: Option<u64>,
    #[serde(default, deserialize_with = "present")]
    pub(super) on: Option<Vec<i64>>,
    #[serde(default, deserialize_with = "present")]
    pub(super) whole: Option<bool>,
    #[serde(default, deserialize_with = "present")]
    pub(super) absent: Option<Pattern>,
    #[serde(default, deserialize_with = "present")]
    pub(super) unless: Option<AxisName>,
    #[serde(default)]
    pub(super) optional: bool,
    #[serde(default, deserialize_with = "present")]
    pub(super) of: Option<Expression>,
    #[serde(default, deserialize_with = "present")]
    pub(super) unit: Option<Expression>,
    #[serde(default, deserialize_with = "present")]
    pub(super) heads: Option<Expression>,
    #[serde(default, deserialize_with = "present")]
    pub(super) pad: Option<Expression>,
    #[serde(default, deserialize_with = "present")]
    pub(super) split: Option<SplitText>,
    #[serde(default, deserialize_with = "present")]
    pub(super) segments: Option<SegmentsText>,
    #[serde(default, deserialize_with = "present")]
    pub(super) repeat: Option<Expression>,
}

/// A segment, as it is written.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SegmentText {
    pub(super) size: Expression,
    #[serde(default)]
    #[allow(dead_code, reason = "for people")]
    about: Anything,
    #[serde(default, deserialize_with = "present")]
    pub(super) unit: Option<Expression>,
    #[serde(default, deserialize_with = "present")]
    pub(super) heads: Option<Expression>,
    #[serde(default, deserialize_with = "present")]
    pub(super) pad: Option<Expression>,
    #[serde(default, deserialize_with = "present")]
    pub(super) split: Option<SplitText>,
}

/// A `stored` entry, as it is written.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoredText {
    #[serde(rename = "match")]
    pub(super) pattern: Pattern,
    #[serde(rename = "as")]
    pub(super) logical: Pattern,
    pub(super) dims: Vec<Option<Object<DimText>>>,
    #[serde(default)]
    #[allow(dead_code, reason = "for people")]
    about: Anything,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DimText {
    pub(super) dim: u64,
    #[serde(default, deserialize_with = "present")]
    pub(super) pack: Option<Expression>,
    #[serde(default, deserialize_with = "present")]
    pub(super) block: Option<Expression>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct SplitObject {
    #[serde(default, deserialize_with = "present")]
    counts: Option<Vec<u64>>,
    #[serde(default, deserialize_with = "present")]
    lists: Option<Vec<Vec<u64>>>,
}

/// Of a field that may be left out: null is no value of it.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// Something that is written as an object. (A derived structure may be a list
/// of its fields' values too.)
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Value<'de> for Object<T> {
    const EXPECTED: &'static str = "an object";

    fn object<A: MapAccess<'de>>(map: A) -> Result<Self, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Self)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Of::<Self>(PhantomData))
    }
}

/// A field for people: anything, without equal keys.
#[derive(Default)]
struct Anything;

/// The name of an axis.
#[derive(Clone, Debug)]
pub(super) struct AxisName(pub(super) Box<str>);

/// One pattern or several.
pub(super) struct Patterns(pub(super) Vec<Pattern>);

/// How units are split, or all of them on every rank.
pub(super) enum SplitText {
    Whole,
    Split(Split),
}

pub(super) enum SegmentsText {
    Equal(u64),
    Listed(Vec<Object<SegmentText>>),
}

/// Symbols and what they stand for.
#[derive(Default)]
pub(super) struct Definitions(pub(super) Vec<(Box<str>, Expression)>);

/// A list whose errors say which item they are about.
pub(super) struct Numbered<T>(pub(super) Vec<T>);

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// An item of such a list: made of what is written.
pub(super) trait Item: std::marker::Sized {
    type Text: DeserializeOwned;
    const LIST: List;

    fn new(text: Self::Text) -> Result<Self, String>;
}

impl<'de, T: Item> Deserialize<'de> for Numbered<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Items<T>(PhantomData<T>);

        impl<'de, T: Item> Visitor<'de> for Items<T> {
            type Value = Numbered<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Numbered<T>, A::Error> {
                let mut items = Vec::new();
                let name = match T::LIST {
                    List::Rules => "rule",
                    List::Stored => "stored",
                };
                loop {
                    let number = items.len();
                    let wrong = |error: &dyn fmt::Display| A::Error::custom(format_args!("{name} {number}: {error}"));
                    match list.next_element::<Object<T::Text>>() {
                        Ok(Some(Object(text))) => items.push(T::new(text).map_err(|error| wrong(&error))?),
                        Ok(None) => return Ok(Numbered(items)),
                        Err(error) => return Err(wrong(&error)),
                    }
                }
            }
        }

        from.deserialize_seq(Items(PhantomData))
    }
}

/// What can be made of a JSON value of any kind, one method for each.
trait Value<'de>: Sized {
    const EXPECTED: &'static str;

    fn text(_: &str) -> Option<Result<Self, String>> {
        None
    }
    fn number(_: u64) -> Option<Self> {
        None
    }
    fn float(_: f64) -> Option<Self> {
        None
    }
    fn list<A: SeqAccess<'de>>(list: A) -> Result<Self, A::Error> {
        drop(list);
        Err(A::Error::invalid_type(Unexpected::Seq, &Self::EXPECTED))
    }
    fn object<A: MapAccess<'de>>(map: A) -> Result<Self, A::Error> {
        drop(map);
        Err(A::Error::invalid_type(Unexpected::Map, &Self::EXPECTED))
    }
}

struct Of<T>(PhantomData<T>);

impl<'de, T: Value<'de>> Visitor<'de> for Of<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        let wrong = || E::invalid_type(Unexpected::Str(text), &T::EXPECTED);
        T::text(text).ok_or_else(wrong)?.map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<T, E> {
        T::number(value).ok_or_else(|| E::invalid_type(Unexpected::Unsigned(value), &T::EXPECTED))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<T, E> {
        T::float(value).ok_or_else(|| E::invalid_type(Unexpected::Float(value), &T::EXPECTED))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<T, A::Error> {
        T::list(list)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::object(map)
    }
}

fn listed<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(mut list: A) -> Result<Vec<T>, A::Error> {
    let mut items = Vec::new();
    while let Some(item) = list.next_element()? {
        items.push(item);
    }
    Ok(items)
}

impl<'de> Value<'de> for Pattern {
    const EXPECTED: &'static str = "a pattern";

    fn text(text: &str) -> Option<Result<Self, String>> {
        Some(Self::parse(text))
    }
}

impl<'de> Value<'de> for Patterns {
    const EXPECTED: &'static str = "a pattern or a list of patterns";

    fn text(text: &str) -> Option<Result<Self, String>> {
        Some(Pattern::parse(text).map(|pattern| Self(vec![pattern])))
    }

    fn list<A: SeqAccess<'de>>(list: A) -> Result<Self, A::Error> {
        let patterns: Vec<Pattern> = listed(list)?;
        match patterns.is_empty() {
            true => Err(A::Error::custom("match has no pattern")),
            false => Ok(Self(patterns)),
        }
    }
}

impl<'de> Value<'de> for Expression {
    const EXPECTED: &'static str = "an expression: an integer of 0 or more, or a text";

    fn text(text: &str) -> Option<Result<Self, String>> {
        Some(Self::parse(text))
    }

    fn number(value: u64) -> Option<Self> {
        Some(Expression::number(value))
    }

    fn float(value: f64) -> Option<Self> {
        // An integer of more than 64 bits, which serde_json gives so.
        (value >= 18_446_744_073_709_551_615.0).then(Self::too_large)
    }
}

impl<'de> Value<'de> for AxisName {
    const EXPECTED: &'static str = "the name of an axis";

    fn text(text: &str) -> Option<Result<Self, String>> {
        Some(match super::name::is_axis(text) {
            true => Ok(Self(text.into())),
            false => Err(format!("{text:?} is no name of an axis: [a-z][a-z0-9_]*")),
        })
    }
}

impl<'de> Value<'de> for SplitText {
    const EXPECTED: &'static str = "a split";

    fn text(text: &str) -> Option<Result<Self, String>> {
        Some(Ok(Self::Split(match text {
            "even" => Split::Even,
            "replicate" => Split::Replicate,
            "ceil" => Split::Ceil,
            "balanced" => Split::Balanced,
            "robin" => Split::Robin,
            "whole" => return Some(Ok(Self::Whole)),
            _ => {
                let splits = "even, replicate, ceil, balanced, robin, counts, lists; whole in segments";
                return Some(Err(format!("{text:?} is no split: {splits}")));
            }
        })))
    }

    fn object<A: MapAccess<'de>>(map: A) -> Result<Self, A::Error> {
        let object = SplitObject::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Self::Split(match (object.counts, object.lists) {
            (Some(counts), None) => Split::Counts(Counts::new(&counts)),
            (None, Some(lists)) => Split::Lists(Lists::new(lists)),
            _ => return Err(A::Error::custom("a split has either counts or lists")),
        }))
    }
}

impl<'de> Value<'de> for SegmentsText {
    const EXPECTED: &'static str = "a number of segments or a list of them";

    fn number(value: u64) -> Option<Self> {
        Some(Self::Equal(value))
    }

    fn list<A: SeqAccess<'de>>(list: A) -> Result<Self, A::Error> {
        listed(list).map(Self::Listed)
    }
}

impl<'de> Value<'de> for Definitions {
    const EXPECTED: &'static str = "an object of symbols";

    fn object<A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
        let mut seen = HashSet::new();
        let mut definitions = Vec::new();
        while let Some(name) = map.next_key::<Box<str>>()? {
            if !super::name::is_symbol(&name) {
                return Err(A::Error::custom(format_args!("{name:?} is no name of a symbol")));
            }
            if !seen.insert(name.clone()) {
                return Err(A::Error::custom(format_args!("the symbol {name:?} comes twice")));
            }
            let wrong = |error| A::Error::custom(format_args!("symbol {name:?}: {error}"));
            let expression = map.next_value().map_err(wrong)?;
            definitions.push((name, expression));
        }
        Ok(Self(definitions))
    }
}

macro_rules! deserialize_values {
    ($($type:ty),*) => {
        $(impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from.deserialize_any(Of::<Self>(PhantomData))
            }
        })*
    };
}

deserialize_values!(Pattern, Patterns, Expression, AxisName, SplitText, SegmentsText, Definitions);

impl<'de> Deserialize<'de> for Anything {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Anything;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }

            fn visit_bool<E>(self, _: bool) -> Result<Anything, E> {
                Ok(Anything)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Anything, E> {
                Ok(Anything)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Anything, E> {
                Ok(Anything)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Anything, E> {
                Ok(Anything)
            }

            fn visit_str<E>(self, _: &str) -> Result<Anything, E> {
                Ok(Anything)
            }

            fn visit_unit<E>(self) -> Result<Anything, E> {
                Ok(Anything)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Anything, A::Error> {
                while list.next_element::<Anything>()?.is_some() {}
                Ok(Anything)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Anything, A::Error> {
                let mut seen = HashSet::new();
                while let Some(key) = map.next_key::<Box<str>>()? {
                    map.next_value::<Anything>()?;
                    if let Some(key) = seen.replace(key) {
                        return Err(A::Error::custom(format_args!("the key {key:?} comes twice")));
                    }
                }
                Ok(Anything)
            }
        }

        from.deserialize_any(Any)
    }
}
