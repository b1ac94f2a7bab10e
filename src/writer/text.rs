// SPDX-License-Identifier: Apache-2.0
//! JSON to be written: headers byte for byte as the reference makes them, and
//! index files as the hub has them.
#![forbid(unsafe_code)]

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
pub(super) struct HeaderText(Vec<u8>);

impl HeaderText {
    /// Begins a header; `metadata` is in its final order. `room` is a guess.
    pub(super) fn new(metadata: Option<&[MetadataEntry<'_>]>, room: usize) -> Result<Self> {
        let mut out = memory::vec_with_capacity(room.saturating_add(LENGTH_BYTES), "header")?;
        out.extend_from_slice(&[0; LENGTH_BYTES]);
        out.push(b'{');
        if let Some(entries) = metadata {
            out.extend_from_slice(b"\"__metadata__\":{");
            for (number, (key, value)) in entries.iter().enumerate() {
                let bytes = key.len().saturating_add(value.len()).saturating_mul(ESCAPE_BYTES);
                memory::reserve(&mut out, bytes.saturating_add(ENTRY_BYTES), "header")?;
                if number != 0 {
                    out.push(b',');
                }
                push_string(&mut out, key);
                out.push(b':');
                push_string(&mut out, value);
            }
            out.push(b'}');
        }
        Ok(Self(out))
    }

    /// Adds a tensor whose bytes are at `begin..end` of the data section.
    pub(super) fn push(&mut self, tensor: &NewTensor<'_>, begin: u64, end: u64) -> Result<()> {
        let out = &mut self.0;
        let name = tensor.name.len().saturating_mul(ESCAPE_BYTES);
        let shape = tensor.shape.len().saturating_mul(NUMBER_BYTES);
        memory::reserve(out, name.saturating_add(shape).saturating_add(ENTRY_BYTES), "header")?;
        if out.last() != Some(&b'{') {
            out.push(b',');
        }
        push_string(out, tensor.name);
        out.extend_from_slice(b":{\"dtype\":\"");
        out.extend_from_slice(tensor.dtype.name().as_bytes());
        out.extend_from_slice(b"\",\"shape\":[");
        for (number, dimension) in tensor.shape.iter().enumerate() {
            if number != 0 {
                out.push(b',');
            }
            push_number(out, dimension.unsigned_abs());
        }
        out.extend_from_slice(b"],\"data_offsets\":[");
        push_number(out, begin);
        out.push(b',');
        push_number(out, end);
        out.extend_from_slice(b"]}");
        Ok(())
    }

    /// Ends the header: spaces for `reserve` bytes more and until the data
    /// begins at a multiple of `alignment`, then the length field.
    pub(super) fn finish(mut self, reserve: u64, alignment: u64) -> Result<Vec<u8>> {
        self.0.push(b'}');
        let start = (self.0.len() as u64).checked_add(reserve).and_then(|end| end.checked_next_multiple_of(alignment));
        self.pad_to(start.unwrap_or(u64::MAX))
    }

    /// Ends the header with the data at `start`, if it fits; else says where
    /// the data would have to start at least.
    pub(super) fn finish_at(mut self, start: u64) -> Result<Result<Vec<u8>, u64>> {
        self.0.push(b'}');
        let end = self.0.len() as u64;
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
        let padding = end.saturating_sub(self.0.len());
        memory::reserve(&mut self.0, padding, "header")?;
        self.0.resize(end, b' ');
        if let Some(field) = self.0.first_chunk_mut() {
            *field = length.to_le_bytes();
        }
        Ok(self.0)
    }
}

/// A JSON string with the escapes that serde_json writes, and no others.
fn push_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    // Without an early exit this is a few vector instructions.
    let plain = text.bytes().fold(true, |plain, byte| plain & !needs_escape(byte));
    if plain {
        out.extend_from_slice(text.as_bytes());
    } else {
        for byte in text.bytes() {
            push_escaped(out, byte);
        }
    }
    out.push(b'"');
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

fn push_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0_u8; 20];
    let mut start = digits.len();
    for place in digits.iter_mut().rev() {
        #[allow(clippy::cast_possible_truncation, reason = "a digit")]
        let digit = (number % 10) as u8;
        *place = b'0' | digit;
        start = start.saturating_sub(1);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(start..).unwrap_or_default());
}

/// An index file as Python's `json.dumps(…, indent=2, sort_keys=True)` and a
/// newline make it, which is what the hub's libraries write. `entries` are
/// tensor and shard, by tensor.
pub(super) fn index<'a>(total_size: u64, entries: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    out.extend_from_slice(b"{\n  \"metadata\": {\n    \"total_size\": ");
    push_number(&mut out, total_size);
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
