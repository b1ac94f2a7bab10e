// SPDX-License-Identifier: Apache-2.0
//! The arithmetic, one element at a time.
#![forbid(unsafe_code)]
#![allow(clippy::arithmetic_side_effects, reason = "bit fields")]

use super::op::{Op, Pieces, Runs, Tail, Values};
use crate::convert::{to_bf16, to_f16};
use crate::dtype::Dtype;

pub(super) fn run(op: &Op, runs: &Runs<'_>, codes: &[u8], to: Dtype, out: &mut [u8]) {
    let size = if to == Dtype::F32 { 4 } else { 2 };
    let mut pieces = Pieces::new(op, runs, codes, size, out);
    while let Some(piece) = pieces.next() {
        let values = piece.codes.iter().map(|code| value(op, *code, piece.scale, piece.zero));
        match to {
            Dtype::F32 => put(values, piece.out, f32::to_le_bytes),
            Dtype::F16 => put(values, piece.out, |value| to_f16(value.to_bits()).to_le_bytes()),
            _ => put(values, piece.out, |value| to_bf16(value.to_bits()).to_le_bytes()),
        }
    }
}

fn put<const N: usize>(values: impl Iterator<Item = f32>, out: &mut [u8], bytes: impl Fn(f32) -> [u8; N]) {
    for (value, place) in values.zip(out.chunks_exact_mut(N)) {
        place.copy_from_slice(&bytes(value));
    }
}

/// The value of one code.
pub(super) fn value(op: &Op, code: u8, scale: f32, zero: f32) -> f32 {
    tail(op.tail, plain(op.values, code), scale, zero)
}

/// The value of a code before it is scaled.
fn plain(values: Values, code: u8) -> f32 {
    match values {
        Values::Table(table) => table.get(usize::from(code & 0xf)).copied().unwrap_or_default(),
        Values::Unsigned { .. } => f32::from(code),
        Values::Signed => f32::from(i8::from_le_bytes([code])),
        Values::E2M3 => E2M3.get(usize::from(code & 0x3f)).copied().unwrap_or_default(),
        Values::E4M3 => small(code, 4, 3, 7),
        Values::E5M2 => small(code, 5, 2, 15),
    }
}

pub(super) fn tail(tail: Tail, value: f32, scale: f32, zero: f32) -> f32 {
    match tail {
        Tail::Scale => (value - zero) * scale,
        Tail::Times(last) => ((value - zero) * scale) * last,
        Tail::Over(last) => ((value - zero) * scale) / last,
        Tail::Offset => value.mul_add(scale, zero),
    }
}

/// A float of 8 bits. The E4M3 kind has no infinity, the E5M2 kind has.
fn small(code: u8, exponent_bits: u32, mantissa_bits: u32, bias: i32) -> f32 {
    let code = u32::from(code);
    let magnitude = code & 0x7f;
    let (exponent, mantissa) = (magnitude >> mantissa_bits, magnitude & ((1 << mantissa_bits) - 1));
    let all = (1 << exponent_bits) - 1;
    let last = (1 << mantissa_bits) - 1;
    // Exact: both are within F32's normal numbers.
    let power = |exponent: i32| f32::from_bits(((127 + exponent) as u32) << 23);
    let unit = mantissa as f32 * power(-(mantissa_bits as i32));
    let value = match (exponent, mantissa) {
        (exponent, 0) if exponent_bits == 5 && exponent == all => f32::INFINITY,
        (exponent, _) if exponent_bits == 5 && exponent == all => f32::NAN,
        (exponent, mantissa) if exponent_bits == 4 && exponent == all && mantissa == last => f32::NAN,
        (0, _) => unit * power(1 - bias),
        (exponent, _) => (1.0 + unit) * power(exponent as i32 - bias),
    };
    if code & 0x80 == 0 {
        value
    } else {
        -value
    }
}

/// FP6's values by code.
pub(super) static E2M3: [f32; 64] = {
    let mut values = [0.0; 64];
    let mut code: u32 = 0;
    while code < 64 {
        let (exponent, fraction) = (code >> 3 & 3, (code & 7) as f32 / 8.0);
        let value = if exponent == 0 { fraction } else { (1.0 + fraction) * (1 << (exponent - 1)) as f32 };
        #[allow(clippy::indexing_slicing, reason = "below 64")]
        {
            values[code as usize] = if code & 0x20 == 0 { value } else { -value };
        }
        code += 1;
    }
    values
};

/// The values of codes as F32 where an index says each column's group.
pub(super) fn indexed(op: &Op, runs: &Runs<'_>, order: &[u32], codes: &[u8], out: &mut [u8]) {
    for ((code, group), place) in codes.iter().zip(order).zip(out.chunks_exact_mut(4)) {
        let group = usize::try_from(*group).unwrap_or(usize::MAX);
        let scale = runs.scales.get(group).copied().unwrap_or_default();
        let zero = runs.zeros.get(group).copied().unwrap_or(op.zero);
        place.copy_from_slice(&value(op, *code, scale, zero).to_le_bytes());
    }
}

/// Words `from` to `to` of some lines of a store that is `across` words wide: each to its
/// place in the line of `stride` bytes for its number.
pub(super) fn turn(
    bytes: &[u8],
    across: usize,
    (from, to): (usize, usize),
    (first, last): (usize, usize),
    stride: usize,
    turned: &mut [u8],
) -> Option<()> {
    // Chunks of a known size, and no iterators: out of line those cost more than the work.
    for line in first..last {
        let start = (line * across + from) * 4;
        let mut row = bytes.get(start..start + (to - from) * 4)?;
        let mut place = from * stride + line * 4;
        while let Some((word, later)) = row.split_first_chunk::<4>() {
            *turned.get_mut(place..)?.first_chunk_mut()? = *word;
            (place, row) = (place + stride, later);
        }
    }
    Some(())
}

/// Two codes of each byte.
pub(super) fn nibbles(bytes: &[u8], room: &mut [u8], high_first: bool) {
    for (byte, codes) in bytes.iter().zip(room.chunks_mut(2)) {
        let (low, high) = (byte & 0xf, byte >> 4);
        let pair = if high_first { [high, low] } else { [low, high] };
        for (code, place) in pair.into_iter().zip(codes) {
            *place = code;
        }
    }
}

/// One nibble of each word of 32 bits: that from bit `shift` on.
pub(super) fn nibble_of_words(mut words: &[u8], shift: u32, room: &mut [u8]) -> Option<()> {
    for code in room {
        let (word, later) = words.split_first_chunk::<4>()?;
        *code = u8::try_from(u32::from_le_bytes(*word) >> shift & 0xf).unwrap_or_default();
        words = later;
    }
    Some(())
}

/// Codes of so many bits: eight at a time out of the bytes that they fill.
pub(super) fn stream(mut bytes: &[u8], shift: u32, bits: u32, room: &mut [u8]) -> Option<()> {
    let mask = (1_u128 << bits) - 1;
    let each = bits as usize;
    for codes in room.chunks_mut(8) {
        let mut window = [0_u8; 16];
        let have = (each + 1).min(bytes.len());
        if (codes.len() * each + shift as usize).div_ceil(8) > have {
            return None;
        }
        window.get_mut(..have)?.copy_from_slice(bytes.get(..have)?);
        let mut window = u128::from_le_bytes(window) >> shift;
        for code in codes {
            *code = u8::try_from(window & mask).unwrap_or_default();
            window >>= bits;
        }
        bytes = bytes.get(each..).unwrap_or_default();
    }
    Some(())
}
