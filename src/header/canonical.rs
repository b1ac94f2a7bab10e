// SPDX-License-Identifier: Apache-2.0
//! The hot path: an entry spelled as nearly every writer spells it, without
//! white space and with its fields in the reference's order, read in one go.
//! It only ever says yes to what the general way would read the same; whatever
//! else is there takes that way.
#![forbid(unsafe_code)]
#![allow(clippy::arithmetic_side_effects, reason = "see the bounds at each place")]

use crate::dtype::Dtype;
use crate::memory::ShapeArena;

/// One entry, from its opening to its closing brace. Its shape is the one that
/// is being built in the arena.
pub(super) struct Entry {
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
pub(super) fn entry(text: &[u8], shapes: &mut ShapeArena) -> Option<Entry> {
    let (dtype, mut rest) = dtype(text.strip_prefix(b"{\"dtype\":\"")?)?;
    let mut elements = Some(1_u64);
    if rest.first() == Some(&b']') {
        rest = rest.get(1..)?;
    } else {
        loop {
            let (dimension, len) = digits(rest)?;
            shapes.push(i64::try_from(dimension).ok()?).ok()?;
            elements = elements.and_then(|elements| elements.checked_mul(dimension));
            let after = *rest.get(len)?;
            rest = rest.get(len + 1..)?;
            match after {
                b',' => {}
                b']' => break,
                _ => return None,
            }
        }
    }
    rest = rest.strip_prefix(b",\"data_offsets\":[")?;
    let (begin, len) = digits(rest)?;
    rest = rest.get(len..)?.strip_prefix(b",")?;
    let (end, len) = digits(rest)?;
    rest = rest.get(len..)?.strip_prefix(b"]}")?;
    Some(Entry { dtype, elements, begin, end, len: text.len() - rest.len() })
}

/// A dtype's name up to the shape's bracket. The three that fill most files
/// are tried as a whole.
#[inline(always)]
fn dtype(text: &[u8]) -> Option<(Dtype, &[u8])> {
    if let Some(rest) = text.strip_prefix(b"BF16\",\"shape\":[") {
        return Some((Dtype::Bf16, rest));
    }
    if let Some(rest) = text.strip_prefix(b"F32\",\"shape\":[") {
        return Some((Dtype::F32, rest));
    }
    if let Some(rest) = text.strip_prefix(b"F16\",\"shape\":[") {
        return Some((Dtype::F16, rest));
    }
    let name = text.get(..text.iter().take(12).position(|byte| *byte == b'"')?)?;
    let rest = text.get(name.len()..)?.strip_prefix(b"\",\"shape\":[")?;
    Some((Dtype::from_name(name)?, rest))
}

/// The plain digits at the start of `text`: their value and number. `None` for
/// no digit, a leading zero, or more than u64 holds.
#[inline(always)]
pub(super) fn digits(text: &[u8]) -> Option<(u64, usize)> {
    match text.first_chunk() {
        Some(word) => {
            let (value, len) = eight_digits(word);
            match len {
                0 => None,
                8 => long_digits(text, value),
                _ if word.starts_with(b"0") && len > 1 => None,
                _ => Some((value, len)),
            }
        }
        None => more_digits(text, 0, 0),
    }
}

/// A number whose first eight digits have been read.
#[inline(always)]
fn long_digits(text: &[u8], value: u64) -> Option<(u64, usize)> {
    let Some(word) = text.get(8..).and_then(<[u8]>::first_chunk) else {
        return more_digits(text, value, 8);
    };
    let (more, len) = eight_digits(word);
    // Within 16 digits: below 10^16.
    let value = value * POWERS.get(len)? + more;
    match len {
        8 => more_digits(text, value, 16),
        _ if text.starts_with(b"0") => None,
        _ => Some((value, 8 + len)),
    }
}

/// Any number, digit by digit from the one at `len` on: beyond 16 digits, or too
/// near the end of the text for whole words.
#[cold]
fn more_digits(text: &[u8], mut value: u64, mut len: usize) -> Option<(u64, usize)> {
    for byte in text.get(len..)?.iter().take_while(|byte| byte.is_ascii_digit()) {
        value = value.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?;
        len += 1;
    }
    let leading_zero = len > 1 && text.starts_with(b"0");
    (len != 0 && !leading_zero).then_some((value, len))
}

const POWERS: [u64; 9] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];

/// The digits at the start of a word of text, all at once: their value and
/// their number, 0 to 8.
#[inline(always)]
fn eight_digits(text: &[u8; 8]) -> (u64, usize) {
    const ONES: u64 = u64::MAX / 255;
    // Digits become 0 to 9 and everything else more; adding 0x76 then sets the
    // high bit of what is more. Carries only reach bytes behind one that is.
    let word = u64::from_le_bytes(*text) ^ (ONES * 0x30);
    let others = (word.wrapping_add(ONES * 0x76) | word) & (ONES << 7);
    let bits = others.trailing_zeros() & !7;
    // The digits move to the end, behind zeros: the number of eight digits.
    let word = if bits == 0 { 0 } else { word << (64 - bits) };
    // Pairs, then fours, then all: each step adds ten, a hundred, ten thousand
    // times the lower half to the upper one. No step overflows its field.
    let pairs = (word.wrapping_mul(10) + (word >> 8)) & 0x00FF_00FF_00FF_00FF;
    let fours = (pairs.wrapping_mul(100) + (pairs >> 16)) & 0x0000_FFFF_0000_FFFF;
    let value = (fours.wrapping_mul(10_000) + (fours >> 32)) & 0xFFFF_FFFF;
    (value, bits as usize / 8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_entry_as_the_reference_writes_it() {
        let text = br#"{"dtype":"BF16","shape":[4096,14336],"data_offsets":[117440512,234881024]},"next""#;
        let mut shapes = ShapeArena::default();
        let found = entry(text, &mut shapes).unwrap();
        assert_eq!((found.dtype, shapes.current()), (Dtype::Bf16, &[4096, 14336][..]));
        assert_eq!(found.elements, Some(4096 * 14336));
        assert_eq!((found.begin, found.end, found.len), (117_440_512, 234_881_024, text.len() - 7));
        let scalar = br#"{"dtype":"F8_E4M3FNUZ","shape":[],"data_offsets":[0,1]}"#;
        let scalar = entry(scalar, &mut shapes).unwrap();
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
            r#"{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}"#,
        ] {
            assert!(entry(text.as_bytes(), &mut ShapeArena::default()).is_none(), "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn digits_are_what_the_standard_library_parses(text in "[0-9]{0,22}[/:,a]?.{0,9}") {
            let run: String = text.chars().take_while(char::is_ascii_digit).collect();
            let expected = run.parse::<u64>().ok().filter(|_| run == "0" || !run.starts_with('0'));
            prop_assert_eq!(digits(text.as_bytes()), expected.map(|value| (value, run.len())));
        }
    }
}
