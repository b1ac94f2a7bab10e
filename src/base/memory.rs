// SPDX-License-Identifier: Apache-2.0
//! Memory whose size a file decides: asked for fallibly, on huge pages where
//! it is large, and never moved once something points into it.

use std::alloc::{self, Layout};
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ptr::NonNull;
use std::slice;

use crate::error::{Error, Result};

/// Blocks from this size on are worth a system call for huge pages: one page
/// fault instead of 512, and one TLB entry at each cold lookup later.
const HUGE_FROM: usize = 4 << 20;
/// What direct I/O wants blocks of memory to begin at: the blocks of any disk.
const DISK_BLOCK: usize = 4096;

/// How much has to be there before a piece of work begins: what it allocates in
/// passing (paths, messages) can't say that there is no memory, and would abort.
const HEADROOM: usize = 64 << 10;

/// Refuses where memory is about to run out.
pub(crate) fn headroom() -> Result<()> {
    vec_with_capacity::<u8>(HEADROOM, "work in passing").map(drop)
}

/// How many threads there is address space for, where that is limited: for their
/// stacks, and for the C library's arenas, of which each thread reserves 64 MiB, and
/// twice that while it does.
pub(crate) fn threads_with_room(stack: usize) -> usize {
    const ARENA: usize = 128 << 20;
    const MORE: usize = 1 << 20;
    let limit = |resource| {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: getrlimit fills the struct it is given.
        let known = unsafe { libc::getrlimit(resource, &raw mut limit) } == 0;
        (known && limit.rlim_cur != libc::RLIM_INFINITY).then(|| usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX))
    };
    let (space, data) = (limit(libc::RLIMIT_AS), limit(libc::RLIMIT_DATA));
    if space.is_none() && data.is_none() {
        return usize::MAX;
    }
    let (mapped, writable) = in_use().unwrap_or((usize::MAX, usize::MAX));
    let threads = |limit: Option<usize>, used: usize, arena: usize| match limit {
        // At most half of what is left: there is work to be done.
        Some(limit) => (limit.saturating_sub(used) / 2).checked_div(stack.saturating_add(arena)).unwrap_or(0),
        None => usize::MAX,
    };
    threads(space, mapped, ARENA).min(threads(data, writable, MORE))
}

/// This process's address space, and what of it is writable: bytes.
fn in_use() -> Option<(usize, usize)> {
    use std::io::Read;
    let mut text = [0; 256];
    let len = std::fs::File::open("/proc/self/statm").and_then(|mut file| file.read(&mut text)).ok()?;
    let mut pages = std::str::from_utf8(text.get(..len)?).ok()?.split(' ').map(|pages| pages.trim().parse::<usize>());
    let (mapped, writable) = (pages.next()?.ok()?, pages.nth(4)?.ok()?);
    // SAFETY: a number in, a number out.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok()?;
    Some((mapped.saturating_mul(page), writable.saturating_mul(page)))
}

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

/// Room for more items by a quarter of those there are: what a file has most of
/// is then never twice what it needs.
pub(crate) fn grow<T>(vec: &mut Vec<T>, what: &str) -> Result<()> {
    let additional = (vec.len() / 4).max(64);
    vec.try_reserve_exact(additional).map_err(|_| no_room::<T>(what, vec.len().saturating_add(additional)))
}

/// The items of an iterator, `count` at most, or the first error among them.
pub(crate) fn collect<T>(items: impl Iterator<Item = Result<T>>, count: usize, what: &str) -> Result<Vec<T>> {
    let mut vec = vec_with_capacity(count, what)?;
    for item in items {
        vec.push(item?);
    }
    Ok(vec)
}

/// Gives back room that is not needed. Where even that takes memory that
/// is not there, the vector stays as it is; `Vec::shrink_to_fit` would abort.
pub(crate) fn shrink<T>(vec: &mut Vec<T>) {
    let (len, capacity) = (vec.len(), vec.capacity());
    let sizes = (Layout::array::<T>(capacity), Layout::array::<T>(len));
    let (Ok(layout), Ok(smaller)) = sizes else { return };
    if smaller.size() == 0 || smaller.size() == layout.size() {
        return;
    }
    let start = ManuallyDrop::new(std::mem::take(vec)).as_mut_ptr();
    // SAFETY: the block is the vector's, of this layout, and the new size is neither 0 nor larger.
    let moved = unsafe { alloc::realloc(start.cast(), layout, smaller.size()) };
    // SAFETY: the items are where realloc has moved them, with just the room for
    // them, or where they were, with the room that was there.
    *vec = unsafe {
        match NonNull::new(moved) {
            Some(moved) => Vec::from_raw_parts(moved.as_ptr().cast(), len, len),
            None => Vec::from_raw_parts(start, len, capacity),
        }
    };
}

/// Pieces of text in one.
pub(crate) fn concat(pieces: &[&[u8]], what: &str) -> Result<Vec<u8>> {
    let mut text = vec_with_capacity(pieces.iter().map(|piece| piece.len()).sum(), what)?;
    pieces.iter().for_each(|piece| text.extend_from_slice(piece));
    Ok(text)
}

/// A vector's spare room on its way to being filled, from its start on. Two of
/// them are filled by two threads: on one cache line they would cost each thread
/// three times the work, in waiting for the other.
#[repr(align(128))]
pub(crate) struct Filler<'a, T> {
    room: &'a mut [MaybeUninit<T>],
    len: usize,
}

impl<T> Filler<'_, T> {
    /// Adds an item; `None` where there is no room left.
    #[inline]
    pub(crate) fn push(&mut self, item: T) -> Option<()> {
        self.room.get_mut(self.len)?.write(item);
        self.len = self.len.saturating_add(1);
        Some(())
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Filler<'_, u8> {
    /// Adds bytes; `None` where there is no room for them.
    #[inline(always)]
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Option<()> {
        self.put_start(bytes, bytes.len())
    }

    /// Adds the first `len` of the bytes. All of them are moved where there is
    /// room for them, which takes neither a loop nor a call where their number
    /// is known when compiling.
    #[inline(always)]
    pub(crate) fn put_start(&mut self, bytes: &[u8], len: usize) -> Option<()> {
        let rest = self.room.get_mut(self.len..)?;
        let Some(place) = rest.get_mut(..bytes.len()) else { return self.put_last(bytes.get(..len)?) };
        // SAFETY: source and place are equally long, and what is borrowed
        // mutably overlaps nothing.
        unsafe { place.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        // They are in the room, so this can't overflow.
        self.len = self.len.wrapping_add(len.min(bytes.len()));
        Some(())
    }

    /// The same where just they fit.
    #[cold]
    fn put_last(&mut self, bytes: &[u8]) -> Option<()> {
        bytes.iter().try_for_each(|byte| {
            self.room.get_mut(self.len)?.write(*byte);
            self.len = self.len.saturating_add(1);
            Some(())
        })
    }
}

/// A vector filled by two threads at once: the first `middle` items by one, the
/// others by the other, and nothing is moved. `middle` 0: by one alone, given
/// as the second. `None` if `fill` says so or leaves a gap.
pub(crate) fn fill<T, R>(
    vec: &mut Vec<T>,
    middle: usize,
    fill: impl FnOnce(&mut Filler<'_, T>, &mut Filler<'_, T>) -> Option<R>,
) -> Option<R> {
    vec.clear();
    let (first, second) = vec.spare_capacity_mut().split_at_mut_checked(middle)?;
    let starts = (first.as_ptr(), second.as_ptr());
    let (mut first, mut second) = (Filler { room: first, len: 0 }, Filler { room: second, len: 0 });
    let result = fill(&mut first, &mut second)?;
    if first.len != middle || starts != (first.room.as_ptr(), second.room.as_ptr()) {
        return None;
    }
    let len = middle.saturating_add(second.len);
    // SAFETY: all of the first room and `second.len` items of the second, which
    // lies right after it, have been written, as these are the fillers from above.
    unsafe { vec.set_len(len) };
    Some(result)
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

/// Shapes one after another in chunks that never move, so that records can
/// point at a shape as soon as it is read.
#[derive(Default)]
pub(crate) struct ShapeArena {
    /// The chunk being filled; the shape being built is the last thing in it.
    chunk: Vec<i64>,
    /// Where in it that shape begins.
    start: usize,
    full: Vec<Vec<i64>>,
}

impl ShapeArena {
    const FIRST_CHUNK: usize = 1024;
    /// 8 MiB: a million shapes are three or four blocks to free.
    const LARGEST_CHUNK: usize = 1 << 20;

    /// Adds one dimension to the shape being built.
    #[inline]
    pub(crate) fn push(&mut self, dimension: i64) -> Result<()> {
        if self.chunk.len() == self.chunk.capacity() {
            self.grow()?;
        }
        self.chunk.push(dimension);
        Ok(())
    }

    /// A new chunk, to which the shape being built moves whole.
    #[cold]
    fn grow(&mut self) -> Result<()> {
        let open = self.current().len();
        if self.start == 0 && open > 0 {
            // Nobody points into it yet.
            return grow(&mut self.chunk, "shapes");
        }
        let room = self.chunk.capacity().saturating_mul(2).clamp(Self::FIRST_CHUNK, Self::LARGEST_CHUNK);
        let mut chunk = vec_with_capacity(room.max(open.saturating_mul(2)), "shapes")?;
        chunk.extend(self.chunk.drain(self.start..));
        self.full.push(std::mem::replace(&mut self.chunk, chunk));
        self.start = 0;
        Ok(())
    }

    /// The shape being built so far.
    #[inline]
    pub(crate) fn current(&self) -> &[i64] {
        self.chunk.get(self.start..).unwrap_or_default()
    }

    /// Ends the shape being built. It stays where it is for the arena's life.
    #[inline]
    pub(crate) fn finish(&mut self) -> (*const i64, usize) {
        let shape = self.current();
        let found = (shape.as_ptr(), shape.len());
        self.start = self.chunk.len();
        found
    }

    /// Takes over another arena's shapes.
    pub(crate) fn join(&mut self, other: Self) {
        self.full.push(other.chunk);
        self.full.extend(other.full);
    }

    /// Drops the shape being built.
    pub(crate) fn abandon(&mut self) {
        self.chunk.truncate(self.start);
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
fn page() -> usize {
    // SAFETY: asks for a number.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(page).ok().filter(|page| page.is_power_of_two()).unwrap_or(DISK_BLOCK)
}

/// Asks for huge pages for a block; whether they come is up to the kernel.
fn advise_huge(start: *mut u8, len: usize) {
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
    fn shrinking_keeps_the_items() {
        for (len, capacity) in [(0, 0), (0, 9), (3, 3), (3, 1000), (100_000, 3_000_000)] {
            let mut vec = Vec::with_capacity(capacity);
            vec.extend((0..len).map(|i| Box::new(i)));
            shrink(&mut vec);
            assert!(vec.iter().map(|item| **item).eq(0..len) && (len == 0 || vec.capacity() == len));
        }
    }

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
        assert!(vec_with_capacity::<u64>(usize::MAX / 16, "test").is_err());
    }
}
