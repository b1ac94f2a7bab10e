// SPDX-License-Identifier: Apache-2.0
//! Ranges of bytes.
#![forbid(unsafe_code)]

/// Bytes that follow one another, of a file if nothing else is said. No end is past
/// the largest number: what would go further is cut there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extent<T = u64> {
    /// The first byte.
    pub(crate) start: T,
    /// How many there are.
    pub(crate) len: T,
}

/// A part of a text in memory.
pub(crate) type TextExtent = Extent<usize>;

impl Extent {
    pub(crate) fn new(start: u64, len: u64) -> Self {
        Self { start, len }
    }

    /// From one byte up to another; empty where that is not after the first.
    pub(crate) fn between(start: u64, end: u64) -> Self {
        Self { start, len: end.saturating_sub(start) }
    }

    /// The byte after the last.
    pub(crate) fn end(self) -> u64 {
        self.start.saturating_add(self.len)
    }

    /// From the first byte of both to the last.
    pub(crate) fn and(self, other: Self) -> Self {
        Self::between(self.start.min(other.start), self.end().max(other.end()))
    }

    /// Whether both have a byte in common.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.start.max(other.start) < self.end().min(other.end())
    }

    /// With a number of its own, as [`super::sort::rows`] sorts many.
    pub(crate) fn row(self, number: usize) -> [u64; 3] {
        [self.start, self.len, number as u64]
    }

    /// What [`Extent::row`] was made of.
    pub(crate) fn of_row([start, len, number]: [u64; 3]) -> (Self, usize) {
        (Self { start, len }, usize::try_from(number).unwrap_or(usize::MAX))
    }

    pub(crate) fn is_empty(self) -> bool {
        self.len == 0
    }

    /// At most that many, from its start.
    pub(crate) fn first(self, most: u64) -> Self {
        Self { len: self.len.min(most), ..self }
    }

    /// What comes after that many.
    pub(crate) fn after(self, bytes: u64) -> Self {
        Self::between(self.start.saturating_add(bytes), self.end())
    }
}

impl TextExtent {
    /// These bytes of a text; none where it is too short.
    pub(crate) fn of(self, text: &[u8]) -> &[u8] {
        text.get(self.start..self.start.saturating_add(self.len)).unwrap_or_default()
    }
}
