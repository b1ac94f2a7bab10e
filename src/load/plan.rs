// SPDX-License-Identifier: Apache-2.0
//! From items to requests: in file order, each large enough to be worth a
//! system call and small enough to be shared out among threads.
//!
//! Made while the load goes on, so that a plan of millions of runs takes no
//! memory. Items whose pieces interleave in the file (two halves of a matrix'
//! columns, say) are merged: what one read can fetch for both is read once.
//! Where each request is a journey, `stretch` shapes them.
#![forbid(unsafe_code)]

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::order::{Order, Placed};
use super::request::{ItemPart, Means, Request, What, MOST_PARTS, STAGED};
use super::stretch::Stretch;
use super::task::{Picks, Task};
use crate::base::extent::Extent;
use crate::base::memory;
use crate::error::{Error, ErrorKind, Result};
use crate::format::slice::{Reads, SliceRead};
use crate::source::Source;

/// The largest request: some 1 ms of a fast disk or of a memory copy, so that
/// progress hears of it and a cancelled load ends about as soon. Like all cuts it is
/// a multiple of `task::CUT` bytes.
pub(super) const REQUEST: u64 = 6 << 20;
/// Pieces below this size are fetched together with their neighbours: copying
/// 64 KiB costs about as much as a system call does on a slow machine.
const SMALL: u64 = 64 << 10;
/// Wider gaps end a request.
const SPARSE_GAP: u64 = 128 << 10;

/// The requests of a load.
pub(super) struct Plan<'a> {
    order: Order<'a>,
    /// The first place in the order that has not begun.
    next: usize,
    /// What comes next of each task that has begun, the first in the file on top.
    active: BinaryHeap<Begun>,
    /// A large piece that is being cut up.
    long: Option<ItemPart>,
    stretch: Option<Stretch>,
    made: u64,
}

/// A task that has begun.
struct Begun {
    shard: usize,
    offset: u64,
    task: usize,
    next: Upcoming,
}

enum Upcoming {
    Part(ItemPart, Option<Box<Reads>>),
    Tile { at: u64 },
    Boxes { row: u64, column: u64 },
}

impl<'a> Plan<'a> {
    pub(super) fn new(order: Order<'a>) -> Self {
        Self { order, next: 0, active: BinaryHeap::new(), long: None, stretch: None, made: 0 }
    }

    /// The next request.
    pub(super) fn next(&mut self) -> Result<Option<Request>> {
        self.made = self.made.saturating_add(1);
        if let Some(long) = self.long.take() {
            return Ok(Some(self.cut(long)));
        }
        if self.stretch.is_none() && self.active.is_empty() {
            self.stretch = Stretch::from(&self.order, self.next)?;
            self.next = self.stretch.as_ref().map_or(self.next, |stretch| stretch.last);
        }
        if let Some(mut stretch) = self.stretch.take() {
            let request = stretch.next(&self.order)?;
            self.stretch = (!stretch.is_over()).then_some(stretch);
            return Ok(Some(request));
        }
        self.begin()
    }

    /// How many have been asked for.
    pub(super) fn made(&self) -> u64 {
        self.made
    }

    fn begin(&mut self) -> Result<Option<Request>> {
        self.activate()?;
        let Some(top) = self.active.pop() else { return Ok(None) };
        let shard = top.shard;
        let first = match top.next {
            Upcoming::Part(part, rest) => {
                self.after(shard, &part, rest)?;
                part
            }
            Upcoming::Tile { at } => return self.tile(&top, at).map(Some),
            Upcoming::Boxes { row, column } => return self.boxes(&top, row, column).map(Some),
        };
        if self.is_long(&first) {
            return Ok(Some(self.cut(first)));
        }
        let source = self.order.checkpoint.source(shard)?;
        let run = self.order.task(first.task)?.run();
        let (widest_gap, window) = (self.order.sizes.widest_gap(source, run), self.order.sizes.window_of(source));
        let mut bytes = first.bytes;
        let mut means = self.order.means(self.order.task(first.task)?)?;
        let mut parts = Vec::new();
        parts.push(first);
        while parts.len() < MOST_PARTS {
            let within = Extent::new(bytes.start, window);
            let reach = Reach { shard, gap: bytes.end().saturating_add(widest_gap), within };
            let Some(part) = self.pop(&reach, &mut means)? else { break };
            bytes = bytes.and(part.bytes);
            memory::reserve(&mut parts, 1, "the parts of a request")?;
            parts.push(part);
        }
        let what = match parts.as_slice() {
            // By itself it needs no staging, unless a sink takes it in several chunks.
            [ItemPart { task, at, dense: true, .. }] if self.is_one_chunk(*task, bytes.len) => {
                What::Whole { task: *task, at: *at }
            }
            _ => What::Parts(parts, means),
        };
        Ok(Some(Request { shard, bytes, what }))
    }

    /// A request from the front of a large piece; the rest is kept for later.
    fn cut(&mut self, mut long: ItemPart) -> Request {
        let task = self.order.tasks.get(long.task);
        let shard = task.map_or(0, |task| task.shard);
        let most = match task {
            _ if self.order.sizes.uncut => u64::MAX,
            Some(task) => {
                let preferred = self.order.checkpoint.source(shard).ok().and_then(Source::preferred_request);
                let most = match preferred {
                    // Nearly equal shares, so that no crumb is left for the last.
                    Some(most) => {
                        let count = long.bytes.len.div_ceil(most).max(1);
                        long.bytes.len.div_ceil(count).next_multiple_of(8).min(most)
                    }
                    None => REQUEST,
                };
                let most = match self.order.sizes.chunk {
                    0 => most,
                    chunk => task.picked_within(chunk).min(most),
                };
                most.saturating_sub(most.checked_rem(task.grain).unwrap_or(0)).max(task.grain)
            }
            None => REQUEST,
        };
        let bytes = long.bytes.first(most.max(1));
        let request = Request { shard, bytes, what: What::Whole { task: long.task, at: long.at } };
        long.at = long.at.saturating_add(bytes.len);
        long.bytes = long.bytes.after(bytes.len);
        if !long.bytes.is_empty() {
            long.picked = long.bytes.len;
            self.long = Some(long);
        }
        request
    }

    /// The next bytes of an item that is put together run by run.
    fn tile(&mut self, top: &Begun, at: u64) -> Result<Request> {
        let task = self.order.task(top.task)?;
        let most = task.picked_through(self.order.sizes.tile).max(task.grain);
        let size = task.picked.saturating_sub(at).min(most);
        let after = at.saturating_add(size);
        if after < task.picked {
            self.push(Begun { next: Upcoming::Tile { at: after }, ..*top })?;
        }
        let what = What::Tile { task: top.task, at, size };
        Ok(Request { shard: top.shard, bytes: Extent::new(top.offset, size), what })
    }

    /// The next boxes of a group.
    fn boxes(&mut self, top: &Begun, row: u64, column: u64) -> Result<Request> {
        let task = self.order.task(top.task)?;
        let Picks::Group(boxes) = &task.picks else {
            return Err(Error::new(ErrorKind::Internal, "boxes of what is no group"));
        };
        let free = self.order.sizes.chunk == 0 && task.is_plain();
        let room = if self.order.sizes.chunk == 0 {
            self.order.sizes.tile
        } else {
            self.order.sizes.tile.min(self.order.sizes.chunk)
        };
        let rect = boxes.rect(row, column, room, free);
        if let Some((row, column)) = boxes.after(rect) {
            self.push(Begun { next: Upcoming::Boxes { row, column }, ..*top })?;
        }
        let what = What::Boxes { task: top.task, rect };
        Ok(Request { shard: top.shard, bytes: Extent::new(top.offset, boxes.bytes(rect)), what })
    }

    fn is_one_chunk(&self, task: usize, len: u64) -> bool {
        let most = self.order.tasks.get(task).map_or(0, |task| task.picked_within(self.order.sizes.chunk));
        self.order.sizes.chunk == 0 || len <= most
    }

    fn is_long(&self, part: &ItemPart) -> bool {
        part.dense && part.bytes.len >= SMALL.min(self.order.sizes.window)
    }

    /// Takes the piece that is first in the files, if it is within reach and comes by
    /// the same means.
    fn pop(&mut self, reach: &Reach, means: &mut Means) -> Result<Option<ItemPart>> {
        self.activate()?;
        let within = |top: &&Begun| match &top.next {
            Upcoming::Part(part, _) => reach.covers(top.shard, part) && !self.is_long(part),
            Upcoming::Tile { .. } | Upcoming::Boxes { .. } => false,
        };
        let Some(top) = self.active.peek().filter(within) else { return Ok(None) };
        let Some(both) = means.with(self.order.means(self.order.task(top.task)?)?) else { return Ok(None) };
        *means = both;
        let Some(Begun { shard, next: Upcoming::Part(part, rest), .. }) = self.active.pop() else { return Ok(None) };
        self.after(shard, &part, rest)?;
        Ok(Some(part))
    }

    /// What follows a piece that was taken is next of its task.
    fn after(&mut self, shard: usize, part: &ItemPart, rest: Option<Box<Reads>>) -> Result<()> {
        let Some(mut rest) = rest else { return Ok(()) };
        let task = part.task;
        let Some(read) = rest.next() else { return Ok(()) };
        let part = part_of(task, self.order.task(task)?, &read);
        self.push(Begun { shard, offset: part.bytes.start, task, next: Upcoming::Part(part, Some(rest)) })
    }

    fn push(&mut self, begun: Begun) -> Result<()> {
        self.active.try_reserve(1).map_err(|_| Error::out_of_memory("a load's slices", size_of::<Begun>()))?;
        self.active.push(begun);
        Ok(())
    }

    /// Begins all tasks that could be the first in the files.
    fn activate(&mut self) -> Result<()> {
        while let Some(Placed { task: number, .. }) = self.order.get(self.next) {
            let task = self.order.task(number)?;
            let shard = task.shard;
            if self.active.peek().is_some_and(|top| (top.shard, top.offset) < (shard, task.start)) {
                return Ok(());
            }
            self.next = self.next.saturating_add(1);
            let begun = self.begun(number, task)?;
            self.push(begun)?;
        }
        Ok(())
    }

    fn begun(&self, number: usize, task: &Task<'_>) -> Result<Begun> {
        let shard = task.shard;
        let next = match &task.picks {
            Picks::Piece => {
                let size = task.picked;
                Upcoming::Part(
                    ItemPart { task: number, at: 0, picked: size, bytes: Extent::new(task.start, size), dense: true },
                    None,
                )
            }
            // Its runs are not whole units.
            Picks::Several(selection) if task.transform.is_some() && !selection.unit().is_multiple_of(task.grain) => {
                Upcoming::Tile { at: 0 }
            }
            Picks::Several(selection) => {
                let source = self.order.checkpoint.source(shard)?;
                let means = self.order.means(task)?;
                let room = match source.preferred_request() {
                    // By what is copied, as nothing else is touched, and not so many pages
                    // that a load which has been cancelled waits for long while a disk brings them.
                    _ if self.order.sizes.is_mapped(source) => {
                        let apart = selection.span().checked_div(selection.read_size()).unwrap_or(1);
                        WINDOW.saturating_mul(apart.clamp(1, 16))
                    }
                    Some(_) => self.order.sizes.window_of(source),
                    None => self.order.sizes.window_of(source).min(STAGED),
                };
                let window = match means {
                    // The same rows of another item have to fit beside it.
                    _ if self.has_company(shard, task) => room / 2,
                    Means::Runs => REQUEST,
                    Means::Staging | Means::Either => room,
                };
                let gap = match means {
                    Means::Runs => SPARSE_GAP,
                    Means::Staging | Means::Either => self.order.sizes.widest_gap(source, task.run()),
                };
                let mut reads = Box::new(selection.reads(gap, window));
                let read = reads.next();
                let read = read.ok_or_else(|| Error::new(ErrorKind::Internal, "a slice without runs"))?;
                Upcoming::Part(part_of(number, task, &read), Some(reads))
            }
            // Nor are its rows.
            Picks::Group(_) if task.transform.is_some() => Upcoming::Tile { at: 0 },
            Picks::Group(_) => Upcoming::Boxes { row: 0, column: 0 },
        };
        let offset = match &next {
            Upcoming::Part(part, _) => part.bytes.start,
            Upcoming::Tile { .. } | Upcoming::Boxes { .. } => task.start,
        };
        Ok(Begun { shard, offset, task: number, next })
    }
}

impl Plan<'_> {
    /// Whether other items lie where this one does.
    fn has_company(&self, shard: usize, task: &Task<'_>) -> bool {
        let next = self.order.get(self.next);
        let begins = next.is_some_and(|next| next.shard == shard && next.start < task.end);
        begins || self.active.iter().any(|other| other.shard == shard && other.offset < task.end)
    }
}

/// The most that one read of one item fetches where there are gaps to throw
/// away: enough for half of the columns of a 4096 x 4096 BF16 tensor in 32 requests.
pub(super) const WINDOW: u64 = 1 << 20;

fn part_of(number: usize, task: &Task<'_>, read: &SliceRead) -> ItemPart {
    let bytes = Extent::new(task.tensor.offset().saturating_add(read.start), read.size);
    ItemPart { task: number, at: read.at, picked: read.picked, bytes, dense: read.dense }
}

/// What can still join a request.
struct Reach {
    shard: usize,
    /// Where it has to lie, and the last place where it may begin.
    within: Extent,
    gap: u64,
}

impl Reach {
    fn covers(&self, shard: usize, part: &ItemPart) -> bool {
        let begins = (self.within.start..=self.gap).contains(&part.bytes.start);
        shard == self.shard && begins && part.bytes.end() <= self.within.end()
    }
}

/// The greatest is the first in the files, as a heap has it on top.
impl Ord for Begun {
    fn cmp(&self, other: &Self) -> Ordering {
        let place = |begun: &Self| (begun.shard, begun.offset, begun.task);
        place(other).cmp(&place(self))
    }
}

impl PartialOrd for Begun {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Begun {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Begun {}
