// SPDX-License-Identifier: Apache-2.0
//! Opening and closing.

use std::ffi::{c_char, c_void, OsStr};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use super::arguments::{array_at, memory_at, null, required_text, st_checkpoint};
use super::boundary::guard;
use super::callbacks::{st_io, st_resolver, CallerIo, CallerResolver};
use super::open_options::{open_options, st_open_options};
use super::status::st_error;
use crate::base::memory;
use crate::error::{Error, ErrorKind, Result};
use crate::Checkpoint;

/// Opens a checkpoint with all defaults: st_open_with with options NULL.
///
/// Returns a handle that the caller owns and releases with st_free, or NULL
/// with error filled. Since 0.1.
#[no_mangle]
pub unsafe extern "C" fn st_open(path: *const c_char, error: *mut st_error) -> *mut st_checkpoint {
    // SAFETY: the same contract.
    unsafe { st_open_with(path, std::ptr::null(), error) }
}

/// Opens a checkpoint: a .safetensors file, an index with its shards beside it, or
/// a folder. Symbolic links are followed. Everything a header says has been checked
/// when this returns.
///
/// An index is a file *.safetensors.index.json, *.safetensors.index.VARIANT.json
/// or *.safetensors.VARIANT.index.json, or another .json file with a weight_map.
///
/// In a folder only files of the variant in options count, and none whose name
/// begins with a dot. The folder is model's index, else the only index; else the
/// only file, model.safetensors, or the only series
/// (NAME-00001-of-00003.safetensors ...) if none of its numbers is missing
/// (ST_ERROR_SHARD). Nothing is merged on a guess: several indexes, several
/// models, or other variants alone are ST_ERROR_INDEX, which names them; a
/// variant that is not there is ST_ERROR_NOT_FOUND, which names those that are. A
/// hub's cache (models--OWNER--NAME) is the snapshot that its refs/main names. A
/// folder without any of these is ST_ERROR_IO with ENOENT, and the message says
/// what it holds instead.
///
/// A set that is being replaced is opened as the old or the new one, or fails
/// with ST_ERROR_IO or ST_ERROR_SHARD: never as a mixture.
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

/// Opens several files as one checkpoint, in this order: parts of one model that
/// have no index, or several models at once.
///
/// paths: count of them, each NUL-terminated, in the system's bytes; borrowed for
/// the call. options: borrowed for the call; NULL: all defaults. variant is of no
/// effect.
///
/// Returns and errors as st_open_with; ST_ERROR_DUPLICATE_KEY where two of them have
/// a tensor of one name, ST_ERROR_INVALID_ARGUMENT for no paths and for an index
/// among them. Since 0.2.
#[no_mangle]
pub unsafe extern "C" fn st_open_files(
    paths: *const *const c_char,
    count: usize,
    options: *const st_open_options,
    error: *mut st_error,
) -> *mut st_checkpoint {
    // SAFETY: arguments are as the header's rules say.
    unsafe {
        open(error, || {
            let given = array_at(paths, count, "paths")?;
            let paths = given.iter().enumerate().map(|(number, path)| {
                required_text(*path, "").map_err(|_| null(&format!("paths[{number}]"))).map(path_of)
            });
            Checkpoint::open_files(&memory::collect(paths, count, "paths")?, &open_options(options)?)
        })
    }
}

/// Opens a part of a file that is open already: an asset in a package, a model in
/// a bundle, a descriptor that a sandbox was handed. It maps, reads and loads as a
/// path would.
///
/// fd: open for reading, a regular file's (else ST_ERROR_IO). The library keeps a
/// duplicate; the caller may close fd at once. Its position is neither used nor moved.
/// offset, size: the part in bytes; offset need not be aligned, size 0 is up to the
/// file's end. A part that is not all in the file is ST_ERROR_INVALID_ARGUMENT.
/// options: borrowed for the call; NULL: all defaults.
///
/// Returns and errors as st_open_with. Offsets and sizes in its records count
/// from the part's start, and its shard's path is NULL: for I/O of your own, add
/// offset. Since 0.2.
#[no_mangle]
pub unsafe extern "C" fn st_open_fd(
    fd: i32,
    offset: u64,
    size: u64,
    options: *const st_open_options,
    error: *mut st_error,
) -> *mut st_checkpoint {
    // SAFETY: arguments are as the header's rules say.
    unsafe {
        open(error, || {
            let options = open_options(options)?;
            if fd < 0 {
                let text = format!("fd is {fd}, which is not a descriptor");
                return Err(Error::new(ErrorKind::InvalidArgument, text));
            }
            Checkpoint::open_fd(BorrowedFd::borrow_raw(fd), offset, size, &options)
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
/// options: borrowed for the call; NULL: all defaults. access has no effect.
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

/// Opens a file, or an index with its shards, through your own resolver. An index
/// is what st_open_with says, or a name that ends in .index.json. Shards' headers
/// are read concurrently.
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

/// Adds an owner to a handle: the last st_free closes it. Any thread.
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

/// Gives up one ownership of a handle. The last one releases everything that the
/// checkpoint owns: records, names, data. Any thread; NULL is fine.
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

fn path_of(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}
