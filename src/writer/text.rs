// SPDX-License-Identifier: Apache-2.0
//! JSON to be written: headers byte for byte as the reference makes them, and
//! index files as the hub has them.
#![forbid(unsafe_code)]

use super::spelling::{
    push_ascii_string, push_string, put_spelled, spelled_len, BEFORE_DTYPE, BEFORE_OFFSETS, BEFORE_SHAPE,
    BEHIND_OFFSETS, ESCAPE_BYTES,
};
use super::tensor::NewTensor;
use super::MetadataEntry;
use crate::base::memory::{self, Filler};
use crate::base::parallel::{self, WORTH_A_THREAD};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::format::header::LENGTH_BYTES;
use crate::options::Limits;

/// More than what is between texts in metadata and in an index.
const BETWEEN: usize = 32;
/// How many tensors' names are touched at once.
const BATCH: usize = 64;
/// What eight digits hold, and sixteen, which no file's size takes.
const EIGHT_DIGITS: u64 = 100_000_000;
const SIXTEEN_DIGITS: u64 = EIGHT_DIGITS * EIGHT_DIGITS;
/// What makes eight digits ASCII.
const ASCII: u64 = u64::from_le_bytes([b'0'; 8]);
const ASCII_ZERO: u64 = b'0' as u64;

/// A file's length field and header text: measured, and then written into one
/// block of just its size, by two threads where it is long.
pub(super) struct HeaderText<'a> {
    /// Room for the length field, and all that stands before the tensors.
    head: Vec<u8>,
    first: EntryRun<'a>,
    second: EntryRun<'a>,
}

/// Tensors that follow one another in the file.
#[derive(Clone, Copy)]
struct EntryRun<'a> {
    tensors: &'a [NewTensor<'a>],
    /// Where each ends in the data section, and where the first begins.
    ends: &'a [u64],
    begin: u64,
    /// Bytes of their entries.
    len: usize,
}

impl<'a> HeaderText<'a> {
    /// The header of tensors in the file's order, each of which ends at one of
    /// `ends` in the data section. `metadata` is in its final order.
    pub(super) fn new(
        metadata: Option<&[MetadataEntry<'_>]>,
        tensors: &'a [NewTensor<'a>],
        ends: &'a [u64],
    ) -> Result<Self> {
        let mut head = vec![0; LENGTH_BYTES];
        head.push(b'{');
        if let Some(entries) = metadata {
            head.extend_from_slice(b"\"__metadata__\":{");
            for (number, (key, value)) in entries.iter().enumerate() {
                let room = spelled_len(key).saturating_add(spelled_len(value)).saturating_add(BETWEEN);
                memory::reserve(&mut head, room, "header")?;
                head.extend_from_slice(if number == 0 { b"" } else { b"," });
                push_string(&mut head, key);
                head.push(b':');
                push_string(&mut head, value);
            }
            head.extend_from_slice(if tensors.is_empty() { b"}" } else { b"}," });
        }
        let middle = if tensors.len() < WORTH_A_THREAD { 0 } else { tensors.len() / 2 };
        let (first, second) = tensors.split_at_checked(middle).unwrap_or_default();
        let (first_ends, second_ends) = ends.split_at_checked(middle).unwrap_or_default();
        let begin = first_ends.last().copied().unwrap_or(0);
        Ok(Self { head, first: EntryRun::new(first, first_ends, 0), second: EntryRun::new(second, second_ends, begin) })
    }

    /// Where the text ends, from the file's start: the data can't begin before.
    pub(super) fn end(&self) -> u64 {
        // The last entry needs no comma after it, which leaves a byte for what
        // ends the text.
        let entries = self.first.len.saturating_add(self.second.len).max(1);
        self.head.len().saturating_add(entries) as u64
    }

    /// Length field and text, with spaces until the data begins at `start`,
    /// and room for `more` bytes after them.
    pub(super) fn write(&self, start: u64, more: usize) -> Result<Vec<u8>> {
        let length = start.saturating_sub(LENGTH_BYTES as u64);
        let end = usize::try_from(start).ok().filter(|_| length <= Limits::HEADER_BYTES);
        let Some(end) = end else {
            let text =
                format!("the header would have {length} bytes, and readers accept at most {}", Limits::HEADER_BYTES);
            return Err(Error::new(ErrorKind::HeaderTooLarge, text));
        };
        let mut out = memory::vec_with_capacity(end.saturating_add(more), "header")?;
        let until_second = self.head.len().saturating_add(self.first.len);
        let written = memory::fill(&mut out, until_second, |before, after| {
            let mut first = || before.put(&self.head).and_then(|()| self.first.put(before)).ok_or_else(other_length);
            let mut second = || self.second.put(after).ok_or_else(other_length);
            match self.first.tensors {
                [] => first().and_then(|()| second()).ok(),
                _ => parallel::both(&mut first, &mut second).ok(),
            }
        });
        if let ([], Some(())) = (self.second.tensors, written) {
            out.push(b' ');
        }
        if written.is_none() || out.len() as u64 != self.end() || out.len() > end {
            return Err(other_length());
        }
        if let Some(last) = out.last_mut() {
            *last = b'}';
        }
        out.resize(end, b' ');
        if let Some(field) = out.first_chunk_mut() {
            *field = length.to_le_bytes();
        }
        Ok(out)
    }
}

fn other_length() -> Error {
    Error::new(ErrorKind::Internal, "a header is not as long as was reckoned")
}

impl<'a> EntryRun<'a> {
    fn new(tensors: &'a [NewTensor<'a>], ends: &'a [u64], begin: u64) -> Self {
        let mut digits = Digits::default();
        let mut before = digits.of(begin);
        let entries = tensors.iter().zip(ends).map(|(tensor, end)| {
            let begin = std::mem::replace(&mut before, digits.of(*end));
            tensor.entry_len().saturating_add(begin).saturating_add(before)
        });
        let len = entries.fold(0, usize::saturating_add);
        Self { tensors, ends, begin, len }
    }

    /// Their entries, each with a comma after it.
    fn put(&self, out: &mut Filler<'_, u8>) -> Option<()> {
        let mut begin = Number::of(self.begin);
        let mut dtype = (Dtype::Unknown, Short::of(&[]));
        for (tensors, ends) in self.tensors.chunks(BATCH).zip(self.ends.chunks(BATCH)) {
            // Names are touched first, in a loop so short that the cache misses
            // overlap.
            let first = |tensor: &NewTensor<'_>| tensor.name.as_bytes().first().copied();
            std::hint::black_box(tensors.iter().filter_map(first).fold(0, |all, byte| all ^ byte));
            for (tensor, end) in tensors.iter().zip(ends) {
                if dtype.0 != tensor.dtype {
                    let name = tensor.dtype.name().as_bytes();
                    dtype = (tensor.dtype, Short::of(&[BEFORE_DTYPE, name, BEFORE_SHAPE]));
                }
                out.put(b"\"")?;
                match tensor.is_plain() {
                    true => out.put(tensor.name.as_bytes())?,
                    false => put_spelled(out, tensor.name)?,
                }
                dtype.1.put(out)?;
                for (number, dimension) in tensor.shape.iter().enumerate() {
                    if number != 0 {
                        out.put(b",")?;
                    }
                    Number::of(dimension.unsigned_abs()).put(out)?;
                }
                out.put(BEFORE_OFFSETS)?;
                begin.put(out)?;
                out.put(b",")?;
                begin = Number::of(*end);
                begin.put(out)?;
                out.put(BEHIND_OFFSETS)?;
            }
        }
        Some(())
    }
}

/// Counts the digits of numbers that ascend.
#[derive(Default)]
struct Digits {
    count: usize,
    /// The first number with more.
    more_from: u64,
}

impl Digits {
    #[inline]
    fn of(&mut self, number: u64) -> usize {
        while number >= self.more_from {
            self.count = self.count.saturating_add(1);
            self.more_from = self.more_from.max(1).saturating_mul(10);
        }
        self.count
    }
}

/// A text of a few bytes, and zeros after it.
#[derive(Clone, Copy)]
struct Short {
    bytes: [u8; 40],
    len: usize,
}

impl Short {
    fn of(pieces: &[&[u8]]) -> Self {
        let mut bytes = [0; 40];
        let len = bytes.iter_mut().zip(pieces.iter().copied().flatten()).map(|(place, byte)| *place = *byte).count();
        Self { bytes, len }
    }

    #[inline(always)]
    fn put(&self, out: &mut Filler<'_, u8>) -> Option<()> {
        out.put_start(&self.bytes, self.len)
    }
}

/// A number and its digits: the first eight, and those after them, each with
/// the first one lowest.
#[derive(Clone, Copy)]
struct Number {
    value: u64,
    digits: [u64; 2],
    len: usize,
}

impl Number {
    #[inline(always)]
    fn of(value: u64) -> Self {
        match value {
            0..10 => Self { value, digits: [ASCII_ZERO | value, 0], len: 1 },
            10..EIGHT_DIGITS => Self::below_eight_digits(value),
            _ => Self::large(value),
        }
    }

    /// Without the digits that are 0 in front; the value is not 0.
    #[inline(always)]
    fn below_eight_digits(value: u64) -> Self {
        let digits = digits(value);
        let zeros = (digits.trailing_zeros() / 8).min(7);
        let digits = (digits | ASCII).wrapping_shr(zeros.saturating_mul(8));
        Self { value, digits: [digits, 0], len: 8_usize.saturating_sub(zeros as usize) }
    }

    fn large(value: u64) -> Self {
        let first = Self::below_eight_digits((value / EIGHT_DIGITS) % EIGHT_DIGITS);
        let [upper, _] = first.digits;
        let lower = digits(value % EIGHT_DIGITS) | ASCII;
        // What the first eight take of the lower ones moves up after the upper.
        let bits = 64_u32.saturating_sub(upper.leading_zeros()).next_multiple_of(8);
        let digits = match first.len {
            8 => [upper, lower],
            _ => [upper | lower.wrapping_shl(bits), lower.wrapping_shr(64_u32.wrapping_sub(bits))],
        };
        Self { value, digits, len: first.len.saturating_add(8) }
    }

    #[inline(always)]
    fn put(&self, out: &mut Filler<'_, u8>) -> Option<()> {
        // Not both at once: bytes that are read together but were written
        // separately, as these would be on the stack, stall the processor.
        let [first, after] = self.digits.map(u64::to_le_bytes);
        match self.value {
            0..EIGHT_DIGITS => out.put_start(&first, self.len),
            EIGHT_DIGITS..SIXTEEN_DIGITS => {
                out.put(&first)?;
                out.put_start(&after, self.len.saturating_sub(8))
            }
            _ => put_large(out, self.value),
        }
    }
}

#[cold]
fn put_large(out: &mut Filler<'_, u8>, number: u64) -> Option<()> {
    out.put(number.to_string().as_bytes())
}

/// The eight digits of a number below 100,000,000, the first one lowest: all at
/// once in a register. Bytes written one by one and read together would stall.
#[allow(clippy::arithmetic_side_effects, reason = "each lane holds its number, see below")]
#[inline(always)]
fn digits(number: u64) -> u64 {
    // Two lanes below 10,000, four below 100, eight below 10: what was divided
    // goes into the lower half of each. 10486 / 2^20 and 103 / 2^10 are 1/100
    // and 1/10 for all numbers that are so small.
    let lanes = (number / 10_000) | ((number % 10_000) << 32);
    let upper = ((lanes * 10_486) >> 20) & 0x7F_0000_007F;
    let lanes = upper | ((lanes - upper * 100) << 16);
    let upper = ((lanes * 103) >> 10) & 0x000F_000F_000F_000F;
    upper | ((lanes - upper * 10) << 8)
}

/// An index file as Python's `json.dumps(…, indent=2, sort_keys=True)` and a
/// newline make it, which is what the hub's libraries write. `entries` are
/// tensor and shard, by tensor.
pub(super) fn index<'a>(total_size: Option<u64>, entries: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    out.extend_from_slice(b"{\n");
    if let Some(size) = total_size {
        out.extend_from_slice(format!("  \"metadata\": {{\n    \"total_size\": {size}\n  }},\n").as_bytes());
    }
    out.extend_from_slice(b"  \"weight_map\": {");
    for (number, (tensor, shard)) in entries.enumerate() {
        let bytes = tensor.len().saturating_add(shard.len()).saturating_mul(ESCAPE_BYTES);
        memory::reserve(&mut out, bytes.saturating_add(BETWEEN), "index")?;
        out.extend_from_slice(if number == 0 { b"\n    " } else { b",\n    " });
        push_ascii_string(&mut out, tensor);
        out.extend_from_slice(b": ");
        push_ascii_string(&mut out, shard);
    }
    out.extend_from_slice(b"\n  }\n}\n");
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn headers_are_as_long_as_was_reckoned(
            given in prop::collection::vec(("(.|[\\x00-\\x30\"\\\\]){0,12}", 0_u32..49, any::<i64>()), 0..60),
            least in prop::sample::select(vec![0, 0, 0, WORTH_A_THREAD]),
            metadata in prop::option::of(prop::collection::vec((".{0,4}", ".{0,4}"), 0..3)),
            padding in 0..20_u64,
        ) {
            // Shapes reach 2^48 bytes, and so offsets of nearly all lengths.
            let shapes: Vec<_> = given.iter().map(|(_, bits, size)| [size & ((1 << bits) - 1), 1]).collect();
            let tensors = given.iter().zip(&shapes).map(|((name, ..), shape)| NewTensor::new(name, Dtype::U8, shape));
            let tensors: Vec<_> = tensors.map(|tensor| tensor.unwrap()).cycle().take(given.len().max(least)).collect();
            let sums = tensors.iter().scan(0, |end, tensor| Some(std::mem::replace(end, *end + tensor.size())));
            let begins: Vec<_> = sums.collect();
            let ends: Vec<_> = begins.iter().zip(&tensors).map(|(begin, tensor)| begin + tensor.size()).collect();

            let text = |text: &str| serde_json::to_string(text).unwrap();
            let entries = metadata.iter().map(|entries| {
                let entries: Vec<_> = entries.iter().map(|(key, value)| text(key) + ":" + &text(value)).collect();
                format!("\"__metadata__\":{{{}}}", entries.join(","))
            });
            let entries = entries.chain(tensors.iter().zip(begins.iter().zip(&ends)).map(|(tensor, (begin, end))| {
                let (name, size) = (text(tensor.name), tensor.shape[0]);
                format!("{name}:{{\"dtype\":\"U8\",\"shape\":[{size},1],\"data_offsets\":[{begin},{end}]}}")
            }));
            let expected = format!("{{{}}}", entries.collect::<Vec<_>>().join(","));

            let given = metadata.as_ref().map(|entries| entries.iter().map(|(key, value)| (&**key, &**value)).collect::<Vec<_>>());
            let header = HeaderText::new(given.as_deref(), &tensors, &ends).unwrap();
            prop_assert_eq!(header.end(), 8 + expected.len() as u64);
            let written = header.write(header.end() + padding, 0).unwrap();
            prop_assert_eq!(&written[..8], (expected.len() as u64 + padding).to_le_bytes());
            prop_assert_eq!(std::str::from_utf8(&written[8..]).unwrap(), expected + &" ".repeat(padding as usize));
        }

        #[test]
        fn numbers_are_spelled_as_they_are(bits in 0_u32..64, number in any::<u64>()) {
            let number = number >> bits;
            let mut text = Vec::with_capacity(40);
            memory::fill(&mut text, 0, |_, out| Number::of(number).put(out)).unwrap();
            prop_assert_eq!(text, number.to_string().into_bytes());
        }
    }
}
