// SPDX-License-Identifier: Apache-2.0
//! A load whose items, options and buffers have been checked: how it will go.
#![forbid(unsafe_code)]

use super::budget::{MemoryBudget, BLOCK};
use super::caller::Buffers;
use super::destination::Memory;
use super::options::{Io, LoadOptions};
use super::order::{Order, Sizes};
use super::overlap;
use super::plan::Plan;
use super::reader::{self, Reader};
use super::request::WORTH_A_HAND_OVER;
use super::shared::LoadState;
use super::task::Task;
use crate::base::extent::Extent;
use crate::base::{memory, parallel, sort};
use crate::checkpoint::Checkpoint;
use crate::convert;
use crate::error::{Error, ErrorKind, Result};
use crate::source::{self, Source};

/// Smaller buffers of a sink are refused: each is a call there and back.
const LEAST_BUFFER: usize = 4096;
/// A thread costs some 20 us, in which this much is read.
const WORTH_A_THREAD: u64 = 512 << 10;

/// Smaller loads don't look whether the page cache has their bytes: that costs 25 us, a tenth
/// and more of what they take where it has.
const WORTH_A_LOOK: u64 = 2 << 20;

/// A checked load.
pub(super) struct CheckedLoad<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) tasks: &'a [Task<'a>],
    pub(super) options: LoadOptions,
    pub(super) threads: usize,
    pub(super) budget: MemoryBudget,
    pub(super) total: u64,
    /// Whether the caller knows of items, so that errors name them.
    pub(super) numbered: bool,
    /// Whether each read of some item is a journey.
    pub(super) journeys: bool,
    /// Whether results go to memory that nobody has touched.
    pub(super) untouched: bool,
}

impl<'a> CheckedLoad<'a> {
    pub(super) fn new(
        checkpoint: &'a Checkpoint,
        tasks: &'a [Task<'a>],
        options: &LoadOptions,
        buffers: Option<Buffers<'_>>,
    ) -> Result<Self> {
        let refuse = |text: String| Err(Error::new(ErrorKind::InvalidArgument, text));
        let mut total = 0_u64;
        for task in tasks {
            total = match total.checked_add(task.result) {
                Some(total) => total,
                None => return refuse("the items hold more bytes than 64 bits can count".to_owned()),
            };
        }
        overlap::check_sources(checkpoint, tasks, buffers.map_or(&[], |buffers| buffers.memory))?;
        let chunk = match buffers {
            None => {
                overlap::check(tasks)?;
                0
            }
            Some(buffers) => least_buffer(buffers.memory)?,
        };
        let sources = sources_of(checkpoint, tasks)?;
        let mut preferred = None;
        for source in &sources {
            if source.is_inside() && options.threads != 1 && source.is_limited() {
                // Its threads would wait for the read that waits for them.
                let text = "read_at called the library for a load of its own source, which has a max_parallel";
                return refuse(text.to_owned());
            }
            preferred = preferred.max(source.preferred_request());
        }
        let journeys = preferred.is_some();
        let threads = threads(&sources, tasks.len(), options.threads, total, buffers, journeys);
        let staging = options.staging_bytes;
        let budget = match preferred {
            Some(preferred) => MemoryBudget::of_journeys(tasks, staging, preferred, threads)?,
            None => MemoryBudget::of_files(tasks, staging, threads)?,
        };
        let budget = MemoryBudget {
            chunk,
            pieces: buffers.is_some_and(|buffers| buffers.pieces),
            far: total >= convert::FAR_FROM as u64,
            ..budget
        };
        let threads = if journeys { threads } else { budget.sets };
        let load = Self {
            checkpoint,
            tasks,
            options: *options,
            threads,
            budget,
            total,
            numbered: true,
            journeys,
            untouched: false,
        };
        load.check_units()?;
        Ok(load)
    }

    /// Refuses units that fit neither into staging nor into a sink's buffer.
    fn check_units(&self) -> Result<()> {
        let tasks = if self.budget.chunk == 0 { &[] } else { self.tasks };
        for (number, task) in tasks.iter().enumerate() {
            let Some(unit) = task.transform.filter(|_| task.result != 0) else { continue };
            let size = task.result_of(task.grain.min(task.picked)).unwrap_or(u64::MAX);
            if size > self.budget.chunk {
                let text = format!(
                    "a transform's unit of {} bytes does not fit into the smallest of st_sink.buffers, of {}",
                    unit.unit_size, self.budget.chunk
                );
                let error = Error::tensor(ErrorKind::BufferSize, task.name(), text);
                return Err(error.after(&format!("item {number}: ")));
            }
        }
        Ok(())
    }

    pub(super) fn plan(&self) -> Result<Plan<'a>> {
        let window = self.budget.window as u64;
        let window = if self.journeys { window } else { window.saturating_sub(reader::TWO_BLOCKS) };
        let order = Order::new(
            self.checkpoint,
            self.tasks,
            Sizes {
                window,
                chunk: self.budget.chunk,
                tile: (self.budget.scratch as u64).max(BLOCK),
                max_gap: self.options.max_gap,
                mapped: self.options.io == Io::Mapped,
                uncut: self.budget.straight == u64::MAX,
                scatter: self.budget.chunk == 0 && self.options.io != Io::Direct,
            },
        )?;
        Ok(Plan::new(order))
    }

    pub(super) fn reader<'s>(&self, shared: Option<&'s LoadState<'a>>) -> Reader<'a, 's> {
        let io = match self.options.io {
            Io::Auto if self.total < WORTH_A_LOOK => Io::Cached,
            io => io,
        };
        Reader::new(self.checkpoint, io, self.options.drop_cache, self.budget.window, shared)
    }
}

fn least_buffer(buffers: &[Memory<'_>]) -> Result<u64> {
    let refuse = |text: String| Err(Error::new(ErrorKind::InvalidArgument, text));
    let mut least = usize::MAX;
    for (number, buffer) in buffers.iter().enumerate() {
        if buffer.start() == 0 {
            return refuse(format!("st_sink.buffers[{number}].data is NULL"));
        }
        if buffer.len() < LEAST_BUFFER {
            let size = buffer.len();
            return refuse(format!("st_sink.buffers[{number}].size is {size}; expected {LEAST_BUFFER} or more"));
        }
        least = least.min(buffer.len());
    }
    if buffers.is_empty() {
        return refuse("st_sink.buffer_count is 0; expected 1 or more".to_owned());
    }
    let mut extents = memory::vec_with_capacity(buffers.len(), "a sink's buffers")?;
    extents.extend(buffers.iter().map(|buffer| buffer.extent()).zip(0..).map(|(bytes, number)| bytes.row(number)));
    sort::rows(&mut extents);
    let extents = || extents.iter().map(|row| Extent::of_row(*row));
    if let Some(((_, one), (_, next))) = extents().zip(extents().skip(1)).find(|(one, next)| one.0.overlaps(next.0)) {
        let (one, next) = (one.min(next), one.max(next));
        return refuse(format!("st_sink.buffers[{one}] and st_sink.buffers[{next}] overlap"));
    }
    Ok(least as u64)
}

/// What the tasks are read from, each once.
fn sources_of<'a>(checkpoint: &'a Checkpoint, tasks: &[Task<'_>]) -> Result<Vec<&'a Source>> {
    let count = checkpoint.shards().len();
    let mut in_use = memory::vec_with_capacity(count, "the sources of a load")?;
    in_use.resize(count, false);
    for task in tasks.iter().filter(|task| task.picked != 0) {
        if let Some(in_use) = in_use.get_mut(task.shard) {
            *in_use = true;
        }
    }
    let shards = (0..count).zip(in_use).filter(|(_, in_use)| *in_use);
    memory::collect(shards.map(|(shard, _)| checkpoint.source(shard)), count, "the sources of a load")
}

/// Threads worth having for that many tasks, and never more than asked for.
fn threads(
    sources: &[&Source],
    tasks: usize,
    asked: usize,
    total: u64,
    buffers: Option<Buffers<'_>>,
    journeys: bool,
) -> usize {
    let cores = if asked == 0 { parallel::cores() } else { 1 };
    let (mut useful, mut opens_anew) = (1, false);
    for source in sources {
        useful = useful.max(source.useful_threads(cores));
        opens_anew |= source.is_opened_anew();
    }
    let most = if opens_anew { source::descriptors_to_spare() / DESCRIPTORS } else { MOST_THREADS };
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let with_sink = match buffers {
        None => usize::MAX,
        // Small chunks are left to the thread that called anyway.
        Some(Buffers { pieces: false, .. }) if !journeys && size(total / WORTH_A_HAND_OVER) < tasks => 1,
        Some(Buffers { memory, .. }) => memory.len(),
    };
    let wanted = if asked == 0 { useful.min(with_sink) } else { asked }.min(most);
    // A reader of the caller's waits for journeys, however little they bring.
    let worth = if journeys { tasks.max(size(total >> 16)) } else { size(total / WORTH_A_THREAD) };
    wanted.min(worth).max(1)
}

/// The most that a thread has open: a file, the same past the page cache, and
/// once more to look into that.
const DESCRIPTORS: usize = 3;

/// More have never been of use.
const MOST_THREADS: usize = 256;
