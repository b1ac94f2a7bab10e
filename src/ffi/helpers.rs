// SPDX-License-Identifier: Apache-2.0
//! Names and numbers, both ways; versions.

use std::ffi::{c_char, CStr};

use super::arguments::required_text;
use super::dtype::{st_dtype, ST_DTYPE_AS_STORED};
use super::status::{st_status, ST_OK};
use super::version::SAFETENSORS_ABI_VERSION;
use crate::dtype::Dtype;
use crate::error::ErrorKind;

/// The constant's own spelling, as "ST_ERROR_IO".
///
/// Returns static text, never NULL: "ST_ERROR_?" for a number that is not a status.
/// Since 0.1.
#[no_mangle]
pub extern "C" fn st_status_name(status: st_status) -> *const c_char {
    let name: &'static CStr = match ErrorKind::from_number(status) {
        None if status == ST_OK => c"ST_OK",
        None => c"ST_ERROR_?",
        Some(kind) => match kind {
            ErrorKind::InvalidArgument => c"ST_ERROR_INVALID_ARGUMENT",
            ErrorKind::OutOfMemory => c"ST_ERROR_OUT_OF_MEMORY",
            ErrorKind::Io => c"ST_ERROR_IO",
            ErrorKind::NotFound => c"ST_ERROR_NOT_FOUND",
            ErrorKind::BufferSize => c"ST_ERROR_BUFFER_SIZE",
            ErrorKind::Cancelled => c"ST_ERROR_CANCELLED",
            ErrorKind::Unsupported => c"ST_ERROR_UNSUPPORTED",
            ErrorKind::Internal => c"ST_ERROR_INTERNAL",
            ErrorKind::Truncated => c"ST_ERROR_TRUNCATED",
            ErrorKind::HeaderTooLarge => c"ST_ERROR_HEADER_TOO_LARGE",
            ErrorKind::HeaderLength => c"ST_ERROR_HEADER_LENGTH",
            ErrorKind::HeaderStart => c"ST_ERROR_HEADER_START",
            ErrorKind::HeaderUtf8 => c"ST_ERROR_HEADER_UTF8",
            ErrorKind::HeaderJson => c"ST_ERROR_HEADER_JSON",
            ErrorKind::DuplicateKey => c"ST_ERROR_DUPLICATE_KEY",
            ErrorKind::Metadata => c"ST_ERROR_METADATA",
            ErrorKind::Dtype => c"ST_ERROR_DTYPE",
            ErrorKind::Shape => c"ST_ERROR_SHAPE",
            ErrorKind::Offsets => c"ST_ERROR_OFFSETS",
            ErrorKind::SizeMismatch => c"ST_ERROR_SIZE_MISMATCH",
            ErrorKind::DataNotCovered => c"ST_ERROR_DATA_NOT_COVERED",
            ErrorKind::SubByte => c"ST_ERROR_SUB_BYTE",
            ErrorKind::Index => c"ST_ERROR_INDEX",
            ErrorKind::Shard => c"ST_ERROR_SHARD",
            ErrorKind::Plan => c"ST_ERROR_PLAN",
            ErrorKind::Group => c"ST_ERROR_GROUP",
            ErrorKind::Config => c"ST_ERROR_CONFIG",
        },
    };
    name.as_ptr()
}

/// A dtype's spelling in files, as "F32".
///
/// Returns static text, never NULL: "UNKNOWN" for ST_DTYPE_UNKNOWN, "?" for a
/// number that is not a dtype. Since 0.1.
#[no_mangle]
pub extern "C" fn st_dtype_name(dtype: st_dtype) -> *const c_char {
    Dtype::from_number(dtype).map_or(c"?", Dtype::c_name).as_ptr()
}

/// The dtype with this spelling in files; case matters, as it does there.
///
/// name: NUL-terminated, borrowed for the call. Returns 0 for NULL and for
/// what is not a dtype. Since 0.1.
#[no_mangle]
pub unsafe extern "C" fn st_dtype_from_name(name: *const c_char) -> st_dtype {
    // SAFETY: null or NUL-terminated, by the header's rules.
    let name = unsafe { required_text(name, "name") };
    name.ok().and_then(Dtype::from_name).map_or(ST_DTYPE_AS_STORED, |dtype| dtype as i32)
}

/// Bits of one element: 4, 6, 8, 16, 32 or 64.
///
/// Returns 0 for ST_DTYPE_UNKNOWN and for a number that is not a dtype. Since 0.1.
#[no_mangle]
pub extern "C" fn st_dtype_bits(dtype: st_dtype) -> u32 {
    Dtype::from_number(dtype).map_or(0, Dtype::bits)
}

const VERSION_TEXT: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(text) => text,
    Err(_) => c"",
};

/// The library's version, as "0.1.0": the one that is running, where
/// SAFETENSORS_VERSION is the one compiled against.
///
/// Returns static text, never NULL. Since 0.1.
#[no_mangle]
pub extern "C" fn st_version() -> *const c_char {
    VERSION_TEXT.as_ptr()
}

/// The number of the binary interface. It grows with each incompatible change;
/// a program that loads the library by hand compares it with
/// SAFETENSORS_ABI_VERSION.
///
/// Since 0.1.
#[no_mangle]
pub extern "C" fn st_abi_version() -> u32 {
    SAFETENSORS_ABI_VERSION
}
