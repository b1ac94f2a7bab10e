// SPDX-License-Identifier: Apache-2.0
//! One logical tensor and its members, as far as is known of them.
#![forbid(unsafe_code)]

use std::ffi::CStr;

use super::recipe::{Layout, Recipe};
use super::sizes::SmallShape;
use crate::error::{quoted, Error, ErrorKind, Result};

/// What a member is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "their names say it")]
pub enum Role {
    Codes,
    Scales,
    Zeros,
    Offsets,
    Global,
    Order,
    Shape,
    Map,
    State,
    NestedScales,
    NestedMap,
    Format,
    InputScale,
    PreScale,
    KvScale,
}

impl Role {
    /// As the C interface spells it, NUL-terminated.
    #[must_use]
    pub fn c_name(self) -> &'static std::ffi::CStr {
        match self {
            Self::Codes => c"codes",
            Self::Scales => c"scales",
            Self::Zeros => c"zeros",
            Self::Offsets => c"offsets",
            Self::Global => c"global",
            Self::Order => c"order",
            Self::Shape => c"shape",
            Self::Map => c"map",
            Self::State => c"state",
            Self::NestedScales => c"nested_scales",
            Self::NestedMap => c"nested_map",
            Self::Format => c"format",
            Self::InputScale => c"input_scale",
            Self::PreScale => c"pre_scale",
            Self::KvScale => c"kv_scale",
        }
    }
}

/// A tensor of a group.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// What it is for.
    pub role: Role,
    /// Its number in the checkpoint's list.
    pub tensor: usize,
}

/// What is particular about a group. The bits are the C constants `ST_GROUP_*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u32);

impl Flags {
    /// Codes are stored [in, out].
    pub const TRANSPOSED: Self = Self(1);
    /// Groups are given by an index.
    pub const ACT_ORDER: Self = Self(2);
    /// There are zero points.
    pub const ASYMMETRIC: Self = Self(4);
    /// Scales are stored in tiles.
    pub const SWIZZLED: Self = Self(8);
    /// Of two codes in a byte the first is the high one.
    pub const HIGH_NIBBLE_FIRST: Self = Self(16);
    /// Codes are one run over the whole matrix.
    pub const FLAT: Self = Self(32);
    /// Words have unused bits.
    pub const PADDED_WORDS: Self = Self(64);
    /// Several readings fit.
    pub const AMBIGUOUS: Self = Self(128);

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` is in it.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// As the C interface has it.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }
}

/// Which rule of a layout is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// A companion is not there.
    Missing,
    /// Shapes that do not go together.
    Shape,
    /// A dtype that the layout does not have.
    Dtype,
    /// A number out of range.
    Value,
    /// A small member that can't be understood.
    State,
    /// The configuration says otherwise.
    Config,
}

impl Break {
    /// The word that a message begins with.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Shape => "shape",
            Self::Dtype => "dtype",
            Self::Value => "value",
            Self::State => "state",
            Self::Config => "config",
        }
    }
}

/// Whether a group can be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It can.
    Ok,
    /// A rule is broken.
    Broken(Break),
    /// Several readings fit.
    Ambiguous,
    /// Recognised, and there is no decoder.
    Opaque,
}

/// Scales that are quantised themselves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Nested {
    /// Scales that share a scale.
    pub(super) block: u64,
    /// What is added to each.
    pub(super) offset: f32,
}

/// One logical tensor.
#[derive(Debug)]
pub struct Group {
    pub(super) name: Vec<u8>,
    pub(super) kind: &'static CStr,
    pub(super) status: Status,
    pub(super) problem: String,
    pub(super) members: Vec<Member>,
    /// `None` where it is not ok.
    pub(super) layout: Option<&'static Layout>,
    pub(super) recipe: Option<Recipe>,
    pub(super) bits: u32,
    pub(super) flags: Flags,
    pub(super) shape: SmallShape<i64>,
    pub(super) block: SmallShape<i64>,
    pub(super) step: SmallShape<i64>,
    pub(super) nested: Option<Nested>,
    /// The group of each column, where an index is used.
    pub(super) order: Option<Vec<u32>>,
}

#[allow(missing_docs, reason = "the C interface documents the fields of the same names")]
impl Group {
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.kind.to_str().unwrap_or_default()
    }

    #[must_use]
    pub fn layout(&self) -> &'static str {
        self.layout.map_or("", Layout::name)
    }

    #[must_use]
    pub fn status(&self) -> Status {
        self.status
    }

    #[must_use]
    pub fn problem(&self) -> &str {
        &self.problem
    }

    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    #[must_use]
    pub fn recipe(&self) -> Option<Recipe> {
        self.recipe
    }

    #[must_use]
    pub fn bits(&self) -> u32 {
        self.bits
    }

    #[must_use]
    pub fn flags(&self) -> Flags {
        self.flags
    }

    #[must_use]
    pub fn shape(&self) -> &[i64] {
        &self.shape
    }

    #[must_use]
    pub fn block(&self) -> &[i64] {
        &self.block
    }

    #[must_use]
    pub fn step(&self) -> &[i64] {
        &self.step
    }

    /// Nothing where it can be decoded.
    ///
    /// # Errors
    /// `Group` where it is broken, `Unsupported` where it is ambiguous or opaque.
    pub fn usable(&self) -> Result<()> {
        let kind = match self.status {
            Status::Ok => return Ok(()),
            Status::Broken(_) => ErrorKind::Group,
            Status::Ambiguous | Status::Opaque => ErrorKind::Unsupported,
        };
        Err(Error::new(kind, format!("group {}: {}", quoted(&self.name), self.problem)))
    }
}
