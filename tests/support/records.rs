// SPDX-License-Identifier: Apache-2.0
//! `st_tensor` and `st_metadata` with the fields that C programs set; to Rust
//! callers the library's own are closed. Tests, fuzz targets and benches share them.

use std::ffi::{c_char, c_void};
use std::ptr;

use safetensors::record::{st_metadata, st_tensor};

/// `st_tensor` as the header has it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Record {
    pub(crate) name: *const c_char,
    pub(crate) name_len: usize,
    pub(crate) dtype: i32,
    pub(crate) shard: u32,
    pub(crate) rank: usize,
    pub(crate) shape: *const i64,
    pub(crate) element_count: u64,
    pub(crate) offset: u64,
    pub(crate) size: u64,
    pub(crate) data: *const c_void,
    pub(crate) dtype_name: *const c_char,
    pub(crate) reserved: [u64; 2],
}

/// `st_metadata` as the header has it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) key: *const c_char,
    pub(crate) key_len: usize,
    pub(crate) value: *const c_char,
    pub(crate) value_len: usize,
    pub(crate) reserved: [u64; 2],
}

const _: () = assert!(size_of::<Record>() == size_of::<st_tensor>() && size_of::<Entry>() == size_of::<st_metadata>());

impl Record {
    /// `{0}`.
    pub(crate) const EMPTY: Self = Self {
        name: ptr::null(),
        name_len: 0,
        dtype: 0,
        shard: 0,
        rank: 0,
        shape: ptr::null(),
        element_count: 0,
        offset: 0,
        size: 0,
        data: ptr::null(),
        dtype_name: ptr::null(),
        reserved: [0; 2],
    };
}

impl From<&st_tensor> for Record {
    fn from(tensor: &st_tensor) -> Self {
        // SAFETY: the same layout, as tests/contract/abi/layout.c asserts for each field.
        unsafe { ptr::from_ref(tensor).cast::<Self>().read() }
    }
}
