// SPDX-License-Identifier: Apache-2.0
//! Element types.

/// An element type, one of ST_DTYPE_*. The numbers never change.
pub type st_dtype = i32;

/// Where a dtype may be chosen: the one that the file has.
pub const ST_DTYPE_AS_STORED: st_dtype = 0;
/// One byte, 0 or 1.
pub const ST_DTYPE_BOOL: st_dtype = 1;
/// 4-bit float E2M1, two elements a byte, low bits first (OCP Microscaling Formats 1.0).
pub const ST_DTYPE_F4: st_dtype = 2;
/// 6-bit float, 2 exponent bits, packed from the low bits up (OCP Microscaling Formats 1.0).
pub const ST_DTYPE_F6_E2M3: st_dtype = 3;
/// 6-bit float, 3 exponent bits, packed from the low bits up (OCP Microscaling Formats 1.0).
pub const ST_DTYPE_F6_E3M2: st_dtype = 4;
/// Unsigned byte.
pub const ST_DTYPE_U8: st_dtype = 5;
/// Signed byte.
pub const ST_DTYPE_I8: st_dtype = 6;
/// 8-bit float with infinities.
pub const ST_DTYPE_F8_E5M2: st_dtype = 7;
/// 8-bit float of the "fn" kind: no infinity, NaN is S.1111.111.
pub const ST_DTYPE_F8_E4M3: st_dtype = 8;
/// A power of two, 2^(b - 127); NaN is 0xFF (OCP Microscaling Formats 1.0).
pub const ST_DTYPE_F8_E8M0: st_dtype = 9;
/// 8-bit float with one zero, NaN is 0x80 (ONNX).
pub const ST_DTYPE_F8_E4M3FNUZ: st_dtype = 10;
/// 8-bit float with one zero, NaN is 0x80 (ONNX).
pub const ST_DTYPE_F8_E5M2FNUZ: st_dtype = 11;
/// Signed 16-bit integer.
pub const ST_DTYPE_I16: st_dtype = 12;
/// Unsigned 16-bit integer.
pub const ST_DTYPE_U16: st_dtype = 13;
/// IEEE 754 half precision.
pub const ST_DTYPE_F16: st_dtype = 14;
/// The upper half of an F32.
pub const ST_DTYPE_BF16: st_dtype = 15;
/// Signed 32-bit integer.
pub const ST_DTYPE_I32: st_dtype = 16;
/// Unsigned 32-bit integer.
pub const ST_DTYPE_U32: st_dtype = 17;
/// IEEE 754 single precision.
pub const ST_DTYPE_F32: st_dtype = 18;
/// Complex number of two F32: real, imaginary.
pub const ST_DTYPE_C64: st_dtype = 19;
/// IEEE 754 double precision.
pub const ST_DTYPE_F64: st_dtype = 20;
/// Signed 64-bit integer.
pub const ST_DTYPE_I64: st_dtype = 21;
/// Unsigned 64-bit integer.
pub const ST_DTYPE_U64: st_dtype = 22;
/// A dtype this version does not know, kept as opaque bytes on request (ST_TOLERATE_UNKNOWN_DTYPE).
pub const ST_DTYPE_UNKNOWN: st_dtype = 255;
