// SPDX-License-Identifier: Apache-2.0
//! The order of the rules, and who hears of those that are broken.
#![forbid(unsafe_code)]

use crate::format::finding::Finding;

/// The rules after JSON in the order in which they are reported.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RuleRank {
    /// An entry that is not an object with the three fields: not the JSON that a header
    /// is.
    Entry,
    Duplicate,
    Limit,
    Metadata,
    Dtype,
    /// The one that tolerance lets pass.
    UnknownDtype,
    Shape,
    Offsets,
    SubByte,
    Size,
}

impl RuleRank {
    pub(super) const ALL: &'static [Self] = &[
        Self::Entry,
        Self::Duplicate,
        Self::Limit,
        Self::Metadata,
        Self::Dtype,
        Self::UnknownDtype,
        Self::Shape,
        Self::Offsets,
        Self::SubByte,
        Self::Size,
    ];
}

/// Hears of every broken rule while a text is parsed, where opening keeps the
/// first by itself.
pub(super) trait Listener {
    /// Whether breaches of this rank are reported to it.
    fn wants(&mut self, rank: RuleRank) -> bool;

    /// One of a rank that it wants.
    fn tell(&mut self, finding: Finding<'_>);
}
