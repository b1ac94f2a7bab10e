// SPDX-License-Identifier: Apache-2.0
//! Sizes of a few dimensions, without memory of their own: each tensor that is
//! looked at has some, and listing a checkpoint looks at all of them.
#![forbid(unsafe_code)]

use std::fmt;
use std::ops::{Deref, DerefMut};

/// More dimensions than any group's tensors have.
pub(super) const MOST_RANK: usize = 8;

// What makes them is out of line: many places do, and none often.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct SmallShape<T = u64> {
    len: usize,
    /// Zero from `len` on.
    all: [T; MOST_RANK],
}

impl SmallShape {
    /// That many ones.
    #[inline(never)]
    pub(super) fn ones(len: usize) -> Self {
        let mut this = Self::default();
        (0..len).for_each(|_| this.push(1));
        this
    }

    /// `outer`, and then `inner`.
    #[inline(never)]
    pub(super) fn join(outer: &[u64], inner: &[u64]) -> Self {
        let mut this = Self::default();
        outer.iter().chain(inner).for_each(|size| this.push(*size));
        this
    }

    /// As the records that C sees have them; `None` for a size beyond 63 bits.
    #[inline(never)]
    pub(super) fn signed(&self) -> Option<SmallShape<i64>> {
        let mut signed = SmallShape { len: self.len, all: [0; MOST_RANK] };
        for (place, size) in signed.all.iter_mut().zip(self.all) {
            *place = i64::try_from(size).ok()?;
        }
        Some(signed)
    }

    /// One more; none beyond what there is room for.
    pub(super) fn push(&mut self, size: u64) {
        if let Some(place) = self.all.get_mut(self.len) {
            *place = size;
            self.len = self.len.saturating_add(1);
        }
    }
}

impl<T> Deref for SmallShape<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.all.get(..self.len).unwrap_or_default()
    }
}

impl<T> DerefMut for SmallShape<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        self.all.get_mut(..self.len).unwrap_or_default()
    }
}

impl<T: fmt::Debug> fmt::Debug for SmallShape<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}
