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

use super::tables::Table;

/// One pass over a block of elements.
#[derive(Clone, Copy)]
pub(super) enum Step {
    /// 8-bit codes to the 16-bit values of a table.
    Lookup16(&'static Table),
    /// 8-bit codes to F32, whose upper halves are in a table.
    Lookup32(&'static Table),
    Bf16ToF32,
    F16ToF32,
    F32ToBf16,
    F32ToF16,
    F32ToF8(Small),
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

/// Runs `step` over as many elements as both slices hold.
#[inline(always)]
pub(super) fn run(step: Step, src: &[u8], dst: &mut [u8]) {
    match step {
        Step::Lookup16(table) => map(src, dst, |[code]| look_up(table, code).to_le_bytes()),
        Step::Lookup32(table) => map(src, dst, |[code]| widen(look_up(table, code)).to_le_bytes()),
        Step::F32ToF8(kind) => map(src, dst, |bytes| [to_f8(kind, u32::from_le_bytes(bytes))]),
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

// Functions and not closures, as only they can be told to be inlined: what is
// left out of line is compiled without SIMD (seen to cost seven times the time).

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
    odd(f64::from(i32::from_le_bytes(bytes))).to_le_bytes()
}

#[inline(always)]
fn u32_to_odd(bytes: [u8; 4]) -> [u8; 4] {
    odd(f64::from(u32::from_le_bytes(bytes))).to_le_bytes()
}

#[inline(always)]
fn i64_to_odd(bytes: [u8; 8]) -> [u8; 4] {
    let value = i64::from_le_bytes(bytes);
    let sign = u32::from(value < 0) << 31;
    (odd(sticky(value.unsigned_abs()) as f64) | sign).to_le_bytes()
}

#[inline(always)]
fn u64_to_odd(bytes: [u8; 8]) -> [u8; 4] {
    odd(sticky(u64::from_le_bytes(bytes)) as f64).to_le_bytes()
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
fn look_up(table: &Table, code: u8) -> u16 {
    table.get(usize::from(code)).copied().unwrap_or_default()
}

#[inline(always)]
fn widen(bf16: u16) -> u32 {
    u32::from(bf16) << 16
}

const ABS: u32 = 0x7fff_ffff;
const INFINITY: u32 = 0x7f80_0000;

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
fn to_bf16(bits: u32) -> u16 {
    // Adding to an infinity's bits leaves it one: its lower half is zero.
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let nan = ((bits >> 16) & 0x8000) | 0x7fc0;
    (if bits & ABS > INFINITY { nan } else { rounded }) as u16
}

/// A NaN becomes quiet and keeps its upper bits, as F16C has it.
#[inline(always)]
pub(super) const fn to_f16(bits: u32) -> u16 {
    let abs = bits & ABS;
    let nan = 0x7e00 | ((abs >> 13) & 0x3ff);
    let code = if abs > INFINITY { nan } else { F16.magnitude(abs) };
    (((bits >> 16) & 0x8000) | code) as u16
}

#[inline(always)]
fn to_f8(kind: Small, bits: u32) -> u8 {
    let abs = bits & ABS;
    let code = if abs > INFINITY { kind.nan } else { kind.magnitude(abs) };
    let sign = if code < kind.least_signed { 0 } else { (bits >> 24) & 0x80 };
    (sign | code) as u8
}

/// How to round F32 to a smaller float.
#[derive(Clone, Copy)]
pub(super) struct Small {
    /// Bits of the mantissa that go.
    pub(super) shift: u32,
    /// What the exponents' biases differ by, in place.
    pub(super) rebias: u32,
    /// Added to a value below the least normal one, this leaves its code, rounded, in the lowest bits.
    pub(super) magic: u32,
    /// The code of overflow; all codes above stand for it.
    pub(super) limit: u32,
    pub(super) nan: u32,
    /// The least code that can have a sign: kinds with one zero have no negative one.
    pub(super) least_signed: u32,
}

const F16: Small = Small::new(10, 15, 0x7c00, 0x7e00, 0);
/// Overflow is infinity.
pub(super) const E5M2: Small = Small::new(2, 15, 0x7c, 0x7e, 0);
/// Overflow is NaN, as in the other two.
pub(super) const E4M3: Small = Small::new(3, 7, 0x7f, 0x7f, 0);
pub(super) const E4M3FNUZ: Small = Small::new(3, 8, 0x80, 0x80, 1);
pub(super) const E5M2FNUZ: Small = Small::new(2, 16, 0x80, 0x80, 1);

impl Small {
    const fn new(mantissa: u32, bias: u32, limit: u32, nan: u32, least_signed: u32) -> Self {
        // An F32 of this exponent counts in steps of the least subnormal.
        let magic = (127 + 1 + 23 - bias - mantissa) << 23;
        Self { shift: 23 - mantissa, rebias: (127 - bias) << 23, magic, limit, nan, least_signed }
    }

    /// The code of the F32 with the bits `abs`, which is not negative and no NaN.
    #[inline(always)]
    const fn magnitude(self, abs: u32) -> u32 {
        let lowest_kept = (abs >> self.shift) & 1;
        let half = (1 << (self.shift - 1)) - 1;
        let normal = (abs + half + lowest_kept).wrapping_sub(self.rebias) >> self.shift;
        let subnormal = (f32::from_bits(abs) + f32::from_bits(self.magic)).to_bits().wrapping_sub(self.magic);
        let code = if abs < self.rebias + (1 << 23) { subnormal } else { normal };
        if code < self.limit {
            code
        } else {
            self.limit
        }
    }
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

/// An integer that F64 holds exactly and that rounds to 16 bits as `value`: of
/// large ones the low 16 bits are merged into one.
#[inline(always)]
fn sticky(value: u64) -> u64 {
    let merged = (value & !0xffff) | (((value & 0xffff != 0) as u64) << 16);
    if value >> 40 == 0 {
        value
    } else {
        merged
    }
}

/// Spreads F4 codes, two a byte, to one a byte.
pub(super) fn unpack4(src: &[u8], codes: &mut [u8]) {
    map(src, codes, |[pair]: [u8; 1]| [pair & 0xf, pair >> 4]);
}

/// Spreads F6 codes, four in three bytes, to one a byte.
pub(super) fn unpack6(src: &[u8], codes: &mut [u8]) {
    let (src_tail, codes_tail) = (src.chunks_exact(6).remainder(), codes.chunks_exact_mut(8).into_remainder());
    map(src_tail, codes_tail, |[a, b, c]| {
        let [w, x, y, z, ..] = spread6([a, b, c, 0, 0, 0]);
        [w, x, y, z]
    });
    map(src, codes, spread6);
}

/// Halves of 24, 12, then 6 bits move apart.
#[inline(always)]
fn spread6([a, b, c, d, e, f]: [u8; 6]) -> [u8; 8] {
    let x = u64::from_le_bytes([a, b, c, 0, d, e, f, 0]);
    let x = (x & 0x0000_0fff_0000_0fff) | ((x & 0x00ff_f000_00ff_f000) << 4);
    let x = (x & 0x003f_003f_003f_003f) | ((x & 0x0fc0_0fc0_0fc0_0fc0) << 2);
    x.to_le_bytes()
}
