// SPDX-License-Identifier: Apache-2.0
//! Requests of a source where each is a journey: neighbours are joined into
//! stretches, and a stretch is cut into as few requests as there can be, of
//! nearly equal size.
#![forbid(unsafe_code)]

use super::order::{Order, Placed};
use super::request::{ItemPart, Means, Request, What, MOST_PARTS};
use super::task::{Picks, Task};
use crate::base::extent::Extent;
use crate::base::memory;
use crate::dtype::Dtype;
use crate::error::Result;

/// Tasks of one piece each that follow one another in a file.
pub(super) struct Stretch {
    shard: usize,
    /// The tasks' places in the plan's order: those before `begun` are at work or done.
    begun: usize,
    pub(super) last: usize,
    /// What is left of it.
    rest: Extent,
    /// The most that a request may have.
    most: u64,
    /// Numbers of the tasks that reach into the rest.
    active: Vec<usize>,
}

impl Stretch {
    pub(super) fn is_over(&self) -> bool {
        self.rest.is_empty()
    }

    /// The stretch that begins at this place in the order, if its source wants one.
    pub(super) fn from(order: &Order<'_>, first: usize) -> Result<Option<Self>> {
        let mut found: Option<Stretch> = None;
        let mut staged = false;
        let mut place = first;
        while let Some(Placed { shard, start, task }) = order.get(place) {
            place = place.saturating_add(1);
            let task = order.task(task)?;
            let source = order.checkpoint.source(shard)?;
            let Some(preferred) = source.preferred_request() else { break };
            if !matches!(task.picks, Picks::Piece) || order.sizes.uncut {
                break;
            }
            let gap = order.sizes.widest_gap(source, task.run());
            let needs = order.sizes.chunk != 0 || !task.is_plain();
            // What is too large for staging goes straight to its place, by itself.
            let alone = preferred > order.sizes.window && task.picked >= order.sizes.window && !needs;
            match &mut found {
                None => {
                    let most = if needs { preferred.min(order.sizes.window) } else { preferred };
                    staged = alone;
                    found = Some(Stretch {
                        shard,
                        begun: first,
                        last: place,
                        rest: Extent::between(start, task.end),
                        most: most.max(24),
                        active: Vec::new(),
                    });
                }
                Some(stretch) => {
                    let joins = shard == stretch.shard && start <= stretch.rest.end().saturating_add(gap);
                    let overlaps = start < stretch.rest.end();
                    if !joins || ((staged || alone) && !overlaps) {
                        break;
                    }
                    stretch.most = stretch.most.min(order.sizes.window.max(24));
                    stretch.rest = stretch.rest.and(Extent::between(start, task.end));
                    stretch.last = place;
                }
            }
        }
        Ok(found)
    }

    /// The next request of a stretch.
    pub(super) fn next(&mut self, order: &Order<'_>) -> Result<Request> {
        let Extent { start, len: left } = self.rest;
        let end_of_all = self.rest.end();
        let count = left.div_ceil(self.most).max(1);
        let mut stop = start.saturating_add(left.div_ceil(count));
        while let Some(Placed { start: begins, task, .. }) = order.get(self.begun) {
            if self.begun >= self.last || begins >= start.saturating_add(self.most) {
                break;
            }
            if self.active.len() >= MOST_PARTS {
                stop = stop.min(begins);
                break;
            }
            memory::reserve(&mut self.active, 1, "the parts of a request")?;
            self.active.push(task);
            self.begun = self.begun.saturating_add(1);
        }
        if stop < end_of_all {
            let most = self.most.min(left.saturating_sub(1));
            let room = |size: u64| left.saturating_sub(size).div_ceil(self.most) < count;
            let tasks = self.active.iter().filter_map(|number| order.tasks.get(*number));
            if let Some(task) = tasks.into_iter().find(|task| task.start < stop && stop < task.end) {
                let aligned = start.saturating_add(cut(task, start, stop.saturating_sub(start), most, &room));
                // No further than it goes: what comes next has elements of its own.
                stop = aligned.min(task.end);
            }
        }
        let stop = stop.clamp(start.saturating_add(1), end_of_all);
        let mut parts = memory::vec_with_capacity(self.active.len(), "the parts of a request")?;
        for number in &self.active {
            let task = order.task(*number)?;
            let bytes = Extent::between(task.start.max(start), task.end.min(stop));
            if !bytes.is_empty() {
                let at = Extent::between(task.start, bytes.start).len;
                parts.push(ItemPart { task: *number, at, picked: bytes.len, bytes, dense: true });
            }
        }
        let tasks = order.tasks;
        self.active.retain(|number| tasks.get(*number).is_some_and(|task| task.end > stop));
        // A gap comes after the request, not at its front.
        let next = self.active.iter().filter_map(|number| tasks.get(*number)).map(|task| task.start).min();
        let next = match order.get(self.begun).filter(|_| self.begun < self.last) {
            Some(Placed { start: begins, .. }) => next.map_or(begins, |next| next.min(begins)),
            None => next.unwrap_or(end_of_all),
        };
        self.rest = Extent::between(stop.max(next.min(end_of_all)), end_of_all);
        let bytes = parts.iter().fold(Extent::new(start, 0), |all, part| all.and(part.bytes));
        let what = match parts.as_slice() {
            [ItemPart { task, at, bytes: only, .. }] if *only == bytes && fits_chunk(order, *task, bytes.len) => {
                What::Whole { task: *task, at: *at }
            }
            _ => What::Parts(parts, Means::Staging),
        };
        Ok(Request { shard: self.shard, bytes, what })
    }
}

fn fits_chunk(order: &Order<'_>, task: usize, len: u64) -> bool {
    let room = order.sizes.chunk;
    room == 0 || order.tasks.get(task).is_some_and(|task| len <= task.picked_within(room))
}

/// How much a request from `start` on has, about `size` and not over `most`, so
/// that the task it ends in is cut between elements: where that leaves the number of
/// requests as it is (`room` says so), at a place that keeps destinations aligned.
fn cut(task: &Task<'_>, start: u64, size: u64, most: u64, room: &impl Fn(u64) -> bool) -> u64 {
    if task.transform.is_some() {
        return match task.start.checked_sub(start) {
            Some(before) if before != 0 => before,
            _ => {
                let most = most.saturating_sub(most.checked_rem(task.grain).unwrap_or(0)).max(task.grain);
                task.end.saturating_sub(start).min(most)
            }
        };
    }
    let element = match task.from {
        Dtype::F6E2M3 | Dtype::F6E3M2 => 3,
        dtype => u64::from(dtype.bits() / 8).max(1),
    };
    let aligned = if element == 3 { [1536, 192] } else { [512, 64] };
    for grain in aligned.into_iter().chain([element]) {
        let within = start.saturating_add(size).saturating_sub(task.start).checked_rem(grain).unwrap_or(0);
        let up = size.saturating_add(grain.saturating_sub(within));
        let down = size.saturating_sub(within);
        if within == 0 {
            return size;
        }
        if up <= most {
            return up;
        }
        if down != 0 && room(down) {
            return down;
        }
    }
    let within = start.saturating_add(size).saturating_sub(task.start).checked_rem(element).unwrap_or(0);
    match size.saturating_sub(within) {
        0 => element,
        down => down,
    }
}
