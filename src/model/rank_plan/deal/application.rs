// SPDX-License-Identifier: Apache-2.0
//! The rules that apply to a tensor: checked for all ranks, and made a layout.
#![forbid(unsafe_code)]

use std::rc::Rc;

use super::{lost, Choice, Deal, Own, Verdict};
use crate::base::memory;
use crate::error::{quoted, Result};
use crate::model::rank_plan::cut::{CutContext, SharedCut, SizedCut};
use crate::model::rank_plan::fault::Fault;
use crate::model::rank_plan::layout::{DimCut, PartLayout, Stored};
use crate::model::rank_plan::names::Family;
use crate::model::rank_plan::rule::{Action, Cut, Pick, Rule};
use crate::model::rank_plan::split::{Misfit, Rank};

impl<'p> Deal<'p> {
    /// Applies rules to a tensor, with every check.
    pub(super) fn apply(&mut self, place: usize, family: usize, choices: &[Choice]) -> Result<Verdict> {
        let family = self.subject.names.families.get(family).ok_or_else(lost)?;
        let rules = &self.subject.rules.rules;
        let is_nowhere = |rule: usize| match rules.get(rule).map(|rule| &rule.action) {
            Some(Action::On(ranks)) => ranks.is_empty() && !self.is_off(rule),
            _ => false,
        };
        if choices.iter().filter_map(|choice| choice.rule).any(is_nowhere) {
            return Ok(Verdict::Nowhere);
        }
        let mut unmatched = self.on_axes.get(family.set).and_then(|on_axes| on_axes.missing);
        for Choice { axis, .. } in choices.iter().filter(|choice| choice.rule.is_none()) {
            if self.plan.strict.binary_search(axis).is_ok() && unmatched.is_none_or(|first| *axis < first) {
                unmatched = Some(*axis);
            }
        }
        let mut cuts = Vec::new();
        for choice in choices.iter().take_while(|choice| unmatched.is_none_or(|first| choice.axis < first)) {
            let Some(number) = choice.rule.filter(|rule| !self.is_off(*rule)) else { continue };
            let rule = self.rule(number)?;
            let rank = self.job.rank(rule.axis);
            match &rule.action {
                Action::Whole => {}
                Action::On(ranks) => self.check_on(place, rule, number, ranks, rank)?,
                Action::Pick(pick) => self.check_pick(place, rule, number, pick, rank)?,
                Action::Cut(cut) => {
                    let shared = self.cut(place, family, rule, number, cut, &cuts)?;
                    cuts.push(DimCut { dim: cut.dim, axis: rule.axis, ranks: rank.size, shared });
                }
            }
        }
        if let Some(axis) = unmatched {
            let axis = self.axis_name(self.plan.axes.get(axis).copied().unwrap_or(0));
            let tensor = self.subject.label(place);
            return Err(Fault::Unmatched.error(&format!("{tensor}: no rule on the axis {axis}, which is strict")));
        }
        self.layout(place, family, &cuts).map(Verdict::Layout)
    }

    fn check_on(&mut self, place: usize, rule: &Rule, number: usize, list: &[i64], rank: Rank) -> Result<()> {
        if self.state(number)?.own.is_some() {
            return Ok(());
        }
        let size = i128::from(rank.size);
        let mut is_on = false;
        for listed in list.iter().map(|listed| i128::from(*listed)) {
            if listed >= size || listed < size.saturating_neg() {
                let (axis, tensor) = (self.axis_name(rule.axis), self.subject.label(place));
                let text = format!("{tensor}: rank {listed} on the axis {axis}, which has {size} ranks");
                return Err(Fault::Axis.at(&rule.place, &text));
            }
            let from_front = if listed < 0 { listed.saturating_add(size) } else { listed };
            is_on |= from_front == i128::from(rank.rank);
        }
        self.state(number)?.own = Some(Own::All(is_on));
        Ok(())
    }

    fn check_pick(&mut self, place: usize, rule: &Rule, number: usize, pick: &Pick, rank: Rank) -> Result<()> {
        let state = self.states.get(number).ok_or_else(lost)?;
        if state.own.is_some() {
            return Ok(());
        }
        let largest = self.subject.names.touched.get(number).and_then(|touched| Some(touched.numbers?.1));
        let units = state.below.or(largest.map(|largest| largest.saturating_add(1))).unwrap_or(0);
        if let Err(Misfit(fault, text)) = pick.split.check(units, rank.size) {
            let (axis, tensor) = (self.axis_name(rule.axis), self.subject.label(place));
            return Err(fault.at(&rule.place, &format!("{tensor}: {text}, on the axis {axis}")));
        }
        self.state(number)?.own = Some(pick.split.run(rank, units).map_or(Own::Units(units), Own::Run));
        Ok(())
    }

    fn cut(
        &mut self,
        place: usize,
        family: &Family,
        rule: &'p Rule,
        number: usize,
        cut: &'p Cut,
        others: &[DimCut<'p>],
    ) -> Result<Rc<SharedCut<'p>>> {
        let (subject, dim) = (self.subject, cut.dim);
        let shape = subject.tensor(place).shape;
        let Some(size) = self.shown.size(family.bundle, dim, shape) else {
            let (tensor, rank) = (subject.label(place), shape.len());
            let text =
                format!("{tensor}: dimension {dim} does not exist or has no known size (there are {rank} dimensions)");
            return Err(Fault::Dimension.at(&rule.place, &text));
        };
        let axis = || self.axis_name(rule.axis);
        if let Some(other) = others.iter().find(|other| other.dim == dim) {
            let (one, other, tensor) = (self.axis_name(other.axis), axis(), subject.label(place));
            let text = format!("{tensor}: the axes {one} and {other} both cut dimension {dim}");
            return Err(Fault::CutTwice.at(&rule.place, &text));
        }
        let key = [(number as u64).to_le_bytes(), size.to_le_bytes()].concat();
        if let Some(known) = self.cut_keys.find(&key).and_then(|known| self.cuts.get(known)) {
            return Ok(Rc::clone(known));
        }
        let rank = self.job.rank(rule.axis);
        let axis = axis();
        let place = &|| format!("{}: {}, dimension {dim} cut by the axis {axis}", rule.place, subject.label(place));
        let sized = SizedCut::new(cut, &CutContext { size, ranks: rank.size, place }, &mut self.values)?;
        let pieces = sized.pieces(rank, &mut self.budget)?;
        let shared = Rc::new(SharedCut { sized, pieces });
        self.cut_keys.number(&key)?;
        memory::reserve(&mut self.cuts, 1, "cuts")?;
        self.cuts.push(Rc::clone(&shared));
        Ok(shared)
    }

    /// The number of the layout of a tensor that is cut so.
    fn layout(&mut self, place: usize, family: &Family, cuts: &[DimCut<'p>]) -> Result<usize> {
        let (subject, shown) = (self.subject, &self.shown);
        let entry = subject.names.kinds.get(family.kind).and_then(|kind| kind.entry);
        let shows = |dim: usize| shown.shows(entry, dim);
        let wrong = |fault: Fault, text: String| fault.error(&format!("{}: {text}", subject.label(place)));
        let axis_name = |axis: usize| quoted(subject.rules.reader.identifiers.axes.key(axis));
        let stored = Stored { tensor: subject.tensor(place), shows: &shows, axis_name: &axis_name, wrong: &wrong };
        let layout = PartLayout::new(&stored, cuts, &mut self.budget)?;
        memory::reserve(&mut self.parts.layouts, 1, "layouts of parts")?;
        self.parts.layouts.push(layout);
        Ok(self.parts.layouts.len().saturating_sub(1))
    }
}
