// SPDX-License-Identifier: Apache-2.0
//! The conversions themselves, one element at a time and free of branches, so
//! that the compiler makes SIMD of them wherever they are inlined: plain here,
//! AVX2 and AVX-512 in `x86`. What these say is what every path must say.
//!
//! F32 is the middle: each source either fits it exactly, or comes to it
//! rounded to odd, which keeps a later rounding to 8 or 11 bits a single one.
//!
//! All but the wide sources is integer arithmetic, or float arithmetic that
//! neither meets nor makes a subnormal: programs that flush subnormals to zero
//! get the same results.
#![deny(unsafe_code)]
#![allow(clippy::arithmetic_side_effects, reason = "bit fields; a wrap that can happen is written wrapping")]
#![allow(clippy::cast_possible_truncation, reason = "keeping the low bits is what the casts are for")]

use super::small::{SmallCodes, ABS, F16, INFINITY};

/// One pass over a block of elements.
#[derive(Clone, Copy)]
pub(super) enum Step {
    /// Codes of F4, two a byte, to one a byte.
    Unpack4,
    /// Codes of F6, four in three bytes, to one a byte.
    Unpack6,
    /// From codes one a byte.
    SmallToF32(&'static SmallCodes),
    SmallToBf16(&'static SmallCodes),
    E8M0ToF32,
    BoolToF32,
    U8ToF32,
    I8ToF32,
    Bf16ToF32,
    F16ToF32,
    F32ToBf16,
    F32ToF16,
    F32ToF8(&'static SmallCodes),
    I16ToF32,
    U16ToF32,
    I32ToF32,
    U32ToF32,
    I64ToF32,
    U64ToF32,
    F64ToF32,
    I32ToOdd,
    U32ToOdd,
    I64ToOdd,
    U64ToOdd,
    F64ToOdd,
}

/// Runs `step` over as many elements, or groups of packed ones, as both slices hold, with what the target always has.
#[inline(never)]
pub(super) fn run(step: Step, src: &[u8], dst: &mut [u8]) {
    run_here(step, src, dst);
}

/// The same with the instructions that the caller may use.
#[inline(always)]
pub(super) fn run_here(step: Step, src: &[u8], dst: &mut [u8]) {
    match step {
        Step::Unpack4 => map(src, dst, unpack4),
        Step::Unpack6 => map(src, dst, unpack6),
        Step::SmallToF32(codes) => {
            let kind = codes.small;
            map(src, dst, move |[code]| kind.value(code).to_le_bytes());
        }
        Step::SmallToBf16(codes) => {
            let kind = codes.small;
            map(src, dst, move |[code]| ((kind.value(code) >> 16) as u16).to_le_bytes());
        }
        Step::F32ToF8(codes) => {
            let kind = codes.small;
            map(src, dst, move |bytes| [kind.code(u32::from_le_bytes(bytes))]);
        }
        Step::E8M0ToF32 => map(src, dst, e8m0_to_f32),
        Step::BoolToF32 => map(src, dst, bool_to_f32),
        Step::U8ToF32 => map(src, dst, u8_to_f32),
        Step::I8ToF32 => map(src, dst, i8_to_f32),
        Step::Bf16ToF32 => map(src, dst, bf16_to_f32),
        Step::F16ToF32 => map(src, dst, f16_to_f32),
        Step::F32ToBf16 => map(src, dst, f32_to_bf16),
        Step::F32ToF16 => map(src, dst, f32_to_f16),
        Step::I16ToF32 => map(src, dst, i16_to_f32),
        Step::U16ToF32 => map(src, dst, u16_to_f32),
        Step::I32ToF32 => map(src, dst, i32_to_f32),
        Step::U32ToF32 => map(src, dst, u32_to_f32),
        Step::I64ToF32 => map(src, dst, i64_to_f32),
        Step::U64ToF32 => map(src, dst, u64_to_f32),
        Step::F64ToF32 => map(src, dst, f64_to_f32),
        Step::I32ToOdd => map(src, dst, i32_to_odd),
        Step::U32ToOdd => map(src, dst, u32_to_odd),
        Step::I64ToOdd => map(src, dst, i64_to_odd),
        Step::U64ToOdd => map(src, dst, u64_to_odd),
        Step::F64ToOdd => map(src, dst, f64_to_odd),
    }
}

// Functions and not closures, as only they can be marked to be inlined: what is left
// out of line is compiled without SIMD (seen to cost seven times the time).

#[inline(always)]
fn unpack4([pair]: [u8; 1]) -> [u8; 2] {
    [pair & 0xf, pair >> 4]
}

#[inline(always)]
fn unpack6([a, b, c]: [u8; 3]) -> [u8; 4] {
    [a & 0x3f, (a >> 6 | b << 2) & 0x3f, (b >> 4 | c << 4) & 0x3f, c >> 2]
}

/// Powers of two; the least is an F32's subnormal.
#[inline(always)]
fn e8m0_to_f32([code]: [u8; 1]) -> [u8; 4] {
    let quiet = if code == 0xff { 1 << 22 } else { 0 };
    ((u32::from(code) << 23).max(1 << 22) | quiet).to_le_bytes()
}

#[inline(always)]
fn bool_to_f32([code]: [u8; 1]) -> [u8; 4] {
    (if code == 0 { 0_f32 } else { 1_f32 }).to_le_bytes()
}

#[inline(always)]
fn u8_to_f32([code]: [u8; 1]) -> [u8; 4] {
    f32::from(code).to_le_bytes()
}

#[inline(always)]
fn i8_to_f32(code: [u8; 1]) -> [u8; 4] {
    f32::from(i8::from_le_bytes(code)).to_le_bytes()
}

#[inline(always)]
fn bf16_to_f32(bytes: [u8; 2]) -> [u8; 4] {
    widen(u16::from_le_bytes(bytes)).to_le_bytes()
}

#[inline(always)]
fn f16_to_f32(bytes: [u8; 2]) -> [u8; 4] {
    from_f16(u16::from_le_bytes(bytes)).to_le_bytes()
}

#[inline(always)]
fn f32_to_bf16(bytes: [u8; 4]) -> [u8; 2] {
    to_bf16(u32::from_le_bytes(bytes)).to_le_bytes()
}

#[inline(always)]
fn f32_to_f16(bytes: [u8; 4]) -> [u8; 2] {
    to_f16(u32::from_le_bytes(bytes)).to_le_bytes()
}

#[inline(always)]
fn i16_to_f32(bytes: [u8; 2]) -> [u8; 4] {
    f32::from(i16::from_le_bytes(bytes)).to_le_bytes()
}

#[inline(always)]
fn u16_to_f32(bytes: [u8; 2]) -> [u8; 4] {
    f32::from(u16::from_le_bytes(bytes)).to_le_bytes()
}

#[inline(always)]
fn i32_to_f32(bytes: [u8; 4]) -> [u8; 4] {
    (i32::from_le_bytes(bytes) as f32).to_le_bytes()
}

#[inline(always)]
fn u32_to_f32(bytes: [u8; 4]) -> [u8; 4] {
    (u32::from_le_bytes(bytes) as f32).to_le_bytes()
}

#[inline(always)]
fn i64_to_f32(bytes: [u8; 8]) -> [u8; 4] {
    (i64::from_le_bytes(bytes) as f32).to_le_bytes()
}

#[inline(always)]
fn u64_to_f32(bytes: [u8; 8]) -> [u8; 4] {
    (u64::from_le_bytes(bytes) as f32).to_le_bytes()
}

#[inline(always)]
fn f64_to_f32(bytes: [u8; 8]) -> [u8; 4] {
    (f64::from_le_bytes(bytes) as f32).to_le_bytes()
}

#[inline(always)]
fn i32_to_odd(bytes: [u8; 4]) -> [u8; 4] {
    let value = i32::from_le_bytes(bytes);
    let merged = (value & !0xff) | (i32::from(value & 0xff != 0) << 8);
    let exact = value.wrapping_add(1 << 24) as u32 <= 1 << 25;
    ((if exact { value } else { merged }) as f32).to_le_bytes()
}

#[inline(always)]
fn u32_to_odd(bytes: [u8; 4]) -> [u8; 4] {
    let value = u32::from_le_bytes(bytes);
    let merged = (value & !0xff) | (u32::from(value & 0xff != 0) << 8);
    ((if value <= 1 << 24 { value } else { merged }) as f32).to_le_bytes()
}

#[inline(always)]
fn i64_to_odd(bytes: [u8; 8]) -> [u8; 4] {
    let value = i64::from_le_bytes(bytes);
    let exact = value.wrapping_add(1 << 40) as u64 <= 1 << 41;
    let bits = value as u64;
    // The upper half's sign becomes an offset of 2^31.
    wide_to_odd(if exact { bits } else { sticky(bits) } ^ 1 << 63, TWO_TO_84 + TWO_TO_63)
}

#[inline(always)]
fn u64_to_odd(bytes: [u8; 8]) -> [u8; 4] {
    let value = u64::from_le_bytes(bytes);
    wide_to_odd(if value <= 1 << 40 { value } else { sticky(value) }, TWO_TO_84)
}

#[inline(always)]
fn f64_to_odd(bytes: [u8; 8]) -> [u8; 4] {
    odd(f64::from_le_bytes(bytes)).to_le_bytes()
}

/// A loop over indices: iterators depend on the inliner's mood for their SIMD
/// (`zip` left out of line was seen to cost five times the time).
#[inline(always)]
#[allow(unsafe_code, reason = "the one place where elements are read and written")]
fn map<const S: usize, const D: usize>(src: &[u8], dst: &mut [u8], f: impl Fn([u8; S]) -> [u8; D]) {
    let elements = (src.len() / S).min(dst.len() / D);
    let (from, to) = (src.as_ptr().cast::<[u8; S]>(), dst.as_mut_ptr().cast::<[u8; D]>());
    for at in 0..elements {
        // SAFETY: the slices hold `elements` of S and of D bytes, which need no
        // alignment, and as the borrows they are they do not overlap.
        unsafe { to.add(at).write(f(from.add(at).read())) };
    }
}

#[inline(always)]
fn widen(bf16: u16) -> u32 {
    u32::from(bf16) << 16
}

/// A NaN becomes quiet and keeps its upper bits, as F16C has it.
#[inline(always)]
fn from_f16(half: u16) -> u32 {
    const REBIAS: u32 = (127 - 15) << 23;
    let sign = (u32::from(half) & 0x8000) << 16;
    let shifted = (u32::from(half) & 0x7fff) << 13;
    let normal = shifted + REBIAS;
    let subnormal = (f32::from_bits(shifted + REBIAS + (1 << 23)) - f32::from_bits(REBIAS + (1 << 23))).to_bits();
    let finite = if shifted < 1 << 23 { subnormal } else { normal };
    let special = normal + REBIAS;
    let quiet = if special > INFINITY { 1 << 22 } else { 0 };
    sign | if shifted >= 0x1f << 23 { special | quiet } else { finite }
}

/// NaN is the quiet one with its sign, as ml_dtypes has it.
#[inline(always)]
pub(crate) fn to_bf16(bits: u32) -> u16 {
    // Adding to an infinity's bits leaves it one: its lower half is zero.
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let nan = ((bits >> 16) & 0x8000) | 0x7fc0;
    (if bits & ABS > INFINITY { nan } else { rounded }) as u16
}

/// A NaN becomes quiet and keeps its upper bits, as F16C has it.
#[inline(always)]
pub(crate) const fn to_f16(bits: u32) -> u16 {
    let abs = bits & ABS;
    let nan = 0x7e00 | ((abs >> 13) & 0x3ff);
    let code = if abs > INFINITY { nan } else { F16.magnitude(abs) };
    (((bits >> 16) & 0x8000) | code) as u16
}

/// The bits of `value` as an F32, cut and with the last bit set if anything was
/// cut. Rounding that to nearest gives what rounding `value` would.
#[inline(always)]
fn odd(value: f64) -> u32 {
    let nearest = value as f32;
    let back = f64::from(nearest);
    let beyond = (back.abs() > value.abs()) as u32;
    let inexact = (back != value) as u32;
    // A NaN is inexact too, and stays one.
    nearest.to_bits().wrapping_sub(beyond) | inexact
}

const TWO_TO_84: f64 = f64::from_bits(0x4530_0000_0000_0000);
const TWO_TO_63: f64 = f64::from_bits(0x43e0_0000_0000_0000);
const TWO_TO_52: f64 = f64::from_bits(0x4330_0000_0000_0000);

/// The low 16 bits merged into one above: F64 holds that, and rounds it to 16 bits as `value`.
#[inline(always)]
fn sticky(value: u64) -> u64 {
    (value & !0xffff) | (u64::from(value & 0xffff != 0) << 16)
}

/// `odd` of `value` less `offset` - 2^84, an integer that F64 holds. AVX2 has no
/// instruction for 64-bit integers, but each half has its place in a float.
#[inline(always)]
fn wide_to_odd(value: u64, offset: f64) -> [u8; 4] {
    let low = f64::from_bits(TWO_TO_52.to_bits() | (value & 0xffff_ffff)) - TWO_TO_52;
    let high = f64::from_bits(TWO_TO_84.to_bits() | (value >> 32)) - offset;
    let bits = (high + low).to_bits();
    // The 29 bits that F32 does not have, merged into the last that it has.
    let cut = (bits & !0x1fff_ffff) | (u64::from(bits & 0x1fff_ffff != 0) << 29);
    (f64::from_bits(cut) as f32).to_le_bytes()
}
