// SPDX-License-Identifier: Apache-2.0
//! The bytes of tensors.

use std::ffi::{c_char, c_void};
use std::ptr;

use super::arguments::{destination, null, required, required_text, st_checkpoint, text_n};
use super::boundary::guard;
use super::status::{st_error, st_status, ST_OK};
use crate::error::Result;
use crate::record::st_tensor;

/// The tensor of this name with its bytes: data in the record returned is never
/// NULL. Where nothing is mapped, the first call for a tensor reads it into
/// memory of the checkpoint, 64-byte aligned, where it stays until st_free; one
/// of 8 MiB or more as st_load does, on several threads and past the page cache
/// where it is not there.
///
/// name: NUL-terminated UTF-8, borrowed for the call.
///
/// Returns a record owned by the checkpoint, valid until st_free, or NULL:
/// ST_ERROR_NOT_FOUND, ST_ERROR_IO, ST_ERROR_OUT_OF_MEMORY,
/// ST_ERROR_INVALID_ARGUMENT, or what read_at returned. Since 0.1.
#[no_mangle]
pub unsafe extern "C" fn st_get_tensor(
    checkpoint: *const st_checkpoint,
    name: *const c_char,
    error: *mut st_error,
) -> *const st_tensor {
    // SAFETY: arguments are as the header's rules say.
    unsafe { get(checkpoint, error, || required_text(name, "name")) }
}

/// st_get_tensor for a name of name_len bytes, which may contain NUL.
///
/// name: borrowed for the call; may be NULL where name_len is 0.
///
/// Returns and errors as st_get_tensor. Since 0.1.
#[no_mangle]
pub unsafe extern "C" fn st_get_tensor_n(
    checkpoint: *const st_checkpoint,
    name: *const c_char,
    name_len: usize,
    error: *mut st_error,
) -> *const st_tensor {
    // SAFETY: arguments are as the header's rules say.
    unsafe { get(checkpoint, error, || text_n(name, name_len).ok_or_else(|| null("name"))) }
}

/// Copies a tensor's bytes into the caller's memory. Reads the file and never
/// goes through a mapping, so a file cut short or a failing disk is an error
/// and not a signal.
///
/// tensor: a record of this checkpoint or a copy of one, borrowed for the call;
/// shard, offset and size say which. dst: receives tensor->size bytes; not in
/// memory that the checkpoint was opened from. dst_size: bytes at dst; more than
/// needed is fine. After an error the contents of dst are unspecified.
///
/// Returns ST_OK, ST_ERROR_IO, ST_ERROR_BUFFER_SIZE, ST_ERROR_INVALID_ARGUMENT,
/// or what read_at returned. Since 0.1.
#[no_mangle]
pub unsafe extern "C" fn st_read_tensor(
    checkpoint: *const st_checkpoint,
    tensor: *const st_tensor,
    dst: *mut c_void,
    dst_size: usize,
    error: *mut st_error,
) -> st_status {
    let read = || {
        // SAFETY: arguments are as the header's rules say.
        let (checkpoint, tensor) = unsafe { (required(checkpoint, "checkpoint")?, required(tensor, "tensor")?) };
        if dst.is_null() && tensor.size() != 0 {
            return Err(null("dst"));
        }
        // SAFETY: as above.
        checkpoint.0.read(tensor, unsafe { destination(dst, dst_size)? })
    };
    // SAFETY: as above.
    unsafe { guard(error, |kind| kind as st_status, || read().map(|()| ST_OK)) }
}

/// # Safety
/// `checkpoint` is null or a live handle, `error` null or writable.
unsafe fn get<'a>(
    checkpoint: *const st_checkpoint,
    error: *mut st_error,
    name: impl FnOnce() -> Result<&'a [u8]>,
) -> *const st_tensor {
    let get = || {
        // SAFETY: the caller's promise.
        let checkpoint = unsafe { required(checkpoint, "checkpoint")? };
        checkpoint.0.get(name()?).map(ptr::from_ref)
    };
    // SAFETY: the caller's promise.
    unsafe { guard(error, |_| ptr::null(), get) }
}
