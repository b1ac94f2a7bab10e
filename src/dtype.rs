// SPDX-License-Identifier: Apache-2.0
//! Element types: the name in the file, the number in C, the size in bits.
#![forbid(unsafe_code)]

use std::ffi::CStr;

macro_rules! dtypes {
    ($($variant:ident = $number:literal, $name:literal, $bits:literal, $doc:literal;)*) => {
        /// An element type of the format.
        ///
        /// The numbers are the C constants `ST_DTYPE_*` and never change.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(i32)]
        pub enum Dtype {
            $(#[doc = $doc] $variant = $number,)*
        }

        impl Dtype {
            /// Every element type, in the order of their numbers.
            pub const ALL: &'static [Dtype] = &[$(Dtype::$variant),*];

            /// The spelling in files, NUL-terminated for C.
            #[must_use]
            pub const fn c_name(self) -> &'static CStr {
                match self {
                    $(Dtype::$variant => $name,)*
                }
            }

            /// Size of one element in bits; 0 for [`Dtype::Unknown`].
            #[must_use]
            pub const fn bits(self) -> u32 {
                match self {
                    $(Dtype::$variant => $bits,)*
                }
            }

            /// The dtype with this C number.
            #[must_use]
            pub const fn from_number(number: i32) -> Option<Self> {
                match number {
                    $($number => Some(Dtype::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

// Numbers are the C ABI: append, never renumber.
dtypes! {
    Bool = 1, c"BOOL", 8, "One byte, 0 or 1.";
    F4 = 2, c"F4", 4, "E2M1, two elements a byte, low bits first (OCP MX 1.0).";
    F6E2M3 = 3, c"F6_E2M3", 6, "6-bit float, 2 exponent bits (OCP MX 1.0).";
    F6E3M2 = 4, c"F6_E3M2", 6, "6-bit float, 3 exponent bits (OCP MX 1.0).";
    U8 = 5, c"U8", 8, "Unsigned byte.";
    I8 = 6, c"I8", 8, "Signed byte.";
    F8E5M2 = 7, c"F8_E5M2", 8, "8-bit float with infinities (OCP 8-bit floating point).";
    F8E4M3 = 8, c"F8_E4M3", 8, "8-bit float, the fn kind: no infinity, NaN is S.1111.111.";
    F8E8M0 = 9, c"F8_E8M0", 8, "Power of two 2^(b-127), NaN is 0xFF (OCP MX 1.0).";
    F8E4M3Fnuz = 10, c"F8_E4M3FNUZ", 8, "8-bit float, one zero, NaN is 0x80 (ONNX).";
    F8E5M2Fnuz = 11, c"F8_E5M2FNUZ", 8, "8-bit float, one zero, NaN is 0x80 (ONNX).";
    I16 = 12, c"I16", 16, "Signed 16-bit integer.";
    U16 = 13, c"U16", 16, "Unsigned 16-bit integer.";
    F16 = 14, c"F16", 16, "IEEE 754 half precision.";
    Bf16 = 15, c"BF16", 16, "The upper half of an F32.";
    I32 = 16, c"I32", 32, "Signed 32-bit integer.";
    U32 = 17, c"U32", 32, "Unsigned 32-bit integer.";
    F32 = 18, c"F32", 32, "IEEE 754 single precision.";
    C64 = 19, c"C64", 64, "Complex number of two F32: real, imaginary.";
    F64 = 20, c"F64", 64, "IEEE 754 double precision.";
    I64 = 21, c"I64", 64, "Signed 64-bit integer.";
    U64 = 22, c"U64", 64, "Unsigned 64-bit integer.";
    Unknown = 255, c"UNKNOWN", 0, "A dtype this library does not know, kept as opaque bytes on request.";
}

impl Dtype {
    /// The spelling in files, such as `"F32"`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.c_name().to_str().unwrap_or("")
    }

    /// The dtype that files spell so; case matters, as in the format.
    #[must_use]
    pub fn from_name(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"F32" => Self::F32,
            b"BF16" => Self::Bf16,
            b"F16" => Self::F16,
            b"BOOL" => Self::Bool,
            b"F4" => Self::F4,
            b"F6_E2M3" => Self::F6E2M3,
            b"F6_E3M2" => Self::F6E3M2,
            b"U8" => Self::U8,
            b"I8" => Self::I8,
            b"F8_E5M2" => Self::F8E5M2,
            b"F8_E4M3" => Self::F8E4M3,
            b"F8_E8M0" => Self::F8E8M0,
            b"F8_E4M3FNUZ" => Self::F8E4M3Fnuz,
            b"F8_E5M2FNUZ" => Self::F8E5M2Fnuz,
            b"I16" => Self::I16,
            b"U16" => Self::U16,
            b"I32" => Self::I32,
            b"U32" => Self::U32,
            b"C64" => Self::C64,
            b"F64" => Self::F64,
            b"I64" => Self::I64,
            b"U64" => Self::U64,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Dtype;

    #[test]
    fn names_and_numbers_lead_back_to_their_dtype() {
        for &dtype in Dtype::ALL {
            assert_eq!(Dtype::from_number(dtype as i32), Some(dtype));
            let known = (dtype != Dtype::Unknown).then_some(dtype);
            assert_eq!(Dtype::from_name(dtype.name().as_bytes()), known);
        }
        assert_eq!(Dtype::from_number(0), None);
        assert_eq!(Dtype::from_name(b"f32"), None);
    }
}
