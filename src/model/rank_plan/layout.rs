// SPDX-License-Identifier: Apache-2.0
//! What a rank has of a stored tensor that is cut in known ways.
#![forbid(unsafe_code)]

use std::rc::Rc;

use super::budget::Budget;
use super::cut::SharedCut;
use super::expression::LARGEST;
use super::fault::Fault;
use super::intervals::is_all;
use super::rule::How;
use super::split::Rank;
use super::stored::ScaledDim;
use super::tensor_list::ListedTensor;
use crate::error::{Error, ErrorKind, Result};
use crate::part::Interval;

/// The local shape of parts and the pieces of their dimensions.
#[derive(Debug)]
pub(crate) struct PartLayout {
    /// The local shape.
    pub(crate) shape: Vec<i64>,
    /// The pieces of each dimension; `None`: all of it.
    pub(crate) pieces: Vec<Option<Vec<Interval>>>,
    /// Bytes of the local result.
    pub(crate) size: u64,
    /// Bytes that are read for it.
    pub(crate) read_size: u64,
}

/// A logical dimension that a rule cuts.
pub(super) struct DimCut<'p> {
    pub(super) dim: u64,
    /// The axis, by its number.
    pub(super) axis: usize,
    pub(super) ranks: u64,
    pub(super) shared: Rc<SharedCut<'p>>,
}

/// The tensor, what its dimensions show, and how an error names it.
pub(super) struct Stored<'a> {
    pub(super) tensor: ListedTensor<'a>,
    pub(super) shows: &'a dyn Fn(usize) -> Option<ScaledDim>,
    pub(super) axis_name: &'a dyn Fn(usize) -> String,
    pub(super) wrong: &'a dyn Fn(Fault, String) -> Error,
}

impl PartLayout {
    pub(super) fn new(stored: &Stored<'_>, cuts: &[DimCut<'_>], budget: &mut Budget) -> Result<Self> {
        let ListedTensor { shape, bits, size, .. } = stored.tensor;
        if cuts.is_empty() {
            let pieces = shape.iter().map(|_| None).collect();
            return Ok(Self { shape: shape.to_vec(), pieces, size, read_size: size });
        }
        let mut this = Self { shape: Vec::new(), pieces: Vec::new(), size: 0, read_size: 0 };
        // Elements of the local result, of what is read, and of the most that any rank has.
        let (mut local, mut read, mut most) = (1_u128, 1_u128, 1_u128);
        // Elements within one index of each dimension, from the last.
        let mut within: Vec<u128> = shape
            .iter()
            .rev()
            .scan(1, |product, size| {
                let after = *product;
                *product = times(after, u128::try_from(*size).unwrap_or(0));
                Some(after)
            })
            .collect();
        for (dim, stored_size) in shape.iter().enumerate() {
            let whole = u128::try_from(*stored_size).unwrap_or(0);
            let after = within.pop().unwrap_or(1);
            let shows = (stored.shows)(dim);
            let cut = shows.and_then(|shows| Some((shows, cuts.iter().find(|cut| cut.dim == shows.dim)?)));
            let pieces = match cut {
                None => None,
                Some((shows, cut)) => {
                    let axis =
                        Cutting { dim, size: *stored_size, shows, cut, row_bits: after.saturating_mul(bits.into()) };
                    axis.check(stored, budget)?;
                    Some(axis.mine(stored, budget)?).filter(|pieces| !is_all(pieces, *stored_size))
                }
            };
            let Some(pieces) = pieces else {
                this.shape.push(*stored_size);
                (local, read, most) = (times(local, whole), times(read, whole), times(most, whole));
                this.pieces.push(None);
                continue;
            };
            let sum = |count: &dyn Fn(&Interval) -> i64| {
                pieces.iter().fold(0_u128, |sum, piece| sum.saturating_add(u128::try_from(count(piece)).unwrap_or(0)))
            };
            let elements = sum(&|piece| piece.stop.saturating_sub(piece.start));
            let all = elements.saturating_add(sum(&|piece| piece.zeros));
            (local, read) = (times(local, all), times(read, elements));
            most = times(most, cut.map_or(all, |(shows, cut)| padded(shows, cut).max(all)));
            this.shape.push(i64::try_from(all).map_err(|_| too_large(stored))?);
            this.pieces.push(Some(pieces));
        }
        if bits == 0 {
            let text =
                format!("{}", (stored.wrong)(Fault::SubByte, "elements of unknown size can't be cut".to_owned()));
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        let bytes = |elements: u128| elements.saturating_mul(bits.into()).div_ceil(8);
        if bytes(most) > LARGEST.into() {
            return Err(too_large(stored));
        }
        (this.size, this.read_size) = (clamped(bytes(local)), clamped(bytes(read)));
        Ok(this)
    }
}

/// One stored dimension that shows a cut one.
struct Cutting<'a, 'p> {
    dim: usize,
    size: i64,
    shows: ScaledDim,
    cut: &'a DimCut<'p>,
    /// Bits that lie within one index of the dimension.
    row_bits: u128,
}

impl Cutting<'_, '_> {
    /// Makes sure that on no rank a cut falls inside a packed element or a byte.
    fn check(&self, stored: &Stored<'_>, budget: &mut Budget) -> Result<()> {
        let (scale, sized) = (self.shows.scale, &self.cut.shared.sized);
        let packed = u64::try_from(scale.by).unwrap_or(1);
        let step = self.step(stored);
        // A group's codes are decoded; its step says where it may be cut.
        let sub_byte = stored.tensor.step.is_empty() && self.row_bits.checked_rem(8) != Some(0);
        let rows = |stored_index: i64| u128::try_from(stored_index).unwrap_or(0).saturating_mul(self.row_bits);
        let splits_byte = |index: i64| rows(index).checked_rem(8) != Some(0);
        if scale.how == How::Pack && !(sized.is_aligned(packed) && sized.is_aligned(step)) {
            for rank in sized.distinct(self.cut.ranks, budget)? {
                for piece in sized.pieces(Rank { rank, size: self.cut.ranks }, budget)? {
                    self.stored(piece, stored)?;
                }
            }
        }
        if !sub_byte {
            return Ok(());
        }
        let wrong = |index: i64| {
            let text = format!("a cut at {index} of dimension {} falls inside a byte", self.dim);
            Err((stored.wrong)(Fault::SubByte, text))
        };
        for rank in sized.distinct(self.cut.ranks, budget)? {
            for piece in sized.pieces(Rank { rank, size: self.cut.ranks }, budget)? {
                let Interval { start, stop, zeros, .. } = self.stored(piece, stored)?;
                if let Some(index) = [start, stop, zeros].into_iter().find(|index| splits_byte(*index)) {
                    return wrong(index);
                }
            }
        }
        match splits_byte(self.size) {
            true => wrong(self.size),
            false => Ok(()),
        }
    }

    /// The pieces of this rank.
    fn mine(&self, stored: &Stored<'_>, budget: &mut Budget) -> Result<Vec<Interval>> {
        budget.spend(self.cut.shared.pieces.len() as u64)?;
        self.cut.shared.pieces.iter().map(|piece| self.stored(*piece, stored)).collect()
    }

    fn step(&self, stored: &Stored<'_>) -> u64 {
        stored.tensor.step.get(self.dim).and_then(|step| u64::try_from(*step).ok()).unwrap_or(1).max(1)
    }

    fn stored(&self, piece: Interval, stored: &Stored<'_>) -> Result<Interval> {
        let step = self.step(stored);
        let off =
            |index: i64| index != self.size && u64::try_from(index).ok().and_then(|at| at.checked_rem(step)) != Some(0);
        let off_step = [piece.start, piece.stop].into_iter().find(|index| step > 1 && off(*index));
        let result = self.shows.scale.stored(piece);
        match (off_step, result) {
            (None, Ok(piece)) => Ok(piece),
            (Some(cut), _) | (None, Err(cut)) => {
                let by = if off_step.is_some() { i64::try_from(step).unwrap_or(0) } else { self.shows.scale.by };
                let text = format!(
                    "a cut at {cut} of the logical dimension {} (axis {}, {} ranks) falls inside {by} that are packed together",
                    self.shows.dim,
                    (stored.axis_name)(self.cut.axis),
                    self.cut.ranks
                );
                Err((stored.wrong)(Fault::Packed, text))
            }
        }
    }
}

/// The most that any rank has of a dimension.
fn padded(shows: ScaledDim, cut: &DimCut<'_>) -> u128 {
    match shows.scale.how {
        How::Pack => {
            let by = u128::try_from(shows.scale.by).unwrap_or(1);
            u128::from(cut.shared.sized.padded).checked_div(by).unwrap_or(0)
        }
        // Outward rounding depends on the rank.
        How::Block => 0,
    }
}

/// A product that stays where it is too large; by 0 it is 0.
fn times(a: u128, b: u128) -> u128 {
    a.saturating_mul(b)
}

fn too_large(stored: &Stored<'_>) -> Error {
    (stored.wrong)(Fault::Expression, "the padded tensor would have more than 2^63 - 1 bytes".to_owned())
}

fn clamped(bytes: u128) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
