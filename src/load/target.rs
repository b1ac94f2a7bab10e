// SPDX-License-Identifier: Apache-2.0
//! Where results go: the caller's memory, dense or with strides.

use std::marker::PhantomData;
use std::slice;

use crate::base::memory;
use crate::base::sort;
use crate::error::{Error, ErrorKind, Result};

/// Memory of the caller's, which several threads fill, each its own part.
#[derive(Clone, Copy)]
pub struct Memory<'a> {
    start: *mut u8,
    len: usize,
    borrowed: PhantomData<&'a mut [u8]>,
}

// SAFETY: whoever made it vouched that the bytes are for the load alone, on any thread.
unsafe impl Send for Memory<'_> {}
// SAFETY: as above; `part` says who keeps threads apart.
unsafe impl Sync for Memory<'_> {}

impl<'a> Memory<'a> {
    /// No bytes.
    pub const NONE: Self = Self { start: std::ptr::null_mut(), len: 0, borrowed: PhantomData };

    /// # Safety
    /// `start` is null, or leads to `len` bytes (at most `isize::MAX`) that
    /// nobody else touches during `'a`, but for other `Memory`: what overlaps is
    /// found by [`super::load`], which refuses it.
    #[must_use]
    pub unsafe fn new(start: *mut u8, len: usize) -> Self {
        Self { start, len: if start.is_null() { 0 } else { len }, borrowed: PhantomData }
    }

    /// Memory that is borrowed for as long.
    #[must_use]
    pub fn of(memory: &'a mut [u8]) -> Self {
        Self { start: memory.as_mut_ptr(), len: memory.len(), borrowed: PhantomData }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn start(&self) -> usize {
        self.start.addr()
    }

    /// `len` bytes from `at` on; `None` where they are not all there.
    ///
    /// # Safety
    /// Nobody else has any of these bytes at the same time.
    unsafe fn part(&self, at: u64, len: usize) -> Option<&'a mut [u8]> {
        let at = usize::try_from(at).ok()?;
        if at.checked_add(len)? > self.len {
            return None;
        }
        // SAFETY: inside the memory that `new` was promised; by the caller's
        // promise it is this part's only borrow.
        Some(unsafe { slice::from_raw_parts_mut(self.start.wrapping_add(at), len) })
    }

    /// Bytes of a dense result, or of a staging buffer.
    ///
    /// They are lent once: a plan has each byte of a result in one request, one
    /// thread works on a request, [`super::overlap`] has kept the results of
    /// different items apart, and a staging buffer has one user at a time.
    pub(super) fn dense(&self, at: u64, len: usize) -> Result<&'a mut [u8]> {
        // SAFETY: as said above.
        unsafe { self.part(at, len) }.ok_or_else(outside)
    }

    /// Writes bytes of a result from its byte `at` on to their places.
    pub(super) fn scatter(&self, layout: &Layout, at: u64, mut bytes: &[u8]) -> Result<()> {
        let mut walk = layout.walk(at).ok_or_else(outside)?;
        let run = usize::try_from(layout.run).map_err(|_| outside())?;
        while !bytes.is_empty() {
            let (place, rest) = walk.peek().ok_or_else(outside)?;
            if walk.within != 0 || bytes.len() < run {
                let len = run.saturating_sub(walk.within).min(bytes.len());
                let place = place.checked_add(walk.within as u64).ok_or_else(outside)?;
                let (now, later) = bytes.split_at_checked(len).ok_or_else(outside)?;
                self.dense(place, len)?.copy_from_slice(now);
                walk.step_within(len, run);
                bytes = later;
                continue;
            }
            let count = rest.count.min(bytes.len().checked_div(run).unwrap_or_default() as u64);
            let len = usize::try_from(count).ok().and_then(|count| count.checked_mul(run)).ok_or_else(outside)?;
            let (now, later) = bytes.split_at_checked(len).ok_or_else(outside)?;
            match run {
                1 => self.spread::<1>(place, rest.stride, now),
                2 => self.spread::<2>(place, rest.stride, now),
                4 => self.spread::<4>(place, rest.stride, now),
                8 => self.spread::<8>(place, rest.stride, now),
                _ => now.chunks_exact(run).zip(0_u64..).try_for_each(|(now, turn)| {
                    let place = rest.stride.checked_mul(turn).and_then(|far| place.checked_add(far));
                    self.dense(place.ok_or_else(outside)?, run)?.copy_from_slice(now);
                    Ok(())
                }),
            }?;
            walk.advance(count);
            bytes = later;
        }
        Ok(())
    }

    /// Single elements, `stride` bytes apart.
    fn spread<const N: usize>(&self, place: u64, stride: u64, bytes: &[u8]) -> Result<()> {
        let elements = bytes.chunks_exact(N);
        let last = stride.checked_mul((elements.len() as u64).saturating_sub(1));
        let last = last.and_then(|far| place.checked_add(far)).and_then(|last| last.checked_add(N as u64));
        if last.is_none_or(|end| end > self.len as u64) {
            return Err(outside());
        }
        let (mut place, stride) = match (usize::try_from(place), usize::try_from(stride)) {
            (Ok(place), Ok(stride)) => (place, stride),
            _ => return Err(outside()),
        };
        for element in elements {
            let Some(element) = element.first_chunk::<N>() else { break };
            // SAFETY: the last place was found inside, and so are those before
            // it; they are this item's alone, as for `dense`.
            unsafe { self.start.wrapping_add(place).cast::<[u8; N]>().write_unaligned(*element) };
            place = place.wrapping_add(stride);
        }
        Ok(())
    }
}

#[cold]
fn outside() -> Error {
    Error::new(ErrorKind::Internal, "a result lies outside its destination")
}

/// A result with strides: runs of bytes in nested loops.
pub(super) struct Layout {
    /// Bytes that lie together.
    run: u64,
    /// In the result's order, innermost first; each happens at least twice.
    loops: Vec<Loop>,
}

#[derive(Clone, Copy)]
pub(super) struct Loop {
    pub(super) count: u64,
    pub(super) stride: u64,
}

impl Layout {
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
                _ => layout.loops.push(Loop { count, stride }),
            }
        }
        layout.extent_checked().map(|_| layout)
    }

    /// The loops by stride: each leaves room for what lies inside it, so that
    /// no two elements share a byte.
    fn extent_checked(&self) -> Result<u64, String> {
        let mut extent = self.run;
        for Loop { count, stride } in self.by_stride() {
            if stride < extent {
                return Err(format!("a stride of {stride} bytes leaves no room for the {extent} that lie inside it"));
            }
            let far = stride.checked_mul(count.saturating_sub(1)).and_then(|far| far.checked_add(extent));
            extent = far.ok_or_else(|| "it goes past the end of memory".to_owned())?;
        }
        Ok(extent)
    }

    /// From the first byte to behind the last one.
    pub(super) fn extent(&self) -> u64 {
        self.extent_checked().unwrap_or(u64::MAX)
    }

    /// Smallest stride first.
    fn by_stride(&self) -> Vec<Loop> {
        let mut rows: Vec<_> = self.loops.iter().map(|Loop { count, stride }| [*stride, *count, 0]).collect();
        sort::rows(&mut rows);
        rows.into_iter().map(|[stride, count, _]| Loop { count, stride }).collect()
    }

    /// The same runs, by address instead of by the result's order.
    pub(super) fn by_address(&self) -> Self {
        Self { run: self.run, loops: self.by_stride() }
    }

    pub(super) fn run(&self) -> u64 {
        self.run
    }

    pub(super) fn loops(&self) -> &[Loop] {
        &self.loops
    }

    /// From the first byte to after the last of what the first `count` loops hold.
    pub(super) fn extent_of(&self, count: usize) -> u64 {
        let loops = self.loops.iter().take(count);
        let far = |Loop { count, stride }: &Loop| count.saturating_sub(1).saturating_mul(*stride);
        loops.map(far).fold(self.run, u64::saturating_add)
    }

    /// From the result's byte `at` on.
    pub(super) fn walk(&self, at: u64) -> Option<Walk<'_>> {
        let mut turn = at.checked_div(self.run)?;
        let within = usize::try_from(at.checked_rem(self.run)?).ok()?;
        let (mut place, mut done) = (0_u64, Vec::with_capacity(self.loops.len()));
        for Loop { count, stride } in &self.loops {
            let turns = turn.checked_rem(*count)?;
            place = place.checked_add(turns.checked_mul(*stride)?)?;
            done.push(turns);
            turn = turn.checked_div(*count)?;
        }
        Some(Walk { layout: self, place, done, within, over: turn != 0 })
    }
}

/// A place in the sequence of a layout's runs.
pub(super) struct Walk<'a> {
    layout: &'a Layout,
    place: u64,
    /// How many turns of each loop lie behind.
    done: Vec<u64>,
    /// Bytes of the run that lie behind.
    within: usize,
    over: bool,
}

impl Walk<'_> {
    /// Where the run begins, and how many from there on lie at which stride.
    pub(super) fn peek(&self) -> Option<(u64, Loop)> {
        let rest = match (self.layout.loops.first(), self.done.first()) {
            (Some(inner), Some(done)) => Loop { count: inner.count.saturating_sub(*done), stride: inner.stride },
            _ => Loop { count: 1, stride: self.layout.run },
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
            let behind = done.saturating_sub(turns).saturating_mul(inner.stride);
            self.place = self.place.saturating_sub(behind);
            *done = 0;
            turns = 1;
        }
        self.over = true;
    }

    fn step_within(&mut self, len: usize, run: usize) {
        self.within = self.within.saturating_add(len);
        if self.within >= run {
            self.within = 0;
            self.advance(1);
        }
    }
}

/// The memory in which one thread puts bytes together; each is had once it is wanted.
#[derive(Default)]
pub(super) struct Staging {
    /// What files are read into.
    pub(super) window: Option<memory::Aligned>,
    /// Bytes of an item as the file has them, without what lay between.
    pub(super) gathered: Option<memory::Aligned>,
    /// Bytes of a result before they are spread or transformed.
    pub(super) converted: Option<memory::Aligned>,
}

/// Room for results on their way, on huge pages and cache lines of its own.
pub(super) fn scratch(kept: &mut Option<memory::Aligned>, len: usize) -> Result<&mut [u8]> {
    let aligned = match kept {
        Some(aligned) => aligned,
        none => none.insert(memory::Aligned::zeroed(len, "a staging buffer")?),
    };
    Ok(aligned.as_mut())
}
