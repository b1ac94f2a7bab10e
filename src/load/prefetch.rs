// SPDX-License-Identifier: Apache-2.0
//! Reading ahead of mapped access: page tables are filled before they are used.
#![forbid(unsafe_code)]

use crate::base::memory;
use crate::base::parallel;
use crate::base::sort;
use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::record::Tensor;

/// One thread's piece: two threads share a single large tensor.
const PIECE: u64 = 32 << 20;

/// Brings these tensors into memory, `None` for all: mapped ones with their
/// page tables filled when this returns, read ones as the system sees fit.
/// Memory and callbacks have nothing to gain.
///
/// # Errors
/// `InvalidArgument` for a record that is not this checkpoint's, `Io` where a
/// mapped file can't be read.
pub fn prefetch(checkpoint: &Checkpoint, tensors: Option<&[&Tensor]>) -> Result<()> {
    let pieces = pieces(ranges(checkpoint, tensors)?)?;
    parallel::map(pieces.len(), parallel::cores(), |piece| {
        let Some([shard, start, end]) = pieces.get(piece).copied() else { return Ok(()) };
        let shard = usize::try_from(shard).unwrap_or(usize::MAX);
        let found = checkpoint.source(shard)?.populate(start, end.saturating_sub(start));
        found.map_err(|error| error.in_file(&checkpoint.label_of(shard)))
    })?;
    Ok(())
}

/// The other half of [`prefetch`]: pages of the mapping are let go, and the page
/// cache learns that these tensors, `None` for all, are not needed.
///
/// # Errors
/// `InvalidArgument` for a record that is not this checkpoint's.
pub fn evict(checkpoint: &Checkpoint, tensors: Option<&[&Tensor]>) -> Result<()> {
    for [shard, start, end] in pieces(ranges(checkpoint, tensors)?)? {
        let shard = usize::try_from(shard).unwrap_or(usize::MAX);
        checkpoint.source(shard)?.evict(start, end.saturating_sub(start));
    }
    Ok(())
}

/// Shard, start and end of each tensor.
fn ranges(checkpoint: &Checkpoint, tensors: Option<&[&Tensor]>) -> Result<Vec<[u64; 3]>> {
    let count = tensors.map_or(checkpoint.tensors().len(), <[_]>::len);
    let mut ranges = memory::vec_with_capacity(count, "ranges")?;
    let range = |tensor: &Tensor| {
        let start = tensor.offset();
        [tensor.shard() as u64, start, start.saturating_add(tensor.size())]
    };
    match tensors {
        None => ranges.extend(checkpoint.tensors().iter().map(range)),
        Some(tensors) => {
            for tensor in tensors {
                ranges.push(range(checkpoint.own(tensor)?));
            }
        }
    }
    Ok(ranges)
}

/// Shard, start and end: what touches in one, and that cut up.
fn pieces(mut ranges: Vec<[u64; 3]>) -> Result<Vec<[u64; 3]>> {
    ranges.retain(|[_, start, end]| start < end);
    sort::rows(&mut ranges);
    let mut pieces: Vec<[u64; 3]> = Vec::new();
    for [shard, mut start, end] in ranges {
        if let Some([_, first, last]) = pieces.last_mut().filter(|[before, _, last]| *before == shard && *last >= start)
        {
            let grown = end.max(*last).min(first.saturating_add(PIECE));
            start = grown.max(*last);
            *last = start;
        }
        while start < end {
            let next = start.saturating_add(PIECE).min(end);
            memory::reserve(&mut pieces, 1, "ranges")?;
            pieces.push([shard, start, next]);
            start = next;
        }
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_are_joined_and_long_ones_cut() {
        let ranges = vec![[1, 5, 6], [0, 0, 10], [0, 10, 20], [0, 15, 18], [0, 30, 30], [0, 40, 50 + PIECE]];
        let expected = [[0, 0, 20], [0, 40, 40 + PIECE], [0, 40 + PIECE, 50 + PIECE], [1, 5, 6]];
        assert_eq!(pieces(ranges).unwrap(), expected);
        let halves = vec![[0, 0, PIECE / 2], [0, PIECE / 2, PIECE * 2]];
        assert_eq!(pieces(halves).unwrap(), [[0, 0, PIECE], [0, PIECE, PIECE * 2]]);
    }
}
