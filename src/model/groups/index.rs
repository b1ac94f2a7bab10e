// SPDX-License-Identifier: Apache-2.0
//! `g_idx`: which group each column belongs to.
#![forbid(unsafe_code)]
#![allow(clippy::arithmetic_side_effects, reason = "members have 2^48 elements at most, divisors are above 0")]

use super::draft::{broken, Draft, Refusal};
use super::group::Break;
use super::wording::Word::{Name, Number, Text};
use crate::base::memory;
use crate::record::Tensor;

/// What an index says.
pub(super) struct ColumnIndex {
    /// The group of each column; `None` where they are in order.
    pub(super) order: Option<Vec<u32>>,
    /// Columns of the largest group.
    pub(super) largest: Option<u64>,
    /// An entry is −1: the index is not used.
    pub(super) unused: bool,
}

/// Reads an index of I32; groups of `size` columns, if known, are what is in order.
pub(super) fn read(draft: &Draft<'_>, tensor: &Tensor, groups: u64, size: Option<u64>) -> Result<ColumnIndex, Refusal> {
    const CHUNK: u64 = 256 << 10;
    let count = usize::try_from(tensor.element_count()).unwrap_or(usize::MAX);
    let mut order: Vec<u32> = memory::vec_with_capacity(count, "a group's index").map_err(Refusal::Failed)?;
    let mut outside = None;
    let mut unused = false;
    let mut start = 0;
    while start < tensor.size() {
        let bytes = draft.read(tensor, start, CHUNK.min(tensor.size() - start))?;
        for entry in bytes.chunks_exact(4) {
            let entry = i32::from_le_bytes(entry.try_into().unwrap_or_default());
            unused |= entry == -1;
            match u32::try_from(entry) {
                Ok(group) if u64::from(group) < groups => order.push(group),
                _ => {
                    outside.get_or_insert((order.len(), entry));
                    order.push(0);
                }
            }
        }
        start += bytes.len() as u64;
    }
    if unused {
        return Ok(ColumnIndex { order: None, largest: None, unused });
    }
    if let Some((column, group)) = outside {
        let group = group.to_string();
        let place = [Name(tensor), Text(" puts column "), Number(column as u64), Text(" into group "), Text(&group)];
        let all = [place.as_slice(), &[Text(" of "), Number(groups)]].concat();
        return Err(broken(Break::Value, &all));
    }
    let counts = usize::try_from(groups).unwrap_or(usize::MAX);
    let mut columns: Vec<u64> = memory::vec_with_capacity(counts, "a group's index").map_err(Refusal::Failed)?;
    columns.resize(counts, 0);
    for group in &order {
        if let Some(count) = usize::try_from(*group).ok().and_then(|group| columns.get_mut(group)) {
            *count += 1;
        }
    }
    let largest = columns.into_iter().max();
    let straight = size.or(largest).filter(|size| *size != 0);
    let in_order = |size: u64| (0_u64..).zip(&order).all(|(column, group)| column / size == u64::from(*group));
    let order = if straight.is_some_and(in_order) { None } else { Some(order) };
    Ok(ColumnIndex { order, largest, unused })
}
