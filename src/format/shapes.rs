// SPDX-License-Identifier: Apache-2.0
//! Where the shapes of a header's tensors are.
#![forbid(unsafe_code)]

use crate::base::memory;
use crate::error::Result;

/// Shapes one after another in chunks that never move, so that records can
/// point at a shape as soon as it is read.
#[derive(Default)]
pub(crate) struct ShapeArena {
    /// The chunk being filled; the shape being built is the last thing in it.
    chunk: Vec<i64>,
    /// Where in it that shape begins.
    start: usize,
    full: Vec<Vec<i64>>,
}

impl ShapeArena {
    const FIRST_CHUNK: usize = 1024;
    /// 8 MiB: a million shapes are three or four blocks to free.
    const LARGEST_CHUNK: usize = 1 << 20;

    /// Adds one dimension to the shape being built.
    #[inline]
    pub(crate) fn push(&mut self, dimension: i64) -> Result<()> {
        if self.chunk.len() == self.chunk.capacity() {
            self.grow()?;
        }
        self.chunk.push(dimension);
        Ok(())
    }

    /// A new chunk, to which the shape being built moves whole.
    #[cold]
    fn grow(&mut self) -> Result<()> {
        let open = self.current().len();
        if self.start == 0 && open > 0 {
            // Nobody points into it yet.
            return memory::grow(&mut self.chunk, "shapes");
        }
        let room = self.chunk.capacity().saturating_mul(2).clamp(Self::FIRST_CHUNK, Self::LARGEST_CHUNK);
        let mut chunk = memory::vec_with_capacity(room.max(open.saturating_mul(2)), "shapes")?;
        chunk.extend(self.chunk.drain(self.start..));
        self.full.push(std::mem::replace(&mut self.chunk, chunk));
        self.start = 0;
        Ok(())
    }

    /// The shape being built so far.
    #[inline]
    pub(crate) fn current(&self) -> &[i64] {
        self.chunk.get(self.start..).unwrap_or_default()
    }

    /// Ends the shape being built. It stays where it is for the arena's life.
    #[inline]
    pub(crate) fn finish(&mut self) -> (*const i64, usize) {
        let shape = self.current();
        let found = (shape.as_ptr(), shape.len());
        self.start = self.chunk.len();
        found
    }

    /// Takes over another arena's shapes.
    pub(crate) fn join(&mut self, other: Self) {
        self.full.push(other.chunk);
        self.full.extend(other.full);
    }

    /// Drops the shape being built.
    pub(crate) fn abandon(&mut self) {
        self.chunk.truncate(self.start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Tensor;
    use std::ptr::null;

    fn record(shape: *const i64, rank: usize) -> Tensor {
        Tensor {
            name: null(),
            name_len: 0,
            dtype: 0,
            shard: 0,
            rank,
            shape,
            element_count: 0,
            offset: 0,
            size: 0,
            data: null(),
            dtype_name: null(),
            source: 0,
            reserved: [0; 1],
        }
    }

    #[test]
    fn shapes_stay_where_they_are_while_the_arena_grows() {
        let mut arena = ShapeArena::default();
        let mut found = Vec::new();
        for i in 0..5000_i64 {
            for d in 0..(i % 7) {
                arena.push(i + d).unwrap();
            }
            if i % 11 == 0 {
                arena.abandon();
            }
            found.push((i, arena.finish()));
        }
        for (i, (start, len)) in found {
            let expected: Vec<i64> = if i % 11 == 0 { vec![] } else { (0..i % 7).map(|d| i + d).collect() };
            assert_eq!(record(start, len).shape(), expected);
        }
    }
}
