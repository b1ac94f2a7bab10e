// SPDX-License-Identifier: Apache-2.0
//! Blocks of bytes: on pages of their own, huge ones where they are large.

use std::alloc::{self, Layout};
use std::ptr::NonNull;
use std::slice;

use crate::error::{Error, Result};

/// Blocks from this size on are worth a system call for huge pages: one page
/// fault instead of 512, and one TLB entry at each cold lookup later.
const HUGE_FROM: usize = 4 << 20;
/// What direct I/O wants blocks of memory to begin at: the blocks of any disk.
const DISK_BLOCK: usize = 4096;

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

/// Bytes aligned for any SIMD load, on pages of their own where they are many.
///
/// Large blocks come from the system as zero pages, which cost nothing until
/// they are written: what is read into them touches each page once.
pub(crate) struct Aligned {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: it owns plain bytes.
unsafe impl Send for Aligned {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Aligned {}

impl Aligned {
    /// The alignment promised for every block.
    pub(crate) const ALIGNMENT: usize = 64;
    /// Blocks from this size on are pages of their own.
    const PAGES_FROM: usize = 1 << 20;
    /// Blocks that can hold one start on a huge page, so that all of them can be huge.
    const HUGE_PAGE: usize = 2 << 20;

    /// `len` zero bytes.
    pub(crate) fn zeroed(len: usize, what: &str) -> Result<Self> {
        let start = match Self::layout(len) {
            // SAFETY: the layout is not empty.
            Some(layout) => NonNull::new(unsafe { alloc::alloc_zeroed(layout) }),
            None => Self::pages(len),
        };
        Ok(Self { start: start.ok_or_else(|| Error::out_of_memory(what, len))?, len })
    }

    /// How the allocator is asked for that many bytes; `None` where they are pages.
    fn layout(len: usize) -> Option<Layout> {
        let alignment = if len >= DISK_BLOCK { DISK_BLOCK } else { Self::ALIGNMENT };
        Layout::from_size_align(len.max(1), alignment).ok().filter(|_| len < Self::PAGES_FROM)
    }

    fn pages(len: usize) -> Option<NonNull<u8>> {
        let page = page();
        let alignment = if len >= Self::HUGE_PAGE { Self::HUGE_PAGE } else { page };
        let len = len.checked_next_multiple_of(page)?;
        let whole = len.checked_add(alignment)?;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping, wherever there is room.
        let found = unsafe { libc::mmap(std::ptr::null_mut(), whole, access, kind, -1, 0) };
        if found == libc::MAP_FAILED {
            return None;
        }
        let found = found.cast::<u8>();
        let before = found.align_offset(alignment);
        let start = found.wrapping_add(before);
        // SAFETY: what lies before and after the block is this mapping's too.
        unsafe {
            unmap(found, before);
            unmap(start.wrapping_add(len), alignment.saturating_sub(before));
        }
        advise_huge_from(Self::HUGE_PAGE, start, len);
        NonNull::new(start)
    }

    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.start.as_ptr()
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        // SAFETY: the block holds len initialised bytes.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    pub(crate) fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: the block holds len initialised bytes and is borrowed mutably.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Aligned {
    fn drop(&mut self) {
        // SAFETY: these are the block's own bytes, had in the same way, and freed once.
        unsafe {
            match Self::layout(self.len) {
                Some(layout) => alloc::dealloc(self.start.as_ptr(), layout),
                None => unmap(self.start.as_ptr(), self.len),
            }
        }
    }
}

/// # Safety
/// The pages are one mapping's or parts of it, and nobody uses them any more.
unsafe fn unmap(start: *mut u8, len: usize) {
    if len != 0 {
        // SAFETY: the caller's promise.
        unsafe { libc::munmap(start.cast(), len) };
    }
}

/// Gives memory that nobody has touched its pages at once, which takes less time than a
/// fault for each, above all where there are no large ones; a hint.
pub(crate) fn populate(memory: &mut [u8]) {
    #[cfg(target_os = "linux")]
    {
        let page = page();
        let skip = memory.as_ptr().align_offset(page);
        if let Some(inside) = memory.len().checked_sub(skip) {
            let (start, len) = (memory.as_mut_ptr().wrapping_add(skip), inside & !(page.wrapping_sub(1)));
            // SAFETY: it changes no contents, and the range lies inside the memory.
            unsafe { libc::madvise(start.cast(), len, libc::MADV_POPULATE_WRITE) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = memory;
}

/// Bytes of a page: 4 KiB, but 16 or 64 on some machines.
pub(crate) fn page() -> usize {
    // SAFETY: asks for a number.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(page).ok().filter(|page| page.is_power_of_two()).unwrap_or(DISK_BLOCK)
}

/// Asks for huge pages for a block; whether they come is up to the kernel.
pub(super) fn advise_huge(start: *mut u8, len: usize) {
    advise_huge_from(HUGE_FROM, start, len);
}

fn advise_huge_from(least: usize, start: *mut u8, len: usize) {
    #[cfg(target_os = "linux")]
    if len >= least {
        let page = page();
        let skip = start.align_offset(page);
        if let Some(inside) = len.checked_sub(skip) {
            // SAFETY: MADV_HUGEPAGE changes no contents, and the range lies inside the block.
            unsafe {
                libc::madvise(start.wrapping_add(skip).cast(), inside & !(page.wrapping_sub(1)), libc::MADV_HUGEPAGE);
            }
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (least, start, len);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_and_absurd_sizes_are_errors() {
        for len in [0, 1, 100, DISK_BLOCK, Aligned::PAGES_FROM - 1, Aligned::PAGES_FROM, HUGE_FROM + 1] {
            let mut block = Aligned::zeroed(len, "test").unwrap();
            assert_eq!(block.as_ptr().align_offset(Aligned::ALIGNMENT), 0);
            assert_eq!(block.as_mut().len(), len);
            assert!(len < DISK_BLOCK || block.as_ptr().align_offset(DISK_BLOCK) == 0);
            assert!(block.as_mut().iter().all(|byte| *byte == 0));
        }
        assert!(Aligned::zeroed(usize::MAX / 4, "test").is_err());
        assert!(zeroed(usize::MAX / 4, "test").is_err());
    }
}
