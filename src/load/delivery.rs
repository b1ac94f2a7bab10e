// SPDX-License-Identifier: Apache-2.0
//! All of a thread's work but reading: bytes are put together, converted and
//! transformed, and go to the caller's memory or a sink's buffers.
#![forbid(unsafe_code)]

use super::budget::Budget;
use super::host::Host;
use super::plan::Part;
use super::reader::fault;
use super::shared::{stopped, Full, Holds, Shared};
use super::target::scratch;
use super::task::{Picks, Task};
use crate::base::memory::{self, Aligned};
use crate::convert;
use crate::error::{Error, Result};
use crate::format::slice::Selection;
use crate::record::st_piece;

pub(super) struct Delivery<'a, 's, 'h> {
    pub(super) tasks: &'a [Task<'a>],
    pub(super) shared: &'s Shared<'a>,
    /// On the caller's own thread.
    pub(super) host: Option<&'s mut Host<'h>>,
    pub(super) desk: Desk,
    /// The sink's buffer that takes many items, while it is being filled.
    laying: Option<Laying>,
}

/// Where a thread puts bytes together; each is had once it is wanted.
pub(super) struct Desk {
    budget: Budget,
    /// Bytes of an item as the file has them, without what lay between.
    pub(super) gathered: Option<Aligned>,
    /// Bytes of a result before they are spread or transformed.
    pub(super) converted: Option<Aligned>,
}

/// What is in a sink's buffer so far.
struct Laying {
    buffer: usize,
    used: u64,
    bytes: u64,
    pieces: Vec<st_piece>,
}

/// What pieces begin at in a buffer.
const PIECE_ALIGNMENT: u64 = 16;

/// Where the next bytes of a result go.
pub(super) struct Place<'a> {
    pub(super) out: &'a mut [u8],
    /// Bytes of the item that they come from.
    pub(super) picked: u64,
    pub(super) held: Held,
}

/// Who holds a place.
pub(super) enum Held {
    /// The caller: it is where the item goes.
    Item,
    /// The sink, in the buffer of this number.
    Chunk(usize),
    /// The buffer that is being filled, from this byte on.
    Piece(u64),
}

impl<'a, 's, 'h> Delivery<'a, 's, 'h> {
    pub(super) fn new(
        tasks: &'a [Task<'a>],
        budget: Budget,
        shared: &'s Shared<'a>,
        host: Option<&'s mut Host<'h>>,
    ) -> Self {
        let desk = Desk { budget, gathered: None, converted: None };
        Self { tasks, shared, host, desk, laying: None }
    }

    /// Before each read: whether the load goes on, and the callbacks if they wait.
    pub(super) fn go_on(&mut self) -> Result<()> {
        if self.shared.stopped() {
            return Err(stopped());
        }
        if self.host.as_ref().is_some_and(|host| host.is_due()) {
            if let Err(error) = self.serve() {
                // Not the fault of the item that is being read.
                self.shared.fail(0, error);
                return Err(stopped());
            }
        }
        Ok(())
    }

    /// Between two requests.
    pub(super) fn serve(&mut self) -> Result<()> {
        self.host.as_mut().map_or(Ok(()), |host| self.shared.serve(host))
    }

    /// Room for the result of up to `left` bytes of a dense item from `at` on.
    pub(super) fn place(&mut self, task: &Task<'a>, at: u64, left: u64) -> Result<Place<'a>> {
        let Budget { chunk, pieces, .. } = self.desk.budget;
        let result = task.result_of(left).ok_or_else(fault)?;
        if chunk == 0 || result == 0 {
            let start = task.result_of(at).ok_or_else(fault)?;
            let out: &mut [u8] = if result == 0 { &mut [] } else { task.place.dense(start, size(task, left)?)? };
            return Ok(Place { out, picked: left, held: Held::Item });
        }
        if !pieces {
            let buffer = self.shared.acquire(&mut self.host)?;
            let picked = if result <= chunk { left } else { left.min(task.picked_within(chunk)) };
            let out = self.shared.buffer(buffer).dense(0, size(task, picked)?)?;
            return Ok(Place { out, picked, held: Held::Chunk(buffer) });
        }
        loop {
            let laying = match &self.laying {
                Some(laying) => laying,
                None => {
                    let buffer = self.shared.acquire(&mut self.host)?;
                    self.shared.hold();
                    self.laying.insert(Laying { buffer, used: 0, bytes: 0, pieces: Vec::new() })
                }
            };
            let memory = self.shared.buffer(laying.buffer);
            let start = laying.used.next_multiple_of(PIECE_ALIGNMENT);
            let room = (memory.len() as u64).saturating_sub(start);
            let picked = if result <= room { left } else { left.min(task.picked_within(room)) };
            if picked != 0 {
                let out = memory.dense(start, size(task, picked)?)?;
                return Ok(Place { out, picked, held: Held::Piece(start) });
            }
            if laying.used == 0 {
                return Err(fault());
            }
            self.flush();
        }
    }

    /// What was placed is complete: a sink's full buffer goes on to the sink.
    pub(super) fn delivered(&mut self, item: usize, held: &Held, at: u64, picked: u64) -> Result<()> {
        let task = self.tasks.get(item).ok_or_else(fault)?;
        let (offset, len) = (task.result_of(at).ok_or_else(fault)?, task.result_of(picked).ok_or_else(fault)?);
        match held {
            Held::Item => self.shared.advance(item, picked, len),
            Held::Chunk(buffer) => {
                self.shared.submit(Full { buffer: *buffer, bytes: len, holds: Holds::Chunk { item, offset } });
            }
            Held::Piece(start) => {
                let laying = self.laying.as_mut().ok_or_else(fault)?;
                memory::reserve(&mut laying.pieces, 1, "the pieces in a buffer")?;
                laying.pieces.push(st_piece {
                    item,
                    item_offset: offset,
                    buffer_offset: count(*start)?,
                    size: count(len)?,
                    reserved: [0; 2],
                });
                laying.used = start.saturating_add(len);
                laying.bytes = laying.bytes.saturating_add(len);
            }
        }
        Ok(())
    }

    /// A buffer that was being filled goes to the sink as it is.
    pub(super) fn flush(&mut self) {
        if let Some(Laying { buffer, bytes, pieces, .. }) = self.laying.take() {
            if !pieces.is_empty() {
                self.shared.submit(Full { buffer, bytes, holds: Holds::Pieces(pieces) });
            }
            self.shared.let_go();
        }
    }

    /// Delivers one part of what was read from `offset` on.
    pub(super) fn part(&mut self, part: &Part, window: &[u8], offset: u64) -> Result<()> {
        let task = self.tasks.get(part.task).ok_or_else(fault)?;
        let start = count(part.offset.saturating_sub(offset))?;
        let bytes = window.get(start..).and_then(|bytes| bytes.get(..count(part.size).ok()?)).ok_or_else(fault)?;
        let start = part.offset.saturating_sub(task.tensor.offset());
        let selection = match &task.picks {
            Picks::Several(selection) if !part.dense => Some((&**selection, part.at)),
            _ => None,
        };
        self.pieces(part.task, Feed { bytes, start, selection }, part.at, part.picked)
    }

    /// Delivers `left` bytes of an item from its byte `at` on, as much at once as there is room for.
    pub(super) fn pieces(&mut self, number: usize, mut feed: Feed<'_>, mut at: u64, mut left: u64) -> Result<()> {
        let task = self.tasks.get(number).ok_or_else(fault)?;
        while left != 0 {
            let now = match &task.layout {
                Some(layout) => {
                    let lies = feed.selection.is_none() && !task.converts();
                    let now = if lies { left } else { left.min(self.desk.most(task)) };
                    let result = self.desk.result(task, &mut feed, count(now)?)?;
                    task.place.scatter(layout, task.result_of(at).ok_or_else(fault)?, result)?;
                    self.shared.advance(number, now, result.len() as u64);
                    now
                }
                None => {
                    let place = self.place(task, at, left.min(MOST_AT_ONCE.max(task.grain)))?;
                    self.desk.fill((number, task), &mut feed, at, place.picked, place.out)?;
                    self.delivered(number, &place.held, at, place.picked)?;
                    place.picked
                }
            };
            (at, left) = (at.saturating_add(now), left.saturating_sub(now));
            if left != 0 && self.shared.stopped() {
                return Err(stopped());
            }
        }
        Ok(())
    }
}

impl Drop for Delivery<'_, '_, '_> {
    /// What a failed load had in a buffer is nobody's.
    fn drop(&mut self) {
        if self.laying.take().is_some() {
            self.shared.let_go();
        }
    }
}

/// Zeros may go on without end; a load that is cancelled ends within some ms.
const MOST_AT_ONCE: u64 = 6 << 20;

/// Bytes of an item in a window, in the result's order.
pub(super) struct Feed<'w> {
    bytes: &'w [u8],
    /// Where they begin, from the tensor's first byte.
    start: u64,
    /// What is picked of them, and the next byte of its result; none: all of them.
    selection: Option<(&'w Selection, u64)>,
}

impl<'w> Feed<'w> {
    /// Bytes that are all picked.
    pub(super) fn lying(bytes: &'w [u8]) -> Self {
        Self { bytes, start: 0, selection: None }
    }

    fn copy(&mut self, out: &mut [u8], far: bool) -> Result<()> {
        match &mut self.selection {
            Some((selection, at)) => {
                selection.copy(*at, out, self.bytes, self.start, far).ok_or_else(fault)?;
                *at = at.saturating_add(out.len() as u64);
                Ok(())
            }
            None if far => convert::copy_far(self.take(out.len())?, out),
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
    fn next<'d>(&mut self, len: usize, room: &'d mut Option<Aligned>, most: usize, aligned: bool) -> Result<&'d [u8]>
    where
        'w: 'd,
    {
        let lies = self.selection.is_none();
        if lies && (!aligned || self.bytes.as_ptr().align_offset(Aligned::ALIGNMENT) == 0) {
            return self.take(len);
        }
        let room = scratch(room, most)?.get_mut(..len).ok_or_else(fault)?;
        self.copy(room, false)?;
        Ok(room)
    }
}

impl Desk {
    /// Most bytes of an item that can be put together at once.
    fn most(&self, task: &Task<'_>) -> u64 {
        task.picked_through(self.budget.scratch as u64).max(task.grain.min(self.budget.scratch as u64)).max(1)
    }

    /// Fills `out` with what the next `len` bytes, from the item's byte `at` on, become.
    pub(super) fn fill(
        &mut self,
        (number, task): (usize, &Task<'_>),
        feed: &mut Feed<'_>,
        mut at: u64,
        len: u64,
        mut out: &mut [u8],
    ) -> Result<()> {
        if !task.converts() && task.transform.is_none() {
            return feed.copy(out, self.budget.far);
        }
        let mut left = len;
        while left != 0 {
            // What lies in one piece is converted from there.
            let lies = task.transform.is_none() && feed.selection.is_none();
            let now = if lies { left } else { left.min(self.most(task)) };
            let (room, later) = out.split_at_mut_checked(size(task, now)?).ok_or_else(fault)?;
            match task.transform {
                None => {
                    let bytes = feed.next(count(now)?, &mut self.gathered, self.budget.scratch, false)?;
                    convert::convert_to(task.from, bytes, task.to, room, self.budget.far)?;
                }
                Some(transform) => {
                    let element = task.elements_of(at);
                    let src = self.source(task, feed, count(now)?)?;
                    let elements = count(task.elements_of(now))?;
                    let done = transform.step.run(number, element, elements, src, room);
                    done.map_err(|error| {
                        let text = format!(
                            "transform of {elements} elements from {element} on: {}",
                            error.message(usize::MAX)
                        );
                        Error::new(error.kind(), text).with_errno(error.os_errno())
                    })?;
                }
            }
            (at, left, out) = (at.saturating_add(now), left.saturating_sub(now), later);
        }
        Ok(())
    }

    /// The next `len` bytes, converted, where a transform can have them.
    fn source<'d, 'w: 'd>(&'d mut self, task: &Task<'_>, feed: &mut Feed<'w>, len: usize) -> Result<&'d [u8]> {
        match task.converts() {
            true => self.result(task, feed, len),
            false => feed.next(len, &mut self.gathered, self.budget.scratch, true),
        }
    }

    /// What the next `len` bytes become, here or where they are.
    fn result<'d, 'w: 'd>(&'d mut self, task: &Task<'_>, feed: &mut Feed<'w>, len: usize) -> Result<&'d [u8]> {
        let Self { budget, gathered, converted } = self;
        let bytes = feed.next(len, gathered, budget.scratch, false)?;
        if !task.converts() {
            return Ok(bytes);
        }
        let size = count(task.converted(bytes.len() as u64).ok_or_else(fault)?)?;
        let room = scratch(converted, budget.scratch)?.get_mut(..size).ok_or_else(fault)?;
        convert::convert_to(task.from, bytes, task.to, room, false)?;
        Ok(room)
    }
}

/// Bytes of the result of so many bytes in the file.
pub(super) fn size(task: &Task<'_>, picked: u64) -> Result<usize> {
    count(task.result_of(picked).ok_or_else(fault)?)
}

pub(super) fn count(bytes: u64) -> Result<usize> {
    usize::try_from(bytes).map_err(|_| fault())
}
