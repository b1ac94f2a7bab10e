// SPDX-License-Identifier: Apache-2.0
//! Sorting, compiled once for each kind of key: std's sort is 8 kB of machine
//! code for each type that is sorted, and most of ours sort a few things once.
#![forbid(unsafe_code)]

use crate::base::memory;
use crate::error::Result;

/// Rows of numbers, in order.
#[inline(never)]
pub(crate) fn rows(rows: &mut [[u64; 3]]) {
    rows.sort_unstable();
}

/// Texts with their numbers, in order.
#[inline(never)]
pub(crate) fn texts(texts: &mut [(&[u8], usize)]) {
    texts.sort_unstable();
}

/// Texts in order, each with its place among those given; `what` they are.
pub(crate) fn sorted<'a>(given: impl ExactSizeIterator<Item = &'a [u8]>, what: &str) -> Result<Vec<(&'a [u8], usize)>> {
    let mut sorted = memory::vec_with_capacity(given.len(), what)?;
    sorted.extend(given.zip(0..));
    texts(&mut sorted);
    Ok(sorted)
}

/// Of texts in order those that stand there before.
pub(crate) fn repeated<'s, 'a>(
    sorted: &'s [(&'a [u8], usize)],
) -> impl Iterator<Item = (&'a [u8], usize)> + use<'s, 'a> {
    sorted.windows(2).filter_map(|pair| match pair {
        [(text, _), again] if *text == again.0 => Some(*again),
        _ => None,
    })
}
