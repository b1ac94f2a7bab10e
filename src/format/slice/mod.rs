// SPDX-License-Identifier: Apache-2.0
//! Slices: from ranges to the bytes they pick, and to the reads that fetch them.
//!
//! What a slice picks is runs of bytes, all of one size, in nested loops. Loops
//! that happen once, or that only carry on the one inside them, are folded away,
//! so each that is left happens at least twice: a tensor's elements are counted
//! in 64 bits, so there are fewer than 64 of them whatever its rank, and nothing
//! here allocates.
#![forbid(unsafe_code)]

mod reads;
mod runs;

pub(crate) use reads::Reads;
pub(crate) use runs::Runs;

use std::sync::Arc;

use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::record::{Range, Tensor};

const MAX_LOOPS: usize = 64;

impl Range {
    /// The whole dimension, as ST_RANGE_ALL.
    pub const ALL: Self = Self { start: 0, stop: i64::MAX, step: 1 };
}

/// What one range picks from one dimension.
#[derive(Clone, Copy)]
struct Pick {
    /// Elements in the whole dimension.
    size: u64,
    start: u64,
    step: u64,
    count: u64,
}

/// The picks of all dimensions, outermost first, with the index of each.
fn picks<'a>(
    tensor: &'a Tensor,
    ranges: &'a [Range],
) -> Result<impl DoubleEndedIterator<Item = Result<Pick>> + ExactSizeIterator + Clone + 'a> {
    let shape = tensor.shape();
    if ranges.len() > shape.len() {
        let text = format!("{} ranges were given for its {} dimensions", ranges.len(), shape.len());
        return Err(Error::tensor(ErrorKind::InvalidArgument, tensor.name(), text));
    }
    Ok(shape.iter().enumerate().map(move |(dimension, size)| {
        let range = ranges.get(dimension).unwrap_or(&Range::ALL);
        pick(*size, range).map_err(|fault| {
            let text = format!("dimension {dimension} (size {size}): {fault}");
            Error::tensor(ErrorKind::InvalidArgument, tensor.name(), text)
        })
    }))
}

/// Resolves a range; nothing is clamped.
fn pick(size: i64, range: &Range) -> Result<Pick, String> {
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
        i64::MAX => format!("start {} is over its end", range.start),
        stop => format!("start {} is over stop {stop}", range.start),
    })?;
    Ok(Pick { size: whole, start, step, count: picked.div_ceil(step) })
}

/// The shape of what these ranges pick, one size for each dimension.
pub(crate) fn shape<'a>(
    tensor: &'a Tensor,
    ranges: &'a [Range],
) -> Result<impl ExactSizeIterator<Item = Result<i64>> + 'a> {
    // A count is at most its dimension's size, which came from an i64.
    Ok(picks(tensor, ranges)?.map(|pick| Ok(i64::try_from(pick?.count).unwrap_or(i64::MAX))))
}

/// The bytes of a tensor that ranges pick.
pub(crate) struct Slice {
    /// Bytes picked in all.
    size: u64,
    /// Where the first run begins, in bytes from the tensor's first.
    first: u64,
    /// Bytes in each run.
    run: u64,
    /// Innermost first; those behind `depth` are not in use.
    loops: [Loop; MAX_LOOPS],
    depth: usize,
}

/// Runs, or whole inner loops, at even distances.
#[derive(Clone, Copy, Default)]
struct Loop {
    count: u64,
    stride: u64,
}

impl Slice {
    /// Checks the ranges and finds their bytes.
    pub(crate) fn new(tensor: &Tensor, ranges: &[Range]) -> Result<Self> {
        let dtype = tensor.dtype();
        if dtype == Dtype::Unknown {
            let text =
                format!("slices of the unknown dtype {} can't be cut", crate::error::quoted(tensor.dtype_name()));
            return Err(Error::tensor(ErrorKind::Unsupported, tensor.name(), text));
        }
        let picks = picks(tensor, ranges)?;
        let mut empty = false;
        for pick in picks.clone() {
            empty |= pick?.count == 0;
        }
        let none = Self { size: 0, first: 0, run: 0, loops: [Loop::default(); MAX_LOOPS], depth: 0 };
        if empty {
            return Ok(none);
        }
        let elements = Self { run: 1, ..none }.add_all(picks.rev().flatten());
        let Some(elements) = elements else {
            let text = "its shape holds more elements than 64 bits can count";
            return Err(Error::tensor(ErrorKind::InvalidArgument, tensor.name(), text));
        };
        elements.into_bytes(dtype).map_err(|(kind, text)| Error::tensor(kind, tensor.name(), text))
    }

    /// Adds the dimensions from the innermost on, counting in elements. `None`
    /// where the shape is beyond 64 bits, which no opened file's is.
    fn add_all(mut self, picks: impl Iterator<Item = Pick>) -> Option<Self> {
        let mut unit: u64 = 1;
        self.size = 1;
        for Pick { size, start, step, count } in picks {
            self.first = self.first.checked_add(start.checked_mul(unit)?)?;
            if count > 1 {
                self.add(count, step.checked_mul(unit)?)?;
                self.size = self.size.checked_mul(count)?;
            }
            unit = unit.checked_mul(size)?;
        }
        Some(self)
    }

    fn add(&mut self, count: u64, stride: u64) -> Option<()> {
        let outermost = self.depth.checked_sub(1).and_then(|last| self.loops.get_mut(last));
        match outermost {
            None if stride == self.run => self.run = self.run.checked_mul(count)?,
            Some(last) if last.count.checked_mul(last.stride) == Some(stride) => {
                last.count = last.count.checked_mul(count)?;
            }
            _ => {
                *self.loops.get_mut(self.depth)? = Loop { count, stride };
                self.depth = self.depth.checked_add(1)?;
            }
        }
        Some(())
    }

    /// From elements to bytes. Every loop is gone through twice or more, so each
    /// run begins and ends on a byte just where all these numbers are whole bytes.
    fn into_bytes(mut self, dtype: Dtype) -> Result<Self, (ErrorKind, String)> {
        let bits = u64::from(dtype.bits());
        let (run, first) = (self.run, self.first);
        let in_use = self.loops.iter_mut().take(self.depth).map(|inner| &mut inner.stride);
        for number in [&mut self.size, &mut self.first, &mut self.run].into_iter().chain(in_use) {
            // In eights and the rest: the bits of all elements together may be beyond 64 bits.
            let rest = (*number % 8).saturating_mul(bits);
            if rest % 8 != 0 {
                let name = dtype.name();
                let text =
                    format!("its runs of {run} elements of {name} from element {first} on do not all fill whole bytes");
                return Err((ErrorKind::SubByte, text));
            }
            *number =
                (*number / 8).checked_mul(bits).and_then(|bytes| bytes.checked_add(rest / 8)).ok_or_else(|| {
                    (ErrorKind::InvalidArgument, "its shape holds more bytes than 64 bits can count".to_owned())
                })?;
        }
        Ok(self)
    }

    /// Bytes picked in all.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Where the first picked byte lies, from the tensor's first.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// From the first picked byte to behind the last one, with what lies between.
    pub(crate) fn span(&self) -> u64 {
        let inner = self.loops.iter().take(self.depth);
        let inner = inner.map(|inner| inner.count.saturating_sub(1).saturating_mul(inner.stride));
        inner.fold(self.run, u64::saturating_add)
    }

    /// The runs, in the order in which they lie in the tensor and in the result.
    pub(crate) fn runs(self: Arc<Self>) -> Runs {
        Runs::new(self)
    }

    /// The reads that fetch them. Gaps up to `widest_gap` bytes are read and thrown
    /// away, in reads of up to `window` bytes; wider ones are skipped.
    pub(crate) fn reads(self: Arc<Self>, widest_gap: u64, window: u64) -> Reads {
        Reads::new(self.runs(), widest_gap, window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Checkpoint, OpenOptions};

    #[test]
    fn gaps_up_to_the_limit_are_read_and_wider_ones_are_not() {
        let header = r#"{"x":{"dtype":"U8","shape":[300,8192],"data_offsets":[0,2457600]}}"#;
        let mut file = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
        file.resize(file.len() + 300 * 8192, 0);
        let checkpoint = Checkpoint::open_memory(file.leak(), &OpenOptions::default()).unwrap();
        let ranges = [Range::ALL, Range { stop: 4096, ..Range::ALL }];
        let slice = Arc::new(Slice::new(checkpoint.find(b"x").unwrap(), &ranges).unwrap());
        let reads = |widest_gap| Arc::clone(&slice).reads(widest_gap, 1 << 20);
        let sizes = |widest_gap| reads(widest_gap).map(|read| (read.size, read.picked)).collect::<Vec<_>>();
        assert_eq!(sizes(4095), [(4096, 4096); 300]);
        let (full, last) = (((1 << 20) - 4096, 128 * 4096), (44 * 8192 - 4096, 44 * 4096));
        assert_eq!(sizes(4096), [full, full, last]);
        assert_eq!(slice.span(), 299 * 8192 + 4096);
    }
}
