// SPDX-License-Identifier: Apache-2.0
//! A quantised group as callers see it.
#![allow(non_camel_case_types, reason = "the name is the C name")]

/// Tensors that are one quantised tensor together. Opaque.
#[cfg_attr(feature = "safer-ffi", safer_ffi::derive_ReprC, repr(opaque))]
#[derive(Debug)]
pub struct st_group {
    _private: [u8; 0],
}
