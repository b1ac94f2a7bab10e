// SPDX-License-Identifier: Apache-2.0
//! Plain digits, eight at a time.
#![forbid(unsafe_code)]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "numbers are bounded by their digits; see each place"
)]

/// The plain digits at the start of `text`: their value and number. `None` for
/// no digit, a leading zero, or more than u64 holds.
#[inline(always)]
pub(crate) fn digits(text: &[u8]) -> Option<(u64, usize)> {
    match text.first_chunk() {
        Some(word) => {
            let (value, len) = eight_digits(u64::from_le_bytes(*word));
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
    let (more, len) = eight_digits(u64::from_le_bytes(*word));
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

/// Whether serde_json finds a JSON number beyond every f64, and refuses it. It
/// takes the leading digits that fit into u64 times a power of ten, and that
/// product is rounded: the largest numbers come out a little larger.
pub(crate) fn exceeds_f64(number: &[u8]) -> bool {
    // 10^289 to 10^308: with smaller powers no product of a u64 is infinite.
    const FIRST: i64 = 289;
    const POWERS: [f64; 20] = [
        1e289, 1e290, 1e291, 1e292, 1e293, 1e294, 1e295, 1e296, 1e297, 1e298, 1e299, 1e300, 1e301, 1e302, 1e303, 1e304,
        1e305, 1e306, 1e307, 1e308,
    ];
    let exponent_at = number.iter().position(|byte| matches!(byte, b'e' | b'E')).unwrap_or(number.len());
    let (mantissa, exponent) = number.split_at(exponent_at);
    let (mut digits, mut power, mut full, mut behind_point) = (0_u64, 0_i64, false, false);
    for byte in mantissa {
        match byte {
            b'.' => behind_point = true,
            b'0'..=b'9' => {
                let more = digits.checked_mul(10).and_then(|digits| digits.checked_add(u64::from(byte - b'0')));
                match more.filter(|_| !full) {
                    Some(more) => {
                        digits = more;
                        power -= i64::from(behind_point);
                    }
                    None => {
                        full = true;
                        power += i64::from(!behind_point);
                    }
                }
            }
            _ => {}
        }
    }
    let text = exponent.iter().filter(|byte| byte.is_ascii_digit());
    let value = text.fold(0_i64, |value, byte| value.saturating_mul(10).saturating_add(i64::from(byte - b'0')));
    let exponent = if exponent.get(1) == Some(&b'-') { -value } else { value };
    let power = power.saturating_add(exponent);
    let factor = usize::try_from(power.saturating_sub(FIRST)).ok();
    #[allow(clippy::cast_precision_loss, reason = "as serde_json does")]
    let digits = digits as f64;
    digits != 0.0 && factor.is_some_and(|at| POWERS.get(at).is_none_or(|factor| (digits * factor).is_infinite()))
}

/// Powers of ten.
pub(crate) const POWERS: [u64; 9] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];

/// The digits at the start of a word of text, all at once: their value and
/// their number, 0 to 8.
#[inline(always)]
pub(crate) fn eight_digits(text: u64) -> (u64, usize) {
    const ONES: u64 = u64::MAX / 255;
    // Digits become 0 to 9 and everything else more; adding 0x76 then sets the
    // high bit of what is more. Carries only reach bytes after one that is.
    let word = text ^ (ONES * 0x30);
    let others = (word.wrapping_add(ONES * 0x76) | word) & (ONES << 7);
    let bits = others.trailing_zeros() & !7;
    // The digits move to the end, after zeros: the number of eight digits.
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
    fn what_exceeds_an_f64_is_what_serde_json_refuses() {
        for text in [
            "0",
            "0.0",
            "0e999",
            "-0.000",
            "9",
            "1e308",
            "1e309",
            "-1e309",
            "0.1e309",
            "0.1e310",
            "10e307",
            "10e308",
            "1.7976931348623157e308",
            "1.7976931348623158e308",
            "1.7976931348623159e308",
            "0.00017976931348623159e312",
            "17976931348623159e292",
            "17976931348623157e292",
            "1e-999999999999999999999",
            "1e999999999999999999999",
            "0.001e310",
            "0.001e312",
            "5e-324",
        ] {
            assert_eq!(exceeds_f64(text.as_bytes()), serde_json::from_str::<f64>(text).is_err(), "{text}");
        }
        for zeros in 300..320 {
            let text = format!("2{}", "0".repeat(zeros));
            assert_eq!(exceeds_f64(text.as_bytes()), serde_json::from_str::<f64>(&text).is_err(), "{zeros}");
            let text = format!("0.{}2e{}", "0".repeat(zeros), 2 * zeros);
            assert_eq!(exceeds_f64(text.as_bytes()), serde_json::from_str::<f64>(&text).is_err(), "{zeros}");
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

        #[test]
        fn range_is_judged_as_serde_json_does(text in "-?(0|[1-9][0-9]{0,330})([.][0-9]{1,30})?([eE][+-]?[0-9]{1,4})?") {
            prop_assert_eq!(exceeds_f64(text.as_bytes()), serde_json::from_str::<f64>(&text).is_err(), "{}", text);
        }
    }
}
