// SPDX-License-Identifier: Apache-2.0
//! AVX-512 (F, BW, VL): results of 16 bits, 32 at a time, looked up in registers.
//! In Rust since 1.89; built where the compiler has it (build.rs).
#![allow(clippy::incompatible_msrv, reason = "build.rs looked")]

use std::arch::x86_64::*;

use super::super::op::{GroupSpan, Magnitudes, Op, Packed, Room, Runs, Sixteen, Tail};
use super::avx2::{expect, Avx2};
use crate::dtype::Dtype;

/// That the processor has them, and what [`Avx2`] stands for: only made after having looked.
#[derive(Clone, Copy)]
pub(in super::super) struct Avx512(Avx2);

impl Avx512 {
    pub(in super::super) fn there() -> Option<Self> {
        let there = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl");
        Avx2::there().filter(|_| there).map(Self)
    }

    pub(in super::super) fn avx2(self) -> Avx2 {
        self.0
    }

    /// Codes of at most four bits, of which `values` are the values.
    pub(in super::super) fn run(
        self,
        op: &Op,
        values: &[f32; 16],
        runs: &Runs<'_>,
        codes: Packed<'_>,
        to: Dtype,
        room: Room<'_>,
    ) {
        // SAFETY: looked for.
        unsafe { run(op, values, runs, codes, to, room) };
    }

    pub(in super::super) fn by_scale(
        self,
        tables: &[Sixteen; 256],
        scales: &[u8],
        span: GroupSpan,
        codes: Packed<'_>,
        room: Room<'_>,
    ) {
        // SAFETY: looked for.
        unsafe { by_scale(tables, scales, span, codes, room) };
    }

    pub(in super::super) fn by_magnitude(self, tables: &[Magnitudes], span: GroupSpan, codes: &[u8], room: Room<'_>) {
        // SAFETY: looked for.
        unsafe { by_magnitude(tables, span, codes, room) };
    }
}

/// Codes on their way to results, 32 at a time.
struct ResultLookup {
    from: *const u8,
    to: *mut u8,
    /// Results that there is room for, and codes for.
    left: usize,
    ahead: usize,
    /// Of two codes in a byte: how far the byte moves to the right and, for the second one,
    /// to the left. None where a byte holds one.
    nibbles: Option<(__m512i, __m512i)>,
}

impl ResultLookup {
    /// Both live as long as what is made of them.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,f16c,fma,bmi2")]
    fn new(codes: Packed<'_>, room: Room<'_>) -> Self {
        let by = |right, left| Some((_mm512_set1_epi32(right), _mm512_set1_epi32(left)));
        let (bytes, nibbles) = match codes {
            Packed::Bytes(bytes) => (bytes, None),
            Packed::LowNibbles(bytes) => (bytes, by(0, 12)),
            Packed::HighNibbles(bytes) => (bytes, by(4, 16)),
        };
        let codes = if nibbles.is_some() { bytes.len().saturating_mul(2) } else { bytes.len() };
        let left = codes.min(room.bytes.len() / 2);
        Self { from: bytes.as_ptr(), to: room.bytes.as_mut_ptr(), left, ahead: room.ahead, nibbles }
    }

    /// Looks up `count` codes, at most as many as are left: what `results` says of 32 indices, of
    /// each of which the lower four bits are a code's, or all eight where a byte holds one.
    ///
    /// # Safety
    /// What this is of is still there.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,f16c,fma,bmi2")]
    unsafe fn go(&mut self, count: usize, results: impl Fn(__m512i) -> __m512i) {
        let count = count.min(self.left);
        let rest = count % 32;
        self.left -= count;
        let Some((right, left)) = self.nibbles else {
            // SAFETY: there are `count` codes and room for as many results; of a register
            // that is cut, lanes that are not in the mask are neither read nor written.
            unsafe {
                for _ in 0..count / 32 {
                    expect(self.to, self.ahead);
                    let codes = _mm512_cvtepu8_epi16(_mm256_loadu_si256(self.from.cast()));
                    _mm512_storeu_si512(self.to.cast(), results(codes));
                    (self.from, self.to) = (self.from.add(32), self.to.add(64));
                }
                if rest != 0 {
                    let codes = _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(lanes(rest), self.from.cast()));
                    _mm512_mask_storeu_epi16(self.to.cast(), lanes(rest), results(codes));
                    (self.from, self.to) = (self.from.add(rest), self.to.add(2 * rest));
                }
            }
            return;
        };
        let apart = |pairs: __m128i| {
            let pairs = _mm512_cvtepu8_epi32(pairs);
            _mm512_or_si512(_mm512_srlv_epi32(pairs, right), _mm512_sllv_epi32(pairs, left))
        };
        // SAFETY: as above.
        unsafe {
            for _ in 0..count / 32 {
                expect(self.to, self.ahead);
                let codes = apart(_mm_loadu_si128(self.from.cast()));
                _mm512_storeu_si512(self.to.cast(), results(codes));
                (self.from, self.to) = (self.from.add(16), self.to.add(64));
            }
            if rest != 0 {
                let bytes = rest.div_ceil(2);
                let codes = apart(_mm_maskz_loadu_epi8(lanes(bytes) as __mmask16, self.from.cast()));
                _mm512_mask_storeu_epi16(self.to.cast(), lanes(rest), results(codes));
                (self.from, self.to) = (self.from.add(bytes), self.to.add(2 * rest));
            }
        }
    }
}

/// The first so many of less than 32.
fn lanes(count: usize) -> __mmask32 {
    (1 << count) - 1
}

/// # Safety
/// As [`Avx512`] promises.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,f16c,fma,bmi2")]
unsafe fn run(op: &Op, values: &[f32; 16], runs: &Runs<'_>, codes: Packed<'_>, to: Dtype, room: Room<'_>) {
    // SAFETY: 16 values.
    let values = unsafe { _mm512_loadu_ps(values.as_ptr()) };
    let mut lookup = ResultLookup::new(codes, room);
    let mut zeros = runs.zeros.iter();
    let mut left = runs.span.left;
    for scale in runs.scales {
        let zero = zeros.next().unwrap_or(&op.zero);
        let results = tail(op.tail, values, _mm512_set1_ps(*scale), _mm512_set1_ps(*zero));
        // Twice, so that an index's fifth bit does not matter.
        let results = _mm512_broadcast_i64x4(halves(results, to));
        // SAFETY: both are borrowed.
        unsafe { lookup.go(left, |codes| _mm512_permutexvar_epi16(codes, results)) };
        left = runs.span.group;
        if lookup.left == 0 {
            return;
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,f16c,fma,bmi2")]
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
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,f16c,fma,bmi2")]
fn halves(values: __m512, to: Dtype) -> __m256i {
    if to == Dtype::F16 {
        return _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(values);
    }
    let bits = _mm512_castps_si512(values);
    let lowest = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
    let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(lowest, _mm512_set1_epi32(0x7fff)));
    let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(values, values);
    let rounded = _mm512_mask_mov_epi32(rounded, nan, _mm512_set1_epi32(0x7fc0_0000));
    _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(rounded))
}

/// # Safety
/// As [`Avx512`] promises.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,f16c,fma,bmi2")]
unsafe fn by_scale(tables: &[Sixteen; 256], scales: &[u8], span: GroupSpan, codes: Packed<'_>, room: Room<'_>) {
    let mut lookup = ResultLookup::new(codes, room);
    let load = |scale: u8| {
        // SAFETY: 32 bytes.
        let table = tables.get(usize::from(scale)).map(|table| unsafe { _mm256_loadu_si256(table.as_ptr().cast()) });
        table.unwrap_or(_mm256_setzero_si256())
    };
    let fifteen = _mm512_set1_epi16(15);
    // The first 16 codes are looked up in the lower half of two groups' results, the others in the upper one.
    let upper = _mm512_inserti64x4::<1>(_mm512_setzero_si512(), _mm256_set1_epi16(16));
    let mut scales = scales.iter();
    let mut left = span.left;
    while let (false, Some(scale)) = (lookup.left == 0, scales.next()) {
        let first = load(*scale);
        let pair = left == 16 && span.group == 16;
        let (results, count) = match scales.as_slice().first() {
            Some(second) if pair => {
                scales.next();
                (_mm512_inserti64x4::<1>(_mm512_castsi256_si512(first), load(*second)), 32)
            }
            _ => (_mm512_broadcast_i64x4(first), left),
        };
        // SAFETY: both are borrowed.
        unsafe {
            lookup.go(count, |codes| {
                let codes = _mm512_or_si512(_mm512_and_si512(codes, fifteen), upper);
                _mm512_permutexvar_epi16(codes, results)
            })
        };
        left = span.group;
    }
}

/// # Safety
/// As [`Avx512`] promises.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,f16c,fma,bmi2")]
unsafe fn by_magnitude(tables: &[Magnitudes], span: GroupSpan, codes: &[u8], room: Room<'_>) {
    let mut lookup = ResultLookup::new(Packed::Bytes(codes), room);
    let sign = _mm512_set1_epi16(0x8000_u16 as i16);
    let mut left = span.left;
    for table in tables {
        // SAFETY: quarters of 256 bytes.
        let quarter = |number: usize| unsafe { _mm512_loadu_si512(table.as_ptr().add(number * 64).cast()) };
        let (a, b, c, d) = (quarter(0), quarter(1), quarter(2), quarter(3));
        // SAFETY: both are borrowed.
        unsafe {
            lookup.go(left, |codes| {
                let (low, high) = (_mm512_permutex2var_epi16(a, codes, b), _mm512_permutex2var_epi16(c, codes, d));
                let is_high = _mm512_test_epi16_mask(codes, _mm512_set1_epi16(0x40));
                let results = _mm512_mask_mov_epi16(low, is_high, high);
                // The sign of the code turns that of the result: a ^ (b & c).
                _mm512_ternarylogic_epi32::<0x78>(results, _mm512_slli_epi16::<8>(codes), sign)
            })
        };
        left = span.group;
    }
}
