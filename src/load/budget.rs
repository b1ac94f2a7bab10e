// SPDX-License-Identifier: Apache-2.0
//! How much memory each thread of a load has, and how many threads that leaves.
#![forbid(unsafe_code)]

use super::errors::fault;
use super::task::Task;
use crate::error::{Error, ErrorKind, Result};
use crate::source;

/// What staging buffers are multiples of.
pub(super) const BLOCK: u64 = source::BLOCK as u64;
pub(super) const DEFAULT_STAGING: u64 = 16 << 20;
/// The least that makes reads of a useful size.
const LEAST_STAGING: u64 = 64 << 10;
/// A thread has no use for more.
const MOST_STAGING: u64 = 4 << 20;
/// Where bytes are put together, more does not help.
const MOST_SCRATCH: u64 = 1 << 20;
/// Where larger requests are cut while they are read, so that a load that has
/// been cancelled ends soon.
pub(super) const STRAIGHT: u64 = 8 << 20;

/// Where they are cut for a sink: the thread that called sees to it in between.
pub(super) const STRAIGHT_TO_SINK: u64 = 1 << 20;

/// The memory that one thread has, and a sink's buffers.
#[derive(Clone, Copy)]
pub(super) struct MemoryBudget {
    /// Bytes of what files are read into.
    pub(super) window: usize,
    /// Bytes of each place where bytes are put together, and how many a thread has.
    pub(super) scratch: usize,
    pub(super) scratches: usize,
    /// How many threads have such memory at once; where that is fewer than there
    /// are (`shared`), it goes from one to the next.
    pub(super) sets: usize,
    pub(super) shared: bool,
    /// Bytes of a sink's smallest buffer; 0: no sink.
    pub(super) chunk: u64,
    /// Many items in one of the sink's buffers.
    pub(super) pieces: bool,
    /// Most bytes of a read straight to where they go, if nothing waits for it.
    pub(super) straight: u64,
    /// Results are too many for the caches, where each piece is converted to.
    pub(super) far: bool,
}

impl MemoryBudget {
    /// For a source where each read is a journey. Only what can't go straight to its
    /// place needs memory, so that there may be more threads than sets; and a set
    /// has no more than its tasks put to use, so that as many requests as possible
    /// are under way at once.
    ///
    /// # Errors
    /// `InvalidArgument` for too little staging, `BufferSize` where a transform's unit does not fit.
    pub(super) fn of_journeys(tasks: &[Task<'_>], staging: u64, preferred: u64, threads: usize) -> Result<Self> {
        let staging = checked(staging)?;
        let scratches = scratches(tasks);
        let scratch = if scratches == 0 { 0 } else { (staging / 8).min(MOST_SCRATCH).max(unit_of(tasks)) };
        if scratch > staging / 4 {
            return Err(unit_too_large(tasks, staging));
        }
        let put_together = scratch.saturating_mul(scratches as u64);
        // What can't be cut is read into one window, however little is preferred.
        let window = preferred.max(unit_of(tasks)).max(24).min(staging.saturating_sub(put_together));
        let set = window.saturating_add(put_together).max(1);
        let sets = size(staging.checked_div(set).unwrap_or(1)).clamp(1, threads);
        Ok(Self { window: size(window), scratch: size(scratch), scratches, sets, shared: sets < threads, ..Self::NONE })
    }

    /// Where threads read files: each has a set of its own.
    ///
    /// # Errors
    /// As for [`MemoryBudget::of_journeys`].
    pub(super) fn of_files(tasks: &[Task<'_>], staging: u64, threads: usize) -> Result<Self> {
        let (staging, unit) = (checked(staging)?, unit_of(tasks));
        let least = unit.saturating_mul(4).max(LEAST_STAGING);
        if unit > staging / 4 {
            return Err(unit_too_large(tasks, staging));
        }
        let affordable = size(staging.checked_div(least).unwrap_or(1));
        let sets = threads.min(affordable).max(1);
        let share = staging.checked_div(sets as u64).unwrap_or(staging).min(MOST_STAGING.max(least));
        let scratch = blocks(share / 4).max(size(unit));
        Ok(Self { window: blocks(share / 2), scratch, scratches: scratches(tasks), sets, ..Self::NONE })
    }

    const NONE: Self = Self {
        window: 0,
        scratch: 0,
        scratches: 0,
        sets: 1,
        shared: false,
        chunk: 0,
        pieces: false,
        straight: STRAIGHT,
        far: false,
    };

    /// Most bytes of memory that all threads take.
    pub(super) fn total(&self) -> u64 {
        let set = self.scratch.saturating_mul(self.scratches).saturating_add(self.window);
        (set as u64).saturating_mul(self.sets as u64)
    }
}

fn checked(staging: u64) -> Result<u64> {
    match staging {
        0 => Ok(DEFAULT_STAGING),
        given if given < LEAST_STAGING => {
            let text = format!("staging_bytes is {given}; expected 0, or {LEAST_STAGING} or more");
            Err(Error::new(ErrorKind::InvalidArgument, text))
        }
        given => Ok(given),
    }
}

/// How many places where bytes are put together the neediest task takes.
fn scratches(tasks: &[Task<'_>]) -> usize {
    tasks.iter().map(Task::scratches).max().unwrap_or(0)
}

/// The largest piece that a transform has to be given at once.
fn unit_of(tasks: &[Task<'_>]) -> u64 {
    tasks.iter().map(unit).max().unwrap_or(0)
}

/// The same of one task; 0 where there is no transform.
fn unit(task: &Task<'_>) -> u64 {
    let stored = task.grain.min(task.picked);
    let unit = stored.max(task.converted(stored).unwrap_or(u64::MAX));
    task.transform.map_or(0, |_| unit)
}

#[cold]
fn unit_too_large(tasks: &[Task<'_>], staging: u64) -> Error {
    let Some((number, task)) = tasks.iter().enumerate().max_by_key(|(_, task)| unit(task)) else { return fault() };
    let text = format!(
        "a transform's unit of {} bytes does not fit into staging: staging_bytes is {staging}, and a quarter of it \
         is for a unit",
        unit(task)
    );
    Error::tensor(ErrorKind::BufferSize, task.name(), text).after(&format!("item {number}: "))
}

/// Whole blocks of at most that many bytes.
pub(super) fn blocks(bytes: u64) -> usize {
    size(bytes / BLOCK).saturating_mul(source::BLOCK)
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
