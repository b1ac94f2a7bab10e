// SPDX-License-Identifier: Apache-2.0
//! What expressions are worth for given sizes of axes. Each symbol and each
//! expression is worked out once, however often it is needed.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fmt::Display;

use super::expression::{Expression, Operation, Term, LARGEST};
use super::fault::Fault;
use super::settings::{Setting, Settings};
use crate::error::{quoted, Error};

/// Where symbols come from.
#[derive(Default)]
pub(super) struct Symbols {
    /// The caller's.
    pub(super) given: HashMap<String, u64>,
    pub(super) config: Settings,
    /// The plans'.
    pub(super) defined: HashMap<Box<str>, Expression>,
}

/// Why there is no value.
#[derive(Clone)]
struct Failure {
    fault: Fault,
    text: String,
}

impl Failure {
    fn expression(text: String) -> Self {
        Self { fault: Fault::Expression, text }
    }
}

enum Known {
    /// Being worked out: to need it now is a circle.
    Open,
    Value(Result<u64, Failure>),
}

/// Of a symbol: its value, or the expression that it stands for.
enum Meaning<'p> {
    Value(u64),
    Defined(&'p Expression),
}

/// A symbol on its way to its value.
struct Frame<'p> {
    symbol: &'p str,
    expression: &'p Expression,
    /// The next factor.
    next: usize,
    value: u64,
}

/// The values of one call.
pub(super) struct Values<'p> {
    symbols: &'p Symbols,
    /// Sizes of the axes that have more than one rank, and of others that were given.
    sizes: HashMap<&'p str, u64>,
    known: HashMap<&'p str, Known>,
    worked_out: Vec<Option<Result<u64, Failure>>>,
}

impl<'p> Values<'p> {
    pub(super) fn new(symbols: &'p Symbols, sizes: HashMap<&'p str, u64>) -> Self {
        Self { symbols, sizes, known: HashMap::new(), worked_out: Vec::new() }
    }

    /// The value of an expression; `what` and `place` say whose it is, should there be none.
    pub(super) fn get(
        &mut self,
        expression: &'p Expression,
        what: &str,
        place: &dyn Fn() -> String,
    ) -> Result<u64, Error> {
        if let Some(value) = expression.constant() {
            return Ok(value);
        }
        let id = expression.id;
        if self.worked_out.len() <= id {
            self.worked_out.resize_with(id.saturating_add(1), || None);
        }
        let known = self.worked_out.get(id).and_then(Option::as_ref).cloned();
        let value = known.unwrap_or_else(|| {
            let value = self.work_out(expression);
            if let Some(slot) = self.worked_out.get_mut(id) {
                *slot = Some(value.clone());
            }
            value
        });
        value.map_err(|Failure { fault, text }| fault.error(format_args!("{}: {what} {expression}: {text}", place())))
    }

    fn work_out(&mut self, expression: &'p Expression) -> Result<u64, Failure> {
        let mut value = 1;
        for (operation, term) in expression.factors() {
            let factor = match term {
                Term::Symbol(name) => self.symbol(name)?,
                term => self.plain(term)?,
            };
            value = apply(value, *operation, factor, expression)?;
        }
        Ok(value)
    }

    fn plain(&self, term: &Term) -> Result<u64, Failure> {
        match term {
            Term::Number(value) if *value <= LARGEST => Ok(*value),
            Term::Axis(axis) => Ok(self.sizes.get(&**axis).copied().unwrap_or(1)),
            _ => Err(Failure::expression(format!("more than {LARGEST}"))),
        }
    }

    /// A symbol's value. Symbols may stand for others to any depth, so this goes
    /// down with a stack of its own.
    fn symbol(&mut self, name: &'p str) -> Result<u64, Failure> {
        let mut stack: Vec<Frame<'p>> = Vec::new();
        let mut wanted = Some(name);
        loop {
            if let Some(name) = wanted.take() {
                match self.known.get(name) {
                    Some(Known::Value(Ok(_))) => {}
                    Some(Known::Value(Err(failure))) => {
                        let failure = failure.clone();
                        return Err(self.fail(&stack, failure));
                    }
                    Some(Known::Open) => {
                        let text = format!("the symbol {} stands for itself in a circle", quoted(name.as_bytes()));
                        return Err(self.fail(&stack, Failure { fault: Fault::Symbol, text }));
                    }
                    None => match self.meaning(name) {
                        Ok(Meaning::Value(value)) => {
                            self.known.insert(name, Known::Value(Ok(value)));
                        }
                        Ok(Meaning::Defined(expression)) => {
                            self.known.insert(name, Known::Open);
                            stack.push(Frame { symbol: name, expression, next: 0, value: 1 });
                        }
                        Err(failure) => return Err(self.fail(&stack, failure)),
                    },
                }
            }
            let Some(frame) = stack.last_mut() else { break };
            let Some((operation, term)) = frame.expression.factors().get(frame.next) else {
                self.known.insert(frame.symbol, Known::Value(Ok(frame.value)));
                stack.pop();
                continue;
            };
            let factor = match term {
                Term::Symbol(name) => match self.known.get(&**name) {
                    Some(Known::Value(Ok(value))) => Ok(*value),
                    _ => {
                        wanted = Some(name);
                        continue;
                    }
                },
                term => self.plain(term),
            };
            match factor.and_then(|factor| apply(frame.value, *operation, factor, frame.expression)) {
                Ok(value) => (frame.value, frame.next) = (value, frame.next.saturating_add(1)),
                Err(failure) => return Err(self.fail(&stack, failure)),
            }
        }
        match self.known.get(name) {
            Some(Known::Value(value)) => value.clone(),
            _ => Err(Failure { fault: Fault::Symbol, text: quoted(name.as_bytes()) }),
        }
    }

    /// All that wait for what has failed have failed.
    fn fail(&mut self, stack: &[Frame<'p>], mut failure: Failure) -> Failure {
        if let Some(frame) = stack.last() {
            failure.text = format!("{} (in the symbol {})", failure.text, quoted(frame.symbol.as_bytes()));
        }
        for frame in stack {
            self.known.insert(frame.symbol, Known::Value(Err(failure.clone())));
        }
        failure
    }

    fn meaning(&self, name: &str) -> Result<Meaning<'p>, Failure> {
        let shown = || quoted(name.as_bytes());
        if let Some(value) = self.symbols.given.get(name) {
            return Ok(Meaning::Value(*value));
        }
        match self.symbols.config.find(name) {
            None | Some(Setting::Null) => {}
            Some(Setting::Integer(value)) if *value <= LARGEST => return Ok(Meaning::Value(*value)),
            Some(Setting::Integer(value)) => {
                return Err(Failure::expression(format!("{} is {value} in the config, more than {LARGEST}", shown())));
            }
            Some(Setting::Object(_) | Setting::Other) => {
                let text = format!("{} is no integer of 0 or more in the config, nor true or false", shown());
                return Err(Failure::expression(text));
            }
        }
        let unknown = || {
            let text = format!("no symbol {}: neither the caller, the config nor a plan has it", shown());
            Failure { fault: Fault::Symbol, text }
        };
        self.symbols.defined.get(name).map(Meaning::Defined).ok_or_else(unknown)
    }
}

fn apply(value: u64, operation: Operation, factor: u64, expression: &dyn Display) -> Result<u64, Failure> {
    let result = match operation {
        Operation::Multiply => value.checked_mul(factor).filter(|value| *value <= LARGEST),
        Operation::Divide => {
            let rest = value.checked_rem(factor);
            let wrong = match rest {
                None => format!("{value} / 0 in {expression}"),
                Some(0) => String::new(),
                Some(rest) => format!("{value} / {factor} leaves a remainder of {rest} in {expression}"),
            };
            if !wrong.is_empty() {
                return Err(Failure::expression(wrong));
            }
            value.checked_div(factor)
        }
    };
    result.ok_or_else(|| Failure::expression(format!("{value} * {factor} is more than {LARGEST} in {expression}")))
}
