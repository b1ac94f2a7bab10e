// SPDX-License-Identifier: Apache-2.0
//! Bytes of a selection's result: out of a window of the file, or read as they
//! are needed.
#![forbid(unsafe_code)]

use super::selection::{IndexRun, LoopLevel, Selection};
use crate::convert;
use crate::error::{Error, ErrorKind, Result};

/// Where the bytes of a tensor come from.
pub(crate) trait Fetch {
    /// Fills `out` with the tensor's bytes from `start` on.
    fn straight(&mut self, start: u64, out: &mut [u8]) -> Result<()>;

    /// The tensor's bytes from `start` on, at most as many as [`Fetch::limits`] says.
    fn staged(&mut self, start: u64, len: usize) -> Result<&[u8]>;

    /// The widest gap that is read over, and the most bytes that are staged at once.
    fn limits(&self) -> (u64, u64);
}

/// Told of a run: where it lies, and its bytes.
type Each<'e> = &'e mut dyn FnMut(Option<u64>, u64) -> Result<()>;

impl Selection {
    /// Fills `out` with the result from its byte `at` on; `window` is the
    /// tensor's bytes from `start` on. `None` where what is needed lies elsewhere.
    /// `far`: nobody looks at the result soon.
    pub(crate) fn copy(&self, at: u64, out: &mut [u8], window: &[u8], start: u64, far: bool) -> Option<()> {
        let from = |offset: u64| window.get(usize::try_from(offset.checked_sub(start)?).ok()?..);
        self.copy_level(&self.levels, self.base, at, out, &Window { from: &from, far })
    }

    fn copy_level(
        &self,
        levels: &[LoopLevel],
        base: u64,
        mut at: u64,
        mut out: &mut [u8],
        window: &Window<'_, '_>,
    ) -> Option<()> {
        let from = window.from;
        let Some((level, inner)) = levels.split_first() else {
            out.copy_from_slice(from(base.checked_add(at)?)?.get(..out.len())?);
            return Some(());
        };
        while !out.is_empty() {
            let place = level.place(at)?;
            let offset = base.checked_add(place.start)?;
            let len = match place.kind {
                GatherKind::Zeros => {
                    let len = out.len().min(usize::try_from(place.left).unwrap_or(usize::MAX));
                    out.get_mut(..len)?.fill(0);
                    len
                }
                // Units side by side: of the innermost level, each one run.
                GatherKind::Index if inner.is_empty() && place.within == 0 && out.len() as u64 >= level.block => {
                    let unit = usize::try_from(self.unit).ok()?;
                    let count = place.left.min(out.len().checked_div(unit)? as u64);
                    let len = usize::try_from(count).ok()?.checked_mul(unit)?;
                    let source = from(offset)?;
                    let to = out.get_mut(..len)?;
                    match level.stride == self.unit {
                        true => to.copy_from_slice(source.get(..len)?),
                        false => copy_runs(source, usize::try_from(level.stride).ok()?, unit, to, window.far)?,
                    }
                    len
                }
                GatherKind::Index => {
                    let rest = usize::try_from(level.block.checked_sub(place.within)?).unwrap_or(usize::MAX);
                    let len = rest.min(out.len());
                    self.copy_level(inner, offset, place.within, out.get_mut(..len)?, window)?;
                    len
                }
            };
            at = at.checked_add(len as u64)?;
            out = out.get_mut(len..)?;
        }
        Some(())
    }

    /// The bytes that are taken from the file in one go, at least.
    pub(crate) fn unit(&self) -> u64 {
        self.unit
    }

    /// The widest gap between bytes that are taken.
    pub(crate) fn gap(&self) -> u64 {
        self.reach.gap
    }

    /// No gap between bytes that are taken is narrower; 0 where some may have none.
    pub(crate) fn least_gap(&self) -> u64 {
        self.levels.iter().map(LoopLevel::gap).min().unwrap_or(0)
    }

    /// Tells `each` of the runs of the file that make up the result's bytes from `at`
    /// on, `len` of them, in the result's order: where each lies, from the tensor's
    /// first byte (`None`: zeros), and its bytes.
    ///
    /// # Errors
    /// What `each` said.
    pub(crate) fn runs(&self, at: u64, len: u64, each: Each<'_>) -> Result<()> {
        self.runs_of(&self.levels, self.base, at, len, each)
    }

    fn runs_of(&self, levels: &[LoopLevel], base: u64, mut at: u64, mut len: u64, each: Each<'_>) -> Result<()> {
        let Some((level, inner)) = levels.split_first() else {
            return each(Some(base.saturating_add(at)), len);
        };
        while len != 0 {
            let place = level.place(at).ok_or_else(outside)?;
            let offset = base.saturating_add(place.start);
            let now = match place.kind {
                GatherKind::Zeros => {
                    let now = len.min(place.left);
                    each(None, now)?;
                    now
                }
                GatherKind::Index if inner.is_empty() && level.stride == self.unit => {
                    let left = level.bytes(place.left).saturating_sub(place.within);
                    let now = len.min(left);
                    each(Some(offset.saturating_add(place.within)), now)?;
                    now
                }
                // Of the innermost level, each index is a run.
                GatherKind::Index if inner.is_empty() && place.within == 0 && len >= level.block => {
                    let count = place.left.min(len.checked_div(level.block).unwrap_or_default());
                    for turn in 0..count {
                        each(Some(offset.saturating_add(level.offset(turn))), level.block)?;
                    }
                    level.bytes(count)
                }
                GatherKind::Index => {
                    let now = len.min(level.block.saturating_sub(place.within));
                    self.runs_of(inner, offset, place.within, now, each)?;
                    now
                }
            };
            at = at.saturating_add(now);
            len = len.saturating_sub(now);
        }
        Ok(())
    }

    /// Fills `out` with the result from its byte `at` on, and reads what it takes.
    ///
    /// # Errors
    /// What reading said.
    pub(crate) fn fetch(&self, at: u64, out: &mut [u8], from: &mut dyn Fetch) -> Result<()> {
        self.fetch_level(0, self.base, at, out, from)
    }

    fn fetch_level(
        &self,
        depth: usize,
        base: u64,
        mut at: u64,
        mut out: &mut [u8],
        from: &mut dyn Fetch,
    ) -> Result<()> {
        let (Some(level), inner) = (self.levels.get(depth), self.levels.get(depth.saturating_add(1)..)) else {
            return from.straight(base.saturating_add(at), out);
        };
        let (inner, (widest_gap, window)) = (inner.unwrap_or_default(), from.limits());
        while !out.is_empty() {
            let place = level.place(at).ok_or_else(outside)?;
            let offset = base.saturating_add(place.start);
            let whole = (out.len() as u64).checked_div(level.block).unwrap_or_default();
            let inside = level.inside;
            let len = match place.kind {
                GatherKind::Zeros => {
                    let len = out.len().min(usize::try_from(place.left).unwrap_or(usize::MAX));
                    out.get_mut(..len).ok_or_else(outside)?.fill(0);
                    len
                }
                GatherKind::Index if inner.is_empty() && level.stride == self.unit => {
                    let left = level.bytes(place.left).saturating_sub(place.within);
                    let len = out.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    let to = out.get_mut(..len).ok_or_else(outside)?;
                    from.straight(offset.saturating_add(place.within), to)?;
                    len
                }
                GatherKind::Index
                    if place.within == 0 && whole != 0 && inside.gap <= widest_gap && inside.bytes.len <= window =>
                {
                    let count = place.left.min(whole).min(level.together(widest_gap, window));
                    let len = size(level.bytes(count))?;
                    let to = out.get_mut(..len).ok_or_else(outside)?;
                    if count == 1 && inner.is_empty() {
                        from.straight(offset, to)?;
                    } else {
                        let start = offset.saturating_add(inside.bytes.start);
                        let bytes = from.staged(start, size(level.span(count))?)?;
                        let found = |at: u64| bytes.get(usize::try_from(at.checked_sub(start)?).ok()?..);
                        let window = Window { from: &found, far: false };
                        for (turn, to) in (0_u64..).zip(to.chunks_mut(size(level.block)?)) {
                            let offset = offset.saturating_add(level.offset(turn));
                            self.copy_level(inner, offset, 0, to, &window).ok_or_else(outside)?;
                        }
                    }
                    len
                }
                GatherKind::Index => {
                    let rest = level.block.saturating_sub(place.within);
                    let len = out.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
                    let to = out.get_mut(..len).ok_or_else(outside)?;
                    self.fetch_level(depth.saturating_add(1), offset, place.within, to, from)?;
                    len
                }
            };
            at = at.saturating_add(len as u64);
            out = out.get_mut(len..).ok_or_else(outside)?;
        }
        Ok(())
    }
}

/// Bytes of the tensor that are in memory.
struct Window<'f, 'w> {
    /// From an offset on.
    from: &'f dyn Fn(u64) -> Option<&'w [u8]>,
    /// Whether results go past the caches.
    far: bool,
}

/// Runs from this size on are worth their way past the caches.
const FAR_RUN: usize = 1 << 10;

/// A place in a level's part of the result.
struct LevelPlace {
    kind: GatherKind,
    /// Where the index lies, in bytes from the level's first.
    start: u64,
    /// Bytes of the index before the place.
    within: u64,
    /// Indices of the piece from here on; of zeros: their bytes.
    left: u64,
}

enum GatherKind {
    Index,
    Zeros,
}

impl LoopLevel {
    fn place(&self, at: u64) -> Option<LevelPlace> {
        let (index, within) = (at.checked_div(self.block)?, at.checked_rem(self.block)?);
        let after = self.pieces.partition_point(|piece| piece.at <= index);
        let IndexRun { start, count, zeros, at: first } = *self.pieces.get(after.checked_sub(1)?)?;
        let turn = index.checked_sub(first)?;
        if turn < count {
            let start = start.checked_add(turn)?.checked_mul(self.stride)?;
            return Some(LevelPlace { kind: GatherKind::Index, start, within, left: count.checked_sub(turn)? });
        }
        let end = first.checked_add(count)?.checked_add(zeros)?.checked_mul(self.block)?;
        let left = end.checked_sub(at).filter(|left| *left != 0)?;
        Some(LevelPlace { kind: GatherKind::Zeros, start: 0, within: 0, left })
    }
}

/// Copies runs that lie `stride` bytes apart.
fn copy_runs(from: &[u8], stride: usize, run: usize, to: &mut [u8], far: bool) -> Option<()> {
    match run {
        1 => copy_elements::<1>(from, stride, to),
        2 => copy_elements::<2>(from, stride, to),
        4 => copy_elements::<4>(from, stride, to),
        8 => copy_elements::<8>(from, stride, to),
        16 => copy_elements::<16>(from, stride, to),
        32 => copy_elements::<32>(from, stride, to),
        64 => copy_elements::<64>(from, stride, to),
        _ if far && run >= FAR_RUN => convert::copy_runs_far(from, stride, run, to),
        _ => {
            for (to, from) in to.chunks_exact_mut(run).zip(from.chunks(stride)) {
                to.copy_from_slice(from.get(..run)?);
            }
            Some(())
        }
    }
}

/// The same for single elements and runs of few, where a copy of unknown size costs ten times
/// the load and store that it is.
fn copy_elements<const N: usize>(from: &[u8], stride: usize, to: &mut [u8]) -> Option<()> {
    for (to, from) in to.chunks_exact_mut(N).zip(from.chunks(stride)) {
        to.copy_from_slice(from.first_chunk::<N>()?);
    }
    Some(())
}

fn size(bytes: u64) -> Result<usize> {
    usize::try_from(bytes).map_err(|_| outside())
}

#[cold]
fn outside() -> Error {
    Error::new(ErrorKind::Internal, "a place outside a selection's result")
}
