// SPDX-License-Identifier: Apache-2.0
//! Groups as the load engine sees them.

use std::ops::Range;

use super::group::Group;
use super::recipe::Packing;
use crate::checkpoint::Checkpoint;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::group::st_group;
use crate::load::{Assembly, MemberBox, Rows, Span};
use crate::record::{self, Tensor};

/// A group that can be decoded, and the checkpoint that it is of.
struct Decoding<'a> {
    checkpoint: &'a Checkpoint,
    group: &'a Group,
    anchor: &'a Tensor,
}

/// What decodes the group of a record, or of a copy of one.
///
/// # Errors
/// `InvalidArgument` for a record that is not the library's; the group's own status
/// where it can't be decoded.
///
/// # Safety
/// The record's st_groups, if it is of one, is alive for as long as the result is used.
pub(crate) unsafe fn assembly<'a>(record: &st_group) -> Result<Box<dyn Assembly + 'a>> {
    // SAFETY: the caller's promise.
    let (checkpoint, group) = unsafe { super::record::linked(record)? };
    group.assembly(checkpoint)
}

impl Group {
    /// What decodes this group of a checkpoint's.
    ///
    /// # Errors
    /// The group's own status where it can't be decoded.
    pub fn assembly<'a>(&'a self, checkpoint: &'a Checkpoint) -> Result<Box<dyn Assembly + 'a>> {
        self.usable()?;
        let codes = self.members.first().and_then(|codes| checkpoint.tensors().get(codes.tensor));
        let anchor = codes.ok_or_else(|| Error::new(ErrorKind::Internal, "a group has no codes"))?;
        Ok(Box::new(Decoding { checkpoint, group: self, anchor }))
    }
}

impl Assembly for Decoding<'_> {
    fn name(&self) -> &[u8] {
        &self.group.name
    }

    fn shape(&self) -> &[i64] {
        &self.group.shape
    }

    fn step(&self) -> &[i64] {
        &self.group.step
    }

    fn block(&self) -> &[i64] {
        &self.group.block
    }

    fn by_columns(&self) -> bool {
        let packing = self.group.recipe.map(|recipe| recipe.packing);
        matches!(packing, Some(Packing::Columns | Packing::AwqColumns))
    }

    fn anchor(&self) -> &Tensor {
        self.anchor
    }

    fn boxes(&self, logical: &[Span]) -> Result<Vec<MemberBox<'_>>> {
        let bound = |bound: u64| i64::try_from(bound).unwrap_or(i64::MAX);
        let boxes = self.group.boxes(self.checkpoint, &ranges(logical)).into_iter();
        let members = boxes.filter_map(|found| {
            let tensor = self.checkpoint.tensors().get(found.tensor)?;
            let ranges = found.ranges.iter().map(|range| record::Range {
                start: bound(range.start),
                stop: bound(range.end),
                step: 1,
            });
            Some(MemberBox { tensor, ranges: ranges.collect() })
        });
        Ok(members.collect())
    }

    fn decode(&self, logical: &[Span], boxes: &[&[u8]], to: Dtype, rows: &mut dyn Rows) -> Result<()> {
        let logical = ranges(logical);
        let members = self.group.boxes(self.checkpoint, &logical);
        self.group.decode(self.checkpoint, &logical, &members, boxes, to, rows)
    }
}

fn ranges(logical: &[Span]) -> Vec<Range<u64>> {
    logical.iter().map(|span| span.start..span.stop).collect()
}
