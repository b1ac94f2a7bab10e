// SPDX-License-Identifier: Apache-2.0
//! Refuses destinations that share a byte, before the first one is read.
//!
//! Sorted by where they begin, most destinations are found apart at a glance.
//! Strided ones may lie within one another, as the halves of one matrix do:
//! where they reach into others, their runs are compared one by one.
#![forbid(unsafe_code)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::destination::Memory;
use super::strides::Strides;
use super::task::Task;
use crate::base::extent::Extent;
use crate::base::{memory, sort};
use crate::checkpoint::Checkpoint;
use crate::error::{quoted, Error, ErrorKind, Result};
use crate::record::Tensor;

/// Refuses tasks whose destinations overlap.
pub(super) fn check(tasks: &[Task<'_>]) -> Result<()> {
    let mut rows = memory::vec_with_capacity(tasks.len(), "the destinations of a load")?;
    rows.extend(tasks.iter().zip(0..).map(|(task, number)| task.destination().row(number)));
    rows.retain(|row| !Extent::of_row(*row).0.is_empty());
    sort::rows(&mut rows);
    let mut rest = rows.as_slice();
    while let Some((first, others)) = rest.split_first() {
        let mut end = Extent::of_row(*first).0.end();
        let reached = others.iter().take_while(|row| {
            let (bytes, _) = Extent::of_row(**row);
            let within = bytes.start < end;
            end = end.max(bytes.end());
            within
        });
        let count = reached.count().saturating_add(1);
        let (group, later) = rest.split_at_checked(count).unwrap_or((rest, &[]));
        if group.len() > 1 && !apart_by_stride(tasks, group)? {
            check_runs(tasks, group)?;
        }
        rest = later;
    }
    Ok(())
}

/// Refuses results that go where a source's own bytes are, in memory or mapped.
pub(super) fn check_sources(checkpoint: &Checkpoint, tasks: &[Task<'_>], buffers: &[Memory<'_>]) -> Result<()> {
    let mut sources = memory::vec_with_capacity(checkpoint.shards().len(), "the sources of a load")?;
    for shard in 0..checkpoint.shards().len() {
        if let Some(bytes) = checkpoint.source(shard)?.mapped().filter(|bytes| !bytes.is_empty()) {
            sources.push(extent_of(bytes).row(shard));
        }
    }
    sort::rows(&mut sources);
    let within = |place: Extent| {
        // They are apart, so their ends are in order too.
        let first = sources.partition_point(|row| Extent::of_row(*row).0.end() <= place.start);
        sources.get(first).is_some_and(|row| Extent::of_row(*row).0.overlaps(place))
    };
    for (number, task) in tasks.iter().enumerate() {
        if within(task.destination()) {
            let text = format!(
                "item {number} (tensor {}): its destination is memory that the checkpoint reads from",
                quoted(task.name())
            );
            return Err(Error::new(ErrorKind::InvalidArgument, text));
        }
    }
    for (number, buffer) in buffers.iter().enumerate() {
        if within(buffer.extent()) {
            let text = format!("st_sink.buffers[{number}] is memory that the checkpoint reads from");
            return Err(Error::new(ErrorKind::InvalidArgument, text));
        }
    }
    Ok(())
}

/// Refuses a tensor's destination in its own source's bytes.
pub(super) fn check_own_source(checkpoint: &Checkpoint, tensor: &Tensor, place: &[u8]) -> Result<()> {
    match checkpoint.source(tensor.shard())?.mapped() {
        Some(bytes) if extent_of(bytes).overlaps(extent_of(place)) => {
            let text = "its destination is memory that the checkpoint reads from";
            Err(Error::tensor(ErrorKind::InvalidArgument, tensor.name(), text))
        }
        _ => Ok(()),
    }
}

/// Where bytes are.
fn extent_of(bytes: &[u8]) -> Extent {
    Extent::new(bytes.as_ptr().addr() as u64, bytes.len() as u64)
}

/// A destination, as far as it repeats: its first byte within a turn of the loops
/// that were looked at, and the number of loops that were not, innermost first.
#[derive(Clone, Copy)]
struct Repeated {
    start: u64,
    loops: usize,
    member: usize,
}

/// How many turns of loops are looked at one by one, so that all have one stride.
const MOST_TURNS: u64 = 1 << 16;

/// Whether destinations that reach into one another are found apart without
/// looking at each run: in loops that all go on by one stride, they lie in different places of a turn.
/// `false`: not found.
fn apart_by_stride(tasks: &[Task<'_>], group: &[[u64; 3]]) -> Result<bool> {
    let mut layouts = memory::vec_with_capacity(group.len(), "the destinations of a load")?;
    let mut all = memory::vec_with_capacity(group.len(), "the destinations of a load")?;
    for (member, row) in group.iter().enumerate() {
        let (bytes, number) = Extent::of_row(*row);
        let Some(layout) = tasks.get(number).and_then(|task| task.layout.as_deref()) else { return Ok(false) };
        let layout = layout.by_address();
        all.push(Repeated { start: bytes.start, loops: layout.loops().len(), member });
        layouts.push(layout);
    }
    let mut left = MOST_TURNS;
    are_apart(&layouts, &all, &mut left)
}

/// The same for destinations that overlap as wholes. Goes down a loop at each
/// step, of which there are fewer than 64; `left` is how many turns all of them may look at.
fn are_apart(layouts: &[Strides], all: &[Repeated], left: &mut u64) -> Result<bool> {
    let outermost = |of: &Repeated| {
        let loops = layouts.get(of.member)?.loops();
        loops.get(of.loops.checked_sub(1)?).map(|outer| outer.stride).filter(|stride| *stride != 0)
    };
    // One stride for all: the least that each of theirs divides.
    let mut stride = 1_u64;
    for of in all {
        let Some(common) = outermost(of).and_then(|other| common_multiple(stride, other)) else { return Ok(false) };
        stride = common;
    }
    let turns = |of: &Repeated| outermost(of).and_then(|one| stride.checked_div(one)).unwrap_or(u64::MAX);
    let count = all.iter().map(turns).fold(0, u64::saturating_add);
    // Those of one stride alone are no more than they were.
    let Some(rest) = left.checked_sub(count.saturating_sub(all.len() as u64)) else { return Ok(false) };
    *left = rest;
    let mut rows = memory::vec_with_capacity(usize::try_from(count).unwrap_or(0), "the destinations of a load")?;
    for (of, member) in all.iter().zip(0_u64..) {
        let own = outermost(of).unwrap_or(stride);
        let mut start = of.start;
        for _ in 0..turns(of) {
            rows.push([start.checked_rem(stride).unwrap_or_default(), member, 0]);
            start = start.saturating_add(own);
        }
    }
    sort::rows(&mut rows);
    let inside = |of: &Repeated| layouts.get(of.member).map_or(u64::MAX, |layout| layout.extent_of(of.loops));
    let mut cluster: Vec<Repeated> = Vec::new();
    let (mut end, mut first) = (0_u64, None);
    for [start, member, _] in rows {
        let Some(of) = usize::try_from(member).ok().and_then(|member| all.get(member)) else { return Ok(false) };
        let of = Repeated { start, loops: of.loops.saturating_sub(1), member: of.member };
        if start >= end {
            if cluster.len() > 1 && !are_apart(layouts, &cluster, left)? {
                return Ok(false);
            }
            cluster.clear();
        }
        first = first.or(Some(start));
        end = end.max(start.saturating_add(inside(&of)));
        memory::reserve(&mut cluster, 1, "the destinations of a load")?;
        cluster.push(of);
    }
    // What goes on in the next turn must end before the first of that begins.
    if first.is_none_or(|first| end > first.saturating_add(stride)) {
        return Ok(false);
    }
    Ok(cluster.len() < 2 || are_apart(layouts, &cluster, left)?)
}

/// The least number that both divide; `None` beyond 64 bits, and for 0.
fn common_multiple(one: u64, other: u64) -> Option<u64> {
    let (mut divisor, mut rest) = (one, other);
    while let Some(remainder) = divisor.checked_rem(rest) {
        (divisor, rest) = (rest, remainder);
    }
    one.checked_div(divisor)?.checked_mul(other)
}

/// Compares the runs of destinations that reach into one another, by address.
fn check_runs(tasks: &[Task<'_>], group: &[[u64; 3]]) -> Result<()> {
    let mut layouts: Vec<Option<Strides>> = memory::vec_with_capacity(group.len(), "the destinations of a load")?;
    for row in group {
        let (_, number) = Extent::of_row(*row);
        layouts.push(tasks.get(number).and_then(|task| task.layout.as_deref()).map(Strides::by_address));
    }
    let mut walks = memory::vec_with_capacity(group.len(), "the destinations of a load")?;
    walks.extend(layouts.iter().map(|layout| layout.as_ref().and_then(|layout| layout.walk(0))));
    // The next run of each, the lowest on top.
    let mut next = memory::vec_with_capacity(group.len(), "the destinations of a load")?;
    next.extend(group.iter().zip(0_usize..).map(|([start, ..], member)| Reverse((*start, member))));
    let mut next = BinaryHeap::from(next);
    let mut last: Option<(Extent, usize)> = None;
    while let Some(Reverse((start, member))) = next.pop() {
        let Some((whole, number)) = group.get(member).map(|row| Extent::of_row(*row)) else { break };
        let run = layouts.get(member).and_then(Option::as_ref).map_or(whole.len, Strides::run);
        if let Some((before, owner)) = last.filter(|(before, _)| start < before.end()) {
            return Err(overlap(tasks, owner, number, Extent::between(start, before.end()).len));
        }
        last = Some((Extent::new(start, run), number));
        if let Some(Some(walk)) = walks.get_mut(member) {
            walk.advance(1);
            if let Some((place, _)) = walk.peek() {
                next.push(Reverse((whole.start.saturating_add(place), member)));
            }
        }
    }
    Ok(())
}

fn overlap(tasks: &[Task<'_>], one: usize, other: usize, bytes: u64) -> Error {
    let name = |number: usize| tasks.get(number).map(|task| quoted(task.tensor.name())).unwrap_or_default();
    let (low, high) = (one.min(other), one.max(other));
    let text = format!(
        "item {low} (tensor {}) and item {high} (tensor {}): their destinations overlap, by {bytes} bytes or more",
        name(low),
        name(high)
    );
    Error::new(ErrorKind::InvalidArgument, text)
}
