// SPDX-License-Identifier: Apache-2.0
//! The arithmetic of `scalar` for 16 elements at a time.
#![allow(clippy::arithmetic_side_effects, reason = "places within the slices, as argued where they are used")]
#![allow(clippy::cast_possible_wrap, clippy::cast_possible_truncation, reason = "bits")]

use std::arch::x86_64::*;

use super::kernel::{Op, Piece, Pieces, Tail, Values};
use super::parameters::Runs;
use super::scalar::E2M3;
use crate::dtype::Dtype;

fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c") && is_x86_feature_detected!("fma")
}

#[cfg(safetensors_avx512)]
fn has_avx512() -> bool {
    has_avx2()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
}

/// Whether the processor could do it, and has.
pub(super) fn run(op: &Op<'_>, runs: &Runs<'_>, codes: &[u8], to: Dtype, out: &mut [u8]) -> bool {
    let size = if to == Dtype::F32 { 4 } else { 2 };
    let pieces = Pieces::new(op, runs, codes, size, out);
    #[cfg(safetensors_avx512)]
    if has_avx512() {
        // SAFETY: looked for.
        unsafe { avx512::run(op, pieces, to) };
        return true;
    }
    if has_avx2() {
        // SAFETY: looked for.
        unsafe { avx2::run(op, pieces, to) };
        return true;
    }
    false
}

/// Whether the processor could unpack, and has. `bytes` hold all codes that `room` has room for.
pub(super) fn nibbles(bytes: &[u8], room: &mut [u8], high_first: bool) -> bool {
    if !has_avx2() || room.len().div_ceil(2) > bytes.len() {
        return false;
    }
    // SAFETY: looked for.
    unsafe { avx2::nibbles(bytes, room, high_first) };
    true
}

/// How many nibbles of words the processor could pick, and has: whole registers of them.
pub(super) fn nibble_of_words(words: &[u8], shift: u32, room: &mut [u8]) -> usize {
    if !has_avx2() {
        return 0;
    }
    // SAFETY: looked for.
    unsafe { avx2::nibble_of_words(words, shift, room) }
}

mod avx2 {
    use super::*;

    /// # Safety
    /// `has_avx2`.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn nibble_of_words(words: &[u8], shift: u32, room: &mut [u8]) -> usize {
        let whole = (words.len() / 4).min(room.len()) / 32 * 32;
        let by = _mm_cvtsi32_si128(shift as i32);
        let low_bits = _mm256_set1_epi32(0xf);
        // Packed within halves of the register.
        let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        for at in (0..whole).step_by(32) {
            // SAFETY: `whole` words, and room for as many codes.
            unsafe {
                let from = words.as_ptr().add(4 * at).cast::<__m256i>();
                let pick = |number| {
                    let words = _mm256_loadu_si256(from.add(number));
                    _mm256_and_si256(_mm256_srl_epi32(words, by), low_bits)
                };
                let low = _mm256_packus_epi32(pick(0), pick(1));
                let high = _mm256_packus_epi32(pick(2), pick(3));
                let codes = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), order);
                _mm256_storeu_si256(room.as_mut_ptr().add(at).cast(), codes);
            }
        }
        whole
    }

    /// # Safety
    /// `has_avx2`.
    #[target_feature(enable = "avx2,f16c,fma")]
    pub(super) unsafe fn run(op: &Op<'_>, mut pieces: Pieces<'_>, to: Dtype) {
        if let Some(table) = op.table() {
            while let Some(piece) = pieces.next() {
                // SAFETY: the caller's promise.
                unsafe { from_table(op.tail, &table, piece, to) };
            }
            return;
        }
        while let Some(piece) = pieces.next() {
            let (scale, zero) = (_mm256_set1_ps(piece.scale), _mm256_set1_ps(piece.zero));
            let mut codes = [0_u8; 16];
            let mut room = [0_u8; 64];
            let size = piece.out.len().checked_div(piece.codes.len()).unwrap_or(0);
            for (from, out) in piece.codes.chunks(16).zip(piece.out.chunks_mut(16 * size)) {
                let whole = from.len() == 16;
                let from = match whole {
                    true => from.as_ptr(),
                    false => {
                        for (place, code) in codes.iter_mut().zip(from) {
                            *place = *code;
                        }
                        codes.as_ptr()
                    }
                };
                // SAFETY: 16 bytes at `from`, and room for 16 results at what is written to.
                unsafe {
                    let codes = _mm_loadu_si128(from.cast());
                    let low = tail(op.tail, plain(op.values, codes), scale, zero);
                    let high = tail(op.tail, plain(op.values, _mm_srli_si128::<8>(codes)), scale, zero);
                    let place = if whole { out.as_mut_ptr() } else { room.as_mut_ptr() };
                    store(low, high, to, place);
                }
                if !whole {
                    for (place, byte) in out.iter_mut().zip(room) {
                        *place = byte;
                    }
                }
            }
        }
    }

    /// The values of the lower eight codes.
    #[inline]
    #[target_feature(enable = "avx2,f16c,fma")]
    fn plain(values: Values<'_>, codes: __m128i) -> __m256 {
        match values {
            Values::Signed => _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes)),
            Values::E4M3 => {
                // Seven bits moved to where F16 has them are the value / 256, exactly.
                let wide = _mm_cvtepu8_epi16(codes);
                let magnitude = _mm_slli_epi16::<7>(_mm_and_si128(wide, _mm_set1_epi16(0x7f)));
                let sign = _mm_slli_epi16::<8>(_mm_and_si128(wide, _mm_set1_epi16(0x80)));
                let value = _mm256_mul_ps(_mm256_cvtph_ps(_mm_or_si128(magnitude, sign)), _mm256_set1_ps(256.0));
                let nan = _mm_cmpeq_epi16(magnitude, _mm_set1_epi16(0x7f << 7));
                _mm256_or_ps(value, _mm256_castsi256_ps(_mm256_cvtepi16_epi32(nan)))
            }
            // The upper half of an F16.
            Values::E5M2 => _mm256_cvtph_ps(_mm_slli_epi16::<8>(_mm_cvtepu8_epi16(codes))),
            Values::E2M3 => {
                let wide = _mm256_and_si256(_mm256_cvtepu8_epi32(codes), _mm256_set1_epi32(0x3f));
                // SAFETY: codes of six bits, and as many values.
                unsafe { _mm256_i32gather_ps::<4>(E2M3.as_ptr(), wide) }
            }
            Values::Unsigned { .. } | Values::Table(_) => _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(codes)),
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c,fma")]
    fn tail(tail: Tail, value: __m256, scale: __m256, zero: __m256) -> __m256 {
        let scaled = _mm256_mul_ps(_mm256_sub_ps(value, zero), scale);
        match tail {
            Tail::Scale => scaled,
            Tail::Times(last) => _mm256_mul_ps(scaled, _mm256_set1_ps(last)),
            Tail::Over(last) => _mm256_div_ps(scaled, _mm256_set1_ps(last)),
            Tail::Offset => _mm256_fmadd_ps(value, scale, zero),
        }
    }

    /// BF16 of eight, each in 32 bits.
    #[inline]
    #[target_feature(enable = "avx2,f16c,fma")]
    fn bf16(values: __m256) -> __m256i {
        let bits = _mm256_castps_si256(values);
        let upper = _mm256_srli_epi32::<16>(bits);
        let lowest = _mm256_and_si256(upper, _mm256_set1_epi32(1));
        let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(lowest, _mm256_set1_epi32(0x7fff)));
        let nan = _mm256_or_si256(upper, _mm256_set1_epi32(0x40));
        let is_nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(values, values));
        _mm256_blendv_epi8(_mm256_srli_epi32::<16>(rounded), nan, is_nan)
    }

    /// Sixteen as 16 bits.
    #[inline]
    #[target_feature(enable = "avx2,f16c,fma")]
    fn halves(low: __m256, high: __m256, to: Dtype) -> __m256i {
        if to == Dtype::F16 {
            let half = |values| _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(values);
            return _mm256_set_m128i(half(high), half(low));
        }
        // Packed within halves of the register: quarters 0 2 1 3.
        _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(bf16(low), bf16(high)))
    }

    /// # Safety
    /// `has_avx2`, and room for 16 results.
    #[inline]
    #[target_feature(enable = "avx2,f16c,fma")]
    unsafe fn store(low: __m256, high: __m256, to: Dtype, place: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe {
            if to == Dtype::F32 {
                _mm256_storeu_ps(place.cast(), low);
                _mm256_storeu_ps(place.cast::<f32>().add(8), high);
            } else {
                _mm256_storeu_si256(place.cast(), halves(low, high, to));
            }
        }
    }

    /// Each result is one of 16, so these are made first, and then looked up.
    ///
    /// # Safety
    /// `has_avx2`.
    #[inline]
    #[target_feature(enable = "avx2,f16c,fma")]
    unsafe fn from_table(op: Tail, table: &[f32; 16], piece: Piece<'_>, to: Dtype) {
        let (scale, zero) = (_mm256_set1_ps(piece.scale), _mm256_set1_ps(piece.zero));
        // SAFETY: 16 values.
        let (low, high) = unsafe { (_mm256_loadu_ps(table.as_ptr()), _mm256_loadu_ps(table.as_ptr().add(8))) };
        let (low, high) = (tail(op, low, scale, zero), tail(op, high, scale, zero));
        let mut codes = [0_u8; 16];
        let mut room = [0_u8; 64];
        let wide = to == Dtype::F32;
        let halves = halves(low, high, to);
        // Their lower bytes, and their upper ones.
        let of_bytes = _mm256_setr_epi8(
            0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15, 0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15,
        );
        let split = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_shuffle_epi8(halves, of_bytes));
        let (lower, upper) = (_mm256_castsi256_si128(split), _mm256_extracti128_si256::<1>(split));
        let size = if wide { 4 } else { 2 };
        for (from, out) in piece.codes.chunks(16).zip(piece.out.chunks_mut(16 * size)) {
            let whole = from.len() == 16;
            let from = match whole {
                true => from.as_ptr(),
                false => {
                    for (place, code) in codes.iter_mut().zip(from) {
                        *place = *code;
                    }
                    codes.as_ptr()
                }
            };
            let place = if whole { out.as_mut_ptr() } else { room.as_mut_ptr() };
            // SAFETY: 16 bytes at `from`, and room for 16 results at `place`.
            unsafe {
                let codes = _mm_loadu_si128(from.cast());
                if wide {
                    let look_up = |codes: __m128i| {
                        let index = _mm256_cvtepu8_epi32(codes);
                        let (a, b) = (_mm256_permutevar8x32_ps(low, index), _mm256_permutevar8x32_ps(high, index));
                        // Bit 3 moved to the sign chooses.
                        _mm256_blendv_ps(a, b, _mm256_castsi256_ps(_mm256_slli_epi32::<28>(index)))
                    };
                    _mm256_storeu_ps(place.cast(), look_up(codes));
                    _mm256_storeu_ps(place.cast::<f32>().add(8), look_up(_mm_srli_si128::<8>(codes)));
                } else {
                    let (a, b) = (_mm_shuffle_epi8(lower, codes), _mm_shuffle_epi8(upper, codes));
                    _mm_storeu_si128(place.cast(), _mm_unpacklo_epi8(a, b));
                    _mm_storeu_si128(place.cast::<__m128i>().add(1), _mm_unpackhi_epi8(a, b));
                }
            }
            if !whole {
                for (place, byte) in out.iter_mut().zip(room) {
                    *place = byte;
                }
            }
        }
    }

    /// # Safety
    /// `has_avx2`, and a byte for each two codes.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn nibbles(bytes: &[u8], room: &mut [u8], high_first: bool) {
        let low_bits = _mm256_set1_epi16(0xf);
        let (whole, rest) = (room.len() / 32 * 32, room.len() % 32);
        for at in (0..whole).step_by(32) {
            // SAFETY: 16 bytes for 32 codes, and `whole` codes.
            unsafe {
                let pairs = _mm256_cvtepu8_epi16(_mm_loadu_si128(bytes.as_ptr().add(at / 2).cast()));
                let (low, high) = (_mm256_and_si256(pairs, low_bits), _mm256_srli_epi16::<4>(pairs));
                let (first, second) = if high_first { (high, low) } else { (low, high) };
                let codes = _mm256_or_si256(first, _mm256_slli_epi16::<8>(second));
                _mm256_storeu_si256(room.as_mut_ptr().add(at).cast(), codes);
            }
        }
        if let (Some(bytes), Some(room)) = (bytes.get(whole / 2..), room.get_mut(whole..)) {
            debug_assert_eq!(rest, room.len());
            match high_first {
                true => super::super::scalar::nibbles(bytes, room, |byte| [byte >> 4, byte & 0xf]),
                false => super::super::scalar::nibbles(bytes, room, |byte| [byte & 0xf, byte >> 4]),
            }
        }
    }
}

#[cfg(safetensors_avx512)]
mod avx512 {
    //! In Rust since 1.89; built where the compiler has it (build.rs).
    #![allow(clippy::incompatible_msrv, reason = "build.rs looked")]

    use super::*;

    /// # Safety
    /// `has_avx512`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,f16c,fma")]
    pub(super) unsafe fn run(op: &Op<'_>, mut pieces: Pieces<'_>, to: Dtype) {
        if let Some(table) = op.table() {
            // SAFETY: 16 values.
            let table = unsafe { _mm512_loadu_ps(table.as_ptr()) };
            while let Some(piece) = pieces.next() {
                // SAFETY: the caller's promise.
                unsafe { from_table(op.tail, table, piece, to) };
            }
            return;
        }
        while let Some(piece) = pieces.next() {
            let (scale, zero) = (_mm512_set1_ps(piece.scale), _mm512_set1_ps(piece.zero));
            let size = if to == Dtype::F32 { 4 } else { 2 };
            for at in (0..piece.codes.len()).step_by(16) {
                let mask = lanes(piece.codes.len() - at);
                // SAFETY: lanes that are not in the mask are neither read nor written; a piece
                // has room for all of its codes.
                unsafe {
                    let codes = _mm_maskz_loadu_epi8(mask, piece.codes.as_ptr().add(at).cast());
                    let values = tail(op.tail, plain(op.values, codes), scale, zero);
                    let out = piece.out.as_mut_ptr().add(at * size);
                    if to == Dtype::F32 {
                        _mm512_mask_storeu_ps(out.cast(), mask, values);
                    } else {
                        _mm256_mask_storeu_epi16(out.cast(), mask, halves(values, to));
                    }
                }
            }
        }
    }

    fn lanes(count: usize) -> __mmask16 {
        if count >= 16 {
            return !0;
        }
        (1 << count) - 1
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,f16c,fma")]
    fn plain(values: Values<'_>, codes: __m128i) -> __m512 {
        match values {
            Values::Signed => _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes)),
            Values::E4M3 => {
                // Seven bits moved to where F16 has them are the value / 256, exactly.
                let wide = _mm256_cvtepu8_epi16(codes);
                let magnitude = _mm256_slli_epi16::<7>(_mm256_and_si256(wide, _mm256_set1_epi16(0x7f)));
                let sign = _mm256_slli_epi16::<8>(_mm256_and_si256(wide, _mm256_set1_epi16(0x80)));
                let value = _mm512_mul_ps(_mm512_cvtph_ps(_mm256_or_si256(magnitude, sign)), _mm512_set1_ps(256.0));
                let nan = _mm256_cmpeq_epi16_mask(magnitude, _mm256_set1_epi16(0x7f << 7));
                _mm512_mask_mov_ps(value, nan, _mm512_set1_ps(f32::NAN))
            }
            // The upper half of an F16.
            Values::E5M2 => _mm512_cvtph_ps(_mm256_slli_epi16::<8>(_mm256_cvtepu8_epi16(codes))),
            Values::E2M3 => {
                let wide = _mm512_cvtepu8_epi32(codes);
                // SAFETY: 64 values, of which the first 32 are not negative.
                let (low, high) = unsafe { (_mm512_loadu_ps(E2M3.as_ptr()), _mm512_loadu_ps(E2M3.as_ptr().add(16))) };
                let magnitude = _mm512_permutex2var_ps(low, wide, high);
                let sign = _mm512_slli_epi32::<26>(_mm512_and_si512(wide, _mm512_set1_epi32(0x20)));
                _mm512_castsi512_ps(_mm512_or_si512(_mm512_castps_si512(magnitude), sign))
            }
            Values::Unsigned { .. } | Values::Table(_) => _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(codes)),
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,f16c,fma")]
    fn tail(tail: Tail, value: __m512, scale: __m512, zero: __m512) -> __m512 {
        let scaled = _mm512_mul_ps(_mm512_sub_ps(value, zero), scale);
        match tail {
            Tail::Scale => scaled,
            Tail::Times(last) => _mm512_mul_ps(scaled, _mm512_set1_ps(last)),
            Tail::Over(last) => _mm512_div_ps(scaled, _mm512_set1_ps(last)),
            Tail::Offset => _mm512_fmadd_ps(value, scale, zero),
        }
    }

    /// Sixteen as 16 bits.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,f16c,fma")]
    fn halves(values: __m512, to: Dtype) -> __m256i {
        if to == Dtype::F16 {
            return _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(values);
        }
        let bits = _mm512_castps_si512(values);
        let upper = _mm512_srli_epi32::<16>(bits);
        let lowest = _mm512_and_si512(upper, _mm512_set1_epi32(1));
        let rounded =
            _mm512_srli_epi32::<16>(_mm512_add_epi32(bits, _mm512_add_epi32(lowest, _mm512_set1_epi32(0x7fff))));
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(values, values);
        _mm512_cvtepi32_epi16(_mm512_mask_or_epi32(rounded, nan, upper, _mm512_set1_epi32(0x40)))
    }

    /// Each result is one of 16, so these are made first, and then looked up.
    ///
    /// # Safety
    /// `has_avx512`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,f16c,fma")]
    unsafe fn from_table(op: Tail, table: __m512, piece: Piece<'_>, to: Dtype) {
        let results = tail(op, table, _mm512_set1_ps(piece.scale), _mm512_set1_ps(piece.zero));
        if to == Dtype::F32 {
            for at in (0..piece.codes.len()).step_by(16) {
                let mask = lanes(piece.codes.len() - at);
                // SAFETY: as above.
                unsafe {
                    let codes = _mm_maskz_loadu_epi8(mask, piece.codes.as_ptr().add(at).cast());
                    let values = _mm512_permutexvar_ps(_mm512_cvtepu8_epi32(codes), results);
                    _mm512_mask_storeu_ps(piece.out.as_mut_ptr().add(4 * at).cast(), mask, values);
                }
            }
            return;
        }
        let results = _mm512_castsi256_si512(halves(results, to));
        let whole = piece.codes.len() / 32 * 32;
        for at in (0..whole).step_by(32) {
            // SAFETY: `whole` codes, and room for as many results.
            unsafe {
                let codes = _mm512_cvtepu8_epi16(_mm256_loadu_si256(piece.codes.as_ptr().add(at).cast()));
                let values = _mm512_permutexvar_epi16(codes, results);
                _mm512_storeu_si512(piece.out.as_mut_ptr().add(2 * at).cast(), values);
            }
        }
        let rest = piece.codes.len() - whole;
        if rest != 0 {
            let mask = (1_u32 << rest) - 1;
            // SAFETY: lanes that are not in the mask are neither read nor written.
            unsafe {
                let codes = _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(mask, piece.codes.as_ptr().add(whole).cast()));
                let values = _mm512_permutexvar_epi16(codes, results);
                _mm512_mask_storeu_epi16(piece.out.as_mut_ptr().add(2 * whole).cast(), mask, values);
            }
        }
    }
}
