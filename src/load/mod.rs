// SPDX-License-Identifier: Apache-2.0
//! Loading: an engine's own memory is filled with many tensors or parts of
//! them, converted on the way.
//!
//! Items are checked (`task`, `overlap`) → a plan in file order makes requests of
//! them (`plan`) → threads read (`reader`) and deliver (`work`) to memory
//! (`target`) or a sink's buffers (`shared`).
#![deny(unsafe_code)]

mod overlap;
mod plan;
mod prefetch;
mod read;
mod reader;
mod shared;
#[allow(unsafe_code, reason = "several threads fill one caller's memory")]
mod target;
mod task;
mod work;

pub use self::prefetch::prefetch;
pub use self::target::Memory;

use self::plan::{Plan, Request, Sizes, What};
use self::reader::{Reader, Way};
use self::shared::{Host, Shared};
use self::task::Task;
use self::work::Worker;
use crate::base::memory;
use crate::base::parallel;
use crate::base::sort;
use crate::checkpoint::Checkpoint;
use crate::convert;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::record::{Range, Tensor};
use crate::source;

/// One thing to load.
#[derive(Clone, Copy)]
pub struct Item<'a> {
    /// A record of the checkpoint, or a copy of one.
    pub tensor: &'a Tensor,
    /// Which part of it; dimensions without a range are taken whole.
    pub ranges: &'a [Range],
    /// What to convert to; `None`: as stored.
    pub dtype: Option<Dtype>,
    /// Where the result goes; nothing with a sink.
    pub place: Memory<'a>,
    /// Bytes from one element of the result to the next, for each dimension; `None`: dense.
    pub strides: Option<&'a [i64]>,
}

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
}

/// Told how many bytes of how many are done; `false` ends the load.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64) -> bool;

/// Takes results in pieces, in buffers of its own. Called on the thread that loads.
pub trait Sink {
    /// A buffer holds `size` bytes of an item's result, from its byte `offset` on.
    ///
    /// # Errors
    /// Ends the load with this error.
    fn chunk(&mut self, buffer: usize, item: usize, offset: u64, size: usize) -> Result<()>;

    /// Returns when the buffer may be filled again.
    ///
    /// # Errors
    /// Ends the load with this error.
    fn wait(&mut self, buffer: usize) -> Result<()>;
}

/// A sink and the buffers it is given results in.
pub struct SinkBuffers<'a, 's> {
    /// The sink.
    pub sink: &'s mut dyn Sink,
    /// Its buffers.
    pub buffers: &'a [Memory<'a>],
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

/// What staging buffers are multiples of.
const BLOCK: u64 = source::BLOCK as u64;
const DEFAULT_STAGING: u64 = 16 << 20;
/// The least that makes reads of a useful size.
const LEAST_STAGING: u64 = 64 << 10;
/// A thread has no use for more.
const MOST_STAGING: u64 = 4 << 20;
/// Where larger requests are cut while they are read, so that a load that has
/// been cancelled ends soon.
const STRAIGHT: u64 = 8 << 20;
/// Of a single tensor: some 2 ms of work.
const SEVERAL_THREADS: u64 = 8 << 20;
/// Smaller buffers of a sink are refused: each is a call there and back.
const LEAST_BUFFER: usize = 4096;
/// A thread costs some 20 us, in which this much is read.
const WORTH_A_THREAD: u64 = 512 << 10;

/// The memory that one thread has, and a sink's buffers.
#[derive(Clone, Copy)]
struct Budget {
    /// What files are read into.
    window: usize,
    /// Each of two places where bytes are put together.
    desk: usize,
    /// Bytes of a sink's smallest buffer; 0: no sink.
    chunk: u64,
    /// Most bytes of a read straight to where they go.
    straight: u64,
    /// Results are too many for the caches, where each piece is converted to.
    far: bool,
}

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
    progress: Option<Progress<'h>>,
    sink: Option<SinkBuffers<'_, 'h>>,
) -> Result<()> {
    let (sink, buffers) = sink.map_or((None, None), |given| (Some(given.sink), Some(given.buffers)));
    let tasks = task::all(checkpoint, items, sink.is_some())?;
    let load = Load::new(checkpoint, &tasks, options, buffers)?;
    load.run(progress, sink, buffers.unwrap_or_default())
}

/// What [`load`] would do, found without reading.
///
/// # Errors
/// As for [`load`], before the first byte is read.
pub fn summary(
    checkpoint: &Checkpoint,
    items: &[Item<'_>],
    options: &LoadOptions,
    buffers: Option<&[Memory<'_>]>,
) -> Result<Summary> {
    let tasks = task::all(checkpoint, items, buffers.is_some())?;
    Load::new(checkpoint, &tasks, options, buffers)?.summary()
}

impl<'a> Load<'a> {
    fn new(
        checkpoint: &'a Checkpoint,
        tasks: &'a [Task<'a>],
        options: &LoadOptions,
        buffers: Option<&[Memory<'_>]>,
    ) -> Result<Self> {
        let refuse = |text: String| Err(Error::new(ErrorKind::InvalidArgument, text));
        let mut total = 0_u64;
        for task in tasks {
            total = match total.checked_add(task.result) {
                Some(total) => total,
                None => return refuse("the items hold more bytes than 64 bits can count".to_owned()),
            };
        }
        let chunk = match buffers {
            None => {
                overlap::check(tasks)?;
                0
            }
            Some(buffers) => least_buffer(buffers)?,
        };
        let staging = match options.staging_bytes {
            0 => DEFAULT_STAGING,
            given if given < LEAST_STAGING => {
                return refuse(format!("staging_bytes {given} is below the least, {LEAST_STAGING}"));
            }
            given => given,
        };
        let threads = threads(checkpoint, tasks, options.threads, total)?;
        let affordable = usize::try_from(staging / LEAST_STAGING).unwrap_or(usize::MAX);
        let threads = threads.min(affordable).max(1);
        let share = staging.checked_div(threads as u64).unwrap_or(staging).min(MOST_STAGING);
        let budget = Budget {
            window: blocks(share / 2),
            desk: blocks(share / 4),
            chunk,
            straight: STRAIGHT,
            far: total >= convert::FAR_FROM as u64,
        };
        Ok(Self { checkpoint, tasks, options: *options, threads, budget, total, numbered: true })
    }

    fn plan(&self) -> Result<Plan<'a>> {
        let window = (self.budget.window as u64).saturating_sub(reader::TWO_BLOCKS);
        Plan::new(
            self.checkpoint,
            self.tasks,
            Sizes { window, chunk: self.budget.chunk, uncut: self.budget.straight == u64::MAX },
        )
    }

    fn reader(&self) -> Reader<'a> {
        Reader::new(self.checkpoint, self.options.io, self.options.drop_cache, self.budget.window)
    }

    /// Works on this thread and others until all is done or something failed.
    fn run<'h>(
        &self,
        progress: Option<Progress<'h>>,
        sink: Option<&'h mut dyn Sink>,
        buffers: &'a [Memory<'a>],
    ) -> Result<()> {
        let shared = &Shared::new(self.plan()?, buffers);
        let host = &mut Host { progress, sink, total: self.total, told: None };
        parallel::run(self.threads, &|| Worker::new(self, shared, None).run(), &mut || {
            Worker::new(self, shared, Some(&mut *host)).run();
            shared.attend(host);
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
        let mut reader = self.reader();
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
        let (mut last_shard, mut picked) = (None, 0_u64);
        while let Some(Request { shard, len, what, .. }) = plan.next()? {
            let steps = match what {
                What::Whole { task, .. } => {
                    picked = picked.saturating_add(len);
                    self.reads_of(task, shard, len)?
                }
                What::Parts(parts) => {
                    picked = parts.iter().map(|part| part.picked).fold(picked, u64::saturating_add);
                    self.checkpoint.source(shard)?.reads(len)
                }
            };
            found.requests = found.requests.saturating_add(steps);
            found.read_bytes = found.read_bytes.saturating_add(len);
            found.shards = found.shards.saturating_add(usize::from(last_shard != Some(shard)));
            last_shard = Some(shard);
        }
        found.over_read_bytes = found.read_bytes.saturating_sub(picked);
        let share = (self.budget.window as u64).saturating_add((self.budget.desk as u64).saturating_mul(2));
        found.staging_bytes = share.saturating_mul(self.threads as u64);
        Ok(found)
    }

    /// How many reads through the page cache a request for one item takes.
    fn reads_of(&self, task: usize, shard: usize, len: u64) -> Result<u64> {
        let source = self.checkpoint.source(shard)?;
        let staged = self.tasks.get(task).is_some_and(|task| task.converts() || task.layout.is_some());
        let step = if staged { self.reader().step(Way::of(source)) } else { self.budget.straight }.max(1);
        let whole = len.checked_div(step).unwrap_or_default().saturating_mul(source.reads(step));
        Ok(whole.saturating_add(source.reads(len.checked_rem(step).unwrap_or_default())))
    }
}

/// Whole blocks of at most so many bytes.
fn blocks(bytes: u64) -> usize {
    usize::try_from(bytes / BLOCK).unwrap_or(0).saturating_mul(source::BLOCK)
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
fn threads(checkpoint: &Checkpoint, tasks: &[Task<'_>], asked: usize, total: u64) -> Result<usize> {
    let cores = parallel::cores();
    let (mut useful, mut opens_anew) = (1, false);
    for task in tasks.iter().filter(|task| task.picked != 0) {
        let source = checkpoint.source(task.tensor.shard())?;
        useful = useful.max(source.useful_threads(cores));
        opens_anew |= source.is_opened_anew();
    }
    let most = if opens_anew { source::descriptors_to_spare() / DESCRIPTORS } else { MOST_THREADS };
    let wanted = if asked == 0 { useful } else { asked }.min(most);
    // A reader of the caller's waits for journeys, however little they bring.
    let journeys = tasks
        .iter()
        .any(|task| checkpoint.source(task.tensor.shard()).is_ok_and(|source| source.preferred_request().is_some()));
    let worth = if journeys {
        tasks.len().max(usize::try_from(total >> 16).unwrap_or(usize::MAX))
    } else {
        usize::try_from(total / WORTH_A_THREAD).unwrap_or(usize::MAX)
    };
    Ok(wanted.min(worth).max(1))
}

/// The most that a thread has open: a file, the same past the page cache, and
/// once more to look into that.
const DESCRIPTORS: usize = 3;

/// More have never been of use.
const MOST_THREADS: usize = 256;
