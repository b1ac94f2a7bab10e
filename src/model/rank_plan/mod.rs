// SPDX-License-Identifier: Apache-2.0
//! Rank plans: which part of each tensor each process of a parallel job holds.
//!
//! Texts become `rule`s made of `pattern`s, `expression`s and `split`s. With the
//! names of a checkpoint (`listing`, by `matching`) they are a plan. A question
//! for the parts of a rank (`deal`) works out `values`, sizes of logical tensors
//! (`stored`), `cut`s and `layout`s of `pieces`, each once for all tensors that
//! are alike. Nothing here reads anything.
#![forbid(unsafe_code)]

mod budget;
mod builtin;
mod cut;
mod deal;
mod expression;
mod fault;
mod layout;
mod listing;
mod matching;
mod name;
mod pattern;
mod pieces;
mod rule;
mod settings;
mod split;
mod stored;
mod text;
mod values;

use std::collections::HashMap;

use foldhash::quality::RandomState;

pub(crate) use builtin::builtin;
pub(crate) use layout::Layout;
pub(crate) use listing::{Listed, Listing};
pub(crate) use settings::Settings;

use crate::error::{escaped, quoted, Error, ErrorKind, Result};
use deal::Deal;
use listing::Names;
use rule::{Rules, LONGEST_TEXT};
use values::Symbols;

/// A place on an axis of a parallel job.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis<'a> {
    pub(crate) name: &'a str,
    pub(crate) rank: i64,
    pub(crate) size: i64,
}

/// What a plan is made with, beside a listing.
#[derive(Default)]
pub(crate) struct Inputs<'a> {
    /// In order; the first rule that matches holds.
    pub(crate) plans: &'a [&'a [u8]],
    pub(crate) config: Settings,
    /// The caller's symbols.
    pub(crate) symbols: &'a [(&'a str, i64)],
    pub(crate) strictness: Strictness,
}

/// Which axes want a rule for every tensor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Strictness {
    /// Those that plans name.
    #[default]
    Plans,
    /// All that a rule is on.
    AllAxes,
}

/// Plans as one, put together with the names of a checkpoint.
pub(crate) struct RankPlan {
    rules: Rules,
    symbols: Symbols,
    names: Names,
    /// Numbers of the axes that rules are on, in the order of their first rules.
    axes: HashMap<Box<str>, usize, RandomState>,
    /// The axis of each rule.
    axis_of: Vec<usize>,
    /// Strict axes, in order.
    strict: Vec<usize>,
}

/// The parts of a rank.
#[derive(Default)]
pub(crate) struct Parts {
    /// The number of a tensor in the listing, and of its layout.
    pub(crate) parts: Vec<(usize, usize)>,
    pub(crate) layouts: Vec<Layout>,
}

impl RankPlan {
    pub(crate) fn new(inputs: Inputs<'_>, listing: &dyn Listing) -> Result<Self> {
        let mut rules = Rules::default();
        for (number, text) in inputs.plans.iter().enumerate() {
            rules.add(number, text)?;
        }
        let mut symbols = Symbols { config: inputs.config, ..Symbols::default() };
        symbols.defined = std::mem::take(&mut rules.symbols);
        for (name, value) in inputs.symbols {
            let wrong = |what: &str| {
                let text = format!("the symbol {} {what}", quoted(name.as_bytes()));
                Err(Error::new(ErrorKind::InvalidArgument, text))
            };
            let Ok(value) = u64::try_from(*value) else { return wrong(&format!("is {value}, below 0")) };
            if symbols.given.insert((*name).to_owned(), value).is_some() {
                return wrong("is given twice");
            }
        }
        let mut axes: HashMap<Box<str>, usize, RandomState> = HashMap::default();
        let mut axis_of = Vec::new();
        for rule in &rules.rules {
            let new = axes.len();
            axis_of.push(*axes.entry(rule.axis.clone()).or_insert(new));
        }
        let mut strict: Vec<usize> = match inputs.strictness {
            Strictness::AllAxes => (0..axes.len()).collect(),
            Strictness::Plans => rules.strict.iter().filter_map(|axis| axes.get(axis).copied()).collect(),
        };
        strict.sort_unstable();
        strict.dedup();
        let names = Names::new(&rules, listing)?;
        Ok(Self { rules, symbols, names, axes, axis_of, strict })
    }

    /// The parts of the rank at this place, by the listing that the plan was made with.
    pub(crate) fn parts(&self, axes: &[Axis<'_>], listing: &dyn Listing) -> Result<Parts> {
        Deal::new(self, listing, axes)?.parts()
    }

    fn axis_name(&self, number: usize) -> &str {
        self.axes.iter().find(|(_, at)| **at == number).map_or("", |(name, _)| name)
    }
}

impl Settings {
    /// Bytes of the longest config.json.
    pub(crate) const LONGEST: usize = LONGEST_TEXT;

    /// What a config.json says.
    pub(crate) fn parse(text: &[u8]) -> Result<Self> {
        if text.len() > LONGEST_TEXT {
            let text = format!("the config has {} bytes, and {LONGEST_TEXT} are the most", text.len());
            return Err(Error::new(ErrorKind::Config, text));
        }
        serde_json::from_slice(text).map_err(|error| {
            let text = format!("the config is not a JSON object: {}", escaped(error.to_string().as_bytes()));
            Error::new(ErrorKind::Config, text)
        })
    }

    /// What kind of model it is of.
    pub(crate) fn model_type(&self) -> Option<&str> {
        self.model_type.as_deref()
    }
}
