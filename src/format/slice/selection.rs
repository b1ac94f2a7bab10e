// SPDX-License-Identifier: Apache-2.0
//! What is taken of a tensor: ranges, or lists of intervals with zeros, reduced
//! to nested levels over units of bytes that lie together.
//!
//! A dimension that is taken whole, or of which one element is taken, is folded
//! away, and so is one that only carries on the one inside it. Each level that is
//! left at least doubles the result, so there are fewer than 64 of them whatever
//! the tensor's rank.
#![forbid(unsafe_code)]

use super::{picks, RangePick};
use crate::base::extent::Extent;
use crate::base::memory;
use crate::dtype::Dtype;
use crate::error::{quoted, Error, ErrorKind, Result};
use crate::part::Interval;
use crate::record::{Range, Tensor};

/// The bytes of a tensor that make up a result.
pub(crate) struct Selection {
    /// Bytes of the result, zeros included.
    size: u64,
    /// Bytes that are taken from the file.
    read_size: u64,
    /// Where the unit of all first indices lies, in bytes from the tensor's first.
    pub(super) base: u64,
    /// Bytes that lie together in the file and in the result.
    pub(super) unit: u64,
    /// Outermost first.
    pub(super) levels: Vec<LoopLevel>,
    /// Of everything, from `base` on.
    pub(super) reach: ReadReach,
}

/// A dimension, or several that are gone through as one.
pub(super) struct LoopLevel {
    /// Bytes in the file from one index to the next.
    pub(super) stride: u64,
    /// Bytes of the result that an index takes.
    pub(super) block: u64,
    /// In the result's order. Only the first may be zeros alone.
    pub(super) pieces: Vec<IndexRun>,
    /// The pieces that are read, by where they begin in the file.
    pub(super) order: Vec<usize>,
    /// What an index holds, from its first byte in the file on.
    pub(super) inside: ReadReach,
}

/// Indices that follow one another in the file and in the result, then zeros.
#[derive(Clone, Copy)]
pub(crate) struct IndexRun {
    pub(crate) start: u64,
    pub(crate) count: u64,
    pub(crate) zeros: u64,
    /// Indices of the result before it.
    pub(crate) at: u64,
}

/// From the first byte that is read to the last, and the widest gap between.
#[derive(Clone, Copy, Default)]
pub(super) struct ReadReach {
    pub(super) bytes: Extent,
    pub(super) gap: u64,
}

impl IndexRun {
    /// The index of the file after its last.
    fn end(&self) -> u64 {
        self.start.saturating_add(self.count)
    }

    /// The index of the result after it and its zeros.
    fn next(&self) -> u64 {
        self.at.saturating_add(self.count).saturating_add(self.zeros)
    }
}

impl Selection {
    /// What intervals take: one list for each dimension, `None` for all of it.
    /// Intervals come in any order.
    ///
    /// # Errors
    /// `InvalidArgument` for lists that do not fit the shape, `SubByte`,
    /// `Unsupported` for unknown dtypes.
    pub(crate) fn new(tensor: &Tensor, lists: &[Option<&[Interval]>]) -> Result<Self> {
        let shape = tensor.shape();
        if lists.len() != shape.len() {
            let text = format!("{} interval lists were given for its {} dimensions", lists.len(), shape.len());
            return Err(Error::tensor(ErrorKind::InvalidArgument, tensor.name(), text));
        }
        let mut builder = LevelBuilder::new(tensor)?;
        for (dimension, (size, list)) in shape.iter().zip(lists).enumerate().rev() {
            let size = u64::try_from(*size).unwrap_or_default();
            let added = match list {
                None => builder.add(size, RangePick { size, start: 0, step: 1, count: size }),
                Some(list) => {
                    let pieces = pieces(list, size).map_err(|fault| {
                        let text = format!("dimension {dimension} (size {size}): {fault}");
                        Error::tensor(ErrorKind::InvalidArgument, tensor.name(), text)
                    })?;
                    builder.add_list(size, pieces)
                }
            };
            added.ok_or_else(|| builder.too_large())?;
        }
        builder.finish()
    }

    /// What ranges take.
    ///
    /// # Errors
    /// `InvalidArgument` for ranges outside the shape, `SubByte`, `Unsupported`
    /// for unknown dtypes.
    pub(crate) fn of_ranges(tensor: &Tensor, ranges: &[Range]) -> Result<Self> {
        let mut builder = LevelBuilder::new(tensor)?;
        let picks = picks(tensor.shape(), tensor.name(), ranges)?;
        let mut empty = false;
        for pick in picks.clone() {
            empty |= pick?.count == 0;
        }
        if empty {
            return Ok(Self::nothing());
        }
        for pick in picks.rev() {
            let pick = pick?;
            builder.add(pick.size, pick).ok_or_else(|| builder.too_large())?;
        }
        builder.finish()
    }

    fn nothing() -> Self {
        Self { size: 0, read_size: 0, base: 0, unit: 0, levels: Vec::new(), reach: ReadReach::default() }
    }

    /// Bytes of the result, zeros included.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that are taken from the file.
    pub(crate) fn read_size(&self) -> u64 {
        self.read_size
    }

    /// Where the first byte that is read lies, from the tensor's first.
    pub(crate) fn first(&self) -> u64 {
        self.base.saturating_add(self.reach.bytes.start)
    }

    /// From there to after the last one, with what lies between.
    pub(crate) fn span(&self) -> u64 {
        self.reach.bytes.len
    }

    /// Whether the result is one piece of the file.
    pub(crate) fn is_one_piece(&self) -> bool {
        self.levels.is_empty()
    }
}

/// The indices that a list takes of a dimension of `size`, in their shortest form.
pub(crate) fn pieces(list: &[Interval], size: u64) -> Result<Vec<IndexRun>, String> {
    let mut pieces: Vec<IndexRun> = Vec::new();
    let mut at = 0_u64;
    for (number, interval) in list.iter().enumerate() {
        let bound = |bound: i64| u64::try_from(bound).ok();
        let (Some(start), Some(stop), Some(zeros)) =
            (bound(interval.start), bound(interval.stop), bound(interval.zeros))
        else {
            return Err(format!("interval {number} has a negative number"));
        };
        let count = stop.checked_sub(start).filter(|_| stop <= size);
        let count = count.ok_or_else(|| format!("interval {number}, from {start} to {stop}, is out of range"))?;
        let too_many = || "its intervals hold more elements than 63 bits can count".to_owned();
        let here = at;
        let next = at.checked_add(count).and_then(|at| at.checked_add(zeros));
        at = next.filter(|at| i64::try_from(*at).is_ok()).ok_or_else(too_many)?;
        match pieces.last_mut() {
            Some(last) if count == 0 => last.zeros = last.zeros.saturating_add(zeros),
            Some(last) if last.zeros == 0 && last.end() == start => {
                (last.count, last.zeros) = (last.count.saturating_add(count), zeros);
            }
            _ if count == 0 && zeros == 0 => {}
            _ => {
                memory::reserve(&mut pieces, 1, "intervals").map_err(|error| error.to_string())?;
                pieces.push(IndexRun { start, count, zeros, at: here });
            }
        }
    }
    Ok(pieces)
}

/// Levels on their way, counted in elements, innermost first.
struct LevelBuilder<'a> {
    tensor: &'a Tensor,
    dtype: Dtype,
    /// Elements of the file, and of the result, in an index of the next dimension.
    file: u64,
    result: u64,
    base: u64,
    unit: u64,
    levels: Vec<LoopLevel>,
    fits: bool,
}

impl<'a> LevelBuilder<'a> {
    fn new(tensor: &'a Tensor) -> Result<Self> {
        let dtype = tensor.dtype();
        if dtype == Dtype::Unknown {
            let text = format!("slices of the unknown dtype {} can't be cut", quoted(tensor.dtype_name()));
            return Err(Error::tensor(ErrorKind::Unsupported, tensor.name(), text));
        }
        Ok(Self { tensor, dtype, file: 1, result: 1, base: 0, unit: 1, levels: Vec::new(), fits: true })
    }

    /// Adds a dimension of which elements at even distances are taken. `None`
    /// where numbers are beyond 64 bits.
    fn add(&mut self, size: u64, RangePick { start, step, count, .. }: RangePick) -> Option<()> {
        self.base = self.base.checked_add(start.checked_mul(self.file)?)?;
        if count > 1 {
            let stride = step.checked_mul(self.file)?;
            let outermost = self.levels.last_mut().map(|level| (level.stride, level.pieces.as_mut_slice()));
            match outermost {
                None if stride == self.unit => self.unit = self.unit.checked_mul(count)?,
                Some((inner, [IndexRun { count: turns, start: 0, zeros: 0, .. }]))
                    if inner.checked_mul(*turns) == Some(stride) =>
                {
                    *turns = turns.checked_mul(count)?;
                }
                _ => self.push(stride, vec![IndexRun { start: 0, count, zeros: 0, at: 0 }]),
            }
        }
        self.grow(size, count)
    }

    /// The same for a dimension of which a list of pieces is taken.
    fn add_list(&mut self, size: u64, mut pieces: Vec<IndexRun>) -> Option<()> {
        if let [IndexRun { start, count, zeros: 0, .. }] = pieces.as_slice() {
            return self.add(size, RangePick { size, start: *start, step: 1, count: *count });
        }
        let local = pieces.last().map_or(0, IndexRun::next);
        let mut stride = self.file;
        let bits = u64::from(self.dtype.bits());
        if self.levels.is_empty() && self.unit == self.file && (stride % 8).saturating_mul(bits) % 8 != 0 {
            // Elements of less than a byte go by as many as fill whole bytes.
            let group = if (stride % 8).saturating_mul(bits) % 4 == 0 { 2 } else { 4 };
            for piece in &mut pieces {
                let numbers = [&mut piece.start, &mut piece.count, &mut piece.zeros, &mut piece.at];
                for number in numbers {
                    self.fits &= number.is_multiple_of(group);
                    *number = number.checked_div(group)?;
                }
            }
            self.unit = self.unit.checked_mul(group)?;
            stride = stride.checked_mul(group)?;
            let block = self.unit;
            self.push(stride, pieces);
            if let Some(level) = self.levels.last_mut() {
                level.block = block;
            }
        } else {
            self.push(stride, pieces);
        }
        self.grow(size, local)
    }

    fn push(&mut self, stride: u64, pieces: Vec<IndexRun>) {
        let level = LoopLevel { stride, block: self.result, pieces, order: Vec::new(), inside: ReadReach::default() };
        self.levels.push(level);
    }

    fn grow(&mut self, size: u64, local: u64) -> Option<()> {
        self.file = self.file.checked_mul(size)?;
        self.result = self.result.checked_mul(local)?;
        Some(())
    }

    fn too_large(&self) -> Error {
        let text = "its shape holds more elements than 64 bits can count";
        Error::tensor(ErrorKind::InvalidArgument, self.tensor.name(), text)
    }

    /// From elements to bytes. Every level is gone through twice or more, so each
    /// unit begins and ends on a byte just where all these numbers are whole bytes.
    fn finish(mut self) -> Result<Selection> {
        if self.result == 0 {
            return Ok(Selection::nothing());
        }
        let (unit, first, bits) = (self.unit, self.base, u64::from(self.dtype.bits()));
        let levels = self.levels.iter_mut().flat_map(|level| [&mut level.stride, &mut level.block]);
        for number in [&mut self.result, &mut self.base, &mut self.unit].into_iter().chain(levels) {
            // In eights and the rest: the bits of all elements together may be beyond 64 bits.
            let rest = (*number % 8).saturating_mul(bits);
            if rest % 8 != 0 || !self.fits {
                let text = format!(
                    "its runs of {unit} elements of {} from element {first} on do not all fill whole bytes",
                    self.dtype.name()
                );
                return Err(Error::tensor(ErrorKind::SubByte, self.tensor.name(), text));
            }
            let bytes = (*number / 8).checked_mul(bits).and_then(|bytes| bytes.checked_add(rest / 8));
            *number = bytes.ok_or_else(|| {
                let text = "its shape holds more bytes than 64 bits can count";
                Error::tensor(ErrorKind::InvalidArgument, self.tensor.name(), text)
            })?;
        }
        let mut reach = ReadReach { bytes: Extent::new(0, self.unit), gap: 0 };
        let mut read_size = self.unit;
        for level in &mut self.levels {
            level.inside = reach;
            reach = level.arrange()?;
            let indices = level.pieces.iter().map(|piece| piece.count).fold(0, u64::saturating_add);
            read_size = read_size.saturating_mul(indices);
        }
        self.levels.reverse();
        let (base, unit, levels) = (self.base, self.unit, self.levels);
        Ok(Selection { size: self.result, read_size, base, unit, levels, reach })
    }
}

impl LoopLevel {
    /// Where an index lies, in bytes from the level's first.
    pub(super) fn offset(&self, index: u64) -> u64 {
        index.saturating_mul(self.stride)
    }

    /// Bytes of the result that this many indices take.
    pub(super) fn bytes(&self, count: u64) -> u64 {
        count.saturating_mul(self.block)
    }

    /// Bytes that lie between what is read of one index and of the next.
    pub(super) fn gap(&self) -> u64 {
        self.stride.saturating_sub(self.inside.bytes.len)
    }

    /// Bytes of the file from what is read of an index to that of the last of `count`.
    pub(super) fn span(&self, count: u64) -> u64 {
        self.offset(count.saturating_sub(1)).saturating_add(self.inside.bytes.len)
    }

    /// How many indices can be read together, over gaps of at most `widest_gap` bytes
    /// and into a window: one at least.
    pub(super) fn together(&self, widest_gap: u64, window: u64) -> u64 {
        if self.gap() > widest_gap {
            return 1;
        }
        let room = window.saturating_sub(self.inside.bytes.len);
        room.checked_div(self.stride).unwrap_or_default().saturating_add(1)
    }

    /// Sorts the pieces that are read, and finds what all of them reach.
    fn arrange(&mut self) -> Result<ReadReach> {
        self.order = memory::vec_with_capacity(self.pieces.len(), "intervals")?;
        self.order.extend(self.pieces.iter().enumerate().filter(|(_, piece)| piece.count != 0).map(|(at, _)| at));
        let pieces = &self.pieces;
        self.order.sort_unstable_by_key(|at| pieces.get(*at).map(|piece| (piece.start, *at)));
        let inside = self.inside.bytes;
        let mut all: Option<ReadReach> = None;
        for piece in self.order.iter().filter_map(|at| pieces.get(*at)) {
            let begins = self.offset(piece.start).saturating_add(inside.start);
            let bytes = Extent::new(begins, self.span(piece.count));
            let between = if piece.count > 1 { self.gap() } else { 0 };
            let reach = all.get_or_insert(ReadReach { bytes, gap: self.inside.gap });
            let before = Extent::between(reach.bytes.end(), begins).len;
            let end = reach.bytes.end().max(bytes.end());
            reach.bytes = Extent::between(reach.bytes.start, end);
            reach.gap = reach.gap.max(between).max(before);
        }
        Ok(all.unwrap_or_default())
    }
}
