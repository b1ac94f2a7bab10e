// SPDX-License-Identifier: Apache-2.0
//! What a row's codes become: the arithmetic as data, and runs of codes that
//! share a scale.
#![forbid(unsafe_code)]

/// What codes stand for.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "the width is of use to tables"))]
#[derive(Clone, Copy)]
pub(super) enum Values {
    Table([f32; 16]),
    Unsigned { bits: u32 },
    Signed,
    E2M3,
    E4M3,
    E5M2,
}

/// What a code's value x becomes, with its scale s and zero z. Each operation rounds.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Tail {
    /// (x - z) · s.
    Scale,
    /// ((x - z) · s) · this.
    Times(f32),
    /// ((x - z) · s) / this.
    Over(f32),
    /// x · s + z, rounded once.
    Offset,
}

/// How codes become values.
#[derive(Clone, Copy)]
pub(super) struct Op {
    pub(super) values: Values,
    pub(super) tail: Tail,
    /// The zero of all groups, where runs have none.
    pub(super) zero: f32,
}

impl Op {
    /// The values of codes of at most four bits.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn table(&self) -> Option<[f32; 16]> {
        match self.values {
            Values::Table(table) => Some(table),
            Values::Unsigned { bits: ..=4 } => Some(std::array::from_fn(|code| code as f32)),
            _ => None,
        }
    }
}

/// The groups of some of a row's columns: the first has `left` of them, each later one `group`.
#[derive(Clone, Copy)]
pub(super) struct GroupSpan {
    pub(super) left: usize,
    pub(super) group: usize,
}

impl GroupSpan {
    /// Whether no group of so many columns but the last has an odd number of them.
    #[cfg(all(target_arch = "x86_64", safetensors_avx512))]
    pub(super) fn is_even(&self, count: usize) -> bool {
        let even = |columns: usize| columns.is_multiple_of(2);
        self.left >= count || even(self.left) && (even(self.group) || self.left.saturating_add(self.group) >= count)
    }

    /// What is left after so many columns; the number of groups that ended.
    pub(super) fn advance(&mut self, count: usize) -> usize {
        if count < self.left {
            self.left = self.left.saturating_sub(count);
            return 0;
        }
        let over = count.saturating_sub(self.left);
        let rest = over.checked_rem(self.group).unwrap_or(0);
        self.left = self.group.saturating_sub(rest);
        over.checked_div(self.group).unwrap_or(0).saturating_add(1)
    }
}

/// The parameters of some of a row's columns, by group.
#[derive(Clone, Copy)]
pub(super) struct Runs<'a> {
    pub(super) scales: &'a [f32],
    /// Empty where there is one zero for all.
    pub(super) zeros: &'a [f32],
    pub(super) span: GroupSpan,
}

impl Runs<'_> {
    /// Those after so many columns.
    pub(super) fn after(mut self, count: usize) -> Self {
        let skip = self.span.advance(count);
        self.scales = self.scales.get(skip..).unwrap_or_default();
        self.zeros = self.zeros.get(skip..).unwrap_or_default();
        self
    }
}

/// A row's codes as they lie.
#[derive(Clone, Copy)]
pub(super) enum Packed<'a> {
    /// One a byte.
    Bytes(&'a [u8]),
    /// Two a byte, the first one in the lower half.
    LowNibbles(&'a [u8]),
    /// Two a byte, the first one in the upper half.
    HighNibbles(&'a [u8]),
}

/// Where results go.
pub(super) struct Room<'a> {
    pub(super) bytes: &'a mut [u8],
    /// How far ahead of a result memory is asked for that will be written: what is
    /// not in the caches takes three times as long otherwise.
    pub(super) ahead: usize,
}

/// A run of codes with one scale.
pub(super) struct Piece<'a> {
    pub(super) codes: &'a [u8],
    pub(super) out: &'a mut [u8],
    pub(super) scale: f32,
    pub(super) zero: f32,
}

/// Cuts codes, one a byte, and results where groups end.
pub(super) struct Pieces<'a> {
    codes: &'a [u8],
    out: &'a mut [u8],
    scales: std::slice::Iter<'a, f32>,
    zeros: std::slice::Iter<'a, f32>,
    zero: f32,
    span: GroupSpan,
    size: usize,
}

impl<'a> Pieces<'a> {
    #[inline(always)]
    pub(super) fn new(op: &Op, runs: &Runs<'a>, codes: &'a [u8], size: usize, out: &'a mut [u8]) -> Self {
        let (scales, zeros) = (runs.scales.iter(), runs.zeros.iter());
        Self { codes, out, scales, zeros, zero: op.zero, span: runs.span, size }
    }

    #[inline(always)]
    pub(super) fn next(&mut self) -> Option<Piece<'a>> {
        if self.codes.is_empty() {
            return None;
        }
        let scale = *self.scales.next()?;
        let zero = self.zeros.next().copied().unwrap_or(self.zero);
        let count = self.span.left.min(self.codes.len());
        let (codes, later) = self.codes.split_at_checked(count)?;
        let (out, room) = std::mem::take(&mut self.out).split_at_mut_checked(count.checked_mul(self.size)?)?;
        (self.codes, self.out, self.span.left) = (later, room, self.span.group);
        Some(Piece { codes, out, scale, zero })
    }
}

/// The results of 16 codes, of 16 bits each.
pub(super) type Sixteen = [u8; 32];

/// The results of the 128 codes that are not negative, of 16 bits each.
pub(super) type Magnitudes = [u8; 256];
