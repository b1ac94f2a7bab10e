// SPDX-License-Identifier: Apache-2.0
//! Which box of each member a box of the logical tensor needs.
#![forbid(unsafe_code)]
#![allow(
    clippy::arithmetic_side_effects,
    reason = "a group's members have 2^48 elements at most, and dimensions in range; divisors are above 0"
)]

use std::ops::Range;

use super::group::{Group, Member, Role};
use super::recipe::Recipe;
use super::recipe::{ColumnOrder, Packing, ScaleLayout, Zero};
use crate::checkpoint::Checkpoint;
use crate::error::{quoted, Error, ErrorKind, Result};
use crate::record::{self, Tensor};

/// What is needed of a member.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberPart {
    /// What it is for.
    pub role: Role,
    /// The tensor's number.
    pub tensor: usize,
    /// In elements of the stored shape.
    pub ranges: Vec<Range<u64>>,
}

/// How one stored dimension follows from the elements that are wanted.
#[derive(Clone, Copy)]
enum MemberCut {
    Whole,
    /// As a logical dimension, of which `per` elements lie in `units` elements stored,
    /// which are taken whole.
    Along {
        dimension: usize,
        units: u64,
        per: u64,
    },
    /// The same, of elements counted in C order.
    Flat {
        units: u64,
        per: u64,
    },
    /// Whole tiles of so many.
    Tiles {
        dimension: usize,
        size: u64,
    },
}

impl MemberCut {
    const fn same(dimension: usize) -> Self {
        Self::Along { dimension, units: 1, per: 1 }
    }

    fn range(self, size: u64, logical: &[Range<u64>], flat: &Range<u64>) -> Range<u64> {
        let scaled = |range: &Range<u64>, units: u64, per: u64| {
            let stop = (range.end * units).div_ceil(per).min(size);
            (range.start * units / per).min(stop)..stop
        };
        match self {
            Self::Whole => 0..size,
            Self::Along { dimension, units, per } => {
                logical.get(dimension).map_or(0..size, |range| scaled(range, units, per))
            }
            Self::Flat { units, per } => scaled(flat, units, per),
            Self::Tiles { dimension, size: tile } => logical.get(dimension).map_or(0..size, |range| {
                let whole = scaled(range, 1, tile);
                whole.start * tile..(whole.end * tile).min(size)
            }),
        }
    }
}

impl Group {
    /// The boxes that a box of the logical tensor needs, codes first; of helpers none.
    pub(crate) fn boxes(&self, checkpoint: &Checkpoint, logical: &[Range<u64>]) -> Vec<MemberPart> {
        let Some(recipe) = self.recipe else {
            return Vec::new();
        };
        let flat = self.flat(logical);
        let tensor_of = |member: &Member| checkpoint.tensors().get(member.tensor);
        let needed = self.members.iter().filter_map(|member| {
            let tensor = tensor_of(member)?;
            let cuts = self.cuts(recipe, member.role, tensor)?;
            let sizes = tensor.shape().iter().map(|size| u64::try_from(*size).unwrap_or_default());
            let ranges = sizes.zip(cuts).map(|(size, cut)| cut.range(size, logical, &flat)).collect();
            Some(MemberPart { role: member.role, tensor: member.tensor, ranges })
        });
        needed.collect()
    }

    /// From the first to after the last element of a box, in C order.
    fn flat(&self, logical: &[Range<u64>]) -> Range<u64> {
        let mut range = 0..0;
        for (size, inner) in self.shape.iter().zip(logical) {
            let size = u64::try_from(*size).unwrap_or_default();
            range = range.start * size + inner.start..range.end * size + inner.end.saturating_sub(1);
        }
        range.start..range.end + 1
    }

    /// How a member is cut; `None` where decoding does not need it.
    fn cuts(&self, recipe: Recipe, role: Role, tensor: &Tensor) -> Option<Vec<MemberCut>> {
        let rank = self.shape.len();
        let bits = u64::from(self.bits);
        let (row, column) = (rank.saturating_sub(2), rank.saturating_sub(1));
        let block_of =
            |dimension: usize| self.block.get(dimension).and_then(|size| u64::try_from(*size).ok()).unwrap_or(1);
        // Bits of a stored element of codes or zero points.
        let word = u64::from(tensor.dtype().bits());
        let outer = |inner: Vec<MemberCut>| -> Vec<MemberCut> {
            let before = tensor.shape().len().saturating_sub(inner.len());
            (0..before).map(MemberCut::same).chain(inner).collect()
        };
        let along = |dimension, units, per| MemberCut::Along { dimension, units, per };
        let group = match recipe.order {
            ColumnOrder::Sequential => along(column, 1, block_of(column)),
            ColumnOrder::Index => MemberCut::Whole,
        };
        let of_scales = || match recipe.scale_layout {
            ScaleLayout::Tensor => vec![MemberCut::Whole; tensor.shape().len()],
            ScaleLayout::Rows if tensor.shape().len() == 1 => vec![MemberCut::same(row)],
            ScaleLayout::Rows => vec![MemberCut::same(row), MemberCut::Whole],
            ScaleLayout::Groups => outer(vec![MemberCut::same(row), group]),
            ScaleLayout::GroupsTransposed => vec![group, MemberCut::same(row)],
            ScaleLayout::Grid => outer(vec![along(row, 1, block_of(row)), group]),
            ScaleLayout::Swizzled => vec![MemberCut::Tiles { dimension: row, size: 128 }, MemberCut::Whole],
            ScaleLayout::Flat => vec![MemberCut::Flat { units: 1, per: block_of(column) }],
        };
        Some(match role {
            Role::Codes => match recipe.packing {
                Packing::Bytes => (0..rank).map(MemberCut::same).collect(),
                Packing::Stream | Packing::HighNibbles if tensor.shape().len() > rank => {
                    // gpt-oss: the 16 bytes of a group are a dimension of their own.
                    vec![MemberCut::same(0), MemberCut::same(1), along(column, 1, 32), MemberCut::Whole]
                }
                Packing::Stream | Packing::HighNibbles => outer(vec![MemberCut::same(row), along(column, bits, word)]),
                Packing::PaddedWords => outer(vec![MemberCut::same(row), along(column, 1, 32 / bits)]),
                Packing::Columns => vec![along(column, bits, 32), MemberCut::same(row)],
                Packing::AwqColumns => vec![MemberCut::same(column), along(row, 1, 8)],
                Packing::FlatNibbles => vec![MemberCut::Flat { units: 1, per: 2 }, MemberCut::Whole],
            },
            Role::Scales | Role::Offsets => of_scales(),
            Role::Zeros => match recipe.zero {
                Zero::Signed => of_scales(),
                Zero::Rows => outer(vec![along(row, bits, 32), group]),
                Zero::PaddedRows => outer(vec![along(row, 1, 32 / bits), group]),
                Zero::Columns | Zero::ColumnsLessOne => vec![group, along(row, bits, 32)],
                Zero::AwqColumns => vec![group, along(row, 1, 8)],
                Zero::Groups => vec![MemberCut::same(row), along(column, 1, 8 * block_of(column))],
                Zero::None | Zero::Middle | Zero::Offset => return None,
            },
            Role::Global | Role::Map | Role::NestedMap => vec![MemberCut::Whole; tensor.shape().len()],
            Role::Order => outer(vec![MemberCut::same(column)]),
            Role::NestedScales => {
                vec![MemberCut::Flat { units: 1, per: block_of(column) * self.nested.map_or(1, |nested| nested.block) }]
            }
            Role::Shape | Role::State | Role::Format | Role::InputScale | Role::PreScale | Role::KvScale => {
                return None
            }
        })
    }

    /// The box that ranges pick of the logical tensor, which begin and end on its steps.
    ///
    /// # Errors
    /// `InvalidArgument` for ranges outside it, of another step than 1, or off the group's steps.
    pub fn aligned(&self, ranges: &[record::Range]) -> Result<Vec<Range<u64>>> {
        let refuse =
            |text: String| Error::new(ErrorKind::InvalidArgument, format!("group {}: {text}", quoted(&self.name)));
        if ranges.len() > self.shape.len() {
            return Err(refuse(format!("{} ranges were given for its {} dimensions", ranges.len(), self.shape.len())));
        }
        let mut found = Vec::with_capacity(self.shape.len());
        for (dimension, (size, step)) in self.shape.iter().zip(self.step.iter()).enumerate() {
            let range = ranges.get(dimension).copied().unwrap_or(record::Range::ALL);
            let refuse = |text: String| refuse(format!("dimension {dimension} (size {size}): {text}"));
            if range.step != 1 {
                return Err(refuse(format!("step {} is not 1", range.step)));
            }
            let place = |bound: i64| {
                let from_front = if bound < 0 { size.checked_add(bound) } else { Some(bound) };
                from_front
                    .filter(|bound| (0..=*size).contains(bound))
                    .ok_or_else(|| refuse(format!("{bound} is out of range")))
            };
            let start = place(range.start)?;
            let stop = if range.stop == i64::MAX { *size } else { place(range.stop)? };
            if start > stop {
                return Err(refuse(format!("start {start} is over stop {stop}")));
            }
            let off = |bound: i64| bound != *size && bound.checked_rem(*step) != Some(0);
            if let Some(bound) = [start, stop].into_iter().find(|bound| off(*bound)) {
                return Err(refuse(format!("{bound} is no multiple of its step {step}, nor the end")));
            }
            let unsigned = |bound: i64| u64::try_from(bound).unwrap_or_default();
            found.push(unsigned(start)..unsigned(stop));
        }
        Ok(found)
    }
}
