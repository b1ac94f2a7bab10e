// SPDX-License-Identifier: Apache-2.0
//! AVX2, with F16C, FMA and BMI2: 16 or 32 elements at a time.

use std::arch::x86_64::*;

use super::super::op::{GroupSpan, Op, Piece, Pieces, Room, Runs, Sixteen, Tail, Values};
use super::unpacking;
use crate::dtype::Dtype;

/// That the processor has them: only made after having looked.
#[derive(Clone, Copy)]
pub(in super::super) struct Avx2(());

impl Avx2 {
    pub(in super::super) fn there() -> Option<Self> {
        let there = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("f16c")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("bmi2");
        there.then_some(Self(()))
    }

    pub(in super::super) fn run(self, op: &Op, runs: &Runs<'_>, codes: &[u8], to: Dtype, room: Room<'_>) {
        let size = if to == Dtype::F32 { 4 } else { 2 };
        // SAFETY: looked for.
        unsafe { run(op, Pieces::new(op, runs, codes, size, room.bytes), to, room.ahead) };
    }

    pub(in super::super) fn by_scale(
        self,
        tables: &[Sixteen; 256],
        scales: &[u8],
        span: GroupSpan,
        codes: &[u8],
        room: Room<'_>,
    ) {
        // SAFETY: looked for.
        unsafe { by_scale(tables, scales, span, codes, room) };
    }

    /// How many values were made.
    pub(in super::super) fn indexed(
        self,
        op: &Op,
        runs: &Runs<'_>,
        order: &[u32],
        codes: &[u8],
        out: &mut [u8],
    ) -> usize {
        // SAFETY: looked for.
        unsafe { indexed(op, runs, order, codes, out) }
    }

    /// How many lines and words were turned.
    pub(in super::super) fn turn(
        self,
        bytes: &[u8],
        across: usize,
        words: usize,
        lines: usize,
        stride: usize,
        turned: &mut [u8],
    ) -> (usize, usize) {
        // SAFETY: looked for.
        unsafe { unpacking::turn(bytes, across, words, lines, stride, turned) }
    }

    /// `bytes` hold all codes that `room` has room for.
    pub(in super::super) fn nibbles(self, bytes: &[u8], room: &mut [u8], high_first: bool) {
        // SAFETY: looked for.
        unsafe { unpacking::nibbles(bytes, room, high_first) };
    }

    /// How many nibbles of words were picked: whole registers of them.
    pub(in super::super) fn nibble_of_words(self, words: &[u8], shift: u32, room: &mut [u8]) -> usize {
        // SAFETY: looked for.
        unsafe { unpacking::nibble_of_words(words, shift, room) }
    }

    /// How many codes of a stream were spread: eights, as long as eight bytes are there.
    pub(in super::super) fn stream(self, bytes: &[u8], shift: u32, bits: u32, room: &mut [u8]) -> usize {
        // SAFETY: looked for.
        unsafe { unpacking::stream(bytes, shift, bits, room) }
    }
}

/// # Safety
/// As [`Avx2`] promises.
#[target_feature(enable = "avx2,f16c,fma,bmi2")]
unsafe fn run(op: &Op, mut pieces: Pieces<'_>, to: Dtype, ahead: usize) {
    if let Some(table) = op.table() {
        // SAFETY: 16 values.
        let table = unsafe { (_mm256_loadu_ps(table.as_ptr()), _mm256_loadu_ps(table.as_ptr().add(8))) };
        while let Some(piece) = pieces.next() {
            // SAFETY: the caller's promise.
            unsafe { from_table(op.tail, table, piece, to, ahead) };
        }
        return;
    }
    while let Some(piece) = pieces.next() {
        // SAFETY: the caller's promise.
        unsafe { direct(op, piece, to, ahead) };
    }
}

/// Codes of which each has a value of its own to compute.
///
/// # Safety
/// As [`Avx2`] promises.
#[inline]
#[target_feature(enable = "avx2,f16c,fma,bmi2")]
unsafe fn direct(op: &Op, piece: Piece<'_>, to: Dtype, ahead: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        match op.values {
            Values::E4M3 => {
                floats(Minifloat { left: 0, right: 1, kept: 0xbfff, unit: 256.0, nan: 0x7f }, op, piece, to, ahead)
            }
            Values::E5M2 => {
                floats(Minifloat { left: 0, right: 0, kept: 0xffff, unit: 1.0, nan: 0xff }, op, piece, to, ahead)
            }
            Values::E2M3 => {
                floats(Minifloat { left: 2, right: 3, kept: 0x8f80, unit: 16384.0, nan: 0xff }, op, piece, to, ahead)
            }
            Values::Signed => integers(0, op, piece, to, ahead),
            Values::Unsigned { .. } | Values::Table(_) => integers(-128, op, piece, to, ahead),
        }
    }
}

/// How a float of at most eight bits becomes an F16: from the upper half of a word it is
/// moved to the left, and then, with its sign, to the right. Then it is the value / `unit`,
/// exactly.
struct Minifloat {
    left: i32,
    right: i32,
    /// What counts of the word: of the sign only its first bit.
    kept: u16,
    unit: f32,
    /// The lower seven bits of a code that is no number; 0xff where there is none, or F16
    /// has it too.
    nan: u8,
}

/// # Safety
/// As [`Avx2`] promises.
#[inline]
#[target_feature(enable = "avx2,f16c,fma,bmi2")]
unsafe fn floats(of: Minifloat, op: &Op, piece: Piece<'_>, to: Dtype, ahead: usize) {
    let (left, right) = (_mm_cvtsi32_si128(of.left), _mm_cvtsi32_si128(of.right));
    let (kept, unit) = (_mm_set1_epi16(of.kept as i16), _mm256_set1_ps(of.unit));
    let (seven_bits, nan) = (_mm_set1_epi8(0x7f), _mm_set1_epi8(of.nan as i8));
    // Each code alone in the upper half of a word: those with even numbers, and the others.
    let upper = |codes| (_mm_slli_epi16::<8>(codes), _mm_and_si128(codes, _mm_set1_epi16(-256)));
    let half = |word| _mm_and_si128(_mm_sra_epi16(_mm_sll_epi16(word, left), right), kept);
    let value = |half| _mm256_mul_ps(_mm256_cvtph_ps(half), unit);
    let plain = |codes| {
        let (even, odd) = upper(codes);
        let (mut even, mut odd) = (half(even), half(odd));
        let nans = _mm_cmpeq_epi8(_mm_and_si128(codes, seven_bits), nan);
        if _mm_testz_si128(nans, nans) == 0 {
            let (of_even, of_odd) = upper(nans);
            (even, odd) = (_mm_or_si128(even, of_even), _mm_or_si128(odd, of_odd));
        }
        (value(even), value(odd))
    };
    // SAFETY: the caller's promise.
    unsafe { each_sixteen(plain, op, piece, to, ahead) };
}

/// Bytes that are signed once `flip` has been subtracted, modulo 256.
///
/// # Safety
/// As [`Avx2`] promises.
#[inline]
#[target_feature(enable = "avx2,f16c,fma,bmi2")]
unsafe fn integers(flip: i8, op: &Op, piece: Piece<'_>, to: Dtype, ahead: usize) {
    let (flips, least) = (_mm_set1_epi8(flip), _mm256_set1_ps(-f32::from(flip)));
    let plain = |codes| {
        let words = _mm256_cvtepi8_epi16(_mm_xor_si128(codes, flips));
        let even = _mm256_srai_epi32::<16>(_mm256_slli_epi32::<16>(words));
        let odd = _mm256_srai_epi32::<16>(words);
        (_mm256_add_ps(_mm256_cvtepi32_ps(even), least), _mm256_add_ps(_mm256_cvtepi32_ps(odd), least))
    };
    // SAFETY: the caller's promise.
    unsafe { each_sixteen(plain, op, piece, to, ahead) };
}

/// `plain`: the values of 16 codes: those with even numbers, and the others.
///
/// # Safety
/// As [`Avx2`] promises.
#[inline]
#[target_feature(enable = "avx2,f16c,fma,bmi2")]
unsafe fn each_sixteen(
    plain: impl Fn(__m128i) -> (__m256, __m256),
    op: &Op,
    piece: Piece<'_>,
    to: Dtype,
    ahead: usize,
) {
    let (scale, zero) = (_mm256_set1_ps(piece.scale), _mm256_set1_ps(piece.zero));
    let size = if to == Dtype::F32 { 4 } else { 2 };
    let mut codes = piece.codes.chunks_exact(16);
    let mut out = piece.out.chunks_exact_mut(16 * size);
    if let (Tail::Scale, Dtype::Bf16) = (op.tail, to) {
        // What is asked for most, without a question for each.
        for (codes, out) in (&mut codes).zip(&mut out) {
            expect(out.as_ptr(), ahead);
            // SAFETY: 16 codes, and room for 16 results.
            unsafe {
                let (even, odd) = plain(_mm_loadu_si128(codes.as_ptr().cast()));
                let scaled = |value| _mm256_mul_ps(_mm256_sub_ps(value, zero), scale);
                _mm256_storeu_si256(out.as_mut_ptr().cast(), halves(scaled(even), scaled(odd), Dtype::Bf16));
            }
        }
    }
    let sixteen = |codes: *const u8, out: *mut u8| {
        // SAFETY: 16 codes and room for 16 results, by the callers below.
        unsafe {
            let (even, odd) = plain(_mm_loadu_si128(codes.cast()));
            store(tail(op.tail, even, scale, zero), tail(op.tail, odd, scale, zero), to, out);
        }
    };
    for (codes, out) in (&mut codes).zip(&mut out) {
        expect(out.as_ptr(), ahead);
        sixteen(codes.as_ptr(), out.as_mut_ptr());
    }
    let (rest, out) = (codes.remainder(), out.into_remainder());
    in_room::<16, 64>(rest, out, sixteen);
}

#[inline]
#[target_feature(enable = "avx2,f16c,fma,bmi2")]
fn tail(tail: Tail, value: __m256, scale: __m256, zero: __m256) -> __m256 {
    let scaled = _mm256_mul_ps(_mm256_sub_ps(value, zero), scale);
    match tail {
        Tail::Scale => scaled,
        Tail::Times(last) => _mm256_mul_ps(scaled, _mm256_set1_ps(last)),
        Tail::Over(last) => _mm256_div_ps(scaled, _mm256_set1_ps(last)),
        Tail::Offset => _mm256_fmadd_ps(value, scale, zero),
    }
}

/// Sixteen as 16 bits, of which there are those with even numbers and the others.
#[inline]
#[target_feature(enable = "avx2,f16c,fma,bmi2")]
fn halves(even: __m256, odd: __m256, to: Dtype) -> __m256i {
    if to == Dtype::F16 {
        let half = |values| _mm256_cvtepu16_epi32(_mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(values));
        return _mm256_or_si256(half(even), _mm256_slli_epi32::<16>(half(odd)));
    }
    // To nearest, ties to even; the result is the upper half.
    let rounded = |values: __m256| {
        let bits = _mm256_castps_si256(values);
        let lowest = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        _mm256_add_epi32(bits, _mm256_add_epi32(lowest, _mm256_set1_epi32(0x7fff)))
    };
    let (mut of_even, mut of_odd) = (rounded(even), rounded(odd));
    // One look for both, as NaNs are rare.
    let nans = _mm256_cmp_ps::<_CMP_UNORD_Q>(even, odd);
    if _mm256_testz_ps(nans, nans) == 0 {
        let or_nan = |rounded, values| {
            let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(values, values));
            _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7fc0_0000), nan)
        };
        (of_even, of_odd) = (or_nan(of_even, even), or_nan(of_odd, odd));
    }
    _mm256_blend_epi16::<0b1010_1010>(_mm256_srli_epi32::<16>(of_even), of_odd)
}

/// # Safety
/// Room for 16 results.
#[inline]
#[target_feature(enable = "avx2,f16c,fma,bmi2")]
unsafe fn store(even: __m256, odd: __m256, to: Dtype, place: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe {
        if to == Dtype::F32 {
            // Of each half of the register four.
            let (first, second) = (_mm256_unpacklo_ps(even, odd), _mm256_unpackhi_ps(even, odd));
            _mm256_storeu_ps(place.cast(), _mm256_permute2f128_ps::<0x20>(first, second));
            _mm256_storeu_ps(place.cast::<f32>().add(8), _mm256_permute2f128_ps::<0x31>(first, second));
        } else {
            _mm256_storeu_si256(place.cast(), halves(even, odd, to));
        }
    }
}

/// Each result is one of 16, so these are made first, and then looked up.
///
/// # Safety
/// As [`Avx2`] promises.
#[inline]
#[target_feature(enable = "avx2,f16c,fma,bmi2")]
unsafe fn from_table(op: Tail, table: (__m256, __m256), piece: Piece<'_>, to: Dtype, ahead: usize) {
    let (scale, zero) = (_mm256_set1_ps(piece.scale), _mm256_set1_ps(piece.zero));
    let (low, high) = (tail(op, table.0, scale, zero), tail(op, table.1, scale, zero));
    if to == Dtype::F32 {
        // SAFETY: the caller's promise.
        return unsafe { look_up_wide(low, high, piece, ahead) };
    }
    // Results 0 and 8, 1 and 9, and so on; the lower bytes of all, then the upper ones.
    let bytes = _mm256_setr_epi8(
        0, 4, 8, 12, 2, 6, 10, 14, 1, 5, 9, 13, 3, 7, 11, 15, 0, 4, 8, 12, 2, 6, 10, 14, 1, 5, 9, 13, 3, 7, 11, 15,
    );
    let split = _mm256_shuffle_epi8(halves(low, high, to), bytes);
    // Dwords: lower of 0-3, lower of 8-11, upper of 0-3, upper of 8-11; the same of 4-7 and 12-15.
    let lower = _mm256_permutevar8x32_epi32(split, _mm256_setr_epi32(0, 4, 1, 5, 0, 4, 1, 5));
    let upper = _mm256_permutevar8x32_epi32(split, _mm256_setr_epi32(2, 6, 3, 7, 2, 6, 3, 7));
    // SAFETY: the caller's promise.
    unsafe { look_up(lower, upper, piece.codes, piece.out, ahead) };
}

/// Results of 16 bits by their lower and upper bytes, which each half of a register has.
///
/// # Safety
/// As [`Avx2`] promises.
#[inline]
#[target_feature(enable = "avx2,f16c,fma,bmi2")]
unsafe fn look_up(lower: __m256i, upper: __m256i, codes: &[u8], out: &mut [u8], ahead: usize) {
    let mut codes = codes.chunks_exact(32);
    let mut out = out.chunks_exact_mut(64);
    for (codes, out) in (&mut codes).zip(&mut out) {
        // SAFETY: 32 codes and room for as many results.
        unsafe { thirty_two(lower, upper, codes.as_ptr(), out.as_mut_ptr(), ahead) };
    }
    let (rest, out) = (codes.remainder(), out.into_remainder());
    if !rest.is_empty() {
        let (mut codes, mut room) = ([0; 32], [0; 64]);
        for (place, code) in codes.iter_mut().zip(rest) {
            *place = *code;
        }
        // SAFETY: as above.
        unsafe { thirty_two(lower, upper, codes.as_ptr(), room.as_mut_ptr(), 0) };
        for (place, byte) in out.iter_mut().zip(room) {
            *place = byte;
        }
    }
}

/// # Safety
/// 32 codes and room for as many results.
#[inline]
#[target_feature(enable = "avx2,f16c,fma,bmi2")]
unsafe fn thirty_two(lower: __m256i, upper: __m256i, codes: *const u8, out: *mut u8, ahead: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        expect(out, ahead);
        // What is made of two registers comes from the same half of both: quarters 0 2 1 3.
        let codes = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_loadu_si256(codes.cast()));
        let (lower, upper) = (_mm256_shuffle_epi8(lower, codes), _mm256_shuffle_epi8(upper, codes));
        _mm256_storeu_si256(out.cast(), _mm256_unpacklo_epi8(lower, upper));
        _mm256_storeu_si256(out.cast::<__m256i>().add(1), _mm256_unpackhi_epi8(lower, upper));
    }
}

/// The same as F32.
///
/// # Safety
/// As [`Avx2`] promises.
#[inline]
#[target_feature(enable = "avx2,f16c,fma,bmi2")]
unsafe fn look_up_wide(low: __m256, high: __m256, piece: Piece<'_>, ahead: usize) {
    let eight = |codes: *const u8, out: *mut u8| {
        // SAFETY: eight codes and room for eight results, by the callers below.
        unsafe {
            expect(out, ahead);
            let index = _mm256_cvtepu8_epi32(_mm_loadl_epi64(codes.cast()));
            let (a, b) = (_mm256_permutevar8x32_ps(low, index), _mm256_permutevar8x32_ps(high, index));
            // Bit 3 moved to the sign chooses.
            let values = _mm256_blendv_ps(a, b, _mm256_castsi256_ps(_mm256_slli_epi32::<28>(index)));
            _mm256_storeu_ps(out.cast(), values);
        }
    };
    let mut codes = piece.codes.chunks_exact(8);
    let mut out = piece.out.chunks_exact_mut(32);
    for (codes, out) in (&mut codes).zip(&mut out) {
        eight(codes.as_ptr(), out.as_mut_ptr());
    }
    let (rest, out) = (codes.remainder(), out.into_remainder());
    in_room::<8, 32>(rest, out, eight);
}

/// Results by a code and a scale that is a byte.
///
/// # Safety
/// As [`Avx2`] promises.
#[target_feature(enable = "avx2,f16c,fma,bmi2")]
unsafe fn by_scale(tables: &[Sixteen; 256], scales: &[u8], mut span: GroupSpan, mut codes: &[u8], room: Room<'_>) {
    let Room { bytes: mut out, ahead } = room;
    // The lower bytes of 16 results in one half of a register, the upper ones in the other.
    let bytes = _mm256_setr_epi8(
        0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15, 0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15,
    );
    let load = |scale: u8| {
        // SAFETY: 32 bytes.
        let table = tables.get(usize::from(scale)).map(|table| unsafe { _mm256_loadu_si256(table.as_ptr().cast()) });
        let split = _mm256_shuffle_epi8(table.unwrap_or(_mm256_setzero_si256()), bytes);
        _mm256_permute4x64_epi64::<0b11_01_10_00>(split)
    };
    let mut scales = scales.iter();
    while let (false, Some(scale)) = (codes.is_empty(), scales.next()) {
        let first = load(*scale);
        let pair = span.left == 16 && span.group == 16 && codes.len() >= 32;
        let second = match scales.as_slice().first() {
            Some(second) if pair => {
                scales.next();
                load(*second)
            }
            _ => first,
        };
        let lower = _mm256_permute2x128_si256::<0x20>(first, second);
        let upper = _mm256_permute2x128_si256::<0x31>(first, second);
        let count = if pair { 32 } else { span.left.min(codes.len()) };
        let (Some((now, later)), Some((place, rest))) =
            (codes.split_at_checked(count), std::mem::take(&mut out).split_at_mut_checked(2 * count))
        else {
            return;
        };
        // SAFETY: the caller's promise; of a pair each half has a register's half.
        unsafe {
            if pair {
                let codes = _mm256_loadu_si256(now.as_ptr().cast());
                let (lower, upper) = (_mm256_shuffle_epi8(lower, codes), _mm256_shuffle_epi8(upper, codes));
                let (first, second) = (_mm256_unpacklo_epi8(lower, upper), _mm256_unpackhi_epi8(lower, upper));
                expect(place.as_ptr(), ahead);
                let place = place.as_mut_ptr().cast::<__m256i>();
                _mm256_storeu_si256(place, _mm256_permute2x128_si256::<0x20>(first, second));
                _mm256_storeu_si256(place.add(1), _mm256_permute2x128_si256::<0x31>(first, second));
            } else {
                look_up(lower, upper, now, place, ahead);
            }
        }
        (codes, out, span.left) = (later, rest, span.group);
    }
}

/// Asks for the line of memory `ahead` of a result, to write it.
#[inline(always)]
pub(super) fn expect(out: *const u8, ahead: usize) {
    // SAFETY: a prefetch never faults, and processors without this one take it for nothing.
    unsafe { _mm_prefetch::<_MM_HINT_ET0>(out.wrapping_add(ahead).cast()) };
}

/// # Safety
/// As [`Avx2`] promises.
#[target_feature(enable = "avx2,f16c,fma,bmi2")]
unsafe fn indexed(op: &Op, runs: &Runs<'_>, order: &[u32], codes: &[u8], out: &mut [u8]) -> usize {
    let groups = runs.scales.len();
    let plain = matches!(op.values, Values::Unsigned { .. }) && op.tail == Tail::Scale;
    if !plain || groups == 0 || !(runs.zeros.is_empty() || runs.zeros.len() == groups) {
        return 0;
    }
    let last = _mm256_set1_epi32(i32::try_from(groups - 1).unwrap_or(0));
    let eights = codes.chunks_exact(8).zip(order.chunks_exact(8)).zip(out.chunks_exact_mut(32));
    let mut done = 0;
    for ((codes, order), out) in eights {
        // SAFETY: eight of each; groups are made to be below their number.
        unsafe {
            let groups = _mm256_min_epu32(_mm256_loadu_si256(order.as_ptr().cast()), last);
            let value = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(codes.as_ptr().cast())));
            let scale = _mm256_i32gather_ps::<4>(runs.scales.as_ptr(), groups);
            let zero = match runs.zeros.is_empty() {
                true => _mm256_set1_ps(op.zero),
                false => _mm256_i32gather_ps::<4>(runs.zeros.as_ptr(), groups),
            };
            _mm256_storeu_ps(out.as_mut_ptr().cast(), tail(op.tail, value, scale, zero));
        }
        done += 8;
    }
    done
}

/// The last codes, too few for a whole step, by way of room for one.
fn in_room<const CODES: usize, const OUT: usize>(rest: &[u8], out: &mut [u8], step: impl Fn(*const u8, *mut u8)) {
    if rest.is_empty() {
        return;
    }
    let (mut codes, mut room) = ([0; CODES], [0; OUT]);
    for (place, code) in codes.iter_mut().zip(rest) {
        *place = *code;
    }
    step(codes.as_ptr(), room.as_mut_ptr());
    for (place, byte) in out.iter_mut().zip(room) {
        *place = byte;
    }
}
