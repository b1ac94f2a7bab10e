// SPDX-License-Identifier: Apache-2.0
//! Results that are made once and looked up: of FP4 for each byte that a scale can
//! be, of FP8 for each scale of many rows.
#![forbid(unsafe_code)]
#![allow(clippy::arithmetic_side_effects, reason = "numbers of codes and scales of a box")]

use super::kernel::{Level, CHUNK};
use super::op::{GroupSpan, Magnitudes, Op, Packed, Room, Runs, Sixteen};
use super::parameters::Parameters;
use super::view::View;
use crate::base::memory;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::model::groups::recipe::Recipe;
use crate::model::groups::recipe::{Code, ScaleLayout, ScaleType};

pub(super) enum Tables {
    None,
    ByScale(Box<[Sixteen; 256]>),
    ByMagnitude(Lines),
}

/// A table for each scale of the rows that have been looked at last.
pub(super) struct Lines {
    tables: Vec<Magnitudes>,
    /// The number of the first one's scale; none before the first row.
    first: Option<usize>,
}

/// Whether a box has scales enough to make the results of all there can be.
pub(super) fn pay_by_scale(recipe: Recipe, to: Dtype, scales: &View<'_>) -> bool {
    to != Dtype::F32
        && recipe.code == Code::E2M1
        && matches!(recipe.scale_type, ScaleType::E8M0 | ScaleType::E4M3)
        && matches!(recipe.scale_layout, ScaleLayout::Groups | ScaleLayout::Swizzled)
        && scales.bytes.len() >= 16 * 256
}

/// Whether scales are shared by so many codes of FP8 that results are looked up faster than made.
pub(super) fn pay_by_magnitude(recipe: Recipe, to: Dtype, parameters: &Parameters<'_>, width: usize) -> bool {
    let Some((each, rows)) = parameters.shared() else { return false };
    let codes = (width as u64 / each.max(1) as u64).saturating_mul(rows);
    to != Dtype::F32 && matches!(recipe.code, Code::E4M3 | Code::E5M2) && codes >= 16 * 128 && each <= 1024
}

impl Tables {
    pub(super) fn by_scale(level: Level, op: &Op, dtype: Dtype, to: Dtype, desk: &mut [u8; CHUNK]) -> Result<Self> {
        let bytes: [u8; 256] = std::array::from_fn(|scale| u8::try_from(scale).unwrap_or_default());
        let codes: [u8; 16 * 256] = std::array::from_fn(|number| u8::try_from(number % 16).unwrap_or_default());
        let scales = View { dtype, ranges: &[], bytes: &bytes }.floats()?;
        let runs = Runs { scales: &scales, zeros: &[], span: GroupSpan { left: 16, group: 16 } };
        let mut results = Box::new([[0; 32]; 256]);
        let room = Room { bytes: results.as_flattened_mut(), ahead: 0 };
        level.run(op, &runs, Packed::Bytes(&codes), to, room, desk);
        Ok(Self::ByScale(results))
    }

    pub(super) fn by_magnitude() -> Self {
        Self::ByMagnitude(Lines { tables: Vec::new(), first: None })
    }
}

impl Lines {
    /// Makes the tables of a row's scales, unless they are those of the row before.
    pub(super) fn refresh(
        &mut self,
        level: Level,
        op: &Op,
        parameters: &Parameters<'_>,
        row: usize,
        to: Dtype,
        desk: &mut [u8; CHUNK],
    ) -> Option<()> {
        let (first, scales) = parameters.line(row)?;
        if self.first == Some(first) {
            return Some(());
        }
        let codes: [u8; 128] = std::array::from_fn(|code| u8::try_from(code).unwrap_or_default());
        memory::reserve(&mut self.tables, scales.len(), "a group's results").ok()?;
        self.tables.resize(scales.len(), [0; 256]);
        for (table, scale) in self.tables.iter_mut().zip(scales) {
            let span = GroupSpan { left: usize::MAX, group: usize::MAX };
            let runs = Runs { scales: std::slice::from_ref(scale), zeros: &[], span };
            level.run(op, &runs, Packed::Bytes(&codes), to, Room { bytes: table, ahead: 0 }, desk);
        }
        self.first = Some(first);
        Some(())
    }

    /// The tables from that of the scale of this number on.
    pub(super) fn from(&self, scale: usize) -> Option<&[Magnitudes]> {
        self.tables.get(scale.checked_sub(self.first?)?..)
    }
}
