// SPDX-License-Identifier: Apache-2.0
//! What the 256 codes of each narrow dtype mean, made at compile time. All of
//! them fit BF16 exactly, which is the upper half of the F32; F16 is rounded.
#![forbid(unsafe_code)]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "runs at compile time only, where a fault is an error"
)]
#![allow(clippy::cast_possible_truncation, reason = "as above: bit fields")]

use super::scalar::to_f16;
use crate::dtype::Dtype;

/// A 16-bit value for each code.
pub(super) type Table = [u16; 256];

/// One dtype's values.
pub(super) struct Narrow {
    pub(super) bf16: Table,
    pub(super) f16: Table,
}

/// The table of a dtype of at most 8 bits.
pub(super) fn narrow(dtype: Dtype) -> Option<&'static Narrow> {
    static BOOL: Narrow = Narrow::of(Dtype::Bool);
    static U8: Narrow = Narrow::of(Dtype::U8);
    static I8: Narrow = Narrow::of(Dtype::I8);
    static F4: Narrow = Narrow::of(Dtype::F4);
    static F6E2M3: Narrow = Narrow::of(Dtype::F6E2M3);
    static F6E3M2: Narrow = Narrow::of(Dtype::F6E3M2);
    static F8E5M2: Narrow = Narrow::of(Dtype::F8E5M2);
    static F8E4M3: Narrow = Narrow::of(Dtype::F8E4M3);
    static F8E8M0: Narrow = Narrow::of(Dtype::F8E8M0);
    static F8E4M3FNUZ: Narrow = Narrow::of(Dtype::F8E4M3Fnuz);
    static F8E5M2FNUZ: Narrow = Narrow::of(Dtype::F8E5M2Fnuz);
    Some(match dtype {
        Dtype::Bool => &BOOL,
        Dtype::U8 => &U8,
        Dtype::I8 => &I8,
        Dtype::F4 => &F4,
        Dtype::F6E2M3 => &F6E2M3,
        Dtype::F6E3M2 => &F6E3M2,
        Dtype::F8E5M2 => &F8E5M2,
        Dtype::F8E4M3 => &F8E4M3,
        Dtype::F8E8M0 => &F8E8M0,
        Dtype::F8E4M3Fnuz => &F8E4M3FNUZ,
        Dtype::F8E5M2Fnuz => &F8E5M2FNUZ,
        _ => return None,
    })
}

impl Narrow {
    const fn of(dtype: Dtype) -> Self {
        let mut this = Self { bf16: [0; 256], f16: [0; 256] };
        let mut code = 0;
        while code < 256 {
            let bits = f32_bits(dtype, code as u32);
            assert!(bits & 0xffff == 0, "a value that BF16 does not hold");
            this.bf16[code] = (bits >> 16) as u16;
            this.f16[code] = to_f16(bits);
            code += 1;
        }
        this
    }
}

const INFINITY: u32 = 0x7f80_0000;
const NAN: u32 = 0x7fc0_0000;

/// The F32 that `code` stands for. NaN is the quiet one with the code's sign,
/// as ml_dtypes has it.
const fn f32_bits(dtype: Dtype, code: u32) -> u32 {
    let sign = (code & 0x80) << 24;
    match dtype {
        Dtype::Bool => ((code != 0) as u8 as f32).to_bits(),
        Dtype::U8 => (code as f32).to_bits(),
        Dtype::I8 => (code as u8 as i8 as f32).to_bits(),
        Dtype::F4 => float(code, 2, 1, 1),
        Dtype::F6E2M3 => float(code, 2, 3, 1),
        Dtype::F6E3M2 => float(code, 3, 2, 3),
        Dtype::F8E5M2 => match code & 0x7f {
            0x7c => sign | INFINITY,
            0x7d..=0x7f => sign | NAN,
            _ => float(code, 5, 2, 15),
        },
        Dtype::F8E4M3 => match code & 0x7f {
            0x7f => sign | NAN,
            _ => float(code, 4, 3, 7),
        },
        Dtype::F8E4M3Fnuz => match code {
            0x80 => sign | NAN,
            _ => float(code, 4, 3, 8),
        },
        Dtype::F8E5M2Fnuz => match code {
            0x80 => sign | NAN,
            _ => float(code, 5, 2, 16),
        },
        Dtype::F8E8M0 => match code {
            0 => 1 << 22,
            0xff => NAN,
            _ => code << 23,
        },
        _ => panic!("no narrow dtype"),
    }
}

/// A finite value of a sign, `exponent` and `mantissa` bits; bits above don't count.
const fn float(code: u32, exponent: u32, mantissa: u32, bias: u32) -> u32 {
    let sign = (code >> (exponent + mantissa)) & 1;
    let power = (code >> mantissa) & ((1 << exponent) - 1);
    let fraction = code & ((1 << mantissa) - 1);
    let magnitude = match (power, fraction) {
        (0, 0) => 0,
        (0, _) => {
            let top = fraction.ilog2();
            let power = 127 + 1 + top - bias - mantissa;
            (power << 23) | ((fraction ^ (1 << top)) << (23 - top))
        }
        _ => ((power + 127 - bias) << 23) | (fraction << (23 - mantissa)),
    };
    (sign << 31) | magnitude
}
