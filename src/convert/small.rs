// SPDX-License-Identifier: Apache-2.0
//! Floats of at most 8 bits: what rounds F32 to them, and what their codes mean.
#![forbid(unsafe_code)]
#![allow(clippy::arithmetic_side_effects, reason = "bit fields; a wrap that can happen is written wrapping")]
#![allow(clippy::cast_possible_truncation, reason = "keeping the low bits is what the casts are for")]

pub(super) const ABS: u32 = 0x7fff_ffff;
pub(super) const INFINITY: u32 = 0x7f80_0000;
const NAN: u32 = 0x7fc0_0000;

/// A small float, and how F32 becomes it and comes from it.
#[derive(Clone, Copy)]
pub(super) struct Small {
    /// Bits of the mantissa that go.
    shift: u32,
    /// What the exponents' biases differ by, in place.
    rebias: u32,
    /// Added to a value below the least normal one, this leaves its code, rounded, in the lowest bits.
    magic: u32,
    /// The code of overflow; all codes above stand for it.
    limit: u32,
    nan: u32,
    /// The least code that can have a sign: kinds with one zero have no negative one.
    least_signed: u32,
    /// The number of the sign's bit.
    top: u32,
    /// The code of infinity, or one that no element has.
    infinity: u32,
    /// A code is NaN if, with the first exclusive-or-ed and of the second's bits, it is above the third.
    nan_above: (u32, u32, u32),
}

const NONE: (u32, u32, u32) = (0, 0, 0);
const FNUZ: (u32, u32, u32) = (0x7f, 0xff, 0xfe);

/// A small float as a source: `small` says what each code means, `nibbles` says it again.
pub(super) struct SmallCodes {
    pub(super) small: Small,
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "for SIMD by hand"))]
    pub(super) nibbles: Nibbles,
}

pub(super) static F4: SmallCodes = SmallCodes::of(Small::new(2, 1, 1, NONE));
pub(super) static F6E2M3: SmallCodes = SmallCodes::of(Small::new(2, 3, 1, NONE));
pub(super) static F6E3M2: SmallCodes = SmallCodes::of(Small::new(3, 2, 3, NONE));
/// Overflow is infinity.
pub(super) static E5M2: SmallCodes =
    SmallCodes::of(Small { infinity: 0x7c, ..Small::new(5, 2, 15, (0, 0x7f, 0x7c)).rounding(0x7c, 0x7e, 0) });
/// Overflow is NaN, as in the other two.
pub(super) static E4M3: SmallCodes = SmallCodes::of(Small::new(4, 3, 7, (0, 0x7f, 0x7e)).rounding(0x7f, 0x7f, 0));
pub(super) static E4M3FNUZ: SmallCodes = SmallCodes::of(Small::new(4, 3, 8, FNUZ).rounding(0x80, 0x80, 1));
pub(super) static E5M2FNUZ: SmallCodes = SmallCodes::of(Small::new(5, 2, 16, FNUZ).rounding(0x80, 0x80, 1));
/// To be rounded to only.
pub(super) const F16: Small = Small::new(5, 10, 15, NONE).rounding(0x7c00, 0x7e00, 0);

impl Small {
    const fn new(exponent: u32, mantissa: u32, bias: u32, nan_above: (u32, u32, u32)) -> Self {
        // An F32 of this exponent counts in steps of the least subnormal.
        let magic = (127 + 1 + 23 - bias - mantissa) << 23;
        let (shift, rebias, top) = (23 - mantissa, (127 - bias) << 23, exponent + mantissa);
        Self { shift, rebias, magic, limit: 0, nan: 0, least_signed: 0, top, infinity: u32::MAX, nan_above }
    }

    const fn rounding(self, limit: u32, nan: u32, least_signed: u32) -> Self {
        Self { limit, nan, least_signed, ..self }
    }

    /// The code of the F32 with the bits `abs`, which is not negative and no NaN.
    #[inline(always)]
    pub(super) const fn magnitude(self, abs: u32) -> u32 {
        let lowest_kept = (abs >> self.shift) & 1;
        let half = (1 << (self.shift - 1)) - 1;
        let normal = (abs + half + lowest_kept).wrapping_sub(self.rebias) >> self.shift;
        let subnormal = (f32::from_bits(abs) + f32::from_bits(self.magic)).to_bits().wrapping_sub(self.magic);
        let code = if abs < self.rebias + (1 << 23) { subnormal } else { normal };
        if code < self.limit {
            code
        } else {
            self.limit
        }
    }

    /// The code of the F32 with these bits.
    #[inline(always)]
    pub(super) const fn code(self, bits: u32) -> u8 {
        let abs = bits & ABS;
        let code = if abs > INFINITY { self.nan } else { self.magnitude(abs) };
        let sign = if code < self.least_signed { 0 } else { (bits >> 24) & 0x80 };
        (sign | code) as u8
    }

    /// The bits of the F32 that `code` stands for. NaN is the quiet one with the
    /// code's sign, as ml_dtypes has it.
    #[inline(always)]
    pub(super) const fn value(self, code: u8) -> u32 {
        let code = code as u32;
        let abs = code & ((1 << self.top) - 1);
        let shifted = abs << self.shift;
        let least_normal = self.rebias + (1 << 23);
        let subnormal = (f32::from_bits(shifted + least_normal) - f32::from_bits(least_normal)).to_bits();
        let finite = if shifted < 1 << 23 { subnormal } else { shifted + self.rebias };
        let value = if abs == self.infinity { INFINITY } else { finite };
        let (flip, mask, last) = self.nan_above;
        let value = if (code ^ flip) & mask > last { NAN } else { value };
        ((code << (31 - self.top)) & !ABS) | value
    }

    /// What `code` would stand for if it were normal.
    const fn as_normal(self, code: u8) -> u32 {
        let code = code as u32;
        let abs = code & ((1 << self.top) - 1);
        ((code << (31 - self.top)) & !ABS) | ((abs << self.shift) + self.rebias)
    }
}

/// The values of all codes by tables of 16 bytes, one for each half of a code,
/// which SIMD looks up in registers. All values fit BF16, so they are two bytes:
/// the upper one is `upper_of_high + upper_of_low`, the lower one `lower_of_low`.
/// Of exceptions (subnormals, zero, infinity, NaN) both halves have the same bit
/// in common, and they take what is said of them instead.
pub(super) struct Nibbles {
    pub(super) upper_of_high: [u8; 16],
    pub(super) upper_of_low: [u8; 16],
    pub(super) lower_of_low: [u8; 16],
    pub(super) exceptions_of_high: [u8; 16],
    pub(super) exceptions_of_low: [u8; 16],
    pub(super) exceptional_upper: [u8; 16],
    pub(super) exceptional_lower: [u8; 16],
    /// The bits of 0xffc0 are added to the value of this code.
    pub(super) negative_nan: u8,
}

impl SmallCodes {
    /// Made, and found to be right for every code, at compile time.
    #[allow(clippy::indexing_slicing, clippy::panic, reason = "at compile time a fault is an error")]
    const fn of(small: Small) -> Self {
        let (none, has_one_nan) = ([0; 16], small.nan_above.0 != 0);
        let mut made = Nibbles {
            upper_of_high: none,
            upper_of_low: none,
            lower_of_low: none,
            exceptions_of_high: none,
            exceptions_of_low: none,
            exceptional_upper: none,
            exceptional_lower: none,
            negative_nan: if has_one_nan { 0x80 } else { 0xff },
        };
        let upper_of_none = (small.as_normal(0) >> 24) as u8;
        let codes = 2 << small.top;
        let mut nibble = 0;
        while nibble < 16 {
            made.upper_of_high[nibble] = (small.as_normal((nibble as u8) << 4) >> 24) as u8;
            let low = small.as_normal(nibble as u8);
            made.upper_of_low[nibble] = ((low >> 24) as u8).wrapping_sub(upper_of_none);
            made.lower_of_low[nibble] = (low >> 16) as u8;
            nibble += 1;
        }
        let mut code = 0;
        while code < codes {
            let (value, high, low) = (small.value(code as u8), code >> 4, code & 0xf);
            assert!(value & 0xffff == 0, "a value that BF16 does not hold");
            if value != small.as_normal(code as u8) && !(has_one_nan && code == 0x80) {
                // Small and large ones differ in what they add to.
                let bit = if value & ABS < 0x3f80_0000 { 1 } else { 2 };
                made.exceptions_of_high[high] |= bit;
                made.exceptions_of_low[low] |= bit;
                made.exceptional_upper[low] = ((value >> 24) as u8).wrapping_sub(made.upper_of_high[high]);
                made.exceptional_lower[low] = (value >> 16) as u8;
            }
            code += 1;
        }
        let mut code = 0;
        while code < codes {
            assert!(made.value(code as u8) == small.value(code as u8), "tables that say otherwise");
            code += 1;
        }
        Self { small, nibbles: made }
    }
}

impl Nibbles {
    #[allow(clippy::indexing_slicing, reason = "as above")]
    const fn value(&self, code: u8) -> u32 {
        let (high, low) = ((code >> 4) as usize, (code & 0xf) as usize);
        let (upper, lower) = if self.exceptions_of_high[high] & self.exceptions_of_low[low] == 0 {
            (self.upper_of_low[low], self.lower_of_low[low])
        } else {
            (self.exceptional_upper[low], self.exceptional_lower[low])
        };
        let nan = if code == self.negative_nan { 0xffc0 } else { 0 };
        ((self.upper_of_high[high].wrapping_add(upper) as u32) << 24 | (lower as u32) << 16) | nan << 16
    }
}
