// SPDX-License-Identifier: Apache-2.0
//! Memory whose size a file decides: asked for fallibly, on huge pages where
//! it is large, and never moved once something points into it.

use std::alloc::{self, Layout};
use std::ptr::NonNull;
use std::slice;

use crate::error::{Error, Result};

/// Blocks from this size on are worth a system call for huge pages: one page
/// fault instead of 512, and one TLB entry at each cold lookup later.
const HUGE_FROM: usize = 4 << 20;

/// A vector with room for just `capacity` items, or an error instead of an
/// abort. Untouched room costs address space only.
pub(crate) fn vec_with_capacity<T>(capacity: usize, what: &str) -> Result<Vec<T>> {
    let mut vec = Vec::new();
    vec.try_reserve_exact(capacity).map_err(|_| no_room::<T>(what, capacity))?;
    let room = vec.spare_capacity_mut();
    advise_huge(room.as_mut_ptr().cast(), size_of_val(room));
    Ok(vec)
}

/// Room for `additional` more items, growing in proportion.
pub(crate) fn reserve<T>(vec: &mut Vec<T>, additional: usize, what: &str) -> Result<()> {
    vec.try_reserve(additional).map_err(|_| no_room::<T>(what, additional))
}

/// Room for just `additional` more items.
pub(crate) fn reserve_exact<T>(vec: &mut Vec<T>, additional: usize, what: &str) -> Result<()> {
    vec.try_reserve_exact(additional).map_err(|_| no_room::<T>(what, additional))?;
    let room = vec.spare_capacity_mut();
    advise_huge(room.as_mut_ptr().cast(), size_of_val(room));
    Ok(())
}

fn no_room<T>(what: &str, items: usize) -> Error {
    Error::out_of_memory(what, items.saturating_mul(size_of::<T>()))
}

/// `len` zero bytes straight from the kernel where that is cheaper.
pub(crate) fn zeroed(len: usize, what: &str) -> Result<Vec<u8>> {
    if len == 0 {
        return Ok(Vec::new());
    }
    let fail = || Error::out_of_memory(what, len);
    let layout = Layout::array::<u8>(len).map_err(|_| fail())?;
    // SAFETY: the layout is not empty.
    let block = unsafe { alloc::alloc_zeroed(layout) };
    let block = NonNull::new(block).ok_or_else(fail)?;
    advise_huge(block.as_ptr(), len);
    // SAFETY: the block is from the global allocator with just this layout, and initialised.
    Ok(unsafe { Vec::from_raw_parts(block.as_ptr(), len, len) })
}

/// Bytes aligned for any SIMD load and for page-wise I/O of large blocks.
pub(crate) struct Aligned {
    block: NonNull<u8>,
    layout: Layout,
    len: usize,
}

// SAFETY: it owns plain bytes.
unsafe impl Send for Aligned {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Aligned {}

impl Aligned {
    /// The alignment promised for every block.
    pub(crate) const ALIGNMENT: usize = 64;
    /// Large blocks start on a huge page, so that all of them can be huge.
    const HUGE_PAGE: usize = 2 << 20;

    /// `len` zero bytes.
    pub(crate) fn zeroed(len: usize, what: &str) -> Result<Self> {
        let alignment = if len >= HUGE_FROM { Self::HUGE_PAGE } else { Self::ALIGNMENT };
        let fail = || Error::out_of_memory(what, len);
        let layout = Layout::from_size_align(len.max(1), alignment).map_err(|_| fail())?;
        // SAFETY: the layout is not empty.
        let block = NonNull::new(unsafe { alloc::alloc(layout) }).ok_or_else(fail)?;
        advise_huge(block.as_ptr(), len);
        // SAFETY: the block is layout.size() bytes long and ours.
        unsafe { block.as_ptr().write_bytes(0, layout.size()) };
        Ok(Self { block, layout, len })
    }

    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.block.as_ptr()
    }

    pub(crate) fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: the block holds len initialised bytes and is borrowed mutably.
        unsafe { slice::from_raw_parts_mut(self.block.as_ptr(), self.len) }
    }
}

impl Drop for Aligned {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and freed once.
        unsafe { alloc::dealloc(self.block.as_ptr(), self.layout) }
    }
}

/// Shapes one after another in chunks that never move, so that records can
/// point at a shape as soon as it is read.
#[derive(Default)]
pub(crate) struct ShapeArena {
    chunks: Vec<Vec<i64>>,
    /// Length of the shape being built, at the end of the last chunk.
    open: usize,
}

impl ShapeArena {
    const FIRST_CHUNK: usize = 512;
    /// 8 MiB: a million shapes are three or four blocks to free.
    const LARGEST_CHUNK: usize = 1 << 20;

    /// Adds one dimension to the shape being built.
    #[inline]
    pub(crate) fn push(&mut self, dimension: i64) -> Result<()> {
        if !self.chunks.last().is_some_and(|chunk| chunk.len() < chunk.capacity()) {
            self.grow()?;
        }
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.push(dimension);
            self.open = self.open.saturating_add(1);
        }
        Ok(())
    }

    /// A new chunk, to which the shape being built moves whole.
    #[cold]
    fn grow(&mut self) -> Result<()> {
        let last = self.chunks.last().map_or(Self::FIRST_CHUNK, Vec::capacity);
        let room = last.saturating_mul(2).min(Self::LARGEST_CHUNK).max(self.open.saturating_mul(2));
        let mut chunk = vec_with_capacity(room, "shapes")?;
        if let Some(old) = self.chunks.last_mut() {
            let start = old.len().saturating_sub(self.open);
            chunk.extend(old.drain(start..));
        }
        self.chunks.push(chunk);
        Ok(())
    }

    /// The shape being built so far.
    pub(crate) fn current(&self) -> &[i64] {
        let chunk = self.chunks.last().map_or(&[][..], Vec::as_slice);
        chunk.get(chunk.len().saturating_sub(self.open)..).unwrap_or_default()
    }

    /// Ends the shape being built. It stays where it is for the arena's life.
    pub(crate) fn finish(&mut self) -> (*const i64, usize) {
        let shape = self.current();
        let found = (shape.as_ptr(), shape.len());
        self.open = 0;
        found
    }

    /// Drops the shape being built.
    pub(crate) fn abandon(&mut self) {
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.truncate(chunk.len().saturating_sub(self.open));
        }
        self.open = 0;
    }
}

/// Asks for huge pages behind a block; whether they come is up to the kernel.
fn advise_huge(start: *mut u8, len: usize) {
    #[cfg(target_os = "linux")]
    if len >= HUGE_FROM {
        const PAGE: usize = 4096;
        let skip = start.align_offset(PAGE);
        if let Some(inside) = len.checked_sub(skip) {
            // SAFETY: MADV_HUGEPAGE changes no contents, and the range lies inside the block.
            unsafe {
                libc::madvise(
                    start.wrapping_add(skip).cast(),
                    inside & !(PAGE.wrapping_sub(1)),
                    libc::MADV_HUGEPAGE,
                );
            }
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (start, len);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_stay_where_they_are_while_the_arena_grows() {
        let mut arena = ShapeArena::default();
        let mut found = Vec::new();
        for i in 0..5000_i64 {
            for d in 0..(i % 7) {
                arena.push(i + d).unwrap();
            }
            if i % 11 == 0 {
                arena.abandon();
            }
            found.push((i, arena.finish()));
        }
        for (i, (start, len)) in found {
            let expected: Vec<i64> = if i % 11 == 0 { vec![] } else { (0..i % 7).map(|d| i + d).collect() };
            // SAFETY: the arena is alive and never moves its shapes.
            let shape = if len == 0 { &[] } else { unsafe { slice::from_raw_parts(start, len) } };
            assert_eq!(shape, expected);
        }
    }

    #[test]
    fn blocks_are_aligned_and_absurd_sizes_are_errors() {
        for len in [0, 1, 100, HUGE_FROM + 1] {
            let mut block = Aligned::zeroed(len, "test").unwrap();
            assert_eq!(block.as_ptr().align_offset(Aligned::ALIGNMENT), 0);
            assert_eq!(block.as_mut().len(), len);
        }
        assert!(Aligned::zeroed(usize::MAX / 4, "test").is_err());
        assert!(zeroed(usize::MAX / 4, "test").is_err());
        assert!(vec_with_capacity::<u64>(usize::MAX / 16, "test").is_err());
    }
}
