// SPDX-License-Identifier: Apache-2.0
//! One thread's work: requests, read and delivered, converted on the way.
#![forbid(unsafe_code)]

use super::boxes::{Boxes, Rect};
use super::budget::MemoryBudget;
use super::callbacks::Callbacks;
use super::checked::CheckedLoad;
use super::delivery::Delivery;
use super::destination::{scratch, Staging};
use super::errors::fault;
use super::fetch::{members, RowsInPlace, RowsInRoom, TensorBytes};
use super::reader::{ReadWay, Reader};
use super::request::{fetched, Fetched, ItemPart, Means, Request, What, WORTH_A_HAND_OVER};
use super::runs;
use super::shared::{LoadState, Taken};
use super::task::{Picks, Task};
use super::workspace::{count, size, Incoming};
use crate::base::extent::Extent;
use crate::base::memory::{self, Aligned};
use crate::checkpoint::Checkpoint;
use crate::convert;
use crate::error::{Error, ErrorKind, Result};

pub(super) struct Worker<'a, 's, 'h> {
    checkpoint: &'a Checkpoint,
    budget: MemoryBudget,
    numbered: bool,
    untouched: bool,
    max_gap: u64,
    /// What groups' members are read into.
    rooms: Vec<Aligned>,
    reader: Reader<'a, 's>,
    delivery: Delivery<'a, 's, 'h>,
}

impl<'a, 's, 'h> Worker<'a, 's, 'h> {
    pub(super) fn new(
        load: &CheckedLoad<'a>,
        shared: &'s LoadState<'a>,
        callbacks: Option<&'s mut Callbacks<'h>>,
    ) -> Self {
        Self {
            checkpoint: load.checkpoint,
            budget: load.budget,
            numbered: load.numbered,
            untouched: load.untouched,
            max_gap: load.options.max_gap,
            rooms: Vec::new(),
            reader: load.reader(Some(shared)),
            delivery: Delivery::new(load.tasks, load.budget, shared, callbacks),
        }
    }

    /// Works until nothing is left, or the load has failed.
    pub(super) fn run(&mut self) {
        let shared = self.delivery.shared;
        loop {
            let handed = if self.delivery.callbacks.is_some() { shared.handed() } else { None };
            if shared.stopped() {
                break drop(handed);
            }
            let taken = match handed.map_or_else(|| shared.next(), |handed| Ok(Some(handed))) {
                Ok(Some(taken)) => taken,
                Ok(None) => break,
                Err(error) => return shared.fail(1, error),
            };
            if self.delivery.callbacks.is_none() && self.is_for_the_caller(&taken) {
                shared.hand_over(taken);
                continue;
            }
            if let Some(Err((task, error))) = taken.request.as_ref().map(|request| self.execute(request)) {
                if error.kind() == ErrorKind::Cancelled && shared.stopped() {
                    // Another's failure, which the caller hears of.
                    return;
                }
                let found = self.delivery.tasks.get(task);
                let named = found.map(|found| found.named(self.checkpoint, self.numbered.then_some(task), &error));
                return shared.fail(taken.number, named.unwrap_or(error));
            }
            drop(taken);
            if let Err(error) = self.delivery.serve() {
                return shared.fail(0, error);
            }
        }
        self.delivery.flush();
    }

    /// Many small chunks: handing each over to the caller's thread would cost more
    /// than filling it there.
    fn is_for_the_caller(&self, taken: &Taken<'_, '_>) -> bool {
        let Some(Request { bytes, what: What::Parts(parts, _), .. }) = &taken.request else { return false };
        let mean = bytes.len.checked_div(parts.len() as u64).unwrap_or_default();
        self.budget.chunk != 0 && !self.budget.pieces && mean < WORTH_A_HAND_OVER
    }

    /// Reads and delivers; an error comes with the task that it befell.
    pub(super) fn execute(&mut self, request: &Request) -> Result<(), (usize, Error)> {
        let first = match &request.what {
            What::Whole { task, .. } | What::Tile { task, .. } | What::Boxes { task, .. } => *task,
            What::Parts(parts, _) => parts.first().map_or(0, |part| part.task),
        };
        let shares = self.budget.shared && self.needs_staging(request);
        if shares {
            let staging =
                self.delivery.shared.acquire_staging(&mut self.delivery.callbacks).map_err(|error| (first, error))?;
            self.reader.stage = staging.window;
            self.delivery.workspace.gathered = staging.gathered;
            self.delivery.workspace.converted = staging.converted;
        }
        let result = self.execute_staged(request);
        if shares {
            let window = self.reader.stage.take();
            let (gathered, converted) =
                (self.delivery.workspace.gathered.take(), self.delivery.workspace.converted.take());
            self.delivery.shared.release_staging(Staging { window, gathered, converted });
        }
        result
    }

    /// Whether a request of a source where each is a journey goes through other memory.
    fn needs_staging(&self, request: &Request) -> bool {
        match &request.what {
            What::Whole { task, .. } => self.delivery.tasks.get(*task).is_none_or(|task| !task.is_plain()),
            What::Parts(..) | What::Tile { .. } | What::Boxes { .. } => true,
        }
    }

    fn execute_staged(&mut self, request: &Request) -> Result<(), (usize, Error)> {
        let Request { shard, bytes, what } = request;
        match what {
            What::Whole { task, at } => {
                self.whole(*task, *at, *shard, *bytes).map_err(|error| (*task, error))?;
            }
            What::Parts(parts, means) => self.parts(parts, *means, *shard, *bytes)?,
            What::Tile { task, at, size } => {
                return self.tile(*task, *at, *size).map_err(|error| (*task, error));
            }
            What::Boxes { task, rect } => {
                return self.boxes(*task, *rect).map_err(|error| (*task, error));
            }
        }
        self.reader.done(*shard, *bytes);
        Ok(())
    }

    fn task(&self, number: usize) -> Result<&'a Task<'a>> {
        self.delivery.tasks.get(number).ok_or_else(fault)
    }

    /// Pieces of items that lie near one another.
    fn parts(&mut self, parts: &[ItemPart], means: Means, shard: usize, bytes: Extent) -> Result<(), (usize, Error)> {
        let first = parts.first().map_or(0, |part| part.task);
        let named = |error| (first, error);
        let way = self.reader.way(shard, bytes).map_err(named)?;
        if means == Means::Runs || (means == Means::Either && way == ReadWay::Cached) {
            let run = self.delivery.tasks.get(first).map_or(0, Task::run);
            let gap = self.reader.widest_gap(shard, self.max_gap, run).map_err(named)?;
            return runs::read(parts, shard, gap, &mut self.reader, &mut self.delivery);
        }
        if way != ReadWay::Cached {
            return self.staged(Fetched { parts, bytes }, shard, way);
        }
        let mut rest = parts;
        while let Some(first) = rest.first() {
            let named = |error| (first.task, error);
            let together = self.delivery.place_together(rest).map_err(named)?;
            let taken = match together {
                Some(together) => {
                    self.delivery.go_on().map_err(named)?;
                    self.reader.read(shard, together.bytes.start, together.out, way).map_err(named)?;
                    self.delivery.delivered_together(&together).map_err(named)?;
                    together.parts.len()
                }
                None => {
                    let Some(fetched) = fetched(rest).next() else { break };
                    let taken = fetched.parts.len();
                    self.staged(fetched, shard, way)?;
                    taken
                }
            };
            rest = rest.get(taken..).unwrap_or_default();
        }
        Ok(())
    }

    /// Reads parts into staging, and delivers them.
    fn staged(
        &mut self,
        Fetched { parts, bytes }: Fetched<'_>,
        shard: usize,
        way: ReadWay,
    ) -> Result<(), (usize, Error)> {
        let Self { reader, delivery, .. } = self;
        let named = |error| (parts.first().map_or(0, |part| part.task), error);
        delivery.go_on().map_err(named)?;
        let window = reader.window(shard, bytes, way).map_err(named)?;
        parts.iter().try_for_each(|part| delivery.part(part, window, bytes.start).map_err(|error| (part.task, error)))
    }

    /// Bytes that are all one item's.
    fn whole(&mut self, number: usize, mut at: u64, shard: usize, bytes: Extent) -> Result<()> {
        let task = self.task(number)?;
        let way = self.reader.way(shard, bytes)?;
        let straight = !task.converts() && task.transform.is_none();
        let mut left = bytes;
        while !left.is_empty() {
            let now = if task.layout.is_some() {
                self.spread(number, (at, left), shard, way)?
            } else {
                let place = self.delivery.place(task, at, left.len)?;
                if straight {
                    self.straight(shard, left.start, place.out, way)?;
                } else {
                    self.through(number, (at, left.first(place.picked)), shard, place.out, way)?;
                }
                self.delivery.delivered(number, &place.held, at, place.picked)?;
                place.picked
            };
            (at, left) = (at.saturating_add(now), left.after(now));
        }
        Ok(())
    }

    /// Reads bytes of the file to where they go.
    fn straight(&mut self, shard: usize, mut offset: u64, mut out: &mut [u8], way: ReadWay) -> Result<()> {
        while !out.is_empty() {
            self.delivery.go_on()?;
            let now = (out.len() as u64).min(way.straight(&self.budget));
            let (room, later) = out.split_at_mut_checked(count(now)?).ok_or_else(fault)?;
            if self.untouched {
                memory::populate(room);
            }
            self.reader.read(shard, offset, room, way)?;
            (offset, out) = (offset.saturating_add(now), later);
        }
        Ok(())
    }

    /// Reads bytes of the file and fills `out` with what they become.
    fn through(
        &mut self,
        number: usize,
        (mut at, mut left): (u64, Extent),
        shard: usize,
        mut out: &mut [u8],
        way: ReadWay,
    ) -> Result<()> {
        let task = self.task(number)?;
        while !left.is_empty() {
            self.delivery.go_on()?;
            let step = self.reader.step(way);
            let now = left.len.min(match way {
                // As few as there can be; what is cut is cut between elements.
                ReadWay::Called => task.step(left.len, step),
                _ => task.picked_through(step).max(task.grain),
            });
            let (room, later) = out.split_at_mut_checked(size(task, now)?).ok_or_else(fault)?;
            let bytes = self.reader.window(shard, left.first(now), way)?;
            if task.transform.is_some() {
                let mut incoming = Incoming::lying(bytes);
                self.delivery.workspace.fill((number, task), &mut incoming, at, now, room)?;
            } else {
                convert::convert_to(task.from, bytes, task.to, room, self.budget.far)?;
            }
            (at, left, out) = (at.saturating_add(now), left.after(now), later);
        }
        Ok(())
    }

    /// The same for a result with strides, and as much of it as is read at once.
    fn spread(&mut self, number: usize, (at, left): (u64, Extent), shard: usize, way: ReadWay) -> Result<u64> {
        self.delivery.go_on()?;
        let step = self.reader.step(way);
        let now = left.len.min(self.task(number)?.step(left.len, step));
        let bytes = self.reader.window(shard, left.first(now), way)?;
        self.delivery.pieces(number, Incoming::lying(bytes), at, now)?;
        Ok(now)
    }

    /// Puts bytes of an item together run by run.
    fn tile(&mut self, number: usize, at: u64, picked: u64) -> Result<()> {
        let task = self.task(number)?;
        let mut gathered = self.delivery.workspace.gathered.take();
        let result = scratch(&mut gathered, self.budget.scratch).and_then(|room| {
            let room = room.get_mut(..count(picked)?).ok_or_else(fault)?;
            match &task.picks {
                Picks::Several(selection) => {
                    let Self { reader, delivery, max_gap, budget, .. } = self;
                    let mut bytes =
                        TensorBytes::new(task.tensor, reader, delivery, (*max_gap, budget.window as u64, task.run()))?;
                    selection.fetch(at, room, &mut bytes)?;
                }
                Picks::Group(boxes) => {
                    let mut rest = &mut *room;
                    for rect in boxes.rects(at, picked) {
                        let (bytes, later) = rest.split_at_mut_checked(count(boxes.bytes(rect))?).ok_or_else(fault)?;
                        let stride = count(boxes.bytes(Rect { rows: 1, ..rect }))?;
                        self.decode(boxes, rect, &mut RowsInRoom { bytes, stride })?;
                        rest = later;
                    }
                }
                Picks::Piece => return Err(fault()),
            }
            self.delivery.pieces(number, Incoming::lying(room), at, picked)
        });
        self.delivery.workspace.gathered = gathered;
        result
    }

    /// Decodes a rectangle of a group's result.
    fn boxes(&mut self, number: usize, rect: Rect) -> Result<()> {
        let task = self.task(number)?;
        let Picks::Group(boxes) = &task.picks else { return Err(fault()) };
        let (at, len) = (boxes.place(rect.row, rect.column), boxes.bytes(rect));
        if task.is_plain() && self.budget.chunk == 0 {
            // Straight to where the rows go.
            self.decode(boxes, rect, &mut RowsInPlace { boxes, rect, place: task.place })?;
            self.delivery.advance(number, len, len);
            return Ok(());
        }
        let stride = count(boxes.bytes(Rect { rows: 1, ..rect }))?;
        if let Some(slot) = self.delivery.place_whole(task, at, len)? {
            self.decode(boxes, rect, &mut RowsInRoom { bytes: slot.out, stride })?;
            return self.delivery.delivered(number, &slot.held, at, len);
        }
        let mut gathered = self.delivery.workspace.gathered.take();
        let result = scratch(&mut gathered, self.budget.scratch).and_then(|room| {
            let room = room.get_mut(..count(len)?).ok_or_else(fault)?;
            self.decode(boxes, rect, &mut RowsInRoom { bytes: room, stride })?;
            self.delivery.pieces(number, Incoming::lying(room), at, len)
        });
        self.delivery.workspace.gathered = gathered;
        result
    }

    fn decode(&mut self, boxes: &Boxes<'a>, rect: Rect, rows: &mut dyn super::assembly::Rows) -> Result<()> {
        let Self { checkpoint, reader, delivery, max_gap, budget, rooms, .. } = self;
        boxes.fill(rect, rows, &mut |spans, rows| {
            let wanted = boxes.group.boxes(spans)?;
            let window = budget.window as u64;
            let bytes = members(checkpoint, &wanted, reader, delivery, (*max_gap, window), rooms)?;
            boxes.group.decode(spans, &bytes, boxes.to, rows)
        })
    }
}
