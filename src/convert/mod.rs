// SPDX-License-Identifier: Apache-2.0
//! Elements of one dtype to another, each rounded once, to nearest even.
//!
//! One step does it, or a few by way of F32, block by block within the L1 cache.
//! The steps are in `scalar`, their SIMD forms in `x86`. Large results go past
//! the caches.
#![deny(unsafe_code)]

#[allow(unsafe_code, reason = "calls what the processor was found to have")]
mod level;
mod scalar;
mod small;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "SIMD loads and stores")]
mod x86;

pub(crate) use self::scalar::{to_bf16, to_f16};

use self::level::Instructions;
use self::scalar::Step;
use self::small::SmallCodes;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};

/// Results from this size on go past the caches, which would hold them no longer
/// than it takes to write them.
pub(crate) const FAR_FROM: usize = 16 << 20;

/// Elements in a block: its F32 fit the L1 cache beside source and result.
const BLOCK: usize = 512;

/// Whether `from` can be converted `to`.
#[must_use]
pub fn supported(from: Dtype, to: Dtype) -> bool {
    plan(from, to).is_some()
}

/// Converts as many elements as `src` holds; `dst` has just the room for them.
/// Neither needs to be aligned.
pub fn convert(from: Dtype, src: &[u8], to: Dtype, dst: &mut [u8]) -> Result<()> {
    let far = dst.len() >= FAR_FROM;
    convert_to(from, src, to, dst, far)
}

/// [`convert`] for whoever knows more of `dst` than its size. A piece of something
/// large is `far`: it is not in the caches, and would only push out what is.
pub fn convert_to(from: Dtype, src: &[u8], to: Dtype, dst: &mut [u8], far: bool) -> Result<()> {
    let plan = plan(from, to).ok_or_else(|| unsupported(from, to))?;
    let elements = elements_in(from, src.len())?;
    if Some(dst.len()) != byte_size(to, elements) {
        let text = format!("{} bytes are not what {elements} elements of {} take", dst.len(), to.name());
        return Err(Error::new(ErrorKind::BufferSize, text));
    }
    match plan {
        Conversion::Copy => dst.copy_from_slice(src),
        Conversion::Steps(steps) => steps.run(Instructions::best(), src, dst, far),
    }
    Ok(())
}

/// Copies bytes that nobody will look at soon: past the caches, where they are
/// many and the processor can.
///
/// # Errors
/// `BufferSize` for places of different sizes.
pub(crate) fn copy_far(src: &[u8], dst: &mut [u8]) -> Result<()> {
    if src.len() != dst.len() {
        return Err(Error::new(ErrorKind::BufferSize, "a copy to a place of another size"));
    }
    Instructions::best().copy_far(src, dst);
    Ok(())
}

/// Copies runs of `run` bytes that lie `stride` bytes apart, past the caches where the
/// processor can. `None` where they are not all there.
pub(crate) fn copy_runs_far(from: &[u8], stride: usize, run: usize, to: &mut [u8]) -> Option<()> {
    let level = Instructions::best();
    for (to, from) in to.chunks_exact_mut(run).zip(from.chunks(stride)) {
        level.stream(from.get(..run)?, to);
    }
    level.finish_far();
    Some(())
}

/// Bytes of that many elements; none where they are too many, or end within a byte.
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
        let text = format!("{bytes} bytes are not a whole number of elements of {}", dtype.name());
        Error::new(ErrorKind::SizeMismatch, text)
    };
    match dtype {
        Dtype::F4 => bytes.checked_mul(2).ok_or_else(sub_byte),
        Dtype::F6E2M3 | Dtype::F6E3M2 if bytes.is_multiple_of(3) => (bytes / 3).checked_mul(4).ok_or_else(sub_byte),
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

enum Conversion {
    Copy,
    Steps(Steps),
}

struct Steps {
    unpack: Option<Step>,
    first: Step,
    second: Option<Step>,
    /// Bits of an element of the source, and bytes of one of the result.
    from: usize,
    to: usize,
}

fn plan(from: Dtype, to: Dtype) -> Option<Conversion> {
    if from == to {
        return (from != Dtype::Unknown).then_some(Conversion::Copy);
    }
    let unpack = match from {
        Dtype::F4 => Some(Step::Unpack4),
        Dtype::F6E2M3 | Dtype::F6E3M2 => Some(Step::Unpack6),
        _ => None,
    };
    let (first, second) = steps(from, to)?;
    let bits = |dtype: Dtype| usize::try_from(dtype.bits()).ok();
    Some(Conversion::Steps(Steps { unpack, first, second, from: bits(from)?, to: bits(to)? / 8 }))
}

fn steps(from: Dtype, to: Dtype) -> Option<(Step, Option<Step>)> {
    if from == Dtype::F32 {
        return from_f32(to).map(|step| (step, None));
    }
    if to == Dtype::Bf16 {
        if let Some(codes) = small_float(from) {
            return Some((Step::SmallToBf16(codes), None));
        }
    }
    // To F32, and on the way to 16 bits: the same where F32 holds every value.
    let both = |step| (step, step);
    let (nearest, midway) = match from {
        Dtype::Bool => both(Step::BoolToF32),
        Dtype::U8 => both(Step::U8ToF32),
        Dtype::I8 => both(Step::I8ToF32),
        Dtype::F8E8M0 => both(Step::E8M0ToF32),
        Dtype::F16 => both(Step::F16ToF32),
        Dtype::Bf16 => both(Step::Bf16ToF32),
        Dtype::I16 => both(Step::I16ToF32),
        Dtype::U16 => both(Step::U16ToF32),
        Dtype::I32 => (Step::I32ToF32, Step::I32ToOdd),
        Dtype::U32 => (Step::U32ToF32, Step::U32ToOdd),
        Dtype::I64 => (Step::I64ToF32, Step::I64ToOdd),
        Dtype::U64 => (Step::U64ToF32, Step::U64ToOdd),
        Dtype::F64 => (Step::F64ToF32, Step::F64ToOdd),
        _ => both(Step::SmallToF32(small_float(from)?)),
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
        _ if to.bits() == 8 => Step::F32ToF8(small_float(to)?),
        _ => return None,
    })
}

fn small_float(dtype: Dtype) -> Option<&'static SmallCodes> {
    Some(match dtype {
        Dtype::F4 => &small::F4,
        Dtype::F6E2M3 => &small::F6E2M3,
        Dtype::F6E3M2 => &small::F6E3M2,
        Dtype::F8E5M2 => &small::E5M2,
        Dtype::F8E4M3 => &small::E4M3,
        Dtype::F8E4M3Fnuz => &small::E4M3FNUZ,
        Dtype::F8E5M2Fnuz => &small::E5M2FNUZ,
        _ => return None,
    })
}

/// Room for one block of codes, of F32 and of the result, on cache lines of its own.
#[repr(align(64))]
struct BlockRoom {
    codes: [u8; BLOCK],
    middle: [u8; BLOCK * 4],
    result: [u8; BLOCK * 4],
}

impl Steps {
    /// `far`: the result is not in the caches, and need not be. Where it has to be
    /// copied there and is smaller than the source, that gains nothing (measured:
    /// F32 to 8 bits loses a fifth, I64 to F32 a third).
    fn run(&self, level: Instructions, src: &[u8], dst: &mut [u8], far: bool) {
        let last = self.second.unwrap_or(self.first);
        let far = far && level.streams() && (level.streams_step(last) || self.to.saturating_mul(8) >= self.from);
        let near = if far { self.before_line(dst) } else { dst.len() };
        let (near_src, far_src) = src.split_at(self.source_bytes(self.elements(near)));
        let (near, far) = dst.split_at_mut(near);
        let single = self.unpack.is_none() && self.second.is_none();
        let mut room = BlockRoom { codes: [0; BLOCK], middle: [0; BLOCK * 4], result: [0; BLOCK * 4] };
        if single {
            level.run(self.first, near_src, near);
        } else {
            for (from, to) in self.blocks(near_src, near) {
                self.run_block(level, from, to, false, &mut room);
            }
        }
        if single && level.streams_step(self.first) {
            level.run_far(self.first, far_src, far);
        } else {
            for (from, to) in self.blocks(far_src, far) {
                level.prefetch(from);
                self.run_block(level, from, to, true, &mut room);
            }
        }
        if !far.is_empty() {
            level.finish_far();
        }
    }

    fn blocks<'a>(&self, src: &'a [u8], dst: &'a mut [u8]) -> impl Iterator<Item = (&'a [u8], &'a mut [u8])> {
        src.chunks(self.source_bytes(BLOCK)).zip(dst.chunks_mut(BLOCK.saturating_mul(self.to)))
    }

    /// Bytes before the first cache line, as only whole ones go past the caches.
    /// All bytes, if no element starts there.
    fn before_line(&self, dst: &[u8]) -> usize {
        let before = dst.as_ptr().align_offset(64);
        let elements = self.elements(before);
        let whole = elements.saturating_mul(self.to) == before && elements.saturating_mul(self.from).is_multiple_of(8);
        if whole && before < dst.len() {
            before
        } else {
            dst.len()
        }
    }

    fn run_block(&self, level: Instructions, src: &[u8], dst: &mut [u8], far: bool, room: &mut BlockRoom) {
        let elements = self.elements(dst.len());
        let (Some(codes), Some(middle)) =
            (room.codes.get_mut(..elements), room.middle.get_mut(..elements.saturating_mul(4)))
        else {
            return;
        };
        let (mut src, mut step) = (src, self.first);
        if let Some(unpack) = self.unpack {
            level.run(unpack, src, codes);
            src = codes;
        }
        if let Some(second) = self.second {
            level.run(step, src, middle);
            (src, step) = (middle, second);
        }
        match room.result.get_mut(..dst.len()) {
            Some(result) if far && !level.streams_step(step) => {
                level.run(step, src, result);
                level.stream(result, dst);
            }
            _ if far => level.run_far(step, src, dst),
            _ => level.run(step, src, dst),
        }
    }

    /// Elements in that many bytes of the result.
    fn elements(&self, bytes: usize) -> usize {
        bytes.checked_div(self.to).unwrap_or_default()
    }

    /// Bytes of that many elements in the source, which fill them.
    fn source_bytes(&self, elements: usize) -> usize {
        // The whole source has been measured: its bits need not fit.
        (elements / 8).saturating_mul(self.from).saturating_add((elements % 8).saturating_mul(self.from) / 8)
    }
}

#[cfg(test)]
mod tests;
