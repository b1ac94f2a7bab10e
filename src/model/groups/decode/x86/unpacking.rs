// SPDX-License-Identifier: Apache-2.0
//! Codes out of their packing by AVX2 and BMI2: words turned from lines to rows, nibbles
//! and streams to one code a byte.

use std::arch::x86_64::*;

use super::super::scalar;

/// # Safety
/// As [`super::Avx2`] promises.
#[target_feature(enable = "avx2,f16c,fma,bmi2")]
pub(super) unsafe fn turn(
    bytes: &[u8],
    across: usize,
    words: usize,
    lines: usize,
    stride: usize,
    turned: &mut [u8],
) -> (usize, usize) {
    let (down, right) = (lines / 8 * 8, words / 8 * 8);
    let from = down.checked_sub(1).and_then(|last| last.checked_mul(across)?.checked_add(right)?.checked_mul(4));
    let to = right.checked_sub(1).and_then(|last| last.checked_mul(stride)?.checked_add(down.checked_mul(4)?));
    if from.is_none_or(|from| from > bytes.len()) || to.is_none_or(|to| to > turned.len()) {
        return (0, 0);
    }
    for line in (0..down).step_by(8) {
        for word in (0..right).step_by(8) {
            // SAFETY: eight words of eight lines, all within both, as was found.
            unsafe {
                let from = bytes.as_ptr().add((line * across + word) * 4);
                let load = |number: usize| {
                    let line = from.add(number * across * 4);
                    // What the next strip begins with.
                    _mm_prefetch::<_MM_HINT_T0>(line.wrapping_add(right * 4).cast());
                    _mm256_loadu_si256(line.cast())
                };
                let rows = eight_by_eight([load(0), load(1), load(2), load(3), load(4), load(5), load(6), load(7)]);
                let to = turned.as_mut_ptr().add(word * stride + line * 4);
                for (number, row) in rows.into_iter().enumerate() {
                    _mm256_storeu_si256(to.add(number * stride).cast(), row);
                }
            }
        }
    }
    (down, right)
}

/// Rows of 32-bit words to columns.
#[inline]
#[target_feature(enable = "avx2,f16c,fma,bmi2")]
fn eight_by_eight(rows: [__m256i; 8]) -> [__m256i; 8] {
    let [a, b, c, d, e, f, g, h] = rows;
    // Pairs, then fours within halves of the registers, then the halves.
    let pairs = |a, b| (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    let ((ab0, ab1), (cd0, cd1), (ef0, ef1), (gh0, gh1)) = (pairs(a, b), pairs(c, d), pairs(e, f), pairs(g, h));
    let fours = |a, b| (_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
    let ((q0, q1), (q2, q3)) = (fours(ab0, cd0), fours(ab1, cd1));
    let ((r0, r1), (r2, r3)) = (fours(ef0, gh0), fours(ef1, gh1));
    let low = |a, b| _mm256_permute2x128_si256::<0x20>(a, b);
    let high = |a, b| _mm256_permute2x128_si256::<0x31>(a, b);
    [low(q0, r0), low(q1, r1), low(q2, r2), low(q3, r3), high(q0, r0), high(q1, r1), high(q2, r2), high(q3, r3)]
}

/// # Safety
/// As [`super::Avx2`] promises.
#[target_feature(enable = "avx2,f16c,fma,bmi2")]
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
/// As [`super::Avx2`] promises, and a byte for each two codes.
#[target_feature(enable = "avx2,f16c,fma,bmi2")]
pub(super) unsafe fn nibbles(bytes: &[u8], room: &mut [u8], high_first: bool) {
    let low_bits = _mm256_set1_epi16(0xf);
    let whole = room.len() / 32 * 32;
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
        scalar::nibbles(bytes, room, high_first);
    }
}

/// # Safety
/// As [`super::Avx2`] promises.
#[target_feature(enable = "avx2,f16c,fma,bmi2")]
pub(super) unsafe fn stream(bytes: &[u8], shift: u32, bits: u32, room: &mut [u8]) -> usize {
    let each = bits as usize;
    let mask = ((1_u64 << bits) - 1) * 0x0101_0101_0101_0101;
    let mut done = 0;
    let mut bytes = bytes;
    for codes in room.chunks_exact_mut(8) {
        let Some(window) = bytes.first_chunk::<8>() else { break };
        let spread = _pdep_u64(u64::from_le_bytes(*window) >> shift, mask);
        codes.copy_from_slice(&spread.to_le_bytes());
        bytes = bytes.get(each..).unwrap_or_default();
        done += 8;
    }
    done
}
