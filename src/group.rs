// SPDX-License-Identifier: Apache-2.0
//! A quantised group, in the layout C sees.

/// A quantised group; its fields come with the library that lists groups.
#[cfg_attr(feature = "safer-ffi", safer_ffi::derive_ReprC)]
#[repr(C)]
#[derive(Debug)]
#[allow(non_camel_case_types, reason = "the name is the C name")]
pub struct st_group {
    pub(crate) reserved: [u64; 4],
}
