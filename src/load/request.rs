// SPDX-License-Identifier: Apache-2.0
//! What one thread does at once: some bytes of a file, and what becomes of them.
#![forbid(unsafe_code)]

use super::boxes::Rect;
use crate::base::extent::Extent;

/// The most pieces that one request fetches together.
pub(super) const MOST_PARTS: usize = 8192;

/// Handing a buffer over to another thread costs some 10 us, in which this much is copied.
pub(super) const WORTH_A_HAND_OVER: u64 = 64 << 10;

/// Through the page cache, parts are fetched by so much at once, so that they are still in the
/// processor's own cache when they are copied on.
pub(super) const STAGED: u64 = 256 << 10;

/// One read, or several in a row, and what becomes of the bytes.
pub(super) struct Request {
    pub(super) shard: usize,
    /// Of the shard's file.
    pub(super) bytes: Extent,
    pub(super) what: What,
}

pub(super) enum What {
    /// All of it is one item's, from its byte `at` on as the file has them.
    Whole { task: usize, at: u64 },
    /// Parts of it are items'.
    Parts(Vec<ItemPart>, Means),
    /// So many bytes of an item from `at` on, each run read as it is needed.
    Tile { task: usize, at: u64, size: u64 },
    /// Decoded out of several tensors.
    Boxes { task: usize, rect: Rect },
}

/// How parts of a request come to where they go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Means {
    /// By way of staging: all is read at once.
    Staging,
    /// Each run is read to its place: gaps are too wide to be read over.
    Runs,
    /// As is best.
    Either,
}

impl Means {
    /// Of both in one request; `None` where they have none in common.
    pub(super) fn with(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::Either, means) | (means, Self::Either) => Some(means),
            (Self::Staging, Self::Staging) | (Self::Runs, Self::Runs) => Some(self),
            (Self::Staging, Self::Runs) | (Self::Runs, Self::Staging) => None,
        }
    }
}

/// A piece of one item within a request.
pub(super) struct ItemPart {
    pub(super) task: usize,
    /// Bytes of the item that lie before it in the result as the file has it.
    pub(super) at: u64,
    /// Bytes of the item.
    pub(super) picked: u64,
    /// Where it lies in the file.
    pub(super) bytes: Extent,
    /// Whether the item's bytes are just those of the file.
    pub(super) dense: bool,
}

/// Parts that are fetched by one read through the page cache: as many as lie within
/// [`STAGED`] bytes of its start, or over others that do, so that nothing is read twice.
pub(super) struct Fetched<'p> {
    pub(super) parts: &'p [ItemPart],
    pub(super) bytes: Extent,
}

/// The reads that bring the parts of a request, which are in the files' order.
pub(super) fn fetched(parts: &[ItemPart]) -> impl Iterator<Item = Fetched<'_>> {
    let mut rest = parts;
    std::iter::from_fn(move || {
        let mut bytes = rest.first()?.bytes;
        let near = rest.iter().take_while(|part| {
            let both = bytes.and(part.bytes);
            let near = part.bytes.start < bytes.end() || both.len <= STAGED || part.bytes == bytes;
            bytes = if near { both } else { bytes };
            near
        });
        let (parts, later) = rest.split_at_checked(near.count())?;
        rest = later;
        Some(Fetched { parts, bytes })
    })
}
