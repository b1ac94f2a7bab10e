// SPDX-License-Identifier: Apache-2.0
//! Conversions against numpy, ml_dtypes and exact arithmetic (by the hashes that
//! tests/agreement/convert/make_reference.py made), against the crate `half`, and the
//! manners of st_convert.

use std::ffi::{c_void, CStr};
use std::mem::MaybeUninit;
use std::ptr;

use half::{bf16, f16};
use safetensors::convert::{convert, supported};
use safetensors::ffi::*;
use safetensors::Dtype;

/// `expected` came from the same inputs: see the script.
#[test]
fn results_are_those_of_numpy_and_ml_dtypes_and_of_exact_rounding() {
    let mut seen = Vec::new();
    for line in include_str!("convert/reference.txt").lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [from, to, count, nan, expected] = fields[..] else { panic!("{line}") };
        let (from, to) = (dtype(from), dtype(to));
        let result = converted(from, to, &inputs(from, to));
        let size = to.bits() as usize / 8;
        assert_eq!(result.len() / size, count.parse::<usize>().unwrap(), "{line}");
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for element in result.chunks_exact(size) {
            let bits = element.iter().rev().fold(0, |bits, byte| (bits << 8) | u32::from(*byte));
            let bits = if nan == "signed" { canonical(to, bits) } else { bits };
            hash = (hash ^ u64::from(bits)).wrapping_mul(0x100_0000_01b3);
        }
        assert_eq!(format!("{hash:016x}"), expected, "{line}");
        seen.push((from, to));
    }
    for &from in Dtype::ALL {
        for &to in Dtype::ALL {
            let same = from == to && from != Dtype::Unknown;
            assert_eq!(supported(from, to), same || seen.contains(&(from, to)), "{from:?} {to:?}");
        }
    }
}

fn dtype(name: &str) -> Dtype {
    Dtype::from_name(name.as_bytes()).unwrap()
}

fn converted(from: Dtype, to: Dtype, src: &[u8]) -> Vec<u8> {
    let elements = src.len() * 8 / from.bits() as usize;
    let mut dst = vec![0; elements * to.bits() as usize / 8];
    convert(from, src, to, &mut dst).unwrap();
    dst
}

fn canonical(dtype: Dtype, bits: u32) -> u32 {
    let (infinity, quiet, sign) = match dtype {
        Dtype::F16 => (0x7c00, 0x7e00, 0x8000),
        Dtype::Bf16 => (0x7f80, 0x7fc0, 0x8000),
        _ => (0x7f80_0000, 0x7fc0_0000, 0x8000_0000),
    };
    if bits & (sign - 1) > infinity {
        (bits & sign) | quiet
    } else {
        bits
    }
}

/// What make_reference.py feeds the oracles.
fn inputs(from: Dtype, to: Dtype) -> Vec<u8> {
    match from {
        Dtype::F32 => boundaries(to).iter().flat_map(|bits| bits.to_le_bytes()).collect(),
        Dtype::F64 => wide_floats().iter().flat_map(|bits| bits.to_le_bytes()).collect(),
        Dtype::I64 | Dtype::U64 => wide_integers().iter().flat_map(|bits| bits.to_le_bytes()).collect(),
        Dtype::I32 | Dtype::U32 => wide_integers().iter().flat_map(|bits| (*bits as u32).to_le_bytes()).collect(),
        _ => match from.bits() {
            16 => (0..=u16::MAX).flat_map(u16::to_le_bytes).collect(),
            8 => (0..=u8::MAX).collect(),
            bits => packed_codes(bits),
        },
    }
}

fn boundaries(target: Dtype) -> Vec<u32> {
    let (mantissa, shift, least) = match target {
        Dtype::F16 => (10, 13, -24),
        Dtype::Bf16 => (7, 16, -133),
        Dtype::F8E5M2 => (2, 21, -16),
        Dtype::F8E4M3 => (3, 20, -9),
        Dtype::F8E4M3Fnuz => (3, 20, -10),
        Dtype::F8E5M2Fnuz => (2, 21, -17),
        _ => panic!("{target:?}"),
    };
    let half = 1_u32 << (shift - 1);
    let upper = (0..1_u64 << (32 - shift)).map(|upper| (upper << shift) as u32);
    let mut made: Vec<u32> =
        upper.flat_map(|upper| [0, 1, half - 1, half, half + 1, 2 * half - 1].map(|tail| upper + tail)).collect();
    let quarters = (0..4_u32 << mantissa).map(|quarter| (f64::from(quarter) * 2_f64.powi(least - 2)) as f32);
    let near: Vec<u32> = quarters.map(f32::to_bits).flat_map(|exact| [exact, exact + 1, exact.max(1) - 1]).collect();
    made.extend(&near);
    made.extend(near.iter().map(|bits| bits | 1 << 31));
    made
}

fn wide_integers() -> Vec<u64> {
    let mut made = Vec::new();
    for (high, low) in (0..64).flat_map(|high| (0..64).map(move |low| (high, low))) {
        for factor in [1_u64, 3, 0xff, 0x1ff, 0x7ff, 0xfff] {
            for near in [u64::MAX, 0, 1] {
                let value = (factor << high).wrapping_add(1 << low).wrapping_add(near);
                made.extend([value, value.wrapping_neg()]);
            }
        }
    }
    made
}

fn wide_floats() -> Vec<u64> {
    let mut made = Vec::new();
    for exponent in [0, 1, 2].into_iter().chain(860..1160).chain([2045, 2046, 2047]) {
        for base in [0_u64, 1 << 51, 1 << 45, 1 << 44, 1 << 42, 0x7f << 45, 0x3ff << 42, 0x7f_ffff << 29] {
            for low in 0..52 {
                for near in [u64::MAX, 0, 1] {
                    let bits = (exponent << 52_u64) + base + (1 << low);
                    made.extend([bits.wrapping_add(near), bits.wrapping_add(near).wrapping_add(1 << 63)]);
                }
            }
        }
    }
    made
}

/// All codes upwards, then downwards, bit by bit from the low ones up.
fn packed_codes(bits: u32) -> Vec<u8> {
    let codes = (0..1_u32 << bits).chain((0..1 << bits).rev());
    let stream: Vec<bool> = codes.flat_map(|code| (0..bits).map(move |bit| code >> bit & 1 == 1)).collect();
    stream.chunks_exact(8).map(|byte| byte.iter().rev().fold(0, |byte, bit| byte << 1 | u8::from(*bit))).collect()
}

#[test]
fn half_agrees() {
    let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    let singles = |bytes: &[u8]| -> Vec<f32> {
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    };
    let halves = |bytes: &[u8]| -> Vec<u16> {
        bytes.chunks_exact(2).map(|b| u16::from_le_bytes(b.try_into().unwrap())).collect()
    };
    for (code, value) in (0..=u16::MAX).zip(singles(&converted(Dtype::F16, Dtype::F32, &all))) {
        let theirs = f16::from_bits(code).to_f32();
        assert!(value.to_bits() == theirs.to_bits(), "F16 {code:#x}: {value} and {theirs}");
    }
    for (code, value) in (0..=u16::MAX).zip(singles(&converted(Dtype::Bf16, Dtype::F32, &all))) {
        let theirs = bf16::from_bits(code).to_f32();
        assert!(
            value.to_bits() == theirs.to_bits() || value.is_nan() && theirs.is_nan(),
            "BF16 {code:#x}: {value} and {theirs}"
        );
    }
    for (to, theirs) in [
        (Dtype::F16, (|v| f16::from_f32(v).to_bits()) as fn(f32) -> u16),
        (Dtype::Bf16, |v| bf16::from_f32(v).to_bits()),
    ] {
        let source = inputs(Dtype::F32, to);
        for (value, ours) in singles(&source).into_iter().zip(halves(&converted(Dtype::F32, to, &source))) {
            let same = canonical(to, u32::from(ours)) == canonical(to, u32::from(theirs(value)));
            assert!(same, "{to:?} of {:#x}: {ours:#x} and {:#x}", value.to_bits(), theirs(value));
        }
    }
}

#[test]
fn nans_are_as_documented() {
    let one = |from, to, bits: u64| {
        let made = converted(from, to, &bits.to_le_bytes()[..from.bits() as usize / 8]);
        made.iter().rev().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte))
    };
    // Halves become quiet and keep the rest; BF16 widens as it is.
    assert_eq!(one(Dtype::F16, Dtype::F32, 0xfc01), 0xffc0_2000);
    assert_eq!(one(Dtype::F32, Dtype::F16, 0xff80_2001), 0xfe01);
    assert_eq!(one(Dtype::F32, Dtype::F16, 0x7f80_0001), 0x7e00);
    assert_eq!(one(Dtype::Bf16, Dtype::F32, 0xff81), 0xff81_0000);
    // To BF16 and to 8 bits: the quiet one, with its sign where there is one.
    assert_eq!(one(Dtype::F32, Dtype::Bf16, 0xffff_ffff), 0xffc0);
    assert_eq!(one(Dtype::F64, Dtype::Bf16, 0xfff0_0000_0000_0001), 0xffc0);
    assert_eq!(one(Dtype::F32, Dtype::F8E5M2, 0xff80_0001), 0xfe);
    assert_eq!(one(Dtype::F32, Dtype::F8E4M3, 0xff80_0001), 0xff);
    assert_eq!(one(Dtype::F32, Dtype::F8E4M3Fnuz, 0x7fc0_0000), 0x80);
    // A large result takes another path.
    let source: Vec<u8> = 0xff80_0001_u32.to_le_bytes().repeat(9 << 20);
    assert!(converted(Dtype::F32, Dtype::F16, &source).chunks_exact(2).all(|pair| pair == [0x00, 0xfe]));
    let codes: Vec<u8> = (0..=u8::MAX).cycle().take((5 << 20) + 77).collect();
    let (whole, once) =
        (converted(Dtype::F8E4M3, Dtype::F32, &codes), converted(Dtype::F8E4M3, Dtype::F32, &codes[..256]));
    assert!(whole.chunks(1024).all(|part| part == &once[..part.len()]));
}

fn call(from: i32, src: *const c_void, to: i32, dst: *mut c_void, count: usize) -> (st_status, String) {
    let mut error = MaybeUninit::<st_error>::zeroed();
    // SAFETY: callers pass memory of the size they say, or what is refused before it is touched.
    let (status, error) = unsafe { (st_convert(from, src, to, dst, count, error.as_mut_ptr()), error.assume_init()) };
    // SAFETY: NUL-terminated, as zeroed memory or as written.
    let message = unsafe { CStr::from_ptr(error.message.as_ptr()) }.to_str().unwrap().to_owned();
    assert_eq!(status, error.code);
    (status, message)
}

#[test]
fn st_convert_converts_and_refuses() {
    let mut memory = [0_u8; 64];
    let base = memory.as_mut_ptr();
    let at = |offset: usize| base.wrapping_add(offset).cast::<c_void>();
    let (bf16, f32, f6) = (ST_DTYPE_BF16, ST_DTYPE_F32, ST_DTYPE_F6_E3M2);

    // SAFETY: within `memory`.
    unsafe { base.add(1).copy_from_nonoverlapping([0x80, 0x3f, 0x00, 0xc0].as_ptr(), 4) };
    assert_eq!(call(bf16, at(1), f32, at(5), 2).0, ST_OK);
    // SAFETY: as above.
    assert_eq!(
        unsafe { [base.add(5).cast::<f32>().read_unaligned(), base.add(9).cast::<f32>().read_unaligned()] },
        [1.0, -2.0]
    );
    assert_eq!(call(bf16, at(1), bf16, at(20), 2).0, ST_OK, "a copy");
    assert_eq!(call(ST_DTYPE_C64, at(0), ST_DTYPE_C64, at(20), 2).0, ST_OK);

    let refused = |(status, message): (st_status, String), code: st_status, words: &[&str]| {
        assert_eq!(status, code, "{message}");
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    };
    let bad = ST_ERROR_INVALID_ARGUMENT;
    refused(call(bf16, at(1), f32, at(4), 2), bad, &["overlap"]);
    refused(call(bf16, at(8), f32, at(1), 2), bad, &["overlap"]);
    refused(call(bf16, at(8), bf16, at(8), 2), bad, &["overlap"]);
    assert_eq!(call(bf16, at(8), f32, at(0), 2).0, ST_OK, "side by side");
    refused(call(bf16, ptr::null(), f32, at(0), 1), bad, &["src is NULL"]);
    refused(call(bf16, at(0), f32, ptr::null_mut(), 1), bad, &["dst is NULL"]);
    assert_eq!(call(bf16, ptr::null(), f32, ptr::null_mut(), 0).0, ST_OK);
    refused(call(0, at(0), f32, at(8), 1), bad, &["from is 0"]);
    refused(call(bf16, at(0), 99, at(8), 1), bad, &["to is 99"]);
    refused(call(bf16, at(0), f32, at(8), usize::MAX / 2), bad, &["beyond any memory"]);
    refused(call(bf16, at(0), f32, at(8), usize::MAX), bad, &["beyond any memory"]);
    let last = ptr::without_provenance(usize::MAX - 1);
    refused(call(bf16, last, f32, at(8), 2), bad, &["past the end of memory"]);
    refused(call(f6, at(0), f32, at(8), 3), ST_ERROR_SUB_BYTE, &["3 elements of F6_E3M2"]);
    refused(call(ST_DTYPE_F4, at(0), f32, at(8), 1), ST_ERROR_SUB_BYTE, &["F4"]);
    refused(call(ST_DTYPE_F4, at(0), ST_DTYPE_F4, at(8), 1), ST_ERROR_SUB_BYTE, &["F4"]);
    refused(call(f32, at(0), ST_DTYPE_I8, at(8), 1), ST_ERROR_UNSUPPORTED, &["F32", "I8"]);
    refused(call(bf16, at(0), ST_DTYPE_F8_E4M3, at(8), 1), ST_ERROR_UNSUPPORTED, &["BF16", "F8_E4M3"]);
    refused(call(ST_DTYPE_UNKNOWN, at(0), ST_DTYPE_UNKNOWN, at(8), 1), ST_ERROR_UNSUPPORTED, &["UNKNOWN"]);
    refused(call(ST_DTYPE_C64, at(0), f32, at(8), 1), ST_ERROR_UNSUPPORTED, &["C64"]);
}
