// SPDX-License-Identifier: Apache-2.0
//! The part of a tensor or of a quantised group that a rank holds, in the
//! layout C sees.

use crate::group::st_group;
use crate::record::st_tensor;

/// A piece of one dimension: the stored elements from start to stop, then zeros.
#[cfg_attr(feature = "safer-ffi", safer_ffi::derive_ReprC)]
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(non_camel_case_types, reason = "the name is the C name")]
pub struct st_interval {
    /// First stored element.
    pub start: i64,
    /// The element after the last; equal to start where the piece is zeros alone.
    pub stop: i64,
    /// Zero elements that follow.
    pub zeros: i64,
    /// Logical elements of the piece's first block that belong to what lies
    /// before the piece. Not looked at by loading.
    pub skip: i64,
}

/// One piece of one dimension; the Rust name of [`st_interval`].
pub type Interval = st_interval;

/// What a rank holds of one tensor or group.
#[cfg_attr(feature = "safer-ffi", safer_ffi::derive_ReprC)]
#[repr(C)]
#[derive(Debug)]
#[allow(non_camel_case_types, reason = "the name is the C name")]
pub struct st_part {
    /// Which tensor; NULL where it is a part of a group.
    pub tensor: *const st_tensor,
    /// Which group; NULL where it is a part of a tensor.
    pub group: *const st_group,
    /// Number of dimensions.
    pub rank: usize,
    /// rank sizes of the local result.
    pub shape: *const i64,
    /// For each dimension its pieces, in the result's order; NULL: all of it.
    pub intervals: *const *const st_interval,
    /// For each dimension how many pieces; not looked at where it is all of it.
    pub interval_counts: *const usize,
    /// Bytes of the local result as stored.
    pub size: u64,
    /// Bytes that are read for it.
    pub read_size: u64,
    /// Zero.
    pub reserved: [u64; 4],
}

// SAFETY: the pointers lead to memory that nobody writes while the record is
// reachable, so any thread may read through them.
unsafe impl Send for st_part {}
// SAFETY: as above.
unsafe impl Sync for st_part {}
