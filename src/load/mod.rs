// SPDX-License-Identifier: Apache-2.0
//! Loading: an engine's own memory is filled with many tensors or parts of
//! them, converted on the way.
//!
//! Items (`item`) are checked (`task`, `overlap`) → a plan in file order makes
//! requests of them (`plan`; `stretch` where each is a journey) → threads read
//! (`work` by `reader`) and deliver (`delivery`) to memory (`target`) or a sink's
//! buffers (`shared`, `host`). What is put together run by run goes by `fetch`, a
//! quantised group by `boxes` and its `assembly`.
#![deny(unsafe_code)]

mod arrange;
mod assembly;
mod boxes;
mod budget;
mod delivery;
mod fetch;
mod host;
mod item;
mod overlap;
mod plan;
mod prefetch;
mod read;
mod reader;
mod runs;
mod shared;
mod stretch;
#[allow(unsafe_code, reason = "several threads fill one caller's memory")]
mod target;
mod task;
mod work;

pub use self::arrange::{arrange, size_of, Alignment, Arrangement};
pub use self::assembly::{Assembly, MemberBox, Rows, Span};
pub use self::item::{Item, Origin, Step, Transform};
pub use self::prefetch::{evict, prefetch};
pub use self::target::Memory;

use std::sync::atomic::AtomicI32;

use self::budget::{Budget, BLOCK};
use self::host::{Attended, Host};
use self::plan::{Means, Plan, Request, Sizes, What};
use self::reader::{Reader, Way};
use self::shared::Shared;
use self::task::{Goes, Picks, Task};
use self::work::{Worker, WORTH_A_HAND_OVER};
use crate::base::{memory, parallel, sort};
use crate::checkpoint::Checkpoint;
use crate::convert;
use crate::error::{Error, ErrorKind, Result};
use crate::record::st_piece;
use crate::source;

/// Through the page cache or past it; the numbers are the C constants `ST_IO_*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(i32)]
pub enum Io {
    /// What is in the page cache from there, the rest past it.
    #[default]
    Auto = 0,
    /// Through the page cache.
    Cached = 1,
    /// Past it, where the file system can.
    Direct = 2,
    /// Out of the mapping, where there is one; else as `Auto`.
    Mapped = 3,
}

/// How to load. The default is what is best for most.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions {
    /// Most threads at work, the calling one among them; 0: what is useful.
    pub threads: usize,
    /// Through the page cache or past it.
    pub io: Io,
    /// Most bytes of memory for staging; 0: 16 MiB.
    pub staging_bytes: u64,
    /// Whether what was read is dropped from the page cache.
    pub drop_cache: bool,
    /// Widest gap in bytes that is read over; 0: what suits the source.
    pub max_gap: u64,
}

/// Told how many bytes of how many are done; `false` ends the load.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64) -> bool;

/// Told that an item's result is whole.
pub type ItemDone<'a> = &'a mut dyn FnMut(usize);

/// What the caller of a load hears and says while it goes on.
#[derive(Default)]
pub struct Caller<'a, 'h> {
    /// Hears of bytes.
    pub progress: Option<Progress<'h>>,
    /// Hears of items; not with a sink.
    pub item_done: Option<ItemDone<'h>>,
    /// Takes the results.
    pub sink: Option<SinkBuffers<'a, 'h>>,
    /// Not 0: the load ends.
    pub cancel: Option<&'a AtomicI32>,
}

/// Takes results in pieces, in buffers of its own. Called on the thread that loads.
pub trait Sink {
    /// A buffer holds `size` bytes of an item's result, from its byte `offset` on.
    ///
    /// # Errors
    /// Ends the load with this error.
    fn chunk(&mut self, buffer: usize, item: usize, offset: u64, size: usize) -> Result<()>;

    /// A buffer holds these pieces of items' results.
    ///
    /// # Errors
    /// Ends the load with this error.
    fn pieces(&mut self, buffer: usize, pieces: &[st_piece]) -> Result<()>;

    /// Returns when the buffer may be filled again.
    ///
    /// # Errors
    /// Ends the load with this error.
    fn wait(&mut self, buffer: usize) -> Result<()>;
}

/// The buffers of a sink, and how they are filled.
#[derive(Clone, Copy)]
pub struct Buffers<'a> {
    /// Apart from one another.
    pub memory: &'a [Memory<'a>],
    /// Many items in one.
    pub pieces: bool,
}

/// A sink and the buffers it is given results in.
pub struct SinkBuffers<'a, 's> {
    /// The sink.
    pub sink: &'s mut dyn Sink,
    /// Its buffers.
    pub buffers: Buffers<'a>,
}

/// What a load would do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// Bytes of all results.
    pub bytes: u64,
    /// Bytes to be read.
    pub read_bytes: u64,
    /// Of these, bytes that belong to no item.
    pub over_read_bytes: u64,
    /// Reads.
    pub requests: u64,
    /// Most memory for staging.
    pub staging_bytes: u64,
    /// Most threads at work.
    pub threads: usize,
    /// Files read from.
    pub shards: usize,
}

/// Of a single tensor: some 2 ms of work.
const SEVERAL_THREADS: u64 = 8 << 20;
/// Smaller buffers of a sink are refused: each is a call there and back.
const LEAST_BUFFER: usize = 4096;
/// A thread costs some 20 us, in which this much is read.
const WORTH_A_THREAD: u64 = 512 << 10;

/// A checked load.
struct Load<'a> {
    checkpoint: &'a Checkpoint,
    tasks: &'a [Task<'a>],
    options: LoadOptions,
    threads: usize,
    budget: Budget,
    total: u64,
    /// Whether the caller knows of items, so that errors name them.
    numbered: bool,
    /// Whether each read of some item is a journey.
    journeys: bool,
}

/// Loads all items.
///
/// # Errors
/// Before the first byte is read: what is wrong with an item, its destination
/// or the options. Later: what reading or the sink said, or `Cancelled`; what the
/// destinations then hold is unspecified. No thread is left at work.
pub fn load<'h>(
    checkpoint: &Checkpoint,
    items: &[Item<'_>],
    options: &LoadOptions,
    caller: Caller<'_, 'h>,
) -> Result<()> {
    let Caller { progress, item_done, sink, cancel } = caller;
    let (sink, buffers) = sink.map_or((None, None), |given| (Some(given.sink), Some(given.buffers)));
    let tasks = task::all(checkpoint, items, Goes::of(sink.is_some()))?;
    let load = Load::new(checkpoint, &tasks, options, buffers)?;
    let item_done = if sink.is_some() { None } else { item_done };
    load.run(Host::new(progress, item_done, sink), buffers.map_or(&[], |buffers| buffers.memory), cancel)
}

/// What [`load`] would do, found without reading.
///
/// # Errors
/// As for [`load`], before the first byte is read.
pub fn summary(
    checkpoint: &Checkpoint,
    items: &[Item<'_>],
    options: &LoadOptions,
    buffers: Option<Buffers<'_>>,
) -> Result<Summary> {
    let tasks = task::all(checkpoint, items, Goes::of(buffers.is_some()))?;
    Load::new(checkpoint, &tasks, options, buffers)?.summary()
}

impl<'a> Load<'a> {
    fn new(
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
        let mut preferred = None;
        for task in tasks.iter().filter(|task| task.picked != 0) {
            let source = checkpoint.source(task.tensor.shard())?;
            if source.is_inside() && options.threads != 1 && source.is_limited() {
                // Its threads would wait for the read that waits for them.
                let text = "read_at called the library for a load of its own source, which has a max_parallel";
                return refuse(text.to_owned());
            }
            preferred = preferred.max(source.preferred_request());
        }
        let journeys = preferred.is_some();
        let threads = threads(checkpoint, tasks, options.threads, total, buffers, journeys)?;
        let staging = options.staging_bytes;
        let budget = match preferred {
            Some(preferred) => Budget::of_journeys(tasks, staging, preferred, threads)?,
            None => Budget::of_files(tasks, staging, threads)?,
        };
        let budget = Budget {
            chunk,
            pieces: buffers.is_some_and(|buffers| buffers.pieces),
            far: total >= convert::FAR_FROM as u64,
            ..budget
        };
        let threads = if journeys { threads } else { budget.sets };
        let load = Self { checkpoint, tasks, options: *options, threads, budget, total, numbered: true, journeys };
        load.check_units()?;
        Ok(load)
    }

    /// Refuses units that fit neither into staging nor into a sink's buffer.
    fn check_units(&self) -> Result<()> {
        for (number, task) in self.tasks.iter().enumerate() {
            let Some(unit) = task.transform.filter(|_| self.budget.chunk != 0 && task.result != 0) else { continue };
            let size = task.result_of(task.grain.min(task.picked)).unwrap_or(u64::MAX);
            if size > self.budget.chunk {
                let text = format!(
                    "item {number}: a unit of {} bytes does not fit into the sink's smallest buffer, of {}",
                    unit.unit_size, self.budget.chunk
                );
                return Err(Error::tensor(ErrorKind::BufferSize, task.name(), text));
            }
        }
        Ok(())
    }

    fn plan(&self) -> Result<Plan<'a>> {
        let window = self.budget.window as u64;
        let window = if self.journeys { window } else { window.saturating_sub(reader::TWO_BLOCKS) };
        Plan::new(
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
        )
    }

    fn reader<'s>(&self, shared: Option<&'s Shared<'a>>) -> Reader<'a, 's> {
        Reader::new(self.checkpoint, self.options.io, self.options.drop_cache, self.budget.window, shared)
    }

    /// Works on this thread and others until all is done or something failed.
    fn run<'h>(&self, host: Host<'h>, buffers: &'a [Memory<'a>], cancel: Option<&'a AtomicI32>) -> Result<()> {
        let (mut host, mut shared) = (host, Shared::new(self.plan()?, self.total, buffers, cancel));
        let host = &mut host;
        if host.counts_items() {
            shared.count_items(self.tasks.iter().map(|task| task.picked))?;
        }
        if self.budget.shared {
            shared.share_staging(self.budget.sets);
        }
        let shared = &shared;
        // Where reads are long, the thread that called keeps out of them, so that its
        // callbacks need not wait for one.
        let apart = self.journeys && self.threads > 1 && host.has_callbacks();
        let threads = self.threads.saturating_add(usize::from(apart));
        parallel::run(threads, &|| Worker::new(self, shared, None).run(), &mut || {
            let mut helps = !apart;
            loop {
                if helps {
                    Worker::new(self, shared, Some(&mut *host)).run();
                }
                match shared.attend(host, helps) {
                    Attended::Done => break,
                    Attended::Handed | Attended::Alone => helps = true,
                }
            }
        });
        shared.settle(host);
        self.drop_cached();
        shared.failure()
    }

    /// Requests leave behind the pages that they share with their neighbours.
    fn drop_cached(&self) {
        if !self.options.drop_cache {
            return;
        }
        let mut reader = self.reader(None);
        let count = self.checkpoint.shards().len();
        // Without room for this list they stay: it is a hint.
        let Ok(mut read) = memory::vec_with_capacity::<Option<(u64, u64)>>(count, "shards") else { return };
        read.resize(count, None);
        for task in self.tasks.iter().filter(|task| task.picked != 0) {
            if let Some(read) = read.get_mut(task.tensor.shard()) {
                let (start, end) = read.unwrap_or((task.start, task.end));
                *read = Some((start.min(task.start), end.max(task.end)));
            }
        }
        for (shard, read) in read.into_iter().enumerate() {
            // It has been read from: that it can't be opened any more is no error.
            if let Some((start, end)) = read.filter(|_| reader.way(shard, 0, 0).is_ok()) {
                reader.done(shard, start, end.saturating_sub(start));
            }
        }
    }

    fn summary(&self) -> Result<Summary> {
        let mut plan = self.plan()?;
        let mut found = Summary { bytes: self.total, threads: self.threads, ..Summary::default() };
        let mut last_shard = None;
        while let Some(Request { shard, len, what, .. }) = plan.next()? {
            let source = self.checkpoint.source(shard)?;
            let (steps, read) = match what {
                What::Whole { task, .. } => (self.reads_of(task, shard, len)?, len),
                What::Parts(parts, means) => match means {
                    Means::Staging => (source.reads(len).min(len), len),
                    Means::Runs | Means::Either => {
                        let gap = match self.options.max_gap {
                            0 => source.widest_gap(),
                            given => given,
                        };
                        runs::calls(&parts, self.tasks, gap)?
                    }
                },
                What::Tile { task, at, size } => self.reads_of_tile(task, at, size)?,
                What::Boxes { .. } => (1, len),
            };
            found.requests = found.requests.saturating_add(steps);
            found.read_bytes = found.read_bytes.saturating_add(read);
            found.shards = found.shards.saturating_add(usize::from(last_shard != Some(shard)));
            last_shard = Some(shard);
        }
        let picked = self.tasks.iter().map(Task::read_size).fold(0, u64::saturating_add);
        found.over_read_bytes = found.read_bytes.saturating_sub(picked);
        found.staging_bytes = self.budget.total();
        Ok(found)
    }

    /// How many reads through the page cache a request for one item takes.
    fn reads_of(&self, task: usize, shard: usize, len: u64) -> Result<u64> {
        let source = self.checkpoint.source(shard)?;
        let plain = self.tasks.get(task).is_none_or(Task::is_plain);
        let step = if plain { self.budget.straight } else { self.reader(None).step(Way::of(source)) }.max(1);
        let whole = len.checked_div(step).unwrap_or_default().saturating_mul(source.reads(step));
        Ok(whole.saturating_add(source.reads(len.checked_rem(step).unwrap_or_default())))
    }

    /// The same for bytes that are put together run by run, about: and how many bytes.
    fn reads_of_tile(&self, task: usize, at: u64, size: u64) -> Result<(u64, u64)> {
        let Some(task) = self.tasks.get(task) else { return Ok((0, 0)) };
        let Picks::Several(selection) = &task.picks else { return Ok((1, size)) };
        let source = self.checkpoint.source(task.tensor.shard())?;
        let (mut steps, mut bytes) = (0_u64, 0_u64);
        if at == 0 {
            for read in selection.reads(source.widest_gap(), self.budget.window as u64) {
                steps = steps.saturating_add(source.reads(read.size).min(read.size));
                bytes = bytes.saturating_add(read.size);
            }
        }
        Ok((steps, bytes))
    }
}

fn least_buffer(buffers: &[Memory<'_>]) -> Result<u64> {
    let refuse = |text: String| Err(Error::new(ErrorKind::InvalidArgument, text));
    let mut least = usize::MAX;
    for (number, buffer) in buffers.iter().enumerate() {
        if buffer.len() < LEAST_BUFFER {
            return refuse(format!(
                "the sink's buffer {number} has {} bytes, and needs {LEAST_BUFFER} at least",
                buffer.len()
            ));
        }
        least = least.min(buffer.len());
    }
    if buffers.is_empty() {
        return refuse("the sink has no buffers".to_owned());
    }
    let mut extents = memory::vec_with_capacity(buffers.len(), "a sink's buffers")?;
    extents.extend(buffers.iter().map(|buffer| [buffer.start() as u64, buffer.len() as u64, 0]));
    sort::rows(&mut extents);
    for pair in extents.windows(2) {
        if let [[start, len, _], [next, ..]] = pair {
            if start.saturating_add(*len) > *next {
                return refuse("two of the sink's buffers overlap".to_owned());
            }
        }
    }
    Ok(least as u64)
}

/// Threads worth having for these tasks, and never more than asked for.
fn threads(
    checkpoint: &Checkpoint,
    tasks: &[Task<'_>],
    asked: usize,
    total: u64,
    buffers: Option<Buffers<'_>>,
    journeys: bool,
) -> Result<usize> {
    let cores = parallel::cores();
    let (mut useful, mut opens_anew) = (1, false);
    for task in tasks.iter().filter(|task| task.picked != 0) {
        let source = checkpoint.source(task.tensor.shard())?;
        useful = useful.max(source.useful_threads(cores));
        opens_anew |= source.is_opened_anew();
    }
    let most = if opens_anew { source::descriptors_to_spare() / DESCRIPTORS } else { MOST_THREADS };
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let with_sink = match buffers {
        None => usize::MAX,
        // Each of them fills one, while the sink has another.
        Some(Buffers { memory, pieces: true }) => memory.len().saturating_sub(1),
        // Small chunks are left to the thread that called anyway.
        Some(_) if !journeys && size(total / WORTH_A_HAND_OVER) < tasks.len() => 1,
        Some(Buffers { memory, .. }) => memory.len(),
    };
    let wanted = if asked == 0 { useful.min(with_sink) } else { asked }.min(most);
    // A reader of the caller's waits for journeys, however little they bring.
    let worth = if journeys { tasks.len().max(size(total >> 16)) } else { size(total / WORTH_A_THREAD) };
    Ok(wanted.min(worth).max(1))
}

/// The most that a thread has open: a file, the same past the page cache, and
/// once more to look into that.
const DESCRIPTORS: usize = 3;

/// More have never been of use.
const MOST_THREADS: usize = 256;
