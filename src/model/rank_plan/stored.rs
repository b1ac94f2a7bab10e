// SPDX-License-Identifier: Apache-2.0
//! Stored tensors and the logical ones they show, for given sizes of axes.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use super::expression::LARGEST;
use super::fault::Fault;
use super::listing::{Listing, Logical, Names};
use super::pieces::Scale;
use super::rule::{How, Rules};
use super::values::Values;
use crate::base::memory;
use crate::error::{quoted, Result};

/// What a stored dimension shows: a logical one, at a scale.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shows {
    pub(super) dim: u64,
    pub(super) scale: Scale,
}

/// Who says how large a logical dimension is.
#[derive(Clone, Copy)]
struct Told {
    size: i64,
    /// The place in order of the tensor that says so.
    by: usize,
}

/// The scales of all entries, and the sizes of logical dimensions that
/// tensors tell together.
#[derive(Default)]
pub(super) struct Shown {
    /// One for each entry; none where the entry is not used.
    entries: Vec<Option<Vec<Option<Shows>>>>,
    /// Of logical tensors that an entry names.
    sizes: Vec<Option<BTreeMap<u64, Told>>>,
}

impl Shown {
    pub(super) fn new<'p>(
        rules: &'p Rules,
        names: &Names,
        listing: &dyn Listing,
        values: &mut Values<'p>,
    ) -> Result<Self> {
        let mut this = Self::default();
        if names.entries.is_empty() {
            return Ok(this);
        }
        this.entries.resize_with(rules.stored.len(), || None);
        this.sizes = memory::vec_with_capacity(names.logical.len(), "logical tensors")?;
        this.sizes.resize_with(names.logical.len(), || None);
        for (place, (number, entry)) in names.order.iter().zip(&names.entries).enumerate() {
            let Some(entry) = *entry else { continue };
            this.check_entry(entry, listing.tensor(*number).shape.len(), rules, values, &|| {
                label(names, listing, place)
            })?;
            if let Some(sizes) = this.sizes.get_mut(names.logical_of(place)) {
                sizes.get_or_insert_default();
            }
        }
        for place in 0..names.order.len() {
            this.tell_sizes(place, names, listing, rules)?;
        }
        for place in 0..names.order.len() {
            this.check_blocks(place, names, listing, rules)?;
        }
        Ok(this)
    }

    fn check_entry<'p>(
        &mut self,
        number: usize,
        rank: usize,
        rules: &'p Rules,
        values: &mut Values<'p>,
        tensor: &dyn Fn() -> String,
    ) -> Result<()> {
        let Some(entry) = rules.stored.get(number) else { return Ok(()) };
        if entry.dims.len() > rank {
            let text = format!("{} has {rank} dimensions, and dims describes {}", tensor(), entry.dims.len());
            return Err(Fault::Stored.at(&entry.place, text));
        }
        let known = match self.entries.get_mut(number) {
            Some(known @ None) => known,
            _ => return Ok(()),
        };
        let mut dims = Vec::new();
        for dim in &entry.dims {
            let Some(shown) = dim else {
                dims.push(None);
                continue;
            };
            let what = match shown.how {
                How::Pack => "pack",
                How::Block => "block",
            };
            let by = values.get(&shown.by, what, &|| format!("{}: {}", entry.place, tensor()))?;
            if by == 0 {
                let text = format!("{}: {what} {} is 0, below 1", tensor(), shown.by);
                return Err(Fault::Expression.at(&entry.place, text));
            }
            let scale = Scale { how: shown.how, by: i64::try_from(by).unwrap_or(i64::MAX) };
            dims.push(Some(Shows { dim: shown.dim, scale }));
        }
        *known = Some(dims);
        Ok(())
    }

    /// What the dimensions of a tensor show.
    pub(super) fn shows(&self, place: usize, dim: usize, names: &Names) -> Option<Shows> {
        match names.entries.get(place).copied().flatten() {
            None => Some(Shows { dim: dim as u64, scale: Scale::ONE }),
            Some(entry) => *self.entries.get(entry)?.as_ref()?.get(dim)?,
        }
    }

    /// The sizes of logical dimensions that a tensor shows by `pack`.
    fn tell_sizes(&mut self, place: usize, names: &Names, listing: &dyn Listing, rules: &Rules) -> Result<()> {
        let logical = names.logical_of(place);
        let Some(tensor) = names.order.get(place).map(|number| listing.tensor(*number)) else { return Ok(()) };
        let Some(mut sizes) = self.sizes.get_mut(logical).and_then(Option::take) else { return Ok(()) };
        for (dim, stored) in tensor.shape.iter().enumerate() {
            let Some(Shows { dim: shown, scale }) = self.shows(place, dim, names) else { continue };
            if scale.how != How::Pack {
                continue;
            }
            let size = stored.checked_mul(scale.by).ok_or_else(|| {
                let text = format!("dimension {dim} of {stored} times pack {} is more than {LARGEST}", scale.by);
                Fault::Expression.error(format_args!("{}: {text}", whose(names, listing, rules, place)))
            })?;
            let told = *sizes.entry(shown).or_insert(Told { size, by: place });
            if told.size != size {
                let other = label(names, listing, told.by);
                return Err(Fault::Stored.error(format_args!(
                    "{}: dimension {dim} of size {stored} times {} makes {size} of the logical dimension {shown}, \
                     and {other} makes {}",
                    whose(names, listing, rules, place),
                    scale.by,
                    told.size
                )));
            }
        }
        if let Some(slot) = self.sizes.get_mut(logical) {
            *slot = Some(sizes);
        }
        Ok(())
    }

    /// Whether blocks are as many as the logical size needs.
    fn check_blocks(&self, place: usize, names: &Names, listing: &dyn Listing, rules: &Rules) -> Result<()> {
        let Some(Some(sizes)) = self.sizes.get(names.logical_of(place)) else { return Ok(()) };
        let Some(tensor) = names.order.get(place).map(|number| listing.tensor(*number)) else { return Ok(()) };
        for (dim, stored) in tensor.shape.iter().enumerate() {
            let Some(Shows { dim: shown, scale }) = self.shows(place, dim, names) else { continue };
            let Some(told) = sizes.get(&shown).filter(|_| scale.how == How::Block) else { continue };
            let size = u64::try_from(told.size).unwrap_or(0);
            let blocks = size.div_ceil(u64::try_from(scale.by).unwrap_or(1).max(1));
            if u64::try_from(*stored) != Ok(blocks) {
                let other = label(names, listing, told.by);
                return Err(Fault::Stored.error(format_args!(
                    "{}: dimension {dim} has the size {stored}, and blocks of {} in the logical dimension {shown} of \
                     size {size} (by {other}) are {blocks}",
                    whose(names, listing, rules, place),
                    scale.by
                )));
            }
        }
        Ok(())
    }

    /// The size of a logical dimension, if anything tells it.
    pub(super) fn size(&self, place: usize, dim: u64, names: &Names, shape: &[i64]) -> Option<u64> {
        let size = match self.sizes.get(names.logical_of(place)) {
            Some(Some(sizes)) => sizes.get(&dim)?.size,
            _ => *shape.get(usize::try_from(dim).ok()?)?,
        };
        u64::try_from(size).ok()
    }
}

/// A tensor in a message, with the logical one that it shows where that has another name.
pub(super) fn label(names: &Names, listing: &dyn Listing, place: usize) -> String {
    let name = names.order.get(place).map_or(&[][..], |number| listing.tensor(*number).name);
    match names.logical.get(names.logical_of(place)) {
        Some(Logical::Named(logical)) if logical != name => {
            format!("tensor {} (it shows {})", quoted(name), quoted(logical))
        }
        _ => format!("tensor {}", quoted(name)),
    }
}

fn whose(names: &Names, listing: &dyn Listing, rules: &Rules, place: usize) -> String {
    let entry = names.entries.get(place).copied().flatten().and_then(|entry| rules.stored.get(entry));
    let tensor = label(names, listing, place);
    entry.map_or_else(|| tensor.clone(), |entry| format!("{}: {tensor}", entry.place))
}
