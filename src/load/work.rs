// SPDX-License-Identifier: Apache-2.0
//! One thread's work: requests, read and delivered, converted on the way.
#![forbid(unsafe_code)]

use super::plan::{Part, Request, What};
use super::reader::{fault, Reader, Way};
use super::shared::{stopped, Chunk, Host, Shared};
use super::target::scratch;
use super::task::Task;
use super::{Budget, Load};
use crate::base::memory::Aligned;
use crate::checkpoint::Checkpoint;
use crate::convert;
use crate::error::{Error, ErrorKind, Result};
use crate::format::slice::Runs;

pub(super) struct Worker<'a, 's, 'h> {
    checkpoint: &'a Checkpoint,
    numbered: bool,
    reader: Reader<'a>,
    delivery: Delivery<'a, 's, 'h>,
}

/// All of a thread's work but reading.
struct Delivery<'a, 's, 'h> {
    tasks: &'a [Task<'a>],
    shared: &'s Shared<'a>,
    /// On the caller's own thread.
    host: Option<&'s mut Host<'h>>,
    desk: Desk,
}

/// Where a thread puts bytes together; each is had once it is wanted.
struct Desk {
    budget: Budget,
    /// Bytes of an item as the file has them, without what lay between.
    gathered: Option<Aligned>,
    /// Bytes of a result before they are spread.
    converted: Option<Aligned>,
}

impl<'a, 's, 'h> Worker<'a, 's, 'h> {
    pub(super) fn new(load: &Load<'a>, shared: &'s Shared<'a>, host: Option<&'s mut Host<'h>>) -> Self {
        let desk = Desk { budget: load.budget, gathered: None, converted: None };
        Self {
            checkpoint: load.checkpoint,
            numbered: load.numbered,
            reader: load.reader(),
            delivery: Delivery { tasks: load.tasks, shared, host, desk },
        }
    }

    /// Works until nothing is left, or the load has failed.
    pub(super) fn run(mut self) {
        let shared = self.delivery.shared;
        while !shared.stopped() {
            let taken = match shared.next() {
                Ok(Some(taken)) => taken,
                Ok(None) => break,
                Err(error) => return shared.fail(1, error),
            };
            if let Err((task, error)) = self.execute(&taken.request) {
                if error.kind() == ErrorKind::Cancelled && shared.stopped() {
                    // Another's failure, which has been told.
                    return;
                }
                let task = self
                    .delivery
                    .tasks
                    .get(task)
                    .map(|found| found.named(self.checkpoint, self.numbered.then_some(task), &error));
                return shared.fail(taken.number, task.unwrap_or(error));
            }
            drop(taken);
            if let Some(Err(error)) = self.delivery.host.as_mut().map(|host| shared.serve(host)) {
                return shared.fail(0, error);
            }
        }
    }

    /// Reads and delivers; an error comes with the task that it befell.
    pub(super) fn execute(&mut self, request: &Request) -> Result<(), (usize, Error)> {
        let Request { shard, offset, len, what } = request;
        match what {
            What::Whole { task, at } => {
                self.whole(*task, *at, *shard, *offset, *len).map_err(|error| (*task, error))?;
            }
            What::Parts(parts) => {
                let first = parts.first().map_or(0, |part| part.task);
                let Self { reader, delivery, .. } = self;
                let read =
                    reader.way(*shard, *offset, *len).and_then(|way| reader.window(*shard, *offset, count(*len)?, way));
                let window = read.map_err(|error| (first, error))?;
                for part in parts {
                    delivery.part(part, window, *offset).map_err(|error| (part.task, error))?;
                }
            }
        }
        self.reader.done(*shard, *offset, *len);
        Ok(())
    }

    /// Bytes that are all one item's.
    fn whole(&mut self, number: usize, mut at: u64, shard: usize, mut offset: u64, len: u64) -> Result<()> {
        let task = self.delivery.tasks.get(number).ok_or_else(fault)?;
        let way = self.reader.way(shard, offset, len)?;
        let mut left = len;
        while left != 0 {
            let now = match &task.layout {
                Some(_) => self.spread(number, (at, offset, left), shard, way)?,
                None => {
                    let place = self.delivery.place(task, at, left)?;
                    self.fill(task, (offset, place.picked), shard, place.out, way)?;
                    self.delivery.delivered(number, place.buffer, task.result_of(at), size(task, place.picked)?)?;
                    place.picked
                }
            };
            (at, offset, left) = (at.saturating_add(now), offset.saturating_add(now), left.saturating_sub(now));
        }
        Ok(())
    }

    /// Reads bytes of the file and fills `out` with what they become.
    fn fill(
        &mut self,
        task: &Task<'_>,
        (mut offset, mut left): (u64, u64),
        shard: usize,
        mut out: &mut [u8],
        way: Way,
    ) -> Result<()> {
        while left != 0 {
            self.delivery.go_on()?;
            let now = if task.converts() {
                self.reader.step(way).min(left)
            } else {
                left.min(self.delivery.desk.budget.straight)
            };
            let (room, later) = out.split_at_mut_checked(size(task, now)?).ok_or_else(fault)?;
            if task.converts() {
                let bytes = self.reader.window(shard, offset, count(now)?, way)?;
                convert::convert_to(task.from, bytes, task.to, room, self.delivery.desk.budget.far)?;
            } else {
                self.reader.read(shard, offset, room, way)?;
            }
            (offset, left, out) = (offset.saturating_add(now), left.saturating_sub(now), later);
        }
        Ok(())
    }

    /// The same for a result with strides, and as much of it as is read at once.
    fn spread(&mut self, task: usize, (at, offset, left): (u64, u64, u64), shard: usize, way: Way) -> Result<u64> {
        self.delivery.go_on()?;
        let now = self.reader.step(way).min(left);
        let bytes = self.reader.window(shard, offset, count(now)?, way)?;
        self.delivery.pieces(task, Feed { bytes, start: 0, runs: None }, at, now)?;
        Ok(now)
    }
}

/// Where the next bytes of a result go.
struct Place<'a> {
    out: &'a mut [u8],
    /// Bytes of the item that they come from.
    picked: u64,
    /// The sink's, if it is one of its buffers.
    buffer: Option<usize>,
}

impl<'a> Delivery<'a, '_, '_> {
    fn go_on(&self) -> Result<()> {
        if self.shared.stopped() {
            return Err(stopped());
        }
        Ok(())
    }

    /// Room for the result of up to `left` bytes of a dense item from `at` on.
    fn place(&mut self, task: &Task<'a>, at: u64, left: u64) -> Result<Place<'a>> {
        let room = self.desk.budget.chunk;
        if room == 0 {
            let start = task.result_of(at).ok_or_else(fault)?;
            return Ok(Place { out: task.place.dense(start, size(task, left)?)?, picked: left, buffer: None });
        }
        let buffer = self.shared.acquire(&mut self.host)?;
        let picked = left.min(task.picked_within(room));
        Ok(Place { out: self.shared.buffer(buffer).dense(0, size(task, picked)?)?, picked, buffer: Some(buffer) })
    }

    /// What was placed is complete: a sink's buffer goes on to the sink.
    fn delivered(&self, item: usize, buffer: Option<usize>, offset: Option<u64>, size: usize) -> Result<()> {
        match buffer {
            Some(buffer) => self.shared.submit(Chunk { buffer, item, offset: offset.ok_or_else(fault)?, size }),
            None => self.shared.advance(size as u64),
        }
        Ok(())
    }

    /// Delivers one part of what was read from `offset` on.
    fn part(&mut self, part: &Part, window: &[u8], offset: u64) -> Result<()> {
        let task = self.tasks.get(part.task).ok_or_else(fault)?;
        let start = count(part.offset.saturating_sub(offset))?;
        let bytes = window.get(start..).and_then(|bytes| bytes.get(..count(part.size).ok()?)).ok_or_else(fault)?;
        let start = part.offset.saturating_sub(task.tensor.offset());
        self.pieces(part.task, Feed { bytes, start, runs: part.runs.as_deref().cloned() }, part.at, part.picked)
    }

    /// Delivers `left` bytes of an item from its byte `at` on, as much at once as there is room for.
    fn pieces(&mut self, number: usize, mut feed: Feed<'_>, mut at: u64, mut left: u64) -> Result<()> {
        let task = self.tasks.get(number).ok_or_else(fault)?;
        while left != 0 {
            let now = match &task.layout {
                Some(layout) => {
                    let now = left.min(self.desk.most(task));
                    let result = self.desk.result(task, &mut feed, count(now)?)?;
                    task.place.scatter(layout, task.result_of(at).ok_or_else(fault)?, result)?;
                    self.shared.advance(result.len() as u64);
                    now
                }
                None => {
                    let place = self.place(task, at, left)?;
                    self.desk.fill(task, &mut feed, place.picked, place.out)?;
                    self.delivered(number, place.buffer, task.result_of(at), size(task, place.picked)?)?;
                    place.picked
                }
            };
            (at, left) = (at.saturating_add(now), left.saturating_sub(now));
        }
        Ok(())
    }
}

/// Bytes of an item in a window, in the result's order.
struct Feed<'w> {
    bytes: &'w [u8],
    /// Where they begin, from the tensor's first byte.
    start: u64,
    runs: Option<Runs>,
}

impl<'w> Feed<'w> {
    fn copy(&mut self, out: &mut [u8]) -> Result<()> {
        match &mut self.runs {
            Some(runs) => runs.gather(self.bytes, self.start, out).ok_or_else(fault),
            None => {
                out.copy_from_slice(self.take(out.len())?);
                Ok(())
            }
        }
    }

    /// The next bytes where they lie: only where nothing lies between.
    fn take(&mut self, len: usize) -> Result<&'w [u8]> {
        let (now, later) = self.bytes.split_at_checked(len).ok_or_else(fault)?;
        self.bytes = later;
        Ok(now)
    }

    /// The next bytes in one piece: where they lie, or in `room`, of `most` bytes.
    fn next<'d>(&mut self, len: usize, room: &'d mut Option<Aligned>, most: usize) -> Result<&'d [u8]>
    where
        'w: 'd,
    {
        if self.runs.is_none() {
            return self.take(len);
        }
        let room = scratch(room, most)?.get_mut(..len).ok_or_else(fault)?;
        self.copy(room)?;
        Ok(room)
    }
}

impl Desk {
    /// Most bytes of an item that can be put together at once.
    fn most(&self, task: &Task<'_>) -> u64 {
        let room = self.budget.desk as u64;
        task.picked_within(room).min(room.saturating_sub(room % 24)).max(1)
    }

    /// Fills `out` with what the next `len` bytes become.
    fn fill(&mut self, task: &Task<'_>, feed: &mut Feed<'_>, len: u64, mut out: &mut [u8]) -> Result<()> {
        if !task.converts() {
            return feed.copy(out);
        }
        let mut left = len;
        while left != 0 {
            let now = left.min(self.most(task));
            let (room, later) = out.split_at_mut_checked(size(task, now)?).ok_or_else(fault)?;
            let bytes = feed.next(count(now)?, &mut self.gathered, self.budget.desk)?;
            convert::convert_to(task.from, bytes, task.to, room, self.budget.far)?;
            (left, out) = (left.saturating_sub(now), later);
        }
        Ok(())
    }

    /// What the next `len` bytes become, here or where they are.
    fn result<'d, 'w: 'd>(&'d mut self, task: &Task<'_>, feed: &mut Feed<'w>, len: usize) -> Result<&'d [u8]> {
        let Self { budget, gathered, converted } = self;
        let bytes = feed.next(len, gathered, budget.desk)?;
        if !task.converts() {
            return Ok(bytes);
        }
        let room = scratch(converted, budget.desk)?.get_mut(..size(task, bytes.len() as u64)?).ok_or_else(fault)?;
        convert::convert_to(task.from, bytes, task.to, room, false)?;
        Ok(room)
    }
}

/// Bytes of the result of so many bytes in the file.
fn size(task: &Task<'_>, picked: u64) -> Result<usize> {
    count(task.result_of(picked).ok_or_else(fault)?)
}

fn count(bytes: u64) -> Result<usize> {
    usize::try_from(bytes).map_err(|_| fault())
}
