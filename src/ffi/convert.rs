// SPDX-License-Identifier: Apache-2.0
//! Conversion of elements.

use std::ffi::c_void;
use std::slice;

use super::arguments::{no_such, null};
use super::boundary::guard;
use super::dtype::st_dtype;
use super::status::{st_error, st_status, ST_OK};
use crate::convert;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};

/// Converts elements from one dtype to another.
///
/// From F64, F32, F16, BF16, every F8, F6 and F4, BOOL and the integers to F32,
/// F16 and BF16; from F32 also to F8_E4M3, F8_E5M2 and their FNUZ kinds; and
/// from every dtype to itself, which copies.
///
/// Each value is rounded once, to nearest even. Overflow is infinity where the
/// target has one, else NaN: nothing saturates. NaN stays NaN, and it and zero
/// keep their sign, but for the FNUZ kinds, which have one of each. A BOOL is 1
/// unless its byte is 0. The floating-point environment has to round to
/// nearest; flushing subnormals to zero matters to F64 sources only.
///
/// src: element_count elements, borrowed for the call; F4 and F6 are packed from
/// the low bits up and have to fill whole bytes. dst: receives as many. The two
/// must not overlap, need no alignment, and may be NULL where element_count is
/// 0.
///
/// Returns ST_OK, ST_ERROR_INVALID_ARGUMENT, ST_ERROR_SUB_BYTE, or
/// ST_ERROR_UNSUPPORTED for other pairs of dtypes. Since 0.1.
#[no_mangle]
pub unsafe extern "C" fn st_convert(
    from: st_dtype,
    src: *const c_void,
    to: st_dtype,
    dst: *mut c_void,
    element_count: usize,
    error: *mut st_error,
) -> st_status {
    let convert = || {
        let (from, to) = (dtype(from, "from")?, dtype(to, "to")?);
        if !convert::supported(from, to) {
            return Err(convert::unsupported(from, to));
        }
        let (src_size, dst_size) = (byte_size(from, element_count)?, byte_size(to, element_count)?);
        if element_count == 0 {
            return Ok(());
        }
        if src.is_null() {
            return Err(null("src"));
        }
        if dst.is_null() {
            return Err(null("dst"));
        }
        check_apart(src.addr(), src_size, dst.addr(), dst_size)?;
        // SAFETY: not null; by the header's rules each has the bytes of that many
        // elements, for this call; and they were just found not to overlap.
        let (src, dst) = unsafe {
            (slice::from_raw_parts(src.cast::<u8>(), src_size), slice::from_raw_parts_mut(dst.cast::<u8>(), dst_size))
        };
        convert::convert(from, src, to, dst)
    };
    // SAFETY: arguments are as the header's rules say.
    unsafe { guard(error, |kind| kind as st_status, || convert().map(|()| ST_OK)) }
}

fn dtype(number: st_dtype, what: &str) -> Result<Dtype> {
    Dtype::from_number(number).ok_or_else(|| no_such(what, number, "an ST_DTYPE_ constant"))
}

fn byte_size(dtype: Dtype, elements: usize) -> Result<usize> {
    let bits = usize::try_from(dtype.bits()).unwrap_or_default();
    // Within the last byte the count by itself decides; in eights, its bits can't overflow.
    if (elements % 8).saturating_mul(bits) % 8 != 0 {
        let text = format!("{elements} elements of {} do not fill whole bytes", dtype.name());
        return Err(Error::new(ErrorKind::SubByte, text));
    }
    convert::byte_size(dtype, elements)
        .filter(|size| *size <= isize::MAX.unsigned_abs())
        .ok_or_else(|| Error::beyond_memory(&format_args!("the size of {elements} elements of {}", dtype.name())))
}

fn check_apart(src: usize, src_size: usize, dst: usize, dst_size: usize) -> Result<()> {
    let apart = match (src.checked_add(src_size), dst.checked_add(dst_size)) {
        (Some(src_end), Some(dst_end)) => src_end <= dst || dst_end <= src,
        _ => return Err(invalid("a buffer goes past the end of memory".to_owned())),
    };
    if apart {
        return Ok(());
    }
    Err(invalid(format!("src and dst overlap: {src_size} bytes at {src:#x}, {dst_size} at {dst:#x}")))
}

fn invalid(text: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, text)
}
