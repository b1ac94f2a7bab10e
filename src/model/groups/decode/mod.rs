// SPDX-License-Identifier: Apache-2.0
//! Values of a box of a group, from the boxes of its members.
//!
//! Scales and zero points of the whole box come first, as F32, one run of them
//! for each row (`parameters`). Then each row's codes are unpacked to bytes, some
//! KiB at a time (`codes`; what is stored [in, out] is turned first), and become
//! values there, in the L1 cache (`kernel`).
#![deny(unsafe_code)]
#![allow(
    clippy::arithmetic_side_effects,
    reason = "a group's members have 2^48 elements at most, and boxes lie within; divisors are above 0"
)]

mod codes;
mod kernel;
mod parameters;
mod scalar;
mod view;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "SIMD loads and stores")]
mod x86;

use std::ops::Range;

use self::codes::Codes;
use self::kernel::{Op, Tail, Values};
use self::parameters::Parameters;
use self::view::View;
use super::recipe::{Code, Global, Order, Packing, Zero};
use super::{Group, MemberBox, Recipe, Role};
use crate::checkpoint::Checkpoint;
use crate::dtype::Dtype;
use crate::error::{quoted, Error, ErrorKind, Result};
use crate::load::Rows;

/// Codes that are unpacked at a time: with what they become, they fit the L1 cache.
const CHUNK: usize = 2048;

/// Places where bytes are put together on the way.
struct Desk {
    codes: [u8; CHUNK],
    values: [f32; CHUNK],
}

/// A box that is being decoded.
struct Decoder<'a> {
    recipe: Recipe,
    order: Option<&'a [u32]>,
    columns: Range<u64>,
    rows: usize,
    codes: Codes<'a>,
    parameters: Parameters,
    map: [f32; 16],
    tail: Tail,
    to: Dtype,
}

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
        boxes: &[MemberBox],
        bytes: &[&[u8]],
        to: Dtype,
        rows: &mut dyn Rows,
    ) -> Result<()> {
        self.usable()?;
        if !matches!(to, Dtype::F32 | Dtype::F16 | Dtype::Bf16) {
            let text = format!("a group decodes to F32, F16 or BF16, not to {}", to.name());
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        if logical.len() != self.shape.len() || logical.iter().any(Range::is_empty) {
            return Ok(());
        }
        let lacking = || Error::new(ErrorKind::Internal, format!("group {}: a box is missing", quoted(&self.name)));
        let view = |role: Role| -> Option<View<'_>> {
            let number = boxes.iter().position(|found| found.role == role)?;
            let found = boxes.get(number)?;
            View::new(checkpoint.tensors().get(found.tensor)?.dtype(), &found.ranges, bytes.get(number)?)
        };
        let recipe = self.recipe.ok_or_else(lacking)?;
        let columns = logical.last().cloned().ok_or_else(lacking)?;
        let count = logical.iter().rev().skip(1).map(|range| range.end - range.start).product::<u64>();
        let global = || view(Role::Global).and_then(|view| view.floats().ok()?.first().copied()).ok_or_else(lacking);
        let tail = match (recipe.global, recipe.zero) {
            (Global::Multiply, _) => Tail::Times(global()?),
            (Global::Divide, _) => Tail::Over(global()?),
            // 1/127, as the library has it.
            (Global::Over127, _) => Tail::Times(0.007_874_016),
            (Global::None, Zero::Offset) => Tail::Offset,
            (Global::None, _) => Tail::Scale,
        };
        let mut map = FP4;
        if recipe.code == Code::Map {
            let values = view(Role::Map).ok_or_else(lacking)?.floats()?;
            map = <[f32; 16]>::try_from(values).map_err(|_| lacking())?;
        }
        let codes = Codes::new(self, recipe, logical, view(Role::Codes).ok_or_else(lacking)?);
        let decoder = Decoder {
            recipe,
            order: self.order.as_deref(),
            columns,
            rows: usize::try_from(count).map_err(|_| lacking())?,
            codes,
            parameters: Parameters::new(self, recipe, logical, &view).ok_or_else(lacking)??,
            map,
            tail,
            to,
        };
        let mut desk = Box::new(Desk { codes: [0; CHUNK], values: [0.0; CHUNK] });
        decoder.run(&mut desk, rows).ok_or_else(lacking)?
    }
}

/// FP4's values by code.
const FP4: [f32; 16] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

impl Decoder<'_> {
    /// `None` where a box is smaller than it was said to be.
    fn run(&self, desk: &mut Desk, rows: &mut dyn Rows) -> Option<Result<()>> {
        match self.recipe.packing {
            Packing::Columns | Packing::AwqColumns => self.turned(desk, rows),
            _ => self.straight(desk, rows),
        }
    }

    fn width(&self) -> usize {
        usize::try_from(self.columns.end - self.columns.start).unwrap_or_default()
    }

    /// Row by row.
    fn straight(&self, desk: &mut Desk, rows: &mut dyn Rows) -> Option<Result<()>> {
        let width = self.width();
        for row in 0..self.rows {
            let mut out = match rows.row(row) {
                Ok(out) => out,
                Err(error) => return Some(Err(error)),
            };
            let mut at = 0;
            while at < width {
                let count = CHUNK.min(width - at);
                let (now, later) = out.split_at_mut_checked(count * self.size())?;
                let Desk { codes, values } = desk;
                let codes = self.codes.unpack(row, at, codes.get_mut(..count)?)?;
                self.values(row, at, codes, values, now)?;
                (out, at) = (later, at + count);
            }
        }
        Some(Ok(()))
    }

    /// Some rows at once, as a line of the store has codes of all of them.
    fn turned(&self, desk: &mut Desk, rows: &mut dyn Rows) -> Option<Result<()>> {
        let width = self.width();
        let mut strip = codes::Strip::new();
        for first in (0..self.rows).step_by(codes::STRIP) {
            let count = codes::STRIP.min(self.rows - first);
            let mut at = 0;
            while at < width {
                let now = self.codes.turn(first, count, at, width - at, &mut strip)?;
                for row in first..first + count {
                    let out = match rows.row(row) {
                        Ok(out) => out.get_mut(at * self.size()..(at + now) * self.size())?,
                        Err(error) => return Some(Err(error)),
                    };
                    let Desk { codes, values } = desk;
                    let codes = codes.get_mut(..now)?;
                    self.codes.unpack_turned(&strip, row, first, at, codes)?;
                    self.values(row, at, codes, values, out)?;
                }
                at += now;
            }
        }
        Some(Ok(()))
    }

    fn size(&self) -> usize {
        if self.to == Dtype::F32 {
            4
        } else {
            2
        }
    }

    /// What the codes of a row from `at` on become.
    fn values(&self, row: usize, at: usize, codes: &[u8], values: &mut [f32; CHUNK], out: &mut [u8]) -> Option<()> {
        let op = Op {
            values: match self.recipe.code {
                Code::Map | Code::E2M1 => Values::Table(&self.map),
                Code::Unsigned => Values::Unsigned { bits: self.codes.bits() },
                Code::Signed => Values::Signed,
                Code::E2M3 => Values::E2M3,
                Code::E4M3 => Values::E4M3,
                Code::E5M2 => Values::E5M2,
            },
            tail: self.tail,
            zero: self.parameters.zero,
        };
        let runs = self.parameters.of(row, at)?;
        if let (Order::Index, Some(order)) = (self.recipe.order, self.order) {
            let order = self.parameters.columns_of(order, row, at, codes.len())?;
            let values = values.get_mut(..codes.len())?;
            kernel::indexed(&op, &runs, order, codes, values);
            return kernel::round(values, self.to, out);
        }
        kernel::run(&op, &runs, codes, self.to, out);
        Some(())
    }
}
