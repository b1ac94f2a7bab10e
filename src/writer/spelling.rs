// SPDX-License-Identifier: Apache-2.0
//! How texts are spelled in the JSON that is written, and what an entry of a
//! header is made of.
#![forbid(unsafe_code)]

use crate::base::memory::Filler;
use crate::dtype::Dtype;

/// What stands between the parts of a tensor's entry.
pub(super) const BEFORE_DTYPE: &[u8] = b"\":{\"dtype\":\"";
pub(super) const BEFORE_SHAPE: &[u8] = b"\",\"shape\":[";
pub(super) const BEFORE_OFFSETS: &[u8] = b"],\"data_offsets\":[";
pub(super) const BEHIND_OFFSETS: &[u8] = b"]},";
/// The longest escape.
pub(super) const ESCAPE_BYTES: usize = 6;

/// Bytes of a tensor's entry but for the digits of its offsets, with the comma
/// after it; `name`: those of the name as it is spelled.
#[inline]
pub(super) fn entry_len(name: usize, dtype: Dtype, shape: &[i64]) -> usize {
    let commas = shape.len().saturating_sub(1);
    let fixed = const { BEFORE_DTYPE.len() + BEFORE_SHAPE.len() + BEFORE_OFFSETS.len() + BEHIND_OFFSETS.len() + 2 };
    let digits =
        |dimension: &i64| dimension.unsigned_abs().checked_ilog10().map_or(1, |log| (log as usize).saturating_add(1));
    let shape = shape.iter().map(digits).fold(commas, usize::saturating_add);
    name.saturating_add(dtype.name().len()).saturating_add(shape).saturating_add(fixed)
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
    while let Some((word, after)) = rest.split_first_chunk() {
        plain &= plain_in(*word);
        rest = after;
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

/// A JSON string with the escapes that serde_json writes, and no others.
pub(super) fn push_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    text.bytes().for_each(|byte| out.extend_from_slice(spelled(byte, &mut [0; ESCAPE_BYTES])));
    out.push(b'"');
}

#[cold]
pub(super) fn put_spelled(out: &mut Filler<'_, u8>, text: &str) -> Option<()> {
    text.bytes().try_for_each(|byte| out.put(spelled(byte, &mut [0; ESCAPE_BYTES])))
}

pub(super) fn spelled_len(text: &str) -> usize {
    text.bytes().map(|byte| spelled(byte, &mut [0; ESCAPE_BYTES]).len()).fold(0, usize::saturating_add)
}

/// A byte of a string, as serde_json spells it.
fn spelled(byte: u8, place: &mut [u8; ESCAPE_BYTES]) -> &[u8] {
    let hex = |digit: u8| if digit < 10 { digit | b'0' } else { digit.wrapping_sub(10).wrapping_add(b'a') };
    match byte {
        b'"' => b"\\\"",
        b'\\' => b"\\\\",
        0x08 => b"\\b",
        0x0C => b"\\f",
        b'\n' => b"\\n",
        b'\r' => b"\\r",
        b'\t' => b"\\t",
        0..0x20 => {
            *place = [b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte & 0xF)];
            place
        }
        _ => {
            let [place, ..] = place;
            *place = byte;
            std::slice::from_ref(place)
        }
    }
}

/// A JSON string as Python writes it: everything outside ASCII escaped.
pub(super) fn push_ascii_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for c in text.chars() {
        match u8::try_from(c) {
            Ok(byte) if byte < 0x7F => out.extend_from_slice(spelled(byte, &mut [0; ESCAPE_BYTES])),
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
    }
}
