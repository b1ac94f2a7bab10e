// SPDX-License-Identifier: Apache-2.0
//! What a process of a parallel job holds of a tensor, as callers see it: the
//! records of rank plans, in the layout C sees.
#![allow(non_camel_case_types, reason = "the names are the C names")]

use crate::group::st_group;
use crate::record::st_tensor;

/// A piece of a dimension: the stored indices start to stop - 1, then zeros
/// indices that are in no file and whose elements have all bits 0.
#[cfg_attr(feature = "safer-ffi", safer_ffi::derive_ReprC)]
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct st_interval {
    /// First stored index.
    pub start: i64,
    /// The stored index after the last.
    pub stop: i64,
    /// How many indices of zeros follow.
    pub zeros: i64,
    /// Of block scales, how many logical elements of the first block belong to
    /// what lies before this piece; 0 elsewhere. Loading does not look at it.
    pub skip: i64,
}

/// A piece of a dimension; the Rust name of [`st_interval`].
pub type Interval = st_interval;

/// What one rank holds of a tensor. As filled in by the library, everything it
/// points to is owned by what returned it.
#[cfg_attr(feature = "safer-ffi", safer_ffi::derive_ReprC)]
#[repr(C)]
#[derive(Debug)]
pub struct st_part {
    /// The tensor that it is a part of, owned by the checkpoint; NULL where it is of a group.
    pub tensor: *const st_tensor,
    /// The group that it is a part of; NULL where it is of a tensor.
    pub group: *const st_group,
    /// Number of dimensions, as many as the tensor has.
    pub rank: usize,
    /// rank sizes: the local shape.
    pub shape: *const i64,
    /// For each dimension its pieces in their local order; NULL: all of it.
    pub intervals: *const *const st_interval,
    /// For each dimension how many pieces; 0 where intervals has NULL.
    pub interval_counts: *const usize,
    /// Bytes of the local result as stored.
    pub size: u64,
    /// Bytes that are read for it: all but the zeros of padding.
    pub read_size: u64,
    /// Zero; ignored when given to the library.
    pub reserved: [u64; 4],
}

// SAFETY: the pointers lead to memory that nobody writes while the record is
// reachable, so any thread may read through them.
unsafe impl Send for st_part {}
// SAFETY: as above.
unsafe impl Sync for st_part {}
