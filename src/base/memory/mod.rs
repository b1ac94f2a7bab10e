// SPDX-License-Identifier: Apache-2.0
//! Memory whose size a file decides: asked for fallibly, and on huge pages where it
//! is large.

mod filler;
mod pages;

use std::alloc::{self, Layout};
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

pub(crate) use filler::{fill, Filler};
pub(crate) use pages::{page, populate, zeroed, Aligned};

use crate::error::{Error, Result};

/// How much has to be there before a piece of work begins: what it allocates in
/// passing (paths, messages) can't say that there is no memory, and would abort.
const HEADROOM: usize = 64 << 10;

/// Refuses where memory is about to run out.
pub(crate) fn headroom() -> Result<()> {
    vec_with_capacity::<u8>(HEADROOM, "work in passing").map(drop)
}

/// A vector with room for just `capacity` items, or an error instead of an
/// abort. Untouched room costs address space only.
pub(crate) fn vec_with_capacity<T>(capacity: usize, what: &str) -> Result<Vec<T>> {
    let mut vec = Vec::new();
    vec.try_reserve_exact(capacity).map_err(|_| no_room::<T>(what, capacity))?;
    let room = vec.spare_capacity_mut();
    pages::advise_huge(room.as_mut_ptr().cast(), size_of_val(room));
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

fn no_room<T>(what: &str, items: usize) -> Error {
    Error::out_of_memory(what, items.saturating_mul(size_of::<T>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absurd_sizes_are_errors() {
        assert!(vec_with_capacity::<u64>(usize::MAX / 16, "test").is_err());
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
}
