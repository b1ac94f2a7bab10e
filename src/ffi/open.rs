// SPDX-License-Identifier: Apache-2.0
//! Opening and closing.

use std::ffi::{c_char, c_void, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use super::arguments::{memory_at, null, required_text, st_checkpoint};
use super::boundary::guard;
use super::callbacks::{st_io, st_resolver, CallerIo, CallerResolver};
use super::open_options::{open_options, st_open_options};
use super::status::st_error;
use crate::error::Result;
use crate::Checkpoint;

/// ==== Open and close ====
///
/// Opens a checkpoint with all defaults: st_open_with with options NULL.
///
/// Returns a handle that the caller owns and releases with st_free, or NULL
/// with error filled. Since 0.1.
#[no_mangle]
pub unsafe extern "C" fn st_open(path: *const c_char, error: *mut st_error) -> *mut st_checkpoint {
    // SAFETY: the same contract.
    unsafe { st_open_with(path, std::ptr::null(), error) }
}

/// Opens a checkpoint: a .safetensors file, a .safetensors.index.json with its
/// shards beside it, or a folder. In a folder: model.safetensors.index.json,
/// else its only *.safetensors.index.json, else model.safetensors, else all
/// *.safetensors by name. Symbolic links are followed. Everything a header says
/// has been checked when this returns.
///
/// path: NUL-terminated, in the system's bytes, borrowed for the call.
/// options: borrowed for the call; NULL: all defaults.
///
/// Returns a handle that the caller owns and releases with st_free, or NULL:
/// ST_ERROR_IO (with errno), every ST_ERROR_ of the format from
/// ST_ERROR_TRUNCATED on, ST_ERROR_INVALID_ARGUMENT, ST_ERROR_UNSUPPORTED,
/// ST_ERROR_OUT_OF_MEMORY. Since 0.1.
#[no_mangle]
pub unsafe extern "C" fn st_open_with(
    path: *const c_char,
    options: *const st_open_options,
    error: *mut st_error,
) -> *mut st_checkpoint {
    // SAFETY: arguments are as the header's rules say.
    unsafe {
        open(error, || {
            let path = required_text(path, "path")?;
            Checkpoint::open(OsStr::from_bytes(path), &open_options(options)?)
        })
    }
}

/// Opens one file's bytes that are in memory already.
///
/// data: size bytes, borrowed until the last st_free; records point into it.
/// size: bytes. options: borrowed for the call; NULL: all defaults.
///
/// Returns and errors as st_open_with. Since 0.1.
#[no_mangle]
pub unsafe extern "C" fn st_open_memory(
    data: *const c_void,
    size: usize,
    options: *const st_open_options,
    error: *mut st_error,
) -> *mut st_checkpoint {
    // SAFETY: arguments are as the header's rules say; the caller keeps data
    // as it is until the last st_free.
    unsafe {
        open(error, || {
            if data.is_null() {
                return Err(null("data"));
            }
            Checkpoint::open_memory(memory_at(data, size, "data")?, &open_options(options)?)
        })
    }
}

/// Opens one file through your own read_at.
///
/// io: borrowed for the call, its user_data until release is called.
/// options: borrowed for the call; NULL: all defaults. access is of no effect.
///
/// Returns and errors as st_open_with, and whatever read_at returns. Since 0.1.
#[no_mangle]
pub unsafe extern "C" fn st_open_io(
    io: *const st_io,
    options: *const st_open_options,
    error: *mut st_error,
) -> *mut st_checkpoint {
    // SAFETY: arguments are as the header's rules say.
    unsafe {
        open(error, || {
            let reader = CallerIo::read(io)?;
            Checkpoint::open_reader(Box::new(reader), &open_options(options)?)
        })
    }
}

/// Opens a file, or an index with its shards, through your own resolver. A name
/// that ends in .index.json is an index. Shards' headers are read concurrently.
///
/// resolver: borrowed for the call. name: NUL-terminated, borrowed for the
/// call. options: borrowed for the call; NULL: all defaults.
///
/// Returns and errors as st_open_with, and whatever the callbacks return. A
/// shard that open reports as ST_ERROR_IO is ST_ERROR_SHARD. Since 0.1.
#[no_mangle]
pub unsafe extern "C" fn st_open_resolved(
    resolver: *const st_resolver,
    name: *const c_char,
    options: *const st_open_options,
    error: *mut st_error,
) -> *mut st_checkpoint {
    // SAFETY: arguments are as the header's rules say.
    unsafe {
        open(error, || {
            let resolver = CallerResolver::read(resolver)?;
            let name = required_text(name, "name")?;
            Checkpoint::open_resolved(&resolver, name, &open_options(options)?)
        })
    }
}

/// One more owner of a handle: it is closed by the last st_free. Any thread.
///
/// Returns the handle itself; NULL for NULL. Since 0.1.
#[no_mangle]
pub unsafe extern "C" fn st_retain(checkpoint: *mut st_checkpoint) -> *mut st_checkpoint {
    if !checkpoint.is_null() {
        // SAFETY: a live handle is an Arc's pointer.
        unsafe { Arc::increment_strong_count(checkpoint.cast_const()) };
    }
    checkpoint
}

/// Gives up one ownership of a handle. With the last one everything that the
/// checkpoint owns goes: records, names, data. Any thread; NULL is fine.
///
/// Since 0.1.
#[no_mangle]
pub unsafe extern "C" fn st_free(checkpoint: *mut st_checkpoint) {
    if !checkpoint.is_null() {
        let release = || {
            // SAFETY: a live handle is an Arc's pointer.
            unsafe { Arc::decrement_strong_count(checkpoint.cast_const()) };
            Ok(())
        };
        // SAFETY: no error is asked for.
        unsafe { guard(std::ptr::null_mut(), |_| (), release) };
    }
}

/// Runs an open and makes a handle of its result.
///
/// # Safety
/// `error` is null or writable.
unsafe fn open(error: *mut st_error, body: impl FnOnce() -> Result<Checkpoint>) -> *mut st_checkpoint {
    let handle = || Ok(Arc::into_raw(Arc::new(st_checkpoint(body()?))).cast_mut());
    // SAFETY: the caller's promise.
    unsafe { guard(error, |_| std::ptr::null_mut(), handle) }
}
