// SPDX-License-Identifier: Apache-2.0
//! The records callers see, in the layout C sees: one array of them per
//! checkpoint, handed out without conversion.
//!
//! A record owns nothing. Its pointers lead into memory that belongs to the
//! checkpoint (header text, shapes, mapping) and that does not change after
//! opening. Rust code meets records only as borrows from a checkpoint; they can
//! be neither built nor copied outside this crate. A range, which points
//! nowhere, is the caller's to make.

use std::ffi::{c_char, c_void};
use std::slice;

use crate::dtype::Dtype;

/// One tensor: its name, what it holds and where its bytes are.
///
/// A view; it owns nothing. As returned by reading, every pointer in it is
/// owned by the checkpoint, valid until st_free.
#[cfg_attr(feature = "safer-ffi", safer_ffi::derive_ReprC)]
#[repr(C)]
#[derive(Debug)]
#[allow(non_camel_case_types, reason = "the name is the C name")]
pub struct st_tensor {
    /// UTF-8, NUL-terminated; may itself contain NUL, so trust name_len.
    pub(crate) name: *const c_char,
    /// Bytes in name, without the terminating NUL.
    pub(crate) name_len: usize,
    /// One of ST_DTYPE_*.
    pub(crate) dtype: i32,
    /// Which file it is in: an index into what st_shards returns.
    pub(crate) shard: u32,
    /// Number of dimensions; 0 is a scalar, which has one element.
    pub(crate) rank: usize,
    /// rank sizes in elements, outermost first (C order).
    pub(crate) shape: *const i64,
    /// Product of the shape.
    pub(crate) element_count: u64,
    /// Where its bytes begin, from the start of its shard's file.
    pub(crate) offset: u64,
    /// Its bytes: element_count times the dtype's bits, divided by 8.
    pub(crate) size: u64,
    /// Its bytes in memory, or NULL where the shard is read and not mapped.
    /// Little-endian. Aligned as the file is, so check before you cast; what
    /// ST_ACCESS_READ and st_get_tensor give is aligned to 64 bytes.
    pub(crate) data: *const c_void,
    /// The dtype as the file spells it, NUL-terminated.
    pub(crate) dtype_name: *const c_char,
    /// 0 as returned. When given to the library with st_save_options.sources:
    /// 1 + the index there of the checkpoint it comes from; 0: the first that
    /// has the record. Since 0.2.
    pub(crate) source: u64,
    /// Zero; ignored when given to the library.
    pub(crate) reserved: [u64; 1],
}

/// One tensor's record; the Rust name of [`st_tensor`].
pub type Tensor = st_tensor;

// SAFETY: the pointers lead to memory that nobody writes while the record is
// reachable (see the module's text), so any thread may read through them.
unsafe impl Send for st_tensor {}
// SAFETY: as above.
unsafe impl Sync for st_tensor {}

impl st_tensor {
    /// The name's bytes: UTF-8.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        // SAFETY: name and name_len describe memory of the checkpoint this
        // record is borrowed from (or, for records from C, what the caller vouched for).
        unsafe { bytes(self.name, self.name_len) }
    }

    /// The dtype.
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        Dtype::from_number(self.dtype).unwrap_or(Dtype::Unknown)
    }

    /// The dtype as the file spells it.
    #[must_use]
    pub fn dtype_name(&self) -> &[u8] {
        if self.dtype_name.is_null() {
            return self.dtype().name().as_bytes();
        }
        // SAFETY: NUL-terminated text, static or of the checkpoint.
        unsafe { std::ffi::CStr::from_ptr(self.dtype_name) }.to_bytes()
    }

    /// Sizes of the dimensions in elements, outermost first.
    #[must_use]
    pub fn shape(&self) -> &[i64] {
        if self.rank == 0 {
            return &[];
        }
        // SAFETY: as for `name`.
        unsafe { slice::from_raw_parts(self.shape, self.rank) }
    }

    /// Index of its file among the checkpoint's shards.
    #[must_use]
    pub fn shard(&self) -> usize {
        usize::try_from(self.shard).unwrap_or(usize::MAX)
    }

    /// Product of the shape.
    #[must_use]
    pub fn element_count(&self) -> u64 {
        self.element_count
    }

    /// First byte, from the start of its file.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Number of bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The bytes where they are in memory, `None` where the shard is read and not mapped.
    #[must_use]
    pub fn data(&self) -> Option<&[u8]> {
        let size = usize::try_from(self.size).ok()?;
        if self.data.is_null() {
            return None;
        }
        // SAFETY: data and size lie within the checkpoint's mapping or memory;
        // a file that shrinks under a mapping is the documented hazard of mapping.
        Some(unsafe { slice::from_raw_parts(self.data.cast(), size) })
    }
}

/// One entry of a checkpoint's metadata.
///
/// As returned by reading, owned by the checkpoint, valid until st_free.
#[cfg_attr(feature = "safer-ffi", safer_ffi::derive_ReprC)]
#[repr(C)]
#[derive(Debug)]
#[allow(non_camel_case_types, reason = "the name is the C name")]
pub struct st_metadata {
    /// UTF-8, NUL-terminated; may itself contain NUL.
    pub(crate) key: *const c_char,
    /// Bytes in key, without the terminating NUL.
    pub(crate) key_len: usize,
    /// UTF-8, NUL-terminated; may itself contain NUL.
    pub(crate) value: *const c_char,
    /// Bytes in value, without the terminating NUL.
    pub(crate) value_len: usize,
    /// Zero; ignored when given to the library.
    pub(crate) reserved: [u64; 2],
}

/// One metadata entry; the Rust name of [`st_metadata`].
pub type Metadata = st_metadata;

// SAFETY: as for st_tensor.
unsafe impl Send for st_metadata {}
// SAFETY: as for st_tensor.
unsafe impl Sync for st_metadata {}

impl st_metadata {
    /// The key's bytes: UTF-8.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        // SAFETY: as for st_tensor::name.
        unsafe { bytes(self.key, self.key_len) }
    }

    /// The value's bytes: UTF-8.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        // SAFETY: as for st_tensor::name.
        unsafe { bytes(self.value, self.value_len) }
    }
}

/// What a slice takes from one dimension: the elements start, start + step, ...
/// before stop. Initialise with ST_RANGE_ALL for all of them.
///
/// Negative bounds count from the end. Nothing is clamped: bounds are within the
/// dimension and start is not after stop; start equal to stop picks nothing.
#[cfg_attr(feature = "safer-ffi", safer_ffi::derive_ReprC)]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(non_camel_case_types, reason = "the name is the C name")]
pub struct st_range {
    /// First element; negative: from the end.
    pub start: i64,
    /// One past the last element; negative: from the end, INT64_MAX: the end.
    pub stop: i64,
    /// Distance from one to the next, at least 1.
    pub step: i64,
}

/// One dimension's range; the Rust name of [`st_range`].
pub type Range = st_range;

/// One file of a checkpoint.
///
/// Owned by the checkpoint, valid until st_free.
#[cfg_attr(feature = "safer-ffi", safer_ffi::derive_ReprC)]
#[repr(C)]
#[derive(Debug)]
#[allow(non_camel_case_types, reason = "the name is the C name")]
pub struct st_shard {
    /// Its path, or the resolver's name for it; NULL for memory and a lone st_io.
    pub(crate) path: *const c_char,
    /// Bytes in path, without the terminating NUL.
    pub(crate) path_len: usize,
    /// Bytes in the file.
    pub(crate) size: u64,
    /// Where the data section begins: 8 plus the header's length.
    pub(crate) data_offset: u64,
    /// Bytes that the tensors in the file take.
    pub(crate) data_size: u64,
    /// ST_ACCESS_MAP, ST_ACCESS_READ, ST_ACCESS_MEMORY or ST_ACCESS_CALLBACK: what was chosen.
    pub(crate) access: i32,
    /// Zero.
    pub(crate) reserved0: u32,
    /// Why it was chosen, NUL-terminated text for people.
    pub(crate) reason: *const c_char,
    /// Zero.
    pub(crate) reserved: [u64; 2],
}

// SAFETY: as for st_tensor.
unsafe impl Send for st_shard {}
// SAFETY: as for st_tensor.
unsafe impl Sync for st_shard {}

impl st_shard {
    /// Bytes in the file.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where the data section begins.
    #[must_use]
    pub fn data_offset(&self) -> u64 {
        self.data_offset
    }

    /// How the bytes are reached; the numbers are those of [`crate::Chosen`].
    #[must_use]
    pub fn access(&self) -> i32 {
        self.access
    }
}

/// Where in a sink's buffer a piece of an item's result is. Since 0.2.
#[cfg_attr(feature = "safer-ffi", safer_ffi::derive_ReprC)]
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types, reason = "the name is the C name")]
pub struct st_piece {
    /// The item's number.
    pub item: usize,
    /// Where in the item's dense result the piece begins, in bytes.
    pub item_offset: u64,
    /// Where in the buffer it begins, in bytes: a multiple of 16.
    pub buffer_offset: usize,
    /// Its bytes.
    pub size: usize,
    /// Zero.
    pub reserved: [u64; 2],
}

/// The bytes at a record's text pointer.
///
/// # Safety
/// `text` points to `len` bytes that outlive `'a` and don't change, or is null, or `len` is 0.
unsafe fn bytes<'a>(text: *const c_char, len: usize) -> &'a [u8] {
    if len == 0 || text.is_null() {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { slice::from_raw_parts(text.cast(), len) }
}
