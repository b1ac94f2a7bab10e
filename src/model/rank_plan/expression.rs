// SPDX-License-Identifier: Apache-2.0
//! Expressions: integers, symbols and sizes of axes, joined by `*` and `/`.
#![forbid(unsafe_code)]

use std::fmt::{self, Display};

use super::name;
use crate::error::quoted;

/// The largest number that an expression or a step of it may be.
pub(super) const LARGEST: u64 = i64::MAX.unsigned_abs();

/// Digits of the longest integer in the text of an expression.
const MOST_DIGITS: usize = 18;

/// How a factor is joined to what stands before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Multiply,
    Divide,
}

#[derive(Clone, Debug)]
pub(super) enum Term {
    Number(u64),
    /// A JSON number of more than 64 bits.
    TooLarge,
    Symbol(Box<str>),
    /// The size of an axis: `$tp`.
    Axis(Box<str>),
}

/// An expression whose form has been checked.
#[derive(Clone, Debug)]
pub(super) struct Expression {
    factors: Vec<(Operation, Term)>,
    /// Its text, where it was one.
    text: Box<str>,
    /// Its number among those of all plans, by which its value is remembered.
    pub(super) id: usize,
}

impl Expression {
    pub(super) fn number(value: u64) -> Self {
        Self { factors: vec![(Operation::Multiply, Term::Number(value))], text: "".into(), id: 0 }
    }

    pub(super) fn too_large() -> Self {
        Self { factors: vec![(Operation::Multiply, Term::TooLarge)], text: "".into(), id: 0 }
    }

    /// What a text says, or what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut factors = Vec::new();
        let mut operation = Operation::Multiply;
        let mut rest = text;
        loop {
            let end = rest.find(['*', '/']).unwrap_or(rest.len());
            let (factor, tail) = rest.split_at_checked(end).unwrap_or((rest, ""));
            factors.push((operation, term(factor.trim_matches(' '), text)?));
            let mut tail = tail.chars();
            operation = match tail.next() {
                None => return Ok(Self { factors, text: text.into(), id: 0 }),
                Some('/') => Operation::Divide,
                Some(_) => Operation::Multiply,
            };
            rest = tail.as_str();
        }
    }

    pub(super) fn factors(&self) -> &[(Operation, Term)] {
        &self.factors
    }

    /// Whether its value depends on nothing.
    pub(super) fn constant(&self) -> Option<u64> {
        match self.factors.as_slice() {
            [(_, Term::Number(value))] if *value <= LARGEST => Some(*value),
            _ => None,
        }
    }
}

impl Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.factors.as_slice() {
            [(_, Term::Number(value))] if self.text.is_empty() => write!(f, "{value}"),
            [(_, Term::TooLarge)] => f.write_str("a number of more than 64 bits"),
            _ => f.write_str(&quoted(self.text.as_bytes())),
        }
    }
}

fn term(factor: &str, text: &str) -> Result<Term, String> {
    let wrong = |what: &str| {
        let (factor, text) = (quoted(factor.as_bytes()), quoted(text.as_bytes()));
        Err(format!("{factor} in the expression {text} {what}"))
    };
    if factor.is_empty() {
        let text = quoted(text.as_bytes());
        return Err(format!("the expression {text} lacks a factor: an integer, a symbol or $axis"));
    }
    if factor.bytes().all(|byte| byte.is_ascii_digit()) {
        return match factor.parse() {
            Ok(number) if factor.len() <= MOST_DIGITS => Ok(Term::Number(number)),
            _ => wrong("has more than 18 digits"),
        };
    }
    if let Some(axis) = factor.strip_prefix('$') {
        return match name::is_axis(axis) {
            true => Ok(Term::Axis(axis.into())),
            false => wrong("is no axis: $ and [a-z][a-z0-9_]*"),
        };
    }
    match name::is_symbol(factor) {
        true => Ok(Term::Symbol(factor.into())),
        false => wrong("is no integer, symbol or $axis; they are joined by * and /"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_the_form_are_taken_and_others_say_what_is_wrong() {
        for good in ["1", "a", "$tp", " 2 * a.b/ $ep ", "000000000000000001", "_x1 * Y", "a/b/c"] {
            assert!(Expression::parse(good).is_ok(), "{good}");
        }
        let bad = ["", " ", "*", "2 +2", "2 *", "/ 2", "-1", "1.5", "1e3", "a..b", ".a", "a.", "$", "$TP", "$1"];
        for bad in bad.into_iter().chain(["1a", "a b", "1234567890123456789", "a\t", "(a)", "é", "a.1"]) {
            assert!(Expression::parse(bad).is_err(), "{bad}");
        }
    }
}
