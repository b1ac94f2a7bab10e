// SPDX-License-Identifier: Apache-2.0
//! The parts of one rank: which rules apply to each tensor, and what is this rank's.
//! Errors are reported in the order of the checks here.
#![forbid(unsafe_code)]

mod application;

use std::ops::Range;
use std::rc::Rc;

use crate::base::numbering::Numbering;
use crate::base::{memory, sort};
use crate::error::{quoted, Error, ErrorKind, Result};
use crate::model::rank_plan::budget::Budget;
use crate::model::rank_plan::cut::SharedCut;
use crate::model::rank_plan::evaluator::Evaluator;
use crate::model::rank_plan::fault::Fault;
use crate::model::rank_plan::job::Job;
use crate::model::rank_plan::names::{NamedTensor, NO_NUMBER};
use crate::model::rank_plan::plan::{RankParts, RankPlan};
use crate::model::rank_plan::rule::{Action, Rule};
use crate::model::rank_plan::rule_set::{Candidate, RuleSet};
use crate::model::rank_plan::stored::{LogicalSizes, PlannedTensors};
use crate::model::rank_plan::tensor_list::TensorList;

/// A rule with what has been worked out of it.
#[derive(Clone, Default)]
struct RuleState {
    /// Numbers that a pick's pattern may have: those below this.
    below: Option<u64>,
    /// What this rank has of an `on` or a pick, once its ranks or its split have been checked.
    own: Option<Own>,
}

#[derive(Clone)]
enum Own {
    /// All of it, or nothing.
    All(bool),
    /// The numbers in a range.
    Run(Range<u64>),
    /// What the split says of that many units.
    Units(u64),
}

/// What axes a set of rules is about, each with its candidates.
struct AxisCandidates {
    /// Axis and candidates, by axis; within one in order.
    candidates: Vec<(usize, Candidate)>,
    /// The first strict axis that no rule of the set is on.
    missing: Option<usize>,
    /// Numbers in names make no difference.
    is_constant: bool,
}

/// Of an axis that has candidates, the rule that applies, and the number that it goes by.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Choice {
    axis: usize,
    rule: Option<usize>,
    number: u64,
}

/// What the last tensor of a family has come to.
#[derive(Clone, Default)]
struct LastVerdict {
    choices: Vec<Choice>,
    verdict: Option<Verdict>,
}

#[derive(Clone, Copy)]
enum Verdict {
    /// On no rank.
    Nowhere,
    /// Of this layout, on the ranks that have it.
    Layout(usize),
}

/// One question for one rank's parts.
pub(super) struct Deal<'p> {
    plan: &'p RankPlan,
    subject: PlannedTensors<'p>,
    job: &'p Job,
    values: Evaluator<'p>,
    /// Rules whose `unless` holds: they leave tensors whole.
    off: Vec<bool>,
    shown: LogicalSizes,
    states: Vec<RuleState>,
    on_axes: Vec<AxisCandidates>,
    /// One for each family.
    known: Vec<LastVerdict>,
    /// A family and the rules that apply to it, by number, and what that comes to.
    verdict_keys: Numbering,
    verdicts: Vec<Verdict>,
    /// A rule and a size, by number.
    cut_keys: Numbering,
    cuts: Vec<Rc<SharedCut<'p>>>,
    budget: Budget,
    parts: RankParts,
}

impl<'p> Deal<'p> {
    pub(super) fn new(plan: &'p RankPlan, listing: &'p dyn TensorList, job: &'p Job) -> Result<Self> {
        let rules = &plan.rules;
        let subject = PlannedTensors { rules, names: &plan.names, listing };
        let mut values = Evaluator::new(&plan.symbols, &job.sizes, rules.reader.expressions)?;
        let mut budget = Budget::new();
        let shown = LogicalSizes::new(subject, &mut values, &mut budget)?;
        let mut known = memory::vec_with_capacity(plan.names.families.len(), "families of tensors")?;
        known.resize_with(plan.names.families.len(), LastVerdict::default);
        Ok(Self {
            plan,
            subject,
            job,
            values,
            off: rules.rules.iter().map(|rule| rule.unless.is_some_and(|axis| job.size(axis) > 1)).collect(),
            shown,
            states: vec![RuleState::default(); rules.rules.len()],
            on_axes: Vec::new(),
            known,
            verdict_keys: Numbering::default(),
            verdicts: Vec::new(),
            cut_keys: Numbering::default(),
            cuts: Vec::new(),
            budget,
            parts: RankParts::default(),
        })
    }

    pub(super) fn parts(mut self) -> Result<RankParts> {
        self.check_rules()?;
        let names = self.subject.names;
        self.on_axes = memory::vec_with_capacity(names.sets.len(), "sets of rules")?;
        for set in &names.sets {
            let on_axes = self.candidates_of(set)?;
            self.on_axes.push(on_axes);
        }
        memory::reserve(&mut self.parts.parts, names.tensors.len(), "parts")?;
        let mut choices = Vec::new();
        for (place, tensor) in names.tensors.iter().enumerate() {
            if let Some(layout) = self.tensor(place, *tensor, &mut choices)? {
                self.parts.parts.push((tensor.number, layout));
            }
        }
        memory::shrink(&mut self.parts.parts);
        Ok(self.parts)
    }

    fn rule(&self, number: usize) -> Result<&'p Rule> {
        self.subject.rules.rules.get(number).ok_or_else(lost)
    }

    fn axis_name(&self, axis: usize) -> String {
        quoted(self.subject.rules.reader.identifiers.axes.key(axis))
    }

    /// Whether a rule leaves tensors whole, whatever it does else.
    fn is_off(&self, rule: usize) -> bool {
        self.off.get(rule).copied().unwrap_or(false)
    }

    /// Rules that are considered must match something.
    fn check_rules(&mut self) -> Result<()> {
        for (number, rule) in self.subject.rules.rules.iter().enumerate() {
            let Some(touched) = self.subject.names.touched.get(number).copied() else { continue };
            if touched.absent {
                continue;
            }
            let is_used = match &rule.action {
                Action::Pick(pick) if !self.is_off(number) => match (&pick.of, touched.numbers) {
                    (_, None) => false,
                    (None, Some(_)) => true,
                    (Some(of), Some((least, _))) => match self.values.get(of, "of", &|| rule.place.to_string()) {
                        Ok(below) => {
                            self.state(number)?.below = Some(below);
                            least < below
                        }
                        // It is not needed where other rules take all of its tensors.
                        Err(error) if self.applies(number)? => return Err(error),
                        Err(_) => true,
                    },
                },
                _ => touched.by_pattern,
            };
            if !is_used && !rule.optional {
                let first = rule.patterns.first().map(|pattern| quoted(pattern.to_string().as_bytes()));
                let more = if rule.patterns.len() > 1 { " (and others)" } else { "" };
                let text = format!("no tensor matches {}{more}", first.unwrap_or_default());
                return Err(Fault::RuleUnused.at(&rule.place, &text));
            }
        }
        Ok(())
    }

    fn state(&mut self, rule: usize) -> Result<&mut RuleState> {
        self.states.get_mut(rule).ok_or_else(lost)
    }

    /// Whether a rule is the first on its axis for any tensor.
    fn applies(&mut self, rule: usize) -> Result<bool> {
        let axis = self.rule(rule)?.axis;
        let rules = &self.subject.rules.rules;
        for (logical, set) in self.subject.names.logical_sets() {
            self.budget.spend(1)?;
            let on_axis = set.candidates.iter().filter(|one| rules.get(one.rule).is_some_and(|rule| rule.axis == axis));
            let first = on_axis.copied().find(|one| self.number(logical, *one).is_some());
            if first.is_some_and(|one| one.rule == rule) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The number that a candidate, which matches by its pattern, goes by, if it matches.
    fn number(&self, logical: u32, candidate: Candidate) -> Option<u64> {
        if self.subject.names.touched.get(candidate.rule).is_none_or(|touched| touched.absent) {
            return None;
        }
        match candidate.slot {
            Some(slot) if !self.is_off(candidate.rule) => {
                let below = self.states.get(candidate.rule).and_then(|state| state.below).unwrap_or(NO_NUMBER);
                Some(self.subject.names.number(logical, slot)).filter(|number| *number < below)
            }
            _ => Some(0),
        }
    }

    fn candidates_of(&self, set: &RuleSet) -> Result<AxisCandidates> {
        let names = self.subject.names;
        let mut rows = memory::vec_with_capacity(set.candidates.len(), "sets of rules")?;
        for (at, candidate) in set.candidates.iter().enumerate() {
            if names.touched.get(candidate.rule).is_some_and(|touched| !touched.absent) {
                let axis = self.plan.axis_of.get(candidate.rule).copied().unwrap_or(0);
                rows.push([axis as u64, at as u64, 0]);
            }
        }
        sort::rows(&mut rows);
        let mut candidates = memory::vec_with_capacity(rows.len(), "sets of rules")?;
        let mut is_constant = true;
        for [axis, at, _] in &rows {
            let candidate = usize::try_from(*at).ok().and_then(|at| set.candidates.get(at)).ok_or_else(lost)?;
            is_constant &= candidate.slot.is_none() || self.is_off(candidate.rule);
            candidates.push((usize::try_from(*axis).unwrap_or(0), *candidate));
        }
        let mut of_set = candidates.iter().map(|(axis, _)| *axis).peekable();
        let missing = self.plan.strict.iter().copied().find(|strict| {
            while of_set.peek().is_some_and(|axis| axis < strict) {
                of_set.next();
            }
            of_set.peek() != Some(strict)
        });
        Ok(AxisCandidates { candidates, missing, is_constant })
    }

    /// The layout of this rank's part of a tensor, if it has one.
    fn tensor(&mut self, place: usize, tensor: NamedTensor, choices: &mut Vec<Choice>) -> Result<Option<usize>> {
        let number = tensor.family as usize;
        let family = self.subject.names.families.get(number).ok_or_else(lost)?;
        let on_axes = self.on_axes.get(family.set).ok_or_else(lost)?;
        let known = self.known.get(number).ok_or_else(lost)?;
        let verdict = match known.verdict {
            Some(verdict) if on_axes.is_constant => {
                choices.clone_from(&known.choices);
                verdict
            }
            last => {
                self.choose(on_axes, tensor.logical, choices)?;
                let is_alike = |(one, other): (&Choice, &Choice)| one.rule == other.rule;
                let is_same = choices.len() == known.choices.len() && choices.iter().zip(&known.choices).all(is_alike);
                match last.filter(|_| is_same) {
                    Some(verdict) => verdict,
                    None => self.verdict(place, number, choices)?,
                }
            }
        };
        let Verdict::Layout(layout) = verdict else { return Ok(None) };
        for Choice { rule, number, .. } in choices.iter() {
            let Some(rule) = *rule else { continue };
            let is_here = match &self.states.get(rule).ok_or_else(lost)?.own {
                None => true,
                Some(Own::All(all)) => *all,
                Some(Own::Run(run)) => run.contains(number),
                Some(Own::Units(units)) => match &self.rule(rule)?.action {
                    Action::Pick(pick) => pick.split.has(self.job.rank(self.rule(rule)?.axis), *units, *number),
                    _ => true,
                },
            };
            if !is_here {
                return Ok(None);
            }
        }
        Ok(Some(layout))
    }

    /// The rule that applies on each axis that has candidates.
    fn choose(&self, on_axes: &AxisCandidates, logical: u32, choices: &mut Vec<Choice>) -> Result<()> {
        choices.clear();
        for (axis, candidate) in &on_axes.candidates {
            let is_taken = choices.last().is_some_and(|last| last.axis == *axis && last.rule.is_some());
            if is_taken {
                continue;
            }
            let number = self.number(logical, *candidate);
            let choice = Choice { axis: *axis, rule: number.map(|_| candidate.rule), number: number.unwrap_or(0) };
            match choices.last_mut() {
                Some(last) if last.axis == *axis => *last = choice,
                _ => {
                    memory::reserve(choices, 1, "rules of a tensor")?;
                    choices.push(choice);
                }
            }
        }
        Ok(())
    }

    /// What it comes to where these rules apply to a tensor of a family.
    fn verdict(&mut self, place: usize, family: usize, choices: &[Choice]) -> Result<Verdict> {
        let mut key =
            memory::vec_with_capacity(choices.len().saturating_mul(8).saturating_add(8), "rules of a tensor")?;
        key.extend_from_slice(&(family as u64).to_le_bytes());
        for choice in choices {
            key.extend_from_slice(&choice.rule.map_or(0, |rule| rule.saturating_add(1) as u64).to_le_bytes());
        }
        let verdict = match self.verdict_keys.find(&key).and_then(|number| self.verdicts.get(number)) {
            Some(known) => *known,
            None => {
                let verdict = self.apply(place, family, choices)?;
                self.verdict_keys.number(&key)?;
                memory::reserve(&mut self.verdicts, 1, "rules of a tensor")?;
                self.verdicts.push(verdict);
                verdict
            }
        };
        let known = self.known.get_mut(family).ok_or_else(lost)?;
        known.verdict = Some(verdict);
        known.choices.clear();
        memory::reserve(&mut known.choices, choices.len(), "rules of a tensor")?;
        known.choices.extend_from_slice(choices);
        Ok(verdict)
    }
}

fn lost() -> Error {
    Error::new(ErrorKind::Internal, "a rank plan has lost a rule or a tensor")
}
