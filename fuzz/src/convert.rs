// SPDX-License-Identifier: Apache-2.0
//! Conversion of any bytes, against rounding in plain arithmetic (and the crate
//! `half`, which reads the results); and element by element against all at once, as the kernels that
//! take many take other paths than those that take one.

use half::{bf16, f16};
use safetensors::convert::{convert as convert_elements, supported};
use safetensors::{Dtype, ErrorKind};

use crate::script::Script;

/// See the module.
pub fn convert(data: &[u8]) {
    let mut script = Script(data);
    let (from, to) = (script.choose(Dtype::ALL), script.choose(Dtype::ALL));
    let (shift, bits) = (script.below(5), from.bits() as usize);
    if !supported(from, to) {
        let error = convert_elements(from, &[], to, &mut []).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::InvalidArgument));
        return;
    }
    // As many bytes as make whole elements of both; the place in memory is any.
    let few = group(from, to);
    let src = script.0.get(shift..).unwrap_or_default();
    let (src, _) = src.split_at(src.len() - src.len() % (few * bits / 8));
    let elements = src.len() * 8 / bits;
    let mut room = vec![0x5A; elements * to.bits() as usize / 8 + shift + 8];
    let (_, rest) = room.split_at_mut(shift);
    let (dst, guard) = rest.split_at_mut(elements * to.bits() as usize / 8);
    convert_elements(from, src, to, dst).unwrap();
    assert!(guard.iter().all(|byte| *byte == 0x5A));
    one_by_one(from, src, to, dst);
    let Some((mantissa, least, largest, beyond)) = format(to).filter(|_| from != to) else { return };
    let found: Vec<f64> = match to {
        Dtype::F32 => singles(dst).collect(),
        Dtype::F16 => dst.chunks_exact(2).map(|two| f16::from_le_bytes([two[0], two[1]]).to_f64()).collect(),
        Dtype::Bf16 => dst.chunks_exact(2).map(|two| bf16::from_le_bytes([two[0], two[1]]).to_f64()).collect(),
        _ => {
            let mut wide = vec![0; elements * 4];
            convert_elements(to, dst, Dtype::F32, &mut wide).unwrap();
            singles(&wide).collect()
        }
    };
    for (number, found) in found.into_iter().enumerate() {
        let Some(value) = exact(from, src, number) else { break };
        let expected = round(value, mantissa, least, largest, beyond);
        let equal = found == expected || found.is_nan() && expected.is_nan();
        assert!(equal, "{value:e} of {from:?} is {found:e} in {to:?}, not {expected:e}");
    }
}

fn singles(bytes: &[u8]) -> impl Iterator<Item = f64> + '_ {
    bytes.chunks_exact(4).map(|four| f64::from(f32::from_le_bytes(four.try_into().unwrap())))
}

/// A float's mantissa bits, least normal exponent, largest value, and what is
/// beyond that.
fn format(dtype: Dtype) -> Option<(i32, i32, f64, f64)> {
    Some(match dtype {
        Dtype::F32 => (23, -126, f64::from(f32::MAX), f64::INFINITY),
        Dtype::F16 => (10, -14, 65504.0, f64::INFINITY),
        Dtype::Bf16 => (7, -126, bf16::MAX.to_f64(), f64::INFINITY),
        Dtype::F8E5M2 => (2, -14, 57344.0, f64::INFINITY),
        Dtype::F8E4M3 => (3, -6, 448.0, f64::NAN),
        Dtype::F8E5M2Fnuz => (2, -15, 57344.0, f64::NAN),
        Dtype::F8E4M3Fnuz => (3, -7, 240.0, f64::NAN),
        _ => return None,
    })
}

/// The nearest value of a format; every step but the rounding is exact.
fn round(value: f64, mantissa: i32, least: i32, largest: f64, beyond: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return if value.is_infinite() { value.signum() * beyond } else { value };
    }
    let exponent = ((value.to_bits() >> 52 & 0x7FF) as i32 - 1023).max(least);
    let step = 2_f64.powi(exponent - mantissa);
    let rounded = (value / step).round_ties_even() * step;
    if rounded.abs() > largest {
        value.signum() * beyond
    } else {
        rounded
    }
}

/// The fewest elements that fill whole bytes in both.
fn group(from: Dtype, to: Dtype) -> usize {
    let whole = |dtype: Dtype, count: usize| count * dtype.bits() as usize % 8 == 0;
    (1..=8).find(|count| whole(from, *count) && whole(to, *count)).unwrap()
}

/// An element's value, where a double holds it exactly.
fn exact(from: Dtype, src: &[u8], number: usize) -> Option<f64> {
    let element = |size: usize| src.get(number * size..(number + 1) * size);
    Some(match from {
        Dtype::F64 => f64::from_le_bytes(element(8)?.try_into().ok()?),
        Dtype::F32 => f64::from(f32::from_le_bytes(element(4)?.try_into().ok()?)),
        Dtype::F16 => f16::from_le_bytes(element(2)?.try_into().ok()?).to_f64(),
        Dtype::Bf16 => bf16::from_le_bytes(element(2)?.try_into().ok()?).to_f64(),
        Dtype::I32 => f64::from(i32::from_le_bytes(element(4)?.try_into().ok()?)),
        Dtype::U32 => f64::from(u32::from_le_bytes(element(4)?.try_into().ok()?)),
        Dtype::I16 => f64::from(i16::from_le_bytes(element(2)?.try_into().ok()?)),
        Dtype::U16 => f64::from(u16::from_le_bytes(element(2)?.try_into().ok()?)),
        Dtype::I8 => f64::from(element(1)?[0] as i8),
        Dtype::U8 => f64::from(element(1)?[0]),
        Dtype::Bool => f64::from(u8::from(element(1)?[0] != 0)),
        _ => return None,
    })
}

/// The same elements, as few at a time as fill whole bytes.
fn one_by_one(from: Dtype, src: &[u8], to: Dtype, all: &[u8]) {
    let (from_bits, to_bits) = (from.bits() as usize, to.bits() as usize);
    let few = group(from, to);
    for (src, expected) in src.chunks_exact(few * from_bits / 8).zip(all.chunks_exact(few * to_bits / 8)) {
        let mut dst = vec![0; expected.len()];
        convert_elements(from, src, to, &mut dst).unwrap();
        assert_eq!(dst, expected, "{from:?} {to:?} {src:?}");
    }
}
