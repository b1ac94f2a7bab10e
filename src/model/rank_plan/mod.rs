// SPDX-License-Identifier: Apache-2.0
//! Rank plans: which part of each tensor each process of a parallel job holds.
//!
//! The `reader` makes `rule`s of a text, with `pattern`s, `expression`s and `split`s.
//! With the `names` of a checkpoint's tensors (`tensor_list`), for which `matching`
//! finds the `rule_set`s, they are a `plan`. A question for the parts of a rank, whose
//! `job` has axes, works out expressions (`evaluator`) and what `symbols` mean, the
//! sizes of logical tensors (`stored`), `cut`s, and `layout`s of `intervals`, each once
//! for all tensors that are alike (`deal`). Nothing here reads anything.
#![forbid(unsafe_code)]

mod budget;
mod builtin;
mod cut;
mod deal;
mod evaluator;
mod expression;
mod fault;
mod identifiers;
mod intervals;
mod job;
mod layout;
mod matching;
mod names;
mod pattern;
mod plan;
mod reader;
mod rule;
mod rule_set;
mod split;
mod stored;
mod symbols;
mod tensor_list;

pub(crate) use builtin::{builtin, families};
pub(crate) use job::Axis;
pub(crate) use plan::{Inputs, RankParts, RankPlan, Strictness};
pub(crate) use tensor_list::{ListedTensor, TensorList};

use crate::error::Result;
use deal::Deal;
use job::Job;

impl RankPlan {
    /// The parts of the rank at this place, by the listing that the plan was made with.
    pub(crate) fn parts(&self, axes: &[Axis<'_>], listing: &dyn TensorList) -> Result<RankParts> {
        let job = Job::new(self, axes)?;
        Deal::new(self, listing, &job)?.parts()
    }
}
