// SPDX-License-Identifier: Apache-2.0
//! The items of a load in the order of their bytes in the files, and how large and by
//! what means their requests are.
#![forbid(unsafe_code)]

use super::request::Means;
use super::task::{Picks, Task};
use crate::base::{memory, sort};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::source::scatter::CallCosts;
use crate::source::Source;

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

impl Sizes {
    /// What one request with gaps may have.
    pub(super) fn window_of(&self, source: &Source) -> u64 {
        source.preferred_request().unwrap_or(u64::MAX).min(self.window)
    }

    /// Whether bytes are taken out of the mapping.
    pub(super) fn is_mapped(&self, source: &Source) -> bool {
        self.mapped && source.mapped().is_some()
    }

    /// The widest gap between runs of that many bytes that is read over.
    pub(super) fn widest_gap(&self, source: &Source, run: u64) -> u64 {
        match self.max_gap {
            _ if self.is_mapped(source) => u64::MAX,
            0 => source.widest_gap(run),
            given => given,
        }
    }
}

/// The items of a load in the files' order.
pub(super) struct Order<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) tasks: &'a [Task<'a>],
    pub(super) sizes: Sizes,
    places: Vec<[u64; 3]>,
}

/// Where an item begins.
#[derive(Clone, Copy)]
pub(super) struct Placed {
    pub(super) shard: usize,
    pub(super) start: u64,
    pub(super) task: usize,
}

impl<'a> Order<'a> {
    pub(super) fn new(checkpoint: &'a Checkpoint, tasks: &'a [Task<'a>], sizes: Sizes) -> Result<Self> {
        let mut places = memory::vec_with_capacity(tasks.len(), "the order of a load")?;
        for (task, number) in tasks.iter().zip(0_u64..).filter(|(task, _)| task.picked != 0) {
            places.push([task.shard as u64, task.start, number]);
        }
        sort::rows(&mut places);
        Ok(Self { checkpoint, tasks, sizes, places })
    }

    /// The item at this place in the order.
    pub(super) fn get(&self, place: usize) -> Option<Placed> {
        let [shard, start, task] = *self.places.get(place)?;
        let size = |number| usize::try_from(number).unwrap_or(usize::MAX);
        Some(Placed { shard: size(shard), start, task: size(task) })
    }

    pub(super) fn task(&self, number: usize) -> Result<&'a Task<'a>> {
        self.tasks.get(number).ok_or_else(|| Error::new(ErrorKind::Internal, "a plan without a task"))
    }

    /// How bytes of a task come to where they go, and whether they do as it is alone.
    pub(super) fn means(&self, task: &Task<'_>) -> Result<Means> {
        let (least, gap) = match &task.picks {
            Picks::Piece => (0, 0),
            Picks::Several(selection) => (selection.least_gap(), selection.gap()),
            Picks::Group(_) => return Ok(Means::Staging),
        };
        let run = task.run();
        let source = self.checkpoint.source(task.shard)?;
        if !self.sizes.scatter || !task.is_plain() || !source.scatters() || self.sizes.is_mapped(source) {
            return Ok(Means::Staging);
        }
        let widest = self.sizes.widest_gap(source, run);
        let large = run >= CallCosts::of_this_machine().places_from();
        Ok(match gap > widest {
            // What takes a call of its own is as well read to its place.
            true if large || least > widest => Means::Runs,
            false if large => Means::Either,
            _ => Means::Staging,
        })
    }
}
