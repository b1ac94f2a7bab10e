// SPDX-License-Identifier: Apache-2.0
//! The runs of bytes that a slice consists of, one after another.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::{Loop, Slice, MAX_LOOPS};

/// A place in the sequence of runs.
#[derive(Clone)]
pub(crate) struct Runs {
    slice: Arc<Slice>,
    /// Where the next run begins.
    at: u64,
    /// How many turns of each loop lie behind.
    done: [u64; MAX_LOOPS],
    over: bool,
    /// Bytes of the next run that have been taken already.
    taken: usize,
}

impl Runs {
    pub(super) fn new(slice: Arc<Slice>) -> Self {
        let (at, over) = (slice.first, slice.size == 0);
        Self { slice, at, done: [0; MAX_LOOPS], over, taken: 0 }
    }

    /// Bytes in each run.
    pub(super) fn run(&self) -> u64 {
        self.slice.run
    }

    /// Where the next run begins, and how many runs from there on lie at the
    /// innermost loop's stride, with that stride.
    pub(super) fn peek(&self) -> Option<(u64, Loop)> {
        let rest = match (self.slice.depth, &self.slice.loops, &self.done) {
            (0, ..) => Loop { count: 1, stride: self.slice.run },
            (_, [inner, ..], [done, ..]) => Loop { count: inner.count.saturating_sub(*done), stride: inner.stride },
        };
        (!self.over).then_some((self.at, rest))
    }

    /// Goes on by `count` runs, at most as many as `peek` said.
    pub(super) fn advance(&mut self, count: u64) {
        let mut turns = count;
        for (inner, done) in self.slice.loops.iter().zip(&mut self.done).take(self.slice.depth) {
            *done = done.saturating_add(turns);
            if *done < inner.count {
                self.at = self.at.saturating_add(turns.saturating_mul(inner.stride));
                return;
            }
            // Back to this loop's beginning, and one turn of the next.
            let behind = done.saturating_sub(turns).saturating_mul(inner.stride);
            self.at = self.at.saturating_sub(behind);
            *done = 0;
            turns = 1;
        }
        self.over = true;
    }

    /// Fills `result` with the next bytes of the runs; `bytes` are the tensor's
    /// from `start` on. `None` where the runs end first, or lie elsewhere.
    pub(crate) fn gather(&mut self, bytes: &[u8], start: u64, mut result: &mut [u8]) -> Option<()> {
        let run = usize::try_from(self.run()).ok()?;
        while !result.is_empty() {
            let (at, rest) = self.peek()?;
            let from = bytes.get(usize::try_from(at.checked_sub(start)?).ok()?..)?;
            let whole = result.len().checked_div(run)?;
            let size = if self.taken != 0 || whole == 0 {
                let from = from.get(self.taken..run)?;
                let size = from.len().min(result.len());
                result.get_mut(..size)?.copy_from_slice(from.get(..size)?);
                self.take(size, run);
                size
            } else {
                let count = rest.count.min(whole as u64);
                let size = usize::try_from(count).ok()?.checked_mul(run)?;
                copy_runs(from, usize::try_from(rest.stride).ok()?, run, result.get_mut(..size)?)?;
                self.advance(count);
                size
            };
            result = result.get_mut(size..)?;
        }
        Some(())
    }

    /// Goes on within a run.
    fn take(&mut self, size: usize, run: usize) {
        self.taken = self.taken.saturating_add(size);
        if self.taken == run {
            self.taken = 0;
            self.advance(1);
        }
    }
}

/// Copies runs that lie `stride` bytes apart.
fn copy_runs(from: &[u8], stride: usize, run: usize, to: &mut [u8]) -> Option<()> {
    match run {
        1 => copy_elements::<1>(from, stride, to),
        2 => copy_elements::<2>(from, stride, to),
        4 => copy_elements::<4>(from, stride, to),
        8 => copy_elements::<8>(from, stride, to),
        _ => {
            for (to, from) in to.chunks_exact_mut(run).zip(from.chunks(stride)) {
                to.copy_from_slice(from.get(..run)?);
            }
            Some(())
        }
    }
}

/// The same for single elements, where a copy of unknown size costs ten times
/// the load and store that it is.
fn copy_elements<const N: usize>(from: &[u8], stride: usize, to: &mut [u8]) -> Option<()> {
    for (to, from) in to.chunks_exact_mut(N).zip(from.chunks(stride)) {
        to.copy_from_slice(from.first_chunk::<N>()?);
    }
    Some(())
}
