// SPDX-License-Identifier: Apache-2.0
//! Texts in order: one sort for all who need one, as each kind of element that
//! is sorted costs 4 kB of code.
#![forbid(unsafe_code)]

use crate::error::Result;
use crate::memory;

/// A text and its number among those given.
pub(crate) type Numbered<'a> = (&'a [u8], usize);

/// Texts by their bytes; of equal ones the first given stands first.
pub(crate) fn in_order<'a>(texts: impl ExactSizeIterator<Item = &'a [u8]>) -> Result<Vec<Numbered<'a>>> {
    let mut sorted = memory::vec_with_capacity(texts.len(), "texts to sort")?;
    sorted.extend(texts.zip(0..));
    sort(&mut sorted);
    Ok(sorted)
}

#[inline(never)]
fn sort(texts: &mut [Numbered<'_>]) {
    texts.sort_unstable();
}

/// Of texts in order those that are there before.
pub(crate) fn repeated<'s, 'a>(sorted: &'s [Numbered<'a>]) -> impl Iterator<Item = Numbered<'a>> + use<'s, 'a> {
    sorted.windows(2).filter_map(|pair| match pair {
        [first, again] if first.0 == again.0 => Some(*again),
        _ => None,
    })
}
