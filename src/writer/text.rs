// SPDX-License-Identifier: Apache-2.0
//! JSON to be written: headers byte for byte as the reference makes them, and
//! index files as the hub has them.
#![forbid(unsafe_code)]

use super::tensor::NewTensor;
use super::MetadataEntry;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::memory::{self, Filler};

/// What readers accept, the reference among them.
const LARGEST_HEADER: u64 = 100_000_000;
/// The length field.
pub(super) const LENGTH_BYTES: usize = 8;
/// All of an entry but its name, shape and the name's escapes.
const ENTRY_BYTES: usize = 100;
/// The longest escape, and the longest number with its comma.
const ESCAPE_BYTES: usize = 6;
const NUMBER_BYTES: usize = 21;
/// What eight digits hold, and sixteen, which no file's size takes.
const EIGHT_DIGITS: u64 = 100_000_000;
const SIXTEEN_DIGITS: u64 = EIGHT_DIGITS * EIGHT_DIGITS;
/// What makes eight digits ASCII.
const ASCII: u64 = u64::from_le_bytes([b'0'; 8]);
const ASCII_ZERO: u64 = b'0' as u64;

/// A file's length field and header text on the way, in memory that was made
/// long enough before: a growing vector would check its capacity and call
/// memcpy for each of many short texts, and take three times as long.
pub(super) struct HeaderText {
    text: Vec<u8>,
    /// Where the last tensor ended: the next one usually begins there.
    last: Number,
    /// What stands between a name and its shape, for the last tensor's dtype:
    /// the next one usually has the same.
    dtype: (Dtype, Short),
    /// Nothing stands before the next entry.
    first: bool,
    /// Something did not fit.
    overflow: bool,
}

/// The most bytes that an entry's text can take.
pub(super) fn entry_room(tensor: &NewTensor<'_>) -> usize {
    let shape = tensor.shape.len().saturating_mul(NUMBER_BYTES);
    string_room(tensor.name, tensor.plain).saturating_add(shape).saturating_add(ENTRY_BYTES)
}

fn string_room(text: &str, plain: bool) -> usize {
    match plain {
        true => text.len(),
        false => text.len().saturating_mul(ESCAPE_BYTES),
    }
}

impl HeaderText {
    /// The rest of a header, for [`Self::join`].
    pub(super) fn rest(room: usize) -> Result<Self> {
        let text = memory::vec_with_capacity(room, "header")?;
        let none = (Dtype::Unknown, Short::of(&[b""]));
        Ok(Self { text, last: Number::of(0), dtype: none, first: false, overflow: false })
    }

    /// Adds the rest of the header.
    pub(super) fn join(&mut self, rest: Self) -> Result<()> {
        memory::reserve(&mut self.text, rest.text.len(), "header")?;
        self.text.extend_from_slice(&rest.text);
        self.overflow |= rest.overflow;
        Ok(())
    }

    /// Begins a header; `metadata` is in its final order. `room` is for all
    /// entries that will be pushed.
    pub(super) fn new(metadata: Option<&[MetadataEntry<'_>]>, room: usize) -> Result<Self> {
        let entries = metadata.unwrap_or_default().iter();
        let for_metadata =
            entries.map(|(key, value)| string_room(key, false).saturating_add(string_room(value, false)));
        let for_metadata =
            for_metadata.fold(0_usize, |all, entry| all.saturating_add(entry).saturating_add(ENTRY_BYTES));
        let room = room.saturating_add(for_metadata).saturating_add(LENGTH_BYTES).saturating_add(ENTRY_BYTES);
        let mut this = Self { first: metadata.is_none(), ..Self::rest(room)? };
        let begin = |out: &mut Filler<'_, u8>| {
            out.put(&[0; LENGTH_BYTES])?;
            out.put(b"{")?;
            let Some(entries) = metadata else { return Some(()) };
            out.put(b"\"__metadata__\":{")?;
            for (number, (key, value)) in entries.iter().enumerate() {
                if number != 0 {
                    out.put(b",")?;
                }
                put_string(out, key, false)?;
                out.put(b":")?;
                put_string(out, value, false)?;
            }
            out.put(b"}")
        };
        this.overflow = memory::append(&mut this.text, begin).is_none();
        Ok(this)
    }

    /// Adds a tensor whose bytes are at `begin..end` of the data section.
    pub(super) fn push(&mut self, tensor: &NewTensor<'_>, begin: u64, end: u64) {
        if self.dtype.0 != tensor.dtype {
            let name = tensor.dtype.name().as_bytes();
            self.dtype = (tensor.dtype, Short::of(&[b":{\"dtype\":\"", name, b"\",\"shape\":["]));
        }
        let begin = if self.last.value == begin { self.last } else { Number::of(begin) };
        self.last = Number::of(end);
        let first = std::mem::replace(&mut self.first, false);
        let entry = |out: &mut Filler<'_, u8>| {
            if !first {
                out.put(b",")?;
            }
            put_string(out, tensor.name, tensor.plain)?;
            self.dtype.1.put(out)?;
            for (number, dimension) in tensor.shape.iter().enumerate() {
                if number != 0 {
                    out.put(b",")?;
                }
                Number::of(dimension.unsigned_abs()).put(out)?;
            }
            out.put(b"],\"data_offsets\":[")?;
            begin.put(out)?;
            out.put(b",")?;
            self.last.put(out)?;
            out.put(b"]}")
        };
        self.overflow |= memory::append(&mut self.text, entry).is_none();
    }

    /// Ends the header: spaces for `reserve` bytes more and until the data
    /// begins at a multiple of `alignment`, then the length field.
    pub(super) fn finish(mut self, reserve: u64, alignment: u64) -> Result<Vec<u8>> {
        self.close();
        let end = self.text.len() as u64;
        let start = end.checked_add(reserve).and_then(|end| end.checked_next_multiple_of(alignment));
        self.pad_to(start.unwrap_or(u64::MAX))
    }

    /// Ends the header with the data at `start`, if it fits; else says where
    /// the data would have to start at least.
    pub(super) fn finish_at(mut self, start: u64) -> Result<Result<Vec<u8>, u64>> {
        self.close();
        let end = self.text.len() as u64;
        if end > start {
            return Ok(Err(end));
        }
        self.pad_to(start).map(Ok)
    }

    fn pad_to(mut self, start: u64) -> Result<Vec<u8>> {
        if self.overflow {
            return Err(Error::new(ErrorKind::Internal, "a header is longer than was reckoned"));
        }
        let length = start.saturating_sub(LENGTH_BYTES as u64);
        let end = usize::try_from(start).ok().filter(|_| length <= LARGEST_HEADER);
        let Some(end) = end else {
            let text = format!("the header would have {length} bytes, and readers accept {LARGEST_HEADER}");
            return Err(Error::new(ErrorKind::HeaderTooLarge, text));
        };
        let padding = end.saturating_sub(self.text.len());
        memory::reserve(&mut self.text, padding, "header")?;
        self.text.resize(end, b' ');
        if let Some(field) = self.text.first_chunk_mut() {
            *field = length.to_le_bytes();
        }
        Ok(self.text)
    }

    fn close(&mut self) {
        self.overflow |= memory::append(&mut self.text, |out| out.put(b"}")).is_none();
    }
}

/// A JSON string with the escapes that serde_json writes, and no others.
#[inline(always)]
fn put_string(out: &mut Filler<'_, u8>, text: &str, plain: bool) -> Option<()> {
    out.put(b"\"")?;
    if plain {
        out.put(text.as_bytes())?;
    } else {
        put_escaped(out, text)?;
    }
    out.put(b"\"")
}

#[cold]
fn put_escaped(out: &mut Filler<'_, u8>, text: &str) -> Option<()> {
    let mut escaped = Vec::new();
    text.bytes().for_each(|byte| push_escaped(&mut escaped, byte));
    out.put(&escaped)
}

/// A text of a few bytes, and zeros behind it.
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

/// A number and its digits, the first one lowest.
#[derive(Clone, Copy)]
struct Number {
    value: u64,
    digits: u128,
    len: u32,
}

impl Number {
    #[inline(always)]
    fn of(value: u64) -> Self {
        match value {
            0..10 => Self { value, digits: u128::from(ASCII_ZERO | value), len: 1 },
            10..EIGHT_DIGITS => Self::below_eight_digits(value),
            _ => Self::large(value),
        }
    }

    /// Without the digits that are 0 in front; the value is not 0.
    #[inline(always)]
    fn below_eight_digits(value: u64) -> Self {
        let digits = digits(value);
        let zeros = (digits.trailing_zeros() / 8).min(7);
        Self {
            value,
            digits: u128::from((digits | ASCII).wrapping_shr(zeros.saturating_mul(8))),
            len: 8_u32.saturating_sub(zeros),
        }
    }

    fn large(value: u64) -> Self {
        let first = Self::below_eight_digits((value / EIGHT_DIGITS) % EIGHT_DIGITS);
        let others = u128::from(digits(value % EIGHT_DIGITS) | ASCII);
        Self {
            value,
            digits: first.digits | others.wrapping_shl(first.len.saturating_mul(8)),
            len: first.len.saturating_add(8),
        }
    }

    #[inline(always)]
    fn put(&self, out: &mut Filler<'_, u8>) -> Option<()> {
        match self.value {
            0..SIXTEEN_DIGITS => out.put_start(&self.digits.to_le_bytes(), self.len as usize),
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

/// Whether it is ASCII that needs no escape: eight bytes at a time, the last
/// eight once more, as names are too short for a loop and another for the rest.
#[inline]
pub(crate) fn is_plain(text: &[u8]) -> bool {
    const HIGH: u64 = u64::from_le_bytes([0x80; 8]);
    let Some(last) = text.last_chunk::<8>() else {
        return text.iter().all(|byte| matches!(byte, 0x20..0x80) && !matches!(byte, b'"' | b'\\'));
    };
    let (mut plain, mut rest) = (plain_in(*last), text);
    while let Some((word, behind)) = rest.split_first_chunk() {
        plain &= plain_in(*word);
        rest = behind;
    }
    plain & HIGH == HIGH
}

/// The highest bit of each byte that is plain, if all of them are ASCII, where
/// no sum reaches the next byte; else one is missing.
#[inline(always)]
fn plain_in(bytes: [u8; 8]) -> u64 {
    let (word, all) = (u64::from_le_bytes(bytes), |byte| u64::from_le_bytes([byte; 8]));
    let not = |byte| (word ^ all(byte)).wrapping_add(all(0x7F));
    !word & word.wrapping_add(all(0x60)) & not(b'"') & not(b'\\')
}

fn push_escaped(out: &mut Vec<u8>, byte: u8) {
    match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        0x08 => out.extend_from_slice(b"\\b"),
        0x0C => out.extend_from_slice(b"\\f"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        0..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
        _ => out.push(byte),
    }
}

/// An index file as Python's `json.dumps(…, indent=2, sort_keys=True)` and a
/// newline make it, which is what the hub's libraries write. `entries` are
/// tensor and shard, by tensor.
pub(super) fn index<'a>(total_size: u64, entries: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    out.extend_from_slice(b"{\n  \"metadata\": {\n    \"total_size\": ");
    out.extend_from_slice(total_size.to_string().as_bytes());
    out.extend_from_slice(b"\n  },\n  \"weight_map\": {");
    for (number, (tensor, shard)) in entries.enumerate() {
        let bytes = tensor.len().saturating_add(shard.len()).saturating_mul(ESCAPE_BYTES);
        memory::reserve(&mut out, bytes.saturating_add(ENTRY_BYTES), "index")?;
        out.extend_from_slice(if number == 0 { b"\n    " } else { b",\n    " });
        push_ascii_string(&mut out, tensor);
        out.extend_from_slice(b": ");
        push_ascii_string(&mut out, shard);
    }
    out.extend_from_slice(b"\n  }\n}\n");
    Ok(out)
}

/// A JSON string as Python writes it: everything outside ASCII escaped.
fn push_ascii_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for c in text.chars() {
        match u8::try_from(c) {
            Ok(byte) if byte < 0x7F => push_escaped(out, byte),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
                }
            }
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn only_what_is_its_own_spelling_is_plain(text in "(.|[\\x00-\\x30\"\\\\\\x7f\\x80]){0,40}") {
            let spelled = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(is_plain(text.as_bytes()), text.is_ascii() && spelled.len() == text.len() + 2);
        }

        #[test]
        fn numbers_are_spelled_as_they_are(bits in 0_u32..64, number in any::<u64>()) {
            let number = number >> bits;
            let mut text = Vec::with_capacity(40);
            memory::append(&mut text, |out| Number::of(number).put(out)).unwrap();
            prop_assert_eq!(text, number.to_string().into_bytes());
        }
    }
}
