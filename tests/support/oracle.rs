// SPDX-License-Identifier: Apache-2.0
//! Elements by plain arithmetic: picked one by one, and converted through exact
//! values. Slow, and of one mind with nothing in the library.

use safetensors::Dtype;

/// An exact value.
#[derive(Clone, Copy, Debug)]
enum Value {
    Nan,
    Infinite {
        negative: bool,
    },
    /// mantissa * 2^exponent
    Finite {
        negative: bool,
        mantissa: u128,
        exponent: i32,
    },
}

/// What a format does with the codes above its largest number.
#[derive(Clone, Copy, PartialEq)]
enum Top {
    /// The highest exponent is infinity and NaN.
    Ieee,
    /// Only the highest code is NaN.
    Nan,
    /// What would be minus zero is NaN.
    Fnuz,
    /// All are numbers.
    Numbers,
}

#[derive(Clone, Copy)]
struct Format {
    exponent: u32,
    mantissa: u32,
    bias: i32,
    top: Top,
}

fn format(dtype: Dtype) -> Option<Format> {
    let (exponent, mantissa, bias, top) = match dtype {
        Dtype::F64 => (11, 52, 1023, Top::Ieee),
        Dtype::F32 => (8, 23, 127, Top::Ieee),
        Dtype::F16 => (5, 10, 15, Top::Ieee),
        Dtype::Bf16 => (8, 7, 127, Top::Ieee),
        Dtype::F8E5M2 => (5, 2, 15, Top::Ieee),
        Dtype::F8E4M3 => (4, 3, 7, Top::Nan),
        Dtype::F8E4M3Fnuz => (4, 3, 8, Top::Fnuz),
        Dtype::F8E5M2Fnuz => (5, 2, 16, Top::Fnuz),
        Dtype::F6E2M3 => (2, 3, 1, Top::Numbers),
        Dtype::F6E3M2 => (3, 2, 3, Top::Numbers),
        Dtype::F4 => (2, 1, 1, Top::Numbers),
        _ => return None,
    };
    Some(Format { exponent, mantissa, bias, top })
}

fn decode(dtype: Dtype, bits: u64) -> Value {
    let whole = |value: i128| Value::Finite { negative: value < 0, mantissa: value.unsigned_abs(), exponent: 0 };
    let Some(Format { exponent, mantissa, bias, top }) = format(dtype) else {
        return match dtype {
            Dtype::F8E8M0 if bits == 0xff => Value::Nan,
            Dtype::F8E8M0 => Value::Finite { negative: false, mantissa: 1, exponent: bits as i32 - 127 },
            Dtype::I8 => whole(bits as i8 as i128),
            Dtype::I16 => whole(bits as i16 as i128),
            Dtype::I32 => whole(bits as i32 as i128),
            Dtype::I64 => whole(bits as i64 as i128),
            _ => whole(bits as i128),
        };
    };
    let negative = bits >> (exponent + mantissa) & 1 == 1;
    let highest = (1_u64 << exponent) - 1;
    let (power, fraction) = (bits >> mantissa & highest, bits & ((1 << mantissa) - 1));
    match top {
        Top::Ieee if power == highest && fraction == 0 => return Value::Infinite { negative },
        Top::Ieee if power == highest => return Value::Nan,
        Top::Nan if bits & 0x7f == 0x7f => return Value::Nan,
        Top::Fnuz if bits == 0x80 => return Value::Nan,
        _ => {}
    }
    let normal = u64::from(power != 0);
    let exponent = power.max(1) as i32 - bias - mantissa as i32;
    Value::Finite { negative, mantissa: u128::from(fraction | normal << mantissa), exponent }
}

/// To the nearest, ties to even. `None`: some NaN.
fn encode(to: Format, value: Value) -> Option<u64> {
    let sign = |negative: bool| u64::from(negative) << (to.exponent + to.mantissa);
    let beyond = |negative: bool| match to.top {
        Top::Ieee => Some(sign(negative) | ((1 << to.exponent) - 1) << to.mantissa),
        _ => None,
    };
    let (negative, mantissa, exponent) = match value {
        Value::Nan => return None,
        Value::Infinite { negative } => return beyond(negative),
        Value::Finite { negative, mantissa, exponent } => (negative, mantissa, exponent),
    };
    let zero = if to.top == Top::Fnuz { 0 } else { sign(negative) };
    let Some(highest) = mantissa.checked_ilog2() else { return Some(zero) };
    let unit = (highest as i32 + exponent).max(1 - to.bias) - to.mantissa as i32;
    let rounded = match unit - exponent {
        left @ ..=0 => mantissa << -left,
        right @ 1..=126 => {
            let (kept, rest, half) = (mantissa >> right, mantissa & ((1 << right) - 1), 1_u128 << (right - 1));
            kept + u128::from(rest > half || (rest == half && kept % 2 == 1))
        }
        _ => 0,
    } as u64;
    if rounded == 0 {
        return Some(zero);
    }
    // A carry out of the mantissa goes to the exponent by itself.
    let power = unit + to.mantissa as i32 + to.bias - 1;
    let code = ((power as u64) << to.mantissa) + rounded;
    let largest = match to.top {
        Top::Ieee => (((1_u64 << to.exponent) - 1) << to.mantissa) - 1,
        Top::Nan => 0x7e,
        _ => (1 << (to.exponent + to.mantissa)) - 1,
    };
    if code > largest {
        return beyond(negative);
    }
    Some(sign(negative) | code)
}

/// What an element becomes; `None`: some NaN.
pub(crate) fn converted(from: Dtype, bits: u64, to: Dtype) -> Option<u64> {
    if from == to {
        return Some(bits);
    }
    encode(format(to).unwrap(), decode(from, bits))
}

pub(crate) fn is_nan(dtype: Dtype, bits: u64) -> bool {
    matches!(decode(dtype, bits), Value::Nan)
}

/// `count` bits from bit `at` on, the lowest first.
pub(crate) fn bits_at(bytes: &[u8], at: usize, count: usize) -> u64 {
    if (at | count) % 8 == 0 {
        return bytes[at / 8..][..count / 8].iter().rev().fold(0, |bits, byte| bits << 8 | u64::from(*byte));
    }
    (0..count).map(|i| u64::from(bytes[(at + i) / 8] >> ((at + i) % 8) & 1) << i).sum()
}

pub(crate) fn set_bits(bytes: &mut [u8], at: usize, count: usize, bits: u64) {
    if (at | count) % 8 == 0 {
        return bytes[at / 8..][..count / 8].copy_from_slice(&bits.to_le_bytes()[..count / 8]);
    }
    for i in 0..count {
        let (byte, bit) = (&mut bytes[(at + i) / 8], (at + i) % 8);
        *byte = *byte & !(1 << bit) | ((bits >> i & 1) as u8) << bit;
    }
}
