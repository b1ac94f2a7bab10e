// SPDX-License-Identifier: Apache-2.0
//! The axes of a parallel job, and one place on them.
#![forbid(unsafe_code)]

use super::fault::Fault;
use super::plan::RankPlan;
use super::split::Rank;
use crate::base::memory;
use crate::base::numbering::Numbering;
use crate::error::{quoted, Result};

/// An axis of a parallel job and a place on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis<'a> {
    pub(crate) name: &'a str,
    pub(crate) rank: i64,
    pub(crate) size: i64,
}

/// A place on every axis that plans name, by the axes' numbers.
pub(super) struct Job {
    pub(super) ranks: Vec<u64>,
    pub(super) sizes: Vec<u64>,
}

impl Job {
    pub(super) fn new(plan: &RankPlan, axes: &[Axis<'_>]) -> Result<Self> {
        let names = &plan.rules.reader.identifiers.axes;
        let filled = |value: u64| {
            let mut values = memory::vec_with_capacity(names.len(), "axes")?;
            values.resize(names.len(), value);
            Ok::<Vec<u64>, crate::Error>(values)
        };
        let mut this = Self { ranks: filled(0)?, sizes: filled(1)? };
        let mut seen = Numbering::default();
        for (at, Axis { name, rank, size }) in axes.iter().copied().enumerate() {
            let wrong = |what: &str| {
                let shown = quoted(name.as_bytes());
                Err(Fault::Axis.error(&format!("axis {shown}: {what} (rank {rank} of {size} ranks)")))
            };
            let (Ok(own), Ok(all)) = (u64::try_from(rank), u64::try_from(size)) else {
                return wrong("ranks are 0 to size - 1");
            };
            if own >= all {
                return wrong("ranks are 0 to size - 1");
            }
            if seen.number(name.as_bytes())? != at {
                return wrong("it is given twice");
            }
            let number = names.find(name.as_bytes());
            if all > 1 && number.is_none_or(|number| !plan.axes.contains(&number)) {
                return wrong("no rule is on it");
            }
            let Some(number) = number else { continue };
            if let (Some(slot), Some(count)) = (this.ranks.get_mut(number), this.sizes.get_mut(number)) {
                (*slot, *count) = (own, all);
            }
        }
        Ok(this)
    }

    /// The place on an axis.
    pub(super) fn rank(&self, axis: usize) -> Rank {
        let rank = self.ranks.get(axis).copied().unwrap_or(0);
        Rank { rank, size: self.size(axis) }
    }

    /// How many ranks an axis has.
    pub(super) fn size(&self, axis: usize) -> u64 {
        self.sizes.get(axis).copied().unwrap_or(1)
    }
}
