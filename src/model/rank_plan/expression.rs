// SPDX-License-Identifier: Apache-2.0
//! Expressions: integers, symbols and sizes of axes, joined by `*` and `/`.
#![forbid(unsafe_code)]

use std::fmt::{self, Display};

use super::identifiers::{self, Identifiers};
use crate::error::quoted;

/// The largest number that an expression or a step of it may be.
pub(super) const LARGEST: u64 = i64::MAX.unsigned_abs();

/// Digits of the longest integer in the text of an expression.
const MOST_DIGITS: usize = 18;

/// How a factor is joined to what comes before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Multiply,
    Divide,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Term {
    /// `None`: more than the largest.
    Number(Option<u64>),
    /// A symbol, by its number.
    Symbol(usize),
    /// The size of an axis, `$tp`, by the axis' number.
    Axis(usize),
}

/// An expression whose form has been checked.
#[derive(Clone, Debug)]
pub(super) struct Expression {
    factors: Vec<(Operation, Term)>,
    text: Box<str>,
    /// Its number among those of all plans, by which its value is remembered.
    pub(super) id: usize,
}

impl Expression {
    pub(super) fn number(value: i128) -> Self {
        let term = Term::Number(u64::try_from(value).ok().filter(|value| *value <= LARGEST));
        let text = if value == i128::MAX { "a number of more than 64 bits".to_owned() } else { value.to_string() };
        Self { factors: vec![(Operation::Multiply, term)], text: text.into(), id: 0 }
    }

    /// What a text says, or what is wrong with it.
    pub(super) fn parse(text: &str, identifiers: &mut Identifiers) -> Result<Self, String> {
        let shown = quoted(text.as_bytes());
        let mut factors = Vec::new();
        let mut operation = Operation::Multiply;
        let mut rest = text;
        loop {
            let end = rest.find(['*', '/']).unwrap_or(rest.len());
            let (factor, tail) = rest.split_at_checked(end).unwrap_or((rest, ""));
            let factor = factor.trim_matches(' ');
            let found = term(factor, identifiers).map_err(|what| {
                format!("the expression {shown} has the factor {}, which {what}", quoted(factor.as_bytes()))
            })?;
            factors.push((operation, found));
            let mut tail = tail.chars();
            operation = match tail.next() {
                None => return Ok(Self { factors, text: shown.into(), id: 0 }),
                Some('/') => Operation::Divide,
                Some(_) => Operation::Multiply,
            };
            rest = tail.as_str();
        }
    }

    pub(super) fn factors(&self) -> &[(Operation, Term)] {
        &self.factors
    }

    /// Its value, where that depends on nothing.
    pub(super) fn constant(&self) -> Option<u64> {
        match self.factors.as_slice() {
            [(_, Term::Number(value))] => *value,
            _ => None,
        }
    }
}

impl Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn term(factor: &str, identifiers: &mut Identifiers) -> Result<Term, String> {
    if !factor.is_empty() && factor.bytes().all(|byte| byte.is_ascii_digit()) {
        return match factor.parse() {
            Ok(number) if factor.len() <= MOST_DIGITS => Ok(Term::Number(Some(number))),
            _ => Err(format!("has more than {MOST_DIGITS} digits")),
        };
    }
    match factor.strip_prefix('$') {
        Some(axis) if identifiers::is_axis(axis) => Ok(Term::Axis(identifiers.axis(axis)?)),
        None if identifiers::is_symbol(factor) => Ok(Term::Symbol(identifiers.symbol(factor)?)),
        _ => Err("is not an integer, a symbol or $ and an axis; factors are joined by * and /".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_the_form_are_taken_and_others_say_what_is_wrong() {
        let mut identifiers = Identifiers::default();
        for good in ["1", "a", "$tp", " 2 * a.b/ $ep ", "000000000000000001", "_x1 * Y", "a/b/c"] {
            assert!(Expression::parse(good, &mut identifiers).is_ok(), "{good}");
        }
        let bad = ["", " ", "*", "2 +2", "2 *", "/ 2", "-1", "1.5", "1e3", "a..b", ".a", "a.", "$", "$TP", "$1"];
        for bad in bad.into_iter().chain(["1a", "a b", "1234567890123456789", "a\t", "(a)", "é", "a.1"]) {
            assert!(Expression::parse(bad, &mut identifiers).is_err(), "{bad}");
        }
    }
}
