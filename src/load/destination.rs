// SPDX-License-Identifier: Apache-2.0
//! Where results go: the caller's memory, dense or with strides.

use std::marker::PhantomData;
use std::slice;

use super::strides::Strides;
use crate::base::extent::Extent;
use crate::base::memory;
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

    /// Where it is.
    pub(super) fn extent(&self) -> Extent {
        Extent::new(self.start() as u64, self.len as u64)
    }

    /// The same as addresses.
    pub(crate) fn addresses(&self) -> std::ops::Range<usize> {
        self.start()..self.start().saturating_add(self.len)
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
    pub(super) fn scatter(&self, layout: &Strides, at: u64, mut bytes: &[u8]) -> Result<()> {
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

/// Room for `needed` bytes on their way, and for more of them later: `most` at most. It is no
/// larger than is needed, as fresh memory costs as much as what is read into it: the 2 MiB
/// that a thread may have take 80 us, in which 1 MiB is read.
pub(super) fn scratch_for(kept: &mut Option<memory::Aligned>, needed: usize, most: usize) -> Result<&mut [u8]> {
    if kept.as_mut().is_none_or(|kept| kept.as_mut().len() < needed.min(most)) {
        // Freed first: both are not had at once.
        *kept = None;
        let len = needed.checked_next_power_of_two().unwrap_or(most).min(most);
        *kept = Some(memory::Aligned::zeroed(len, "a staging buffer")?);
    }
    scratch(kept, most)
}

/// Room for results on their way, on huge pages and cache lines of its own.
pub(super) fn scratch(kept: &mut Option<memory::Aligned>, len: usize) -> Result<&mut [u8]> {
    let aligned = match kept {
        Some(aligned) => aligned,
        none => none.insert(memory::Aligned::zeroed(len, "a staging buffer")?),
    };
    Ok(aligned.as_mut())
}
