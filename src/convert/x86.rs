// SPDX-License-Identifier: Apache-2.0
//! The steps of `scalar` compiled for AVX2 and AVX-512, where the compiler finds
//! the SIMD by itself, and by hand what it can't find: half precision in
//! hardware, narrowing with rounding, look-ups within registers.
#![allow(clippy::arithmetic_side_effects, reason = "offsets below the length of a slice")]

use std::arch::is_x86_feature_detected;
use std::arch::x86_64::*;

use super::scalar::{self, Step};

pub(super) fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c")
}

/// # Safety
/// [`has_avx2`].
#[target_feature(enable = "avx2,f16c")]
pub(super) unsafe fn run_avx2(step: Step, src: &[u8], dst: &mut [u8]) {
    match step {
        Step::Bf16ToF32 => {
            let whole = whole(src, dst, 2, 4, 8);
            for at in (0..whole).step_by(8) {
                // SAFETY: both hold `whole` elements, a multiple of 8.
                unsafe {
                    let upper = _mm256_cvtepu16_epi32(_mm_loadu_si128(src.as_ptr().add(at * 2).cast()));
                    _mm256_storeu_si256(dst.as_mut_ptr().add(at * 4).cast(), _mm256_slli_epi32::<16>(upper));
                }
            }
            rest(step, src, dst, whole * 2, whole * 4);
        }
        Step::F16ToF32 => {
            let whole = whole(src, dst, 2, 4, 8);
            for at in (0..whole).step_by(8) {
                // SAFETY: as above.
                unsafe {
                    let half = _mm_loadu_si128(src.as_ptr().add(at * 2).cast());
                    _mm256_storeu_ps(dst.as_mut_ptr().add(at * 4).cast(), _mm256_cvtph_ps(half));
                }
            }
            rest(step, src, dst, whole * 2, whole * 4);
        }
        Step::F32ToF16 => {
            let whole = whole(src, dst, 4, 2, 8);
            for at in (0..whole).step_by(8) {
                // SAFETY: as above.
                unsafe {
                    let single = _mm256_loadu_ps(src.as_ptr().add(at * 4).cast());
                    let half = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(single);
                    _mm_storeu_si128(dst.as_mut_ptr().add(at * 2).cast(), half);
                }
            }
            rest(step, src, dst, whole * 4, whole * 2);
        }
        Step::F32ToBf16 => {
            let whole = whole(src, dst, 4, 2, 16);
            for at in (0..whole).step_by(16) {
                // SAFETY: as above, of 16.
                unsafe {
                    let from = src.as_ptr().add(at * 4).cast::<__m256i>();
                    let low = to_bf16(_mm256_loadu_si256(from));
                    let high = to_bf16(_mm256_loadu_si256(from.add(1)));
                    // Packing works within halves of a register: 0 2 1 3 puts them in order.
                    let packed = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(low, high));
                    _mm256_storeu_si256(dst.as_mut_ptr().add(at * 2).cast(), packed);
                }
            }
            rest(step, src, dst, whole * 4, whole * 2);
        }
        Step::F32ToF8(kind) => {
            let whole = whole(src, dst, 4, 1, 32);
            for at in (0..whole).step_by(32) {
                // SAFETY: as above, of 32.
                unsafe {
                    let from = src.as_ptr().add(at * 4).cast::<__m256i>();
                    let a = to_f8(kind, _mm256_loadu_si256(from));
                    let b = to_f8(kind, _mm256_loadu_si256(from.add(1)));
                    let c = to_f8(kind, _mm256_loadu_si256(from.add(2)));
                    let d = to_f8(kind, _mm256_loadu_si256(from.add(3)));
                    let packed = _mm256_packus_epi16(_mm256_packus_epi32(a, b), _mm256_packus_epi32(c, d));
                    let in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
                    let packed = _mm256_permutevar8x32_epi32(packed, in_order);
                    _mm256_storeu_si256(dst.as_mut_ptr().add(at).cast(), packed);
                }
            }
            rest(step, src, dst, whole * 4, whole);
        }
        _ => scalar::run(step, src, dst),
    }
}

/// `scalar::to_bf16` of eight, in the lower half of each lane.
///
/// # Safety
/// [`has_avx2`].
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn to_bf16(bits: __m256i) -> __m256i {
    let upper = _mm256_srli_epi32::<16>(bits);
    let lowest_kept = _mm256_and_si256(upper, _mm256_set1_epi32(1));
    let half = _mm256_add_epi32(lowest_kept, _mm256_set1_epi32(0x7fff));
    let rounded = _mm256_srli_epi32::<16>(_mm256_add_epi32(bits, half));
    let sign = _mm256_and_si256(upper, _mm256_set1_epi32(0x8000));
    let nan = _mm256_or_si256(sign, _mm256_set1_epi32(0x7fc0));
    let abs = _mm256_and_si256(bits, _mm256_set1_epi32(0x7fff_ffff));
    _mm256_blendv_epi8(rounded, nan, _mm256_cmpgt_epi32(abs, _mm256_set1_epi32(0x7f80_0000)))
}

/// `scalar::to_f8` of eight, in the lowest byte of each lane.
///
/// # Safety
/// [`has_avx2`].
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn to_f8(kind: scalar::Small, bits: __m256i) -> __m256i {
    let all = |value: u32| _mm256_set1_epi32(value as i32);
    let shift = all(kind.shift);
    let abs = _mm256_and_si256(bits, all(0x7fff_ffff));
    let lowest_kept = _mm256_and_si256(_mm256_srlv_epi32(abs, shift), all(1));
    let half = _mm256_add_epi32(lowest_kept, all((1 << (kind.shift - 1)) - 1));
    let normal = _mm256_srlv_epi32(_mm256_sub_epi32(_mm256_add_epi32(abs, half), all(kind.rebias)), shift);
    let magic = all(kind.magic);
    let moved = _mm256_add_ps(_mm256_castsi256_ps(abs), _mm256_castsi256_ps(magic));
    let subnormal = _mm256_sub_epi32(_mm256_castps_si256(moved), magic);
    let is_subnormal = _mm256_cmpgt_epi32(all(kind.rebias + (1 << 23)), abs);
    let code = _mm256_blendv_epi8(normal, subnormal, is_subnormal);
    let code = _mm256_min_epu32(code, all(kind.limit));
    let code = _mm256_blendv_epi8(code, all(kind.nan), _mm256_cmpgt_epi32(abs, all(0x7f80_0000)));
    let sign = _mm256_and_si256(_mm256_srli_epi32::<24>(bits), all(0x80));
    let unsigned = _mm256_cmpgt_epi32(all(kind.least_signed), code);
    _mm256_or_si256(code, _mm256_andnot_si256(unsigned, sign))
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

/// Asks for `lines` cache lines from `start` on. The address may be any.
pub(super) fn prefetch(start: *const u8, lines: usize) {
    for line in 0..lines {
        // SAFETY: a prefetch never faults, and every x86-64 has it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(line * 64).cast()) };
    }
}

#[cfg(safetensors_avx512)]
pub(super) use self::avx512::{has_avx512, run_avx512};

#[cfg(safetensors_avx512)]
mod avx512 {
    //! In Rust since 1.89; built where the compiler has it (build.rs).
    #![allow(clippy::incompatible_msrv, reason = "build.rs looked")]

    use super::*;
    use crate::convert::tables::Table;

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
            Step::Lookup32(table) => {
                let whole = whole(src, dst, 1, 4, 32);
                // SAFETY: the caller's promise.
                let table = unsafe { Registers::load(table) };
                for at in (0..whole).step_by(32) {
                    // SAFETY: the caller's promise; both hold `whole` elements, a multiple of 32.
                    unsafe {
                        let codes = _mm256_loadu_si256(src.as_ptr().add(at).cast());
                        let values = table.look_up(codes);
                        let low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(values));
                        let high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64::<1>(values));
                        let to = dst.as_mut_ptr().add(at * 4).cast::<__m512i>();
                        _mm512_storeu_si512(to, _mm512_slli_epi32::<16>(low));
                        _mm512_storeu_si512(to.add(1), _mm512_slli_epi32::<16>(high));
                    }
                }
                rest(step, src, dst, whole, whole * 4);
            }
            Step::Lookup16(table) => {
                let whole = whole(src, dst, 1, 2, 32);
                // SAFETY: the caller's promise.
                let table = unsafe { Registers::load(table) };
                for at in (0..whole).step_by(32) {
                    // SAFETY: as above.
                    unsafe {
                        let codes = _mm256_loadu_si256(src.as_ptr().add(at).cast());
                        _mm512_storeu_si512(dst.as_mut_ptr().add(at * 2).cast(), table.look_up(codes));
                    }
                }
                rest(step, src, dst, whole, whole * 2);
            }
            Step::F32ToF8(kind) => {
                let whole = whole(src, dst, 4, 1, 16);
                for at in (0..whole).step_by(16) {
                    // SAFETY: as above, of 16.
                    unsafe {
                        let codes = to_f8(kind, _mm512_loadu_si512(src.as_ptr().add(at * 4).cast()));
                        _mm_storeu_si128(dst.as_mut_ptr().add(at).cast(), _mm512_cvtepi32_epi8(codes));
                    }
                }
                rest(step, src, dst, whole * 4, whole);
            }
            // 256 bits are as fast there: memory or the L2 cache is the limit.
            // SAFETY: AVX2 and F16C were looked for.
            Step::Bf16ToF32 | Step::F16ToF32 | Step::F32ToF16 | Step::F32ToBf16 => unsafe { run_avx2(step, src, dst) },
            _ => scalar::run(step, src, dst),
        }
    }

    /// `scalar::to_f8` of sixteen, in the lowest byte of each lane.
    ///
    /// # Safety
    /// [`has_avx512`].
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn to_f8(kind: scalar::Small, bits: __m512i) -> __m512i {
        let all = |value: u32| _mm512_set1_epi32(value as i32);
        let shift = all(kind.shift);
        let abs = _mm512_and_si512(bits, all(0x7fff_ffff));
        let lowest_kept = _mm512_and_si512(_mm512_srlv_epi32(abs, shift), all(1));
        let half = _mm512_add_epi32(lowest_kept, all((1 << (kind.shift - 1)) - 1));
        let normal = _mm512_srlv_epi32(_mm512_sub_epi32(_mm512_add_epi32(abs, half), all(kind.rebias)), shift);
        let magic = all(kind.magic);
        let moved = _mm512_add_ps(_mm512_castsi512_ps(abs), _mm512_castsi512_ps(magic));
        let is_subnormal = _mm512_cmplt_epu32_mask(abs, all(kind.rebias + (1 << 23)));
        let code = _mm512_mask_sub_epi32(normal, is_subnormal, _mm512_castps_si512(moved), magic);
        let code = _mm512_min_epu32(code, all(kind.limit));
        let code = _mm512_mask_mov_epi32(code, _mm512_cmpgt_epu32_mask(abs, all(0x7f80_0000)), all(kind.nan));
        let sign = _mm512_and_si512(_mm512_srli_epi32::<24>(bits), all(0x80));
        let signed = _mm512_cmpge_epu32_mask(code, all(kind.least_signed));
        _mm512_mask_or_epi32(code, signed, code, sign)
    }

    /// A table of 256 values in eight registers.
    struct Registers([__m512i; 8]);

    impl Registers {
        /// # Safety
        /// [`has_avx512`].
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw")]
        unsafe fn load(table: &Table) -> Self {
            // SAFETY: the table has eight times 32 values.
            Self(
                [0, 1, 2, 3, 4, 5, 6, 7]
                    .map(|part| unsafe { _mm512_loadu_si512(table.as_ptr().add(part * 32).cast()) }),
            )
        }

        /// Six bits of a code choose within a pair of registers, the others the pair.
        ///
        /// # Safety
        /// [`has_avx512`].
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw")]
        unsafe fn look_up(&self, codes: __m256i) -> __m512i {
            let codes = _mm512_cvtepu8_epi16(codes);
            let [a, b, c, d, e, f, g, h] = self.0;
            let bit_6 = _mm512_test_epi16_mask(codes, _mm512_set1_epi16(0x40));
            let bit_7 = _mm512_test_epi16_mask(codes, _mm512_set1_epi16(0x80));
            let positive = _mm512_mask_blend_epi16(
                bit_6,
                _mm512_permutex2var_epi16(a, codes, b),
                _mm512_permutex2var_epi16(c, codes, d),
            );
            let negative = _mm512_mask_blend_epi16(
                bit_6,
                _mm512_permutex2var_epi16(e, codes, f),
                _mm512_permutex2var_epi16(g, codes, h),
            );
            _mm512_mask_blend_epi16(bit_7, positive, negative)
        }
    }
}
