// SPDX-License-Identifier: Apache-2.0
//! What the processor offers: found out once a call, from what std has cached.

use super::scalar::{self, Step};
#[cfg(target_arch = "x86_64")]
use super::x86;

/// A set of instructions that is there: only made after having looked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Level(Set);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Set {
    /// What the target always has: SSE2 on x86-64, NEON on 64-bit ARM.
    Plain,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(all(target_arch = "x86_64", safetensors_avx512))]
    Avx512,
}

impl Level {
    pub(super) fn best() -> Self {
        #[cfg(all(target_arch = "x86_64", safetensors_avx512))]
        if x86::has_avx512() {
            return Self(Set::Avx512);
        }
        #[cfg(target_arch = "x86_64")]
        if x86::has_avx2() {
            return Self(Set::Avx2);
        }
        Self(Set::Plain)
    }

    /// Every level that this machine can run, the plain one first.
    #[cfg(test)]
    pub(super) fn all() -> Vec<Self> {
        let mut all = vec![Self(Set::Plain)];
        #[cfg(target_arch = "x86_64")]
        if x86::has_avx2() {
            all.push(Self(Set::Avx2));
        }
        all.push(Self::best());
        all.dedup();
        all
    }

    pub(super) fn run(self, step: Step, src: &[u8], dst: &mut [u8]) {
        match self.0 {
            Set::Plain => scalar::run(step, src, dst),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this level is only made where the processor has AVX2 and F16C.
            Set::Avx2 => unsafe { x86::run_avx2(step, src, dst) },
            #[cfg(all(target_arch = "x86_64", safetensors_avx512))]
            // SAFETY: this level is only made where the processor has these kinds of AVX-512.
            Set::Avx512 => unsafe { x86::run_avx512(step, src, dst) },
        }
    }

    /// Asks for cache lines. They may be anywhere.
    #[allow(clippy::unused_self, reason = "it asks a level")]
    #[allow(unused_variables, reason = "nothing to ask for elsewhere")]
    pub(super) fn prefetch(self, start: *const u8, lines: usize) {
        #[cfg(target_arch = "x86_64")]
        x86::prefetch(start, lines);
    }
}
