// SPDX-License-Identifier: Apache-2.0
//! Scales and zero points of a box, in rows.
#![forbid(unsafe_code)]
#![allow(clippy::arithmetic_side_effects, reason = "numbers of elements of a box; divisors are above 0")]

use std::borrow::Cow;
use std::ops::Range;

use super::op::{GroupSpan, Runs};
use super::view::{lacking, FlatRows, Members, View};
use super::zeros;
use crate::base::memory;
use crate::error::Result;
use crate::model::groups::group::{Group, Role};
use crate::model::groups::recipe::Recipe;
use crate::model::groups::recipe::{ColumnOrder, ScaleLayout, ScaleType};

pub(super) struct Parameters<'a> {
    scales: Scales<'a>,
    zeros: Vec<f32>,
    place: Place,
    /// The box's columns.
    columns: Range<u64>,
}

enum Scales<'a> {
    Floats(Vec<f32>),
    /// What they are is in tables of whoever asked for them so.
    Bytes(Cow<'a, [u8]>),
}

/// What scales are wanted as.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Wanted {
    Floats,
    /// Of one byte each, as they are stored.
    Bytes,
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

impl<'a> Parameters<'a> {
    pub(super) fn new(
        group: &Group,
        recipe: Recipe,
        logical: &[Range<u64>],
        members: &Members<'a>,
        wanted: Wanted,
    ) -> Result<Self> {
        let scales = members.scales(recipe)?;
        let block = |from_last: usize| {
            let at = group.block.len().checked_sub(from_last + 1)?;
            u64::try_from(*group.block.get(at)?).ok().filter(|block| *block != 0)
        };
        let columns = logical.last().cloned().ok_or_else(lacking)?;
        let rows = logical.len().checked_sub(2).and_then(|row| logical.get(row)).cloned().unwrap_or(0..1);
        let count = usize::try_from(rows.end - rows.start).map_err(|_| lacking())?;
        let transposed = recipe.scale_layout == ScaleLayout::GroupsTransposed;
        let each = scales.count(usize::from(transposed));
        let width = block(0).ok_or_else(lacking)?;
        let place = match (recipe.scale_layout, recipe.order) {
            (ScaleLayout::Tensor, _) => Place::One,
            (ScaleLayout::Rows, _) => Place::Rows { each: 1, group: u64::MAX },
            (ScaleLayout::Groups | ScaleLayout::GroupsTransposed, ColumnOrder::Sequential) => {
                Place::Rows { each, group: width }
            }
            (ScaleLayout::Groups | ScaleLayout::GroupsTransposed, ColumnOrder::Index) => Place::Indexed {
                each,
                rows: count,
                width: group.shape.last().and_then(|size| u64::try_from(*size).ok()).ok_or_else(lacking)?,
                start: logical.first().map_or(0, |range| range.start),
            },
            (ScaleLayout::Grid, _) => {
                let (block, lines) = (block(1).ok_or_else(lacking)?, scales.count(1));
                Place::Grid { rows: rows.clone(), block, lines, each, group: width }
            }
            (ScaleLayout::Swizzled, _) => {
                let groups = columns.end.div_ceil(width) - columns.start / width;
                Place::Rows { each: usize::try_from(groups).map_err(|_| lacking())?, group: width }
            }
            (ScaleLayout::Flat, _) => Place::Flat {
                first: scales.start(0),
                rows: FlatRows::new(group, logical).ok_or_else(lacking)?,
                group: width,
            },
        };
        let straight = match recipe.scale_layout {
            ScaleLayout::Swizzled => Cow::Owned(straightened(&scales, &rows, &columns)?),
            _ => Cow::Borrowed(scales.bytes),
        };
        let scales = match recipe.scale_type {
            _ if wanted == Wanted::Bytes => Scales::Bytes(straight),
            ScaleType::Nested => Scales::Floats(nested(group, &scales, members)?),
            _ if transposed => Scales::Floats(turned(&scales.floats()?, count)?),
            _ => Scales::Floats(View { bytes: &straight, ..scales }.floats()?),
        };
        Ok(Self { scales, zeros: zeros::read(group, recipe, &rows, members)?, place, columns })
    }

    /// The parameters of a row's columns from number `at` of the box on.
    pub(super) fn of(&self, row: usize, at: usize) -> Option<Runs<'_>> {
        let Scales::Floats(scales) = &self.scales else { return None };
        let (start, span) = self.place(row, at)?;
        let end = match &self.place {
            Place::Indexed { each, .. } => start + each,
            _ => scales.len(),
        };
        let zeros = if self.zeros.is_empty() { &[] } else { self.zeros.get(start..end)? };
        Some(Runs { scales: scales.get(start..end)?, zeros, span })
    }

    /// The same where scales are bytes.
    pub(super) fn bytes_of(&self, row: usize, at: usize) -> Option<(&[u8], GroupSpan)> {
        let Scales::Bytes(scales) = &self.scales else { return None };
        let (start, span) = self.place(row, at)?;
        Some((scales.get(start..)?, span))
    }

    /// The number of the first scale of a row's columns from `at` on.
    pub(super) fn place(&self, row: usize, at: usize) -> Option<(usize, GroupSpan)> {
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
        let bounded = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        Some((start, GroupSpan { left: bounded(group - within), group: bounded(group) }))
    }

    /// The number of a column's group among those of the box.
    fn group_of(&self, column: u64, group: u64) -> Option<usize> {
        usize::try_from(column / group - self.columns.start / group).ok()
    }

    /// How many scales each row has, and how many rows one after the other have the same ones.
    pub(super) fn shared(&self) -> Option<(usize, u64)> {
        match &self.place {
            Place::One => Some((1, u64::MAX)),
            Place::Rows { each, .. } => Some((*each, 1)),
            Place::Grid { block, each, .. } => Some((*each, *block)),
            Place::Flat { .. } | Place::Indexed { .. } => None,
        }
    }

    /// All scales of a row, and the number of the first one.
    pub(super) fn line(&self, row: usize) -> Option<(usize, &[f32])> {
        let Scales::Floats(scales) = &self.scales else { return None };
        let (start, (each, _)) = (self.place(row, 0)?.0, self.shared()?);
        Some((start, scales.get(start..start + each)?))
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
fn turned(values: &[f32], rows: usize) -> Result<Vec<f32>> {
    let groups = values.len() / rows.max(1);
    let mut found = memory::vec_with_capacity(values.len(), "a group's scales")?;
    found.resize(values.len(), 0.0);
    for (group, values) in values.chunks(rows.max(1)).enumerate() {
        for (place, value) in found.iter_mut().skip(group).step_by(groups.max(1)).zip(values) {
            *place = *value;
        }
    }
    Ok(found)
}

/// Rows of scales, of a byte each, out of tiles of 128 rows and 4 groups.
fn straightened(stored: &View<'_>, rows: &Range<u64>, columns: &Range<u64>) -> Result<Vec<u8>> {
    let (first, width) = (stored.start(1), stored.count(0) as u64);
    let groups = columns.start / 16..columns.end.div_ceil(16);
    let count = (rows.end - rows.start).checked_mul(groups.end - groups.start);
    let count = count.and_then(|count| usize::try_from(count).ok()).ok_or_else(lacking)?;
    let mut found = memory::vec_with_capacity(count, "a group's scales")?;
    for row in rows.clone() {
        let within = row - first;
        let start = (within / 128) * (width / 4) * 512 + (row % 32) * 16 + (row % 128 / 32) * 4;
        for group in groups.clone() {
            let place = usize::try_from(start + group / 4 * 512 + group % 4).unwrap_or(usize::MAX);
            found.push(*stored.bytes.get(place).ok_or_else(lacking)?);
        }
    }
    Ok(found)
}

/// Scales that are indices into a map, scaled and with an offset.
fn nested(group: &Group, scales: &View<'_>, members: &Members<'_>) -> Result<Vec<f32>> {
    let nested = group.nested.ok_or_else(lacking)?;
    let (map, outer) = (members.view(Role::NestedMap)?, members.view(Role::NestedScales)?);
    let (map, of_scales) = (map.floats()?, outer.floats()?);
    let mut found = memory::vec_with_capacity(scales.bytes.len(), "a group's scales")?;
    for (number, code) in (scales.start(0)..).zip(scales.bytes) {
        let outer = usize::try_from((number / nested.block).saturating_sub(outer.start(0))).unwrap_or(usize::MAX);
        let (scale, value) = of_scales.get(outer).zip(map.get(usize::from(*code))).ok_or_else(lacking)?;
        found.push(value * scale + nested.offset);
    }
    Ok(found)
}
