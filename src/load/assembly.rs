// SPDX-License-Identifier: Apache-2.0
//! Results that are put together out of several tensors, box by box.
#![forbid(unsafe_code)]

use crate::dtype::Dtype;
use crate::error::Result;
use crate::record::{Range, Tensor};

/// Decodes boxes of a logical tensor out of boxes of its members.
pub trait Assembly: Send + Sync {
    /// The logical name, for messages.
    fn name(&self) -> &[u8];

    /// The whole logical shape.
    fn shape(&self) -> &[i64];

    /// What cuts within a dimension are multiples of; items are checked against it.
    fn step(&self) -> &[i64];

    /// What boxes are best cut at, so that nothing is read twice.
    fn block(&self) -> &[i64];

    /// Whether members are stored with the last dimension first: boxes of all rows
    /// and some columns are then read in longer runs.
    fn by_columns(&self) -> bool;

    /// The member whose place in the files orders the load.
    fn anchor(&self) -> &Tensor;

    /// What a box of the logical tensor needs, each read whole and dense as stored.
    ///
    /// # Errors
    /// What is wrong with a member.
    fn boxes(&self, logical: &[Span]) -> Result<Vec<MemberBox<'_>>>;

    /// Decodes a box out of what [`Assembly::boxes`] asked for, in that order.
    ///
    /// # Errors
    /// What is wrong with a member, or what `rows` said.
    fn decode(&self, logical: &[Span], boxes: &[&[u8]], to: Dtype, rows: &mut dyn Rows) -> Result<()>;
}

/// Where the rows of a decoded box go.
pub trait Rows {
    /// The bytes of the box's row of this number, all dimensions but the last taken as one.
    ///
    /// # Errors
    /// `Internal` for a row that is not there.
    fn row(&mut self, row: usize) -> Result<&mut [u8]>;
}

/// Indices of one dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first.
    pub start: u64,
    /// The one after the last.
    pub stop: u64,
}

/// A box of a member.
pub struct MemberBox<'a> {
    /// The checkpoint's own record.
    pub tensor: &'a Tensor,
    /// Which part of it, with steps of 1; none: all of it.
    pub ranges: Vec<Range>,
}
