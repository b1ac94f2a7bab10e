// SPDX-License-Identifier: Apache-2.0
//! What each rank of a parallel job holds.

use std::ffi::c_char;
use std::ptr;

use super::arguments::st_checkpoint;
use super::boundary::{guard, CallerStruct};
use super::groups::st_groups;
use super::status::st_error;
use crate::error::{Error, ErrorKind};
use crate::part::st_part;

/// An axis of a parallel job and a place on it. A record that you fill.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct st_axis {
    /// NUL-terminated: "tp", "pp", "ep", or any other name that the plan uses.
    pub name: *const c_char,
    /// Which rank on this axis, from 0.
    pub rank: i64,
    /// How many ranks the axis has, 1 or more.
    pub size: i64,
    /// Zero.
    pub reserved: [u64; 2],
}

/// A number that a plan may use by its name. A record that you fill.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct st_symbol {
    /// NUL-terminated.
    pub name: *const c_char,
    /// 0 or more.
    pub value: i64,
    /// Zero.
    pub reserved: [u64; 2],
}

/// A text with its length. A record that you fill.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct st_text {
    /// UTF-8; need not end in NUL.
    pub data: *const c_char,
    /// Bytes at data.
    pub size: usize,
}

/// How a checkpoint is dealt to ranks. Begin with ST_RANK_PLAN_OPTIONS_INIT;
/// zero in any field is the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct st_rank_plan_options {
    /// sizeof(st_rank_plan_options), as set by ST_RANK_PLAN_OPTIONS_INIT.
    pub struct_size: usize,
    /// Plans, in order: what an earlier one says of a tensor holds. Borrowed for the call.
    pub plans: *const st_text,
    /// Plans; 0: the built-in one for the model_type of config.
    pub plan_count: usize,
    /// The text of the model's config.json, whose numbers plans use. Borrowed for
    /// the call. data NULL: config.json beside the checkpoint, if there is one.
    pub config: st_text,
    /// Numbers that come before those of config. Borrowed for the call.
    pub symbols: *const st_symbol,
    /// How many symbols.
    pub symbol_count: usize,
    /// The plan then speaks of logical tensors: groups, and what belongs to no
    /// group. NULL: of the tensors in the files.
    pub groups: *const st_groups,
    /// Not 0: on every axis that a rule is on, each tensor must be matched by a rule.
    pub strict: i32,
}

// SAFETY: it begins with struct_size, and consists of numbers and pointers.
unsafe impl CallerStruct for st_rank_plan_options {
    const NAME: &'static str = "st_rank_plan_options";
}

/// One or several plans, put together with the checkpoint that they are for.
/// Opaque; made by st_rank_plan_open.
pub struct st_rank_plan {
    _private: [u8; 0],
}

/// ==== Rank plans: what each rank of a parallel job holds ====
///
/// Puts plans and a checkpoint together.
///
/// A plan is JSON that says, by patterns of names, how tensors are cut along
/// axes (tensor parallel), and which of them are on which rank (layers,
/// experts); docs/ranks.md has the language. No data of tensors is read.
///
/// checkpoint: stays open until st_rank_plan_free, whoever calls st_free.
/// options: borrowed for the call; NULL: all defaults.
///
/// Returns a plan that the caller owns: release it with st_rank_plan_free; or
/// NULL: ST_ERROR_PLAN (PLAN_SYNTAX), ST_ERROR_CONFIG, ST_ERROR_NOT_FOUND (no plan
/// is given, and none is built in for the model), ST_ERROR_INVALID_ARGUMENT,
/// ST_ERROR_UNSUPPORTED, ST_ERROR_IO, ST_ERROR_OUT_OF_MEMORY. Since 0.2.
#[no_mangle]
pub unsafe extern "C" fn st_rank_plan_open(
    checkpoint: *const st_checkpoint,
    options: *const st_rank_plan_options,
    error: *mut st_error,
) -> *mut st_rank_plan {
    let _ = (checkpoint, options);
    // SAFETY: arguments are as the header's rules say.
    unsafe { guard(error, |_| ptr::null_mut(), || Err(Error::new(ErrorKind::Unsupported, "rank plans come soon"))) }
}

/// The parts of the checkpoint's tensors that a rank holds, in the byte order of
/// the tensors' names. Does no I/O. What fails for one rank fails for all.
///
/// axes: one for each axis of the job, each name once; an axis that is not
/// given has one rank. Borrowed for the call; may be NULL where axis_count is 0.
/// count: receives how many parts; may be NULL.
///
/// May be called from several threads at once, and for any number of ranks.
///
/// Returns an array owned by the plan, valid until st_rank_plan_free; a rank
/// without parts is not NULL, with count 0. NULL (and count 0): ST_ERROR_PLAN,
/// whose message begins with the rule's name, as "INDIVISIBLE: ",
/// ST_ERROR_INVALID_ARGUMENT, ST_ERROR_UNSUPPORTED, ST_ERROR_OUT_OF_MEMORY. Since 0.2.
#[no_mangle]
pub unsafe extern "C" fn st_rank_plan_parts(
    plan: *mut st_rank_plan,
    axes: *const st_axis,
    axis_count: usize,
    count: *mut usize,
    error: *mut st_error,
) -> *const st_part {
    let _ = (plan, axes, axis_count, count);
    // SAFETY: arguments are as the header's rules say.
    unsafe { guard(error, |_| ptr::null(), || Err(Error::new(ErrorKind::Unsupported, "rank plans come soon"))) }
}

/// Releases a plan and all of its parts. NULL is fine. Since 0.2.
#[no_mangle]
pub unsafe extern "C" fn st_rank_plan_free(plan: *mut st_rank_plan) {
    let _ = plan;
}

/// The text of a built-in plan.
///
/// model_type: NUL-terminated, as in config.json; borrowed for the call.
/// length: receives the text's bytes; may be NULL.
///
/// Returns static NUL-terminated JSON; NULL (and length 0) where no plan is
/// built in for this type of model. Since 0.2.
#[no_mangle]
pub unsafe extern "C" fn st_rank_plan_builtin(model_type: *const c_char, length: *mut usize) -> *const c_char {
    let _ = model_type;
    if !length.is_null() {
        // SAFETY: not null, so it is writable by the header's rules.
        unsafe { length.write(0) };
    }
    ptr::null()
}
