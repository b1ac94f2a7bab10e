// SPDX-License-Identifier: Apache-2.0
//! A part of a group as values, read and decoded in one piece.
#![forbid(unsafe_code)]

use super::boxes::MemberPart;
use super::group::Group;
use crate::base::memory;
use crate::checkpoint::Checkpoint;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::load::Rows;
use crate::record::Range;

impl Group {
    /// The boxes of members that a slice needs.
    ///
    /// # Errors
    /// As [`Group::read`] before anything is read.
    pub fn parts(&self, checkpoint: &Checkpoint, ranges: &[Range]) -> Result<Vec<MemberPart>> {
        self.usable()?;
        Ok(self.boxes(checkpoint, &self.aligned(ranges)?))
    }

    /// Decodes the part that ranges pick, dense and in C order.
    ///
    /// # Errors
    /// The group's own where it can't be decoded, `InvalidArgument` for ranges off its
    /// steps, `Unsupported` for another dtype than F32, F16 and BF16, or what reading said.
    pub fn read(&self, checkpoint: &Checkpoint, ranges: &[Range], to: Dtype) -> Result<Vec<u8>> {
        self.usable()?;
        let logical = self.aligned(ranges)?;
        let elements = logical.iter().map(count).fold(1, usize::saturating_mul);
        let size = usize::try_from(to.bits() / 8).unwrap_or_default();
        let mut values = memory::zeroed(elements.saturating_mul(size), "a group's values")?;
        self.read_into(checkpoint, ranges, to, &mut values)?;
        Ok(values)
    }

    /// The same to the start of `values`.
    ///
    /// # Errors
    /// As [`Group::read`], and `Internal` where there is no room.
    pub fn read_into(&self, checkpoint: &Checkpoint, ranges: &[Range], to: Dtype, values: &mut [u8]) -> Result<()> {
        self.usable()?;
        let logical = self.aligned(ranges)?;
        let boxes = self.boxes(checkpoint, &logical);
        let mut parts: Vec<Vec<u8>> = Vec::new();
        for found in &boxes {
            let tensor = checkpoint.tensors().get(found.tensor);
            let tensor = tensor.ok_or_else(|| Error::new(ErrorKind::Internal, "a member's number is out of range"))?;
            let bound = |bound: u64| i64::try_from(bound).unwrap_or(i64::MAX);
            let picked = found.ranges.iter();
            let picked: Vec<Range> =
                picked.map(|range| Range { start: bound(range.start), stop: bound(range.end), step: 1 }).collect();
            let elements = found.ranges.iter().map(count).fold(1, usize::saturating_mul);
            let size = elements.saturating_mul(usize::try_from(tensor.dtype().bits() / 8).unwrap_or_default());
            let mut bytes = memory::zeroed(size, "a member of a group")?;
            checkpoint.read_slice(tensor, &picked, &mut bytes)?;
            parts.push(bytes);
        }
        let size = usize::try_from(to.bits() / 8).unwrap_or_default();
        let row = logical.last().map_or(0, count).saturating_mul(size);
        let bytes: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        self.decode(checkpoint, &logical, &boxes, &bytes, to, &mut Dense { values, row })
    }
}

fn count(range: &std::ops::Range<u64>) -> usize {
    usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX)
}

/// Rows one after the other.
struct Dense<'a> {
    values: &'a mut [u8],
    row: usize,
}

impl Rows for Dense<'_> {
    fn row(&mut self, row: usize) -> Result<&mut [u8]> {
        let start = row.saturating_mul(self.row);
        let place = self.values.get_mut(start..start.saturating_add(self.row));
        place.ok_or_else(|| Error::new(ErrorKind::Internal, "a row lies outside a result"))
    }
}
