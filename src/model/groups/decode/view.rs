// SPDX-License-Identifier: Apache-2.0
//! Boxes of a group's members, dense in memory.
#![forbid(unsafe_code)]
#![allow(clippy::arithmetic_side_effects, reason = "a box of a stored tensor, whose bytes have been counted")]

use std::ops::Range;

use crate::base::memory;
use crate::checkpoint::Checkpoint;
use crate::convert;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::model::groups::boxes::MemberPart;
use crate::model::groups::group::{Group, Role};
use crate::model::groups::recipe::{Recipe, ScaleType};

/// A box is not what was asked for.
pub(super) fn lacking() -> Error {
    Error::new(ErrorKind::Internal, "a box of a group is missing, or smaller than was said")
}

/// The boxes of a group's members, and their bytes.
pub(super) struct Members<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) boxes: &'a [MemberPart],
    pub(super) bytes: &'a [&'a [u8]],
}

impl<'a> Members<'a> {
    /// That of the scales, which are of the recipe's type, also where bytes are stored as U8.
    pub(super) fn scales(&self, recipe: Recipe) -> Result<View<'a>> {
        let found = self.view(Role::Scales)?;
        let dtype = match (found.dtype, recipe.scale_type) {
            (Dtype::U8, ScaleType::E8M0) => Dtype::F8E8M0,
            (Dtype::U8, ScaleType::E4M3) => Dtype::F8E4M3,
            (dtype, _) => dtype,
        };
        Ok(View { dtype, ..found })
    }

    /// The box of a member that the recipe needs.
    pub(super) fn view(&self, role: Role) -> Result<View<'a>> {
        let view = || {
            let number = self.boxes.iter().position(|found| found.role == role)?;
            let found = self.boxes.get(number)?;
            let dtype = self.checkpoint.tensors().get(found.tensor)?.dtype();
            View::new(dtype, &found.ranges, self.bytes.get(number)?)
        };
        view().ok_or_else(lacking)
    }
}

#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) dtype: Dtype,
    pub(super) ranges: &'a [Range<u64>],
    pub(super) bytes: &'a [u8],
}

impl<'a> View<'a> {
    /// `None` where the bytes are not those of the box.
    pub(super) fn new(dtype: Dtype, ranges: &'a [Range<u64>], bytes: &'a [u8]) -> Option<Self> {
        let this = Self { dtype, ranges, bytes };
        let elements = ranges.iter().map(|range| range.end - range.start).product::<u64>();
        let whole = usize::try_from(elements).ok()?.checked_mul(this.size())?;
        (whole == bytes.len()).then_some(this)
    }

    /// Bytes of an element.
    pub(super) fn size(&self) -> usize {
        usize::try_from(self.dtype.bits() / 8).unwrap_or(1)
    }

    /// Elements of a dimension, counted from the last one.
    pub(super) fn count(&self, from_last: usize) -> usize {
        self.range(from_last).map_or(1, |range| usize::try_from(range.end - range.start).unwrap_or_default())
    }

    /// Where a dimension's box begins, counted from the last one.
    pub(super) fn start(&self, from_last: usize) -> u64 {
        self.range(from_last).map_or(0, |range| range.start)
    }

    fn range(&self, from_last: usize) -> Option<&'a Range<u64>> {
        self.ranges.len().checked_sub(from_last + 1).and_then(|dimension| self.ranges.get(dimension))
    }

    /// All its elements as F32.
    pub(super) fn floats(&self) -> Result<Vec<f32>> {
        let count = self.bytes.len() / self.size().max(1);
        let mut values = memory::zeroed(count.saturating_mul(4), "a group's scales")?;
        convert::convert(self.dtype, self.bytes, Dtype::F32, &mut values)?;
        let mut floats = memory::vec_with_capacity(count, "a group's scales")?;
        floats.extend(values.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap_or_default())));
        Ok(floats)
    }
}

/// Where the rows of a box begin, in C order of the whole tensor.
pub(super) struct FlatRows {
    /// The box's rows and the tensor's, by dimension, outermost first.
    ranges: Vec<Range<u64>>,
    sizes: Vec<u64>,
    width: u64,
}

impl FlatRows {
    pub(super) fn new(group: &Group, logical: &[Range<u64>]) -> Option<Self> {
        let sizes: Option<Vec<u64>> = group.shape.iter().map(|size| u64::try_from(*size).ok()).collect();
        let mut sizes = sizes?;
        let width = sizes.pop()?;
        Some(Self { ranges: logical.get(..sizes.len())?.to_vec(), sizes, width })
    }

    /// The number of the element at column 0 of a box's row.
    pub(super) fn start_of(&self, row: usize) -> u64 {
        let (mut left, mut number, mut unit) = (row as u64, 0, 1);
        for (range, size) in self.ranges.iter().zip(&self.sizes).rev() {
            let count = (range.end - range.start).max(1);
            number += (range.start + left % count) * unit;
            (left, unit) = (left / count, unit * size);
        }
        number * self.width
    }
}
