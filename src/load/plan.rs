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

use super::boxes::Rect;
use super::stretch::Stretch;
use super::task::{Picks, Task};
use crate::base::{memory, sort};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::format::slice::{Reads, SliceRead};
use crate::source::Source;

/// The largest request: some 1 ms of a fast disk or of a memory copy, so that
/// progress is told and a cancelled load ends about as soon. Like all cuts it is
/// a multiple of `task::CUT` bytes.
pub(super) const REQUEST: u64 = 6 << 20;
/// Pieces below this size are fetched together with their neighbours: copying
/// 64 KiB costs about as much as a system call does on a slow machine.
const SMALL: u64 = 64 << 10;
/// The most pieces that one request fetches together.
pub(super) const MOST_PARTS: usize = 8192;

/// One read, or several in a row, and what becomes of the bytes.
pub(super) struct Request {
    pub(super) shard: usize,
    /// From the start of the shard's file.
    pub(super) offset: u64,
    pub(super) len: u64,
    pub(super) what: What,
}

pub(super) enum What {
    /// All of it is one item's, from its byte `at` on as the file has them.
    Whole { task: usize, at: u64 },
    /// Parts of it are items'.
    Parts(Vec<Part>, Means),
    /// So many bytes of an item from `at` on, each run read as it is needed.
    Tile { task: usize, at: u64, size: u64 },
    /// Decoded out of several tensors.
    Boxes { task: usize, rect: Rect },
}

/// How parts of a request come to where they go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Means {
    /// By way of staging: all is read at once.
    Staging,
    /// Each run is read to its place: gaps are too wide to be read over.
    Runs,
    /// As is best.
    Either,
}

impl Means {
    /// Of both in one request; `None` where they have none in common.
    fn with(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::Either, means) | (means, Self::Either) => Some(means),
            (Self::Staging, Self::Staging) | (Self::Runs, Self::Runs) => Some(self),
            (Self::Staging, Self::Runs) | (Self::Runs, Self::Staging) => None,
        }
    }
}

/// A piece of one item within a request.
pub(super) struct Part {
    pub(super) task: usize,
    /// Bytes of the item that lie before it in the result as the file has it.
    pub(super) at: u64,
    /// Bytes of the item.
    pub(super) picked: u64,
    /// Where in the file it begins, and its bytes there.
    pub(super) offset: u64,
    pub(super) size: u64,
    /// Whether the item's bytes are just those of the file.
    pub(super) dense: bool,
}

impl Part {
    pub(super) fn end(&self) -> u64 {
        self.offset.saturating_add(self.size)
    }
}

/// How large requests are.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    /// What one staging buffer holds; nothing that has gaps is larger.
    pub(super) window: u64,
    /// Bytes of a result that a sink takes at once; 0: no sink.
    pub(super) chunk: u64,
    /// Bytes that are put together at once.
    pub(super) tile: u64,
    /// The widest gap that is read over; 0: what suits the source.
    pub(super) max_gap: u64,
    /// Bytes that are mapped are not read, so gaps cost nothing.
    pub(super) mapped: bool,
    /// What lies in one piece is one request, however large.
    pub(super) uncut: bool,
    /// Runs of a file may be read straight to where they go.
    pub(super) scatter: bool,
}

/// Smaller runs are better read with what lies between them and copied on: a place
/// of its own costs a read some 40 ns.
const SCATTER_FROM: u64 = 1 << 10;
/// Wider gaps end a request.
const SPARSE_GAP: u64 = 128 << 10;

impl Sizes {
    /// What one request with gaps may have.
    fn window_of(&self, source: &Source) -> u64 {
        source.preferred_request().unwrap_or(u64::MAX).min(self.window)
    }

    pub(super) fn widest_gap(&self, source: &Source) -> u64 {
        match self.max_gap {
            _ if self.mapped && source.mapped().is_some() => u64::MAX,
            0 => source.widest_gap(),
            given => given,
        }
    }
}

/// The requests of a load.
pub(super) struct Plan<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) tasks: &'a [Task<'a>],
    pub(super) sizes: Sizes,
    /// Shard, start and number of the tasks; those before `next` have begun.
    pub(super) order: Vec<[u64; 3]>,
    next: usize,
    /// What comes next of each task that has begun, the first in the file on top.
    active: BinaryHeap<Cursor>,
    /// A large piece that is being cut up.
    long: Option<Part>,
    stretch: Option<Stretch>,
    made: u64,
}

/// A task that has begun.
struct Cursor {
    shard: usize,
    offset: u64,
    task: usize,
    next: Next,
}

enum Next {
    Part(Part, Option<Box<Reads>>),
    Tile { at: u64 },
    Boxes { row: u64, column: u64 },
}

impl<'a> Plan<'a> {
    /// How bytes of a task come to where they go, and whether they do as it is alone.
    fn means(&self, task: &Task<'_>) -> Result<Means> {
        let (run, gap) = match &task.picks {
            Picks::Piece => (task.picked, 0),
            Picks::Several(selection) => (selection.unit(), selection.gap()),
            Picks::Group(_) => return Ok(Means::Staging),
        };
        let source = self.checkpoint.source(task.tensor.shard())?;
        let read = source.scatters() && !(self.sizes.mapped && source.mapped().is_some());
        Ok(match run >= SCATTER_FROM && self.sizes.scatter && task.is_plain() && read {
            false => Means::Staging,
            true if gap > self.sizes.widest_gap(source) => Means::Runs,
            true => Means::Either,
        })
    }

    pub(super) fn new(checkpoint: &'a Checkpoint, tasks: &'a [Task<'a>], sizes: Sizes) -> Result<Self> {
        let mut order = memory::vec_with_capacity(tasks.len(), "the order of a load")?;
        for (task, number) in tasks.iter().zip(0_u64..).filter(|(task, _)| task.picked != 0) {
            order.push([task.tensor.shard() as u64, task.start, number]);
        }
        sort::rows(&mut order);
        let (active, long, stretch) = (BinaryHeap::new(), None, None);
        Ok(Self { checkpoint, tasks, sizes, order, next: 0, active, long, stretch, made: 0 })
    }

    /// The next request.
    pub(super) fn next(&mut self) -> Result<Option<Request>> {
        self.made = self.made.saturating_add(1);
        if let Some(long) = self.long.take() {
            return Ok(Some(self.cut(long)));
        }
        if self.stretch.is_none() && self.active.is_empty() {
            self.stretch = self.stretch_from(self.next)?;
            self.next = self.stretch.as_ref().map_or(self.next, |stretch| stretch.last);
        }
        if let Some(mut stretch) = self.stretch.take() {
            let request = self.next_of(&mut stretch)?;
            self.stretch = (!stretch.is_over()).then_some(stretch);
            return Ok(Some(request));
        }
        self.begin()
    }

    /// How many have been asked for.
    pub(super) fn made(&self) -> u64 {
        self.made
    }

    pub(super) fn task(&self, number: usize) -> Result<&'a Task<'a>> {
        self.tasks.get(number).ok_or_else(|| Error::new(ErrorKind::Internal, "a plan without a task"))
    }

    fn begin(&mut self) -> Result<Option<Request>> {
        self.activate()?;
        let Some(top) = self.active.pop() else { return Ok(None) };
        let shard = top.shard;
        let first = match top.next {
            Next::Part(part, rest) => {
                self.after(shard, &part, rest)?;
                part
            }
            Next::Tile { at } => return self.tile(&top, at).map(Some),
            Next::Boxes { row, column } => return self.boxes(&top, row, column).map(Some),
        };
        if self.is_long(&first) {
            return Ok(Some(self.cut(first)));
        }
        let source = self.checkpoint.source(shard)?;
        let (widest_gap, window) = (self.sizes.widest_gap(source), self.sizes.window_of(source));
        let (offset, mut end) = (first.offset, first.end());
        let mut means = self.means(self.task(first.task)?)?;
        let mut parts = Vec::new();
        parts.push(first);
        while parts.len() < MOST_PARTS {
            let (gap, most) = (end.saturating_add(widest_gap), offset.saturating_add(window));
            let reach = Reach { shard, start: offset, gap, end: most };
            let Some(part) = self.pop(&reach, &mut means)? else { break };
            end = end.max(part.end());
            memory::reserve(&mut parts, 1, "the parts of a request")?;
            parts.push(part);
        }
        let len = end.saturating_sub(offset);
        let what = match parts.as_slice() {
            // By itself it needs no staging, unless a sink takes it in several chunks.
            [Part { task, at, dense: true, .. }] if self.is_one_chunk(*task, len) => {
                What::Whole { task: *task, at: *at }
            }
            _ => What::Parts(parts, means),
        };
        Ok(Some(Request { shard, offset, len, what }))
    }

    /// A request from the front of a large piece; the rest is kept for later.
    fn cut(&mut self, mut long: Part) -> Request {
        let task = self.tasks.get(long.task);
        let shard = task.map_or(0, |task| task.tensor.shard());
        let most = match task {
            _ if self.sizes.uncut => u64::MAX,
            Some(task) => {
                let preferred = self.checkpoint.source(shard).ok().and_then(Source::preferred_request);
                let most = match preferred {
                    // Nearly equal shares, so that no crumb is left for the last.
                    Some(most) => long.size.div_ceil(long.size.div_ceil(most).max(1)).next_multiple_of(8).min(most),
                    None => REQUEST,
                };
                let most = match self.sizes.chunk {
                    0 => most,
                    chunk => task.picked_within(chunk).min(most),
                };
                most.saturating_sub(most.checked_rem(task.grain).unwrap_or(0)).max(task.grain)
            }
            None => REQUEST,
        };
        let len = long.size.min(most.max(1));
        let request = Request { shard, offset: long.offset, len, what: What::Whole { task: long.task, at: long.at } };
        if len < long.size {
            long.at = long.at.saturating_add(len);
            long.offset = long.offset.saturating_add(len);
            long.size = long.size.saturating_sub(len);
            long.picked = long.size;
            self.long = Some(long);
        }
        request
    }

    /// The next bytes of an item that is put together run by run.
    fn tile(&mut self, top: &Cursor, at: u64) -> Result<Request> {
        let task = self.task(top.task)?;
        let most = task.picked_through(self.sizes.tile).max(task.grain);
        let size = task.picked.saturating_sub(at).min(most);
        let after = at.saturating_add(size);
        if after < task.picked {
            self.push(Cursor { next: Next::Tile { at: after }, ..*top })?;
        }
        let what = What::Tile { task: top.task, at, size };
        Ok(Request { shard: top.shard, offset: top.offset, len: size, what })
    }

    /// The next boxes of a group.
    fn boxes(&mut self, top: &Cursor, row: u64, column: u64) -> Result<Request> {
        let task = self.task(top.task)?;
        let Picks::Group(boxes) = &task.picks else {
            return Err(Error::new(ErrorKind::Internal, "boxes of what is no group"));
        };
        let free = self.sizes.chunk == 0 && task.is_plain();
        let room = if self.sizes.chunk == 0 { self.sizes.tile } else { self.sizes.tile.min(self.sizes.chunk) };
        let rect = boxes.rect(row, column, room, free);
        if let Some((row, column)) = boxes.after(rect) {
            self.push(Cursor { next: Next::Boxes { row, column }, ..*top })?;
        }
        let what = What::Boxes { task: top.task, rect };
        Ok(Request { shard: top.shard, offset: top.offset, len: boxes.bytes(rect), what })
    }

    fn is_one_chunk(&self, task: usize, len: u64) -> bool {
        let most = self.tasks.get(task).map_or(0, |task| task.picked_within(self.sizes.chunk));
        self.sizes.chunk == 0 || len <= most
    }

    fn is_long(&self, part: &Part) -> bool {
        part.dense && part.size >= SMALL.min(self.sizes.window)
    }

    /// Takes the piece that is first in the files, if it is within reach and comes by
    /// the same means.
    fn pop(&mut self, reach: &Reach, means: &mut Means) -> Result<Option<Part>> {
        self.activate()?;
        let within = |top: &&Cursor| match &top.next {
            Next::Part(part, _) => reach.covers(top.shard, part) && !self.is_long(part),
            Next::Tile { .. } | Next::Boxes { .. } => false,
        };
        let Some(top) = self.active.peek().filter(within) else { return Ok(None) };
        let Some(both) = means.with(self.means(self.task(top.task)?)?) else { return Ok(None) };
        *means = both;
        let Some(Cursor { shard, next: Next::Part(part, rest), .. }) = self.active.pop() else { return Ok(None) };
        self.after(shard, &part, rest)?;
        Ok(Some(part))
    }

    /// What follows a piece that was taken is next of its task.
    fn after(&mut self, shard: usize, part: &Part, rest: Option<Box<Reads>>) -> Result<()> {
        let Some(mut rest) = rest else { return Ok(()) };
        let task = part.task;
        let Some(read) = rest.next() else { return Ok(()) };
        let part = part_of(task, self.task(task)?, &read);
        self.push(Cursor { shard, offset: part.offset, task, next: Next::Part(part, Some(rest)) })
    }

    fn push(&mut self, cursor: Cursor) -> Result<()> {
        self.active.try_reserve(1).map_err(|_| Error::out_of_memory("a load's slices", size_of::<Cursor>()))?;
        self.active.push(cursor);
        Ok(())
    }

    /// Begins all tasks that could be the first in the files.
    fn activate(&mut self) -> Result<()> {
        while let Some([_, _, number]) = self.order.get(self.next) {
            let number = usize::try_from(*number).unwrap_or(usize::MAX);
            let task = self.task(number)?;
            let shard = task.tensor.shard();
            if self.active.peek().is_some_and(|top| (top.shard, top.offset) < (shard, task.start)) {
                return Ok(());
            }
            self.next = self.next.saturating_add(1);
            let cursor = self.cursor(number, task)?;
            self.push(cursor)?;
        }
        Ok(())
    }

    fn cursor(&self, number: usize, task: &Task<'_>) -> Result<Cursor> {
        let shard = task.tensor.shard();
        let next = match &task.picks {
            Picks::Piece => {
                let size = task.picked;
                Next::Part(Part { task: number, at: 0, picked: size, offset: task.start, size, dense: true }, None)
            }
            // Its runs are not whole units.
            Picks::Several(selection) if task.transform.is_some() && !selection.unit().is_multiple_of(task.grain) => {
                Next::Tile { at: 0 }
            }
            Picks::Several(selection) => {
                let source = self.checkpoint.source(shard)?;
                let most = if source.preferred_request().is_some() { u64::MAX } else { WINDOW };
                // The same rows of another item have to fit beside it.
                let room = self.sizes.window_of(source);
                let window = if self.has_company(shard, task) { room / 2 } else { room }.min(most);
                let gap = match self.means(task)? {
                    Means::Runs => SPARSE_GAP,
                    Means::Staging | Means::Either => self.sizes.widest_gap(source),
                };
                let mut reads = Box::new(selection.reads(gap, window));
                let read = reads.next();
                let read = read.ok_or_else(|| Error::new(ErrorKind::Internal, "a slice without runs"))?;
                Next::Part(part_of(number, task, &read), Some(reads))
            }
            // Nor are its rows.
            Picks::Group(_) if task.transform.is_some() => Next::Tile { at: 0 },
            Picks::Group(_) => Next::Boxes { row: 0, column: 0 },
        };
        let offset = match &next {
            Next::Part(part, _) => part.offset,
            Next::Tile { .. } | Next::Boxes { .. } => task.start,
        };
        Ok(Cursor { shard, offset, task: number, next })
    }
}

impl Plan<'_> {
    /// Whether other items lie where this one does.
    fn has_company(&self, shard: usize, task: &Task<'_>) -> bool {
        let next = self.order.get(self.next);
        let begins = next.is_some_and(|[of, start, _]| *of == shard as u64 && *start < task.end);
        begins || self.active.iter().any(|other| other.shard == shard && other.offset < task.end)
    }
}

/// The most that one read of one item fetches where there are gaps to throw
/// away: enough for half of the columns of a 4096 x 4096 BF16 tensor in 32 reads.
/// From 256 KiB to here the time is the same.
pub(super) const WINDOW: u64 = 1 << 20;

fn part_of(number: usize, task: &Task<'_>, read: &SliceRead) -> Part {
    let offset = task.tensor.offset().saturating_add(read.start);
    Part { task: number, at: read.at, picked: read.picked, offset, size: read.size, dense: read.dense }
}

/// What can still join a request.
struct Reach {
    shard: usize,
    /// The first and the last place where it may begin, and where it has to end.
    start: u64,
    gap: u64,
    end: u64,
}

impl Reach {
    fn covers(&self, shard: usize, part: &Part) -> bool {
        shard == self.shard && (self.start..=self.gap).contains(&part.offset) && part.end() <= self.end
    }
}

/// The greatest is the first in the files, as a heap has it on top.
impl Ord for Cursor {
    fn cmp(&self, other: &Self) -> Ordering {
        let place = |cursor: &Self| (cursor.shard, cursor.offset, cursor.task);
        place(other).cmp(&place(self))
    }
}

impl PartialOrd for Cursor {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Cursor {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Cursor {}
