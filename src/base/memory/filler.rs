// SPDX-License-Identifier: Apache-2.0
//! A vector's spare room, filled by one thread or by two.

use std::mem::MaybeUninit;

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
