// SPDX-License-Identifier: Apache-2.0
//! What every export does with what crosses: panics, pointers, struct sizes.

use std::mem::MaybeUninit;
use std::panic::{self, AssertUnwindSafe};
use std::slice;

use super::status::st_error;
use crate::error::{Error, ErrorKind, Result};

/// Runs an export's body. An error, also one made of a panic, is written to
/// `error`, and `failure` of it is returned.
///
/// # Safety
/// `error` is null or writable.
pub(super) unsafe fn guard<T>(
    error: *mut st_error,
    failure: impl FnOnce(ErrorKind) -> T,
    body: impl FnOnce() -> Result<T>,
) -> T {
    let result = panic::catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Err(Error::new(ErrorKind::Internal, format!("a fault of the library: {}", text.unwrap_or("panic"))))
    });
    result.unwrap_or_else(|found| {
        if !error.is_null() {
            // SAFETY: the caller's promise.
            unsafe { error.write(st_error::from(&found)) };
        }
        failure(found.kind())
    })
}

/// A struct that starts with `size_t struct_size` and for which all bits zero
/// is a valid value.
///
/// # Safety
/// Both of the above hold for the type.
pub(super) unsafe trait CallerStruct: Copy {
    const NAME: &'static str;
}

/// No struct of ours will ever be larger; a larger size is garbage.
pub(super) const LARGEST_STRUCT: usize = 4096;

/// Reads such a struct from an older, equal or newer caller.
///
/// # Safety
/// `pointer` points to as many readable bytes as its first field says.
pub(super) unsafe fn read_sized<T: CallerStruct>(pointer: *const T) -> Result<T> {
    // SAFETY: the caller's promise.
    unsafe {
        let value = read_known(pointer)?;
        check_tail(pointer)?;
        Ok(value)
    }
}

/// The fields that this version knows; what an older caller lacks is zero.
///
/// # Safety
/// As for [`read_sized`].
pub(super) unsafe fn read_known<T: CallerStruct>(pointer: *const T) -> Result<T> {
    // SAFETY: every such struct begins with its size.
    let size = unsafe { pointer.cast::<usize>().read_unaligned() };
    if size < size_of::<usize>() || size > LARGEST_STRUCT {
        let text = format!("{}.struct_size is {size}; begin with the struct's _INIT macro", T::NAME);
        return Err(Error::new(ErrorKind::InvalidArgument, text));
    }
    let known = size.min(size_of::<T>());
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: `known` bytes are readable there and fit here.
    unsafe { value.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(pointer.cast(), known) };
    // SAFETY: all zero is valid for T, and the caller's bytes are a T's.
    Ok(unsafe { value.assume_init() })
}

/// Refuses what a newer caller set after those fields.
///
/// # Safety
/// `pointer` has passed [`read_known`].
pub(super) unsafe fn check_tail<T: CallerStruct>(pointer: *const T) -> Result<()> {
    let known = size_of::<T>();
    // SAFETY: every such struct begins with its size, and has as many bytes.
    let tail = unsafe {
        let size = pointer.cast::<usize>().read_unaligned();
        slice::from_raw_parts(pointer.cast::<u8>().wrapping_add(known), size.saturating_sub(known))
    };
    if tail.iter().any(|byte| *byte != 0) {
        let text = format!("{} has fields set beyond the {known} bytes that this version knows", T::NAME);
        return Err(Error::new(ErrorKind::Unsupported, text));
    }
    Ok(())
}

/// The same for options, where NULL means all defaults.
///
/// # Safety
/// As for [`read_sized`], or null.
pub(super) unsafe fn read_options<T: CallerStruct>(pointer: *const T) -> Result<Option<T>> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    unsafe { read_sized(pointer) }.map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error() {
        let mut error = st_error { code: -1, os_errno: -1, message: [0; 504] };
        let bodies: [(fn(), &str); 3] = [
            (|| panic!("in a {}", "string"), "in a string"),
            (|| panic!("in a literal"), "in a literal"),
            (|| panic::panic_any(7), "panic"),
        ];
        for (body, said) in bodies {
            let body = || {
                body();
                Ok(0)
            };
            // SAFETY: a writable error.
            let status = unsafe { guard(&raw mut error, |kind| kind as i32, body) };
            assert_eq!(status, ErrorKind::Internal as i32);
            assert_eq!((error.code, error.text().ends_with(said)), (status, true), "{}", error.text());
        }
    }
}
