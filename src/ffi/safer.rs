// SPDX-License-Identifier: Apache-2.0
//! What safer-ffi can't derive by itself; see docs/decisions. Only with the
//! feature of that name.

use std::ffi::c_char;

use safer_ffi::layout::ReprC;

use super::status::{st_error, st_status};

/// The layout of st_error. safer-ffi has no arrays of 504 elements, but of 21 and 24.
#[safer_ffi::derive_ReprC]
#[repr(C)]
pub struct st_error_parts {
    code: st_status,
    os_errno: i32,
    message: [[c_char; 24]; 21],
}

const _: () = assert!(size_of::<st_error_parts>() == size_of::<st_error>());

// SAFETY: the same fields in the same places, and any bits are a valid value.
unsafe impl ReprC for st_error {
    type CLayout = <st_error_parts as ReprC>::CLayout;

    fn is_valid(_: &Self::CLayout) -> bool {
        true
    }
}
