// SPDX-License-Identifier: Apache-2.0
//! A quantised group as callers see it: the records, in the layout C sees.
#![allow(non_camel_case_types, reason = "the names are the C names")]

use std::ffi::c_char;

use crate::record::st_tensor;

/// A tensor of a group. As filled in by the library, everything it points to
/// is owned by what returned it.
#[cfg_attr(feature = "safer-ffi", safer_ffi::derive_ReprC)]
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct st_member {
    /// What it is for, static: "codes", "scales", "zeros", "offsets", "global",
    /// "order", "shape", "map", "state", "nested_scales", "nested_map", "format",
    /// or, for activations and not for the weight, "input_scale", "pre_scale", "kv_scale".
    pub role: *const c_char,
    /// Owned by the checkpoint.
    pub tensor: *const st_tensor,
    /// Zero.
    pub reserved: [u64; 2],
}

/// How codes become values: numbers to switch on. All zero where a group can't be decoded.
#[cfg_attr(feature = "safer-ffi", safer_ffi::derive_ReprC)]
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct st_recipe {
    /// What a code stands for: an ST_CODE_ constant.
    pub code: u32,
    /// Where codes lie: an ST_PACKING_ constant.
    pub packing: u32,
    /// The type of scales: an ST_SCALE_ constant.
    pub scale_type: u32,
    /// What a scale is for: an ST_SCALES_ constant.
    pub scale_layout: u32,
    /// What is subtracted from a code, or added: an ST_ZERO_ constant.
    pub zero: u32,
    /// What comes last: an ST_GLOBAL_ constant.
    pub global: u32,
    /// Which group a column is in: an ST_ORDER_OF_ constant.
    pub order: u32,
    /// Zero.
    pub reserved0: u32,
}

/// One logical tensor that is stored as several. As filled in by the library,
/// everything it points to is owned by the st_groups.
#[cfg_attr(feature = "safer-ffi", safer_ffi::derive_ReprC)]
#[repr(C)]
#[derive(Debug)]
pub struct st_group {
    /// Logical name, NUL-terminated: "model.layers.0.mlp.up_proj.weight".
    pub name: *const c_char,
    /// Bytes of name without its NUL.
    pub name_len: usize,
    /// The family, static: "gptq". Where status is not ST_OK what it seems to be, or "".
    pub kind: *const c_char,
    /// The exact layout, static: "gptq-v1"; "" where status is not ST_OK.
    pub layout: *const c_char,
    /// ST_OK; ST_ERROR_GROUP: broken; ST_ERROR_UNSUPPORTED: several readings fit
    /// (ST_GROUP_AMBIGUOUS), or there is no decoder.
    pub status: i32,
    /// Bits of a code.
    pub bits: u32,
    /// ST_GROUP_ constants, together.
    pub flags: u32,
    /// Zero.
    pub reserved0: u32,
    /// Number of dimensions; 0 where status is not ST_OK.
    pub rank: usize,
    /// rank sizes: [out, in], or [experts, out, in].
    pub shape: *const i64,
    /// For each dimension the elements that share one scale.
    pub block: *const i64,
    /// For each dimension the step: ranges begin and end at its multiples, or
    /// where the dimension ends.
    pub step: *const i64,
    /// Its tensors, codes first.
    pub members: *const st_member,
    /// How many members.
    pub member_count: usize,
    /// NUL-terminated: "" where status is ST_OK, else what is wrong. Begins with
    /// "missing: ", "shape: ", "dtype: ", "value: ", "state: ", "config: ",
    /// "ambiguous: " or "unsupported: ".
    pub problem: *const c_char,
    /// How it is decoded.
    pub recipe: st_recipe,
    /// The library's.
    pub reserved: [u64; 4],
}

// SAFETY: the pointers lead to memory that nobody writes while the record is
// reachable, so any thread may read through them.
unsafe impl Send for st_group {}
// SAFETY: as above.
unsafe impl Sync for st_group {}
// SAFETY: as above.
unsafe impl Send for st_member {}
// SAFETY: as above.
unsafe impl Sync for st_member {}
