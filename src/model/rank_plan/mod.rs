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
mod plan;
mod rule;
mod split;
mod stored;
mod symbols;
mod text;
mod values;

pub(crate) use builtin::{builtin, families};
pub(crate) use job::Axis;
pub(crate) use listing::{ListedTensor, TensorList};
pub(crate) use plan::{Inputs, RankParts, RankPlan, Strictness};

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
