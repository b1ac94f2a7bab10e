// SPDX-License-Identifier: Apache-2.0
//! Zero points of a box as F32, in the order of its scales.
#![forbid(unsafe_code)]
#![allow(clippy::arithmetic_side_effects, reason = "numbers of elements of a box; divisors are above 0")]

use std::ops::Range;

use super::codes;
use super::kernel::Level;
use super::view::{lacking, Members};
use crate::base::memory;
use crate::error::Result;
use crate::model::groups::group::{Group, Role};
use crate::model::groups::recipe::Recipe;
use crate::model::groups::recipe::{nibble_of_awq, ScaleLayout, Zero};

/// Those of a box; none where all have the same, or no zero point. Offsets take their place.
pub(super) fn read(group: &Group, recipe: Recipe, rows: &Range<u64>, members: &Members<'_>) -> Result<Vec<f32>> {
    match recipe.zero {
        Zero::None | Zero::Middle => Ok(Vec::new()),
        Zero::Offset => members.view(Role::Offsets)?.floats(),
        Zero::Signed => {
            let bytes = members.view(Role::Zeros)?.bytes;
            let mut found = memory::vec_with_capacity(bytes.len(), "a group's zero points")?;
            found.extend(bytes.iter().map(|byte| f32::from(i8::from_le_bytes([*byte]))));
            Ok(found)
        }
        _ => packed(group, recipe, rows, members),
    }
}

/// Those that are packed as codes are: a line of them for each group, or for each row.
fn packed(group: &Group, recipe: Recipe, rows: &Range<u64>, members: &Members<'_>) -> Result<Vec<f32>> {
    let (stored, scales) = (members.view(Role::Zeros)?, members.view(Role::Scales)?);
    let level = Level::best();
    let count = usize::try_from(rows.end - rows.start).map_err(|_| lacking())?;
    let transposed = recipe.scale_layout == ScaleLayout::GroupsTransposed;
    let groups = scales.count(usize::from(transposed));
    let total = scales.bytes.len() / scales.size().max(1);
    let (lines, across) = (stored.count(1), stored.count(0));
    let by_row = recipe.zero == Zero::Groups;
    let down = matches!(recipe.zero, Zero::Rows | Zero::PaddedRows);
    // The first of a line, among those of its first word.
    let (first, word) = match (by_row, down) {
        (true, _) => (scales.start(0), stored.start(0)),
        (false, true) => (rows.start, stored.start(1)),
        (false, false) => (rows.start, stored.start(0)),
    };
    let mut found = memory::vec_with_capacity(total, "a group's zero points")?;
    found.resize(total, 0.0);
    let mut desk = memory::zeroed(if by_row { groups } else { count }, "a group's zero points")?;
    let mut turned = memory::zeroed(if down { stored.bytes.len() } else { 0 }, "a group's zero points")?;
    let less = u8::from(recipe.zero == Zero::ColumnsLessOne);
    let mask = u8::MAX >> (8 - group.bits.clamp(1, 8));
    let matrix = count * groups;
    for (number, found) in found.chunks_mut(matrix.max(1)).enumerate() {
        let bytes =
            stored.bytes.get(number * lines * across * 4..(number + 1) * lines * across * 4).ok_or_else(lacking)?;
        let (bytes, line) = if down {
            level.turn(bytes, across, across, lines, lines * 4, &mut turned).ok_or_else(lacking)?;
            (turned.as_slice(), lines * 4)
        } else {
            (bytes, across * 4)
        };
        for (number, line) in bytes.chunks(line.max(1)).take(if by_row { count } else { groups }).enumerate() {
            unpack(level, group.bits, recipe.zero, line, (first, word), &mut desk).ok_or_else(lacking)?;
            let (start, step) = if by_row { (number * groups, 1) } else { (number, groups) };
            for (place, zero) in found.iter_mut().skip(start).step_by(step.max(1)).zip(&desk) {
                *place = f32::from(zero.wrapping_add(less) & mask);
            }
        }
    }
    Ok(found)
}

/// A line of zero points, from number `first` on, where the line begins with the word of this number.
fn unpack(level: Level, bits: u32, zero: Zero, line: &[u8], (first, word): (u64, u64), desk: &mut [u8]) -> Option<()> {
    match zero {
        Zero::PaddedRows => codes::padded(line, first - word * u64::from(32 / bits), bits, desk),
        Zero::AwqColumns => {
            for (place, number) in desk.iter_mut().zip(first - 8 * word..) {
                let word = line.get(usize::try_from(number / 8).ok()?.checked_mul(4)?..)?.first_chunk()?;
                let nibble = u32::from_le_bytes(*word) >> (4 * nibble_of_awq(number)?);
                *place = u8::try_from(nibble & 0xf).unwrap_or_default();
            }
            Some(())
        }
        _ => codes::stream(level, line, first * u64::from(bits) - 32 * word, bits, desk),
    }
}
