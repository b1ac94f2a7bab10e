// SPDX-License-Identifier: Apache-2.0
//! What symbols stand for: the caller's numbers, those of config.json, and the
//! plans' own expressions, in this order.
#![forbid(unsafe_code)]

use super::expression::{Expression, LARGEST};
use crate::base::memory;
use crate::base::numbering::Numbering;
use crate::error::{quoted, Error, ErrorKind, Result};
use crate::model::json::Json;

/// What config.json has under a symbol's name; null is not there.
#[derive(Clone, Copy, Debug)]
pub(super) enum Setting {
    Integer(u64),
    /// An integer that no expression may be.
    TooLarge(i128),
    /// Anything else.
    Other,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Symbol {
    given: Option<u64>,
    config: Option<Setting>,
    /// The first definition in a plan.
    pub(super) defined: Option<Expression>,
}

/// A symbol with its meaning.
pub(super) enum Meaning<'p> {
    Value(u64),
    Defined(&'p Expression),
    /// The config has something that no symbol can be.
    Unfit(Setting),
    Unknown,
}

/// All symbols that plans name.
#[derive(Default)]
pub(super) struct Symbols {
    names: Numbering,
    symbols: Vec<Symbol>,
}

impl Symbols {
    /// Symbols of these names, as the plans define them, the caller gives them and config.json has them.
    pub(super) fn new(
        names: Numbering,
        definitions: Vec<(usize, Expression)>,
        given: &[(&str, i64)],
        config: Option<&Json>,
    ) -> Result<Self> {
        let mut this = Self { names, symbols: Vec::new() };
        for (name, value) in given {
            let wrong = |what: &str| {
                let text = format!("the symbol {} {what}", quoted(name.as_bytes()));
                Err(Error::new(ErrorKind::InvalidArgument, text))
            };
            let Ok(value) = u64::try_from(*value) else { return wrong(&format!("is {value}, below 0")) };
            let number = this.names.number(name.as_bytes())?;
            if this.at(number)?.given.replace(value).is_some() {
                return wrong("is given twice");
            }
        }
        for (number, expression) in definitions {
            this.at(number)?.defined.get_or_insert(expression);
        }
        if let Some(config) = config {
            let longest = (0..this.names.len()).map(|number| this.names.key(number).len()).max();
            this.look_into(config, &mut Vec::new(), longest.unwrap_or(0))?;
        }
        Ok(this)
    }

    fn at(&mut self, number: usize) -> Result<&mut Symbol> {
        if let Some(more) = number.saturating_add(1).checked_sub(self.symbols.len()) {
            memory::reserve(&mut self.symbols, more, "symbols")?;
            self.symbols.resize_with(self.symbols.len().saturating_add(more), Symbol::default);
        }
        self.symbols.get_mut(number).ok_or_else(|| Error::new(ErrorKind::Internal, "a symbol without its number"))
    }

    /// Takes what an object of config.json has for the symbols; `path` leads to it.
    /// (JSON of more than 127 levels has been refused.)
    fn look_into(&mut self, object: &Json, path: &mut Vec<u8>, longest: usize) -> Result<()> {
        let Json::Map(entries) = object else { return Ok(()) };
        let before = path.len();
        for (key, value) in entries {
            if key.contains('.') || before.saturating_add(key.len()) > longest {
                continue;
            }
            path.extend_from_slice(key.as_bytes());
            if let Some(number) = self.names.find(path) {
                self.at(number)?.config = match value {
                    Json::Null => None,
                    Json::Bool(value) => Some(Setting::Integer((*value).into())),
                    Json::Integer(value) if *value > LARGEST.into() => Some(Setting::TooLarge(*value)),
                    Json::Integer(value) => Some(u64::try_from(*value).map_or(Setting::Other, Setting::Integer)),
                    _ => Some(Setting::Other),
                };
            }
            path.push(b'.');
            self.look_into(value, path, longest)?;
            path.truncate(before);
        }
        Ok(())
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// A symbol's name in a message.
    pub(super) fn shown(&self, number: usize) -> String {
        quoted(self.names.key(number))
    }

    pub(super) fn meaning(&self, number: usize) -> Meaning<'_> {
        let Some(symbol) = self.symbols.get(number) else { return Meaning::Unknown };
        match (symbol.given, symbol.config, &symbol.defined) {
            (Some(value), _, _) | (None, Some(Setting::Integer(value)), _) => Meaning::Value(value),
            (None, Some(unfit), _) => Meaning::Unfit(unfit),
            (None, None, Some(expression)) => Meaning::Defined(expression),
            (None, None, None) => Meaning::Unknown,
        }
    }
}
