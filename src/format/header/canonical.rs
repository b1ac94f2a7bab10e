// SPDX-License-Identifier: Apache-2.0
//! The hot path: an entry spelled as nearly every writer spells it, without
//! white space and with its fields in the reference's order, read in one go.
//! It only ever says yes to what the general way would read the same; whatever
//! else is there takes that way.
#![forbid(unsafe_code)]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "positions are bounded by the span, numbers by their digits; see each place"
)]

use crate::base::json::digits::{eight_digits, POWERS};
use crate::dtype::Dtype;
use crate::format::shapes::ShapeArena;

/// The longest entry that is read this way.
const SPAN: usize = 128;
/// An entry and room to load whole words at its end.
pub(super) const WINDOW: usize = SPAN + 24;
type TextWindow = [u8; WINDOW];

/// One entry, from its opening to its closing brace. Its shape is the one that
/// is being built in the arena.
pub(super) struct CanonicalEntry {
    pub(super) dtype: Dtype,
    /// Elements; `None` beyond 64 bits.
    pub(super) elements: Option<u64>,
    pub(super) begin: u64,
    pub(super) end: u64,
    /// Bytes of text it took.
    pub(super) len: usize,
}

/// `{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}`, if it is that. If it
/// is not, the shape being built is to be dropped.
#[inline(always)]
pub(super) fn entry(text: &TextWindow, shapes: &mut ShapeArena) -> Option<CanonicalEntry> {
    if word(text, 0) != literal(b"{\"dtype\"") || word(text, 2) != literal(b"dtype\":\"") {
        return None;
    }
    let (dtype, mut at) = dtype(text)?;
    let mut elements = Some(1_u64);
    if byte(text, at) == b']' {
        at += 1;
    } else {
        loop {
            let digits = word(text, at);
            let (dimension, len) = eight_digits(digits);
            if len == 0 || len == 8 || (len > 1 && digits.to_le_bytes()[0] == b'0') || at >= SPAN {
                return None;
            }
            shapes.push(i64::try_from(dimension).ok()?).ok()?;
            elements = elements.and_then(|elements| elements.checked_mul(dimension));
            at += len + 1;
            match digits.to_le_bytes()[len] {
                b',' => {}
                b']' => break,
                _ => return None,
            }
        }
    }
    if word(text, at) != literal(b",\"data_o")
        || word(text, at + 8) != literal(b"ffsets\":")
        || byte(text, at + 16) != b'['
    {
        return None;
    }
    at += 17;
    let (begin, len) = number(text, at)?;
    at += len;
    let comma = byte(text, at);
    let (end, len) = number(text, at + 1)?;
    at += 1 + len;
    let closing = (byte(text, at), byte(text, at + 1));
    at += 2;
    // Positions only grow, so if the last one is within the span, all were.
    (comma == b',' && closing == (b']', b'}') && at <= SPAN).then_some(CanonicalEntry {
        dtype,
        elements,
        begin,
        end,
        len: at,
    })
}

/// The dtype whose name begins at 10, and where the shape's first size is. The
/// two that fill most files are tried as a whole.
#[inline(always)]
fn dtype(text: &TextWindow) -> Option<(Dtype, usize)> {
    const SHAPE: &[u8; 8] = b"shape\":[";
    let (start, name) = (10, word(text, 10));
    if name == literal(b"BF16\",\"s") && word(text, start + 7) == literal(SHAPE) {
        return Some((Dtype::Bf16, start + 15));
    }
    if name == literal(b"F32\",\"sh") && word(text, start + 6) == literal(SHAPE) {
        return Some((Dtype::F32, start + 14));
    }
    let name = text.get(start..start + 12)?;
    let name = name.get(..name.iter().position(|byte| *byte == b'"')?)?;
    let after = start + name.len();
    if text.get(after..after + 3)? != b"\",\"" || word(text, after + 3) != literal(SHAPE) {
        return None;
    }
    Some((Dtype::from_name(name)?, after + 11))
}

/// A number of up to 15 digits.
#[inline(always)]
fn number(text: &TextWindow, at: usize) -> Option<(u64, usize)> {
    let first = word(text, at);
    let (mut value, mut len) = eight_digits(first);
    if len == 8 {
        let (more, more_len) = eight_digits(word(text, at + 8));
        value = value * POWERS.get(more_len)? + more;
        len += more_len;
    }
    let leading_zero = len > 1 && first.to_le_bytes()[0] == b'0';
    (len != 0 && len != 16 && !leading_zero).then_some((value, len))
}

/// Eight bytes of text. The mask is of no effect within the span, and tells the
/// compiler that no position is outside the window.
#[inline(always)]
fn word(text: &TextWindow, at: usize) -> u64 {
    let at = at & (SPAN - 1);
    text.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[inline(always)]
fn byte(text: &TextWindow, at: usize) -> u8 {
    text[at & (SPAN - 1)]
}

const fn literal(text: &[u8; 8]) -> u64 {
    u64::from_le_bytes(*text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry_of(text: &str, shapes: &mut ShapeArena) -> Option<CanonicalEntry> {
        let mut window = [b' '; WINDOW];
        window[..text.len()].copy_from_slice(text.as_bytes());
        entry(&window, shapes)
    }

    #[test]
    fn an_entry_as_the_reference_writes_it() {
        let text = r#"{"dtype":"BF16","shape":[4096,14336],"data_offsets":[117440512,234881024]},"next""#;
        let mut shapes = ShapeArena::default();
        let found = entry_of(text, &mut shapes).unwrap();
        assert_eq!((found.dtype, shapes.current()), (Dtype::Bf16, &[4096, 14336][..]));
        assert_eq!(found.elements, Some(4096 * 14336));
        assert_eq!((found.begin, found.end, found.len), (117_440_512, 234_881_024, text.len() - 7));
        let scalar = r#"{"dtype":"F8_E4M3FNUZ","shape":[],"data_offsets":[0,1]}"#;
        let scalar = entry_of(scalar, &mut shapes).unwrap();
        assert_eq!((scalar.dtype, scalar.elements), (Dtype::F8E4M3Fnuz, Some(1)));
    }

    #[test]
    fn anything_else_takes_the_general_way() {
        for text in [
            r#"{"dtype":"F32" ,"shape":[1],"data_offsets":[0,4]}"#,
            r#"{"dtype":"F33","shape":[1],"data_offsets":[0,4]}"#,
            r#"{"dtype":"F32","shape":[1,],"data_offsets":[0,4]}"#,
            r#"{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}"#,
            r#"{"dtype":"F32","shape":[01],"data_offsets":[0,4]}"#,
            r#"{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}"#,
            r#"{"dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,4]}"#,
            r#"{"dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551616]}"#,
            r#"{"dtype":"F32","shape":[1],"data_offsets":[0]}"#,
            r#"{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}"#,
            r#"{"dtype":"F32","shape":[12345678],"data_offsets":[0,4]}"#,
            r#"{"dtype":"F32","shape":[1],"data_offsets":[00,4]}"#,
            r#"{"dtype":"F32","shape":[1],"data_offsets":[0,4 ]}"#,
            r#"{"dtype":"F32","shape":[1],"data_offsets":[0.4]}"#,
            r#"{"dtype":"F32","shape":[1],"data_offsets":[0,1234567890123456]}"#,
            r#"{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}"#,
        ] {
            assert!(entry_of(text, &mut ShapeArena::default()).is_none(), "{text}");
        }
    }
}
