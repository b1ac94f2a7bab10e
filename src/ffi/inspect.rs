// SPDX-License-Identifier: Apache-2.0
//! What is in a checkpoint. None of these does I/O.

use std::ffi::c_char;
use std::ptr;

use super::arguments::{required_text, st_checkpoint, text_n};
use crate::record::{st_metadata, st_shard, st_tensor};

/// All tensors, by shard and offset.
///
/// count: receives their number; may be NULL.
///
/// Returns an array owned by the checkpoint, valid until st_free; NULL (and
/// count 0) for a NULL handle. Since 0.1.
#[no_mangle]
pub unsafe extern "C" fn st_tensors(checkpoint: *const st_checkpoint, count: *mut usize) -> *const st_tensor {
    // SAFETY: arguments are as the header's rules say.
    unsafe { array(checkpoint.as_ref().map(|checkpoint| checkpoint.0.tensors()), count) }
}

/// The tensor of this name. Allocates nothing.
///
/// name: NUL-terminated UTF-8, borrowed for the call.
///
/// Returns a record owned by the checkpoint, valid until st_free; NULL where
/// no tensor has the name, and for a NULL handle or name. Since 0.1.
#[no_mangle]
pub unsafe extern "C" fn st_find_tensor(checkpoint: *const st_checkpoint, name: *const c_char) -> *const st_tensor {
    // SAFETY: arguments are as the header's rules say.
    let name = unsafe { required_text(name, "name") };
    // SAFETY: as above.
    unsafe { find(checkpoint, name.ok()) }
}

/// st_find_tensor for a name of name_len bytes, which may contain NUL.
///
/// name: borrowed for the call; may be NULL where name_len is 0.
///
/// Returns as st_find_tensor. Since 0.1.
#[no_mangle]
pub unsafe extern "C" fn st_find_tensor_n(
    checkpoint: *const st_checkpoint,
    name: *const c_char,
    name_len: usize,
) -> *const st_tensor {
    // SAFETY: arguments are as the header's rules say.
    unsafe { find(checkpoint, text_n(name, name_len)) }
}

/// All metadata entries. Of several files: the index's first (a value that is
/// not a string as its JSON text), then each shard's; the first of equal keys
/// stays.
///
/// count: receives their number; may be NULL.
///
/// Returns an array owned by the checkpoint, valid until st_free. No metadata
/// is NULL; metadata without entries is not NULL, with count 0. Since 0.1.
#[no_mangle]
pub unsafe extern "C" fn st_metadata_entries(
    checkpoint: *const st_checkpoint,
    count: *mut usize,
) -> *const st_metadata {
    // SAFETY: arguments are as the header's rules say.
    unsafe { array(checkpoint.as_ref().and_then(|checkpoint| checkpoint.0.metadata()), count) }
}

/// The metadata value of a key.
///
/// key: NUL-terminated UTF-8, borrowed for the call. length: receives the
/// value's bytes without the terminating NUL; may be NULL.
///
/// Returns NUL-terminated text owned by the checkpoint, valid until st_free;
/// NULL (and length 0) where there is no such key. Since 0.1.
#[no_mangle]
pub unsafe extern "C" fn st_get_metadata(
    checkpoint: *const st_checkpoint,
    key: *const c_char,
    length: *mut usize,
) -> *const c_char {
    // SAFETY: arguments are as the header's rules say.
    let (entries, key) = unsafe {
        let entries = checkpoint.as_ref().and_then(|checkpoint| checkpoint.0.metadata());
        (entries.unwrap_or_default(), required_text(key, "key").ok())
    };
    let found = key.and_then(|key| entries.iter().find(|entry| entry.key() == key));
    if !length.is_null() {
        // SAFETY: not null, so it is writable by the header's rules.
        unsafe { length.write(found.map_or(0, |entry| entry.value_len)) };
    }
    found.map_or(ptr::null(), |entry| entry.value)
}

/// The files of a checkpoint, by name; st_tensor.shard is an index into them.
///
/// count: receives their number; may be NULL.
///
/// Returns an array owned by the checkpoint, valid until st_free; NULL (and
/// count 0) for a NULL handle. Since 0.1.
#[no_mangle]
pub unsafe extern "C" fn st_shards(checkpoint: *const st_checkpoint, count: *mut usize) -> *const st_shard {
    // SAFETY: arguments are as the header's rules say.
    unsafe { array(checkpoint.as_ref().map(|checkpoint| checkpoint.0.shards()), count) }
}

/// What arrays of nothing begin at: an address that is one, as runtimes that
/// look at pointers (Go's) take no made-up one.
static NOTHING: u64 = 0;

/// A slice as C has it. An empty one is not NULL.
///
/// # Safety
/// `count` is null or writable.
unsafe fn array<T>(items: Option<&[T]>, count: *mut usize) -> *const T {
    if !count.is_null() {
        // SAFETY: the caller's promise.
        unsafe { count.write(items.map_or(0, <[T]>::len)) };
    }
    match items {
        None => ptr::null(),
        Some([]) => (&raw const NOTHING).cast(),
        Some(items) => items.as_ptr(),
    }
}

/// # Safety
/// `checkpoint` is null or a live handle.
#[inline]
unsafe fn find(checkpoint: *const st_checkpoint, name: Option<&[u8]>) -> *const st_tensor {
    // SAFETY: the caller's promise.
    let checkpoint = unsafe { checkpoint.as_ref() };
    match (checkpoint, name) {
        (Some(checkpoint), Some(name)) => checkpoint.0.find(name).map_or(ptr::null(), ptr::from_ref),
        _ => ptr::null(),
    }
}
