// SPDX-License-Identifier: Apache-2.0
//! The rules that concern all records together: names differ, tensors fill the
//! data section.
#![forbid(unsafe_code)]

use super::parser::{Context, Parsed};
use super::rule::RuleRank;
use super::{Arena, Header};
use crate::base::memory;
use crate::base::sort;
use crate::error::{Error, ErrorKind, Result};
use crate::format::finding::Finding;
use crate::format::lookup::Lookup;
use crate::record::Tensor;

/// What becomes of broken rules: an error ends the checks.
pub(super) trait Judge {
    /// One that concerns several records.
    fn tell(&mut self, finding: Finding<'_>) -> Result<()>;

    /// Those of these ranks, which the parse has met. Whether there were any.
    fn met(&mut self, from: RuleRank, to: RuleRank) -> Result<bool>;
}

/// Opening: the first one is the error. What the parse has met is at most this.
pub(super) struct First(pub(super) Option<(RuleRank, Error)>);

impl Judge for First {
    fn tell(&mut self, finding: Finding<'_>) -> Result<()> {
        Err(finding.error)
    }

    fn met(&mut self, from: RuleRank, to: RuleRank) -> Result<bool> {
        match self.0.take() {
            Some((rank, error)) if (from..=to).contains(&rank) => Err(error),
            other => {
                self.0 = other;
                Ok(false)
            }
        }
    }
}

/// Makes a header of what its text says.
pub(super) fn check(
    text: Vec<u8>,
    mut tensors: Vec<Tensor>,
    found: Parsed,
    context: &Context<'_>,
    file_size: u64,
    judge: &mut dyn Judge,
) -> Result<Header> {
    let Parsed { mut hashes, shapes, metadata, begin, end, in_order, .. } = found;
    memory::shrink(&mut tensors);
    let in_order = in_order && begin == 0;
    if !in_order {
        sort_by_place(&mut tensors, context)?;
        for (hash, tensor) in hashes.iter_mut().zip(&tensors) {
            *hash = context.hasher.hash(tensor.name());
        }
    }
    let arena = Arena { text, shapes };
    // Where entries are unreadable, what they would have covered looks like a hole.
    let mut complete = !judge.met(RuleRank::Entry, RuleRank::Entry)?;
    let names = Lookup::build(context.hasher.clone(), &tensors, &hashes, &mut |_, second| {
        let error = Error::tensor(ErrorKind::DuplicateKey, second.name(), "the name appears twice in the header");
        judge.tell(Finding::new(error, arena.place(second), Some(second.name())))
    })?;
    judge.met(RuleRank::Duplicate, RuleRank::Shape)?;
    complete &= !judge.met(RuleRank::Offsets, RuleRank::Offsets)?;
    let end = if in_order && complete { end } else { check_tiling(&tensors, &arena, complete, context, judge)? };
    judge.met(RuleRank::SubByte, RuleRank::Size)?;
    check_end(end, file_size, complete, context, judge)?;
    Ok(Header { tensors, names, metadata, data_offset: context.data_offset, data_size: end, arena })
}

/// Sorts by place in the data. Empty tensors may share one; they stay in the
/// header's order.
fn sort_by_place(tensors: &mut [Tensor], context: &Context<'_>) -> Result<()> {
    let mut order = memory::vec_with_capacity(tensors.len(), "the order of tensors")?;
    order.extend(
        tensors.iter().zip(0..).map(|(tensor, number)| [relative(tensor.offset, context), tensor.size, number]),
    );
    sort::rows(&mut order);
    // Each cycle of places is gone round once: what belongs at `at` is fetched
    // from where it is, which then waits for what belongs there.
    for start in 0..order.len() {
        let mut at = start;
        while let Some([_, _, number]) = order.get_mut(at) {
            let from = usize::try_from(std::mem::replace(number, at as u64)).unwrap_or(at);
            if from == start || from == at {
                break;
            }
            tensors.swap(at, from);
            at = from;
        }
    }
    Ok(())
}

/// Offsets are absolute in records and relative in the header. An absurd one
/// wraps on the way there and back.
fn relative(offset: u64, context: &Context<'_>) -> u64 {
    offset.wrapping_sub(context.data_offset)
}

/// Each tensor begins where the one before ends; returns the last end.
fn check_tiling(
    tensors: &[Tensor],
    arena: &Arena,
    complete: bool,
    context: &Context<'_>,
    judge: &mut dyn Judge,
) -> Result<u64> {
    let mut end: u64 = 0;
    for tensor in tensors {
        let begin = relative(tensor.offset, context);
        // No overflow: the header gave begin and this sum as two u64.
        let next = begin.wrapping_add(tensor.size);
        // Those that end before they begin have been reported.
        if next >= begin {
            if begin < end || begin > end && complete {
                let (what, gap) = (if begin > end { "a hole" } else { "an overlap" }, begin.abs_diff(end));
                let text = format!(
                    "data_offsets [{begin}, {next}] leave {what} of {gap} bytes: the tensors before end at {end}"
                );
                let error = Error::tensor(ErrorKind::Offsets, tensor.name(), text);
                judge.tell(Finding::new(error, arena.place(tensor), Some(tensor.name())))?;
            }
            end = end.max(next);
        }
    }
    Ok(end)
}

/// The data ends where the file does.
fn check_end(end: u64, file_size: u64, complete: bool, context: &Context<'_>, judge: &mut dyn Judge) -> Result<()> {
    let data = file_size.saturating_sub(context.data_offset);
    let (kind, rest, position) = match data.checked_sub(end) {
        None => (ErrorKind::Truncated, String::new(), file_size),
        Some(rest) if rest > 0 && complete && !context.tolerate.trailing_bytes => (
            ErrorKind::DataNotCovered,
            format!(": {rest} belong to no tensor"),
            context.data_offset.saturating_add(end),
        ),
        _ => return Ok(()),
    };
    let text = format!("tensors take {end} bytes, but after the header the file holds {data}{rest}");
    let error = Error::new(kind, text);
    judge.tell(Finding { error, position, tensor: None, tolerable: kind == ErrorKind::DataNotCovered })
}
