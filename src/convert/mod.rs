// SPDX-License-Identifier: Apache-2.0
//! Elements of one dtype to another, each rounded once, to nearest even.
//!
//! Narrow sources are table look-ups; the others go through F32, block by block
//! within the L1 cache. The steps are in `scalar`, their SIMD forms in `x86`.
#![deny(unsafe_code)]

#[allow(unsafe_code, reason = "calls what the processor was found to have")]
mod level;
mod scalar;
mod tables;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "SIMD loads and stores")]
mod x86;

use self::level::Level;
use self::scalar::Step;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};

/// Results from this size on are not in the caches, and their lines are asked
/// for ahead, those to be overwritten too. What limits one core there is how many
/// lines it has under way. BF16 to F32 on a Cascade Lake, in GB/s on pages of
/// 4 KiB and on huge ones: plain stores 7.5 to 8.0 and 7.5 to 9.2, these 8.9 to 9.9
/// and 8.7 to 10.2, stores past the caches with the source asked for ahead 8.3 to
/// 9.0 and 8.5 to 10.9. No clear winner of the last two, and these need neither
/// alignment nor a fence.
const AHEAD_FROM: usize = 16 << 20;

/// Elements in a block: its F32 fit the L1 cache beside source and result.
const BLOCK: usize = 512;

/// Elements in a block where the next are asked for with each, `BLOCK` elements ahead.
const BLOCK_AHEAD: usize = 128;

/// Whether `from` can be converted `to`.
#[must_use]
pub fn supported(from: Dtype, to: Dtype) -> bool {
    plan(from, to).is_some()
}

/// Converts as many elements as `src` holds; `dst` has just the room for them.
/// Neither needs to be aligned.
pub fn convert(from: Dtype, src: &[u8], to: Dtype, dst: &mut [u8]) -> Result<()> {
    let ahead = dst.len() >= AHEAD_FROM;
    let plan = plan(from, to).ok_or_else(|| unsupported(from, to))?;
    let elements = elements_in(from, src.len())?;
    if Some(dst.len()) != byte_size(to, elements) {
        let text = format!("{} bytes are not the room of {elements} elements of {}", dst.len(), to.name());
        return Err(Error::new(ErrorKind::BufferSize, text));
    }
    match plan {
        Plan::Copy => dst.copy_from_slice(src),
        Plan::Steps(steps) => steps.run(Level::best(), src, dst, ahead),
    }
    Ok(())
}

/// Bytes of so many elements; none where they are too many, or end within a byte.
pub(crate) fn byte_size(dtype: Dtype, elements: usize) -> Option<usize> {
    let bits = usize::try_from(dtype.bits()).ok()?;
    // Bytes of eight elements are the bits of one.
    let (eights, rest) = (elements / 8, elements % 8);
    let rest = rest.checked_mul(bits)?;
    if rest % 8 != 0 {
        return None;
    }
    eights.checked_mul(bits)?.checked_add(rest / 8)
}

fn elements_in(dtype: Dtype, bytes: usize) -> Result<usize> {
    let sub_byte = || {
        let text = format!("{bytes} bytes hold no whole number of elements of {}", dtype.name());
        Error::new(ErrorKind::SizeMismatch, text)
    };
    match dtype {
        Dtype::F4 => bytes.checked_mul(2).ok_or_else(sub_byte),
        Dtype::F6E2M3 | Dtype::F6E3M2 if bytes % 3 == 0 => (bytes / 3).checked_mul(4).ok_or_else(sub_byte),
        Dtype::F6E2M3 | Dtype::F6E3M2 => Err(sub_byte()),
        _ => {
            let size = usize::try_from(dtype.bits() / 8).unwrap_or_default();
            let whole = bytes.checked_rem(size) == Some(0);
            bytes.checked_div(size).filter(|_| whole).ok_or_else(sub_byte)
        }
    }
}

pub(crate) fn unsupported(from: Dtype, to: Dtype) -> Error {
    Error::new(ErrorKind::Unsupported, format!("{} can't be converted to {}", from.name(), to.name()))
}

enum Plan {
    Copy,
    Steps(Steps),
}

struct Steps {
    packing: Packing,
    first: Step,
    second: Option<Step>,
    /// Bytes of an element after unpacking, and of one of the result.
    from: usize,
    to: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Packing {
    Whole,
    Four,
    Six,
}

fn plan(from: Dtype, to: Dtype) -> Option<Plan> {
    if from == to {
        return (from != Dtype::Unknown).then_some(Plan::Copy);
    }
    let packing = match from {
        Dtype::F4 => Packing::Four,
        Dtype::F6E2M3 | Dtype::F6E3M2 => Packing::Six,
        _ => Packing::Whole,
    };
    let (first, second) = steps(from, to)?;
    let size = |dtype: Dtype| usize::try_from(dtype.bits().div_ceil(8)).ok();
    Some(Plan::Steps(Steps { packing, first, second, from: size(from)?, to: size(to)? }))
}

fn steps(from: Dtype, to: Dtype) -> Option<(Step, Option<Step>)> {
    if let Some(values) = tables::narrow(from) {
        let step = match to {
            Dtype::F32 => Step::Lookup32(&values.bf16),
            Dtype::Bf16 => Step::Lookup16(&values.bf16),
            Dtype::F16 => Step::Lookup16(&values.f16),
            _ => return None,
        };
        return Some((step, None));
    }
    if from == Dtype::F32 {
        return from_f32(to).map(|step| (step, None));
    }
    // To F32, and on the way to 16 bits: the same where F32 holds every value.
    let (nearest, midway) = match from {
        Dtype::F16 => (Step::F16ToF32, Step::F16ToF32),
        Dtype::Bf16 => (Step::Bf16ToF32, Step::Bf16ToF32),
        Dtype::I16 => (Step::I16ToF32, Step::I16ToF32),
        Dtype::U16 => (Step::U16ToF32, Step::U16ToF32),
        Dtype::I32 => (Step::I32ToF32, Step::I32ToOdd),
        Dtype::U32 => (Step::U32ToF32, Step::U32ToOdd),
        Dtype::I64 => (Step::I64ToF32, Step::I64ToOdd),
        Dtype::U64 => (Step::U64ToF32, Step::U64ToOdd),
        Dtype::F64 => (Step::F64ToF32, Step::F64ToOdd),
        _ => return None,
    };
    match to {
        Dtype::F32 => Some((nearest, None)),
        Dtype::F16 | Dtype::Bf16 => Some((midway, Some(from_f32(to)?))),
        _ => None,
    }
}

fn from_f32(to: Dtype) -> Option<Step> {
    Some(match to {
        Dtype::F16 => Step::F32ToF16,
        Dtype::Bf16 => Step::F32ToBf16,
        Dtype::F8E5M2 => Step::F32ToF8(scalar::E5M2),
        Dtype::F8E4M3 => Step::F32ToF8(scalar::E4M3),
        Dtype::F8E4M3Fnuz => Step::F32ToF8(scalar::E4M3FNUZ),
        Dtype::F8E5M2Fnuz => Step::F32ToF8(scalar::E5M2FNUZ),
        _ => return None,
    })
}

/// Room for one block, on cache lines of its own.
#[repr(align(64))]
struct Scratch<const N: usize>([u8; N]);

impl Steps {
    /// `ahead`: neither is in the caches.
    fn run(&self, level: Level, src: &[u8], dst: &mut [u8], ahead: bool) {
        if self.packing == Packing::Whole && self.second.is_none() && !ahead {
            return level.run(self.first, src, dst);
        }
        let elements = if ahead { BLOCK_AHEAD } else { BLOCK };
        let (src_bytes, dst_bytes) = (self.source_bytes(elements), elements.saturating_mul(self.to));
        let (src_lead, dst_lead) = (self.source_bytes(BLOCK), BLOCK.saturating_mul(self.to));
        let (mut codes, mut middle) = (Scratch([0; BLOCK]), Scratch([0; BLOCK * 4]));
        for (from, to) in src.chunks(src_bytes).zip(dst.chunks_mut(dst_bytes)) {
            if ahead {
                level.prefetch(from.as_ptr().wrapping_add(src_lead), src_bytes.div_ceil(64));
                level.prefetch(to.as_ptr().wrapping_add(dst_lead), dst_bytes.div_ceil(64));
            }
            self.run_block(level, from, to, &mut codes.0, &mut middle.0);
        }
    }

    fn run_block(&self, level: Level, src: &[u8], dst: &mut [u8], codes: &mut [u8], middle: &mut [u8]) {
        let elements = dst.len().checked_div(self.to).unwrap_or_default();
        let (Some(codes), Some(middle)) = (codes.get_mut(..elements), middle.get_mut(..elements.saturating_mul(4)))
        else {
            return;
        };
        let src = match self.packing {
            Packing::Whole => src,
            Packing::Four => {
                scalar::unpack4(src, codes);
                codes
            }
            Packing::Six => {
                scalar::unpack6(src, codes);
                codes
            }
        };
        match self.second {
            None => level.run(self.first, src, dst),
            Some(second) => {
                level.run(self.first, src, middle);
                level.run(second, middle, dst);
            }
        }
    }

    /// Source bytes of so many elements, a multiple of eight.
    fn source_bytes(&self, elements: usize) -> usize {
        match self.packing {
            Packing::Whole => elements.saturating_mul(self.from),
            Packing::Four => elements / 2,
            Packing::Six => (elements / 4).saturating_mul(3),
        }
    }
}

#[cfg(test)]
mod tests;
