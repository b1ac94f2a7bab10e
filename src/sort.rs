// SPDX-License-Identifier: Apache-2.0
//! Sorting, compiled once for each kind of key: std's sort is 8 kB of machine
//! code for each type that is sorted, and most of ours sort a few things once.
#![forbid(unsafe_code)]

/// Rows of numbers, in order.
#[inline(never)]
pub(crate) fn rows(rows: &mut [[u64; 3]]) {
    rows.sort_unstable();
}
