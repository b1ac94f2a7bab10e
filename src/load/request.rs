// SPDX-License-Identifier: Apache-2.0
//! What one thread does at once: some bytes of a file, and what becomes of them.
#![forbid(unsafe_code)]

use super::boxes::Rect;

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
    /// From the start of the shard's file.
    pub(super) offset: u64,
    pub(super) len: u64,
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
    /// Where in the file it begins, and its bytes there.
    pub(super) offset: u64,
    pub(super) size: u64,
    /// Whether the item's bytes are just those of the file.
    pub(super) dense: bool,
}

impl ItemPart {
    pub(super) fn end(&self) -> u64 {
        self.offset.saturating_add(self.size)
    }
}

/// Parts that are fetched by one read through the page cache: as many as lie within
/// [`STAGED`] bytes of its start, or over others that do, so that nothing is read twice.
pub(super) struct Fetched<'p> {
    pub(super) parts: &'p [ItemPart],
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// The reads that bring the parts of a request, which are in the files' order.
pub(super) fn fetched(parts: &[ItemPart]) -> impl Iterator<Item = Fetched<'_>> {
    let mut rest = parts;
    std::iter::from_fn(move || {
        let offset = rest.first()?.offset;
        let mut end = offset;
        let near = rest.iter().enumerate().take_while(|(number, part)| {
            let near = *number == 0 || part.offset < end || part.end() <= offset.saturating_add(STAGED);
            end = if near { end.max(part.end()) } else { end };
            near
        });
        let (parts, later) = rest.split_at_checked(near.count())?;
        rest = later;
        Some(Fetched { parts, offset, len: end.saturating_sub(offset) })
    })
}
