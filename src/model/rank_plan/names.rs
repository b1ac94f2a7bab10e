// SPDX-License-Identifier: Apache-2.0
//! What the plans say of the names of one checkpoint, whatever the ranks are.
//!
//! Checkpoints have many tensors that are alike. So tensors of one dtype, shape
//! and `stored` entry are a kind; logical tensors that are shown by the same kinds
//! in the same order are a bundle; and tensors of one kind whose logical ones are
//! of one bundle and match the same patterns are a family: what a rank has of them
//! differs only by numbers in their names.
#![forbid(unsafe_code)]

use super::matching::Matching;
use super::pattern::Dotted;
use super::rule::Rules;
use super::rule_set::{Owner, Patterns, RuleSet};
use super::tensor_list::{ListedTensor, TensorList};
use crate::base::numbering::Numbering;
use crate::base::{memory, sort};
use crate::error::{Error, ErrorKind, Result};

/// A name's number, where a pattern's star has none.
pub(super) const NO_NUMBER: u64 = u64::MAX;

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
pub(super) struct NamedTensor {
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
    /// The place of the first tensor that shows it.
    first: usize,
}

/// What a number that is kept comes from, and the number that it leads to: for the
/// next tensor they are mostly the same, and asking a table costs more.
#[derive(Clone, Copy)]
struct Last {
    from: [u32; 2],
    to: u32,
}

/// Of a logical tensor: not known, or none.
const NONE: u32 = u32::MAX;

/// The names, sorted and matched. Places are in the byte order of names.
pub(super) struct Names {
    pub(super) tensors: Vec<NamedTensor>,
    pub(super) kinds: Vec<Kind>,
    pub(super) bundles: Vec<Bundle>,
    pub(super) families: Vec<Family>,
    pub(super) sets: Vec<RuleSet>,
    logical: Vec<Logical>,
    numbers: Vec<u64>,
    /// One for each rule.
    pub(super) touched: Vec<Touched>,
}

/// The numbers of bundles.
#[derive(Default)]
struct Bundles {
    numbers: Numbering,
    /// Of each bundle, and of none, the last one after it.
    after: Vec<Last>,
}

impl Bundles {
    /// The bundle that another one (`NONE`: none) and a tensor of a kind make.
    fn after(&mut self, before: u32, kind: u32) -> Result<u32> {
        let slot = if before == NONE { 0 } else { (before as usize).saturating_add(1) };
        if self.after.len() <= slot {
            let room = slot.saturating_sub(self.after.len()).saturating_add(1);
            memory::reserve(&mut self.after, room, "logical tensors")?;
            self.after.resize(slot.saturating_add(1), Last { from: [NONE; 2], to: NONE });
        }
        let last = self.after.get_mut(slot).ok_or_else(lost)?;
        if last.from != [before, kind] {
            let key = (u64::from(before) << 32 | u64::from(kind)).to_le_bytes();
            *last = Last { from: [before, kind], to: small(self.numbers.number(&key)?)? };
        }
        Ok(last.to)
    }
}

impl Names {
    pub(super) fn new(rules: &Rules, listing: &dyn TensorList) -> Result<Self> {
        let named = sort::sorted((0..listing.count()).map(|number| listing.tensor(number).name), "sorted names")?;
        let (all, patterns) = Patterns::of(rules);
        let mut matching = Matching::new(all.into_iter())?;
        let mut this = Self {
            tensors: memory::vec_with_capacity(named.len(), "tensors")?,
            kinds: Vec::new(),
            bundles: Vec::new(),
            families: Vec::new(),
            sets: Vec::new(),
            logical: memory::vec_with_capacity(named.len(), "logical tensors")?,
            numbers: Vec::new(),
            touched: vec![Touched::default(); rules.rules.len()],
        };
        this.find_logical(rules, &patterns, &mut matching, &named, listing)?;
        this.find_touched(&patterns, &matching)?;
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
        listing: &dyn TensorList,
    ) -> Result<()> {
        let (mut kinds, mut names, mut bundles) = (Numbering::default(), Numbering::default(), Bundles::default());
        let (mut key, mut made, mut made_before) = (Vec::new(), Vec::new(), Vec::new());
        let mut was_made = false;
        // Of each set its entry and the kind of its last tensor.
        let mut entries: Vec<(Option<usize>, u32)> = Vec::new();
        let mut are_named = false;
        let mut before: &[u8] = &[];
        for (place, (name, number)) in named.iter().enumerate() {
            let set = matching.set_of(name, before)?;
            while let Some(found) = matching.sets.get(entries.len()) {
                entries.push((patterns.entry(found), NONE));
                self.sets.push(RuleSet::new(found, patterns, &rules.rules));
            }
            let (entry, last_kind) = entries.get_mut(set as usize).ok_or_else(lost)?;
            let entry = *entry;
            let key = kind_key(&mut key, entry, &listing.tensor(*number));
            let kind = match *last_kind {
                last if last != NONE && kinds.key(last as usize) == key => last,
                _ => small(kinds.number(key)?)?,
            };
            *last_kind = kind;
            if kind as usize == self.kinds.len() {
                self.kinds.push(Kind { entry, first: place });
            }

            let shown = match entry.and_then(|entry| rules.stored.get(entry)) {
                None => name,
                Some(entry) => {
                    let renamed = entry.logical.rename(&entry.pattern, &Dotted::new(name, &matching.dots), &mut made);
                    renamed.ok_or_else(lost)?;
                    made.as_slice()
                }
            };
            let new = self.logical.len();
            let shown_before = if was_made { made_before.as_slice() } else { before };
            // Scales come after their weights: mostly it is what the tensor before shows.
            let last = self.tensors.last().filter(|_| shown == shown_before);
            let logical = match last {
                Some(last) => last.logical as usize,
                None if entry.is_none() && !are_named => new,
                None => {
                    // From here on, names are looked for among all: those so far have one tensor with it each.
                    if !are_named {
                        for logical in &self.logical {
                            names.number(named.get(logical.first).map_or(&[][..], |(name, _)| name))?;
                        }
                        are_named = true;
                    }
                    names.number(shown)?
                }
            };
            if logical == new {
                memory::reserve(&mut self.logical, 1, "logical tensors")?;
                self.logical.push(Logical { set: NONE, bundle: NONE, first_number: 0, first: place });
            }
            if entry.is_none() {
                self.find_numbers(logical, set, patterns, &Dotted::new(name, &matching.dots))?;
            }
            if !rules.stored.is_empty() {
                let found = self.logical.get_mut(logical).ok_or_else(lost)?;
                let bundle = bundles.after(found.bundle, kind)?;
                if bundle as usize == self.bundles.len() {
                    let before = (found.bundle != NONE).then_some(found.bundle as usize);
                    memory::reserve(&mut self.bundles, 1, "logical tensors")?;
                    self.bundles.push(Bundle { before, kind: kind as usize, first: place });
                }
                found.bundle = bundle;
            }
            self.tensors.push(NamedTensor { number: *number, logical: small(logical)?, family: kind });
            was_made = entry.is_some();
            if was_made {
                std::mem::swap(&mut made, &mut made_before);
            }
            before = name;
        }

        // Logical tensors that no tensor has the name of.
        let mut before: Option<usize> = None;
        for logical in 0..self.logical.len() {
            if self.logical.get(logical).is_none_or(|logical| logical.set != NONE) {
                continue;
            }
            let name = names.key(logical);
            // The first walk begins at the root, as it has nothing in common with the
            // name before.
            let set = matching.set_of(name, before.map_or(&[][..], |before| names.key(before)))?;
            while let Some(found) = matching.sets.get(self.sets.len()) {
                self.sets.push(RuleSet::new(found, patterns, &rules.rules));
            }
            self.find_numbers(logical, set, patterns, &Dotted::new(name, &matching.dots))?;
            before = Some(logical);
        }
        Ok(())
    }

    /// Takes the set of a logical tensor and the numbers in its name that rules want.
    fn find_numbers(
        &mut self,
        logical: usize,
        number_of_set: u32,
        patterns: &Patterns<'_>,
        name: &Dotted<'_>,
    ) -> Result<()> {
        let set = self.sets.get(number_of_set as usize).ok_or_else(lost)?;
        let first = self.numbers.len();
        let logical = self.logical.get_mut(logical).ok_or_else(lost)?;
        (logical.set, logical.first_number) = (number_of_set, first);
        if set.slots.is_empty() {
            return Ok(());
        }
        memory::reserve(&mut self.numbers, set.slots.len(), "numbers in names")?;
        for pattern in &set.slots {
            let text = patterns.stars.get(*pattern).and_then(|star| star.as_ref()?.text(name));
            self.numbers.push(text.and_then(number).unwrap_or(NO_NUMBER));
        }
        let mut last = None;
        for candidate in &set.candidates {
            let slot = candidate.slot.and_then(|slot| self.numbers.get(first.saturating_add(slot)));
            let Some(number) = slot.copied().filter(|number| *number != NO_NUMBER) else { continue };
            if let Some(touched) = self.touched.get_mut(candidate.rule) {
                let (least, most) = touched.numbers.unwrap_or((number, number));
                // Of several patterns the first that matches has the number.
                let most = if last == Some(candidate.rule) { most } else { most.max(number) };
                touched.numbers = Some((least.min(number), most));
            }
            last = Some(candidate.rule);
        }
        Ok(())
    }

    /// Which rules match anything.
    fn find_touched(&mut self, patterns: &Patterns<'_>, matching: &Matching) -> Result<()> {
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

    /// Which family each tensor is of, now that bundles are complete.
    fn find_families(&mut self) -> Result<()> {
        let mut families = Numbering::default();
        let mut of_kind = memory::vec_with_capacity(self.kinds.len(), "kinds of tensors")?;
        of_kind.resize(self.kinds.len(), Last { from: [NONE; 2], to: NONE });
        for (place, tensor) in self.tensors.iter_mut().enumerate() {
            let logical = self.logical.get(tensor.logical as usize).ok_or_else(lost)?;
            let (kind, from) = (tensor.family, [logical.set, logical.bundle]);
            let last = of_kind.get_mut(kind as usize).ok_or_else(lost)?;
            if last.from != from || last.to == NONE {
                let mut key = [0; 12];
                let values = [kind, logical.set, logical.bundle];
                key.chunks_exact_mut(4).zip(values).for_each(|(to, value)| to.copy_from_slice(&value.to_le_bytes()));
                *last = Last { from, to: small(families.number(&key)?)? };
            }
            tensor.family = last.to;
            if last.to as usize == self.families.len() {
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

    /// All logical tensors and their sets.
    pub(super) fn logical_sets(&self) -> impl Iterator<Item = (u32, &RuleSet)> {
        (0..).zip(&self.logical).filter_map(|(number, logical)| Some((number, self.sets.get(logical.set as usize)?)))
    }
}

/// What tensors of one kind have in common, as bytes.
fn kind_key<'k>(key: &'k mut Vec<u8>, entry: Option<usize>, tensor: &ListedTensor<'_>) -> &'k [u8] {
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
