// SPDX-License-Identifier: Apache-2.0
//! What the values in a plan's JSON may be. Serde_json reads the text, and the
//! structures of `rule` take their fields out of its objects here: a field that
//! is not named, one of the wrong type and a key that comes twice are errors.
#![forbid(unsafe_code)]

use super::expression::Expression;
use super::identifiers::{self, Identifiers};
use super::pattern::NamePattern;
use super::split::{Counts, Lists, Split};
use crate::error::quoted;
use crate::model::json::Json;

/// What is wrong with a text.
pub(super) type Read<T> = Result<T, String>;

/// Reads plans one after the other, and numbers what they name.
#[derive(Default)]
pub(super) struct PlanReader {
    pub(super) identifiers: Identifiers,
    /// Expressions so far.
    pub(super) expressions: usize,
}

/// A split, or none: all of it on every rank.
pub(super) enum SplitText {
    Whole,
    Split(Split),
}

/// The values of the fields of these names, in the order of the names.
pub(super) fn fields<'j, const COUNT: usize>(
    json: &'j Json,
    what: &str,
    names: &[&str; COUNT],
) -> Read<[Option<&'j Json>; COUNT]> {
    let mut found = [None; COUNT];
    fill(json, what, names, &mut found)?;
    Ok(found)
}

fn fill<'j>(json: &'j Json, what: &str, names: &[&str], found: &mut [Option<&'j Json>]) -> Read<()> {
    let Json::Map(entries) = json else { return Err(not(json, &format!("{what}, which is an object"))) };
    for (key, value) in entries {
        let slot = names.iter().position(|name| name == key).and_then(|at| found.get_mut(at));
        let Some(slot) = slot else {
            let (key, names) = (quoted(key.as_bytes()), names.join(", "));
            return Err(format!("{what} has the unknown field {key}; its fields are {names}"));
        };
        *slot = Some(value);
    }
    Ok(())
}

/// "… is not …"
pub(super) fn not(json: &Json, what: &str) -> String {
    let found = match json {
        Json::Null => "null".to_owned(),
        Json::Bool(value) => value.to_string(),
        Json::Integer(value) => value.to_string(),
        Json::Number(value) => value.to_string(),
        Json::Text(text) => quoted(text.as_bytes()),
        Json::List(_) => "a list".to_owned(),
        Json::Map(_) => "an object".to_owned(),
    };
    format!("{found} is not {what}")
}

/// A field that must be there.
pub(super) fn required<'j>(field: Option<&'j Json>, name: &str) -> Read<&'j Json> {
    field.ok_or_else(|| format!("the field {name} is missing"))
}

/// An integer of 0 or more.
pub(super) fn unsigned(json: &Json) -> Read<u64> {
    match json {
        Json::Integer(value) => u64::try_from(*value).ok(),
        _ => None,
    }
    .ok_or_else(|| not(json, "an integer of 0 or more"))
}

/// An integer.
pub(super) fn signed(json: &Json) -> Read<i64> {
    match json {
        Json::Integer(value) => i64::try_from(*value).ok(),
        _ => None,
    }
    .ok_or_else(|| not(json, "an integer of 64 bits"))
}

pub(super) fn boolean(json: &Json) -> Read<bool> {
    json.bool().ok_or_else(|| not(json, "true or false"))
}

pub(super) fn pattern(json: &Json) -> Read<NamePattern> {
    NamePattern::parse(json.text().ok_or_else(|| not(json, "a pattern"))?)
}

/// The items of a list.
pub(super) fn items<'j>(json: &'j Json, what: &str) -> Read<&'j [Json]> {
    match json {
        Json::List(items) => Ok(items),
        _ => Err(not(json, what)),
    }
}

pub(super) fn unsigned_list(json: &Json) -> Read<Vec<u64>> {
    items(json, "a list of integers")?.iter().map(unsigned).collect()
}

/// One pattern or several.
pub(super) fn patterns(json: &Json) -> Read<Vec<NamePattern>> {
    match json {
        Json::List(list) if list.is_empty() => Err("match has no pattern".to_owned()),
        Json::List(list) => list.iter().map(pattern).collect(),
        _ => Ok(vec![pattern(json)?]),
    }
}

pub(super) fn split(json: &Json) -> Read<SplitText> {
    Ok(SplitText::Split(match json {
        Json::Text(text) => match text.as_str() {
            "even" => Split::Even,
            "replicate" => Split::Replicate,
            "ceil" => Split::Ceil,
            "balanced" => Split::Balanced,
            "robin" => Split::Robin,
            "whole" => return Ok(SplitText::Whole),
            _ => {
                let splits =
                    "even, replicate, ceil, balanced, robin, an object of counts or lists, or, in segments, whole";
                return Err(not(json, &format!("a split: {splits}")));
            }
        },
        _ => match fields(json, "a split", &["counts", "lists"])? {
            [Some(counts), None] => Split::Counts(Counts::new(&unsigned_list(counts)?)),
            [None, Some(lists)] => {
                let lists = items(lists, "a list of lists")?.iter().map(unsigned_list);
                Split::Lists(Lists::new(lists.collect::<Read<_>>()?))
            }
            _ => return Err("a split has either counts or lists".to_owned()),
        },
    }))
}

impl PlanReader {
    /// An axis by its name: its number among those of all plans.
    pub(super) fn axis(&mut self, json: &Json) -> Read<usize> {
        match json.text() {
            Some(text) if identifiers::is_axis(text) => self.identifiers.axis(text),
            _ => Err(not(json, "the name of an axis: [a-z][a-z0-9_]*")),
        }
    }

    pub(super) fn expression(&mut self, json: &Json) -> Read<Expression> {
        // An integer of more than 64 bits is a float to serde_json.
        const TOO_LARGE: f64 = 18_446_744_073_709_551_615.0;
        let mut expression = match json {
            Json::Text(text) => Expression::parse(text, &mut self.identifiers)?,
            Json::Integer(value) if *value >= 0 => Expression::number(*value),
            Json::Number(value) if *value >= TOO_LARGE => Expression::number(i128::MAX),
            _ => return Err(not(json, "an expression: an integer of 0 or more, or a text")),
        };
        expression.id = self.expressions;
        self.expressions = self.expressions.saturating_add(1);
        Ok(expression)
    }

    pub(super) fn optional(&mut self, json: Option<&Json>) -> Read<Option<Expression>> {
        json.map(|json| self.expression(json)).transpose()
    }
}
