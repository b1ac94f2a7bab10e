// SPDX-License-Identifier: Apache-2.0
//! From runs to reads: what touches is one read, and small gaps are read over.
#![forbid(unsafe_code)]

use super::Runs;

/// The reads that fetch a slice, in file order.
pub(crate) struct Reads {
    rest: Runs,
    widest_gap: u64,
    window: u64,
}

impl Reads {
    pub(super) fn new(runs: Runs, widest_gap: u64, window: u64) -> Self {
        Self { rest: runs, widest_gap, window }
    }
}

/// One read.
pub(crate) struct Read {
    /// Where it begins, in bytes from the tensor's first.
    pub(crate) start: u64,
    /// Bytes to read.
    pub(crate) size: u64,
    /// Bytes of the result that are among them; all, or there are gaps between.
    pub(crate) picked: u64,
    /// The first of the runs in it.
    pub(crate) runs: Runs,
}

impl Iterator for Reads {
    type Item = Read;

    /// Runs that touch are one read of any size; with gaps between them it is
    /// bounded, as it has to go through other memory.
    fn next(&mut self) -> Option<Read> {
        let runs = self.rest.clone();
        let run = runs.run();
        let (start, _) = self.rest.peek()?;
        self.rest.advance(1);
        let (mut size, mut picked) = (run, run);
        while let Some((at, rest)) = self.rest.peek() {
            let before = at.saturating_sub(start);
            let gap = before.saturating_sub(size);
            let count = if gap == 0 && size == picked {
                1
            } else if gap > self.widest_gap {
                break;
            } else {
                let Some(room) = self.window.checked_sub(before.saturating_add(run)) else { break };
                let close = rest.stride.saturating_sub(run) <= self.widest_gap;
                let more = if close { room.checked_div(rest.stride).unwrap_or_default() } else { 0 };
                more.saturating_add(1).min(rest.count)
            };
            self.rest.advance(count);
            size = before.saturating_add(run).saturating_add(count.saturating_sub(1).saturating_mul(rest.stride));
            picked = picked.saturating_add(count.saturating_mul(run));
        }
        Some(Read { start, size, picked, runs })
    }
}
