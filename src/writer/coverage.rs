// SPDX-License-Identifier: Apache-2.0
//! Which bytes of a tensor have been written.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

/// Ranges that neither overlap nor touch: start → end.
#[derive(Default)]
pub(super) struct Coverage(BTreeMap<u64, u64>);

impl Coverage {
    /// Takes `start..end`, which is not empty, or returns a range that holds
    /// some of it already.
    pub(super) fn claim(&mut self, mut start: u64, mut end: u64) -> Result<(), (u64, u64)> {
        // Of the ranges that begin before its end, the last one reaches furthest.
        if let Some((from, to)) = self.last_before(end) {
            if to > start {
                return Err((from, to));
            }
            if to == start {
                self.0.remove(&from);
                start = from;
            }
        }
        if let Some(next) = self.0.remove(&end) {
            end = next;
        }
        self.0.insert(start, end);
        Ok(())
    }

    /// Gives back what was claimed.
    pub(super) fn release(&mut self, start: u64, end: u64) {
        if let Some((from, to)) = self.last_before(end) {
            self.0.remove(&from);
            if from < start {
                self.0.insert(from, start);
            }
            if end < to {
                self.0.insert(end, to);
            }
        }
    }

    /// The first bytes of `0..size` that are missing.
    pub(super) fn gap(&self, size: u64) -> Option<(u64, u64)> {
        let mut ranges = self.0.iter();
        let start = match ranges.next() {
            Some((0, end)) => *end,
            Some((start, _)) => return Some((0, *start)),
            None => 0,
        };
        let end = ranges.next().map_or(size, |(start, _)| *start);
        (start < end).then_some((start, end))
    }

    fn last_before(&self, end: u64) -> Option<(u64, u64)> {
        self.0.range(..end).next_back().map(|(from, to)| (*from, *to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_knows_each_byte(steps in prop::collection::vec((0_u64..40, 1_u64..12, any::<bool>()), 0..80)) {
            let (mut coverage, mut bytes, mut held) = (Coverage::default(), [false; 64], Vec::new());
            for (start, len, give_back) in steps {
                let range = start as usize..(start + len) as usize;
                let free = bytes[range.clone()].iter().all(|byte| !byte);
                prop_assert_eq!(coverage.claim(start, start + len).is_ok(), free);
                if free {
                    bytes[range].fill(true);
                    held.push((start, len));
                } else if give_back && !held.is_empty() {
                    let (start, len) = held.swap_remove(start as usize % held.len());
                    coverage.release(start, start + len);
                    bytes[start as usize..(start + len) as usize].fill(false);
                }
                let first = bytes.iter().position(|byte| !byte).map(|first| {
                    let len = bytes[first..].iter().position(|byte| *byte).unwrap_or(64 - first);
                    (first as u64, (first + len) as u64)
                });
                prop_assert_eq!(coverage.gap(64), first);
            }
        }
    }
}
