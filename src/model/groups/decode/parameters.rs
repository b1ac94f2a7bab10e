// SPDX-License-Identifier: Apache-2.0
//! Scales and zero points of a box, as F32 and in rows.
#![forbid(unsafe_code)]
#![allow(clippy::arithmetic_side_effects, reason = "numbers of elements of a box; divisors are above 0")]

use std::ops::Range;

use super::codes::AWQ;
use super::view::{FlatRows, View};
use crate::base::memory;
use crate::error::Result;
use crate::model::groups::recipe::{Order, ScaleLayout, ScaleType, Zero};
use crate::model::groups::{Group, Recipe, Role};

/// The parameters of some of a row's columns: those of the first group count for
/// `left` columns, of each later one for `group`.
pub(super) struct Runs<'a> {
    pub(super) scales: &'a [f32],
    /// Empty where there is one zero for all.
    pub(super) zeros: &'a [f32],
    pub(super) left: usize,
    pub(super) group: usize,
}

pub(super) struct Parameters {
    scales: Vec<f32>,
    zeros: Vec<f32>,
    /// The zero point of all, where there are no others.
    pub(super) zero: f32,
    place: Place,
    /// The box's columns.
    columns: Range<u64>,
}

/// Which parameters are a row's.
enum Place {
    /// The same for all.
    One,
    /// So many for each row, of columns in groups.
    Rows { each: usize, group: u64 },
    /// Rows of one matrix share them.
    Grid { rows: Range<u64>, block: u64, lines: usize, each: usize, group: u64 },
    /// By an element's number in C order; `first` is the first block there is.
    Flat { first: u64, rows: FlatRows, group: u64 },
    /// All groups of a row, columns by an index.
    Indexed { each: usize, rows: usize, width: u64, start: u64 },
}

impl Parameters {
    /// `None` where a member is missing or too small.
    pub(super) fn new<'a>(
        group: &Group,
        recipe: Recipe,
        logical: &[Range<u64>],
        view: &dyn Fn(Role) -> Option<View<'a>>,
    ) -> Option<Result<Self>> {
        let mut this = Self {
            scales: Vec::new(),
            zeros: Vec::new(),
            zero: if recipe.zero == Zero::Middle { (1_u32 << (group.bits - 1)) as f32 } else { 0.0 },
            place: Place::One,
            columns: logical.last()?.clone(),
        };
        Some(this.fill(group, recipe, logical, view)?.map(|()| this))
    }

    fn fill<'a>(
        &mut self,
        group: &Group,
        recipe: Recipe,
        logical: &[Range<u64>],
        view: &dyn Fn(Role) -> Option<View<'a>>,
    ) -> Option<Result<()>> {
        let scales = view(Role::Scales)?;
        let block = |from_last: usize| {
            let at = group.block.len().checked_sub(from_last + 1)?;
            u64::try_from(*group.block.get(at)?).ok()
        };
        let columns = block(0)?.max(1);
        self.scales = match recipe.scale_type {
            ScaleType::Nested => match nested(group, &scales, view)? {
                Ok(scales) => scales,
                Err(error) => return Some(Err(error)),
            },
            _ => match scales.floats() {
                Ok(scales) => scales,
                Err(error) => return Some(Err(error)),
            },
        };
        let rows = logical.len().checked_sub(2).and_then(|row| logical.get(row)).cloned().unwrap_or(0..1);
        let count = usize::try_from(rows.end - rows.start).ok()?;
        self.zeros = match zeros(group, recipe, &rows, view)? {
            Ok(zeros) => zeros,
            Err(error) => return Some(Err(error)),
        };
        let transposed = recipe.scale_layout == ScaleLayout::GroupsTransposed;
        if transposed {
            self.scales = turned(&self.scales, count)?;
        }
        let each = if transposed { scales.count(1) } else { scales.count(0) };
        self.place = match (recipe.scale_layout, recipe.order) {
            (ScaleLayout::Tensor, _) => Place::One,
            (ScaleLayout::Rows, _) => Place::Rows { each: 1, group: u64::MAX },
            (ScaleLayout::Groups | ScaleLayout::GroupsTransposed, Order::Sequential) => {
                Place::Rows { each, group: columns }
            }
            (ScaleLayout::Groups | ScaleLayout::GroupsTransposed, Order::Index) => Place::Indexed {
                each,
                rows: count,
                width: u64::try_from(*group.shape.last()?).ok()?,
                start: logical.first()?.start,
            },
            (ScaleLayout::Grid, _) => {
                Place::Grid { rows, block: block(1)?.max(1), lines: scales.count(1), each, group: columns }
            }
            (ScaleLayout::Swizzled, _) => {
                self.scales = straightened(&self.scales, &scales, &rows, &self.columns)?;
                let groups = self.columns.end.div_ceil(16) - self.columns.start / 16;
                Place::Rows { each: usize::try_from(groups).ok()?, group: columns }
            }
            (ScaleLayout::Flat, _) => {
                Place::Flat { first: scales.start(0), rows: FlatRows::new(group, logical)?, group: columns }
            }
        };
        Some(Ok(()))
    }

    /// The parameters of a row's columns from number `at` of the box on.
    pub(super) fn of(&self, row: usize, at: usize) -> Option<Runs<'_>> {
        let column = self.columns.start + at as u64;
        let (start, within, group) = match &self.place {
            Place::One => (0, 0, u64::MAX),
            Place::Rows { each, group } => (row * each + self.group_of(column, *group)?, column % group, *group),
            Place::Grid { rows, block, lines, each, group } => {
                let count = usize::try_from(rows.end - rows.start).ok()?.max(1);
                let line = (rows.start + (row % count) as u64) / block - rows.start / block;
                let line = (row / count) * lines + usize::try_from(line).ok()?;
                (line * each + self.group_of(column, *group)?, column % group, *group)
            }
            Place::Flat { first, rows, group } => {
                let flat = rows.start_of(row) + column;
                (usize::try_from((flat / group).checked_sub(*first)?).ok()?, flat % group, *group)
            }
            Place::Indexed { each, .. } => (row * each, 0, u64::MAX),
        };
        let end = match &self.place {
            Place::Indexed { each, .. } => start + each,
            _ => self.scales.len(),
        };
        let bounded = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        Some(Runs {
            scales: self.scales.get(start..end)?,
            zeros: if self.zeros.is_empty() { &[] } else { self.zeros.get(start..end)? },
            left: bounded(group - within),
            group: bounded(group),
        })
    }

    /// The number of a column's group among those of the box.
    fn group_of(&self, column: u64, group: u64) -> Option<usize> {
        usize::try_from(column / group - self.columns.start / group).ok()
    }

    /// The part of an index that is about a row's columns.
    pub(super) fn columns_of<'o>(&self, order: &'o [u32], row: usize, at: usize, count: usize) -> Option<&'o [u32]> {
        let Place::Indexed { rows, width, start, .. } = &self.place else {
            return None;
        };
        // A stack may have an index for each of its matrices.
        let stacked = order.len() as u64 > *width;
        let matrix = if stacked { start + (row / (*rows).max(1)) as u64 } else { 0 };
        let first = usize::try_from(matrix * width + self.columns.start + at as u64).ok()?;
        order.get(first..first + count)
    }
}

/// Rows of what is stored [groups, rows].
fn turned(values: &[f32], rows: usize) -> Option<Vec<f32>> {
    let groups = values.len() / rows.max(1);
    let mut found = memory::vec_with_capacity(values.len(), "a group's scales").ok()?;
    for row in 0..rows {
        found.extend((0..groups).map(|group| values.get(group * rows + row).copied().unwrap_or_default()));
    }
    Some(found)
}

/// Rows of scales out of tiles of 128 rows and 4 groups.
fn straightened(values: &[f32], stored: &View<'_>, rows: &Range<u64>, columns: &Range<u64>) -> Option<Vec<f32>> {
    let (first, width) = (stored.start(1), stored.count(0) as u64);
    let groups = columns.start / 16..columns.end.div_ceil(16);
    let mut found = Vec::new();
    let count = (rows.end - rows.start).checked_mul(groups.end - groups.start)?;
    memory::reserve(&mut found, usize::try_from(count).ok()?, "a group's scales").ok()?;
    for row in rows.clone() {
        let within = row - first;
        for group in groups.clone() {
            let tile = (within / 128) * (width / 4) + group / 4;
            let place = tile * 512 + (row % 32) * 16 + (row % 128 / 32) * 4 + group % 4;
            found.push(*values.get(usize::try_from(place).ok()?)?);
        }
    }
    Some(found)
}

/// Scales that are indices into a map, scaled and with an offset.
fn nested<'a>(group: &Group, scales: &View<'_>, view: &dyn Fn(Role) -> Option<View<'a>>) -> Option<Result<Vec<f32>>> {
    let nested = group.nested?;
    let (map, outer) = (view(Role::NestedMap)?, view(Role::NestedScales)?);
    let (map, of_scales) = match (map.floats(), outer.floats()) {
        (Ok(map), Ok(scales)) => (map, scales),
        (Err(error), _) | (_, Err(error)) => return Some(Err(error)),
    };
    let mut found = match memory::vec_with_capacity(scales.bytes.len(), "a group's scales") {
        Ok(found) => found,
        Err(error) => return Some(Err(error)),
    };
    for (number, code) in (scales.start(0)..).zip(scales.bytes) {
        let scale = of_scales.get(usize::try_from(number / nested.block - outer.start(0)).ok()?)?;
        found.push(map.get(usize::from(*code))? * scale + nested.offset);
    }
    Some(Ok(found))
}

/// Zero points or offsets, in the order of the scales.
fn zeros<'a>(
    group: &Group,
    recipe: Recipe,
    rows: &Range<u64>,
    view: &dyn Fn(Role) -> Option<View<'a>>,
) -> Option<Result<Vec<f32>>> {
    let bits = u64::from(group.bits);
    match recipe.zero {
        Zero::None | Zero::Middle => return Some(Ok(Vec::new())),
        Zero::Offset => return Some(view(Role::Offsets)?.floats()),
        Zero::Signed => {
            let bytes = view(Role::Zeros)?.bytes;
            return Some(Ok(bytes.iter().map(|byte| f32::from(i8::from_le_bytes([*byte]))).collect()));
        }
        _ => {}
    }
    let stored = view(Role::Zeros)?;
    let scales = view(Role::Scales)?;
    // How many there are of each: matrices, rows, groups.
    let count = usize::try_from(rows.end - rows.start).ok()?;
    let transposed = recipe.scale_layout == ScaleLayout::GroupsTransposed;
    let groups = if transposed { scales.count(1) } else { scales.count(0) };
    let first_group = scales.start(0);
    let (lines, across) = (stored.count(1), stored.count(0));
    let outer = (scales.bytes.len() / scales.size().max(1)).checked_div(count.max(1) * groups.max(1))?;
    let mut found = match memory::vec_with_capacity(outer * count * groups, "a group's zero points") {
        Ok(found) => found,
        Err(error) => return Some(Err(error)),
    };
    let less = u32::from(recipe.zero == Zero::ColumnsLessOne);
    let mask = (1_u32 << bits) - 1;
    let first_word =
        if matches!(recipe.zero, Zero::Rows | Zero::PaddedRows) { stored.start(1) } else { stored.start(0) };
    // A code's word among those of its stream, and its place in that.
    let place = |at: u64| -> Option<(usize, u32)> {
        let (word, shift) = match recipe.zero {
            Zero::PaddedRows => (at / (32 / bits), at % (32 / bits) * bits),
            Zero::AwqColumns => (at / 8, u64::from(4 * AWQ.get(usize::try_from(at % 8).ok()?)?)),
            _ => (at * bits / 32, at * bits % 32),
        };
        Some((usize::try_from(word - first_word).ok()?, u32::try_from(shift).ok()?))
    };
    let bits = group.bits;
    for matrix in 0..outer {
        let base = matrix * lines * across;
        for row in rows.clone() {
            if recipe.zero == Zero::Groups {
                let line = base + usize::try_from(row - stored.start(1)).ok()? * across;
                for group in 0..groups {
                    let (word, shift) = place(first_group + group as u64)?;
                    found.push(((stored.word(line + word)? >> shift) & mask) as f32);
                }
                continue;
            }
            let (word, shift) = place(row)?;
            // Words of a stream, and streams of a group, lie so far apart.
            let (step, apart) = match recipe.zero {
                Zero::Rows | Zero::PaddedRows => (across, 1),
                _ => (1, across),
            };
            let first = base + word * step;
            for group in 0..groups {
                let number = first + group * apart;
                let mut zero = stored.word(number)? >> shift;
                if shift + bits > 32 {
                    zero |= stored.word(number + step)? << (32 - shift);
                }
                found.push((((zero & mask) + less) & mask) as f32);
            }
        }
    }
    Some(Ok(found))
}
