// SPDX-License-Identifier: Apache-2.0
//! From items to requests: in file order, each large enough to be worth a
//! system call and small enough to be shared out among threads.
//!
//! Made while the load goes on, so that a plan of millions of runs takes no
//! memory. Items whose pieces interleave in the file (two halves of a matrix'
//! columns, say) are merged: what one read can fetch for both is read once.
#![forbid(unsafe_code)]

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::task::Task;
use crate::base::memory;
use crate::base::sort;
use crate::checkpoint::Checkpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::format::slice::{Reads, Runs, Slice};
use crate::source::Source;

/// The largest request: some 1 ms of a fast disk or of a memory copy, so that
/// progress is told and a cancelled load ends about as soon. Like all cuts it is
/// a multiple of 24 bytes, which are whole elements of every dtype.
pub(super) const REQUEST: u64 = 6 << 20;
/// Pieces below this size are fetched together with their neighbours: copying
/// 64 KiB costs about as much as a system call does on a slow machine.
const SMALL: u64 = 64 << 10;
/// The most pieces that one request fetches together.
const MOST_PARTS: usize = 8192;

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
    Parts(Vec<Part>),
}

/// A piece of one item within a request.
pub(super) struct Part {
    pub(super) task: usize,
    /// Bytes of the item that lie before it, as the file has them.
    pub(super) at: u64,
    /// Bytes of the item.
    pub(super) picked: u64,
    /// Where in the file it begins, and its bytes there.
    pub(super) offset: u64,
    pub(super) size: u64,
    /// Which of these bytes are picked; `None`: all.
    pub(super) runs: Option<Box<Runs>>,
}

impl Part {
    fn end(&self) -> u64 {
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
    /// What lies in one piece is one request, however large.
    pub(super) uncut: bool,
}

/// The requests of a load.
pub(super) struct Plan<'a> {
    checkpoint: &'a Checkpoint,
    tasks: &'a [Task<'a>],
    sizes: Sizes,
    /// Shard, start and number of the tasks; those before `next` have begun.
    order: Vec<[u64; 3]>,
    next: usize,
    /// The next piece of each task that has begun, the first in the file on top.
    active: BinaryHeap<Cursor>,
    /// A large piece that is being cut up.
    long: Option<Part>,
    made: u64,
}

/// A task that has begun.
struct Cursor {
    shard: usize,
    part: Part,
    rest: Option<Box<Reads>>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(checkpoint: &'a Checkpoint, tasks: &'a [Task<'a>], sizes: Sizes) -> Result<Self> {
        let mut order = memory::vec_with_capacity(tasks.len(), "the order of a load")?;
        for (task, number) in tasks.iter().zip(0_u64..).filter(|(task, _)| task.picked != 0) {
            order.push([task.tensor.shard() as u64, task.start, number]);
        }
        sort::rows(&mut order);
        Ok(Self { checkpoint, tasks, sizes, order, next: 0, active: BinaryHeap::new(), long: None, made: 0 })
    }

    /// The next request.
    pub(super) fn next(&mut self) -> Result<Option<Request>> {
        self.made = self.made.saturating_add(1);
        match self.long.take() {
            Some(long) => Ok(Some(self.cut(long))),
            None => self.begin(),
        }
    }

    /// How many have been asked for.
    pub(super) fn made(&self) -> u64 {
        self.made
    }

    fn begin(&mut self) -> Result<Option<Request>> {
        let Some((shard, first)) = self.pop(None)? else { return Ok(None) };
        if self.is_long(&first) {
            return Ok(Some(self.cut(first)));
        }
        let source = self.checkpoint.source(shard)?;
        let (offset, mut end) = (first.offset, first.end());
        let mut parts = Vec::new();
        parts.push(first);
        while parts.len() < MOST_PARTS {
            let reach = Reach {
                shard,
                gap: end.saturating_add(source.widest_gap()),
                end: offset.saturating_add(self.sizes.window),
            };
            let Some((_, part)) = self.pop(Some(reach))? else { break };
            end = end.max(part.end());
            memory::reserve(&mut parts, 1, "the parts of a request")?;
            parts.push(part);
        }
        let len = end.saturating_sub(offset);
        let what = match parts.as_slice() {
            // By itself it needs no staging, unless a sink takes it in several chunks.
            [Part { task, at, runs: None, .. }] if self.is_one_chunk(*task, len) => {
                What::Whole { task: *task, at: *at }
            }
            _ => What::Parts(parts),
        };
        Ok(Some(Request { shard, offset, len, what }))
    }

    /// A request from the front of a large piece; the rest is kept for later.
    fn cut(&mut self, mut long: Part) -> Request {
        let task = self.tasks.get(long.task);
        let shard = task.map_or(0, |task| task.tensor.shard());
        let most = match task {
            Some(task) if self.sizes.chunk != 0 => task.picked_within(self.sizes.chunk),
            _ if self.sizes.uncut => u64::MAX,
            _ => self.checkpoint.source(shard).ok().and_then(Source::preferred_request).unwrap_or(REQUEST),
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

    fn is_one_chunk(&self, task: usize, len: u64) -> bool {
        let most = self.tasks.get(task).map_or(0, |task| task.picked_within(self.sizes.chunk));
        self.sizes.chunk == 0 || len <= most
    }

    fn is_long(&self, part: &Part) -> bool {
        part.runs.is_none() && part.size >= SMALL.min(self.sizes.window)
    }

    /// Takes the piece that is first in the files, if it is within reach.
    fn pop(&mut self, reach: Option<Reach>) -> Result<Option<(usize, Part)>> {
        self.activate()?;
        if let Some(reach) = reach {
            let within = |top: &Cursor| reach.covers(top.shard, &top.part) && !self.is_long(&top.part);
            if !self.active.peek().is_some_and(within) {
                return Ok(None);
            }
        }
        let Some(Cursor { shard, part, rest }) = self.active.pop() else { return Ok(None) };
        if let Some(mut rest) = rest {
            let at = part.at.saturating_add(part.picked);
            let tensor = self.tasks.get(part.task).map_or(0, |task| task.tensor.offset());
            if let Some(part) = part_of(part.task, tensor, at, &mut rest) {
                self.active.push(Cursor { shard, part, rest: Some(rest) });
            }
        }
        Ok(Some((shard, part)))
    }

    /// Begins all tasks that could be the first in the files.
    fn activate(&mut self) -> Result<()> {
        while let Some([_, _, number]) = self.order.get(self.next) {
            let number = usize::try_from(*number).unwrap_or(usize::MAX);
            let task =
                self.tasks.get(number).ok_or_else(|| Error::new(ErrorKind::Internal, "a plan without a task"))?;
            let shard = task.tensor.shard();
            if self.active.peek().is_some_and(|top| (top.shard, top.part.offset) < (shard, task.start)) {
                return Ok(());
            }
            self.next = self.next.saturating_add(1);
            self.active.try_reserve(1).map_err(|_| Error::out_of_memory("a load's slices", size_of::<Cursor>()))?;
            self.active.push(self.cursor(number, task)?);
        }
        Ok(())
    }

    fn cursor(&self, number: usize, task: &Task<'_>) -> Result<Cursor> {
        let shard = task.tensor.shard();
        let size = task.end.saturating_sub(task.start);
        if size == task.picked {
            let part = Part { task: number, at: 0, picked: size, offset: task.start, size, runs: None };
            return Ok(Cursor { shard, part, rest: None });
        }
        let slice = Arc::new(Slice::new(task.tensor, task.ranges)?);
        // Larger results than a sink's buffer hold are handed over in several chunks.
        let mut reads =
            Box::new(slice.reads(self.checkpoint.source(shard)?.widest_gap(), self.sizes.window.min(WINDOW)));
        let part = part_of(number, task.tensor.offset(), 0, &mut reads);
        let part = part.ok_or_else(|| Error::new(ErrorKind::Internal, "a slice without runs"))?;
        Ok(Cursor { shard, part, rest: Some(reads) })
    }
}

/// The most that one read of one item fetches where there are gaps to throw
/// away: enough for half of the columns of a 4096 x 4096 BF16 tensor in 32 reads.
/// From 256 KiB to here the time is the same.
pub(super) const WINDOW: u64 = 1 << 20;

fn part_of(task: usize, tensor: u64, at: u64, reads: &mut Reads) -> Option<Part> {
    let read = reads.next()?;
    let runs = (read.picked != read.size).then(|| Box::new(read.runs));
    Some(Part { task, at, picked: read.picked, offset: tensor.saturating_add(read.start), size: read.size, runs })
}

/// What can still join a request.
struct Reach {
    shard: usize,
    /// The last place where it may begin, and where it has to end.
    gap: u64,
    end: u64,
}

impl Reach {
    fn covers(&self, shard: usize, part: &Part) -> bool {
        shard == self.shard && part.offset <= self.gap && part.end() <= self.end
    }
}

/// The greatest is the first in the files, as a heap has it on top.
impl Ord for Cursor {
    fn cmp(&self, other: &Self) -> Ordering {
        let place = |cursor: &Self| (cursor.shard, cursor.part.offset, cursor.part.task);
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
