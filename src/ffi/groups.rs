// SPDX-License-Identifier: Apache-2.0
//! Quantised groups.

use std::ffi::{c_char, CStr};
use std::ptr;
use std::sync::Arc;

use super::arguments::{all_ranges, array_at, null, required, required_text, st_checkpoint, utf8};
use super::boundary::{guard, read_options, CallerStruct};
use super::model_arguments::{st_groups, st_text, text_bytes};
use super::status::{st_error, st_status, ST_OK};
use crate::error::{Error, ErrorKind, Result};
use crate::group::st_group;
use crate::model::groups::{Groups, GroupsOptions, Listing, Override};
use crate::part::st_part;
use crate::record::{st_range, st_tensor};

/// st_group.flags: codes are stored [in, out].
pub const ST_GROUP_TRANSPOSED: u32 = 1;
/// An index says each column's group.
pub const ST_GROUP_ACT_ORDER: u32 = 2;
/// There are zero points.
pub const ST_GROUP_ASYMMETRIC: u32 = 4;
/// Scales are stored in tiles of 128 rows and 4 groups.
pub const ST_GROUP_SWIZZLED: u32 = 8;
/// Of two codes in a byte the first is the high one.
pub const ST_GROUP_HIGH_NIBBLE_FIRST: u32 = 16;
/// Codes are one run over the whole matrix.
pub const ST_GROUP_FLAT: u32 = 32;
/// Words of 32 bits have unused bits.
pub const ST_GROUP_PADDED_WORDS: u32 = 64;
/// Several readings fit, and nothing says which is meant.
pub const ST_GROUP_AMBIGUOUS: u32 = 128;

/// st_recipe.code: an unsigned integer.
pub const ST_CODE_UNSIGNED: u32 = 1;
/// A signed byte.
pub const ST_CODE_SIGNED: u32 = 2;
/// E2M1.
pub const ST_CODE_FP4: u32 = 3;
/// E2M3.
pub const ST_CODE_FP6: u32 = 4;
/// E4M3.
pub const ST_CODE_E4M3: u32 = 5;
/// E5M2.
pub const ST_CODE_E5M2: u32 = 6;
/// An index into the member "map".
pub const ST_CODE_MAP: u32 = 7;

/// st_recipe.packing: one code a byte.
pub const ST_PACKING_BYTES: u32 = 1;
/// A stream of bits along in, the least significant first.
pub const ST_PACKING_STREAM: u32 = 2;
/// Two codes a byte along in, the high one first.
pub const ST_PACKING_HIGH_NIBBLES: u32 = 3;
/// As many codes as fit in each word of 32 bits, along in.
pub const ST_PACKING_PADDED_WORDS: u32 = 4;
/// A stream down dimension 0 of what is stored [in, out].
pub const ST_PACKING_COLUMNS: u32 = 5;
/// Words of eight columns in AWQ's order, of what is stored [in, out].
pub const ST_PACKING_AWQ_COLUMNS: u32 = 6;
/// Two codes a byte over the whole matrix, the high one first.
pub const ST_PACKING_FLAT_NIBBLES: u32 = 7;

/// st_recipe.scale_type: F32.
pub const ST_SCALE_F32: u32 = 1;
/// F16.
pub const ST_SCALE_F16: u32 = 2;
/// BF16.
pub const ST_SCALE_BF16: u32 = 3;
/// Powers of two, as F8_E8M0 or U8.
pub const ST_SCALE_E8M0: u32 = 4;
/// F8_E4M3.
pub const ST_SCALE_E4M3: u32 = 5;
/// Bytes that index the member "nested_map", with scales of their own.
pub const ST_SCALE_NESTED: u32 = 6;

/// st_recipe.scale_layout: one scale for all.
pub const ST_SCALES_TENSOR: u32 = 1;
/// One a row.
pub const ST_SCALES_ROWS: u32 = 2;
/// One a group along in: [out, G].
pub const ST_SCALES_GROUPS: u32 = 3;
/// One a group along in: [G, out].
pub const ST_SCALES_GROUPS_TRANSPOSED: u32 = 4;
/// One a block of rows and columns.
pub const ST_SCALES_GRID: u32 = 5;
/// One a group along in, in tiles of 128 rows and 4 groups.
pub const ST_SCALES_SWIZZLED: u32 = 6;
/// One for a run of elements in C order.
pub const ST_SCALES_FLAT: u32 = 7;

/// st_recipe.zero: nothing is subtracted from a code.
pub const ST_ZERO_NONE: u32 = 0;
/// 2^(bits - 1).
pub const ST_ZERO_MIDDLE: u32 = 1;
/// A signed byte for each scale.
pub const ST_ZERO_SIGNED: u32 = 2;
/// A stream down out of what is stored [out, G].
pub const ST_ZERO_ROWS: u32 = 3;
/// The same, as many as fit in each word.
pub const ST_ZERO_PADDED_ROWS: u32 = 4;
/// A stream along out of what is stored [G, out].
pub const ST_ZERO_COLUMNS: u32 = 5;
/// The same, and stored one less, modulo 2^bits.
pub const ST_ZERO_COLUMNS_LESS_ONE: u32 = 6;
/// [G, out] in AWQ's order.
pub const ST_ZERO_AWQ_COLUMNS: u32 = 7;
/// A stream along G of what is stored [out, G].
pub const ST_ZERO_GROUPS: u32 = 8;
/// Nothing is subtracted; the member "offsets" is added to code times scale.
pub const ST_ZERO_OFFSET: u32 = 9;

/// st_recipe.global: no last factor.
pub const ST_GLOBAL_NONE: u32 = 0;
/// Times the member "global".
pub const ST_GLOBAL_MULTIPLY: u32 = 1;
/// Divided by the member "global".
pub const ST_GLOBAL_DIVIDE: u32 = 2;
/// Times 1/127 as F32.
pub const ST_GLOBAL_OVER_127: u32 = 3;

/// st_recipe.order: columns are in groups one after the other.
pub const ST_ORDER_OF_GROUPS_SEQUENTIAL: u32 = 0;
/// The member "order" says each column's group.
pub const ST_ORDER_OF_GROUPS_INDEX: u32 = 1;

/// What you know about a module that the files leave open. A record that you
/// fill.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct st_group_override {
    /// NUL-terminated: a module's name, or the beginning of names up to a dot; "": all.
    /// The longest that fits counts.
    pub module: *const c_char,
    /// NUL-terminated: a layout, as "gptq-v2", or a kind, as "gptq"; NULL: not said.
    pub layout: *const c_char,
    /// Bits of a code; 0: not said.
    pub bits: u32,
    /// Elements that share a scale along in (and along out, for blocks of FP8); 0: not said.
    pub group_size: u64,
    /// Zero.
    pub reserved: [u64; 2],
}

/// How groups are looked for. Begin with ST_GROUPS_OPTIONS_INIT; zero in any
/// field is the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct st_groups_options {
    /// sizeof(st_groups_options), as set by ST_GROUPS_OPTIONS_INIT.
    pub struct_size: usize,
    /// The text of the model's config.json, 16 MiB at most. Borrowed for the call.
    /// data NULL: config.json beside the checkpoint, if there is one.
    pub config: st_text,
    /// Not 0: no configuration counts, only what shapes and markers say.
    pub ignore_config: i32,
    /// Counts instead of what the configuration says about these modules.
    /// Borrowed for the call.
    pub overrides: *const st_group_override,
    /// How many overrides.
    pub override_count: usize,
}

// SAFETY: it begins with struct_size, and consists of numbers and pointers.
unsafe impl CallerStruct for st_groups_options {
    const NAME: &'static str = "st_groups_options";
}

/// Finds the groups of a checkpoint: weights that are stored as codes, scales
/// and zero points, in the layouts that docs/groups.md lists.
///
/// A group that is broken, or that can be read in several ways, is listed with
/// its problem and never decoded. Of the data only small members and indices are
/// read, and zero points where nothing else tells two layouts apart.
///
/// checkpoint: stays open until st_groups_free, whoever calls st_free.
/// options: borrowed for the call; NULL: all defaults.
///
/// Returns groups that the caller owns: release them with st_groups_free; or NULL:
/// ST_ERROR_CONFIG (a configuration that can't be read), ST_ERROR_IO,
/// ST_ERROR_INVALID_ARGUMENT, ST_ERROR_OUT_OF_MEMORY. Since 0.2.
#[no_mangle]
pub unsafe extern "C" fn st_groups_open(
    checkpoint: *const st_checkpoint,
    options: *const st_groups_options,
    error: *mut st_error,
) -> *mut st_groups {
    let open = || {
        // SAFETY: arguments are as the header's rules say; a live handle is an Arc's pointer.
        unsafe {
            let given = read_options(options)?;
            required(checkpoint, "checkpoint")?;
            Arc::increment_strong_count(checkpoint);
            let checkpoint = Arc::from_raw(checkpoint);
            let mut found = GroupsOptions::default();
            let overrides = given.map_or(Ok(Vec::new()), |given| overrides(&given))?;
            found.overrides = &overrides;
            if let Some(given) = given {
                found.ignore_config = given.ignore_config != 0;
                if !given.config.data.is_null() {
                    found.config = Some(text_bytes(&given.config, "config")?);
                }
            }
            let groups = Groups::open(&checkpoint.0, &found)?;
            let listing = Listing::new(&checkpoint.0, groups)?;
            Ok(Box::into_raw(Box::new(st_groups { listing, checkpoint })))
        }
    };
    // SAFETY: as above.
    unsafe { guard(error, |_| ptr::null_mut(), open) }
}

/// # Safety
/// The options' pointers are as the header's rules say.
unsafe fn overrides(given: &st_groups_options) -> Result<Vec<Override>> {
    // SAFETY: the caller's promise.
    let given = unsafe { array_at(given.overrides, given.override_count, "overrides")? };
    let mut all = Vec::new();
    for (number, over) in given.iter().enumerate() {
        // SAFETY: as above.
        let (module, layout) = unsafe {
            let module = required_text(over.module, &format!("overrides[{number}].module"))?;
            (module, (!over.layout.is_null()).then(|| CStr::from_ptr(over.layout).to_bytes()))
        };
        let text = |bytes| utf8(bytes, || format!("overrides[{number}].layout")).map(str::to_owned);
        if u32::try_from(over.group_size).is_err() {
            let text = format!("overrides[{number}].group_size is {}; expected less than 2^32", over.group_size);
            return Err(Error::new(ErrorKind::InvalidArgument, text));
        }
        all.push(Override {
            module: module.to_vec(),
            layout: layout.map(text).transpose()?,
            bits: (over.bits != 0).then_some(u64::from(over.bits)),
            group_size: (over.group_size != 0).then_some(over.group_size),
        });
    }
    Ok(all)
}

/// All groups, in the byte order of their names.
///
/// count: receives how many; may be NULL.
///
/// Returns an array owned by the groups, valid until st_groups_free; NULL (and
/// count 0) only for NULL. Since 0.2.
#[no_mangle]
pub unsafe extern "C" fn st_groups_list(groups: *const st_groups, count: *mut usize) -> *const st_group {
    // SAFETY: arguments are as the header's rules say.
    let records = unsafe { groups.as_ref() }.map(|groups| groups.listing.records());
    // SAFETY: as above.
    unsafe { counted(records, count) }
}

/// The group of a logical name.
///
/// name: NUL-terminated, borrowed for the call.
///
/// Returns a record owned by the groups, valid until st_groups_free; NULL if no
/// group has this name. Since 0.2.
#[no_mangle]
pub unsafe extern "C" fn st_find_group(groups: *const st_groups, name: *const c_char) -> *const st_group {
    if name.is_null() {
        return ptr::null();
    }
    // SAFETY: arguments are as the header's rules say.
    let found = unsafe { groups.as_ref().and_then(|groups| groups.listing.find(CStr::from_ptr(name).to_bytes())) };
    found.map_or(ptr::null(), ptr::from_ref)
}

/// The tensors that belong to no group, by shard and offset.
///
/// count: receives how many; may be NULL.
///
/// Returns an array owned by the groups, valid until st_groups_free, of records
/// owned by the checkpoint; NULL (and count 0) only for NULL. Since 0.2.
#[no_mangle]
pub unsafe extern "C" fn st_groups_plain(groups: *const st_groups, count: *mut usize) -> *const *const st_tensor {
    // SAFETY: arguments are as the header's rules say.
    let plain = unsafe { groups.as_ref() }.map(|groups| groups.listing.plain());
    // SAFETY: as above.
    unsafe { counted(plain, count) }
}

/// # Safety
/// `count` is null or writable.
unsafe fn counted<T>(items: Option<&[T]>, count: *mut usize) -> *const T {
    if !count.is_null() {
        // SAFETY: the caller's promise.
        unsafe { count.write(items.map_or(0, <[T]>::len)) };
    }
    items.map_or(ptr::null(), <[T]>::as_ptr)
}

/// Which box of each member a slice of a group needs, as parts for st_load: for
/// engines with kernels of their own. Does no I/O.
///
/// group: one of these groups' records or a copy of one. ranges: range_count of
/// them, of the logical shape, as for st_read_slice; each begins and ends on a
/// multiple of its dimension's step, or at the end, and its own step is 1. Both
/// are borrowed for the call. parts: receives a part for each member that decoding needs.
/// count: holds the room at parts, and receives how many parts there are; with
/// ST_ERROR_BUFFER_SIZE too. What parts point to is owned by the groups, valid
/// until st_groups_free.
///
/// Returns ST_OK, ST_ERROR_BUFFER_SIZE, ST_ERROR_INVALID_ARGUMENT (the message names
/// dimension and step), ST_ERROR_OUT_OF_MEMORY, or the group's status. Since 0.2.
#[no_mangle]
pub unsafe extern "C" fn st_group_parts(
    groups: *const st_groups,
    group: *const st_group,
    ranges: *const st_range,
    range_count: usize,
    parts: *mut st_part,
    count: *mut usize,
    error: *mut st_error,
) -> st_status {
    let find = || {
        // SAFETY: arguments are as the header's rules say.
        unsafe {
            let groups = required(groups, "groups")?;
            let group = required(group, "group")?;
            let room = *required(count, "count")?;
            let number = groups.listing.number(group)?;
            let found = groups.listing.parts(&groups.checkpoint.0, number, all_ranges(ranges, range_count)?)?;
            count.write(found.len());
            if found.len() > room {
                let text = format!("{} parts do not fit where there is room for {room}", found.len());
                return Err(Error::new(ErrorKind::BufferSize, text));
            }
            if parts.is_null() && !found.is_empty() {
                return Err(null("parts"));
            }
            for (number, part) in found.into_iter().enumerate() {
                parts.add(number).write(part);
            }
        }
        Ok(ST_OK)
    };
    // SAFETY: as above.
    unsafe { guard(error, |kind| kind as st_status, find) }
}

/// Releases groups, with all of their records. NULL is fine. Since 0.2.
#[no_mangle]
pub unsafe extern "C" fn st_groups_free(groups: *mut st_groups) {
    if !groups.is_null() {
        let release = || {
            // SAFETY: made by st_groups_open, and released once by the header's rules.
            drop(unsafe { Box::from_raw(groups) });
            Ok(())
        };
        // SAFETY: no error is asked for.
        unsafe { guard(ptr::null_mut(), |_| (), release) };
    }
}
