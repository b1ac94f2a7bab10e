// SPDX-License-Identifier: Apache-2.0
//! Values of a box of a group, from the boxes of its members.
//!
//! Scales and zero points of the whole box come first, in runs for each row
//! (`parameters`, `zeros`). Then each row's codes become values: where they lie, if
//! a kernel takes them so, or unpacked to bytes, some KiB at a time (`codes`; what is
//! stored [in, out] is turned first). What becomes of a code is data (`op`), which the
//! kernels of the processor (`kernel`, `x86`) and those of every processor (`scalar`)
//! go by. Where few results come again and again they are looked up (`tables`).
#![deny(unsafe_code)]
#![allow(
    clippy::arithmetic_side_effects,
    reason = "a group's members have 2^48 elements at most, and boxes lie within; divisors are above 0"
)]

mod codes;
mod kernel;
mod op;
mod parameters;
mod scalar;
mod tables;
#[cfg(test)]
mod tests;
mod view;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "SIMD loads and stores")]
mod x86;
mod zeros;

use std::ops::Range;

use self::codes::{Codes, Strip};
pub use self::kernel::without_avx512;
use self::kernel::{Level, CHUNK};
use self::op::{Op, Packed, Room, Tail, Values};
use self::parameters::{Parameters, Wanted};
use self::tables::Tables;
use self::view::{lacking, Members};
use super::boxes::MemberPart;
use super::group::{Group, Role};
use super::recipe::Recipe;
use super::recipe::{Code, ColumnOrder, Global, Zero};
use crate::checkpoint::Checkpoint;
use crate::convert;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::load::Rows;

impl Group {
    /// Decodes a box of the logical tensor: `bytes` are those of its boxes, dense and in their order.
    ///
    /// # Errors
    /// `Unsupported` for another dtype than F32, F16 and BF16, `Group` for what the
    /// members hold, or what `rows` said.
    pub(crate) fn decode(
        &self,
        checkpoint: &Checkpoint,
        logical: &[Range<u64>],
        boxes: &[MemberPart],
        bytes: &[&[u8]],
        to: Dtype,
        rows: &mut dyn Rows,
    ) -> Result<()> {
        self.usable()?;
        if !matches!(to, Dtype::F32 | Dtype::F16 | Dtype::Bf16) {
            let text = ["a group decodes to F32, F16 or BF16, not to ", to.name()].concat();
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        if logical.len() != self.shape.len() || logical.iter().any(Range::is_empty) {
            return Ok(());
        }
        let members = Members { checkpoint, boxes, bytes };
        let mut decoder = Decoder::new(self, logical, &members, to, Level::best())?;
        if decoder.codes.is_turned() {
            return decoder.turned(rows);
        }
        decoder.straight(rows)
    }
}

/// FP4's values by code.
const FP4: [f32; 16] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

/// What codes become by this recipe.
fn op(group: &Group, recipe: Recipe, members: &Members<'_>) -> Result<Op> {
    let global = || members.view(Role::Global)?.floats()?.first().copied().ok_or_else(lacking);
    Ok(Op {
        values: match recipe.code {
            Code::Map => {
                let map = <[f32; 16]>::try_from(members.view(Role::Map)?.floats()?);
                Values::Table(map.map_err(|_| lacking())?)
            }
            Code::E2M1 => Values::Table(FP4),
            Code::Unsigned => Values::Unsigned { bits: group.bits },
            Code::Signed => Values::Signed,
            Code::E2M3 => Values::E2M3,
            Code::E4M3 => Values::E4M3,
            Code::E5M2 => Values::E5M2,
        },
        tail: match (recipe.global, recipe.zero) {
            (Global::Multiply, _) => Tail::Times(global()?),
            (Global::Divide, _) => Tail::Over(global()?),
            // 1/127, as the library has it.
            (Global::Over127, _) => Tail::Times(0.007_874_016),
            (Global::None, Zero::Offset) => Tail::Offset,
            (Global::None, _) => Tail::Scale,
        },
        zero: if recipe.zero == Zero::Middle { (1_u32 << (group.bits - 1)) as f32 } else { 0.0 },
    })
}

/// A box that is being decoded.
struct Decoder<'a> {
    level: Level,
    op: Op,
    order: Option<&'a [u32]>,
    width: usize,
    rows: usize,
    codes: Codes<'a>,
    parameters: Parameters<'a>,
    tables: Tables,
    to: Dtype,
    desk: Box<Desk>,
}

/// Places where bytes are put together on the way.
struct Desk {
    codes: [u8; CHUNK],
    values: [u8; 4 * CHUNK],
}

impl<'a> Decoder<'a> {
    fn new(group: &'a Group, logical: &[Range<u64>], members: &Members<'a>, to: Dtype, level: Level) -> Result<Self> {
        let recipe = group.recipe.ok_or_else(lacking)?;
        let size = |count: u64| usize::try_from(count).map_err(|_| lacking());
        let width = size(logical.last().map_or(0, |range| range.end - range.start))?;
        let rows = size(logical.iter().rev().skip(1).map(|range| range.end - range.start).product())?;
        let op = op(group, recipe, members)?;
        let mut desk = Box::new(Desk { codes: [0; CHUNK], values: [0; 4 * CHUNK] });
        let mut tables = Tables::None;
        let scales = members.scales(recipe)?;
        if level.has_tables() && tables::pay_by_scale(recipe, to, &scales) {
            tables = Tables::by_scale(level, &op, scales.dtype, to, &mut desk.codes)?;
        }
        let wanted = if matches!(tables, Tables::ByScale(_)) { Wanted::Bytes } else { Wanted::Floats };
        let parameters = Parameters::new(group, recipe, logical, members, wanted)?;
        if level.has_wide_tables() && tables::pay_by_magnitude(recipe, to, &parameters, width) {
            tables = Tables::by_magnitude();
        }
        Ok(Self {
            level,
            op,
            order: group.order.as_deref().filter(|_| recipe.order == ColumnOrder::Index),
            width,
            rows,
            codes: Codes::new(level, group, recipe, logical, members.view(Role::Codes)?),
            parameters,
            tables,
            to,
            desk,
        })
    }

    /// Row by row.
    fn straight(&mut self, rows: &mut dyn Rows) -> Result<()> {
        /// What is asked for ahead of results: from 1 to 4 KiB the time is the same.
        const AHEAD: usize = 2048;
        let mut unpacked = [0; CHUNK];
        for row in 0..self.rows {
            let out = rows.row(row)?;
            if let Some(codes) = self.codes.lying(row, 0) {
                self.values((row, 0), codes, out, AHEAD).ok_or_else(lacking)?;
                continue;
            }
            let step = CHUNK * self.size();
            for (number, out) in out.chunks_mut(step).enumerate() {
                let (at, count) = (number * CHUNK, out.len() / self.size());
                let codes = unpacked.get_mut(..count).ok_or_else(lacking)?;
                self.codes.unpack(row, at, codes).ok_or_else(lacking)?;
                self.values((row, at), Packed::Bytes(codes), out, AHEAD).ok_or_else(lacking)?;
            }
        }
        Ok(())
    }

    /// Some rows at once, as a line of the store has codes of all of them.
    fn turned(&mut self, rows: &mut dyn Rows) -> Result<()> {
        let mut strip = Strip::new(&self.codes)?;
        let (size, mut unpacked) = (self.size(), [0; CHUNK]);
        for first in (0..self.rows).step_by(strip.rows) {
            let count = strip.rows.min(self.rows - first);
            // Memory that is written next is that of the next rows.
            let place = |rows: &mut dyn Rows, row: usize| Ok(rows.row(row.min(self.rows - 1))?.as_ptr().addr());
            let ahead = place(rows, first + 2)?.wrapping_sub(place(rows, first)?);
            let mut at = 0;
            while at < self.width {
                let now = strip.fill(&self.codes, first, count, at, self.width - at).ok_or_else(lacking)?;
                for row in first..first + count {
                    let out = rows.row(row)?.get_mut(at * size..(at + now) * size).ok_or_else(lacking)?;
                    let desk = unpacked.get_mut(..now).ok_or_else(lacking)?;
                    let codes = strip.row(&self.codes, row, at, desk).ok_or_else(lacking)?;
                    self.values((row, at), codes, out, ahead).ok_or_else(lacking)?;
                }
                at += now;
            }
        }
        Ok(())
    }

    fn size(&self) -> usize {
        if self.to == Dtype::F32 {
            4
        } else {
            2
        }
    }

    /// What the codes of a row from `at` on become; `None` where a box is smaller than it was said to be.
    fn values(&mut self, (row, at): (usize, usize), codes: Packed<'_>, out: &mut [u8], ahead: usize) -> Option<()> {
        if let Some(order) = self.order {
            return self.indexed((row, at), order, codes, out);
        }
        let Self { level, op, parameters, tables, to, desk, .. } = self;
        let room = Room { bytes: out, ahead };
        match tables {
            Tables::None => {}
            Tables::ByScale(tables) => {
                let (scales, span) = parameters.bytes_of(row, at)?;
                level.by_scale(tables, scales, span, codes, room, &mut desk.codes);
                return Some(());
            }
            Tables::ByMagnitude(tables) => {
                let Packed::Bytes(codes) = codes else { return None };
                tables.refresh(*level, op, parameters, row, *to, &mut desk.codes)?;
                let (scale, span) = parameters.place(row, at)?;
                level.by_magnitude(tables.from(scale)?, span, codes, room);
                return Some(());
            }
        }
        level.run(op, &parameters.of(row, at)?, codes, *to, room, &mut desk.codes);
        Some(())
    }

    /// The same where an index says each column's group.
    fn indexed(&mut self, (row, at): (usize, usize), order: &[u32], codes: Packed<'_>, out: &mut [u8]) -> Option<()> {
        let runs = self.parameters.of(row, at)?;
        let (size, to) = (self.size(), self.to);
        let Desk { codes: desk, values, .. } = &mut *self.desk;
        for (number, out) in out.chunks_mut(CHUNK * size).enumerate() {
            let (start, count) = (number * CHUNK, out.len() / size);
            let codes = self.level.unpacked(codes, start, count, desk)?;
            let order = self.parameters.columns_of(order, row, at + start, count)?;
            if to == Dtype::F32 {
                self.level.indexed(&self.op, &runs, order, codes, out);
                continue;
            }
            let values = values.get_mut(..4 * count)?;
            self.level.indexed(&self.op, &runs, order, codes, values);
            convert::convert(Dtype::F32, values, to, out).ok()?;
        }
        Some(())
    }
}
