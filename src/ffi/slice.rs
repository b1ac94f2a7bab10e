// SPDX-License-Identifier: Apache-2.0
//! Parts of tensors.

use std::ffi::c_void;

use super::arguments::{all_ranges, check_shape, destination, no_such, null, required, st_checkpoint};
use super::boundary::guard;
use super::status::{st_error, st_status, ST_OK};
use crate::dtype::Dtype;
use crate::error::{ErrorKind, Result};
use crate::format::slice::{shape, Selection};
use crate::record::{st_range, st_tensor};

/// Copies part of a tensor into the caller's memory: what the ranges pick,
/// dense, in C order. Reads the file and never goes through a mapping, as
/// st_read_tensor.
///
/// tensor: a record of this checkpoint or a copy of one, borrowed for the call;
/// shard, offset and size say which (and the address in name, where several
/// empty tensors share a place). ranges: range_count of them, borrowed for the
/// call, from the outermost dimension on; dimensions without one are taken
/// whole; may be NULL where range_count is 0. dst: receives as many bytes as
/// st_slice_shape says, not in memory that the checkpoint was opened from; may be
/// NULL where they are 0. dst_size: bytes at dst; more than needed is fine. After
/// an error the contents of dst are unspecified.
///
/// What lies in one piece is one read. Narrow gaps between pieces are read too and
/// thrown away: those that take no longer than a system call does on this machine
/// (1 to 32 KiB; 64 KiB through an st_io). Wider gaps are never read. F4 and F6
/// are cut between bytes only.
///
/// Returns ST_OK, ST_ERROR_IO, ST_ERROR_BUFFER_SIZE, ST_ERROR_OUT_OF_MEMORY,
/// ST_ERROR_INVALID_ARGUMENT (a message about a range names its dimension, the
/// size and the bound), ST_ERROR_SUB_BYTE where a piece does not begin and end
/// on a byte, ST_ERROR_UNSUPPORTED for ST_DTYPE_UNKNOWN, or what read_at
/// returned. Since 0.1.
#[no_mangle]
pub unsafe extern "C" fn st_read_slice(
    checkpoint: *const st_checkpoint,
    tensor: *const st_tensor,
    ranges: *const st_range,
    range_count: usize,
    dst: *mut c_void,
    dst_size: usize,
    error: *mut st_error,
) -> st_status {
    let read = || {
        // SAFETY: arguments are as the header's rules say.
        let (checkpoint, tensor, ranges, place) = unsafe {
            let checkpoint = required(checkpoint, "checkpoint")?;
            let tensor = required(tensor, "tensor")?;
            (checkpoint, tensor, all_ranges(ranges, range_count)?, destination(dst, dst_size)?)
        };
        checkpoint.0.read_slice(tensor, ranges, place).map_err(|error| match error.kind() {
            ErrorKind::BufferSize if dst.is_null() => null("dst"),
            _ => error,
        })
    };
    // SAFETY: as above.
    unsafe { guard(error, |kind| kind as st_status, || read().map(|()| ST_OK)) }
}

/// The shape and size of what st_read_slice gives for these ranges. No I/O.
///
/// tensor: any record, borrowed for the call; its dtype, rank and shape count,
/// its names are for messages. ranges, range_count: as for st_read_slice. shape:
/// receives tensor->rank sizes in elements, and must not overlap tensor->shape;
/// NULL: not wanted. size: receives the number of bytes; NULL: not wanted.
/// Written on success only.
///
/// Returns ST_OK, ST_ERROR_INVALID_ARGUMENT, ST_ERROR_SUB_BYTE or
/// ST_ERROR_UNSUPPORTED, as st_read_slice. Since 0.1.
#[no_mangle]
pub unsafe extern "C" fn st_slice_shape(
    tensor: *const st_tensor,
    ranges: *const st_range,
    range_count: usize,
    shape: *mut i64,
    size: *mut u64,
    error: *mut st_error,
) -> st_status {
    // SAFETY: arguments are as the header's rules say.
    let find = || unsafe { find_shape(required(tensor, "tensor")?, all_ranges(ranges, range_count)?, shape, size) };
    // SAFETY: as above.
    unsafe { guard(error, |kind| kind as st_status, || find().map(|()| ST_OK)) }
}

/// # Safety
/// The tensor's shape is null or has its rank of sizes; `out` is null or has room
/// for as many, elsewhere; `size` is null or writable.
unsafe fn find_shape(tensor: &st_tensor, ranges: &[st_range], out: *mut i64, size: *mut u64) -> Result<()> {
    check_shape(tensor)?;
    if Dtype::from_number(tensor.dtype).is_none() {
        return Err(no_such("tensor->dtype", tensor.dtype, "an ST_DTYPE_ constant"));
    }
    let slice = Selection::of_ranges(tensor, ranges)?;
    if !out.is_null() {
        for (dimension, found) in shape(tensor, ranges)?.enumerate() {
            // SAFETY: the caller's promise; there are rank sizes.
            unsafe { out.add(dimension).write(found?) };
        }
    }
    if !size.is_null() {
        // SAFETY: the caller's promise.
        unsafe { size.write(slice.size()) };
    }
    Ok(())
}
