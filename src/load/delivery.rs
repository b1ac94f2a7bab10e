// SPDX-License-Identifier: Apache-2.0
//! Where results go: a thread's bytes, once they are read, to the caller's memory or a
//! sink's buffers.
#![forbid(unsafe_code)]

use std::sync::atomic::Ordering;

use super::budget::MemoryBudget;
use super::callbacks::Callbacks;
use super::destination::Memory;
use super::errors::{fault, stopped};
use super::request::ItemPart;
use super::shared::{Full, Holds, LoadState};
use super::task::{Picks, Task};
use super::workspace::{count, size, Incoming, Workspace};
use crate::base::extent::Extent;
use crate::base::memory;
use crate::error::Result;
use crate::record::st_piece;

pub(super) struct Delivery<'a, 's, 'h> {
    pub(super) tasks: &'a [Task<'a>],
    pub(super) shared: &'s LoadState<'a>,
    /// On the caller's own thread.
    pub(super) callbacks: Option<&'s mut Callbacks<'h>>,
    pub(super) workspace: Workspace,
    /// Bytes of results that are in place, but not in the load's count of them.
    uncounted: u64,
    /// The sink's buffer that takes many items, while it is being filled.
    laying: Option<Laying>,
}

/// What is in a sink's buffer so far.
struct Laying {
    buffer: usize,
    used: u64,
    bytes: u64,
    pieces: Vec<st_piece>,
}

/// Fewer bytes wait for the end of their request before they are counted: small pieces are
/// copied in less time than a number takes that all threads write.
const COUNTED_FROM: u64 = 64 << 10;

/// Copying less takes no longer than a system call.
const WORTH_A_READ: u64 = 64 << 10;

/// What pieces begin at in a buffer.
const PIECE_ALIGNMENT: u64 = 16;

/// Where the next bytes of a result go.
pub(super) struct Slot<'a> {
    pub(super) out: &'a mut [u8],
    /// Bytes of the item that they come from.
    pub(super) picked: u64,
    pub(super) held: SlotOwner,
}

/// Parts that lie in a sink's buffer as they do in the file.
pub(super) struct Together<'a, 'p> {
    pub(super) parts: &'p [ItemPart],
    /// Where they lie in the file.
    pub(super) bytes: Extent,
    pub(super) out: &'a mut [u8],
    /// Where in the buffer they begin.
    start: u64,
}

/// Who holds a place.
pub(super) enum SlotOwner {
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
        budget: MemoryBudget,
        shared: &'s LoadState<'a>,
        callbacks: Option<&'s mut Callbacks<'h>>,
    ) -> Self {
        let workspace = Workspace::new(budget);
        Self { tasks, shared, callbacks, workspace, uncounted: 0, laying: None }
    }

    /// Before each read: whether the load goes on, and the callbacks if they wait.
    pub(super) fn go_on(&mut self) -> Result<()> {
        if self.shared.stopped() {
            return Err(stopped());
        }
        let short = || self.workspace.budget.chunk != 0 && self.shared.is_short_of_buffers();
        if self.callbacks.as_ref().is_some_and(|callbacks| callbacks.is_due() || short()) {
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
        self.count();
        self.callbacks.as_mut().map_or(Ok(()), |callbacks| self.shared.serve(callbacks))
    }

    /// So many bytes more of an item are where they belong.
    pub(super) fn advance(&mut self, item: usize, picked: u64, result: u64) {
        self.uncounted = self.uncounted.saturating_add(result);
        if self.uncounted >= COUNTED_FROM {
            self.count();
        }
        self.shared.advance(item, picked);
    }

    fn count(&mut self) {
        self.shared.done.fetch_add(std::mem::take(&mut self.uncounted), Ordering::Relaxed);
    }

    /// Room for the result of up to `left` bytes of a dense item from `at` on.
    // Inline: a result that comes by way of memory waits until the copy of the piece before has got there.
    #[inline(always)]
    pub(super) fn place(&mut self, task: &Task<'a>, at: u64, left: u64) -> Result<Slot<'a>> {
        let result = task.result_of(left).ok_or_else(fault)?;
        if self.workspace.budget.chunk != 0 && result != 0 {
            return self.place_in_buffer(task, left, result);
        }
        let start = task.result_of(at).ok_or_else(fault)?;
        let out: &mut [u8] = if result == 0 { &mut [] } else { task.place.dense(start, count(result)?)? };
        Ok(Slot { out, picked: left, held: SlotOwner::Item })
    }

    /// Room in a sink's buffer, for as many of those bytes as it has room for.
    fn place_in_buffer(&mut self, task: &Task<'a>, left: u64, result: u64) -> Result<Slot<'a>> {
        let MemoryBudget { chunk, pieces, .. } = self.workspace.budget;
        if !pieces {
            let buffer = self.shared.acquire(&mut self.callbacks)?;
            let picked = if result <= chunk { left } else { left.min(task.picked_within(chunk)) };
            let out = self.shared.buffer(buffer).dense(0, size(task, picked)?)?;
            return Ok(Slot { out, picked, held: SlotOwner::Chunk(buffer) });
        }
        loop {
            let (memory, start, room) = self.laying()?;
            let picked = if result <= room { left } else { left.min(task.picked_within(room)) };
            if picked != 0 {
                let out = memory.dense(start, size(task, picked)?)?;
                return Ok(Slot { out, picked, held: SlotOwner::Piece(start) });
            }
            if start == 0 {
                return Err(fault());
            }
            self.flush();
        }
    }

    /// The sink's buffer that takes many items, where its next piece begins, and the room from there on.
    fn laying(&mut self) -> Result<(Memory<'a>, u64, u64)> {
        let laying = match &self.laying {
            Some(laying) => laying,
            None => {
                let buffer = self.shared.acquire(&mut self.callbacks)?;
                self.shared.hold();
                self.laying.insert(Laying { buffer, used: 0, bytes: 0, pieces: Vec::new() })
            }
        };
        let memory = self.shared.buffer(laying.buffer);
        let start = laying.used.next_multiple_of(PIECE_ALIGNMENT);
        Ok((memory, start, (memory.len() as u64).saturating_sub(start)))
    }

    /// The first of these parts that may lie in the sink's buffer as they do in the file, one right
    /// after the other, and room for them there. `None` where one read of all takes more time than
    /// staging: the kernel is slow where neither the address nor how far it is from the offset in
    /// the file is a multiple of 64.
    pub(super) fn place_together<'p>(&mut self, parts: &'p [ItemPart]) -> Result<Option<Together<'a, 'p>>> {
        if !self.workspace.budget.pieces {
            return Ok(None);
        }
        let (memory, start, room) = self.laying()?;
        let mut bytes = Extent::new(parts.first().map_or(0, |part| part.bytes.start), 0);
        let address = (memory.start() as u64).wrapping_add(start);
        let aligned = address.is_multiple_of(64) || address.abs_diff(bytes.start).is_multiple_of(64);
        if room < WORTH_A_READ || !aligned {
            return Ok(None);
        }
        let fits = |part: &&ItemPart| {
            let both = bytes.and(part.bytes);
            let follows = part.bytes.start == bytes.end() && bytes.len.is_multiple_of(PIECE_ALIGNMENT);
            let plain = part.dense && self.tasks.get(part.task).is_some_and(Task::is_plain);
            let fits = follows && plain && both.len <= room;
            bytes = if fits { both } else { bytes };
            fits
        };
        let parts = parts.get(..parts.iter().take_while(fits).count()).unwrap_or_default();
        if bytes.len < WORTH_A_READ {
            return Ok(None);
        }
        Ok(Some(Together { parts, bytes, out: memory.dense(start, count(bytes.len)?)?, start }))
    }

    /// They have been read.
    pub(super) fn delivered_together(&mut self, together: &Together<'_, '_>) -> Result<()> {
        for part in together.parts {
            let start = together.start.saturating_add(part.bytes.start.saturating_sub(together.bytes.start));
            self.delivered(part.task, &SlotOwner::Piece(start), part.at, part.picked)?;
        }
        Ok(())
    }

    /// Room for all of that at once, in the sink's buffer at hand or the next; `None` where it
    /// has to be cut, or changes on its way.
    pub(super) fn place_whole(&mut self, task: &Task<'a>, at: u64, len: u64) -> Result<Option<Slot<'a>>> {
        let left = |laying: &Laying| {
            let size = self.shared.buffer(laying.buffer).len() as u64;
            size.saturating_sub(laying.used.next_multiple_of(PIECE_ALIGNMENT))
        };
        let room = self.laying.as_ref().map_or(self.workspace.budget.chunk, left);
        if !task.is_plain() || len > room {
            return Ok(None);
        }
        self.place(task, at, len).map(Some)
    }

    /// What was placed is complete: a sink's full buffer goes on to the sink.
    pub(super) fn delivered(&mut self, item: usize, held: &SlotOwner, at: u64, picked: u64) -> Result<()> {
        let task = self.tasks.get(item).ok_or_else(fault)?;
        let (offset, len) = (task.result_of(at).ok_or_else(fault)?, task.result_of(picked).ok_or_else(fault)?);
        match held {
            SlotOwner::Item => self.advance(item, picked, len),
            SlotOwner::Chunk(buffer) => {
                self.shared.submit(Full { buffer: *buffer, bytes: len, holds: Holds::Chunk { item, offset } });
            }
            SlotOwner::Piece(start) => {
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
    pub(super) fn part(&mut self, part: &ItemPart, window: &[u8], offset: u64) -> Result<()> {
        let task = self.tasks.get(part.task).ok_or_else(fault)?;
        let start = count(part.bytes.start.saturating_sub(offset))?;
        let bytes = window.get(start..).and_then(|bytes| bytes.get(..count(part.bytes.len).ok()?)).ok_or_else(fault)?;
        let start = part.bytes.start.saturating_sub(task.tensor.offset());
        let selection = match &task.picks {
            Picks::Several(selection) if !part.dense => Some((&**selection, part.at)),
            _ => None,
        };
        self.pieces(part.task, Incoming { bytes, start, selection }, part.at, part.picked)
    }

    /// Delivers `left` bytes of an item from its byte `at` on, as much at once as there is room for.
    pub(super) fn pieces(
        &mut self,
        number: usize,
        mut incoming: Incoming<'_>,
        mut at: u64,
        mut left: u64,
    ) -> Result<()> {
        let task = self.tasks.get(number).ok_or_else(fault)?;
        while left != 0 {
            let now = match &task.layout {
                Some(layout) => {
                    let lies = incoming.selection.is_none() && !task.converts();
                    let now = if lies { left } else { left.min(self.workspace.most(task)) };
                    let result = self.workspace.result(task, &mut incoming, count(now)?)?;
                    task.place.scatter(layout, task.result_of(at).ok_or_else(fault)?, result)?;
                    let len = result.len() as u64;
                    self.advance(number, now, len);
                    now
                }
                None => {
                    let place = self.place(task, at, left.min(MOST_AT_ONCE.max(task.grain)))?;
                    self.workspace.fill((number, task), &mut incoming, at, place.picked, place.out)?;
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
