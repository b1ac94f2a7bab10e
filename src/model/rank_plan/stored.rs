// SPDX-License-Identifier: Apache-2.0
//! Stored tensors and the logical ones they show, for given sizes of axes.
#![forbid(unsafe_code)]

use super::budget::Budget;
use super::evaluator::Evaluator;
use super::expression::LARGEST;
use super::fault::Fault;
use super::intervals::Scale;
use super::names::Names;
use super::pattern::Dotted;
use super::rule::{How, Rules, StoredEntry};
use super::tensor_list::{ListedTensor, TensorList};
use crate::base::memory;
use crate::error::{quoted, Result};

/// What a stored dimension shows: a logical one, at a scale.
#[derive(Clone, Copy, Debug)]
pub(super) struct ScaledDim {
    pub(super) dim: u64,
    pub(super) scale: Scale,
}

/// How large a logical dimension is, and the first bundle that shows it.
#[derive(Clone, Copy)]
struct KnownSize {
    dim: u64,
    size: i64,
    bundle: usize,
}

/// The tensors of a plan.
#[derive(Clone, Copy)]
pub(super) struct PlannedTensors<'p> {
    pub(super) rules: &'p Rules,
    pub(super) names: &'p Names,
    pub(super) listing: &'p dyn TensorList,
}

/// The scales of all entries, and the sizes of logical dimensions that
/// tensors show together.
#[derive(Default)]
pub(super) struct LogicalSizes {
    /// One for each entry; none where the entry is not used.
    entries: Vec<Option<Vec<Option<ScaledDim>>>>,
    /// Of each bundle.
    sizes: Vec<Vec<KnownSize>>,
}

impl<'p> PlannedTensors<'p> {
    /// The tensor at a place.
    pub(super) fn tensor(&self, place: usize) -> ListedTensor<'p> {
        self.listing.tensor(self.names.tensors.get(place).map_or(0, |tensor| tensor.number))
    }

    fn entry(&self, kind: usize) -> Option<&'p StoredEntry> {
        self.rules.stored.get(self.names.kinds.get(kind)?.entry?)
    }

    /// The tensor of a place in a message, with the logical one that it shows where that has another name.
    #[cold]
    #[inline(never)]
    pub(super) fn label(&self, place: usize) -> String {
        let name = self.tensor(place).name;
        let family = self.names.tensors.get(place).and_then(|tensor| self.names.families.get(tensor.family as usize));
        let mut logical = Vec::new();
        if let Some(entry) = family.and_then(|family| self.entry(family.kind)) {
            let dots: Vec<usize> = (0..).zip(name).filter(|(_, byte)| **byte == b'.').map(|(at, _)| at).collect();
            entry.logical.rename(&entry.pattern, &Dotted::new(name, &dots), &mut logical);
        }
        match logical.is_empty() || logical == name {
            true => format!("tensor {}", quoted(name)),
            false => format!("tensor {} (it shows {})", quoted(name), quoted(&logical)),
        }
    }

    /// The same, of a tensor with an entry: with the entry.
    fn label_with_entry(&self, place: usize, kind: usize) -> String {
        let tensor = self.label(place);
        self.entry(kind).map_or_else(|| tensor.clone(), |entry| format!("{}: {tensor}", entry.place))
    }

    /// The first tensor of a kind that shows the logical tensor that another one shows.
    fn sibling(&self, place: usize, kind: usize) -> String {
        let names = self.names;
        let logical = names.tensors.get(place).map(|tensor| tensor.logical);
        let kind_of = |family: u32| names.families.get(family as usize).map(|family| family.kind);
        let is_wanted = |tensor: &super::names::NamedTensor| {
            Some(tensor.logical) == logical && kind_of(tensor.family) == Some(kind)
        };
        self.label(names.tensors.iter().position(is_wanted).unwrap_or(place))
    }
}

impl LogicalSizes {
    /// Makes sure that entries fit the tensors, which fit one another.
    pub(super) fn new<'p>(
        subject: PlannedTensors<'p>,
        values: &mut Evaluator<'p>,
        budget: &mut Budget,
    ) -> Result<Self> {
        let mut this = Self::default();
        if subject.rules.stored.is_empty() {
            return Ok(this);
        }
        // Kinds, bundles and families are in the order of the first tensors of each.
        this.entries = memory::vec_with_capacity(subject.rules.stored.len(), "entries")?;
        this.entries.resize_with(subject.rules.stored.len(), || None);
        for kind in &subject.names.kinds {
            let Some(entry) = kind.entry else { continue };
            this.check_entry(entry, kind.first, subject, values)?;
        }
        this.sizes = memory::vec_with_capacity(subject.names.bundles.len(), "logical tensors")?;
        for bundle in 0..subject.names.bundles.len() {
            let known = this.find_sizes(bundle, subject, budget)?;
            this.sizes.push(known);
        }
        for family in 0..subject.names.families.len() {
            this.check_blocks(family, subject)?;
        }
        Ok(this)
    }

    fn check_entry<'p>(
        &mut self,
        number: usize,
        place: usize,
        subject: PlannedTensors<'p>,
        values: &mut Evaluator<'p>,
    ) -> Result<()> {
        let Some(entry) = subject.rules.stored.get(number) else { return Ok(()) };
        let rank = subject.tensor(place).shape.len();
        if entry.dims.len() > rank {
            let text =
                format!("{} has {rank} dimensions, and dims describes {}", subject.label(place), entry.dims.len());
            return Err(Fault::Stored.at(&entry.place, &text));
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
            let by = match &shown.by {
                None => 1,
                Some(by) => values.get(by, what, &|| format!("{}: {}", entry.place, subject.label(place)))?,
            };
            if by == 0 {
                let text = format!("{}: {what} is 0, below 1", subject.label(place));
                return Err(Fault::Expression.at(&entry.place, &text));
            }
            let scale = Scale { how: shown.how, by: i64::try_from(by).unwrap_or(i64::MAX) };
            dims.push(Some(ScaledDim { dim: shown.dim, scale }));
        }
        *known = Some(dims);
        Ok(())
    }

    /// What a dimension of the tensors of a kind shows.
    pub(super) fn shows(&self, entry: Option<usize>, dim: usize) -> Option<ScaledDim> {
        match entry {
            None => Some(ScaledDim { dim: dim as u64, scale: Scale::ONE }),
            Some(entry) => *self.entries.get(entry)?.as_ref()?.get(dim)?,
        }
    }

    /// The sizes of logical dimensions that the tensors of a bundle show by `pack`.
    fn find_sizes(&self, number: usize, subject: PlannedTensors<'_>, budget: &mut Budget) -> Result<Vec<KnownSize>> {
        let Some(bundle) = subject.names.bundles.get(number) else { return Ok(Vec::new()) };
        let entry = subject.names.kinds.get(bundle.kind).and_then(|kind| kind.entry);
        let before = bundle.before.and_then(|before| self.sizes.get(before)).map_or(&[][..], Vec::as_slice);
        let tensor = subject.tensor(bundle.first);
        budget.spend(before.len() as u64)?;
        let mut sizes = memory::vec_with_capacity(before.len().saturating_add(tensor.shape.len()), "sizes")?;
        sizes.extend_from_slice(before);
        for (dim, stored) in tensor.shape.iter().enumerate() {
            let Some(ScaledDim { dim: shown, scale }) =
                self.shows(entry, dim).filter(|shows| shows.scale.how == How::Pack)
            else {
                continue;
            };
            let wrong = |fault: Fault, text: &str| {
                Err(fault.error(&format!("{}: {text}", subject.label_with_entry(bundle.first, bundle.kind))))
            };
            let Some(size) = stored.checked_mul(scale.by) else {
                let text = format!("dimension {dim} of {stored} times pack {} is more than {LARGEST}", scale.by);
                return wrong(Fault::Expression, &text);
            };
            // The dimensions that one tensor shows are all different.
            budget.spend(before.len() as u64)?;
            match before.iter().find(|known| known.dim == shown) {
                None => sizes.push(KnownSize { dim: shown, size, bundle: number }),
                Some(known) if known.size == size => {}
                Some(known) => {
                    let kind = subject.names.bundles.get(known.bundle).map_or(0, |bundle| bundle.kind);
                    let text = format!(
                        "dimension {dim} of size {stored} times {} makes {size} of the logical dimension {shown}, and {} makes {}",
                        scale.by,
                        subject.sibling(bundle.first, kind),
                        known.size
                    );
                    return wrong(Fault::Stored, &text);
                }
            }
        }
        Ok(sizes)
    }

    /// Whether blocks are as many as the logical size needs.
    fn check_blocks(&self, number: usize, subject: PlannedTensors<'_>) -> Result<()> {
        let Some(family) = subject.names.families.get(number) else { return Ok(()) };
        let Some(sizes) = family.bundle.and_then(|bundle| self.sizes.get(bundle)) else { return Ok(()) };
        let Some(entry) = subject.names.kinds.get(family.kind).and_then(|kind| kind.entry) else { return Ok(()) };
        for (dim, stored) in subject.tensor(family.first).shape.iter().enumerate() {
            let Some(ScaledDim { dim: shown, scale }) = self.shows(Some(entry), dim) else { continue };
            let known = sizes.iter().find(|known| known.dim == shown && scale.how == How::Block);
            let Some(known) = known else { continue };
            let size = known.size.unsigned_abs();
            let blocks = size.div_ceil(scale.by.unsigned_abs().max(1));
            if stored.unsigned_abs() != blocks {
                let kind = subject.names.bundles.get(known.bundle).map_or(0, |bundle| bundle.kind);
                return Err(Fault::Stored.error(&format!(
                    "{}: dimension {dim} has the size {stored}, and blocks of {} in the logical dimension {shown} of \
                     size {size} (by {}) are {blocks}",
                    subject.label_with_entry(family.first, family.kind),
                    scale.by,
                    subject.sibling(family.first, kind)
                )));
            }
        }
        Ok(())
    }

    /// The size of a logical dimension of the tensors of a family, if anything shows it.
    pub(super) fn size(&self, bundle: Option<usize>, dim: u64, shape: &[i64]) -> Option<u64> {
        let size = match bundle.and_then(|bundle| self.sizes.get(bundle)) {
            Some(sizes) => sizes.iter().find(|known| known.dim == dim)?.size,
            None => *shape.get(usize::try_from(dim).ok()?)?,
        };
        u64::try_from(size).ok()
    }
}
