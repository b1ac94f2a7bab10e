// SPDX-License-Identifier: Apache-2.0
//! Plans as one, put together with the names of a checkpoint.
#![forbid(unsafe_code)]

use super::layout::PartLayout;
use super::names::Names;
use super::rule::Rules;
use super::symbols::Symbols;
use super::tensor_list::TensorList;
use crate::base::memory;
use crate::error::Result;
use crate::model::json::Json;

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
    pub(super) rules: Rules,
    pub(super) symbols: Symbols,
    pub(super) names: Names,
    /// The axes that rules are on, in the order of their first rules.
    pub(super) axes: Vec<usize>,
    /// The axis of each rule, by its place in that order.
    pub(super) axis_of: Vec<usize>,
    /// Strict axes in that order.
    pub(super) strict: Vec<usize>,
}

/// The parts of a rank.
#[derive(Default)]
pub(crate) struct RankParts {
    /// The number of a tensor in the listing, and of its layout.
    pub(crate) parts: Vec<(usize, usize)>,
    pub(crate) layouts: Vec<PartLayout>,
}

impl RankPlan {
    pub(crate) fn new(inputs: &Inputs<'_>, listing: &dyn TensorList) -> Result<Self> {
        let mut rules = Rules::default();
        for (number, text) in inputs.plans.iter().enumerate() {
            rules.add(number, text)?;
        }
        let names = std::mem::take(&mut rules.reader.identifiers.symbols);
        let definitions = std::mem::take(&mut rules.definitions);
        let symbols = Symbols::new(names, definitions, inputs.symbols, inputs.config)?;
        let mut places = memory::vec_with_capacity(rules.reader.identifiers.axes.len(), "axes")?;
        places.resize(rules.reader.identifiers.axes.len(), None);
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
}
