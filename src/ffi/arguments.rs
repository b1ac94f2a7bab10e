// SPDX-License-Identifier: Apache-2.0
//! What callers hand over, checked and converted: pointers, texts, arrays,
//! memory. What several exports share is here, so that none borrows from another.

use std::ffi::{c_char, c_void, CStr};
use std::slice;

use crate::base::memory;
use crate::error::{Error, ErrorKind, Result};
use crate::record::st_range;
use crate::record::st_tensor;
use crate::Checkpoint;

/// One opened set of named tensors. Opaque; made by the st_open functions.
#[cfg_attr(feature = "safer-ffi", safer_ffi::derive_ReprC, repr(opaque))]
pub struct st_checkpoint(pub(super) Checkpoint);

/// A block of memory.
#[cfg_attr(feature = "safer-ffi", safer_ffi::derive_ReprC)]
#[repr(C)]
#[derive(Clone, Copy)]
pub struct st_buffer {
    /// Its first byte.
    pub data: *mut c_void,
    /// Its bytes.
    pub size: usize,
}

/// What a pointer that must not be NULL points to.
///
/// # Safety
/// `pointer` is null or points to a valid value that outlives `'a`.
pub(super) unsafe fn required<'a, T>(pointer: *const T, what: &str) -> Result<&'a T> {
    // SAFETY: the caller's promise.
    unsafe { pointer.as_ref() }.ok_or_else(|| null(what))
}

/// The bytes of a C string that must not be NULL.
///
/// # Safety
/// `text` is null or NUL-terminated and outlives `'a`.
pub(super) unsafe fn required_text<'a>(text: *const c_char, what: &str) -> Result<&'a [u8]> {
    if text.is_null() {
        return Err(null(what));
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { CStr::from_ptr(text) }.to_bytes())
}

pub(super) fn null(what: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("{what} is NULL"))
}

/// Text given with its length; `None` for NULL with a length, or an absurd one.
///
/// # Safety
/// `text` is null or points to `len` bytes that outlive `'a`.
pub(super) unsafe fn text_n<'a>(text: *const c_char, len: usize) -> Option<&'a [u8]> {
    if len == 0 {
        return Some(&[]);
    }
    if text.is_null() || len > isize::MAX.unsigned_abs() {
        return None;
    }
    // SAFETY: the caller's promise.
    Some(unsafe { slice::from_raw_parts(text.cast(), len) })
}

/// Text with its length, or up to its NUL where that is 0.
///
/// # Safety
/// `text` is null or points to `len` bytes, or to a NUL-terminated text where
/// that is 0, which outlive `'a`.
pub(super) unsafe fn given_text<'a>(text: *const c_char, len: usize, what: impl Fn() -> String) -> Result<&'a str> {
    // SAFETY: the caller's promise.
    utf8(unsafe { given_bytes(text, len, &what)? }, what)
}

/// # Safety
/// As for [`given_text`].
pub(super) unsafe fn given_bytes<'a>(text: *const c_char, len: usize, what: &impl Fn() -> String) -> Result<&'a [u8]> {
    match len {
        _ if text.is_null() => Err(null(&what())),
        // SAFETY: the caller's promise.
        0 => Ok(unsafe { CStr::from_ptr(text) }.to_bytes()),
        // SAFETY: as above.
        _ => unsafe { memory_at(text.cast(), len, "text") },
    }
}

pub(super) fn utf8(bytes: &[u8], what: impl Fn() -> String) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|error| {
        let text = format!("{} is not UTF-8 from its byte {} on", what(), error.valid_up_to());
        Error::new(ErrorKind::InvalidArgument, text)
    })
}

/// # Safety
/// `items` is null or points to `count` items that outlive `'a`.
pub(super) unsafe fn array_at<'a, T>(items: *const T, count: usize, what: &str) -> Result<&'a [T]> {
    if count == 0 {
        return Ok(&[]);
    }
    if items.is_null() {
        return Err(null(what));
    }
    if count > most::<T>() {
        return Err(Error::beyond_memory(&format_args!("{what}: the size {count}")));
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { slice::from_raw_parts(items, count) })
}

/// A record that the caller made, with a shape that can be there.
pub(super) fn check_shape(tensor: &st_tensor) -> Result<()> {
    if tensor.rank != 0 && tensor.shape.is_null() {
        return Err(null("tensor->shape"));
    }
    match tensor.rank > most::<i64>() {
        true => Err(Error::beyond_memory(&format_args!("tensor->rank: the size {}", tensor.rank))),
        false => Ok(()),
    }
}

/// How many of them memory can hold.
pub(super) fn most<T>() -> usize {
    isize::MAX.unsigned_abs().checked_div(size_of::<T>()).unwrap_or(usize::MAX)
}

/// # Safety
/// As for [`array_at`].
pub(super) unsafe fn memory_at<'a>(data: *const c_void, size: usize, what: &str) -> Result<&'a [u8]> {
    // SAFETY: the caller's promise.
    unsafe { array_at(data.cast::<u8>(), size, what) }
}

/// The caller's ranges.
///
/// # Safety
/// `ranges` is null or points to `count` of them, which outlive `'a`.
pub(super) unsafe fn all_ranges<'a>(ranges: *const st_range, count: usize) -> Result<&'a [st_range]> {
    // SAFETY: the caller's promise.
    unsafe { array_at(ranges, count, "ranges") }
}

/// How many bytes the caller's memory has, which may not be more than memory can have.
pub(super) fn destination_size(dst: *mut c_void, size: usize, what: &str) -> Result<usize> {
    match isize::try_from(size) {
        _ if dst.is_null() => Ok(0),
        Ok(_) if dst.addr().checked_add(size).is_some() => Ok(size),
        _ => Err(Error::beyond_memory(&format_args!("{what}: the size {size}"))),
    }
}

/// The caller's memory; no bytes of it where it is NULL.
///
/// # Safety
/// `dst` is null or points to `size` bytes that are the caller's to write.
pub(super) unsafe fn destination<'a>(dst: *mut c_void, size: usize) -> Result<&'a mut [u8]> {
    let size = destination_size(dst, size, "dst_size")?;
    if dst.is_null() {
        return Ok(&mut []);
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { slice::from_raw_parts_mut(dst.cast(), size) })
}

/// The error for a number that is not one of a field's constants.
pub(super) fn no_such(field: &str, value: impl std::fmt::Display, allowed: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("{field} is {value}; expected {allowed}"))
}

/// The records that pointers lead to; `None` for NULL and 0.
///
/// # Safety
/// `tensors` is null or points to `count` pointers, each null or to a record; all outlive `'a`.
pub(super) unsafe fn records<'a>(tensors: *const *const st_tensor, count: usize) -> Result<Option<Vec<&'a st_tensor>>> {
    if tensors.is_null() && count == 0 {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    let given = unsafe { array_at(tensors, count, "tensors")? };
    let mut all = memory::vec_with_capacity(given.len(), "tensors")?;
    for (number, tensor) in given.iter().enumerate() {
        // SAFETY: as above.
        all.push(unsafe { required(*tensor, &format!("tensors[{number}]"))? });
    }
    Ok(Some(all))
}
