// SPDX-License-Identifier: Apache-2.0
//! The C functions, called as C calls them, with a handle that frees itself.

use std::ffi::{c_char, c_void, CStr, CString};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::{ptr, slice};

use safetensors::ffi::*;
use safetensors::record::{st_metadata, st_shard, st_tensor};
use safetensors::OpenOptions;

use super::corpus::{entry_line, Contents, Tensor};

/// What an st_error said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: i32,
    pub(crate) errno: i32,
    pub(crate) message: String,
}

impl Failure {
    /// The code's spelling in C.
    pub(crate) fn status(&self) -> &'static str {
        status_name(self.code)
    }
}

/// An st_error, filled with a pattern that shows whether it was written.
pub(crate) struct ErrorSlot(st_error);

impl Default for ErrorSlot {
    fn default() -> Self {
        Self(st_error { code: 0x5A5A, os_errno: 0x5A5A, message: [0x5A; 504] })
    }
}

impl ErrorSlot {
    pub(crate) fn as_mut(&mut self) -> *mut st_error {
        &raw mut self.0
    }

    pub(crate) fn untouched(&self) -> bool {
        self.0.code == 0x5A5A && self.0.os_errno == 0x5A5A && self.0.message.iter().all(|c| *c == 0x5A)
    }

    /// What it says, which must be whole and safe to print.
    pub(crate) fn failure(&self) -> Failure {
        assert!(!self.untouched(), "a failure must be written");
        let bytes: Vec<u8> = self.0.message.iter().flat_map(|c| c.to_ne_bytes()).collect();
        let message = CStr::from_bytes_until_nul(&bytes)
            .expect("terminated within 504 bytes")
            .to_str()
            .expect("UTF-8")
            .to_owned();
        assert!(!message.is_empty());
        assert!(!message.chars().any(char::is_control), "{message:?}");
        assert_ne!(st_status_name(self.0.code), st_status_name(-1), "a status of the header's");
        assert_ne!(self.0.code, ST_OK);
        Failure { code: self.0.code, errno: self.0.os_errno, message }
    }
}

/// An owned st_checkpoint.
pub(crate) struct Handle(pub(crate) *mut st_checkpoint);

// SAFETY: the header says that any thread may use a checkpoint.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the handle is live and owned.
        unsafe { st_free(self.0) }
    }
}

pub(crate) fn options(rust: &OpenOptions) -> st_open_options {
    st_open_options {
        access: rust.access as i32,
        tolerate: u32::from(rust.tolerate.trailing_bytes) * ST_TOLERATE_TRAILING_BYTES
            | u32::from(rust.tolerate.unknown_dtype) * ST_TOLERATE_UNKNOWN_DTYPE,
        prefetch: rust.prefetch as i32,
        max_header_size: rust.limits.header_bytes,
        max_tensors: rust.limits.tensors,
        max_rank: rust.limits.rank,
        max_name_length: rust.limits.name_bytes,
        max_set_bytes: rust.limits.set_bytes.unwrap_or(0),
        variant: rust.variant.as_ref().map_or(ptr::null(), |variant| variant_text(variant.as_bytes())),
        ..init_options()
    }
}

/// A variant for C, kept for the rest of the tests.
fn variant_text(variant: &[u8]) -> *const c_char {
    CString::new(variant).unwrap().into_raw()
}

/// ST_OPEN_OPTIONS_INIT.
pub(crate) fn init_options() -> st_open_options {
    // SAFETY: numbers only.
    let zero: st_open_options = unsafe { MaybeUninit::zeroed().assume_init() };
    st_open_options { struct_size: size_of::<st_open_options>(), ..zero }
}

/// ST_IO_INIT.
pub(crate) fn init_io() -> st_io {
    // SAFETY: null is a value of every field.
    let zero: st_io = unsafe { MaybeUninit::zeroed().assume_init() };
    st_io { struct_size: size_of::<st_io>(), ..zero }
}

/// ST_RESOLVER_INIT.
pub(crate) fn init_resolver() -> st_resolver {
    st_resolver { struct_size: size_of::<st_resolver>(), open: None, release: None, user_data: ptr::null_mut() }
}

/// Runs an open; on success nothing may have been written to the error.
pub(crate) fn opened(open: impl FnOnce(*mut st_error) -> *mut st_checkpoint) -> Result<Handle, Failure> {
    let mut error = ErrorSlot::default();
    let handle = open(error.as_mut());
    if handle.is_null() {
        return Err(error.failure());
    }
    assert!(error.untouched(), "success writes no error");
    Ok(Handle(handle))
}

pub(crate) fn c_path(path: impl AsRef<Path>) -> CString {
    CString::new(path.as_ref().as_os_str().as_bytes()).unwrap()
}

pub(crate) fn open(path: impl AsRef<Path>) -> Result<Handle, Failure> {
    let path = c_path(path);
    // SAFETY: as the header says.
    opened(|error| unsafe { st_open(path.as_ptr(), error) })
}

pub(crate) fn open_with(path: impl AsRef<Path>, options: &st_open_options) -> Result<Handle, Failure> {
    let path = c_path(path);
    // SAFETY: as the header says.
    opened(|error| unsafe { st_open_with(path.as_ptr(), options, error) })
}

/// Opens for reading, without any mapping.
pub(crate) fn open_read(path: impl AsRef<Path>) -> Result<Handle, Failure> {
    open_with(path, &st_open_options { access: ST_ACCESS_READ, ..init_options() })
}

/// Opens for mapping.
pub(crate) fn open_map(path: impl AsRef<Path>) -> Result<Handle, Failure> {
    open_with(path, &st_open_options { access: ST_ACCESS_MAP, ..init_options() })
}

/// `bytes` must outlive the handle.
pub(crate) fn open_memory(bytes: &[u8], options: &st_open_options) -> Result<Handle, Failure> {
    // SAFETY: as the header says; the tests keep their bytes.
    opened(|error| unsafe { st_open_memory(bytes.as_ptr().cast(), bytes.len(), options, error) })
}

pub(crate) fn open_io(io: &st_io, options: &st_open_options) -> Result<Handle, Failure> {
    // SAFETY: as the header says.
    opened(|error| unsafe { st_open_io(io, options, error) })
}

pub(crate) fn open_resolved(resolver: &st_resolver, name: &str, options: &st_open_options) -> Result<Handle, Failure> {
    let name = CString::new(name).unwrap();
    // SAFETY: as the header says.
    opened(|error| unsafe { st_open_resolved(resolver, name.as_ptr(), options, error) })
}

fn array<T>(call: impl FnOnce(*mut usize) -> *const T) -> Option<&'static [T]> {
    let mut count = usize::MAX;
    let found = call(&raw mut count);
    match found.is_null() {
        // SAFETY: what the header promises for as long as the handle lives.
        false => Some(unsafe { slice::from_raw_parts(found, count) }),
        true => {
            assert_eq!(count, 0);
            None
        }
    }
}

impl Handle {
    /// One more owner.
    pub(crate) fn retain(&self) -> Self {
        // SAFETY: the handle is live; the new one frees what this takes.
        Self(unsafe { st_retain(self.0) })
    }

    pub(crate) fn tensors(&self) -> &[st_tensor] {
        // SAFETY: the handle is live.
        array(|count| unsafe { st_tensors(self.0, count) }).unwrap()
    }

    pub(crate) fn shards(&self) -> &[st_shard] {
        // SAFETY: the handle is live.
        array(|count| unsafe { st_shards(self.0, count) }).unwrap()
    }

    pub(crate) fn metadata(&self) -> Option<&[st_metadata]> {
        // SAFETY: the handle is live.
        array(|count| unsafe { st_metadata_entries(self.0, count) })
    }

    pub(crate) fn get(&self, name: impl AsRef<[u8]>) -> Result<&st_tensor, Failure> {
        let name = name.as_ref();
        let mut error = ErrorSlot::default();
        // SAFETY: the handle is live, and the name as long as it says.
        let found =
            unsafe { st_get_tensor_n(self.0, name.as_ptr().cast::<c_char>(), name.len(), error.as_mut()).as_ref() };
        let Some(tensor) = found else { return Err(error.failure()) };
        assert!(error.untouched() && tensor.data().is_some());
        Ok(tensor)
    }

    pub(crate) fn read_into(&self, tensor: &st_tensor, dst: &mut [u8]) -> Result<(), Failure> {
        let mut error = ErrorSlot::default();
        // SAFETY: the handle is live, and dst as long as it says.
        let status =
            unsafe { st_read_tensor(self.0, tensor, dst.as_mut_ptr().cast::<c_void>(), dst.len(), error.as_mut()) };
        if status != ST_OK {
            let failure = error.failure();
            assert_eq!(failure.code, status);
            return Err(failure);
        }
        assert!(error.untouched());
        Ok(())
    }

    pub(crate) fn read(&self, tensor: &st_tensor) -> Result<Vec<u8>, Failure> {
        let mut bytes = vec![0xEE; tensor.size() as usize];
        self.read_into(tensor, &mut bytes).map(|()| bytes)
    }

    /// All that is in it, and on the way that records, lookups, st_get_tensor
    /// and st_read_tensor agree.
    pub(crate) fn contents(&self) -> Contents {
        let tensors = self.tensors();
        assert!(tensors.is_sorted_by_key(|tensor| (tensor.shard(), tensor.offset())));
        let each = tensors.iter().map(|tensor| {
            let got = self.get(tensor.name()).unwrap();
            let bytes = self.read(tensor).unwrap();
            assert_eq!(got.data().unwrap(), bytes);
            assert_eq!(got.data().unwrap().as_ptr(), self.get(tensor.name()).unwrap().data().unwrap().as_ptr());
            if let Some(mapped) = tensor.data() {
                assert!(ptr::eq(tensor, got) && mapped == bytes);
            }
            assert_eq!((got.offset(), got.shape(), got.name()), (tensor.offset(), tensor.shape(), tensor.name()));
            assert_eq!(tensor.element_count(), tensor.shape().iter().map(|size| *size as u64).product::<u64>());
            terminated(tensor.name());
            terminated(tensor.dtype_name());
            let (name, dtype, shard) = (tensor.name(), tensor.dtype_name(), tensor.shard());
            Tensor { name, dtype, shape: tensor.shape(), shard, offset: tensor.offset(), bytes: &bytes }.line()
        });
        let mut tensors: Vec<_> = each.collect();
        tensors.sort();
        let metadata = self.metadata().map(|entries| {
            let line = |entry: &st_metadata| {
                terminated(entry.key());
                terminated(entry.value());
                entry_line(entry.key(), entry.value())
            };
            entries.iter().map(line).collect()
        });
        Contents { tensors, metadata }
    }
}

impl Handle {
    /// Why the first shard is accessed the way it is.
    pub(crate) fn reason(&self) -> &str {
        // SAFETY: the layout is the header's (path, path_len, size, data_offset, data_size,
        // two numbers, reason), and the text lives as long as the record.
        unsafe {
            let reason = self.shards().as_ptr().cast::<*const c_char>().add(6).read();
            CStr::from_ptr(reason).to_str().unwrap()
        }
    }
}

/// A shard's path as C sees it: the struct's first two fields.
pub(crate) fn shard_path(shard: &st_shard) -> &[u8] {
    // SAFETY: the layout is the header's, and the path lives as long as the record.
    unsafe {
        let path = std::ptr::from_ref(shard).cast::<*const u8>().read();
        let len = std::ptr::from_ref(shard).cast::<usize>().add(1).read();
        if path.is_null() {
            &[]
        } else {
            slice::from_raw_parts(path, len)
        }
    }
}

/// Strings out are NUL-terminated, whatever their length says.
fn terminated(text: &[u8]) {
    if !text.is_empty() {
        // SAFETY: the header promises a NUL after the text.
        assert_eq!(unsafe { text.as_ptr().add(text.len()).read() }, 0);
    }
}

/// A status's spelling in C.
pub(crate) fn status_name(code: i32) -> &'static str {
    // SAFETY: static text.
    unsafe { CStr::from_ptr(st_status_name(code)) }.to_str().unwrap()
}

pub(crate) fn open_files(paths: &[&Path], options: &st_open_options) -> Result<Handle, Failure> {
    let paths: Vec<_> = paths.iter().map(c_path).collect();
    let pointers: Vec<_> = paths.iter().map(|path| path.as_ptr()).collect();
    // SAFETY: as the header says.
    opened(|error| unsafe { st_open_files(pointers.as_ptr(), pointers.len(), options, error) })
}

pub(crate) fn open_fd(fd: i32, offset: u64, size: u64, options: &st_open_options) -> Result<Handle, Failure> {
    // SAFETY: as the header says.
    opened(|error| unsafe { st_open_fd(fd, offset, size, options, error) })
}
