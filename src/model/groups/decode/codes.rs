// SPDX-License-Identifier: Apache-2.0
//! Codes out of their packing: where they lie as a kernel takes them, and else one a
//! byte, in the order of a row.
#![forbid(unsafe_code)]
#![allow(clippy::arithmetic_side_effects, reason = "numbers of elements of a box; divisors are above 0")]
#![allow(clippy::cast_possible_truncation, reason = "keeping the low bits is what the casts are for")]

use std::ops::Range;

use super::kernel::Level;
use super::op::Packed;
use super::view::{FlatRows, View};
use crate::base::memory::Aligned;
use crate::error::Result;
use crate::model::groups::group::Group;
use crate::model::groups::recipe::Recipe;
use crate::model::groups::recipe::{nibble_of_awq, Packing};

pub(super) struct Codes<'a> {
    level: Level,
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
    pub(super) fn new(level: Level, group: &Group, recipe: Recipe, logical: &[Range<u64>], view: View<'a>) -> Self {
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
        Self { level, packing: recipe.packing, bits, view, row_bytes, skip, flat, columns, rows }
    }

    /// Whether a line of the store has codes of many rows.
    pub(super) fn is_turned(&self) -> bool {
        matches!(self.packing, Packing::Columns | Packing::AwqColumns)
    }

    fn row(&self, row: usize) -> Option<&'a [u8]> {
        let start = row.checked_mul(self.row_bytes)?;
        self.view.bytes.get(start..start.checked_add(self.row_bytes)?)
    }

    /// A row's codes where they lie, from number `at` of the box on; `None` where they
    /// have to be unpacked.
    pub(super) fn lying(&self, row: usize, at: usize) -> Option<Packed<'a>> {
        let column = at as u64;
        let from_bit =
            |bit: u64| self.row(row)?.get(usize::try_from(bit / 8).ok()?..).filter(|_| bit.is_multiple_of(8));
        match (self.packing, self.bits) {
            (Packing::Bytes, _) => from_bit(8 * column).map(Packed::Bytes),
            (Packing::Stream, 8) => from_bit(self.skip + 8 * column).map(Packed::Bytes),
            (Packing::Stream, 4) => from_bit(self.skip + 4 * column).map(Packed::LowNibbles),
            (Packing::HighNibbles, _) => from_bit(self.skip + 4 * column).map(Packed::HighNibbles),
            (Packing::FlatNibbles, _) => {
                let number = self.flat_number(row, at)?;
                let bytes = self.view.bytes.get(usize::try_from(number / 2).ok()?..);
                bytes.filter(|_| number.is_multiple_of(2)).map(Packed::HighNibbles)
            }
            _ => None,
        }
    }

    /// The number of a code among those there are, where all rows are one run.
    fn flat_number(&self, row: usize, at: usize) -> Option<u64> {
        let number = self.flat.as_ref()?.start_of(row) + self.columns.start + at as u64;
        number.checked_sub(2 * self.view.start(1))
    }

    /// The same, one a byte in all of `room`.
    pub(super) fn unpack(&self, row: usize, at: usize, room: &mut [u8]) -> Option<()> {
        match self.packing {
            Packing::Stream => {
                let skip = self.skip + at as u64 * u64::from(self.bits);
                stream(self.level, self.row(row)?, skip, self.bits, room)
            }
            Packing::HighNibbles => self.nibbles(self.row(row)?, self.skip / 4 + at as u64, room),
            Packing::PaddedWords => {
                let per = u64::from(32 / self.bits);
                let first = self.columns.start / per * per;
                padded(self.row(row)?, self.columns.start - first + at as u64, self.bits, room)
            }
            Packing::FlatNibbles => self.nibbles(self.view.bytes, self.flat_number(row, at)?, room),
            Packing::Bytes | Packing::Columns | Packing::AwqColumns => None,
        }
    }

    /// Nibbles, the high one of a byte first, from number `at` on.
    fn nibbles(&self, bytes: &[u8], at: u64, room: &mut [u8]) -> Option<()> {
        let bytes = bytes.get(usize::try_from(at / 2).ok()?..)?;
        if at.is_multiple_of(2) {
            return self.level.nibbles(bytes, room, true);
        }
        let (first, rest) = room.split_first_mut()?;
        let (byte, later) = bytes.split_first()?;
        *first = byte & 0xf;
        self.level.nibbles(later, rest, true)
    }
}

/// Codes of a stream, the first of which begins at bit `skip`.
pub(super) fn stream(level: Level, bytes: &[u8], skip: u64, bits: u32, room: &mut [u8]) -> Option<()> {
    level.stream(bytes.get(usize::try_from(skip / 8).ok()?..)?, (skip % 8) as u32, bits, room)
}

/// As many as fit in each word.
pub(super) fn padded(bytes: &[u8], at: u64, bits: u32, room: &mut [u8]) -> Option<()> {
    let per = u64::from(32 / bits);
    let mask = (1_u32 << bits) - 1;
    for (code, number) in room.iter_mut().zip(at..) {
        let start = usize::try_from(number / per).ok()?.checked_mul(4)?;
        let word = u32::from_le_bytes(*bytes.get(start..)?.first_chunk()?);
        *code = ((word >> (number % per * u64::from(bits))) & mask) as u8;
    }
    Some(())
}

/// Words of some rows and columns after they have been turned: lines of bytes.
pub(super) struct Strip {
    bytes: Aligned,
    /// The first of its rows, and how many there are at most.
    first: usize,
    pub(super) rows: usize,
    /// Lines' words, and their bytes.
    words: usize,
    stride: usize,
}

/// Lines of a strip, a row of GPTQ each. With 16, one cache line of the store at a time,
/// decoding takes 8 % longer, whatever the length of lines; with 256 it takes 4 % longer.
const LINES: usize = 64;
/// Lines of AWQ, whose words hold a code of each of eight rows. With half of them decoding
/// takes 8 % longer, with half of the words, a code each, 40 % longer.
const AWQ_LINES: usize = 32;
/// Words of a line.
const WORDS: usize = 128;
const AWQ_WORDS: usize = 512;
/// Bytes of a cache line. Lines of a strip are an odd number of them, so that they do not
/// fall on the same sets of the cache.
const LINE: usize = 64;

impl Strip {
    pub(super) fn new(codes: &Codes<'_>) -> Result<Self> {
        let (lines, rows, words) = match codes.packing {
            // The first and the last word may be of rows outside the strip too.
            Packing::AwqColumns => (AWQ_LINES + 1, 8 * AWQ_LINES, AWQ_WORDS),
            _ => (LINES, LINES, WORDS),
        };
        // A period may begin and end within words.
        let stride = ((words + 1) * 4).div_ceil(LINE) / 2 * 2 * LINE + LINE;
        let bytes = Aligned::zeroed(stride * lines, "a group's codes")?;
        Ok(Self { bytes, first: 0, rows, words, stride })
    }

    /// Turns words of `count` rows from `first` on; says how many codes from `at` on they hold.
    pub(super) fn fill(
        &mut self,
        codes: &Codes<'_>,
        first: usize,
        count: usize,
        at: usize,
        most: usize,
    ) -> Option<usize> {
        self.first = first;
        let across = codes.view.count(0);
        let column = codes.columns.start + at as u64;
        let (bytes, words, lines, held) = if codes.packing == Packing::AwqColumns {
            let held = most.min(self.words);
            // The words' columns of the strip: one more where the box begins within one.
            let row = codes.rows.start + first as u64;
            let (from, to) = (row / 8, (row + count as u64).div_ceil(8));
            let start = usize::try_from(from - codes.view.start(0)).ok()?;
            (codes.view.bytes.get((at * across + start) * 4..)?, usize::try_from(to - from).ok()?, held, held)
        } else {
            let bits = u64::from(codes.bits);
            let first_word = column * bits / 32;
            // Whole periods, or to the end.
            let held = (self.words as u64 * 32 / bits) / 32 * 32 - column % 32;
            let held = (most as u64).min(held);
            let last_word = ((column + held) * bits).div_ceil(32);
            let start = usize::try_from(first_word - codes.view.start(1)).ok()?;
            let lines = usize::try_from(last_word - first_word).ok()?;
            (codes.view.bytes.get((start * across + first) * 4..)?, count, lines, usize::try_from(held).ok()?)
        };
        codes.level.turn(bytes, across, words, lines, self.stride, self.bytes.as_mut())?;
        Some(held)
    }

    fn line(&self, number: usize) -> Option<&[u8]> {
        let start = number.checked_mul(self.stride)?;
        self.bytes.as_slice().get(start..start.checked_add(self.stride)?)
    }

    /// The codes of one of its rows from `at` on, which is where it was filled: where they
    /// lie, or in `desk`.
    pub(super) fn row<'s>(
        &'s self,
        codes: &Codes<'_>,
        row: usize,
        at: usize,
        desk: &'s mut [u8],
    ) -> Option<Packed<'s>> {
        if codes.packing == Packing::AwqColumns {
            let (begin, row) = ((codes.rows.start + self.first as u64) / 8, codes.rows.start + row as u64);
            let line = self.line(usize::try_from(row / 8 - begin).ok()?)?;
            codes.level.nibble_of_words(line, 4 * nibble_of_awq(row)?, desk)?;
            return Some(Packed::Bytes(desk));
        }
        let line = self.line(row - self.first)?;
        let skip = (codes.columns.start + at as u64) * u64::from(codes.bits) % 32;
        let bytes = line.get(usize::try_from(skip / 8).ok()?..)?;
        match codes.bits {
            8 => Some(Packed::Bytes(bytes)),
            4 if skip.is_multiple_of(8) => Some(Packed::LowNibbles(bytes)),
            bits => {
                codes.level.stream(bytes, (skip % 8) as u32, bits, desk)?;
                Some(Packed::Bytes(desk))
            }
        }
    }
}
