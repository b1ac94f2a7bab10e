// SPDX-License-Identifier: Apache-2.0
//! The parts of one rank: every check for all ranks, in the order in which
//! errors are told, and what is this rank's.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::rc::Rc;

use foldhash::quality::RandomState;

use super::budget::Budget;
use super::cut::{Given, SizedCut};
use super::expression::LARGEST;
use super::fault::Fault;
use super::layout::{DimCut, Layout, Stored};
use super::listing::{Listed, Listing, Names, Set, NO_NUMBER};
use super::rule::{Action, Cut, Pick, Rule, Rules};
use super::split::{Misfit, Rank};
use super::stored::{label, Shown};
use super::values::Values;
use super::{Axis, Parts, RankPlan};
use crate::base::memory;
use crate::error::{quoted, Error, ErrorKind, Result};
use crate::part::Interval;

type Map<K, V> = HashMap<K, V, RandomState>;

/// A cut of a dimension of some size, with the pieces of this rank.
pub(super) struct Dealt<'p> {
    pub(super) sized: SizedCut<'p>,
    pub(super) pieces: Vec<Interval>,
}

/// A rule with what has been worked out of it.
#[derive(Clone, Copy, Default)]
struct State {
    /// Numbers that a pick's pattern may have: those below this.
    below: Option<u64>,
    /// The checks of its ranks or split have been made.
    checked: bool,
    /// An `on` that names this rank.
    on: bool,
}

/// What axes a set of rules is about, each with its candidates.
struct Groups {
    /// Axis and candidates, by axis; within one in order.
    candidates: Vec<(usize, super::listing::Candidate)>,
    /// The first strict axis that no rule of the set is on.
    missing: Option<usize>,
}

/// One question for one rank's parts.
pub(super) struct Deal<'p> {
    plan: &'p RankPlan,
    listing: &'p dyn Listing,
    rules: &'p Rules,
    names: &'p Names,
    values: Values<'p>,
    /// One for each axis of the plan.
    ranks: Vec<Rank>,
    /// Rules whose `unless` holds: they leave tensors whole.
    off: Vec<bool>,
    shown: Shown,
    states: Vec<State>,
    groups: Vec<Groups>,
    cuts: Map<(usize, u64), Rc<Dealt<'p>>>,
    layouts: Map<Vec<u64>, usize>,
    budget: Budget,
    parts: Parts,
}

impl<'p> Deal<'p> {
    pub(super) fn new(plan: &'p RankPlan, listing: &'p dyn Listing, axes: &'p [Axis<'p>]) -> Result<Self> {
        let mut ranks = vec![Rank { rank: 0, size: 1 }; plan.axes.len()];
        let mut sizes: HashMap<&str, u64> = HashMap::new();
        for axis in axes {
            let shown = quoted(axis.name.as_bytes());
            let Axis { name, rank, size } = *axis;
            let (Ok(rank_of), Ok(size_of)) = (u64::try_from(rank), u64::try_from(size)) else {
                return Err(Fault::Axis.error(format_args!("axis {shown}: rank {rank} of {size} ranks")));
            };
            if rank_of >= size_of {
                let text = format!("axis {shown}: rank {rank} of {size} ranks; ranks are 0 to size - 1");
                return Err(Fault::Axis.error(text));
            }
            if sizes.insert(name, size_of).is_some() {
                return Err(Fault::Axis.error(format_args!("axis {shown} is given twice (rank {rank}, size {size})")));
            }
            let slot = plan.axes.get(name).and_then(|number| ranks.get_mut(*number));
            match slot {
                Some(slot) => *slot = Rank { rank: rank_of, size: size_of },
                None if size_of > 1 => {
                    let text = format!("axis {shown} has {size} ranks (rank {rank} is asked), and no rule is on it");
                    return Err(Fault::Axis.error(text));
                }
                None => {}
            }
        }
        let many = |axis: &str| sizes.get(axis).is_some_and(|size| *size > 1);
        let off = plan.rules.rules.iter().map(|rule| rule.unless.as_deref().is_some_and(many)).collect();
        let mut values = Values::new(&plan.symbols, sizes);
        let shown = Shown::new(&plan.rules, &plan.names, listing, &mut values)?;
        Ok(Self {
            plan,
            listing,
            rules: &plan.rules,
            names: &plan.names,
            values,
            ranks,
            off,
            shown,
            states: vec![State::default(); plan.rules.rules.len()],
            groups: Vec::new(),
            cuts: Map::default(),
            layouts: Map::default(),
            budget: Budget::new(),
            parts: Parts::default(),
        })
    }

    pub(super) fn parts(mut self) -> Result<Parts> {
        self.check_rules()?;
        let sets = &self.names.sets;
        self.groups = memory::vec_with_capacity(sets.len(), "sets of rules")?;
        for set in sets {
            let groups = self.groups_of(set);
            self.groups.push(groups);
        }
        memory::reserve(&mut self.parts.parts, self.names.order.len(), "parts")?;
        let mut room = Room::default();
        for place in 0..self.names.order.len() {
            self.tensor(place, &mut room)?;
        }
        memory::shrink(&mut self.parts.parts);
        Ok(self.parts)
    }

    /// Whether a rule leaves tensors whole, whatever it does else.
    fn is_off(&self, rule: usize) -> bool {
        self.off.get(rule).copied().unwrap_or(false)
    }

    /// Rules that are considered must match something.
    fn check_rules(&mut self) -> Result<()> {
        for (number, rule) in self.rules.rules.iter().enumerate() {
            let Some(touched) = self.names.touched.get(number).copied() else { continue };
            if touched.absent {
                continue;
            }
            let used = match &rule.action {
                Action::Pick(pick) if !self.is_off(number) => match (&pick.of, touched.numbers) {
                    (_, None) => false,
                    (None, Some(_)) => true,
                    (Some(of), Some((least, _))) => {
                        match self.values.get(of, "of", &|| rule.place.to_string()) {
                            Ok(below) => {
                                if let Some(state) = self.states.get_mut(number) {
                                    state.below = Some(below);
                                }
                                least < below
                            }
                            // It is not needed where other rules take all of its tensors.
                            Err(error) if self.applies(number) => return Err(error),
                            Err(_) => true,
                        }
                    }
                },
                _ => touched.by_pattern,
            };
            if !used && !rule.optional {
                let first = rule.patterns.first().map(|pattern| quoted(pattern.to_string().as_bytes()));
                let more = if rule.patterns.len() > 1 { " (and others)" } else { "" };
                let text = format!("no tensor matches {}{more}", first.unwrap_or_default());
                return Err(Fault::RuleUnused.at(&rule.place, text));
            }
        }
        Ok(())
    }

    /// Whether a rule is the first on its axis for any tensor.
    fn applies(&self, rule: usize) -> bool {
        let axis = self.rules.rules.get(rule).map(|rule| &rule.axis);
        (0..self.names.set_of.len()).any(|logical| {
            let set = self.names.set(logical).map_or(&[][..], |(_, set)| set.candidates.as_slice());
            let on_axis = set.iter().filter(|one| self.rules.rules.get(one.rule).map(|rule| &rule.axis) == axis);
            on_axis.copied().find(|one| self.is_match(logical, *one)).is_some_and(|one| one.rule == rule)
        })
    }

    /// Whether a candidate, which matches by its pattern, matches.
    fn is_match(&self, logical: usize, candidate: super::listing::Candidate) -> bool {
        let absent = self.names.touched.get(candidate.rule).is_some_and(|touched| touched.absent);
        let below = self.states.get(candidate.rule).and_then(|state| state.below).unwrap_or(NO_NUMBER);
        !absent
            && (self.is_off(candidate.rule)
                || candidate.slot.is_none_or(|slot| self.names.number(logical, slot) < below))
    }

    fn groups_of(&self, set: &Set) -> Groups {
        let considered =
            |one: &&super::listing::Candidate| self.names.touched.get(one.rule).is_some_and(|touched| !touched.absent);
        let axis = |one: &super::listing::Candidate| self.plan.axis_of.get(one.rule).copied().unwrap_or(0);
        let mut candidates: Vec<_> = set.candidates.iter().filter(considered).map(|one| (axis(one), *one)).collect();
        candidates.sort_by_key(|(axis, _)| *axis);
        let mut of_set = candidates.iter().map(|(axis, _)| *axis).peekable();
        let missing = self.plan.strict.iter().copied().find(|strict| {
            while of_set.peek().is_some_and(|axis| axis < strict) {
                of_set.next();
            }
            of_set.peek() != Some(strict)
        });
        Groups { candidates, missing }
    }

    fn tensor(&mut self, place: usize, room: &mut Room<'p>) -> Result<()> {
        let names = self.names;
        let Some(number) = names.order.get(place).copied() else { return Ok(()) };
        let logical = names.logical_of(place);
        let Some(groups) = names.set_of.get(logical).and_then(|set| self.groups.get(*set)) else { return Ok(()) };

        room.chosen.clear();
        let mut unmatched = groups.missing;
        for (axis, candidate) in &groups.candidates {
            let taken = room.chosen.last().is_some_and(|(taken, rule)| taken == axis && rule.is_some());
            if taken {
                continue;
            }
            let found = self.is_match(logical, *candidate).then_some(candidate.rule);
            match room.chosen.last_mut() {
                Some((last, rule)) if last == axis => *rule = found,
                _ => room.chosen.push((*axis, found)),
            }
        }
        for (axis, _) in room.chosen.iter().filter(|(_, rule)| rule.is_none()) {
            if self.plan.strict.binary_search(axis).is_ok() && unmatched.is_none_or(|first| *axis < first) {
                unmatched = Some(*axis);
            }
        }
        let rules = &self.rules.rules;
        let nowhere = |number: &usize| {
            let rule = rules.get(*number)?;
            matches!(&rule.action, Action::On(ranks) if ranks.is_empty() && !self.is_off(*number)).then_some(())
        };
        if room.chosen.iter().filter_map(|(_, rule)| rule.as_ref()).any(|rule| nowhere(rule).is_some()) {
            return Ok(());
        }

        let tensor = self.listing.tensor(number);
        room.cuts.clear();
        let mut here = true;
        let chosen = std::mem::take(&mut room.chosen);
        for (axis, rule) in &chosen {
            if unmatched.is_some_and(|first| first < *axis) {
                break;
            }
            let Some(rule) = *rule else { continue };
            here &= self.apply(place, tensor, *axis, rule, &mut room.cuts)?;
        }
        room.chosen = chosen;
        if let Some(axis) = unmatched {
            let axis = self.plan.axis_name(axis);
            let tensor = label(names, self.listing, place);
            return Err(Fault::Unmatched.error(format_args!("{tensor}: no rule on the axis {axis:?}, which is strict")));
        }
        let layout = self.layout(place, tensor, room)?;
        if here {
            self.parts.parts.push((number, layout));
        }
        Ok(())
    }

    /// Applies a rule to a tensor; whether it is on this rank.
    fn apply(
        &mut self,
        place: usize,
        tensor: Listed<'_>,
        axis: usize,
        number: usize,
        cuts: &mut Vec<DimCut<'p>>,
    ) -> Result<bool> {
        let Some(rule) = self.rules.rules.get(number) else { return Ok(true) };
        let rank = self.ranks.get(axis).copied().unwrap_or(Rank { rank: 0, size: 1 });
        if self.is_off(number) {
            return Ok(true);
        }
        match &rule.action {
            Action::Whole => Ok(true),
            Action::On(ranks) => self.on(place, rule, number, ranks, rank),
            Action::Pick(pick) => self.pick(place, rule, number, pick, rank),
            Action::Cut(cut) => {
                let dealt = self.cut(place, tensor, rule, number, cut, rank, cuts)?;
                cuts.push(DimCut { dim: cut.dim, rule: number, axis: &rule.axis, ranks: rank.size, dealt });
                Ok(true)
            }
        }
    }

    fn on(&mut self, place: usize, rule: &Rule, number: usize, list: &[i64], rank: Rank) -> Result<bool> {
        let checked = self.states.get(number).copied().unwrap_or_default();
        if checked.checked {
            return Ok(checked.on);
        }
        let size = i128::from(rank.size);
        let mut on = false;
        for listed in list.iter().map(|listed| i128::from(*listed)) {
            if listed >= size || listed < size.saturating_neg() {
                let (axis, tensor) = (&rule.axis, label(self.names, self.listing, place));
                let text = format!("{tensor}: rank {listed} on the axis {axis:?}, which has {size} ranks");
                return Err(Fault::Axis.at(&rule.place, text));
            }
            let from_front = if listed < 0 { listed.saturating_add(size) } else { listed };
            on |= from_front == i128::from(rank.rank);
        }
        if let Some(state) = self.states.get_mut(number) {
            (state.checked, state.on) = (true, on);
        }
        Ok(on)
    }

    fn pick(&mut self, place: usize, rule: &Rule, number: usize, pick: &Pick, rank: Rank) -> Result<bool> {
        let state = self.states.get(number).copied().unwrap_or_default();
        let largest = self.names.touched.get(number).and_then(|touched| Some(touched.numbers?.1));
        let units = state.below.or(largest.map(|largest| largest.saturating_add(1))).unwrap_or(0);
        if !state.checked {
            if let Err(Misfit(fault, text)) = pick.split.check(units, rank.size) {
                let tensor = label(self.names, self.listing, place);
                return Err(fault.at(&rule.place, format_args!("{tensor}: {text}, on the axis {:?}", rule.axis)));
            }
            if let Some(state) = self.states.get_mut(number) {
                state.checked = true;
            }
        }
        let logical = self.names.logical_of(place);
        let (_, set) = self.names.set(logical).ok_or_else(lost)?;
        let below = state.below.unwrap_or(NO_NUMBER);
        let numbers = set.candidates.iter().filter(|one| one.rule == number).filter_map(|one| one.slot);
        let mut numbers = numbers.map(|slot| self.names.number(logical, slot));
        let unit = numbers.find(|number| *number < below).ok_or_else(lost)?;
        Ok(pick.split.has(rank, units, unit))
    }

    #[allow(clippy::too_many_arguments, reason = "what a message about a cut names")]
    fn cut(
        &mut self,
        place: usize,
        tensor: Listed<'_>,
        rule: &'p Rule,
        number: usize,
        cut: &'p Cut,
        rank: Rank,
        others: &[DimCut<'p>],
    ) -> Result<Rc<Dealt<'p>>> {
        let (names, listing, dim) = (self.names, self.listing, cut.dim);
        let Some(size) = self.shown.size(place, dim, names, tensor.shape) else {
            let tensor_is = label(names, listing, place);
            let rank = tensor.shape.len();
            let text = format!("{tensor_is}: the dimension {dim} is not there or of no known size (it has {rank})");
            return Err(Fault::Dimension.at(&rule.place, text));
        };
        if let Some(other) = others.iter().find(|other| other.dim == dim) {
            let tensor = label(names, listing, place);
            let (one, other) = (other.axis, &rule.axis);
            let text = format!("{tensor}: the axes {one:?} and {other:?} both cut dimension {dim}");
            return Err(Fault::CutTwice.at(&rule.place, text));
        }
        if let Some(known) = self.cuts.get(&(number, size)) {
            return Ok(Rc::clone(known));
        }
        let place = &|| {
            let tensor = label(names, listing, place);
            format!("{}: {tensor}, dimension {dim} cut by the axis {:?}", rule.place, rule.axis)
        };
        let sized = SizedCut::new(cut, &Given { size, ranks: rank.size, place }, &mut self.values)?;
        let pieces = sized.pieces(rank, &mut self.budget)?;
        let dealt = Rc::new(Dealt { sized, pieces });
        self.cuts.insert((number, size), Rc::clone(&dealt));
        Ok(dealt)
    }

    /// The number of the layout of a tensor that is cut so.
    fn layout(&mut self, place: usize, tensor: Listed<'_>, room: &mut Room<'p>) -> Result<usize> {
        let entry = self.names.entries.get(place).copied().flatten();
        room.key.clear();
        room.key.extend([entry.map_or(0, |entry| entry.saturating_add(1)) as u64, u64::from(tensor.bits)]);
        room.key.extend([tensor.shape.len() as u64, tensor.step.len() as u64]);
        // Of unknown elements only the file says how many bytes they take.
        room.key.push(if tensor.bits == 0 { tensor.size } else { 0 });
        let signed = tensor.shape.iter().chain(tensor.step).map(|size| u64::try_from(*size).unwrap_or(0));
        room.key.extend(signed);
        for cut in &room.cuts {
            room.key.push(cut.rule as u64);
            room.key.push(self.shown.size(place, cut.dim, self.names, tensor.shape).unwrap_or(0));
        }
        if let Some(known) = self.layouts.get(&room.key) {
            return Ok(*known);
        }
        let (names, listing, shown) = (self.names, self.listing, &self.shown);
        let shows = |dim: usize| shown.shows(place, dim, names);
        let wrong = |fault: Fault, text: String| fault.error(format_args!("{}: {text}", label(names, listing, place)));
        let stored = Stored { tensor, shows: &shows, wrong: &wrong };
        let layout = Layout::new(&stored, &room.cuts, &mut self.budget)?;
        let number = self.parts.layouts.len();
        memory::reserve(&mut self.parts.layouts, 1, "layouts of parts")?;
        self.parts.layouts.push(layout);
        self.layouts.insert(room.key.clone(), number);
        Ok(number)
    }
}

/// Room that is used for one tensor after the other.
#[derive(Default)]
struct Room<'p> {
    /// The rule on each axis that has candidates.
    chosen: Vec<(usize, Option<usize>)>,
    cuts: Vec<DimCut<'p>>,
    key: Vec<u64>,
}

fn lost() -> Error {
    Error::new(ErrorKind::Internal, "a rank plan has lost a name's number")
}

/// No result has more bytes.
pub(super) const MOST_BYTES: u128 = LARGEST as u128;
