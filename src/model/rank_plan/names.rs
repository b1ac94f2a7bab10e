// SPDX-License-Identifier: Apache-2.0
//! What the plans say of the names of one checkpoint, whatever the ranks are.
//!
//! Checkpoints have many tensors that are alike. So tensors of one dtype, shape
//! and `stored` entry are a kind; logical tensors that are shown by the same kinds
//! in the same order are a bundle; and tensors of one kind whose logical ones are
//! of one bundle and match the same patterns are a family: what a rank has of them
//! differs only by numbers in their names.
#![forbid(unsafe_code)]

use super::listing::{Listed, Listing};
use super::matching::Matching;
use super::pattern::{Dotted, Star};
use super::rule::{Action, Rule, Rules};
use crate::base::numbering::Numbering;
use crate::base::{memory, sort};
use crate::error::{Error, ErrorKind, Result};

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

/// A tensor of the listing.
#[derive(Clone, Copy)]
pub(super) struct Tensor {
    /// Its number in the listing.
    pub(super) number: usize,
    pub(super) logical: u32,
    pub(super) family: u32,
}

/// What tensors of one dtype, shape and `stored` entry have in common.
pub(super) struct Kind {
    pub(super) entry: Option<usize>,
    /// The place of the first of them.
    pub(super) first: usize,
}

/// A logical tensor's kinds so far: those of another bundle, and one more.
pub(super) struct Bundle {
    pub(super) before: Option<usize>,
    pub(super) kind: usize,
    /// The place of the first tensor that completes such a bundle.
    pub(super) first: usize,
}

pub(super) struct Family {
    pub(super) set: usize,
    pub(super) kind: usize,
    /// Of the logical tensor, where an entry names it.
    pub(super) bundle: Option<usize>,
    /// The place of the first of them.
    pub(super) first: usize,
}

/// A logical tensor.
struct Logical {
    set: u32,
    bundle: u32,
    /// Where its numbers begin.
    first_number: usize,
}

/// Of a logical tensor: not known, or none.
const NONE: u32 = u32::MAX;

/// The names, sorted and matched. Places are in the byte order of names.
pub(super) struct Names {
    pub(super) tensors: Vec<Tensor>,
    pub(super) kinds: Vec<Kind>,
    pub(super) bundles: Vec<Bundle>,
    pub(super) families: Vec<Family>,
    pub(super) sets: Vec<Set>,
    logical: Vec<Logical>,
    /// The names of logical tensors, where there are entries.
    logical_names: Numbering,
    numbers: Vec<u64>,
    /// One for each rule.
    pub(super) touched: Vec<Touched>,
}

/// Whose a pattern is.
#[derive(Clone, Copy)]
enum Owner {
    Rule(usize),
    Absent(usize),
    Entry(usize),
}

/// All patterns of the plans, in the order in which a set of them has them.
struct Patterns<'p> {
    owners: Vec<Owner>,
    /// The stars whose numbers rules want.
    stars: Vec<Option<Star<'p>>>,
}

impl Names {
    pub(super) fn new(rules: &Rules, listing: &dyn Listing) -> Result<Self> {
        let named = sort::sorted((0..listing.count()).map(|number| listing.tensor(number).name), "sorted names")?;
        let mut patterns = Patterns { owners: Vec::new(), stars: Vec::new() };
        let all = patterns.collect(rules);
        let mut matching = Matching::new(all.into_iter())?;
        let mut this = Self {
            tensors: memory::vec_with_capacity(named.len(), "tensors")?,
            kinds: Vec::new(),
            bundles: Vec::new(),
            families: Vec::new(),
            sets: Vec::new(),
            logical: memory::vec_with_capacity(named.len(), "logical tensors")?,
            logical_names: Numbering::default(),
            numbers: Vec::new(),
            touched: vec![Touched::default(); rules.rules.len()],
        };
        this.find_logical(rules, &patterns, &mut matching, &named, listing)?;
        this.finish_sets(rules, &patterns, &mut matching)?;
        this.find_numbers(&patterns, &named)?;
        this.find_families()?;
        Ok(this)
    }

    /// Which logical tensor each one shows, and of which kinds those are.
    fn find_logical(
        &mut self,
        rules: &Rules,
        patterns: &Patterns<'_>,
        matching: &mut Matching,
        named: &[(&[u8], usize)],
        listing: &dyn Listing,
    ) -> Result<()> {
        let (mut kinds, mut bundles) = (Numbering::default(), Numbering::default());
        let (mut key, mut made, mut dots) = (Vec::new(), Vec::new(), Vec::new());
        // The entry of each set.
        let mut entries: Vec<Option<usize>> = Vec::new();
        let mut before: &[u8] = &[];
        for (place, (name, number)) in named.iter().enumerate() {
            let set = matching.set_of(name, before)?;
            before = name;
            while entries.len() < matching.sets.len() {
                entries.push(matching.sets.get(entries.len()).and_then(|set| patterns.entry(set)));
            }
            let entry = entries.get(set as usize).copied().flatten();
            let kind = kinds.number(kind_key(&mut key, entry, &listing.tensor(*number)))?;
            if kind == self.kinds.len() {
                self.kinds.push(Kind { entry, first: place });
            }
            let logical = match entry.and_then(|entry| rules.stored.get(entry)) {
                _ if rules.stored.is_empty() => place,
                None => self.logical_names.number(name)?,
                Some(entry) => {
                    let renamed = entry.logical.rename(&entry.pattern, &Dotted::new(name, &mut dots), &mut made);
                    renamed.ok_or_else(lost)?;
                    self.logical_names.number(&made)?
                }
            };
            if logical == self.logical.len() {
                memory::reserve(&mut self.logical, 1, "logical tensors")?;
                self.logical.push(Logical { set: NONE, bundle: NONE, first_number: 0 });
            }
            let found = self.logical.get_mut(logical).ok_or_else(lost)?;
            if entry.is_none() {
                found.set = set;
            }
            if !rules.stored.is_empty() {
                let new = bundles.number(&[found.bundle.to_le_bytes(), small(kind)?.to_le_bytes()].concat())?;
                if new == self.bundles.len() {
                    let before = usize::try_from(found.bundle).ok().filter(|_| found.bundle != NONE);
                    memory::reserve(&mut self.bundles, 1, "logical tensors")?;
                    self.bundles.push(Bundle { before, kind, first: place });
                }
                found.bundle = small(new)?;
            }
            self.tensors.push(Tensor { number: *number, logical: small(logical)?, family: small(kind)? });
        }
        Ok(())
    }

    /// Matches the names of logical tensors that no tensor has itself, and finds what all sets of patterns mean.
    fn finish_sets(&mut self, rules: &Rules, patterns: &Patterns<'_>, matching: &mut Matching) -> Result<()> {
        let mut before: Option<usize> = None;
        for (number, logical) in self.logical.iter_mut().enumerate().filter(|(_, logical)| logical.set == NONE) {
            // The walk goes on from the last of these; the first begins anew.
            let last = before.map_or(&[][..], |before| self.logical_names.key(before));
            logical.set = matching.set_of(self.logical_names.key(number), last)?;
            before = Some(number);
        }
        for set in &matching.sets {
            self.sets.push(Set::new(set, patterns, &rules.rules));
        }
        let mut seen = vec![false; self.sets.len()];
        for logical in &self.logical {
            let set = logical.set as usize;
            let Some(seen) = seen.get_mut(set).filter(|seen| !**seen) else { continue };
            *seen = true;
            for pattern in matching.sets.get(set).into_iter().flatten() {
                match patterns.owners.get(*pattern) {
                    Some(Owner::Rule(rule)) => self.touched.get_mut(*rule).ok_or_else(lost)?.by_pattern = true,
                    Some(Owner::Absent(rule)) => self.touched.get_mut(*rule).ok_or_else(lost)?.absent = true,
                    Some(Owner::Entry(_)) | None => {}
                }
            }
        }
        Ok(())
    }

    /// The numbers in the names of logical tensors that rules want.
    fn find_numbers(&mut self, patterns: &Patterns<'_>, named: &[(&[u8], usize)]) -> Result<()> {
        let mut dots = Vec::new();
        let own_names = self.logical_names.len() == 0;
        for (at, logical) in self.logical.iter_mut().enumerate() {
            logical.first_number = self.numbers.len();
            let Some(set) = self.sets.get(logical.set as usize).filter(|set| !set.slots.is_empty()) else { continue };
            memory::reserve(&mut self.numbers, set.slots.len(), "numbers in names")?;
            let name = match own_names {
                true => named.get(at).map_or(&[][..], |(name, _)| name),
                false => self.logical_names.key(at),
            };
            let name = Dotted::new(name, &mut dots);
            for pattern in &set.slots {
                let text = patterns.stars.get(*pattern).and_then(|star| star.as_ref()?.text(&name));
                self.numbers.push(text.and_then(number).unwrap_or(NO_NUMBER));
            }
            let mut last = None;
            for candidate in &set.candidates {
                let slot = candidate.slot.and_then(|slot| self.numbers.get(logical.first_number.saturating_add(slot)));
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
        Ok(())
    }

    /// Which family each tensor is of, now that bundles are complete.
    fn find_families(&mut self) -> Result<()> {
        let mut families = Numbering::default();
        for (place, tensor) in self.tensors.iter_mut().enumerate() {
            let logical = self.logical.get(tensor.logical as usize).ok_or_else(lost)?;
            let kind = tensor.family;
            let mut key = [0; 12];
            let values = [logical.set, kind, logical.bundle];
            key.chunks_exact_mut(4).zip(values).for_each(|(to, value)| to.copy_from_slice(&value.to_le_bytes()));
            let number = families.number(&key)?;
            tensor.family = small(number)?;
            if number == self.families.len() {
                let bundle = (logical.bundle != NONE).then_some(logical.bundle as usize);
                memory::reserve(&mut self.families, 1, "families of tensors")?;
                self.families.push(Family { set: logical.set as usize, kind: kind as usize, bundle, first: place });
            }
        }
        Ok(())
    }

    /// What a star of the pattern of a slot stands for, as a number.
    pub(super) fn number(&self, logical: u32, slot: usize) -> u64 {
        let at = self.logical.get(logical as usize).map(|logical| logical.first_number.saturating_add(slot));
        at.and_then(|at| self.numbers.get(at)).copied().unwrap_or(NO_NUMBER)
    }

    /// The name of a logical tensor, where it may differ from that of the tensor that shows it.
    pub(super) fn logical_name(&self, logical: u32) -> Option<&[u8]> {
        let number = logical as usize;
        (number < self.logical_names.len()).then(|| self.logical_names.key(number))
    }

    /// All logical tensors and their sets.
    pub(super) fn logical_sets(&self) -> impl Iterator<Item = (u32, &Set)> {
        (0..).zip(&self.logical).filter_map(|(number, logical)| Some((number, self.sets.get(logical.set as usize)?)))
    }
}

impl<'p> Patterns<'p> {
    /// Takes the patterns of rules and entries.
    fn collect(&mut self, rules: &'p Rules) -> Vec<&'p super::pattern::Pattern> {
        let mut all = Vec::new();
        for (number, rule) in rules.rules.iter().enumerate() {
            all.extend(&rule.patterns);
            self.owners.resize(all.len(), Owner::Rule(number));
            self.stars.extend(rule.patterns.iter().map(|pattern| match &rule.action {
                Action::Pick(pick) => pattern.places().nth(pick.star.saturating_sub(1)),
                _ => None,
            }));
        }
        for (number, rule) in rules.rules.iter().enumerate() {
            all.extend(&rule.absent);
            self.owners.resize(all.len(), Owner::Absent(number));
        }
        for (number, entry) in rules.stored.iter().enumerate() {
            all.push(&entry.pattern);
            self.owners.push(Owner::Entry(number));
        }
        all
    }

    /// The first entry whose pattern is in a set.
    fn entry(&self, set: &[usize]) -> Option<usize> {
        set.iter().find_map(|pattern| match self.owners.get(*pattern) {
            Some(Owner::Entry(entry)) => Some(*entry),
            _ => None,
        })
    }
}

impl Set {
    fn new(set: &[usize], patterns: &Patterns<'_>, rules: &[Rule]) -> Self {
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

/// What tensors of one kind have in common, as bytes.
fn kind_key<'k>(key: &'k mut Vec<u8>, entry: Option<usize>, tensor: &Listed<'_>) -> &'k [u8] {
    key.clear();
    let mut add = |number: u64| key.extend_from_slice(&number.to_le_bytes());
    add(entry.map_or(0, |entry| entry.saturating_add(1)) as u64);
    add(u64::from(tensor.bits) << 32 | tensor.shape.len() as u64);
    // Of unknown elements only the file says how many bytes they take.
    if tensor.bits == 0 {
        add(tensor.size);
    }
    tensor.shape.iter().chain(tensor.step).for_each(|size| add(size.unsigned_abs()));
    key
}

/// A decimal number of at most 18 digits without leading zeros.
fn number(text: &[u8]) -> Option<u64> {
    if text.len() > 18 || text.is_empty() || (text.len() > 1 && text.first() == Some(&b'0')) {
        return None;
    }
    text.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit & 0xF))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

fn small(number: usize) -> Result<u32> {
    let found = u32::try_from(number).ok().filter(|number| *number != NONE);
    found.ok_or_else(|| Error::new(ErrorKind::Unsupported, "more than 2^32 - 2 tensors"))
}

fn lost() -> Error {
    Error::new(ErrorKind::Internal, "a rank plan has lost a name")
}
