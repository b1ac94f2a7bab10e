// SPDX-License-Identifier: Apache-2.0
//! What the plans say of the names of one checkpoint, whatever the ranks are.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::collections::HashMap;

use super::matching::{matches, Tree};
use super::pattern::Pattern;
use super::rule::{Action, Rule, Rules};
use crate::base::memory;
use crate::error::Result;

/// What a checkpoint is made of, as a plan sees it.
pub(crate) trait Listing {
    /// How many tensors.
    fn count(&self) -> usize;
    /// The one of this number, which is below the count.
    fn tensor(&self, number: usize) -> Listed<'_>;
}

/// A tensor of a listing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listed<'a> {
    /// Its name.
    pub(crate) name: &'a [u8],
    /// Bits of an element; 0 where they are not known.
    pub(crate) bits: u32,
    /// Its sizes.
    pub(crate) shape: &'a [i64],
    /// Its bytes.
    pub(crate) size: u64,
    /// What the places of cuts must be multiples of, one for each dimension; none: 1.
    pub(crate) step: &'a [i64],
}

/// A name's number, where a pattern's star has none.
pub(super) const NO_NUMBER: u64 = u64::MAX;

/// A rule that matches all names of a set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) rule: usize,
    /// Which of a name's numbers decides, where one does.
    pub(super) slot: Option<usize>,
}

/// The rules that match a name by its pattern, in order.
#[derive(Debug, Default)]
pub(super) struct Set {
    pub(super) candidates: Vec<Candidate>,
    /// The patterns of the slots.
    slots: Vec<usize>,
}

/// Of a rule, what is known of all names together.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Touched {
    /// A name has its pattern.
    pub(super) by_pattern: bool,
    /// The smallest and the largest number of a pick.
    pub(super) numbers: Option<(u64, u64)>,
    /// A name has its `absent` pattern.
    pub(super) absent: bool,
}

/// A logical tensor.
pub(super) enum Logical {
    /// That of the stored one with this place in order.
    Own(usize),
    /// One that `stored` entries name.
    Named(Vec<u8>),
}

impl Logical {
    fn name<'a>(&'a self, named: &[(&'a [u8], usize)]) -> &'a [u8] {
        match self {
            Self::Own(place) => named.get(*place).map_or(&[], |(name, _)| name),
            Self::Named(name) => name,
        }
    }
}

/// The names, sorted and matched.
pub(super) struct Names {
    /// Numbers of the listing's tensors, by name.
    pub(super) order: Vec<usize>,
    /// The `stored` entry of each in that order; empty where no entry is.
    pub(super) entries: Vec<Option<usize>>,
    /// The logical tensor of each in that order; empty where each is its own.
    logical_of: Vec<usize>,
    pub(super) logical: Vec<Logical>,
    pub(super) sets: Vec<Set>,
    /// The set of each logical tensor.
    pub(super) set_of: Vec<usize>,
    /// Where the numbers of each logical tensor begin.
    first_number: Vec<usize>,
    numbers: Vec<u64>,
    /// One for each rule.
    pub(super) touched: Vec<Touched>,
}

/// Whose a pattern is.
#[derive(Clone, Copy)]
enum Owner {
    Rule(usize),
    Absent(usize),
}

impl Names {
    pub(super) fn new(rules: &Rules, listing: &dyn Listing) -> Result<Self> {
        let mut named = memory::vec_with_capacity(listing.count(), "sorted names")?;
        named.extend((0..listing.count()).map(|number| (listing.tensor(number).name, number)));
        named.sort();
        let mut order = memory::vec_with_capacity(named.len(), "sorted names")?;
        order.extend(named.iter().map(|(_, number)| *number));
        let mut this = Self {
            order,
            entries: Vec::new(),
            logical_of: Vec::new(),
            logical: memory::vec_with_capacity(named.len(), "logical tensors")?,
            sets: Vec::new(),
            set_of: Vec::new(),
            first_number: Vec::new(),
            numbers: Vec::new(),
            touched: Vec::new(),
        };
        match rules.stored.is_empty() {
            true => this.logical.extend((0..named.len()).map(Logical::Own)),
            false => this.find_logical(rules, &named)?,
        }
        this.match_rules(&rules.rules, &named)?;
        Ok(this)
    }

    /// Which logical tensor each stored one shows.
    fn find_logical(&mut self, rules: &Rules, named: &[(&[u8], usize)]) -> Result<()> {
        let tree = Tree::new(rules.stored.iter().map(|entry| &entry.pattern));
        let found = matches(&tree, named.iter().map(|(name, _)| *name))?;
        let mut numbers: HashMap<Cow<'_, [u8]>, usize, foldhash::quality::RandomState> = HashMap::default();
        for (place, ((name, _), set)) in named.iter().zip(&found.of_name).enumerate() {
            let first = found.sets.get(*set).and_then(|set| set.first()).copied();
            let entry = first.and_then(|first| Some((first, rules.stored.get(first)?)));
            let made = entry.and_then(|(_, entry)| entry.logical.rename(&entry.pattern, name));
            let new = self.logical.len();
            let number = match made {
                None => *numbers.entry(Cow::Borrowed(*name)).or_insert(new),
                Some(made) => *numbers.entry(Cow::Owned(made)).or_insert(new),
            };
            if number == new {
                self.logical.push(Logical::Own(place));
            }
            self.entries.push(entry.map(|(number, _)| number));
            self.logical_of.push(number);
        }
        // A name that a tensor of its own has too is the same.
        for (name, number) in numbers {
            if let (Cow::Owned(name), Some(logical)) = (name, self.logical.get_mut(number)) {
                *logical = Logical::Named(name);
            }
        }
        Ok(())
    }

    fn match_rules(&mut self, rules: &[Rule], named: &[(&[u8], usize)]) -> Result<()> {
        let mut patterns: Vec<&Pattern> = Vec::new();
        let mut owners = Vec::new();
        for (number, rule) in rules.iter().enumerate() {
            patterns.extend(&rule.patterns);
            owners.resize(patterns.len(), Owner::Rule(number));
        }
        for (number, rule) in rules.iter().enumerate() {
            patterns.extend(&rule.absent);
            owners.resize(patterns.len(), Owner::Absent(number));
        }
        let tree = Tree::new(patterns.iter().copied());
        // Borrowed from what is filled below, field by field.
        let logical = std::mem::take(&mut self.logical);
        let found = matches(&tree, logical.iter().map(|logical| logical.name(named)))?;
        self.touched = vec![Touched::default(); rules.len()];
        for set in &found.sets {
            self.sets.push(self::Set::new(set, &owners, rules, &mut self.touched));
        }
        let mut stars = Vec::with_capacity(patterns.len());
        for (pattern, owner) in patterns.iter().zip(&owners) {
            let rule = match owner {
                Owner::Rule(rule) => rules.get(*rule),
                Owner::Absent(_) => None,
            };
            stars.push(match rule.map(|rule| &rule.action) {
                Some(Action::Pick(pick)) => pattern.star(pick.star),
                _ => None,
            });
        }
        let mut dots = Vec::new();
        self.first_number = memory::vec_with_capacity(logical.len(), "numbers in names")?;
        for (logical, set) in logical.iter().zip(&found.of_name) {
            self.first_number.push(self.numbers.len());
            let Some(set) = self.sets.get(*set).filter(|set| !set.slots.is_empty()) else { continue };
            memory::reserve(&mut self.numbers, set.slots.len(), "numbers in names")?;
            let start = self.numbers.len();
            let name = logical.name(named);
            dots.clear();
            dots.extend(name.iter().enumerate().filter(|(_, byte)| **byte == b'.').map(|(at, _)| at));
            for pattern in &set.slots {
                let text = stars.get(*pattern).and_then(|star| star.as_ref()?.text(name, &dots));
                self.numbers.push(text.and_then(number).unwrap_or(NO_NUMBER));
            }
            let mut last = None;
            for candidate in &set.candidates {
                let slot = candidate.slot.and_then(|slot| self.numbers.get(start.saturating_add(slot)));
                let Some(number) = slot.copied().filter(|number| *number != NO_NUMBER) else { continue };
                if let Some(touched) = self.touched.get_mut(candidate.rule) {
                    let (least, most) = touched.numbers.unwrap_or((number, number));
                    // Of several patterns the first that matches has the number.
                    let most = if last == Some(candidate.rule) { most } else { most.max(number) };
                    touched.numbers = Some((least.min(number), most));
                }
                last = Some(candidate.rule);
            }
        }
        self.logical = logical;
        self.set_of = found.of_name;
        Ok(())
    }

    /// The logical tensor of the stored one with this place in order.
    pub(super) fn logical_of(&self, place: usize) -> usize {
        self.logical_of.get(place).copied().unwrap_or(place)
    }

    /// The set of a logical tensor.
    pub(super) fn set(&self, logical: usize) -> Option<(usize, &Set)> {
        let number = *self.set_of.get(logical)?;
        Some((number, self.sets.get(number)?))
    }

    /// What a star of the pattern of a slot stands for, as a number.
    pub(super) fn number(&self, logical: usize, slot: usize) -> u64 {
        let at = self.first_number.get(logical).map(|first| first.saturating_add(slot));
        at.and_then(|at| self.numbers.get(at)).copied().unwrap_or(NO_NUMBER)
    }
}

impl Set {
    fn new(patterns: &[usize], owners: &[Owner], rules: &[Rule], touched: &mut [Touched]) -> Self {
        let mut this = Self::default();
        for pattern in patterns {
            match owners.get(*pattern) {
                Some(Owner::Rule(number)) => {
                    if let Some(touched) = touched.get_mut(*number) {
                        touched.by_pattern = true;
                    }
                    let pick = matches!(rules.get(*number).map(|rule| &rule.action), Some(Action::Pick(_)));
                    if pick {
                        this.candidates.push(Candidate { rule: *number, slot: Some(this.slots.len()) });
                        this.slots.push(*pattern);
                    } else if this.candidates.last().is_none_or(|last| last.rule != *number) {
                        this.candidates.push(Candidate { rule: *number, slot: None });
                    }
                }
                Some(Owner::Absent(number)) => {
                    if let Some(touched) = touched.get_mut(*number) {
                        touched.absent = true;
                    }
                }
                None => {}
            }
        }
        this
    }
}

/// A decimal number of at most 18 digits without leading zeros.
fn number(text: &[u8]) -> Option<u64> {
    let plain = text.iter().all(u8::is_ascii_digit) && (1..=18).contains(&text.len());
    let text = std::str::from_utf8(text).ok().filter(|text| plain && (*text == "0" || !text.starts_with('0')))?;
    text.parse().ok()
}
