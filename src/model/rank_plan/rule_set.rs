// SPDX-License-Identifier: Apache-2.0
//! Sets of patterns that names match, and which rules those are.
#![forbid(unsafe_code)]

use super::pattern::{NamePattern, StarPlace};
use super::rule::{Action, Rule, Rules};

/// A rule that matches all names of a set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) rule: usize,
    /// Which of a name's numbers decides, where one does.
    pub(super) slot: Option<usize>,
}

/// The rules that match a name by its pattern, in order.
#[derive(Debug, Default)]
pub(super) struct RuleSet {
    pub(super) candidates: Vec<Candidate>,
    /// The patterns of the slots.
    pub(super) slots: Vec<usize>,
}

/// Whose a pattern is.
#[derive(Clone, Copy)]
pub(super) enum Owner {
    Rule(usize),
    Absent(usize),
    Entry(usize),
}

/// All patterns of the plans, in the order in which a set of them has them.
pub(super) struct Patterns<'p> {
    pub(super) owners: Vec<Owner>,
    /// The stars whose numbers rules want.
    pub(super) stars: Vec<Option<StarPlace<'p>>>,
}

impl<'p> Patterns<'p> {
    /// Those of rules and entries, and whose they are.
    pub(super) fn of(rules: &'p Rules) -> (Vec<&'p NamePattern>, Self) {
        let (mut all, mut this) = (Vec::new(), Self { owners: Vec::new(), stars: Vec::new() });
        for (number, rule) in rules.rules.iter().enumerate() {
            all.extend(&rule.patterns);
            this.owners.resize(all.len(), Owner::Rule(number));
            this.stars.extend(rule.patterns.iter().map(|pattern| match &rule.action {
                Action::Pick(pick) => pattern.places().nth(pick.star.saturating_sub(1)),
                _ => None,
            }));
        }
        for (number, rule) in rules.rules.iter().enumerate() {
            all.extend(&rule.absent);
            this.owners.resize(all.len(), Owner::Absent(number));
        }
        for (number, entry) in rules.stored.iter().enumerate() {
            all.push(&entry.pattern);
            this.owners.push(Owner::Entry(number));
        }
        (all, this)
    }

    /// The first entry whose pattern is in a set.
    pub(super) fn entry(&self, set: &[usize]) -> Option<usize> {
        set.iter().find_map(|pattern| match self.owners.get(*pattern) {
            Some(Owner::Entry(entry)) => Some(*entry),
            _ => None,
        })
    }
}

impl RuleSet {
    pub(super) fn new(set: &[usize], patterns: &Patterns<'_>, rules: &[Rule]) -> Self {
        let mut this = Self::default();
        for pattern in set {
            let Some(Owner::Rule(number)) = patterns.owners.get(*pattern) else { continue };
            if matches!(rules.get(*number).map(|rule| &rule.action), Some(Action::Pick(_))) {
                this.candidates.push(Candidate { rule: *number, slot: Some(this.slots.len()) });
                this.slots.push(*pattern);
            } else if this.candidates.last().is_none_or(|last| last.rule != *number) {
                this.candidates.push(Candidate { rule: *number, slot: None });
            }
        }
        this
    }
}
