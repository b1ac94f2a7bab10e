// SPDX-License-Identifier: Apache-2.0
//! Codes to values by what the processor has. What `scalar` says is what every
//! level must say.
#![forbid(unsafe_code)]
#![allow(clippy::arithmetic_side_effects, reason = "numbers of codes of a chunk")]

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use super::op::{GroupSpan, Magnitudes, Op, Packed, Room, Runs, Sixteen};
use super::scalar;
#[cfg(target_arch = "x86_64")]
use super::x86::Avx2;
#[cfg(all(target_arch = "x86_64", safetensors_avx512))]
use super::x86::Avx512;
use crate::dtype::Dtype;

/// Codes that are unpacked at a time: with what they become, they fit the L1 cache.
pub(super) const CHUNK: usize = 2048;

static WITHOUT_AVX512: AtomicBool = AtomicBool::new(false);

/// Groups are decoded as on a processor without AVX-512 from now on, or again as on this one:
/// for measurements.
#[doc(hidden)]
pub fn without_avx512(without: bool) {
    WITHOUT_AVX512.store(without, Relaxed);
}

/// A set of instructions that is there.
#[derive(Clone, Copy)]
pub(super) enum Level {
    Plain,
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(all(target_arch = "x86_64", safetensors_avx512))]
    Avx512(Avx512),
}

impl Level {
    pub(super) fn best() -> Self {
        #[cfg(all(target_arch = "x86_64", safetensors_avx512))]
        if let Some(avx512) = Avx512::there().filter(|_| !WITHOUT_AVX512.load(Relaxed)) {
            return Self::Avx512(avx512);
        }
        #[cfg(target_arch = "x86_64")]
        if let Some(avx2) = Avx2::there() {
            return Self::Avx2(avx2);
        }
        Self::Plain
    }

    /// Every level that this machine can run, the plain one first.
    #[cfg(test)]
    pub(super) fn all() -> Vec<Self> {
        let mut all = vec![Self::Plain];
        #[cfg(target_arch = "x86_64")]
        all.extend(Avx2::there().map(Self::Avx2));
        #[cfg(all(target_arch = "x86_64", safetensors_avx512))]
        all.extend(Avx512::there().map(Self::Avx512));
        all
    }

    #[cfg(target_arch = "x86_64")]
    fn avx2(self) -> Option<Avx2> {
        match self {
            Self::Plain => None,
            Self::Avx2(avx2) => Some(avx2),
            #[cfg(safetensors_avx512)]
            Self::Avx512(avx512) => Some(avx512.avx2()),
        }
    }

    /// Whether results by scale are looked up ([`Level::by_scale`]) faster than computed.
    pub(super) fn has_tables(self) -> bool {
        !matches!(self, Self::Plain)
    }

    /// The same for results by magnitude ([`Level::by_magnitude`]).
    pub(super) fn has_wide_tables(self) -> bool {
        #[cfg(all(target_arch = "x86_64", safetensors_avx512))]
        return matches!(self, Self::Avx512(_));
        #[cfg(not(all(target_arch = "x86_64", safetensors_avx512)))]
        false
    }

    /// Fills the room with what codes become.
    pub(super) fn run(
        self,
        op: &Op,
        runs: &Runs<'_>,
        codes: Packed<'_>,
        to: Dtype,
        room: Room<'_>,
        desk: &mut [u8; CHUNK],
    ) {
        let size = if to == Dtype::F32 { 4 } else { 2 };
        #[cfg(all(target_arch = "x86_64", safetensors_avx512))]
        if let (Self::Avx512(avx512), Some(table), 2) = (self, op.table(), size) {
            if matches!(codes, Packed::Bytes(_)) || runs.span.is_even(room.bytes.len() / size) {
                return avx512.run(op, &table, runs, codes, to, room);
            }
        }
        let Room { bytes, ahead } = room;
        let mut runs = *runs;
        let step = match codes {
            Packed::Bytes(_) => bytes.len().max(1),
            _ => CHUNK * size,
        };
        for (number, bytes) in bytes.chunks_mut(step).enumerate() {
            let count = bytes.len() / size;
            let Some(codes) = self.unpacked(codes, number * CHUNK, count, desk) else { return };
            self.run_bytes(op, &runs, codes, to, Room { bytes, ahead });
            runs = runs.after(count);
        }
    }

    fn run_bytes(self, op: &Op, runs: &Runs<'_>, codes: &[u8], to: Dtype, room: Room<'_>) {
        #[cfg(target_arch = "x86_64")]
        if let Some(avx2) = self.avx2() {
            return avx2.run(op, runs, codes, to, room);
        }
        scalar::run(op, runs, codes, to, room.bytes);
    }

    /// Some codes, one a byte.
    pub(super) fn unpacked<'c>(
        self,
        codes: Packed<'c>,
        at: usize,
        count: usize,
        desk: &'c mut [u8; CHUNK],
    ) -> Option<&'c [u8]> {
        let (bytes, high_first) = match codes {
            Packed::Bytes(bytes) => return bytes.get(at..at + count),
            Packed::LowNibbles(bytes) => (bytes, false),
            Packed::HighNibbles(bytes) => (bytes, true),
        };
        let desk = desk.get_mut(..count)?;
        self.nibbles(bytes.get(at / 2..)?, desk, high_first)?;
        Some(desk)
    }

    /// The same, of 16-bit results that have been made for each byte that a scale can be.
    #[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables, reason = "no level has tables"))]
    pub(super) fn by_scale(
        self,
        tables: &[Sixteen; 256],
        scales: &[u8],
        span: GroupSpan,
        codes: Packed<'_>,
        room: Room<'_>,
        desk: &mut [u8; CHUNK],
    ) {
        #[cfg(all(target_arch = "x86_64", safetensors_avx512))]
        if let (Self::Avx512(avx512), true) = (self, span.is_even(room.bytes.len() / 2)) {
            return avx512.by_scale(tables, scales, span, codes, room);
        }
        let Room { bytes, ahead } = room;
        let (mut scales, mut span) = (scales, span);
        for (number, bytes) in bytes.chunks_mut(CHUNK * 2).enumerate() {
            let count = bytes.len() / 2;
            let Some(codes) = self.unpacked(codes, number * CHUNK, count, desk) else { return };
            #[cfg(target_arch = "x86_64")]
            if let Some(avx2) = self.avx2() {
                avx2.by_scale(tables, scales, span, codes, Room { bytes, ahead });
            }
            let skip = span.advance(count);
            scales = scales.get(skip..).unwrap_or_default();
        }
    }

    /// The same, of 16-bit results that have been made for each group and magnitude.
    #[allow(unused_variables, reason = "none elsewhere")]
    pub(super) fn by_magnitude(self, tables: &[Magnitudes], span: GroupSpan, codes: &[u8], room: Room<'_>) {
        #[cfg(all(target_arch = "x86_64", safetensors_avx512))]
        if let Self::Avx512(avx512) = self {
            avx512.by_magnitude(tables, span, codes, room);
        }
    }

    /// The values of codes as F32 where an index says each column's group.
    pub(super) fn indexed(self, op: &Op, runs: &Runs<'_>, order: &[u32], codes: &[u8], out: &mut [u8]) {
        #[cfg(target_arch = "x86_64")]
        let done = self.avx2().map_or(0, |avx2| avx2.indexed(op, runs, order, codes, out));
        #[cfg(not(target_arch = "x86_64"))]
        let done = 0;
        let rest = (order.get(done..), codes.get(done..), out.get_mut(done * 4..));
        if let (Some(order), Some(codes), Some(out)) = rest {
            scalar::indexed(op, runs, order, codes, out);
        }
    }

    /// Words of what is stored [lines, words], to lines of `stride` bytes in `turned`, one for
    /// each of `words` words; `bytes` begin at the first, and `across` words lie from one
    /// line of the store to the next.
    pub(super) fn turn(
        self,
        bytes: &[u8],
        across: usize,
        words: usize,
        lines: usize,
        stride: usize,
        turned: &mut [u8],
    ) -> Option<()> {
        // Blocks of eight by eight, and what is left beside and below them.
        #[cfg(target_arch = "x86_64")]
        let (down, right) = self.avx2().map_or((0, 0), |avx2| avx2.turn(bytes, across, words, lines, stride, turned));
        #[cfg(not(target_arch = "x86_64"))]
        let (down, right) = (0, 0);
        if right < words {
            scalar::turn(bytes, across, (right, words), (0, down), stride, turned)?;
        }
        scalar::turn(bytes, across, (0, words), (down, lines), stride, turned)
    }

    /// Two codes of each byte.
    pub(super) fn nibbles(self, bytes: &[u8], room: &mut [u8], high_first: bool) -> Option<()> {
        if room.len().div_ceil(2) > bytes.len() {
            return None;
        }
        #[cfg(target_arch = "x86_64")]
        if let Some(avx2) = self.avx2() {
            avx2.nibbles(bytes, room, high_first);
            return Some(());
        }
        scalar::nibbles(bytes, room, high_first);
        Some(())
    }

    /// One nibble of each word of 32 bits: that from bit `shift` on.
    pub(super) fn nibble_of_words(self, words: &[u8], shift: u32, room: &mut [u8]) -> Option<()> {
        #[cfg(target_arch = "x86_64")]
        let done = self.avx2().map_or(0, |avx2| avx2.nibble_of_words(words, shift, room));
        #[cfg(not(target_arch = "x86_64"))]
        let done = 0;
        scalar::nibble_of_words(words.get(done * 4..)?, shift, room.get_mut(done..)?)
    }

    /// Codes of a stream of so many bits each, the first of which begins at bit `shift` of a byte.
    pub(super) fn stream(self, bytes: &[u8], shift: u32, bits: u32, room: &mut [u8]) -> Option<()> {
        if (bits, shift) == (4, 0) {
            return self.nibbles(bytes, room, false);
        }
        #[cfg(target_arch = "x86_64")]
        let done = self.avx2().map_or(0, |avx2| avx2.stream(bytes, shift, bits, room));
        #[cfg(not(target_arch = "x86_64"))]
        let done = 0;
        let bytes = bytes.get(done / 8 * usize::try_from(bits).ok()?..)?;
        scalar::stream(bytes, shift, bits, room.get_mut(done..)?)
    }
}
