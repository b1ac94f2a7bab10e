// SPDX-License-Identifier: Apache-2.0
//! What can be wrong with a plan, and how it is said.
#![forbid(unsafe_code)]

use std::fmt::{self, Display};

use crate::error::{Error, ErrorKind};

/// The errors of the language; a message begins with the name of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    PlanSyntax,
    Axis,
    Symbol,
    Expression,
    Stored,
    RuleUnused,
    Unmatched,
    Dimension,
    CutTwice,
    Segments,
    Unit,
    Indivisible,
    Split,
    Packed,
    SubByte,
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::PlanSyntax => "PLAN_SYNTAX",
            Self::Axis => "AXIS",
            Self::Symbol => "SYMBOL",
            Self::Expression => "EXPRESSION",
            Self::Stored => "STORED",
            Self::RuleUnused => "RULE_UNUSED",
            Self::Unmatched => "UNMATCHED",
            Self::Dimension => "DIMENSION",
            Self::CutTwice => "CUT_TWICE",
            Self::Segments => "SEGMENTS",
            Self::Unit => "UNIT",
            Self::Indivisible => "INDIVISIBLE",
            Self::Split => "SPLIT",
            Self::Packed => "PACKED",
            Self::SubByte => "SUB_BYTE",
        }
    }

    /// The error that says so.
    #[cold]
    #[inline(never)]
    pub(super) fn error(self, text: &str) -> Error {
        Error::new(ErrorKind::Plan, format!("{}: {text}", self.name()))
    }

    /// The same, about a place in a plan.
    #[cold]
    #[inline(never)]
    pub(super) fn at(self, place: &dyn Display, text: &str) -> Error {
        self.error(&format!("{place}: {text}"))
    }
}

/// Which list of a plan something is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    Rules,
    Stored,
}

/// A place in the plans, as messages have it: "plan 1 rule 4".
#[derive(Clone, Copy, Debug)]
pub(super) struct PlanPosition {
    pub(super) plan: usize,
    pub(super) list: List,
    pub(super) number: usize,
}

impl Display for PlanPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = match self.list {
            List::Rules => "rule",
            List::Stored => "stored",
        };
        write!(f, "plan {} {list} {}", self.plan, self.number)
    }
}
