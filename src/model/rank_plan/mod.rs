// SPDX-License-Identifier: Apache-2.0
//! Rank plans: which part of each tensor each process of a parallel job holds.
//!
//! A `text` becomes `rule`s made of `pattern`s, `expression`s and `split`s. With the
//! `names` of a checkpoint's `listing`, found by `matching`, they are a plan. A
//! question for the parts of a rank, whose `job` has axes, works out the `values` of
//! `symbols`, the sizes of logical tensors (`stored`), `cut`s and `layout`s of
//! `pieces`, each once for all tensors that are alike (`deal`). Nothing here reads
//! anything.
#![forbid(unsafe_code)]

mod budget;
mod builtin;
mod cut;
mod deal;
mod expression;
mod fault;
mod job;
mod layout;
mod listing;
mod matching;
mod name;
mod names;
mod pattern;
mod pieces;
mod rule;
mod split;
mod stored;
mod symbols;
mod text;
mod values;

pub(crate) use builtin::builtin;
pub(crate) use job::Axis;
pub(crate) use layout::Layout;
pub(crate) use listing::{Listed, Listing};

use crate::base::memory;
use crate::error::Result;
use crate::model::config::Json;
use deal::Deal;
use job::Job;
use names::Names;
use rule::Rules;
use symbols::Symbols;

/// What a plan is made with, beside a listing.
#[derive(Default)]
pub(crate) struct Inputs<'a> {
    /// In order; the first rule that matches holds.
    pub(crate) plans: &'a [&'a [u8]],
    /// The object of config.json, if there is one.
    pub(crate) config: Option<&'a Json>,
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
    /// The axes that rules are on, in the order of their first rules.
    axes: Vec<usize>,
    /// The axis of each rule, by its place in that order.
    axis_of: Vec<usize>,
    /// Strict axes in that order.
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
    pub(crate) fn new(inputs: &Inputs<'_>, listing: &dyn Listing) -> Result<Self> {
        let mut rules = Rules::default();
        for (number, text) in inputs.plans.iter().enumerate() {
            rules.add(number, text)?;
        }
        let names = std::mem::take(&mut rules.reader.symbols);
        let definitions = std::mem::take(&mut rules.definitions);
        let symbols = Symbols::new(names, definitions, inputs.symbols, inputs.config)?;
        let mut places = memory::vec_with_capacity(rules.reader.axes.len(), "axes")?;
        places.resize(rules.reader.axes.len(), None);
        let (mut axes, mut axis_of) = (Vec::new(), Vec::new());
        for rule in &rules.rules {
            let Some(place) = places.get_mut(rule.axis) else { continue };
            axis_of.push(*place.get_or_insert(axes.len()));
            if place.is_some_and(|place| place == axes.len()) {
                axes.push(rule.axis);
            }
        }
        let mut strict: Vec<usize> = match inputs.strictness {
            Strictness::AllAxes => (0..axes.len()).collect(),
            Strictness::Plans => rules.strict.iter().filter_map(|axis| *places.get(*axis)?).collect(),
        };
        strict.sort_unstable();
        strict.dedup();
        let names = Names::new(&rules, listing)?;
        Ok(Self { rules, symbols, names, axes, axis_of, strict })
    }

    /// The parts of the rank at this place, by the listing that the plan was made with.
    pub(crate) fn parts(&self, axes: &[Axis<'_>], listing: &dyn Listing) -> Result<Parts> {
        let job = Job::new(self, axes)?;
        Deal::new(self, listing, &job)?.parts()
    }
}
