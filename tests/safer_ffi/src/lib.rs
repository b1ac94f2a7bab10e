// SPDX-License-Identifier: Apache-2.0
//! An engine's own C functions, exported with safer-ffi, that take the types
//! of libsafetensors as they are.
#![cfg(feature = "safer-ffi")]
#![allow(missing_docs, reason = "safer-ffi's expansion has none")]

use safer_ffi::prelude::*;
use safetensors::ffi::st_buffer;
use safetensors::ffi::st_checkpoint;
use safetensors::ffi::st_load_item;
use safetensors::ffi::{st_error, st_status};
use safetensors::record::{st_range, st_tensor};

/// Bytes of all tensors.
#[ffi_export]
pub fn engine_bytes(tensors: c_slice::Ref<'_, st_tensor>) -> u64 {
    tensors.iter().map(st_tensor::size).sum()
}

/// Loads into the destinations that the items name.
///
/// # Safety
/// The arguments are as the C header wants them.
#[ffi_export]
pub unsafe fn engine_load(
    checkpoint: *const st_checkpoint,
    items: c_slice::Ref<'_, st_load_item>,
    error: *mut st_error,
) -> st_status {
    // SAFETY: the caller's promise.
    unsafe { safetensors::ffi::st_load(checkpoint, items.as_ptr(), items.len(), std::ptr::null(), error) }
}

/// How many elements a range with positive bounds picks.
#[ffi_export]
pub fn engine_picked(range: &st_range) -> i64 {
    (range.stop - range.start + range.step - 1) / range.step
}

/// The first byte of a block; -1 where it has none.
#[ffi_export]
pub fn engine_first(block: Option<&st_buffer>) -> i32 {
    match block {
        // SAFETY: a buffer's data has as many bytes as its size says.
        Some(block) if block.size != 0 => i32::from(unsafe { *block.data.cast::<u8>() }),
        _ => -1,
    }
}
