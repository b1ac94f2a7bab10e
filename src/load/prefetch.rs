// SPDX-License-Identifier: Apache-2.0
//! Reading ahead of mapped access: page tables are filled before they are used.
#![forbid(unsafe_code)]

use crate::base::extent::Extent;
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
        let Some(ShardBytes { shard, bytes }) = pieces.get(piece).copied() else { return Ok(()) };
        let found = checkpoint.source(shard)?.populate(bytes);
        found.map_err(|error| checkpoint.in_shard(shard, error))
    })?;
    Ok(())
}

/// The other half of [`prefetch`]: pages of the mapping are let go, and the page
/// cache learns that these tensors, `None` for all, are not needed.
///
/// # Errors
/// `InvalidArgument` for a record that is not this checkpoint's.
pub fn evict(checkpoint: &Checkpoint, tensors: Option<&[&Tensor]>) -> Result<()> {
    for ShardBytes { shard, bytes } in pieces(ranges(checkpoint, tensors)?)? {
        checkpoint.source(shard)?.evict(bytes);
    }
    Ok(())
}

/// Bytes of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ShardBytes {
    shard: usize,
    bytes: Extent,
}

/// Shard, start and bytes of each tensor.
fn ranges(checkpoint: &Checkpoint, tensors: Option<&[&Tensor]>) -> Result<Vec<[u64; 3]>> {
    let count = tensors.map_or(checkpoint.tensors().len(), <[_]>::len);
    let mut ranges = memory::vec_with_capacity(count, "ranges")?;
    let range = |tensor: &Tensor| [tensor.shard() as u64, tensor.offset(), tensor.size()];
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

/// What touches in one, and that cut up.
fn pieces(mut ranges: Vec<[u64; 3]>) -> Result<Vec<ShardBytes>> {
    sort::rows(&mut ranges);
    let mut pieces: Vec<ShardBytes> = Vec::new();
    for [shard, start, len] in ranges {
        let shard = usize::try_from(shard).unwrap_or(usize::MAX);
        let mut rest = Extent::new(start, len);
        if let Some(last) = pieces.last_mut().filter(|last| last.shard == shard && last.bytes.end() >= start) {
            last.bytes = Extent::between(last.bytes.start, rest.end().max(last.bytes.end())).first(PIECE);
            rest = Extent::between(last.bytes.end(), rest.end());
        }
        while !rest.is_empty() {
            memory::reserve(&mut pieces, 1, "ranges")?;
            pieces.push(ShardBytes { shard, bytes: rest.first(PIECE) });
            rest = rest.after(PIECE);
        }
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_are_joined_and_long_ones_cut() {
        let found = |ranges| {
            let pieces = pieces(ranges).unwrap();
            pieces.iter().map(|piece| (piece.shard, piece.bytes.start, piece.bytes.end())).collect::<Vec<_>>()
        };
        let ranges = vec![[1, 5, 1], [0, 0, 10], [0, 10, 10], [0, 15, 3], [0, 30, 0], [0, 40, 10 + PIECE]];
        assert_eq!(found(ranges), [(0, 0, 20), (0, 40, 40 + PIECE), (0, 40 + PIECE, 50 + PIECE), (1, 5, 6)]);
        let halves = vec![[0, 0, PIECE / 2], [0, PIECE / 2, PIECE * 2 - PIECE / 2]];
        assert_eq!(found(halves), [(0, 0, PIECE), (0, PIECE, PIECE * 2)]);
    }
}
