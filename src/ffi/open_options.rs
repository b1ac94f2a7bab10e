// SPDX-License-Identifier: Apache-2.0
//! How to open.

use std::ffi::{c_char, CStr};

use super::arguments::no_such;
use super::boundary::{read_options, CallerStruct};
use crate::error::Result;
use crate::options::{Access, OpenOptions, Prefetch, Variant};

/// st_open_options.access: map on file systems known to be local, read elsewhere.
pub const ST_ACCESS_AUTO: i32 = 0;
/// Zero-copy: data points into a mapping in every record.
pub const ST_ACCESS_MAP: i32 = 1;
/// Nothing is mapped: a failing disk is an error code, never a SIGBUS.
pub const ST_ACCESS_READ: i32 = 2;
/// In st_shard.access only: the caller's memory.
pub const ST_ACCESS_MEMORY: i32 = 3;
/// In st_shard.access only: the caller's read_at.
pub const ST_ACCESS_CALLBACK: i32 = 4;

/// st_open_options.tolerate: allow bytes after the last tensor.
pub const ST_TOLERATE_TRAILING_BYTES: u32 = 1;
/// st_open_options.tolerate: keep tensors of unknown dtypes, as opaque bytes.
pub const ST_TOLERATE_UNKNOWN_DTYPE: u32 = 2;

/// st_open_options.prefetch: nothing.
pub const ST_PREFETCH_NONE: i32 = 0;
/// st_open_options.prefetch: ask the system to read ahead, and do not wait.
pub const ST_PREFETCH_ADVISE: i32 = 1;
/// st_open_options.prefetch: mapped files are in memory when opening returns; as _ADVISE for others.
pub const ST_PREFETCH_POPULATE: i32 = 2;

/// How to open. Begin with ST_OPEN_OPTIONS_INIT; zero in any field is the default.
///
/// Limits hold for each file by itself, but for max_set_bytes.
#[cfg_attr(feature = "safer-ffi", safer_ffi::derive_ReprC)]
#[repr(C)]
#[derive(Clone, Copy)]
pub struct st_open_options {
    /// sizeof(st_open_options), as set by ST_OPEN_OPTIONS_INIT.
    pub struct_size: usize,
    /// ST_ACCESS_AUTO, ST_ACCESS_MAP or ST_ACCESS_READ.
    pub access: i32,
    /// Any of ST_TOLERATE_*, or'ed.
    pub tolerate: u32,
    /// ST_PREFETCH_NONE, ST_PREFETCH_ADVISE or ST_PREFETCH_POPULATE.
    pub prefetch: i32,
    /// Zero.
    pub reserved0: u32,
    /// Largest header, and largest index file, in bytes; 0: 100,000,000.
    pub max_header_size: u64,
    /// Most tensors in a header; 0: as many as fit.
    pub max_tensors: u64,
    /// Most dimensions of a tensor; 0: as many as fit.
    pub max_rank: u64,
    /// Longest name of a tensor in bytes; 0: as long as fits.
    pub max_name_length: u64,
    /// In a folder, only files of this variant count: "fp16" for
    /// model.fp16.safetensors. NUL-terminated, borrowed for the call. NULL or
    /// empty: files without a variant. No effect where the path is a file's.
    /// Since 0.2.
    pub variant: *const c_char,
    /// Most bytes of the headers and the index of all files together, beyond
    /// which opening is ST_ERROR_HEADER_TOO_LARGE; 0: 1,000,000,000. Since 0.2.
    pub max_set_bytes: u64,
}

// SAFETY: it begins with struct_size; zeros and a null pointer are valid.
unsafe impl CallerStruct for st_open_options {
    const NAME: &'static str = "st_open_options";
}

/// # Safety
/// As for [`read_options`].
pub(super) unsafe fn open_options(given: *const st_open_options) -> Result<OpenOptions> {
    let mut options = OpenOptions::default();
    // SAFETY: the caller's promise.
    let Some(given) = (unsafe { read_options(given) })? else { return Ok(options) };
    options.access = match given.access {
        ST_ACCESS_AUTO => Access::Auto,
        ST_ACCESS_MAP => Access::Map,
        ST_ACCESS_READ => Access::Read,
        other => {
            return Err(no_such("st_open_options.access", other, "ST_ACCESS_AUTO, ST_ACCESS_MAP or ST_ACCESS_READ"))
        }
    };
    options.prefetch = match given.prefetch {
        ST_PREFETCH_NONE => Prefetch::None,
        ST_PREFETCH_ADVISE => Prefetch::Advise,
        ST_PREFETCH_POPULATE => Prefetch::Populate,
        other => return Err(no_such("st_open_options.prefetch", other, "ST_PREFETCH_NONE, _ADVISE or _POPULATE")),
    };
    if given.tolerate & !(ST_TOLERATE_TRAILING_BYTES | ST_TOLERATE_UNKNOWN_DTYPE) != 0 {
        return Err(no_such(
            "st_open_options.tolerate",
            given.tolerate,
            "ST_TOLERATE_TRAILING_BYTES, _UNKNOWN_DTYPE, both or 0",
        ));
    }
    if given.reserved0 != 0 {
        return Err(no_such("st_open_options.reserved0", given.reserved0, "0"));
    }
    if !given.variant.is_null() {
        // SAFETY: the caller's promise.
        options.variant = Variant::new(unsafe { CStr::from_ptr(given.variant) }.to_bytes());
    }
    options.limits.set_bytes = (given.max_set_bytes != 0).then_some(given.max_set_bytes);
    options.tolerate.trailing_bytes = given.tolerate & ST_TOLERATE_TRAILING_BYTES != 0;
    options.tolerate.unknown_dtype = given.tolerate & ST_TOLERATE_UNKNOWN_DTYPE != 0;
    let limits = &mut options.limits;
    for (limit, given) in [
        (&mut limits.header_bytes, given.max_header_size),
        (&mut limits.tensors, given.max_tensors),
        (&mut limits.rank, given.max_rank),
        (&mut limits.name_bytes, given.max_name_length),
    ] {
        if given != 0 {
            *limit = given;
        }
    }
    Ok(options)
}
