// SPDX-License-Identifier: Apache-2.0
//! One thing to load, as it is given.
#![forbid(unsafe_code)]

use super::assembly::Assembly;
use super::destination::Memory;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::part::Interval;
use crate::record::{Range, Tensor};

/// One thing to load.
#[derive(Clone, Copy)]
pub struct Item<'a> {
    /// What is loaded.
    pub of: Origin<'a>,
    /// What to convert to; `None`: as stored.
    pub dtype: Option<Dtype>,
    /// Where the result goes; nothing with a sink.
    pub place: Memory<'a>,
    /// Bytes from one element of the result to the next, for each dimension; `None`: dense.
    pub strides: Option<&'a [i64]>,
    /// The last step.
    pub transform: Option<Transform<'a>>,
}

/// The items of a load, each of which is looked at once.
pub type Items<'i, 'a> = &'i mut dyn ExactSizeIterator<Item = Item<'a>>;

/// What is loaded.
#[derive(Clone, Copy)]
pub enum Origin<'a> {
    /// A record of the checkpoint, or a copy of one; dimensions without a range are taken whole.
    Ranges(&'a Tensor, &'a [Range]),
    /// The same by interval lists, one for each dimension; `None`: all of it.
    Lists(&'a Tensor, &'a [Option<&'a [Interval]>]),
    /// Decoded out of several tensors; the ranges are of its logical shape.
    Group(&'a dyn Assembly, &'a [Range]),
    /// The same by interval lists.
    GroupLists(&'a dyn Assembly, &'a [Option<&'a [Interval]>]),
}

impl<'a> Origin<'a> {
    /// The record whose place in the files orders the item.
    pub(super) fn tensor(&self) -> &'a Tensor {
        match *self {
            Origin::Ranges(tensor, _) | Origin::Lists(tensor, _) => tensor,
            Origin::Group(group, _) | Origin::GroupLists(group, _) => group.anchor(),
        }
    }
}

/// The caller's last step, on elements that are already of the item's dtype.
#[derive(Clone, Copy)]
pub struct Transform<'a> {
    /// Elements that belong together.
    pub unit: u64,
    /// Bytes that a unit becomes.
    pub unit_size: u64,
    /// The step.
    pub step: &'a dyn TransformStep,
}

/// What a transform does, on any of a load's threads.
pub trait TransformStep: Sync {
    /// Turns `count` elements of item number `item`, from `element` on, into `dst`.
    ///
    /// # Errors
    /// Ends the load with this error.
    fn run(&self, item: usize, element: u64, count: usize, src: &[u8], dst: &mut [u8]) -> Result<()>;
}
