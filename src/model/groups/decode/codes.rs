// SPDX-License-Identifier: Apache-2.0
//! Codes out of their packing: one a byte, in the order of a row.
#![forbid(unsafe_code)]
#![allow(clippy::arithmetic_side_effects, reason = "numbers of elements of a box; divisors are above 0")]
#![allow(clippy::cast_possible_truncation, reason = "keeping the low bits is what the casts are for")]

use std::ops::Range;

use super::kernel;
use super::view::{FlatRows, View};
use crate::model::groups::recipe::Packing;
use crate::model::groups::{Group, Recipe};

/// Which nibble of AWQ's words is column 0, 1, ... of the word.
pub(super) const AWQ: [u32; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

/// Rows that are turned at once: their words fill a cache line of the store.
pub(super) const STRIP: usize = 16;
/// Words of each; of AWQ's lines, which have words of eight rows, more.
const WORDS: usize = 64;
const AWQ_WORDS: usize = 512;
/// Bytes of a line: a word more, in which a part of a period may end, and so
/// many that lines do not fall on the same sets of the cache.
const LINE: usize = (WORDS + 4) * 4;

/// Words of some rows, after being turned: lines of bytes.
pub(super) struct Strip {
    bytes: Vec<u8>,
    line: usize,
}

impl Strip {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; (LINE * STRIP).max(AWQ_WORDS * 4 * 3)], line: LINE }
    }

    fn line(&self, number: usize) -> Option<&[u8]> {
        self.bytes.get(number * self.line..(number + 1) * self.line)
    }
}

pub(super) struct Codes<'a> {
    packing: Packing,
    bits: u32,
    view: View<'a>,
    /// Bytes of a row of the box, and bits from its beginning to the box's first code.
    row_bytes: usize,
    skip: u64,
    /// Of the whole tensor where codes are one run.
    flat: Option<FlatRows>,
    columns: Range<u64>,
    rows: Range<u64>,
}

impl<'a> Codes<'a> {
    pub(super) fn new(group: &Group, recipe: Recipe, logical: &[Range<u64>], view: View<'a>) -> Self {
        let columns = logical.last().cloned().unwrap_or(0..0);
        let rows = logical.len().checked_sub(2).and_then(|row| logical.get(row)).cloned().unwrap_or(0..1);
        let bits = group.bits;
        let row_count: u64 = logical.iter().rev().skip(1).map(|range| range.end - range.start).product();
        let row_bytes =
            usize::try_from(row_count).ok().and_then(|rows| view.bytes.len().checked_div(rows)).unwrap_or(0);
        let word = u64::from(view.dtype.bits());
        let b = u64::from(bits);
        let skip = match recipe.packing {
            Packing::Stream | Packing::HighNibbles => {
                let gpt_oss = view.ranges.len() > logical.len();
                let unit = if gpt_oss { 32 * b } else { word };
                columns.start * b - columns.start * b / unit * unit
            }
            _ => 0,
        };
        let flat = FlatRows::new(group, logical).filter(|_| recipe.packing == Packing::FlatNibbles);
        Self { packing: recipe.packing, bits, view, row_bytes, skip, flat, columns, rows }
    }

    pub(super) fn bits(&self) -> u32 {
        self.bits
    }

    /// The codes of a row from number `at` of the box on: in `room`, or where they lie.
    pub(super) fn unpack<'c>(&'c self, row: usize, at: usize, room: &'c mut [u8]) -> Option<&'c [u8]> {
        let bytes = |row: usize| {
            let start = row.checked_mul(self.row_bytes)?;
            self.view.bytes.get(start..start.checked_add(self.row_bytes)?)
        };
        match self.packing {
            Packing::Bytes => return bytes(row)?.get(at..at + room.len()),
            Packing::Stream if self.bits == 8 => {
                let start = usize::try_from(self.skip / 8).ok()? + at;
                return bytes(row)?.get(start..start + room.len());
            }
            Packing::Stream => stream(bytes(row)?, self.skip + at as u64 * u64::from(self.bits), self.bits, room)?,
            Packing::HighNibbles => nibbles(bytes(row)?, self.skip / 4 + at as u64, room)?,
            Packing::PaddedWords => {
                let per = u64::from(32 / self.bits);
                let first = self.columns.start / per * per;
                padded(bytes(row)?, self.columns.start - first + at as u64, self.bits, room)?;
            }
            Packing::FlatNibbles => {
                let place = self.flat.as_ref()?.start_of(row) + self.columns.start + at as u64;
                nibbles(self.view.bytes, place - 2 * self.view.start(1), room)?;
            }
            Packing::Columns | Packing::AwqColumns => return None,
        }
        Some(room)
    }

    /// Turns words of `count` rows from `first` on; says how many codes from `at` on they hold.
    pub(super) fn turn(&self, first: usize, count: usize, at: usize, most: usize, strip: &mut Strip) -> Option<usize> {
        let across = self.view.count(0);
        let column = self.columns.start + at as u64;
        if self.packing == Packing::AwqColumns {
            let most = most.min(AWQ_WORDS);
            strip.line = AWQ_WORDS * 4;
            // The words' columns of the strip: two, or three where the box begins within one.
            let row = self.rows.start + first as u64;
            let (from, to) = (row / 8, (row + count as u64).div_ceil(8));
            let start = usize::try_from(from - self.view.start(0)).ok()?;
            let words = usize::try_from(to - from).ok()?;
            let bytes = self.view.bytes.get((at * across + start) * 4..)?;
            kernel::turn(bytes, across, most, words, strip.line, &mut strip.bytes)?;
            return Some(most);
        }
        let bits = u64::from(self.bits);
        let first_word = column * bits / 32;
        // Whole periods, or to the end.
        let codes = (WORDS as u64 * 32 / bits) / 32 * 32 - column % 32;
        let codes = (most as u64).min(codes);
        let last_word = ((column + codes) * bits).div_ceil(32);
        let start = usize::try_from(first_word - self.view.start(1)).ok()?;
        let words = usize::try_from(last_word - first_word).ok()?;
        let bytes = self.view.bytes.get((start * across + first) * 4..)?;
        strip.line = LINE;
        kernel::turn(bytes, across, words, count, LINE, &mut strip.bytes)?;
        usize::try_from(codes).ok()
    }

    /// The codes of a row of the strip from `at` on, which is where it was turned.
    pub(super) fn unpack_turned(
        &self,
        strip: &Strip,
        row: usize,
        first: usize,
        at: usize,
        room: &mut [u8],
    ) -> Option<()> {
        if self.packing == Packing::AwqColumns {
            let (begin, row) = ((self.rows.start + first as u64) / 8, self.rows.start + row as u64);
            let line = strip.line(usize::try_from(row / 8 - begin).ok()?)?;
            let nibble = AWQ.get(usize::try_from(row % 8).ok()?)?;
            return kernel::nibble_of_words(line, 4 * nibble, room);
        }
        let line = strip.line(row - first)?;
        let bits = u64::from(self.bits);
        let skip = (self.columns.start + at as u64) * bits % 32;
        match self.bits {
            8 => {
                let start = usize::try_from(skip / 8).ok()?;
                room.copy_from_slice(line.get(start..start + room.len())?);
                Some(())
            }
            _ => stream(line, skip, self.bits, room),
        }
    }
}

/// Codes of a stream, the first of which begins at bit `skip`.
pub(super) fn stream(bytes: &[u8], skip: u64, bits: u32, room: &mut [u8]) -> Option<()> {
    let bytes = bytes.get(usize::try_from(skip / 8).ok()?..)?;
    let shift = (skip % 8) as u32;
    match (bits, shift) {
        (4, 0) => kernel::low_nibbles(bytes, room),
        _ => spread(bytes, shift, bits, room),
    }
}

/// Eight codes at a time out of the bytes that they fill.
fn spread(bytes: &[u8], shift: u32, bits: u32, room: &mut [u8]) -> Option<()> {
    let mask = (1_u128 << bits) - 1;
    let each = bits as usize;
    let mut bytes = bytes;
    for codes in room.chunks_mut(8) {
        let mut window = [0_u8; 16];
        let have = (each + 1).min(bytes.len());
        if (codes.len() * each + shift as usize).div_ceil(8) > have {
            return None;
        }
        window.get_mut(..have)?.copy_from_slice(bytes.get(..have)?);
        let mut window = u128::from_le_bytes(window) >> shift;
        for code in codes {
            *code = (window & mask) as u8;
            window >>= bits;
        }
        bytes = bytes.get(each..).unwrap_or_default();
    }
    Some(())
}

/// Nibbles, the high one of a byte first, from number `at` on.
fn nibbles(bytes: &[u8], at: u64, room: &mut [u8]) -> Option<()> {
    let bytes = bytes.get(usize::try_from(at / 2).ok()?..)?;
    if at.is_multiple_of(2) {
        return kernel::high_nibbles(bytes, room);
    }
    let (first, rest) = room.split_first_mut()?;
    let (byte, later) = bytes.split_first()?;
    *first = byte & 0xf;
    kernel::high_nibbles(later, rest)
}

/// As many as fit in each word.
fn padded(bytes: &[u8], at: u64, bits: u32, room: &mut [u8]) -> Option<()> {
    let per = u64::from(32 / bits);
    let mask = (1_u32 << bits) - 1;
    for (code, number) in room.iter_mut().zip(at..) {
        let start = usize::try_from(number / per).ok()?.checked_mul(4)?;
        let word = u32::from_le_bytes(*bytes.get(start..)?.first_chunk()?);
        *code = ((word >> (number % per * u64::from(bits))) & mask) as u8;
    }
    Some(())
}
