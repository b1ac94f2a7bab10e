// SPDX-License-Identifier: Apache-2.0
//! Slices: from ranges or intervals to the bytes they pick (`selection`), to the
//! reads that fetch them (`reads`), and to the result (`gather`).
#![forbid(unsafe_code)]

mod gather;
mod reads;
mod selection;

pub(crate) use gather::Fetch;
pub(crate) use reads::{Reads, SliceRead};
pub(crate) use selection::{pieces, IndexRun, Selection};

use std::sync::Arc;

use crate::base::memory;
use crate::error::{Error, ErrorKind, Result};
use crate::part::Interval;
use crate::record::{Range, Tensor};

impl Range {
    /// The whole dimension, as ST_RANGE_ALL.
    pub const ALL: Self = Self { start: 0, stop: i64::MAX, step: 1 };
}

/// What one range picks from one dimension.
#[derive(Clone, Copy)]
pub(crate) struct RangePick {
    /// Elements in the whole dimension.
    pub(crate) size: u64,
    pub(crate) start: u64,
    pub(crate) step: u64,
    pub(crate) count: u64,
}

/// The picks of all dimensions of what is called `name`, outermost first.
pub(crate) fn picks<'a>(
    shape: &'a [i64],
    name: &'a [u8],
    ranges: &'a [Range],
) -> Result<impl DoubleEndedIterator<Item = Result<RangePick>> + ExactSizeIterator + Clone + 'a> {
    if ranges.len() > shape.len() {
        let text = format!("{} ranges were given for its {} dimensions", ranges.len(), shape.len());
        return Err(Error::tensor(ErrorKind::InvalidArgument, name, text));
    }
    Ok(shape.iter().enumerate().map(move |(dimension, size)| {
        let range = ranges.get(dimension).unwrap_or(&Range::ALL);
        pick(*size, range).map_err(|fault| {
            let text = format!("dimension {dimension} (size {size}): {fault}");
            Error::tensor(ErrorKind::InvalidArgument, name, text)
        })
    }))
}

/// Resolves a range; nothing is clamped.
fn pick(size: i64, range: &Range) -> Result<RangePick, String> {
    let whole = u64::try_from(size).map_err(|_| "a size is never negative".to_owned())?;
    let step = u64::try_from(range.step).ok().filter(|step| *step != 0);
    let step = step.ok_or_else(|| format!("step {} is below 1", range.step))?;
    let bound = |what: &str, bound: i64| {
        let from_front = if bound < 0 { size.checked_add(bound) } else { Some(bound) };
        let found = from_front.and_then(|bound| u64::try_from(bound).ok()).filter(|bound| *bound <= whole);
        found.ok_or_else(|| format!("{what} {bound} is out of range"))
    };
    let start = bound("start", range.start)?;
    let stop = if range.stop == i64::MAX { whole } else { bound("stop", range.stop)? };
    let picked = stop.checked_sub(start).ok_or_else(|| match range.stop {
        i64::MAX => format!("start {} is past the end", range.start),
        stop => format!("start {} is after stop {stop}", range.start),
    })?;
    Ok(RangePick { size: whole, start, step, count: picked.div_ceil(step) })
}

/// The shape of what these ranges pick, one size for each dimension.
pub(crate) fn shape<'a>(
    tensor: &'a Tensor,
    ranges: &'a [Range],
) -> Result<impl ExactSizeIterator<Item = Result<i64>> + 'a> {
    // A count is at most its dimension's size, which came from an i64.
    Ok(picks(tensor.shape(), tensor.name(), ranges)?.map(|pick| Ok(i64::try_from(pick?.count).unwrap_or(i64::MAX))))
}

/// The shape of what interval lists take of a shape.
pub(crate) fn shape_of_lists(shape: &[i64], lists: &[Option<&[Interval]>]) -> Result<Vec<i64>> {
    let mut sizes = memory::vec_with_capacity(shape.len(), "a shape")?;
    for (size, list) in shape.iter().zip(lists) {
        let piece = |piece: &Interval| piece.stop.saturating_sub(piece.start).saturating_add(piece.zeros);
        sizes.push(list.map_or(*size, |list| list.iter().map(piece).fold(0, i64::saturating_add)));
    }
    Ok(sizes)
}

impl Selection {
    /// The reads that fetch it. Gaps up to `widest_gap` bytes are read and thrown
    /// away, in reads of up to `window` bytes; wider ones are skipped.
    pub(crate) fn reads(self: &Arc<Self>, widest_gap: u64, window: u64) -> Reads {
        Reads::new(Arc::clone(self), widest_gap, window)
    }
}

#[cfg(test)]
mod tests;
