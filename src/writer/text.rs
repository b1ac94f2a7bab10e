// SPDX-License-Identifier: Apache-2.0
//! JSON to be written: headers byte for byte as the reference makes them, and
//! index files as the hub has them.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::tensor::NewTensor;
use super::MetadataEntry;
use crate::error::{Error, ErrorKind, Result};
use crate::memory;

/// What readers accept, the reference among them.
const LARGEST_HEADER: u64 = 100_000_000;
/// The length field.
pub(super) const LENGTH_BYTES: usize = 8;
/// All of an entry but its name, shape and the name's escapes.
const ENTRY_BYTES: usize = 100;
/// The longest escape, and the longest number with its comma.
const ESCAPE_BYTES: usize = 6;
const NUMBER_BYTES: usize = 21;

/// A file's length field and header text on the way.
///
/// The text is written into memory that was made long enough before: each
/// literal is then a move or two, where a growing vector checks its capacity
/// and calls memcpy. 100,000 entries take a third of the time so.
pub(super) struct HeaderText {
    text: Vec<u8>,
    /// Bytes written.
    end: usize,
    /// Where the last tensor ended, and where that number stands: the next one
    /// usually begins there.
    last: (u64, Range<usize>),
}

/// The most bytes that an entry's text can take.
pub(super) fn entry_room(tensor: &NewTensor<'_>) -> usize {
    let shape = tensor.shape.len().saturating_mul(NUMBER_BYTES);
    string_room(tensor.name).saturating_add(shape).saturating_add(ENTRY_BYTES)
}

fn string_room(text: &str) -> usize {
    match is_plain(text) {
        true => text.len(),
        false => text.len().saturating_mul(ESCAPE_BYTES),
    }
}

impl HeaderText {
    /// Begins a header; `metadata` is in its final order. `room` is for all
    /// entries that will be pushed.
    pub(super) fn new(metadata: Option<&[MetadataEntry<'_>]>, room: usize) -> Result<Self> {
        let entries = metadata.unwrap_or_default().iter();
        let for_metadata = entries.map(|(key, value)| string_room(key).saturating_add(string_room(value)));
        let for_metadata =
            for_metadata.fold(0_usize, |all, entry| all.saturating_add(entry).saturating_add(ENTRY_BYTES));
        let room = room.saturating_add(for_metadata).saturating_add(LENGTH_BYTES).saturating_add(ENTRY_BYTES);
        let mut this = Self { text: memory::zeroed(room, "header")?, end: LENGTH_BYTES, last: (u64::MAX, 0..0) };
        this.put(b"{");
        if let Some(entries) = metadata {
            this.put(b"\"__metadata__\":{");
            for (number, (key, value)) in entries.iter().enumerate() {
                if number != 0 {
                    this.put(b",");
                }
                this.put_string(key);
                this.put(b":");
                this.put_string(value);
            }
            this.put(b"}");
        }
        Ok(this)
    }

    /// Adds a tensor whose bytes are at `begin..end` of the data section.
    pub(super) fn push(&mut self, tensor: &NewTensor<'_>, begin: u64, end: u64) {
        // Only the header's own brace is so near its start.
        if self.end > LENGTH_BYTES.saturating_add(1) {
            self.put(b",");
        }
        self.put_string(tensor.name);
        self.put(b":{\"dtype\":\"");
        self.put(tensor.dtype.c_name().to_bytes());
        self.put(b"\",\"shape\":[");
        for (number, dimension) in tensor.shape.iter().enumerate() {
            if number != 0 {
                self.put(b",");
            }
            self.put_number(dimension.unsigned_abs());
        }
        self.put(b"],\"data_offsets\":[");
        if self.last.0 == begin {
            self.repeat(self.last.1.clone());
        } else {
            self.put_number(begin);
        }
        self.put(b",");
        let start = self.end;
        self.put_number(end);
        self.last = (end, start..self.end);
        self.put(b"]}");
    }

    /// Ends the header: spaces for `reserve` bytes more and until the data
    /// begins at a multiple of `alignment`, then the length field.
    pub(super) fn finish(mut self, reserve: u64, alignment: u64) -> Result<Vec<u8>> {
        self.put(b"}");
        let start = (self.end as u64).checked_add(reserve).and_then(|end| end.checked_next_multiple_of(alignment));
        self.pad_to(start.unwrap_or(u64::MAX))
    }

    /// Ends the header with the data at `start`, if it fits; else says where
    /// the data would have to start at least.
    pub(super) fn finish_at(mut self, start: u64) -> Result<Result<Vec<u8>, u64>> {
        self.put(b"}");
        let end = self.end as u64;
        if end > start {
            return Ok(Err(end));
        }
        self.pad_to(start).map(Ok)
    }

    fn pad_to(mut self, start: u64) -> Result<Vec<u8>> {
        let length = start.saturating_sub(LENGTH_BYTES as u64);
        let end = usize::try_from(start).ok().filter(|_| length <= LARGEST_HEADER);
        let Some(end) = end else {
            let text = format!("the header would have {length} bytes, and readers accept {LARGEST_HEADER}");
            return Err(Error::new(ErrorKind::HeaderTooLarge, text));
        };
        if self.end > self.text.len() {
            return Err(Error::new(ErrorKind::Internal, "a header is longer than was reckoned"));
        }
        self.text.truncate(self.end);
        memory::reserve(&mut self.text, end.saturating_sub(self.end), "header")?;
        self.text.resize(end, b' ');
        if let Some(field) = self.text.first_chunk_mut() {
            *field = length.to_le_bytes();
        }
        Ok(self.text)
    }

    /// The bytes that come next. Past the end nothing is written, and `end`
    /// tells.
    #[inline(always)]
    fn next(&mut self, len: usize) -> &mut [u8] {
        let start = self.end;
        self.end = start.saturating_add(len);
        self.text.get_mut(start..self.end).unwrap_or_default()
    }

    #[inline(always)]
    fn put(&mut self, bytes: &[u8]) {
        let place = self.next(bytes.len());
        if place.len() == bytes.len() {
            place.copy_from_slice(bytes);
        }
    }

    /// Copies what was written before.
    fn repeat(&mut self, what: Range<usize>) {
        let (start, len) = (self.end, what.len());
        self.end = start.saturating_add(len);
        if self.end <= self.text.len() {
            self.text.copy_within(what, start);
        }
    }

    /// A JSON string with the escapes that serde_json writes, and no others.
    fn put_string(&mut self, text: &str) {
        self.put(b"\"");
        if is_plain(text) {
            self.put(text.as_bytes());
        } else {
            let mut escaped = Vec::new();
            text.bytes().for_each(|byte| push_escaped(&mut escaped, byte));
            self.put(&escaped);
        }
        self.put(b"\"");
    }

    /// Two digits at a time: half as many divisions that wait for one another.
    #[allow(clippy::cast_possible_truncation, reason = "below 100")]
    fn put_number(&mut self, mut number: u64) {
        let digits = number.checked_ilog10().unwrap_or(0).saturating_add(1);
        let mut pairs = self.next(usize::try_from(digits).unwrap_or(0)).rchunks_exact_mut(2);
        for pair in &mut pairs {
            let two = (number % 100) as u8;
            number /= 100;
            if let [tens, ones] = pair {
                (*tens, *ones) = (b'0' | (two / 10), b'0' | (two % 10));
            }
        }
        if let [first] = pairs.into_remainder() {
            *first = b'0' | (number as u8);
        }
    }
}

/// Whether it needs no escape. Eight bytes at a time, the last eight once
/// more: names are too short for a loop of vectors and one for what is left.
fn is_plain(text: &str) -> bool {
    let bytes = text.as_bytes();
    let Some(last) = bytes.last_chunk::<8>() else {
        return !bytes.iter().any(|byte| needs_escape(*byte));
    };
    let words = bytes.chunks_exact(8).filter_map(|chunk| chunk.first_chunk::<8>());
    words.chain([last]).fold(0, |found, word| found | escapes_in(u64::from_le_bytes(*word))) == 0
}

/// Not 0 where a byte of the word needs an escape. (A borrow may mark a byte
/// above one that does, and no other.)
fn escapes_in(word: u64) -> u64 {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    let below = |word: u64, bound: u64| word.wrapping_sub(bound) & !word;
    let quote = below(word ^ u64::from_le_bytes([b'"'; 8]), ONES);
    let backslash = below(word ^ u64::from_le_bytes([b'\\'; 8]), ONES);
    let control = below(word, u64::from_le_bytes([0x20; 8]));
    (quote | backslash | control) & u64::from_le_bytes([0x80; 8])
}

fn needs_escape(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
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
        fn every_escape_is_seen(text in "(.|[\\x00-\\x30\"\\\\\\x7f\\x80]){0,40}") {
            prop_assert_eq!(is_plain(&text), !text.bytes().any(needs_escape));
        }
    }
}
