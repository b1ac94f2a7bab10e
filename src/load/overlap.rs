// SPDX-License-Identifier: Apache-2.0
//! Refuses destinations that share a byte, before the first one is read.
//!
//! Sorted by where they begin, most destinations are found apart at a glance.
//! Strided ones may lie within one another, as the halves of one matrix do:
//! where they reach into others, their runs are compared one by one.
#![forbid(unsafe_code)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::target::Layout;
use super::task::Task;
use crate::base::memory;
use crate::base::sort;
use crate::error::{quoted, Error, ErrorKind, Result};

/// Refuses tasks whose destinations overlap.
pub(super) fn check(tasks: &[Task<'_>]) -> Result<()> {
    let mut extents = memory::vec_with_capacity(tasks.len(), "the destinations of a load")?;
    for (task, number) in tasks.iter().zip(0_u64..) {
        let start = task.place.start() as u64;
        let len = task.layout.as_ref().map_or(task.result, |layout| layout.extent());
        if len != 0 {
            extents.push([start, start.saturating_add(len), number]);
        }
    }
    sort::rows(&mut extents);
    let mut rest = extents.as_slice();
    while let Some(([_, end, _], others)) = rest.split_first() {
        let mut end = *end;
        let reached = others.iter().take_while(|[start, next, _]| {
            let within = *start < end;
            end = end.max(*next);
            within
        });
        let count = reached.count().saturating_add(1);
        let (group, later) = rest.split_at_checked(count).unwrap_or((rest, &[]));
        if group.len() > 1 {
            check_runs(tasks, group)?;
        }
        rest = later;
    }
    Ok(())
}

/// Compares the runs of destinations that reach into one another, by address.
fn check_runs(tasks: &[Task<'_>], group: &[[u64; 3]]) -> Result<()> {
    let task = |number: u64| usize::try_from(number).ok().and_then(|number| tasks.get(number));
    let mut layouts: Vec<Option<Layout>> = memory::vec_with_capacity(group.len(), "the destinations of a load")?;
    for [_, _, number] in group {
        layouts.push(task(*number).and_then(|task| task.layout.as_deref()).map(Layout::by_address));
    }
    let mut walks = memory::vec_with_capacity(group.len(), "the destinations of a load")?;
    walks.extend(layouts.iter().map(|layout| layout.as_ref().and_then(|layout| layout.walk(0))));
    // The next run of each, the lowest on top.
    let mut next = memory::vec_with_capacity(group.len(), "the destinations of a load")?;
    next.extend(group.iter().zip(0_usize..).map(|([start, ..], member)| Reverse((*start, member))));
    let mut next = BinaryHeap::from(next);
    let mut last: Option<(u64, u64)> = None;
    while let Some(Reverse((start, member))) = next.pop() {
        let Some([first, whole, number]) = group.get(member) else { break };
        if let Some((end, before)) = last.filter(|(end, _)| start < *end) {
            return Err(overlap(tasks, before, *number, end.saturating_sub(start)));
        }
        let layout = layouts.get(member).and_then(Option::as_ref);
        let end = layout.map_or(*whole, |layout| start.saturating_add(layout.run()));
        last = Some((end, *number));
        if let Some(Some(walk)) = walks.get_mut(member) {
            walk.advance(1);
            if let Some((place, _)) = walk.peek() {
                next.push(Reverse((first.saturating_add(place), member)));
            }
        }
    }
    Ok(())
}

fn overlap(tasks: &[Task<'_>], one: u64, other: u64, bytes: u64) -> Error {
    let task = |number: u64| usize::try_from(number).ok().and_then(|number| tasks.get(number));
    let name = |number: u64| task(number).map(|task| quoted(task.tensor.name())).unwrap_or_default();
    let (low, high) = (one.min(other), one.max(other));
    let text = format!(
        "item {low} (tensor {}) and item {high} (tensor {}): their destinations overlap, by {bytes} bytes or more",
        name(low),
        name(high)
    );
    Error::new(ErrorKind::InvalidArgument, text)
}
