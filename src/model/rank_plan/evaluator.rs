// SPDX-License-Identifier: Apache-2.0
//! What expressions are worth for given sizes of axes. Each symbol and each
//! expression is worked out once, however often it is needed.
#![forbid(unsafe_code)]

use std::fmt::Display;

use super::expression::{Expression, Operation, Term, LARGEST};
use super::fault::Fault;
use super::symbols::{Meaning, Setting, Symbols};
use crate::base::memory;
use crate::error::Error;

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

#[derive(Clone, Default)]
enum Evaluation {
    #[default]
    Nothing,
    /// Being worked out: to need it now is a circle.
    Open,
    Value(Result<u64, Failure>),
}

/// A symbol on its way to its value.
struct Frame<'p> {
    symbol: usize,
    expression: &'p Expression,
    /// The next factor.
    next: usize,
    value: u64,
}

/// The values of one call.
pub(super) struct Evaluator<'p> {
    symbols: &'p Symbols,
    /// Of axes, by their numbers.
    sizes: &'p [u64],
    /// Of symbols, by their numbers.
    known: Vec<Evaluation>,
    /// Of expressions, by their numbers.
    worked_out: Vec<Evaluation>,
}

impl<'p> Evaluator<'p> {
    pub(super) fn new(symbols: &'p Symbols, sizes: &'p [u64], expressions: usize) -> Result<Self, Error> {
        let nothing = |count: usize| {
            let mut known = memory::vec_with_capacity(count, "values of expressions")?;
            known.resize_with(count, Evaluation::default);
            Ok::<_, Error>(known)
        };
        Ok(Self { symbols, sizes, known: nothing(symbols.len())?, worked_out: nothing(expressions)? })
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
        let value = match self.worked_out.get(expression.id) {
            Some(Evaluation::Value(known)) => known.clone(),
            _ => {
                let value = self.work_out(expression);
                if let Some(slot) = self.worked_out.get_mut(expression.id) {
                    *slot = Evaluation::Value(value.clone());
                }
                value
            }
        };
        value.map_err(|Failure { fault, text }| fault.error(&format!("{}: {what} {expression}: {text}", place())))
    }

    fn work_out(&mut self, expression: &'p Expression) -> Result<u64, Failure> {
        let mut value = 1;
        for (operation, term) in expression.factors() {
            let factor = match term {
                Term::Symbol(number) => self.symbol(*number)?,
                term => self.plain(*term)?,
            };
            value = apply(value, *operation, factor, expression)?;
        }
        Ok(value)
    }

    fn plain(&self, term: Term) -> Result<u64, Failure> {
        match term {
            Term::Number(Some(value)) => Ok(value),
            Term::Axis(axis) => Ok(self.sizes.get(axis).copied().unwrap_or(1)),
            _ => Err(Failure::expression(format!("more than {LARGEST}"))),
        }
    }

    /// A symbol's value. Symbols may stand for others to any depth, so this goes
    /// down with a stack of its own.
    fn symbol(&mut self, number: usize) -> Result<u64, Failure> {
        let mut stack: Vec<Frame<'p>> = Vec::new();
        let mut wanted = Some(number);
        loop {
            if let Some(number) = wanted.take() {
                let symbols = self.symbols;
                let failure = match (self.known.get(number), symbols.meaning(number)) {
                    (Some(Evaluation::Value(Ok(_))), _) => None,
                    (Some(Evaluation::Value(Err(failure))), _) => Some(failure.clone()),
                    (Some(Evaluation::Open), _) => {
                        let text = format!("the symbol {} is defined in a circle", symbols.shown(number));
                        Some(Failure { fault: Fault::Symbol, text })
                    }
                    (_, Meaning::Value(value)) => {
                        self.know(number, Evaluation::Value(Ok(value)));
                        None
                    }
                    (_, Meaning::Defined(expression)) => {
                        self.know(number, Evaluation::Open);
                        stack.push(Frame { symbol: number, expression, next: 0, value: 1 });
                        None
                    }
                    (_, Meaning::Unfit(setting)) => Some(Failure::expression(match setting {
                        Setting::TooLarge(value) => {
                            format!("{} is {value} in the config, more than {LARGEST}", symbols.shown(number))
                        }
                        _ => format!(
                            "{} is not an integer of 0 or more in the config, nor true or false",
                            symbols.shown(number)
                        ),
                    })),
                    (_, Meaning::Unknown) => {
                        let shown = symbols.shown(number);
                        let text = format!("the symbol {shown} is unknown to the caller, the config and the plans");
                        Some(Failure { fault: Fault::Symbol, text })
                    }
                };
                if let Some(failure) = failure {
                    return Err(self.fail(&stack, failure));
                }
            }
            let Some(frame) = stack.last_mut() else { break };
            let (symbol, expression, value) = (frame.symbol, frame.expression, frame.value);
            let Some((operation, term)) = expression.factors().get(frame.next) else {
                self.know(symbol, Evaluation::Value(Ok(value)));
                stack.pop();
                continue;
            };
            let factor = match *term {
                Term::Symbol(number) => match self.known.get(number) {
                    Some(Evaluation::Value(Ok(value))) => Ok(*value),
                    _ => {
                        wanted = Some(number);
                        continue;
                    }
                },
                term => self.plain(term),
            };
            match factor.and_then(|factor| apply(value, *operation, factor, expression)) {
                Ok(value) => (frame.value, frame.next) = (value, frame.next.saturating_add(1)),
                Err(failure) => return Err(self.fail(&stack, failure)),
            }
        }
        match self.known.get(number) {
            Some(Evaluation::Value(value)) => value.clone(),
            _ => Err(Failure { fault: Fault::Symbol, text: self.symbols.shown(number) }),
        }
    }

    fn know(&mut self, symbol: usize, what: Evaluation) {
        if let Some(slot) = self.known.get_mut(symbol) {
            *slot = what;
        }
    }

    /// All that wait for what has failed have failed.
    fn fail(&mut self, stack: &[Frame<'p>], mut failure: Failure) -> Failure {
        if let Some(frame) = stack.last() {
            failure.text = format!("{} (in the symbol {})", failure.text, self.symbols.shown(frame.symbol));
        }
        for frame in stack {
            self.know(frame.symbol, Evaluation::Value(Err(failure.clone())));
        }
        failure
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
