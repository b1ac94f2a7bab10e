// SPDX-License-Identifier: Apache-2.0
//! Codes to values: a row's codes, group by group. What `scalar` says is what
//! every path must say.
#![forbid(unsafe_code)]

use super::parameters::Runs;
use super::scalar;
#[cfg(target_arch = "x86_64")]
use super::x86;
use crate::dtype::Dtype;

/// What codes stand for.
#[derive(Clone, Copy)]
pub(super) enum Values<'a> {
    Table(&'a [f32; 16]),
    Unsigned { bits: u32 },
    Signed,
    E2M3,
    E4M3,
    E5M2,
}

/// What a code's value x becomes, with its scale s and zero z. Each operation rounds.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Tail {
    /// (x - z) · s.
    Scale,
    /// ((x - z) · s) · this.
    Times(f32),
    /// ((x - z) · s) / this.
    Over(f32),
    /// x · s + z, rounded once.
    Offset,
}

/// How codes become values.
#[derive(Clone, Copy)]
pub(super) struct Op<'a> {
    pub(super) values: Values<'a>,
    pub(super) tail: Tail,
    /// The zero of all groups, where runs have none.
    pub(super) zero: f32,
}

impl Op<'_> {
    /// The values of codes of at most four bits.
    pub(super) fn table(&self) -> Option<[f32; 16]> {
        match self.values {
            Values::Table(table) => Some(*table),
            Values::Unsigned { bits: ..=4 } => Some(std::array::from_fn(|code| code as f32)),
            _ => None,
        }
    }
}

/// A run of codes with one scale.
pub(super) struct Piece<'a> {
    pub(super) codes: &'a [u8],
    pub(super) out: &'a mut [u8],
    pub(super) scale: f32,
    pub(super) zero: f32,
}

/// Cuts codes and results where groups end.
pub(super) struct Pieces<'a> {
    codes: &'a [u8],
    out: &'a mut [u8],
    scales: std::slice::Iter<'a, f32>,
    zeros: std::slice::Iter<'a, f32>,
    zero: f32,
    left: usize,
    group: usize,
    size: usize,
}

impl<'a> Pieces<'a> {
    #[inline(always)]
    pub(super) fn new(op: &Op<'_>, runs: &Runs<'a>, codes: &'a [u8], size: usize, out: &'a mut [u8]) -> Self {
        let (scales, zeros) = (runs.scales.iter(), runs.zeros.iter());
        Self { codes, out, scales, zeros, zero: op.zero, left: runs.left, group: runs.group, size }
    }

    #[inline(always)]
    pub(super) fn next(&mut self) -> Option<Piece<'a>> {
        if self.codes.is_empty() {
            return None;
        }
        let scale = *self.scales.next()?;
        let zero = self.zeros.next().copied().unwrap_or(self.zero);
        let count = self.left.min(self.codes.len());
        let (codes, later) = self.codes.split_at_checked(count)?;
        let (out, room) = std::mem::take(&mut self.out).split_at_mut_checked(count.checked_mul(self.size)?)?;
        (self.codes, self.out, self.left) = (later, room, self.group);
        Some(Piece { codes, out, scale, zero })
    }
}

/// Fills `out`, which has just the room, with what codes become.
pub(super) fn run(op: &Op<'_>, runs: &Runs<'_>, codes: &[u8], to: Dtype, out: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if x86::run(op, runs, codes, to, out) {
        return;
    }
    scalar::run(op, runs, codes, to, out);
}

/// The same where an index says each column's group; the values as F32.
pub(super) fn indexed(op: &Op<'_>, runs: &Runs<'_>, order: &[u32], codes: &[u8], values: &mut [f32]) {
    for ((code, group), value) in codes.iter().zip(order).zip(values) {
        let group = usize::try_from(*group).unwrap_or(usize::MAX);
        let scale = runs.scales.get(group).copied().unwrap_or_default();
        let zero = runs.zeros.get(group).copied().unwrap_or(op.zero);
        *value = scalar::value(op, *code, scale, zero);
    }
}

/// Rounds to the wanted dtype; `None` where there is no room.
pub(super) fn round(values: &[f32], to: Dtype, out: &mut [u8]) -> Option<()> {
    let mut bytes = [0_u8; 4 * 256];
    let size = if to == Dtype::F32 { 4 } else { 2 };
    for (values, out) in values.chunks(256).zip(out.chunks_mut(256 * size)) {
        let bytes = bytes.get_mut(..values.len().checked_mul(4)?)?;
        for (value, place) in values.iter().zip(bytes.chunks_exact_mut(4)) {
            place.copy_from_slice(&value.to_le_bytes());
        }
        crate::convert::convert(Dtype::F32, bytes, to, out).ok()?;
    }
    Some(())
}

/// Words of what is stored [lines, rows] to lines of `line` bytes, one for each of `rows` rows;
/// `bytes` begin at the first, and `across` words lie from one line of the store to the next.
pub(super) fn turn(
    bytes: &[u8],
    across: usize,
    words: usize,
    rows: usize,
    line: usize,
    lines: &mut [u8],
) -> Option<()> {
    // Chunks of a known size, and no iterators: out of line those cost more than the work.
    for word in 0..words {
        let start = word.checked_mul(across)?.checked_mul(4)?;
        let mut row = bytes.get(start..start.checked_add(rows.checked_mul(4)?)?)?;
        let mut place = word.checked_mul(4)?;
        while let Some((bytes, later)) = row.split_first_chunk::<4>() {
            *lines.get_mut(place..)?.first_chunk_mut()? = *bytes;
            place = place.checked_add(line)?;
            row = later;
        }
    }
    Some(())
}

/// One nibble of each word of 32 bits: that from bit `shift` on.
pub(super) fn nibble_of_words(words: &[u8], shift: u32, room: &mut [u8]) -> Option<()> {
    #[cfg(target_arch = "x86_64")]
    let done = x86::nibble_of_words(words, shift, room);
    #[cfg(not(target_arch = "x86_64"))]
    let done = 0;
    let mut words = words.get(done.checked_mul(4)?..)?;
    for code in room.get_mut(done..)? {
        let (word, later) = words.split_first_chunk::<4>()?;
        *code = u8::try_from(u32::from_le_bytes(*word) >> shift & 0xf).unwrap_or_default();
        words = later;
    }
    Some(())
}

/// Two codes of each byte, the low one first.
pub(super) fn low_nibbles(bytes: &[u8], room: &mut [u8]) -> Option<()> {
    if room.len().div_ceil(2) > bytes.len() {
        return None;
    }
    #[cfg(target_arch = "x86_64")]
    if x86::nibbles(bytes, room, false) {
        return Some(());
    }
    scalar::nibbles(bytes, room, |byte| [byte & 0xf, byte >> 4]);
    Some(())
}

/// Two codes of each byte, the high one first.
pub(super) fn high_nibbles(bytes: &[u8], room: &mut [u8]) -> Option<()> {
    if room.len().div_ceil(2) > bytes.len() {
        return None;
    }
    #[cfg(target_arch = "x86_64")]
    if x86::nibbles(bytes, room, true) {
        return Some(());
    }
    scalar::nibbles(bytes, room, |byte| [byte >> 4, byte & 0xf]);
    Some(())
}
