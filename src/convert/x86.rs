// SPDX-License-Identifier: Apache-2.0
//! The steps of `scalar` compiled for AVX2 and AVX-512, where the compiler finds
//! the SIMD by itself, and by hand what it can't find: half precision in
//! hardware, narrowing with rounding, look-ups within registers, and stores past
//! the caches.
#![allow(clippy::arithmetic_side_effects, reason = "offsets below the length of a slice")]

use std::arch::is_x86_feature_detected;
use std::arch::x86_64::*;

use super::scalar::{self, Step};
use super::small::Nibbles;

pub(super) fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c")
}

/// `far`: the result goes past the caches, if it is aligned, and the source is
/// asked for ahead. That is for the steps that [`streams`] names.
///
/// # Safety
/// [`has_avx2`].
#[target_feature(enable = "avx2,f16c")]
pub(super) unsafe fn run_avx2(step: Step, src: &[u8], dst: &mut [u8], far: bool) {
    let far = far && dst.as_ptr().align_offset(32) == 0;
    match step {
        Step::Bf16ToF32 => {
            let whole = whole(src, dst, 2, 4, 16);
            for at in (0..whole).step_by(16) {
                // SAFETY: both hold `whole` elements, a multiple of 16.
                unsafe {
                    let from = src.as_ptr().add(at * 2).cast::<__m128i>();
                    let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(from));
                    let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.add(1)));
                    let to = dst.as_mut_ptr().add(at * 4).cast();
                    put(to, _mm256_slli_epi32::<16>(low), _mm256_slli_epi32::<16>(high), far);
                    ahead(from, far);
                }
            }
            rest(step, src, dst, whole * 2, whole * 4);
        }
        Step::F16ToF32 => {
            let whole = whole(src, dst, 2, 4, 16);
            for at in (0..whole).step_by(16) {
                // SAFETY: as above.
                unsafe {
                    let from = src.as_ptr().add(at * 2).cast::<__m128i>();
                    let low = _mm256_castps_si256(_mm256_cvtph_ps(_mm_loadu_si128(from)));
                    let high = _mm256_castps_si256(_mm256_cvtph_ps(_mm_loadu_si128(from.add(1))));
                    put(dst.as_mut_ptr().add(at * 4).cast(), low, high, far);
                    ahead(from, far);
                }
            }
            rest(step, src, dst, whole * 2, whole * 4);
        }
        Step::F32ToF16 => {
            let whole = whole(src, dst, 4, 2, 32);
            for at in (0..whole).step_by(32) {
                // SAFETY: as above, of 32.
                unsafe {
                    let from = src.as_ptr().add(at * 4).cast::<f32>();
                    let half = |at| _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_loadu_ps(from.add(at)));
                    let (low, high) = (_mm256_set_m128i(half(8), half(0)), _mm256_set_m128i(half(24), half(16)));
                    put(dst.as_mut_ptr().add(at * 2).cast(), low, high, far);
                    ahead(from, far);
                    ahead(from.add(16), far);
                }
            }
            rest(step, src, dst, whole * 4, whole * 2);
        }
        Step::F32ToBf16 => {
            let whole = whole(src, dst, 4, 2, 32);
            for at in (0..whole).step_by(32) {
                // SAFETY: as above.
                unsafe {
                    let from = src.as_ptr().add(at * 4).cast::<__m256i>();
                    let (low, high) = (to_bf16(from), to_bf16(from.add(2)));
                    put(dst.as_mut_ptr().add(at * 2).cast(), low, high, far);
                    ahead(from, far);
                    ahead(from.add(2), far);
                }
            }
            rest(step, src, dst, whole * 4, whole * 2);
        }
        Step::Unpack6 => {
            let whole = (src.len() / 24).min(dst.len() / 32);
            for group in 0..whole {
                // SAFETY: as above, of 24 bytes and of 32 codes.
                unsafe {
                    let from = src.as_ptr().add(group * 24);
                    let spread = spread6(_mm256_loadu2_m128i(from.add(8).cast(), from.cast()));
                    _mm256_storeu_si256(dst.as_mut_ptr().add(group * 32).cast(), spread);
                }
            }
            rest(step, src, dst, whole * 24, whole * 32);
        }
        Step::SmallToF32(codes) => {
            let whole = whole(src, dst, 1, 4, 32);
            // SAFETY: the caller's promise.
            let tables = unsafe { NibbleRegisters::load(&codes.nibbles) };
            for at in (0..whole).step_by(32) {
                // SAFETY: as above.
                unsafe {
                    let from = src.as_ptr().add(at);
                    let (first, second) = tables.look_up(_mm256_loadu_si256(from.cast()));
                    let to = dst.as_mut_ptr().add(at * 4).cast::<__m256i>();
                    let none = _mm256_setzero_si256();
                    // Of each half of the register four elements, with zeros below.
                    put(to, _mm256_unpacklo_epi16(none, first), _mm256_unpackhi_epi16(none, first), far);
                    put(to.add(2), _mm256_unpacklo_epi16(none, second), _mm256_unpackhi_epi16(none, second), far);
                    ahead(from, far);
                }
            }
            rest(step, src, dst, whole, whole * 4);
        }
        Step::SmallToBf16(codes) => {
            let whole = whole(src, dst, 1, 2, 32);
            // SAFETY: the caller's promise.
            let tables = unsafe { NibbleRegisters::load(&codes.nibbles) };
            for at in (0..whole).step_by(32) {
                // SAFETY: as above.
                unsafe {
                    let from = src.as_ptr().add(at);
                    let (first, second) = tables.look_up(_mm256_loadu_si256(from.cast()));
                    put(dst.as_mut_ptr().add(at * 2).cast(), in_order(first), in_order(second), far);
                    ahead(from, far);
                }
            }
            rest(step, src, dst, whole, whole * 2);
        }
        _ => scalar::run_here(step, src, dst),
    }
}

/// Stores both, past the caches if that is `far`, and then to where it is aligned.
///
/// # Safety
/// [`has_avx2`], and room for them.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn put(to: *mut __m256i, low: __m256i, high: __m256i, far: bool) {
    // SAFETY: the caller's promise.
    unsafe {
        if far {
            _mm256_stream_si256(to, low);
            _mm256_stream_si256(to.add(1), high);
        } else {
            _mm256_storeu_si256(to, low);
            _mm256_storeu_si256(to.add(1), high);
        }
    }
}

/// How far ahead of its use a source is asked for, in bytes.
const LEAD: usize = 2048;

/// Where the result goes `far`, the source comes from there.
#[inline(always)]
fn ahead<T>(from: *const T, far: bool) {
    if far {
        // SAFETY: a prefetch never faults, and every x86-64 has it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.wrapping_byte_add(LEAD).cast()) };
    }
}

/// Quarters 0 2 1 3 to their places, or back.
///
/// # Safety
/// [`has_avx2`].
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn in_order(quarters: __m256i) -> __m256i {
    _mm256_permute4x64_epi64::<0b11_01_10_00>(quarters)
}

/// Whether [`run_avx2`] can do it `far`: what it does by hand.
pub(super) fn streams(step: Step) -> bool {
    matches!(
        step,
        Step::SmallToF32(_)
            | Step::SmallToBf16(_)
            | Step::Bf16ToF32
            | Step::F16ToF32
            | Step::F32ToF16
            | Step::F32ToBf16
    )
}

/// `Nibbles`, each table in both halves of a register, for `pshufb`.
struct NibbleRegisters {
    upper_of_high: __m256i,
    upper_of_low: __m256i,
    lower_of_low: __m256i,
    exceptions_of_high: __m256i,
    exceptions_of_low: __m256i,
    exceptional_upper: __m256i,
    exceptional_lower: __m256i,
    negative_nan: __m256i,
}

impl NibbleRegisters {
    /// # Safety
    /// [`has_avx2`].
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn load(nibbles: &Nibbles) -> Self {
        // SAFETY: 16 bytes.
        let both = |table: &[u8; 16]| unsafe { _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast())) };
        Self {
            upper_of_high: both(&nibbles.upper_of_high),
            upper_of_low: both(&nibbles.upper_of_low),
            lower_of_low: both(&nibbles.lower_of_low),
            exceptions_of_high: both(&nibbles.exceptions_of_high),
            exceptions_of_low: both(&nibbles.exceptions_of_low),
            exceptional_upper: both(&nibbles.exceptional_upper),
            exceptional_lower: both(&nibbles.exceptional_lower),
            negative_nan: _mm256_set1_epi8(nibbles.negative_nan as i8),
        }
    }

    /// The BF16 of 32 codes: the first 16 and the others, of each its quarters 0 2 1 3.
    ///
    /// # Safety
    /// [`has_avx2`].
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn look_up(&self, codes: __m256i) -> (__m256i, __m256i) {
        // What is made of two registers below comes from the same half of both.
        let codes = _mm256_permutevar8x32_epi32(codes, _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7));
        let low_bits = _mm256_set1_epi8(0xf);
        let low = _mm256_and_si256(codes, low_bits);
        let high = _mm256_and_si256(_mm256_srli_epi16::<4>(codes), low_bits);
        let common = _mm256_and_si256(
            _mm256_shuffle_epi8(self.exceptions_of_high, high),
            _mm256_shuffle_epi8(self.exceptions_of_low, low),
        );
        let usual = _mm256_cmpeq_epi8(common, _mm256_setzero_si256());
        let choose = |exceptional, of_low| {
            _mm256_blendv_epi8(_mm256_shuffle_epi8(exceptional, low), _mm256_shuffle_epi8(of_low, low), usual)
        };
        let lower = choose(self.exceptional_lower, self.lower_of_low);
        let upper = _mm256_add_epi8(
            _mm256_shuffle_epi8(self.upper_of_high, high),
            choose(self.exceptional_upper, self.upper_of_low),
        );
        let nan = _mm256_cmpeq_epi8(codes, self.negative_nan);
        let upper = _mm256_or_si256(upper, nan);
        let lower = _mm256_or_si256(lower, _mm256_and_si256(nan, _mm256_set1_epi8(0xc0_u8 as i8)));
        (_mm256_unpacklo_epi8(lower, upper), _mm256_unpackhi_epi8(lower, upper))
    }
}

/// `scalar::to_bf16` of 16.
///
/// # Safety
/// [`has_avx2`], and as many at `from`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn to_bf16(from: *const __m256i) -> __m256i {
    // SAFETY: the caller's promise.
    let (low, high) = unsafe { (_mm256_loadu_si256(from), _mm256_loadu_si256(from.add(1))) };
    let upper = |bits| _mm256_srli_epi32::<16>(bits);
    let rounded = |bits| {
        let lowest_kept = _mm256_and_si256(upper(bits), _mm256_set1_epi32(1));
        upper(_mm256_add_epi32(bits, _mm256_add_epi32(lowest_kept, _mm256_set1_epi32(0x7fff))))
    };
    let (mut a, mut b) = (rounded(low), rounded(high));
    // One look for both, as NaNs are rare.
    let nans = _mm256_cmp_ps::<_CMP_UNORD_Q>(_mm256_castsi256_ps(low), _mm256_castsi256_ps(high));
    if _mm256_testz_ps(nans, nans) == 0 {
        let or_nan = |rounded, bits| {
            let sign = _mm256_and_si256(upper(bits), _mm256_set1_epi32(0x8000));
            let nan = _mm256_or_si256(sign, _mm256_set1_epi32(0x7fc0));
            let floats = _mm256_castsi256_ps(bits);
            _mm256_blendv_epi8(rounded, nan, _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(floats, floats)))
        };
        (a, b) = (or_nan(a, low), or_nan(b, high));
    }
    // SAFETY: the caller's promise.
    unsafe { in_order(_mm256_packus_epi32(a, b)) }
}

/// Codes of six bits to bytes. Of the lower half of the register the first 12
/// bytes count, of the upper half the last 12.
///
/// # Safety
/// [`has_avx2`].
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn spread6(packed: __m256i) -> __m256i {
    #[rustfmt::skip]
    let threes = _mm256_setr_epi8(
        0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1,
        4, 5, 6, -1, 7, 8, 9, -1, 10, 11, 12, -1, 13, 14, 15, -1,
    );
    // Four codes in three bytes: halves of 12, then of 6 bits move apart.
    let all = |mask| _mm256_set1_epi32(mask);
    let x = _mm256_shuffle_epi8(packed, threes);
    let x =
        _mm256_or_si256(_mm256_and_si256(x, all(0xfff)), _mm256_and_si256(_mm256_slli_epi32::<4>(x), all(0xfff_0000)));
    _mm256_or_si256(_mm256_and_si256(x, all(0x3f_003f)), _mm256_and_si256(_mm256_slli_epi32::<2>(x), all(0x3f00_3f00)))
}

/// How many elements of these sizes both hold, cut to a multiple of `lanes`.
fn whole(src: &[u8], dst: &[u8], from: usize, to: usize, lanes: usize) -> usize {
    (src.len() / from).min(dst.len() / to) / lanes * lanes
}

fn rest(step: Step, src: &[u8], dst: &mut [u8], src_done: usize, dst_done: usize) {
    if let (Some(src), Some(dst)) = (src.get(src_done..), dst.get_mut(dst_done..)) {
        scalar::run(step, src, dst);
    }
}

/// Asks for what comes after `piece`, as much as that.
pub(super) fn prefetch(piece: &[u8]) {
    for line in piece.chunks(64) {
        ahead(line.as_ptr(), true);
    }
}

/// Copies as much as both hold, and whole cache lines of `dst` past the caches.
///
/// # Safety
/// [`has_avx2`].
#[target_feature(enable = "avx2")]
pub(super) unsafe fn stream(src: &[u8], dst: &mut [u8]) {
    let lines = if dst.as_ptr().align_offset(64) == 0 { whole(src, dst, 1, 1, 64) } else { 0 };
    for at in (0..lines).step_by(32) {
        // SAFETY: within both; `dst` was found to be aligned.
        unsafe {
            _mm256_stream_si256(dst.as_mut_ptr().add(at).cast(), _mm256_loadu_si256(src.as_ptr().add(at).cast()))
        };
    }
    if let (Some(src), Some(dst)) = (src.get(lines..), dst.get_mut(lines..)) {
        dst.copy_from_slice(src);
    }
}

pub(super) fn finish_stream() {
    // SAFETY: every x86-64 has it.
    unsafe { _mm_sfence() };
}

#[cfg(safetensors_avx512)]
pub(super) use self::avx512::{has_avx512, run_avx512};

#[cfg(safetensors_avx512)]
mod avx512 {
    //! In Rust since 1.89; built where the compiler has it (build.rs).
    #![allow(clippy::incompatible_msrv, reason = "build.rs looked")]

    use super::*;

    pub(in crate::convert) fn has_avx512() -> bool {
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && super::has_avx2()
    }

    /// # Safety
    /// [`has_avx512`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,f16c")]
    pub(in crate::convert) unsafe fn run_avx512(step: Step, src: &[u8], dst: &mut [u8]) {
        match step {
            // What AVX2 has no instructions for, or too small registers.
            Step::F32ToF8(_) | Step::I64ToF32 | Step::U64ToF32 | Step::I64ToOdd | Step::U64ToOdd | Step::F64ToOdd => {
                scalar::run_here(step, src, dst)
            }
            // The others are as fast there: memory or the L2 cache is the limit.
            // SAFETY: AVX2 and F16C were looked for.
            _ => unsafe { run_avx2(step, src, dst, false) },
        }
    }
}
