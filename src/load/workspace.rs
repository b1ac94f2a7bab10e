// SPDX-License-Identifier: Apache-2.0
//! Where a thread puts bytes together, converts and transforms them.
#![forbid(unsafe_code)]

use super::budget::MemoryBudget;
use super::destination::scratch;
use super::errors::fault;
use super::task::Task;
use crate::base::memory::Aligned;
use crate::convert;
use crate::error::{Error, Result};
use crate::format::slice::Selection;

/// Where a thread puts bytes together; each is had once it is wanted.
pub(super) struct Workspace {
    pub(super) budget: MemoryBudget,
    /// Bytes of an item as the file has them, without what lay between.
    pub(super) gathered: Option<Aligned>,
    /// Bytes of a result before they are spread or transformed.
    pub(super) converted: Option<Aligned>,
}

/// Bytes of an item in a window, in the result's order.
pub(super) struct Incoming<'w> {
    pub(super) bytes: &'w [u8],
    /// Where they begin, from the tensor's first byte.
    pub(super) start: u64,
    /// What is picked of them, and the next byte of its result; none: all of them.
    pub(super) selection: Option<(&'w Selection, u64)>,
}

impl<'w> Incoming<'w> {
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

impl Workspace {
    pub(super) fn new(budget: MemoryBudget) -> Self {
        Self { budget, gathered: None, converted: None }
    }

    /// Most bytes of an item that can be put together at once.
    pub(super) fn most(&self, task: &Task<'_>) -> u64 {
        task.picked_through(self.budget.scratch as u64).max(task.grain.min(self.budget.scratch as u64)).max(1)
    }

    /// Fills `out` with what the next `len` bytes, from the item's byte `at` on, become.
    pub(super) fn fill(
        &mut self,
        (number, task): (usize, &Task<'_>),
        incoming: &mut Incoming<'_>,
        mut at: u64,
        len: u64,
        mut out: &mut [u8],
    ) -> Result<()> {
        if !task.converts() && task.transform.is_none() {
            return incoming.copy(out, self.budget.far);
        }
        let mut left = len;
        while left != 0 {
            // What lies in one piece is converted from there.
            let lies = task.transform.is_none() && incoming.selection.is_none();
            let now = if lies { left } else { left.min(self.most(task)) };
            let (room, later) = out.split_at_mut_checked(size(task, now)?).ok_or_else(fault)?;
            match task.transform {
                None => {
                    let bytes = incoming.next(count(now)?, &mut self.gathered, self.budget.scratch, false)?;
                    convert::convert_to(task.from, bytes, task.to, room, self.budget.far)?;
                }
                Some(transform) => {
                    let element = task.elements_of(at);
                    let src = self.source(task, incoming, count(now)?)?;
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
    fn source<'d, 'w: 'd>(&'d mut self, task: &Task<'_>, incoming: &mut Incoming<'w>, len: usize) -> Result<&'d [u8]> {
        match task.converts() {
            true => self.result(task, incoming, len),
            false => incoming.next(len, &mut self.gathered, self.budget.scratch, true),
        }
    }

    /// What the next `len` bytes become, here or where they are.
    pub(super) fn result<'d, 'w: 'd>(
        &'d mut self,
        task: &Task<'_>,
        incoming: &mut Incoming<'w>,
        len: usize,
    ) -> Result<&'d [u8]> {
        let Self { budget, gathered, converted } = self;
        let bytes = incoming.next(len, gathered, budget.scratch, false)?;
        if !task.converts() {
            return Ok(bytes);
        }
        let size = count(task.converted(bytes.len() as u64).ok_or_else(fault)?)?;
        let room = scratch(converted, budget.scratch)?.get_mut(..size).ok_or_else(fault)?;
        convert::convert_to(task.from, bytes, task.to, room, false)?;
        Ok(room)
    }
}

/// Bytes of the result that these bytes of the file become.
pub(super) fn size(task: &Task<'_>, picked: u64) -> Result<usize> {
    count(task.result_of(picked).ok_or_else(fault)?)
}

pub(super) fn count(bytes: u64) -> Result<usize> {
    usize::try_from(bytes).map_err(|_| fault())
}
