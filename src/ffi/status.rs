// SPDX-License-Identifier: Apache-2.0
//! Status codes and the error struct.

use std::ffi::c_char;

use crate::error::Error;

/// What a function returns: ST_OK, or which rule was broken. The numbers never change.
pub type st_status = i32;

/// Success.
pub const ST_OK: st_status = 0;
/// An argument breaks this header's rules.
pub const ST_ERROR_INVALID_ARGUMENT: st_status = 1;
/// An allocation failed; the message says of what, and how many bytes.
pub const ST_ERROR_OUT_OF_MEMORY: st_status = 2;
/// A system call failed (os_errno says how), or a file ended before the bytes to be read.
pub const ST_ERROR_IO: st_status = 3;
/// No tensor has this name.
pub const ST_ERROR_NOT_FOUND: st_status = 4;
/// A destination is too small.
pub const ST_ERROR_BUFFER_SIZE: st_status = 5;
/// A callback asked to stop.
pub const ST_ERROR_CANCELLED: st_status = 6;
/// Not supported by this version, or not with these arguments.
pub const ST_ERROR_UNSUPPORTED: st_status = 7;
/// A bug in the library: please report it.
pub const ST_ERROR_INTERNAL: st_status = 8;
/// The file ends before its header's length, or before its last tensor.
pub const ST_ERROR_TRUNCATED: st_status = 9;
/// The header is longer than the limit, or has more tensors or longer names than the limits allow.
pub const ST_ERROR_HEADER_TOO_LARGE: st_status = 10;
/// The header is longer than the file.
pub const ST_ERROR_HEADER_LENGTH: st_status = 11;
/// The header does not begin with `{`.
pub const ST_ERROR_HEADER_START: st_status = 12;
/// The header is not UTF-8.
pub const ST_ERROR_HEADER_UTF8: st_status = 13;
/// The header is not JSON of the format's form.
pub const ST_ERROR_HEADER_JSON: st_status = 14;
/// A tensor, metadata key or field appears twice.
pub const ST_ERROR_DUPLICATE_KEY: st_status = 15;
/// The metadata is not a map of strings.
pub const ST_ERROR_METADATA: st_status = 16;
/// A dtype is not one of the format's.
pub const ST_ERROR_DTYPE: st_status = 17;
/// A shape is not a list of sizes, its product overflows 64 bits, or it has too many dimensions.
pub const ST_ERROR_SHAPE: st_status = 18;
/// Data offsets are malformed, or leave a hole or an overlap.
pub const ST_ERROR_OFFSETS: st_status = 19;
/// Data offsets hold more or fewer bytes than dtype and shape need.
pub const ST_ERROR_SIZE_MISMATCH: st_status = 20;
/// Bytes after the last tensor belong to none; or st_writer_finish while bytes are missing.
pub const ST_ERROR_DATA_NOT_COVERED: st_status = 21;
/// A tensor of sub-byte elements does not fill whole bytes.
pub const ST_ERROR_SUB_BYTE: st_status = 22;
/// The index file is malformed, or a folder has several.
pub const ST_ERROR_INDEX: st_status = 23;
/// A shard is missing (os_errno says why), or lacks a tensor that the index maps to it.
pub const ST_ERROR_SHARD: st_status = 24;
/// A rank plan is wrong or does not fit the checkpoint; the message begins with the rule's name.
pub const ST_ERROR_PLAN: st_status = 25;
/// A quantised group is broken: its members contradict one another.
pub const ST_ERROR_GROUP: st_status = 26;
/// A config.json can't be read.
pub const ST_ERROR_CONFIG: st_status = 27;

/// An error: 512 bytes of the caller's memory, with nothing to free.
///
/// Written on failure only, so it needs no initialising.
#[repr(C)]
pub struct st_error {
    /// Which rule was broken.
    pub code: st_status,
    /// The operating system's errno, or 0 where it had none.
    pub os_errno: i32,
    /// NUL-terminated UTF-8, safe to print: file, tensor, rule, numbers.
    pub message: [c_char; 504],
}

impl From<&Error> for st_error {
    fn from(error: &Error) -> Self {
        let mut this = Self { code: error.kind() as i32, os_errno: error.os_errno(), message: [0; 504] };
        let text = error.message(this.message.len().saturating_sub(1));
        for (place, byte) in this.message.iter_mut().zip(text.bytes()) {
            *place = c_char::from_ne_bytes([byte]);
        }
        this
    }
}

impl st_error {
    /// The message that somebody's callback wrote, up to its NUL.
    pub(super) fn text(&self) -> String {
        let bytes: Vec<u8> = self.message.iter().flat_map(|c| c.to_ne_bytes()).take_while(|byte| *byte != 0).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
