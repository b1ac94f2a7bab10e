// SPDX-License-Identifier: Apache-2.0
//! What the processor offers: found out once a call, from what std has cached.

use super::scalar::{self, Step};
#[cfg(target_arch = "x86_64")]
use super::x86;

/// Smaller copies stay in the caches.
const COPY_FAR_FROM: usize = 256 << 10;
const PAGE: usize = 4096;

/// A set of instructions that is there: only made after having looked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Instructions(InstructionSet);

#[derive(Clone, Copy, Debug, PartialEq)]
enum InstructionSet {
    /// What the target always has: SSE2 on x86-64, NEON on 64-bit ARM.
    Plain,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(all(target_arch = "x86_64", safetensors_avx512))]
    Avx512,
}

impl Instructions {
    pub(super) fn best() -> Self {
        #[cfg(all(target_arch = "x86_64", safetensors_avx512))]
        if x86::has_avx512() {
            return Self(InstructionSet::Avx512);
        }
        #[cfg(target_arch = "x86_64")]
        if x86::has_avx2() {
            return Self(InstructionSet::Avx2);
        }
        Self(InstructionSet::Plain)
    }

    /// Every level that this machine can run, the plain one first.
    #[cfg(test)]
    pub(super) fn all() -> Vec<Self> {
        let mut all = vec![Self(InstructionSet::Plain)];
        #[cfg(target_arch = "x86_64")]
        if x86::has_avx2() {
            all.push(Self(InstructionSet::Avx2));
        }
        all.push(Self::best());
        all.dedup();
        all
    }

    pub(super) fn run(self, step: Step, src: &[u8], dst: &mut [u8]) {
        match self.0 {
            InstructionSet::Plain => scalar::run(step, src, dst),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this level is only made where the processor has AVX2 and F16C.
            InstructionSet::Avx2 => unsafe { x86::run_avx2(step, src, dst, false) },
            #[cfg(all(target_arch = "x86_64", safetensors_avx512))]
            // SAFETY: this level is only made where the processor has these kinds of AVX-512.
            InstructionSet::Avx512 => unsafe { x86::run_avx512(step, src, dst) },
        }
    }

    /// Whether results can go past the caches. On 64-bit ARM the caches find out
    /// by themselves what is only written.
    pub(super) fn streams(self) -> bool {
        self.0 != InstructionSet::Plain
    }

    /// Whether `run_far` takes this step; of others the result can be copied by `stream`.
    #[allow(unused_variables, reason = "none elsewhere")]
    pub(super) fn streams_step(self, step: Step) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self.streams() && x86::streams(step);
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// `run`, the result of which goes past the caches; `finish_far` ends it.
    pub(super) fn run_far(self, step: Step, src: &[u8], dst: &mut [u8]) {
        #[cfg(target_arch = "x86_64")]
        if self.streams_step(step) {
            // SAFETY: all levels that stream have AVX2 and F16C.
            return unsafe { x86::run_avx2(step, src, dst, true) };
        }
        self.run(step, src, dst);
    }

    /// Copies past the caches; `finish_far` ends it.
    pub(super) fn stream(self, src: &[u8], dst: &mut [u8]) {
        #[cfg(target_arch = "x86_64")]
        if self.streams() {
            // SAFETY: as above.
            return unsafe { x86::stream(src, dst) };
        }
        dst.copy_from_slice(src);
    }

    /// Copies, what is many past the caches.
    pub(super) fn copy_far(self, src: &[u8], dst: &mut [u8]) {
        let before = dst.as_ptr().align_offset(64);
        if !self.streams() || dst.len() < COPY_FAR_FROM || src.len() != dst.len() {
            return dst.copy_from_slice(src);
        }
        let (near, far) = dst.split_at_mut(before.min(dst.len()));
        let (near_src, far_src) = src.split_at(near.len());
        near.copy_from_slice(near_src);
        for (from, to) in far_src.chunks(PAGE).zip(far.chunks_mut(PAGE)) {
            self.prefetch(from);
            self.stream(from, to);
        }
        self.finish_far();
    }

    /// Nobody sees what is written after this before what went past the caches.
    pub(super) fn finish_far(self) {
        #[cfg(target_arch = "x86_64")]
        if self.streams() {
            x86::finish_stream();
        }
    }

    /// Asks for what comes some way after `piece`, as much as that.
    #[allow(unused_variables, reason = "nothing to ask for elsewhere")]
    pub(super) fn prefetch(self, piece: &[u8]) {
        #[cfg(target_arch = "x86_64")]
        if self.streams() {
            x86::prefetch(piece);
        }
    }
}
