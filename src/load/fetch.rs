// SPDX-License-Identifier: Apache-2.0
//! Reading as results ask for it: the runs of a part, the boxes of a group.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::assembly::{MemberBox, Rows};
use super::boxes::{Boxes, Rect};
use super::delivery::Delivery;
use super::destination::Memory;
use super::errors::fault;
use super::reader::{Reader, TWO_BLOCKS};
use super::workspace::count;
use crate::base::extent::Extent;
use crate::base::memory::{self, Aligned};
use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::format::slice::{Fetch, Selection};
use crate::record::Tensor;

fn read(
    tensor: &Tensor,
    reader: &mut Reader<'_, '_>,
    delivery: &mut Delivery<'_, '_, '_>,
    start: u64,
    mut out: &mut [u8],
) -> Result<()> {
    let mut offset = tensor.offset().saturating_add(start);
    let way = reader.way(tensor.shard(), Extent::new(offset, out.len() as u64))?;
    while !out.is_empty() {
        delivery.go_on()?;
        let most = reader.largest(tensor.shard(), out.len())?;
        let (now, later) = out.split_at_mut_checked(most).ok_or_else(fault)?;
        reader.read(tensor.shard(), offset, now, way)?;
        offset = offset.saturating_add(now.len() as u64);
        out = later;
    }
    Ok(())
}

fn stage<'r>(
    tensor: &Tensor,
    reader: &'r mut Reader<'_, '_>,
    delivery: &mut Delivery<'_, '_, '_>,
    start: u64,
    len: usize,
) -> Result<&'r [u8]> {
    delivery.go_on()?;
    let bytes = Extent::new(tensor.offset().saturating_add(start), len as u64);
    let way = reader.way(tensor.shard(), bytes)?;
    reader.window(tensor.shard(), bytes, way)
}

/// A member's box: in memory of the worker's, or where it lies.
enum FoundMember<'a> {
    Read(usize),
    Lying(&'a [u8]),
}

/// The bytes of a tensor.
pub(super) struct TensorBytes<'t, 'w, 'a, 's, 'h> {
    tensor: &'t Tensor,
    reader: &'w mut Reader<'a, 's>,
    delivery: &'w mut Delivery<'a, 's, 'h>,
    limits: (u64, u64),
}

impl<'t, 'w, 'a, 's, 'h> TensorBytes<'t, 'w, 'a, 's, 'h> {
    pub(super) fn new(
        tensor: &'t Tensor,
        reader: &'w mut Reader<'a, 's>,
        delivery: &'w mut Delivery<'a, 's, 'h>,
        (max_gap, window, run): (u64, u64, u64),
    ) -> Result<Self> {
        let gap = reader.widest_gap(tensor.shard(), max_gap, run)?;
        let limits = (gap, reader.most(tensor.shard())?.min(window.saturating_sub(TWO_BLOCKS)));
        Ok(Self { tensor, reader, delivery, limits })
    }
}

impl Fetch for TensorBytes<'_, '_, '_, '_, '_> {
    fn straight(&mut self, start: u64, out: &mut [u8]) -> Result<()> {
        read(self.tensor, self.reader, self.delivery, start, out)
    }

    fn staged(&mut self, start: u64, len: usize) -> Result<&[u8]> {
        stage(self.tensor, self.reader, self.delivery, start, len)
    }

    fn limits(&self) -> (u64, u64) {
        self.limits
    }
}

/// Reads what a box of a group needs, into memory that stays from one box to the next.
pub(super) fn members<'m, 'a: 'm, 's>(
    checkpoint: &Checkpoint,
    wanted: &[MemberBox<'_>],
    reader: &mut Reader<'a, 's>,
    delivery: &mut Delivery<'a, 's, '_>,
    (max_gap, window): (u64, u64),
    rooms: &'m mut Vec<Aligned>,
) -> Result<Vec<&'m [u8]>> {
    let mut found = memory::vec_with_capacity(wanted.len(), "the members of a group")?;
    for (number, MemberBox { tensor, ranges }) in wanted.iter().enumerate() {
        let tensor = checkpoint.own(tensor)?;
        let selection = Arc::new(Selection::of_ranges(tensor, ranges)?);
        let size = count(selection.size())?;
        if selection.is_one_piece() {
            delivery.go_on()?;
            let bytes = Extent::new(tensor.offset().saturating_add(selection.first()), selection.size());
            if let Some(bytes) = reader.lying(tensor.shard(), bytes)? {
                found.push(FoundMember::Lying(bytes));
                continue;
            }
        }
        while rooms.len() <= number {
            memory::reserve(rooms, 1, "the members of a group")?;
            rooms.push(Aligned::zeroed(0, "a member of a group")?);
        }
        let room = rooms.get_mut(number).ok_or_else(fault)?;
        if room.as_mut().len() < size {
            *room = Aligned::zeroed(size, "a member of a group")?;
        }
        let mut bytes = TensorBytes::new(tensor, &mut *reader, &mut *delivery, (max_gap, window, selection.unit()))?;
        selection.fetch(0, room.as_mut().get_mut(..size).ok_or_else(fault)?, &mut bytes)?;
        found.push(FoundMember::Read(size));
    }
    // Members that lie elsewhere have no room, or one that is not used.
    let mut slices = memory::vec_with_capacity(found.len(), "the members of a group")?;
    for (number, member) in found.iter().enumerate() {
        slices.push(match member {
            FoundMember::Lying(bytes) => *bytes,
            FoundMember::Read(size) => {
                rooms.get(number).and_then(|room| room.as_slice().get(..*size)).ok_or_else(fault)?
            }
        });
    }
    Ok(slices)
}

/// Rows of a dense result in the caller's memory.
pub(super) struct RowsInPlace<'b, 'a> {
    pub(super) boxes: &'b Boxes<'a>,
    pub(super) rect: Rect,
    pub(super) place: Memory<'a>,
}

impl Rows for RowsInPlace<'_, '_> {
    fn row(&mut self, row: usize) -> Result<&mut [u8]> {
        let Rect { row: first, rows, column, columns } = self.rect;
        let row = u64::try_from(row).ok().filter(|row| *row < rows).ok_or_else(fault)?;
        let len = self.boxes.bytes(Rect { row: 0, rows: 1, column: 0, columns });
        self.place.dense(self.boxes.place(first.saturating_add(row), column), count(len)?)
    }
}

/// Rows one after the other.
pub(super) struct RowsInRoom<'b> {
    pub(super) bytes: &'b mut [u8],
    pub(super) stride: usize,
}

impl Rows for RowsInRoom<'_> {
    fn row(&mut self, row: usize) -> Result<&mut [u8]> {
        let start = row.checked_mul(self.stride).ok_or_else(fault)?;
        self.bytes.get_mut(start..).and_then(|rest| rest.get_mut(..self.stride)).ok_or_else(fault)
    }
}
