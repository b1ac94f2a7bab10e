// SPDX-License-Identifier: Apache-2.0
//! A result with strides: where each of its runs of bytes goes.
#![forbid(unsafe_code)]

use crate::base::sort;

/// A result with strides: runs of bytes in nested loops.
pub(super) struct Strides {
    /// Bytes that lie together.
    pub(super) run: u64,
    /// In the result's order, innermost first; each happens at least twice.
    loops: Vec<StrideLoop>,
}

#[derive(Clone, Copy)]
pub(super) struct StrideLoop {
    pub(super) count: u64,
    pub(super) stride: u64,
}

impl Strides {
    /// Of sizes in elements and strides in bytes, outermost first, and an
    /// element's bits; `Err` says what is wrong with them.
    pub(super) fn new(sizes: &[i64], strides: &[i64], bits: u32) -> Result<Self, String> {
        let bits = u64::from(bits);
        let mut layout = Self { run: bits / 8, loops: Vec::new() };
        let too_large = || "it goes past the end of memory".to_owned();
        let mut dimensions = sizes.iter().zip(strides).enumerate().rev();
        if layout.run == 0 {
            // Elements within a byte can't lie apart.
            let Some((dimension, (size, stride))) = dimensions.next() else {
                return Err("a single element within a byte has no place of its own".to_owned());
            };
            let row = u64::try_from(*size).ok().and_then(|size| size.checked_mul(bits)).ok_or_else(too_large)?;
            if *stride != 0 || row % 8 != 0 {
                return Err(format!(
                    "dimension {dimension}: elements of {bits} bits lie packed in whole bytes, with a stride of 0"
                ));
            }
            layout.run = row / 8;
        }
        for (dimension, (size, stride)) in dimensions {
            let count = u64::try_from(*size).unwrap_or_default();
            let stride =
                u64::try_from(*stride).map_err(|_| format!("dimension {dimension}: stride {stride} is below 0"))?;
            if count < 2 {
                continue;
            }
            match layout.loops.last_mut() {
                None if stride == layout.run => layout.run = layout.run.checked_mul(count).ok_or_else(too_large)?,
                Some(last) if last.count.checked_mul(last.stride) == Some(stride) => {
                    last.count = last.count.checked_mul(count).ok_or_else(too_large)?;
                }
                _ => layout.loops.push(StrideLoop { count, stride }),
            }
        }
        layout.extent_checked().map(|_| layout)
    }

    /// The loops by stride: each leaves room for what lies inside it, so that
    /// no two elements share a byte.
    fn extent_checked(&self) -> Result<u64, String> {
        let mut extent = self.run;
        for StrideLoop { count, stride } in self.by_stride() {
            if stride < extent {
                return Err(format!("a stride of {stride} bytes leaves no room for the {extent} that lie inside it"));
            }
            let far = stride.checked_mul(count.saturating_sub(1)).and_then(|far| far.checked_add(extent));
            extent = far.ok_or_else(|| "it goes past the end of memory".to_owned())?;
        }
        Ok(extent)
    }

    /// From the first byte to after the last one.
    pub(super) fn extent(&self) -> u64 {
        self.extent_checked().unwrap_or(u64::MAX)
    }

    /// Smallest stride first.
    fn by_stride(&self) -> Vec<StrideLoop> {
        let mut rows: Vec<_> = self.loops.iter().map(|StrideLoop { count, stride }| [*stride, *count, 0]).collect();
        sort::rows(&mut rows);
        rows.into_iter().map(|[stride, count, _]| StrideLoop { count, stride }).collect()
    }

    /// The same runs, by address instead of by the result's order.
    pub(super) fn by_address(&self) -> Self {
        Self { run: self.run, loops: self.by_stride() }
    }

    pub(super) fn run(&self) -> u64 {
        self.run
    }

    pub(super) fn loops(&self) -> &[StrideLoop] {
        &self.loops
    }

    /// From the first byte to after the last of what the first `count` loops hold.
    pub(super) fn extent_of(&self, count: usize) -> u64 {
        let loops = self.loops.iter().take(count);
        let far = |StrideLoop { count, stride }: &StrideLoop| count.saturating_sub(1).saturating_mul(*stride);
        loops.map(far).fold(self.run, u64::saturating_add)
    }

    /// From the result's byte `at` on.
    pub(super) fn walk(&self, at: u64) -> Option<StrideWalk<'_>> {
        let mut turn = at.checked_div(self.run)?;
        let within = usize::try_from(at.checked_rem(self.run)?).ok()?;
        let (mut place, mut done) = (0_u64, Vec::with_capacity(self.loops.len()));
        for StrideLoop { count, stride } in &self.loops {
            let turns = turn.checked_rem(*count)?;
            place = place.checked_add(turns.checked_mul(*stride)?)?;
            done.push(turns);
            turn = turn.checked_div(*count)?;
        }
        Some(StrideWalk { layout: self, place, done, within, over: turn != 0 })
    }
}

/// A place in the sequence of a layout's runs.
pub(super) struct StrideWalk<'a> {
    layout: &'a Strides,
    place: u64,
    /// How many turns of each loop are done.
    done: Vec<u64>,
    /// Bytes of the run that are done.
    pub(super) within: usize,
    over: bool,
}

impl StrideWalk<'_> {
    /// Where the run begins, and how many from there on lie at which stride.
    pub(super) fn peek(&self) -> Option<(u64, StrideLoop)> {
        let rest = match (self.layout.loops.first(), self.done.first()) {
            (Some(inner), Some(done)) => StrideLoop { count: inner.count.saturating_sub(*done), stride: inner.stride },
            _ => StrideLoop { count: 1, stride: self.layout.run },
        };
        (!self.over).then_some((self.place, rest))
    }

    /// Goes on by `count` runs, at most as many as `peek` said.
    pub(super) fn advance(&mut self, count: u64) {
        let mut turns = count;
        for (inner, done) in self.layout.loops.iter().zip(&mut self.done) {
            *done = done.saturating_add(turns);
            if *done < inner.count {
                self.place = self.place.saturating_add(turns.saturating_mul(inner.stride));
                return;
            }
            let back = done.saturating_sub(turns).saturating_mul(inner.stride);
            self.place = self.place.saturating_sub(back);
            *done = 0;
            turns = 1;
        }
        self.over = true;
    }

    pub(super) fn step_within(&mut self, len: usize, run: usize) {
        self.within = self.within.saturating_add(len);
        if self.within >= run {
            self.within = 0;
            self.advance(1);
        }
    }
}
