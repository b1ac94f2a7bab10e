// SPDX-License-Identifier: Apache-2.0
//! The library through its C functions.

use std::ffi::CString;
use std::path::Path;
use std::ptr::{null, null_mut};

use safetensors::ffi::{st_arrange, st_load, st_load_item, st_load_options};
use safetensors::ffi::{
    st_checkpoint, st_free, st_io, st_open_io, st_open_options, st_open_with, st_resolver, st_tensors,
};
use safetensors::record::st_tensor;

pub(crate) struct Handle(pub(crate) *mut st_checkpoint);

impl Handle {
    pub(crate) fn open(path: &Path, access: i32) -> Self {
        let path = CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: numbers only.
        let mut options: st_open_options = unsafe { std::mem::zeroed() };
        (options.struct_size, options.access) = (size_of::<st_open_options>(), access);
        // SAFETY: as the header says.
        let handle = unsafe { st_open_with(path.as_ptr(), &options, null_mut()) };
        assert!(!handle.is_null());
        Self(handle)
    }

    pub(crate) fn of_io(io: &st_io) -> Self {
        // SAFETY: as the header says.
        let handle = unsafe { st_open_io(io, null(), null_mut()) };
        assert!(!handle.is_null());
        Self(handle)
    }

    pub(crate) fn tensors(&self) -> &[st_tensor] {
        let mut count = 0;
        // SAFETY: as the header says.
        unsafe { std::slice::from_raw_parts(st_tensors(self.0, &raw mut count), count) }
    }

    /// An item for each tensor, without a place.
    pub(crate) fn items(&self, dtype: i32) -> Vec<st_load_item> {
        // SAFETY: null is a value of every field.
        let empty: st_load_item = unsafe { std::mem::zeroed() };
        self.tensors().iter().map(|tensor| st_load_item { tensor, dtype, ..empty }).collect()
    }

    /// The same with places in `to`, as st_arrange has them.
    pub(crate) fn items_in(&self, to: &mut [u8], dtype: i32, alignment: usize) -> Vec<st_load_item> {
        let mut items = self.items(dtype);
        arrange(&mut items, to, alignment);
        items
    }

    pub(crate) fn run(&self, items: &[st_load_item], options: &st_load_options) {
        // SAFETY: as the header says.
        assert_eq!(unsafe { st_load(self.0, items.as_ptr(), items.len(), options, null_mut()) }, 0);
    }

    /// Loads everything, one after the other, each at a multiple of 64.
    pub(crate) fn load(&self, to: &mut [u8], dtype: i32, threads: u32, io: i32) {
        self.run(&self.items_in(to, dtype, 64), &options(threads, io));
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: owned, and freed once.
        unsafe { st_free(self.0) }
    }
}

pub(crate) fn arrange(items: &mut [st_load_item], to: &mut [u8], alignment: usize) {
    let (base, size) = (to.as_mut_ptr().cast(), to.len());
    // SAFETY: as the header says.
    let status = unsafe { st_arrange(items.as_mut_ptr(), items.len(), base, size, alignment, null_mut(), null_mut()) };
    assert_eq!(status, 0);
}

/// ST_IO_INIT.
pub(crate) fn init_io() -> st_io {
    // SAFETY: null is a value of every field.
    let zero: st_io = unsafe { std::mem::zeroed() };
    st_io { struct_size: size_of::<st_io>(), ..zero }
}

/// ST_RESOLVER_INIT.
pub(crate) fn init_resolver() -> st_resolver {
    st_resolver { struct_size: size_of::<st_resolver>(), open: None, release: None, user_data: null_mut() }
}

pub(crate) fn options(threads: u32, io: i32) -> st_load_options {
    // SAFETY: null is a value of every field.
    let mut options: st_load_options = unsafe { std::mem::zeroed() };
    options.struct_size = size_of::<st_load_options>();
    (options.threads, options.io) = (threads, io);
    options
}
